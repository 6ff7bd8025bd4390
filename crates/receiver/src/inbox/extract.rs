//! Finds the reports in a message or file: in multipart/report or multipart/mixed, as the only part, in messages within
//! messages, and in archives (REC-04, REC-05; `contents`). The format is detected from the content, not from the labels. There may be
//! several reports; each is extracted, and what can't be read is a problem that loses no other report. The caller
//! (`super`) runs this in the [`ExtractionPool`](super::ExtractionPool), since the input is hostile.

mod contents;

use super::claims;
use super::dmarc::ExtractedDmarc;
use super::job_memory::{JobMemory, Stop};
use super::mime::{Kind, Mail, Part, is_mail, take_apart};
use super::pool::Busy;
use super::shape::{is_other_gzip, looks_like_a_report};
use super::submitter::Origin;
use formats::DomainName;
use formats::dmarc::{DmarcFileName, is_dmarc_text};
use formats::limits::{
    DMARC_ELEMENTS, INBOX_DEPTH, INBOX_MULTIPARTS, INBOX_PACKINGS, INBOX_PARTS, INBOX_REPORTS,
};
use formats::mbox::{Found, Splitter, is_mbox};
use formats::printable::printable;
use formats::report::{
    Held, HeldText, ReadError, ReadReport, UnlimitedMemory, UnpackBudget, UnpackError, is_tar,
};
use jiff::Timestamp;
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
    /// The message has multiparts within more than [`INBOX_MULTIPARTS`] others.
    #[error("a multipart within {INBOX_MULTIPARTS} others is not searched")]
    TooManyLevels,
    /// The report is within more than [`INBOX_PACKINGS`] levels of compression and archives.
    #[error(
        "the report is compressed or archived more than {INBOX_PACKINGS} times, and is not unpacked further"
    )]
    TooManyPackings,
    /// The media type or the name says that it is a report, but the content begins like nothing that a report can be.
    #[error("it is labeled as a TLS report, but is neither JSON nor gzip, zip or tar data")]
    Unrecognized,
    /// The text after a report has the members of a report, but is not JSON.
    #[error("the text after a report can't be read")]
    Trailing,
    /// The parser failed. The input is not at fault.
    #[error("reading it failed because of a defect in this program; please report it")]
    Defect,
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

/// Extracts the reports from a message. `is_returned` is true when its envelope names no sender, as that of a bounce. The
/// reservation grows by the memory that the result takes.
///
/// # Errors
///
/// [`Busy`] if the memory for decompressed reports is in use.
pub fn extract_message(
    message: &[u8],
    is_returned: bool,
    memory: &mut Reservation,
) -> Result<Extraction, Busy> {
    message_within(message, is_returned, &JobMemory::new(memory, usize::MAX)).map_err(busy)
}

/// Extracts the reports from a report file, a zip file or a tar file. Its name may identify the submitter (RFC 8460 §5.1). The
/// reservation grows by the memory that the result takes.
///
/// # Errors
///
/// [`Busy`] if the memory for decompressed reports is in use.
pub fn extract_file(bytes: &[u8], name: &str, memory: &mut Reservation) -> Result<Extraction, Busy> {
    file_within(bytes, name, &JobMemory::new(memory, usize::MAX)).map_err(busy)
}

/// What a whole file of gzip data has.
#[derive(Debug)]
pub(super) enum GzipContent {
    /// Report files, or nothing that is known.
    Reports(Extraction),
    /// What the caller reads: nothing was extracted.
    Left(LeftInGzip),
}

/// Content that is more than report files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftInGzip {
    /// A tar archive.
    Tar,
    /// A mail.
    Mail,
    /// Mails in the mbox format.
    Mbox,
}

impl LeftInGzip {
    /// Detects the content of a file by the beginning of its text.
    fn of(text: &[u8]) -> Option<Self> {
        if is_tar(text) {
            Some(Self::Tar)
        } else if is_mbox(text) {
            Some(Self::Mbox)
        } else {
            (!looks_like_a_report(text) && !is_dmarc_text(text) && is_mail(text)).then_some(Self::Mail)
        }
    }
}

