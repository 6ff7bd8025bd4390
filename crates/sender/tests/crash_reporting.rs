//! Kills the process 200 times each while it collects sessions, builds reports and sends them. Durable data must not be
//! lost, and no report is sent twice unless the target accepted it at the moment of the kill. The process under test is
//! this test program, started again.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::DomainName;
use formats::report::{Report, unpack};
use formats::tlsrpt_record::{HttpsUrl, MailAddress};
use jiff::Timestamp;
use net::BoxFuture;
use net::clock::ManualClock;
use net::dns::{Answer, Data, Dns, DnsError, Kind, Security};
use net::https::{Bytes, PostError, Posts, Verify};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use sternpost_sender::collect::{Collector, DatagramSocket};
use sternpost_sender::report::{
    Addresses, Counts, DeliveryLimits, ReportDelivery, ReportScheduler, Reporter, Rules, Transport,
};
use sternpost_sender::serve::Shutdown;
use sternpost_sender::serve::listen::SocketFileOptions;
use store::Store;

const NAME: &str = "killed_while_it_collects_builds_or_sends_it_loses_nothing_and_sends_nothing_twice";
const KILLS: u32 = 200;
const DOMAINS: u32 = 2000;
const DAY: &str = "2026-11-24T00:00:00Z";

/// Implements the command line that test runners expect of a test without harness: list the tests, or run them.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let run = |work| tokio::runtime::Runtime::new().unwrap().block_on(work);
    match args.first().map(String::as_str) {
        Some("collect") => run(Box::pin(collect(PathBuf::from(&args[1]))) as BoxFuture<'_, ()>),
        Some("build") => run(Box::pin(report(PathBuf::from(&args[1]), 0, 0))),
        Some("send") => run(Box::pin(report(PathBuf::from(&args[1]), 1, args[2].parse().unwrap()))),
        Some("send-all") => run(Box::pin(report(PathBuf::from(&args[1]), 20, args[2].parse().unwrap()))),
        _ if has("--list") && !has("--ignored") => println!("{NAME}: test"),
        _ if has("--list") => {}
        Some(filter) if !filter.starts_with('-') && !NAME.contains(filter) => {}
        _ => {
            let dir = tempfile::tempdir().unwrap();
            let sessions = collecting(dir.path());
            let reports = building(dir.path(), sessions);
            sending(dir.path(), reports);
            println!("test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed");
        }
    }
}

async fn store(folder: &Path) -> Store {
    Store::open(&folder.join("s.db"), store::Tenant::FIRST).await.unwrap()
}

fn print(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// Collects sessions, and prints how many are durable.
async fn collect(folder: PathBuf) {
    let clock = Arc::new(ManualClock::new(DAY.parse().unwrap()));
    let collector = Collector::new(store(&folder).await, clock);
    let options = SocketFileOptions::default();
    let socket = DatagramSocket::bind(&folder.join("tlsrpt.sock"), options).await.unwrap();
    socket.receive(collector.clone(), Shutdown::default()).unwrap();
    // The process's first random identifier takes longer than some rounds.
    collector.store().await.unwrap();
    print("ready");
    loop {
        collector.store().await.unwrap();
        print(&collector.counts.stored.get().to_string());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A DNS in which every domain requests reports over HTTPS, and the host that accepts them. The path is the file that
/// lists accepted reports.
struct World(PathBuf);

impl Dns for World {
    fn lookup<'a>(&'a self, _: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let record = b"v=TLSRPTv1; rua=https://reports.example/in".to_vec();
        let answer = Answer {
            records: vec![Data::Txt(record)],
            ttl: Duration::from_secs(60),
            security: Security::Insecure,
            aliases: Vec::new(),
            is_split: false,
        };
        Box::pin(async { Ok(answer) })
    }
}

/// The host has accepted a report once its ID is in the file.
impl Posts for World {
    fn post<'a>(
        &'a self,
        _: &'a HttpsUrl,
        _: &'static str,
        body: Bytes,
        _: Verify,
    ) -> BoxFuture<'a, Result<u16, PostError>> {
        Box::pin(async move {
            let report = Report::read(&unpack(&body).unwrap().0).unwrap().report;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
            file.write_all(format!("{}\n", report.report_id).as_bytes()).unwrap();
            Ok(200)
        })
    }
}

/// Builds the reports of the day, and sends them in so many turns, five minutes apart. Reports for a busy host wait for a
/// later turn. In each round the claims of the one before are over.
async fn report(folder: PathBuf, turns: u32, round: u32) {
    let world = Arc::new(World(folder.join("accepted")));
    let clock = Arc::new(ManualClock::new("2026-11-25T06:00:00Z".parse().unwrap()));
    clock.advance(round * 16 * 60);
    let scheduler = Arc::new(ReportScheduler {
        store: store(&folder).await,
        clock: clock.clone(),
        delivery: ReportDelivery {
            dns: world.clone(),
            transport: Transport::Sendmail("/bin/false".into()),
            posts: world,
            verify: Verify::Certificate,
            reporter: Reporter {
                organization: "Sender".into(),
                from: MailAddress::parse("t@sender.example").unwrap(),
                contact: MailAddress::parse("t@sender.example").unwrap(),
                addresses: Addresses::Full,
            },
            keys: Vec::new(),
            denied: Vec::new(),
            target_rules: Vec::new(),
            busy: DeliveryLimits::default(),
        },
        rules: Rules::default(),
        counts: Counts::default(),
        stop: Default::default(),
    });
    print("ready");
    if turns == 0 {
        scheduler.build().await.unwrap();
    }
    for _ in 0..turns {
        scheduler.turn().await.unwrap();
        clock.advance(300);
    }
    print("done");
}

