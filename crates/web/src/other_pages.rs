//! The other pages: senders, journal, the sending side, settings.

use crate::chart::strips_since;
use crate::domain::drawn;
use crate::layout::NoticeQuery;
use crate::layout::{Answer, Frame, Section, html};
use crate::state::Dashboard;
use crate::tables::{Format, other};
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use formats::DomainName;
use formats::report::{DateRange, FailureDetail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::outgoing::{DeliveryState as Stands, Outgoing, OutgoingFilter};
use store::policies::StoredPolicy;
use store::reports::SenderSum;
use store::rollouts::JournalLine;

/// What to show.
#[derive(Debug, Default, Deserialize)]
pub struct JournalQuery {
    #[serde(default)]
    format: Format,
    before: Option<i64>,
    #[serde(default)]
    after: String,
    /// `days` for the days of senders.
    #[serde(default)]
    table: String,
}

#[derive(Template)]
#[template(path = "senders.html")]
struct SendersPage {
    frame: Frame,
    /// With their trends, empty where none is drawn.
    rows: Vec<(SenderSum, String)>,
}

impl SendersPage {
    fn day(&self, day: &Timestamp) -> String {
        day.strftime("%Y-%m-%d").to_string()
    }
}

pub async fn senders(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(wish): Query<JournalQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let days = context.store.all_senders_by_day(strips_since(now)).await?;
    if wish.table == "days"
        && let Some(answer) = other(wish.format, "sender-days", &days)
    {
        return answer;
    }
    let rows = context.store.senders(strips_since(now)).await?;
    if let Some(answer) = other(wish.format, "senders", &rows) {
        return answer;
    }
    html(&SendersPage {
        frame: Frame::new("Senders", Section::Senders, &visitor),
        rows: drawn(rows, &days, now),
    })
}

#[derive(Template)]
#[template(path = "journal.html")]
struct JournalPage {
    frame: Frame,
    rows: Vec<JournalLine>,
    older: Option<i64>,
}

/// Lines on a page, and in a file.
const PAGE_ROWS: u32 = 100;
const MAX_EXPORT_ROWS: u32 = 100_000;

pub async fn journal(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(wish): Query<JournalQuery>,
) -> Answer {
    let most = if wish.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let context = dashboard.context().await?;
    let rows = context.store.journal_of_all(wish.before.unwrap_or(i64::MAX), most).await?;
    if let Some(answer) = other(wish.format, "journal", &rows) {
        return answer;
    }
    let older = rows.last().filter(|_| rows.len() == most as usize).map(|last| last.id);
    html(&JournalPage { frame: Frame::new("Journal", Section::Journal, &visitor), rows, older })
}

/// A policy that mail is sent under.
#[derive(Serialize)]
struct InUse {
    domain: String,
    mode: String,
    id: String,
    fetched_at: Timestamp,
    expires_at: Timestamp,
}

impl From<StoredPolicy> for InUse {
    fn from(policy: StoredPolicy) -> Self {
        Self {
            domain: policy.domain.to_string(),
            mode: policy.mode.to_string(),
            id: policy.record_id.to_string(),
            fetched_at: policy.fetched_at,
            expires_at: policy.expires_at,
        }
    }
}

/// A destination that failed today.
struct Failed {
    domain: String,
    host: String,
    result: String,
    sessions: u64,
}

#[derive(Template)]
#[template(path = "sending.html")]
struct SendingPage {
    frame: Frame,
    is_on: bool,
    counts: Vec<(&'static str, u64)>,
    rows: Vec<InUse>,
    after: Option<String>,
    failed: Vec<Failed>,
    /// Sessions of today that worked, and that did not.
    today: (u64, u64),
    reports_are_on: bool,
    reports: Vec<OwnReport>,
}

/// A report of ours to another domain.
struct OwnReport {
    day: String,
    domain: String,
    successful: u64,
    failed: u64,
    state: &'static str,
    said: String,
}

impl From<Outgoing> for OwnReport {
    fn from(report: Outgoing) -> Self {
        let waits = || format!("{}; the next try is at {}", report.said, report.due);
        Self {
            day: report.day.strftime("%Y-%m-%d").to_string(),
            domain: report.domain.to_string(),
            successful: report.successful,
            failed: report.failed,
            state: match report.state {
                Stands::Waiting => "waiting",
                Stands::Sent => "sent",
                Stands::Unwanted => "unwanted",
                Stands::GivenUp => "given up",
            },
            said: if report.state == Stands::Waiting && report.tries > 0 {
                waits()
            } else {
                report.said.clone()
            },
        }
    }
}

pub async fn sending(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(wish): Query<JournalQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let most = if wish.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let found = context.store.policies_after(&wish.after, most).await?;
    let rows: Vec<InUse> = found.into_iter().map(InUse::from).collect();
    if let Some(answer) = other(wish.format, "policies", &rows) {
        return answer;
    }
    let counts = context.store.count_policies(now).await?;
    let today = DateRange::utc_day(now).start;
    let newest = OutgoingFilter { most: PAGE_ROWS, ..OutgoingFilter::default() };
    let after = rows.last().filter(|_| rows.len() == most as usize).map(|last| last.domain.clone());
    html(&SendingPage {
        frame: Frame::new("Sending", Section::Sending, &visitor),
        is_on: context.config.answers.is_some(),
        counts: vec![("enforce", counts.enforce), ("testing", counts.testing), ("none", counts.none)],
        rows,
        after,
        failed: failed_today(context.store.tallied_failures(today, 100).await?),
        today: context.store.tally_sums(today).await?,
        reports_are_on: context.config.reporter.is_some(),
        reports: context.store.outgoing(&newest).await?.into_iter().map(OwnReport::from).collect(),
    })
}

fn failed_today(tallied: Vec<(DomainName, FailureDetail)>) -> Vec<Failed> {
    let one = |(domain, detail): (DomainName, FailureDetail)| Failed {
        domain: domain.to_string(),
        host: detail.receiving_mx_hostname.unwrap_or_default(),
        result: detail.result_type.to_string(),
        sessions: detail.failed_session_count,
    };
    tallied.into_iter().map(one).collect()
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    people: Vec<(String, String)>,
    config: String,
    link: Option<String>,
}

pub async fn settings(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(said): NoticeQuery,
) -> Answer {
    settings_page(&dashboard, &visitor, said.said, None).await
}

/// The page, with the link of an invitation that was just made.
pub async fn settings_page(
    dashboard: &Dashboard,
    visitor: &Visitor,
    said: String,
    link: Option<String>,
) -> Answer {
    let context = dashboard.context().await?;
    let people = context.store.people().await?;
    let mut frame = Frame::new("Settings", Section::Settings, visitor);
    frame.said = said;
    html(&SettingsPage {
        frame,
        people: people.into_iter().map(|person| (person.name, person.role)).collect(),
        config: context.config.to_toml(),
        link,
    })
}
