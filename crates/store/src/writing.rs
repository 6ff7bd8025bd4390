//! Write transactions, used by all modules that make several changes at once.
//!
//! SQLx's own transactions are unsuitable. When the disk is full, SQLite rolls back by itself, but the SQLx
//! connection still counts the transaction as open, and every later transaction on that connection fails. [`Writing`]
//! instead closes its connection when it is dropped without a commit, and the pool opens a new one.

use crate::{Store, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection};
use std::ops::{Deref, DerefMut};

/// A write transaction. It is rolled back when it is dropped without a commit.
pub(crate) struct Writing {
    connection: PoolConnection<Sqlite>,
    is_committed: bool,
}

impl Store {
    /// Begins an immediate transaction, in the file that is at its path. A deferred one may fail with `SQLITE_BUSY` when it upgrades to a write.
    pub(crate) async fn writing(&self) -> Result<Writing, StoreError> {
        self.check_file()?;
        let mut writing = Writing { connection: self.pool.acquire().await?, is_committed: false };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *writing.connection).await?;
        Ok(writing)
    }
}

impl Writing {
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(&mut *self.connection).await?;
        self.is_committed = true;
        Ok(())
    }
}

impl Deref for Writing {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_committed {
            self.connection.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_dropped_transaction_is_rolled_back_and_blocks_no_later_one() {
        let (_dir, store) = crate::scratch().await;
        let count = || async {
            sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM reported_day")
                .fetch_one(&store.pool)
                .await
                .unwrap()
        };
        let insert = "INSERT INTO reported_day (day, is_built) VALUES (1, 1)";
        for _ in 0..10 {
            let mut writing = store.writing().await.unwrap();
            sqlx::query(insert).execute(&mut *writing).await.unwrap();
        }
        assert_eq!(count().await, 0);
        for _ in 0..10 {
            // SQLite rolls back by itself when the disk is full.
            let mut writing = store.writing().await.unwrap();
            sqlx::query("ROLLBACK").execute(&mut *writing).await.unwrap();
            assert!(writing.commit().await.is_err());
        }
        let mut writing = store.writing().await.unwrap();
        sqlx::query(insert).execute(&mut *writing).await.unwrap();
        writing.commit().await.unwrap();
        assert_eq!(count().await, 1);
    }
}
