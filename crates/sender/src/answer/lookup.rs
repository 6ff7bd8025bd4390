//! One lookup of a next hop: from the policy in the store, or from DNS and the policy host.
//!
//! [`PolicyService`] starts a lookup for each request that its cache can't answer, and in the background for a recheck
//! or a refresh. The observations go to [`decide`](super::decide::decide). A new policy goes to the store, the answer to the cache.

use super::decide::{Decision, DecisionInput, MxHosts, Origin, Source, dane_to_store};
use super::discovery::{DiscoveryOutcome, Occasion};
use super::entry::{ElapsedSeconds, Entry, RecheckClaim};
use super::in_flight::{InFlightGuard, JoinOrStart, Pending, Purpose};
use super::overrides::Rule;
use super::policy_writer::Written;
use super::route::{self, DaneHosts, NextHop, Route, RouteLookup};
use super::service::{PolicyService, is_test};
use super::settings::Settings;
use super::sts::{EffectivePolicy, HeldPolicy};
use formats::limits::FAILURE_RECHECK;
use formats::tls_policy::Answer;
use formats::{DomainName, Mode, Policy};
use net::BoxFuture;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use std::time::Duration;
use store::policies::StoredPolicy;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

/// Everything that one lookup of a next hop observed and decided, for `sternpost query --trace`.
#[derive(Debug)]
pub struct LookupTrace {
    /// The MX hosts. Empty when the operator's rule gives the answer, which needs no lookup, and for the test domain.
    pub route: Route,
    /// The result of MTA-STS discovery; `None` when the operator's rule makes it unnecessary, and for the test domain.
    pub discovery: Option<DiscoveryOutcome>,
    /// The rule of the operator's table that applies to the domain.
    pub rule: Option<Rule>,
    /// The answer for the mail server.
    pub answer: Answer,
    /// The protocol or rule that the answer comes from.
    pub source: Source,
}

/// The observations of a lookup, before the decision.
struct Observed {
    route: Route,
    discovery: Option<DiscoveryOutcome>,
    rule: Option<Rule>,
    /// The shortest TTL of the DNS answers; `None` when none had one.
    ttl: Option<Duration>,
}

