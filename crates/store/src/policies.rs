//! The cache of MTA-STS policies that the sending side has fetched (RFC 8461 §3.3). It survives restarts, since
//! losing a cached policy would allow a downgrade. The policy service writes and reads it; commands list it.

use crate::{Store, StoreError, damaged, time};
use formats::{DomainName, Mode, PolicyId};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::HashMap;

/// A cached policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// The policy domain.
    pub domain: DomainName,
    /// The `id` of the `_mta-sts` record at the time of the fetch.
    pub record_id: PolicyId,
    /// The text of the policy file.
    pub body: String,
    /// The policy's mode.
    pub mode: Mode,
    /// The time of the fetch.
    pub fetched_at: Timestamp,
    /// `fetched_at` plus `max_age` (VAL-16).
    pub expires_at: Timestamp,
    /// When the next refresh is due (POL-13).
    pub refresh_at: Timestamp,
    /// The last known DANE state of the domain's MX hosts, as the sending side serialized it; empty if unknown.
    pub dane: String,
    /// When the policy was last used for mail. [`Store::put_policies`] stores it for new domains only.
    pub used_at: Timestamp,
}

/// The numbers of unexpired policies by mode, and the earliest refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyCounts {
    /// Policies in mode `enforce`.
    pub enforce: u64,
    /// Policies in mode `testing`.
    pub testing: u64,
    /// Policies in mode `none`.
    pub none: u64,
    /// The earliest `refresh_at` of all stored policies, expired ones included. `None` if there are none.
    pub oldest_refresh: Option<Timestamp>,
}

/// The maximum number of policies in one statement.
const BATCH_ROWS: usize = 64;

const COLUMNS: &str = "domain, record_id, body, mode, fetched_at, expires_at, refresh_at, dane, used_at";

