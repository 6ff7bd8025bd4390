//! Collects sessions, against a floor (a loop that only receives and parses) in the same run; then builds, compresses
//! and signs the reports of a day with 100,000 domains. Needs root to set the kernel's datagram queue length in a
//! network namespace of the benchmark.
//!
//! `cargo bench --bench collect` prints the tables of docs/performance.md. `SPOST_DOMAINS` sets the number of domains.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "process/mod.rs"]
#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use formats::datagram::Session;
use formats::report::{DateRange, FailureDetail, PolicyReport};
use formats::result_type::PolicyType;
use formats::tlsrpt_record::MailAddress;
use formats::{DomainName, ResultType};
use jiff::Timestamp;
use net::clock::ManualClock;
use nix::sched::{CloneFlags, unshare};
use process::{Process, cpu, median, resident};
use sender::report::{
    Addresses, Counts, DeliveryLimits, DkimKey, PreparedReport, ReportDelivery, ReportScheduler, Reporter,
    Rules, Transport, compose,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use store::tallies::{DayTally, TallyIncrement};

const SESSIONS: usize = 1_000_000;
const RATE: usize = 50_000;
const SECONDS: usize = 10;
const SENDERS: usize = 20;
const METRICS: &str = "127.0.0.1:8463";

fn main() {
    let Some(words) = process::words(&["floor", "report"]) else { return };
    match words.first().map(String::as_str) {
        Some("floor") => floor(&words[1], words[2].parse().unwrap()),
        Some("report") => report(Path::new(&words[1])),
        _ => {
            unshare(CloneFlags::CLONE_NEWNET).expect("this benchmark needs root");
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            std::fs::write("/proc/sys/net/unix/max_dgram_qlen", "4096").unwrap();
            collecting();
            reporting();
        }
    }
}

/// A datagram as Postfix sends it, for one of a thousand domains. One in twenty sessions fails, at one of many
/// addresses.
fn datagram(n: usize) -> String {
    let domain = format!("d{}.example", n * 7_919 % 1_000);
    let policy = format!(
        r#""policy-type":2,"policy-domain": "{domain}","policy-string":["version: STSv1","mode: enforce","mx: mx1.{domain}","mx: *.backup.{domain}","max_age: 604800"],"mx-host":["mx1.{domain}","*.backup.{domain}"]"#
    );
    let outcome = match n % 20 {
        0 => format!(
            r#""failure-details":[{{"c":204,"s": "192.0.2.1","n": "mx1.{domain}","r": "198.51.100.{}"}}],"t":1,"f":1"#,
            n / 20 % 250
        ),
        _ => r#""t":0,"f":0"#.to_owned(),
    };
    format!(
        r#"{{"dpv": "1","d": "{domain}","pr": "v=TLSRPTv1; rua=mailto:tlsrpt@{domain}","policies":[{{{policy},{outcome}}}]}}"#
    )
}

/// The floor: receives and parses a number of datagrams, then creates a file to signal the end.
fn floor(path: &str, sessions: usize) {
    let socket = UnixDatagram::bind(path).unwrap();
    println!("ready");
    let mut buffer = vec![0; 65_536];
    let mut good = 0;
    for _ in 0..sessions {
        let length = socket.recv(&mut buffer).unwrap();
        good += usize::from(Session::parse(&buffer[..length]).is_ok());
    }
    assert_eq!(good, sessions);
    std::fs::write(format!("{path}.done"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// Sends datagrams as fast as the receiver accepts them. Returns the seconds until `is_done`.
fn flood(path: &Path, datagrams: &[String], is_done: impl Fn() -> bool) -> f64 {
    let client = UnixDatagram::unbound().unwrap();
    client.connect(path).unwrap();
    let begun = Instant::now();
    for n in 0..SESSIONS {
        client.send(datagrams[n % datagrams.len()].as_bytes()).unwrap();
    }
    while !is_done() {
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed().as_secs_f64()
}

/// Sends datagrams at a fixed rate without blocking, as libtlsrpt does. Returns how many were dropped.
fn pour(path: &Path, datagrams: &[String]) -> usize {
    // Each Postfix process has its own socket, and the kernel bounds the send buffer of each.
    let clients: Vec<UnixDatagram> = (0..SENDERS).map(|_| UnixDatagram::unbound().unwrap()).collect();
    for client in &clients {
        client.connect(path).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let begun = Instant::now();
    let mut lost = 0;
    for n in 0..RATE * SECONDS {
        let due = Duration::from_secs_f64(n as f64 / RATE as f64);
        while begun.elapsed() < due {
            std::thread::sleep(Duration::from_micros(50));
        }
        let client = &clients[n % SENDERS];
        lost += usize::from(client.send(datagrams[n % datagrams.len()].as_bytes()).is_err());
    }
    lost
}

fn metric(name: &str) -> u64 {
    let mut stream = TcpStream::connect(METRICS).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("sternpost_{name}_total "))).unwrap();
    line.split(' ').nth(1).unwrap().trim().parse().unwrap()
}

/// Starts the program with an empty store.
fn serve(place: &Path) -> (Process, std::path::PathBuf) {
    let config = format!(
        "[collector]\nsocket = \"s.sock\"\n[metrics]\nlisten = \"{METRICS}\"\n[dns]\nservers = [\"127.0.0.1:1\"]\ndnssec = \"off\"\n"
    );
    std::fs::write(place.join("sternpost.toml"), config).unwrap();
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_sternpost");
    command.args(["-c", &format!("echo started; exec {program} serve 2>log")]).current_dir(place);
    let process = Process::start(command);
    let socket = place.join("s.sock");
    while !socket.exists() || TcpStream::connect(METRICS).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    (process, socket)
}

fn collecting() {
    let datagrams: Vec<String> = (0..100_000).map(datagram).collect();
    println!("\n{SESSIONS} sessions of {} bytes, as fast as they are taken\n", datagrams[1].len());
    println!(
        "| what | sessions/s | of the floor | µs of CPU each | MiB |\n| --- | ---: | ---: | ---: | ---: |"
    );
    let mut rates = Vec::new();
    for round in 0..3 {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("floor.sock");
        let bare = Process::again(&["floor", path.to_str().unwrap(), &SESSIONS.to_string()]);
        let done = path.with_extension("sock.done");
        let took = flood(&path, &datagrams, || done.exists());
        let (floor, floor_cpu) = (SESSIONS as f64 / took, bare.cpu() * 1e6 / SESSIONS as f64);
        drop(bare);
        let (ours, socket) = serve(place.path());
        let before = ours.cpu();
        let took = flood(&socket, &datagrams, || metric("sessions_stored") == SESSIONS as u64);
        let (rate, used) = (SESSIONS as f64 / took, (ours.cpu() - before) * 1e6 / SESSIONS as f64);
        println!("| {round}: floor | {floor:.0} | 1.00 | {floor_cpu:.2} | |");
        println!(
            "| {round}: collector, stored | {rate:.0} | {:.2} | {used:.2} | {} |",
            rate / floor,
            ours.resident() >> 10
        );
        rates.push(rate / floor);
    }
    println!("\nmedian {:.2} of the floor", median(rates.into_iter()));
    let place = tempfile::tempdir().unwrap();
    let (ours, socket) = serve(place.path());
    let (before, own) = (ours.cpu(), cpu("self"));
    let lost = pour(&socket, &datagrams);
    let sent = (RATE * SECONDS - lost) as u64;
    while metric("sessions_stored") < sent {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!(
        "\n{RATE}/s for {SECONDS} s without waiting: {lost} lost, {:.2} µs of CPU each (the sender {:.2})",
        (ours.cpu() - before) * 1e6 / sent as f64,
        (cpu("self") - own) * 1e6 / sent as f64
    );
}

const DAY: &str = "2026-11-24T00:00:00Z";

/// Fills a store with a day of tallies for many domains, ten for each.
fn fill(place: &Path, domains: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&place.join("s.db"), store::Tenant::FIRST).await.unwrap();
        for from in (0..domains).step_by(2_000) {
            let tally: DayTally = (from..(from + 2_000).min(domains))
                .map(|n| {
                    let domain = DomainName::parse(&format!("d{n}.example")).unwrap();
                    let entries = (0..10).map(|kind| entry(&domain, kind)).collect();
                    (domain, TallyIncrement { entries, record: None })
                })
                .collect();
            store.add_tallies(&BTreeMap::from([(DAY.parse().unwrap(), tally)])).await.unwrap();
        }
        store.close().await;
    });
}

fn entry(domain: &DomainName, kind: u64) -> PolicyReport {
    let detail = FailureDetail {
        result_type: ResultType::CertificateExpired,
        sending_mta_ip: "192.0.2.1".parse().ok(),
        receiving_mx_hostname: Some(format!("mx{kind}.{domain}")),
        receiving_mx_helo: None,
        receiving_ip: "198.51.100.7".parse().ok(),
        failed_session_count: kind,
        additional_information: None,
        failure_reason_code: None,
    };
    PolicyReport {
        policy_type: PolicyType::Sts,
        policy_string: vec![
            "version: STSv1".into(),
            "mode: enforce".into(),
            format!("mx: mx{kind}.{domain}"),
            "max_age: 604800".into(),
        ],
        policy_domain: Some(domain.clone()),
        mx_host: vec![format!("mx{kind}.{domain}")],
        successful: 10 + kind,
        failed: kind,
        details: if kind > 4 { vec![detail] } else { Vec::new() },
    }
}

fn reporting() {
    let domains = std::env::var("SPOST_DOMAINS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let place = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    fill(place.path(), domains);
    println!("\n{domains} domains with ten tallies each, tallied in {:.1} s", begun.elapsed().as_secs_f64());
    let process = Process::again(&["report", place.path().to_str().unwrap()]);
    println!("{}", process.line);
}

/// Builds the reports of the day, then signs the message of each with an RSA and with an Ed25519 key, and prints the
/// times.
fn report(place: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let line = runtime.block_on(async {
        let domain = DomainName::parse("sender.example").unwrap();
        let reporter = Reporter {
            organization: "Sender".into(),
            from: MailAddress::parse("t@sender.example").unwrap(),
            contact: MailAddress::parse("t@sender.example").unwrap(),
            addresses: Addresses::Full,
        };
        let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let rsa = Arc::new([DkimKey::from_pem(domain.clone(), "r", &rsa.serialize_pem()).unwrap()]);
        let ed25519 = Arc::new([DkimKey::generate(domain, "e").unwrap()]);
        let store = Store::open(&place.join("s.db"), store::Tenant::FIRST).await.unwrap();
        let scheduler = ReportScheduler {
            store: store.clone(),
            clock: Arc::new(ManualClock::new("2026-11-25T06:00:00Z".parse().unwrap())),
            delivery: ReportDelivery {
                dns: Arc::new(lab::uniform_world::UniformWorld),
                transport: Transport::Sendmail("/bin/false".into()),
                posts: Arc::new(Nobody),
                verify: net::https::Verify::Certificate,
                reporter: reporter.clone(),
                keys: Vec::new(),
                denied: Vec::new(),
                target_rules: Vec::new(),
                busy: DeliveryLimits::default(),
            },
            rules: Rules::default(),
            counts: Counts::default(),
            stop: Default::default(),
        };
        let begun = Instant::now();
        scheduler.build().await.unwrap();
        let built = begun.elapsed().as_secs_f64();
        let after_building = resident("self") >> 10;
        // Each time, all reports are due.
        let [first, second] = ["2026-12-01T00:00:00Z", "2026-12-02T00:00:00Z"].map(|time| time.parse().unwrap());
        let rsa_took = sign(&store, &reporter, rsa, first).await;
        let ed25519_took = sign(&store, &reporter, ed25519, second).await;
        format!(
            "built, packed and in line: {built:.1} s, {after_building} MiB; read again, composed and signed on two cores: RSA {rsa_took:.1} s, Ed25519 {ed25519_took:.1} s; {} MiB",
            resident("self") >> 10
        )
    });
    println!("{line}");
    std::thread::sleep(Duration::from_secs(1));
}

/// An HTTPS client that delivers nothing.
struct Nobody;

impl net::https::Posts for Nobody {
    fn post<'a>(
        &'a self,
        _: &'a formats::tlsrpt_record::HttpsUrl,
        _: &'static str,
        _: net::https::Bytes,
        _: net::https::Verify,
    ) -> net::BoxFuture<'a, Result<u16, net::https::PostError>> {
        Box::pin(async { Err(net::https::PostError::Time) })
    }
}

/// Reads, composes and signs every report, page by page, in two tasks.
async fn sign(store: &Store, reporter: &Reporter, keys: Arc<[DkimKey; 1]>, now: Timestamp) -> f64 {
    let begun = Instant::now();
    loop {
        let mut page =
            store.claim_outgoing(now, now + jiff::SignedDuration::from_hours(1), 1_000).await.unwrap();
        if page.is_empty() {
            return begun.elapsed().as_secs_f64();
        }
        let half = page.split_off(page.len() / 2);
        let mut tasks = tokio::task::JoinSet::new();
        for part in [page, half] {
            let (store, reporter, keys) = (store.clone(), reporter.clone(), keys.clone());
            tasks.spawn(async move {
                let to = MailAddress::parse("r@receiver.example").unwrap();
                for report in part {
                    let packed = store.outgoing_text(report.id).await.unwrap().unwrap();
                    let day = DateRange::utc_day(report.day);
                    let letter =
                        PreparedReport { domain: report.domain, day, report_id: report.report_id, packed };
                    compose(&letter, &reporter, &to, keys.as_ref(), Timestamp::now()).unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}
