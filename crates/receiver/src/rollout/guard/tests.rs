//! Tests of the guard: its conditions one by one, and checks over a scripted network in which hosts hang.

use super::conditions::{CONSEQUENCE_ENFORCED, CONSEQUENCE_TESTING};
use super::*;
use crate::rollout::observed::ObservedState;
use crate::rollout::state::{InMode, PublishedPolicy};
use formats::{MxPattern, Policy, PolicyId};
use jiff::{SignedDuration, Timestamp};

mod network;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn now() -> Timestamp {
    "2026-11-25T00:00:00Z".parse().unwrap()
}

fn days(days: i64) -> Timestamp {
    now() + SignedDuration::from_hours(days * 24)
}

fn enforced() -> (DesiredState, RolloutState, ObservedState) {
    let policy =
        Policy::new(Mode::Enforce, 604_800, vec![MxPattern::parse("mx1.a.example").unwrap()]).unwrap();
    let desired = DesiredState {
        domain: name("a.example"),
        mx: Vec::new(),
        mode: Mode::Enforce,
        max_age_testing: 86_400,
        max_age_enforce: 604_800,
        max_age_before: 1,
        rua: Vec::new(),
        policy_host: None,
        delegated_to: None,
    };
    let rollout = RolloutState {
        mode: Some(InMode { mode: Mode::Enforce, since: days(-9) }),
        published: vec![PublishedPolicy::from(&policy)],
        ..RolloutState::default()
    };
    let seen = ObservedState {
        mx: vec![name("mx1.a.example")],
        record: Some(PolicyId::parse("1").unwrap()),
        served: Some(policy),
        ..ObservedState::default()
    };
    (desired, rollout, seen)
}

fn kinds(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    hosts: &[ProbedHost],
) -> Vec<AlertKind> {
    all(desired, rollout, seen, hosts).into_iter().map(|alert| alert.kind).collect()
}

fn all(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    hosts: &[ProbedHost],
) -> Vec<Alert> {
    alerts(desired, rollout, seen, Probes { mx: hosts, ..Probes::default() }, now())
}

/// A certificate for 90 days that ends at this time.
fn ends(until: Timestamp) -> Validity {
    Validity { from: until - SignedDuration::from_hours(90 * 24), until }
}

fn host(proof: Result<Timestamp, String>) -> ProbedHost {
    ProbedHost { name: name("mx1.a.example"), proof: proof.map(ends) }
}

#[test]
fn a_healthy_domain_raises_no_alert() {
    let (desired, rollout, seen) = enforced();
    assert_eq!(kinds(&desired, &rollout, &seen, &[host(Ok(days(60)))]), []);
    assert_eq!(
        kinds(&desired, &RolloutState::default(), &ObservedState::default(), &[host(Err("x".into()))]),
        []
    );
}

#[test]
fn each_fault_raises_an_alert_with_its_remedy() {
    let (desired, rollout, mut seen) = enforced();
    seen.mx.push(name("new.b.example"));
    let raised = all(&desired, &rollout, &seen, &[]);
    assert_eq!(
        (raised.len(), raised[0].kind, &*raised[0].consequence),
        (1, AlertKind::MxUncovered, CONSEQUENCE_ENFORCED)
    );
    assert!(raised[0].remedy.contains("sternpost apply a.example"));
    let mut in_testing = rollout.clone();
    in_testing.published.iter_mut().for_each(|published| published.mode = Mode::Testing);
    in_testing.mode = in_testing.mode.map(|known| InMode { mode: Mode::Testing, ..known });
    let tested = |seen: &ObservedState| {
        let served = seen.served.clone().map(|policy| Policy { mode: Mode::Testing, ..policy });
        ObservedState { served, ..seen.clone() }
    };
    let raised = all(&desired, &in_testing, &tested(&seen), &[]);
    assert_eq!(
        (raised.len(), raised[0].kind, &*raised[0].consequence),
        (1, AlertKind::MxUncovered, CONSEQUENCE_TESTING)
    );
    let (_, _, well) = enforced();
    assert!(all(&desired, &in_testing, &tested(&well), &[]).is_empty());
    assert_eq!(
        kinds(&desired, &rollout, &well, &[host(Err("no STARTTLS".into()))]),
        [AlertKind::MxUnverified]
    );
    assert_eq!(kinds(&desired, &rollout, &well, &[host(Ok(days(13)))]), [AlertKind::MxCertificateEnds]);
    let gone = ObservedState { record: None, ..well.clone() };
    assert_eq!(kinds(&desired, &rollout, &gone, &[]), [AlertKind::RecordGone]);
    let down = ObservedState { served: None, unserved: Some("status 500".into()), ..well.clone() };
    assert_eq!(kinds(&desired, &rollout, &down, &[]), [AlertKind::PolicyUnserved]);
    let with = |until| Probes { policy_host: Some(ends(until)), ..Probes::default() };
    let raised = alerts(&desired, &rollout, &well, with(days(13)), now());
    assert_eq!((raised.len(), raised[0].kind), (1, AlertKind::PolicyCertificateEnds));
    assert_eq!(alerts(&desired, &rollout, &well, with(days(14)), now()), []);
}

