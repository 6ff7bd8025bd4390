//! A certificate and its key out of files that the operator gives; a change of them is taken in while the program runs.
//! What can't be read leaves the one before in use.

use crate::certificate::CertificateFacts;
use jiff::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// The certificate that is in use.
#[derive(Debug)]
pub struct KeyFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<Loaded>>,
    seen: Mutex<Times>,
}

type Times = [Option<SystemTime>; 2];

/// What was in the files.
#[derive(Debug)]
pub struct Loaded {
    /// The chain and its key.
    pub key: Arc<CertifiedKey>,
    /// The DNS names that the certificate is for.
    pub names: Vec<String>,
    /// When it ends.
    pub ends: Timestamp,
}

/// What a look at the files came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// They are as they were.
    Same,
    /// They have changed and are in use.
    Taken,
    /// They have changed, and the ones before stay in use. The two files change one after the other, so this may be
    /// over at the next look.
    Unreadable(String),
}

impl KeyFiles {
    /// Out of these files: the certificate with those that it was made with, and its key, both as PEM.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let seen = [changed(certificate), changed(key)];
        let loaded = read(certificate, key)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(Arc::new(loaded)),
            seen: Mutex::new(seen),
        })
    }

    /// The file of the certificate.
    pub fn path(&self) -> &Path {
        &self.certificate
    }

    /// What is in use.
    pub fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the files in when they have changed.
    pub fn look(&self) -> Reload {
        let now = [changed(&self.certificate), changed(&self.key)];
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return Reload::Same;
        }
        match read(&self.certificate, &self.key) {
            Ok(loaded) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                *seen = now;
                Reload::Taken
            }
            Err(why) => Reload::Unreadable(why),
        }
    }
}

impl ResolvesServerCert for KeyFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|about| about.modified()).ok()
}

fn read(certificate: &Path, key: &Path) -> Result<Loaded, String> {
    let wrong = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let facts = chain.first().and_then(CertificateFacts::read);
    let facts = facts.ok_or_else(|| wrong(certificate, &"there is no certificate in it"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, secret, &provider);
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong(key, &"it is not the certificate's key"),
        other => wrong(certificate, &other),
    })?;
    Ok(Loaded { key: Arc::new(certified), names: facts.names, ends: facts.not_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_taken_in_and_a_broken_one_is_not() {
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
        assert_eq!(files.look(), Reload::Same);
        std::fs::write(&certificate, "broken").unwrap();
        assert!(matches!(files.look(), Reload::Unreadable(_)));
        write("b.example", false);
        let Reload::Unreadable(why) = files.look() else { panic!() };
        assert!(why.contains("not the certificate's key"), "{why}");
        assert_eq!(files.current().names, ["a.example"]);
        write("b.example", true);
        assert_eq!(files.look(), Reload::Taken);
        assert_eq!(files.current().names, ["b.example"]);
    }
}
