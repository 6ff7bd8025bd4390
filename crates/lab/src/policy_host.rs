//! The lab's policy hosts (RFC 8461 §3.3): one HTTPS listener for all domains. The SNI of the client selects the
//! [`Site`], whose [`HttpBehavior`] is correct or has one fault.

use crate::dns::AbortOnDrop;
use crate::pki::Identity;
use crate::traffic::{Fetch, FetchStep, Observed, Traffic};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

/// The behavior of a policy host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpBehavior {
    /// Serves this body as `text/plain`.
    Policy(String),
    /// Serves this body with the given media type.
    Typed(&'static str, Vec<u8>),
    /// Redirects to this URL with status 301.
    Redirect(String),
    /// Returns this status without a policy.
    Status(u16),
    /// Returns a body with `Content-Encoding: gzip`.
    Compressed,
    /// Closes the connection in the middle of the body.
    CutOff,
    /// Sends the headers but no body.
    Stalls,
    /// Sends one byte of the body every 50 ms, too slowly for any time-out.
    Drips,
    /// Sends a body that never ends.
    Endless,
    /// Accepts the connection and sends nothing.
    Silent,
    /// Closes the connection during the TLS handshake.
    Aborts,
    /// Supports only TLS 1.0.
    OldTls,
    /// Serves this body after a delay.
    Slow(std::time::Duration, String),
    /// Serves this body with an additional header (name, value, body).
    Header(&'static str, &'static str, String),
    /// Serves this body, but an HTML page to clients with a browser's `User-Agent`.
    Browsers(String),
    /// Returns status 403 with a browser challenge.
    Challenge,
    /// Serves this body by HTTP/1.0, which has no length but the end of the connection.
    Http10(String),
    /// Serves this body in chunks of 20 bytes (RFC 9112 §7.1).
    Chunked(String),
    /// Serves this body by HTTP/2 to clients that offer it (ALPN, RFC 7301), and by HTTP/1.1 to others.
    Http2(String),
    /// Takes TLS reports that are posted (RFC 8460 §5.4): the host is no policy host.
    TakesReports,
}

/// A request body that was posted to a host that takes TLS reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The host by SNI.
    pub host: String,
    /// The path of the request.
    pub path: String,
    /// The `Content-Type`; empty if there was none.
    pub media_type: String,
    /// The body, at most [`MAX_POSTED`] bytes.
    pub body: Vec<u8>,
}

/// The largest body that a host takes.
pub const MAX_POSTED: usize = 1 << 20;
/// The maximum number of bodies that wait to be taken out; further ones are refused.
const MAX_WAITING: usize = 1000;

/// The certificate and the behavior of one policy host.
#[derive(Clone)]
pub struct Site {
    /// The HTTPS behavior of the host.
    pub answers: HttpBehavior,
    /// The certificate and key of the host.
    pub identity: Identity,
}

/// The HTTPS server of all policy hosts. Dropping it stops the server.
pub struct PolicyHosts {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortOnDrop>>,
}

#[derive(Default)]
struct Shared {
    sites: RwLock<HashMap<String, Site>>,
    blocked: RwLock<HashSet<String>>,
    fetches: Mutex<HashMap<String, u64>>,
    posted: Mutex<Vec<Posted>>,
    observer: RwLock<Option<Traffic>>,
}

/// Records the steps of one connection, if somebody observes the lab. Its end is recorded when it is dropped.
struct Watch {
    traffic: Option<Traffic>,
    client: IpAddr,
    host: String,
    is_complete: bool,
}

impl Watch {
    fn step(&self, step: FetchStep) {
        if let Some(traffic) = &self.traffic {
            traffic.record(self.client, Observed::Fetch(Fetch { host: self.host.clone(), step }));
        }
    }

