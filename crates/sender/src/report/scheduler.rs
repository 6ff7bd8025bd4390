//! Schedules reports: builds them after midnight UTC, spreads their delivery over the night, retries for a day and
//! deletes old data (RFC 8460 §4.1, §5.5).
//!
//! The input is the tallies in the store; the output goes to [`ReportDelivery`]. All state that must survive a crash is
//! in the store: a report is queued once per day and domain, and an acceptance is stored before anything else happens
//! with that report.
//!
//! Several processes may use one store. One at a time builds reports ([`ReportScheduler::keep_building`]). Each claims the
//! reports that it delivers, so that no other one sends them. If it dies, they are due again after `CLAIM_TIME`.

use super::build::{Reporter, build};
use super::compose::{ComposeError, PreparedReport};
use super::delivery::{ReportDelivery, host, is_within};
use super::round::{self, Round, Transition};
use super::targets::PlannedTarget;
use formats::DomainName;
use formats::report::DateRange;
use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::{Clock, later};
use net::metrics;
use net::random::{self, NoRandomBytes};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::outgoing::{DeliveryState, NewOutgoing, Outgoing, Reply, TargetState};
use store::tallies::DomainTally;
use store::testing_probes::TestingProbe;
use store::{Outage, Store, StoreError};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The operator's settings for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Policy domains that no reports are built for, with all their subdomains.
    pub excluded: Vec<DomainName>,
    /// The period over which deliveries are spread, from five minutes after midnight UTC (RPT-11).
    pub spread: Duration,
    /// The number of days for which tallies are kept.
    pub keep_tallies: u32,
    /// The number of days for which sent reports are kept.
    pub keep_reports: u32,
}

impl Default for Rules {
    /// Deliveries until four hours after midnight, tallies for 30 days, reports for 90 days.
    fn default() -> Self {
        Self {
            excluded: Vec::new(),
            spread: Duration::from_secs(4 * 3600 - 300),
            keep_tallies: 30,
            keep_reports: 90,
        }
    }
}

/// Builds, queues and sends reports.
pub struct ReportScheduler {
    /// The store of tallies and queued reports.
    pub store: Store,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Delivers reports to their targets.
    pub delivery: ReportDelivery,
    /// The operator's settings.
    pub rules: Rules,
    /// The counters since the start.
    pub counts: Counts,
    /// Cancelled at the shutdown.
    pub stop: CancellationToken,
}

/// Counters of reports since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Reports built.
    pub built: Counter,
    /// Reports that at least one target accepted.
    pub sent: Counter,
    /// Reports about domains that request no reports.
    pub unwanted: Counter,
    /// Reports given up: every target refused, or none accepted within a day.
    pub given_up: Counter,
    /// Failed delivery attempts, counted per target.
    pub failures: Counter,
    /// The Unix time of the last round that failed in nothing but deliveries.
    pub last_round: Gauge,
    /// Whether this process builds the reports, and failed to at the last attempt.
    building_fails: AtomicBool,
}

/// The building of reports by this process, until this is dropped.
struct Building<'a>(&'a AtomicBool);

impl Drop for Building<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Counts {
    /// Registers the counters as metrics.
    pub fn register(&self, all: &mut Registry) {
        metrics::REPORTS_BUILT.register(all, self.built.clone());
        metrics::REPORTS_SENT.register(all, self.sent.clone());
        metrics::REPORTS_UNWANTED.register(all, self.unwanted.clone());
        metrics::REPORTS_GIVEN_UP.register(all, self.given_up.clone());
        metrics::REPORT_FAILURES.register(all, self.failures.clone());
        metrics::REPORTER_LAST_ROUND.register(all, self.last_round.clone());
    }
}

/// The reason why a round failed or was incomplete.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task that builds reports was cancelled or panicked, so the day is incomplete and is built again.
    #[error("building reports was interrupted: {0}")]
    Interrupted(JoinError),
    /// No ID for this installation can be created.
    #[error("no report ID can be created: {0}")]
    Word(#[from] NoRandomBytes),
    /// A report about this domain can't be serialized.
    #[error("the report about {0}: {1}")]
    Compose(DomainName, ComposeError),
}

