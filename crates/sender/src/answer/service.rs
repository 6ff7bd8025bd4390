//! Answers for mail servers: from memory when they are there, else by one look-up however many ask
//! (VAL-23), and looked up again in the background before they grow old.

use super::Discovery;
use super::cache::Cache;
use super::decide::Source;
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::Store;
use tokio::sync::Semaphore;

/// What the operator can change while it runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Attributes for TLS reports also to maps whose name does not ask for them.
    pub tlsrpt: bool,
    /// How long an asker waits for a look-up before it is told to come again.
    pub patience: Duration,
    /// A record is not looked at again sooner.
    pub recheck: Duration,
    /// The level for domains in `testing`; none leaves them to the mail server.
    pub testing: Option<Level>,
    /// The operator's table.
    pub overrides: Overrides,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tlsrpt: false,
            patience: Duration::from_secs(20),
            recheck: RECORD_RECHECK,
            testing: None,
            overrides: Overrides::default(),
        }
    }
}

/// Answers for mail servers.
pub struct Answers {
    pub(super) dns: Arc<dyn Dns>,
    pub(super) discovery: Discovery,
    pub(super) store: Store,
    clock: Arc<dyn Clock>,
    /// The answers in memory.
    pub cache: Cache,
    /// What is counted.
    pub metrics: Metrics,
    tlsrpt: AtomicBool,
    settings: RwLock<Arc<Settings>>,
    /// Goes up at each change of the settings, so that what was looked up before is not kept.
    pub(super) generation: AtomicU64,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) asked: Arc<Semaphore>,
    background: Arc<Semaphore>,
    nothing: Arc<Entry>,
}

impl Answers {
    /// Answers by these means, with so many bytes of memory for them. It needs a runtime.
    pub fn new(
        dns: Arc<dyn Dns>,
        discovery: Discovery,
        store: Store,
        clock: Arc<dyn Clock>,
        cache_bytes: u64,
        settings: Settings,
    ) -> Arc<Self> {
        let nothing =
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
            generation: AtomicU64::new(0),
            in_flight: Arc::default(),
            asked: Arc::new(Semaphore::new(LOOKUPS)),
            background: Arc::new(Semaphore::new(BACKGROUND_LOOKUPS)),
            nothing: Arc::new(nothing),
        };
        new.metrics.store_up.set(1);
        Arc::new(new)
    }

    /// Changes the settings. Answers are made anew, from what is remembered.
    pub fn set(&self, settings: Settings) {
        self.tlsrpt.store(settings.tlsrpt, Ordering::Relaxed);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.cache.clear();
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True when a map of this name gets the attributes of Postfix 3.10 (SMK-09).
    pub fn reports(&self, map: &str) -> bool {
        map.ends_with("withTLSRPT") || self.tlsrpt.load(Ordering::Relaxed)
    }

    /// The answer under a key, if it is in memory and good. Costs no allocation and waits for nothing.
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

    /// The answer under a key, looked up when it is not in memory. A look-up that takes longer than
    /// an asker's patience goes on without it, and the asker is told to come again (SMK-13).
    pub async fn ask(self: &Arc<Self>, key: &str) -> Arc<Entry> {
        if let Some(entry) = self.hit(key) {
            return entry;
        }
        let Ok(Some(hop)) = LookupKey::parse(key).map(NextHop::of) else {
            self.metrics.trivial.inc();
            self.metrics.answered(self.nothing.status, Source::NoPolicy);
            return self.nothing.clone();
        };
        let name = hop.to_string();
        if name != key
            && let Some(entry) = self.hit(&name)
        {
            return entry;
        }
        self.metrics.misses.inc();
        let begun = self.clock.elapsed();
        let patience = self.settings().patience;
        let mut flight = self.look_up(hop, name, Purpose::Asked, None);
        let entry = match tokio::time::timeout(patience, flight.wait_for(Option::is_some)).await {
            Ok(Ok(entry)) => entry.clone(),
            _ => None,
        };
        let entry = entry.unwrap_or_else(|| self.not_yet(key, patience));
        self.metrics.miss_seconds.observe(self.clock.elapsed().saturating_sub(begun).as_secs_f64());
        self.metrics.answered(entry.status, entry.source);
        entry
    }

    fn not_yet(&self, key: &str, patience: Duration) -> Arc<Entry> {
        let reason = format!(
            "the policy of {key} is still being looked up after {} seconds; it will be known at the next try",
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
        match (hop, self.background.clone().try_acquire_owned()) {
            (Some(hop), Ok(permit)) => {
                self.look_up(hop, key.to_owned(), Purpose::Recheck, Some(permit));
            }
            _ => entry.release_recheck(),
        }
    }

    /// Looks up anew and returns when that is done.
    pub(super) async fn look_again(self: &Arc<Self>, hop: NextHop, purpose: Purpose) -> Option<Arc<Entry>> {
        let name = hop.to_string();
        let mut flight = self.look_up(hop, name, purpose, None);
        let entry = flight.wait_for(Option::is_some).await.ok()?;
        entry.clone()
    }

    /// Looks a next hop up anew, whatever is in memory, as an operator asks for it.
    pub fn refresh<'a>(self: &'a Arc<Self>, hop: NextHop) -> BoxFuture<'a, Option<Arc<Entry>>> {
        Box::pin(async move {
            self.discovery.forget_failure(hop.policy_domain());
            self.look_again(hop, Purpose::Recheck).await
        })
    }

    /// Forgets a next hop, in memory and in the store; says whether it was known.
    pub fn purge<'a>(&'a self, hop: &'a NextHop) -> BoxFuture<'a, Result<bool, store::StoreError>> {
        Box::pin(async move {
            let cached = self.cache.remove(&hop.to_string());
            self.discovery.forget(hop.policy_domain());
            Ok(self.store.forget_policy(hop.policy_domain()).await? || cached)
        })
    }

    /// The policy that is remembered of a domain, with how long it has yet to live.
    pub async fn remembered(&self, domain: &formats::DomainName) -> Option<(HeldPolicy, Duration)> {
        let held = self.discovery.live(&self.discovery.stored(domain).await?)?;
        let rest = self.discovery.rest(&held);
        Some((held, rest))
    }

    /// True when no look-up is under way.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.in_flight.len() == 0
    }

    /// Where what is remembered is kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Now, as entries count it.
    pub fn second(&self) -> ElapsedSeconds {
        ElapsedSeconds::try_from(self.clock.elapsed().as_secs()).unwrap_or(ElapsedSeconds::MAX)
    }
}

#[cfg(test)]
mod tests;
