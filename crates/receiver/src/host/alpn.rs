//! The challenge tls-alpn-01 (RFC 8737): a handshake in which the policy host shows a certificate of its own making with
//! the digest that the authority wants to see.

use super::fixed_certificate::FixedCertificate;
use data_encoding::BASE64;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The protocol of such handshakes.
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

/// Under which name the answer for a host is kept. No token of http-01 can be that.
pub(super) fn name_in_store(host: &str) -> String {
    format!("alpn:{host}")
}

/// As it is kept.
pub(super) fn to_store(digest: &[u8]) -> String {
    BASE64.encode(digest)
}

/// What is presented in the handshake; nothing when what is kept is no digest.
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
        // Picked by hand: what checks a chain knows nothing of the extension, which has to be critical.
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
