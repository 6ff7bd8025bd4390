//! Queries to a fixed set of recursive resolvers, with their caches. A [`super::Resolver`] has one [`Servers`] at a time, and
//! replaces the set when the system's resolver configuration changes.
//!
//! The module validates answers with the hickory library, or reads the AD bit, and keeps a cache of unsigned zones, for
//! which the chain of trust is not fetched again.

use super::budget::{Budget, UnsignedZone, ancestors};
use super::dname;
use super::positive::PositiveValidator;
use super::proofs::{
    AliasPath, follows_alias, has_secure_part, is_foreign_denial, is_opt_out_expansion, is_stripped,
    is_unproven_expansion,
};
use super::records::{absolute, belonging, data, domain, record_type, seconds};
use super::resolver_config::{pool, set_options};
use super::sockets::Sockets;
use super::trust_anchor;
use super::unsigned::{Claim, ClaimGuard, UnsignedZones, host};
use super::{Absence, Answer, Data, DnsError, Dnssec, Kind, ResolverConfig, ResolverError, Security, weaker};
use crate::BoxFuture;
use formats::DomainName;
use formats::limits::{ALIASES, DNS_TIME};
use hickory_proto::dnssec::{Proof, TrustAnchors};
use hickory_proto::op::{DnsRequestOptions, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::NameServerPool;
use hickory_resolver::caching_client::CachingClient;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as HickoryDns, NetError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Recursive resolvers, with the caches of their answers.
pub(super) struct Servers {
    /// The addresses of the servers.
    pub(super) addresses: Vec<NameServerConfig>,
    inner: Arc<Inner>,
    /// As `inner`, without a cache, for answers whose signatures were lost: see [`is_stripped`].
    uncached: Arc<Inner>,
    /// `Some` only under [`Dnssec::Validate`].
    positive: Option<PositiveValidator>,
    dnssec: Dnssec,
    /// `Some` only under [`Dnssec::Validate`].
    unsigned: Option<Arc<Unsigned>>,
}

/// The servers in use. Queries that have begun end with the servers that they began with.
pub(super) struct CurrentServers(RwLock<Arc<Servers>>);

impl CurrentServers {
    pub(super) fn new(servers: Servers) -> Self {
        Self(RwLock::new(Arc::new(servers)))
    }

    pub(super) fn get(&self) -> Arc<Servers> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, servers: Servers) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(servers);
    }
}

/// Lookups of names in zones that are proven to be unsigned.
struct Unsigned {
    zones: UnsignedZones,
    /// The resolver without validation, for names in those zones.
    plain: Arc<CurrentServers>,
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

    fn stub(config: &ResolverConfig, servers: Vec<NameServerConfig>) -> Result<Self, ResolverError> {
        let system = |error: NetError| ResolverError::System(error.to_string());
        let servers = hickory_resolver::config::ResolverConfig::from_name_servers(servers);
        let mut builder = hickory_resolver::Resolver::builder_with_config(servers, Sockets::default());
        set_options(builder.options_mut(), config);
        if config.dnssec == Dnssec::Validate {
            builder = builder.with_trust_anchor(anchors(config)?);
        }
        Ok(Self::Stub(Box::new(builder.build().map_err(system)?)))
    }

    fn trusting(config: &ResolverConfig, servers: &[NameServerConfig]) -> Result<Self, NetError> {
        let (pool, size, request) = pool(config, servers)?;
        Ok(Self::Trusting(Box::new(CachingClient::new(size, pool, true)), request))
    }
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
        let found = Box::pin(async { self.plain.get().resolve(name, kind, deadline).await }).await;
        found.as_ref().map_or(true, |answer| answer.aliases.iter().all(is_inside)).then_some(found)
    }
}

impl Servers {
    /// Sets up the connections. `plain` answers queries that need no proof; without it, all are validated.
    pub(super) fn new(
        config: &ResolverConfig,
        addresses: Vec<NameServerConfig>,
        plain: Option<&Arc<CurrentServers>>,
    ) -> Result<Self, ResolverError> {
        let system = |error: NetError| ResolverError::System(error.to_string());
        if config.dnssec == Dnssec::TrustAd {
            let inner = Arc::new(Inner::trusting(config, &addresses).map_err(system)?);
            return Ok(Self {
                addresses,
                uncached: inner.clone(),
                positive: None,
                inner,
                dnssec: config.dnssec,
                unsigned: None,
            });
        }
        let unsigned =
            plain.map(|plain| Arc::new(Unsigned { zones: UnsignedZones::new(), plain: plain.clone() }));
        let inner = Arc::new(Inner::stub(config, addresses.clone())?);
        let (uncached, positive) = match config.dnssec {
            Dnssec::Validate => {
                let validator = PositiveValidator::new(config, &addresses, anchors(config)?);
                let config = ResolverConfig { cache: false, ..config.clone() };
                let uncached = Arc::new(Inner::stub(&config, addresses.clone())?);
                (uncached, Some(validator.map_err(system)?))
            }
            Dnssec::TrustAd | Dnssec::Off => (inner.clone(), None),
        };
        Ok(Self { addresses, inner, uncached, positive, dnssec: config.dnssec, unsigned })
    }

