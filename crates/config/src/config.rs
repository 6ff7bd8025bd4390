//! The effective configuration: every section as a type. `load` fills it from the keys that `read` has validated.
//! `sternpost config show` prints it with the origin of each value.

use crate::defaults::merged_json;
use crate::guard::GuardConfig;
use crate::hosting::{AdminConfig, HostConfig};
use crate::inbox::{DashboardConfig, InboxConfig};
use crate::keys::{self, KEYS};
use crate::read::{Origin, Read};
use crate::reporting::{CollectorConfig, ReporterConfig};
use crate::specs::{ProviderSpec, UpdateServer};
use formats::DomainName;
use net::dns::Dnssec;
use receiver::domain::DomainSpec;
use receiver::inbox::Retention;
use receiver::rollout::gate::Thresholds;
use sender::answer::Settings;
use sender::serve::listen::{Address, SocketFileOptions};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use store::Location;
use store::tenants::TenantName;

/// The effective configuration: the values of the file, and defaults for all other keys.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read; `None` if there is none and the defaults apply.
    pub file: Option<PathBuf>,
    /// `dns.servers`; empty means the system's resolvers.
    pub dns_servers: Vec<SocketAddr>,
    /// `dns.dnssec`: how answers get their DNSSEC state.
    pub dnssec: Dnssec,
    /// `dns.trust_anchor`: the file with the DNSKEY records of a private DNS root; `None` means the root zone's.
    pub trust_anchor: Option<PathBuf>,
    /// `trust.ca_file`: the PEM file that replaces the system's root certificates; `None` keeps those.
    pub ca_file: Option<PathBuf>,
    /// `trust.allow_private_addresses`: whether policy hosts and MX hosts may have special-purpose addresses.
    pub allow_private_addresses: bool,
    /// `lab.https_port`: the HTTPS port of policy hosts; 443 outside of a lab.
    pub https_port: u16,
    /// `lab.smtp_port`: the SMTP port of MX hosts; 25 outside of a lab.
    pub smtp_port: u16,
    /// `store`: the SQLite file or the PostgreSQL database.
    pub store: Location,
    /// `store_password_file`: the password of the PostgreSQL user; `None` if none is needed.
    pub store_password: Option<PathBuf>,
    /// `store_migrate`: whether a PostgreSQL database is migrated without a command.
    pub store_migrate: bool,
    /// `tenant`: the tenant that commands work on; `None` means the first one.
    pub tenant: Option<TenantName>,
    /// `state_folder`: where the control socket and the link of the first sign-in are. The default is the folder of the
    /// SQLite file.
    pub state_folder: PathBuf,
    /// `[answers]`; `None` if the role is off.
    pub answers: Option<AnswersConfig>,
    /// `[host]`; `None` if the role is off.
    pub host: Option<HostConfig>,
    /// `[guard]`; `None` if the role is off.
    pub guard: Option<GuardConfig>,
    /// `[inbox]`; `None` if the role is off.
    pub inbox: Option<InboxConfig>,
    /// `[collector]`; `None` if the role is off.
    pub collector: Option<CollectorConfig>,
    /// `[reporter]`; `None` if the role is off.
    pub reporter: Option<ReporterConfig>,
    /// `[admin]`; `None` if the role is off.
    pub admin: Option<AdminConfig>,
    /// `[dashboard]`; `None` if the role is off.
    pub dashboard: Option<DashboardConfig>,
    /// `[gate]`: the evidence that enforcement requires.
    pub thresholds: Thresholds,
    /// `[[domain]]`: the domains of the file; the store may hold further ones.
    pub domains: Vec<DomainSpec>,
    /// `delegation.zone`; `None` means that domains can't be delegated.
    pub delegation: Option<DomainName>,
    /// `[[rfc2136]]`: the name servers that accept DNS UPDATE.
    pub updates: Vec<UpdateServer>,
    /// `[[provider]]`: the accounts at DNS providers.
    pub providers: Vec<ProviderSpec>,
    /// `lab.dns_port`: the port of authoritative name servers; 53 outside of a lab.
    pub dns_port: u16,
    /// `metrics.listen`; `None` disables metrics.
    pub metrics: Option<Address>,
    /// `metrics.domains`: the domains with series of their own; empty means all, unless there are too many.
    pub metrics_domains: Vec<DomainName>,
    /// `log.format`: whether log lines are JSON.
    pub log_json: bool,
    /// `log.level`: the lowest level that is logged, such as `info`.
    pub log_level: String,
    /// Keys of the file that were ignored, since only a newer release may know them.
    pub warnings: Vec<String>,
    pub(crate) read: Read,
}

