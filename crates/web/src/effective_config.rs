//! The effective configuration for the settings page: by section, with what differs from the default first and the defaults
//! folded.

use config::{Config, KEYS};
use serde_json::Value;
use std::collections::BTreeMap;

/// The configuration as the settings page shows it.
pub struct ConfigView {
    /// The sections of enabled roles, those with settings first.
    pub sections: Vec<ConfigSection>,
    /// The roles that are off.
    pub off: Vec<&'static str>,
    /// The number of domains, also of those in the store.
    pub domains: usize,
    /// The configuration file; empty if there is none.
    pub file: String,
}

impl ConfigView {
    /// The view of a configuration.
    pub fn new(config: &Config, domains: usize) -> Self {
        let (sections, off) = sections(config);
        let file = config.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        Self { sections, off, domains, file }
    }
}

/// A section of the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigSection {
    /// The name; empty for keys without a section.
    pub name: &'static str,
    /// The keys that are set.
    pub set: Vec<Setting>,
    /// The keys that have their defaults.
    pub defaults: Vec<Setting>,
}

/// A configuration key with its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: &'static str,
    /// The value in TOML, or what it means that there is none.
    pub value: String,
    /// True if there is a value.
    pub has_value: bool,
    /// The line of the configuration file; empty for a default.
    pub line: String,
    /// What the key is for.
    pub about: &'static str,
}

/// The sections of enabled roles, those with settings first, and the names of the roles that are off.
fn sections(config: &Config) -> (Vec<ConfigSection>, Vec<&'static str>) {
    let roles = [
        ("answers", config.answers.is_some()),
        ("host", config.host.is_some()),
        ("guard", config.guard.is_some()),
        ("inbox", config.inbox.is_some()),
        ("collector", config.collector.is_some()),
        ("reporter", config.reporter.is_some()),
        ("dashboard", config.dashboard.is_some()),
        ("admin", config.admin.is_some()),
    ];
    let off: Vec<&str> = roles.into_iter().filter(|(_, is_on)| !is_on).map(|(name, _)| name).collect();
    let values: Value = serde_json::from_str(&config.to_json()).unwrap_or_default();
    let mut sections: BTreeMap<&str, ConfigSection> = BTreeMap::new();
    // The domains have a page of their own.
    for key in KEYS.iter().filter(|key| key.path != "domain") {
        let (name, short) = key.path.split_once('.').unwrap_or(("", key.path));
        if off.contains(&name) {
            continue;
        }
        let entry = values.get("keys").and_then(|keys| keys.get(key.path));
        let value = entry.and_then(|entry| entry.get("value")).filter(|value| !value.is_null());
        let origin = entry.and_then(|entry| entry.get("origin")).and_then(Value::as_str).unwrap_or("default");
        let setting = Setting {
            key: short,
            value: value.map_or(key.unset.to_owned(), Value::to_string),
            has_value: value.is_some(),
            line: origin.rsplit_once(':').map_or(String::new(), |(_, line)| line.to_owned()),
            about: key.about,
        };
        let empty = || ConfigSection { name, set: Vec::new(), defaults: Vec::new() };
        let section = sections.entry(name).or_insert_with(empty);
        if origin == "default" { section.defaults.push(setting) } else { section.set.push(setting) }
    }
    let mut sections: Vec<ConfigSection> = sections.into_values().collect();
    sections.sort_by_key(|section| section.set.is_empty());
    (sections, off)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_the_default_comes_first_and_roles_that_are_off_have_no_section() {
        let text = "[dashboard]\nurl = \"https://mail.example.org\"\n[gate]\nclean_days = 9\n";
        let config = Config::parse(text, None).unwrap();
        let (sections, off) = sections(&config);
        assert!(off.contains(&"answers") && !off.contains(&"dashboard"));
        let first: Vec<&str> =
            sections.iter().take_while(|one| !one.set.is_empty()).map(|one| one.name).collect();
        assert_eq!(first, ["dashboard", "gate"]);
        let gate = sections.iter().find(|one| one.name == "gate").unwrap();
        assert_eq!(
            (gate.set[0].key, gate.set[0].value.as_str(), gate.set[0].line.as_str()),
            ("clean_days", "9", "4")
        );
        assert!(gate.defaults.iter().any(|one| one.key == "senders" && one.value == "3"));
        assert!(sections.iter().all(|one| one.name != "answers"));
    }
}
