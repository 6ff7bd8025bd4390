//! The daily refresh: each policy on its own, and for every set of settings that uses it.

use super::world::{Bench, Published, secure};
use super::*;
use std::collections::BTreeMap;

const DAY: u32 = 86_400;

fn hop() -> NextHop {
    NextHop::domain(DomainName::parse(NAME).unwrap())
}

/// The default settings answer every domain by an override; only the map `strict` uses published policies.
async fn used_by_a_map_only() -> Bench {
    let bench = Bench::new().await;
    let mut overrides = Overrides::default();
    overrides.add(Scope::Everything, Rule { answer: Some(Answer::NotFound), ..Rule::default() });
    let default = Settings { overrides, ..Settings::default() };
    bench.answers.set_with_maps(default, BTreeMap::from([("strict".to_owned(), Settings::default())]));
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(ask_strict(&bench).await, secure("1"));
    bench
}

async fn ask_strict(bench: &Bench) -> String {
    format!("OK {}", bench.answers.ask_in(Some("strict"), NAME).await.text(false))
}

#[tokio::test]
async fn pol_13_a_policy_that_only_a_named_map_uses_is_refreshed() {
    let bench = used_by_a_map_only().await;
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    bench.clock.advance(DAY);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 1);
    assert_eq!(bench.world.fetches(NAME), 2);
    bench.world.publish(NAME, Published::nothing());
    assert_eq!(ask_strict(&bench).await, secure("2"));
    assert_eq!(bench.ask(NAME).await, "NOTFOUND", "the default settings have their override");
}

#[tokio::test]
async fn of_several_processes_one_refreshes_a_policy_and_the_others_read_it() {
    let mut bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.ask(NAME).await;
    bench.settle().await;
    let one = bench.answers.clone();
    bench.restart();
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    bench.clock.advance(DAY);
    let (done, by_other) = tokio::join!(one.refresh_due(), bench.answers.refresh_due());
    assert_eq!(done.unwrap() + by_other.unwrap(), 1);
    assert_eq!(bench.world.fetches(NAME), 2);
    // A third one.
    bench.restart();
    bench.world.publish(NAME, Published::nothing());
    assert_eq!(bench.ask(NAME).await, secure("2"));
}

#[tokio::test]
async fn the_operators_refresh_fetches_a_policy_that_only_a_named_map_uses() {
    let bench = used_by_a_map_only().await;
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    let entry = bench.answers.refresh(hop()).await.unwrap();
    assert_eq!(entry.source, Source::Override, "the answer under the default settings");
    bench.world.publish(NAME, Published::nothing());
    assert_eq!(ask_strict(&bench).await, secure("2"));
}

#[tokio::test]
async fn the_operators_refresh_concerns_the_next_look_up_only() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.world.publish(NAME, Published::nothing());
    bench.answers.refresh(hop()).await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.clock.advance(400);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.world.fetches(NAME), 1, "the policy of this id is known");
}

async fn with_due_policies(number: u32) -> (Bench, Vec<String>) {
    let bench = Bench::new().await;
    let names: Vec<String> = (0..number).map(|number| format!("d{number}.example")).collect();
    for name in &names {
        bench.world.publish(name, Published::policy("1", "enforce", 604_800));
        bench.ask(name).await;
    }
    bench.settle().await;
    bench.clock.advance(DAY);
    (bench, names)
}

#[tokio::test]
async fn a_domain_that_does_not_answer_delays_the_refresh_of_no_other() {
    let (bench, names) = with_due_policies(40).await;
    for slow in 0..5 {
        bench.world.mute(&format!("d{slow}.example"));
    }
    let answers = bench.answers.clone();
    let round = tokio::spawn(async move { answers.refresh_due().await });
    let deadline = tokio::time::Instant::now() + world::PATIENCE;
    while names[5..].iter().any(|name| bench.world.fetches(name) < 2) {
        assert!(tokio::time::Instant::now() < deadline, "they wait for the slow ones");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    round.abort();
}

#[tokio::test]
async fn a_policy_that_can_not_be_stored_does_not_stop_the_refresh_of_the_others() {
    let (bench, names) = with_due_policies(40).await;
    let gate = bench.world.hold();
    let answers = bench.answers.clone();
    let round = tokio::spawn(async move { answers.refresh_due().await });
    while bench.answers.in_flight.len() == 0 {
        tokio::task::yield_now().await;
    }
    // Now the store can be read and not written.
    std::fs::rename(bench.store_file(), bench.store_file().with_extension("away")).unwrap();
    bench.world.open(&gate);
    let _ = round.await.unwrap();
    for name in &names {
        assert_eq!(bench.world.fetches(name), 2, "{name}");
    }
    // It is not repeated at once, although the policies are still due in the store.
    std::fs::rename(bench.store_file().with_extension("away"), bench.store_file()).unwrap();
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(bench.world.fetches(&names[0]), 2);
    bench.clock.advance(600);
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(bench.world.fetches(&names[0]), 3);
}
