//! Policies that the sending side has fetched (RFC 8461 §3.3).

use crate::{Store, StoreError, damaged, time};
use formats::{DomainName, Mode, PolicyId};
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::HashMap;

/// A policy as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Whose policy.
    pub domain: DomainName,
    /// The `id` under which it was fetched.
    pub record_id: PolicyId,
    /// The file.
    pub body: String,
    /// Its mode.
    pub mode: Mode,
    /// When it was fetched.
    pub fetched_at: Timestamp,
    /// `fetched_at` and `max_age` (VAL-16).
    pub expires_at: Timestamp,
    /// When it is to be looked for again (POL-13).
    pub refresh_at: Timestamp,
    /// What DANE was last seen to say of the domain's hosts, in the sender's words; empty when that
    /// is not known.
    pub dane: String,
    /// When it was last known to be in use; [`Store::put_policies`] leaves it as it is where the domain is known.
    pub used_at: Timestamp,
}

/// Live policies by mode, and the one that has waited longest for its refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyCounts {
    /// In `enforce`.
    pub enforce: u64,
    /// In `testing`.
    pub testing: u64,
    /// In `none`.
    pub none: u64,
    /// The earliest `refresh_at`.
    pub oldest_refresh: Option<Timestamp>,
}

/// Policies in one statement.
const BATCH_ROWS: usize = 64;

const COLUMNS: &str = "domain, record_id, body, mode, fetched_at, expires_at, refresh_at, dane, used_at";

impl Store {
    /// Keeps policies in place of any earlier ones of their domains (VAL-19), all or none; of several of one domain the
    /// last counts.
    pub async fn put_policies(&self, policies: &[StoredPolicy]) -> Result<(), StoreError> {
        let last: HashMap<&DomainName, &StoredPolicy> =
            policies.iter().map(|policy| (&policy.domain, policy)).collect();
        let last: Vec<&StoredPolicy> = last.into_values().collect();
        let mut all = self.writing().await?;
        for some in last.chunks(BATCH_ROWS) {
            let mut sql = QueryBuilder::<Sqlite>::new(format!("INSERT INTO policy ({COLUMNS}) "));
            sql.push_values(some, |mut row, policy| {
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
            sql.build().persistent(some.len() == 1 || some.len() == BATCH_ROWS).execute(&mut *all).await?;
        }
        all.commit().await
    }

    /// The policies of these domains that there are, expired or not, in no order.
    pub async fn policies_of(&self, domains: &[DomainName]) -> Result<Vec<StoredPolicy>, StoreError> {
        let mut all = Vec::new();
        for some in domains.chunks(BATCH_ROWS) {
            let mut sql =
                QueryBuilder::<Sqlite>::new(format!("SELECT {COLUMNS} FROM policy WHERE domain IN ("));
            let mut names = sql.separated(", ");
            for domain in some {
                names.push_bind(domain.as_str());
            }
            sql.push(")");
            let rows = sql.build().persistent(false).fetch_all(&self.pool).await?;
            all.extend(rows.iter().map(policy).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(all)
    }

    /// The policy of a domain, expired or not.
    pub async fn policy(&self, domain: &DomainName) -> Result<Option<StoredPolicy>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM policy WHERE domain = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(domain.as_str()).fetch_optional(&self.pool);
        row.await?.as_ref().map(policy).transpose()
    }

    /// Up to `most` policies in the order of their domains, those after `after`.
    pub async fn policies_after(&self, after: &str, most: u32) -> Result<Vec<StoredPolicy>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM policy WHERE domain > $1 ORDER BY domain LIMIT $2");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(after).bind(i64::from(most));
        rows.fetch_all(&self.pool).await?.iter().map(policy).collect()
    }

    /// Domains whose live policy is due for a refresh at `now`, those in use lately first.
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

    /// Puts the next refresh of a policy to another time.
    pub async fn put_off_refresh(&self, domain: &DomainName, until: Timestamp) -> Result<(), StoreError> {
        sqlx::query("UPDATE policy SET refresh_at = $1 WHERE domain = $2")
            .bind(until.as_second())
            .bind(domain.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that a policy was in use, and what DANE says of its domain now.
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

    /// Forgets the policy of a domain; says whether there was one.
    pub async fn forget_policy(&self, domain: &DomainName) -> Result<bool, StoreError> {
        let done =
            sqlx::query("DELETE FROM policy WHERE domain = $1").bind(domain.as_str()).execute(&self.pool);
        Ok(done.await?.rows_affected() > 0)
    }

    /// Forgets policies that had expired by `now`; says how many.
    pub async fn forget_expired_policies(&self, now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM policy WHERE expires_at <= $1")
            .bind(now.as_second())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }

    /// Counts the policies that are live at `now`.
    pub async fn count_policies(&self, now: Timestamp) -> Result<PolicyCounts, StoreError> {
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
        assert_eq!(again.forget_expired_policies(at(199)).await.unwrap(), 0);
        assert_eq!(again.forget_expired_policies(at(200)).await.unwrap(), 1);
        assert_eq!(again.policy(&domain).await.unwrap(), None);
    }

    #[tokio::test]
    async fn many_are_written_and_read_at_once_and_of_one_domain_the_last_counts() {
        let (_dir, store) = crate::scratch().await;
        let mut all: Vec<StoredPolicy> =
            (0..200).map(|number| stored(&format!("d{number}.example"), number, 900)).collect();
        all.push(stored("d7.example", 777, 900));
        store.put_policies(&all).await.unwrap();
        let mut asked: Vec<DomainName> = all[..200].iter().map(|policy| policy.domain.clone()).collect();
        asked.push(DomainName::parse("unknown.example").unwrap());
        let found = store.policies_of(&asked).await.unwrap();
        assert_eq!(found.len(), 200);
        assert!(found.contains(&all[200]) && found.contains(&all[199]) && !found.contains(&all[7]));
    }

    #[tokio::test]
    async fn refreshes_are_due_in_their_order_those_in_use_first() {
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
        store.put_off_refresh(&all[1].domain, at(600)).await.unwrap();
        assert_eq!(store.policies_due(at(400), 10).await.unwrap(), [all[0].domain.clone()]);
        let counts = store.count_policies(at(400)).await.unwrap();
        assert_eq!((counts.enforce, counts.oldest_refresh), (3, Some(at(100))));
        assert_eq!(store.policies_after("b.example", 1).await.unwrap()[0].domain, all[2].domain);
        assert!(store.forget_policy(&all[0].domain).await.unwrap());
        assert!(!store.forget_policy(&all[0].domain).await.unwrap());
    }
}
