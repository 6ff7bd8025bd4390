//! Checks of DANE for each MX host: its TLSA records and the certificate that it presents (RFC 7672, RFC 7671).

use crate::catalogue::{Check, Part};
use crate::causes::tlsa;
use crate::finding::Findings;
use crate::known::Known;
use crate::mx::consequence;
use crate::observed::{IdleTlsa, ObservedDomain, ObservedMxHost};
use formats::DomainName;
use formats::tlsa::{TlsaRecord, TlsaRule, Unusable, Usage};
use jiff::SignedDuration;
use net::certificate::Problem;
use net::dane::Dane;
use net::dns::Security;
use net::tls::TlsFacts;

pub(crate) fn check(seen: &ObservedDomain, known: &Known, findings: &mut Findings) {
    if seen.hosts.is_empty() || !seen.sees_signatures {
        return;
    }
    findings.mark_examined(&[Part::Dane]);
    if seen.is_deep {
        findings.mark_examined(&[Part::DaneDeep]);
    }
    for host in &seen.hosts {
        match &host.dane {
            Dane::Absent if host.idle_tlsa == Some(IdleTlsa::UnsignedMx) => findings.add(
                Check::DaneUnsigned,
                format!("{} has signed TLSA records, but the MX records of {} are not signed", host.name, seen.domain),
                "Postfix authenticates the host at its level dane; most other senders ignore the records, since a forged MX \
                 record leads to another host. Sign the zone of the domain; the host needs no change.",
                [],
            ),
            Dane::Absent if host.idle_tlsa == Some(IdleTlsa::UnsignedZone) => findings.add(
                Check::DaneUnsigned,
                format!("{} has TLSA records, but they are not signed", host.name),
                "Senders ignore TLSA records without DNSSEC. Sign the zone or remove the records.",
                [],
            ),
            Dane::Absent => {}
            Dane::Unknown(error) => findings.add(
                Check::DaneUnknown,
                format!("the TLSA records of {}: {error}", host.name),
                "Senders that use DANE skip the host. When no other host is available, mail is delayed.",
                [format!("dig +dnssec _25._tcp.{} TLSA", host.tlsa_base())],
            ),
            Dane::Applies { rule, records, .. } => {
                record_faults(host, rule, records, findings);
                selector(host, records, findings);
                compare_certificates(seen, known, host, records, findings);
            }
        }
    }
    set(seen, findings);
}

/// The TLSA record for the key that the host presents. Publishing it declares that key trusted.
fn suggested_record(host: &ObservedMxHost) -> String {
    let own = host.sessions.iter().find_map(|session| session.report().tls.as_ref()?.chain.first());
    let digest = own.map_or("…", |own| own.key_digest.as_str());
    format!(
        "_25._tcp.{}.  TLSA  3 1 1 {digest}   ; the public key that the host presents: verify that it is yours",
        host.tlsa_base()
    )
}

