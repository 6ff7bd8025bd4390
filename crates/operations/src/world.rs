//! The means to look at the world outside, made from the configuration.

use check::{Checker, Sessions};
use config::Config;
use config::failure::Failure;
use formats::DomainName;
use net::certificate::Trust;
use net::clock::{Clock, SystemClock};
use net::dns::{
    AddressOverrides, Authorities, BogusDetector, Dns, DnsError, Dnssec, Resolver, ResolverConfig,
    ResolverError, Security,
};
use net::https::{Fetcher, FetcherConfig};
use net::smtp::{Client, ClientConfig};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Clients of the internet, or of whatever the configuration calls so.
pub struct World {
    /// Names.
    pub dns: Arc<dyn Dns>,
    /// The same, to ask about itself.
    pub resolver: Arc<Resolver>,
    /// Names, where a check wants to know why there is no answer.
    told: Arc<dyn Dns>,
    /// Addresses of policy hosts.
    pub addresses: Arc<dyn Dns>,
    /// Policy files.
    pub policies: Arc<Fetcher>,
    /// MX hosts.
    pub mail: Arc<Client>,
    /// How servers of the operator's own are talked to.
    pub tls: Arc<rustls::ClientConfig>,
    /// Which roots are trusted.
    pub trust: Trust,
    /// Addresses of this machine that connections come from.
    sources: Vec<IpAddr>,
    /// Addresses that checks take in place of those in DNS.
    stated: Vec<(DomainName, IpAddr)>,
    /// The machine's time.
    pub clock: Arc<dyn Clock>,
}

/// How far and for how long the world is looked at.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Addresses of this machine that connections come from.
    pub sources: Vec<IpAddr>,
    /// Addresses of names, in place of those in DNS.
    pub addresses: Vec<(DomainName, IpAddr)>,
    /// How long one answer may take; the usual times without.
    pub time: Option<Duration>,
    /// A longer TTL counts as this.
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
    /// Clients by this configuration.
    pub fn new(config: &Config) -> Result<Self, Failure> {
        Self::with(config, &Reach::default())
    }

    /// The same, from stated addresses and with less patience.
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
        // A policy host proves itself by its certificate, whatever its address is (RFC 8461 §3.3), so
        // nobody has to wait for the validation of that.
        let unvalidated = ResolverConfig { dnssec: Dnssec::Off, ..resolver.clone() };
        let plain = Arc::new(Resolver::new(&unvalidated).map_err(no_resolver)?);
        let config_of_resolver = resolver;
        let resolver = Arc::new(Resolver::beside(&plain, &config_of_resolver).map_err(no_resolver)?);
        let (dns, addresses): (Arc<dyn Dns>, Arc<dyn Dns>) = (resolver.clone(), plain);
        let told: Arc<dyn Dns> =
            Arc::new(BogusDetector::new(dns.clone(), &config_of_resolver).map_err(no_resolver)?);
        let tls = |error| Failure::new("TLS can't be set up", error, "");
        let own = trust.client(clock.clone()).map_err(tls)?;
        let mut fetcher = FetcherConfig::new(trust.clone());
        fetcher.allow_special_addresses = config.allow_private_addresses;
        fetcher.port = config.https_port;
        fetcher.sources = reach.sources.clone();
        fetcher.time = reach.time.unwrap_or(fetcher.time).min(fetcher.time);
        let mut client = ClientConfig::new(trust.clone(), helo()?);
        client.allow_special_addresses = config.allow_private_addresses;
        client.port = config.smtp_port;
        client.sources = reach.sources.clone();
        client.reply_time = reach.time.unwrap_or(client.reply_time);
        Ok(Self {
            tls: Arc::new(own),
            policies: Arc::new(Fetcher::new(fetcher, addresses.clone(), clock.clone()).map_err(tls)?),
            mail: Arc::new(Client::new(client, clock.clone()).map_err(tls)?),
            dns,
            told,
            addresses,
            resolver,
            trust,
            sources: reach.sources.clone(),
            stated: reach.addresses.clone(),
            clock,
        })
    }

    /// How a preflight looks by this configuration.
    pub fn looks(&self, config: &Config) -> check::Options {
        check::Options { allow_special: config.allow_private_addresses, ..check::Options::default() }
    }

    /// A preflight in this world; `share` lets domains with the same MX host have one session. Where the resolver
    /// strips DNSSEC every domain would seem bogus, so it is asked about the root first.
    pub async fn checker(
        &self,
        config: &Config,
        options: check::Options,
        share: bool,
    ) -> Result<Checker, Failure> {
        let (dns, sees_signatures) = match self.resolver.probe().await {
            Ok(Security::Secure) => (self.told.clone(), true),
            Ok(_) | Err(DnsError::Bogus) => (self.addresses.clone(), false),
            Err(error @ (DnsError::Timeout | DnsError::Network(_))) => {
                return Err(Failure::new(
                    "the DNS resolver does not answer",
                    error,
                    "Absence can be said about any domain. Look at this machine's network and /etc/resolv.conf, or name \
                     another resolver:\n  sternpost check --resolver 9.9.9.9 DOMAIN",
                ));
            }
            // What is wrong then shows in the look-ups themselves.
            Err(_) => (self.dns.clone(), true),
        };
        let servers = Authorities::new(dns.clone(), config.dns_port, config.allow_private_addresses)
            .from_sources(self.sources.clone());
        Ok(Checker {
            dns: AddressOverrides::over(dns, &self.stated),
            unvalidated: AddressOverrides::over(self.addresses.clone(), &self.stated),
            servers: Some(Arc::new(servers)),
            visits: self.policies.clone(),
            mail: Sessions::new(self.mail.clone(), share),
            clock: self.clock.clone(),
            options: check::Options { sees_signatures, ..options },
        })
    }
}

fn no_resolver(error: ResolverError) -> Failure {
    Failure::usage(
        "no resolver can be made",
        error,
        "Name one in the configuration:\n  [dns]\n  servers = [\"127.0.0.1:53\"]",
    )
}

fn trust(config: &Config) -> Result<Trust, Failure> {
    let found = match &config.ca_file {
        Some(path) => Trust::from_file(path),
        None => Trust::system(),
    };
    found.map_err(|error| {
        Failure::usage(
            "no trusted roots",
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

/// What EHLO says: this machine's name, where that is a domain name.
pub fn helo() -> Result<DomainName, Failure> {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = DomainName::parse(own.trim()).or_else(|_| DomainName::parse("localhost"));
    name.map_err(|error| Failure::new("this machine has no name to greet with", error, ""))
}

/// Takes a domain as people type it.
pub fn domain(typed: &str) -> Result<DomainName, Failure> {
    let text = typed.trim();
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
    fn what_people_type_is_taken_or_turned_into_advice() {
        assert_eq!(domain(" Example.ORG. ").unwrap().as_str(), "example.org");
        for typed in
            ["https://example.org/x", "post@example.org", "example.org:25", "http://u@example.org:80/"]
        {
            let said = domain(typed).unwrap_err().to_string();
            assert!(said.contains("Give the domain alone: example.org"), "{said}");
        }
        assert!(domain("192.0.2.1").unwrap_err().to_string().contains("such as example.org"));
    }
}
