//! Messages and files that could not be read as a report, with the reason. The operator can retry them after an upgrade
//! that fixes the parser.
//!
//! Anybody can send something unreadable, so the quarantine is limited in bytes and number ([`Quota`]) and in age. When a
//! limit is reached, `quota` chooses what makes room; a counter tells how many items were lost. The limits spare what was
//! there before them for some time; see `upgrade`.

use super::quota::{Item, Quota, computed, make_room, shrink};
use super::{Arrival, digest};
use crate::query::{FromRow, Row, built, parameters, sql, unnumbered};
use crate::writing::{TenantCounter, Tries, Writing};
use crate::{Store, StoreError, Tenant, count, time};
use jiff::Timestamp;
use std::collections::HashMap;

/// A message or file to quarantine.
#[derive(Debug, Clone, Copy)]
pub struct NewQuarantined<'q> {
    /// When the message or file arrived.
    pub received_at: Timestamp,
    /// How the message or file arrived.
    pub arrival: Arrival,
    /// The network of the client. Empty if there is no client, as in a mailbox; such items share one part of the quota,
    /// since the sender that a message names may be forged.
    pub source: &'q str,
    /// Whether the operator vouched for it (`sternpost reports import --trusted`).
    pub is_trusted: bool,
    /// Why it could not be read.
    pub reason: &'q str,
    /// The bytes of the message or file.
    pub raw: &'q [u8],
}

/// The result of [`Store::quarantine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuarantineOutcome {
    /// False if the item was not stored, since it is larger than the share of its source, or than any item that could
    /// make room for it. It counts as evicted.
    pub is_kept: bool,
    /// The number of older items that made room for it.
    pub evicted: u64,
}

/// A quarantined message or file, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Quarantined {
    /// The row id, which commands and pages show as the item's number.
    pub id: i64,
    /// When the message or file arrived.
    pub received_at: Timestamp,
    /// How the message or file arrived.
    #[serde(rename = "way")]
    pub arrival: Arrival,
    /// The network of the client; see [`NewQuarantined::source`].
    pub source: String,
    /// Whether the operator vouched for it.
    #[serde(rename = "trusted")]
    pub is_trusted: bool,
    /// Why it could not be read.
    pub reason: String,
    /// The size in bytes.
    pub size: i64,
}

/// How much is in the quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct QuarantineUsage {
    /// The number of items.
    pub items: u64,
    /// The size of all items in bytes.
    pub bytes: u64,
    /// The number of items that the quota has removed or refused since the store was created.
    pub evicted: u64,
    /// The number of items that were deleted because of their age since the store was created.
    pub expired: u64,
}

/// Selects quarantined items; an item has to match every member that is set.
#[derive(Debug, Clone, Default)]
pub struct QuarantineSelection {
    /// Only the item with this row id.
    pub id: Option<i64>,
    /// Only items that arrived before this time.
    pub before: Option<Timestamp>,
    /// Only items from this source.
    pub source: Option<String>,
}

/// The size of the items that one transaction deletes, so that no other write waits for long. One item may be larger.
const BATCH_BYTES: u64 = 16 << 20;
/// The number of items that one transaction deletes.
const BATCH_ITEMS: u32 = 500;

impl FromRow for Quarantined {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get()?,
            received_at: time("quarantine", row.get()?)?,
            arrival: Arrival::parse(row.get()?)?,
            source: row.get()?,
            is_trusted: row.get::<i64>()? != 0,
            reason: row.get()?,
            size: row.get()?,
        })
    }
}

impl FromRow for Item {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self { id: row.get()?, source: row.get()?, size: count(row.get()?) })
    }
}

