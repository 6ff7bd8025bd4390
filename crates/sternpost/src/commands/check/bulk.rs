//! `sternpost check --from`: checks a list of domains concurrently. A first pass finds out which names have anything to check
//! (`first_pass`); those are checked, and a line of JSON is written for each name as soon as it is done. `list` reads the list
//! and earlier results, and `tally` counts. Memory does not grow with the output.

mod changes;
mod first_pass;
mod list;
mod merge;
mod tally;

use super::worse;
use crate::terminal::say;
use changes::{Change, Since};
use check::render::forms;
use check::{Check, Checker, Examination, Severity};
use config::failure::{Exit, Failure};
use first_pass::{FirstPass, Pass, PassCounts};
use formats::DomainName;
use formats::domain::DomainError;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
pub use list::Shard;
use list::{Listed, count, digest, open, output, read_beside, unreadable};
pub use merge::merge;
use net::dns::batch::{Batch, BatchConfig};
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use tally::{Counted, Reader, Tally};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// The options of a bulk check.
pub struct BulkCheck<'m> {
    /// A file with a domain on each line, or `-` for standard input.
    pub from: &'m Path,
    /// The file that output is appended to; domains that are already in it are skipped. `None` for standard output.
    pub resume: Option<&'m Path>,
    /// Number of domains that are checked at the same time.
    pub concurrency: usize,
    /// The queries of the first pass; `None` checks all domains.
    pub first_pass: Option<BatchConfig>,
    /// Whether the first pass also looks up MX and TLSA records.
    pub dane: bool,
    /// The part of the list to check; `None` for the whole list.
    pub shard: Option<Shard>,
    /// Print the counts in place of the results.
    pub has_summary: bool,
    /// The results of an earlier run: print what changed in place of the results.
    pub since: Option<&'m Path>,
    /// Whether changes and summary are JSON, not text.
    pub is_json: bool,
}

/// A domain that is to be checked.
pub struct ToCheck {
    domain: DomainName,
    first_pass: Option<FirstPass>,
}

/// The result of a line of the list.
pub enum LineResult {
    /// The domain was checked.
    Checked(Box<Examination>, Option<FirstPass>),
    /// The first pass found nothing to check.
    Passed(DomainName, FirstPass),
    /// The text is not a domain.
    NotADomain(String, DomainError),
    /// The list can't be read any further.
    Unreadable(std::io::Error),
}

/// Checks all domains. `verdict` maps an examination to an exit code; the worst one is returned.
pub async fn run(
    many: &BulkCheck<'_>,
    checker: Arc<Checker>,
    verdict: impl Fn(&Examination) -> Exit,
) -> Result<Exit, Failure> {
    let since = many.since.map(Since::read).transpose()?;
    let mut tally = Tally::new(count(many.from)?);
    let (out, done) = results(many, &mut tally)?;
    let mut out = BufWriter::new(out);
    let (list, pass) = begin(many, read_beside(open(many.from)?, done, many.shard)).await?;
    let mut results = std::pin::pin!(checked(list, checker, many.concurrency));
    let mut exit = Exit::Fine;
    let fail = |error: std::io::Error| {
        let remedy = "The output so far is valid; run the command again with --resume FILE to continue.";
        Failure::new("the output can't be written", error, remedy)
    };
    loop {
        // What is done is written before the next one is waited for.
        let next = match results.next().now_or_never() {
            Some(next) => next,
            None => {
                out.flush().map_err(fail)?;
                results.next().await
            }
        };
        let Some(result) = next else { break };
        exit = worse(exit, exit_code(&result, &verdict));
        let counted = count_result(&result, &mut tally);
        if let Some(change) = since.as_ref().and_then(|since| change(since, &result, counted.as_ref())) {
            say(&if many.is_json { change.json() } else { change.text() });
        }
        if let LineResult::Unreadable(error) = result {
            out.flush().map_err(fail)?;
            return Err(unreadable(many.from, error));
        }
        writeln!(out, "{}", line(&result)).map_err(fail)?;
        tally.show_progress();
    }
    out.flush().map_err(fail)?;
    let pass = match pass {
        Some(pass) => pass.await.ok(),
        None => None,
    };
    tally.end(pass, many.has_summary);
    if many.has_summary {
        tally.show(many.is_json);
    }
    Ok(exit)
}

/// Opens the output, and counts the results that are already in it. Returns the hashes of their domains as well.
fn results(many: &BulkCheck<'_>, tally: &mut Tally) -> Result<(Box<dyn Write>, HashSet<u64>), Failure> {
    let Some(path) = many.resume else {
        let out: Box<dyn Write> = match many.has_summary || many.since.is_some() {
            true => Box::new(std::io::sink()),
            false => Box::new(std::io::stdout()),
        };
        return Ok((out, HashSet::new()));
    };
    let (reader, mut done) = (Reader::default(), HashSet::new());
    let out = output(path, |line| {
        let earlier = reader.read(line);
        let is_result = earlier.is_some();
        // A name whose lookup failed is looked up again.
        let earlier = earlier.filter(|earlier| !earlier.is_undetermined());
        if let Some(earlier) = earlier.filter(|earlier| done.insert(digest(&earlier.name))) {
            tally.add_earlier(&earlier);
        }
        is_result
    })?;
    Ok((out, done))
}

