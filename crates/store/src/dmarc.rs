//! The counts of received DMARC aggregate reports (RFC 9990): messages by domain, day, source address, alignment and
//! disposition. The text of a report is not kept. The inbox and `sternpost reports import` add reports; `sternpost reports
//! list --dmarc` and the dashboard read sums. Nothing here is evidence for a rollout.
//!
//! Strangers send these reports, so their number is limited by a [`DmarcQuota`], apart for senders that are verified and for
//! others. Beyond it, the oldest reports of the largest sources are deleted first, so that a flood by one does not displace
//! the reports of others.

mod quota;
#[cfg(test)]
mod tests;

pub use quota::DmarcQuota;

use crate::query::{FromRow, Row, built, insert, sql, total, without_nul};
use crate::reports::{Arrival, KeepOutcome, Trust, digest};
use crate::writing::{Counter, Lock, Tries, Writing};
use crate::{Store, StoreError, count, damaged, stored, time};
use formats::dmarc::{Alignment, Disposition, DmarcReport, DmarcRow};
use formats::report::DateRange;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// The maximum number of rows in one statement.
const BATCH_ROWS: usize = 500;

/// A DMARC report to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDmarcReport {
    /// The source whose share of the quota it uses, as that of [`NewReport`](crate::reports::NewReport).
    pub source: String,
    /// The domain of the report's sender: that of `From`, or what the report and the file name state.
    pub submitter: String,
    /// The domain of the verified DKIM signature; `None` if there is none.
    pub signer: Option<String>,
    /// How far the report is trusted.
    pub trust: Trust,
    /// How the report arrived.
    pub arrival: Arrival,
    /// When the report arrived.
    pub received_at: Timestamp,
    /// The report, with its message counts.
    pub report: DmarcReport,
}

/// Selects the counts that [`Store::dmarc_sums`] returns.
#[derive(Debug, Clone)]
pub struct DmarcSearch {
    /// Only counts about this domain; `None` for all domains.
    pub domain: Option<String>,
    /// Only days from this time on.
    pub since: Timestamp,
    /// The maximum number of sums.
    pub most: u32,
}

/// The messages of one day from one source with one result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DmarcSum {
    /// The first second of the day. A report over several days counts on its first.
    pub day: Timestamp,
    /// The domain whose DMARC record applied.
    pub domain: String,
    /// The address that delivered the messages; empty if it is not known.
    pub source: String,
    /// Whether a DKIM signature was valid and aligned.
    pub dkim: Alignment,
    /// Whether SPF passed and was aligned.
    pub spf: Alignment,
    /// What receivers did with the messages.
    pub disposition: Disposition,
    /// Whether the senders of the reports are verified, or the operator vouched for them.
    pub verified: bool,
    /// The number of messages.
    pub messages: u64,
    /// The number of reports that these messages are from.
    pub reports: u64,
}

/// The sums of one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DmarcDomain {
    /// The domain whose DMARC record applied.
    pub domain: String,
    /// Whether the senders of the reports are verified, or the operator vouched for them.
    pub verified: bool,
    /// The number of reports.
    pub reports: u64,
    /// The number of messages.
    pub messages: u64,
    /// The messages of which DKIM or SPF is aligned.
    pub aligned: u64,
    /// The messages that were quarantined or rejected.
    pub stopped: u64,
    /// Records whose number of messages was missing or invalid.
    pub uncounted: u64,
}

impl FromRow for DmarcSum {
    fn from_row(row: &mut Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            day: time("dmarc_report", row.get()?)?,
            domain: row.get()?,
            source: row.get()?,
            dkim: one_of(Alignment::ALL, row)?,
            spf: one_of(Alignment::ALL, row)?,
            disposition: one_of(Disposition::ALL, row)?,
            verified: row.get::<i64>()? != 0,
            messages: count(row.get()?),
            reports: count(row.get()?),
        })
    }
}

/// Reads an enum value, which is stored as its index in `all`.
fn one_of<T: Copy, const N: usize>(all: [T; N], row: &mut Row<'_>) -> Result<T, StoreError> {
    let number: i64 = row.get()?;
    let found = usize::try_from(number).ok().and_then(|at| all.get(at)).copied();
    found.ok_or_else(|| damaged("dmarc_row")(number))
}

const SUMS: &str = concat!(
    "SELECT r.day, r.domain, w.source, w.dkim, w.spf, w.disposition, CAST(r.trust >= $2 AS INTEGER) AS verified, ",
    total!("w.messages"),
    ", count(DISTINCT r.id) FROM dmarc_row AS w JOIN dmarc_report AS r ON r.id = w.report
     WHERE r.tenant = $1 AND r.day >= $3"
);
const SUMS_END: &str = " GROUP BY r.day, r.domain, w.source, w.dkim, w.spf, w.disposition, verified
     ORDER BY r.day DESC, r.domain, verified DESC, sum(CAST(w.messages AS DOUBLE PRECISION)) DESC, w.source, w.dkim, w.spf,
              w.disposition LIMIT ";

