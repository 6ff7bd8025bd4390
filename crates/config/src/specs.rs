//! Things that the configuration file describes by a table or a word of their own: certificate authorities, name servers
//! that take updates, DNS providers, certificate files, DKIM keys, ways for report mail. The reader checks them where they
//! stand in the file, and the sections put them together, so that they lie below both.

use crate::failure::Failure;
use formats::DomainName;
use net::dns::provider::Service;
use net::dns::update::Algorithm;
use receiver::host::authority::{Authority, ExternalAccount, ORDERS_PER_HOUR};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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

/// An authority, as the configuration has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthoritySpec {
    /// Its directory.
    pub directory: String,
    /// Who is told about certificates that end; `None` tells nobody.
    #[serde(default)]
    pub(crate) contact: Option<String>,
    /// The certificate profile to order by; `None` leaves it to the authority.
    #[serde(default)]
    pub(crate) profile: Option<String>,
    /// Roots in PEM that its own certificate is verified by; `None` means the system's.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// The key identifier of external account binding (RFC 8555 §7.3.4).
    #[serde(default)]
    pub(crate) key_id: Option<String>,
    /// The file with the key of external account binding.
    #[serde(default)]
    pub(crate) key_file: Option<PathBuf>,
    /// New certificates in an hour; `None` means the usual number.
    #[serde(default)]
    pub(crate) new_per_hour: Option<u32>,
}

impl AuthoritySpec {
    pub(crate) fn authority(self, folder: &Path) -> Result<Authority, Failure> {
        if !self.directory.starts_with("https://") {
            return Err(Failure::usage(
                format!("the certificate authority {:?}", self.directory),
                "its directory is a URL that begins with https://",
                "Give it as the authority's documentation does.",
            ));
        }
        let external = match (self.key_id, self.key_file) {
            (Some(key_id), Some(file)) => Some(ExternalAccount { key_id, key_file: folder.join(file) }),
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
            new_per_hour: self.new_per_hour.unwrap_or(ORDERS_PER_HOUR).max(1),
        })
    }
}

/// A certificate and its key in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate, and those that it was made with.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A DKIM key, as the configuration names it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySpec {
    /// The signing domain; that of `from` without.
    #[serde(default)]
    pub domain: Option<DomainName>,
    /// Its selector.
    pub selector: DomainName,
    /// The file with the private key.
    pub key_file: PathBuf,
}

/// How report mail leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deliver {
    /// Straight to the target's MX.
    Direct,
    /// By a relay, as somebody whom it knows where it asks for that.
    Relay(String, u16, Option<LoginSpec>),
    /// By a command.
    Sendmail(PathBuf),
    /// Into a folder.
    Folder(PathBuf),
}

/// Who we are to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSpec {
    /// The name.
    pub user: String,
    /// The file with the password.
    pub password_file: PathBuf,
}

impl Deliver {
    /// Takes `direct`, `smarthost:HOST:PORT`, `sendmail:PATH` or `folder:DIR`.
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

    /// A folder of the configuration is meant from the configuration's own.
    pub(crate) fn in_folder(self, folder: &Path) -> Self {
        match self {
            Self::Folder(dir) => Self::Folder(folder.join(dir)),
            other => other,
        }
    }
}
