//! A bounded in-memory cache of policies and certificates in front of the store. Sites are loaded on first request
//! and dropped when the store reports a change. Cached sites are served even when the store fails.

use super::alpn;
use super::vault::Vault;
use formats::DomainName;
use hyper::body::Bytes;
use jiff::Timestamp;
use net::clock::Clock;
use net::key_files::{KeyFiles, Loaded};
use quick_cache::sync::Cache;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use store::hosting::StoredCertificate;
use store::{Outage, Store, StoreError};

/// The policies and certificates that are served, by host name; loaded from the store and from files.
pub struct SiteCache {
    store: Store,
    clock: Arc<dyn Clock>,
    sites: Cache<String, Option<Arc<Site>>>,
    hosted: AtomicI64,
    certificates: AtomicI64,
    vault: Arc<Vault>,
    files: Vec<Arc<KeyFiles>>,
    /// Failures of the store to answer a request.
    outage: Outage,
}

/// What a policy host serves.
pub struct Site {
    /// The content of the policy file.
    pub body: Bytes,
    /// The certificate and its key; `None` when there is none that can be used.
    pub certificate: Option<Arc<CertifiedKey>>,
}

/// Maximum number of cached entries, including names without a site.
const MAX_SITES: usize = 20_000;
/// Maximum number of changes of each kind read in one refresh.
const CHANGES_BATCH: u32 = 1000;

impl SiteCache {
    /// Creates an empty cache in front of this store.
    pub async fn new(store: Store, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let (hosted, certificates) = store.hosting_versions().await?;
        Ok(Self {
            store,
            clock,
            sites: Cache::new(MAX_SITES),
            hosted: hosted.into(),
            certificates: certificates.into(),
            vault: Arc::default(),
            files: Vec::new(),
            outage: Outage::new(),
        })
    }

    /// Decrypts private keys with this vault.
    pub fn with_vault(self, vault: Arc<Vault>) -> Self {
        Self { vault, ..self }
    }

    /// Prefers the certificates in these files, for the hosts that they name, to those in the store.
    pub fn with_files(self, files: Vec<Arc<KeyFiles>>) -> Self {
        Self { files, ..self }
    }

    /// Clears the cache, since certificate files have changed.
    pub fn files_have_changed(&self) {
        self.sites.clear();
    }

    /// The TLS configuration that answers a host's tls-alpn-01 challenge (RFC 8737); `None` without a challenge.
    pub(super) async fn challenge(&self, host: &str) -> Option<Arc<ServerConfig>> {
        let host = DomainName::parse(host).ok()?;
        match self.store.challenge(&alpn::name_in_store(host.as_str())).await {
            Ok(kept) => alpn::config(host.as_str(), &kept?),
            Err(error) => {
                if self.outage.is_news(&error) {
                    tracing::error!(%host, %error, "an ACME challenge can't be answered: the store fails");
                }
                None
            }
        }
    }

    /// The site of a policy host; `None` when its policy is not served here.
    pub async fn site(&self, host: &str) -> Option<Arc<Site>> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Some(known) = self.sites.get(&host) {
            return known;
        }
        let domain = DomainName::from_ascii(host.strip_prefix("mta-sts.")?).ok()?;
        let before = self.versions();
        match self.fetch(&host, &domain).await {
            Ok(site) => {
                if let Some(failures) = self.outage.ends() {
                    tracing::info!(failures, "policies are read from the store again");
                }
                self.sites.insert(host.clone(), site.clone());
                // A change during the fetch may have been processed before this entry existed.
                if self.versions() != before {
                    self.sites.remove(&host);
                }
                site
            }
            Err(error) => {
                if self.outage.is_news(&error) {
                    tracing::error!(%host, %error, "a policy can't be served: the store fails");
                }
                None
            }
        }
    }

    async fn fetch(&self, host: &str, domain: &DomainName) -> Result<Option<Arc<Site>>, StoreError> {
        let Ok(name) = DomainName::from_ascii(host) else { return Ok(None) };
        let Some(policy) = self.store.hosted(domain).await? else { return Ok(None) };
        let (certificate, until) = match self.files_of(host) {
            Some(loaded) => (Some(loaded.key.clone()), loaded.ends),
            None => match self.store.certificate(&name).await?.filter(|stored| !stored.chain.is_empty()) {
                Some(stored) => (self.decrypted(host, &stored), stored.expires_at),
                None => (None, Timestamp::MAX),
            },
        };
        if certificate.is_some() && until <= self.clock.now() {
            tracing::error!(%host, %until, "an expired certificate is served: senders reject it");
        }
        Ok(Some(Arc::new(Site { body: Bytes::from(policy), certificate })))
    }

    /// The certificate in a file for this host.
    fn files_of(&self, host: &str) -> Option<Arc<Loaded>> {
        let is_for = |loaded: &Arc<Loaded>| loaded.names.iter().any(|name| covers(name, host));
        self.files.iter().map(|files| files.current()).find(is_for)
    }

    fn decrypted(&self, host: &str, stored: &StoredCertificate) -> Option<Arc<CertifiedKey>> {
        let key = self.vault.open(host, &stored.key).map_err(|error| error.to_string());
        match key.and_then(|key| certified(&stored.chain, &key).map_err(str::to_owned)) {
            Ok(certificate) => Some(certificate),
            Err(why) => {
                tracing::error!(%host, why, "a certificate in the store can't be used");
                None
            }
        }
    }

    /// Drops the entries that changed in the store since the last call.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (hosted, certificates) = self.versions();
        for (domain, version) in self.store.hosted_after(hosted, CHANGES_BATCH).await? {
            // The version comes first, so that a concurrent fetch notices the change.
            self.hosted.store(version, Ordering::SeqCst);
            self.sites.remove(&format!("mta-sts.{domain}"));
        }
        for (host, version) in self.store.certificates_after(certificates, CHANGES_BATCH).await? {
            self.certificates.store(version, Ordering::SeqCst);
            self.sites.remove(host.as_str());
        }
        Ok(())
    }

    fn versions(&self) -> (i64, i64) {
        (self.hosted.load(Ordering::SeqCst), self.certificates.load(Ordering::SeqCst))
    }
}

/// Whether a DNS name of a certificate covers a host: the same name, or `*` in place of its first label (RFC 9525
/// §6.4.3).
pub(super) fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, below)| below.eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(host),
    }
}

pub(super) fn certified(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|_| "its chain is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "its key is not PEM")?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|_| "its key has an unsupported type")?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
