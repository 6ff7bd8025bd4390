//! The pages of received TLS reports: the list with its search, one report, and the quarantine of unreadable messages.

use crate::layout::{Answer, ErrorPage, Frame, NoticeQuery, Section, html};
use crate::state::Dashboard;
use crate::tables::{self, Format, export};
use crate::text;
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};
use operations::opened_report::{OpenedReport, open_report};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::reports::{ListedReport, QuarantineUsage, Quarantined, Search};

/// The search parameters.
#[derive(Debug, Default, Deserialize)]
pub struct ReportsQuery {
    #[serde(default)]
    domain: String,
    #[serde(default)]
    submitter: String,
    #[serde(default)]
    failed: String,
    /// Only reports with a smaller number, for the next page.
    before: Option<i64>,
    /// Only entries of the quarantine with a larger number, for the next page.
    #[serde(default)]
    after: i64,
    #[serde(default)]
    format: Format,
}

/// Reports per page.
const PAGE_ROWS: u32 = 30;
/// Entries of the quarantine per page.
const QUARANTINE_ROWS: u32 = 100;
/// Reports, or entries of the quarantine, per CSV or JSON export.
const MAX_EXPORT_ROWS: u32 = 10_000;

#[derive(Template)]
#[template(path = "reports.html")]
struct ListPage {
    frame: Frame,
    now: Timestamp,
    rows: Vec<ReportRow>,
    domain: String,
    submitter: String,
    failed: bool,
    /// The number before which older reports are found.
    older: Option<i64>,
    /// True if these are not the newest reports.
    is_older: bool,
    all: u64,
    /// Senders whose name contains what was searched, if there is no report of a sender with that name.
    similar: Vec<String>,
    quarantined: u64,
    /// Whether DMARC reports are imported.
    dmarc: bool,
    /// Whether the role `[inbox]` is on.
    has_inbox: bool,
}

/// A report in the list.
struct ReportRow {
    report: ListedReport,
    /// Successful and failed sessions of the report, in sum.
    sessions: u64,
    /// The domains that it is about, and whether each is a known one.
    domains: Vec<(String, bool)>,
    /// The share that failed; `None` without sessions.
    share: Option<String>,
    /// True if the share is above what the gate allows.
    is_above: bool,
}

/// Similar senders that are named.
const MAX_SIMILAR: usize = 5;

impl ListPage {
    fn is_filtered(&self) -> bool {
        !self.domain.is_empty() || !self.submitter.is_empty() || self.failed
    }

    /// What the list is limited to, in words.
    fn filters(&self) -> String {
        let mut parts = Vec::new();
        if !self.domain.is_empty() {
            parts.push(format!("about {}", text::unicode(&self.domain)));
        }
        if !self.submitter.is_empty() {
            parts.push(format!("from {}", text::unicode(&self.submitter)));
        }
        if self.failed {
            parts.push("with failed sessions".to_owned());
        }
        parts.join(", ")
    }

    /// The query of links that keep the search.
    fn search(&self) -> String {
        let failed = if self.failed { "&failed=on" } else { "" };
        format!("domain={}&submitter={}{failed}", text::query(&self.domain), text::query(&self.submitter))
    }
}

/// A name as reports have it: in lower case, with A-labels.
pub fn searched(typed: &str) -> Option<String> {
    let typed = typed.trim();
    let name = DomainName::parse(typed).map_or_else(|_| typed.to_lowercase(), |name| name.to_string());
    Some(name).filter(|name| !name.is_empty())
}

pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(notice): NoticeQuery,
    Query(query): Query<ReportsQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let limit = if query.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let search = Search {
        domain: searched(&query.domain),
        submitter: searched(&query.submitter),
        failed: !query.failed.is_empty(),
        before: query.before,
        most: limit,
    };
    let found = context.store.reports(&search).await?;
    if let Some(answer) = export(query.format, "reports", tables::REPORTS, &found) {
        return answer;
    }
    let is_full = found.len() == limit as usize;
    let older = found.last().filter(|_| is_full).map(|last| last.id);
    let now = context.world.clock.now();
    let similar = match &search.submitter {
        Some(wanted) if found.is_empty() => {
            let month = now.saturating_sub(SignedDuration::from_hours(24 * 30)).unwrap_or(now);
            let senders = context.store.senders(month).await?.into_iter().map(|sender| sender.submitter);
            senders.filter(|sender| sender.contains(wanted.as_str())).take(MAX_SIMILAR).collect()
        }
        _ => Vec::new(),
    };
    let named: BTreeSet<&str> =
        found.iter().flat_map(|report| report.domains.iter().map(String::as_str)).collect();
    let known = context.known.iter().map(|spec| spec.name.as_str());
    let ours: BTreeSet<String> = known.filter(|name| named.contains(name)).map(str::to_owned).collect();
    let bound = context.config.thresholds.failure_rate;
    let mut frame = Frame::new("Reports", Section::Reports, &visitor);
    frame.notice = notice.said;
    html(&ListPage {
        frame,
        now,
        domain: search.domain.unwrap_or_default(),
        submitter: search.submitter.unwrap_or_default(),
        failed: search.failed,
        older,
        is_older: search.before.is_some(),
        all: context.store.report_count().await?,
        similar,
        quarantined: context.store.quarantine_usage().await?.items,
        dmarc: context.config.inbox.as_ref().is_some_and(|inbox| inbox.dmarc),
        has_inbox: context.config.inbox.is_some(),
        rows: found.into_iter().map(|report| row(report, &ours, bound)).collect(),
    })
}

