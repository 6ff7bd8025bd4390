//! The policy that the last `sternpost check` of a domain found. The next check compares it with the published
//! policy, to find a file that changed under the same `id` (RFC 8461 §3.1).

use crate::query::sql;
use crate::{Store, StoreError, TENANT, damaged, time};
use formats::{DomainName, PolicyId};
use jiff::Timestamp;

/// A published policy, as a check found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedPolicy {
    /// The `id` of the `_mta-sts` record.
    pub id: PolicyId,
    /// The policy file, byte for byte.
    pub file: Vec<u8>,
    /// When a check first found this file under this `id`.
    pub at: Timestamp,
}

impl Store {
    /// Returns what the last check of a domain found. `None` if no check found a policy.
    pub async fn last_checked_policy(
        &self,
        domain: &DomainName,
    ) -> Result<Option<CheckedPolicy>, StoreError> {
        let row: Option<(String, Vec<u8>, i64)> =
            sql("SELECT policy_id, file, at FROM look WHERE tenant = $1 AND domain = $2")
                .bind(TENANT)
                .bind(domain.as_str())
                .fetch_optional(self)
                .await?;
        let Some((id, file, at)) = row else { return Ok(None) };
        let id = PolicyId::parse(&id).map_err(|fault| damaged("look")(fault.to_string()))?;
        Ok(Some(CheckedPolicy { id, file, at: time("look", at)? }))
    }

    /// Stores what a check found. If `id` and file are unchanged, the stored time is kept.
    pub async fn put_checked_policy(
        &self,
        domain: &DomainName,
        id: &PolicyId,
        file: &[u8],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        sql(
            "INSERT INTO look (tenant, domain, policy_id, file, at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant, domain) DO UPDATE SET policy_id = excluded.policy_id, file = excluded.file, at = excluded.at
             WHERE look.policy_id <> excluded.policy_id OR look.file <> excluded.file",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(id.as_str())
        .bind(file)
        .bind(at.as_second())
        .execute(self)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unchanged_policy_keeps_the_time_of_its_first_check() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("example.org").unwrap();
        let (one, two) = (PolicyId::parse("1").unwrap(), PolicyId::parse("2").unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(store.last_checked_policy(&domain).await.unwrap(), None);
        store.put_checked_policy(&domain, &one, b"a", at(10)).await.unwrap();
        store.put_checked_policy(&domain, &one, b"a", at(20)).await.unwrap();
        let first = CheckedPolicy { id: one, file: b"a".to_vec(), at: at(10) };
        assert_eq!(store.last_checked_policy(&domain).await.unwrap(), Some(first));
        store.put_checked_policy(&domain, &two, b"a", at(30)).await.unwrap();
        assert_eq!(store.last_checked_policy(&domain).await.unwrap().unwrap().at, at(30));
    }
}
