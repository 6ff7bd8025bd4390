//! Where it happens: a lab with the domains that are asked about and the keys of those who report, and the program with
//! all roles that strangers and mail servers reach, in one process with one store.

use crate::{Plan, ports};
use formats::DomainName;
use jiff::Timestamp;
use lab::dns::{Rr, Signing};
use lab::{Lab, Ports, site};
use net::clock::{Clock, SystemClock};
use sender::report::DkimKey;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use store::reports::{Search, Trust};

/// Domains whose answers are cached and asked for all the time.
pub const HOT: usize = 200;
/// Seconds for which the lab's records are valid: short, so that answers are looked up anew while strangers write.
const TTL: u32 = 300;
/// Organizations that report honestly, and strangers that sign.
pub const SENDERS: usize = 8;
/// The domain that all reports are about.
pub const OURS: &str = "ours.test";
pub const ADDRESS: &str = "tlsrpt@ours.test";

pub struct Place {
    dir: tempfile::TempDir,
    _lab: Lab,
    runtime: tokio::runtime::Runtime,
    pub answers: SocketAddr,
    smtp: SocketAddr,
    lmtp: SocketAddr,
    web: SocketAddr,
    metrics: SocketAddr,
    quota: Quotas,
    honest: Vec<Arc<DkimKey>>,
    strangers: Vec<Arc<DkimKey>>,
}

/// How much strangers may leave in the store, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    pub quarantine: u64,
    pub unverified: u64,
}

/// Where strangers write to.
#[derive(Debug, Clone)]
pub struct Target {
    pub smtp: SocketAddr,
    pub lmtp: SocketAddr,
    pub web: SocketAddr,
    /// The path of the URL for reports.
    pub path: String,
}

/// The running program, which ends with the value.
pub struct Program(Child);

