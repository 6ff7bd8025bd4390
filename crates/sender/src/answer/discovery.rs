//! MTA-STS discovery: finds the policy of a domain and stores it (RFC 8461 §3, §5.1).
//!
//! [`Discovery`] looks up the `_mta-sts` record in DNS and fetches the policy over HTTPS when [`super::sts`] says so.
//! [`super::PolicyService`] calls it for each lookup of a next hop and for the daily refresh.

use super::policy_reader::PolicyReader;
use super::policy_writer::{NewPolicy, PolicyWriter, Written};
use super::sts::{
    Action, EffectivePolicy, FailedFetch, HeldPolicy, PolicyUnavailable, RecordLookup, conclude, next_action,
};
use formats::limits::{FAILURE_RECHECK, POLICY_REFRESH};
use formats::sts_record::SelectError;
use formats::{DomainName, Policy, PolicyId, StsRecord};
use jiff::{SignedDuration, Timestamp};
use net::clock::{CalendarAge, Clock};
use net::dns::{Dns, Kind};
use net::https::PolicyHosts;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::policies::{Fetched, PolicyWrite, StoredPolicy};
use store::{Outage, Store};

/// Finds policies and stores them before they are used.
///
/// When the store fails, the failure is logged and new policies are held in memory, so answers continue. They are
/// written when their domain is next looked up and the store works again. If by then the store has a newer one, from an import or
/// another process, that one applies (VAL-19).
pub struct Discovery {
    dns: Arc<dyn Dns>,
    hosts: Arc<dyn PolicyHosts>,
    store: Store,
    policy_writer: PolicyWriter,
    policy_reader: PolicyReader,
    clock: CalendarAge,
    /// The monotonic time of the start.
    started: Duration,
    /// The last failed fetch of each domain, for the back-off.
    failures: Mutex<HashMap<DomainName, FailedFetch>>,
    /// Domains whose policy the operator wants fetched at the next lookup, whatever its `id` is.
    refetch_requested: Mutex<HashSet<DomainName>>,
    /// Policies that could not be written to the store.
    unsaved: Mutex<HashMap<DomainName, Unsaved>>,
    /// The number of policies that were fetched.
    fetches: AtomicU64,
    /// Failures to read policies from the store.
    reading: Outage,
    /// Failures to write policies and their time of use to the store.
    writing: Outage,
}

/// A policy that could not be written to the store, or not yet.
#[derive(Debug, Clone)]
struct Unsaved {
    held: HeldPolicy,
    /// See [`DiscoveryOutcome::order`].
    order: u64,
    /// The time of the fetch of the stored policy that it replaces, in seconds.
    replaces: Option<Timestamp>,
}

impl Unsaved {
    /// True if the stored policy is not the one to be replaced, and was fetched later.
    fn is_older_than(&self, stored: &StoredPolicy) -> bool {
        let second = |time: Timestamp| time.as_second();
        self.replaces.map(second) != Some(second(stored.fetched_at))
            && second(self.held.fetched_at) < second(stored.fetched_at)
    }
}

/// The result of a discovery, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryOutcome {
    /// The policy that applies.
    pub found: EffectivePolicy,
    /// The result of the lookup of the `_mta-sts` record.
    pub seen: RecordLookup,
    /// The TTL of the record or of its absence; `None` when the DNS answer had none.
    pub ttl: Option<Duration>,
    /// The result of the fetch; `None` when there was none.
    pub fetched: Option<Result<(), PolicyUnavailable>>,
    /// The stored policy before the discovery; `None` when the store had none.
    pub stored: Option<StoredPolicy>,
    /// The place of the fetched policy among all policies that this process fetched, from 1. 0 when none was fetched.
    pub order: u64,
}

/// The reason for looking up a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// For a message, or to recheck an answer: a held policy is fetched again when that is due.
    Mail,
    /// The refresh time in the store has come, which may be up to six hours before the policy is due by itself: the
    /// policy is fetched again.
    Refresh,
}

