//! The check for everybody, at `/check`: a form, a page of the outcome that can be passed on, and JSON. Off unless the
//! configuration switches it on; how often it looks is limited, for all askers together, since each look goes out to
//! servers of others.

use crate::check_command::{json, page};
use crate::config::Config;
use crate::dashboard::door::random_word;
use crate::failure::Failure;
use crate::world::World;
use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use check::Checker;
use formats::limits::{PUBLIC_CHECKS, PUBLIC_CHECKS_AT_ONCE, PUBLIC_RESULTS};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Over which time [`PUBLIC_CHECKS`] is meant.
const MINUTE: Duration = Duration::from_secs(60);

struct PublicCheck {
    world: Arc<World>,
    config: Config,
    at_once: Semaphore,
    held: Mutex<Held>,
}

/// Pages of outcomes, the newest last, and when the last looks began.
#[derive(Default)]
struct Held {
    pages: VecDeque<(String, String)>,
    begun: VecDeque<Instant>,
}

#[derive(Template)]
#[template(path = "public_check.html")]
struct Form {
    typed: String,
    trouble: String,
}

#[derive(serde::Deserialize)]
struct Asked {
    #[serde(default)]
    domain: String,
}

/// The routes.
pub fn router(config: &Config, world: &Arc<World>) -> Router {
    let state = Arc::new(PublicCheck {
        world: world.clone(),
        config: config.clone(),
        at_once: Semaphore::new(PUBLIC_CHECKS_AT_ONCE),
        held: Mutex::default(),
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
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when enough was looked at within the last minute.
    fn may_look(&self) -> bool {
        let begun = &mut self.held().begun;
        while begun.front().is_some_and(|at| at.elapsed() > MINUTE) {
            begun.pop_front();
        }
        let has_room = begun.len() < PUBLIC_CHECKS;
        if has_room {
            begun.push_back(Instant::now());
        }
        has_room
    }

    async fn look(&self, typed: &str) -> Result<(check::Examination, Duration), Trouble> {
        let domain = crate::world::domain(typed).map_err(|failure| Trouble::Typed(failure.to_string()))?;
        if !self.may_look() {
            return Err(Trouble::Busy);
        }
        let _place = self.at_once.acquire().await.map_err(|_| Trouble::Busy)?;
        let begun = Instant::now();
        let looks = self.world.looks(&self.config);
        let checker: Checker = self
            .world
            .checker(&self.config, looks, false)
            .await
            .map_err(|failure| Trouble::Ours(failure.to_string()))?;
        Ok((checker.examine(&domain).await, begun.elapsed()))
    }

    /// Keeps a page, and says under which name.
    fn keep(&self, text: String) -> Result<String, Failure> {
        let id = random_word()?;
        let pages = &mut self.held().pages;
        if pages.len() >= PUBLIC_RESULTS {
            pages.pop_front();
        }
        pages.push_back((id.clone(), text));
        Ok(id)
    }
}

/// Why there is no outcome.
enum Trouble {
    /// What was typed is no domain.
    Typed(String),
    /// Enough was looked at.
    Busy,
    /// Nothing can be looked at from here now.
    Ours(String),
}

impl Trouble {
    fn told(self) -> (StatusCode, String) {
        // On a page and in JSON it is plain that it is an error.
        let bare = |why: String| why.trim_start_matches("error: ").replace("\n  ", ". ");
        match self {
            Self::Typed(why) => (StatusCode::BAD_REQUEST, bare(why)),
            Self::Busy => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "{PUBLIC_CHECKS} domains were looked at within a minute, which is the most. Try again in a minute."
                ),
            ),
            Self::Ours(why) => (StatusCode::SERVICE_UNAVAILABLE, bare(why)),
        }
    }
}

async fn form(State(public): State<Arc<PublicCheck>>, Query(asked): Query<Asked>) -> Response {
    let show = |status: StatusCode, trouble: String| {
        let page = Form { typed: asked.domain.chars().take(300).collect(), trouble };
        match page.render() {
            Ok(text) => (status, Html(text)).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    };
    if asked.domain.trim().is_empty() {
        return show(StatusCode::OK, String::new());
    }
    let looked = match public.look(&asked.domain).await {
        Ok(looked) => looked,
        Err(trouble) => {
            let (status, why) = trouble.told();
            return show(status, why);
        }
    };
    let kept = page::render(&[looked], public.world.clock.now())
        .map_err(|error| error.to_string())
        .and_then(|text| public.keep(text).map_err(|failure| failure.to_string()));
    match kept {
        Ok(id) => Redirect::to(&format!("/check/{id}")).into_response(),
        Err(why) => show(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

async fn as_json(State(public): State<Arc<PublicCheck>>, Query(asked): Query<Asked>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    match public.look(&asked.domain).await {
        Ok((seen, _)) => (kind, json(&seen)).into_response(),
        Err(trouble) => {
            let (status, why) = trouble.told();
            (status, kind, serde_json::json!({ "schema": 1, "error": why }).to_string()).into_response()
        }
    }
}

async fn result(State(public): State<Arc<PublicCheck>>, Path(id): Path<String>) -> Response {
    let found = public.held().pages.iter().find(|(known, _)| *known == id).map(|(_, text)| text.clone());
    match found {
        Some(text) => Html(text).into_response(),
        None => {
            let page = Form {
                typed: String::new(),
                trouble: "This outcome is not kept any more. Look again.".to_owned(),
            };
            (StatusCode::NOT_FOUND, Html(page.render().unwrap_or_default())).into_response()
        }
    }
}
