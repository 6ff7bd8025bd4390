//! Summarizes the reports in the store and the guard's probes of the MX hosts as the input of the gate.

use super::bound::upper_bound;
use super::cause::Cause;
use super::thresholds::Thresholds;
use formats::result_type::PolicyType;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use store::guard_probes::GuardProbeDay;
use store::reports::{DaySum, KeptReport};

/// What reports and probes show about a domain since testing began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Whole days since the testing policy was first observed.
    pub days_in_testing: u32,
    /// Days with sessions in reports that count.
    pub days_covered: u32,
    /// Covered days since the last failure that is not excused.
    pub clean_days: u32,
    /// Number of distinct submitters of reports that count.
    pub senders: u32,
    /// Number of reports that do not count: unsigned, or with an invalid signature.
    pub unverified_reports: u32,
    /// Number of sessions in the clean run.
    pub clean_sessions: u64,
    /// The 95 % upper bound of the failure rate over the clean run, as a fraction.
    pub failure_rate_bound: f64,
    /// Failed sessions by cause, the most frequent first.
    #[serde(serialize_with = "causes_as_text")]
    pub failures: Vec<(Cause, u64)>,
    /// Failed sessions by excused cause, the most frequent first.
    #[serde(serialize_with = "causes_as_text")]
    pub excused: Vec<(Cause, u64)>,
    /// The guard's probes of the MX hosts.
    pub probes: Probes,
}

/// The guard's probes of the MX hosts since testing began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Probes {
    /// Number of days with probes.
    pub days: u32,
    /// The last day on which a host failed certificate verification.
    pub last_bad: Option<Timestamp>,
    /// The host that failed on that day, and the reason.
    pub problem: Option<String>,
}

impl Evidence {
    /// True when only the session count is too low, so that the probes of the MX hosts decide.
    pub fn is_decided_by_probes(&self, thresholds: &Thresholds) -> bool {
        self.days_covered > 0
            && self.clean_days >= thresholds.clean_days
            && self.days_in_testing >= thresholds.days_in_testing.max(thresholds.quiet_days)
            && self.failure_rate_bound > thresholds.failure_rate
    }
}

fn causes_as_text<S: Serializer>(causes: &[(Cause, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(causes.iter().map(|(cause, count)| (cause.to_string(), count)))
}

#[derive(Default)]
struct Day {
    sessions: u64,
    failed: bool,
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

type Days = BTreeMap<Timestamp, Day>;

/// Summarizes the reports about a domain that has been in testing since `since`.
pub fn evidence(
    reports: &[KeptReport],
    probes: &[GuardProbeDay],
    since: Timestamp,
    excused: &BTreeSet<Cause>,
    now: Timestamp,
) -> Evidence {
    let counting = || reports.iter().filter(|report| report.trust.counts());
    let mut days = Days::new();
    let mut causes: BTreeMap<Cause, u64> = BTreeMap::new();
    for report in counting() {
        let covered: Vec<Timestamp> =
            report.range.utc_days().into_iter().filter(|day| *day + DAY > since).collect();
        let Some(first) = covered.first() else { continue };
        for outcome in report.outcomes.iter().filter(|outcome| outcome.kind == PolicyType::Sts) {
            let day = days.entry(*first).or_default();
            day.sessions = day.sessions.saturating_add(outcome.successful.saturating_add(outcome.failed));
            let (mut explained, mut failed) = (0u64, false);
            for failure in outcome.failures.iter().filter(|failure| failure.sessions > 0) {
                let cause = Cause { result: failure.result_type.clone(), host: failure.host.clone() };
                explained = explained.saturating_add(failure.sessions);
                failed |= !excused.contains(&cause);
                let count = causes.entry(cause).or_default();
                *count = count.saturating_add(failure.sessions);
            }
            // Failures without details can't be excused, since their cause is unknown.
            failed |= outcome.failed > explained;
            // A report that covers several days does not date its failures, so they count for each of its days.
            covered.iter().filter(|_| failed).for_each(|day| days.entry(*day).or_default().failed = true);
        }
    }
    let mut causes: Vec<(Cause, u64)> = causes.into_iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let (excused, failures) = causes.into_iter().partition(|(cause, _)| excused.contains(cause));
    let senders: BTreeSet<&str> = counting().map(|report| report.submitter.as_str()).collect();
    Evidence {
        senders: small(senders.len()),
        unverified_reports: small(reports.len() - counting().count()),
        failures,
        excused,
        ..summarize(days, probes, since, now)
    }
}

/// Computes the evidence from sums by day, for many domains at once. Causes and senders are left out, and no cause is
/// excused.
pub fn evidence_by_day(
    sums: &[DaySum],
    probes: &[GuardProbeDay],
    since: Timestamp,
    now: Timestamp,
) -> Evidence {
    let in_testing = sums.iter().filter(|sum| sum.day + DAY > since);
    let days = in_testing
        .map(|sum| (sum.day, Day { sessions: sum.sts_sessions, failed: sum.tainted > 0 }))
        .collect();
    summarize(days, probes, since, now)
}

fn summarize(mut days: Days, probes: &[GuardProbeDay], since: Timestamp, now: Timestamp) -> Evidence {
    days.retain(|_, day| day.sessions > 0 || day.failed);
    let run: Vec<&Day> = days.values().rev().take_while(|day| !day.failed).collect();
    let clean_sessions = run.iter().fold(0u64, |sum, day| sum.saturating_add(day.sessions));
    Evidence {
        days_in_testing: whole_days(now.duration_since(since)),
        days_covered: small(days.len()),
        clean_days: small(run.len()),
        senders: 0,
        unverified_reports: 0,
        clean_sessions,
        failure_rate_bound: upper_bound(0, clean_sessions),
        failures: Vec::new(),
        excused: Vec::new(),
        probes: summarize_probes(probes, since),
    }
}

fn summarize_probes(probes: &[GuardProbeDay], since: Timestamp) -> Probes {
    let in_testing = || probes.iter().filter(|probe| probe.day + DAY > since);
    let days: BTreeSet<Timestamp> = in_testing().map(|probe| probe.day).collect();
    let last_bad = in_testing().filter(|probe| probe.bad > 0).max_by_key(|probe| probe.day);
    Probes {
        days: small(days.len()),
        last_bad: last_bad.map(|probe| probe.day),
        problem: last_bad.map(|probe| format!("{}: {}", probe.host, probe.problem)),
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn whole_days(duration: SignedDuration) -> u32 {
    u32::try_from(duration.as_secs().div_euclid(86_400)).unwrap_or(0)
}
