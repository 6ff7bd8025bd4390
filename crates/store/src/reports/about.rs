//! What the reports say about a domain, and sums of it by day, cause and sender.
//!
//! The counts are a stranger's, so sums are taken by `total()`, which does not fail where `sum()` overflows, and end at
//! the largest integer.

use super::{Trust, kind_of, range};
use crate::{Store, StoreError, TENANT, damaged, time};
use formats::DomainName;
use formats::report::DateRange;
use formats::result_type::PolicyType;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::Row;
use std::collections::BTreeMap;

/// A kept report, as far as it is about one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReport {
    /// Who sent it.
    pub submitter: String,
    /// How far it is to be believed.
    pub trust: Trust,
    /// What it covers.
    pub range: DateRange,
    /// What it says about the domain, by policy.
    pub outcomes: Vec<PolicyOutcome>,
}

/// What a report says of sessions under one kind of policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyOutcome {
    /// What kind.
    pub kind: PolicyType,
    /// Sessions that worked.
    pub successful: u64,
    /// Sessions that failed, as the sender gives them.
    pub failed: u64,
    /// What failed.
    pub failures: Vec<FailureSum>,
}

/// Failures of one kind at one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSum {
    /// The result type's name.
    pub result_type: String,
    /// The MX host as the report names it, empty when it does not.
    pub host: String,
    /// Sessions.
    pub sessions: u64,
}

/// A domain's day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DaySum {
    /// Its first second.
    pub day: Timestamp,
    /// Sessions that worked, in reports that count as evidence.
    pub successful: u64,
    /// Sessions that failed, in the same.
    pub failed: u64,
    /// Those of both under an MTA-STS policy.
    pub sts_sessions: u64,
    /// Reports of failures under an MTA-STS policy that cover the day.
    pub tainted: u64,
    /// Sessions in reports that do not count.
    pub unproved: u64,
}

/// Failures of one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseSum {
    /// The result type's name.
    pub result_type: String,
    /// The MX host, empty when reports do not name it.
    pub host: String,
    /// Its address, empty when reports do not name it.
    pub address: String,
    /// Under what kind of policy.
    pub kind: PolicyType,
    /// Sessions.
    pub sessions: u64,
    /// Distinct submitters that met it.
    pub senders: u64,
    /// One of them.
    pub sender: String,
    /// The first day.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// The newest report that says so.
    pub report: i64,
    /// Whether the reports count as evidence.
    pub counts: bool,
}

/// What one submitter says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SenderSum {
    /// Who.
    pub submitter: String,
    /// Whether its reports count as evidence.
    pub counts: bool,
    /// How many.
    pub reports: u64,
    /// Sessions that worked.
    pub successful: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// The last day that they cover.
    pub last: Timestamp,
}

pub(super) fn unsigned(row: &sqlx::sqlite::SqliteRow, at: usize) -> Result<u64, StoreError> {
    row.try_get::<i64, _>(at)?.try_into().map_err(damaged("outcome"))
}

