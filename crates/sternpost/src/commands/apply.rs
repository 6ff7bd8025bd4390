//! `sternpost apply`: carries out the plans of domains. It takes one step at a time, verifies it from outside, and stops
//! where time or evidence is needed ([`operations::apply`]). Of several domains, none waits for another (`many`). This module has
//! the options, and the outcome of all. A signal ends it between two changes, and gives the domain's lease back.

mod many;

use super::plan::failure_json;
use crate::interrupt::interruption;
use crate::terminal::{marks, say, show};
use config::Chosen;
use config::failure::{Exit, Failure};
use operations::RolloutContext;
use operations::apply::{Lines, Outcome, Pace, Request, Work};
use receiver::domain::DomainSpec;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The options of `sternpost apply`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Mail domains, such as example.org [default: all]
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
    /// Take the lease from another process that applies the plan; only if you know that it has ended
    #[arg(long)]
    take_over: bool,
    /// Print the outcome as one line of JSON (docs/receiving.md)
    #[arg(long)]
    json: bool,
}

impl Options {
    fn request(&self) -> Request {
        Request {
            patience: Duration::from_secs(self.patience),
            wait: self.wait,
            new_id: self.new_id,
            new_certificate: self.new_certificate,
            take_over: self.take_over,
            is_for_all: self.domains.is_empty(),
        }
    }

    /// Prints a line, unless the output is JSON.
    fn say(&self, line: &str) {
        if !self.json {
            say(line);
        }
    }
}

/// Lines with the marks of this terminal.
fn lines(print: &(dyn Fn(&str) + Send + Sync)) -> Lines<'_> {
    let marks = marks();
    Lines { fine: marks.fine, warning: marks.warning, info: marks.info, print }
}

/// Carries out the plan of each domain. One that fails does not keep the others from being worked on.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open_about(chosen, &options.domains).await?;
    let stop = interruption("the change of DNS that has begun")?;
    let mut specs = context.domains(&options.domains)?;
    // A domain that is named twice is worked on once.
    let mut names = BTreeSet::new();
    specs.retain(|spec| names.insert(spec.name.clone()));
    let (outcomes, mut failures) = match specs.as_slice() {
        [one] => match alone(&context, one, options, &stop).await {
            Ok(outcome) => (vec![outcome], Vec::new()),
            Err(failure) => {
                eprintln!("{failure}");
                (Vec::new(), vec![failure])
            }
        },
        many => many::all(&context, many, options, &stop).await,
    };
    if options.domains.is_empty() {
        let unreadable = context.unreadable();
        unreadable.iter().for_each(|failure| eprintln!("{failure}"));
        failures.extend(unreadable);
    }
    context.store.close().await;
    if options.json {
        let failed: Vec<_> = failures.iter().map(failure_json).collect();
        show(&format!("{}\n", serde_json::json!({ "schema": 1, "outcomes": outcomes, "failed": failed })));
    }
    Ok(exit(&outcomes, &failures, &stop))
}

/// Carries out the plan of the only domain.
async fn alone(
    context: &RolloutContext,
    spec: &DomainSpec,
    options: &Options,
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    let (request, print) = (options.request(), |line: &str| options.say(line));
    Work::begin(context, spec, &request, &lines(&print), stop.clone(), Pace::Alone).await?.run().await
}

/// An interruption counts more than a failure, and a failure more than a finding.
fn exit(outcomes: &[Outcome], failures: &[Failure], stop: &CancellationToken) -> Exit {
    let ended = |rest: &[&str]| outcomes.iter().any(|outcome| rest.contains(&outcome.rest));
    match () {
        () if stop.is_cancelled() => Exit::Interrupted,
        () if ended(&["unseen", "changed", "blocked"]) => Exit::of_failures(failures, Exit::Findings),
        () => Exit::of_failures(failures, Exit::Fine),
    }
}
