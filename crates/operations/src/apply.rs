//! Carries out the plan of a domain: one step at a time, each verified from outside, until time or evidence is needed. The steps
//! are in [`receiver::rollout`]; [`Work`] waits for those of a domain, and says what it does and, by `instruction`, what the
//! operator has to do. The command `apply` and the API call it.

mod instruction;
mod work;

pub use work::{Pace, Work};

use formats::DomainName;
use jiff::Timestamp;
use receiver::rollout::outside::Outside;
use std::time::Duration;

/// What is asked of the work on a domain.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The longest wait for each step to become visible.
    pub patience: Duration,
    /// Whether to wait out the waiting periods of the plan.
    pub wait: bool,
    /// Whether to announce the policy again under a new ID.
    pub new_id: bool,
    /// Whether to have a new certificate ordered for the policy host.
    pub new_certificate: bool,
    /// Whether to take the lease from another process.
    pub take_over: bool,
    /// True if no domain was named, so that those count for which the request makes sense.
    pub is_for_all: bool,
}

/// How the work tells people what it does.
pub struct Lines<'a> {
    /// The mark in front of a success.
    pub fine: &'static str,
    /// The mark in front of a warning.
    pub warning: &'static str,
    /// The mark in front of information.
    pub info: &'static str,
    /// Prints a line.
    pub print: &'a (dyn Fn(&str) + Send + Sync),
}

impl Lines<'static> {
    /// Nobody reads the lines; the [`Outcome`] says what happened.
    pub const SILENT: Self = Self { fine: "", warning: "", info: "", print: &|_| {} };
}

/// The outcome for a domain.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    /// The domain.
    pub domain: String,
    /// Whether Sternpost changed something in this run: it carried out a step, ended a change that was cut off, or allowed
    /// enforcement by evidence.
    pub changed: bool,
    /// The steps that became visible.
    pub done: Vec<DoneStep>,
    /// Why it stopped: `done`, `wait`, `evidence`, `unseen`, `changed`, `blocked` or `interrupted`; of several domains `failed`,
    /// if steps were taken before, and `not-begun`, if a signal came before the first step.
    pub rest: &'static str,
    /// The end of the waiting period, for `wait`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The end of the waiting period, as a time.
    #[serde(skip)]
    pub resumes: Option<Timestamp>,
    /// What was observed instead of the step's result, for `unseen`; what another program or the operator did, for `changed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What each name server and each address of the policy host showed at the last observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Outside>,
}

impl Outcome {
    /// The outcome before anything was done.
    pub fn new(domain: &DomainName) -> Self {
        Self {
            domain: domain.to_string(),
            changed: false,
            done: Vec::new(),
            rest: "done",
            until: None,
            resumes: None,
            missing: None,
            outside: None,
        }
    }
}

/// A step that became visible from outside.
#[derive(Debug, Clone, serde::Serialize)]
pub struct DoneStep {
    /// The step, in words.
    pub step: String,
    /// The observation that verifies it.
    pub proof: String,
}

/// A duration in words, rounded down, such as `5 minutes`.
pub fn in_words(seconds: u64) -> String {
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
