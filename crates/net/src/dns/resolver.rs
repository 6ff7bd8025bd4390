//! [`Resolver`], the main implementation of [`Dns`]: a stub resolver that validates DNSSEC itself (RFC 4035 §4.9), or
//! trusts the AD bit of a validating resolver that the operator vouches for (DANE-14). Queries are in [`super::servers`].

use super::resolver_config::name_servers;
use super::servers::{CurrentServers, Deadline, Servers, deadline};
use super::{Answer, Dns, DnsError, Dnssec, Kind, ResolverConfig, ResolverError, Security};
use crate::BoxFuture;
use formats::DomainName;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A stub resolver with optional DNSSEC validation.
pub struct Resolver {
    config: ResolverConfig,
    /// The servers for names that need no validation; `Some` only under [`Dnssec::Validate`].
    plain: Option<Arc<Resolver>>,
    /// The addresses of the servers at the start.
    trusted: Vec<IpAddr>,
    /// The servers in use, with their caches. [`Resolver::reload`] replaces them.
    current: Arc<CurrentServers>,
}

/// The time limit for a probe of new servers.
const PROBE_TIME: Duration = Duration::from_secs(5);

impl Resolver {
    /// Creates a resolver. Under [`Dnssec::Validate`] it has its own resolver for names that need no validation.
    pub fn new(config: &ResolverConfig) -> Result<Self, ResolverError> {
        let plain = match config.dnssec {
            Dnssec::Validate => {
                Some(Arc::new(Self::with(&ResolverConfig { dnssec: Dnssec::Off, ..config.clone() }, None)?))
            }
            Dnssec::TrustAd | Dnssec::Off => None,
        };
        Self::with(config, plain)
    }

    /// Creates a resolver paired with `plain`, which answers queries that need no proof: those in zones known to be
    /// unsigned. Their answers are cached in `plain`, also for its other users. Only [`Dnssec::Validate`] uses it.
    pub fn beside(plain: &Arc<Self>, config: &ResolverConfig) -> Result<Self, ResolverError> {
        Self::with(config, Some(plain.clone()).filter(|_| config.dnssec == Dnssec::Validate))
    }

    fn with(config: &ResolverConfig, plain: Option<Arc<Self>>) -> Result<Self, ResolverError> {
        let current = Servers::new(config, plain.as_ref().map(|plain| &plain.current))?;
        let servers = name_servers(config).map_err(|error| ResolverError::System(error.to_string()))?;
        let trusted = servers.iter().map(|server| server.ip).collect();
        Ok(Self { config: config.clone(), plain, trusted, current: Arc::new(CurrentServers::new(current)) })
    }

    /// Reads the system's resolver configuration again, and replaces the servers and their caches, also those of the
    /// paired resolver. It does nothing when the servers are configured. On failure the servers in use stay.
    ///
    /// # Errors
    ///
    /// [`ResolverError::NoDnssec`] under [`Dnssec::Validate`] if the new servers answer and no answer can be validated: with them
    /// every lookup would fail. Servers that do not answer are used, since the network may be about to come up.
    pub async fn reload(&self) -> Result<(), ResolverError> {
        if !self.config.servers.is_empty() {
            return Ok(());
        }
        if self.config.dnssec == Dnssec::TrustAd {
            self.check_trusted()?;
        }
        let servers = self.new_servers()?;
        let validates = self.config.dnssec == Dnssec::Validate;
        if validates && servers.probe(Deadline::now() + PROBE_TIME).await == Err(DnsError::Bogus) {
            return Err(ResolverError::NoDnssec);
        }
        if let Some(plain) = &self.plain {
            plain.current.set(plain.new_servers()?);
        }
        self.current.set(servers);
        Ok(())
    }

    fn new_servers(&self) -> Result<Servers, ResolverError> {
        Servers::new(&self.config, self.plain.as_ref().map(|plain| &plain.current))
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

    /// Checks that DNSSEC validation works at all, by resolving the root NS set. Returns [`DnsError::Bogus`] when the
    /// servers strip DNSSEC records or the trust anchor does not match, in which case every lookup would fail.
    pub async fn probe(&self) -> Result<Security, DnsError> {
        self.current.get().probe(deadline()).await
    }

    /// As [`Self::probe`], with new connections and without the cache, so that it shows what the servers do now.
    pub async fn probe_uncached(&self) -> Result<Security, DnsError> {
        let servers = self.new_servers().map_err(|error| DnsError::Network(error.to_string()))?;
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
