//! All domains at one moment, for the overview: each domain judged, and those that need action grouped by cause
//! (`grouping`). It is kept in memory (`cache`). With few domains it is built for each request. With many, a request gets the
//! last one, and a newer one is built in the background.
//!
//! It is built in two stages. The session counts per day, which one statement reads for all domains, decide about most
//! domains. The gate of the others needs all of their reports, which takes long if there are many of them. Until then, the
//! snapshot of the first stage is shown.

mod cache;
mod grouping;
mod totals;

pub use cache::Snapshots;
pub use grouping::Group;
#[cfg(test)]
pub use grouping::Order;
pub use totals::Totals;

use crate::judge::{Judged, LastWeek, NextStep, Urgency, binds, judge_by, last_week};
use crate::layout::ErrorPage;
use crate::state::{AllDays, Dashboard};
use formats::{DomainName, Mode};
use grouping::grouped;
use jiff::{SignedDuration, Timestamp};
use net::https::policy_host;
use operations::RolloutContext;
use receiver::domain::{DomainSpec, HostedBy, Tag};
use receiver::rollout::RolloutState;
use receiver::rollout::gate::{Evidence, Gate, evidence_by_day, not_due};
use receiver::rollout::guard::{Alert, AlertKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::StoreError;
use store::alerts::ActiveAlert;
use store::hosting::CertificateEnd;
use store::reports::{DaySum, Search};

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How far back reports are considered on the overview; the page of one domain goes back further.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 60);
/// How long before its end a certificate whose renewal is overdue is called ending.
pub const ENDS_SOON: SignedDuration = SignedDuration::from_hours(24 * 14);
/// All domains at one moment.
pub struct Snapshot {
    /// When the snapshot was made.
    pub at: Timestamp,
    made: Instant,
    took: Duration,
    /// The number of decisions before it was begun.
    generation: u64,
    /// The number of domains whose reports were not read yet.
    pub pending: usize,
    /// When the newest report was received; `None` if none is stored.
    pub newest_report: Option<Timestamp>,
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
    /// Their sums over all domains by day, oldest first.
    pub sums: Vec<DaySum>,
}

/// The state of one domain.
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
    /// True if it expires soon and should have been replaced.
    pub is_certificate_ending: bool,
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

impl Dashboard {
    /// Makes a snapshot, and keeps it. The first one is kept after its first stage, too.
    async fn build(&self) -> Result<Arc<Snapshot>, ErrorPage> {
        let Counted { facts, mut domains, pending } = self.count().await?;
        if !pending.is_empty() && self.snapshots.is_empty() {
            self.snapshots.keep(&facts.snapshot(domains.clone(), pending.len()));
        }
        for (place, spec) in pending {
            // Other pages may have to refresh the context in between.
            let context = self.context().await?;
            let rollout = facts.rollout(&spec).cloned().unwrap_or_default();
            let judged = self.gate(&context, &spec.name, &rollout).await?;
            if let Some(entry) = domains.get_mut(place) {
                *entry = facts.entry(&context, &spec, Some(judged));
            }
        }
        let snapshot = facts.snapshot(domains, 0);
        self.snapshots.keep(&snapshot);
        Ok(snapshot)
    }

    /// The first stage.
    async fn count(&self) -> Result<Counted, ErrorPage> {
        let (begun, generation) = (Instant::now(), self.snapshots.generation());
        let context = self.context().await?;
        let now = context.world.clock.now();
        let days = self.days(&context, now.saturating_sub(REPORT_WINDOW).unwrap_or(now)).await?;
        let alerts: Vec<ActiveAlert<Alert>> = context.store.alerts().await?;
        let mut alerts_of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, active) in alerts.iter().enumerate() {
            alerts_of.entry(active.domain.clone()).or_default().push(place);
        }
        let newest = Search { most: 1, ..Search::default() };
        let facts = SnapshotInput {
            rollouts: context.store.rollouts().await?,
            alerts,
            alerts_of,
            certificates: certificates(&context).await?,
            newest_report: context.store.reports(&newest).await?.first().map(|report| report.received_at),
            days,
            now,
            begun,
            generation,
        };
        let mut domains = Vec::with_capacity(context.known.len());
        let mut pending = Vec::new();
        for spec in &context.known {
            let by_counts = facts.by_counts(&context, spec);
            if by_counts.is_none() {
                pending.push((domains.len(), spec.clone()));
            }
            domains.push(facts.entry(&context, spec, by_counts));
        }
        Ok(Counted { facts, domains, pending })
    }
}

