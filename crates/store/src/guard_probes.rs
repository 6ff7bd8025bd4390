//! Results of the guard's probes of MX hosts, summed by UTC day. A probe is a STARTTLS handshake that verifies the
//! host's certificate. The guard writes the results; the rollout gate and the dashboard read them.

use crate::query::sql;
use crate::{Store, StoreError, TENANT, damaged, time};
use formats::DomainName;
use formats::report::DateRange;
use jiff::Timestamp;
use serde::Serialize;

/// The probes of one MX host on one UTC day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardProbeDay {
    /// The MX host's name.
    pub host: String,
    /// The first second of the day.
    pub day: Timestamp,
    /// The number of probes that the host passed.
    pub good: u64,
    /// The number of probes that it failed.
    pub bad: u64,
    /// The reason of the day's last failure; empty if no probe failed.
    pub problem: String,
}

impl Store {
    /// Adds one probe to its day. `problem` is the reason if the host failed, else `None`.
    pub async fn put_guard_probe(
        &self,
        domain: &DomainName,
        host: &DomainName,
        at: Timestamp,
        problem: Option<&str>,
    ) -> Result<(), StoreError> {
        sql(
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
        .execute(self)
        .await?;
        Ok(())
    }

    /// Returns the probes of a domain's MX hosts on the day of `since` and later, oldest day first.
    pub async fn guard_probes(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<GuardProbeDay>, StoreError> {
        let rows: Vec<(String, i64, i64, i64, String)> =
            sql("SELECT host, day, good, bad, problem FROM probe
             WHERE tenant = $1 AND domain = $2 AND day + 86400 > $3 ORDER BY day, host")
            .bind(TENANT)
            .bind(domain.as_str())
            .bind(since.as_second())
            .fetch_all(self)
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
    async fn probes_are_summed_by_day_and_the_last_problem_is_kept() {
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
