//! [`AuthoritativeServers`], a [`Dns`] that queries all authoritative name servers of a zone directly and bypasses caches
//! (PUB-09). Their answers are what senders will see once caches expire, so a rollout uses it to verify its records.

use super::{Answer, Data, Dns, DnsError, Kind, Resolver, ResolverConfig, host_addresses};
use crate::BoxFuture;
use crate::address::special;
use crate::dns::Dnssec;
use formats::DomainName;
use formats::limits::{ALIASES, DNS_TIME, NAME_SERVERS};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Queries the authoritative name servers of each zone. If they answer differently, the lookup fails with
/// [`DnsError::Differ`].
pub struct AuthoritativeServers {
    resolver: Arc<dyn Dns>,
    port: u16,
    allow_special: bool,
    sources: Vec<IpAddr>,
}

impl AuthoritativeServers {
    /// Finds zones and their name servers through `resolver`, and queries the servers on `port`. Servers at private and
    /// other special-purpose addresses are skipped unless `allow_special` is true.
    pub fn new(resolver: Arc<dyn Dns>, port: u16, allow_special: bool) -> Self {
        Self { resolver, port, allow_special, sources: Vec::new() }
    }

    /// Sends queries from these local addresses, at most one per address family.
    pub fn from_sources(self, sources: Vec<IpAddr>) -> Self {
        Self { sources, ..self }
    }

    /// Looks up records, following CNAMEs across zones.
    async fn resolve(&self, name: &DomainName, kind: Kind) -> Result<Answer, DnsError> {
        let mut name = name.clone();
        let mut aliases = Vec::new();
        while aliases.len() < ALIASES {
            let servers = self.servers(&name).await?;
            let alias = match kind {
                Kind::Cname => None,
                _ => agreed(&servers, &self.sources, &name, Kind::Cname)
                    .await
                    .map_or_else(absent, |answer| Ok(Some(answer)))?,
            };
            let target = alias.and_then(|answer| match answer.records.first() {
                Some(Data::Cname(target)) => Some(target.clone()),
                _ => None,
            });
            let Some(target) = target else {
                let answer = agreed(&servers, &self.sources, &name, kind).await?;
                return Ok(Answer { aliases, ..answer });
            };
            aliases.push(target.clone());
            name = target;
        }
        Err(DnsError::ServerFailure(format!("more than {ALIASES} CNAMEs in a row")))
    }

    /// The addresses of the name servers of the zone that `name` is in.
    async fn servers(&self, name: &DomainName) -> Result<Vec<SocketAddr>, DnsError> {
        let mut zone = Some(name.clone());
        while let Some(candidate) = zone {
            match self.resolver.lookup(&candidate, Kind::Ns).await {
                // With a CNAME, these would be the name servers of another zone.
                Ok(answer) if answer.aliases.is_empty() => return self.addresses(&answer).await,
                Ok(_) => {}
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error),
            }
            zone = candidate.parent();
        }
        Err(DnsError::ServerFailure(format!("no name servers found for {name}")))
    }

    async fn addresses(&self, answer: &Answer) -> Result<Vec<SocketAddr>, DnsError> {
        let names = answer.records.iter().filter_map(|data| match data {
            Data::Ns(name) => Some(name),
            _ => None,
        });
        let mut all: Vec<IpAddr> = Vec::new();
        let mut last = DnsError::ServerFailure("the zone has no name servers".to_owned());
        for name in names.take(NAME_SERVERS) {
            match host_addresses(self.resolver.as_ref(), name).await {
                Ok(found) => all.extend(found.addresses),
                Err(error) => last = error,
            }
        }
        all.retain(|address| self.allow_special || special(*address).is_none());
        all.truncate(NAME_SERVERS);
        if all.is_empty() {
            return Err(last);
        }
        Ok(all.into_iter().map(|address| SocketAddr::new(address, self.port)).collect())
    }
}

/// The answer of one name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The address of the server.
    pub server: IpAddr,
    /// The server's answer.
    pub said: Result<Answer, DnsError>,
}

