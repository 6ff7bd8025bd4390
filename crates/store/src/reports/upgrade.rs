//! What a store holds from a version without limits for reports and quarantine, all of which belongs to the first tenant. The migration only notes what was there;
//! the rest happens here, afterwards and in short transactions, while the program serves:
//!
//! - The sizes of these reports are computed ([`Store::size_earlier_reports`]), from the newest report to the oldest. The
//!   counter `unsized reports` tells how far this has come, so that it continues after a restart.
//! - The limits spare these reports and quarantined items for some time ([`Store::spare_earlier`]), so that an upgrade
//!   does not delete what the operator meant to keep. Meanwhile they count for no quota either.

use super::retention::{among, only};
use crate::query::sql;
use crate::writing::{Counter, Lock, Tries};
use crate::{Store, StoreError, Tenant, count};
use jiff::{SignedDuration, Timestamp};

/// Reports whose size one transaction computes.
const BATCH_REPORTS: u32 = 100;
/// Quarantined items that one transaction gives up.
const BATCH_ITEMS: u32 = 1000;

/// The size of a report, computed from its rows as `keep::size` does. The source is the signer, and otherwise not
/// known.
const SIZE: &str =
    "UPDATE report SET source = coalesce((SELECT text FROM name WHERE name.id = report.signer), ''),
        size = length(packed) + 200 * (2 + (SELECT count(*) FROM outcome WHERE outcome.report = report.id)
            + (SELECT count(*) FROM failure WHERE failure.report = report.id))
    WHERE tenant = ? AND is_expired = 0 AND size = 0 AND id";

/// Reports and quarantined items from before the limits, which are spared for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// The number of quarantined items.
    pub quarantined: u64,
    /// The id of the last report; 0 if there is none.
    pub last_report: i64,
    /// When the limits begin to apply.
    pub until: Timestamp,
}

impl Store {
    /// Computes the sizes of reports from before the limits. Returns how many reports it looked at; call it again until
    /// that is 0.
    pub async fn size_earlier_reports(&self) -> Result<u64, StoreError> {
        let last = self.counter(Counter::UnsizedReports).await?;
        if last == 0 || self.tenant != Tenant::FIRST {
            return Ok(0);
        }
        let ids = sql("SELECT id FROM report WHERE tenant = $1 AND id <= $2 ORDER BY id DESC LIMIT $3");
        let ids: Vec<(i64,)> = ids.bind(self.tenant).bind(last).bind(BATCH_REPORTS).fetch_all(self).await?;
        let ids = only(ids);
        let batch = self.batch(&ids).await?;
        let next = batch.last().map_or(0, |id| id - 1);
        let mut tries = Tries::default();
        loop {
            let done = self.size_batch(batch, last, next).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    /// Computes the sizes of these reports, unless another process has done so since `last` was read.
    async fn size_batch(&self, ids: &[i64], last: i64, next: i64) -> Result<u64, StoreError> {
        let mut writing = self.writing().await?;
        // Imports and removals of reports lock this row too.
        writing.lock(Counter::ReportId, Lock::Alone).await?;
        if writing.lock(Counter::UnsizedReports, Lock::Alone).await? == last {
            if !ids.is_empty() {
                among(self.tenant, SIZE, ids).execute(&mut writing).await?;
            }
            writing.set(Counter::UnsizedReports, next).await?;
        }
        writing.commit().await?;
        Ok(ids.len() as u64)
    }

    /// Returns what the limits spare: all that was there before them, until `time` after the first call. After that, it is
    /// like all others, and this returns `None`, as in a store that began with the limits.
    pub async fn spare_earlier(
        &self,
        now: Timestamp,
        time: SignedDuration,
    ) -> Result<Option<Earlier>, StoreError> {
        if self.tenant != Tenant::FIRST {
            return Ok(None);
        }
        let earlier = "SELECT count(*) FROM quarantine_use WHERE tenant = $1 AND is_earlier = 1";
        let (quarantined,): (i64,) = sql(earlier).bind(self.tenant).fetch_one(self).await?;
        let last_report = self.counter(Counter::EarlierReports).await?;
        if quarantined == 0 && last_report == 0 {
            return Ok(None);
        }
        let begin = sql("UPDATE version SET value = $2 WHERE name = $1 AND value = 0");
        begin.bind(Counter::RetentionStart.name()).bind(now.as_second().max(1)).execute(self).await?;
        let start = crate::time("version", self.counter(Counter::RetentionStart).await?)?;
        let until = start.saturating_add(time).unwrap_or(Timestamp::MAX);
        let is_sized = self.counter(Counter::UnsizedReports).await? == 0;
        if now < until || !is_sized {
            return Ok(Some(Earlier { quarantined: count(quarantined), last_report, until }));
        }
        let end = "UPDATE quarantine_use SET is_earlier = 0 WHERE item IN
                   (SELECT item FROM quarantine_use WHERE tenant = $1 AND is_earlier = 1 ORDER BY item LIMIT $2)";
        while sql(end).bind(self.tenant).bind(BATCH_ITEMS).execute(self).await? > 0 {}
        let end = sql("UPDATE version SET value = 0 WHERE name = $1");
        end.bind(Counter::EarlierReports.name()).execute(self).await?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
