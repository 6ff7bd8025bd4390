//! The table of an [`Audit`] as text, Markdown and an HTML page of its own.

use crate::audit::{Audit, Item, Verdict};
use crate::profile::State;
use formats::markup::{escaped, table_cell};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h2{margin:1.6rem 0 .4rem;font-size:1.1rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;\
padding:.3rem .6rem .3rem 0;border-top:1px solid #d0d7de}th{font-weight:600}.met{color:#116329}.not-met{color:#a40e26}\
.not-applicable,.not-examined{color:#57606a}@media print{body{margin:0;font-size:11px}}\
@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}th,td{border-color:#30363d}.met{color:#56d364}\
.not-met{color:#ff7b72}.not-applicable,.not-examined{color:#8b949e}}";

/// What the last column of the table says about a row.
fn remarks(item: &Item) -> String {
    let found = item.findings.iter().map(|found| format!("{} ({})", found.what, found.check));
    item.note.map(str::to_owned).into_iter().chain(found).collect::<Vec<_>>().join("; ")
}

/// The counts as a sentence.
fn counts(audit: &Audit) -> String {
    let count = |verdict| audit.count(verdict);
    format!(
        "{} of {} requirements are met, {} are not met, {} do not apply, and {} were not examined.",
        count(Verdict::Met),
        audit.items.len(),
        count(Verdict::NotMet),
        count(Verdict::NotApplicable),
        count(Verdict::NotExamined)
    )
}

fn date(audit: &Audit) -> String {
    audit.time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn word(state: State) -> &'static str {
    match state {
        State::Met => "met",
        State::Failed => "not met",
        State::Unknown => "not known",
    }
}

/// The table for terminals.
pub fn text(audit: &Audit) -> String {
    let mut out = format!("{}, examined {} by sternpost {}\n", audit.domain, date(audit), audit.sternpost);
    let _ = writeln!(out, "{}\n{}", audit.summary, counts(audit));
    for rfc in audit.rfcs() {
        let _ = writeln!(out, "\n{rfc}");
        for item in audit.items.iter().filter(|item| item.rfc == rfc) {
            let _ = writeln!(
                out,
                "  {:<14} {:<6} {:<21} {}",
                item.verdict.as_str(),
                item.level.as_str(),
                item.id,
                item.asks
            );
            if let Some(note) = item.note {
                let _ = writeln!(out, "  {:<43} {note}", "");
            }
            for found in &item.findings {
                let _ = writeln!(out, "  {:<43} {} ({})", "", found.what, found.check);
            }
        }
    }
    out += "\nInternet.nl, mail test (an estimate)\n";
    for point in &audit.internet_nl {
        let _ = writeln!(out, "  {:<14} {}: {}", word(point.state), point.section, point.name);
    }
    out
}

/// The page in Markdown.
pub fn markdown(audit: &Audit) -> String {
    let mut out = format!(
        "# {}: MTA-STS, TLS reports and DANE\n\nExamined {} by sternpost {}.\n\n{} {}\n",
        audit.domain,
        date(audit),
        audit.sternpost,
        table_cell(&audit.summary),
        counts(audit)
    );
    for rfc in audit.rfcs() {
        let _ = write!(
            out,
            "\n## {rfc}\n\n| requirement | source | level | verdict | Internet.nl | remarks |\n| --- | --- | --- | --- | --- | --- |\n"
        );
        for item in audit.items.iter().filter(|item| item.rfc == rfc) {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                item.asks,
                item.source,
                item.level.as_str(),
                item.verdict.as_str(),
                item.internet_nl.join("; "),
                table_cell(&remarks(item))
            );
        }
    }
    out += "\n## Internet.nl, mail test (an estimate)\n\n| section | point | state |\n| --- | --- | --- |\n";
    for point in &audit.internet_nl {
        let _ = writeln!(out, "| {} | {} | {} |", point.section, point.name, word(point.state));
    }
    out
}

/// The page in HTML, a single file without external resources.
pub fn html(audit: &Audit) -> String {
    let domain = escaped(&audit.domain);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{domain}: MTA-STS, TLS reports and DANE</title>\n<style>{STYLE}</style>\n<h1>{domain}</h1>\n\
         <p>Examined {} by sternpost {}.</p>\n<p>{} {}</p>\n",
        date(audit),
        audit.sternpost,
        escaped(&audit.summary),
        counts(audit)
    );
    for rfc in audit.rfcs() {
        let _ = write!(
            out,
            "<h2>{rfc}</h2>\n<table><tr><th>Requirement<th>Source<th>Level<th>Verdict<th>Internet.nl<th>Remarks\n"
        );
        for item in audit.items.iter().filter(|item| item.rfc == rfc) {
            let class = item.verdict.as_str().replace(' ', "-");
            let _ = writeln!(
                out,
                "<tr id=\"{}\"><td>{}<td>{}<td>{}<td class=\"{class}\">{}<td>{}<td>{}",
                item.id,
                escaped(item.asks),
                item.source,
                item.level.as_str(),
                item.verdict.as_str(),
                item.internet_nl.join("; "),
                escaped(&remarks(item))
            );
        }
        out += "</table>\n";
    }
    out += "<h2>Internet.nl, mail test (an estimate)</h2>\n<table><tr><th>Section<th>Point<th>State\n";
    for point in &audit.internet_nl {
        let class = word(point.state).replace("not known", "not-examined").replace(' ', "-");
        let _ = writeln!(
            out,
            "<tr><td>{}<td>{}<td class=\"{class}\">{}",
            point.section,
            point.name,
            word(point.state)
        );
    }
    out + "</table>\n</html>\n"
}
