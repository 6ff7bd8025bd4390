//! Session counts of the sending side per UTC day, by policy and failure (RFC 8460 §4). The collector adds the sessions
//! that mail servers report; the report scheduler builds the outgoing reports from them.

mod adding;

use crate::query::{FromRow, Row, built, sql, total};
use crate::writing::{Counter, Lock, Tries, Writing};
use crate::{Store, StoreError, count, damaged, time};
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;
use formats::{DomainName, ResultType};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};

/// Counts to add to one UTC day, by the recipient domain.
pub type DayTally = BTreeMap<DomainName, TallyIncrement>;

/// Counts to add to one recipient domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TallyIncrement {
    /// Counts by policy; a policy may occur more than once. A DANE policy belongs to an MX host, so its policy domain
    /// differs from the recipient domain.
    pub entries: Vec<PolicyReport>,
    /// The text of the `_smtp._tls` record that the mail server found; `None` if it reported none.
    pub record: Option<String>,
}

/// The counts of one recipient domain on one UTC day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainTally {
    /// The recipient domain, which also receives the report.
    pub domain: DomainName,
    /// Counts, one entry for each policy.
    pub entries: Vec<PolicyReport>,
}

/// A row's primary key: the digest of the values that identify it.
type Key = Vec<u8>;

