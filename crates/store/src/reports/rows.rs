//! The rows of the results of reports: one outcome for each policy, and its failures by cause.

use super::columns::{BATCH_ROWS, count, first, sessions};
use super::filing::Filed;
use super::{NewReport, OTHER_CAUSES, kind_number};
use crate::query::{insert, sql};
use crate::writing::Writing;
use crate::{PolicyDigest, StoreError};
use formats::limits::REPORT_CAUSES;
use formats::report::PolicyReport;
use formats::result_type::PolicyType;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

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
    let failures: Vec<_> = reports
        .iter()
        .flat_map(|(id, new, filed)| failures(new, filed).into_iter().map(move |row| (*id, days(new), row)))
        .collect();
    for batch in failures.chunks(BATCH_ROWS) {
        let head = "INSERT INTO failure (tenant, domain, day, report, kind, result_type, host, address, sessions, entry)";
        let rows = insert(head, batch, "", |(report, days, failure)| {
            [
                writing.tenant.into(),
                id_of(failure.domain).into(),
                days.0.into(),
                (*report).into(),
                failure.kind.into(),
                id_of(failure.result_type).into(),
                id_of(failure.host).into(),
                failure.address.as_str().into(),
                failure.sessions.into(),
                failure.entry.into(),
            ]
        });
        rows.execute(&mut *writing).await?;
    }
    Ok(())
}

fn entries<'r>(id: i64, new: &'r NewReport, filed: &'r [Filed<'r>]) -> impl Iterator<Item = Entry<'r>> {
    let days = days(new);
    new.report.policies.iter().zip(filed).enumerate().map(move |(number, (policy, filed))| Entry {
        report: id,
        number: count(number as u64),
        days,
        filed,
        policy,
    })
}

/// The first day of a report, and the number of days.
fn days(new: &NewReport) -> (i64, i64) {
    let days = new.report.date_range.utc_days();
    (first(&days), count(days.len() as u64))
}

/// A row of the failures of a report.
pub struct FailureRow<'r> {
    domain: &'r str,
    /// The position of the policy in the report.
    entry: i64,
    kind: i64,
    pub result_type: &'r str,
    pub host: &'r str,
    address: String,
    sessions: i64,
}

/// Sums the failed sessions of a report by policy, result type, MX host and address. Of each domain, the [`REPORT_CAUSES`]
/// with the most sessions have rows of their own; the others of a policy are one row of [`OTHER_CAUSES`].
pub fn failures<'r>(new: &'r NewReport, filed: &'r [Filed<'r>]) -> Vec<FailureRow<'r>> {
    let mut all: Vec<FailureRow<'r>> = Vec::new();
    for entry in entries(0, new, filed) {
        all.extend(causes(entry.policy).into_iter().map(|((result_type, host, address), sessions)| {
            FailureRow {
                domain: entry.filed.domain,
                entry: entry.number,
                kind: kind_number(&entry.policy.policy_type),
                result_type,
                host,
                address,
                sessions,
            }
        }));
    }
    if all.len() <= REPORT_CAUSES {
        return all;
    }
    all.sort_by_key(|row| Reverse(row.sessions));
    let mut of_domain: HashMap<&str, usize> = HashMap::new();
    let mut others: BTreeMap<i64, FailureRow<'r>> = BTreeMap::new();
    all.retain(|row| {
        let listed = of_domain.entry(row.domain).or_default();
        *listed += 1;
        if *listed <= REPORT_CAUSES {
            return true;
        }
        let other = others.entry(row.entry).or_insert_with(|| FailureRow {
            result_type: OTHER_CAUSES,
            host: "",
            address: String::new(),
            sessions: 0,
            ..*row
        });
        other.sessions = other.sessions.saturating_add(row.sessions);
        false
    });
    all.extend(others.into_values());
    all
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
