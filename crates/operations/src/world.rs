//! Builds the network clients (DNS, policy hosts, mail servers) from the configuration.

use check::{Checker, Sessions};
use config::Config;
use config::failure::Failure;
use formats::DomainName;
use net::certificate::Trust;
use net::clock::{Clock, SystemClock};
use net::dns::{
    AddressOverrides, AuthoritativeServers, BogusDetector, Dns, DnsError, Dnssec, Resolver, ResolverConfig,
    ResolverError, Security, SystemServers,
};
use net::https::{Fetcher, FetcherConfig};
use net::smtp::{Client, ClientConfig, Helo};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The network clients and the clock.
pub struct World {
    /// The resolver, with DNSSEC validation if configured.
    pub dns: Arc<dyn Dns>,
    /// The same resolver, for probing whether DNSSEC validation works.
    pub resolver: Arc<Resolver>,
    /// The resolver for checks, which distinguishes bogus answers from other failures.
    bogus_detector: Arc<BogusDetector>,
    /// The resolver without validation, if it is not paired with [`World::resolver`] and reloaded with that.
    unpaired: Option<Arc<Resolver>>,
    /// True if the resolvers are those of `/etc/resolv.conf`.
    uses_system_servers: bool,
    /// The resolver without DNSSEC validation, for probing whether the root zone can be resolved at all.
    plain: Arc<Resolver>,
    /// The resolver without DNSSEC validation, for addresses of policy hosts.
    pub addresses: Arc<dyn Dns>,
    /// The HTTPS client for policy files.
    pub policies: Arc<Fetcher>,
    /// The SMTP client for MX hosts.
    pub mail: Arc<Client>,
    /// TLS settings for connections to the operator's own servers.
    pub tls: Arc<rustls::ClientConfig>,
    /// The root certificates that servers are verified against.
    pub trust: Trust,
    /// Local addresses that connections are made from; empty leaves the choice to the system.
    sources: Vec<IpAddr>,
    /// Addresses that checks use in place of those in DNS.
    overrides: Vec<(DomainName, IpAddr)>,
    /// The host name or address that SMTP sessions send in EHLO.
    pub helo: Helo,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
}

/// Overrides of the clients' addresses and time limits.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Local addresses that connections are made from; empty leaves the choice to the system.
    pub sources: Vec<IpAddr>,
    /// Addresses of names, in place of those in DNS.
    pub addresses: Vec<(DomainName, IpAddr)>,
    /// Timeout of one network operation; `None` uses the defaults.
    pub time: Option<Duration>,
    /// The maximum TTL of a cached answer; longer TTLs are reduced to it.
    pub max_ttl: Duration,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            addresses: Vec::new(),
            time: None,
            max_ttl: ResolverConfig::default().max_ttl,
        }
    }
}

