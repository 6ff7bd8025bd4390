//! The outcome for people on a terminal: the verdict, what needs them, what passed in a line, and what
//! senders do today.

use crate::terminal::marks;
use check::senders::{HostView, Outcome, Sender, SenderView, word};
use check::{Check, Examination, Finding, Part, Severity};
use std::fmt::Write;
use std::time::Duration;

/// The whole of it.
pub fn whole(seen: &Examination, took: Duration, verbose: bool) -> String {
    let mut out = format!("{}\n", seen.verdict);
    let shown: Vec<&Finding> =
        seen.findings.iter().filter(|finding| is_shown(seen, finding, verbose)).collect();
    shown.iter().for_each(|finding| out.push_str(&told(finding, verbose)));
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

fn is_sender(check: Check) -> bool {
    matches!(check, Check::SenderStrict | Check::SenderTesting | Check::SenderDane | Check::SenderPlain)
}

/// What is only good to know is folded, but for what says how to go on.
fn is_shown(seen: &Examination, finding: &Finding, verbose: bool) -> bool {
    let leads_on = match finding.check {
        Check::StsTxtMissing | Check::ReadyEnforce | Check::SmtpPortBlocked | Check::DomIdn => true,
        Check::PolModeNone | Check::SmtpGreylist => true,
        Check::Provider => seen.findings.iter().any(|other| other.check == Check::StsTxtMissing),
        Check::RptTxtMissing | Check::DnssecUnseen => true,
        _ => false,
    };
    !is_sender(finding.check) && (finding.severity != Severity::Info || leads_on || verbose)
}

fn counts(seen: &Examination, shown: usize, took: Duration, verbose: bool) -> String {
    let senders = seen.findings.iter().filter(|finding| is_sender(finding.check)).count();
    let folded = seen.findings.len().saturating_sub(senders).saturating_sub(shown);
    let mut line = format!("{} {} checks passed", marks().fine, seen.passed.len());
    if folded > 0 {
        let _ = write!(line, "   {} {folded} for your information (--verbose)", marks().info);
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

/// The hosts are left out where they are as for the sender before.
fn sender(view: &SenderView, is_alike: bool) -> String {
    let name = match view.sender {
        Sender::Strict => "honours MTA-STS",
        Sender::Testing => "tests policies",
        Sender::Dane => "uses DANE",
        Sender::Plain => "any other",
    };
    let mut out = format!("  {name:<16} {}\n", view.summary);
    for host in view.hosts.iter().filter(|_| !is_alike) {
        let mark = match host.outcome {
            Outcome::Verified => marks().fine,
            Outcome::Encrypted | Outcome::Clear => marks().warning,
            Outcome::Refused => marks().error,
            Outcome::Unreached => marks().info,
        };
        let _ = writeln!(out, "  {:<16}   {mark} {}: {}", "", host.host, word(host.outcome));
    }
    out
}

fn told(finding: &Finding, verbose: bool) -> String {
    let mark = match finding.severity {
        Severity::Error => marks().error,
        Severity::Warning => marks().warning,
        Severity::Info => marks().info,
    };
    let head = format!("{mark} {}  {}", finding.check, finding.what);
    let mut out = String::from("\n");
    for (number, line) in wrap(&head, 78).iter().enumerate() {
        let _ = writeln!(out, "{}{line}", if number == 0 { "" } else { "    " });
    }
    for line in wrap(&finding.why, 76) {
        let _ = writeln!(out, "    {line}");
    }
    for line in &finding.remedy {
        let _ = writeln!(out, "        {line}");
    }
    if verbose && !finding.evidence.is_empty() {
        out.push_str("    Seen by\n");
        for line in &finding.evidence {
            let _ = writeln!(out, "      | {line}");
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

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("", 8), Vec::<String>::new());
        assert_eq!(wrap("averyverylongword", 4), ["averyverylongword"]);
    }
}
