//! Session counts of the sending side per UTC day, by policy and failure (RFC 8460 §4). The collector adds the sessions
//! that mail servers report; the report scheduler builds the outgoing reports from them.

use crate::{Store, StoreError, count, damaged, stored, time};
use formats::limits::TALLY_FAILURES;
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;
use formats::{DomainName, ResultType};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

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
    /// Counts by policy.
    pub entries: Vec<PolicyReport>,
}

/// A row's primary key: the digest of the values that identify it.
type Key = Vec<u8>;

/// The maximum number of rows in one statement. A row has up to 10 parameters; SQLite allows 32,766 per statement.
const BATCH_ROWS: usize = 500;

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
        let mut transaction = self.writing().await?;
        let mut closed = Vec::new();
        for day in days.keys() {
            if is_closed(&mut transaction, *day).await? {
                closed.push(*day);
            }
        }
        if !closed.is_empty() {
            return Ok(closed);
        }
        for (day, tally) in days {
            let merged = merge(*day, tally)?;
            add_counts(&mut transaction, *day, &merged).await?;
            add_failures(&mut transaction, merged).await?;
            add_records(&mut transaction, *day, tally).await?;
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
        let last: Option<String> = sqlx::query_scalar(
            "SELECT MAX(domain) FROM (SELECT DISTINCT domain FROM tally
             WHERE day = $1 AND domain > $2 ORDER BY domain LIMIT $3)",
        )
        .bind(day.as_second())
        .bind(after)
        .bind(i64::from(most))
        .fetch_one(&self.pool)
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
            "SELECT tally.key AS tally, tally_failure.* FROM tally JOIN tally_failure ON tally_failure.tally = tally.key
             WHERE {bounds} ORDER BY tally_failure.failed DESC, tally_failure.result_type, tally_failure.key"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(day.as_second()).bind(after).bind(last);
        let mut failures: HashMap<Key, Vec<FailureDetail>> = HashMap::new();
        for row in query.fetch_all(&self.pool).await? {
            failures.entry(row.try_get("tally")?).or_default().push(failure(&row)?);
        }
        let sql = format!("SELECT * FROM tally WHERE {bounds} ORDER BY domain, policy_type, key");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(day.as_second()).bind(after).bind(last);
        let mut all: Vec<DomainTally> = Vec::new();
        for row in query.fetch_all(&self.pool).await? {
            let details = failures.remove(&row.try_get::<Key, _>("key")?).unwrap_or_default();
            let (domain, entry) = entry(&row, details)?;
            match all.last_mut().filter(|last| last.domain == domain) {
                Some(last) => last.entries.push(entry),
                None => all.push(DomainTally { domain, entries: vec![entry] }),
            }
        }
        Ok(all)
    }

    /// Returns the numbers of successful and of failed sessions of a day, over all domains.
    pub async fn tally_sums(&self, day: Timestamp) -> Result<(u64, u64), StoreError> {
        let (successful, failed): (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT SUM(successful), SUM(failed) FROM tally WHERE day = $1")
                .bind(day.as_second())
                .fetch_one(&self.pool)
                .await?;
        Ok((count(successful.unwrap_or(0)), count(failed.unwrap_or(0))))
    }

    /// Returns up to `most` failures of a day with their recipient domains, most frequent first.
    pub async fn tallied_failures(
        &self,
        day: Timestamp,
        most: u32,
    ) -> Result<Vec<(DomainName, FailureDetail)>, StoreError> {
        let rows = sqlx::query(
            "SELECT tally.domain AS domain, tally_failure.* FROM tally JOIN tally_failure ON tally_failure.tally = tally.key
             WHERE tally.day = $1 ORDER BY tally_failure.failed DESC, tally.domain LIMIT $2",
        )
        .bind(day.as_second())
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        let name = |row: &SqliteRow| DomainName::parse(row.try_get("domain")?).map_err(damaged("tally"));
        rows.iter().map(|row| Ok((name(row)?, failure(row)?))).collect()
    }

    /// Returns the `_smtp._tls` record of a domain that the mail server last found on a day.
    pub async fn tallied_record(
        &self,
        day: Timestamp,
        domain: &DomainName,
    ) -> Result<Option<String>, StoreError> {
        let record = sqlx::query_scalar("SELECT record FROM tally_record WHERE day = $1 AND domain = $2")
            .bind(day.as_second())
            .bind(domain.as_str())
            .fetch_optional(&self.pool)
            .await?;
        Ok(record)
    }

    /// Returns the days before `day` that have counts but not all of their reports yet.
    pub async fn unreported_days(&self, day: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        // Steps from day to day by the index: a day can have a million rows, and this query runs often.
        let days: Vec<i64> = sqlx::query_scalar(
            "WITH RECURSIVE each_day (day) AS (
               SELECT MIN(day) FROM tally
               UNION ALL SELECT (SELECT MIN(day) FROM tally WHERE tally.day > each_day.day) FROM each_day WHERE each_day.day IS NOT NULL
             ) SELECT day FROM each_day WHERE day < $1 AND day NOT IN (SELECT day FROM reported_day WHERE is_built = 1) ORDER BY day",
        )
        .bind(day.as_second())
        .fetch_all(&self.pool)
        .await?;
        days.into_iter().map(|day| time("tally", day)).collect()
    }

    /// Deletes all counts, records and testing probes of days before `before`.
    pub async fn delete_tallies(&self, before: Timestamp) -> Result<(), StoreError> {
        for table in ["tally", "tally_record", "tested"] {
            let sql = format!("DELETE FROM {table} WHERE day < $1");
            sqlx::query(sqlx::AssertSqlSafe(sql)).bind(before.as_second()).execute(&self.pool).await?;
        }
        Ok(())
    }
}

