//! The monitoring interface (`[metrics]`): metrics in the OpenMetrics format, liveness and readiness probes, and a
//! status page.

use super::received_metrics::ReceivedMetrics;
use super::resolver_watch::ResolverStatus;
use super::tasks::TaskStatus;
use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sender::answer::PolicyService;
use sender::answer::decide::Source;
use std::sync::Arc;

/// The sources of the monitoring interface.
#[derive(Clone)]
pub struct Monitored {
    /// The policy service; `None` when the role `[answers]` is disabled.
    pub answers: Option<Arc<PolicyService>>,
    /// The metrics of the other roles.
    pub others: Arc<Registry>,
    /// The metrics of received reports.
    pub received: Arc<ReceivedMetrics>,
    /// The background tasks.
    pub tasks: Arc<TaskStatus>,
    /// The state of the resolver.
    pub resolver: Arc<ResolverStatus>,
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

/// The last line of OpenMetrics text. It may occur only once, so it is removed from the first part.
const METRICS_END: &str = "# EOF\n";

async fn metrics(State(watched): State<Monitored>) -> Response {
    let mut text = String::new();
    if let Some(answers) = &watched.answers {
        answers.metrics.set_cache(&answers.cache);
        text = answers.metrics.to_text();
        text.truncate(text.trim_end_matches(METRICS_END).len());
    }
    text.push_str(watched.received.to_text().await.trim_end_matches(METRICS_END));
    // Writing to a String does not fail.
    let _ = encode(&mut text, &watched.others);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Readiness: 200 while the store and the resolver work and every background task runs. Without the store or the resolver,
/// cached answers continue.
async fn ready(State(watched): State<Monitored>) -> Response {
    let mut problems = Vec::new();
    if watched.answers.is_some_and(|answers| answers.metrics.store_up.get() != 1) {
        problems.push("the store fails".to_owned());
    }
    problems.extend(watched.resolver.problem().map(str::to_owned));
    let down = watched.tasks.down();
    if !down.is_empty() {
        problems.push(format!("background tasks are down: {}", down.join(", ")));
    }
    if problems.is_empty() {
        return (StatusCode::OK, "ready\n").into_response();
    }
    let text = problems.iter().map(|problem| format!("{problem}; see the log\n")).collect::<String>();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
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
        Source::Failure => "a failed look-up",
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
