//! A rustls certificate resolver that returns the certificate already selected for a connection.

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The certificate selected for a connection; `None` ends the handshake with an alert.
#[derive(Debug)]
pub(super) struct FixedCertificate(pub(super) Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for FixedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}
