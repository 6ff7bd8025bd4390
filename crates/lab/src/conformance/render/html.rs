//! The report as one HTML page without scripts: a row for each case, which opens to what was seen on the wire.

use super::text::summary;
use crate::conformance::case::{Group, Without};
use crate::conformance::oracle::Outcome;
use crate::conformance::report::{CaseResult, Report};
use formats::markup::escaped;
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h2{margin:2rem 0 .5rem;font-size:1.1rem}details{border-top:1px solid #d0d7de;padding:.35rem 0}summary{cursor:pointer}\
b{display:inline-block;min-width:11rem;font-weight:600}.conforms{color:#116329}.does-more{color:#0550ae}.violates{color:#a40e26}\
.not-observable,.lab-failed{color:#6e7781}pre{overflow-x:auto;background:#f6f8fa;padding:.6rem;font-size:13px}code{font-weight:600}\
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}details{border-color:#30363d}pre{background:#161b22}\
.conforms{color:#56d364}.does-more{color:#79c0ff}.violates{color:#ff7b72}.not-observable,.lab-failed{color:#8b949e}}";

/// The page.
pub fn html(report: &Report) -> String {
    let server = escaped(&report.server);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n<title>{server}: MTA-STS and DANE</title>\n<style>{STYLE}</style>\n<h1>{server}</h1>\n"
    );
    for line in summary(report).lines() {
        let _ = writeln!(out, "<p>{}</p>", escaped(line));
    }
    for group in Group::ALL {
        let cases: Vec<&CaseResult> = report.cases.iter().filter(|case| case.group == group).collect();
        if !cases.is_empty() {
            let _ = writeln!(out, "<h2>{}</h2>", escaped(group.as_str()));
        }
        cases.iter().for_each(|case| row(&mut out, case));
    }
    out + "</html>\n"
}

fn row(out: &mut String, case: &CaseResult) {
    let class = match case.outcome {
        Outcome::Conforms => "conforms",
        Outcome::DoesMore => "does-more",
        Outcome::NotObservable => "not-observable",
        Outcome::LabFailed => "lab-failed",
        Outcome::Violates => "violates",
    };
    let _ = writeln!(
        out,
        "<details id=\"{id}\"><summary><b class=\"{class}\">{}</b> <code>{id}</code> {}</summary>",
        escaped(&case.outcome.words(case.level)),
        escaped(&case.about),
        id = escaped(&case.id),
    );
    let counts = if case.without == Without::FallsShort {
        "counts in the score"
    } else {
        "does not count in the score"
    };
    let _ = writeln!(
        out,
        "<p>{} ({}), {counts}.<br>Conforming: {}.",
        escaped(&case.source),
        case.level.as_str(),
        escaped(&case.expected)
    );
    if let Some(why) = &case.why {
        let _ = write!(out, "<br>Seen: {}.", escaped(why));
    }
    out.push_str("</p>\n");
    for (at, phase) in case.phases.iter().enumerate() {
        let _ = writeln!(out, "<p>Message {}: {}</p>\n<pre>", at + 1, phase.fate.as_str());
        for line in &phase.events {
            let _ = writeln!(out, "{:>7} ms  {}", line.ms, escaped(&line.what));
        }
        out.push_str("</pre>\n");
    }
    for (at, day) in case.days.iter().enumerate() {
        let _ = writeln!(out, "<p>Reports of day {}: {}</p>\n<pre>", at + 1, escaped(&day.expected));
        day.reports.iter().for_each(|line| {
            let _ = writeln!(out, "{}", escaped(line));
        });
        out.push_str("</pre>\n");
    }
    out.push_str("</details>\n");
}
