//! The configuration in force: every section as a type, and how it is shown with the origin of each value.

use crate::guard::GuardConfig;
use crate::hosting::{AdminConfig, HostConfig};
use crate::inbox::{DashboardConfig, InboxConfig};
use crate::keys::{self, KEYS};
use crate::read::Read;
use crate::reporting::{CollectorConfig, ReporterConfig};
use crate::specs::{ProviderSpec, UpdateServer};
use formats::DomainName;
use net::dns::Dnssec;
use receiver::domain::DomainSpec;
use receiver::rollout::gate::Thresholds;
use sender::answer::Settings;
use sender::serve::listen::{Address, SocketFileOptions};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

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
    pub(crate) read: Read,
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

/// What a reload takes in, besides `[answers]`.
const RELOADABLE_KEYS: [&str; 6] =
    ["metrics.listen", "host.listen", "host.http", "host.behind_proxy", "inbox.smtp", "inbox.lmtp"];

impl Config {
    /// The Unix socket through which the running program is talked to.
    pub fn control(&self) -> PathBuf {
        let named = self.read.text("answers.control").map(|text| self.folder().join(text));
        named.unwrap_or_else(|| self.store.with_file_name("sternpost.sock"))
    }

    /// True when all that a reload can't change is the same.
    pub fn has_same_world(&self, other: &Self) -> bool {
        let fixed = |key: &&keys::Key| {
            !key.path.starts_with("answers.") && !RELOADABLE_KEYS.contains(&key.path)
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

fn default_value(text: &str) -> serde_json::Value {
    let parsed: Option<toml::Table> = format!("v = {text}").parse().ok();
    parsed
        .and_then(|mut table| table.remove("v"))
        .and_then(|value| serde_json::to_value(value).ok())
        .unwrap_or_default()
}