    fn request(&self, request: &Request<hyper::body::Incoming>) {
        let (uri, header) = (request.uri(), request.headers().get(hyper::header::HOST));
        let (path, host) = match request.version() {
            // HTTP/2 has the pseudo-headers `:path` and `:authority` (RFC 9113 §8.3.1).
            hyper::Version::HTTP_2 => (uri.path().to_owned(), uri.authority().map(ToString::to_string)),
            _ => (uri.to_string(), header.and_then(|value| value.to_str().ok()).map(str::to_owned)),
        };
        let method = request.method().to_string();
        self.step(FetchStep::Request { method, path, host: host.unwrap_or_default() });
    }

    /// Records a request from the first line and the `Host` header of its head.
    fn head(&self, head: &[u8]) {
        let text = String::from_utf8_lossy(head);
        let mut words = text.split_whitespace();
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (method, path) = (word(), word());
        let host = text
            .lines()
            .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("host")));
        let host = host.map(|(_, value)| value.trim().to_owned()).unwrap_or_default();
        self.step(FetchStep::Request { method, path, host });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.step(FetchStep::Ended(self.is_complete));
    }
}

impl PolicyHosts {
    /// Starts serving on this listener, without any sites.
    pub fn start(listener: TcpListener) -> Self {
        let this = Self { shared: Arc::default(), tasks: Mutex::default() };
        this.listen(listener);
        this
    }

    /// Serves the same sites on one more listener, such as one with an IPv6 address.
    pub fn listen(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, client)) = listener.accept().await {
                tokio::spawn(serve(stream, client.ip(), shared.clone()));
            }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(AbortOnDrop(task));
    }

    /// Adds or replaces the site of a host.
    pub fn put(&self, host: &str, site: Site) {
        self.shared.sites.write().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), site);
    }

    /// Removes and returns the bodies that were posted so far.
    pub fn take_posted(&self) -> Vec<Posted> {
        std::mem::take(&mut *self.shared.posted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the site of `host` the default for clients without SNI.
    pub fn put_default(&self, host: &str) {
        let mut sites = self.shared.sites.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = sites.get(host).cloned() {
            sites.insert(String::new(), site);
        }
    }

    /// Starts or stops closing all connections to a host, as an attacker would.
    pub fn block(&self, host: &str, blocked: bool) {
        let mut all = self.shared.blocked.write().unwrap_or_else(PoisonError::into_inner);
        if blocked {
            all.insert(host.to_owned())
        } else {
            all.remove(host)
        };
    }

    /// Records from now on what clients do.
    pub fn observe(&self, traffic: &Traffic) {
        *self.shared.observer.write().unwrap_or_else(PoisonError::into_inner) = Some(traffic.clone());
    }

    /// The number of connections to a host so far, by SNI.
    pub fn fetches(&self, host: &str) -> u64 {
        self.shared.fetches.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A TLS acceptor that always presents this identity, for HTTPS and SMTP.
pub(crate) fn acceptor(identity: &Identity) -> Result<TlsAcceptor, rustls::Error> {
    Ok(TlsAcceptor::from(Arc::new(config(identity)?)))
}

fn config(identity: &Identity) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Only(identity.certified.clone()))))
}