/// The time of the last use is stored at most once in this time for each domain.
const USE_INTERVAL: SignedDuration = SignedDuration::from_hours(24);
/// The maximum number of failed fetches, and of unsaved policies, in memory.
const MAX_IN_MEMORY: usize = 10_000;

/// What the log says at the end of an outage.
const STORED_AGAIN: &str = "policies are stored again";

/// The store failed, so that nothing is known about the stored policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreFailed;

impl Discovery {
    /// Spawns the tasks that read and write policies, so it must be called within a Tokio runtime.
    pub fn new(dns: Arc<dyn Dns>, hosts: Arc<dyn PolicyHosts>, store: Store, clock: Arc<dyn Clock>) -> Self {
        Self {
            dns,
            hosts,
            policy_writer: PolicyWriter::new(store.clone()),
            policy_reader: PolicyReader::new(store.clone()),
            store,
            started: clock.elapsed(),
            clock: CalendarAge::new(clock),
            failures: Mutex::default(),
            refetch_requested: Mutex::default(),
            unsaved: Mutex::default(),
            fetches: AtomicU64::new(0),
            reading: Outage::new(),
            writing: Outage::new(),
        }
    }

    /// Finds the policy that applies to mail for `domain`, and stores a new one.
    pub async fn find(&self, domain: &DomainName) -> DiscoveryOutcome {
        let outcome = self.discover(domain, self.stored(domain).await, Occasion::Mail).await;
        self.save(domain, &outcome, "", true).await;
        outcome
    }

    /// Finds the policy without storing it; call [`Self::save`] afterwards. `stored` is the result of [`Self::stored`].
    pub async fn discover(
        &self,
        domain: &DomainName,
        stored: Option<StoredPolicy>,
        occasion: Occasion,
    ) -> DiscoveryOutcome {
        let held = self.newest(domain, stored.as_ref());
        let (seen, ttl) = self.record(domain).await;
        let now =
            held.as_ref().map_or_else(|| self.clock.now(), |held| self.clock.now_since(held.fetched_at));
        let failed = lock(&self.failures).get(domain).cloned();
        let due_by = match (occasion, &held) {
            (Occasion::Refresh, Some(held)) => now.max(held.refresh_at()),
            _ => now,
        };
        let is_asked = lock(&self.refetch_requested).remove(domain);
        let action = match &seen {
            RecordLookup::Published(record) if is_asked => Action::Fetch(record.id.clone()),
            _ => next_action(&seen, held.as_ref(), failed.as_ref(), due_by, self.clock.elapsed()),
        };
        let fetched = match action.clone() {
            Action::Keep => {
                failed.filter(|failed| announces(&seen, &failed.id)).map(|failed| Err(failed.why))
            }
            Action::Fetch(id) => Some(self.fetch(domain, id).await),
        };
        let order = match &fetched {
            Some(Ok(_)) => self.fetches.fetch_add(1, Ordering::Relaxed) + 1,
            Some(Err(_)) | None => 0,
        };
        if let Some(Ok(new)) = &fetched {
            log_change(domain, held.as_ref(), new);
        }
        let tried = fetched.as_ref().filter(|_| action != Action::Keep);
        let tried = tried.map(|outcome| outcome.as_ref().map(|_| ()).map_err(Clone::clone));
        let found = conclude(held, fetched, now);
        if let Some(why) = found.renewal_warning().filter(|_| tried.is_some()) {
            tracing::warn!(%domain, "{why}");
        }
        DiscoveryOutcome { found, seen, ttl, fetched: tried, stored, order }
    }