/// Like [`extract_file`], for a file of gzip data whose mails and archives the caller reads by itself.
///
/// # Errors
///
/// [`Busy`] if the memory for decompressed reports is in use.
pub(super) fn extract_gzip_file(
    bytes: &[u8],
    name: &str,
    memory: &mut Reservation,
) -> Result<GzipContent, Busy> {
    let memory = JobMemory::new(memory, usize::MAX);
    let mut extractor = Extractor::new(UnpackBudget::new(bytes.len(), &memory));
    extractor.in_gzip = InGzip::Leave;
    extractor.outermost_file(bytes, name).map_err(|Stopped| busy(memory.stop()))?;
    Ok(match extractor.in_gzip {
        InGzip::Left(left) => GzipContent::Left(left),
        InGzip::Extract | InGzip::Leave => GzipContent::Reports(extractor.finish()),
    })
}

fn busy(stop: Stop) -> Busy {
    match stop {
        Stop::Busy(busy) => busy,
        Stop::Large => Busy { needed: 0 },
    }
}

/// [`extract_message`] within the memory of a job.
pub(super) fn message_within(
    message: &[u8],
    is_returned: bool,
    memory: &JobMemory<'_>,
) -> Result<Extraction, Stop> {
    let mut extractor = Extractor::new(UnpackBudget::new(message.len(), memory));
    extractor.outermost(message, is_returned).map_err(|Stopped| memory.stop())?;
    Ok(extractor.finish())
}

/// [`extract_file`] within the memory of a job.
pub(super) fn file_within(bytes: &[u8], name: &str, memory: &JobMemory<'_>) -> Result<Extraction, Stop> {
    let mut extractor = Extractor::new(UnpackBudget::new(bytes.len(), memory));
    extractor.outermost_file(bytes, name).map_err(|Stopped| memory.stop())?;
    Ok(extractor.finish())
}

/// True for a message whose header or parts say that it is a report, for input whose extraction failed.
pub(super) fn message_claims(message: &[u8], is_returned: bool) -> bool {
    let mail = take_apart(message, &UnlimitedMemory);
    mail.is_ok_and(|mail| mail.is_some_and(|mail| claims::mail_claims(&mail, is_returned)))
}

/// A part of a message, a member of an archive, or a file.
#[derive(Clone, Copy)]
struct File<'f> {
    bytes: &'f [u8],
    name: &'f str,
    /// True if the media type or the name marks the part as a report.
    is_labelled: bool,
    /// The levels of compression and archives around it.
    packings: usize,
}

/// The extraction was stopped for lack of memory; the job's memory has the reason.
struct Stopped;

/// What happens to mails and tar archives that the gzip data of a whole file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InGzip {
    /// Their reports are extracted.
    Extract,
    /// They are left to the caller.
    Leave,
    /// This was left to the caller.
    Left(LeftInGzip),
}

struct Extractor<'r> {
    budget: UnpackBudget<'r>,
    in_gzip: InGzip,
    /// XML elements of DMARC reports that may still be read.
    elements: usize,
    parts: usize,
    /// True if the input is there for reports, so that whatever looks like a report beside one has to be one.
    is_for_reports: bool,
    found: Extraction,
    /// For each problem, whether it counts beside a report.
    likely: Vec<bool>,
}

impl<'r> Extractor<'r> {
    fn new(budget: UnpackBudget<'r>) -> Self {
        let found = Extraction::default();
        let (likely, in_gzip) = (Vec::new(), InGzip::Extract);
        let (elements, is_for_reports) = (DMARC_ELEMENTS, false);
        Self { budget, in_gzip, elements, parts: 0, is_for_reports, found, likely }
    }

