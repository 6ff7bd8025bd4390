//! Plays the adversaries of docs/safety.md against the gate: anybody who posts reports without a signature, the owners of
//! up to two registrable domains, who sign whatever they like, and somebody who sends old mail again. Whatever they do,
//! they can't open the gate, can't close it for longer than the limit without the operator being asked, and can't make
//! the program enforce by itself. One test plays them through the store, as reports that arrive.

use super::tests::{at, clean_by, daily_probes, judged, judged_by, mx_hosts, report};
use super::*;
use formats::report::{FailureDetail, PolicyReport, Report};
use formats::{DomainName, ResultType};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::collections::BTreeSet;
use store::Store;
use store::reports::{Arrival, KeptReport, NewReport, Trust};

pub(super) const NOW: i64 = 130;
/// Testing began on day 100.
const DAYS: std::ops::Range<i64> = 90..NOW + 2;

/// One report of an adversary.
#[derive(Debug, Clone)]
struct Move {
    kind: MoveKind,
    /// The registrable domain, and a subdomain of it.
    domain: usize,
    subdomain: u8,
    day: i64,
    /// The number of days that it covers.
    span: i64,
    successful: u64,
    failed: u64,
    /// Reports share ids, so that some have the same identity.
    id: u8,
    has_details: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MoveKind {
    /// Without a valid signature, in the name of anybody.
    Unsigned(Trust),
    /// Signed by a domain of the adversary.
    Signed,
    /// A genuine report of an honest sender that arrives again after this number of days.
    Replayed(i64),
}

pub(super) const EVIL: [&str; 2] = ["evil.example", "wicked.example"];
pub(super) const HONEST: [&str; 4] = ["one.example", "two.example", "three.example", "four.example"];

impl Move {
    fn report(&self) -> KeptReport {
        let sender = match self.kind {
            MoveKind::Signed => format!("m{}.{}", self.subdomain, EVIL[self.domain % 2]),
            MoveKind::Unsigned(_) | MoveKind::Replayed(_) => HONEST[self.domain % 4].to_owned(),
        };
        let mut report = report(&sender, self.day, self.successful, self.failed);
        report.report_id = self.id.to_string();
        report.range.end = at(self.day + self.span) - SignedDuration::from_secs(1);
        if !self.has_details {
            report.outcomes[0].failures.clear();
        }
        match self.kind {
            MoveKind::Signed => {}
            MoveKind::Unsigned(trust) => (report.trust, report.signer) = (trust, None),
            MoveKind::Replayed(after) => report.received_at = at(self.day + self.span + after),
        }
        report
    }
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let kind = prop_oneof![
        Just(MoveKind::Unsigned(Trust::Unverified)),
        Just(MoveKind::Unsigned(Trust::Failed)),
        Just(MoveKind::Signed),
        Just(MoveKind::Signed),
        (31..500_i64).prop_map(MoveKind::Replayed),
    ];
    let counts = || prop_oneof![Just(0), 1..20_u64, Just(1_000_000), Just(u64::MAX)];
    let one = (kind, any::<(usize, u8, bool)>(), DAYS, 1..40_i64, counts(), counts(), 0..4_u8);
    let one = one.prop_map(|(kind, (domain, subdomain, has_details), day, span, successful, failed, id)| {
        Move { kind, domain, subdomain, day, span, successful, failed, id, has_details }
    });
    proptest::collection::vec(one, 0..25)
}

/// The days on which an honest sender has failures: at the beginning of testing until the cause is mended, on one day, or
/// never.
fn failing() -> impl Strategy<Value = std::ops::Range<i64>> {
    prop_oneof![
        Just(0..0),
        (101..112_i64).prop_map(|mended| 100..mended),
        (101..112_i64).prop_map(|mended| 100..mended),
        (100..NOW).prop_map(|day| day..day + 1),
    ]
}

/// What honest senders report, each day from the beginning of testing, and whether the guard probes.
fn honest() -> impl Strategy<Value = (Vec<KeptReport>, bool)> {
    let sender = |name: &'static str| {
        let of_day = move |day, sessions, failing: &std::ops::Range<i64>| {
            report(name, day, sessions, u64::from(failing.contains(&day)))
        };
        (any::<bool>(), 0..60_u64, failing()).prop_map(move |(reports, sessions, failing)| match reports {
            true => (100..NOW).map(|day| of_day(day, sessions, &failing)).collect(),
            false => Vec::new(),
        })
    };
    let all = (sender(HONEST[0]), sender(HONEST[1]), sender(HONEST[2]), sender(HONEST[3]));
    (all.prop_map(|(a, b, c, d)| [a, b, c, d].concat()), any::<bool>())
}

