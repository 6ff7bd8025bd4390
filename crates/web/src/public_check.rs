//! The check for everybody, at `/check`: a form, a page of the outcome that can be passed on, and JSON. Off unless the
//! configuration switches it on; how often it looks is limited, for each asker and for all together, since each look goes
//! out to servers of others.

use crate::auth::random_word;
use crate::client_addr::ClientAddr;
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
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::sync::Semaphore;

/// Over which time [`PUBLIC_CHECKS`] is meant.
const MINUTE: Duration = Duration::from_secs(60);

struct PublicCheck {
    world: Arc<World>,
    store: Store,
    config: Config,
    at_once: Semaphore,
    /// Of everybody together, and of each.
    rates: (RateLimiter, RateLimiter),
}

#[derive(Template)]
#[template(path = "public_check.html")]
struct Form {
    style: &'static str,
    typed: String,
    trouble: String,
}

#[derive(serde::Deserialize)]
struct Asked {
    #[serde(default)]
    domain: String,
}

/// The routes.
pub fn router(config: &Config, store: &Store, world: &Arc<World>) -> Router {
    let state = Arc::new(PublicCheck {
        world: world.clone(),
        store: store.clone(),
        config: config.clone(),
        at_once: Semaphore::new(PUBLIC_CHECKS_AT_ONCE),
        rates: (RateLimiter::new(PUBLIC_CHECKS, MINUTE), RateLimiter::new(PUBLIC_CHECKS_PER_ADDRESS, MINUTE)),
    });
    Router::new()
        .route("/check", get(form))
        .route("/check.json", get(as_json))
        .route("/check/{id}", get(result))
        .layer(map_response(safe))
        .with_state(state)
}

/// These pages bring their style along, and nothing else.
async fn safe(mut response: Response) -> Response {
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

impl PublicCheck {
    /// Counts a look, of which each asker has a share of those that all have.
    fn may_look(&self, asker: ClientAddr) -> Result<(), ErrorPage> {
        let (all, each) = &self.rates;
        let now = Instant::now();
        if asker.0.is_some_and(|from| !each.take(from, now)) {
            return Err(ErrorPage::Enough);
        }
        match all.take(Ipv4Addr::UNSPECIFIED.into(), now) {
            true => Ok(()),
            false => Err(ErrorPage::DeliveryLimits),
        }
    }

    async fn look(
        &self,
        asker: ClientAddr,
        typed: &str,
    ) -> Result<(check::Examination, Duration), ErrorPage> {
        let domain =
            operations::world::domain(typed).map_err(|failure| ErrorPage::Typed(failure.to_string()))?;
        self.may_look(asker)?;
        let _place = self.at_once.acquire().await.map_err(|_| ErrorPage::DeliveryLimits)?;
        let begun = Instant::now();
        let looks = self.world.looks(&self.config);
        let checker: Checker = self
            .world
            .checker(&self.config, looks, false)
            .await
            .map_err(|failure| ErrorPage::Ours(failure.to_string()))?;
        Ok((checker.examine(&domain).await, begun.elapsed()))
    }

    /// Keeps a page, and says under which name.
    async fn keep(&self, text: &str) -> Result<String, Failure> {
        let id = random_word()?;
        let kept = self.store.put_shared_page(&id, text, PUBLIC_RESULTS).await;
        kept.map_err(|error| store_failure(&error))?;
        Ok(id)
    }
}

/// Why there is no outcome.
enum ErrorPage {
    /// What was typed is no domain.
    Typed(String),
    /// Enough was looked at.
    DeliveryLimits,
    /// Enough was looked at for this asker.
    Enough,
    /// Nothing can be looked at from here now.
    Ours(String),
}

impl ErrorPage {
    fn told(self) -> (StatusCode, String) {
        // On a page and in JSON it is plain that it is an error.
        let bare = |why: String| why.trim_start_matches("error: ").replace("\n  ", ". ");
        match self {
            Self::Typed(why) => (StatusCode::BAD_REQUEST, bare(why)),
            Self::DeliveryLimits => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "{PUBLIC_CHECKS} domains were looked at within a minute, which is the most. Try again in a minute."
                ),
            ),
            Self::Enough => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "You had {PUBLIC_CHECKS_PER_ADDRESS} domains looked at within a minute, which is the most for one. Try again \
                     shortly, or look by the command: sternpost check DOMAIN."
                ),
            ),
            Self::Ours(why) => (StatusCode::SERVICE_UNAVAILABLE, bare(why)),
        }
    }
}

async fn form(
    State(public): State<Arc<PublicCheck>>,
    Extension(asker): Extension<ClientAddr>,
    Query(asked): Query<Asked>,
) -> Response {
    let show = |status: StatusCode, trouble: String| {
        let page = Form { style: page::STYLE, typed: asked.domain.chars().take(300).collect(), trouble };
        match page.render() {
            Ok(text) => (status, Html(text)).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    if asked.domain.trim().is_empty() {
        return show(StatusCode::OK, String::new());
    }
    let looked = match public.look(asker, &asked.domain).await {
        Ok(looked) => looked,
        Err(trouble) => {
            let (status, why) = trouble.told();
            return show(status, why);
        }
    };
    let kept = match page::render(&[looked], public.world.clock.now()) {
        Ok(text) => public.keep(&text).await.map_err(|failure| failure.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match kept {
        Ok(id) => Redirect::to(&format!("/check/{id}")).into_response(),
        Err(why) => show(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

async fn as_json(
    State(public): State<Arc<PublicCheck>>,
    Extension(asker): Extension<ClientAddr>,
    Query(asked): Query<Asked>,
) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    match public.look(asker, &asked.domain).await {
        Ok((seen, _)) => (kind, json(&seen)).into_response(),
        Err(trouble) => {
            let (status, why) = trouble.told();
            (status, kind, serde_json::json!({ "schema": 1, "error": why }).to_string()).into_response()
        }
    }
}

async fn result(State(public): State<Arc<PublicCheck>>, Path(id): Path<String>) -> Response {
    let (status, trouble) = match public.store.shared_page(&id).await {
        Ok(Some(text)) => return Html(text).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "This outcome is not kept any more. Look again.".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, store_failure(&error).to_string()),
    };
    let page = Form { style: page::STYLE, typed: String::new(), trouble };
    (status, Html(page.render().unwrap_or_default())).into_response()
}
