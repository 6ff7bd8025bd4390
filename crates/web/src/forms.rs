//! Receives the body of a form before anything else happens with its request, within a time and a share for each client:
//! a body that never ends would hold its connection, and the pages of everybody are served by the same connections. Also
//! turns the short texts of refused requests into pages.

use crate::client_addr::ClientAddr;
use crate::layout::ErrorPage;
use crate::sign_in::is_read;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use formats::limits::{FORM_BYTES, FORM_TIME, FORMS, FORMS_PER_CLIENT};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use net::rate_limit::{ClientLimit, LimitReached};
use std::sync::Arc;

/// The limit of forms that are being received. Clients of unknown address share the total only.
pub fn arriving() -> Arc<ClientLimit> {
    Arc::new(ClientLimit::new(FORMS, Some(FORMS_PER_CLIENT)))
}

/// The value of `Retry-After` if too many forms arrive, in seconds.
const RETRY_SECONDS: u32 = 5;

/// Receives the whole body of a form, and then passes the request on.
pub async fn receive(State(arriving): State<Arc<ClientLimit>>, request: Request, next: Next) -> Response {
    if is_read(request.method()) {
        return next.run(request).await;
    }
    let client = request.extensions().get::<ClientAddr>().and_then(|client| client.0);
    let place = match arriving.try_take(client) {
        Ok(place) => place,
        Err(LimitReached::Client) => {
            return refused(StatusCode::TOO_MANY_REQUESTS, "Too many forms arrive from your address.");
        }
        Err(LimitReached::Total) => {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "Too many forms arrive at the moment.");
        }
    };
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(FORM_TIME, Limited::new(body, FORM_BYTES).collect()).await;
    drop(place);
    match read {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body.to_bytes()))).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            refused(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large.")
        }
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, "The form did not arrive completely."),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "The form did not arrive in time."),
    }
}

/// A page that ends the connection, on which the rest of a body may still arrive.
fn refused(status: StatusCode, what: &str) -> Response {
    let mut response = ErrorPage::new(status, what).into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    }
    response
}

/// The response as a page, if the framework refused the request with a short text: a field is missing, or a value has the
/// wrong type.
pub async fn refused_as_page(response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_text = kind.is_some_and(|kind| kind.starts_with("text/plain"));
    match response.status() {
        status if status.is_client_error() && is_text => {
            let what = match status {
                StatusCode::UNSUPPORTED_MEDIA_TYPE => "This page takes forms only.",
                StatusCode::UNPROCESSABLE_ENTITY => {
                    "The form is incomplete, or has a value that is not valid."
                }
                _ => "The address has a value that is not valid.",
            };
            ErrorPage::new(status, what).into_response()
        }
        _ => response,
    }
}
