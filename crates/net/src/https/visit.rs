//! HTTPS probes of one address of a host for the preflight check. A sender only needs to know that there is no policy;
//! a probe reports the certificate chain, headers and body as well, even if the certificate fails verification.

use super::fetch::{Fetcher, check_head, read_body, request, tls_error};
use super::{FetchError, Fetched, POLICY_PATH, Revocation};
use crate::BoxFuture;
use crate::address::special;
use crate::connect::tcp;
use crate::tls::TlsFacts;
use formats::DomainName;
use formats::limits::{CONNECT_TIME, POLICY_BYTES};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, Response};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Sends requests to single addresses of policy hosts and other web servers.
pub trait Visits: Send + Sync {
    /// Sends one request to one address. The certificate is verified, but a failure does not end the visit.
    fn visit<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Visit>;

    /// Checks whether the certificate that `host` presented in `shown` is revoked.
    fn revocation<'a>(&'a self, host: &'a DomainName, shown: &'a TlsFacts) -> BoxFuture<'a, Revocation>;
}

/// One request to one address of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The host's name, sent in the `Host` header.
    pub host: DomainName,
    /// The address to connect to.
    pub address: IpAddr,
    /// The TCP port; `None` means the configured port of policy hosts.
    pub port: Option<u16>,
    /// The path, and the query string if there is one.
    pub path: String,
    /// `GET`, or `OPTIONS` for a request without side effects.
    pub method: Method,
    /// Whether the TLS handshake carries the host's name (SNI).
    pub with_sni: bool,
    /// The `User-Agent` header; `None` means the header that policy fetches send.
    pub agent: Option<&'static str>,
}

impl Call {
    /// The request that a sender makes for the policy file.
    pub fn policy(host: &DomainName, address: IpAddr) -> Self {
        Self {
            host: host.clone(),
            address,
            port: None,
            path: POLICY_PATH.to_owned(),
            method: Method::GET,
            with_sni: true,
            agent: None,
        }
    }
}

/// The result of one request to one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The address that was probed.
    pub address: IpAddr,
    /// The time from the start of the visit, including the wait for a free connection, to the last byte.
    pub took: Duration,
    /// What the TLS handshake showed; `None` when it did not complete.
    pub tls: Option<TlsFacts>,
    /// The HTTP response with any status, or why none was received.
    pub outcome: Result<Page, FetchError>,
}

/// An HTTP response as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status code.
    pub status: u16,
    /// At most 100 headers, names in lower case, values cut at 200 characters.
    pub headers: Vec<(String, String)>,
    /// The body, or why it could not be read completely.
    pub body: Result<Vec<u8>, FetchError>,
}

impl Page {
    /// The value of the first header called `name`, which must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Visit {
    /// The result that a policy fetch would have had, by the same rules.
    pub fn judged(&self) -> Result<Fetched, FetchError> {
        let page = match (&self.outcome, &self.tls) {
            (_, Some(TlsFacts { pkix: Err(problem), .. })) => {
                return Err(FetchError::Certificate(problem.clone()));
            }
            (Err(error), _) => return Err(error.clone()),
            (Ok(page), _) => page,
        };
        let media_type = check_head(page.status, |name| page.header(name).map(str::to_owned))?;
        let tls = self.tls.as_ref();
        Ok(Fetched {
            body: page.body.clone()?,
            address: self.address,
            media_type,
            tls_version: tls.map(|tls| tls.version.clone()).unwrap_or_default(),
        })
    }
}

impl Visits for Fetcher {
    fn revocation<'a>(&'a self, host: &'a DomainName, shown: &'a TlsFacts) -> BoxFuture<'a, Revocation> {
        Box::pin(self.check_revocation(host, shown))
    }

    fn visit<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Visit> {
        Box::pin(async move {
            let begun = Instant::now();
            let mut visit = Visit {
                address: call.address,
                took: Duration::ZERO,
                tls: None,
                outcome: Err(FetchError::Time),
            };
            let probe = self.probe(call, &mut visit.tls);
            if let Ok(outcome) = tokio::time::timeout(self.config.time, probe).await {
                visit.outcome = outcome;
            }
            visit.took = begun.elapsed();
            visit
        })
    }
}

impl Fetcher {
    async fn probe(&self, call: &Call, tls: &mut Option<TlsFacts>) -> Result<Page, FetchError> {
        if let Some(what) = special(call.address).filter(|_| !self.config.allow_special_addresses) {
            return Err(FetchError::SpecialAddress { address: call.address, what });
        }
        let _permit = self.connections.take(call.address).await;
        let address = SocketAddr::new(call.address, call.port.unwrap_or(self.config.port));
        let stream = tcp(address, &self.config.sources, CONNECT_TIME)
            .await
            .map_err(|why| FetchError::Connect(format!("{address}: {why}")))?;
        let (outcome, _) = self.any.connect(stream, &call.host, call.with_sni).await;
        let stream = outcome.map_err(tls_error)?;
        *tls = Some(self.any.inspect(&stream, &call.host));
        let asked = Request::builder().method(call.method.clone()).uri(call.path.as_str());
        let read = async |response: Response<Incoming>| {
            let (status, headers) = (response.status().as_u16(), bounded(response.headers()));
            Ok(Page { status, headers, body: read_body(response.into_body(), POLICY_BYTES).await })
        };
        request(stream, &call.host, asked, call.agent, read).await
    }
}

/// The headers as strings, bounded in number and length.
fn bounded(headers: &HeaderMap) -> Vec<(String, String)> {
    let one = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).chars().take(200).collect())
    };
    headers.iter().take(100).map(one).collect()
}
