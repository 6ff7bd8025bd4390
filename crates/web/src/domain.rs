//! The page of one domain: its roll-out state, alerts, session counts, failures with remedies, the evidence for
//! enforcement, MX hosts, senders, published records and the journal. The data comes from the store and the roll-out
//! context.

use crate::chart::{LINE_DAYS, strips, strips_since, timeline};
use crate::layout::{Answer, ErrorPage, Frame, NoticeQuery, Section, html};
use crate::overview::{Urgency, age, judge_by, last_week};
use crate::state::Dashboard;
use crate::tables::{Format, export};
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use formats::tlsrpt_record::TlsrptRecord;
use formats::{Mode, Policy, StsRecord};
use jiff::{SignedDuration, Timestamp};
use operations::RolloutContext;
use receiver::domain::DomainSpec;
use receiver::inbox::explain::{CauseContext, Explanation, explain};
use receiver::publish::{Change, Records};
use receiver::rollout::RolloutState;
use receiver::rollout::decisions::{Decisions, Excuse};
use receiver::rollout::gate::{Evidence, Gate, Thresholds, upper_bound};
use receiver::rollout::guard::Alert;
use receiver::rollout::plan::Step;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::guard_probes::GuardProbeDay;
use store::reports::{CauseSum, DaySum, SenderSum, Trend};
use store::rollouts::JournalEntry;

/// The maximum number of failure causes on the page.
const MAX_LISTED: usize = 12;
/// The maximum number of senders with a chart; those with most sessions get one.
const MAX_CHARTED_SENDERS: usize = 20;
/// The maximum number of MX hosts on the page.
const MAX_HOSTS: usize = 40;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The table to export, and its format.
#[derive(Debug, Default, Deserialize)]
pub struct DomainQuery {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    table: Table,
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

/// A cause of failures with its explanation.
#[derive(Serialize)]
struct Failing {
    #[serde(flatten)]
    cause: CauseSum,
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(skip)]
    is_excused: bool,
}

impl Failing {
    fn first(&self) -> String {
        self.cause.first.strftime("%Y-%m-%d").to_string()
    }

    fn last(&self) -> String {
        self.cause.last.strftime("%Y-%m-%d").to_string()
    }
}

/// An MX host with the results of the guard's probes and the failures in reports.
#[derive(Serialize)]
struct HostRow {
    host: String,
    /// Probes that passed.
    good: u64,
    /// Probes that failed.
    bad: u64,
    /// The problem of the last failed probe, with its day; empty if none failed.
    last_problem: String,
    /// Failed sessions in reports.
    reported: u64,
    #[serde(skip)]
    trend: String,
}

/// A text to copy, with its heading.
struct Snippet {
    what: &'static str,
    text: String,
}

/// One condition of the gate: the current value and the required one.
struct Condition {
    what: &'static str,
    have: String,
    need: String,
    is_met: bool,
}

#[derive(Template)]
#[template(path = "domain.html")]
struct Page {
    frame: Frame,
    name: String,
    sentence: String,
    mark: (&'static str, &'static str),
    wanted: Mode,
    alerts: Vec<(Timestamp, Alert)>,
    held: Option<String>,
    may_approve: bool,
    is_ready: bool,
    may_hold: bool,
    is_enforced: bool,
    chart: String,
    line_days: i64,
    days: Vec<DaySum>,
    conditions: Vec<Condition>,
    failures: Vec<Failing>,
    /// The number of causes that are not shown.
    further: usize,
    excused: Vec<Excuse>,
    /// Each sender with its chart; empty if none is drawn.
    senders: Vec<(SenderSum, String)>,
    hosts: Vec<HostRow>,
    snippets: Vec<Snippet>,
    journal: Vec<JournalEntry>,
}

impl Page {
    fn day(&self, day: &Timestamp) -> String {
        day.strftime("%Y-%m-%d").to_string()
    }
}

/// Everything about a domain that the page shows.
struct Facts {
    rollout: RolloutState,
    evidence: Evidence,
    gate: Gate,
    decisions: Decisions,
    days: Vec<DaySum>,
    senders: Vec<SenderSum>,
    sender_days: Vec<Trend>,
    host_days: Vec<Trend>,
    probes: Vec<GuardProbeDay>,
    causes: Vec<CauseSum>,
    journal: Vec<JournalEntry>,
}

