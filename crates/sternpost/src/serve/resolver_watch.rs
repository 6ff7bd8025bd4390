//! Probes the resolver, at the start and then once a minute: whether it answers, and whether its answers still pass DNSSEC
//! validation. A resolver that changes later would otherwise defer all mail, or remove DANE, with no sign but the log of
//! single lookups. The state appears in the log, in `/readyz` and as the metric `sternpost_resolver_up`.

use config::failure::Failure;
use jiff::Timestamp;
use net::clock::Clock;
use net::dns::{DnsError, Resolver, Security};
use net::metrics::{self, Gauge, Registry};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The interval between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);

/// The state of the resolver, as a probe shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Answers are validated.
    Validates,
    /// The resolver answers, and nothing is validated.
    Unvalidated,
    /// Nothing validates, not even the root zone.
    Bogus,
    /// The resolver does not answer.
    Silent,
}

impl Condition {
    fn of(outcome: &Result<Security, DnsError>) -> Self {
        match outcome {
            Ok(Security::Secure) => Self::Validates,
            Ok(Security::Insecure | Security::Indeterminate) => Self::Unvalidated,
            Err(DnsError::Bogus) => Self::Bogus,
            Err(_) => Self::Silent,
        }
    }
}

/// The state of the resolver, for `/readyz` and `/metrics`.
pub struct ResolverStatus {
    clock: Arc<dyn Clock>,
    up: Gauge,
    seen: Mutex<ProbeHistory>,
}

#[derive(Debug, Default, Clone, Copy)]
struct ProbeHistory {
    /// The outcome of the last probe; `None` before the first.
    last: Option<Condition>,
    /// An earlier answer was validated.
    has_validated: bool,
    /// When the current problem was found; `None` while there is none.
    since: Option<Timestamp>,
}

impl ProbeHistory {
    /// What the last probe means for mail; `None` if nothing is wrong.
    fn problem(self) -> Option<&'static str> {
        match self.last? {
            Condition::Validates => None,
            Condition::Unvalidated if self.has_validated => {
                Some("the resolver no longer validates DNSSEC, so DANE no longer applies")
            }
            Condition::Unvalidated => None,
            Condition::Bogus => Some(
                "the resolver's answers fail DNSSEC validation, so mail to domains that are not cached is deferred",
            ),
            Condition::Silent => Some(
                "the resolver does not answer, so mail to domains that are not cached is deferred; check this machine's network, and the resolver in /etc/resolv.conf or [dns] servers",
            ),
        }
    }
}

impl ResolverStatus {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, up: Gauge::default(), seen: Mutex::default() }
    }

    /// Registers the metric `resolver_up`.
    pub fn register(&self, registry: &mut Registry) {
        metrics::RESOLVER_UP.register(registry, self.up.clone());
    }

    /// What is wrong with the resolver, and since when; `None` if nothing is.
    pub fn problem(&self) -> Option<(&'static str, Timestamp)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.problem().zip(seen.since)
    }

    /// Records a probe. Logs when the state has changed.
    fn record(&self, condition: Condition) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.problem();
        seen.last = Some(condition);
        seen.has_validated |= condition == Condition::Validates;
        let now = seen.problem();
        self.up.set(i64::from(now.is_none()));
        if before != now {
            seen.since = now.map(|_| self.clock.now());
        }
        match now {
            Some(problem) if before != now => tracing::error!("{problem}"),
            None if before.is_some() => tracing::info!("the resolver works again"),
            Some(_) | None => {}
        }
    }
}

/// Probes the resolver until the future is dropped. Returns only when the first probe shows that no answer can be
/// validated and the role `[answers]` runs: then every lookup would fail and all mail would be deferred, which is a
/// configuration error. The server starts and answers before the first probe ends.
pub async fn watch(resolver: Arc<Resolver>, answers_enabled: bool, status: Arc<ResolverStatus>) -> Failure {
    let first = resolver.probe().await;
    if let Some(failure) = obstacle(&first).filter(|_| answers_enabled) {
        return failure;
    }
    match &first {
        Err(error) => tracing::warn!("the resolver failed a query for the root zone: {error}"),
        Ok(Security::Secure) => tracing::info!("the resolver supports DNSSEC"),
        Ok(_) => tracing::warn!("DNSSEC is not validated, so DANE never applies"),
    }
    let mut condition = Condition::of(&first);
    loop {
        status.record(condition);
        tokio::time::sleep(PROBE_INTERVAL).await;
        condition = probe(&resolver).await;
    }
}

/// The failure with which the server ends after this first probe if it answers mail servers; `None` for any other result.
pub fn obstacle(probe: &Result<Security, DnsError>) -> Option<Failure> {
    matches!(probe, Err(DnsError::Bogus))
        .then(|| operations::world::no_dnssec("so all mail would be deferred"))
}

/// Probes with new connections and no cache. A resolver that is silent gets a second chance, since a packet may be lost.
async fn probe(resolver: &Resolver) -> Condition {
    match Condition::of(&resolver.probe_uncached().await) {
        Condition::Silent => Condition::of(&resolver.probe_uncached().await),
        condition => condition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_gets_worse_is_a_problem_and_one_that_never_validated_is_not() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let clock = Arc::new(net::clock::ManualClock::new(at(0)));
        let status = ResolverStatus::new(clock.clone());
        assert_eq!(status.problem(), None, "before the first probe");
        status.record(Condition::Unvalidated);
        assert_eq!((status.problem(), status.up.get()), (None, 1), "DNSSEC is off");
        for (condition, problem) in [
            (Condition::Validates, None),
            (Condition::Unvalidated, Some("no longer validates DNSSEC")),
            (Condition::Bogus, Some("fail DNSSEC validation")),
            (Condition::Silent, Some("does not answer")),
            (Condition::Validates, None),
        ] {
            clock.set_by(60);
            status.record(condition);
            clock.set_by(60);
            status.record(condition);
            let since = status.problem().map(|(_, since)| since);
            assert_eq!(
                since,
                problem.map(|_| clock.now() - jiff::SignedDuration::from_secs(60)),
                "{condition:?}"
            );
            let told = status.problem().map(|(problem, _)| problem);
            assert_eq!(told.is_some(), problem.is_some(), "{condition:?}");
            assert!(
                told.unwrap_or_default().contains(problem.unwrap_or_default()),
                "{condition:?}: {told:?}"
            );
            assert_eq!(status.up.get(), i64::from(problem.is_none()));
        }
    }
}
