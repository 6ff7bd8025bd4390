//! The reports that arrived after a given one, for the webhook. A list is bounded in every direction, since strangers send
//! reports and choose what is in them.

use super::about::unsigned;
use super::{Arrival, Trust};
use crate::query::{FromRow, Query, Row, built, sql, total};
use crate::{Store, StoreError, Tenant, time};
use jiff::Timestamp;

/// Selects reports by the order in which they were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhichReports {
    /// Only reports with larger row ids.
    pub after: i64,
    /// Only reports with this row id or smaller ones.
    pub to: i64,
    /// Only reports with failed sessions.
    pub failed: bool,
}

/// The summary of a report that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrivedReport {
    /// The row id.
    pub id: i64,
    /// The domain of the report's sender.
    pub submitter: String,
    /// The `report-id` that the sender assigned.
    pub report_id: String,
    /// The start of the time that the report covers.
    pub start: Timestamp,
    /// The end of the time that the report covers.
    pub end: Timestamp,
    /// How far the report is trusted.
    pub trust: Trust,
    /// How the report arrived.
    pub arrival: Arrival,
    /// When the report arrived.
    pub received_at: Timestamp,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
    /// Policy domains of the report, in alphabetical order, at most as many as were asked for.
    pub domains: Vec<String>,
}

/// The sums of reports that arrived, of those that count as evidence or of the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArrivedCounts {
    /// Whether the reports count as evidence.
    pub counts: bool,
    /// The number of reports.
    pub reports: u64,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
}

impl FromRow for ArrivedReport {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get()?,
            submitter: row.get()?,
            report_id: row.get()?,
            start: time("report", row.get()?)?,
            end: time("report", row.get()?)?,
            trust: Trust::parse(row.get()?)?,
            arrival: Arrival::parse(row.get()?)?,
            received_at: time("report", row.get()?)?,
            successful: unsigned(row)?,
            failed: unsigned(row)?,
            domains: Vec::new(),
        })
    }
}

impl FromRow for ArrivedCounts {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            counts: row.get::<i64>()? != 0,
            reports: unsigned(row)?,
            successful: unsigned(row)?,
            failed: unsigned(row)?,
        })
    }
}

const LISTED: &str = concat!(
    "SELECT report.id, submitter.text, report.report_id, report.range_start, report.range_end, report.trust, report.way,
     report.received_at, (SELECT ",
    total!("successful"),
    " FROM outcome WHERE outcome.report = report.id), (SELECT ",
    total!("failed"),
    " FROM outcome WHERE outcome.report = report.id)
     FROM report JOIN name AS submitter ON submitter.id = report.submitter"
);

const COUNTED: &str = concat!(
    "SELECT CAST(report.trust >= $4 AS INTEGER) AS counts, count(DISTINCT report.id), ",
    total!("outcome.successful"),
    ", ",
    total!("outcome.failed"),
    " FROM report LEFT JOIN outcome ON outcome.report = report.id"
);

impl WhichReports {
    /// The statement that begins with `head`, has these conditions, and ends with `tail`; the next parameter is `$4`.
    fn select(self, tenant: Tenant, head: &str, tail: &str) -> Query<'static> {
        let failed = match self.failed {
            true => {
                " AND EXISTS (SELECT 1 FROM outcome AS bad WHERE bad.report = report.id AND bad.failed > 0)"
            }
            false => "",
        };
        let text = format!(
            "{head} WHERE report.tenant = $1 AND report.id > $2 AND report.id <= $3 AND report.is_expired = 0{failed} {tail}"
        );
        built(text).bind(tenant).bind(self.after).bind(self.to)
    }
}

impl Store {
    /// Returns up to `most` of these reports, the most trusted first, each with up to `domains` of its domains.
    pub async fn arrived(
        &self,
        which: WhichReports,
        most: u32,
        domains: u32,
    ) -> Result<Vec<ArrivedReport>, StoreError> {
        let query =
            which.select(self.tenant, LISTED, "ORDER BY report.trust DESC, report.id LIMIT $4").bind(most);
        let mut found: Vec<ArrivedReport> = query.fetch_all(self).await?;
        for report in &mut found {
            let names: Vec<(String,)> =
                sql("SELECT DISTINCT name.text FROM outcome JOIN name ON name.id = outcome.domain
                 WHERE outcome.report = $1 ORDER BY name.text LIMIT $2")
                .bind(report.id)
                .bind(domains)
                .fetch_all(self)
                .await?;
            report.domains = names.into_iter().map(|(name,)| name).collect();
        }
        Ok(found)
    }

    /// Returns the sums of these reports, those that count as evidence and the others apart.
    pub async fn count_arrived(&self, which: WhichReports) -> Result<Vec<ArrivedCounts>, StoreError> {
        let query = which.select(self.tenant, COUNTED, "GROUP BY counts ORDER BY counts DESC");
        query.bind(Trust::Trusted as i64).fetch_all(self).await
    }
}
