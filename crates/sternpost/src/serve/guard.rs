//! The role `[guard]`: checks each domain at the configured interval. It raises an alert when a problem begins and ends
//! it when the problem is over; `messages` delivers both. It adds MX hosts to a policy and continues a plan where the
//! configuration allows that. The checks themselves are in [`receiver::rollout::guard`], the active alerts in
//! `alert_book`.
//!
//! Checks are evenly spread over the interval, and several run at once. Each ends by a deadline. Domains whose last
//! check was slow wait for a few slots of their own, so that they hold up no other domain.
//!
//! Several processes with one store share the domains: each claims those that are due (`store::guard_schedule`). What follows
//! from a check happens where it ran. The alerts are kept by one process at a time (`lead`), which reads the verdicts of the
//! others from the store.

mod check;
mod follow;
mod lead;
mod own_alerts;
mod reach;
mod shared_sessions;
mod slots;

use super::alert_book::AlertBook;
use super::messages::Messenger;
use check::{CheckError, Verdict, check};
use config::GuardConfig;
use follow::{PlanEnd, follow};
use formats::DomainName;
use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use lead::{Lead, Leading};
use net::clock::later;
use net::metrics::{self, Counter, Gauge, Registry};
use operations::RolloutContext;
use own_alerts::check_failed;
use reach::raised_after;
use receiver::domain::DomainSpec;
use receiver::rollout::guard::{Alert, AlertKind, GuardError};
use serde::{Deserialize, Serialize};
use shared_sessions::SharedSessions;
use slots::CheckSlots;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use store::StoreError;
use store::guard_schedule::{CheckClaim, CheckOutcome, CheckRow, FinishedCheck};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Checks in a row that failed, or that reached no MX host, after which an alert is raised.
const FAILED_CHECKS: u32 = 3;
/// The part of the deadline after which a check counts as slow.
const SLOW_SHARE: u32 = 6;
/// Time between two looks for domains that are due.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a domain is claimed for: after a crash of this process, another one checks it from then on.
const CLAIM_TIME: SignedDuration = SignedDuration::from_secs(30);
/// Time between two renewals of the claim while a check runs.
const CLAIM_RENEWAL: Duration = Duration::from_secs(8);
/// Verdicts of other processes that are read at once.
const VERDICTS: u32 = 500;
/// The part of the slots for plans that plans of slow domains have in addition.
const SLOW_PLANS: usize = 4;

/// The state of the running guard.
pub struct GuardRole {
    /// Replaced after each pass, so that checks that still run keep theirs.
    context: Arc<RolloutContext>,
    /// The watched domains of the context, by name.
    watched: BTreeMap<String, DomainSpec>,
    config: Arc<GuardConfig>,
    /// The alerts; up to date while `lead` is held, otherwise only for the metrics.
    book: AlertBook,
    lead: Lead,
    sessions: Arc<SharedSessions>,
    slots: CheckSlots,
    /// The claims of the checks that run, and when each was made or renewed.
    running: BTreeMap<String, (CheckClaim, Instant)>,
    /// Whether more domains are due than had a slot.
    has_backlog: bool,
    /// When the verdicts of other processes are read next.
    next_verdicts: Instant,
    tasks: JoinSet<Done>,
    /// Slots for continued plans, which may wait for name servers.
    plans: Arc<Semaphore>,
    /// Slots for the plans of domains whose last check was slow, or whose last plan did not end in its time.
    slow_plans: Arc<Semaphore>,
    /// Domains whose last plan did not end in its time.
    late_plans: BTreeSet<DomainName>,
    counts: Counts,
}

/// The guard's metrics beside those of the alerts.
#[derive(Debug, Clone, Default)]
struct Counts {
    looks: Counter,
    failed: Counter,
    late: Counter,
    cycle: Gauge<f64, AtomicU64>,
    running: Gauge,
    /// The Unix time of the end of the last check.
    last: Gauge,
}

impl Counts {
    fn register(&self, registry: &mut Registry) {
        metrics::GUARD_LOOKS.register(registry, self.looks.clone());
        metrics::GUARD_FAILED_LOOKS.register(registry, self.failed.clone());
        metrics::GUARD_LATE_LOOKS.register(registry, self.late.clone());
        metrics::GUARD_CYCLE.register(registry, self.cycle.clone());
        metrics::GUARD_RUNNING_LOOKS.register(registry, self.running.clone());
        metrics::GUARD_LAST_LOOK.register(registry, self.last.clone());
    }
}

/// A check that the metrics count while this exists, however the check ends.
struct RunningCheck(Gauge);

