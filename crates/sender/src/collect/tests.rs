use super::*;
use crate::serve::Shutdown;
use crate::serve::listen::SocketFileOptions;
use net::clock::ManualClock;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

const GOOD: &str = r#"{"d":"a.example","pr":"v=TLSRPTv1; rua=mailto:a@a.example","policies":[{"policy-type":2,"policy-string":["version: STSv1"],"t":0,"f":0}]}"#;
const BAD: &str = r#"{"d":"a.example","policies":[{"policy-type":2,"policy-string":["version: STSv1"],"failure-details":[{"c":201,"n":"mx1"},{"c":204,"n":"mx2"}],"t":2,"f":1}]}"#;

async fn setup() -> (tempfile::TempDir, Store, Arc<ManualClock>, Arc<Collector>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
    let clock = Arc::new(ManualClock::new("2026-11-25T23:59:50Z".parse().unwrap()));
    let collector = Collector::new(store.clone(), clock.clone());
    (dir, store, clock, collector)
}

fn day(text: &str) -> Timestamp {
    format!("{text}T00:00:00Z").parse().unwrap()
}

fn counts(collector: &Collector) -> [u64; 5] {
    let counts = &collector.counts;
    [&counts.received, &counts.stored, &counts.refused, &counts.late, &counts.dropped].map(Counter::get)
}

#[tokio::test]
async fn rpt_21_a_session_counts_once_and_each_of_its_failures_is_a_detail() {
    let (_dir, store, _, collector) = setup().await;
    for _ in 0..5 {
        collector.add_datagram(GOOD.as_bytes());
    }
    collector.add_datagram(BAD.as_bytes());
    collector.add_datagram(b"{");
    collector.add_datagram(&vec![b'x'; DATAGRAM_BYTES + 1]);
    collector.add_datagram(GOOD.replace("\"policy-type\":2", "\"policy-type\":7").as_bytes());
    collector.store().await.unwrap();
    let tally = store.tally(day("2026-11-25")).await.unwrap();
    let entry = &tally[0].entries[0];
    assert_eq!((tally.len(), entry.successful, entry.failed, entry.details.len()), (1, 5, 1, 2));
    assert_eq!(counts(&collector), [9, 6, 3, 0, 0]);
    let record = store.tallied_record(day("2026-11-25"), &tally[0].domain).await.unwrap();
    assert_eq!(record.as_deref(), Some("v=TLSRPTv1; rua=mailto:a@a.example"));
    collector.store().await.unwrap();
    assert_eq!(store.tally_sums(day("2026-11-25")).await.unwrap(), (5, 1));
}

#[tokio::test]
async fn sessions_count_whatever_bytes_foreign_servers_put_into_their_names() {
    let (_dir, store, _, collector) = setup().await;
    let odd: [&[u8]; 7] = [b"\xff\xfe", b"\x00", b"\x1b[0m", b"\n", b"\\ud800", "\u{2028}".as_bytes(), b""];
    for bytes in odd {
        let at = BAD.find("mx1").unwrap();
        let datagram = [&BAD.as_bytes()[..at], bytes, &BAD.as_bytes()[at..]].concat();
        collector.add_datagram(&datagram);
    }
    collector.add_datagram(
        BAD.replace("\"policy-string\":[\"version: STSv1\"]", "\"policy-string\":null,\"pr\":null")
            .as_bytes(),
    );
    collector.store().await.unwrap();
    assert_eq!(counts(&collector), [8, 8, 0, 0, 0]);
    assert_eq!(store.tally_sums(day("2026-11-25")).await.unwrap(), (0, 8));
}