/// Counts a lookup in flight until it is dropped.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl PolicyService {
    /// Starts a lookup, or joins the one in flight for this name. `recheck` has the place of a lookup in the background, and
    /// the claim of the entry. Returns `None` if a request can't start one ([`JoinOrStart::Full`]).
    ///
    /// The lookup continues when no request waits, since the mail server will ask again; see [`Self::observe_in_place`].
    pub(super) fn look_up(
        self: &Arc<Self>,
        hop: NextHop,
        name: String,
        purpose: Purpose,
        recheck: Option<(OwnedSemaphorePermit, RecheckClaim)>,
    ) -> Option<Pending> {
        let (permit, claim) = recheck.unzip();
        match self.in_flight.join_or_start(name, &hop, purpose, claim) {
            JoinOrStart::Full => None,
            JoinOrStart::Joined(pending) => Some(pending),
            JoinOrStart::Started(guard, pending) => {
                let service = self.clone();
                let span = tracing::info_span!(target: net::TRACES, "lookup", next_hop = %hop);
                let looking = async move {
                    let Some((entry, used)) = service.run_look_up(hop, &guard, purpose, permit).await else {
                        return;
                    };
                    guard.finish(entry);
                    // No mail server waits for this write.
                    if let Some(used) = used {
                        service.discovery.used(&used).await;
                    }
                };
                tokio::spawn(looking.instrument(span));
                Some(pending)
            }
        }
    }

    /// Returns the answer, and the policy in the store if the answer comes from there; `None` if no request waits any more
    /// and the lookup has no place.
    async fn run_look_up(
        &self,
        hop: NextHop,
        guard: &InFlightGuard,
        purpose: Purpose,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Option<(Arc<Entry>, Option<StoredPolicy>)> {
        let _counted = Counted::new(&self.metrics.looking);
        let settings = self.settings_of(guard.name());
        let reading = self.discovery.read_stored(hop.policy_domain());
        let read = match &permit {
            Some(_) => reading.await,
            // Behind a store that does not answer, only so many lookups stay that no request waits for.
            None => self.continue_in_place(guard, None, reading).await?,
        };
        let store_failed = read.is_err();
        let stored = read.ok().flatten();
        let from_store = match (purpose, &stored) {
            (Purpose::Request, Some(stored)) if self.discovery.is_newest(stored) => {
                self.answer_from_store(&hop, stored, &settings)
            }
            _ => None,
        };
        let used = stored.clone().filter(|_| from_store.is_some());
        let entry = Arc::new(match from_store {
            Some(entry) => entry,
            None => {
                guard.flight().set_fresh();
                // An answer from the store needs no place, so a flood of slow names can't delay it.
                let occasion = if purpose == Purpose::Refresh { Occasion::Refresh } else { Occasion::Mail };
                let observing = self.observe(&hop, stored, occasion, &settings);
                let observed = match &permit {
                    Some(_) => observing.await,
                    None => self.observe_in_place(guard, observing).await?,
                };
                self.decide_and_store(&hop, guard, purpose, observed, store_failed, &settings).await
            }
        });
        if purpose != Purpose::Refresh || self.cache.contains(guard.name()) {
            // An answer that must not be cached still replaces the old one (VAL-19, VAL-21).
            guard.if_current(|| match entry.until > self.second() {
                true => self.cache.put(hop.policy_domain(), guard.name(), entry.clone()),
                false => drop(self.cache.remove(guard.name())),
            });
        }
        Some((entry, used))
    }

    /// Waits for a place and makes the observations of a lookup.
    ///
    /// When no request waits any more, the lookup gives its place to others, so that names whose servers never answer
    /// block none. It continues among the [`formats::limits::ABANDONED_LOOKUPS`] of its kind. `None` if those are in
    /// flight already, or if it had no place yet. Once the observations are there, a lookup is done to its end.
    async fn observe_in_place(
        &self,
        guard: &InFlightGuard,
        observing: impl Future<Output = Observed>,
    ) -> Option<Observed> {
        let place = loop {
            tokio::select! {
                biased;
                place = self.request_permits.clone().acquire_owned() => break place.ok(),
                () = guard.unattended() => if guard.abandon() { return None },
            }
        };
        self.continue_in_place(guard, place, observing).await
    }

    /// Does a part of a lookup to its end. When no request waits any more, it gives up `place` and continues among the
    /// [`formats::limits::ABANDONED_LOOKUPS`]; `None` if those are in flight already.
    pub(super) async fn continue_in_place<T>(
        &self,
        guard: &InFlightGuard,
        place: Option<OwnedSemaphorePermit>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(work);
        let _place = loop {
            tokio::select! {
                biased;
                outcome = &mut work => return Some(outcome),
                () = guard.unattended() => match self.abandoned_permits.clone().try_acquire_owned() {
                    Ok(place) => break place,
                    Err(_) if guard.abandon() => return None,
                    // A request has joined the lookup meanwhile.
                    Err(_) => {}
                }
            }
        };
        drop(place);
        Some(work.await)
    }

    /// Answers from the policy in the store, so that no mail server waits after a start or an eviction.
    /// Returns `None` when a lookup is necessary. The entry is due for a recheck at once.
    pub(super) fn answer_from_store(
        &self,
        hop: &NextHop,
        stored: &StoredPolicy,
        settings: &Settings,
    ) -> Option<Entry> {
        let domain = hop.policy_domain();
        if settings.overrides.rule(domain).is_some() || !hop.is_mail_domain() {
            return None;
        }
        let held = self.discovery.live(stored)?;
        let policy_rest = Some(self.discovery.remaining_life(&held));
        let dane = DaneHosts::from_text(&stored.dane)?;
        if dane.has_dane() {
            // The stored TLSA states may be out of date, and an answer by DANE is never used beyond its TTL.
            return None;
        }
        let decision = (self.rules.decide)(&DecisionInput {
            domain,
            hosts: MxHosts::Known(dane),
            found: Some(&EffectivePolicy::Policy { held, refresh_error: None }),
            policy_rest,
            rule: None,
            testing: settings.testing.as_ref(),
            default_level: settings.default_level,
            min_recheck: settings.recheck,
            origin: Origin::Stored,
        });
        (decision.until > Duration::ZERO).then(|| self.entry(&decision))
    }

    async fn decide_and_store(
        &self,
        hop: &NextHop,
        guard: &InFlightGuard,
        purpose: Purpose,
        mut observed: Observed,
        store_failed: bool,
        settings: &Settings,
    ) -> Entry {
        if let Some(discovery) = &mut observed.discovery {
            if let Some(fetched) = &discovery.fetched {
                self.metrics.fetched(fetched);
            }
            let before = discovery.stored.as_ref().map_or("", |stored| stored.dane.as_str());
            let dane = dane_to_store(hop, &observed.route, before);
            if let Some(held) = self.save(hop.policy_domain(), guard, purpose, discovery, &dane).await {
                discovery.found = EffectivePolicy::Policy { held, refresh_error: None };
            }
        }
        let mut decision = self.decision(hop, &observed, settings);
        if store_failed && decision.source == Source::NoPolicy {
            // The store may hold a policy. It is asked again as soon as after a failed lookup.
            decision.recheck = decision.recheck.min(FAILURE_RECHECK);
            decision.until = decision.until.min(FAILURE_RECHECK);
        }
        if decision.source == Source::MtaSts && decision.dane.behind_insecure_mx > 0 {
            self.metrics.dane_set_aside.inc();
        }
        if let Some(cached) = self.cache.get(guard.name()).filter(|cached| cached.until > self.second())
            && keeps_cached(&decision, &observed, &cached, store_failed)
        {
            return cached.with_times(self.after(decision.recheck), cached.until);
        }
        self.entry(&decision)
    }

    /// Stores what a lookup found, unless the domain was purged meanwhile. Returns the live policy that applies instead if the
    /// store has one by now that was fetched later (VAL-19).
    async fn save(
        &self,
        domain: &DomainName,
        guard: &InFlightGuard,
        purpose: Purpose,
        discovery: &DiscoveryOutcome,
        dane: &str,
    ) -> Option<HeldPolicy> {
        let is_purged = guard.flight().writing().await;
        if *is_purged {
            return None;
        }
        let is_new = matches!(discovery.fetched, Some(Ok(())));
        let is_overtaken = !is_new
            && guard.flight().is_outdated()
            && self.discovery.read_stored(domain).await.is_ok_and(|now| now != discovery.stored);
        if is_overtaken {
            return self.discovery.live_held(domain).await;
        }
        let is_use = matches!(purpose, Purpose::Request | Purpose::Recheck);
        match self.discovery.save(domain, discovery, dane, is_use).await {
            Written::Superseded => {
                guard.outdate();
                self.discovery.live_held(domain).await
            }
            Written::InForce => {
                if is_new {
                    // The new policy replaces the old one for every next hop of its domain.
                    guard.outdate_others(|own| {
                        self.cache.remove_domain(domain, own);
                    });
                }
                None
            }
        }
    }

    /// Looks up a next hop and returns all observations. The result is neither stored nor cached.
    pub fn explain<'a>(&'a self, hop: &'a NextHop) -> BoxFuture<'a, LookupTrace> {
        Box::pin(async move {
            if is_test(hop) {
                let route = Route::Hosts(Vec::new());
                let (answer, source) = (Answer::for_test_domain(), Source::Test);
                return LookupTrace { route, discovery: None, rule: None, answer, source };
            }
            let settings = self.settings();
            let stored = self.discovery.stored(hop.policy_domain()).await;
            let observed = self.observe(hop, stored, Occasion::Mail, &settings).await;
            let Decision { answer, source, .. } = self.decision(hop, &observed, &settings);
            let Observed { route, discovery, rule, .. } = observed;
            LookupTrace { route, discovery, rule, answer, source }
        })
    }

    /// Looks up the facts for the decision: the MX hosts, and the policy in parallel unless a rule replaces it. A rule
    /// that gives the answer itself needs no lookup.
    async fn observe(
        &self,
        hop: &NextHop,
        stored: Option<StoredPolicy>,
        occasion: Occasion,
        settings: &Settings,
    ) -> Observed {
        if let Some(observed) = observe_rule(hop, settings) {
            return observed;
        }
        let domain = hop.policy_domain();
        let rule = settings.overrides.rule(domain).cloned();
        let discovery = async {
            match rule.as_ref().is_none_or(Rule::uses_published_policy) {
                true => {
                    let span = tracing::info_span!(target: net::TRACES, "policy record and file");
                    Some(self.discovery.discover(domain, stored, occasion).instrument(span).await)
                }
                false => None,
            }
        };
        let (RouteLookup { route, ttl }, discovery) =
            tokio::join!(route::look_up(self.dns.as_ref(), hop), discovery);
        let ttl = discovery.as_ref().and_then(|discovery| discovery.ttl).into_iter().chain(ttl).min();
        Observed { route, discovery, rule, ttl }
    }

    /// The answer if a rule of the operator's table gives it itself. It needs no lookup.
    pub(super) fn answer_by_rule(&self, hop: &NextHop, settings: &Settings) -> Option<Entry> {
        let observed = observe_rule(hop, settings)?;
        Some(self.entry(&self.decision(hop, &observed, settings)))
    }

    fn decision(&self, hop: &NextHop, observed: &Observed, settings: &Settings) -> Decision {
        let found = observed.discovery.as_ref().map(|discovery| &discovery.found);
        let policy_rest = match found {
            Some(EffectivePolicy::Policy { held, .. }) => Some(self.discovery.remaining_life(held)),
            Some(EffectivePolicy::Unavailable(_) | EffectivePolicy::None) | None => None,
        };
        (self.rules.decide)(&DecisionInput {
            domain: hop.policy_domain(),
            hosts: MxHosts::of(&observed.route),
            found,
            policy_rest,
            rule: observed.rule.as_ref(),
            testing: settings.testing.as_ref(),
            default_level: settings.default_level,
            min_recheck: settings.recheck,
            origin: Origin::LookedUp { ttl: observed.ttl },
        })
    }

    fn entry(&self, decision: &Decision) -> Entry {
        let Decision { answer, source, dane, recheck, until, .. } = decision;
        Entry::new(answer, *source, *dane, self.after(*recheck), self.after(*until))
    }

    /// The time after `wait`; it saturates at [`ElapsedSeconds::MAX`].
    fn after(&self, wait: Duration) -> ElapsedSeconds {
        let wait = ElapsedSeconds::try_from(wait.as_secs()).unwrap_or(ElapsedSeconds::MAX);
        self.second().saturating_add(wait)
    }
}

