//! What could not be read, whole, with the reason; to be tried again after an upgrade.

use super::{Arrival, digest};
use crate::{Store, StoreError, TENANT, time};
use jiff::Timestamp;
use sqlx::Row;

/// Something in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// Its number.
    pub id: i64,
    /// When it came.
    pub received_at: Timestamp,
    /// How it came.
    #[serde(rename = "way")]
    pub arrival: Arrival,
    /// Why it is here.
    pub reason: String,
    /// Bytes of it.
    pub size: i64,
}

impl Store {
    /// Keeps what could not be read, with the reason; the same bytes once.
    pub async fn quarantine(
        &self,
        received_at: Timestamp,
        arrival: Arrival,
        reason: &str,
        raw: &[u8],
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO quarantine (tenant, received_at, way, reason, digest, raw)
             SELECT $1, $2, $3, $4, $5, $6
             WHERE NOT EXISTS (SELECT 1 FROM quarantine WHERE digest = $5 AND raw = $6)",
        )
        .bind(TENANT)
        .bind(received_at.as_second())
        .bind(arrival as i64)
        .bind(reason)
        .bind(digest(&[raw]))
        .bind(raw)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What is in quarantine after this number, oldest first.
    pub async fn quarantined(&self, after: i64, most: u32) -> Result<Vec<Quarantined>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, received_at, way, reason, length(raw) FROM quarantine
             WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(TENANT)
        .bind(after)
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Quarantined {
                    id: row.try_get(0)?,
                    received_at: time("quarantine", row.try_get(1)?)?,
                    arrival: Arrival::parse(row.try_get(2)?)?,
                    reason: row.try_get(3)?,
                    size: row.try_get(4)?,
                })
            })
            .collect()
    }

    /// The bytes of one.
    pub async fn quarantined_bytes(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT raw FROM quarantine WHERE tenant = $1 AND id = $2")
            .bind(TENANT)
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Takes one out, when it could be read after all or the operator wants it gone; false when it was
    /// not there.
    pub async fn release_quarantined(&self, id: i64) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM quarantine WHERE tenant = $1 AND id = $2")
            .bind(TENANT)
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
