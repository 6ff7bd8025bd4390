//! The ACME challenge tls-alpn-01 (RFC 8737): during the handshake the policy host presents a self-signed certificate
//! with the digest that the CA expects.

use super::fixed_certificate::FixedCertificate;
use data_encoding::BASE64;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The ALPN protocol of such handshakes (RFC 8737 §4).
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The key under which the store holds a host's challenge. It differs from every http-01 token, which has no colon.
pub(super) fn name_in_store(host: &str) -> String {
    format!("alpn:{host}")
}

/// Encodes a digest for the store.
pub(super) fn to_store(digest: &[u8]) -> String {
    BASE64.encode(digest)
}

/// Builds the TLS configuration that answers the challenge; `None` when `kept` is not a SHA-256 digest.
pub(super) fn config(host: &str, kept: &str) -> Option<Arc<ServerConfig>> {
    let digest = BASE64.decode(kept.as_bytes()).ok().filter(|digest| digest.len() == 32)?;
    let mut params = CertificateParams::new([host.to_owned()]).ok()?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let key = KeyPair::generate().ok()?;
    let certificate = params.self_signed(&key).ok()?;
    let secret = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let secret = rustls::crypto::aws_lc_rs::sign::any_supported_type(&secret).ok()?;
    let presented = CertifiedKey::new(vec![certificate.der().clone()], secret);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        // A fixed resolver, since rustls' check of a configured chain would reject the critical extension.
        .with_cert_resolver(Arc::new(FixedCertificate(Some(Arc::new(presented)))));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Some(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_is_presented() {
        assert!(config("mta-sts.a.example", &to_store(&[7; 32])).is_some());
        assert!(config("mta-sts.a.example", &to_store(&[7; 31])).is_none());
        assert!(config("mta-sts.a.example", "answer").is_none());
    }
}
