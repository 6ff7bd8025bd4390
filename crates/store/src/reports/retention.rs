//! The end of received reports. There are three ways:
//!
//! - A report **expires** some time after it arrived ([`Store::expire_reports`]). Its text and details are deleted, its
//!   numbers stay in the sums by day, and a row without text stays for a while, so that a copy is still a duplicate (how
//!   many sums and rows stay is limited in `surplus`).
//!   Reports also expire when all that are evidence use too much space ([`Store::shrink_evidence`]), since everybody who
//!   has a domain can sign.
//! - A report is **dropped** at the operator's request ([`Store::drop_reports`]): it goes with its numbers.
//! - Unverified reports have a quota and an age limit, since anybody can send them; see `unverified`. They are dropped too,
//!   so that no sums and texts of theirs accumulate.
//!
//! A dropped report is subtracted from the sums, which may contain numbers of expired reports. A sum that has reached the
//! largest integer says nothing about its parts, so it is computed again from the reports that are left.
//!
//! Each call is one short transaction, so that no other write waits for long. The limits spare what was there before them
//! for some time; see `upgrade`.

use super::identities;
use super::sums::{StoredCounts, StoredPolicyCounts, Sums};
use super::{Trust, kind_of, range};
use crate::query::{Query, Value, built, parameters, sql, total, unnumbered};
use crate::writing::{Counter, Lock, TenantCounter, Tries, Writing};
use crate::{Store, StoreError, Tenant, count, stored};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// The maximum number of reports that one transaction removes.
pub(super) const BATCH_REPORTS: u32 = 100;
/// The size of the reports that one transaction removes, in bytes. One report may be larger.
const BATCH_BYTES: i64 = 4 << 20;
/// The maximum number of ids in one statement.
const BATCH_IDS: usize = 500;

/// The length in characters of the `report-id` and the organization of an expired report whose row is kept.
const EXPIRED_TEXT: usize = 255;

/// The condition that the limits apply to a report.
macro_rules! not_earlier {
    () => {
        " AND id > (SELECT value FROM version WHERE name = 'earlier reports') "
    };
}
pub(super) use not_earlier;

/// Selects received reports to drop; a report has to match every member that is set.
#[derive(Debug, Clone, Default)]
pub struct DropSelection {
    /// Only reports about this domain.
    pub domain: Option<String>,
    /// Only reports from this submitter.
    pub submitter: Option<String>,
    /// Only reports whose period ended before this time.
    pub before: Option<Timestamp>,
}

impl Store {
    /// Deletes the text and the details of reports that arrived before `before`; their sums stay. Returns how many; call
    /// it again until that is 0.
    pub async fn expire_reports(&self, before: Timestamp) -> Result<u64, StoreError> {
        let ids = self.oldest(false, before).await?;
        let batch = self.batch(&ids).await?;
        self.remove(batch, End::Expired).await
    }

    /// Lets reports that are evidence expire if they use more than `most` bytes: the oldest ones of the source that uses
    /// most. Returns how many; call it again until that is 0.
    pub async fn shrink_evidence(&self, most: u64) -> Result<u64, StoreError> {
        let sums = concat!(
            "SELECT source, CAST(sum(size) AS BIGINT) FROM report WHERE tenant = $1 AND trust >= 2 AND is_expired = 0",
            not_earlier!(),
            "GROUP BY source ORDER BY source"
        );
        let sums: Vec<(String, i64)> = sql(sums).bind(self.tenant).fetch_all(self).await?;
        let used = sums.iter().fold(0u64, |used, (_, bytes)| used.saturating_add(count(*bytes)));
        let Some((largest, _)) = sums.iter().max_by_key(|(_, bytes)| *bytes).filter(|_| used > most) else {
            return Ok(0);
        };
        let oldest = concat!(
            "SELECT id, size FROM report WHERE tenant = $1 AND source = $2 AND trust >= 2 AND is_expired = 0",
            not_earlier!(),
            "ORDER BY id LIMIT $3"
        );
        let oldest = sql(oldest).bind(self.tenant).bind(largest).bind(BATCH_REPORTS);
        let oldest: Vec<(i64, i64)> = oldest.fetch_all(self).await?;
        let mut freed = 0u64;
        let is_needed = |(_, size): &(i64, i64)| {
            let is_needed = freed < used - most;
            freed = freed.saturating_add(count(*size));
            is_needed
        };
        let ids: Vec<i64> = oldest.into_iter().take_while(is_needed).map(|(id, _)| id).collect();
        let batch = self.batch(&ids).await?;
        self.remove(batch, End::Expired).await
    }

