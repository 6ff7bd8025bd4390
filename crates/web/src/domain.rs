//! The page of one domain: the verdict with the next step, the verdict of each part, the rollout, sessions over time,
//! failures with remedies, MX hosts, senders, published records and the journal. The data comes from the store and the
//! rollout context. `manager` renders one page to print.
//!
//! | module | content |
//! | --- | --- |
//! | `parts` | the verdict of each part |
//! | `rollout` | the stages of the rollout and the conditions of the gate |
//! | `failures` | failures by result type and MX host |
//! | `hosts` | MX hosts with their probes and certificates |
//! | `manager` | the page to print |

mod failures;
mod hosts;
pub mod manager;
mod parts;
mod rollout;

use crate::chart::{Range, Timeline, strips_since};
use crate::incidents::{IncidentLine, WorstDay, incident_lines, worst_day};
use crate::judge::{
    Judged, Mark, NextStep, StepCause, Urgency, binds, judge_by, last_week, sentence as sentence_of, urgency,
};
use crate::layout::{Answer, ErrorPage, Frame, NoticeQuery, Section, html};
use crate::sender_rows::{SenderRow, sender_rows};
use crate::state::Dashboard;
use crate::tables::{self, Format, export};
use crate::text;
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use failures::{ExportedFailure, Failure, failures, is_recent, summary};
use formats::tlsrpt_record::TlsrptRecord;
use formats::{Mode, Policy, StsRecord};
use hosts::{HostRow, hosts};
use jiff::{SignedDuration, Timestamp};
use net::https::policy_host;
use operations::RolloutContext;
use parts::{Part, PartsContext, parts};
use receiver::domain::{DomainSpec, HostedBy};
use receiver::inbox::explain::CauseContext;
use receiver::publish::{Change, Records};
use receiver::rollout::RolloutState;
use receiver::rollout::decisions::{Decisions, Excuse};
use receiver::rollout::gate::{Evidence, Gate};
use receiver::rollout::guard::{Alert, AlertKind};
use receiver::rollout::plan::Step;
use rollout::{Condition, Stage, conditions, stages};
use serde::Deserialize;
use std::sync::Arc;
use store::guard_probes::GuardProbeDay;
use store::hosting::CertificateEnd;
use store::reports::{DaySum, FailureGroup, KindSum, SenderSum, Trend};
use store::rollouts::JournalLine;

/// The maximum number of failures on the page.
const MAX_FAILURES: usize = 40;
/// The maximum number of MX hosts on the page.
const MAX_HOSTS: usize = 40;
/// Journal entries on the page; `/journal` has all.
const JOURNAL_ROWS: u32 = 15;
/// Incidents on the page, the newest.
const MAX_INCIDENTS: usize = 5;
/// Failures that are unfolded with their remedy.
const OPEN_FAILURES: usize = 3;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The table to export, its format, and the range of the charts.
#[derive(Debug, Default, Deserialize)]
pub struct DomainQuery {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    table: Table,
    #[serde(default)]
    days: Range,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Table {
    #[default]
    Days,
    Senders,
    #[serde(rename = "sender-days")]
    SenderDays,
    Failures,
    Hosts,
    #[serde(rename = "host-days")]
    HostDays,
    Journal,
}

/// A text to copy, with its heading.
struct Snippet {
    what: &'static str,
    text: String,
}

/// A row of the table behind the chart.
struct DayRow {
    day: Timestamp,
    successful: u64,
    failed: u64,
    share: Option<String>,
    unproved: u64,
}

#[derive(Template)]
#[template(path = "domain.html")]
struct Page {
    frame: Frame,
    now: Timestamp,
    name: String,
    unicode: String,
    sentence: String,
    mark: Mark,
    next: NextStep,
    wanted: Mode,
    parts: Vec<Part>,
    alerts: Vec<(Timestamp, Alert, Mark)>,
    stages: Vec<Stage>,
    conditions: Vec<Condition>,
    left_out: Vec<String>,
    held: Option<String>,
    may_approve: bool,
    /// True if the next step is to approve enforcement, and the user may do it.
    is_approved_here: bool,
    /// True if the next step is what the alerts say.
    is_alert: bool,
    is_ready: bool,
    may_hold: bool,
    is_enforced: bool,
    range: Range,
    chart: Option<String>,
    bound: String,
    days: Vec<DayRow>,
    summary: String,
    incidents: Vec<IncidentLine>,
    current: Vec<Failure>,
    folded: Vec<Failure>,
    excused: Vec<Excuse>,
    hosts: Vec<HostRow>,
    has_guard: bool,
    senders: Vec<SenderRow>,
    further_senders: usize,
    has_rua: bool,
    snippets: Vec<Snippet>,
    journal: Vec<JournalLine>,
}

impl Page {
    /// The number of conditions of the gate that are met.
    fn met(&self) -> usize {
        self.conditions.iter().filter(|condition| condition.mark.0 == "fine").count()
    }