impl SchedulerError {
    /// Whether the error is to be logged. That the database is away is logged once.
    fn is_news(&self, outage: &Outage) -> bool {
        match self {
            Self::Store(error) => outage.is_news(error),
            Self::Interrupted(_) | Self::Word(_) | Self::Compose(..) => true,
        }
    }
}

/// The pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(15);
/// The delay after midnight UTC before the reports of the day are built, so that late sessions still count.
const CLOSE_DELAY: SignedDuration = SignedDuration::from_mins(5);
/// The length of a UTC day.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Days that ended longer ago than this get no reports, for example after the role was off.
const OUTGOING_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 7);
/// The number of domains, or of due reports, in one batch.
const BATCH_ROWS: u32 = 500;
/// A target is not retried within this time after a failure, even if the report is due because of another target.
const FAILURE_CACHE_TIME: SignedDuration = SignedDuration::from_mins(4);
/// The time that deliveries have to finish at the shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// The delay before an acceptance is stored again after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The maximum number of reports in delivery or waiting for a host; further ones stay in the store.
const MAX_DELIVERIES: usize = 10_000;

/// The time that a report is claimed for: after a crash it is due again at its end. It is longer than one delivery may take.
const CLAIM_TIME: SignedDuration = SignedDuration::from_mins(15);
/// The age of a claim from which on it is renewed before a delivery, so that it does not end during the delivery.
const CLAIM_RENEWAL: Duration = Duration::from_secs(4 * 60);

/// Tallies to build reports from, each with the probes of its domain.
type Batch = Vec<(DomainTally, Vec<TestingProbe>)>;

/// The tasks that deliver reports, one per report.
type Deliveries = JoinSet<()>;

/// Removes deliveries that end within `time`.
async fn finish_for(deliveries: &mut Deliveries, time: Duration) {
    let end = tokio::time::sleep(time);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            // A panic in a delivery is caught within the task.
            Some(_) = deliveries.join_next() => {}
        }
    }
}

/// Waits until all deliveries have ended.
async fn finish_all(deliveries: &mut Deliveries) {
    while deliveries.join_next().await.is_some() {}
}

/// A report that this process has claimed.
struct ClaimedReport {
    report: Outgoing,
    /// When the claim was made or renewed, by [`Clock::elapsed`].
    since: Duration,
}

/// Why a delivery ended without a result.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The claim was over, and another process has the report, or the operator has queued it again.
    #[error("the report was claimed again, since its delivery took too long or the operator queued it again")]
    Lost,
}

