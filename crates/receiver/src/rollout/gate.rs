//! Whether a domain in testing may go to enforce: a pure function of the reports, the time in
//! testing and the thresholds.
//!
//! What counts: reports with a verified signature, under a policy of type `sts`. A day is *covered*
//! when such a report has sessions for it, and *clean* when none of them failed for a reason that
//! the operator did not excuse. The clean run is the covered days since the last failure. Over it,
//! the upper bound of the failure rate at 95 % must be low enough; a quiet domain, which never has
//! the sessions for that, waits longer instead.

use formats::ResultType;
use formats::result_type::PolicyType;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use store::reports::{KeptReport, Trust};

/// What has to hold before enforcement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Days since the testing policy was seen in place.
    pub days_in_testing: u32,
    /// Clean days without a failing one between them.
    pub clean_days: u32,
    /// The failure rate that 95 % confidence must exclude, as a fraction.
    pub failure_rate: f64,
    /// Days in testing after which a clean run of any size will do.
    pub quiet_days: u32,
}

impl Default for Thresholds {
    /// 14 days, 7 of them clean in a row, under 0.5 %, or 28 days for quiet domains.
    fn default() -> Self {
        Self { days_in_testing: 14, clean_days: 7, failure_rate: 0.005, quiet_days: 28 }
    }
}

/// A kind of failure at one MX host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cause {
    /// The result type's name.
    pub result: String,
    /// The MX host as the reports name it, empty when they do not.
    pub host: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            "" => f.write_str(&self.result),
            host => write!(f, "{} at {host}", self.result),
        }
    }
}

/// What the reports show.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Evidence {
    /// Whole days since the testing policy was seen.
    pub days_in_testing: u32,
    /// Days with verified reports.
    pub days_covered: u32,
    /// Covered days since the last failure that nobody excused.
    pub clean_days: u32,
    /// Distinct verified submitters.
    pub senders: u32,
    /// Reports that do not count: not signed, or the signature does not hold.
    pub unverified_reports: u32,
    /// Sessions in the clean run.
    pub clean_sessions: u64,
    /// The upper bound of the failure rate over the clean run at 95 %, as a fraction.
    pub failure_rate_bound: f64,
    /// Failed sessions by cause since testing began, the most frequent first.
    #[serde(serialize_with = "causes_as_text")]
    pub failures: Vec<(Cause, u64)>,
}

fn causes_as_text<S: serde::Serializer>(causes: &[(Cause, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(causes.iter().map(|(cause, count)| (cause.to_string(), count)))
}

/// The gate's state.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "reasons")]
pub enum Gate {
    /// Enforcement is backed by evidence.
    Ready,
    /// Not yet; each reason is a phrase, the most telling first.
    NotYet(Vec<String>),
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::NotYet(reasons) => write!(f, "not yet: {}", reasons.join("; ")),
        }
    }
}

