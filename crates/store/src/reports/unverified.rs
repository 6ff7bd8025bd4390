//! The quota and the age limit of reports that are not evidence. Anybody can send these, as many as they like, so what
//! happens at each insert is bounded: the reports are counted only when the quota may be exceeded, which frees a part of
//! it, one task at a time removes reports, and an insert waits for the removal of [`BATCH_REPORTS`] at most.

use super::quota::{Item, Quota, computed, shrink};
use super::retention::{BATCH_REPORTS, among, not_earlier, only};
use crate::query::sql;
use crate::writing::TenantCounter;
use crate::{Store, StoreError, count, stored};
use jiff::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much unverified reports use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct UnverifiedUsage {
    /// The number of unverified reports.
    pub reports: u64,
    /// The approximate size of these reports in bytes, with their rows in all tables.
    pub bytes: u64,
    /// The number of reports that the quota and the age limit have removed since the store was created.
    pub evicted: u64,
}

/// What a process knows of the space that unverified reports use, so that it need not count all of them after each insert.
#[derive(Debug, Default)]
pub(crate) struct UnverifiedSpace {
    /// Locked while reports are removed.
    known: tokio::sync::Mutex<Known>,
    added_bytes: AtomicU64,
    added_items: AtomicU64,
}

/// The last full count of unverified reports, and the reports that are still to be removed.
#[derive(Debug, Default)]
struct Known {
    /// The bytes and the number of the reports, if they were within the quota.
    counted: Option<(u64, u64)>,
    /// The ids of reports that are still to be removed, the next ones last.
    chosen: Vec<i64>,
}

impl UnverifiedSpace {
    /// Notes that a report was stored.
    pub(super) fn add(&self, bytes: u64) {
        self.added_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.added_items.fetch_add(1, Ordering::Relaxed);
    }

    /// The bytes and the number of the reports that were stored since [`Self::begin`].
    fn added(&self) -> (u64, u64) {
        (self.added_bytes.load(Ordering::Relaxed), self.added_items.load(Ordering::Relaxed))
    }

    fn begin(&self) {
        self.added_bytes.store(0, Ordering::Relaxed);
        self.added_items.store(0, Ordering::Relaxed);
    }
}

impl Store {
    /// Drops unverified reports that arrived before `before`. Returns how many; call it again until that is 0.
    pub async fn drop_old_unverified(&self, before: Timestamp) -> Result<u64, StoreError> {
        let old = concat!(
            "SELECT id FROM report WHERE tenant = $1 AND is_expired = 0 AND received_at < $2 AND trust < 2",
            not_earlier!(),
            "ORDER BY received_at, id LIMIT $3"
        );
        let old =
            sql(old).bind(self.tenant).bind(before.as_second()).bind(BATCH_REPORTS).fetch_all(self).await?;
        self.evict(&only(old)).await
    }

    /// Drops unverified reports if they use more than `quota`; see `quota`. Returns how many. Does nothing while another
    /// task of this process does it.
    pub async fn shrink_unverified(&self, quota: &Quota) -> Result<u64, StoreError> {
        let Ok(mut known) = self.unverified.known.try_lock() else { return Ok(0) };
        self.choose(quota, &mut known).await?;
        let mut dropped = 0;
        while !known.chosen.is_empty() {
            dropped += self.evict_next(&mut known).await?;
        }
        Ok(dropped)
    }

    /// The same after each insert, in bounded steps: the reports are not counted while those that this process has stored
    /// since they were counted last can't exceed the quota, and a call drops at most `BATCH_REPORTS` reports. Further
    /// calls, or [`Store::shrink_unverified`], drop the others.
    pub async fn keep_unverified_within(&self, quota: &Quota) -> Result<u64, StoreError> {
        let Ok(mut known) = self.unverified.known.try_lock() else { return Ok(0) };
        if known.chosen.is_empty() {
            let (bytes, items) = self.unverified.added();
            let has_room = |(before_bytes, before_items): (u64, u64)| {
                quota.has_room_for(before_bytes.saturating_add(bytes), before_items.saturating_add(items))
            };
            if known.counted.is_some_and(has_room) {
                return Ok(0);
            }
            self.choose(quota, &mut known).await?;
        }
        self.evict_next(&mut known).await
    }

    /// Counts the reports, and chooses those to remove if they exceed the quota.
    async fn choose(&self, quota: &Quota, known: &mut Known) -> Result<(), StoreError> {
        // What is stored from here on may be counted twice, but not missed.
        *known = Known::default();
        self.unverified.begin();
        let sums = concat!(
            "SELECT CAST(coalesce(sum(size), 0) AS BIGINT), count(*) FROM report WHERE tenant = $1 AND trust < 2 AND is_expired = 0",
            not_earlier!()
        );
        let (bytes, items): (i64, i64) = sql(sums).bind(self.tenant).fetch_one(self).await?;
        let used = (count(bytes), count(items));
        if quota.has_room_for(used.0, used.1) {
            known.counted = Some(used);
            return Ok(());
        }
        let items = concat!(
            "SELECT id, source, size FROM report WHERE tenant = $1 AND trust < 2 AND is_expired = 0",
            not_earlier!(),
            "ORDER BY id"
        );
        let (items, quota): (Vec<Item>, _) = (sql(items).bind(self.tenant).fetch_all(self).await?, *quota);
        known.chosen = computed(move || shrink(&items, &quota)).await?;
        known.chosen.reverse();
        Ok(())
    }

    /// Removes the next chosen reports. One that was verified meanwhile stays.
    async fn evict_next(&self, known: &mut Known) -> Result<u64, StoreError> {
        let left = known.chosen.len().saturating_sub(BATCH_REPORTS as usize);
        let next = known.chosen.split_off(left);
        if next.is_empty() {
            return Ok(0);
        }
        let unverified = among(
            self.tenant,
            "SELECT id FROM report WHERE tenant = ? AND trust < 2 AND is_expired = 0 AND id",
            &next,
        );
        let unverified = only(unverified.fetch_all(self).await?);
        self.evict(&unverified).await
    }

    /// Returns how much unverified reports use.
    pub async fn unverified_usage(&self) -> Result<UnverifiedUsage, StoreError> {
        let sums = "SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM report WHERE tenant = $1 AND trust < 2 AND is_expired = 0";
        let (reports, bytes): (i64, i64) = sql(sums).bind(self.tenant).fetch_one(self).await?;
        let evicted = self.tenant_counter(TenantCounter::ReportsEvicted).await?;
        Ok(UnverifiedUsage { reports: count(reports), bytes: count(bytes), evicted: count(evicted) })
    }

    async fn evict(&self, ids: &[i64]) -> Result<u64, StoreError> {
        let dropped = self.drop_reports(ids).await?;
        if dropped > 0 {
            self.increase(TenantCounter::ReportsEvicted, stored(dropped)).await?;
        }
        Ok(dropped)
    }
}
