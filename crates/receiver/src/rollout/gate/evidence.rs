//! Summarizes the reports in the store and the guard's probes of the MX hosts as the input of the gate: what counts, from
//! whom, and what does not count and why. The rules and the adversaries that they are made for are in docs/safety.md.

use super::bound::upper_bound;
use super::cause::Cause;
use formats::result_type::PolicyType;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use store::PolicyDigest;
use store::guard_probes::GuardProbeDay;
use store::mx_history::MxHostPeriod;
use store::reports::{DaySum, EvidenceStatus, KeptReport, PolicyOutcome};
use suffix::independent_domain;

/// What is known about a domain that has been in testing since `since`.
#[derive(Debug, Clone, Copy)]
pub struct EvidenceInput<'a> {
    /// The reports about the domain.
    pub reports: &'a [KeptReport],
    /// The guard's probes of the domain's MX hosts.
    pub probes: &'a [GuardProbeDay],
    /// The domain's MX hosts over time.
    pub mx_hosts: &'a [MxHostPeriod],
    /// The policy that is published now. Sessions under another one do not count. `None` if it is not known; then all
    /// count.
    pub policy: Option<PolicyDigest>,
    /// When testing began.
    pub since: Timestamp,
    /// The causes of failures that the operator has excused.
    pub excused: &'a BTreeSet<Cause>,
    /// The current time.
    pub now: Timestamp,
}

/// What reports and probes show about a domain since testing began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// Whole days since the testing policy was first observed.
    pub days_in_testing: u32,
    /// Days with sessions in reports that count.
    pub days_covered: u32,
    /// Covered days since the last failure that is not excused.
    pub clean_days: u32,
    /// Number of registrable domains whose reports count and have sessions on the clean days.
    pub senders: u32,
    /// Number of reports that do not count: unsigned, or with an invalid signature.
    pub unverified_reports: u32,
    /// Number of signed reports that do not count, since they arrived long after their period.
    pub late_reports: u32,
    /// Number of sessions that do not count, since they were under another policy than the present one.
    pub other_policy_sessions: u64,
    /// Number of sessions in reports about days before testing began, which do not count. Zero unless the caller looks
    /// for them.
    pub earlier_sessions: u64,
    /// Number of sessions in the clean run.
    pub clean_sessions: u64,
    /// Number of these sessions without those by which the largest sender exceeds all others together.
    pub counted_sessions: u64,
    /// The 95 % upper bound of the failure rate over the clean run, as a fraction.
    pub failure_rate_bound: f64,
    /// Failed sessions by cause, the most frequent first.
    #[serde(serialize_with = "causes_as_text")]
    pub failures: Vec<(Cause, u64)>,
    /// Failed sessions by excused cause, the most frequent first.
    #[serde(serialize_with = "causes_as_text")]
    pub excused: Vec<(Cause, u64)>,
    /// The senders of reports that count, those with the most sessions on the clean days first; at most 100.
    pub sources: Vec<Source>,
    /// The senders whose failures stand in the way, by name: those with failures that are not excused on the last day with
    /// any. If the operator is asked ([`super::Gate::Ask`]), those without whose reports the evidence is sufficient.
    pub accusers: BTreeSet<String>,
    /// The failed sessions that the accusers reported, by cause, the most frequent first. Excused causes are left out.
    #[serde(serialize_with = "causes_as_text")]
    pub accused: Vec<(Cause, u64)>,
    /// The guard's probes of the MX hosts.
    pub probes: Probes,
}

/// What one registrable domain reported. All its subdomains and all its reports count as one sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The registrable domain of the sender.
    pub domain: String,
    /// Number of sessions on the clean days.
    pub clean_sessions: u64,
    /// Number of failed sessions since testing began that are not excused.
    pub failed_sessions: u64,
}

/// The guard's probes of the MX hosts since testing began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Probes {
    /// Number of days with probes.
    pub days: u32,
    /// Number of days of the clean run, since the last failed probe, on which every MX host passed its probes.
    pub clean_days: u32,
    /// An MX host that was not probed on the newest day of the clean run that is not among them.
    pub unprobed: Option<String>,
    /// The last day on which a host failed certificate verification.
    pub last_bad: Option<Timestamp>,
    /// The host that failed on that day, and the reason.
    pub problem: Option<String>,
}

