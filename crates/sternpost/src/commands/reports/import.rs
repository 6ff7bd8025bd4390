//! `sternpost reports import`: imports TLS reports from files, folders, mailboxes and archives. One thread reads and
//! parses files while the store writes. Reports that are counted as imported are durable; after an interruption the
//! import can simply be run again, since reports that are already stored count as duplicates.

mod incoming;
mod reader;

use crate::terminal::{marks, say, show};
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::printable::printable;
use incoming::{Incoming, batch_from};
use operations::inbox::inbox_of;
use operations::{RolloutContext, store_failure};
use reader::{CHUNKS_AHEAD, Copies, ImportItem, Sources, read_all};
use receiver::inbox::files::{Item, LivingFiles, files_below};
use receiver::inbox::{Inbox, Reading, keep_dmarc_reports, keep_reports};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::dmarc::{DmarcQuota, NewDmarcReport};
use store::reports::{ImportTurn, KeepOutcome, NewReport, Trust};
use tokio::sync::mpsc::{self, Receiver};

/// The options of `sternpost reports import`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Files, folders or maildirs; `-` reads a message, mbox, report or zip file from standard input
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Trust unsigned reports, so that they count as evidence
    #[arg(long)]
    trusted: bool,
    /// Print the outcome as one line of JSON (docs/reports.md)
    #[arg(long)]
    json: bool,
}

/// Time between two updates of the progress line.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The outcome of an import, by number of reports, messages and files.
#[derive(Debug, Default, serde::Serialize)]
pub struct Counts {
    new: u64,
    duplicates: u64,
    confirmed: u64,
    verified: u64,
    trusted: u64,
    quarantined: u64,
    unreadable: u64,
    /// New DMARC reports.
    dmarc: u64,
    /// DMARC reports that were stored before.
    dmarc_duplicates: u64,
    /// Messages and files that are not TLS reports; nothing of them is stored.
    left_alone: u64,
    /// DMARC reports among them, since `inbox.dmarc` is off.
    dmarc_left_alone: u64,
    /// Files that were moved or deleted during the import and not found again.
    gone: u64,
    /// Last mails of an mbox that are broken and have no end, as while they are delivered.
    unfinished: u64,
    about_others: u64,
    /// The quarantined and unreadable items, up to [`MAX_LISTED`].
    problems: Vec<Problem>,
}

#[derive(Debug, serde::Serialize)]
struct Problem {
    name: String,
    why: String,
}

/// Maximum number of problems that are listed.
const MAX_LISTED: usize = 1000;

/// Imports the reports from all paths.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(chosen).await?;
    let sources = find(&options.paths, context.config.store.file())?;
    let inbox = Arc::new(inbox_of(&context));
    let mut counts = Counts::default();
    let known: BTreeSet<String> = context.known.iter().map(|spec| spec.name.to_string()).collect();
    let total = sources.total;
    let (sender, ready) = mpsc::channel(CHUNKS_AHEAD);
    let reader = {
        let inbox = inbox.clone();
        tokio::task::spawn_blocking(move || read_all(sources, &inbox, &sender))
    };
    store_all(&inbox, ready, options.trusted, &known, total, &mut counts).await?;
    reader.await.map_err(|error| Failure::new("the import stopped", error, ""))?;
    let removed = inbox.retention.enforce(&context.store, inbox.clock.now()).await;
    let removed = removed.map_err(|error| store_failure(&error))?;
    context.store.close().await;
    match options.json {
        true => show(&format!("{}\n", with_schema(&counts)?)),
        false => {
            say(&in_words(&counts));
            if removed.unverified > 0 {
                say(&format!(
                    "{} {} unverified reports were deleted, since they exceed inbox.unverified_size or inbox.keep_unverified; trusted ones stay (--trusted)",
                    marks().warning,
                    removed.unverified
                ));
            }
        }
    }
    Ok(if counts.quarantined + counts.unreadable > 0 { Exit::Findings } else { Exit::Fine })
}

fn with_schema(counts: &Counts) -> Result<serde_json::Value, Failure> {
    let mut value =
        serde_json::to_value(counts).map_err(|error| Failure::new("the counts can't be shown", error, ""))?;
    if let Some(members) = value.as_object_mut() {
        members.insert("schema".to_owned(), 1.into());
    }
    Ok(value)
}

