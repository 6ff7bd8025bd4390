//! Keeps remembered policies young: each is looked for about once a day, in use or not, before it
//! expires (POL-13), a few at a time.

use super::Answers;
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

/// A refresh that brought nothing new is tried again after this.
const REFRESH_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// Policies in one look for what is due.
const REFRESH_BATCH: u32 = 1024;
/// Between two looks for what is due.
const ROUND_INTERVAL: Duration = Duration::from_secs(10);

impl Answers {
    /// Refreshes for as long as the program runs.
    pub fn keep_fresh(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            loop {
                match self.refresh_due().await {
                    Ok(done) if done > 0 => continue,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!("policies are not refreshed, since the store fails: {error}")
                    }
                }
                tokio::time::sleep(ROUND_INTERVAL).await;
            }
        })
    }

    /// Refreshes some of the policies that are due now; says how many. Expired ones are forgotten.
    pub async fn refresh_due(self: &Arc<Self>) -> Result<usize, StoreError> {
        let now = self.discovery.steady_now();
        let counted = self.count(now).await;
        self.metrics.store_up.set(i64::from(counted.is_ok()));
        counted?;
        let due = self.store.policies_due(now, REFRESH_BATCH).await?;
        for some in due.chunks(BACKGROUND_LOOKUPS) {
            let all = join_all(some.iter().map(|domain| self.refresh_one(domain, now))).await;
            all.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(due.len())
    }

    async fn refresh_one(self: &Arc<Self>, domain: &DomainName, now: Timestamp) -> Result<(), StoreError> {
        self.look_again(NextHop::Domain(domain.clone()), Purpose::Refresh).await;
        let still_due = self.store.policy(domain).await?.is_some_and(|policy| policy.refresh_at <= now);
        if still_due {
            let again = later(self.discovery.now(), REFRESH_RETRY);
            self.store.put_off_refresh(domain, again).await?;
        }
        Ok(())
    }

    async fn count(&self, now: Timestamp) -> Result<(), StoreError> {
        self.store.forget_expired_policies(now).await?;
        let counts = self.store.count_policies(now).await?;
        let overdue = counts.oldest_refresh.map_or(SignedDuration::ZERO, |due| now.duration_since(due));
        self.metrics.set_policies(&counts, Duration::try_from(overdue).unwrap_or(Duration::ZERO));
        Ok(())
    }
}
