//! Plays the guard with domains whose lookups hang, at the smallest number of slots.

use super::*;
use config::Config;
use formats::{Mode, MxPattern, Policy};
use net::BoxFuture;
use net::dns::{Answer, Dns, DnsError, Kind};
use operations::world::World;
use receiver::rollout::RolloutState;
use receiver::rollout::state::InMode;
use store::Store;

/// A resolver that never answers about one domain, and fails at once for the others.
struct HangsFor(&'static str);

impl Dns for HangsFor {
    fn lookup<'a>(&'a self, name: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            if name.as_str().ends_with(self.0) {
                std::future::pending::<()>().await;
            }
            Err(DnsError::Timeout)
        })
    }
}

/// A guard with one slot for three enforced domains, of which the first one's checks never end.
async fn guard(folder: &std::path::Path) -> GuardRole {
    let mut text = "[guard]\nat_once = 1\n[dns]\nservers = [\"127.0.0.1:1\"]\n".to_owned();
    let names = ["hangs.example", "one.example", "two.example"];
    for name in names {
        text.push_str(&format!("[[domain]]\nname = \"{name}\"\n"));
    }
    let config = Config::parse(&text, None).unwrap();
    let store = Store::open(&folder.join("s.db"), store::Tenant::FIRST).await.unwrap();
    let policy = Policy::new(Mode::Enforce, 600, vec![MxPattern::parse("mx.example").unwrap()]).unwrap();
    for name in names {
        let enforced = |rollout: &mut RolloutState| {
            rollout.intend(&policy);
            rollout.mode = Some(InMode { mode: Mode::Enforce, since: Timestamp::UNIX_EPOCH });
        };
        store.change_rollout(&DomainName::parse(name).unwrap(), enforced).await.unwrap();
    }
    let mut world = World::new(&config).unwrap();
    world.dns = Arc::new(HangsFor("hangs.example"));
    let settings = config.guard.clone().unwrap();
    assert_eq!(settings.at_once, 1);
    // Passes follow each other closely, and no check ends by its deadline.
    let settings =
        GuardConfig { every: Duration::from_millis(30), deadline: Duration::from_secs(3600), ..settings };
    GuardRole::new(RolloutContext::at(config, store, Arc::new(world)).await.unwrap(), settings)
}

/// Handles the checks that run until none does.
async fn finish_all(guard: &mut GuardRole) {
    while let Some(done) = guard.tasks.join_next().await {
        guard.finish(done.ok()).await;
    }
}

#[tokio::test]
async fn with_one_place_a_domain_that_hangs_holds_up_no_other_and_a_restart_forgets_its_check() {
    let folder = tempfile::tempdir().unwrap();
    let mut guard = guard(folder.path()).await;
    // Its last check was slow: it has the slot of slow domains.
    let store = guard.context.store.clone();
    let every = SignedDuration::from_secs(0);
    store.watch_domains(&["hangs.example"].into(), Timestamp::UNIX_EPOCH, every).await.unwrap();
    let claim =
        store.claim_checks(false, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, 1).await.unwrap().remove(0);
    let slow = FinishedCheck {
        outcome: CheckOutcome::Failed,
        is_slow: true,
        due: Timestamp::UNIX_EPOCH,
        verdict: None,
    };
    assert!(store.finish_check(&claim, &slow).await.unwrap().is_some());
    let counts = guard.counts.clone();
    // Each of the others is checked again and again.
    while counts.failed.get() < 6 {
        guard.round().await.unwrap();
        guard.work_until(Instant::now() + Duration::from_millis(5)).await;
    }
    assert!(counts.running.get() >= 1, "the one that hangs");
    assert_eq!(guard.slots.free(true), 0);
    guard.forget_tasks();
    while counts.running.get() > 0 {
        tokio::task::yield_now().await;
    }
    // Its slot is free again, and the others are checked.
    assert_eq!(guard.slots.free(true), 1);
    let before = counts.looks.get();
    while counts.looks.get() == before {
        guard.round().await.unwrap();
    }
}

/// A resolver that always fails.
struct Fails;

impl Dns for Fails {
    fn lookup<'a>(&'a self, _: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async { Err(DnsError::Timeout) })
    }
}

#[tokio::test]
async fn several_processes_count_failures_together_and_one_ends_the_alerts_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(net::clock::ManualClock::new("2026-11-28T00:00:00Z".parse().unwrap()));
    let mut all = Vec::new();
    for _ in 0..2 {
        let GuardRole { context, config, .. } = guard(folder.path()).await;
        let mut world = World::new(&context.config).unwrap();
        (world.dns, world.clock) = (Arc::new(Fails), clock.clone());
        let context = RolloutContext::at(context.config.clone(), context.store.clone(), Arc::new(world));
        let webhook = Some("http://127.0.0.1:9/".to_owned());
        let config = GuardConfig { webhook, at_once: 9, ..(*config).clone() };
        all.push(GuardRole::new(context.await.unwrap(), config));
    }
    let [one, other] = &mut all[..] else { panic!() };
    let store = one.context.store.clone();
    let notices = async |kind: AlertKind| {
        let due =
            store.due_notices::<super::super::messages::Event>("webhook", Timestamp::MAX, 99).await.unwrap();
        due.into_iter().filter(|notice| notice.content.alert.kind == kind).count()
    };
    for round in 1..=4 {
        let turn = if round % 2 == 1 { &mut *one } else { &mut *other };
        turn.next_verdicts = Instant::now();
        turn.round().await.unwrap();
        assert_eq!(turn.tasks.len(), 3, "each domain is due");
        finish_all(turn).await;
        // The first one keeps the alerts, and has read the verdicts of the other.
        let expected = if round < 3 { 0 } else { 3 };
        assert_eq!(notices(AlertKind::CheckFailed).await, expected, "after {round} failed checks");
    }
    assert!(one.lead.holds() && !other.lead.holds());
    // It dies, and the other one takes over.
    one.forget_tasks();
    clock.advance(60);
    // A domain without a policy has a check that looks nothing up.
    for name in ["hangs.example", "one.example", "two.example"] {
        let ended = |rollout: &mut RolloutState| rollout.mode = None;
        store.change_rollout(&DomainName::parse(name).unwrap(), ended).await.unwrap();
    }
    other.lead.forget();
    other.round().await.unwrap();
    assert!(other.lead.holds());
    finish_all(other).await;
    assert_eq!(notices(AlertKind::CheckFailed).await, 6, "each alert has begun and ended once");
    assert!(store.alerts::<Alert>().await.unwrap().is_empty());
    // The one that died comes back, and what it finds changes nothing.
    one.round().await.unwrap();
    assert_eq!(one.tasks.len(), 3);
    finish_all(one).await;
    assert!(!one.lead.holds());
    other.next_verdicts = Instant::now();
    other.round().await.unwrap();
    assert_eq!(notices(AlertKind::CheckFailed).await, 6);
}
