//! An examination for programs: JSON, JUnit, Nagios and Prometheus.

use crate::catalogue::{Check, Severity};
use crate::finding::{Examination, Finding};
use std::fmt::Write;

/// One line of JSON, in the shape of docs/check.schema.json.
pub fn json(seen: &Examination) -> String {
    #[derive(serde::Serialize)]
    struct Line<'e> {
        schema: u32,
        #[serde(flatten)]
        seen: &'e Examination,
    }
    serde_json::to_string(&Line { schema: 1, seen }).unwrap_or_default()
}

/// The state of a service as monitoring plugins report it; the numbers are their exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginState {
    /// Neither errors nor warnings.
    Ok = 0,
    /// Warnings.
    Warning = 1,
    /// Errors.
    Critical = 2,
    /// The domain could not be checked.
    Unknown = 3,
}

/// The plugin state that the findings amount to.
pub fn plugin_state(seen: &Examination) -> PluginState {
    match (seen.count(Severity::Error), seen.count(Severity::Warning)) {
        _ if seen.is_blind() => PluginState::Unknown,
        (0, 0) => PluginState::Ok,
        (0, _) => PluginState::Warning,
        _ => PluginState::Critical,
    }
}

/// A plugin's line: the state, the verdict, and counts behind a bar.
pub fn nagios(seen: &Examination) -> String {
    let state = match plugin_state(seen) {
        PluginState::Ok => "OK",
        PluginState::Warning => "WARNING",
        PluginState::Critical => "CRITICAL",
        PluginState::Unknown => "UNKNOWN",
    };
    let verdict = seen.verdict.replace('|', "/").replace('\n', " ");
    format!(
        "STERNPOST {state} - {verdict} | errors={} warnings={} passed={}",
        seen.count(Severity::Error),
        seen.count(Severity::Warning),
        seen.passed.len()
    )
}

/// One test suite a domain, one test a check.
pub fn junit<'e>(all: impl Iterator<Item = &'e Examination>, warnings_fail: bool) -> String {
    let mut out =
        String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"sternpost check\">\n");
    for seen in all {
        let fails = |finding: &&Finding| {
            finding.severity == Severity::Error || warnings_fail && finding.severity == Severity::Warning
        };
        let failures = seen.findings.iter().filter(fails).count();
        let tests = seen.findings.len() + seen.passed.len();
        let name = xml(seen.domain.as_str());
        let _ = writeln!(out, "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\">");
        for check in &seen.passed {
            let _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"{check}\"/>");
        }
        for finding in &seen.findings {
            let told = format!("{}\n{}\n{}", finding.what, finding.why, finding.remedy.join("\n"));
            let (tag, attributes) = match fails(&finding) {
                true => (
                    "failure",
                    format!(" type=\"{}\" message=\"{}\"", word(finding.severity), xml(&finding.what)),
                ),
                false => ("system-out", String::new()),
            };
            let _ = writeln!(
                out,
                "    <testcase classname=\"{name}\" name=\"{}\"><{tag}{attributes}>{}</{tag}></testcase>",
                finding.check,
                xml(&told)
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out + "</testsuites>\n"
}

/// Text for XML 1.0; characters that it can't have become U+FFFD.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\r' => out.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Metrics in the text format of Prometheus.
pub fn prometheus<'e>(all: impl Iterator<Item = &'e Examination>) -> String {
    let all: Vec<&Examination> = all.collect();
    let mut out = String::from(
        "# HELP sternpost_check_findings Findings of the last look, by severity.\n# TYPE sternpost_check_findings gauge\n",
    );
    for seen in &all {
        for severity in [Severity::Error, Severity::Warning, Severity::Info] {
            let _ = writeln!(
                out,
                "sternpost_check_findings{{domain=\"{}\",severity=\"{}\"}} {}",
                seen.domain,
                word(severity),
                seen.count(severity)
            );
        }
    }
    out.push_str(
        "# HELP sternpost_check_finding A check that tripped.\n# TYPE sternpost_check_finding gauge\n",
    );
    for seen in &all {
        let mut tripped: Vec<(Check, Severity)> =
            seen.findings.iter().map(|finding| (finding.check, finding.severity)).collect();
        // A check can trip at several hosts, with the worst of them first; a series stands once.
        tripped.sort_by_key(|(check, severity)| (*check, *severity));
        tripped.dedup_by_key(|(check, _)| *check);
        for (check, severity) in tripped.iter().filter(|(_, severity)| *severity != Severity::Info) {
            let _ = writeln!(
                out,
                "sternpost_check_finding{{domain=\"{}\",check=\"{check}\",severity=\"{}\"}} 1",
                seen.domain,
                word(*severity)
            );
        }
    }
    out.push_str("# HELP sternpost_check_mode The mode of the policy that binds new senders.\n# TYPE sternpost_check_mode gauge\n");
    for seen in &all {
        let _ = writeln!(out, "sternpost_check_mode{{domain=\"{}\",mode=\"{}\"}} 1", seen.domain, seen.mode);
    }
    out
}

/// The severity in JSON, JUnit and metrics.
pub fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_holds_whatever_a_server_said() {
        assert_eq!(xml("a<b & \"c\"\u{0}\u{1b}"), "a&lt;b &amp; &quot;c&quot;\u{fffd}\u{fffd}");
    }
}
