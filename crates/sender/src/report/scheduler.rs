//! From tallies to delivered reports: builds them after midnight, sends them spread over the night, tries again for a
//! day, and forgets what is old (RFC 8460 §4.1, §5.5).
//!
//! Everything that has to survive is in the store: a report is put in line once for a day and a domain, and what a
//! target accepted is written down before anything else is done about that report.

use super::build::{Reporter, build};
use super::compose::{ComposeError, PreparedReport};
use super::delivery::{ReportDelivery, host, is_within};
use formats::DomainName;
use formats::limits::REPORT_LIFE;
use formats::report::DateRange;
use formats::tlsrpt_record::Rua;
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::{Clock, later};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use store::outgoing::{DeliveryState, NewOutgoing, Outgoing, Reply, TargetState};
use store::tallies::DomainTally;
use store::testing_probes::TestingProbe;
use store::{Store, StoreError};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// What the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Domains, and all below them, that get no reports.
    pub excluded: Vec<DomainName>,
    /// Over how long after midnight reports are spread (RPT-11).
    pub spread: Duration,
    /// Days for which tallies are kept.
    pub keep_tallies: u32,
    /// Days for which sent reports are kept.
    pub keep_reports: u32,
}

impl Default for Rules {
    /// Four hours after midnight, a month of tallies, a quarter of reports.
    fn default() -> Self {
        Self {
            excluded: Vec::new(),
            spread: Duration::from_secs(4 * 3600 - 300),
            keep_tallies: 30,
            keep_reports: 90,
        }
    }
}

/// Builds and sends.
pub struct ReportScheduler {
    /// Where tallies and reports are.
    pub store: Store,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Brings reports to targets.
    pub delivery: ReportDelivery,
    /// What the operator decides.
    pub rules: Rules,
    /// What was done since the start.
    pub counts: Counts,
    /// Cancelled when it is to end.
    pub stop: CancellationToken,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Reports built.
    pub built: Counter,
    /// Reports that a target took.
    pub sent: Counter,
    /// Reports that nobody wanted.
    pub unwanted: Counter,
    /// Reports that nobody took for a day.
    pub given_up: Counter,
    /// Targets that did not take a report when it was tried.
    pub failures: Counter,
}

impl Counts {
    /// Puts them among what is watched.
    pub fn register(&self, all: &mut Registry) {
        for (name, help, count) in [
            ("reports_built", "TLS reports built", &self.built),
            ("reports_sent", "TLS reports that a target took", &self.sent),
            ("reports_unwanted", "TLS reports about domains that want none", &self.unwanted),
            ("reports_given_up", "TLS reports that nobody took for a day", &self.given_up),
            ("report_failures", "Times that a target did not take a TLS report", &self.failures),
        ] {
            all.register(name, help, count.clone());
        }
    }
}

/// Why there was no turn, or only a part of one.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reports were not written to the end, so that the day is not built.
    #[error("reports were not written to the end: {0}")]
    Cut(JoinError),
    /// A report can't be written.
    #[error("the report about {0}: {1}")]
    Compose(DomainName, ComposeError),
}

/// Between two turns.
const ROUND_INTERVAL: Duration = Duration::from_secs(15);
/// After midnight, before the reports of the day are built: sessions that were told late still count.
const CLOSE_DELAY: SignedDuration = SignedDuration::from_mins(5);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Reports about days before this are not sent any more: the role was off.
const OUTGOING_LIFETIME: SignedDuration = SignedDuration::from_hours(24 * 7);
/// Domains that are built together.
const BATCH_ROWS: u32 = 500;
/// The first pause after a failure; each is twice as long as the one before.
const FIRST_RETRY: SignedDuration = SignedDuration::from_mins(5);
const MAX_RETRY: SignedDuration = SignedDuration::from_hours(4);
/// A failure is not looked at again within this time.
const FAILURE_CACHE_TIME: SignedDuration = SignedDuration::from_mins(2);
/// How long deliveries have to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// For a store that does not work.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Reports on their way, or waiting for a host; further ones stay in the store.
const MAX_DELIVERIES: usize = 10_000;

/// Tallies of which reports are to be made, each with the looks at its policy.
type Ready = Vec<(DomainTally, Vec<TestingProbe>)>;

/// Reports on their way.
#[derive(Default)]
struct Deliveries {
    tasks: JoinSet<i64>,
    reports: HashSet<i64>,
}

