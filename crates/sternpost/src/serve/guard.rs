//! The role `[guard]`: checks each domain at the configured interval. It raises an alert when a problem begins and ends
//! it when the problem is over; `messages` delivers both. It adds MX hosts to a policy and continues a plan where the
//! configuration allows that. The checks themselves are in [`receiver::rollout::guard`], the active alerts in
//! `alert_book`.
//!
//! Checks start evenly spread over the interval, and several run at once. Each ends by a deadline. Domains whose last
//! check was slow wait for a few slots of their own, so that they hold up no other domain.

mod own_alerts;
mod reach;
mod slots;

use super::alert_book::AlertBook;
use super::messages::Messenger;
use config::GuardConfig;
use config::failure::Failure;
use formats::{DomainName, Mode};
use futures_util::FutureExt;
use jiff::SignedDuration;
use net::metrics::{self, Counter, Gauge, Registry};
use operations::RolloutContext;
use operations::goal::CurrentGoal;
use operations::seen_certificates;
use own_alerts::{check_failed, missed};
use reach::MxReach;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::rollout::guard::{Alert, AlertKind, Guard, GuardCheck, GuardError};
use receiver::rollout::reported::{ReportSums, disputed, reported};
use receiver::rollout::{Applier, ApplyError, NewHosts, RolloutState, Verification};
use slots::CheckSlots;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use store::leases::HeldLease;
use store::{PolicyDigest, StoreError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Age up to which reports are evaluated: 30 days.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Checks in a row that failed, or that reached no MX host, after which an alert is raised.
const FAILED_CHECKS: u32 = 3;
/// The part of the deadline after which a check counts as slow.
const SLOW_SHARE: u32 = 6;
/// The part of the slots for plans that plans of slow domains have in addition.
const SLOW_PLANS: usize = 4;

/// The state of the running guard.
pub struct GuardRole {
    /// Replaced after each pass, so that checks that still run keep theirs.
    context: Arc<RolloutContext>,
    config: Arc<GuardConfig>,
    book: AlertBook,
    slots: CheckSlots,
    reach: MxReach,
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

/// How a continued plan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlanEnd {
    /// The plan ended in time, or there was none.
    InTime,
    /// The plan was given up, since it took too long.
    Late,
}

/// A finished check.
struct Checked {
    spec: DomainSpec,
    took: Duration,
    /// Whether the check had one of the slots for slow domains.
    was_slow: bool,
    /// The verdict, or why the check has none.
    verdict: Result<Verdict, CheckError>,
}

/// What a check found.
struct Verdict {
    alerts: Vec<Alert>,
    /// Whether an MX host was reached, whatever its certificate.
    has_reached_mx: bool,
}

/// Why a check has no verdict.
#[derive(Debug)]
enum CheckError {
    Setup(Failure),
    Look(GuardError),
    Reports(StoreError),
    Evidence(Failure),
    Panic,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(failure) => write!(f, "the domain can't be checked: {failure}"),
            Self::Look(error) => error.fmt(f),
            Self::Reports(error) => write!(f, "the reports about the domain can't be read: {error}"),
            Self::Evidence(failure) => write!(f, "the evidence can't be judged: {failure}"),
            Self::Panic => f.write_str("the check ended by an internal error"),
        }
    }
}

/// The time between two attempts to read the active alerts.
const LOAD_RETRY: Duration = Duration::from_secs(10);

impl GuardRole {
    pub fn new(context: RolloutContext, config: GuardConfig) -> Self {
        let channels = Messenger::channels(&config);
        Self {
            book: AlertBook::new(context.store.clone(), context.world.clock.clone(), channels),
            context: Arc::new(context),
            plans: Arc::new(Semaphore::new(config.at_once)),
            slow_plans: Arc::new(Semaphore::new((config.at_once / SLOW_PLANS).max(1))),
            late_plans: BTreeSet::new(),
            slots: CheckSlots::new(config.at_once),
            reach: MxReach::default(),
            config: Arc::new(config),
            tasks: JoinSet::new(),
            counts: Counts::default(),
        }
    }

