//! The configuration, `sternpost.toml`. [`KEYS`] is the one table of what can stand in it; the
//! reader, `config show` and `docs/configuration.md` all come out of it.

mod domains;
mod fault;
mod guard;
mod inbox;
mod keys;
mod overrides;
mod owner;
mod read;
mod reporting;

pub use domains::{AdminConfig, HostConfig, ProviderSpec, UpdateServer, fits};
pub use fault::nearest;
pub use guard::GuardConfig;
pub use inbox::{CertificateFiles, DashboardConfig, InboxConfig};
pub use keys::{KEYS, reference};
pub use reporting::{CollectorConfig, Deliver, KeySpec, LoginSpec, ReporterConfig};

use crate::failure::Failure;
use formats::DomainName;
use formats::tls_policy::Level;
use net::dns::Dnssec;
use read::Read;
use receiver::domain::DomainSpec;
use receiver::rollout::gate::Thresholds;
use sender::answer::Settings;
use sender::serve::listen::{Address, SocketFileOptions};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// The file of `store`.
    pub store: PathBuf,
    /// `[answers]`, when the role is on.
    pub answers: Option<AnswersConfig>,
    /// `[host]`, when the role is on.
    pub host: Option<HostConfig>,
    /// `[guard]`, when the role is on.
    pub guard: Option<GuardConfig>,
    /// `[inbox]`, when the role is on.
    pub inbox: Option<InboxConfig>,
    /// `[collector]`, when the role is on.
    pub collector: Option<CollectorConfig>,
    /// `[reporter]`, when the role is on.
    pub reporter: Option<ReporterConfig>,
    /// `[admin]`, when the role is on.
    pub admin: Option<AdminConfig>,
    /// `[dashboard]`, when the role is on.
    pub dashboard: Option<DashboardConfig>,
    /// `[gate]`.
    pub thresholds: Thresholds,
    /// `[[domain]]`.
    pub domains: Vec<DomainSpec>,
    /// `delegation.zone`.
    pub delegation: Option<DomainName>,
    /// `[[rfc2136]]`.
    pub updates: Vec<UpdateServer>,
    /// `[[provider]]`.
    pub providers: Vec<ProviderSpec>,
    /// `lab.dns_port`.
    pub dns_port: u16,
    /// `metrics.listen`.
    pub metrics: Option<SocketAddr>,
    /// True logs JSON.
    pub log_json: bool,
    /// From which level on.
    pub log_level: String,
    read: Read,
}

/// `[answers]`.
#[derive(Debug, Clone)]
pub struct AnswersConfig {
    /// Where Postfix asks.
    pub listen: Vec<Address>,
    /// Where lines are asked.
    pub lines: Vec<Address>,
    /// Where HTTP is asked.
    pub http: Option<SocketAddr>,
    /// How Unix sockets are made.
    pub socket_file: SocketFileOptions,
    /// Bytes of memory for answers.
    pub cache_bytes: u64,
    /// What can change while it runs.
    pub settings: Settings,
}

/// Where a configuration is looked for when none is named.
const PLACES: [&str; 2] = ["sternpost.toml", "/etc/sternpost/sternpost.toml"];

