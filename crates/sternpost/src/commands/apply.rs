//! `sternpost apply`: carries out a domain's plan. It takes one step at a time, verifies it from outside, and stops
//! where time or evidence is needed. The steps are in [`receiver::rollout`]; this module waits for them, prints
//! instructions for those of the operator, and reports the outcome.

use super::plan::why;
use crate::terminal::{marks, say, show};
use config::failure::{Exit, Failure};
use jiff::Timestamp;
use net::https::policy_host;
use operations::RolloutContext;
use operations::{APPLY_LEASE, apply_failure, store_failure};
use receiver::domain::{DomainSpec, HostedBy};
use receiver::publish::{Change, alias_lines};
use receiver::rollout::desired::DesiredState;
use receiver::rollout::plan::{PlannedStep, Step};
use receiver::rollout::{Actor, Applier, RolloutState, StepOutcome};
use std::path::Path;
use std::time::{Duration, Instant};

/// The options of `sternpost apply`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Domains [default: all]
    domains: Vec<String>,
    /// Seconds to wait for each step to become visible
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    patience: u64,
    /// Also wait out the waiting periods in the plan
    #[arg(long)]
    wait: bool,
    /// Announce the policy again under a new id, so that senders fetch it
    #[arg(long)]
    new_id: bool,
    /// Have the running server order a new certificate with a new key for the policy host
    #[arg(long)]
    new_certificate: bool,
    /// Print the outcome as one line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
}

/// Time between two attempts to verify a step.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The outcome for a domain.
#[derive(serde::Serialize)]
struct Outcome {
    domain: String,
    done: Vec<DoneStep>,
    /// Why it stopped: `done`, `wait`, `evidence` or `unseen`.
    rest: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The end of the waiting period, for `wait`.
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// What was observed instead of the step's result, for `unseen`.
    missing: Option<String>,
}

#[derive(serde::Serialize)]
struct DoneStep {
    step: String,
    proof: String,
}

