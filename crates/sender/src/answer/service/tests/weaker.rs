//! Cached answers that would be weaker than what is known by now, or than what a lookup would find.

use super::world::{Bench, Published, secure};
use super::*;

/// The next hops whose policy domain is [`NAME`], and which share its policy.
const NEXT_HOPS: [&str; 4] = [NAME, "example.org:587", "[example.org]", "[example.org]:587"];

#[tokio::test]
async fn val_19_a_new_policy_replaces_the_answers_of_all_next_hops_of_its_domain() {
    for mode in ["none", "testing", "enforce"] {
        for first in NEXT_HOPS {
            let bench = Bench::new().await;
            bench.world.publish(NAME, Published::policy("1", mode, 604_800));
            for key in NEXT_HOPS {
                bench.ask(key).await;
            }
            bench.clock.advance(86_400);
            bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
            bench.ask(first).await;
            bench.settle().await;
            bench.world.publish(NAME, Published::nothing());
            for key in NEXT_HOPS {
                assert_eq!(bench.ask(key).await, secure("2"), "{key} after {first}, {mode}");
            }
        }
    }
}

#[tokio::test]
async fn val_19_the_daily_refresh_replaces_the_answers_of_all_next_hops() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published { ttl: 604_800, ..Published::policy("1", "none", 604_800) });
    bench.clock.advance(60);
    bench.answers.ask(NAME).await;
    bench.clock.advance(86_390);
    assert_eq!(bench.ask("[example.org]").await, "NOTFOUND");
    bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
    bench.clock.advance(10);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 1);
    assert_eq!(bench.ask("[example.org]").await, secure("2"));
}

#[tokio::test]
async fn an_answer_that_requires_nothing_is_never_used_beyond_its_ttl() {
    for mode in ["none", "testing"] {
        for restarts in [false, true] {
            let mut bench = Bench::new().await;
            bench.world.publish(NAME, Published::policy("1", mode, 604_800));
            assert_eq!(bench.ask(NAME).await, "NOTFOUND");
            bench.world.publish(NAME, Published::policy("2", "enforce", 604_800));
            bench.clock.advance(300);
            if restarts {
                bench.restart();
            }
            assert_eq!(bench.ask(NAME).await, secure("2"), "{mode}, restarts: {restarts}");
        }
    }
}

#[tokio::test]
async fn val_19_a_failing_mx_look_up_keeps_no_answer_by_a_policy_that_is_replaced() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    let failing = |id| Published { mx: Err(DnsError::Timeout), ..Published::policy(id, "enforce", 604_800) };
    bench.world.publish(NAME, failing("1"));
    bench.clock.advance(86_400);
    bench.ask(NAME).await;
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, secure("1"), "fetched again, and the same");
    bench.world.publish(NAME, failing("2"));
    bench.clock.advance(86_400);
    bench.ask(NAME).await;
    bench.settle().await;
    assert!(bench.ask(NAME).await.starts_with("TEMP "), "neither the old policy nor nothing");
    bench.clock.advance(31);
    assert_eq!(bench.ask(NAME).await, secure("2"), "the policy in the store answers");
}

#[tokio::test]
async fn a_purge_removes_the_answers_of_all_next_hops() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    for key in NEXT_HOPS {
        assert_eq!(bench.ask(key).await, secure("1"), "{key}");
    }
    bench.world.publish(NAME, Published::nothing());
    assert!(bench.answers.purge(&NextHop::domain(DomainName::parse(NAME).unwrap())).await.unwrap());
    for key in NEXT_HOPS {
        assert_eq!(bench.ask(key).await, "NOTFOUND", "{key}");
    }
}
