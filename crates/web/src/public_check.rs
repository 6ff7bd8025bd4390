//! The public domain check at `/check`: a form, a result page with a link to share, and JSON. It is off unless
//! `dashboard.public_check` enables it. Checks are rate limited per client and in total, since each check connects to
//! servers of third parties.

use crate::auth::random_token;
use crate::base_path::BasePath;
use crate::client_addr::ClientAddr;
use crate::text::without_controls;
use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use check::Checker;
use check::render::forms::json;
use check::render::page;
use config::Config;
use config::failure::Failure;
use formats::limits::{PUBLIC_CHECKS, PUBLIC_CHECKS_AT_ONCE, PUBLIC_CHECKS_PER_ADDRESS, PUBLIC_RESULTS};
use net::rate_limit::RateLimiter;
use operations::store_failure;
use operations::world::World;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::Semaphore;

/// The window of [`PUBLIC_CHECKS`] and [`PUBLIC_CHECKS_PER_ADDRESS`].
const MINUTE: Duration = Duration::from_secs(60);

/// The address that clients of unknown address count under.
const UNKNOWN_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

struct PublicCheck {
    world: Arc<World>,
    store: Store,
    config: Config,
    /// The path of `dashboard.url`.
    base: BasePath,
    /// Limits concurrent checks.
    concurrent: Semaphore,
    rates: CheckRates,
}

/// The rate limits in total and per client.
struct CheckRates {
    all: RateLimiter,
    each: RateLimiter,
}

#[derive(Template)]
#[template(path = "public_check.html")]
struct Form {
    style: &'static str,
    /// The path of `dashboard.url`, for the example in the text.
    base: String,
    /// The domain as it was entered.
    typed: String,
    /// The error message; empty if there is none.
    error: String,
}

#[derive(serde::Deserialize)]
struct CheckQuery {
    #[serde(default)]
    domain: String,
}

/// The routes of the public check.
pub fn router(config: &Config, store: &Store, world: &Arc<World>) -> Router {
    let state = Arc::new(PublicCheck {
        world: world.clone(),
        store: store.clone(),
        config: config.clone(),
        base: BasePath::of(config.dashboard.as_ref().map_or("", |dashboard| &dashboard.url)),
        concurrent: Semaphore::new(PUBLIC_CHECKS_AT_ONCE),
        rates: CheckRates::new(),
    });
    Router::new()
        .route("/check", get(form))
        .route("/check.json", get(as_json))
        .route("/check/{id}", get(result))
        .layer(map_response(add_security_headers))
        .with_state(state)
}

/// Adds security headers. These pages contain their style sheet and load nothing else.
async fn add_security_headers(mut response: Response) -> Response {
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl CheckRates {
    fn new() -> Self {
        Self {
            all: RateLimiter::new(PUBLIC_CHECKS, MINUTE),
            each: RateLimiter::new(PUBLIC_CHECKS_PER_ADDRESS, MINUTE),
        }
    }

    /// Counts a check against the limits per client and in total. Clients of unknown address share the limit of one.
    fn take(&self, client: ClientAddr, now: Instant) -> Result<(), CheckError> {
        if !self.each.take(client.0.unwrap_or(UNKNOWN_CLIENT), now) {
            return Err(CheckError::ClientRateLimit);
        }
        match self.all.take(UNKNOWN_CLIENT, now) {
            true => Ok(()),
            false => Err(CheckError::RateLimit),
        }
    }
}

impl PublicCheck {
    /// Checks the domain, and returns the result with its duration.
    async fn check(
        &self,
        client: ClientAddr,
        typed: &str,
    ) -> Result<(check::Examination, Duration), CheckError> {
        let domain = operations::world::domain(typed)
            .map_err(|failure| CheckError::InvalidDomain(failure.to_string()))?;
        self.rates.take(client, Instant::now())?;
        let _place = self.concurrent.acquire().await.map_err(|_| CheckError::RateLimit)?;
        let begun = Instant::now();
        let looks = self.world.check_options(&self.config);
        let checker: Checker =
            self.world.checker(&self.config, looks, false).await.map_err(|failure| unavailable(&failure))?;
        Ok((checker.examine(&domain).await, begun.elapsed()))
    }

    /// Stores a result page and returns its identifier.
    async fn store_page(&self, text: &str) -> Result<String, Failure> {
        let id = random_token()?;
        let stored = self.store.put_shared_page(&id, text, PUBLIC_RESULTS).await;
        stored.map_err(|error| store_failure(&error))?;
        Ok(id)
    }
}

/// Why a check has no result.
enum CheckError {
    /// The input is not a valid domain name.
    InvalidDomain(String),
    /// The total rate limit is reached.
    RateLimit,
    /// The client's rate limit is reached.
    ClientRateLimit,
    /// Checks can't run on this server at the moment. The log has the reason.
    Unavailable,
}

/// Logs why there is no result. It names files and hosts, so that clients do not get it.
fn unavailable(why: &impl std::fmt::Display) -> CheckError {
    tracing::error!("a public check has no result: {why}");
    CheckError::Unavailable
}

impl CheckError {
    /// The status and the message of the response.
    fn status_and_message(self) -> (StatusCode, String) {
        // The page and the JSON already mark it as an error.
        let bare = |why: String| why.trim_start_matches("error: ").replace("\n  ", ". ");
        match self {
            Self::InvalidDomain(why) => (StatusCode::BAD_REQUEST, bare(why)),
            Self::RateLimit => (
                StatusCode::TOO_MANY_REQUESTS,
                format!("Rate limit reached ({PUBLIC_CHECKS} checks per minute). Try again in a minute."),
            ),
            Self::ClientRateLimit => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "Rate limit reached ({PUBLIC_CHECKS_PER_ADDRESS} checks per minute from one address). Try again in a \
                     minute, or run the check yourself: sternpost check DOMAIN."
                ),
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Checks are not available at the moment. Try again later.".to_owned(),
            ),
        }
    }
}

