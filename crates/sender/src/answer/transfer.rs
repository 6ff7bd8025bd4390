//! Export and import of cached policies, by which one machine warms another: a domain that the other machine has never sent
//! mail to is then not stripped at its first contact (RFC 8461 §10.2).
//!
//! The program's control socket calls [`PolicyService::export`] and [`PolicyService::import`] for `sternpost cache export`
//! and `import`. The format is in [`formats::policy_export`].

use super::PolicyService;
use super::discovery::to_store;
use super::sts::HeldPolicy;
use formats::DomainName;
use formats::limits::IMPORT_CLOCK_DIFFERENCE;
use formats::policy_export::ExportedPolicy;
use jiff::Timestamp;
use net::BoxFuture;
use net::clock::later;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use store::StoreError;
use store::policies::StoredPolicy;

/// Some of the cached policies, ordered by domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportPage {
    /// The policies of this page, without expired ones.
    pub policies: Vec<ExportedPolicy>,
    /// The domain after which the next page starts; `None` if there are no further policies.
    pub next: Option<DomainName>,
}

/// The outcome of importing a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportOutcome {
    /// The policy is in force.
    Imported,
    /// The cache has a policy of the domain that was fetched at the same time or later.
    NotNewer,
    /// The policy has expired: its `max_age` is over.
    Expired,
    /// The policy's fetch is in the future by more than [`IMPORT_CLOCK_DIFFERENCE`].
    FromTheFuture,
}

impl PolicyService {
    /// Returns the live policies among the next `most` stored ones whose domains sort after `after`.
    pub fn export<'a>(&'a self, after: &'a str, most: u32) -> BoxFuture<'a, Result<ExportPage, StoreError>> {
        Box::pin(async move {
            let stored = self.store.policies_after(after, most).await?;
            let next = stored.last().filter(|_| stored.len() >= most as usize);
            let next = next.map(|last| last.domain.clone());
            let exported = |stored: &StoredPolicy| {
                let HeldPolicy { policy, body, id, fetched_at } = self.discovery.newest_live(stored)?;
                Some(ExportedPolicy { domain: stored.domain.clone(), id, policy, text: body, fetched_at })
            };
            Ok(ExportPage { policies: stored.iter().filter_map(exported).collect(), next })
        })
    }

    /// Imports policies that another machine fetched, and returns the outcome of each, in their order. A policy never lives
    /// longer than its `max_age` from its fetch, and never replaces one that was fetched later. With `dry_run`, nothing is
    /// changed.
    ///
    /// The answers for the domains are removed from the cache, so that a domain that was answered "no policy" gets its policy
    /// with the next request. Lookups in flight do not cache their outcome, and overwrite the policy only by one that they
    /// fetched later. The import is done to its end also if the future is dropped.
    pub fn import<'a>(
        self: &'a Arc<Self>,
        policies: &[ExportedPolicy],
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Vec<ImportOutcome>, StoreError>> {
        let (service, now) = (self.clone(), self.discovery.now());
        let judged: Vec<_> = policies.iter().map(|policy| judge(policy, now)).collect();
        self.to_end(async move {
            let mut newest: HashMap<&DomainName, &StoredPolicy> = HashMap::new();
            for policy in judged.iter().flatten() {
                let best = newest.entry(&policy.domain).or_insert(policy);
                if policy.fetched_at > best.fetched_at {
                    *best = policy;
                }
            }
            let candidates = newest.values().filter(|policy| service.discovery.is_newer_than_unsaved(policy));
            let candidates: Vec<StoredPolicy> = candidates.map(|policy| (*policy).clone()).collect();
            let imported: HashSet<DomainName> = match dry_run {
                true => service.newer_than_stored(&candidates).await?,
                false => service.import_into_store(&candidates).await?,
            };
            let is_imported = |policy: &StoredPolicy| {
                imported.contains(&policy.domain)
                    && newest.get(&policy.domain).is_some_and(|best| best.fetched_at == policy.fetched_at)
            };
            let outcome = |judged: &Result<StoredPolicy, ImportOutcome>| match judged {
                Ok(policy) if is_imported(policy) => ImportOutcome::Imported,
                Ok(_) => ImportOutcome::NotNewer,
                Err(refused) => *refused,
            };
            Ok(judged.iter().map(outcome).collect())
        })
    }

    /// Stores policies, and returns the domains whose policy was stored. Their answers are removed from the cache.
    async fn import_into_store(&self, policies: &[StoredPolicy]) -> Result<HashSet<DomainName>, StoreError> {
        let done = self.store.import_policies(policies).await;
        let changed: HashSet<DomainName> = match &done {
            Ok(stored) => stored.iter().cloned().collect(),
            // The connection may have failed after the policies were stored.
            Err(_) => policies.iter().map(|policy| policy.domain.clone()).collect(),
        };
        if !changed.is_empty() {
            self.in_flight.outdate_domains(&changed, || self.cache.remove_domains(&changed));
        }
        done?;
        if !changed.is_empty() {
            tracing::info!(policies = changed.len(), "policies imported from another machine");
        }
        Ok(changed)
    }

    /// The domains for which the store has no policy, or one that was fetched earlier.
    async fn newer_than_stored(&self, policies: &[StoredPolicy]) -> Result<HashSet<DomainName>, StoreError> {
        let domains: Vec<DomainName> = policies.iter().map(|policy| policy.domain.clone()).collect();
        let stored = self.store.policies_of(&domains).await?;
        let stored: HashMap<&DomainName, Timestamp> =
            stored.iter().map(|policy| (&policy.domain, policy.fetched_at)).collect();
        let newer = policies.iter().filter(|policy| {
            stored.get(&policy.domain).is_none_or(|fetched_at| policy.fetched_at > *fetched_at)
        });
        Ok(newer.map(|policy| policy.domain.clone()).collect())
    }
}

/// The row of the store for an imported policy, or why it is not stored.
fn judge(policy: &ExportedPolicy, now: Timestamp) -> Result<StoredPolicy, ImportOutcome> {
    if policy.fetched_at > later(now, IMPORT_CLOCK_DIFFERENCE) {
        return Err(ImportOutcome::FromTheFuture);
    }
    let ExportedPolicy { domain, id, policy, text, fetched_at } = policy.clone();
    let held = HeldPolicy { policy, body: text, id, fetched_at: fetched_at.min(now) };
    // The DANE state is unknown here, so the first request looks the domain up.
    if held.is_live(now) { Ok(to_store(&domain, &held, "")) } else { Err(ImportOutcome::Expired) }
}