/// The maximum number of senders that are listed.
const MAX_SOURCES: usize = 100;
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn causes_as_text<S: Serializer>(causes: &[(Cause, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(causes.iter().map(|(cause, count)| (cause.to_string(), count)))
}

impl Evidence {
    /// What does not count and why, as phrases for the operator.
    pub fn left_out(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut add = |count: u64, what: &str, why: &str| {
            if count > 0 {
                all.push(format!("{count} {what}{}: {why}", if count == 1 { "" } else { "s" }));
            }
        };
        add(self.unverified_reports.into(), "report", "without a valid signature");
        add(self.late_reports.into(), "report", "arrived long after the period that it covers");
        add(self.earlier_sessions, "session", "reported about days before testing began");
        add(self.other_policy_sessions, "session", "under another policy than the one published now");
        add(
            self.clean_sessions.saturating_sub(self.counted_sessions),
            "session",
            "more than all other senders together; counts only beside probes of every MX host",
        );
        all
    }
}

/// The registrable domain that a report counts for.
pub(super) fn source_of(report: &KeptReport) -> &str {
    independent_domain(report.signer.as_deref().unwrap_or(&report.submitter))
}

#[derive(Default)]
struct Day<'a> {
    sessions: BTreeMap<&'a str, u64>,
    /// The senders with failures that are not excused.
    failed: BTreeSet<&'a str>,
}

/// All reports of one identity: submitter, `report-id` and period. A sender may have split its counts into several.
#[derive(Default)]
struct OneIdentity<'a> {
    source: &'a str,
    days: Vec<Timestamp>,
    /// The successful sessions of the report with most of them.
    successful: u64,
    /// The failed sessions of all of them.
    failed: u64,
    is_tainting: bool,
}

/// What all senders reported about a domain, of which [`Summary::evidence`] selects the evidence at a time.
pub(super) struct Summary<'a> {
    facts: EvidenceInput<'a>,
    days: BTreeMap<Timestamp, Day<'a>>,
    /// The failed sessions of each sender by cause, also the excused ones.
    causes: BTreeMap<&'a str, BTreeMap<Cause, u64>>,
    /// The failed sessions of each sender that are not excused.
    failed_by: BTreeMap<&'a str, u64>,
    unverified: usize,
    late: usize,
    other_policy: u64,
}

/// Summarizes what is known about a domain.
pub fn evidence(facts: &EvidenceInput<'_>) -> Evidence {
    Summary::of(facts).evidence(facts.now, &BTreeSet::new())
}

impl<'a> Summary<'a> {
    fn empty(facts: &EvidenceInput<'a>) -> Self {
        Self {
            facts: *facts,
            days: BTreeMap::new(),
            causes: BTreeMap::new(),
            failed_by: BTreeMap::new(),
            unverified: 0,
            late: 0,
            other_policy: 0,
        }
    }

    /// Reads all reports once.
    pub(super) fn of(facts: &EvidenceInput<'a>) -> Self {
        let mut summary = Self::empty(facts);
        let mut all: BTreeMap<_, OneIdentity<'_>> = BTreeMap::new();
        for report in facts.reports {
            match EvidenceStatus::of(report.trust, report.range.end, report.received_at) {
                EvidenceStatus::NotAuthenticated => summary.unverified += 1,
                EvidenceStatus::Late => summary.late += 1,
                EvidenceStatus::Counts => {
                    let key = (&report.submitter, &report.report_id, report.range.start, report.range.end);
                    summary.add(report, all.entry(key).or_default());
                }
            }
        }
        for one in all.values() {
            let Some(first) = one.days.first() else { continue };
            let sessions = one.successful.saturating_add(one.failed);
            if sessions > 0 {
                let sum = summary.days.entry(*first).or_default().sessions.entry(one.source).or_default();
                *sum = sum.saturating_add(sessions);
            }
            // A report that covers several days does not date its failures, so they count for each of its days.
            one.days.iter().filter(|_| one.is_tainting).for_each(|day| {
                summary.days.entry(*day).or_default().failed.insert(one.source);
            });
        }
        summary
    }

    fn add(&mut self, report: &'a KeptReport, one: &mut OneIdentity<'a>) {
        one.source = source_of(report);
        one.days = report.range.utc_days();
        one.days.retain(|day| *day + DAY > self.facts.since && *day <= self.facts.now);
        if one.days.is_empty() {
            return;
        }
        let mut successful = 0u64;
        for outcome in &report.outcomes {
            let sessions = outcome.successful.saturating_add(outcome.failed);
            match &outcome.kind {
                PolicyType::NoPolicyFound | PolicyType::Tlsa => continue,
                PolicyType::Sts if is_other(self.facts.policy, outcome.policy) => {
                    self.other_policy = self.other_policy.saturating_add(sessions);
                    continue;
                }
                PolicyType::Sts => successful = successful.saturating_add(outcome.successful),
                // Failures under a policy of unknown type may be failures under ours.
                PolicyType::Other(_) => {}
            }
            self.failures(outcome, one);
        }
        one.successful = one.successful.max(successful);
    }

