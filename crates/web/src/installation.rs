//! One page about all domains for somebody who decides, to print or to save as PDF: how many are protected and since when,
//! what failed and on which days, and what is still to do. All figures are of the same days. The style sheet prints it on one
//! A4 page. `domain/manager` is the same for one domain.

use crate::chart::{Range, Timeline};
use crate::incidents::{IncidentLine, WorstDay, incident_lines, worst_day};
use crate::judge::{NextStep, StepCause};
use crate::layout::{Answer, Frame, Section, html};
use crate::overview::{enforced_since, verdict};
use crate::snapshot::{Entry, Snapshot, Totals};
use crate::state::Dashboard;
use crate::text;
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::State;
use formats::Mode;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use store::reports::DaySum;

/// The days that the page is about, which are those of the overview.
const RANGE: Range = Range::Month;
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Incidents on the page, the newest.
const MAX_INCIDENTS: usize = 4;
/// Domains on the page that had a bad day.
const MAX_BAD: usize = 4;
/// Causes of action on the page.
const MAX_GROUPS: usize = 4;
/// Domains on the page that are not protected.
const MAX_OPEN: usize = 6;

/// A domain with its worst day.
struct BadDay {
    name: String,
    worst: WorstDay,
}

#[derive(Template)]
#[template(path = "installation.html")]
struct Page {
    frame: Frame,
    now: Timestamp,
    period: String,
    days: i64,
    verdict: String,
    totals: Totals,
    /// Since when the protected domains are; empty if none is.
    since: String,
    /// The share that failed; `None` without sessions.
    failed: Option<String>,
    worst: Option<WorstDay>,
    incidents: Vec<IncidentLine>,
    bad: Vec<BadDay>,
    chart: Option<String>,
    bound: String,
    /// What needs action, with the number of domains.
    groups: Vec<(String, usize)>,
    further_groups: usize,
    /// Domains that are to be enforced and are not yet, with their state.
    open: Vec<(String, String)>,
    further_open: usize,
}

pub async fn page(State(dashboard): State<Arc<Dashboard>>, Extension(visitor): Extension<Visitor>) -> Answer {
    // What is printed has to be complete.
    let snapshot = dashboard.complete_snapshot().await?;
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let bound = context.config.thresholds.failure_rate;
    let sums: Vec<DaySum> = snapshot.sums.iter().filter(|day| is_in_range(day, now)).copied().collect();
    let open = snapshot.domains.iter().filter(|entry| is_open(entry));
    let waits = |entry: &Entry| (entry.name.clone(), state(entry));
    html(&Page {
        frame: Frame::new("Report on all domains", Section::Domains, &visitor),
        now,
        period: RANGE.period(now),
        days: RANGE.days(),
        verdict: verdict(&snapshot.totals),
        failed: text::percent(snapshot.totals.failed, snapshot.totals.sessions),
        worst: worst_day(sums.iter()),
        incidents: incident_lines(sums.iter(), bound, &[], MAX_INCIDENTS),
        bad: bad_days(&snapshot, bound, now),
        chart: Timeline { days: &sums, events: &[], bound, range: RANGE, now }.draw(),
        bound: text::bound(bound),
        groups: snapshot
            .groups
            .iter()
            .take(MAX_GROUPS)
            .map(|group| (group.what.clone(), group.domains.len()))
            .collect(),
        further_groups: snapshot.groups.len().saturating_sub(MAX_GROUPS),
        open: open.clone().take(MAX_OPEN).map(waits).collect(),
        further_open: open.count().saturating_sub(MAX_OPEN),
        since: enforced_since(&snapshot.totals),
        totals: snapshot.totals,
    })
}

fn is_in_range(day: &DaySum, now: Timestamp) -> bool {
    day.day + DAY > RANGE.since(now)
}

/// True if the domain is to be enforced and is not.
fn is_open(entry: &Entry) -> bool {
    entry.wanted == Mode::Enforce && entry.mode != Some(Mode::Enforce)
}

/// The mode of a domain that is not enforced, and what it waits for.
fn state(entry: &Entry) -> String {
    let mode = match (entry.mode, entry.since) {
        (Some(Mode::Testing), Some(since)) => format!("in testing since {}", text::date(&since)),
        (None, _) => "not set up".to_owned(),
        (Some(mode), _) => format!("mode {mode}"),
    };
    match &entry.next {
        NextStep::Wait(what) => format!("{mode}. {what}"),
        NextStep::Page(StepCause::Approve, ..) => format!("{mode}, and ready to enforce"),
        _ => mode,
    }
}

/// The domains that had a day above the bound, those with the most failed sessions on their worst day first.
fn bad_days(snapshot: &Snapshot, bound: f64, now: Timestamp) -> Vec<BadDay> {
    let bad = |entry: &Entry| {
        let days = snapshot.days.get(entry.name.as_str())?;
        let worst = worst_day(days.iter().filter(|day| is_in_range(day, now)))?;
        let is_above = worst.failed as f64 > bound * worst.sessions as f64;
        is_above.then(|| BadDay { name: entry.name.clone(), worst })
    };
    let mut all: Vec<BadDay> =
        snapshot.domains.iter().filter(|entry| entry.failed > 0).filter_map(bad).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.worst.failed));
    all.truncate(MAX_BAD);
    all
}
