//! The operator's decisions about a domain: hold it in testing, and excuse causes of failures. Each is stored with
//! its reason, author and time, separately from the planner's state.

use super::gate::Cause;
use formats::Mode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The decisions in force for a domain.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Decisions {
    /// The decision to hold the domain in testing, or to return it to testing.
    pub held: Option<Decision>,
    /// The causes of failures that do not count as evidence.
    pub excused: Vec<Excuse>,
    /// Name servers and addresses of the policy host that need not show a change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<Omission>,
}

/// A decision with its reason, author and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The reason that the author gave.
    pub reason: String,
    /// The user name, or `operator` for commands.
    pub who: String,
    /// When the decision was made.
    pub at: Timestamp,
}

/// A cause of failures that does not count as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    /// The excused cause.
    pub cause: Cause,
    /// The reason, author and time.
    #[serde(flatten)]
    pub decision: Decision,
}

/// An endpoint that is down and that changes do not wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omission {
    /// The name of a name server, or the address of a name server or policy host.
    #[serde(rename = "place")]
    pub endpoint: String,
    /// The reason, author and time.
    #[serde(flatten)]
    pub decision: Decision,
}

impl Decisions {
    /// The name servers and addresses that changes do not wait for.
    pub fn omitted_endpoints(&self) -> Vec<String> {
        self.omitted.iter().map(|omission| omission.endpoint.clone()).collect()
    }

    /// Leaves an endpoint out, replacing an earlier decision about it.
    pub fn omit(&mut self, endpoint: String, decision: Decision) {
        self.wait_again(&endpoint);
        self.omitted.push(Omission { endpoint, decision });
    }

    /// Ends the omission of an endpoint; false if it was not omitted.
    pub fn wait_again(&mut self, endpoint: &str) -> bool {
        let before = self.omitted.len();
        self.omitted.retain(|omission| omission.endpoint != endpoint);
        self.omitted.len() < before
    }

    /// True when no decision is in force.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The excused causes.
    pub fn excused(&self) -> BTreeSet<Cause> {
        self.excused.iter().map(|excuse| excuse.cause.clone()).collect()
    }

    /// Excuses a cause, replacing an earlier excuse for it.
    pub fn excuse(&mut self, cause: Cause, decision: Decision) {
        self.excused.retain(|excuse| excuse.cause != cause);
        self.excused.push(Excuse { cause, decision });
    }

    /// Removes the excuse for a cause; false if there was none.
    pub fn count_again(&mut self, cause: &Cause) -> bool {
        let before = self.excused.len();
        self.excused.retain(|excuse| excuse.cause != *cause);
        self.excused.len() < before
    }

    /// The mode to reach under these decisions: a held domain goes no further than `testing`.
    pub fn allowed(&self, desired: Mode) -> Mode {
        match self.held {
            Some(_) if desired == Mode::Enforce => Mode::Testing,
            _ => desired,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_domain_stays_in_testing_and_a_cause_has_one_excuse() {
        let decision =
            |reason: &str| Decision { reason: reason.into(), who: "ann".into(), at: Timestamp::UNIX_EPOCH };
        let cause = Cause { result: "certificate-expired".into(), host: String::new() };
        let mut decisions = Decisions::default();
        assert!(decisions.is_empty() && decisions.allowed(Mode::Enforce) == Mode::Enforce);
        decisions.excuse(cause.clone(), decision("a"));
        decisions.excuse(cause.clone(), decision("b"));
        assert_eq!((decisions.excused.len(), decisions.excused[0].decision.reason.as_str()), (1, "b"));
        assert!(decisions.count_again(&cause) && !decisions.count_again(&cause));
        decisions.omit("ns2.example".into(), decision("a"));
        decisions.omit("ns2.example".into(), decision("b"));
        assert_eq!(decisions.omitted_endpoints(), ["ns2.example"]);
        assert!(decisions.wait_again("ns2.example") && !decisions.wait_again("ns2.example"));
        decisions.omit("192.0.2.1".into(), decision("b"));
        decisions.held = Some(decision("c"));
        assert_eq!(decisions.allowed(Mode::Enforce), Mode::Testing);
        assert_eq!(decisions.allowed(Mode::None), Mode::None);
        let kept: Decisions = serde_json::from_str(&serde_json::to_string(&decisions).unwrap()).unwrap();
        assert_eq!(kept, decisions);
    }
}
