//! The role `[admin]`: an HTTP API with JSON for control panels and scripts, described in docs/admin.md. It lists,
//! adds, changes and removes domains of the store. Every request must carry the bearer token of `admin.token_file`.

use crate::client_addr::ClientAddr;
use crate::counts::refused_token;
use axum::body::Bytes;
use axum::body::to_bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use config::failure::{Exit, Failure};
use config::{AdminConfig, Config};
use formats::DomainName;
use formats::limits::FORM_BYTES;
use operations::{Removal, RolloutContext, store_failure};
use receiver::domain::DomainSpec;
use receiver::publish::alias_lines;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The maximum number of domains in one response.
const PAGE_ROWS: u32 = 1000;
/// The minimum length of the token, in characters, against guessing.
const MIN_TOKEN_CHARS: usize = 24;
/// The actor that the journal names for changes made through the API.
const API_ACTOR: &str = "api";

struct Admin {
    context: RolloutContext,
    /// The SHA-256 digest of the token.
    token: [u8; 32],
}

/// The router of the API.
///
/// # Errors
///
/// If the token file can't be read, or its token has fewer than 24 characters.
pub fn router(config: &AdminConfig, context: RolloutContext) -> Result<Router, Failure> {
    let shown = config.token_file.display();
    let remedy = "Create a token file that only Sternpost and your control panel can read:\n  (umask 077; openssl rand -hex 32 > admin.token)";
    let text = std::fs::read_to_string(&config.token_file)
        .map_err(|error| Failure::usage(format!("the token file {shown} can't be read"), error, remedy))?;
    let token = text.trim();
    if token.len() < MIN_TOKEN_CHARS {
        let why = format!("the token is shorter than {MIN_TOKEN_CHARS} characters");
        return Err(Failure::usage(format!("the token file {shown} can't be used"), why, remedy));
    }
    let admin = Arc::new(Admin { context, token: Sha256::digest(token).into() });
    let router = Router::new()
        .route("/v1/domains", get(list))
        .route("/v1/domains/{name}", get(one).put(put).delete(remove))
        .fallback(|| async {
            let why = "the interface has no such path";
            failed(StatusCode::NOT_FOUND, "unknown path", why, "See docs/admin.md.")
        })
        .layer(from_fn_with_state(admin.clone(), require_token))
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(map_response(json_errors))
        .with_state(admin);
    Ok(router)
}

async fn require_token(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match has_token(&admin, request.headers()) {
        true => next.run(request).await,
        false => {
            let from = request.extensions().get::<ClientAddr>().and_then(|client| client.0);
            refused_token("admin", from);
            let remedy = "Send it as `Authorization: Bearer TOKEN`; admin.token_file names the file with it.";
            let why = "every request needs the token of the interface";
            let refused = failed(StatusCode::UNAUTHORIZED, "the token is missing or wrong", why, remedy);
            ([(WWW_AUTHENTICATE, "Bearer")], refused).into_response()
        }
    }
}

/// True if the request carries the token. Comparing digests keeps the timing independent of the token.
fn has_token(admin: &Admin, headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    given.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer") && <[u8; 32]>::from(Sha256::digest(token.trim())) == admin.token
    })
}

