//! The configuration of a [`super::Resolver`], and the connections to the recursive resolvers that it names. A configuration
//! without servers uses those of `/etc/resolv.conf`.

use super::sockets::Sockets;
use crate::system_names::SearchList;
use formats::DomainName;
use formats::limits::DNS_TIME;
use hickory_proto::op::DnsRequestOptions;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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

/// The configuration of a [`super::Resolver`].
#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// The recursive resolvers to query; if empty, those in `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// Local addresses to send queries from, at most one per address family; if empty, the system chooses.
    pub sources: Vec<IpAddr>,
    /// How answers get their DNSSEC state; see [`Dnssec`].
    pub dnssec: Dnssec,
    /// The trust anchor: DNSKEY records of the root, as a zone file, `keymgr`, BIND or Unbound writes them. `None` means the
    /// built-in IANA anchor.
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

/// Why a [`super::Resolver`] could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The trust anchor is in none of the known formats.
    #[error("the trust anchor can't be read: {0}")]
    TrustAnchor(String),
    /// The system's resolver configuration can't be read, or no resolver can be built from the configuration.
    #[error("the system's resolver configuration (/etc/resolv.conf) can't be used: {0}")]
    System(String),
    /// The system's resolver configuration names a resolver that the AD bit is not trusted from.
    #[error(
        "/etc/resolv.conf now names {0}, and dnssec = \"trust-ad\" trusts only resolvers on this machine and those of the start; restart to trust it"
    )]
    Untrusted(IpAddr),
    /// The answers of the system's resolvers fail DNSSEC validation, even those for the root zone.
    #[error(
        "the answers of the resolvers in /etc/resolv.conf fail DNSSEC validation, so with them all mail would be deferred; name a resolver that supports DNSSEC there or in [dns] servers"
    )]
    NoDnssec,
}

/// The resolvers in `/etc/resolv.conf`, as one reading of the file names them. All that is built at one time is built from
/// one reading, since the file may change at any time.
#[derive(Debug, Clone)]
pub struct SystemServers(Vec<NameServerConfig>);

impl SystemServers {
    /// Reads the file. Fails with [`ResolverError::System`].
    pub fn read() -> Result<Self, ResolverError> {
        let read = read_system_conf().map_err(|error| ResolverError::System(error.to_string()))?;
        Ok(Self(read.0.name_servers().to_vec()))
    }

    /// Reads the file, also its search list.
    pub(crate) fn read_with_search() -> Result<(Self, SearchList), ResolverError> {
        let (config, options) =
            read_system_conf().map_err(|error| ResolverError::System(error.to_string()))?;
        let domains = config.search().iter().filter_map(|domain| DomainName::parse(&domain.to_ascii()).ok());
        let search = SearchList { domains: domains.collect(), ndots: options.ndots };
        Ok((Self(config.name_servers().to_vec()), search))
    }

    /// Reads the file if a configuration with these servers uses it.
    pub fn read_for(servers: &[SocketAddr]) -> Result<Option<Self>, ResolverError> {
        servers.is_empty().then(Self::read).transpose()
    }

    /// The addresses of the resolvers, with the port for UDP.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let port = |server: &NameServerConfig| server.connections.first().map_or(53, |first| first.port);
        self.0.iter().map(|server| SocketAddr::new(server.ip, port(server))).collect()
    }

    #[cfg(test)]
    pub(super) fn at(server: SocketAddr) -> Self {
        Self(vec![name_server(server)])
    }
}

/// The name server pool of a configuration, the cache size in answers, and the options of each query.
pub(super) fn pool(
    config: &ResolverConfig,
    servers: &[NameServerConfig],
) -> Result<(NameServerPool<Sockets>, u64, DnsRequestOptions), NetError> {
    let servers = servers.to_vec();
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

/// The configured resolvers, or those in `system`, with the local address to query each from. Without `system`, the file is
/// read if it is needed.
pub(super) fn name_servers(
    config: &ResolverConfig,
    system: Option<&SystemServers>,
) -> Result<Vec<NameServerConfig>, ResolverError> {
    let mut servers = match (config.servers.is_empty(), system) {
        (false, _) => config.servers.iter().map(|server| name_server(*server)).collect(),
        (true, Some(system)) => system.0.clone(),
        (true, None) => SystemServers::read()?.0,
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

pub(super) fn set_options(options: &mut ResolverOpts, config: &ResolverConfig) {
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