    fn failures(&mut self, outcome: &PolicyOutcome, one: &mut OneIdentity<'a>) {
        let (mut explained, mut accused) = (0u64, 0u64);
        for failure in outcome.failures.iter().filter(|failure| failure.sessions > 0) {
            let cause = Cause { result: failure.result_type.clone(), host: failure.host.clone() };
            explained = explained.saturating_add(failure.sessions);
            if !self.facts.excused.contains(&cause) {
                accused = accused.saturating_add(failure.sessions);
            }
            let count = self.causes.entry(one.source).or_default().entry(cause).or_default();
            *count = count.saturating_add(failure.sessions);
        }
        // Failures without a known cause can't be excused.
        explained = explained.saturating_add(outcome.unlisted);
        accused = accused.saturating_add(outcome.unlisted);
        accused = accused.saturating_add(outcome.failed.saturating_sub(explained));
        one.failed = one.failed.saturating_add(outcome.failed);
        if accused > 0 {
            one.is_tainting = true;
            let sum = self.failed_by.entry(one.source).or_default();
            *sum = sum.saturating_add(accused);
        }
    }

    /// The evidence about the days up to `now`, without the reports of some senders.
    pub(super) fn evidence(&self, now: Timestamp, without: &BTreeSet<&str>) -> Evidence {
        let facts = EvidenceInput { now, ..self.facts };
        let is_failing = |day: &Day<'_>| day.failed.iter().any(|sender| !without.contains(sender));
        let mut covered = 0;
        // None after the last failure.
        let mut last_failing = None;
        let mut by_sender: BTreeMap<&str, u64> = BTreeMap::new();
        let mut clean: BTreeSet<Timestamp> = BTreeSet::new();
        for (at, day) in self.days.range(..=now).rev() {
            if is_failing(day) {
                last_failing = last_failing.or(Some(day));
                covered += 1;
                continue;
            }
            let mut sessions =
                day.sessions.iter().filter(|(sender, _)| !without.contains(*sender)).peekable();
            if sessions.peek().is_none() {
                continue;
            }
            covered += 1;
            if last_failing.is_none() {
                clean.insert(*at);
                for (sender, sessions) in sessions {
                    let sum = by_sender.entry(*sender).or_default();
                    *sum = sum.saturating_add(*sessions);
                }
            }
        }
        let clean_sessions = by_sender.values().copied().fold(0u64, u64::saturating_add);
        let mut ordered: Vec<u64> = by_sender.values().copied().collect();
        ordered.sort_unstable();
        let largest = ordered.pop().unwrap_or_default();
        let others = ordered.into_iter().fold(0u64, u64::saturating_add);
        let accusers: BTreeSet<&str> = last_failing
            .into_iter()
            .flat_map(|day| &day.failed)
            .copied()
            .filter(|sender| !sender.is_empty() && !without.contains(sender))
            .collect();
        let failures =
            self.causes(|sender, cause| !without.contains(sender) && !facts.excused.contains(cause));
        let excused = self.causes(|sender, cause| !without.contains(sender) && facts.excused.contains(cause));
        Evidence {
            days_in_testing: whole_days(now.duration_since(facts.since)),
            days_covered: covered,
            clean_days: small(clean.len()),
            senders: small(by_sender.len()),
            unverified_reports: small(self.unverified),
            late_reports: small(self.late),
            other_policy_sessions: self.other_policy,
            earlier_sessions: 0,
            clean_sessions,
            counted_sessions: others.saturating_add(largest.min(others)),
            failure_rate_bound: upper_bound(0, clean_sessions),
            failures,
            excused,
            accused: self.accused(&accusers),
            accusers: accusers.into_iter().map(str::to_owned).collect(),
            sources: sources(&by_sender, &self.failed_by),
            probes: probes(&facts, &clean),
        }
    }

    /// The failed sessions by cause that some senders reported and that are not excused.
    pub(super) fn accused(&self, senders: &BTreeSet<&str>) -> Vec<(Cause, u64)> {
        self.causes(|sender, cause| senders.contains(sender) && !self.facts.excused.contains(cause))
    }

    /// The failed sessions by cause of those senders and causes, the most frequent first.
    fn causes(&self, is_wanted: impl Fn(&str, &Cause) -> bool) -> Vec<(Cause, u64)> {
        let mut sums: BTreeMap<&Cause, u64> = BTreeMap::new();
        for (sender, causes) in &self.causes {
            for (cause, sessions) in causes.iter().filter(|(cause, _)| is_wanted(sender, cause)) {
                let sum = sums.entry(cause).or_default();
                *sum = sum.saturating_add(*sessions);
            }
        }
        let mut causes: Vec<_> = sums.into_iter().map(|(cause, sum)| (cause.clone(), sum)).collect();
        causes.sort_by_key(|(_, sum)| std::cmp::Reverse(*sum));
        causes
    }

