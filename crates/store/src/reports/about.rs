//! The content of the reports about a domain, and sums by day, cause and sender. The rollout gate uses the former as
//! evidence; the dashboard and commands show the sums.
//!
//! The counts come from strangers, so the queries use [`total!`], which does not fail where `sum()` overflows. Sums are
//! capped at the largest integer. A report over several days is counted on its first day, unless noted otherwise.

use super::{Trust, kind_of, range};
use crate::query::{FromRow, Row, sql, total};
use crate::writing::Counter;
use crate::{PolicyDigest, Store, StoreError, damaged, time};
use formats::DomainName;
use formats::report::DateRange;
use formats::result_type::PolicyType;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// The parts of a stored report that are about one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReport {
    /// The domain of the report's sender.
    pub submitter: String,
    /// The domain of the verified DKIM signature; `None` if there is none.
    pub signer: Option<String>,
    /// The `report-id` that the sender assigned.
    pub report_id: String,
    /// How far the report is trusted.
    pub trust: Trust,
    /// When the report arrived.
    pub received_at: Timestamp,
    /// The time that the report covers.
    pub range: DateRange,
    /// The results for the domain, by policy.
    pub outcomes: Vec<PolicyOutcome>,
}

/// The session counts of a report under one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyOutcome {
    /// The type of the policy.
    pub kind: PolicyType,
    /// The MTA-STS policy that the sessions were under; `None` if the report does not state it.
    pub policy: Option<PolicyDigest>,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions, as the summary states it.
    pub failed: u64,
    /// The failure details, summed by result type and host.
    pub failures: Vec<FailureSum>,
}

/// Failures of one result type at one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSum {
    /// The name of the result type (RFC 8460 §4.3).
    pub result_type: String,
    /// The MX host as the report names it; empty if it names none.
    pub host: String,
    /// The number of failed sessions.
    pub sessions: u64,
}

/// The sums of a domain for one UTC day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DaySum {
    /// The first second of the day.
    pub day: Timestamp,
    /// Successful sessions in reports that count as evidence.
    pub successful: u64,
    /// Failed sessions in reports that count as evidence.
    pub failed: u64,
    /// Sessions of both kinds under an MTA-STS policy.
    pub sts_sessions: u64,
    /// The number of policies in reports that count, cover any part of the day and have failures under MTA-STS.
    pub tainted: u64,
    /// Sessions in reports that do not count as evidence.
    pub unproved: u64,
}

/// Failures of one cause: one result type, host, address and policy type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CauseSum {
    /// The name of the result type (RFC 8460 §4.3).
    pub result_type: String,
    /// The MX host; empty if the reports name none.
    pub host: String,
    /// The address of the MX host; empty if the reports name none.
    pub address: String,
    /// The type of the policy.
    pub kind: PolicyType,
    /// The number of failed sessions.
    pub sessions: u64,
    /// The number of distinct submitters that reported it.
    pub senders: u64,
    /// The domain of one of these submitters.
    pub sender: String,
    /// The first second of the first UTC day with such failures.
    pub first: Timestamp,
    /// The first second of the last UTC day with such failures.
    pub last: Timestamp,
    /// The id of the newest report of this cause.
    pub report: i64,
    /// Whether the reports count as evidence.
    pub counts: bool,
}

/// The sums of one submitter's reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SenderSum {
    /// The submitter's domain.
    pub submitter: String,
    /// Whether its reports count as evidence.
    pub counts: bool,
    /// The number of reports.
    pub reports: u64,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
    /// The first second of the last day with a report.
    pub last: Timestamp,
}

/// Reads the next column, which is a count.
pub(super) fn unsigned(row: &mut Row<'_>) -> Result<u64, StoreError> {
    row.get::<i64>()?.try_into().map_err(damaged("outcome"))
}

