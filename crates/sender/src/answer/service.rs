//! Answers for mail servers: from memory when they are there, else by one look-up however many ask
//! (VAL-23), and looked up again in the background before they grow old.

use super::Discovery;
use super::cache::Cache;
use super::decide::{Source, decide};
use super::discovery::Sighting;
use super::entry::{Entry, Second};
use super::metrics::Metrics;
use super::overrides::{Overrides, Rule};
use super::route::{self, DaneHosts, NextHop, Route, RouteSeen};
use super::sts::{Found, HeldPolicy};
use formats::limits::{
    BACKGROUND_LOOKUPS, FAILURE_RECHECK, LOOKUPS, NOTHING_RECHECK, POLICY_REFRESH, RECORD_RECHECK,
};
use formats::tls_policy::{Answer, Level, LookupKey};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Dns, DnsError};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use store::Store;
use store::policies::StoredPolicy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

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
    dns: Arc<dyn Dns>,
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
    generation: AtomicU64,
    flights: Mutex<HashMap<String, watch::Receiver<Option<Arc<Entry>>>>>,
    asked: Arc<Semaphore>,
    background: Arc<Semaphore>,
    nothing: Arc<Entry>,
}

/// All that was seen of a next hop, for people.
#[derive(Debug)]
pub struct Looked {
    /// Where mail goes.
    pub route: Route,
    /// What was found of MTA-STS; none when it does not count here.
    pub sighting: Option<Sighting>,
    /// The rule of the operator's table, if one holds.
    pub rule: Option<Rule>,
    /// What follows.
    pub answer: Answer,
    /// What decided that.
    pub source: Source,
}

/// What a look-up comes to.
struct Outcome {
    looked: Looked,
    dane: DaneHosts,
    /// For how long the answers of the DNS are good.
    ttl: Option<Duration>,
}