async fn facts(context: &RolloutContext, spec: &DomainSpec, now: Timestamp) -> Result<Facts, ErrorPage> {
    let name = &spec.name;
    let line = DAY.saturating_mul(i32::try_from(LINE_DAYS).unwrap_or(90));
    let since = now.saturating_sub(line).unwrap_or(now);
    let rollout = context.rollout(name).await?;
    let (evidence, gate) = context.gate(name, &rollout).await?;
    Ok(Facts {
        rollout,
        evidence,
        gate,
        decisions: context.decisions(name),
        days: context.store.days_of(name, since).await?,
        senders: context.store.senders_about(name, since).await?,
        sender_days: context.store.senders_by_day(name, strips_since(now)).await?,
        host_days: context.store.hosts_by_day(name, strips_since(now)).await?,
        probes: context.store.guard_probes(name, since).await?,
        causes: context.store.causes_of(name, since).await?,
        journal: context.store.journal_of(name).await?,
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
    let facts = facts(&context, &spec, now).await?;
    let cause_context =
        CauseContext { domain: spec.name.as_str(), senders: &facts.senders, probes: &facts.probes };
    let failures: Vec<Failing> =
        facts.causes.iter().map(|cause| failing(cause, &cause_context, &facts.decisions)).collect();
    let hosts = hosts(&facts, now);
    let exported = match query.table {
        Table::Days => export(query.format, "days", &facts.days),
        Table::Senders => export(query.format, "senders", &facts.senders),
        Table::SenderDays => export(query.format, "sender-days", &facts.sender_days),
        Table::HostDays => export(query.format, "host-days", &facts.host_days),
        Table::Failures => export(query.format, "failures", &failures),
        Table::Hosts => export(query.format, "hosts", &hosts),
        Table::Journal => export(query.format, "journal", &facts.journal),
    };
    if let Some(answer) = exported {
        return answer;
    }
    let since = facts.rollout.mode.map_or(now, |mode| mode.since);
    let week = last_week(&facts.days, &facts.evidence, since, now);
    let judged = judge_by(&context, &spec, &facts.rollout, &facts.evidence, &facts.gate, week);
    let alerts = context.store.alerts::<Alert>().await?.into_iter();
    let alerts: Vec<(Timestamp, Alert)> = alerts
        .filter(|active| active.domain == spec.name.as_str())
        .map(|active| (active.since, active.alert))
        .collect();
    let mode = facts.rollout.mode.map(|known| known.mode);
    let events: Vec<(Timestamp, String)> =
        facts.journal.iter().map(|entry| (entry.at, entry.what.clone())).collect();
    let wants_enforce = spec.mode == Mode::Enforce;
    let mut frame = Frame::new(spec.name.to_string(), Section::Domains, &visitor);
    frame.notice = notice.said;
    html(&Page {
        frame,
        name: spec.name.to_string(),
        sentence: sentence(&facts, &judged.next, now),
        mark: if alerts.is_empty() { judged.need.mark() } else { Urgency::Failing.mark() },
        alerts,
        wanted: spec.mode,
        held: facts
            .decisions
            .held
            .as_ref()
            .map(|held| format!("{} ({}, {})", held.reason, held.who, held.at)),
        may_approve: wants_enforce && mode == Some(Mode::Testing) && facts.rollout.approved.is_none(),
        is_ready: matches!(facts.gate, Gate::Ready | Gate::Ask(_)),
        may_hold: wants_enforce && facts.decisions.held.is_none() && mode.is_some(),
        is_enforced: mode == Some(Mode::Enforce),
        chart: timeline(&facts.days, &events, now),
        line_days: LINE_DAYS,
        conditions: conditions(&facts.evidence, &context.config.thresholds),
        further: failures.len().saturating_sub(MAX_LISTED),
        failures: failures.into_iter().take(MAX_LISTED).collect(),
        excused: facts.decisions.excused,
        senders: with_charts(facts.senders, &facts.sender_days, now),
        hosts: hosts.into_iter().take(MAX_HOSTS).collect(),
        snippets: snippets(&context, &spec, &facts.rollout),
        days: facts.days.into_iter().rev().collect(),
        journal: facts.journal.into_iter().rev().take(50).collect(),
    })
}

fn failing(cause: &CauseSum, around: &CauseContext<'_>, decisions: &Decisions) -> Failing {
    let excused =
        |excuse: &Excuse| excuse.cause.result == cause.result_type && excuse.cause.host == cause.host;
    Failing {
        explanation: explain(cause, around),
        is_excused: decisions.excused.iter().any(excused),
        cause: cause.clone(),
    }
}

/// One sentence with the state and the next step.
fn sentence(facts: &Facts, next: &str, now: Timestamp) -> String {
    let Some(mode) = facts.rollout.mode else {
        return format!("Not set up yet. Next: {next}.");
    };
    let age = age(mode.since, now);
    match mode.mode {
        Mode::Testing if matches!(facts.gate, Gate::NotYet(_)) && facts.rollout.approved.is_none() => {
            format!("In testing for {age}. Evidence for enforcement: {}.", facts.gate)
        }
        Mode::Testing => {
            format!("In testing for {age}. Evidence for enforcement: {}. Next: {next}.", facts.gate)
        }
        Mode::Enforce => format!(
            "Enforced for {age}: senders that support MTA-STS deliver only with verified TLS. Next: {next}."
        ),
        Mode::None => format!("Retiring for {age}. Next: {next}."),
    }
}

/// The conditions of the gate, and figures for information.
fn conditions(evidence: &Evidence, needed: &Thresholds) -> Vec<Condition> {
    let days = |what, have: u32, need: u32| Condition {
        what,
        have: have.to_string(),
        need: format!("{need} or more"),
        is_met: have >= need,
    };
    let probes = &evidence.probes;
    let is_probed = probes.clean_days >= needed.clean_days;
    let sessions = if is_probed { evidence.clean_sessions } else { evidence.counted_sessions };
    let bound = upper_bound(0, sessions);
    let is_quiet = evidence.days_in_testing >= needed.quiet_days && is_probed;
    let left_out = evidence.left_out();
    vec![
        days("Days in testing", evidence.days_in_testing, needed.days_in_testing),
        days("Consecutive clean days", evidence.clean_days, needed.clean_days),
        Condition {
            what: "Sessions on clean days",
            have: sessions.to_string(),
            need: "enough for the next condition".to_owned(),
            is_met: bound <= needed.failure_rate || is_quiet,
        },
        Condition {
            what: "Failure rate, 95 % upper bound",
            have: format!("{:.2} %", bound * 100.0),
            need: format!(
                "{:.2} % or less, or {} days in testing and all probes passed",
                needed.failure_rate * 100.0,
                needed.quiet_days
            ),
            is_met: bound <= needed.failure_rate || is_quiet,
        },
        Condition {
            what: "Senders with domains of their own",
            have: match evidence.sources.iter().take(3).map(|one| one.domain.as_str()).collect::<Vec<_>>() {
                none if none.is_empty() => evidence.senders.to_string(),
                first => format!("{} ({} …)", evidence.senders, first.join(", ")),
            },
            need: format!("{} or more, or all probes passed", needed.senders),
            is_met: evidence.senders >= needed.senders || is_probed,
        },
        Condition {
            what: "Probes of the MX hosts",
            have: match &probes.problem {
                Some(problem) => format!("{} clean days, last failure: {problem}", probes.clean_days),
                None => format!("{} clean days on which every host passed", probes.clean_days),
            },
            need: format!("{} or more, for few senders or sessions and for auto_promote", needed.clean_days),
            is_met: is_probed,
        },
        Condition {
            what: "Not counted",
            have: if left_out.is_empty() { "nothing".to_owned() } else { left_out.join("; ") },
            need: "for information".to_owned(),
            is_met: true,
        },
    ]
}

/// Pairs senders with their charts; a chart is empty if none is drawn.
pub(super) fn with_charts(
    senders: Vec<SenderSum>,
    days: &[Trend],
    now: Timestamp,
) -> Vec<(SenderSum, String)> {
    let shown = senders
        .iter()
        .filter(|sender| sender.counts)
        .take(MAX_CHARTED_SENDERS)
        .map(|sender| sender.submitter.as_str());
    let names: Vec<String> = shown.map(str::to_owned).collect();
    let trends = strips(days, names.iter().map(String::as_str), now);
    let trend = |sender: &SenderSum| trends.get(sender.submitter.as_str()).filter(|_| sender.counts).cloned();
    senders
        .into_iter()
        .map(|sender| (trend(&sender).unwrap_or_default(), sender))
        .map(|(trend, sender)| (sender, trend))
        .collect()
}

/// The MX hosts that were probed or that reports name.
fn hosts(facts: &Facts, now: Timestamp) -> Vec<HostRow> {
    let names: Vec<&str> = facts
        .probes
        .iter()
        .map(|probe| probe.host.as_str())
        .chain(facts.host_days.iter().map(|day| day.name.as_str()))
        .collect();
    let trends = strips(&facts.host_days, names.iter().copied(), now);
    let empty = |host: &str| HostRow {
        host: host.to_owned(),
        good: 0,
        bad: 0,
        last_problem: String::new(),
        reported: 0,
        trend: String::new(),
    };
    let mut rows: BTreeMap<&str, HostRow> = BTreeMap::new();
    for (name, trend) in trends {
        let days = facts.host_days.iter().filter(|day| day.name == name);
        let reported = days.fold(0_u64, |sum, day| sum.saturating_add(day.failed));
        rows.insert(name, HostRow { reported, trend, ..empty(name) });
    }
    for probe in &facts.probes {
        let row = rows.entry(&probe.host).or_insert_with(|| empty(&probe.host));
        row.good += probe.good;
        row.bad += probe.bad;
        if !probe.problem.is_empty() {
            row.last_problem = format!("{} ({})", probe.problem, probe.day.strftime("%Y-%m-%d"));
        }
    }
    // Probed hosts first, since a report may contain any name.
    let mut rows: Vec<HostRow> = rows.into_values().collect();
    rows.sort_by_key(|row| row.good + row.bad == 0);
    rows
}

/// The records and the policy file that are published now, for restoring one that is missing.
fn snippets(context: &RolloutContext, spec: &DomainSpec, rollout: &RolloutState) -> Vec<Snippet> {
    let wanted = context.wanted(spec);
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