async fn form(
    State(public): State<Arc<PublicCheck>>,
    Extension(client): Extension<ClientAddr>,
    Query(query): Query<CheckQuery>,
) -> Response {
    let show = |status: StatusCode, error: String| {
        let base = public.base.as_str().to_owned();
        let typed = query.domain.chars().take(300).collect();
        let page = Form { style: page::STYLE, base, typed, error };
        match page.render() {
            Ok(text) => (status, Html(text)).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    if query.domain.trim().is_empty() {
        return show(StatusCode::OK, String::new());
    }
    let checked = match public.check(client, &query.domain).await {
        Ok(checked) => checked,
        Err(error) => {
            let (status, why) = error.status_and_message();
            return show(status, why);
        }
    };
    let stored = match page::render(&[checked], public.world.clock.now()) {
        Ok(text) => public.store_page(&without_controls(text)).await.map_err(|failure| unavailable(&failure)),
        Err(error) => Err(unavailable(&error)),
    };
    match stored {
        Ok(id) => Redirect::to(&format!("/check/{id}")).into_response(),
        Err(error) => {
            let (status, why) = error.status_and_message();
            show(status, why)
        }
    }
}

async fn as_json(
    State(public): State<Arc<PublicCheck>>,
    Extension(client): Extension<ClientAddr>,
    Query(query): Query<CheckQuery>,
) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    match public.check(client, &query.domain).await {
        Ok((examination, _)) => (kind, json(&examination)).into_response(),
        Err(error) => {
            let (status, why) = error.status_and_message();
            (status, kind, serde_json::json!({ "schema": 1, "error": why }).to_string()).into_response()
        }
    }
}

async fn result(State(public): State<Arc<PublicCheck>>, Path(id): Path<String>) -> Response {
    let (status, error) = match public.store.shared_page(&id).await {
        Ok(Some(text)) => return Html(text).into_response(),
        Ok(None) => {
            (StatusCode::NOT_FOUND, "This result is no longer available. Run the check again.".to_owned())
        }
        Err(error) => unavailable(&store_failure(&error)).status_and_message(),
    };
    let base = public.base.as_str().to_owned();
    let page = Form { style: page::STYLE, base, typed: String::new(), error };
    (status, Html(page.render().unwrap_or_default())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_server_is_for_its_log_and_not_for_strangers() {
        let (status, why) = unavailable(&"/var/lib/sternpost.db: disk I/O error").status_and_message();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(why, "Checks are not available at the moment. Try again later.");
    }

    #[test]
    fn clients_of_unknown_address_have_the_limit_of_one() {
        let (rates, now) = (CheckRates::new(), Instant::now());
        let taken = |client: Option<IpAddr>| {
            (0..PUBLIC_CHECKS).filter(|_| rates.take(ClientAddr(client), now).is_ok()).count()
        };
        let each = usize::try_from(PUBLIC_CHECKS_PER_ADDRESS).unwrap();
        assert_eq!(taken(None), each);
        assert_eq!(taken("192.0.2.1".parse().ok()), each);
    }
}
