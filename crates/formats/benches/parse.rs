//! Time and allocations of parsing and matching. The `_floor` benchmarks measure the work that no parser can avoid,
//! such as splitting lines and checking UTF-8. Run: `cargo bench -p sternpost-formats`.

#![allow(missing_docs, clippy::unwrap_used)]

use divan::{AllocProfiler, Bencher, black_box};
use sternpost_formats as formats;

use formats::report::Report;
use formats::tls_policy::{Answer, Level, Tlsrpt, TlsrptPolicy};
use formats::{DomainName, MxPattern, Policy, StsRecord};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// A policy of 20 lines, 17 of which are `mx` patterns.
fn policy_of_20_lines() -> String {
    let mx: String = (1..=17).map(|n| format!("mx: mx{n}.mail.example.org\r\n")).collect();
    format!("version: STSv1\r\nmode: enforce\r\n{mx}max_age: 604800\r\n")
}

const RECORD: &[u8] = b"v=STSv1; id=20261124133000;";

#[divan::bench]
fn policy_20_lines_floor(bencher: Bencher<'_, '_>) {
    let body = policy_of_20_lines();
    bencher.bench(|| {
        let lines = black_box(body.as_bytes()).split(|byte| *byte == b'\n');
        lines
            .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
            .map(|(key, _)| key.len())
            .sum::<usize>()
    });
}

#[divan::bench]
fn policy_20_lines(bencher: Bencher<'_, '_>) {
    let body = policy_of_20_lines();
    bencher.bench(|| Policy::parse(black_box(body.as_bytes())).unwrap());
}

#[divan::bench]
fn policy_5_lines(bencher: Bencher<'_, '_>) {
    let body =
        "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmx: *.example.net\r\nmax_age: 604800\r\n";
    bencher.bench(|| Policy::parse(black_box(body.as_bytes())).unwrap());
}

#[divan::bench]
fn sts_record_floor() -> usize {
    black_box(RECORD)
        .split(|byte| *byte == b';')
        .filter_map(|field| std::str::from_utf8(field).ok())
        .map(str::len)
        .sum()
}

#[divan::bench]
fn sts_record() -> StsRecord {
    StsRecord::parse(black_box(RECORD)).unwrap()
}

#[divan::bench]
fn mx_match_last_of_17_patterns(bencher: Bencher<'_, '_>) {
    let policy = Policy::parse(policy_of_20_lines().as_bytes()).unwrap();
    let host = DomainName::parse("mx17.mail.example.org").unwrap();
    bencher.bench(|| black_box(&policy).covers(black_box(&host)));
}

#[divan::bench]
fn mx_match_wildcard(bencher: Bencher<'_, '_>) {
    let pattern = MxPattern::parse("*.mail.example.org").unwrap();
    let host = DomainName::parse("mx17.mail.example.org").unwrap();
    bencher.bench(|| black_box(&pattern).matches(black_box(&host)));
}

#[divan::bench]
fn postfix_answer_with_report_attributes(bencher: Bencher<'_, '_>) {
    let body = policy_of_20_lines();
    let policy = Policy::parse(body.as_bytes()).unwrap();
    let policy_string = formats::policy::lines(&body).map(str::to_owned).collect();
    let found = TlsrptPolicy::Sts { policy_string, mx: policy.mx.clone(), failure: None };
    let report = Tlsrpt { policy_domain: DomainName::parse("example.org").unwrap(), found };
    let answer = Answer::Level(Level::Secure(policy.mx), Some(report));
    bencher.bench(|| black_box(&answer).reply(true).encode());
}

const REPORT: &[u8] = br#"{"organization-name":"Company-X","date-range":{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"},"contact-info":"sts@x.example","report-id":"5065427c","policies":[{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: testing"],"policy-domain":"y.example","mx-host":["*.mail.y.example"]},"summary":{"total-successful-session-count":5326,"total-failure-session-count":3},"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"2001:db8::1","receiving-mx-hostname":"mx1.mail.y.example","failed-session-count":3}]}]}"#;

#[divan::bench]
fn report_floor() -> serde_json::Value {
    serde_json::from_slice(black_box(REPORT)).unwrap()
}

#[divan::bench]
fn report() -> formats::report::ReadReport {
    Report::read(black_box(REPORT)).unwrap()
}
