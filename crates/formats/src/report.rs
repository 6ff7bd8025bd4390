//! The TLS report (RFC 8460 §4) and the mail that carries it (§5).
//!
//! [`Report::read`] takes what real reporters send, with a [`Warning`] for everything that RFC
//! 8460 does not allow; [`Report::to_json`] writes only what it does.

mod mail;
mod read;
mod unpack;
mod write;

pub use mail::{ReportFileName, ReportMail, file_name_of};
pub use read::{Quirk, ReadError, ReadReport, Warning};
pub use unpack::{UnpackError, Unpacked, pack, unpack, zip_members};
pub use write::WriteError;

use crate::domain::DomainName;
use crate::result_type::{PolicyType, ResultType};
use jiff::Timestamp;
use std::net::IpAddr;

/// An aggregate report of one sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who sends it.
    pub organization_name: Option<String>,
    /// What it covers.
    pub date_range: DateRange,
    /// Whom to ask about it.
    pub contact_info: Option<String>,
    /// Its identity, unique to the sender.
    pub report_id: String,
    /// The outcome under each policy.
    pub policies: Vec<PolicyReport>,
}

/// From when to when, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateRange {
    /// The first second.
    pub start: Timestamp,
    /// The last second.
    pub end: Timestamp,
}

/// The outcome under one policy.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PolicyReport {
    /// What kind of policy.
    pub policy_type: PolicyType,
    /// Its lines or records.
    pub policy_string: Vec<String>,
    /// Whose policy; some senders leave it out.
    pub policy_domain: Option<DomainName>,
    /// The `mx` patterns.
    pub mx_host: Vec<String>,
    /// Sessions that worked.
    pub successful: u64,
    /// Sessions that failed, as the sender gives them.
    pub failed: u64,
    /// What failed.
    pub details: Vec<FailureDetail>,
}

/// A group of failures of one kind.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FailureDetail {
    /// What failed.
    pub result_type: ResultType,
    /// Where from.
    pub sending_mta_ip: Option<IpAddr>,
    /// The MX host.
    pub receiving_mx_hostname: Option<String>,
    /// How it greeted.
    pub receiving_mx_helo: Option<String>,
    /// Where to.
    pub receiving_ip: Option<IpAddr>,
    /// In how many sessions.
    pub failed_session_count: u64,
    /// More about it.
    pub additional_information: Option<String>,
    /// The reason.
    pub failure_reason_code: Option<String>,
}

impl DateRange {
    /// The UTC day that `within` lies in: 00:00:00 to 23:59:59 (RPT-07).
    pub fn utc_day(within: Timestamp) -> Self {
        const DAY: i64 = 86_400;
        let start = within.as_second().div_euclid(DAY) * DAY;
        let at = |second| Timestamp::from_second(second).unwrap_or(within);
        Self { start: at(start), end: at(start + DAY - 1) }
    }

    /// The UTC days that the range covers, as their first seconds; an end of 00:00:00 belongs to
    /// the day before. At most 400 (REC-11).
    pub fn utc_days(&self) -> Vec<Timestamp> {
        let mut days = Vec::new();
        let mut day = Self::utc_day(self.start);
        loop {
            days.push(day.start);
            let next =
                Self::utc_day(day.end.saturating_add(jiff::SignedDuration::from_secs(1)).unwrap_or(day.end));
            if next.start >= self.end || next.start <= day.start || days.len() == 400 {
                return days;
            }
            day = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> DateRange {
        DateRange { start: start.parse().unwrap(), end: end.parse().unwrap() }
    }

    #[test]
    fn rpt_07_a_report_covers_a_full_utc_day() {
        let day = DateRange::utc_day("2026-11-24T13:30:00Z".parse().unwrap());
        assert_eq!(day, range("2026-11-24T00:00:00Z", "2026-11-24T23:59:59Z"));
    }

    #[test]
    fn rec_11_ranges_are_placed_on_the_utc_days_that_they_cover() {
        let days =
            |start, end| range(start, end).utc_days().iter().map(|d| d.to_string()).collect::<Vec<_>>();
        assert_eq!(days("2026-11-24T00:00:00Z", "2026-11-24T23:59:59Z"), ["2026-11-24T00:00:00Z"]);
        assert_eq!(days("2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z"), ["2026-11-24T00:00:00Z"]);
        assert_eq!(
            days("2026-11-24T22:00:00-05:00", "2026-11-25T21:59:59-05:00"),
            ["2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"]
        );
        assert_eq!(range("1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z").utc_days().len(), 400);
    }
}
