//! The HTTP interface of the role `[answers]` (docs/answers.md): the policy of a next hop for mail servers and scripts,
//! and the cache for the operator, which only the control socket offers. [`crate::control`] is its client.

use crate::view::Remembered;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use formats::policy_export::ExportedPolicy;
use formats::tls_policy::LookupKey;
use formats::{DomainName, Mode};
use sender::answer::PolicyService;
use sender::answer::route::NextHop;
use sender::answer::transfer::ImportOutcome;
use std::sync::Arc;

/// A page of the cached policies, in JSON.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The version of this JSON format.
    pub schema: u32,
    /// The policies of this page, ordered by domain.
    pub policies: Vec<ListedPolicy>,
    /// True when further policies follow.
    pub has_more: bool,
    /// Number of answers in the memory cache.
    pub answers: usize,
    /// Size of the memory cache in bytes.
    pub bytes: u64,
}

/// A cached policy in a [`Listed`] page.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct ListedPolicy {
    /// The policy domain.
    pub domain: String,
    /// The policy's mode.
    pub mode: Mode,
    /// The `id` of the `_mta-sts` record for which the policy was fetched.
    pub id: String,
    /// The time of the fetch, RFC 3339 in UTC.
    pub fetched_at: String,
    /// The time when the policy expires, RFC 3339 in UTC.
    pub expires_at: String,
}

/// The result of a purge, in JSON.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Purged {
    /// The version of this JSON format.
    pub schema: u32,
    /// The next hop that was purged.
    pub next_hop: String,
    /// True when an answer or a policy was cached.
    pub was_known: bool,
}

/// A page of `sternpost cache export`, in JSON.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Exported {
    /// The version of this JSON format.
    pub schema: u32,
    /// The lines of the file, without line ends ([`formats::policy_export`]).
    pub lines: Vec<String>,
    /// The domain after which the next page starts; `None` at the end.
    pub next: Option<DomainName>,
}

/// The outcomes of an import, in JSON.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Imported {
    /// The version of this JSON format.
    pub schema: u32,
    /// The outcome of each line of the request.
    pub outcomes: Vec<LineOutcome>,
}

/// The outcome of a line of an import.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineOutcome {
    /// The line is a policy, which was judged.
    Policy(ImportOutcome),
    /// The line is not a valid policy, for this reason.
    Invalid(String),
}

/// Policies in a page of an export. Each takes up to twice [`formats::limits::EXPORT_LINE_BYTES`] in JSON.
pub const EXPORT_PAGE_ROWS: u32 = 100;
/// Bytes of the largest request of an import.
pub const IMPORT_REQUEST_BYTES: usize = 8 << 20;

/// Maximum number of policies in a page.
const MAX_PAGE_ROWS: u32 = 100_000;

/// The routes for mail servers and scripts.
pub fn policies(answers: Arc<PolicyService>) -> Router {
    Router::new().route("/v1/policy/{next_hop}", get(policy)).with_state(answers)
}

/// The routes of the control socket: those of [`policies`], and list, refresh, purge, export and import.
pub fn control(answers: Arc<PolicyService>) -> Router {
    Router::new()
        .route("/v1/cache", get(list))
        .route("/v1/cache/export", get(export))
        .route("/v1/cache/import", post(import).layer(DefaultBodyLimit::max(IMPORT_REQUEST_BYTES)))
        .route("/v1/refresh/{next_hop}", post(refresh))
        .route("/v1/policy/{next_hop}", delete(purge).get(policy))
        .with_state(answers)
}

fn refused(status: StatusCode, why: impl ToString) -> Response {
    (status, Json(serde_json::json!({ "schema": 1, "error": why.to_string() }))).into_response()
}

/// Parses a next hop: a domain or `[host]`. The error says why it is invalid, or that it never has a policy.
pub fn parse_next_hop(text: &str) -> Result<NextHop, String> {
    let key = LookupKey::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
    NextHop::of(key).ok_or_else(|| format!("{text:?} never has a policy: give a domain or [host]"))
}

fn next_hop(text: &str) -> Result<NextHop, Box<Response>> {
    parse_next_hop(text).map_err(|why| Box::new(refused(StatusCode::BAD_REQUEST, why)))
}

