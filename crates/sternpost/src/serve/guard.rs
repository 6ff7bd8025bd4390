//! The role `[guard]`: checks each domain at the configured interval. It raises an alert when a problem begins and ends
//! it when the problem is over; `messages` delivers both. It adds MX hosts to a policy and continues a plan where the
//! configuration allows that. The checks themselves are in [`receiver::rollout::guard`].

use super::messages::{Event, EventKind, Messenger};
use config::GuardConfig;
use config::failure::Failure;
use formats::{DomainName, Mode};
use jiff::SignedDuration;
use operations::RolloutContext;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::rollout::guard::{Alert, AlertKind, Guard, GuardLook};
use receiver::rollout::reported::{ReportSums, disputed, reported};
use receiver::rollout::{Applier, NewHosts, RolloutState, Verification};
use std::collections::{BTreeMap, BTreeSet};
use store::alerts::ActiveAlert;
use store::notices::NewNotice;
use store::{PolicyDigest, StoreError};

/// Age up to which reports are evaluated: 30 days.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Maximum number of series with a domain label in the metrics; the totals count all domains.
const MAX_NAMED_DOMAINS: usize = 1000;

/// Domain, kind and subject of an alert.
type AlertKey = (String, String, String);

/// The state of the running guard.
pub struct GuardRole {
    context: RolloutContext,
    config: GuardConfig,
    /// The active alerts.
    raised: BTreeMap<AlertKey, Alert>,
    channels: Vec<String>,
    pub counts: Counts,
}

/// The guard's metrics.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    alerts: Family<ByKind, Gauge>,
    of_domains: Family<ByDomain, Gauge>,
    looks: Counter,
    failed: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDomain {
    domain: String,
    kind: String,
}

impl Counts {
    pub fn register(&self, registry: &mut Registry) {
        for kind in AlertKind::ALL {
            self.alerts.get_or_create(&ByKind { kind: kind.to_string() }).set(0);
        }
        registry.register("alerts", "Active alerts", self.alerts.clone());
        let of_domains = "Active alerts by domain, for at most a thousand domains";
        registry.register("domain_alerts", of_domains, self.of_domains.clone());
        registry.register("guard_looks", "Checks of domains", self.looks.clone());
        registry.register("guard_failed_looks", "Checks of domains that failed", self.failed.clone());
    }

    fn set_active(&self, raised: &BTreeMap<AlertKey, Alert>) {
        let mut domains = BTreeMap::new();
        for kind in AlertKind::ALL {
            let active = raised.values().filter(|alert| alert.kind == kind).count();
            let gauge = self.alerts.get_or_create(&ByKind { kind: kind.to_string() });
            gauge.set(i64::try_from(active).unwrap_or(i64::MAX));
        }
        for (domain, kind, _) in raised.keys() {
            *domains.entry((domain, kind)).or_insert(0_i64) += 1;
        }
        self.of_domains.clear();
        for ((domain, kind), active) in domains.into_iter().take(MAX_NAMED_DOMAINS) {
            let label = ByDomain { domain: domain.clone(), kind: kind.clone() };
            self.of_domains.get_or_create(&label).set(active);
        }
    }
}

impl GuardRole {
    pub fn new(context: RolloutContext, config: GuardConfig) -> Self {
        let channels = Messenger::channels(&config);
        Self { context, config, raised: BTreeMap::new(), channels, counts: Counts::default() }
    }

    /// Checks all domains in turn until it is dropped. The checks are spread evenly over the configured interval.
    pub async fn run(&mut self) {
        match self.context.store.alerts::<Alert>().await {
            Ok(there) => {
                let place = |one: ActiveAlert<Alert>| {
                    ((one.domain, one.alert.kind.to_string(), one.alert.subject.clone()), one.alert)
                };
                // The alert about the quarantine is that of the task `retention`.
                let is_ours = |one: &ActiveAlert<Alert>| one.alert.kind != AlertKind::QuarantineFull;
                self.raised = there.into_iter().filter(is_ours).map(place).collect();
                self.counts.set_active(&self.raised);
            }
            Err(error) => tracing::error!("can't read the active alerts from the store: {error}"),
        }
        tracing::info!(domains = self.context.known.len(), "guard started");
        loop {
            let specs = self.context.known.clone();
            let pause = self.config.every / u32::try_from(specs.len().max(1)).unwrap_or(u32::MAX);
            for spec in &specs {
                self.check_domain(spec).await;
                tokio::time::sleep(pause).await;
            }
            if specs.is_empty() {
                tokio::time::sleep(pause).await;
            }
            if let Err(failure) = self.context.learn().await {
                tracing::error!("can't load new domains: {failure}");
            }
            self.end_alerts_of_removed_domains().await;
        }
    }

