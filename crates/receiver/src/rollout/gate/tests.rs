use super::*;
use formats::report::DateRange;
use formats::result_type::PolicyType;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;
use store::PolicyDigest;
use store::guard_probes::GuardProbeDay;
use store::mx_history::MxHostPeriod;
use store::reports::{DaySum, FailureSum, KeptReport, PolicyOutcome, Trust};

pub(super) fn at(day: i64) -> Timestamp {
    Timestamp::from_second(day * 86_400).unwrap()
}

pub(super) fn report(sender: &str, day: i64, successful: u64, failed: u64) -> KeptReport {
    let failure = FailureSum {
        result_type: "certificate-expired".into(),
        host: "mx1.a.example".into(),
        sessions: failed,
    };
    KeptReport {
        submitter: sender.into(),
        signer: Some(sender.into()),
        report_id: format!("{day}-{successful}-{failed}"),
        trust: Trust::Verified,
        received_at: at(day + 1),
        range: DateRange::utc_day(at(day)),
        outcomes: vec![PolicyOutcome {
            kind: PolicyType::Sts,
            policy: None,
            successful,
            failed,
            failures: if failed > 0 { vec![failure] } else { vec![] },
            unlisted: 0,
        }],
    }
}

fn expired() -> Cause {
    Cause { result: "certificate-expired".into(), host: "mx1.a.example".into() }
}

/// One probe per day; it fails on the days in `bad`.
pub(super) fn daily_probes(days: std::ops::Range<i64>, bad: &[i64]) -> Vec<GuardProbeDay> {
    let one = |day| GuardProbeDay {
        host: "mx1.a.example".into(),
        day: at(day),
        policy: None,
        good: 1,
        bad: u64::from(bad.contains(&day)),
        problem: if bad.contains(&day) { "its certificate has expired".into() } else { String::new() },
    };
    days.map(one).collect()
}

/// One MX host, since before testing.
pub(super) fn mx_hosts() -> Vec<MxHostPeriod> {
    vec![MxHostPeriod { host: "mx1.a.example".into(), first: at(90), last: at(500) }]
}

/// The result of testing that began on day 100, without excuses.
pub(super) fn judged(reports: &[KeptReport], probes: &[GuardProbeDay], now: i64) -> (Evidence, Gate) {
    judged_by(judge, reports, probes, now)
}