    /// Stores a new policy with the DANE counts `dane` (see [`StoredPolicy::dane`]). For a policy that is not new, it
    /// updates the counts when they changed. `is_use` is true for the lookup of a mail server; then the time of use is
    /// updated once a day. Returns `Written::Superseded` if the store has a policy that was fetched later.
    pub async fn save(
        &self,
        domain: &DomainName,
        outcome: &DiscoveryOutcome,
        dane: &str,
        is_use: bool,
    ) -> Written {
        let EffectivePolicy::Policy { held, .. } = &outcome.found else { return Written::InForce };
        let new = match outcome.fetched {
            Some(Ok(())) => {
                let replaces = outcome.stored.as_ref().map(|stored| stored.fetched_at);
                Some(Unsaved { held: held.clone(), order: outcome.order, replaces })
            }
            _ => lock(&self.unsaved).get(domain).filter(|unsaved| unsaved.held == *held).cloned(),
        };
        let is_written = new.is_some();
        let written = match new {
            Some(new) => self.write(domain, new, dane).await,
            None => Written::InForce,
        };
        if let Some(stored) = &outcome.stored {
            let used_at = is_use.then(|| self.use_to_store(stored)).flatten();
            let dane = Some(dane).filter(|dane| !is_written && stored.dane != *dane);
            self.update(domain, used_at, dane).await;
        }
        written
    }

    /// Stores that the policy in a row of the store was used, if the last stored use is a day old.
    pub async fn used(&self, stored: &StoredPolicy) {
        self.update(&stored.domain, self.use_to_store(stored), None).await;
    }

    /// The time of this use; `None` while the stored one is less than a day off.
    fn use_to_store(&self, stored: &StoredPolicy) -> Option<Timestamp> {
        let now = self.clock.now();
        (now.duration_since(stored.used_at).abs() > USE_INTERVAL).then_some(now)
    }

    async fn update(&self, domain: &DomainName, used_at: Option<Timestamp>, dane: Option<&str>) {
        if used_at.is_none() && dane.is_none() {
            return;
        }
        let stored = self.store.policy_used(domain, used_at, dane).await;
        self.writing.log(&stored, "the time of use of policies can't be stored", STORED_AGAIN);
    }

    /// The policy in a row of the store; `None` when it has expired.
    pub fn live(&self, stored: &StoredPolicy) -> Option<HeldPolicy> {
        held(stored).filter(|held| self.is_live(held))
    }

    /// The newest policy of the domain of a row of the store, which may be one that could not be stored; `None` when it
    /// has expired.
    pub(super) fn newest_live(&self, stored: &StoredPolicy) -> Option<HeldPolicy> {
        self.newest(&stored.domain, Some(stored)).filter(|held| self.is_live(held))
    }

    fn is_live(&self, held: &HeldPolicy) -> bool {
        held.is_live(self.clock.now_since(held.fetched_at))
    }

    /// The policy held for a domain, in memory or in the store, even if it has expired.
    pub async fn held(&self, domain: &DomainName) -> Option<HeldPolicy> {
        let stored = self.stored(domain).await;
        self.newest(domain, stored.as_ref())
    }

    /// As [`Self::held`]; `None` if it has expired.
    pub async fn live_held(&self, domain: &DomainName) -> Option<HeldPolicy> {
        self.held(domain).await.filter(|held| self.is_live(held))
    }

    /// The newest policy of a domain: the stored one, or one in memory that could not be stored. The one in memory is
    /// forgotten if it is older.
    fn newest(&self, domain: &DomainName, stored: Option<&StoredPolicy>) -> Option<HeldPolicy> {
        let from_store = stored.and_then(held);
        let mut unsaved = lock(&self.unsaved);
        let Some(in_memory) = unsaved.get(domain) else { return from_store };
        if from_store.is_some() && stored.is_some_and(|stored| in_memory.is_older_than(stored)) {
            unsaved.remove(domain);
            return from_store;
        }
        Some(in_memory.held.clone())
    }

    /// True unless a newer policy of the domain is in memory because it could not be stored.
    pub(super) fn is_newest(&self, stored: &StoredPolicy) -> bool {
        self.newest(&stored.domain, Some(stored));
        !self.has_unsaved(&stored.domain)
    }

