//! The MX hosts of a next hop and the DANE state of each (RFC 5321 §5.1, RFC 7672 §2).
//!
//! The input is a [`NextHop`], parsed from the key of a mail server. The resulting [`Route`] goes to
//! [`super::decide`], which counts the hosts by DANE state.

use formats::limits::MX_HOSTS;
use formats::tls_policy::LookupKey;
use formats::tlsa::TlsaRule;
use formats::{DomainName, limits};
use futures_util::future::join_all;
use net::dane::{self, Dane, NoDane, SMTP_PORT};
use net::dns::{Dns, DnsError, Exchange, HostAddresses, Kind, Security, addresses_of_one_family};
use std::fmt;
use std::time::Duration;
use tracing::Instrument;

/// A next hop that can have a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// A mail domain and the port of its MX hosts; mail goes to these hosts.
    Domain(DomainName, u16),
    /// A single host and its port, without MX lookup; the host is its own policy domain (VAL-13).
    Host(DomainName, u16),
}

impl NextHop {
    /// The next hop of a lookup key; `None` for keys that never have a policy (VAL-12, VAL-14).
    pub fn of(key: LookupKey) -> Option<Self> {
        match key {
            LookupKey::Domain { name, port } => Some(Self::Domain(name, port.unwrap_or(SMTP_PORT))),
            LookupKey::Host { name, port } => Some(Self::Host(name, port.unwrap_or(SMTP_PORT))),
            LookupKey::Parent(_) | LookupKey::Literal(_) => None,
        }
    }

    /// A mail domain on port 25.
    pub fn domain(name: DomainName) -> Self {
        Self::Domain(name, SMTP_PORT)
    }

    /// True for a mail domain on port 25, which is what the DANE states in the store are about.
    pub fn is_mail_domain(&self) -> bool {
        matches!(self, Self::Domain(_, SMTP_PORT))
    }

    /// The policy domain: the name of the domain or host.
    pub fn policy_domain(&self) -> &DomainName {
        match self {
            Self::Domain(name, _) | Self::Host(name, _) => name,
        }
    }
}

impl fmt::Display for NextHop {
    /// Writes the canonical form, which is the key of the cache: `example.org`, `example.org:port`, `[host]` or
    /// `[host]:port`; port 25 is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name, SMTP_PORT) => write!(f, "{name}"),
            Self::Domain(name, port) => write!(f, "{name}:{port}"),
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
    /// The MX lookup failed.
    Unknown(DnsError),
}

/// An MX host with its DANE state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLookup {
    /// The name of the host.
    pub host: DomainName,
    /// The DNSSEC state of the MX answer that named the host. Without MX lookup it is secure.
    pub mx: Security,
    /// The DANE state of the host itself, also behind an insecure MX answer. It is `Unknown` also when the address lookup
    /// failed.
    pub dane: Dane,
    /// Why DANE does not apply; `None` unless [`Self::dane`] is [`Dane::Absent`].
    pub why_absent: Option<NoDane>,
}

/// The MX hosts of a domain, counted by DANE state. The counts saturate at 255.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct DaneHosts {
    /// Hosts with usable TLSA records.
    pub usable: u8,
    /// Hosts with TLSA records of which none is usable: TLS is mandatory, without authentication.
    pub unusable: u8,
    /// Hosts without secure TLSA records, or behind an insecure MX answer.
    pub absent: u8,
    /// Hosts whose lookup failed, so that their TLSA records are unknown.
    pub unknown: u8,
    /// Hosts with secure or unknown TLSA records behind an insecure MX answer; these hosts count as absent, too. RFC 7672
    /// §2.2.1 leaves it to the sender whether DANE applies to them. Postfix at level `dane` applies it, so no answer
    /// may be weaker.
    pub behind_insecure_mx: u8,
}

impl DaneHosts {
    /// Counts hosts by DANE state.
    pub fn of(hosts: &[HostLookup]) -> Self {
        let mut count = Self::default();
        for host in hosts {
            let is_behind_insecure_mx = host.mx != Security::Secure;
            if is_behind_insecure_mx && host.dane != Dane::Absent {
                count.behind_insecure_mx = count.behind_insecure_mx.saturating_add(1);
            }
            let one = match &host.dane {
                _ if is_behind_insecure_mx => &mut count.absent,
                Dane::Applies { rule: TlsaRule::Authenticate(_), .. } => &mut count.usable,
                Dane::Applies { .. } => &mut count.unusable,
                Dane::Absent => &mut count.absent,
                Dane::Unknown(_) => &mut count.unknown,
            };
            *one = one.saturating_add(1);
        }
        count
    }

