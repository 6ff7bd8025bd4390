//! Sessions from other machines and from log files, each counted once. The collector adds counts together with a
//! [`CountSource`], in one transaction: a batch that is sent again, or a part of a log that is read again, adds nothing.
//! A collector that forwards its sessions spools them here until the other machine has taken them.

use crate::query::{Query, sql, total};
use crate::tallies::DayTally;
use crate::writing::{Counter, Lock, Tries, Writing};
use crate::{Store, StoreError, count, stored};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The source of counts, by which they are added only once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountSource {
    /// A batch of another machine, received at `at`.
    Batch {
        /// The batch's identifier, which no other batch has.
        id: String,
        /// The time of its receipt.
        at: Timestamp,
    },
    /// Sessions that this process collected, which it adds again if the answer of the database was lost.
    Flush {
        /// Identifies them, as no other source.
        id: String,
        /// The sessions before, which are known to be added. Their identifier is forgotten.
        after: Option<String>,
        /// The current time.
        at: Timestamp,
    },
    /// A part of a log file.
    Log {
        /// The name of the file.
        file: String,
        /// The place where the part begins; `None` for a file that was not read before.
        from: Option<LogPlace>,
        /// The place where the part ends.
        to: LogPlace,
    },
}

/// Identifiers of batches that the other machine refused contain this mark. The times of the refusal follow it.
pub const REFUSED_MARK: &str = ".refused-";

/// How far a log file has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlace {
    /// The identity of the file, which a rotation changes: device and inode.
    pub inode: String,
    /// The digest of its first bytes, which another file with a reused inode does not have.
    pub head: String,
    /// The number of bytes that have been read.
    pub read_to: u64,
}

/// The outcome of adding counts with a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Added {
    /// True if counts of this source were added before; then none was added now.
    pub is_repeated: bool,
    /// The days that are closed. Their counts were left out.
    pub closed: Vec<Timestamp>,
}

/// A batch of sessions that waits for the machine that counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledBatch {
    /// The batch's identifier, by which the other machine counts it once.
    pub id: String,
    /// The sessions as JSON, in the form that `POST /v1/sessions` accepts.
    pub body: Vec<u8>,
    /// The number of sessions in the batch.
    pub sessions: u64,
}

/// The outcome of spooling batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spooled {
    /// The batches are in the spool.
    Done,
    /// Sessions of this source were spooled before.
    Repeated,
    /// The spool is full.
    Full,
}

impl Store {
    /// Adds counts to days, each given by its first second, unless counts of this source were added before.
    pub async fn add_tallies_once(
        &self,
        days: &BTreeMap<Timestamp, DayTally>,
        source: &CountSource,
    ) -> Result<Added, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.try_add(days, source, false).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    /// The same, but if any of the days is closed, nothing is added.
    pub async fn add_all_tallies_once(
        &self,
        days: &BTreeMap<Timestamp, DayTally>,
        source: &CountSource,
    ) -> Result<Added, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.try_add(days, source, true).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn try_add(
        &self,
        days: &BTreeMap<Timestamp, DayTally>,
        source: &CountSource,
        is_whole: bool,
    ) -> Result<Added, StoreError> {
        let mut transaction = self.writing().await?;
        // No day is closed until the commit.
        transaction.lock(Counter::ClosedDays, Lock::Shared).await?;
        if !record(&mut transaction, source).await? {
            transaction.rollback().await?;
            return Ok(Added { is_repeated: true, closed: Vec::new() });
        }
        let closed = crate::tallies::add_open(&mut transaction, days).await?;
        match is_whole && !closed.is_empty() {
            true => transaction.rollback().await?,
            false => transaction.commit().await?,
        }
        Ok(Added { is_repeated: false, closed })
    }

    /// Returns how far a log file has been read; `None` if it was not read before.
    pub async fn log_place(&self, file: &str) -> Result<Option<LogPlace>, StoreError> {
        let query = sql("SELECT inode, head, read_to FROM log_place WHERE tenant = $1 AND file = $2");
        let row: Option<(String, String, i64)> =
            query.bind(self.tenant).bind(file).fetch_optional(self).await?;
        Ok(row.map(|(inode, head, read_to)| LogPlace { inode, head, read_to: count(read_to) }))
    }