impl RunningCheck {
    fn counted(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for RunningCheck {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A finished task.
enum Done {
    /// A check.
    Checked(Box<Checked>),
    /// What follows a check: a promotion and a continued plan.
    Followed(DomainName, PlanEnd),
}

/// A finished check.
struct Checked {
    spec: DomainSpec,
    claim: CheckClaim,
    /// When the check was claimed.
    begun: Timestamp,
    took: Duration,
    /// Whether the check had one of the slots for slow domains.
    was_slow: bool,
    /// The verdict, or why the check has none.
    verdict: Result<Verdict, CheckError>,
}

/// The end of a check, as it is stored for the process that keeps the alerts.
#[derive(Debug, Serialize, Deserialize)]
enum StoredVerdict {
    /// The alerts of a complete check.
    Alerts(Vec<Alert>),
    /// Why the check failed.
    Failed(String),
}

impl GuardRole {
    pub fn new(context: RolloutContext, config: GuardConfig) -> Self {
        let channels = Messenger::channels(&config);
        let mut role = Self {
            book: AlertBook::new(context.store.clone(), context.world.clock.clone(), channels)
                .of(&context.tenant),
            lead: Lead::new(context.store.clone()),
            sessions: Arc::new(SharedSessions::new(context.world.mail.clone(), config.every)),
            context: Arc::new(context),
            watched: BTreeMap::new(),
            plans: Arc::new(Semaphore::new(config.at_once)),
            slow_plans: Arc::new(Semaphore::new((config.at_once / SLOW_PLANS).max(1))),
            late_plans: BTreeSet::new(),
            slots: CheckSlots::new(config.at_once),
            running: BTreeMap::new(),
            has_backlog: false,
            next_verdicts: Instant::now(),
            config: Arc::new(config),
            tasks: JoinSet::new(),
            counts: Counts::default(),
        };
        role.list_watched();
        role
    }

    pub fn register(&self, registry: &mut Registry) {
        self.book.register(registry);
        self.counts.register(registry);
    }

    /// Checks all domains until it is dropped.
    pub async fn run(&mut self) {
        self.forget_tasks();
        tracing::info!(domains = self.watched.len(), "guard started");
        let mut learned = Instant::now();
        loop {
            let begun = Instant::now();
            if let Err(error) = self.round().await {
                tracing::error!("the guard can't claim domains, or read verdicts: {error}");
            }
            self.work_until(begun + POLL_INTERVAL).await;
            if learned.elapsed() >= self.config.every {
                learned = Instant::now();
                self.learn().await;
            }
        }
    }

    /// Ends the tasks that run, and frees their slots: after a restart, nobody waits for them.
    fn forget_tasks(&mut self) {
        (self.slots, self.tasks) = (CheckSlots::new(self.config.at_once), JoinSet::new());
        self.running.clear();
        self.lead.forget();
    }

    /// Starts what is due, and settles what other processes have found if this one keeps the alerts.
    async fn round(&mut self) -> Result<(), StoreError> {
        let now = self.context.store.common_time(self.context.world.clock.now()).await?;
        let leading = self.lead.renew(now).await?;
        if leading == Leading::New {
            // Without the active alerts, each would be announced again, and none that is over would end.
            if let Err(error) = self.book.load().await {
                self.lead.forget();
                return Err(error);
            }
            self.watch(now).await?;
        }
        if leading != Leading::No && self.next_verdicts <= Instant::now() {
            self.next_verdicts = Instant::now() + POLL_INTERVAL;
            self.settle_others().await?;
        }
        self.hold_running(now).await?;
        self.start_due(now).await
    }

    /// Renews the claims of checks that take long.
    async fn hold_running(&mut self, now: Timestamp) -> Result<(), StoreError> {
        for (claim, since) in self.running.values_mut() {
            if since.elapsed() >= CLAIM_RENEWAL {
                *since = Instant::now();
                self.context.store.hold_check(claim, later(now, CLAIM_TIME)).await?;
            }
        }
        Ok(())
    }

    /// How often each domain is checked.
    fn every(&self) -> SignedDuration {
        SignedDuration::try_from(self.config.every).unwrap_or(SignedDuration::MAX)
    }

    /// Sets which domains all processes check.
    async fn watch(&self, now: Timestamp) -> Result<(), StoreError> {
        let names = self.watched.keys().map(String::as_str).collect();
        self.context.store.watch_domains(&names, now, self.every()).await
    }

    /// Claims domains that are due, as many as there are slots, and starts their checks.
    async fn start_due(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let store = self.context.store.clone();
        let until = later(now, CLAIM_TIME);
        let mut late = SignedDuration::ZERO;
        self.has_backlog = false;
        for is_slow in [false, true] {
            // Read first, so that nothing is written while nothing is due.
            let Some(oldest) = store.oldest_check(is_slow).await?.filter(|oldest| *oldest <= now) else {
                continue;
            };
            late = late.max(now.duration_since(oldest));
            let free = self.slots.free(is_slow);
            if free == 0 {
                continue;
            }
            let claimed = store.claim_checks(is_slow, now, until, free).await?;
            self.has_backlog |= !is_slow && claimed.len() == free;
            for claim in claimed {
                match self.watched.get(&claim.domain).cloned() {
                    // A domain whose plan has not ended is not checked again.
                    Some(spec) if self.slots.claim(&spec) => self.start(spec, claim, is_slow, now),
                    _ => store.hold_check(&claim, later(now, self.every())).await?,
                }
            }
        }
        self.counts.cycle.set(self.every().saturating_add(late).as_secs_f64());
        Ok(())
    }

    fn start(&mut self, spec: DomainSpec, claim: CheckClaim, is_slow: bool, begun: Timestamp) {
        self.counts.looks.inc();
        self.slots.take(is_slow);
        self.running.insert(claim.domain.clone(), (claim.clone(), Instant::now()));
        let running = RunningCheck::counted(&self.counts.running);
        let (context, config) = (self.context.clone(), self.config.clone());
        let sessions = self.sessions.clone();
        self.tasks.spawn(async move {
            let started = Instant::now();
            let check = AssertUnwindSafe(check(&context, &config, sessions, &spec)).catch_unwind().await;
            let verdict = check.unwrap_or(Err(CheckError::Panic));
            drop(running);
            let took = started.elapsed();
            Done::Checked(Box::new(Checked { spec, claim, begun, took, was_slow: is_slow, verdict }))
        });
    }

    /// Handles finished tasks until this time, or until several domains that are due can be checked.
    async fn work_until(&mut self, end: Instant) {
        while !(self.has_backlog && self.slots.has_room()) {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                Some(done) = self.tasks.join_next() => self.finish(done.ok()).await,
            }
        }
    }

    async fn finish(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Checked(checked)) => {
                self.slots.give_back(checked.was_slow);
                self.running.remove(&checked.claim.domain);
                self.counts.last.set(self.context.world.clock.now().as_second());
                self.settle(*checked).await;
            }
            Some(Done::Followed(domain, end)) => {
                self.late_plans.remove(&domain);
                if end == PlanEnd::Late {
                    self.late_plans.insert(domain.clone());
                }
                self.slots.release(&domain);
            }
            // Tasks are aborted only with the guard.
            None => {}
        }
    }