    /// True if a host has TLSA records that DANE applies to, or may have.
    pub fn has_dane(self) -> bool {
        self.usable > 0 || self.unusable > 0 || self.unknown > 0
    }

    /// The text form in the store: five numbers, separated by spaces.
    pub fn to_text(self) -> String {
        let Self { usable, unusable, absent, unknown, behind_insecure_mx } = self;
        format!("{usable} {unusable} {absent} {unknown} {behind_insecure_mx}")
    }

    /// Parses the text form; `None` for an empty text, which means that the hosts were never looked up.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let (usable, unusable, absent, unknown) = (next()?, next()?, next()?, next()?);
        // Stores of earlier versions have four numbers; any host without TLSA may then be behind an insecure MX answer.
        let behind_insecure_mx = next().unwrap_or(absent);
        Some(Self { usable, unusable, absent, unknown, behind_insecure_mx })
    }
}

/// A route with its TTL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteLookup {
    /// The MX hosts, or why there are none.
    pub route: Route,
    /// The shortest TTL of the DNS answers; `None` when none had one.
    pub ttl: Option<Duration>,
}

/// Looks up the MX hosts of a next hop and their DANE states.
pub async fn look_up(dns: &dyn Dns, hop: &NextHop) -> RouteLookup {
    let looking = async {
        match hop {
            NextHop::Host(name, port) => hosts(dns, vec![name.clone()], Security::Secure, *port, None).await,
            NextHop::Domain(name, port) => domain(dns, name, *port).await,
        }
    };
    looking.instrument(tracing::info_span!(target: net::TRACES, "MX and TLSA records")).await
}

async fn domain(dns: &dyn Dns, name: &DomainName, port: u16) -> RouteLookup {
    let lookup = |route, ttl| RouteLookup { route, ttl };
    match dns.lookup(name, Kind::Mx).await {
        Ok(answer) => {
            let ttl = Some(answer.ttl);
            if answer.mx().iter().all(|mx| mx.exchange == Exchange::Null) {
                return lookup(Route::NullMx, ttl);
            }
            let mut names = answer.mx_hosts();
            let looked_up = names.by_ref().take(MX_HOSTS).collect();
            let mut lookup = hosts(dns, looked_up, answer.security, port, ttl).await;
            // Further hosts are not looked up. One of them stands for all, so that the level does not exclude them.
            if let (Some(host), Route::Hosts(hosts)) = (names.next(), &mut lookup.route) {
                let why_absent = Some(NoDane::NotLookedUp);
                hosts.push(HostLookup { host, mx: answer.security, dane: Dane::Absent, why_absent });
            }
            lookup
        }
        // VAL-25: without MX records the domain itself is the MX.
        Err(DnsError::NoSuchRecord(nothing)) => {
            hosts(dns, vec![name.clone()], nothing.security, port, nothing.ttl).await
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
    let lookup = match addresses_of_one_family(dns, &host).await {
        Ok(addresses) => dane::look_up_host(dns, (&host, port), &addresses).await,
        Err(error) => match error.nothing() {
            // The absence may be that of an unsigned name which the host is a secure alias of. Then the TLSA records at the
            // host's own name count (RFC 7672 §2.2.2).
            Some(nothing) => {
                let (addresses, ttl) = (Vec::new(), nothing.ttl.unwrap_or(Duration::MAX));
                let aliases = vec![host.clone()];
                let none = HostAddresses { addresses, security: Security::Insecure, aliases, ttl };
                let lookup = dane::look_up_host(dns, (&host, port), &none).await;
                let why_absent = lookup.why_absent.and(Some(NoDane::NoAddresses));
                dane::DaneLookup { why_absent, ..lookup }
            }
            None => dane::DaneLookup {
                dane: Dane::Unknown(error),
                why_absent: None,
                ttl: Some(limits::FAILURE_RECHECK),
            },
        },
    };
    // Behind an insecure MX answer, the addresses of a host without DANE have no influence on the answer.
    let ttl = lookup.ttl.filter(|_| mx == Security::Secure || lookup.dane != Dane::Absent);
    (HostLookup { host, mx, dane: lookup.dane, why_absent: lookup.why_absent }, ttl)
}

#[cfg(test)]
mod tests;
