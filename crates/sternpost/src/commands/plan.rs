//! `sternpost plan`: the steps from here to the wanted state.

use crate::terminal::show;
use config::failure::{Exit, Failure};
use formats::{DomainName, Mode};
use operations::RolloutContext;
use operations::apply_failure;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::publish::{Change, alias_lines};
use receiver::rollout::desired::DesiredState;
use receiver::rollout::gate::Gate;
use receiver::rollout::plan::{Stage, Step, WaitReason, plan};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// For which domains.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domains [default: all of the configuration]
    domains: Vec<String>,
    /// One line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
}

/// The plan of a domain, for people and scripts.
#[derive(Debug, Serialize)]
pub struct Plan {
    domain: DomainName,
    /// Where it is to end up.
    wanted: Mode,
    /// Where it is.
    mode: Option<Mode>,
    stages: Vec<Shown>,
}

/// A stage as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
enum Shown {
    Step {
        #[serde(rename = "do")]
        word: &'static str,
        text: String,
        why: &'static str,
        by_hand: bool,
        records: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        not_before: String,
        proof: String,
    },
    Wait {
        r#for: WaitReason,
        until: String,
        why: &'static str,
    },
    Evidence {
        gate: Gate,
    },
}

/// Shows the plans.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
    let mut plans = Vec::new();
    for spec in context.domains(&options.domains)? {
        plans.push(of(&context, &spec).await?);
    }
    if options.json {
        let all = serde_json::json!({ "schema": 1, "plans": plans });
        show(&format!("{all}\n"));
    } else {
        show(&plans.iter().map(in_words).collect::<Vec<_>>().join("\n"));
    }
    context.store.close().await;
    Ok(Exit::Fine)
}

async fn of(context: &RolloutContext, spec: &DomainSpec) -> Result<Plan, Failure> {
    let (wanted, applier) = (context.wanted(spec), context.applier(spec)?);
    let (rollout, seen) = applier.look(&wanted).await.map_err(|error| apply_failure(&spec.name, &error))?;
    let now = context.world.clock.now();
    let (_, gate) = context.gate(&spec.name, &rollout).await?;
    let stages = plan(&wanted, &rollout, &seen, RolloutContext::permit(&rollout), now);
    Ok(Plan {
        domain: spec.name.clone(),
        wanted: spec.mode,
        mode: rollout.mode.map(|known| known.mode),
        stages: stages.into_iter().map(|stage| shown(stage, spec, &wanted, &gate)).collect(),
    })
}

fn shown(stage: Stage, spec: &DomainSpec, wanted: &DesiredState, gate: &Gate) -> Shown {
    match stage {
        Stage::Evidence => Shown::Evidence { gate: gate.clone() },
        Stage::Wait(waiting, until) => {
            Shown::Wait { r#for: waiting, until: until.to_string(), why: why(waiting) }
        }
        Stage::Step(step, at) => {
            let change = Change::of(wanted, &step).ok().flatten();
            let records = match &step {
                Step::Delegate(aliases) => alias_lines(aliases),
                _ => change.map(|change| change.lines()).unwrap_or_default(),
            };
            Shown::Step {
                word: step.word(),
                text: step.to_string(),
                why: step.why(),
                by_hand: is_by_hand(&step, spec),
                records,
                file: match &step {
                    Step::Serve(policy) => Some(policy.to_string()),
                    _ => None,
                },
                not_before: at.to_string(),
                proof: step.proof(),
            }
        }
    }
}

/// True when the operator has to do it.
fn is_by_hand(step: &Step, spec: &DomainSpec) -> bool {
    match step {
        Step::Serve(_) | Step::TakeDown => spec.host != HostedBy::Sternpost,
        Step::AddMx(_) | Step::RemoveMx(_) | Step::Delegate(_) => true,
        _ => spec.dns == DnsBy::Hand,
    }
}

/// Why time has to pass.
pub fn why(waiting: WaitReason) -> &'static str {
    match waiting {
        WaitReason::BeforeNewMx => "until then senders may hold a policy that refuses the new MX hosts",
        WaitReason::BeforeNarrowing => "until then senders may still send to MX hosts that are gone",
        WaitReason::BeforeRemoval => "until then senders may hold a policy of this domain",
    }
}

fn in_words(plan: &Plan) -> String {
    let mut out = String::new();
    let now = plan.mode.map_or("no policy".to_owned(), |mode| mode.to_string());
    if plan.stages.is_empty() {
        let _ = writeln!(out, "{}: nothing to do, it is as wanted ({now}).", plan.domain);
        return out;
    }
    let _ = writeln!(out, "{}: from {now} to {}", plan.domain, plan.wanted);
    for (at, stage) in plan.stages.iter().enumerate() {
        let _ = writeln!(out, "\n{:>3}. {}", at + 1, headline(stage));
        for line in below(stage) {
            let _ = writeln!(out, "     {line}");
        }
    }
    let _ = writeln!(out, "\nCarry it out: sternpost apply {}", plan.domain);
    out
}

fn headline(stage: &Shown) -> String {
    match stage {
        Shown::Step { text, by_hand, .. } => format!("{text}{}", if *by_hand { "   (by you)" } else { "" }),
        Shown::Wait { until, .. } => format!("wait until {until}"),
        Shown::Evidence { gate } => format!("evidence that enforcement loses no mail: {gate}"),
    }
}

fn below(stage: &Shown) -> Vec<String> {
    match stage {
        Shown::Step { why, records, file, proof, .. } => {
            let mut lines = vec![(*why).to_owned()];
            lines.extend(records.iter().map(|record| format!("  {record}")));
            lines.extend(file.iter().flat_map(|file| file.lines()).map(|line| format!("  {line}")));
            lines.push(format!("done when {proof}"));
            lines
        }
        Shown::Wait { why, .. } => vec![(*why).to_owned()],
        Shown::Evidence { .. } => vec!["or your word: sternpost promote".to_owned()],
    }
}
