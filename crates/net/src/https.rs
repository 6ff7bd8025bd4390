//! Fetching a policy file over HTTPS by the rules of RFC 8461 §3.3: own addresses, exact name, no
//! redirect, bounded in size and time, one kind of error for each way to fail.

mod fetch;
mod post;
mod revocation;
mod visit;

pub use fetch::{Fetcher, FetcherConfig};
pub use hyper::Method;
pub use hyper::body::Bytes;
pub use post::{PostError, Posts, Verify};
pub use revocation::Revocation;
pub use visit::{Call, Page, Visit, Visits};

use crate::BoxFuture;
use crate::certificate::Problem;
use crate::dns::DnsError;
use formats::limits::{POLICY_BYTES, POLICY_FETCH_TIME};
use formats::{DomainName, ResultType};
use jiff::Timestamp;
use std::net::IpAddr;

/// Fetches policy files.
pub trait PolicyHosts: Send + Sync {
    /// The body of `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`.
    fn fetch<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>>;
}

/// The name of the policy host of a domain.
pub fn policy_host(domain: &DomainName) -> Result<DomainName, FetchError> {
    domain.below("mta-sts").map_err(|_| FetchError::HostName)
}

/// The path of a policy file.
pub const POLICY_PATH: &str = "/.well-known/mta-sts.txt";

/// A policy file as it came, not parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The body, at most 64 KiB.
    pub body: Vec<u8>,
    /// Where it came from.
    pub address: IpAddr,
    /// The media type as stated.
    pub media_type: String,
    /// When the policy host's certificate ends, where that can be read.
    pub certificate_ends: Option<Timestamp>,
    /// The TLS version, such as `TLSv1.3`.
    pub tls_version: String,
}

/// Why a policy file could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The policy host's name would be too long.
    #[error("the name of the policy host would be over 253 bytes")]
    HostName,
    /// The policy host's addresses can't be looked up.
    #[error("the policy host's address: {0}")]
    Dns(DnsError),
    /// Only private or otherwise special addresses.
    #[error("the policy host's address {address} is {what}, and not fetched from")]
    SpecialAddress {
        /// One of them.
        address: IpAddr,
        /// What is special about it.
        what: &'static str,
    },
    /// No address takes a connection.
    #[error("no connection to the policy host: {0}")]
    Connect(String),
    /// The certificate is not good for the policy host.
    #[error("the policy host's certificate: {0}")]
    Certificate(Problem),
    /// No common TLS version or cipher.
    #[error("the policy host speaks no TLS 1.2 or newer: {0}")]
    TlsVersion(String),
    /// The handshake failed otherwise.
    #[error("TLS with the policy host failed: {0}")]
    Tls(String),
    /// A status other than 200; 3xx is not followed.
    #[error("the policy host answers status {0} where 200 is needed")]
    Status(u16),
    /// Another media type than `text/plain`.
    #[error("the policy file comes as {0:?} where text/plain is needed")]
    MediaType(String),
    /// A compressed body, which was not asked for.
    #[error("the policy file comes compressed ({0}), which was not asked for")]
    Compressed(String),
    /// Over 64 KiB.
    #[error("the policy file has over {POLICY_BYTES} bytes")]
    Size,
    /// The connection ended early, or it is not HTTP.
    #[error("the policy host's answer breaks off or is not HTTP: {0}")]
    Http(String),
    /// Over one minute for all of it.
    #[error("the policy file did not come within {} seconds", POLICY_FETCH_TIME.as_secs())]
    Time,
}

impl FetchError {
    /// The one result type of RFC 8460 §4.3 for this error (POL-24).
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
