//! Values of a report as the columns of its tables hold them.

use formats::DomainName;
use formats::report::PolicyReport;
use jiff::Timestamp;

/// Rows in one statement.
pub(super) const BATCH_ROWS: usize = 500;

pub(super) fn domain(policy: &PolicyReport) -> &str {
    policy.policy_domain.as_ref().map(DomainName::as_str).unwrap_or_default()
}

pub(super) fn first(days: &[Timestamp]) -> i64 {
    days.first().map_or(0, |day| day.as_second())
}

pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
