//! Reports one by one: found, and read.

use super::{Arrival, Trust, range};
use crate::{Store, StoreError, TENANT, damaged, time};
use formats::report::DateRange;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{QueryBuilder, Row, Sqlite};

/// Which reports.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// About this domain only.
    pub domain: Option<String>,
    /// From this submitter only.
    pub submitter: Option<String>,
    /// Only those with failures.
    pub failed: bool,
    /// Older ones than this number.
    pub before: Option<i64>,
    /// At most so many.
    pub most: u32,
}

/// A report in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedReport {
    /// Its number here.
    pub id: i64,
    /// Who sent it.
    pub submitter: String,
    /// The name that it gives itself.
    pub organization: String,
    /// The identity that its sender gave it.
    pub report_id: String,
    /// The first second that it covers.
    pub start: Timestamp,
    /// The last.
    pub end: Timestamp,
    /// About whom.
    pub domains: Vec<String>,
    /// Sessions that worked.
    pub successful: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// How far it is believed.
    pub trust: Trust,
    /// How it came.
    #[serde(rename = "way")]
    pub arrival: Arrival,
    /// When it came.
    pub received_at: Timestamp,
    /// How many oddities it has.
    pub warnings: u64,
}

/// A report, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReport {
    /// What is listed of it.
    pub listed: ListedReport,
    /// Who signed it.
    pub signer: Option<String>,
    /// What it covers.
    pub range: DateRange,
    /// Its JSON text as it came, with gzip.
    pub packed: Vec<u8>,
}

const LISTED: &str = "SELECT report.id, submitter.text, organization.text, report.report_id, report.range_start, report.range_end,
    report.trust, report.way, report.received_at, report.warnings,
    (SELECT group_concat(DISTINCT name.text) FROM outcome JOIN name ON name.id = outcome.domain WHERE outcome.report = report.id),
    (SELECT CAST(total(successful) AS INTEGER) FROM outcome WHERE outcome.report = report.id),
    (SELECT CAST(total(failed) AS INTEGER) FROM outcome WHERE outcome.report = report.id)";
const FROM: &str = " FROM report JOIN name AS submitter ON submitter.id = report.submitter JOIN name AS organization ON organization.id = report.organization WHERE report.tenant = ";

impl Store {
    /// Reports, the newest first.
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

    /// One report.
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

    /// How many reports there are.
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
