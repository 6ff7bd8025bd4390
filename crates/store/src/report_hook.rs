//! How far a webhook has announced the received reports. Only the position is stored, not a notice for each report, so that
//! a flood of reports takes no room here: the notice is built from the reports themselves when it is sent.

use crate::claims::latest;
use crate::query::{FromRow, Row, built, sql};
use crate::writing::Counter;
use crate::{Store, StoreError, time};
use jiff::{SignedDuration, Timestamp};

/// More than a webhook waits for its next request.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(48);

/// The state of a webhook for received reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportHook {
    /// The row id of the last report that was announced.
    pub position: i64,
    /// The row id of the last report in the notice that is being delivered; equals `position` if there is none.
    pub target: i64,
    /// The time of the first delivery attempt of that notice.
    pub begun: Timestamp,
    /// The number of failed attempts of that notice.
    pub tries: u32,
    /// Nothing is sent before this time. While a process sends, the end of its claim.
    pub due: Timestamp,
    /// The number of the last claim. Results of earlier claims are not stored.
    pub claim: i64,
}

const COLUMNS: &str = "position, target, begun, tries, due, claim";

impl ReportHook {
    /// Whether something may be sent at `now`.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due <= now || self.due.as_second() > latest(now, LONGEST_WAIT)
    }
}

impl FromRow for ReportHook {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            position: row.get()?,
            target: row.get()?,
            begun: time("report_hook", row.get()?)?,
            tries: u32::try_from(row.get::<i64>()?).unwrap_or(u32::MAX),
            due: time("report_hook", row.get()?)?,
            claim: row.get()?,
        })
    }
}

impl Store {
    /// Returns the state of a webhook. A new one begins behind the newest report.
    pub async fn report_hook(&self, hook: &str) -> Result<ReportHook, StoreError> {
        let find = || {
            let text = format!("SELECT {COLUMNS} FROM report_hook WHERE tenant = $1 AND hook = $2");
            built(text).bind(self.tenant).bind(hook)
        };
        if let Some(found) = find().fetch_optional(self).await? {
            return Ok(found);
        }
        sql("INSERT INTO report_hook (tenant, hook, position, target, begun, tries, due, claim)
             SELECT $1, $2, value, value, 0, 0, 0, 0 FROM version WHERE name = $3
             ON CONFLICT (tenant, hook) DO NOTHING")
        .bind(self.tenant)
        .bind(hook)
        .bind(Counter::ReportId.name())
        .execute(self)
        .await?;
        find().fetch_one(self).await
    }

    /// Returns the row id of the newest report.
    pub async fn newest_report(&self) -> Result<i64, StoreError> {
        self.counter(Counter::ReportId).await
    }

    /// Claims a webhook on which something may be sent at `now`, until `until`. `None` if another process has it, or it is paused.
    pub async fn claim_report_hook(
        &self,
        hook: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<ReportHook>, StoreError> {
        let mut writing = self.writing().await?;
        let text = format!(
            "UPDATE report_hook SET due = $4, claim = claim + 1
             WHERE tenant = $1 AND hook = $2 AND (due <= $3 OR due > $5) RETURNING {COLUMNS}"
        );
        let query = built(text).bind(self.tenant).bind(hook).bind(now.as_second()).bind(until.as_second());
        let claimed = query.bind(latest(now, LONGEST_WAIT)).fetch_optional(&mut writing).await?;
        writing.commit().await?;
        Ok(claimed)
    }

    /// Begins the delivery of a notice with the reports up to `target`. False, as for the other writes about a claim, and
    /// nothing is changed, if another process has claimed the webhook since.
    pub async fn begin_report_notice(
        &self,
        hook: &str,
        claim: i64,
        target: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let query = sql("UPDATE report_hook SET target = $4, begun = $5, tries = 0
             WHERE tenant = $1 AND hook = $2 AND claim = $3");
        let query = query.bind(self.tenant).bind(hook).bind(claim).bind(target).bind(now.as_second());
        Ok(query.execute(self).await? > 0)
    }

    /// Ends the delivery of a notice, successful or given up. The next one is not sent before `due`.
    pub async fn end_report_notice(
        &self,
        hook: &str,
        claim: i64,
        due: Timestamp,
    ) -> Result<bool, StoreError> {
        let query = sql("UPDATE report_hook SET position = target, tries = 0, due = $4
             WHERE tenant = $1 AND hook = $2 AND claim = $3");
        let query = query.bind(self.tenant).bind(hook).bind(claim).bind(due.as_second());
        Ok(query.execute(self).await? > 0)
    }

    /// Records a failed attempt. The next one is not made before `due`.
    pub async fn postpone_report_notice(
        &self,
        hook: &str,
        claim: i64,
        due: Timestamp,
    ) -> Result<bool, StoreError> {
        let query = sql("UPDATE report_hook SET tries = tries + 1, due = $4
             WHERE tenant = $1 AND hook = $2 AND claim = $3");
        let query = query.bind(self.tenant).bind(hook).bind(claim).bind(due.as_second());
        Ok(query.execute(self).await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_webhook_goes_on_where_it_was_after_a_restart() {
        let (scratch, store) = crate::scratch().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        let new = store.report_hook("reports").await.unwrap();
        assert_eq!((new.position, new.target, new.tries, new.due), (0, 0, 0, at(0)));
        let first = store.claim_report_hook("reports", at(0), at(60)).await.unwrap().unwrap().claim;
        assert_eq!(store.claim_report_hook("reports", at(59), at(90)).await.unwrap(), None);
        assert!(store.begin_report_notice("reports", first, 7, at(5)).await.unwrap());
        assert!(store.postpone_report_notice("reports", first, at(10)).await.unwrap());
        let store = scratch.open().await;
        let found = store.report_hook("reports").await.unwrap();
        assert_eq!(
            found,
            ReportHook { position: 0, target: 7, begun: at(5), tries: 1, due: at(10), claim: first }
        );
        let next = store.claim_report_hook("reports", at(10), at(70)).await.unwrap().unwrap().claim;
        // The first one is late.
        assert!(!store.begin_report_notice("reports", first, 9, at(50)).await.unwrap());
        assert!(!store.postpone_report_notice("reports", first, at(90)).await.unwrap());
        assert!(!store.end_report_notice("reports", first, at(50)).await.unwrap());
        assert!(store.end_report_notice("reports", next, at(60)).await.unwrap());
        let found = store.report_hook("reports").await.unwrap();
        assert_eq!((found.position, found.target, found.tries, found.due), (7, 7, 0, at(60)));
    }
}
