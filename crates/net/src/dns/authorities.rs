//! [`AuthoritativeServers`], a [`Dns`] that queries all authoritative name servers of a zone directly and bypasses caches
//! (PUB-09). Their answers are what senders will see once caches expire, so a rollout uses it to verify its records.
//!
//! The servers are those that the zone itself names and those of its delegation in the parent zone. [`Dns::survey`] tells what
//! each of them did: a server that is down, late, not responsible for the zone or without authority ([`ServerFault`]) has not
//! shown anything.

mod ask;

pub use ask::ServerFault;

use super::{Answer, Data, Dns, DnsError, Exchange, Kind, Security, host_addresses};
use crate::BoxFuture;
use crate::address::special;
use ask::{AuthoritativeAnswer, Patience, ask, delegation};
use formats::DomainName;
use formats::limits::{ALIASES, NAME_SERVER_ADDRESSES, NAME_SERVERS};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Queries the authoritative name servers of each zone. If they answer differently, the lookup fails with
/// [`DnsError::Differ`].
pub struct AuthoritativeServers {
    resolver: Arc<dyn Dns>,
    port: u16,
    allow_special: bool,
    sources: Vec<IpAddr>,
    patience: Patience,
    /// The servers that were silent, and when: they are given less time for a while.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
    /// The delegations in parent zones, and when they were looked up.
    delegations: Mutex<HashMap<DomainName, (Instant, Vec<DomainName>)>>,
}

/// How long a server that was silent is given less time, and how long a delegation is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How long to wait for the delegation of a zone, from each of at most two servers of its parent zone.
const DELEGATION_TIME: Duration = Duration::from_secs(2);

/// The answers of all name servers of a zone about a name, together and one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The answer that the servers with authority agree on.
    pub answer: Result<Answer, DnsError>,
    /// Each server, sorted by name and address. For an alias, those of each zone on the way. Empty if the implementation does
    /// not query name servers by themselves.
    pub servers: Vec<QueriedServer>,
}

/// A name server of a zone, with its answer or fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueriedServer {
    /// The name of the server in the zone's NS records.
    pub name: DomainName,
    /// The address that was queried; `None` if the name has none.
    pub address: Option<IpAddr>,
    /// The name that it was asked about: the one that was looked up, or the target of an alias.
    pub queried_name: DomainName,
    /// The answer in words, or why the server gave none that counts.
    pub shows: Result<String, ServerFault>,
}

/// The address of a name server, or why it is not queried.
struct ServerAddress {
    name: DomainName,
    address: Result<SocketAddr, (Option<IpAddr>, ServerFault)>,
}

/// The answer or fault of one name server.
struct ServerResult {
    name: DomainName,
    address: Option<IpAddr>,
    answer: Result<AuthoritativeAnswer, ServerFault>,
}

impl AuthoritativeServers {
    /// Finds zones and their name servers through `resolver`, and queries the servers on `port`. Servers at private and
    /// other special-purpose addresses are not queried unless `allow_special` is true.
    pub fn new(resolver: Arc<dyn Dns>, port: u16, allow_special: bool) -> Self {
        Self {
            resolver,
            port,
            allow_special,
            sources: Vec::new(),
            patience: Patience::FULL,
            silent: Mutex::default(),
            delegations: Mutex::default(),
        }
    }

    /// Sends queries from these local addresses, at most one per address family.
    pub fn from_sources(self, sources: Vec<IpAddr>) -> Self {
        Self { sources, ..self }
    }

    /// Sets how long an answer may take that counts, and after which time a server is silent, in place of the limits.
    pub fn with_patience(self, counts: Duration, total: Duration) -> Self {
        Self { patience: Patience { counts, total }, ..self }
    }

    /// Looks up records at all servers, following CNAMEs across zones.
    async fn resolve(&self, name: &DomainName, kind: Kind) -> Survey {
        let mut servers = Vec::new();
        let answer = self.follow(name, kind, &mut servers).await;
        servers.sort_by(|one, other| (&one.name, one.address).cmp(&(&other.name, other.address)));
        Survey { answer, servers }
    }

