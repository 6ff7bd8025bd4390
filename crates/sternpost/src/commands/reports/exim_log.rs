//! `sternpost reports collect --exim-log`: reads sessions from Exim's main log. How far a file has been read is stored
//! together with the counts, so a job that runs regularly counts each session once, also across rotations of the log.

use config::failure::Failure;
use formats::exim_log::EximLog;
use formats::limits::EXIM_LINE_BYTES;
use formats::posted::Posted;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sender::collect::{Collector, PostError};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use store::Store;
use store::handover::{CountSource, LogPlace};

/// The sessions that are stored in one transaction.
const BATCH_ROWS: usize = 10_000;
/// The bytes that are read in one transaction.
const BATCH_BYTES: u64 = 16_777_216;
/// The first bytes of a file, by which it is recognized.
const HEAD_BYTES: u64 = 256;
/// The files of a folder among which a rotated log is searched.
const MAX_FILES: usize = 10_000;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sessions that were counted.
    pub sessions: u64,
    /// Sessions of days whose reports are built.
    pub late: u64,
    /// True if lines between the last run and this one are gone.
    pub has_gap: bool,
}

/// Reads the new lines of a log file; `-` is standard input, whose lines are all new.
pub async fn collect(
    collector: &Collector,
    store: &Store,
    file: &Path,
    now: Timestamp,
) -> Result<Summary, Failure> {
    let mut reading =
        Reading { collector, log: EximLog::new(TimeZone::system()), now, summary: Summary::default() };
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
    if let Some(known) = &place {
        if is_same(&current, known).map_err(fail)? {
            from = known.read_to;
        } else {
            match rotated(&path, known).map_err(fail)? {
                Some(old) => {
                    place = Some(
                        reading
                            .file(&name, old, place.clone(), known.read_to)
                            .await
                            .map_err(|e| e.or(file))?,
                    )
                }
                None => reading.summary.has_gap = true,
            }
        }
    }
    reading.file(&name, current, place, from).await.map_err(|error| error.or(file))?;
    Ok(reading.summary)
}

