//! A small HTTPS server that stands for somebody else's.

use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use lab::pki::{Cert, Pki};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::sync::Arc;

pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: String,
}

pub struct Answer {
    /// Zero leaves the request without an answer.
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// Answers at an address, by these names, on a thread of its own.
pub fn serve(
    address: &str,
    pki: &Pki,
    names: &[&str],
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut resolver = rustls::server::ResolvesServerCertUsingSni::new();
    for name in names {
        let identity = pki.issue(name, Cert::Good).unwrap();
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(identity.chain_pem().as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        resolver.add(name, rustls::sign::CertifiedKey::new(chain.unwrap(), key)).unwrap();
    }
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        let answer = answer.clone();
                        async move {
                            let asked = read(request).await;
                            let answer = answer(&asked);
                            if answer.status == 0 {
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, Infallible>(written(answer))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    });
}

async fn read(request: Request<Incoming>) -> Asked {
    let (parts, body) = request.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

fn written(answer: Answer) -> Response<String> {
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status.try_into().unwrap();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
