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
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::Location;
use store::tenants::TenantName;

/// The paths that are tried, in this order, when no file is named.
const CONFIG_PATHS: [&str; 2] = ["sternpost.toml", "/etc/sternpost/sternpost.toml"];

/// Where the files of the server are if the store is not a file: the folder of the packages' service.
const STATE_FOLDER: &str = "/var/lib/sternpost";

/// What the command line chooses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chosen<'a> {
    /// The configuration file that `--config` names.
    pub file: Option<&'a Path>,
    /// The tenant that `--tenant` names.
    pub tenant: Option<&'a TenantName>,
}

/// What becomes of a default file that this user may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    /// Reading fails, since with the defaults the command would use another store.
    Fails,
    /// The defaults apply, and a note reports it.
    Skipped,
}

/// A default file, and a note for the operator about its choice.
#[derive(Debug, Default, PartialEq, Eq)]
struct Located {
    file: Option<PathBuf>,
    note: Option<String>,
}

impl Config {
    /// Reads the named file, or else the one that `STERNPOST_CONFIG` names, or else the first existing file of the usual paths.
    /// Without any, the defaults apply. Environment variables take precedence over the file. An empty `./sternpost.toml` beside
    /// the file of an installation is left out, with a note on standard error.
    ///
    /// # Errors
    ///
    /// If the file can't be read or is not valid. A usual path that can't be looked up is an error, too, since a file may be
    /// there.
    pub fn load(named: Option<&Path>) -> Result<Self, Failure> {
        Self::load_with(named, Unreadable::Fails)
    }

    /// As [`Self::load`], with what the command line chooses.
    ///
    /// # Errors
    ///
    /// Those of [`Self::load`].
    pub fn load_for(chosen: Chosen<'_>) -> Result<Self, Failure> {
        let config = Self::load(chosen.file)?;
        Ok(Self { tenant: chosen.tenant.cloned().or(config.tenant), ..config })
    }

    /// As [`Self::load`], for a command that uses no store and works with the defaults: a file at a usual path that this user
    /// may not read is left out, with a note on standard error.
    ///
    /// # Errors
    ///
    /// Those of [`Self::load`].
    pub fn load_if_readable(named: Option<&Path>) -> Result<Self, Failure> {
        Self::load_with(named, Unreadable::Skipped)
    }

