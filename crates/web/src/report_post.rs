//! Receives TLS reports by HTTPS POST (RFC 8460 §3, `rua=https:`) and passes them to the inbox. The path ends in a
//! secret of this store, so that only senders that read the `_smtp._tls` record can post. A domain may have an address of
//! its own, with its name after the secret: the report is then about that domain, which a report of DANE results or without
//! a policy does not say itself. A 2xx status is sent only after the report is stored durably (REC-03).

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use config::failure::Failure;
use config::{Config, InboxConfig};
use formats::DomainName;
use formats::limits::{INBOX_MESSAGE_TIME, REPORT_PACKED_BYTES};
use http_body_util::BodyExt;
use net::memory_budget::Reservation;
use operations::inbox::inbox;
use operations::world::World;
use operations::{RolloutContext, store_failure};
use receiver::inbox::{Inbox, InboxError, receive_buffers};
use std::sync::Arc;
use store::Store;
use store::reports::{Arrival, KeepOutcome};

/// The route that receives reports; `None` if `inbox.http` is not set.
///
/// # Errors
///
/// If the store can't provide the path's secret.
pub async fn router(config: &InboxConfig, store: &Store, world: &World) -> Result<Option<Router>, Failure> {
    let Some(place) = &config.http else { return Ok(None) };
    let path = format!("{place}/{}", secret(store).await?);
    let inbox = Arc::new(inbox(config, store, world, Arrival::Https));
    let of_domain = format!("{path}/{{domain}}");
    Ok(Some(
        Router::new().route(&path, post(receive)).route(&of_domain, post(receive_about)).with_state(inbox),
    ))
}

/// The secret part of the path, created at the first call.
async fn secret(store: &Store) -> Result<String, Failure> {
    let token = crate::auth::random_token()?;
    store.secret("reports", &token).await.map_err(|error| store_failure(&error))
}

/// The full URL for the `rua` of domains. A domain's own URL has its name after it: `URL/example.org`.
///
/// # Errors
///
/// If `inbox.http` or the dashboard is not configured, or the store fails.
pub async fn address(context: &RolloutContext) -> Result<String, Failure> {
    let config: &Config = &context.config;
    let place = config.inbox.as_ref().and_then(|inbox| inbox.http.as_ref());
    let (Some(place), Some(dashboard)) = (place, &config.dashboard) else {
        return Err(Failure::usage(
            "reports over HTTPS are disabled",
            "inbox.http or the dashboard is not configured",
            "Add\n  [dashboard]\n  url = \"https://reports.example.org\"\n  [inbox]\n  http = \"/reports\"",
        ));
    };
    Ok(format!("{}{place}/{}", dashboard.url, secret(&context.store).await?))
}

type Reply = (StatusCode, &'static str);

const TRY_LATER: Reply =
    (StatusCode::SERVICE_UNAVAILABLE, "too many reports are being received, try again later\n");

async fn receive(State(inbox): State<Arc<Inbox>>, body: Body) -> Reply {
    receive_from(&inbox, body, None).await
}

/// Receives a report at the address of a domain.
async fn receive_about(State(inbox): State<Arc<Inbox>>, Path(domain): Path<String>, body: Body) -> Reply {
    match DomainName::parse(&domain) {
        Ok(domain) => receive_from(&inbox, body, Some(domain)).await,
        Err(_) => (StatusCode::NOT_FOUND, "the address does not end in a domain name\n"),
    }
}

async fn receive_from(inbox: &Inbox, body: Body, domain: Option<DomainName>) -> Reply {
    let mut memory = receive_buffers().reservation();
    let body = tokio::time::timeout(INBOX_MESSAGE_TIME, read_body(body, &mut memory)).await;
    let bytes = match body.unwrap_or(Err((StatusCode::REQUEST_TIMEOUT, "the request took too long\n"))) {
        Ok(bytes) if bytes.is_empty() => return (StatusCode::BAD_REQUEST, "the request body is empty\n"),
        Ok(bytes) => bytes,
        Err(reply) => return reply,
    };
    match inbox.accept_posted(bytes, domain).await {
        Ok(outcome) => {
            tracing::info!(?outcome, "reports received over HTTPS");
            let is_new = outcome.reports.iter().any(|report| report.kept == KeepOutcome::New);
            match outcome.quarantined {
                None if is_new => (StatusCode::CREATED, "stored\n"),
                None => (StatusCode::OK, "already stored\n"),
                Some(_) if outcome.reports.is_empty() => {
                    (StatusCode::ACCEPTED, "stored, but can't be parsed as a report\n")
                }
                Some(_) => (StatusCode::ACCEPTED, "stored, but not everything can be parsed as a report\n"),
            }
        }
        Err(InboxError::Busy(_)) => TRY_LATER,
        Err(InboxError::Store(error)) => {
            tracing::error!(%error, "can't store a report received over HTTPS");
            (StatusCode::SERVICE_UNAVAILABLE, "try again later\n")
        }
    }
}

/// Reads the body into memory that is reserved before it is used.
async fn read_body(mut body: Body, memory: &mut Reservation) -> Result<Vec<u8>, Reply> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err((StatusCode::BAD_REQUEST, "the request body is incomplete\n"));
        };
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > REPORT_PACKED_BYTES {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "the report is too large\n"));
        }
        if length > bytes.capacity() {
            let capacity = (bytes.capacity() * 2).clamp(length, REPORT_PACKED_BYTES);
            if !memory.cover(capacity) {
                return Err(TRY_LATER);
            }
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::limits::{INBOX_BUFFER_BYTES, INBOX_SMALL_BYTES};
    use net::memory_budget::MemoryBudget;

    #[tokio::test]
    async fn a_posted_body_is_bounded_by_the_limit_of_a_report_and_by_the_memory_of_all() {
        let budget = MemoryBudget::new(INBOX_BUFFER_BYTES, INBOX_SMALL_BYTES);
        let read = async |size: usize| {
            let mut memory = budget.reservation();
            let read = read_body(Body::from(vec![0; size]), &mut memory).await;
            read.map(|bytes| (bytes.len(), memory.bytes())).map_err(|(status, _)| status.as_u16())
        };
        assert_eq!(read(REPORT_PACKED_BYTES).await, Ok((REPORT_PACKED_BYTES, REPORT_PACKED_BYTES)));
        assert_eq!(read(REPORT_PACKED_BYTES + 1).await, Err(413));
        assert_eq!(budget.used(), 0);
        let mut others = budget.reservation();
        assert!(others.cover(INBOX_BUFFER_BYTES / 4 * 3));
        assert_eq!(read(REPORT_PACKED_BYTES).await, Err(503));
        assert_eq!(read(1000).await, Ok((1000, 1000)));
    }
}
