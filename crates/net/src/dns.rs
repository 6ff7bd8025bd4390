//! DNS lookups for MTA-STS and DANE. An [`Answer`] carries what their rules depend on: the DNSSEC state, the TTL, and
//! for a negative answer whether the absence is proven (RFC 4035 §4.3, RFC 7672 §2.1).
//!
//! [`Resolver`] queries recursive resolvers; [`AuthoritativeServers`] queries the zone's name servers. [`BogusDetector`] and
//! [`AddressOverrides`] wrap another [`Dns`]. [`batch`] queries many names at once, and [`update`] and [`provider`] change zones.

mod address_overrides;
mod authorities;
pub mod batch;
mod bogus_detector;
mod budget;
mod dname;
mod positive;
mod proofs;
pub mod provider;
mod records;
mod resolver;
mod resolver_config;
mod servers;
mod sockets;
mod trust_anchor;
mod unsigned;
pub mod update;

pub use address_overrides::AddressOverrides;
pub use authorities::{
    AuthoritativeServers, PerServerLookup, QueriedServer, ServerAnswer, ServerFault, Survey, server_in_words,
};
pub use bogus_detector::BogusDetector;
pub use resolver::Resolver;
pub use resolver_config::{Dnssec, ResolverConfig, ResolverError, SystemServers};

use crate::BoxFuture;
use formats::DomainName;
use formats::tlsa::TlsaRecord;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A source of DNS answers.
pub trait Dns: Send + Sync {
    /// Looks up all records of type `kind` at `name`, following CNAMEs.
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>>;

    /// As [`Dns::lookup`], with what each name server of the zone did. Only [`AuthoritativeServers`] queries them by
    /// themselves; the list of any other implementation is empty.
    fn survey<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Survey> {
        Box::pin(async move { Survey { answer: self.lookup(name, kind).await, servers: Vec::new() } })
    }
}

/// A DNS record type, of those that Sternpost queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
    /// Canonical name (alias).
    Cname,
    /// Certification authority authorization (RFC 8659).
    Caa,
    /// The DS record that a signed zone asks its parent to publish (RFC 7344 §3.1).
    Cds,
    /// A key of a signed zone (RFC 4034 §2).
    Dnskey,
    /// The digest of a zone's key, in its parent zone (RFC 4034 §5).
    Ds,
    /// Mail exchanger.
    Mx,
    /// Name server.
    Ns,
    /// Start of authority.
    Soa,
    /// TLS certificate association (RFC 6698).
    Tlsa,
    /// Text strings.
    Txt,
}

/// The data of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// The target of a CNAME record.
    Cname(DomainName),
    /// Certification authority authorization (RFC 8659).
    Caa(Caa),
    /// Mail exchanger.
    Mx(Mx),
    /// The host name of a name server.
    Ns(DomainName),
    /// Start of authority; only the fields that are used here.
    Soa {
        /// The SERIAL field.
        serial: u32,
        /// The MINIMUM field in seconds, an upper bound for caching negative answers (RFC 2308 §4).
        minimum: u32,
    },
    /// TLS certificate association (RFC 6698).
    Tlsa(TlsaRecord),
    /// A TXT record's character strings, joined without separators (STS-02).
    Txt(Vec<u8>),
    /// A record of DNSSEC (CDS, DNSKEY, DS), of which only the presence is used.
    Dnssec,
}

/// One CAA record (RFC 8659 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caa {
    /// The property tag, such as `issue`, in lower case.
    pub tag: String,
    /// The property value, such as `letsencrypt.org`.
    pub value: String,
}

/// The data of one MX record (RFC 1035 §3.3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// The preference; hosts with lower values are tried first.
    pub preference: u16,
    /// The host that accepts the mail.
    pub exchange: Exchange,
}

/// The target of an MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// A valid host name.
    Host(DomainName),
    /// A null MX (`.`): the domain accepts no mail (RFC 7505).
    Null,
    /// A target that is not a valid host name, such as an IP address.
    Invalid(String),
}

/// The DNSSEC state of an answer (RFC 4035 §4.3). The state "bogus" is reported as [`DnsError::Bogus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// A chain of trust from the trust anchor was validated.
    Secure,
    /// The zone is proven to be unsigned. Also every answer under [`Dnssec::Off`], and those without the AD bit under
    /// [`Dnssec::TrustAd`].
    Insecure,
    /// The answer could not be validated.
    Indeterminate,
}