    /// The label and the anchor of the section that has the details of an alert; `None` if none has more than the alert.
    fn details_of(&self, alert: &Alert) -> Option<(&'static str, &'static str)> {
        match alert.kind {
            AlertKind::ReportedFailure | AlertKind::FailureRate | AlertKind::DecisionNeeded => {
                Some(("See the failures", "failures"))
            }
            AlertKind::MxUncovered
            | AlertKind::MxUnverified
            | AlertKind::MxCertificateEnds
            | AlertKind::MxUnreached => Some(("See the MX hosts", "mx")),
            AlertKind::RecordGone | AlertKind::PolicyUnserved | AlertKind::PolicyCertificateEnds => {
                Some(("See the records", "records"))
            }
            AlertKind::Silence => Some(("See the senders", "senders")),
            AlertKind::QuarantineFull | AlertKind::CheckFailed | AlertKind::Unconfigured => None,
        }
    }
}

/// Everything about a domain that its pages show.
struct DomainData {
    rollout: RolloutState,
    evidence: Evidence,
    gate: Gate,
    decisions: Decisions,
    /// The sums of days of the range, and of at least 60 days.
    days: Vec<DaySum>,
    senders: Vec<SenderSum>,
    sender_days: Vec<Trend>,
    host_days: Vec<Trend>,
    probes: Vec<GuardProbeDay>,
    groups: Vec<FailureGroup>,
    kinds: Vec<KindSum>,
    alerts: Vec<(Timestamp, Alert)>,
    since: Timestamp,
}

/// Days that are always loaded, since the judgment needs them.
const MIN_DAYS: i32 = 60;

impl DomainData {
    async fn load(
        context: &RolloutContext,
        spec: &DomainSpec,
        range: Range,
        now: Timestamp,
    ) -> Result<Self, ErrorPage> {
        let (name, store) = (&spec.name, &context.store);
        let since = range.since(now);
        let judged_since = now.saturating_sub(DAY.saturating_mul(MIN_DAYS)).unwrap_or(now);
        let rollout = context.rollout(name).await?;
        let (evidence, gate) = context.gate(name, &rollout).await?;
        let alerts = store.alerts::<Alert>().await?.into_iter();
        Ok(Self {
            rollout,
            evidence,
            gate,
            decisions: context.decisions(name),
            days: store.days_of(name, since.min(judged_since)).await?,
            senders: store.senders_about(name, since).await?,
            sender_days: store.senders_by_day(name, strips_since(now)).await?,
            host_days: store.hosts_by_day(name, since).await?,
            probes: store.guard_probes(name, since).await?,
            groups: store.failure_groups(name, since).await?,
            kinds: store.sessions_by_kind(name, since).await?,
            alerts: alerts
                .filter(|active| active.domain == name.as_str())
                .map(|active| (active.since, active.alert))
                .collect(),
            since,
        })
    }

    /// The failures that count, are not excused and still happen.
    fn current_failures(&self, now: Timestamp) -> impl Iterator<Item = &FailureGroup> {
        let excused = self.decisions.excused();
        self.groups.iter().filter(move |group| {
            let is_excused =
                excused.iter().any(|cause| cause.result == group.result_type && cause.host == group.host);
            group.counts && !is_excused && is_recent(group.last, now)
        })
    }

    /// The days of the range.
    fn range(&self) -> impl Iterator<Item = &DaySum> {
        self.days.iter().filter(|day| day.day + DAY > self.since)
    }

    /// The day of the range on which the largest share failed.
    fn worst_day(&self) -> Option<WorstDay> {
        worst_day(self.range())
    }

    /// The days of the range on which more failed than the gate allows, the newest first.
    fn incidents(&self, bound: f64) -> Vec<IncidentLine> {
        incident_lines(self.range(), bound, &self.groups, MAX_INCIDENTS)
    }

    /// All sessions of the range that count, and those of them that failed.
    fn sessions(&self) -> (u64, u64) {
        self.range().fold((0u64, 0u64), |(all, failed), day| {
            (all.saturating_add(day.successful).saturating_add(day.failed), failed.saturating_add(day.failed))
        })
    }

