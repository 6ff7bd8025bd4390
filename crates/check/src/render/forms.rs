//! Formats of an examination for programs: JSON, JUnit XML, Nagios plugin output and Prometheus metrics.

use crate::catalogue::{Check, Severity};
use crate::finding::{Examination, Finding};
use std::fmt::Write;

/// One line of JSON that conforms to docs/check.schema.json.
pub fn json(seen: &Examination) -> String {
    #[derive(serde::Serialize)]
    struct Line<'e> {
        schema: u32,
        #[serde(flatten)]
        seen: &'e Examination,
    }
    serde_json::to_string(&Line { schema: 1, seen }).unwrap_or_default()
}

/// The service state of a monitoring plugin; the values are the exit codes of plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginState {
    /// No errors and no warnings.
    Ok = 0,
    /// Warnings but no errors.
    Warning = 1,
    /// At least one error.
    Critical = 2,
    /// A required DNS lookup failed, see [`Examination::is_incomplete`].
    Unknown = 3,
}

/// The plugin state for the most severe finding.
pub fn plugin_state(seen: &Examination) -> PluginState {
    match (seen.count(Severity::Error), seen.count(Severity::Warning)) {
        _ if seen.is_incomplete() => PluginState::Unknown,
        (0, 0) => PluginState::Ok,
        (0, _) => PluginState::Warning,
        _ => PluginState::Critical,
    }
}

/// The output line of a plugin: state, verdict, and performance data after `|`.
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

/// A JUnit XML document with one test suite per domain and one test case per check. Errors are failures, and
/// warnings too with `warnings_fail`.
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
            let cause =
                finding.cause.as_ref().map(|cause| format!("Cause: {}\n", cause.what)).unwrap_or_default();
            let text = format!("{}\n{cause}{}\n{}", finding.what, finding.why, finding.remedy.join("\n"));
            let (tag, attributes) = match fails(&finding) {
                true => (
                    "failure",
                    format!(
                        " type=\"{}\" message=\"{}\"",
                        severity_label(finding.severity),
                        xml(&finding.what)
                    ),
                ),
                false => ("system-out", String::new()),
            };
            let _ = writeln!(
                out,
                "    <testcase classname=\"{name}\" name=\"{}\"><{tag}{attributes}>{}</{tag}></testcase>",
                finding.check,
                xml(&text)
            );
        }
        out.push_str("  </testsuite>\n");
    }
    out + "</testsuites>\n"
}

/// Escapes text for XML 1.0; characters that XML does not allow become U+FFFD.
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

/// Metrics in the Prometheus text format.
pub fn prometheus<'e>(all: impl Iterator<Item = &'e Examination>) -> String {
    let all: Vec<&Examination> = all.collect();
    let mut out = String::from(
        "# HELP sternpost_check_findings Findings of the last check, by severity.\n# TYPE sternpost_check_findings gauge\n",
    );
    for seen in &all {
        for severity in [Severity::Error, Severity::Warning, Severity::Info] {
            let _ = writeln!(
                out,
                "sternpost_check_findings{{domain=\"{}\",severity=\"{}\"}} {}",
                seen.domain,
                severity_label(severity),
                seen.count(severity)
            );
        }
    }
    out.push_str(
        "# HELP sternpost_check_finding A check with an error or warning.\n# TYPE sternpost_check_finding gauge\n",
    );
    for seen in &all {
        let mut tripped: Vec<(Check, Severity)> =
            seen.findings.iter().map(|finding| (finding.check, finding.severity)).collect();
        // A check can have findings for several hosts; the series has the most severe of them.
        tripped.sort_by_key(|(check, severity)| (*check, *severity));
        tripped.dedup_by_key(|(check, _)| *check);
        for (check, severity) in tripped.iter().filter(|(_, severity)| *severity != Severity::Info) {
            let _ = writeln!(
                out,
                "sternpost_check_finding{{domain=\"{}\",check=\"{check}\",severity=\"{}\"}} 1",
                seen.domain,
                severity_label(*severity)
            );
        }
    }
    out.push_str("# HELP sternpost_check_mode The policy mode that applies to new senders.\n# TYPE sternpost_check_mode gauge\n");
    for seen in &all {
        let _ = writeln!(out, "sternpost_check_mode{{domain=\"{}\",mode=\"{}\"}} 1", seen.domain, seen.mode);
    }
    out
}

/// The name of a severity in JSON, JUnit and metrics.
pub fn severity_label(severity: Severity) -> &'static str {
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
    fn xml_escapes_any_text_from_servers() {
        assert_eq!(xml("a<b & \"c\"\u{0}\u{1b}"), "a&lt;b &amp; &quot;c&quot;\u{fffd}\u{fffd}");
    }
}
