//! What our own looks at the MX hosts of a domain saw, summed by UTC day.

use crate::{Store, StoreError, TENANT, damaged, time};
use formats::DomainName;
use formats::report::DateRange;
use jiff::Timestamp;
use serde::Serialize;

/// Looks at one host on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardProbeDay {
    /// The MX host.
    pub host: String,
    /// The day's first second.
    pub day: Timestamp,
    /// Looks at which it proved itself.
    pub good: u64,
    /// Looks at which it did not.
    pub bad: u64,
    /// Why it did not the last time.
    pub problem: String,
}

impl Store {
    /// Counts one look; `problem` says why the host did not prove itself.
    pub async fn put_guard_probe(
        &self,
        domain: &DomainName,
        host: &DomainName,
        at: Timestamp,
        problem: Option<&str>,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO probe (tenant, domain, host, day, good, bad, problem) VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant, domain, host, day) DO UPDATE SET good = probe.good + excluded.good, bad = probe.bad + excluded.bad,
               problem = CASE WHEN excluded.problem = '' THEN probe.problem ELSE excluded.problem END",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(host.as_str())
        .bind(DateRange::utc_day(at).start.as_second())
        .bind(i64::from(problem.is_none()))
        .bind(i64::from(problem.is_some()))
        .bind(problem.unwrap_or_default())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The looks at a domain's MX hosts since `since`, oldest first.
    pub async fn guard_probes(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<GuardProbeDay>, StoreError> {
        let rows: Vec<(String, i64, i64, i64, String)> = sqlx::query_as(
            "SELECT host, day, good, bad, problem FROM probe
             WHERE tenant = $1 AND domain = $2 AND day + 86400 > $3 ORDER BY day, host",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(&self.pool)
        .await?;
        let count = |number: i64| u64::try_from(number).map_err(damaged("probe"));
        rows.into_iter()
            .map(|(host, day, good, bad, problem)| {
                Ok(GuardProbeDay {
                    host,
                    day: time("probe", day)?,
                    good: count(good)?,
                    bad: count(bad)?,
                    problem,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_are_summed_by_day_and_the_last_problem_stays() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("a.example").unwrap();
        let host = DomainName::parse("mx1.a.example").unwrap();
        let at: Timestamp = "2026-11-25T13:00:00Z".parse().unwrap();
        for problem in [None, Some("expired"), None] {
            store.put_guard_probe(&domain, &host, at, problem).await.unwrap();
        }
        let day = "2026-11-25T00:00:00Z".parse().unwrap();
        assert_eq!(
            store.guard_probes(&domain, at).await.unwrap(),
            [GuardProbeDay { host: host.to_string(), day, good: 2, bad: 1, problem: "expired".into() }]
        );
    }
}