/// Reports faults in the TLSA records themselves.
fn record_faults(seen: &ObservedMxHost, rule: &TlsaRule, records: &[TlsaRecord], findings: &mut Findings) {
    let host = &seen.name;
    for record in records {
        match record.usable() {
            Err(Unusable::Pkix(usage)) => findings.add(
                Check::DaneUsage,
                format!("{host} has a TLSA record of usage {usage}"),
                "SMTP does not use usages 0 and 1. Without other records, senders only require TLS and do not verify the host.",
                [suggested_record(seen)],
            ),
            Err(why) => findings.add(
                Check::DaneSyntax,
                format!("{host} has an unusable TLSA record: {why}"),
                "Senders ignore it. Without other records, they only require TLS and do not verify the host.",
                [suggested_record(seen)],
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
            format!("the TLSA records of {host} contain full certificates or keys instead of digests"),
            "DNS responses get large, and some resolvers and senders drop them. Use SHA-256 digests.",
            [suggested_record(seen)],
        );
    }
}

/// Reports records for a host's whole certificate, which fit no longer when it is renewed.
fn selector(seen: &ObservedMxHost, records: &[TlsaRecord], findings: &mut Findings) {
    if !records.iter().any(|record| (record.usage, record.selector) == (3, 0)) {
        return;
    }
    findings.add(
        Check::DaneSelector,
        format!("{} has a TLSA record for its whole certificate (3 0 x)", seen.name),
        "Such a record fits no longer when the certificate is renewed, even with the same key, and most certificates are renewed \
         every few weeks. A record for the public key (3 1 1) stays right as long as the key does.",
        [suggested_record(seen)],
    );
}

/// Reports whether the presented certificates match the TLSA records.
fn compare_certificates(
    seen: &ObservedDomain,
    known: &Known,
    host: &ObservedMxHost,
    records: &[TlsaRecord],
    findings: &mut Findings,
) {
    let name = &host.name;
    for session in &host.sessions {
        let Some(tls) = &session.report().tls else { continue };
        match &tls.dane {
            Some(Ok(())) => {
                protects(seen, host, session.address, tls, findings);
                rollover(seen, host, records, tls, findings);
            }
            Some(Err(problem)) => {
                refused(host, session.address, records, problem, findings);
                if let Some(found) = tlsa::cause(host, &seen.hosts, known, records, tls, seen.now)
                    .filter(|_| *problem == Problem::TlsaMismatch)
                {
                    findings.name_remedied(found);
                }
                if tls.pkix.is_ok() && seen.binding().is_some_and(|policy| policy.covers(name)) {
                    conflict(name, "DANE refuses it, but MTA-STS would deliver", findings);
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
        "Senders that use DANE require the matching certificate. Senders with MTA-STS only use its policy.",
        [],
    );
    let enforced = seen.binding().is_some_and(|policy| policy.mode == formats::Mode::Enforce);
    if enforced && tls.pkix.is_err() {
        conflict(&host.name, "DANE delivers, but MTA-STS refuses", findings);
    }
}

fn conflict(host: &DomainName, how: &str, findings: &mut Findings) {
    if !findings.has(Check::DaneStsConflict) {
        findings.add(
            Check::DaneStsConflict,
            format!("DANE and MTA-STS disagree about {host}: {how}"),
            "Senders apply the standard that they support, so mail from some is delivered and from others delayed. \
             Install a certificate of a public CA and keep the TLSA record in sync with its key.",
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
    let key = suggested_record(seen);
    if has_anchor && (only_anchors || *problem != Problem::TlsaMismatch) {
        return findings.add(
            Check::DaneTaName,
            what,
            "With usage 2, the chain has to include the trust anchor, and the certificate has to be current and contain \
             the name of the host or the domain. Senders that use DANE do not deliver to it.",
            [key],
        );
    }
    findings.add(
        Check::DaneMismatch,
        what,
        "Senders that use DANE do not deliver to it. Publish the record of a new key before the certificate changes, \
         and remove the old record afterwards.",
        [key],
    );
    findings.attach_evidence(
        records.iter().map(|record| format!("_25._tcp.{}. TLSA {record}", seen.tlsa_base())),
    );
}

fn rollover(
    seen: &ObservedDomain,
    observed: &ObservedMxHost,
    records: &[TlsaRecord],
    tls: &TlsFacts,
    findings: &mut Findings,
) {
    let Some(own) = tls.chain.first() else { return };
    let (host, base) = (&observed.name, observed.tlsa_base());
    // The next renewal changes the certificate; short-lived ones are renewed later than a month before their end.
    let month = SignedDuration::from_hours(30 * 24);
    let third = own.not_after.duration_since(own.not_before) / 3;
    let soon = own.not_after.duration_since(seen.now) < month.min(third);
    // A record of usage 3 is bound to this certificate or its key; one of usage 2 survives a renewal.
    let is_bound = records.iter().all(|record| record.usage == 3);
    if records.len() == 1 && soon && is_bound {
        findings.add(
            Check::DaneRollover,
            format!("{host} has only one TLSA record, and its certificate expires at {}", own.not_after),
            "If the renewal changes the key, the record no longer matches and mail is delayed. Publish the record of the \
             next key now, or keep the key.",
            [format!("_25._tcp.{base}.  TLSA  3 1 1 …   ; digest of the next key, in addition to the current record")],
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
                Security::Secure => "The zone is signed, so one TLSA record for each MX host enables DANE.",
                _ => "DANE needs DNSSEC. MTA-STS works without it.",
            };
            findings.add(Check::DaneAbsent, "no MX host has TLSA records", why, []);
        }
        return;
    }
    if let Some(open) = without.iter().find(|host| matches!(host.dane, Dane::Absent)) {
        findings.add(
            Check::DanePartial,
            format!("{} has TLSA records and {} has none", names(&with), open.name),
            format!("An attacker can direct senders to the host without records. {}", consequence(seen)),
            [suggested_record(open)],
        );
    }
}

fn names(hosts: &[&ObservedMxHost]) -> String {
    hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ")
}
