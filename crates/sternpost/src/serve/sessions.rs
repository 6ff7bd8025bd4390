//! `POST /v1/sessions`: other mail servers, and collectors of other machines, submit their TLS sessions here
//! (docs/tlsrpt-sending.md). The other direction is [`RemoteCollector`], which posts the batches of this machine.
//!
//! With a token, every request must carry it, and each client gets a share of the requests. A request with an
//! `Idempotency-Key` is a batch: it counts once, however often it is sent.

use super::http::HttpsRouter;
use super::tasks::Tasks;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use config::CollectorConfig;
use config::failure::Failure;
use formats::limits::{BATCH_ID_BYTES, POSTED_BYTES, POSTED_TIME, POSTS_PER_MINUTE};
use formats::tlsrpt_record::HttpsUrl;
use net::BoxFuture;
use net::clock::Clock;
use net::https::{Bytes, Fetcher, FetcherConfig, IDEMPOTENCY_KEY};
use net::metrics::{self, Counters};
use net::rate_limit::RateLimiter;
use operations::world::World;
use sender::collect::{Collector, Handover, PostError};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Outage;
use store::handover::{CountSource, SpooledBatch};
use web::ClientAddr;

/// The minimum length of the token, in characters, against guessing.
const MIN_TOKEN_CHARS: usize = 24;

/// The HTTP service at `collector.http`, which receives TLS sessions.
#[derive(Clone)]
pub struct Sessions {
    https: HttpsRouter,
    has_token: bool,
    /// The counters of requests by status.
    pub requests: Counters,
}

/// How requests are authenticated and limited, and the collector that counts their sessions.
struct Endpoint {
    collector: Arc<Collector>,
    clock: Arc<dyn Clock>,
    /// The SHA-256 digest of the token; `None` if requests need none.
    token: Option<[u8; 32]>,
    /// The requests of each client, where they need a token.
    rate: RateLimiter,
    requests: Counters,
}

impl Sessions {
    /// Reads the token and the certificate.
    pub fn new(
        role: &CollectorConfig,
        collector: Arc<Collector>,
        world: &World,
        tasks: &mut Tasks,
    ) -> Result<Self, Failure> {
        let token = role.token_file.as_deref().map(token).transpose()?;
        let has_token = token.is_some();
        let requests = Counters::new(&metrics::SESSION_REQUESTS);
        let router = router(collector, world.clock.clone(), token.as_deref(), requests.clone());
        let files = role.certificate.as_ref();
        let https = HttpsRouter::new(router, files, role.behind_proxy, "collector-certificate", tasks)?;
        Ok(Self { https, has_token, requests })
    }

    /// True if requests need a token, so that others may reach the address.
    pub fn has_token(&self) -> bool {
        self.has_token
    }

    /// True if requests need a token and come over TLS, so that other hosts may connect.
    pub fn may_be_exposed(&self) -> bool {
        self.has_token && (self.https.is_behind_proxy() || !self.https.is_plain())
    }

    /// The HTTP service that answers the requests.
    pub fn https(&self) -> &HttpsRouter {
        &self.https
    }
}

/// The route of the collector.
fn router(
    collector: Arc<Collector>,
    clock: Arc<dyn Clock>,
    token: Option<&str>,
    requests: Counters,
) -> Router {
    let endpoint = Endpoint {
        collector,
        clock,
        token: token.map(|token| Sha256::digest(token).into()),
        rate: RateLimiter::new(POSTS_PER_MINUTE, Duration::from_secs(60)),
        requests,
    };
    Router::new().route("/v1/sessions", post(receive)).with_state(Arc::new(endpoint))
}

/// Reads the token of a token file.
pub fn token(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let remedy = "Create a token file that only Sternpost can read, and copy it to the other machine:\n  (umask 077; openssl rand -hex 32 > collector.token)";
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("the token file {shown} can't be read"), error, remedy))?;
    let token = text.trim();
    if token.len() < MIN_TOKEN_CHARS || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let why = format!(
            "the token has fewer than {MIN_TOKEN_CHARS} characters, or other characters than letters, digits and signs"
        );
        return Err(Failure::usage(format!("the token file {shown} can't be used"), why, remedy));
    }
    Ok(token.to_owned())
}

type Refused = (StatusCode, String);

fn refused(status: StatusCode, why: impl Into<String>) -> Refused {
    (status, why.into())
}

/// Stores posted sessions. 200 means that all are durable; on any other status none is stored.
async fn receive(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    let response = endpoint.take(request).await;
    let status = response.as_ref().map_or_else(|(status, _)| *status, Response::status);
    endpoint.requests.inc(&[status.as_str()]);
    match response {
        Ok(response) => response,
        Err((status, why)) => {
            let body = Json(serde_json::json!({ "schema": 1, "error": why }));
            match status {
                StatusCode::UNAUTHORIZED => (status, [(WWW_AUTHENTICATE, "Bearer")], body).into_response(),
                StatusCode::TOO_MANY_REQUESTS => (status, [(RETRY_AFTER, "60")], body).into_response(),
                _ => (status, body).into_response(),
            }
        }
    }
}

