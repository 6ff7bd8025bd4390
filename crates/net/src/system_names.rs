//! Resolves host names that the operator wrote into the configuration: of a relay, a webhook, a DNS provider, an ACME CA.
//! [`system_addresses`] looks in `/etc/hosts`, then queries the resolvers of `/etc/resolv.conf` with its search list
//! (resolv.conf(5)), as `getaddrinfo` does with `hosts: files dns`. `getaddrinfo` itself is not used: in a static program it
//! would load modules of another C library, and all packages are to resolve names alike. `/etc/nsswitch.conf` is not read.
//!
//! Names of mail domains, MX hosts and policy hosts come from others, and are resolved through [`crate::dns`].

use crate::BoxFuture;
use crate::dns::{
    Dns, DnsError, Dnssec, Resolver, ResolverConfig, ResolverError, SystemServers, host_addresses,
};
use formats::DomainName;
use formats::domain::DomainError;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

/// Why a host has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum SystemNameError {
    /// The text is neither an IP address nor a valid name.
    #[error("not a valid host name: {0}")]
    Name(#[from] DomainError),
    /// `/etc/hosts` exists, but can't be read.
    #[error("/etc/hosts can't be read: {0}")]
    Hosts(std::io::Error),
    /// `/etc/resolv.conf` can't be used.
    #[error(transparent)]
    System(#[from] ResolverError),
    /// The DNS lookup failed, or the name does not exist.
    #[error(transparent)]
    Dns(#[from] DnsError),
}

/// Returns the addresses of a host: at least one, in the order in which to try them. An IP address is returned as it is.
///
/// # Errors
///
/// [`SystemNameError`] if the host has no addresses.
pub fn system_addresses(host: &str) -> BoxFuture<'_, Result<Vec<IpAddr>, SystemNameError>> {
    Box::pin(async move {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let name = DomainName::parse(host)?;
        let listed = in_hosts(&hosts_file().map_err(SystemNameError::Hosts)?, &name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        if name.labels().next_back() == Some("localhost") {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        let (servers, search) = SystemServers::read_with_search()?;
        let config = ResolverConfig { dnssec: Dnssec::Off, cache: false, ..ResolverConfig::default() };
        let resolver = Resolver::using(&config, Some(&servers))?;
        Ok(first_found(&resolver, &search.candidates(host, &name)).await?)
    })
}

/// The content of `/etc/hosts`; empty if there is none.
fn hosts_file() -> std::io::Result<String> {
    match std::fs::read("/etc/hosts") {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// The addresses of a name in the text of a hosts file (hosts(5)), in its order.
fn in_hosts(text: &str, name: &DomainName) -> Vec<IpAddr> {
    let address = |line: &str| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        let is_named = words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name.as_str()));
        is_named.then_some(address)
    };
    text.lines().filter_map(address).collect()
}

/// The search list of `/etc/resolv.conf`.
#[derive(Debug, Clone)]
pub(crate) struct SearchList {
    pub(crate) domains: Vec<DomainName>,
    /// The number of dots from which on a name is looked up as it is, before the domains are appended (resolv.conf(5)).
    pub(crate) ndots: usize,
}

impl SearchList {
    /// The names to look up for `host`, in their order. `name` is the parsed `host`.
    fn candidates(&self, host: &str, name: &DomainName) -> Vec<DomainName> {
        if host.ends_with('.') {
            return vec![name.clone()];
        }
        let appended = |domain: &DomainName| DomainName::parse(&format!("{name}.{domain}")).ok();
        let mut names: Vec<DomainName> = self.domains.iter().filter_map(appended).collect();
        let is_first = name.labels().count() > self.ndots;
        names.insert(if is_first { 0 } else { names.len() }, name.clone());
        names
    }
}

/// The addresses of the first name that exists. If none does, the first error.
async fn first_found(dns: &dyn Dns, names: &[DomainName]) -> Result<Vec<IpAddr>, DnsError> {
    let mut absent = None;
    for name in names {
        match host_addresses(dns, name).await {
            Ok(found) => return Ok(found.addresses),
            Err(error) if error.is_absence() => absent = absent.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(absent.unwrap_or_else(|| DnsError::Network("no name to look up".to_owned())))
}

/// Resolves names for [`HttpConnector`] by [`system_addresses`].
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNames;

impl Service<Name> for SystemNames {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = SystemNameError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move {
            let found = system_addresses(name.as_str()).await?;
            // The connector sets the port.
            let found: Vec<SocketAddr> =
                found.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(found.into_iter())
        })
    }
}

/// TCP connections of a hyper client to hosts that the operator named.
pub type TcpConnector = HttpConnector<SystemNames>;

/// A connector for `http` URLs, and for `https` URLs if it is wrapped into TLS. `connect_time` is the time limit for
/// connecting, divided among the addresses of the host.
pub fn tcp_connector(connect_time: Duration) -> TcpConnector {
    let mut tcp = HttpConnector::new_with_resolver(SystemNames);
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(connect_time));
    tcp
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Absence, Answer, Data, Kind, Security};
    use std::sync::Mutex;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn a_hosts_file_gives_all_addresses_of_a_name_and_its_aliases() {
        let text = "127.0.0.1 localhost\n\n# 192.0.2.9 relay\n192.0.2.1\tRelay.example relay # mail\n\
                    2001:db8::1 relay.example.\nnonsense relay\n192.0.2.2 other#relay\n192.0.2.3\n";
        let found = |host: &str| -> Vec<String> {
            in_hosts(text, &name(host)).iter().map(IpAddr::to_string).collect()
        };
        assert_eq!(found("relay.example"), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(found("RELAY"), ["192.0.2.1"]);
        assert_eq!(found("other"), ["192.0.2.2"]);
        assert_eq!(found("mail"), [""; 0]);
        assert_eq!(found("192.0.2.1.example"), [""; 0]);
    }

    #[test]
    fn the_search_list_is_tried_before_short_names_and_after_long_ones() {
        let search = SearchList { domains: vec![name("a.example"), name("b.example")], ndots: 1 };
        let candidates = |host: &str| -> Vec<String> {
            search.candidates(host, &name(host)).iter().map(ToString::to_string).collect()
        };
        assert_eq!(candidates("relay"), ["relay.a.example", "relay.b.example", "relay"]);
        assert_eq!(candidates("relay.c"), ["relay.c", "relay.c.a.example", "relay.c.b.example"]);
        assert_eq!(candidates("relay."), ["relay"]);
        let long = [["a"; 60].concat(), ["b"; 60].concat(), ["c"; 60].concat(), ["d"; 63].concat()].join(".");
        assert_eq!(candidates(&long), [long]);
    }

    /// Has an A record at one name; every other name does not exist, or can't be looked up if it contains `broken`.
    struct OneName(&'static str, Mutex<Vec<String>>);

    impl Dns for OneName {
        fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            self.1.lock().unwrap().push(name.to_string());
            let absence = Absence { security: Security::Insecure, ttl: None };
            let (ttl, security) = (Duration::from_secs(60), Security::Insecure);
            let records = vec![Data::A(Ipv4Addr::new(192, 0, 2, 1))];
            let answer = match (name.as_str(), kind) {
                (at, Kind::A) if at == self.0 => {
                    Ok(Answer { records, ttl, security, aliases: Vec::new(), is_split: false })
                }
                (at, _) if at == self.0 => Err(DnsError::NoSuchRecord(absence)),
                (at, _) if at.contains("broken") => Err(DnsError::Timeout),
                _ => Err(DnsError::NoSuchName(absence)),
            };
            Box::pin(std::future::ready(answer))
        }
    }

    #[tokio::test]
    async fn the_next_name_is_tried_only_if_a_name_does_not_exist() {
        let names = ["relay.a.example", "relay.b.example", "relay.c.example"].map(name);
        let dns = OneName("relay.b.example", Mutex::default());
        assert_eq!(first_found(&dns, &names).await, Ok(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
        assert!(!dns.1.lock().unwrap().contains(&"relay.c.example".to_owned()));
        assert!(first_found(&OneName("none", Mutex::default()), &names).await.unwrap_err().is_absence());
        let names = ["relay.broken.example", "relay.b.example"].map(name);
        assert_eq!(first_found(&dns, &names).await, Err(DnsError::Timeout));
    }

    #[tokio::test]
    async fn addresses_and_localhost_need_no_name_server() {
        let found = system_addresses("192.0.2.7").await.unwrap();
        assert_eq!(found, [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))]);
        assert_eq!(system_addresses("::1").await.unwrap(), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        let found = system_addresses("host.localhost").await.unwrap();
        assert!(found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
        // Octal, decimal and shortened addresses are not names either.
        for address in ["2130706433", "127.1", "0177.0.0.1"] {
            let error = system_addresses(address).await.unwrap_err();
            assert!(matches!(error, SystemNameError::Name(_)), "{address}: {error}");
        }
    }
}
