//! The time by which leases on SQLite begin and end. All processes with the file run on one machine, whose clock that counts from
//! its start is never set. A row says what has to be added to it to get the calendar time of the moment when this was first
//! needed since the start, so that a lease from before a restart of the machine has ended, and people see when one ends.

use super::held::since_boot;
use super::holder::boot_id;
use crate::database::Database;
use crate::query::sql;
use crate::{Store, StoreError};
use jiff::{SignedDuration, Timestamp};

/// The age from which on a row is deleted when another one is stored. Those of other machines that share the file by a network
/// stay, unless they run for longer.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 400);
/// The names of the rows, each followed by the identifier of the start of the machine.
const ROW: &str = "time of boot ";

impl Store {
    /// The time that leases on SQLite use; `local`, if the machine does not say which start it is. On PostgreSQL leases use its
    /// clock, and not this time.
    pub(super) async fn steady_time(&self, local: Timestamp) -> Result<Timestamp, StoreError> {
        match &self.database {
            Database::Sqlite(_) => match boot_id() {
                Some(boot) => self.steady_since(&boot, local).await,
                None => Ok(local),
            },
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => Ok(local),
        }
    }

    /// The time by the clock that counts from this start of the machine.
    pub(super) async fn steady_since(&self, boot: &str, local: Timestamp) -> Result<Timestamp, StoreError> {
        let name = format!("{ROW}{boot}");
        let started = match self.start_of(&name).await? {
            Some(started) => started,
            None => {
                self.put_start(&name, local).await?;
                // Of two processes, one has stored it.
                self.start_of(&name).await?.unwrap_or(i64::MIN)
            }
        };
        let started = Timestamp::from_second(started).unwrap_or(local);
        let since = SignedDuration::try_from(since_boot()).unwrap_or(SignedDuration::MAX);
        Ok(started.saturating_add(since).unwrap_or(Timestamp::MAX))
    }

    async fn start_of(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let select = sql("SELECT expires_at FROM lease WHERE name = $1").bind(name);
        Ok(select.fetch_optional(self).await?.map(|(started,)| started))
    }

    /// Stores the row, which nobody holds, and deletes old ones.
    async fn put_start(&self, name: &str, local: Timestamp) -> Result<(), StoreError> {
        let since = i64::try_from(since_boot().as_secs()).unwrap_or(i64::MAX);
        let mut writing = self.unfenced().writing().await?;
        sql("DELETE FROM lease WHERE name >= $1 AND name < $2 AND expires_at < $3")
            .bind(ROW)
            .bind(format!("{ROW}{}", char::MAX))
            .bind(local.as_second().saturating_sub(KEPT.as_secs()))
            .execute(&mut writing)
            .await?;
        sql("INSERT INTO lease (name, holder, expires_at, fence) VALUES ($1, '', $2, 0) ON CONFLICT (name) DO NOTHING")
            .bind(name)
            .bind(local.as_second().saturating_sub(since))
            .execute(&mut writing)
            .await?;
        writing.commit().await
    }
}
