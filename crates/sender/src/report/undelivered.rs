//! The error of a failed delivery, which every transport returns. The scheduler retries unless it is final.

/// A failed delivery of a report to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// The reason, for the log and for `sternpost reports list --sent`.
    pub why: String,
    /// True if a retry is pointless, for example after a permanent refusal.
    pub is_final: bool,
}

impl Undelivered {
    /// A temporary failure: the delivery is retried.
    pub(super) fn temporary(why: impl ToString) -> Self {
        Self { why: why.to_string(), is_final: false }
    }

    /// A permanent failure: the report is not retried at this target.
    pub(super) fn permanent(why: impl ToString) -> Self {
        Self { why: why.to_string(), is_final: true }
    }
}
