//! The report inbox: the rate of report imports, against a floor (only decompressing and parsing them, on one thread)
//! in the same run; then the response times of dashboard pages with half a million reports.
//!
//! `cargo bench --bench inbox` prints the tables of docs/performance.md. `SPOST_REPORTS` sets the number of
//! reports for the second; 0 skips it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use formats::dmarc::DmarcReport;
use formats::report::{DateRange, Report, pack, unpack};
use formats::{DomainName, Mode, MxPattern};
use jiff::{SignedDuration, Timestamp};
use process::{cpu_of_ended, median, words};
use receiver::rollout::RolloutState;
use receiver::rollout::state::{InMode, PublishedPolicy};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use store::Store;
use store::dmarc::{DmarcQuota, NewDmarcReport};
use store::outgoing::NewOutgoing;
use store::reports::{Arrival, NewQuarantined, NewReport, Quota, Trust};

const FILES: usize = 20_000;
const DOMAINS: usize = 1_000;
const SENDERS: [&str; 8] = [
    "big.example",
    "large.example",
    "mail.example",
    "isp.example",
    "corp.example",
    "school.example",
    "small.example",
    "tiny.example",
];

/// A small pseudorandom number generator with a fixed seed, so that every run has the same reports.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A report as senders write it; one in ten contains failures.
fn json(dice: &mut Dice, domain: &str, sender: &str, day: Timestamp, number: usize) -> String {
    let range = DateRange::utc_day(day);
    let kinds =
        ["certificate-expired", "starttls-not-supported", "certificate-not-trusted", "validation-failure"];
    let failures = if dice.roll(10) == 0 { 1 + dice.roll(4) } else { 0 };
    let details: Vec<String> = (0..failures)
        .map(|n| {
            let (kind, ip, count) = (kinds[dice.roll(4) as usize], dice.roll(250), 1 + dice.roll(30));
            format!(r#"{{"result-type":"{kind}","sending-mta-ip":"198.51.100.{ip}","receiving-mx-hostname":"mx{}.{domain}","receiving-ip":"203.0.113.{ip}","failed-session-count":{count}}}"#, 1 + n % 2)
        })
        .collect();
    let failed: u64 = failures * 5;
    let worked = 1 + dice.roll(40);
    format!(
        r#"{{"organization-name":"{sender} Inc.","date-range":{{"start-datetime":"{}","end-datetime":"{}"}},"contact-info":"smtp-tls-reporting@{sender}","report-id":"{}T00:00:00Z_{number}_{domain}","policies":[{{"policy":{{"policy-type":"sts","policy-string":["version: STSv1","mode: testing","mx: mx1.{domain}","mx: mx2.{domain}","max_age: 604800"],"policy-domain":"{domain}","mx-host":["mx1.{domain}","mx2.{domain}"]}},"summary":{{"total-successful-session-count":{worked},"total-failure-session-count":{failed}}},"failure-details":[{}]}}]}}"#,
        range.start,
        range.end,
        range.start.strftime("%Y-%m-%d"),
        details.join(",")
    )
}

fn main() {
    match words(&["floor"]).as_deref() {
        Some([role, folder]) if role == "floor" => floor(Path::new(folder)),
        Some(_) => {
            import();
            pages();
        }
        None => {}
    }
}

/// Reads, decompresses and parses the files of a folder on one thread.
fn floor(folder: &Path) {
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        read += usize::from(Report::read(&unpack(&bytes).unwrap().0).is_ok());
    }
    println!("{read}");
}

/// Runs a command and checks its output. Returns the seconds and the seconds of CPU time that it took.
fn timed(command: &mut Command, output: &str) -> (f64, f64) {
    let (begun, cpu) = (Instant::now(), cpu_of_ended());
    let done = command.output().unwrap();
    let took = (begun.elapsed().as_secs_f64(), cpu_of_ended() - cpu);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains(output), "{said}");
    took
}

/// Runs of the floor and of the import, in turns.
const TURNS: usize = 5;