impl ReportScheduler {
    /// Builds the reports of past days, and deletes old data, until it is dropped. One process at a time does so, and writes to
    /// this handle of the store. An interrupted build is repeated at the next start, as after a crash.
    pub fn keep_building(self: Arc<Self>, store: Store) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (building, outage) = (Building(&self.counts.building_fails), Outage::new());
            let mut last_cleanup = None;
            loop {
                let today = DateRange::utc_day(self.clock.now()).start;
                let mut outcome = self.build_in(&store).await;
                if outcome.is_ok() && last_cleanup != Some(today) {
                    outcome = self.delete_old(&store).await;
                    last_cleanup = Some(today);
                }
                building.0.store(outcome.is_err(), Ordering::SeqCst);
                match outcome {
                    Ok(()) => {
                        if let Some(failures) = outage.ends() {
                            tracing::info!(failures, "reports are built again");
                        }
                    }
                    Err(error) if error.is_news(&outage) => {
                        tracing::error!("reports can't be built: {error}")
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(ROUND_INTERVAL).await;
            }
        })
    }

    /// Delivers reports until [`Self::stop`] is cancelled, then waits for deliveries in progress: a report whose acceptance
    /// is not stored would be sent again.
    pub fn run(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (mut deliveries, outage) = (Deliveries::default(), Outage::new());
            while !self.stop.is_cancelled() {
                match self.start_due(&mut deliveries).await {
                    Ok(()) => {
                        if let Some(failures) = outage.ends() {
                            tracing::info!(failures, "reports are sent again");
                        }
                        if !self.counts.building_fails.load(Ordering::SeqCst) {
                            self.counts.last_round.set(self.clock.now().as_second());
                        }
                    }
                    Err(error) if error.is_news(&outage) => tracing::error!("reports can't be sent: {error}"),
                    Err(_) => {}
                }
                tokio::select! {
                    () = finish_for(&mut deliveries, ROUND_INTERVAL) => {}
                    () = self.stop.cancelled() => {}
                }
            }
            if tokio::time::timeout(SHUTDOWN_TIMEOUT, finish_all(&mut deliveries)).await.is_err() {
                tracing::warn!(
                    "deliveries of reports were interrupted; reports that were just accepted will be sent again"
                );
            }
        })
    }

    /// Runs one round: builds the reports of past days, sends due reports, and waits until all deliveries have ended.
    pub fn turn<'a>(self: &'a Arc<Self>) -> BoxFuture<'a, Result<(), SchedulerError>> {
        Box::pin(async move {
            self.build().await?;
            let mut deliveries = Deliveries::default();
            loop {
                self.start_due(&mut deliveries).await?;
                if deliveries.is_empty() {
                    return Ok(());
                }
                finish_all(&mut deliveries).await;
            }
        })
    }

    /// The time that all processes with this store share.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.common_time(self.clock.now()).await
    }

    /// Builds and queues the reports of all past days that have none yet.
    pub fn build<'a>(&'a self) -> BoxFuture<'a, Result<(), SchedulerError>> {
        self.build_in(&self.store)
    }

    fn build_in<'a>(&'a self, store: &'a Store) -> BoxFuture<'a, Result<(), SchedulerError>> {
        Box::pin(async move {
            // A day is over by both clocks: closed too early, it would lose sessions.
            let now = self.now().await?.min(self.clock.now());
            let today = DateRange::utc_day(now).start;
            for day in store.unreported_days(today).await? {
                let end = later(day, DAY);
                if now < later(end, CLOSE_DELAY) {
                    continue;
                }
                // Close the day first: no session counts for it any more, so the reports are complete.
                store.close_day(day, false).await?;
                let shown = day.strftime("%Y-%m-%d").to_string();
                if now.duration_since(end) > OUTGOING_LIFETIME {
                    tracing::warn!(day = shown, "no reports are built for this day: it ended too long ago");
                } else {
                    let built = self.build_day(store, day).await?;
                    tracing::info!(day = shown, reports = built, "reports built");
                }
                store.close_day(day, true).await?;
            }
            Ok(())
        })
    }

    /// Returns the number of reports that were queued, without those that another process had queued.
    async fn build_day(&self, store: &Store, day: Timestamp) -> Result<u64, SchedulerError> {
        let probed = store.domains_with_testing_probes(day).await?;
        let installation_id: Arc<str> = installation_id(store).await?.into();
        let mut built = 0;
        let mut batch = self.read_batch(day, "", &probed).await?;
        while let Some((last, tallies)) = batch {
            // Read the next batch while this one is built.
            let (reports, next) = tokio::join!(
                self.build_batch(day, tallies, &installation_id),
                self.read_batch(day, &last, &probed)
            );
            let queued = store.put_outgoing(&reports?).await?;
            self.counts.built.inc_by(queued);
            built += queued;
            batch = next?;
        }
        Ok(built)
    }

    /// Reads the batch of tallies after the domain `after`, with their probes. Returns it with its last domain, or
    /// `None` at the end.
    async fn read_batch(
        &self,
        day: Timestamp,
        after: &str,
        probed: &HashSet<DomainName>,
    ) -> Result<Option<(String, Batch)>, SchedulerError> {
        let tallies = self.store.tally_after(day, after, BATCH_ROWS).await?;
        let Some(last) = tallies.last().map(|last| last.domain.to_string()) else { return Ok(None) };
        let mut batch = Vec::with_capacity(tallies.len());
        for tally in tallies {
            if is_within(&tally.domain, &self.rules.excluded) {
                continue;
            }
            let probes = match probed.contains(&tally.domain) {
                true => self.store.testing_probes(day, &tally.domain).await?,
                false => Vec::new(),
            };
            batch.push((tally, probes));
        }
        Ok(Some((last, batch)))
    }

    /// Builds the reports of a batch on two threads.
    async fn build_batch(
        &self,
        day: Timestamp,
        mut batch: Batch,
        installation_id: &Arc<str>,
    ) -> Result<Vec<NewOutgoing>, SchedulerError> {
        let half = batch.split_off(batch.len() / 2);
        let work = |part: Batch| {
            let (reporter, spread, installation_id) =
                (self.delivery.reporter.clone(), self.rules.spread, installation_id.clone());
            tokio::task::spawn_blocking(move || {
                let build = |(tally, probes): (DomainTally, Vec<TestingProbe>)| {
                    let domain = tally.domain.clone();
                    unless_panic(&domain, || {
                        new_report(day, tally, &probes, &reporter, &installation_id, spread)
                    })
                    .flatten()
                };
                part.into_iter().filter_map(build).collect::<Result<Vec<_>, _>>()
            })
        };
        let (one, other) = (work(batch), work(half));
        let mut reports = Vec::new();
        for part in [one, other] {
            reports.extend(part.await.map_err(SchedulerError::Interrupted)??);
        }
        Ok(reports)
    }

    /// Claims due reports, and starts their delivery.
    async fn start_due(self: &Arc<Self>, deliveries: &mut Deliveries) -> Result<(), SchedulerError> {
        while deliveries.len() < MAX_DELIVERIES {
            let (now, since) = (self.now().await?, self.clock.elapsed());
            let claimed = self.store.claim_outgoing(now, later(now, CLAIM_TIME), BATCH_ROWS).await?;
            if claimed.is_empty() {
                break;
            }
            for report in claimed {
                let scheduler = self.clone();
                deliveries.spawn(async move {
                    let domain = report.domain.clone();
                    let claimed = ClaimedReport { report, since };
                    if let Err(error) = scheduler.deliver_or_postpone(claimed, now).await {
                        tracing::error!(%domain, "can't record the delivery result of a report: {error}");
                    }
                });
            }
        }
        Ok(())
    }

    /// As [`Self::deliver`]. A panic counts as a failed round, so that the report is retried with a growing delay.
    async fn deliver_or_postpone(&self, claimed: ClaimedReport, now: Timestamp) -> Result<(), DeliveryError> {
        let report = claimed.report.clone();
        match AssertUnwindSafe(self.deliver(claimed, now)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!(domain = %report.domain, id = report.report_id, "delivering a report panicked, which is a defect; it is retried");
                let reason = "the delivery ended unexpectedly; see the log".to_owned();
                self.record_round(report, &Round::LookUpFailed, reason, now).await
            }
        }
    }

    /// Tries to deliver a report to every target that has neither accepted nor refused it.
    async fn deliver(&self, mut claimed: ClaimedReport, now: Timestamp) -> Result<(), DeliveryError> {
        let (round, reason) = self.attempt(&mut claimed).await?;
        let report = claimed.report;
        if round.is_busy() && self.stop.is_cancelled() {
            // It is due again at once, for other processes and after a restart.
            self.store.hold_outgoing(&report, now).await?;
            return Ok(());
        }
        // What was busy is postponed from now on: the wait for its host may have been long.
        let now = if round.is_busy() { now.max(self.now().await?) } else { now };
        self.record_round(report, &round, reason, now).await
    }

    /// Renews the claim of a report if it might end during the next delivery.
    async fn hold(&self, claimed: &mut ClaimedReport) -> Result<(), DeliveryError> {
        let elapsed = self.clock.elapsed();
        if elapsed.saturating_sub(claimed.since) < CLAIM_RENEWAL {
            return Ok(());
        }
        let until = later(self.now().await?, CLAIM_TIME);
        match self.store.hold_outgoing(&claimed.report, until).await? {
            true => claimed.since = elapsed,
            false => return Err(DeliveryError::Lost),
        }
        Ok(())
    }

    async fn record_round(
        &self,
        mut report: Outgoing,
        round: &Round,
        reason: String,
        now: Timestamp,
    ) -> Result<(), DeliveryError> {
        report.outcome_text = reason;
        match round::after(&report, round, now) {
            Transition::Settle(state) => report.state = state,
            Transition::Retry { due, first_try, tries } => {
                (report.due, report.first_try, report.tries) = (due, Some(first_try), tries);
            }
        }
        if !self.store.update_outgoing(&report).await? {
            return Err(DeliveryError::Lost);
        }
        self.count(&report);
        Ok(())
    }

    /// Makes one round of attempts, and describes its failures in words.
    async fn attempt(&self, claimed: &mut ClaimedReport) -> Result<(Round, String), DeliveryError> {
        let report = &claimed.report;
        let known = self.store.tallied_record(report.day, &report.domain).await?;
        let plan = match self.delivery.targets(&report.domain, known.as_deref()).await {
            Ok(plan) if plan.is_wanted => plan,
            Ok(_) => return Ok((Round::NoRecord, "the domain requests no reports".to_owned())),
            Err(error) => {
                let reason = format!("the lookup of _smtp._tls.{} failed: {error}", report.domain);
                return Ok((Round::LookUpFailed, reason));
            }
        };
        let (mut targets, mut copies) = (Vec::new(), Vec::new());
        if plan.targets.is_empty() {
            return Ok((Round::Replies { targets, copies }, plan.without_target()));
        }
        let before = self.store.outgoing_targets(report.id).await?;
        // Where rules leave nothing but copies, these decide.
        let has_target = plan.targets.iter().any(|planned| !planned.is_copy);
        let mut reason = String::new();
        // The report itself does not wait for a copy.
        let (copied, real): (Vec<_>, Vec<_>) = plan.targets.iter().partition(|planned| planned.is_copy);
        for planned in real.into_iter().chain(copied) {
            let reply = self.deliver_to(claimed, planned, &before, &mut reason).await?;
            if planned.is_copy && has_target { copies.push(reply) } else { targets.push(reply) }
        }
        Ok((Round::Replies { targets, copies }, reason))
    }

    /// Delivers a report to a target, unless an earlier result still holds. Returns `None` if the target is busy or the
    /// shutdown has begun. A failure is described in `reason`.
    async fn deliver_to(
        &self,
        claimed: &mut ClaimedReport,
        planned: &PlannedTarget,
        before: &[TargetState],
        reason: &mut String,
    ) -> Result<Option<Reply>, DeliveryError> {
        let target = &planned.target;
        let text = target.to_string();
        let known = before.iter().find(|known| known.target == text);
        // A recent failure holds too, while the report comes back soon because another target is busy.
        let now = self.now().await?;
        let still_holds = |known: &&TargetState| {
            // A failure in the future was recorded by a clock that was ahead.
            known.reply != Reply::Failed || now.duration_since(known.at).abs() < FAILURE_CACHE_TIME
        };
        if let Some(known) = known.filter(still_holds) {
            reason.clone_from(&known.reply_text);
            return Ok(Some(known.reply));
        }
        let slot = tokio::select! {
            slot = self.delivery.busy.acquire(host(target)) => slot,
            () = self.stop.cancelled() => None,
        };
        let Some(_slot) = slot.filter(|_| !self.stop.is_cancelled()) else { return Ok(None) };
        self.hold(claimed).await?;
        let report = &claimed.report;
        let prepared = PreparedReport {
            domain: report.domain.clone(),
            day: DateRange::utc_day(report.day),
            report_id: report.report_id.clone(),
            packed: self.store.outgoing_text(report.id).await?.unwrap_or_default(),
        };
        let (reply, description) = match self.delivery.bring(&prepared, target, self.clock.now()).await {
            Ok(description) => (Reply::Accepted, description),
            Err(failure) if failure.is_final => (Reply::Refused, failure.why),
            Err(failure) => (Reply::Failed, failure.why),
        };
        let description = match &planned.rule {
            Some(rule) => format!("{description} (target of {rule})"),
            None => description,
        };
        if reply != Reply::Accepted {
            self.counts.failures.inc();
            tracing::info!(domain = %report.domain, target = text, "report not delivered: {description}");
            *reason = format!("{text}: {description}");
        }
        let at = self.now().await.unwrap_or_else(|_| self.clock.now());
        while let Err(error) = self.store.put_target(report, &text, reply, at, &description).await {
            if reply != Reply::Accepted {
                return Err(error.into());
            }
            // Without this record the report would be sent again, so retry until it is stored.
            tracing::error!(target = text, "can't record that a report was accepted, retrying: {error}");
            tokio::time::sleep(STORE_RETRY).await;
        }
        Ok(Some(reply))
    }

    /// Counts a report that has reached a final state.
    fn count(&self, report: &Outgoing) {
        let counter = match report.state {
            DeliveryState::Waiting => return,
            DeliveryState::Sent => &self.counts.sent,
            DeliveryState::Unwanted => &self.counts.unwanted,
            DeliveryState::GivenUp => {
                tracing::warn!(domain = %report.domain, id = report.report_id, "report given up: {}", report.outcome_text);
                &self.counts.given_up
            }
        };
        counter.inc();
    }

    /// Deletes tallies and sent reports that are older than the rules keep them.
    fn delete_old<'a>(&'a self, store: &'a Store) -> BoxFuture<'a, Result<(), SchedulerError>> {
        Box::pin(async move {
            let today = DateRange::utc_day(self.clock.now()).start;
            let ago =
                |days: u32| today.saturating_sub(DAY.saturating_mul(i32::try_from(days).unwrap_or(i32::MAX)));
            store.delete_tallies(ago(self.rules.keep_tallies).unwrap_or(Timestamp::MIN)).await?;
            store.delete_outgoing(ago(self.rules.keep_reports).unwrap_or(Timestamp::MIN)).await?;
            Ok(())
        })
    }
}