fn find(paths: &[PathBuf], store: Option<&Path>) -> Result<Sources, Failure> {
    let (mut files, mut unreadable, mut has_standard_input) = (Vec::new(), Vec::new(), false);
    for path in paths {
        if path.as_os_str() == "-" {
            has_standard_input = true;
            continue;
        }
        let found = files_below(path).map_err(|error| {
            Failure::usage(
                format!("{} can't be imported", printable(&path.display().to_string(), usize::MAX)),
                error,
                "Name a report file, a message, an mbox, a zip file, or a folder of them; `-` reads standard input.",
            )
        })?;
        let is_other = |file: &PathBuf| !store.is_some_and(|store| is_of_store(file, store));
        files.extend(found.files.into_iter().filter(is_other));
        unreadable.extend(found.unreadable);
    }
    let total = files.len() + usize::from(has_standard_input);
    Ok(Sources { files: LivingFiles::new(files), total, unreadable, has_standard_input })
}

/// True for the files of the store itself, which may be in a folder that is imported.
fn is_of_store(file: &Path, store: &Path) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rest = name(file).strip_prefix(&name(store)).map(str::to_owned);
    let is_named_so = rest.is_some_and(|rest| ["", "-wal", "-shm"].contains(&rest.as_str()));
    let folder = |path: &Path| std::fs::canonicalize(path).ok()?.parent().map(Path::to_owned);
    is_named_so && folder(file) == folder(store)
}

fn vouched(mut new: NewReport, trusted: bool) -> NewReport {
    if trusted {
        new.trust = new.trust.max(Trust::Trusted);
    }
    new
}

async fn store_all(
    inbox: &Arc<Inbox>,
    ready: Receiver<Vec<ImportItem>>,
    trusted: bool,
    known: &BTreeSet<String>,
    total: usize,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let mut items = Incoming::of(inbox, ready);
    let mut progress = Progress::new(total);
    let mut turn = ImportTurn::of(&inbox.store);
    while let Some(first) = items.next().await {
        let batch = batch_from(first, &mut items).await;
        let mut reports = Vec::with_capacity(batch.len());
        let mut dmarc = Vec::new();
        // The memory of the reports is in use until they are stored.
        let mut memory = Vec::new();
        for one in batch {
            match one {
                ImportItem::Read(item, mut reading, copies) => {
                    if !reading.problems.is_empty() {
                        turn.pause().await;
                        set_aside(inbox, item, &reading, copies, trusted, counts).await?;
                    }
                    memory.extend(reading.take_memory());
                    dmarc.extend(reading.dmarc.into_iter().map(|new| NewDmarcReport {
                        trust: if trusted { new.trust.max(Trust::Trusted) } else { new.trust },
                        ..new
                    }));
                    reports.extend(reading.reports.into_iter().map(|new| vouched(new, trusted)));
                }
                ImportItem::Unread(unreadable) => {
                    counts.unreadable += 1;
                    counts.problem(unreadable.name, unreadable.why);
                }
                ImportItem::LeftAlone => counts.left_alone += 1,
                ImportItem::Gone => counts.gone += 1,
                ImportItem::Mail(..) => {}
            }
        }
        turn.pause().await;
        let kept = keep_reports(&inbox.store, &reports, None).await.map_err(|error| store_failure(&error))?;
        reports.iter().zip(kept).for_each(|(new, kept)| counts.count(new, kept, known));
        let kept = keep_dmarc_reports(&inbox.store, &dmarc, DmarcQuota::default()).await;
        drop(memory);
        kept.map_err(|error| store_failure(&error))?.into_iter().for_each(|kept| match kept {
            KeepOutcome::New => counts.dmarc += 1,
            KeepOutcome::Duplicate | KeepOutcome::Confirmed => counts.dmarc_duplicates += 1,
        });
        progress.update(counts);
    }
    progress.end();
    Ok(())
}

