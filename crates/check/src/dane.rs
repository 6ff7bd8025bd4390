//! DANE for each MX host (RFC 7672, RFC 7671).

use crate::catalogue::{Check, Part};
use crate::finding::Findings;
use crate::mx::consequence;
use crate::observed::{ObservedDomain, ObservedMxHost};
use formats::DomainName;
use formats::tlsa::{TlsaRecord, TlsaRule, Unusable, Usage};
use jiff::SignedDuration;
use net::certificate::Problem;
use net::dane::Dane;
use net::dns::Security;
use net::tls::TlsFacts;

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    if seen.hosts.is_empty() || !seen.sees_signatures {
        return;
    }
    findings.looked_at(&[Part::Dane]);
    if seen.is_deep {
        findings.looked_at(&[Part::DaneDeep]);
    }
    for host in &seen.hosts {
        match &host.dane {
            Dane::Absent if host.unsigned_tlsa => findings.add(
                Check::DaneUnsigned,
                format!(
                    "{} has TLSA records, but its zone or that of {} is not signed",
                    host.name, seen.domain
                ),
                "Nobody uses TLSA records without DNSSEC all the way. Sign the zone, or take them away.",
                [],
            ),
            Dane::Absent => {}
            Dane::Unknown(error) => findings.add(
                Check::DaneUnknown,
                format!("the TLSA records of {}: {error}", host.name),
                "Senders that use DANE skip the host, and mail waits when no other is left.",
                [format!("dig +dnssec _25._tcp.{} TLSA", host.name)],
            ),
            Dane::Applies { rule, records, .. } => {
                written(host, rule, records, findings);
                met(seen, host, records, findings);
            }
        }
    }
    set(seen, findings);
}

/// The record that fits the key which the host presents; who puts it up vouches for that key.
fn presented(host: &ObservedMxHost) -> String {
    let own = host.sessions.iter().find_map(|session| session.report().tls.as_ref()?.chain.first());
    let digest = own.map_or("…", |own| own.key_digest.as_str());
    format!(
        "_25._tcp.{}.  TLSA  3 1 1 {digest}   ; the public key that it presents: make sure that it is yours",
        host.name
    )
}

/// What stands in the records.
fn written(seen: &ObservedMxHost, rule: &TlsaRule, records: &[TlsaRecord], findings: &mut Findings) {
    let host = &seen.name;
    for record in records {
        match record.usable() {
            Err(Unusable::Pkix(usage)) => findings.add(
                Check::DaneUsage,
                format!("{host} has a TLSA record of usage {usage}"),
                "Mail servers do not use usages 0 and 1; alone, the record only says that TLS has to be there.",
                [presented(seen)],
            ),
            Err(why) => findings.add(
                Check::DaneSyntax,
                format!("{host} has a TLSA record that no sender can use: {why}"),
                "It is left out. When it is the only one, senders demand TLS from whoever answers.",
                [presented(seen)],
            ),
            Ok(_) => {}
        }
    }
    if let TlsaRule::Authenticate(usable) = rule
        && !usable.is_empty()
        && usable.iter().all(|record| record.matching == formats::tlsa::Matching::Full)
    {
        findings.add(
            Check::DaneDigest,
            format!("the TLSA records of {host} carry whole certificates or keys in place of a digest"),
            "Answers get large, and some resolvers and senders drop them. SHA-256 is enough.",
            [presented(seen)],
        );
    }
}

/// What the records say about what the host presents.
fn met(seen: &ObservedDomain, host: &ObservedMxHost, records: &[TlsaRecord], findings: &mut Findings) {
    let name = &host.name;
    for session in &host.sessions {
        let Some(tls) = &session.report().tls else { continue };
        match &tls.dane {
            Some(Ok(())) => {
                protects(seen, host, session.address, tls, findings);
                rollover(seen, name, records, tls, findings);
            }
            Some(Err(problem)) => {
                refused(host, session.address, records, problem, findings);
                if tls.pkix.is_ok() && seen.binding().is_some_and(|policy| policy.covers(name)) {
                    conflict(name, "DANE refuses it, MTA-STS would deliver", findings);
                }
            }
            None => {}
        }
    }
}

