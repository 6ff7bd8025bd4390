//! Policies that the sending side has fetched (RFC 8461 §3.3).

use crate::{Store, StoreError, damaged, time};
use formats::{DomainName, PolicyId};
use jiff::Timestamp;
use sqlx::Row;

/// A policy as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Whose policy.
    pub domain: DomainName,
    /// The `id` under which it was fetched.
    pub record_id: PolicyId,
    /// The file.
    pub body: String,
    /// When.
    pub fetched_at: Timestamp,
    /// `fetched_at` and `max_age` (VAL-16).
    pub expires_at: Timestamp,
}

impl Store {
    /// Keeps a policy in place of any earlier one of the domain (VAL-19).
    pub async fn put_policy(&self, policy: &StoredPolicy) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO policy (domain, record_id, body, fetched_at, expires_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (domain) DO UPDATE SET record_id = excluded.record_id, body = excluded.body,
             fetched_at = excluded.fetched_at, expires_at = excluded.expires_at",
        )
        .bind(policy.domain.as_str())
        .bind(policy.record_id.as_str())
        .bind(&policy.body)
        .bind(policy.fetched_at.as_second())
        .bind(policy.expires_at.as_second())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The policy of a domain, expired or not.
    pub async fn policy(&self, domain: &DomainName) -> Result<Option<StoredPolicy>, StoreError> {
        let row = sqlx::query("SELECT record_id, body, fetched_at, expires_at FROM policy WHERE domain = $1")
            .bind(domain.as_str())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(StoredPolicy {
            domain: domain.clone(),
            record_id: PolicyId::parse(row.try_get("record_id")?).map_err(damaged("policy"))?,
            body: row.try_get("body")?,
            fetched_at: time("policy", row.try_get("fetched_at")?)?,
            expires_at: time("policy", row.try_get("expires_at")?)?,
        }))
    }

    /// Forgets policies that had expired by `now`; says how many.
    pub async fn forget_expired_policies(&self, now: Timestamp) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM policy WHERE expires_at <= $1")
            .bind(now.as_second())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn val_28_a_restart_loses_no_policy() {
        let (dir, store) = crate::scratch().await;
        let at = |second| Timestamp::from_second(second).unwrap();
        let domain = DomainName::parse("example.org").unwrap();
        let mut policy = StoredPolicy {
            domain: domain.clone(),
            record_id: PolicyId::parse("1").unwrap(),
            body: "version: STSv1\r\n".into(),
            fetched_at: at(100),
            expires_at: at(200),
        };
        store.put_policy(&policy).await.unwrap();
        policy.record_id = PolicyId::parse("2").unwrap();
        store.put_policy(&policy).await.unwrap();
        store.close().await;
        let again = Store::open(&dir.path().join("s.db")).await.unwrap();
        assert_eq!(again.policy(&domain).await.unwrap(), Some(policy));
        assert_eq!(again.forget_expired_policies(at(199)).await.unwrap(), 0);
        assert_eq!(again.forget_expired_policies(at(200)).await.unwrap(), 1);
        assert_eq!(again.policy(&domain).await.unwrap(), None);
    }
}
