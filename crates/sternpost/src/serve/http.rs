//! Serves a router on a connection: HTTP/1.1, bounded in time.

use axum::Router;
use formats::limits::{HTTP_HEADER_BYTES, SOCKETMAP_TIME};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sender::serve::Shutdown;
use sender::serve::listen::{Serve, Stream};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

/// Serves this.
#[derive(Clone)]
pub struct Http(pub Router);

impl Serve for Http {
    async fn serve<S: Stream>(self, stream: S, _: Option<IpAddr>, shutdown: Shutdown) {
        connection(TowerToHyperService::new(self.0), stream, SOCKETMAP_TIME, shutdown).await;
    }
}

/// Serves one connection, whose client has so long for the head of a request; when the shutdown comes, what is begun is finished.
pub async fn connection<B, V, S>(service: V, stream: S, head: Duration, shutdown: Shutdown)
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    V: HttpService<Incoming, ResBody = B, Error = Infallible>,
    S: Stream,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HTTP_HEADER_BYTES);
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
