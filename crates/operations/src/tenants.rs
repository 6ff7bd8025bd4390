//! The tenants of the installation: found by name for commands, and listed for `serve`, which learns of a new one without a
//! restart.

use crate::rollout_context::store_failure;
use config::failure::Failure;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use store::tenants::{TenantInfo, TenantName};
use store::{Store, StoreError, Tenant};

/// How long a list of tenants is used.
const CACHE_TIME: Duration = Duration::from_secs(1);

/// Finds the tenant of this name. Fails if there is none, or if it is being erased.
pub async fn find_tenant(store: &Store, name: &TenantName) -> Result<TenantInfo, Failure> {
    let all = store.tenants().await.map_err(|error| store_failure(&error))?;
    match all.into_iter().find(|one| one.name == *name) {
        Some(one) if one.is_leaving => Err(Failure::usage(
            format!("the tenant {name} is being erased"),
            "nothing is done for it any more",
            format!("End the erasure:\n  sternpost tenants remove --erase {name}"),
        )),
        Some(one) => Ok(one),
        None => Err(Failure::usage(
            format!("there is no tenant {name}"),
            "its name is in --tenant, in STERNPOST_TENANT or in the key tenant of the configuration",
            format!(
                "List the tenants: sternpost tenants list\nAdd this one:\n  sternpost tenants add {name}"
            ),
        )),
    }
}

/// The tenant that a store is opened for.
pub(crate) async fn tenant_of(store: &Store) -> Result<TenantInfo, Failure> {
    if store.tenant() == Tenant::FIRST {
        return Ok(TenantInfo::main());
    }
    let all = store.tenants().await.map_err(|error| store_failure(&error))?;
    all.into_iter()
        .find(|one| one.tenant == store.tenant())
        .ok_or_else(|| Failure::usage("the tenant is not there any more", "it was removed meanwhile", ""))
}

/// A list of tenants, and when it was read.
type ReadAt = (Instant, Arc<[TenantInfo]>);

/// The tenants as the store had them at most a second ago. Those that are being erased are left out.
#[derive(Clone)]
pub struct TenantList {
    store: Store,
    read: Arc<RwLock<Option<ReadAt>>>,
}

impl TenantList {
    /// The tenants in this store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.of_tenant(Tenant::FIRST), read: Arc::default() }
    }

    /// All tenants: `main`, and the others by name.
    ///
    /// # Errors
    ///
    /// If the store fails and the tenants were never read. Otherwise the last list stays in use.
    pub async fn all(&self) -> Result<Arc<[TenantInfo]>, StoreError> {
        let known = self.read.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, all)) = &known
            && at.elapsed() < CACHE_TIME
        {
            return Ok(all.clone());
        }
        match (self.read_again().await, known) {
            (Ok(all), _) => Ok(all),
            (Err(_), Some((_, known))) => Ok(known),
            (Err(error), None) => Err(error),
        }
    }

    async fn read_again(&self) -> Result<Arc<[TenantInfo]>, StoreError> {
        let all = self.store.tenants().await?;
        let all: Arc<[TenantInfo]> = all.into_iter().filter(|one| !one.is_leaving).collect();
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), all.clone()));
        Ok(all)
    }

    /// The tenant of this name. One that is not in the list may have been added just now, so that the list is read again.
    ///
    /// # Errors
    ///
    /// Those of [`Self::all`].
    pub async fn named(&self, name: &str) -> Result<Option<TenantInfo>, StoreError> {
        if name == TenantInfo::main().name.as_str() {
            return Ok(Some(TenantInfo::main()));
        }
        let find = |all: &[TenantInfo]| all.iter().find(|one| one.name.as_str() == name).cloned();
        match find(&self.all().await?) {
            Some(found) => Ok(Some(found)),
            None => Ok(find(&self.read_again().await?)),
        }
    }
}
