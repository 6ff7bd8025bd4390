use super::*;
use formats::report::DateRange;
use formats::result_type::PolicyType;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;
use store::guard_probes::GuardProbeDay;
use store::reports::{DaySum, FailureSum, KeptReport, PolicyOutcome, Trust};

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(day * 86_400).unwrap()
}

fn report(sender: &str, day: i64, successful: u64, failed: u64) -> KeptReport {
    let failure = FailureSum {
        result_type: "certificate-expired".into(),
        host: "mx1.a.example".into(),
        sessions: failed,
    };
    KeptReport {
        submitter: sender.into(),
        trust: Trust::Verified,
        range: DateRange::utc_day(at(day)),
        outcomes: vec![PolicyOutcome {
            kind: PolicyType::Sts,
            successful,
            failed,
            failures: if failed > 0 { vec![failure] } else { vec![] },
        }],
    }
}

fn expired() -> Cause {
    Cause { result: "certificate-expired".into(), host: "mx1.a.example".into() }
}

/// One probe per day; it fails on the days in `bad`.
fn daily_probes(days: std::ops::Range<i64>, bad: &[i64]) -> Vec<GuardProbeDay> {
    let one = |day| GuardProbeDay {
        host: "mx1.a.example".into(),
        day: at(day),
        good: 1,
        bad: u64::from(bad.contains(&day)),
        problem: if bad.contains(&day) { "its certificate has expired".into() } else { String::new() },
    };
    days.map(one).collect()
}

fn decide(reports: &[KeptReport], now: i64) -> (Evidence, Gate) {
    let evidence = evidence(reports, &[], at(100), &BTreeSet::new(), at(now));
    let gate = gate(&evidence, &Thresholds::default());
    (evidence, gate)
}

fn clean(days: std::ops::Range<i64>, sessions: u64) -> Vec<KeptReport> {
    days.map(|day| report("big.example", day, sessions, 0)).collect()
}

#[test]
fn two_clean_weeks_with_enough_sessions_are_sufficient() {
    let (evidence, gate) = decide(&clean(100..114, 100), 114);
    assert_eq!((evidence.days_in_testing, evidence.clean_days, evidence.clean_sessions), (14, 14, 1400));
    assert_eq!(gate, Gate::Ready);
}

#[test]
fn a_failure_resets_the_clean_run_and_is_named() {
    let mut reports = clean(100..114, 100);
    reports.push(report("small.example", 110, 1, 3));
    let (evidence, gate) = decide(&reports, 114);
    assert_eq!((evidence.clean_days, evidence.senders), (3, 2));
    assert_eq!(
        gate.to_string(),
        "not yet: 4 more clean days needed, since senders reported certificate-expired at mx1.a.example (3 times); 300 clean sessions only bound the failure rate to 0.99 %, but 0.50 % is required (or 28 days in testing)"
    );
}

#[test]
fn a_failure_in_a_report_of_several_days_counts_for_each_of_them() {
    let mut long = report("weekly.example", 105, 50, 1);
    long.range.end = at(113) - SignedDuration::from_secs(1);
    let mut reports = clean(100..114, 100);
    reports.push(long);
    assert_eq!(decide(&reports, 114).0.clean_days, 1);
}

#[test]
fn an_excused_cause_does_not_count() {
    let mut reports = clean(100..114, 100);
    reports.push(report("small.example", 110, 1, 3));
    let evidence = evidence(&reports, &[], at(100), &BTreeSet::from([expired()]), at(114));
    assert_eq!((evidence.clean_days, evidence.failures.len()), (14, 0));
    assert_eq!(evidence.excused, [(expired(), 3)]);
    assert_eq!(gate(&evidence, &Thresholds::default()), Gate::Ready);
}

#[test]
fn failures_without_details_can_not_be_excused() {
    let mut odd = report("small.example", 110, 1, 3);
    odd.outcomes[0].failures.clear();
    let mut reports = clean(100..114, 100);
    reports.push(odd);
    assert_eq!(decide(&reports, 114).0.clean_days, 3);
}

