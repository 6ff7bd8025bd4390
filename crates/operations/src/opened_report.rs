//! Decompresses and parses a stored report again, to show it whole on a terminal, as JSON, or on a page.

use config::failure::Failure;
use formats::report::{PolicyReport, Report, Warning, unpack};
use store::reports::{ListedReport, StoredReport};

/// A stored report, parsed again.
#[derive(serde::Serialize)]
pub struct OpenedReport {
    schema: u32,
    #[serde(flatten)]
    /// The fields that lists of reports show.
    pub listed: ListedReport,
    /// The signing domain, if the signature was valid.
    pub signer: Option<String>,
    /// The contact given in the report.
    pub contact: Option<String>,
    /// The results for each policy.
    pub policies: Vec<PolicyReport>,
    /// The deviations from RFC 8460 that the parser accepted.
    pub oddities: Vec<Oddity>,
    /// The report's JSON text as received.
    #[serde(skip)]
    pub text: String,
}

/// A deviation from RFC 8460.
#[derive(serde::Serialize)]
pub struct Oddity {
    /// Path of the JSON member.
    pub path: String,
    /// A description of the deviation.
    pub what: String,
}

/// Decompresses and parses a stored report. Fails when the stored copy is damaged.
pub fn open_report(stored: StoredReport) -> Result<OpenedReport, Failure> {
    let damaged = |why: &dyn std::fmt::Display| {
        Failure::new(format!("report {} can't be read again", stored.listed.id), why, "")
    };
    let (bytes, packing) = unpack(&stored.packed).map_err(|error| damaged(&error))?;
    let read = Report::read(&bytes).map_err(|error| damaged(&error))?.with_packing(packing);
    let oddity = |warning: Warning| Oddity { path: warning.path, what: warning.quirk.to_string() };
    Ok(OpenedReport {
        schema: 1,
        signer: stored.signer,
        contact: read.report.contact_info,
        policies: read.report.policies,
        oddities: read.warnings.into_iter().map(oddity).collect(),
        text: String::from_utf8_lossy(&bytes).into_owned(),
        listed: stored.listed,
    })
}
