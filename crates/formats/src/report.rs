//! TLS reports (RFC 8460 §4), their compression, and the names of report files and mails (§5).
//!
//! For received reports, [`unpack()`] decompresses the file and [`Report::read`] parses it. The parser accepts what
//! real reporters send, with a [`Warning`] for each deviation from RFC 8460. For sent reports, [`Report::to_json`]
//! writes only what RFC 8460 allows, and [`pack`] compresses it.

mod budget;
mod mail;
mod read;
mod tar;
mod texts;
mod unpack;
mod write;

pub use budget::{Held, HeldText, NoMemory, UnlimitedMemory, UnpackBudget, UnpackMemory};
pub use mail::{ReportFileName, ReportMail, file_name_of};
pub use read::{Quirk, ReadError, ReadReport, Warning};
pub use tar::{TarMember, is_tar, tar_members};
pub use texts::{Objects, ReportTexts, beginning_of_text, begins_as_json};
pub use unpack::{
    UnpackError, Unpacked, UnpackedText, ZipContents, ZipMember, beginning_of_gzip, gzip_stream, is_gzip,
    is_zip, other_compression, pack, unpack, unpack_within, zip_members, zip_members_within,
};
pub use write::WriteError;

use crate::domain::DomainName;
use crate::result_type::{PolicyType, ResultType};
use jiff::Timestamp;
use std::net::IpAddr;

/// An aggregate report of one sending organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The name of the reporting organization; `None` if a received report lacks it.
    pub organization_name: Option<String>,
    /// The time that the report covers.
    pub date_range: DateRange,
    /// The contact for questions about the report; `None` if a received report lacks it.
    pub contact_info: Option<String>,
    /// The `report-id`, unique within the reporting organization.
    pub report_id: String,
    /// The results, one entry for each policy.
    pub policies: Vec<PolicyReport>,
}

/// A time range, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DateRange {
    /// The first second of the range.
    pub start: Timestamp,
    /// The last second of the range.
    pub end: Timestamp,
}

/// The results of the sessions under one policy.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PolicyReport {
    /// The type of the policy.
    pub policy_type: PolicyType,
    /// The lines of the policy file, or the TLSA records.
    pub policy_string: Vec<String>,
    /// The policy domain; `None` if a received report lacks it or it is invalid.
    pub policy_domain: Option<DomainName>,
    /// The `mx` patterns of the policy.
    pub mx_host: Vec<String>,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions, as the summary states it.
    pub failed: u64,
    /// The failed sessions, summed by result type, hosts and reason.
    pub details: Vec<FailureDetail>,
}

/// Failed sessions with the same result type, hosts and reason.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FailureDetail {
    /// The result type (RFC 8460 §4.3).
    pub result_type: ResultType,
    /// The address of the sending mail server.
    pub sending_mta_ip: Option<IpAddr>,
    /// The MX host's name; `None` if the report does not state it.
    pub receiving_mx_hostname: Option<String>,
    /// The name in the MX host's greeting.
    pub receiving_mx_helo: Option<String>,
    /// The address of the MX host.
    pub receiving_ip: Option<IpAddr>,
    /// The number of failed sessions.
    pub failed_session_count: u64,
    /// Further information, as text or URI.
    pub additional_information: Option<String>,
    /// The reason, as text or error code.
    pub failure_reason_code: Option<String>,
}

impl DateRange {
    /// Returns the UTC day that contains `within`, from 00:00:00 to 23:59:59 (RPT-07).
    pub fn utc_day(within: Timestamp) -> Self {
        const DAY: i64 = 86_400;
        let start = within.as_second().div_euclid(DAY) * DAY;
        let at = |second| Timestamp::from_second(second).unwrap_or(within);
        Self { start: at(start), end: at(start + DAY - 1) }
    }

    /// Returns the first seconds of the UTC days that the range covers, at most 400 (REC-11). An end of 00:00:00
    /// belongs to the previous day.
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
