//! Checks of the policy file on its own: syntax, mode, `max_age` and wildcards (RFC 8461 §3.2).

use crate::catalogue::{Check, Part, Severity};
use crate::causes::Cause;
use crate::causes::behind_host;
use crate::causes::near_policy::{NearPolicy, near_key, repair};
use crate::finding::Findings;
use crate::observed::ObservedDomain;
use formats::policy::{PolicyError, PolicyFault, PolicyNote};
use formats::{DomainName, Mode, MxPattern, Policy};
use suffix::is_public_suffix;

/// In seconds, as `max_age`.
const WEEK: u32 = 604_800;
/// 31 days in seconds.
const MONTH: u32 = 31 * 86_400;

/// Domains of large providers below which other customers have hosts too. A wildcard on one of them is broader
/// than the patterns that the providers document.
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
    findings.mark_examined(&[Part::Policy]);
    match Policy::parse(file) {
        Ok(policy) => {
            findings.mark_examined(&[Part::PolicyText]);
            notes(file, &policy, findings);
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
    let hosts: Vec<DomainName> = seen.hosts.iter().map(|host| host.name.clone()).collect();
    let near = repair(file, &hosts);
    let check = match near.as_ref().and_then(NearPolicy::cause) {
        Some(Cause::KeyCase | Cause::ValueCase) => Check::PolCase,
        _ => check,
    };
    let remedy: Vec<String> = match &near {
        Some(near) => near.corrected.to_string().lines().map(str::to_owned).collect(),
        None => {
            let lines = ["version: STSv1".to_owned(), "mode: testing".to_owned()].into_iter();
            let mx = hosts.iter().map(|host| format!("mx: {host}"));
            lines.chain(mx).chain(["max_age: 86400".to_owned()]).collect()
        }
    };
    findings.add(
        check,
        format!("the policy file is invalid: {error}"),
        "Senders ignore an invalid file. Senders with an older policy in their cache keep using that.",
        remedy,
    );
    if let Some((near, cause)) = near.as_ref().and_then(|near| Some((near, near.cause()?))) {
        findings.name_cause(cause, near.told());
    } else if file.trim_ascii().is_empty() {
        findings.name_found(Some(behind_host::empty_file(seen)));
    } else if let Some(found) = behind_host::cause(seen, check, seen.host.visits.first()) {
        findings.name_remedied(found);
    }
    findings.attach_evidence(
        String::from_utf8_lossy(file).lines().take(20).map(|line| line.chars().take(200).collect()),
    );
}

/// True when the file has the required key, but not in lower case.
fn has_key_in_other_case(file: &[u8], key: &str) -> bool {
    let text = String::from_utf8_lossy(file);
    text.lines().any(|line| line.split(':').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(key)))
}

/// Reports what the parser noted; each note is a finding, or its reason for none stands here.
pub(crate) fn notes(file: &[u8], policy: &Policy, findings: &mut Findings) {
    for note in &policy.notes {
        match note {
            PolicyNote::BareLf => findings.add(
                Check::PolLf,
                "the lines of the policy file end in LF alone",
                "Senders accept both LF and CRLF.",
                [],
            ),
            PolicyNote::UnknownKey(line) => unknown_key(file, *line, findings),
            PolicyNote::Duplicate(line) => findings.add(
                Check::PolDuplicate,
                format!("line {line} of the policy file repeats a key"),
                "Senders use the first occurrence. Remove the other.",
                [],
            ),
            PolicyNote::MaxAgeCapped(seconds) => findings.add(
                Check::PolMaxAgeLong,
                format!("max_age is {seconds}"),
                "Senders cap it at the maximum, 31557600 (one year).",
                ["max_age: 31557600".to_owned()],
            ),
            PolicyNote::MxFinalDot(line) => findings.add(
                Check::PolMxDot,
                format!("line {line} of the policy file ends in a dot"),
                "The format has host names without a final dot. Sternpost and some other senders accept it; others discard \
                 the whole policy.",
                policy.mx.iter().map(|pattern| format!("mx: {pattern}")),
            ),
            PolicyNote::TrailingBlankLines => findings.add(
                Check::PolBlankEnd,
                "the policy file ends with empty lines",
                "Each line has to have a key and a value. Sternpost and some other senders accept empty lines at the end; \
                 others discard the whole policy. End the file with one line end after the last field.",
                policy.to_string().lines().map(str::to_owned),
            ),
            // Host names are the same in upper and lower case, for all senders (RFC 8461 §4.1).
            PolicyNote::MxUpperCase(_) => {}
            // POL-MX-UNUSED tells it, with the other lines that match no MX host.
            PolicyNote::MxUnmatchable(_) => {}
        }
    }
}

/// Reports an unknown key; a warning where it was meant as a known one.
fn unknown_key(file: &[u8], line: usize, findings: &mut Findings) {
    match near_key(file, line) {
        Some((name, key)) => {
            findings.add_as(
                Severity::Warning,
                Check::PolUnknown,
                format!("line {line} of the policy file has the unknown key {name:?}; did you mean {key}?"),
                "Senders ignore the line, so what it says does not apply.",
                [],
            );
            let what = format!("At line {line}, column 1, the key is {name}, not {key}.");
            findings.name_cause(Cause::NearKey, what);
        }
        None => findings.add(
            Check::PolUnknown,
            format!("line {line} of the policy file has an unknown key"),
            "Senders ignore it.",
            [],
        ),
    }
}

fn mode(seen: &ObservedDomain, policy: &Policy, findings: &mut Findings) {
    match policy.mode {
        Mode::Enforce if policy.max_age < WEEK => {
            let severity = if policy.max_age < 86_400 { Severity::Error } else { Severity::Warning };
            findings.add_as(
                severity,
                Check::PolMaxAgeShort,
                format!("max_age is {} seconds, which is under one week", policy.max_age),
                "An attacker who blocks the policy fetch for that long disables the protection at that sender.",
                ["max_age: 604800".to_owned()],
            );
        }
        Mode::Testing => {
            findings.add(
                Check::PolModeTesting,
                format!("the policy of {} is in mode testing", seen.domain),
                "Senders report failures but still deliver. Change to enforce when the reports show no failures.",
                [],
            );
            if policy.max_age > MONTH {
                findings.add(
                    Check::PolMaxAgeLong,
                    format!("max_age is {} seconds in mode testing", policy.max_age),
                    "With a shorter max_age, senders notice policy changes sooner.",
                    ["max_age: 86400".to_owned()],
                );
            }
        }
        Mode::None => {
            findings.add(
                Check::PolModeNone,
                format!("the policy of {} has mode none", seen.domain),
                "Senders treat the domain as one without MTA-STS. Remove the record and the policy host when the longest \
                 max_age ever served has elapsed.",
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
            format!("the line mx: {pattern} also matches hosts of others"),
            "An attacker who can forge the MX records and has a host there with a valid certificate can receive the \
             mail. List the hosts one by one, or use the pattern that your mail provider documents.",
            [],
        );
    }
}