impl Store {
    /// The reports about a domain that cover any time since `since`, by day.
    pub async fn reports_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<KeptReport>, StoreError> {
        let mut failures = self.failures_about(domain, since).await?;
        let rows = sqlx::query(
            "SELECT outcome.report, submitter.text, report.trust, report.range_start, report.range_end,
                    outcome.kind, outcome.successful, outcome.failed
             FROM outcome JOIN report ON report.id = outcome.report JOIN name AS submitter ON submitter.id = report.submitter
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 * outcome.days > $3
             ORDER BY outcome.day, outcome.report",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(&self.pool)
        .await?;
        let mut found: Vec<(i64, KeptReport)> = Vec::new();
        for row in rows {
            let (id, kind): (i64, i64) = (row.try_get(0)?, row.try_get(5)?);
            let outcome = PolicyOutcome {
                kind: kind_of(kind),
                successful: unsigned(&row, 6)?,
                failed: unsigned(&row, 7)?,
                failures: failures.remove(&(id, kind)).unwrap_or_default(),
            };
            if let Some((_, last)) = found.last_mut().filter(|(last, _)| *last == id) {
                last.outcomes.push(outcome);
                continue;
            }
            let report = KeptReport {
                submitter: row.try_get(1)?,
                trust: Trust::parse(row.try_get(2)?)?,
                range: range(row.try_get(3)?, row.try_get(4)?)?,
                outcomes: vec![outcome],
            };
            found.push((id, report));
        }
        Ok(found.into_iter().map(|(_, report)| report).collect())
    }

    async fn failures_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<BTreeMap<(i64, i64), Vec<FailureSum>>, StoreError> {
        let rows = sqlx::query(
            "SELECT failure.report, failure.kind, result.text, host.text, CAST(total(failure.sessions) AS INTEGER)
             FROM failure JOIN report ON report.id = failure.report
             JOIN name AS result ON result.id = failure.result_type JOIN name AS host ON host.id = failure.host
             WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2)
               AND report.range_end >= $3
             GROUP BY failure.report, failure.kind, result.text, host.text",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(&self.pool)
        .await?;
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in rows {
            found.entry((row.try_get(0)?, row.try_get(1)?)).or_default().push(FailureSum {
                result_type: row.try_get(2)?,
                host: row.try_get(3)?,
                sessions: unsigned(&row, 4)?,
            });
        }
        Ok(found)
    }

    /// The days of a domain since `since` that reports cover, oldest first.
    pub async fn days_of(&self, domain: &DomainName, since: Timestamp) -> Result<Vec<DaySum>, StoreError> {
        let rows = sqlx::query(
            "SELECT day, CAST(successful AS INTEGER), CAST(failed AS INTEGER), CAST(sts_sessions AS INTEGER), tainted, CAST(unproved AS INTEGER) FROM domain_day
             WHERE tenant = $1 AND domain = (SELECT id FROM name WHERE text = $2) AND day + 86400 > $3 ORDER BY day",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(DaySum {
                    day: time("domain_day", row.try_get(0)?)?,
                    successful: unsigned(row, 1)?,
                    failed: unsigned(row, 2)?,
                    sts_sessions: unsigned(row, 3)?,
                    tainted: unsigned(row, 4)?,
                    unproved: unsigned(row, 5)?,
                })
            })
            .collect()
    }

    /// Counts up with every change of reports.
    pub async fn reports_version(&self) -> Result<i64, StoreError> {
        let (version,): (i64,) =
            sqlx::query_as("SELECT value FROM version WHERE name = 'reports'").fetch_one(&self.pool).await?;
        Ok(version)
    }

    /// The days of every domain since `since`, by name. One row a domain crosses from the database.
    pub async fn days_of_all(&self, since: Timestamp) -> Result<BTreeMap<String, Vec<DaySum>>, StoreError> {
        let rows = sqlx::query(
            "SELECT (SELECT text FROM name WHERE id = domain),
                    string_agg(concat_ws(' ', day, CAST(successful AS INTEGER), CAST(failed AS INTEGER), CAST(sts_sessions AS INTEGER), tainted, CAST(unproved AS INTEGER)), ' ')
             FROM domain_day WHERE tenant = $1 AND day + 86400 > $2 GROUP BY domain",
        )
        .bind(TENANT)
        .bind(since.as_second())
        .fetch_all(&self.pool)
        .await?;
        let mut all = BTreeMap::new();
        for row in rows {
            let mut numbers = row.try_get::<&str, _>(1)?.split(' ');
            let mut days = Vec::new();
            while let Some(day) = numbers.next() {
                let mut count = || {
                    let number = numbers.next().unwrap_or_default();
                    number.parse::<u64>().map_err(damaged("domain_day"))
                };
                days.push(DaySum {
                    successful: count()?,
                    failed: count()?,
                    sts_sessions: count()?,
                    tainted: count()?,
                    unproved: count()?,
                    day: time("domain_day", day.parse().map_err(damaged("domain_day"))?)?,
                });
            }
            days.sort_unstable_by_key(|day| day.day);
            all.insert(row.try_get(0)?, days);
        }
        Ok(all)
    }

    /// Failures of a domain since `since` by cause, the most frequent first, at most 200.
    pub async fn causes_of(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<CauseSum>, StoreError> {
        let rows = sqlx::query(
            "SELECT result.text, host.text, failure.address, failure.kind, CAST(total(failure.sessions) AS INTEGER),
                    count(DISTINCT report.submitter), min(submitter.text), min(failure.day), max(failure.day),
                    max(report.id), report.trust >= $4 AS counts
             FROM failure JOIN report ON report.id = failure.report
             JOIN name AS result ON result.id = failure.result_type JOIN name AS host ON host.id = failure.host
             JOIN name AS submitter ON submitter.id = report.submitter
             WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2)
               AND failure.day + 86400 > $3 AND failure.sessions > 0
             GROUP BY result.text, host.text, failure.address, failure.kind, counts
             ORDER BY counts DESC, total(failure.sessions) DESC LIMIT 200",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(Trust::Trusted as i64)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(CauseSum {
                    result_type: row.try_get(0)?,
                    host: row.try_get(1)?,
                    address: row.try_get(2)?,
                    kind: kind_of(row.try_get(3)?),
                    sessions: unsigned(row, 4)?,
                    senders: unsigned(row, 5)?,
                    sender: row.try_get(6)?,
                    first: time("failure", row.try_get(7)?)?,
                    last: time("failure", row.try_get(8)?)?,
                    report: row.try_get(9)?,
                    counts: row.try_get::<i64, _>(10)? != 0,
                })
            })
            .collect()
    }

    /// What each submitter says about a domain since `since`, those with most sessions first, at most 1,000.
    pub async fn senders_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<SenderSum>, StoreError> {
        let rows = sqlx::query(
            "SELECT submitter.text, report.trust >= $4 AS counts, count(DISTINCT report.id),
                    CAST(total(outcome.successful) AS INTEGER), CAST(total(outcome.failed) AS INTEGER), max(outcome.day)
             FROM outcome JOIN report ON report.id = outcome.report
             JOIN name AS submitter ON submitter.id = report.submitter
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 > $3
             GROUP BY submitter.text, counts ORDER BY total(outcome.successful) + total(outcome.failed) DESC LIMIT 1000",
        )
        .bind(TENANT)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(Trust::Trusted as i64)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(sender).collect()
    }

    /// The same about all domains, from sums.
    pub async fn senders(&self, since: Timestamp) -> Result<Vec<SenderSum>, StoreError> {
        let rows = sqlx::query(
            "SELECT name.text, counts, sum(reports), CAST(total(successful) AS INTEGER), CAST(total(failed) AS INTEGER), max(day)
             FROM submitter_day JOIN name ON name.id = submitter
             WHERE tenant = $1 AND day + 86400 > $2 AND reports > 0
             GROUP BY name.text, counts ORDER BY total(successful) + total(failed) DESC LIMIT 1000",
        )
        .bind(TENANT)
        .bind(since.as_second())
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(sender).collect()
    }
}

fn sender(row: &sqlx::sqlite::SqliteRow) -> Result<SenderSum, StoreError> {
    Ok(SenderSum {
        submitter: row.try_get(0)?,
        counts: row.try_get::<i64, _>(1)? != 0,
        reports: unsigned(row, 2)?,
        successful: unsigned(row, 3)?,
        failed: unsigned(row, 4)?,
        last: time("outcome", row.try_get(5)?)?,
    })
}
