//! What is served, in bounded memory in front of the store: sites are fetched when they are first asked
//! for, and dropped when the store says that they changed. What is in memory is served on when the store
//! fails.

use formats::DomainName;
use hyper::body::Bytes;
use net::clock::Clock;
use quick_cache::sync::Cache;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::hosting::StoredCertificate;
use store::{Store, StoreError};

/// Sites in bounded memory.
pub struct Shelf {
    store: Store,
    clock: Arc<dyn Clock>,
    sites: Cache<String, Option<Arc<Site>>>,
    hosted: AtomicI64,
    certificates: AtomicI64,
}

/// A policy host.
pub struct Site {
    /// The policy file.
    pub body: Bytes,
    /// What it proves itself by.
    pub certificate: Arc<CertifiedKey>,
}

/// Sites, and names that are none, in memory.
const SITES: usize = 20_000;
/// Changes that are taken in at once.
const CHANGES: u32 = 1000;

impl Shelf {
    /// In front of this store.
    pub async fn new(store: Store, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (hosted, certificates) = store.hosting_versions().await?;
        Ok(Self {
            store,
            clock,
            sites: Cache::new(SITES),
            hosted: hosted.into(),
            certificates: certificates.into(),
        })
    }

    /// The site of a policy host, when it is here and has a certificate.
    pub async fn site(&self, host: &str) -> Option<Arc<Site>> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Some(known) = self.sites.get(&host) {
            return known;
        }
        let domain = DomainName::from_ascii(host.strip_prefix("mta-sts.")?).ok()?;
        let before = self.versions();
        match self.fetch(&host, &domain).await {
            Ok(site) => {
                self.sites.insert(host.clone(), site.clone());
                // What changed while it was fetched may have been dropped before it was there.
                if self.versions() != before {
                    self.sites.remove(&host);
                }
                site
            }
            Err(error) => {
                tracing::error!(%host, %error, "a policy can't be served, since the store fails");
                None
            }
        }
    }

    async fn fetch(&self, host: &str, domain: &DomainName) -> Result<Option<Arc<Site>>, StoreError> {
        let Ok(name) = DomainName::from_ascii(host) else { return Ok(None) };
        let Some(policy) = self.store.hosted(domain).await? else { return Ok(None) };
        let Some(stored) = self.store.certificate(&name).await?.filter(|stored| !stored.chain.is_empty())
        else {
            return Ok(None);
        };
        match certified(&stored) {
            Ok(certificate) => {
                if stored.expires_at <= self.clock.now() {
                    tracing::error!(%host, until = %stored.expires_at, "an expired certificate is served: senders don't take it");
                }
                Ok(Some(Arc::new(Site { body: Bytes::from(policy), certificate })))
            }
            Err(why) => {
                tracing::error!(%host, why, "a certificate in the store can't be used");
                Ok(None)
            }
        }
    }

    /// Drops what has changed in the store since the last time.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (hosted, certificates) = self.versions();
        for (domain, version) in self.store.hosted_after(hosted, CHANGES).await? {
            // First, so that whoever fetches it meanwhile sees that it has changed.
            self.hosted.store(version, Ordering::SeqCst);
            self.sites.remove(&format!("mta-sts.{domain}"));
        }
        for (host, version) in self.store.certificates_after(certificates, CHANGES).await? {
            self.certificates.store(version, Ordering::SeqCst);
            self.sites.remove(host.as_str());
        }
        Ok(())
    }

    fn versions(&self) -> (i64, i64) {
        (self.hosted.load(Ordering::SeqCst), self.certificates.load(Ordering::SeqCst))
    }
}

fn certified(stored: &StoredCertificate) -> Result<Arc<CertifiedKey>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(stored.chain.as_bytes()).collect();
    let chain = chain.map_err(|_| "its chain is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(stored.key.as_bytes()).map_err(|_| "its key is not PEM")?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| "its key is of no known kind")?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
