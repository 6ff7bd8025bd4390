//! The overview: one row per domain, most urgent first. Urgency is judged from the roll-out state, alerts and reports.

use crate::chart::strip;
use crate::layout::{Answer, ErrorPage, Frame, Section, html};
use crate::state::Dashboard;
use crate::tables::{Format, export};
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use formats::{DomainName, Mode};
use jiff::{SignedDuration, Timestamp};
use operations::RolloutContext;
use receiver::domain::{DomainSpec, HostedBy};
use receiver::rollout::RolloutState;
use receiver::rollout::gate::{Evidence, Gate, evidence_by_day, not_due};
use receiver::rollout::guard::Alert;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::StoreError;
use store::reports::DaySum;

/// The search text, the page number and the format.
#[derive(Debug, serde::Deserialize)]
pub struct OverviewQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    page: usize,
    #[serde(default)]
    format: Format,
}

/// How urgently a domain needs the operator; most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// Mail is at risk.
    Failing,
    /// The operator has to approve or run something.
    Waiting,
    /// The roll-out waits for time or evidence.
    OnItsWay,
    /// The domain is in its desired state.
    Fine,
}

impl Urgency {
    /// The CSS class and the label. The label has a sign, so that the state does not depend on color alone.
    pub fn mark(self) -> (&'static str, &'static str) {
        match self {
            Self::Failing => ("failing", "✗ failing"),
            Self::Waiting => ("waiting", "! action needed"),
            Self::OnItsWay => ("way", "· in progress"),
            Self::Fine => ("fine", "✓ OK"),
        }
    }
}

/// A row of the overview; also the shape of its CSV and JSON export.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub domain: String,
    pub need: Urgency,
    pub mode: String,
    pub wanted: String,
    pub since: Option<Timestamp>,
    pub evidence: String,
    pub next: String,
    pub sessions_30_days: u64,
    pub failed_30_days: u64,
    pub certificate_ends: Option<Timestamp>,
    #[serde(skip)]
    pub strip: String,
    #[serde(skip)]
    pub age: String,
    #[serde(skip)]
    pub certificate: String,
}

/// Rows per page.
const PAGE_ROWS: usize = 30;
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How far back reports are considered on the overview; the page of one domain goes back further.
const REPORT_WINDOW: SignedDuration = SignedDuration::from_hours(24 * 60);

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    q: String,
    all: usize,
    found: usize,
    page: usize,
    pages: usize,
    counts: Vec<(&'static str, &'static str, usize)>,
}

pub async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<OverviewQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let days = dashboard.days(&context, now.saturating_sub(REPORT_WINDOW).unwrap_or(now)).await?;
    let rollouts: BTreeMap<String, Result<RolloutState, StoreError>> = context.store.rollouts().await?;
    let wanted = query.q.trim().to_ascii_lowercase();
    let mut found: Vec<(DomainSummary, &DomainSpec)> = Vec::new();
    let state = |name: &DomainName| rollouts.get(name.as_str());
    let known =
        |name: &DomainName| (state(name).and_then(|state| state.as_ref().ok()), days.get(name.as_str()));
    let mut counts = BTreeMap::new();
    let with_alerts: BTreeSet<String> =
        context.store.alerts::<Alert>().await?.into_iter().map(|active| active.domain).collect();
    for spec in &context.known {
        let mut judged = judge(&dashboard, &context, spec, known(&spec.name), now).await?;
        if with_alerts.contains(spec.name.as_str()) {
            (judged.need, judged.next) = (Urgency::Failing, "see the alerts".to_owned());
        }
        // A state that can't be read does not hide the other domains.
        if let Some(Err(error)) = state(&spec.name) {
            (judged.need, judged.next) = (Urgency::Failing, error.to_string());
        }
        *counts.entry(judged.need).or_insert(0) += 1;
        if spec.name.as_str().contains(&wanted) {
            found.push((judged, spec));
        }
    }
    found.sort_by(|(a, one), (b, two)| {
        a.need.cmp(&b.need).then_with(|| one.name.as_str().cmp(two.name.as_str()))
    });
    let found_count = found.len();
    let pages = found.len().div_ceil(PAGE_ROWS).max(1);
    let page = query.page.clamp(1, pages);
    let (first, limit) = match query.format {
        Format::Html => ((page - 1) * PAGE_ROWS, PAGE_ROWS),
        Format::Csv | Format::Json => (0, usize::MAX),
    };
    let mut rows = Vec::new();
    for (judged, spec) in found.into_iter().skip(first).take(limit) {
        rows.push(row(&context, spec, known(&spec.name), judged, now).await?);
    }
    if let Some(answer) = export(query.format, "domains", &rows) {
        return answer;
    }
    let counts = counts.into_iter().map(|(need, count)| (need.mark().0, need.mark().1, count)).collect();
    html(&Page {
        frame: Frame::new("Domains", Section::Domains, &visitor),
        rows,
        q: query.q,
        all: context.known.len(),
        found: found_count,
        page,
        pages,
        counts,
    })
}

