//! Finds the reports in a message or file: in multipart/report or multipart/mixed, as the only part, in messages within
//! messages, and in zip files (REC-04, REC-05). The format is detected from the content, not from the labels. There may be
//! several reports; each is extracted, and what can't be read is a problem that loses no other report. The caller
//! (`super`) runs this in the [`ExtractionPool`](super::ExtractionPool), since the input is hostile.

use super::claims;
use super::dmarc::{self, ExtractedDmarc};
use super::pool::Busy;
use super::structure;
use super::submitter::{Origin, submitter_of_file};
use formats::DomainName;
use formats::dmarc::{DmarcFileName, DmarcReport, is_dmarc_text};
use formats::limits::{DMARC_ELEMENTS, INBOX_DEPTH, INBOX_PARTS, INBOX_REPORTS, REPORT_BYTES};
use formats::printable::printable;
use formats::report::{
    ReadError, ReadReport, Report, ReportFileName, UnpackBudget, UnpackError, Unpacked, is_gzip, is_zip,
    pack, unpack_within, zip_members_within,
};
use jiff::Timestamp;
use mail_parser::{Message, MessageParser, MessagePart, MimeHeaders, PartType};
use net::memory_budget::Reservation;

/// A report extracted from a message or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The parsed report and the warnings about it.
    pub read: ReadReport,
    /// The submitter as claimed by the message, the file name or the report; not verified. `None` if none of them names
    /// a domain.
    pub submitter: Option<DomainName>,
    /// The domain that the message or the file name says the report is about; `None` if neither names one.
    pub policy_domain: Option<DomainName>,
    /// The report's JSON text as received, compressed with gzip.
    pub packed: Vec<u8>,
}

/// Why no report could be read from a message, a file or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReport {
    /// The input is not a mail message.
    #[error("this is not a mail message")]
    NotMail,
    /// No part looks like a report.
    #[error("no part of the message is a TLS report")]
    Missing,
    /// The message returns mail to its sender, or answers it; a report inside is one that was sent, not received.
    #[error("the message is a bounce or an automatic reply (RFC 3464), not a TLS report")]
    Bounce,
    /// A part looks like a report but can't be decompressed.
    #[error("the report can't be unpacked: {0}")]
    Unpack(UnpackError),
    /// A part looks like a report but can't be parsed.
    #[error("the report can't be read: {0}")]
    Read(ReadError),
    /// The report's period begins in the future, at this time.
    #[error("the report begins at {0}, which is in the future: the sender's clock or ours is wrong")]
    Future(Timestamp),
    /// The input has more than [`INBOX_REPORTS`] reports.
    #[error("there are more than {INBOX_REPORTS} reports; only the first {INBOX_REPORTS} are read")]
    TooManyReports,
    /// A message is within more than [`INBOX_DEPTH`] others.
    #[error("a message within {INBOX_DEPTH} others is not searched")]
    TooDeep,
    /// The input is a DMARC aggregate report, and those are not imported here.
    #[error("this is a DMARC report, not a TLS report; `inbox.dmarc = true` imports them")]
    Dmarc,
    /// The input is a DMARC aggregate report that can't be read.
    #[error("the DMARC report can't be read: {0}")]
    DmarcRead(formats::dmarc::DmarcError),
    /// The message has more than [`INBOX_PARTS`] parts.
    #[error("the message has more than {INBOX_PARTS} parts; only the first {INBOX_PARTS} are read")]
    TooManyParts,
}

/// A part of the input that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name of the part or zip member, printable; empty if it has none.
    pub name: String,
    /// Why it could not be read.
    pub why: NoReport,
    /// True if it claims to be a TLS report.
    pub claims: bool,
}

