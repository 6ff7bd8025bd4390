//! Serves an [`axum::Router`] on a connection: HTTP/1.1 with limits on the time and size of the request head.

use super::certificate::Certificate;
use super::tasks::Tasks;
use axum::Router;
use config::CertificateFiles;
use config::failure::Failure;
use formats::limits::{HTTP_HEADER_BYTES, SOCKETMAP_TIME};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use net::BoxFuture;
use net::smtp::server::AnyStream;
use sender::serve::Shutdown;
use sender::serve::listen::Serve;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use web::ClientAddr;

/// A router for programs, which no proxy is in front of.
#[derive(Clone)]
pub struct Http(pub Router);

impl Serve for Http {
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        from: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        let options = HttpOptions { head: SOCKETMAP_TIME, client: Some((from, false)) };
        Box::pin(connection(self.0.clone(), stream, options, shutdown))
    }
}

/// A router that uses the client's address, over HTTP or, with a certificate, over HTTPS. The dashboard and the collector
/// are served by it.
#[derive(Clone)]
pub struct HttpsRouter {
    router: Router,
    certificate: Option<Arc<Certificate>>,
    /// True if the connections come from a proxy, which adds the client's address to requests.
    behind_proxy: bool,
}

impl HttpsRouter {
    /// Loads the certificate, and keeps it up to date in the task `reload`.
    pub fn new(
        router: Router,
        files: Option<&CertificateFiles>,
        behind_proxy: bool,
        reload: &'static str,
        tasks: &mut Tasks,
    ) -> Result<Self, Failure> {
        let certificate = files.map(|files| Certificate::load(files, &[b"http/1.1"])).transpose()?;
        if let Some(certificate) = certificate.clone() {
            tasks.spawn(reload, move || certificate.clone().keep());
        }
        Ok(Self { router, certificate, behind_proxy })
    }

    /// True if the connections come from a proxy.
    pub fn is_behind_proxy(&self) -> bool {
        self.behind_proxy
    }

    /// The certificate, if connections are over TLS.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.certificate.as_ref()
    }

    /// True if connections are plain HTTP.
    pub fn is_plain(&self) -> bool {
        self.certificate.is_none()
    }
}

impl Serve for HttpsRouter {
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        from: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let options = HttpOptions { head: SOCKETMAP_TIME, client: Some((from, self.behind_proxy)) };
            let certificate = self.certificate.as_deref();
            connection_with_tls(certificate, self.router.clone(), stream, options, shutdown).await;
        })
    }
}

/// Time limit for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one connection, over TLS if there is a certificate.
async fn connection_with_tls(
    certificate: Option<&Certificate>,
    router: Router,
    stream: AnyStream,
    options: HttpOptions,
    shutdown: Shutdown,
) {
    let Some(certificate) = certificate else { return connection(router, stream, options, shutdown).await };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, certificate.acceptor().accept(stream)).await;
    if let Ok(Ok(stream)) = handshake {
        connection(router, Box::new(stream), options, shutdown).await;
    }
}

/// Options for serving a connection.
pub struct HttpOptions {
    /// Time limit for the head of a request.
    pub head: Duration,
    /// If set, each request gets a [`ClientAddr`]: from the peer's address or, if the flag is true, from the header
    /// that a trusted proxy adds.
    pub client: Option<(Option<IpAddr>, bool)>,
}

/// Serves one connection. At shutdown, a request in progress is finished.
pub async fn connection(router: Router, stream: AnyStream, options: HttpOptions, shutdown: Shutdown) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some((from, behind_proxy)) = options.client {
            let client = ClientAddr::of(request.headers(), from, behind_proxy);
            request.extensions_mut().insert(client);
        }
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(options.head).max_buf_size(HTTP_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.token.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("HTTP connection failed: {error}");
    }
}
