//! Daily sums by domain and by submitter. `keep` updates them with every report, so that pages that cover many reports
//! need not read the reports themselves.

use super::columns::{BATCH_ROWS, first, sessions};
use super::{NewReport, Trust};
use crate::StoreError;
use crate::query::{added, insert};
use crate::writing::Writing;
use formats::limits::REPORT_DAY_SUMS;
use formats::report::DateRange;
use formats::result_type::PolicyType;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The changes that a batch of reports makes to the daily sums.
#[derive(Debug, Default)]
pub struct Sums {
    /// The key is the domain's id and the day.
    domains: BTreeMap<(i64, i64), DomainSums>,
    /// The key is the submitter's id, whether its reports count as evidence, and the day.
    submitters: BTreeMap<(i64, bool, i64), SubmitterSums>,
}

#[derive(Debug, Clone, Copy, Default)]
struct DomainSums {
    successful: i64,
    failed: i64,
    sts_sessions: i64,
    tainted: i64,
    unproved: i64,
}

/// The counts of a stored report.
#[derive(Debug)]
pub struct StoredCounts {
    pub submitter: i64,
    pub trust: Trust,
    pub range: DateRange,
    pub policies: Vec<StoredPolicyCounts>,
}

/// The counts of a stored report under one policy.
#[derive(Debug)]
pub struct StoredPolicyCounts {
    pub domain: i64,
    pub kind: PolicyType,
    pub successful: i64,
    pub failed: i64,
    /// Whether there are failure details with sessions.
    pub has_failures: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct SubmitterSums {
    reports: i64,
    successful: i64,
    failed: i64,
}

impl Sums {
    /// True if no sum changes.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.submitters.is_empty()
    }

    /// Adds the counts of a report. `domains` are the ids of the domains that its policies are filed under, in order.
    /// `trust` decides which sums they are added to.
    pub fn add(&mut self, new: &NewReport, trust: Trust, submitter: i64, domains: &[i64]) {
        self.change(new, trust, submitter, domains, 1);
    }

    /// Subtracts the counts of a report that was added with these values.
    pub fn subtract(&mut self, new: &NewReport, trust: Trust, submitter: i64, domains: &[i64]) {
        self.change(new, trust, submitter, domains, -1);
    }

    fn change(&mut self, new: &NewReport, trust: Trust, submitter: i64, domains: &[i64], sign: i64) {
        let days = new.report.date_range.utc_days();
        let by = |number: u64| sessions(number).saturating_mul(sign);
        let of_submitter = self.submitters.entry((submitter, trust.counts(), first(&days))).or_default();
        of_submitter.reports += sign;
        for (policy, id) in new.report.policies.iter().zip(domains) {
            of_submitter.successful = of_submitter.successful.saturating_add(by(policy.successful));
            of_submitter.failed = of_submitter.failed.saturating_add(by(policy.failed));
            let sum = self.domains.entry((*id, first(&days))).or_default();
            let both = by(policy.successful).saturating_add(by(policy.failed));
            if !trust.counts() {
                sum.unproved = sum.unproved.saturating_add(both);
                continue;
            }
            sum.successful = sum.successful.saturating_add(by(policy.successful));
            sum.failed = sum.failed.saturating_add(by(policy.failed));
            if policy.policy_type != PolicyType::Sts {
                continue;
            }
            sum.sts_sessions = sum.sts_sessions.saturating_add(both);
            if policy.failed > 0 || policy.details.iter().any(|detail| detail.failed_session_count > 0) {
                // A report over several days does not state on which day the failures occurred.
                for day in tainted_days(&days, new.report.policies.len()) {
                    self.domains.entry((*id, day.as_second())).or_default().tainted += sign;
                }
            }
        }
    }

    /// Adds the counts of a stored report, read from its rows.
    pub fn add_stored(&mut self, report: &StoredCounts) {
        self.change_stored(report, 1);
    }

    /// Subtracts the counts of a stored report, read from its rows.
    pub fn subtract_stored(&mut self, report: &StoredCounts) {
        self.change_stored(report, -1);
    }