    /// True if a policy from elsewhere was fetched later than the one of its domain that could not be stored, if any.
    pub(super) fn is_newer_than_unsaved(&self, other: &StoredPolicy) -> bool {
        let unsaved = lock(&self.unsaved);
        unsaved.get(&other.domain).is_none_or(|unsaved| unsaved.held.fetched_at < other.fetched_at)
    }

    /// The stored policy of a domain; `None` when there is none or the store fails, which is logged.
    pub async fn stored(&self, domain: &DomainName) -> Option<StoredPolicy> {
        self.read_stored(domain).await.ok().flatten()
    }

    /// The stored policy of a domain; an error, which is logged, when the store fails.
    pub(super) async fn read_stored(&self, domain: &DomainName) -> Result<Option<StoredPolicy>, StoreFailed> {
        let stored = self.policy_reader.policy(domain).await;
        if let Err(error) = &stored
            && self.reading.is_news(error)
        {
            tracing::error!(%domain, "the stored policy can't be read, so the domain is looked up as if it were new: {error}");
        }
        if let (Ok(_), Some(failures)) = (&stored, self.reading.ends()) {
            tracing::info!(failures, "stored policies are read again");
        }
        stored.map_err(|_| StoreFailed)
    }

    /// True if a policy of the domain is in memory because it could not be stored.
    pub(super) fn has_unsaved(&self, domain: &DomainName) -> bool {
        lock(&self.unsaved).contains_key(domain)
    }

    /// The time until a policy expires; zero when it has expired. It is at most `max_age`, however the clock was set: after a
    /// step forward and a smaller one back, a fetch seems to lie before both (VAL-21).
    pub fn remaining_life(&self, held: &HeldPolicy) -> Duration {
        let now = self.clock.now_since(held.fetched_at);
        let rest = Duration::try_from(held.expires_at().duration_since(now)).unwrap_or(Duration::ZERO);
        rest.min(Duration::from_secs(u64::from(held.policy.max_age)))
    }

    /// The current wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time since the start of this process.
    pub(super) fn uptime(&self) -> Duration {
        self.clock.elapsed().saturating_sub(self.started)
    }

    /// The stored policies by the time of their fetch, each set with the current time for its age: a forward step of
    /// the clock does not age what was fetched before it.
    pub fn sets(&self) -> Vec<Fetched> {
        let segments = self.clock.segments().into_iter();
        segments.map(|each| Fetched { after: each.after, until: each.until, now: each.now }).collect()
    }

    /// The current time for the age of a stored policy, as in [`Self::sets`].
    pub fn now_for(&self, stored: &StoredPolicy) -> Timestamp {
        self.clock.now_since(stored.fetched_at)
    }

    /// A policy that was last used before this time has not been used for `unused`.
    pub fn used_since(&self, unused: Duration) -> Timestamp {
        self.clock.oldest_within(SignedDuration::try_from(unused).unwrap_or(SignedDuration::MAX))
    }

    /// Makes the next lookup fetch the policy at once: without the back-off after a failed fetch, and although the `id`
    /// is the known one. A corrected policy may be there before its `id` is seen, which DNS caches delay.
    pub fn fetch_at_next_look_up(&self, domain: &DomainName) {
        let mut refetch_requested = lock(&self.refetch_requested);
        if refetch_requested.len() < MAX_IN_MEMORY {
            refetch_requested.insert(domain.clone());
        }
    }

