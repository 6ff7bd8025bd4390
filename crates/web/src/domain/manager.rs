//! A page about a domain for decision makers, to print or to save as PDF: whether its mail is protected, since when,
//! what failed, and what is still to do. The style sheet prints it on one A4 page.

use super::{DomainData, certificate, events, hosts, parts, sentence};
use crate::chart::{Range, Timeline};
use crate::incidents::{IncidentLine, WorstDay};
use crate::judge::Mark;
use crate::layout::{Answer, Frame, Section, html};
use crate::state::Dashboard;
use crate::text;
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use jiff::Timestamp;
use receiver::rollout::guard::Alert;
use serde::Deserialize;
use std::sync::Arc;

/// The maximum number of journal entries on the page.
const JOURNAL_ROWS: u32 = 5;
/// The maximum number of failures on the page.
const MAX_FAILURES: usize = 3;

/// The number of days that the page is about.
#[derive(Debug, Default, Deserialize)]
pub struct SheetQuery {
    #[serde(default)]
    pub days: Range,
}

/// A failure in one line.
struct Failure {
    what: String,
    share: String,
}

#[derive(Template)]
#[template(path = "manager.html")]
struct Page {
    frame: Frame,
    now: Timestamp,
    name: String,
    unicode: String,
    mark: Mark,
    sentence: String,
    /// The answer to "since when are we safe?".
    since: String,
    parts: Vec<super::Part>,
    sessions: String,
    failed: Option<String>,
    senders: u64,
    range: Range,
    /// The first and the last day of the range.
    period: String,
    worst: Option<WorstDay>,
    incidents: Vec<IncidentLine>,
    /// The failures that still happen.
    failures: Vec<Failure>,
    chart: Option<String>,
    bound: String,
    next: String,
    journal: Vec<(Timestamp, String)>,
}

pub async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Query(query): Query<SheetQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let spec = context.find(&operations::world::domain(&name)?)?;
    let now = context.world.clock.now();
    let range = query.days;
    let facts = DomainData::load(&context, &spec, range, now).await?;
    let bound = context.config.thresholds.failure_rate;
    let judged = facts.judged(&context, &spec, now);
    let hosts = hosts(&facts, &context.store, now).await?;
    let alerts: Vec<&Alert> = facts.alerts.iter().map(|(_, alert)| alert).collect();
    let around = super::PartsContext {
        spec: &spec,
        alerts: &alerts,
        hosts: &hosts,
        certificate: certificate(&context, &spec).await?,
        now,
    };
    let parts = parts(&facts, &around);
    let name = spec.name.to_string();
    let journal = context.store.journal_page(Some(&name), i64::MAX, JOURNAL_ROWS).await?;
    let (sessions, failed) = facts.sessions();
    let current = facts.current_failures(now);
    let failures: Vec<Failure> = current
        .take(MAX_FAILURES)
        .map(|group| Failure {
            what: match group.host.as_str() {
                "" => group.result_type.clone(),
                host => format!("{} at {host}", group.result_type),
            },
            share: text::percent(group.sessions, sessions).unwrap_or_default(),
        })
        .collect();
    let events = events(&journal);
    html(&Page {
        frame: Frame::new(format!("Report on {}", text::unicode(&name)), Section::Domains, &visitor),
        now,
        unicode: text::unicode(&name),
        mark: judged.need.mark(facts.rollout.mode.map(|known| known.mode)),
        sentence: sentence(&facts, now),
        since: match super::rollout::enforced_since(&facts) {
            Some(since) => text::date(&since),
            None => "not enforced yet".to_owned(),
        },
        parts,
        sessions: text::count(sessions),
        failed: text::percent(failed, sessions),
        senders: facts.senders.iter().filter(|sender| sender.counts).count() as u64,
        range,
        period: range.period(now),
        worst: facts.worst_day(),
        incidents: facts.incidents(bound),
        failures,
        chart: Timeline { days: &facts.days, events: &events, bound, range, now }.draw(),
        bound: text::bound(bound),
        next: judged.next.to_string(),
        journal: events,
        name,
    })
}
