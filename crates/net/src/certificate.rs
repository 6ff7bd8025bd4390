//! Verifies certificate chains: against trusted roots, dates and host name (RFC 8461 §4.2, RFC 9525), against TLSA
//! records (RFC 7672) and against a revocation list. [`Trust`] holds the roots, [`Problem`] says why a chain fails, and
//! [`CertificateFacts`] describes a certificate for reports. Chains come from [`crate::tls`] and [`crate::https`].

use crate::clock::Clock;
use formats::DomainName;
use formats::ResultType;
use formats::tlsa::{Matching, Selector, TlsaRule, UsableTlsa, Usage, reference_names};
use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, CipherSuite, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use sha2::Digest;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The trusted roots, with a verifier for chains that must lead to them.
#[derive(Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

/// Why no trusted roots could be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The configured CA file can't be read or contains no certificate.
    #[error("the CA file {path} can't be used: {why}")]
    File {
        /// The path of the file.
        path: String,
        /// Why it can't be used.
        why: String,
    },
    /// No root certificate was found, usually because the system has none installed.
    #[error("this system has no trusted root certificates; install ca-certificates or set trust.ca_file")]
    None,
}

/// Why a certificate chain failed verification for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The certificate is past its `notAfter` date.
    Expired,
    /// The certificate is before its `notBefore` date.
    NotYetValid,
    /// No DNS-ID in the certificate matches the host name.
    WrongName,
    /// The chain does not lead to a trusted root, or the certificate is self-signed.
    UnknownIssuer,
    /// The certificate was revoked by its issuer.
    Revoked,
    /// The certificate can't be parsed, or the server presented none.
    Malformed,
    /// No TLSA record matches the chain (RFC 7672 §3).
    TlsaMismatch,
    /// Any other reason, in words.
    Other(String),
}

impl Problem {
    /// The result type that reports this problem for a session with an MX host (RFC 8460 §4.3).
    pub fn session_result(&self) -> ResultType {
        match self {
            Self::Expired | Self::NotYetValid => ResultType::CertificateExpired,
            Self::WrongName => ResultType::CertificateHostMismatch,
            Self::UnknownIssuer | Self::Revoked | Self::Malformed => ResultType::CertificateNotTrusted,
            Self::TlsaMismatch | Self::Other(_) => ResultType::ValidationFailure,
        }
    }

    pub(crate) fn of(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::BadEncoding => Self::Malformed,
            // A self-signed CA certificate presented as the server certificate.
            CertificateError::Other(other) if is_ca_as_end_entity(other) => Self::UnknownIssuer,
            other => Self::Other(other.to_string()),
        }
    }
}

fn is_ca_as_end_entity(error: &OtherError) -> bool {
    matches!(error.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the certificate has expired",
            Self::NotYetValid => "the certificate is not valid yet",
            Self::WrongName => "the certificate is not valid for the host's name",
            Self::UnknownIssuer => "the certificate does not chain to a trusted root",
            Self::Revoked => "the certificate is revoked",
            Self::Malformed => "the certificate can't be parsed",
            Self::TlsaMismatch => "no TLSA record matches the certificate",
            Self::Other(why) => why,
        })
    }
}

impl Trust {
    /// Loads the root certificates of the system.
    pub fn system() -> Result<Self, TrustError> {
        let found = rustls_native_certs::load_native_certs();
        Self::from_roots(found.certs)
    }

    /// Loads the root certificates in a PEM file, without those of the system.
    pub fn from_file(path: &Path) -> Result<Self, TrustError> {
        use rustls_pki_types::pem::PemObject;
        let fail = |why: String| TrustError::File { path: path.display().to_string(), why };
        let read = CertificateDer::pem_file_iter(path).map_err(|error| fail(error.to_string()))?;
        let roots = read.collect::<Result<Vec<_>, _>>().map_err(|error| fail(error.to_string()))?;
        Self::from_roots(roots).map_err(|_| fail("it contains no certificate".into()))
    }

