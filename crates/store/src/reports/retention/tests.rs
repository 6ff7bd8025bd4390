use super::*;
use crate::reports::{Arrival, KeepOutcome, NewReport, Quota, Search};
use formats::DomainName;
use formats::report::Report;
use proptest::prelude::*;

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(day * 86_400).unwrap()
}

/// A report about one domain that is unlike every other one, and what it says.
#[derive(Debug, Clone)]
struct Played {
    number: i64,
    submitter: usize,
    domain: usize,
    trust: Trust,
    days: i64,
    ok: u64,
    failed: u64,
    is_sts: bool,
}

impl Played {
    fn report(&self) -> NewReport {
        let Self { number, submitter, domain, days, ok, failed, .. } = self;
        let kind = if self.is_sts { "sts" } else { "no-policy-found" };
        let details = match failed {
            0 => String::new(),
            _ => format!(
                r#"{{"result-type":"certificate-expired","receiving-mx-hostname":"mx{number}.example","failed-session-count":{failed}}}"#
            ),
        };
        let policy = format!(
            r#"{{"policy":{{"policy-type":"{kind}","policy-string":["{number}"],"policy-domain":"d{domain}.example"}},"summary":{{"total-successful-session-count":{ok},"total-failure-session-count":{failed}}},"failure-details":[{details}]}}"#
        );
        let json = format!(
            r#"{{"organization-name":"O{number}","date-range":{{"start-datetime":"2026-11-01T00:00:00Z","end-datetime":"2026-11-0{days}T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{number}","policies":[{policy},{policy}]}}"#
        );
        NewReport {
            submitter: format!("s{submitter}.example"),
            signer: None,
            trust: self.trust,
            about: None,
            arrival: Arrival::Smtp,
            received_at: at(*number),
            source: format!("s{submitter}"),
            report: Report::read(json.as_bytes()).unwrap().report,
            warnings: 0,
            packed: json.into_bytes(),
        }
    }
}

fn played() -> impl Strategy<Value = Played> {
    let trust = prop_oneof![
        Just(Trust::Failed),
        Just(Trust::Unverified),
        Just(Trust::Trusted),
        Just(Trust::Verified)
    ];
    (0usize..3, 0usize..3, trust, 1i64..=3, 0u64..5, 0u64..3, any::<bool>()).prop_map(
        |(submitter, domain, trust, days, ok, failed, is_sts)| Played {
            number: 0,
            submitter,
            domain,
            trust,
            days,
            ok,
            failed,
            is_sts,
        },
    )
}

/// All sums of a store, as text.
async fn sums(store: &Store) -> String {
    let mut days = store.days_of_all(Timestamp::UNIX_EPOCH).await.unwrap();
    // A report without sessions leaves a row of zeros, which dropping it removes.
    days.values_mut().for_each(|days| {
        days.retain(|day| {
            [day.successful, day.failed, day.sts_sessions, day.tainted, day.unproved]
                .iter()
                .any(|sum| *sum > 0)
        });
    });
    days.retain(|_, days| !days.is_empty());
    let mut senders = store.senders(Timestamp::UNIX_EPOCH).await.unwrap();
    senders.sort_by(|a, b| (&a.submitter, a.counts).cmp(&(&b.submitter, b.counts)));
    let trends = store.all_senders_by_day(Timestamp::UNIX_EPOCH).await.unwrap();
    format!("{days:?}\n{senders:?}\n{trends:?}")
}

async fn listed(store: &Store) -> Vec<String> {
    let found = store.reports(&Search { most: 1000, ..Search::default() }).await.unwrap();
    assert_eq!(found.len() as u64, store.report_count().await.unwrap());
    found.into_iter().map(|report| report.report_id).collect()
}

async fn ids(store: &Store) -> Vec<i64> {
    store.reports_to_drop(&DropSelection::default(), 0, 1000).await.unwrap()
}

