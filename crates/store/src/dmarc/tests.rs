use super::quota::share;
use super::*;
use formats::DomainName;
use std::net::IpAddr;

fn row(last: u8, messages: u64) -> DmarcRow {
    DmarcRow {
        source: Some(IpAddr::from([192, 0, 2, last])),
        disposition: Disposition::None,
        dkim: Alignment::Pass,
        spf: Alignment::Fail,
        messages,
    }
}

fn new(submitter: &str, trust: Trust, id: &str, rows: Vec<DmarcRow>) -> NewDmarcReport {
    let range = DateRange::utc_day("2026-11-20T00:00:00Z".parse().unwrap());
    NewDmarcReport {
        source: submitter.into(),
        submitter: submitter.into(),
        signer: trust.counts().then(|| submitter.into()),
        trust,
        arrival: Arrival::Smtp,
        received_at: Timestamp::from_second(1_790_000_000).unwrap(),
        report: DmarcReport {
            organization: "Big\0".into(),
            email: String::new(),
            report_id: id.into(),
            range,
            domain: DomainName::parse("a.example").unwrap(),
            rows,
            uncounted: 1,
        },
    }
}

async fn keep(store: &Store, one: NewDmarcReport) -> KeepOutcome {
    store.keep_dmarc_reports(&[one], DmarcQuota::default()).await.unwrap()[0]
}

/// All sums as text: source, verified, messages, reports.
async fn sums(store: &Store) -> Vec<String> {
    let search = DmarcSearch { domain: None, since: Timestamp::UNIX_EPOCH, most: 1000 };
    let found = store.dmarc_sums(&search).await.unwrap();
    found.iter().map(|s| format!("{} {} {} {}", s.source, s.verified, s.messages, s.reports)).collect()
}

#[tokio::test]
async fn a_dmarc_report_counts_once_and_by_its_highest_trust() {
    let (_dir, store) = crate::scratch().await;
    let rows = || vec![row(1, 5), row(2, 7)];
    let unsigned = new("big.example", Trust::Unverified, "1", rows());
    assert_eq!(keep(&store, unsigned.clone()).await, KeepOutcome::New);
    assert_eq!(keep(&store, unsigned.clone()).await, KeepOutcome::Duplicate);
    assert_eq!(sums(&store).await, ["192.0.2.2 false 7 1", "192.0.2.1 false 5 1"]);
    assert_eq!(keep(&store, new("big.example", Trust::Verified, "1", rows())).await, KeepOutcome::Confirmed);
    assert_eq!(keep(&store, unsigned).await, KeepOutcome::Duplicate);
    assert_eq!(sums(&store).await, ["192.0.2.2 true 7 1", "192.0.2.1 true 5 1"]);
    // Another content, id or submitter is another report; a forged one blocks nothing.
    for other in [
        new("big.example", Trust::Failed, "1", vec![row(1, 6)]),
        new("big.example", Trust::Verified, "2", rows()),
        new("tiny.example", Trust::Verified, "1", rows()),
    ] {
        assert_eq!(keep(&store, other).await, KeepOutcome::New);
    }
    assert_eq!(sums(&store).await, ["192.0.2.2 true 21 3", "192.0.2.1 true 15 3", "192.0.2.1 false 6 1"]);
    let domains = store.dmarc_domains(Timestamp::UNIX_EPOCH, 10).await.unwrap();
    let verified = DmarcDomain {
        domain: "a.example".into(),
        verified: true,
        reports: 3,
        messages: 36,
        aligned: 36,
        stopped: 0,
        uncounted: 3,
    };
    assert_eq!((domains.len(), &domains[0]), (2, &verified));
}

