//! Finds the items to import in files and folders: report files, mails, mbox files, zip and tar files, detected by
//! content. A folder is searched recursively and may be a maildir, also one that mails are delivered to meanwhile
//! (`living`), and whose mails are compressed with gzip. Other people's files that can't be read are told apart from reports.

mod living;

pub use living::{FoundFiles, LivingFiles, files_below, is_gone};

use super::claims::{has_members, is_named_so};
use super::extract::message_claims;
use super::mime::lacks_end;
use super::shape::looks_like_a_report;
use super::{Busy, Inbox, Reading};
use formats::dmarc::is_dmarc_text;
use formats::limits::{INBOX_MESSAGE_BYTES, REPORT_PACKED_BYTES, ZIP_MEMBERS};
use formats::mbox::{self, Splitter, is_mbox};
use formats::printable::printable;
use formats::report::{
    TarMember, ZipContents, beginning_of_gzip, gzip_stream, is_gzip, is_tar, is_zip, other_compression,
    tar_members, unpack, zip_members,
};
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use store::reports::Arrival;

/// One mail or report file to import.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// The name shown to the operator, such as a file name or `FILE, mail 3`; printable.
    pub name: String,
    /// The bytes of the message or file, as they were read, without the gzip compression around a mail.
    pub bytes: Arc<Vec<u8>>,
    /// True for the last mail of an mbox if the empty line or the last boundary at its end is missing: it may be still being
    /// delivered.
    pub is_open_ended: bool,
}

/// A file, or a part of one, that can't be read as an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The name, as of an [`Item`].
    pub name: String,
    /// Why it can't be read.
    pub why: String,
    /// False if nothing says that it is a report. Other people's mails and files may well be too large or broken.
    pub claims: bool,
}

/// What is found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A mail or a report file.
    Item(Item),
    /// A whole file of gzip data: a report, a tar archive, a mail or an mbox. Which one shows when it is decompressed,
    /// which [`Inbox::read_gzip_here`] does.
    Gzip(Item),
    /// A file, or a part of one, that can't be read.
    Unreadable(Unreadable),
}

/// Characters of a name that are kept. Names come from strangers: those of zip members and of saved attachments.
const NAME_CHARACTERS: usize = 300;

impl Item {
    fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: printable(name, NAME_CHARACTERS), bytes: Arc::new(bytes), is_open_ended: false }
    }

    /// True when the content looks like a report file and not like a mail, or the name is that of a report file (RFC 8460
    /// §5.1), so that content which looks like nothing is reported too.
    pub fn is_report_file(&self) -> bool {
        looks_like_a_report(&self.bytes) || is_dmarc_text(&self.bytes) || is_named_so(self.file_name())
    }

    /// The name of the file, without that of the archive around it.
    pub fn file_name(&self) -> &str {
        self.name.rsplit(':').next().unwrap_or_default()
    }

    /// Passes each file of a tar archive in gzip data to `each`.
    pub fn tar_files(&self, each: Each<'_>) {
        match unpack(&self.bytes) {
            Ok((archive, _)) => tar(&archive, &self.name, each),
            Err(error) => each(Found::Unreadable(Unreadable::of(&self.name, &self.bytes, error.to_string()))),
        }
    }

    /// Passes each mail of an mbox in gzip data to `each`.
    pub fn mails_in_gzip(&self, each: Each<'_>) {
        if let Err(error) = mbox(&mut gzip_stream(&mut self.bytes.as_slice()), &self.name, each) {
            each(Found::Unreadable(Unreadable::of(&self.name, &self.bytes, broken_gzip(&error))));
        }
    }

    /// The mail in gzip data, as mail servers store it in a maildir. Its size is limited as that of any other mail.
    pub fn mail_in_gzip(&self) -> Found {
        let mut mail = Vec::new();
        let read =
            gzip_stream(&mut self.bytes.as_slice()).take(limit(INBOX_MESSAGE_BYTES)).read_to_end(&mut mail);
        if mail.len() > INBOX_MESSAGE_BYTES {
            return Found::Unreadable(Unreadable::too_large(&self.name, &mail));
        }
        match read {
            Ok(_) => Found::Item(Item::new(&self.name, mail)),
            Err(error) => Found::Unreadable(Unreadable::of(&self.name, &mail, broken_gzip(&error))),
        }
    }
}