impl Store {
    /// Adds counts to days, each given by its first second, in one transaction.
    ///
    /// Counts of the same policy, and of the same failure, are summed. A policy keeps up to `TALLY_FAILURES` distinct
    /// failures per day; further ones are summed by result type. If any of the days is closed, nothing is added, and
    /// the closed days are returned.
    pub async fn add_tallies(
        &self,
        days: &BTreeMap<Timestamp, DayTally>,
    ) -> Result<Vec<Timestamp>, StoreError> {
        let mut tries = Tries::default();
        loop {
            let done = self.add_once(days).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn add_once(&self, days: &BTreeMap<Timestamp, DayTally>) -> Result<Vec<Timestamp>, StoreError> {
        let mut transaction = self.writing().await?;
        // No day is closed until the commit.
        transaction.lock(Counter::ClosedDays, Lock::Shared).await?;
        let mut closed = Vec::new();
        for day in days.keys() {
            if is_closed(&mut transaction, *day).await? {
                closed.push(*day);
            }
        }
        if !closed.is_empty() {
            transaction.rollback().await?;
            return Ok(closed);
        }
        for (day, tally) in days {
            adding::add(&mut transaction, *day, tally).await?;
        }
        transaction.commit().await?;
        Ok(closed)
    }

    /// Like [`Store::add_tallies`], for one day and policies of the recipient domains themselves. An entry without a
    /// policy domain is an error. Counts for a closed day are dropped.
    pub async fn add_to_tally(&self, day: Timestamp, entries: &[PolicyReport]) -> Result<(), StoreError> {
        let mut tally = DayTally::new();
        for entry in entries {
            let Some(domain) = entry.policy_domain.clone() else {
                return Err(damaged("tally")("an entry without a policy domain"));
            };
            tally.entry(domain).or_default().entries.push(entry.clone());
        }
        self.add_tallies(&BTreeMap::from([(day, tally)])).await.map(drop)
    }

    /// Returns all counts of a day, in the order of the recipient domains.
    pub async fn tally(&self, day: Timestamp) -> Result<Vec<DomainTally>, StoreError> {
        self.tally_after(day, "", u32::MAX).await
    }

    /// Returns the counts of a day for up to `most` recipient domains whose names sort after `after`, in that order.
    pub async fn tally_after(
        &self,
        day: Timestamp,
        after: &str,
        most: u32,
    ) -> Result<Vec<DomainTally>, StoreError> {
        let (last,): (Option<String>,) = sql("SELECT MAX(domain) FROM (SELECT DISTINCT domain FROM tally
             WHERE day = $1 AND domain > $2 ORDER BY domain LIMIT $3) AS page")
        .bind(day.as_second())
        .bind(after)
        .bind(i64::from(most))
        .fetch_one(self)
        .await?;
        match last {
            Some(last) => self.tally_between(day, after, &last).await,
            None => Ok(Vec::new()),
        }
    }

    /// Returns the counts of a day for one recipient domain, by policy.
    pub async fn tally_of(
        &self,
        day: Timestamp,
        domain: &DomainName,
    ) -> Result<Vec<PolicyReport>, StoreError> {
        // The range from the name without its last character to the name. The filter removes other names in it.
        let before = domain.as_str().strip_suffix(|_: char| true).unwrap_or_default();
        let all = self.tally_between(day, before, domain.as_str()).await?;
        Ok(all.into_iter().filter(|tally| tally.domain == *domain).flat_map(|tally| tally.entries).collect())
    }

    async fn tally_between(
        &self,
        day: Timestamp,
        after: &str,
        last: &str,
    ) -> Result<Vec<DomainTally>, StoreError> {
        let bounds = "tally.day = $1 AND tally.domain > $2 AND tally.domain <= $3";
        let sql = format!(
            "SELECT tally.key, {FAILURE_COLUMNS} FROM tally JOIN tally_failure ON tally_failure.tally = tally.key
             WHERE {bounds} ORDER BY tally_failure.failed DESC, tally_failure.result_type, tally_failure.key"
        );
        let rows = built(sql).bind(day.as_second()).bind(after).bind(last).fetch_all(self).await?;
        let mut failures: HashMap<Key, Vec<FailureDetail>> = HashMap::new();
        for OfTally { tally, detail } in rows {
            failures.entry(tally).or_default().push(detail);
        }
        let sql = format!(
            "SELECT key, domain, policy_type, policy_string, policy_domain, mx_host, successful, failed
             FROM tally WHERE {bounds} ORDER BY domain, policy_type, key"
        );
        let rows = built(sql).bind(day.as_second()).bind(after).bind(last).fetch_all(self).await?;
        let mut all: Vec<DomainTally> = Vec::new();
        for StoredEntry { key, domain, mut entry } in rows {
            entry.details = failures.remove(&key).unwrap_or_default();
            match all.last_mut().filter(|last| last.domain == domain) {
                Some(last) => last.entries.push(entry),
                None => all.push(DomainTally { domain, entries: vec![entry] }),
            }
        }
        Ok(all)
    }

    /// Returns the numbers of successful and of failed sessions of a day, over all domains.
    pub async fn tally_sums(&self, day: Timestamp) -> Result<(u64, u64), StoreError> {
        let (successful, failed) = sql(concat!(
            "SELECT ",
            total!("successful"),
            ", ",
            total!("failed"),
            " FROM tally WHERE day = $1"
        ))
        .bind(day.as_second())
        .fetch_one(self)
        .await?;
        Ok((count(successful), count(failed)))
    }

    /// Returns up to `most` failures of a day with their recipient domains, most frequent first.
    pub async fn tallied_failures(
        &self,
        day: Timestamp,
        most: u32,
    ) -> Result<Vec<(DomainName, FailureDetail)>, StoreError> {
        let query = format!(
            "SELECT tally.domain, {FAILURE_COLUMNS} FROM tally JOIN tally_failure ON tally_failure.tally = tally.key
             WHERE tally.day = $1 ORDER BY tally_failure.failed DESC, tally.domain LIMIT $2"
        );
        let rows = built(query).bind(day.as_second()).bind(most).fetch_all(self).await?;
        Ok(rows.into_iter().map(|OfDomain { domain, detail }| (domain, detail)).collect())
    }

    /// Returns the `_smtp._tls` record of a domain that the mail server last found on a day.
    pub async fn tallied_record(
        &self,
        day: Timestamp,
        domain: &DomainName,
    ) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sql("SELECT record FROM tally_record WHERE day = $1 AND domain = $2")
            .bind(day.as_second())
            .bind(domain.as_str())
            .fetch_optional(self)
            .await?;
        Ok(row.map(|(record,)| record))
    }

    /// Returns the days before `day` that have counts but not all of their reports yet.
    pub async fn unreported_days(&self, day: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        // Steps from day to day by the index: a day can have a million rows, and this query runs often.
        let days: Vec<(i64,)> = sql(
            "WITH RECURSIVE each_day (day) AS (
               SELECT MIN(day) FROM tally
               UNION ALL SELECT (SELECT MIN(day) FROM tally WHERE tally.day > each_day.day) FROM each_day WHERE each_day.day IS NOT NULL
             ) SELECT day FROM each_day WHERE day < $1 AND day NOT IN (SELECT day FROM reported_day WHERE is_built = 1) ORDER BY day",
        )
        .bind(day.as_second())
        .fetch_all(self)
        .await?;
        days.into_iter().map(|(day,)| time("tally", day)).collect()
    }

