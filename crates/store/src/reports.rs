//! TLS reports that came in, whole, with what they say by policy domain and day; and a quarantine for
//! what could not be read (RFC 8460 §5).
//!
//! | module | what |
//! | --- | --- |
//! | `keep` | takes reports in, many at once, each counted once |
//! | `names` | numbers for texts |
//! | `about` | what the reports say about a domain, and sums by day |
//! | `list` | reports one by one |
//! | `sums` | by day, kept with every report |
//! | `trends` | by day of a sender or an MX host |
//! | `quarantine` | what could not be read |

mod about;
mod columns;
mod keep;
mod list;
mod names;
mod quarantine;
mod sums;
mod trends;

pub use about::{CauseSum, DaySum, FailureSum, KeptReport, PolicyOutcome, SenderSum};
pub use list::{ListedReport, Search, StoredReport};
pub use quarantine::Quarantined;
pub use trends::Trend;

use crate::{StoreError, damaged};
use formats::report::{DateRange, Report};
use formats::result_type::PolicyType;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt;

/// How far a report is to be believed, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A signature that does not hold, or is not the submitter's.
    Failed,
    /// Not signed, or the key could not be had.
    Unverified,
    /// The operator vouches for it.
    Trusted,
    /// Signed by the submitter's domain.
    Verified,
}

impl Trust {
    const ALL: [Self; 4] = [Self::Failed, Self::Unverified, Self::Trusted, Self::Verified];

    /// True when it is evidence for or against (REC-01).
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

/// How a report came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// By SMTP, to the inbox.
    Smtp,
    /// By LMTP, from a mail server of the operator's.
    Lmtp,
    /// By HTTPS POST.
    Https,
    /// By command.
    Import,
    /// Out of an IMAP mailbox.
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

/// Words are kept by their place in the list of all.
fn find<T: Copy, const N: usize>(all: [T; N], number: i64, table: &'static str) -> Result<T, StoreError> {
    let found = usize::try_from(number).ok().and_then(|at| all.get(at)).copied();
    found.ok_or_else(|| damaged(table)(number))
}

/// The number of a policy type; those that RFC 8460 does not have share one.
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

/// A report to keep.
#[derive(Debug, Clone)]
pub struct NewReport {
    /// Who sent it: the domain that signed for it, or the one it claims.
    pub submitter: String,
    /// The domain that signed it.
    pub signer: Option<String>,
    /// How far it is to be believed.
    pub trust: Trust,
    /// How it came.
    pub arrival: Arrival,
    /// When it came.
    pub received_at: Timestamp,
    /// What it says.
    pub report: Report,
    /// How many oddities it has.
    pub warnings: usize,
    /// Its JSON text as it came, with gzip.
    pub packed: Vec<u8>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepOutcome {
    /// It is new.
    New,
    /// It was there before (REC-06).
    Duplicate,
    /// It was there before, and is believed more now.
    Confirmed,
}

/// Eight bytes that stand for these.
fn digest(parts: &[&[u8]]) -> i64 {
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
