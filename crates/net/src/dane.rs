//! Whether DANE applies to an MX host, and with which records (RFC 7672 §2.1, §2.2).

use crate::dns::{Dns, DnsError, HostAddresses, Kind, Security};
use formats::DomainName;
use formats::tlsa::{TlsaRecord, TlsaRule, rule, tlsa_name};
use std::time::Duration;

/// The port of MX hosts.
pub const SMTP_PORT: u16 = 25;

/// What DANE says about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dane {
    /// Nothing: not signed somewhere on the way, or no records.
    Absent,
    /// These records, found at this name.
    Applies {
        /// The rule that they make.
        rule: TlsaRule,
        /// The records as they came, for the report.
        records: Vec<TlsaRecord>,
        /// The TLSA base domain.
        base: DomainName,
    },
    /// They are there or may be, and can't be had: the host is skipped (DANE-03).
    Unknown(DnsError),
}

/// What DANE says, and for how long the answers may be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaneLookup {
    /// What it says.
    pub dane: Dane,
    /// The shortest life of the answers that it rests on, when any has one.
    pub ttl: Option<Duration>,
}

/// Looks for the TLSA records of a host at a port. `mx` is the state of the answer that named it.
///
/// No look-up is made unless the addresses are secure, since name servers of unsigned zones often
/// fail on TLSA (DANE-04). The CNAME target is tried before the host's own name (DANE-01).
pub async fn look_up(
    dns: &dyn Dns,
    mx: Security,
    (host, port): (&DomainName, u16),
    addresses: &HostAddresses,
) -> DaneLookup {
    let mut ttl = addresses.ttl;
    let mut seen = |dane, life: Option<Duration>| {
        ttl = ttl.min(life.unwrap_or(Duration::MAX));
        DaneLookup { dane, ttl: (ttl != Duration::MAX).then_some(ttl) }
    };
    if mx != Security::Secure || addresses.security != Security::Secure {
        return seen(Dane::Absent, None);
    }
    let mut last = seen(Dane::Absent, None);
    for base in addresses.aliases.last().into_iter().chain([host]) {
        let Ok(name) = tlsa_name(base, port) else { continue };
        match dns.lookup(&name, Kind::Tlsa).await {
            Ok(answer) if answer.security == Security::Secure => {
                let records = answer.tlsa();
                let applies = Dane::Applies { rule: rule(&records), records, base: base.clone() };
                return seen(applies, Some(answer.ttl));
            }
            Ok(answer) => last = seen(Dane::Absent, Some(answer.ttl)),
            Err(error) => match error.nothing() {
                // Only what is proven, or provably not signed, counts as absent.
                Some(nothing) if nothing.security == Security::Indeterminate => {
                    return seen(Dane::Unknown(DnsError::Bogus), None);
                }
                Some(nothing) => last = seen(Dane::Absent, nothing.ttl),
                None => return seen(Dane::Unknown(error), None),
            },
        }
    }
    last
}