fn broken_gzip(error: &io::Error) -> String {
    format!("the compressed data is invalid: {error}")
}

impl Unreadable {
    /// What claims to be a report, or was named by the operator, and can't be read.
    pub fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: printable(name, NAME_CHARACTERS), why: why.into(), claims: true }
    }

    /// What can't be read, with the part of its content that was.
    fn of(name: &str, beginning: &[u8], why: impl Into<String>) -> Self {
        let file_name = name.rsplit(':').next().unwrap_or_default();
        let claims = is_named_so(file_name)
            || has_members(beginning)
            || has_report_names(beginning)
            || message_claims(beginning, false);
        Self { claims, ..Self::new(name, why) }
    }

    fn too_large(name: &str, beginning: &[u8]) -> Self {
        Self::of(name, beginning, "larger than the limit for reports")
    }
}

/// True if an archive that is cut has a file with the name of a report.
fn has_report_names(archive: &[u8]) -> bool {
    // The local header of a zip file's member (APPNOTE 4.3.7).
    const LENGTH_AT: usize = 26;
    const NAME_AT: usize = 30;
    let member = |at: usize| {
        let header = archive.get(at..)?;
        let length = header.get(LENGTH_AT..)?.first_chunk::<2>()?;
        header.get(NAME_AT..NAME_AT + usize::from(u16::from_le_bytes(*length)))
    };
    let is_report = |path: &str| is_named_so(path.rsplit('/').next().unwrap_or_default());
    if is_zip(archive) {
        let members = archive.windows(4).enumerate().filter(|(_, bytes)| is_zip(bytes));
        return members
            .filter_map(|(at, _)| member(at))
            .any(|name| is_report(&String::from_utf8_lossy(name)));
    }
    let text = beginning_of_gzip(archive, BEGINNING_BYTES);
    let tar = if is_tar(&text) { &text } else { archive };
    is_tar(tar) && tar_members(tar).any(|file| is_report(&file.name))
}

/// The bytes of compressed data that show what it is.
const BEGINNING_BYTES: usize = 65_536;

impl Inbox {
    /// Reads an item as a report file or as a mail.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the memory for decompressed reports is in use.
    pub async fn read_item(&self, item: &Item, arrival: Arrival) -> Result<Reading, Busy> {
        match item.is_report_file() {
            true => self.read_file(item.bytes.clone(), item.file_name(), arrival).await,
            false => self.read_mail(item.bytes.clone(), false, arrival).await,
        }
    }

    /// Like [`Inbox::read_item`], but waits for memory.
    ///
    /// # Errors
    ///
    /// [`Busy`] if the memory is in use for longer than [`Inbox::patience`].
    pub async fn read_item_patiently(&self, item: &Item, arrival: Arrival) -> Result<Reading, Busy> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            match self.read_item(item, arrival).await {
                Ok(reading) => return Ok(reading),
                Err(busy) => self.wait_for_memory(busy, deadline).await?,
            }
        }
    }
}

/// Receives what is found in a file.
pub type Each<'e> = &'e mut dyn FnMut(Found);

/// Passes what is found in a file to `each`. Fails when the file can't be read; see [`is_gone`] for one that was moved.
pub fn items_in(path: &Path, each: Each<'_>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut file = io::BufReader::new(std::fs::File::open(path)?);
    let is_awaited = || living::is_in_maildir(path) || is_named_so(&name);
    if let Some(form) = other_compression(file.fill_buf()?).filter(|_| is_awaited()) {
        let why = format!(
            "compressed with {form}, which is not read. Let the mail server return the mails, by [inbox.imap]"
        );
        each(Found::Unreadable(Unreadable::new(&name, why)));
        return Ok(());
    }
    items_from(&mut file, &name, each)
}

