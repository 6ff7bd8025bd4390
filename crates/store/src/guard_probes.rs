//! Results of the guard's probes of MX hosts, summed by UTC day. A probe is a STARTTLS handshake that verifies the
//! host's certificate. The guard writes the results; the rollout gate and the dashboard read them.

use crate::query::sql;
use crate::{PolicyDigest, Store, StoreError, damaged, time};
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
    /// The policy that was in force; `None` if an earlier version made the probe.
    pub policy: Option<PolicyDigest>,
    /// The number of probes that the host passed.
    pub good: u64,
    /// The number of probes that the host failed.
    pub bad: u64,
    /// The reason of the day's last failure; empty if no probe failed.
    pub problem: String,
}

impl Store {
    /// Adds one probe to its day. `policy` is the policy in force, and `problem` is the reason if the host failed, else `None`.
    pub async fn put_guard_probe(
        &self,
        domain: &DomainName,
        host: &DomainName,
        at: Timestamp,
        policy: PolicyDigest,
        problem: Option<&str>,
    ) -> Result<(), StoreError> {
        sql(
            "INSERT INTO guard_probe (tenant, domain, host, day, policy, good, bad, problem) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (tenant, domain, host, day, policy) DO UPDATE SET
               good = guard_probe.good + excluded.good, bad = guard_probe.bad + excluded.bad,
               problem = CASE WHEN excluded.problem = '' THEN guard_probe.problem ELSE excluded.problem END",
        )
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(host.as_str())
        .bind(DateRange::utc_day(at).start.as_second())
        .bind(PolicyDigest::column(Some(policy)))
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
        let rows: Vec<(String, i64, i64, i64, i64, String)> =
            sql("SELECT host, day, policy, good, bad, problem FROM guard_probe
             WHERE tenant = $1 AND domain = $2 AND day + 86400 > $3 ORDER BY day, host, policy")
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(since.as_second())
            .fetch_all(self)
            .await?;
        let count = |number: i64| u64::try_from(number).map_err(damaged("guard_probe"));
        rows.into_iter()
            .map(|(host, day, policy, good, bad, problem)| {
                Ok(GuardProbeDay {
                    host,
                    day: time("guard_probe", day)?,
                    policy: PolicyDigest::from_column(policy),
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
    async fn probes_are_summed_by_day_and_policy_and_the_last_problem_is_kept() {
        let (_dir, store) = crate::scratch().await;
        let domain = DomainName::parse("a.example").unwrap();
        let host = DomainName::parse("mx1.a.example").unwrap();
        let at: Timestamp = "2026-11-25T13:00:00Z".parse().unwrap();
        let [policy, other] = ["mx1.a.example", "mx2.a.example"]
            .map(|pattern| PolicyDigest::of_lines(&[format!("mx: {pattern}")]).unwrap());
        for problem in [None, Some("expired"), None] {
            store.put_guard_probe(&domain, &host, at, policy, problem).await.unwrap();
        }
        store.put_guard_probe(&domain, &host, at, other, None).await.unwrap();
        let day = "2026-11-25T00:00:00Z".parse().unwrap();
        let mut probes = store.guard_probes(&domain, at).await.unwrap();
        probes.sort_by_key(|probe| std::cmp::Reverse(probe.bad));
        let (host, problem) = (host.to_string(), "expired".to_owned());
        let first = GuardProbeDay { host, day, policy: Some(policy), good: 2, bad: 1, problem };
        let second =
            GuardProbeDay { policy: Some(other), good: 1, bad: 0, problem: String::new(), ..first.clone() };
        assert_eq!(probes, [first, second]);
    }
}
