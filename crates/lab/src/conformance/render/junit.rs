//! The report as JUnit XML: a violation is a failure, what could not be judged is skipped, and a fault of the lab an error.

use crate::conformance::oracle::Outcome;
use crate::conformance::report::Report;
use formats::markup::escaped;
use std::fmt::Write;

/// The report as one test suite.
pub fn junit(report: &Report) -> String {
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
        escaped(&report.server),
        report.cases.len(),
        report.count(Outcome::Violates),
        report.count(Outcome::LabFailed),
        report.count(Outcome::NotObservable)
    );
    for case in &report.cases {
        let why = escaped(case.why.as_deref().unwrap_or_default());
        let inner = match case.outcome {
            Outcome::Conforms => String::new(),
            Outcome::DoesMore => format!("<system-out>does more than asked: {why}</system-out>"),
            Outcome::NotObservable => format!("<skipped message=\"{why}\"/>"),
            Outcome::LabFailed => format!("<error message=\"{why}\"/>"),
            Outcome::Violates => {
                format!(
                    "<failure type=\"{}\" message=\"{why}\">{}</failure>",
                    case.level.as_str(),
                    events(case)
                )
            }
        };
        let group = escaped(case.group.as_str());
        let _ = writeln!(
            out,
            "  <testcase classname=\"{group}\" name=\"{}\">{inner}</testcase>",
            escaped(&case.id)
        );
    }
    out + "</testsuite>\n"
}

fn events(case: &crate::conformance::report::CaseResult) -> String {
    let lines = case.phases.iter().flat_map(|phase| &phase.events);
    lines.map(|line| format!("{} ms {}\n", line.ms, escaped(&line.what))).collect()
}
