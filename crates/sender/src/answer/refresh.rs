//! The daily refresh of stored policies (RFC 8461 §3.3, POL-13).
//!
//! Each policy in the store is looked up about once a day and before it expires, even if no mail server asks for
//! it. At most [`BACKGROUND_LOOKUPS`] lookups run at once, and each policy is on its own: a slow or failing one delays no
//! other. A policy that has not been used for
//! [`super::Settings::unused`] is kept to its end without a refresh. Expired policies are deleted. Policies from before
//! and after a forward step of the clock are compared with their own current times ([`super::Discovery::sets`]).

use super::PolicyService;
use super::in_flight::Purpose;
use super::route::NextHop;
use formats::DomainName;
use formats::limits::BACKGROUND_LOOKUPS;
use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::later;
use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;
use store::policies::{Fetched, PolicyCounts};
use store::{Outage, StoreError};

/// The delay before a failed refresh is retried, and before a policy is refreshed whose refresh was claimed by a process that died.
const REFRESH_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// The delay before a refresh is repeated that could not be stored.
const STORE_RETRY: Duration = Duration::from_secs(300);
/// The maximum number of domains in [`PolicyService::refresh_retries`]; beyond it, the delays are forgotten.
const MAX_RETRIES: usize = 10_000;
/// The maximum number of due policies in one query of the store.
const REFRESH_BATCH: u32 = 1024;
/// The time after the start in which no expired policy is deleted. A machine may start with its clock ahead, until the
/// time service sets it back; a policy that only looks expired is still there then.
const DELETION_GRACE: Duration = Duration::from_secs(3600);
/// The interval between two queries for due policies.
const ROUND_INTERVAL: Duration = Duration::from_secs(10);

impl PolicyService {
    /// Refreshes due policies until the future is dropped.
    pub fn keep_fresh(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let outage = Outage::new();
            loop {
                match self.refresh_due().await {
                    Ok(done) => {
                        if let Some(failures) = outage.ends() {
                            tracing::info!(failures, "policies are refreshed again");
                        }
                        if done > 0 {
                            continue;
                        }
                    }
                    Err(error) if outage.is_news(&error) => {
                        tracing::error!("policies can't be refreshed: the store failed: {error}");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(ROUND_INTERVAL).await;
            }
        })
    }

    /// Refreshes up to `REFRESH_BATCH` due policies of each set, and deletes expired ones, from an hour after the start on. Returns the number of
    /// policies that were due.
    pub async fn refresh_due(self: &Arc<Self>) -> Result<usize, StoreError> {
        let sets = (self.rules.sets)(&self.discovery);
        let used_since =
            self.settings().unused.map_or(Timestamp::MIN, |unused| self.discovery.used_since(unused));
        let outcome = self.expire_and_count(&sets, used_since).await;
        self.metrics.store_up.set(i64::from(outcome.is_ok()));
        outcome?;
        // Claimed by this process, and perhaps due in the store in an hour only.
        let again = self.due_retries();
        let mut all = again.len();
        self.refresh_all(again).await;
        for set in sets {
            let mut due = self.claim(set, used_since).await?;
            due.retain(|domain| !self.retries().contains_key(domain));
            all += due.len();
            self.refresh_all(due).await;
        }
        Ok(all)
    }

    /// Removes and returns the policies whose refresh could not be stored and is due again.
    fn due_retries(&self) -> Vec<DomainName> {
        let now = self.clock.elapsed();
        self.retries().extract_if(|_, at| *at <= now).map(|(domain, _)| domain).collect()
    }

    /// Claims refreshes that are due: of several processes with one store, one refreshes a policy.
    async fn claim(&self, set: Fetched, used_since: Timestamp) -> Result<Vec<DomainName>, StoreError> {
        // Read first, so that nothing is written while nothing is due.
        if self.store.policies_due(set, used_since, 1).await?.is_empty() {
            return Ok(Vec::new());
        }
        let until = later(set.now, REFRESH_RETRY);
        match self.store.claim_refreshes(set, used_since, until, REFRESH_BATCH).await {
            // A store that can be read and not written stops no refresh.
            Err(_) => self.store.policies_due(set, used_since, REFRESH_BATCH).await,
            claimed => claimed,
        }
    }

    async fn refresh_all(self: &Arc<Self>, due: Vec<DomainName>) {
        let refresh = |domain: DomainName| async move { (self.refresh_one(&domain).await, domain) };
        let mut refreshes = stream::iter(due).map(refresh).buffer_unordered(BACKGROUND_LOOKUPS);
        let mut failures = 0_u32;
        while let Some((outcome, domain)) = refreshes.next().await {
            match outcome {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        tracing::error!(%domain, "the refresh of a policy can't be stored: {error}");
                    }
                }
            }
            let mut retries = self.retries();
            if retries.len() >= MAX_RETRIES {
                retries.clear();
            }
            retries.insert(domain, self.clock.elapsed() + STORE_RETRY);
        }
        if failures > 1 {
            tracing::error!("the refresh of {failures} policies can't be stored");
        }
    }

    fn retries(&self) -> MutexGuard<'_, HashMap<DomainName, Duration>> {
        self.refresh_retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refreshes a policy. False if it is in force and could not be stored.
    async fn refresh_one(self: &Arc<Self>, domain: &DomainName) -> Result<bool, StoreError> {
        let key = (self.rules.refresh_key)(self, domain);
        self.look_up_anew(NextHop::domain(domain.clone()), key, Purpose::Refresh).await;
        let Some(policy) = self.store.policy(domain).await? else { return Ok(true) };
        let now = self.discovery.now_for(&policy);
        if policy.is_due(now) {
            self.store.postpone_refresh(domain, later(now, REFRESH_RETRY)).await?;
        }
        Ok(!self.discovery.has_unsaved(domain))
    }

    async fn expire_and_count(&self, sets: &[Fetched], used_since: Timestamp) -> Result<(), StoreError> {
        let mut sum = PolicyCounts::default();
        let mut overdue = SignedDuration::ZERO;
        let deletes_expired = self.discovery.uptime() >= DELETION_GRACE;
        for set in sets {
            // A store that can be read and not written stops no refresh.
            if deletes_expired && let Err(error) = self.store.delete_expired_policies(*set).await {
                tracing::error!("expired policies can't be deleted: {error}");
            }
            let counts = self.store.count_policies(*set, used_since).await?;
            sum.enforce += counts.enforce;
            sum.testing += counts.testing;
            sum.none += counts.none;
            let late = counts.oldest_refresh.map(|due| set.now.duration_since(due));
            overdue = overdue.max(late.unwrap_or_default());
        }
        self.metrics.set_policies(&sum, Duration::try_from(overdue).unwrap_or(Duration::ZERO));
        Ok(())
    }
}
