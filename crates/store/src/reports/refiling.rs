//! Files DANE results again. Reports may arrive before the MX hosts of their domain were observed for the first time, as
//! when old mail is imported into a new installation. Then `filing` leaves the results under the name of the MX host. Once
//! that host is observed, they move to the domain of the mail, as if it had been known before: the rows, the sums by day, and
//! the identities. Each transaction moves a few reports, so that no other write waits for long.

use super::keep::identity_of;
use super::retention::{BATCH_REPORTS, among, counts, only, write_sums};
use super::sums::Sums;
use super::{identities, kind_number, range};
use crate::query::{Value, parameters, sql, unnumbered};
use crate::writing::{Counter, Lock, Tries, Writing};
use crate::{Store, StoreError};
use formats::DomainName;
use formats::result_type::PolicyType;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Results that are filed under the name of an MX host.
pub(crate) struct Misfiled<'m> {
    /// The domain of the mail, which had the host.
    pub domain: &'m DomainName,
    /// The MX host.
    pub host: &'m DomainName,
    /// Only reports that cover a time between these.
    pub between: [Timestamp; 2],
}

/// The ids of the domain and of the host in the table `name`.
#[derive(Clone, Copy)]
struct Ids {
    domain: i64,
    host: i64,
}

impl Store {
    /// Files the results under the domain. Does nothing where they are filed so already.
    pub(crate) async fn file_again(&self, misfiled: &Misfiled<'_>) -> Result<(), StoreError> {
        if misfiled.domain == misfiled.host {
            return Ok(());
        }
        let (domain, host) = (self.name_id(misfiled.domain).await?, self.name_id(misfiled.host).await?);
        let (Some(domain), Some(host)) = (domain, host) else { return Ok(()) };
        let (ids, mut after) = (Ids { domain, host }, 0);
        loop {
            let found = self.misfiled_reports(ids, &misfiled.between, after).await?;
            let batch = self.batch(&found).await?;
            let Some(last) = batch.last() else { return Ok(()) };
            after = *last;
            let mut tries = Tries::default();
            loop {
                let done = self.file_batch(batch, misfiled.domain, ids).await;
                if !tries.again(&done) {
                    done?;
                    break;
                }
            }
        }
    }

    async fn name_id(&self, name: &DomainName) -> Result<Option<i64>, StoreError> {
        let query = sql("SELECT id FROM name WHERE text = $1").bind(name.as_str());
        Ok(query.fetch_optional::<(i64,)>(self).await?.map(|(id,)| id))
    }

    /// The reports about the mail of the domain that have results under the name of the host.
    async fn misfiled_reports(
        &self,
        ids: Ids,
        between: &[Timestamp; 2],
        after: i64,
    ) -> Result<Vec<i64>, StoreError> {
        let query = sql(
            "SELECT DISTINCT report.id FROM outcome JOIN report ON report.id = outcome.report
             WHERE outcome.tenant = $1 AND outcome.domain = $2 AND outcome.kind = $3 AND outcome.host = 0 AND outcome.entry >= 0
               AND report.about = $4 AND report.is_expired = 0 AND report.range_end >= $5 AND report.range_start <= $6
               AND report.id > $7
             ORDER BY report.id LIMIT $8",
        );
        let query =
            query.bind(self.tenant).bind(ids.host).bind(kind_number(&PolicyType::Tlsa)).bind(ids.domain);
        let [first, last] = between.map(Timestamp::as_second);
        Ok(only(query.bind(first).bind(last).bind(after).bind(BATCH_REPORTS).fetch_all(self).await?))
    }

