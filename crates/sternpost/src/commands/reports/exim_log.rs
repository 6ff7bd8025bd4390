//! `sternpost reports collect --exim-log`: reads sessions from Exim's main log. How far a file has been read is stored
//! together with the counts, so a job that runs regularly counts each session once, also across rotations of the log
//! (`rotation`). Standard input has no such place: each batch of it has an identifier made from its lines, so the same
//! input counts once.

mod rotation;

use config::failure::Failure;
use formats::exim_log::{EximLog, Transports};
use formats::limits::EXIM_LINE_BYTES;
use formats::posted::{Posted, PostedSession};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use net::address::special;
use rotation::{Rotated, head, inode, is_same, rotated};
use sender::collect::{Collector, PostError, Taken};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use store::Store;
use store::handover::{CountSource, LogPlace};

/// The sessions that are stored in one transaction.
const BATCH_ROWS: usize = 10_000;
/// The bytes that are read in one transaction.
const BATCH_BYTES: u64 = 16_777_216;
/// The bytes before the place of the last run that are read again, without counting their sessions: further recipients of
/// these sessions follow them.
const RECALLED_BYTES: u64 = 65_536;

/// Which deliveries of Exim are sessions with MX hosts.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The transports whose deliveries are sessions with MX hosts.
    pub transports: Transports,
    /// True if hosts with loopback, private and other special addresses are MX hosts.
    pub allow_private_addresses: bool,
}

/// The result of reading a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sessions that were counted.
    pub sessions: u64,
    /// Sessions of days whose reports are built already; they were not counted.
    pub late: u64,
    /// True if lines between the last run and this one are missing.
    pub has_gap: bool,
}

/// Reads the new lines of a log file; `-` is standard input, whose lines are all new.
pub async fn collect(
    collector: &Collector,
    store: &Store,
    file: &Path,
    rules: &Rules,
    now: Timestamp,
) -> Result<Summary, Failure> {
    let log = EximLog::new(TimeZone::system()).with_transports(rules.transports.clone());
    let is_public = !rules.allow_private_addresses;
    let mut reading =
        Reading { collector, log, is_public, now, lines: Sha256::new(), summary: Summary::default() };
    if file == Path::new("-") {
        reading.lines(&mut BufReader::new(io::stdin()), None).await?;
        return Ok(reading.summary);
    }
    let fail = |error| unreadable(file, error);
    let path = file.canonicalize().map_err(fail)?;
    let name = path.display().to_string();
    let mut place = store.log_place(&name).await.map_err(|error| operations::store_failure(&error))?;
    let current = File::open(&path).map_err(fail)?;
    let mut from = 0;
    if let Some(known) = place.clone() {
        if is_same(&current, &known).map_err(fail)? {
            from = known.read_to;
        } else {
            let Rotated { files, has_gap } = rotated(&path, &current, &known).map_err(fail)?;
            reading.summary.has_gap = has_gap;
            let mut from = known.read_to;
            for old in files {
                place = Some(reading.file(&name, old, place, from).await.map_err(|error| error.or(file))?);
                from = 0;
            }
        }
    }
    reading.file(&name, current, place, from).await.map_err(|error| error.or(file))?;
    Ok(reading.summary)
}

pub fn unreadable(file: &Path, error: io::Error) -> Failure {
    Failure::usage(
        format!("{} can't be read", file.display()),
        error,
        "Name Exim's main log, such as /var/log/exim4/mainlog, or `-`. Members of the group adm can read it on Debian.",
    )
}

/// The reason why a log was not read to its end.
enum Stopped {
    File(io::Error),
    Failed(Failure),
}

impl Stopped {
    fn or(self, file: &Path) -> Failure {
        match self {
            Self::File(error) => unreadable(file, error),
            Self::Failed(failure) => failure,
        }
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

struct Reading<'c> {
    collector: &'c Collector,
    log: EximLog,
    /// True if only hosts with public addresses are MX hosts.
    is_public: bool,
    now: Timestamp,
    /// The lines with sessions so far.
    lines: Sha256,
    summary: Summary,
}

/// The part of a file that is being read.
struct Part {
    name: String,
    file: File,
    place: Option<LogPlace>,
    read_to: u64,
}

impl Reading<'_> {
    /// Reads a file from an offset to its end. Returns the place of the last complete line.
    async fn file(
        &mut self,
        name: &str,
        file: File,
        place: Option<LogPlace>,
        from: u64,
    ) -> Result<LogPlace, Stopped> {
        let mut input = BufReader::new(file.try_clone()?);
        self.recall(&mut input, from)?;
        input.seek(SeekFrom::Start(from))?;
        let mut part = Part { name: name.to_owned(), file, place, read_to: from };
        self.lines(&mut input, Some(&mut part)).await.map_err(Stopped::Failed)?;
        part.place.ok_or_else(|| Stopped::File(io::Error::other("nothing was stored")))
    }