    async fn check_domain(&mut self, spec: &DomainSpec) {
        let domain = &spec.name;
        let mut applier = match self.context.applier(spec) {
            Ok(applier) => applier,
            Err(failure) => return tracing::error!(%domain, "the domain can't be checked: {failure}"),
        };
        if !spec.repair {
            applier.new_hosts = NewHosts::LeaveToOperator;
        }
        let rollout = match self.context.rollout(domain).await {
            Ok(rollout) => rollout,
            Err(failure) => return tracing::error!(%domain, "the domain can't be checked: {failure}"),
        };
        let guard = Guard {
            dns: applier.dns.clone(),
            policies: applier.policies.clone(),
            mail: self.context.world.mail.clone(),
            clock: self.context.world.clock.clone(),
        };
        self.counts.looks.inc();
        match guard.look(&self.context.wanted(spec), &rollout).await {
            // A failed check neither raises nor ends alerts.
            Err(error) => {
                self.counts.failed.inc();
                tracing::warn!(%domain, "the check of the domain failed: {error}");
            }
            Ok(look) => {
                self.store_look(spec, &rollout, &look).await;
                let mut alerts = look.alerts;
                match self.reported(spec, &rollout).await {
                    Ok(reported) => alerts.extend(reported),
                    Err(error) => {
                        return tracing::error!(%domain, "the reports about the domain can't be read: {error}");
                    }
                }
                match self.disputed(spec, &rollout).await {
                    Ok(disputed) => alerts.extend(disputed),
                    Err(failure) => {
                        return tracing::error!(%domain, "the evidence can't be judged: {failure}");
                    }
                }
                let uncovered = alerts.iter().any(|alert| alert.kind == AlertKind::MxUncovered);
                self.update_alerts(spec, alerts).await;
                let promoted = self.context.promote_by_evidence(spec).await;
                let promoted = promoted.unwrap_or_else(|failure| {
                    tracing::error!(%domain, "the domain can't be promoted: {failure}");
                    false
                });
                let by_itself =
                    self.config.apply && spec.host == HostedBy::Sternpost && spec.dns != DnsBy::Hand;
                if by_itself {
                    self.continue_plan(spec, &applier, Verification::Defer).await;
                } else if promoted || (uncovered && spec.repair) {
                    self.continue_plan(spec, &applier, Verification::Await).await;
                }
            }
        }
    }

    /// The alerts that follow from received reports.
    async fn reported(&self, spec: &DomainSpec, rollout: &RolloutState) -> Result<Vec<Alert>, StoreError> {
        let (context, name) = (&self.context, &spec.name);
        let now = context.world.clock.now();
        let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
        let days = context.store.days_of(name, since).await?;
        let causes = context.store.causes_of(name, since).await?;
        let sums = ReportSums { days: &days, causes: &causes };
        Ok(reported(name, rollout, &context.decisions(name), sums, self.config.failure_rate, now))
    }

    /// The alert for evidence that the operator has to judge.
    async fn disputed(&self, spec: &DomainSpec, rollout: &RolloutState) -> Result<Option<Alert>, Failure> {
        let is_in_testing = rollout.mode.is_some_and(|known| known.mode == Mode::Testing);
        let is_open =
            is_in_testing && rollout.approved.is_none() && self.context.wanted(spec).mode == Mode::Enforce;
        if !is_open {
            return Ok(None);
        }
        let (_, gate) = self.context.gate(&spec.name, rollout).await?;
        Ok(disputed(&spec.name, &gate))
    }

    /// Stores the MX hosts and their probes, which are evidence and explain failures in reports.
    async fn store_look(&self, spec: &DomainSpec, rollout: &RolloutState, look: &GuardLook) {
        let (store, now) = (&self.context.store, self.context.world.clock.now());
        if let Err(error) = store.record_mx_hosts(&spec.name, &look.mx, now).await {
            tracing::warn!(domain = %spec.name, "the MX hosts can't be stored: {error}");
        }
        for (host, certificate) in &look.certificates {
            self.context.world.seen.put(host, certificate, now);
        }
        let Some(newest) = rollout.newest() else { return };
        let policy = PolicyDigest::of_patterns(&newest.mx);
        for host in &look.hosts {
            let problem = host.problem(rollout);
            let put = store.put_guard_probe(&spec.name, &host.name, now, policy, problem.as_deref()).await;
            if let Err(error) = put {
                tracing::warn!(domain = %spec.name, "the probe of {} can't be stored: {error}", host.name);
            }
        }
    }

