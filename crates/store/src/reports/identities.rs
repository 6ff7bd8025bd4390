//! Reports of one identity: the same submitter, `report-id`, period and domains, with different content. Both are stored
//! (REC-06). Evidence and sums add their failures, and take the larger success: otherwise a sender could double its
//! sessions by sending a report twice with a small change.
//!
//! The sums by day are changed with every report, so this module computes by how much the plain sum of a group's successes
//! exceeds the largest one, before and after a change; the difference is taken out of the sums. A report that has expired
//! has no numbers of its own any more and belongs to no group, and neither do reports that earlier versions stored.

use super::retention::among;
use super::{kind_of, sums::Sums};
use crate::StoreError;
use crate::query::sql;
use crate::writing::Writing;
use formats::result_type::PolicyType;
use std::collections::BTreeMap;

/// The maximum number of identities in one statement.
const BATCH_IDENTITIES: usize = 500;

/// By how much sums of groups exceed their largest reports.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    /// By domain and day: all successes, and those under MTA-STS.
    pub domains: BTreeMap<(i64, i64), (i64, i64)>,
    /// By submitter and day: all successes.
    pub submitters: BTreeMap<(i64, i64), i64>,
}

/// The successes of one report.
#[derive(Default)]
struct Successes {
    submitter: i64,
    day: i64,
    all: i64,
    domains: BTreeMap<i64, (i64, i64)>,
}

/// The identities of stored reports.
pub(super) async fn of_reports(writing: &mut Writing, ids: &[i64]) -> Result<Vec<i64>, StoreError> {
    let mut found = Vec::new();
    for batch in ids.chunks(BATCH_IDENTITIES) {
        let query = among(
            writing.tenant,
            "SELECT DISTINCT identity FROM report WHERE tenant = ? AND trust >= 2 AND id",
            batch,
        );
        found.extend(query.fetch_all::<(i64,)>(&mut *writing).await?.into_iter().map(|(identity,)| identity));
    }
    Ok(found)
}

/// The surplus of these identities, as their reports are stored now.
pub(super) async fn surplus(writing: &mut Writing, identities: &[i64]) -> Result<Surplus, StoreError> {
    let mut surplus = Surplus::default();
    let first = first_grouped(writing).await?;
    for batch in identities.chunks(BATCH_IDENTITIES) {
        let text = format!(
            "SELECT identity FROM report WHERE +tenant = ? AND trust >= 2 AND +is_expired = 0 AND +id > {first} AND identity"
        );
        let text = among(writing.tenant, &text, batch);
        let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
        for (identity,) in text.fetch_all::<(i64,)>(&mut *writing).await? {
            *counts.entry(identity).or_default() += 1;
        }
        let several: Vec<i64> =
            counts.into_iter().filter(|(_, reports)| *reports > 1).map(|(of, _)| of).collect();
        if !several.is_empty() {
            add_groups(writing, &several, first, &mut surplus).await?;
        }
    }
    Ok(surplus)
}

async fn add_groups(
    writing: &mut Writing,
    identities: &[i64],
    first: i64,
    surplus: &mut Surplus,
) -> Result<(), StoreError> {
    let text = format!(
        "SELECT identity, report.id, submitter, domain, day, kind, successful
         FROM report JOIN outcome ON outcome.report = report.id
         WHERE +report.tenant = ? AND trust >= 2 AND +is_expired = 0 AND +report.id > {first} AND identity"
    );
    let mut groups: BTreeMap<i64, BTreeMap<i64, Successes>> = BTreeMap::new();
    let rows = among(writing.tenant, &text, identities)
        .fetch_all::<(i64, i64, i64, i64, i64, i64, i64)>(writing)
        .await?;
    for (identity, report, submitter, domain, day, kind, successful) in rows {
        let one = groups.entry(identity).or_default().entry(report).or_default();
        (one.submitter, one.day, one.all) = (submitter, day, one.all.saturating_add(successful));
        let of_domain = one.domains.entry(domain).or_default();
        of_domain.0 = of_domain.0.saturating_add(successful);
        if kind_of(kind) == PolicyType::Sts {
            of_domain.1 = of_domain.1.saturating_add(successful);
        }
    }
    groups.into_values().for_each(|group| surplus.add(group.into_values()));
    Ok(())
}

impl Surplus {
    /// Adds the surplus of the reports of one identity, which have one submitter, day and set of domains.
    fn add(&mut self, group: impl Iterator<Item = Successes>) {
        let beyond = |all: &[i64]| {
            let sum = all.iter().fold(0i64, |sum, one| sum.saturating_add(*one));
            sum.saturating_sub(all.iter().copied().max().unwrap_or_default())
        };
        let group: Vec<Successes> = group.collect();
        let Some(one) = group.first() else { return };
        let totals: Vec<i64> = group.iter().map(|report| report.all).collect();
        let submitters = self.submitters.entry((one.submitter, one.day)).or_default();
        *submitters = submitters.saturating_add(beyond(&totals));
        for domain in one.domains.keys() {
            let of: Vec<(i64, i64)> =
                group.iter().map(|report| report.domains.get(domain).copied().unwrap_or_default()).collect();
            let (all, sts): (Vec<i64>, Vec<i64>) = of.into_iter().unzip();
            let entry = self.domains.entry((*domain, one.day)).or_default();
            entry.0 = entry.0.saturating_add(beyond(&all));
            entry.1 = entry.1.saturating_add(beyond(&sts));
        }
    }

    /// Takes this surplus out of the sums, or puts it back.
    pub fn apply(&self, sums: &mut Sums, sign: i64) {
        for ((domain, day), (all, sts)) in &self.domains {
            sums.change_successes(*domain, *day, all.saturating_mul(sign), sts.saturating_mul(sign));
        }
        for ((submitter, day), all) in &self.submitters {
            sums.change_submitter_successes(*submitter, *day, all.saturating_mul(sign));
        }
    }
}

/// The last report id that an earlier version stored, which added all reports to the sums.
async fn first_grouped(writing: &mut Writing) -> Result<i64, StoreError> {
    sql("INSERT INTO version (name, value) SELECT 'grouped reports', value FROM version WHERE name = 'report id' \
         ON CONFLICT (name) DO NOTHING")
    .execute(&mut *writing)
    .await?;
    let (first,) = sql("SELECT value FROM version WHERE name = 'grouped reports'").fetch_one(writing).await?;
    Ok(first)
}
