//! The groups and their order, the two stages, and what a request gets meanwhile.

use super::*;
use crate::judge::StepCause;
use crate::overview::{OverviewQuery, page_of};
use crate::tests::{Place, report};
use crate::visitor::{Role, Visitor};
use formats::MxPattern;
use net::clock::Clock;
use receiver::rollout::state::{InMode, PublishedPolicy};

fn entry(name: &str, need: Urgency, next: NextStep) -> Entry {
    Entry {
        name: name.to_owned(),
        need,
        mode: Some(Mode::Testing),
        wanted: Mode::Enforce,
        binds: true,
        since: None,
        evidence: String::new(),
        next,
        successful: 0,
        failed: 0,
        host: HostedBy::Static,
        certificate_ends: None,
        is_certificate_ending: false,
        tags: Vec::new(),
    }
}

fn alert(domain: &str, kind: AlertKind, subject: &str, second: i64) -> ActiveAlert<Alert> {
    let alert = Alert {
        kind,
        subject: subject.into(),
        what: format!("{subject} is bad for {domain}"),
        consequence: "Mail waits.".into(),
        remedy: format!("sternpost apply {domain}"),
        cause: None,
        domains: Vec::new(),
    };
    ActiveAlert { domain: domain.into(), since: Timestamp::from_second(second).unwrap(), alert }
}