const DOMAINS: &str = concat!(
    "SELECT domain, CAST(trust >= $2 AS INTEGER) AS verified, count(*), ",
    total!("messages"),
    ", ",
    total!("uncounted"),
    " FROM dmarc_report WHERE tenant = $1 AND day >= $3 GROUP BY domain, verified
     ORDER BY domain, verified DESC LIMIT $4"
);

const RESULTS: &str = concat!(
    "SELECT r.domain, CAST(r.trust >= $2 AS INTEGER) AS verified, ",
    total!("CASE WHEN w.dkim = 1 OR w.spf = 1 THEN w.messages ELSE 0 END"),
    ", ",
    total!("CASE WHEN w.disposition IN (2, 3) THEN w.messages ELSE 0 END"),
    " FROM dmarc_row AS w JOIN dmarc_report AS r ON r.id = w.report
     WHERE r.tenant = $1 AND r.day >= $3 AND r.domain BETWEEN $4 AND $5 GROUP BY r.domain, verified"
);

impl Store {
    /// Stores DMARC reports and returns the outcome of each, in order. They are durable when this returns, unless `quota` is
    /// exceeded: then the oldest reports of the largest sources are deleted.
    ///
    /// A report with the same submitter, id, domain, range and content as a stored one is a duplicate. One that is more
    /// trusted raises the trust of the stored one.
    pub async fn keep_dmarc_reports(
        &self,
        new: &[NewDmarcReport],
        quota: DmarcQuota,
    ) -> Result<Vec<KeepOutcome>, StoreError> {
        let mut kept = Vec::with_capacity(new.len());
        for one in new {
            let mut tries = Tries::default();
            loop {
                let done = self.keep_dmarc(one, quota).await;
                if !tries.again(&done) {
                    kept.push(done?);
                    break;
                }
            }
        }
        Ok(kept)
    }

    async fn keep_dmarc(&self, new: &NewDmarcReport, quota: DmarcQuota) -> Result<KeepOutcome, StoreError> {
        let mut transaction = self.writing().await?;
        let writing = &mut transaction;
        // One import at a time: two copies of a report must not both be new.
        writing.lock(Counter::ReportId, Lock::Alone).await?;
        let (identity, content) = fingerprint(new);
        let copies: Vec<(i64, i64)> = sql(
            "SELECT id, trust FROM dmarc_report WHERE tenant = $1 AND identity = $2 AND digest = $3 ORDER BY trust DESC",
        )
        .bind(self.tenant)
        .bind(identity)
        .bind(content)
        .fetch_all(&mut *writing)
        .await?;
        let outcome = match copies.first() {
            Some((_, trust)) if *trust >= new.trust as i64 => KeepOutcome::Duplicate,
            Some((id, _)) => {
                confirm(writing, *id, new).await?;
                KeepOutcome::Confirmed
            }
            None => {
                let id = insert_report(writing, new, identity, content).await?;
                insert_rows(writing, id, &new.report.rows).await?;
                KeepOutcome::New
            }
        };
        if outcome != KeepOutcome::Duplicate {
            quota::enforce(writing, new.trust.counts(), quota).await?;
        }
        transaction.commit().await?;
        Ok(outcome)
    }

    /// Returns the sums of the messages, the newest day first, then by domain, the most messages first.
    pub async fn dmarc_sums(&self, search: &DmarcSearch) -> Result<Vec<DmarcSum>, StoreError> {
        let since = DateRange::utc_day(search.since).start.as_second();
        let newest = sql("SELECT max(day) FROM dmarc_report WHERE tenant = $1").bind(self.tenant);
        let (Some(newest),): (Option<i64>,) = newest.fetch_one(self).await? else { return Ok(Vec::new()) };
        // The newest days often have enough. The database would sum all others only to leave them out.
        for days in [1, 5] {
            let from = newest.saturating_sub((days - 1) * 86_400);
            if from <= since {
                break;
            }
            let found = self.dmarc_sums_from(search, from).await?;
            if found.len() as u64 >= u64::from(search.most) {
                return Ok(found);
            }
        }
        self.dmarc_sums_from(search, since).await
    }

    async fn dmarc_sums_from(&self, search: &DmarcSearch, since: i64) -> Result<Vec<DmarcSum>, StoreError> {
        let trusted = Trust::Trusted as i64;
        let query = match &search.domain {
            Some(domain) => built(format!("{SUMS} AND r.domain = $4{SUMS_END}$5"))
                .bind(self.tenant)
                .bind(trusted)
                .bind(since)
                .bind(domain),
            None => built(format!("{SUMS}{SUMS_END}$4")).bind(self.tenant).bind(trusted).bind(since),
        };
        query.bind(search.most).fetch_all(self).await
    }