async fn serve(stream: TcpStream, client: IpAddr, shared: Arc<Shared>) -> io::Result<()> {
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    let host = hello.client_hello().server_name().unwrap_or_default().to_owned();
    let traffic = shared.observer.read().unwrap_or_else(PoisonError::into_inner).clone();
    let mut watch = Watch { traffic, client, host: host.clone(), is_complete: false };
    watch.step(FetchStep::Hello);
    let blocked = shared.blocked.read().unwrap_or_else(PoisonError::into_inner).contains(&host);
    let site = shared.sites.read().unwrap_or_else(PoisonError::into_inner).get(&host).cloned();
    let Some(site) = site.filter(|_| !blocked) else { return Ok(()) };
    *shared.fetches.lock().unwrap_or_else(PoisonError::into_inner).entry(host).or_default() += 1;
    match site.answers {
        HttpBehavior::Aborts => return Ok(()),
        HttpBehavior::Silent => return until_closed(hello.io).await,
        HttpBehavior::OldTls => {
            let mut stream = hello.io;
            stream.write_all(&server_hello_of_tls_1_0()).await?;
            return stream.shutdown().await;
        }
        _ => {}
    }
    let mut config = config(&site.identity).map_err(io::Error::other)?;
    if matches!(site.answers, HttpBehavior::Http2(_)) {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    let mut stream = match hello.into_stream(Arc::new(config)).await {
        Ok(stream) => stream,
        Err(error) => {
            watch.step(FetchStep::HandshakeFailed(error.to_string()));
            return Err(error);
        }
    };
    if matches!(
        site.answers,
        HttpBehavior::CutOff
            | HttpBehavior::Stalls
            | HttpBehavior::Drips
            | HttpBehavior::Endless
            | HttpBehavior::Http10(_)
            | HttpBehavior::Chunked(_)
    ) {
        watch.head(&read_head(&mut stream).await?);
    }
    match &site.answers {
        HttpBehavior::CutOff => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\nversion: STSv1\r\n").await?;
            stream.shutdown().await
        }
        HttpBehavior::Stalls => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\n")
                .await?;
            stream.flush().await?;
            until_closed(stream).await
        }
        HttpBehavior::Drips => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 500\r\n\r\n")
                .await?;
            loop {
                stream.write_all(b"v").await?;
                stream.flush().await?;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
        HttpBehavior::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'v'; 1024]).await?;
            }
        }
        HttpBehavior::Http10(body) => {
            let text = format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}");
            stream.write_all(text.as_bytes()).await?;
            watch.is_complete = true;
            stream.shutdown().await
        }
        HttpBehavior::Chunked(body) => {
            stream.write_all(&chunked(body)).await?;
            watch.is_complete = true;
            stream.shutdown().await
        }
        HttpBehavior::TakesReports => {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                watch.request(&request);
                let (shared, host) = (shared.clone(), watch.host.clone());
                async move { Ok::<_, Infallible>(take(request, host, &shared).await) }
            });
            let http = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            http.await.map_err(io::Error::other)
        }
        HttpBehavior::Http2(_) if stream.get_ref().1.alpn_protocol() == Some(b"h2".as_slice()) => {
            let outcome = http2(stream, &site.answers, &watch).await;
            watch.is_complete = outcome.is_ok();
            outcome
        }
        answers => {
            let service = service_fn(|request: Request<hyper::body::Incoming>| {
                watch.request(&request);
                let response = response(answers, &request);
                let wait = match answers {
                    HttpBehavior::Slow(time, _) => *time,
                    _ => std::time::Duration::ZERO,
                };
                async move {
                    tokio::time::sleep(wait).await;
                    Ok::<_, Infallible>(response)
                }
            });
            // One request for each connection: a connection that a client keeps open looks like a fetch that goes on.
            let http = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let outcome = http.await.map_err(io::Error::other);
            watch.is_complete = outcome.is_ok();
            outcome
        }
    }
}

/// Serves one request by HTTP/2. A connection that a client keeps open looks like a fetch that goes on.
async fn http2(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    answers: &HttpBehavior,
    watch: &Watch,
) -> io::Result<()> {
    let asked = tokio::sync::Notify::new();
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        watch.request(&request);
        let response = response(answers, &request);
        asked.notify_one();
        async move { Ok::<_, Infallible>(response) }
    });
    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    let mut http = std::pin::pin!(http);
    let outcome = tokio::select! {
        outcome = http.as_mut() => outcome,
        () = asked.notified() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    outcome.map_err(io::Error::other)
}

