//! Errors of the API: `application/problem+json` (RFC 9457). Each has a stable `type`, the three parts of a
//! [`Failure`](config::failure::Failure) as the members `what`, `why` and `remedy`, and the ID of the request.

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use axum::http::{Response as HttpResponse, StatusCode};
use axum::response::{IntoResponse, Response};
use config::failure::{Exit, Failure};
use formats::limits::FORM_BYTES;
use operations::store_failure;
use serde_json::{Value, json};
use store::StoreError;

/// The media type of errors.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// What a problem type begins with.
const PREFIX: &str = "urn:sternpost:problem:";
/// The maximum length of an error text of the HTTP library.
const MAX_ERROR_BYTES: usize = 4096;

/// The kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    RequestNotValid,
    TokenRefused,
    ScopeMissing,
    UnknownPath,
    UnknownDomain,
    UnknownReport,
    UnknownOperation,
    UnknownToken,
    MethodNotAllowed,
    DomainInFile,
    Refused,
    PlanInUse,
    VersionDiffers,
    BodyTooLarge,
    SettingsNotValid,
    LimitReached,
    Unavailable,
}

impl ProblemType {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::RequestNotValid,
        Self::TokenRefused,
        Self::ScopeMissing,
        Self::UnknownPath,
        Self::UnknownDomain,
        Self::UnknownReport,
        Self::UnknownOperation,
        Self::UnknownToken,
        Self::MethodNotAllowed,
        Self::DomainInFile,
        Self::Refused,
        Self::PlanInUse,
        Self::VersionDiffers,
        Self::BodyTooLarge,
        Self::SettingsNotValid,
        Self::LimitReached,
        Self::Unavailable,
    ];

    /// Status, name and title.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::RequestNotValid => (
                StatusCode::BAD_REQUEST,
                "request-not-valid",
                "The path, a parameter or a header is not valid",
            ),
            Self::TokenRefused => {
                (StatusCode::UNAUTHORIZED, "token-refused", "The token is missing, unknown or expired")
            }
            Self::ScopeMissing => {
                (StatusCode::FORBIDDEN, "scope-missing", "The token does not have the scope")
            }
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown-path", "No such path"),
            Self::UnknownDomain => (StatusCode::NOT_FOUND, "unknown-domain", "No such domain"),
            Self::UnknownReport => (StatusCode::NOT_FOUND, "unknown-report", "No such report"),
            Self::UnknownOperation => (StatusCode::NOT_FOUND, "unknown-operation", "No such operation"),
            Self::UnknownToken => (StatusCode::NOT_FOUND, "unknown-token", "No such token"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not have this method")
            }
            Self::DomainInFile => {
                (StatusCode::CONFLICT, "domain-in-file", "The domain is in the configuration file")
            }
            Self::Refused => (StatusCode::CONFLICT, "refused", "The present state does not allow the change"),
            Self::PlanInUse => (StatusCode::CONFLICT, "plan-in-use", "Another process applies the plan"),
            Self::VersionDiffers => (
                StatusCode::PRECONDITION_FAILED,
                "version-differs",
                "The settings are not those that the change was made for",
            ),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::SettingsNotValid => {
                (StatusCode::UNPROCESSABLE_ENTITY, "settings-not-valid", "The body or a name is not valid")
            }
            Self::LimitReached => (StatusCode::TOO_MANY_REQUESTS, "limit-reached", "A limit is reached"),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The store, the network or another server fails",
            ),
        }
    }

    /// The status of the response.
    pub fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The member `type`.
    pub fn uri(self) -> String {
        format!("{PREFIX}{}", self.parts().1)
    }

    /// The member `title`.
    pub fn title(self) -> &'static str {
        self.parts().2
    }
}

/// An error. As a response it has no body until [`with_request_id`] adds it.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemType,
    what: String,
    why: String,
    remedy: String,
}

impl Problem {
    /// What failed, why, and what to do.
    pub fn new(
        kind: ProblemType,
        what: impl Into<String>,
        why: impl ToString,
        remedy: impl Into<String>,
    ) -> Self {
        Self { kind, what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }

    /// A failure as a problem of this kind.
    pub fn of(kind: ProblemType, failure: &Failure) -> Self {
        let (what, why, remedy) = failure.parts();
        Self::new(kind, what, why, remedy)
    }

    /// The members that describe the error, for a line of a longer answer.
    pub fn parts(&self) -> Value {
        json!({ "type": self.kind.uri(), "what": self.what, "why": self.why, "remedy": self.remedy })
    }

    fn body(&self, status: StatusCode, request: &str) -> Value {
        let detail = match self.why.is_empty() {
            true => self.what.clone(),
            false => format!("{}: {}", self.what, self.why),
        };
        json!({
            "schema": 1,
            "type": self.kind.uri(),
            "title": self.kind.title(),
            "status": status.as_u16(),
            "detail": detail,
            "what": self.what,
            "why": self.why,
            "remedy": self.remedy,
            "request_id": request,
        })
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let kind = match failure.exit {
            Exit::Usage => ProblemType::SettingsNotValid,
            Exit::Findings => ProblemType::Refused,
            Exit::Fine | Exit::Unknown | Exit::Interrupted => ProblemType::Unavailable,
        };
        Self::of(kind, &failure)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        store_failure(&error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = HttpResponse::new(Body::empty());
        *response.status_mut() = self.kind.status();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives an error its body with the ID of the request. Errors of the HTTP library, which are plain text or empty, become
/// problems; their headers, such as `Allow`, stay.
pub async fn with_request_id(response: Response, request: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let problem = match head.extensions.remove::<Problem>() {
        Some(problem) => problem,
        None => {
            let text = to_bytes(body, MAX_ERROR_BYTES).await.unwrap_or_default();
            of_library(status, &String::from_utf8_lossy(&text))
        }
    };
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Response::from_parts(head, Body::from(problem.body(status, request).to_string()))
}

/// An error that the HTTP library answered.
fn of_library(status: StatusCode, text: &str) -> Problem {
    let (kind, what, remedy) = match status {
        StatusCode::METHOD_NOT_ALLOWED => (
            ProblemType::MethodNotAllowed,
            "the path does not have this method",
            "The header Allow lists its methods.".to_owned(),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (
            ProblemType::BodyTooLarge,
            "the body is too large",
            format!("Send at most {} KiB.", FORM_BYTES / 1024),
        ),
        status if status.is_server_error() => (
            ProblemType::Unavailable,
            "the request failed",
            "Try again; the log of the server has the reason.".to_owned(),
        ),
        _ => (ProblemType::RequestNotValid, "the request is not valid", "See docs/api.md.".to_owned()),
    };
    let reason = status.canonical_reason().unwrap_or("the request failed").to_lowercase();
    let why = if text.trim().is_empty() { reason.as_str() } else { text.trim() };
    Problem::new(kind, what, why, remedy)
}
