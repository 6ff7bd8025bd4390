//! The bound of what stays of expired reports: sums by day, and rows by which copies are recognized. Anybody who signs can
//! report about any domain, so that the sums about domains that are not ours, the sums by submitter and the rows of expired
//! reports each have a quota and an age. The sums of our own domains have an age only.
//!
//! Sums of the oldest days go first, and among those of one day the ones of the domain or submitter that became known last.
//! Each call is a short transaction, so that no other write waits for long.

use super::retention::{BATCH_REPORTS, among, only};
use crate::query::FromRow;
use crate::query::{Row, Value, parameters, sql, unnumbered};
use crate::writing::{Counter, Lock, Tries};
use crate::{Store, StoreError, count, time};
use formats::DomainName;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// The maximum number of ids in one statement.
const BATCH_IDS: usize = 500;
/// The number of sums that one transaction deletes. One domain or submitter may have more.
const BATCH_SUMS: u64 = 5000;
/// The maximum number of sums that one call reads to choose among. The next call goes on.
const MAX_SUMS: u64 = 2_000_000;

/// What stays of the sums by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SumLimits {
    /// The number of sums about domains that are not ours.
    pub others: u64,
    /// The number of sums by submitter.
    pub submitters: u64,
    /// Older days of our domains and of submitters are deleted.
    pub before: Timestamp,
    /// Older days of other domains are deleted.
    pub others_before: Timestamp,
}

/// A table of sums by day.
#[derive(Debug, Clone, Copy)]
enum Table {
    Domains,
    Submitters,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Domains => "domain_day",
            Self::Submitters => "submitter_day",
        }
    }

    /// The column of the text that the sums are about.
    fn column(self) -> &'static str {
        match self {
            Self::Domains => "domain",
            Self::Submitters => "submitter",
        }
    }
}

/// The sums of one domain or submitter.
#[derive(Debug, Clone, Copy)]
struct Held {
    id: i64,
    sums: u64,
    first: Timestamp,
}

impl FromRow for Held {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self { id: row.get()?, sums: count(row.get()?), first: time("domain_day", row.get()?)? })
    }
}

/// The sums to delete of each domain or submitter: those of days before `day`, and those of `day` if its id is above `id`.
#[derive(Debug, Clone, Copy)]
struct Cut {
    day: i64,
    id: i64,
}

impl Store {
    /// Deletes sums by day that are too old, or more than the limits allow. Our domains are `own`, those in the store, and
    /// those whose rollout is recorded. Returns the number of deleted sums.
    pub async fn shrink_sums(&self, own: &[&DomainName], limits: &SumLimits) -> Result<u64, StoreError> {
        let own = self.own_domains(own).await?;
        let held = self.held(Table::Domains).await?;
        let (ours, others): (Vec<Held>, Vec<Held>) =
            held.into_iter().partition(|held| own.contains(&held.id));
        let mut deleted = self.shrink(Table::Domains, &ours, u64::MAX, limits.before).await?;
        deleted += self.shrink(Table::Domains, &others, limits.others, limits.others_before).await?;
        let submitters = self.held(Table::Submitters).await?;
        deleted += self.shrink(Table::Submitters, &submitters, limits.submitters, limits.before).await?;
        Ok(deleted)
    }

    /// The ids of our domains, of those that have one.
    async fn own_domains(&self, own: &[&DomainName]) -> Result<BTreeSet<i64>, StoreError> {
        let stored = "SELECT id FROM name WHERE text IN
            (SELECT name FROM domain WHERE tenant = $1 UNION SELECT domain FROM rollout WHERE tenant = $1)";
        let mut found: BTreeSet<i64> =
            only(sql(stored).bind(self.tenant).fetch_all(self).await?).into_iter().collect();
        for batch in own.chunks(BATCH_IDS) {
            let text = format!("SELECT id FROM name WHERE text IN ({})", parameters(batch.len()));
            let names = unnumbered(text, batch.iter().map(|name| name.as_str().into()));
            found.extend(only(names.kept(false).fetch_all(self).await?));
        }
        Ok(found)
    }

    /// The number of sums of each domain or submitter, by id.
    async fn held(&self, table: Table) -> Result<Vec<Held>, StoreError> {
        let (name, column) = (table.name(), table.column());
        let text = format!(
            "SELECT {column}, count(*), min(day) FROM {name} WHERE tenant = ? GROUP BY {column} ORDER BY {column}"
        );
        unnumbered(text, [self.tenant.into()]).fetch_all(self).await
    }

    /// Deletes sums of these domains or submitters until there are at most `most`, and those from before a time.
    async fn shrink(
        &self,
        table: Table,
        held: &[Held],
        most: u64,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let sums = held.iter().fold(0u64, |sum, held| sum.saturating_add(held.sums));
        let mut cut = Cut { day: before.as_second(), id: i64::MAX };
        if sums > most {
            // A tenth more, so that not every report that arrives leads here.
            let surplus = sums - most + most / 10;
            cut = self.cut(table, held, surplus).await?.filter(|found| found.day >= cut.day).unwrap_or(cut);
        }
        let mut deleted = 0;
        let affected: Vec<Held> =
            held.iter().copied().filter(|held| held.first.as_second() <= cut.day).collect();
        for batch in batches(&affected) {
            deleted += self.delete_sums(table, batch, cut).await?;
        }
        Ok(deleted)
    }