    fn change_stored(&mut self, report: &StoredCounts, sign: i64) {
        let days = report.range.utc_days();
        let counts = report.trust.counts();
        let of_submitter = self.submitters.entry((report.submitter, counts, first(&days))).or_default();
        of_submitter.reports += sign;
        for policy in &report.policies {
            // Stored counts are not negative, so neither sign overflows.
            let [successful, failed] =
                [policy.successful, policy.failed].map(|number| number.saturating_mul(sign));
            of_submitter.successful = of_submitter.successful.saturating_add(successful);
            of_submitter.failed = of_submitter.failed.saturating_add(failed);
            let sum = self.domains.entry((policy.domain, first(&days))).or_default();
            let sessions = successful.saturating_add(failed);
            if !counts {
                sum.unproved = sum.unproved.saturating_add(sessions);
                continue;
            }
            sum.successful = sum.successful.saturating_add(successful);
            sum.failed = sum.failed.saturating_add(failed);
            if policy.kind != PolicyType::Sts {
                continue;
            }
            sum.sts_sessions = sum.sts_sessions.saturating_add(sessions);
            if policy.failed > 0 || policy.has_failures {
                for day in tainted_days(&days, report.policies.len()) {
                    self.domains.entry((policy.domain, day.as_second())).or_default().tainted += sign;
                }
            }
        }
    }

    /// Changes the successes of a domain on a day: all, and those under MTA-STS.
    pub fn change_successes(&mut self, domain: i64, day: i64, all: i64, sts: i64) {
        let sum = self.domains.entry((domain, day)).or_default();
        sum.successful = sum.successful.saturating_add(all);
        sum.sts_sessions = sum.sts_sessions.saturating_add(sts);
    }

    /// Changes the successes of a submitter on a day, in reports that count as evidence.
    pub fn change_submitter_successes(&mut self, submitter: i64, day: i64, all: i64) {
        let sum = self.submitters.entry((submitter, true, day)).or_default();
        sum.successful = sum.successful.saturating_add(all);
    }

    /// The ids of the domains whose sums change, and the days.
    pub fn changed_domains(&self) -> impl Iterator<Item = (i64, i64)> {
        self.domains.keys().copied()
    }

    /// The ids of the submitters whose sums change, whether their reports count, and the days.
    pub fn changed_submitters(&self) -> impl Iterator<Item = (i64, bool, i64)> {
        self.submitters.keys().copied()
    }

    /// Adds the changes to the stored sums.
    pub async fn write(&self, writing: &mut Writing) -> Result<(), StoreError> {
        let domains: Vec<_> = self.domains.iter().collect();
        let columns = ["successful", "failed", "sts_sessions", "tainted", "unproved"];
        let add = added(writing.dialect(), "domain_day", &columns);
        let update = format!("ON CONFLICT (tenant, domain, day) DO UPDATE SET {add}");
        for batch in domains.chunks(BATCH_ROWS) {
            let head = "INSERT INTO domain_day (tenant, domain, day, successful, failed, sts_sessions, tainted, unproved)";
            let rows = insert(head, batch, &update, |((domain, day), sum)| {
                let numbers = [sum.successful, sum.failed, sum.sts_sessions, sum.tainted, sum.unproved];
                let [successful, failed, sts_sessions, tainted, unproved] = numbers.map(Into::into);
                let (domain, day) = ((*domain).into(), (*day).into());
                [writing.tenant.into(), domain, day, successful, failed, sts_sessions, tainted, unproved]
            });
            rows.execute(&mut *writing).await?;
        }
        let submitters: Vec<_> = self.submitters.iter().collect();
        let add = added(writing.dialect(), "submitter_day", &["reports", "successful", "failed"]);
        let update = format!("ON CONFLICT (tenant, submitter, counts, day) DO UPDATE SET {add}");
        for batch in submitters.chunks(BATCH_ROWS) {
            let head =
                "INSERT INTO submitter_day (tenant, submitter, counts, day, reports, successful, failed)";
            let rows = insert(head, batch, &update, |((submitter, counts, day), sum)| {
                let [reports, successful, failed] = [sum.reports, sum.successful, sum.failed].map(Into::into);
                let (submitter, counts, day) = ((*submitter).into(), (*counts).into(), (*day).into());
                [writing.tenant.into(), submitter, counts, day, reports, successful, failed]
            });
            rows.execute(&mut *writing).await?;
        }
        Ok(())
    }
}

/// The days of a report that its failures count on: all, or the newest if that would be more than [`REPORT_DAY_SUMS`]
/// sums for the report.
fn tainted_days(days: &[Timestamp], policies: usize) -> &[Timestamp] {
    let most = (REPORT_DAY_SUMS / policies.max(1)).max(1);
    days.get(days.len().saturating_sub(most)..).unwrap_or(days)
}

/// The number of rows that a report takes at most, in all tables.
pub fn rows(new: &NewReport) -> usize {
    let report = &new.report;
    let details: usize = report.policies.iter().map(|policy| policy.details.len()).sum();
    let days = tainted_days(&report.date_range.utc_days(), report.policies.len()).len();
    2 + details + report.policies.len().saturating_mul(1 + days)
}
