//! The MX hosts of our domains over time, by day. The guard and the planner record what they observe. The inbox decides
//! by it whether a report about an MX host concerns a domain, and the rollout gate whether all hosts were probed.

use crate::query::{FromRow, Row, parameters, sql, unnumbered};
use crate::reports::Misfiled;
use crate::writing::Writing;
use crate::{Store, StoreError, time};
use formats::DomainName;
use formats::limits::MX_HISTORY_DAYS;
use formats::report::DateRange;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The period in which a host was an MX host of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MxHostPeriod {
    /// The MX host's name.
    pub host: String,
    /// The first second of the first day on which it was observed.
    pub first: Timestamp,
    /// The first second of the last day on which it was observed.
    pub last: Timestamp,
}

/// The time that separates two periods; a host that returns later begins a new one.
const HISTORY_SECONDS: i64 = MX_HISTORY_DAYS as i64 * 86_400;
/// The maximum number of domains in one statement.
const BATCH_ROWS: usize = 500;

impl FromRow for MxHostPeriod {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self { host: row.get()?, first: time("mx_host", row.get()?)?, last: time("mx_host", row.get()?)? })
    }
}

impl Store {
    /// Records the MX hosts of a domain as observed at `at`. Does nothing if they are already recorded for that day. DANE
    /// results that arrived before the first observation of a host are filed under the domain from now on.
    pub async fn record_mx_hosts(
        &self,
        domain: &DomainName,
        hosts: &[DomainName],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let day = DateRange::utc_day(at).start;
        let known = self.mx_history(domain).await?;
        let is_known =
            |host: &&DomainName| known.iter().any(|one| one.host == host.as_str() && one.last >= day);
        let fresh: BTreeSet<&str> =
            hosts.iter().filter(|host| !is_known(host)).map(DomainName::as_str).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let is_observed = |host: &&DomainName| {
            let of_host = known.iter().find(|one| one.host == host.as_str());
            of_host.is_some_and(|one| one.last.as_second().saturating_add(HISTORY_SECONDS) >= day.as_second())
        };
        let new: Vec<&DomainName> = hosts.iter().filter(|host| !is_observed(host)).collect();
        // Before the hosts are recorded, so that this is repeated if it is interrupted.
        self.file_results_of(domain, &new, day).await?;
        let mut transaction = self.writing().await?;
        for host in fresh {
            sql(
                "INSERT INTO mx_host (tenant, domain, host, first_day, last_day) VALUES ($1, $2, $3, $4, $4)
                 ON CONFLICT (tenant, domain, host) DO UPDATE SET
                   first_day = CASE WHEN mx_host.last_day + $5 < excluded.last_day THEN excluded.first_day ELSE mx_host.first_day END,
                   last_day = CASE WHEN mx_host.last_day < excluded.last_day THEN excluded.last_day ELSE mx_host.last_day END",
            )
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(host)
            .bind(day.as_second())
            .bind(HISTORY_SECONDS)
            .execute(&mut transaction)
            .await?;
        }
        transaction.commit().await?;
        // Reports that were stored meanwhile.
        self.file_results_of(domain, &new, day).await
    }

    /// Files the results about these MX hosts under the domain.
    async fn file_results_of(
        &self,
        domain: &DomainName,
        hosts: &[&DomainName],
        day: Timestamp,
    ) -> Result<(), StoreError> {
        let history = SignedDuration::from_secs(HISTORY_SECONDS);
        let between = [
            day.saturating_sub(history).unwrap_or(Timestamp::MIN),
            day.saturating_add(history).unwrap_or(Timestamp::MAX),
        ];
        for host in hosts {
            self.file_again(&Misfiled { domain, host, between }).await?;
        }
        Ok(())
    }

    /// Returns the MX hosts of a domain with their periods, by name.
    pub async fn mx_history(&self, domain: &DomainName) -> Result<Vec<MxHostPeriod>, StoreError> {
        sql("SELECT host, first_day, last_day FROM mx_host WHERE tenant = $1 AND domain = $2 ORDER BY host")
            .bind(self.tenant)
            .bind(domain.as_str())
            .fetch_all(self)
            .await
    }