/// Carries out the plan of each domain.
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
    /// Holds the domain's lease meanwhile, so that no other process applies its plan.
    async fn under_lease(&self) -> Result<Outcome, Failure> {
        self.hold().await?;
        let outcome = match self.made_due().await {
            Ok(()) => self.all_steps().await,
            Err(failure) => Err(failure),
        };
        self.context.release(&self.spec.name).await?;
        outcome
    }

    /// Makes due what the operator asked for although nothing has changed.
    async fn made_due(&self) -> Result<(), Failure> {
        let (domain, store) = (&self.spec.name, &self.context.store);
        if self.options.new_certificate {
            self.order_again().await?;
        }
        if self.options.new_id {
            let due = |rollout: &mut RolloutState| (rollout.announce_due, rollout.offered) = (true, None);
            store.change_rollout(domain, due).await.map_err(|error| store_failure(&error))?;
        }
        Ok(())
    }

    async fn order_again(&self) -> Result<(), Failure> {
        let domain = &self.spec.name;
        let host = policy_host(domain).map_err(|error| Failure::usage(domain.to_string(), error, ""))?;
        let now = self.context.world.clock.now();
        let renewed = self.context.store.renew_certificate(&host, now).await;
        match renewed.map_err(|error| store_failure(&error))? {
            true => {
                self.print(&format!("{host}: `sternpost serve` orders a new certificate within seconds."));
                Ok(())
            }
            // Of all domains, those count whose certificate Sternpost has ordered.
            false if self.options.domains.is_empty() => Ok(()),
            false => Err(Failure::usage(
                format!("a new certificate for {host} can't be ordered"),
                "Sternpost has not ordered the one in use",
                format!(
                    "Order it with the ACME client of your web server, such as\n  certbot certonly --force-renewal --new-key -d {host}"
                ),
            )),
        }
    }

    async fn hold(&self) -> Result<(), Failure> {
        if self.context.hold(&self.spec.name).await? {
            return Ok(());
        }
        Err(Failure::new(
            self.spec.name.to_string(),
            "another process is applying its plan",
            format!(
                "Wait until it has finished. If it was killed, its lease expires within {} minutes.",
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
        self.print(&format!("{}", self.spec.name));
        loop {
            self.hold().await?;
            if self.context.promote_by_evidence(self.spec).await? {
                self.print(&format!(
                    "  {} the evidence is sufficient, and auto_promote allows enforcement",
                    marks().fine
                ));
            }
            let rollout = self.context.rollout(&self.spec.name).await?;
            let next = self.applier.take_step(&self.wanted, RolloutContext::permit(&rollout)).await;
            match next.map_err(|error| apply_failure(&self.spec.name, &error))? {
                StepOutcome::Started(step, actor) => match self.await_visible(&step, actor).await? {
                    Ok(proof) => outcome.done.push(DoneStep { step: step.to_string(), proof }),
                    Err(missing) => {
                        (outcome.rest, outcome.missing) = ("unseen", Some(missing));
                        return Ok(outcome);
                    }
                },
                StepOutcome::Idle(PlannedStep::Wait(until, waiting)) if self.options.wait => {
                    self.print(&format!("  {} waiting until {until}: {}", marks().info, why(waiting)));
                    self.sleep_until(until).await?;
                }
                StepOutcome::Idle(PlannedStep::Wait(until, waiting)) => {
                    self.print(&format!(
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
                    self.print(&format!("  {} in testing. Enforcement needs evidence: {gate}.\n    Allow enforcement with `sternpost promote {}`.", marks().info, self.spec.name));
                    outcome.rest = "evidence";
                    return Ok(outcome);
                }
                StepOutcome::Idle(_) => {
                    self.print(&format!("  {} in the desired state: mode {}", marks().fine, self.mode()));
                    return Ok(outcome);
                }
            }
        }
    }

    /// The mode that the plan leads to, and what keeps the domain from the configured one.
    fn mode(&self) -> String {
        let (domain, mode) = (&self.spec.name, self.wanted.mode);
        match mode == self.spec.mode {
            true => mode.to_string(),
            false => format!("{mode}, since the domain is held; `sternpost promote {domain}` ends that"),
        }
    }

    /// Waits until a step is visible from outside. The inner error is what was observed instead until the time was up.
    async fn await_visible(&self, step: &Step, actor: Actor) -> Result<Result<String, String>, Failure> {
        self.print(&format!("  {} {step}", marks().info));
        if actor == Actor::Operator {
            self.print(&self.instruction(step));
        }
        let begun = Instant::now();
        let mut printed = String::new();
        loop {
            let proven = self.applier.verify(&self.wanted, step).await;
            match proven.map_err(|error| apply_failure(&self.spec.name, &error))? {
                Ok(applied) => {
                    self.print(&format!("  {} {}", marks().fine, applied.proof));
                    return Ok(Ok(applied.proof));
                }
                Err(instead) if begun.elapsed() >= Duration::from_secs(self.options.patience) => {
                    self.print(&format!(
                        "  {} not visible after {} seconds: {instead}.\n    Run `sternpost apply {}` again when it is: it resumes here.",
                        marks().warning, self.options.patience, self.spec.name
                    ));
                    return Ok(Err(instead));
                }
                Err(instead) => {
                    if printed != instead {
                        self.print(&format!("    not yet: {instead}"));
                        printed = instead;
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
                "    Publish this in the zone of {}:\n{}    or in a DNS provider's web form:\n{}",
                self.spec.name,
                indent(&lines.join("\n")),
                indent(&change.panel())
            );
        }
        match step {
            Step::Serve(policy) => {
                let how = match self.spec.host {
                    HostedBy::Static => format!(
                        " `sternpost export --for PLATFORM DIR --domain {}` writes the files.",
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
                "    The owner of {} publishes this in its zone, once:\n{}",
                self.spec.name,
                indent(&alias_lines(aliases).join("\n"))
            ),
            Step::TakeDown => "    Remove the policy file and the name mta-sts from DNS.".to_owned(),
            _ => "    Do this yourself: Sternpost never changes MX records.".to_owned(),
        }
    }

    async fn sleep_until(&self, until: Timestamp) -> Result<(), Failure> {
        while self.context.world.clock.now() < until {
            tokio::time::sleep(POLL_INTERVAL).await;
            self.hold().await?;
        }
        Ok(())
    }

    fn print(&self, line: &str) {
        if !self.options.json {
            say(line);
        }
    }
}
