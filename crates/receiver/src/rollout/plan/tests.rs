use super::super::desired::PolicyHostAt;
use super::*;
use crate::publish::Change;
use formats::StsRecord;
use formats::tlsrpt_record::Rua;
use jiff::SignedDuration;
use proptest::prelude::*;

fn domain(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn pattern(text: &str) -> MxPattern {
    MxPattern::parse(text).unwrap()
}

fn now() -> Timestamp {
    "2026-11-25T13:30:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

const WEEK: i64 = 604_800;
const SLACK: i64 = 120;

fn desired(mode: Mode, mx: &[&str]) -> DesiredState {
    DesiredState {
        domain: domain("a.example"),
        mx: mx.iter().map(|text| pattern(text)).collect(),
        mode,
        max_age_testing: 86_400,
        max_age_enforce: 604_800,
        max_age_before: 31_557_600,
        rua: vec![Rua::parse("mailto:r@a.example").unwrap().unwrap()],
        policy_host: None,
        delegated_to: None,
    }
}

fn seen(mx: &[&str]) -> ObservedState {
    ObservedState {
        mx: mx.iter().map(|host| domain(host)).collect(),
        mx_ttl: 300,
        ..ObservedState::default()
    }
}

/// A domain that already has a policy, as it is first observed.
fn existing(mode: Mode, max_age: u32, mx: &[&str], hosts: &[&str]) -> (RolloutState, ObservedState) {
    let policy = Policy::new(mode, max_age, mx.iter().map(|text| pattern(text)).collect());
    let seen = ObservedState {
        record: Some(PolicyId::parse("20260101000000").unwrap()),
        rua: desired(mode, mx).rua,
        served: policy,
        ..seen(hosts)
    };
    let mut rollout = RolloutState::default();
    rollout.observe(&desired(mode, mx), &seen, now());
    (rollout, seen)
}

fn stages_of(desired: &DesiredState, rollout: &RolloutState, seen: &ObservedState) -> Vec<Stage> {
    plan(desired, rollout, seen, Permit::Testing, now())
}

fn enforces(stage: &Stage) -> bool {
    matches!(stage, Stage::Step(Step::Serve(policy), _) if policy.mode == Mode::Enforce)
}

fn words(stages: &[Stage]) -> Vec<String> {
    let word = |stage: &Stage| match stage {
        Stage::Step(Step::Serve(policy), _) => {
            let mx: Vec<String> = policy.mx.iter().map(ToString::to_string).collect();
            format!("serve {} {}", policy.mode, mx.join(" "))
        }
        Stage::Step(step, _) => step.as_str().to_owned(),
        Stage::Wait(_, until) => format!("wait {}", until.duration_since(now()).as_secs()),
        Stage::Evidence => "evidence".to_owned(),
        Stage::Blocked(_) => "blocked".to_owned(),
        Stage::TooLarge(_) => "too large".to_owned(),
        Stage::NoMailHosts(_) => "no mail hosts".to_owned(),
    };
    stages.iter().map(word).collect()
}

#[test]
fn pub_01_pub_05_from_nothing_the_file_comes_before_the_record_and_testing_before_enforce() {
    let stages = stages_of(
        &desired(Mode::Enforce, &["mx1.a.example"]),
        &RolloutState::default(),
        &seen(&["mx1.a.example"]),
    );
    assert_eq!(
        words(&stages),
        [
            "ask-for-reports",
            "serve testing mx1.a.example",
            "announce",
            "evidence",
            "serve enforce mx1.a.example",
            "announce"
        ]
    );
}

#[test]
fn pub_05_a_permit_alone_does_not_enforce_what_was_not_seen_in_testing() {
    let desired = desired(Mode::Enforce, &["mx1.a.example"]);
    let stages = plan(&desired, &RolloutState::default(), &seen(&["mx1.a.example"]), Permit::Enforce, now());
    let first = stages.iter().find(|stage| matches!(stage, Stage::Step(Step::Serve(_), _)));
    assert!(first.is_some_and(|stage| !enforces(stage)));
    assert_eq!(stages.last().map(enforces), Some(false));
    assert!(stages.iter().any(enforces));
}

#[test]
fn pub_04_new_mx_hosts_wait_for_old_policies_and_old_patterns_for_old_mx_records() {
    let (rollout, seen) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    let stages = stages_of(&desired(Mode::Enforce, &["mx2.a.example"]), &rollout, &seen);
    let summary = words(&stages);
    assert_eq!(
        summary,
        [
            "serve enforce mx2.a.example mx1.a.example",
            "announce",
            &format!("wait {}", WEEK + SLACK),
            "add-mx",
            "remove-mx",
            &format!("wait {}", WEEK + SLACK + WEEK),
            "serve enforce mx2.a.example",
            "announce",
        ]
    );
}

#[test]
fn an_mx_host_that_is_in_use_is_never_left_out() {
    let (rollout, seen) =
        existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example", "new.b.example"]);
    let summary = words(&stages_of(&desired(Mode::Enforce, &[]), &rollout, &seen));
    assert_eq!(summary, ["serve enforce mx1.a.example new.b.example", "announce"]);
    assert!(summary[0].contains("new.b.example"));
}

#[test]
fn enforcement_that_is_there_stays_without_a_permit_and_with_a_policy_host_that_is_down() {
    let (rollout, mut seen) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    let desired = desired(Mode::Enforce, &["mx1.a.example"]);
    assert_eq!(stages_of(&desired, &rollout, &seen), []);
    seen.served = None;
    assert_eq!(words(&stages_of(&desired, &rollout, &seen)), ["serve enforce mx1.a.example", "announce"]);
}

#[test]
fn pub_03_retiring_goes_through_none_waits_out_every_promise_and_then_removes_both() {
    let (mut rollout, seen) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    // A policy with a `max_age` of one year was replaced a moment ago.
    let long = Policy::new(Mode::Enforce, 31_557_600, vec![pattern("mx1.a.example")]).unwrap();
    rollout.published.insert(0, PublishedPolicy { until: Some(now()), ..(&long).into() });
    let stages = stages_of(&desired(Mode::None, &["mx1.a.example"]), &rollout, &seen);
    assert_eq!(
        words(&stages),
        ["serve none ", "announce", &format!("wait {}", 31_557_600 + SLACK), "withdraw", "take-down"]
    );
    assert!(matches!(&stages[0], Stage::Step(Step::Serve(policy), _) if policy.max_age == 86_400));
}

#[test]
fn a_domain_that_never_had_anything_has_nothing_to_retire() {
    let mut nothing = seen(&["mx1.a.example"]);
    nothing.rua = desired(Mode::None, &[]).rua;
    assert_eq!(stages_of(&desired(Mode::None, &[]), &RolloutState::default(), &nothing), []);
}

#[test]
fn a_policy_that_can_not_be_fetched_is_assumed_to_be_the_strictest() {
    let (_, mut broken) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    broken.served = None;
    let desired = DesiredState { max_age_before: 1000, ..desired(Mode::Testing, &["mx2.a.example"]) };
    let mut rollout = RolloutState::default();
    rollout.observe(&desired, &broken, now());
    let summary = words(&stages_of(&desired, &rollout, &broken));
    assert_eq!(
        summary[..4],
        ["serve testing mx2.a.example mx1.a.example", "announce", "wait 1120", "add-mx"]
    );
}

/// Found by the model check with two appliers: the assumed policy was there in fact, and was forgotten when another file
/// appeared.
#[test]
fn an_assumed_policy_that_senders_hold_is_not_forgotten_when_another_file_appears() {
    let desired = desired(Mode::Enforce, &["mx2.a.example"]);
    let policy = |mode, max_age| Policy::new(mode, max_age, vec![pattern("mx1.a.example")]).unwrap();
    let held = policy(Mode::Enforce, desired.max_age_before);
    let seen = |served: Option<&Policy>| ObservedState {
        record: PolicyId::parse("1").ok(),
        served: served.cloned(),
        ..seen(&["mx1.a.example"])
    };
    let holds = |rollout: &RolloutState| rollout.published.iter().any(|promise| promise.is(&held));
    // Either it is fetched later, or only a successor is; then a third file appears.
    for first in [&held, &policy(Mode::Testing, 600)] {
        let mut rollout = RolloutState::default();
        rollout.observe(&desired, &seen(None), after(0));
        assert!(holds(&rollout) && rollout.published[0].assumed);
        rollout.intend(&policy(Mode::Testing, 600));
        rollout.observe(&desired, &seen(Some(first)), after(1));
        assert!(holds(&rollout));
        rollout.observe(&desired, &seen(Some(&policy(Mode::Testing, 60))), after(2));
        assert!(holds(&rollout), "{rollout:?}");
    }
    // What was never replaced is the earlier policy itself, once it can be fetched again.
    let mut rollout = RolloutState::default();
    rollout.observe(&desired, &seen(None), after(0));
    rollout.observe(&desired, &seen(Some(&policy(Mode::Enforce, 60))), after(1));
    assert!(!holds(&rollout));
}

#[test]
fn sts_14_ids_grow_even_when_the_clock_went_back_and_one_that_was_offered_is_kept() {
    let (mut rollout, mut seen) = existing(Mode::Testing, 86_400, &["mx1.a.example"], &["mx1.a.example"]);
    let desired = desired(Mode::Testing, &["mx1.a.example"]);
    rollout.last_id = Some(PolicyId::parse("20300101000000").unwrap());
    rollout.announce_due = true;
    let id = |rollout: &RolloutState, seen: &ObservedState, at| match next(
        &desired,
        rollout,
        seen,
        Permit::Testing,
        at,
    ) {
        PlannedStep::Do(Step::Announce(id)) => id.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(id(&rollout, &seen, now()), "20300101000001");
    rollout.last_id = None;
    assert_eq!(id(&rollout, &seen, now()), "20261125133000");
    rollout.offer(&PolicyId::parse("20261125133000").unwrap());
    assert_eq!(id(&rollout, &seen, after(60)), "20261125133000");
    seen.record = rollout.offered.clone();
    rollout.observe(&desired, &seen, after(70));
    assert_eq!(next(&desired, &rollout, &seen, Permit::Testing, after(70)), PlannedStep::Done);
}

#[test]
fn the_policy_host_is_pointed_to_before_anything_is_announced() {
    let mut desired = desired(Mode::Testing, &["mx1.a.example"]);
    desired.policy_host = Some(PolicyHostAt::Alias(domain("host.example.net")));
    let summary = words(&stages_of(&desired, &RolloutState::default(), &seen(&["mx1.a.example"])));
    assert_eq!(summary, ["ask-for-reports", "point-policy-host", "serve testing mx1.a.example", "announce"]);
}

#[test]
fn static_hosting_needs_an_address_of_the_policy_host_before_anything_is_served() {
    let mut desired = desired(Mode::Testing, &["mx1.a.example"]);
    desired.policy_host = Some(PolicyHostAt::Operator);
    let mut seen = seen(&["mx1.a.example"]);
    let first = words(&stages_of(&desired, &RolloutState::default(), &seen));
    assert_eq!(first, ["ask-for-reports", "point-policy-host", "serve testing mx1.a.example", "announce"]);
    seen.policy_host = (vec![domain("pages.example.net")], vec!["192.0.2.1".parse().unwrap()]);
    let later = words(&stages_of(&desired, &RolloutState::default(), &seen));
    assert_eq!(later, ["ask-for-reports", "serve testing mx1.a.example", "announce"]);
}

#[test]
fn an_mx_host_that_no_policy_can_name_blocks_the_plan_unless_a_wildcard_matches_it() {
    let seen = seen(&["mx1.a.example", "mx_2.a.example"]);
    let all = |mode, mx: &[&str], rollout: &RolloutState| stages_of(&desired(mode, mx), rollout, &seen);
    let blocked = [Stage::Blocked(vec![domain("mx_2.a.example")])];
    for mode in [Mode::Testing, Mode::Enforce] {
        let stages = all(mode, &[], &RolloutState::default());
        assert_eq!(stages[1..], blocked, "{mode}");
        let covered = words(&all(mode, &["*.a.example"], &RolloutState::default()));
        assert_eq!(covered[1], "serve testing *.a.example");
    }
    // Enforcement that began before the host appeared can be eased.
    let (rollout, _) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    assert_eq!(words(&all(Mode::Testing, &[], &rollout))[1], "serve testing mx1.a.example");
    assert_eq!(all(Mode::Enforce, &[], &rollout)[1..], blocked);
}

#[test]
fn a_domain_that_receives_no_mail_is_not_called_done_and_nothing_is_published_for_it() {
    let without = |why| ObservedState { unmailed: Some(why), ..seen(&[]) };
    let of = |mode, mx: &[&str], rollout: &RolloutState, seen: &ObservedState| {
        next(&desired(mode, mx), rollout, seen, Permit::Testing, now())
    };
    let new = RolloutState::default();
    for why in
        [NoMailHosts::NoSuchName, NoMailHosts::NoRecords, NoMailHosts::NullMx, NoMailHosts::InvalidHosts]
    {
        let seen = without(why);
        assert_eq!(of(Mode::Enforce, &[], &new, &seen), PlannedStep::NoMailHosts(why));
        assert_eq!(stages_of(&desired(Mode::Enforce, &[]), &new, &seen), [Stage::NoMailHosts(why)]);
        // A policy that senders may hold is kept and retired as before.
        let (rollout, _) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
        assert!(matches!(of(Mode::Enforce, &[], &rollout, &seen), PlannedStep::Do(_)));
        assert!(!matches!(of(Mode::None, &[], &rollout, &seen), PlannedStep::NoMailHosts(_)));
        // Listed hosts are published later, but not in a domain that does not exist.
        let listed = of(Mode::Enforce, &["mx1.a.example"], &new, &seen);
        assert_eq!(listed == PlannedStep::NoMailHosts(why), why == NoMailHosts::NoSuchName);
    }
}

/// Host names of MX records: also those that a policy can't name.
fn hosts() -> impl Strategy<Value = Vec<DomainName>> {
    let host = "[a-z0-9_]{1,4}(-[a-z0-9_]{1,3})?(\\.[a-z0-9_]{1,4}){1,3}";
    let host = host.prop_filter_map("a valid name", |text| DomainName::parse(&text).ok());
    proptest::collection::vec(host, 0..4)
}

proptest! {
    #[test]
    fn whatever_the_planner_makes_can_be_read_again(
        listed in hosts(), first in hosts(), then in hosts(), mode in 0..3usize, wildcard in any::<bool>(),
        rua in "mailto:[a-z!,; ü_-]{1,8}@[a-z]{1,8}\\.example", served in any::<bool>(),
    ) {
        let mx = listed.iter().filter_map(|host| MxPattern::exact(host).ok()).collect();
        let desired = DesiredState {
            mx: if wildcard { vec![pattern("*.a.example")] } else { mx },
            rua: Rua::parse(&rua).ok().flatten().into_iter().collect(),
            ..desired([Mode::Enforce, Mode::Testing, Mode::None][mode], &[])
        };
        let rollout = RolloutState::default();
        let seen = ObservedState {
            mx: first,
            // A policy that can't be fetched is assumed.
            record: Some(PolicyId::parse("20260101000000").unwrap()),
            served: served.then(|| Policy::new(Mode::Enforce, 9, vec![pattern("mx.a.example")]).unwrap()),
            ..ObservedState::default()
        };
        let mx = [seen.mx.clone(), then];
        reads_again(&desired, rollout, seen, mx)?;
    }
}

/// Plans twice, with these MX hosts, and checks that all that is published and stored can be read again.
fn reads_again(
    desired: &DesiredState,
    mut rollout: RolloutState,
    mut seen: ObservedState,
    mx: [Vec<DomainName>; 2],
) -> Result<(), TestCaseError> {
    for (at, mx) in mx.into_iter().enumerate() {
        seen.mx = mx;
        let now = after(60 * i64::try_from(at).unwrap());
        rollout.observe(desired, &seen, now);
        for stage in plan(desired, &rollout, &seen, Permit::Testing, now) {
            let Stage::Step(step, _) = stage else { continue };
            let _ = Change::of(desired, &step);
            match &step {
                Step::Serve(policy) => {
                    let read = Policy::parse(policy.to_string().as_bytes());
                    prop_assert!(
                        read.as_ref().is_ok_and(|read| PublishedPolicy::from(policy).is(read)),
                        "{read:?}"
                    );
                    rollout.intend(policy);
                }
                Step::Announce(id) => {
                    let text = StsRecord::new(id.clone()).to_string();
                    prop_assert_eq!(StsRecord::parse(text.as_bytes()).map(|read| read.id), Ok(id.clone()));
                    prop_assert!(
                        rollout.offered.is_some() || seen.record.as_ref() != Some(id),
                        "an id is repeated"
                    );
                    rollout.offer(id);
                }
                Step::AskForReports(record) => {
                    let read = TlsrptRecord::parse(record.to_string().as_bytes());
                    prop_assert_eq!(read.map(|read| read.rua), Ok(record.rua.clone()));
                }
                _ => {}
            }
        }
        let text = serde_json::to_string(&rollout).unwrap();
        prop_assert_eq!(serde_json::from_str::<RolloutState>(&text).unwrap(), rollout.clone());
    }
    Ok(())
}

/// Names at the edges of what DNS allows: of the greatest length, internationalized, with underscores, in upper case.
fn odd_host() -> impl Strategy<Value = DomainName> {
    let long = "[a-z0-9]{63}\\.[a-z0-9]{63}\\.[a-z0-9]{63}\\.[a-z0-9]{53,61}";
    let host = prop_oneof![
        4 => "[a-zA-Z0-9]{1,12}\\.(example|a\\.example)",
        1 => "[a-z_]{1,6}\\.example",
        1 => "[äöüßéñ中文]{1,9}\\.(beispiel|例え)",
        2 => long,
    ];
    host.prop_filter_map("a valid name", |text| DomainName::parse(&text).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_the_planner_makes_of_many_and_odd_hosts_can_be_read_again(
        first in prop_oneof![prop::collection::vec(odd_host(), 0..6), prop::collection::vec(odd_host(), 100..=100)],
        then in prop::collection::vec(odd_host(), 0..6), listed in 0..4usize, wild in 0..4usize,
        id in prop_oneof!["[A-Za-z0-9]{1,32}", "[0-9]{14}", Just("99991231235959".to_owned()), Just("99991230220000".to_owned())],
        mode in 0..3usize,
    ) {
        // Exact patterns and wildcards for some of the hosts, so that they cover each other and hosts in DNS.
        let exact = first.iter().take(listed).filter_map(|host| MxPattern::exact(host).ok());
        let parents = first.iter().take(wild).filter_map(DomainName::parent);
        let wildcards = parents.filter_map(|parent| MxPattern::parse(&format!("*.{parent}")).ok());
        let mut mx: Vec<MxPattern> = exact.chain(wildcards).collect();
        let mut known = std::collections::HashSet::new();
        mx.retain(|pattern| known.insert(pattern.clone()));
        let desired = DesiredState { mx, ..desired([Mode::Enforce, Mode::Testing, Mode::None][mode], &[]) };
        let seen = ObservedState { record: PolicyId::parse(&id).ok(), ..ObservedState::default() };
        reads_again(&desired, RolloutState::default(), seen, [first, then])?;
    }
}

#[test]
fn a_policy_that_senders_would_not_read_is_not_published() {
    let host = |number: usize| domain(&format!("{number:0>63}.{0}.{0}.{1}", "x".repeat(63), "y".repeat(50)));
    let hosts: Vec<DomainName> = (0..300).map(host).collect();
    let seen = ObservedState { mx: hosts, rua: desired(Mode::Testing, &[]).rua, ..ObservedState::default() };
    let stages = stages_of(&desired(Mode::Testing, &[]), &RolloutState::default(), &seen);
    assert!(matches!(stages[..], [Stage::TooLarge(size)] if size > 65_536), "{stages:?}");
    // A wildcard makes it small again.
    let parent = seen.mx[0].parent().unwrap();
    let covered = desired(Mode::Testing, &[&format!("*.{parent}")]);
    assert_eq!(words(&stages_of(&covered, &RolloutState::default(), &seen)).len(), 2);
}

#[test]
fn an_id_that_is_not_known_stands_for_a_policy_that_senders_may_hold() {
    // A backup from before the second MX host was added was restored: DNS has the host and a later id.
    let (mut rollout, mut seen) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    let desired = desired(Mode::Enforce, &["mx3.a.example"]);
    seen.mx.push(domain("mx2.a.example"));
    seen.record = Some(PolicyId::parse("20261101000000").unwrap());
    rollout.observe(&desired, &seen, after(10));
    let unknown = rollout.published.first().unwrap().clone();
    assert_eq!((unknown.mode, unknown.max_age, unknown.until), (Mode::Enforce, 604_800, Some(after(10))));
    assert!(unknown.names(&domain("mx2.a.example")) && !unknown.names(&domain("mx3.a.example")));
    assert!(rollout.newest().is_some_and(|newest| !newest.names(&domain("mx2.a.example"))));
    // A second look does not lengthen it, and the newest policy is announced under an id of its own.
    let once = rollout.clone();
    rollout.observe(&desired, &seen, after(20));
    assert_eq!(rollout.published, once.published);
    let words = words(&stages_of(&desired, &rollout, &seen));
    assert_eq!(words[..2], ["serve enforce mx3.a.example mx1.a.example mx2.a.example", "announce"]);
    assert!(words[2].starts_with("wait "), "{words:?}");
    // Ids that the planner chose or knows are no such ids, nor is one from before.
    for known in ["20260101000000", "20251201000000"] {
        let (mut rollout, mut seen) = existing(Mode::Testing, 600, &["mx1.a.example"], &["mx1.a.example"]);
        seen.record = Some(PolicyId::parse(known).unwrap());
        rollout.observe(&desired, &seen, after(10));
        assert_eq!(rollout.published.len(), 1, "{known}");
    }
    let chosen = PolicyId::parse("20261101000000").unwrap();
    for is_abandoned in [false, true] {
        let (mut rollout, mut seen) = existing(Mode::Testing, 600, &["mx1.a.example"], &["mx1.a.example"]);
        rollout.offer(&chosen);
        if is_abandoned {
            rollout.intend(&Policy::new(Mode::Testing, 601, vec![pattern("mx1.a.example")]).unwrap());
        }
        seen.record = Some(chosen.clone());
        rollout.observe(&desired, &seen, after(10));
        assert!(rollout.published.iter().all(|published| published.mode == Mode::Testing), "{is_abandoned}");
    }
}

#[test]
fn under_an_id_that_is_no_time_others_may_have_published_any_max_age() {
    let (mut rollout, mut seen) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    let desired = desired(Mode::Enforce, &["mx1.a.example"]);
    seen.record = Some(PolicyId::parse("theirs").unwrap());
    rollout.observe(&desired, &seen, after(10));
    let unknown = rollout.published.first().unwrap();
    assert_eq!((unknown.max_age, unknown.until), (desired.max_age_before, Some(after(10))));
}

#[test]
fn two_programs_that_announce_by_turns_do_not_fill_the_state() {
    for host in ["mx1.a.example", "mx2.a.example"] {
        let (mut rollout, mut seen) =
            existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
        let desired = desired(Mode::Enforce, &["mx1.a.example"]);
        seen.mx = vec![domain(host)];
        for turn in 0..1000 {
            let id = PolicyId::at(after(turn * 2), rollout.last_id.as_ref());
            seen.record = Some(id);
            rollout.observe(&desired, &seen, after(turn * 2));
            assert!(rollout.announce_due && rollout.published.len() <= 2, "{turn}: {:?}", rollout.published);
            let own = PolicyId::at(after(turn * 2 + 1), rollout.last_id.as_ref());
            rollout.offer(&own);
            seen.record = Some(own);
            rollout.observe(&desired, &seen, after(turn * 2 + 1));
            assert!(!rollout.announce_due);
        }
    }
}

#[test]
fn a_new_policy_host_serves_no_enforcement_that_is_held_since_it_was_chosen() {
    let (mut rollout, _) = existing(Mode::Testing, 600, &["mx1.a.example"], &["mx1.a.example"]);
    assert!(rollout.approve(&rollout.clone(), now()));
    // The program was killed before the enforced policy was served.
    rollout.intend(&Policy::new(Mode::Enforce, 600, vec![pattern("mx1.a.example")]).unwrap());
    let mode = |now: &RolloutState, then| now.present(then).map(|one: &PublishedPolicy| one.mode);
    assert_eq!(mode(&rollout, &rollout), Some(Mode::Enforce));
    let mut held = rollout.clone();
    held.hold();
    assert_eq!(mode(&held, &rollout), Some(Mode::Testing));
    assert_eq!(mode(&held, &held), Some(Mode::Testing));
    // What is enforced goes on until the policy in testing takes its place.
    let (mut enforced, _) = existing(Mode::Enforce, 600, &["mx1.a.example"], &["mx1.a.example"]);
    enforced.hold();
    assert_eq!(mode(&enforced, &enforced), Some(Mode::Enforce));
}

#[test]
fn an_approval_is_not_for_a_policy_that_was_not_judged() {
    let (mut rollout, _) = existing(Mode::Testing, 600, &["mx1.a.example"], &["mx1.a.example"]);
    let judged = rollout.clone();
    let wider = Policy::new(Mode::Testing, 600, vec![pattern("mx1.a.example"), pattern("mx2.a.example")]);
    rollout.intend(&wider.unwrap());
    assert!(!rollout.approve(&judged, now()) && rollout.approved.is_none());
    assert!(rollout.approve(&rollout.clone(), now()));
}

#[test]
fn while_the_addresses_of_the_policy_host_are_not_known_no_policy_ends() {
    let (mut rollout, mut seen) = existing(Mode::Enforce, 604_800, &["mx1.a.example"], &["mx1.a.example"]);
    let desired = desired(Mode::Enforce, &["mx1.a.example"]);
    let new = Policy::new(Mode::Enforce, 600, vec![pattern("mx1.a.example")]).unwrap();
    rollout.intend(&new);
    seen.served = Some(new);
    // The zone to which an alias leads does not answer: one address serves the new file, and perhaps not the only one.
    seen.policy_host_differs = Some("the addresses can't be looked up".to_owned());
    rollout.observe(&desired, &seen, after(10));
    assert_eq!(rollout.published.iter().map(|one| one.until).collect::<Vec<_>>(), [None, None]);
    seen.policy_host_differs = None;
    rollout.observe(&desired, &seen, after(20));
    assert_eq!(rollout.published[0].until, Some(after(20)));
}

#[test]
fn an_approval_is_for_the_mx_hosts_that_were_in_testing() {
    let hosts = ["mx1.a.example", "mx2.a.example"];
    for (now_seen, listed, lapses) in [
        (&hosts[..], &["*.a.example"][..], true),
        (&hosts[..1], &["mx1.a.example"][..], false),
        (&hosts[..2], &["mx1.a.example", "mx2.a.example"][..], false),
        (&["mx3.a.example"][..], &["mx1.a.example"][..], true),
        (&hosts[..1], &["mx1.a.example", "mx3.a.example"][..], true),
    ] {
        let (mut rollout, mut seen) = existing(Mode::Testing, 600, &hosts, &hosts);
        assert!(rollout.approve(&rollout.clone(), now()));
        let desired = desired(Mode::Enforce, listed);
        seen.mx = now_seen.iter().map(|host| domain(host)).collect();
        rollout.observe(&desired, &seen, after(10));
        assert_eq!(
            (rollout.approved.is_none(), rollout.is_lapsed),
            (lapses, lapses),
            "{now_seen:?} {listed:?}"
        );
        // Another approval counts for the hosts of now.
        rollout.intend(&Policy::new(Mode::Testing, 600, desired.mx.clone()).unwrap());
        assert!(rollout.approve(&rollout.clone(), after(20)) && !rollout.is_lapsed);
        rollout.hold();
        assert!(!rollout.approve(&rollout.clone(), after(30)) && rollout.approved.is_none());
        assert!(rollout.forbids(Mode::Enforce, &rollout) && !rollout.forbids(Mode::Testing, &rollout));
    }
}