    async fn file_batch(&self, reports: &[i64], domain: &DomainName, ids: Ids) -> Result<(), StoreError> {
        let mut transaction = self.writing().await?;
        let writing = &mut transaction;
        // Imports and removals of reports lock this row too.
        writing.lock(Counter::ReportId, Lock::Alone).await?;
        let before = counts(writing, reports).await?;
        let mut sums = Sums::default();
        before.values().for_each(|report| sums.subtract_stored(report));
        let known: Vec<i64> = before.into_keys().collect();
        if known.is_empty() {
            return Ok(());
        }
        let renewed = new_identities(writing, &known, domain, ids).await?;
        let mut groups = identities::of_reports(writing, &known).await?;
        groups.extend(renewed.values());
        groups.sort_unstable();
        groups.dedup();
        identities::surplus(writing, &groups).await?.apply(&mut sums, 1);
        move_rows(writing, &known, ids).await?;
        for (report, identity) in renewed {
            let update = sql("UPDATE report SET identity = $1 WHERE id = $2").bind(identity).bind(report);
            update.execute(&mut *writing).await?;
        }
        counts(writing, &known).await?.values().for_each(|report| sums.add_stored(report));
        identities::surplus(writing, &groups).await?.apply(&mut sums, -1);
        write_sums(writing, &sums).await?;
        writing.increase(Counter::Reports, 1).await?;
        transaction.commit().await
    }
}

async fn move_rows(writing: &mut Writing, reports: &[i64], ids: Ids) -> Result<(), StoreError> {
    let list = parameters(reports.len());
    let failures = format!(
        "UPDATE failure SET domain = ? WHERE tenant = ? AND domain = ? AND kind = ? AND entry >= 0
           AND EXISTS (SELECT 1 FROM outcome WHERE outcome.report = failure.report AND outcome.entry = failure.entry
                       AND outcome.host = 0)
           AND report IN ({list})"
    );
    let outcomes = format!(
        "UPDATE outcome SET domain = ?, host = ? WHERE tenant = ? AND domain = ? AND kind = ? AND entry >= 0 AND host = 0
           AND report IN ({list})"
    );
    let tenant = writing.tenant;
    let values = |new: &[i64]| {
        let mut values: Vec<Value<'_>> = new.iter().map(|id| (*id).into()).collect();
        values.extend([tenant.into(), ids.host.into(), kind_number(&PolicyType::Tlsa).into()]);
        values.extend(reports.iter().map(|id| Value::from(*id)));
        values
    };
    // The failures first, since they are found by the outcomes.
    unnumbered(failures, values(&[ids.domain])).kept(false).execute(&mut *writing).await?;
    unnumbered(outcomes, values(&[ids.domain, ids.host])).kept(false).execute(&mut *writing).await?;
    Ok(())
}

/// The identities of reports after their results have moved.
async fn new_identities(
    writing: &mut Writing,
    reports: &[i64],
    domain: &DomainName,
    ids: Ids,
) -> Result<BTreeMap<i64, i64>, StoreError> {
    let text = "SELECT outcome.report, name.text, CAST(outcome.domain = ? AND outcome.kind = ? AND outcome.host = 0 AND outcome.entry >= 0 AS INTEGER)
                FROM outcome JOIN name ON name.id = outcome.domain WHERE outcome.tenant = ? AND outcome.report";
    let mut query = among(writing.tenant, text, reports);
    query.values.insert(0, kind_number(&PolicyType::Tlsa).into());
    query.values.insert(0, ids.host.into());
    let mut domains: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (report, named, moves) in query.fetch_all::<(i64, String, i64)>(&mut *writing).await? {
        let filed = if moves != 0 { domain.to_string() } else { named };
        domains.entry(report).or_default().insert(filed);
    }
    let text = "SELECT report.id, name.text, report.report_id, report.range_start, report.range_end
                FROM report JOIN name ON name.id = report.submitter WHERE report.tenant = ? AND report.id";
    let rows: Vec<(i64, String, String, i64, i64)> =
        among(writing.tenant, text, reports).fetch_all(writing).await?;
    let mut renewed = BTreeMap::new();
    for (id, submitter, report_id, start, end) in rows {
        let of_report = domains.remove(&id).unwrap_or_default();
        let of_report = of_report.iter().map(String::as_str).collect();
        renewed.insert(id, identity_of(&submitter, &report_id, &range(start, end)?, of_report));
    }
    Ok(renewed)
}

#[cfg(test)]
mod tests;
