//! Serves policy files over HTTPS: `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` and nothing else
//! (RFC 8461 §3.3, §7.1, §8.2), with certificates that it orders by ACME (RFC 8555). Policies and certificates come
//! from the store; other instances that share the store serve the same.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`PolicyHost`] | serves connections: selects the certificate by SNI, speaks HTTP/1.1 and HTTP/2 |
//! | [`SiteCache`] | bounded in-memory cache of policies and certificates, in front of the store |
//! | [`challenge`] | plain HTTP: answers ACME challenges |
//! | [`order`] | selects the certificates that are due, and orders them |
//! | [`authority`] | ACME accounts, and the order budget of each CA; `ca_http` reads their responses |
//! | [`counts`] | counters for metrics |
//! | [`strangers`] | domains that point here without a policy |
//! | [`vault`] | encrypts private keys in the store |

mod alpn;
pub mod authority;
mod ca_http;
mod certificate_state;
pub mod challenge;
pub mod counts;
mod fixed_certificate;
pub mod order;
mod order_budget;
pub mod strangers;
pub mod vault;

mod site_cache;

pub use site_cache::{Site, SiteCache};

use counts::HostCounts;
use fixed_certificate::FixedCertificate;
use formats::limits::HTTP_IDLE_TIME;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use net::BoxFuture;
use net::https::POLICY_PATH;
use net::smtp::server::AnyStream;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use strangers::Strangers;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::LazyConfigAcceptor;

/// Bounds the TLS handshake, the time to receive the headers of a request, and the HTTP/2 keep-alive interval.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTPS server for the policies in a [`SiteCache`].
#[derive(Clone)]
pub struct PolicyHost {
    site_cache: Arc<SiteCache>,
    tls: Arc<ServerConfig>,
    /// The counters since the start.
    pub counts: Arc<HostCounts>,
    /// Names without a policy that clients asked for.
    pub strangers: Arc<Strangers>,
}

impl PolicyHost {
    /// Creates a server for the sites of this cache. Fails when TLS can't be set up.
    pub fn new(site_cache: Arc<SiteCache>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(FixedCertificate(None)));
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self { site_cache, tls: Arc::new(tls), counts: Arc::default(), strangers: Arc::default() })
    }

    /// Accepts and serves connections until the future is dropped or accepting fails.
    pub async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            // Responses are small and latency matters.
            let _ = stream.set_nodelay(true);
            let host = self.clone();
            tokio::spawn(
                async move { host.connection(Box::new(stream), Box::pin(std::future::pending())).await },
            );
        }
    }

    /// Serves one TLS connection to its end. When `stop` completes, the requests in progress are finished.
    pub fn connection<'a>(&'a self, stream: AnyStream, stop: BoxFuture<'a, ()>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut refusal = None;
            let handshake = async {
                let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
                let name = hello.client_hello().server_name().map(str::to_owned);
                let is_challenge =
                    hello.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == alpn::PROTOCOL));
                if let (true, Some(name)) = (is_challenge, &name) {
                    let config = self.site_cache.challenge(name).await.ok_or(std::io::ErrorKind::NotFound)?;
                    return Ok((hello.into_stream(config).await?, None));
                }
                let site = match &name {
                    Some(name) => self.site_cache.site(name).await,
                    None => None,
                };
                if let (None, Some(name)) = (&site, &name) {
                    self.strangers.note(name);
                }
                refusal = match &site {
                    None => Some("unknown-host"),
                    Some(site) if site.certificate.is_none() => Some("no-certificate"),
                    Some(_) => None,
                };
                // Without a certificate the handshake ends with an alert: another site's chain would be invalid
                // anyway (POL-25).
                let mut tls = self.tls.as_ref().clone();
                tls.cert_resolver =
                    Arc::new(FixedCertificate(site.as_ref().and_then(|site| site.certificate.clone())));
                Ok::<_, std::io::Error>((hello.into_stream(Arc::new(tls)).await?, site))
            };
            let (stream, site) = match tokio::time::timeout(REQUEST_TIMEOUT, handshake).await {
                Ok(Ok((stream, Some(site)))) => (stream, site),
                Ok(Ok((_, None))) => return self.counts.handshake("challenge"),
                Ok(Err(_)) | Err(_) => return self.counts.handshake(refusal.unwrap_or("failed")),
            };
            self.counts.handshake("ok");
            let service = service_fn(|request: Request<Incoming>| {
                let response = respond(request.method(), request.uri().path(), Some(site.body.clone()));
                self.counts.request(response.status());
                async move { Ok::<_, Infallible>(response) }
            });
            converse(service, stream, stop).await;
        })
    }

    /// Serves one connection from a proxy that terminates TLS; each request's host selects the policy.
    pub fn bare_connection<'a>(&'a self, stream: AnyStream, stop: BoxFuture<'a, ()>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let host = self.clone();
                async move {
                    let asked = asked_host(&request);
                    let site = match &asked {
                        Some(asked) => host.site_cache.site(asked).await,
                        None => None,
                    };
                    if let (None, Some(asked)) = (&site, &asked) {
                        host.strangers.note(asked);
                    }
                    let body = site.map(|site| site.body.clone());
                    let response = respond(request.method(), request.uri().path(), body);
                    host.counts.request(response.status());
                    Ok::<_, Infallible>(response)
                }
            });
            converse(service, stream, stop).await;
        })
    }
}