impl World {
    /// Builds the clients with default addresses and time limits.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        Self::with(config, &Reach::default())
    }

    /// Builds the clients with other addresses and time limits.
    pub fn with(config: &Config, reach: &Reach) -> Result<Self, Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let trust = trust(config)?;
        let anchor = match &config.trust_anchor {
            Some(path) => Some(read(path, "dns.trust_anchor")?),
            None => None,
        };
        let resolver = ResolverConfig {
            servers: config.dns_servers.clone(),
            sources: reach.sources.clone(),
            dnssec: config.dnssec,
            trust_anchor: anchor,
            max_ttl: reach.max_ttl,
            attempt_time: reach.time.map_or(ResolverConfig::default().attempt_time, |time| time / 2),
            ..ResolverConfig::default()
        };
        // A policy host is authenticated by its certificate, whatever its address is (RFC 8461 §3.3), so its
        // addresses need no DNSSEC validation.
        let unvalidated = ResolverConfig { dnssec: Dnssec::Off, ..resolver.clone() };
        let no_resolver = |error| no_resolver(config, error);
        let system = SystemServers::read_for(&resolver.servers).map_err(no_resolver)?;
        let plain = Arc::new(Resolver::using(&unvalidated, system.as_ref()).map_err(no_resolver)?);
        let config_of_resolver = resolver;
        let resolver = Arc::new(Resolver::beside(&plain, &config_of_resolver).map_err(no_resolver)?);
        let (dns, addresses): (Arc<dyn Dns>, Arc<dyn Dns>) = (resolver.clone(), plain.clone());
        let bogus_detector = BogusDetector::new(dns.clone(), &config_of_resolver, system.as_ref());
        let bogus_detector = Arc::new(bogus_detector.map_err(no_resolver)?);
        let tls = |error| Failure::new("TLS can't be set up", error, "");
        let own = trust.client(clock.clone()).map_err(tls)?;
        let mut fetcher = FetcherConfig::new(trust.clone());
        fetcher.allow_special_addresses = config.allow_private_addresses;
        fetcher.port = config.https_port;
        fetcher.sources = reach.sources.clone();
        fetcher.time = reach.time.unwrap_or(fetcher.time).min(fetcher.time);
        let helo = helo(config);
        let mut client = ClientConfig::new(trust.clone(), helo.clone());
        client.allow_special_addresses = config.allow_private_addresses;
        client.port = config.smtp_port;
        client.sources = reach.sources.clone();
        client.reply_time = reach.time.unwrap_or(client.reply_time);
        Ok(Self {
            tls: Arc::new(own),
            policies: Arc::new(Fetcher::new(fetcher, addresses.clone(), clock.clone()).map_err(tls)?),
            mail: Arc::new(Client::new(client, clock.clone()).map_err(tls)?),
            dns,
            bogus_detector,
            unpaired: Some(plain.clone()).filter(|_| config.dnssec != Dnssec::Validate),
            uses_system_servers: config_of_resolver.servers.is_empty(),
            plain,
            addresses,
            resolver,
            trust,
            helo,
            sources: reach.sources.clone(),
            overrides: reach.addresses.clone(),
            clock,
        })
    }

    /// Reads `/etc/resolv.conf` once, and uses what it names for all resolvers that the configuration does not name. On failure
    /// the resolvers in use stay. Concurrent calls may mix two versions of the file.
    ///
    /// # Errors
    ///
    /// See [`Resolver::reload_from`].
    pub async fn reload_resolvers(&self) -> Result<(), ResolverError> {
        if !self.uses_system_servers {
            return Ok(());
        }
        let system = SystemServers::read()?;
        // First the resolver that may refuse the file, so that then no other one uses it.
        self.resolver.reload_from(&system).await?;
        if let Some(plain) = &self.unpaired {
            plain.reload_from(&system).await?;
        }
        self.bogus_detector.reload_from(&system)
    }

    /// The check options that follow from the configuration.
    pub fn check_options(&self, config: &Config) -> check::Options {
        check::Options { allow_special: config.allow_private_addresses, ..check::Options::default() }
    }

    /// Fails if the resolver answers that the root zone does not exist, as some networks do before a sign-in by
    /// browser: it would answer so for every domain.
    pub async fn check_resolver(&self, config: &Config) -> Result<(), Failure> {
        match self.plain.probe().await {
            Err(error) if error.is_absence() => Err(Failure::new(
                format!("the DNS resolver {} gives false answers", crate::resolvers(config)),
                "it answers that the root zone does not exist, and so it would for every domain",
                "Some networks answer so until you have signed in with a browser. Sign in, or name another resolver:\n  [dns]\n  servers = [\"9.9.9.9:53\"]",
            )),
            _ => Ok(()),
        }
    }

    /// Fails if the resolver's answers can't be validated, as behind a resolver that strips DNSSEC records. Called when
    /// a lookup has failed as bogus, to distinguish a broken resolver from a broken domain.
    pub async fn check_dnssec(&self) -> Result<(), Failure> {
        match self.resolver.probe().await {
            Err(DnsError::Bogus) => Err(no_dnssec("so no domain can be looked up")),
            _ => Ok(()),
        }
    }

    /// Builds a checker for domains. `share` lets domains with the same MX host share one session. The root zone is
    /// probed first: behind a resolver that strips DNSSEC records, every domain would seem bogus.
    pub async fn checker(
        &self,
        config: &Config,
        options: check::Options,
        share: bool,
    ) -> Result<Checker, Failure> {
        // Together, since a resolver that does not answer takes the whole time for each.
        let (is_honest, probed) = tokio::join!(self.check_resolver(config), self.resolver.probe());
        is_honest?;
        let (dns, sees_signatures) = match probed {
            Ok(Security::Secure) => (self.bogus_detector.clone() as Arc<dyn Dns>, true),
            Ok(_) | Err(DnsError::Bogus) => (self.addresses.clone(), false),
            Err(error @ (DnsError::Timeout | DnsError::Network(_))) => {
                return Err(Failure::new(
                    format!("the DNS resolver does not answer: {}", crate::resolvers(config)),
                    error,
                    "Without it, nothing can be looked up. Check that it runs, and this machine's network; or name another \
                     resolver:\n  sternpost check --resolver 9.9.9.9 DOMAIN",
                ));
            }
            // The fault then appears in the lookups themselves.
            Err(_) => (self.dns.clone(), true),
        };
        let servers = AuthoritativeServers::new(dns.clone(), config.dns_port, config.allow_private_addresses)
            .from_sources(self.sources.clone());
        Ok(Checker {
            dns: AddressOverrides::over(dns, &self.overrides),
            unvalidated: AddressOverrides::over(self.addresses.clone(), &self.overrides),
            servers: Some(Arc::new(servers)),
            visits: self.policies.clone(),
            mail: Sessions::new(self.mail.clone(), share),
            clock: self.clock.clone(),
            options: check::Options { sees_signatures, ..options },
        })
    }
}

