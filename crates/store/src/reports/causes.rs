//! Failures by cause, for alerts, pages and lists. Every sender has a share of what is listed, so that no sender can hide the
//! failures that others report behind causes that it has invented.

use super::about::unsigned;
use super::columns::count;
use super::groups::FailureGroup;
use super::{Trust, kind_of};
use crate::query::{FromRow, Query, Row, sql, total};
use crate::{Store, StoreError, time};
use formats::DomainName;
use formats::limits::SENDER_CAUSES;
use formats::result_type::PolicyType;
use jiff::Timestamp;
use serde::Serialize;
use std::cmp::Reverse;

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
    /// The number of senders that reported it. All names below one registrable domain are one sender.
    pub senders: u64,
    /// The submitter's domain of one of these senders.
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

/// An expression for the sender of a report: the registrable domain that signed it. The sender of a report that is not
/// signed is what it says, by the way on which it came.
macro_rules! sender {
    () => {
        "CASE WHEN report.signer IS NULL THEN concat_ws(' ', report.source, report.submitter) ELSE report.source END"
    };
}
pub(super) use sender;

/// Common table expressions: the failures about domain `$2` of tenant `$1` since `$3` by sender and cause. `counts` tells
/// whether the reports have at least the trust `$4`; `place` ranks the causes of each sender by their sessions.
macro_rules! ranked {
    () => {
        concat!(
            "WITH of_sender AS (SELECT ",
            sender!(),
            " AS sender, failure.result_type, failure.host, failure.address, failure.kind,
                CAST(report.trust >= $4 AS INTEGER) AS counts, ",
            total!("failure.sessions"),
            " AS sessions, min(report.submitter) AS submitter, min(failure.day) AS first_day, max(failure.day) AS last_day,
                max(report.id) AS report
             FROM failure JOIN report ON report.id = failure.report
             WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2)
               AND failure.day + 86400 > $3 AND failure.sessions > 0
             GROUP BY 1, failure.result_type, failure.host, failure.address, failure.kind, counts),
            ranked AS (SELECT of_sender.*,
                row_number() OVER (PARTITION BY sender, counts ORDER BY sessions DESC, result_type, host, address, kind) AS place
             FROM of_sender) "
        )
    };
}

impl Store {
    /// Returns up to 200 causes of failures of a domain since `since`. Causes that count as evidence come first, then the
    /// most frequent. If there are more, the most frequent of each sender are returned, at most [`SENDER_CAUSES`] of each.
    pub async fn causes_of(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<CauseSum>, StoreError> {
        let query = sql(concat!(
            ranked!(),
            "SELECT result.text, host.text, ranked.address, ranked.kind, ",
            total!("ranked.sessions"),
            ", count(DISTINCT ranked.sender), min(submitter.text), min(ranked.first_day), max(ranked.last_day), max(ranked.report), ranked.counts
             FROM ranked JOIN name AS result ON result.id = ranked.result_type JOIN name AS host ON host.id = ranked.host
             JOIN name AS submitter ON submitter.id = ranked.submitter
             GROUP BY result.text, host.text, ranked.address, ranked.kind, ranked.counts HAVING min(ranked.place) <= $5
             ORDER BY ranked.counts DESC, min(ranked.place), count(DISTINCT ranked.sender) DESC, 5 DESC, result.text, host.text LIMIT 200"
        ));
        let mut causes: Vec<CauseSum> = self.ranked(query, domain, since).fetch_all(self).await?;
        causes.sort_by_key(|cause| Reverse((cause.counts, cause.sessions)));
        Ok(causes)
    }

    /// Returns up to 200 groups of failures of a domain since `since`, selected and ordered like the causes.
    pub async fn failure_groups(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<FailureGroup>, StoreError> {
        let query = sql(concat!(
            ranked!(),
            "SELECT result.text, host.text, ranked.counts, ",
            total!("ranked.sessions"),
            ", count(DISTINCT ranked.sender), min(submitter.text), count(DISTINCT ranked.address), max(ranked.address),
                min(ranked.first_day), max(ranked.last_day), max(ranked.report)
             FROM ranked JOIN name AS result ON result.id = ranked.result_type JOIN name AS host ON host.id = ranked.host
             JOIN name AS submitter ON submitter.id = ranked.submitter
             GROUP BY result.text, host.text, ranked.counts HAVING min(ranked.place) <= $5
             ORDER BY ranked.counts DESC, min(ranked.place), count(DISTINCT ranked.sender) DESC, 4 DESC, result.text, host.text LIMIT 200"
        ));
        let mut groups: Vec<FailureGroup> = self.ranked(query, domain, since).fetch_all(self).await?;
        groups.sort_by_key(|group| Reverse((group.counts, group.sessions)));
        Ok(groups)
    }

    fn ranked<'v>(&self, query: Query<'v>, domain: &'v DomainName, since: Timestamp) -> Query<'v> {
        query
            .bind(self.tenant)
            .bind(domain.as_str())
            .bind(since.as_second())
            .bind(Trust::Trusted as i64)
            .bind(count(SENDER_CAUSES as u64))
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
