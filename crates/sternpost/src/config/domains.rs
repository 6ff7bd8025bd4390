//! `[[domain]]`, `[[rfc2136]]`, `[[provider]]` and `[host]`: the receiving side of the configuration.

use super::Config;
use super::inbox::CertificateFiles;
use super::read::Read;
use crate::failure::Failure;
use formats::DomainName;
use net::dns::provider::Service;
use net::dns::update::Algorithm;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::host::authority::{Authority, External, NEW_PER_HOUR};
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
    /// Where a proxy that has taken TLS off asks.
    pub bare: Vec<Address>,
    /// Whether a proxy says whom it speaks for, in front of each connection.
    pub proxy_header: bool,
    /// Certificates of the operator's own.
    pub certificates: Vec<CertificateFiles>,
    /// The file with the key that seals keys in the store.
    pub key_file: Option<PathBuf>,
    /// Where certificates come from, the first that gives one.
    pub authorities: Vec<Authority>,
}

/// An authority, as the configuration has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthoritySpec {
    /// Its directory.
    pub directory: String,
    #[serde(default)]
    contact: Option<String>,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    key_id: Option<String>,
    #[serde(default)]
    key_file: Option<PathBuf>,
    #[serde(default)]
    new_per_hour: Option<u32>,
}

impl AuthoritySpec {
    fn authority(self, folder: &Path) -> Result<Authority, Failure> {
        if !self.directory.starts_with("https://") {
            return Err(Failure::usage(
                format!("the certificate authority {:?}", self.directory),
                "its directory is a URL that begins with https://",
                "Give it as the authority's documentation does.",
            ));
        }
        let external = match (self.key_id, self.key_file) {
            (Some(key_id), Some(file)) => Some(External { key_id, key_file: folder.join(file) }),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    format!("the account at {}", self.directory),
                    "an account that you have there is named by key_id and by key_file, and one of them is missing",
                    "The authority shows both where you ask for external account binding (EAB).",
                ));
            }
        };
        Ok(Authority {
            directory: self.directory,
            contact: self.contact,
            profile: self.profile,
            ca_file: self.ca_file.map(|file| folder.join(file)),
            external,
            new_per_hour: self.new_per_hour.unwrap_or(NEW_PER_HOUR).max(1),
        })
    }
}

/// The role, when it is switched on.
pub fn host(read: &Read, folder: &Path) -> Result<Option<HostConfig>, Failure> {
    if !read.has("host") {
        return Ok(None);
    }
    let addresses: Vec<_> = read.list("host.addresses").iter().filter_map(|text| text.parse().ok()).collect();
    let name = read.text("host.name").and_then(|text| DomainName::parse(text).ok());
    let owned = |key: &str| read.text(key).map(str::to_owned);
    let mut certificates: Vec<CertificateFiles> = read.tables("host.certificates");
    for files in &mut certificates {
        (files.certificate, files.key) = (folder.join(&files.certificate), folder.join(&files.key));
    }
    let first = read.text("host.acme.directory").map(|directory| AuthoritySpec {
        directory: directory.to_owned(),
        contact: owned("host.acme.contact"),
        profile: owned("host.acme.profile"),
        ca_file: owned("host.acme.ca_file").map(PathBuf::from),
        key_id: owned("host.acme.key_id"),
        key_file: owned("host.acme.key_file").map(PathBuf::from),
        new_per_hour: Some(read.number("host.acme.new_per_hour", NEW_PER_HOUR)),
    });
    let others: Vec<AuthoritySpec> = read.tables("host.acme.then");
    let authorities = first.into_iter().chain(others).map(|spec| spec.authority(folder));
    Ok(Some(HostConfig {
        listen: read.addresses("host.listen", "127.0.0.1:443"),
        http: read.addresses("host.http", ""),
        place: match name {
            Some(name) => Some(PolicyHostAt::Alias(name)),
            None => Some(PolicyHostAt::Addresses(addresses))
                .filter(|place| *place != PolicyHostAt::Addresses(Vec::new())),
        },
        bare: read.addresses("host.behind_proxy", ""),
        proxy_header: read.flag("host.proxy_header"),
        certificates,
        key_file: owned("host.key_file").map(|file| folder.join(file)),
        authorities: authorities.collect::<Result<_, _>>()?,
    }))
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct AdminConfig {
    /// Where it is, on this machine.
    pub listen: SocketAddr,
    /// The file with the token.
    pub token_file: PathBuf,
}

pub fn admin(read: &Read, folder: &Path) -> Result<AdminConfig, Failure> {
    let Some(file) = read.text("admin.token_file") else {
        return Err(Failure::usage(
            "[admin] names no token",
            "whoever reaches it could change domains",
            "Make one, and name it:\n  (umask 077; openssl rand -hex 32 > admin.token)\n  [admin]\n  token_file = \"admin.token\"",
        ));
    };
    let usual = SocketAddr::from(([127, 0, 0, 1], 8464));
    let listen = read.text("admin.listen").and_then(|text| text.parse().ok()).unwrap_or(usual);
    Ok(AdminConfig { listen, token_file: folder.join(file) })
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