/// The observations if a rule of the operator's table gives the answer itself.
fn observe_rule(hop: &NextHop, settings: &Settings) -> Option<Observed> {
    let rule = settings.overrides.rule(hop.policy_domain()).filter(|rule| rule.answer.is_some())?;
    Some(Observed { route: Route::Hosts(Vec::new()), discovery: None, rule: Some(rule.clone()), ttl: None })
}

/// True if an unexpired cached answer takes precedence over a new decision.
///
/// A failing resolver removes no answer, but where an enforced policy is known by now, only the answer by that policy
/// or a stronger one stays. If the store fails, it is unknown whether a policy is held, so an answer by a policy stays
/// when the lookup finds none.
fn keeps_cached(decision: &Decision, observed: &Observed, cached: &Entry, store_failed: bool) -> bool {
    let found = observed.discovery.as_ref().map(|discovery| &discovery.found);
    if decision.yields_to_cached {
        return match found {
            Some(EffectivePolicy::Policy { held, .. }) if held.policy.mode == Mode::Enforce => {
                satisfies(cached, &held.policy)
            }
            _ => true,
        };
    }
    let finds_no_policy = matches!(found, Some(EffectivePolicy::None | EffectivePolicy::Unavailable(_)));
    store_failed && finds_no_policy && decision.source == Source::NoPolicy && cached.source == Source::MtaSts
}

/// True if a cached answer is the one by this enforced policy, or a stronger one.
fn satisfies(cached: &Entry, policy: &Policy) -> bool {
    let patterns = cached.patterns();
    let is_same = patterns.iter().all(|pattern| policy.mx.contains(pattern))
        && policy.mx.iter().all(|pattern| patterns.contains(pattern));
    match cached.level().as_deref() {
        Some("dane-only") => true,
        Some("secure") => is_same,
        _ => false,
    }
}
