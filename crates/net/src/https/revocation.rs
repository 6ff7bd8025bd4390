//! Whether the authority of a certificate has taken it back: by the list that the certificate names (RFC 5280 §5,
//! §4.2.1.13). Authorities serve lists over plain HTTP; their own signature proves them.

use super::FetchError;
use super::fetch::{Fetcher, connect_any, read_body, send};
use crate::tls::TlsFacts;
use formats::DomainName;
use formats::limits::{CRL_BYTES, CRL_TIME};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, Uri};
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};

/// What is known of a certificate's revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The certificate names no list that can be had over HTTP.
    Unlisted,
    /// It is not on the list.
    Good,
    /// Its authority has taken it back.
    Revoked,
    /// The list can't be had or proves nothing.
    Unknown(String),
}

/// Where the list is that a certificate names.
fn list_of(certificate: &[u8]) -> Option<Uri> {
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
    async fn list(&self, uri: &Uri) -> Result<Vec<u8>, FetchError> {
        let fault = || FetchError::Http(format!("{uri} is no address of a list"));
        let host = uri.host().and_then(|host| DomainName::parse(host).ok()).ok_or_else(fault)?;
        let addresses = self.addresses(&host, uri.port_u16().unwrap_or(80)).await?;
        let _place = self.place(&addresses).await;
        let (stream, _) = connect_any(addresses, &self.config.sources).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let read = async |response: Response<Incoming>| match response.status().as_u16() {
            200 => read_body(response.into_body(), CRL_BYTES).await,
            status => Err(FetchError::Status(status)),
        };
        send(stream, &host, Request::get(path), None, Empty::<Bytes>::new(), read).await
    }

    pub(super) async fn ask_authority(&self, host: &DomainName, shown: &TlsFacts) -> Revocation {
        let Some(uri) = shown.raw.first().and_then(|own| list_of(own)) else { return Revocation::Unlisted };
        let list = match tokio::time::timeout(CRL_TIME, self.list(&uri)).await {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => return Revocation::Unknown(format!("{uri}: {error}")),
            Err(_) => return Revocation::Unknown(format!("{uri}: no answer in time")),
        };
        match self.config.trust.is_revoked(&shown.raw, host, self.clock.now(), list) {
            Ok(true) => Revocation::Revoked,
            Ok(false) => Revocation::Good,
            Err(problem) => Revocation::Unknown(format!("{uri}: {problem}")),
        }
    }
}
