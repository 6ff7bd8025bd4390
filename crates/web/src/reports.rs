//! The pages of received TLS reports: the list with its search, one report, and the quarantine of unreadable messages.

use crate::layout::{Answer, ErrorPage, Frame, NoticeQuery, Section, html};
use crate::state::Dashboard;
use crate::tables::{Format, export};
use crate::visitor::Visitor;
use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::IntoResponse;
use operations::opened_report::{OpenedReport, open_report};
use serde::Deserialize;
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
    #[serde(default)]
    format: Format,
}

/// Reports per page.
const PAGE_ROWS: u32 = 50;
/// Reports per CSV or JSON export.
const MAX_EXPORT_ROWS: u32 = 10_000;

#[derive(Template)]
#[template(path = "reports.html")]
struct ListPage {
    frame: Frame,
    /// Each report, and whether it is about a known domain.
    rows: Vec<(ListedReport, bool)>,
    domain: String,
    submitter: String,
    failed: bool,
    /// The link to older reports.
    older: Option<String>,
    all: u64,
    quarantined: u64,
    /// Whether DMARC reports are imported.
    dmarc: bool,
}

pub async fn list(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(notice): NoticeQuery,
    Query(query): Query<ReportsQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let text = |text: &str| Some(text.trim().to_ascii_lowercase()).filter(|text| !text.is_empty());
    let limit = if query.format == Format::Html { PAGE_ROWS } else { MAX_EXPORT_ROWS };
    let search = Search {
        domain: text(&query.domain),
        submitter: text(&query.submitter),
        failed: !query.failed.is_empty(),
        before: query.before,
        most: limit,
    };
    let found = context.store.reports(&search).await?;
    if let Some(answer) = export(query.format, "reports", &found) {
        return answer;
    }
    let is_full = found.len() == limit as usize;
    let older = found.last().filter(|_| is_full).map(|last| {
        let failed = if search.failed { "&failed=on" } else { "" };
        let safe = |text: &Option<String>| -> String {
            text.iter().flat_map(|text| text.bytes()).map(|byte| format!("%{byte:02X}")).collect()
        };
        format!(
            "/reports?domain={}&submitter={}{failed}&before={}",
            safe(&search.domain),
            safe(&search.submitter),
            last.id
        )
    });
    let is_ours = |report: &ListedReport| {
        report.domains.iter().any(|domain| context.known.iter().any(|spec| spec.name.as_str() == domain))
    };
    let mut frame = Frame::new("Reports", Section::Reports, &visitor);
    frame.notice = notice.said;
    html(&ListPage {
        frame,
        domain: query.domain,
        submitter: query.submitter,
        failed: search.failed,
        older,
        all: context.store.report_count().await?,
        quarantined: context.store.quarantine_usage().await?.items,
        dmarc: context.config.inbox.as_ref().is_some_and(|inbox| inbox.dmarc),
        rows: found
            .into_iter()
            .map(|report| (is_ours(&report), report))
            .map(|(ours, report)| (report, ours))
            .collect(),
    })
}

#[derive(Template)]
#[template(path = "report.html")]
struct OnePage {
    frame: Frame,
    report: OpenedReport,
}

pub async fn one(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<i64>,
) -> Answer {
    let report = find(&dashboard, id).await?;
    html(&OnePage { frame: Frame::new(format!("Report {id}"), Section::Reports, &visitor), report })
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
    rows: Vec<Quarantined>,
    usage: QuarantineUsage,
    /// The quota in MiB.
    limit: u64,
}

impl QuarantinePage {
    fn mebibytes(&self) -> String {
        format!("{:.1}", self.usage.bytes as f64 / f64::from(1 << 20))
    }
}

pub async fn quarantine(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Query(notice): NoticeQuery,
    Query(query): Query<ReportsQuery>,
) -> Answer {
    let context = dashboard.context().await?;
    let rows = context.store.quarantined(0, 1000).await?;
    let usage = context.store.quarantine_usage().await?;
    let limit = context.config.retention().quarantine.bytes >> 20;
    if let Some(answer) = export(query.format, "quarantine", &rows) {
        return answer;
    }
    let mut frame = Frame::new("Quarantine", Section::Reports, &visitor);
    frame.notice = notice.said;
    html(&QuarantinePage { frame, rows, usage, limit })
}

/// One entry of the quarantine, as a download. It may be somebody's mail, so that only operators may read it.
pub async fn quarantined(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<i64>,
) -> Answer {
    if !visitor.is_operator() {
        let what = "Quarantined input may be somebody's mail. Only operators may read it.";
        return Err(ErrorPage::new(StatusCode::FORBIDDEN, what));
    }
    let bytes = dashboard.context().await?.store.quarantined_bytes(id).await?;
    let bytes =
        bytes.ok_or_else(|| ErrorPage::not_found(format!("Quarantine entry {id} does not exist.")))?;
    let file = (CONTENT_DISPOSITION, format!("attachment; filename=\"quarantine-{id}\""));
    Ok(([(CONTENT_TYPE, "application/octet-stream".to_owned()), file], bytes).into_response())
}