    /// Deletes the rows of expired reports that arrived before `before`. From then on a copy would be a new report.
    /// Returns how many; call it again until that is 0.
    pub async fn forget_expired_reports(&self, before: Timestamp) -> Result<u64, StoreError> {
        let ids = self.oldest(true, before).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        among(self.tenant, "DELETE FROM report WHERE tenant = ? AND is_expired = 1 AND id", &ids)
            .execute(self)
            .await
    }

    /// Returns the ids of up to `most` selected reports above `after`, oldest first.
    pub async fn reports_to_drop(
        &self,
        selection: &DropSelection,
        after: i64,
        most: u32,
    ) -> Result<Vec<i64>, StoreError> {
        let mut text = "SELECT id FROM report WHERE tenant = $1 AND is_expired = 0 AND id > $2".to_owned();
        let mut values = vec![self.tenant.into(), after.into()];
        let mut add = |condition: &str, value| {
            values.push(value);
            text.push_str(&condition.replace("$?", &format!("${}", values.len())));
        };
        if let Some(domain) = &selection.domain {
            add(
                " AND id IN (SELECT report FROM outcome WHERE tenant = $1 AND domain = (SELECT id FROM name WHERE text = $?))",
                domain.into(),
            );
        }
        if let Some(submitter) = &selection.submitter {
            add(" AND submitter = (SELECT id FROM name WHERE text = $?)", submitter.into());
        }
        if let Some(before) = selection.before {
            add(" AND range_end < $?", before.as_second().into());
        }
        add(" ORDER BY id LIMIT $?", most.into());
        let mut query = built(text);
        query.values = values;
        Ok(only(query.fetch_all(self).await?))
    }

    /// Removes reports, and their numbers from all sums. Returns how many there were. Ids without a report are ignored.
    pub async fn drop_reports(&self, ids: &[i64]) -> Result<u64, StoreError> {
        let mut dropped = 0;
        let mut left = ids;
        while !left.is_empty() {
            let batch = self.batch(left).await?;
            dropped += self.remove(batch, End::Dropped).await?;
            left = left.get(batch.len()..).unwrap_or_default();
        }
        Ok(dropped)
    }

    /// The first of these ids, as many as one transaction removes.
    pub(super) async fn batch<'i>(&self, ids: &'i [i64]) -> Result<&'i [i64], StoreError> {
        let ids = ids.get(..BATCH_REPORTS as usize).unwrap_or(ids);
        if ids.is_empty() {
            return Ok(ids);
        }
        let text = "SELECT id, CASE WHEN size > 0 THEN size ELSE length(packed) END FROM report WHERE tenant = ? AND id";
        let sizes: Vec<(i64, i64)> = among(self.tenant, text, ids).fetch_all(self).await?;
        let sizes: BTreeMap<i64, i64> = sizes.into_iter().collect();
        let mut bytes = 0i64;
        let fits = |id: &&i64| {
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(sizes.get(*id).copied().unwrap_or(0).max(1));
            is_first || bytes <= BATCH_BYTES
        };
        let most = ids.iter().take_while(fits).count();
        Ok(ids.get(..most).unwrap_or(ids))
    }

    /// The reports that arrived first, before `before`, and are expired or not.
    async fn oldest(&self, is_expired: bool, before: Timestamp) -> Result<Vec<i64>, StoreError> {
        let ids = concat!(
            "SELECT id FROM report WHERE tenant = $1 AND is_expired = $2 AND received_at < $3",
            not_earlier!(),
            "ORDER BY received_at, id LIMIT $4"
        );
        let ids = sql(ids).bind(self.tenant).bind(is_expired).bind(before.as_second()).bind(BATCH_REPORTS);
        Ok(only(ids.fetch_all(self).await?))
    }

    /// Ends reports in one transaction, which imports wait for. Returns the number of reports that are no longer listed.
    async fn remove(&self, ids: &[i64], end: End) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut tries = Tries::default();
        loop {
            let done = self.try_remove(ids, end).await;
            if !tries.again(&done) {
                return done;
            }
        }
    }

    async fn try_remove(&self, ids: &[i64], end: End) -> Result<u64, StoreError> {
        let mut writing = self.writing().await?;
        writing.lock(Counter::ReportId, Lock::Alone).await?;
        let removed = match end {
            End::Expired => expire_batch(&mut writing, ids).await?,
            End::Dropped => drop_batch(&mut writing, ids).await?,
        };
        writing.increase(Counter::Reports, 1).await?;
        writing.add(TenantCounter::ReportCount, -stored(removed)).await?;
        writing.commit().await?;
        Ok(removed)
    }
}

