//! [`Resolver`], the main implementation of [`Dns`]: a stub resolver that validates DNSSEC itself (RFC 4035 §4.9), or
//! trusts the AD bit of a validating resolver that the operator vouches for (DANE-14). Queries are in [`super::servers`].

use super::resolver_config::{SystemServers, name_servers};
use super::servers::{CurrentServers, Deadline, Servers, deadline};
use super::{Answer, Dns, DnsError, Dnssec, Kind, ResolverConfig, ResolverError, Security};
use crate::BoxFuture;
use formats::DomainName;
use hickory_resolver::config::NameServerConfig;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A stub resolver with optional DNSSEC validation.
pub struct Resolver {
    config: ResolverConfig,
    /// The servers for names that need no validation; `Some` only under [`Dnssec::Validate`].
    plain: Option<Arc<Resolver>>,
    /// The addresses of the servers at the start.
    trusted: Vec<IpAddr>,
    /// The servers in use, with their caches. [`Resolver::reload`] replaces them.
    current: Arc<CurrentServers>,
    /// The task that probes the servers of the last reload, if they did not answer then.
    waiting: Mutex<Option<Waiting>>,
}

/// A task that is aborted when this is dropped.
struct Waiting(JoinHandle<()>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// New servers, which replace those in use once they have been probed.
struct Replacement {
    servers: Servers,
    current: Arc<CurrentServers>,
    /// The servers of the paired resolver, and those that replace them.
    plain: Option<(Servers, Arc<CurrentServers>)>,
}

impl Replacement {
    fn put(self) {
        if let Some((servers, current)) = self.plain {
            current.set(servers);
        }
        self.current.set(self.servers);
    }

    /// Probes the servers until they answer once, and puts them in use if they validate.
    async fn put_when_they_answer(self) {
        loop {
            tokio::time::sleep(PROBE_SPACING).await;
            match self.servers.probe(Deadline::now() + PROBE_TIME).await {
                Ok(_) => return self.put(),
                Err(DnsError::Bogus) => return,
                Err(_) => {}
            }
        }
    }
}

/// The time limit for a probe of new servers.
const PROBE_TIME: Duration = Duration::from_secs(5);
/// The pause before the next probe of new servers that did not answer.
const PROBE_SPACING: Duration = Duration::from_secs(1);

impl Resolver {
    /// Creates a resolver. Under [`Dnssec::Validate`] it has its own resolver for names that need no validation.
    pub fn new(config: &ResolverConfig) -> Result<Self, ResolverError> {
        Self::using(config, None)
    }

    /// As [`Self::new`], with the resolvers that `system` names unless the configuration names some. Without `system`, the
    /// system's resolver configuration is read.
    pub fn using(config: &ResolverConfig, system: Option<&SystemServers>) -> Result<Self, ResolverError> {
        let servers = name_servers(config, system)?;
        let plain = match config.dnssec {
            Dnssec::Validate => {
                let unvalidated = ResolverConfig { dnssec: Dnssec::Off, ..config.clone() };
                Some(Arc::new(Self::with(&unvalidated, servers.clone(), None)?))
            }
            Dnssec::TrustAd | Dnssec::Off => None,
        };
        Self::with(config, servers, plain)
    }

    /// Creates a resolver paired with `plain`, which answers queries that need no proof: those in zones known to be
    /// unsigned. Their answers are cached in `plain`, also for its other users. Only [`Dnssec::Validate`] uses it. Unless the
    /// configuration names resolvers, those of `plain` are used.
    pub fn beside(plain: &Arc<Self>, config: &ResolverConfig) -> Result<Self, ResolverError> {
        let servers = match config.servers.is_empty() {
            true => plain.current.get().addresses.clone(),
            false => name_servers(config, None)?,
        };
        Self::with(config, servers, Some(plain.clone()).filter(|_| config.dnssec == Dnssec::Validate))
    }

    fn with(
        config: &ResolverConfig,
        servers: Vec<NameServerConfig>,
        plain: Option<Arc<Self>>,
    ) -> Result<Self, ResolverError> {
        let trusted = servers.iter().map(|server| server.ip).collect();
        let current = Servers::new(config, servers, plain.as_ref().map(|plain| &plain.current))?;
        let current = Arc::new(CurrentServers::new(current));
        Ok(Self { config: config.clone(), plain, trusted, current, waiting: Mutex::default() })
    }

    /// Reads the system's resolver configuration again; see [`Self::reload_from`].
    pub async fn reload(&self) -> Result<(), ResolverError> {
        match SystemServers::read_for(&self.config.servers)? {
            Some(system) => self.reload_from(&system).await,
            None => Ok(()),
        }
    }

    /// Replaces the servers and their caches by those that the system's resolver configuration names, also those of the
    /// paired resolver. It does nothing when the servers are configured. On failure the servers in use stay.
    ///
    /// # Errors
    ///
    /// [`ResolverError::NoDnssec`] under [`Dnssec::Validate`] if the new servers answer and no answer can be validated: with them
    /// every lookup would fail. Servers that do not answer are probed again in the background, since the network may be about
    /// to come up, and are used when they have answered. Until then the servers in use stay.
    pub async fn reload_from(&self, system: &SystemServers) -> Result<(), ResolverError> {
        if !self.config.servers.is_empty() {
            return Ok(());
        }
        let new = name_servers(&self.config, Some(system))?;
        if self.config.dnssec == Dnssec::TrustAd {
            self.check_trusted(&new)?;
        }
        let servers = self.servers(new.clone())?;
        let plain = match &self.plain {
            Some(plain) => Some((plain.servers(new)?, plain.current.clone())),
            None => None,
        };
        let replacement = Replacement { servers, current: self.current.clone(), plain };
        self.waiting().take();
        if self.config.dnssec == Dnssec::Validate {
            match replacement.servers.probe(Deadline::now() + PROBE_TIME).await {
                Ok(_) => {}
                Err(DnsError::Bogus) => return Err(ResolverError::NoDnssec),
                Err(_) => {
                    let task = tokio::spawn(replacement.put_when_they_answer());
                    *self.waiting() = Some(Waiting(task));
                    return Ok(());
                }
            }
        }
        replacement.put();
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn servers(&self, addresses: Vec<NameServerConfig>) -> Result<Servers, ResolverError> {
        Servers::new(&self.config, addresses, self.plain.as_ref().map(|plain| &plain.current))
    }

    /// The AD bit counts only from a resolver that the operator vouches for: one on this machine, or one that was in use
    /// at the start. Whoever runs the local network can name others in `/etc/resolv.conf`.
    fn check_trusted(&self, servers: &[NameServerConfig]) -> Result<(), ResolverError> {
        match servers.iter().find(|server| !server.ip.is_loopback() && !self.trusted.contains(&server.ip)) {
            Some(server) => Err(ResolverError::Untrusted(server.ip)),
            None => Ok(()),
        }
    }

    /// Checks that DNSSEC validation works at all, by resolving the root NS set. Returns [`DnsError::Bogus`] when the
    /// servers strip DNSSEC records or the trust anchor does not match, in which case every lookup would fail.
    pub async fn probe(&self) -> Result<Security, DnsError> {
        self.current.get().probe(deadline()).await
    }

    /// As [`Self::probe`], with new connections and without the cache, so that it shows what the servers in use do now.
    pub async fn probe_uncached(&self) -> Result<Security, DnsError> {
        let addresses = self.current.get().addresses.clone();
        let servers = self.servers(addresses).map_err(|error| DnsError::Network(error.to_string()))?;
        servers.probe(Deadline::now() + PROBE_TIME).await
    }

    /// True while the zone of an earlier answer is looked up in the background.
    pub fn is_learning(&self) -> bool {
        self.current.get().is_learning()
    }
}

impl Dns for Resolver {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move { self.current.get().resolve(name, kind, deadline()).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Message, MessageType};
    use hickory_proto::rr::{Name, RData, Record, rdata};
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::net::UdpSocket;

    /// A resolver that vouches for each answer, and counts the queries.
    async fn trusted_server() -> (SocketAddr, Arc<AtomicU32>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        (socket.local_addr().unwrap(), serve(socket))
    }

    fn serve(socket: UdpSocket) -> Arc<AtomicU32> {
        let count = Arc::new(AtomicU32::new(0));
        let queries = count.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                queries.fetch_add(1, Ordering::SeqCst);
                let mut reply = Message::from_vec(&buffer[..length]).unwrap();
                reply.metadata.message_type = MessageType::Response;
                reply.metadata.recursion_available = true;
                reply.metadata.authentic_data = true;
                let name = reply.queries[0].name().clone();
                let ns = RData::NS(rdata::NS(Name::from_ascii("ns.test.").unwrap()));
                reply.add_answer(Record::from_rdata(name, 60, ns));
                let _ = socket.send_to(&reply.to_vec().unwrap(), from).await;
            }
        });
        count
    }

    #[tokio::test]
    async fn after_a_refused_resolv_conf_the_servers_in_use_are_probed() {
        let (address, queries) = trusted_server().await;
        let config = ResolverConfig {
            dnssec: Dnssec::TrustAd,
            attempt_time: Duration::from_millis(500),
            ..ResolverConfig::default()
        };
        let resolver = Resolver::using(&config, Some(&SystemServers::at(address))).unwrap();
        assert_eq!(resolver.probe_uncached().await, Ok(Security::Secure));
        // Nobody vouches for this one.
        let refused = SystemServers::at("192.0.2.53:53".parse().unwrap());
        assert!(matches!(resolver.reload_from(&refused).await, Err(ResolverError::Untrusted(_))));
        let before = queries.load(Ordering::SeqCst);
        assert_eq!(resolver.probe_uncached().await, Ok(Security::Secure));
        assert!(queries.load(Ordering::SeqCst) > before);
    }

    #[tokio::test]
    async fn servers_that_do_not_answer_after_a_reload_are_probed_until_they_do() {
        let first = SystemServers::at("127.0.0.1:9".parse().unwrap());
        let config = ResolverConfig { attempt_time: Duration::from_millis(50), ..ResolverConfig::default() };
        let resolver = Resolver::using(&config, Some(&first)).unwrap();
        let port = |resolver: &Resolver| resolver.current.get().addresses[0].connections[0].port;
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        resolver.reload_from(&SystemServers::at(address)).await.unwrap();
        assert_eq!(port(&resolver), 9, "the servers in use stay");
        // Now it answers, without signatures.
        drop(silent);
        let queries = serve(UdpSocket::bind(address).await.unwrap());
        while !resolver.waiting().as_ref().unwrap().0.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(queries.load(Ordering::SeqCst) > 0);
        assert_eq!(port(&resolver), 9);
    }

    #[tokio::test]
    async fn a_paired_resolver_is_built_and_reloaded_from_the_servers_that_were_read_once() {
        let config = ResolverConfig::default();
        let unvalidated = ResolverConfig { dnssec: Dnssec::Off, ..config.clone() };
        let first = SystemServers::at("127.0.0.1:9".parse().unwrap());
        let plain = Arc::new(Resolver::using(&unvalidated, Some(&first)).unwrap());
        let resolver = Resolver::beside(&plain, &config).unwrap();
        let port = |resolver: &Resolver| resolver.current.get().addresses[0].connections[0].port;
        assert_eq!((port(&resolver), port(&plain)), (9, 9));
        let (address, _) = trusted_server().await;
        let second = SystemServers::at(address);
        // Its answers have no signatures, so that it is refused and changes neither.
        assert!(matches!(resolver.reload_from(&second).await, Err(ResolverError::NoDnssec)));
        assert_eq!((port(&resolver), port(&plain)), (9, 9));
        plain.reload_from(&second).await.unwrap();
        assert_eq!((port(&resolver), port(&plain)), (9, address.port()));
    }
}