/// An answer with at least one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The records of the requested type, at least one.
    pub records: Vec<Data>,
    /// How much longer the records may be cached.
    pub ttl: Duration,
    /// The weakest state among the records and the CNAMEs that led to them.
    pub security: Security,
    /// The targets of the CNAMEs followed, in order; the last one owns the records. Empty without CNAMEs.
    pub aliases: Vec<DomainName>,
    /// True when a TXT record consisted of more than one character string.
    pub is_split: bool,
}

/// Why a lookup returned no records (STS-13).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name does not exist (NXDOMAIN).
    #[error("the name does not exist (NXDOMAIN)")]
    NoSuchName(Absence),
    /// The name exists but has no record of this type (NODATA).
    #[error("the name has no record of this type")]
    NoSuchRecord(Absence),
    /// The server returned SERVFAIL or another error code, or the zone's name servers can't be found.
    #[error("the DNS lookup failed: {0}")]
    ServerFailure(String),
    /// The answer failed DNSSEC validation.
    #[error("the answer failed DNSSEC validation")]
    Bogus,
    /// Two name servers of the zone returned different answers; see [`AuthoritativeServers`].
    #[error("the zone's name servers do not agree on {name} yet: {shown}")]
    Differ {
        /// The name that was looked up.
        name: DomainName,
        /// Two servers with what each returns.
        shown: String,
        /// The data that any of the servers returns; a CNAME by its target alone.
        all: Vec<Data>,
    },
    /// No answer arrived within the time limit.
    #[error("the DNS query timed out")]
    Timeout,
    /// The query could not be sent, or the connection failed.
    #[error("the DNS query could not be sent: {0}")]
    Network(String),
}

/// The details of a negative answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// The DNSSEC state of the negative answer; [`Security::Secure`] when the absence is proven.
    pub security: Security,
    /// How long the negative answer may be cached; `None` if the answer states no TTL.
    pub ttl: Option<Duration>,
}

impl DnsError {
    /// True when the answer says that the name or record does not exist; false when the lookup failed.
    pub fn is_absence(&self) -> bool {
        self.nothing().is_some()
    }

    /// The details of a negative answer; `None` when the lookup failed.
    pub fn nothing(&self) -> Option<Absence> {
        match self {
            Self::NoSuchName(nothing) | Self::NoSuchRecord(nothing) => Some(*nothing),
            _ => None,
        }
    }
}

impl Answer {
    /// The data of the TXT records.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().filter_map(|data| match data {
            Data::Txt(text) => Some(text.as_slice()),
            _ => None,
        })
    }

    /// The addresses in the A and AAAA records.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.records.iter().filter_map(|data| match data {
            Data::A(ip) => Some(IpAddr::V4(*ip)),
            Data::Aaaa(ip) => Some(IpAddr::V6(*ip)),
            _ => None,
        })
    }

    /// The data of the TLSA records in the answer.
    pub fn tlsa(&self) -> Vec<TlsaRecord> {
        let records = self.records.iter().filter_map(|data| match data {
            Data::Tlsa(record) => Some(record.clone()),
            _ => None,
        });
        records.collect()
    }

    /// The hosts of the MX records in order of preference, without null and invalid targets.
    pub fn mx_hosts(&self) -> impl Iterator<Item = DomainName> + use<> {
        self.mx().into_iter().filter_map(|mx| match mx.exchange {
            Exchange::Host(host) => Some(host),
            Exchange::Null | Exchange::Invalid(_) => None,
        })
    }

    /// The MX records sorted by preference; records with equal preference keep the order of the answer.
    pub fn mx(&self) -> Vec<Mx> {
        let mut found: Vec<Mx> = self
            .records
            .iter()
            .filter_map(|data| match data {
                Data::Mx(mx) => Some(mx.clone()),
                _ => None,
            })
            .collect();
        found.sort_by_key(|mx| mx.preference);
        found
    }
}

/// The IPv6 and IPv4 addresses of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddresses {
    /// The addresses, in alternating families that begin with IPv6 ([`interleave`]): at least one, at most
    /// [`formats::limits::HOST_ADDRESSES`]. The order is the one in which to connect.
    pub addresses: Vec<IpAddr>,
    /// The weaker state of the AAAA and A answers; failed and negative answers do not count.
    pub security: Security,
    /// The targets of the CNAMEs followed, in order; empty without CNAMEs.
    pub aliases: Vec<DomainName>,
    /// The shorter TTL of the AAAA and A answers.
    pub ttl: Duration,
}

