//! Keeps received reports and the quarantine within the limits of `[inbox]`, and gives the space of deleted data back to
//! the file system. Each change is a short transaction, so that answers and imports go on meanwhile. The quotas
//! themselves hold at each insert; this task removes what is too old, counts, and raises the alert when a quota is hit.

use super::messages::{Event, EventKind, Messenger};
use config::Config;
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};
use net::clock::{Clock, later};
use net::metrics::{self, Counter, Gauge, Registry};
use receiver::inbox::{Removed, Retention};
use receiver::rollout::guard::{Alert, AlertKind};
use std::sync::Arc;
use std::time::Duration;
use store::alerts::ActiveAlert;
use store::notices::NewNotice;
use store::reports::{Earlier, QuarantineUsage};
use store::tenants::{TenantInfo, TenantName};
use store::{Store, StoreError};

/// The interval between two rounds.
const INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of steps in a round that give space back: 120 MiB a minute.
const MAX_STEPS: u32 = 60;
/// The pause between two steps, in which other writes run.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// How long after the last loss the alert ends.
const QUIET: SignedDuration = SignedDuration::from_hours(24);
/// The interval between two searches for texts that no report uses any more. They read all reports.
const TEXTS_INTERVAL: SignedDuration = SignedDuration::from_hours(1);

/// The metrics of what is kept.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    quarantined: Gauge,
    quarantine_bytes: Gauge,
    quarantine_evicted: Counter,
    quarantine_expired: Counter,
    unverified: Gauge,
    unverified_bytes: Gauge,
    unverified_evicted: Counter,
    expired: Counter,
}

impl Counts {
    pub fn register(&self, registry: &mut Registry) {
        metrics::QUARANTINE_ITEMS.register(registry, self.quarantined.clone());
        metrics::QUARANTINE_BYTES.register(registry, self.quarantine_bytes.clone());
        metrics::UNVERIFIED_REPORTS.register(registry, self.unverified.clone());
        metrics::UNVERIFIED_BYTES.register(registry, self.unverified_bytes.clone());
        metrics::QUARANTINE_EVICTED.register(registry, self.quarantine_evicted.clone());
        metrics::QUARANTINE_EXPIRED.register(registry, self.quarantine_expired.clone());
        metrics::UNVERIFIED_EVICTED.register(registry, self.unverified_evicted.clone());
        metrics::EXPIRED_REPORTS.register(registry, self.expired.clone());
    }
}

/// The background task that enforces [`Retention`], and raises the alert about a full quarantine.
#[derive(Clone)]
pub struct RetentionTask {
    store: Store,
    clock: Arc<dyn Clock>,
    limits: Retention,
    /// The names of the channels that alerts are sent on.
    channels: Vec<String>,
    /// The domain that the alert is about: that of the first report address. `None` without an address or a guard.
    domain: Option<DomainName>,
    /// The domains of the configuration file.
    own: Vec<DomainName>,
    /// The tenant that events name; `None` for the first one.
    tenant: Option<TenantName>,
    pub counts: Counts,
}

/// What a round needs from earlier rounds.
#[derive(Default)]
pub struct State {
    /// The losses of the quarantine that were counted so far; `None` before the first round.
    evicted: Option<u64>,
    /// True if the quarantine lost something since the last alert was raised or found active. It stays true if the store
    /// fails, so that the next round raises the alert.
    has_loss: bool,
    /// When the quarantine last lost an item, or the program started.
    last_loss: Option<Timestamp>,
    /// The active alert.
    raised: Option<Alert>,
    /// The version of the reports when the sums were last within their limits, and when that was.
    sums: Option<(i64, Timestamp)>,
    /// When unused texts were last searched for.
    texts: Option<Timestamp>,
    /// Whether the log already reports that the file can't be made smaller in steps.
    has_logged_old_file: bool,
}

impl RetentionTask {
    pub fn new(config: &Config, store: &Store, clock: Arc<dyn Clock>) -> Self {
        let address = config.inbox.as_ref().and_then(|inbox| inbox.addresses.first());
        let domain = address.and_then(|address| DomainName::parse(address.rsplit_once('@')?.1).ok());
        Self {
            store: store.clone(),
            clock,
            limits: config.retention(),
            channels: config.guard.as_ref().map(Messenger::channels).unwrap_or_default(),
            domain: domain.filter(|_| config.guard.is_some()),
            own: config.domains.iter().map(|spec| spec.name.clone()).collect(),
            tenant: None,
            counts: Counts::default(),
        }
    }

    /// The task for a further tenant, to which no domain of the configuration file belongs. The metrics are those of the first one.
    pub fn of(&self, tenant: &TenantInfo, store: Store) -> Self {
        Self {
            store,
            own: Vec::new(),
            tenant: tenant.name_if_further(),
            counts: Counts::default(),
            ..self.clone()
        }
    }