/// The failure for a resolver behind which nothing validates, not even the root zone. `consequence` ends the reason.
pub fn no_dnssec(consequence: &str) -> Failure {
    Failure::usage(
        "the resolver's answers fail DNSSEC validation",
        format!("even the root zone does not validate, {consequence}"),
        "Use a resolver that supports DNSSEC, preferably on this machine (Debian: apt install unbound), in\n/etc/resolv.conf or as [dns] servers. Without one, DANE can't work; disable DNSSEC with\n  [dns]\n  dnssec = \"off\"",
    )
}

fn no_resolver(config: &Config, error: ResolverError) -> Failure {
    let remedy = match (&error, &config.trust_anchor) {
        (ResolverError::TrustAnchor(_), Some(file)) => format!(
            "dns.trust_anchor names {}. It takes the DNSKEY record of the root zone, as `dig . DNSKEY`, `keymgr . dnskey`, BIND's bind.keys or Unbound's root.key has it. Without the key, the IANA's trust anchor applies.",
            file.display()
        ),
        _ => "Name one in the configuration:\n  [dns]\n  servers = [\"127.0.0.1:53\"]".to_owned(),
    };
    Failure::usage("the DNS resolver can't be set up", error, remedy)
}

fn trust(config: &Config) -> Result<Trust, Failure> {
    let found = match &config.ca_file {
        Some(path) => Trust::from_file(path),
        None => Trust::system(),
    };
    found.map_err(|error| {
        Failure::usage(
            "no trusted root certificates",
            error,
            "Install the package ca-certificates, or name a PEM file in the \
             configuration:\n  [trust]\n  ca_file = \"ca.pem\"",
        )
    })
}

fn read(path: &std::path::Path, key: &str) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(
            format!("{} can't be read", path.display()),
            error,
            format!("The configuration names it in {key}."),
        )
    })
}

/// The name sent in EHLO: `reporter.helo`; else the machine's host name, if it or its entry in `/etc/hosts` is fully
/// qualified; else the address of each connection.
pub fn helo(config: &Config) -> Helo {
    let configured = config.reporter.as_ref().and_then(|role| role.helo.clone());
    configured.unwrap_or_else(|| {
        let name = config::machine::host_name();
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        qualified(&name, &hosts).map_or(Helo::LocalAddress, Helo::Name)
    })
}

