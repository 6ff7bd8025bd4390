//! What is asked by HTTP: the policy of a domain, and through the control socket what is remembered.

use crate::view::Remembered;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use formats::Mode;
use formats::tls_policy::LookupKey;
use sender::answer::Answers;
use sender::answer::route::NextHop;
use std::sync::Arc;

/// Policies that are remembered.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    /// The version of this shape.
    pub schema: u32,
    /// Some of them, in the order of their names.
    pub policies: Vec<ListedPolicy>,
    /// True when there are more after the last.
    pub has_more: bool,
    /// Answers in memory.
    pub answers: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// One of them.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct ListedPolicy {
    /// Whose.
    pub domain: String,
    /// Its mode.
    pub mode: Mode,
    /// The `id` under which it was fetched.
    pub id: String,
    /// When it was fetched.
    pub fetched_at: String,
    /// When it ends.
    pub expires_at: String,
}

/// What was forgotten.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Purged {
    /// The version of this shape.
    pub schema: u32,
    /// The next hop.
    pub next_hop: String,
    /// True when there was something to forget.
    pub was_known: bool,
}

/// Policies in one list.
const MAX_PAGE_ROWS: u32 = 100_000;

/// What mail servers and scripts may ask.
pub fn policies(answers: Arc<Answers>) -> Router {
    Router::new().route("/v1/policy/{next_hop}", get(policy)).with_state(answers)
}

/// The same, and what only the operator may: list, forget, look again.
pub fn control(answers: Arc<Answers>) -> Router {
    Router::new()
        .route("/v1/cache", get(list))
        .route("/v1/refresh/{next_hop}", post(refresh))
        .route("/v1/policy/{next_hop}", delete(purge).get(policy))
        .with_state(answers)
}

fn refused(status: StatusCode, why: impl ToString) -> Response {
    (status, Json(serde_json::json!({ "schema": 1, "error": why.to_string() }))).into_response()
}

/// Takes a next hop as people and programs write it; says why it is none.
pub fn parse_next_hop(text: &str) -> Result<NextHop, String> {
    let key = LookupKey::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
    NextHop::of(key).ok_or_else(|| format!("{text:?} never has a policy: give a domain or [host]"))
}

fn next_hop(text: &str) -> Result<NextHop, Box<Response>> {
    parse_next_hop(text).map_err(|why| Box::new(refused(StatusCode::BAD_REQUEST, why)))
}

async fn policy(State(answers): State<Arc<Answers>>, Path(text): Path<String>) -> Response {
    let hop = match next_hop(&text) {
        Ok(hop) => hop,
        Err(refused) => return *refused,
    };
    let entry = answers.ask(&hop.to_string()).await;
    Json(Remembered::of(&answers, &hop, &entry).await).into_response()
}

async fn refresh(State(answers): State<Arc<Answers>>, Path(text): Path<String>) -> Response {
    let hop = match next_hop(&text) {
        Ok(hop) => hop,
        Err(refused) => return *refused,
    };
    match answers.refresh(hop.clone()).await {
        Some(entry) => Json(Remembered::of(&answers, &hop, &entry).await).into_response(),
        None => refused(StatusCode::SERVICE_UNAVAILABLE, "the program is ending"),
    }
}

async fn purge(State(answers): State<Arc<Answers>>, Path(text): Path<String>) -> Response {
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

async fn list(State(answers): State<Arc<Answers>>, Query(page): Query<Page>) -> Response {
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
