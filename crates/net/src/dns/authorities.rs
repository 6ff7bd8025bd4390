//! [`Dns`] by the name servers of the zone itself, all of them, past every cache (PUB-09): what they
//! show is what senders will see when caches have run out.

use super::{Answer, Data, Dns, DnsError, Kind, Resolver, ResolverConfig, host_addresses};
use crate::BoxFuture;
use crate::address::special;
use crate::dns::Dnssec;
use formats::DomainName;
use formats::limits::{ALIASES, DNS_TIME, NAME_SERVERS};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Asks the name servers of each zone.
pub struct Authorities {
    resolver: Arc<dyn Dns>,
    port: u16,
    allow_special: bool,
    sources: Vec<IpAddr>,
}

impl Authorities {
    /// Finds zones and their servers by `resolver`, and asks them on `port`. Servers at private and other
    /// special addresses are asked only when that is allowed.
    pub fn new(resolver: Arc<dyn Dns>, port: u16, allow_special: bool) -> Self {
        Self { resolver, port, allow_special, sources: Vec::new() }
    }

    /// The same, asking from these addresses of this machine, one a family.
    pub fn from_sources(self, sources: Vec<IpAddr>) -> Self {
        Self { sources, ..self }
    }

    async fn ask(&self, name: &DomainName, kind: Kind) -> Result<Answer, DnsError> {
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
        Err(DnsError::ServerFailure(format!("over {ALIASES} aliases in a row")))
    }

    /// The servers of the zone that `name` is in.
    async fn servers(&self, name: &DomainName) -> Result<Vec<SocketAddr>, DnsError> {
        let mut zone = Some(name.clone());
        while let Some(candidate) = zone {
            match self.resolver.lookup(&candidate, Kind::Ns).await {
                // Through an alias it would be the servers of another zone.
                Ok(answer) if answer.aliases.is_empty() => return self.addresses(&answer).await,
                Ok(_) => {}
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error),
            }
            zone = candidate.parent();
        }
        Err(DnsError::ServerFailure(format!("no name servers are found for {name}")))
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

/// What one server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The server.
    pub server: IpAddr,
    /// Its answer.
    pub said: Result<Answer, DnsError>,
}

/// Asks each name server of a zone by itself.
pub trait AskEachServer: Send + Sync {
    /// What every server of the zone of `name` says, by itself. No CNAME is followed to another zone.
    fn each<'a>(
        &'a self,
        name: &'a DomainName,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Vec<ServerAnswer>, DnsError>>;
}

impl AskEachServer for Authorities {
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
                    ServerAnswer { server: server.ip(), said: one(server, sources, &name, kind).await }
                });
            }
            let mut all = tasks.join_all().await;
            all.sort_by_key(|said| said.server);
            Ok(all)
        })
    }
}

fn absent(error: DnsError) -> Result<Option<Answer>, DnsError> {
    if error.is_absence() { Ok(None) } else { Err(error) }
}

/// How long the others are waited for when one has answered.
const STRAGGLER_TIMEOUT: Duration = Duration::from_secs(2);

/// What all servers say that answer at all. One that is dead shows nothing to senders either.
async fn agreed(
    servers: &[SocketAddr],
    sources: &[IpAddr],
    name: &DomainName,
    kind: Kind,
) -> Result<Answer, DnsError> {
    let mut tasks = tokio::task::JoinSet::new();
    for server in servers {
        let (server, sources, name) = (*server, sources.to_vec(), name.clone());
        tasks.spawn(async move { (server, one(server, sources, &name, kind).await) });
    }
    let (mut said, mut silent): (Option<(SocketAddr, Result<Answer, DnsError>)>, _) =
        (None, DnsError::Timeout);
    loop {
        let patience = if said.is_some() { STRAGGLER_TIMEOUT } else { DNS_TIME };
        let Ok(Some(Ok((server, outcome)))) = tokio::time::timeout(patience, tasks.join_next()).await else {
            break;
        };
        match (&said, outcome) {
            (_, Err(error)) if !error.is_absence() => silent = error,
            (None, outcome) => said = Some((server, outcome)),
            (Some((first, known)), outcome) if !alike(known, &outcome) => {
                return Err(DnsError::Differ { name: name.clone(), one: first.ip(), other: server.ip() });
            }
            _ => {}
        }
    }
    said.map_or(Err(silent), |(_, outcome)| outcome)
}

async fn one(
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

fn alike(one: &Result<Answer, DnsError>, other: &Result<Answer, DnsError>) -> bool {
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

impl Dns for Authorities {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(self.ask(name, kind))
    }
}