    /// Resolves the root NS set; [`DnsError::Bogus`] if it can't be validated.
    pub(super) async fn probe(&self, deadline: Deadline) -> Result<Security, DnsError> {
        let outcome = self.query(Name::root(), RecordType::NS, &Budget::new(deadline)).await?;
        match self.read(&outcome, &Name::root(), Kind::Ns)?.security {
            Security::Indeterminate => Err(DnsError::Bogus),
            security => Ok(security),
        }
    }

    /// True while the zone of an earlier answer is looked up in the background.
    pub(super) fn is_learning(&self) -> bool {
        self.unsigned.as_ref().is_some_and(|unsigned| unsigned.zones.has_claims())
    }

    /// Looks up a name.
    ///
    /// If the answer depends on aliases, or can't be validated as a whole, each name of the chain is looked up by itself. The
    /// library expects the proof of a negative answer to be about the name in the question, and it is about the end of the
    /// chain (RFC 4035 §3.1.3); and the whole answer does not show whether an alias was expanded from a wildcard with proof.
    pub(super) async fn resolve(
        &self,
        name: &DomainName,
        kind: Kind,
        deadline: Deadline,
    ) -> Result<Answer, DnsError> {
        let budget = &Budget::new(deadline);
        if kind == Kind::Cname && self.unsigned.is_some() {
            return self.resolve_alias(name, budget).await;
        }
        let (mut owner, mut path) = (name.clone(), AliasPath::default());
        for _ in 0..=ALIASES {
            let (found, is_chain) = self.resolve_whole(&owner, kind, budget).await?;
            let is_bogus = found == Err(DnsError::Bogus);
            if self.unsigned.is_none() || !is_bogus && !is_chain {
                return path.lead_to(found);
            }
            match path.add(self.resolve_alias(&owner, budget).await) {
                Ok(target) => owner = target,
                Err(error) if error.is_absence() && is_bogus => {
                    return path.lead_to(self.resolve_positive(&owner, kind, budget).await);
                }
                // The name is an alias in one answer and not in the other.
                Err(error) if error.is_absence() => return Err(DnsError::Bogus),
                Err(error) => return Err(error),
            }
        }
        Err(DnsError::ServerFailure(format!("more than {ALIASES} CNAMEs in a row")))
    }

    /// Looks up the CNAME record of a name.
    async fn resolve_alias(&self, name: &DomainName, budget: &Budget) -> Result<Answer, DnsError> {
        match self.resolve_whole(name, Kind::Cname, budget).await?.0 {
            Err(DnsError::Bogus) => match self.resolve_positive(name, Kind::Cname, budget).await {
                Err(DnsError::Bogus) => self.resolve_redirected(name, budget).await,
                found => found,
            },
            found => found,
        }
    }

    /// Computes the alias of a name from the DNAME record of an ancestor, which is validated.
    async fn resolve_redirected(&self, name: &DomainName, budget: &Budget) -> Result<Answer, DnsError> {
        for ancestor in name.parent().iter().flat_map(ancestors) {
            let outcome = self.query(absolute(&ancestor)?, RecordType::DNAME, budget).await?;
            if let Some(alias) = dname::alias(name, &ancestor, &outcome) {
                return Ok(alias);
            }
        }
        Err(DnsError::Bogus)
    }

    /// Looks up the records of a name whose answer as a whole failed validation: see [`super::positive`].
    async fn resolve_positive(
        &self,
        name: &DomainName,
        kind: Kind,
        budget: &Budget,
    ) -> Result<Answer, DnsError> {
        let Some(positive) = &self.positive else { return Err(DnsError::Bogus) };
        let owner = absolute(name)?;
        budget.take()?;
        // The library's future is large.
        let found = Box::pin(positive.records(&owner, record_type(kind)));
        let found = tokio::time::timeout_at(budget.deadline, found).await.map_err(|_| DnsError::Timeout)?;
        found.map_or(Err(DnsError::Bogus), |lookup| self.answer(&lookup, &owner, kind))
    }