fn unreadable(file: &Path, error: io::Error) -> Failure {
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
    now: Timestamp,
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
        input.seek(SeekFrom::Start(from))?;
        let mut part = Part { name: name.to_owned(), file, place, read_to: from };
        self.lines(&mut input, Some(&mut part)).await.map_err(Stopped::Failed)?;
        part.place.ok_or_else(|| Stopped::File(io::Error::other("nothing was stored")))
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
                batch.extend(self.log.read(line).map(|posted| self.not_later_than_now(posted)));
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

    /// A time in the future comes from a clock that was set back, or from another time zone.
    fn not_later_than_now(&self, posted: Posted) -> Posted {
        Posted { at: posted.at.map(|at| at.min(self.now)), ..posted }
    }

    async fn store(&mut self, batch: Vec<Posted>, part: Option<&mut Part>, read: u64) -> Result<(), Failure> {
        let refused = |error: PostError| match error {
            PostError::Store(error) => operations::store_failure(&error),
            other => {
                Failure::new("sessions of the log can't be counted", other, "Run the command again later.")
            }
        };
        let Some(part) = part else {
            self.summary.sessions += self.collector.post(batch).await.map_err(refused)?;
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

fn inode(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// The digest of the first bytes that have been read.
fn head(file: &File, read_to: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut file = file.try_clone()?;
    // The clone shares the position of the file, which a buffered reader has left behind.
    let before = file.stream_position()?;
    file.seek(SeekFrom::Start(0))?;
    file.by_ref().take(read_to.min(HEAD_BYTES)).read_to_end(&mut bytes)?;
    file.seek(SeekFrom::Start(before))?;
    Ok(Sha256::digest(&bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// True if this file is the one of the place, with at least as many bytes as were read.
fn is_same(file: &File, place: &LogPlace) -> io::Result<bool> {
    Ok(inode(file)? == place.inode
        && file.metadata()?.len() >= place.read_to
        && head(file, place.read_to)? == place.head)
}

/// The file of a place under its new name, in the same folder.
fn rotated(path: &Path, place: &LogPlace) -> io::Result<Option<File>> {
    let Some(folder) = path.parent() else { return Ok(None) };
    let others = std::fs::read_dir(folder)?.take(MAX_FILES).filter_map(Result::ok).map(|entry| entry.path());
    let others: Vec<PathBuf> = others.filter(|other| other != path).collect();
    for other in others {
        let is_file = std::fs::metadata(&other).is_ok_and(|metadata| {
            metadata.is_file() && format!("{}:{}", metadata.dev(), metadata.ino()) == place.inode
        });
        // A file that can't be opened is not the one that was read before.
        if let Some(file) = is_file.then(|| File::open(&other).ok()).flatten()
            && is_same(&file, place)?
        {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::report::DateRange;
    use net::clock::{Clock, ManualClock};
    use std::io::Write;
    use std::sync::Arc;

    struct Place {
        dir: tempfile::TempDir,
        store: Store,
        clock: Arc<ManualClock>,
        collector: Arc<Collector>,
    }

    fn line(message: u32) -> String {
        format!(
            "2026-11-27 10:00:00 +0000 1xWw{:02}-0007Wr-1G => b@a.example R=r T=t H=mx.a.example [192.0.2.1] X=TLS1.3:c:256 CV=yes C=\"250\"\n",
            message
        )
    }

    impl Place {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("s.db")).await.unwrap();
            let clock = Arc::new(ManualClock::new("2026-11-27T12:00:00Z".parse().unwrap()));
            let collector = Collector::new(store.clone(), clock.clone());
            Self { dir, store, clock, collector }
        }

        fn log(&self) -> PathBuf {
            self.dir.path().join("mainlog")
        }

        fn append(&self, text: &str) {
            let mut file = File::options().create(true).append(true).open(self.log()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        async fn run(&self) -> Summary {
            collect(&self.collector, &self.store, &self.log(), self.clock.now()).await.unwrap()
        }

        async fn counted(&self) -> u64 {
            self.store.tally_sums(DateRange::utc_day(self.clock.now()).start).await.unwrap().0
        }
    }

    #[tokio::test]
    async fn each_session_counts_once_also_after_a_rotation() {
        let place = Place::new().await;
        place.append(&line(1));
        assert_eq!((place.run().await.sessions, place.run().await.sessions), (1, 0));
        // A line that is still being written counts when it is complete.
        let (begin, end) = {
            let two = line(2);
            (two[..50].to_owned(), two[50..].to_owned())
        };
        place.append(&begin);
        assert_eq!(place.run().await.sessions, 0);
        place.append(&end);
        assert_eq!(place.run().await.sessions, 1);
        place.append(&line(3));
        std::fs::rename(place.log(), place.dir.path().join("mainlog.1")).unwrap();
        place.append(&line(4));
        let summary = place.run().await;
        assert_eq!((summary.sessions, summary.has_gap), (2, false));
        assert_eq!((place.run().await.sessions, place.counted().await), (0, 4));
    }

    #[tokio::test]
    async fn a_log_that_was_truncated_or_whose_old_part_is_gone_is_read_from_its_beginning() {
        let place = Place::new().await;
        place.append(&line(1));
        place.append(&line(2));
        place.run().await;
        std::fs::write(place.log(), line(3)).unwrap();
        let summary = place.run().await;
        assert_eq!((summary.sessions, summary.has_gap, place.counted().await), (1, true, 3));
        std::fs::remove_file(place.log()).unwrap();
        place.append(&line(4));
        place.append(&line(5));
        assert_eq!((place.run().await.sessions, place.counted().await), (2, 5));
    }

    #[tokio::test]
    async fn lines_of_a_closed_day_are_late_and_lines_of_any_length_are_bounded() {
        let place = Place::new().await;
        place.append(&format!("{}\n", "x".repeat(3 * EXIM_LINE_BYTES)));
        place.append(&line(1));
        assert_eq!(place.run().await.sessions, 1);
        let day = DateRange::utc_day(place.clock.now()).start;
        place.store.close_day(day, false).await.unwrap();
        place.append(&line(2));
        let summary = place.run().await;
        assert_eq!((summary.sessions, summary.late, place.counted().await), (0, 1, 1));
    }
}