    /// Reads the last lines before an offset again, so that the sessions in them are known.
    fn recall(&mut self, input: &mut (impl BufRead + Seek), from: u64) -> io::Result<()> {
        let mut at = from.saturating_sub(RECALLED_BYTES);
        input.seek(SeekFrom::Start(at))?;
        let mut line = Vec::new();
        let mut is_whole = at == 0;
        while at < from {
            let length = next_line(input, &mut line)?;
            if length == 0 {
                break;
            }
            at += length;
            if is_whole {
                self.log.read(line.strip_suffix(b"\n").unwrap_or(&line));
            }
            is_whole = true;
        }
        Ok(())
    }

    /// Reads lines to the end of the input, and stores their sessions in batches.
    async fn lines(&mut self, input: &mut impl BufRead, mut part: Option<&mut Part>) -> Result<(), Failure> {
        let mut batch: Vec<Posted> = Vec::new();
        let (mut line, mut read, mut stored) = (Vec::new(), 0, 0);
        loop {
            let length =
                next_line(input, &mut line).map_err(|error| unreadable(Path::new("the log"), error))?;
            // A last line without an end is still being written, unless there is no later run.
            let is_over = length == 0 || part.is_some() && line.last() != Some(&b'\n');
            if !is_over {
                read += length;
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                let posted = self.log.read(line).filter(|posted| self.is_taken(posted));
                if posted.is_some() {
                    self.lines.update(line);
                    self.lines.update(b"\n");
                }
                batch.extend(posted.map(|posted| self.not_later_than_now(posted)));
            }
            if batch.len() >= BATCH_ROWS || read - stored >= BATCH_BYTES || is_over {
                self.store(std::mem::take(&mut batch), part.as_deref_mut(), read - stored).await?;
                stored = read;
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// False for a delivery to a host with a special address, such as a mailbox server or a filter on this machine.
    fn is_taken(&self, posted: &Posted) -> bool {
        let ip = match &posted.session {
            PostedSession::Observed(observed) => observed.ip,
            PostedSession::Complete(_) => None,
        };
        !self.is_public || ip.is_none_or(|ip| special(ip).is_none())
    }

    /// A time in the future comes from a clock that was set back, or from another time zone.
    fn not_later_than_now(&self, posted: Posted) -> Posted {
        Posted { at: posted.at.map(|at| at.min(self.now)), ..posted }
    }

    async fn store(&mut self, batch: Vec<Posted>, part: Option<&mut Part>, read: u64) -> Result<(), Failure> {
        let refused = |error: PostError| match error {
            PostError::Store(error) => operations::store_failure(&error),
            other => Failure::new(
                "sessions of the log can't be counted",
                other,
                "Run the command again later, with the same input: what was counted before is not counted again.",
            ),
        };
        let Some(part) = part else {
            // The lines before belong to the identifier too, so equal batches of one input differ.
            let id = format!("exim-log-{}", hex(&self.lines.clone().finalize()));
            let source = CountSource::Batch { id, at: self.now };
            let taken = match batch.is_empty() {
                true => Taken::default(),
                false => self.collector.post_once(batch, &source).await.map_err(refused)?,
            };
            self.summary.sessions += taken.sessions;
            self.summary.late += taken.late;
            return Ok(());
        };
        let to =
            part.place_at(part.read_to + read).map_err(|error| unreadable(Path::new(&part.name), error))?;
        if part.place.as_ref() == Some(&to) {
            return Ok(());
        }
        let source = CountSource::Log { file: part.name.clone(), from: part.place.take(), to: to.clone() };
        let taken = self.collector.post_once(batch, &source).await.map_err(refused)?;
        if taken.is_repeated {
            return Err(Failure::new(
                format!("the log {}", part.name),
                "another process reads it at the same time",
                "Run one `sternpost reports collect` for each log.",
            ));
        }
        self.summary.sessions += taken.sessions;
        self.summary.late += taken.late;
        (part.read_to, part.place) = (to.read_to, Some(to));
        Ok(())
    }
}

impl Part {
    fn place_at(&self, read_to: u64) -> io::Result<LogPlace> {
        Ok(LogPlace { inode: inode(&self.file)?, head: head(&self.file, read_to)?, read_to })
    }
}

/// Reads a line with its end into `line`, and returns its length. Of a longer line than Exim writes, only the first bytes
/// are kept.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let mut length = 0;
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(buffer.len(), |at| at + 1);
        let room = (EXIM_LINE_BYTES + 2).saturating_sub(line.len());
        line.extend(buffer.iter().take(taken).take(room));
        if end.is_some() && line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        input.consume(taken);
        length += taken as u64;
        if end.is_some() || taken == 0 {
            return Ok(length);
        }
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