impl HostAddresses {
    fn of(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut found = Self {
            addresses: Vec::new(),
            security: Security::Secure,
            aliases: Vec::new(),
            ttl: Duration::MAX,
        };
        for answer in answers {
            found.addresses.extend(answer.addresses());
            found.security = weaker(found.security, answer.security);
            found.aliases = answer.aliases;
            found.ttl = found.ttl.min(answer.ttl);
        }
        found.addresses = interleave(found.addresses);
        found.addresses.truncate(formats::limits::HOST_ADDRESSES);
        found
    }
}

/// Looks up the AAAA and A records of a host concurrently. One answer with addresses is enough for success; if both
/// lookups fail, a failure is returned in preference to a negative answer.
///
/// The families are interleaved before the list is cut to [`formats::limits::HOST_ADDRESSES`], so that many addresses
/// of one family never hide the other (RFC 8305 §4).
pub async fn host_addresses(dns: &dyn Dns, host: &DomainName) -> Result<HostAddresses, DnsError> {
    match tokio::join!(dns.lookup(host, Kind::Aaaa), dns.lookup(host, Kind::A)) {
        (Err(first), Err(second)) => Err(preferred(first, second)),
        (v6, v4) => Ok(HostAddresses::of([v6, v4].into_iter().flatten())),
    }
}

/// Looks up the addresses of one family of a host: the A records, or the AAAA records if there is no answer with A records.
/// That is enough where no connection is made, but the DNSSEC state and the aliases of the addresses are needed: records
/// of both families belong to one name, and are signed alike.
pub async fn addresses_of_one_family(dns: &dyn Dns, host: &DomainName) -> Result<HostAddresses, DnsError> {
    let first = match dns.lookup(host, Kind::A).await {
        Ok(answer) => return Ok(HostAddresses::of([answer])),
        Err(error) => error,
    };
    match dns.lookup(host, Kind::Aaaa).await {
        Ok(answer) => Ok(HostAddresses::of([answer])),
        Err(second) => Err(preferred(second, first)),
    }
}

/// The error of two failed lookups: a failure in preference to a negative answer.
fn preferred(first: DnsError, second: DnsError) -> DnsError {
    if second.is_absence() { first } else { second }
}

/// Alternates the address families, beginning with the family of the first address, so that a broken family costs one
/// attempt only (RFC 8305 §4). Within a family the order is kept.
pub fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let begins_with_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == begins_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let pairs = std::iter::from_fn(|| match (first.next(), second.next()) {
        (None, None) => None,
        (one, other) => Some(one.into_iter().chain(other)),
    });
    pairs.flatten().collect()
}

/// The weaker of two states, which is the state of an answer that depends on both.
pub fn weaker(one: Security, other: Security) -> Security {
    let rank = |security| match security {
        Security::Secure => 2,
        Security::Insecure => 1,
        Security::Indeterminate => 0,
    };
    if rank(one) <= rank(other) { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with so many AAAA records and one A record.
    struct ManyAaaa(u16);

    impl Dns for ManyAaaa {
        fn lookup<'a>(&'a self, _: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            let records = match kind {
                Kind::Aaaa => (1..=self.0).map(v6).map(Data::Aaaa).collect(),
                _ => vec![Data::A(V4)],
            };
            let (ttl, security) = (Duration::from_secs(60), Security::Insecure);
            let answer = Answer { records, ttl, security, aliases: Vec::new(), is_split: false };
            Box::pin(std::future::ready(Ok(answer)))
        }
    }

    const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn v6(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
    }

    #[tokio::test]
    async fn many_addresses_of_one_family_never_hide_the_other() {
        let host = DomainName::parse("mta-sts.example").unwrap();
        for aaaa in [7, 8, 20] {
            let found = host_addresses(&ManyAaaa(aaaa), &host).await.unwrap().addresses;
            let expected: Vec<IpAddr> =
                [v6(1).into(), V4.into()].into_iter().chain((2..=7).map(|last| v6(last).into())).collect();
            assert_eq!(found, expected, "{aaaa} AAAA");
        }
    }

    #[test]
    fn families_alternate_and_begin_with_that_of_the_first_address() {
        let (a, b) = (IpAddr::V4(V4), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
        let [x, y, z] = [1, 2, 3].map(|last| IpAddr::V6(v6(last)));
        assert_eq!(interleave(vec![x, y, z, a, b]), [x, a, y, b, z]);
        assert_eq!(interleave(vec![a, b, x]), [a, x, b]);
        assert_eq!(interleave(vec![x, y]), [x, y]);
        assert!(interleave(Vec::new()).is_empty());
    }
}
