//! [`Resolver`], the main implementation of [`Dns`]: a stub resolver that validates DNSSEC itself (RFC 4035 §4.9), or
//! trusts the AD bit of a validating resolver that the operator vouches for (DANE-14). It wraps the hickory library and
//! keeps a cache of unsigned zones, for which it does not fetch the chain of trust again.

use super::proofs::{follows_alias, is_unproven_expansion};
use super::sockets::Sockets;
use super::unsigned::{Claim, ClaimGuard, UnsignedZones, host};
use super::{Absence, Answer, Caa, Data, Dns, DnsError, Exchange, Kind, Mx, Security, weaker};
use crate::BoxFuture;
use formats::DomainName;
use formats::limits::{ALIASES, DNS_TIME, LABEL_BYTES};
use formats::tlsa::TlsaRecord;
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::{DnsRequestOptions, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::caching_client::CachingClient;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as HickoryDns, NetError};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How answers get their DNSSEC state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dnssec {
    /// Validate each answer locally.
    Validate,
    /// Trust the AD bit of the configured servers.
    TrustAd,
    /// Do not validate; every answer counts as insecure.
    Off,
}

/// The configuration of a [`Resolver`].
#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// The recursive resolvers to query; if empty, those in `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Local addresses to send queries from, at most one per address family; if empty, the system chooses.
    pub sources: Vec<IpAddr>,
    /// How answers get their DNSSEC state.
    pub dnssec: Dnssec,
    /// The trust anchor: DNSKEY records of the root in zone-file format. `None` means the built-in IANA anchor.
    pub trust_anchor: Option<String>,
    /// Whether answers are cached for their TTL.
    pub cache: bool,
    /// The time limit for one attempt; there are two attempts.
    pub attempt_time: Duration,
    /// The maximum TTL; longer TTLs are reduced to it.
    pub max_ttl: Duration,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            sources: Vec::new(),
            dnssec: Dnssec::Validate,
            trust_anchor: None,
            cache: true,
            attempt_time: DNS_TIME / 4,
            max_ttl: Duration::from_secs(86_400),
        }
    }
}

/// Why a [`Resolver`] could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The trust anchor is not a DNSKEY record in zone-file format.
    #[error("the trust anchor is not a DNSKEY record in zone-file format: {0}")]
    TrustAnchor(String),
    /// The system's resolver configuration can't be read, or no resolver can be built from the configuration.
    #[error("the system's resolver configuration (/etc/resolv.conf) can't be used: {0}")]
    System(String),
    /// The system's resolver configuration names a resolver that the AD bit is not trusted from.
    #[error(
        "/etc/resolv.conf now names {0}, and dnssec = \"trust-ad\" trusts only resolvers on this machine and those of the start; restart to trust it"
    )]
    Untrusted(IpAddr),
}

/// A stub resolver with optional DNSSEC validation.
pub struct Resolver {
    config: ResolverConfig,
    /// The resolver for names that need no validation; `Some` only under [`Dnssec::Validate`].
    plain: Option<Arc<Resolver>>,
    /// The addresses of the servers at the start.
    trusted: Vec<IpAddr>,
    /// The servers in use, with their caches. [`Resolver::reload`] replaces them.
    current: RwLock<Arc<Servers>>,
}

/// The servers of a [`Resolver`], with their caches.
struct Servers {
    inner: Arc<Inner>,
    dnssec: Dnssec,
    /// `Some` only under [`Dnssec::Validate`].
    unsigned: Option<Arc<Unsigned>>,
}

/// Lookups of names in zones that are proven to be unsigned.
struct Unsigned {
    zones: UnsignedZones,
    /// A resolver without validation.
    plain: Arc<Resolver>,
}

enum Inner {
    /// Validates answers, or treats all as insecure.
    Stub(Box<hickory_resolver::Resolver<Sockets>>),
    /// Sets the DO bit, so that a validating server reports its result in the AD bit. The library's own resolver sets
    /// the DO bit only when it validates itself.
    Trusting(Box<CachingClient<NameServerPool<Sockets>>>, DnsRequestOptions),
}

