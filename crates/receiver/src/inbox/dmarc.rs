//! DMARC aggregate reports (RFC 9990) in the report inbox. Many domains use one address for DMARC and TLS reports, and the
//! subjects of both kinds of mail have the same form, so only the attachment tells them apart. `extract` finds the reports;
//! here is who sent them. `reading` imports them if `inbox.dmarc` is on; otherwise they are other people's mail, like
//! anything else that is not a TLS report.

use super::submitter::{Origin, contact_domain};
use formats::DomainName;
use formats::dmarc::{DmarcFileName, DmarcReport};
use formats::limits::{DMARC_ROWS, REPORT_TEXT_BYTES};

/// A DMARC report extracted from a message or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractedDmarc {
    /// The report, with its message counts.
    pub report: DmarcReport,
    /// The submitter: the domain of the message's `From`, which RFC 9990 §3.5.2 requires to be authenticated; without one,
    /// the domain of the contact in the report or that of the file name. Not verified. `None` if none of them names a domain.
    pub submitter: Option<DomainName>,
}

impl ExtractedDmarc {
    /// A report from a file with this name, in a message of this origin.
    pub(super) fn new(report: DmarcReport, name: &str, origin: &Origin) -> Self {
        let by_name = || DmarcFileName::parse(name).map(|named| named.receiver);
        let by_contact = || contact_domain(&report.email);
        let submitter = origin.from.clone().or_else(by_contact).or_else(by_name);
        Self { report, submitter }
    }

    /// The memory of the report, in bytes, roughly. It is less than was reserved to read it.
    pub(super) fn memory(&self) -> usize {
        let report = &self.report;
        let texts = report.organization.len() + report.email.len() + report.report_id.len();
        size_of_val(self) + size_of_val(report.rows.as_slice()) + texts + NAMES_BYTES
    }
}

/// Memory of one row while a report is read, in bytes.
const ROW_BYTES: usize = 128;

/// Memory of the domain names of a report, in bytes.
const NAMES_BYTES: usize = 1024;

/// The memory that reading a report takes besides its text, in bytes: the rows, the texts of elements that have not ended,
/// which may be all of it, and the text once more if its encoding is not UTF-8.
pub(super) fn memory_to_read(text: &[u8]) -> usize {
    let records = text.len() / "<record></record>".len();
    let (decoded, recoded) = match std::str::from_utf8(text) {
        Ok(_) => (text.len(), 0),
        Err(_) => (text.len().saturating_mul(2), text.len().saturating_mul(2)),
    };
    let rows = records.min(DMARC_ROWS).saturating_mul(ROW_BYTES);
    let texts = decoded.saturating_mul(2);
    let kept = size_of::<ExtractedDmarc>() + 3 * REPORT_TEXT_BYTES + NAMES_BYTES;
    rows.saturating_add(recoded).saturating_add(texts).saturating_add(kept)
}
