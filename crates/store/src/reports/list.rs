//! Searches for reports and reads single reports, for the dashboard and `sternpost reports`.

use super::{Arrival, Trust};
use crate::query::{FromRow, Row, Value, built, total};
use crate::writing::TenantCounter;
use crate::{Store, StoreError, Tenant, damaged, time};
use formats::limits::REPORT_EVIDENCE_DAYS;
use formats::report::DateRange;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::fmt;

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
    /// The row id, which commands and pages show as the report's number.
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
    /// Whether the report is evidence, or why not.
    pub evidence: EvidenceStatus,
    /// The domain of the mail, if it is known; the results about its MX hosts may be filed under it.
    pub about: Option<String>,
}

/// Whether a report is evidence for or against enforcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceStatus {
    /// The report counts as evidence, except for other policies than the present one.
    Counts,
    /// The report has no valid signature, and the operator does not vouch for it.
    NotAuthenticated,
    /// The report arrived more than [`REPORT_EVIDENCE_DAYS`] after its period.
    Late,
}

impl EvidenceStatus {
    /// True for [`EvidenceStatus::Late`].
    pub fn is_late(self) -> bool {
        self == Self::Late
    }

    /// The standing of a report that covers time until `end`.
    pub fn of(trust: Trust, end: Timestamp, received_at: Timestamp) -> Self {
        let is_late = received_at.duration_since(end)
            > SignedDuration::from_hours(24 * i64::from(REPORT_EVIDENCE_DAYS));
        match trust {
            Trust::Failed | Trust::Unverified => Self::NotAuthenticated,
            Trust::Verified if is_late => Self::Late,
            Trust::Verified | Trust::Trusted => Self::Counts,
        }
    }
}

impl fmt::Display for EvidenceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counts => f.write_str("counts as evidence"),
            Self::NotAuthenticated => f.write_str("no evidence, since it has no valid signature"),
            Self::Late => {
                write!(
                    f,
                    "no evidence, since it arrived more than {REPORT_EVIDENCE_DAYS} days after its period"
                )
            }
        }
    }
}

/// A stored report with its full text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReport {
    /// The fields that lists of reports show.
    pub listed: ListedReport,
    /// The domain of the verified DKIM signature; `None` if there is none.
    pub signer: Option<String>,
    /// The time that the report covers.
    pub range: DateRange,
    /// The JSON text as received, compressed by gzip.
    pub packed: Vec<u8>,
}

const LISTED: &str = concat!(
    "SELECT report.id, submitter.text, organization.text, report.report_id, report.range_start, report.range_end,
     report.trust, report.way, report.received_at, report.warnings,
     (SELECT string_agg(about.text, ',') FROM (SELECT DISTINCT name.text FROM outcome JOIN name ON name.id = outcome.domain WHERE outcome.report = report.id) AS about),
     (SELECT ",
    total!("successful"),
    " FROM outcome WHERE outcome.report = report.id), (SELECT ",
    total!("failed"),
    " FROM outcome WHERE outcome.report = report.id), (SELECT text FROM name WHERE id = report.about)"
);
const FROM: &str = " FROM report JOIN name AS submitter ON submitter.id = report.submitter JOIN name AS organization ON organization.id = report.organization WHERE report.tenant = $1 AND report.is_expired = 0";

impl Search {
    /// The statement that selects the reports, with its values.
    fn statement(&self, tenant: Tenant) -> (String, Vec<Value<'_>>) {
        let mut text = format!("{LISTED}{FROM}");
        let mut values = vec![tenant.into()];
        let mut add = |text: &mut String, condition: &str, value| {
            values.push(value);
            text.push_str(&condition.replace("$?", &format!("${}", values.len())));
        };
        if let Some(domain) = &self.domain {
            let condition = " AND report.id IN (SELECT report FROM outcome WHERE tenant = $1 AND domain = (SELECT id FROM name WHERE text = $?))";
            add(&mut text, condition, domain.into());
        }
        if let Some(submitter) = &self.submitter {
            add(&mut text, " AND submitter.text = $?", submitter.into());
        }
        if self.failed {
            text.push_str(
                " AND EXISTS (SELECT 1 FROM outcome WHERE outcome.report = report.id AND outcome.failed > 0)",
            );
        }
        if let Some(before) = self.before {
            add(&mut text, " AND report.id < $?", before.into());
        }
        add(&mut text, " ORDER BY report.id DESC LIMIT $?", self.most.into());
        (text, values)
    }
}

impl Store {
    /// Returns the reports that match `search`, newest first.
    pub async fn reports(&self, search: &Search) -> Result<Vec<ListedReport>, StoreError> {
        let (text, values) = search.statement(self.tenant);
        let mut query = built(text);
        query.values = values;
        query.fetch_all(self).await
    }

    /// Returns the report with this row id.
    pub async fn report(&self, id: i64) -> Result<Option<StoredReport>, StoreError> {
        let more = ", report.packed, (SELECT text FROM name WHERE id = report.signer)";
        let query = built(format!("{LISTED}{more}{FROM} AND report.id = $2"));
        query.bind(self.tenant).bind(id).fetch_optional(self).await
    }

    /// Returns the number of stored reports, without expired ones.
    pub async fn report_count(&self) -> Result<u64, StoreError> {
        u64::try_from(self.tenant_counter(TenantCounter::ReportCount).await?).map_err(damaged("report"))
    }
}

impl FromRow for ListedReport {
    /// Reads the columns of [`LISTED`].
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let count = |number: i64| u64::try_from(number).map_err(damaged("report"));
        let mut listed = Self {
            id: row.get()?,
            submitter: row.get()?,
            organization: row.get()?,
            report_id: row.get()?,
            start: time("report", row.get()?)?,
            end: time("report", row.get()?)?,
            trust: Trust::parse(row.get()?)?,
            arrival: Arrival::parse(row.get()?)?,
            received_at: time("report", row.get()?)?,
            warnings: count(row.get()?)?,
            domains: row.get::<Option<String>>()?.unwrap_or_default().split(',').map(str::to_owned).collect(),
            successful: count(row.get()?)?,
            failed: count(row.get()?)?,
            evidence: EvidenceStatus::Counts,
            about: row.get()?,
        };
        listed.evidence = EvidenceStatus::of(listed.trust, listed.end, listed.received_at);
        Ok(listed)
    }
}

impl FromRow for StoredReport {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        let listed = ListedReport::from_row(row)?;
        let range = DateRange { start: listed.start, end: listed.end };
        Ok(Self { range, packed: row.get()?, signer: row.get()?, listed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_reports_are_found_without_sorting_all_of_them() {
        // The plans of SQLite, whichever database the other tests use.
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), Tenant::FIRST).await.unwrap();
        let all = Search { most: 30, ..Search::default() };
        let of_sender = Search { submitter: Some("big.example".into()), ..all.clone() };
        for (search, index) in [
            (all.clone(), "report_listed"),
            (Search { before: Some(9), ..all.clone() }, "report_listed"),
            (Search { failed: true, ..all }, "report_listed"),
            (Search { before: Some(9), ..of_sender.clone() }, "report_submitter"),
            (of_sender, "report_submitter"),
        ] {
            let (text, values) = search.statement(Tenant::FIRST);
            let mut query = built(format!("EXPLAIN QUERY PLAN {text}"));
            query.values = values;
            let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(&store).await.unwrap();
            let plan: Vec<String> = rows.into_iter().map(|(_, _, _, step)| step).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{search:?}: {plan:#?}");
            assert!(!plan.iter().any(|step| step.contains("ORDER BY")), "{search:?}: {plan:#?}");
        }
    }
}