#[tokio::test]
async fn sums_are_selected_by_domain_and_day_and_never_overflow() {
    let (_dir, store) = crate::scratch().await;
    for id in ["1", "2", "3"] {
        keep(&store, new("big.example", Trust::Verified, id, vec![row(1, u64::MAX)])).await;
    }
    assert_eq!(sums(&store).await, [format!("192.0.2.1 true {} 3", i64::MAX)]);
    let search = |domain: Option<&str>, since: &str| DmarcSearch {
        domain: domain.map(str::to_owned),
        since: since.parse().unwrap(),
        most: 10,
    };
    for (search, expected) in [
        (search(Some("a.example"), "2026-11-20T13:00:00Z"), 1),
        (search(Some("b.example"), "2026-11-20T00:00:00Z"), 0),
        (search(None, "2026-11-21T00:00:00Z"), 0),
    ] {
        assert_eq!(store.dmarc_sums(&search).await.unwrap().len(), expected, "{search:?}");
    }
    let old = Timestamp::from_second(1_790_000_001).unwrap();
    assert_eq!(store.delete_dmarc_reports(false, old, 9).await.unwrap(), 0);
    assert_eq!(store.delete_dmarc_reports(true, old, 2).await.unwrap(), 2);
    assert_eq!(store.delete_dmarc_reports(true, old, 2).await.unwrap(), 1);
    assert!(sums(&store).await.is_empty());
    let rows: (i64,) = sql("SELECT count(*) FROM dmarc_row").fetch_one(&store).await.unwrap();
    assert_eq!(rows.0, 0, "rows of deleted reports");
}

/// Pseudo-random numbers below `most`.
fn random(seed: &mut u64, most: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % most
}

#[tokio::test]
async fn the_quota_holds_after_each_report_and_a_flood_displaces_only_itself() {
    let (_dir, store) = crate::scratch().await;
    let quota = DmarcQuota { verified: 1000, unverified: 100 };
    let cost = async |condition: &'static str| {
        let query = built(format!(
            "SELECT CAST(coalesce(sum(cost), 0) AS BIGINT) FROM dmarc_report WHERE {condition}"
        ));
        let (sum,): (i64,) = query.fetch_one(&store).await.unwrap();
        sum
    };
    let small = new("small.example", Trust::Unverified, "small", vec![row(1, 1), row(2, 1)]);
    store.keep_dmarc_reports(&[small], quota).await.unwrap();
    let signed = new("small.example", Trust::Verified, "small", vec![row(1, 1)]);
    store.keep_dmarc_reports(&[signed], quota).await.unwrap();
    let mut seed = 7;
    for id in 0..200 {
        let rows = (0..random(&mut seed, 40)).map(|n| row(u8::try_from(n).unwrap(), 1)).collect();
        // One client that names many senders is one source.
        let submitter = format!("flood{}.example", id % 50);
        let flood = new(&submitter, Trust::Unverified, &id.to_string(), rows);
        let flood = NewDmarcReport { source: "192.0.2.0/24".into(), ..flood };
        store.keep_dmarc_reports(&[flood], quota).await.unwrap();
        assert!(cost("trust < 2").await <= 100, "after report {id}");
        assert_eq!(cost("trust < 2 AND submitter = 'small.example'").await, 3);
    }
    assert!(cost("source = '192.0.2.0/24'").await > 40, "the newest of a large source stay");
    assert_eq!(cost("trust >= 2").await, 2, "verified reports have a quota of their own");
    // Many senders, none of them large: the oldest go.
    for id in 0..200 {
        let many = new(&format!("m{id}.example"), Trust::Unverified, "1", vec![row(1, 1)]);
        store.keep_dmarc_reports(&[many], quota).await.unwrap();
        assert!(cost("trust < 2").await <= 100);
    }
    assert_eq!(cost("submitter = 'm199.example'").await, 2);
}

#[test]
fn shares_are_the_largest_that_fit() {
    let mut seed = 1;
    for _ in 0..2000 {
        let sums: Vec<u64> = (0..1 + random(&mut seed, 9)).map(|_| random(&mut seed, 50)).collect();
        let left = random(&mut seed, 200);
        let share = share(sums.clone(), left);
        let cut = |share: u64| sums.iter().map(|sum| (*sum).min(share)).sum::<u64>();
        assert!(cut(share) <= left, "{sums:?} {left} {share}");
        assert!(share == u64::MAX || cut(share + 1) > left, "{sums:?} {left} {share} is too small");
    }
}