impl Store {
    /// Returns the reports about a domain that cover any time since `since`, ordered by day.
    pub async fn reports_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<KeptReport>, StoreError> {
        let mut failures = self.failures_about(domain, since).await?;
        let rows: Vec<OutcomeRow> = sql(
            "SELECT outcome.report, outcome.entry, submitter.text, (SELECT text FROM name WHERE id = report.signer),
                    report.report_id, report.trust, report.received_at, report.range_start, report.range_end,
                    outcome.kind, outcome.policy, outcome.successful, outcome.failed
             FROM outcome JOIN report ON report.id = outcome.report JOIN name AS submitter ON submitter.id = report.submitter
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 * outcome.days > $3
             ORDER BY outcome.day, outcome.report, outcome.entry",
        )
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(self)
        .await?;
        let mut found: Vec<(i64, KeptReport)> = Vec::new();
        for OutcomeRow { report, entry, kind, kept } in rows {
            let failures = failures.remove(&(report, entry, kind)).unwrap_or_default();
            let outcomes = kept
                .outcomes
                .into_iter()
                .map(|outcome| PolicyOutcome { failures: failures.clone(), ..outcome });
            match found.last_mut().filter(|(last, _)| *last == report) {
                Some((_, last)) => last.outcomes.extend(outcomes),
                None => found.push((report, KeptReport { outcomes: outcomes.collect(), ..kept })),
            }
        }
        Ok(found.into_iter().map(|(_, report)| report).collect())
    }