impl Store {
    /// Adds a message or file to the quarantine, within `quota`. Does nothing if the same bytes are already there.
    pub async fn quarantine(
        &self,
        new: &NewQuarantined<'_>,
        quota: &Quota,
    ) -> Result<QuarantineOutcome, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.try_quarantine(new, quota).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn try_quarantine(
        &self,
        new: &NewQuarantined<'_>,
        quota: &Quota,
    ) -> Result<QuarantineOutcome, StoreError> {
        let mut writing = self.writing().await?;
        // Two items must not both take the last room.
        writing.add(TenantCounter::QuarantineEvicted, 0).await?;
        let digest = digest(&[new.raw]);
        let there: Option<(i64,)> =
            sql("SELECT id FROM quarantine WHERE +tenant = $1 AND digest = $2 AND raw = $3")
                .bind(self.tenant)
                .bind(digest)
                .bind(new.raw)
                .fetch_optional(&mut writing)
                .await?;
        if there.is_some() {
            writing.rollback().await?;
            return Ok(QuarantineOutcome { is_kept: true, evicted: 0 });
        }
        let size = new.raw.len() as u64;
        let Some(evicted) = evictions(&mut writing, new.source, size, quota).await? else {
            writing.add(TenantCounter::QuarantineEvicted, 1).await?;
            writing.commit().await?;
            return Ok(QuarantineOutcome { is_kept: false, evicted: 0 });
        };
        delete(&mut writing, &evicted).await?;
        let insert = sql("INSERT INTO quarantine (tenant, received_at, way, reason, digest, raw)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id")
        .bind(self.tenant)
        .bind(new.received_at.as_second())
        .bind(new.arrival as i64)
        .bind(new.reason)
        .bind(digest)
        .bind(new.raw);
        let (item,): (i64,) = insert.fetch_one(&mut writing).await?;
        sql("INSERT INTO quarantine_use (item, tenant, source, is_trusted, size, is_earlier) VALUES ($1, $2, $3, $4, $5, 0)")
            .bind(item)
            .bind(self.tenant)
            .bind(new.source)
            .bind(new.is_trusted)
            .bind(crate::stored(size))
            .execute(&mut writing)
            .await?;
        writing.add(TenantCounter::QuarantineEvicted, crate::stored(evicted.len() as u64)).await?;
        writing.commit().await?;
        Ok(QuarantineOutcome { is_kept: true, evicted: evicted.len() as u64 })
    }

    /// Deletes items until the others fit into `quota`, such as after it was lowered. Returns how many it deleted. Reads all
    /// items once; each batch that it deletes is one short transaction.
    pub async fn shrink_quarantine(&self, quota: &Quota) -> Result<u64, StoreError> {
        let usage = "SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM quarantine_use
                     WHERE tenant = $1 AND is_earlier = 0";
        let (items, bytes): (i64, i64) = sql(usage).bind(self.tenant).fetch_one(self).await?;
        if quota.has_room_for(count(bytes), count(items)) {
            return Ok(0);
        }
        let (items, quota): (Vec<Item>, _) = (sql(ITEMS).bind(self.tenant).fetch_all(self).await?, *quota);
        let chosen = computed(move || {
            let sizes: HashMap<i64, u64> = items.iter().map(|item| (item.id, item.size)).collect();
            let size = |id: &i64| sizes.get(id).copied().unwrap_or_default();
            shrink(&items, &quota).into_iter().map(|id| (id, size(&id))).collect::<Vec<_>>()
        });
        let chosen = chosen.await?;
        let (mut left, mut deleted) = (chosen.as_slice(), 0);
        while !left.is_empty() {
            let batch = first_batch(left.iter().take(BATCH_ITEMS as usize).copied());
            left = left.get(batch.len()..).unwrap_or_default();
            deleted += self.delete_counted(&batch, TenantCounter::QuarantineEvicted).await?;
        }
        Ok(deleted)
    }

    /// Deletes items in one transaction, and adds their number to a counter.
    async fn delete_counted(&self, ids: &[i64], counter: TenantCounter) -> Result<u64, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.try_delete_counted(ids, counter).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn try_delete_counted(&self, ids: &[i64], counter: TenantCounter) -> Result<u64, StoreError> {
        let mut writing = self.writing().await?;
        writing.add(TenantCounter::QuarantineEvicted, 0).await?;
        let deleted = delete(&mut writing, ids).await?;
        writing.add(counter, crate::stored(deleted)).await?;
        writing.commit().await?;
        Ok(deleted)
    }

