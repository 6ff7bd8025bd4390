//! Answers in memory, bounded by bytes. What is seldom asked for gives way first, and a flood of new
//! names does not push out what is in use (the map admits by S3-FIFO). Policies do not live here but
//! in the store, so nothing is lost by eviction (VAL-26).

use super::entry::Entry;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Map;
use quick_cache::sync::DefaultLifecycle;
use std::hash::RandomState;
use std::sync::Arc;

#[derive(Clone)]
struct Bytes;

impl Weighter<Box<str>, Arc<Entry>> for Bytes {
    fn weight(&self, key: &Box<str>, entry: &Arc<Entry>) -> u64 {
        entry.weight(key)
    }
}

/// Answers by the next hop's one form ([`super::route::NextHop`]).
///
/// Whoever sends mail through here chooses the keys, so the hash is the standard library's keyed one.
pub struct Cache(Map<Box<str>, Arc<Entry>, Bytes, RandomState>);

/// About the bytes of one entry, to lay out the map.
const TYPICAL_ENTRY_BYTES: u64 = 300;

impl Cache {
    /// An empty cache of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL_ENTRY_BYTES).unwrap_or(usize::MAX).max(16);
        Self(Map::with(items, bytes, Bytes, RandomState::new(), DefaultLifecycle::default()))
    }

    /// The answer under a key.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.0.get(key)
    }

    /// True when there is an answer under a key. Does not count as use.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Puts an answer in place of any other.
    pub fn put(&self, key: &str, entry: Arc<Entry>) {
        self.0.insert(key.into(), entry);
    }

    /// Takes an answer out; says whether there was one.
    pub fn remove(&self, key: &str) -> bool {
        self.0.remove(key).is_some()
    }

    /// Takes all answers out.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Answers in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in use.
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
    fn a_flood_of_names_stays_within_the_bytes_and_leaves_what_is_in_use() {
        let cache = Cache::new(200_000);
        let entry = || Arc::new(Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, 0));
        cache.put("in-use.example", entry());
        // FLOOD=10000000 is the long run.
        let flood = std::env::var("FLOOD").ok().map_or(50_000, |text| text.parse::<u32>().unwrap());
        for number in 0..flood {
            cache.put(&format!("flood{number}.example"), entry());
            assert!(cache.bytes() <= 200_000);
            assert!(cache.get("in-use.example").is_some(), "after {number}");
        }
        assert!(cache.len() < 2000 && cache.len() > 200, "{}", cache.len());
    }
}