#[test]
fn a_quiet_domain_waits_longer_instead_and_all_probes_must_succeed() {
    let gate_at = |now, probes: &[GuardProbeDay]| {
        let evidence = evidence(&clean(100..now, 2), probes, at(100), &BTreeSet::new(), at(now));
        gate(&evidence, &Thresholds::default())
    };
    assert!(matches!(gate_at(114, &daily_probes(100..114, &[])), Gate::NotYet(_)));
    assert!(matches!(gate_at(127, &daily_probes(100..127, &[])), Gate::NotYet(_)));
    assert_eq!(gate_at(128, &daily_probes(100..128, &[])), Gate::Ready);
    assert!(gate_at(128, &daily_probes(124..128, &[])).to_string().contains("probed on 3 more days"));
    let bad = gate_at(128, &daily_probes(100..128, &[120])).to_string();
    assert!(bad.contains("mx1.a.example: its certificate has expired"), "{bad}");
}

#[test]
fn evidence_by_day_agrees_with_evidence_from_reports() {
    let mut reports = clean(100..114, 100);
    reports.push(report("small.example", 108, 1, 3));
    let sums: Vec<DaySum> = (100..114)
        .map(|day| DaySum {
            day: at(day),
            successful: 100,
            failed: 0,
            sts_sessions: if day == 108 { 104 } else { 100 },
            tainted: u64::from(day == 108),
            unproved: 5,
        })
        .collect();
    let one = decide(&reports, 114).0;
    let many = evidence_by_day(&sums, &[], at(100), at(114));
    assert_eq!((one.days_covered, one.clean_days, one.clean_sessions), (14, 5, 500));
    assert_eq!((many.days_covered, many.clean_days, many.clean_sessions), (14, 5, 500));
}

#[test]
fn silence_is_not_evidence() {
    assert_eq!(decide(&[], 160).1.to_string(), "not yet: no verified report has arrived yet");
    let mut other = clean(100..114, 1000);
    other.iter_mut().for_each(|report| report.outcomes[0].kind = PolicyType::NoPolicyFound);
    assert!(matches!(decide(&other, 160).1, Gate::NotYet(_)));
}

#[test]
fn reports_from_before_testing_do_not_count() {
    assert_eq!(decide(&clean(80..100, 1000), 114).0.days_covered, 0);
}

#[test]
fn rec_01_unverified_reports_neither_open_nor_close_the_gate() {
    let forged = |trust, failed| {
        (100..114).map(move |day| KeptReport { trust, ..report("forger.example", day, 1000, failed) })
    };
    let opened: Vec<_> = forged(Trust::Unverified, 0).chain(forged(Trust::Failed, 0)).collect();
    let (evidence, gate) = decide(&opened, 160);
    assert_eq!((evidence.days_covered, evidence.unverified_reports), (0, 28));
    assert!(matches!(gate, Gate::NotYet(_)));
    let closed: Vec<_> = clean(100..114, 100).into_iter().chain(forged(Trust::Failed, 50)).collect();
    assert_eq!(decide(&closed, 114).1, Gate::Ready);
}

#[test]
fn the_bound_is_the_rule_of_three_without_failures_and_exact_with_some() {
    assert!((upper_bound(0, 1000) - 0.002_991).abs() < 1e-5);
    // Clopper-Pearson, one-sided 95 %, from tables.
    assert!((upper_bound(1, 10) - 0.394_163).abs() < 1e-5);
    assert!((upper_bound(5, 100) - 0.102_253).abs() < 1e-4);
    assert!((upper_bound(0, 0) - 1.0).abs() < f64::EPSILON);
    assert!((upper_bound(3, 3) - 1.0).abs() < f64::EPSILON);
}

proptest! {
    #[test]
    fn more_clean_sessions_never_raise_the_bound(sessions in 30u64..1_000_000, failures in 0u64..20) {
        prop_assert!(upper_bound(failures, sessions + 1) <= upper_bound(failures, sessions) + 1e-9);
        prop_assert!(upper_bound(failures, sessions) <= upper_bound(failures + 1, sessions) + 1e-9);
    }

    #[test]
    fn a_failing_report_never_helps(day in 100i64..120, failed in 1u64..1000, counts in proptest::collection::vec(0u64..500, 20)) {
        let reports: Vec<_> = (100..).zip(counts).map(|(day, count)| report("a.example", day, count, 0)).collect();
        let before = decide(&reports, 120);
        let with: Vec<_> = reports.into_iter().chain([report("b.example", day, 0, failed)]).collect();
        let after = decide(&with, 120);
        prop_assert!(after.0.clean_days <= before.0.clean_days);
        prop_assert!(!(after.1 == Gate::Ready && before.1 != Gate::Ready));
    }
}
