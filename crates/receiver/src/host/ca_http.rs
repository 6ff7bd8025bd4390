//! The HTTPS client for ACME CAs. It resolves names as the system does, without `getaddrinfo`, which the library's own client
//! uses. A response is read whole here, with a limit of size and time, and its `Retry-After` is brought into a range that
//! the library can add to a clock: a CA that hangs, floods or counts in billions of years fails one order.

use formats::limits::{CA_REQUEST_TIME, CA_RESPONSE_BYTES, CONNECT_TIME};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::Timestamp;
use net::clock::{Clock, SystemClock};
use net::system_names::{TcpConnector, tcp_connector};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::pin::Pin;
use tokio::time::timeout;

/// The CA gave no complete response within [`CA_REQUEST_TIME`].
#[derive(Debug, thiserror::Error)]
#[error("the CA did not answer within {} seconds", CA_REQUEST_TIME.as_secs())]
pub(super) struct NoAnswer;

/// The file with the trusted roots can't be read, or has none.
#[derive(Debug, thiserror::Error)]
#[error("the file {file} with the roots of the CA can't be used: {why}")]
struct UnusableRoots {
    file: String,
    why: String,
}

/// The longest time to wait that a CA can ask for, in seconds: a day.
const LONGEST_WAIT: u64 = 86_400;

type Https = Client<HttpsConnector<TcpConnector>, BodyWrapper<Bytes>>;

/// A client whose responses are bounded.
struct BoundedClient(Https);

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for BoundedClient {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let sent = self.0.request(request);
        Box::pin(async move {
            let read = async {
                let response = sent.await.map_err(other)?;
                let (mut parts, body) = response.into_parts();
                let body = Limited::new(body, CA_RESPONSE_BYTES).collect().await.map_err(Error::Other)?;
                bound_wait(&mut parts.headers, SystemClock.now());
                Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body.to_bytes()))))
            };
            timeout(CA_REQUEST_TIME, read).await.unwrap_or_else(|_| Err(other(NoAnswer)))
        })
    }
}

/// Creates a client that trusts the roots of `ca_file`, or those of the system.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Box<dyn HttpClient>, Error> {
    let builder = HttpsConnectorBuilder::new();
    let builder = match ca_file {
        Some(file) => {
            let roots =
                roots(file).map_err(|why| other(UnusableRoots { file: file.display().to_string(), why }))?;
            let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            builder.with_tls_config(tls)
        }
        None => builder.try_with_platform_verifier().map_err(other)?,
    };
    let https =
        builder.https_only().enable_http1().enable_http2().wrap_connector(tcp_connector(CONNECT_TIME));
    Ok(Box::new(BoundedClient(Client::builder(TokioExecutor::new()).build(https))))
}

/// Reads the roots in a PEM file. A file without any would make each order fail with the advice to set the file.
fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        let root = root.map_err(|error| error.to_string())?;
        roots.add(root).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it contains no certificate".to_owned()) } else { Ok(roots) }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

/// Brings a `Retry-After` (RFC 9110 §10.2.3) into the range from a second to a day. A value that is neither a number nor a
/// date is removed.
fn bound_wait(headers: &mut HeaderMap, now: Timestamp) {
    let Some(value) = headers.get(RETRY_AFTER) else { return };
    match value.to_str().ok().and_then(|text| wait_in_seconds(text.trim(), now)) {
        Some(seconds) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        None => {
            headers.remove(RETRY_AFTER);
        }
    }
}