/// What a reload takes in, besides `[answers]`.
const RELOADED: [&str; 6] =
    ["metrics.listen", "host.listen", "host.http", "host.behind_proxy", "inbox.smtp", "inbox.lmtp"];

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
        let store = folder
            .join(read.text("store").and_then(|text| text.strip_prefix("sqlite:")).unwrap_or("sternpost.db"));
        let answers = read.has("answers").then(|| answers(&read, &folder)).transpose()?;
        let host = domains::host(&read, &folder)?;
        let mut updates: Vec<UpdateServer> = read.tables("rfc2136");
        updates.iter_mut().for_each(|server| server.key_file = folder.join(&server.key_file));
        let mut providers: Vec<ProviderSpec> = read.tables("provider");
        providers.iter_mut().for_each(|provider| provider.key_file = folder.join(&provider.key_file));
        let config = Self {
            delegation: read.text("delegation.zone").and_then(|text| DomainName::parse(text).ok()),
            store,
            answers,
            host,
            guard: read.has("guard").then(|| guard::guard(&read, &folder)).transpose()?,
            inbox: read.has("inbox").then(|| inbox::inbox(&read, &folder)).transpose()?,
            collector: read.has("collector").then(|| reporting::collector(&read, &folder)),
            reporter: read.has("reporter").then(|| reporting::reporter(&read, &folder)).transpose()?,
            dashboard: read.has("dashboard").then(|| inbox::dashboard(&read, &folder)).transpose()?,
            admin: read.has("admin").then(|| domains::admin(&read, &folder)).transpose()?,
            thresholds: inbox::thresholds(&read),
            domains: read.tables("domain"),
            updates,
            providers,
            dns_port: read.port("lab.dns_port", 53),
            metrics: read.text("metrics.listen").and_then(|text| text.parse().ok()),
            log_json: read.text("log.format") == Some("json"),
            log_level: read.text("log.level").unwrap_or("info").to_owned(),
            dns_servers: read.list("dns.servers").iter().filter_map(|text| text.parse().ok()).collect(),
            dnssec: match read.text("dns.dnssec") {
                Some("trust-ad") => Dnssec::TrustAd,
                Some("off") => Dnssec::Off,
                _ => Dnssec::Validate,
            },
            trust_anchor: path("dns.trust_anchor"),
            ca_file: path("trust.ca_file"),
            allow_private_addresses: read.flag("trust.allow_private_addresses"),
            https_port: read.port("lab.https_port", 443),
            smtp_port: read.port("lab.smtp_port", 25),
            file,
            read,
        };
        domains::check(&config)?;
        Ok(config)
    }

    /// The Unix socket through which the running program is talked to.
    pub fn control(&self) -> PathBuf {
        let named = self.read.text("answers.control").map(|text| self.folder().join(text));
        named.unwrap_or_else(|| self.store.with_file_name("sternpost.sock"))
    }

    /// True when all that a reload can't change is the same.
    pub fn has_same_world(&self, other: &Self) -> bool {
        let fixed = |key: &&keys::Key| {
            !key.path.starts_with("answers.") && !RELOADED.contains(&key.path)
                || key.path == "answers.cache_memory"
        };
        KEYS.iter().filter(fixed).all(|key| self.read.value(key.path) == other.read.value(key.path))
    }

    fn folder(&self) -> PathBuf {
        self.file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
    }

    /// The effective whole, each value with where it comes from.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for key in KEYS {
            let (head, name) = key.path.split_once('.').unwrap_or(("", key.path));
            let is_off = match head {
                "answers" => self.answers.is_none(),
                "host" => self.host.is_none(),
                "guard" => self.guard.is_none(),
                "inbox" => self.inbox.is_none(),
                "collector" => self.collector.is_none(),
                "reporter" => self.reporter.is_none(),
                "dashboard" => self.dashboard.is_none(),
                "admin" => self.admin.is_none(),
                _ => false,
            };
            if is_off {
                if head != section {
                    let _ = writeln!(out, "\n# [{head}] is not there: that role is off");
                    section = head;
                }
                continue;
            }
            if head != section {
                let _ = writeln!(out, "\n[{head}]");
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

fn answers(read: &Read, folder: &Path) -> Result<AnswersConfig, Failure> {
    let seconds = |key, default| Duration::from_secs(u64::from(read.number(key, default)));
    let from_folder = |address| match address {
        Address::Unix(path) => Address::Unix(folder.join(path)),
        other => other,
    };
    Ok(AnswersConfig {
        listen: read.addresses("answers.listen", "127.0.0.1:8461").into_iter().map(from_folder).collect(),
        lines: read.addresses("answers.lines", "").into_iter().map(from_folder).collect(),
        http: read.text("answers.http").and_then(|text| text.parse().ok()),
        socket_file: SocketFileOptions {
            mode: read
                .text("answers.socket_mode")
                .map_or(Some(0o666), |mode| u32::from_str_radix(mode, 8).ok()),
            owner: read.text("answers.socket_owner").and_then(|owner| owner::numbers(owner).ok()),
        },
        cache_bytes: u64::from(read.number("answers.cache_memory", 64)) << 20,
        settings: Settings {
            tlsrpt: read.flag("answers.tlsrpt"),
            patience: seconds("answers.deadline", 20),
            recheck: seconds("answers.recheck", 60),
            testing: match read.text("answers.testing_level") {
                Some("may") => Some(Level::May),
                Some("encrypt") => Some(Level::Encrypt),
                Some("dane") => Some(Level::Dane),
                _ => None,
            },
            overrides: overrides::rules(read.value("answers.override"), folder)?,
        },
    })
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