    pub fn register(&self, registry: &mut Registry) {
        self.book.register(registry);
        self.counts.register(registry);
    }

    /// Checks all domains until it is dropped.
    pub async fn run(&mut self) {
        // Without the active alerts, each would be announced again, and none that is over would end.
        while let Err(error) = self.book.load().await {
            tracing::error!("can't read the active alerts from the store: {error}");
            tokio::time::sleep(LOAD_RETRY).await;
        }
        self.forget_tasks();
        tracing::info!(domains = self.context.known.len(), "guard started");
        loop {
            let started = Instant::now();
            self.pass(started).await;
            self.counts.cycle.set(started.elapsed().as_secs_f64());
            self.book.announce_joined().await;
            self.learn().await;
        }
    }

    /// Ends the tasks that run, and frees their slots: after a restart, nobody waits for them.
    fn forget_tasks(&mut self) {
        (self.slots, self.tasks) = (CheckSlots::new(self.config.at_once), JoinSet::new());
    }

    /// Starts the check of each domain once, evenly spread over the interval.
    async fn pass(&mut self, started: Instant) {
        let context = self.context.clone();
        let watched = context.watched();
        let count = u32::try_from(watched.len()).unwrap_or(u32::MAX).max(1);
        let pause = self.config.every / count;
        for (number, spec) in (0_u32..).zip(&watched) {
            // A check that has not ended is not started again.
            if self.slots.claim(spec) {
                if !self.slots.queue_if_slow(spec) {
                    self.until_quick_place().await;
                    self.start(spec.clone(), false);
                }
                self.start_waiting();
            }
            self.work_until(started + pause.saturating_mul(number + 1)).await;
        }
        if watched.is_empty() {
            self.work_until(started + self.config.every).await;
        }
    }

    async fn until_quick_place(&mut self) {
        while !self.slots.has_quick_slot() {
            match self.tasks.join_next().await {
                Some(done) => self.finish(done.ok()).await,
                None => return,
            }
        }
    }

    /// Starts checks of slow domains as long as there are slots for them.
    fn start_waiting(&mut self) {
        while let Some(spec) = self.slots.next_slow() {
            self.start(spec, true);
        }
    }

    fn start(&mut self, spec: DomainSpec, is_slow: bool) {
        self.counts.looks.inc();
        self.slots.take(is_slow);
        let running = RunningCheck::counted(&self.counts.running);
        let (context, config) = (self.context.clone(), self.config.clone());
        self.tasks.spawn(async move {
            let started = Instant::now();
            let check = AssertUnwindSafe(check(&context, &config, &spec)).catch_unwind().await;
            let verdict = check.unwrap_or(Err(CheckError::Panic));
            drop(running);
            Done::Checked(Box::new(Checked { spec, took: started.elapsed(), was_slow: is_slow, verdict }))
        });
    }