    /// The judgment, with the alerts.
    fn judged(&self, context: &RolloutContext, spec: &DomainSpec, now: Timestamp) -> Judged {
        let since = self.rollout.mode.map_or(now, |mode| mode.since);
        let week = last_week(&self.days, &self.evidence, since, now);
        let alerts: Vec<&Alert> = self.alerts.iter().map(|(_, alert)| alert).collect();
        judge_by(context, spec, &self.rollout, &self.evidence, &self.gate, week)
            .with_alerts(&alerts, binds(&self.rollout, now))
    }
}

/// The table to export; `None` if the page is requested.
async fn exported(
    context: &RolloutContext,
    spec: &DomainSpec,
    facts: &DomainData,
    query: &DomainQuery,
    now: Timestamp,
) -> Result<Option<Answer>, ErrorPage> {
    let format = query.format;
    if format == Format::Html {
        return Ok(None);
    }
    let name = &spec.name;
    Ok(match query.table {
        Table::Days => {
            let days: Vec<&DaySum> = facts.days.iter().filter(|day| day.day + DAY > facts.since).collect();
            export(format, "days", tables::DAYS, &days)
        }
        Table::Senders => export(format, "senders", tables::SENDERS, &facts.senders),
        Table::SenderDays => export(format, "sender-days", tables::TRENDS, &facts.sender_days),
        Table::HostDays => export(format, "host-days", tables::TRENDS, &facts.host_days),
        Table::Failures => {
            let causes = context.store.causes_of(name, facts.since).await?;
            let around =
                CauseContext { domain: name.as_str(), senders: &facts.senders, probes: &facts.probes };
            let rows: Vec<ExportedFailure> =
                causes.iter().map(|cause| ExportedFailure::new(cause, &around)).collect();
            export(format, "failures", tables::FAILURES, &rows)
        }
        Table::Hosts => export(format, "hosts", tables::HOSTS, &hosts(facts, &context.store, now).await?),
        Table::Journal => export(format, "journal", tables::JOURNAL, &context.store.journal_of(name).await?),
    })
}

pub async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(query): Query<DomainQuery>,
    Query(notice): NoticeQuery,
) -> Answer {
    let context = dashboard.context().await?;
    let spec = context.find(&operations::world::domain(&name)?)?;
    let now = context.world.clock.now();
    let facts = DomainData::load(&context, &spec, query.days, now).await?;
    if let Some(answer) = exported(&context, &spec, &facts, &query, now).await? {
        return answer;
    }
    let name = spec.name.to_string();
    let journal = context.store.journal_page(Some(&name), i64::MAX, JOURNAL_ROWS).await?;
    let mut frame = Frame::new(text::unicode(&name), Section::Domains, &visitor);
    frame.notice = notice.said;
    html(&rendered(frame, &context, spec, facts, query.days, journal, now).await?)
}

async fn rendered(
    frame: Frame,
    context: &RolloutContext,
    spec: DomainSpec,
    facts: DomainData,
    range: Range,
    journal: Vec<JournalLine>,
    now: Timestamp,
) -> Result<Page, ErrorPage> {
    let thresholds = &context.config.thresholds;
    let bound = thresholds.failure_rate;
    let name = spec.name.to_string();
    let judged = facts.judged(context, &spec, now);
    let hosts = hosts(&facts, &context.store, now).await?;
    let alerts: Vec<&Alert> = facts.alerts.iter().map(|(_, alert)| alert).collect();
    let around = PartsContext {
        spec: &spec,
        alerts: &alerts,
        hosts: &hosts,
        certificate: certificate(context, &spec).await?,
        now,
    };
    let parts = parts(&facts, &around);
    let cause_context = CauseContext { domain: &name, senders: &facts.senders, probes: &facts.probes };
    let (sessions, failed) = facts.sessions();
    let mut current = failures(facts.groups.clone(), &cause_context, &facts.decisions, sessions, now);
    let still_happening = current.iter().filter(|failure| failure.is_current).count();
    current.truncate(MAX_FAILURES);
    let folded = current.split_off(current.iter().filter(|failure| failure.is_current).count());
    let mode = facts.rollout.mode.map(|known| known.mode);
    let wants_enforce = spec.mode == Mode::Enforce;
    let held = facts.decisions.held.as_ref();
    let snippets = snippets(context, &spec, &facts.rollout);
    let (senders, further_senders) = sender_rows(facts.senders.clone(), &facts.sender_days, bound, now);
    let may_approve = wants_enforce && mode == Some(Mode::Testing) && facts.rollout.approved.is_none();
    let is_approved_here =
        may_approve && frame.is_operator() && judged.next.cause() == Some(StepCause::Approve);
    let is_alert = judged.next.cause() == Some(StepCause::Alert);
    Ok(Page {
        frame,
        now,
        unicode: text::unicode(&name),
        sentence: sentence(&facts, now),
        mark: judged.need.mark(mode),
        next: judged.next,
        wanted: spec.mode,
        parts,
        alerts: facts
            .alerts
            .iter()
            .map(|(since, alert)| (*since, shown(alert), alert_mark(alert, binds(&facts.rollout, now))))
            .collect(),
        stages: stages(&facts, &spec, thresholds),
        conditions: conditions(&facts, thresholds),
        left_out: facts.evidence.left_out().iter().map(|text| with_separators(text)).collect(),
        held: held.map(|held| format!("{} ({}, {})", held.reason, held.who, text::minute(&held.at))),
        may_approve,
        is_approved_here,
        is_alert,
        is_ready: matches!(facts.gate, Gate::Ready | Gate::Ask(_)),
        may_hold: wants_enforce && held.is_none() && mode.is_some(),
        is_enforced: mode == Some(Mode::Enforce),
        range,
        chart: Timeline { days: &facts.days, events: &events(&journal), bound, range, now }.draw(),
        bound: text::bound(bound),
        summary: summary(failed, sessions, facts.worst_day().as_ref(), still_happening, range.days()),
        incidents: facts.incidents(bound),
        current,
        folded,
        excused: facts.decisions.excused,
        hosts: hosts.into_iter().take(MAX_HOSTS).collect(),
        has_guard: context.config.guard.is_some(),
        senders,
        further_senders,
        has_rua: !spec.rua.is_empty(),
        snippets,
        days: facts
            .days
            .into_iter()
            .filter(|day| day.day + DAY > facts.since)
            .rev()
            .map(|day| DayRow {
                day: day.day,
                successful: day.successful,
                failed: day.failed,
                share: text::percent(day.failed, day.successful.saturating_add(day.failed)),
                unproved: day.unproved,
            })
            .collect(),
        journal,
        name,
    })
}

