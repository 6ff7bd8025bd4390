//! A visit to one address of a host over HTTPS, told in full whatever comes: what a preflight sees
//! where a sender only sees that there is no policy.

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

/// Visits hosts.
pub trait Visits: Send + Sync {
    /// One request to one address.
    fn visit<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Visit>;

    /// Whether the authority has taken the certificate back that `host` has shown.
    fn revocation<'a>(&'a self, host: &'a DomainName, shown: &'a TlsFacts) -> BoxFuture<'a, Revocation>;
}

/// What is asked of whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The host's name.
    pub host: DomainName,
    /// One of its addresses.
    pub address: IpAddr,
    /// Its port; `None` is the one of policy hosts.
    pub port: Option<u16>,
    /// The path, and the query if there is one.
    pub path: String,
    /// `GET`, or `OPTIONS` to ask without wanting anything.
    pub method: Method,
    /// Whether the name is said in the handshake.
    pub with_sni: bool,
    /// What the client says it is; `None` is what our own fetches say.
    pub agent: Option<&'static str>,
}

impl Call {
    /// The policy file as senders ask for it.
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

/// How a visit went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Where.
    pub address: IpAddr,
    /// From the connection to the last byte.
    pub took: Duration,
    /// The handshake, when there was one.
    pub tls: Option<TlsFacts>,
    /// What came, whatever it is; an error when nothing did.
    pub outcome: Result<Page, FetchError>,
}

/// An HTTP answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status.
    pub status: u16,
    /// Its headers, names in lower case, values cut at 200 characters.
    pub headers: Vec<(String, String)>,
    /// The body, or why it did not come whole.
    pub body: Result<Vec<u8>, FetchError>,
}

impl Page {
    /// The first header of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Visit {
    /// What a sender makes of it, by the same rules as a fetch.
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
            certificate_ends: tls.and_then(|tls| tls.chain.first()).map(|certificate| certificate.not_after),
            tls_version: tls.map(|tls| tls.version.clone()).unwrap_or_default(),
        })
    }
}

impl Visits for Fetcher {
    fn revocation<'a>(&'a self, host: &'a DomainName, shown: &'a TlsFacts) -> BoxFuture<'a, Revocation> {
        Box::pin(self.ask_authority(host, shown))
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
            if let Ok(outcome) = tokio::time::timeout(self.config.time, self.look(call, &mut visit.tls)).await
            {
                visit.outcome = outcome;
            }
            visit.took = begun.elapsed();
            visit
        })
    }
}

impl Fetcher {
    async fn look(&self, call: &Call, tls: &mut Option<TlsFacts>) -> Result<Page, FetchError> {
        if let Some(what) = special(call.address).filter(|_| !self.config.allow_special_addresses) {
            return Err(FetchError::SpecialAddress { address: call.address, what });
        }
        let _place = self.places.take(call.address).await;
        let address = SocketAddr::new(call.address, call.port.unwrap_or(self.config.port));
        let stream = tcp(address, &self.config.sources, CONNECT_TIME)
            .await
            .map_err(|why| FetchError::Connect(format!("{address}: {why}")))?;
        let (outcome, _) = self.any.connect(stream, &call.host, call.with_sni).await;
        let stream = outcome.map_err(tls_error)?;
        *tls = Some(self.any.judge(&stream, &call.host));
        let asked = Request::builder().method(call.method.clone()).uri(call.path.as_str());
        let read = async |response: Response<Incoming>| {
            let (status, headers) = (response.status().as_u16(), shown(response.headers()));
            Ok(Page { status, headers, body: read_body(response.into_body(), POLICY_BYTES).await })
        };
        request(stream, &call.host, asked, call.agent, read).await
    }
}

fn shown(headers: &HeaderMap) -> Vec<(String, String)> {
    let one = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).chars().take(200).collect())
    };
    headers.iter().take(100).map(one).collect()
}
