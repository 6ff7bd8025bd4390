//! Checks of the zone: whether its name servers agree about the `_mta-sts` record, and whether it is signed.

use crate::catalogue::{Check, Part};
use crate::causes::Cause;
use crate::finding::Findings;
use crate::observed::{ObservedDomain, ObservedMxHost, WithoutDs};
use net::dns::{Answer, DnsError, Security, ServerAnswer};

pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) {
    findings.mark_examined(&[Part::Dns]);
    if let Some(Ok(said)) = &seen.servers {
        findings.mark_examined(&[Part::NameServers]);
        compare_servers(seen, said, findings);
    }
    if let Some(found) = seen.name_servers.filter(|found| found.with_ipv6 < found.all.min(2)) {
        findings.add(
            Check::DnsNsIpv6,
            format!("{} of {} name servers of {} have an IPv6 address", found.with_ipv6, found.all, seen.domain),
            "Resolvers without IPv4 can't look the domain up; there are few of them. Test sites ask for two such name servers.",
            [],
        );
    }
    if let Some(found) = seen.without_ds {
        no_ds(seen, found, findings);
    }
    if !seen.sees_signatures {
        return findings.add(
            Check::DnssecUnseen,
            "the DNS resolver in use does not pass on DNSSEC data",
            "This is a limitation of this network, not of the domain. DANE and the zone's signatures were not checked. \
             Use a validating resolver (Debian: apt install unbound), or a public one:",
            [format!("sternpost check --resolver 9.9.9.9 {}", seen.domain)],
        );
    }
    findings.mark_examined(&[Part::Signed]);
    if seen.mx_security() == Security::Secure {
        seen.hosts.iter().for_each(|host| unsigned_host(host, findings));
    }
    if seen.mx_security() == Security::Insecure && seen.without_ds.is_none() {
        findings.add(
            Check::DnssecUnsigned,
            format!("the zone of {} is not signed", seen.domain),
            "MTA-STS does not need DNSSEC: the policy host is authenticated by its certificate. DANE needs a signed zone. \
             Without signatures, an attacker can also hide the policy from senders that have not cached it.",
            [],
        );
    }
}

/// Reports an MX host whose own zone is not signed, although the MX records that name it are.
fn unsigned_host(host: &ObservedMxHost, findings: &mut Findings) {
    let is_unsigned = host.addresses.as_ref().is_ok_and(|found| found.security == Security::Insecure);
    if is_unsigned {
        findings.add(
            Check::DnssecMx,
            format!("the MX records are signed, but the zone of {} is not", host.name),
            "DANE can't protect mail to this host: its TLSA records would need a signed zone. The operator of the host has to \
             sign it.",
            [],
        );
    }
}

fn no_ds(seen: &ObservedDomain, found: WithoutDs, findings: &mut Findings) {
    let domain = &seen.domain;
    let (why, remedy) = match found.has_cds {
        true => (
            "Nobody can validate the signatures, so DANE does not protect mail to the domain. The zone has CDS records: \
             registries that manage DS records by machine (RFC 8078, RFC 9615) take them over within days. If yours does \
             not, enter the DS record at the registrar.",
            format!("dig +short {domain} CDS   # the DS record to enter"),
        ),
        false => (
            "Nobody can validate the signatures, so DANE does not protect mail to the domain. Enter the DS record at the \
             registrar, or let the zone publish CDS records (RFC 7344), which many registries take over by machine.",
            format!(
                "dig +noall +answer {domain} DNSKEY | dnssec-dsfromkey -2 -f - {domain}   # the DS record to enter"
            ),
        ),
    };
    findings.add(
        Check::DnssecNoDs,
        format!("the zone of {domain} is signed, but its parent has no DS record for it"),
        why,
        [remedy],
    );
    match found.has_cds {
        true => findings.name_cause(
            Cause::DsWanted,
            format!("{domain} asks its parent for a DS record by CDS, and the parent has none yet."),
        ),
        false => findings.name_cause(
            Cause::DsNotEntered,
            "The zone has keys and signatures, but neither a DS record at the parent nor a CDS record that asks for one.",
        ),
    }
}

fn compare_servers(seen: &ObservedDomain, said: &[ServerAnswer], findings: &mut Findings) {
    let name = format!("_mta-sts.{}", seen.domain);
    let answers = |one: &&ServerAnswer| one.answer.as_ref().err().is_none_or(DnsError::is_absence);
    let (good, lame): (Vec<&ServerAnswer>, Vec<&ServerAnswer>) = said.iter().partition(answers);
    // When no server answers, this network blocks direct queries: the resolver did get an answer.
    for one in lame.iter().filter(|_| !good.is_empty()) {
        let why = one.answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
        findings.add(
            Check::DnsNsLame,
            format!("the name server {} does not answer for {name}: {why}", one.server),
            "Resolvers lose time with it, and the domain fails when the other servers do. Fix the server or remove its NS record.",
            [format!("dig @{} {name} TXT +norecurse", one.server)],
        );
    }
    let response = |one: &ServerAnswer| match &one.answer {
        Ok(answer) => texts(answer),
        Err(_) => vec!["nothing".to_owned()],
    };
    let Some(first) = good.first() else { return };
    if let Some(other) = good.iter().find(|one| response(one) != response(first)) {
        findings.add(
            Check::DnsNsDisagree,
            format!(
                "name servers disagree about {name}: {} returns {}, {} returns {}",
                first.server,
                response(first).join(" | "),
                other.server,
                response(other).join(" | ")
            ),
            "The policy that a sender gets depends on the server that its resolver queries. Right after a change this \
             resolves itself; otherwise check zone transfers and serial numbers.",
            [format!("dig @{} {} SOA +norecurse", other.server, seen.domain)],
        );
    }
}

fn texts(answer: &Answer) -> Vec<String> {
    let mut texts: Vec<String> =
        answer.texts().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    texts.extend(answer.aliases.last().map(|target| format!("CNAME {target}")));
    texts.sort();
    texts
}