    /// Returns the domains that had this MX host on the day of `since` or later, by name.
    pub async fn domains_with_mx(
        &self,
        host: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let day = DateRange::utc_day(since).start;
        let rows: Vec<(String,)> = sql(
            "SELECT domain FROM mx_host WHERE tenant = $1 AND host = $2 AND last_day >= $3 ORDER BY domain",
        )
        .bind(self.tenant)
        .bind(host.as_str())
        .bind(day.as_second())
        .fetch_all(self)
        .await?;
        Ok(rows.into_iter().map(|(domain,)| domain).collect())
    }
}

/// The MX hosts of several domains.
#[derive(Debug, Default)]
pub(crate) struct MxHistory(BTreeMap<(String, String), (i64, i64)>);

impl MxHistory {
    /// Reads the MX hosts of these domains.
    pub async fn of(writing: &mut Writing, domains: &BTreeSet<&str>) -> Result<Self, StoreError> {
        let mut all = Self::default();
        let domains: Vec<&str> = domains.iter().copied().collect();
        for batch in domains.chunks(BATCH_ROWS) {
            let list = parameters(batch.len());
            let text = format!(
                "SELECT domain, host, first_day, last_day FROM mx_host WHERE tenant = ? AND domain IN ({list})"
            );
            let values =
                [writing.tenant.into()].into_iter().chain(batch.iter().map(|domain| (*domain).into()));
            let query = unnumbered(text, values);
            for (domain, host, first, last) in
                query.fetch_all::<(String, String, i64, i64)>(&mut *writing).await?
            {
                all.0.insert((domain, host), (first, last));
            }
        }
        Ok(all)
    }

    /// True if the host was an MX host of the domain within [`MX_HISTORY_DAYS`] of the range.
    pub fn is_mx_host(&self, domain: &str, host: &str, range: &DateRange) -> bool {
        self.0.get(&(domain.to_owned(), host.to_owned())).is_some_and(|(first, last)| {
            first.saturating_sub(HISTORY_SECONDS) <= range.end.as_second()
                && last.saturating_add(HISTORY_SECONDS) >= range.start.as_second()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_has_one_period_until_it_was_gone_for_long() {
        let (_dir, store) = crate::scratch().await;
        let name = |text: &str| DomainName::parse(text).unwrap();
        let (domain, one, two) = (name("a.example"), name("mx1.a.example"), name("mx2.a.example"));
        let at = |day: i64| Timestamp::from_second(day * 86_400 + 7).unwrap();
        let period = |host: &DomainName, first: i64, last: i64| MxHostPeriod {
            host: host.to_string(),
            first: DateRange::utc_day(at(first)).start,
            last: DateRange::utc_day(at(last)).start,
        };
        store.record_mx_hosts(&domain, &[one.clone(), two.clone()], at(100)).await.unwrap();
        store.record_mx_hosts(&domain, std::slice::from_ref(&one), at(100)).await.unwrap();
        store.record_mx_hosts(&domain, std::slice::from_ref(&one), at(140)).await.unwrap();
        assert_eq!(
            store.mx_history(&domain).await.unwrap(),
            [period(&one, 100, 140), period(&two, 100, 100)]
        );
        // An earlier observation, as by another process, does not shorten the period.
        store.record_mx_hosts(&domain, std::slice::from_ref(&one), at(139)).await.unwrap();
        store.record_mx_hosts(&domain, std::slice::from_ref(&two), at(300)).await.unwrap();
        assert_eq!(
            store.mx_history(&domain).await.unwrap(),
            [period(&one, 100, 140), period(&two, 300, 300)]
        );
        assert_eq!(store.mx_history(&name("b.example")).await.unwrap(), []);
        let other = name("b.example");
        store.record_mx_hosts(&other, std::slice::from_ref(&one), at(150)).await.unwrap();
        assert_eq!(store.domains_with_mx(&one, at(140)).await.unwrap(), ["a.example", "b.example"]);
        assert_eq!(store.domains_with_mx(&one, at(141)).await.unwrap(), ["b.example"]);
    }
}
