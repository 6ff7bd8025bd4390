//! Lists with many rows stay small pages.

use super::*;
use formats::DomainName;
use formats::dmarc::{Alignment, Disposition, DmarcReport, DmarcRow};
use store::dmarc::{DmarcQuota, NewDmarcReport};
use store::reports::{NewQuarantined, Quota};

/// The most bytes of a page.
const MOST: usize = 80_000;

#[tokio::test]
async fn a_long_quarantine_has_pages_and_each_entry_is_on_one_of_them() {
    let place = Place::new().await;
    for number in 0..250 {
        let raw = format!("not a report, number {number}");
        let new = NewQuarantined {
            received_at: place.clock.now(),
            arrival: Arrival::Smtp,
            source: "192.0.2.0/24",
            is_trusted: false,
            reason: "neither a TLS report nor a DMARC report is in the message",
            raw: raw.as_bytes(),
        };
        place.store.quarantine(&new, &Quota { bytes: 1 << 30, items: 1 << 20 }).await.unwrap();
    }
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let (mut path, mut entries) = ("/quarantine".to_owned(), 0);
    loop {
        let page = ada.get(&path).await.body;
        assert!(page.len() < MOST, "{path}: {}", page.len());
        entries += page.matches("href=\"/quarantine/").count();
        let Some((_, next)) = page.split_once("href=\"/quarantine?after=") else { break };
        path = format!("/quarantine?after={}", next.split('"').next().unwrap());
    }
    assert_eq!((entries, path.as_str()), (250, "/quarantine?after=200"));
    assert_eq!(ada.get("/quarantine?format=csv").await.body.lines().count(), 251);
}

#[tokio::test]
async fn the_page_of_many_dmarc_reports_has_the_newest_and_says_that_it_is_cut() {
    let place = Place::new().await;
    let now = place.clock.now();
    let reports: Vec<NewDmarcReport> = (0..300)
        .map(|number: i64| NewDmarcReport {
            source: "big.example".into(),
            submitter: "big.example".into(),
            signer: None,
            trust: Trust::Unverified,
            arrival: Arrival::Smtp,
            received_at: now,
            report: DmarcReport {
                organization: "Big".into(),
                email: String::new(),
                report_id: number.to_string(),
                range: DateRange::utc_day(now - jiff::SignedDuration::from_hours(24 * (number % 10))),
                domain: DomainName::parse(&format!("d{number:03}.example")).unwrap(),
                rows: vec![DmarcRow {
                    source: Some(std::net::IpAddr::from([192, 0, 2, 1])),
                    disposition: Disposition::None,
                    dkim: Alignment::Pass,
                    spf: Alignment::Fail,
                    messages: 7,
                }],
                uncounted: 0,
            },
        })
        .collect();
    place.store.keep_dmarc_reports(&reports, DmarcQuota::default()).await.unwrap();
    let mut ada = place.user("ada", Role::Operator, "198.51.100.1").await;
    let page = ada.get("/dmarc").await.body;
    assert!(page.len() < MOST, "{}", page.len());
    for part in ["By domain; only the first 60 by name", "the newest first; only the first 60"] {
        assert!(page.contains(part), "{part}");
    }
    // Thirty domains a day: those of the two newest days.
    let (_, sources) = page.split_once("By day and source").unwrap();
    assert!(sources.contains("d000.example") && sources.contains("d291.example"));
    assert!(!sources.contains("d002.example"));
    assert_eq!(ada.get("/dmarc?format=csv").await.body.lines().count(), 301);
}