    /// Spools batches, or none of them if the spool would then have more than `most_bytes` bytes, or if sessions of this
    /// source were spooled before.
    pub async fn spool(
        &self,
        batches: &[SpooledBatch],
        most_bytes: u64,
        source: Option<&CountSource>,
    ) -> Result<Spooled, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.try_spool(batches, most_bytes, source).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn try_spool(
        &self,
        batches: &[SpooledBatch],
        most_bytes: u64,
        source: Option<&CountSource>,
    ) -> Result<Spooled, StoreError> {
        let mut transaction = self.writing().await?;
        let (used,): (i64,) =
            sql(concat!("SELECT ", total!("bytes"), " FROM spooled_batch WHERE tenant = $1"))
                .bind(self.tenant)
                .fetch_one(&mut transaction)
                .await?;
        let new: u64 = batches.iter().map(|batch| batch.body.len() as u64).sum();
        if count(used).saturating_add(new) > most_bytes {
            transaction.rollback().await?;
            return Ok(Spooled::Full);
        }
        if let Some(source) = source
            && !record(&mut transaction, source).await?
        {
            transaction.rollback().await?;
            return Ok(Spooled::Repeated);
        }
        insert(&mut transaction, batches).await?;
        transaction.commit().await?;
        Ok(Spooled::Done)
    }

