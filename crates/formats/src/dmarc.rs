//! DMARC aggregate reports (RFC 9990, and the older form of RFC 7489 appendix C). Receivers of mail send them daily to the
//! `rua` addresses of a domain's DMARC record. Many domains use one address for DMARC and TLS reports, so both arrive at
//! the report inbox.
//!
//! [`DmarcReport::read`] takes the decompressed XML. It keeps the number of messages by source address, alignment and
//! disposition, and nothing else of a record. The parser accepts what real reporters send: any namespace or none, comments,
//! missing optional elements, other encodings. The results go to `store::dmarc`. [`DmarcFileName`] and [`is_dmarc_text`] find
//! out whether a file is such a report at all.
//!
//! The crate mail-auth has a reader too. It is not used: it keeps every record in memory without a limit, reads an invalid
//! address or count as zero, and brings a second XML reader and a second zip reader.

use crate::domain::DomainName;
use crate::limits::{DMARC_ELEMENTS, DMARC_MESSAGES, DMARC_ROWS, REPORT_TEXT_BYTES};
use crate::report::DateRange;
use crate::xml::{self, Dialect, Event, XmlError};
use jiff::Timestamp;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// An aggregate report about one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcReport {
    /// The name of the reporting organization (`org_name`); may be empty.
    pub organization: String,
    /// The contact of the reporting organization (`email`); may be empty.
    pub email: String,
    /// The identifier that the reporting organization assigned; may be empty.
    pub report_id: String,
    /// The time that the report covers. `end` is not before `start`.
    pub range: DateRange,
    /// The domain whose DMARC record applied (`policy_published`).
    pub domain: DomainName,
    /// The counts, ordered by source, disposition and alignment; each combination occurs once. None is zero.
    pub rows: Vec<DmarcRow>,
    /// The number of records whose message count is missing or invalid. Their messages are in no row.
    pub uncounted: u64,
}

/// The number of messages from one source with one result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcRow {
    /// The address that delivered the messages. `None` if it is invalid, or beyond [`DMARC_ROWS`].
    pub source: Option<IpAddr>,
    /// What the receiver did with the messages.
    pub disposition: Disposition,
    /// Whether a DKIM signature was valid and aligned with the author's domain.
    pub dkim: Alignment,
    /// Whether SPF passed for a domain that is aligned with the author's domain.
    pub spf: Alignment,
    /// The number of messages, at least 1.
    pub messages: u64,
}

/// What a receiver did with messages (RFC 9990 §3.1.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Disposition {
    /// Nothing: delivered as without DMARC.
    None,
    /// The messages passed DMARC.
    Pass,
    /// The messages were treated as suspicious.
    Quarantine,
    /// The messages were rejected.
    Reject,
    /// The report states no disposition, or an unknown one.
    Unknown,
}

impl Disposition {
    /// All values, in the order of their numbers in the store.
    pub const ALL: [Self; 5] = [Self::None, Self::Pass, Self::Quarantine, Self::Reject, Self::Unknown];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
            Self::Unknown => "unknown",
        }
    }

    fn parse(text: &str) -> Self {
        let found = Self::ALL.into_iter().find(|one| text.eq_ignore_ascii_case(one.name()));
        found.unwrap_or(Self::Unknown)
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The result of DKIM or SPF with regard to alignment (`policy_evaluated`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Alignment {
    /// Not aligned, or not valid.
    Fail,
    /// Valid and aligned.
    Pass,
    /// The report does not state the result.
    Unknown,
}

impl Alignment {
    /// All values, in the order of their numbers in the store.
    pub const ALL: [Self; 3] = [Self::Fail, Self::Pass, Self::Unknown];

    fn parse(text: &str) -> Self {
        match text {
            "" => Self::Unknown,
            _ if text.eq_ignore_ascii_case("pass") => Self::Pass,
            _ => Self::Fail,
        }
    }
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fail => "fail",
            Self::Pass => "pass",
            Self::Unknown => "unknown",
        })
    }
}

/// Why a DMARC report can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DmarcError {
    /// The text is not well-formed, or exceeds a limit.
    #[error("{0}")]
    Xml(#[from] XmlError),
    /// The root element is not `feedback`.
    #[error("the root element is not `feedback`")]
    Root,
    /// `date_range` is missing, or its begin is not a time.
    #[error("the report has no valid `date_range`")]
    Range,
    /// Neither `policy_published` nor the first record names a valid domain.
    #[error("the report names no valid domain")]
    Domain,
}

impl DmarcReport {
    /// Reads the decompressed text of a report. `elements` is the number of XML elements that may be read, at most
    /// [`DMARC_ELEMENTS`]; it is reduced by those that were read, also on failure.
    ///
    /// # Errors
    ///
    /// Any [`DmarcError`].
    pub fn read(bytes: &[u8], elements: &mut usize) -> Result<Self, DmarcError> {
        let text = decoded(bytes);
        let mut reader = Reader::default();
        let most = (*elements).min(DMARC_ELEMENTS);
        let dialect = Dialect { elements: most, is_lenient: true };
        let outcome = xml::read(&text, dialect, &mut |_, event| reader.event(event));
        *elements = elements.saturating_sub(reader.elements);
        outcome?;
        reader.finish()
    }

