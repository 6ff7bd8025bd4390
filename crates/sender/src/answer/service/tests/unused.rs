//! Policies that no mail server asks about any more.

use super::world::{Bench, PATIENCE, Published, secure};
use super::*;

const DAY: u32 = 86_400;

/// Lets days pass, with a round of refreshes on each.
async fn pass_days(bench: &Bench, days: u32) {
    for _ in 0..days {
        bench.clock.advance(DAY);
        bench.answers.refresh_due().await.unwrap();
    }
}

async fn bench(unused_days: Option<u32>) -> Bench {
    let bench = Bench::new().await;
    let unused = unused_days.map(|days| Duration::from_secs(u64::from(days * DAY)));
    bench.answers.set(Settings { unused, ..Settings::default() });
    bench.world.publish(NAME, Published::policy("1", "enforce", 20 * DAY));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench
}

#[tokio::test]
async fn pol_13_an_unused_policy_is_kept_to_its_end_and_refreshed_again_once_asked_for() {
    let bench = bench(Some(10)).await;
    pass_days(&bench, 10).await;
    let fetches = bench.world.fetches(NAME);
    assert!(fetches >= 10, "{fetches}");
    pass_days(&bench, 5).await;
    assert_eq!(bench.world.fetches(NAME), fetches, "not used for more than ten days");
    assert_eq!(bench.answers.metrics.overdue.get(), 0, "a refresh that is not wanted is not late");
    assert_eq!(bench.ask(NAME).await, secure("1"), "in force");
    bench.settle().await;
    pass_days(&bench, 10).await;
    assert!(bench.world.fetches(NAME) >= fetches + 9, "used again");
    pass_days(&bench, 18).await;
    assert_eq!(bench.store.policies_after("", 1).await.unwrap().len(), 1, "not given up before its end");
    pass_days(&bench, 4).await;
    assert_eq!(bench.store.policies_after("", 1).await.unwrap().len(), 0);
}

#[tokio::test]
async fn an_answer_from_the_store_is_a_use_and_is_recorded_once_a_day() {
    let mut bench = bench(Some(10)).await;
    pass_days(&bench, 9).await;
    bench.restart();
    assert_eq!(bench.ask(NAME).await, secure("1"));
    bench.settle().await;
    let used_at = async |bench: &Bench| bench.store.policies_after("", 1).await.unwrap().remove(0).used_at;
    let first = bench.answers.discovery.now();
    // The use is stored after the answer.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while used_at(&bench).await != first {
        assert!(tokio::time::Instant::now() < deadline, "the use is not stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.clock.advance(3600);
    bench.restart();
    bench.ask(NAME).await;
    // Time in which a use would be stored.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(used_at(&bench).await, first, "less than a day later");
}

#[tokio::test]
async fn without_a_limit_every_policy_is_refreshed() {
    let bench = bench(None).await;
    pass_days(&bench, 200).await;
    assert!(bench.world.fetches(NAME) >= 200);
}

#[tokio::test]
async fn val_22_a_step_forward_does_not_make_a_policy_unused() {
    let bench = bench(Some(10)).await;
    bench.clock.advance(60);
    bench.clock.set_by(i64::from(1000 * DAY));
    pass_days(&bench, 5).await;
    assert!(bench.world.fetches(NAME) >= 5, "{}", bench.world.fetches(NAME));
}
