//! Many lookups at once: their number is bounded, and a lookup that no request waits for keeps no place.

use super::world::{Bench, Published, secure};
use super::*;
use crate::answer::in_flight::JoinOrStart;

/// Asks about domains whose servers never answer, until each request has timed out.
async fn ask_mute_domains(bench: &Bench, numbers: std::ops::Range<u32>) {
    let requests: Vec<_> = numbers
        .map(|number| {
            let answers = bench.answers.clone();
            tokio::spawn(async move { answers.ask(&format!("mute{number}.example")).await.status })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), crate::answer::entry::Status::Temporary);
    }
}

fn impatient(milliseconds: u64) -> Settings {
    Settings { patience: Duration::from_millis(milliseconds), ..Settings::default() }
}

#[tokio::test]
async fn look_ups_that_no_request_waits_for_leave_their_places_to_others() {
    let bench = Bench::new().await;
    bench.world.mute("mute");
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    bench.answers.set(impatient(50));
    for round in 0..4 {
        ask_mute_domains(&bench, round * 300..(round + 1) * 300).await;
    }
    bench.answers.set(impatient(5000));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    let in_flight = bench.answers.in_flight.len();
    assert!(in_flight <= 2 * LOOKUPS, "{in_flight}");
}

#[tokio::test]
async fn beyond_the_bound_a_request_is_deferred_at_once_and_a_held_policy_still_answers() {
    let mut bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.restart();
    bench.world.mute("mute");
    let mut overrides = Overrides::default();
    let ruled = Scope::Domain(DomainName::parse("ruled.example").unwrap());
    overrides.add(ruled, Rule { answer: Some(Answer::NotFound), ..Rule::default() });
    bench.answers.set(Settings { overrides, ..impatient(3000) });
    let flood = {
        let answers = bench.answers.clone();
        let ask = move |number: u32| {
            let answers = answers.clone();
            tokio::spawn(async move { answers.ask(&format!("mute{number}.example")).await.text(false) })
        };
        (0..5000).map(ask).collect::<Vec<_>>()
    };
    while bench.answers.metrics.misses.get() < 5000 {
        tokio::task::yield_now().await;
    }
    let reply = bench.ask("mute.one.more.example").await;
    assert!(reply.starts_with("TEMP ") && reply.contains("too many lookups"), "{reply}");
    assert_eq!(bench.ask(NAME).await, secure("1"), "from the store");
    assert_eq!(bench.ask("ruled.example").await, "NOTFOUND", "by the operator's rule");
    let replies = futures_util::future::join_all(flood).await;
    let refused = replies.iter().filter(|reply| reply.as_ref().unwrap().contains("too many lookups"));
    assert_eq!(refused.count(), 5000 - 4096);
    assert_eq!(bench.answers.cache.len(), 0, "a refusal is not cached");
}

#[tokio::test]
async fn a_look_up_that_waits_for_the_store_ends_when_no_request_waits_and_no_place_is_left() {
    let bench = Bench::new().await;
    let hop = NextHop::domain(DomainName::parse(NAME).unwrap());
    let start = || match bench.answers.in_flight.join_or_start(NAME.into(), &hop, Purpose::Request, None) {
        JoinOrStart::Started(guard, pending) => (guard, pending),
        JoinOrStart::Joined(_) | JoinOrStart::Full => panic!("no lookup can be joined"),
    };
    let places = u32::try_from(ABANDONED_LOOKUPS).unwrap();
    let _places = bench.answers.abandoned_permits.clone().acquire_many_owned(places).await.unwrap();
    let (guard, pending) = start();
    assert_eq!(bench.answers.continue_in_place(&guard, None, std::future::ready(1)).await, Some(1));
    drop(pending);
    let stuck = std::future::pending::<()>();
    assert_eq!(bench.answers.continue_in_place(&guard, None, stuck).await, None);
    // The next request does not join it.
    let (_guard, _pending) = start();
}

#[tokio::test]
async fn a_look_up_that_continues_without_a_request_is_joined_by_the_next_one() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    let gate = bench.world.hold();
    bench.answers.set(impatient(50));
    for _ in 0..3 {
        assert!(bench.ask(NAME).await.starts_with("TEMP"));
    }
    bench.world.open(&gate);
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, secure("1"));
    assert_eq!(bench.world.queries(NAME), 1);
}

#[tokio::test]
async fn a_recheck_that_ends_without_an_outcome_is_repeated() {
    for ends_by_panic in [false, true] {
        let bench = Bench::new().await;
        bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
        assert_eq!(bench.ask(NAME).await, secure("1"));
        bench.clock.advance(400);
        let gate = bench.world.hold();
        assert_eq!(bench.ask(NAME).await, secure("1"));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.answers.in_flight.len(), 1);
        match ends_by_panic {
            true => bench.world.panic_once(),
            false => drop(bench.answers.in_flight.outdate(&DomainName::parse(NAME).unwrap(), || ())),
        }
        bench.world.open(&gate);
        bench.settle().await;
        bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
        assert_eq!(bench.ask(NAME).await, secure("1"), "the entry stays");
        bench.settle().await;
        assert_eq!(bench.ask(NAME).await, secure("2"), "by panic: {ends_by_panic}");
    }
}
