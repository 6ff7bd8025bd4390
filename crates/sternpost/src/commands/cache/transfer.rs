//! `sternpost cache export` and `import`: policies go from the running server of one machine to that of another, as one line of
//! JSON for each ([`formats::policy_export`]). The server validates every line; this side bounds the lines and counts.

use crate::control;
use crate::serve::api::{Exported, IMPORT_REQUEST_BYTES, Imported, LineOutcome};
use crate::terminal::{say, show};
use config::failure::{Exit, Failure};
use formats::counted::counted;
use formats::limits::{EXPORT_LINE_BYTES, IMPORT_LINES};
use hyper::Method;
use sender::answer::transfer::ImportOutcome;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The options of `sternpost cache import`.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// File of `sternpost cache export`; `-` reads standard input
    file: PathBuf,
    /// Only count what would be imported
    #[arg(long)]
    dry_run: bool,
    /// Print one line of JSON (docs/answers.md)
    #[arg(long)]
    json: bool,
}

/// The result of an import, in JSON.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
struct Summary {
    schema: u32,
    dry_run: bool,
    imported: u64,
    not_newer: u64,
    expired: u64,
    refused: u64,
    /// The first refused lines.
    problems: Vec<Problem>,
}

/// A refused line.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Problem {
    /// The number of the line in the file, from 1.
    line: usize,
    reason: String,
}

/// The number of refused lines that are reported in detail.
const MAX_PROBLEMS: usize = 20;
/// Lines in one request. The request also has at most [`IMPORT_REQUEST_BYTES`].
const BATCH_LINES: usize = 1000;

/// Writes the policies of the running server to standard output.
pub async fn export(socket: &Path) -> Result<Exit, Failure> {
    let mut after = String::new();
    let mut out = io::BufWriter::new(io::stdout());
    loop {
        let page: Exported =
            control::ask(socket, Method::GET, &format!("/v1/cache/export?after={after}")).await?;
        let written = page.lines.iter().try_for_each(|line| writeln!(out, "{line}"));
        match written.and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Fine),
            Err(error) => {
                return Err(Failure::new(
                    "the export is incomplete",
                    error,
                    "Free disk space, and run it again.",
                ));
            }
        }
        match page.next {
            Some(next) => after = next.to_string(),
            None => return Ok(Exit::Fine),
        }
    }
}

/// Sends the lines of the file to the running server and prints the counts.
pub async fn import(options: &Import, socket: &Path) -> Result<Exit, Failure> {
    let shown = options.file.display();
    let fail = |error: io::Error| {
        Failure::usage(
            format!("{shown} can't be read"),
            error,
            "Name a file of `sternpost cache export`, or -.",
        )
    };
    let mut lines = match options.file.as_os_str() == "-" {
        true => Lines::new(Box::new(io::stdin().lock())),
        false => Lines::new(Box::new(BufReader::new(std::fs::File::open(&options.file).map_err(fail)?))),
    };
    let mut summary = Summary { schema: 1, dry_run: options.dry_run, ..Summary::default() };
    loop {
        let batch = lines.batch(&mut summary).map_err(fail)?;
        if batch.numbers.is_empty() {
            break;
        }
        let path = format!("/v1/cache/import?dry_run={}", options.dry_run);
        let Imported { outcomes, .. } = control::send(socket, Method::POST, &path, batch.body).await?;
        for (line, outcome) in batch.numbers.into_iter().zip(outcomes) {
            summary.add(line, outcome);
        }
    }
    if lines.number >= IMPORT_LINES && lines.next().map_err(fail)?.is_some() {
        summary.refuse(lines.number, format!("the import stops after {IMPORT_LINES} lines"));
    }
    match options.json {
        true => say(&serde_json::to_string(&summary).unwrap_or_default()),
        false => show(&summary.in_words()),
    }
    Ok(if summary.refused == 0 { Exit::Fine } else { Exit::Findings })
}

/// The lines of a file, each bounded by [`EXPORT_LINE_BYTES`].
struct Lines {
    input: Box<dyn BufRead>,
    /// The number of the last line, from 1.
    number: usize,
    /// A line that did not fit into the last batch.
    waiting: Option<Vec<u8>>,
}

/// The lines of one request, with their numbers in the file.
#[derive(Default)]
struct Batch {
    body: Vec<u8>,
    numbers: Vec<usize>,
}

impl Lines {
    fn new(input: Box<dyn BufRead>) -> Self {
        Self { input, number: 0, waiting: None }
    }

