//! Messages and files that could not be read as a report, with the reason. The operator can retry them after an upgrade
//! that fixes the parser.

use super::{Arrival, digest};
use crate::query::{FromRow, Row, sql};
use crate::{Store, StoreError, TENANT, time};
use jiff::Timestamp;

/// A quarantined message or file, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// The row id.
    pub id: i64,
    /// When it arrived.
    pub received_at: Timestamp,
    /// How it arrived.
    #[serde(rename = "way")]
    pub arrival: Arrival,
    /// Why it could not be read.
    pub reason: String,
    /// The size in bytes.
    pub size: i64,
}

impl FromRow for Quarantined {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get()?,
            received_at: time("quarantine", row.get()?)?,
            arrival: Arrival::parse(row.get()?)?,
            reason: row.get()?,
            size: row.get()?,
        })
    }
}

impl Store {
    /// Adds a message or file to the quarantine. Does nothing if the same bytes are already there.
    pub async fn quarantine(
        &self,
        received_at: Timestamp,
        arrival: Arrival,
        reason: &str,
        raw: &[u8],
    ) -> Result<(), StoreError> {
        sql("INSERT INTO quarantine (tenant, received_at, way, reason, digest, raw)
             SELECT $1, $2, $3, $4, $5, $6
             WHERE NOT EXISTS (SELECT 1 FROM quarantine WHERE digest = $5 AND raw = $6)")
        .bind(TENANT)
        .bind(received_at.as_second())
        .bind(arrival as i64)
        .bind(reason)
        .bind(digest(&[raw]))
        .bind(raw)
        .execute(self)
        .await?;
        Ok(())
    }

    /// Returns up to `most` quarantined items with row ids above `after`, oldest first.
    pub async fn quarantined(&self, after: i64, most: u32) -> Result<Vec<Quarantined>, StoreError> {
        sql("SELECT id, received_at, way, reason, length(raw) FROM quarantine
             WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3")
        .bind(TENANT)
        .bind(after)
        .bind(most)
        .fetch_all(self)
        .await
    }

    /// Returns the bytes of a quarantined item.
    pub async fn quarantined_bytes(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> = sql("SELECT raw FROM quarantine WHERE tenant = $1 AND id = $2")
            .bind(TENANT)
            .bind(id)
            .fetch_optional(self)
            .await?;
        Ok(row.map(|(raw,)| raw))
    }

    /// Deletes an item, either after a successful retry or at the operator's request. False if there is no such item.
    pub async fn release_quarantined(&self, id: i64) -> Result<bool, StoreError> {
        let done = sql("DELETE FROM quarantine WHERE tenant = $1 AND id = $2")
            .bind(TENANT)
            .bind(id)
            .execute(self)
            .await?;
        Ok(done > 0)
    }
}
