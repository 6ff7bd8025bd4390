//! The domains of the search: each kind of policy, of DANE, and of a chain of trust that begins or ends half way.

use formats::Mode;
use formats::tlsa::TlsaRecord;
use lab::Lab;
use lab::dns::{Rr, Signing};
use lab::pki::{Cert, Identity};
use lab::policy_host::{HttpBehavior, Site};
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// What the honest zones prove about the MX hosts of a domain (RFC 7672 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dane {
    /// Nothing: DANE does not apply.
    No,
    /// All hosts have usable TLSA records.
    All,
    /// Some hosts have usable TLSA records, the others have none.
    Some,
    /// The hosts have TLSA records of which none is usable.
    Unusable,
}

/// A domain of the search.
#[derive(Debug, Clone, Copy)]
pub struct Domain {
    pub name: &'static str,
    pub signing: Signing,
    pub mx: &'static [&'static str],
    pub dane: Dane,
    /// The mode of the first policy; `None` for a domain that never has one.
    pub mode: Option<Mode>,
}

const fn domain(name: &'static str, signing: Signing, dane: Dane, mode: Option<Mode>) -> Domain {
    Domain { name, signing, mx: &["mx1"], dane, mode }
}

const fn with_mx(mx: &'static [&'static str], domain: Domain) -> Domain {
    Domain { mx, ..domain }
}

/// An MX host in a signed zone, with TLSA records.
const SIGNED_HOST: &str = "mx.hoster.test";
/// An MX host in an unsigned zone, whose TLSA records do not count.
const PLAIN_HOST: &str = "mx.plain-hoster.test";

/// The domain with a wildcard.
const WILD: &str = "wild.test";

/// The domain whose hosts and TLSA records come from a wildcard.
const FROM_WILDCARD: &str = "from-wildcard.test";

/// A host without a dot in its name is below the domain. A domain below another is in the zone of its parent.
pub const DOMAINS: &[Domain] = &[
    domain("plain.test", Signing::Unsigned, Dane::No, Some(Mode::Enforce)),
    domain("bare.test", Signing::Unsigned, Dane::No, None),
    domain("dane.test", Signing::Signed, Dane::All, None),
    domain("both.test", Signing::Signed, Dane::All, Some(Mode::Enforce)),
    domain("signed-bare.test", Signing::Signed, Dane::No, None),
    domain("signed-sts.test", Signing::Signed, Dane::No, Some(Mode::Enforce)),
    with_mx(&[PLAIN_HOST], domain("half.test", Signing::Signed, Dane::No, None)),
    with_mx(&[PLAIN_HOST], domain("half-sts.test", Signing::Signed, Dane::No, Some(Mode::Enforce))),
    with_mx(&[SIGNED_HOST], domain("customer.test", Signing::Unsigned, Dane::No, Some(Mode::Testing))),
    with_mx(&[SIGNED_HOST], domain("customer-sts.test", Signing::Unsigned, Dane::No, Some(Mode::Enforce))),
    with_mx(&["mx1", PLAIN_HOST], domain("mixed.test", Signing::Signed, Dane::Some, None)),
    with_mx(
        &[SIGNED_HOST, PLAIN_HOST],
        domain("mixed-sts.test", Signing::Signed, Dane::Some, Some(Mode::Enforce)),
    ),
    domain("unusable.test", Signing::Signed, Dane::Unusable, None),
    domain("unusable-sts.test", Signing::Signed, Dane::Unusable, Some(Mode::Enforce)),
    // Without MX records the domain itself is the MX host.
    with_mx(&[], domain("implicit.test", Signing::Signed, Dane::All, None)),
    // The host is a secure alias of a host in an unsigned zone (RFC 7672 §2.2.2).
    with_mx(&["alias"], domain("alias.test", Signing::Signed, Dane::All, None)),
    // A wildcard alias stands beside the host.
    domain(WILD, Signing::Signed, Dane::All, None),
    // The host and its TLSA records come from a wildcard.
    with_mx(&["mx1.site.hosts.from-wildcard.test"], domain(FROM_WILDCARD, Signing::Signed, Dane::All, None)),
    domain("dane.isle.test", Signing::Signed, Dane::All, None),
    domain("plain.isle.test", Signing::Unsigned, Dane::No, Some(Mode::Enforce)),
    // A signed zone below an unsigned one has no chain of trust.
    domain("signed.unsigned.test", Signing::Signed, Dane::No, None),
    domain("a.unsigned.test", Signing::Unsigned, Dane::No, Some(Mode::Enforce)),
    domain("b.unsigned.test", Signing::Unsigned, Dane::No, Some(Mode::Testing)),
];

/// Siblings in one zone without a delegation.
const IN_ZONE_OF_PARENT: [&str; 2] = ["a.unsigned.test", "b.unsigned.test"];

impl Domain {
    /// The names that the service asks about, with the final dot.
    pub fn names(&self) -> Vec<String> {
        let name = self.name;
        let mut names = vec![format!("{name}."), format!("_mta-sts.{name}."), format!("mta-sts.{name}.")];
        names.extend((self.name == WILD).then(|| format!("any.{name}.")));
        for host in self.hosts() {
            names.extend([format!("_25._tcp.{host}."), format!("{host}.")]);
        }
        names
    }