fn protects(
    seen: &ObservedDomain,
    host: &ObservedMxHost,
    address: std::net::IpAddr,
    tls: &TlsFacts,
    findings: &mut Findings,
) {
    findings.add(
        Check::DaneProtects,
        format!("{} ({address}) is protected by DANE", host.name),
        "Senders that use DANE demand the matching certificate. Those that know only MTA-STS go by its policy.",
        [],
    );
    let enforced = seen.binding().is_some_and(|policy| policy.mode == formats::Mode::Enforce);
    if enforced && tls.pkix.is_err() {
        conflict(&host.name, "DANE delivers, MTA-STS refuses", findings);
    }
}

fn conflict(host: &DomainName, how: &str, findings: &mut Findings) {
    if !findings.has(Check::DaneStsConflict) {
        findings.add(
            Check::DaneStsConflict,
            format!("DANE and MTA-STS decide differently about {host}: {how}"),
            "Each sender goes by what it knows, so mail gets through from some and waits with others. Give the host a \
             certificate of a public authority and keep the TLSA record in step with its key.",
            [],
        );
    }
}

fn refused(
    seen: &ObservedMxHost,
    address: std::net::IpAddr,
    records: &[TlsaRecord],
    problem: &Problem,
    findings: &mut Findings,
) {
    let host = &seen.name;
    let has_anchor =
        records.iter().any(|record| record.usable().is_ok_and(|usable| usable.usage == Usage::DaneTa));
    let only_anchors = records.iter().all(|record| record.usage == 2);
    let what = format!("{host} ({address}): {problem}");
    let key = presented(seen);
    if has_anchor && (only_anchors || *problem != Problem::TlsaMismatch) {
        return findings.add(
            Check::DaneTaName,
            what,
            "With usage 2 the chain has to hold the anchor, and the certificate the name of the host or of the \
             domain, within its dates. Senders that use DANE do not deliver to it.",
            [key],
        );
    }
    findings.add(
        Check::DaneMismatch,
        what,
        "Senders that use DANE do not deliver to it. Publish the record of the new key before the certificate \
         changes, and take the old one out afterwards.",
        [key],
    );
    findings.seen_by(records.iter().map(|record| format!("_25._tcp.{host}. TLSA {record}")));
}

fn rollover(
    seen: &ObservedDomain,
    host: &DomainName,
    records: &[TlsaRecord],
    tls: &TlsFacts,
    findings: &mut Findings,
) {
    let Some(own) = tls.chain.first() else { return };
    let soon = own.not_after.duration_since(seen.now) < SignedDuration::from_hours(30 * 24);
    // A key can stay over a renewal; a whole certificate can't.
    let is_bound = records.iter().all(|record| record.usage == 3);
    if records.len() == 1 && soon && is_bound {
        findings.add(
            Check::DaneRollover,
            format!("{host} has one TLSA record, and its certificate ends at {}", own.not_after),
            "When the renewal brings a new key, the record no longer fits and mail waits. Publish the record of the \
             next key now, or keep the key.",
            [format!("_25._tcp.{host}.  TLSA  3 1 1 …   ; of the next key, beside the present one")],
        );
    }
}

fn set(seen: &ObservedDomain, findings: &mut Findings) {
    let has = |host: &&ObservedMxHost| matches!(host.dane, Dane::Applies { .. });
    let (with, without): (Vec<&ObservedMxHost>, Vec<&ObservedMxHost>) = seen.hosts.iter().partition(has);
    if with.is_empty() {
        let is_known = !seen.hosts.iter().any(|host| matches!(host.dane, Dane::Unknown(_)));
        if is_known && !findings.has(Check::DaneUnsigned) {
            let why = match seen.mx_security() {
                Security::Secure => "The zone is signed, so that DANE is one record a host away.",
                _ => "DANE needs DNSSEC. MTA-STS does its work without.",
            };
            findings.add(Check::DaneAbsent, "no MX host has TLSA records", why, []);
        }
        return;
    }
    if let Some(open) = without.iter().find(|host| matches!(host.dane, Dane::Absent)) {
        findings.add(
            Check::DanePartial,
            format!("{} has TLSA records and {} has none", names(&with), open.name),
            format!("An attacker leads senders to the host without. {}", consequence(seen)),
            [presented(open)],
        );
    }
}

fn names(hosts: &[&ObservedMxHost]) -> String {
    hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ")
}
