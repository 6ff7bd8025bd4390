//! The MX hosts of a next hop and the DANE state of each (RFC 5321 §5.1, RFC 7672 §2).
//!
//! The input is a [`NextHop`], parsed from the key of a mail server. The resulting [`Route`] goes to
//! [`super::decide`], which counts the hosts by DANE state.

use formats::limits::MX_HOSTS;
use formats::tls_policy::LookupKey;
use formats::tlsa::TlsaRule;
use formats::{DomainName, limits};
use futures_util::future::join_all;
use net::dane::{self, Dane, SMTP_PORT};
use net::dns::{Dns, DnsError, Exchange, Kind, Security, host_addresses};
use std::fmt;
use std::time::Duration;

/// A next hop that can have a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// A mail domain; mail goes to its MX hosts.
    Domain(DomainName),
    /// A single host and its port, without MX look-up; the host is its own policy domain (VAL-13).
    Host(DomainName, u16),
}

impl NextHop {
    /// The next hop of a lookup key; `None` for keys that never have a policy (VAL-12, VAL-14).
    pub fn of(key: LookupKey) -> Option<Self> {
        match key {
            LookupKey::Domain { name, .. } => Some(Self::Domain(name)),
            LookupKey::Host { name, port } => Some(Self::Host(name, port.unwrap_or(SMTP_PORT))),
            LookupKey::Parent(_) | LookupKey::Literal(_) => None,
        }
    }

    /// The policy domain: the name of the domain or host.
    pub fn policy_domain(&self) -> &DomainName {
        match self {
            Self::Domain(name) | Self::Host(name, _) => name,
        }
    }
}

impl fmt::Display for NextHop {
    /// Writes the canonical form, which is the key of the cache: `example.org`, `[host]` or `[host]:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => write!(f, "{name}"),
            Self::Host(name, SMTP_PORT) => write!(f, "[{name}]"),
            Self::Host(name, port) => write!(f, "[{name}]:{port}"),
        }
    }
}

/// The hosts that accept mail for a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The MX hosts by preference, at most [`MX_HOSTS`]; without MX records, the domain itself.
    Hosts(Vec<HostLookup>),
    /// The domain does not exist (NXDOMAIN).
    NoDomain,
    /// The domain has the null MX and accepts no mail (RFC 7505).
    NullMx,
    /// The MX look-up failed.
    Unknown(DnsError),
}

/// An MX host with its DANE state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLookup {
    /// The name of the host.
    pub host: DomainName,
    /// The DANE state. It is `Unknown` also when the address look-up failed.
    pub dane: Dane,
}

/// The MX hosts of a domain, counted by DANE state. The counts saturate at 255.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DaneHosts {
    /// Hosts with usable TLSA records.
    pub usable: u8,
    /// Hosts with TLSA records of which none is usable: TLS is mandatory, without authentication.
    pub unusable: u8,
    /// Hosts without secure TLSA records.
    pub absent: u8,
    /// Hosts whose look-up failed, so that their TLSA records are unknown.
    pub unknown: u8,
}

impl DaneHosts {
    /// Counts hosts by DANE state.
    pub fn of(hosts: &[HostLookup]) -> Self {
        let mut count = Self::default();
        for host in hosts {
            let one = match &host.dane {
                Dane::Applies { rule: TlsaRule::Authenticate(_), .. } => &mut count.usable,
                Dane::Applies { .. } => &mut count.unusable,
                Dane::Absent => &mut count.absent,
                Dane::Unknown(_) => &mut count.unknown,
            };
            *one = one.saturating_add(1);
        }
        count
    }

    /// The text form in the store: four numbers, separated by spaces.
    pub fn to_text(self) -> String {
        format!("{} {} {} {}", self.usable, self.unusable, self.absent, self.unknown)
    }

    /// Parses the text form; `None` for an empty text, which means that the hosts were never looked up.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { usable: next()?, unusable: next()?, absent: next()?, unknown: next()? })
    }
}

/// A route with its TTL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLookup {
    /// The hosts.
    pub route: Route,
    /// The shortest TTL of the DNS answers; `None` when none had one.
    pub ttl: Option<Duration>,
}

/// Looks up the MX hosts of a next hop and their DANE states.
pub async fn look_up(dns: &dyn Dns, hop: &NextHop) -> RouteLookup {
    match hop {
        NextHop::Host(name, port) => hosts(dns, vec![name.clone()], Security::Secure, *port, None).await,
        NextHop::Domain(name) => domain(dns, name).await,
    }
}

async fn domain(dns: &dyn Dns, name: &DomainName) -> RouteLookup {
    let lookup = |route, ttl| RouteLookup { route, ttl };
    match dns.lookup(name, Kind::Mx).await {
        Ok(answer) => {
            let ttl = Some(answer.ttl);
            if answer.mx().iter().all(|mx| mx.exchange == Exchange::Null) {
                return lookup(Route::NullMx, ttl);
            }
            hosts(dns, answer.mx_hosts().take(MX_HOSTS).collect(), answer.security, SMTP_PORT, ttl).await
        }
        // VAL-25: without MX records the domain itself is the MX.
        Err(DnsError::NoSuchRecord(nothing)) => {
            hosts(dns, vec![name.clone()], nothing.security, SMTP_PORT, nothing.ttl).await
        }
        Err(DnsError::NoSuchName(nothing)) => lookup(Route::NoDomain, nothing.ttl),
        Err(error) => lookup(Route::Unknown(error), None),
    }
}

async fn hosts(
    dns: &dyn Dns,
    names: Vec<DomainName>,
    mx: Security,
    port: u16,
    ttl: Option<Duration>,
) -> RouteLookup {
    let lookups = names.into_iter().map(|host| look_up_host(dns, host, mx, port));
    let (hosts, ttls): (Vec<_>, Vec<_>) = join_all(lookups).await.into_iter().unzip();
    let ttl = ttls.into_iter().flatten().chain(ttl).min();
    RouteLookup { route: Route::Hosts(hosts), ttl }
}

async fn look_up_host(
    dns: &dyn Dns,
    host: DomainName,
    mx: Security,
    port: u16,
) -> (HostLookup, Option<Duration>) {
    if mx != Security::Secure {
        return (HostLookup { host, dane: Dane::Absent }, None);
    }
    let lookup = match host_addresses(dns, &host).await {
        Ok(addresses) => dane::look_up(dns, mx, (&host, port), &addresses).await,
        Err(error) => match error.nothing() {
            Some(nothing) => dane::DaneLookup { dane: Dane::Absent, ttl: nothing.ttl },
            None => dane::DaneLookup { dane: Dane::Unknown(error), ttl: Some(limits::FAILURE_RECHECK) },
        },
    };
    (HostLookup { host, dane: lookup.dane }, lookup.ttl)
}