/// Returns the random ID of this installation, a part of the IDs of its reports. It is created once and kept in the store.
///
/// # Errors
/// If the store fails, or the system provides no random bytes.
pub fn installation_id(store: &Store) -> BoxFuture<'_, Result<String, SchedulerError>> {
    Box::pin(async move { Ok(store.secret("report word", &random::random_id()?).await?) })
}

/// Runs `build` for the report about a domain. A panic is logged, and that report is left out: otherwise it would block
/// all reports of the day.
fn unless_panic<T>(domain: &DomainName, build: impl FnOnce() -> T) -> Option<T> {
    let built = std::panic::catch_unwind(AssertUnwindSafe(build));
    if built.is_err() {
        tracing::error!(%domain, "building the report about {domain} panicked, which is a defect; no report about it is sent for this day");
    }
    built.ok()
}

/// Builds a report to queue; `None` when there was no session.
fn new_report(
    day: Timestamp,
    tally: DomainTally,
    probes: &[TestingProbe],
    reporter: &Reporter,
    installation_id: &str,
    spread: Duration,
) -> Option<Result<NewOutgoing, SchedulerError>> {
    let domain = tally.domain.clone();
    let report = build(day, tally, probes, reporter, installation_id)?;
    let sum = |count: fn(&formats::report::PolicyReport) -> u64| report.policies.iter().map(count).sum();
    let (successful, failed) = (sum(|policy| policy.successful), sum(|policy| policy.failed));
    let prepared = match PreparedReport::new(&domain, &report) {
        Ok(prepared) => prepared,
        Err(error) => return Some(Err(SchedulerError::Compose(domain, error))),
    };
    Some(Ok(NewOutgoing {
        day,
        due: later(later(day, DAY), delay(&prepared.report_id, spread)),
        domain,
        report_id: prepared.report_id,
        packed: prepared.packed,
        successful,
        failed,
    }))
}

/// The delay of a report after midnight, from [`CLOSE_DELAY`] to that plus `spread`. It is a hash of the report ID, so
/// that neither all reports of a sender nor all reports to a receiver are sent at once (RPT-11).
fn delay(report_id: &str, spread: Duration) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    report_id.hash(&mut hasher);
    let seconds = hasher.finish() % spread.as_secs().max(1);
    CLOSE_DELAY.saturating_add(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