fn wait_in_seconds(text: &str, now: Timestamp) -> Option<u64> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().unwrap_or(LONGEST_WAIT).clamp(1, LONGEST_WAIT));
    }
    let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let seconds = u64::try_from(until.duration_since(now).as_secs()).unwrap_or(0);
    Some(seconds.clamp(1, LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn bounded(value: &[u8]) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(value).unwrap());
        // Thu, 01 Oct 2026 00:00:00 GMT
        bound_wait(&mut headers, Timestamp::from_second(1_790_812_800).unwrap());
        headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn no_retry_after_is_longer_than_a_day_or_shorter_than_a_second() {
        for (value, wait) in [
            ("3600", "3600"),
            ("0", "1"),
            ("86401", "86400"),
            ("18446744073709551615", "86400"),
            ("99999999999999999999999999", "86400"),
            ("Thu, 01 Oct 2026 00:10:00 GMT", "600"),
            ("Fri, 01 Oct 1926 00:10:00 GMT", "1"),
            ("Thu, 31 Dec 9998 23:59:59 GMT", "86400"),
        ] {
            assert_eq!(bounded(value.as_bytes()).as_deref(), Some(wait), "{value}");
        }
        for odd in ["", "soon", "-1", "1e9", "+5"] {
            assert_eq!(bounded(odd.as_bytes()), None, "{odd:?}");
        }
        assert_eq!(bounded(b"\xff"), None);
    }

    #[test]
    fn all_roots_of_a_bundle_are_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let root = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap().pem()
        };
        let bundle = format!("# the old one\n{}# the new one\n{}", root("a.example"), root("b.example"));
        std::fs::write(&file, bundle).unwrap();
        assert_eq!(roots(&file).unwrap().len(), 2);
    }

    #[test]
    fn a_file_of_roots_that_is_missing_or_empty_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let refused = || match client(Some(&file)) {
            Err(Error::Other(error)) => error.to_string(),
            _ => panic!("a client"),
        };
        assert!(refused().contains("ca.pem") && !refused().contains("no certificate"), "{}", refused());
        // Cut off, or the key by mistake.
        for text in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            std::fs::write(&file, text).unwrap();
            assert!(refused().contains("ca.pem") && refused().contains("no certificate"), "{}", refused());
        }
    }

    /// A server on loopback that answers each request with these bytes, then with more of the same if `is_endless`.
    async fn server(dir: &Path, answer: &'static str, is_endless: bool) -> String {
        let pki = lab::pki::Pki::new(SystemClock.now()).unwrap();
        std::fs::write(dir.join("ca.pem"), pki.root_pem()).unwrap();
        let identity = pki.issue("localhost", lab::pki::Cert::Good).unwrap();
        let chain = identity.certified.cert.clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(identity.key.to_vec()).unwrap();
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.unwrap();
                    let _ = stream.read(&mut [0; 4096]).await;
                    let mut sent = stream.write_all(answer.as_bytes()).await;
                    while is_endless && sent.is_ok() {
                        sent = stream.write_all(&[b'x'; 1 << 16]).await;
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        format!("https://localhost:{port}/")
    }

    async fn asked(dir: &Path, url: &str) -> Result<BytesResponse, Error> {
        let client = client(Some(&dir.join("ca.pem"))).unwrap();
        client.request(Request::get(url).body(BodyWrapper::default()).unwrap()).await
    }

    #[tokio::test]
    async fn a_response_that_never_ends_fails_at_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let url = server(dir.path(), "HTTP/1.1 200 OK\r\n\r\n", true).await;
        let error = asked(dir.path(), &url).await.err().unwrap().to_string();
        assert!(error.contains("length limit exceeded"), "{error}");
    }

    #[tokio::test]
    async fn a_response_is_whole_and_its_wait_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let text = "HTTP/1.1 200 OK\r\nRetry-After: 18446744073709551615\r\nContent-Length: 2\r\n\r\n{}";
        let url = server(dir.path(), text, false).await;
        let mut response = asked(dir.path(), &url).await.unwrap();
        assert_eq!(response.parts.headers[RETRY_AFTER], "86400");
        assert_eq!(response.body.into_bytes().await.unwrap(), "{}");
    }

    #[tokio::test]
    async fn a_ca_that_hangs_is_one_that_does_not_answer() {
        let dir = tempfile::tempdir().unwrap();
        let url = server(dir.path(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", false).await;
        let waiting = asked(dir.path(), &url);
        tokio::pin!(waiting);
        // The connection is made in real time.
        let early = timeout(std::time::Duration::from_secs(1), &mut waiting).await;
        assert!(early.is_err());
        tokio::time::pause();
        match waiting.await {
            Err(Error::Other(error)) => assert!(error.is::<NoAnswer>(), "{error}"),
            _ => panic!("an answer"),
        }
    }
}