/// `[answers]`: TLS policies for the mail servers' outgoing mail.
#[derive(Debug, Clone)]
pub struct AnswersConfig {
    /// Socketmap listen addresses for Postfix.
    pub listen: Vec<Address>,
    /// Listen addresses of the line protocol for Exim and scripts.
    pub lines: Vec<Address>,
    /// The HTTP listen address; `None` disables HTTP.
    pub http: Option<Address>,
    /// Mode and owner of the Unix sockets.
    pub socket_file: SocketFileOptions,
    /// The size of the answer cache in bytes.
    pub cache_bytes: u64,
    /// The settings that a reload can change.
    pub settings: Settings,
    /// The settings by the name of the socketmap that selects them; any other name selects [`Self::settings`].
    pub maps: BTreeMap<String, Settings>,
}

/// The keys outside of `[answers]` that a reload applies without a restart.
const RELOADABLE_KEYS: [&str; 6] =
    ["metrics.listen", "host.listen", "host.http", "host.behind_proxy", "inbox.smtp", "inbox.lmtp"];

impl Config {
    /// The path of the control socket of the running server (`answers.control`).
    pub fn control(&self) -> PathBuf {
        let named = self.read.text("answers.control").map(|text| self.folder().join(text));
        named.unwrap_or_else(|| self.state_folder.join("sternpost.sock"))
    }

    /// True if the two configurations differ only in keys that a reload can apply.
    pub fn has_same_world(&self, other: &Self) -> bool {
        let fixed = |key: &&keys::Key| {
            !key.path.starts_with("answers.") && !RELOADABLE_KEYS.contains(&key.path)
                || key.path == "answers.cache_memory"
        };
        KEYS.iter().filter(fixed).all(|key| self.read.value(key.path) == other.read.value(key.path))
    }

    /// A new domain with the settings of `[defaults]`.
    pub fn new_domain(&self, name: DomainName) -> DomainSpec {
        let mut members = self.read.defaults();
        members.insert("name".to_owned(), toml::Value::String(name.to_string()));
        // The members were validated when the file was read.
        members.try_into().unwrap_or_else(|_| DomainSpec::new(name))
    }

    /// Adds the settings of `[defaults]` that a domain's settings do not have.
    pub fn add_defaults(&self, settings: &mut serde_json::Map<String, serde_json::Value>) {
        merged_json(settings, &self.read.defaults());
    }

    /// How long, and how much of, reports and quarantined input is kept: the settings of `[inbox]`, or the defaults.
    pub fn retention(&self) -> Retention {
        self.inbox.as_ref().map(|inbox| inbox.retention).unwrap_or_default()
    }

    fn folder(&self) -> PathBuf {
        self.file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
    }

    /// The effective configuration as TOML, with the origin of each value in a comment.
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
                    let _ = writeln!(out, "\n# [{head}] is absent: the role is off");
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
                    writeln!(
                        out,
                        "{name} = {value}  # {}",
                        self.origin(key.path, ", line ", "environment variable ")
                    )
                }
                (None, "") => writeln!(out, "# {name} is not set: {}", key.unset),
                (None, default) => writeln!(out, "{name} = {default}  # default"),
            };
        }
        out
    }

    /// The effective configuration as a JSON object that maps each key to its value and origin.
    pub fn to_json(&self) -> String {
        let entry = |key: &keys::Key| {
            let value = match self.read.value(key.path) {
                Some(value) => serde_json::to_value(value).unwrap_or_default(),
                None => default_value(key.default),
            };
            let origin = match self.read.value(key.path) {
                Some(_) => self.origin(key.path, ":", ""),
                None => "default".to_owned(),
            };
            (key.path.to_owned(), serde_json::json!({ "value": value, "origin": origin }))
        };
        let keys: serde_json::Map<_, _> = KEYS.iter().map(entry).collect();
        serde_json::json!({ "schema": 1, "keys": keys }).to_string()
    }

    /// The file and line of a key's value with `at` between them, or its environment variable after `before`.
    fn origin(&self, key: &str, at: &str, before: &str) -> String {
        let file = self.file.as_ref().map_or("given".to_owned(), |path| path.display().to_string());
        match self.read.origin(key) {
            Some(Origin::Variable(name)) => format!("{before}{name}"),
            Some(Origin::Line(line)) => format!("{file}{at}{line}"),
            None => file,
        }
    }
}

fn default_value(text: &str) -> serde_json::Value {
    let parsed: Option<toml::Table> = format!("v = {text}").parse().ok();
    parsed
        .and_then(|mut table| table.remove("v"))
        .and_then(|value| serde_json::to_value(value).ok())
        .unwrap_or_default()
}