/// The sum of all entries for one policy, recipient domain and day.
struct Merged {
    domain: DomainName,
    entry: PolicyReport,
    policy_string: String,
    mx_host: String,
    failures: BTreeMap<Key, FailureDetail>,
}

impl Merged {
    fn policy_domain(&self) -> &DomainName {
        self.entry.policy_domain.as_ref().unwrap_or(&self.domain)
    }
}

fn merge(day: Timestamp, tally: &DayTally) -> Result<BTreeMap<Key, Merged>, StoreError> {
    let list = |texts: &[String]| serde_json::to_string(texts).map_err(damaged("tally"));
    let day = day.as_second().to_string();
    let mut all: BTreeMap<Key, Merged> = BTreeMap::new();
    for (domain, entry) in
        tally.iter().flat_map(|(domain, added)| added.entries.iter().map(move |entry| (domain, entry)))
    {
        let new = Merged {
            domain: domain.clone(),
            entry: PolicyReport { successful: 0, failed: 0, details: Vec::new(), ..entry.clone() },
            policy_string: list(&entry.policy_string)?,
            mx_host: list(&entry.mx_host)?,
            failures: BTreeMap::new(),
        };
        let key = digest(&[
            &day,
            domain.as_str(),
            new.policy_domain().as_str(),
            entry.policy_type.as_str(),
            &new.policy_string,
            &new.mx_host,
        ]);
        let merged = all.entry(key).or_insert(new);
        merged.entry.successful = merged.entry.successful.saturating_add(entry.successful);
        merged.entry.failed = merged.entry.failed.saturating_add(entry.failed);
        for detail in &entry.details {
            add_detail(&mut merged.failures, detail.clone());
        }
    }
    Ok(all)
}

async fn is_closed(connection: &mut SqliteConnection, day: Timestamp) -> Result<bool, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT day FROM reported_day WHERE day = $1")
        .bind(day.as_second())
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

fn add_detail(failures: &mut BTreeMap<Key, FailureDetail>, detail: FailureDetail) {
    let count = detail.failed_session_count;
    let known = failures
        .entry(failure_key(&detail))
        .or_insert_with(|| FailureDetail { failed_session_count: 0, ..detail });
    known.failed_session_count = known.failed_session_count.saturating_add(count);
}

fn digest(parts: &[&str]) -> Key {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().iter().take(16).copied().collect()
}

fn failure_key(detail: &FailureDetail) -> Key {
    let texts = texts(detail);
    digest(&texts.each_ref().map(String::as_str))
}

/// The values that distinguish failures, in the order of the columns.
fn texts(detail: &FailureDetail) -> [String; 7] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let address = |address: Option<IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
    [
        detail.result_type.as_str().to_owned(),
        address(detail.sending_mta_ip),
        text(&detail.receiving_mx_hostname),
        text(&detail.receiving_mx_helo),
        address(detail.receiving_ip),
        text(&detail.additional_information),
        text(&detail.failure_reason_code),
    ]
}

/// Removes the details of a failure, so that it is summed with others of its result type.
fn summed_up(detail: FailureDetail) -> FailureDetail {
    FailureDetail {
        sending_mta_ip: None,
        receiving_mx_hostname: None,
        receiving_mx_helo: None,
        receiving_ip: None,
        additional_information: Some("further failures, summed up".to_owned()),
        failure_reason_code: None,
        ..detail
    }
}