    /// Stores the end of a check, updates the alerts if this process keeps them, and starts what follows.
    async fn settle(&mut self, checked: Checked) {
        let is_slow = checked.took > self.config.deadline / SLOW_SHARE;
        let spec = checked.spec.clone();
        let uncovered = match &checked.verdict {
            Ok(verdict) => Some(verdict.alerts.iter().any(|alert| alert.kind == AlertKind::MxUncovered)),
            Err(error) => {
                self.count_failed(&spec.name, error);
                None
            }
        };
        let is_stored = self.store_end(checked, is_slow).await;
        let Some(uncovered) = uncovered.filter(|_| is_stored) else {
            return self.slots.release(&spec.name);
        };
        let (context, config) = (self.context.clone(), self.config.clone());
        let is_slow = is_slow || self.late_plans.contains(&spec.name);
        let plans = if is_slow { self.slow_plans.clone() } else { self.plans.clone() };
        self.tasks.spawn(async move {
            let follow = follow(&context, &config, &spec, uncovered, &plans);
            let end = AssertUnwindSafe(follow).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(domain = %spec.name, "what follows a check ended by an internal error");
                PlanEnd::InTime
            });
            Done::Followed(spec.name, end)
        });
    }

    fn count_failed(&self, domain: &DomainName, error: &CheckError) {
        self.counts.failed.inc();
        if matches!(error, CheckError::Look(GuardError::Deadline(_))) {
            self.counts.late.inc();
        }
        tracing::warn!(%domain, "the check of the domain failed; its last verdict stays: {error}");
    }

    /// Stores the end of a check: for the process that keeps the alerts, or settles it if this one does. False if another
    /// process has claimed the domain, or the store fails.
    async fn store_end(&mut self, checked: Checked, is_slow: bool) -> bool {
        let Checked { spec, claim, begun, verdict, .. } = checked;
        let is_unreached = |alerts: &[Alert]| alerts.iter().any(|alert| alert.kind.needs_repetition());
        let (outcome, found) = match verdict {
            Ok(Verdict { alerts, has_reached_mx: has_reached }) => {
                let outcome = CheckOutcome::Complete { is_unreached: is_unreached(&alerts), has_reached };
                (outcome, StoredVerdict::Alerts(alerts))
            }
            Err(error) => (CheckOutcome::Failed, StoredVerdict::Failed(error.to_string())),
        };
        let leads = self.lead.holds();
        let json = (!leads).then(|| serde_json::to_string(&found).unwrap_or_default());
        let due = later(begun, self.every());
        let finished = FinishedCheck { outcome, is_slow, due, verdict: json.as_deref() };
        match self.context.store.finish_check(&claim, &finished).await {
            Ok(Some(row)) => {
                if leads {
                    self.update_alerts(&spec.name, found, row).await;
                }
                true
            }
            Ok(None) => {
                tracing::warn!(domain = %spec.name, "the check took too long, so that another process checks the domain");
                false
            }
            Err(error) => {
                tracing::error!(domain = %spec.name, "the end of a check can't be stored: {error}");
                false
            }
        }
    }

    /// Updates the alerts by the checks of other processes.
    async fn settle_others(&mut self) -> Result<(), StoreError> {
        let store = self.context.store.clone();
        loop {
            let waiting = store.waiting_verdicts(VERDICTS).await?;
            for one in &waiting {
                let domain = DomainName::from_ascii(&one.claim.domain);
                let found = serde_json::from_str::<StoredVerdict>(&one.verdict);
                match (domain, found) {
                    (Ok(domain), Ok(found))
                        if self.watched.contains_key(domain.as_str()) && self.lead.holds() =>
                    {
                        self.update_alerts(&domain, found, one.row).await;
                    }
                    (_, Err(error)) => {
                        tracing::error!(
                            domain = one.claim.domain,
                            "the verdict of another process can't be read: {error}"
                        );
                    }
                    _ => {}
                }
            }
            if !self.lead.holds() {
                return Ok(());
            }
            let claims: Vec<CheckClaim> = waiting.into_iter().map(|one| one.claim).collect();
            if claims.is_empty() {
                return Ok(());
            }
            store.end_verdicts(&claims).await?;
        }
    }

    /// Updates the alerts of a domain after a check.
    async fn update_alerts(&mut self, domain: &DomainName, found: StoredVerdict, row: CheckRow) {
        let alerts = match found {
            StoredVerdict::Alerts(alerts) => alerts,
            // A failed check neither ends alerts nor raises others: the last verdict stays. After several in a row, an
            // alert says that it is an old one.
            StoredVerdict::Failed(why) if row.failed >= FAILED_CHECKS => {
                return self.book.add(domain, check_failed(domain, &why)).await;
            }
            StoredVerdict::Failed(_) => return,
        };
        let is_active = self.book.has(domain.as_str(), AlertKind::MxUnreached);
        let is_raised = is_active || row.unreached >= FAILED_CHECKS;
        // If the store fails, the alert has its own cause.
        let reaches_any = row.unreached == 0 || self.context.store.reaches_mx().await.unwrap_or(true);
        self.book.update(domain, raised_after(alerts, is_raised, reaches_any)).await;
    }

    fn list_watched(&mut self) {
        let watched = self.context.watched();
        self.watched = watched.into_iter().map(|spec| (spec.name.to_string(), spec)).collect();
    }

    /// Loads the domains and decisions anew. The process that keeps the alerts ends those of domains that are no longer
    /// watched, and announces the domains that share an announced alert.
    async fn learn(&mut self) {
        let (config, store) = (self.context.config.clone(), self.context.store.clone());
        match RolloutContext::at(config, store.clone(), self.context.world.clone()).await {
            Ok(context) => self.context = Arc::new(context),
            Err(failure) => tracing::error!("can't load new domains: {failure}"),
        }
        self.list_watched();
        let known: BTreeSet<&str> = self.watched.keys().map(String::as_str).collect();
        self.late_plans.retain(|name| known.contains(name.as_str()));
        let outcome = if self.lead.holds() {
            self.book.announce_joined().await;
            self.book.keep_only(&known).await;
            match store.common_time(self.context.world.clock.now()).await {
                Ok(now) => self.watch(now).await,
                Err(error) => Err(error),
            }
        } else {
            // For the metrics.
            self.book.load().await
        };
        if let Err(error) = outcome {
            tracing::error!("the watched domains or the active alerts can't be updated: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
