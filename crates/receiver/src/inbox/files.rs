//! Finds the items to import in files and folders: report files, mails, mbox files, zip and tar files, detected by
//! content. A folder is searched recursively and may be a maildir.

use super::claims::is_named_so;
use super::shape::looks_like_a_report;
use super::{Busy, Inbox, Reading};
use formats::dmarc::is_dmarc_text;
use formats::limits::{IMPORT_DEPTH, INBOX_MESSAGE_BYTES, REPORT_PACKED_BYTES, ZIP_MEMBERS};
use formats::mbox::{self, Splitter};
use formats::printable::printable;
use formats::report::{TarMember, ZipContents, is_gzip, is_tar, tar_members, unpack, zip_members};
use std::ffi::OsString;
use std::fs::FileType;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::reports::Arrival;

/// One mail or report file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The name shown to the operator, such as a file name or `FILE, mail 3`; printable.
    pub name: String,
    /// The bytes of the message or file, as they were read.
    pub bytes: Arc<Vec<u8>>,
}

/// A file, or a part of one, that can't be read as an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The name, as of an [`Item`].
    pub name: String,
    /// Why it can't be read.
    pub why: String,
}

/// What is found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A mail or a report file.
    Item(Item),
    /// A whole file of gzip data: a report, or a tar archive. Which one shows when it is decompressed, which
    /// [`Inbox::read_gzip_here`] does.
    Gzip(Item),
    /// A file, or a part of one, that can't be read.
    Unreadable(Unreadable),
}

/// Characters of a name that are kept. Names come from strangers: those of zip members and of saved attachments.
const NAME_CHARACTERS: usize = 300;

impl Item {
    fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: printable(name, NAME_CHARACTERS), bytes: Arc::new(bytes) }
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

    /// Passes each file of a tar archive, compressed by gzip, to `each`.
    pub fn tar_files(&self, each: Each<'_>) {
        match unpack(&self.bytes) {
            Ok((archive, _)) => tar(&archive, &self.name, each),
            Err(error) => each(Found::Unreadable(Unreadable::new(&self.name, error.to_string()))),
        }
    }
}

impl Unreadable {
    fn new(name: &str, why: impl Into<String>) -> Self {
        Self { name: printable(name, NAME_CHARACTERS), why: why.into() }
    }

    fn too_large(name: &str) -> Self {
        Self::new(name, "larger than the limit for reports")
    }
}

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

/// Returns the file at a path, or all files below a folder, sorted by name. Hidden files and unfinished mails of a
/// maildir (`tmp`) are left out.
pub fn files_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    match std::fs::metadata(path)?.is_dir() {
        true => collect(path, IMPORT_DEPTH, &mut files)?,
        false => files.push(path.to_owned()),
    }
    Ok(files)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let is_maildir = folder.join("cur").is_dir() && folder.join("new").is_dir();
    let mut entries: Vec<(OsString, FileType)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Symbolic links are skipped, since they could form a loop or leave the folder; `file_type` does not follow
        // them.
        entries.push((entry.file_name(), entry.file_type()?));
    }
    entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    for (file, kind) in entries {
        let name = file.to_string_lossy();
        let is_folder_of_maildir = is_maildir && kind.is_dir() && name.starts_with('.');
        if (name.starts_with('.') && !is_folder_of_maildir) || (is_maildir && name == "tmp") {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            collect(&folder.join(&file), depth - 1, files)?;
        } else if kind.is_file() && !is_index(&name) {
            files.push(folder.join(&file));
        }
    }
    Ok(())
}

/// Files that mail servers keep beside the mails of a maildir.
fn is_index(name: &str) -> bool {
    name.starts_with("dovecot") || name == "subscriptions" || name == "maildirfolder" || name == "maildirsize"
}

/// Receives what is found in a file.
pub type Each<'e> = &'e mut dyn FnMut(Found);

/// Passes what is found in a file to `each`. Fails when the file can't be read.
pub fn items_in(path: &Path, each: Each<'_>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut file = io::BufReader::new(std::fs::File::open(path)?);
    items_from(&mut file, &name, each)
}

