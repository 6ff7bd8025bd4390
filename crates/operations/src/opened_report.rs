//! A report out of the store, unpacked and read again, to show one whole: on a terminal, as JSON, or on a page.

use config::failure::Failure;
use formats::report::{PolicyReport, Report, Warning, unpack};
use store::reports::{ListedReport, StoredReport};

/// A report, read again.
#[derive(serde::Serialize)]
pub struct OpenedReport {
    schema: u32,
    #[serde(flatten)]
    /// What a list shows of it.
    pub listed: ListedReport,
    /// Who signed it.
    pub signer: Option<String>,
    /// Whom to ask about it.
    pub contact: Option<String>,
    /// The outcome by policy.
    pub policies: Vec<PolicyReport>,
    /// What is odd about it.
    pub oddities: Vec<Oddity>,
    /// The text as it came.
    #[serde(skip)]
    pub text: String,
}

/// Something odd.
#[derive(serde::Serialize)]
pub struct Oddity {
    /// Where in the report.
    pub path: String,
    /// What.
    pub what: String,
}

/// Reads a kept report again.
pub fn open_report(stored: StoredReport) -> Result<OpenedReport, Failure> {
    let damaged = |why: &dyn std::fmt::Display| {
        Failure::new(format!("report {} can't be read again", stored.listed.id), why, "")
    };
    let (bytes, _) = unpack(&stored.packed).map_err(|error| damaged(&error))?;
    let read = Report::read(&bytes).map_err(|error| damaged(&error))?;
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