    async fn failures_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<BTreeMap<(i64, i64, i64), Vec<FailureSum>>, StoreError> {
        let rows: Vec<(i64, i64, i64, String, String, i64)> = sql(concat!(
            "SELECT failure.report, failure.entry, failure.kind, result.text, host.text, ",
            total!("failure.sessions"),
            " FROM failure JOIN report ON report.id = failure.report
             JOIN name AS result ON result.id = failure.result_type JOIN name AS host ON host.id = failure.host
             WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2)
               AND report.range_end >= $3
             GROUP BY failure.report, failure.entry, failure.kind, result.text, host.text
             ORDER BY failure.report, failure.entry, failure.kind, result.text, host.text"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(self)
        .await?;
        let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (report, entry, kind, result_type, host, sessions) in rows {
            let sessions = u64::try_from(sessions).map_err(damaged("failure"))?;
            found.entry((report, entry, kind)).or_default().push(FailureSum { result_type, host, sessions });
        }
        Ok(found)
    }

    /// Returns the daily sums of a domain since `since`, oldest day first. Days without reports are omitted.
    pub async fn days_of(&self, domain: &DomainName, since: Timestamp) -> Result<Vec<DaySum>, StoreError> {
        sql(
            "SELECT day, CAST(successful AS BIGINT), CAST(failed AS BIGINT), CAST(sts_sessions AS BIGINT), tainted, CAST(unproved AS BIGINT) FROM domain_day
             WHERE tenant = $1 AND domain = (SELECT id FROM name WHERE text = $2) AND day + 86400 > $3 ORDER BY day",
        )
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(self)
        .await
    }

    /// Returns a number that increases with every change of the stored reports.
    pub async fn reports_version(&self) -> Result<i64, StoreError> {
        self.counter(Counter::Reports).await
    }

    /// Returns the daily sums of all domains since `since`, by domain name. The query packs all days of a
    /// domain into one row.
    pub async fn days_of_all(&self, since: Timestamp) -> Result<BTreeMap<String, Vec<DaySum>>, StoreError> {
        let rows: Vec<(String, String)> = sql(
            "SELECT (SELECT text FROM name WHERE id = domain),
                    string_agg(concat_ws(' ', day, CAST(successful AS BIGINT), CAST(failed AS BIGINT), CAST(sts_sessions AS BIGINT), tainted, CAST(unproved AS BIGINT)), ' ')
             FROM domain_day WHERE tenant = $1 AND day + 86400 > $2 GROUP BY domain",
        )
        .bind(self.tenant)
        .bind(since.as_second())
        .fetch_all(self)
        .await?;
        let mut all = BTreeMap::new();
        for (domain, packed) in rows {
            let mut numbers = packed.split(' ');
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
            all.insert(domain, days);
        }
        Ok(all)
    }

    /// Returns up to 200 causes of failures of a domain since `since`. Causes that count as evidence come first, then
    /// the most frequent.
    pub async fn causes_of(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<CauseSum>, StoreError> {
        sql(concat!(
            "SELECT result.text, host.text, failure.address, failure.kind, ",
            total!("failure.sessions"),
            ", count(DISTINCT report.submitter), min(submitter.text), min(failure.day), max(failure.day),
                    max(report.id), CAST(report.trust >= $4 AS INTEGER) AS counts
             FROM failure JOIN report ON report.id = failure.report
             JOIN name AS result ON result.id = failure.result_type JOIN name AS host ON host.id = failure.host
             JOIN name AS submitter ON submitter.id = report.submitter
             WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2)
               AND failure.day + 86400 > $3 AND failure.sessions > 0
             GROUP BY result.text, host.text, failure.address, failure.kind, counts
             ORDER BY counts DESC, sum(CAST(failure.sessions AS DOUBLE PRECISION)) DESC LIMIT 200"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(Trust::Trusted as i64)
        .fetch_all(self)
        .await
    }

    /// Returns the sums of up to 1,000 submitters about a domain since `since`, those with the most sessions first.
    pub async fn senders_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<SenderSum>, StoreError> {
        sql(concat!(
            "SELECT submitter.text, CAST(report.trust >= $4 AS INTEGER) AS counts, count(DISTINCT report.id), ",
            total!("outcome.successful"),
            ", ",
            total!("outcome.failed"),
            ", max(outcome.day)
             FROM outcome JOIN report ON report.id = outcome.report
             JOIN name AS submitter ON submitter.id = report.submitter
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 > $3
             GROUP BY submitter.text, counts ORDER BY sum(CAST(outcome.successful AS DOUBLE PRECISION) + outcome.failed) DESC LIMIT 1000"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(Trust::Trusted as i64)
        .fetch_all(self)
        .await
    }

    /// Like [`Store::senders_about`], but about all domains. Reads the daily sums, not the reports.
    pub async fn senders(&self, since: Timestamp) -> Result<Vec<SenderSum>, StoreError> {
        sql(concat!(
            "SELECT name.text, counts, CAST(sum(reports) AS BIGINT), ",
            total!("successful"),
            ", ",
            total!("failed"),
            ", max(day) FROM submitter_day JOIN name ON name.id = submitter
             WHERE tenant = $1 AND day + 86400 > $2 AND reports > 0
             GROUP BY name.text, counts ORDER BY sum(CAST(successful AS DOUBLE PRECISION) + failed) DESC LIMIT 1000"
        ))
        .bind(self.tenant)
        .bind(since.as_second())
        .fetch_all(self)
        .await
    }
}

/// One outcome of a report.
struct OutcomeRow {
    report: i64,
    /// The position in the report; -1 if an earlier version stored it.
    entry: i64,
    kind: i64,
    kept: KeptReport,
}

impl FromRow for OutcomeRow {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let (report, entry) = (row.get()?, row.get()?);
        let (submitter, signer, report_id) = (row.get()?, row.get()?, row.get()?);
        let (trust, received_at) = (Trust::parse(row.get()?)?, time("report", row.get()?)?);
        let range = range(row.get()?, row.get()?)?;
        let kind = row.get()?;
        let outcome = PolicyOutcome {
            kind: kind_of(kind),
            policy: PolicyDigest::from_column(row.get()?),
            successful: unsigned(row)?,
            failed: unsigned(row)?,
            failures: Vec::new(),
        };
        let outcomes = vec![outcome];
        let kept = KeptReport { submitter, signer, report_id, trust, received_at, range, outcomes };
        Ok(Self { report, entry, kind, kept })
    }
}

impl FromRow for DaySum {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            day: time("domain_day", row.get()?)?,
            successful: unsigned(row)?,
            failed: unsigned(row)?,
            sts_sessions: unsigned(row)?,
            tainted: unsigned(row)?,
            unproved: unsigned(row)?,
        })
    }
}

impl FromRow for CauseSum {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            result_type: row.get()?,
            host: row.get()?,
            address: row.get()?,
            kind: kind_of(row.get()?),
            sessions: unsigned(row)?,
            senders: unsigned(row)?,
            sender: row.get()?,
            first: time("failure", row.get()?)?,
            last: time("failure", row.get()?)?,
            report: row.get()?,
            counts: row.get::<i64>()? != 0,
        })
    }
}

impl FromRow for SenderSum {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            submitter: row.get()?,
            counts: row.get::<i64>()? != 0,
            reports: unsigned(row)?,
            successful: unsigned(row)?,
            failed: unsigned(row)?,
            last: time("outcome", row.get()?)?,
        })
    }
}
