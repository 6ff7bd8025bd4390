//! The cache of answers in memory, bounded by bytes.
//!
//! The map evicts by S3-FIFO: rarely used answers go first, and a flood of new names does not evict answers in
//! use. Policies are kept in the store, so eviction loses none (VAL-26).

use super::entry::Entry;
use super::maps;
use super::route::NextHop;
use formats::DomainName;
use formats::tls_policy::LookupKey;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Map;
use quick_cache::sync::DefaultLifecycle;
use std::collections::HashSet;
use std::hash::RandomState;
use std::sync::Arc;

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
pub struct Cache(Map<Box<str>, Arc<Entry>, Bytes, RandomState>);

/// The typical size of an entry in bytes, to estimate the capacity of the map.
const TYPICAL_ENTRY_BYTES: u64 = 300;

impl Cache {
    /// An empty cache that holds up to `bytes` bytes.
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX).max(16);
        Self(Map::with(items, bytes, Bytes, RandomState::new(), DefaultLifecycle::default()))
    }

    /// The answer under a key, which may have expired.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.0.get(key)
    }

    /// True if the cache has an answer under a key. Does not count as use.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Inserts an answer, replacing any answer under the same key.
    pub fn put(&self, key: &str, entry: Arc<Entry>) {
        self.0.insert(key.into(), entry);
    }

    /// Removes an answer. Returns true if there was one.
    pub fn remove(&self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    /// Removes the answers for next hops whose policy domain is one of these, with any port and under every set of settings.
    pub fn remove_domains(&self, domains: &HashSet<DomainName>) {
        self.0.retain(|key, _| {
            let hop = LookupKey::parse(maps::split(key).1).ok().and_then(NextHop::of);
            !hop.is_some_and(|hop| domains.contains(hop.policy_domain()))
        });
    }

    /// Removes all answers.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// The number of answers.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if the cache has no answers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of bytes in use.
    pub fn bytes(&self) -> u64 {
        self.0.weight()
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
            cache.put(key, Arc::new(entry));
        }
        cache.remove_domains(&[DomainName::parse("a.example").unwrap()].into());
        assert_eq!(cache.len(), others.len());
        assert!(others.iter().all(|key| cache.contains(key)));
    }

    #[test]
    fn a_flood_of_names_stays_within_the_bytes_and_does_not_evict_an_answer_in_use() {
        let cache = Cache::new(200_000);
        let entry = || Arc::new(Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, 0));
        cache.put("in-use.example", entry());
        // Set FLOOD=10000000 for a long run.
        let flood = std::env::var("FLOOD").ok().map_or(50_000, |text| text.parse::<u32>().unwrap());
        for number in 0..flood {
            cache.put(&format!("flood{number}.example"), entry());
            assert!(cache.bytes() <= 200_000);
            assert!(cache.get("in-use.example").is_some(), "after {number}");
        }
        assert!(cache.len() < 2000 && cache.len() > 200, "{}", cache.len());
    }
}