fn start(role: &str, folder: &Path, round: u32) -> (Child, BufReader<std::process::ChildStdout>) {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program)
        .arg(role)
        .arg(folder)
        .arg(round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "the process starts with the store of the last round");
    (child, out)
}

/// The time until the kill, different in each round and below about `limit` microseconds.
fn moment(round: u32, limit: u64) -> Duration {
    Duration::from_micros(200 + u64::from(round) * 7_919 % limit)
}

/// The successful and failed sessions in the tallies of the day.
fn sums(folder: &Path) -> (u64, u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = store(folder).await;
        let sums = store.tally_sums(DAY.parse::<Timestamp>().unwrap()).await.unwrap();
        store.close().await;
        sums
    })
}

/// Kills the collector. Every session that it printed as durable must be stored, and every stored session was sent.
/// Returns the number of stored sessions.
fn collecting(folder: &Path) -> u64 {
    let (mut durable, mut sent, mut round) = (0, 0, 0);
    // On a slow machine it takes more kills until enough is durable, and later ones.
    while round < KILLS || (durable <= u64::from(KILLS) && round < 10 * KILLS) {
        let _ = std::fs::remove_file(folder.join("tlsrpt.sock"));
        let (mut child, out) = start("collect", folder, round);
        let client = UnixDatagram::unbound().unwrap();
        client.connect(folder.join("tlsrpt.sock")).unwrap();
        let feeder = std::thread::spawn(move || {
            let mut sent = 0;
            for n in 0.. {
                let domain = (round * 31 + n) % DOMAINS;
                let session =
                    format!(r#"{{"d":"d{domain}.example","policies":[{{"policy-type":9,"t":0,"f":0}}]}}"#);
                if client.send(session.as_bytes()).is_err() {
                    break;
                }
                sent += 1;
            }
            sent
        });
        std::thread::sleep(moment(round, 40_000) * (1 + round / KILLS));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = out.lines().map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok()).last();
        durable += last.unwrap_or(0);
        sent += feeder.join().unwrap();
        round += 1;
    }
    let (stored, failed) = sums(folder);
    println!(
        "collecting: {sent} sessions sent, {durable} printed as durable, {stored} stored, over {round} kills"
    );
    assert!(durable <= stored && stored <= sent && failed == 0, "{durable} {stored} {sent}");
    assert!(durable > u64::from(KILLS), "only {durable}");
    stored
}

/// Kills the builder, and reopens the day after each kill. Then one build runs to the end, and every session must be in
/// exactly one report.
fn building(folder: &Path, sessions: u64) -> usize {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let day: Timestamp = DAY.parse().unwrap();
    let (mut interrupted, mut round) = (0, 0);
    // The duration of a build depends on the machine: kill earlier when a build ended before the kill.
    let mut latest = 150_000;
    while interrupted < KILLS {
        let (mut child, out) = start("build", folder, round);
        std::thread::sleep(moment(round, latest));
        child.kill().unwrap();
        child.wait().unwrap();
        round += 1;
        match out.lines().map_while(Result::ok).any(|line| line == "done") {
            true => latest = (latest * 9 / 10).max(1000),
            false => interrupted += 1,
        }
        runtime.block_on(async {
            let store = store(folder).await;
            store.close_day(day, false).await.unwrap();
            store.close().await;
        });
    }
    let (mut child, _out) = start("build", folder, round);
    child.wait().unwrap();
    let (domains, reports, counted) = runtime.block_on(async {
        let store = store(folder).await;
        let domains = store.tally(day).await.unwrap().len();
        let filter = store::outgoing::OutgoingFilter { most: u32::MAX, ..Default::default() };
        let reports = store.outgoing(&filter).await.unwrap();
        store.close().await;
        (domains, reports.len(), reports.iter().map(|report| report.successful).sum::<u64>())
    });
    println!(
        "building: {reports} reports with {counted} sessions, {interrupted} of {round} builds interrupted"
    );
    assert_eq!((reports, counted), (domains, sessions));
    assert!(reports > 500, "only {reports}");
    reports
}

/// Kills the sender. Every report must be accepted, and twice only if a kill interrupted its delivery.
fn sending(folder: &Path, reports: usize) {
    let mut kills = 0;
    for round in 0..KILLS {
        let (mut child, out) = start("send", folder, round);
        std::thread::sleep(moment(round, 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let is_done = out.lines().map_while(Result::ok).any(|line| line == "done");
        kills += u32::from(!is_done);
        if is_done {
            break;
        }
    }
    let (mut child, _out) = start("send-all", folder, KILLS);
    child.wait().unwrap();
    let mut accepted: BTreeMap<String, u32> = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join("accepted")).unwrap().lines() {
        *accepted.entry(line.to_owned()).or_default() += 1;
    }
    let again: u32 = accepted.values().map(|times| times - 1).sum();
    println!("sending: {} reports accepted, {again} of them again, over {kills} kills", accepted.len());
    assert_eq!(accepted.len(), reports);
    assert!(kills > KILLS / 2, "everything was sent after {kills} kills");
    // At each kill, at most the concurrent deliveries to one host can be repeated.
    let concurrent = formats::limits::REPORTS_PER_HOST as u32;
    assert!(again <= kills * concurrent, "{again} repeated");
}