    async fn follow(
        &self,
        name: &DomainName,
        kind: Kind,
        servers: &mut Vec<QueriedServer>,
    ) -> Result<Answer, DnsError> {
        let mut name = name.clone();
        let mut aliases = Vec::new();
        while aliases.len() <= ALIASES {
            let all = self.query_all(&name, kind).await?;
            servers.extend(all.iter().map(|result| result.view(&name)));
            match agreed(&all, &name)? {
                AuthoritativeAnswer::Alias { target, .. } => {
                    aliases.push(target.clone());
                    name = target;
                }
                AuthoritativeAnswer::Records(answer) => return Ok(Answer { aliases, ..answer }),
                AuthoritativeAnswer::Nothing(error) => return Err(error),
            }
        }
        Err(DnsError::ServerFailure(format!("more than {ALIASES} CNAMEs in a row")))
    }

    /// Queries every name server of the zone that `name` is in, concurrently.
    async fn query_all(&self, name: &DomainName, kind: Kind) -> Result<Vec<ServerResult>, DnsError> {
        let mut tasks = JoinSet::new();
        let mut all = Vec::new();
        for place in self.servers(name).await? {
            match place.address {
                Err((address, fault)) => {
                    all.push(ServerResult { name: place.name, address, answer: Err(fault) });
                }
                Ok(server) => {
                    let patience = self.patience_for(server);
                    let (sources, name) = (self.sources.clone(), name.clone());
                    tasks.spawn(async move {
                        let answer = ask(server, &sources, &name, kind, patience).await;
                        (server, ServerResult { name: place.name, address: Some(server.ip()), answer })
                    });
                }
            }
        }
        for (server, result) in tasks.join_all().await {
            match &result.answer {
                Err(ServerFault::Silent) => drop(lock(&self.silent).insert(server, Instant::now())),
                _ => drop(lock(&self.silent).remove(&server)),
            }
            all.push(result);
        }
        all.sort_by(|one, other| (&one.name, one.address).cmp(&(&other.name, other.address)));
        Ok(all)
    }

    fn patience_for(&self, server: SocketAddr) -> Patience {
        let silent = lock(&self.silent).get(&server).is_some_and(|at| at.elapsed() < REMEMBERED);
        let (counts, total) = (self.patience.counts, self.patience.total);
        match silent {
            true => Patience {
                counts: counts.min(Patience::SHORT.counts),
                total: total.min(Patience::SHORT.total),
            },
            false => self.patience,
        }
    }

    /// The name servers of the zone that `name` is in.
    async fn servers(&self, name: &DomainName) -> Result<Vec<ServerAddress>, DnsError> {
        let (zone, mut names) = self.zone(name).await?;
        for other in self.delegation(&zone).await {
            if !names.contains(&other) {
                names.push(other);
            }
        }
        self.addresses_of(names).await
    }

    /// The nearest zone that has its own name servers, and their names by the zone's NS records.
    async fn zone(&self, name: &DomainName) -> Result<(DomainName, Vec<DomainName>), DnsError> {
        let mut zone = Some(name.clone());
        while let Some(candidate) = zone {
            match self.resolver.lookup(&candidate, Kind::Ns).await {
                // With a CNAME, these would be the name servers of another zone.
                Ok(answer) if answer.aliases.is_empty() => return Ok((candidate, name_servers(&answer))),
                Ok(_) => {}
                Err(error) if error.is_absence() => {}
                Err(error) => return Err(error),
            }
            zone = candidate.parent();
        }
        Err(DnsError::ServerFailure(format!("no name servers found for {name}")))
    }

    /// The names in the delegation of a zone. Resolvers that don't know the zone yet ask these, also if the zone's own NS
    /// records lack them. Empty for a zone below the root, and if no server of the parent zone answers.
    async fn delegation(&self, zone: &DomainName) -> Vec<DomainName> {
        if let Some((at, names)) = lock(&self.delegations).get(zone)
            && at.elapsed() < REMEMBERED
        {
            return names.clone();
        }
        let names = self.ask_parent(zone).await;
        lock(&self.delegations).insert(zone.clone(), (Instant::now(), names.clone()));
        names
    }

    async fn ask_parent(&self, zone: &DomainName) -> Vec<DomainName> {
        let Some(parent) = zone.parent() else { return Vec::new() };
        let Ok((_, names)) = self.zone(&parent).await else { return Vec::new() };
        let Ok(servers) = self.addresses_of(names.into_iter().take(2).collect()).await else {
            return Vec::new();
        };
        for server in servers.into_iter().filter_map(|server| server.address.ok()) {
            let names = delegation(server, &self.sources, zone, DELEGATION_TIME).await;
            if !names.is_empty() {
                return names;
            }
        }
        Vec::new()
    }