/// The urgency of a domain, its evidence in words, and the next step.
pub struct DomainSummary {
    pub need: Urgency,
    pub evidence: String,
    pub next: String,
}

/// The roll-out state and the session counts of a domain, if there are any.
type Known<'a> = (Option<&'a RolloutState>, Option<&'a Vec<DaySum>>);

/// Judges a domain from its session counts per day, which are cached for all domains. Its reports and the probes of its MX
/// hosts are loaded only if they decide.
async fn judge(
    dashboard: &Dashboard,
    context: &RolloutContext,
    spec: &DomainSpec,
    (rollout, days): Known<'_>,
    now: Timestamp,
) -> Result<DomainSummary, ErrorPage> {
    let nothing = RolloutState::default();
    let rollout = rollout.unwrap_or(&nothing);
    let since = rollout.mode.map_or(now, |mode| mode.since);
    let days = days.map_or(&[][..], Vec::as_slice);
    let by_day = evidence_by_day(days, since, now);
    let is_in_testing = rollout.mode.is_some_and(|known| known.mode == Mode::Testing);
    let early = not_due(&by_day, &context.config.thresholds);
    // The sums do not separate excused causes from the others, nor one sender or policy from another.
    let (evidence, gate) = match early {
        _ if !context.decisions(&spec.name).excused.is_empty() => context.gate(&spec.name, rollout).await?,
        None if is_in_testing => dashboard.gate(context, &spec.name, rollout).await?,
        early => (by_day, early.unwrap_or(Gate::NotYet(Vec::new()))),
    };
    let week = last_week(days, &evidence, since, now);
    Ok(judge_by(context, spec, rollout, &evidence, &gate, week))
}

/// The verified reports of the last week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastWeek {
    /// No verified report.
    Silent,
    /// Verified reports without failures that count.
    Clean,
    /// Verified reports with failures.
    Failing,
}

/// Summarizes the days of the last week, since the current mode began. They are clean without failures, or if the
/// evidence's run of clean days covers all of them; the evidence ignores excused causes.
pub fn last_week(days: &[DaySum], evidence: &Evidence, since: Timestamp, now: Timestamp) -> LastWeek {
    let recent = days.iter().filter(|day| day.day + DAY * 8 > now && day.day + DAY > since);
    let covered: Vec<&DaySum> = recent.filter(|day| day.sts_sessions > 0 || day.tainted > 0).collect();
    match covered.len() {
        0 => LastWeek::Silent,
        // Evidence leaves out sessions under an earlier policy, so its run may be shorter without any failure.
        _ if covered.iter().all(|day| day.tainted == 0) => LastWeek::Clean,
        covered if evidence.clean_days as usize >= covered => LastWeek::Clean,
        _ => LastWeek::Failing,
    }
}

/// Judges a domain from its roll-out state, its evidence and its last week.
pub fn judge_by(
    context: &RolloutContext,
    spec: &DomainSpec,
    rollout: &RolloutState,
    evidence: &Evidence,
    gate: &Gate,
    week: LastWeek,
) -> DomainSummary {
    let name = &spec.name;
    let apply = format!("sternpost apply {name}");
    let mode = rollout.mode.map(|known| known.mode);
    let wanted = context.wanted(spec).mode;
    let held = context.decisions(name).held;
    let (need, next) = match mode {
        None if wanted == Mode::None => (Urgency::Fine, "nothing".to_owned()),
        None => (Urgency::Waiting, apply),
        Some(Mode::Enforce) if wanted == Mode::Enforce && week == LastWeek::Failing => {
            (Urgency::Failing, "see the failures".to_owned())
        }
        Some(mode) if mode == wanted && rollout.announce_due => (Urgency::Waiting, apply),
        Some(mode) if mode == wanted => match held {
            Some(held) => (Urgency::Waiting, format!("held by {}: {}", held.who, held.reason)),
            None => (Urgency::Fine, "nothing".to_owned()),
        },
        Some(Mode::Testing) if wanted == Mode::Enforce => match (rollout.approved, gate) {
            (Some(_), _) => (Urgency::Waiting, apply),
            (None, Gate::Ready) => (Urgency::Waiting, "approve enforcement".to_owned()),
            (None, Gate::Ask(_)) => (Urgency::Waiting, "decide about the reported failures".to_owned()),
            (None, Gate::NotYet(reasons)) => {
                (Urgency::OnItsWay, reasons.first().cloned().unwrap_or_default())
            }
        },
        Some(_) => (Urgency::Waiting, apply),
    };
    let evidence = match mode {
        Some(Mode::Testing) => gate.to_string(),
        Some(Mode::Enforce) => match week {
            LastWeek::Silent => "no verified report in a week".to_owned(),
            LastWeek::Clean => "a week without failures".to_owned(),
            LastWeek::Failing => {
                format!("failures in the last week, then {} clean days", evidence.clean_days)
            }
        },
        _ => "none".to_owned(),
    };
    DomainSummary { need, evidence, next }
}

