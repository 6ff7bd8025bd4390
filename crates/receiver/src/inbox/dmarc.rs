//! DMARC aggregate reports (RFC 9990) in the report inbox. Many domains use one address for DMARC and TLS reports, and the
//! subjects of both kinds of mail have the same form, so only the attachment tells them apart. `extract` finds the reports;
//! here is who sent them. `reading` imports them if `inbox.dmarc` is on; otherwise they are other people's mail, like
//! anything else that is not a TLS report.

use super::submitter::{Origin, contact_domain};
use formats::DomainName;
use formats::dmarc::{DmarcFileName, DmarcReport};
use formats::limits::DMARC_ROWS;

/// A DMARC report extracted from a message or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractedDmarc {
    /// The counts.
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
}

/// Memory of one row while a report is read, in bytes.
const ROW_BYTES: usize = 128;

/// The memory that reading a report takes besides its text, in bytes: the rows, and the text once more if its encoding is
/// not UTF-8.
pub(super) fn memory_to_read(text: &[u8]) -> usize {
    let records = text.len() / "<record></record>".len();
    let recoded = if std::str::from_utf8(text).is_ok() { 0 } else { text.len().saturating_mul(2) };
    records.min(DMARC_ROWS).saturating_mul(ROW_BYTES).saturating_add(recoded)
}
