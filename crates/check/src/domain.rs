//! The domain's name and its MX records (RFC 5321 §5.1, RFC 7505).

use crate::catalogue::{Check, Part, Severity};
use crate::finding::Findings;
use crate::observed::{ObservedDomain, ObservedMxHost};
use net::dns::{DnsError, Exchange};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// False when there is nothing more to look at.
pub(crate) fn check(seen: &ObservedDomain, findings: &mut Findings) -> bool {
    findings.looked_at(&[Part::Domain]);
    name(seen, findings);
    let domain = &seen.domain;
    match &seen.mx {
        Ok(answer) => {
            if answer.ttl > DAY {
                findings.add(
                    Check::MxTtl,
                    format!("the MX records of {domain} live for {} seconds", answer.ttl.as_secs()),
                    "A change of MX hosts is seen that late. A day or less is usual.",
                    [],
                );
            }
        }
        Err(DnsError::NoSuchName(_)) => {
            findings.add(
                Check::DomNxdomain,
                format!("{domain} does not exist"),
                "No mail can be sent to it. Check the spelling, and that the domain is delegated.",
                [],
            );
            return false;
        }
        Err(DnsError::NoSuchRecord(_)) => {
            findings.add(
                Check::MxNone,
                format!("{domain} has no MX record; its own address is the implicit MX"),
                "It works, and the policy has to name the domain itself. Better say it outright; or say that \
                 it takes no mail.",
                [format!("{domain}.  MX  10 {domain}."), format!("{domain}.  MX  0 .   ; no mail")],
            );
        }
        Err(error) => {
            findings.dns_failure(&format!("the MX records of {domain}"), error);
            return false;
        }
    }
    findings.looked_at(&[Part::Mx]);
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
            format!("{unicode} is {domain} in DNS"),
            "Records, certificates and policies carry the A-labels; so does everything below.",
            [],
        );
    }
    let text = domain.as_str();
    if is_public_suffix(text) {
        findings.add(
            Check::DomPublicSuffix,
            format!("{domain} is a public suffix"),
            "Domains below it belong to others; a policy here says nothing about them.",
            [],
        );
    }
    if let Some(registered) = psl::domain_str(text).filter(|registered| *registered != text) {
        findings.add(
            Check::DomSubdomain,
            format!("{domain} is a name below {registered}"),
            "A policy of the parent never applies to it: it needs a record and a policy host of its own.",
            [],
        );
    }
}

/// True for names under which strangers register theirs.
pub(crate) fn is_public_suffix(name: &str) -> bool {
    psl::suffix(name.as_bytes()).is_some_and(|suffix| suffix.is_known() && suffix == name)
}

fn values(seen: &ObservedDomain, findings: &mut Findings) {
    let Ok(answer) = &seen.mx else { return };
    let domain = &seen.domain;
    let others = !seen.hosts.is_empty();
    for mx in answer.mx() {
        match mx.exchange {
            // An address written as a name is a name of digits, which nobody can resolve.
            Exchange::Host(host) if host.as_str().parse::<std::net::Ipv4Addr>().is_ok() => findings.add(
                Check::MxAddress,
                format!("the MX value {host} is an address, not a host name"),
                "Senders look it up as a name, find nothing, and skip it.",
                [format!("{domain}.  MX  {} mail.{domain}.", mx.preference), format!("mail.{domain}.  A  {host}")],
            ),
            Exchange::Host(_) => {}
            Exchange::Null if others => findings.add_as(
                Severity::Warning,
                Check::MxNull,
                format!("{domain} has the null MX beside other MX records"),
                "The null MX has to stand alone; what senders make of this differs. Take one or the others out.",
                [],
            ),
            Exchange::Null => findings.add(
                Check::MxNull,
                format!("{domain} has the null MX: it takes no mail"),
                "Neither MTA-STS nor TLSRPT is needed.",
                [],
            ),
            Exchange::Invalid(text) => findings.add(
                Check::MxAddress,
                format!("the MX value {text:?} is not a host name"),
                "Senders skip it: the name of a host is called for, not an address.",
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
                "Senders can't reach it and go on to the next, or wait.",
                [format!("{name}.  A  192.0.2.1   ; its address")],
            );
        }
        Err(error) => return findings.dns_failure(&format!("the addresses of {name}"), error),
    };
    if let Some(target) = found.aliases.last() {
        findings.add(
            Check::MxCname,
            format!("the MX host {name} is a CNAME of {target}"),
            "An MX has to name a host, not an alias; some senders refuse it. The name in the MX record is the \
             one that policy and certificate have to carry.",
            [format!("{name}.  A  {}   ; in place of the CNAME", shown(&found.addresses))],
        );
    }
    for address in &found.addresses {
        if let Some(what) = seen.special(*address) {
            findings.add(
                Check::MxPrivate,
                format!("{name} has the address {address}, which is {what}"),
                "Nobody outside reaches it: senders wait for it to time out, or deliver to a machine of their own.",
                [format!("{name}.  A  192.0.2.1   ; a public address, and none beside it that is not")],
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
            "When it is down, mail waits with its senders, for days if need be. That is fine for many.",
            [],
        );
    }
    let resolved = || hosts.iter().filter_map(|host| host.addresses.as_ref().ok());
    let has_ipv6 = resolved().any(|found| found.addresses.iter().any(std::net::IpAddr::is_ipv6));
    if !has_ipv6 && resolved().next().is_some() {
        findings.add(
            Check::MxIpv6,
            "no MX host has an IPv6 address".to_owned(),
            "Senders that have IPv6 only can't deliver; they are few.",
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
            format!("{} share preference {twice}", names.join(", ")),
            "Senders take any of them first; all were looked at.",
            [],
        );
    }
}