/// What is done to a store with reports: some expire, some are dropped, in either order.
async fn play(reports: Vec<Played>, expired: usize, dropped: Vec<bool>, expire_first: bool) {
    let reports: Vec<NewReport> =
        (1i64..).zip(reports).map(|(number, report)| Played { number, ..report }.report()).collect();
    let (_dir, store) = crate::scratch().await;
    store.keep_reports(&reports).await.unwrap();
    let is_dropped = |at: usize| dropped.get(at).copied().unwrap_or(false);
    let before = at(expired as i64 + 1);
    if expire_first {
        while store.expire_reports(before).await.unwrap() > 0 {}
    }
    // An expired report can't be dropped: its numbers stay.
    let left: Vec<usize> =
        (0..reports.len()).filter(|at| !is_dropped(*at) || (expire_first && *at < expired)).collect();
    let all: Vec<i64> = (1..=reports.len() as i64).filter(|id| is_dropped(*id as usize - 1)).collect();
    store.drop_reports(&all).await.unwrap();
    if !expire_first {
        while store.expire_reports(before).await.unwrap() > 0 {}
    }
    let (_dir, other) = crate::scratch().await;
    let expected: Vec<NewReport> = left.iter().map(|at| reports[*at].clone()).collect();
    other.keep_reports(&expected).await.unwrap();
    assert_eq!(sums(&store).await, sums(&other).await);
    let live: Vec<String> = left
        .iter()
        .rev()
        .filter(|at| **at >= expired)
        .map(|at| reports[*at].report.report_id.clone())
        .collect();
    assert_eq!(listed(&store).await, live);
    // Copies of all that is left are duplicates, also of what expired.
    let kept = store.keep_reports(&expected).await.unwrap();
    assert!(kept.iter().all(|kept| *kept == KeepOutcome::Duplicate), "{kept:?}");
    assert_eq!(sums(&store).await, sums(&other).await);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The sums are those of a store that has only received the reports whose numbers should be there.
    #[test]
    fn sums_stay_right_however_reports_expire_and_are_dropped(
        reports in proptest::collection::vec(played(), 1..14),
        expired in 0usize..8,
        dropped in proptest::collection::vec(any::<bool>(), 14),
        expire_first in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(reports, expired, dropped, expire_first));
    }
}

/// Reports of few identities, kept one by one or together, of which some are dropped.
async fn play_identities(reports: Vec<Played>, dropped: Vec<bool>, at_once: bool) {
    let in_group = |(number, played): (i64, Played)| {
        let mut report = Played { number, ..played.clone() }.report();
        // The submitter, the domain and the days complete the identity.
        report.report.report_id = format!("{}-{}", played.domain, played.days);
        report
    };
    let reports: Vec<NewReport> = (1i64..).zip(reports).map(in_group).collect();
    let (_dir, store) = crate::scratch().await;
    for batch in reports.chunks(if at_once { 100 } else { 1 }) {
        store.keep_reports(batch).await.unwrap();
    }
    let is_dropped = |at: usize| dropped.get(at).copied().unwrap_or(false);
    let all: Vec<i64> = (1..=reports.len() as i64).filter(|id| is_dropped(*id as usize - 1)).collect();
    store.drop_reports(&all).await.unwrap();
    let left: Vec<NewReport> =
        (0..reports.len()).filter(|at| !is_dropped(*at)).map(|at| reports[at].clone()).collect();
    let (_dir, other) = crate::scratch().await;
    other.keep_reports(&left).await.unwrap();
    assert_eq!(sums(&store).await, sums(&other).await);
    // What one identity adds, computed in another way.
    let mut groups: BTreeMap<_, (u64, u64)> = Default::default();
    for report in left.iter().filter(|report| report.trust.counts()) {
        let sum = |count: fn(&formats::report::PolicyReport) -> u64| {
            report.report.policies.iter().map(count).sum::<u64>()
        };
        let group = groups.entry((report.submitter.clone(), report.report.report_id.clone())).or_default();
        *group = (group.0.max(sum(|policy| policy.successful)), group.1 + sum(|policy| policy.failed));
    }
    let expected = groups.values().fold((0, 0), |all, group| (all.0 + group.0, all.1 + group.1));
    let days = store.days_of_all(Timestamp::UNIX_EPOCH).await.unwrap();
    let found = days.values().flatten().fold((0, 0), |all, day| (all.0 + day.successful, all.1 + day.failed));
    assert_eq!(found, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn sums_take_the_larger_success_of_an_identity_however_its_reports_come_and_go(
        reports in proptest::collection::vec(played(), 1..14),
        dropped in proptest::collection::vec(any::<bool>(), 14),
        at_once in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play_identities(reports, dropped, at_once));
    }
}

