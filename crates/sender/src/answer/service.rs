//! The answer service: returns answers from the cache, or waits for a look-up.
//!
//! The protocols in [`crate::serve`] call [`PolicyService::hit`] and [`PolicyService::ask`]. All requests for one next
//! hop share a look-up (VAL-23). An answer that is due for a recheck is still returned, while a look-up runs in the
//! background.

use super::Discovery;
use super::cache::Cache;
use super::decide::{DefaultLevel, Source};
use super::entry::{ElapsedSeconds, Entry};
use super::in_flight::{InFlight, Purpose};
use super::metrics::Metrics;
use super::overrides::Overrides;
use super::route::{DaneHosts, NextHop};
use super::sts::HeldPolicy;
use formats::limits::{BACKGROUND_LOOKUPS, LOOKUPS, RECORD_RECHECK};
use formats::tls_policy::{Answer, Level, LookupKey};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::Dns;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::Store;
use tokio::sync::Semaphore;

/// The settings that a reload of the configuration can change.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Send TLSRPT attributes for every map, not only for those whose name requests them.
    pub tlsrpt: bool,
    /// The maximum time that a request waits for a look-up before it gets a temporary failure.
    pub patience: Duration,
    /// The minimum time between two look-ups of a next hop; it applies when the TTL is shorter.
    pub recheck: Duration,
    /// The level for domains whose policy is in `testing`; `None` lets the mail server use its default level.
    pub testing: Option<Level>,
    /// The mail server's default TLS level.
    pub default_level: DefaultLevel,
    /// The operator's override table.
    pub overrides: Overrides,
    /// The time without use after which a policy is no longer refreshed; `None` refreshes every policy.
    pub unused: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tlsrpt: false,
            patience: Duration::from_secs(20),
            recheck: RECORD_RECHECK,
            testing: None,
            default_level: DefaultLevel::May,
            overrides: Overrides::default(),
            unused: Some(UNUSED_AFTER),
        }
    }
}

/// The default of [`Settings::unused`].
const UNUSED_AFTER: Duration = Duration::from_secs(90 * 86_400);

/// The answer service.
pub struct PolicyService {
    pub(super) dns: Arc<dyn Dns>,
    pub(super) discovery: Discovery,
    pub(super) store: Store,
    clock: Arc<dyn Clock>,
    /// The cache of answers.
    pub cache: Cache,
    /// The metrics of the service.
    pub metrics: Metrics,
    tlsrpt: AtomicBool,
    settings: RwLock<Arc<Settings>>,
    pub(super) in_flight: Arc<InFlight>,
    /// Limits look-ups that requests wait for.
    pub(super) request_permits: Arc<Semaphore>,
    /// Limits look-ups in the background.
    background_permits: Arc<Semaphore>,
    /// The answer for keys that never have a policy.
    not_found: Arc<Entry>,
}

impl PolicyService {
    /// A service whose cache holds up to `cache_bytes` bytes.
    pub fn new(
        dns: Arc<dyn Dns>,
        discovery: Discovery,
        store: Store,
        clock: Arc<dyn Clock>,
        cache_bytes: u64,
        settings: Settings,
    ) -> Arc<Self> {
        let not_found =
            Entry::new(&Answer::NotFound, Source::NoPolicy, DaneHosts::default(), 0, ElapsedSeconds::MAX);
        let new = Self {
            dns,
            discovery,
            store,
            clock,
            cache: Cache::new(cache_bytes),
            metrics: Metrics::new(),
            tlsrpt: AtomicBool::new(settings.tlsrpt),
            settings: RwLock::new(Arc::new(settings)),
            in_flight: Arc::default(),
            request_permits: Arc::new(Semaphore::new(LOOKUPS)),
            background_permits: Arc::new(Semaphore::new(BACKGROUND_LOOKUPS)),
            not_found: Arc::new(not_found),
        };
        new.metrics.store_up.set(1);
        Arc::new(new)
    }

