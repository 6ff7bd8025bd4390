//! Measures the memory of the process while hostile mails are read side by side: it stays below the budget that the inbox
//! reserves from, so what is reserved covers what is allocated. The process has only this test, since others would be
//! measured too.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use formats::report::pack;
use net::clock::SystemClock;
use net::dns::{Answer, Dns, DnsError, Kind};
use std::sync::Arc;
use sternpost_receiver::inbox::{ExtractionPool, Inbox};
use store::Store;
use store::reports::Arrival;

const MEGABYTE: usize = 1 << 20;
const BUDGET: usize = 200 * MEGABYTE;
/// Memory that is not reserved: of the allocator, of threads, and of the messages themselves.
const OTHER: usize = 80 * MEGABYTE;

struct NoDns;

impl Dns for NoDns {
    fn lookup<'a>(
        &'a self,
        _: &'a formats::DomainName,
        _: Kind,
    ) -> net::BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async { Err(DnsError::Timeout) })
    }
}

/// A value in `/proc/self/status` in bytes.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Mails whose values, texts, lines, members and headers take much memory.
fn hostile() -> Vec<Vec<u8>> {
    let report = |policy: &str, more: &str| {
        format!(
            r#"{{"organization-name":"Big",{more}"date-range":{{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"}},"contact-info":"t@big.example","report-id":"1","policies":[{policy}]}}"#
        )
    };
    let policy = |lines: &str| {
        format!(
            r#"{{"policy":{{"policy-type":"sts","policy-string":[{lines}],"policy-domain":"a.example"}},"summary":{{"total-successful-session-count":1}}}}"#
        )
    };
    let detail = r#"{"result-type":"x","failed-session-count":1}"#;
    let details = format!(
        r#"{{"policy":{{"policy-type":"sts"}},"failure-details":[{}]}}"#,
        vec![detail; 90_000].join(",")
    );
    let long: String = (0..25_000).map(|number| format!("{number}{}", "y".repeat(1000))).collect();
    let texts = [
        report(&policy(&vec!["\"a\""; 400_000].join(",")), ""),
        report(&vec![policy(&format!("\"{}\"", "a\\n".repeat(20_000))); 40].join(","), ""),
        report(&details, ""),
        report(&policy("\"v\""), &format!("\"x\":[{}0],", "{\"a\":1},".repeat(300_000))),
        report(&policy("\"v\""), &format!("\"x\":[{}0],", "[[0]],".repeat(300_000))),
        report(&policy("\"v\""), &format!("\"x\":\"{long}\",")),
    ];
    let mut latin = texts[0].clone().into_bytes();
    latin.extend_from_slice(b" \xe4");
    let mut files: Vec<Vec<u8>> = texts.iter().map(|text| pack(text.as_bytes()).unwrap()).collect();
    files.push(pack(&latin).unwrap());
    let mut mails: Vec<Vec<u8>> = files.iter().map(|file| mail("application/tlsrpt+gzip", file)).collect();
    mails
        .push(format!("From: t@big.example\r\n{}\r\n", "DKIM-Signature: a\r\n".repeat(300_000)).into_bytes());
    mails.push(mail("message/rfc822", "Content-Type: message/rfc822\r\n\r\n".repeat(100_000).as_bytes()));
    mails
}

fn mail(kind: &str, content: &[u8]) -> Vec<u8> {
    let head =
        format!("From: t@big.example\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    [head.into_bytes(), data_encoding::BASE64_MIME.encode(content).into_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_the_process_stays_below_the_budget_of_the_inbox() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("inbox.db"), store::Tenant::FIRST).await.unwrap();
    let base = Inbox::new(store, Arc::new(NoDns), Arc::new(SystemClock), Arrival::Smtp);
    let inbox = Arc::new(Inbox { pool: Arc::new(ExtractionPool::new(4, BUDGET)), ..base });
    let mails: Vec<Arc<Vec<u8>>> = hostile().into_iter().map(Arc::new).collect();
    // The peak begins anew (proc(5)), after the mails were made.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS");
    let reading = (0..3).flat_map(|_| mails.clone()).map(|mail| {
        let inbox = inbox.clone();
        tokio::spawn(async move { inbox.read_mail(mail, false, Arrival::Smtp).await })
    });
    let mut done = Vec::new();
    for task in reading.collect::<Vec<_>>() {
        done.push(task.await.unwrap());
    }
    let (peak, reserved) = (status("VmHWM") - before, inbox.pool.memory().peak());
    assert!(peak < BUDGET + OTHER, "{peak} bytes in use, {reserved} reserved");
    assert!(reserved <= BUDGET && reserved > BUDGET / 4);
    assert!(done.iter().any(Result::is_ok));
    drop(done);
    assert_eq!(inbox.pool.memory().used(), 0);
}