impl Deliveries {
    /// Waits for the end of all of them.
    async fn land_all(&mut self) {
        while let Some(landed) = self.tasks.join_next().await {
            self.land(landed);
        }
        self.reports.clear();
    }

    /// Lets them land for some time.
    async fn land_for(&mut self, time: Duration) {
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(landed) = self.tasks.join_next() => self.land(landed),
            }
        }
    }

    fn land(&mut self, landed: Result<i64, JoinError>) {
        // One that failed is tried again after the next start.
        if let Ok(id) = landed {
            self.reports.remove(&id);
        }
    }
}

impl ReportScheduler {
    /// Works until it is told to stop; then what is being delivered is let end, since a report that was accepted and
    /// not written down would go again.
    pub fn run(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut swept = None;
            let mut flying = Deliveries::default();
            while !self.stop.is_cancelled() {
                let today = DateRange::utc_day(self.clock.now()).start;
                // A build that is cut off is done again at the next start, as after a crash.
                let mut outcome = tokio::select! {
                    outcome = self.build() => outcome,
                    () = self.stop.cancelled() => break,
                };
                if outcome.is_ok() {
                    outcome = self.launch(&mut flying).await;
                }
                if outcome.is_ok() && swept != Some(today) {
                    outcome = self.sweep().await;
                    swept = Some(today);
                }
                if let Err(error) = outcome {
                    tracing::error!("reports can't be built or sent now: {error}");
                }
                tokio::select! {
                    () = flying.land_for(ROUND_INTERVAL) => {}
                    () = self.stop.cancelled() => {}
                }
            }
            if tokio::time::timeout(SHUTDOWN_TIMEOUT, flying.land_all()).await.is_err() {
                tracing::warn!("deliveries of reports were cut off; those that were just accepted go again");
            }
        })
    }

    /// Builds what is to be built, sends what is due, and waits for the end of that.
    pub fn turn<'a>(self: &'a Arc<Self>) -> BoxFuture<'a, Result<(), SchedulerError>> {
        Box::pin(async move {
            self.build().await?;
            let mut flying = Deliveries::default();
            loop {
                self.launch(&mut flying).await?;
                if flying.reports.is_empty() {
                    return Ok(());
                }
                flying.land_all().await;
            }
        })
    }

    /// Builds the reports of all days that are over.
    pub fn build<'a>(&'a self) -> BoxFuture<'a, Result<(), SchedulerError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let today = DateRange::utc_day(now).start;
            for day in self.store.unreported_days(today).await? {
                let over = later(day, DAY);
                if now < later(over, CLOSE_DELAY) {
                    continue;
                }
                // From here on nothing is counted for that day, so that what is built is all of it.
                self.store.close_day(day, false).await?;
                let shown = day.strftime("%Y-%m-%d").to_string();
                if now.duration_since(over) > OUTGOING_LIFETIME {
                    tracing::warn!(
                        day = shown,
                        "no reports are made about this day: it is over for too long"
                    );
                } else {
                    let built = self.build_day(day).await?;
                    tracing::info!(day = shown, reports = built, "reports are built");
                }
                self.store.close_day(day, true).await?;
            }
            Ok(())
        })
    }

    async fn build_day(&self, day: Timestamp) -> Result<usize, SchedulerError> {
        let tested = self.store.domains_with_testing_probes(day).await?;
        let mut built = 0;
        let mut ready = self.read(day, "", &tested).await?;
        while let Some((last, tallies)) = ready {
            // The next ones are read while these are written.
            let (reports, next) = tokio::join!(self.write(day, tallies), self.read(day, &last, &tested));
            let reports = reports?;
            self.store.put_outgoing(&reports).await?;
            self.counts.built.inc_by(reports.len() as u64);
            built += reports.len();
            ready = next?;
        }
        Ok(built)
    }

    /// The next tallies after a domain, with the looks at their policies, and the last domain of them.
    async fn read(
        &self,
        day: Timestamp,
        after: &str,
        tested: &HashSet<DomainName>,
    ) -> Result<Option<(String, Ready)>, SchedulerError> {
        let tallies = self.store.tally_after(day, after, BATCH_ROWS).await?;
        let Some(last) = tallies.last().map(|last| last.domain.to_string()) else { return Ok(None) };
        let mut ready = Vec::with_capacity(tallies.len());
        for tally in tallies {
            if is_within(&tally.domain, &self.rules.excluded) {
                continue;
            }
            let looks = match tested.contains(&tally.domain) {
                true => self.store.testing_probes(day, &tally.domain).await?,
                false => Vec::new(),
            };
            ready.push((tally, looks));
        }
        Ok(Some((last, ready)))
    }

    /// Reports of these tallies, written by two threads.
    async fn write(&self, day: Timestamp, mut ready: Ready) -> Result<Vec<NewOutgoing>, SchedulerError> {
        let half = ready.split_off(ready.len() / 2);
        let work = |part: Ready| {
            let (reporter, spread) = (self.delivery.reporter.clone(), self.rules.spread);
            tokio::task::spawn_blocking(move || {
                part.into_iter()
                    .filter_map(|(tally, looks)| new_report(day, tally, &looks, &reporter, spread))
                    .collect::<Result<Vec<_>, _>>()
            })
        };
        let (one, other) = (work(ready), work(half));
        let mut reports = Vec::new();
        for part in [one, other] {
            reports.extend(part.await.map_err(SchedulerError::Cut)??);
        }
        Ok(reports)
    }

    /// Lets go what is due and does not fly yet.
    async fn launch(self: &Arc<Self>, flying: &mut Deliveries) -> Result<(), SchedulerError> {
        let now = self.clock.now();
        let mut last: Option<Outgoing> = None;
        while flying.reports.len() < MAX_DELIVERIES {
            let due = self.store.due_outgoing(now, last.as_ref(), BATCH_ROWS).await?;
            last = due.last().cloned();
            for report in due {
                if flying.reports.insert(report.id) {
                    let scheduler = self.clone();
                    flying.tasks.spawn(async move {
                        let id = report.id;
                        if let Err(error) = scheduler.round(report, now).await {
                            tracing::error!("how a report was delivered can't be written down: {error}");
                        }
                        id
                    });
                }
            }
            if last.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Tries a report at every target that has not decided about it.
    async fn round(&self, mut report: Outgoing, now: Timestamp) -> Result<(), StoreError> {
        let known = self.store.tallied_record(report.day, &report.domain).await?;
        let targets = match self.delivery.targets(&report.domain, known.as_deref()).await {
            Ok(Some(targets)) => targets,
            Ok(None) => {
                report.said = "the domain asks for no reports".to_owned();
                return self.settle(report, DeliveryState::Unwanted).await;
            }
            Err(error) => {
                let said = format!("the record _smtp._tls.{}: {error}", report.domain);
                return self.again(report, now, said).await;
            }
        };
        let before = self.store.outgoing_targets(report.id).await?;
        let mut replies: Vec<Option<Reply>> = Vec::with_capacity(targets.len());
        let mut said = String::new();
        for target in &targets {
            let reply = self.at(&report, target, &before, &mut said).await?;
            replies.push(reply);
        }
        let has = |wanted| replies.contains(&wanted);
        match () {
            // One is enough (RPT-20); those that failed have had their try.
            () if has(Some(Reply::Accepted)) && !has(None) => self.settle(report, DeliveryState::Sent).await,
            // A target that has enough to do: it stays due.
            () if has(None) => Ok(()),
            () if has(Some(Reply::Failed)) => self.again(report, now, said).await,
            () => {
                report.said =
                    if targets.is_empty() { "no target that reports go to".to_owned() } else { said };
                self.settle(report, DeliveryState::GivenUp).await
            }
        }
    }

    /// What a target makes of a report; `None` when it has enough to do.
    async fn at(
        &self,
        report: &Outgoing,
        target: &Rua,
        before: &[TargetState],
        said: &mut String,
    ) -> Result<Option<Reply>, StoreError> {
        let text = target.to_string();
        let known = before.iter().find(|known| known.target == text);
        // Who failed just now is left alone while another target is busy.
        let stands = |known: &&TargetState| {
            known.reply != Reply::Failed || self.clock.now() < later(known.at, FAILURE_CACHE_TIME)
        };
        if let Some(known) = known.filter(stands) {
            said.clone_from(&known.said);
            return Ok(Some(known.reply));
        }
        let place = tokio::select! {
            place = self.delivery.busy.place(host(target)) => place,
            () = self.stop.cancelled() => None,
        };
        let Some(_place) = place.filter(|_| !self.stop.is_cancelled()) else { return Ok(None) };
        let letter = PreparedReport {
            domain: report.domain.clone(),
            day: DateRange::utc_day(report.day),
            report_id: report.report_id.clone(),
            packed: self.store.outgoing_text(report.id).await?.unwrap_or_default(),
        };
        let (reply, words) = match self.delivery.bring(&letter, target, self.clock.now()).await {
            Ok(words) => (Reply::Accepted, words),
            Err(failure) if failure.is_final => (Reply::Refused, failure.why),
            Err(failure) => (Reply::Failed, failure.why),
        };
        if reply != Reply::Accepted {
            self.counts.failures.inc();
            tracing::info!(domain = %report.domain, target = text, "a report was not taken: {words}");
            *said = format!("{text}: {words}");
        }
        while let Err(error) = self.store.put_target(report.id, &text, reply, self.clock.now(), &words).await
        {
            if reply != Reply::Accepted {
                return Err(error);
            }
            // It would be sent again if this were forgotten, so that nothing goes before it.
            tracing::error!(target = text, "that a report was accepted can't be written down yet: {error}");
            tokio::time::sleep(STORE_RETRY).await;
        }
        Ok(Some(reply))
    }

    /// Lets a report go again later, for as long as it lives (RPT-20).
    async fn again(&self, mut report: Outgoing, now: Timestamp, said: String) -> Result<(), StoreError> {
        let first = *report.first_try.get_or_insert(now);
        report.tries = report.tries.saturating_add(1);
        report.said = said;
        let pause = FIRST_RETRY.saturating_mul(1 << report.tries.saturating_sub(1).min(10)).min(MAX_RETRY);
        let end = later(first, REPORT_LIFE);
        if now >= end {
            return self.settle(report, DeliveryState::GivenUp).await;
        }
        // The last try is at the very end of its life.
        report.due = later(now, pause).min(end);
        self.store.put_round(&report).await
    }

    async fn settle(&self, mut report: Outgoing, state: DeliveryState) -> Result<(), StoreError> {
        report.state = state;
        match state {
            DeliveryState::Sent => self.counts.sent.inc(),
            DeliveryState::Unwanted => self.counts.unwanted.inc(),
            DeliveryState::GivenUp | DeliveryState::Waiting => {
                tracing::warn!(domain = %report.domain, id = report.report_id, "a report is given up: {}", report.said);
                self.counts.given_up.inc()
            }
        };
        self.store.put_round(&report).await
    }

    /// Forgets what is kept for long enough.
    pub fn sweep<'a>(&'a self) -> BoxFuture<'a, Result<(), SchedulerError>> {
        Box::pin(async move {
            let today = DateRange::utc_day(self.clock.now()).start;
            let ago =
                |days: u32| today.saturating_sub(DAY.saturating_mul(i32::try_from(days).unwrap_or(i32::MAX)));
            self.store.forget_tallies(ago(self.rules.keep_tallies).unwrap_or(Timestamp::MIN)).await?;
            self.store.forget_outgoing(ago(self.rules.keep_reports).unwrap_or(Timestamp::MIN)).await?;
            Ok(())
        })
    }
}