    /// Handles finished tasks until this time.
    async fn work_until(&mut self, end: Instant) {
        loop {
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
        self.start_waiting();
    }

    /// Updates the alerts after a check, and starts what follows from it.
    async fn settle(&mut self, checked: Checked) {
        let Checked { spec, took, verdict, .. } = checked;
        let domain = spec.name.clone();
        let is_slow = took > self.config.deadline / SLOW_SHARE;
        self.slots.set_slow(&domain, is_slow);
        let Verdict { alerts, has_reached_mx } = match verdict {
            Ok(verdict) => verdict,
            Err(error) => {
                self.slots.release(&domain);
                return self.failed(&domain, &error).await;
            }
        };
        self.slots.clear_failures(&domain);
        let is_active = self.book.has(domain.as_str(), AlertKind::MxUnreached);
        let alerts = self.reach.settle(&domain, has_reached_mx, FAILED_CHECKS, is_active, alerts);
        let uncovered = alerts.iter().any(|alert| alert.kind == AlertKind::MxUncovered);
        self.book.update(&domain, alerts).await;
        let (context, config) = (self.context.clone(), self.config.clone());
        let is_slow = is_slow || self.late_plans.contains(&domain);
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

    /// A failed check neither ends alerts nor raises others: the last verdict stays. After several in a row, an alert says
    /// that it is an old one.
    async fn failed(&mut self, domain: &DomainName, error: &CheckError) {
        self.counts.failed.inc();
        if matches!(error, CheckError::Look(GuardError::Deadline(_))) {
            self.counts.late.inc();
        }
        let count = self.slots.count_failure(domain);
        tracing::warn!(%domain, failed = count, "the check of the domain failed; its last verdict stays: {error}");
        if count >= FAILED_CHECKS {
            self.book.add(domain, check_failed(domain, error)).await;
        }
    }

    /// Loads the domains and decisions anew, and ends the alerts of domains that are no longer watched.
    async fn learn(&mut self) {
        let (config, store) = (self.context.config.clone(), self.context.store.clone());
        match RolloutContext::at(config, store, self.context.world.clone()).await {
            Ok(context) => self.context = Arc::new(context),
            Err(failure) => tracing::error!("can't load new domains: {failure}"),
        }
        let watched = self.context.watched();
        let known: BTreeSet<&str> = watched.iter().map(|spec| spec.name.as_str()).collect();
        self.late_plans.retain(|name| known.contains(name.as_str()));
        self.slots.keep_only(&known);
        self.reach.keep_only(&known);
        self.book.keep_only(&known).await;
    }
}

/// Checks a domain: observes it, stores the probes, and judges its reports.
async fn check(
    context: &RolloutContext,
    config: &GuardConfig,
    spec: &DomainSpec,
) -> Result<Verdict, CheckError> {
    let applier = context.applier(spec).map_err(CheckError::Setup)?;
    let rollout = context.rollout(&spec.name).await.map_err(CheckError::Setup)?;
    let guard = Guard {
        dns: applier.dns.clone(),
        policies: applier.policies.clone(),
        mail: context.world.mail.clone(),
        clock: context.world.clock.clone(),
        omitted: applier.omitted.clone(),
        deadline: config.deadline,
    };
    let checked = guard.check(&context.desired(spec), &rollout).await.map_err(CheckError::Look)?;
    store_check(context, spec, &rollout, &checked).await;
    let mut alerts = checked.alerts;
    alerts.extend(context.unconfigured.iter().filter(|missing| missing.name == spec.name).map(missed));
    alerts.extend(alerts_of_reports(context, config, spec, &rollout).await.map_err(CheckError::Reports)?);
    alerts.extend(alert_of_evidence(context, spec, &rollout).await.map_err(CheckError::Evidence)?);
    Ok(Verdict { alerts, has_reached_mx: !checked.hosts.is_empty() })
}

/// The alerts that follow from received reports.
async fn alerts_of_reports(
    context: &RolloutContext,
    config: &GuardConfig,
    spec: &DomainSpec,
    rollout: &RolloutState,
) -> Result<Vec<Alert>, StoreError> {
    let (name, now) = (&spec.name, context.world.clock.now());
    let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
    let days = context.store.days_of(name, since).await?;
    let causes = context.store.causes_of(name, since).await?;
    let sums = ReportSums { days: &days, causes: &causes };
    Ok(reported(name, rollout, &context.decisions(name), sums, config.failure_rate, now))
}

/// The alert for evidence that the operator has to judge.
async fn alert_of_evidence(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
) -> Result<Option<Alert>, Failure> {
    let is_in_testing = rollout.mode.is_some_and(|known| known.mode == Mode::Testing);
    let is_open = is_in_testing && rollout.approved.is_none() && context.desired(spec).mode == Mode::Enforce;
    if !is_open {
        return Ok(None);
    }
    let (_, gate) = context.gate(&spec.name, rollout).await?;
    Ok(disputed(&spec.name, &gate))
}

/// Stores the MX hosts with their certificates and their probes, which are evidence and explain failures in reports.
async fn store_check(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
    checked: &GuardCheck,
) {
    let (store, now) = (&context.store, context.world.clock.now());
    if let Err(error) = store.record_mx_hosts(&spec.name, &checked.mx, now).await {
        tracing::warn!(domain = %spec.name, "the MX hosts can't be stored: {error}");
    }
    for (host, certificate) in &checked.certificates {
        if let Err(error) = seen_certificates::put(store, host, certificate, now).await {
            tracing::warn!(domain = %spec.name, "the certificate of {host} can't be stored: {error}");
        }
    }
    let Some(newest) = rollout.newest() else { return };
    let policy = PolicyDigest::of_patterns(&newest.mx);
    for host in &checked.hosts {
        let problem = host.problem(rollout);
        let put = store.put_guard_probe(&spec.name, &host.name, now, policy, problem.as_deref()).await;
        if let Err(error) = put {
            tracing::warn!(domain = %spec.name, "the probe of {} can't be stored: {error}", host.name);
        }
    }
}

/// Promotes the domain if the evidence is sufficient, and continues its plan where the configuration allows that.
async fn follow(
    context: &RolloutContext,
    config: &GuardConfig,
    spec: &DomainSpec,
    uncovered: bool,
    plans: &Semaphore,
) -> PlanEnd {
    // The operator may have changed the settings or removed the domain since this pass began.
    let spec = match context.current(&spec.name).await {
        Ok(Some((current, _))) => current,
        Ok(None) => return PlanEnd::InTime,
        Err(failure) => {
            tracing::error!(domain = %spec.name, "the settings can't be read: {failure}");
            return PlanEnd::InTime;
        }
    };
    let promoted = context.promote_by_evidence(&spec).await.unwrap_or_else(|failure| {
        tracing::error!(domain = %spec.name, "the domain can't be promoted: {failure}");
        false
    });
    let by_itself = config.apply && spec.host == HostedBy::Sternpost && spec.dns != DnsBy::Hand;
    if !(by_itself || promoted || uncovered && spec.repair) {
        return PlanEnd::InTime;
    }
    // The semaphore is never closed.
    let _place = plans.acquire().await;
    let waiting = if by_itself { Verification::Defer } else { Verification::Await };
    continue_plan(context, &spec, waiting, config.deadline).await
}

/// Carries out the plan up to the first manual step. Adding MX hosts is always safe; enforcement needs a permit. The plan may
/// take as long as a check, and as long as the publisher needs until name servers show a change.
async fn continue_plan(
    context: &RolloutContext,
    spec: &DomainSpec,
    waiting: Verification,
    deadline: Duration,
) -> PlanEnd {
    let domain = &spec.name;
    let lease = match context.hold(domain).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return PlanEnd::InTime,
        Err(failure) => {
            tracing::error!(%domain, "the plan can't be carried out: {failure}");
            return PlanEnd::InTime;
        }
    };
    let end = match context.applier_under(spec, &lease) {
        Ok(applier) => continue_under(context, spec, applier, &lease, waiting, deadline).await,
        Err(failure) => {
            tracing::error!(%domain, "the plan can't be carried out: {failure}");
            PlanEnd::InTime
        }
    };
    if let Err(failure) = context.release(&lease).await {
        tracing::error!(%domain, "{failure}");
    }
    end
}

async fn continue_under(
    context: &RolloutContext,
    spec: &DomainSpec,
    mut applier: Applier,
    lease: &HeldLease,
    waiting: Verification,
    deadline: Duration,
) -> PlanEnd {
    let domain = &spec.name;
    if !spec.repair {
        applier.new_hosts = NewHosts::LeaveToOperator;
    }
    let limit =
        deadline + applier.publisher.as_ref().map_or(Duration::ZERO, |publisher| publisher.patience());
    let goals = CurrentGoal::new(context, spec, lease);
    let outcome = applier.run_towards(&goals, waiting, Some(limit)).await;
    let end = match &outcome {
        Err(ApplyError::Deadline(_)) => PlanEnd::Late,
        _ => PlanEnd::InTime,
    };
    match outcome {
        Ok((steps, _)) => {
            steps.iter().for_each(|done| tracing::info!(%domain, "step carried out: {}", done.step))
        }
        Err(ApplyError::Stopped(why)) => tracing::info!(%domain, "the plan was stopped: {why}"),
        Err(error) => tracing::error!(%domain, "the plan stopped: {error}"),
    }
    end
}

#[cfg(test)]
mod tests;
