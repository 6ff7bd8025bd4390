//! The content of the reports about a domain, and sums by day and sender. The rollout gate uses the former as
//! evidence; the dashboard and commands show the sums.
//!
//! The counts come from strangers, so the queries use [`total!`], which does not fail where `sum()` overflows. Sums are
//! capped at the largest integer. A report over several days is counted on its first day, unless noted otherwise.

use super::causes::sender;
use super::columns::{BATCH_ROWS, count};
use super::{OTHER_CAUSES, Trust, kind_of, range};
use crate::query::{FromRow, Row, parameters, sql, total, unnumbered};
use crate::writing::Counter;
use crate::{PolicyDigest, Store, StoreError, damaged, time};
use formats::DomainName;
use formats::limits::{REPORT_CAUSES, SENDER_RESULTS};
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
    /// The number of failed sessions whose causes are not among `failures`, since the report has too many.
    pub unlisted: u64,
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

/// A common table expression: the results about domain `$2` of tenant `$1` since `$3`. `place` counts those of each sender,
/// those with failures and the newest first. The sender of a report that is not signed is what it says.
macro_rules! placed {
    () => {
        concat!(
            "failing AS (SELECT DISTINCT report, entry, kind FROM failure
             WHERE tenant = $1 AND domain = (SELECT id FROM name WHERE text = $2) AND sessions > 0),
         counted AS (SELECT outcome.report, outcome.entry, outcome.kind, outcome.policy, outcome.day, outcome.successful, outcome.failed,
                ",
            sender!(),
            " AS sender,
                CASE WHEN outcome.failed > 0 OR failing.report IS NOT NULL THEN 0 ELSE 1 END AS is_clean
             FROM outcome JOIN report ON report.id = outcome.report
             LEFT JOIN failing ON failing.report = outcome.report AND failing.entry = outcome.entry AND failing.kind = outcome.kind
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 * outcome.days > $3),
         placed AS (SELECT counted.*, row_number() OVER (PARTITION BY sender ORDER BY is_clean, day DESC, report DESC, entry, kind) AS place
             FROM counted) "
        )
    };
}

