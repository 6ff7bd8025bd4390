//! Domains whose owners point their policy host here although it has no policy for them: customers who left, or who never signed
//! up. Senders that look for such a policy fail. The table is bounded, newest first.

use crate::query::sql;
use crate::{Store, StoreError, count, damaged, time};
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};

/// A domain that points here without a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// The mail domain.
    pub domain: DomainName,
    /// When its policy was requested first.
    pub first_at: Timestamp,
    /// When it was requested last.
    pub last_at: Timestamp,
    /// The connections that were refused.
    pub requests: u64,
}

const TABLE: &str = "stranger";
/// The maximum number of domains that are stored.
const MAX_STRANGERS: i64 = 10_000;
/// How long a domain is kept after the last request.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);

impl Store {
    /// Adds refused connections of domains, and deletes the domains that nobody has requested for 90 days and the oldest beyond
    /// 10,000.
    pub async fn add_strangers(&self, found: &[(DomainName, u64)], now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        for (domain, requests) in found {
            sql("INSERT INTO stranger (domain, first_at, last_at, requests) VALUES ($1, $2, $2, $3)
                 ON CONFLICT (domain) DO UPDATE
                 SET last_at = excluded.last_at, requests = stranger.requests + excluded.requests")
            .bind(domain.as_str())
            .bind(now.as_second())
            .bind(i64::try_from(*requests).unwrap_or(i64::MAX).min(1 << 32))
            .execute(&mut transaction)
            .await?;
        }
        sql("DELETE FROM stranger WHERE last_at < $1")
            .bind(now.as_second().saturating_sub(KEPT.as_secs()))
            .execute(&mut transaction)
            .await?;
        sql("DELETE FROM stranger WHERE domain IN
               (SELECT domain FROM stranger ORDER BY last_at DESC, domain DESC LIMIT 10000 OFFSET $1)")
        .bind(MAX_STRANGERS)
        .execute(&mut transaction)
        .await?;
        transaction.commit().await
    }

    /// Returns the domains that have no policy here now, those that were requested last first.
    pub async fn strangers(&self, limit: u32) -> Result<Vec<Stranger>, StoreError> {
        let rows: Vec<(String, i64, i64, i64)> =
            sql("SELECT domain, first_at, last_at, requests FROM stranger
             WHERE NOT EXISTS (SELECT 1 FROM hosted WHERE hosted.domain = stranger.domain AND policy <> '')
             ORDER BY last_at DESC, domain LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(self)
            .await?;
        rows.into_iter()
            .map(|(domain, first, last, requests)| {
                Ok(Stranger {
                    domain: DomainName::parse(&domain).map_err(damaged(TABLE))?,
                    first_at: time(TABLE, first)?,
                    last_at: time(TABLE, last)?,
                    requests: count(requests),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_added_and_domains_end_after_90_days() {
        let (_scratch, store) = crate::scratch::scratch().await;
        let name = |text: &str| DomainName::parse(text).unwrap();
        let day = |day: i64| Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap();
        store.add_strangers(&[(name("a.example"), 2), (name("b.example"), u64::MAX)], day(0)).await.unwrap();
        store.add_strangers(&[(name("a.example"), 3)], day(60)).await.unwrap();
        let all = store.strangers(9).await.unwrap();
        let a = Stranger { domain: name("a.example"), first_at: day(0), last_at: day(60), requests: 5 };
        assert_eq!(all[0], a);
        assert_eq!((all[1].domain.as_str(), all[1].requests), ("b.example", 1 << 32));
        assert_eq!(store.strangers(1).await.unwrap(), std::slice::from_ref(&a));
        store.add_strangers(&[], day(91)).await.unwrap();
        assert_eq!(store.strangers(9).await.unwrap(), [a]);
    }

    #[tokio::test]
    async fn a_domain_with_a_policy_is_no_stranger() {
        let (_scratch, store) = crate::scratch::scratch().await;
        let name = DomainName::parse("a.example").unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        store.add_strangers(&[(name.clone(), 1)], now).await.unwrap();
        assert_eq!(store.strangers(9).await.unwrap().len(), 1);
        store.put_hosted(&name, Some("version: STSv1\n")).await.unwrap();
        assert!(store.strangers(9).await.unwrap().is_empty());
        // A retired policy that is not served any more.
        store.put_hosted(&name, None).await.unwrap();
        assert_eq!(store.strangers(9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_oldest_domains_beyond_the_maximum_are_deleted() {
        let (_scratch, store) = crate::scratch::scratch().await;
        let all: Vec<_> = (0..=MAX_STRANGERS)
            .map(|n| (DomainName::parse(&format!("d{n:05}.example")).unwrap(), 1))
            .collect();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        store.add_strangers(&all[..1], now).await.unwrap();
        store.add_strangers(&all[1..], now + SignedDuration::from_secs(1)).await.unwrap();
        let kept = store.strangers(u32::MAX).await.unwrap();
        assert_eq!(kept.len(), 10_000);
        assert!(kept.iter().all(|one| one.domain != all[0].0));
    }
}