/// What was found in a message or file.
#[derive(Debug, Default)]
pub struct Extraction {
    /// The reports, at most [`INBOX_REPORTS`].
    pub reports: Vec<Extracted>,
    /// What could not be read. Beside reports, only what claims to be a report counts, or all if the input as a whole
    /// claims to be one.
    pub problems: Vec<Problem>,
    /// True if the input as a whole, or something unreadable in it, claims to be a TLS report.
    pub claims: bool,
    /// The DMARC reports. Together with [`Extraction::reports`] at most [`INBOX_REPORTS`].
    pub dmarc: Vec<ExtractedDmarc>,
    /// True if by its content or name something in the input is a DMARC report, also an unreadable one.
    pub has_dmarc: bool,
}

/// Extracts the reports from a message. `is_returned` is true when its envelope names no sender, as that of a bounce.
///
/// # Errors
///
/// [`Busy`] if the memory for decompressed reports is in use.
pub fn extract_message(
    message: &[u8],
    is_returned: bool,
    memory: &mut Reservation,
) -> Result<Extraction, Busy> {
    let mut reserve = |bytes| memory.grow(bytes);
    let mut extractor = Extractor::new(UnpackBudget::new(message.len(), &mut reserve));
    match parse(message) {
        Err(why) => extractor.problem("", why, false),
        Ok(parsed) => {
            extractor.found.claims = claims::mail_claims(&parsed, is_returned);
            extractor.is_for_reports = extractor.found.claims;
            extractor.message(&parsed, is_returned, INBOX_DEPTH)?;
        }
    }
    Ok(extractor.finish())
}

/// Parses a message whose structure is bounded.
fn parse(message: &[u8]) -> Result<Message<'_>, NoReport> {
    if !structure::is_bounded(message) {
        return Err(NoReport::TooManyParts);
    }
    MessageParser::default().parse(message).ok_or(NoReport::NotMail)
}

/// Extracts the reports from a report file or a zip file. Its name may identify the submitter (RFC 8460 §5.1).
///
/// # Errors
///
/// [`Busy`] if the memory for decompressed reports is in use.
pub fn extract_file(bytes: &[u8], name: &str, memory: &mut Reservation) -> Result<Extraction, Busy> {
    let mut reserve = |bytes| memory.grow(bytes);
    let mut extractor = Extractor::new(UnpackBudget::new(bytes.len(), &mut reserve));
    extractor.is_for_reports = true;
    let file = File { bytes, name, is_labelled: false };
    match is_zip(bytes) {
        true => extractor.zip(&file, &Origin::default(), INBOX_DEPTH)?,
        false => extractor.report(&file, &Origin::default())?,
    }
    Ok(extractor.finish())
}

/// Detects gzip, zip, or text that begins like JSON. Labels are ignored, since they are often wrong.
pub fn looks_like_a_report(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    is_gzip(bytes) || is_zip(bytes) || text.starts_with(b"{")
}

/// Memory of one parsed JSON value, in bytes, without its text.
const NODE_BYTES: usize = 96;

/// A part of a message, a member of a zip file, or a file.
struct File<'f> {
    bytes: &'f [u8],
    name: &'f str,
    /// True if media type or name say that it is a report.
    is_labelled: bool,
}

struct Extractor<'r> {
    budget: UnpackBudget<'r>,
    /// XML elements of DMARC reports that may still be read.
    elements: usize,
    parts: usize,
    /// True if the input is there for reports, so that whatever looks like a report beside one has to be one.
    is_for_reports: bool,
    found: Extraction,
}

impl<'r> Extractor<'r> {
    fn new(budget: UnpackBudget<'r>) -> Self {
        let found = Extraction::default();
        Self { budget, elements: DMARC_ELEMENTS, parts: 0, is_for_reports: false, found }
    }

