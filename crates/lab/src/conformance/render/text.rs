//! The report for terminals, and the list of cases.

use crate::conformance::case::{Case, Group, Level, Without};
use crate::conformance::oracle::Outcome;
use crate::conformance::report::{CaseResult, Difference, Report};
use std::fmt::Write;

/// The line of one case: outcome, name and reason.
pub fn line(case: &CaseResult) -> String {
    let mark = match case.outcome {
        Outcome::Conforms => "ok  ",
        Outcome::DoesMore => "more",
        Outcome::NotObservable => "n/o ",
        Outcome::LabFailed => "LAB ",
        Outcome::Violates => "FAIL",
    };
    let level = if case.outcome == Outcome::Violates { case.level.as_str() } else { "" };
    let why = case.why.as_deref().unwrap_or(&case.about);
    format!("{mark} {level:<8} {:<32} {why}", case.id)
}

/// The counts and the score.
pub fn summary(report: &Report) -> String {
    let mut out = format!("{}: {} cases", report.server, report.cases.len());
    for outcome in [Outcome::Conforms, Outcome::DoesMore] {
        let _ = write!(out, ", {} {}", report.count(outcome), outcome.words(Level::Must));
    }
    for level in [Level::Security, Level::Must, Level::Should, Level::May] {
        let count = report
            .cases
            .iter()
            .filter(|case| case.outcome == Outcome::Violates && case.level == level)
            .count();
        if count > 0 {
            let _ = write!(out, ", {count} violate ({})", level.as_str());
        }
    }
    for outcome in [Outcome::NotObservable, Outcome::LabFailed] {
        let count = report.count(outcome);
        if count > 0 {
            let _ = write!(out, ", {count} {}", outcome.words(Level::Must));
        }
    }
    let score = report.score;
    let _ = writeln!(
        out,
        "\nScore: {} of {} cases that a sender without MTA-STS and DANE does not pass",
        score.conforming, score.judged
    );
    out
}

/// The differences from an older run, one line each.
pub fn differences(all: &[Difference]) -> String {
    let words = |outcome: Option<Outcome>| {
        outcome.map_or("no such case".to_owned(), |outcome| outcome.words(Level::Must))
    };
    let words = |outcome| words(outcome).replace("violates (MUST)", "violates");
    let mut out = String::new();
    for one in all {
        let _ = writeln!(out, "{:<32} {} -> {}", one.id, words(one.before), words(one.now));
    }
    if all.is_empty() {
        out.push_str("No case has another outcome than before.\n");
    }
    out
}

/// All cases, group by group.
pub fn list(cases: &[Case]) -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let _ = writeln!(out, "{}{}", if out.is_empty() { "" } else { "\n" }, group.as_str());
        for case in cases.iter().filter(|case| case.group == group) {
            let counts = if case.without == Without::FallsShort { "*" } else { " " };
            let _ = writeln!(out, "{counts} {:<32} {:<8} {}", case.id, case.level.as_str(), case.about);
        }
    }
    let discriminating = cases.iter().filter(|case| case.without == Without::FallsShort).count();
    let _ = writeln!(
        out,
        "\n{} cases. Those with * ({discriminating}) count in the score: a sender without MTA-STS and DANE does not pass them.",
        cases.len()
    );
    out
}

/// What one case is about.
pub fn explain(case: &Case) -> String {
    let mut out = format!("{}: {}\n", case.id, case.about);
    let _ = writeln!(out, "  domain       {}", case.domain());
    let _ = writeln!(out, "  source       {} ({})", case.source, case.level.as_str());
    for (at, phase) in case.phases.iter().enumerate() {
        let _ = writeln!(out, "  message {}    {}", at + 1, phase.sentence());
        for change in &phase.changes {
            let _ = writeln!(out, "    before it  {change:?}");
        }
        if !phase.beyond.is_empty() {
            let words: Vec<&str> = phase.beyond.iter().map(|fate| fate.as_str()).collect();
            let _ = writeln!(out, "    more       {}", words.join(" or "));
        }
    }
    for (at, day) in case.days.iter().enumerate() {
        let _ = writeln!(out, "  day {}        {} messages, then {}", at + 1, day.messages, day.sentence());
    }
    let without = match case.without {
        Without::Conforms => "conforms as well; the case does not count in the score",
        Without::FallsShort => "falls short; the case counts in the score",
        Without::Either => "may conform or fall short; the case does not count in the score",
    };
    let _ = writeln!(out, "  a sender without MTA-STS and DANE {without}");
    out
}
