//! What reports and our own looks at the MX hosts show about a domain: the input of the gate.

use super::bound::upper_bound;
use super::cause::Cause;
use super::thresholds::Thresholds;
use formats::result_type::PolicyType;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use store::guard_probes::GuardProbeDay;
use store::reports::{DaySum, KeptReport};

/// What the reports show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Whole days since the testing policy was seen.
    pub days_in_testing: u32,
    /// Days with reports that count.
    pub days_covered: u32,
    /// Covered days since the last failure that nobody excused.
    pub clean_days: u32,
    /// Distinct submitters of reports that count.
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
    /// The same, of causes that the operator excused.
    #[serde(serialize_with = "causes_as_text")]
    pub excused: Vec<(Cause, u64)>,
    /// What our own looks at the MX hosts saw.
    pub probes: Probes,
}

/// Our own looks at the MX hosts since testing began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Probes {
    /// Days on which we looked.
    pub days: u32,
    /// The last day on which a host did not prove itself.
    pub last_bad: Option<Timestamp>,
    /// Which, and why.
    pub problem: Option<String>,
}

impl Evidence {
    /// True when all else is there, and our own looks at the MX hosts decide.
    pub fn is_decided_by_probes(&self, wanted: &Thresholds) -> bool {
        self.days_covered > 0
            && self.clean_days >= wanted.clean_days
            && self.days_in_testing >= wanted.days_in_testing.max(wanted.quiet_days)
            && self.failure_rate_bound > wanted.failure_rate
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

/// Sums up the reports about a domain that has been in testing since `since`.
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
            // Failures without details can't be excused, since nobody knows what they are.
            failed |= outcome.failed > explained;
            // A report of several days does not say on which of them it was.
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
        ..over(days, probes, since, now)
    }
}

/// The same from sums by day, for many domains at once: without causes and senders, and nothing excused.
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
    over(days, probes, since, now)
}

fn over(mut days: Days, probes: &[GuardProbeDay], since: Timestamp, now: Timestamp) -> Evidence {
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
        probes: looked(probes, since),
    }
}

fn looked(probes: &[GuardProbeDay], since: Timestamp) -> Probes {
    let ours = || probes.iter().filter(|probe| probe.day + DAY > since);
    let days: BTreeSet<Timestamp> = ours().map(|probe| probe.day).collect();
    let last_bad = ours().filter(|probe| probe.bad > 0).max_by_key(|probe| probe.day);
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