    /// Reads the next batch; it is empty at the end of the input. Lines that are too long are counted as refused.
    fn batch(&mut self, summary: &mut Summary) -> io::Result<Batch> {
        let mut batch = Batch::default();
        while batch.numbers.len() < BATCH_LINES {
            let line = match self.waiting.take() {
                Some(line) => line,
                None if self.number >= IMPORT_LINES => break,
                None => match self.next()? {
                    Some(line) => line,
                    None => break,
                },
            };
            if line.len() > EXPORT_LINE_BYTES {
                summary.refuse(self.number, format!("the line has over {EXPORT_LINE_BYTES} bytes"));
            } else if batch.body.len() + line.len() + 1 > IMPORT_REQUEST_BYTES {
                self.waiting = Some(line);
                break;
            } else if !line.is_empty() {
                batch.body.extend_from_slice(&line);
                batch.body.push(b'\n');
                batch.numbers.push(self.number);
            }
        }
        Ok(batch)
    }

    /// Reads a line without its end. Of a line that is too long, only the beginning is returned, and the rest is skipped.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let most = EXPORT_LINE_BYTES as u64 + 2;
        let mut line = Vec::new();
        if self.input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let mut is_ended = line.ends_with(b"\n");
        while !is_ended {
            let mut rest = Vec::new();
            is_ended =
                self.input.by_ref().take(most).read_until(b'\n', &mut rest)? == 0 || rest.ends_with(b"\n");
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        if line.ends_with(b"\r") {
            line.pop();
        }
        Ok(Some(line))
    }
}

impl Summary {
    fn add(&mut self, line: usize, outcome: LineOutcome) {
        match outcome {
            LineOutcome::Policy(ImportOutcome::Imported) => self.imported += 1,
            LineOutcome::Policy(ImportOutcome::NotNewer) => self.not_newer += 1,
            LineOutcome::Policy(ImportOutcome::Expired) => self.expired += 1,
            LineOutcome::Policy(ImportOutcome::FromTheFuture) => {
                self.refuse(
                    line,
                    "the policy was fetched in the future; compare the clocks of both machines".into(),
                );
            }
            LineOutcome::Invalid(reason) => self.refuse(line, reason),
        }
    }

    fn refuse(&mut self, line: usize, reason: String) {
        self.refused += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { line, reason });
        }
    }

    fn in_words(&self) -> String {
        let mut out = format!(
            "{} {}, {} not newer than the cached ones, {} expired, {} refused.\n",
            counted(self.imported, "policy"),
            if self.dry_run { "would be imported" } else { "imported" },
            self.not_newer,
            self.expired,
            counted(self.refused, "line")
        );
        for problem in &self.problems {
            let _ = writeln!(out, "  line {}: {}", problem.line, problem.reason);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: Vec<u8>) -> Lines {
        Lines::new(Box::new(io::Cursor::new(text)))
    }

    #[test]
    fn lines_are_numbered_bounded_and_batched() {
        let long = "x".repeat(EXPORT_LINE_BYTES + 1);
        let fits = "y".repeat(EXPORT_LINE_BYTES);
        let longer = "z".repeat(3 * EXPORT_LINE_BYTES);
        let text = format!("a\r\n\n{long}\n{fits}\r\n{longer}\nb\n{longer}");
        let mut lines = lines(text.into_bytes());
        let mut summary = Summary::default();
        let batch = lines.batch(&mut summary).unwrap();
        assert_eq!((batch.numbers, batch.body), (vec![1, 4, 6], format!("a\n{fits}\nb\n").into_bytes()));
        assert_eq!(summary.problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [3, 5, 7]);
        assert!(lines.batch(&mut summary).unwrap().numbers.is_empty());
    }

    #[test]
    fn no_line_is_lost_between_two_requests() {
        let line = "x".repeat(EXPORT_LINE_BYTES);
        let short = (0..2500).map(|number| format!("{number}\n")).collect::<String>();
        let long = format!("{line}\n").repeat(70);
        let mut lines = lines(format!("{short}{long}").into_bytes());
        let (mut numbers, mut summary) = (Vec::new(), Summary::default());
        loop {
            let batch = lines.batch(&mut summary).unwrap();
            if batch.numbers.is_empty() {
                break;
            }
            assert!(batch.body.len() <= IMPORT_REQUEST_BYTES && batch.numbers.len() <= BATCH_LINES);
            numbers.extend(batch.numbers);
        }
        assert_eq!(numbers, (1..=2570).collect::<Vec<_>>());
        assert_eq!(summary, Summary::default());
    }

    #[test]
    fn only_the_first_refused_lines_are_told() {
        let mut summary = Summary::default();
        for line in 1..=50 {
            summary.add(line, LineOutcome::Invalid("no".into()));
        }
        summary.add(51, LineOutcome::Policy(ImportOutcome::FromTheFuture));
        summary.add(52, LineOutcome::Policy(ImportOutcome::Imported));
        assert_eq!((summary.refused, summary.problems.len(), summary.imported), (51, MAX_PROBLEMS, 1));
        assert!(summary.in_words().starts_with("1 policy imported, 0 not newer"));
    }
}
