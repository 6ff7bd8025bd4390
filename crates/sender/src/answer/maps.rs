//! Named sets of settings, which the name of a socketmap selects, so that the transports of one mail server can have
//! different requirements.
//!
//! The configuration (`[answers.maps.NAME]`) sets them; [`crate::serve::socketmap`] selects one for each request. Policies,
//! discovery and the store are common to all sets. A set only changes the decision, so its answers are cached under keys of
//! their own: `key` puts the name of the set before the next hop.

use super::settings::Settings;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The suffix of a map name that requests TLSRPT attributes (SMK-09). It is not a part of a set's name.
pub const TLSRPT_SUFFIX: &str = "withTLSRPT";

/// The named sets of settings in force.
#[derive(Debug, Default)]
pub struct Maps {
    /// The number of the reload that set them.
    pub(super) version: u64,
    sets: HashMap<String, Arc<Settings>>,
}

/// The set of settings that a map name selects.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// The name of the set.
    pub name: &'a str,
    /// True if the map gets the TLSRPT attributes of Postfix 3.10 (SMK-09).
    pub wants_tlsrpt: bool,
}

impl Maps {
    pub(super) fn new(version: u64, sets: BTreeMap<String, Settings>) -> Self {
        Self { version, sets: sets.into_iter().map(|(name, settings)| (name, Arc::new(settings))).collect() }
    }

    /// The set for a map name, without the suffix `withTLSRPT`; `None` if no set has the name, so that the default settings
    /// apply.
    pub fn select(&self, map: &str) -> Option<Selected<'_>> {
        let (name, has_suffix) = match map.strip_suffix(TLSRPT_SUFFIX) {
            Some(name) => (name, true),
            None => (map, false),
        };
        let (name, settings) = self.sets.get_key_value(name)?;
        Some(Selected { name, wants_tlsrpt: has_suffix || settings.tlsrpt })
    }

    /// The settings of a set.
    pub(super) fn settings(&self, name: &str) -> Option<&Arc<Settings>> {
        self.sets.get(name)
    }

    /// The names of the sets with their settings, in alphabetical order.
    pub(super) fn all(&self) -> BTreeMap<&str, &Arc<Settings>> {
        self.sets.iter().map(|(name, settings)| (name.as_str(), settings)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

/// The character between the set and the next hop in a key. No next hop and no name of a set has it.
const SEPARATOR: char = '\0';

/// The key of the cache for a next hop and a set of settings.
pub(super) fn key(set: &str, hop: &str) -> String {
    let mut key = String::with_capacity(set.len() + 1 + hop.len());
    key.push_str(set);
    key.push(SEPARATOR);
    key.push_str(hop);
    key
}

/// True for a key that is not a policy domain: one of a named set, of a single host, or with a port.
pub(super) fn is_variant(key: &str) -> bool {
    key.contains([SEPARATOR, '[', ':'])
}

/// The set and the next hop of a key; the set is `None` for the default settings.
pub(super) fn split(key: &str) -> (Option<&str>, &str) {
    match key.split_once(SEPARATOR) {
        Some((set, hop)) => (Some(set), hop),
        None => (None, key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_map_selects_a_set_with_and_without_the_suffix() {
        let reported = Settings { tlsrpt: true, ..Settings::default() };
        let sets = [("strict", Settings::default()), ("reported", reported)];
        let maps = Maps::new(1, sets.map(|(name, settings)| (name.to_owned(), settings)).into());
        let selected = |map| maps.select(map).map(|set| (set.name, set.wants_tlsrpt));
        assert_eq!(selected("strict"), Some(("strict", false)));
        assert_eq!(selected("strictwithTLSRPT"), Some(("strict", true)));
        assert_eq!(selected("reported"), Some(("reported", true)));
        for other in ["", "postfix", "Strict", "strict2", "QUERYwithTLSRPT", "withTLSRPT", "strict\0x"] {
            assert_eq!(selected(other), None, "{other}");
        }
        assert!(Maps::default().select("strict").is_none());
    }

    #[test]
    fn a_key_gives_its_set_and_its_next_hop_back() {
        assert_eq!(split(&key("strict", "example.org:587")), (Some("strict"), "example.org:587"));
        assert_eq!(split("example.org"), (None, "example.org"));
    }
}
