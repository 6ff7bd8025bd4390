//! Lookups in flight while the operator purges a domain, reloads the settings or requests a refresh.

use super::world::{Bench, Published, secure};
use super::*;
use crate::answer::in_flight::Purpose;
use tokio::task::JoinHandle;

fn hop() -> NextHop {
    NextHop::domain(DomainName::parse(NAME).unwrap())
}

/// Starts a request, and waits until its lookup is in flight.
async fn start(bench: &Bench) -> JoinHandle<String> {
    let (answers, before) = (bench.answers.clone(), bench.answers.metrics.misses.get());
    let request = tokio::spawn(async move { format!("OK {}", answers.ask(NAME).await.text(false)) });
    while bench.answers.metrics.misses.get() == before {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    request
}

fn encrypt() -> Settings {
    let mut settings = Settings::default();
    let rule = Rule { answer: Some(Answer::Level(Level::Encrypt, None)), ..Rule::default() };
    settings.overrides.add(Scope::parse(NAME).unwrap(), rule);
    settings
}

#[tokio::test]
async fn a_purge_keeps_the_look_up_in_flight_out_of_cache_and_store() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    let gate = bench.world.hold();
    let request = start(&bench).await;
    bench.answers.purge(&hop()).await.unwrap();
    bench.world.open(&gate);
    assert_eq!(request.await.unwrap(), secure("1"), "the request that already waits gets its answer");
    bench.settle().await;
    assert_eq!((bench.answers.cache.len(), bench.store.policies_after("", 9).await.unwrap().len()), (0, 0));
    bench.world.publish(NAME, Published::nothing());
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
}

#[tokio::test]
async fn a_purge_during_a_recheck_does_not_bring_the_cached_answer_back() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.ask(NAME).await;
    bench.clock.advance(400);
    let gate = bench.world.hold();
    bench.ask(NAME).await;
    assert!(bench.answers.purge(&hop()).await.unwrap());
    bench.world.publish(NAME, Published::nothing());
    bench.world.open(&gate);
    bench.settle().await;
    assert_eq!((bench.answers.cache.len(), bench.store.policies_after("", 9).await.unwrap().len()), (0, 0));
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
}

#[tokio::test]
async fn a_purge_reaches_look_ups_that_a_reload_or_a_refresh_has_replaced() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    let gate = bench.world.hold();
    start(&bench).await;
    bench.answers.set(Settings::default());
    start(&bench).await;
    let refresh = bench.answers.look_up(hop(), NAME.to_owned(), Purpose::Operator, None).unwrap();
    bench.answers.purge(&hop()).await.unwrap();
    bench.world.open(&gate);
    bench.settle().await;
    assert!(refresh.borrow().is_some());
    assert_eq!((bench.answers.cache.len(), bench.store.policies_after("", 9).await.unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_request_after_a_purge_starts_a_look_up_whose_outcome_is_kept() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    let gate = bench.world.hold();
    let first = start(&bench).await;
    bench.answers.purge(&hop()).await.unwrap();
    let second = start(&bench).await;
    bench.world.open(&gate);
    assert_eq!((first.await.unwrap(), second.await.unwrap()), (secure("1"), secure("1")));
    bench.settle().await;
    assert_eq!(bench.world.queries(NAME), 2);
    assert_eq!((bench.answers.cache.len(), bench.store.policies_after("", 9).await.unwrap().len()), (1, 1));
}

#[tokio::test]
async fn a_request_after_a_reload_gets_an_answer_by_the_new_settings() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    let gate = bench.world.hold();
    let before = start(&bench).await;
    bench.answers.set(encrypt());
    assert_eq!(bench.ask(NAME).await, "OK encrypt", "at once, since no lookup is needed");
    bench.world.open(&gate);
    assert_eq!(before.await.unwrap(), secure("1"));
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, "OK encrypt", "the old lookup is not cached");
    assert_eq!(bench.store.policies_after("", 9).await.unwrap().len(), 1, "but its policy is stored");
}

#[tokio::test]
async fn a_refresh_never_joins_a_request_that_the_store_answers() {
    for purpose in [Purpose::Operator, Purpose::Refresh] {
        let mut bench = Bench::new().await;
        bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
        bench.ask(NAME).await;
        bench.restart();
        bench.clock.advance(86_400);
        bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
        // Neither lookup has run yet when the second starts.
        let request = bench.answers.look_up(hop(), NAME.to_owned(), Purpose::Request, None).unwrap();
        let mut refresh = bench.answers.look_up(hop(), NAME.to_owned(), purpose, None).unwrap();
        let entry = refresh.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(format!("OK {}", entry.text(false)), secure("2"), "{purpose:?}");
        bench.settle().await;
        let from_store = request.borrow().clone().unwrap();
        assert_eq!(format!("OK {}", from_store.text(false)), secure("1"), "{purpose:?}");
        let policy = bench.store.policies_after("", 1).await.unwrap().remove(0);
        assert_eq!(policy.record_id.as_str(), "2");
    }
}

#[tokio::test]
async fn a_refresh_by_the_operator_does_not_join_an_older_look_up_and_requests_join_it() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    let gate = bench.world.hold();
    let request = start(&bench).await;
    let answers = bench.answers.clone();
    let refresh = tokio::spawn(async move { answers.refresh(hop()).await.is_some() });
    while bench.answers.in_flight.len() < 2 {
        tokio::task::yield_now().await;
    }
    let joined = start(&bench).await;
    assert_eq!(bench.answers.in_flight.len(), 2);
    bench.world.open(&gate);
    assert!(refresh.await.unwrap());
    assert_eq!((request.await.unwrap(), joined.await.unwrap()), (secure("1"), secure("1")));
    bench.settle().await;
    assert_eq!(bench.world.queries(NAME), 2);
}