/// As [`judged`], by another rule.
pub(super) fn judged_by(
    rule: fn(&EvidenceInput<'_>, &Thresholds) -> (Evidence, Gate),
    reports: &[KeptReport],
    probes: &[GuardProbeDay],
    now: i64,
) -> (Evidence, Gate) {
    let (excused, mx_hosts) = (&BTreeSet::new(), &mx_hosts());
    let facts =
        EvidenceInput { reports, probes, mx_hosts, policy: None, since: at(100), excused, now: at(now) };
    rule(&facts, &Thresholds::default())
}

fn decide(reports: &[KeptReport], now: i64) -> (Evidence, Gate) {
    judged(reports, &[], now)
}

/// So many sessions a day, half of them reported by one sender and a quarter by each of two others.
fn clean(days: std::ops::Range<i64>, sessions: u64) -> Vec<KeptReport> {
    let quarter = sessions / 4;
    let of_day = |day| {
        [("one.example", sessions - 2 * quarter), ("two.example", quarter), ("three.example", quarter)]
            .map(|(sender, sessions)| report(sender, day, sessions, 0))
    };
    days.flat_map(of_day).collect()
}

/// As [`clean`], all reported by one sender.
pub(super) fn clean_by(sender: &str, days: std::ops::Range<i64>, sessions: u64) -> Vec<KeptReport> {
    days.map(|day| report(sender, day, sessions, 0)).collect()
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
    assert_eq!((evidence.clean_days, evidence.senders), (3, 3));
    assert_eq!(
        gate.to_string(),
        "not yet: 4 more clean days needed, since small.example reported certificate-expired at mx1.a.example (3 times); 300 clean sessions only bound the failure rate to 0.99 %, but 0.50 % is required (or 28 days in testing)"
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
    let (excused, mx_hosts) = (&BTreeSet::from([expired()]), &mx_hosts());
    let (probes, policy, since, now) = (&[], None, at(100), at(114));
    let evidence =
        evidence(&EvidenceInput { reports: &reports, probes, mx_hosts, policy, since, excused, now });
    assert_eq!((evidence.clean_days, evidence.failures.len()), (14, 0));
    assert_eq!(evidence.excused, [(expired(), 3)]);
    assert_eq!(gate(&evidence, &Thresholds::default()), Gate::Ready);
}

#[test]
fn failures_of_causes_that_are_not_listed_can_not_be_excused() {
    let mut reports = clean(100..114, 100);
    let mut many = report("many.example", 110, 1, 3);
    many.outcomes[0].unlisted = 2;
    // Also where the summary of the report denies them.
    many.outcomes[0].failed = 0;
    reports.push(many);
    let (excused, mx_hosts) = (&BTreeSet::from([expired()]), &mx_hosts());
    let (probes, policy, since, now) = (&[], None, at(100), at(114));
    let facts = EvidenceInput { reports: &reports, probes, mx_hosts, policy, since, excused, now };
    let (evidence, gate) = judge(&facts, &Thresholds::default());
    assert_eq!(evidence.clean_days, 3);
    assert!(gate.to_string().contains("since many.example reported failures without a cause"), "{gate}");
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
    let gate_at = |now, probes: &[GuardProbeDay]| judged(&clean(100..now, 2), probes, now).1;
    assert!(matches!(gate_at(114, &daily_probes(100..114, &[])), Gate::NotYet(_)));
    assert!(matches!(gate_at(127, &daily_probes(100..127, &[])), Gate::NotYet(_)));
    assert_eq!(gate_at(128, &daily_probes(100..128, &[])), Gate::Ready);
    assert!(gate_at(128, &daily_probes(124..128, &[])).to_string().contains("probed on 3 more clean days"));
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
    let many = evidence_by_day(&sums, at(100), at(114));
    assert_eq!((one.days_covered, one.clean_days, one.clean_sessions), (14, 5, 500));
    assert_eq!((many.days_covered, many.clean_days, many.clean_sessions), (14, 5, 500));
    let due =
        |sums: &[DaySum], now| not_due(&evidence_by_day(sums, at(100), at(now)), &Thresholds::default());
    assert_eq!(due(&sums, 114), None);
    assert!(due(&sums, 113).is_some() && due(&sums[..6], 114).is_some() && due(&[], 114).is_some());
}

#[test]
fn silence_is_not_evidence() {
    assert_eq!(
        decide(&[], 160).1.to_string(),
        "not yet: no verified report about a day in testing has arrived yet"
    );
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
fn reports_of_few_registrable_domains_do_not_open_the_gate_without_probes_of_every_mx_host() {
    let split = |senders: &[&str]| -> Vec<KeptReport> {
        senders.iter().flat_map(|sender| clean_by(sender, 100..114, 300)).collect()
    };
    // Subdomains, and names below a private suffix, belong to one owner.
    for senders in [
        &["big.example"][..],
        &["big.example", "other.example"],
        &["big.example", "a.big.example", "b.big.example", "other.example"],
        &["a.github.io", "b.github.io", "c.github.io", "d.github.io"],
    ] {
        let (evidence, gate) = decide(&split(senders), 114);
        assert!(evidence.senders < 3, "{senders:?}");
        assert!(gate.to_string().contains("of 3 senders with domains of their own"), "{gate}");
        let (evidence, gate) = judged(&split(senders), &daily_probes(100..114, &[]), 114);
        assert_eq!((evidence.probes.clean_days, gate), (14, Gate::Ready), "{senders:?}");
        // On other days, or not of every host.
        let (_, gate) = judged(&split(senders), &daily_probes(100..106, &[]), 114);
        assert!(gate.to_string().contains("of which there are 6; mx1.a.example was not reached"), "{gate}");
        let (_, gate) = judged(&split(senders), &daily_probes(100..114, &[110]), 114);
        assert!(gate.to_string().contains("of which there are 3"), "{gate}");
    }
    assert_eq!(decide(&split(&["a.example", "b.example", "c.example"]), 114).1, Gate::Ready);
}

#[test]
fn an_mx_host_without_probes_leaves_a_day_without_evidence() {
    let reports = clean_by("big.example", 100..114, 300);
    let second = MxHostPeriod { host: "mx2.a.example".into(), first: at(110), last: at(500) };
    let mx_hosts = [mx_hosts(), vec![second]].concat();
    let (excused, probes) = (&BTreeSet::new(), &daily_probes(100..114, &[]));
    let facts = EvidenceInput {
        reports: &reports,
        probes,
        mx_hosts: &mx_hosts,
        policy: None,
        since: at(100),
        excused,
        now: at(114),
    };
    let evidence = evidence(&facts);
    assert_eq!(
        (evidence.probes.clean_days, evidence.probes.unprobed.as_deref()),
        (10, Some("mx2.a.example"))
    );
    // Without any known MX host nothing is probed.
    assert_eq!(super::evidence(&EvidenceInput { mx_hosts: &[], ..facts }).probes.clean_days, 0);
}

#[test]
fn no_sender_counts_for_more_than_half_of_the_sessions() {
    let mut reports = clean_by("big.example", 100..114, 100_000);
    reports.extend(clean_by("two.example", 100..114, 10));
    reports.extend(clean_by("three.example", 100..114, 10));
    let (evidence, gate) = decide(&reports, 114);
    assert_eq!((evidence.senders, evidence.clean_sessions, evidence.counted_sessions), (3, 1_400_280, 560));
    assert!(gate.to_string().contains("560 clean sessions (of 1400280; big.example reported more"), "{gate}");
    reports.extend(clean_by("four.example", 100..114, 30));
    assert_eq!(decide(&reports, 114).1, Gate::Ready);
}

#[test]
fn sessions_under_another_policy_count_neither_for_nor_against_the_present_one() {
    let digest = |host: &str| PolicyDigest::of_lines(&[format!("mx: {host}")]);
    let present = digest("mx1.a.example");
    let result = |reports: &[KeptReport], probes: &[GuardProbeDay]| {
        let (excused, mx_hosts) = (&BTreeSet::new(), &mx_hosts());
        let (since, now) = (at(100), at(114));
        let facts = EvidenceInput { reports, probes, mx_hosts, policy: present, since, excused, now };
        judge(&facts, &Thresholds::default())
    };
    let under = |policy, mut reports: Vec<KeptReport>| {
        reports.iter_mut().for_each(|report| report.outcomes[0].policy = policy);
        reports
    };
    let mut reports = under(present, clean(100..114, 100));
    assert_eq!(result(&reports, &[]).1, Gate::Ready);
    reports.extend(under(digest("wrong.example"), vec![report("other.example", 113, 4, 4)]));
    let (evidence, gate) = result(&reports, &[]);
    assert_eq!((evidence.other_policy_sessions, evidence.clean_days, gate), (8, 14, Gate::Ready));
    assert!(evidence.left_out().iter().any(|text| text.starts_with("8 sessions: under another policy")));
    // Unknown policies count, since some reporters never state one.
    reports.extend(under(None, vec![report("other.example", 113, 4, 4)]));
    assert_eq!(result(&reports, &[]).0.clean_days, 0);
    let opened = under(digest("wrong.example"), clean(100..114, 100));
    assert_eq!(result(&opened, &[]).0.days_covered, 0);
    // Probes that were judged by another policy.
    let mut probes = daily_probes(100..114, &[]);
    probes.iter_mut().for_each(|probe| probe.policy = digest("wrong.example"));
    assert_eq!(result(&under(present, clean(100..114, 100)), &probes).0.probes.clean_days, 0);
}

#[test]
fn reports_of_one_identity_add_their_failures_and_count_the_larger_success() {
    let mut reports = clean(100..114, 100);
    let [mut first, mut second] = [report("big.example", 113, 100, 0), report("big.example", 113, 7, 0)];
    (first.report_id, second.report_id) = ("day".into(), "day".into());
    reports.extend([first, second.clone()]);
    let evidence = decide(&reports, 114).0;
    assert_eq!((evidence.clean_sessions, evidence.clean_days), (1500, 14));
    let mut failing = report("big.example", 113, 7, 50);
    failing.report_id = second.report_id;
    reports.push(failing);
    let evidence = decide(&reports, 114).0;
    assert_eq!((evidence.clean_days, evidence.failures[0].1), (0, 50));
}

#[test]
fn a_report_that_arrives_long_after_its_period_moves_nothing() {
    let mut reports = clean(100..114, 100);
    let before = decide(&reports, 200);
    let mut late = report("big.example", 113, 0, 50);
    late.received_at = at(114 + 31);
    reports.push(late.clone());
    let after = decide(&reports, 200);
    assert_eq!((after.0.late_reports, after.0.clean_days, &after.1), (1, before.0.clean_days, &before.1));
    // The operator vouches for what is imported with --trusted.
    reports.push(KeptReport { trust: Trust::Trusted, ..late });
    assert_eq!(decide(&reports, 200).0.clean_days, 0);
}

#[test]
fn failures_of_few_senders_delay_for_a_limited_time_and_then_the_operator_is_asked() {
    let mut reports = clean(100..200, 100);
    reports.extend((100..200).step_by(5).map(|day| report("stranger.example", day, 0, 1)));
    // Without the stranger the gate would be open since day 114.
    assert!(matches!(decide(&reports, 127).1, Gate::NotYet(_)));
    let (evidence, gate) = decide(&reports, 128);
    let text = gate.to_string();
    assert!(matches!(gate, Gate::Ask(_)), "{text}");
    assert!(text.contains("only stranger.example reported certificate-expired at mx1.a.example"), "{text}");
    assert!(!may_promote_alone(&evidence, &gate, &Thresholds::default()));
    // Three registrable domains that report failures are believed.
    reports.extend((100..200).step_by(5).map(|day| report("b.example", day, 0, 1)));
    assert!(matches!(decide(&reports, 128).1, Gate::Ask(_)));
    reports.extend((100..200).step_by(5).map(|day| report("c.example", day, 0, 1)));
    assert!(matches!(decide(&reports, 128).1, Gate::NotYet(_)));
    // Where nobody else reports, nothing is delayed.
    let alone: Vec<_> = (100..200).map(|day| report("stranger.example", day, 5, 1)).collect();
    assert!(matches!(decide(&alone, 200).1, Gate::NotYet(_)));
}

#[test]
fn failures_that_were_mended_do_not_help_a_stranger_to_keep_the_gate_shut() {
    let early = |senders: &[&str]| {
        let mut reports = clean(100..200, 100);
        let failed = senders.iter().flat_map(|sender| (100..105).map(|day| report(sender, day, 0, 9)));
        reports.extend(failed);
        // Ready from day 114 on without the stranger, who begins on day 112.
        reports.extend((112..200).map(|day| report("stranger.example", day, 50, 1)));
        reports
    };
    for honest in [&["one.example"][..], &["one.example", "two.example", "three.example"]] {
        for probes in [Vec::new(), daily_probes(100..200, &[])] {
            let decide = |now| judged(&early(honest), &probes, now);
            assert!(matches!(decide(127).1, Gate::NotYet(_)), "{honest:?}");
            let (evidence, gate) = decide(128);
            assert!(matches!(gate, Gate::Ask(_)), "{honest:?}: {gate}");
            assert_eq!(evidence.accusers, BTreeSet::from(["stranger.example".to_owned()]));
            assert_eq!(evidence.accused, [(expired(), 17)]);
            assert!(
                gate.to_string().contains(
                    "only stranger.example reported certificate-expired at mx1.a.example (17 times)"
                ),
                "{gate}"
            );
            assert!(!may_promote_alone(&evidence, &gate, &Thresholds::default()));
        }
    }
}

#[test]
fn sessions_of_a_sender_whose_failures_stand_in_the_way_do_not_count_beside_the_question() {
    // Two others are too few, however clean the other days of the third are.
    let mut reports = clean(100..200, 100);
    reports.extend((100..200).step_by(5).map(|day| report("three.example", day, 0, 1)));
    assert!(matches!(decide(&reports, 199).1, Gate::NotYet(_)));
    reports.extend(clean_by("four.example", 100..200, 50));
    assert!(matches!(decide(&reports, 199).1, Gate::Ask(_)));
}

#[test]
fn enforcement_without_an_operator_needs_probes_whoever_reports() {
    let alone =
        |(evidence, gate): (Evidence, Gate)| may_promote_alone(&evidence, &gate, &Thresholds::default());
    let reports = clean(100..114, 100);
    assert!(!alone(decide(&reports, 114)));
    assert!(alone(judged(&reports, &daily_probes(100..114, &[]), 114)));
    assert!(!alone(judged(&reports, &daily_probes(100..114, &[113]), 114)));
}

#[test]
fn failures_under_a_policy_of_unknown_type_are_failures() {
    let mut reports = clean(100..114, 100);
    let mut odd = report("other.example", 113, 50, 2);
    odd.outcomes[0].kind = PolicyType::Other("mta-sts".into());
    reports.push(odd);
    let evidence = decide(&reports, 114).0;
    assert_eq!((evidence.clean_days, evidence.failures.len()), (0, 1));
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
