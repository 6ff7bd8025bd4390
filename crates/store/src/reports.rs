//! TLS reports that came in, whole, with what they say by policy domain; and a quarantine for what
//! could not be read (RFC 8460 §5).

use crate::{Store, StoreError, damaged, time};
use formats::DomainName;
use formats::report::{DateRange, PolicyReport, Report};
use jiff::Timestamp;
use sqlx::Row;

/// How far a report is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Signed by the submitter's domain.
    Verified,
    /// Not signed, or the key could not be had.
    Unverified,
    /// A signature that does not hold, or is not the submitter's.
    Failed,
}

impl Trust {
    fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        [Self::Verified, Self::Unverified, Self::Failed]
            .into_iter()
            .find(|trust| trust.as_str() == text)
            .ok_or_else(|| damaged("report")(text))
    }
}

/// A report to keep.
#[derive(Debug, Clone)]
pub struct NewReport<'a> {
    /// Who sent it: the domain that signed, or the one it claims.
    pub submitter: &'a str,
    /// How far it is to be believed.
    pub trust: Trust,
    /// When it came.
    pub received_at: Timestamp,
    /// What it says.
    pub report: &'a Report,
    /// As it came.
    pub raw: &'a [u8],
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is new.
    New,
    /// It was there before (REC-06).
    Duplicate,
}

/// A kept report, as far as it is about one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReport {
    /// Who sent it.
    pub submitter: String,
    /// Its identity.
    pub report_id: String,
    /// How far it is to be believed.
    pub trust: Trust,
    /// What it covers.
    pub range: DateRange,
    /// What it says about the domain, by policy.
    pub policies: Vec<PolicyReport>,
}

impl Store {
    /// Keeps a report, once (REC-06). It is durable when this returns.
    pub async fn keep_report(&self, new: NewReport<'_>) -> Result<Kept, StoreError> {
        let range = new.report.date_range;
        let mut transaction = self.pool.begin().await?;
        let known: Vec<(i64,)> = sqlx::query_as("SELECT id FROM report WHERE submitter = $1 AND report_id = $2 AND range_start = $3 AND range_end = $4")
            .bind(new.submitter)
            .bind(&new.report.report_id)
            .bind(range.start.as_second())
            .bind(range.end.as_second())
            .fetch_all(&mut *transaction)
            .await?;
        let domains = domains_of(new.report);
        for (id,) in known {
            let there: Vec<(String,)> =
                sqlx::query_as("SELECT policy_domain FROM report_policy WHERE report = $1")
                    .bind(id)
                    .fetch_all(&mut *transaction)
                    .await?;
            if domains.iter().all(|domain| there.iter().any(|(known,)| known == domain)) {
                return Ok(Kept::Duplicate);
            }
        }
        let id: i64 = sqlx::query("INSERT INTO report (submitter, report_id, range_start, range_end, organization, trust, received_at, raw) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id")
            .bind(new.submitter)
            .bind(&new.report.report_id)
            .bind(range.start.as_second())
            .bind(range.end.as_second())
            .bind(new.report.organization_name.clone().unwrap_or_default())
            .bind(new.trust.as_str())
            .bind(new.received_at.as_second())
            .bind(new.raw)
            .fetch_one(&mut *transaction)
            .await?
            .try_get(0)?;
        for policy in &new.report.policies {
            let domain = policy.policy_domain.as_ref().map(DomainName::as_str).unwrap_or_default();
            let json = serde_json::to_string(policy).map_err(damaged("report_policy"))?;
            sqlx::query("INSERT INTO report_policy (report, policy_domain, policy) VALUES ($1, $2, $3)")
                .bind(id)
                .bind(domain)
                .bind(json)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Kept::New)
    }

