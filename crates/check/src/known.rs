//! What the caller knows about a domain from before this check: the previous check, the roll-out gate
//! and the report inbox. Checks of the parts `History` and `Inbox` need it.

use formats::PolicyId;
use jiff::Timestamp;

/// What is known of a domain from before.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last look.
    pub previous: Option<Previous>,
    /// How the gate stands, when the domain is one of ours: ready or not, and a sentence.
    pub gate: Option<(bool, String)>,
    /// When the last report came, when there is an inbox that should get them.
    pub last_report: Option<Option<Timestamp>>,
}

/// A look before this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The record's `id` then.
    pub id: PolicyId,
    /// The policy file then.
    pub file: Vec<u8>,
    /// When.
    pub at: Timestamp,
}