fn import() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("in");
    std::fs::create_dir(&folder).unwrap();
    let mut dice = Dice(1);
    let now = Timestamp::now();
    let mut bytes = 0;
    for number in 0..FILES {
        let (domain, sender) = (format!("d{}.example", number % DOMAINS), SENDERS[number % SENDERS.len()]);
        let day = now - SignedDuration::from_hours(24 * (1 + (number / DOMAINS) as i64));
        let packed = pack(json(&mut dice, &domain, sender, day, number).as_bytes()).unwrap();
        bytes += packed.len();
        std::fs::write(folder.join(format!("{sender}!{domain}!{number}!{number}.json.gz")), packed).unwrap();
    }
    println!("\n{FILES} reports, {} bytes each packed\n", bytes / FILES);
    println!("| what | reports/s | of the floor | processor time |\n| --- | ---: | ---: | ---: |");
    let (mut floors, mut imports) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        floors.push(timed(command.arg("floor").arg(&folder), &FILES.to_string()));
        let fresh = tempfile::tempdir_in(place.path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        command.current_dir(fresh.path()).args(["reports", "import", "--json"]).arg(&folder);
        imports.push(timed(&mut command, &format!("\"new\":{FILES}")));
    }
    let wall = |runs: &[(f64, f64)]| median(runs.iter().map(|(wall, _)| *wall));
    let cpu = |runs: &[(f64, f64)]| median(runs.iter().map(|(_, cpu)| *cpu));
    for (what, runs) in [
        ("floor: read, unpack, parse, one thread", &floors),
        ("`reports import`, durable, the whole program", &imports),
    ] {
        let (share, rate) = (wall(&floors) / wall(runs), FILES as f64 / wall(runs));
        println!("| {what} | {rate:.0} | {share:.2} | {:.2} s |", cpu(runs));
    }
}