#[tokio::test]
async fn a_session_without_a_policy_counts_under_the_policy_in_the_store() {
    use formats::{Mode, PolicyId};
    use store::policies::StoredPolicy;
    let (_dir, store, clock, collector) = setup().await;
    let now = clock.now();
    let policy = StoredPolicy {
        domain: DomainName::parse("a.example").unwrap(),
        record_id: PolicyId::parse("1").unwrap(),
        body: "version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 86400\n".into(),
        mode: Mode::Enforce,
        fetched_at: now,
        expires_at: net::clock::later(now, SignedDuration::from_hours(24)),
        refresh_at: now,
        dane: String::new(),
        used_at: now,
    };
    store.put_policies(&[policy.into()]).await.unwrap();
    let posted = formats::posted::parse(
        br#"{"policy-domain":"a.example","tls":"verified","receiving-mx-hostname":"mx.a.example","count":3}
            {"policy-domain":"b.example","tls":"none","receiving-mx-hostname":"mx.b.example"}"#,
    );
    assert_eq!(collector.post(posted.unwrap()).await.unwrap(), 4);
    let tally = store.tally(day("2026-11-25")).await.unwrap();
    let shown: Vec<_> = tally
        .iter()
        .map(|one| (one.entries[0].policy_type.to_string(), one.entries[0].successful, one.entries[0].failed))
        .collect();
    assert_eq!(shown, [("sts".into(), 3, 0), ("no-policy-found".into(), 0, 1)]);
    assert_eq!(tally[0].entries[0].mx_host, ["mx.a.example"]);
}

