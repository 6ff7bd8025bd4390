//! `[[domain]]`, `[[rfc2136]]`, `[[provider]]` and `[host]`: the receiving side of the configuration.

use super::Config;
use super::read::Read;
use crate::failure::Failure;
use formats::DomainName;
use net::dns::provider::Service;
use net::dns::update::Algorithm;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::host::order::Authority;
use receiver::rollout::plan::PolicyHostAt;
use sender::serve::listen::Address;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A name server that takes updates.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateServer {
    /// By which domains name it.
    pub name: String,
    /// Where it is.
    pub server: SocketAddr,
    /// The zone that is changed, where that is not the domain itself.
    #[serde(default)]
    pub zone: Option<DomainName>,
    /// The name of the key.
    pub key_name: DomainName,
    /// The file with its secret.
    pub key_file: PathBuf,
    /// How it signs.
    #[serde(default)]
    pub algorithm: KeyAlgorithm,
}

/// A provider that runs zones.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// By which domains name it.
    pub name: String,
    /// Which one.
    #[serde(serialize_with = "service_as_text", deserialize_with = "service_from_text")]
    pub service: Service,
    /// The file with its token or credentials.
    pub key_file: PathBuf,
    /// The zone that is changed, where that is not the domain itself.
    #[serde(default)]
    pub zone: Option<DomainName>,
    /// Which of several zones of one name.
    #[serde(default)]
    pub zone_id: Option<String>,
}

fn service_as_text<S: Serializer>(service: &Service, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(service.as_str())
}

fn service_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Service, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = || Service::ALL.map(Service::as_str).join(", ");
    Service::parse(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not one of {}", known())))
}

/// How a TSIG key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    #[default]
    #[serde(rename = "hmac-sha256")]
    Sha256,
    #[serde(rename = "hmac-sha384")]
    Sha384,
    #[serde(rename = "hmac-sha512")]
    Sha512,
}

impl From<KeyAlgorithm> for Algorithm {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::Sha256 => Self::Sha256,
            KeyAlgorithm::Sha384 => Self::Sha384,
            KeyAlgorithm::Sha512 => Self::Sha512,
        }
    }
}

/// `[host]`.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Where HTTPS is.
    pub listen: Vec<Address>,
    /// Where HTTP is.
    pub http: Vec<Address>,
    /// Where `mta-sts.DOMAIN` is to point.
    pub place: Option<PolicyHostAt>,
    /// Where certificates come from.
    pub acme: Option<Authority>,
}

/// The role, when it is switched on.
pub fn host(read: &Read, folder: &Path) -> Option<HostConfig> {
    let addresses: Vec<_> = read.list("host.addresses").iter().filter_map(|text| text.parse().ok()).collect();
    let name = read.text("host.name").and_then(|text| DomainName::parse(text).ok());
    let owned = |key: &str| read.text(key).map(str::to_owned);
    read.has("host").then(|| HostConfig {
        listen: read.addresses("host.listen", "127.0.0.1:443"),
        http: read.addresses("host.http", ""),
        place: match name {
            Some(name) => Some(PolicyHostAt::Alias(name)),
            None => Some(PolicyHostAt::Addresses(addresses))
                .filter(|place| *place != PolicyHostAt::Addresses(Vec::new())),
        },
        acme: read.text("host.acme.directory").map(|directory| Authority {
            directory: directory.to_owned(),
            contact: owned("host.acme.contact"),
            profile: owned("host.acme.profile"),
            ca_file: read.text("host.acme.ca_file").map(|file| folder.join(file)),
        }),
    })
}

/// The domains of the file, held against the rest of it.
pub fn check(config: &Config) -> Result<(), Failure> {
    let mut names = BTreeSet::new();
    for spec in &config.domains {
        if !names.insert(&spec.name) {
            return Err(Failure::usage(
                format!("the domain {}", spec.name),
                "it stands twice in the configuration",
                "Put both into one [[domain]].",
            ));
        }
        fits(spec, config)?;
    }
    Ok(())
}

/// Whether what a domain asks for is there.
pub fn fits(spec: &DomainSpec, config: &Config) -> Result<(), Failure> {
    let lacks =
        |why: &str, remedy: &str| Err(Failure::usage(format!("the domain {}", spec.name), why, remedy));
    if spec.host == HostedBy::Sternpost && config.host.is_none() {
        return lacks(
            "host = \"self\", and the role [host] is not switched on",
            "Write\n  [host]\n  name = \"mta-sts.example.net\"\nor set host = \"static\" and use `sternpost export`.",
        );
    }
    if spec.delegated && config.delegation.is_none() {
        return lacks(
            "it is delegated, and no zone is named that it could be delegated to",
            "Write\n  [delegation]\n  zone = \"sts.example.net\"",
        );
    }
    if spec.delegated && spec.host != HostedBy::Sternpost {
        return lacks("it is delegated, and its policy is not served here", "Set host = \"self\".");
    }
    match &spec.dns {
        DnsBy::Update(name) if !config.updates.iter().any(|server| server.name == *name) => lacks(
            &format!("dns = \"rfc2136:{name}\", and there is no such server"),
            &format!(
                "Write\n  [[rfc2136]]\n  name = \"{name}\"\n  server = \"192.0.2.1:53\"\n  key_name = \"sternpost\"\n  key_file = \"tsig.key\""
            ),
        ),
        DnsBy::Provider(service, name)
            if !config.providers.iter().any(|known| known.name == *name && known.service == *service) =>
        {
            let word = service.as_str();
            lacks(
                &format!("dns = \"{word}:{name}\", and there is no such provider"),
                &format!(
                    "Write\n  [[provider]]\n  name = \"{name}\"\n  service = \"{word}\"\n  key_file = \"{word}.key\""
                ),
            )
        }
        _ => Ok(()),
    }
}
