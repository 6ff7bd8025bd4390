//! Serves an [`axum::Router`] on a connection: HTTP/1.1 with limits on the time and size of the request head, and on the time
//! of a whole request with its response, so that a client that stops sending or reading does not hold its connection.

use super::certificate::Certificate;
use super::tasks::Tasks;
use axum::Router;
use config::CertificateFiles;
use config::failure::Failure;
use formats::limits::{HTTP_EXCHANGE_TIME, HTTP_HEADER_BYTES, SOCKETMAP_TIME};
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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
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
        // Only the operator's own programs come over a Unix socket; an export of the cache may take long.
        let exchange = from.map(|_| HTTP_EXCHANGE_TIME);
        let options = HttpOptions { head: SOCKETMAP_TIME, exchange, client: Some((from, false)) };
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
            let client = Some((from, self.behind_proxy));
            let options = HttpOptions { head: SOCKETMAP_TIME, exchange: Some(HTTP_EXCHANGE_TIME), client };
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
    /// Time limit for a request, from its head to the end of its response; `None` does not limit it.
    pub exchange: Option<Duration>,
    /// If set, each request gets a [`ClientAddr`]: from the peer's address or, if the flag is true, from the header
    /// that a trusted proxy adds.
    pub client: Option<(Option<IpAddr>, bool)>,
}

/// Serves one connection. At shutdown, a request in progress is finished. A request that takes longer than
/// [`HttpOptions::exchange`] ends with the connection.
pub async fn connection(router: Router, stream: AnyStream, options: HttpOptions, shutdown: Shutdown) {
    let router = TowerToHyperService::new(router);
    let begun = Arc::new(LastRequest(Mutex::new(Instant::now())));
    let requests = begun.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        requests.begins();
        if let Some((from, behind_proxy)) = options.client {
            let client = ClientAddr::of(request.headers(), from, behind_proxy);
            request.extensions_mut().insert(client);
        }
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(options.head).max_buf_size(HTTP_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.token.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = begun.is_older_than(options.exchange) => return tracing::debug!("HTTP connection closed: a request took too long"),
    };
    if let Err(error) = ended {
        tracing::debug!("HTTP connection failed: {error}");
    }
}

/// When the last request of a connection began; at first, when the connection did.
struct LastRequest(Mutex<Instant>);

impl LastRequest {
    fn begins(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the last request is older than `time`; for ever if there is none.
    async fn is_older_than(&self, time: Option<Duration>) {
        let Some(time) = time else { return std::future::pending().await };
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + time;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What the server sends on a connection with these requests, until it closes it, and how long that takes. The client
    /// never closes it, and reads only in the end.
    async fn served(sent: &str) -> (String, Duration) {
        let router = Router::new()
            .route("/read", post(|body: Bytes| async move { body.len().to_string() }))
            .route("/large", get(|| async { "x".repeat(1 << 20) }))
            .route("/small", get(|| async { "y" }));
        let (mut client, server) = tokio::io::duplex(65_536);
        let begun = Instant::now();
        client.write_all(sent.as_bytes()).await.unwrap();
        let exchange = Some(HTTP_EXCHANGE_TIME);
        let options = HttpOptions { head: SOCKETMAP_TIME, exchange, client: None };
        connection(router, Box::new(server), options, Shutdown::default()).await;
        let took = begun.elapsed();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        (answer, took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_or_reading_loses_the_connection() {
        let head = "HTTP/1.1\r\nhost: a\r\n";
        for sent in [
            format!("POST /read {head}content-length: 100\r\n\r\nhalf"),
            format!("POST /read {head}transfer-encoding: chunked\r\n\r\n5\r\nha"),
            format!("GET /large {head}connection: close\r\n\r\n"),
        ] {
            let (answer, took) = served(&sent).await;
            assert!(took <= HTTP_EXCHANGE_TIME + Duration::from_secs(1), "{took:?} {sent}");
            assert!(!answer.contains("200 OK") || sent.starts_with("GET"), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_after_the_time_for_a_head() {
        let (answer, took) = served("GET /small HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("y"), "{answer}");
        assert!(took <= SOCKETMAP_TIME + Duration::from_secs(1), "{took:?}");
        assert!(served("").await.1 <= SOCKETMAP_TIME + Duration::from_secs(1));
    }
}
