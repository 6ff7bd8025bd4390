//! What all pages share: the frame with navigation and notices, security headers, error pages, and static files.

use crate::text::without_controls;
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

/// An entry of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Domains,
    Reports,
    Senders,
    Journal,
    Sending,
    Settings,
    /// The account of the user, which the header links to.
    Account,
}

impl Section {
    /// Each section with its path and its label.
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Domains, "/", "Domains"),
        (Self::Reports, "/reports", "Reports"),
        (Self::Senders, "/senders", "Senders"),
        (Self::Journal, "/journal", "Journal"),
        (Self::Sending, "/sending", "Sending"),
        (Self::Settings, "/settings", "Settings"),
    ];
}

/// The frame of a page, rendered by `base.html`.
pub struct Frame {
    /// The page's title.
    pub title: String,
    /// The signed-in user; `None` before sign-in.
    pub visitor: Option<Visitor>,
    /// The navigation: path, label, and whether it is the current section.
    pub nav: Vec<(&'static str, &'static str, bool)>,
    /// A notice about the last action; may be empty.
    pub notice: String,
    /// The program's version.
    pub version: &'static str,
}

impl Frame {
    /// The frame for a signed-in user.
    pub fn new(title: impl Into<String>, here: Section, visitor: &Visitor) -> Self {
        // What is sent belongs to the installation.
        let is_shown = |place: Section| place != Section::Sending || visitor.is_of_installation;
        let sections = Section::ALL.iter().filter(|(place, ..)| is_shown(*place));
        let nav = sections.map(|(place, to, name)| (*to, *name, *place == here)).collect();
        Self { visitor: Some(visitor.clone()), nav, ..Self::outside(title) }
    }

    /// The frame before sign-in, without navigation.
    pub fn outside(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            visitor: None,
            nav: Vec::new(),
            notice: String::new(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// True if the user may make changes.
    pub fn is_operator(&self) -> bool {
        self.visitor.as_ref().is_some_and(Visitor::is_operator)
    }

    /// The session's CSRF token; empty before sign-in.
    pub fn csrf_token(&self) -> &str {
        self.visitor.as_ref().map_or("", |visitor| visitor.csrf_token.as_str())
    }
}

/// A response, or an error page.
pub type Answer = Result<Response, ErrorPage>;

/// An error, rendered as a page with its status.
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
        tracing::error!("can't render a page because the store fails: {error}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The store fails; see the log for the reason.")
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorTemplate {
    frame: Frame,
    what: String,
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let title = match self.status {
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::CONFLICT => "Not possible now",
            StatusCode::TOO_MANY_REQUESTS => "Too many requests",
            StatusCode::UNPROCESSABLE_ENTITY => "Not valid",
            status => status.canonical_reason().unwrap_or("Error"),
        };
        let page = ErrorTemplate { frame: Frame::outside(title), what: self.what };
        (self.status, Html(without_controls(page.render().unwrap_or_default()))).into_response()
    }
}

/// Renders a page as a response, without the invisible characters that texts of strangers may contain.
pub fn html(page: &impl Template) -> Answer {
    page.render().map(|text| Html(without_controls(text)).into_response()).map_err(|error| {
        tracing::error!("can't render a page: {error}");
        ErrorPage::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The page can't be rendered; see the log for the reason.",
        )
    })
}

/// The fallback for unknown paths.
pub async fn page_not_found() -> ErrorPage {
    ErrorPage::not_found("This page does not exist.")
}

/// The fallback for a method that a path does not have.
pub async fn method_not_allowed() -> ErrorPage {
    ErrorPage::new(StatusCode::METHOD_NOT_ALLOWED, "This page can't be requested in this way.")
}

/// Allows only resources and forms of this origin, and forbids framing.
const SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Adds security headers to every response of the dashboard, and forbids caching by default. The public check has headers of
/// its own.
pub async fn add_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, SECURITY_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer`, browsers would send `Origin: null` with our own forms too.
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Cache-Control of static files, whose URLs carry the program's version.
const CACHE_ONE_DAY: &str = "public, max-age=86400";

/// The style sheet: that of the pages of `sternpost check`, and what the dashboard has beyond it.
pub async fn style() -> Response {
    let text = format!("{}{}", check::render::page::STYLE, include_str!("../templates/dashboard.css"));
    ([(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, CACHE_ONE_DAY)], text).into_response()
}

pub async fn script() -> Response {
    let text = include_str!("../templates/page.js");
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8"), (CACHE_CONTROL, CACHE_ONE_DAY)], text).into_response()
}

/// The icon of the site.
pub async fn icon() -> Response {
    let text = include_str!("../templates/mark.svg");
    ([(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, CACHE_ONE_DAY)], text).into_response()
}

/// The query parameter with the notice of the last action; other parameters are ignored.
#[derive(Debug, Default, serde::Deserialize)]
pub struct NoticeParam {
    #[serde(default)]
    pub said: String,
}

/// Redirects to `to`, whose page then shows the notice (`notices`).
pub fn redirect_with_notice(to: &str, notice: &str) -> Response {
    let encoded: String = notice.bytes().map(|byte| format!("%{byte:02X}")).collect();
    Redirect::to(&format!("{to}?said={encoded}")).into_response()
}

/// The extractor for [`NoticeParam`].
pub type NoticeQuery = Query<NoticeParam>;