/// The two parts of a list: lines without a check, and domains to check.
type Parts = (Receiver<LineResult>, Receiver<ToCheck>);

/// Begins the first pass over the list. Its task returns its counts; without a first pass, all domains are checked.
async fn begin(
    many: &BulkCheck<'_>,
    list: Receiver<Listed>,
) -> Result<(Parts, Option<JoinHandle<PassCounts>>), Failure> {
    let ((lines, all_lines), (checks, all_checks)) = (channel(1024), channel(64));
    let Some(config) = &many.first_pass else {
        tokio::spawn(without_pass(list, lines, checks));
        return Ok(((all_lines, all_checks), None));
    };
    let batch = Batch::open(config.clone()).await.map_err(|error| {
        let remedy = "Name a resolver with --resolver, or check all domains one by one with --all.";
        Failure::new("the first pass can't begin", error, remedy)
    })?;
    let pass = tokio::spawn(Pass::new(batch, many.dane).run(list, lines, checks));
    Ok(((all_lines, all_checks), Some(pass)))
}

/// Has all domains of a list checked.
async fn without_pass(mut list: Receiver<Listed>, lines: Sender<LineResult>, checks: Sender<ToCheck>) {
    while let Some(listed) = list.recv().await {
        let is_open = match listed {
            Listed::Domain(domain) => checks.send(ToCheck { domain, first_pass: None }).await.is_ok(),
            Listed::NotADomain(text, error) => lines.send(LineResult::NotADomain(text, error)).await.is_ok(),
            Listed::Unreadable(error) => lines.send(LineResult::Unreadable(error)).await.is_ok(),
        };
        if !is_open {
            return;
        }
    }
}

/// The results of a list, in the order in which they are done.
fn checked(
    (lines, checks): Parts,
    checker: Arc<Checker>,
    concurrency: usize,
) -> impl Stream<Item = LineResult> {
    let checks = received(checks).map(move |ToCheck { domain, first_pass }| {
        let checker = checker.clone();
        async move {
            // A spawned task, so that all cores are used.
            let task = tokio::spawn(async move { checker.examine(&domain).await });
            task.await.ok().map(|seen| LineResult::Checked(Box::new(seen), first_pass))
        }
    });
    let checks = checks.buffer_unordered(concurrency).filter_map(std::future::ready);
    stream::select(received(lines), checks)
}

fn received<T>(from: Receiver<T>) -> impl Stream<Item = T> {
    stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) })
}

/// The exit code for a result.
fn exit_code(result: &LineResult, verdict: impl Fn(&Examination) -> Exit) -> Exit {
    match result {
        LineResult::Checked(seen, _) => verdict(seen),
        LineResult::Passed(_, found) if found.is_undetermined() => Exit::Unknown,
        LineResult::NotADomain(..) => Exit::Findings,
        LineResult::Passed(..) | LineResult::Unreadable(_) => Exit::Fine,
    }
}

/// Counts a result, and returns what is counted of a check.
fn count_result(result: &LineResult, tally: &mut Tally) -> Option<Counted> {
    match result {
        LineResult::Checked(seen, found) => {
            let counted = Counted::of(seen);
            tally.add(&counted, *found);
            return Some(counted);
        }
        LineResult::Passed(_, found) => tally.add_passed(*found),
        LineResult::NotADomain(..) => tally.add_invalid(),
        LineResult::Unreadable(_) => {}
    }
    None
}

/// What changed at the name of a result.
fn change<'r>(since: &Since, result: &'r LineResult, counted: Option<&Counted>) -> Option<Change<'r>> {
    match result {
        LineResult::Checked(seen, found) => since.change(seen.domain.as_str(), counted, *found),
        LineResult::Passed(domain, found) => since.change(domain.as_str(), None, Some(*found)),
        LineResult::NotADomain(..) | LineResult::Unreadable(_) => None,
    }
}

/// The line of the output for a result.
fn line(result: &LineResult) -> String {
    match result {
        LineResult::Checked(seen, None) => forms::json(seen),
        LineResult::Checked(seen, Some(first_pass)) => {
            #[derive(serde::Serialize)]
            struct Line<'e> {
                schema: u32,
                #[serde(flatten)]
                seen: &'e Examination,
                first_pass: FirstPass,
            }
            serde_json::to_string(&Line { schema: 1, seen, first_pass: *first_pass }).unwrap_or_default()
        }
        LineResult::Passed(domain, first_pass) => {
            #[derive(serde::Serialize)]
            struct Line<'e> {
                schema: u32,
                domain: &'e str,
                first_pass: FirstPass,
                findings: [u8; 0],
            }
            let line = Line { schema: 1, domain: domain.as_str(), first_pass: *first_pass, findings: [] };
            serde_json::to_string(&line).unwrap_or_default()
        }
        LineResult::NotADomain(text, error) => serde_json::json!({
            "schema": 1, "typed": text,
            "findings": [{"check": Check::DomSyntax, "severity": Severity::Error,
                "what": format!("{text:?} is not a domain: {error}")}],
        })
        .to_string(),
        LineResult::Unreadable(_) => String::new(),
    }
}