/// Sums up the reports about a domain that has been in testing since `since`.
pub fn evidence(
    reports: &[KeptReport],
    since: Timestamp,
    excused: &BTreeSet<Cause>,
    now: Timestamp,
) -> Evidence {
    let verified = || reports.iter().filter(|report| report.trust == Trust::Verified);
    let mut days: BTreeMap<Timestamp, Day> = BTreeMap::new();
    let mut failures: BTreeMap<Cause, u64> = BTreeMap::new();
    for report in verified() {
        let covered: Vec<Timestamp> =
            report.range.utc_days().into_iter().filter(|day| *day + DAY > since).collect();
        let Some(first) = covered.first() else { continue };
        for policy in report.policies.iter().filter(|policy| policy.policy_type == PolicyType::Sts) {
            let day = days.entry(*first).or_default();
            day.sessions = day.sessions.saturating_add(policy.successful.saturating_add(policy.failed));
            let (mut explained, mut failed) = (0u64, false);
            for detail in &policy.details {
                let host = detail.receiving_mx_hostname.clone().unwrap_or_default();
                let cause = cause(&detail.result_type, &host);
                explained = explained.saturating_add(detail.failed_session_count);
                failed |= detail.failed_session_count > 0 && !excused.contains(&cause);
                let count = failures.entry(cause).or_default();
                *count = count.saturating_add(detail.failed_session_count);
            }
            // Failures without details can't be excused, since nobody knows what they are.
            failed |= policy.failed > explained;
            // A report of several days does not say on which of them it was.
            covered.iter().filter(|_| failed).for_each(|day| days.entry(*day).or_default().failed = true);
        }
    }
    days.retain(|_, day| day.sessions > 0 || day.failed);
    let run: Vec<&Day> = days.values().rev().take_while(|day| !day.failed).collect();
    let clean_sessions = run.iter().fold(0u64, |sum, day| sum.saturating_add(day.sessions));
    let mut failures: Vec<(Cause, u64)> = failures.into_iter().filter(|(_, count)| *count > 0).collect();
    failures.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Evidence {
        days_in_testing: whole_days(now.duration_since(since)),
        days_covered: small(days.len()),
        clean_days: small(run.len()),
        senders: small(verified().map(|report| report.submitter.as_str()).collect::<BTreeSet<_>>().len()),
        unverified_reports: small(reports.len() - verified().count()),
        clean_sessions,
        failure_rate_bound: upper_bound(0, clean_sessions),
        failures,
    }
}

#[derive(Default)]
struct Day {
    sessions: u64,
    failed: bool,
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn whole_days(duration: SignedDuration) -> u32 {
    u32::try_from(duration.as_secs().div_euclid(86_400)).unwrap_or(0)
}

/// Opens or keeps shut.
pub fn gate(evidence: &Evidence, wanted: &Thresholds) -> Gate {
    let mut reasons = Vec::new();
    let more = |have: u32, want: u32| want.saturating_sub(have);
    if evidence.days_covered == 0 {
        reasons.push("no verified report has come yet".to_owned());
    }
    let left = more(evidence.clean_days, wanted.clean_days);
    if left > 0 && evidence.days_covered > 0 {
        let worst = evidence
            .failures
            .first()
            .map(|(cause, count)| format!(", since senders met {cause} ({})", times(*count)));
        reasons.push(format!("{} needed{}", days(left, "more clean day"), worst.unwrap_or_default()));
    }
    let left = more(evidence.days_in_testing, wanted.days_in_testing);
    if left > 0 {
        reasons.push(format!("{} in testing needed", days(left, "more day")));
    }
    let quiet = evidence.days_in_testing >= wanted.quiet_days;
    if evidence.days_covered > 0 && !quiet && evidence.failure_rate_bound > wanted.failure_rate {
        reasons.push(format!(
            "{} clean sessions bound the failure rate to {:.2} % only, where {:.2} % is needed (or {} days in testing)",
            evidence.clean_sessions,
            evidence.failure_rate_bound * 100.0,
            wanted.failure_rate * 100.0,
            wanted.quiet_days
        ));
    }
    if reasons.is_empty() { Gate::Ready } else { Gate::NotYet(reasons) }
}

fn days(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// The largest failure rate that `failures` out of `sessions` do not exclude at 95 % (one-sided
/// Clopper and Pearson); close to 3/n when nothing failed. 1 without sessions.
pub fn upper_bound(failures: u64, sessions: u64) -> f64 {
    if failures >= sessions {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if at_most(failures, sessions, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// The chance of at most `failures` failures in `sessions` sessions that each fail at `rate`.
fn at_most(failures: u64, sessions: u64, rate: f64) -> f64 {
    let (n, odds) = (sessions as f64, (rate / (1.0 - rate)).ln());
    let mut term = n * (1.0 - rate).ln();
    let mut sum = term.exp();
    for k in 0..failures {
        term += ((n - k as f64) / (k as f64 + 1.0)).ln() + odds;
        sum += term.exp();
    }
    sum
}

/// The cause of a failure of this type at this host.
pub fn cause(result: &ResultType, host: &str) -> Cause {
    Cause { result: result.as_str().to_owned(), host: host.to_owned() }
}

#[cfg(test)]
mod tests;
