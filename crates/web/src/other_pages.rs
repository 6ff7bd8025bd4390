//! The pages for senders of reports, the journal, the sending side (cached policies, failed destinations, own reports)
//! and settings (users and the effective configuration).

use crate::chart::strips_since;
use crate::effective_config::ConfigView;
use crate::judge::Mark;
use crate::layout::{Answer, ErrorPage, Frame, NoticeQuery, Section, html};
use crate::sender_rows::{SenderRow, sender_rows};
use crate::state::Dashboard;
use crate::tables::{self, Format, export};
use crate::text;
use crate::visitor::{CurrentSession, Visitor};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use formats::DomainName;
use formats::report::{DateRange, FailureDetail};
use jiff::Timestamp;
use operations::nodes::{NodeState, NodeView, nodes};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::outgoing::{DeliveryState, Outgoing, OutgoingFilter};
use store::policies::{Fetched, StoredPolicy};
use store::rollouts::JournalLine;

/// The query parameters of these pages.
#[derive(Debug, Default, Deserialize)]
pub struct TableQuery {
    #[serde(default)]
    format: Format,
    /// Journal: only entries with a smaller number.
    before: Option<i64>,
    /// Journal: only entries of this domain.
    #[serde(default)]
    domain: String,
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
    now: Timestamp,
    rows: Vec<SenderRow>,
    further: usize,
    bound: String,
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
        && let Some(answer) = export(query.format, "sender-days", tables::TRENDS, &days)
    {
        return answer;
    }
    let senders = context.store.senders(strips_since(now)).await?;
    if let Some(answer) = export(query.format, "senders", tables::SENDERS, &senders) {
        return answer;
    }
    let bound = context.config.thresholds.failure_rate;
    let (rows, further) = sender_rows(senders, &days, bound, now);
    let frame = Frame::new("Senders", Section::Senders, &visitor);
    html(&SendersPage { frame, now, rows, further, bound: text::bound(bound) })
}

#[derive(Template)]
#[template(path = "journal.html")]
struct JournalPage {
    frame: Frame,
    now: Timestamp,
    rows: Vec<JournalLine>,
    /// The domain that the entries are limited to; empty for all.
    domain: String,
    /// The number before which older entries are found.
    older: Option<i64>,
    /// True if these are not the newest entries.
    is_older: bool,
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
    let now = context.world.clock.now();
    let typed = query.domain.trim();
    let domain = DomainName::parse(typed).map_or_else(|_| typed.to_owned(), |name| name.to_string());
    let wanted = Some(domain.as_str()).filter(|domain| !domain.is_empty());
    let rows = context.store.journal_page(wanted, query.before.unwrap_or(i64::MAX), limit).await?;
    if let Some(answer) = export(query.format, "journal", tables::FULL_JOURNAL, &rows) {
        return answer;
    }
    let older = rows.last().filter(|_| rows.len() == limit as usize).map(|last| last.id);
    let is_older = query.before.is_some();
    html(&JournalPage {
        frame: Frame::new("Journal", Section::Journal, &visitor),
        now,
        rows,
        domain,
        older,
        is_older,
    })
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
    now: Timestamp,
    is_on: bool,
    /// The number of cached policies.
    cached: u64,
    /// The numbers of cached policies by mode, in words.
    modes: String,
    rows: Vec<CachedPolicy>,
    /// The last domain of this page, if there are more.
    after: Option<String>,
    failed: Vec<FailedDestination>,
    /// Successful and failed sessions of today.
    today: (u64, u64),
    /// Successful and failed sessions of today, in sum.
    sessions: u64,
    /// The share of today's sessions that failed; `None` without sessions.
    share: Option<String>,
    reports_are_on: bool,
    reports: Vec<OwnReport>,
}

/// A TLS report of this server to another domain.
struct OwnReport {
    day: String,
    domain: String,
    successful: u64,
    failed: u64,
    mark: Mark,
    said: String,
}

impl From<Outgoing> for OwnReport {
    fn from(report: Outgoing) -> Self {
        let retry =
            || format!("{}; the next attempt is at {} UTC", report.outcome_text, text::minute(&report.due));
        Self {
            day: text::date(&report.day),
            domain: report.domain.to_string(),
            successful: report.successful,
            failed: report.failed,
            mark: match report.state {
                DeliveryState::Waiting if report.tries > 0 => Mark("waiting", "! Retrying"),
                DeliveryState::Waiting => Mark("way", "· Waiting"),
                DeliveryState::Sent => Mark("fine", "✓ Sent"),
                DeliveryState::Unwanted => Mark("way", "· Not wanted"),
                DeliveryState::GivenUp => Mark("failing", "✗ Given up"),
            },
            said: if report.state == DeliveryState::Waiting && report.tries > 0 {
                retry()
            } else {
                report.outcome_text.clone()
            },
        }
    }
}

pub async fn sending(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(query): Query<TableQuery>,
) -> Answer {
    if !visitor.is_of_installation {
        return Err(ErrorPage::not_found("What is sent belongs to the whole installation."));
    }
    let context = dashboard.context().await?;
    let now = context.world.clock.now();
    let limit = if query.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let found = context.store.policies_after(&query.after, limit).await?;
    let rows: Vec<CachedPolicy> = found.into_iter().map(CachedPolicy::from).collect();
    if let Some(answer) = export(query.format, "policies", tables::POLICIES, &rows) {
        return answer;
    }
    let counts = context.store.count_policies(Fetched::at_any_time(now), Timestamp::MIN).await?;
    let today = DateRange::utc_day(now).start;
    let newest = OutgoingFilter { most: PAGE_ROWS, ..OutgoingFilter::default() };
    let after = rows.last().filter(|_| rows.len() == limit as usize).map(|last| last.domain.clone());
    let sums = context.store.tally_sums(today).await?;
    html(&SendingPage {
        frame: Frame::new("Sending", Section::Sending, &visitor),
        now,
        is_on: context.config.answers.is_some(),
        cached: counts.enforce.saturating_add(counts.testing).saturating_add(counts.none),
        modes: format!(
            "{} enforce, {} testing, {} none",
            text::count(counts.enforce),
            text::count(counts.testing),
            text::count(counts.none)
        ),
        rows,
        after,
        failed: failed_today(context.store.tallied_failures(today, 100).await?),
        today: sums,
        sessions: sums.0.saturating_add(sums.1),
        share: text::percent(sums.1, sums.0.saturating_add(sums.1)),
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
    /// The running servers, for operators.
    nodes: Vec<NodeView>,
    /// The effective configuration, for operators.
    config: Option<ConfigView>,
    /// The link of an invitation that was just created.
    link: Option<String>,
}

impl SettingsPage {
    /// True for the row of the signed-in user, who can't remove themselves.
    fn is_self(&self, person: &UserRow) -> bool {
        self.frame.visitor.as_ref().is_some_and(|visitor| visitor.name == person.name)
    }
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
    let is_of_installation = visitor.is_operator() && visitor.is_of_installation;
    let nodes = match is_of_installation {
        true => nodes(&context.store, context.world.clock.now()).await?,
        false => Vec::new(),
    };
    let end = |at: Timestamp| format!("{} UTC", text::minute(&at));
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
        nodes,
        // It names files and services, and URLs in it may contain secrets.
        config: is_of_installation.then(|| ConfigView::new(&context.config, context.known.len())),
        link,
    })
}