/// How reports are removed.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The text and the details are deleted; the sums keep the numbers.
    Expired,
    /// The reports are deleted, and subtracted from the sums.
    Dropped,
}

/// Deletes the text and the details of reports.
async fn expire_batch(writing: &mut Writing, ids: &[i64]) -> Result<u64, StoreError> {
    let removed = live(writing, ids).await?;
    for table in ["outcome", "failure"] {
        let text = format!("DELETE FROM {table} WHERE tenant = ? AND report");
        among(writing.tenant, &text, ids).execute(&mut *writing).await?;
    }
    let text = "UPDATE report SET is_expired = 1, size = 0, packed = ? WHERE tenant = ? AND id";
    let mut query = among(writing.tenant, text, ids);
    query.values.insert(0, Value::Blob(Vec::new().into()));
    query.execute(&mut *writing).await?;
    // Such long texts only serve to use up space, so a copy of the report may be new again.
    let text = format!(
        "DELETE FROM report WHERE tenant = ? AND is_expired = 1
         AND (length(report_id) > {EXPIRED_TEXT} OR (SELECT length(text) FROM name WHERE name.id = report.organization) > {EXPIRED_TEXT}) AND id"
    );
    among(writing.tenant, &text, ids).execute(&mut *writing).await?;
    Ok(removed)
}

/// The number of these reports that exist and are not expired.
async fn live(writing: &mut Writing, ids: &[i64]) -> Result<u64, StoreError> {
    let query =
        among(writing.tenant, "SELECT count(*) FROM report WHERE tenant = ? AND is_expired = 0 AND id", ids);
    let (there,): (i64,) = query.fetch_one(writing).await?;
    Ok(count(there))
}

/// A statement that ends with the condition that a column is one of `ids`. Its first parameter is the tenant.
pub(super) fn among<'v>(tenant: Tenant, text: &str, ids: &[i64]) -> Query<'v> {
    let values = [tenant.into()].into_iter().chain(ids.iter().map(|id| (*id).into()));
    unnumbered(format!("{text} IN ({})", parameters(ids.len())), values).kept(false)
}

pub(super) fn only(rows: Vec<(i64,)>) -> Vec<i64> {
    rows.into_iter().map(|(id,)| id).collect()
}

/// Removes reports that are not expired, with their numbers.
async fn drop_batch(writing: &mut Writing, ids: &[i64]) -> Result<u64, StoreError> {
    let reports = counts(writing, ids).await?;
    let mut sums = Sums::default();
    reports.values().for_each(|report| sums.subtract_stored(report));
    let known: Vec<i64> = reports.into_keys().collect();
    let groups = identities::of_reports(writing, &known).await?;
    identities::surplus(writing, &groups).await?.apply(&mut sums, 1);
    if !known.is_empty() {
        among(writing.tenant, "DELETE FROM report WHERE tenant = ? AND id", &known)
            .execute(&mut *writing)
            .await?;
    }
    identities::surplus(writing, &groups).await?.apply(&mut sums, -1);
    write_sums(writing, &sums).await?;
    Ok(known.len() as u64)
}

