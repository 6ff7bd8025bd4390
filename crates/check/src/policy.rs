//! The policy file, by itself and against the MX set (RFC 8461 §3.2, §4.1).

use crate::Subject;
use crate::catalogue::{Check, Severity};
use crate::finding::Findings;
use formats::policy::{PolicyError, PolicyFault, PolicyNote};
use formats::{Mode, Policy};

const WEEK: u32 = 604_800;
const MONTH: u32 = 31 * 86_400;

/// The policy, when the file is a valid one.
pub(crate) fn check(subject: &Subject<'_>, file: &[u8], findings: &mut Findings) -> Option<Policy> {
    let policy = match Policy::parse(file) {
        Ok(policy) => policy,
        Err(error) => {
            malformed(subject, &error, findings);
            return None;
        }
    };
    notes(&policy, findings);
    mode(subject, &policy, findings);
    if policy.mode != Mode::None {
        match_mx(subject, &policy, findings);
    }
    Some(policy)
}

fn malformed(subject: &Subject<'_>, error: &PolicyError, findings: &mut Findings) {
    let check = match error.fault {
        PolicyFault::Html => Check::PolHtml,
        PolicyFault::ByteOrderMark => Check::PolBom,
        PolicyFault::Missing("mx") => Check::PolNoMx,
        _ => Check::PolSyntax,
    };
    let mx = subject.hosts.iter().map(|host| format!("mx: {host}"));
    let lines = ["version: STSv1".to_owned(), "mode: testing".to_owned()].into_iter().chain(mx);
    findings.add(
        check,
        format!("the policy file is invalid: {error}"),
        "Senders take an invalid file as none; those who hold an older policy go on with it.",
        lines.chain(["max_age: 86400".to_owned()]),
    );
}

fn notes(policy: &Policy, findings: &mut Findings) {
    for note in &policy.notes {
        match note {
            PolicyNote::BareLf => findings.add(
                Check::PolLf,
                "the lines of the policy file end in LF alone",
                "It is accepted; CRLF is what the RFC writes.",
                [],
            ),
            PolicyNote::UnknownKey(line) => findings.add(
                Check::PolUnknown,
                format!("line {line} of the policy file has an unknown key"),
                "Senders ignore it.",
                [],
            ),
            PolicyNote::Duplicate(line) => findings.add(
                Check::PolDuplicate,
                format!("the key of line {line} of the policy file stood before"),
                "The first counts. Keep one.",
                [],
            ),
            PolicyNote::MaxAgeCapped(seconds) => findings.add(
                Check::PolMaxAgeLong,
                format!("max_age is {seconds}"),
                "Senders apply 31557600 (a year), the maximum.",
                ["max_age: 31557600".to_owned()],
            ),
            _ => {}
        }
    }
}

fn mode(subject: &Subject<'_>, policy: &Policy, findings: &mut Findings) {
    match policy.mode {
        Mode::Enforce if policy.max_age < WEEK => {
            let severity = if policy.max_age < 86_400 { Severity::Error } else { Severity::Warning };
            findings.add_as(
                severity,
                Check::PolMaxAgeShort,
                format!("max_age is {} seconds, under a week", policy.max_age),
                "An attacker who keeps the policy from a sender for that long is rid of it.",
                ["max_age: 604800".to_owned()],
            );
        }
        Mode::Testing => {
            findings.add(
                Check::PolModeTesting,
                format!("the policy of {} is in testing", subject.domain),
                "Senders report failures and deliver all the same. When the reports are \
                 clean, go on to enforce.",
                [],
            );
            if policy.max_age > MONTH {
                findings.add(
                    Check::PolMaxAgeLong,
                    format!("max_age is {} seconds while testing", policy.max_age),
                    "A short one lets senders see changes soon.",
                    ["max_age: 86400".to_owned()],
                );
            }
        }
        Mode::None => findings.add(
            Check::PolModeNone,
            format!("the policy of {} is of mode none", subject.domain),
            "Senders take the domain as one without MTA-STS. Remove record and policy \
             host when the longest max_age ever served has passed.",
            [],
        ),
        Mode::Enforce => {}
    }
}

fn match_mx(subject: &Subject<'_>, policy: &Policy, findings: &mut Findings) {
    let uncovered: Vec<_> = subject.hosts.iter().filter(|host| !policy.covers(host)).collect();
    let severity = match policy.mode {
        Mode::Enforce => Severity::Error,
        _ => Severity::Warning,
    };
    let remedy = uncovered.iter().map(|host| format!("mx: {host}"));
    if !uncovered.is_empty() && uncovered.len() == subject.hosts.len() {
        findings.add_as(
            severity,
            Check::MatchNone,
            "no MX host is matched by the policy",
            "Once enforced, senders that honour MTA-STS deliver nothing to the domain. \
             Add the lines, then publish a new id.",
            remedy,
        );
    } else {
        for host in uncovered {
            findings.add_as(
                severity,
                Check::MatchMxUncovered,
                format!("{host} matches no mx line of the policy"),
                "Once enforced, senders that honour MTA-STS do not deliver to it; when the \
                 others are down, mail waits and then bounces. Add the line, then publish a \
                 new id.",
                [format!("mx: {host}")],
            );
        }
    }
    for pattern in policy.mx.iter().filter(|pattern| !subject.hosts.iter().any(|host| pattern.matches(host)))
    {
        findings.add(
            Check::PolMxUnused,
            format!("no MX host matches the line mx: {pattern}"),
            "It lets a host be the domain's MX that is not. Take it out when it is not \
             for a move, and publish a new id.",
            [],
        );
    }
}
