//! The public domain check at `/check`: a form, a page that shows the answers of a running check, and pages of results to
//! share. It is off unless `dashboard.public_check` enables it. Checks are rate limited per client and in total, since each
//! check connects to servers of third parties.
//!
//! | path | page |
//! | --- | --- |
//! | `/check` | the form; with `?domain=` it starts a check |
//! | `/check/running/ID` | what was answered so far; leads to the result (`running`) |
//! | `/check/WORD` | a result |
//! | `/check/domain/NAME` | the newest result of a domain, its history and its badge (`domain_page`, `badge`) |
//! | `/check.json?domain=NAME` | the result for programs |

mod badge;
mod domain_page;
mod running;

use crate::auth::random_token;
use crate::base_path::BasePath;
use crate::client_addr::ClientAddr;
use crate::text::without_controls;
use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use check::render::forms::json;
use check::render::page;
use check::{Examination, Severity};
use config::Config;
use config::failure::Failure;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use formats::DomainName;
use formats::limits::{
    BADGE_CHECKS, PUBLIC_CHECK_TIME, PUBLIC_CHECKS, PUBLIC_CHECKS_AT_ONCE, PUBLIC_CHECKS_OF_NETWORK,
    PUBLIC_CHECKS_PER_ADDRESS, PUBLIC_CHECKS_PER_NETWORK, PUBLIC_PAGES, PUBLIC_RESULTS,
    PUBLIC_RESULTS_OF_DOMAIN,
};
use net::rate_limit::{RateLimiter, network};
use operations::store_failure;
use operations::world::World;
use running::{End, Purpose, RunningCheck, RunningChecks, Started};
use std::fmt::Display;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::public_results::{NewPublicResult, PublicLimits, PublicPage};
use store::{Outage, Store};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The window of [`PUBLIC_CHECKS`], [`PUBLIC_CHECKS_PER_ADDRESS`], [`PUBLIC_CHECKS_PER_NETWORK`] and [`BADGE_CHECKS`].
const MINUTE: Duration = Duration::from_secs(60);

/// The address that clients of unknown address count under.
const UNKNOWN_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// How long the page of a running check waits for the end before it shows what was answered so far.
const PATIENCE: Duration = Duration::from_millis(900);

/// The script of the page of a running check.
const SCRIPT: &str = include_str!("../templates/public_check.js");

const LIMITS: PublicLimits =
    PublicLimits { pages: PUBLIC_PAGES, results: PUBLIC_RESULTS, of_domain: PUBLIC_RESULTS_OF_DOMAIN };

struct PublicCheck {
    world: Arc<World>,
    store: Store,
    config: Config,
    /// The URL of the dashboard.
    url: String,
    /// The path of `dashboard.url`.
    base: BasePath,
    /// Limits concurrent checks.
    concurrent: Semaphore,
    rates: CheckRates,
    running: RunningChecks,
}

