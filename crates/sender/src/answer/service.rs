//! The answer service: returns answers from the cache, or waits for a lookup.
//!
//! The protocols in [`crate::serve`] call [`PolicyService::hit`] and [`PolicyService::ask`]. All requests for one next
//! hop share a lookup (VAL-23). An answer that is due for a recheck is still returned, while a lookup runs in the
//! background.

use super::Discovery;
use super::cache::Cache;
use super::decide::{Decision, DecisionInput, Source, decide};
use super::entry::{ElapsedSeconds, Entry};
use super::in_flight::{InFlight, Purpose};
use super::maps::{self, Maps, TLSRPT_SUFFIX};
use super::metrics::Metrics;
use super::overrides::Rule;
use super::route::{DaneHosts, NextHop};
use super::settings::Settings;
use super::sts::HeldPolicy;
use formats::DomainName;
use formats::limits::{ABANDONED_LOOKUPS, BACKGROUND_LOOKUPS, LOOKUPS, LOOKUPS_IN_FLIGHT};
use formats::tls_policy::{Answer, LookupKey, TEST_DOMAIN};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Dns, Security, host_addresses};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use store::Store;
use store::policies::Fetched;
use tokio::sync::Semaphore;

/// The functions that answers and the refresh depend on. A test replaces one by a known fault, to show that the model test
/// finds the fault.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Makes each answer with its lifetime; see [`decide`].
    pub(super) decide: fn(&DecisionInput<'_>) -> Decision,
    /// Divides the stored policies by the current time for their age; see [`Discovery::sets`].
    pub(super) sets: fn(&Discovery) -> Vec<Fetched>,
    /// Chooses the key under which a policy is refreshed; see [`PolicyService::refresh_key`].
    pub(super) refresh_key: fn(&PolicyService, &DomainName) -> String,
}

impl Default for Rules {
    fn default() -> Self {
        Self { decide, sets: Discovery::sets, refresh_key: PolicyService::refresh_key }
    }
}

