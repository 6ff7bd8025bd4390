//! Serves a router on a connection: HTTP/1.1, bounded in time.

use axum::Router;
use formats::limits::{HTTP_HEADER_BYTES, SOCKETMAP_TIME};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sender::serve::Shutdown;
use sender::serve::listen::{Serve, Stream};
use std::pin::pin;

/// Serves this.
#[derive(Clone)]
pub struct Http(pub Router);

impl Serve for Http {
    async fn serve<S: Stream>(self, stream: S, shutdown: Shutdown) {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(SOCKETMAP_TIME).max_buf_size(HTTP_HEADER_BYTES);
        let service = TowerToHyperService::new(self.0);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.token.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("an HTTP connection ends: {error}");
        }
    }
}