/// Decides: the gate, or a rule that is known to be wrong.
type Rule = fn(&EvidenceInput<'_>, &Thresholds) -> (Evidence, Gate);

/// A rule that leaves out all reports of everyone who has failed since testing began, mended failures included.
pub(super) fn leaves_out_whoever_failed_once(
    facts: &EvidenceInput<'_>,
    thresholds: &Thresholds,
) -> (Evidence, Gate) {
    let summary = Summary::of(facts);
    let evidence = summary.evidence(facts.now, &BTreeSet::new());
    let (decided, accusers) = (gate(&evidence, thresholds), summary.all_accusers());
    let then = facts.now - SignedDuration::from_hours(24 * i64::from(thresholds.delay_days));
    let is_ready = |at| gate(&summary.evidence(at, &accusers), thresholds) == Gate::Ready;
    let is_few = !accusers.is_empty() && accusers.len() < thresholds.senders as usize;
    match decided != Gate::Ready && is_few && is_ready(then) && is_ready(facts.now) {
        true => (evidence, Gate::Ask(accusers.into_iter().map(str::to_owned).collect())),
        false => (evidence, decided),
    }
}

/// Where the evidence of honest senders was sufficient before the limit and is now, the adversary leaves it at that, or at
/// a question that names its domains alone.
fn keeps_the_limit(
    rule: Rule,
    honest: &[KeptReport],
    is_probed: bool,
    moves: &[Move],
) -> Result<(), TestCaseError> {
    let delay = i64::from(Thresholds::default().delay_days);
    let was_ready = result(honest, is_probed, NOW - delay).1 == Gate::Ready;
    let is_ready = result(honest, is_probed, NOW).1 == Gate::Ready;
    let adversary: Vec<_> = moves.iter().map(Move::report).collect();
    let probes = if is_probed { daily_probes(100..NOW, &[]) } else { Vec::new() };
    let (evidence, gate) = judged_by(rule, &[honest, &adversary].concat(), &probes, NOW);
    if was_ready && is_ready {
        prop_assert!(!matches!(gate, Gate::NotYet(_)), "{gate}");
    }
    if let Gate::Ask(reasons) = &gate {
        prop_assert!(evidence.accusers.iter().all(|sender| reasons[0].contains(sender)), "{gate}");
        let are_evil = evidence.accusers.iter().all(|sender| EVIL.contains(&sender.as_str()));
        prop_assert!(are_evil || !was_ready || !is_ready, "{gate}");
        prop_assert!(evidence.accusers.len() < 3, "{gate}");
    }
    prop_assert!(is_probed || !may_promote_alone(&evidence, &gate, &Thresholds::default()));
    Ok(())
}

/// The result at a time; what happened later is not known then.
fn result(reports: &[KeptReport], is_probed: bool, now: i64) -> (Evidence, Gate) {
    let probes = if is_probed { daily_probes(100..now, &[]) } else { Vec::new() };
    judged(reports, &probes, now)
}

/// The same adversaries succeed against weaker rules, so that the properties below say something.
#[test]
fn without_the_rules_the_adversaries_succeed() {
    let result = |reports: &[KeptReport], thresholds: &Thresholds| {
        let (excused, mx_hosts) = (&BTreeSet::new(), &mx_hosts());
        let facts = EvidenceInput {
            reports,
            probes: &[],
            mx_hosts,
            policy: None,
            since: at(100),
            excused,
            now: at(NOW),
        };
        judge(&facts, thresholds).1
    };
    let strict = Thresholds::default();
    let opened = clean_by("m1.evil.example", 100..NOW, 1000);
    assert_eq!(result(&opened, &Thresholds { senders: 1, ..strict }), Gate::Ready);
    assert!(matches!(result(&opened, &strict), Gate::NotYet(_)));
    let honest = HONEST.iter().flat_map(|name| clean_by(name, 100..NOW, 100));
    let shut: Vec<_> = honest.chain((100..NOW).map(|day| report("evil.example", day, 0, 1))).collect();
    assert!(matches!(result(&shut, &Thresholds { delay_days: 365, ..strict }), Gate::NotYet(_)));
    assert!(matches!(result(&shut, &strict), Gate::Ask(_)));
}

/// The property would notice a rule by which a failure that was mended long ago helps an adversary.
#[test]
fn a_rule_that_leaves_out_whoever_failed_once_does_not_keep_the_limit() {
    let cases = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(cases).run(&(honest(), moves()), |((honest, is_probed), moves)| {
        keeps_the_limit(leaves_out_whoever_failed_once, &honest, is_probed, &moves)
    });
    assert!(outcome.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whoever_owns_fewer_than_three_domains_can_not_open_the_gate(moves in moves()) {
        let reports: Vec<_> = moves.iter().map(Move::report).collect();
        let (_, gate) = result(&reports, false, NOW);
        prop_assert!(matches!(gate, Gate::NotYet(_)), "{gate}");
    }

    #[test]
    fn one_domain_is_one_sender_however_many_names_it_uses(moves in moves(), sessions in 0..60_u64) {
        let moves = moves.into_iter().map(|one| Move { domain: 0, ..one });
        let mut reports: Vec<_> = moves.map(|one| one.report()).collect();
        reports.extend(clean_by(HONEST[0], 100..NOW, sessions));
        let (evidence, gate) = result(&reports, false, NOW);
        prop_assert!(evidence.senders < 3 && gate != Gate::Ready, "{gate}");
    }

    #[test]
    fn half_of_the_sessions_that_open_the_gate_are_of_others((honest, _) in honest(), moves in moves()) {
        let signed = moves.iter().filter(|one| one.kind == MoveKind::Signed);
        let adversary: Vec<_> = signed.map(|one| Move { domain: 0, ..one.clone() }.report()).collect();
        let all = [honest.clone(), adversary].concat();
        let (evidence, _) = result(&all, false, NOW);
        let clean = evidence.sources.iter().filter(|source| source.domain != EVIL[0]);
        let others = clean.fold(0_u64, |sum, source| sum.saturating_add(source.clean_sessions));
        prop_assert!(evidence.counted_sessions <= others.saturating_mul(2));
    }

    #[test]
    fn they_can_not_keep_it_shut_for_longer_than_the_limit_without_the_operator_being_asked(
        (honest, is_probed) in honest(),
        moves in moves(),
    ) {
        keeps_the_limit(judge, &honest, is_probed, &moves)?;
    }

    #[test]
    fn no_clean_run_begins_before_the_last_failure_of_an_honest_sender((honest, is_probed) in honest(), moves in moves()) {
        let failed = honest.iter().filter(|one| one.outcomes[0].failed > 0);
        let last = failed.map(|one| one.range.start.as_second() / 86_400).max().unwrap_or(99);
        let adversary: Vec<_> = moves.iter().map(Move::report).collect();
        let (evidence, gate) = result(&[honest, adversary].concat(), is_probed, NOW);
        prop_assert!(i64::from(evidence.clean_days) <= NOW - last, "{evidence:?}");
        prop_assert!(gate != Gate::Ready || NOW - last >= 7, "{gate}");
    }

    #[test]
    fn unsigned_and_old_reports_move_nothing((honest, is_probed) in honest(), moves in moves()) {
        let others = moves.iter().filter(|one| one.kind != MoveKind::Signed);
        let all = honest.iter().cloned().chain(others.map(Move::report)).collect::<Vec<_>>();
        let (before, after) = (result(&honest, is_probed, NOW), result(&all, is_probed, NOW));
        let counters = (after.0.unverified_reports, after.0.late_reports);
        let without = Evidence { unverified_reports: 0, late_reports: 0, ..after.0 };
        prop_assert_eq!(counters.0 as usize + counters.1 as usize, all.len() - honest.len());
        prop_assert_eq!((before.0, before.1), (without, after.1));
    }

    #[test]
    fn many_small_reports_move_no_more_than_one(
        (honest, is_probed) in honest(),
        (day, successful, failed) in (100..NOW, 0..5000_u64, 0..200_u64),
    ) {
        let whole = report(EVIL[0], day, successful, failed);
        let parts = |count: u64, number: u64| count / 10 + u64::from(number < count % 10);
        let split = (0..10_u64).map(|number| KeptReport {
            report_id: number.to_string(),
            ..report(&format!("m{number}.{}", EVIL[0]), day, parts(successful, number), parts(failed, number))
        });
        let one = result(&[honest.clone(), vec![whole]].concat(), is_probed, NOW);
        let many = result(&[honest, split.collect()].concat(), is_probed, NOW);
        prop_assert_eq!(one, many);
    }
}

/// The report as it arrives, about this domain.
fn arriving(kept: &KeptReport, domain: &DomainName) -> NewReport {
    let detail = |failure: &store::reports::FailureSum| FailureDetail {
        result_type: ResultType::parse(&failure.result_type),
        sending_mta_ip: None,
        receiving_mx_hostname: Some(failure.host.clone()),
        receiving_mx_helo: None,
        receiving_ip: None,
        failed_session_count: failure.sessions,
        additional_information: None,
        failure_reason_code: None,
    };
    let policy = |outcome: &store::reports::PolicyOutcome| PolicyReport {
        policy_type: outcome.kind.clone(),
        policy_string: Vec::new(),
        policy_domain: Some(domain.clone()),
        mx_host: Vec::new(),
        successful: outcome.successful,
        failed: outcome.failed,
        details: outcome.failures.iter().map(detail).collect(),
    };
    let report = Report {
        organization_name: Some(kept.submitter.clone()),
        date_range: kept.range,
        contact_info: None,
        report_id: kept.report_id.clone(),
        policies: kept.outcomes.iter().map(policy).collect(),
    };
    NewReport {
        submitter: kept.submitter.clone(),
        signer: kept.signer.clone(),
        trust: kept.trust,
        about: None,
        arrival: Arrival::Smtp,
        received_at: kept.received_at,
        source: kept.signer.clone().unwrap_or_default(),
        report,
        warnings: 0,
        packed: vec![0],
    }
}

/// Duplicates, identities, sums and trust are the store's; what it gives back is judged.
#[test]
fn through_the_store_they_move_no_more() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(Store::open(&place.path().join("s.db"), store::Tenant::FIRST)).unwrap();
    let number = Cell::new(0);
    let stored = |reports: &[KeptReport]| {
        number.set(number.get() + 1);
        let domain = DomainName::parse(&format!("d{}.example", number.get())).unwrap();
        let new: Vec<NewReport> = reports.iter().map(|one| arriving(one, &domain)).collect();
        runtime.block_on(async {
            // Those of a day arrive together, as a flood does.
            for some in new.chunks(20) {
                store.keep_reports(some).await.unwrap();
            }
            store.reports_about(&domain, at(100)).await.unwrap()
        })
    };
    let cases = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(cases).run(&(honest(), moves()), |((honest, is_probed), moves)| {
        let adversary: Vec<_> = moves.iter().map(Move::report).collect();
        let (_, alone) = result(&stored(&adversary), false, NOW);
        prop_assert!(matches!(alone, Gate::NotYet(_)), "{alone}");
        let kept = stored(&honest);
        let genuine: Vec<_> = kept.iter().filter(|report| report.outcomes[0].successful > 0).collect();
        prop_assert_eq!(genuine.len(), honest.iter().filter(|one| one.outcomes[0].successful > 0).count());
        let delay = i64::from(Thresholds::default().delay_days);
        let is_ready = result(&kept, is_probed, NOW).1 == Gate::Ready;
        let was_ready = result(&kept, is_probed, NOW - delay).1 == Gate::Ready;
        let both = stored(&[adversary.clone(), honest.clone()].concat());
        let (evidence, gate) = result(&both, is_probed, NOW);
        prop_assert!(!was_ready || !is_ready || !matches!(gate, Gate::NotYet(_)), "{gate}");
        let are_evil = evidence.accusers.iter().all(|sender| EVIL.contains(&sender.as_str()));
        prop_assert!(are_evil || !was_ready || !is_ready || gate == Gate::Ready, "{gate}");
        prop_assert!(is_probed || !may_promote_alone(&evidence, &gate, &Thresholds::default()));
        let unsigned = moves.iter().filter(|one| one.kind != MoveKind::Signed).map(Move::report);
        let unmoved =
            result(&stored(&honest.iter().cloned().chain(unsigned).collect::<Vec<_>>()), is_probed, NOW);
        prop_assert_eq!(unmoved.1, result(&kept, is_probed, NOW).1);
        Ok(())
    });
    outcome.unwrap();
    // Honest senders alone do open it this way, so the properties say something.
    let all: Vec<_> = HONEST.iter().flat_map(|name| clean_by(name, 100..NOW, 100)).collect();
    assert_eq!(result(&stored(&all), false, NOW).1, Gate::Ready);
}

/// The store bounds what it keeps and returns of a report with many causes, whoever sent it.
#[tokio::test]
async fn a_flood_of_causes_leaves_the_verdict_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
    let domain = DomainName::parse("a.example").unwrap();
    let mut all: Vec<_> = HONEST.iter().flat_map(|name| clean_by(name, 100..NOW, 100)).collect();
    all.extend((110..NOW).map(|day| {
        let mut flood = report(EVIL[0], day, 0, 1000);
        let failure = flood.outcomes[0].failures[0].clone();
        flood.outcomes[0].failures = (0..1000)
            .map(|number| store::reports::FailureSum {
                host: format!("mx{number}.invented.example"),
                sessions: 1,
                ..failure.clone()
            })
            .collect();
        flood
    }));
    let new: Vec<NewReport> = all.iter().map(|one| arriving(one, &domain)).collect();
    store.keep_reports(&new).await.unwrap();
    let kept = store.reports_about(&domain, at(100)).await.unwrap();
    let most = kept.iter().map(|report| report.outcomes[0].failures.len()).max();
    assert_eq!(most, Some(formats::limits::REPORT_CAUSES));
    for now in [112, 126, NOW] {
        let (direct, stored) = (result(&all, false, now), result(&kept, false, now));
        assert_eq!((direct.0.clean_days, direct.0.accusers), (stored.0.clean_days, stored.0.accusers));
        assert_eq!(std::mem::discriminant(&direct.1), std::mem::discriminant(&stored.1), "{}", stored.1);
    }
    assert!(matches!(result(&kept, false, NOW).1, Gate::Ask(_)));
}