#[tokio::test]
async fn rpt_22_a_policy_failure_is_reported_though_the_delivery_went_through() {
    let (_dir, store, _, collector) = setup().await;
    let delivered = GOOD.replace(r#""t":0"#, r#""failure-details":[{"c":303,"n":"mx1"}],"t":1"#);
    collector.add_datagram(delivered.as_bytes());
    collector.store().await.unwrap();
    let entry = store.tally(day("2026-11-25")).await.unwrap().remove(0).entries.remove(0);
    let results: Vec<&str> = entry.details.iter().map(|detail| detail.result_type.as_str()).collect();
    assert_eq!((entry.successful, entry.failed, results), (1, 0, vec!["sts-webpki-invalid"]));
}

#[tokio::test]
async fn a_session_before_midnight_counts_for_its_day_until_the_day_is_closed() {
    let (_dir, store, clock, collector) = setup().await;
    collector.add_datagram(GOOD.as_bytes());
    clock.advance(20);
    collector.add_datagram(GOOD.as_bytes());
    collector.add_datagram(GOOD.as_bytes());
    collector.store().await.unwrap();
    assert_eq!(store.tally_sums(day("2026-11-25")).await.unwrap(), (1, 0));
    assert_eq!(store.tally_sums(day("2026-11-26")).await.unwrap(), (2, 0));
    let at = |text: &str| {
        let named = format!(
            r#"{{"policy-domain":"a.example","at":"{text}","policies":[{{"policy-type":"no-policy-found","result":"success"}}]}}"#
        );
        formats::posted::parse(named.as_bytes()).unwrap()
    };
    assert_eq!(collector.post(at("2026-11-25T12:00:00Z")).await.unwrap(), 1);
    assert_eq!(store.tally_sums(day("2026-11-25")).await.unwrap(), (2, 0));
    assert!(collector.post(at("2026-11-26T01:00:00Z")).await.unwrap_err().to_string().contains("future"));
    clock.set_by(-20);
    collector.add_datagram(GOOD.as_bytes());
    store.close_day(day("2026-11-25"), false).await.unwrap();
    clock.set_by(20);
    collector.add_datagram(GOOD.as_bytes());
    collector.store().await.unwrap();
    let both = [at("2026-11-26T00:00:05Z"), at("2026-11-25T12:00:00Z")].concat();
    let error = collector.post(both).await.unwrap_err().to_string();
    assert!(error.starts_with("session 2: the reports about 2026-11-25 are built"), "{error}");
    assert_eq!(store.tally_sums(day("2026-11-25")).await.unwrap(), (2, 0));
    assert_eq!(store.tally_sums(day("2026-11-26")).await.unwrap(), (3, 0));
    assert_eq!(counts(&collector), [6, 5, 0, 1, 0]);
}

#[tokio::test]
async fn while_the_store_fails_sessions_are_held_up_to_a_limit_and_further_ones_are_counted() {
    let (dir, store, _, collector) = setup().await;
    collector.add_datagram(GOOD.as_bytes());
    store.close().await;
    assert!(collector.store().await.is_err());
    collector.add_datagram(GOOD.as_bytes());
    assert!(collector.store().await.is_err());
    assert_eq!(counts(&collector), [2, 0, 0, 0, 0]);
    let distinct = |n: usize| GOOD.replace("STSv1", &format!("STSv1{n:060000}"));
    let fits = COLLECTED_BYTES / 60_000;
    for n in 0..fits + 40 {
        collector.add_datagram(distinct(n).as_bytes());
    }
    collector.add_datagram(GOOD.as_bytes());
    let [received, _, _, _, dropped] = counts(&collector);
    assert_eq!(received, 43 + fits as u64);
    assert!((40..60).contains(&dropped), "{dropped}");
    // Move the pending sessions to a collector whose store works.
    let restarted = Collector::new(
        Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap(),
        collector.clock.clone(),
    );
    *restarted.pending() = std::mem::take(&mut *collector.pending());
    *restarted.flushes.lock().await = std::mem::take(&mut *collector.flushes.lock().await);
    restarted.store().await.unwrap();
    let (successful, _) = restarted.store.tally_sums(day("2026-11-25")).await.unwrap();
    assert_eq!(successful + dropped, received);
}

#[tokio::test]
async fn sessions_count_once_when_the_store_has_them_and_the_answer_was_lost() {
    let (dir, store, clock, collector) = setup().await;
    let open = async || Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
    for is_spooled in [false, true] {
        let collector = match is_spooled {
            true => Collector::forwarding(open().await, clock.clone()).unwrap(),
            false => Collector::new(open().await, clock.clone()),
        };
        collector.add_datagram(GOOD.as_bytes());
        collector.store.close().await;
        collector.store().await.unwrap_err();
        // In truth the store has taken them.
        let (again, id) = {
            let mut flushes = collector.flushes.lock().await;
            let (taken, id) = flushes.failed.take().unwrap();
            let copy = Pending { days: taken.days.clone(), ..Pending::default() };
            flushes.failed = Some((copy, id.clone()));
            (taken, id)
        };
        let restarted = match is_spooled {
            true => Collector::forwarding(open().await, clock.clone()).unwrap(),
            false => Collector::new(open().await, clock.clone()),
        };
        let source = CountSource::Flush { id, after: None, at: clock.now() };
        restarted.flush(&again, &source).await.unwrap();
        *restarted.flushes.lock().await = std::mem::take(&mut *collector.flushes.lock().await);
        restarted.add_datagram(GOOD.as_bytes());
        restarted.store().await.unwrap();
    }
    let counted = store.tally_sums(day("2026-11-25")).await.unwrap();
    assert_eq!((counted, store.spooled_sessions().await.unwrap()), ((2, 0), 2));
    // Posted sessions are equal again and again, and count each time.
    let posted = || {
        formats::posted::parse(br#"{"policy-domain":"a.example","tls":"none","receiving-mx-hostname":"mx"}"#)
            .unwrap()
    };
    for _ in 0..2 {
        collector.post(posted()).await.unwrap();
    }
    assert_eq!(store.tally_sums(day("2026-11-25")).await.unwrap(), (2, 2));
}

#[tokio::test]
async fn lib_06_the_socket_has_its_mode_replaces_a_dead_one_and_leaves_a_live_one() {
    let (dir, store, _, collector) = setup().await;
    let path = dir.path().join("run").join("tlsrpt.sock");
    let options = SocketFileOptions { mode: Some(0o622), owner: None };
    let first = DatagramSocket::bind(&path, options).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o622);
    let error = DatagramSocket::bind(&path, options).await.unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    let shutdown = Shutdown::default();
    let thread = first.receive(collector.clone(), shutdown.clone()).unwrap();
    let client = UnixDatagram::unbound().unwrap();
    for _ in 0..100 {
        client.send_to(GOOD.as_bytes(), &path).unwrap();
    }
    while counts(&collector)[0] < 100 {
        tokio::task::yield_now().await;
    }
    collector.store().await.unwrap();
    assert_eq!(store.tally_sums(day("2026-11-25")).await.unwrap(), (100, 0));
    for _ in 0..5 {
        client.send_to(GOOD.as_bytes(), &path).unwrap();
    }
    shutdown.token.cancel();
    thread.join().unwrap();
    assert!(!path.exists());
    assert_eq!(counts(&collector)[0], 105);
    drop(UnixDatagram::bind(&path).unwrap());
    assert!(DatagramSocket::bind(&path, options).await.is_ok());
    std::fs::write(&path, "text").unwrap();
    assert!(DatagramSocket::bind(&path, options).await.unwrap_err().to_string().contains("non-socket"));
}
