//! The sessions of a UTC day by policy and failure, from which reports are made (RFC 8460 §4).

use crate::{Store, StoreError, damaged};
use formats::report::{FailureDetail, PolicyReport};
use formats::result_type::PolicyType;
use formats::{DomainName, ResultType};
use jiff::Timestamp;
use sqlx::{Row, SqliteConnection};

impl Store {
    /// Adds counts to the day that begins at `day`, all of them or none. Counts under the same
    /// policy, and failures that are alike, add up. Entries without a policy domain are refused.
    pub async fn add_to_tally(&self, day: Timestamp, entries: &[PolicyReport]) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        for entry in entries {
            add_entry(&mut transaction, day, entry).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// What was tallied of a day, by domain.
    pub async fn tally(&self, day: Timestamp) -> Result<Vec<PolicyReport>, StoreError> {
        let rows = sqlx::query("SELECT id, policy_domain, policy_type, policy_string, mx_host, successful, failed FROM tally WHERE day = $1 ORDER BY policy_domain, id")
            .bind(day.as_second())
            .fetch_all(&self.pool)
            .await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let list = |text: String| serde_json::from_str::<Vec<String>>(&text).map_err(damaged("tally"));
            entries.push(PolicyReport {
                policy_type: PolicyType::parse(row.try_get("policy_type")?),
                policy_string: list(row.try_get("policy_string")?)?,
                policy_domain: Some(
                    DomainName::parse(row.try_get("policy_domain")?).map_err(damaged("tally"))?,
                ),
                mx_host: list(row.try_get("mx_host")?)?,
                successful: count(row.try_get("successful")?),
                failed: count(row.try_get("failed")?),
                details: self.tallied_failures(row.try_get("id")?).await?,
            });
        }
        Ok(entries)
    }

    async fn tallied_failures(&self, tally_id: i64) -> Result<Vec<FailureDetail>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM tally_failure WHERE tally_id = $1 ORDER BY failed DESC, result_type")
                .bind(tally_id)
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| {
                let text = |column: &str| {
                    row.try_get::<String, _>(column).map(|text| Some(text).filter(|text| !text.is_empty()))
                };
                let address =
                    |column: &str| Ok::<_, sqlx::Error>(text(column)?.and_then(|text| text.parse().ok()));
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
            })
            .collect()
    }
}

async fn add_entry(
    connection: &mut SqliteConnection,
    day: Timestamp,
    entry: &PolicyReport,
) -> Result<(), StoreError> {
    let Some(domain) = &entry.policy_domain else {
        return Err(StoreError::Damaged { table: "tally", why: "an entry without a policy domain".into() });
    };
    let list = |texts: &[String]| serde_json::to_string(texts).map_err(damaged("tally"));
    let id: i64 = sqlx::query(
        "INSERT INTO tally (day, policy_domain, policy_type, policy_string, mx_host, successful, failed)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (day, policy_domain, policy_type, policy_string, mx_host)
         DO UPDATE SET successful = tally.successful + excluded.successful, failed = tally.failed + excluded.failed
         RETURNING id",
    )
    .bind(day.as_second())
    .bind(domain.as_str())
    .bind(entry.policy_type.as_str())
    .bind(list(&entry.policy_string)?)
    .bind(list(&entry.mx_host)?)
    .bind(stored(entry.successful))
    .bind(stored(entry.failed))
    .fetch_one(&mut *connection)
    .await?
    .try_get(0)?;
    for detail in &entry.details {
        add_failure(connection, id, detail).await?;
    }
    Ok(())
}

async fn add_failure(
    connection: &mut SqliteConnection,
    tally_id: i64,
    detail: &FailureDetail,
) -> Result<(), StoreError> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let address = |address: Option<std::net::IpAddr>| address.map(|ip| ip.to_string()).unwrap_or_default();
    sqlx::query(
        "INSERT INTO tally_failure (tally_id, result_type, sending_mta_ip, receiving_mx_hostname, receiving_mx_helo,
         receiving_ip, additional_information, failure_reason_code, failed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (tally_id, result_type, sending_mta_ip, receiving_mx_hostname, receiving_mx_helo,
         receiving_ip, additional_information, failure_reason_code)
         DO UPDATE SET failed = tally_failure.failed + excluded.failed",
    )
    .bind(tally_id)
    .bind(detail.result_type.as_str())
    .bind(address(detail.sending_mta_ip))
    .bind(text(&detail.receiving_mx_hostname))
    .bind(text(&detail.receiving_mx_helo))
    .bind(address(detail.receiving_ip))
    .bind(text(&detail.additional_information))
    .bind(text(&detail.failure_reason_code))
    .bind(stored(detail.failed_session_count))
    .execute(&mut *connection)
    .await?;
    Ok(())
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
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
    async fn counts_of_a_day_add_up_by_policy_and_failure() {
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
            tally,
            [
                entry("a.example", 5, &[("certificate-expired", 5), ("validation-failure", 1)]),
                entry("b.example", 1, &[])
            ]
        );
    }

    #[tokio::test]
    async fn a_batch_is_added_whole_or_not_at_all() {
        let (_dir, store) = crate::scratch().await;
        let mut broken = entry("b.example", 1, &[]);
        broken.policy_domain = None;
        assert!(
            store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 1, &[]), broken]).await.is_err()
        );
        assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap(), []);
    }

    #[tokio::test]
    async fn rpt_23_separate_policies_of_a_domain_stay_separate_entries() {
        let (_dir, store) = crate::scratch().await;
        let mut changed = entry("a.example", 1, &[]);
        changed.policy_string = vec!["version: STSv1".into(), "mode: none".into()];
        store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 1, &[]), changed]).await.unwrap();
        assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap().len(), 2);
    }
}
