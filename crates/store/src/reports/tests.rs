use super::*;
use crate::Store;
use crate::query::built;
use formats::DomainName;

fn text(domain: &str, id: &str, ok: u64, failed: u64) -> String {
    let details = match failed {
        0 => String::new(),
        _ => format!(
            r#"{{"result-type":"certificate-expired","receiving-mx-hostname":"mx1.{domain}","receiving-ip":"192.0.2.1","failed-session-count":{failed}}}"#
        ),
    };
    format!(
        r#"{{"organization-name":"O","date-range":{{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{id}","policies":[{{"policy":{{"policy-type":"sts","policy-string":[],"policy-domain":"{domain}","mx-host":[]}},"summary":{{"total-successful-session-count":{ok},"total-failure-session-count":{failed}}},"failure-details":[{details}]}}]}}"#
    )
}

fn new(submitter: &str, trust: Trust, text: &str) -> NewReport {
    NewReport {
        submitter: submitter.into(),
        signer: trust.counts().then(|| submitter.into()),
        trust,
        arrival: Arrival::Import,
        received_at: Timestamp::UNIX_EPOCH,
        source: submitter.into(),
        report: Report::read(text.as_bytes()).unwrap().report,
        warnings: 2,
        packed: text.as_bytes().to_vec(),
    }
}

async fn keep(store: &Store, submitter: &str, trust: Trust, text: &str) -> KeepOutcome {
    store.keep_report(&new(submitter, trust, text)).await.unwrap()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

#[tokio::test]
async fn rec_06_the_same_report_counts_once() {
    let (_dir, store) = crate::scratch().await;
    let verified = Trust::Verified;
    assert_eq!(keep(&store, "big.example", verified, &text("a.example", "1", 1, 0)).await, KeepOutcome::New);
    assert_eq!(
        keep(&store, "big.example", verified, &text("a.example", "1", 1, 0)).await,
        KeepOutcome::Duplicate
    );
    // One report under two ids, as some senders do.
    assert_eq!(
        keep(&store, "big.example", verified, &text("a.example", "1+", 1, 0)).await,
        KeepOutcome::Duplicate
    );
    // A different content under the same identity.
    assert_eq!(
        keep(&store, "big.example", verified, &text("a.example", "1", 9, 0)).await,
        KeepOutcome::Duplicate
    );
    assert_eq!(keep(&store, "big.example", verified, &text("b.example", "1", 1, 0)).await, KeepOutcome::New);
    assert_eq!(keep(&store, "tiny.example", verified, &text("a.example", "2", 1, 0)).await, KeepOutcome::New);
    let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(
        about.iter().map(|r| r.submitter.as_str()).collect::<Vec<_>>(),
        ["big.example", "tiny.example"]
    );
    assert_eq!(about[0].outcomes[0].successful, 1);
    let later = "2026-11-24T00:00:00Z".parse().unwrap();
    assert_eq!(store.reports_about(&name("a.example"), later).await.unwrap(), []);
}

#[tokio::test]
async fn rec_06_many_at_once_count_as_one_after_the_other() {
    let (_dir, store) = crate::scratch().await;
    let all: Vec<NewReport> = (0..1500)
        .map(|n| {
            new("big.example", Trust::Verified, &text(&format!("d{}.example", n % 700), "1", n % 700, 0))
        })
        .collect();
    let kept = store.keep_reports(&all).await.unwrap();
    assert_eq!(kept.iter().filter(|kept| **kept == KeepOutcome::New).count(), 700);
    assert_eq!(kept[700..], vec![KeepOutcome::Duplicate; 800]);
    assert_eq!(store.keep_reports(&all).await.unwrap(), vec![KeepOutcome::Duplicate; 1500]);
    assert_eq!(store.report_count().await.unwrap(), 700);
}

#[tokio::test]
async fn rec_01_what_is_believed_less_never_stands_in_the_way_of_what_is_believed_more() {
    let (_dir, store) = crate::scratch().await;
    let forged = text("a.example", "1", 0, 100);
    let genuine = text("a.example", "1", 50, 0);
    assert_eq!(keep(&store, "big.example", Trust::Unverified, &forged).await, KeepOutcome::New);
    assert_eq!(keep(&store, "big.example", Trust::Verified, &genuine).await, KeepOutcome::New);
    assert_eq!(keep(&store, "big.example", Trust::Failed, &forged).await, KeepOutcome::Duplicate);
    let days = store.days_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((days[0].successful, days[0].failed, days[0].tainted, days[0].unproved), (50, 0, 0, 100));
}

#[tokio::test]
async fn an_unsigned_report_counts_once_a_signed_copy_arrives() {
    let (_dir, store) = crate::scratch().await;
    let report = text("a.example", "1", 7, 3);
    assert_eq!(keep(&store, "mail.big.example", Trust::Unverified, &report).await, KeepOutcome::New);
    assert_eq!(keep(&store, "big.example", Trust::Verified, &report).await, KeepOutcome::Confirmed);
    let days = store.days_of_all(Timestamp::UNIX_EPOCH).await.unwrap();
    let expected = DaySum {
        day: "2026-11-23T00:00:00Z".parse().unwrap(),
        successful: 7,
        failed: 3,
        sts_sessions: 10,
        tainted: 1,
        unproved: 0,
    };
    assert_eq!(days["a.example"], [expected]);
    let senders = store.senders(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((senders.len(), senders[0].submitter.as_str(), senders[0].counts), (1, "big.example", true));
    let listed = store.reports(&Search { most: 10, ..Search::default() }).await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].submitter.as_str(), listed[0].trust),
        (1, "big.example", Trust::Verified)
    );
}

