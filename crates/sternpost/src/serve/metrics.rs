//! The monitoring interface (`[metrics]`): metrics in the OpenMetrics format, liveness and readiness probes, and a
//! status page.

use super::readiness::Readiness;
use super::received_metrics::ReceivedMetrics;
use super::stored_metrics::StoredMetrics;
use askama::Template;
use axum::extract::{Query, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use net::metrics::Registry;
use prometheus_client::encoding::text::encode;
use sender::answer::PolicyService;
use sender::answer::decide::Source;
use serde::Deserialize;
use std::sync::Arc;

/// The sources of the monitoring interface.
#[derive(Clone)]
pub struct Monitored {
    /// The policy service; `None` when the role `[answers]` is disabled.
    pub answers: Option<Arc<PolicyService>>,
    /// The metrics that the roles count in memory.
    pub counted: Arc<Registry>,
    /// The metrics of received reports; `None` when the role `[inbox]` is disabled.
    pub received: Option<Arc<ReceivedMetrics>>,
    /// Metrics that are counted in the store.
    pub stored: Arc<StoredMetrics>,
    /// The state of the roles.
    pub readiness: Arc<Readiness>,
}

/// The routes of the monitoring interface.
pub fn pages(watched: Monitored) -> Router {
    Router::new()
        .route("/", get(status))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(watched)
}

/// The last line of OpenMetrics text. It may occur only once, so it is removed from all parts but the last.
const METRICS_END: &str = "# EOF\n";

async fn metrics(State(watched): State<Monitored>) -> Response {
    watched.readiness.update();
    let mut text = String::new();
    let mut add = |part: &str| text.push_str(part.trim_end_matches(METRICS_END));
    if let Some(answers) = &watched.answers {
        answers.metrics.set_cache(&answers.cache);
        add(&answers.metrics.to_text());
    }
    if let Some(received) = &watched.received {
        add(&received.to_text().await);
    }
    add(&watched.stored.to_text().await);
    // Writing to a String does not fail.
    let _ = encode(&mut text, &watched.counted);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

#[derive(Deserialize)]
struct ReadyQuery {
    /// The role to judge; all enabled roles if it is absent.
    role: Option<String>,
    /// The format of the response: `json` or `text`.
    format: Option<String>,
}

/// Readiness: 200 while every role, or the named one, is ready; 503 while one is not; 404 if it is not enabled.
async fn ready(
    State(watched): State<Monitored>,
    Query(query): Query<ReadyQuery>,
    headers: HeaderMap,
) -> Response {
    let Some(states) = watched.readiness.states(query.role.as_deref()) else {
        let text = format!("no such role is enabled; the enabled roles are: {}\n", watched.readiness.names());
        return (StatusCode::NOT_FOUND, text).into_response();
    };
    let status = if states.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_json =
        query.format.as_deref().map_or(accepts.contains("application/json"), |named| named == "json");
    match is_json {
        true => (status, Json(states)).into_response(),
        false => (status, states.in_words()).into_response(),
    }
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page {
    version: &'static str,
    store_works: bool,
    uptime: String,
    rows: Vec<(&'static str, u64)>,
    hits: u64,
    misses: u64,
    answers: usize,
    kib: u64,
    policies: Vec<(&'static str, i64)>,
    overdue: i64,
}

async fn status(State(watched): State<Monitored>) -> Response {
    let Some(answers) = watched.answers else {
        return "Sternpost is running without the role [answers]. Metrics are at /metrics.\n".into_response();
    };
    let metrics = &answers.metrics;
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        store_works: metrics.store_up.get() == 1,
        uptime: uptime(u64::from(answers.second())),
        rows: Source::ALL.iter().map(|source| (in_words(*source), metrics.answers_by(*source))).collect(),
        hits: metrics.hits(),
        misses: metrics.misses.get(),
        answers: answers.cache.len(),
        kib: answers.cache.bytes() >> 10,
        policies: metrics.policies(),
        overdue: metrics.overdue.get(),
    };
    match page.render() {
        Ok(page) => Html(page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn in_words(source: Source) -> &'static str {
    match source {
        Source::Dane => "DANE",
        Source::MtaSts => "an MTA-STS policy",
        Source::Override => "the configuration",
        Source::NoPolicy => "no policy",
        Source::Failure => "a failed lookup",
        Source::Test => "the test domain",
    }
}

fn uptime(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