/// Passes what is found in a stream, such as a pipe, to `each`. Fails when the stream can't be read.
pub fn items_from(input: &mut dyn BufRead, name: &str, each: Each<'_>) -> io::Result<()> {
    let head = input.fill_buf()?;
    if is_mbox(head) {
        return mbox(input, name, each);
    }
    let is_zip = is_zip(head);
    let most = INBOX_MESSAGE_BYTES.max(REPORT_PACKED_BYTES);
    // A file that fits into the buffer, as most reports do, is allocated once.
    let mut bytes = Vec::with_capacity(head.len() + 64);
    (&mut *input).take(limit(most)).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        if is_mbox(&beginning_of_gzip(&bytes, BEGINNING_BYTES)) {
            return mbox(&mut gzip_stream(&mut bytes.as_slice().chain(input)), name, each);
        }
        each(Found::Unreadable(Unreadable::too_large(name, &bytes)));
        return Ok(());
    }
    if is_tar(&bytes) {
        tar(&bytes, name, each);
    } else if is_gzip(&bytes) {
        each(Found::Gzip(Item::new(name, bytes)));
    } else if let Some(Ok(contents)) = is_zip.then(|| zip_members(&bytes)) {
        zip(contents, name, each);
    } else {
        each(Found::Item(Item::new(name, bytes)));
    }
    Ok(())
}

/// Passes a file of an archive, or each mail of an mbox, to `each`.
fn archived(path: &str, bytes: &[u8], each: Each<'_>) {
    if !is_mbox(bytes) {
        each(Found::Item(Item::new(path, bytes.to_vec())));
    } else if let Err(error) = mbox(&mut &bytes[..], path, each) {
        each(Found::Unreadable(Unreadable::of(path, bytes, error.to_string())));
    }
}

/// Passes each file of a tar archive to `each`.
fn tar(archive: &[u8], name: &str, each: Each<'_>) {
    let mut members = tar_members(archive);
    for TarMember { name: member, bytes, is_cut } in members.by_ref().take(ZIP_MEMBERS) {
        let path = format!("{name}:{member}");
        match is_cut {
            false => archived(&path, bytes, each),
            true => each(Found::Unreadable(Unreadable::new(&path, "the tar file ends within this file"))),
        }
    }
    if members.next().is_some() {
        let why = format!("only the first {ZIP_MEMBERS} files in the tar file were read");
        each(Found::Unreadable(Unreadable::new(name, why)));
    }
}

/// Passes each file of a zip file to `each`.
fn zip(contents: ZipContents<'_>, name: &str, each: Each<'_>) {
    for member in contents.members {
        let path = format!("{name}:{}", member.name);
        match member.text {
            Ok(text) => archived(&path, text.bytes(), each),
            Err(error) => {
                let claims = is_named_so(&member.name);
                each(Found::Unreadable(Unreadable { claims, ..Unreadable::new(&path, error.to_string()) }));
            }
        }
    }
    if contents.left_out > 0 {
        let why = format!(
            "files in the zip file that were not read: {}; at most {ZIP_MEMBERS} are",
            contents.left_out
        );
        each(Found::Unreadable(Unreadable::new(name, why)));
    }
}

fn limit(most: usize) -> u64 {
    u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1)
}

/// Passes each mail of an mbox file to `each`.
fn mbox(input: &mut dyn BufRead, name: &str, each: Each<'_>) -> io::Result<()> {
    let mut splitter = Splitter::new(INBOX_MESSAGE_BYTES);
    let mut number = 0u64;
    let mut pass = |found: Option<mbox::Found>, is_last: bool, is_ended: bool| {
        let Some(found) = found else { return };
        number += 1;
        let name = format!("{name}, mail {number}");
        each(match found {
            mbox::Found::Mail(bytes) => {
                let is_open_ended = is_last && (!is_ended || lacks_end(&bytes));
                Found::Item(Item { is_open_ended, ..Item::new(&name, bytes) })
            }
            mbox::Found::TooLong(beginning) => Found::Unreadable(Unreadable::too_large(&name, &beginning)),
        });
    };
    let mut line = Vec::new();
    while read_line(input, &mut line)? {
        pass(splitter.line(&line), false, true);
    }
    let is_ended = splitter.is_after_empty();
    pass(splitter.end(), true, is_ended);
    Ok(())
}

/// Reads a line with its line ending, or a piece of a line longer than the limit of a mail; false at the end of
/// input.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(input.take(limit(INBOX_MESSAGE_BYTES)).read_until(b'\n', line)? > 0)
}

#[cfg(test)]
mod tests;
