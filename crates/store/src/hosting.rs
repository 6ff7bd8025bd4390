//! The state of the policy host (RFC 8461 §3.3): the policies that it serves, their certificates (`certificates`), and what
//! ACME needs to order these (`acme`). Rollouts and certificate orders write it; the HTTPS server reads it.
//!
//! Every change of a policy or certificate gets a new, higher version, so that a server can load only what changed.

mod acme;
mod certificates;

pub use certificates::{CertificateEnd, Due, LONGEST_ASK, LONGEST_RETRY, StoredCertificate};

use crate::query::sql;
use crate::writing::Counter;
use crate::{Store, StoreError, count, damaged};
use formats::DomainName;
use jiff::Timestamp;

/// What a policy host serves, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostedCounts {
    /// Policies that are served.
    pub policies: u64,
    /// Certificates that were not issued yet, and whose order has not failed.
    pub missing: u64,
    /// Certificates that were not issued yet, and whose last order failed.
    pub failing: u64,
    /// Valid certificates whose last order succeeded.
    pub valid: u64,
    /// Valid certificates whose renewal failed.
    pub retrying: u64,
    /// Certificates that have expired.
    pub expired: u64,
}

impl Store {
    /// Replaces the served policy of a domain. With `None`, the domain is no longer served.
    pub async fn put_hosted(&self, domain: &DomainName, policy: Option<&str>) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        let version = transaction.increase(Counter::Hosted, 1).await?;
        sql("INSERT INTO hosted (domain, policy, version) VALUES ($1, $2, $3) \
             ON CONFLICT (domain) DO UPDATE SET policy = excluded.policy, version = excluded.version")
        .bind(domain.as_str())
        .bind(policy.unwrap_or_default())
        .bind(version)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns the policy file that is served for a domain, or `None` if none is.
    pub async fn hosted(&self, domain: &DomainName) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sql("SELECT policy FROM hosted WHERE domain = $1")
            .bind(domain.as_str())
            .fetch_optional(self)
            .await?;
        Ok(row.map(|(policy,)| policy).filter(|policy| !policy.is_empty()))
    }

    /// Returns the highest versions of policies and of certificates; 0 if there are none.
    pub async fn hosting_versions(&self) -> Result<(i64, i64), StoreError> {
        Ok((self.counter(Counter::Hosted).await?, self.counter(Counter::Certificate).await?))
    }

    /// Returns up to `most` domains whose policy changed after `version`, with their versions, oldest change first.
    pub async fn hosted_after(&self, version: i64, most: u32) -> Result<Vec<(DomainName, i64)>, StoreError> {
        let query = "SELECT domain, version FROM hosted WHERE version > $1 ORDER BY version LIMIT $2";
        self.changes(query, version, most).await
    }

    async fn changes(
        &self,
        query: &'static str,
        version: i64,
        most: u32,
    ) -> Result<Vec<(DomainName, i64)>, StoreError> {
        let rows: Vec<(String, i64)> = sql(query).bind(version).bind(i64::from(most)).fetch_all(self).await?;
        let parsed = |(name, version): (String, i64)| {
            Ok((DomainName::parse(&name).map_err(damaged("hosting"))?, version))
        };
        rows.into_iter().map(parsed).collect()
    }

    /// Counts the policies that are served, and the certificates by state at the time `now`.
    pub async fn count_hosted(&self, now: Timestamp) -> Result<HostedCounts, StoreError> {
        let (policies,): (i64,) =
            sql("SELECT COUNT(*) FROM hosted WHERE policy <> ''").fetch_one(self).await?;
        let rows: Vec<(i64, i64, i64, i64)> = sql("SELECT CAST(chain = '' AS INTEGER), \
             CAST(expires_at <= $1 AS INTEGER), CAST(failures > 0 AS INTEGER), COUNT(*) \
             FROM certificate GROUP BY 1, 2, 3")
        .bind(now.as_second())
        .fetch_all(self)
        .await?;
        let mut counts = HostedCounts { policies: count(policies), ..HostedCounts::default() };
        for (is_missing, has_expired, has_failed, rows) in rows {
            let counted = match (is_missing != 0, has_expired != 0, has_failed != 0) {
                (true, _, false) => &mut counts.missing,
                (true, _, true) => &mut counts.failing,
                (false, true, _) => &mut counts.expired,
                (false, false, false) => &mut counts.valid,
                (false, false, true) => &mut counts.retrying,
            };
            *counted += count(rows);
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[tokio::test]
    async fn changes_are_found_by_their_version() {
        let (_dir, store) = crate::scratch().await;
        store.put_hosted(&domain("a.example"), Some("A")).await.unwrap();
        store.put_hosted(&domain("b.example"), Some("B")).await.unwrap();
        store.put_hosted(&domain("a.example"), None).await.unwrap();
        let changed = store.hosted_after(0, 10).await.unwrap();
        assert_eq!(changed, [(domain("b.example"), 2), (domain("a.example"), 3)]);
        assert_eq!(store.hosted(&domain("b.example")).await.unwrap().as_deref(), Some("B"));
        assert_eq!(store.hosted(&domain("a.example")).await.unwrap(), None);
        assert_eq!(store.hosted_after(3, 10).await.unwrap(), []);
    }
}