impl Inner {
    async fn lookup(&self, name: Name, kind: RecordType) -> Result<Lookup, NetError> {
        match self {
            Self::Stub(resolver) => resolver.lookup(name, kind).await,
            Self::Trusting(client, options) => client.lookup(Query::query(name, kind), *options).await,
        }
    }

    fn trusting(config: &ResolverConfig) -> Result<Self, NetError> {
        let (pool, size, request) = pool(config)?;
        Ok(Self::Trusting(Box::new(CachingClient::new(size, pool, true)), request))
    }
}

/// The name server pool of a configuration, the cache size in answers, and the options of each query.
pub(super) fn pool(
    config: &ResolverConfig,
) -> Result<(NameServerPool<Sockets>, u64, DnsRequestOptions), NetError> {
    let servers = name_servers(config)?;
    let mut options = ResolverOpts::default();
    set_options(&mut options, config);
    let mut request = DnsRequestOptions::default();
    request.recursion_desired = true;
    request.use_edns = options.edns0;
    request.edns_payload_len = options.edns_payload_len;
    request.case_randomization = options.case_randomization;
    request.edns_set_dnssec_ok = true;
    let size = options.cache_size;
    let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
    Ok((NameServerPool::from_config(servers, context, Sockets::default()), size, request))
}

impl Unsigned {
    /// Looks up a name without validation if its zone is known to be unsigned. `None` if it is not, or if a CNAME leads
    /// to a name outside the known zones.
    async fn resolve(
        &self,
        name: &DomainName,
        kind: Kind,
        deadline: Deadline,
    ) -> Option<Result<Answer, DnsError>> {
        let is_inside = |name: &DomainName| self.zones.covers(name, Instant::now());
        if !is_inside(name) {
            return None;
        }
        let found = Box::pin(async { self.plain.current().resolve(name, kind, deadline).await }).await;
        found.as_ref().map_or(true, |answer| answer.aliases.iter().all(is_inside)).then_some(found)
    }
}

impl Resolver {
    /// Creates a resolver. Under [`Dnssec::Validate`] it has its own resolver for names that need no validation.
    pub fn new(config: &ResolverConfig) -> Result<Self, ResolverError> {
        Self::with(config, None)
    }

    /// Creates a resolver paired with `plain`, which answers queries that need no proof: those in zones known to be
    /// unsigned. Their answers are cached in `plain`, also for its other users. Only [`Dnssec::Validate`] uses it.
    pub fn beside(plain: &Arc<Self>, config: &ResolverConfig) -> Result<Self, ResolverError> {
        Self::with(config, Some(plain))
    }

    fn with(config: &ResolverConfig, plain: Option<&Arc<Self>>) -> Result<Self, ResolverError> {
        let plain = match (config.dnssec, plain) {
            (Dnssec::Validate, Some(plain)) => Some(plain.clone()),
            (Dnssec::Validate, None) => {
                Some(Arc::new(Self::new(&ResolverConfig { dnssec: Dnssec::Off, ..config.clone() })?))
            }
            (Dnssec::TrustAd | Dnssec::Off, _) => None,
        };
        let current = RwLock::new(Arc::new(Servers::new(config, plain.as_ref())?));
        let servers = name_servers(config).map_err(|error| ResolverError::System(error.to_string()))?;
        let trusted = servers.iter().map(|server| server.ip).collect();
        Ok(Self { config: config.clone(), plain, trusted, current })
    }

