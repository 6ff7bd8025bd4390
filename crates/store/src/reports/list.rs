//! Searches for reports and reads single reports, for the dashboard and `sternpost reports`.

use super::{Arrival, Trust, range};
use crate::{Store, StoreError, TENANT, damaged, time};
use formats::report::DateRange;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{QueryBuilder, Row, Sqlite};

/// Selects the reports that [`Store::reports`] returns.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Only reports about this domain.
    pub domain: Option<String>,
    /// Only reports from this submitter.
    pub submitter: Option<String>,
    /// Only reports with failed sessions.
    pub failed: bool,
    /// Only reports with smaller row ids, which were stored earlier. Used for paging.
    pub before: Option<i64>,
    /// The maximum number of reports to return.
    pub most: u32,
}

/// The summary of a report in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedReport {
    /// The row id.
    pub id: i64,
    /// The domain of the report's sender.
    pub submitter: String,
    /// The `organization-name` of the report.
    pub organization: String,
    /// The `report-id` that the sender assigned.
    pub report_id: String,
    /// The start of the time that the report covers.
    pub start: Timestamp,
    /// The end of the time that the report covers.
    pub end: Timestamp,
    /// The policy domains that the report is about.
    pub domains: Vec<String>,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
    /// How far the report is trusted.
    pub trust: Trust,
    /// How the report arrived.
    #[serde(rename = "way")]
    pub arrival: Arrival,
    /// When the report arrived.
    pub received_at: Timestamp,
    /// The number of deviations from RFC 8460 that the parser found.
    pub warnings: u64,
}

/// A stored report with its full text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReport {
    /// The summary.
    pub listed: ListedReport,
    /// The domain of the verified DKIM signature; `None` if there is none.
    pub signer: Option<String>,
    /// The time that the report covers.
    pub range: DateRange,
    /// The JSON text as received, compressed by gzip.
    pub packed: Vec<u8>,
}

const LISTED: &str = "SELECT report.id, submitter.text, organization.text, report.report_id, report.range_start, report.range_end,
    report.trust, report.way, report.received_at, report.warnings,
    (SELECT group_concat(DISTINCT name.text) FROM outcome JOIN name ON name.id = outcome.domain WHERE outcome.report = report.id),
    (SELECT CAST(total(successful) AS INTEGER) FROM outcome WHERE outcome.report = report.id),
    (SELECT CAST(total(failed) AS INTEGER) FROM outcome WHERE outcome.report = report.id)";
const FROM: &str = " FROM report JOIN name AS submitter ON submitter.id = report.submitter JOIN name AS organization ON organization.id = report.organization WHERE report.tenant = ";

impl Store {
    /// Returns the reports that match `search`, newest first.
    pub async fn reports(&self, search: &Search) -> Result<Vec<ListedReport>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(LISTED);
        query.push(FROM).push_bind(TENANT);
        if let Some(domain) = &search.domain {
            query
                .push(" AND report.id IN (SELECT report FROM outcome WHERE tenant = ")
                .push_bind(TENANT)
                .push(" AND domain = (SELECT id FROM name WHERE text = ")
                .push_bind(domain)
                .push("))");
        }
        if let Some(submitter) = &search.submitter {
            query.push(" AND submitter.text = ").push_bind(submitter);
        }
        if search.failed {
            query.push(
                " AND EXISTS (SELECT 1 FROM outcome WHERE outcome.report = report.id AND outcome.failed > 0)",
            );
        }
        if let Some(before) = search.before {
            query.push(" AND report.id < ").push_bind(before);
        }
        query.push(" ORDER BY report.id DESC LIMIT ").push_bind(search.most);
        let rows = query.build().fetch_all(&self.pool).await?;
        rows.iter().map(listed).collect()
    }

    /// Returns the report with this row id.
    pub async fn report(&self, id: i64) -> Result<Option<StoredReport>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new(LISTED);
        query.push(", report.packed, (SELECT text FROM name WHERE id = report.signer)");
        query.push(FROM).push_bind(TENANT).push(" AND report.id = ").push_bind(id);
        let Some(row) = query.build().fetch_optional(&self.pool).await? else { return Ok(None) };
        Ok(Some(StoredReport {
            listed: listed(&row)?,
            range: range(row.try_get(4)?, row.try_get(5)?)?,
            packed: row.try_get(13)?,
            signer: row.try_get(14)?,
        }))
    }

    /// Returns the number of stored reports.
    pub async fn report_count(&self) -> Result<u64, StoreError> {
        let query = sqlx::query_as("SELECT value FROM version WHERE name = 'report count'");
        let (all,): (i64,) = query.fetch_one(&self.pool).await?;
        u64::try_from(all).map_err(damaged("report"))
    }
}

fn listed(row: &sqlx::sqlite::SqliteRow) -> Result<ListedReport, StoreError> {
    let count = |at: usize| -> Result<u64, StoreError> {
        row.try_get::<i64, _>(at)?.try_into().map_err(damaged("report"))
    };
    let domains: Option<String> = row.try_get(10)?;
    Ok(ListedReport {
        id: row.try_get(0)?,
        submitter: row.try_get(1)?,
        organization: row.try_get(2)?,
        report_id: row.try_get(3)?,
        start: time("report", row.try_get(4)?)?,
        end: time("report", row.try_get(5)?)?,
        trust: Trust::parse(row.try_get(6)?)?,
        arrival: Arrival::parse(row.try_get(7)?)?,
        received_at: time("report", row.try_get(8)?)?,
        warnings: count(9)?,
        domains: domains.unwrap_or_default().split(',').map(str::to_owned).collect(),
        successful: count(11)?,
        failed: count(12)?,
    })
}
