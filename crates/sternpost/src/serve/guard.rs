//! The role `[guard]`: looks at each domain of the configuration again and again, says what needs somebody,
//! once when it begins and once when it is over, and widens a policy where that is allowed.

use super::messages::{Event, EventKind, Messenger};
use config::GuardConfig;
use formats::DomainName;
use jiff::SignedDuration;
use operations::RolloutContext;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use receiver::domain::{DnsBy, DomainSpec, HostedBy};
use receiver::rollout::guard::{Alert, AlertKind, Guard, ProbedHost};
use receiver::rollout::reported::{ReportSums, reported};
use receiver::rollout::{Applier, NewHosts, RolloutState, Verification};
use std::collections::{BTreeMap, BTreeSet};
use store::StoreError;
use store::alerts::ActiveAlert;
use store::notices::NewNotice;

/// How far back reports are looked at.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 30);
/// Domains that are named in metrics; the sums have all.
const MAX_NAMED_DOMAINS: usize = 1000;

/// Domain, kind and subject of an alert.
type AlertKey = (String, String, String);

/// The watch.
pub struct GuardRole {
    context: RolloutContext,
    config: GuardConfig,
    /// What is known to be wrong.
    raised: BTreeMap<AlertKey, Alert>,
    channels: Vec<String>,
    pub counts: Counts,
}

/// What the watch counts.
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
        registry.register("alerts", "Alerts that stand", self.alerts.clone());
        let of_domains = "Alerts that stand, by domain; for a thousand domains at most";
        registry.register("domain_alerts", of_domains, self.of_domains.clone());
        registry.register("guard_looks", "Looks at domains", self.looks.clone());
        registry.register("guard_failed_looks", "Looks at domains that told nothing", self.failed.clone());
    }

    fn stand(&self, raised: &BTreeMap<AlertKey, Alert>) {
        let mut domains = BTreeMap::new();
        for kind in AlertKind::ALL {
            let rollout = raised.values().filter(|alert| alert.kind == kind).count();
            let gauge = self.alerts.get_or_create(&ByKind { kind: kind.to_string() });
            gauge.set(i64::try_from(rollout).unwrap_or(i64::MAX));
        }
        for (domain, kind, _) in raised.keys() {
            *domains.entry((domain, kind)).or_insert(0_i64) += 1;
        }
        self.of_domains.clear();
        for ((domain, kind), rollout) in domains.into_iter().take(MAX_NAMED_DOMAINS) {
            let label = ByDomain { domain: domain.clone(), kind: kind.clone() };
            self.of_domains.get_or_create(&label).set(rollout);
        }
    }
}

impl GuardRole {
    pub fn new(context: RolloutContext, config: GuardConfig) -> Self {
        let channels = Messenger::channels(&config);
        Self { context, config, raised: BTreeMap::new(), channels, counts: Counts::default() }
    }

    /// Watches until it is dropped. The looks at all domains are spread over the time between two.
    pub async fn run(mut self) {
        match self.context.store.alerts::<Alert>().await {
            Ok(there) => {
                let place = |one: ActiveAlert<Alert>| {
                    ((one.domain, one.alert.kind.to_string(), one.alert.subject.clone()), one.alert)
                };
                self.raised = there.into_iter().map(place).collect();
                self.counts.stand(&self.raised);
            }
            Err(error) => tracing::error!("what stood before the start is not known: {error}"),
        }
        tracing::info!(domains = self.context.known.len(), "the guard watches");
        loop {
            let specs = self.context.known.clone();
            let pause = self.config.every / u32::try_from(specs.len().max(1)).unwrap_or(u32::MAX);
            for spec in &specs {
                self.one(spec).await;
                tokio::time::sleep(pause).await;
            }
            if specs.is_empty() {
                tokio::time::sleep(pause).await;
            }
            if let Err(failure) = self.context.learn().await {
                tracing::error!("new domains are not watched: {failure}");
            }
            self.forget_the_gone().await;
        }
    }

    async fn one(&mut self, spec: &DomainSpec) {
        let domain = &spec.name;
        let mut applier = match self.context.applier(spec) {
            Ok(applier) => applier,
            Err(failure) => return tracing::error!(%domain, "can't be watched: {failure}"),
        };
        if !spec.repair {
            applier.new_hosts = NewHosts::LeaveToOperator;
        }
        let rollout = match self.context.rollout(domain).await {
            Ok(rollout) => rollout,
            Err(failure) => return tracing::error!(%domain, "can't be watched: {failure}"),
        };
        let guard = Guard {
            dns: applier.dns.clone(),
            policies: applier.policies.clone(),
            mail: self.context.world.mail.clone(),
            clock: self.context.world.clock.clone(),
        };
        self.counts.looks.inc();
        match guard.look(&self.context.wanted(spec), &rollout).await {
            // Ignorance raises nothing and ends nothing.
            Err(error) => {
                self.counts.failed.inc();
                tracing::warn!(%domain, "can't be looked at: {error}");
            }
            Ok((mut alerts, hosts)) => {
                self.remember(spec, &hosts).await;
                match self.reported(spec, &rollout).await {
                    Ok(reported) => alerts.extend(reported),
                    Err(error) => return tracing::error!(%domain, "its reports can't be looked at: {error}"),
                }
                let uncovered = alerts.iter().any(|alert| alert.kind == AlertKind::MxUncovered);
                self.tell(spec, alerts).await;
                let promoted = self.context.promote_by_evidence(spec).await;
                let promoted = promoted.unwrap_or_else(|failure| {
                    tracing::error!(%domain, "can't be promoted: {failure}");
                    false
                });
                let by_itself =
                    self.config.apply && spec.host == HostedBy::Sternpost && spec.dns != DnsBy::Hand;
                if by_itself {
                    self.carry_on(spec, &applier, Verification::Defer).await;
                } else if promoted || (uncovered && spec.repair) {
                    self.carry_on(spec, &applier, Verification::Await).await;
                }
            }
        }
    }

