//! Where mail for a next hop goes, and what DANE says of each host there (RFC 7672 §2).

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
    /// A mail domain, whose MX hosts are used.
    Domain(DomainName),
    /// One host, which is its own policy domain (VAL-13).
    Host(DomainName, u16),
}

impl NextHop {
    /// The next hop of a look-up key; none for those that never have a policy (VAL-12, VAL-14).
    pub fn of(key: LookupKey) -> Option<Self> {
        match key {
            LookupKey::Domain { name, .. } => Some(Self::Domain(name)),
            LookupKey::Host { name, port } => Some(Self::Host(name, port.unwrap_or(SMTP_PORT))),
            LookupKey::Parent(_) | LookupKey::Literal(_) => None,
        }
    }

    /// The policy domain.
    pub fn policy_domain(&self) -> &DomainName {
        match self {
            Self::Domain(name) | Self::Host(name, _) => name,
        }
    }
}

impl fmt::Display for NextHop {
    /// The one form under which it is remembered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => write!(f, "{name}"),
            Self::Host(name, SMTP_PORT) => write!(f, "[{name}]"),
            Self::Host(name, port) => write!(f, "[{name}]:{port}"),
        }
    }
}

/// Where mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To these hosts, the preferred ones first.
    Hosts(Vec<HostLookup>),
    /// Nowhere: there is no such domain.
    NoDomain,
    /// Nowhere: the domain takes no mail (RFC 7505).
    NullMx,
    /// That can't be known now.
    Unknown(DnsError),
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLookup {
    /// Its name.
    pub host: DomainName,
    /// What DANE says of it. A host whose addresses can't be had is `Unknown` as well, unless it
    /// provably has none.
    pub dane: Dane,
}

/// The hosts of a domain by what DANE says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DaneHosts {
    /// With usable TLSA records.
    pub usable: u8,
    /// With TLSA records of which none is usable: TLS is mandatory, unauthenticated.
    pub unusable: u8,
    /// Without.
    pub absent: u8,
    /// They may have, and nobody knows: skipped.
    pub unknown: u8,
}

impl DaneHosts {
    /// Counts.
    pub fn of(hosts: &[HostLookup]) -> Self {
        let mut count = Self::default();
        for seen in hosts {
            let one = match &seen.dane {
                Dane::Applies { rule: TlsaRule::Authenticate(_), .. } => &mut count.usable,
                Dane::Applies { .. } => &mut count.unusable,
                Dane::Absent => &mut count.absent,
                Dane::Unknown(_) => &mut count.unknown,
            };
            *one = one.saturating_add(1);
        }
        count
    }

    /// As it stands in the store.
    pub fn to_text(self) -> String {
        format!("{} {} {} {}", self.usable, self.unusable, self.absent, self.unknown)
    }

    /// From the store; none when it was never looked at.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { usable: next()?, unusable: next()?, absent: next()?, unknown: next()? })
    }
}

/// What was seen, and for how long it may be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLookup {
    /// Where mail goes.
    pub route: Route,
    /// The shortest life of the answers, when any has one.
    pub ttl: Option<Duration>,
}

/// Looks a next hop up.
pub async fn look(dns: &dyn Dns, hop: &NextHop) -> RouteLookup {
    match hop {
        NextHop::Host(name, port) => hosts(dns, vec![name.clone()], Security::Secure, *port, None).await,
        NextHop::Domain(name) => domain(dns, name).await,
    }
}

async fn domain(dns: &dyn Dns, name: &DomainName) -> RouteLookup {
    let end = |route, ttl| RouteLookup { route, ttl };
    match dns.lookup(name, Kind::Mx).await {
        Ok(answer) => {
            let ttl = Some(answer.ttl);
            if answer.mx().iter().all(|mx| mx.exchange == Exchange::Null) {
                return end(Route::NullMx, ttl);
            }
            hosts(dns, answer.mx_hosts().take(MX_HOSTS).collect(), answer.security, SMTP_PORT, ttl).await
        }
        // VAL-25: without MX records the domain itself is the MX.
        Err(DnsError::NoSuchRecord(nothing)) => {
            hosts(dns, vec![name.clone()], nothing.security, SMTP_PORT, nothing.ttl).await
        }
        Err(DnsError::NoSuchName(nothing)) => end(Route::NoDomain, nothing.ttl),
        Err(error) => end(Route::Unknown(error), None),
    }
}

async fn hosts(
    dns: &dyn Dns,
    names: Vec<DomainName>,
    mx: Security,
    port: u16,
    ttl: Option<Duration>,
) -> RouteLookup {
    let looks = names.into_iter().map(|host| host_seen(dns, host, mx, port));
    let (hosts, lives): (Vec<_>, Vec<_>) = join_all(looks).await.into_iter().unzip();
    let ttl = lives.into_iter().flatten().chain(ttl).min();
    RouteLookup { route: Route::Hosts(hosts), ttl }
}

async fn host_seen(
    dns: &dyn Dns,
    host: DomainName,
    mx: Security,
    port: u16,
) -> (HostLookup, Option<Duration>) {
    if mx != Security::Secure {
        return (HostLookup { host, dane: Dane::Absent }, None);
    }
    let seen = match host_addresses(dns, &host).await {
        Ok(addresses) => dane::look_up(dns, mx, (&host, port), &addresses).await,
        Err(error) => match error.nothing() {
            Some(nothing) => dane::DaneLookup { dane: Dane::Absent, ttl: nothing.ttl },
            None => dane::DaneLookup { dane: Dane::Unknown(error), ttl: Some(limits::FAILURE_RECHECK) },
        },
    };
    (HostLookup { host, dane: seen.dane }, seen.ttl)
}
