//! Checks whether the policy's `mx` lines match the domain's MX hosts (RFC 8461 §4.1).

use crate::catalogue::{Check, Part, Severity};
use crate::causes::mx_lines;
use crate::finding::Findings;
use crate::known::Known;
use crate::observed::{ObservedDomain, ObservedMxHost};
use formats::{Mode, MxPattern, Policy};

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    let Some(policy) = seen.policy.valid.as_ref().filter(|policy| policy.mode != Mode::None) else { return };
    findings.mark_examined(&[Part::Match]);
    let uncovered: Vec<_> = seen.hosts.iter().filter(|host| !policy.covers(&host.name)).collect();
    let severity = match policy.mode {
        Mode::Enforce => Severity::Error,
        _ => Severity::Warning,
    };
    if !uncovered.is_empty() && uncovered.len() == seen.hosts.len() {
        findings.add_as(
            severity,
            Check::MatchNone,
            "the policy matches no MX host",
            "In mode enforce, senders that honor MTA-STS deliver nothing to the domain. Add the lines, then publish a \
             new id.",
            uncovered.iter().map(|host| format!("mx: {}", host.name)),
        );
        findings
            .name_found(uncovered.iter().find_map(|host| mx_lines::of_host(seen, known, policy, &host.name)));
    }
    for host in &uncovered {
        let is_told = uncovered.len() == seen.hosts.len();
        if one(policy, host, severity, is_told, findings) {
            findings.name_found(mx_lines::of_host(seen, known, policy, &host.name));
        }
    }
    let matched = |pattern: &MxPattern| seen.hosts.iter().any(|host| pattern.matches(&host.name));
    for pattern in policy.mx.iter().filter(|pattern| !matched(pattern)) {
        findings.add(
            Check::PolMxUnused,
            format!("no MX host matches the line mx: {pattern}"),
            "It permits an MX host that the domain does not have. Remove the line unless it is for a planned move, then \
             publish a new id.",
            [],
        );
        findings.name_found(mx_lines::of_line(seen, known, pattern));
    }
    for value in &policy.unmatchable {
        findings.add(
            Check::PolMxUnused,
            format!("the line mx: {value} ends in a number, and so matches no MX host"),
            "An MX record names a host, never an address. Replace the line by the name of the MX host, then publish a \
             new id.",
            [],
        );
    }
}

/// Reports one host that no line matches. Returns true if the reason is not in the finding.
fn one(
    policy: &Policy,
    host: &ObservedMxHost,
    severity: Severity,
    is_told: bool,
    findings: &mut Findings,
) -> bool {
    let name = &host.name;
    let remedy = || [format!("mx: {name}")];
    let is_too_deep = |pattern: &&MxPattern| matches!(pattern, MxPattern::Wildcard(parent) if name.is_within(parent) && name != parent);
    let target = host.addresses.as_ref().ok().and_then(|found| found.aliases.last());
    if let Some(pattern) = policy.mx.iter().find(is_too_deep) {
        findings.add_as(
            severity,
            Check::MatchWildcardDepth,
            format!("{name} does not match {pattern}: the asterisk matches exactly one label"),
            "In mode enforce, senders that honor MTA-STS do not deliver to it. Add the line, then publish a new id.",
            remedy(),
        );
        return false;
    }
    if let Some(target) = target.filter(|target| policy.covers(target)) {
        findings.add(
            Check::MatchCnameTarget,
            format!("the policy matches {target}, the CNAME target of {name}, but not {name} itself"),
            "Senders match the name in the MX record, not the CNAME target. Add the line.",
            remedy(),
        );
    }
    if is_told {
        return false;
    }
    if is_microsoft_move(policy, host) {
        microsoft_move(host, severity, findings);
        return false;
    }
    findings.add_as(
        severity,
        Check::MatchMxUncovered,
        format!("{name} (preference {}) matches no mx line of the policy", host.preference),
        "In mode enforce, senders that honor MTA-STS do not deliver to it. When the other hosts are down, mail is \
         delayed and then bounces. Add the line, then publish a new id.",
        remedy(),
    );
    true
}

/// The parents of Microsoft 365's MX hosts without DANE, and of those with DANE, which new domains get since July 2026.
const MICROSOFT: [&str; 2] = [".mail.protection.outlook.com", ".mx.microsoft"];

/// True if the host is one of Microsoft 365 with DANE, and the policy was made for one without.
fn is_microsoft_move(policy: &Policy, host: &ObservedMxHost) -> bool {
    let [before, now] = MICROSOFT;
    host.name.as_str().ends_with(now) && policy.mx.iter().any(|pattern| pattern.to_string().ends_with(before))
}

fn microsoft_move(host: &ObservedMxHost, severity: Severity, findings: &mut Findings) {
    let name = &host.name;
    findings.add_as(
        severity,
        Check::MatchMxUncovered,
        format!("{name} matches no mx line of the policy: Microsoft 365 moves the domain to its hosts with DANE"),
        "In mode enforce, senders that honor MTA-STS do not deliver to it. Add the line beside the old one, then publish a \
         new id. Keep the MX record with mail.protection.outlook.com until senders hold the new policy, max_age after that.",
        [format!("mx: {name}")],
    );
}