    async fn update_alerts(&mut self, spec: &DomainSpec, alerts: Vec<Alert>) {
        let domain = spec.name.as_str();
        let key = |alert: &Alert| (domain.to_owned(), alert.kind.to_string(), alert.subject.clone());
        let now: BTreeMap<_, _> = alerts.into_iter().map(|alert| (key(&alert), alert)).collect();
        let is_over = |place: &&AlertKey| place.0 == domain && !now.contains_key(*place);
        let over: Vec<AlertKey> = self.raised.keys().filter(is_over).cloned().collect();
        for (place, alert) in now {
            self.raise_alert(&spec.name, place, alert).await;
        }
        for place in over {
            self.end_alert(&spec.name, &place).await;
        }
        self.counts.set_active(&self.raised);
    }

    /// Stores an alert; a new one with a notice for each channel. If that fails, the next check tries again.
    async fn raise_alert(&mut self, domain: &DomainName, place: AlertKey, alert: Alert) {
        let is_new = !self.raised.contains_key(&place);
        if is_new {
            tracing::error!(
                %domain, kind = %alert.kind,
                "{}. {} {}", alert.what, alert.consequence, alert.remedy
            );
        }
        let event = self.event(domain, EventKind::Raised, &alert);
        let notice = NewNotice { channels: &self.channels, born: event.at, told: &event };
        let notice = Some(notice).filter(|_| is_new);
        match self.context.store.raise(domain, &place.1, &place.2, event.at, &alert, notice).await {
            Ok(()) => drop(self.raised.insert(place, alert)),
            Err(error) => tracing::error!(%domain, "an alert can't be stored: {error}"),
        }
    }

    async fn end_alert(&mut self, domain: &DomainName, place: &AlertKey) {
        let Some(alert) = self.raised.get(place) else { return };
        let event = self.event(domain, EventKind::Over, alert);
        let notice = NewNotice { channels: &self.channels, born: event.at, told: &event };
        match self.context.store.end_alert(domain, &place.1, &place.2, Some(notice)).await {
            Ok(()) => {
                tracing::info!(%domain, kind = %alert.kind, subject = alert.subject, "alert ended");
                self.raised.remove(place);
            }
            Err(error) => tracing::error!(%domain, "the end of an alert can't be stored: {error}"),
        }
    }

    /// Ends the alerts of domains that are no longer configured.
    async fn end_alerts_of_removed_domains(&mut self) {
        let known: BTreeSet<&str> = self.context.known.iter().map(|spec| spec.name.as_str()).collect();
        let is_gone = |place: &&AlertKey| !known.contains(place.0.as_str());
        let gone: Vec<AlertKey> = self.raised.keys().filter(is_gone).cloned().collect();
        for place in gone {
            if let Ok(domain) = DomainName::from_ascii(&place.0) {
                self.end_alert(&domain, &place).await;
            }
        }
        self.counts.set_active(&self.raised);
    }

    fn event(&self, domain: &DomainName, event: EventKind, alert: &Alert) -> Event {
        let at = self.context.world.clock.now();
        Event { schema: 1, event, domain: domain.to_string(), at, alert: alert.clone() }
    }

    /// Carries out the plan up to the first manual step. Adding MX hosts is always safe; enforcement needs a permit.
    async fn continue_plan(&self, spec: &DomainSpec, applier: &Applier, waiting: Verification) {
        let domain = &spec.name;
        match self.context.hold(domain).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => return tracing::error!(%domain, "the plan can't be carried out: {failure}"),
        }
        match self.context.rollout(domain).await {
            Ok(rollout) => {
                let (wanted, permit) = (self.context.wanted(spec), RolloutContext::permit(&rollout));
                match applier.run(&wanted, permit, waiting).await {
                    Ok((steps, _)) => steps
                        .iter()
                        .for_each(|done| tracing::info!(%domain, "step carried out: {}", done.step)),
                    Err(error) => tracing::error!(%domain, "the plan stopped: {error}"),
                }
            }
            Err(failure) => tracing::error!(%domain, "the plan can't be carried out: {failure}"),
        }
        if let Err(failure) = self.context.release(domain).await {
            tracing::error!(%domain, "{failure}");
        }
    }
}