    /// The MX hosts.
    pub fn hosts(&self) -> Vec<String> {
        let full = |host: &&str| match host.contains('.') {
            true => (*host).to_owned(),
            false => format!("{host}.{}", self.name),
        };
        let hosts: Vec<String> = self.mx.iter().map(full).collect();
        if hosts.is_empty() { vec![self.name.to_owned()] } else { hosts }
    }

    /// The zone and its ancestors, with the final dot.
    pub fn zones(&self) -> Vec<String> {
        let mut zones = vec![".".to_owned()];
        let labels: Vec<&str> = self.name.split('.').collect();
        zones.extend((0..labels.len()).map(|at| format!("{}.", labels[at..].join("."))));
        zones
    }
}

/// Zones that no domain of the search is named after.
pub const MORE_ZONES: [(&str, Signing); 4] = [
    ("hoster.test.", Signing::Signed),
    ("plain-hoster.test.", Signing::Unsigned),
    ("isle.test.", Signing::Signed),
    ("unsigned.test.", Signing::Unsigned),
];

fn tlsa(usage: u8, version: u8) -> Rr {
    Rr::Tlsa(TlsaRecord { usage, selector: 1, matching: 1, data: vec![version; 32] })
}

fn tlsa_of(host: &str, usage: u8, version: u8) -> (String, Vec<Rr>) {
    (format!("_25._tcp.{host}."), vec![tlsa(usage, version)])
}

/// Publishes all domains, and issues the certificates of their policy hosts.
pub fn publish_all(lab: &Lab) -> HashMap<&'static str, Identity> {
    let here = || vec![Rr::A(lab.policy_host_address())];
    for (zone, signing) in MORE_ZONES {
        lab.names.add_zone(zone, signing).unwrap();
    }
    for host in [SIGNED_HOST, PLAIN_HOST] {
        lab.names.set(&format!("{host}."), here()).unwrap();
        let (name, records) = tlsa_of(host, 3, 1);
        lab.names.set(&name, records).unwrap();
    }
    let mut identities = HashMap::new();
    for domain in DOMAINS {
        let origin = format!("{}.", domain.name);
        if !IN_ZONE_OF_PARENT.contains(&domain.name) {
            lab.names.add_zone(&origin, domain.signing).unwrap();
        }
        let mx: Vec<Rr> = domain.hosts().iter().map(|host| Rr::Mx(10, format!("{host}."))).collect();
        let mut records = vec![(origin.clone(), if domain.mx.is_empty() { here() } else { mx })];
        let own = |host: &&String| host.ends_with(domain.name);
        for host in domain.hosts().iter().filter(own) {
            match host.starts_with("alias.") && domain.mx == ["alias"] {
                true => records.push((format!("{host}."), vec![Rr::Cname(format!("{PLAIN_HOST}."))])),
                false => records.push((format!("{host}."), here())),
            }
            let has_tlsa = domain.dane != Dane::No || domain.name == "signed.unsigned.test";
            let usage = if domain.dane == Dane::Unusable { 1 } else { 3 };
            records.extend(has_tlsa.then(|| tlsa_of(host, usage, 1)));
        }
        if domain.mode.is_some() {
            let host = format!("mta-sts.{}", domain.name);
            records.push((format!("{host}."), here()));
            identities.insert(domain.name, lab.pki.issue(&host, Cert::Good).unwrap());
        }
        if domain.name == WILD {
            records.push((format!("*.{origin}"), vec![Rr::Cname(format!("{PLAIN_HOST}."))]));
        }
        for (name, data) in records {
            lab.names.set(&owner_of(domain, name), data).unwrap();
        }
    }
    identities
}

/// The policy file of a version of a domain. Each version has an `mx` of its own.
pub fn policy(domain: &Domain, version: u32, mode: Mode, max_age: u32) -> String {
    let name = domain.name;
    let mx: String = domain.hosts().iter().map(|host| format!("mx: {host}\n")).collect();
    format!("version: STSv1\nmode: {}\n{mx}mx: v{version}.{name}\nmax_age: {max_age}\n", mode.as_str())
}

/// Publishes a version of a policy: the record and the file.
pub fn publish(lab: &Lab, domain: &Domain, identity: &Identity, version: u32, body: &str) {
    let record = Rr::Txt(vec![format!("v=STSv1; id={version};")]);
    lab.names.set(&format!("_mta-sts.{}.", domain.name), vec![record]).unwrap();
    let site = Site { answers: HttpBehavior::Policy(body.to_owned()), identity: identity.clone() };
    lab.sites.put(&format!("mta-sts.{}", domain.name), site);
}

/// Replaces the TLSA records of a domain's own hosts by others that are as usable.
pub fn roll_tlsa(lab: &Lab, domain: &Domain, version: u8) {
    let usage = if domain.dane == Dane::Unusable { 1 } else { 3 };
    for host in domain.hosts().iter().filter(|host| host.ends_with(domain.name)) {
        let (name, records) = tlsa_of(host, usage, version);
        lab.names.set(&owner_of(domain, name), records).unwrap();
    }
}

/// The name that the records for `name` are published at.
fn owner_of(domain: &Domain, name: String) -> String {
    let origin = format!("{}.", domain.name);
    if domain.name == FROM_WILDCARD && name != origin { format!("*.hosts.{origin}") } else { name }
}

/// The name of the attacker's mail server, with the final dot.
pub fn attackers_host() -> String {
    format!("{}.", Lab::attackers_host())
}

/// Where the proxies listen.
pub const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
