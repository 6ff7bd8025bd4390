//! Looks for the policy of a domain, and remembers it.

use super::policy_reader::PolicyReader;
use super::policy_writer::PolicyWriter;
use super::sts::{
    Action, EffectivePolicy, FailedFetch, HeldPolicy, PolicyUnavailable, RecordLookup, conclude, next,
};
use formats::limits::{FAILURE_RECHECK, POLICY_REFRESH};
use formats::sts_record::SelectError;
use formats::{DomainName, Policy, PolicyId, StsRecord};
use jiff::{SignedDuration, Timestamp};
use net::clock::{CalendarAge, Clock};
use net::dns::{Dns, Kind};
use net::https::PolicyHosts;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use store::policies::StoredPolicy;

/// Looks for policies; what it finds is in the store before it is answered.
///
/// When the store fails, the fault is logged and what was found lives in memory, so that answers
/// go on; it is written as soon as the store works again.
pub struct Discovery {
    dns: Arc<dyn Dns>,
    hosts: Arc<dyn PolicyHosts>,
    store: Store,
    policy_writer: PolicyWriter,
    policy_reader: PolicyReader,
    life: CalendarAge,
    failures: Mutex<HashMap<DomainName, FailedFetch>>,
    unsaved: Mutex<HashMap<DomainName, HeldPolicy>>,
}

/// What was found, and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryOutcome {
    /// The policy to go by.
    pub found: EffectivePolicy,
    /// The record that it was judged by.
    pub seen: RecordLookup,
    /// For how long the record, or its absence, may be remembered.
    pub ttl: Option<Duration>,
    /// How a fetch ended, when there was one.
    pub fetched: Option<Result<(), PolicyUnavailable>>,
    /// What the store knew before, when it knew the domain.
    pub stored: Option<StoredPolicy>,
}

/// How many failures are remembered for their back-off, and how many policies that could not be
/// written.
const MAX_REMEMBERED: usize = 10_000;

impl Discovery {
    /// A discovery by these means. It starts a task of its own, so it needs a runtime.
    pub fn new(dns: Arc<dyn Dns>, hosts: Arc<dyn PolicyHosts>, store: Store, clock: Arc<dyn Clock>) -> Self {
        Self {
            dns,
            hosts,
            policy_writer: PolicyWriter::new(store.clone()),
            policy_reader: PolicyReader::new(store.clone()),
            store,
            life: CalendarAge::new(clock),
            failures: Mutex::default(),
            unsaved: Mutex::default(),
        }
    }

    /// The policy that mail to `domain` goes by now, with the record it was judged by; what is new is
    /// kept.
    pub async fn find(&self, domain: &DomainName) -> DiscoveryOutcome {
        let sighting = self.look(domain, self.stored(domain).await).await;
        self.keep(domain, &sighting, "").await;
        sighting
    }

    /// The same without keeping what is new: [`Self::keep`] is to follow. `stored` is what
    /// [`Self::stored`] has just said.
    pub async fn look(&self, domain: &DomainName, stored: Option<StoredPolicy>) -> DiscoveryOutcome {
        let unsaved = lock(&self.unsaved).get(domain).cloned();
        let held = unsaved.or_else(|| held(stored.as_ref()?));
        let (seen, ttl) = self.record(domain).await;
        let now = held.as_ref().map_or_else(|| self.life.now(), |held| self.life.now_since(held.fetched_at));
        let failed = lock(&self.failures).get(domain).cloned();
        let next = next(&seen, held.as_ref(), failed.as_ref(), now, self.life.elapsed());
        let fetched = match next.clone() {
            Action::Keep => {
                failed.filter(|failed| announces(&seen, &failed.id)).map(|failed| Err(failed.why))
            }
            Action::Fetch(id) => Some(self.fetch(domain, id).await),
        };
        if let Some(Ok(new)) = &fetched {
            log_change(domain, held.as_ref(), new);
        }
        let tried = fetched.as_ref().filter(|_| next != Action::Keep);
        let tried = tried.map(|outcome| outcome.as_ref().map(|_| ()).map_err(Clone::clone));
        let found = conclude(held, fetched, now);
        if let Some(why) = found.complaint().filter(|_| tried.is_some()) {
            tracing::warn!(%domain, "{why}");
        }
        DiscoveryOutcome { found, seen, ttl, fetched: tried, stored }
    }

    /// Keeps what was found, with what DANE was seen to say (see [`StoredPolicy::dane`]), and notes
    /// once a day that it is in use.
    pub async fn keep(&self, domain: &DomainName, sighting: &DiscoveryOutcome, dane: &str) {
        let EffectivePolicy::Policy { held, .. } = &sighting.found else { return };
        let is_new = matches!(sighting.fetched, Some(Ok(())));
        if is_new || lock(&self.unsaved).contains_key(domain) {
            return self.write(domain, held, dane).await;
        }
        let Some(stored) = &sighting.stored else { return };
        let now = self.life.now();
        let is_old = now.duration_since(stored.used_at) > SignedDuration::from_hours(24);
        if (is_old || stored.dane != dane)
            && let Err(error) = self.store.policy_used(domain, now, dane).await
        {
            tracing::error!(%domain, "that its policy is in use can't be written: {error}");
        }
    }

    /// The policy in a row of the store, if it is live.
    pub fn live(&self, stored: &StoredPolicy) -> Option<HeldPolicy> {
        held(stored).filter(|held| held.is_live(self.life.now_since(held.fetched_at)))
    }

    /// The policy that is remembered of a domain, live or not.
    pub async fn held(&self, domain: &DomainName) -> Option<HeldPolicy> {
        let unsaved = lock(&self.unsaved).get(domain).cloned();
        match unsaved {
            Some(unsaved) => Some(unsaved),
            None => held(&self.stored(domain).await?),
        }
    }

