//! The role `[admin]`: an HTTP API with JSON for control panels and scripts, described in docs/api.md. It can do what the commands
//! can, by the same functions.
//!
//! `routes` is the table of requests: the router, the OpenAPI document (`openapi`, with `schemas.json`) and the table in
//! docs/api.md are made from it. A request gets an ID, is authenticated by its token (`tokens`), which decides the tenant, and
//! reaches its handler if the token has the scope of its route (`scope`). Errors are `problem`s. The handlers are in `domains`,
//! `bulk` (many domains at once), `rollout` (status, plan and decisions), `applying` (operations that carry out plans), `lists`
//! (reports, alerts, journal) and `checks`; `places` bounds what takes long.

mod applying;
mod bulk;
mod checks;
mod domains;
mod lists;
mod openapi;
mod places;
mod problem;
mod rollout;
mod routes;
mod scope;
#[cfg(test)]
mod tests;
mod tokens;

pub use openapi::{document, table};
pub use scope::{Scope, Scopes};
pub use tokens::{Ends as TokenEnds, MAX_DAYS, create as create_token, shown as shown_token};

use crate::client_addr::ClientAddr;
use applying::Operations;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use config::AdminConfig;
use config::failure::Failure;
use formats::DomainName;
use formats::limits::{API_CHECKS, API_CHECKS_OF_TENANT, API_WORK, API_WORK_OF_TENANT, FORM_BYTES};
use jiff::Timestamp;
use net::random::random_id;
use operations::RolloutContext;
use operations::tenants::TenantList;
use places::Places;
use problem::{Problem, ProblemType, with_request_id};
use receiver::domain::DomainSpec;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use store::{Store, Tenant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The header with the ID of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The maximum length of a path in the log.
const LOGGED_PATH_CHARS: usize = 300;

/// The state that all requests share.
struct Api {
    /// The context of the first tenant, without its domains.
    base: RolloutContext,
    tenants: TenantList,
    /// The domains of the configuration file.
    file_domains: Vec<DomainSpec>,
    /// The SHA-256 digest of the token in `admin.token_file`.
    file_token: Option<[u8; 32]>,
    operations: Operations,
    work: Places,
    checks: Places,
}

/// Who sent a request.
#[derive(Debug, Clone)]
struct Caller {
    /// The tenant of the token.
    tenant: Tenant,
    scopes: Scopes,
    /// The actor in the journal: `api`, or `api:NAME` with the name of the token.
    who: String,
    /// When the token expires; `None` if it does not.
    expires_at: Option<Timestamp>,
}

/// The server's part in work that goes on after its request.
#[derive(Clone, Default)]
pub struct Background {
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// The tasks that the server waits for when it stops.
    pub tasks: TaskTracker,
}

impl Api {
    /// The store of the caller's tenant.
    fn store(&self, caller: &Caller) -> Store {
        self.base.store.of_tenant(caller.tenant)
    }

    /// The context of a domain of the caller's tenant.
    async fn find(
        &self,
        caller: &Caller,
        name: &DomainName,
    ) -> Result<(RolloutContext, DomainSpec), Problem> {
        self.base.for_domain(caller.tenant, name).await?.ok_or_else(|| unknown_domain(name))
    }
}

/// The router of the API.
///
/// # Errors
///
/// If the token file can't be read, or its token has fewer than 24 characters.
pub fn router(
    config: &AdminConfig,
    mut context: RolloutContext,
    background: Background,
) -> Result<Router, Failure> {
    context.known = Vec::new();
    let api = Arc::new(Api {
        file_token: config.token_file.as_deref().map(tokens::of_file).transpose()?,
        file_domains: std::mem::take(&mut context.config.domains),
        tenants: TenantList::new(&context.store),
        base: context,
        operations: Operations::new(background),
        work: Places::new(API_WORK, API_WORK_OF_TENANT),
        checks: Places::new(API_CHECKS, API_CHECKS_OF_TENANT),
    });
    let mut router = Router::new();
    for route in routes::ROUTES {
        let scope = route.scope;
        let check = from_fn(move |request: Request, next: Next| require(scope, request, next));
        router = router.route(route.path, (route.handler)().route_layer(check));
    }
    let router = router
        .fallback(|| async {
            let why = "the interface has no such path";
            Problem::new(ProblemType::UnknownPath, "unknown path", why, "See docs/api.md.")
        })
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(from_fn_with_state(api.clone(), enter))
        .with_state(api);
    Ok(router)
}

/// Gives the request an ID, authenticates it, and logs it.
async fn enter(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let id = random_id().unwrap_or_default();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let client = request.extensions().get::<ClientAddr>().copied();
    let (who, response) = match tokens::authenticate(&api, request.headers(), client).await {
        Ok(caller) => {
            let who = Some((caller.who.clone(), caller.tenant));
            request.extensions_mut().insert(caller);
            (who, next.run(request).await)
        }
        Err(problem) => (None, problem.into_response()),
    };
    if let Some((who, tenant)) = who {
        log(&id, &who, tenant, &method, &path, response.status());
    }
    let mut response = with_request_id(response, &id).await;
    let status = response.status();
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
        headers.entry(RETRY_AFTER).or_insert(HeaderValue::from_static("5"));
    }
    response
}

