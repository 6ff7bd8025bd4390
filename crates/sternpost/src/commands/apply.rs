//! `sternpost apply`: carries the plan out, step by step, each proved from outside.

use super::plan::why;
use crate::terminal::{marks, say, show};
use config::failure::{Exit, Failure};
use jiff::Timestamp;
use operations::RolloutContext;
use operations::{APPLY_LEASE, apply_failure};
use receiver::domain::{DomainSpec, HostedBy};
use receiver::publish::{Change, alias_lines};
use receiver::rollout::desired::DesiredState;
use receiver::rollout::plan::{PlannedStep, Step};
use receiver::rollout::{Actor, Applier, StepOutcome};
use std::path::Path;
use std::time::{Duration, Instant};

/// For which domains, and how patient.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domains [default: all of the configuration]
    domains: Vec<String>,
    /// Wait so many seconds for a step to be seen from outside
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    patience: u64,
    /// Wait also where a plan says so, for as long as it takes
    #[arg(long)]
    wait: bool,
    /// One line of JSON at the end (docs/receiving.md)
    #[arg(long)]
    json: bool,
}

/// Between two looks at whether a step shows.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How it ended for a domain.
#[derive(serde::Serialize)]
struct Outcome {
    domain: String,
    done: Vec<Told>,
    /// `done`, `wait`, `evidence` or `unseen`.
    rest: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

#[derive(serde::Serialize)]
struct Told {
    step: String,
    proof: String,
}

/// Carries the plans out.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
    let mut outcomes = Vec::new();
    for spec in context.domains(&options.domains)? {
        let work = Work {
            context: &context,
            spec: &spec,
            options,
            applier: context.applier(&spec)?,
            wanted: context.wanted(&spec),
        };
        outcomes.push(work.under_lease().await?);
    }
    context.store.close().await;
    let unseen = outcomes.iter().any(|outcome| outcome.rest == "unseen");
    if options.json {
        show(&format!("{}\n", serde_json::json!({ "schema": 1, "outcomes": outcomes })));
    }
    Ok(if unseen { Exit::Findings } else { Exit::Fine })
}

struct Work<'a> {
    context: &'a RolloutContext,
    spec: &'a DomainSpec,
    options: &'a Options,
    applier: Applier,
    wanted: DesiredState,
}

