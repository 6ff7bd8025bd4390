//! Claims: work of which there are many pieces, shared by all processes that use the store: notices, the delivery of
//! reports, and checks by the guard. A piece has a due time. A claim moves it ahead by the time that the work may take, and increases the number of
//! the claim, in one statement. So two processes never claim the same piece, and that of a process that has died is due
//! again by itself. The write about the result names the number of the claim: a process that was too slow changes nothing.
//!
//! Due times are compared with [`Store::common_time`], since the clocks of several machines differ. Each kind of work has a
//! longest wait. A due time that is later than that was stored while the clock was ahead, and counts as due ([`latest`]):
//! once the clock is set right, the work would otherwise stand still until that time.

use crate::database::Database;
#[cfg(feature = "postgres")]
use crate::query::sql;
use crate::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};

/// The latest due time, in seconds of Unix time, that a wait of at most `longest` can have at `now`.
pub(crate) fn latest(now: Timestamp, longest: SignedDuration) -> i64 {
    now.as_second().saturating_add(longest.as_secs())
}

impl Store {
    /// The time by the clock that all processes share: that of the PostgreSQL server, or `local` for an SQLite file, which
    /// only processes of one machine use.
    pub async fn common_time(&self, local: Timestamp) -> Result<Timestamp, StoreError> {
        match &self.database {
            Database::Sqlite(_) => Ok(local),
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => {
                let query = sql("SELECT CAST(floor(extract(epoch FROM clock_timestamp())) AS BIGINT)");
                let (second,) = query.fetch_one(self).await?;
                crate::time("clock", second)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Dialect;

    #[tokio::test]
    async fn the_time_of_all_processes_is_that_of_the_database_server() {
        let (_dir, store) = crate::scratch().await;
        let dialect = store.writing().await.unwrap().dialect();
        let wrong = Timestamp::now() - SignedDuration::from_mins(10);
        let common = store.common_time(wrong).await.unwrap();
        match dialect {
            Dialect::Sqlite => assert_eq!(common, wrong),
            #[cfg(feature = "postgres")]
            Dialect::Postgres => assert!(common > wrong + SignedDuration::from_mins(9), "{common}"),
        }
    }
}
