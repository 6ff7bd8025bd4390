//! The role `[admin]`: domains of the store over HTTP, for a control panel or a script. Whoever knows the token may
//! change them; nothing is answered without it.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use config::AdminConfig;
use config::failure::{Exit, Failure};
use formats::DomainName;
use formats::limits::FORM_BYTES;
use operations::{Removal, RolloutContext, store_failure};
use receiver::domain::DomainSpec;
use receiver::publish::alias_lines;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Domains in one answer.
const PAGE_ROWS: u32 = 1000;
/// A token that can be guessed protects nothing.
const MIN_TOKEN_CHARS: usize = 24;
/// Who it is that changes something, for the journal.
const API_ACTOR: &str = "api";

struct Admin {
    context: RolloutContext,
    token: [u8; 32],
}

/// The router. Every request has to carry the token that the configured file holds.
///
/// # Errors
///
/// When that file can't be read, or its token is too short to protect anything.
pub fn router(config: &AdminConfig, context: RolloutContext) -> Result<Router, Failure> {
    let shown = config.token_file.display();
    let remedy = "Make one that only this program and yours can read:\n  (umask 077; openssl rand -hex 32 > admin.token)";
    let text = std::fs::read_to_string(&config.token_file)
        .map_err(|error| Failure::usage(format!("the token {shown} can't be read"), error, remedy))?;
    let token = text.trim();
    if token.len() < MIN_TOKEN_CHARS {
        let why = format!("it is shorter than {MIN_TOKEN_CHARS} characters");
        return Err(Failure::usage(format!("the token {shown} can't be used"), why, remedy));
    }
    let admin = Arc::new(Admin { context, token: Sha256::digest(token).into() });
    let router = Router::new()
        .route("/v1/domains", get(list))
        .route("/v1/domains/{name}", get(one).put(put).delete(remove))
        .fallback(|| async {
            failed(StatusCode::NOT_FOUND, "there is nothing here", "", "See docs/admin.md.")
        })
        .layer(from_fn_with_state(admin.clone(), only_with_token))
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .with_state(admin);
    Ok(router)
}

async fn only_with_token(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    match is_known(&admin, request.headers()) {
        true => next.run(request).await,
        false => {
            let remedy = "Send it as `Authorization: Bearer TOKEN`; [admin] names its file in token_file.";
            let refused = failed(StatusCode::UNAUTHORIZED, "the token is missing or wrong", "", remedy);
            ([(WWW_AUTHENTICATE, "Bearer")], refused).into_response()
        }
    }
}

/// Digests are compared, so that the time it takes tells nothing about the token.
fn is_known(admin: &Admin, headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    given.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer") && <[u8; 32]>::from(Sha256::digest(token.trim())) == admin.token
    })
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

async fn list(State(admin): State<Arc<Admin>>, Query(which): Query<Which>) -> Result<Response, ErrorPage> {
    let most = which.limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS);
    let after = which.after.to_ascii_lowercase();
    let in_file = admin.context.config.domains.iter().filter(|spec| *spec.name.as_str() > *after);
    let mut all: Vec<(bool, DomainSpec)> = in_file.map(|spec| (true, spec.clone())).collect();
    let kept: Vec<DomainSpec> = admin.context.store.domains_after(&after, most).await?;
    let is_all = kept.len() < most as usize;
    all.extend(kept.into_iter().map(|spec| (false, spec)));
    all.sort_by(|one, other| one.1.name.cmp(&other.1.name));
    let is_cut = !is_all || all.len() > most as usize;
    all.truncate(most as usize);
    let next = all.last().filter(|_| is_cut).map(|(_, spec)| spec.name.to_string());
    let domains: Vec<Value> =
        all.iter().map(|(in_file, spec)| json!({ "in_file": in_file, "wanted": spec })).collect();
    Ok(Json(json!({ "schema": 1, "domains": domains, "next": next })).into_response())
}

