//! TLS with a certificate from the operator's files, as the dashboard and the inbox use it. The files are checked for
//! changes and reloaded while the server runs; each reload is logged.

use config::CertificateFiles;
use config::failure::Failure;
use net::BoxFuture;
use net::key_files::{KeyFiles, Reload};
use net::smtp::server::{AnyStream, Upgrade};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// Time between two checks of the files for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);

/// The certificate in use, with a TLS acceptor for it.
pub struct Certificate {
    files: Arc<KeyFiles>,
    acceptor: TlsAcceptor,
}

impl Certificate {
    /// Loads the files. `alpn` lists the offered application protocols (RFC 7301).
    pub fn load(files: &CertificateFiles, alpn: &[&[u8]]) -> Result<Arc<Self>, Failure> {
        let files = Arc::new(load(files)?);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new("TLS can't be set up", error, ""))?
            .with_no_client_auth()
            .with_cert_resolver(files.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(Self { files, acceptor: TlsAcceptor::from(Arc::new(config)) }))
    }

    /// Reloads the files whenever they change, until the task is dropped.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            reload(&self.files);
        }
    }

    /// The certificate files, which are reloaded when they change.
    pub fn files(&self) -> &Arc<KeyFiles> {
        &self.files
    }

    /// The acceptor that serves this certificate.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// Loads a certificate and its key; an unusable file is a usage error.
pub fn load(files: &CertificateFiles) -> Result<KeyFiles, Failure> {
    KeyFiles::load(&files.certificate, &files.key).map_err(|why| {
        Failure::usage(
            format!("the certificate {} can't be used", files.certificate.display()),
            why,
            "Give the certificate with its chain (fullchain.pem) and its key, both in PEM format and readable by the user that Sternpost runs as.",
        )
    })
}

/// Reloads the files if they have changed, and logs that. Returns true when a new certificate is in use.
pub fn reload(files: &KeyFiles) -> bool {
    let shown = files.path().display();
    match files.reload_if_changed() {
        Reload::Unchanged => return false,
        Reload::Reloaded => tracing::info!("the certificate {shown} has changed and is reloaded"),
        Reload::Failed(why) => {
            tracing::error!(
                "the certificate {shown} has changed but can't be loaded; the previous one stays in use: {why}"
            );
            return false;
        }
    }
    true
}

impl Upgrade for Certificate {
    fn upgrade(&self, stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        let accept = self.acceptor.accept(stream);
        Box::pin(async move { Ok(Box::new(accept.await?) as AnyStream) })
    }
}