    /// Replaces the settings and clears the cache. Policies stay in the store. Look-ups in flight end for the requests
    /// that already wait for them; later requests start new ones.
    pub fn set(&self, settings: Settings) {
        self.tlsrpt.store(settings.tlsrpt, Ordering::Relaxed);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.in_flight.outdate_all(|| self.cache.clear());
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True if clients of this map get the TLSRPT attributes of Postfix 3.10 (SMK-09).
    pub fn wants_tlsrpt(&self, map: &str) -> bool {
        map.ends_with("withTLSRPT") || self.tlsrpt.load(Ordering::Relaxed)
    }

    /// The cached answer for a key; `None` when there is none or it has expired. It neither allocates nor waits, unless
    /// a recheck is due and starts in the background.
    pub fn hit(self: &Arc<Self>, key: &str) -> Option<Arc<Entry>> {
        let entry = self.cache.get(key)?;
        let now = self.second();
        if now >= entry.recheck {
            if now >= entry.until {
                return None;
            }
            self.recheck_in_background(key, &entry);
        }
        self.metrics.answered(entry.status, entry.source);
        Some(entry)
    }

    /// The answer for a key, from the cache or from a look-up. A look-up that takes longer than [`Settings::patience`]
    /// continues in the background, and the request gets a temporary failure (SMK-13).
    pub async fn ask(self: &Arc<Self>, key: &str) -> Arc<Entry> {
        if let Some(entry) = self.hit(key) {
            return entry;
        }
        let Ok(Some(hop)) = LookupKey::parse(key).map(NextHop::of) else {
            self.metrics.trivial.inc();
            self.metrics.answered(self.not_found.status, Source::NoPolicy);
            return self.not_found.clone();
        };
        let name = hop.to_string();
        if name != key
            && let Some(entry) = self.hit(&name)
        {
            return entry;
        }
        self.metrics.misses.inc();
        let started = self.clock.elapsed();
        let patience = self.settings().patience;
        let mut pending = self.look_up(hop, name, Purpose::Request, None);
        let entry = match tokio::time::timeout(patience, pending.wait_for(Option::is_some)).await {
            Ok(Ok(entry)) => entry.clone(),
            _ => None,
        };
        let entry = entry.unwrap_or_else(|| self.timed_out(key, patience));
        self.metrics.miss_seconds.observe(self.clock.elapsed().saturating_sub(started).as_secs_f64());
        self.metrics.answered(entry.status, entry.source);
        entry
    }

    fn timed_out(&self, key: &str, patience: Duration) -> Arc<Entry> {
        let reason = format!(
            "the policy of {key} is still being looked up after {} seconds; retry later",
            patience.as_secs()
        );
        let now = self.second();
        Arc::new(Entry::new(&Answer::Temp(reason), Source::Failure, DaneHosts::default(), now, now))
    }

    fn recheck_in_background(self: &Arc<Self>, key: &str, entry: &Entry) {
        if !entry.claim_recheck() {
            return;
        }
        let hop = LookupKey::parse(key).ok().and_then(NextHop::of);
        match (hop, self.background_permits.clone().try_acquire_owned()) {
            (Some(hop), Ok(permit)) => {
                self.look_up(hop, key.to_owned(), Purpose::Recheck, Some(permit));
            }
            _ => entry.release_recheck(),
        }
    }

    /// Looks up a next hop without using the cache, and returns the outcome; `None` when the look-up panicked.
    pub(super) async fn look_up_anew(self: &Arc<Self>, hop: NextHop, purpose: Purpose) -> Option<Arc<Entry>> {
        let name = hop.to_string();
        let mut pending = self.look_up(hop, name, purpose, None);
        let entry = pending.wait_for(Option::is_some).await.ok()?;
        entry.clone()
    }

    /// Looks up a next hop at the operator's request, without using the cache, and fetches its policy if one is announced.
    /// Returns `None` when the look-up panicked.
    pub fn refresh<'a>(self: &'a Arc<Self>, hop: NextHop) -> BoxFuture<'a, Option<Arc<Entry>>> {
        Box::pin(async move {
            self.discovery.fetch_at_next_look_up(hop.policy_domain());
            self.look_up_anew(hop, Purpose::Operator).await
        })
    }

    /// Deletes everything about a next hop from the cache and the store. Returns true if there was anything. Look-ups
    /// of the domain that are in flight neither cache nor store their outcome.
    pub fn purge<'a>(&'a self, hop: &'a NextHop) -> BoxFuture<'a, Result<bool, store::StoreError>> {
        Box::pin(async move {
            let (name, domain) = (hop.to_string(), hop.policy_domain());
            let mut cached = false;
            for flight in self.in_flight.outdate(domain, || cached = self.cache.remove(&name)) {
                flight.purge().await;
            }
            self.discovery.forget(domain);
            let stored = self.store.delete_policy(domain).await?;
            // A look-up that started meanwhile may have read the policy before it was deleted.
            self.in_flight.outdate(domain, || cached |= self.cache.remove(&name));
            Ok(stored || cached)
        })
    }

    /// The live policy in the store for a domain, with its remaining lifetime.
    pub async fn remembered(&self, domain: &formats::DomainName) -> Option<(HeldPolicy, Duration)> {
        let held = self.discovery.live(&self.discovery.stored(domain).await?)?;
        let remaining = self.discovery.remaining_life(&held);
        Some((held, remaining))
    }

    /// True if no look-up is in flight.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.in_flight.len() == 0
    }

    /// The store of policies.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The current time, in the unit of [`Entry::recheck`] and [`Entry::until`].
    pub fn second(&self) -> ElapsedSeconds {
        ElapsedSeconds::try_from(self.clock.elapsed().as_secs()).unwrap_or(ElapsedSeconds::MAX)
    }
}

#[cfg(test)]
mod tests;