fn one(number: i64, submitter: usize, trust: Trust) -> NewReport {
    Played { number, submitter, domain: 0, trust, days: 1, ok: 5, failed: 1, is_sts: true }.report()
}

#[tokio::test]
async fn an_expired_report_keeps_its_numbers_and_stays_a_duplicate_until_it_is_forgotten() {
    let (_dir, store) = crate::scratch().await;
    let reports: Vec<NewReport> = (1..=250).map(|number| one(number, 0, Trust::Verified)).collect();
    store.keep_reports(&reports).await.unwrap();
    let before = sums(&store).await;
    let mut batches = Vec::new();
    loop {
        match store.expire_reports(at(241)).await.unwrap() {
            0 => break,
            some => batches.push(some),
        }
    }
    assert_eq!(batches, [100, 100, 40]);
    assert_eq!((listed(&store).await.len(), sums(&store).await), (10, before.clone()));
    let domain = DomainName::parse("d0.example").unwrap();
    assert_eq!(store.reports_about(&domain, Timestamp::UNIX_EPOCH).await.unwrap().len(), 10);
    assert_eq!(store.report(1).await.unwrap(), None);
    assert_eq!(store.keep_report(&reports[0]).await.unwrap(), KeepOutcome::Duplicate);
    assert_eq!(store.forget_expired_reports(at(2)).await.unwrap(), 1);
    assert_eq!(store.keep_report(&reports[1]).await.unwrap(), KeepOutcome::Duplicate);
    assert_eq!(sums(&store).await, before);
    assert_eq!(store.keep_report(&reports[0]).await.unwrap(), KeepOutcome::New);
}

#[tokio::test]
async fn n1_dropping_a_report_with_huge_counts_brings_the_others_numbers_back() {
    let (_dir, store) = crate::scratch().await;
    store.keep_report(&one(1, 0, Trust::Unverified)).await.unwrap();
    store.keep_report(&one(2, 0, Trust::Verified)).await.unwrap();
    let right = sums(&store).await;
    for (number, trust) in [(3, Trust::Unverified), (4, Trust::Verified)] {
        let mut huge = one(number, 0, trust);
        let policy = &mut huge.report.policies[0];
        (policy.successful, policy.failed) = (1 << 53, 1 << 53);
        huge.report.policies = vec![huge.report.policies[0].clone(); 1024];
        store.keep_report(&huge).await.unwrap();
    }
    assert_ne!(sums(&store).await, right);
    assert_eq!(store.drop_reports(&[3, 4, 99]).await.unwrap(), 2);
    assert_eq!((sums(&store).await, listed(&store).await.len()), (right, 2));
}

#[tokio::test]
async fn only_the_policies_of_a_dropped_report_that_had_failures_are_subtracted_as_such() {
    let (_dir, store) = crate::scratch().await;
    store.keep_report(&one(1, 0, Trust::Verified)).await.unwrap();
    let before = sums(&store).await;
    let mut half = one(2, 0, Trust::Verified);
    let policy = &mut half.report.policies[0];
    policy.failed = 0;
    policy.details.clear();
    store.keep_report(&half).await.unwrap();
    store.drop_reports(&[2]).await.unwrap();
    assert_eq!(sums(&store).await, before);
}

#[tokio::test]
async fn a_more_trusted_copy_of_an_expired_report_moves_its_numbers_and_nothing_else() {
    let (_dir, store) = crate::scratch().await;
    store.keep_report(&one(1, 0, Trust::Unverified)).await.unwrap();
    assert_eq!(store.expire_reports(at(2)).await.unwrap(), 1);
    assert_eq!(store.keep_report(&one(1, 0, Trust::Verified)).await.unwrap(), KeepOutcome::Confirmed);
    let (_dir, other) = crate::scratch().await;
    other.keep_report(&one(1, 0, Trust::Verified)).await.unwrap();
    assert_eq!(sums(&store).await, sums(&other).await);
    let domain = DomainName::parse("d0.example").unwrap();
    assert_eq!(store.reports_about(&domain, Timestamp::UNIX_EPOCH).await.unwrap().len(), 0);
    assert_eq!(listed(&store).await.len(), 0);
}