    /// What the store has of a domain. That it fails is logged.
    pub async fn stored(&self, domain: &DomainName) -> Option<StoredPolicy> {
        match self.policy_reader.policy(domain).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(%domain, "what is remembered of it can't be read, so it is looked up as if it were new: {error}");
                None
            }
        }
    }

    /// How long a policy has yet to live.
    pub fn rest(&self, held: &HeldPolicy) -> Duration {
        let now = self.life.now_since(held.fetched_at);
        Duration::try_from(held.expires_at().duration_since(now)).unwrap_or(Duration::ZERO)
    }

    /// The time by the calendar.
    pub fn now(&self) -> Timestamp {
        self.life.now()
    }

    /// The time without the steps forward that the calendar took while the process ran, so that none
    /// of them expires anything.
    pub fn steady_now(&self) -> Timestamp {
        self.life.now_since(Timestamp::MIN)
    }

    /// Forgets a failed fetch, so that the next look does not wait.
    pub fn forget_failure(&self, domain: &DomainName) {
        lock(&self.failures).remove(domain);
    }

    /// Forgets what it knows of a domain beside the store.
    pub fn forget(&self, domain: &DomainName) {
        lock(&self.failures).remove(domain);
        lock(&self.unsaved).remove(domain);
    }

    async fn record(&self, domain: &DomainName) -> (RecordLookup, Option<Duration>) {
        let Ok(name) = domain.below("_mta-sts") else { return (RecordLookup::Absent, None) };
        match self.dns.lookup(&name, Kind::Txt).await {
            Ok(answer) => {
                let seen = match StsRecord::select(answer.texts()) {
                    Ok(record) => RecordLookup::Published(record),
                    Err(SelectError::None) => RecordLookup::Absent,
                    Err(invalid) => RecordLookup::Invalid(invalid),
                };
                (seen, Some(answer.ttl))
            }
            Err(error) => match error.nothing() {
                Some(nothing) => (RecordLookup::Absent, nothing.ttl),
                // An attacker who blocks one question gains no more than this.
                None => (RecordLookup::Unknown(error), Some(FAILURE_RECHECK)),
            },
        }
    }

    async fn fetch(&self, domain: &DomainName, id: PolicyId) -> Result<HeldPolicy, PolicyUnavailable> {
        let outcome = self.fetch_and_parse(domain, &id).await;
        let mut failures = lock(&self.failures);
        failures.remove(domain);
        if let Err(why) = &outcome {
            if failures.len() >= MAX_REMEMBERED {
                failures.clear();
            }
            failures.insert(domain.clone(), FailedFetch { id, at: self.life.elapsed(), why: why.clone() });
        }
        outcome
    }

    async fn fetch_and_parse(
        &self,
        domain: &DomainName,
        id: &PolicyId,
    ) -> Result<HeldPolicy, PolicyUnavailable> {
        let fetched = self.hosts.fetch(domain).await?;
        let policy = Policy::parse(&fetched.body)?;
        // A valid policy is UTF-8, so nothing is lost here.
        let body = String::from_utf8_lossy(&fetched.body).into_owned();
        Ok(HeldPolicy { policy, body, id: id.clone(), fetched_at: self.life.now() })
    }

    async fn write(&self, domain: &DomainName, held: &HeldPolicy, dane: &str) {
        let stored = StoredPolicy {
            domain: domain.clone(),
            record_id: held.id.clone(),
            body: held.body.clone(),
            mode: held.policy.mode,
            fetched_at: held.fetched_at,
            expires_at: held.expires_at(),
            refresh_at: spread(domain, held),
            dane: dane.to_owned(),
            used_at: held.fetched_at,
        };
        match self.policy_writer.keep(stored).await {
            Ok(()) => {
                lock(&self.unsaved).remove(domain);
            }
            Err(why) => {
                tracing::error!(%domain, "the policy is in force but could not be written, and a restart would lose it: {why}");
                let mut unsaved = lock(&self.unsaved);
                if unsaved.len() < MAX_REMEMBERED || unsaved.contains_key(domain) {
                    unsaved.insert(domain.clone(), held.clone());
                }
            }
        }
    }
}

fn log_change(domain: &DomainName, old: Option<&HeldPolicy>, new: &HeldPolicy) {
    let (mode, id) = (new.policy.mode, &new.id);
    match old {
        Some(old) if old.policy.mode == mode && old.body == new.body => {}
        Some(old) => tracing::info!(%domain, %mode, %id, was = %old.policy.mode, "the policy has changed"),
        None => tracing::info!(%domain, %mode, %id, "a policy is new"),
    }
}

/// The policy as it was fetched; none when what is stored is no policy any more.
fn held(stored: &StoredPolicy) -> Option<HeldPolicy> {
    Some(HeldPolicy {
        policy: Policy::parse(stored.body.as_bytes()).ok()?,
        body: stored.body.clone(),
        id: stored.record_id.clone(),
        fetched_at: stored.fetched_at,
    })
}

/// When the refresh is due: up to a quarter sooner by the domain's name, so that what was fetched
/// together is not fetched together for ever.
fn spread(domain: &DomainName, held: &HeldPolicy) -> Timestamp {
    let most =
        i64::try_from(POLICY_REFRESH.as_secs()).unwrap_or(i64::MAX).min(i64::from(held.policy.max_age) / 2)
            / 4;
    let name = domain.as_str().bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 1_000_003);
    let sooner = if most == 0 { 0 } else { name % most };
    held.refresh_at().saturating_sub(SignedDuration::from_secs(sooner)).unwrap_or(held.refresh_at())
}

fn announces(seen: &RecordLookup, id: &PolicyId) -> bool {
    matches!(seen, RecordLookup::Published(record) if record.id == *id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