    /// The addresses of name servers. Fails if none of them has an address that can be queried.
    async fn addresses_of(&self, names: Vec<DomainName>) -> Result<Vec<ServerAddress>, DnsError> {
        let mut all = Vec::new();
        let mut last = DnsError::ServerFailure("the zone has no name servers".to_owned());
        let mut count = 0;
        for (at, name) in names.into_iter().enumerate() {
            let mut add = |address| all.push(ServerAddress { name: name.clone(), address });
            if at >= NAME_SERVERS {
                add(Err((None, ServerFault::NotQueried)));
                continue;
            }
            let found = match host_addresses(self.resolver.as_ref(), &name).await {
                Ok(found) => found.addresses,
                Err(error) => {
                    add(Err((None, ServerFault::NoAddress(error.to_string()))));
                    last = error;
                    continue;
                }
            };
            for address in found {
                let what = special(address).filter(|_| !self.allow_special);
                add(match what {
                    Some(what) => Err((Some(address), ServerFault::SpecialAddress(what.into_owned()))),
                    None if count >= NAME_SERVER_ADDRESSES => Err((Some(address), ServerFault::NotQueried)),
                    None => {
                        count += 1;
                        Ok(SocketAddr::new(address, self.port))
                    }
                });
            }
        }
        if count == 0 { Err(last) } else { Ok(all) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name_servers(answer: &Answer) -> Vec<DomainName> {
    let names = answer.records.iter().filter_map(|data| match data {
        Data::Ns(name) => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// The answer of one name server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAnswer {
    /// The address of the server.
    pub server: IpAddr,
    /// The server's answer. A [`ServerFault`] is a [`DnsError::ServerFailure`], [`DnsError::Timeout`] or
    /// [`DnsError::Network`].
    pub answer: Result<Answer, DnsError>,
}

/// Queries each authoritative name server of a zone separately.
pub trait PerServerLookup: Send + Sync {
    /// Queries every name server of the zone that `name` is in, and returns their answers sorted by address. CNAMEs are
    /// not followed to other zones: the only record of an answer may be the CNAME itself. Fails only if the servers can't be
    /// found.
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
            let result = self.query_all(name, kind).await?.into_iter();
            // What can't be queried from here says nothing about the server.
            let result = result.filter(|result| {
                !matches!(result.answer, Err(ServerFault::SpecialAddress(_) | ServerFault::NoRoute))
            });
            let mut all: Vec<ServerAnswer> = result
                .filter_map(|result| Some(ServerAnswer { server: result.address?, answer: result.alone() }))
                .collect();
            all.sort_by_key(|result| result.server);
            all.dedup_by_key(|result| result.server);
            Ok(all)
        })
    }
}

impl ServerResult {
    fn view(&self, asked: &DomainName) -> QueriedServer {
        QueriedServer {
            name: self.name.clone(),
            address: self.address,
            queried_name: asked.clone(),
            shows: self.answer.as_ref().map(AuthoritativeAnswer::in_words).map_err(Clone::clone),
        }
    }

    /// The answer without other zones.
    fn alone(self) -> Result<Answer, DnsError> {
        match self.answer {
            Ok(
                AuthoritativeAnswer::Records(answer)
                | AuthoritativeAnswer::Alias { inside: Some(answer), .. },
            ) => Ok(answer),
            Ok(AuthoritativeAnswer::Alias { target, ttl, inside: None }) => Ok(Answer {
                records: vec![Data::Cname(target.clone())],
                ttl,
                security: Security::Insecure,
                aliases: vec![target],
                is_split: false,
            }),
            Ok(AuthoritativeAnswer::Nothing(error)) => Err(error),
            Err(fault) => Err(DnsError::from(&fault)),
        }
    }
}

impl AuthoritativeAnswer {
    /// Whether two servers say the same: the same records in any order, the same target, or nothing.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Records(one), Self::Records(other)) => {
                let within =
                    |some: &Answer, all: &Answer| some.records.iter().all(|data| all.records.contains(data));
                within(one, other) && within(other, one)
            }
            (Self::Alias { target: one, .. }, Self::Alias { target: other, .. }) => one == other,
            (Self::Nothing(_), Self::Nothing(_)) => true,
            _ => false,
        }
    }

    /// The answer in words: its records, sorted and shortened.
    fn in_words(&self) -> String {
        let all: Vec<String> = match self {
            Self::Alias { target, .. } => vec![format!("CNAME {target}")],
            Self::Nothing(_) => vec!["nothing".to_owned()],
            Self::Records(answer) => answer.records.iter().map(shown).collect(),
        };
        let mut all = all;
        all.sort();
        all.join(" and ").chars().take(SHOWN_CHARACTERS).collect()
    }
}