#[tokio::test]
async fn the_mails_domain_and_the_mx_host_of_dane_results_are_texts_in_use() {
    let (_dir, store) = crate::scratch().await;
    let name = |text: &str| DomainName::parse(text).unwrap();
    let day = "2026-11-01T00:00:00Z".parse().unwrap();
    store.record_mx_hosts(&name("a.example"), &[name("mx.shared.example")], day).await.unwrap();
    let mut dane = one(1, 0, Trust::Verified);
    dane.about = Some(name("a.example"));
    for policy in &mut dane.report.policies {
        policy.policy_type = formats::result_type::PolicyType::Tlsa;
        policy.policy_domain = Some(name("mx.shared.example"));
    }
    let mut elsewhere = one(2, 0, Trust::Verified);
    elsewhere.about = Some(name("c.example"));
    store.keep_reports(&[dane, elsewhere]).await.unwrap();
    while store.forget_texts().await.unwrap() > 0 {}
    let texts: Vec<(String,)> = sql("SELECT text FROM name").fetch_all(&store).await.unwrap();
    for text in ["a.example", "mx.shared.example", "c.example"] {
        assert!(texts.iter().any(|(one,)| one == text), "{text}");
    }
}

#[tokio::test]
async fn a4_a_flood_of_unverified_reports_stays_within_its_quota_and_pushes_out_only_itself() {
    let (_dir, store) = crate::scratch().await;
    let quota = Quota { bytes: 60_000, items: 1000 };
    store.keep_reports(&[one(1, 1, Trust::Unverified), one(2, 2, Trust::Verified)]).await.unwrap();
    for number in 3..100 {
        store.keep_report(&one(number, 0, Trust::Failed)).await.unwrap();
        store.shrink_unverified(&quota).await.unwrap();
        assert!(store.unverified_usage().await.unwrap().bytes <= quota.bytes);
    }
    let left = listed(&store).await;
    assert!(left.contains(&"1".to_owned()) && left.contains(&"2".to_owned()), "{left:?}");
    assert!(left.contains(&"99".to_owned()) && !left.contains(&"3".to_owned()), "{left:?}");
    let usage = store.unverified_usage().await.unwrap();
    assert_eq!(usage.reports + usage.evicted, 98);
    // What an evicted report alone named is gone too.
    assert!(store.forget_texts().await.unwrap() > 0);
    assert_eq!(store.forget_texts().await.unwrap(), 0);
    let texts: Vec<(String,)> = sql("SELECT text FROM name").fetch_all(&store).await.unwrap();
    let has = |text: &str| texts.iter().any(|(one,)| one == text);
    assert!(has("mx1.example") && has("mx99.example") && has("O2") && !has("mx3.example") && !has("O3"));
    assert_eq!(store.drop_old_unverified(at(2)).await.unwrap(), 1);
    assert!(!listed(&store).await.contains(&"1".to_owned()));
    // The references are checked again.
    assert!(sql("DELETE FROM name").execute(&store).await.is_err());
}

#[tokio::test]
async fn an_insert_removes_a_bounded_number_of_unverified_reports_and_none_that_was_verified_meanwhile() {
    let (_dir, store) = crate::scratch().await;
    let many: Vec<NewReport> = (0..400).map(|number| one(number, 0, Trust::Failed)).collect();
    store.keep_reports(&many).await.unwrap();
    let quota = Quota { bytes: 1 << 30, items: 50 };
    let batch = u64::from(BATCH_REPORTS);
    assert_eq!(store.keep_unverified_within(&quota).await.unwrap(), batch);
    assert_eq!(store.unverified_usage().await.unwrap().reports, 400 - batch);
    // All that are left by now are chosen. One of them is verified before its turn.
    let verified = one(150, 0, Trust::Verified);
    assert_eq!(store.keep_report(&verified).await.unwrap(), KeepOutcome::Confirmed);
    let mut removed = batch;
    for _ in 0..10 {
        let some = store.keep_unverified_within(&quota).await.unwrap();
        assert!(some <= batch);
        removed += some;
    }
    let usage = store.unverified_usage().await.unwrap();
    assert!(
        usage.reports <= 50 && usage.evicted == removed && usage.reports + removed == 399,
        "{usage:?} {removed}"
    );
    assert!(listed(&store).await.contains(&"150".to_owned()));
    // The task that runs each minute removes all at once.
    store
        .keep_reports(&(1000..1400).map(|number| one(number, 0, Trust::Failed)).collect::<Vec<_>>())
        .await
        .unwrap();
    assert!(store.shrink_unverified(&quota).await.unwrap() > batch);
    assert!(store.unverified_usage().await.unwrap().reports <= 50);
}

