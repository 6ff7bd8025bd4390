//! The pages to print: what an average hides, and one window for all figures.

use super::*;
use formats::{DomainName, Mode, MxPattern};
use jiff::SignedDuration;
use receiver::rollout::RolloutState;
use receiver::rollout::state::{InMode, PublishedPolicy};

/// A domain that is enforced, with an outage of two days three weeks ago and another two months ago.
async fn place() -> Place {
    let place = Place::new().await;
    let now = place.clock.now();
    let ago = |days: i64| now - SignedDuration::from_hours(24 * days);
    let promise = PublishedPolicy {
        mode: Mode::Enforce,
        max_age: 604_800,
        mx: vec![MxPattern::parse("mx1.one.example").unwrap()],
        until: None,
        assumed: false,
    };
    let mode = Some(InMode { mode: Mode::Enforce, since: ago(80) });
    let rollout = RolloutState { mode, published: vec![promise], ..RolloutState::default() };
    place.store.put_rollout(&DomainName::parse("one.example").unwrap(), &rollout).await.unwrap();
    for day in 1..70 {
        let failed = match day {
            20 => 20,
            21 => 30,
            60 => 900,
            _ => 0,
        };
        place.store.keep_report(&report(ago(day), &day.to_string(), 1_000 - failed, failed)).await.unwrap();
    }
    place
}

#[tokio::test]
async fn both_pages_to_print_show_the_worst_day_beside_the_average_and_the_days_of_an_outage() {
    let place = place().await;
    let now = place.clock.now();
    let date = |days: i64| crate::text::date(&(now - SignedDuration::from_hours(24 * days)));
    let mut bob = place.user("bob", Role::Reader, "198.51.100.2").await;
    for path in ["/domains/one.example/report", "/report"] {
        let page = bob.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        for part in [
            "(30 days)",
            "0.17 %",
            "3.00 %",
            "50 of 2,000 sessions failed (2.50 %), and 3.00 % on the worst day",
            &date(21),
        ] {
            assert!(page.body.contains(part), "{path}: {part}: {}", page.body);
        }
        assert!(!page.body.contains("90 days)") && !page.body.contains("90.0 %"), "{path}: {}", page.body);
    }
    let page = bob.get("/domains/one.example/report").await.body;
    assert!(page.contains("Senders reported certificate-expired at mx1.one.example."), "{page}");
    // Another window is one for all figures, too.
    let quarter = bob.get("/domains/one.example/report?days=90").await.body;
    for part in ["(90 days)", "90.0 %", &date(60)] {
        assert!(quarter.contains(part), "{part}: {quarter}");
    }
    assert!(!quarter.contains("(30 days)"), "{quarter}");
    assert_eq!(bob.get("/domains/one.example/report?days=5").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_pages_of_a_domain_and_of_all_show_the_worst_day_and_one_window() {
    let place = place().await;
    let mut bob = place.user("bob", Role::Reader, "198.51.100.2").await;
    let domain = bob.get("/domains/one.example").await.body;
    for part in ["with 3.00 %", "in the last 30 days", "As of ", "(2.50 %)"] {
        assert!(domain.contains(part), "{part}: {domain}");
    }
    assert!(!domain.contains("the last 90 days"), "{domain}");
    let overview = bob.get("/").await.body;
    for part in ["worst day: 3.00 % on ", "Figures as of now, ", "Newest report: ", "href=\"/report\""] {
        assert!(overview.contains(part), "{part}: {overview}");
    }
}

#[tokio::test]
async fn one_button_of_a_page_stands_out_and_what_weakens_protection_is_red() {
    let place = place().await;
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let page = ada.get("/domains/one.example").await.body;
    assert!(page.contains("<button class=\"grave\">Go back to testing</button>"), "{page}");
    let overview = ada.get("/").await.body;
    let main = overview.split("<main").nth(1).unwrap();
    assert!(main.matches("class=\"button\"").count() + main.matches("<button>").count() <= 1, "{main}");
}

#[tokio::test]
async fn a_host_has_the_issuer_of_its_certificate_and_the_days_left_by_its_own_life() {
    let place = place().await;
    let now = place.clock.now();
    let mut bob = place.user("bob", Role::Reader, "198.51.100.2").await;
    let host = DomainName::parse("mx1.one.example").unwrap();
    let hours = |hours: i64| SignedDuration::from_hours(hours);
    let mut seen = async |begun: i64, left: i64| {
        let certificate = net::certificate::CertificateFacts {
            subject: String::new(),
            issuer: "C=US, O=Example Trust, CN=R11".to_owned(),
            names: Vec::new(),
            not_before: now - hours(begun),
            // The store keeps whole seconds, as certificates have.
            not_after: now + hours(left) + SignedDuration::from_secs(1),
            fingerprint: String::new(),
            key_digest: String::new(),
            common_name: None,
            key: String::new(),
            is_weak: false,
            is_self_issued: false,
            is_for_servers: true,
            is_for_clients: false,
        };
        operations::seen_certificates::put(&place.store, &host, &certificate, now).await.unwrap();
        bob.get("/domains/one.example").await.body
    };
    let fresh = seen(24, 5 * 24).await;
    for part in ["Example Trust (R11)", "5 days left", "<td data-name=\"Certificate\"><span"] {
        assert!(fresh.contains(part), "a certificate of six days is not late: {part}: {fresh}");
    }
    let late = seen(4 * 24 + 12, 36).await;
    assert!(
        late.contains("36 hours left") && late.contains("<td data-name=\"Certificate\" class=\"waiting\">"),
        "{late}"
    );
    let old = seen(80 * 24, 10 * 24).await;
    assert!(
        old.contains("10 days left") && old.contains("<td data-name=\"Certificate\" class=\"waiting\">"),
        "{old}"
    );
    assert!(seen(10, -1).await.contains(">expired<"));
}
