//! Refresh and expiry in the background when the clock is set (VAL-22).

use super::world::{Bench, Published, secure};
use super::*;

const DAY: u32 = 86_400;
const HOUR: u32 = 3600;

async fn store_policy(bench: &Bench, domain: &str, max_age: u32) {
    bench.world.publish(domain, Published::policy("1", "enforce", max_age));
    bench.ask(domain).await;
    bench.settle().await;
}

/// The domains in the store, and the number of live policies in the metrics.
async fn stored(bench: &Bench) -> (Vec<String>, i64) {
    let all = bench.store.policies_after("", 100).await.unwrap();
    let live = bench.answers.metrics.policies().into_iter().map(|(_, count)| count).sum();
    (all.into_iter().map(|policy| policy.domain.to_string()).collect(), live)
}

#[tokio::test]
async fn val_22_after_a_step_forward_new_policies_are_refreshed_and_expire_in_time() {
    let bench = Bench::new().await;
    store_policy(&bench, "before.example", 7 * DAY).await;
    bench.clock.advance(60);
    bench.clock.set_by(i64::from(10 * DAY));
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 0, "the step ages nothing");
    store_policy(&bench, "after.example", 7 * DAY).await;
    bench.clock.advance(26 * HOUR);
    // Their domains are down, so they are not refreshed but expire.
    bench.world.publish("before.example", Published::nothing());
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 2);
    assert_eq!(bench.world.fetches("after.example"), 2, "refreshed a day after the fetch");
    bench.world.publish("after.example", Published::nothing());
    bench.clock.advance(6 * DAY);
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(stored(&bench).await, (vec!["after.example".to_owned()], 1), "7 days after its fetch");
    bench.clock.advance(2 * DAY);
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(stored(&bench).await, (vec![], 0), "7 days after the refresh");
}

#[tokio::test]
async fn val_22_the_overdue_metric_is_right_after_a_step_forward() {
    let bench = Bench::new().await;
    store_policy(&bench, "before.example", 30 * DAY).await;
    bench.clock.set_by(i64::from(300 * DAY));
    bench.clock.advance(60);
    store_policy(&bench, "after.example", 30 * DAY).await;
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(bench.answers.metrics.overdue.get(), 0);
    bench.clock.advance(3 * DAY);
    bench.answers.refresh_due().await.unwrap();
    let overdue = bench.answers.metrics.overdue.get();
    let (two_days, quarter) = (i64::from(2 * DAY), i64::from(DAY / 4));
    assert!((two_days..=two_days + quarter + 60).contains(&overdue), "{overdue}");
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(bench.answers.metrics.overdue.get(), 0, "both were refreshed");
}

#[tokio::test]
async fn val_22_each_policy_is_refreshed_daily_through_several_steps() {
    let bench = Bench::new().await;
    for (number, step) in [400_000, 7, 90_000_000, -300, 5_000, -100_000_000].into_iter().enumerate() {
        let domain = format!("d{number}.example");
        store_policy(&bench, &domain, 30 * DAY).await;
        bench.clock.advance(100);
        bench.clock.set_by(step);
        bench.answers.refresh_due().await.unwrap();
    }
    bench.clock.advance(25 * HOUR);
    bench.answers.refresh_due().await.unwrap();
    for number in 0..6 {
        let domain = format!("d{number}.example");
        assert!(bench.world.fetches(&domain) >= 2, "{domain}");
    }
    let fetched = |bench: &Bench| (0..6).map(|n| bench.world.fetches(&format!("d{n}.example"))).sum::<u32>();
    let before = fetched(&bench);
    for _ in 0..3 {
        assert_eq!(bench.answers.refresh_due().await.unwrap(), 0);
    }
    bench.clock.advance(25 * HOUR);
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(fetched(&bench), before + 6);
}

#[tokio::test]
async fn val_22_a_policy_from_the_future_is_refreshed_within_a_day_and_a_failure_delays_it() {
    for step in [2 * HOUR, 20 * HOUR, 300 * DAY].map(|back| -i64::from(back)) {
        let bench = Bench::new().await;
        store_policy(&bench, NAME, 30 * DAY).await;
        bench.clock.set_by(step);
        bench.world.publish(NAME, Published { record: Err(DnsError::Timeout), ..Published::nothing() });
        bench.answers.refresh_due().await.unwrap();
        assert_eq!(bench.answers.refresh_due().await.unwrap(), 0, "a failure delays the next refresh");
        bench.world.publish(NAME, Published::policy("1", "enforce", 30 * DAY));
        for _ in 0..27 {
            bench.clock.advance(HOUR);
            bench.answers.refresh_due().await.unwrap();
        }
        assert!(bench.world.fetches(NAME) >= 2, "{step}");
        let policy = bench.store.policies_after("", 1).await.unwrap().remove(0);
        assert!(policy.fetched_at <= bench.answers.discovery.now(), "{step}");
        assert_eq!(bench.answers.refresh_due().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn val_22_a_step_before_a_restart_does_not_stop_the_refresh() {
    let mut bench = Bench::new().await;
    store_policy(&bench, "before.example", 30 * DAY).await;
    bench.clock.set_by(i64::from(10 * DAY));
    store_policy(&bench, "after.example", 30 * DAY).await;
    bench.restart();
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 1, "ten days old by the calendar");
    bench.clock.advance(26 * HOUR);
    assert_eq!(bench.answers.refresh_due().await.unwrap(), 2);
    assert_eq!((bench.world.fetches("before.example"), bench.world.fetches("after.example")), (3, 2));
}

#[tokio::test]
async fn val_22_a_machine_that_starts_with_its_clock_ahead_keeps_its_policies_for_an_hour() {
    let mut bench = Bench::new().await;
    store_policy(&bench, NAME, 7 * DAY).await;
    bench.clock.advance(60);
    bench.world.publish(NAME, Published::nothing());
    for ahead in [100 * DAY, 0] {
        bench.clock.set_by(i64::from(ahead));
        bench.restart();
        bench.answers.refresh_due().await.unwrap();
        bench.clock.set_by(-i64::from(ahead));
        bench.clock.advance(60);
        assert_eq!(bench.ask(NAME).await, secure("1"), "the time service corrected the clock");
    }
    bench.clock.advance(8 * DAY);
    bench.restart();
    bench.answers.refresh_due().await.unwrap();
    bench.clock.advance(HOUR);
    assert_eq!(stored(&bench).await, (vec![NAME.to_owned()], 0), "expired, and not deleted yet");
    bench.answers.refresh_due().await.unwrap();
    assert_eq!(stored(&bench).await, (vec![], 0));
}

#[tokio::test]
async fn a_policy_with_max_age_0_is_not_kept_after_a_step_forward_and_a_smaller_one_back() {
    let bench = Bench::new().await;
    bench.world.publish("zero.example", Published::policy("1", "enforce", 0));
    bench.clock.advance(60);
    for step in [0, 118_211, -5] {
        bench.clock.set_by(step);
        assert_eq!(bench.ask("zero.example").await, secure("1"), "after a step of {step} s");
    }
    bench.world.publish("zero.example", Published::nothing());
    assert_eq!(bench.ask("zero.example").await, "NOTFOUND");
}
