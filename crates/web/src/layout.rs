//! What all pages share: the frame around them, headers that keep browsers safe, errors as pages.

use crate::visitor::Visitor;
use askama::Template;
use axum::extract::{Query, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use config::failure::{Exit, Failure};

/// Where one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Domains,
    Reports,
    Senders,
    Journal,
    Sending,
    Settings,
}

impl Section {
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Domains, "/", "Domains"),
        (Self::Reports, "/reports", "Reports"),
        (Self::Senders, "/senders", "Senders"),
        (Self::Journal, "/journal", "Journal"),
        (Self::Sending, "/sending", "Sending"),
        (Self::Settings, "/settings", "Settings"),
    ];
}

/// The frame around a page.
pub struct Frame {
    /// Of the page.
    pub title: String,
    /// Who looks at it; nobody before sign-in.
    pub visitor: Option<Visitor>,
    /// The ways to the other pages: where to, what they are called, whether one is there.
    pub ways: Vec<(&'static str, &'static str, bool)>,
    /// What was just done.
    pub said: String,
    /// The program's version.
    pub version: &'static str,
}

impl Frame {
    /// For somebody who has signed in.
    pub fn new(title: impl Into<String>, here: Section, visitor: &Visitor) -> Self {
        let ways = Section::ALL.iter().map(|(place, to, name)| (*to, *name, *place == here)).collect();
        Self { visitor: Some(visitor.clone()), ways, ..Self::outside(title) }
    }

    /// For somebody who has not.
    pub fn outside(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            visitor: None,
            ways: Vec::new(),
            said: String::new(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// True for who may change something.
    pub fn is_operator(&self) -> bool {
        self.visitor.as_ref().is_some_and(Visitor::is_operator)
    }

    /// The word that shows that a form is ours.
    pub fn csrf_token(&self) -> &str {
        self.visitor.as_ref().map_or("", |visitor| visitor.csrf_token.as_str())
    }
}

/// An answer, or an error as a page.
pub type Answer = Result<Response, ErrorPage>;

/// What can't be shown or done.
pub struct ErrorPage {
    status: StatusCode,
    what: String,
}

impl ErrorPage {
    pub fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self { status, what: what.into() }
    }

    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }
}

impl From<Failure> for ErrorPage {
    fn from(failure: Failure) -> Self {
        let status = match failure.exit {
            Exit::Usage => StatusCode::NOT_FOUND,
            Exit::Findings => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, what: failure.to_string() }
    }
}

impl From<store::StoreError> for ErrorPage {
    fn from(error: store::StoreError) -> Self {
        tracing::error!("a page can't be made, since the store fails: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The store fails; the log says why.")
    }
}

#[derive(Template)]
#[template(path = "trouble.html")]
struct TroublePage {
    frame: Frame,
    what: String,
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let page = TroublePage { frame: Frame::outside(title), what: self.what };
        (self.status, Html(page.render().unwrap_or_default())).into_response()
    }
}

/// A page as an answer.
pub fn html(page: &impl Template) -> Answer {
    page.render().map(|text| Html(text).into_response()).map_err(|error| {
        tracing::error!("a page can't be made: {error}");
        ErrorPage::new(StatusCode::INTERNAL_SERVER_ERROR, "The page can't be made; the log says why.")
    })
}

pub async fn nothing_here() -> ErrorPage {
    ErrorPage::not_found("There is no such page.")
}

/// Nothing from elsewhere runs or is loaded, nothing is framed or kept by others.
const SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

pub async fn safe_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, SECURITY_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: browsers then say `Origin: null` with our own forms too.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

const CACHE_ONE_DAY: &str = "public, max-age=86400";

pub async fn style() -> Response {
    let text = check::render::page::STYLE;
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, CACHE_ONE_DAY)], text).into_response()
}

pub async fn script() -> Response {
    let text = include_str!("../templates/copy.js");
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8"), (CACHE_CONTROL, CACHE_ONE_DAY)], text).into_response()
}

/// What a query of a page may ask for, whatever else it has.
#[derive(Debug, Default, serde::Deserialize)]
pub struct NoticeParam {
    #[serde(default)]
    pub said: String,
}

/// A redirect that says what was done.
pub fn back(to: &str, said: &str) -> Response {
    let encoded: String = said.bytes().map(|byte| format!("%{byte:02X}")).collect();
    Redirect::to(&format!("{to}?said={encoded}")).into_response()
}

pub type NoticeQuery = Query<NoticeParam>;
