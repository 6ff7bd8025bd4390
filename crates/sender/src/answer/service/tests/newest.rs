//! VAL-19: the newest policy that HTTPS authenticated applies, by the time of its fetch, whatever else is in flight, wherever
//! it was fetched, and whether or not it could be stored.

use super::world::{Bench, PATIENCE, Published, secure};
use super::*;
use crate::answer::policy_writer::Written;
use formats::policy_export::ExportedPolicy;
use formats::{Policy, PolicyId};
use futures_util::future::join_all;
use jiff::Timestamp;
use net::dns::Kind;
use store::policies::StoredPolicy;
use tokio::task::JoinHandle;

/// The time of the simulated clock at its start.
const NOW: i64 = 1_800_000_000;

fn domain() -> DomainName {
    DomainName::parse(NAME).unwrap()
}

fn exported(id: &str, fetched_at: i64) -> ExportedPolicy {
    let text = format!("version: STSv1\nmode: enforce\nmx: mx{id}.example\nmax_age: 604800\n");
    ExportedPolicy {
        domain: domain(),
        id: PolicyId::parse(id).unwrap(),
        policy: Policy::parse(text.as_bytes()).unwrap(),
        text,
        fetched_at: Timestamp::from_second(fetched_at).unwrap(),
    }
}

/// Moves the file of the store away, so that it can be read and not written, or back.
fn move_store(bench: &Bench, is_away: bool) {
    let (here, away) = (bench.store_file(), bench.store_file().with_extension("away"));
    let (from, to) = if is_away { (here, away) } else { (away, here) };
    std::fs::rename(from, to).unwrap();
}

/// A bench whose policy 1 could not be stored. The store works again.
async fn with_an_unsaved_policy() -> Bench {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    move_store(&bench, true);
    assert_eq!(bench.ask(NAME).await, secure("1"));
    move_store(&bench, false);
    bench.world.publish(NAME, Published::nothing());
    bench.clock.advance(60);
    bench
}

async fn stored(bench: &Bench) -> Option<StoredPolicy> {
    bench.store.policy(&domain()).await.unwrap()
}

#[tokio::test]
async fn an_import_precedes_an_older_policy_that_could_not_be_stored() {
    let bench = with_an_unsaved_policy().await;
    bench.answers.import(&[exported("2", NOW + 30)], false).await.unwrap();
    for _ in 0..2 {
        assert_eq!(bench.ask(NAME).await, secure("2"));
        bench.answers.set(Settings::default());
    }
    assert_eq!(stored(&bench).await.unwrap().record_id.as_str(), "2");
    assert!(!bench.answers.discovery.has_unsaved(&domain()), "it is superseded");
}

#[tokio::test]
async fn an_import_does_not_precede_a_newer_policy_that_could_not_be_stored() {
    let bench = with_an_unsaved_policy().await;
    let outcomes = bench.answers.import(&[exported("2", NOW - 30)], false).await.unwrap();
    assert_eq!(outcomes, [crate::answer::transfer::ImportOutcome::NotNewer]);
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.answers.set(Settings::default());
    assert_eq!(bench.ask(NAME).await, secure("1"));
    assert_eq!(stored(&bench).await.unwrap().record_id.as_str(), "1", "now it is stored");
    assert!(!bench.answers.discovery.has_unsaved(&domain()));
}

#[tokio::test]
async fn a_policy_that_another_process_stored_precedes_an_older_one_that_could_not_be_stored() {
    let bench = with_an_unsaved_policy().await;
    let mut other = stored_policy("2", NOW + 30);
    bench.store.put_policies(&[other.clone().into()]).await.unwrap();
    bench.answers.set(Settings::default());
    assert_eq!(bench.ask(NAME).await, secure("2"));
    // The next one, too: nothing is left of the policy 1.
    other.record_id = PolicyId::parse("3").unwrap();
    other.body = other.body.replace("mx2", "mx3");
    other.fetched_at = Timestamp::from_second(NOW + 40).unwrap();
    bench.store.put_policies(&[other.into()]).await.unwrap();
    bench.answers.set(Settings::default());
    assert_eq!(bench.ask(NAME).await, secure("3"));
    assert_eq!(bench.answers.remembered(&domain()).await.unwrap().0.id.as_str(), "3");
}

fn stored_policy(id: &str, fetched_at: i64) -> StoredPolicy {
    let ExportedPolicy { domain, id, policy, text, fetched_at } = exported(id, fetched_at);
    let expires_at = Timestamp::from_second(fetched_at.as_second() + 604_800).unwrap();
    let mode = policy.mode;
    StoredPolicy {
        domain,
        record_id: id,
        body: text,
        mode,
        fetched_at,
        expires_at,
        refresh_at: Timestamp::from_second(fetched_at.as_second() + 86_400).unwrap(),
        dane: "0 0 1 0 0".to_owned(),
        used_at: fetched_at,
    }
}

