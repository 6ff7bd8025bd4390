//! ACME certificate authorities: their settings, our account at each (RFC 8555 §7.3), and the budget of new orders.

use super::ca_http;
use super::order_budget::OrderBudget;
use super::vault::{Vault, VaultError};
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::{Store, StoreError};

/// An ACME CA and its account settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// URL of its directory (RFC 8555 §7.1.1).
    pub directory: String,
    /// The operator's contact URL, `mailto:…`.
    pub contact: Option<String>,
    /// The certificate profile to request; `None` uses the CA's default.
    pub profile: Option<String>,
    /// PEM file with the root that signs the directory's own TLS certificate; `None` trusts the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The operator's existing account at the CA, to which ours is bound (RFC 8555 §7.3.4).
    pub external: Option<ExternalAccount>,
    /// Maximum number of new orders per hour; renewals may be 20 times as many.
    pub new_per_hour: u32,
    /// The issuer domain name of the CA in CAA records (RFC 8659 §4.2), if it is not one of the known CAs.
    pub issuer: Option<String>,
}

/// Known CAs: the host of the directory, and the issuer domain name.
const ISSUERS: &[(&str, &str)] = &[
    ("api.letsencrypt.org", "letsencrypt.org"),
    ("acme.zerossl.com", "sectigo.com"),
    ("acme.sectigo.com", "sectigo.com"),
    ("api.pki.goog", "pki.goog"),
    ("acme.ssl.com", "ssl.com"),
    ("api.buypass.com", "buypass.com"),
];

impl Authority {
    /// The CA's issuer domain name; `None` if it is not known.
    pub fn issuer(&self) -> Option<&str> {
        let host = self.directory.strip_prefix("https://")?.split(['/', ':']).next()?;
        let is_it = |(end, _): &&(&str, &str)| {
            host.strip_suffix(*end).is_some_and(|head| head.is_empty() || head.ends_with(['.', '-']))
        };
        let known = || ISSUERS.iter().find(is_it).map(|(_, issuer)| *issuer);
        self.issuer.as_deref().or_else(known)
    }
}

/// Default limit of new orders per hour, which Let's Encrypt allows.
pub const ORDERS_PER_HOUR: u32 = 100;

/// The key for external account binding (RFC 8555 §7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key's identifier, given by the CA.
    pub key_id: String,
    /// File with the HMAC key in base64url.
    pub key_file: PathBuf,
}

/// Why the account can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The CA refused, or could not be reached.
    #[error(transparent)]
    Acme(#[from] Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The account's key in the store can't be decrypted or encrypted.
    #[error("the account's key in the store: {0}")]
    Vault(#[from] VaultError),
    /// The key file of the external account can't be used: the file and the reason.
    #[error("the key file {0}: {1}")]
    External(String, String),
}

/// A CA with its account. The budget of orders is in the store. Clones share the account.
#[derive(Clone)]
pub struct CaClient {
    pub(super) authority: Authority,
    /// The account, with the time at which the CA's directory was read.
    opened: Arc<tokio::sync::Mutex<Option<(Timestamp, Account)>>>,
    /// True from when the CA did not know the account in the store until a new one has replaced it.
    is_forgotten: Arc<AtomicBool>,
}

impl fmt::Debug for CaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaClient({})", self.authority.directory)
    }
}

/// How long the directory of a CA is used.
const DIRECTORY_AGE: SignedDuration = SignedDuration::from_hours(1);

/// The associated data under which the account's key is encrypted.
const OWNER: &str = "acme-account";

impl CaClient {
    /// Creates a client of a CA.
    pub fn new(authority: Authority) -> Self {
        Self { authority, opened: Arc::default(), is_forgotten: Arc::default() }
    }

    /// The number of new orders that may be sent to the CA at `now`.
    pub(super) async fn remaining(&self, store: &Store, now: Timestamp) -> Result<u32, StoreError> {
        let stored = store.acme_budget(&self.authority.directory).await?;
        Ok(OrderBudget::stored(stored, self.authority.new_per_hour).remaining(now))
    }

    /// Whether an order may be sent to the CA at `now`. This spends one order from the budget, of new ones if `is_new`.
    pub(super) async fn try_spend(
        &self,
        store: &Store,
        is_new: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let spend = |budget: &mut OrderBudget| {
            if !is_new {
                return budget.try_renewal(now);
            }
            let is_left = budget.remaining(now) > 0;
            if is_left {
                budget.spend();
            }
            is_left
        };
        self.change_budget(store, spend).await
    }