    /// Trusts only these roots. Certificates that can't be parsed are skipped; [`TrustError::None`] if none is left.
    pub fn from_roots(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots);
        let provider = Arc::new(provider());
        let roots = Arc::new(store);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|_| TrustError::None)?;
        Ok(Self { roots, verifier, provider })
    }

    /// A TLS client configuration that trusts these roots and checks dates against `clock`.
    pub fn client(&self, clock: Arc<dyn Clock>) -> Result<rustls::ClientConfig, rustls::Error> {
        let tls = rustls::ClientConfig::builder_with_details(self.provider(), Arc::new(TlsClock(clock)))
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(self.verifier())
            .with_no_client_auth();
        Ok(tls)
    }

    pub(crate) fn verifier(&self) -> Arc<WebPkiServerVerifier> {
        self.verifier.clone()
    }

    pub(crate) fn provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone()
    }

    /// Verifies a chain, the server's own certificate first, against roots, dates and DNS-ID (VAL-04, POL-04). The
    /// common name is ignored.
    pub fn check(
        &self,
        chain: &[CertificateDer<'_>],
        host: &DomainName,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let (first, rest) = chain.split_first().ok_or(Problem::Malformed)?;
        let name = server_name(host)?;
        match self.verifier.verify_server_cert(first, rest, &name, &[], unix_time(now)) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(error)) => Err(Problem::of(&error)),
            Err(other) => Err(Problem::Other(other.to_string())),
        }
    }

    /// Whether the first certificate of a chain is on its issuer's revocation list (`list`, a CRL in DER; RFC 5280 §5).
    /// Fails if the CRL can't be parsed or belongs to another issuer, or if the chain fails verification.
    pub fn is_revoked(
        &self,
        chain: &[CertificateDer<'_>],
        host: &DomainName,
        now: Timestamp,
        list: Vec<u8>,
    ) -> Result<bool, Problem> {
        let (first, rest) = chain.split_first().ok_or(Problem::Malformed)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .with_crls([CertificateRevocationListDer::from(list)])
            .only_check_end_entity_revocation()
            .build()
            .map_err(|error| Problem::Other(format!("the CRL can't be used: {error}")))?;
        match verifier.verify_server_cert(first, rest, &server_name(host)?, &[], unix_time(now)) {
            Ok(_) => Ok(false),
            Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)) => Ok(true),
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)) => {
                Err(Problem::Other("the CRL is not from the certificate's issuer".to_owned()))
            }
            Err(error) => Err(Problem::Other(error.to_string())),
        }
    }

    /// Verifies a chain against the TLSA records of the host (RFC 7672 §3). `base` is the TLSA base domain and
    /// `next_hop` the recipient domain; both are accepted as names in a certificate under usage DANE-TA.
    pub fn check_dane(
        &self,
        chain: &[CertificateDer<'_>],
        rule: &TlsaRule,
        base: &DomainName,
        next_hop: &DomainName,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let TlsaRule::Authenticate(records) = rule else {
            return Ok(());
        };
        let mut problem = Problem::TlsaMismatch;
        for record in records {
            let outcome = match record.usage {
                Usage::DaneEe => chain.first().filter(|own| record_matches(record, own)).map(|_| Ok(())),
                Usage::DaneTa => chain.iter().find(|cert| record_matches(record, cert)).map(|anchor| {
                    self.check_under_anchor(chain, anchor, &reference_names(base, next_hop), now)
                }),
            };
            match outcome {
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) => problem = why,
                None => {}
            }
        }
        Err(problem)
    }

    fn check_under_anchor(
        &self,
        chain: &[CertificateDer<'_>],
        anchor: &CertificateDer<'_>,
        names: &[&DomainName],
        now: Timestamp,
    ) -> Result<(), Problem> {
        let (own, rest) = chain.split_first().ok_or(Problem::Malformed)?;
        if own == anchor {
            // A DANE-TA record that matches the server's own certificate makes it its own trust anchor.
            return own_anchor(own, names, now);
        }
        let anchors = [webpki::anchor_from_trusted_cert(anchor).map_err(|_| Problem::Malformed)?];
        let own = webpki::EndEntityCert::try_from(own).map_err(|_| Problem::Malformed)?;
        let usage = webpki::KeyUsage::server_auth();
        own.verify_for_usage(
            self.provider.signature_verification_algorithms.all,
            &anchors,
            rest,
            unix_time(now),
            usage,
            None,
            None,
        )
        .map_err(|error| match error {
            webpki::Error::CertExpired { .. } => Problem::Expired,
            webpki::Error::CertNotValidYet { .. } => Problem::NotYetValid,
            _ => Problem::UnknownIssuer,
        })?;
        let carries = |name: &&DomainName| {
            server_name(name).is_ok_and(|name| own.verify_is_valid_for_subject_name(&name).is_ok())
        };
        if names.iter().any(carries) { Ok(()) } else { Err(Problem::WrongName) }
    }
}

fn own_anchor(own: &CertificateDer<'_>, names: &[&DomainName], now: Timestamp) -> Result<(), Problem> {
    let facts = CertificateFacts::read(own).ok_or(Problem::Malformed)?;
    if now > facts.not_after {
        return Err(Problem::Expired);
    }
    if now < facts.not_before {
        return Err(Problem::NotYetValid);
    }
    if names.iter().any(|name| carries_name(own, name)) { Ok(()) } else { Err(Problem::WrongName) }
}

fn carries_name(own: &CertificateDer<'_>, name: &DomainName) -> bool {
    let Ok(own) = webpki::EndEntityCert::try_from(own) else { return false };
    server_name(name).is_ok_and(|name| own.verify_is_valid_for_subject_name(&name).is_ok())
}