    /// The same task, which writes to this handle of the store.
    pub fn on(&self, store: Store) -> Self {
        Self { store, ..self.clone() }
    }

    /// Runs a round each minute until the task is dropped.
    pub async fn run(self) {
        let mut state = State::default();
        loop {
            if let Err(error) = self.round(&mut state).await {
                tracing::error!("old reports and quarantined input can't be removed: {error}");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Updates the metrics each minute until the task is dropped, on the nodes that do not remove anything as well.
    pub async fn keep_counting(self: Arc<Self>) {
        loop {
            if let Err(error) = self.count().await {
                tracing::error!("stored reports can't be counted: {error}");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    pub async fn round(&self, state: &mut State) -> Result<(), StoreError> {
        let now = self.clock.now();
        if state.evicted.is_none() {
            let active = self.store.alerts::<Alert>().await?;
            let ours = |one: &ActiveAlert<Alert>| one.alert.kind == AlertKind::QuarantineFull;
            state.raised = active.into_iter().find(ours).map(|one| one.alert);
            state.last_loss = Some(now);
            self.log_spared_data(now).await?;
            // Before anything is removed, so that what this round removes is noticed.
            state.evicted = Some(self.store.quarantine_usage().await?.evicted);
        }
        let removed = self.limits.enforce(&self.store, now).await?;
        if removed != Removed::default() {
            let Removed { quarantined, unverified, expired, dmarc } = removed;
            tracing::info!(
                quarantined,
                unverified,
                expired,
                dmarc,
                "removed old reports and quarantined input"
            );
        }
        self.counts.expired.inc_by(removed.expired);
        let usage = self.count().await?;
        if state.evicted.is_some_and(|before| usage.evicted > before) {
            (state.has_loss, state.last_loss) = (true, Some(now));
        }
        state.evicted = Some(usage.evicted);
        self.alert(state, &usage, now).await?;
        self.limit_sums(state, now).await?;
        if self.tenant.is_some() {
            return Ok(());
        }
        // Texts and the file belong to all tenants.
        if state.texts.is_none_or(|last| later(last, TEXTS_INTERVAL) <= now) {
            while self.store.forget_texts().await? > 0 {}
            state.texts = Some(now);
        }
        self.release_space(state).await
    }

    /// Removes surplus sums, if reports have changed or a day may have become too old. This reads all sums.
    async fn limit_sums(&self, state: &mut State, now: Timestamp) -> Result<(), StoreError> {
        let version = self.store.reports_version().await?;
        let is_done = |(of, at): (i64, Timestamp)| of == version && later(at, TEXTS_INTERVAL) > now;
        if state.sums.is_some_and(is_done) {
            return Ok(());
        }
        let own: Vec<&DomainName> = self.own.iter().collect();
        let removed = self.limits.enforce_sums(&self.store, &own, now).await?;
        if removed > 0 {
            tracing::info!(
                removed,
                "removed sums of received reports: old ones, and surplus ones about other domains"
            );
        }
        state.sums = Some((version, now));
        Ok(())
    }

    /// Writes to the log what was there before the limits, so that the operator can act before it is deleted.
    async fn log_spared_data(&self, now: Timestamp) -> Result<(), StoreError> {
        if let Some(earlier) = self.limits.earlier(&self.store, now).await? {
            let Earlier { quarantined, last_report, until } = earlier;
            tracing::warn!(
                quarantined,
                last_report,
                %until,
                "the limits of [inbox] do not apply yet to what was received before the upgrade; to keep more of it, raise them until then"
            );
        }
        Ok(())
    }

    /// Updates the metrics. Returns the usage of the quarantine.
    async fn count(&self) -> Result<QuarantineUsage, StoreError> {
        let (usage, unverified) =
            (self.store.quarantine_usage().await?, self.store.unverified_usage().await?);
        let set = |gauge: &Gauge, number: u64| {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        };
        set(&self.counts.quarantined, usage.items);
        set(&self.counts.quarantine_bytes, usage.bytes);
        set(&self.counts.unverified, unverified.reports);
        set(&self.counts.unverified_bytes, unverified.bytes);
        // The store counts over restarts.
        let raise = |counter: &Counter, to: u64| {
            counter.inc_by(to.saturating_sub(counter.get()));
        };
        raise(&self.counts.quarantine_evicted, usage.evicted);
        raise(&self.counts.quarantine_expired, usage.expired);
        raise(&self.counts.unverified_evicted, unverified.evicted);
        Ok(usage)
    }

    /// Raises the alert when the quarantine loses something, and ends it a day after the last loss.
    async fn alert(
        &self,
        state: &mut State,
        usage: &QuarantineUsage,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let kind = AlertKind::QuarantineFull.to_string();
        let is_over = !state.has_loss && state.last_loss.is_none_or(|last| later(last, QUIET) <= now);
        match &state.raised {
            None if state.has_loss => {
                let alert = full(usage, &self.limits);
                tracing::error!(%kind, "{}. {} {}", alert.what, alert.consequence, alert.remedy);
                if let Some(domain) = &self.domain {
                    let told = self.event(EventKind::Raised, domain, &alert, now);
                    let notice = NewNotice { channels: &self.channels, changed_at: now, content: &told };
                    self.store.raise(domain, &kind, &alert.subject, now, &alert, Some(notice)).await?;
                }
                state.raised = Some(alert);
            }
            Some(alert) if is_over => {
                tracing::info!(%kind, "alert ended");
                if let Some(domain) = &self.domain {
                    let told = self.event(EventKind::Over, domain, alert, now);
                    let notice = NewNotice { channels: &self.channels, changed_at: now, content: &told };
                    self.store.end_alert(domain, &kind, &alert.subject, Some(notice)).await?;
                }
                state.raised = None;
            }
            _ => {}
        }
        state.has_loss = false;
        Ok(())
    }

    async fn release_space(&self, state: &mut State) -> Result<(), StoreError> {
        for _ in 0..MAX_STEPS {
            match self.store.release_space().await? {
                Some(0) => break,
                Some(_) => tokio::time::sleep(STEP_PAUSE).await,
                None => {
                    if !std::mem::replace(&mut state.has_logged_old_file, true) {
                        tracing::info!(
                            "the store was created by an earlier version and does not get smaller; `sternpost store compact` changes that"
                        );
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn event(&self, event: EventKind, domain: &DomainName, alert: &Alert, at: Timestamp) -> Event {
        let (tenant, domain) = (self.tenant.clone(), domain.to_string());
        Event { schema: 1, event, tenant, domain, at, alert: alert.clone() }
    }
}

fn full(usage: &QuarantineUsage, limits: &Retention) -> Alert {
    Alert {
        kind: AlertKind::QuarantineFull,
        subject: "inbox".to_owned(),
        what: format!(
            "The quarantine of unreadable reports has reached a limit, with {} items and {} MiB (of {} MiB), and lost its oldest ones",
            usage.items,
            usage.bytes >> 20,
            limits.quarantine.bytes >> 20
        ),
        consequence: "What was lost can't be imported again after an upgrade. Reports that can be read are not affected.".into(),
        remedy: "See who sends it: sternpost reports quarantine list. Delete a flood: sternpost reports quarantine drop --from SOURCE --yes. To keep more, raise inbox.quarantine_size".to_owned(),
        cause: None,
        domains: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::clock::ManualClock;
    use store::reports::{Arrival, NewQuarantined, Quota};

    async fn quarantine(store: &Store, number: u8, quota: &Quota) {
        let raw = [number; 100];
        let new = NewQuarantined {
            received_at: Timestamp::UNIX_EPOCH,
            arrival: Arrival::Smtp,
            source: "192.0.2.0/24",
            is_trusted: false,
            reason: "r",
            raw: &raw,
        };
        store.quarantine(&new, quota).await.unwrap();
    }

    #[tokio::test]
    async fn a4_a_full_quarantine_is_counted_and_raises_one_alert_until_a_day_after_the_last_loss() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let quota = Quota { bytes: 1000, items: 100 };
        let text =
            "[inbox]\naddresses = [\"tlsrpt@reports.example\"]\n[guard]\nwebhook = \"http://127.0.0.1:9/\"\n";
        let config = Config::parse(text, None).unwrap();
        let at = |hour: i64| Timestamp::from_second(hour * 3600).unwrap();
        let task = |hour| RetentionTask::new(&config, &store, Arc::new(ManualClock::new(at(hour))));
        let mut state = State::default();
        task(0).round(&mut state).await.unwrap();
        for number in 0..5 {
            quarantine(&store, number, &quota).await;
        }
        let first = task(1);
        first.round(&mut state).await.unwrap();
        first.round(&mut state).await.unwrap();
        let mut registry = Registry::default();
        first.counts.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("inbox_quarantine_evicted_total 3"), "{text}");
        assert!(text.contains("inbox_quarantine_items 2"), "{text}");
        assert!(text.contains("inbox_quarantine_bytes 200"), "{text}");
        let notices = async || store.due_notices::<Event>("webhook", at(1000), 10).await.unwrap();
        let told = notices().await;
        assert_eq!(
            (told.len(), told[0].content.event, told[0].content.domain.as_str()),
            (1, EventKind::Raised, "reports.example")
        );
        // The alert survives a restart.
        let mut state = State::default();
        task(2).round(&mut state).await.unwrap();
        task(25).round(&mut state).await.unwrap();
        assert_eq!((notices().await.len(), store.alerts::<Alert>().await.unwrap().len()), (1, 1));
        task(26).round(&mut state).await.unwrap();
        let told = notices().await;
        assert_eq!((told.len(), told[1].content.event), (2, EventKind::Over));
        assert!(store.alerts::<Alert>().await.unwrap().is_empty());
        // Thirty days after the arrival.
        task(24 * 30 + 1).round(&mut state).await.unwrap();
        assert_eq!(store.quarantine_usage().await.unwrap().items, 0);
    }

    #[tokio::test]
    async fn sums_about_other_domains_have_an_age_and_those_about_ours_stay() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let config = Config::parse("[[domain]]\nname = \"a.example\"\n", None).unwrap();
        let names = ["a.example", "other.example"].map(|name| DomainName::parse(name).unwrap());
        for name in &names {
            store.keep_report(&report(name)).await.unwrap();
        }
        let mut state = State::default();
        let days = async |at: i64, state: &mut State| {
            let now = Timestamp::from_second(at * 86_400).unwrap();
            RetentionTask::new(&config, &store, Arc::new(ManualClock::new(now))).round(state).await.unwrap();
            let names: Vec<&str> = names.iter().map(DomainName::as_str).collect();
            store.days_of_each(&names, Timestamp::UNIX_EPOCH).await.unwrap().into_keys().collect::<Vec<_>>()
        };
        assert_eq!(days(101, &mut state).await, ["a.example", "other.example"]);
        assert_eq!(days(501, &mut state).await, ["a.example"]);
    }

    /// A signed report about day 100.
    fn report(domain: &DomainName) -> store::reports::NewReport {
        let at = |day: i64| Timestamp::from_second(day * 86_400).unwrap();
        store::reports::NewReport {
            submitter: "big.example".into(),
            signer: Some("big.example".into()),
            trust: store::reports::Trust::Verified,
            about: None,
            arrival: Arrival::Smtp,
            received_at: at(101),
            source: "big.example".into(),
            report: formats::report::Report {
                organization_name: None,
                date_range: formats::report::DateRange::utc_day(at(100)),
                contact_info: None,
                report_id: "1".into(),
                policies: vec![formats::report::PolicyReport {
                    policy_type: formats::result_type::PolicyType::Sts,
                    policy_string: Vec::new(),
                    policy_domain: Some(domain.clone()),
                    mx_host: Vec::new(),
                    successful: 5,
                    failed: 0,
                    details: Vec::new(),
                }],
            },
            warnings: 0,
            packed: vec![0],
        }
    }

    #[tokio::test]
    async fn a_loss_is_alerted_in_the_next_round_if_the_store_fails_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.db");
        let (store, failing) = (
            Store::open(&file, store::Tenant::FIRST).await.unwrap(),
            Store::open(&file, store::Tenant::FIRST).await.unwrap(),
        );
        let text =
            "[inbox]\naddresses = [\"tlsrpt@reports.example\"]\n[guard]\nwebhook = \"http://127.0.0.1:9/\"\n";
        let config = Config::parse(text, None).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let mut state = State::default();
        let task = RetentionTask::new(&config, &store, clock.clone());
        task.round(&mut state).await.unwrap();
        for number in 0..5 {
            quarantine(&store, number, &Quota { bytes: 1000, items: 100 }).await;
        }
        // The loss is noticed, and the alert can't be stored.
        let usage = store.quarantine_usage().await.unwrap();
        (state.has_loss, state.evicted) = (true, Some(usage.evicted));
        let broken = RetentionTask::new(&config, &failing, clock);
        failing.close().await;
        assert!(broken.alert(&mut state, &usage, Timestamp::UNIX_EPOCH).await.is_err());
        task.round(&mut state).await.unwrap();
        assert_eq!(store.alerts::<Alert>().await.unwrap().len(), 1);
        task.round(&mut state).await.unwrap();
        let notices = store.due_notices::<Event>("webhook", Timestamp::UNIX_EPOCH, 10).await.unwrap();
        assert_eq!(notices.len(), 1);
    }

    #[tokio::test]
    async fn q3_a_loss_in_the_first_round_raises_the_alert() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        for number in 0..5 {
            quarantine(&store, number, &Quota { bytes: 10_000, items: 100 }).await;
        }
        let text =
            "[inbox]\naddresses = [\"tlsrpt@reports.example\"]\n[guard]\nwebhook = \"http://127.0.0.1:9/\"\n";
        let config = Config::parse(text, None).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
        let mut task = RetentionTask::new(&config, &store, clock);
        task.limits.quarantine = Quota { bytes: 300, items: 100 };
        task.round(&mut State::default()).await.unwrap();
        assert_eq!(store.quarantine_usage().await.unwrap().evicted, 3);
        assert_eq!(store.alerts::<Alert>().await.unwrap().len(), 1);
    }
}
