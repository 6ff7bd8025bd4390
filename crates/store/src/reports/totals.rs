//! Sums over received reports for the metrics. The names of domains and submitters come from strangers, so domains are
//! selected by a list of the caller's, and submitters are limited.

use super::Trust;
use super::about::unsigned;
use super::columns::BATCH_ROWS;
use crate::query::{FromRow, Row, parameters, sql, total, unnumbered};
use crate::{Store, StoreError, time};
use jiff::Timestamp;

/// The sums of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainTotal {
    /// The domain; empty for a sum over several domains.
    pub domain: String,
    /// Successful sessions in reports that count as evidence.
    pub successful: u64,
    /// Failed sessions in reports that count as evidence.
    pub failed: u64,
    /// Sessions of both kinds in other reports.
    pub unproved: u64,
}

/// The sums of one submitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitterTotal {
    /// The submitter's domain; empty for the sum of all submitters.
    pub submitter: String,
    /// The number of successful sessions.
    pub successful: u64,
    /// The number of failed sessions.
    pub failed: u64,
}

/// The newest report about a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastReport {
    /// The domain that the report is about.
    pub domain: String,
    /// Whether the report counts as evidence.
    pub counts: bool,
    /// When the report arrived.
    pub received_at: Timestamp,
}

impl FromRow for DomainTotal {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            domain: row.get()?,
            successful: unsigned(row)?,
            failed: unsigned(row)?,
            unproved: unsigned(row)?,
        })
    }
}

impl FromRow for SubmitterTotal {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self { submitter: row.get()?, successful: unsigned(row)?, failed: unsigned(row)? })
    }
}

impl FromRow for LastReport {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            domain: row.get()?,
            counts: row.get::<i64>()? != 0,
            received_at: time("report", row.get()?)?,
        })
    }
}

const DOMAINS: &str = concat!(
    "SELECT name.text, ",
    total!("successful"),
    ", ",
    total!("failed"),
    ", ",
    total!("unproved"),
    " FROM domain_day JOIN name ON name.id = domain WHERE tenant = ? AND day >= ? AND name.text IN"
);

const LAST: &str = "SELECT name.text, CAST(report.trust >= ? AS INTEGER) AS counts, max(report.received_at)
     FROM outcome JOIN report ON report.id = outcome.report JOIN name ON name.id = outcome.domain
     WHERE outcome.tenant = ? AND outcome.day >= ? AND name.text IN";

const SUBMITTERS: &str = concat!(
    "SELECT name.text, ",
    total!("successful"),
    ", ",
    total!("failed"),
    " FROM submitter_day JOIN name ON name.id = submitter
     WHERE tenant = $1 AND counts = $2 AND day >= $3 AND reports > 0
     GROUP BY name.text
     ORDER BY sum(CAST(successful AS DOUBLE PRECISION) + CAST(failed AS DOUBLE PRECISION)) DESC, name.text LIMIT $4"
);

const ALL_SUBMITTERS: &str = concat!(
    "SELECT '', ",
    total!("successful"),
    ", ",
    total!("failed"),
    " FROM submitter_day WHERE tenant = $1 AND counts = $2 AND day >= $3 AND reports > 0"
);

impl Store {
    /// Returns the sums of these domains over the days since `since`. Domains without reports are omitted.
    pub async fn domain_totals(
        &self,
        domains: &[&str],
        since: Timestamp,
    ) -> Result<Vec<DomainTotal>, StoreError> {
        let mut found = Vec::new();
        for batch in domains.chunks(BATCH_ROWS) {
            let text = format!("{DOMAINS} ({}) GROUP BY name.text", parameters(batch.len()));
            let head = [self.tenant.into(), since.as_second().into()];
            let names = batch.iter().map(|name| (*name).into());
            found.extend(
                unnumbered(text, head.into_iter().chain(names)).fetch_all::<DomainTotal>(self).await?,
            );
        }
        Ok(found)
    }

    /// Returns when the newest report about each of these domains arrived, those that count as evidence and the others
    /// apart. Reports about days before `since` are omitted.
    pub async fn last_reports(
        &self,
        domains: &[&str],
        since: Timestamp,
    ) -> Result<Vec<LastReport>, StoreError> {
        let mut found = Vec::new();
        for batch in domains.chunks(BATCH_ROWS) {
            let text = format!("{LAST} ({}) GROUP BY name.text, counts", parameters(batch.len()));
            let head = [(Trust::Trusted as i64).into(), self.tenant.into(), since.as_second().into()];
            let names = batch.iter().map(|name| (*name).into());
            found
                .extend(unnumbered(text, head.into_iter().chain(names)).fetch_all::<LastReport>(self).await?);
        }
        Ok(found)
    }

    /// Returns the sums of the `most` submitters with the most sessions since `since`, and behind them the sum of all
    /// submitters. `counts` selects the reports that count as evidence, or the others.
    pub async fn submitter_totals(
        &self,
        counts: bool,
        since: Timestamp,
        most: u32,
    ) -> Result<Vec<SubmitterTotal>, StoreError> {
        let query = sql(SUBMITTERS).bind(self.tenant).bind(counts).bind(since.as_second());
        let mut found: Vec<SubmitterTotal> = query.bind(most).fetch_all(self).await?;
        let all = sql(ALL_SUBMITTERS).bind(self.tenant).bind(counts).bind(since.as_second());
        found.push(all.fetch_one(self).await?);
        Ok(found)
    }
}