    fn load_with(named: Option<&Path>, unreadable: Unreadable) -> Result<Self, Failure> {
        let environment = Environment::of_process();
        let chosen = named.map(Path::to_owned).or_else(|| environment.file());
        let may_skip = unreadable == Unreadable::Skipped && chosen.is_none();
        let [local, installed] = CONFIG_PATHS.map(Path::new);
        let read = || {
            let Located { file, note } = match chosen {
                Some(file) => Located { file: Some(file), note: None },
                None => locate(local, installed)?,
            };
            if let Some(note) = note {
                eprintln!("note: {note}");
            }
            let Some(path) = file else { return Ok(None) };
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some((path, text))),
                Err(error) => Err((path, error)),
            }
        };
        match read() {
            Ok(Some((path, text))) => Self::parse_with(&text, Some(path), &environment),
            Ok(None) => Self::parse_with("", None, &environment),
            Err((path, error)) if may_skip && error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("note: this user may not read {}, so the defaults apply", path.display());
                Self::parse_with("", None, &environment)
            }
            Err((path, error)) => Err(unreadable_file(&path, &error)),
        }
    }

    /// The configuration file and the store that were read, in words, for a command that found nothing in them.
    pub fn origins(&self) -> String {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = self.store.file().map(|file| absolute(file).display().to_string());
        let store = file.unwrap_or_else(|| self.store.to_string());
        match &self.file {
            Some(file) => {
                format!("the configuration file {} and the store {store}", absolute(file).display(),)
            }
            None => {
                format!("the store {store} (no configuration file exists at the usual places)")
            }
        }
    }

    /// The command that adds the proposal of `sternpost init` for a domain to the file in use.
    pub fn init_command(&self, domain: &str) -> String {
        match &self.file {
            Some(file) if file.starts_with("/etc") => {
                format!("sternpost init {domain} | sudo tee -a {}", file.display())
            }
            Some(file) => format!("sternpost init {domain} >> {}", file.display()),
            None => format!("sternpost init {domain} >> sternpost.toml"),
        }
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
            tenant: read.text("tenant").and_then(|name| name.parse().ok()),
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

/// Chooses between the file in the current folder and the one of an installation. An empty file in the current folder is what
/// the shell creates for `sternpost init … >> sternpost.toml` before the command runs, and would hide the other one.
fn locate(local: &Path, installed: &Path) -> Result<Located, (PathBuf, io::Error)> {
    let exists = |path: &Path| path.try_exists().map_err(|error| (path.to_owned(), error));
    let has_local = exists(local)?;
    let is_empty = || std::fs::read_to_string(local).is_ok_and(|text| text.trim().is_empty());
    let is_same = || {
        std::fs::canonicalize(local)
            .is_ok_and(|one| std::fs::canonicalize(installed).is_ok_and(|other| one == other))
    };
    let is_left_out = has_local && is_empty() && exists(installed)? && !is_same();
    if has_local && !is_left_out {
        return Ok(Located { file: Some(local.to_owned()), note: None });
    }
    let note = is_left_out
        .then(|| format!("./{} is empty, so {} is read instead", local.display(), installed.display()));
    let file = exists(installed)?.then(|| installed.to_owned());
    Ok(Located { file, note })
}

fn unreadable_file(path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Run the command as root, or as the user that `sternpost serve` runs as (sudo -u sternpost sternpost …): with the defaults in its place, it would use another store."
        }
        _ => "Name another file with --config.",
    };
    Failure::usage(format!("the configuration file {} can't be read", path.display()), error, remedy)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_in_the_current_folder_does_not_hide_the_installed_one_and_any_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let (local, installed) = (dir.path().join("local.toml"), dir.path().join("installed.toml"));
        let found = || locate(&local, &installed).unwrap();
        assert_eq!(found(), Located::default());
        std::fs::write(&local, " \n").unwrap();
        assert_eq!(found(), Located { file: Some(local.clone()), note: None });
        std::fs::write(&installed, "").unwrap();
        let Located { file, note } = found();
        assert_eq!(file.as_deref(), Some(installed.as_path()));
        assert!(note.unwrap().contains("is empty, so"));
        std::fs::write(&local, "# mine\n").unwrap();
        assert_eq!(found(), Located { file: Some(local.clone()), note: None });
        std::fs::write(&installed, "").unwrap();
        assert_eq!(locate(&installed, &installed).unwrap().note, None);
        std::fs::remove_file(&local).unwrap();
        assert_eq!(found(), Located { file: Some(installed.clone()), note: None });
    }

    #[test]
    fn a_place_that_can_not_be_looked_up_is_not_taken_for_an_absent_file() {
        let dir = tempfile::tempdir().unwrap();
        // A file in the place of a folder fails for every user, as a folder without permission does for most.
        std::fs::write(dir.path().join("etc"), "").unwrap();
        let installed = dir.path().join("etc/sternpost.toml");
        let (path, error) = locate(&dir.path().join("none.toml"), &installed).unwrap_err();
        let failure = unreadable_file(&path, &error).to_string();
        assert!(failure.contains("etc/sternpost.toml can't be read"), "{failure}");
        let denied = unreadable_file(&path, &io::Error::from(io::ErrorKind::PermissionDenied)).to_string();
        assert!(denied.contains("as root"), "{denied}");
    }

    #[test]
    fn what_was_read_is_named_with_file_and_store_and_the_proposal_goes_there() {
        let config = Config::parse("", Some("/etc/sternpost/sternpost.toml".into())).unwrap();
        let origins = config.origins();
        assert!(origins.contains("/etc/sternpost/sternpost.toml"), "{origins}");
        assert!(origins.contains("the store /etc/sternpost/sternpost.db"), "{origins}");
        assert_eq!(
            config.init_command("a.example"),
            "sternpost init a.example | sudo tee -a /etc/sternpost/sternpost.toml"
        );
        let none = Config::parse("", None).unwrap();
        assert!(
            none.origins().starts_with("the store /") && none.origins().contains("no configuration file")
        );
        assert!(none.init_command("a.example").ends_with(">> sternpost.toml"));
    }
}
