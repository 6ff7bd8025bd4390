//! All domains at one moment, for the overview: each domain judged, and those that need action grouped by cause. It is
//! kept in memory. With few domains it is built for each request. With many, a request gets the last one, and a newer one
//! is built in the background.

mod totals;

pub use totals::Totals;

use crate::judge::{
    Judged, LastWeek, NextStep, StepCause, Urgency, binds, judge_by, last_week, sentence, urgency,
};
use crate::layout::ErrorPage;
use crate::state::{AllDays, Dashboard};
use crate::text;
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use net::https::policy_host;
use operations::RolloutContext;
use receiver::domain::{DomainSpec, HostedBy, Tag};
use receiver::rollout::RolloutState;
use receiver::rollout::gate::{Gate, evidence_by_day, not_due};
use receiver::rollout::guard::{Alert, AlertKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::StoreError;
use store::alerts::ActiveAlert;
use store::reports::DaySum;

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How far back reports are considered on the overview; the page of one domain goes back further.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 60);
/// How long before its end a certificate is called ending. An ACME client renews it about a month before.
pub const ENDS_SOON: SignedDuration = SignedDuration::from_hours(24 * 14);
/// A snapshot may be this many times as old as it took to build.
const AGE_FACTOR: u32 = 20;
/// From this time to build on, requests get the last snapshot while a new one is built.
const SLOW: Duration = Duration::from_millis(250);
/// The age from which on a request waits for a new snapshot in any case.
const MAX_AGE: Duration = Duration::from_secs(600);

/// All domains at one moment.
pub struct Snapshot {
    /// When it was made.
    pub at: Timestamp,
    made: Instant,
    took: Duration,
    /// The domains, most urgent first, then by name.
    pub domains: Vec<Entry>,
    /// What needs action, most urgent first.
    pub groups: Vec<Group>,
    /// The number of domains with a certificate that ends soon or has ended.
    pub ending: usize,
    /// Counts over all domains.
    pub totals: Totals,
    /// The places of the domains, in the order of their names.
    pub by_name: Vec<usize>,
    /// The tags of domains with the number of domains, the most frequent first.
    pub tags: Vec<(Tag, usize)>,
    /// The session counts by domain and day.
    pub days: Arc<AllDays>,
}

/// One domain.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub need: Urgency,
    /// The published mode; `None` before a policy was observed.
    pub mode: Option<Mode>,
    pub wanted: Mode,
    /// True if senders may hold an enforced policy.
    pub binds: bool,
    /// Since when that mode has been published.
    pub since: Option<Timestamp>,
    pub evidence: String,
    pub next: NextStep,
    /// Successful and failed sessions of the last 30 days in reports that count.
    pub successful: u64,
    pub failed: u64,
    pub host: HostedBy,
    /// When the certificate of the policy host expires; `None` if it is not managed here, or not issued.
    pub certificate_ends: Option<Timestamp>,
    pub tags: Vec<Tag>,
}

impl Entry {
    /// All sessions of the last 30 days.
    pub fn sessions(&self) -> u64 {
        self.successful.saturating_add(self.failed)
    }

    /// True if the operator has to do something.
    pub fn needs_action(&self) -> bool {
        self.need <= Urgency::Waiting
    }
}

/// Domains that need action for the same cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The identifier in links, such as `mx-unverified mx1.example.org`.
    pub id: String,
    pub need: Urgency,
    /// What is wrong or due, in one sentence.
    pub what: String,
    /// What it means for mail; may be empty.
    pub means: String,
    /// What to do, in words; may be empty.
    pub remedy: String,
    /// The step, if it is one that Sternpost knows.
    pub step: Option<StepCause>,
    /// Since when, for the domain that has had it for the longest.
    pub since: Option<Timestamp>,
    /// The names of the domains, in the order of the snapshot.
    pub domains: Vec<String>,
}

impl Dashboard {
    /// The overview's data, from memory if it is recent.
    pub(crate) async fn snapshot(self: &Arc<Self>) -> Result<Arc<Snapshot>, ErrorPage> {
        if let Some(held) = self.snapshots.held() {
            if held.is_recent() {
                return Ok(held);
            }
            if held.took >= SLOW && held.made.elapsed() < MAX_AGE {
                let dashboard = self.clone();
                if let Ok(building) = self.snapshots.building.clone().try_lock_owned() {
                    tokio::spawn(async move {
                        // The page that builds it next shows the error.
                        let _ = dashboard.build().await;
                        drop(building);
                    });
                }
                return Ok(held);
            }
        }
        let _building = self.snapshots.building.lock().await;
        match self.snapshots.held().filter(|held| held.is_recent()) {
            Some(held) => Ok(held),
            None => self.build().await,
        }
    }