    /// Reads the system's resolver configuration again, and replaces the servers and their caches. It does nothing when
    /// the servers are configured. On failure the servers in use stay.
    pub fn reload(&self) -> Result<(), ResolverError> {
        if !self.config.servers.is_empty() {
            return Ok(());
        }
        if let Some(plain) = &self.plain {
            plain.reload()?;
        }
        if self.config.dnssec == Dnssec::TrustAd {
            self.check_trusted()?;
        }
        let servers = Arc::new(Servers::new(&self.config, self.plain.as_ref())?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = servers;
        Ok(())
    }

    /// The AD bit counts only from a resolver that the operator vouches for: one on this machine, or one that was in use
    /// at the start. Whoever runs the local network can name others in `/etc/resolv.conf`.
    fn check_trusted(&self) -> Result<(), ResolverError> {
        let servers = name_servers(&self.config).map_err(|error| ResolverError::System(error.to_string()))?;
        match servers.iter().find(|server| !server.ip.is_loopback() && !self.trusted.contains(&server.ip)) {
            Some(server) => Err(ResolverError::Untrusted(server.ip)),
            None => Ok(()),
        }
    }

    fn current(&self) -> Arc<Servers> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks that DNSSEC validation works at all, by resolving the root NS set. Returns [`DnsError::Bogus`] when the
    /// servers strip DNSSEC records or the trust anchor does not match, in which case every lookup would fail.
    pub async fn probe(&self) -> Result<Security, DnsError> {
        self.current().probe().await
    }

    /// True while the zone of an earlier answer is looked up in the background.
    pub fn is_learning(&self) -> bool {
        self.current().unsigned.as_ref().is_some_and(|unsigned| unsigned.zones.has_claims())
    }
}

impl Servers {
    fn new(config: &ResolverConfig, plain: Option<&Arc<Resolver>>) -> Result<Self, ResolverError> {
        let system = |error: NetError| ResolverError::System(error.to_string());
        if config.dnssec == Dnssec::TrustAd {
            let inner = Arc::new(Inner::trusting(config).map_err(system)?);
            return Ok(Self { inner, dnssec: config.dnssec, unsigned: None });
        }
        let servers = name_servers(config).map_err(system)?;
        let servers = hickory_resolver::config::ResolverConfig::from_name_servers(servers);
        let mut builder = hickory_resolver::Resolver::builder_with_config(servers, Sockets::default());
        set_options(builder.options_mut(), config);
        if config.dnssec == Dnssec::Validate {
            let anchors = match &config.trust_anchor {
                Some(text) => text
                    .parse::<TrustAnchors>()
                    .map_err(|error| ResolverError::TrustAnchor(error.to_string()))?,
                None => TrustAnchors::default(),
            };
            builder = builder.with_trust_anchor(Arc::new(anchors));
        }
        let unsigned =
            plain.map(|plain| Arc::new(Unsigned { zones: UnsignedZones::new(), plain: plain.clone() }));
        let inner = Arc::new(Inner::Stub(Box::new(builder.build().map_err(system)?)));
        Ok(Self { inner, dnssec: config.dnssec, unsigned })
    }

    async fn probe(&self) -> Result<Security, DnsError> {
        let outcome = self.query(Name::root(), RecordType::NS, deadline()).await?;
        match self.read(&outcome, &Name::root(), Kind::Ns)?.security {
            Security::Indeterminate => Err(DnsError::Bogus),
            security => Ok(security),
        }
    }

