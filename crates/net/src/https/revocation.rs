//! Checks whether a certificate is revoked, by the certificate revocation list (CRL) whose URL the certificate contains
//! (RFC 5280 §5, §4.2.1.13). CAs serve CRLs over plain HTTP, since a CRL carries the signature of its issuer.

use super::FetchError;
use super::fetch::{Fetcher, read_body, send};
use crate::connect::connect_any;
use crate::tls::TlsFacts;
use formats::DomainName;
use formats::limits::{CRL_BYTES, CRL_TIME};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, Uri};
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};

/// The revocation status of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The certificate contains no HTTP URL of a CRL.
    Unlisted,
    /// The certificate is not on the CRL.
    Good,
    /// The certificate is on the CRL.
    Revoked,
    /// The CRL can't be fetched or verified; the text gives its URL and the reason.
    Unknown(String),
}

/// The first HTTP URL of a CRL in a certificate.
fn crl_url(certificate: &[u8]) -> Option<Uri> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let points = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::CRLDistributionPoints(points) => Some(points),
        _ => None,
    })?;
    let names = points.iter().filter_map(|point| match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => Some(names),
        _ => None,
    });
    names.flatten().find_map(|name| match name {
        GeneralName::URI(text) => text.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("http")),
        _ => None,
    })
}

impl Fetcher {
    async fn fetch_crl(&self, uri: &Uri) -> Result<Vec<u8>, FetchError> {
        let fault = || FetchError::Http(format!("{uri} is not a valid CRL URL"));
        let host = uri.host().and_then(|host| DomainName::parse(host).ok()).ok_or_else(fault)?;
        let addresses = self.addresses(&host, uri.port_u16().unwrap_or(80)).await?;
        let _permit = self.permit(&addresses).await;
        let (stream, _) = connect_any(addresses, &self.config.sources).await.map_err(FetchError::Connect)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let read = async |response: Response<Incoming>| match response.status().as_u16() {
            200 => read_body(response.into_body(), CRL_BYTES).await,
            status => Err(FetchError::Status(status)),
        };
        send(stream, &host, Request::get(path), None, Empty::<Bytes>::new(), read).await
    }

    pub(super) async fn check_revocation(&self, host: &DomainName, shown: &TlsFacts) -> Revocation {
        let Some(uri) = shown.raw.first().and_then(|own| crl_url(own)) else { return Revocation::Unlisted };
        let crl = match tokio::time::timeout(CRL_TIME, self.fetch_crl(&uri)).await {
            Ok(Ok(crl)) => crl,
            Ok(Err(error)) => return Revocation::Unknown(format!("{uri}: {error}")),
            Err(_) => return Revocation::Unknown(format!("{uri}: the fetch timed out")),
        };
        match self.config.trust.is_revoked(&shown.raw, host, self.clock.now(), crl) {
            Ok(true) => Revocation::Revoked,
            Ok(false) => Revocation::Good,
            Err(problem) => Revocation::Unknown(format!("{uri}: {problem}")),
        }
    }
}