#[test]
fn a_host_passes_only_if_the_newest_policy_names_it() {
    let (_, rollout, _) = enforced();
    assert_eq!(host(Ok(days(60))).problem(&rollout), None);
    assert_eq!(host(Err("no STARTTLS".into())).problem(&rollout).as_deref(), Some("no STARTTLS"));
    let other = ProbedHost { name: name("mx2.a.example"), proof: Ok(ends(days(60))) };
    assert_eq!(other.problem(&rollout).as_deref(), Some("the policy does not name it"));
}

#[test]
fn a_policy_that_nobody_here_published_raises_an_alert() {
    let (desired, rollout, mut seen) = enforced();
    seen.served = Some(Policy {
        mode: Mode::None,
        max_age: 31_557_600,
        mx: Vec::new(),
        unmatchable: Vec::new(),
        notes: Vec::new(),
    });
    let raised = all(&desired, &rollout, &seen, &[]);
    assert_eq!((raised.len(), raised[0].kind), (1, AlertKind::PolicyUnserved));
    assert!(raised[0].what.contains("did not publish: mode none without MX hosts"), "{}", raised[0].what);
    assert!(raised[0].consequence.contains("31557600 seconds"), "{}", raised[0].consequence);
    // It may be the one that was assumed, or the domain is not known yet.
    let mut assumed = rollout.clone();
    assumed.published.iter_mut().for_each(|published| published.assumed = true);
    assert!(all(&desired, &assumed, &seen, &[]).is_empty());
    let unknown = RolloutState { published: Vec::new(), ..rollout };
    assert!(all(&desired, &unknown, &seen, &[]).is_empty());
}

#[test]
fn an_earlier_policy_counts_although_the_new_one_names_the_host() {
    let (desired, mut rollout, mut seen) = enforced();
    seen.mx = vec![name("new.b.example")];
    let old = rollout.published[0].clone();
    let wide = vec![MxPattern::parse("mx1.a.example").unwrap(), MxPattern::parse("new.b.example").unwrap()];
    rollout.published =
        vec![PublishedPolicy { until: Some(days(-1)), ..old.clone() }, PublishedPolicy { mx: wide, ..old }];
    assert_eq!(kinds(&desired, &rollout, &seen, &[]), [AlertKind::MxUncovered]);
    rollout.published[0].until = Some(days(-8));
    assert_eq!(kinds(&desired, &rollout, &seen, &[]), []);
}

#[test]
fn short_lived_certificates_raise_no_alert_while_they_are_renewed_in_time() {
    let (desired, rollout, seen) = enforced();
    for (life, left, is_raised) in [(6, 3, false), (6, 1, true), (45, 15, false), (45, 13, true)] {
        let validity = Validity { from: days(left - life), until: days(left) };
        let host = ProbedHost { name: name("mx1.a.example"), proof: Ok(validity) };
        let certificates = Probes { mx: &[host], policy_host: Some(validity), ..Probes::default() };
        let raised = alerts(&desired, &rollout, &seen, certificates, now());
        let kinds: Vec<AlertKind> = raised.iter().map(|alert| alert.kind).collect();
        let both = [AlertKind::MxCertificateEnds, AlertKind::PolicyCertificateEnds];
        assert_eq!(kinds, if is_raised { &both[..] } else { &[] }, "{life} days, {left} left");
        assert!(raised.iter().all(|alert| alert.remedy.contains(&format!("valid for {life} days"))));
    }
}

#[test]
fn alerts_about_hosts_that_domains_share_name_them_as_the_cause() {
    let (desired, rollout, mut seen) = enforced();
    let raised = all(&desired, &rollout, &seen, &[host(Err("no STARTTLS".into()))]);
    assert_eq!(raised[0].cause.as_deref(), Some("mx1.a.example"));
    (seen.served, seen.unserved) = (None, Some("status 500".to_owned()));
    assert_eq!(all(&desired, &rollout, &seen, &[])[0].cause, None, "a host of its own");
    seen.policy_host.0 = vec![name("policies.example.net")];
    let raised = all(&desired, &rollout, &seen, &[]);
    assert_eq!(raised[0].cause.as_deref(), Some("policies.example.net: status 500"));
}

#[test]
fn a_move_to_the_hosts_of_microsoft_with_dane_is_named_as_such() {
    let (desired, mut rollout, mut seen) = enforced();
    let before = MxPattern::parse("*.mail.protection.outlook.com").unwrap();
    rollout.published[0].mx = vec![before];
    seen.served = Some(Policy::from(&rollout.published[0]));
    seen.mx = vec![name("a-example.mail.protection.outlook.com"), name("a-example.o-v1.mx.microsoft")];
    let raised = all(&desired, &rollout, &seen, &[]);
    assert_eq!((raised.len(), raised[0].subject.as_str()), (1, "a-example.o-v1.mx.microsoft"));
    assert!(raised[0].what.contains("Microsoft 365 moves the domain"), "{}", raised[0].what);
    assert!(raised[0].remedy.contains("keep the MX record with mail.protection.outlook.com"));
    // A host of somebody else, and one of Microsoft in a domain that was not there, are unknown hosts.
    seen.mx = vec![name("mx.evil.example")];
    assert!(!all(&desired, &rollout, &seen, &[])[0].what.contains("Microsoft"));
    let (_, rollout, mut seen) = enforced();
    seen.mx = vec![name("a-example.o-v1.mx.microsoft")];
    assert!(all(&desired, &rollout, &seen, &[])[0].remedy.contains("check who can change the zone"));
}
