//! The report as a page of Markdown.

use super::text::summary;
use crate::conformance::case::{Group, Without};
use crate::conformance::oracle::Outcome;
use crate::conformance::report::Report;
use formats::markup::table_cell;
use std::fmt::Write;

/// The table of all cases. An asterisk marks those that count in the score.
pub fn markdown(report: &Report) -> String {
    let mut out = format!("# {}\n\n{}\n", report.server, summary(report).replace("\nScore", "\n\nScore"));
    for group in Group::ALL {
        let cases: Vec<_> = report.cases.iter().filter(|case| case.group == group).collect();
        if cases.is_empty() {
            continue;
        }
        let _ = write!(
            out,
            "## {}\n\n| case | level | source | domain | outcome |\n| --- | --- | --- | --- | --- |\n",
            group.as_str()
        );
        for case in cases {
            let mark = if case.without == Without::FallsShort { "\\*" } else { "" };
            let why = match (&case.why, case.outcome) {
                (Some(why), outcome) if outcome != Outcome::Conforms => format!(": {why}"),
                _ => String::new(),
            };
            let cells = [
                case.level.as_str().to_owned(),
                case.source.clone(),
                case.about.clone(),
                format!("{}{why}", case.outcome.words(case.level)),
            ];
            let cells: Vec<String> = cells.iter().map(|cell| table_cell(cell)).collect();
            let _ = writeln!(out, "| {}{mark} | {} |", case.id, cells.join(" | "));
        }
        out.push('\n');
    }
    out
}