    async fn build(&self) -> Result<Arc<Snapshot>, ErrorPage> {
        let begun = Instant::now();
        let context = self.context().await?;
        let now = context.world.clock.now();
        let days = self.days(&context, now.saturating_sub(REPORT_WINDOW).unwrap_or(now)).await?;
        let alerts: Vec<ActiveAlert<Alert>> = context.store.alerts().await?;
        let mut by_domain: BTreeMap<&str, Vec<&Alert>> = BTreeMap::new();
        for active in &alerts {
            by_domain.entry(&active.domain).or_default().push(&active.alert);
        }
        let facts = Facts {
            rollouts: context.store.rollouts().await?,
            alerts: by_domain,
            certificates: certificates(&context).await?,
            days: &days,
        };
        let mut domains = Vec::with_capacity(context.known.len());
        for spec in &context.known {
            domains.push(entry(self, &context, spec, &facts, now).await?);
        }
        domains.sort_by(|one, other| one.need.cmp(&other.need).then_with(|| one.name.cmp(&other.name)));
        let groups = grouped(&domains, &alerts);
        let ending = ending(&domains, &alerts, now);
        let made = Instant::now();
        let took = made.duration_since(begun);
        let snapshot = Arc::new(Snapshot {
            at: now,
            made,
            took,
            totals: Totals::of(&domains),
            by_name: by_name(&domains),
            tags: counted_tags(&domains),
            domains,
            groups,
            ending,
            days,
        });
        self.snapshots.keep(&snapshot);
        Ok(snapshot)
    }
}

impl Snapshot {
    /// These domains without alerts.
    #[cfg(test)]
    pub fn of(domains: Vec<Entry>) -> Self {
        Self {
            at: Timestamp::UNIX_EPOCH,
            made: Instant::now(),
            took: Duration::ZERO,
            groups: Vec::new(),
            ending: 0,
            totals: Totals::of(&domains),
            by_name: by_name(&domains),
            tags: counted_tags(&domains),
            domains,
            days: Arc::default(),
        }
    }

    fn is_recent(&self) -> bool {
        self.made.elapsed() < self.took.saturating_mul(AGE_FACTOR).min(MAX_AGE)
    }

    /// The group with this identifier.
    pub fn group(&self, id: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }
}

/// What the store has about all domains.
struct Facts<'a> {
    rollouts: BTreeMap<String, Result<RolloutState, StoreError>>,
    alerts: BTreeMap<&'a str, Vec<&'a Alert>>,
    certificates: BTreeMap<DomainName, Timestamp>,
    days: &'a AllDays,
}

/// When the certificates of our policy hosts expire, by host; empty if no policy is served here.
async fn certificates(context: &RolloutContext) -> Result<BTreeMap<DomainName, Timestamp>, StoreError> {
    match context.known.iter().any(|spec| spec.host == HostedBy::Sternpost) {
        true => Ok(context.store.certificate_ends(None, u32::MAX).await?.into_iter().collect()),
        false => Ok(BTreeMap::new()),
    }
}

async fn entry(
    dashboard: &Dashboard,
    context: &RolloutContext,
    spec: &DomainSpec,
    facts: &Facts<'_>,
    now: Timestamp,
) -> Result<Entry, ErrorPage> {
    let name = spec.name.as_str();
    let days = facts.days.get(name).map_or(&[][..], Vec::as_slice);
    let rollout = facts.rollouts.get(name);
    let known = rollout.and_then(|rollout| rollout.as_ref().ok());
    let judged = match rollout {
        // A state that can't be read does not hide the other domains.
        Some(Err(error)) => Judged::damaged(error.to_string()),
        _ => {
            let alerts = facts.alerts.get(name).map_or(&[][..], Vec::as_slice);
            judge(dashboard, context, spec, known, days, now)
                .await?
                .with_alerts(alerts, known.is_some_and(|rollout| binds(rollout, now)))
        }
    };
    let month = days.iter().filter(|day| day.day + DAY * 30 > now);
    let (successful, failed) = month.fold((0u64, 0u64), |(successful, failed), day| {
        (successful.saturating_add(day.successful), failed.saturating_add(day.failed))
    });
    let mode = known.and_then(|rollout| rollout.mode);
    let Judged { need, evidence, next } = judged;
    Ok(Entry {
        name: name.to_owned(),
        need,
        mode: mode.map(|known| known.mode),
        wanted: spec.mode,
        binds: known.is_some_and(|rollout| binds(rollout, now)),
        since: mode.map(|known| known.since),
        evidence,
        next,
        successful,
        failed,
        host: spec.host,
        certificate_ends: match spec.host {
            HostedBy::Sternpost => {
                policy_host(&spec.name).ok().and_then(|host| facts.certificates.get(&host).copied())
            }
            HostedBy::Static | HostedBy::Elsewhere => None,
        },
        tags: spec.tags.clone(),
    })
}

