//! TLS with a certificate out of files that the operator gives; a change of them is taken in while it runs, and said in
//! the log.

use config::CertificateFiles;
use config::failure::Failure;
use net::BoxFuture;
use net::key_files::{KeyFiles, Reload};
use net::smtp::server::{AnyStream, Upgrade};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// Between two looks at the files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);

/// The certificate that is in use.
pub struct Certificate {
    files: Arc<KeyFiles>,
    acceptor: TlsAcceptor,
}

impl Certificate {
    /// Out of these files; `alpn` names the protocols that are spoken over it.
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

    /// Looks again and again whether the files have changed, until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            look(&self.files);
        }
    }

    /// What speaks TLS with it.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// The files, for the first time.
pub fn load(files: &CertificateFiles) -> Result<KeyFiles, Failure> {
    KeyFiles::load(&files.certificate, &files.key).map_err(|why| {
        Failure::usage(
            format!("the certificate {} can't be used", files.certificate.display()),
            why,
            "Give the certificate with those that it was made with (fullchain.pem) and its key, both as PEM, readable by the user that Sternpost runs as.",
        )
    })
}

/// Takes a change in; true when there was one.
pub fn look(files: &KeyFiles) -> bool {
    let shown = files.path().display();
    match files.look() {
        Reload::Same => return false,
        Reload::Taken => tracing::info!("the certificate {shown} has changed and is taken in"),
        Reload::Unreadable(why) => {
            tracing::error!("the certificate {shown} has changed, and the one before stays in use: {why}");
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
