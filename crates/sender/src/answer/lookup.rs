//! One look-up of a next hop: from the policy in the store, or from DNS and the policy host.
//!
//! [`PolicyService`] starts a look-up for each request that its cache can't answer, and in the background for a recheck
//! or a refresh. The observations go to [`decide`](super::decide::decide). A new policy goes to the store, the answer to the cache.

use super::decide::{Decision, Facts, MxHosts, Origin, Source, dane_to_store};
use super::discovery::{DiscoveryOutcome, Occasion};
use super::entry::{ElapsedSeconds, Entry};
use super::in_flight::{InFlightGuard, JoinOrStart, Pending, Purpose};
use super::overrides::Rule;
use super::route::{self, DaneHosts, NextHop, Route, RouteLookup};
use super::service::{PolicyService, is_test};
use super::settings::Settings;
use super::sts::EffectivePolicy;
use formats::limits::FAILURE_RECHECK;
use formats::tls_policy::Answer;
use formats::{DomainName, Mode, Policy};
use net::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use store::policies::StoredPolicy;
use tokio::sync::OwnedSemaphorePermit;

/// Everything that one look-up of a next hop observed and decided, for `sternpost query --trace`.
#[derive(Debug)]
pub struct LookupTrace {
    /// The MX hosts. Empty when the operator's rule gives the answer, which needs no look-up, and for the test domain.
    pub route: Route,
    /// The result of MTA-STS discovery; `None` when the operator's rule makes it unnecessary, and for the test domain.
    pub sighting: Option<DiscoveryOutcome>,
    /// The rule of the operator's table that applies to the domain.
    pub rule: Option<Rule>,
    /// The answer for the mail server.
    pub answer: Answer,
    /// The protocol or rule that the answer comes from.
    pub source: Source,
}

/// The observations of a look-up, before the decision.
struct Observed {
    route: Route,
    sighting: Option<DiscoveryOutcome>,
    rule: Option<Rule>,
    /// The shortest TTL of the DNS answers; `None` when none had one.
    ttl: Option<Duration>,
}