    /// Returns the oldest batch in the spool that was not refused.
    pub async fn oldest_spooled(&self) -> Result<Option<SpooledBatch>, StoreError> {
        self.first_spooled(sql("SELECT id, body, sessions FROM spooled_batch WHERE tenant = $1
            AND id NOT LIKE '%.refused-%' ORDER BY number LIMIT 1"))
            .await
    }

    /// Returns the refused batch in the spool that was tried least recently.
    pub async fn oldest_refused(&self) -> Result<Option<SpooledBatch>, StoreError> {
        self.first_spooled(sql("SELECT id, body, sessions FROM spooled_batch WHERE tenant = $1
            AND id LIKE '%.refused-%' ORDER BY number LIMIT 1"))
            .await
    }

    async fn first_spooled(&self, query: Query<'_>) -> Result<Option<SpooledBatch>, StoreError> {
        let row: Option<(String, Vec<u8>, i64)> = query.bind(self.tenant).fetch_optional(self).await?;
        Ok(row.map(|(id, body, sessions)| SpooledBatch { id, body, sessions: count(sessions) }))
    }

    /// Returns the number of sessions in the spool.
    pub async fn spooled_sessions(&self) -> Result<u64, StoreError> {
        let (sessions,): (i64,) =
            sql(concat!("SELECT ", total!("sessions"), " FROM spooled_batch WHERE tenant = $1"))
                .bind(self.tenant)
                .fetch_one(self)
                .await?;
        Ok(count(sessions))
    }

    /// Removes a batch from the spool, and adds these at the end.
    pub async fn replace_spooled(&self, id: &str, by: &[SpooledBatch]) -> Result<(), StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.try_replace(id, by).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn try_replace(&self, id: &str, by: &[SpooledBatch]) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        let query = sql("DELETE FROM spooled_batch WHERE tenant = $1 AND id = $2");
        query.bind(self.tenant).bind(id).execute(&mut transaction).await?;
        insert(&mut transaction, by).await?;
        transaction.commit().await
    }

    /// Forgets the identifiers of batches that were received before `before`.
    pub async fn delete_batches(&self, before: Timestamp) -> Result<(), StoreError> {
        let query = sql("DELETE FROM session_batch WHERE tenant = $1 AND at < $2");
        query.bind(self.tenant).bind(before.as_second()).execute(self).await?;
        Ok(())
    }
}

/// Adds batches at the end of the spool.
async fn insert(writing: &mut Writing, batches: &[SpooledBatch]) -> Result<(), StoreError> {
    for batch in batches {
        sql("INSERT INTO spooled_batch (tenant, id, body, bytes, sessions) VALUES ($1, $2, $3, $4, $5)")
            .bind(writing.tenant)
            .bind(batch.id.as_str())
            .bind(batch.body.as_slice())
            .bind(stored(batch.body.len() as u64))
            .bind(stored(batch.sessions))
            .execute(&mut *writing)
            .await?;
    }
    Ok(())
}

/// Records a source. Returns false if it was recorded before.
async fn record(writing: &mut Writing, source: &CountSource) -> Result<bool, StoreError> {
    let changed = match source {
        CountSource::Batch { id, at } => {
            sql("INSERT INTO session_batch (tenant, id, at) VALUES ($1, $2, $3) ON CONFLICT (tenant, id) DO NOTHING")
                .bind(writing.tenant)
                .bind(id.as_str())
                .bind(at.as_second())
                .execute(writing)
                .await?
        }
        CountSource::Flush { id, after, at } => {
            if let Some(after) = after {
                let forget = sql("DELETE FROM session_batch WHERE tenant = $1 AND id = $2");
                forget.bind(writing.tenant).bind(after.as_str()).execute(&mut *writing).await?;
            }
            let batch = CountSource::Batch { id: id.clone(), at: *at };
            return Box::pin(record(writing, &batch)).await;
        }
        CountSource::Log { file, from: None, to } => {
            sql("INSERT INTO log_place (tenant, file, inode, head, read_to) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (tenant, file) DO NOTHING")
            .bind(writing.tenant)
            .bind(file.as_str())
            .bind(to.inode.as_str())
            .bind(to.head.as_str())
            .bind(stored(to.read_to))
            .execute(writing)
            .await?
        }
        // The place must be the one where the part begins: another process may have read on.
        CountSource::Log { file, from: Some(from), to } => {
            sql("UPDATE log_place SET inode = $3, head = $4, read_to = $5
                 WHERE tenant = $1 AND file = $2 AND inode = $6 AND head = $7 AND read_to = $8")
            .bind(writing.tenant)
            .bind(file.as_str())
            .bind(to.inode.as_str())
            .bind(to.head.as_str())
            .bind(stored(to.read_to))
            .bind(from.inode.as_str())
            .bind(from.head.as_str())
            .bind(stored(from.read_to))
            .execute(writing)
            .await?
        }
    };
    Ok(changed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tallies::TallyIncrement;
    use formats::DomainName;
    use formats::report::PolicyReport;
    use formats::result_type::PolicyType;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn sessions(day: Timestamp, successful: u64) -> BTreeMap<Timestamp, DayTally> {
        let domain = DomainName::parse("a.example").unwrap();
        let entry = PolicyReport {
            policy_type: PolicyType::NoPolicyFound,
            policy_string: vec![],
            policy_domain: Some(domain.clone()),
            mx_host: vec![],
            successful,
            failed: 0,
            details: vec![],
        };
        let added = TallyIncrement { entries: vec![entry], record: None };
        BTreeMap::from([(day, DayTally::from([(domain, added)]))])
    }

    fn batch(id: &str) -> CountSource {
        CountSource::Batch { id: id.to_owned(), at: at(86_400) }
    }

    #[tokio::test]
    async fn a_batch_counts_once_and_leaves_closed_days_out() {
        let (scratch, store) = crate::scratch().await;
        let (day, closed) = (at(86_400), at(2 * 86_400));
        store.close_day(closed, false).await.unwrap();
        let both: BTreeMap<_, _> = sessions(day, 3).into_iter().chain(sessions(closed, 5)).collect();
        let added = store.add_tallies_once(&both, &batch("x-1")).await.unwrap();
        assert_eq!(added, Added { is_repeated: false, closed: vec![closed] });
        drop(store);
        let store = scratch.open().await;
        assert!(store.add_tallies_once(&both, &batch("x-1")).await.unwrap().is_repeated);
        assert_eq!(store.tally_sums(day).await.unwrap(), (3, 0));
        store.add_tallies_once(&sessions(day, 1), &batch("x-2")).await.unwrap();
        assert_eq!(
            (store.tally_sums(day).await.unwrap(), store.tally_sums(closed).await.unwrap()),
            ((4, 0), (0, 0))
        );
        store.delete_batches(at(86_401)).await.unwrap();
        assert!(!store.add_tallies_once(&sessions(day, 1), &batch("x-1")).await.unwrap().is_repeated);
    }

    #[tokio::test]
    async fn sessions_that_are_added_again_count_once_and_one_identifier_is_kept() {
        let (_scratch, store) = crate::scratch().await;
        let (day, closed) = (at(86_400), at(2 * 86_400));
        let flush = |id: &str, after: Option<&str>| CountSource::Flush {
            id: id.to_owned(),
            after: after.map(str::to_owned),
            at: at(86_400),
        };
        for (source, is_repeated) in [
            (flush("f-0", None), false),
            (flush("f-0", None), true),
            (flush("f-1", Some("f-0")), false),
            (flush("f-1", Some("f-0")), true),
        ] {
            let added = store.add_tallies_once(&sessions(day, 1), &source).await.unwrap();
            assert_eq!(added.is_repeated, is_repeated, "{source:?}");
        }
        assert_eq!(store.tally_sums(day).await.unwrap(), (2, 0));
        let kept: Vec<(String,)> = sql("SELECT id FROM session_batch").fetch_all(&store).await.unwrap();
        assert_eq!(kept, [("f-1".to_owned(),)]);
        // Where nothing is added because of a closed day, the sessions may be added without that day.
        store.close_day(closed, false).await.unwrap();
        let both: BTreeMap<_, _> = sessions(day, 3).into_iter().chain(sessions(closed, 5)).collect();
        let source = flush("f-2", Some("f-1"));
        assert_eq!(store.add_all_tallies_once(&both, &source).await.unwrap().closed, [closed]);
        assert_eq!(store.tally_sums(day).await.unwrap(), (2, 0));
        assert!(!store.add_all_tallies_once(&sessions(day, 3), &source).await.unwrap().is_repeated);
        assert_eq!(store.tally_sums(day).await.unwrap(), (5, 0));
    }

    #[tokio::test]
    async fn a_part_of_a_log_counts_only_from_the_place_that_was_reached() {
        let (_scratch, store) = crate::scratch().await;
        let place = |read_to| LogPlace { inode: "8:1".into(), head: "h".into(), read_to };
        let part = |from: Option<u64>, to| CountSource::Log {
            file: "main".into(),
            from: from.map(place),
            to: place(to),
        };
        let day = at(86_400);
        assert_eq!(store.log_place("main").await.unwrap(), None);
        for (source, is_repeated) in [
            (part(None, 10), false),
            (part(None, 10), true),
            (part(Some(10), 25), false),
            (part(Some(10), 30), true),
        ] {
            let added = store.add_tallies_once(&sessions(day, 1), &source).await.unwrap();
            assert_eq!(added.is_repeated, is_repeated, "{source:?}");
        }
        assert_eq!(store.log_place("main").await.unwrap(), Some(place(25)));
        assert_eq!(store.tally_sums(day).await.unwrap(), (2, 0));
    }

    #[tokio::test]
    async fn the_spool_gives_back_what_it_got_in_order_and_is_bounded() {
        let (scratch, store) = crate::scratch().await;
        let spooled = |id: &str| SpooledBatch { id: id.to_owned(), body: vec![7; 40], sessions: 9 };
        let spool = async |store: &Store, ids: &[&str], source: Option<CountSource>| {
            let batches: Vec<SpooledBatch> = ids.iter().map(|id| spooled(id)).collect();
            store.spool(&batches, 100, source.as_ref()).await.unwrap()
        };
        assert_eq!(spool(&store, &["b", "a"], None).await, Spooled::Done);
        assert_eq!(spool(&store, &["c"], None).await, Spooled::Full);
        drop(store);
        let store = scratch.open().await;
        assert_eq!(store.spooled_sessions().await.unwrap(), 18);
        assert_eq!(store.oldest_spooled().await.unwrap(), Some(spooled("b")));
        store.replace_spooled("b", &[]).await.unwrap();
        assert_eq!(store.oldest_spooled().await.unwrap(), Some(spooled("a")));
        assert_eq!(spool(&store, &["c"], Some(batch("s"))).await, Spooled::Done);
        assert_eq!(spool(&store, &[], Some(batch("s"))).await, Spooled::Repeated);
        assert_eq!(store.spooled_sessions().await.unwrap(), 18);
        store.replace_spooled("a", &[]).await.unwrap();
        let refused = spooled("c.refused-1-2");
        store.replace_spooled("c", std::slice::from_ref(&refused)).await.unwrap();
        assert_eq!(store.oldest_spooled().await.unwrap(), None);
        assert_eq!(store.oldest_refused().await.unwrap().as_ref(), Some(&refused));
        store.replace_spooled(&refused.id, &[]).await.unwrap();
        assert_eq!(
            (store.oldest_spooled().await.unwrap(), store.spooled_sessions().await.unwrap()),
            (None, 0)
        );
    }
}