    /// Deletes items that arrived before `before`, except those that the limits spare. Returns how many; call it again
    /// until that is 0. Each call is one short transaction.
    pub async fn expire_quarantined(&self, before: Timestamp) -> Result<u64, StoreError> {
        let found = sql("SELECT id, size FROM quarantine JOIN quarantine_use ON item = id
             WHERE quarantine.tenant = $1 AND received_at < $2 AND is_earlier = 0 ORDER BY received_at, id LIMIT $3");
        let found = found.bind(self.tenant).bind(before.as_second()).bind(BATCH_ITEMS);
        let found: Vec<(i64, i64)> = found.fetch_all(self).await?;
        match first_batch(found.into_iter().map(|(id, size)| (id, count(size)))) {
            batch if batch.is_empty() => Ok(0),
            batch => self.delete_counted(&batch, TenantCounter::QuarantineExpired).await,
        }
    }

    /// Returns up to `most` quarantined items with row ids above `after`, oldest first.
    pub async fn quarantined(&self, after: i64, most: u32) -> Result<Vec<Quarantined>, StoreError> {
        sql("SELECT id, received_at, way, source, is_trusted, reason, size FROM quarantine
             JOIN quarantine_use ON item = id WHERE quarantine.tenant = $1 AND id > $2 ORDER BY id LIMIT $3")
        .bind(self.tenant)
        .bind(after)
        .bind(most)
        .fetch_all(self)
        .await
    }

    /// Returns how much is in the quarantine, and how much its limits removed.
    pub async fn quarantine_usage(&self) -> Result<QuarantineUsage, StoreError> {
        let query = sql(
            "SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM quarantine_use WHERE tenant = $1",
        );
        let (items, bytes): (i64, i64) = query.bind(self.tenant).fetch_one(self).await?;
        let evicted = count(self.tenant_counter(TenantCounter::QuarantineEvicted).await?);
        let expired = count(self.tenant_counter(TenantCounter::QuarantineExpired).await?);
        Ok(QuarantineUsage { items: count(items), bytes: count(bytes), evicted, expired })
    }

    /// Returns the bytes of a quarantined item.
    pub async fn quarantined_bytes(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let row: Option<(Vec<u8>,)> = sql("SELECT raw FROM quarantine WHERE tenant = $1 AND id = $2")
            .bind(self.tenant)
            .bind(id)
            .fetch_optional(self)
            .await?;
        Ok(row.map(|(raw,)| raw))
    }

    /// Replaces the reason of an item, after a retry that failed for another one.
    pub async fn update_quarantine_reason(&self, id: i64, reason: &str) -> Result<(), StoreError> {
        let update = sql("UPDATE quarantine SET reason = $3 WHERE tenant = $1 AND id = $2 AND reason <> $3");
        update.bind(self.tenant).bind(id).bind(reason).execute(self).await?;
        Ok(())
    }

    /// Deletes an item after a successful retry. False if there is no such item.
    pub async fn release_quarantined(&self, id: i64) -> Result<bool, StoreError> {
        let selection = QuarantineSelection { id: Some(id), ..QuarantineSelection::default() };
        Ok(self.drop_quarantined(&selection).await? > 0)
    }

    /// Returns the number of selected items and their size in bytes.
    pub async fn count_quarantined(&self, selection: &QuarantineSelection) -> Result<(u64, u64), StoreError> {
        let select = "SELECT count(*), CAST(coalesce(sum(size), 0) AS BIGINT) FROM quarantine JOIN quarantine_use ON item = id";
        let (items, bytes): (i64, i64) = selected(self.tenant, select, selection, "").fetch_one(self).await?;
        Ok((count(items), count(bytes)))
    }

    /// Deletes selected items at the operator's request. Returns how many it deleted; call it
    /// again until that is 0. Each call is one short transaction.
    pub async fn drop_quarantined(&self, selection: &QuarantineSelection) -> Result<u64, StoreError> {
        let end = format!("ORDER BY id LIMIT {BATCH_ITEMS}");
        let select = "SELECT id, size FROM quarantine JOIN quarantine_use ON item = id";
        let found: Vec<(i64, i64)> = selected(self.tenant, select, selection, &end).fetch_all(self).await?;
        let batch = first_batch(found.into_iter().map(|(id, size)| (id, count(size))));
        if batch.is_empty() {
            return Ok(0);
        }
        let mut writing = self.writing().await?;
        let deleted = delete(&mut writing, &batch).await?;
        writing.commit().await?;
        Ok(deleted)
    }
}

/// The first items, up to [`BATCH_BYTES`], and at least one.
fn first_batch(items: impl Iterator<Item = (i64, u64)>) -> Vec<i64> {
    let mut bytes = 0u64;
    let fits = |(_, size): &(i64, u64)| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add((*size).max(1));
        is_first || bytes <= BATCH_BYTES
    };
    items.take_while(fits).map(|(id, _)| id).collect()
}

fn selected<'s>(
    tenant: Tenant,
    select: &str,
    selection: &'s QuarantineSelection,
    end: &str,
) -> crate::query::Query<'s> {
    let mut text = format!("{select} WHERE quarantine.tenant = $1");
    let mut values = vec![tenant.into()];
    let mut add = |condition: &str, value| {
        values.push(value);
        text.push_str(&format!(" AND {condition} ${}", values.len()));
    };
    if let Some(id) = selection.id {
        add("id =", id.into());
    }
    if let Some(before) = selection.before {
        add("received_at <", before.as_second().into());
    }
    if let Some(source) = &selection.source {
        add("source =", source.into());
    }
    let mut query = built(format!("{text} {end}"));
    query.values = values;
    query
}