/// Answers policy queries of mail servers from the cache, the store, or a lookup.
pub struct PolicyService {
    pub(super) dns: Arc<dyn Dns>,
    pub(super) discovery: Discovery,
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
    /// The cache of answers.
    pub cache: Cache,
    /// The metrics of the service.
    pub metrics: Metrics,
    tlsrpt: AtomicBool,
    settings: RwLock<Arc<Settings>>,
    /// The named sets of settings; [`Self::settings`] are the default.
    maps: RwLock<Arc<Maps>>,
    /// [`Maps::version`], or 0 while there are no named sets.
    maps_version: AtomicU64,
    pub(super) in_flight: Arc<InFlight>,
    /// Limits lookups that requests wait for.
    pub(super) request_permits: Arc<Semaphore>,
    /// Limits lookups that began for a request and that no request waits for any more.
    pub(super) abandoned_permits: Arc<Semaphore>,
    /// Limits lookups in the background.
    background_permits: Arc<Semaphore>,
    /// Calls of the operator that run, each with a clone.
    calls: Arc<()>,
    /// Domains whose refresh could not be stored, with the monotonic time of the next try.
    pub(super) refresh_retries: Mutex<HashMap<DomainName, Duration>>,
    /// The answer for keys that never have a policy.
    not_found: Arc<Entry>,
    pub(super) rules: Rules,
    /// The answer for [`TEST_DOMAIN`].
    test: Arc<Entry>,
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
        Self::with_rules(dns, discovery, store, clock, cache_bytes, settings, Rules::default())
    }

    fn with_rules(
        dns: Arc<dyn Dns>,
        discovery: Discovery,
        store: Store,
        clock: Arc<dyn Clock>,
        cache_bytes: u64,
        settings: Settings,
        rules: Rules,
    ) -> Arc<Self> {
        let fixed = |answer, source| {
            Entry::new(&answer, source, DaneHosts::default(), ElapsedSeconds::MAX, ElapsedSeconds::MAX)
        };
        let new = Self {
            dns,
            discovery,
            store,
            clock,
            cache: Cache::new(cache_bytes),
            metrics: Metrics::new(),
            tlsrpt: AtomicBool::new(settings.tlsrpt),
            settings: RwLock::new(Arc::new(settings)),
            maps: RwLock::default(),
            maps_version: AtomicU64::new(0),
            in_flight: Arc::default(),
            request_permits: Arc::new(Semaphore::new(LOOKUPS)),
            abandoned_permits: Arc::new(Semaphore::new(ABANDONED_LOOKUPS)),
            background_permits: Arc::new(Semaphore::new(BACKGROUND_LOOKUPS)),
            calls: Arc::default(),
            refresh_retries: Mutex::default(),
            rules,
            not_found: Arc::new(fixed(Answer::NotFound, Source::NoPolicy)),
            test: Arc::new(fixed(Answer::for_test_domain(), Source::Test)),
        };
        new.metrics.store_up.set(1);
        Arc::new(new)
    }

    /// Replaces the settings and the named sets of settings, as [`Self::set`] does.
    pub fn set_with_maps(&self, settings: Settings, maps: BTreeMap<String, Settings>) {
        {
            let mut current = self.maps.write().unwrap_or_else(PoisonError::into_inner);
            let version = current.version + 1;
            *current = Arc::new(Maps::new(version, maps));
            self.maps_version.store(if current.is_empty() { 0 } else { version }, Ordering::Release);
        }
        self.set(settings);
    }

    /// The named sets of settings in force; `None` if there are none. `known` is an earlier result, which is returned
    /// without taking a lock if it is still in force.
    pub fn named_maps(&self, known: Option<Arc<Maps>>) -> Option<Arc<Maps>> {
        match self.maps_version.load(Ordering::Acquire) {
            0 => None,
            version => Some(known.filter(|known| known.version == version).unwrap_or_else(|| self.maps())),
        }
    }

    fn maps(&self) -> Arc<Maps> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The settings for a key of the cache.
    pub(super) fn settings_of(&self, key: &str) -> Arc<Settings> {
        let of_set = maps::split(key).0.and_then(|set| self.maps().settings(set).cloned());
        of_set.unwrap_or_else(|| self.settings())
    }

    /// The key under which a refresh looks a policy domain up: that of the default set of settings, or of the first named set
    /// whose override leaves the published policy in use if the default set's does not. A policy that only a named map
    /// uses is fetched as well.
    pub(super) fn refresh_key(&self, domain: &DomainName) -> String {
        let is_used =
            |settings: &Settings| settings.overrides.rule(domain).is_none_or(Rule::uses_published_policy);
        if is_used(&self.settings()) {
            return domain.to_string();
        }
        let maps = self.maps();
        let set = maps.all().into_iter().find(|(_, settings)| is_used(settings)).map(|(set, _)| set);
        set.map_or_else(|| domain.to_string(), |set| maps::key(set, domain.as_str()))
    }

    /// Replaces the settings and clears the cache. Policies stay in the store. Lookups in flight end for the requests
    /// that already wait for them; later requests start new ones.
    pub fn set(&self, settings: Settings) {
        self.tlsrpt.store(settings.tlsrpt, Ordering::Relaxed);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        self.in_flight.outdate_all(|| self.cache.clear());
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True if clients of this map, which has the default settings, get the TLSRPT attributes of Postfix 3.10 (SMK-09).
    pub fn wants_tlsrpt(&self, map: &str) -> bool {
        map.ends_with(TLSRPT_SUFFIX) || self.tlsrpt.load(Ordering::Relaxed)
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

    /// The cached answer for a key under a named set of settings, as [`Self::hit`].
    pub fn hit_in(self: &Arc<Self>, set: &str, key: &str) -> Option<Arc<Entry>> {
        self.hit(&maps::key(set, key))
    }

    /// The answer for a key under the default settings, as [`Self::ask_in`].
    pub async fn ask(self: &Arc<Self>, key: &str) -> Arc<Entry> {
        self.ask_in(None, key).await
    }

    /// The answer for a key under a set of settings, from the cache or from a lookup. `None` is the default set. A lookup that takes longer than [`Settings::patience`]
    /// continues in the background, and the request gets a temporary failure (SMK-13).
    pub async fn ask_in(self: &Arc<Self>, set: Option<&str>, key: &str) -> Arc<Entry> {
        let cache_key = |hop| set.map_or(Cow::Borrowed(hop), |set| Cow::Owned(maps::key(set, hop)));
        if let Some(entry) = self.hit(&cache_key(key)) {
            return entry;
        }
        let Ok(Some(hop)) = LookupKey::parse(key).map(NextHop::of) else {
            self.metrics.trivial.inc();
            self.metrics.answered(self.not_found.status, Source::NoPolicy);
            return self.not_found.clone();
        };
        if is_test(&hop) {
            self.metrics.answered(self.test.status, self.test.source);
            return self.test.clone();
        }
        let name = hop.to_string();
        if name != key
            && let Some(entry) = self.hit(&cache_key(&name))
        {
            return entry;
        }
        self.metrics.misses.inc();
        let started = self.clock.elapsed();
        let patience = self.settings().patience;
        let entry = match self.look_up(hop.clone(), cache_key(&name).into_owned(), Purpose::Request, None) {
            Some(mut pending) => {
                let outcome = tokio::time::timeout(patience, pending.wait_for(Option::is_some)).await;
                let entry = outcome.ok().and_then(|outcome| outcome.ok()?.clone());
                entry.unwrap_or_else(|| self.timed_out(key, patience))
            }
            None => {
                let key_in_set = cache_key(&name);
                let answer = self.answer_when_full(&hop, &key_in_set);
                tokio::time::timeout(patience, answer).await.unwrap_or_else(|_| self.timed_out(key, patience))
            }
        };
        self.metrics.miss_seconds.observe(self.clock.elapsed().saturating_sub(started).as_secs_f64());
        self.metrics.answered(entry.status, entry.source);
        entry
    }

    fn timed_out(&self, key: &str, patience: Duration) -> Arc<Entry> {
        let reason = format!(
            "the policy of {key} is still being looked up after {} seconds; retry later",
            patience.as_secs()
        );
        self.deferral(reason)
    }

    /// The answer while [`LOOKUPS_IN_FLIGHT`] lookups are in flight: by the operator's rule, by the live policy in the store,
    /// or a temporary failure.
    async fn answer_when_full(&self, hop: &NextHop, key: &str) -> Arc<Entry> {
        if let Some(entry) = self.answer_by_rule(hop, &self.settings_of(key)) {
            return Arc::new(entry);
        }
        let stored = self.discovery.stored(hop.policy_domain()).await;
        let newest = stored.filter(|stored| self.discovery.is_newest(stored));
        let entry = newest.and_then(|stored| self.answer_from_store(hop, &stored, &self.settings_of(key)));
        entry.map_or_else(
            || self.deferral(format!("too many lookups ({LOOKUPS_IN_FLIGHT}) are in flight; retry later")),
            Arc::new,
        )
    }

    /// A temporary failure that is not cached.
    fn deferral(&self, reason: String) -> Arc<Entry> {
        let now = self.second();
        Arc::new(Entry::new(&Answer::Temp(reason), Source::Failure, DaneHosts::default(), now, now))
    }

    fn recheck_in_background(self: &Arc<Self>, key: &str, entry: &Arc<Entry>) {
        let Some(claim) = entry.claim_recheck() else { return };
        let hop = LookupKey::parse(maps::split(key).1).ok().and_then(NextHop::of);
        if let (Some(hop), Ok(permit)) = (hop, self.background_permits.clone().try_acquire_owned()) {
            self.look_up(hop, key.to_owned(), Purpose::Recheck, Some((permit, claim)));
        }
    }

    /// Looks up a next hop under a key of the cache without using the cache, and returns the outcome; `None` when the lookup
    /// panicked.
    pub(super) async fn look_up_anew(
        self: &Arc<Self>,
        hop: NextHop,
        key: String,
        purpose: Purpose,
    ) -> Option<Arc<Entry>> {
        let mut pending = self.look_up(hop, key, purpose, None)?;
        let entry = pending.wait_for(Option::is_some).await.ok()?;
        entry.clone()
    }

    /// Looks up a next hop at the operator's request, without using the cache, and fetches its policy if one is announced and
    /// any set of settings uses it. Returns the answer under the default settings; `None` when the lookup panicked. It
    /// is done to its end also if the future is dropped.
    pub fn refresh<'a>(self: &'a Arc<Self>, hop: NextHop) -> BoxFuture<'a, Option<Arc<Entry>>> {
        let service = self.clone();
        self.to_end(async move {
            if is_test(&hop) {
                return Some(service.test.clone());
            }
            let (domain, name) = (hop.policy_domain(), hop.to_string());
            service.discovery.fetch_at_next_look_up(domain);
            let key = (service.rules.refresh_key)(&service, domain);
            let entry = service.look_up_anew(hop.clone(), name.clone(), Purpose::Operator).await;
            // A policy that only a named set of settings uses. This lookup is the second one: storing a policy removes the
            // answers under other keys, and with them what is known about DANE should the first one fail.
            if maps::split(&key).0.is_some() {
                service.look_up_anew(NextHop::domain(domain.clone()), key, Purpose::Operator).await;
            }
            // The other next hops and sets of settings are looked up when a mail server asks for them.
            service.in_flight.outdate(domain, || {
                service.cache.remove_domain(domain, Some(&name));
            });
            entry
        })
    }

    /// Deletes everything about the policy domain of a next hop from the cache and the store. Returns true if there was
    /// anything. Lookups of the domain that are in flight neither cache nor store their outcome. It is done to its end also
    /// if the future is dropped.
    pub fn purge<'a>(self: &'a Arc<Self>, hop: &NextHop) -> BoxFuture<'a, Result<bool, store::StoreError>> {
        let (service, domain) = (self.clone(), hop.policy_domain().clone());
        self.to_end(async move {
            let (cache, mut cached) = (&service.cache, false);
            for flight in service.in_flight.outdate(&domain, || cached = cache.remove_domain(&domain, None)) {
                flight.purge().await;
            }
            service.discovery.forget(&domain);
            let stored = service.store.delete_policy(&domain).await;
            // A lookup that started meanwhile may have read the policy before it was deleted.
            service.in_flight.outdate(&domain, || cached |= cache.remove_domain(&domain, None));
            Ok(stored? || cached)
        })
    }

    /// Runs a call of the operator in a task of its own: a client that goes away must not leave memory and store in
    /// disagreement.
    pub(super) fn to_end<'a, T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'a, T> {
        let running = self.calls.clone();
        Box::pin(async move {
            let task = tokio::spawn(async move {
                let outcome = call.await;
                drop(running);
                outcome
            });
            match task.await {
                Ok(outcome) => outcome,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime shuts down.
                Err(_) => std::future::pending().await,
            }
        })
    }

    /// The live policy that is held for a domain, with its remaining lifetime.
    pub async fn remembered(&self, domain: &DomainName) -> Option<(HeldPolicy, Duration)> {
        if domain.as_str() == TEST_DOMAIN {
            return None;
        }
        let held = self.discovery.live_held(domain).await?;
        let remaining = self.discovery.remaining_life(&held);
        Some((held, remaining))
    }

    /// True if no lookup is in flight, and no call of the operator runs.
    pub fn is_idle(&self) -> bool {
        self.in_flight.len() == 0 && !self.has_calls()
    }

    /// True while a call of the operator runs.
    fn has_calls(&self) -> bool {
        Arc::strong_count(&self.calls) > 1
    }

    /// True if the addresses of a host are secure (DNSSEC).
    pub(crate) async fn is_signed(&self, host: &DomainName) -> bool {
        let addresses = host_addresses(self.dns.as_ref(), host).await;
        addresses.is_ok_and(|addresses| addresses.security == Security::Secure)
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

/// True for [`TEST_DOMAIN`], which is answered without a lookup.
pub(super) fn is_test(hop: &NextHop) -> bool {
    hop.policy_domain().as_str() == TEST_DOMAIN
}

#[cfg(test)]
mod tests;