    /// What reports tell.
    async fn reported(&self, spec: &DomainSpec, rollout: &RolloutState) -> Result<Vec<Alert>, StoreError> {
        let (context, name) = (&self.context, &spec.name);
        let now = context.world.clock.now();
        let since = now.saturating_sub(REPORT_WINDOW).unwrap_or(now);
        let days = context.store.days_of(name, since).await?;
        let causes = context.store.causes_of(name, since).await?;
        let told = ReportSums { days: &days, causes: &causes };
        Ok(reported(name, rollout, &context.decisions(name), told, self.config.failure_rate, now))
    }

    /// Our own looks are evidence too.
    async fn remember(&self, spec: &DomainSpec, hosts: &[ProbedHost]) {
        let now = self.context.world.clock.now();
        for host in hosts {
            let problem = host.proof.as_ref().err().map(String::as_str);
            if let Err(error) = self.context.store.put_guard_probe(&spec.name, &host.name, now, problem).await
            {
                tracing::warn!(domain = %spec.name, "a look at {} can't be kept: {error}", host.name);
            }
        }
    }

    async fn tell(&mut self, spec: &DomainSpec, alerts: Vec<Alert>) {
        let domain = spec.name.as_str();
        let key = |alert: &Alert| (domain.to_owned(), alert.kind.to_string(), alert.subject.clone());
        let now: BTreeMap<_, _> = alerts.into_iter().map(|alert| (key(&alert), alert)).collect();
        let is_over = |place: &&AlertKey| place.0 == domain && !now.contains_key(*place);
        let over: Vec<AlertKey> = self.raised.keys().filter(is_over).cloned().collect();
        for (place, alert) in now {
            self.stands(&spec.name, place, alert).await;
        }
        for place in over {
            self.ends(&spec.name, &place).await;
        }
        self.counts.stand(&self.raised);
    }

    /// Keeps an alert, and the news of it where it is new. What can't be kept is taken up again at the next look.
    async fn stands(&mut self, domain: &DomainName, place: AlertKey, alert: Alert) {
        let is_new = !self.raised.contains_key(&place);
        if is_new {
            tracing::error!(
                %domain, kind = %alert.kind,
                "{}. {} {}", alert.what, alert.consequence, alert.remedy
            );
        }
        let event = self.event(domain, EventKind::Raised, &alert);
        let news = NewNotice { channels: &self.channels, born: event.at, told: &event };
        let news = Some(news).filter(|_| is_new);
        match self.context.store.raise(domain, &place.1, &place.2, event.at, &alert, news).await {
            Ok(()) => drop(self.raised.insert(place, alert)),
            Err(error) => tracing::error!(%domain, "an alert can't be kept: {error}"),
        }
    }

    async fn ends(&mut self, domain: &DomainName, place: &AlertKey) {
        let Some(alert) = self.raised.get(place) else { return };
        let event = self.event(domain, EventKind::Over, alert);
        let news = NewNotice { channels: &self.channels, born: event.at, told: &event };
        match self.context.store.end_alert(domain, &place.1, &place.2, Some(news)).await {
            Ok(()) => {
                tracing::info!(%domain, kind = %alert.kind, subject = alert.subject, "is over");
                self.raised.remove(place);
            }
            Err(error) => tracing::error!(%domain, "the end of an alert can't be kept: {error}"),
        }
    }

    /// What is said of domains that are looked after no longer is over.
    async fn forget_the_gone(&mut self) {
        let known: BTreeSet<&str> = self.context.known.iter().map(|spec| spec.name.as_str()).collect();
        let is_gone = |place: &&AlertKey| !known.contains(place.0.as_str());
        let gone: Vec<AlertKey> = self.raised.keys().filter(is_gone).cloned().collect();
        for place in gone {
            if let Ok(domain) = DomainName::from_ascii(&place.0) {
                self.ends(&domain, &place).await;
            }
        }
        self.counts.stand(&self.raised);
    }

    fn event(&self, domain: &DomainName, event: EventKind, alert: &Alert) -> Event {
        let at = self.context.world.clock.now();
        Event { schema: 1, event, domain: domain.to_string(), at, alert: alert.clone() }
    }

    /// Carries the plan out, as far as that goes without hands: widening is always safe, and the sooner the
    /// better; enforcement was allowed.
    async fn carry_on(&self, spec: &DomainSpec, applier: &Applier, waiting: Verification) {
        let domain = &spec.name;
        match self.context.hold(domain).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => return tracing::error!(%domain, "its plan can't be carried out: {failure}"),
        }
        let outcome = match self.context.rollout(domain).await {
            Ok(rollout) => {
                applier.run(&self.context.wanted(spec), RolloutContext::permit(&rollout), waiting).await
            }
            Err(failure) => return tracing::error!(%domain, "its plan can't be carried out: {failure}"),
        };
        match outcome {
            Ok((steps, _)) => {
                steps.iter().for_each(|done| tracing::info!(%domain, "carried out: {}", done.step))
            }
            Err(error) => tracing::error!(%domain, "its plan stopped: {error}"),
        }
        if let Err(failure) = self.context.release(domain).await {
            tracing::error!(%domain, "{failure}");
        }
    }
}
