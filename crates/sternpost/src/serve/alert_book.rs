//! The active alerts of the guard, and the notices about them. Every alert is stored under its domain. Alerts with one
//! condition behind them are announced together: the first domain that raises one announces all domains that are known
//! to share it, and domains that join later are announced together at the end of a pass over all domains. The end is
//! announced when no domain has the alert any more.

use super::messages::{Event, EventKind};
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};
use net::clock::Clock;
use net::metrics::{self, Gauges, Registry};
use receiver::rollout::guard::{Alert, AlertKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::alerts::ActiveAlert;
use store::notices::NewNotice;
use store::tenants::{TenantInfo, TenantName};
use store::{Store, StoreError};

/// Domain, kind and subject of an alert.
type AlertKey = (String, String, String);

/// Maximum number of series with a domain label in the metrics; the totals count all domains.
const MAX_NAMED_DOMAINS: usize = 1000;
/// Maximum number of domains that an announcement lists.
const MAX_LISTED: usize = 1000;
/// Number of alerts up to which the metrics are updated at once, and not only after each pass.
const COUNTED_AT_ONCE: usize = 1000;
/// How long ago a host may have been seen as an MX host of a domain that is announced with it.
const MX_AGE: SignedDuration = SignedDuration::from_hours(24 * 2);

/// The active alerts, and which of them were announced together.
pub struct AlertBook {
    store: Store,
    clock: Arc<dyn Clock>,
    channels: Vec<String>,
    /// The tenant that events name; `None` for the first one.
    tenant: Option<TenantName>,
    raised: BTreeMap<AlertKey, Alert>,
    /// The active alerts by what they share.
    causes: BTreeMap<CauseKey, Cause>,
    /// Alerts that share the cause of an announced one and that no announcement has listed.
    joined: BTreeSet<AlertKey>,
    counts: Counts,
}

/// Kind and cause of alerts that have one condition behind them.
type CauseKey = (AlertKind, String);

/// The active alerts with one condition behind them.
#[derive(Debug, Default)]
struct Cause {
    members: BTreeSet<AlertKey>,
    /// The domains that an announcement has listed.
    listed: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Counts {
    alerts: Gauges,
    of_domains: Gauges,
}

impl Default for Counts {
    fn default() -> Self {
        let alerts = Gauges::new(&metrics::ALERTS);
        AlertKind::ALL.iter().for_each(|kind| alerts.set(&[&kind.to_string()], 0));
        Self { alerts, of_domains: Gauges::new(&metrics::DOMAIN_ALERTS) }
    }
}

impl AlertBook {
    /// Creates an empty book whose notices go to these channels.
    pub fn new(store: Store, clock: Arc<dyn Clock>, channels: Vec<String>) -> Self {
        Self {
            store,
            clock,
            channels,
            tenant: None,
            raised: BTreeMap::new(),
            causes: BTreeMap::new(),
            joined: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// The book of a tenant, which its events name.
    pub fn of(self, tenant: &TenantInfo) -> Self {
        Self { tenant: tenant.name_if_further(), ..self }
    }

    pub fn register(&self, registry: &mut Registry) {
        self.counts.alerts.register(registry);
        self.counts.of_domains.register(registry);
    }

    /// Loads the active alerts of an earlier run.
    pub async fn load(&mut self) -> Result<(), StoreError> {
        // The alert about the quarantine is that of the task `retention`.
        let is_ours = |one: &ActiveAlert<Alert>| one.alert.kind != AlertKind::QuarantineFull;
        let active = self.store.alerts::<Alert>().await?.into_iter().filter(is_ours);
        (self.raised, self.causes) = (BTreeMap::new(), BTreeMap::new());
        for one in active {
            self.insert(key(&one.domain, &one.alert), one.alert);
        }
        let waits = |(place, alert): (&AlertKey, &Alert)| {
            let is_listed = alert.cause.is_none() || self.is_listed(&place.0, alert);
            (!is_listed).then(|| place.clone())
        };
        self.joined = self.raised.iter().filter_map(waits).collect();
        self.count();
        Ok(())
    }

    /// Whether an alert of this kind is active for the domain.
    pub fn has(&self, domain: &str, kind: AlertKind) -> bool {
        self.raised.iter().any(|(place, alert)| place.0 == domain && alert.kind == kind)
    }

    /// Replaces the alerts of a domain by those of its newest check.
    pub async fn update(&mut self, domain: &DomainName, alerts: Vec<Alert>) {
        let now: BTreeMap<_, _> =
            alerts.into_iter().map(|alert| (key(domain.as_str(), &alert), alert)).collect();
        let first = (domain.to_string(), String::new(), String::new());
        let ours = self.raised.range(first..).take_while(|(place, _)| place.0 == domain.as_str());
        let over: Vec<AlertKey> =
            ours.map(|(place, _)| place).filter(|place| !now.contains_key(*place)).cloned().collect();
        for (place, alert) in now {
            self.raise(domain, place, alert).await;
        }
        for place in over {
            self.end(domain, &place).await;
        }
        self.count_few();
    }

    /// Raises one alert, beside those that the domain has.
    pub async fn add(&mut self, domain: &DomainName, alert: Alert) {
        self.raise(domain, key(domain.as_str(), &alert), alert).await;
        self.count_few();
    }

    /// Ends the alerts of all domains that are not known any more.
    pub async fn keep_only(&mut self, known: &BTreeSet<&str>) {
        let is_gone = |place: &&AlertKey| !known.contains(place.0.as_str());
        let gone: Vec<AlertKey> = self.raised.keys().filter(is_gone).cloned().collect();
        for place in gone {
            if let Ok(domain) = DomainName::from_ascii(&place.0) {
                self.end(&domain, &place).await;
            }
        }
        self.count();
    }

    /// Announces the alerts that joined announced ones since the last call, once for each cause.
    pub async fn announce_joined(&mut self) {
        self.count();
        while let Some(leader) = self.joined.pop_first() {
            let Some(alert) = self.raised.get(&leader).cloned() else { continue };
            let with =
                self.causes.get(&cause_key(&alert)).map(|cause| cause.members.clone()).unwrap_or_default();
            let mut domains = vec![leader.0.clone()];
            domains.extend(with.iter().map(|place| place.0.clone()).filter(|domain| *domain != leader.0));
            domains.truncate(MAX_LISTED);
            let alert = Alert { domains, ..alert };
            // The list may be shorter than the cause is wide, and names nobody twice.
            if let Some(cause) = self.causes.get_mut(&cause_key(&alert)) {
                cause.listed.extend(with.iter().map(|place| place.0.clone()));
            }
            let Ok(domain) = DomainName::from_ascii(&leader.0) else { continue };
            self.joined.retain(|place| !with.contains(place));
            tracing::error!(
                %domain, kind = %alert.kind, domains = alert.domains.len(),
                "more domains have the alert: {}", alert.what
            );
            self.put(&domain, leader, alert, true).await;
        }
    }

    /// Stores an alert; a new one with a notice for each channel, unless it was announced with another. If that fails,
    /// the next check tries again.
    async fn raise(&mut self, domain: &DomainName, place: AlertKey, alert: Alert) {
        if let Some(known) = self.raised.get(&place) {
            // An alert of an earlier release was announced by itself.
            let is_old = known.cause.is_none() && known.domains.is_empty();
            let domains = if is_old { vec![domain.to_string()] } else { known.domains.clone() };
            let alert = Alert { domains, ..alert };
            if *known != alert {
                self.put(domain, place, alert, false).await;
            }
            return;
        }
        tracing::error!(%domain, kind = %alert.kind, "{}. {} {}", alert.what, alert.consequence, alert.remedy);
        if !self.causes.contains_key(&cause_key(&alert)) {
            let domains = self.domains_with(domain, &alert).await;
            self.put(domain, place, Alert { domains, ..alert }, true).await;
            return;
        }
        if !self.is_listed(domain.as_str(), &alert) {
            self.joined.insert(place.clone());
        }
        self.put(domain, place, alert, false).await;
    }

    async fn put(&mut self, domain: &DomainName, place: AlertKey, alert: Alert, is_announced: bool) {
        let event = self.event(domain.as_str(), EventKind::Raised, &alert);
        let notice = NewNotice { channels: &self.channels, changed_at: event.at, content: &event };
        let notice = Some(notice).filter(|_| is_announced);
        match self.store.raise(domain, &place.1, &place.2, event.at, &alert, notice).await {
            Ok(()) => self.insert(place, alert),
            Err(error) => tracing::error!(%domain, "an alert can't be stored: {error}"),
        }
    }

    async fn end(&mut self, domain: &DomainName, place: &AlertKey) {
        let Some(alert) = self.raised.get(place).cloned() else { return };
        // An announcement outlives its domain while another domain has the alert.
        let members = self.causes.get(&cause_key(&alert)).map(|cause| &cause.members);
        let is_free = |other: &&AlertKey| {
            *other != place && self.raised.get(*other).is_some_and(|one| one.domains.is_empty())
        };
        let heir = members.and_then(|members| members.iter().find(is_free)).cloned();
        let is_announced = !alert.domains.is_empty();
        if let (true, Some(heir)) = (is_announced, heir)
            && let (Some(inheriting), Ok(other)) = (self.raised.get(&heir), DomainName::from_ascii(&heir.0))
        {
            let inheriting = Alert { domains: alert.domains.clone(), ..inheriting.clone() };
            self.joined.remove(&heir);
            self.put(&other, heir, inheriting, false).await;
            return self.delete(domain, place, &alert, None).await;
        }
        let event = self.event(domain.as_str(), EventKind::Over, &alert);
        // An alert of an earlier release was announced, and has no list.
        let is_announced = is_announced || alert.cause.is_none();
        self.delete(domain, place, &alert, Some(&event).filter(|_| is_announced)).await;
    }

    async fn delete(&mut self, domain: &DomainName, place: &AlertKey, alert: &Alert, event: Option<&Event>) {
        let at = self.clock.now();
        let notice = event.map(|told| NewNotice { channels: &self.channels, changed_at: at, content: told });
        match self.store.end_alert(domain, &place.1, &place.2, notice).await {
            Ok(()) => {
                tracing::info!(%domain, kind = %alert.kind, subject = alert.subject, "alert ended");
                self.remove(place);
            }
            Err(error) => tracing::error!(%domain, "the end of an alert can't be stored: {error}"),
        }
    }

    /// The event about an alert, under the domain that its announcement names first.
    fn event(&self, domain: &str, event: EventKind, alert: &Alert) -> Event {
        let domains = if alert.domains.is_empty() { vec![domain.to_owned()] } else { alert.domains.clone() };
        let first = domains.first().cloned().unwrap_or_default();
        Event {
            schema: 1,
            event,
            tenant: self.tenant.clone(),
            domain: first,
            at: self.clock.now(),
            alert: Alert { domains, ..alert.clone() },
        }
    }

    fn insert(&mut self, place: AlertKey, alert: Alert) {
        if alert.cause.is_some() {
            let cause = self.causes.entry(cause_key(&alert)).or_default();
            cause.members.insert(place.clone());
            cause.listed.extend(alert.domains.iter().cloned());
        }
        if let Some(before) = self.raised.insert(place.clone(), alert)
            && self.raised.get(&place).is_some_and(|now| !now.shares_cause_with(&before))
        {
            self.leave_cause(&place, &before);
        }
    }

    fn remove(&mut self, place: &AlertKey) {
        if let Some(alert) = self.raised.remove(place) {
            self.leave_cause(place, &alert);
        }
        self.joined.remove(place);
    }

    fn leave_cause(&mut self, place: &AlertKey, alert: &Alert) {
        let key = cause_key(alert);
        if let Some(cause) = self.causes.get_mut(&key) {
            cause.members.remove(place);
            if cause.members.is_empty() {
                self.causes.remove(&key);
            }
        }
    }

    /// Whether an announcement of this alert's cause lists the domain.
    fn is_listed(&self, domain: &str, alert: &Alert) -> bool {
        self.causes.get(&cause_key(alert)).is_some_and(|cause| cause.listed.contains(domain))
    }

    /// The domains that a new alert concerns: this one, and those that have the same MX host.
    async fn domains_with(&self, domain: &DomainName, alert: &Alert) -> Vec<String> {
        let mut domains = vec![domain.to_string()];
        let is_about_mx = matches!(alert.kind, AlertKind::MxUnverified | AlertKind::MxCertificateEnds);
        let host = alert.cause.as_deref().filter(|_| is_about_mx);
        if let Some(host) = host.and_then(|host| DomainName::from_ascii(host).ok()) {
            let since = self.clock.now().saturating_sub(MX_AGE).unwrap_or(Timestamp::MIN);
            match self.store.domains_with_mx(&host, since).await {
                Ok(known) => domains.extend(known.into_iter().filter(|other| *other != domain.as_str())),
                Err(error) => tracing::warn!(%host, "the domains of an MX host can't be read: {error}"),
            }
        }
        domains.truncate(MAX_LISTED);
        domains
    }

    fn count_few(&self) {
        if self.raised.len() <= COUNTED_AT_ONCE {
            self.count();
        }
    }

    fn count(&self) {
        for kind in AlertKind::ALL {
            let active = self.raised.values().filter(|alert| alert.kind == kind).count();
            self.counts.alerts.set(&[&kind.to_string()], u64::try_from(active).unwrap_or(u64::MAX));
        }
        let mut domains = BTreeMap::new();
        for (domain, kind, _) in self.raised.keys() {
            *domains.entry((domain, kind)).or_insert(0_u64) += 1;
        }
        self.counts.of_domains.clear();
        for ((domain, kind), active) in domains.into_iter().take(MAX_NAMED_DOMAINS) {
            self.counts.of_domains.set(&[domain, kind], active);
        }
    }
}

/// The key of an alert's cause. An alert without one shares it with none.
fn cause_key(alert: &Alert) -> CauseKey {
    (alert.kind, alert.cause.clone().unwrap_or_default())
}

fn key(domain: &str, alert: &Alert) -> AlertKey {
    (domain.to_owned(), alert.kind.to_string(), alert.subject.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::clock::ManualClock;

    struct Fixture {
        _dir: tempfile::TempDir,
        store: Store,
        clock: Arc<ManualClock>,
        book: AlertBook,
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    fn domain(number: usize) -> DomainName {
        name(&format!("d{number:02}.example"))
    }

    fn broken() -> Alert {
        Alert {
            kind: AlertKind::MxUnverified,
            subject: "mx.example.net".to_owned(),
            what: "mx.example.net failed TLS authentication".to_owned(),
            consequence: "c".into(),
            remedy: "r".to_owned(),
            cause: Some("mx.example.net".to_owned()),
            domains: Vec::new(),
        }
    }

    fn gone(domain: &DomainName) -> Alert {
        let (kind, subject) = (AlertKind::RecordGone, format!("_mta-sts.{domain}"));
        Alert { kind, subject, cause: None, ..broken() }
    }

    impl Fixture {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
            let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_790_000_000).unwrap()));
            let book = AlertBook::new(store.clone(), clock.clone(), vec!["webhook".to_owned()]);
            Self { _dir: dir, store, clock, book }
        }

        /// The notices since the last call.
        async fn told(&self) -> Vec<(EventKind, String, Vec<String>)> {
            let due = self.store.due_notices::<Event>("webhook", self.clock.now(), 100).await.unwrap();
            let ids: Vec<i64> = due.iter().map(|notice| notice.id).collect();
            self.store.end_notices(&ids).await.unwrap();
            due.into_iter()
                .map(|notice| (notice.content.event, notice.content.domain, notice.content.alert.domains))
                .collect()
        }

        async fn restart(&mut self) {
            self.book = AlertBook::new(self.store.clone(), self.clock.clone(), vec!["webhook".to_owned()]);
            self.book.load().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_broken_mx_host_of_40_domains_is_one_alert_with_40_domains() {
        let mut fixture = Fixture::new().await;
        for number in 0..40 {
            let hosts = [name("mx.example.net")];
            fixture.store.record_mx_hosts(&domain(number), &hosts, fixture.clock.now()).await.unwrap();
        }
        fixture
            .store
            .record_mx_hosts(&name("x.example"), &[name("mx.x.example")], fixture.clock.now())
            .await
            .unwrap();
        for number in 0..40 {
            fixture.book.update(&domain(number), vec![broken()]).await;
            if number == 20 {
                fixture.restart().await;
            }
        }
        fixture.book.announce_joined().await;
        let told = fixture.told().await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].0, told[0].1.as_str(), told[0].2.len()), (EventKind::Raised, "d00.example", 40));
        assert_eq!(fixture.store.alerts::<Alert>().await.unwrap().len(), 40, "each domain has it");
        // It ends when the last domain is well again, and is told under the domain that announced it.
        for number in 0..40 {
            assert_eq!(fixture.told().await, [], "{number}");
            fixture.book.update(&domain(number), Vec::new()).await;
        }
        let told = fixture.told().await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].0, told[0].1.as_str(), told[0].2.len()), (EventKind::Over, "d00.example", 40));
    }

    #[tokio::test]
    async fn an_alert_of_an_earlier_release_is_not_announced_again_and_its_end_is() {
        let mut fixture = Fixture::new().await;
        let (old, none) = (Alert { cause: None, ..broken() }, None::<NewNotice<'_, Event>>);
        let now = fixture.clock.now();
        fixture.store.raise(&domain(0), "mx-unverified", "mx.example.net", now, &old, none).await.unwrap();
        fixture.restart().await;
        fixture.book.update(&domain(0), vec![broken()]).await;
        fixture.book.announce_joined().await;
        assert_eq!(fixture.told().await, []);
        fixture.book.update(&domain(0), Vec::new()).await;
        assert_eq!(fixture.told().await.len(), 1);
    }

    #[tokio::test]
    async fn domains_that_join_later_are_announced_together() {
        let mut fixture = Fixture::new().await;
        for number in 0..5 {
            fixture.book.update(&domain(number), vec![broken()]).await;
        }
        assert_eq!(fixture.told().await.len(), 1, "nobody knew that the others have the same host");
        fixture.restart().await;
        fixture.book.announce_joined().await;
        let told = fixture.told().await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].1.as_str(), told[0].2.len()), ("d01.example", 5));
        fixture.book.announce_joined().await;
        for number in 0..5 {
            fixture.book.update(&domain(number), vec![broken()]).await;
        }
        assert_eq!(fixture.told().await, [], "all are announced");
        for number in [4, 1, 0, 3, 2] {
            fixture.book.update(&domain(number), Vec::new()).await;
        }
        let ended: Vec<_> =
            fixture.told().await.into_iter().map(|(event, first, _)| (event, first)).collect();
        assert_eq!(ended.len(), 2, "{ended:?}");
        for announced in ["d00.example", "d01.example"] {
            assert!(ended.contains(&(EventKind::Over, announced.to_owned())), "{ended:?}");
        }
    }

    #[tokio::test]
    async fn alerts_without_a_shared_cause_are_announced_one_by_one() {
        let mut fixture = Fixture::new().await;
        for number in 0..3 {
            fixture.book.update(&domain(number), vec![gone(&domain(number))]).await;
        }
        fixture.book.add(&domain(0), Alert { kind: AlertKind::CheckFailed, ..gone(&domain(0)) }).await;
        assert!(fixture.book.has("d00.example", AlertKind::RecordGone), "the others stay");
        let told = fixture.told().await;
        let of: Vec<_> = told.iter().map(|(_, first, all)| (first.as_str(), all.len())).collect();
        assert_eq!(of, [("d00.example", 1), ("d01.example", 1), ("d02.example", 1), ("d00.example", 1)]);
        let known = BTreeSet::from(["d01.example", "d02.example"]);
        fixture.book.keep_only(&known).await;
        assert_eq!(fixture.told().await.len(), 2);
        assert_eq!(fixture.store.alerts::<Alert>().await.unwrap().len(), 2);
    }
}
