//! Policies of one machine are imported on another: what takes effect, and what is refused.

use super::*;
use crate::answer::transfer::ImportOutcome::{self, Expired, FromTheFuture, Imported, NotNewer};
use formats::policy_export::ExportedPolicy;
use formats::{Policy, PolicyId};
use jiff::Timestamp;
use std::collections::BTreeMap;

fn policy(domain: &str, id: &str, fetched_at: i64, max_age: u32) -> ExportedPolicy {
    let text = format!("version: STSv1\nmode: enforce\nmx: mx{id}.example\nmax_age: {max_age}\n");
    ExportedPolicy {
        domain: DomainName::parse(domain).unwrap(),
        id: PolicyId::parse(id).unwrap(),
        policy: Policy::parse(text.as_bytes()).unwrap(),
        text,
        fetched_at: Timestamp::from_second(fetched_at).unwrap(),
    }
}

async fn import(bench: &Bench, policies: &[ExportedPolicy]) -> Vec<ImportOutcome> {
    let tried = bench.answers.import(policies, true).await.unwrap();
    let done = bench.answers.import(policies, false).await.unwrap();
    assert_eq!(tried, done, "a dry run has the same outcome");
    done
}

/// The time of the simulated clock at its start.
const NOW: i64 = 1_800_000_000;

#[tokio::test]
async fn a_second_machine_knows_the_policies_of_the_first_at_first_contact() {
    let first = Bench::new().await;
    for number in 0..25 {
        let name = format!("d{number}.example");
        first.world.publish(&name, Published::policy("1", "enforce", 604_800));
        first.ask(&name).await;
    }
    let (mut lines, mut after) = (Vec::new(), String::new());
    loop {
        let page = first.answers.export(&after, 10).await.unwrap();
        lines.extend(page.policies.iter().map(ExportedPolicy::to_line));
        match page.next {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    assert_eq!(lines.len(), 25);
    let parsed: Vec<_> = lines.iter().map(|line| ExportedPolicy::parse(line.as_bytes()).unwrap()).collect();

    // On the second machine an attacker suppresses every record.
    let second = Bench::new().await;
    second
        .answers
        .set_with_maps(Settings::default(), BTreeMap::from([("m".to_owned(), Settings::default())]));
    for key in ["d7.example", "d7.example:587", "[d7.example]"] {
        assert_eq!(second.ask(key).await, "NOTFOUND");
        assert_eq!(second.answers.ask_in(Some("m"), key).await.text(false), "");
    }
    assert_eq!(second.ask("other.example").await, "NOTFOUND");
    second.settle().await;
    assert_eq!(import(&second, &parsed).await, [Imported; 25]);
    for key in ["d7.example", "d7.example:587", "[d7.example]", "d8.example"] {
        assert_eq!(second.ask(key).await, secure("1"), "{key}");
        assert_eq!(second.answers.ask_in(Some("m"), key).await.level().as_deref(), Some("secure"), "{key}");
    }
    assert!(second.answers.cache.contains("other.example"), "other answers stay");
    let exported = second.answers.export("", 100).await.unwrap();
    let again: Vec<String> = exported.policies.iter().map(ExportedPolicy::to_line).collect();
    assert_eq!((again, exported.next), (lines, None));
    assert_eq!(import(&second, &parsed).await, [NotNewer; 25]);
    second.clock.advance(604_800);
    assert_eq!(second.ask("d9.example").await, "NOTFOUND", "max_age counts from the fetch");
    assert_eq!(second.answers.export("", 100).await.unwrap().policies, []);
}

#[tokio::test]
async fn an_import_prolongs_nothing_and_replaces_nothing_newer() {
    let bench = Bench::new().await;
    bench.world.publish(NAME, Published::policy("5", "enforce", 604_800));
    assert_eq!(bench.ask(NAME).await, secure("5"));
    let outcomes = import(
        &bench,
        &[
            policy(NAME, "4", NOW - 1, 604_800),
            policy(NAME, "4", NOW, 604_800),
            policy("expired.example", "1", NOW - 1000, 1000),
            policy("zero.example", "1", NOW, 0),
            policy("old.example", "1", -60_000_000_000, 31_557_600),
            policy("future.example", "1", NOW + 301, 604_800),
            policy("skewed.example", "1", NOW + 300, 1000),
            policy("twice.example", "1", NOW - 20, 604_800),
            policy("twice.example", "2", NOW - 10, 604_800),
            policy("aged.example", "1", NOW - 999, 1000),
        ],
    )
    .await;
    let expected = [
        NotNewer,
        NotNewer,
        Expired,
        Expired,
        Expired,
        FromTheFuture,
        Imported,
        NotNewer,
        Imported,
        Imported,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(bench.ask(NAME).await, secure("5"));
    assert_eq!(bench.ask("twice.example").await, secure("2"));
    assert_eq!(bench.ask("aged.example").await, secure("1"));
    assert_eq!(bench.ask("future.example").await, "NOTFOUND");
    bench.clock.advance(1);
    assert_eq!(bench.ask("aged.example").await, "NOTFOUND");
    bench.clock.advance(998);
    assert_eq!(bench.ask("skewed.example").await, secure("1"));
    bench.clock.advance(1);
    assert_eq!(bench.ask("skewed.example").await, "NOTFOUND", "it counts as fetched at the import");
}

#[tokio::test]
async fn a_look_up_in_flight_does_not_hide_the_imported_policy() {
    let bench = Bench::new().await;
    let gate = bench.world.hold();
    let answers = bench.answers.clone();
    let request = tokio::spawn(async move { answers.ask(NAME).await.reply_status(false) });
    while bench.answers.metrics.looking.get() == 0 {
        tokio::task::yield_now().await;
    }
    // The lookup has read the store by now, or reads the imported policy.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(import(&bench, &[policy(NAME, "1", NOW - 5, 604_800)]).await, [Imported]);
    bench.world.open(&gate);
    request.await.unwrap();
    bench.settle().await;
    assert_eq!(bench.ask(NAME).await, secure("1"));
}
