use super::*;
use crate::Store;
use crate::query::built;
use formats::DomainName;
use formats::result_type::PolicyType;

pub(super) fn text(domain: &str, id: &str, ok: u64, failed: u64) -> String {
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

pub(super) fn new(submitter: &str, trust: Trust, text: &str) -> NewReport {
    NewReport {
        submitter: submitter.into(),
        signer: trust.counts().then(|| submitter.into()),
        trust,
        about: None,
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

pub(super) fn name(text: &str) -> DomainName {
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
async fn rec_06_another_id_or_another_content_is_another_report() {
    let (_dir, store) = crate::scratch().await;
    let verified = Trust::Verified;
    // Two mail servers of a sender counted the same, and one sent two parts of a day under one id.
    for body in [
        text("a.example", "mta1", 1, 0),
        text("a.example", "mta2", 1, 0),
        text("a.example", "day", 100, 0),
        text("a.example", "day", 7, 50),
    ] {
        assert_eq!(keep(&store, "big.example", verified, &body).await, KeepOutcome::New);
        assert_eq!(keep(&store, "big.example", verified, &body).await, KeepOutcome::Duplicate);
    }
    let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let found: Vec<_> = about
        .iter()
        .map(|one| (one.report_id.as_str(), one.outcomes[0].successful, one.outcomes[0].failed))
        .collect();
    assert_eq!(found, [("mta1", 1, 0), ("mta2", 1, 0), ("day", 100, 0), ("day", 7, 50)]);
}

#[tokio::test]
async fn rec_06_sums_add_the_failures_of_one_identity_and_take_the_larger_success() {
    let verified = Trust::Verified;
    let [large, small, other] = [("day", 100, 0), ("day", 7, 50), ("mta2", 3, 1)]
        .map(|(id, good, bad)| text("a.example", id, good, bad));
    let sums = async |store: &Store| {
        let days = store.days_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
        let senders = store.senders(Timestamp::UNIX_EPOCH).await.unwrap();
        let of_domain = days.first().map(|day| (day.successful, day.failed, day.sts_sessions));
        (of_domain, senders.first().map(|sender| (sender.reports, sender.successful, sender.failed)))
    };
    let both = (Some((100, 50, 150)), Some((2, 100, 50)));
    for (order, at_once) in [([&large, &small], false), ([&small, &large], false), ([&small, &large], true)] {
        let (_dir, store) = crate::scratch().await;
        let reports: Vec<NewReport> = order.iter().map(|body| new("big.example", verified, body)).collect();
        match at_once {
            true => drop(store.keep_reports(&reports).await.unwrap()),
            false => {
                store.keep_report(&reports[0]).await.unwrap();
                store.keep_report(&reports[1]).await.unwrap();
            }
        }
        assert_eq!(sums(&store).await, both, "{at_once}");
        // Another id is another report, and so is that of another sender.
        keep(&store, "big.example", verified, &other).await;
        assert_eq!(sums(&store).await, (Some((103, 51, 154)), Some((3, 103, 51))));
        // What is left after a report was dropped counts whole.
        assert_eq!(store.drop_reports(&[1]).await.unwrap(), 1);
        let rest = if order[0] == &large {
            (Some((10, 51, 61)), Some((2, 10, 51)))
        } else {
            (Some((103, 1, 104)), Some((2, 103, 1)))
        };
        assert_eq!(sums(&store).await, rest, "{at_once}");
        store.drop_reports(&[2, 3]).await.unwrap();
        assert_eq!(sums(&store).await, (None, None));
    }
    // A copy that is verified later joins the group then.
    let (_dir, store) = crate::scratch().await;
    keep(&store, "big.example", Trust::Unverified, &large).await;
    keep(&store, "big.example", verified, &small).await;
    assert_eq!(sums(&store).await.0, Some((7, 50, 57)));
    assert_eq!(keep(&store, "big.example", verified, &large).await, KeepOutcome::Confirmed);
    assert_eq!(sums(&store).await.0, both.0);
    // Three of one identity, of which the largest goes.
    keep(&store, "big.example", verified, &text("a.example", "day", 60, 1)).await;
    assert_eq!(sums(&store).await.0, Some((100, 51, 151)));
    store.drop_reports(&[1]).await.unwrap();
    assert_eq!(sums(&store).await.0, Some((60, 51, 111)));
}

#[tokio::test]
async fn rec_06_a_report_by_mail_and_by_https_counts_once_with_the_higher_trust() {
    let body = text("a.example", "1", 7, 3);
    let posted = NewReport { arrival: Arrival::Https, ..new("mail.big.example", Trust::Unverified, &body) };
    let mailed = NewReport { arrival: Arrival::Smtp, ..new("big.example", Trust::Verified, &body) };
    let vouched = NewReport { arrival: Arrival::Import, ..new("big.example", Trust::Trusted, &body) };
    for order in [
        [&posted, &mailed, &vouched],
        [&mailed, &posted, &vouched],
        [&vouched, &mailed, &posted],
        [&posted, &vouched, &mailed],
    ] {
        for at_once in [true, false] {
            let (_dir, store) = crate::scratch().await;
            let all: Vec<NewReport> = order.into_iter().cloned().collect();
            if at_once {
                store.keep_reports(&all).await.unwrap();
            } else {
                for one in &all {
                    store.keep_report(one).await.unwrap();
                }
            }
            let days = store.days_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
            let sums = (days[0].successful, days[0].failed, days[0].tainted, days[0].unproved);
            assert_eq!((days.len(), sums), (1, (7, 3, 1, 0)), "{order:?} {at_once}");
            let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
            assert_eq!((about.len(), about[0].outcomes.len(), about[0].trust), (1, 1, Trust::Verified));
            assert_eq!(about[0].outcomes[0].failures.iter().map(|one| one.sessions).sum::<u64>(), 3);
            let listed = store.reports(&Search { most: 10, ..Search::default() }).await.unwrap();
            let found = (listed.len(), listed[0].submitter.as_str(), listed[0].arrival);
            assert_eq!(found, (1, "big.example", Arrival::Smtp), "{at_once}");
            assert_eq!(store.report_count().await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn a_stranger_who_signs_a_copy_of_another_senders_report_does_not_displace_it() {
    let (_dir, store) = crate::scratch().await;
    let body = text("a.example", "1", 1, 0);
    assert_eq!(keep(&store, "evil.example", Trust::Verified, &body).await, KeepOutcome::New);
    assert_eq!(keep(&store, "big.example", Trust::Verified, &body).await, KeepOutcome::New);
    assert_eq!(keep(&store, "big.example", Trust::Verified, &body).await, KeepOutcome::Duplicate);
    let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let submitters: Vec<_> = about.iter().map(|one| one.submitter.as_str()).collect();
    assert_eq!(submitters, ["evil.example", "big.example"]);
}

#[tokio::test]
async fn the_failures_of_a_report_are_those_of_the_policy_that_they_were_met_under() {
    let (_dir, store) = crate::scratch().await;
    let mut report = new("big.example", Trust::Verified, &text("a.example", "1", 50, 3));
    let mut second = report.report.policies[0].clone();
    (second.successful, second.failed) = (20, 2);
    second.details[0].failed_session_count = 2;
    second.policy_string = vec!["version: STSv1".into(), "mode: testing".into(), "mx: mx1.a.example".into()];
    report.report.policies.push(second);
    store.keep_report(&report).await.unwrap();
    let about = store.reports_about(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let pattern = formats::MxPattern::parse("mx1.a.example").unwrap();
    let found: Vec<_> = about[0]
        .outcomes
        .iter()
        .map(|one| {
            (one.policy, one.successful, one.failures.iter().map(|failure| failure.sessions).sum::<u64>())
        })
        .collect();
    let stated = crate::PolicyDigest::of_patterns([&pattern]);
    assert_eq!(found, [(None, 50, 3), (Some(stated), 20, 2)]);
}

/// A DANE result under the name of an MX host, in a report about the mail of `about`.
fn dane(about: Option<&str>, id: &str, trust: Trust) -> NewReport {
    let mut new = new("big.example", trust, &text("a.example", id, 4, 5));
    new.about = about.map(name);
    let policy = &mut new.report.policies[0];
    policy.policy_type = PolicyType::Tlsa;
    policy.policy_domain = Some(name("mx.shared.example"));
    new
}

#[tokio::test]
async fn dane_results_about_an_mx_host_are_filed_under_the_domain_of_the_mail_while_it_is_its_mx_host() {
    let (_dir, store) = crate::scratch().await;
    let hosts = [name("mx.shared.example")];
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    // The reports are about 2026-11-23.
    store.record_mx_hosts(&name("a.example"), &hosts, at("2026-11-25T00:00:00Z")).await.unwrap();
    store.record_mx_hosts(&name("former.example"), &hosts, at("2026-08-26T00:00:00Z")).await.unwrap();
    store.record_mx_hosts(&name("long-ago.example"), &hosts, at("2026-08-24T00:00:00Z")).await.unwrap();
    store
        .record_mx_hosts(&name("elsewhere.example"), &[name("mx.b.example")], at("2026-11-25T00:00:00Z"))
        .await
        .unwrap();
    for (number, about) in
        ["a.example", "former.example", "long-ago.example", "elsewhere.example"].into_iter().enumerate()
    {
        store.keep_report(&dane(Some(about), &number.to_string(), Trust::Verified)).await.unwrap();
    }
    store.keep_report(&dane(None, "posted", Trust::Unverified)).await.unwrap();
    let days = store.days_of_all(Timestamp::UNIX_EPOCH).await.unwrap();
    let sums =
        |domain: &str| days.get(domain).map(|days| (days[0].successful, days[0].failed, days[0].unproved));
    assert_eq!(sums("a.example"), Some((4, 5, 0)));
    assert_eq!(sums("former.example"), Some((4, 5, 0)));
    assert_eq!((sums("long-ago.example"), sums("elsewhere.example")), (None, None));
    assert_eq!(sums("mx.shared.example"), Some((8, 10, 9)));
    let causes = store.causes_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((causes.len(), causes[0].sessions), (1, 5));
    let listed = store
        .reports(&Search { domain: Some("a.example".into()), most: 9, ..Search::default() })
        .await
        .unwrap();
    assert_eq!((listed.len(), listed[0].about.as_deref()), (1, Some("a.example")));
}

#[tokio::test]
async fn a_posted_copy_moves_to_the_domain_of_the_mail_once_the_mail_arrives() {
    let (_dir, store) = crate::scratch().await;
    let hosts = [name("mx.shared.example")];
    let at = "2026-11-23T00:00:00Z".parse().unwrap();
    store.record_mx_hosts(&name("a.example"), &hosts, at).await.unwrap();
    assert_eq!(store.keep_report(&dane(None, "1", Trust::Unverified)).await.unwrap(), KeepOutcome::New);
    let mail = dane(Some("a.example"), "1", Trust::Verified);
    assert_eq!(store.keep_report(&mail).await.unwrap(), KeepOutcome::Confirmed);
    assert_eq!(store.keep_report(&mail).await.unwrap(), KeepOutcome::Duplicate);
    // A report of the same id and content about the mail of another domain is another report.
    let other = dane(Some("b.example"), "1", Trust::Verified);
    assert_eq!(store.keep_report(&other).await.unwrap(), KeepOutcome::New);
    let days = store.days_of_all(Timestamp::UNIX_EPOCH).await.unwrap();
    let sums = |domain: &str| (days[domain][0].successful, days[domain][0].failed, days[domain][0].unproved);
    assert_eq!((sums("a.example"), sums("mx.shared.example")), ((4, 5, 0), (4, 5, 0)));
    let causes = store.causes_of(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(causes[0].sessions, 5);
}

#[tokio::test]
async fn one_report_changes_a_bounded_number_of_daily_sums() {
    let (_dir, store) = crate::scratch().await;
    let mut giant = new("evil.example", Trust::Verified, &text("a.example", "1", 1, 1));
    giant.report.date_range.start = "2025-06-01T00:00:00Z".parse().unwrap();
    let policy = giant.report.policies[0].clone();
    giant.report.policies = (0..1024)
        .map(|number| formats::report::PolicyReport {
            policy_domain: Some(name(&format!("d{number}.example"))),
            ..policy.clone()
        })
        .collect();
    store.keep_report(&giant).await.unwrap();
    let days = store.days_of_all(Timestamp::UNIX_EPOCH).await.unwrap();
    // One sum of sessions on the first day, and failures on the newest two.
    assert_eq!((days.len(), days.values().map(Vec::len).max()), (1024, Some(3)));
    let newest = days["d7.example"].last().unwrap();
    assert_eq!(newest.tainted, 1);
    // A report about one domain has all of its days.
    let mut long = new("evil.example", Trust::Verified, &text("b.example", "2", 1, 1));
    long.report.date_range.start = "2026-01-01T00:00:00Z".parse().unwrap();
    store.keep_report(&long).await.unwrap();
    let days = store.days_of(&name("b.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((days.len(), days.iter().filter(|day| day.tainted == 1).count()), (327, 327));
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
    let most = 1024 * formats::limits::REPORT_SESSIONS;
    assert_eq!(listed.iter().map(|report| report.successful).max(), Some(most));
    assert_eq!(store.days_of(&a, since).await.unwrap(), store.days_of_all(since).await.unwrap()["a.example"]);
    assert_eq!(store.report(1).await.unwrap().unwrap().listed.failed, most);
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
    let store = Store::open(&dir.path().join("s.db"), crate::Tenant::FIRST).await.unwrap();
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

#[tokio::test]
async fn arrived_reports_are_those_after_a_position_the_most_trusted_first() {
    let (_dir, store) = crate::scratch().await;
    let which = |after, to, failed| WhichReports { after, to, failed };
    keep(&store, "old.example", Trust::Verified, &text("a.example", "0", 1, 0)).await;
    for (submitter, trust, failed) in [
        ("x.example", Trust::Unverified, 3),
        ("y.example", Trust::Verified, 0),
        ("z.example", Trust::Verified, 2),
    ] {
        keep(&store, submitter, trust, &text("a.example", submitter, 5, failed)).await;
    }
    let newest = store.newest_report().await.unwrap();
    assert_eq!(newest, 4);
    let names = async |which, most| {
        let found = store.arrived(which, most, 10).await.unwrap();
        found.into_iter().map(|one| one.submitter).collect::<Vec<_>>()
    };
    assert_eq!(names(which(1, newest, false), 9).await, ["y.example", "z.example", "x.example"]);
    assert_eq!(names(which(1, newest, true), 9).await, ["z.example", "x.example"]);
    assert_eq!(names(which(1, 3, false), 9).await, ["y.example", "x.example"]);
    assert_eq!(names(which(1, newest, false), 1).await, ["y.example"]);
    let first = &store.arrived(which(1, 2, false), 1, 10).await.unwrap()[0];
    assert_eq!((first.successful, first.failed, &first.domains[..]), (5, 3, &["a.example".to_owned()][..]));
    assert!(store.arrived(which(1, 2, false), 1, 0).await.unwrap()[0].domains.is_empty());
    let sums = |counts, reports, successful, failed| ArrivedCounts { counts, reports, successful, failed };
    let counted = store.count_arrived(which(1, newest, false)).await.unwrap();
    assert_eq!(counted, [sums(true, 2, 10, 2), sums(false, 1, 5, 3)]);
    assert_eq!(store.count_arrived(which(1, newest, true)).await.unwrap()[0], sums(true, 1, 5, 2));
    assert_eq!(store.count_arrived(which(newest, newest, false)).await.unwrap(), []);
    while store.expire_reports(Timestamp::MAX).await.unwrap() > 0 {}
    assert_eq!(store.count_arrived(which(0, newest, false)).await.unwrap(), [], "expired");
    assert!(store.arrived(which(0, newest, false), 9, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn totals_are_those_of_the_named_domains_and_of_the_largest_submitters() {
    let (_dir, store) = crate::scratch().await;
    keep(&store, "x.example", Trust::Verified, &text("a.example", "1", 5, 2)).await;
    keep(&store, "y.example", Trust::Verified, &text("a.example", "2", 1, 0)).await;
    keep(&store, "y.example", Trust::Unverified, &text("b.example", "3", 9, 4)).await;
    keep(&store, "z.example", Trust::Verified, &text("stranger.example", "4", 2, 1)).await;
    let since = "2026-11-23T00:00:00Z".parse().unwrap();
    let total = |domain: &str, successful, failed, unproved| DomainTotal {
        domain: domain.into(),
        successful,
        failed,
        unproved,
    };
    let mut found = store.domain_totals(&["a.example", "b.example", "c.example"], since).await.unwrap();
    found.sort_by(|one, other| one.domain.cmp(&other.domain));
    assert_eq!(found, [total("a.example", 6, 2, 0), total("b.example", 0, 0, 13)]);
    let submitter = |submitter: &str, successful, failed| SubmitterTotal {
        submitter: submitter.into(),
        successful,
        failed,
    };
    let verified = store.submitter_totals(true, since, 1).await.unwrap();
    assert_eq!(verified, [submitter("x.example", 5, 2), submitter("", 8, 3)]);
    let others = store.submitter_totals(false, since, 5).await.unwrap();
    assert_eq!(others, [submitter("y.example", 9, 4), submitter("", 9, 4)]);
    let last = store.last_reports(&["a.example", "b.example"], since).await.unwrap();
    let mut last: Vec<_> = last.iter().map(|one| (one.domain.as_str(), one.counts)).collect();
    last.sort_unstable();
    assert_eq!(last, [("a.example", true), ("b.example", false)]);
    let later = "2026-11-24T00:00:00Z".parse().unwrap();
    assert!(store.domain_totals(&["a.example"], later).await.unwrap().is_empty());
    assert_eq!(store.submitter_totals(true, later, 5).await.unwrap(), [submitter("", 0, 0)]);
}

#[tokio::test]
async fn failures_are_grouped_over_addresses_and_sessions_by_type_of_policy() {
    let (_dir, store) = crate::scratch().await;
    let body = text("a.example", "1", 10, 2);
    keep(&store, "big.example", Trust::Verified, &body).await;
    let other = text("a.example", "2", 30, 3).replace("192.0.2.1", "192.0.2.7");
    keep(&store, "small.example", Trust::Verified, &other).await;
    let dane = text("a.example", "3", 5, 0).replace("\"sts\"", "\"tlsa\"");
    keep(&store, "small.example", Trust::Verified, &dane).await;
    keep(&store, "stranger.example", Trust::Unverified, &text("a.example", "4", 100, 100)).await;
    let groups = store.failure_groups(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let shown: Vec<_> = groups
        .iter()
        .map(|one| {
            (one.host.as_str(), one.counts, one.sessions, one.senders, one.addresses, one.address.as_str())
        })
        .collect();
    assert_eq!(
        shown,
        [("mx1.a.example", true, 5, 2, 2, "192.0.2.7"), ("mx1.a.example", false, 100, 1, 1, "192.0.2.1")]
    );
    let kinds = store.sessions_by_kind(&name("a.example"), Timestamp::UNIX_EPOCH).await.unwrap();
    let shown: Vec<_> = kinds.into_iter().map(|one| (one.kind, one.successful, one.failed)).collect();
    assert_eq!(shown, [(PolicyType::Sts, 40, 5), (PolicyType::Tlsa, 5, 0)]);
}
