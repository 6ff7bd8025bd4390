//! Senders with signed reports that are as large as can be.

use super::*;
use crate::query::built;
use crate::reports::tests::{name, new, text};
use crate::reports::{NewReport, OTHER_CAUSES};
use crate::scratch;
use formats::limits::SENDER_CAUSES;
use formats::report::FailureDetail;
use std::collections::BTreeSet;

/// A signed report with so many failures of one session each, at a host of its own each.
fn many_causes(sender: &str, id: &str, causes: usize) -> NewReport {
    let mut report = new(sender, Trust::Verified, &text("a.example", id, 1, 1));
    let policy = &mut report.report.policies[0];
    let detail = policy.details[0].clone();
    policy.details = (0..causes)
        .map(|number| FailureDetail {
            receiving_mx_hostname: Some(format!("mx{number}.a.example")),
            ..detail.clone()
        })
        .collect();
    policy.failed = causes as u64;
    report
}

async fn count_of(store: &Store, what: &str) -> i64 {
    let (found,): (i64,) = built(format!("SELECT count(*) FROM {what}")).fetch_one(store).await.unwrap();
    found
}

#[tokio::test]
async fn a_report_of_many_causes_is_stored_and_read_with_a_bounded_number_of_them() {
    let (_dir, store) = scratch().await;
    let causes = REPORT_CAUSES * 8;
    let flood: Vec<NewReport> =
        (0..20).map(|number| many_causes("evil.example", &number.to_string(), causes)).collect();
    store.keep_reports(&flood).await.unwrap();
    store.keep_report(&new("big.example", Trust::Verified, &text("a.example", "1", 5, 3))).await.unwrap();
    assert_eq!(count_of(&store, "failure").await, 20 * (REPORT_CAUSES as i64 + 1) + 1);
    // The hosts of the largest report, and some other names.
    assert!(count_of(&store, "name").await < REPORT_CAUSES as i64 + 20);
    let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(about.len(), 21);
    for report in &about {
        let [outcome] = report.outcomes.as_slice() else { panic!("{report:?}") };
        let listed: u64 = outcome.failures.iter().map(|failure| failure.sessions).sum();
        // No failure is lost.
        assert_eq!(listed + outcome.unlisted, outcome.failed);
        match report.submitter.as_str() {
            "big.example" => assert_eq!((outcome.failures.len(), outcome.unlisted), (1, 0)),
            _ => assert_eq!(outcome.failures.len(), REPORT_CAUSES),
        }
    }
    assert!(
        about
            .iter()
            .flat_map(|report| &report.outcomes[0].failures)
            .all(|one| one.result_type != OTHER_CAUSES)
    );
    // Its numbers go with it.
    let ids: Vec<i64> = (1..=20).collect();
    assert_eq!(store.drop_reports(&ids).await.unwrap(), 20);
    let days = store.days_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((days[0].successful, days[0].failed, days[0].tainted), (5, 3, 1));
}

