//! Calls of the operator whose client goes away: each runs to its end, so that memory and store never disagree.

use super::world::{Bench, PATIENCE, Published, secure};
use super::*;
use formats::policy_export::ExportedPolicy;
use formats::{Policy, PolicyId};
use futures_util::poll;
use jiff::Timestamp;

fn hop() -> NextHop {
    NextHop::domain(DomainName::parse(NAME).unwrap())
}

#[tokio::test]
async fn an_import_whose_client_goes_away_leaves_no_answer_by_the_replaced_policy() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "testing", 604_800));
    assert_eq!(bench.ask(NAME).await, "NOTFOUND");
    bench.world.publish(NAME, Published::nothing());
    let text = "version: STSv1\nmode: enforce\nmx: mx2.example\nmax_age: 604800\n";
    let policy = ExportedPolicy {
        domain: DomainName::parse(NAME).unwrap(),
        id: PolicyId::parse("2").unwrap(),
        policy: Policy::parse(text.as_bytes()).unwrap(),
        text: text.to_owned(),
        fetched_at: Timestamp::from_second(1_800_000_005).unwrap(),
    };
    bench.clock.advance(10);
    let policies = [policy];
    let mut import = Box::pin(bench.answers.import(&policies, false));
    assert!(poll!(&mut import).is_pending());
    drop(import);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bench.ask(NAME).await != secure("2") {
        assert!(tokio::time::Instant::now() < deadline, "the old answer stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_purge_whose_client_goes_away_is_done_to_its_end() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("1", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("1"));
    let hop = hop();
    let mut purge = Box::pin(bench.answers.purge(&hop));
    assert!(poll!(&mut purge).is_pending());
    drop(purge);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while bench.store.policy(hop.policy_domain()).await.unwrap().is_some() {
        assert!(tokio::time::Instant::now() < deadline, "the policy stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bench.settle().await;
    assert_eq!(bench.answers.cache.len(), 0);
}
