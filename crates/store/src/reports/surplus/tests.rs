use super::*;
use crate::reports::tests::{name, new, text};
use crate::reports::{NewReport, Trust};
use crate::scratch;
use jiff::SignedDuration;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A signed report of a stranger about so many domains that are not ours, which fails on so many days.
fn foreign(number: usize, domains: usize, days: i64) -> NewReport {
    let mut report = new(
        &format!("m{number}.evil.example"),
        Trust::Verified,
        &text("a.example", &number.to_string(), 1, 1),
    );
    report.source = "evil.example".into();
    let range = &mut report.report.date_range;
    range.start -= DAY * i32::try_from(days - 1).unwrap();
    let policy = report.report.policies[0].clone();
    report.report.policies = (0..domains)
        .map(|domain| formats::report::PolicyReport {
            policy_domain: Some(name(&format!("d{number}-{domain}.example"))),
            ..policy.clone()
        })
        .collect();
    report
}

async fn number(store: &Store, table: &str) -> u64 {
    let text = format!("SELECT count(*) FROM {table}");
    let (found,): (i64,) = crate::query::built(text).fetch_one(store).await.unwrap();
    count(found)
}

fn limits(others: u64, submitters: u64) -> SumLimits {
    SumLimits { others, submitters, before: Timestamp::UNIX_EPOCH, others_before: Timestamp::UNIX_EPOCH }
}

#[tokio::test]
async fn a_signed_flood_about_other_domains_leaves_a_bounded_number_of_sums_names_and_rows() {
    let (_dir, store) = scratch().await;
    let own = name("a.example");
    let ours = |number: usize| {
        let mut report = new("big.example", Trust::Verified, &text("a.example", &number.to_string(), 5, 1));
        let range = &mut report.report.date_range;
        let before = DAY * i32::try_from(number).unwrap();
        (range.start, range.end) = (range.start - before, range.end - before);
        report
    };
    let own_reports: Vec<NewReport> = (0..50).map(ours).collect();
    store.keep_reports(&own_reports).await.unwrap();
    let before = store.days_of(&own, Timestamp::UNIX_EPOCH).await.unwrap();
    let mut sizes = Vec::new();
    for round in 0..6 {
        let flood: Vec<NewReport> = (0..40).map(|at| foreign(round * 40 + at, 50, 10)).collect();
        store.keep_reports(&flood).await.unwrap();
        // 20,000 sums of other domains, and 40 of submitters.
        store.shrink_sums(&[&own], &limits(2000, 60)).await.unwrap();
        assert!(number(&store, "submitter_day").await <= 60);
        assert!(number(&store, "domain_day").await <= 2000 + 50);
        let ids: Vec<i64> =
            store.reports_to_drop(&crate::reports::DropSelection::default(), 50, 1000).await.unwrap();
        assert_eq!(ids.len(), 40);
        // They expire, as by their age or for lack of space.
        while store.shrink_evidence(1).await.unwrap() > 0 {}
        while store.shrink_expired(30).await.unwrap() > 0 {}
        assert!(number(&store, "report").await <= 30);
        while store.forget_texts().await.unwrap() > 0 {}
        sizes.push(number(&store, "name").await);
    }
    assert!(sizes.iter().all(|size| *size <= 2000 + 60 + 100), "{sizes:?}");
    assert_eq!(store.days_of(&own, Timestamp::UNIX_EPOCH).await.unwrap(), before);
    let of_own = store.days_of_each(&[own.as_str(), "nothing.example"], Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((of_own.len(), &of_own["a.example"]), (1, &before));
}

#[tokio::test]
async fn old_sums_are_deleted_those_of_other_domains_first() {
    let (_dir, store) = scratch().await;
    let (own, stored) = (name("a.example"), name("stored.example"));
    store.put_domain(&stored, &"x").await.unwrap();
    for domain in ["a.example", "stored.example", "other.example"] {
        store.keep_report(&new("big.example", Trust::Verified, &text(domain, "1", 5, 0))).await.unwrap();
    }
    let there = async || {
        let mut found = Vec::new();
        for domain in ["a.example", "stored.example", "other.example"] {
            found.push(store.days_of(&name(domain), Timestamp::UNIX_EPOCH).await.unwrap().len());
        }
        found
    };
    let unlimited = limits(u64::MAX, u64::MAX);
    assert_eq!(store.shrink_sums(&[&own], &unlimited).await.unwrap(), 0);
    let later: Timestamp = "2026-12-23T00:00:00Z".parse().unwrap();
    assert_eq!(
        store.shrink_sums(&[&own], &SumLimits { others_before: later, ..unlimited }).await.unwrap(),
        1
    );
    assert_eq!(there().await, [1, 1, 0]);
    // Two domains and one submitter.
    assert_eq!(store.shrink_sums(&[&own], &SumLimits { before: later, ..unlimited }).await.unwrap(), 3);
    assert_eq!(there().await, [0, 0, 0]);
}

#[tokio::test]
async fn sums_of_the_oldest_days_go_first_and_of_one_day_those_of_domains_that_came_last() {
    let (_dir, store) = scratch().await;
    store.keep_reports(&[foreign(1, 1, 10), foreign(2, 1, 10)]).await.unwrap();
    store.shrink_sums(&[], &limits(10, u64::MAX)).await.unwrap();
    let days = async |domain| store.days_of(&name(domain), Timestamp::UNIX_EPOCH).await.unwrap().len();
    // A tenth less than allowed: four whole days, and one of the older domain.
    assert_eq!((days("d1-0.example").await, days("d2-0.example").await), (5, 4));
}

#[tokio::test]
async fn rows_of_expired_reports_of_the_source_with_most_are_forgotten_first() {
    let (_dir, store) = scratch().await;
    let flood: Vec<NewReport> = (0..250).map(|number| foreign(number, 1, 1)).collect();
    store.keep_reports(&[new("big.example", Trust::Verified, &text("a.example", "1", 5, 0))]).await.unwrap();
    store.keep_reports(&flood).await.unwrap();
    while store.shrink_evidence(0).await.unwrap() > 0 {}
    assert_eq!(store.shrink_expired(251).await.unwrap(), 0);
    assert_eq!(store.shrink_expired(100).await.unwrap(), 161);
    assert_eq!(store.shrink_expired(100).await.unwrap(), 0);
    let again = store.keep_report(&new("big.example", Trust::Verified, &text("a.example", "1", 5, 0))).await;
    assert_eq!(again.unwrap(), crate::reports::KeepOutcome::Duplicate);
}

#[tokio::test]
async fn long_texts_count_for_the_quota_and_are_not_kept_of_expired_reports() {
    let (_dir, store) = scratch().await;
    let size = async |id: &str| {
        let report = new("evil.example", Trust::Verified, &text("a.example", id, 1, 0));
        store.keep_report(&report).await.unwrap();
        let text = "SELECT size - length(packed) FROM report ORDER BY id DESC LIMIT 1".to_owned();
        let (size,): (i64,) = crate::query::built(text).fetch_one(&store).await.unwrap();
        size
    };
    let short = size("1").await;
    assert!(size(&"x".repeat(4000)).await > short + 4000);
    while store.shrink_evidence(0).await.unwrap() > 0 {}
    assert_eq!(number(&store, "report").await, 1);
}
