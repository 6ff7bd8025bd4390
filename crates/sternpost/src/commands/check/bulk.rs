//! `sternpost check --from`: checks a list of domains concurrently. It writes a line of JSON for each domain as soon as
//! the domain is checked, and a summary table to standard error at the end. Memory does not grow with the output.

use super::worse;
use check::render::forms;
use check::{Check, Checker, Examination, Severity};
use config::failure::{Exit, Failure};
use formats::domain::DomainError;
use formats::{DomainName, Mode};
use futures_util::stream::{self, Stream, StreamExt};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The options of a bulk check.
pub struct BulkCheck<'m> {
    /// A file with a domain on each line, or `-` for standard input.
    pub from: &'m Path,
    /// The file that output is appended to; domains that are already in it are skipped. `None` for standard output.
    pub resume: Option<&'m Path>,
    /// Number of domains that are checked at the same time.
    pub concurrency: usize,
}

/// Checks all domains. `verdict` maps an examination to an exit code; the worst one is returned.
pub async fn run(
    many: &BulkCheck<'_>,
    checker: Arc<Checker>,
    verdict: impl Fn(&Examination) -> Exit,
) -> Result<Exit, Failure> {
    let (mut out, done) = output(many.resume)?;
    let total = count(many.from)?;
    let mut tally = Tally::new(total, done.len());
    let typed = read_beside(open(many.from)?, many.concurrency);
    let looks = typed.map(|line| {
        let checker = checker.clone();
        let is_done = line.as_ref().is_ok_and(|text| done.contains(&digest(text)));
        async move {
            let text = match line {
                Ok(text) => text,
                Err(error) => return Some(LineResult::Unreadable(error)),
            };
            match DomainName::parse(&text) {
                _ if is_done => None,
                Ok(domain) => {
                    // A spawned task, so that all cores are used.
                    let task = tokio::spawn(async move { checker.examine(&domain).await });
                    task.await.ok().map(|seen| LineResult::Seen(Box::new(seen)))
                }
                Err(error) => Some(LineResult::NoDomain(text, error)),
            }
        }
    });
    let mut looks = std::pin::pin!(looks.buffer_unordered(many.concurrency));
    let mut exit = Exit::Fine;
    while let Some(outcome) = looks.next().await {
        let line = match outcome {
            None => continue,
            Some(LineResult::Unreadable(error)) => return Err(unreadable(many.from, error)),
            Some(LineResult::Seen(seen)) => {
                exit = worse(exit, verdict(&seen));
                tally.add(&seen);
                forms::json(&seen)
            }
            Some(LineResult::NoDomain(text, error)) => {
                tally.invalid += 1;
                exit = worse(exit, Exit::Findings);
                serde_json::json!({
                    "schema": 1, "typed": text,
                    "findings": [{"check": Check::DomSyntax, "severity": Severity::Error,
                        "what": format!("{text:?} is not a domain: {error}")}],
                })
                .to_string()
            }
        };
        writeln!(out, "{line}").map_err(|error| {
            let remedy = "The output so far is valid; run the command again with --resume FILE to continue.";
            Failure::new("the output can't be written", error, remedy)
        })?;
        tally.show_progress();
    }
    out.flush().map_err(|error| Failure::new("the output can't be written", error, ""))?;
    tally.end();
    Ok(exit)
}

/// The result of a line of the list.
enum LineResult {
    Seen(Box<Examination>),
    NoDomain(String, DomainError),
    Unreadable(std::io::Error),
}

/// Reads the domains of a list in a thread, so that slow standard input does not block the checks. Invalid UTF-8 in a
/// line does not end the list.
fn read_beside(list: Box<dyn BufRead + Send>, ahead: usize) -> impl Stream<Item = std::io::Result<String>> {
    let (send, receive) = tokio::sync::mpsc::channel(ahead);
    std::thread::spawn(move || {
        for line in list.split(b'\n') {
            let text = line.map(|line| domain_of(&String::from_utf8_lossy(&line)));
            let is_empty = text.as_ref().is_ok_and(String::is_empty);
            let is_last = text.is_err();
            if !is_empty && send.blocking_send(text).is_err() || is_last {
                return;
            }
        }
    });
    stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) })
}

/// The domain in a line. Comments begin with `#`; in a table, the first column with a dot is the domain.
fn domain_of(line: &str) -> String {
    let text = line.split('#').next().unwrap_or_default();
    let column = text
        .split([',', '\t', ';'])
        .map(|column| column.trim().trim_matches('"'))
        .find(|column| column.contains('.'));
    column.unwrap_or(text.trim()).to_owned()
}

fn open(from: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if from == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(from).map_err(|error| unreadable(from, error))?;
    Ok(Box::new(BufReader::new(file)))
}

fn unreadable(from: &Path, error: std::io::Error) -> Failure {
    Failure::usage(
        format!("{} can't be read", from.display()),
        error,
        "Give a file with a domain on each line, or - for standard input.",
    )
}

/// How many lines a file has, for the estimate; `None` for standard input.
fn count(from: &Path) -> Result<Option<usize>, Failure> {
    if from == Path::new("-") {
        return Ok(None);
    }
    Ok(Some(
        open(from)?.split(b'\n').map_while(Result::ok).filter(|line| !line.trim_ascii().is_empty()).count(),
    ))
}

/// A hash of a domain, so that a million of them take eight bytes each.
fn digest(text: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    match DomainName::parse(text) {
        Ok(domain) => domain.as_str().hash(&mut hasher),
        Err(_) => text.hash(&mut hasher),
    }
    hasher.finish()
}

