//! When tasks that run at fixed times were last done, so that each runs once also across restarts. The weekly summary
//! uses it.

use crate::claims::latest;
use crate::notices::{self, NewNotice};
use crate::query::sql;
use crate::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// More than the time between two runs of a task. A run for a later time was recorded by a clock that was ahead.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_hours(24 * 14);

impl Store {
    /// Whether a task was done for the scheduled time `due` or a later one. `None` if it was never scheduled.
    pub async fn is_done(&self, task: &str, due: Timestamp) -> Result<Option<bool>, StoreError> {
        let query = sql("SELECT done_at FROM schedule WHERE tenant = $1 AND name = $2");
        let row: Option<(i64,)> = query.bind(self.tenant).bind(task).fetch_optional(self).await?;
        Ok(row.map(|(at,)| due.as_second() <= at && at <= latest(due, LONGEST_WAIT)))
    }

    /// Records that a task is done for the scheduled time `due`, and stores its notice, in one transaction. Returns false, and
    /// changes nothing, if it was done for that time or a later one before.
    pub async fn do_once<N: Serialize>(
        &self,
        task: &str,
        due: Timestamp,
        notice: Option<NewNotice<'_, N>>,
    ) -> Result<bool, StoreError> {
        let mut writing = self.writing().await?;
        let changed = sql("INSERT INTO schedule (tenant, name, done_at) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, name) DO UPDATE SET done_at = excluded.done_at
             WHERE schedule.done_at < excluded.done_at OR schedule.done_at > $4")
        .bind(self.tenant)
        .bind(task)
        .bind(due.as_second())
        .bind(latest(due, LONGEST_WAIT))
        .execute(&mut writing)
        .await?;
        if changed == 0 {
            writing.rollback().await?;
            return Ok(false);
        }
        if let Some(notice) = notice {
            notices::insert(&mut writing, &notice).await?;
        }
        writing.commit().await?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_is_done_once_for_each_scheduled_time_also_after_a_restart() {
        let (scratch, store) = crate::scratch().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        let channels = ["mail".to_owned()];
        let told = "summary".to_owned();
        let notice = || Some(NewNotice { channels: &channels, changed_at: at(700), content: &told });
        assert_eq!(store.is_done("weekly", at(600)).await.unwrap(), None);
        assert!(store.do_once("weekly", at(600), notice()).await.unwrap());
        assert!(!store.do_once("weekly", at(600), notice()).await.unwrap());
        let store = scratch.open().await;
        assert!(!store.do_once("weekly", at(500), notice()).await.unwrap());
        let done = async |due| store.is_done("weekly", at(due)).await.unwrap();
        assert_eq!((done(600).await, done(601).await), (Some(true), Some(false)));
        assert_eq!(store.due_notices::<String>("mail", at(700), 9).await.unwrap().len(), 1);
        assert!(store.do_once("weekly", at(1200), notice()).await.unwrap());
        assert!(store.do_once::<String>("other", at(1), None).await.unwrap());
        assert_eq!(store.due_notices::<String>("mail", at(700), 9).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_task_is_done_after_a_clock_that_was_a_year_ahead_is_set_right() {
        let (_scratch, store) = crate::scratch().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(store.do_once::<String>("weekly", at(365 * 86_400), None).await.unwrap());
        assert_eq!(store.is_done("weekly", at(600)).await.unwrap(), Some(false));
        assert!(store.do_once::<String>("weekly", at(600), None).await.unwrap());
        assert_eq!(store.is_done("weekly", at(600)).await.unwrap(), Some(true));
        assert!(!store.do_once::<String>("weekly", at(600), None).await.unwrap());
    }
}