/// A report that is ready to be put in line; `None` when there was no session.
fn new_report(
    day: Timestamp,
    tally: DomainTally,
    looks: &[TestingProbe],
    reporter: &Reporter,
    spread: Duration,
) -> Option<Result<NewOutgoing, SchedulerError>> {
    let domain = tally.domain.clone();
    let report = build(day, tally, looks, reporter)?;
    let sum = |count: fn(&formats::report::PolicyReport) -> u64| report.policies.iter().map(count).sum();
    let (successful, failed) = (sum(|policy| policy.successful), sum(|policy| policy.failed));
    let letter = match PreparedReport::new(&domain, &report) {
        Ok(letter) => letter,
        Err(error) => return Some(Err(SchedulerError::Compose(domain, error))),
    };
    Some(Ok(NewOutgoing {
        day,
        due: later(later(day, DAY), delay(&letter.report_id, spread)),
        domain,
        report_id: letter.report_id,
        packed: letter.packed,
        successful,
        failed,
    }))
}

/// After midnight: a moment of the spread that is each report's own, so that neither all reports of a sender nor all
/// reports to a receiver go at once (RPT-11).
fn delay(report_id: &str, spread: Duration) -> SignedDuration {
    let mut hasher = DefaultHasher::new();
    report_id.hash(&mut hasher);
    let seconds = hasher.finish() % spread.as_secs().max(1);
    CLOSE_DELAY.saturating_add(SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
