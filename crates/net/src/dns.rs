//! DNS answers with what the rules of MTA-STS and DANE hang on: the DNSSEC state, the TTL, and
//! which kind of "nothing" it is (RFC 4035 §4.3, RFC 7672 §2.1).

mod address_overrides;
mod authorities;
mod bogus_detector;
pub mod provider;
mod resolver;
mod sockets;
mod unsigned;
pub mod update;

pub use address_overrides::AddressOverrides;
pub use authorities::{AskEachServer, Authorities, ServerAnswer};
pub use bogus_detector::BogusDetector;
pub use resolver::{Dnssec, Resolver, ResolverConfig, ResolverError};

use crate::BoxFuture;
use formats::DomainName;
use formats::tlsa::TlsaRecord;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Looks names up.
pub trait Dns: Send + Sync {
    /// All records of a kind at a name, CNAMEs followed.
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>>;
}

/// A record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
    /// Alias.
    Cname,
    /// Which authorities may issue certificates (RFC 8659).
    Caa,
    /// Mail exchanger.
    Mx,
    /// Name server.
    Ns,
    /// Start of authority.
    Soa,
    /// TLS certificate association.
    Tlsa,
    /// Text.
    Txt,
}

/// One record's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias target.
    Cname(DomainName),
    /// Which authorities may issue certificates.
    Caa(Caa),
    /// Mail exchanger.
    Mx(Mx),
    /// Name server.
    Ns(DomainName),
    /// Serial and negative TTL of a zone.
    Soa {
        /// The zone's serial.
        serial: u32,
        /// Seconds for which "nothing" may be remembered.
        minimum: u32,
    },
    /// TLS certificate association.
    Tlsa(TlsaRecord),
    /// Text, its strings joined (STS-02).
    Txt(Vec<u8>),
}

/// One CAA record (RFC 8659 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caa {
    /// What it is about, such as `issue`, in lower case.
    pub tag: String,
    /// What it says, such as `letsencrypt.org`.
    pub value: String,
}

/// One MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// Lower is tried first.
    pub preference: u16,
    /// Where to.
    pub exchange: Exchange,
}

/// The target of an MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// A host.
    Host(DomainName),
    /// `.`: the domain takes no mail (RFC 7505).
    Null,
    /// Not a host name, such as an address.
    Invalid(String),
}

/// The DNSSEC state of an answer (RFC 4035 §4.3). Bogus is an error, not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// Every link of the chain validated.
    Secure,
    /// The zone is provably not signed.
    Insecure,
    /// No validation took place.
    Indeterminate,
}

/// An answer with at least one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The records of the asked kind, at least one.
    pub records: Vec<Data>,
    /// For how long they may be remembered.
    pub ttl: Duration,
    /// The weakest state of the records and of the CNAMEs to them.
    pub security: Security,
    /// The names that CNAMEs led through, the last one holding the records.
    pub aliases: Vec<DomainName>,
    /// True when a TXT record came in several strings.
    pub is_split: bool,
}

/// Why there is no answer (STS-13).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// NXDOMAIN.
    #[error("there is no such name")]
    NoSuchName(Absence),
    /// The name is there, this kind of record is not.
    #[error("the name has no such record")]
    NoSuchRecord(Absence),
    /// SERVFAIL or another error code of the server.
    #[error("the name server answers {0}")]
    ServerFailure(String),
    /// The answer fails DNSSEC validation.
    #[error("the answer fails DNSSEC validation")]
    Bogus,
    /// The name servers of the zone do not say the same.
    #[error("the name servers of the zone do not agree about {name} yet: {one} and {other} differ")]
    Differ {
        /// What was asked.
        name: DomainName,
        /// A server.
        one: IpAddr,
        /// One that says something else.
        other: IpAddr,
    },
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The question could not be put.
    #[error("the question could not be put: {0}")]
    Network(String),
}

/// What is known of a "nothing".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// Whether the absence is proven.
    pub security: Security,
    /// For how long it may be remembered, when known.
    pub ttl: Option<Duration>,
}

impl DnsError {
    /// True when the name or record is certainly not published, as opposed to unknown.
    pub fn is_absence(&self) -> bool {
        self.nothing().is_some()
    }

    /// What is known of the absence, if it is one.
    pub fn nothing(&self) -> Option<Absence> {
        match self {
            Self::NoSuchName(nothing) | Self::NoSuchRecord(nothing) => Some(*nothing),
            _ => None,
        }
    }
}

impl Answer {
    /// The TXT records.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().filter_map(|data| match data {
            Data::Txt(text) => Some(text.as_slice()),
            _ => None,
        })
    }

    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.records.iter().filter_map(|data| match data {
            Data::A(ip) => Some(IpAddr::V4(*ip)),
            Data::Aaaa(ip) => Some(IpAddr::V6(*ip)),
            _ => None,
        })
    }

    /// The TLSA records.
    pub fn tlsa(&self) -> Vec<TlsaRecord> {
        let records = self.records.iter().filter_map(|data| match data {
            Data::Tlsa(record) => Some(record.clone()),
            _ => None,
        });
        records.collect()
    }

    /// The hosts of the MX records in their order, without null and invalid ones.
    pub fn mx_hosts(&self) -> impl Iterator<Item = DomainName> + use<> {
        self.mx().into_iter().filter_map(|mx| match mx.exchange {
            Exchange::Host(host) => Some(host),
            Exchange::Null | Exchange::Invalid(_) => None,
        })
    }

    /// The MX records, the preferred ones first, in the order of the answer among equals.
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

/// The addresses of a host by both families, IPv6 first, with the weaker state of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddresses {
    /// At least one address, at most [`formats::limits::HOST_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// The weaker state of the answers that have addresses.
    pub security: Security,
    /// Where CNAMEs led, empty without any.
    pub aliases: Vec<DomainName>,
    /// The shorter life of the answers that have addresses.
    pub ttl: Duration,
}

/// Looks up both address families of a host at once.
pub async fn host_addresses(dns: &dyn Dns, host: &DomainName) -> Result<HostAddresses, DnsError> {
    let (v6, v4) = tokio::join!(dns.lookup(host, Kind::Aaaa), dns.lookup(host, Kind::A));
    let (v6, v4) = match (v6, v4) {
        (Err(first), Err(second)) => return Err(if second.is_absence() { first } else { second }),
        both => both,
    };
    let mut found = HostAddresses {
        addresses: Vec::new(),
        security: Security::Secure,
        aliases: Vec::new(),
        ttl: Duration::MAX,
    };
    for answer in [v6, v4].into_iter().flatten() {
        found.addresses.extend(answer.addresses());
        found.security = weaker(found.security, answer.security);
        found.aliases = answer.aliases;
        found.ttl = found.ttl.min(answer.ttl);
    }
    found.addresses.truncate(formats::limits::HOST_ADDRESSES);
    Ok(found)
}

/// The state of a chain that needs both links.
pub fn weaker(one: Security, other: Security) -> Security {
    let rank = |security| match security {
        Security::Secure => 2,
        Security::Insecure => 1,
        Security::Indeterminate => 0,
    };
    if rank(one) <= rank(other) { one } else { other }
}