/// Keeps the body of a POST, and answers with status 201.
async fn take(
    request: Request<hyper::body::Incoming>,
    host: String,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let status = |status: u16| {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
    };
    if request.method() != hyper::Method::POST {
        return status(405);
    }
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let (media_type, path) = (media_type.unwrap_or_default().to_owned(), request.uri().path().to_owned());
    let Ok(body) = Limited::new(request.into_body(), MAX_POSTED).collect().await else { return status(413) };
    let mut posted = shared.posted.lock().unwrap_or_else(PoisonError::into_inner);
    if posted.len() >= MAX_WAITING {
        return status(503);
    }
    posted.push(Posted { host, path, media_type, body: body.to_bytes().to_vec() });
    status(201)
}

/// A complete response with this body in chunks of 20 bytes.
fn chunked(body: &str) -> Vec<u8> {
    let mut text =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.as_bytes().chunks(20) {
        text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        text.extend_from_slice(chunk);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

/// Reads a complete request head, so that the response does not precede the request.
async fn read_head(stream: &mut tokio_rustls::server::TlsStream<TcpStream>) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// Sends nothing more and waits until the client closes the connection.
async fn until_closed(mut stream: impl AsyncRead + Unpin) -> io::Result<()> {
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

fn response(answers: &HttpBehavior, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let build = |status: u16, media_type: &str, body: Vec<u8>| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if let Ok(value) = media_type.parse() {
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        response
    };
    let is_browser = request
        .headers()
        .get(hyper::header::USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla"));
    if request.uri().path() != net::https::POLICY_PATH {
        return build(404, "text/plain", b"not here".to_vec());
    }
    match answers {
        HttpBehavior::Browsers(_) if is_browser => build(200, "text/html", b"<p>Hello there".to_vec()),
        HttpBehavior::Slow(_, body) | HttpBehavior::Browsers(body) | HttpBehavior::Http2(body) => {
            build(200, "text/plain", body.clone().into_bytes())
        }
        HttpBehavior::Header(name, value, body) => {
            let mut response = build(200, "text/plain", body.clone().into_bytes());
            response.headers_mut().insert(
                hyper::header::HeaderName::from_static(name),
                hyper::header::HeaderValue::from_static(value),
            );
            response
        }
        HttpBehavior::Challenge => {
            let mut response = build(403, "text/html", b"<title>Just a moment...</title>".to_vec());
            response
                .headers_mut()
                .insert("cf-mitigated", hyper::header::HeaderValue::from_static("challenge"));
            response
        }
        HttpBehavior::Policy(body) => build(200, "text/plain; charset=utf-8", body.clone().into_bytes()),
        HttpBehavior::Typed(media_type, body) => build(200, media_type, body.clone()),
        HttpBehavior::Status(status) => build(*status, "text/plain", b"no policy".to_vec()),
        HttpBehavior::Redirect(to) => {
            let mut response = build(301, "text/plain", Vec::new());
            if let Ok(value) = to.parse() {
                response.headers_mut().insert(LOCATION, value);
            }
            response
        }
        HttpBehavior::Compressed => {
            let mut response = build(200, "text/plain", vec![0x1f, 0x8b, 8, 0]);
            response.headers_mut().insert(CONTENT_ENCODING, hyper::header::HeaderValue::from_static("gzip"));
            response
        }
        _ => build(500, "text/plain", Vec::new()),
    }
}

/// The ServerHello of a server that supports only TLS 1.0.
pub(crate) fn server_hello_of_tls_1_0() -> Vec<u8> {
    server_hello(0x0301, 0x002f)
}

/// A ServerHello up to TLS 1.2, without extensions (RFC 2246 §7.4.1.3, RFC 5246 §7.4.1.3).
pub(crate) fn server_hello(version: u16, cipher: u16) -> Vec<u8> {
    const BODY: u8 = 2 + 32 + 1 + 2 + 1;
    let [high, low] = version.to_be_bytes();
    let mut record = vec![22, high, low, 0, BODY + 4, 2, 0, 0, BODY, high, low];
    record.extend([7; 32]);
    record.push(0);
    record.extend(cipher.to_be_bytes());
    record.push(0);
    record
}

/// Binds a listener. The error text contains the address.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}