#[derive(Deserialize)]
struct ListQuery {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

async fn list(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ErrorResponse> {
    let limit = query.limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS);
    let after = query.after.to_ascii_lowercase();
    let in_file = admin.context.config.domains.iter().filter(|spec| *spec.name.as_str() > *after);
    let mut all: Vec<(String, Value)> =
        in_file.map(|spec| (spec.name.to_string(), json!({ "in_file": true, "wanted": spec }))).collect();
    let stored = admin.context.store.domains_after::<DomainSpec>(&after, limit).await?;
    let is_all = stored.len() < limit as usize;
    all.extend(stored.into_iter().map(|(name, spec)| {
        let shown = match spec {
            Ok(spec) => json!({ "in_file": false, "wanted": spec }),
            Err(error) => json!({ "in_file": false, "name": name, "damaged": error.to_string() }),
        };
        (name, shown)
    }));
    all.sort_by(|one, other| one.0.cmp(&other.0));
    let is_cut = !is_all || all.len() > limit as usize;
    all.truncate(limit as usize);
    let next = all.last().filter(|_| is_cut).map(|(name, _)| name.clone());
    let domains: Vec<Value> = all.into_iter().map(|(_, shown)| shown).collect();
    Ok(Json(json!({ "schema": 1, "domains": domains, "next": next })).into_response())
}

async fn one(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Response, ErrorResponse> {
    let name = domain(&name)?;
    let spec = admin.context.known_domain(&name).await?.ok_or_else(|| unknown(&name))?;
    respond(&admin, &spec).await
}

async fn put(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, ErrorResponse> {
    let name = domain(&name)?;
    admin.context.only_in_store(&name).map_err(conflict)?;
    let spec = parse_spec(&admin.context.config, &name, &body)?;
    let is_new = admin.context.known_domain(&name).await?.is_none();
    admin.context.keep(&spec, API_ACTOR).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, respond(&admin, &spec).await?).into_response())
}

#[derive(Deserialize)]
struct RemoveQuery {
    /// Removes the domain even if senders may still cache its policy.
    #[serde(default)]
    although_bound: bool,
}

async fn remove(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Result<Response, ErrorResponse> {
    let name = domain(&name)?;
    if admin.context.known_domain(&name).await?.is_none() {
        return Err(unknown(&name));
    }
    admin.context.only_in_store(&name).map_err(conflict)?;
    let removal = if query.although_bound { Removal::AlthoughBound } else { Removal::Free };
    admin.context.remove(&name, removal, API_ACTOR).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A domain as responses show it.
async fn respond(admin: &Admin, spec: &DomainSpec) -> Result<Response, ErrorResponse> {
    let rollout = admin.context.rollout(&spec.name).await?;
    let aliases = admin.context.delegated_names(spec);
    Ok(Json(json!({
        "schema": 1,
        "in_file": admin.context.is_in_file(&spec.name),
        "wanted": spec,
        "mode": rollout.mode,
        "aliases": alias_lines(&aliases),
    }))
    .into_response())
}

/// Parses the body of a PUT. What it does not say has the value of `[defaults]`. Its `name` may be omitted, and must otherwise match the path.
fn parse_spec(config: &Config, name: &DomainName, body: &[u8]) -> Result<DomainSpec, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        let remedy = "Send a JSON object with the settings that differ from the defaults, such as {\"host\":\"self\",\"rua\":[\"mailto:tlsrpt@example.org\"]} (docs/admin.md).";
        Failure::usage(format!("the settings for {name} are invalid"), why, remedy)
    };
    let mut value: Value = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
    let fields = value.as_object_mut().ok_or_else(|| wrong(&"the body is not a JSON object"))?;
    let given = fields.entry("name").or_insert_with(|| name.to_string().into());
    if given.as_str().and_then(|text| DomainName::parse(text).ok()).as_ref() != Some(name) {
        return Err(wrong(&"its name differs from the name in the path"));
    }
    config.add_defaults(fields);
    serde_json::from_value(value).map_err(|error| wrong(&error))
}

fn domain(text: &str) -> Result<DomainName, Failure> {
    DomainName::parse(text).map_err(|error| {
        Failure::usage(format!("{text:?} is not a valid domain name"), error, "Write it as example.org.")
    })
}

fn unknown(name: &DomainName) -> ErrorResponse {
    let remedy = format!("Add it: PUT /v1/domains/{name}");
    let why = "neither the configuration nor the store has this domain";
    ErrorResponse(Some(StatusCode::NOT_FOUND), Failure::usage(format!("unknown domain {name}"), why, remedy))
}

/// A request that is valid, and against the present state.
fn conflict(failure: Failure) -> ErrorResponse {
    ErrorResponse(Some(StatusCode::CONFLICT), failure)
}

/// The maximum length of an error text of the HTTP library.
const MAX_ERROR_BYTES: usize = 4096;

/// Turns the errors of the HTTP library, which are plain text or empty, into the documented form. Headers such as `Allow`
/// stay.
async fn json_errors(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let text = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let (what, remedy) = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            ("the path does not have this method", "The header Allow lists its methods.".to_owned())
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            ("the body is too large", format!("Send at most {} KiB.", FORM_BYTES / 1024))
        }
        _ => ("the request is not valid", "See docs/admin.md.".to_owned()),
    };
    let reason = status.canonical_reason().unwrap_or("the request failed").to_lowercase();
    let why = if text.trim().is_empty() { reason.as_str() } else { text.trim() };
    let (made, body) = failed(status, what, why, &remedy).into_parts();
    head.headers.remove(axum::http::header::CONTENT_LENGTH);
    head.headers.extend(made.headers);
    Response::from_parts(head, body)
}

/// An error response. Without a status, the failure's exit code determines it.
struct ErrorResponse(Option<StatusCode>, Failure);

impl From<Failure> for ErrorResponse {
    fn from(failure: Failure) -> Self {
        Self(None, failure)
    }
}

impl From<store::StoreError> for ErrorResponse {
    fn from(error: store::StoreError) -> Self {
        Self(None, store_failure(&error))
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let Self(status, failure) = self;
        let status = status.unwrap_or(match failure.exit {
            Exit::Usage => StatusCode::UNPROCESSABLE_ENTITY,
            Exit::Findings => StatusCode::CONFLICT,
            Exit::Fine | Exit::Unknown | Exit::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
        });
        let (what, why, remedy) = failure.parts();
        failed(status, what, why, remedy)
    }
}

fn failed(status: StatusCode, what: &str, why: &str, remedy: &str) -> Response {
    let body = json!({ "schema": 1, "error": { "what": what, "why": why, "remedy": remedy } });
    (status, Json(body)).into_response()
}