    async fn resolve(&self, name: &DomainName, kind: Kind, deadline: Deadline) -> Result<Answer, DnsError> {
        let Some(unsigned) = &self.unsigned else {
            let outcome = self.query(absolute(name)?, record_type(kind), deadline).await?;
            let found = self.read(&outcome, &absolute(name)?, kind);
            return match found {
                Err(DnsError::NoSuchRecord(absence))
                    if kind == Kind::Mx && self.dnssec == Dnssec::TrustAd =>
                {
                    let security = self.security_of_zone(name, &outcome, deadline).await?;
                    Err(DnsError::NoSuchRecord(Absence { security, ..absence }))
                }
                found => found,
            };
        };
        if let Some(found) = unsigned.resolve(name, kind, deadline).await {
            return found;
        }
        let claim = match unsigned.zones.claim(name) {
            Claim::First(claim) => Some(claim),
            Claim::Wait(first) => {
                let _ = tokio::time::timeout_at(deadline, first.acquire()).await;
                if let Some(found) = unsigned.resolve(name, kind, deadline).await {
                    return found;
                }
                None
            }
        };
        let outcome = self.query(absolute(name)?, record_type(kind), deadline).await?;
        let found = match self.read(&outcome, &absolute(name)?, kind) {
            Err(DnsError::NoSuchName(absence)) if absence.security == Security::Indeterminate => {
                Err(DnsError::NoSuchName(self.prove_unsigned(name, absence, deadline).await?))
            }
            Err(DnsError::NoSuchRecord(absence)) if absence.security == Security::Indeterminate => {
                Err(DnsError::NoSuchRecord(self.prove_unsigned(name, absence, deadline).await?))
            }
            Err(DnsError::Bogus) => {
                match self.resolve_below_unsigned(unsigned, name, kind, deadline).await? {
                    Some(found) => return found,
                    None => Err(DnsError::Bogus),
                }
            }
            found => found,
        };
        if follows_alias(&absolute(name)?, kind, &outcome, &found) {
            self.check_aliases(name, deadline).await?;
        }
        self.cache_unsigned_zone(unsigned, name, &outcome, &found, claim);
        found
    }

