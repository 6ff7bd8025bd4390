//! Finds the report in a message: in multipart/report or multipart/mixed, as the only part, or one level deep in a
//! message/rfc822 part (REC-04, REC-05). The format is detected from the content, not from the labels.

use formats::DomainName;
use formats::report::{ReadError, ReadReport, Report, ReportMail, UnpackError, Unpacked, pack, unpack};
use jiff::Timestamp;
use mail_parser::{Message, MessageParser, PartType};

/// A report extracted from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The parsed report and the warnings about it.
    pub read: ReadReport,
    /// The submitter as claimed by `TLS-Report-Submitter`, the subject or `From`, in this order; not verified.
    pub submitter: DomainName,
    /// The domain that the message says the report is about; `None` if neither header nor subject names one.
    pub policy_domain: Option<DomainName>,
    /// The report's JSON text as received, compressed with gzip.
    pub packed: Vec<u8>,
}

/// Why no report could be read from a message or file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReport {
    /// The input is not a mail message.
    #[error("this is not a mail message")]
    NotMail,
    /// No header, file name or contact identifies the submitter.
    #[error("the submitter is unknown: no TLS-Report-Submitter, From, file name or contact names a domain")]
    NoSubmitter,
    /// No part looks like a report.
    #[error("no part of the message is a TLS report")]
    Missing,
    /// A part looks like a report but can't be decompressed.
    #[error("the report can't be unpacked: {0}")]
    Unpack(UnpackError),
    /// A part looks like a report but can't be parsed.
    #[error("the report can't be read: {0}")]
    Read(ReadError),
    /// The report's period begins in the future, at this time.
    #[error("the report begins at {0}, which is in the future: the sender's clock or ours is wrong")]
    Future(Timestamp),
}

/// Maximum number of MIME parts of a message that are examined.
pub(super) const MAX_PARTS: usize = 100;

/// Extracts the report from a message.
pub fn extract(message: &[u8]) -> Result<Extracted, NoReport> {
    let parsed = MessageParser::default().parse(message).ok_or(NoReport::NotMail)?;
    let failure = match report_in(&parsed) {
        Ok(found) => return extracted(&parsed, found),
        Err(failure) => failure,
    };
    // A forwarded report: the inner message names the submitter.
    for inner in parsed.parts.iter().take(MAX_PARTS).filter_map(inner_message) {
        if let Ok(found) = report_in(inner) {
            return extracted(inner, found);
        }
    }
    Err(failure)
}

fn extracted(message: &Message<'_>, (read, packed): Found) -> Result<Extracted, NoReport> {
    let submitter = submitter(message).ok_or(NoReport::NoSubmitter)?;
    Ok(Extracted { read, submitter, policy_domain: policy_domain(message), packed })
}

/// The parsed report, and its JSON text compressed with gzip.
type Found = (ReadReport, Vec<u8>);

fn inner_message<'m>(part: &'m mail_parser::MessagePart<'m>) -> Option<&'m Message<'m>> {
    match &part.body {
        PartType::Message(inner) => Some(inner),
        _ => None,
    }
}

fn report_in(message: &Message<'_>) -> Result<Found, NoReport> {
    let mut failure = NoReport::Missing;
    for part in message.parts.iter().take(MAX_PARTS) {
        let bytes = match &part.body {
            PartType::Text(text) | PartType::Html(text) => text.as_bytes(),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => bytes,
            PartType::Message(_) | PartType::Multipart(_) => continue,
        };
        if !looks_like_a_report(bytes) {
            continue;
        }
        match read_packed(bytes) {
            Ok(found) => return Ok(found),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Reads a report file, compressed or not. Input in gzip is kept unchanged; other input is compressed with gzip.
pub fn read_packed(bytes: &[u8]) -> Result<Found, NoReport> {
    let (json, how) = unpack(bytes).map_err(NoReport::Unpack)?;
    let read = Report::read(&json).map_err(NoReport::Read)?;
    let packed = match how {
        Unpacked::Gzip => bytes.to_vec(),
        Unpacked::Plain | Unpacked::Zip => {
            pack(&json).map_err(|error| NoReport::Unpack(UnpackError::Broken(error.to_string())))?
        }
    };
    Ok((read, packed))
}

/// Detects gzip, zip, or text that begins like JSON. Labels are ignored, since they are often wrong.
pub fn looks_like_a_report(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    bytes.starts_with(&[0x1f, 0x8b]) || bytes.starts_with(b"PK\x03\x04") || text.starts_with(b"{")
}

fn submitter(message: &Message<'_>) -> Option<DomainName> {
    let header =
        message.header_raw("TLS-Report-Submitter").and_then(|text| DomainName::parse(text.trim()).ok());
    let subject = || message.subject().and_then(ReportMail::parse_subject).map(|mail| mail.submitter);
    let from = || {
        let address = message.from()?.first()?.address()?;
        DomainName::parse(address.rsplit_once('@')?.1).ok()
    };
    header.or_else(subject).or_else(from)
}

fn policy_domain(message: &Message<'_>) -> Option<DomainName> {
    let header = message.header_raw("TLS-Report-Domain").and_then(|text| DomainName::parse(text.trim()).ok());
    header.or_else(|| Some(ReportMail::parse_subject(message.subject()?)?.policy_domain))
}