impl Store {
    /// Stores policies in one transaction. Each replaces the earlier policy of its domain (VAL-19). If `policies` has
    /// several for one domain, the last is stored.
    pub async fn put_policies(&self, policies: &[StoredPolicy]) -> Result<(), StoreError> {
        let last: HashMap<&DomainName, &StoredPolicy> =
            policies.iter().map(|policy| (&policy.domain, policy)).collect();
        let last: Vec<&StoredPolicy> = last.into_values().collect();
        let mut transaction = self.writing().await?;
        for batch in last.chunks(BATCH_ROWS) {
            let mut sql = QueryBuilder::<Sqlite>::new(format!("INSERT INTO policy ({COLUMNS}) "));
            sql.push_values(batch, |mut row, policy| {
                row.push_bind(policy.domain.as_str())
                    .push_bind(policy.record_id.as_str())
                    .push_bind(&policy.body)
                    .push_bind(policy.mode.as_str())
                    .push_bind(policy.fetched_at.as_second())
                    .push_bind(policy.expires_at.as_second())
                    .push_bind(policy.refresh_at.as_second())
                    .push_bind(&policy.dane)
                    .push_bind(policy.used_at.as_second());
            });
            sql.push(
                " ON CONFLICT (domain) DO UPDATE SET record_id = excluded.record_id, body = excluded.body,
                 mode = excluded.mode, fetched_at = excluded.fetched_at, expires_at = excluded.expires_at,
                 refresh_at = excluded.refresh_at, dane = excluded.dane",
            );
            let is_reused = batch.len() == 1 || batch.len() == BATCH_ROWS;
            sql.build().persistent(is_reused).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Returns the stored policies of these domains, expired or not, in no particular order.
    pub async fn policies_of(&self, domains: &[DomainName]) -> Result<Vec<StoredPolicy>, StoreError> {
        let mut all = Vec::new();
        for batch in domains.chunks(BATCH_ROWS) {
            let mut sql =
                QueryBuilder::<Sqlite>::new(format!("SELECT {COLUMNS} FROM policy WHERE domain IN ("));
            let mut names = sql.separated(", ");
            for domain in batch {
                names.push_bind(domain.as_str());
            }
            sql.push(")");
            let rows = sql.build().persistent(false).fetch_all(&self.pool).await?;
            all.extend(rows.iter().map(policy).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(all)
    }

    /// Returns the stored policy of a domain, expired or not.
    pub async fn policy(&self, domain: &DomainName) -> Result<Option<StoredPolicy>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM policy WHERE domain = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(domain.as_str()).fetch_optional(&self.pool);
        row.await?.as_ref().map(policy).transpose()
    }

    /// Returns up to `most` policies whose domains sort after `after`, in that order.
    pub async fn policies_after(&self, after: &str, most: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM policy WHERE domain > $1 ORDER BY domain LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after).bind(i64::from(most));
        rows.fetch_all(&self.pool).await?.iter().map(policy).collect()
    }

    /// Returns up to `most` domains whose policy is unexpired and due for a refresh at `now`, the last used first.
    pub async fn policies_due(&self, now: Timestamp, most: u32) -> Result<Vec<DomainName>, StoreError> {
        let rows = sqlx::query(
            "SELECT domain FROM policy WHERE refresh_at <= $1 AND expires_at > $1
             ORDER BY used_at DESC, refresh_at LIMIT $2",
        )
        .bind(now.as_second())
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(domain).collect()
    }

    /// Postpones the next refresh of a policy to `until`.
    pub async fn postpone_refresh(&self, domain: &DomainName, until: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE policy SET refresh_at = $1 WHERE domain = $2")
            .bind(until.as_second())
            .bind(domain.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Records that a policy was used at `at`, and the current DANE state of its domain.
    pub async fn policy_used(
        &self,
        domain: &DomainName,
        at: Timestamp,
        dane: &str,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE policy SET used_at = $1, dane = $2 WHERE domain = $3")
            .bind(at.as_second())
            .bind(dane)
            .bind(domain.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Deletes the policy of a domain. False if there is none.
    pub async fn delete_policy(&self, domain: &DomainName) -> Result<bool, StoreError> {
        let done =
            sqlx::query("DELETE FROM policy WHERE domain = $1").bind(domain.as_str()).execute(&self.pool);
        Ok(done.await?.rows_affected() > 0)
    }

    /// Deletes the policies that have expired by `now`. Returns their number.
    pub async fn delete_expired_policies(&self, now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM policy WHERE expires_at <= $1")
            .bind(now.as_second())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }

    /// Counts the policies that are unexpired at `now`.
    pub async fn count_policies(&self, now: Timestamp) -> Result<PolicyCounts, StoreError> {
        self.check_file()?;
        let rows =
            sqlx::query("SELECT mode, COUNT(*) AS number FROM policy WHERE expires_at > $1 GROUP BY mode")
                .bind(now.as_second())
                .fetch_all(&self.pool)
                .await?;
        let mut counts = PolicyCounts::default();
        for row in rows {
            let number = u64::try_from(row.try_get::<i64, _>("number")?).unwrap_or(0);
            match row.try_get("mode")? {
                "enforce" => counts.enforce = number,
                "testing" => counts.testing = number,
                _ => counts.none += number,
            }
        }
        let oldest: Option<i64> = sqlx::query("SELECT MIN(refresh_at) AS oldest FROM policy")
            .fetch_one(&self.pool)
            .await?
            .try_get("oldest")?;
        counts.oldest_refresh = oldest.map(|second| time("policy", second)).transpose()?;
        Ok(counts)
    }
}

fn domain(row: &SqliteRow) -> Result<DomainName, StoreError> {
    DomainName::parse(row.try_get("domain")?).map_err(damaged("policy"))
}

fn policy(row: &SqliteRow) -> Result<StoredPolicy, StoreError> {
    Ok(StoredPolicy {
        domain: domain(row)?,
        record_id: PolicyId::parse(row.try_get("record_id")?).map_err(damaged("policy"))?,
        body: row.try_get("body")?,
        mode: Mode::parse(row.try_get("mode")?).unwrap_or(Mode::None),
        fetched_at: time("policy", row.try_get("fetched_at")?)?,
        expires_at: time("policy", row.try_get("expires_at")?)?,
        refresh_at: time("policy", row.try_get("refresh_at")?)?,
        dane: row.try_get("dane")?,
        used_at: time("policy", row.try_get("used_at")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stored(name: &str, refresh: i64, expires: i64) -> StoredPolicy {
        StoredPolicy {
            domain: DomainName::parse(name).unwrap(),
            record_id: PolicyId::parse("1").unwrap(),
            body: "version: STSv1\r\n".into(),
            mode: Mode::Enforce,
            fetched_at: at(100),
            expires_at: at(expires),
            refresh_at: at(refresh),
            dane: String::new(),
            used_at: at(0),
        }
    }

    #[tokio::test]
    async fn val_28_a_restart_loses_no_policy() {
        let (dir, store) = crate::scratch().await;
        let mut policy = stored("example.org", 150, 200);
        let domain = policy.domain.clone();
        store.put_policies(std::slice::from_ref(&policy)).await.unwrap();
        policy.record_id = PolicyId::parse("2").unwrap();
        store.put_policies(std::slice::from_ref(&policy)).await.unwrap();
        store.close().await;
        let again = Store::open(&dir.path().join("s.db")).await.unwrap();
        assert_eq!(again.policy(&domain).await.unwrap(), Some(policy));
        assert_eq!(again.delete_expired_policies(at(199)).await.unwrap(), 0);
        assert_eq!(again.delete_expired_policies(at(200)).await.unwrap(), 1);
        assert_eq!(again.policy(&domain).await.unwrap(), None);
    }

    #[tokio::test]
    async fn policies_are_stored_in_batches_and_the_last_of_a_domain_wins() {
        let (_dir, store) = crate::scratch().await;
        let mut all: Vec<StoredPolicy> =
            (0..200).map(|number| stored(&format!("d{number}.example"), number, 900)).collect();
        all.push(stored("d7.example", 777, 900));
        store.put_policies(&all).await.unwrap();
        let mut wanted: Vec<DomainName> = all[..200].iter().map(|policy| policy.domain.clone()).collect();
        wanted.push(DomainName::parse("unknown.example").unwrap());
        let found = store.policies_of(&wanted).await.unwrap();
        assert_eq!(found.len(), 200);
        assert!(found.contains(&all[200]) && found.contains(&all[199]) && !found.contains(&all[7]));
    }

    #[tokio::test]
    async fn refreshes_are_due_in_order_the_last_used_first() {
        let (_dir, store) = crate::scratch().await;
        let all = [
            stored("a.example", 110, 900),
            stored("b.example", 120, 900),
            stored("c.example", 500, 900),
            stored("d.example", 100, 120),
        ];
        store.put_policies(&all).await.unwrap();
        store.policy_used(&all[1].domain, at(300), "x").await.unwrap();
        let due = store.policies_due(at(400), 10).await.unwrap();
        assert_eq!(due, [all[1].domain.clone(), all[0].domain.clone()]);
        assert_eq!(store.policies_due(at(400), 1).await.unwrap().len(), 1);
        store.postpone_refresh(&all[1].domain, at(600)).await.unwrap();
        assert_eq!(store.policies_due(at(400), 10).await.unwrap(), [all[0].domain.clone()]);
        let counts = store.count_policies(at(400)).await.unwrap();
        assert_eq!((counts.enforce, counts.oldest_refresh), (3, Some(at(100))));
        assert_eq!(store.policies_after("b.example", 1).await.unwrap()[0].domain, all[2].domain);
        assert!(store.delete_policy(&all[0].domain).await.unwrap());
        assert!(!store.delete_policy(&all[0].domain).await.unwrap());
    }
}
