//! The report of a check as an HTML page: a single file without external resources, suitable for mailing.

use crate::catalogue::Severity;
use crate::finding::{Examination, Finding};
use crate::senders::{SenderView, name, outcome_label};
use askama::Template;
use jiff::Timestamp;
use std::time::Duration;

/// The CSS of this page, which the dashboard uses too.
pub const STYLE: &str = include_str!("../../templates/style.css");

#[derive(Template)]
#[template(path = "check_page.html")]
struct Page<'p> {
    title: String,
    now: String,
    version: &'static str,
    /// Whether the page is one of the public check: it then links to its other pages.
    is_public: bool,
    all: Vec<CheckPage<'p>>,
}

struct CheckPage<'p> {
    seen: &'p Examination,
    took: String,
    /// Errors and warnings: CSS class, label, finding.
    found: Vec<(&'static str, &'static str, &'p Finding)>,
    /// Informational findings, without those about senders.
    info: Vec<&'p Finding>,
    senders: Vec<SenderRow>,
}

/// What one kind of sender does with mail for the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SenderRow {
    /// The kind of sender, such as `A sender that honors MTA-STS`.
    pub name: String,
    /// What it does, in words.
    pub summary: String,
    /// The outcome at each MX host.
    pub hosts: Vec<(String, &'static str)>,
}

/// What each kind of sender does, for a table.
pub fn sender_rows(seen: &Examination) -> Vec<SenderRow> {
    let row = |view: &SenderView| SenderRow {
        name: sentence(name(view.sender)),
        summary: view.summary.clone(),
        hosts: view.hosts.iter().map(|host| (host.host.to_string(), outcome_label(host.outcome))).collect(),
    };
    seen.senders.iter().map(row).collect()
}

/// True for a finding that the table of [`sender_rows`] has.
pub fn is_about_sender(finding: &Finding) -> bool {
    finding.check.id().starts_with("SENDER-")
}

/// A phrase with a capital letter, unless it begins with a name such as `mx1.example.org`.
pub fn sentence(phrase: &str) -> String {
    let first = phrase.split_whitespace().next().unwrap_or_default().trim_end_matches(['.', ':', ',']);
    if first.contains('.') || first.starts_with('_') {
        return phrase.to_owned();
    }
    let mut letters = phrase.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

/// Lines of a remedy that are copied together: a file, a record or a command.
#[derive(Debug, PartialEq, Eq)]
pub struct RemedyBlock<'r> {
    /// What to do with the lines; empty if the finding says it.
    pub about: &'r str,
    /// What to copy: the lines of the file, the record or the command, without their line ends.
    pub lines: Vec<&'r str>,
}

impl RemedyBlock<'_> {
    /// The name of the block for screen readers, after that of the finding.
    pub fn label(&self) -> String {
        if self.about.is_empty() { String::new() } else { format!(": {}", self.about) }
    }
}

/// The parts of a remedy, each of which begins with a line such as `# 2. Then publish this record`.
pub fn remedy_blocks(remedy: &[String]) -> Vec<RemedyBlock<'_>> {
    let mut blocks: Vec<RemedyBlock<'_>> = Vec::new();
    for line in remedy {
        match (line.strip_prefix("# "), blocks.last_mut()) {
            (Some(about), _) => {
                blocks.push(RemedyBlock { about: about.trim_end_matches(':'), lines: Vec::new() });
            }
            (None, Some(last)) => last.lines.push(line),
            (None, None) => blocks.push(RemedyBlock { about: "", lines: vec![line.as_str()] }),
        }
    }
    blocks
}

/// The parts of a sentence, and whether each is code, which the sentence has between backticks. A backtick without a second
/// one is text.
pub fn prose(text: &str) -> Vec<(bool, &str)> {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return vec![(false, text)];
    }
    let kinds = parts.into_iter().enumerate().map(|(at, part)| (at % 2 == 1, part));
    kinds.filter(|(_, part)| !part.is_empty()).collect()
}

/// Renders the page for one or more examinations, each with the time that it took.
pub fn render(all: &[(Examination, Duration)], now: Timestamp) -> Result<String, askama::Error> {
    render_with(all, now, false)
}

/// Renders the page as one of the public check, which has links to the check and to the history of the domain.
pub fn render_public(seen: (Examination, Duration), now: Timestamp) -> Result<String, askama::Error> {
    render_with(&[seen], now, true)
}

fn render_with(
    all: &[(Examination, Duration)],
    now: Timestamp,
    is_public: bool,
) -> Result<String, askama::Error> {
    let names: Vec<&str> = all.iter().map(|(seen, _)| seen.domain.as_str()).collect();
    Page {
        title: format!("Mail transport security of {}", names.join(", ")),
        now: now.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        version: env!("CARGO_PKG_VERSION"),
        is_public,
        all: all.iter().map(|(seen, took)| check_page(seen, *took)).collect(),
    }
    .render()
}

/// The CSS class and the label of a severity.
pub fn mark(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Error => ("failing", "✗ Error"),
        Severity::Warning => ("waiting", "! Warning"),
        Severity::Info => ("way", "· Information"),
    }
}

fn check_page(seen: &Examination, took: Duration) -> CheckPage<'_> {
    let (info, found): (Vec<&Finding>, Vec<&Finding>) =
        seen.findings.iter().partition(|finding| finding.severity == Severity::Info);
    CheckPage {
        seen,
        took: format!("{:.1}", took.as_secs_f32()),
        found: found
            .into_iter()
            .map(|finding| (mark(finding.severity).0, mark(finding.severity).1, finding))
            .collect(),
        info: info.into_iter().filter(|finding| !is_about_sender(finding)).collect(),
        senders: sender_rows(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_of_a_file_a_record_and_a_command_is_three_blocks_to_copy() {
        let lines =
            ["# 1. Serve this file:", "version: STSv1", "mode: testing", "# 2. Then publish", "x. TXT"];
        let remedy = lines.map(str::to_owned);
        let block = |about, lines: &[&'static str]| RemedyBlock { about, lines: lines.to_vec() };
        assert_eq!(
            remedy_blocks(&remedy),
            [
                block("1. Serve this file", &["version: STSv1", "mode: testing"]),
                block("2. Then publish", &["x. TXT"])
            ]
        );
        let plain = ["certbot -d x   # or another".to_owned()];
        assert_eq!(remedy_blocks(&plain), [block("", &["certbot -d x   # or another"])]);
        assert_eq!(remedy_blocks(&[]), []);
    }

    #[test]
    fn text_between_backticks_is_code() {
        assert_eq!(prose("run `a b` now"), [(false, "run "), (true, "a b"), (false, " now")]);
        assert_eq!(prose("`a`"), [(true, "a")]);
        assert_eq!(prose("a ` b"), [(false, "a ` b")]);
        assert_eq!(prose("plain"), [(false, "plain")]);
    }
}
