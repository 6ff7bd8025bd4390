//! Several reports as one page: the servers side by side.

use crate::conformance::case::{Group, Level, Without};
use crate::conformance::oracle::Outcome;
use crate::conformance::report::{CaseResult, Report};
use formats::markup::table_cell;
use std::fmt::Write;

/// The page in Markdown: a line for each server, the cases in which not all servers conform, and each violation with its
/// reason.
pub fn senders(reports: &[Report]) -> String {
    let mut out = overview(reports);
    out += "\n## Cases that tell servers apart\n\n";
    out += "`*` marks the cases that count in the score. **ok**: conforms, more: does more than asked, n/o: not observable, LAB: the lab\nfailed; a level stands for a violation of that level. All servers conform in the cases that are not listed.\n\n";
    out += &matrix(reports);
    for (number, report) in reports.iter().enumerate() {
        out += &details(number + 1, report);
    }
    out
}

fn overview(reports: &[Report]) -> String {
    let mut out = String::from(
        "| | server | score | conforms | more | violates security | MUST | SHOULD | not observable | lab failed |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (at, report) in reports.iter().enumerate() {
        let at_level = |level| report.violations(level).filter(|case| case.level == level).count();
        let _ = writeln!(
            out,
            "| {} | {} | {} of {} | {} | {} | {} | {} | {} | {} | {} |",
            at + 1,
            table_cell(&report.server),
            report.score.conforming,
            report.score.judged,
            report.count(Outcome::Conforms),
            report.count(Outcome::DoesMore),
            at_level(Level::Security),
            at_level(Level::Must),
            at_level(Level::Should),
            report.count(Outcome::NotObservable),
            report.count(Outcome::LabFailed),
        );
    }
    out
}

fn find<'r>(report: &'r Report, id: &str) -> Option<&'r CaseResult> {
    report.cases.iter().find(|case| case.id == id)
}

fn matrix(reports: &[Report]) -> String {
    let Some(first) = reports.first() else { return String::new() };
    let mut out = String::new();
    for group in Group::ALL {
        let differs = |case: &&CaseResult| {
            case.group == group
                && reports
                    .iter()
                    .any(|report| find(report, &case.id).is_none_or(|case| case.outcome != Outcome::Conforms))
        };
        let cases: Vec<&CaseResult> = first.cases.iter().filter(differs).collect();
        if cases.is_empty() {
            continue;
        }
        let columns: String = (1..=reports.len()).map(|number| format!(" {number} |")).collect();
        let rule: String = reports.iter().map(|_| " --- |").collect();
        let _ = write!(out, "### {}\n\n| case | |{columns}\n| --- | --- |{rule}\n", group.as_str());
        for case in cases {
            let mark = if case.without == Without::FallsShort { "\\*" } else { "" };
            let words: String =
                reports.iter().map(|report| format!(" {} |", word(find(report, &case.id)))).collect();
            let _ = writeln!(out, "| {}{mark} | {} |{words}", case.id, table_cell(&case.about));
        }
        out.push('\n');
    }
    out
}

fn word(case: Option<&CaseResult>) -> &'static str {
    let Some(case) = case else { return "" };
    match case.outcome {
        Outcome::Conforms => "**ok**",
        Outcome::DoesMore => "more",
        Outcome::NotObservable => "n/o",
        Outcome::LabFailed => "LAB",
        Outcome::Violates => case.level.as_str(),
    }
}

/// The cases of one server that do not conform. A server that knows no MTA-STS would have a line for each of its cases, which
/// say nothing more than the table, and likewise for DANE: of the cases that count in the score, only those are listed of
/// which the server passes half.
fn details(number: usize, report: &Report) -> String {
    let passes_half = |of_dane: bool| {
        let counts = |case: &&CaseResult| {
            case.without == Without::FallsShort && (case.group == Group::Dane) == of_dane
        };
        let passed = |case: &&CaseResult| matches!(case.outcome, Outcome::Conforms | Outcome::DoesMore);
        let all = report.cases.iter().filter(counts);
        all.clone().filter(passed).count() * 2 > all.count()
    };
    let (policies, dane) = (passes_half(false), passes_half(true));
    let wrong = |case: &&CaseResult| {
        let is_known = if case.group == Group::Dane { dane } else { policies };
        case.outcome != Outcome::Conforms && (is_known || case.without == Without::Conforms)
    };
    let cases: Vec<&CaseResult> = report.cases.iter().filter(wrong).collect();
    let mut out = String::new();
    if cases.is_empty() {
        return out;
    }
    let _ = write!(out, "## {number}. {}\n\n", report.server);
    for case in cases {
        let _ = writeln!(
            out,
            "- `{}` ({}, {}): {}. {}: {}.",
            case.id,
            case.source,
            case.level.as_str(),
            case.about,
            case.outcome.words(case.level),
            case.why.as_deref().unwrap_or_default()
        );
    }
    out.push('\n');
    out
}