async fn add_counts(
    connection: &mut SqliteConnection,
    day: Timestamp,
    merged: &BTreeMap<Key, Merged>,
) -> Result<(), StoreError> {
    let rows: Vec<_> = merged.iter().collect();
    for chunk in rows.chunks(BATCH_ROWS) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO tally (key, day, domain, policy_domain, policy_type, policy_string, mx_host, successful, failed) ",
        );
        sql.push_values(chunk, |mut row, (key, one)| {
            row.push_bind(key.as_slice())
                .push_bind(day.as_second())
                .push_bind(one.domain.as_str())
                .push_bind(one.policy_domain().as_str())
                .push_bind(one.entry.policy_type.as_str())
                .push_bind(one.policy_string.as_str())
                .push_bind(one.mx_host.as_str())
                .push_bind(stored(one.entry.successful))
                .push_bind(stored(one.entry.failed));
        });
        sql.push(
            " ON CONFLICT (key) DO UPDATE SET successful = tally.successful + excluded.successful, failed = tally.failed + excluded.failed",
        );
        sql.build().persistent(chunk.len() == BATCH_ROWS).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn add_failures(
    connection: &mut SqliteConnection,
    merged: BTreeMap<Key, Merged>,
) -> Result<(), StoreError> {
    let with: Vec<(Key, BTreeMap<Key, FailureDetail>)> = merged
        .into_iter()
        .filter(|(_, one)| !one.failures.is_empty())
        .map(|(key, one)| (key, one.failures))
        .collect();
    let mut rows: Vec<(Key, Key, FailureDetail)> = Vec::new();
    for chunk in with.chunks(BATCH_ROWS) {
        let known = failure_counts(connection, chunk).await?;
        for (tally, failures) in chunk {
            let room = TALLY_FAILURES.saturating_sub(known.get(tally).copied().unwrap_or(0));
            let mut kept = BTreeMap::new();
            for (at, (_, detail)) in failures.iter().enumerate() {
                let detail = detail.clone();
                add_detail(&mut kept, if at < room { detail } else { summed_up(detail) });
            }
            rows.extend(kept.into_iter().map(|(key, detail)| (tally.clone(), key, detail)));
        }
    }
    for chunk in rows.chunks(BATCH_ROWS) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "INSERT INTO tally_failure (tally, key, result_type, sending_mta_ip, receiving_mx_hostname, receiving_mx_helo,
             receiving_ip, additional_information, failure_reason_code, failed) ",
        );
        sql.push_values(chunk, |mut row, (tally, key, detail)| {
            row.push_bind(tally.as_slice()).push_bind(key.as_slice());
            for text in texts(detail) {
                row.push_bind(text);
            }
            row.push_bind(stored(detail.failed_session_count));
        });
        sql.push(" ON CONFLICT (tally, key) DO UPDATE SET failed = tally_failure.failed + excluded.failed");
        sql.build().persistent(chunk.len() == BATCH_ROWS).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Returns the number of distinct failures that are stored for each of these tallies.