async fn row(
    context: &RolloutContext,
    spec: &DomainSpec,
    known: Known<'_>,
    judged: DomainSummary,
    now: Timestamp,
) -> Result<Row, ErrorPage> {
    let days = known.1.map_or(&[][..], Vec::as_slice);
    let month = days.iter().filter(|day| day.day + DAY * 30 > now);
    let (worked, failed) = month.fold((0u64, 0u64), |(worked, failed), day| {
        (worked.saturating_add(day.successful), failed.saturating_add(day.failed))
    });
    let mode = known.0.and_then(|rollout| rollout.mode);
    let certificate_ends = certificate_ends(context, spec).await?;
    Ok(Row {
        domain: spec.name.to_string(),
        need: judged.need,
        mode: mode.map_or("not set up".to_owned(), |known| known.mode.to_string()),
        wanted: spec.mode.to_string(),
        since: mode.map(|known| known.since),
        evidence: judged.evidence,
        next: judged.next,
        sessions_30_days: worked.saturating_add(failed),
        failed_30_days: failed,
        strip: strip(days, now),
        age: mode.map_or(String::new(), |known| age(known.since, now)),
        certificate: match certificate_ends {
            Some(end) if end <= now => "✗ expired".to_owned(),
            Some(end) => format!("expires in {}", age(now, end)),
            None if spec.host == HostedBy::Sternpost => "not issued yet".to_owned(),
            None => "not managed here".to_owned(),
        },
        certificate_ends,
    })
}

/// The expiry of the policy host's certificate; `None` if the policy is not served here or no certificate is issued.
async fn certificate_ends(
    context: &RolloutContext,
    spec: &DomainSpec,
) -> Result<Option<Timestamp>, ErrorPage> {
    let Ok(host) = DomainName::parse(&format!("mta-sts.{}", spec.name)) else { return Ok(None) };
    if spec.host != HostedBy::Sternpost {
        return Ok(None);
    }
    let found = context.store.certificate(&host).await?;
    Ok(found.filter(|certificate| !certificate.chain.is_empty()).map(|certificate| certificate.expires_at))
}

/// The time between two moments: in minutes below two hours, in hours below two days, otherwise in days.
pub fn age(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.duration_since(from).as_secs().max(0);
    let (count, unit) = match seconds {
        0..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excused_failure_does_not_make_the_last_week_failing() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let since = now - DAY * 30;
        let day = |back: i32, tainted| DaySum {
            day: formats::report::DateRange::utc_day(now - DAY * back).start,
            successful: 9,
            failed: tainted,
            sts_sessions: 9 + tainted,
            tainted,
            unproved: 0,
        };
        let days = [day(3, 0), day(2, 1), day(1, 0)];
        let by_sums = evidence_by_day(&days, since, now);
        assert_eq!(last_week(&days, &by_sums, since, now), LastWeek::Failing);
        let excused = Evidence { clean_days: 3, ..by_sums.clone() };
        assert_eq!(last_week(&days, &excused, since, now), LastWeek::Clean);
        assert_eq!(last_week(&[day(20, 1)], &by_sums, since, now), LastWeek::Silent);
        let new_policy = Evidence { clean_days: 1, ..by_sums };
        assert_eq!(last_week(&[day(2, 0), day(1, 0)], &new_policy, since, now), LastWeek::Clean);
    }

    #[test]
    fn ages_use_their_largest_unit() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(age(at(0), at(60)), "1 minute");
        assert_eq!(age(at(0), at(7_200)), "2 hours");
        assert_eq!(age(at(0), at(1_000_000)), "11 days");
        assert_eq!(age(at(10), at(0)), "0 minutes");
    }
}