/// What the first stage found.
struct Counted {
    facts: SnapshotInput,
    /// All domains. Those in `pending` are not judged yet.
    domains: Vec<Entry>,
    /// The domains whose reports have to be read, with their places in `domains`.
    pending: Vec<(usize, DomainSpec)>,
}

/// The most urgent first, then by name.
fn sorted(mut domains: Vec<Entry>) -> Vec<Entry> {
    domains.sort_by(|one, other| one.need.cmp(&other.need).then_with(|| one.name.cmp(&other.name)));
    domains
}

impl Snapshot {
    /// These domains, sorted already, and what needs action.
    fn new(domains: Vec<Entry>, alerts: &[ActiveAlert<Alert>], now: Timestamp) -> Self {
        Self {
            at: now,
            made: Instant::now(),
            took: Duration::ZERO,
            generation: 0,
            pending: 0,
            newest_report: None,
            groups: grouped(&domains, alerts),
            ending: ending(&domains, alerts),
            totals: Totals::of(&domains),
            by_name: by_name(&domains),
            tags: counted_tags(&domains),
            domains,
            days: Arc::default(),
            sums: Vec::new(),
        }
    }

    /// These domains without alerts.
    #[cfg(test)]
    pub fn of(domains: Vec<Entry>) -> Self {
        Self::new(domains, &[], Timestamp::UNIX_EPOCH)
    }

    /// The group with this identifier.
    pub fn group(&self, id: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.id == id)
    }
}

/// The sums of these domains by day, oldest first.
fn sums(domains: &[Entry], days: &AllDays) -> Vec<DaySum> {
    let mut sums: BTreeMap<Timestamp, DaySum> = BTreeMap::new();
    let known = domains.iter().filter_map(|entry| days.get(entry.name.as_str()));
    for day in known.flatten() {
        sums.entry(day.day)
            .and_modify(|sum| {
                sum.successful = sum.successful.saturating_add(day.successful);
                sum.failed = sum.failed.saturating_add(day.failed);
            })
            .or_insert(*day);
    }
    sums.into_values().collect()
}

/// What the store has about all domains.
struct SnapshotInput {
    rollouts: BTreeMap<String, Result<RolloutState, StoreError>>,
    alerts: Vec<ActiveAlert<Alert>>,
    /// The places of the alerts of each domain.
    alerts_of: BTreeMap<String, Vec<usize>>,
    certificates: BTreeMap<DomainName, CertificateEnd>,
    newest_report: Option<Timestamp>,
    days: Arc<AllDays>,
    now: Timestamp,
    begun: Instant,
    generation: u64,
}

/// When the certificates of our policy hosts expire, by host; empty if no policy is served here.
async fn certificates(context: &RolloutContext) -> Result<BTreeMap<DomainName, CertificateEnd>, StoreError> {
    match context.known.iter().any(|spec| spec.host == HostedBy::Sternpost) {
        true => {
            let ends = context.store.certificate_ends(None, u32::MAX).await?;
            Ok(ends.into_iter().map(|end| (end.host.clone(), end)).collect())
        }
        false => Ok(BTreeMap::new()),
    }
}

impl SnapshotInput {
    /// The snapshot of these domains.
    fn snapshot(&self, domains: Vec<Entry>, pending: usize) -> Arc<Snapshot> {
        let sums = sums(&domains, &self.days);
        Arc::new(Snapshot {
            sums,
            pending,
            newest_report: self.newest_report,
            took: self.begun.elapsed(),
            generation: self.generation,
            days: self.days.clone(),
            ..Snapshot::new(sorted(domains), &self.alerts, self.now)
        })
    }

    /// The session counts of a domain.
    fn days(&self, spec: &DomainSpec) -> &[DaySum] {
        self.days.get(spec.name.as_str()).map_or(&[][..], Vec::as_slice)
    }

