//! Receives TLS reports by HTTPS POST (RFC 8460 §3, `rua=https:`) and passes them to the inbox. The path ends in a
//! secret of this store, so that only senders that read the `_smtp._tls` record can post. A 2xx status is sent only
//! after the report is stored durably (REC-03).

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use config::failure::Failure;
use config::{Config, InboxConfig};
use formats::limits::REPORT_PACKED_BYTES;
use operations::inbox::inbox;
use operations::world::World;
use operations::{RolloutContext, store_failure};
use receiver::inbox::{Inbox, InboxOutcome};
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
    let router = Router::new()
        .route(&path, post(receive))
        .layer(DefaultBodyLimit::max(REPORT_PACKED_BYTES))
        .with_state(inbox);
    Ok(Some(router))
}

/// The secret part of the path, created at the first call.
async fn secret(store: &Store) -> Result<String, Failure> {
    let token = crate::auth::random_token()?;
    store.secret("reports", &token).await.map_err(|error| store_failure(&error))
}

/// The full URL for the `rua` of domains.
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

async fn receive(State(inbox): State<Arc<Inbox>>, body: Bytes) -> (StatusCode, &'static str) {
    if body.is_empty() {
        return (StatusCode::BAD_REQUEST, "the request body is empty\n");
    }
    match inbox.accept_file(&body, "").await {
        Ok(outcome) => {
            tracing::info!(?outcome, "report received over HTTPS");
            match outcome {
                InboxOutcome::Report { kept: KeepOutcome::New, .. } => (StatusCode::CREATED, "stored\n"),
                InboxOutcome::Report { .. } => (StatusCode::OK, "already stored\n"),
                InboxOutcome::Quarantined(_) => {
                    (StatusCode::ACCEPTED, "stored, but can't be parsed as a report\n")
                }
            }
        }
        Err(error) => {
            tracing::error!(%error, "can't store a report received over HTTPS");
            (StatusCode::SERVICE_UNAVAILABLE, "try again later\n")
        }
    }
}