    /// Returns the sums of up to `most` domains since `since`, in alphabetical order.
    pub async fn dmarc_domains(&self, since: Timestamp, most: u32) -> Result<Vec<DmarcDomain>, StoreError> {
        let since = DateRange::utc_day(since).start.as_second();
        let select = |text: &'static str| sql(text).bind(self.tenant).bind(Trust::Trusted as i64).bind(since);
        let rows: Vec<(String, i64, i64, i64, i64)> = select(DOMAINS).bind(most).fetch_all(self).await?;
        let (Some((first, ..)), Some((last, ..))) = (rows.first(), rows.last()) else {
            return Ok(Vec::new());
        };
        let results = select(RESULTS).bind(first.as_str()).bind(last.as_str());
        let results: Vec<(String, i64, i64, i64)> = results.fetch_all(self).await?;
        let results: BTreeMap<_, _> = results
            .into_iter()
            .map(|(domain, verified, aligned, stopped)| ((domain, verified), (aligned, stopped)))
            .collect();
        let domain = |(domain, verified, reports, messages, uncounted)| {
            let key = (domain, verified);
            let (aligned, stopped) = results.get(&key).copied().unwrap_or_default();
            DmarcDomain {
                domain: key.0,
                verified: verified != 0,
                reports: count(reports),
                messages: count(messages),
                aligned: count(aligned),
                stopped: count(stopped),
                uncounted: count(uncounted),
            }
        };
        Ok(rows.into_iter().map(domain).collect())
    }

    /// Deletes up to `most` reports that arrived before `before`, oldest first: those whose sender is verified or that the
    /// operator vouched for, or the others. Returns their number.
    pub async fn delete_dmarc_reports(
        &self,
        verified: bool,
        before: Timestamp,
        most: u32,
    ) -> Result<u64, StoreError> {
        let (least, highest) = quota::trust_range(verified);
        sql("DELETE FROM dmarc_report WHERE id IN
             (SELECT id FROM dmarc_report WHERE tenant = $1 AND trust BETWEEN $2 AND $3 AND received_at < $4
              ORDER BY received_at, id LIMIT $5)")
        .bind(self.tenant)
        .bind(least)
        .bind(highest)
        .bind(before.as_second())
        .bind(most)
        .execute(self)
        .await
    }
}

/// The digests of a report's identity and of its content.
fn fingerprint(new: &NewDmarcReport) -> (i64, i64) {
    let report = &new.report;
    let range = [report.range.start, report.range.end].map(|at| at.as_second().to_be_bytes()).concat();
    let identity = [new.submitter.as_str(), &report.report_id, report.domain.as_str()].join("\0");
    let one = |row: &DmarcRow| {
        format!("{} {} {} {} {}\n", source(row), row.disposition, row.dkim, row.spf, row.messages)
    };
    let content: String = report.rows.iter().map(one).collect();
    let uncounted = report.uncounted.to_be_bytes();
    (digest(&[&range, identity.as_bytes()]), digest(&[&uncounted, content.as_bytes()]))
}

fn source(row: &DmarcRow) -> String {
    row.source.map(|source| source.to_string()).unwrap_or_default()
}

async fn confirm(writing: &mut Writing, id: i64, new: &NewDmarcReport) -> Result<(), StoreError> {
    sql("UPDATE dmarc_report SET trust = $1, signer = $2, way = $3, source = $4 WHERE id = $5")
        .bind(new.trust as i64)
        .bind(new.signer.as_deref())
        .bind(new.arrival as i64)
        .bind(&new.source)
        .bind(id)
        .execute(writing)
        .await?;
    Ok(())
}

async fn insert_report(
    writing: &mut Writing,
    new: &NewDmarcReport,
    identity: i64,
    content: i64,
) -> Result<i64, StoreError> {
    let report = &new.report;
    let organization = without_nul(&report.organization);
    let report_id = without_nul(&report.report_id);
    let query = sql("INSERT INTO dmarc_report (tenant, source, submitter, signer, organization, report_id, domain, day, trust, way,
             received_at, identity, digest, messages, uncounted, cost)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) RETURNING id")
    .bind(writing.tenant)
    .bind(&new.source)
    .bind(&new.submitter)
    .bind(new.signer.as_deref())
    .bind(organization.as_ref())
    .bind(report_id.as_ref())
    .bind(report.domain.as_str())
    .bind(DateRange::utc_day(report.range.start).start.as_second())
    .bind(new.trust as i64)
    .bind(new.arrival as i64)
    .bind(new.received_at.as_second())
    .bind(identity)
    .bind(content)
    .bind(stored(report.messages()))
    .bind(stored(report.uncounted))
    .bind(stored(report.rows.len() as u64 + 1));
    let (id,) = query.fetch_one(writing).await?;
    Ok(id)
}

async fn insert_rows(writing: &mut Writing, report: i64, rows: &[DmarcRow]) -> Result<(), StoreError> {
    for batch in rows.chunks(BATCH_ROWS) {
        let head = "INSERT INTO dmarc_row (report, source, disposition, dkim, spf, messages)";
        let query = insert(head, batch, "", |row| {
            [
                report.into(),
                source(row).into(),
                index(Disposition::ALL, row.disposition).into(),
                index(Alignment::ALL, row.dkim).into(),
                index(Alignment::ALL, row.spf).into(),
                stored(row.messages).into(),
            ]
        });
        query.execute(&mut *writing).await?;
    }
    Ok(())
}

/// The number under which an enum value is stored.
fn index<T: PartialEq, const N: usize>(all: [T; N], value: T) -> i64 {
    all.iter().position(|one| *one == value).and_then(|at| i64::try_from(at).ok()).unwrap_or_default()
}