async fn one(State(admin): State<Arc<Admin>>, Path(name): Path<String>) -> Result<Response, ErrorPage> {
    let name = domain(&name)?;
    let spec = admin.context.known_domain(&name).await?.ok_or_else(|| unknown(&name))?;
    shown(&admin, &spec).await
}

async fn put(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, ErrorPage> {
    let name = domain(&name)?;
    let spec = wanted(&name, &body)?;
    let is_new = admin.context.known_domain(&name).await?.is_none();
    admin.context.keep(&spec, API_ACTOR).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, shown(&admin, &spec).await?).into_response())
}

#[derive(Deserialize)]
struct How {
    #[serde(default)]
    although_bound: bool,
}

async fn remove(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(how): Query<How>,
) -> Result<Response, ErrorPage> {
    let name = domain(&name)?;
    if admin.context.known_domain(&name).await?.is_none() {
        return Err(unknown(&name));
    }
    let removal = if how.although_bound { Removal::AlthoughBound } else { Removal::Free };
    admin.context.remove(&name, removal, API_ACTOR).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A domain as all answers show it.
async fn shown(admin: &Admin, spec: &DomainSpec) -> Result<Response, ErrorPage> {
    let rollout = admin.context.rollout(&spec.name).await?;
    let aliases = admin.context.wanted(spec).aliases().unwrap_or_default();
    Ok(Json(json!({
        "schema": 1,
        "in_file": admin.context.is_in_file(&spec.name),
        "wanted": spec,
        "mode": rollout.mode,
        "aliases": alias_lines(&aliases),
    }))
    .into_response())
}

/// What is wanted, whose name may be left out of the body.
fn wanted(name: &DomainName, body: &[u8]) -> Result<DomainSpec, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        let remedy = "Send an object with what differs from the defaults, such as {\"host\":\"self\",\"rua\":[\"mailto:tlsrpt@example.org\"]} (docs/admin.md).";
        Failure::usage(format!("what is wanted of {name} can't be read"), why, remedy)
    };
    let mut value: Value = serde_json::from_slice(body).map_err(|error| wrong(&error))?;
    let fields = value.as_object_mut().ok_or_else(|| wrong(&"it is no object"))?;
    let given = fields.entry("name").or_insert_with(|| name.to_string().into());
    if given.as_str().and_then(|text| DomainName::parse(text).ok()).as_ref() != Some(name) {
        return Err(wrong(&"its name is another one than in the path"));
    }
    serde_json::from_value(value).map_err(|error| wrong(&error))
}

fn domain(text: &str) -> Result<DomainName, Failure> {
    DomainName::parse(text).map_err(|error| {
        Failure::usage(format!("{text:?} is no domain name"), error, "Give it as example.org.")
    })
}

fn unknown(name: &DomainName) -> ErrorPage {
    let remedy = format!("Add it: PUT /v1/domains/{name}");
    let why = "neither the configuration nor the store has it";
    ErrorPage(
        Some(StatusCode::NOT_FOUND),
        Failure::usage(format!("{name} is not among the domains"), why, remedy),
    )
}

/// What went wrong, as the answer says it, with its status where the failure does not tell.
struct ErrorPage(Option<StatusCode>, Failure);

impl From<Failure> for ErrorPage {
    fn from(failure: Failure) -> Self {
        Self(None, failure)
    }
}

impl From<store::StoreError> for ErrorPage {
    fn from(error: store::StoreError) -> Self {
        Self(None, store_failure(&error))
    }
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let Self(status, failure) = self;
        let status = status.unwrap_or(match failure.exit {
            Exit::Usage => StatusCode::UNPROCESSABLE_ENTITY,
            Exit::Findings => StatusCode::CONFLICT,
            Exit::Fine | Exit::Unknown => StatusCode::SERVICE_UNAVAILABLE,
        });
        let (what, why, remedy) = failure.parts();
        failed(status, what, why, remedy)
    }
}

fn failed(status: StatusCode, what: &str, why: &str, remedy: &str) -> Response {
    let body = json!({ "schema": 1, "error": { "what": what, "why": why, "remedy": remedy } });
    (status, Json(body)).into_response()
}