    /// Deletes all counts, records and testing probes of days before `before`, and the identifiers of batches that were
    /// received before that.
    pub async fn delete_tallies(&self, before: Timestamp) -> Result<(), StoreError> {
        for table in ["tally", "tally_record"] {
            let sql = format!("DELETE FROM {table} WHERE day < $1");
            built(sql).bind(before.as_second()).execute(self).await?;
        }
        let probes = sql("DELETE FROM testing_probe WHERE tenant = $1 AND day < $2");
        probes.bind(self.tenant).bind(before.as_second()).execute(self).await?;
        self.delete_batches(before).await
    }
}

/// Adds counts to the days that are open, and returns the closed ones. The caller has locked [`Counter::ClosedDays`].
pub(crate) async fn add_open(
    writing: &mut Writing,
    days: &BTreeMap<Timestamp, DayTally>,
) -> Result<Vec<Timestamp>, StoreError> {
    let mut closed = Vec::new();
    for (day, tally) in days {
        match is_closed(writing, *day).await? {
            true => closed.push(*day),
            false => adding::add(writing, *day, tally).await?,
        }
    }
    Ok(closed)
}

async fn is_closed(writing: &mut Writing, day: Timestamp) -> Result<bool, StoreError> {
    let found: Option<(i64,)> = sql("SELECT day FROM reported_day WHERE day = $1")
        .bind(day.as_second())
        .fetch_optional(writing)
        .await?;
    Ok(found.is_some())
}

/// An entry without its failures.
struct StoredEntry {
    key: Key,
    domain: DomainName,
    entry: PolicyReport,
}

impl FromRow for StoredEntry {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let list = |text: String| serde_json::from_str::<Vec<String>>(&text).map_err(damaged("tally"));
        Ok(Self {
            key: row.get()?,
            domain: name(row)?,
            entry: PolicyReport {
                policy_type: PolicyType::parse(&row.get::<String>()?),
                policy_string: list(row.get()?)?,
                policy_domain: Some(name(row)?),
                mx_host: list(row.get()?)?,
                successful: count(row.get()?),
                failed: count(row.get()?),
                details: Vec::new(),
            },
        })
    }
}

/// A failure with the key of its tally.
struct OfTally {
    tally: Key,
    detail: FailureDetail,
}

impl FromRow for OfTally {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self { tally: row.get()?, detail: failure(row)? })
    }
}

/// A failure with its recipient domain.
struct OfDomain {
    domain: DomainName,
    detail: FailureDetail,
}

impl FromRow for OfDomain {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self { domain: name(row)?, detail: failure(row)? })
    }
}

fn name(row: &mut Row<'_>) -> Result<DomainName, StoreError> {
    DomainName::parse(&row.get::<String>()?).map_err(damaged("tally"))
}

const FAILURE_COLUMNS: &str =
    "tally_failure.result_type, tally_failure.sending_mta_ip, tally_failure.receiving_mx_hostname,
    tally_failure.receiving_mx_helo, tally_failure.receiving_ip, tally_failure.failed,
    tally_failure.additional_information, tally_failure.failure_reason_code";

/// Reads the [`FAILURE_COLUMNS`].
fn failure(row: &mut Row<'_>) -> Result<FailureDetail, StoreError> {
    let text =
        |row: &mut Row<'_>| Ok::<_, StoreError>(Some(row.get::<String>()?).filter(|text| !text.is_empty()));
    let address = |row: &mut Row<'_>| Ok::<_, StoreError>(row.get::<String>()?.parse().ok());
    Ok(FailureDetail {
        result_type: ResultType::parse(&row.get::<String>()?),
        sending_mta_ip: address(row)?,
        receiving_mx_hostname: text(row)?,
        receiving_mx_helo: text(row)?,
        receiving_ip: address(row)?,
        failed_session_count: count(row.get()?),
        additional_information: text(row)?,
        failure_reason_code: text(row)?,
    })
}

#[cfg(test)]
mod tests;