    /// Searches the file that was received.
    fn outermost_file(&mut self, bytes: &[u8], name: &str) -> Result<(), Stopped> {
        self.is_for_reports = true;
        let file = File { bytes, name, is_labelled: claims::is_named_so(name), packings: 0 };
        self.file(&file, &Origin::default(), INBOX_DEPTH)
    }

    /// Searches the message that was received.
    fn outermost(&mut self, message: &[u8], is_returned: bool) -> Result<(), Stopped> {
        let memory = self.budget.memory();
        match take_apart(message, memory) {
            Ok(Some(mail)) => {
                // Text with a colon in a line also looks like a header.
                let is_text = mail.head.is_empty() && claims::has_members(message);
                self.claimed(is_text || claims::mail_claims(&mail, is_returned));
                self.message(&mail, is_returned, INBOX_DEPTH)?;
            }
            Ok(None) => self.problem("", NoReport::NotMail, claims::has_members(message)),
            Err(error) => self.failed("", error, false)?,
        }
        Ok(())
    }

    /// Searches a message. `depth` is the number of levels of messages within it that are searched.
    fn message(&mut self, mail: &Mail<'_, '_>, is_returned: bool, depth: usize) -> Result<(), Stopped> {
        if claims::is_bounce(mail) {
            self.problem("", NoReport::Bounce, false);
            return Ok(());
        }
        let is_returned = is_returned || claims::is_automatic_reply(&mail.head);
        let origin = Origin::of(&mail.head);
        let mut is_cut = mail.is_cut;
        for part in mail.parts.iter().filter(|part| part.kind != Kind::Multipart) {
            if self.parts == INBOX_PARTS {
                is_cut = true;
                break;
            }
            self.parts += 1;
            match is_returned && part.kind == Kind::Message {
                true => self.problem("", NoReport::Bounce, false),
                false => self.part(part, &origin, depth)?,
            }
        }
        for (is_so, why) in [(is_cut, NoReport::TooManyParts), (mail.is_too_deep, NoReport::TooManyLevels)] {
            if is_so {
                let claims = self.found.claims || !self.found.reports.is_empty() || mail.mentions_reports();
                self.problem("", why, claims);
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &Part<'_>, origin: &Origin, depth: usize) -> Result<(), Stopped> {
        let (name, is_labelled) = (part.head.file_name(), claims::is_labelled(&part.head));
        self.claimed(is_labelled);
        if part.kind == Kind::Content && !part.may_be_report() {
            return self.other_part(part, name, is_labelled, origin, depth);
        }
        let memory = self.budget.memory();
        let decoded = match part.decode(memory) {
            Ok(decoded) => decoded,
            Err(error) => return self.failed(name, error, is_labelled),
        };
        let file = File { bytes: decoded.bytes(), name, is_labelled, packings: 0 };
        let is_named_dmarc = || DmarcFileName::parse(name).is_some();
        if !is_labelled && !is_named_dmarc() && is_other_gzip(file.bytes, self.found.claims) {
            Ok(())
        } else if looks_like_a_report(file.bytes) || is_dmarc_text(file.bytes) {
            self.file(&file, origin, depth)
        } else if part.kind == Kind::Message {
            self.inner(file.bytes, name, depth)
        } else {
            self.other_part(part, name, is_labelled, origin, depth)
        }
    }

    /// Searches a part that is not a report as a whole for uuencoded files.
    fn other_part(
        &mut self,
        part: &Part<'_>,
        name: &str,
        is_labelled: bool,
        origin: &Origin,
        depth: usize,
    ) -> Result<(), Stopped> {
        if is_labelled {
            self.problem(name, NoReport::Unrecognized, true);
        }
        for block in part.uuencoded() {
            if self.parts == INBOX_PARTS {
                self.problem(
                    "",
                    NoReport::TooManyParts,
                    self.found.claims || claims::is_named_so(&block.name),
                );
                break;
            }
            self.parts += 1;
            let is_labelled = claims::is_named_so(&block.name);
            let mut text = HeldText::new(self.budget.memory());
            if let Err(error) = block.decode(&mut text) {
                self.failed(&block.name, error, is_labelled)?;
                continue;
            }
            let file = File { bytes: text.bytes(), name: &block.name, is_labelled, packings: 0 };
            if is_labelled
                || (looks_like_a_report(file.bytes) && !is_other_gzip(file.bytes, self.found.claims))
            {
                self.claimed(is_labelled);
                self.file(&file, origin, depth)?;
            }
        }
        Ok(())
    }

    /// Searches a message, or the messages of an mbox, within another message or an archive.
    fn inner(&mut self, bytes: &[u8], name: &str, depth: usize) -> Result<(), Stopped> {
        if !is_mbox(bytes) {
            return self.inner_message(bytes, name, depth);
        }
        let mut held = Held::new(self.budget.memory());
        if let Err(error) = held.grow(bytes.len()) {
            return self.failed(name, error, false);
        }
        // No message is longer than the mbox.
        let mut splitter = Splitter::new(bytes.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.mail_of_mbox(splitter.line(line), name, depth)?;
        }
        self.mail_of_mbox(splitter.end(), name, depth)
    }

    fn mail_of_mbox(&mut self, mail: Option<Found>, name: &str, depth: usize) -> Result<(), Stopped> {
        match mail {
            Some(Found::Mail(mail) | Found::TooLong(mail)) => self.inner_message(&mail, name, depth),
            None => Ok(()),
        }
    }

    fn inner_message(&mut self, bytes: &[u8], name: &str, depth: usize) -> Result<(), Stopped> {
        let memory = self.budget.memory();
        let mail = match take_apart(bytes, memory) {
            Ok(Some(mail)) => mail,
            Ok(None) => return Ok(()),
            Err(error) => return self.failed(name, error, false),
        };
        match depth.checked_sub(1) {
            Some(depth) => self.message(&mail, false, depth),
            None => {
                self.problem(name, NoReport::TooDeep, claims::mail_claims(&mail, false));
                Ok(())
            }
        }
    }

    /// Records that a file can't be read. `text` is its text, as far as it could be decompressed.
    fn unreadable(&mut self, file: &File<'_>, text: &[u8], why: NoReport) -> Result<(), Stopped> {
        let claims = file.is_labelled || claims::is_named_so(file.name) || claims::has_members(text);
        self.likely.resize(self.found.problems.len(), false);
        self.likely.push(claims::is_likely(file.name, text));
        match why {
            NoReport::Unpack(error) => self.failed(file.name, error, claims),
            why => {
                self.problem(file.name, why, claims);
                Ok(())
            }
        }
    }

    /// Records that something can't be unpacked, unless it may succeed later.
    fn failed(&mut self, name: &str, error: UnpackError, claims: bool) -> Result<(), Stopped> {
        if error == UnpackError::Busy {
            return Err(Stopped);
        }
        self.problem(name, NoReport::Unpack(error), claims);
        Ok(())
    }

    fn problem(&mut self, name: &str, why: NoReport, claims: bool) {
        self.found.has_dmarc |= DmarcFileName::parse(name).is_some();
        self.claimed(claims);
        // Reasons need no more than the first few.
        if self.found.problems.len() <= INBOX_REPORTS {
            self.found.problems.push(Problem { name: printable(name, NAME_CHARACTERS), why, claims });
        }
    }

    /// Records that something in the input claims to be a report.
    fn claimed(&mut self, claims: bool) {
        self.found.claims |= claims;
        self.is_for_reports |= claims;
    }

    fn finish(mut self) -> Extraction {
        if !self.found.reports.is_empty() {
            let is_for_reports = self.is_for_reports;
            let mut likely = self.likely.into_iter();
            self.found.problems.retain_mut(|problem| {
                let is_likely = likely.next().unwrap_or(false);
                problem.claims |= is_for_reports || is_likely;
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