    /// The number of messages in all rows.
    pub fn messages(&self) -> u64 {
        self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.messages))
    }
}

/// The text as UTF-8: by its byte-order mark, as UTF-8 if it is valid, else as Latin-1. The declared encoding is ignored,
/// since it is often wrong.
fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> Cow<'_, str> {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        char::decode_utf16(units)
            .map(|read| read.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect::<String>()
            .into()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(),
        },
    }
}

/// The elements whose text or place matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Feedback,
    ReportMetadata,
    OrgName,
    Email,
    ReportId,
    DateRange,
    Begin,
    End,
    PolicyPublished,
    Domain,
    Record,
    Row,
    SourceIp,
    Count,
    PolicyEvaluated,
    Disposition,
    Dkim,
    Spf,
    Identifiers,
    HeaderFrom,
    Other,
}

impl Tag {
    fn of(name: &str) -> Self {
        match name {
            "feedback" => Self::Feedback,
            "report_metadata" => Self::ReportMetadata,
            "org_name" => Self::OrgName,
            "email" => Self::Email,
            "report_id" => Self::ReportId,
            "date_range" => Self::DateRange,
            "begin" => Self::Begin,
            "end" => Self::End,
            "policy_published" => Self::PolicyPublished,
            "domain" => Self::Domain,
            "record" => Self::Record,
            "row" => Self::Row,
            "source_ip" => Self::SourceIp,
            "count" => Self::Count,
            "policy_evaluated" => Self::PolicyEvaluated,
            "disposition" => Self::Disposition,
            "dkim" => Self::Dkim,
            "spf" => Self::Spf,
            "identifiers" => Self::Identifiers,
            "header_from" => Self::HeaderFrom,
            _ => Self::Other,
        }
    }
}

/// A record that is being read.
#[derive(Debug, Default)]
struct Record {
    source: Option<IpAddr>,
    messages: Option<u64>,
    disposition: Option<Disposition>,
    dkim: Option<Alignment>,
    spf: Option<Alignment>,
}

type RowKey = (Option<IpAddr>, Disposition, Alignment, Alignment);

/// Collects the parts of a report in document order.
#[derive(Default)]
struct Reader {
    /// The open elements, from the root.
    path: Vec<Tag>,
    /// The namespace prefix of the root element, with its colon. Elements with another one are extensions. Those without a prefix
    /// are not: by the schema of RFC 7489 appendix C, only the root element is in a namespace.
    prefix: String,
    elements: usize,
    organization: String,
    email: String,
    report_id: String,
    begin: Option<Timestamp>,
    end: Option<Timestamp>,
    domain: Option<DomainName>,
    header_from: Option<DomainName>,
    record: Record,
    rows: BTreeMap<RowKey, u64>,
    uncounted: u64,
}

impl Reader {
    fn event(&mut self, event: Event<'_>) -> Result<(), DmarcError> {
        match event {
            Event::Start(name) => self.start(name),
            Event::End { text, .. } => {
                self.end(text.trim());
                self.path.pop();
                Ok(())
            }
        }
    }

    fn start(&mut self, name: &str) -> Result<(), DmarcError> {
        self.elements += 1;
        if self.path.is_empty() {
            let at = name.find(':').map_or(0, |at| at + 1);
            self.prefix = name.get(..at).unwrap_or_default().to_owned();
        }
        let tag = Tag::of(name.strip_prefix(self.prefix.as_str()).unwrap_or(name));
        if self.path.is_empty() && tag != Tag::Feedback {
            return Err(DmarcError::Root);
        }
        self.path.push(tag);
        if self.path == [Tag::Feedback, Tag::Record] {
            self.record = Record::default();
        }
        Ok(())
    }