/// The host that a request is for (RFC 9110 §7.2).
fn asked_host(request: &Request<Incoming>) -> Option<String> {
    let named = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    let host = request.uri().host().or(named)?;
    Some(host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned())
}

/// Serves HTTP/1.1 or HTTP/2 on a connection. When `stop` completes, or no request has begun for a while, the requests in
/// progress are finished. The pings of HTTP/2 show only that the peer is there, not that it wants something.
async fn converse<S, V>(service: V, stream: S, stop: BoxFuture<'_, ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    V::Future: Send + 'static,
{
    let requests = Arc::new(AtomicU64::new(0));
    let counted = requests.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        counted.fetch_add(1, Ordering::Relaxed);
        service.call(request)
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(formats::limits::HTTP_HEADER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(REQUEST_TIMEOUT)
        .keep_alive_timeout(REQUEST_TIMEOUT);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = is_idle(&requests) => {
            connection.as_mut().graceful_shutdown();
            // A peer that does not read its responses would prolong it.
            tokio::time::timeout(REQUEST_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the policy host ended with an error");
    }
}

/// Waits until the number of requests has not changed for [`HTTP_IDLE_TIME`].
async fn is_idle(requests: &AtomicU64) {
    let mut before = 0;
    loop {
        tokio::time::sleep(HTTP_IDLE_TIME).await;
        let now = requests.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}

/// Maximum size of the headers of one HTTP/2 request, uncompressed, in bytes.
const MAX_HEADER_LIST_BYTES: u32 = 16_384;
/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 16;

fn respond(method: &Method, path: &str, body: Option<Bytes>) -> Response<Full<Bytes>> {
    let answer = |status, body: Bytes| {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    };
    let Some(body) = body.filter(|_| path == POLICY_PATH) else {
        return answer(
            StatusCode::NOT_FOUND,
            Bytes::from_static(b"only /.well-known/mta-sts.txt is served here\n"),
        );
    };
    if method != Method::GET && method != Method::HEAD {
        let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // hyper omits the body of a response to HEAD and keeps its length.
    let mut response = answer(StatusCode::OK, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn body() -> Option<Bytes> {
        Some(Bytes::from_static(b"version: STSv1\r\n"))
    }

    /// What a client reads that sends `sent`, acknowledges each ping and asks for nothing else, and when the connection ends.
    async fn conversation(sent: &[u8]) -> (Vec<u8>, Duration) {
        let (mut client, server) = tokio::io::duplex(65_536);
        let service = service_fn(|request: Request<Incoming>| {
            let response = respond(request.method(), request.uri().path(), body());
            async move { Ok::<_, Infallible>(response) }
        });
        let begun = tokio::time::Instant::now();
        let served = tokio::spawn(converse(service, server, Box::pin(std::future::pending())));
        client.write_all(sent).await.unwrap();
        let mut read = Vec::new();
        loop {
            let mut head = [0; 9];
            if client.read_exact(&mut head).await.is_err() {
                break;
            }
            let mut frame = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            client.read_exact(&mut frame).await.unwrap();
            read.push(head[3]);
            // A ping without the flag ACK (RFC 9113 §6.7).
            if (head[3], head[4]) == (6, 0) {
                head[4] = 1;
                let _ = client.write_all(&[&head[..], &frame].concat()).await;
            }
        }
        served.await.unwrap();
        (read, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_answers_pings_and_asks_for_nothing_is_closed() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let (read, took) = conversation(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()).await;
        assert!(read.contains(&6) && read.contains(&7), "pings and GOAWAY: {read:?}");
        assert!(took >= HTTP_IDLE_TIME && took <= 2 * HTTP_IDLE_TIME, "{took:?}");
        // Neither HTTP/1.1 nor HTTP/2 so far.
        assert!(conversation(b"PRI").await.1 <= 2 * HTTP_IDLE_TIME);
    }

    #[test]
    fn pol_26_proxies_may_keep_the_file_for_a_minute() {
        let response = respond(&Method::GET, POLICY_PATH, body());
        assert_eq!(response.headers().get(CACHE_CONTROL).unwrap(), "max-age=60");
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "text/plain; charset=utf-8");
    }

    #[test]
    fn pol_27_get_and_head_of_one_path_and_nothing_else() {
        let status = |method: Method, path: &str, body| respond(&method, path, body).status().as_u16();
        assert_eq!(status(Method::GET, POLICY_PATH, body()), 200);
        assert_eq!(status(Method::HEAD, POLICY_PATH, body()), 200);
        assert_eq!(status(Method::POST, POLICY_PATH, body()), 405);
        assert_eq!(status(Method::GET, "/", body()), 404);
        assert_eq!(status(Method::POST, "/.well-known/mta-sts.txt/", body()), 404);
        assert_eq!(status(Method::GET, POLICY_PATH, None), 404);
    }
}
