//! The certificate of one connection, as the TLS library asks for it.

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The certificate that was picked for a connection, or none.
#[derive(Debug)]
pub(super) struct FixedCertificate(pub(super) Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}
