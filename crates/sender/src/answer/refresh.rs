//! The daily refresh of stored policies (RFC 8461 §3.3, POL-13).
//!
//! Each policy in the store is looked up about once a day and before it expires, even if no mail server asks for
//! it. At most [`BACKGROUND_LOOKUPS`] look-ups run at once. A policy that has not been used for
//! [`super::Settings::unused`] is kept to its end without a refresh. Expired policies are deleted. Policies from before
//! and after a forward step of the clock are compared with their own current times ([`super::Discovery::sets`]).

use super::PolicyService;
use super::in_flight::Purpose;
use super::route::NextHop;
use formats::DomainName;
use formats::limits::BACKGROUND_LOOKUPS;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use net::BoxFuture;
use net::clock::later;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::policies::{Fetched, PolicyCounts};

/// The delay before a failed refresh is retried.
const REFRESH_RETRY: SignedDuration = SignedDuration::from_hours(1);
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
            loop {
                match self.refresh_due().await {
                    Ok(done) if done > 0 => continue,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!("policies can't be refreshed: the store failed: {error}")
                    }
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
        let mut all = 0;
        for set in sets {
            let due = self.store.policies_due(set, used_since, REFRESH_BATCH).await?;
            all += due.len();
            for batch in due.chunks(BACKGROUND_LOOKUPS) {
                let done = join_all(batch.iter().map(|domain| self.refresh_one(domain))).await;
                done.into_iter().collect::<Result<(), _>>()?;
            }
        }
        Ok(all)
    }

    async fn refresh_one(self: &Arc<Self>, domain: &DomainName) -> Result<(), StoreError> {
        self.look_up_anew(NextHop::domain(domain.clone()), Purpose::Refresh).await;
        let Some(policy) = self.store.policy(domain).await? else { return Ok(()) };
        let now = self.discovery.now_for(&policy);
        if policy.is_due(now) {
            self.store.postpone_refresh(domain, later(now, REFRESH_RETRY)).await?;
        }
        Ok(())
    }

    async fn expire_and_count(&self, sets: &[Fetched], used_since: Timestamp) -> Result<(), StoreError> {
        let mut sum = PolicyCounts::default();
        let mut overdue = SignedDuration::ZERO;
        let deletes_expired = self.discovery.uptime() >= DELETION_GRACE;
        for set in sets {
            if deletes_expired {
                self.store.delete_expired_policies(*set).await?;
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