#[test]
fn one_broken_mx_host_of_many_domains_is_one_group() {
    let step = |cause| NextStep::Page(cause, String::new(), "");
    let domains = [
        entry("a.example", Urgency::Failing, step(StepCause::Alert)),
        entry("b.example", Urgency::Failing, step(StepCause::Alert)),
        entry("c.example", Urgency::Waiting, step(StepCause::Approve)),
        entry("d.example", Urgency::Waiting, step(StepCause::Approve)),
        entry("e.example", Urgency::OnItsWay, NextStep::Wait("time".into())),
    ];
    let alerts = [
        alert("b.example", AlertKind::MxUnverified, "mx.shared.example", 5),
        alert("a.example", AlertKind::MxUnverified, "mx.shared.example", 9),
        alert("a.example", AlertKind::MxUnverified, "mx.own.example", 9),
        alert("b.example", AlertKind::Silence, "b.example", 7),
        alert("the server", AlertKind::QuarantineFull, "", 7),
    ];
    let groups = grouped(&domains, &alerts);
    let shown: Vec<(&str, Urgency, Vec<&str>)> = groups
        .iter()
        .map(|group| (group.id.as_str(), group.need, group.domains.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        shown,
        [
            ("mx-unverified mx.shared.example", Urgency::Failing, vec!["a.example", "b.example"]),
            ("mx-unverified mx.own.example", Urgency::Failing, vec!["a.example"]),
            ("silence", Urgency::Waiting, vec!["b.example"]),
            ("quarantine-full", Urgency::Waiting, vec![]),
            ("approve", Urgency::Waiting, vec!["c.example", "d.example"]),
        ]
    );
    let first = groups.first().unwrap();
    assert_eq!(first.since, Some(Timestamp::from_second(5).unwrap()));
    assert_eq!(first.remedy, "sternpost apply DOMAIN");
    assert_eq!(groups[1].remedy, "sternpost apply a.example");
}

#[test]
fn a_certificate_that_ends_soon_is_counted_once_for_a_domain() {
    let now = Timestamp::from_second(100 * 86_400).unwrap();
    let own = |name: &str, days: i64| Entry {
        certificate_ends: Some(now + SignedDuration::from_hours(24 * days)),
        is_certificate_ending: days < 14,
        ..entry(name, Urgency::Fine, NextStep::Nothing)
    };
    let domains = [own("a.example", 60), own("b.example", 13), own("c.example", -1)];
    let alerts = [
        alert("b.example", AlertKind::PolicyCertificateEnds, "mta-sts.b.example", 1),
        alert("a.example", AlertKind::Silence, "a.example", 1),
    ];
    assert_eq!(ending(&domains, &alerts), 2);
}

#[test]
fn what_becomes_worse_by_itself_comes_before_what_waits_whatever_the_numbers() {
    let step = |cause| NextStep::Page(cause, String::new(), "");
    let mut domains = vec![entry("z.example", Urgency::Failing, step(StepCause::Failures))];
    let waiting = [StepCause::SetUp, StepCause::Approve, StepCause::Apply, StepCause::Decide];
    for (number, cause) in waiting.into_iter().enumerate() {
        for copy in 0..9 {
            domains.push(entry(&format!("w{number}-{copy}.example"), Urgency::Waiting, step(cause)));
        }
    }
    let unbound = Entry { binds: false, ..entry("t.example", Urgency::Waiting, step(StepCause::Alert)) };
    domains.push(unbound);
    let alerts = [
        alert("t.example", AlertKind::Silence, "t.example", 1),
        alert("t.example", AlertKind::MxUncovered, "mx.t.example", 1),
        alert("t.example", AlertKind::PolicyCertificateEnds, "mta-sts.t.example", 1),
        alert("t.example", AlertKind::CheckFailed, "t.example", 1),
    ];
    let shown: Vec<String> = grouped(&domains, &alerts).into_iter().map(|group| group.id).collect();
    let expected = [
        "failures",
        "check-failed",
        "policy-certificate-ends",
        "mx-uncovered mx.t.example",
        "decide",
        "apply",
        "silence",
        "approve",
        "setup",
    ];
    assert_eq!(shown, expected);
}

const DOMAINS: &str = "[dashboard]\nurl = \"https://dash.example\"\n[[domain]]\nname = \"one.example\"\n[[domain]]\nname = \"two.example\"\n";

/// A dashboard with one domain that has been in testing for long, with reports, and one that is not set up.
async fn place() -> Place {
    let place = Place::with(DOMAINS).await;
    let now = place.clock.now();
    let promise = PublishedPolicy {
        mode: Mode::Testing,
        max_age: 86_400,
        mx: vec![MxPattern::parse("mx1.one.example").unwrap()],
        until: None,
        assumed: false,
    };
    let mode = Some(InMode { mode: Mode::Testing, since: now - DAY * 40 });
    let rollout = RolloutState { mode, published: vec![promise], ..RolloutState::default() };
    place.store.put_rollout(&DomainName::parse("one.example").unwrap(), &rollout).await.unwrap();
    for back in 0..30 {
        place.store.keep_report(&report(now - DAY * back, &back.to_string(), 9, 0)).await.unwrap();
    }
    place
}

fn visitor() -> Visitor {
    Visitor { name: "ada".into(), role: Role::Reader, csrf_token: "x".into(), is_of_installation: true }
}

async fn shown(place: &Place, q: &str, snapshot: Option<Arc<Snapshot>>) -> (String, String) {
    let query = OverviewQuery::searching(q);
    let Ok(answer) = page_of(&place.dashboard, &visitor(), query, snapshot).await else { panic!("no page") };
    let refresh = answer.headers().get("refresh").map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (String::from_utf8(body.to_vec()).unwrap(), refresh)
}

#[tokio::test]
async fn a_page_that_does_not_wait_shows_the_domains_by_name_and_then_their_figures() {
    let place = place().await;
    let none = place.dashboard.snapshot_within(Duration::ZERO).await.ok().unwrap();
    assert!(none.is_none());
    let (page, refresh) = shown(&place, "", none).await;
    for part in ["<h1>2 domains</h1>", "being counted", "/domains/one.example", "/domains/two.example"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(refresh, "3");
    let (page, _) = shown(&place, "TWO", None).await;
    assert!(page.contains("/domains/two.example") && !page.contains("/domains/one.example"), "{page}");
    // The first request has begun to count, and the next one waits for that.
    let first = place.dashboard.snapshot_within(Duration::MAX).await.ok().unwrap().unwrap();
    let again = place.dashboard.snapshot().await.ok().unwrap().unwrap();
    assert_eq!((first.domains.len(), first.pending, again.pending), (2, 0, 0));
    let (page, refresh) = shown(&place, "", Some(again)).await;
    assert!(page.contains("Figures as of now, ") && page.contains("Newest report: "), "{page}");
    assert_eq!(refresh, "");
}

#[tokio::test]
async fn the_first_stage_counts_sessions_and_claims_nothing_about_reports_that_were_not_read() {
    let place = place().await;
    let Ok(Counted { facts, domains, pending }) = place.dashboard.count().await else { panic!() };
    let waiting: Vec<&str> = pending.iter().map(|(_, spec)| spec.name.as_str()).collect();
    assert_eq!(waiting, ["one.example"]);
    let first = facts.snapshot(domains, pending.len());
    let one = first.domains.iter().find(|entry| entry.name == "one.example").unwrap();
    assert_eq!((one.need, one.evidence.as_str()), (Urgency::OnItsWay, "not known yet"));
    assert!(one.successful > 200 && matches!(one.next, NextStep::Wait(_)), "{one:?}");
    let (page, _) = shown(&place, "", Some(first)).await;
    assert!(page.contains("The reports about 1 domain in testing are still being read"), "{page}");
    let complete = place.dashboard.complete_snapshot().await.ok().unwrap();
    let one = complete.domains.iter().find(|entry| entry.name == "one.example").unwrap();
    assert!(one.evidence.starts_with("not yet: "), "{one:?}");
    let (page, _) = shown(&place, "", Some(complete)).await;
    assert!(!page.contains("still being read"), "{page}");
}

#[tokio::test]
async fn a_decision_waits_for_no_page_and_is_in_what_is_counted_after_it() {
    let place = place().await;
    // A page that takes long.
    let page = place.dashboard.context().await.unwrap();
    let mut decision = place.dashboard.context_to_change().await.unwrap();
    // It was begun before the decision is in the store.
    let before = place.dashboard.complete_snapshot().await.ok().unwrap();
    let name = DomainName::parse("one.example").unwrap();
    let spec = decision.find(&name).unwrap();
    operations::promotion::hold_back(&mut decision, &spec, "ada", "moved").await.unwrap();
    drop(decision);
    let after = place.dashboard.complete_snapshot().await.ok().unwrap();
    assert!(!Arc::ptr_eq(&before, &after));
    let held = |context: &RolloutContext| context.decisions(&name).held.is_some();
    assert!(held(&place.dashboard.context().await.unwrap()) && !held(&page));
}

#[tokio::test]
async fn a_decision_makes_the_last_snapshot_outdated() {
    let place = place().await;
    let first = place.dashboard.complete_snapshot().await.ok().unwrap();
    place.dashboard.snapshots.forget();
    // It is shown to those who can't wait, and to nobody else.
    let stale = place.dashboard.snapshot_within(Duration::ZERO).await.ok().unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &stale));
    let next = place.dashboard.snapshot_within(Duration::MAX).await.ok().unwrap().unwrap();
    assert!(!Arc::ptr_eq(&first, &next));
}
