//! How far a webhook has announced the received reports. Only the position is stored, not a notice for each report, so that
//! a flood of reports takes no room here: the notice is built from the reports themselves when it is sent.

use crate::query::{FromRow, Row, sql};
use crate::writing::Counter;
use crate::{Store, StoreError, time};
use jiff::Timestamp;

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
    /// Nothing is sent before this time.
    pub due: Timestamp,
}

impl FromRow for ReportHook {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            position: row.get()?,
            target: row.get()?,
            begun: time("report_hook", row.get()?)?,
            tries: u32::try_from(row.get::<i64>()?).unwrap_or(u32::MAX),
            due: time("report_hook", row.get()?)?,
        })
    }
}

impl Store {
    /// Returns the state of a webhook. A new one begins behind the newest report.
    pub async fn report_hook(&self, hook: &str) -> Result<ReportHook, StoreError> {
        let find = || {
            let query = sql(
                "SELECT position, target, begun, tries, due FROM report_hook WHERE tenant = $1 AND hook = $2",
            );
            query.bind(self.tenant).bind(hook)
        };
        if let Some(found) = find().fetch_optional(self).await? {
            return Ok(found);
        }
        sql("INSERT INTO report_hook (tenant, hook, position, target, begun, tries, due)
             SELECT $1, $2, value, value, 0, 0, 0 FROM version WHERE name = $3
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

    /// Begins the delivery of a notice with the reports up to `target`.
    pub async fn begin_report_notice(
        &self,
        hook: &str,
        target: i64,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        sql("UPDATE report_hook SET target = $3, begun = $4, tries = 0 WHERE tenant = $1 AND hook = $2")
            .bind(self.tenant)
            .bind(hook)
            .bind(target)
            .bind(now.as_second())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Ends the delivery of a notice, successful or given up. The next one is not sent before `due`.
    pub async fn end_report_notice(&self, hook: &str, due: Timestamp) -> Result<(), StoreError> {
        sql("UPDATE report_hook SET position = target, tries = 0, due = $3 WHERE tenant = $1 AND hook = $2")
            .bind(self.tenant)
            .bind(hook)
            .bind(due.as_second())
            .execute(self)
            .await?;
        Ok(())
    }

    /// Records a failed attempt. The next one is not made before `due`.
    pub async fn postpone_report_notice(&self, hook: &str, due: Timestamp) -> Result<(), StoreError> {
        sql("UPDATE report_hook SET tries = tries + 1, due = $3 WHERE tenant = $1 AND hook = $2")
            .bind(self.tenant)
            .bind(hook)
            .bind(due.as_second())
            .execute(self)
            .await?;
        Ok(())
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
        store.begin_report_notice("reports", 7, at(5)).await.unwrap();
        store.postpone_report_notice("reports", at(10)).await.unwrap();
        let store = scratch.open().await;
        let found = store.report_hook("reports").await.unwrap();
        assert_eq!(found, ReportHook { position: 0, target: 7, begun: at(5), tries: 1, due: at(10) });
        store.end_report_notice("reports", at(60)).await.unwrap();
        let found = store.report_hook("reports").await.unwrap();
        assert_eq!((found.position, found.target, found.tries, found.due), (7, 7, 0, at(60)));
    }
}