/// The rate limits in total, per client, per network, and of checks that badges start.
struct CheckRates {
    all: RateLimiter,
    each: RateLimiter,
    networks: RateLimiter,
    badges: RateLimiter,
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

#[derive(Template)]
#[template(path = "public_running.html")]
struct RunningPage {
    style: &'static str,
    domain: String,
    /// Seconds since the start.
    seconds: u64,
    answers: Vec<(String, String)>,
}

#[derive(serde::Deserialize)]
struct CheckQuery {
    #[serde(default)]
    domain: String,
}

/// The routes of the public check.
pub fn router(config: &Config, store: &Store, world: &Arc<World>) -> Router {
    let url = config.dashboard.as_ref().map_or("", |dashboard| &dashboard.url);
    let state = Arc::new(PublicCheck {
        world: world.clone(),
        store: store.clone(),
        config: config.clone(),
        url: url.to_owned(),
        base: BasePath::of(url),
        concurrent: Semaphore::new(PUBLIC_CHECKS_AT_ONCE),
        rates: CheckRates::new(),
        running: RunningChecks::default(),
    });
    Router::new()
        .route("/check", get(form))
        .route("/check.js", get(script))
        .route("/check.json", get(as_json))
        .route("/check/running/{id}", get(running_page))
        .route("/check/domain/{name}", get(domain_page::page))
        .route("/check/domain/{name}/badge.svg", get(domain_page::badge_image))
        .route("/check/domain/{name}/history.json", get(domain_page::history))
        .route("/check/{word}", get(result))
        .layer(map_response(add_security_headers))
        .with_state(state)
}

/// Adds security headers. These pages contain their style sheet; they load a script, which only continues a page that
/// also refreshes without one, and the image of the badge.
async fn add_security_headers(mut response: Response) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in headers {
        // The badge may be cached.
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

impl CheckRates {
    fn new() -> Self {
        Self {
            all: RateLimiter::new(PUBLIC_CHECKS, MINUTE),
            each: RateLimiter::new(PUBLIC_CHECKS_PER_ADDRESS, MINUTE),
            networks: RateLimiter::new(PUBLIC_CHECKS_PER_NETWORK, MINUTE),
            badges: RateLimiter::new(BADGE_CHECKS, MINUTE),
        }
    }

    /// Counts a check against the limits per client, per network and in total.
    fn take(&self, client: IpAddr, now: Instant) -> Result<(), CheckError> {
        if !self.each.take(client, now) || !self.networks.take(network(client), now) {
            return Err(CheckError::ClientRateLimit);
        }
        match self.all.take(UNKNOWN_CLIENT, now) {
            true => Ok(()),
            false => Err(CheckError::RateLimit),
        }
    }

    /// Counts a check for a badge against its limit and the total.
    fn take_for_badge(&self, now: Instant) -> bool {
        self.badges.take(UNKNOWN_CLIENT, now) && self.all.take(UNKNOWN_CLIENT, now)
    }
}

impl PublicCheck {
    /// Starts a check of the domain, unless one runs. Returns the identifier of its page.
    fn start(
        self: &Arc<Self>,
        client: ClientAddr,
        typed: &str,
    ) -> Result<(String, Arc<RunningCheck>), CheckError> {
        let domain = operations::world::domain(typed)
            .map_err(|failure| CheckError::InvalidDomain(failure.to_string()))?;
        // Clients of unknown address share the limits of one.
        let client = client.0.unwrap_or(UNKNOWN_CLIENT);
        self.rates.take(client, Instant::now())?;
        self.start_counted(&domain, Purpose::client(client))
    }

    /// Starts a check that was counted against the limits.
    fn start_counted(
        self: &Arc<Self>,
        domain: &DomainName,
        purpose: Purpose,
    ) -> Result<(String, Arc<RunningCheck>), CheckError> {
        let id = random_token().map_err(|failure| unavailable(&failure))?;
        let (id, check, started) = self.running.start(domain, id, purpose, Instant::now())?;
        if let Some(started) = started {
            let public = self.clone();
            tokio::spawn(async move { public.run(started).await });
        }
        Ok((id, check))
    }

    /// Runs a check and stores its result. A client that has left does not end it, since others may wait for it.
    async fn run(&self, started: Started) {
        let end = match timeout(PUBLIC_CHECK_TIME, self.examine(started.check())).await {
            Ok(Ok((word, json))) => End::Stored(word.into(), json.into()),
            Ok(Err(failure)) => {
                unavailable(&failure);
                End::Failed
            }
            Err(_) => {
                unavailable(&format!(
                    "the check of {} took more than {} seconds",
                    started.check().domain,
                    PUBLIC_CHECK_TIME.as_secs()
                ));
                End::Failed
            }
        };
        started.finish(end);
    }

    /// Checks a domain and stores the result. Returns the word of its link, and the result as JSON.
    async fn examine(&self, check: &RunningCheck) -> Result<(String, String), Failure> {
        let _place = self.concurrent.acquire().await.map_err(|closed| no_result(&check.domain, &closed))?;
        let begun = Instant::now();
        let looks = self.world.check_options(&self.config);
        let checker = self.world.checker(&self.config, looks, false).await?;
        let seen = checker.examine_with(&check.domain, &check::Known::default(), check).await;
        let json = json(&seen);
        Ok((self.store_result(seen, begun.elapsed()).await?, json))
    }

    /// Stores a result. Returns the word of its link.
    async fn store_result(&self, seen: Examination, took: Duration) -> Result<String, Failure> {
        let now = self.world.clock.now();
        let checks: Vec<&str> = seen
            .findings
            .iter()
            .filter(|finding| finding.severity != Severity::Info)
            .map(|finding| finding.check.id())
            .collect();
        let (checks, verdict, domain) = (checks.join(" "), seen.verdict.clone(), seen.domain.clone());
        let protection = seen.protection.id();
        let page = page::render_public((seen, took), now).map_err(|error| no_result(&domain, &error))?;
        let page = packed(&without_controls(page)).map_err(|error| no_result(&domain, &error))?;
        let word = &random_token()?;
        let (verdict, checks) = (verdict.as_str(), checks.as_str());
        let result =
            NewPublicResult { word, domain: &domain, at: now, protection, verdict, checks, page: &page };
        let stored = self.store.put_public_result(&result, LIMITS).await;
        stored.map_err(|error| store_failure(&error))
    }

    /// The page with the form, with an error if there is one.
    fn form(&self, status: StatusCode, typed: &str, error: String) -> Response {
        let base = self.base.as_str().to_owned();
        let typed = typed.chars().take(300).collect();
        shown(status, &Form { style: page::STYLE, base, typed, error })
    }

    fn refused(&self, typed: &str, error: CheckError) -> Response {
        let (status, why) = error.status_and_message();
        self.form(status, typed, why)
    }
}

fn no_result(domain: &DomainName, why: &dyn Display) -> Failure {
    Failure::new(format!("no result of the check of {domain}"), why, "")
}

/// A page with its status.
fn shown(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => unavailable(&error).status_and_message().into_response(),
    }
}

/// A page as it is stored: compressed by gzip.
fn packed(page: &str) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    GzEncoder::new(page.as_bytes(), Compression::default()).read_to_end(&mut out)?;
    Ok(out)
}

