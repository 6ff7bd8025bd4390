//! Posting a report over HTTPS (RFC 8460 §5.4): to public addresses only, the host verified before a byte of it
//! goes out, redirects not followed (RPT-19).

use super::FetchError;
use super::fetch::{Fetcher, connect_any, send};
use crate::BoxFuture;
use crate::certificate::{Problem, server_name};
use crate::dns::DnsError;
use formats::limits::POST_TIME;
use formats::tlsrpt_record::HttpsUrl;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use std::net::IpAddr;

/// Posts to URLs.
pub trait Posts: Send + Sync {
    /// The status that came; any status is an answer.
    fn post<'a>(
        &'a self,
        url: &'a HttpsUrl,
        media_type: &'static str,
        body: Bytes,
        verify: Verify,
    ) -> BoxFuture<'a, Result<u16, PostError>>;
}

/// Whether the host has to prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// It has to.
    Certificate,
    /// Whoever answers will do.
    Skip,
}

/// Why nothing could be posted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The host's addresses can't be looked up.
    #[error("its addresses: {0}")]
    Dns(DnsError),
    /// Only private or otherwise special addresses.
    #[error("its address {0} is {1}, and not posted to")]
    SpecialAddress(IpAddr, &'static str),
    /// No address takes a connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The host does not prove itself.
    #[error("its certificate: {0}")]
    Certificate(Problem),
    /// The handshake failed otherwise.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// What came is not HTTP, or broke off.
    #[error("its answer breaks off or is not HTTP: {0}")]
    Http(String),
    /// It took too long.
    #[error("no answer within {} seconds", POST_TIME.as_secs())]
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

impl Posts for Fetcher {
    fn post<'a>(
        &'a self,
        url: &'a HttpsUrl,
        media_type: &'static str,
        body: Bytes,
        verify: Verify,
    ) -> BoxFuture<'a, Result<u16, PostError>> {
        Box::pin(async move {
            match tokio::time::timeout(POST_TIME, self.post_all(url, media_type, body, verify)).await {
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
        media_type: &'static str,
        body: Bytes,
        verify: Verify,
    ) -> Result<u16, FetchError> {
        let host = url.host();
        // In a lab port 443 is another one.
        let port = if url.port() == 443 { self.config.port } else { url.port() };
        let addresses = self.addresses(host, port).await?;
        let _place = self.place(&addresses).await;
        let (stream, _) = connect_any(addresses, &self.config.sources).await?;
        let stream = match verify {
            Verify::Certificate => {
                self.verified(stream, server_name(host).map_err(FetchError::Certificate)?).await?
            }
            Verify::Skip => self.unverified(stream, host).await?,
        };
        let asked = Request::post(url.path()).header(CONTENT_TYPE, media_type);
        let status = async |response: Response<Incoming>| Ok(response.status().as_u16());
        send(stream, host, asked, None, Full::new(body), status).await
    }
}
