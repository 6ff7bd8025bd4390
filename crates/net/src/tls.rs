//! Handshakes whose certificate is judged afterwards, so that everything about it can be told: what
//! sessions with MX hosts and visits to policy hosts have in common.

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

/// What a handshake showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The chain as presented, the host's own certificate first.
    pub chain: Vec<CertificateFacts>,
    /// The same as it came.
    pub raw: Vec<CertificateDer<'static>>,
    /// Whether the chain is good by trusted roots, dates and name; looked at in any case.
    pub pkix: Result<(), Problem>,
    /// Whether it is good by DANE, when that was demanded.
    pub dane: Option<Result<(), Problem>>,
}

/// Shakes hands with anyone.
pub(crate) struct Handshaker {
    config: ClientConfig,
    trust: Trust,
    clock: Arc<dyn Clock>,
}

impl Handshaker {
    pub(crate) fn new(trust: Trust, clock: Arc<dyn Clock>, alpn: &[&[u8]]) -> Result<Self, rustls::Error> {
        let provider = trust.provider();
        let mut config =
            ClientConfig::builder_with_details(provider.clone(), Arc::new(TlsClock(clock.clone())))
                .with_safe_default_protocol_versions()?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(JudgeLater(provider)))
                .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self { config, trust, clock })
    }

    /// A handshake about `host`, which is named to the server only `with_sni`; and whether the server asked
    /// for a certificate of ours.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        host: &DomainName,
        with_sni: bool,
    ) -> (Result<TlsStream<S>, std::io::Error>, bool) {
        let asked = Arc::new(Asked::default());
        let mut config = self.config.clone();
        config.client_auth_cert_resolver = asked.clone();
        config.enable_sni = with_sni;
        let outcome = match server_name(host) {
            Ok(name) => TlsConnector::from(Arc::new(config)).connect(name, stream).await,
            Err(problem) => Err(std::io::Error::other(problem.to_string())),
        };
        (outcome, asked.0.load(Ordering::Relaxed))
    }

    /// What the handshake showed, its chain judged for `host`.
    pub(crate) fn judge<S>(&self, stream: &TlsStream<S>, host: &DomainName) -> TlsFacts {
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let version = session.protocol_version().and_then(|version| version.as_str());
        let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        TlsFacts {
            version: version.unwrap_or("unknown").to_owned(),
            cipher: cipher.unwrap_or("unknown").to_owned(),
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

/// Has no certificate, and remembers being asked for one.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Completes the handshake whatever the certificate is; whoever uses it decides before anything is sent.
/// The handshake's own signatures are checked.
#[derive(Debug)]
struct JudgeLater(Arc<CryptoProvider>);

impl ServerCertVerifier for JudgeLater {
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
