//! One look-up of a next hop: the policy in the store or a visit to DNS and the policy host, what
//! [`decide`] makes of that, and where the outcome is kept.

use super::decide::{Decision, Facts, MxHosts, Origin, Source, dane_to_store, decide};
use super::discovery::DiscoveryOutcome;
use super::entry::{ElapsedSeconds, Entry};
use super::in_flight::{JoinOrStart, Pending, Purpose};
use super::overrides::Rule;
use super::route::{self, DaneHosts, NextHop, Route, RouteLookup};
use super::service::{Answers, Settings};
use super::sts::EffectivePolicy;
use formats::tls_policy::Answer;
use net::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::policies::StoredPolicy;
use tokio::sync::OwnedSemaphorePermit;

/// Everything that one look-up of a next hop observed and concluded, to be shown to people.
#[derive(Debug)]
pub struct LookupTrace {
    /// The MX hosts. Empty when the operator's rule gives the answer, which needs no look-up.
    pub route: Route,
    /// What MTA-STS discovery found; `None` when the operator's rule leaves MTA-STS out.
    pub sighting: Option<DiscoveryOutcome>,
    /// The rule of the operator's table that applies to the domain.
    pub rule: Option<Rule>,
    /// The answer for the mail server.
    pub answer: Answer,
    /// The protocol or rule that the answer comes from.
    pub source: Source,
}

/// Observations from outside, before anything is decided.
struct Observed {
    route: Route,
    sighting: Option<DiscoveryOutcome>,
    rule: Option<Rule>,
    /// The shortest TTL of the DNS answers; `None` when none had one.
    ttl: Option<Duration>,
}

impl Answers {
    /// Starts a look-up, or joins the one that is under way for this name. It goes on when nobody waits.
    pub(super) fn look_up(
        self: &Arc<Self>,
        hop: NextHop,
        name: String,
        purpose: Purpose,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Pending {
        match self.in_flight.join_or_start(name) {
            JoinOrStart::Joined(pending) => pending,
            JoinOrStart::Started(guard, pending) => {
                let service = self.clone();
                tokio::spawn(async move {
                    let entry = service.run_look_up(hop, guard.name(), purpose, permit).await;
                    guard.finish(entry);
                });
                pending
            }
        }
    }

    async fn run_look_up(
        &self,
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
            (Purpose::Asked, Some(stored)) => self.answer_from_store(&hop, stored, &settings),
            _ => None,
        };
        let entry = Arc::new(match remembered {
            Some(entry) => entry,
            None => {
                // An answer from the store needs no permit: a flood of slow names can't hold it up.
                let _permit = match permit {
                    Some(permit) => Some(permit),
                    None => self.asked.clone().acquire_owned().await.ok(),
                };
                self.look_up_and_store(&hop, name, stored, &settings).await
            }
        });
        let is_wanted = purpose != Purpose::Refresh || self.cache.contains(name);
        let is_current = generation == self.generation.load(Ordering::SeqCst);
        if is_wanted && is_current {
            // An answer without life replaces the old one as well (VAL-19, VAL-21).
            match entry.until > self.second() {
                true => self.cache.put(name, entry.clone()),
                false => drop(self.cache.remove(name)),
            }
        }
        self.metrics.looking.dec();
        entry
    }

    /// The answer by the policy in the store, so that no mail server waits after a start or an eviction;
    /// `None` when the store does not suffice. The next request starts a look-up.
    fn answer_from_store(&self, hop: &NextHop, stored: &StoredPolicy, settings: &Settings) -> Option<Entry> {
        let domain = hop.policy_domain();
        if settings.overrides.rule(domain).is_some() || matches!(hop, NextHop::Host(..)) {
            return None;
        }
        let held = self.discovery.live(stored)?;
        let policy_rest = Some(self.discovery.rest(&held));
        let decision = decide(&Facts {
            domain,
            hosts: MxHosts::Known(DaneHosts::from_text(&stored.dane)?),
            found: Some(&EffectivePolicy::Policy { held, trouble: None }),
            policy_rest,
            rule: None,
            testing: settings.testing.as_ref(),
            min_recheck: settings.recheck,
            origin: Origin::Stored,
        });
        (decision.source != Source::Failure).then(|| self.entry(&decision))
    }

