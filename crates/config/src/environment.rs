//! Settings by environment variables, for containers. Each key has a variable: `answers.listen` is
//! `STERNPOST_ANSWERS_LISTEN`. A variable takes precedence over the file, and its section counts as present. The value is
//! text without quotes, a list with commas, or TOML for a key that takes tables; it passes through the same validation as
//! the file. `…_FILE` names a file with the value, as container platforms mount secrets.

use crate::credentials::{UNIT_FOLDER, expanded};
use crate::failure::Failure;
use crate::keys::{KEYS, Key, Kind};
use crate::members::misspelled;
use crate::read::{Origin, Read, validate};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use toml::Value;
use toml::de::DeTable;

/// The prefix of the variables' names.
const PREFIX: &str = "STERNPOST_";

/// Names the configuration file where `--config` does not.
pub const FILE_VARIABLE: &str = "STERNPOST_CONFIG";

/// The most bytes of a file that a variable names.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The environment variables that matter to the configuration.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Names and values of those that begin with `STERNPOST_` and are not empty, by name.
    settings: Vec<(String, String)>,
    /// The folder that `$CREDENTIALS_DIRECTORY` stands for.
    credentials: PathBuf,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
        Self::of(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// The given variables. An empty one is the same as none.
    pub fn of(variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        let all = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let all: Vec<(String, String)> = all.filter(|(_, value)| !value.is_empty()).collect();
        let credentials = all.iter().find(|(name, _)| name == "CREDENTIALS_DIRECTORY");
        let credentials = credentials.map_or(UNIT_FOLDER, |(_, folder)| folder).into();
        let mut settings: Vec<_> = all.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        settings.sort();
        Self { settings, credentials }
    }

    /// The folder that `$CREDENTIALS_DIRECTORY` stands for.
    pub fn credentials(&self) -> &Path {
        &self.credentials
    }

    /// The configuration file that `STERNPOST_CONFIG` names.
    pub fn file(&self) -> Option<PathBuf> {
        self.settings.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, file)| file.into())
    }

    /// Puts the values of the variables in the place of those of the file. An unknown variable is a warning.
    ///
    /// # Errors
    ///
    /// If a value is not valid, two variables set one key, or the file that a variable names can't be read.
    pub fn apply(&self, read: &mut Read) -> Result<(), Failure> {
        for (name, value) in self.settings.iter().filter(|(name, value)| !is_foreign(name, value)) {
            let Some(variable) = Variable::parse(name) else {
                read.warnings.push(unknown(name));
                continue;
            };
            if let Some(Origin::Variable(other)) = read.origin(variable.key.path) {
                return Err(Failure::usage(
                    format!("the environment variables {other} and {name}"),
                    format!("both set {}", variable.key.path),
                    "Remove one of them.",
                ));
            }
            let value = match variable.is_in_file {
                true => content(name, Path::new(value))?,
                false => value.clone(),
            };
            let value = parsed(name, variable.key, &value, &mut read.warnings)?;
            read.set(variable.key, expanded(value, &self.credentials), Origin::Variable(name.clone()));
        }
        Ok(())
    }
}

impl Default for Environment {
    /// An environment without variables.
    fn default() -> Self {
        Self::of([] as [(&str, &str); 0])
    }
}

/// The variable of a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// The key that a variable sets.
struct Variable {
    key: &'static Key,
    /// Whether the value is in the file that the variable names.
    is_in_file: bool,
}

impl Variable {
    fn parse(name: &str) -> Option<Self> {
        let find = |name: &str| KEYS.iter().find(|key| variable(key.path) == name);
        let of_file = || {
            let key = find(name.strip_suffix("_FILE")?)?;
            // The value of such a key is a file's name already.
            Some(Self { key, is_in_file: key.kind != Kind::File })
        };
        find(name).map(|key| Self { key, is_in_file: false }).or_else(of_file)
    }
}