    /// Pauses all orders at the CA.
    pub(super) async fn pause(&self, store: &Store, now: Timestamp) -> Result<(), StoreError> {
        self.change_budget(store, |budget| budget.pause(now)).await
    }

    async fn change_budget<R>(
        &self,
        store: &Store,
        change: impl Fn(&mut OrderBudget) -> R + Send + Sync,
    ) -> Result<R, StoreError> {
        let per_hour = self.authority.new_per_hour;
        let changed = move |stored| {
            let mut budget = OrderBudget::stored(stored, per_hour);
            let result = change(&mut budget);
            (budget, result)
        };
        store.change_acme_budget(&self.authority.directory, changed).await
    }

    /// Returns our account, and creates it on first use. Concurrent calls create one account.
    pub(super) async fn account(
        &self,
        store: &Store,
        vault: &Vault,
        now: Timestamp,
    ) -> Result<Account, AccountError> {
        let mut opened = self.opened.lock().await;
        if let Some((at, account)) = opened.as_ref()
            && now >= *at
            && now < later(*at, DIRECTORY_AGE)
        {
            return Ok(account.clone());
        }
        let account = self.open_account(store, vault).await?;
        *opened = Some((now, account.clone()));
        Ok(account)
    }

    /// The CA does not know the account, as after a reset of a CA for tests: the next call of [`Self::account`] creates another.
    pub(super) async fn forget_account(&self) {
        *self.opened.lock().await = None;
        self.is_forgotten.store(true, Ordering::SeqCst);
    }

    async fn open_account(&self, store: &Store, vault: &Vault) -> Result<Account, AccountError> {
        let Authority { directory, contact, ca_file, external, .. } = &self.authority;
        let builder = Account::builder_with_http(ca_http::client(ca_file.as_deref())?);
        let is_known = !self.is_forgotten.load(Ordering::SeqCst);
        if let Some(kept) = store.acme_account(directory).await?.filter(|_| is_known) {
            let kept = vault.open(OWNER, &kept)?;
            let credentials: AccountCredentials = serde_json::from_str(&kept).map_err(Error::from)?;
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = external.as_ref().map(external_key).transpose()?;
        let (account, credentials) = builder.create(&new, directory.clone(), external.as_ref()).await?;
        let kept = serde_json::to_string(&credentials).map_err(Error::from)?;
        store.put_acme_account(directory, &vault.seal(OWNER, &kept)?).await?;
        self.is_forgotten.store(false, Ordering::SeqCst);
        Ok(account)
    }
}

fn external_key(external: &ExternalAccount) -> Result<ExternalAccountKey, AccountError> {
    let shown = external.key_file.display().to_string();
    let fail = |why: String| AccountError::External(shown.clone(), why);
    let text = std::fs::read_to_string(&external.key_file).map_err(|error| fail(error.to_string()))?;
    let text = text.trim().as_bytes();
    let key = BASE64URL_NOPAD.decode(text).or_else(|_| BASE64URL.decode(text));
    let key =
        key.map_err(|_| fail("it is not base64url, the format in which CAs issue such keys".to_owned()))?;
    Ok(ExternalAccountKey::new(external.key_id.clone(), &key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(directory: &str, set: Option<&str>) -> Option<String> {
        let authority = Authority {
            directory: directory.to_owned(),
            contact: None,
            profile: None,
            ca_file: None,
            external: None,
            new_per_hour: ORDERS_PER_HOUR,
            issuer: set.map(str::to_owned),
        };
        authority.issuer().map(str::to_owned)
    }

    #[test]
    fn the_issuer_domain_name_is_known_or_set() {
        let known = |directory| issuer(directory, None);
        let lets_encrypt = Some("letsencrypt.org".to_owned());
        assert_eq!(known("https://acme-v02.api.letsencrypt.org/directory"), lets_encrypt);
        assert_eq!(known("https://acme-staging-v02.api.letsencrypt.org/directory"), lets_encrypt);
        assert_eq!(known("https://evil-letsencrypt.org/directory"), None);
        assert_eq!(known("https://localhost:14000/dir"), None);
        let set = issuer("https://localhost:14000/dir", Some("pebble.letsencrypt.org"));
        assert_eq!(set.as_deref(), Some("pebble.letsencrypt.org"));
    }
}