    /// Looks up each alias of a chain by itself. The answer to another type shows only the end of the chain, and not
    /// whether an alias was expanded from a wildcard without proof. [`Self::answer`] checks that for each single one.
    async fn check_aliases(&self, name: &DomainName, deadline: Deadline) -> Result<(), DnsError> {
        let mut owner = name.clone();
        for _ in 0..ALIASES {
            let outcome = self.query(absolute(&owner)?, RecordType::CNAME, deadline).await?;
            owner = match self.read(&outcome, &absolute(&owner)?, Kind::Cname) {
                Ok(answer) => match answer.records.into_iter().next() {
                    Some(Data::Cname(target)) => target,
                    _ => return Ok(()),
                },
                // The name is an alias in one answer and not in the other.
                Err(error) if error.is_absence() && owner == *name => return Err(DnsError::Bogus),
                Err(error) if error.is_absence() => return Ok(()),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// Looks up a name whose answer failed validation once more, without validation, if an ancestor of the name is in an
    /// unsigned zone: everything below is insecure, also a zone with signatures and with a DS record in an unsigned
    /// parent (RFC 4035 §5.2), which the library takes for bogus. `None` if no ancestor is proven to be unsigned.
    async fn resolve_below_unsigned(
        &self,
        unsigned: &Unsigned,
        name: &DomainName,
        kind: Kind,
        deadline: Deadline,
    ) -> Result<Option<Result<Answer, DnsError>>, DnsError> {
        let mut ancestor = name.parent();
        while let Some(candidate) = ancestor.filter(|zone| zone.parent().is_some()) {
            let outcome = self.query(absolute(&candidate)?, RecordType::SOA, deadline).await?;
            if let Some((zone, ttl)) = unsigned_zone(&candidate, &outcome) {
                unsigned.zones.insert(zone, ttl, Instant::now());
                return Ok(unsigned.resolve(name, kind, deadline).await);
            }
            ancestor = candidate.parent();
        }
        Ok(None)
    }

    /// The security of a negative answer from a trusted resolver: that of the SOA record of the zone that it names. The
    /// library drops the AD bit of negative answers, and a resolver that validates answers SERVFAIL where the proof of
    /// a signed zone fails. Whether DANE applies to a domain without MX records depends on it (RFC 7672 §2.2.1).
    async fn security_of_zone(
        &self,
        name: &DomainName,
        outcome: &Result<Lookup, NetError>,
        deadline: Deadline,
    ) -> Result<Security, DnsError> {
        let Err(NetError::Dns(HickoryDns::NoRecordsFound(none))) = outcome else {
            return Ok(Security::Insecure);
        };
        let Some(zone) = none.soa.as_ref().map(|soa| soa.name.clone()) else { return Ok(Security::Insecure) };
        if !absolute(name).is_ok_and(|name| zone.zone_of(&name)) {
            return Ok(Security::Insecure);
        }
        let soa = self.query(zone.clone(), RecordType::SOA, deadline).await?;
        match self.read(&soa, &zone, Kind::Soa) {
            Ok(soa) => Ok(soa.security),
            Err(error) if error.is_absence() => Ok(Security::Insecure),
            // A query that is dropped must not make a signed zone look unsigned.
            Err(error) => Err(error),
        }
    }

    /// Checks a negative answer that comes without a proof and without the SOA record of an unsigned zone. It counts only
    /// if a zone that encloses the name is proven to be unsigned; else it is bogus, since an attacker can put any unsigned
    /// record into the answer (RFC 4035 §5.4).
    async fn prove_unsigned(
        &self,
        name: &DomainName,
        absence: Absence,
        deadline: Deadline,
    ) -> Result<Absence, DnsError> {
        let mut zone = Some(name.clone());
        while let Some(candidate) = zone.filter(|zone| zone.parent().is_some()) {
            let outcome = self.query(absolute(&candidate)?, RecordType::SOA, deadline).await?;
            if unsigned_zone(&candidate, &outcome).is_some() {
                return Ok(Absence { security: Security::Insecure, ..absence });
            }
            zone = candidate.parent();
        }
        Err(DnsError::Bogus)
    }

    /// Caches the unsigned zone that encloses `name`. Negative answers carry the zone's SOA. A positive answer proves
    /// at least that everything below `name` is unsigned. The SOA is queried only if siblings of the host may be in the
    /// same zone, or if `name` has service labels, such as `_mta-sts`; that query runs in the background, so that the
    /// answer never waits for it.
    fn cache_unsigned_zone(
        &self,
        unsigned: &Arc<Unsigned>,
        name: &DomainName,
        outcome: &Result<Lookup, NetError>,
        found: &Result<Answer, DnsError>,
        claim: Option<ClaimGuard>,
    ) {
        let is_own = |answer: &&Answer| answer.security == Security::Insecure && answer.aliases.is_empty();
        let own = found.as_ref().ok().filter(is_own);
        let zone = unsigned_zone(name, outcome).or_else(|| Some((name.clone(), own?.ttl)));
        if let Some((zone, ttl)) = zone {
            unsigned.zones.insert(zone, ttl, Instant::now());
        }
        if own.is_some()
            && let Ok(host) = DomainName::from_ascii(host(name))
            && (unsigned.zones.has_sibling(&host) || host != *name)
        {
            let (inner, unsigned) = (self.inner.clone(), unsigned.clone());
            tokio::spawn(async move {
                let query = learn_zone(&inner, &unsigned.zones, &host);
                let _ = tokio::time::timeout(ZONE_TIMEOUT, query).await;
                drop(claim);
            });
        }
    }

    fn query<'a>(
        &'a self,
        name: Name,
        kind: RecordType,
        deadline: Deadline,
    ) -> BoxFuture<'a, Result<Result<Lookup, NetError>, DnsError>> {
        Box::pin(async move {
            let lookup = self.inner.lookup(name, kind);
            tokio::time::timeout_at(deadline, lookup).await.map_err(|_| DnsError::Timeout)
        })
    }

    fn read(&self, outcome: &Result<Lookup, NetError>, name: &Name, kind: Kind) -> Result<Answer, DnsError> {
        match outcome {
            Ok(lookup) => self.answer(lookup, name, kind),
            Err(error) => Err(self.failure(error)),
        }
    }

    fn answer(&self, lookup: &Lookup, name: &Name, kind: Kind) -> Result<Answer, DnsError> {
        if self.dnssec == Dnssec::Validate && is_unproven_expansion(lookup.message()) {
            return Err(DnsError::Bogus);
        }
        let authentic = lookup.message().metadata.authentic_data;
        let mut answer = Answer {
            records: Vec::new(),
            ttl: lookup.valid_until().saturating_duration_since(Instant::now()),
            security: Security::Secure,
            aliases: Vec::new(),
            is_split: false,
        };
        for record in belonging(lookup.answers(), name, record_type(kind)) {
            if record.proof == Proof::Bogus {
                return Err(DnsError::Bogus);
            }
            answer.security = weaker(answer.security, self.security(record.proof, authentic));
            answer.is_split |= matches!(&record.data, RData::TXT(txt) if txt.txt_data.len() > 1);
            match data(record) {
                Some(Data::Cname(target)) if kind != Kind::Cname => answer.aliases.push(target),
                Some(data) => answer.records.push(data),
                None => {}
            }
        }
        if answer.records.is_empty() {
            return Err(DnsError::NoSuchRecord(Absence {
                security: Security::Indeterminate,
                ttl: Some(answer.ttl),
            }));
        }
        Ok(answer)
    }

    fn security(&self, proof: Proof, authentic: bool) -> Security {
        match (self.dnssec, proof) {
            (Dnssec::Off, _) => Security::Insecure,
            (Dnssec::TrustAd, _) if authentic => Security::Secure,
            (Dnssec::TrustAd, _) => Security::Insecure,
            (Dnssec::Validate, Proof::Secure) => Security::Secure,
            (Dnssec::Validate, Proof::Insecure) => Security::Insecure,
            (Dnssec::Validate, _) => Security::Indeterminate,
        }
    }

    fn failure(&self, error: &NetError) -> DnsError {
        let nothing = |code, security, ttl| {
            let known = Absence { security, ttl };
            if code == ResponseCode::NXDomain {
                DnsError::NoSuchName(known)
            } else {
                DnsError::NoSuchRecord(known)
            }
        };
        match error {
            NetError::Timeout => DnsError::Timeout,
            NetError::Dns(HickoryDns::DnssecBogus) => DnsError::Bogus,
            NetError::Dns(HickoryDns::Nsec { proof: Proof::Bogus, .. }) => DnsError::Bogus,
            NetError::Dns(HickoryDns::Nsec { response, proof, .. }) => {
                let ttl = response.authorities.iter().map(|record| record.ttl).min();
                nothing(response.metadata.response_code, self.security(*proof, false), ttl.map(seconds))
            }
            NetError::Dns(HickoryDns::NoRecordsFound(none)) => {
                let code = none.response_code;
                if code != ResponseCode::NXDomain && code != ResponseCode::NoError {
                    return DnsError::ServerFailure(code.to_string());
                }
                let proof = none.soa.as_ref().map_or(Proof::Indeterminate, |soa| soa.proof);
                // An unsigned SOA record proves nothing about names outside its zone (RFC 4035 §5.4), and the
                // library does not check whether the zone encloses the name.
                let encloses = |soa: &Record<_>| soa.name.zone_of(none.query.name());
                if self.dnssec == Dnssec::Validate
                    && proof == Proof::Insecure
                    && !none.soa.as_deref().is_some_and(encloses)
                {
                    return DnsError::Bogus;
                }
                nothing(code, self.security(proof, false), none.negative_ttl.map(seconds))
            }
            NetError::Dns(HickoryDns::ResponseCode(code)) => DnsError::ServerFailure(code.to_string()),
            other => DnsError::Network(other.to_string()),
        }
    }
}

impl Dns for Resolver {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move { self.current().resolve(name, kind, deadline()).await })
    }
}

