//! Plays the guard with domains whose lookups hang, at the smallest number of slots.

use super::*;
use config::Config;
use formats::{Mode, MxPattern, Policy};
use net::BoxFuture;
use net::clock::Clock;
use net::dns::{Answer, Dns, DnsError, Kind};
use operations::world::World;
use receiver::rollout::RolloutState;
use receiver::rollout::state::InMode;
use store::Store;
use store::guard_schedule::CheckRow;

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

/// Gives a process the job of the alerts, with this store, as its leaders do.
async fn seated(guard: &GuardRole, store: Store) -> tokio::task::JoinHandle<()> {
    let task = tokio::spawn(guard.seat().take(store));
    while guard.seat().tenure().is_none() {
        tokio::task::yield_now().await;
    }
    task
}

/// The lease of the job.
const LEASE: &str = "leader guard-alerts";
const MINUTE: Duration = Duration::from_secs(60);

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
    let claim = store
        .claim_checks(false, Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, 1, &|_| true)
        .await
        .unwrap()
        .remove(0);
    let slow = FinishedCheck {
        outcome: CheckOutcome::Failed,
        is_slow: true,
        due: Timestamp::UNIX_EPOCH,
        verdict: None,
    };
    assert!(store.finish_check(&claim, &slow).await.unwrap().is_some());
    let hour = Duration::from_secs(3600);
    let lease = store.acquire(LEASE, "this", Timestamp::now(), hour).await.unwrap().unwrap();
    let leading = seated(&guard, store.under(&lease)).await;
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
    leading.abort();
}

#[tokio::test]
async fn a_domain_that_is_not_in_the_settings_of_this_process_is_left_to_others_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut guard = guard(folder.path()).await;
    let (store, now) = (guard.context.store.clone(), Timestamp::now());
    let domains = ["added.example", "one.example"].into();
    store.watch_domains(&domains, now, SignedDuration::ZERO).await.unwrap();
    guard.start_due(now).await.unwrap();
    assert_eq!(guard.running.keys().collect::<Vec<_>>(), ["one.example"]);
    let left = store.claim_checks(false, now, later(now, CLAIM_TIME), 9, &|_| true).await.unwrap();
    assert_eq!(left.iter().map(|claim| claim.domain.as_str()).collect::<Vec<_>>(), ["added.example"]);
}

#[tokio::test]
async fn a_process_that_stood_still_changes_no_alert_after_another_one_took_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut guard = guard(folder.path()).await;
    let store = guard.context.store.clone();
    let now = Timestamp::now();
    let lease = store.acquire(LEASE, "this", now, MINUTE).await.unwrap().unwrap();
    let task = seated(&guard, store.under(&lease)).await;
    guard.round().await.unwrap();
    let led = guard.lead.store().unwrap();
    // Another process has found something, and gets the job while this one stands still.
    store.watch_domains(&["late.example", "one.example"].into(), now, SignedDuration::ZERO).await.unwrap();
    for claim in store.claim_checks(false, Timestamp::MAX, Timestamp::MAX, 9, &|_| true).await.unwrap() {
        let verdict = serde_json::to_string(&StoredVerdict::Failed("a reason".to_owned())).unwrap();
        let (outcome, due) = (CheckOutcome::Failed, Timestamp::MAX);
        let finished = FinishedCheck { outcome, is_slow: false, due, verdict: Some(&verdict) };
        store.finish_check(&claim, &finished).await.unwrap().unwrap();
    }
    let waiting = store.waiting_verdicts(9).await.unwrap().len();
    assert!(waiting > 0);
    assert!(store.take_lease(LEASE, "this", "other", now, MINUTE).await.unwrap().is_some());
    // This one does not know it yet.
    assert!(led.check_lease().is_ok());
    let row = CheckRow { failed: FAILED_CHECKS, unreached: 0 };
    let domain = DomainName::parse("two.example").unwrap();
    guard.update_alerts(&domain, StoredVerdict::Failed("late".to_owned()), row).await;
    assert!(store.alerts::<Alert>().await.unwrap().is_empty());
    // Now it does, and leaves the verdicts for the other one.
    assert!(guard.lead.store().is_none());
    assert!(guard.settle_others(&led).await.is_err());
    assert_eq!(store.waiting_verdicts(9).await.unwrap().len(), waiting);
    // It gets the job again.
    task.abort();
    let _ = task.await;
    let next = store.take_lease(LEASE, "other", "this", now, MINUTE).await.unwrap().unwrap();
    let task = seated(&guard, store.under(&next)).await;
    assert!(guard.lead.store().is_none(), "it has to read the alerts first");
    guard.next_verdicts = Instant::now();
    guard.round().await.unwrap();
    assert!(guard.lead.store().is_some());
    assert!(store.waiting_verdicts(9).await.unwrap().is_empty());
    guard.update_alerts(&domain, StoredVerdict::Failed("in time".to_owned()), row).await;
    assert_eq!(store.alerts::<Alert>().await.unwrap().len(), 1);
    task.abort();
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
    let lease = async |holder: &str| {
        store.under(&store.acquire(LEASE, holder, clock.now(), MINUTE).await.unwrap().unwrap())
    };
    let leading = seated(one, lease("one").await).await;
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
    assert!(one.lead.store().is_some() && other.lead.store().is_none());
    // It dies, and the other one takes over.
    leading.abort();
    let _ = leading.await;
    one.forget_tasks();
    clock.advance(60);
    store.release(LEASE, "one").await.unwrap();
    let leading = seated(other, lease("other").await).await;
    // A domain without a policy has a check that looks nothing up.
    for name in ["hangs.example", "one.example", "two.example"] {
        let ended = |rollout: &mut RolloutState| rollout.mode = None;
        store.change_rollout(&DomainName::parse(name).unwrap(), ended).await.unwrap();
    }
    other.round().await.unwrap();
    assert!(other.lead.store().is_some());
    finish_all(other).await;
    assert_eq!(notices(AlertKind::CheckFailed).await, 6, "each alert has begun and ended once");
    assert!(store.alerts::<Alert>().await.unwrap().is_empty());
    // The one that died comes back, and what it finds changes nothing.
    one.round().await.unwrap();
    assert_eq!(one.tasks.len(), 3);
    finish_all(one).await;
    assert!(one.lead.store().is_none());
    other.next_verdicts = Instant::now();
    other.round().await.unwrap();
    assert_eq!(notices(AlertKind::CheckFailed).await, 6);
    leading.abort();
}