/// The fully qualified form of a host name: the name itself, or a name beside it in `/etc/hosts`. `None` if there is none.
fn qualified(name: &str, hosts: &str) -> Option<DomainName> {
    let is_qualified = |name: &DomainName| {
        let (_, rest) = name.as_str().split_once('.')?;
        (!rest.starts_with("localdomain")).then_some(())
    };
    let parse = |text: &str| DomainName::parse(text).ok().filter(|name| is_qualified(name).is_some());
    if name.is_empty() || name.contains('.') {
        return parse(name);
    }
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let names = lines.map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    let mut of_host = names.filter(|names| names.iter().any(|known| known.eq_ignore_ascii_case(name)));
    of_host.find_map(|names| names.into_iter().find_map(parse))
}

/// The labels that the names of policy hosts and of records for mail begin with.
const RECORD_LABELS: [&str; 6] = ["_mta-sts.", "mta-sts.", "_smtp._tls.", "_tls.", "_dmarc.", "_25._tcp."];

/// The mail domain that such a name belongs to; `None` for any other name.
fn owner_of_record(name: &DomainName) -> Option<DomainName> {
    let rest = RECORD_LABELS.iter().find_map(|label| name.as_str().strip_prefix(label))?;
    let domain = DomainName::parse(rest).ok().filter(|domain| domain.as_str().contains('.'))?;
    Some(owner_of_record(&domain).unwrap_or(domain))
}

/// Parses a domain typed by a user. The error suggests a domain if the input is a URL or an address.
pub fn domain(typed: &str) -> Result<DomainName, Failure> {
    let text = typed.trim();
    if let Ok(name) = DomainName::parse(text)
        && let Some(domain) = owner_of_record(&name)
    {
        return Err(Failure::usage(
            format!("{name} is not a mail domain"),
            "it is a name that belongs to a mail domain, for its policy or its records",
            format!("Did you mean {domain}?"),
        ));
    }
    DomainName::parse(text).map_err(|error| {
        let host = text.split_once("://").map_or(text, |(_, rest)| rest);
        let host = host.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        let remedy = match DomainName::parse(host) {
            Ok(meant) if meant.as_str().contains('.') => format!("Give the domain alone: {meant}"),
            _ => "Give a mail domain, such as example.org.".to_owned(),
        };
        Failure::usage(format!("{text:?} is not a domain"), error, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_host_name_is_qualified_by_the_hosts_file_and_never_given_as_it_is() {
        let hosts = "127.0.0.1 localhost localhost.localdomain\n127.0.1.1 vm.example.org vm # vm.example.net\n::1 ip6-localhost\n";
        let of = |name: &str, hosts: &str| qualified(name, hosts).map(|name| name.to_string());
        assert_eq!(of("vm", hosts).as_deref(), Some("vm.example.org"));
        assert_eq!(of("VM", "192.0.2.1 vm vm.example.com").as_deref(), Some("vm.example.com"));
        assert_eq!(of("mail.example.org", hosts).as_deref(), Some("mail.example.org"));
        for (name, hosts) in
            [("vm", "127.0.1.1 vm"), ("vm", ""), ("localhost", hosts), ("", hosts), ("vm.localdomain", hosts)]
        {
            assert_eq!(of(name, hosts), None, "{name}");
        }
    }

    #[test]
    fn typed_domains_are_parsed_or_a_correction_is_suggested() {
        assert_eq!(domain(" Example.ORG. ").unwrap().as_str(), "example.org");
        for typed in
            ["https://example.org/x", "post@example.org", "example.org:25", "http://u@example.org:80/"]
        {
            let message = domain(typed).unwrap_err().to_string();
            assert!(message.contains("Give the domain alone: example.org"), "{message}");
        }
        for typed in [
            "mta-sts.example.org",
            "_mta-sts.example.org",
            "_smtp._tls.example.org",
            "_mta-sts.mta-sts.example.org",
        ] {
            let message = domain(typed).unwrap_err().to_string();
            assert!(message.ends_with("Did you mean example.org?"), "{message}");
        }
        assert!(domain("mta-sts-mail.example.org").is_ok() && domain("mta-sts.org").is_ok());
        assert!(domain("192.0.2.1").unwrap_err().to_string().contains("such as example.org"));
    }
}
