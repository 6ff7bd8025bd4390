//! A page to send to a colleague: one file, nothing fetched from anywhere.

use crate::catalogue::Severity;
use crate::finding::{Examination, Finding};
use crate::senders::{name, word};
use askama::Template;
use jiff::Timestamp;
use std::time::Duration;

/// The style sheet of this page and of the dashboard.
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
    /// Class, word, finding; what needs someone.
    found: Vec<(&'static str, &'static str, &'p Finding)>,
    /// What is good to know.
    info: Vec<&'p Finding>,
    senders: Vec<Sender>,
}

struct Sender {
    name: &'static str,
    summary: String,
    hosts: Vec<(String, &'static str)>,
}

/// The page as HTML.
pub fn render(all: &[(Examination, Duration)], now: Timestamp) -> Result<String, askama::Error> {
    let names: Vec<&str> = all.iter().map(|(seen, _)| seen.domain.as_str()).collect();
    Page {
        title: format!("Mail transport security of {}", names.join(", ")),
        now: now.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        version: env!("CARGO_PKG_VERSION"),
        all: all.iter().map(|(seen, took)| looked(seen, *took)).collect(),
    }
    .render()
}

/// The class and the word of a severity on a page.
pub fn mark(severity: Severity) -> (&'static str, &'static str) {
    match severity {
        Severity::Error => ("failing", "✗ error"),
        Severity::Warning => ("waiting", "! warning"),
        Severity::Info => ("way", "· information"),
    }
}

fn looked(seen: &Examination, took: Duration) -> CheckPage<'_> {
    let (info, found): (Vec<&Finding>, Vec<&Finding>) =
        seen.findings.iter().partition(|finding| finding.severity == Severity::Info);
    let is_sender = |finding: &&Finding| finding.check.id().starts_with("SENDER-");
    let senders = seen.senders.iter().map(|view| Sender {
        name: name(view.sender),
        summary: view.summary.clone(),
        hosts: view.hosts.iter().map(|host| (host.host.to_string(), word(host.outcome))).collect(),
    });
    CheckPage {
        seen,
        took: format!("{:.1}", took.as_secs_f32()),
        found: found
            .into_iter()
            .map(|finding| (mark(finding.severity).0, mark(finding.severity).1, finding))
            .collect(),
        info: info.into_iter().filter(|finding| !is_sender(finding)).collect(),
        senders: senders.collect(),
    }
}
