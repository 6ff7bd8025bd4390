//! Posts TLS reports over HTTPS (RFC 8460 §5.4). The URL comes from a domain's `_smtp._tls` record. Reports go to
//! public addresses only, the host's certificate is verified before the report is sent unless that is switched off
//! ([`Verify::Skip`]), and redirects are not followed (RPT-19).

use super::FetchError;
use super::fetch::{Fetcher, send};
use crate::BoxFuture;
use crate::certificate::{Problem, server_name};
use crate::connect::connect_any;
use crate::dns::DnsError;
use formats::limits::{HANDOVER_TIME, POST_TIME};
use formats::tlsrpt_record::HttpsUrl;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, Response};
use std::borrow::Cow;
use std::net::IpAddr;

/// Posts reports to HTTPS URLs.
pub trait Posts: Send + Sync {
    /// Posts `body` and returns the HTTP status, which may be an error status.
    fn post<'a>(
        &'a self,
        url: &'a HttpsUrl,
        media_type: &'static str,
        body: Bytes,
        verify: Verify,
    ) -> BoxFuture<'a, Result<u16, PostError>>;
}

/// Whether the host's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// The host must pass certificate verification.
    Certificate,
    /// The certificate is not verified.
    Skip,
}

/// Why a POST failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The lookup of the host's addresses failed.
    #[error("can't resolve the host: {0}")]
    Dns(DnsError),
    /// All addresses of the host are special-purpose addresses. The fields are the first address and a noun phrase such
    /// as "a private address".
    #[error("refusing to POST to {0}: it is {1}")]
    SpecialAddress(IpAddr, Cow<'static, str>),
    /// The TCP connection failed for every address.
    #[error("can't connect to the host: {0}")]
    Connect(String),
    /// The host failed certificate verification.
    #[error("the host failed certificate verification: {0}")]
    Certificate(Problem),
    /// The TLS handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// The response was incomplete or not valid HTTP.
    #[error("the response is incomplete or not valid HTTP: {0}")]
    Http(String),
    /// The whole POST took longer than [`POST_TIME`], or [`HANDOVER_TIME`] for a batch of sessions.
    #[error("no answer in time")]
    Time,
}

impl PostError {
    fn of(error: FetchError) -> Self {
        match error {
            FetchError::Dns(error) => Self::Dns(error),
            FetchError::SpecialAddress { address, what } => Self::SpecialAddress(address, what),
            FetchError::Connect(why) => Self::Connect(why),
            FetchError::Certificate(problem) => Self::Certificate(problem),
            FetchError::TlsVersion(why) | FetchError::Tls(why) => Self::Tls(why),
            FetchError::Time => Self::Time,
            other => Self::Http(other.to_string()),
        }
    }
}

impl Fetcher {
    /// Posts a batch of sessions to the collector of another machine, with its token. Returns the HTTP status. `id` is
    /// sent as `Idempotency-Key`, so that the other machine counts the batch once.
    pub fn post_batch<'a>(
        &'a self,
        url: &'a HttpsUrl,
        token: &'a str,
        id: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<u16, PostError>> {
        let headers = vec![
            (CONTENT_TYPE.as_str(), "application/json".to_owned()),
            (AUTHORIZATION.as_str(), format!("Bearer {token}")),
            (IDEMPOTENCY_KEY, format!("\"{id}\"")),
        ];
        Box::pin(async move {
            let posted = self.post_all(url, headers, body, Verify::Certificate);
            match tokio::time::timeout(HANDOVER_TIME, posted).await {
                Ok(outcome) => outcome.map_err(PostError::of),
                Err(_) => Err(PostError::Time),
            }
        })
    }
}

/// The header with the identifier of a request that may be repeated (draft-ietf-httpapi-idempotency-key-header).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl Posts for Fetcher {
    fn post<'a>(
        &'a self,
        url: &'a HttpsUrl,
        media_type: &'static str,
        body: Bytes,
        verify: Verify,
    ) -> BoxFuture<'a, Result<u16, PostError>> {
        Box::pin(async move {
            let headers = vec![(CONTENT_TYPE.as_str(), media_type.to_owned())];
            match tokio::time::timeout(POST_TIME, self.post_all(url, headers, body, verify)).await {
                Ok(outcome) => outcome.map_err(PostError::of),
                Err(_) => Err(PostError::Time),
            }
        })
    }
}

impl Fetcher {
    async fn post_all(
        &self,
        url: &HttpsUrl,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
        verify: Verify,
    ) -> Result<u16, FetchError> {
        let host = url.host();
        // A lab serves HTTPS on a port other than 443.
        let port = if url.port() == 443 { self.config.port } else { url.port() };
        let addresses = self.addresses(host, port).await?;
        let _permit = self.permit(&addresses).await;
        let (stream, _) = connect_any(addresses, &self.config.sources).await.map_err(FetchError::Connect)?;
        let stream = match verify {
            Verify::Certificate => {
                self.verified(stream, server_name(host).map_err(FetchError::Certificate)?).await?
            }
            Verify::Skip => self.unverified(stream, host).await?,
        };
        let asked = headers
            .into_iter()
            .fold(Request::post(url.path()), |asked, (name, value)| asked.header(name, value));
        let status = async |response: Response<Incoming>| Ok(response.status().as_u16());
        send(stream, host, asked, None, Full::new(body), status).await
    }
}
