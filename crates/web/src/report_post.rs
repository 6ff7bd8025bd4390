//! Reports by HTTPS POST (RFC 8460 §3, `rua=https:`). The path ends in a secret of this store, so that
//! only who reads the record can write here; 2xx is said once the report is durable (REC-03).

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

/// Takes reports at their path; nothing when they are not taken by HTTPS.
pub async fn router(config: &InboxConfig, store: &Store, world: &World) -> Result<Option<Router>, Failure> {
    let Some(place) = &config.http else { return Ok(None) };
    let path = format!("{place}/{}", secret(store).await?);
    let inbox = Arc::new(inbox(config, store, world, Arrival::Https));
    let router = Router::new()
        .route(&path, post(take))
        .layer(DefaultBodyLimit::max(REPORT_PACKED_BYTES))
        .with_state(inbox);
    Ok(Some(router))
}

async fn secret(store: &Store) -> Result<String, Failure> {
    let word = crate::auth::random_word()?;
    store.secret("reports", &word).await.map_err(|error| store_failure(&error))
}

/// The URL for the `rua` of domains.
pub async fn address(context: &RolloutContext) -> Result<String, Failure> {
    let config: &Config = &context.config;
    let place = config.inbox.as_ref().and_then(|inbox| inbox.http.as_ref());
    let (Some(place), Some(dashboard)) = (place, &config.dashboard) else {
        return Err(Failure::usage(
            "reports are not taken by HTTPS",
            "the configuration names no path for them",
            "Write\n  [dashboard]\n  url = \"https://reports.example.org\"\n  [inbox]\n  http = \"/reports\"",
        ));
    };
    Ok(format!("{}{place}/{}", dashboard.url, secret(&context.store).await?))
}

async fn take(State(inbox): State<Arc<Inbox>>, body: Bytes) -> (StatusCode, &'static str) {
    if body.is_empty() {
        return (StatusCode::BAD_REQUEST, "there is no report\n");
    }
    match inbox.accept_file(&body, "").await {
        Ok(taken) => {
            tracing::info!(?taken, "report by HTTPS");
            match taken {
                InboxOutcome::Report { kept: KeepOutcome::New, .. } => (StatusCode::CREATED, "kept\n"),
                InboxOutcome::Report { .. } => (StatusCode::OK, "kept before\n"),
                InboxOutcome::Quarantined(_) => {
                    (StatusCode::ACCEPTED, "kept, and can't be read as a report\n")
                }
            }
        }
        Err(error) => {
            tracing::error!(%error, "a report by HTTPS can't be kept");
            (StatusCode::SERVICE_UNAVAILABLE, "try again later\n")
        }
    }
}
