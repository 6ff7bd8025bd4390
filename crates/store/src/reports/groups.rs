//! Failures about a domain by result type and MX host, and sessions by type of policy. Addresses are not told apart, since
//! a large sender or a host with two stacks would then take up many rows.

use super::about::unsigned;
use super::{Trust, kind_of};
use crate::query::{FromRow, Row, sql, total};
use crate::{Store, StoreError, time};
use formats::DomainName;
use formats::result_type::PolicyType;
use jiff::Timestamp;
use serde::Serialize;

/// Failures of one result type at one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FailureGroup {
    /// The name of the result type (RFC 8460 §4.3).
    pub result_type: String,
    /// The MX host; empty if the reports name none.
    pub host: String,
    /// Whether the reports count as evidence.
    pub counts: bool,
    /// The number of failed sessions.
    pub sessions: u64,
    /// The number of senders that reported it. All names below one registrable domain are one sender.
    pub senders: u64,
    /// The submitter's domain of one of these senders.
    pub sender: String,
    /// The number of distinct addresses of the host, with one for reports that name none.
    pub addresses: u64,
    /// One of these addresses; empty if the reports name none.
    pub address: String,
    /// The first second of the first UTC day with such failures.
    pub first: Timestamp,
    /// The first second of the last UTC day with such failures.
    pub last: Timestamp,
    /// The row id of the newest report with such failures.
    pub report: i64,
}

/// The sessions under policies of one type, in reports that count as evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindSum {
    /// The type of the policies.
    pub kind: PolicyType,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
    /// The first second of the last UTC day with such sessions.
    pub last: Timestamp,
}

impl FromRow for FailureGroup {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            result_type: row.get()?,
            host: row.get()?,
            counts: row.get::<i64>()? != 0,
            sessions: unsigned(row)?,
            senders: unsigned(row)?,
            sender: row.get()?,
            addresses: unsigned(row)?,
            address: row.get()?,
            first: time("failure", row.get()?)?,
            last: time("failure", row.get()?)?,
            report: row.get()?,
        })
    }
}

impl FromRow for KindSum {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            kind: kind_of(row.get()?),
            successful: unsigned(row)?,
            failed: unsigned(row)?,
            last: time("outcome", row.get()?)?,
        })
    }
}

impl Store {
    /// Returns the sessions of a domain since `since` by the type of the policy, in reports that count as evidence.
    pub async fn sessions_by_kind(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<KindSum>, StoreError> {
        sql(concat!(
            "SELECT outcome.kind, ",
            total!("outcome.successful"),
            ", ",
            total!("outcome.failed"),
            ", max(outcome.day) FROM outcome JOIN report ON report.id = outcome.report
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 > $3 AND report.trust >= $4
             GROUP BY outcome.kind ORDER BY outcome.kind"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(Trust::Trusted as i64)
        .fetch_all(self)
        .await
    }
}