/// Characters of an answer that are kept in words.
const SHOWN_CHARACTERS: usize = 300;

/// The data of a record in words, without control characters.
fn shown(data: &Data) -> String {
    match data {
        Data::A(ip) => ip.to_string(),
        Data::Aaaa(ip) => ip.to_string(),
        Data::Cname(name) => format!("CNAME {name}"),
        Data::Ns(name) => name.to_string(),
        Data::Mx(mx) => match &mx.exchange {
            Exchange::Host(host) => format!("MX {} {host}", mx.preference),
            Exchange::Null => format!("MX {} .", mx.preference),
            Exchange::Invalid(text) => format!("MX {} {}", mx.preference, text.escape_debug()),
        },
        Data::Txt(text) => format!("\"{}\"", String::from_utf8_lossy(text).escape_debug()),
        Data::Caa(caa) => format!("CAA {} {}", caa.tag.escape_debug(), caa.value.escape_debug()),
        Data::Soa { serial, .. } => format!("serial {serial}"),
        Data::Tlsa(record) => format!("{record:?}"),
        Data::Dnssec => "a record of DNSSEC".to_owned(),
    }
}

/// What all servers agree on that answer with authority. Servers with a fault are left out, since senders get no answers from
/// them either; if all have one, the error names them.
fn agreed(all: &[ServerResult], name: &DomainName) -> Result<AuthoritativeAnswer, DnsError> {
    let mut words = all.iter().filter_map(|result| Some((result, result.answer.as_ref().ok()?)));
    let Some((first, answer)) = words.next() else { return Err(no_answer(all)) };
    match words.find(|(_, other)| !answer.is(other)) {
        None => Ok(answer.clone()),
        Some((other, different)) => Err(DnsError::Differ {
            name: name.clone(),
            shown: [(first, answer), (other, different)]
                .map(|(result, answer)| format!("{} returns {}", result.server(), answer.in_words()))
                .join(", "),
            all: all_data(all),
        }),
    }
}

/// What any server returns, each record once.
fn all_data(all: &[ServerResult]) -> Vec<Data> {
    let mut found = Vec::new();
    for answer in all.iter().filter_map(|result| result.answer.as_ref().ok()) {
        let data = match answer {
            AuthoritativeAnswer::Alias { target, .. } => vec![Data::Cname(target.clone())],
            AuthoritativeAnswer::Records(answer) => answer.records.clone(),
            AuthoritativeAnswer::Nothing(_) => Vec::new(),
        };
        for data in data {
            if !found.contains(&data) {
                found.push(data);
            }
        }
    }
    found
}

impl ServerResult {
    /// Name and address of the server.
    fn server(&self) -> String {
        server_in_words(&self.name, self.address)
    }
}

/// Name and address of a server, in words.
pub fn server_in_words(name: &DomainName, address: Option<IpAddr>) -> String {
    address.map_or(name.to_string(), |address| format!("{name} ({address})"))
}

fn no_answer(all: &[ServerResult]) -> DnsError {
    let faults = || all.iter().filter_map(|result| Some((result, result.answer.as_ref().err()?)));
    if faults().all(|(_, fault)| *fault == ServerFault::Silent) {
        return DnsError::Timeout;
    }
    let texts: Vec<String> =
        faults().map(|(result, fault)| format!("{}: {fault}", result.server())).collect();
    DnsError::ServerFailure(format!("no name server answers for the zone: {}", texts.join("; ")))
}

impl Dns for AuthoritativeServers {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move { self.resolve(name, kind).await.answer })
    }

    fn survey<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Survey> {
        Box::pin(self.resolve(name, kind))
    }
}
