//! The rows of the results of reports: one outcome for each policy, and its failures by cause.

use super::columns::{BATCH_ROWS, count, first, sessions};
use super::filing::Filed;
use super::{NewReport, kind_number};
use crate::query::{insert, sql};
use crate::writing::Writing;
use crate::{PolicyDigest, StoreError};
use formats::report::PolicyReport;
use formats::result_type::PolicyType;
use std::collections::BTreeMap;

/// One policy of a report with its place.
struct Entry<'r> {
    report: i64,
    /// The position in the report's list of policies.
    number: i64,
    /// The first day, and the number of days.
    days: (i64, i64),
    filed: &'r Filed<'r>,
    policy: &'r PolicyReport,
}

/// The policy that the sessions were under; `None` if the report does not state it.
fn digest(policy: &PolicyReport) -> Option<PolicyDigest> {
    match policy.policy_type {
        PolicyType::Sts => PolicyDigest::of_lines(&policy.policy_string),
        _ => None,
    }
}

/// Deletes the rows of a report.
pub async fn delete(writing: &mut Writing, report: i64) -> Result<(), StoreError> {
    sql("DELETE FROM outcome WHERE report = $1").bind(report).execute(&mut *writing).await?;
    sql("DELETE FROM failure WHERE report = $1").bind(report).execute(&mut *writing).await?;
    Ok(())
}

/// Inserts the rows of reports, each with its row id and its filing.
pub async fn insert_results(
    writing: &mut Writing,
    reports: &[(i64, &NewReport, &[Filed<'_>])],
    id_of: &impl Fn(&str) -> i64,
) -> Result<(), StoreError> {
    let entries: Vec<Entry<'_>> =
        reports.iter().flat_map(|(id, new, filed)| entries(*id, new, filed)).collect();
    for batch in entries.chunks(BATCH_ROWS) {
        let head = "INSERT INTO outcome (tenant, domain, day, report, days, kind, successful, failed, entry, policy, host)";
        let rows = insert(head, batch, "", |entry| {
            [
                writing.tenant.into(),
                id_of(entry.filed.domain).into(),
                entry.days.0.into(),
                entry.report.into(),
                entry.days.1.into(),
                kind_number(&entry.policy.policy_type).into(),
                sessions(entry.policy.successful).into(),
                sessions(entry.policy.failed).into(),
                entry.number.into(),
                PolicyDigest::column(digest(entry.policy)).into(),
                (if entry.filed.host.is_empty() { 0 } else { id_of(entry.filed.host) }).into(),
            ]
        });
        rows.execute(&mut *writing).await?;
    }
    let failures: Vec<_> = entries
        .iter()
        .flat_map(|entry| {
            causes(entry.policy).into_iter().map(move |(cause, sessions)| (entry, cause, sessions))
        })
        .collect();
    for batch in failures.chunks(BATCH_ROWS) {
        let head = "INSERT INTO failure (tenant, domain, day, report, kind, result_type, host, address, sessions, entry)";
        let rows = insert(head, batch, "", |(entry, (result, host, address), sessions)| {
            [
                writing.tenant.into(),
                id_of(entry.filed.domain).into(),
                entry.days.0.into(),
                entry.report.into(),
                kind_number(&entry.policy.policy_type).into(),
                id_of(result).into(),
                id_of(host).into(),
                address.into(),
                (*sessions).into(),
                entry.number.into(),
            ]
        });
        rows.execute(&mut *writing).await?;
    }
    Ok(())
}

fn entries<'r>(id: i64, new: &'r NewReport, filed: &'r [Filed<'r>]) -> impl Iterator<Item = Entry<'r>> {
    let days = new.report.date_range.utc_days();
    let days = (first(&days), count(days.len() as u64));
    new.report.policies.iter().zip(filed).enumerate().map(move |(number, (policy, filed))| Entry {
        report: id,
        number: count(number as u64),
        days,
        filed,
        policy,
    })
}

/// Sums the failed sessions of a policy by result type, MX host and address.
fn causes(policy: &PolicyReport) -> BTreeMap<(&str, &str, String), i64> {
    let mut sums: BTreeMap<_, i64> = BTreeMap::new();
    for detail in &policy.details {
        let host = detail.receiving_mx_hostname.as_deref().unwrap_or_default();
        let address = detail.receiving_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let sum = sums.entry((detail.result_type.as_str(), host, address)).or_default();
        *sum = sum.saturating_add(sessions(detail.failed_session_count));
    }
    sums
}