    /// Looks up a name by one query. The second part is true if the answer depends on aliases that have to be looked up by
    /// themselves.
    async fn resolve_whole(
        &self,
        name: &DomainName,
        kind: Kind,
        budget: &Budget,
    ) -> Result<(Result<Answer, DnsError>, bool), DnsError> {
        let query_name = absolute(name)?;
        let Some(unsigned) = &self.unsigned else {
            let outcome = self.query(query_name.clone(), record_type(kind), budget).await?;
            let found = self.read(&outcome, &query_name, kind);
            let found = match found {
                Err(DnsError::NoSuchRecord(absence))
                    if kind == Kind::Mx && self.dnssec == Dnssec::TrustAd =>
                {
                    let security = self.security_of_zone(name, &outcome, budget).await?;
                    Err(DnsError::NoSuchRecord(Absence { security, ..absence }))
                }
                found => found,
            };
            return Ok((found, false));
        };
        if let Some(found) = unsigned.resolve(name, kind, budget.deadline).await {
            return Ok((found, false));
        }
        let claim = match unsigned.zones.claim(name) {
            Claim::First(claim) => Some(claim),
            Claim::Wait(first) => {
                let _ = tokio::time::timeout_at(budget.deadline, first.acquire()).await;
                if let Some(found) = unsigned.resolve(name, kind, budget.deadline).await {
                    return Ok((found, false));
                }
                None
            }
        };
        let mut outcome = self.query(query_name.clone(), record_type(kind), budget).await?;
        if is_stripped(&outcome, &query_name) {
            outcome = query_by(&self.uncached, query_name.clone(), record_type(kind), budget).await?;
        }
        let found = match self.read(&outcome, &query_name, kind) {
            Err(DnsError::NoSuchName(absence)) if absence.security == Security::Indeterminate => self
                .prove_unsigned(name, absence, budget)
                .await?
                .map(DnsError::NoSuchName)
                .map_or(Err(DnsError::Bogus), Err),
            Err(DnsError::NoSuchRecord(absence)) if absence.security == Security::Indeterminate => self
                .prove_unsigned(name, absence, budget)
                .await?
                .map(DnsError::NoSuchRecord)
                .map_or(Err(DnsError::Bogus), Err),
            Err(DnsError::Bogus) => match self.resolve_below_unsigned(unsigned, name, kind, budget).await? {
                Some(found) => return Ok((found, false)),
                None => Err(DnsError::Bogus),
            },
            found => found,
        };
        let is_chain = follows_alias(&query_name, kind, &outcome, &found);
        self.cache_unsigned_zone(unsigned, name, &outcome, &found, claim);
        Ok((found, is_chain))
    }

    /// Looks up a name whose answer failed validation once more, without validation, if an ancestor of the name is in an
    /// unsigned zone: everything below is insecure, also a zone with signatures and with a DS record in an unsigned
    /// parent (RFC 4035 §5.2), which the library takes for bogus. `None` if no ancestor is proven to be unsigned.
    async fn resolve_below_unsigned(
        &self,
        unsigned: &Unsigned,
        name: &DomainName,
        kind: Kind,
        budget: &Budget,
    ) -> Result<Option<Result<Answer, DnsError>>, DnsError> {
        let Some(parent) = name.parent() else { return Ok(None) };
        let Some((zone, ttl)) = self.unsigned_ancestor(&parent, budget).await? else { return Ok(None) };
        unsigned.zones.insert(zone, ttl, Instant::now());
        Ok(unsigned.resolve(name, kind, budget.deadline).await)
    }