/// True for variables that are not settings: of the tests, and those that Kubernetes sets in every container for a service
/// whose name begins with `sternpost`.
fn is_foreign(name: &str, value: &str) -> bool {
    name == FILE_VARIABLE
        || name.starts_with("STERNPOST_TEST_")
        || ["_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|word| name.contains(word))
        || name.contains("_PORT_")
        || name.ends_with("_PORT") && value.contains("://")
}

fn unknown(name: &str) -> String {
    let known: Vec<String> = KEYS.iter().map(|key| variable(key.path)).collect();
    // Only what follows the prefix can resemble.
    let rest = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
    let rests: Vec<String> = known.iter().map(|name| rest(name)).collect();
    let near = misspelled(&rest(name), rests.iter().map(String::as_str))
        .map(|near| format!("{PREFIX}{}", near.to_ascii_uppercase()));
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("the environment variable {name} belongs to no key of this release and is ignored{near}")
}

/// The content of a file without the line end.
fn content(name: &str, file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .and_then(|bytes| match bytes as u64 > MAX_FILE_BYTES {
            true => Err(std::io::Error::other(format!("it has more than {} KiB", MAX_FILE_BYTES / 1024))),
            false => Ok(()),
        });
    read.map_err(|error| {
        Failure::usage(
            format!("the file {} can't be read", file.display()),
            error,
            format!("The environment variable {name} names it."),
        )
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Validates the text of a variable as a value of the key.
fn parsed(name: &str, key: &Key, text: &str, warnings: &mut Vec<String>) -> Result<Value, Failure> {
    let fail = |what: String, remedy: String| {
        Failure::usage(format!("the environment variable {name}"), what, remedy)
    };
    let takes = || format!("{} takes {}", key.path, key.kind.expected());
    let toml = format!("v = {}", as_toml(key.kind, text));
    let table = DeTable::parse(&toml).map_err(|error| fail(error.message().replace('\n', ", "), takes()))?;
    let mut members = table.get_ref().iter();
    let (Some((_, value)), None) = (members.next(), members.next()) else {
        return Err(fail("it is not a single value".to_owned(), takes()));
    };
    let mut ignored = Vec::new();
    let value = validate(&toml, key, value, &mut ignored).map_err(|fault| fail(fault.what, fault.remedy))?;
    let without_line =
        |warning: &str| warning.split_once(": ").map_or(warning.to_owned(), |(_, rest)| rest.to_owned());
    warnings.extend(ignored.iter().map(|warning| format!("{name}: {}", without_line(warning))));
    Ok(value)
}

/// The value of a variable in TOML.
fn as_toml(kind: Kind, text: &str) -> String {
    let quoted = |text: &str| Value::String(text.to_owned()).to_string();
    match kind.form() {
        Form::Text => quoted(text),
        Form::Word => match (text.trim(), text.trim().parse::<i64>()) {
            (word @ ("true" | "false"), _) => word.to_owned(),
            (_, Ok(number)) => number.to_string(),
            (other, Err(_)) => quoted(other),
        },
        Form::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
        }
        Form::Toml => text.to_owned(),
    }
}

/// How a value is written in a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is, without quotes.
    Text,
    /// A number, `true` or `false`.
    Word,
    /// Several texts, separated by commas.
    List,
    /// In TOML, as in the file.
    Toml,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use formats::Mode;
    use std::collections::BTreeSet;

    fn config(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let environment = Environment::of(variables.iter().map(|(name, value)| (*name, *value)));
        let config = Config::parse_with(text, Some("/etc/sternpost/s.toml".into()), &environment);
        config.map_err(|failure| failure.to_string())
    }

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let names: BTreeSet<String> = KEYS.iter().map(|key| variable(key.path)).collect();
        assert_eq!(names.len(), KEYS.len());
        for key in KEYS {
            assert_eq!(Variable::parse(&variable(key.path)).unwrap().key.path, key.path);
            assert!(!is_foreign(&variable(key.path), "25"), "{}", key.path);
        }
        assert_eq!(variable("host.acme.new_per_hour"), "STERNPOST_HOST_ACME_NEW_PER_HOUR");
    }

    /// The default of each key, written as a variable, is the same as in the file.
    #[test]
    fn a_default_in_a_variable_is_what_it_is_in_the_file() {
        let needed = "[reporter]\nfrom = \"a@b.example\"\ndkim = { selector = \"k\", key_file = \"k.pem\" }\n[admin]\ntoken_file = \"t\"\n";
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let value: Value =
                format!("v = {}", key.default).parse::<toml::Table>().unwrap().remove("v").unwrap();
            let text = match (&value, key.kind.form()) {
                (Value::Array(items), Form::List) if items.is_empty() => continue,
                (Value::Array(items), Form::List) => {
                    items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(" , ")
                }
                (Value::String(text), _) => text.clone(),
                (other, _) => other.to_string(),
            };
            let read = config(needed, &[(&variable(key.path), &text)]).unwrap().read;
            assert_eq!(read.value(key.path), Some(&value), "{}", key.path);
        }
    }

    #[test]
    fn a_variable_takes_precedence_over_the_file_and_enables_its_section() {
        let text = "[answers]\nlisten = [\"127.0.0.1:1\"]\ndeadline = 7\n";
        let config = config(
            text,
            &[
                ("STERNPOST_ANSWERS_LISTEN", "0.0.0.0:8461, unix:/run/a.sock"),
                ("STERNPOST_HOST_ACME_DIRECTORY", "https://ca.example/"),
                ("STERNPOST_DOMAIN", "[{ name = \"a.example\", mode = \"testing\" }]"),
                ("STERNPOST_LOG_LEVEL", ""),
                ("STERNPOST_METRICS_LISTEN", "127.0.0.1:9"),
                ("HOME", "/root"),
            ],
        )
        .unwrap();
        let answers = config.answers.as_ref().unwrap();
        assert_eq!(
            answers.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["0.0.0.0:8461", "unix:/run/a.sock"]
        );
        assert_eq!(answers.settings.patience.as_secs(), 7);
        assert_eq!(config.host.as_ref().unwrap().authorities.len(), 1);
        assert_eq!((config.domains.len(), config.domains[0].mode), (1, Mode::Testing));
        assert_eq!((config.log_level.as_str(), config.warnings.len()), ("info", 0));
        let shown = config.to_toml();
        assert!(shown.contains("# environment variable STERNPOST_ANSWERS_LISTEN"), "{shown}");
        assert!(shown.contains("deadline = 7  # /etc/sternpost/s.toml, line 3"), "{shown}");
        let shown: serde_json::Value = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(shown["keys"]["metrics.listen"]["origin"], "STERNPOST_METRICS_LISTEN");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_with_its_size_and_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("large");
        let name = [("STERNPOST_LOG_LEVEL_FILE", file.to_str().unwrap())];
        std::fs::write(&file, format!("info{}", "\n".repeat(1 << 16))).unwrap();
        let refused = config("", &name).unwrap_err();
        assert!(refused.contains("it has more than 64 KiB"), "{refused}");
        std::fs::write(&file, format!("info{}", "\n".repeat((1 << 16) - 4))).unwrap();
        assert!(config("", &name).is_ok());
    }

    #[test]
    fn a_secret_is_read_from_the_file_that_a_variable_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("user");
        std::fs::write(&file, "relay-user\n").unwrap();
        let mut variables = vec![
            ("STERNPOST_REPORTER_FROM", "a@b.example"),
            ("STERNPOST_REPORTER_DELIVER", "smarthost:mail.example:587"),
            ("STERNPOST_REPORTER_USER_FILE", file.to_str().unwrap()),
            ("STERNPOST_REPORTER_PASSWORD_FILE", "/run/secrets/password"),
            // The value of the key is the file's name itself.
            ("STERNPOST_DASHBOARD_CERTIFICATE_FILE", "/run/secrets/web.pem"),
            ("STERNPOST_DASHBOARD_KEY_FILE", "/run/secrets/web.key"),
        ];
        let config_of = |variables: &[(&str, &str)]| config("", variables);
        let found = config_of(&variables).unwrap();
        assert_eq!(found.read.text("reporter.user"), Some("relay-user"));
        assert_eq!(found.read.text("reporter.password_file"), Some("/run/secrets/password"));
        assert_eq!(found.dashboard.unwrap().certificate.unwrap().key, Path::new("/run/secrets/web.key"));
        variables.push(("STERNPOST_REPORTER_USER", "other"));
        let error = config_of(&variables).unwrap_err();
        assert!(error.contains("both set reporter.user"), "{error}");
        let error = config_of(&[("STERNPOST_LOG_LEVEL_FILE", "/nonexistent")]).unwrap_err();
        assert!(
            error.contains("/nonexistent can't be read") && error.contains("STERNPOST_LOG_LEVEL_FILE"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_variable_is_a_warning_with_the_nearest_name_and_others_are_left_alone() {
        let warnings = |variables: &[(&str, &str)]| config("", variables).unwrap().warnings;
        let found = warnings(&[("STERNPOST_ANSWER_LISTEN", "x")]);
        assert!(
            found.len() == 1 && found[0].ends_with("did you mean STERNPOST_ANSWERS_LISTEN?"),
            "{found:?}"
        );
        let found = warnings(&[("STERNPOST_X", "x")]);
        assert!(found.len() == 1 && found[0].ends_with("is ignored"), "{found:?}");
        let foreign = [
            ("STERNPOST_TEST_ROOTS", "/x"),
            ("STERNPOST_CONFIG", "/x"),
            ("STERNPOST_PORT", "tcp://10.0.0.1:8461"),
            ("STERNPOST_SERVICE_HOST", "10.0.0.1"),
            ("STERNPOST_ANSWERS_SERVICE_PORT_SOCKETMAP", "8461"),
            ("STERNPOST_PORT_8461_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(warnings(&foreign), [] as [&str; 0]);
        let found = warnings(&[("STERNPOST_DOMAIN", "[{ name = \"a.example\", colour = 1 }]")]);
        assert_eq!(
            found,
            ["STERNPOST_DOMAIN: colour in [[domain]] is not known to this release and is ignored"]
        );
    }

    #[test]
    fn a_wrong_value_names_the_variable_and_what_it_takes() {
        for (name, value, what) in [
            ("STERNPOST_ANSWERS_LISTEN", "nowhere", "\"nowhere\" is not a valid listen address"),
            ("STERNPOST_ANSWERS_DEADLINE", "soon", "answers.deadline is a string"),
            ("STERNPOST_ANSWERS_DEADLINE", "1000", "1000 is out of range"),
            ("STERNPOST_ANSWERS_TLSRPT", "yes", "answers.tlsrpt takes true or false"),
            ("STERNPOST_DNS_DNSSEC", "validated", "Did you mean \"validate\"?"),
            ("STERNPOST_DOMAIN", "example.org", "domain takes tables"),
            ("STERNPOST_DOMAIN", "[]\n[log]", "not a single value"),
            ("STERNPOST_ADMIN_TOKEN_FILE", "$HOME/token", "not replaced"),
        ] {
            let error = config("", &[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("error: the environment variable {name}: ")), "{error}");
            assert!(error.contains(what), "{value}: {error}");
        }
    }
}
