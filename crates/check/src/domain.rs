//! Checks of the domain name, its MX records and the addresses of the MX hosts (RFC 5321 §5.1, RFC 7505).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::observed::{ObservedDomain, ObservedMxHost};
use net::dns::{DnsError, Exchange};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// Returns false when no MX host is known, so that the other topics have nothing to check.
pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) -> bool {
    findings.mark_examined(&[Part::Domain]);
    name(seen, findings);
    let domain = &seen.domain;
    match &seen.mx {
        Ok(answer) => {
            if answer.ttl > DAY {
                findings.add(
                    Check::MxTtl,
                    format!("the MX records of {domain} have a TTL of {} seconds", answer.ttl.as_secs()),
                    "Senders notice a change of MX hosts only after that time. A TTL of one day or less is usual.",
                    [],
                );
            }
        }
        Err(DnsError::NoSuchName(_)) => {
            findings.add(
                Check::DomNxdomain,
                format!("{domain} does not exist"),
                "No mail can be sent to it. Check the spelling and the delegation of the domain.",
                [],
            );
            return false;
        }
        Err(DnsError::NoSuchRecord(_)) => {
            findings.add(
                Check::MxNone,
                format!("{domain} has no MX record, so its own address is the implicit MX"),
                "This works, but the policy has to list the domain itself. Publish an explicit MX record, or a null \
                 MX if the domain accepts no mail.",
                [format!("{domain}.  MX  10 {domain}."), format!("{domain}.  MX  0 .   ; accepts no mail")],
            );
        }
        Err(error) => {
            findings.dns_failure(&format!("the MX records of {domain}"), error);
            return false;
        }
    }
    findings.mark_examined(&[Part::Mx]);
    values(seen, findings);
    seen.hosts.iter().for_each(|host| addresses(seen, host, findings));
    set(seen, findings);
    !seen.hosts.is_empty()
}

fn name(seen: &ObservedDomain, findings: &mut Findings) {
    let domain = &seen.domain;
    let unicode = domain.to_unicode();
    if unicode != domain.as_str() {
        findings.add(
            Check::DomIdn,
            format!("{unicode} is written {domain} in DNS"),
            "Records, certificates and policies contain the A-labels, and so does this report.",
            [],
        );
    }
    let text = domain.as_str();
    if suffix::is_public_suffix(text) {
        findings.add(
            Check::DomPublicSuffix,
            format!("{domain} is a public suffix"),
            "Domains below it belong to other parties; a policy published here does not apply to them.",
            [],
        );
    }
    if let Some(registered) = suffix::registered_domain(text).filter(|registered| *registered != text) {
        findings.add(
            Check::DomSubdomain,
            format!("{domain} is a subdomain of {registered}"),
            "A policy of the parent domain does not apply to it. It needs its own record and policy host.",
            [],
        );
    }
}

fn values(seen: &ObservedDomain, findings: &mut Findings) {
    let Ok(answer) = &seen.mx else { return };
    let domain = &seen.domain;
    let others = !seen.hosts.is_empty();
    for mx in answer.mx() {
        match mx.exchange {
            // An IPv4 address in an MX record is a name made of digits, which does not resolve.
            Exchange::Host(host) if host.as_str().parse::<std::net::Ipv4Addr>().is_ok() => findings.add(
                Check::MxAddress,
                format!("the MX value {host} is an address, not a host name"),
                "Senders look it up as a name, get no address and skip it. Publish a host name with that address.",
                [format!("{domain}.  MX  {} mail.{domain}.", mx.preference), format!("mail.{domain}.  A  {host}")],
            ),
            Exchange::Host(_) => {}
            Exchange::Null if others => findings.add_as(
                Severity::Warning,
                Check::MxNull,
                format!("{domain} has a null MX next to other MX records"),
                "A null MX has to be the only MX record (RFC 7505), and senders handle this differently. Remove the null MX or \
                 the other records.",
                [],
            ),
            Exchange::Null => findings.add(
                Check::MxNull,
                format!("{domain} has a null MX: it accepts no mail"),
                "Neither MTA-STS nor TLSRPT is needed.",
                [],
            ),
            Exchange::Invalid(text) => findings.add(
                Check::MxAddress,
                format!("the MX value {text:?} is not a host name"),
                "Senders skip it. An MX record has to contain a host name.",
                [format!("{domain}.  MX  {} mail.{domain}.", mx.preference)],
            ),
        }
    }
}

fn addresses(seen: &ObservedDomain, host: &ObservedMxHost, findings: &mut Findings) {
    let name = &host.name;
    let found = match &host.addresses {
        Ok(found) => found,
        Err(error) if error.is_absence() => {
            return findings.add(
                Check::MxUnresolved,
                format!("the MX host {name} has no address"),
                "Senders can't reach it. They try the next MX host, or retry later.",
                [format!("{name}.  A  192.0.2.1   ; replace with the address of the host")],
            );
        }
        Err(error) => return findings.dns_failure(&format!("the addresses of {name}"), error),
    };
    if let Some(target) = found.aliases.last() {
        findings.add(
            Check::MxCname,
            format!("the MX host name {name} is a CNAME to {target}"),
            "An MX record has to name a host, not an alias, and some senders refuse it. The policy and the \
             certificate have to contain the name in the MX record.",
            [format!("{name}.  A  {}   ; instead of the CNAME", shown(&found.addresses))],
        );
    }
    for address in &found.addresses {
        if let Some(what) = seen.special(*address) {
            findings.add(
                Check::MxPrivate,
                format!("{name} has the address {address}, which is {what}"),
                "Senders on the internet can't reach it: the connection times out, or reaches a host in their own network.",
                [format!("{name}.  A  PUBLIC-ADDRESS   ; the address at which other networks reach this host")],
            );
        }
    }
}

fn shown(addresses: &[std::net::IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn set(seen: &ObservedDomain, findings: &mut Findings) {
    let hosts = &seen.hosts;
    if hosts.is_empty() {
        return;
    }
    if let [only] = hosts.as_slice() {
        findings.add(
            Check::MxSingle,
            format!("{} is the only MX host", only.name),
            "While it is down, senders queue the mail and retry, usually for several days. That is sufficient for many domains.",
            [],
        );
    }
    let resolved = || hosts.iter().filter_map(|host| host.addresses.as_ref().ok());
    let has_ipv6 = resolved().any(|found| found.addresses.iter().any(std::net::IpAddr::is_ipv6));
    if !has_ipv6 && resolved().next().is_some() {
        findings.add(
            Check::MxIpv6,
            "no MX host has an IPv6 address".to_owned(),
            "Senders without IPv4 can't deliver mail; there are few of them.",
            [],
        );
    }
    let mut preferences: Vec<u16> = hosts.iter().map(|host| host.preference).collect();
    preferences.sort_unstable();
    if let Some(twice) = preferences
        .windows(2)
        .find_map(|pair| (pair.first() == pair.last()).then(|| pair.first().copied()).flatten())
    {
        let names: Vec<&str> =
            hosts.iter().filter(|host| host.preference == twice).map(|host| host.name.as_str()).collect();
        findings.add(
            Check::MxDuplicatePref,
            format!("{} have the same preference, {twice}", names.join(", ")),
            "Senders try them in random order. All of them were checked.",
            [],
        );
    }
}