/// How long names of a host wait for the look-up of its zone at most, before each is validated by itself.
const ZONE_TIMEOUT: Duration = Duration::from_millis(500);

/// Looks up the unsigned zone of a host and caches it.
async fn learn_zone(inner: &Inner, zones: &UnsignedZones, host: &DomainName) {
    let Ok(query) = absolute(host) else { return };
    let outcome = inner.lookup(query, RecordType::SOA).await;
    if let Some((zone, ttl)) = unsigned_zone(host, &outcome) {
        zones.set_zone(host, &zone);
        zones.insert(zone, ttl, Instant::now());
    }
}

/// The records of an answer that belong to `name`: the CNAMEs that start there, and the records of type `kind` at the
/// end of the chain. All other records in the answer, such as unsigned records of another name, are ignored.
fn belonging<'r>(records: &'r [Record], name: &Name, kind: RecordType) -> Vec<&'r Record> {
    let (mut owner, mut chain) = (name, Vec::new());
    while kind != RecordType::CNAME && chain.len() < records.len() {
        let is_next = |record: &&Record| record.record_type() == RecordType::CNAME && record.name == *owner;
        let Some(record) = records.iter().find(is_next) else { break };
        let RData::CNAME(target) = &record.data else { break };
        chain.push(record);
        owner = &target.0;
    }
    chain.extend(records.iter().filter(|record| record.record_type() == kind && record.name == *owner));
    chain
}