    /// The closest zone that encloses a name and is proven to be unsigned; `None` if there is no proof.
    async fn unsigned_ancestor(
        &self,
        name: &DomainName,
        budget: &Budget,
    ) -> Result<Option<UnsignedZone>, DnsError> {
        for candidate in ancestors(name) {
            let zone = match budget.known(&candidate) {
                Some(known) => known,
                None => {
                    let outcome = self.query(absolute(&candidate)?, RecordType::SOA, budget).await?;
                    let zone = unsigned_zone(&candidate, &outcome);
                    budget.learn(candidate, zone.clone());
                    zone
                }
            };
            if zone.is_some() {
                return Ok(zone);
            }
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
        budget: &Budget,
    ) -> Result<Security, DnsError> {
        let Err(NetError::Dns(HickoryDns::NoRecordsFound(none))) = outcome else {
            return Ok(Security::Insecure);
        };
        let Some(zone) = none.soa.as_ref().map(|soa| soa.name.clone()) else { return Ok(Security::Insecure) };
        if !absolute(name).is_ok_and(|name| zone.zone_of(&name)) {
            return Ok(Security::Insecure);
        }
        let soa = self.query(zone.clone(), RecordType::SOA, budget).await?;
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
        budget: &Budget,
    ) -> Result<Option<Absence>, DnsError> {
        let zone = self.unsigned_ancestor(name, budget).await?;
        Ok(zone.map(|_| Absence { security: Security::Insecure, ..absence }))
    }

    /// Caches the unsigned zone that encloses `name`. Negative answers carry the zone's SOA. A positive answer without a
    /// secure part proves at least that everything below `name` is unsigned; one from a wildcard with opt-out does not. The
    /// SOA is queried only if siblings of the host may be in the same zone, or if `name` has service labels, such as
    /// `_mta-sts`; that query runs in the background, so that the answer never waits for it.
    fn cache_unsigned_zone(
        &self,
        unsigned: &Arc<Unsigned>,
        name: &DomainName,
        outcome: &Result<Lookup, NetError>,
        found: &Result<Answer, DnsError>,
        claim: Option<ClaimGuard>,
    ) {
        let is_own = |answer: &&Answer| {
            answer.security == Security::Insecure && answer.aliases.is_empty() && !has_secure_part(outcome)
        };
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
        budget: &'a Budget,
    ) -> BoxFuture<'a, Result<Result<Lookup, NetError>, DnsError>> {
        query_by(&self.inner, name, kind, budget)
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
        if is_opt_out_expansion(lookup.message()) {
            answer.security = weaker(answer.security, Security::Insecure);
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
            NetError::Dns(HickoryDns::Nsec { query, response, .. })
                if is_foreign_denial(&response.authorities, query.name()) =>
            {
                DnsError::Bogus
            }
            NetError::Dns(HickoryDns::Nsec { response, proof, .. }) => {
                let ttl = response.authorities.iter().map(|record| record.ttl).min();
                nothing(response.metadata.response_code, self.security(*proof, false), ttl.map(seconds))
            }
            NetError::Dns(HickoryDns::NoRecordsFound(none)) => {
                let authorities = none.authorities.as_deref().unwrap_or_default();
                if is_foreign_denial(authorities, none.query.name()) {
                    return DnsError::Bogus;
                }
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
            // The library says so when it could connect to no server, as without a route or a network.
            NetError::NoConnections => DnsError::Network(
                "no resolver can be reached (is the network up, and is the resolver running?)".to_owned(),
            ),
            other => DnsError::Network(other.to_string()),
        }
    }
}

fn query_by<'a>(
    inner: &'a Inner,
    name: Name,
    kind: RecordType,
    budget: &'a Budget,
) -> BoxFuture<'a, Result<Result<Lookup, NetError>, DnsError>> {
    Box::pin(async move {
        budget.take()?;
        let lookup = inner.lookup(name, kind);
        tokio::time::timeout_at(budget.deadline, lookup).await.map_err(|_| DnsError::Timeout)
    })
}

/// The trust anchor of a configuration, or that of the public DNS.
fn anchors(config: &ResolverConfig) -> Result<Arc<TrustAnchors>, ResolverError> {
    let Some(text) = &config.trust_anchor else { return Ok(Arc::default()) };
    let anchors = trust_anchor::zone_file(text)?.parse::<TrustAnchors>();
    Ok(Arc::new(anchors.map_err(|error| ResolverError::TrustAnchor(error.to_string()))?))
}

/// How long names of a host wait for the lookup of its zone at most, before each is validated by itself.
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

/// The zone that `name` is in and the TTL of its SOA record, if the answer contains the SOA and proves that the zone is
/// unsigned.
fn unsigned_zone(name: &DomainName, outcome: &Result<Lookup, NetError>) -> Option<UnsignedZone> {
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
pub(super) type Deadline = tokio::time::Instant;

pub(super) fn deadline() -> Deadline {
    Deadline::now() + DNS_TIME
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::resolver_config::name_servers;

    #[tokio::test]
    async fn dane_14_the_ad_bit_counts_only_from_a_resolver_that_is_configured_as_trusted() {
        let resolver = |dnssec| {
            let servers = vec!["127.0.0.1:53".parse().unwrap()];
            let config = ResolverConfig { servers, dnssec, ..ResolverConfig::default() };
            Servers::new(&config, name_servers(&config, None).unwrap(), None).unwrap()
        };
        for (dnssec, proof, authentic, expected) in [
            (Dnssec::Validate, Proof::Indeterminate, true, Security::Indeterminate),
            (Dnssec::Validate, Proof::Insecure, true, Security::Insecure),
            (Dnssec::Validate, Proof::Secure, false, Security::Secure),
            (Dnssec::Off, Proof::Secure, true, Security::Insecure),
            (Dnssec::TrustAd, Proof::Indeterminate, true, Security::Secure),
            (Dnssec::TrustAd, Proof::Indeterminate, false, Security::Insecure),
        ] {
            assert_eq!(resolver(dnssec).security(proof, authentic), expected, "{dnssec:?} {proof:?}");
        }
        assert_eq!(ResolverConfig::default().dnssec, Dnssec::Validate);
    }
}