impl Work<'_> {
    /// Nobody else works on the domain meanwhile.
    async fn under_lease(&self) -> Result<Outcome, Failure> {
        self.hold().await?;
        let outcome = self.all_steps().await;
        self.context.release(&self.spec.name).await?;
        outcome
    }

    async fn hold(&self) -> Result<(), Failure> {
        if self.context.hold(&self.spec.name).await? {
            return Ok(());
        }
        Err(Failure::new(
            self.spec.name.to_string(),
            "another program is applying its plan just now",
            format!(
                "Wait until it is done. If it was killed, its hold ends by itself within {} minutes.",
                APPLY_LEASE.as_mins()
            ),
        ))
    }

    async fn all_steps(&self) -> Result<Outcome, Failure> {
        let mut outcome = Outcome {
            domain: self.spec.name.to_string(),
            done: Vec::new(),
            rest: "done",
            until: None,
            missing: None,
        };
        self.tell(&format!("{}", self.spec.name));
        loop {
            self.hold().await?;
            if self.context.promote_by_evidence(self.spec).await? {
                self.tell(&format!(
                    "  {} the evidence is there, and auto_promote allows enforcement",
                    marks().fine
                ));
            }
            let rollout = self.context.rollout(&self.spec.name).await?;
            let turn = self.applier.take_step(&self.wanted, RolloutContext::permit(&rollout)).await;
            match turn.map_err(|error| apply_failure(&self.spec.name, &error))? {
                StepOutcome::Started(step, hand) => match self.see_through(&step, hand).await? {
                    Ok(proof) => outcome.done.push(Told { step: step.to_string(), proof }),
                    Err(missing) => {
                        (outcome.rest, outcome.missing) = ("unseen", Some(missing));
                        return Ok(outcome);
                    }
                },
                StepOutcome::Idle(PlannedStep::Wait(until, waiting)) if self.options.wait => {
                    self.tell(&format!("  {} waiting until {until}: {}", marks().info, why(waiting)));
                    self.sleep_until(until).await?;
                }
                StepOutcome::Idle(PlannedStep::Wait(until, waiting)) => {
                    self.tell(&format!(
                        "  {} nothing to do before {until}: {}.\n    Run `sternpost apply {}` again then.",
                        marks().info,
                        why(waiting),
                        self.spec.name
                    ));
                    (outcome.rest, outcome.until) = ("wait", Some(until.to_string()));
                    return Ok(outcome);
                }
                StepOutcome::Idle(PlannedStep::Gate) => {
                    let (_, gate) = self.context.gate(&self.spec.name, &rollout).await?;
                    self.tell(&format!("  {} in testing. Enforcement takes evidence, which is {gate}.\n    Allow it with `sternpost promote {}`.", marks().info, self.spec.name));
                    outcome.rest = "evidence";
                    return Ok(outcome);
                }
                StepOutcome::Idle(_) => {
                    self.tell(&format!("  {} as wanted: mode {}", marks().fine, self.spec.mode));
                    return Ok(outcome);
                }
            }
        }
    }

    /// Sees to it that a step shows. The outer error is ours, the inner what is missing.
    async fn see_through(&self, step: &Step, hand: Actor) -> Result<Result<String, String>, Failure> {
        self.tell(&format!("  {} {step}", marks().info));
        if hand == Actor::Operator {
            self.tell(&self.instruction(step));
        }
        let begun = Instant::now();
        let mut told = String::new();
        loop {
            let proven = self.applier.verify(&self.wanted, step).await;
            match proven.map_err(|error| apply_failure(&self.spec.name, &error))? {
                Ok(applied) => {
                    self.tell(&format!("  {} {}", marks().fine, applied.proof));
                    return Ok(Ok(applied.proof));
                }
                Err(instead) if begun.elapsed() >= Duration::from_secs(self.options.patience) => {
                    self.tell(&format!(
                        "  {} not seen after {} seconds: {instead}.\n    Run `sternpost apply {}` again when it is there: it goes on here.",
                        marks().warning, self.options.patience, self.spec.name
                    ));
                    return Ok(Err(instead));
                }
                Err(instead) => {
                    if told != instead {
                        self.tell(&format!("    not yet: {instead}"));
                        told = instead;
                    }
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
    }

    fn instruction(&self, step: &Step) -> String {
        let indent = |text: &str| text.lines().map(|line| format!("      {line}\n")).collect::<String>();
        if let Ok(Some(change)) = Change::of(&self.wanted, step) {
            let lines = change.lines();
            if lines.is_empty() {
                return format!("    Remove the TXT record {} that begins with v=STSv1.", change.name);
            }
            return format!(
                "    Put this into the zone of {}:\n{}    or in a web panel:\n{}",
                self.spec.name,
                indent(&lines.join("\n")),
                indent(&change.panel())
            );
        }
        match step {
            Step::Serve(policy) => {
                let how = match self.spec.host {
                    HostedBy::Static => format!(
                        " `sternpost export --for PLATFORM DIR --domain {}` makes all that it takes.",
                        self.spec.name
                    ),
                    _ => String::new(),
                };
                format!(
                    "    Serve this at https://mta-sts.{}/.well-known/mta-sts.txt:\n{}   {how}",
                    self.spec.name,
                    indent(&policy.to_string())
                )
            }
            Step::Delegate(aliases) => format!(
                "    The owner of {} puts this into its zone, once and for all:\n{}",
                self.spec.name,
                indent(&alias_lines(aliases).join("\n"))
            ),
            Step::TakeDown => "    Take the policy file and the name mta-sts away.".to_owned(),
            _ => "    That is yours to do: MX records are never changed from here.".to_owned(),
        }
    }

    async fn sleep_until(&self, until: Timestamp) -> Result<(), Failure> {
        while self.context.world.clock.now() < until {
            tokio::time::sleep(POLL_INTERVAL).await;
            self.hold().await?;
        }
        Ok(())
    }

    fn tell(&self, line: &str) {
        if !self.options.json {
            say(line);
        }
    }
}
