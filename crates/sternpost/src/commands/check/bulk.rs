//! `sternpost check --from`: checks a list of domains concurrently. A first pass finds out which names have anything to check
//! (`first_pass`); those are checked, and a line of JSON is written for each name as soon as it is done. `list` reads the list
//! and earlier results, and `tally` counts. Memory does not grow with the output.

mod changes;
mod classes;
mod earlier;
mod first_pass;
mod history;
mod lines;
mod list;
mod merge;
mod report;
mod tally;

use super::worse;
use crate::terminal::say;
use changes::{Comparison, Since};
use check::render::forms;
use check::{Check, Checker, Examination, Severity};
use config::failure::{Exit, Failure};
use earlier::{Counted, Reader};
use first_pass::{FirstPass, Pass, PassCounts};
use formats::DomainName;
use formats::counted::counted;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use history::History;
use jiff::Timestamp;
use list::{Listed, count, digest, is_same_file, open, output, read_beside, unreadable};
pub use list::{Shard, expect_list};
pub use merge::merge;
use net::dns::batch::{Batch, BatchConfig};
use report::Report;
use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use tally::Tally;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinError, JoinHandle};

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
    /// The former MX hosts of the domains.
    pub history: Option<&'m Path>,
    /// The folder for a report, and the time that it names.
    pub report: Option<(&'m Path, Timestamp)>,
    /// Whether changes and summary are JSON, not text.
    pub is_json: bool,
    /// The exit code for a line that is not a domain.
    pub invalid: Exit,
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
    /// The check of a domain ended without a result, by a fault of this program, and which.
    Failed(DomainName, Option<FirstPass>, String),
    /// The text is not a domain, and why.
    NotADomain(String, String),
    /// The list had the name before.
    Repeated,
    /// The list can't be read any further.
    Unreadable(std::io::Error),
}

/// Checks all domains. `verdict` maps an examination to an exit code; the worst one is returned.
pub async fn run(
    many: &BulkCheck<'_>,
    checker: Arc<Checker>,
    verdict: impl Fn(&Examination) -> Exit,
) -> Result<Exit, Failure> {
    refuse_one_file(many)?;
    let since = many.since.map(Since::read).transpose()?;
    let report = many.report.map(|(dir, _)| Report::in_folder(dir)).transpose()?;
    let history = Arc::new(many.history.map(History::read).transpose()?);
    let mut tally = Tally::new(count(many.from)?);
    let (out, done) = results(many, &mut tally)?;
    let mut out = BufWriter::new(out);
    let (list, pass) = begin(many, read_beside(open(many.from)?, done, many.shard)).await?;
    let examine = move |domain: DomainName| {
        let (checker, history) = (checker.clone(), history.clone());
        async move {
            let known = history.as_ref().as_ref().map(|history| history.of(&domain)).unwrap_or_default();
            checker.examine_with(&domain, &known, &()).await
        }
    };
    let mut results = std::pin::pin!(checked(list, examine, many.concurrency));
    let (mut exit, mut not_compared) = (Exit::Fine, 0_u64);
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
        exit = worse(exit, exit_code(&result, many.invalid, &verdict));
        let counted = count_result(&result, &mut tally);
        match since.as_ref().map(|since| compare(since, &result, counted.as_ref())) {
            Some(Comparison::Changed(change)) => {
                say(&if many.is_json { change.json() } else { change.text() });
            }
            Some(Comparison::Unknown) => not_compared += 1,
            Some(Comparison::Same) | None => {}
        }
        if let LineResult::Unreadable(error) = result {
            out.flush().map_err(fail)?;
            return Err(unreadable(many.from, error));
        }
        if let Some(line) = line(&result) {
            writeln!(out, "{line}").map_err(fail)?;
        }
        tally.show_progress();
    }
    out.flush().map_err(fail)?;
    let pass = match pass {
        Some(pass) => Some(pass.await.map_err(|error| {
            let remedy = "Names without a line in the output were not looked up. Run the command again with --resume FILE.";
            Failure::new("the first pass ended early", reason(error), remedy)
        })?),
        None => None,
    };
    tally.end(pass.as_ref(), many.has_summary);
    if not_compared > 0 {
        eprintln!(
            "{} can't be compared: the lookup failed in the earlier run.",
            counted(not_compared, "name")
        );
    }
    if many.has_summary {
        tally.show(many.is_json);
    }
    if let (Some(report), Some((_, now))) = (report, many.report) {
        report.write(&tally, now)?;
    }
    Ok(exit)
}