#[tokio::test]
async fn copies_that_arrive_at_the_same_time_count_once() {
    let (_dir, store) = crate::scratch().await;
    let all: Vec<NewReport> = (0..20)
        .map(|number| {
            new("big.example", Trust::Verified, &text(&format!("d{number}.example"), "1", number, 0))
        })
        .collect();
    let imports: Vec<_> = (0..8)
        .map(|_| {
            let (store, all) = (store.clone(), all.clone());
            tokio::spawn(async move { store.keep_reports(&all).await.unwrap() })
        })
        .collect();
    let mut fresh = 0;
    for import in imports {
        fresh += import.await.unwrap().iter().filter(|kept| **kept == KeepOutcome::New).count();
    }
    assert_eq!((fresh, store.report_count().await.unwrap()), (20, 20));
    let days = store.days_of(&name("d7.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((days.len(), days[0].successful), (1, 7));
}

#[tokio::test]
async fn nul_characters_in_a_report_are_replaced_where_its_texts_are_stored() {
    let (_dir, store) = crate::scratch().await;
    let body = text("a.example", "1", 1, 2).replace("mx1.", r"mx\u0000.").replace(r#""O""#, r#""O\u0000""#);
    assert!(body.contains(r"O\u0000"));
    for id in ["1", "2"] {
        let body = body.replace(r#""1""#, &format!("\"{id}\\u0000\"")).replace(":2", &format!(":{id}"));
        assert_eq!(keep(&store, "big.example", Trust::Verified, &body).await, KeepOutcome::New);
    }
    let listed = store.reports(&Search { most: 10, ..Search::default() }).await.unwrap();
    assert_eq!(
        listed.iter().map(|report| report.organization.as_str()).collect::<Vec<_>>(),
        ["O\u{fffd}"; 2]
    );
    assert_eq!(store.causes_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap().len(), 1);
}

#[tokio::test]
async fn causes_and_senders_are_summed() {
    let (_dir, store) = crate::scratch().await;
    keep(&store, "big.example", Trust::Verified, &text("a.example", "1", 10, 2)).await;
    keep(&store, "small.example", Trust::Verified, &text("a.example", "2", 1, 3)).await;
    keep(&store, "forger.example", Trust::Failed, &text("a.example", "3", 0, 99)).await;
    let causes = store.causes_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let found: Vec<_> = causes.iter().map(|c| (c.sessions, c.senders, c.counts, c.host.as_str())).collect();
    assert_eq!(found, [(5, 2, true, "mx1.a.example"), (99, 1, false, "mx1.a.example")]);
    let senders = store.senders(Timestamp::UNIX_EPOCH).await.unwrap();
    let found: Vec<_> = senders.iter().map(|s| (s.submitter.as_str(), s.counts, s.failed)).collect();
    assert_eq!(found, [("forger.example", false, 99), ("big.example", true, 2), ("small.example", true, 3)]);
    assert_eq!(store.senders_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap(), senders);
    let sums = |trends: Vec<Trend>| -> Vec<(String, u64, u64)> {
        assert!(trends.iter().all(|trend| trend.day.to_string() == "2026-11-23T00:00:00Z"), "{trends:?}");
        trends.into_iter().map(|trend| (trend.name, trend.successful, trend.failed)).collect()
    };
    let expected = [("big.example".to_owned(), 10, 2), ("small.example".to_owned(), 1, 3)];
    let about = store.senders_by_day(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(sums(about), expected);
    assert_eq!(sums(store.all_senders_by_day(Timestamp::UNIX_EPOCH).await.unwrap()), expected);
    let hosts = store.hosts_by_day(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(sums(hosts), [("mx1.a.example".to_owned(), 0, 5)]);
    let later = "2026-11-25T00:00:00Z".parse().unwrap();
    assert_eq!(store.senders_by_day(&name("a.example"), later).await.unwrap(), []);
}

#[tokio::test]
async fn reports_are_found_and_read_unchanged() {
    let (_dir, store) = crate::scratch().await;
    let body = text("a.example", "1", 10, 2);
    keep(&store, "big.example", Trust::Verified, &body).await;
    keep(&store, "big.example", Trust::Verified, &text("b.example", "2", 10, 0)).await;
    let find = async |search: Search| store.reports(&Search { most: 10, ..search }).await.unwrap().len();
    assert_eq!(find(Search::default()).await, 2);
    assert_eq!(find(Search { failed: true, ..Search::default() }).await, 1);
    assert_eq!(find(Search { domain: Some("b.example".into()), ..Search::default() }).await, 1);
    assert_eq!(find(Search { submitter: Some("x.example".into()), ..Search::default() }).await, 0);
    assert_eq!(find(Search { before: Some(2), ..Search::default() }).await, 1);
    let one = store.report(1).await.unwrap().unwrap();
    assert_eq!((one.packed.as_slice(), one.signer.as_deref()), (body.as_bytes(), Some("big.example")));
    assert_eq!((one.listed.domains.as_slice(), one.listed.warnings), (&["a.example".to_owned()][..], 2));
    assert_eq!(store.report(99).await.unwrap(), None);
}

/// An item for the quarantine.
fn unreadable<'q>(second: i64, source: &'q str, raw: &'q [u8]) -> NewQuarantined<'q> {
    NewQuarantined {
        received_at: Timestamp::from_second(second).unwrap(),
        arrival: Arrival::Smtp,
        source,
        is_trusted: second == 7,
        reason: "line 1: expected value",
        raw,
    }
}

const QUOTA: Quota = Quota { bytes: 4000, items: 100 };

#[tokio::test]
async fn unreadable_reports_are_quarantined_once_and_released() {
    let (_dir, store) = crate::scratch().await;
    for _ in 0..2 {
        store.quarantine(&unreadable(7, "192.0.2.0/24", b"x"), &QUOTA).await.unwrap();
    }
    let items = store.quarantined(0, 10).await.unwrap();
    assert_eq!((items.len(), items[0].reason.as_str(), items[0].size), (1, "line 1: expected value", 1));
    assert_eq!((items[0].source.as_str(), items[0].is_trusted), ("192.0.2.0/24", true));
    assert_eq!(store.quarantined_bytes(items[0].id).await.unwrap().as_deref(), Some(&b"x"[..]));
    store.update_quarantine_reason(items[0].id, "another").await.unwrap();
    assert_eq!(store.quarantined(0, 10).await.unwrap()[0].reason, "another");
    assert!(store.release_quarantined(items[0].id).await.unwrap());
    assert!(!store.release_quarantined(items[0].id).await.unwrap());
}

#[tokio::test]
async fn a4_the_quarantine_stays_within_its_quota_and_a_flood_pushes_out_only_itself() {
    let (_dir, store) = crate::scratch().await;
    assert!(store.quarantine(&unreadable(1, "small", b"small"), &QUOTA).await.unwrap().is_kept);
    for number in 0u8..40 {
        let raw = vec![number; 300];
        let outcome = store.quarantine(&unreadable(i64::from(number), "flood", &raw), &QUOTA).await.unwrap();
        assert_eq!(outcome, QuarantineOutcome { is_kept: true, evicted: u64::from(number >= 3) });
    }
    // Many sources together reach the quota of all, and the largest one loses.
    for number in 0u8..60 {
        let (source, raw) = (format!("s{}", number % 10), vec![number; 250]);
        store.quarantine(&unreadable(0, &source, &raw), &QUOTA).await.unwrap();
        let usage = store.quarantine_usage().await.unwrap();
        assert!(usage.bytes <= QUOTA.bytes && usage.items <= QUOTA.items, "{usage:?}");
    }
    let sources: Vec<String> =
        store.quarantined(0, 100).await.unwrap().into_iter().map(|item| item.source).collect();
    assert_eq!(sources[0], "small");
    // More than the share of a source is not stored at all.
    let outcome = store.quarantine(&unreadable(1, "huge", &[1; 1001]), &QUOTA).await.unwrap();
    assert_eq!(outcome, QuarantineOutcome { is_kept: false, evicted: 0 });
    let usage = store.quarantine_usage().await.unwrap();
    // What was refused counts too.
    assert_eq!(usage.items + usage.evicted, 102);
    let lower = Quota { bytes: 600, items: 100 };
    while store.shrink_quarantine(&lower).await.unwrap() > 0 {}
    let left = store.quarantine_usage().await.unwrap();
    assert!(left.bytes <= 600 && left.items + left.evicted == 102, "{left:?}");
    assert_eq!(store.quarantined(0, 100).await.unwrap()[0].source, "small");
}

#[tokio::test]
async fn quarantined_items_are_dropped_by_age_and_source() {
    let (_dir, store) = crate::scratch().await;
    for (second, source) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        store.quarantine(&unreadable(second, source, &[second as u8; 10]), &QUOTA).await.unwrap();
    }
    let all = QuarantineSelection::default();
    let before = QuarantineSelection { before: Some(Timestamp::from_second(2).unwrap()), ..all.clone() };
    let from = QuarantineSelection { source: Some("a".into()), ..all.clone() };
    assert_eq!(store.count_quarantined(&all).await.unwrap(), (4, 40));
    assert_eq!(store.count_quarantined(&before).await.unwrap(), (1, 10));
    assert_eq!(store.count_quarantined(&from).await.unwrap(), (2, 20));
    assert_eq!(store.drop_quarantined(&before).await.unwrap(), 1);
    assert_eq!(store.drop_quarantined(&from).await.unwrap(), 1);
    assert_eq!(store.drop_quarantined(&from).await.unwrap(), 0);
    assert_eq!(store.drop_quarantined(&all).await.unwrap(), 2);
    assert_eq!(store.quarantine_usage().await.unwrap(), QuarantineUsage::default());
}

#[tokio::test]
async fn huge_counts_do_not_overflow_sums() {
    let (_dir, store) = crate::scratch().await;
    const MOST: u64 = 1 << 53;
    let mut huge = new("evil.example", Trust::Unverified, &text("a.example", "0", MOST, MOST));
    huge.report.policies = vec![huge.report.policies[0].clone(); 1024];
    for number in 0..3 {
        huge.report.report_id = number.to_string();
        huge.trust = if number == 1 { Trust::Verified } else { Trust::Unverified };
        huge.submitter = format!("evil{number}.example");
        store.keep_report(&huge).await.unwrap();
    }
    // The same report, more trusted: its counts move to the sums of evidence.
    huge.trust = Trust::Verified;
    assert_eq!(store.keep_report(&huge).await.unwrap(), KeepOutcome::Confirmed);
    keep(&store, "big.example", Trust::Verified, &text("a.example", "1", 7, 0)).await;
    let (a, since) = (name("a.example"), Timestamp::UNIX_EPOCH);
    let listed = store.reports(&Search { most: 10, ..Search::default() }).await.unwrap();
    assert_eq!(listed.iter().map(|report| report.successful).max(), Some(i64::MAX as u64));
    assert_eq!(store.days_of(&a, since).await.unwrap(), store.days_of_all(since).await.unwrap()["a.example"]);
    assert_eq!(store.report(1).await.unwrap().unwrap().listed.failed, i64::MAX as u64);
    assert_eq!(store.reports_about(&a, since).await.unwrap().len(), 4);
    assert!(!store.causes_of(&a, since).await.unwrap().is_empty());
    assert!(!store.senders_about(&a, since).await.unwrap().is_empty());
    assert!(!store.senders(since).await.unwrap().is_empty());
    assert!(!store.senders_by_day(&a, since).await.unwrap().is_empty());
    assert!(!store.hosts_by_day(&a, since).await.unwrap().is_empty());
    assert!(!store.all_senders_by_day(since).await.unwrap().is_empty());
}

#[tokio::test]
async fn sums_that_overflowed_in_earlier_versions_are_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).await.unwrap();
    keep(&store, "big.example", Trust::Verified, &text("a.example", "1", 7, 0)).await;
    // SQLite stores a sum of integers that overflows as a floating-point number.
    for table in ["domain_day", "submitter_day"] {
        let columns = "successful = 9.3e18, failed = 9.3e18";
        built(format!("UPDATE {table} SET {columns}")).execute(&store).await.unwrap();
    }
    let (a, since) = (name("a.example"), Timestamp::UNIX_EPOCH);
    assert_eq!(store.days_of(&a, since).await.unwrap()[0].successful, i64::MAX as u64);
    assert_eq!(store.days_of_all(since).await.unwrap()["a.example"][0].failed, i64::MAX as u64);
    assert_eq!(store.senders(since).await.unwrap()[0].failed, i64::MAX as u64);
    assert_eq!(store.all_senders_by_day(since).await.unwrap()[0].failed, i64::MAX as u64);
    assert_eq!(
        keep(&store, "big.example", Trust::Verified, &text("a.example", "2", 8, 0)).await,
        KeepOutcome::New
    );
    assert_eq!(store.days_of(&a, since).await.unwrap()[0].successful, i64::MAX as u64);
}