/// What is in the store at the end.
pub struct Stored {
    /// Honest reports by their ID, those whose signature was verified, and all.
    pub different: usize,
    pub verified: usize,
    pub all: usize,
    pub quarantine: u64,
    pub quarantined_items: u64,
    pub unverified: u64,
    pub unverified_reports: u64,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to stop; false if it does not within half a minute.
    pub fn stop(&mut self) -> bool {
        let _ = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            if self.0.try_wait().unwrap().is_some_and(|status| status.success()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }
}

fn key(domain: &str) -> Arc<DkimKey> {
    Arc::new(DkimKey::generate(DomainName::parse(domain).unwrap(), "s").unwrap())
}

/// A domain that is asked about; those from [`HOT`] on are asked about once.
pub fn domain(number: usize) -> String {
    format!("d{number}.bulk.test")
}

/// The answer about it.
pub fn answer(number: usize) -> String {
    format!("secure match=mx.d{number}.bulk.test servername=hostname")
}

impl Place {
    pub fn new(plan: &Plan) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let lab = runtime.block_on(Lab::start(Ports::free(), SystemClock.now())).unwrap();
        let honest: Vec<_> = (0..SENDERS).map(|number| key(&format!("honest{number}.test"))).collect();
        let strangers: Vec<_> = (0..SENDERS).map(|number| key(&format!("stranger{number}.test"))).collect();
        let keys = honest.iter().chain(&strangers).map(|key| key.record().unwrap());
        let keys = keys.map(|(name, value)| (format!("{name}."), vec![Rr::Txt(vec![value])]));
        lab.names.set_all("test.", keys.collect()).unwrap();
        publish(&lab, HOT + plan.times());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), lab.pki.root_pem()).unwrap();
        std::fs::write(dir.path().join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
        // The defaults, or the smallest ones.
        let quota = match plan.is_short {
            false => Quotas { quarantine: 256 << 20, unverified: 128 << 20 },
            true => Quotas { quarantine: 64 << 20, unverified: 64 << 20 },
        };
        let this = Self {
            dir,
            _lab: lab,
            runtime,
            answers: ports::unused(),
            smtp: ports::unused(),
            lmtp: ports::unused(),
            web: ports::unused(),
            metrics: ports::unused(),
            quota,
            honest,
            strangers,
        };
        std::fs::write(this.path().join("sternpost.toml"), this.config()).unwrap();
        this
    }

    fn config(&self) -> String {
        let (lab, names) = (&self._lab, self._lab.names.address);
        format!(
            "[dns]\nservers = [\"{names}\"]\ntrust_anchor = \"root.key\"\n\
             [trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
             [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n\
             [answers]\nlisten = [\"{}\"]\n\
             [metrics]\nlisten = \"{}\"\n\
             [dashboard]\nlisten = [\"{}\"]\n\
             [inbox]\naddresses = [\"{ADDRESS}\"]\nname = \"mx.{OURS}\"\nsmtp = [\"{}\"]\nlmtp = [\"{}\"]\nhttp = \"/in\"\ndmarc = true\n\
             quarantine_size = {}\nunverified_size = {}\n\
             [[domain]]\nname = \"{OURS}\"\n",
            names.port(),
            lab.https_port,
            lab.smtp_port,
            self.answers,
            self.metrics,
            self.web,
            self.smtp,
            self.lmtp,
            self.quota.quarantine >> 20,
            self.quota.unverified >> 20,
        )
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn quota(&self) -> Quotas {
        self.quota
    }

    pub fn honest(&self) -> Vec<Arc<DkimKey>> {
        self.honest.clone()
    }

    pub fn signers(&self) -> Vec<Arc<DkimKey>> {
        self.strangers.clone()
    }

    pub fn start(&self) -> Program {
        let program =
            std::env::var("SPOST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sternpost").to_owned());
        let log = std::fs::File::create(self.path().join("log")).unwrap();
        let child = Command::new(program)
            .current_dir(self.path())
            .env("MALLOC_MMAP_THRESHOLD_", "262144")
            .arg("serve")
            .stderr(log)
            .spawn()
            .unwrap();
        let program = Program(child);
        let begun = Instant::now();
        while !self.log().contains("ready store=") || !self.is_ready() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        program
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Where strangers write to; the path of the URL is a secret in the store.
    pub fn target(&self) -> Target {
        let secret = self.runtime.block_on(async {
            let store = Store::open(&self.path().join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
            store.secret("reports", "not set").await.unwrap()
        });
        Target { smtp: self.smtp, lmtp: self.lmtp, web: self.web, path: format!("/in/{secret}") }
    }

    pub fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.metrics) else { return false };
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).is_ok() && text.starts_with("HTTP/1.1 200")
    }

    /// What is in the store; the program has to have ended.
    pub fn stored_honest_reports(&self) -> Stored {
        self.runtime.block_on(async {
            let store = Store::open(&self.path().join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
            let (mut ids, mut verified) = (Vec::new(), 0);
            for key in &self.honest {
                let submitter = Some(key.domain.to_string());
                let search = Search { submitter, most: u32::MAX >> 1, ..Search::default() };
                for report in store.reports(&search).await.unwrap() {
                    verified += usize::from(report.trust == Trust::Verified);
                    ids.push(report.report_id);
                }
            }
            let all = ids.len();
            ids.sort();
            ids.dedup();
            let quarantine = store.quarantine_usage().await.unwrap();
            let unverified = store.unverified_usage().await.unwrap();
            Stored {
                different: ids.len(),
                verified,
                all,
                quarantine: quarantine.bytes,
                quarantined_items: quarantine.items,
                unverified: unverified.bytes,
                unverified_reports: unverified.reports,
            }
        })
    }
}

/// Publishes the domains that are asked about: a record, a policy and an MX host each.
fn publish(lab: &Lab, count: usize) {
    lab.names.add_zone("bulk.test.", Signing::Unsigned).unwrap();
    lab.names.set_ttl("bulk.test.", TTL);
    let mut records = Vec::new();
    for number in 0..count {
        let domain = domain(number);
        let host = format!("mta-sts.{domain}");
        let policy = format!("version: STSv1\r\nmode: enforce\r\nmx: mx.{domain}\r\nmax_age: 604800\r\n");
        lab.sites.put(&host, site(&lab.pki, &host, &policy).unwrap());
        let here = lab.policy_host_address();
        records.push((format!("{host}."), vec![Rr::A(here)]));
        records.push((format!("_mta-sts.{domain}."), vec![Rr::Txt(vec!["v=STSv1; id=1;".into()])]));
        records.push((format!("{domain}."), vec![Rr::Mx(10, format!("mx.{domain}."))]));
        records.push((format!("mx.{domain}."), vec![Rr::A(here)]));
    }
    lab.names.set_all("bulk.test.", records).unwrap();
}

/// The current time, for reports.
pub fn now() -> Timestamp {
    SystemClock.now()
}