impl Store {
    /// Returns the reports about a domain that cover any time since `since`, ordered by day. Of each sender, at most
    /// [`SENDER_RESULTS`] results and as many causes of failures, those with failures and the newest first.
    pub async fn reports_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<KeptReport>, StoreError> {
        let mut failures = self.failures_about(domain, since).await?;
        let rows: Vec<OutcomeRow> = sql(concat!(
            "WITH ",
            placed!(),
            "SELECT placed.report, placed.entry, submitter.text, (SELECT text FROM name WHERE id = report.signer),
                    report.report_id, report.trust, report.received_at, report.range_start, report.range_end,
                    placed.kind, placed.policy, placed.successful, placed.failed
             FROM placed JOIN report ON report.id = placed.report JOIN name AS submitter ON submitter.id = report.submitter
             WHERE placed.place <= $4 ORDER BY placed.day, placed.report, placed.entry"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(count(SENDER_RESULTS as u64))
        .fetch_all(self)
        .await?;
        let mut found: Vec<(i64, KeptReport)> = Vec::new();
        for OutcomeRow { report, entry, kind, kept } in rows {
            let mut failures = failures.remove(&(report, entry, kind));
            let outcomes = kept.outcomes.into_iter().map(|outcome| {
                let Failures { listed, unlisted } = failures.take().unwrap_or_default();
                PolicyOutcome { failures: listed, unlisted, ..outcome }
            });
            match found.last_mut().filter(|(last, _)| *last == report) {
                Some((_, last)) => last.outcomes.extend(outcomes),
                None => found.push((report, KeptReport { outcomes: outcomes.collect(), ..kept })),
            }
        }
        Ok(found.into_iter().map(|(_, report)| report).collect())
    }

    /// The failures of the results that [`Store::reports_about`] returns, by report, position in it and kind.
    async fn failures_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<BTreeMap<(i64, i64, i64), Failures>, StoreError> {
        // Earlier versions stored all causes of a report, and several results at one position.
        let rows: Vec<(i64, i64, i64, String, String, i64)> = sql(concat!(
            "WITH ",
            placed!(),
            ", kept AS (SELECT DISTINCT report, entry, kind, sender, day FROM placed WHERE place <= $4),
             cause AS (SELECT kept.sender, kept.day, failure.report, failure.entry, failure.kind, failure.result_type, failure.host, ",
            total!("failure.sessions"),
            " AS sessions FROM failure JOIN kept
                    ON kept.report = failure.report AND kept.entry = failure.entry AND kept.kind = failure.kind
                WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2) AND failure.sessions > 0
                GROUP BY kept.sender, kept.day, failure.report, failure.entry, failure.kind, failure.result_type, failure.host),
             ranked AS (SELECT cause.report, cause.entry, cause.kind, cause.sessions, result.text AS result, host.text AS host,
                    row_number() OVER (PARTITION BY cause.report ORDER BY CASE WHEN result.text = $6 THEN 1 ELSE 0 END, cause.sessions DESC, cause.entry, cause.result_type, cause.host) AS of_report,
                    row_number() OVER (PARTITION BY cause.sender ORDER BY cause.day DESC, cause.sessions DESC, cause.report, cause.entry, cause.result_type, cause.host) AS of_sender
                FROM cause JOIN name AS result ON result.id = cause.result_type JOIN name AS host ON host.id = cause.host)
             SELECT report, entry, kind, result, host, sessions FROM ranked WHERE of_report <= $5 AND of_sender <= $4
             UNION ALL
             SELECT report, entry, kind, CAST($6 AS TEXT), '', ",
            total!("sessions"),
            " FROM ranked WHERE of_report > $5 OR of_sender > $4 GROUP BY report, entry, kind"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(count(SENDER_RESULTS as u64))
        .bind(count(REPORT_CAUSES as u64))
        .bind(OTHER_CAUSES)
        .fetch_all(self)
        .await?;
        let mut found: BTreeMap<_, Failures> = BTreeMap::new();
        for (report, entry, kind, result_type, host, sessions) in rows {
            let sessions = u64::try_from(sessions).map_err(damaged("failure"))?;
            let of_result = found.entry((report, entry, kind)).or_default();
            if result_type == OTHER_CAUSES {
                of_result.unlisted = of_result.unlisted.saturating_add(sessions);
            } else {
                of_result.listed.push(FailureSum { result_type, host, sessions });
            }
        }
        let by_name = |one: &FailureSum, other: &FailureSum| {
            (&one.result_type, &one.host).cmp(&(&other.result_type, &other.host))
        };
        found.values_mut().for_each(|failures| failures.listed.sort_by(by_name));
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

    /// Returns the daily sums of these domains since `since`, by domain name. Domains without reports are omitted. The query
    /// packs all days of a domain into one row.
    pub async fn days_of_each(
        &self,
        domains: &[&str],
        since: Timestamp,
    ) -> Result<BTreeMap<String, Vec<DaySum>>, StoreError> {
        let mut all = BTreeMap::new();
        for batch in domains.chunks(BATCH_ROWS) {
            let text =
                format!("{PACKED_DAYS} AND name.text IN ({}) GROUP BY name.text", parameters(batch.len()));
            let head = [self.tenant.into(), since.as_second().into()];
            let query = unnumbered(text, head.into_iter().chain(batch.iter().map(|name| (*name).into())));
            for (domain, packed) in query.fetch_all::<(String, String)>(self).await? {
                all.insert(domain, unpacked(&packed)?);
            }
        }
        Ok(all)
    }

    /// As [`Store::days_of_each`], of all domains.
    #[cfg(test)]
    pub(crate) async fn days_of_all(
        &self,
        since: Timestamp,
    ) -> Result<BTreeMap<String, Vec<DaySum>>, StoreError> {
        let text = format!("{PACKED_DAYS} GROUP BY name.text");
        let rows = unnumbered(text, [self.tenant.into(), since.as_second().into()])
            .fetch_all::<(String, String)>(self);
        rows.await?.into_iter().map(|(domain, packed)| Ok((domain, unpacked(&packed)?))).collect()
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

/// All days of a domain in one text.
const PACKED_DAYS: &str = "SELECT name.text,
        string_agg(concat_ws(' ', day, CAST(successful AS BIGINT), CAST(failed AS BIGINT), CAST(sts_sessions AS BIGINT), tainted, CAST(unproved AS BIGINT)), ' ')
     FROM domain_day JOIN name ON name.id = domain WHERE tenant = ? AND day + 86400 > ?";

fn unpacked(packed: &str) -> Result<Vec<DaySum>, StoreError> {
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
    Ok(days)
}

/// The failures of one result of a report.
#[derive(Default)]
struct Failures {
    listed: Vec<FailureSum>,
    unlisted: u64,
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
            unlisted: 0,
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

#[cfg(test)]
mod tests;
