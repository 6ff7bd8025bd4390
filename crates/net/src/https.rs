//! The HTTPS client. It fetches policy files by the rules of RFC 8461 §3.3: certificate for the exact host name, no
//! redirects, bounded size and time, and a distinct error for each kind of failure. It also posts reports
//! ([`Posts`], RFC 8460 §5.4), and probes web servers for the preflight check ([`Visits`]), including revocation.
//!
//! [`Fetcher`] implements all three traits. Domains come from the caller and addresses from [`crate::dns`]; policy
//! files are returned unparsed as [`Fetched`].

mod fetch;
mod post;
mod revocation;
mod visit;

pub use fetch::{Fetcher, FetcherConfig};
pub use hyper::Method;
pub use hyper::body::Bytes;
pub use post::{IDEMPOTENCY_KEY, PostError, Posts, Verify};
pub use revocation::Revocation;
pub use visit::{Call, Page, Visit, Visits};

use crate::BoxFuture;
use crate::certificate::{CertificateFacts, Problem};
use crate::dns::DnsError;
use formats::limits::{POLICY_BYTES, POLICY_FETCH_TIME};
use formats::{DomainName, ResultType};
use std::borrow::Cow;
use std::net::IpAddr;

/// Fetches the policy files of domains.
pub trait PolicyHosts: Send + Sync {
    /// Fetches `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`.
    fn fetch<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>>;

    /// Fetches the policy file from each of these addresses of the policy host, concurrently and by the same rules: a sender
    /// may get it from any of them. The results are in the order of the addresses. Empty if the implementation can't choose
    /// the address.
    fn fetch_each<'a>(
        &'a self,
        domain: &'a DomainName,
        addresses: &'a [IpAddr],
    ) -> BoxFuture<'a, Vec<AddressFetch>> {
        let _ = (domain, addresses);
        Box::pin(std::future::ready(Vec::new()))
    }
}

/// The result of a fetch from one address of a policy host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressFetch {
    /// The address that the file was fetched from.
    pub address: IpAddr,
    /// The policy file, or why a sender that uses this address gets none.
    pub fetched: Result<Fetched, FetchError>,
    /// The host's certificate, also if the fetch failed after the handshake.
    pub certificate: Option<CertificateFacts>,
}

/// The name of a domain's policy host, `mta-sts.DOMAIN`.
pub fn policy_host(domain: &DomainName) -> Result<DomainName, FetchError> {
    domain.below("mta-sts").map_err(|_| FetchError::HostName)
}

/// The path of the policy file on the policy host (RFC 8461 §3.2).
pub const POLICY_PATH: &str = "/.well-known/mta-sts.txt";

/// A policy file as received, not yet parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The response body, at most [`POLICY_BYTES`].
    pub body: Vec<u8>,
    /// The address that the file was fetched from.
    pub address: IpAddr,
    /// The `Content-Type` header, cut at 100 characters by a fetch.
    pub media_type: String,
    /// The negotiated TLS version, such as `TLSv1.3`.
    pub tls_version: String,
}

/// Why a policy file could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The policy host's name is longer than a domain name may be.
    #[error("the policy host's name is longer than 253 bytes")]
    HostName,
    /// The lookup of the policy host's addresses failed.
    #[error("can't resolve the policy host: {0}")]
    Dns(DnsError),
    /// All addresses of the policy host are special-purpose addresses; see [`crate::address`].
    #[error("refusing to fetch from {address}: it is {what}")]
    SpecialAddress {
        /// The first of the addresses.
        address: IpAddr,
        /// A noun phrase such as "a private address".
        what: Cow<'static, str>,
    },
    /// The TCP connection failed for every address.
    #[error("can't connect to the policy host: {0}")]
    Connect(String),
    /// The policy host failed certificate verification.
    #[error("the policy host failed certificate verification: {0}")]
    Certificate(Problem),
    /// The handshake found no common TLS version or cipher suite.
    #[error("the policy host does not support TLS 1.2 or later: {0}")]
    TlsVersion(String),
    /// The handshake failed for another reason.
    #[error("the TLS handshake with the policy host failed: {0}")]
    Tls(String),
    /// The HTTP status is not 200. Redirects (3xx) are not followed.
    #[error("the policy host returned HTTP status {0} instead of 200")]
    Status(u16),
    /// The media type is not `text/plain`.
    #[error("the policy file has the media type {0:?} instead of text/plain")]
    MediaType(String),
    /// The body is compressed, although the request did not accept that.
    #[error("the policy file is compressed ({0}), although the request did not accept compression")]
    Compressed(String),
    /// The body is larger than [`POLICY_BYTES`].
    #[error("the policy file is larger than {POLICY_BYTES} bytes")]
    Size,
    /// The response was incomplete or not valid HTTP.
    #[error("the policy host's response is incomplete or not valid HTTP: {0}")]
    Http(String),
    /// The whole fetch took longer than [`POLICY_FETCH_TIME`].
    #[error("the policy file could not be fetched within {} seconds", POLICY_FETCH_TIME.as_secs())]
    Time,
}

impl FetchError {
    /// True if the policy host ended the handshake with the alert `access_denied`, as a server does that has no certificate for
    /// the name, such as Sternpost's own until the CA has issued it.
    pub fn is_access_denied(&self) -> bool {
        matches!(self, Self::Tls(text) if text.contains("AccessDenied"))
    }

    /// True if the policy host's name, or its address, does not exist in DNS.
    pub fn is_unresolved(&self) -> bool {
        matches!(self, Self::Dns(error) if error.is_absence())
    }

    /// The result type of RFC 8460 §4.3 that reports this error (POL-24).
    pub fn result_type(&self) -> ResultType {
        match self {
            Self::Certificate(_) => ResultType::StsWebpkiInvalid,
            _ => ResultType::StsPolicyFetchError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_certificate_is_recognized_by_its_alert() {
        let alert = |alert| {
            let error = std::io::Error::other(rustls::Error::AlertReceived(alert));
            fetch::tls_error(error).is_access_denied()
        };
        assert!(alert(rustls::AlertDescription::AccessDenied));
        assert!(!alert(rustls::AlertDescription::UnrecognisedName));
    }

    #[test]
    fn pol_01_the_policy_host_and_path_are_exactly_these() {
        let domain = DomainName::parse("Example.ORG").unwrap();
        assert_eq!(policy_host(&domain).unwrap().as_str(), "mta-sts.example.org");
        assert_eq!(POLICY_PATH, "/.well-known/mta-sts.txt");
    }

    #[test]
    fn pol_24_each_fetch_error_has_one_result_type() {
        for problem in [
            Problem::Expired,
            Problem::NotYetValid,
            Problem::WrongName,
            Problem::UnknownIssuer,
            Problem::Revoked,
            Problem::Malformed,
        ] {
            assert_eq!(FetchError::Certificate(problem).result_type(), ResultType::StsWebpkiInvalid);
        }
        for error in [
            FetchError::Dns(DnsError::Timeout),
            FetchError::Connect(String::new()),
            FetchError::Status(404),
            FetchError::MediaType("text/html".into()),
            FetchError::Size,
            FetchError::Time,
            FetchError::TlsVersion(String::new()),
            FetchError::Http(String::new()),
        ] {
            assert_eq!(error.result_type(), ResultType::StsPolicyFetchError);
        }
    }
}