#[tokio::test]
async fn a_policy_that_is_stored_late_does_not_precede_a_newer_one_that_could_not_be_stored() {
    let bench = Bench::new().await;
    let discovery = &bench.answers.discovery;
    let mut outcomes = Vec::new();
    for (id, mode) in [("5", "testing"), ("6", "enforce")] {
        bench.world.publish(NAME, Published::policy(id, mode, 604_800));
        outcomes.push(discovery.discover(&domain(), None, crate::answer::discovery::Occasion::Mail).await);
    }
    move_store(&bench, true);
    assert_eq!(discovery.save(&domain(), &outcomes[1], "", true).await, Written::InForce);
    move_store(&bench, false);
    assert_eq!(discovery.save(&domain(), &outcomes[0], "", true).await, Written::Superseded);
    assert_eq!(discovery.live_held(&domain()).await.unwrap().id.as_str(), "6");
    assert!(discovery.has_unsaved(&domain()));
}

#[tokio::test]
async fn a_policy_that_several_look_ups_fail_to_store_stays_in_memory() {
    let bench = with_an_unsaved_policy().await;
    move_store(&bench, true);
    for _ in 0..3 {
        let keys = [NAME, "[example.org]", "example.org:587", "[example.org]:587"];
        for reply in join_all(keys.iter().map(|key| bench.ask(key))).await {
            assert_eq!(reply, secure("1"));
        }
        bench.answers.set(Settings::default());
    }
    assert!(bench.answers.discovery.has_unsaved(&domain()));
}

#[tokio::test]
async fn the_policy_that_is_remembered_is_the_newest_one_even_if_it_could_not_be_stored() {
    let bench = with_an_unsaved_policy().await;
    assert_eq!(bench.answers.remembered(&domain()).await.unwrap().0.id.as_str(), "1");
}

#[tokio::test]
async fn val_22_after_a_step_back_a_policy_that_could_not_be_stored_precedes_the_one_it_replaces() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.clock.set_by(-3600);
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    move_store(&bench, true);
    bench.answers.refresh(NextHop::domain(domain())).await;
    bench.world.publish(NAME, Published::nothing());
    for is_back in [false, true] {
        if is_back {
            move_store(&bench, false);
            bench.clock.advance(7200);
        }
        bench.answers.set(Settings::default());
        assert_eq!(bench.ask(NAME).await, secure("2"), "the store is back: {is_back}");
    }
    assert_eq!(stored(&bench).await.unwrap().record_id.as_str(), "2", "now it is stored");
}

/// Starts a request, and waits until its lookup has fetched the policy.
async fn start(bench: &Bench, key: &'static str) -> JoinHandle<String> {
    let (answers, fetches) = (bench.answers.clone(), bench.world.fetches(NAME));
    let request = tokio::spawn(async move { format!("OK {}", answers.ask(key).await.text(false)) });
    while bench.world.fetches(NAME) == fetches {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    request
}

#[tokio::test]
async fn val_19_the_newer_of_two_policies_is_stored_and_answered_whichever_look_up_ends_first() {
    // `[d]` has no MX query, and `d` no query for addresses until its MX query is answered.
    for (older, newer, older_ends_first) in [
        ("[example.org]", NAME, true),
        ("[example.org]", NAME, false),
        (NAME, "[example.org]", true),
        (NAME, "[example.org]", false),
        ("example.org:587", "[example.org]:587", true),
    ] {
        let case = format!("{older} then {newer}, {older_ends_first}");
        let bench = Bench::new().await;
        bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
        bench.world.hold_kind(Kind::Mx);
        bench.world.hold_kind(Kind::A);
        let first = start(&bench, older).await;
        bench.clock.advance(1);
        bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
        let second = start(&bench, newer).await;
        bench.world.publish(NAME, Published { ttl: 86_400, ..Published::nothing() });
        let is_host = |key: &str| key.starts_with('[');
        let ends_first = if older_ends_first { older } else { newer };
        bench.world.open_kind(if is_host(ends_first) { Kind::A } else { Kind::Mx });
        if !is_host(ends_first) {
            // Its hosts are looked up next, and the other one's, too.
            bench.world.open_kind(Kind::A);
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !(if older_ends_first { &first } else { &second }).is_finished() {
            assert!(tokio::time::Instant::now() < deadline, "{case}: it does not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.world.open_kind(Kind::Mx);
        bench.world.open_kind(Kind::A);
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        assert_eq!(second, secure("2"), "{case}");
        if !older_ends_first && is_host(newer) {
            assert_eq!(first, secure("2"), "{case}: the newer policy is stored by then");
        }
        bench.settle().await;
        assert_eq!(stored(&bench).await.unwrap().record_id.as_str(), "2", "{case}");
        for key in [older, newer, NAME, "[example.org]"] {
            assert_eq!(bench.ask(key).await, secure("2"), "{case}: {key}");
        }
    }
}

#[tokio::test]
async fn a_look_up_that_a_reload_outdated_does_not_lose_a_newer_policy() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.world.hold_kind(Kind::Mx);
    let outdated = start(&bench, NAME).await;
    // Another machine's older policy arrives while the new one is on its way.
    bench.answers.set(Settings::default());
    bench.answers.import(&[exported("0", NOW - 100)], false).await.unwrap();
    bench.world.publish(NAME, Published::nothing());
    bench.world.open_kind(Kind::Mx);
    assert_eq!(outdated.await.unwrap(), secure("1"));
    bench.settle().await;
    assert_eq!(stored(&bench).await.unwrap().record_id.as_str(), "1");
    assert_eq!(bench.ask(NAME).await, secure("1"));
}