/// The zone that `name` is in and the TTL of its SOA record, if the answer contains the SOA and proves that the zone is
/// unsigned.
fn unsigned_zone(name: &DomainName, outcome: &Result<Lookup, NetError>) -> Option<(DomainName, Duration)> {
    let is_unsigned = |record: &&Record| {
        record.record_type() == RecordType::SOA && record.proof == Proof::Insecure && !record.name.is_root()
    };
    let (zone, ttl) = match outcome {
        Ok(lookup) => lookup.answers().iter().find(is_unsigned).map(|soa| (&soa.name, soa.ttl))?,
        Err(NetError::Dns(HickoryDns::NoRecordsFound(none))) => {
            let soa = none.soa.as_ref().filter(|soa| soa.proof == Proof::Insecure && !soa.name.is_root())?;
            (&soa.name, soa.ttl)
        }
        Err(NetError::Dns(HickoryDns::Nsec { response, .. })) => {
            response.authorities.iter().find(is_unsigned).map(|soa| (&soa.name, soa.ttl))?
        }
        Err(_) => return None,
    };
    domain(zone).filter(|zone| name.is_within(zone)).map(|zone| (zone, seconds(ttl)))
}

/// When a lookup times out, including the time spent waiting for other lookups.
type Deadline = tokio::time::Instant;

fn deadline() -> Deadline {
    Deadline::now() + DNS_TIME
}

fn absolute(name: &DomainName) -> Result<Name, DnsError> {
    Name::from_ascii(format!("{name}.")).map_err(|error| DnsError::Network(error.to_string()))
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(ttl))
}

/// The configured or system resolvers, with the local address to query each from.
fn name_servers(config: &ResolverConfig) -> Result<Vec<NameServerConfig>, NetError> {
    let mut servers = match config.servers.is_empty() {
        true => read_system_conf()?.0.name_servers().to_vec(),
        false => config.servers.iter().map(|server| name_server(*server)).collect(),
    };
    for server in &mut servers {
        let alike = |source: &&IpAddr| source.is_ipv4() == server.ip.is_ipv4();
        let source = config.sources.iter().find(alike).map(|source| SocketAddr::new(*source, 0));
        server.connections.iter_mut().for_each(|connection| connection.bind_addr = source);
    }
    Ok(servers)
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    let with_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    config.connections = config.connections.into_iter().map(with_port).collect();
    config
}

fn set_options(options: &mut ResolverOpts, config: &ResolverConfig) {
    options.timeout = config.attempt_time;
    options.attempts = 1;
    options.positive_max_ttl = Some(config.max_ttl);
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.edns0 = true;
    options.validate = config.dnssec == Dnssec::Validate;
    options.case_randomization = true;
    options.ndots = 0;
    if !config.cache {
        options.cache_size = 0;
    }
}

pub(super) fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Caa => RecordType::CAA,
        Kind::Cname => RecordType::CNAME,
        Kind::Mx => RecordType::MX,
        Kind::Ns => RecordType::NS,
        Kind::Soa => RecordType::SOA,
        Kind::Tlsa => RecordType::TLSA,
        Kind::Txt => RecordType::TXT,
    }
}