impl PolicyService {
    /// Starts a look-up, or joins the one in flight for this name. The look-up continues when no request waits.
    pub(super) fn look_up(
        self: &Arc<Self>,
        hop: NextHop,
        name: String,
        purpose: Purpose,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Pending {
        match self.in_flight.join_or_start(name, &hop, purpose) {
            JoinOrStart::Joined(pending) => pending,
            JoinOrStart::Started(guard, pending) => {
                let service = self.clone();
                tokio::spawn(async move {
                    let (entry, used) = service.run_look_up(hop, &guard, purpose, permit).await;
                    guard.finish(entry);
                    // No mail server waits for this write.
                    if let Some(used) = used {
                        service.discovery.used(&used).await;
                    }
                });
                pending
            }
        }
    }

    /// Returns the answer, and the policy in the store if the answer comes from there.
    async fn run_look_up(
        &self,
        hop: NextHop,
        guard: &InFlightGuard,
        purpose: Purpose,
        permit: Option<OwnedSemaphorePermit>,
    ) -> (Arc<Entry>, Option<StoredPolicy>) {
        self.metrics.looking.inc();
        let settings = self.settings_of(guard.name());
        let read = self.discovery.read_stored(hop.policy_domain()).await;
        let store_failed = read.is_err();
        let stored = read.ok().flatten();
        // A policy in memory that could not be stored is newer than the stored one.
        let is_newest = !self.discovery.has_unsaved(hop.policy_domain());
        let from_store = match (purpose, &stored) {
            (Purpose::Request, Some(stored)) if is_newest => self.answer_from_store(&hop, stored, &settings),
            _ => None,
        };
        let used = stored.clone().filter(|_| from_store.is_some());
        let entry = Arc::new(match from_store {
            Some(entry) => entry,
            None => {
                guard.flight().set_fresh();
                // An answer from the store needs no permit, so a flood of slow names can't delay it.
                let _permit = match permit {
                    Some(permit) => Some(permit),
                    None => self.request_permits.clone().acquire_owned().await.ok(),
                };
                self.look_up_and_store(&hop, guard, purpose, stored, store_failed, &settings).await
            }
        });
        if purpose != Purpose::Refresh || self.cache.contains(guard.name()) {
            // An answer that must not be cached still replaces the old one (VAL-19, VAL-21).
            guard.if_current(|| match entry.until > self.second() {
                true => self.cache.put(hop.policy_domain(), guard.name(), entry.clone()),
                false => drop(self.cache.remove(guard.name())),
            });
        }
        self.metrics.looking.dec();
        (entry, used)
    }

    /// Answers from the policy in the store, so that no mail server waits after a start or an eviction.
    /// Returns `None` when a look-up is necessary. The entry is due for a recheck at once.
    fn answer_from_store(&self, hop: &NextHop, stored: &StoredPolicy, settings: &Settings) -> Option<Entry> {
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
        let decision = (self.rules.decide)(&Facts {
            domain,
            hosts: MxHosts::Known(dane),
            found: Some(&EffectivePolicy::Policy { held, trouble: None }),
            policy_rest,
            rule: None,
            testing: settings.testing.as_ref(),
            default_level: settings.default_level,
            min_recheck: settings.recheck,
            origin: Origin::Stored,
        });
        (decision.until > Duration::ZERO).then(|| self.entry(&decision))
    }

    async fn look_up_and_store(
        &self,
        hop: &NextHop,
        guard: &InFlightGuard,
        purpose: Purpose,
        stored: Option<StoredPolicy>,
        store_failed: bool,
        settings: &Settings,
    ) -> Entry {
        let occasion = if purpose == Purpose::Refresh { Occasion::Refresh } else { Occasion::Mail };
        let observed = self.observe(hop, stored, occasion, settings).await;
        if let Some(sighting) = &observed.sighting {
            if let Some(fetched) = &sighting.fetched {
                self.metrics.fetched(fetched);
            }
            let before = sighting.stored.as_ref().map_or("", |stored| stored.dane.as_str());
            let dane = dane_to_store(hop, &observed.route, before);
            self.save(hop.policy_domain(), guard, purpose, sighting, &dane).await;
        }
        let mut decision = self.decision(hop, &observed, settings);
        if store_failed && decision.source == Source::NoPolicy {
            // The store may hold a policy. It is asked again as soon as after a failed look-up.
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

    /// Stores what a look-up found, unless the domain was purged meanwhile. A look-up that another one replaced does not
    /// overwrite what that one stored.
    async fn save(
        &self,
        domain: &DomainName,
        guard: &InFlightGuard,
        purpose: Purpose,
        sighting: &DiscoveryOutcome,
        dane: &str,
    ) {
        let is_purged = guard.flight().writing().await;
        let is_overtaken = guard.flight().is_outdated()
            && self.discovery.read_stored(domain).await.is_ok_and(|now| now != sighting.stored);
        if !*is_purged && !is_overtaken {
            let is_use = matches!(purpose, Purpose::Request | Purpose::Recheck);
            let is_new = matches!(sighting.fetched, Some(Ok(())));
            self.supersede(domain, guard, is_new);
            self.discovery.save(domain, sighting, dane, is_use).await;
            // A look-up that started meanwhile may have read the policy before it was replaced.
            self.supersede(domain, guard, is_new);
        }
    }

    /// A new policy replaces the old one for every next hop of its domain (VAL-19).
    fn supersede(&self, domain: &DomainName, guard: &InFlightGuard, is_new: bool) {
        if is_new {
            guard.outdate_others(|| {
                self.cache.remove_domain(domain, Some(guard.name()));
            });
        }
    }

    /// Looks up a next hop and returns all observations. The result is neither stored nor cached.
    pub fn explain<'a>(&'a self, hop: &'a NextHop) -> BoxFuture<'a, LookupTrace> {
        Box::pin(async move {
            if is_test(hop) {
                let route = Route::Hosts(Vec::new());
                let (answer, source) = (Answer::for_test_domain(), Source::Test);
                return LookupTrace { route, sighting: None, rule: None, answer, source };
            }
            let settings = self.settings();
            let stored = self.discovery.stored(hop.policy_domain()).await;
            let observed = self.observe(hop, stored, Occasion::Mail, &settings).await;
            let Decision { answer, source, .. } = self.decision(hop, &observed, &settings);
            let Observed { route, sighting, rule, .. } = observed;
            LookupTrace { route, sighting, rule, answer, source }
        })
    }

    /// Looks up the facts for the decision: the MX hosts, and the policy in parallel unless a rule replaces it. A rule
    /// that gives the answer itself needs no look-up.
    async fn observe(
        &self,
        hop: &NextHop,
        stored: Option<StoredPolicy>,
        occasion: Occasion,
        settings: &Settings,
    ) -> Observed {
        let domain = hop.policy_domain();
        let rule = settings.overrides.rule(domain).cloned();
        if rule.as_ref().is_some_and(|rule| rule.answer.is_some()) {
            return Observed { route: Route::Hosts(Vec::new()), sighting: None, rule, ttl: None };
        }
        let discovery = async {
            match rule.as_ref().is_none_or(Rule::uses_published_policy) {
                true => Some(self.discovery.discover(domain, stored, occasion).await),
                false => None,
            }
        };
        let (RouteLookup { route, ttl }, sighting) =
            tokio::join!(route::look_up(self.dns.as_ref(), hop), discovery);
        let ttl = sighting.as_ref().and_then(|sighting| sighting.ttl).into_iter().chain(ttl).min();
        Observed { route, sighting, rule, ttl }
    }

    fn decision(&self, hop: &NextHop, observed: &Observed, settings: &Settings) -> Decision {
        let found = observed.sighting.as_ref().map(|sighting| &sighting.found);
        let policy_rest = match found {
            Some(EffectivePolicy::Policy { held, .. }) => Some(self.discovery.remaining_life(held)),
            Some(EffectivePolicy::Unavailable(_) | EffectivePolicy::None) | None => None,
        };
        (self.rules.decide)(&Facts {
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

/// True if an unexpired cached answer takes precedence over a new decision.
///
/// A failing resolver removes no answer, but where an enforced policy is known by now, only the answer by that policy or a
/// stronger one stays. Where the store fails, nobody knows whether a policy is held, so that an answer by a policy stays when
/// the look-up finds none.
fn keeps_cached(decision: &Decision, observed: &Observed, cached: &Entry, store_failed: bool) -> bool {
    let found = observed.sighting.as_ref().map(|sighting| &sighting.found);
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
