//! Daily session counts by submitter and by MX host, for the charts of the dashboard. Only reports that count as
//! evidence are included. A report over several days is counted on its first day.

use super::Trust;
use super::about::unsigned;
use crate::query::{FromRow, Row, sql, total};
use crate::{Store, StoreError, time};
use formats::DomainName;
use jiff::Timestamp;
use serde::Serialize;

/// The sums of one submitter or MX host for one UTC day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trend {
    /// The submitter's domain or the MX host's name.
    pub name: String,
    /// The first second of the day.
    pub day: Timestamp,
    /// The number of successful sessions. Always 0 for a host, since reports name hosts only for failures.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
}

/// The maximum number of rows that one query returns.
const MAX_ROWS: i64 = 50_000;

impl FromRow for Trend {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            name: row.get()?,
            day: time("outcome", row.get()?)?,
            successful: unsigned(row)?,
            failed: unsigned(row)?,
        })
    }
}

impl Store {
    /// Returns the daily sums of each submitter about a domain since `since`.
    pub async fn senders_by_day(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<Trend>, StoreError> {
        sql(concat!(
            "SELECT submitter.text, outcome.day, ",
            total!("outcome.successful"),
            ", ",
            total!("outcome.failed"),
            " FROM outcome JOIN report ON report.id = outcome.report JOIN name AS submitter ON submitter.id = report.submitter
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 > $3 AND report.trust >= $4
             GROUP BY submitter.text, outcome.day ORDER BY submitter.text, outcome.day LIMIT $5"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(Trust::Trusted as i64)
        .bind(MAX_ROWS)
        .fetch_all(self)
        .await
    }

    /// Returns the daily failed sessions of each MX host of a domain since `since`. Failures that name no host are
    /// omitted.
    pub async fn hosts_by_day(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<Trend>, StoreError> {
        sql(concat!(
            "SELECT host.text, failure.day, 0, ",
            total!("failure.sessions"),
            " FROM failure JOIN report ON report.id = failure.report JOIN name AS host ON host.id = failure.host
             WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2)
               AND failure.day + 86400 > $3 AND report.trust >= $4 AND host.text <> '' AND failure.sessions > 0
             GROUP BY host.text, failure.day ORDER BY host.text, failure.day LIMIT $5"
        ))
        .bind(self.tenant)
        .bind(domain.as_str())
        .bind(since.as_second())
        .bind(Trust::Trusted as i64)
        .bind(MAX_ROWS)
        .fetch_all(self)
        .await
    }

    /// Returns the daily sums of each submitter about all domains since `since`.
    pub async fn all_senders_by_day(&self, since: Timestamp) -> Result<Vec<Trend>, StoreError> {
        sql(
            "SELECT name.text, day, CAST(successful AS BIGINT), CAST(failed AS BIGINT) FROM submitter_day JOIN name ON name.id = submitter
             WHERE tenant = $1 AND day + 86400 > $2 AND counts = 1 AND reports > 0
             ORDER BY name.text, day LIMIT $3",
        )
        .bind(self.tenant)
        .bind(since.as_second())
        .bind(MAX_ROWS)
        .fetch_all(self)
        .await
    }
}
