//! Requests that list what is stored about domains: received reports, active alerts and the journal. Lists begin with the newest
//! entry and continue after a cursor.

use super::problem::{Problem, ProblemType};
use super::{Api, Caller, domain, json_answer, page_limit};
use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use operations::opened_report::open_report;
use receiver::rollout::guard::{Alert, groups};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use store::reports::Search;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportsQuery {
    domain: Option<String>,
    submitter: Option<String>,
    #[serde(default)]
    failed: bool,
    after: Option<i64>,
    limit: Option<u32>,
}

pub async fn reports(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ReportsQuery>,
) -> Result<Response, Problem> {
    let name = query.domain.as_deref().map(domain).transpose()?;
    let limit = page_limit(query.limit);
    let search = Search {
        domain: name.map(|name| name.to_string()),
        submitter: query.submitter,
        failed: query.failed,
        before: query.after,
        most: limit,
    };
    let reports = api.store(&caller).reports(&search).await?;
    let next = reports.last().filter(|_| reports.len() == limit as usize).map(|last| last.id);
    Ok(json_answer(StatusCode::OK, &json!({ "schema": 1, "reports": reports, "next": next })))
}

pub async fn report(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let stored = api.store(&caller).report(id).await?.ok_or_else(|| {
        let remedy = "List the reports: GET /v1/reports";
        Problem::new(
            ProblemType::UnknownReport,
            format!("unknown report {id}"),
            "the store does not have it",
            remedy,
        )
    })?;
    let opened = open_report(stored)?;
    Ok(json_answer(StatusCode::OK, &json!(opened)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertsQuery {
    domain: Option<String>,
}

pub async fn alerts(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<AlertsQuery>,
) -> Result<Response, Problem> {
    let name = query.domain.as_deref().map(domain).transpose()?.map(|name| name.to_string());
    let active = api.store(&caller).alerts::<Alert>().await?;
    let mut all = groups(active.into_iter().map(|one| (one.domain, one.since, one.alert)));
    all.retain(|group| name.as_ref().is_none_or(|name| group.alert.domains.contains(name)));
    Ok(json_answer(StatusCode::OK, &json!({ "schema": 1, "alerts": all })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalQuery {
    domain: Option<String>,
    after: Option<i64>,
    limit: Option<u32>,
}

pub async fn journal(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<JournalQuery>,
) -> Result<Response, Problem> {
    let name = query.domain.as_deref().map(domain).transpose()?;
    let (limit, before) = (page_limit(query.limit), query.after.unwrap_or(i64::MAX));
    let entries =
        api.store(&caller).journal_page(name.as_ref().map(|name| name.as_str()), before, limit).await?;
    let next = entries.last().filter(|_| entries.len() == limit as usize).map(|last| last.id);
    Ok(json_answer(StatusCode::OK, &json!({ "schema": 1, "journal": entries, "next": next })))
}
