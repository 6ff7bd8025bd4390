//! The daily refresh of stored policies (RFC 8461 §3.3, POL-13).
//!
//! Each policy in the store is looked up about once a day and before it expires, even if no mail server asks for
//! it. At most [`BACKGROUND_LOOKUPS`] look-ups run at once. Expired policies are deleted.

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

/// The delay before a failed refresh is retried.
const REFRESH_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// The maximum number of due policies in one query of the store.
const REFRESH_BATCH: u32 = 1024;
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

    /// Refreshes up to `REFRESH_BATCH` policies that are due, and deletes expired ones. Returns the number of
    /// policies that were due.
    pub async fn refresh_due(self: &Arc<Self>) -> Result<usize, StoreError> {
        let now = self.discovery.steady_now();
        let outcome = self.expire_and_count(now).await;
        self.metrics.store_up.set(i64::from(outcome.is_ok()));
        outcome?;
        let due = self.store.policies_due(now, REFRESH_BATCH).await?;
        for batch in due.chunks(BACKGROUND_LOOKUPS) {
            let all = join_all(batch.iter().map(|domain| self.refresh_one(domain, now))).await;
            all.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(due.len())
    }

    async fn refresh_one(self: &Arc<Self>, domain: &DomainName, now: Timestamp) -> Result<(), StoreError> {
        self.look_up_anew(NextHop::domain(domain.clone()), Purpose::Refresh).await;
        let still_due = self.store.policy(domain).await?.is_some_and(|policy| policy.refresh_at <= now);
        if still_due {
            let retry_at = later(self.discovery.now(), REFRESH_RETRY);
            self.store.postpone_refresh(domain, retry_at).await?;
        }
        Ok(())
    }

    async fn expire_and_count(&self, now: Timestamp) -> Result<(), StoreError> {
        self.store.delete_expired_policies(now).await?;
        let counts = self.store.count_policies(now).await?;
        let overdue = counts.oldest_refresh.map_or(SignedDuration::ZERO, |due| now.duration_since(due));
        self.metrics.set_policies(&counts, Duration::try_from(overdue).unwrap_or(Duration::ZERO));
        Ok(())
    }
}