/// Chooses the items that make room for a new one; see [`make_room`].
async fn evictions(
    writing: &mut Writing,
    source: &str,
    size: u64,
    quota: &Quota,
) -> Result<Option<Vec<i64>>, StoreError> {
    let share = quota.share();
    let sums = "SELECT source, CAST(sum(size) AS BIGINT), count(*) FROM quarantine_use
                WHERE tenant = $1 AND is_earlier = 0 GROUP BY source";
    let sums: Vec<(String, i64, i64)> = sql(sums).bind(writing.tenant).fetch_all(&mut *writing).await?;
    let add = |all: (u64, u64), (_, bytes, items): &(String, i64, i64)| {
        (all.0.saturating_add(count(*bytes)), all.1.saturating_add(count(*items)))
    };
    let all = sums.iter().fold((size, 1), add);
    let own = sums.iter().filter(|(one, ..)| one == source).fold((size, 1), add);
    let fits = |used: (u64, u64), quota: &Quota| used.0 <= quota.bytes && used.1 <= quota.items;
    if fits(all, quota) && fits(own, &share) {
        return Ok(Some(Vec::new()));
    }
    let items: Vec<Item> = sql(ITEMS).bind(writing.tenant).fetch_all(writing).await?;
    let (source, quota) = (source.to_owned(), *quota);
    computed(move || make_room(&items, &source, size, &quota)).await
}

/// All items that the limits apply to, oldest first.
const ITEMS: &str =
    "SELECT item, source, size FROM quarantine_use WHERE tenant = $1 AND is_earlier = 0 ORDER BY item";

async fn delete(writing: &mut Writing, ids: &[i64]) -> Result<u64, StoreError> {
    let mut deleted = 0;
    for batch in ids.chunks(BATCH_ITEMS as usize) {
        let list = parameters(batch.len());
        let values = [writing.tenant.into()].into_iter().chain(batch.iter().map(|id| (*id).into()));
        let query = unnumbered(format!("DELETE FROM quarantine WHERE tenant = ? AND id IN ({list})"), values);
        deleted += query.kept(false).execute(&mut *writing).await?;
    }
    Ok(deleted)
}
