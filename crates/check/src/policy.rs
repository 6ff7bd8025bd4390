//! The policy file by itself (RFC 8461 §3.2).

use crate::catalogue::{Check, Part, Severity};
use crate::domain::is_public_suffix;
use crate::finding::Findings;
use crate::observed::ObservedDomain;
use formats::policy::{PolicyError, PolicyFault, PolicyNote};
use formats::{Mode, MxPattern, Policy};

const WEEK: u32 = 604_800;
const MONTH: u32 = 31 * 86_400;

/// Domains of large mail hosts under which strangers have hosts of their own, beyond what the hosts
/// themselves recommend as a pattern.
const SHARED_MX_DOMAINS: &[&str] = &[
    "google.com",
    "googlemail.com",
    "l.google.com",
    "outlook.com",
    "protection.outlook.com",
    "microsoft.com",
    "amazonaws.com",
    "azure.com",
    "ovh.net",
    "gandi.net",
    "secureserver.net",
];

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    let Some(file) = &seen.policy.file else { return };
    findings.looked_at(&[Part::Policy]);
    match Policy::parse(file) {
        Ok(policy) => {
            findings.looked_at(&[Part::PolicyText]);
            notes(&policy, findings);
            mode(seen, &policy, findings);
            policy.mx.iter().for_each(|pattern| broad(pattern, findings));
        }
        Err(error) => malformed(seen, file, &error, findings),
    }
}

fn malformed(seen: &ObservedDomain, file: &[u8], error: &PolicyError, findings: &mut Findings) {
    let check = match &error.fault {
        PolicyFault::Html => Check::PolHtml,
        PolicyFault::ByteOrderMark => Check::PolBom,
        PolicyFault::Missing("mx") => Check::PolNoMx,
        PolicyFault::Mx(..) => Check::PolMxSyntax,
        PolicyFault::Version(text) if text.eq_ignore_ascii_case("STSv1") => Check::PolCase,
        PolicyFault::Mode(text) if Mode::parse(&text.to_ascii_lowercase()).is_some() => Check::PolCase,
        PolicyFault::Missing(key) if has_key_in_other_case(file, key) => Check::PolCase,
        PolicyFault::Version(_) | PolicyFault::Missing("version") => Check::PolVersion,
        PolicyFault::Mode(_) | PolicyFault::Missing("mode") => Check::PolMode,
        PolicyFault::MaxAge(_) | PolicyFault::Missing("max_age") => Check::PolMaxAge,
        _ => Check::PolSyntax,
    };
    let mx = seen.hosts.iter().map(|host| format!("mx: {}", host.name));
    let lines = ["version: STSv1".to_owned(), "mode: testing".to_owned()].into_iter().chain(mx);
    findings.add(
        check,
        format!("the policy file is invalid: {error}"),
        "Senders take an invalid file as none; those who hold an older policy go on with it.",
        lines.chain(["max_age: 86400".to_owned()]),
    );
    findings
        .seen_by(String::from_utf8_lossy(file).lines().take(20).map(|line| line.chars().take(200).collect()));
}

/// True when a required key stands there, but not in lower case.
fn has_key_in_other_case(file: &[u8], key: &str) -> bool {
    let text = String::from_utf8_lossy(file);
    text.lines().any(|line| line.split(':').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(key)))
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

fn mode(seen: &ObservedDomain, policy: &Policy, findings: &mut Findings) {
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
                format!("the policy of {} is in testing", seen.domain),
                "Senders report failures and deliver all the same. When the reports are clean, go on to enforce.",
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
        Mode::None => {
            findings.add(
                Check::PolModeNone,
                format!("the policy of {} is of mode none", seen.domain),
                "Senders take the domain as one without MTA-STS. Remove record and policy host when the longest \
                 max_age ever served has passed.",
                [],
            );
        }
        Mode::Enforce => {}
    }
}

fn broad(pattern: &MxPattern, findings: &mut Findings) {
    let MxPattern::Wildcard(parent) = pattern else { return };
    let text = parent.as_str();
    if is_public_suffix(text) || SHARED_MX_DOMAINS.contains(&text) {
        findings.add(
            Check::PolWildcardBroad,
            format!("the line mx: {pattern} lets in hosts of strangers"),
            "Whoever can forge the MX records names a host of his own there, with a good certificate, and gets the \
             mail. Name the hosts one by one, or as closely as your mail host recommends.",
            [],
        );
    }
}
