//! Serves policy files over HTTPS: `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` and nothing else
//! (RFC 8461 §3.3, §7.1, §8.2).

use formats::{DomainName, Policy};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use net::https::POLICY_PATH;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// A handshake, and the headers of one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are served at once.
const CONNECTIONS: usize = 1024;

/// The policies that are served, by policy host.
#[derive(Default)]
pub struct PolicyTable(RwLock<HashMap<String, Served>>);

#[derive(Clone)]
struct Served {
    body: Bytes,
    certificate: Arc<CertifiedKey>,
}

impl PolicyTable {
    /// Serves `policy` at `mta-sts.DOMAIN` from now on, in place of any other.
    pub fn put(&self, domain: &DomainName, policy: &Policy, certificate: Arc<CertifiedKey>) {
        let served = Served { body: Bytes::from(policy.to_string()), certificate };
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(format!("mta-sts.{domain}"), served);
    }

    fn get(&self, host: &str) -> Option<Served> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&host).cloned()
    }
}

/// Picks the certificate by SNI; a name that is not served ends the handshake (POL-25).
struct BySni(Arc<PolicyTable>);

impl std::fmt::Debug for BySni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BySni")
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get(hello.server_name()?)?.certificate)
    }
}

/// Serves the table on `listener` until it is dropped.
pub async fn serve(listener: TcpListener, table: Arc<PolicyTable>) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni(table.clone())));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: waiting a moment lets some come free.
                tracing::warn!(%error, "the policy host can't take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, table) = (acceptor.clone(), table.clone());
        tokio::spawn(async move {
            connection(stream, &acceptor, &table).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, table: &Arc<PolicyTable>) {
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else { return };
    let host = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
    let service = service_fn(|request: Request<Incoming>| {
        let response =
            respond(request.method(), request.uri().path(), table.get(&host).map(|served| served.body));
        async move { Ok::<_, Infallible>(response) }
    });
    let http = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(formats::limits::HTTP_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = http.await {
        tracing::debug!(%error, "a connection to the policy host broke off");
    }
}

fn respond(method: &Method, path: &str, body: Option<Bytes>) -> Response<Full<Bytes>> {
    let answer = |status, body: Bytes| {
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    };
    let Some(body) = body.filter(|_| path == POLICY_PATH) else {
        return answer(StatusCode::NOT_FOUND, Bytes::from_static(b"only /.well-known/mta-sts.txt is here\n"));
    };
    if method != Method::GET && method != Method::HEAD {
        let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, Bytes::new());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // hyper leaves the body of an answer to HEAD out and keeps its length.
    let mut response = answer(StatusCode::OK, body);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Option<Bytes> {
        Some(Bytes::from_static(b"version: STSv1\r\n"))
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
