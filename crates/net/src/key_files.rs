//! Loads a server's certificate and private key from PEM files that the operator manages, and reloads them when they
//! change. If the new files can't be loaded, the previous certificate stays in use. [`KeyFiles`] plugs into a rustls
//! server as its certificate resolver.

use crate::certificate::CertificateFacts;
use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// The certificate in use, and the files that it was loaded from.
#[derive(Debug)]
pub struct KeyFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<Loaded>>,
    /// The modification times of the files when they were last loaded.
    loaded_times: Mutex<Times>,
}

type Times = [Option<SystemTime>; 2];

/// A loaded certificate and key.
#[derive(Debug)]
pub struct Loaded {
    /// The certificate chain with its private key.
    pub key: Arc<CertifiedKey>,
    /// The DNS names that the certificate is valid for.
    pub names: Vec<String>,
    /// When the certificate expires (`notAfter`).
    pub ends: Timestamp,
}

/// The result of [`KeyFiles::reload_if_changed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// The files have not changed.
    Unchanged,
    /// The files have changed; the new certificate is in use.
    Reloaded,
    /// The files have changed but could not be loaded, for this reason; the previous certificate stays in use. This may
    /// be temporary, since the two files are usually replaced one after the other.
    Failed(String),
}

impl KeyFiles {
    /// Loads a certificate chain and its private key, both in PEM. The error names the file at fault.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let times = [modified(certificate), modified(key)];
        let loaded = read(certificate, key)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(Arc::new(loaded)),
            loaded_times: Mutex::new(times),
        })
    }

    /// The path of the certificate file.
    pub fn path(&self) -> &Path {
        &self.certificate
    }

    /// The certificate in use: the one that was loaded last.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reloads the files if their modification times have changed.
    pub fn reload_if_changed(&self) -> Reload {
        let now = [modified(&self.certificate), modified(&self.key)];
        let mut times = self.loaded_times.lock().unwrap_or_else(PoisonError::into_inner);
        if *times == now {
            return Reload::Unchanged;
        }
        match read(&self.certificate, &self.key) {
            Ok(loaded) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                *times = now;
                Reload::Reloaded
            }
            Err(why) => Reload::Failed(why),
        }
    }
}

impl ResolvesServerCert for KeyFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }
}

/// The modification time of a file; `None` when it can't be read.
fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|about| about.modified()).ok()
}

fn read(certificate: &Path, key: &Path) -> Result<Loaded, String> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let facts = chain.first().and_then(CertificateFacts::read);
    let facts = facts.ok_or_else(|| wrong(certificate, &"it contains no certificate"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, secret, &provider);
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong(key, &"it is not the certificate's private key"),
        other => wrong(certificate, &other),
    })?;
    Ok(Loaded { key: Arc::new(certified), names: facts.names, ends: facts.not_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_files_are_reloaded_and_invalid_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        assert!(KeyFiles::load(&certificate, &key).unwrap_err().contains("c.pem"));
        let write = |name: &str, with_key: bool| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            if with_key {
                std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            }
        };
        write("a.example", true);
        let files = KeyFiles::load(&certificate, &key).unwrap();
        assert_eq!(files.current().names, ["a.example"]);
        assert_eq!(files.reload_if_changed(), Reload::Unchanged);
        std::fs::write(&certificate, "broken").unwrap();
        assert!(matches!(files.reload_if_changed(), Reload::Failed(_)));
        write("b.example", false);
        let Reload::Failed(why) = files.reload_if_changed() else { panic!() };
        assert!(why.contains("not the certificate's private key"), "{why}");
        assert_eq!(files.current().names, ["a.example"]);
        write("b.example", true);
        assert_eq!(files.reload_if_changed(), Reload::Reloaded);
        assert_eq!(files.current().names, ["b.example"]);
    }
}