/// Queries each authoritative name server of a zone separately.
pub trait PerServerLookup: Send + Sync {
    /// Queries every name server of the zone that `name` is in, and returns their answers sorted by address. CNAMEs are
    /// not followed to other zones. Fails only if the servers can't be found.
    fn each<'a>(
        &'a self,
        name: &'a DomainName,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Vec<ServerAnswer>, DnsError>>;
}

impl PerServerLookup for AuthoritativeServers {
    fn each<'a>(
        &'a self,
        name: &'a DomainName,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Vec<ServerAnswer>, DnsError>> {
        Box::pin(async move {
            let servers = self.servers(name).await?;
            let mut tasks = tokio::task::JoinSet::new();
            for server in servers {
                let (sources, name) = (self.sources.clone(), name.clone());
                tasks.spawn(async move {
                    ServerAnswer { server: server.ip(), said: query(server, sources, &name, kind).await }
                });
            }
            let mut all = tasks.join_all().await;
            all.sort_by_key(|said| said.server);
            Ok(all)
        })
    }
}

/// Turns a negative answer into `None`.
fn absent(error: DnsError) -> Result<Option<Answer>, DnsError> {
    if error.is_absence() { Ok(None) } else { Err(error) }
}

/// After the first answer, how long to wait for each further one.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(2);

/// The answer that all responding servers agree on. Servers that fail are ignored, since senders get no answers from
/// them either.
async fn agreed(
    servers: &[SocketAddr],
    sources: &[IpAddr],
    name: &DomainName,
    kind: Kind,
) -> Result<Answer, DnsError> {
    let mut tasks = tokio::task::JoinSet::new();
    for server in servers {
        let (server, sources, name) = (*server, sources.to_vec(), name.clone());
        tasks.spawn(async move { (server, query(server, sources, &name, kind).await) });
    }
    let mut first: Option<(SocketAddr, Result<Answer, DnsError>)> = None;
    let mut failure = DnsError::Timeout;
    loop {
        let limit = if first.is_some() { STRAGGLER_TIMEOUT } else { DNS_TIME };
        let Ok(Some(Ok((server, outcome)))) = tokio::time::timeout(limit, tasks.join_next()).await else {
            break;
        };
        match (&first, outcome) {
            (_, Err(error)) if !error.is_absence() => failure = at_server(server.ip(), error),
            (None, outcome) => first = Some((server, outcome)),
            (Some((one, known)), outcome) if !are_same(known, &outcome) => {
                return Err(DnsError::Differ { name: name.clone(), one: one.ip(), other: server.ip() });
            }
            _ => {}
        }
    }
    first.map_or(Err(failure), |(_, outcome)| outcome)
}

/// Names the server in an error, since each zone has several.
fn at_server(server: IpAddr, error: DnsError) -> DnsError {
    match error {
        DnsError::ServerFailure(why) => DnsError::ServerFailure(format!("{why}, from {server}")),
        DnsError::Network(why) => DnsError::Network(format!("{why}, to {server}")),
        other => other,
    }
}

/// Queries a single server, without cache and validation.
async fn query(
    server: SocketAddr,
    sources: Vec<IpAddr>,
    name: &DomainName,
    kind: Kind,
) -> Result<Answer, DnsError> {
    let config = ResolverConfig {
        servers: vec![server],
        sources,
        dnssec: Dnssec::Off,
        cache: false,
        ..ResolverConfig::default()
    };
    let resolver = Resolver::new(&config).map_err(|error| DnsError::Network(error.to_string()))?;
    resolver.lookup(name, kind).await
}

/// Whether two answers have the same records in any order; two negative answers are the same.
fn are_same(one: &Result<Answer, DnsError>, other: &Result<Answer, DnsError>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            let within =
                |some: &Answer, all: &Answer| some.records.iter().all(|data| all.records.contains(data));
            within(one, other) && within(other, one)
        }
        (Err(_), Err(_)) => true,
        _ => false,
    }
}

impl Dns for AuthoritativeServers {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(self.resolve(name, kind))
    }
}
