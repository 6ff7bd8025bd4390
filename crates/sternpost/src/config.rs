//! The configuration, `sternpost.toml`. [`KEYS`] is the one table of what can stand in it; the
//! reader, `config show` and `docs/configuration.md` all come out of it.

mod keys;
mod read;

pub use keys::{KEYS, reference};
pub use read::nearest;

use crate::failure::Failure;
use net::dns::Dnssec;
use read::Read;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Value;

/// What is in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was read from.
    pub file: Option<PathBuf>,
    /// `dns.servers`; empty means the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// `dns.dnssec`.
    pub dnssec: Dnssec,
    /// `dns.trust_anchor`.
    pub trust_anchor: Option<PathBuf>,
    /// `trust.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `trust.allow_private_addresses`.
    pub allow_private_addresses: bool,
    /// `lab.https_port`.
    pub https_port: u16,
    /// `lab.smtp_port`.
    pub smtp_port: u16,
    read: Read,
}

/// Where a configuration is looked for when none is named.
const PLACES: [&str; 2] = ["sternpost.toml", "/etc/sternpost/sternpost.toml"];

impl Config {
    /// Reads the named file, else the first of the usual places, else takes the defaults.
    pub fn load(named: Option<&Path>) -> Result<Self, Failure> {
        let found =
            named.map(Path::to_owned).or_else(|| PLACES.iter().map(PathBuf::from).find(|path| path.exists()));
        let Some(path) = found else { return Self::parse("", None) };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(
                format!("the configuration {} can't be read", path.display()),
                error,
                "Name another one with --config.",
            )
        })?;
        Self::parse(&text, Some(path))
    }

    /// Takes the text of a configuration file. Paths in it are relative to the file's folder.
    pub fn parse(text: &str, file: Option<PathBuf>) -> Result<Self, Failure> {
        let shown = file.as_ref().map_or("the configuration".to_owned(), |path| path.display().to_string());
        let read = Read::new(text).map_err(|fault| {
            Failure::usage(
                format!("{shown}, line {}, column {}", fault.line, fault.column),
                fault.what,
                fault.remedy,
            )
        })?;
        let folder = file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        let path = |key: &str| read.text(key).map(|text| folder.join(text));
        Ok(Self {
            dns_servers: read.list("dns.servers").iter().filter_map(|text| text.parse().ok()).collect(),
            dnssec: match read.text("dns.dnssec") {
                Some("trust-ad") => Dnssec::TrustAd,
                Some("off") => Dnssec::Off,
                _ => Dnssec::Validate,
            },
            trust_anchor: path("dns.trust_anchor"),
            ca_file: path("trust.ca_file"),
            allow_private_addresses: read
                .value("trust.allow_private_addresses")
                .and_then(Value::as_bool)
                .unwrap_or(false),
            https_port: read.port("lab.https_port", 443),
            smtp_port: read.port("lab.smtp_port", 25),
            file,
            read,
        })
    }

    /// The effective whole, each value with where it comes from.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for key in KEYS {
            let (head, name) = key.path.split_once('.').unwrap_or(("", key.path));
            if head != section {
                let _ = writeln!(out, "{}[{head}]", if section.is_empty() { "" } else { "\n" });
                section = head;
            }
            let _ = match (self.read.value(key.path), key.default) {
                (Some(value), _) => {
                    writeln!(out, "{name} = {value}  # {}, line {}", self.origin(), self.read.line(key.path))
                }
                (None, "") => writeln!(out, "# {name} is not set: {}", key.unset),
                (None, default) => writeln!(out, "{name} = {default}  # default"),
            };
        }
        out
    }

    /// The same for scripts: an object of key to value and origin.
    pub fn to_json(&self) -> String {
        let entry = |key: &keys::Key| {
            let value = match self.read.value(key.path) {
                Some(value) => serde_json::to_value(value).unwrap_or_default(),
                None => default_value(key.default),
            };
            let origin = match self.read.value(key.path) {
                Some(_) => format!("{}:{}", self.origin(), self.read.line(key.path)),
                None => "default".to_owned(),
            };
            (key.path.to_owned(), serde_json::json!({ "value": value, "origin": origin }))
        };
        let keys: serde_json::Map<_, _> = KEYS.iter().map(entry).collect();
        serde_json::json!({ "schema": 1, "keys": keys }).to_string()
    }

    fn origin(&self) -> String {
        self.file.as_ref().map_or("given".to_owned(), |path| path.display().to_string())
    }
}

fn default_value(text: &str) -> serde_json::Value {
    let parsed: Option<toml::Table> = format!("v = {text}").parse().ok();
    parsed
        .and_then(|mut table| table.remove("v"))
        .and_then(|value| serde_json::to_value(value).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