/// Opens the output, and returns the hashes of the domains that are already in it. An incomplete last line, left by a
/// crash, is removed.
fn output(resume: Option<&Path>) -> Result<(Box<dyn Write>, HashSet<u64>), Failure> {
    let Some(path) = resume else {
        return Ok((Box::new(std::io::LineWriter::new(std::io::stdout())), HashSet::new()));
    };
    let fail = |error: std::io::Error| {
        Failure::usage(format!("{} can't be used", path.display()), error, "Name another file with --resume.")
    };
    let mut file = File::options().read(true).append(true).create(true).open(path).map_err(fail)?;
    let mut done = HashSet::new();
    let mut whole = 0;
    let mut reader = BufReader::new(&mut file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(fail)? > 0 {
        if line.ends_with(b"\n") {
            whole += line.len() as u64;
            let parsed: Option<serde_json::Value> = serde_json::from_slice(&line).ok();
            let name = parsed
                .as_ref()
                .and_then(|line| line.get("domain").or(line.get("typed")))
                .and_then(|name| name.as_str());
            done.extend(name.map(digest));
        }
        line.clear();
    }
    file.set_len(whole).map_err(fail)?;
    Ok((Box::new(std::io::LineWriter::new(file)), done))
}

/// The results so far, for the progress line and the summary.
struct Tally {
    begun: Instant,
    shown_at: Option<Instant>,
    total: Option<usize>,
    skipped: usize,
    done: usize,
    invalid: usize,
    modes: BTreeMap<&'static str, usize>,
    checks: BTreeMap<Check, (Severity, usize)>,
    shown: bool,
}

impl Tally {
    fn new(total: Option<usize>, skipped: usize) -> Self {
        Self {
            begun: Instant::now(),
            shown_at: None,
            total,
            skipped,
            done: 0,
            invalid: 0,
            modes: BTreeMap::new(),
            checks: BTreeMap::new(),
            shown: std::io::stderr().is_terminal(),
        }
    }

    fn add(&mut self, seen: &Examination) {
        self.done += 1;
        let mode = match seen.mode {
            _ if seen.is_incomplete() => "undetermined",
            Mode::Enforce => "enforce",
            Mode::Testing => "testing",
            Mode::None => "no policy, or mode none",
        };
        *self.modes.entry(mode).or_default() += 1;
        let mut counted = HashSet::new();
        for finding in seen.findings.iter().filter(|finding| finding.severity != Severity::Info) {
            if counted.insert(finding.check) {
                let entry = self.checks.entry(finding.check).or_insert((finding.severity, 0));
                entry.0 = entry.0.min(finding.severity);
                entry.1 += 1;
            }
        }
    }

    /// Updates the progress line on a terminal, at most every 250 ms.
    fn show_progress(&mut self) {
        let soon = self.shown_at.is_some_and(|at| at.elapsed() < Duration::from_millis(250));
        if !self.shown || soon {
            return;
        }
        self.shown_at = Some(Instant::now());
        let rate = self.done as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let left = self.total.map(|total| total.saturating_sub(self.skipped + self.done));
        let estimate = match left {
            Some(left) => {
                format!(" of {}, {} left", self.total.unwrap_or(0), span(left as f64 / rate.max(0.001)))
            }
            None => String::new(),
        };
        eprint!("\r\x1b[K{}{estimate}, {rate:.0}/s", self.skipped + self.done);
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
        let took = self.begun.elapsed();
        eprintln!(
            "{} domains in {} ({:.1}/s){}{}",
            self.done,
            span(took.as_secs_f64()),
            self.done as f64 / took.as_secs_f64().max(0.001),
            if self.skipped > 0 {
                format!(", {} skipped as already done", self.skipped)
            } else {
                String::new()
            },
            if self.invalid > 0 {
                format!(", {} lines without a valid domain", self.invalid)
            } else {
                String::new()
            },
        );
        for (mode, count) in &self.modes {
            eprintln!("  {count:>9}  {mode}");
        }
        let mut checks: Vec<_> = self.checks.iter().collect();
        checks.sort_by_key(|(check, (severity, count))| (*severity, std::cmp::Reverse(*count), **check));
        for (check, (severity, count)) in checks.iter().take(20) {
            eprintln!("  {count:>9}  {:<8} {check:<22} {}", forms::severity_label(*severity), check.about());
        }
    }
}

fn span(seconds: f64) -> String {
    match seconds as u64 {
        short @ 0..60 => format!("{short} s"),
        minutes @ 60..3600 => format!("{} min", minutes / 60),
        hours => format!("{} h {} min", hours / 3600, hours % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_several_formats_are_read() {
        for (line, domain) in [
            ("example.org", "example.org"),
            ("  Example.org \r", "Example.org"),
            ("17,example.org", "example.org"),
            ("\"example.org\";x", "example.org"),
            ("example.org # ours", "example.org"),
            ("# all of them", ""),
            ("", ""),
            ("not a domain", "not a domain"),
        ] {
            assert_eq!(domain_of(line), domain, "{line:?}");
        }
    }

    #[test]
    fn an_incomplete_last_line_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "{\"domain\":\"a.example\"}\n{\"domain\":\"b.exa").unwrap();
        let (mut out, done) = output(Some(&path)).unwrap();
        assert!(done.contains(&digest("A.example")) && done.len() == 1);
        writeln!(out, "next").unwrap();
        drop(out);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"domain\":\"a.example\"}\nnext\n");
    }

    #[test]
    fn spans_are_printed_in_a_fitting_unit() {
        assert_eq!((span(5.9), span(61.0), span(7322.0)), ("5 s".into(), "1 min".into(), "2 h 2 min".into()));
    }
}