/// Refuses to append results to the list, or to the results that they are compared with.
fn refuse_one_file(many: &BulkCheck<'_>) -> Result<(), Failure> {
    let Some(out) = many.resume else { return Ok(()) };
    for (option, path) in [("--from", Some(many.from)), ("--since", many.since), ("--history", many.history)]
    {
        if let Some(path) = path.filter(|path| is_same_file(path, out)) {
            return Err(Failure::usage(
                format!("{option} and --resume name one file, {}", path.display()),
                "the results would be appended to the file that is read",
                "Name another file with --resume, such as --resume results.jsonl.",
            ));
        }
    }
    Ok(())
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
    let batch = Batch::open(config.clone()).map_err(|error| {
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
            Listed::Repeated => lines.send(LineResult::Repeated).await.is_ok(),
            Listed::Unreadable(error) => lines.send(LineResult::Unreadable(error)).await.is_ok(),
        };
        if !is_open {
            return;
        }
    }
}

/// The results of a list, in the order in which they are done.
fn checked<F: Future<Output = Examination> + Send + 'static>(
    (lines, checks): Parts,
    examine: impl Fn(DomainName) -> F,
    concurrency: usize,
) -> impl Stream<Item = LineResult> {
    let checks = received(checks).map(move |ToCheck { domain, first_pass }| {
        // A spawned task, so that all cores are used.
        let task = tokio::spawn(examine(domain.clone()));
        async move {
            match task.await {
                Ok(seen) => LineResult::Checked(Box::new(seen), first_pass),
                Err(error) => LineResult::Failed(domain, first_pass, reason(error)),
            }
        }
    });
    stream::select(received(lines), checks.buffer_unordered(concurrency))
}

/// Why a task ended without a result.
fn reason(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "the task was stopped".to_owned() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    format!("a fault of this program: {text}")
}

fn received<T>(from: Receiver<T>) -> impl Stream<Item = T> {
    stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) })
}

/// The exit code for a result.
fn exit_code(result: &LineResult, invalid: Exit, verdict: impl Fn(&Examination) -> Exit) -> Exit {
    match result {
        LineResult::Checked(seen, _) => verdict(seen),
        LineResult::Passed(_, found) if found.is_undetermined() => Exit::Unknown,
        LineResult::Failed(..) => Exit::Unknown,
        LineResult::NotADomain(..) => invalid,
        LineResult::Passed(..) | LineResult::Repeated | LineResult::Unreadable(_) => Exit::Fine,
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
        LineResult::Failed(_, found, _) => tally.add_failed(*found),
        LineResult::NotADomain(..) => tally.add_invalid(),
        LineResult::Repeated => tally.add_repeated(),
        LineResult::Unreadable(_) => {}
    }
    None
}

/// Compares a result with the earlier run.
fn compare<'r>(since: &Since, result: &'r LineResult, counted: Option<&Counted>) -> Comparison<'r> {
    match result {
        LineResult::Checked(seen, found) => since.compare(seen.domain.as_str(), counted, *found),
        LineResult::Passed(domain, found) => since.compare(domain.as_str(), None, Some(*found)),
        LineResult::Failed(..)
        | LineResult::NotADomain(..)
        | LineResult::Repeated
        | LineResult::Unreadable(_) => Comparison::Same,
    }
}

/// The line of the output for a result; `None` for one without a line.
fn line(result: &LineResult) -> Option<String> {
    Some(match result {
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
        LineResult::Passed(domain, first_pass) => without_check(domain, Some(*first_pass), None),
        LineResult::Failed(domain, first_pass, why) => without_check(domain, *first_pass, Some(why)),
        LineResult::NotADomain(text, error) => serde_json::json!({
            "schema": 1, "typed": text,
            "findings": [{"check": Check::DomSyntax, "severity": Severity::Error,
                "what": format!("{text:?} is not a domain: {error}")}],
        })
        .to_string(),
        LineResult::Repeated | LineResult::Unreadable(_) => return None,
    })
}

/// The line of a domain without a result of a check.
fn without_check(domain: &DomainName, first_pass: Option<FirstPass>, failed: Option<&str>) -> String {
    #[derive(serde::Serialize)]
    struct Line<'e> {
        schema: u32,
        domain: &'e str,
        #[serde(skip_serializing_if = "Option::is_none")]
        first_pass: Option<FirstPass>,
        #[serde(skip_serializing_if = "Option::is_none")]
        failed: Option<&'e str>,
        findings: [u8; 0],
    }
    let line = Line { schema: 1, domain: domain.as_str(), first_pass, failed, findings: [] };
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests;
