//! TLS client handshakes that complete with any certificate and verify it afterwards, so that a report can describe a
//! certificate that fails. SMTP sessions ([`crate::smtp`]) and HTTPS visits ([`crate::https`]) use them. The caller
//! must check [`TlsFacts`] before it sends anything that needs a verified host.

use crate::certificate::{CertificateFacts, Problem, TlsClock, Trust, server_name};
use crate::clock::Clock;
use formats::DomainName;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What a TLS handshake showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The negotiated TLS version, such as `TLSv1.3`.
    pub version: String,
    /// The negotiated cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The key exchange group, such as `X25519` or `X25519MLKEM768`; `unknown` where the library does not tell.
    pub group: String,
    /// The first 10 certificates as presented, the host's own first; those that can't be parsed are left out.
    pub chain: Vec<CertificateFacts>,
    /// The first 10 certificates in DER.
    pub raw: Vec<CertificateDer<'static>>,
    /// The result of verifying the chain against trusted roots, dates and host name. Always computed, even for a
    /// session that does not require it.
    pub pkix: Result<(), Problem>,
    /// The result of verifying the chain against TLSA records; `None` unless DANE was demanded.
    pub dane: Option<Result<(), Problem>>,
}

/// Completes handshakes without verifying the certificate.
pub(crate) struct Handshaker {
    config: ClientConfig,
    trust: Trust,
    clock: Arc<dyn Clock>,
}

impl Handshaker {
    pub(crate) fn new(trust: Trust, clock: Arc<dyn Clock>, alpn: &[&[u8]]) -> Result<Self, rustls::Error> {
        Self::with_provider(trust.provider(), trust, clock, alpn)
    }

    /// A client that prefers post-quantum key exchange, and so sends a ClientHello of more than one TCP segment, as OpenSSL
    /// 3.5 and the mail servers with it do.
    pub(crate) fn post_quantum(trust: Trust, clock: Arc<dyn Clock>) -> Result<Self, rustls::Error> {
        let mut provider = CryptoProvider::clone(&trust.provider());
        provider.kx_groups.sort_by_key(|group| group.name() != rustls::NamedGroup::X25519MLKEM768);
        Self::with_provider(Arc::new(provider), trust, clock, &[])
    }

    fn with_provider(
        provider: Arc<CryptoProvider>,
        trust: Trust,
        clock: Arc<dyn Clock>,
        alpn: &[&[u8]],
    ) -> Result<Self, rustls::Error> {
        let mut config =
            ClientConfig::builder_with_details(provider.clone(), Arc::new(TlsClock(clock.clone())))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAnyCertificate(provider)))
                .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self { config, trust, clock })
    }

    /// Completes a handshake and says whether the server requested a client certificate. `name` is sent as SNI only if
    /// `with_sni` is true.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &DomainName,
        with_sni: bool,
    ) -> (Result<TlsStream<S>, std::io::Error>, bool) {
        let requested = Arc::new(CertificateRequest::default());
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = requested.clone();
        config.enable_sni = with_sni;
        let outcome = match server_name(name) {
            Ok(name) => TlsConnector::from(Arc::new(config)).connect(name, stream).await,
            Err(problem) => Err(std::io::Error::other(problem.to_string())),
        };
        (outcome, requested.0.load(Ordering::Relaxed))
    }

    /// What the handshake showed, with the chain verified for `host`.
    pub(crate) fn inspect<S>(&self, stream: &TlsStream<S>, host: &DomainName) -> TlsFacts {
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let version = session.protocol_version().and_then(|version| version.as_str());
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        TlsFacts {
            version: version.unwrap_or("unknown").to_owned(),
            cipher: cipher.unwrap_or("unknown").to_owned(),
            group: group(session),
            chain: chain.iter().take(10).filter_map(CertificateFacts::read).collect(),
            raw: chain.iter().take(10).cloned().collect(),
            pkix: self.trust.check(chain, host, self.clock.now()),
            dane: None,
        }
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }
}

/// The name of the key exchange group of a session.
pub(crate) fn group(session: &rustls::ClientConnection) -> String {
    let group = session.negotiated_key_exchange_group();
    group.map_or_else(|| "unknown".to_owned(), |group| format!("{:?}", group.name()))
}

/// Offers no client certificate, and records whether the server requested one.
#[derive(Debug, Default)]
struct CertificateRequest(AtomicBool);

impl ResolvesClientCert for CertificateRequest {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Accepts any certificate, but verifies that the server holds its private key (the handshake signatures). The caller
/// verifies the certificate after the handshake, before it sends data.
#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
