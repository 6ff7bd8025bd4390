//! Conversions of report values to the values of their columns, for `keep`, `rows` and `sums`.

use formats::DomainName;
use formats::limits::REPORT_SESSIONS;
use formats::report::PolicyReport;
use jiff::Timestamp;

/// The maximum number of rows in one statement.
pub(super) const BATCH_ROWS: usize = 500;

/// The policy domain; empty if the report names none.
pub(super) fn domain(policy: &PolicyReport) -> &str {
    policy.policy_domain.as_ref().map(DomainName::as_str).unwrap_or_default()
}

/// The first day as Unix time, or 0 if there is none.
pub(super) fn first(days: &[Timestamp]) -> i64 {
    days.first().map_or(0, |day| day.as_second())
}

/// A count, capped at the largest integer of SQLite.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of sessions, at most [`REPORT_SESSIONS`].
pub(super) fn sessions(number: u64) -> i64 {
    count(number.min(REPORT_SESSIONS))
}