/// Why a look-up is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody waits for it. What is remembered is answered at once.
    Asked,
    /// The answer in memory grows old, or an operator wants it.
    Recheck,
    /// The policy in the store grows old.
    Refresh,
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
        let nothing = Entry::new(&Answer::NotFound, Source::Nothing, DaneHosts::default(), 0, Second::MAX);
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
            flights: Mutex::default(),
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
            self.metrics.answered(self.nothing.status, Source::Nothing);
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
        let mut flight = self.flight(hop, name, Purpose::Asked, None);
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
                self.flight(hop, key.to_owned(), Purpose::Recheck, Some(permit));
            }
            _ => entry.release_recheck(),
        }
    }

    /// Looks up anew and returns when that is done.
    pub(super) async fn look_again(self: &Arc<Self>, hop: NextHop, purpose: Purpose) -> Option<Arc<Entry>> {
        let name = hop.to_string();
        let mut flight = self.flight(hop, name, purpose, None);
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
        lock(&self.flights).is_empty()
    }

    /// Where what is remembered is kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Now, as entries count it.
    pub fn second(&self) -> Second {
        Second::try_from(self.clock.elapsed().as_secs()).unwrap_or(Second::MAX)
    }

    fn flight(
        self: &Arc<Self>,
        hop: NextHop,
        name: String,
        purpose: Purpose,
        permit: Option<OwnedSemaphorePermit>,
    ) -> watch::Receiver<Option<Arc<Entry>>> {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(&name) {
            return flight.clone();
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(name.clone(), receiver.clone());
        drop(flights);
        let landing = Landing { answers: self.clone(), name };
        tokio::spawn(async move {
            let entry = landing.answers.clone().fly(hop, &landing.name, purpose, permit).await;
            drop(landing);
            // Whoever waited may have gone.
            let _ = sender.send(Some(entry));
        });
        receiver
    }

    async fn fly(
        self: Arc<Self>,
        hop: NextHop,
        name: &str,
        purpose: Purpose,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Arc<Entry> {
        self.metrics.looking.inc();
        let generation = self.generation.load(Ordering::SeqCst);
        let settings = self.settings();
        let stored = self.discovery.stored(hop.policy_domain()).await;
        let remembered = match (purpose, &stored) {
            (Purpose::Asked, Some(stored)) => self.remembered_answer(&hop, stored, &settings),
            _ => None,
        };
        let entry = Arc::new(match remembered {
            Some(entry) => entry,
            None => {
                // What is remembered waits for no place: a flood of slow names can't hold it up.
                let _place = match permit {
                    Some(permit) => Some(permit),
                    None => self.asked.clone().acquire_owned().await.ok(),
                };
                self.look_and_keep(&hop, name, stored, &settings).await
            }
        });
        let wanted = purpose != Purpose::Refresh || self.cache.contains(name);
        let is_current = generation == self.generation.load(Ordering::SeqCst);
        if wanted && is_current {
            // What has no life replaces the old answer as well (VAL-19, VAL-21).
            match entry.until > self.second() {
                true => self.cache.put(name, entry.clone()),
                false => drop(self.cache.remove(name)),
            }
        }
        self.metrics.looking.dec();
        entry
    }

    /// The answer by the policy in the store, so that a start or an eviction makes nobody wait. It is
    /// due for a look at once, which the next asker sets going.
    fn remembered_answer(&self, hop: &NextHop, stored: &StoredPolicy, settings: &Settings) -> Option<Entry> {
        let domain = hop.policy_domain();
        if settings.overrides.rule(domain).is_some() || matches!(hop, NextHop::Host(..)) {
            return None;
        }
        let held = self.discovery.live(stored)?;
        let dane = DaneHosts::from_text(&stored.dane)?;
        let until = self.after(self.discovery.rest(&held));
        let found = Found::Policy { held, trouble: None };
        let (answer, source) = decide(domain, dane, &found, settings.testing.as_ref());
        (source != Source::Failure).then(|| Entry::new(&answer, source, dane, self.second(), until))
    }

    async fn look_and_keep(
        &self,
        hop: &NextHop,
        name: &str,
        stored: Option<StoredPolicy>,
        settings: &Settings,
    ) -> Entry {
        let outcome = self.look_outside(hop, stored, settings).await;
        if let Some(sighting) = &outcome.looked.sighting {
            if let Some(fetched) = &sighting.fetched {
                self.metrics.fetched(fetched);
            }
            let dane = dane_to_keep(hop, &outcome.looked.route, sighting);
            self.discovery.keep(hop.policy_domain(), sighting, &dane).await;
        }
        // An answer in force outlives a resolver that is down, but not a chain that became bogus.
        if matches!(&outcome.looked.route, Route::Unknown(error) if *error != DnsError::Bogus) {
            let old = self.cache.get(name).filter(|old| old.until > self.second());
            if let Some(old) = old {
                return old.again(self.after(FAILURE_RECHECK), old.until);
            }
        }
        self.entry(&outcome, settings)
    }

    /// Looks a next hop up and says all that was seen. Nothing is remembered.
    pub fn explain<'a>(&'a self, hop: &'a NextHop) -> BoxFuture<'a, Looked> {
        Box::pin(async move {
            let stored = self.discovery.stored(hop.policy_domain()).await;
            self.look_outside(hop, stored, &self.settings()).await.looked
        })
    }

    async fn look_outside(
        &self,
        hop: &NextHop,
        stored: Option<StoredPolicy>,
        settings: &Settings,
    ) -> Outcome {
        let domain = hop.policy_domain();
        let rule = settings.overrides.rule(domain).cloned();
        let is = |part: fn(&Rule) -> bool| rule.as_ref().is_some_and(part);
        if let Some(answer) = rule.as_ref().and_then(|rule| rule.answer.clone()) {
            let route = Route::Hosts(Vec::new());
            let looked = Looked { route, sighting: None, rule, answer, source: Source::Override };
            return Outcome { looked, dane: DaneHosts::default(), ttl: None };
        }
        let pinned = rule.as_ref().and_then(Rule::pinned);
        let use_sts = pinned.is_none() && !is(|rule| rule.skip_mta_sts);
        let sts = async {
            match use_sts {
                true => Some(self.discovery.look(domain, stored).await),
                false => None,
            }
        };
        let (RouteSeen { route, ttl }, sighting) = tokio::join!(route::look(self.dns.as_ref(), hop), sts);
        let dane = match &route {
            Route::Hosts(hosts) if !is(|rule| rule.skip_dane) => DaneHosts::of(hosts),
            _ => DaneHosts::default(),
        };
        let found =
            sighting.as_ref().map(|sighting| sighting.found.clone()).or(pinned).unwrap_or(Found::None);
        let (answer, source) = match &route {
            // The MX answer is not authenticated in MTA-STS, so one that names no host takes no live policy
            // away (RFC 8461 §5.1, §10.2): a forged one would strip it.
            Route::NoDomain | Route::NullMx if !matches!(found, Found::Policy { .. }) => {
                (Answer::NotFound, Source::Nothing)
            }
            Route::Hosts(_) | Route::NoDomain | Route::NullMx => {
                decide(domain, dane, &found, settings.testing.as_ref())
            }
            Route::Unknown(error) => (Answer::Temp(no_route(domain, error)), Source::Failure),
        };
        let source = match (source, &rule) {
            (Source::MtaSts, Some(rule)) if rule.policy.is_some() => Source::Override,
            (source, _) => source,
        };
        let ttl = sighting.as_ref().and_then(|sighting| sighting.ttl).into_iter().chain(ttl).min();
        Outcome { looked: Looked { route, sighting, rule, answer, source }, dane, ttl }
    }

    fn entry(&self, outcome: &Outcome, settings: &Settings) -> Entry {
        let Outcome { looked, dane, ttl } = outcome;
        let ttl =
            ttl.unwrap_or(settings.recheck).clamp(settings.recheck, POLICY_REFRESH.max(settings.recheck));
        let policy_rest = looked.sighting.as_ref().and_then(|sighting| match &sighting.found {
            Found::Policy { held, .. } => Some(self.discovery.rest(held)),
            Found::Unavailable(_) | Found::None => None,
        });
        let (recheck, until) = match (looked.source, policy_rest) {
            (Source::Override, _) if looked.sighting.is_none() => (Duration::MAX, Duration::MAX),
            (Source::Failure, _) => (FAILURE_RECHECK, FAILURE_RECHECK),
            (Source::MtaSts, Some(rest)) => (ttl.min(rest), rest),
            (Source::Nothing, None) => {
                let life = ttl.min(NOTHING_RECHECK.max(settings.recheck));
                (life * 4 / 5, life)
            }
            // DANE, or a policy that asks for nothing.
            _ => (ttl, ttl + NOTHING_RECHECK),
        };
        Entry::new(&looked.answer, looked.source, *dane, self.after(recheck), self.after(until))
    }

    fn after(&self, wait: Duration) -> Second {
        let wait = Second::try_from(wait.as_secs()).unwrap_or(Second::MAX);
        self.second().saturating_add(wait)
    }
}

/// Takes a flight off the board when it ends, however it ends.
struct Landing {
    answers: Arc<Answers>,
    name: String,
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.answers.flights).remove(&self.name);
    }
}

/// What is kept of DANE beside a policy, so that it can be answered from the store: what was seen of
/// the domain's hosts, whatever the operator's table makes of it. A resolver that is down, or a look at
/// a single host, changes nothing; a bogus chain leaves nothing, so that the policy is not answered
/// before the chain has been looked at again (VAL-10).
fn dane_to_keep(hop: &NextHop, route: &Route, sighting: &Sighting) -> String {
    let before = || sighting.stored.as_ref().map(|stored| stored.dane.clone()).unwrap_or_default();
    match (hop, route) {
        (NextHop::Host(..), _) => before(),
        (_, Route::Hosts(hosts)) => DaneHosts::of(hosts).to_text(),
        (_, Route::Unknown(error)) if *error != DnsError::Bogus => before(),
        (_, Route::Unknown(_)) => String::new(),
        // Names no host, so it says nothing about DANE.
        (_, Route::NoDomain | Route::NullMx) => before(),
    }
}

fn no_route(domain: &formats::DomainName, error: &DnsError) -> String {
    let what = match error {
        DnsError::Bogus => "fail DNSSEC validation".to_owned(),
        other => format!("can't be looked up ({other})"),
    };
    format!("the MX records of {domain} {what}; to see why: sternpost query --trace {domain}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