#[tokio::test]
async fn causes_are_limited_for_each_domain_of_a_report() {
    let (_dir, store) = scratch().await;
    let mut report = many_causes("big.example", "1", 1);
    let policy = report.report.policies[0].clone();
    let domains = REPORT_CAUSES + 50;
    report.report.policies = (0..domains)
        .map(|number| formats::report::PolicyReport {
            policy_domain: Some(name(&format!("d{number}.example"))),
            ..policy.clone()
        })
        .collect();
    store.keep_report(&report).await.unwrap();
    assert_eq!(count_of(&store, "failure").await, domains as i64);
    let last = name(&format!("d{}.example", domains - 1));
    let about = store.reports_about(&last, Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((about[0].outcomes[0].failures.len(), about[0].outcomes[0].unlisted), (1, 0));
}

/// Earlier versions stored a row for each cause.
#[tokio::test]
async fn rows_of_more_causes_are_read_with_a_bound() {
    let (_dir, store) = scratch().await;
    store.keep_report(&new("evil.example", Trust::Verified, &text("a.example", "1", 5, 3))).await.unwrap();
    for number in 0..REPORT_CAUSES * 2 {
        let host = format!("INSERT INTO name (text) VALUES ('mx{number}.evil.example')");
        built(host).execute(&store).await.unwrap();
    }
    let rows = "INSERT INTO failure (tenant, domain, day, report, kind, result_type, host, address, sessions, entry)
        SELECT failure.tenant, failure.domain, failure.day, failure.report, failure.kind, failure.result_type, name.id, '', 2, failure.entry
        FROM failure, name WHERE name.text LIKE 'mx%.evil.example'";
    built(rows.to_owned()).execute(&store).await.unwrap();
    let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let [outcome] = about[0].outcomes.as_slice() else { panic!("{about:?}") };
    let listed: u64 = outcome.failures.iter().map(|failure| failure.sessions).sum();
    assert_eq!(outcome.failures.len(), REPORT_CAUSES);
    assert_eq!(listed + outcome.unlisted, 3 + 4 * REPORT_CAUSES as u64);
    assert!(outcome.failures.iter().any(|one| one.sessions == 3), "the largest is listed");
}

#[tokio::test]
async fn the_results_of_one_sender_are_limited_and_those_of_others_are_all_there() {
    let (_dir, store) = scratch().await;
    let policies = SENDER_RESULTS / 4;
    let mut flood: Vec<NewReport> = Vec::new();
    for number in 0..6 {
        // All names of an owner are one sender.
        let submitter = format!("m{number}.evil.example");
        let mut report = new(&submitter, Trust::Verified, &text("a.example", &number.to_string(), 1, 0));
        report.source = "evil.example".into();
        report.report.policies = vec![report.report.policies[0].clone(); policies];
        flood.push(report);
    }
    // The oldest report has the only failure.
    flood[0].report.policies[7].failed = 2;
    let day = jiff::SignedDuration::from_hours(24);
    for new in &mut flood[1..] {
        let range = &mut new.report.date_range;
        (range.start, range.end) = (range.start + day, range.end + day);
    }
    for sender in ["one.example", "two.example"] {
        flood.push(new(sender, Trust::Verified, &text("a.example", "1", 5, 0)));
    }
    store.keep_reports(&flood).await.unwrap();
    let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let of_evil = about.iter().filter(|report| report.submitter.ends_with("evil.example"));
    let outcomes: Vec<&PolicyOutcome> = of_evil.flat_map(|report| &report.outcomes).collect();
    assert_eq!(outcomes.len(), SENDER_RESULTS);
    assert_eq!(outcomes.iter().map(|outcome| outcome.failed).sum::<u64>(), 2);
    let others: BTreeSet<&str> =
        about.iter().map(|report| report.submitter.as_str()).filter(|name| !name.contains("evil")).collect();
    assert_eq!(others, BTreeSet::from(["one.example", "two.example"]));
}

#[tokio::test]
async fn no_sender_hides_causes_that_others_report() {
    let (_dir, store) = scratch().await;
    let mut flood: Vec<NewReport> = (0..30)
        .map(|number| {
            let mut report = many_causes(&format!("m{number}.evil.example"), "1", 300);
            report.source = "evil.example".into();
            let details = &mut report.report.policies[0].details;
            details.iter_mut().for_each(|detail| {
                detail.failed_session_count = 1 << 40;
                let host = detail.receiving_mx_hostname.as_mut().unwrap();
                host.push_str(&number.to_string());
            });
            report
        })
        .collect();
    flood.push(new("big.example", Trust::Verified, &text("a.example", "1", 5, 3)));
    flood.push(new("small.example", Trust::Verified, &text("a.example", "1", 5, 4)));
    store.keep_reports(&flood).await.unwrap();
    let (domain, since) = (name("a.example"), Timestamp::UNIX_EPOCH);
    let causes = store.causes_of(&domain, since).await.unwrap();
    let genuine = causes.iter().find(|cause| cause.host == "mx1.a.example").unwrap();
    assert_eq!((genuine.sessions, genuine.senders), (7, 2));
    assert_eq!(causes.len(), SENDER_CAUSES + 1);
    assert!(causes.iter().filter(|cause| cause.host != "mx1.a.example").all(|cause| cause.senders == 1));
    assert!(causes.is_sorted_by_key(|cause| std::cmp::Reverse(cause.sessions)));
    let groups = store.failure_groups(&domain, since).await.unwrap();
    let genuine = groups.iter().find(|group| group.host == "mx1.a.example").unwrap();
    assert_eq!((genuine.sessions, genuine.senders, groups.len()), (7, 2, SENDER_CAUSES + 1));
}