    /// The reports about a domain that cover any time since `since`, oldest first.
    pub async fn reports_about(
        &self,
        domain: &DomainName,
        since: Timestamp,
    ) -> Result<Vec<KeptReport>, StoreError> {
        let rows = sqlx::query(
            "SELECT report.id AS id, submitter, report_id, trust, range_start, range_end, policy
             FROM report JOIN report_policy ON report_policy.report = report.id
             WHERE policy_domain = $1 AND range_end >= $2 ORDER BY range_start, report.id",
        )
        .bind(domain.as_str())
        .bind(since.as_second())
        .fetch_all(&self.pool)
        .await?;
        let mut found: Vec<(i64, KeptReport)> = Vec::new();
        for row in rows {
            let id: i64 = row.try_get("id")?;
            let policy: PolicyReport =
                serde_json::from_str(row.try_get("policy")?).map_err(damaged("report_policy"))?;
            if let Some((_, last)) = found.last_mut().filter(|(last, _)| *last == id) {
                last.policies.push(policy);
                continue;
            }
            let range = DateRange {
                start: time("report", row.try_get("range_start")?)?,
                end: time("report", row.try_get("range_end")?)?,
            };
            let trust = Trust::parse(row.try_get("trust")?)?;
            found.push((
                id,
                KeptReport {
                    submitter: row.try_get("submitter")?,
                    report_id: row.try_get("report_id")?,
                    trust,
                    range,
                    policies: vec![policy],
                },
            ));
        }
        Ok(found.into_iter().map(|(_, report)| report).collect())
    }

    /// Keeps what could not be read, with the reason.
    pub async fn quarantine(
        &self,
        received_at: Timestamp,
        reason: &str,
        raw: &[u8],
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO quarantine (received_at, reason, raw) VALUES ($1, $2, $3)")
            .bind(received_at.as_second())
            .bind(reason)
            .bind(raw)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The reasons of what is in quarantine, oldest first, at most 1,000.
    pub async fn quarantined(&self) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as("SELECT reason FROM quarantine ORDER BY id LIMIT 1000")
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|(reason,)| reason).collect())
    }
}

fn domains_of(report: &Report) -> Vec<&str> {
    report
        .policies
        .iter()
        .map(|policy| policy.policy_domain.as_ref().map(DomainName::as_str).unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(domain: &str) -> Report {
        let text = format!(
            r#"{{"organization-name":"O","date-range":{{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"}},"contact-info":"a@b.example","report-id":"1","policies":[{{"policy":{{"policy-type":"no-policy-found","policy-domain":"{domain}"}},"summary":{{"total-successful-session-count":1,"total-failure-session-count":0}}}}]}}"#
        );
        Report::read(text.as_bytes()).unwrap().report
    }

    #[tokio::test]
    async fn rec_06_the_same_report_counts_once() {
        let (_dir, store) = crate::scratch().await;
        let keep = async |submitter: &str, domain: &str| {
            store
                .keep_report(NewReport {
                    submitter,
                    trust: Trust::Verified,
                    received_at: Timestamp::UNIX_EPOCH,
                    report: &report(domain),
                    raw: b"raw",
                })
                .await
                .unwrap()
        };
        assert_eq!(keep("big.example", "a.example").await, Kept::New);
        assert_eq!(keep("big.example", "a.example").await, Kept::Duplicate);
        assert_eq!(keep("big.example", "b.example").await, Kept::New);
        assert_eq!(keep("tiny.example", "a.example").await, Kept::New);
        let about = store
            .reports_about(&DomainName::parse("a.example").unwrap(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        assert_eq!(
            about.iter().map(|r| r.submitter.as_str()).collect::<Vec<_>>(),
            ["big.example", "tiny.example"]
        );
        assert_eq!(about[0].policies[0].successful, 1);
        let later = "2026-11-24T00:00:00Z".parse().unwrap();
        assert_eq!(store.reports_about(&DomainName::parse("a.example").unwrap(), later).await.unwrap(), []);
    }

    #[tokio::test]
    async fn what_can_not_be_read_is_kept_with_the_reason() {
        let (_dir, store) = crate::scratch().await;
        store.quarantine(Timestamp::UNIX_EPOCH, "line 1, column 1: expected value", b"x").await.unwrap();
        assert_eq!(store.quarantined().await.unwrap(), ["line 1, column 1: expected value"]);
    }
}