/// Judges a domain from its session counts per day, which are cached for all domains. Its reports and the probes of its MX
/// hosts are loaded only if they decide.
async fn judge(
    dashboard: &Dashboard,
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: Option<&RolloutState>,
    days: &[DaySum],
    now: Timestamp,
) -> Result<Judged, ErrorPage> {
    let nothing = RolloutState::default();
    let rollout = rollout.unwrap_or(&nothing);
    let since = rollout.mode.map_or(now, |mode| mode.since);
    let by_day = evidence_by_day(days, since, now);
    let is_in_testing = rollout.mode.is_some_and(|known| known.mode == Mode::Testing);
    let early = not_due(&by_day, &context.config.thresholds);
    // The sums do not separate excused causes from the others, nor one sender or policy from another.
    let (evidence, gate) = match early {
        _ if !context.decisions(&spec.name).excused.is_empty() => context.gate(&spec.name, rollout).await?,
        None if is_in_testing => dashboard.gate(context, &spec.name, rollout).await?,
        early => (by_day, early.unwrap_or(Gate::NotYet(Vec::new()))),
    };
    let week: LastWeek = last_week(days, &evidence, since, now);
    Ok(judge_by(context, spec, rollout, &evidence, &gate, week))
}

/// The places of the domains, in the order of their names.
fn by_name(domains: &[Entry]) -> Vec<usize> {
    let mut places: Vec<(&str, usize)> =
        domains.iter().enumerate().map(|(at, entry)| (entry.name.as_str(), at)).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, at)| at).collect()
}

/// The tags with the number of domains, the most frequent first, then by name.
fn counted_tags(domains: &[Entry]) -> Vec<(Tag, usize)> {
    let mut counts: BTreeMap<&Tag, usize> = BTreeMap::new();
    for tag in domains.iter().flat_map(|entry| &entry.tags) {
        *counts.entry(tag).or_default() += 1;
    }
    let mut tags: Vec<(Tag, usize)> = counts.into_iter().map(|(tag, count)| (tag.clone(), count)).collect();
    tags.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    tags
}

/// The number of domains of which a certificate ends soon, or has ended.
fn ending(domains: &[Entry], alerts: &[ActiveAlert<Alert>], now: Timestamp) -> usize {
    let is_of_certificate =
        |kind| matches!(kind, AlertKind::PolicyCertificateEnds | AlertKind::MxCertificateEnds);
    let alerted: BTreeSet<&str> = alerts
        .iter()
        .filter(|active| is_of_certificate(active.alert.kind))
        .map(|active| active.domain.as_str())
        .collect();
    let is_ending = |entry: &&Entry| {
        entry.certificate_ends.is_some_and(|end| end - ENDS_SOON <= now)
            || alerted.contains(entry.name.as_str())
    };
    domains.iter().filter(is_ending).count()
}

