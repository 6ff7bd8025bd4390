//! The cache of answers in memory, bounded by bytes.
//!
//! The map evicts by S3-FIFO: rarely used answers go first, and a flood of new names does not evict answers in
//! use. Policies are kept in the store, so eviction loses none (VAL-26).

use super::entry::Entry;
use super::maps;
use super::route::NextHop;
use formats::DomainName;
use formats::tls_policy::LookupKey;
use quick_cache::sync::Cache as Map;
use quick_cache::{Lifecycle, Weighter};
use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Clone)]
struct Bytes;

impl Weighter<Box<str>, Arc<Entry>> for Bytes {
    fn weight(&self, key: &Box<str>, entry: &Arc<Entry>) -> u64 {
        let index = if maps::is_variant(key) { VARIANT_BYTES + 2 * key.len() as u64 } else { 0 };
        entry.weight(key) + index
    }
}

/// Collects the keys that an insertion evicts, and the one that it replaces.
#[derive(Clone)]
struct Evictions;

impl Lifecycle<Box<str>, Arc<Entry>> for Evictions {
    type RequestState = Vec<Box<str>>;

    fn on_evict(&self, evicted: &mut Vec<Box<str>>, key: Box<str>, _: Arc<Entry>) {
        evicted.push(key);
    }
}

/// Answers by next hop, in the canonical form that [`super::route::NextHop`] displays. For a set of settings other than the
/// default, the key begins with its name ([`super::maps`]).
///
/// Anyone who sends mail through this server can choose keys, so the map uses the standard library's keyed hash.
pub struct Cache {
    map: Map<Box<str>, Arc<Entry>, Bytes, RandomState, Evictions>,
    /// The keys in the map that differ from their policy domain, such as `example.org:587`, by that domain. It is locked
    /// while the map changes, so that both have the same keys.
    variants: Mutex<Variants>,
}

type Variants = HashMap<DomainName, HashSet<Box<str>>>;

/// The approximate memory of a key in [`Cache::variants`], in bytes, without the texts.
const VARIANT_BYTES: u64 = 256;

/// The typical size of an entry in bytes, to estimate the capacity of the map.
const TYPICAL_ENTRY_BYTES: u64 = 300;

impl Cache {
    /// An empty cache that holds up to `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX).max(16);
        let map = Map::with(items, bytes, Bytes, RandomState::new(), Evictions);
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
        let mut variants = self.variants();
        if maps::is_variant(key) {
            variants.entry(domain.clone()).or_default().insert(key.into());
        }
        let mut evicted = Vec::new();
        self.map.insert_with_lifecycle(key.into(), entry, &mut evicted);
        // The answer that was replaced is among them.
        for key in evicted.iter().filter(|key| !self.map.contains_key(&***key)) {
            forget(&mut variants, key);
        }
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
        let removed = keys.iter().filter(|key| Some(&***key) != except && self.map.remove(&***key).is_some());
        removed.count() > 0
    }

    fn variants(&self) -> MutexGuard<'_, Variants> {
        self.variants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes an answer. Returns true if there was one.
    pub fn remove(&self, key: &str) -> bool {
        let mut variants = self.variants();
        forget(&mut variants, key);
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
        let mut variants = self.variants();
        variants.clear();
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

/// Removes a key from the index.
fn forget(variants: &mut Variants, key: &str) {
    if !maps::is_variant(key) {
        return;
    }
    let Some(hop) = LookupKey::parse(maps::split(key).1).ok().and_then(NextHop::of) else { return };
    if let Some(keys) = variants.get_mut(hop.policy_domain()) {
        keys.remove(key);
        if keys.is_empty() {
            variants.remove(hop.policy_domain());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::decide::Source;
    use crate::answer::route::DaneHosts;
    use formats::tls_policy::Answer;

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
    fn a_domain_is_removed_with_all_its_next_hops() {
        let cache = Cache::new(100_000_000);
        let entry = || Arc::new(Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, 0));
        let domain = |name: &str| DomainName::parse(name).unwrap();
        let (one, other) = (domain("one.example"), domain("other.example"));
        for key in ["one.example", "one.example:587", "[one.example]"] {
            cache.put(&one, key, entry());
            cache.put(&one, key, entry());
        }
        cache.put(&other, "other.example:587", entry());
        assert!(cache.remove_domain(&one, Some("[one.example]")));
        assert!(cache.contains("[one.example]") && cache.contains("other.example:587"));
        assert_eq!(cache.len(), 2);
        assert!(cache.remove_domain(&one, None) && !cache.remove_domain(&one, None));
    }

    /// The number of keys in the index, of which each must be in the map.
    fn indexed(cache: &Cache) -> usize {
        let variants = cache.variants();
        assert!(variants.values().all(|keys| !keys.is_empty()));
        let keys: Vec<_> = variants.values().flatten().collect();
        assert!(keys.iter().all(|key| cache.contains(key)));
        keys.len()
    }

    #[test]
    fn the_answers_of_a_named_map_are_evicted_one_by_one_and_only_for_want_of_memory() {
        let entry = || Arc::new(Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, 0));
        let put = |cache: &Cache, name: &str| {
            cache.put(&DomainName::parse(name).unwrap(), &maps::key("strict", name), entry());
        };
        let large = Cache::new(100_000_000);
        for number in 0..30_000 {
            put(&large, &format!("d{number}.example"));
        }
        assert_eq!((large.len(), indexed(&large)), (30_000, 30_000));
        for number in 0..15_000 {
            assert!(large.remove(&maps::key("strict", &format!("d{number}.example"))));
        }
        assert_eq!((large.len(), indexed(&large)), (15_000, 15_000));
        let small = Cache::new(200_000);
        let mut least = usize::MAX;
        for number in 0..5000 {
            put(&small, &format!("d{number}.example"));
            if number > 1000 {
                least = least.min(small.len());
            }
        }
        assert_eq!(indexed(&small), small.len());
        assert!(least > 100 && small.bytes() <= 200_000, "{least}");
        small.clear();
        assert_eq!((indexed(&small), small.len()), (0, 0));
    }
}