    /// The fewest senders without whose reports the evidence is sufficient at `now`, leaving out those with the latest
    /// failures first. `None` if they are `most` or more, or if the evidence is not sufficient without them either.
    ///
    /// Only failures after the last one of a sender that is not left out stand in the way of anything, since the clean run
    /// begins after that one. Where the evidence of some senders alone is sufficient, the result thus never contains one of
    /// these senders: not one of them has failed since their own clean run began.
    pub(super) fn in_the_way(
        &self,
        now: Timestamp,
        most: usize,
        is_sufficient: impl Fn(&Evidence) -> bool,
    ) -> Option<BTreeSet<&'a str>> {
        let mut left_out = BTreeSet::new();
        while left_out.len() < most {
            if is_sufficient(&self.evidence(now, &left_out)) {
                return Some(left_out);
            }
            let mut days = self.days.range(..=now).rev();
            let (_, last) = days.find(|(_, day)| !day.failed.is_subset(&left_out))?;
            left_out.extend(&last.failed);
        }
        None
    }

    /// All senders with failures that are not excused, since testing began.
    #[cfg(test)]
    pub(super) fn all_accusers(&self) -> BTreeSet<&'a str> {
        self.failed_by.keys().copied().collect()
    }
}

/// True if a session was under another policy than the present one. A report that does not state the policy counts: some
/// reporters never state it.
fn is_other(present: Option<PolicyDigest>, stated: Option<PolicyDigest>) -> bool {
    matches!((present, stated), (Some(present), Some(stated)) if present != stated)
}

fn sources(clean: &BTreeMap<&str, u64>, failed: &BTreeMap<&str, u64>) -> Vec<Source> {
    let names: BTreeSet<&str> = clean.keys().chain(failed.keys()).copied().collect();
    let of = |sums: &BTreeMap<&str, u64>, name: &str| sums.get(name).copied().unwrap_or_default();
    let mut all: Vec<Source> = names
        .into_iter()
        .map(|name| Source {
            domain: name.to_owned(),
            clean_sessions: of(clean, name),
            failed_sessions: of(failed, name),
        })
        .collect();
    all.sort_by_key(|source| std::cmp::Reverse((source.clean_sessions, source.failed_sessions)));
    all.truncate(MAX_SOURCES);
    all
}

/// Computes the days and sessions from sums by day, for many domains at once. Senders, causes and probes are left out, no
/// cause is excused, and sessions under other policies count. [`super::not_due`] judges the result.
pub fn evidence_by_day(sums: &[DaySum], since: Timestamp, now: Timestamp) -> Evidence {
    let in_testing = sums.iter().filter(|sum| sum.day + DAY > since && sum.day <= now);
    let days = in_testing
        .map(|sum| {
            let sessions = match sum.sts_sessions {
                0 => BTreeMap::new(),
                sessions => BTreeMap::from([("", sessions)]),
            };
            // The sums do not tell which sender failed.
            let failed = if sum.tainted > 0 { BTreeSet::from([""]) } else { BTreeSet::new() };
            (sum.day, Day { sessions, failed })
        })
        .collect();
    let (excused, policy) = (&BTreeSet::new(), None);
    let facts = EvidenceInput { reports: &[], probes: &[], mx_hosts: &[], policy, since, excused, now };
    Summary { days, ..Summary::empty(&facts) }.evidence(now, &BTreeSet::new())
}

/// Summarizes the probes under the present policy. `clean` are the days of the clean run.
fn probes(facts: &EvidenceInput<'_>, clean: &BTreeSet<Timestamp>) -> Probes {
    let counts = |probe: &&GuardProbeDay| {
        let is_in_time = probe.day + DAY > facts.since && probe.day <= facts.now;
        is_in_time && !is_other(facts.policy, probe.policy)
    };
    let all: Vec<&GuardProbeDay> = facts.probes.iter().filter(counts).collect();
    let days: BTreeSet<Timestamp> = all.iter().map(|probe| probe.day).collect();
    let last_bad = all.iter().filter(|probe| probe.bad > 0).max_by_key(|probe| probe.day);
    let passed: BTreeSet<(Timestamp, &str)> =
        all.iter().filter(|probe| probe.good > 0).map(|probe| (probe.day, probe.host.as_str())).collect();
    let (mut clean_days, mut unprobed) = (0, None);
    for day in clean.iter().rev().take_while(|day| last_bad.is_none_or(|bad| bad.day < **day)) {
        let mut hosts =
            facts.mx_hosts.iter().filter(|host| host.first <= *day && host.last >= *day).peekable();
        let is_known = hosts.peek().is_some();
        match hosts.find(|host| !passed.contains(&(*day, host.host.as_str()))) {
            None if is_known => clean_days += 1,
            missing => unprobed = unprobed.or(missing.map(|host| host.host.clone())),
        }
    }
    Probes {
        days: small(days.len()),
        clean_days,
        unprobed,
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