    /// Forgets everything in memory about a domain. The store is not changed.
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
                // An attacker who blocks one query delays the next lookup by no more than this.
                None => (RecordLookup::Unknown(error), Some(FAILURE_RECHECK)),
            },
        }
    }

    async fn fetch(&self, domain: &DomainName, id: PolicyId) -> Result<HeldPolicy, PolicyUnavailable> {
        let outcome = self.fetch_and_parse(domain, &id).await;
        let mut failures = lock(&self.failures);
        failures.remove(domain);
        if let Err(why) = &outcome {
            if failures.len() >= MAX_IN_MEMORY {
                failures.clear();
            }
            failures.insert(domain.clone(), FailedFetch { id, at: self.clock.elapsed(), why: why.clone() });
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
        // A valid policy is UTF-8, so the conversion is lossless.
        let body = String::from_utf8_lossy(&fetched.body).into_owned();
        Ok(HeldPolicy { policy, body, id: id.clone(), fetched_at: self.clock.now() })
    }

    async fn write(&self, domain: &DomainName, new: Unsaved, dane: &str) -> Written {
        let row = PolicyWrite { policy: to_store(domain, &new.held, dane), replaces: new.replaces };
        let outcome = self.policy_writer.write(NewPolicy { row, order: new.order }).await;
        let mut unsaved = lock(&self.unsaved);
        if unsaved.get(domain).is_some_and(|known| known.order > new.order) {
            // The newer policy stays in force although it could not be stored.
            return Written::Superseded;
        }
        match outcome {
            Ok(written) => {
                unsaved.remove(domain);
                if let Some(failures) = self.writing.ends() {
                    tracing::info!(failures, "{STORED_AGAIN}");
                }
                written
            }
            Err(why) => {
                if self.writing.begins() {
                    tracing::error!(%domain, "the policy is in force but could not be stored, and a restart would lose it: {why}");
                }
                if unsaved.len() < MAX_IN_MEMORY || unsaved.contains_key(domain) {
                    unsaved.insert(domain.clone(), new);
                }
                Written::InForce
            }
        }
    }
}

fn log_change(domain: &DomainName, old: Option<&HeldPolicy>, new: &HeldPolicy) {
    let (mode, id) = (new.policy.mode, &new.id);
    match old {
        Some(old) if old.policy.mode == mode && old.body == new.body => {}
        Some(old) => tracing::info!(%domain, %mode, %id, was = %old.policy.mode, "policy changed"),
        None => tracing::info!(%domain, %mode, %id, "new policy"),
    }
}

/// Parses a stored policy; `None` when the stored text is no longer valid.
fn held(stored: &StoredPolicy) -> Option<HeldPolicy> {
    Some(HeldPolicy {
        policy: Policy::parse(stored.body.as_bytes()).ok()?,
        body: stored.body.clone(),
        id: stored.record_id.clone(),
        fetched_at: stored.fetched_at,
    })
}

/// The row of the store for a policy; `dane` as in [`StoredPolicy::dane`].
pub(super) fn to_store(domain: &DomainName, held: &HeldPolicy, dane: &str) -> StoredPolicy {
    StoredPolicy {
        domain: domain.clone(),
        record_id: held.id.clone(),
        body: held.body.clone(),
        mode: held.policy.mode,
        fetched_at: held.fetched_at,
        expires_at: held.expires_at(),
        refresh_at: spread_refresh(domain, held),
        dane: dane.to_owned(),
        used_at: held.fetched_at,
    }
}

/// The time of the refresh, up to a quarter of the interval earlier. The shift depends on the domain, so that policies
/// fetched together are not always refreshed together.
fn spread_refresh(domain: &DomainName, held: &HeldPolicy) -> Timestamp {
    let max_shift =
        i64::try_from(POLICY_REFRESH.as_secs()).unwrap_or(i64::MAX).min(i64::from(held.policy.max_age) / 2)
            / 4;
    let hash = domain.as_str().bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 1_000_003);
    let shift = if max_shift == 0 { 0 } else { hash % max_shift };
    held.refresh_at().saturating_sub(SignedDuration::from_secs(shift)).unwrap_or(held.refresh_at())
}

/// True if the record announces this `id`.
fn announces(lookup: &RecordLookup, id: &PolicyId) -> bool {
    matches!(lookup, RecordLookup::Published(record) if record.id == *id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
