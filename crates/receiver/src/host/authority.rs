//! Certificate authorities: how to come to them, our account there (RFC 8555 §7.3), and what they refuse.

use super::order_budget::OrderBudget;
use super::vault::{Vault, VaultError};
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use jiff::Timestamp;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use store::{Store, StoreError};

/// An authority, and how to come to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its directory.
    pub directory: String,
    /// How it reaches the operator, `mailto:…`.
    pub contact: Option<String>,
    /// A profile that it offers.
    pub profile: Option<String>,
    /// The root of its own certificate, in PEM; nothing means those of the system.
    pub ca_file: Option<PathBuf>,
    /// An account that the operator has there already, to which ours is bound (RFC 8555 §7.3.4).
    pub external: Option<ExternalAccount>,
    /// New orders that it is asked for in an hour.
    pub new_per_hour: u32,
}

/// New orders in an hour where nothing else is said: what Let's Encrypt allows.
pub const ORDERS_PER_HOUR: u32 = 100;

/// The key of an account elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Its name.
    pub key_id: String,
    /// The file that has it, in base64url.
    pub key_file: PathBuf,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The authority, or the way to it.
    #[error(transparent)]
    Acme(#[from] Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is kept of the account can't be opened, or not be kept.
    #[error("the account's key in the store: {0}")]
    Vault(#[from] VaultError),
    /// The key of the account elsewhere.
    #[error("the key file {0}: {1}")]
    External(String, String),
}

/// An authority with what it was asked for lately.
#[derive(Debug)]
pub struct CaClient {
    pub(super) authority: Authority,
    pace: Mutex<OrderBudget>,
}

/// Whom the account's key is sealed for.
const OWNER: &str = "acme-account";

impl CaClient {
    /// That was asked for nothing yet.
    pub fn new(authority: Authority) -> Self {
        let pace = Mutex::new(OrderBudget::new(authority.new_per_hour));
        Self { authority, pace }
    }

    pub(super) fn room(&self, now: Timestamp) -> u32 {
        self.pace().room(now)
    }

    /// Whether it may be asked now; a new order is counted.
    pub(super) fn takes(&self, is_new: bool, now: Timestamp) -> bool {
        let mut pace = self.pace();
        if !is_new {
            return pace.is_open(now);
        }
        let takes = pace.room(now) > 0;
        if takes {
            pace.spend();
        }
        takes
    }

    pub(super) fn hold(&self, now: Timestamp) {
        self.pace().hold(now);
    }

    fn pace(&self) -> MutexGuard<'_, OrderBudget> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Our account, made when it is needed first.
    pub(super) async fn account(&self, store: &Store, vault: &Vault) -> Result<Account, AccountError> {
        let Authority { directory, contact, ca_file, external, .. } = &self.authority;
        let builder = match ca_file {
            Some(file) => Account::builder_with_root(file)?,
            None => Account::builder()?,
        };
        if let Some(kept) = store.acme_account(directory).await? {
            let kept = vault.open(OWNER, &kept)?;
            let credentials: AccountCredentials = serde_json::from_str(&kept).map_err(Error::from)?;
            return Ok(builder.from_credentials(credentials).await?);
        }
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = external.as_ref().map(bound).transpose()?;
        let (account, credentials) = builder.create(&new, directory.clone(), external.as_ref()).await?;
        let kept = serde_json::to_string(&credentials).map_err(Error::from)?;
        store.put_acme_account(directory, &vault.seal(OWNER, &kept)?).await?;
        Ok(account)
    }
}

fn bound(external: &ExternalAccount) -> Result<ExternalAccountKey, AccountError> {
    let shown = external.key_file.display().to_string();
    let fail = |why: String| AccountError::External(shown.clone(), why);
    let text = std::fs::read_to_string(&external.key_file).map_err(|error| fail(error.to_string()))?;
    let text = text.trim().as_bytes();
    let key = BASE64URL_NOPAD.decode(text).or_else(|_| BASE64URL.decode(text));
    let key = key.map_err(|_| fail("it is not base64url, as authorities give such keys".to_owned()))?;
    Ok(ExternalAccountKey::new(external.key_id.clone(), &key))
}
