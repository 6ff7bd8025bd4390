//! `sternpost reports collect`: reads TLS sessions from files of JSON lines (docs/tlsrpt-sending.md) and adds them to
//! the tallies, from which reports are built. With `--exim-log` it reads Exim's log instead.

use super::exim_log;
use crate::terminal::say;
use config::Chosen;
use config::failure::{Exit, Failure};
use formats::exim_log::Transports;
use formats::limits::POSTED_BYTES;
use formats::posted::{Posted, parse};
use operations::RolloutContext;
use sender::collect::{Collector, PostError};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The options of `sternpost reports collect`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Files with a session on each line; `-` is standard input
    #[arg(required_unless_present = "exim_log")]
    files: Vec<PathBuf>,
    /// Exim's main log; lines that an earlier run has read are skipped; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    exim_log: Vec<PathBuf>,
    /// A transport of Exim that sends to MX hosts; by default all but those named local…, …lmtp… and …smarthost…
    #[arg(long, value_name = "NAME", requires = "exim_log")]
    transport: Vec<String>,
    /// A transport of Exim that does not send to MX hosts
    #[arg(long, value_name = "NAME", requires = "exim_log")]
    skip_transport: Vec<String>,
    /// Print the number of sessions as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Lines that are stored in one transaction.
const BATCH_ROWS: usize = 10_000;

/// Counts the sessions of all files. Batches before an invalid line stay stored; the error says where to resume.
pub async fn run(options: &Options, chosen: Chosen<'_>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(chosen).await?;
    let collector = match &context.config.collector {
        Some(role) => crate::serve::reporting::collector(role, &context.store, &context.world)?,
        None => Collector::new(context.store.clone(), context.world.clock.clone()),
    };
    let (mut sessions, mut late) = (0, 0);
    for (number, file) in options.files.iter().enumerate() {
        let (before, from) = options.files.split_at(number);
        let place = Place { file, is_first: before.is_empty(), after: from.get(1..).unwrap_or_default() };
        sessions += one(&collector, &place).await?;
    }
    let rules = exim_log::Rules {
        transports: Transports { taken: options.transport.clone(), skipped: options.skip_transport.clone() },
        allow_private_addresses: context.config.allow_private_addresses,
    };
    for file in &options.exim_log {
        let now = context.world.clock.now();
        let read = exim_log::collect(&collector, &context.store, file, &rules, now).await?;
        sessions += read.sessions;
        late += read.late;
        if read.has_gap {
            tracing::error!(
                "{}: lines between the last run and the beginning of this file are missing or compressed; their sessions are not counted",
                file.display()
            );
        }
    }
    context.store.close().await;
    match options.json {
        true if options.exim_log.is_empty() => {
            say(&serde_json::json!({ "schema": 1, "sessions": sessions }).to_string());
        }
        true => say(&serde_json::json!({ "schema": 1, "sessions": sessions, "late": late }).to_string()),
        false if late > 0 => say(&format!(
            "Sessions counted: {sessions}. Not counted, since the reports of their days are built: {late}."
        )),
        false => say(&format!("Sessions counted: {sessions}.")),
    }
    Ok(Exit::Fine)
}

/// A file, and what is read before and after it.
struct Place<'p> {
    file: &'p Path,
    /// False if other files were counted before.
    is_first: bool,
    /// The files that follow.
    after: &'p [PathBuf],
}

/// The sessions that are stored next, each with the number of its line.
#[derive(Default)]
struct Batch {
    sessions: Vec<Posted>,
    lines: Vec<usize>,
}

impl Batch {
    fn add(&mut self, sessions: Vec<Posted>, line: usize) {
        self.lines.resize(self.lines.len() + sessions.len(), line);
        self.sessions.extend(sessions);
    }
}

async fn one(collector: &Collector, place: &Place<'_>) -> Result<u64, Failure> {
    let Place { file, .. } = place;
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        Failure::usage(
            format!("{shown} can't be read"),
            error,
            "Name a file with a session on each line, or `-`.",
        )
    };
    let input: Box<dyn Read> = match is_stdin(file) {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(file).map_err(unreadable)?),
    };
    let mut input = BufReader::new(input);
    let (mut sessions, mut first, mut number) = (0, 1, 0);
    let mut batch = Batch::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        // The limit bounds the memory for a line without an end.
        let limit = u64::try_from(POSTED_BYTES).unwrap_or(u64::MAX);
        let length = input.by_ref().take(limit).read_until(b'\n', &mut line).map_err(unreadable)?;
        let is_over = length == 0;
        number += usize::from(!is_over);
        if length == POSTED_BYTES && !line.ends_with(b"\n") {
            let why = format!("the line has more than {POSTED_BYTES} bytes");
            return Err(bad(place, number, &why, first));
        }
        match parse(&line) {
            Ok(some) => batch.add(some, number),
            Err(error) => return Err(bad(place, number, &error.why, first)),
        }
        if batch.sessions.len() >= BATCH_ROWS || is_over {
            let Batch { sessions: some, lines } = std::mem::take(&mut batch);
            sessions += collector.post(some).await.map_err(|error| refused(place, &lines, first, error))?;
            first = number + 1;
        }
        if is_over {
            return Ok(sessions);
        }
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn bad(place: &Place<'_>, line: usize, why: &str, first: usize) -> Failure {
    let file = place.file.display();
    Failure::usage(format!("{file}, line {line}"), why, resume(place, first))
}

/// How to go on after an error. The lines of the file before `first` and all files before it were counted.
fn resume(place: &Place<'_>, first: usize) -> String {
    let file = place.file.display();
    let after: String = place.after.iter().map(|file| format!(" {}", file.display())).collect();
    let counted = if place.is_first { "" } else { "The files before it were counted. " };
    match first {
        1 if place.is_first => "No line was counted. Correct the line, and run the command again.".to_owned(),
        1 => format!(
            "{counted}No line of this file was. Correct the line, and continue with it:\n  sternpost reports collect {file}{after}"
        ),
        first if is_stdin(place.file) => {
            format!(
                "{counted}The lines before {first} were counted. Correct the line, and send those from {first} on again."
            )
        }
        first => format!(
            "{counted}The lines before {first} were counted. Correct the line, and continue from there:\n  tail -n +{first} {file} | sternpost reports collect -{after}"
        ),
    }
}

fn refused(place: &Place<'_>, lines: &[usize], first: usize, error: PostError) -> Failure {
    let line = |number: usize| number.checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or(first);
    match error {
        PostError::Session { number, why } => bad(place, line(number), &why, first),
        PostError::Future { number, at, now } => {
            let why = format!("{at} is in the future: the current time is {now}");
            bad(place, line(number), &why, first)
        }
        PostError::Store(error) => operations::store_failure(&error),
        full @ PostError::Full => Failure::new(
            format!("the sessions of {} from line {first} on", place.file.display()),
            full,
            format!("When the other collector answers, run the command again. {}", resume(place, first)),
        ),
    }
}