fn row(report: ListedReport, ours: &BTreeSet<String>, bound: f64) -> ReportRow {
    let all = report.successful.saturating_add(report.failed);
    let domains = report.domains.iter().filter(|name| !name.is_empty());
    ReportRow {
        domains: domains.map(|name| (name.clone(), ours.contains(name))).collect(),
        sessions: all,
        share: text::percent(report.failed, all),
        is_above: report.failed as f64 > bound * all as f64,
        report,
    }
}

#[derive(Template)]
#[template(path = "report.html")]
struct OnePage {
    frame: Frame,
    now: Timestamp,
    report: OpenedReport,
    /// The domains that it is about, and whether each is a known one.
    domains: Vec<(String, bool)>,
    share: Option<String>,
}

impl OnePage {
    /// The first day that the report covers, or both its first and its last one.
    fn period(&self) -> String {
        let (first, last) = (text::date(&self.report.listed.start), text::date(&self.report.listed.end));
        if first == last { first } else { format!("{first} to {last}") }
    }
}

pub async fn one(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<i64>,
) -> Answer {
    let report = find(&dashboard, id).await?;
    let context = dashboard.context().await?;
    let is_ours = |name: &str| context.known.iter().any(|spec| spec.name.as_str() == name);
    let listed = &report.listed;
    html(&OnePage {
        frame: Frame::new(format!("Report {id}"), Section::Reports, &visitor),
        now: context.world.clock.now(),
        domains: listed.domains.iter().map(|name| (name.clone(), is_ours(name))).collect(),
        share: text::percent(listed.failed, listed.successful.saturating_add(listed.failed)),
        report,
    })
}

async fn find(dashboard: &Dashboard, id: i64) -> Result<OpenedReport, ErrorPage> {
    let context = dashboard.context().await?;
    let stored = context.store.report(id).await?;
    Ok(open_report(stored.ok_or_else(|| ErrorPage::not_found(format!("Report {id} does not exist.")))?)?)
}

/// The JSON of a report, as received.
pub async fn raw(State(dashboard): State<Arc<Dashboard>>, Path(id): Path<i64>) -> Answer {
    let report = find(&dashboard, id).await?;
    // Plain text, so that no browser renders it.
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], report.text).into_response())
}

#[derive(Template)]
#[template(path = "quarantine.html")]
struct QuarantinePage {
    frame: Frame,
    now: Timestamp,
    rows: Vec<Quarantined>,
    /// The number of the last entry, if there may be more.
    next: Option<i64>,
    usage: QuarantineUsage,
    /// The quota of the quarantine in MiB.
    limit: u64,
}

impl QuarantinePage {
    /// The number of entries, with its verb.
    fn entries(&self) -> String {
        match self.usage.items {
            1 => "1 entry uses".to_owned(),
            more => format!("{} entries use", text::count(more)),
        }
    }

    fn mebibytes(&self) -> String {
        let used = self.usage.bytes as f64 / f64::from(1 << 20);
        if used < 0.1 { "less than 0.1".to_owned() } else { format!("{used:.1}") }
    }
}

pub async fn quarantine(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(notice): NoticeQuery,
    Query(query): Query<ReportsQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let most = if query.format == Format::Html { QUARANTINE_ROWS } else { MAX_EXPORT_ROWS };
    let rows = context.store.quarantined(query.after, most).await?;
    let usage = context.store.quarantine_usage().await?;
    let limit = context.config.retention().quarantine.bytes >> 20;
    if let Some(answer) = export(query.format, "quarantine", tables::QUARANTINE, &rows) {
        return answer;
    }
    let mut frame = Frame::new("Quarantine", Section::Reports, &visitor);
    frame.notice = notice.said;
    let next = rows.last().filter(|_| rows.len() == QUARANTINE_ROWS as usize).map(|row| row.id);
    html(&QuarantinePage { frame, now: context.world.clock.now(), rows, next, usage, limit })
}

/// One entry of the quarantine, as a download. It may be private mail, so only operators may read it.
pub async fn quarantined(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<i64>,
) -> Answer {
    if !visitor.is_operator() {
        let what = "Quarantined input may contain private mail. Only operators may read it.";
        return Err(ErrorPage::new(StatusCode::FORBIDDEN, what));
    }
    let bytes = dashboard.context().await?.store.quarantined_bytes(id).await?;
    let bytes =
        bytes.ok_or_else(|| ErrorPage::not_found(format!("Quarantine entry {id} does not exist.")))?;
    let file = (CONTENT_DISPOSITION, format!("attachment; filename=\"quarantine-{id}\""));
    Ok(([(CONTENT_TYPE, "application/octet-stream".to_owned()), file], bytes).into_response())
}