/// Subtracts counts from the stored sums, or moves them, after the rows have changed. A sum that has reached the largest
/// integer is computed again; one that is zero is deleted.
pub(super) async fn write_sums(writing: &mut Writing, sums: &Sums) -> Result<(), StoreError> {
    let domains: BTreeSet<i64> = sums.changed_domains().map(|(domain, _)| domain).collect();
    let submitters: BTreeSet<i64> = sums.changed_submitters().map(|(submitter, ..)| submitter).collect();
    let changed: BTreeSet<(i64, i64)> = sums.changed_domains().collect();
    let full = full_days(writing, &domains).await?;
    let full: Vec<_> = full.into_iter().filter(|day| changed.contains(day)).collect();
    let changed: BTreeSet<(i64, bool, i64)> = sums.changed_submitters().collect();
    let full_submitters = full_submitter_days(writing, &submitters).await?;
    let full_submitters: Vec<_> = full_submitters.into_iter().filter(|day| changed.contains(day)).collect();
    sums.write(writing).await?;
    for (domain, day) in full {
        compute_domain_day(writing, domain, day).await?;
    }
    for (submitter, counts, day) in full_submitters {
        compute_submitter_day(writing, submitter, counts, day).await?;
    }
    delete_empty(writing, &domains, &submitters).await
}

/// Reads the counts of the reports that exist and are not expired.
pub(super) async fn counts(
    writing: &mut Writing,
    ids: &[i64],
) -> Result<BTreeMap<i64, StoredCounts>, StoreError> {
    let text = "SELECT id, submitter, trust, range_start, range_end FROM report WHERE tenant = ? AND is_expired = 0 AND id";
    let rows: Vec<(i64, i64, i64, i64, i64)> =
        among(writing.tenant, text, ids).fetch_all(&mut *writing).await?;
    let mut reports = BTreeMap::new();
    for (id, submitter, trust, start, end) in rows {
        let (trust, range) = (Trust::parse(trust)?, range(start, end)?);
        reports.insert(id, StoredCounts { submitter, trust, range, policies: Vec::new() });
    }
    let text = "SELECT DISTINCT report, domain, kind, entry FROM failure WHERE tenant = ? AND sessions > 0 AND report";
    let failing: Vec<(i64, i64, i64, i64)> =
        among(writing.tenant, text, ids).fetch_all(&mut *writing).await?;
    let failing: BTreeSet<(i64, i64, i64, i64)> = failing.into_iter().collect();
    let text =
        "SELECT report, domain, kind, entry, successful, failed FROM outcome WHERE tenant = ? AND report";
    let rows: Vec<(i64, i64, i64, i64, i64, i64)> =
        among(writing.tenant, text, ids).fetch_all(writing).await?;
    for (report, domain, kind, entry, successful, failed) in rows {
        if let Some(one) = reports.get_mut(&report) {
            let has_failures = failing.contains(&(report, domain, kind, entry));
            let kind = kind_of(kind);
            one.policies.push(StoredPolicyCounts { domain, kind, successful, failed, has_failures });
        }
    }
    Ok(reports)
}

/// The days of these domains with a sum that has reached the largest integer.
async fn full_days(writing: &mut Writing, domains: &BTreeSet<i64>) -> Result<Vec<(i64, i64)>, StoreError> {
    let text = "SELECT domain, day FROM domain_day WHERE tenant = ? AND (successful >= 9223372036854775807
                OR failed >= 9223372036854775807 OR sts_sessions >= 9223372036854775807 OR unproved >= 9223372036854775807) AND domain";
    let mut found = Vec::new();
    for batch in domains.iter().copied().collect::<Vec<_>>().chunks(BATCH_IDS) {
        found.extend(among(writing.tenant, text, batch).fetch_all::<(i64, i64)>(&mut *writing).await?);
    }
    Ok(found)
}