#[tokio::test]
async fn a4_signed_reports_have_a_quota_too_and_keep_their_numbers() {
    let (_dir, store) = crate::scratch().await;
    let mut reports: Vec<NewReport> = (2..250).map(|number| one(number, 0, Trust::Verified)).collect();
    reports.insert(0, one(1, 1, Trust::Verified));
    store.keep_reports(&reports).await.unwrap();
    let before = sums(&store).await;
    while store.shrink_evidence(100_000).await.unwrap() > 0 {}
    let left = listed(&store).await;
    assert!(left.contains(&"1".to_owned()) && left.contains(&"249".to_owned()), "{left:?}");
    assert!(!left.contains(&"2".to_owned()) && left.len() < 100, "{left:?}");
    assert_eq!(sums(&store).await, before);
    assert_eq!(store.shrink_evidence(100_000).await.unwrap(), 0);
}

#[tokio::test]
async fn reports_to_drop_are_found_by_domain_submitter_and_time() {
    let (_dir, store) = crate::scratch().await;
    let mut other = one(3, 1, Trust::Verified);
    other.report.policies[0].policy_domain = Some(DomainName::parse("other.example").unwrap());
    store.keep_reports(&[one(1, 0, Trust::Verified), one(2, 1, Trust::Failed), other]).await.unwrap();
    let find = async |selection: DropSelection| store.reports_to_drop(&selection, 0, 10).await.unwrap();
    let all = DropSelection::default();
    assert_eq!(find(all.clone()).await, [1, 2, 3]);
    assert_eq!(find(DropSelection { domain: Some("other.example".into()), ..all.clone() }).await, [3]);
    assert_eq!(find(DropSelection { submitter: Some("s1.example".into()), ..all.clone() }).await, [2, 3]);
    let day = |text: &str| Some(text.parse().unwrap());
    assert_eq!(find(DropSelection { before: day("2026-11-01T23:59:59Z"), ..all.clone() }).await, [0i64; 0]);
    assert_eq!(find(DropSelection { before: day("2026-11-02T00:00:00Z"), ..all }).await, [1, 2, 3]);
    assert_eq!(ids(&store).await.len(), 3);
}

#[tokio::test]
async fn a4_space_of_removed_data_is_given_back_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let store = Store::open(&path, Tenant::FIRST).await.unwrap();
    let quota = Quota { bytes: 1 << 30, items: 1000 };
    for number in 0u8..24 {
        let raw = vec![number; 1 << 20];
        let new = crate::reports::NewQuarantined {
            received_at: at(1),
            arrival: Arrival::Smtp,
            source: "a",
            is_trusted: false,
            reason: "r",
            raw: &raw,
        };
        store.quarantine(&new, &quota).await.unwrap();
    }
    let size = || std::fs::metadata(&path).unwrap().len();
    while store.drop_quarantined(&Default::default()).await.unwrap() > 0 {}
    let mut steps = 0;
    while store.release_space().await.unwrap().unwrap() > 0 {
        steps += 1;
    }
    // 24 MiB with 4 MiB to spare, 2 MiB in each step but the last one.
    assert!((9..=11).contains(&steps), "{steps} steps");
    store.close().await;
    assert!(size() < 6 << 20, "{} bytes", size());
    let store = Store::open(&path, Tenant::FIRST).await.unwrap();
    store.compact().await.unwrap();
    store.close().await;
    assert!(size() < 1 << 20, "{} bytes", size());
}