/// Groups alerts and steps by cause. One broken MX host of forty domains is one group.
fn grouped(domains: &[Entry], alerts: &[ActiveAlert<Alert>]) -> Vec<Group> {
    let place: BTreeMap<&str, usize> =
        domains.iter().enumerate().map(|(at, entry)| (entry.name.as_str(), at)).collect();
    let mut groups: BTreeMap<String, (Group, BTreeSet<usize>)> = BTreeMap::new();
    for active in alerts {
        let (group, members) = groups
            .entry(alert_id(&active.alert))
            .or_insert_with_key(|id| (Group { id: id.clone(), ..alert_group(active) }, BTreeSet::new()));
        group.since = group.since.min(Some(active.since));
        let entry = place.get(active.domain.as_str()).and_then(|at| domains.get(*at));
        let is_binding = entry.is_some_and(|entry| entry.binds);
        group.need = group.need.min(urgency(active.alert.kind, is_binding));
        // An alert of the server is of no domain.
        let is_new = place.get(active.domain.as_str()).is_some_and(|at| members.insert(*at));
        if is_new && members.len() == 2 {
            group.what = shared_title(&active.alert);
            group.remedy = active.alert.remedy.replace(&active.domain, "DOMAIN");
        }
    }
    for (at, entry) in domains.iter().enumerate() {
        let Some(cause) = entry.next.cause().filter(|cause| *cause != StepCause::Alert) else { continue };
        let (_, members) = groups
            .entry(format!("{cause:?}").to_ascii_lowercase())
            .or_insert_with_key(|id| (step_group(id, cause, entry), BTreeSet::new()));
        members.insert(at);
    }
    let mut all: Vec<Group> = groups
        .into_values()
        .map(|(group, members)| {
            let name = |at: &usize| domains.get(*at).map(|entry| entry.name.clone());
            Group { domains: members.iter().filter_map(name).collect(), ..group }
        })
        .collect();
    all.sort_by(|one, other| {
        one.need.cmp(&other.need).then_with(|| other.domains.len().cmp(&one.domains.len()))
    });
    all
}

/// The identifier of an alert's group: the kind, and the cause that several domains may share.
fn alert_id(alert: &Alert) -> String {
    match (&alert.cause, alert.kind) {
        (Some(cause), kind) => format!("{kind} {cause}"),
        (
            None,
            kind @ (AlertKind::MxUncovered
            | AlertKind::MxUnverified
            | AlertKind::MxCertificateEnds
            | AlertKind::ReportedFailure),
        ) => format!("{kind} {}", alert.subject),
        (None, kind) => kind.to_string(),
    }
}

fn alert_group(active: &ActiveAlert<Alert>) -> Group {
    let alert = &active.alert;
    Group {
        id: String::new(),
        need: Urgency::Waiting,
        what: sentence(&text::readable(&alert.what)),
        means: alert.consequence.to_string(),
        remedy: alert.remedy.clone(),
        step: Some(StepCause::Alert),
        since: Some(active.since),
        domains: Vec::new(),
    }
}

/// What several domains with alike alerts have in common.
fn shared_title(alert: &Alert) -> String {
    let subject = &alert.subject;
    match alert.kind {
        AlertKind::MxUncovered => format!("{subject} is an MX host, but the policies do not name it"),
        AlertKind::ReportedFailure => format!("Senders reported {subject}"),
        AlertKind::PolicyUnserved => {
            "Policies can't be fetched, or are not those that were published".to_owned()
        }
        AlertKind::RecordGone => "_mta-sts records are missing".to_owned(),
        AlertKind::PolicyCertificateEnds => "Certificates of policy hosts expire soon".to_owned(),
        AlertKind::FailureRate => "More sessions failed in the last week than allowed".to_owned(),
        AlertKind::Silence => "Reports that used to arrive have stopped".to_owned(),
        AlertKind::DecisionNeeded => "Reported failures need your decision".to_owned(),
        AlertKind::CheckFailed => "Checks of the guard fail, so other alerts may be old".to_owned(),
        AlertKind::Unconfigured => "Domains with a policy are not configured any more".to_owned(),
        AlertKind::MxUnverified | AlertKind::MxCertificateEnds | AlertKind::QuarantineFull => {
            sentence(&text::readable(&alert.what))
        }
    }
}

fn step_group(id: &str, cause: StepCause, entry: &Entry) -> Group {
    let (what, means) = match cause {
        StepCause::SetUp => {
            ("Not set up yet", "Mail to these domains is not protected against an attacker on the path.")
        }
        StepCause::Apply => {
            ("The next step of the roll-out is due", "It changes the published policy or its records.")
        }
        StepCause::Approve => (
            "The evidence is sufficient: ready to enforce",
            "Until you approve, senders deliver even if TLS can't be verified.",
        ),
        StepCause::Decide => (
            "Only few senders report failures: your decision is needed",
            "Until you decide, the domains stay in testing, where mail is not protected.",
        ),
        StepCause::Failures => (
            "Sessions failed in the last week although the policy is enforced",
            "The mail of these sessions is queued by its sender, and bounces after a few days.",
        ),
        StepCause::Damaged | StepCause::Alert => {
            ("The stored state can't be read", "Sternpost does nothing for these domains.")
        }
    };
    Group {
        id: id.to_owned(),
        need: entry.need,
        what: what.to_owned(),
        means: means.to_owned(),
        remedy: if cause == StepCause::Damaged { entry.next.to_string() } else { String::new() },
        step: Some(cause),
        since: None,
        domains: Vec::new(),
    }
}

