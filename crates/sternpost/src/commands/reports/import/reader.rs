//! Reads the files of an import and parses the report files, on a thread of its own. The items go in chunks to
//! [`super::incoming`], which verifies the messages.

use receiver::inbox::files::{Each, Found, Item, LivingFiles, Unreadable, is_gone, items_from, items_in};
use receiver::inbox::{Busy, GzipFile, Inbox, LeftInGzip, Reading};
use std::path::PathBuf;
use store::reports::Arrival;
use tokio::sync::mpsc::Sender;

/// Maximum number of items in a chunk from the reader to the store.
const CHUNK_MAILS: usize = 200;
/// Bytes of items after which a chunk is sent.
const CHUNK_BYTES: usize = 4 << 20;
/// Maximum number of chunks that wait for the store.
pub(super) const CHUNKS_AHEAD: usize = 8;

/// Whether a copy of an item exists elsewhere when the import stores nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    /// The item is in a file, or is one of several messages in a pipe.
    Elsewhere,
    /// A mail server pipes the only copy.
    OnlyThis,
}

/// An item between the reader and the store.
pub(super) enum ImportItem {
    /// A message, which is read when its signature is verified.
    Mail(Item, Copies),
    Read(Item, Reading, Copies),
    Unread(Unreadable),
    /// Other people's mail or file that can't be read, for example because it is too large.
    LeftAlone,
    /// A file that was moved or deleted after it was listed.
    Gone,
}

/// What is to be imported.
pub(super) struct Sources {
    pub files: LivingFiles,
    /// The number of files as they were listed, with standard input.
    pub total: usize,
    /// Folders that can't be read.
    pub unreadable: Vec<Unreadable>,
    pub has_standard_input: bool,
}

impl ImportItem {
    /// The memory of the item and its reports, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Mail(item, _) => item.bytes.len(),
            Self::Read(item, reading, _) => {
                // A parsed report takes about ten times its compressed text.
                let packed: usize = reading.reports.iter().map(|new| new.packed.len()).sum();
                item.bytes.len() + packed.saturating_mul(10)
            }
            Self::Unread(_) | Self::LeftAlone | Self::Gone => 0,
        }
    }
}

/// Reads items and sends them in chunks, so that the receiver is not woken for each item.
struct Reader<'r> {
    inbox: &'r Inbox,
    sender: &'r Sender<Vec<ImportItem>>,
    held: Vec<ImportItem>,
    bytes: usize,
}

impl Reader<'_> {
    /// Parses a report file at once; a message is parsed later, when its DKIM signature is verified.
    fn take(&mut self, found: Found, copies: Copies) {
        match found {
            Found::Item(item) if item.is_report_file() => {
                let read = self.inbox.read_file_here(&item.bytes, item.file_name(), Arrival::Import);
                self.push_read(item, read, copies);
            }
            Found::Item(item) => {
                let bytes = item.bytes.len();
                self.push(ImportItem::Mail(item, copies), bytes);
            }
            Found::Gzip(item) => {
                match self.inbox.read_gzip_here(&item.bytes, item.file_name(), Arrival::Import) {
                    Ok(GzipFile::Read(reading)) => self.push_read(item, Ok(reading), copies),
                    Ok(GzipFile::Left(LeftInGzip::Tar)) => {
                        self.take_each(copies, |each| item.tar_files(each))
                    }
                    Ok(GzipFile::Left(LeftInGzip::Mbox)) => {
                        self.take_each(copies, |each| item.mails_in_gzip(each))
                    }
                    Ok(GzipFile::Left(LeftInGzip::Mail)) => self.take(item.mail_in_gzip(), copies),
                    Err(busy) => self.push_read(item, Err(busy), copies),
                }
            }
            // Nothing else is left of a message that a mail server pipes.
            Found::Unreadable(one) if one.claims || copies == Copies::OnlyThis => {
                self.push(ImportItem::Unread(one), 0);
            }
            Found::Unreadable(_) => self.push(ImportItem::LeftAlone, 0),
        }
    }

    fn push_read(&mut self, item: Item, read: Result<Reading, Busy>, copies: Copies) {
        match read {
            Ok(mut reading) => {
                let unpacked = reading.release();
                let bytes = item.bytes.len() + unpacked;
                self.push(ImportItem::Read(item, reading, copies), bytes);
            }
            Err(busy) => self.push(ImportItem::Unread(not_now(item, &busy)), 0),
        }
    }

    /// Reads a file. Returns its path if it is not there any more.
    fn take_file(&mut self, path: PathBuf) -> Option<PathBuf> {
        match items_in(&path, &mut |found| self.take(found, Copies::Elsewhere)) {
            Ok(()) => None,
            Err(error) if is_gone(&error) => Some(path),
            Err(error) => {
                self.push_failed(&path.to_string_lossy(), &error);
                None
            }
        }
    }

    fn push_failed(&mut self, name: &str, error: &std::io::Error) {
        self.push(ImportItem::Unread(Unreadable::new(name, error.to_string())), 0);
    }

    /// Reads standard input. A single item is taken for a message piped by a mail server, several for an mbox.
    fn take_pipe(&mut self) -> std::io::Result<()> {
        self.take_each(Copies::OnlyThis, |each| {
            items_from(&mut std::io::stdin().lock(), "standard input", each)
        })
    }

    /// Takes what `read` finds. `alone` applies to a single item; of several, there are copies elsewhere.
    fn take_each<T>(&mut self, alone: Copies, read: impl FnOnce(Each<'_>) -> T) -> T {
        let mut first = None;
        let mut number = 0;
        let read = read(&mut |found| {
            number += 1;
            if number == 1 {
                first = Some(found);
                return;
            }
            if let Some(first) = first.take() {
                self.take(first, Copies::Elsewhere);
            }
            self.take(found, Copies::Elsewhere);
        });
        if let Some(only) = first {
            self.take(only, alone);
        }
        read
    }

    fn push(&mut self, ready: ImportItem, bytes: usize) {
        self.held.push(ready);
        self.bytes += bytes;
        if self.held.len() >= CHUNK_MAILS || self.bytes >= CHUNK_BYTES {
            self.send_chunk();
        }
    }

    fn send_chunk(&mut self) {
        self.bytes = 0;
        // Sending fails only when the receiver was dropped because the import ends.
        let _ = self.sender.blocking_send(std::mem::take(&mut self.held));
    }
}

/// Reads standard input and all files.
pub(super) fn read_all(sources: Sources, inbox: &Inbox, sender: &Sender<Vec<ImportItem>>) {
    let mut reader = Reader { inbox, sender, held: Vec::new(), bytes: 0 };
    for folder in sources.unreadable {
        reader.push(ImportItem::Unread(folder), 0);
    }
    if sources.has_standard_input
        && let Err(error) = reader.take_pipe()
    {
        reader.push_failed("standard input", &error);
    }
    let mut files = sources.files;
    while let Some(path) = files.next_file() {
        if sender.is_closed() {
            return;
        }
        if let Some(gone) = reader.take_file(path) {
            files.is_not_there(gone);
        }
    }
    for _ in 0..files.missing() {
        reader.push(ImportItem::Gone, 0);
    }
    reader.send_chunk();
}

/// An item for which there was no memory. Unlike other unreadable ones, it may succeed when the import is run again.
pub(super) fn not_now(item: Item, busy: &Busy) -> Unreadable {
    Unreadable::new(&item.name, format!("not imported: {busy}. Run the import again"))
}