/// Passes what is found in a stream, such as a pipe, to `each`. Fails when the stream can't be read.
pub fn items_from(input: &mut dyn BufRead, name: &str, each: Each<'_>) -> io::Result<()> {
    let head = input.fill_buf()?;
    if head.starts_with(b"From ") {
        return mbox(input, name, each);
    }
    let is_zip = head.starts_with(b"PK\x03\x04");
    let most = INBOX_MESSAGE_BYTES.max(REPORT_PACKED_BYTES);
    // A file that fits into the buffer, as most reports do, is allocated once.
    let mut bytes = Vec::with_capacity(head.len() + 64);
    input.take(limit(most)).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        each(Found::Unreadable(Unreadable::too_large(name)));
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

/// Passes each file of a tar archive to `each`.
fn tar(archive: &[u8], name: &str, each: Each<'_>) {
    let mut members = tar_members(archive);
    for TarMember { name: member, bytes, is_cut } in members.by_ref().take(ZIP_MEMBERS) {
        let path = format!("{name}:{member}");
        each(match is_cut {
            false => Found::Item(Item::new(&path, bytes.to_vec())),
            true => Found::Unreadable(Unreadable::new(&path, "the tar file ends within this file")),
        });
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
        each(match member.text {
            Ok(text) => Found::Item(Item::new(&path, text.bytes().to_vec())),
            Err(error) if is_named_so(&member.name) => {
                Found::Unreadable(Unreadable::new(&path, error.to_string()))
            }
            // Nothing can be said about it; other people's zip files are left alone.
            Err(_) => Found::Item(Item::new(&path, Vec::new())),
        });
    }
    if contents.left_out > 0 {
        let (left_out, most) = (contents.left_out, ZIP_MEMBERS);
        let why = format!("{left_out} files in the zip file were not read: at most {most} are");
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
    let mut pass = |found: Option<mbox::Found>| {
        let Some(found) = found else { return };
        number += 1;
        let name = format!("{name}, mail {number}");
        each(match found {
            mbox::Found::Mail(bytes) => Found::Item(Item::new(&name, bytes)),
            mbox::Found::TooLong => Found::Unreadable(Unreadable::too_large(&name)),
        });
    };
    let mut line = Vec::new();
    while read_line(input, &mut line)? {
        pass(splitter.line(&line));
    }
    pass(splitter.end());
    Ok(())
}

/// Reads a line with its line ending, or a piece of a line longer than the limit of a mail; false at the end of
/// input.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(input.take(limit(INBOX_MESSAGE_BYTES)).read_until(b'\n', line)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(bytes: &[u8]) -> Vec<Item> {
        let mut found = Vec::new();
        items_from(&mut &bytes[..], "x", &mut |one| found.push(item(one))).unwrap();
        found
    }

    fn item(found: Found) -> Item {
        match found {
            Found::Item(item) | Found::Gzip(item) => item,
            Found::Unreadable(one) => panic!("{one:?}"),
        }
    }

    #[test]
    fn the_mails_of_an_mbox_are_items_with_their_numbers() {
        let found = items(b"From a@b Mon\nSubject: 1\n\nFrom a@b Tue\nSubject: 2\n");
        assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["x, mail 1", "x, mail 2"]);
        assert_eq!(*found[1].bytes, b"Subject: 2\n");
    }

    #[test]
    fn a_zip_of_many_reports_is_many_items() {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for name in ["a.json", "deep/b.json"] {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            io::Write::write_all(&mut zip, b"{}").unwrap();
        }
        let found = items(&zip.finish().unwrap().into_inner());
        assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["x:a.json", "x:deep/b.json"]);
        assert!(found.iter().all(|item| *item.bytes == b"{}"));
        let broken = items(b"PK\x03\x04 and no more");
        assert_eq!(broken.len(), 1);
    }

    #[test]
    fn names_of_files_and_zip_members_are_printable() {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file("x\u{1b}]0;pwned\u{7}.txt", zip::write::SimpleFileOptions::default()).unwrap();
        let found = items(&zip.finish().unwrap().into_inner());
        assert_eq!(found[0].name, "x:x\u{fffd}]0;pwned\u{fffd}.txt");
        let mut named = Vec::new();
        items_from(&mut &b"x"[..], "a\u{1b}[2J\nb", &mut |one| named.push(item(one).name)).unwrap();
        assert_eq!(named, ["a\u{fffd}[2J\u{fffd}b"]);
    }

    #[test]
    fn zip_members_beyond_the_limit_make_the_zip_file_unreadable_after_the_first_ones() {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for number in 0..ZIP_MEMBERS + 2 {
            zip.start_file(number.to_string(), stored).unwrap();
        }
        let (mut read, mut unreadable) = (0, Vec::new());
        let bytes = zip.finish().unwrap().into_inner();
        items_from(&mut &bytes[..], "x.zip", &mut |found| match found {
            Found::Item(_) | Found::Gzip(_) => read += 1,
            Found::Unreadable(one) => unreadable.push(one),
        })
        .unwrap();
        assert_eq!((read, unreadable.len()), (ZIP_MEMBERS, 1));
        assert_eq!(unreadable[0].why, "2 files in the zip file were not read: at most 10000 are");
    }

    #[test]
    fn a_maildir_is_its_finished_mails() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["cur", "new", "tmp", ".Reports/cur", ".Reports/new"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["cur/1:2,S", "new/2", "tmp/3", ".Reports/new/4", "dovecot-uidlist", ".hidden"] {
            std::fs::write(dir.path().join(file), "x").unwrap();
        }
        let found = files_below(dir.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, [".Reports/new/4", "cur/1:2,S", "new/2"]);
        assert!(files_below(&dir.path().join("nothing")).is_err());
    }
}