/// The name of the socketmap whose settings apply.
#[derive(serde::Deserialize)]
struct Map {
    #[serde(default)]
    map: String,
}

async fn policy(
    State(answers): State<Arc<PolicyService>>,
    Path(text): Path<String>,
    Query(Map { map }): Query<Map>,
) -> Response {
    let hop = match next_hop(&text) {
        Ok(hop) => hop,
        Err(refused) => return *refused,
    };
    let maps = answers.named_maps(None);
    let set = maps.as_deref().and_then(|maps| maps.select(&map)).map(|set| set.name);
    let entry = answers.ask_in(set, &hop.to_string()).await;
    Json(Remembered::of(&answers, &hop, &entry).await).into_response()
}

async fn refresh(State(answers): State<Arc<PolicyService>>, Path(text): Path<String>) -> Response {
    let hop = match next_hop(&text) {
        Ok(hop) => hop,
        Err(refused) => return *refused,
    };
    match answers.refresh(hop.clone()).await {
        Some(entry) => Json(Remembered::of(&answers, &hop, &entry).await).into_response(),
        None => refused(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"),
    }
}

async fn purge(State(answers): State<Arc<PolicyService>>, Path(text): Path<String>) -> Response {
    let hop = match next_hop(&text) {
        Ok(hop) => hop,
        Err(refused) => return *refused,
    };
    match answers.purge(&hop).await {
        Ok(was_known) => Json(Purged { schema: 1, next_hop: hop.to_string(), was_known }).into_response(),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

#[derive(serde::Deserialize)]
struct Page {
    #[serde(default)]
    after: String,
    most: u32,
}

async fn list(State(answers): State<Arc<PolicyService>>, Query(page): Query<Page>) -> Response {
    let most = page.most.min(MAX_PAGE_ROWS);
    let mut stored = match answers.store().policies_after(&page.after, most + 1).await {
        Ok(stored) => stored,
        Err(error) => return refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let has_more = stored.len() > most as usize;
    stored.truncate(most as usize);
    let policies = stored.into_iter().map(|policy| ListedPolicy {
        domain: policy.domain.to_string(),
        mode: policy.mode,
        id: policy.record_id.to_string(),
        fetched_at: policy.fetched_at.to_string(),
        expires_at: policy.expires_at.to_string(),
    });
    let (answers, bytes) = (answers.cache.len(), answers.cache.bytes());
    Json(Listed { schema: 1, policies: policies.collect(), has_more, answers, bytes }).into_response()
}

/// The place of a page of an export.
#[derive(serde::Deserialize)]
struct After {
    #[serde(default)]
    after: String,
}

async fn export(State(answers): State<Arc<PolicyService>>, Query(After { after }): Query<After>) -> Response {
    match answers.export(&after, EXPORT_PAGE_ROWS).await {
        Ok(page) => {
            let lines = page.policies.iter().map(ExportedPolicy::to_line).collect();
            Json(Exported { schema: 1, lines, next: page.next }).into_response()
        }
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

#[derive(serde::Deserialize)]
struct ImportMode {
    #[serde(default)]
    dry_run: bool,
}

/// Imports the lines of the body, which has at most [`IMPORT_REQUEST_BYTES`].
async fn import(
    State(answers): State<Arc<PolicyService>>,
    Query(ImportMode { dry_run }): Query<ImportMode>,
    body: Bytes,
) -> Response {
    let lines: Vec<_> = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let parsed: Vec<_> = lines.into_iter().map(ExportedPolicy::parse).collect();
    let valid: Vec<ExportedPolicy> = parsed.iter().flatten().cloned().collect();
    let mut outcomes = match answers.import(&valid, dry_run).await {
        Ok(outcomes) => outcomes.into_iter(),
        Err(error) => return refused(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let outcomes = parsed.iter().filter_map(|parsed| match parsed {
        Ok(_) => outcomes.next().map(LineOutcome::Policy),
        Err(error) => Some(LineOutcome::Invalid(error.to_string())),
    });
    Json(Imported { schema: 1, outcomes: outcomes.collect() }).into_response()
}