/// The days of these submitters with a sum that has reached the largest integer.
async fn full_submitter_days(
    writing: &mut Writing,
    submitters: &BTreeSet<i64>,
) -> Result<Vec<(i64, bool, i64)>, StoreError> {
    let text = "SELECT submitter, counts, day FROM submitter_day WHERE tenant = ? AND (successful >= 9223372036854775807
                OR failed >= 9223372036854775807) AND submitter";
    let mut found = Vec::new();
    for batch in submitters.iter().copied().collect::<Vec<_>>().chunks(BATCH_IDS) {
        let rows: Vec<(i64, i64, i64)> = among(writing.tenant, text, batch).fetch_all(&mut *writing).await?;
        found.extend(rows.into_iter().map(|(submitter, counts, day)| (submitter, counts != 0, day)));
    }
    Ok(found)
}

/// A subquery for the sum of a column over the reports about a domain that begin on a day.
macro_rules! of_domain_day {
    ($column:literal, $condition:literal) => {
        concat!(
            "(SELECT ",
            total!($column),
            " FROM outcome JOIN report ON report.id = outcome.report
              WHERE outcome.tenant = $1 AND outcome.domain = $2 AND outcome.day = $3 AND ",
            $condition,
            ")"
        )
    };
}

/// Computes the sums of a domain's day again, from the reports that are left.
async fn compute_domain_day(writing: &mut Writing, domain: i64, day: i64) -> Result<(), StoreError> {
    sql(concat!(
        "UPDATE domain_day SET successful = ",
        of_domain_day!("outcome.successful", "report.trust >= 2"),
        ", failed = ",
        of_domain_day!("outcome.failed", "report.trust >= 2"),
        ", sts_sessions = ",
        of_domain_day!(
            "CAST(outcome.successful AS DOUBLE PRECISION) + outcome.failed",
            "report.trust >= 2 AND outcome.kind = 1"
        ),
        ", unproved = ",
        of_domain_day!("CAST(outcome.successful AS DOUBLE PRECISION) + outcome.failed", "report.trust < 2"),
        " WHERE tenant = $1 AND domain = $2 AND day = $3"
    ))
    .bind(writing.tenant)
    .bind(domain)
    .bind(day)
    .execute(writing)
    .await?;
    Ok(())
}

/// Computes the sums of a submitter's day again. Reads all reports of the submitter.
async fn compute_submitter_day(
    writing: &mut Writing,
    submitter: i64,
    counts: bool,
    day: i64,
) -> Result<(), StoreError> {
    macro_rules! of_submitter_day {
        ($column:literal) => {
            concat!(
                "(SELECT ",
                total!($column),
                " FROM report JOIN outcome ON outcome.report = report.id
                  WHERE report.tenant = $1 AND report.submitter = $2 AND outcome.day = $3
                    AND CAST(report.trust >= 2 AS INTEGER) = $4)"
            )
        };
    }
    sql(concat!(
        "UPDATE submitter_day SET successful = ",
        of_submitter_day!("outcome.successful"),
        ", failed = ",
        of_submitter_day!("outcome.failed"),
        " WHERE tenant = $1 AND submitter = $2 AND day = $3 AND counts = $4"
    ))
    .bind(writing.tenant)
    .bind(submitter)
    .bind(day)
    .bind(counts)
    .execute(writing)
    .await?;
    Ok(())
}

/// Deletes sums that are all zero, or negative because a row was missing.
async fn delete_empty(
    writing: &mut Writing,
    domains: &BTreeSet<i64>,
    submitters: &BTreeSet<i64>,
) -> Result<(), StoreError> {
    let days =
        "DELETE FROM domain_day WHERE tenant = ? AND successful <= 0 AND failed <= 0 AND sts_sessions <= 0
                AND tainted <= 0 AND unproved <= 0 AND domain";
    for batch in domains.iter().copied().collect::<Vec<_>>().chunks(BATCH_IDS) {
        among(writing.tenant, days, batch).execute(&mut *writing).await?;
    }
    let days = "DELETE FROM submitter_day WHERE tenant = ? AND reports <= 0 AND submitter";
    for batch in submitters.iter().copied().collect::<Vec<_>>().chunks(BATCH_IDS) {
        among(writing.tenant, days, batch).execute(&mut *writing).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