    /// The state of a domain; `None` without one, or if it can't be read.
    fn rollout(&self, spec: &DomainSpec) -> Option<&RolloutState> {
        self.rollouts.get(spec.name.as_str()).and_then(|rollout| rollout.as_ref().ok())
    }

    /// The evidence and the gate's result by the session counts per day; `None` if all reports have to be read, since the
    /// counts separate neither excused causes from others, nor one sender or policy from another.
    fn by_counts(&self, context: &RolloutContext, spec: &DomainSpec) -> Option<(Evidence, Gate)> {
        let mode = self.rollout(spec).and_then(|rollout| rollout.mode);
        if !context.decisions(&spec.name).excused.is_empty() {
            return None;
        }
        let since = mode.map_or(self.now, |mode| mode.since);
        let by_day = evidence_by_day(self.days(spec), since, self.now);
        let early = not_due(&by_day, &context.config.thresholds);
        match (early, mode.is_some_and(|known| known.mode == Mode::Testing)) {
            (None, true) => None,
            (early, _) => Some((by_day, early.unwrap_or(Gate::NotYet(Vec::new())))),
        }
    }

    /// A domain with its judgment. Without evidence, the domain waits until its reports have been read.
    fn entry(&self, context: &RolloutContext, spec: &DomainSpec, by: Option<(Evidence, Gate)>) -> Entry {
        let (name, now) = (spec.name.as_str(), self.now);
        let days = self.days(spec);
        let known = self.rollout(spec);
        let month = days.iter().filter(|day| day.day + DAY * 30 > now);
        let (successful, failed) = month.fold((0u64, 0u64), |(successful, failed), day| {
            (successful.saturating_add(day.successful), failed.saturating_add(day.failed))
        });
        let mode = known.and_then(|rollout| rollout.mode);
        let Judged { need, evidence, next } = match self.rollouts.get(name) {
            // A state that can't be read does not hide the other domains.
            Some(Err(error)) => Judged::damaged(error.to_string()),
            _ => {
                let places = self.alerts_of.get(name).map_or(&[][..], Vec::as_slice);
                let active = places.iter().filter_map(|place| self.alerts.get(*place));
                let alerts: Vec<&Alert> = active.map(|active| &active.alert).collect();
                self.judged(context, spec, known, by)
                    .with_alerts(&alerts, known.is_some_and(|rollout| binds(rollout, now)))
            }
        };
        let certificate = match spec.host {
            HostedBy::Sternpost => policy_host(&spec.name).ok().and_then(|host| self.certificates.get(&host)),
            HostedBy::Static | HostedBy::Elsewhere => None,
        };
        Entry {
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
            certificate_ends: certificate.map(|end| end.ends),
            is_certificate_ending: certificate.is_some_and(|end| end.is_soon(now, ENDS_SOON)),
            tags: spec.tags.clone(),
        }
    }

    fn judged(
        &self,
        context: &RolloutContext,
        spec: &DomainSpec,
        rollout: Option<&RolloutState>,
        by: Option<(Evidence, Gate)>,
    ) -> Judged {
        let Some((evidence, gate)) = by else { return Judged::pending() };
        let nothing = RolloutState::default();
        let rollout = rollout.unwrap_or(&nothing);
        let since = rollout.mode.map_or(self.now, |mode| mode.since);
        let week: LastWeek = last_week(self.days(spec), &evidence, since, self.now);
        judge_by(context, spec, rollout, &evidence, &gate, week)
    }
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
fn ending(domains: &[Entry], alerts: &[ActiveAlert<Alert>]) -> usize {
    let is_of_certificate =
        |kind| matches!(kind, AlertKind::PolicyCertificateEnds | AlertKind::MxCertificateEnds);
    let alerted: BTreeSet<&str> = alerts
        .iter()
        .filter(|active| is_of_certificate(active.alert.kind))
        .map(|active| active.domain.as_str())
        .collect();
    let is_ending = |entry: &&Entry| entry.is_certificate_ending || alerted.contains(entry.name.as_str());
    domains.iter().filter(is_ending).count()
}

#[cfg(test)]
mod tests;
