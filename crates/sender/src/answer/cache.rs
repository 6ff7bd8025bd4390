//! The cache of answers in memory, bounded by bytes.
//!
//! The map evicts by S3-FIFO: rarely used answers go first, and a flood of new names does not evict answers in
//! use. Policies are kept in the store, so eviction loses none (VAL-26).

use super::entry::Entry;
use formats::DomainName;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Map;
use quick_cache::sync::DefaultLifecycle;
use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone)]
struct Bytes;

impl Weighter<Box<str>, Arc<Entry>> for Bytes {
    fn weight(&self, key: &Box<str>, entry: &Arc<Entry>) -> u64 {
        entry.weight(key)
    }
}

/// Answers by next hop, in the canonical form that [`super::route::NextHop`] displays. For a set of settings other than the
/// default, the key begins with its name ([`super::maps`]).
///
/// Anyone who sends mail through this server can choose keys, so the map uses the standard library's keyed hash.
pub struct Cache {
    map: Map<Box<str>, Arc<Entry>, Bytes, RandomState>,
    /// The keys that differ from their policy domain, such as `example.org:587`, by that domain.
    variants: Mutex<HashMap<DomainName, HashSet<Box<str>>>>,
}

/// The maximum number of domains in [`Cache::variants`], and of keys for each. Beyond it, the answers under all of them
/// are removed. Mail servers rarely use such keys.
const MAX_VARIANTS: usize = 10_000;

/// The typical size of an entry in bytes, to estimate the capacity of the map.
const TYPICAL_ENTRY_BYTES: u64 = 300;

impl Cache {
    /// An empty cache that holds up to `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX).max(16);
        let map = Map::with(items, bytes, Bytes, RandomState::new(), DefaultLifecycle::default());
        Self { map, variants: Mutex::default() }
    }

    /// The answer under a key, which may have expired.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.map.get(key)
    }

    /// True if the cache has an answer under a key. Does not count as use.
    pub fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Inserts an answer for a next hop of this policy domain, replacing any answer under the same key.
    pub fn put(&self, domain: &DomainName, key: &str, entry: Arc<Entry>) {
        if key != domain.as_str() {
            self.note_variant(domain, key);
        }
        self.map.insert(key.into(), entry);
    }

    fn note_variant(&self, domain: &DomainName, key: &str) {
        let mut variants = self.variants();
        let is_full = match variants.get(domain) {
            Some(keys) => keys.len() >= MAX_VARIANTS && !keys.contains(key),
            None => variants.len() >= MAX_VARIANTS,
        };
        if is_full {
            for key in variants.drain().flat_map(|(_, keys)| keys) {
                self.map.remove(&*key);
            }
        }
        variants.entry(domain.clone()).or_default().insert(key.into());
    }

    /// Removes the answers for all next hops of a policy domain, except the one under the key `except`. Returns true if
    /// there was any.
    pub fn remove_domain(&self, domain: &DomainName, except: Option<&str>) -> bool {
        let mut variants = self.variants();
        let mut keys = variants.remove(domain).unwrap_or_default();
        if let Some(kept) = except.and_then(|except| keys.take(except)) {
            variants.insert(domain.clone(), HashSet::from([kept]));
        }
        keys.insert(domain.as_str().into());
        let removed = keys.iter().filter(|key| Some(&***key) != except && self.remove(key));
        removed.count() > 0
    }

    fn variants(&self) -> MutexGuard<'_, HashMap<DomainName, HashSet<Box<str>>>> {
        self.variants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an answer. Returns true if there was one.
    pub fn remove(&self, key: &str) -> bool {
        self.map.remove(key).is_some()
    }

    /// Removes the answers for all next hops of these policy domains, under every set of settings.
    pub fn remove_domains(&self, domains: &HashSet<DomainName>) {
        for domain in domains {
            self.remove_domain(domain, None);
        }
    }

    /// Removes all answers.
    pub fn clear(&self) {
        self.variants().clear();
        self.map.clear();
    }

    /// The number of answers.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True if the cache has no answers.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The number of bytes in use.
    pub fn bytes(&self) -> u64 {
        self.map.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::decide::Source;
    use crate::answer::maps;
    use crate::answer::route::{DaneHosts, NextHop};
    use formats::tls_policy::{Answer, LookupKey};

    #[test]
    fn the_answers_of_a_domain_are_removed_under_each_of_its_keys() {
        let cache = Cache::new(200_000);
        let own = ["a.example", "a.example:587", "[a.example]", "[a.example]:26"].map(str::to_owned);
        let named = own.each_ref().map(|name| maps::key("strict", name));
        let others = ["b.example", "sub.a.example", "[b.example]:25"].map(str::to_owned);
        for key in own.iter().chain(&named).chain(&others) {
            let entry = Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, 0);
            let hop = LookupKey::parse(maps::split(key).1).ok().and_then(NextHop::of).unwrap();
            cache.put(hop.policy_domain(), key, Arc::new(entry));
        }
        cache.remove_domains(&[DomainName::parse("a.example").unwrap()].into());
        assert_eq!(cache.len(), others.len());
        assert!(others.iter().all(|key| cache.contains(key)));
    }

    #[test]
    fn a_flood_of_names_stays_within_the_bytes_and_does_not_evict_an_answer_in_use() {
        let cache = Cache::new(200_000);
        let entry = || Arc::new(Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, 0));
        let put = |name: &str| cache.put(&DomainName::parse(name).unwrap(), name, entry());
        put("in-use.example");
        // Set FLOOD=10000000 for a long run.
        let flood = std::env::var("FLOOD").ok().map_or(50_000, |text| text.parse::<u32>().unwrap());
        for number in 0..flood {
            put(&format!("flood{number}.example"));
            assert!(cache.bytes() <= 200_000);
            assert!(cache.get("in-use.example").is_some(), "after {number}");
        }
        assert!(cache.len() < 2000 && cache.len() > 200, "{}", cache.len());
    }

    #[test]
    fn a_domain_is_removed_with_all_its_next_hops_and_their_number_is_bounded() {
        let cache = Cache::new(100_000_000);
        let entry = || Arc::new(Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, 0));
        let domain = |name: &str| DomainName::parse(name).unwrap();
        let (one, other) = (domain("one.example"), domain("other.example"));
        for key in ["one.example", "one.example:587", "[one.example]"] {
            cache.put(&one, key, entry());
        }
        cache.put(&other, "other.example:587", entry());
        assert!(cache.remove_domain(&one, Some("[one.example]")));
        assert!(cache.contains("[one.example]") && cache.contains("other.example:587"));
        assert_eq!(cache.len(), 2);
        assert!(cache.remove_domain(&one, None) && !cache.remove_domain(&one, None));
        for number in 0..MAX_VARIANTS {
            cache.put(&domain(&format!("d{number}.example")), "key", entry());
            cache.put(&other, &format!("other.example:{number}"), entry());
        }
        assert!(cache.variants().len() <= MAX_VARIANTS && cache.len() <= 2 * MAX_VARIANTS);
        assert!(cache.remove_domain(&other, None));
        assert!(!cache.contains("other.example:9999"));
    }
}