    async fn look_up_and_store(
        &self,
        hop: &NextHop,
        name: &str,
        stored: Option<StoredPolicy>,
        settings: &Settings,
    ) -> Entry {
        let observed = self.observe(hop, stored, settings).await;
        if let Some(sighting) = &observed.sighting {
            if let Some(fetched) = &sighting.fetched {
                self.metrics.fetched(fetched);
            }
            let before = sighting.stored.as_ref().map_or("", |stored| stored.dane.as_str());
            let dane = dane_to_store(hop, &observed.route, before);
            self.discovery.keep(hop.policy_domain(), sighting, &dane).await;
        }
        let decision = self.decision(hop, &observed, settings);
        if decision.yields_to_cached
            && let Some(cached) = self.cache.get(name).filter(|cached| cached.until > self.second())
        {
            return cached.again(self.after(decision.recheck), cached.until);
        }
        self.entry(&decision)
    }

    /// Looks a next hop up and returns everything that was observed. Nothing is stored or cached.
    pub fn explain<'a>(&'a self, hop: &'a NextHop) -> BoxFuture<'a, LookupTrace> {
        Box::pin(async move {
            let settings = self.settings();
            let stored = self.discovery.stored(hop.policy_domain()).await;
            let observed = self.observe(hop, stored, &settings).await;
            let Decision { answer, source, .. } = self.decision(hop, &observed, &settings);
            let Observed { route, sighting, rule, .. } = observed;
            LookupTrace { route, sighting, rule, answer, source }
        })
    }

    /// Looks up what the decision needs: nothing, the MX hosts, or those and the policy side by side.
    async fn observe(&self, hop: &NextHop, stored: Option<StoredPolicy>, settings: &Settings) -> Observed {
        let domain = hop.policy_domain();
        let rule = settings.overrides.rule(domain).cloned();
        if rule.as_ref().is_some_and(|rule| rule.answer.is_some()) {
            return Observed { route: Route::Hosts(Vec::new()), sighting: None, rule, ttl: None };
        }
        let discovery = async {
            match rule.as_ref().is_none_or(Rule::uses_published_policy) {
                true => Some(self.discovery.look(domain, stored).await),
                false => None,
            }
        };
        let (RouteLookup { route, ttl }, sighting) =
            tokio::join!(route::look(self.dns.as_ref(), hop), discovery);
        let ttl = sighting.as_ref().and_then(|sighting| sighting.ttl).into_iter().chain(ttl).min();
        Observed { route, sighting, rule, ttl }
    }

    fn decision(&self, hop: &NextHop, observed: &Observed, settings: &Settings) -> Decision {
        let found = observed.sighting.as_ref().map(|sighting| &sighting.found);
        let policy_rest = match found {
            Some(EffectivePolicy::Policy { held, .. }) => Some(self.discovery.rest(held)),
            Some(EffectivePolicy::Unavailable(_) | EffectivePolicy::None) | None => None,
        };
        decide(&Facts {
            domain: hop.policy_domain(),
            hosts: MxHosts::of(&observed.route),
            found,
            policy_rest,
            rule: observed.rule.as_ref(),
            testing: settings.testing.as_ref(),
            min_recheck: settings.recheck,
            origin: Origin::LookedUp { ttl: observed.ttl },
        })
    }

    fn entry(&self, decision: &Decision) -> Entry {
        let Decision { answer, source, dane, recheck, until, .. } = decision;
        Entry::new(answer, *source, *dane, self.after(*recheck), self.after(*until))
    }

    fn after(&self, wait: Duration) -> ElapsedSeconds {
        let wait = ElapsedSeconds::try_from(wait.as_secs()).unwrap_or(ElapsedSeconds::MAX);
        self.second().saturating_add(wait)
    }
}
