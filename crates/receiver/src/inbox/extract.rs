//! Finds the report in a message: in multipart/report or mixed, as the only part, or one level
//! inside message/rfc822 (REC-04, REC-05).

use formats::DomainName;
use formats::report::{ReadError, ReadReport, Report, ReportMail, UnpackError, unpack};
use mail_parser::{Message, MessageParser, PartType};

/// A report out of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The report and what is odd about it.
    pub read: ReadReport,
    /// Who says to have sent it: `TLS-Report-Submitter`, else the subject, else `From`.
    pub submitter: DomainName,
}

/// Why there is no report in a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReport {
    /// Not a mail message.
    #[error("this is not a mail message")]
    NotMail,
    /// No header says who sent it.
    #[error("neither TLS-Report-Submitter nor From names a domain")]
    NoSubmitter,
    /// No part looks like a report.
    #[error("no part of the message is a TLS report")]
    Missing,
    /// A part looks like one and can't be unpacked.
    #[error("the report can't be unpacked: {0}")]
    Unpack(UnpackError),
    /// A part looks like one and can't be read.
    #[error("the report can't be read: {0}")]
    Read(ReadError),
}

/// How many parts of a message are looked at.
const PARTS: usize = 100;

/// Takes the report out of a message.
pub fn extract(message: &[u8]) -> Result<Extracted, NoReport> {
    let parsed = MessageParser::default().parse(message).ok_or(NoReport::NotMail)?;
    if let Ok(read) = report_in(&parsed) {
        let submitter = submitter(&parsed).ok_or(NoReport::NoSubmitter)?;
        return Ok(Extracted { read, submitter });
    }
    // A forwarded report: who sent it stands in the message inside.
    for inner in parsed.parts.iter().take(PARTS).filter_map(inner_message) {
        if let Ok(read) = report_in(inner) {
            let submitter = submitter(inner).ok_or(NoReport::NoSubmitter)?;
            return Ok(Extracted { read, submitter });
        }
    }
    Err(report_in(&parsed).err().unwrap_or(NoReport::Missing))
}

fn inner_message<'m>(part: &'m mail_parser::MessagePart<'m>) -> Option<&'m Message<'m>> {
    match &part.body {
        PartType::Message(inner) => Some(inner),
        _ => None,
    }
}

fn report_in(message: &Message<'_>) -> Result<ReadReport, NoReport> {
    let mut failure = NoReport::Missing;
    for part in message.parts.iter().take(PARTS) {
        let bytes = match &part.body {
            PartType::Text(text) | PartType::Html(text) => text.as_bytes(),
            PartType::Binary(bytes) | PartType::InlineBinary(bytes) => bytes,
            PartType::Message(_) | PartType::Multipart(_) => continue,
        };
        if !looks_like_a_report(bytes) {
            continue;
        }
        match unpack(bytes) {
            Ok((json, _)) => match Report::read(&json) {
                Ok(read) => return Ok(read),
                Err(error) => failure = NoReport::Read(error),
            },
            Err(error) => failure = NoReport::Unpack(error),
        }
    }
    Err(failure)
}

/// By content, since labels are often wrong: gzip, zip, or text that begins like JSON.
fn looks_like_a_report(bytes: &[u8]) -> bool {
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
