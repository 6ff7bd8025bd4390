//! What `sternpost check` found at a domain. The next check compares the policy with the published one, to find a file
//! that changed under the same `id` (RFC 8461 §3.1), and the MX hosts and certificates, to name former ones.

use crate::query::sql;
use crate::{Store, StoreError, damaged, time};
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

/// An MX host that a check saw, with the certificate that it presented then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedHost {
    /// The name in the MX record.
    pub host: DomainName,
    /// SHA-256 of the certificate in hexadecimal; empty where the check saw none.
    pub certificate: String,
    /// SHA-256 of the certificate's public key in hexadecimal; empty where the check saw none.
    pub public_key: String,
    /// When a check last saw the host with this certificate.
    pub at: Timestamp,
}

/// The most rows that are kept and read for a domain: those that were seen last.
const MOST_HOSTS: i64 = 100;

impl Store {
    /// Returns the MX hosts and certificates that earlier checks of a domain saw, the last first, at most 100.
    pub async fn checked_hosts(&self, domain: &DomainName) -> Result<Vec<CheckedHost>, StoreError> {
        let rows: Vec<(String, String, String, i64)> =
            sql("SELECT host, certificate, public_key, seen_at FROM seen_host
             WHERE tenant = $1 AND domain = $2 ORDER BY seen_at DESC, host, certificate LIMIT $3")
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(MOST_HOSTS)
            .fetch_all(self)
            .await?;
        let read = |(host, certificate, public_key, at): (String, String, String, i64)| {
            let host = DomainName::parse(&host).map_err(|error| damaged("seen_host")(error.to_string()))?;
            Ok(CheckedHost { host, certificate, public_key, at: time("seen_host", at)? })
        };
        rows.into_iter().map(read).collect()
    }

    /// Stores the MX hosts and certificates that a check saw. The time of each entry becomes that of this check. Of the
    /// entries of a domain, the 100 that were seen last are kept.
    pub async fn put_checked_hosts(
        &self,
        domain: &DomainName,
        hosts: &[CheckedHost],
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        for seen in hosts {
            sql("INSERT INTO seen_host (tenant, domain, host, certificate, public_key, seen_at) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (tenant, domain, host, certificate) DO UPDATE SET seen_at = excluded.seen_at")
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(seen.host.as_str())
            .bind(seen.certificate.as_str())
            .bind(seen.public_key.as_str())
            .bind(seen.at.as_second())
            .execute(&mut transaction)
            .await?;
        }
        let kept: Option<(i64,)> = sql("SELECT seen_at FROM seen_host WHERE tenant = $1 AND domain = $2
             ORDER BY seen_at DESC LIMIT 1 OFFSET $3")
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(MOST_HOSTS)
        .fetch_optional(&mut transaction)
        .await?;
        if let Some((oldest,)) = kept {
            sql("DELETE FROM seen_host WHERE tenant = $1 AND domain = $2 AND seen_at <= $3")
                .bind(self.tenant)
                .bind(domain.as_str())
                .bind(oldest)
                .execute(&mut transaction)
                .await?;
        }
        transaction.commit().await
    }

    /// Returns what the last check of a domain found. `None` if no check found a policy.
    pub async fn last_checked_policy(
        &self,
        domain: &DomainName,
    ) -> Result<Option<CheckedPolicy>, StoreError> {
        let row: Option<(String, Vec<u8>, i64)> =
            sql("SELECT policy_id, file, at FROM look WHERE tenant = $1 AND domain = $2")
                .bind(self.tenant)
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
        .bind(self.tenant)
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

    #[tokio::test]
    async fn hosts_are_kept_with_the_time_of_the_last_check_and_bounded() {
        let (_dir, store) = crate::scratch().await;
        let (domain, other) =
            (DomainName::parse("example.org").unwrap(), DomainName::parse("example.net").unwrap());
        let seen = |host: &str, certificate: &str, second| CheckedHost {
            host: DomainName::parse(host).unwrap(),
            certificate: certificate.to_owned(),
            public_key: format!("key of {certificate}"),
            at: Timestamp::from_second(second).unwrap(),
        };
        assert_eq!(store.checked_hosts(&domain).await.unwrap(), []);
        let first = [seen("mx1.example.org", "a", 10), seen("mx2.example.org", "", 10)];
        store.put_checked_hosts(&domain, &first).await.unwrap();
        store
            .put_checked_hosts(&domain, &[seen("mx1.example.org", "a", 20), seen("mx1.example.org", "b", 30)])
            .await
            .unwrap();
        let kept = store.checked_hosts(&domain).await.unwrap();
        assert_eq!(
            kept,
            [
                seen("mx1.example.org", "b", 30),
                seen("mx1.example.org", "a", 20),
                seen("mx2.example.org", "", 10)
            ]
        );
        assert_eq!(store.checked_hosts(&other).await.unwrap(), []);
        for second in 0..150 {
            let host = seen("mx1.example.org", &format!("c{second}"), 100 + second);
            store.put_checked_hosts(&domain, &[host]).await.unwrap();
        }
        let kept = store.checked_hosts(&domain).await.unwrap();
        assert_eq!((kept.len(), kept.last().unwrap().at), (100, Timestamp::from_second(150).unwrap()));
        store.put_domain(&domain, &1).await.unwrap();
        assert!(store.remove_domain(&domain).await.unwrap());
        assert_eq!(store.checked_hosts(&domain).await.unwrap(), []);
    }
}
