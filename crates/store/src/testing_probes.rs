//! Results of the probes that the sending side makes for policies in mode `testing`. A probe shows what enforcement
//! would have done, which is reported for the UTC day of the mail (RFC 8461 §5, RFC 8460 §4.3).

use crate::query::sql;
use crate::{PolicyDigest, Store, StoreError, damaged, time};
use formats::{DomainName, ResultType};
use jiff::Timestamp;
use std::collections::HashSet;
use std::net::IpAddr;

/// One STARTTLS handshake with an MX host, validated as if the policy were enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestingProbe {
    /// The policy that the host was judged by.
    pub policy: PolicyDigest,
    /// The MX host's name.
    pub mx: DomainName,
    /// The time of the handshake.
    pub at: Timestamp,
    /// The failure that enforcement would have caused; `None` if the host passed.
    pub failure: Option<ResultType>,
    /// The address of the MX host; `None` if no connection was made.
    pub receiving_ip: Option<IpAddr>,
    /// The reason of the failure in words; empty if the host passed.
    pub reason: String,
}

impl Store {
    /// Stores probes for a domain's policy under a UTC day.
    pub async fn put_testing_probes(
        &self,
        day: Timestamp,
        domain: &DomainName,
        probes: &[TestingProbe],
    ) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        for probe in probes {
            sql("INSERT INTO testing_probe (tenant, day, domain, policy, mx, at, result_type, receiving_ip, reason)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                 ON CONFLICT (tenant, day, domain, policy, mx, at) DO NOTHING")
            .bind(self.tenant)
            .bind(day.as_second())
            .bind(domain.as_str())
            .bind(PolicyDigest::column(Some(probe.policy)))
            .bind(probe.mx.as_str())
            .bind(probe.at.as_second())
            .bind(probe.failure.as_ref().map_or("", ResultType::as_str))
            .bind(probe.receiving_ip.map(|ip| ip.to_string()).unwrap_or_default())
            .bind(probe.reason.as_str())
            .execute(&mut transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Returns the probes for a domain's policy on a UTC day, oldest first.
    pub async fn testing_probes(
        &self,
        day: Timestamp,
        domain: &DomainName,
    ) -> Result<Vec<TestingProbe>, StoreError> {
        let rows: Vec<(i64, String, i64, String, String, String)> =
            sql("SELECT policy, mx, at, result_type, receiving_ip, reason FROM testing_probe
             WHERE tenant = $1 AND day = $2 AND domain = $3 ORDER BY at, mx")
            .bind(self.tenant)
            .bind(day.as_second())
            .bind(domain.as_str())
            .fetch_all(self)
            .await?;
        rows.into_iter()
            .map(|(policy, mx, at, result, ip, reason)| {
                Ok(TestingProbe {
                    policy: PolicyDigest::from_column(policy)
                        .ok_or_else(|| damaged("testing_probe")("no policy"))?,
                    mx: DomainName::parse(&mx).map_err(damaged("testing_probe"))?,
                    at: time("testing_probe", at)?,
                    failure: Some(result)
                        .filter(|text| !text.is_empty())
                        .map(|text| ResultType::parse(&text)),
                    receiving_ip: ip.parse().ok(),
                    reason,
                })
            })
            .collect()
    }

    /// Returns the domains that have probes on a UTC day.
    pub async fn domains_with_testing_probes(
        &self,
        day: Timestamp,
    ) -> Result<HashSet<DomainName>, StoreError> {
        let names: Vec<(String,)> =
            sql("SELECT DISTINCT domain FROM testing_probe WHERE tenant = $1 AND day = $2")
                .bind(self.tenant)
                .bind(day.as_second())
                .fetch_all(self)
                .await?;
        names.iter().map(|(name,)| DomainName::parse(name).map_err(damaged("testing_probe"))).collect()
    }

    /// Returns the domains with mail on a UTC day under a policy that contains the word `testing`, with the policy's
    /// lines. The caller checks the policy's mode.
    pub async fn maybe_testing(&self, day: Timestamp) -> Result<Vec<(DomainName, Vec<String>)>, StoreError> {
        let rows: Vec<(String, String)> = sql(
            "SELECT domain, policy_string FROM tally
             WHERE day = $1 AND policy_type = 'sts' AND lower(policy_string) LIKE '%testing%' ORDER BY domain",
        )
        .bind(day.as_second())
        .fetch_all(self)
        .await?;
        rows.into_iter()
            .map(|(domain, lines)| {
                let domain = DomainName::parse(&domain).map_err(damaged("tally"))?;
                Ok((domain, serde_json::from_str(&lines).map_err(damaged("tally"))?))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probes_are_stored_by_domain_and_day() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("a.example").unwrap();
        let probe = |at, failure: Option<ResultType>| TestingProbe {
            policy: PolicyDigest::of_lines(&["mx: mx.a.example".to_owned()]).unwrap(),
            mx: DomainName::parse("mx.a.example").unwrap(),
            at: Timestamp::from_second(at).unwrap(),
            reason: failure.as_ref().map(|_| "why".to_owned()).unwrap_or_default(),
            failure,
            receiving_ip: "192.0.2.1".parse().ok(),
        };
        let probes = [probe(5, None), probe(9, Some(ResultType::CertificateExpired))];
        store.put_testing_probes(Timestamp::UNIX_EPOCH, &domain, &probes).await.unwrap();
        store.put_testing_probes(Timestamp::UNIX_EPOCH, &domain, &probes).await.unwrap();
        assert_eq!(store.testing_probes(Timestamp::UNIX_EPOCH, &domain).await.unwrap(), probes);
        assert_eq!(
            store.domains_with_testing_probes(Timestamp::UNIX_EPOCH).await.unwrap(),
            HashSet::from([domain.clone()])
        );
        assert_eq!(store.testing_probes(Timestamp::from_second(86_400).unwrap(), &domain).await.unwrap(), []);
    }
}