    /// Searches a message. `depth` is the number of levels of messages within it that are searched.
    fn message(&mut self, message: &Message<'_>, is_returned: bool, depth: usize) -> Result<(), Busy> {
        if claims::is_bounce(message) {
            self.problem("", NoReport::Bounce, false);
            return Ok(());
        }
        let is_returned = is_returned || claims::is_automatic_reply(message);
        let origin = Origin::of(message);
        for part in &message.parts {
            if matches!(part.body, PartType::Multipart(_)) {
                continue;
            }
            if self.parts == INBOX_PARTS {
                self.problem("", NoReport::TooManyParts, self.found.claims || !self.found.reports.is_empty());
                return Ok(());
            }
            self.parts += 1;
            match &part.body {
                _ if is_returned && claims::is_message(part) => self.problem("", NoReport::Bounce, false),
                PartType::Message(inner) if depth > 0 => self.message(inner, false, depth - 1)?,
                PartType::Message(inner) => {
                    self.problem("", NoReport::TooDeep, claims::mail_claims(inner, false));
                }
                PartType::Multipart(_) => {}
                PartType::Text(text) | PartType::Html(text) => {
                    self.part(part, text.as_bytes(), &origin, depth)?
                }
                PartType::Binary(bytes) | PartType::InlineBinary(bytes) => {
                    self.part(part, bytes, &origin, depth)?
                }
            }
        }
        Ok(())
    }

    fn part(
        &mut self,
        part: &MessagePart<'_>,
        bytes: &[u8],
        origin: &Origin,
        depth: usize,
    ) -> Result<(), Busy> {
        let is_labelled = claims::is_labelled(part);
        let file = File { bytes, name: part.attachment_name().unwrap_or_default(), is_labelled };
        if is_zip(bytes) {
            self.zip(&file, origin, depth)
        } else if looks_like_a_report(bytes) || is_dmarc_text(bytes) {
            self.report(&file, origin)
        } else if claims::is_message(part) {
            self.inner(bytes, file.name, depth)
        } else {
            self.found.claims |= is_labelled;
            Ok(())
        }
    }

    fn zip(&mut self, file: &File<'_>, origin: &Origin, depth: usize) -> Result<(), Busy> {
        let contents = match zip_members_within(file.bytes, INBOX_REPORTS, &mut self.budget) {
            Ok(contents) => contents,
            Err(UnpackError::Busy) => return Err(Busy),
            Err(error) => {
                let claims = self.claims(file, file.bytes);
                self.problem(file.name, NoReport::Unpack(error), claims);
                return Ok(());
            }
        };
        for member in &contents.members {
            let is_labelled = file.is_labelled || claims::is_named_so(&member.name);
            match &member.bytes {
                Ok(bytes) => self.member(&File { bytes, name: &member.name, is_labelled }, origin, depth)?,
                Err(error) => {
                    self.problem(&member.name, NoReport::Unpack(error.clone()), is_labelled);
                }
            }
        }
        if contents.left_out > 0 {
            let claims = file.is_labelled || !self.found.reports.is_empty();
            self.problem(file.name, NoReport::TooManyReports, claims);
        }
        Ok(())
    }

    fn member(&mut self, member: &File<'_>, origin: &Origin, depth: usize) -> Result<(), Busy> {
        if is_zip(member.bytes) {
            let nested = UnpackError::Broken("a zip file within a zip file is not read".to_owned());
            self.problem(member.name, NoReport::Unpack(nested), member.is_labelled);
        } else if looks_like_a_report(member.bytes) || is_dmarc_text(member.bytes) {
            return self.report(member, origin);
        } else {
            return self.inner(member.bytes, member.name, depth);
        }
        Ok(())
    }

    /// Searches a message that the parser of the outer one did not parse.
    fn inner(&mut self, bytes: &[u8], name: &str, depth: usize) -> Result<(), Busy> {
        let message = match parse(bytes) {
            Ok(message) => message,
            Err(NoReport::NotMail) => return Ok(()),
            Err(why) => {
                self.problem(name, why, false);
                return Ok(());
            }
        };
        match depth.checked_sub(1) {
            Some(depth) => self.message(&message, false, depth),
            None => {
                self.problem(name, NoReport::TooDeep, claims::mail_claims(&message, false));
                Ok(())
            }
        }
    }

