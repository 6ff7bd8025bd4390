//! Changes that are made together or not at all.
//!
//! The library's own transactions are not used for that: when the disk is full, SQLite ends a transaction by itself,
//! the library's connection never learns of it, and every later one on that connection fails. Here a connection whose
//! changes were not committed is closed, and the next one is opened anew.

use crate::{Store, StoreError};
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection};
use std::ops::{Deref, DerefMut};

/// A connection that writes. What was not committed when it is dropped did not happen.
pub(crate) struct Writing {
    connection: PoolConnection<Sqlite>,
    is_committed: bool,
}

impl Store {
    /// Begins to write, at once: what begins with reading may not be let write later.
    pub(crate) async fn writing(&self) -> Result<Writing, StoreError> {
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
    async fn what_is_not_committed_did_not_happen_and_hinders_nobody() {
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
            // As SQLite does by itself when the disk is full.
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