async fn failure_counts(
    connection: &mut SqliteConnection,
    tallies: &[(Key, BTreeMap<Key, FailureDetail>)],
) -> Result<HashMap<Key, usize>, StoreError> {
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT tally, COUNT(*) FROM tally_failure WHERE tally IN (");
    let mut list = sql.separated(", ");
    for (key, _) in tallies {
        list.push_bind(key.as_slice());
    }
    sql.push(") GROUP BY tally");
    let rows: Vec<(Key, i64)> = sql.build_query_as().persistent(false).fetch_all(&mut *connection).await?;
    Ok(rows.into_iter().map(|(key, count)| (key, usize::try_from(count).unwrap_or(usize::MAX))).collect())
}

async fn add_records(
    connection: &mut SqliteConnection,
    day: Timestamp,
    tally: &DayTally,
) -> Result<(), StoreError> {
    let rows: Vec<(&DomainName, &String)> =
        tally.iter().filter_map(|(domain, added)| Some((domain, added.record.as_ref()?))).collect();
    for chunk in rows.chunks(BATCH_ROWS) {
        let mut sql = QueryBuilder::<Sqlite>::new("INSERT INTO tally_record (day, domain, record) ");
        sql.push_values(chunk, |mut row, (domain, record)| {
            row.push_bind(day.as_second()).push_bind(domain.as_str()).push_bind(record.as_str());
        });
        sql.push(
            " ON CONFLICT (day, domain) DO UPDATE SET record = excluded.record WHERE tally_record.record <> excluded.record",
        );
        sql.build().persistent(chunk.len() == BATCH_ROWS).execute(&mut *connection).await?;
    }
    Ok(())
}

fn entry(row: &SqliteRow, details: Vec<FailureDetail>) -> Result<(DomainName, PolicyReport), StoreError> {
    let list = |text: String| serde_json::from_str::<Vec<String>>(&text).map_err(damaged("tally"));
    let name = |column| DomainName::parse(row.try_get(column)?).map_err(damaged("tally"));
    let domain = name("domain")?;
    let entry = PolicyReport {
        policy_type: PolicyType::parse(row.try_get("policy_type")?),
        policy_string: list(row.try_get("policy_string")?)?,
        policy_domain: Some(name("policy_domain")?),
        mx_host: list(row.try_get("mx_host")?)?,
        successful: count(row.try_get("successful")?),
        failed: count(row.try_get("failed")?),
        details,
    };
    Ok((domain, entry))
}

fn failure(row: &SqliteRow) -> Result<FailureDetail, StoreError> {
    let text = |column: &str| {
        row.try_get::<String, _>(column).map(|text| Some(text).filter(|text| !text.is_empty()))
    };
    let address = |column: &str| Ok::<_, sqlx::Error>(text(column)?.and_then(|text| text.parse().ok()));
    Ok(FailureDetail {
        result_type: ResultType::parse(row.try_get("result_type")?),
        sending_mta_ip: address("sending_mta_ip")?,
        receiving_mx_hostname: text("receiving_mx_hostname")?,
        receiving_mx_helo: text("receiving_mx_helo")?,
        receiving_ip: address("receiving_ip")?,
        failed_session_count: count(row.try_get("failed")?),
        additional_information: text("additional_information")?,
        failure_reason_code: text("failure_reason_code")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(domain: &str, successful: u64, failures: &[(&str, u64)]) -> PolicyReport {
        let details = failures
            .iter()
            .map(|(kind, count)| FailureDetail {
                result_type: ResultType::parse(kind),
                sending_mta_ip: None,
                receiving_mx_hostname: Some("mx1".into()),
                receiving_mx_helo: None,
                receiving_ip: "192.0.2.1".parse().ok(),
                failed_session_count: *count,
                additional_information: None,
                failure_reason_code: None,
            })
            .collect();
        PolicyReport {
            policy_type: PolicyType::Sts,
            policy_string: vec!["version: STSv1".into()],
            policy_domain: DomainName::parse(domain).ok(),
            mx_host: vec!["mx1".into()],
            successful,
            failed: failures.iter().map(|(_, count)| count).sum(),
            details,
        }
    }

    #[tokio::test]
    async fn counts_of_a_day_are_summed_by_policy_and_failure() {
        let (_dir, store) = crate::scratch().await;
        let day = Timestamp::from_second(86_400).unwrap();
        store
            .add_to_tally(
                day,
                &[entry("a.example", 2, &[("certificate-expired", 1)]), entry("b.example", 1, &[])],
            )
            .await
            .unwrap();
        store
            .add_to_tally(
                day,
                &[entry("a.example", 3, &[("certificate-expired", 4), ("validation-failure", 1)])],
            )
            .await
            .unwrap();
        store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 9, &[])]).await.unwrap();
        let tally = store.tally(day).await.unwrap();
        assert_eq!(
            tally.into_iter().flat_map(|tally| tally.entries).collect::<Vec<_>>(),
            [
                entry("a.example", 5, &[("certificate-expired", 5), ("validation-failure", 1)]),
                entry("b.example", 1, &[])
            ]
        );
    }

    #[tokio::test]
    async fn a_batch_is_added_completely_or_not_at_all() {
        let (_dir, store) = crate::scratch().await;
        let mut broken = entry("b.example", 1, &[]);
        broken.policy_domain = None;
        assert!(
            store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 1, &[]), broken]).await.is_err()
        );
        assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap(), []);
    }

    #[tokio::test]
    async fn too_many_distinct_failures_are_summed_and_none_is_lost() {
        let (_dir, store) = crate::scratch().await;
        let many = |from: usize, to: usize| {
            let mut entry = entry("a.example", 0, &[("validation-failure", 1)]);
            let detail = entry.details.remove(0);
            entry.failed = (to - from) as u64;
            entry.details = (from..to)
                .map(|n| FailureDetail { receiving_mx_helo: Some(format!("h{n}")), ..detail.clone() })
                .collect();
            entry
        };
        let day = Timestamp::UNIX_EPOCH;
        store.add_to_tally(day, &[many(0, TALLY_FAILURES - 10)]).await.unwrap();
        store.add_to_tally(day, &[many(TALLY_FAILURES - 10, TALLY_FAILURES + 500)]).await.unwrap();
        store.add_to_tally(day, &[many(TALLY_FAILURES + 500, TALLY_FAILURES + 700)]).await.unwrap();
        let tally = store.tally(day).await.unwrap();
        let tally = &tally[0].entries;
        let details = &tally[0].details;
        assert_eq!(details.len(), TALLY_FAILURES + 1);
        assert_eq!(details.iter().map(|d| d.failed_session_count).sum::<u64>(), tally[0].failed);
        assert_eq!(details[0].failed_session_count, 700);
        assert_eq!(details[0].additional_information.as_deref(), Some("further failures, summed up"));
    }

    #[tokio::test]
    async fn domains_are_read_in_pages_or_alone_and_old_days_are_deleted() {
        let (_dir, store) = crate::scratch().await;
        let day = Timestamp::from_second(86_400).unwrap();
        let names = ["a.example", "aa.example", "b.example", "b.examples", "c.example"];
        let added = |name: &str| TallyIncrement {
            entries: vec![entry(name, 1, &[("certificate-expired", 1)])],
            record: Some(format!("record of {name}")),
        };
        let tally: DayTally =
            names.iter().map(|name| (DomainName::parse(name).unwrap(), added(name))).collect();
        store.add_tallies(&BTreeMap::from([(day, tally)])).await.unwrap();
        let (mut after, mut seen) = (String::new(), Vec::new());
        loop {
            let some = store.tally_after(day, &after, 2).await.unwrap();
            let Some(last) = some.last() else { break };
            after = last.domain.to_string();
            seen.extend(some.into_iter().map(|tally| tally.domain.to_string()));
        }
        assert_eq!(seen, names);
        for name in names {
            let name = DomainName::parse(name).unwrap();
            let alone = store.tally_of(day, &name).await.unwrap();
            assert_eq!(alone.len(), 1, "{name}");
            assert_eq!(alone[0].policy_domain.as_ref(), Some(&name));
            let record = store.tallied_record(day, &name).await.unwrap();
            assert_eq!(record, Some(format!("record of {name}")));
        }
        assert_eq!(store.tally_sums(day).await.unwrap(), (5, 5));
        let next = Timestamp::from_second(2 * 86_400).unwrap();
        assert_eq!(store.unreported_days(next).await.unwrap(), [day]);
        assert_eq!(store.unreported_days(day).await.unwrap(), []);
        store.delete_tallies(next).await.unwrap();
        assert_eq!(store.tally(day).await.unwrap(), []);
        let kinds: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM tally_failure").fetch_one(&store.pool).await.unwrap();
        assert_eq!(kinds, 0);
    }

    #[tokio::test]
    async fn a_dane_policy_belongs_to_an_mx_host_and_is_reported_to_the_recipient_domain() {
        let (_dir, store) = crate::scratch().await;
        let mut dane = entry("mx.host.example", 1, &[]);
        dane.policy_type = PolicyType::Tlsa;
        let domain = DomainName::parse("a.example").unwrap();
        let added = TallyIncrement { entries: vec![dane.clone(), entry("a.example", 2, &[])], record: None };
        let days = BTreeMap::from([(Timestamp::UNIX_EPOCH, DayTally::from([(domain.clone(), added)]))]);
        assert_eq!(store.add_tallies(&days).await.unwrap(), []);
        let tally = store.tally(Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!((tally.len(), &tally[0].domain, tally[0].entries.len()), (1, &domain, 2));
        assert!(tally[0].entries.contains(&dane));
        store.close_day(Timestamp::UNIX_EPOCH, false).await.unwrap();
        assert_eq!(store.add_tallies(&days).await.unwrap(), [Timestamp::UNIX_EPOCH]);
        assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap(), tally);
    }

    #[tokio::test]
    async fn rpt_23_separate_policies_of_a_domain_stay_separate_entries() {
        let (_dir, store) = crate::scratch().await;
        let mut changed = entry("a.example", 1, &[]);
        changed.policy_string = vec!["version: STSv1".into(), "mode: none".into()];
        store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 1, &[]), changed]).await.unwrap();
        assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap()[0].entries.len(), 2);
    }
}
