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

/// Renders the page for one or more examinations, each with the time that it took.
pub fn render(all: &[(Examination, Duration)], now: Timestamp) -> Result<String, askama::Error> {
    let names: Vec<&str> = all.iter().map(|(seen, _)| seen.domain.as_str()).collect();
    Page {
        title: format!("Mail transport security of {}", names.join(", ")),
        now: now.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        version: env!("CARGO_PKG_VERSION"),
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