/// Stores half a million reports about a thousand domains, and measures the pages that show them.
fn pages() {
    let reports: usize =
        std::env::var("SPOST_REPORTS").ok().and_then(|text| text.parse().ok()).unwrap_or(500_000);
    if reports == 0 {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("sternpost.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let begun = Instant::now();
    runtime.block_on(fill(&file, reports));
    let took = begun.elapsed().as_secs_f64();
    let size = std::fs::metadata(&file).unwrap().len();
    println!(
        "\n{reports} reports about {DOMAINS} domains: {:.0} bytes of database a report, kept at {:.0} a second\n",
        size as f64 / reports as f64,
        reports as f64 / took
    );
    let domains: String = (0..DOMAINS).map(|n| format!("[[domain]]\nname = \"d{n}.example\"\n")).collect();
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!("[dns]\nservers = [\"127.0.0.1:1\"]\n[dashboard]\nlisten = [\"{at}\"]\n{domains}");
    std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
    let site = measure(place.path(), at, "1,000 domains", None);
    let begun = Instant::now();
    runtime.block_on(fill_many(&file));
    runtime.block_on(fill_lists(&file));
    println!("\n{MANY} more domains, stored in {:.0} s\n", begun.elapsed().as_secs_f64());
    measure(place.path(), at, "100,000 domains", Some(site));
}

/// Domains that are added for the second table; most are enforced.
const MANY: usize = 99_000;

/// Starts the server, and prints the response times of its pages. The client stays signed in for the next server.
fn measure(place: &Path, at: SocketAddr, about: &str, site: Option<Site>) -> Site {
    let mut running = serve(place, at);
    let begun = Instant::now();
    let site = site.unwrap_or_else(|| sign_in(place, at));
    first_pages(&site, begun);
    println!("| {about} | p50 | p95 | p99 | bytes |\n| --- | --- | --- | --- | --- |");
    for (name, path) in [
        ("overview", "/"),
        ("report on all domains", "/report"),
        ("overview, searched", "/?q=d#&state=testing"),
        ("overview, sorted", "/?sort=failed&dir=desc&page=#"),
        ("needs action", "/alerts"),
        ("a domain, 30 days", "/domains/d#.example"),
        ("a domain, 90 days", "/domains/d#.example?days=90"),
        ("a domain, 365 days", "/domains/d#.example?days=365"),
        ("the page to print", "/domains/d#.example/report"),
        ("reports", "/reports"),
        ("reports of a domain", "/reports?domain=d#.example"),
        ("a report", "/reports/#1"),
        ("reports of a sender", "/reports?submitter=big.example"),
        ("reports with failures", "/reports?failed=on"),
        ("senders of all, 30 days", "/senders"),
        ("journal", "/journal"),
        ("DMARC reports", "/dmarc"),
        ("quarantine", "/quarantine"),
        ("sending", "/sending"),
        ("settings", "/settings"),
        ("account", "/account"),
        ("the page of a check", "/domains/d#.example/check"),
    ] {
        let mut times = Vec::new();
        let mut size = 0;
        for n in 0..100 {
            let path = path.replace('#', &(n * 5).to_string());
            let begun = Instant::now();
            let answer = site.get(&path);
            times.push(begun.elapsed());
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {}", &answer[..answer.len().min(200)]);
            size = size.max(answer.len());
        }
        times.sort();
        let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1000.0;
        println!("| {name} | {:.1} ms | {:.1} ms | {:.1} ms | {size} |", at(50), at(95), at(99));
    }
    running.kill().unwrap();
    running.wait().unwrap();
    site
}

/// Prints how long the first page takes after the start, and when its figures are complete.
fn first_pages(site: &Site, begun: Instant) {
    let first = Instant::now();
    let mut answer = site.get("/");
    println!("\nthe first page: {:.0} ms, {} bytes", first.elapsed().as_secs_f64() * 1000.0, answer.len());
    while answer.contains("being counted") || answer.contains("still being read") {
        std::thread::sleep(Duration::from_millis(50));
        answer = site.get("/");
    }
    println!("all figures: {:.1} s after the start\n", begun.elapsed().as_secs_f64());
}

/// Adds domains to the store, as a hosting provider has them: enforced, and one in a hundred not set up.
async fn fill_many(file: &Path) {
    let store = Store::open(file, store::Tenant::FIRST).await.unwrap();
    let since = Timestamp::now() - SignedDuration::from_hours(24 * 90);
    for n in 0..MANY {
        let name = DomainName::parse(&format!("customer{n}.example")).unwrap();
        store.put_domain(&name, &receiver::domain::DomainSpec::new(name.clone())).await.unwrap();
        if n % 100 == 0 {
            continue;
        }
        let promise = PublishedPolicy {
            mode: Mode::Enforce,
            max_age: 604_800,
            mx: vec![MxPattern::parse("mx.provider.example").unwrap()],
            until: None,
            assumed: false,
        };
        let mode = Some(InMode { mode: Mode::Enforce, since });
        let state = RolloutState { mode, published: vec![promise], ..RolloutState::default() };
        store.put_rollout(&name, &state).await.unwrap();
    }
    store.close().await;
}

/// Rows of the other lists: journal, DMARC reports, quarantine and reports to send.
const ROWS: usize = 20_000;

async fn fill_lists(file: &Path) {
    let store = Store::open(file, store::Tenant::FIRST).await.unwrap();
    let now = Timestamp::now();
    let name = |n: usize| DomainName::parse(&format!("d{}.example", n % DOMAINS)).unwrap();
    let quota = Quota { bytes: 1 << 30, items: ROWS as u64 };
    let mut dmarc = Vec::new();
    let mut sent = Vec::new();
    for n in 0..ROWS {
        let day = now - SignedDuration::from_hours(24 * (1 + (n / DOMAINS) as i64));
        store
            .journal(&name(n), day, "planner", "testing announced with a policy of two MX hosts")
            .await
            .unwrap();
        let source = format!("192.0.2.{}", n % 250);
        if n % 10 == 0 {
            let raw = format!("this is not a report, and the number of it is {n}");
            let new = NewQuarantined {
                received_at: day,
                arrival: Arrival::Smtp,
                source: &source,
                is_trusted: false,
                reason: "neither a TLS report nor a DMARC report is in the message",
                raw: raw.as_bytes(),
            };
            store.quarantine(&new, &quota).await.unwrap();
        }
        let begin = DateRange::utc_day(day).start.as_second();
        let text = format!(
            "<feedback><report_metadata><org_name>x</org_name><report_id>{n}</report_id><date_range><begin>{begin}</begin></date_range></report_metadata><policy_published><domain>{}</domain></policy_published><record><row><source_ip>{source}</source_ip><count>{n}</count><policy_evaluated><disposition>none</disposition><dkim>pass</dkim></policy_evaluated></row></record></feedback>",
            name(n)
        );
        dmarc.push(NewDmarcReport {
            source: SENDERS[n % SENDERS.len()].to_owned(),
            submitter: SENDERS[n % SENDERS.len()].to_owned(),
            signer: None,
            trust: Trust::Verified,
            arrival: Arrival::Smtp,
            received_at: day,
            report: DmarcReport::read(text.as_bytes(), &mut 1000).unwrap(),
        });
        sent.push(NewOutgoing {
            day: DateRange::utc_day(day).start,
            domain: name(n),
            report_id: format!("{n}@ours.example"),
            packed: pack(b"{}").unwrap(),
            successful: 5,
            failed: 1,
            due: now,
        });
    }
    store.keep_dmarc_reports(&dmarc, DmarcQuota::default()).await.unwrap();
    store.put_outgoing(&sent).await.unwrap();
    store.close().await;
}

async fn fill(file: &Path, reports: usize) {
    let store = Store::open(file, store::Tenant::FIRST).await.unwrap();
    let now = Timestamp::now();
    let mut dice = Dice(2);
    let mut batch = Vec::new();
    for number in 0..reports {
        let domain = format!("d{}.example", number % DOMAINS);
        let turn = number / DOMAINS;
        let sender = SENDERS[turn % SENDERS.len()];
        let day = now - SignedDuration::from_hours(24 * (1 + (turn / SENDERS.len()) as i64));
        let json = json(&mut dice, &domain, sender, day, number);
        batch.push(NewReport {
            submitter: sender.to_owned(),
            signer: Some(sender.to_owned()),
            trust: Trust::Verified,
            about: None,
            arrival: Arrival::Smtp,
            received_at: now,
            source: sender.to_owned(),
            report: Report::read(json.as_bytes()).unwrap().report,
            warnings: 0,
            packed: pack(json.as_bytes()).unwrap(),
        });
        if batch.len() == 1000 || number + 1 == reports {
            store.keep_reports(&batch).await.unwrap();
            batch.clear();
        }
    }
    for n in 0..DOMAINS {
        let name = DomainName::parse(&format!("d{n}.example")).unwrap();
        let promise = PublishedPolicy {
            mode: Mode::Testing,
            max_age: 86_400,
            mx: vec![MxPattern::parse(&format!("mx1.{name}")).unwrap()],
            until: None,
            assumed: false,
        };
        let mode = Some(InMode { mode: Mode::Testing, since: now - SignedDuration::from_hours(24 * 60) });
        store
            .put_rollout(&name, &RolloutState { mode, published: vec![promise], ..RolloutState::default() })
            .await
            .unwrap();
    }
    store.close().await;
}

fn serve(place: &Path, at: SocketAddr) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
        .current_dir(place)
        .arg("serve")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while TcpStream::connect(at).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not serve");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// A client of the dashboard that is signed in.
struct Site {
    at: SocketAddr,
    cookie: String,
}

impl Site {
    fn talk(&self, line: &str, more: &str) -> String {
        let mut stream = TcpStream::connect(self.at).unwrap();
        let (at, cookie) = (self.at, &self.cookie);
        write!(stream, "{line} HTTP/1.1\r\nHost: {at}\r\nCookie: {cookie}\r\nConnection: close\r\n{more}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.talk(&format!("GET {path}"), "\r\n")
    }
}

fn sign_in(place: &Path, at: SocketAddr) -> Site {
    let link = std::fs::read_to_string(place.join("dashboard-link")).unwrap();
    let path = link.trim().split_once(&at.to_string()).unwrap().1.to_owned();
    let mut site = Site { at, cookie: String::new() };
    let form = "password=correct-horse-battery&again=correct-horse-battery";
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let answer = site
        .talk(&format!("POST {path}"), &format!("{kind}\r\nContent-Length: {}\r\n\r\n{form}", form.len()));
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    site.cookie = cookie.split(';').next().unwrap().to_owned();
    site
}
