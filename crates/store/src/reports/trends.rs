//! How sessions go from day to day, by who reported them and by the MX host that they were at; of reports that count
//! as evidence.

use super::Trust;
use super::about::unsigned;
use crate::{Store, StoreError, TENANT, time};
use formats::DomainName;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// A day of a submitter or of an MX host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trend {
    /// Whose.
    pub name: String,
    /// Its first second.
    pub day: Timestamp,
    /// Sessions that worked; always 0 of a host, since reports name hosts of failures only.
    pub successful: u64,
    /// Sessions that failed.
    pub failed: u64,
}

/// Rows of one answer.
const MAX_ROWS: i64 = 50_000;

fn trend(row: &SqliteRow) -> Result<Trend, StoreError> {
    Ok(Trend {
        name: row.try_get(0)?,
        day: time("outcome", row.try_get(1)?)?,
        successful: unsigned(row, 2)?,
        failed: unsigned(row, 3)?,
    })
}

impl Store {
    /// What each submitter reports about a domain since `since`, day by day.
    pub async fn senders_by_day(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<Trend>, StoreError> {
        let rows = sqlx::query(
            "SELECT submitter.text, outcome.day, CAST(total(outcome.successful) AS INTEGER), CAST(total(outcome.failed) AS INTEGER)
             FROM outcome JOIN report ON report.id = outcome.report JOIN name AS submitter ON submitter.id = report.submitter
             WHERE outcome.tenant = $1 AND outcome.domain = (SELECT id FROM name WHERE text = $2)
               AND outcome.day + 86400 > $3 AND report.trust >= $4
             GROUP BY report.submitter, outcome.day ORDER BY submitter.text, outcome.day LIMIT $5",
        );
        self.trends(
            rows.bind(TENANT).bind(domain.as_str()).bind(since.as_second()).bind(Trust::Trusted as i64),
        )
        .await
    }

    /// Failed sessions of a domain since `since` by MX host, day by day; failures that name no host are left out.
    pub async fn hosts_by_day(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<Trend>, StoreError> {
        let rows = sqlx::query(
            "SELECT host.text, failure.day, 0, CAST(total(failure.sessions) AS INTEGER)
             FROM failure JOIN report ON report.id = failure.report JOIN name AS host ON host.id = failure.host
             WHERE failure.tenant = $1 AND failure.domain = (SELECT id FROM name WHERE text = $2)
               AND failure.day + 86400 > $3 AND report.trust >= $4 AND host.text <> '' AND failure.sessions > 0
             GROUP BY failure.host, failure.day ORDER BY host.text, failure.day LIMIT $5",
        );
        self.trends(
            rows.bind(TENANT).bind(domain.as_str()).bind(since.as_second()).bind(Trust::Trusted as i64),
        )
        .await
    }

    /// What each submitter reports about all domains since `since`, day by day, from sums.
    pub async fn all_senders_by_day(&self, since: Timestamp) -> Result<Vec<Trend>, StoreError> {
        let rows = sqlx::query(
            "SELECT name.text, day, CAST(successful AS INTEGER), CAST(failed AS INTEGER) FROM submitter_day JOIN name ON name.id = submitter
             WHERE tenant = $1 AND day + 86400 > $2 AND counts = $3 AND reports > 0
             ORDER BY name.text, day LIMIT $4",
        );
        self.trends(rows.bind(TENANT).bind(since.as_second()).bind(1_i64)).await
    }

    /// Asks; the last thing bound is how many rows may come.
    async fn trends(
        &self,
        rows: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Vec<Trend>, StoreError> {
        rows.bind(MAX_ROWS).fetch_all(&self.pool).await?.iter().map(trend).collect()
    }
}