/// A stored page. Those of an earlier release are not compressed.
fn unpacked(page: &[u8]) -> std::io::Result<String> {
    let mut out = String::new();
    if page.starts_with(&[0x1f, 0x8b]) {
        GzDecoder::new(page).read_to_string(&mut out)?;
    } else {
        out.push_str(&String::from_utf8_lossy(page));
    }
    Ok(out)
}

/// Why a check has no result.
#[derive(Debug)]
enum CheckError {
    /// The input is not a valid domain name.
    InvalidDomain(String),
    /// The total rate limit is reached.
    RateLimit,
    /// The rate limit of the client or of its network is reached.
    ClientRateLimit,
    /// As many checks run for the client's network as may.
    NetworkBusy,
    /// Checks can't run on this server at the moment. The log has the reason.
    Unavailable,
}

/// Logs why there is no result. It names files and hosts, so that clients do not get it.
fn unavailable(why: &impl Display) -> CheckError {
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
                    "Rate limit reached ({PUBLIC_CHECKS_PER_ADDRESS} checks per minute from one address, \
                     {PUBLIC_CHECKS_PER_NETWORK} from one network). Try again in a minute, or run the check yourself: \
                     sternpost check DOMAIN."
                ),
            ),
            Self::NetworkBusy => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "Limit reached: {PUBLIC_CHECKS_OF_NETWORK} checks are running for your network. Try again when one has \
                     ended, or run the check yourself: sternpost check DOMAIN."
                ),
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Checks are not available at the moment. Try again later.".to_owned(),
            ),
        }
    }
}

async fn script() -> Response {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT).into_response()
}

async fn form(
    State(public): State<Arc<PublicCheck>>,
    Extension(client): Extension<ClientAddr>,
    Query(query): Query<CheckQuery>,
) -> Response {
    if query.domain.trim().is_empty() {
        return public.form(StatusCode::OK, "", String::new());
    }
    match public.start(client, &query.domain) {
        Ok((id, _)) => Redirect::to(&format!("/check/running/{id}")).into_response(),
        Err(error) => public.refused(&query.domain, error),
    }
}

