//! `sternpost apply`: carries out the plans of domains. It takes one step at a time, verifies it from outside, and stops
//! where time or evidence is needed. The steps are in [`receiver::rollout`]; `one` waits for those of a domain and prints
//! them, with an `instruction` for those of the operator. Of several domains, none waits for another (`many`). This module has
//! the options, and the outcome of all. A signal ends it between two changes, and gives the domain's lease back.

mod instruction;
mod many;
mod one;

use super::plan::failure_json;
use crate::interrupt::interruption;
use crate::terminal::show;
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::DomainName;
use jiff::Timestamp;
use one::{Pace, Work};
use operations::RolloutContext;
use receiver::domain::DomainSpec;
use receiver::rollout::outside::Outside;
use std::collections::BTreeSet;
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

/// The outcome for a domain.
#[derive(serde::Serialize)]
struct Outcome {
    domain: String,
    done: Vec<DoneStep>,
    /// Why it stopped: `done`, `wait`, `evidence`, `unseen`, `changed`, `blocked` or `interrupted`; of several domains `failed`,
    /// if steps were taken before, and `not-begun`, if a signal came before the first step.
    rest: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The end of the waiting period, for `wait`.
    until: Option<String>,
    #[serde(skip)]
    /// The end of the waiting period, as a time.
    resumes: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// What was observed instead of the step's result, for `unseen`; what another program or the operator did, for `changed`.
    missing: Option<String>,
    /// What each name server and each address of the policy host showed at the last observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    outside: Option<Outside>,
}

impl Outcome {
    /// The outcome before anything was done.
    fn new(domain: &DomainName) -> Self {
        Self {
            domain: domain.to_string(),
            done: Vec::new(),
            rest: "done",
            until: None,
            resumes: None,
            missing: None,
            outside: None,
        }
    }
}

#[derive(serde::Serialize)]
struct DoneStep {
    step: String,
    proof: String,
}

/// Carries out the plan of each domain. One that fails does not keep the others from being worked on.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(chosen).await?;
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
    Work::begin(context, spec, options, stop.clone(), Pace::Alone).await?.run().await
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

/// A duration in words, rounded down, such as `5 minutes`.
fn in_words(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7200 => (seconds / 60, "minute"),
        _ => (seconds / 3600, "hour"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_to_a_unit_that_people_use() {
        let all = [1, 3, 119, 120, 600, 7199, 7200, 86_400].map(in_words);
        let expected = [
            "1 second",
            "3 seconds",
            "119 seconds",
            "2 minutes",
            "10 minutes",
            "119 minutes",
            "2 hours",
            "24 hours",
        ];
        assert_eq!(all, expected);
    }
}
