//! A certificate and its key out of files that the operator gives; a change of them is taken in while it
//! runs. What can't be read leaves the one before in use, and is said in the log.

use crate::config::CertificateFiles;
use crate::failure::Failure;
use net::BoxFuture;
use net::smtp::server::{AnyStream, Upgrade};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(30);

/// The certificate that is in use.
pub struct Certificate {
    files: CertificateFiles,
    alpn: Vec<Vec<u8>>,
    current: RwLock<TlsAcceptor>,
    seen: Mutex<Times>,
}

type Times = [Option<SystemTime>; 2];

impl Certificate {
    /// Out of these files; `alpn` names the protocols that are spoken over it.
    pub fn load(files: &CertificateFiles, alpn: &[&[u8]]) -> Result<Arc<Self>, Failure> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let seen = times(files);
        let acceptor = read(files, &alpn).map_err(|why| {
            Failure::usage(
                format!("the certificate {} can't be used", files.certificate.display()),
                why,
                "Give the certificate with those that it was made with (fullchain.pem) and its key, both as PEM, readable by the user that Sternpost runs as.",
            )
        })?;
        Ok(Arc::new(Self {
            files: files.clone(),
            alpn,
            current: RwLock::new(acceptor),
            seen: Mutex::new(seen),
        }))
    }

    /// Looks again and again whether the files have changed, until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look();
        }
    }

    /// Takes the files in when they have changed.
    pub fn look(&self) {
        let now = times(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        let shown = self.files.certificate.display();
        match read(&self.files, &self.alpn) {
            Ok(acceptor) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                *seen = now;
                tracing::info!("the certificate {shown} has changed and is taken in");
            }
            // The two files change one after the other; so this may be over at the next look.
            Err(why) => {
                tracing::error!("the certificate {shown} has changed, and the one before stays in use: {why}")
            }
        }
    }

    /// The one to use for a connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Upgrade for Certificate {
    fn upgrade(&self, stream: AnyStream) -> BoxFuture<'_, io::Result<AnyStream>> {
        let accept = self.acceptor().accept(stream);
        Box::pin(async move { Ok(Box::new(accept.await?) as AnyStream) })
    }
}

fn times(files: &CertificateFiles) -> Times {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    [changed(&files.certificate), changed(&files.key)]
}

fn read(files: &CertificateFiles, alpn: &[Vec<u8>]) -> Result<TlsAcceptor, String> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(&files.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&files.certificate, &error))?;
    config.alpn_protocols = alpn.to_vec();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_in_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertificateFiles { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        assert!(Certificate::load(&files, &[]).is_err());
        let write = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(&files.certificate, made.cert.pem()).unwrap();
            std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        };
        write("a.example");
        let certificate = Certificate::load(&files, &[b"http/1.1"]).unwrap();
        let config = || Arc::as_ptr(certificate.acceptor().config());
        let first = config();
        certificate.look();
        assert_eq!(config(), first);
        std::fs::write(&files.certificate, "broken").unwrap();
        certificate.look();
        assert_eq!(config(), first);
        write("b.example");
        certificate.look();
        assert_ne!(config(), first);
    }
}