/// What a running check has seen so far. Leads to the result when the check has ended.
async fn running_page(State(public): State<Arc<PublicCheck>>, Path(id): Path<String>) -> Response {
    let Some(check) = public.running.find(&id) else {
        let error = "This check is not known any more. Run it again.".to_owned();
        return public.form(StatusCode::NOT_FOUND, "", error);
    };
    // Many checks end within the first second.
    match timeout(PATIENCE, check.ended()).await {
        Ok(End::Stored(word, _)) => Redirect::to(&format!("/check/{word}")).into_response(),
        Ok(End::Failed) => public.refused(check.domain.as_str(), CheckError::Unavailable),
        Err(_) => {
            let (style, domain) = (page::STYLE, check.domain.to_string());
            let (seconds, answers) = (check.begun.elapsed().as_secs(), check.answers());
            shown(StatusCode::OK, &RunningPage { style, domain, seconds, answers })
        }
    }
}

async fn as_json(
    State(public): State<Arc<PublicCheck>>,
    Extension(client): Extension<ClientAddr>,
    Query(query): Query<CheckQuery>,
) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    let end = match public.start(client, &query.domain) {
        Ok((_, check)) => match check.ended().await {
            End::Stored(_, json) => Ok(json),
            End::Failed => Err(CheckError::Unavailable),
        },
        Err(error) => Err(error),
    };
    match end {
        Ok(json) => (kind, json.to_string()).into_response(),
        Err(error) => {
            let (status, why) = error.status_and_message();
            (status, kind, serde_json::json!({ "schema": 1, "error": why }).to_string()).into_response()
        }
    }
}

/// Results that the store fails to read.
static OUTAGE: Outage = Outage::new();

async fn result(State(public): State<Arc<PublicCheck>>, Path(word): Path<String>) -> Response {
    let page = public.store.public_page(&word).await;
    OUTAGE.log(&page, "results of public checks can't be read", "results of public checks are read again");
    match page {
        Ok(Some(PublicPage::Stored(page))) => match unpacked(&page) {
            Ok(text) => Html(text).into_response(),
            Err(error) => public.refused("", unavailable(&error)),
        },
        Ok(Some(PublicPage::Deleted(domain))) => {
            Redirect::to(&format!("/check/domain/{domain}")).into_response()
        }
        Ok(None) => {
            let error = "This result is no longer available. Run the check again.".to_owned();
            public.form(StatusCode::NOT_FOUND, "", error)
        }
        Err(_) => public.refused("", CheckError::Unavailable),
    }
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
    fn neither_a_client_nor_a_network_has_all_checks_of_a_minute() {
        let (rates, now) = (CheckRates::new(), Instant::now());
        let taken = |client: IpAddr| {
            u32::try_from((0..PUBLIC_CHECKS).filter(|_| rates.take(client, now).is_ok()).count()).unwrap()
        };
        let of_network = |network: u16| {
            let client = |subnet| IpAddr::from([0x2001, 0xdb8, network, subnet, 0, 0, 0, 1]);
            (0..20).map(|subnet| taken(client(subnet))).collect::<Vec<u32>>()
        };
        assert_eq!(taken(UNKNOWN_CLIENT), PUBLIC_CHECKS_PER_ADDRESS);
        let first = of_network(1);
        assert_eq!(first[0], PUBLIC_CHECKS_PER_ADDRESS);
        assert_eq!(first.iter().sum::<u32>(), PUBLIC_CHECKS_PER_NETWORK);
        assert_eq!(taken("192.0.2.1".parse().unwrap()), PUBLIC_CHECKS_PER_ADDRESS);
    }

    #[test]
    fn pages_are_stored_compressed_and_read_also_as_an_earlier_release_stored_them() {
        let page = "<p>ä</p>".repeat(1000);
        let stored = packed(&page).unwrap();
        assert!(stored.len() < 100, "{}", stored.len());
        assert_eq!(unpacked(&stored).unwrap(), page);
        assert_eq!(unpacked(page.as_bytes()).unwrap(), page);
        assert!(unpacked(&stored[..20]).is_err());
    }

    #[test]
    fn badges_start_few_of_all_checks() {
        let (rates, now) = (CheckRates::new(), Instant::now());
        let taken = (0..PUBLIC_CHECKS).filter(|_| rates.take_for_badge(now)).count();
        assert_eq!(taken, usize::try_from(BADGE_CHECKS).unwrap());
    }
}
