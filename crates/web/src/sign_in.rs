//! The pages for sign-in, sign-out and accepting an invitation, and two middlewares. [`require_sign_in`] guards the
//! pages of the dashboard; [`require_same_origin`] rejects requests from other sites.

use crate::auth::{Auth, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, cookie, digest, hash, verify_csrf};
use crate::client_addr::ClientAddr;
use crate::counts::{Address, SafeName, WebCounts};
use crate::layout::{Answer, ErrorPage, Frame, html};
use crate::state::Dashboard;
use crate::visitor::{CsrfForm, Role, Visitor};
use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect};
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Instant;
use store::people::Person;

/// Redirects unauthenticated requests to the sign-in page.
pub async fn require_sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    mut request: Request,
    next: Next,
) -> Answer {
    let Some(visitor) = dashboard.auth.visitor(request.headers()).await? else {
        return Ok(match *request.method() {
            Method::GET | Method::HEAD => Redirect::to("/sign-in").into_response(),
            _ => ErrorPage::new(StatusCode::FORBIDDEN, "Sign in first.").into_response(),
        });
    };
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read && !visitor.is_operator() && request.uri().path() != "/sign-out" {
        let what = "Your account is read-only. Ask an operator to make this change.";
        return Err(ErrorPage::new(StatusCode::FORBIDDEN, what));
    }
    request.extensions_mut().insert(visitor);
    Ok(next.run(request).await)
}

/// Rejects form submissions from other sites (CSRF) and unknown host names (DNS rebinding).
pub async fn require_same_origin(
    State(dashboard): State<Arc<Dashboard>>,
    request: Request,
    next: Next,
) -> Answer {
    let text = |value: Option<&HeaderValue>| {
        value.and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase)
    };
    let host = text(request.headers().get(HOST)).unwrap_or_default();
    if !dashboard.auth.hosts.contains(&host) {
        let what = format!(
            "The host name {host:?} is not configured for this dashboard. If it is correct, set\n[dashboard]\nurl = \"https://{host}\""
        );
        return Err(ErrorPage::new(StatusCode::MISDIRECTED_REQUEST, what));
    }
    let origin = text(request.headers().get(ORIGIN));
    let is_same_origin =
        origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, from)| from == host));
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !is_same_origin {
        return Err(ErrorPage::new(StatusCode::FORBIDDEN, "The form was sent from another site."));
    }
    Ok(next.run(request).await)
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    problem: &'static str,
}

#[derive(serde::Deserialize)]
pub struct SignIn {
    name: String,
    password: String,
}

pub async fn sign_in_page() -> Answer {
    html(&SignInPage { frame: Frame::outside("Sign in"), problem: "" })
}

pub async fn sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(client): Extension<ClientAddr>,
    Form(form): Form<SignIn>,
) -> Answer {
    let auth = &dashboard.auth;
    let refused = |status, problem| {
        let page = html(&SignInPage { frame: Frame::outside("Sign in"), problem })?;
        Ok((status, page).into_response())
    };
    let counted = &WebCounts::shared().sign_ins;
    if auth.is_throttled(&form.name) {
        counted.inc(&["throttled"]);
        return refused(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many failed attempts for this name. Try again in 30 seconds.",
        );
    }
    if client.0.is_some_and(|from| !auth.attempts.take(from, Instant::now())) {
        counted.inc(&["throttled"]);
        return refused(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many attempts from your address. Try again in a minute.",
        );
    }
    let person = auth.store.person(&form.name).await?;
    let password: String = form.password.chars().take(MAX_PASSWORD_CHARS).collect();
    if auth.verify_password(person.as_ref(), password).await? {
        auth.forget_failures(&form.name);
        counted.inc(&["succeeded"]);
        tracing::info!(name = form.name, "signed in");
        return auth.start_session(&form.name).await;
    }
    auth.count_failure(&form.name);
    counted.inc(&["failed"]);
    tracing::warn!(name = %SafeName(&form.name), address = %Address(client.0), "sign-in failed");
    refused(StatusCode::UNAUTHORIZED, "Wrong name or password.")
}

pub async fn sign_out(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Form(form): Form<CsrfForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    if let Some(token) = cookie(&headers) {
        dashboard.auth.store.sign_out(&digest(token)).await?;
    }
    let expired = dashboard.auth.set_cookie("", SignedDuration::ZERO);
    Ok((expired, Redirect::to("/sign-in")).into_response())
}

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage {
    frame: Frame,
    name: String,
    role: &'static str,
    problem: &'static str,
    shortest: usize,
}

impl WelcomePage {
    fn new(name: String, role: Role, problem: &'static str) -> Self {
        Self {
            frame: Frame::outside("Welcome"),
            name,
            role: role.as_str(),
            problem,
            shortest: MIN_PASSWORD_CHARS,
        }
    }
}

#[derive(serde::Deserialize)]
pub struct Welcome {
    password: String,
    again: String,
}

/// The user name and role of a valid invitation.
async fn invitation(auth: &Auth, token: &str) -> Result<(String, Role), ErrorPage> {
    let found = auth.store.invitation(&digest(token), auth.clock.now()).await?;
    let (name, role) = found.ok_or_else(|| {
        ErrorPage::not_found("The link has already been used, or it has expired. Create a new one with\nsternpost dashboard invite NAME")
    })?;
    Ok((name, Role::parse(&role)))
}

pub async fn welcome_page(State(dashboard): State<Arc<Dashboard>>, Path(token): Path<String>) -> Answer {
    let (name, role) = invitation(&dashboard.auth, &token).await?;
    html(&WelcomePage::new(name, role, ""))
}

pub async fn welcome(
    State(dashboard): State<Arc<Dashboard>>,
    Path(token): Path<String>,
    Form(form): Form<Welcome>,
) -> Answer {
    let auth = &dashboard.auth;
    let (name, role) = invitation(auth, &token).await?;
    let length = form.password.chars().count();
    let problem = match length {
        _ if form.password != form.again => "The two passwords differ.",
        0..MIN_PASSWORD_CHARS => "The password is too short.",
        MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS => "",
        _ => "The password is too long.",
    };
    if !problem.is_empty() {
        let page = html(&WelcomePage::new(name, role, problem))?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let person = Person { name, role: role.as_str().to_owned(), password: hash(&form.password)? };
    if !auth.store.accept(&digest(&token), &person, auth.clock.now()).await? {
        return Err(ErrorPage::not_found("This link has already been used."));
    }
    tracing::info!(name = person.name, role = person.role, "invitation accepted");
    auth.start_session(&person.name).await
}
