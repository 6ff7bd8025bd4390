//! Types for tables and structured values of the configuration file: certificate authorities, name servers for DNS
//! UPDATE, DNS providers, certificate files, DKIM keys and mail delivery methods. The reader validates values with
//! these types. The section modules build their configuration from them.

use crate::failure::Failure;
use formats::DomainName;
use net::dns::provider::Service;
use net::dns::update::Algorithm;
use receiver::host::authority::{Authority, ExternalAccount, ORDERS_PER_HOUR};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `[[rfc2136]]`: a name server that accepts DNS UPDATE.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateServer {
    /// The name that domains use in `dns = "rfc2136:NAME"`.
    pub name: String,
    /// The server's address and port.
    pub server: SocketAddr,
    /// The zone to change; `None` means the domain itself.
    #[serde(default)]
    pub zone: Option<DomainName>,
    /// The name of the TSIG key (RFC 8945).
    pub key_name: DomainName,
    /// The file with the key's secret in base64.
    pub key_file: PathBuf,
    /// The TSIG algorithm; HMAC-SHA256 if it is not set.
    #[serde(default)]
    pub algorithm: KeyAlgorithm,
}

/// `[[provider]]`: an account at a DNS provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// The name that domains use in `dns = "SERVICE:NAME"`.
    pub name: String,
    /// The DNS provider whose API changes the records.
    #[serde(serialize_with = "service_as_text", deserialize_with = "service_from_text")]
    pub service: Service,
    /// The file with the API token or credentials.
    pub key_file: PathBuf,
    /// The zone to change; `None` means the domain itself.
    #[serde(default)]
    pub zone: Option<DomainName>,
    /// The zone's identifier at Route 53, for several zones of one name.
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

/// The algorithm of a TSIG key (RFC 8945 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// HMAC-SHA256.
    #[default]
    #[serde(rename = "hmac-sha256")]
    Sha256,
    /// HMAC-SHA384.
    #[serde(rename = "hmac-sha384")]
    Sha384,
    /// HMAC-SHA512.
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

/// A certificate authority: `[host.acme]`, or a table of `host.acme.then`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthoritySpec {
    /// The ACME directory URL (RFC 8555 §7.1.1), which must begin with `https://`.
    pub directory: String,
    /// The account's contact, as a `mailto:` URL; `None` sends no contact.
    #[serde(default)]
    pub(crate) contact: Option<String>,
    /// The certificate profile to order; `None` means the CA's default.
    #[serde(default)]
    pub(crate) profile: Option<String>,
    /// PEM file with the roots that verify the ACME server; `None` means the system's roots.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// The key identifier for external account binding (RFC 8555 §7.3.4).
    #[serde(default)]
    pub(crate) key_id: Option<String>,
    /// The file with the key for external account binding.
    #[serde(default)]
    pub(crate) key_file: Option<PathBuf>,
    /// The maximum number of new certificates per hour; `None` means [`ORDERS_PER_HOUR`].
    #[serde(default)]
    pub(crate) new_per_hour: Option<u32>,
    /// The CA's issuer domain name; `None` means that of the known CA.
    #[serde(default)]
    pub(crate) issuer: Option<String>,
}

impl AuthoritySpec {
    /// Checks the members and resolves file paths against `folder`.
    pub(crate) fn authority(self, folder: &Path) -> Result<Authority, Failure> {
        if !self.directory.starts_with("https://") {
            return Err(Failure::usage(
                format!("the certificate authority {:?}", self.directory),
                "its directory is not a URL that begins with https://",
                "Set directory to the ACME directory URL from the CA's documentation.",
            ));
        }
        let external = match (self.key_id, self.key_file) {
            (Some(key_id), Some(file)) => Some(ExternalAccount { key_id, key_file: folder.join(file) }),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    format!("the account at {}", self.directory),
                    "external account binding requires both key_id and key_file, and one of them is missing",
                    "The CA shows both values under external account binding (EAB).",
                ));
            }
        };
        Ok(Authority {
            directory: self.directory,
            contact: self.contact,
            profile: self.profile,
            ca_file: self.ca_file.map(|file| folder.join(file)),
            external,
            new_per_hour: self.new_per_hour.unwrap_or(ORDERS_PER_HOUR).max(1),
            issuer: self.issuer,
        })
    }
}

/// A certificate chain and its private key in PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The file with the certificate chain.
    pub certificate: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
}

/// A DKIM key of `reporter.dkim`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// The signing domain; `None` means the domain of `reporter.from`.
    #[serde(default)]
    pub domain: Option<DomainName>,
    /// The DKIM selector (RFC 6376 §3.1).
    pub selector: DomainName,
    /// PEM file with the private key, RSA or Ed25519.
    pub key_file: PathBuf,
}

/// The delivery method for report mail or alert mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deliver {
    /// Directly to the recipient's MX hosts.
    Direct,
    /// Through a relay: host, port, and the SMTP AUTH login if one is configured.
    Relay(String, u16, Option<LoginSpec>),
    /// By a sendmail command at this path.
    Sendmail(PathBuf),
    /// Into files in this directory.
    Folder(PathBuf),
}

/// The SMTP AUTH login at a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSpec {
    /// The user name for SMTP AUTH.
    pub user: String,
    /// The file with the password.
    pub password_file: PathBuf,
}

impl Deliver {
    /// Parses `direct`, `smarthost:HOST:PORT`, `sendmail:PATH` or `folder:DIR`; `None` if the text is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "direct" => Some(Self::Direct),
            Some(("smarthost", rest)) => {
                let (host, port) = rest.rsplit_once(':')?;
                let host = host.trim_matches(['[', ']']);
                (!host.is_empty()).then_some(Self::Relay(host.to_owned(), port.parse().ok()?, None))
            }
            Some(("sendmail", path)) if path.starts_with('/') => Some(Self::Sendmail(path.into())),
            Some(("folder", path)) if !path.is_empty() => Some(Self::Folder(path.into())),
            _ => None,
        }
    }

    /// Resolves the path of `folder:DIR` against the configuration file's directory.
    pub(crate) fn in_folder(self, folder: &Path) -> Self {
        match self {
            Self::Folder(dir) => Self::Folder(folder.join(dir)),
            other => other,
        }
    }
}
