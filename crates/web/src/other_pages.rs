//! The pages for senders of reports, the journal, the sending side (cached policies, failed destinations, own reports)
//! and settings (users and the effective configuration).

use crate::chart::strips_since;
use crate::domain::with_charts;
use crate::layout::{Answer, Frame, NoticeQuery, Section, html};
use crate::state::Dashboard;
use crate::tables::{Format, export};
use crate::visitor::{CurrentSession, Visitor};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use formats::DomainName;
use formats::report::{DateRange, FailureDetail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::outgoing::{DeliveryState, Outgoing, OutgoingFilter};
use store::policies::{Fetched, StoredPolicy};
use store::reports::SenderSum;
use store::rollouts::JournalLine;

/// The query parameters of these pages.
#[derive(Debug, Default, Deserialize)]
pub struct TableQuery {
    #[serde(default)]
    format: Format,
    /// Journal: only entries with a smaller number.
    before: Option<i64>,
    /// Policies: only domains after this name.
    #[serde(default)]
    after: String,
    /// Senders: `days` exports the session counts per day.
    #[serde(default)]
    table: String,
}

#[derive(Template)]
#[template(path = "senders.html")]
struct SendersPage {
    frame: Frame,
    /// Each sender with its chart; empty if none is drawn.
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
    Query(query): Query<TableQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let days = context.store.all_senders_by_day(strips_since(now)).await?;
    if query.table == "days"
        && let Some(answer) = export(query.format, "sender-days", &days)
    {
        return answer;
    }
    let rows = context.store.senders(strips_since(now)).await?;
    if let Some(answer) = export(query.format, "senders", &rows) {
        return answer;
    }
    html(&SendersPage {
        frame: Frame::new("Senders", Section::Senders, &visitor),
        rows: with_charts(rows, &days, now),
    })
}

#[derive(Template)]
#[template(path = "journal.html")]
struct JournalPage {
    frame: Frame,
    rows: Vec<JournalLine>,
    /// The number before which older entries are found.
    older: Option<i64>,
}

/// Rows per page.
const PAGE_ROWS: u32 = 100;
/// Rows per CSV or JSON export.
const MAX_EXPORT_ROWS: u32 = 100_000;

pub async fn journal(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<TableQuery>,
) -> Answer {
    let limit = if query.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let context = dashboard.context().await?;
    let rows = context.store.journal_of_all(query.before.unwrap_or(i64::MAX), limit).await?;
    if let Some(answer) = export(query.format, "journal", &rows) {
        return answer;
    }
    let older = rows.last().filter(|_| rows.len() == limit as usize).map(|last| last.id);
    html(&JournalPage { frame: Frame::new("Journal", Section::Journal, &visitor), rows, older })
}

/// A cached policy of another domain.
#[derive(Serialize)]
struct CachedPolicy {
    domain: String,
    mode: String,
    id: String,
    fetched_at: Timestamp,
    expires_at: Timestamp,
}

impl From<StoredPolicy> for CachedPolicy {
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

/// Failed sessions of today with one MX host, by result type.
struct FailedDestination {
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
    /// The number of cached policies by mode.
    counts: Vec<(&'static str, u64)>,
    rows: Vec<CachedPolicy>,
    /// The last domain of this page, if there are more.
    after: Option<String>,
    failed: Vec<FailedDestination>,
    /// Successful and failed sessions of today.
    today: (u64, u64),
    reports_are_on: bool,
    reports: Vec<OwnReport>,
}

/// A TLS report of this server to another domain.
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
        let retry = || format!("{}; the next attempt is at {}", report.said, report.due);
        Self {
            day: report.day.strftime("%Y-%m-%d").to_string(),
            domain: report.domain.to_string(),
            successful: report.successful,
            failed: report.failed,
            state: match report.state {
                DeliveryState::Waiting => "waiting",
                DeliveryState::Sent => "sent",
                DeliveryState::Unwanted => "unwanted",
                DeliveryState::GivenUp => "given up",
            },
            said: if report.state == DeliveryState::Waiting && report.tries > 0 {
                retry()
            } else {
                report.said.clone()
            },
        }
    }
}

pub async fn sending(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<TableQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let limit = if query.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let found = context.store.policies_after(&query.after, limit).await?;
    let rows: Vec<CachedPolicy> = found.into_iter().map(CachedPolicy::from).collect();
    if let Some(answer) = export(query.format, "policies", &rows) {
        return answer;
    }
    let counts = context.store.count_policies(Fetched::at_any_time(now), Timestamp::MIN).await?;
    let today = DateRange::utc_day(now).start;
    let newest = OutgoingFilter { most: PAGE_ROWS, ..OutgoingFilter::default() };
    let after = rows.last().filter(|_| rows.len() == limit as usize).map(|last| last.domain.clone());
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

fn failed_today(tallied: Vec<(DomainName, FailureDetail)>) -> Vec<FailedDestination> {
    let one = |(domain, detail): (DomainName, FailureDetail)| FailedDestination {
        domain: domain.to_string(),
        host: detail.receiving_mx_hostname.unwrap_or_default(),
        result: detail.result_type.to_string(),
        sessions: detail.failed_session_count,
    };
    tallied.into_iter().map(one).collect()
}

/// A user as the settings show them.
struct UserRow {
    name: String,
    role: String,
    has_second_factor: bool,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    people: Vec<UserRow>,
    /// The invitations that were not used yet, for operators: name, role and end.
    invitations: Vec<(String, String, String)>,
    /// The effective configuration, for operators.
    config: Option<String>,
    /// The link of an invitation that was just created.
    link: Option<String>,
}

pub async fn settings(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Extension(session): Extension<CurrentSession>,
    Query(notice): NoticeQuery,
) -> Answer {
    settings_page(&dashboard, &visitor, &session, notice.said, None).await
}

/// The settings page, with the link of an invitation that was just created.
pub async fn settings_page(
    dashboard: &Dashboard,
    visitor: &Visitor,
    session: &CurrentSession,
    notice: String,
    link: Option<String>,
) -> Answer {
    let context = dashboard.context().await?;
    let people = context.store.people(session.tenant).await?;
    let with_second_factor = context.store.names_with_second_factor(session.tenant).await?;
    let invitations = match visitor.is_operator() {
        true => context.store.invitations(session.tenant, context.world.clock.now()).await?,
        false => Vec::new(),
    };
    let end = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let mut frame = Frame::new("Settings", Section::Settings, visitor);
    frame.notice = notice;
    html(&SettingsPage {
        frame,
        people: people
            .into_iter()
            .map(|person| UserRow {
                has_second_factor: with_second_factor.contains(&person.name),
                name: person.name,
                role: person.role,
            })
            .collect(),
        invitations: invitations.into_iter().map(|one| (one.name, one.role, end(one.expires_at))).collect(),
        // It names files and services, and URLs in it may contain secrets.
        config: visitor.is_operator().then(|| context.config.to_toml()),
        link,
    })
}