/// Quarantines an item in which something could not be read, unless it is other mail of which there is a copy. The reading has
/// problems.
async fn set_aside(
    inbox: &Inbox,
    item: Item,
    reading: &Reading,
    copies: Copies,
    trusted: bool,
    counts: &mut Counts,
) -> Result<(), Failure> {
    if reading.is_other_mail() && copies == Copies::Elsewhere {
        counts.left_alone += 1;
        counts.dmarc_left_alone += u64::from(reading.other_dmarc > 0);
        return Ok(());
    }
    if item.is_open_ended && copies == Copies::Elsewhere {
        counts.unfinished += 1;
        return Ok(());
    }
    let reason = reading.reason();
    let kept = inbox.quarantine(&item.bytes, &reason, trusted).await;
    kept.map_err(|error| store_failure(&error))?;
    counts.quarantined += 1;
    counts.problem(item.name, reason);
    Ok(())
}

impl Counts {
    fn count(&mut self, new: &NewReport, kept: KeepOutcome, known: &BTreeSet<String>) {
        match kept {
            KeepOutcome::New => self.new += 1,
            KeepOutcome::Duplicate => self.duplicates += 1,
            KeepOutcome::Confirmed => self.confirmed += 1,
        }
        self.verified += u64::from(new.trust == Trust::Verified);
        self.trusted += u64::from(new.trust == Trust::Trusted);
        let ours = |domain: &formats::DomainName| known.contains(domain.as_str());
        let is_ours = new.report.policies.iter().filter_map(|policy| policy.policy_domain.as_ref()).any(ours);
        self.about_others += u64::from(!is_ours && kept == KeepOutcome::New);
    }

    fn problem(&mut self, name: String, why: String) {
        if self.problems.len() < MAX_LISTED {
            self.problems.push(Problem { name, why });
        }
    }

    fn all(&self) -> u64 {
        let dmarc = self.dmarc + self.dmarc_duplicates;
        let tls = self.new + self.duplicates + self.confirmed;
        tls + dmarc + self.quarantined + self.unreadable + self.left_alone + self.gone + self.unfinished
    }
}

/// A progress line on standard error, when that is a terminal.
struct Progress {
    total: usize,
    begun: Instant,
    last: Option<Instant>,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, begun: Instant::now(), last: None }
    }

    fn update(&mut self, counts: &Counts) {
        if !std::io::stderr().is_terminal()
            || self.last.is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL)
        {
            return;
        }
        self.last = Some(Instant::now());
        let rate = counts.all() as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{} read, {} files in total, {rate:.0}/s, {} quarantined",
            counts.all(),
            self.total,
            counts.quarantined
        );
    }

    fn end(&self) {
        if self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn in_words(counts: &Counts) -> String {
    let marks = marks();
    let tls = counts.new + counts.duplicates + counts.confirmed;
    let is_nothing = tls + counts.dmarc + counts.dmarc_duplicates == 0;
    let mark = if is_nothing { marks.warning } else { marks.fine };
    let mut out = format!("{mark} {} new reports", counts.new);
    if is_nothing {
        out.push_str(": nothing that was read is a TLS report");
    }
    let mut also = |count: u64, what: &str| {
        if count > 0 {
            out.push_str(&format!("\n{} {count} {what}", marks.info));
        }
    };
    also(counts.duplicates, "duplicates, counted once");
    also(counts.confirmed, "stored before, now trusted");
    let taken = counts.new + counts.duplicates + counts.confirmed;
    also(
        taken.saturating_sub(counts.verified + counts.trusted),
        "without a valid signature: shown, but not evidence unless imported with --trusted",
    );
    also(
        counts.about_others,
        "about domains that are not yours (`sternpost domains list`); list them with: sternpost reports list --others",
    );
    also(counts.dmarc, "new DMARC reports; list them with: sternpost reports list --dmarc");
    also(counts.dmarc_duplicates, "DMARC reports that were stored before");
    also(counts.left_alone, "messages or files that are not TLS reports: ignored, nothing of them is stored");
    also(counts.dmarc_left_alone, "of them DMARC reports: `inbox.dmarc = true` imports them");
    also(
        counts.gone,
        "files that were moved or deleted during the import: the next import reads what was moved",
    );
    also(
        counts.unfinished,
        "mails at the end of an mbox that have no end, as while they are delivered: the next import reads them again",
    );
    for problem in &counts.problems {
        out.push_str(&format!("\n{} {}: {}", marks.error, problem.name, problem.why));
    }
    if counts.quarantined > 0 {
        out.push_str("\n  Unreadable reports are kept: sternpost reports quarantine list");
    }
    out
}