    /// Takes the text of the element that ends, which is the last one of the path.
    fn end(&mut self, text: &str) {
        match self.path.as_slice() {
            [Tag::Feedback, Tag::ReportMetadata, within @ ..] => match within {
                [Tag::OrgName] => self.organization = shortened(text),
                [Tag::Email] => self.email = shortened(text),
                [Tag::ReportId] => self.report_id = shortened(text),
                [Tag::DateRange, Tag::Begin] => self.begin = time(text),
                [Tag::DateRange, Tag::End] => self.end = time(text),
                _ => {}
            },
            [Tag::Feedback, Tag::PolicyPublished, Tag::Domain] => self.domain = DomainName::parse(text).ok(),
            [Tag::Feedback, Tag::Record] => self.end_record(),
            [Tag::Feedback, Tag::Record, within @ ..] => match within {
                [Tag::Row, Tag::SourceIp] => self.record.source = address(text),
                [Tag::Row, Tag::Count] => self.record.messages = count(text),
                [Tag::Row, Tag::PolicyEvaluated, Tag::Disposition] => {
                    self.record.disposition = Some(Disposition::parse(text));
                }
                [Tag::Row, Tag::PolicyEvaluated, Tag::Dkim] => {
                    self.record.dkim = Some(Alignment::parse(text))
                }
                [Tag::Row, Tag::PolicyEvaluated, Tag::Spf] => self.record.spf = Some(Alignment::parse(text)),
                [Tag::Identifiers, Tag::HeaderFrom] if self.header_from.is_none() => {
                    self.header_from = DomainName::parse(text).ok();
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn end_record(&mut self) {
        let record = std::mem::take(&mut self.record);
        let Some(messages) = record.messages else {
            self.uncounted += 1;
            return;
        };
        if messages == 0 {
            return;
        }
        let result = (
            record.disposition.unwrap_or(Disposition::Unknown),
            record.dkim.unwrap_or(Alignment::Unknown),
            record.spf.unwrap_or(Alignment::Unknown),
        );
        let mut key = (record.source, result.0, result.1, result.2);
        if self.rows.len() >= DMARC_ROWS && !self.rows.contains_key(&key) {
            // Without a source there are few keys, so the number of rows stays bounded.
            key.0 = None;
        }
        let sum = self.rows.entry(key).or_default();
        *sum = sum.saturating_add(messages);
    }

    fn finish(self) -> Result<DmarcReport, DmarcError> {
        let start = self.begin.ok_or(DmarcError::Range)?;
        let end = self.end.filter(|end| *end >= start).unwrap_or(start);
        let row = |((source, disposition, dkim, spf), messages)| DmarcRow {
            source,
            disposition,
            dkim,
            spf,
            messages,
        };
        Ok(DmarcReport {
            organization: self.organization,
            email: self.email,
            report_id: self.report_id,
            range: DateRange { start, end },
            domain: self.domain.or(self.header_from).ok_or(DmarcError::Domain)?,
            rows: self.rows.into_iter().map(row).collect(),
            uncounted: self.uncounted,
        })
    }
}

/// The text, up to [`REPORT_TEXT_BYTES`].
fn shortened(text: &str) -> String {
    let mut end = text.len().min(REPORT_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// Seconds since 1970. Some reporters write milliseconds, or a date.
fn time(text: &str) -> Option<Timestamp> {
    const FIRST_MILLISECONDS: i64 = 100_000_000_000;
    match text.parse::<i64>() {
        Ok(number) if number >= FIRST_MILLISECONDS => Timestamp::from_millisecond(number).ok(),
        Ok(number) if number >= 0 => Timestamp::from_second(number).ok(),
        Ok(_) => None,
        Err(_) => text.parse().ok(),
    }
}

/// A number of messages. A number with too many digits is large, everything else invalid.
fn count(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX).min(DMARC_MESSAGES))
}

fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().map(|address: IpAddr| address.to_canonical()).ok()
}

/// The number of bytes at the start of a text in which [`is_dmarc_text`] searches its root element.
pub const HEAD_BYTES: usize = 4096;

/// True for text that begins as a DMARC report does: XML whose first element is `feedback`, with an element or a namespace
/// of DMARC near by.
pub fn is_dmarc_text(bytes: &[u8]) -> bool {
    let head = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
    let head = decoded(head);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    let is_root = |at: usize| {
        let before = head.get(..at).unwrap_or_default();
        let after = head.get(at + "feedback".len()..).unwrap_or_default();
        let name = before.rsplit('<').next().unwrap_or_default();
        before.contains('<')
            && (name.is_empty() || (name.ends_with(':') && !name.contains(char::is_whitespace)))
            && after.starts_with(['>', ' ', '\t', '\r', '\n'])
    };
    head.starts_with('<')
        && head.match_indices("feedback").any(|(at, _)| is_root(at))
        && ["report_metadata", "policy_published", "dmarc"].iter().any(|word| head.contains(word))
}

/// The name of a DMARC report file: `RECEIVER!DOMAIN!BEGIN!END[!ID].xml[.gz]`, or with `.zip` (RFC 9990 §3.5.2, RFC 7489
/// §7.2.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DmarcFileName {
    /// The domain of the reporting organization.
    pub receiver: DomainName,
    /// The domain that the report is about.
    pub domain: DomainName,
}

impl DmarcFileName {
    /// Parses a file name. Surrounding white space and leading folders are ignored.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().rsplit(['/', '\\']).next()?.to_ascii_lowercase();
        let endings = [".xml.gz", ".xml.zip", ".xml.gzip", ".xml", ".gz", ".zip"];
        let stem = endings.iter().find_map(|ending| name.strip_suffix(ending))?;
        let mut parts = stem.split('!');
        let (receiver, domain) = (parts.next()?, parts.next()?);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(parts.next()?) || !is_number(parts.next()?) || stem.ends_with(".json") {
            return None;
        }
        Some(Self { receiver: DomainName::parse(receiver).ok()?, domain: DomainName::parse(domain).ok()? })
    }
}

#[cfg(test)]
mod tests;