impl Endpoint {
    /// Checks the head of the request before its body is read.
    async fn take(&self, request: Request) -> Result<Response, Refused> {
        let (head, body) = request.into_parts();
        let from = head.extensions.get::<ClientAddr>().and_then(|client| client.0);
        if self.token.is_some() {
            let client = from.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
            if !self.rate.take(client, Instant::now()) {
                return Err(refused(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many requests; try again in a minute",
                ));
            }
        }
        if !self.has_token(&head.headers) {
            web::refused_token("collector", from);
            let why = "the token is missing or wrong: send it as `Authorization: Bearer TOKEN`";
            return Err(refused(StatusCode::UNAUTHORIZED, why));
        }
        // A web page in a local browser can post other content types without a CORS preflight, but not this one.
        let kind = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
            let why = "sessions must have Content-Type: application/json";
            return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        let id = batch_id(&head.headers)?;
        let body = read(body).await?;
        let posted = formats::posted::parse(&body)
            .map_err(|error| refused(StatusCode::BAD_REQUEST, error.to_string()))?;
        let answer = match id {
            Some(id) => {
                let source = CountSource::Batch { id, at: self.clock.now() };
                let taken = self.collector.post_once(posted, &source).await.map_err(not_stored)?;
                if taken.late > 0 {
                    tracing::warn!(
                        sessions = taken.late,
                        "sessions of another machine came after the reports of their day were built and are not counted"
                    );
                }
                serde_json::json!({ "schema": 1, "sessions": taken.sessions, "late": taken.late, "repeated": taken.is_repeated })
            }
            None => {
                let sessions = self.collector.post(posted).await.map_err(not_stored)?;
                serde_json::json!({ "schema": 1, "sessions": sessions })
            }
        };
        if let Some(failures) = OUTAGE.ends() {
            tracing::info!(failures, "posted sessions are stored again");
        }
        Ok(Json(answer).into_response())
    }

    /// True if the request carries the token. Comparing digests keeps the timing independent of the token.
    fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        given.and_then(|value| value.split_once(' ')).is_some_and(|(scheme, given)| {
            scheme.eq_ignore_ascii_case("bearer") && <[u8; 32]>::from(Sha256::digest(given.trim())) == *token
        })
    }
}

/// The identifier of a batch: a quoted string, or the text itself.
fn batch_id(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let id = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    match (1..=BATCH_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Some(id.to_owned())),
        false => {
            let why = format!("Idempotency-Key must have 1 to {BATCH_ID_BYTES} printable ASCII characters");
            Err(refused(StatusCode::BAD_REQUEST, why))
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Refused> {
    match tokio::time::timeout(POSTED_TIME, to_bytes(body, POSTED_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let why = format!("the request is incomplete, or longer than {POSTED_BYTES} bytes");
            Err(refused(StatusCode::PAYLOAD_TOO_LARGE, why))
        }
        Err(_) => Err(refused(StatusCode::REQUEST_TIMEOUT, "the request took too long")),
    }
}

/// Posted sessions that the store fails to keep. Machines repeat them.
static OUTAGE: Outage = Outage::new();

fn not_stored(error: PostError) -> Refused {
    match error {
        PostError::Session { .. } => refused(StatusCode::BAD_REQUEST, error.to_string()),
        // One of the two clocks is wrong, so a retry may succeed.
        PostError::Full | PostError::Future { .. } => {
            refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        PostError::Store(error) => {
            if OUTAGE.is_news(&error) {
                tracing::error!("posted sessions can't be stored: {error}");
            }
            refused(StatusCode::SERVICE_UNAVAILABLE, "the store fails; try again later")
        }
    }
}

/// The collector of another machine, which counts the sessions of this one.
pub struct RemoteCollector {
    fetcher: Fetcher,
    url: HttpsUrl,
    token: String,
}

impl RemoteCollector {
    /// The operator chose the machine, so it may have a private address; its certificate is always verified.
    pub fn new(url: &HttpsUrl, token_file: &Path, world: &World) -> Result<Self, Failure> {
        let mut config = FetcherConfig::new(world.trust.clone());
        config.allow_special_addresses = true;
        let fetcher = Fetcher::new(config, world.addresses.clone(), world.clock.clone())
            .map_err(|error| Failure::new("TLS can't be set up", error, ""))?;
        Ok(Self { fetcher, url: url.clone(), token: token(token_file)? })
    }
}

impl Handover for RemoteCollector {
    fn hand_over<'a>(&'a self, batch: &'a SpooledBatch) -> BoxFuture<'a, Result<u16, String>> {
        let posted =
            self.fetcher.post_batch(&self.url, &self.token, &batch.id, Bytes::from(batch.body.clone()));
        Box::pin(async move { posted.await.map_err(|error| format!("{}: {error}", self.url)) })
    }
}

#[cfg(test)]
mod tests;