    /// Reads one report, compressed or not. Text in gzip is kept unchanged; other text is compressed with gzip.
    fn report(&mut self, file: &File<'_>, origin: &Origin) -> Result<(), Busy> {
        if self.found.reports.len() + self.found.dmarc.len() == INBOX_REPORTS {
            if !self.found.problems.iter().any(|problem| problem.why == NoReport::TooManyReports) {
                self.problem("", NoReport::TooManyReports, true);
            }
            return Ok(());
        }
        let (json, packing) = match unpack_within(file.bytes, &mut self.budget) {
            Ok(unpacked) => unpacked,
            Err(UnpackError::Busy) => return Err(Busy),
            Err(error) => {
                let claims = self.claims(file, file.bytes);
                self.problem(file.name, NoReport::Unpack(error), claims);
                return Ok(());
            }
        };
        if is_dmarc_text(&json) {
            return self.dmarc(&json, file, origin);
        }
        // The parsed values and their texts.
        let values = json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
        let values = values.min(*self.budget.nodes());
        let parsed = values.saturating_mul(NODE_BYTES).saturating_add(json.len().min(REPORT_BYTES));
        self.budget.reserve(parsed).map_err(|_| Busy)?;
        let read = match Report::read_within(&json, self.budget.nodes()) {
            Ok(read) => read.with_packing(packing),
            Err(error) => {
                let claims = self.claims(file, &json);
                self.problem(file.name, NoReport::Read(error), claims);
                return Ok(());
            }
        };
        let packed = match packing {
            Unpacked::Gzip | Unpacked::GzipWithTrailingBytes => Ok(file.bytes.to_vec()),
            Unpacked::Plain | Unpacked::Zip => pack(&json),
        };
        match packed {
            Ok(packed) => self.keep(read, packed, file, origin),
            Err(error) => {
                self.problem(file.name, NoReport::Unpack(UnpackError::Broken(error.to_string())), true)
            }
        }
        Ok(())
    }

    /// Reads one DMARC report.
    fn dmarc(&mut self, text: &[u8], file: &File<'_>, origin: &Origin) -> Result<(), Busy> {
        self.found.has_dmarc = true;
        self.budget.reserve(dmarc::memory_to_read(text)).map_err(|_| Busy)?;
        match DmarcReport::read(text, &mut self.elements) {
            Ok(report) => self.found.dmarc.push(ExtractedDmarc::new(report, file.name, origin)),
            Err(error) => self.problem(file.name, NoReport::DmarcRead(error), false),
        }
        Ok(())
    }

    fn keep(&mut self, read: ReadReport, packed: Vec<u8>, file: &File<'_>, origin: &Origin) {
        let named = ReportFileName::parse(file.name);
        let submitter = origin.submitter.clone().or_else(|| submitter_of_file(named.as_ref(), &read.report));
        let policy_domain = origin.policy_domain.clone().or_else(|| named.map(|named| named.policy_domain));
        self.found.reports.push(Extracted { read, submitter, policy_domain, packed });
    }

    fn claims(&self, file: &File<'_>, text: &[u8]) -> bool {
        file.is_labelled || claims::is_named_so(file.name) || claims::has_members(text)
    }

    fn problem(&mut self, name: &str, why: NoReport, claims: bool) {
        self.found.has_dmarc |= DmarcFileName::parse(name).is_some();
        self.found.claims |= claims;
        // Reasons need no more than the first few.
        if self.found.problems.len() <= INBOX_REPORTS {
            self.found.problems.push(Problem { name: printable(name, NAME_CHARACTERS), why, claims });
        }
    }

    fn finish(mut self) -> Extraction {
        if !self.found.reports.is_empty() {
            let is_for_reports = self.is_for_reports;
            self.found.problems.retain_mut(|problem| {
                problem.claims |= is_for_reports;
                problem.claims
            });
        } else if self.found.problems.is_empty() && self.found.dmarc.is_empty() {
            self.problem("", NoReport::Missing, false);
        }
        if self.found.has_dmarc && self.found.reports.is_empty() {
            // The subjects of DMARC and TLS reports look the same, so the subject of the mail is no claim.
            self.found.claims = self.found.problems.iter().any(|problem| problem.claims);
        }
        self.found
    }
}

/// Characters of the name of a part that are shown.
const NAME_CHARACTERS: usize = 100;
