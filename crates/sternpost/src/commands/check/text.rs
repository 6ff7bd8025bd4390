//! The outcome of a check as text for a terminal: the verdict, the findings with remedies, the number of checks that
//! passed, and what each kind of sender does with mail for the domain.

use crate::terminal::marks;
use check::senders::{HostView, Outcome, Sender, SenderView, outcome_label};
use check::{Check, Examination, Finding, Part, Severity};
use formats::counted::counted;
use formats::printable::printable;
use std::fmt::Write;
use std::time::Duration;

/// Formats an examination. `took` is its duration; `verbose` adds evidence, information and the passed checks.
pub fn whole(seen: &Examination, took: Duration, verbose: bool) -> String {
    let mut out = format!("{}\n", plain(&seen.verdict));
    let shown: Vec<&Finding> =
        seen.findings.iter().filter(|finding| is_shown(seen, finding, verbose)).collect();
    shown.iter().for_each(|finding| out.push_str(&finding_text(finding, verbose)));
    out.push('\n');
    out.push_str(&counts(seen, shown.len(), took, verbose));
    if !seen.senders.is_empty() {
        out.push_str("\nWhat senders do with mail for it today\n");
        let mut last: &[HostView] = &[];
        for view in &seen.senders {
            out.push_str(&sender(view, last == view.hosts));
            last = &view.hosts;
        }
    }
    out.push('\n');
    out
}

/// A text that others may have chosen a part of, without what would move the cursor or begin an escape sequence.
fn plain(text: &str) -> String {
    printable(text, usize::MAX)
}

fn is_sender(check: Check) -> bool {
    matches!(check, Check::SenderStrict | Check::SenderTesting | Check::SenderDane | Check::SenderPlain)
}

/// Informational findings are hidden, except those that state what to do next.
fn is_shown(seen: &Examination, finding: &Finding, verbose: bool) -> bool {
    let is_guidance = match finding.check {
        Check::StsTxtMissing | Check::ReadyEnforce | Check::SmtpPortBlocked | Check::DomIdn => true,
        Check::PolModeNone | Check::SmtpGreylist => true,
        Check::Provider => seen.findings.iter().any(|other| other.check == Check::StsTxtMissing),
        Check::RptTxtMissing | Check::DnssecUnseen => true,
        _ => false,
    };
    !is_sender(finding.check) && (finding.severity != Severity::Info || is_guidance || verbose)
}

fn counts(seen: &Examination, shown: usize, took: Duration, verbose: bool) -> String {
    let senders = seen.findings.iter().filter(|finding| is_sender(finding.check)).count();
    let hidden = seen.findings.len().saturating_sub(senders).saturating_sub(shown);
    let mut line = format!("{} {} passed", marks().fine, counted(seen.passed.len(), "check"));
    if hidden > 0 {
        let _ = write!(line, "   {} {hidden} for your information (--verbose)", marks().info);
    }
    let mut out = format!("{line}   {:.1} s\n", took.as_secs_f32());
    if verbose {
        let mut last: Option<Part> = None;
        for check in &seen.passed {
            let lead = if last == Some(check.part()) { " " } else { "\n    " };
            let _ = write!(out, "{lead}{check}");
            last = Some(check.part());
        }
        out.push('\n');
    }
    out
}

/// A kind of sender, with the outcome at each host; `is_alike` omits hosts that are the same as for the previous one.
fn sender(view: &SenderView, is_alike: bool) -> String {
    let name = match view.sender {
        Sender::Strict => "honors MTA-STS",
        Sender::Testing => "only reports",
        Sender::Dane => "DANE and MTA-STS",
        Sender::Plain => "any other",
    };
    let mut out = format!("  {name:<16} {}\n", plain(&view.summary));
    // Where nothing is known about a kind of sender, the hosts were not tried for it.
    let is_unknown = view.summary.starts_with("unknown");
    for host in view.hosts.iter().filter(|_| !is_alike && !is_unknown) {
        let mark = match host.outcome {
            Outcome::Verified => marks().fine,
            Outcome::Encrypted | Outcome::Clear => marks().warning,
            Outcome::Refused => marks().error,
            Outcome::Unreached => marks().info,
        };
        let _ = writeln!(out, "  {:<16}   {mark} {}: {}", "", host.host, outcome_label(host.outcome));
    }
    out
}

fn finding_text(finding: &Finding, verbose: bool) -> String {
    let mark = match finding.severity {
        Severity::Error => marks().error,
        Severity::Warning => marks().warning,
        Severity::Info => marks().info,
    };
    let head = format!("{mark} {}  {}", finding.check, plain(&finding.what));
    let mut out = String::from("\n");
    for (number, line) in wrap(&head, 78).iter().enumerate() {
        let _ = writeln!(out, "{}{line}", if number == 0 { "" } else { "    " });
    }
    let cause = finding.cause.iter().flat_map(|cause| wrap(&format!("Cause: {}", plain(&cause.what)), 76));
    for line in cause.chain(wrap(&plain(&finding.why), 76)) {
        let _ = writeln!(out, "    {line}");
    }
    for line in &finding.remedy {
        let _ = writeln!(out, "        {}", plain(line));
    }
    if verbose && !finding.evidence.is_empty() {
        out.push_str("    Evidence\n");
        for line in &finding.evidence {
            let _ = writeln!(out, "      | {}", plain(line));
        }
    }
    out
}

pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_text_of_a_finding_reaches_the_terminal_with_control_characters(
            odd in "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{202a}-\u{202e}\u{2028}\u{2066}-\u{2069}a-c ]{0,20}",
        ) {
            let text = format!("{odd}\u{1b}]0;owned\u{7}\n");
            let finding = Finding {
                check: Check::HttpsCertName,
                severity: Severity::Error,
                what: text.clone(),
                cause: Some(check::FoundCause { id: check::Cause::CatchAll, what: text.clone() }),
                why: text.clone(),
                remedy: vec![text.clone()],
                evidence: vec![text.clone()],
            };
            let seen = Examination {
                domain: formats::DomainName::parse("example.org").unwrap(),
                protection: check::Protection::None,
                verdict: text.clone(),
                mode: formats::Mode::None,
                findings: vec![finding],
                passed: Vec::new(),
                senders: vec![SenderView { sender: Sender::Strict, hosts: Vec::new(), summary: text }],
                published: None,
                mx_hosts: Vec::new(),
            };
            let shown = whole(&seen, Duration::ZERO, true);
            for line in shown.split('\n') {
                proptest::prop_assert_eq!(line, plain(line));
            }
            // One line each, whatever line ends were in it.
            proptest::prop_assert_eq!(shown.matches("owned").count(), 7);
        }
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("", 8), Vec::<String>::new());
        assert_eq!(wrap("averyverylongword", 4), ["averyverylongword"]);
    }
}
