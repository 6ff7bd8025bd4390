//! Decides whether DANE applies to an MX host, and with which TLSA records (RFC 7672 §2.1, §2.2). The input is the
//! DNSSEC state of the MX and address answers; the result goes into [`crate::smtp::TlsDemand::Dane`].

use crate::dns::{Dns, DnsError, HostAddresses, Kind, Security};
use formats::DomainName;
use formats::tlsa::{TlsaRecord, TlsaRule, rule, tlsa_name};
use std::time::Duration;

/// The TCP port of MX hosts.
pub const SMTP_PORT: u16 = 25;

/// Whether DANE applies to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dane {
    /// DANE does not apply: an answer is not secure, or there are no TLSA records.
    Absent,
    /// DANE applies: secure TLSA records were found.
    Applies {
        /// What the usable records require of the host.
        rule: TlsaRule,
        /// The records as published, for the report.
        records: Vec<TlsaRecord>,
        /// The TLSA base domain: the host, or the target of its CNAME records.
        base: DomainName,
    },
    /// The TLSA lookup failed, so the host must be skipped (DANE-03).
    Unknown(DnsError),
}

/// Why DANE does not apply to a host, for [`Dane::Absent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDane {
    /// The MX answer that named the host is not secure (RFC 7672 §2.2.1), and the host itself was not looked up.
    UnsignedMx,
    /// The host does not exist or has no addresses.
    NoAddresses,
    /// The answer with the host's addresses is not secure, so no TLSA records are looked up (RFC 7672 §2.2.2, DANE-04).
    UnsignedHost,
    /// There are no TLSA records.
    NoTlsa,
    /// There are TLSA records, but their answer is not secure.
    UnsignedTlsa,
    /// The domain has more MX hosts than are looked up ([`formats::limits::MX_HOSTS`]).
    NotLookedUp,
}

/// The result of [`look_up`], and how long it may be cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaneLookup {
    /// Whether DANE applies to the host.
    pub dane: Dane,
    /// Why DANE does not apply; `None` unless [`Self::dane`] is [`Dane::Absent`].
    pub why_absent: Option<NoDane>,
    /// The shortest TTL of the answers that the result depends on; `None` when none of them has a TTL.
    pub ttl: Option<Duration>,
}

/// Looks up the TLSA records of a host and port. `mx` is the DNSSEC state of the MX answer that named the host: behind an
/// insecure one DANE does not apply (RFC 7672 §2.2.1). See [`look_up_host`].
pub async fn look_up(
    dns: &dyn Dns,
    mx: Security,
    host: (&DomainName, u16),
    addresses: &HostAddresses,
) -> DaneLookup {
    match mx {
        Security::Secure => look_up_host(dns, host, addresses).await,
        Security::Insecure | Security::Indeterminate => {
            let ttl = (addresses.ttl != Duration::MAX).then_some(addresses.ttl);
            DaneLookup { dane: Dane::Absent, why_absent: Some(NoDane::UnsignedMx), ttl }
        }
    }
}

/// Looks up the TLSA records of a host and port, whatever the DNSSEC state of the MX answer is.
///
/// The TLSA query is sent only if the addresses are secure, since name servers of unsigned zones often fail on TLSA
/// queries (DANE-04), or if the host's name is a secure CNAME to an insecure name (RFC 7672 §2.2.2). The CNAME target is
/// tried before the host's own name (DANE-01).
pub async fn look_up_host(
    dns: &dyn Dns,
    (host, port): (&DomainName, u16),
    addresses: &HostAddresses,
) -> DaneLookup {
    let mut ttl = addresses.ttl;
    let mut result = |dane, why_absent, life: Option<Duration>| {
        ttl = ttl.min(life.unwrap_or(Duration::MAX));
        DaneLookup { dane, why_absent, ttl: (ttl != Duration::MAX).then_some(ttl) }
    };
    let target = addresses.aliases.last().filter(|_| addresses.security == Security::Secure);
    if addresses.security != Security::Secure {
        let unsigned = Some(NoDane::UnsignedHost);
        if addresses.aliases.is_empty() {
            return result(Dane::Absent, unsigned, None);
        }
        match dns.lookup(host, Kind::Cname).await {
            Ok(answer) if answer.security == Security::Secure => {}
            Ok(answer) => return result(Dane::Absent, unsigned, Some(answer.ttl)),
            // Without addresses the alias is an assumption of the caller. An alias that was followed to the addresses can
            // be absent only in an unsigned zone; else one of the two answers is forged, and the host may have DANE.
            Err(DnsError::NoSuchName(nothing) | DnsError::NoSuchRecord(nothing)) => {
                match addresses.addresses.is_empty() || nothing.security == Security::Insecure {
                    true => return result(Dane::Absent, unsigned, None),
                    false => return result(Dane::Unknown(DnsError::Bogus), None, None),
                }
            }
            Err(error) => return result(Dane::Unknown(error), None, None),
        }
    }
    let mut last = result(Dane::Absent, Some(NoDane::NoTlsa), None);
    for base in target.into_iter().chain([host]) {
        let Ok(name) = tlsa_name(base, port) else { continue };
        match dns.lookup(&name, Kind::Tlsa).await {
            Ok(answer) if answer.security == Security::Secure => {
                let records = answer.tlsa();
                let applies = Dane::Applies { rule: rule(&records), records, base: base.clone() };
                return result(applies, None, Some(answer.ttl));
            }
            Ok(answer) => last = result(Dane::Absent, Some(NoDane::UnsignedTlsa), Some(answer.ttl)),
            Err(error) => match error.nothing() {
                // A negative answer counts only if it is proven, or the zone is proven to be unsigned.
                Some(nothing) if nothing.security == Security::Indeterminate => {
                    return result(Dane::Unknown(DnsError::Bogus), None, None);
                }
                Some(nothing) => last = result(Dane::Absent, Some(NoDane::NoTlsa), nothing.ttl),
                None => return result(Dane::Unknown(error), None, None),
            },
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoxFuture;
    use crate::dns::{Absence, Answer};
    use std::net::{IpAddr, Ipv4Addr};

    /// Every name exists and has no record.
    struct NoRecords(Security);

    impl Dns for NoRecords {
        fn lookup<'a>(&'a self, _: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            let nothing = Absence { security: self.0, ttl: None };
            Box::pin(std::future::ready(Err(DnsError::NoSuchRecord(nothing))))
        }
    }

    #[tokio::test]
    async fn an_alias_that_was_followed_and_is_provably_absent_is_forged() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let host = name("mx.example.org");
        let look = async |addresses: Vec<IpAddr>, alias: &str, absence| {
            let (security, ttl) = (Security::Insecure, Duration::MAX);
            let found = HostAddresses { addresses, security, aliases: vec![name(alias)], ttl };
            look_up_host(&NoRecords(absence), (&host, SMTP_PORT), &found).await.dane
        };
        let address = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let forged = Dane::Unknown(DnsError::Bogus);
        assert_eq!(look(address(), "web.hoster.net", Security::Secure).await, forged);
        assert_eq!(look(address(), "web.hoster.net", Security::Indeterminate).await, forged);
        assert_eq!(look(address(), "web.hoster.net", Security::Insecure).await, Dane::Absent);
        // An alias that the caller assumes for a host without addresses.
        assert_eq!(look(Vec::new(), "mx.example.org", Security::Secure).await, Dane::Absent);
    }
}
