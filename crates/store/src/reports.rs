//! Imported TLS reports with their sums by policy domain and day, and a quarantine for unreadable ones (RFC 8460 §5).
//! The inbox and `sternpost reports import` add reports; the rollout gate, commands and the dashboard read them.
//!
//! | module | content |
//! | --- | --- |
//! | `keep` | stores reports in batches and detects duplicates |
//! | `filing` | which domain the results of a report are about |
//! | `refiling` | files results again when the MX hosts of a domain become known |
//! | `rows` | the rows of the results of a report |
//! | `names` | integer ids for repeated texts |
//! | `columns` | conversions to column values |
//! | `sums` | sums by day, updated with every report |
//! | `about` | the content of the reports about a domain, and sums by day, cause and sender |
//! | `groups` | failures by result type and host, sessions by type of policy |
//! | `trends` | daily sums of a sender or an MX host |
//! | `list` | searches for reports, and reads one |
//! | `arrived` | the reports that arrived after a given one, for webhooks |
//! | `totals` | sums over all own domains and submitters, for metrics |
//! | `quarantine` | unreadable reports |
//! | `retention` | the end of reports: after some time, by a quota, or at the operator's request |
//! | `unverified` | the limits of reports that are not evidence |
//! | `quota` | which items make room for others: a pure function |
//! | `upgrade` | what was there before the limits: its sizes, and a time in which it is spared |

mod about;
mod arrived;
mod causes;
mod columns;
mod filing;
mod groups;
mod identities;
mod keep;
mod list;
mod names;
mod quarantine;
mod quota;
mod refiling;
mod retention;
mod rows;
mod sums;
mod surplus;
mod totals;
mod trends;
mod turn;
mod unverified;
mod upgrade;

pub use about::{DaySum, FailureSum, KeptReport, PolicyOutcome, SenderSum};
pub use arrived::{ArrivedCounts, ArrivedReport, WhichReports};
pub use causes::CauseSum;
pub use groups::{FailureGroup, KindSum};
pub use list::{EvidenceStatus, ListedReport, Search, StoredReport};
pub use quarantine::{NewQuarantined, QuarantineOutcome, QuarantineSelection, QuarantineUsage, Quarantined};
pub use quota::Quota;
pub(crate) use refiling::Misfiled;
pub use retention::DropSelection;
pub use surplus::SumLimits;
pub use totals::{DomainTotal, LastReport, SubmitterTotal};
pub use trends::Trend;
pub use turn::ImportTurn;
pub(crate) use unverified::UnverifiedSpace;
pub use unverified::UnverifiedUsage;
pub use upgrade::Earlier;

use crate::{StoreError, damaged};
use formats::DomainName;
use formats::report::{DateRange, Report};
use formats::result_type::PolicyType;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt;

/// How far a report is trusted. Higher values are more trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A DKIM signature of the submitter's organization failed verification.
    Failed,
    /// There is no DKIM signature of the submitter's organization, or its key could not be looked up.
    Unverified,
    /// The operator declared the report trusted when importing it.
    Trusted,
    /// A DKIM signature of the submitter's organization was verified (RFC 8460 §3).
    Verified,
}

impl Trust {
    const ALL: [Self; 4] = [Self::Failed, Self::Unverified, Self::Trusted, Self::Verified];

    /// True if reports of this trust count as evidence, for or against enforcing a policy (REC-01).
    pub fn counts(self) -> bool {
        self >= Self::Trusted
    }

    fn parse(number: i64) -> Result<Self, StoreError> {
        find(Self::ALL, number, "report")
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failed => "failed",
            Self::Unverified => "unverified",
            Self::Trusted => "trusted",
            Self::Verified => "verified",
        })
    }
}

/// How a report arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// By SMTP, at the report inbox.
    Smtp,
    /// By LMTP, from the operator's mail server.
    Lmtp,
    /// By HTTPS POST.
    Https,
    /// By `sternpost reports import`.
    Import,
    /// From an IMAP mailbox.
    Imap,
}

impl Arrival {
    const ALL: [Self; 5] = [Self::Smtp, Self::Lmtp, Self::Https, Self::Import, Self::Imap];

    fn parse(number: i64) -> Result<Self, StoreError> {
        find(Self::ALL, number, "report")
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Smtp => "SMTP",
            Self::Lmtp => "LMTP",
            Self::Https => "HTTPS",
            Self::Import => "import",
            Self::Imap => "IMAP",
        })
    }
}

/// Reads an enum value, which is stored as its index in `all`.
fn find<T: Copy, const N: usize>(all: [T; N], number: i64, table: &'static str) -> Result<T, StoreError> {
    let found = usize::try_from(number).ok().and_then(|at| all.get(at)).copied();
    found.ok_or_else(|| damaged(table)(number))
}

/// The result type of the row that sums the failures of a report beyond [`REPORT_CAUSES`](formats::limits::REPORT_CAUSES)
/// causes. Its cause is unknown, so it can't be excused.
pub const OTHER_CAUSES: &str = "other-causes";

/// The stored number of a policy type. All types that RFC 8460 does not define share one number.
fn kind_number(kind: &PolicyType) -> i64 {
    match kind {
        PolicyType::NoPolicyFound => 0,
        PolicyType::Sts => 1,
        PolicyType::Tlsa => 2,
        PolicyType::Other(_) => 3,
    }
}

fn kind_of(number: i64) -> PolicyType {
    match number {
        0 => PolicyType::NoPolicyFound,
        1 => PolicyType::Sts,
        2 => PolicyType::Tlsa,
        _ => PolicyType::Other("other".to_owned()),
    }
}

/// A report to store.
#[derive(Debug, Clone)]
pub struct NewReport {
    /// The domain of the report's sender, as the mail, the file name or the contact states it.
    pub submitter: String,
    /// The domain of the verified DKIM signature; `None` if there is none.
    pub signer: Option<String>,
    /// How far the report is trusted.
    pub trust: Trust,
    /// The domain whose mail the report is about, as the mail or the address of the POST states it (RFC 8460 §5.3).
    /// `None` if neither does. DANE results are reported under the MX host's name, and are filed under this domain if the
    /// host was one of its MX hosts.
    pub about: Option<DomainName>,
    /// How the report arrived.
    pub arrival: Arrival,
    /// When the report arrived.
    pub received_at: Timestamp,
    /// The source that the report is counted for: the signer's registered domain, or else the network of the client.
    /// Empty if there is neither, since anything else that a report says may be forged. All reports of a source have
    /// one share of a quota.
    pub source: String,
    /// The parsed report.
    pub report: Report,
    /// The number of deviations from RFC 8460 that the parser found.
    pub warnings: usize,
    /// The JSON text as received, compressed by gzip.
    pub packed: Vec<u8>,
}

/// The result of storing a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepOutcome {
    /// The report is new.
    New,
    /// The same report was stored before: sender, `report-id`, time and content are equal (REC-06).
    Duplicate,
    /// The report was stored before, and is more trusted now.
    Confirmed,
}

/// The first eight bytes of the SHA-256 digest of the concatenated parts.
pub(crate) fn digest(parts: &[&[u8]]) -> i64 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk::<8>().map_or(0, |head| i64::from_be_bytes(*head))
}

fn range(start: i64, end: i64) -> Result<DateRange, StoreError> {
    Ok(DateRange { start: crate::time("report", start)?, end: crate::time("report", end)? })
}

#[cfg(test)]
mod tests;
