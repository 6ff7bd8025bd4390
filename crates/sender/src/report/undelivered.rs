//! Why a target did not take a report, and whether another attempt makes sense. Every transport answers with this.

/// Why a target did not take a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The reason, for the log and for `sternpost reports list --sent`.
    pub why: String,
    /// True when trying again makes no sense.
    pub is_final: bool,
}

impl Undelivered {
    /// A failure that may pass: the delivery is retried.
    pub(super) fn now(why: impl ToString) -> Self {
        Self { why: why.to_string(), is_final: false }
    }

    /// A failure that stays: the delivery is given up.
    pub(super) fn ever(why: impl ToString) -> Self {
        Self { why: why.to_string(), is_final: true }
    }
}