fn data(record: &Record) -> Option<Data> {
    Some(match &record.data {
        RData::A(ip) => Data::A(ip.0),
        RData::AAAA(ip) => Data::Aaaa(ip.0),
        RData::CNAME(name) => Data::Cname(domain(&name.0)?),
        RData::CAA(caa) => Data::Caa(Caa {
            tag: caa.tag.to_ascii_lowercase(),
            value: String::from_utf8_lossy(&caa.value).chars().take(LABEL_BYTES * 4).collect(),
        }),
        RData::NS(name) => Data::Ns(domain(&name.0)?),
        RData::MX(mx) => Data::Mx(Mx { preference: mx.preference, exchange: exchange(&mx.exchange) }),
        RData::SOA(soa) => Data::Soa { serial: soa.serial, minimum: soa.minimum },
        RData::TLSA(tlsa) => Data::Tlsa(TlsaRecord {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.clone(),
        }),
        RData::TXT(txt) => Data::Txt(txt.txt_data.concat()),
        _ => return None,
    })
}

fn domain(name: &Name) -> Option<DomainName> {
    DomainName::from_ascii(&name.to_ascii()).ok()
}

fn exchange(name: &Name) -> Exchange {
    if name.is_root() {
        return Exchange::Null;
    }
    let text = name.to_ascii();
    DomainName::from_ascii(&text)
        .map_or_else(|_| Exchange::Invalid(text.chars().take(LABEL_BYTES * 4).collect()), Exchange::Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_names_are_ignored() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let a = |owner: &str, last| {
            Record::from_rdata(name(owner), 60, RData::A(hickory_proto::rr::rdata::A::new(192, 0, 2, last)))
        };
        let alias = |owner: &str, target: &str| {
            let target = hickory_proto::rr::rdata::CNAME(name(target));
            Record::from_rdata(name(owner), 60, RData::CNAME(target))
        };
        let owners = |records: &[Record], asked: &str| -> Vec<String> {
            let found = belonging(records, &name(asked), RecordType::A);
            found.iter().map(|record| record.name.to_ascii()).collect()
        };
        let plain =
            [a("mx.test.", 1), a("evil.example.", 66), a("MX.test.", 2), alias("evil.example.", "mx.test.")];
        assert_eq!(owners(&plain, "mx.test."), ["mx.test.", "MX.test."]);
        let chained =
            [a("c.test.", 1), alias("b.test.", "c.test."), alias("a.test.", "b.test."), a("b.test.", 9)];
        assert_eq!(owners(&chained, "a.test."), ["a.test.", "b.test.", "c.test."]);
        let circle = [alias("a.test.", "b.test."), alias("b.test.", "a.test.")];
        assert!(owners(&circle, "a.test.").len() <= 2);
        let cname = belonging(&chained, &name("b.test."), RecordType::CNAME);
        assert_eq!(cname.len(), 1);
    }

    #[tokio::test]
    async fn dane_14_the_ad_bit_counts_only_from_a_resolver_that_is_configured_as_trusted() {
        let resolver = |dnssec| {
            let servers = vec!["127.0.0.1:53".parse().unwrap()];
            Resolver::new(&ResolverConfig { servers, dnssec, ..ResolverConfig::default() }).unwrap()
        };
        for (dnssec, proof, authentic, expected) in [
            (Dnssec::Validate, Proof::Indeterminate, true, Security::Indeterminate),
            (Dnssec::Validate, Proof::Insecure, true, Security::Insecure),
            (Dnssec::Validate, Proof::Secure, false, Security::Secure),
            (Dnssec::Off, Proof::Secure, true, Security::Insecure),
            (Dnssec::TrustAd, Proof::Indeterminate, true, Security::Secure),
            (Dnssec::TrustAd, Proof::Indeterminate, false, Security::Insecure),
        ] {
            assert_eq!(
                resolver(dnssec).current().security(proof, authentic),
                expected,
                "{dnssec:?} {proof:?}"
            );
        }
        assert_eq!(ResolverConfig::default().dnssec, Dnssec::Validate);
    }
}