/// A text that begins with a number, with separators in the number.
fn with_separators(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{} {rest}", text::count(number))
        }
        _ => text.to_owned(),
    }
}

/// The alert with readable times.
fn shown(alert: &Alert) -> Alert {
    Alert { what: sentence_of(&text::readable(&alert.what)), ..alert.clone() }
}

fn alert_mark(alert: &Alert, binds: bool) -> Mark {
    match urgency(alert.kind, binds) {
        Urgency::Failing => Mark("failing", "✗ Mail at risk"),
        _ => Mark("waiting", "! Action needed"),
    }
}

/// What the charts mark: the entries of the journal.
fn events(journal: &[JournalLine]) -> Vec<(Timestamp, String)> {
    journal.iter().map(|line| (line.entry.at, line.entry.what.clone())).collect()
}

/// The state in one sentence.
fn sentence(facts: &DomainData, now: Timestamp) -> String {
    let Some(mode) = facts.rollout.mode else {
        return "No policy is published yet: an attacker on the path can read the mail.".to_owned();
    };
    let (since, age) = (text::date(&mode.since), text::age(mode.since, now));
    match mode.mode {
        Mode::Testing => {
            format!(
                "In testing since {since} ({age}): senders deliver even if TLS can't be verified, and report it."
            )
        }
        Mode::Enforce => format!(
            "Enforced since {since} ({age}): senders that support MTA-STS deliver only with verified TLS."
        ),
        Mode::None => format!(
            "Retiring since {since} ({age}): senders are asked to remove the policy from their caches."
        ),
    }
}

/// The expiry of the policy host's certificate; `None` if the policy is not served here or no certificate is issued.
async fn certificate(
    context: &RolloutContext,
    spec: &DomainSpec,
) -> Result<Option<CertificateEnd>, ErrorPage> {
    let Ok(host) = policy_host(&spec.name) else { return Ok(None) };
    if spec.host != HostedBy::Sternpost {
        return Ok(None);
    }
    Ok(context.store.certificate_ends(Some(&host), 1).await?.pop())
}

/// The records and the policy file that are published now, for restoring one that is missing.
fn snippets(context: &RolloutContext, spec: &DomainSpec, rollout: &RolloutState) -> Vec<Snippet> {
    let wanted = context.desired(spec);
    let record = |label: &str, value: String| {
        let change = Change { name: wanted.record(label).ok()?, records: Records::Txt(value) };
        Some(change.lines().join("\n"))
    };
    let sts =
        rollout.last_id.as_ref().and_then(|id| record("_mta-sts", StsRecord::new(id.clone()).to_string()));
    let newest = rollout.newest();
    let policy = newest.and_then(|newest| Policy::new(newest.mode, newest.max_age, newest.mx.clone()));
    let tlsrpt = Step::AskForReports(TlsrptRecord::new(spec.rua.clone()));
    let tlsrpt = Change::of(&wanted, &tlsrpt).ok().flatten().filter(|_| !spec.rua.is_empty());
    [
        sts.map(|text| Snippet { what: "MTA-STS record", text }),
        policy.map(|policy| Snippet { what: "Policy file", text: policy.to_string().replace("\r\n", "\n") }),
        tlsrpt.map(|change| Snippet { what: "TLS reporting record", text: change.lines().join("\n") }),
    ]
    .into_iter()
    .flatten()
    .collect()
}