/// Logs a request: changes and failures of the server always, other requests on the level `debug`.
fn log(request: &str, who: &str, tenant: Tenant, method: &Method, path: &str, status: StatusCode) {
    let path: String = path.chars().take(LOGGED_PATH_CHARS).collect();
    let status = status.as_u16();
    match (status, method) {
        (500.., _) => tracing::warn!(request, who, %tenant, %method, path, status, "API request failed"),
        (_, &Method::GET | &Method::HEAD) => {
            tracing::debug!(request, who, %tenant, %method, path, status, "API request");
        }
        _ => tracing::info!(request, who, %tenant, %method, path, status, "API request"),
    }
}

/// Answers 403 if the token does not have the scope of the route.
async fn require(scope: Option<Scope>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    match scope.filter(|scope| !caller.is_some_and(|caller| caller.scopes.has(*scope))) {
        None => next.run(request).await,
        Some(scope) => {
            tokens::scope_missing(scope, "the scopes of a token say what it may be used for").into_response()
        }
    }
}

/// An answer with a JSON body.
fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}

/// Parses a body; an empty one has the default of each member.
fn parse_body<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, Problem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| {
        let remedy = format!("Send a JSON object such as {example} (docs/api.md).");
        Problem::new(ProblemType::SettingsNotValid, "the body is not valid", error, remedy)
    })
}

/// The domain in a path.
fn domain(text: &str) -> Result<DomainName, Problem> {
    DomainName::parse(text).map_err(|error| {
        let what = format!("{text:?} is not a valid domain name");
        Problem::new(ProblemType::SettingsNotValid, what, error, "Write it as example.org.")
    })
}

fn unknown_domain(name: &DomainName) -> Problem {
    let remedy = format!("Add it: PUT /v1/domains/{name}");
    let why = "neither the configuration nor the store has this domain";
    Problem::new(ProblemType::UnknownDomain, format!("unknown domain {name}"), why, remedy)
}

/// A trimmed reason, for the journal.
fn reason(text: &str) -> Result<&str, Problem> {
    let text = text.trim();
    match text.chars().count() {
        1..=500 => Ok(text),
        count => Err(Problem::new(
            ProblemType::SettingsNotValid,
            "the reason is not valid",
            format!(
                "it has {count} characters, and needs 1 to 500: the journal records why a decision was made"
            ),
            "Say why in the member \"reason\".",
        )),
    }
}

/// Lists continue after a cursor: the member `next` of the answer before.
fn page_limit(limit: Option<u32>) -> u32 {
    limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS)
}

/// The maximum number of entries in one answer.
const PAGE_ROWS: u32 = 1000;

async fn openapi_document(Extension(_): Extension<Caller>) -> Response {
    json_answer(StatusCode::OK, &document())
}