fn record_matches(record: &UsableTlsa, certificate: &CertificateDer<'_>) -> bool {
    let part = match record.selector {
        Selector::Certificate => Some(certificate.to_vec()),
        Selector::PublicKey => public_key(certificate),
    };
    let matching = match record.matching {
        Matching::Full => 0,
        Matching::Sha256 => 1,
        Matching::Sha512 => 2,
    };
    part.is_some_and(|part| association(&part, matching) == record.data)
}

/// The SubjectPublicKeyInfo of a certificate, which TLSA selector 1 refers to (RFC 6698 §2.1.2). `None` when the
/// certificate can't be parsed.
pub fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.public_key().raw.to_vec())
}

/// The certificate association data for a TLSA matching type (RFC 6698 §2.1.3). `part` is the certificate or public
/// key; it is returned unchanged for type 0 and for unknown types.
pub fn association(part: &[u8], matching: u8) -> Vec<u8> {
    match matching {
        1 => sha2::Sha256::digest(part).to_vec(),
        2 => sha2::Sha512::digest(part).to_vec(),
        _ => part.to_vec(),
    }
}

/// The cipher suites of our clients. `TLS13_AES_128_GCM_SHA256`, which browsers prefer, comes first: many processors
/// have instructions for SHA-256, and a policy fetch consists mostly of the handshake.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// The host name in the form that TLS verification takes.
pub(crate) fn server_name(host: &DomainName) -> Result<ServerName<'static>, Problem> {
    ServerName::try_from(host.as_str().to_owned())
        .map_err(|_| Problem::Other(format!("{host} can't be a DNS name in a certificate")))
}

fn unix_time(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)))
}

/// Adapts the injected clock to rustls.
#[derive(Debug)]
pub(crate) struct TlsClock(pub Arc<dyn Clock>);

impl rustls::time_provider::TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// The contents of a certificate that are reported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertificateFacts {
    /// The subject's distinguished name.
    pub subject: String,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// The DNS names in the subjectAltName extension, at most 100.
    pub names: Vec<String>,
    /// The first second of the validity period.
    pub not_before: Timestamp,
    /// The last second of the validity period.
    pub not_after: Timestamp,
    /// SHA-256 of the DER certificate, in hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of the SubjectPublicKeyInfo, in hexadecimal, as in a `3 1 1` TLSA record.
    pub key_digest: String,
    /// The subject's common name, cut at 253 characters; `None` without one.
    pub common_name: Option<String>,
    /// The type and size of the key, such as `RSA 2048`; for other types, the algorithm's OID.
    pub key: String,
    /// True for RSA keys under 2048 bits, EC keys under 224 bits, and SHA-1 or MD5 signatures except on self-issued
    /// certificates (RFC 9325 §4.5).
    pub is_weak: bool,
    /// True when subject and issuer have the same name.
    pub is_self_issued: bool,
    /// True when the certificate may authenticate a TLS server: its extended key usage says so, or it has none (RFC 5280
    /// §4.2.1.12).
    pub is_for_servers: bool,
    /// True when its extended key usage names TLS clients. Public CAs have issued no such certificate since 2026.
    pub is_for_clients: bool,
}

fn digest(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes))
}

/// The type and size of a key, and whether it is too short.
fn key_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> (String, bool) {
    use x509_parser::public_key::PublicKey;
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => (format!("RSA {}", key.key_size()), key.key_size() < 2048),
        Ok(PublicKey::EC(key)) => (format!("EC {}", key.key_size()), key.key_size() < 224),
        _ => (certificate.public_key().algorithm.algorithm.to_id_string(), false),
    }
}

/// True for RSA signatures with MD5 or SHA-1, and ECDSA signatures with SHA-1 (RFC 3279 §2.2).
fn has_weak_signature(certificate: &x509_parser::certificate::X509Certificate<'_>) -> bool {
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"].contains(&algorithm.as_str())
}

impl CertificateFacts {
    /// Parses a DER certificate; `None` when that fails.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok().flatten().map(|extension| {
            extension
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
                    _ => None,
                })
                .take(100)
                .collect()
        });
        let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let is_self_issued = parsed.subject() == parsed.issuer();
        let (key, short) = key_of(&parsed);
        let usage = parsed.extended_key_usage().ok().flatten().map(|extension| extension.value);
        Some(Self {
            is_for_servers: usage.is_none_or(|usage| usage.server_auth || usage.any),
            is_for_clients: usage.is_some_and(|usage| usage.client_auth),
            common_name: common_name.map(|name| name.chars().take(253).collect()),
            key,
            is_weak: short || !is_self_issued && has_weak_signature(&parsed),
            is_self_issued,
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: names.unwrap_or_default(),
            not_before: Timestamp::from_second(parsed.validity().not_before.timestamp()).ok()?,
            not_after: Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?,
            fingerprint: digest(certificate),
            key_digest: digest(parsed.public_key().raw),
        })
    }
}