    /// Where to cut so that so many sums go.
    async fn cut(&self, table: Table, held: &[Held], surplus: u64) -> Result<Option<Cut>, StoreError> {
        let (name, column) = (table.name(), table.column());
        let (mut all, mut read): (Vec<(i64, i64)>, u64) = (Vec::new(), 0);
        for batch in held.chunks(BATCH_IDS) {
            if read >= MAX_SUMS {
                break;
            }
            let ids: Vec<i64> = batch.iter().map(|held| held.id).collect();
            let text = format!("SELECT day, -{column} FROM {name} WHERE tenant = ? AND {column}");
            let days: Vec<(i64, i64)> = among(self.tenant, &text, &ids).fetch_all(self).await?;
            read = read.saturating_add(days.len() as u64);
            all.extend(days);
        }
        let last = usize::try_from(surplus).unwrap_or(usize::MAX).min(all.len());
        let Some(last) = last.checked_sub(1) else { return Ok(None) };
        let (_, (day, id), _) = all.select_nth_unstable(last);
        Ok(Some(Cut { day: *day, id: -*id - 1 }))
    }

    async fn delete_sums(&self, table: Table, held: &[Held], cut: Cut) -> Result<u64, StoreError> {
        let (name, column) = (table.name(), table.column());
        let list = parameters(held.len());
        let text = format!(
            "DELETE FROM {name} WHERE tenant = ? AND (day < ? OR (day = ? AND {column} > ?)) AND {column} IN ({list})"
        );
        let head: [Value<'_>; 4] = [self.tenant.into(), cut.day.into(), cut.day.into(), cut.id.into()];
        let values: Vec<Value<'_>> = head.into_iter().chain(held.iter().map(|held| held.id.into())).collect();
        let mut tries = Tries::default();
        loop {
            let done = self.delete_once(text.clone(), values.clone()).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn delete_once(&self, text: String, values: Vec<Value<'_>>) -> Result<u64, StoreError> {
        let mut writing = self.writing().await?;
        // An import may change the same sums, in another order.
        writing.lock(Counter::ReportId, Lock::Alone).await?;
        let deleted = unnumbered(text, values).kept(false).execute(&mut writing).await?;
        writing.commit().await?;
        Ok(deleted)
    }

    /// Deletes rows of expired reports if there are more than `most`: the oldest ones of the source that has most. From then
    /// on a copy would be a new report. Returns how many; call it again until that is 0.
    pub async fn shrink_expired(&self, most: u64) -> Result<u64, StoreError> {
        let all = "SELECT count(*) FROM report WHERE tenant = $1 AND is_expired = 1";
        let (all,): (i64,) = sql(all).bind(self.tenant).fetch_one(self).await?;
        let Some(surplus) = count(all).checked_sub(most).filter(|surplus| *surplus > 0) else { return Ok(0) };
        let largest = "SELECT source, count(*) FROM report WHERE tenant = $1 AND is_expired = 1
            GROUP BY source ORDER BY 2 DESC, source LIMIT 1";
        let (largest, of_largest): (String, i64) = sql(largest).bind(self.tenant).fetch_one(self).await?;
        // A tenth more of that source, since finding it reads all rows.
        let surplus = surplus.saturating_add(most / 10).min(count(of_largest));
        let ids =
            "SELECT id FROM report WHERE tenant = $1 AND is_expired = 1 AND source = $2 ORDER BY id LIMIT $3";
        let surplus = i64::try_from(surplus).unwrap_or(i64::MAX);
        let ids: Vec<(i64,)> = sql(ids).bind(self.tenant).bind(largest).bind(surplus).fetch_all(self).await?;
        let mut deleted = 0;
        for batch in only(ids).chunks(BATCH_REPORTS as usize) {
            let rows = "DELETE FROM report WHERE tenant = ? AND is_expired = 1 AND id";
            deleted += among(self.tenant, rows, batch).execute(self).await?;
        }
        Ok(deleted)
    }
}

/// Divides the domains or submitters by the number of their sums and of their ids.
fn batches(held: &[Held]) -> Vec<&[Held]> {
    let (mut all, mut rest) = (Vec::new(), held);
    while !rest.is_empty() {
        let mut sums = 0u64;
        let fits = |held: &&Held| {
            sums = sums.saturating_add(held.sums);
            sums <= BATCH_SUMS
        };
        let most = rest.iter().take(BATCH_IDS).take_while(fits).count().max(1);
        let (batch, after) = rest.split_at(most);
        all.push(batch);
        rest = after;
    }
    all
}

#[cfg(test)]
mod tests;