/// The last snapshot, and the lock of the one who builds the next.
#[derive(Default)]
pub struct Snapshots {
    last: std::sync::Mutex<Option<Arc<Snapshot>>>,
    building: Arc<tokio::sync::Mutex<()>>,
}

impl Snapshots {
    fn held(&self) -> Option<Arc<Snapshot>> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn keep(&self, snapshot: &Arc<Snapshot>) {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(snapshot.clone());
    }

    /// Forgets the last one, since an operator has decided something.
    pub fn forget(&self) {
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, need: Urgency, next: NextStep) -> Entry {
        Entry {
            name: name.to_owned(),
            need,
            mode: Some(Mode::Testing),
            wanted: Mode::Enforce,
            binds: true,
            since: None,
            evidence: String::new(),
            next,
            successful: 0,
            failed: 0,
            host: HostedBy::Static,
            certificate_ends: None,
            tags: Vec::new(),
        }
    }

    fn alert(domain: &str, kind: AlertKind, subject: &str, second: i64) -> ActiveAlert<Alert> {
        let alert = Alert {
            kind,
            subject: subject.into(),
            what: format!("{subject} is bad for {domain}"),
            consequence: "Mail waits.".into(),
            remedy: format!("sternpost apply {domain}"),
            cause: None,
            domains: Vec::new(),
        };
        ActiveAlert { domain: domain.into(), since: Timestamp::from_second(second).unwrap(), alert }
    }

    #[test]
    fn one_broken_mx_host_of_many_domains_is_one_group() {
        let step = |cause| NextStep::Page(cause, String::new(), "");
        let domains = [
            entry("a.example", Urgency::Failing, step(StepCause::Alert)),
            entry("b.example", Urgency::Failing, step(StepCause::Alert)),
            entry("c.example", Urgency::Waiting, step(StepCause::Approve)),
            entry("d.example", Urgency::Waiting, step(StepCause::Approve)),
            entry("e.example", Urgency::OnItsWay, NextStep::Wait("time".into())),
        ];
        let alerts = [
            alert("b.example", AlertKind::MxUnverified, "mx.shared.example", 5),
            alert("a.example", AlertKind::MxUnverified, "mx.shared.example", 9),
            alert("a.example", AlertKind::MxUnverified, "mx.own.example", 9),
            alert("b.example", AlertKind::Silence, "b.example", 7),
            alert("the server", AlertKind::QuarantineFull, "", 7),
        ];
        let groups = grouped(&domains, &alerts);
        let shown: Vec<(&str, Urgency, Vec<&str>)> = groups
            .iter()
            .map(|group| (group.id.as_str(), group.need, group.domains.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(
            shown,
            [
                ("mx-unverified mx.shared.example", Urgency::Failing, vec!["a.example", "b.example"]),
                ("mx-unverified mx.own.example", Urgency::Failing, vec!["a.example"]),
                ("approve", Urgency::Waiting, vec!["c.example", "d.example"]),
                ("silence", Urgency::Waiting, vec!["b.example"]),
                ("quarantine-full", Urgency::Waiting, vec![]),
            ]
        );
        let first = groups.first().unwrap();
        assert_eq!(first.since, Some(Timestamp::from_second(5).unwrap()));
        assert_eq!(first.remedy, "sternpost apply DOMAIN");
        assert_eq!(groups[1].remedy, "sternpost apply a.example");
    }

    #[test]
    fn a_certificate_that_ends_soon_is_counted_once_for_a_domain() {
        let now = Timestamp::from_second(100 * 86_400).unwrap();
        let own = |name: &str, days: i64| Entry {
            certificate_ends: Some(now + SignedDuration::from_hours(24 * days)),
            ..entry(name, Urgency::Fine, NextStep::Nothing)
        };
        let domains = [own("a.example", 60), own("b.example", 13), own("c.example", -1)];
        let alerts = [
            alert("b.example", AlertKind::PolicyCertificateEnds, "mta-sts.b.example", 1),
            alert("a.example", AlertKind::Silence, "a.example", 1),
        ];
        assert_eq!(ending(&domains, &alerts, now), 2);
    }
}
