//! When tasks that run at fixed times were last done, so that each runs once also across restarts. The weekly summary
//! uses it.

use crate::notices::{self, NewNotice};
use crate::query::sql;
use crate::{Store, StoreError, time};
use jiff::Timestamp;
use serde::Serialize;

impl Store {
    /// Returns the scheduled time for which a task was last done. `None` if it was never scheduled.
    pub async fn last_done(&self, task: &str) -> Result<Option<Timestamp>, StoreError> {
        let query = sql("SELECT done_at FROM schedule WHERE tenant = $1 AND name = $2");
        let row: Option<(i64,)> = query.bind(self.tenant).bind(task).fetch_optional(self).await?;
        row.map(|(at,)| time("schedule", at)).transpose()
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
             WHERE schedule.done_at < excluded.done_at")
        .bind(self.tenant)
        .bind(task)
        .bind(due.as_second())
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
        assert_eq!(store.last_done("weekly").await.unwrap(), None);
        assert!(store.do_once("weekly", at(600), notice()).await.unwrap());
        assert!(!store.do_once("weekly", at(600), notice()).await.unwrap());
        let store = scratch.open().await;
        assert!(!store.do_once("weekly", at(500), notice()).await.unwrap());
        assert_eq!(store.last_done("weekly").await.unwrap(), Some(at(600)));
        assert_eq!(store.due_notices::<String>("mail", at(700), 9).await.unwrap().len(), 1);
        assert!(store.do_once("weekly", at(1200), notice()).await.unwrap());
        assert!(store.do_once::<String>("other", at(1), None).await.unwrap());
        assert_eq!(store.due_notices::<String>("mail", at(700), 9).await.unwrap().len(), 2);
    }
}
