//! What the operator decided about the roll-out of a domain: that it stays in testing, and which causes
//! of failures do not count against it. Each with a reason, by whom and when.

use super::gate::Cause;
use formats::Mode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// All that was decided about a domain and still holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Decisions {
    /// It stays in testing, or goes back to it.
    pub held: Option<Decision>,
    /// Causes of failures that do not count.
    pub excused: Vec<Excuse>,
}

/// Somebody's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Why.
    pub reason: String,
    /// Who.
    pub who: String,
    /// When.
    pub at: Timestamp,
}

/// A cause that does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    /// Which.
    pub cause: Cause,
    /// By whose word.
    #[serde(flatten)]
    pub decision: Decision,
}

impl Decisions {
    /// True when nothing was decided.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The causes that do not count.
    pub fn excused(&self) -> BTreeSet<Cause> {
        self.excused.iter().map(|excuse| excuse.cause.clone()).collect()
    }

    /// Lets a cause count no more; a second word about it takes the place of the first.
    pub fn excuse(&mut self, cause: Cause, decision: Decision) {
        self.excused.retain(|excuse| excuse.cause != cause);
        self.excused.push(Excuse { cause, decision });
    }

    /// Lets it count again; false when it did.
    pub fn count_again(&mut self, cause: &Cause) -> bool {
        let before = self.excused.len();
        self.excused.retain(|excuse| excuse.cause != *cause);
        self.excused.len() < before
    }

    /// The mode that a domain is to end up in, now that this was decided.
    pub fn allowed(&self, wanted: Mode) -> Mode {
        match self.held {
            Some(_) if wanted == Mode::Enforce => Mode::Testing,
            _ => wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_goes_no_further_than_testing_and_an_excuse_has_one_word() {
        let word =
            |reason: &str| Decision { reason: reason.into(), who: "ann".into(), at: Timestamp::UNIX_EPOCH };
        let cause = Cause { result: "certificate-expired".into(), host: String::new() };
        let mut decisions = Decisions::default();
        assert!(decisions.is_empty() && decisions.allowed(Mode::Enforce) == Mode::Enforce);
        decisions.excuse(cause.clone(), word("a"));
        decisions.excuse(cause.clone(), word("b"));
        assert_eq!((decisions.excused.len(), decisions.excused[0].decision.reason.as_str()), (1, "b"));
        assert!(decisions.count_again(&cause) && !decisions.count_again(&cause));
        decisions.held = Some(word("c"));
        assert_eq!(decisions.allowed(Mode::Enforce), Mode::Testing);
        assert_eq!(decisions.allowed(Mode::None), Mode::None);
        let kept: Decisions = serde_json::from_str(&serde_json::to_string(&decisions).unwrap()).unwrap();
        assert_eq!(kept, decisions);
    }
}
