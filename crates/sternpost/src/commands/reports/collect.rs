//! `sternpost reports collect`: reads TLS sessions from files of JSON lines (docs/tlsrpt-sending.md) and adds them to
//! the tallies, from which reports are built. With `--exim-log` it reads Exim's log instead.

use super::exim_log;
use crate::terminal::say;
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
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let context = RolloutContext::open(named).await?;
    let collector = match &context.config.collector {
        Some(role) => crate::serve::reporting::collector(role, &context.store, &context.world)?,
        None => Collector::new(context.store.clone(), context.world.clock.clone()),
    };
    let (mut sessions, mut late) = (0, 0);
    for file in &options.files {
        sessions += one(&collector, file).await?;
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
                "{}: lines between the last run and the beginning of this file are gone, or compressed; their sessions are not counted",
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

async fn one(collector: &Collector, file: &Path) -> Result<u64, Failure> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        Failure::usage(
            format!("{shown} can't be read"),
            error,
            "Name a file with a session on each line, or `-`.",
        )
    };
    let input: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(std::io::stdin()),
        false => Box::new(File::open(file).map_err(unreadable)?),
    };
    let mut input = BufReader::new(input);
    let (mut sessions, mut first, mut number) = (0, 1, 0);
    let mut batch: Vec<Posted> = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        // The limit bounds the memory for a line without an end.
        let limit = u64::try_from(POSTED_BYTES).unwrap_or(u64::MAX);
        let length = input.by_ref().take(limit).read_until(b'\n', &mut line).map_err(unreadable)?;
        let is_over = length == 0;
        number += usize::from(!is_over);
        match parse(&line) {
            Ok(some) => batch.extend(some),
            Err(error) => return Err(bad(&shown.to_string(), number, &error.why, first)),
        }
        if batch.len() >= BATCH_ROWS || is_over {
            sessions += collector
                .post(std::mem::take(&mut batch))
                .await
                .map_err(|error| refused(&shown.to_string(), first, error))?;
            first = number + 1;
        }
        if is_over {
            return Ok(sessions);
        }
    }
}

fn bad(file: &str, line: usize, why: &str, first: usize) -> Failure {
    let remedy = match first {
        1 => "No line of the file was counted. Correct the line, and run the command again.".to_owned(),
        first => format!(
            "The lines before {first} were counted. Correct the line, and continue from there:\n  tail -n +{first} {file} | sternpost reports collect -"
        ),
    };
    Failure::usage(format!("{file}, line {line}"), why, remedy)
}

fn refused(file: &str, first: usize, error: PostError) -> Failure {
    match error {
        // Each line has one session, so the number of the session gives the line.
        PostError::Session { number, why } => bad(file, first + number - 1, &why, first),
        PostError::Future { number, .. } => bad(file, first + number - 1, &error.to_string(), first),
        PostError::Store(error) => operations::store_failure(&error),
        full @ PostError::Full => Failure::new(
            format!("the sessions of {file} from line {first} on"),
            full,
            "Run the command again for these lines when the other collector answers.",
        ),
    }
}
