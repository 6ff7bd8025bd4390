use super::super::{Arrival, KeepOutcome, NewReport, Search, Trust};
use crate::Store;
use formats::DomainName;
use formats::report::Report;
use jiff::Timestamp;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// A report with a DANE result under the name of the MX host, and one of MTA-STS under that of the domain.
fn report(about: Option<&str>, id: &str, day: &str, failed: u64, trust: Trust) -> NewReport {
    let policy = |kind: &str, domain: &str, failed: u64| {
        format!(
            r#"{{"policy":{{"policy-type":"{kind}","policy-string":[],"policy-domain":"{domain}","mx-host":[]}},
                "summary":{{"total-successful-session-count":4,"total-failure-session-count":{failed}}},
                "failure-details":[{{"result-type":"tlsa-invalid","receiving-mx-hostname":"mx.shared.example","failed-session-count":{failed}}}]}}"#
        )
    };
    let text = format!(
        r#"{{"organization-name":"O","date-range":{{"start-datetime":"{day}T00:00:00Z","end-datetime":"{day}T23:59:59Z"}},
            "contact-info":"a@big.example","report-id":"{id}","policies":[{},{}]}}"#,
        policy("tlsa", "mx.shared.example", failed),
        policy("sts", "a.example", 1),
    );
    NewReport {
        submitter: "big.example".into(),
        signer: trust.counts().then(|| "big.example".into()),
        trust,
        about: about.map(name),
        arrival: Arrival::Import,
        received_at: Timestamp::UNIX_EPOCH,
        source: "big.example".into(),
        report: Report::read(text.as_bytes()).unwrap().report,
        warnings: 0,
        packed: text.into_bytes(),
    }
}

/// All that pages and the gate see of the reports.
async fn seen(store: &Store) -> String {
    let since = Timestamp::UNIX_EPOCH;
    let days = store.days_of_all(since).await.unwrap();
    let mut seen = format!("{days:#?}\n{:#?}\n", store.senders(since).await.unwrap());
    for domain in ["a.example", "b.example", "mx.shared.example"] {
        let search = Search { domain: Some(domain.into()), most: 99, ..Search::default() };
        let listed = store.reports(&search).await.unwrap();
        let name = name(domain);
        let about = store.reports_about(&name, since).await.unwrap();
        let causes = store.causes_of(&name, since).await.unwrap();
        seen += &format!("{domain}: {about:#?}\n{causes:#?}\n{listed:#?}\n");
    }
    seen
}

#[tokio::test]
async fn reports_before_the_first_observation_of_an_mx_host_end_as_reports_after_it() {
    let observed = "2026-11-25T00:00:00Z".parse().unwrap();
    let hosts = [name("mx.shared.example")];
    let (verified, a) = (Trust::Verified, Some("a.example"));
    let reports = [
        report(a, "1", "2026-11-23", 5, verified),
        // The same identity with other content, an unverified one, and other domains and days.
        report(a, "1", "2026-11-23", 7, verified),
        report(a, "2", "2026-11-24", 0, Trust::Unverified),
        report(Some("b.example"), "3", "2026-11-23", 1, verified),
        report(None, "4", "2026-11-23", 2, Trust::Unverified),
        report(a, "5", "2026-08-20", 3, verified),
        report(a, "6", "2026-08-28", 3, verified),
    ];
    let (_dir, expected) = crate::scratch().await;
    expected.record_mx_hosts(&name("a.example"), &hosts, observed).await.unwrap();
    expected.keep_reports(&reports).await.unwrap();
    let (_dir2, store) = crate::scratch().await;
    store.keep_reports(&reports).await.unwrap();
    assert_ne!(seen(&store).await, seen(&expected).await);
    let version = store.reports_version().await.unwrap();
    store.record_mx_hosts(&name("a.example"), &hosts, observed).await.unwrap();
    assert_eq!(seen(&store).await, seen(&expected).await);
    assert!(store.reports_version().await.unwrap() > version, "pages read the reports again");
    // A second import finds duplicates, a further part of an identity belongs to it, and a trusted copy replaces the first.
    let further = [report(a, "1", "2026-11-23", 9, verified), report(a, "2", "2026-11-24", 0, verified)];
    for store in [&store, &expected] {
        assert_eq!(store.keep_reports(&reports).await.unwrap(), [KeepOutcome::Duplicate; 7]);
        let kept = store.keep_reports(&further).await.unwrap();
        assert_eq!(kept, [KeepOutcome::New, KeepOutcome::Confirmed]);
    }
    assert_eq!(seen(&store).await, seen(&expected).await);
    // All numbers can be taken out again.
    for store in [&store, &expected] {
        let all: Vec<i64> = (1..=8).collect();
        assert_eq!(store.drop_reports(&all).await.unwrap(), 8);
        assert!(store.days_of_all(Timestamp::UNIX_EPOCH).await.unwrap().is_empty());
    }
}
