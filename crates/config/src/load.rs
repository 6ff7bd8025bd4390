//! Loads the configuration file into a [`Config`]: locates it, validates every key, and combines the sections. `main`
//! and a reload call it. Errors are [`Failure`]s that name the file, the line and the column.

use crate::config::{AnswersConfig, Config};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::read::Read;
use crate::specs::{ProviderSpec, UpdateServer};
use crate::{consistency, guard, hosting, inbox, maps, overrides, owner, reporting};
use formats::DomainName;
use net::dns::Dnssec;
use sender::answer::Settings;
use sender::serve::listen::{Address, SocketFileOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::Location;

/// The paths that are tried, in this order, when no file is named.
const CONFIG_PATHS: [&str; 2] = ["sternpost.toml", "/etc/sternpost/sternpost.toml"];

/// Where the files of the server are if the store is not a file: the folder of the packages' service.
const STATE_FOLDER: &str = "/var/lib/sternpost";

impl Config {
    /// Reads the named file, or else the one that `STERNPOST_CONFIG` names, or else the first existing file of the usual paths.
    /// Without any, the defaults apply. Environment variables take precedence over the file.
    ///
    /// # Errors
    ///
    /// If the file can't be read or is not valid.
    pub fn load(named: Option<&Path>) -> Result<Self, Failure> {
        let environment = Environment::of_process();
        let found = named
            .map(Path::to_owned)
            .or_else(|| environment.file())
            .or_else(|| CONFIG_PATHS.iter().map(PathBuf::from).find(|path| path.exists()));
        let Some(path) = found else { return Self::parse_with("", None, &environment) };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(
                format!("the configuration file {} can't be read", path.display()),
                error,
                "Name another file with --config.",
            )
        })?;
        Self::parse_with(&text, Some(path), &environment)
    }

    /// Parses the text of a configuration file, without environment variables. Relative paths in it start at `file`'s
    /// directory.
    ///
    /// # Errors
    ///
    /// If a key or value is not valid, a file that it names can't be read, or sections contradict each other.
    pub fn parse(text: &str, file: Option<PathBuf>) -> Result<Self, Failure> {
        Self::parse_with(text, file, &Environment::default())
    }

    /// As [`Self::parse`], with the settings of an environment.
    ///
    /// # Errors
    ///
    /// Those of [`Self::parse`], and of environment variables that are not valid.
    pub fn parse_with(text: &str, file: Option<PathBuf>, environment: &Environment) -> Result<Self, Failure> {
        let shown = file.as_ref().map_or("the configuration".to_owned(), |path| path.display().to_string());
        let mut read = Read::new(text, environment.credentials()).map_err(|fault| {
            Failure::usage(
                format!("{shown}, line {}, column {}", fault.line, fault.column),
                fault.what,
                fault.remedy,
            )
        })?;
        environment.apply(&mut read)?;
        read.add_defaults();
        let folder = file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        let path = |key: &str| read.text(key).map(|text| folder.join(text));
        // The text was validated when it was read.
        let store = read.text("store").and_then(|text| Location::parse(text, &folder).ok());
        let store = store.unwrap_or_else(|| Location::Sqlite(folder.join("sternpost.db")));
        let state_folder = path("state_folder").unwrap_or_else(|| match &store {
            Location::Sqlite(file) => file.parent().map(Path::to_owned).unwrap_or_default(),
            Location::Postgres(_) => STATE_FOLDER.into(),
        });
        let answers = read.has("answers").then(|| answers(&read, &folder)).transpose()?;
        let host = hosting::host(&read, &folder)?;
        let mut updates: Vec<UpdateServer> = read.tables("rfc2136");
        updates.iter_mut().for_each(|server| server.key_file = folder.join(&server.key_file));
        let mut providers: Vec<ProviderSpec> = read.tables("provider");
        providers.iter_mut().for_each(|provider| provider.key_file = folder.join(&provider.key_file));
        let config = Self {
            delegation: read.text("delegation.zone").and_then(|text| DomainName::parse(text).ok()),
            store,
            store_password: path("store_password_file"),
            store_migrate: read.flag("store_migrate"),
            state_folder,
            answers,
            host,
            guard: read.has("guard").then(|| guard::guard(&read, &folder)).transpose()?,
            inbox: read.has("inbox").then(|| inbox::inbox(&read, &folder)).transpose()?,
            collector: read.has("collector").then(|| reporting::collector(&read, &folder)).transpose()?,
            reporter: read.has("reporter").then(|| reporting::reporter(&read, &folder)).transpose()?,
            dashboard: read.has("dashboard").then(|| inbox::dashboard(&read, &folder)).transpose()?,
            admin: read.has("admin").then(|| hosting::admin(&read, &folder)).transpose()?,
            thresholds: inbox::thresholds(&read),
            domains: read.tables("domain"),
            updates,
            providers,
            dns_port: read.port("lab.dns_port", 53),
            metrics: read.address("metrics.listen"),
            metrics_domains: read
                .list("metrics.domains")
                .iter()
                .filter_map(|name| DomainName::parse(name).ok())
                .collect(),
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
            warnings: read.warnings.clone(),
            read,
        };
        consistency::check(&config)?;
        Ok(config)
    }
}

fn answers(read: &Read, folder: &Path) -> Result<AnswersConfig, Failure> {
    let seconds = |key, default| Duration::from_secs(u64::from(read.number(key, default)));
    let from_folder = |address| match address {
        Address::Unix(path) => Address::Unix(folder.join(path)),
        other => other,
    };
    let settings = Settings {
        tlsrpt: read.flag("answers.tlsrpt"),
        patience: seconds("answers.deadline", 20),
        recheck: seconds("answers.recheck", 60),
        testing: read.text("answers.testing_level").and_then(maps::testing_level),
        default_level: read.text("answers.default_level").map(maps::default_level).unwrap_or_default(),
        overrides: overrides::rules(read.value("answers.override"), folder)?,
        unused: match read.number("answers.unused_days", 90) {
            0 => None,
            days => Some(Duration::from_secs(u64::from(days) * 86_400)),
        },
    };
    Ok(AnswersConfig {
        listen: read.addresses("answers.listen", "127.0.0.1:8461").into_iter().map(from_folder).collect(),
        lines: read.addresses("answers.lines", "").into_iter().map(from_folder).collect(),
        http: read.address("answers.http"),
        socket_file: SocketFileOptions {
            mode: read
                .text("answers.socket_mode")
                .map_or(Some(0o666), |mode| u32::from_str_radix(mode, 8).ok()),
            owner: read.text("answers.socket_owner").and_then(|owner| owner::numbers(owner).ok()),
        },
        cache_bytes: u64::from(read.number("answers.cache_memory", 64)) << 20,
        maps: maps::settings(read.value("answers.maps"), &settings, folder)?,
        settings,
    })
}
