//! The policy host against nginx with the same files, in the same run: requests per second on persistent connections,
//! and full TLS handshakes with one request each. The load comes from this process.
//!
//! `cargo bench -p sternpost --bench hosting [-- SECONDS]`

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use formats::DomainName;
use lab::pki::{Cert, Pki};
use net::clock::{Clock, SystemClock};
use process::Process;
use receiver::domain::DomainSpec;
use receiver::host::{PolicyHost, SiteCache};
use receiver::rollout::RolloutState;
use receiver::rollout::observed::ObservedState;
use receiver::rollout::plan::{Permit, plan};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use store::hosting::StoredCertificate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const POLICY: &str =
    "version: STSv1\r\nmode: enforce\r\nmx: mx1.d0.example\r\nmx: mx2.d0.example\r\nmax_age: 604800\r\n";
const STORED: usize = 100_000;
/// Domains in use in the last round, spread over all stored ones.
const USED: usize = 1000;
const CONNECTIONS: usize = 32;
/// Domains requested once each: more than the site cache holds.
const ASKED: usize = 25_000;
/// Time limit for a handshake; a server that exceeds it is named.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn main() {
    let Some(words) = process::words(&["serve"]) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match words.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve(Path::new(&words[1]))),
        Some(seconds) => runtime.block_on(compare(seconds.parse().unwrap())),
        None => runtime.block_on(compare(4.0)),
    }
}

async fn serve(place: &Path) {
    let store = Store::open(&place.join("s.db"), store::Tenant::FIRST).await.unwrap();
    let site_cache = Arc::new(SiteCache::new(store, Arc::new(SystemClock)).await.unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    PolicyHost::new(site_cache).unwrap().serve(listener).await;
}

fn host(number: usize) -> String {
    format!("mta-sts.d{number}.example")
}

async fn stocked(place: &Path, pki: &Pki) {
    let store = Store::open(&place.join("s.db"), store::Tenant::FIRST).await.unwrap();
    for number in 0..STORED {
        let domain = DomainName::parse(&format!("d{number}.example")).unwrap();
        store.put_hosted(&domain, Some(POLICY)).await.unwrap();
        let identity = pki.issue(&host(number), Cert::Good).unwrap();
        let name = DomainName::parse(&host(number)).unwrap();
        let certificate = StoredCertificate::given(name, identity.chain_pem(), identity.key_pem());
        store.put_certificate(&certificate).await.unwrap();
    }
    store.close().await;
}

/// An nginx that serves the policy of the first domain.
struct Nginx(Child);

impl Nginx {
    /// Seconds of CPU time of its workers.
    fn cpu(&self) -> f64 {
        let children = format!("/proc/{0}/task/{0}/children", self.0.id());
        std::fs::read_to_string(children).unwrap().split_whitespace().map(process::cpu).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // On SIGTERM, the master process stops its workers.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

async fn nginx(place: &Path, pki: &Pki) -> Nginx {
    let identity = pki.issue(&host(0), Cert::Good).unwrap();
    std::fs::write(place.join("chain.pem"), identity.chain_pem()).unwrap();
    std::fs::write(place.join("key.pem"), identity.key_pem()).unwrap();
    std::fs::create_dir_all(place.join("www/.well-known")).unwrap();
    std::fs::write(place.join("www/.well-known/mta-sts.txt"), POLICY).unwrap();
    let dir = place.display();
    let config = format!(
        "user root;\ndaemon off;\npid {dir}/pid;\nerror_log {dir}/error.log;\nworker_processes auto;\nevents {{ worker_connections 2048; }}\nhttp {{\n\
         access_log off;\nkeepalive_requests 100000000;\nopen_file_cache max=100;\nserver {{\nlisten {NGINX} ssl http2;\nserver_name {};\n\
         ssl_protocols TLSv1.2 TLSv1.3;\nssl_certificate {dir}/chain.pem;\nssl_certificate_key {dir}/key.pem;\n\
         root {dir}/www;\ndefault_type text/plain;\nadd_header Cache-Control max-age=60;\n}}\n}}\n",
        host(0)
    );
    std::fs::write(place.join("nginx.conf"), config).unwrap();
    let child = Command::new("nginx").args(["-c", &format!("{dir}/nginx.conf")]).spawn().unwrap();
    let running = Nginx(child);
    while TcpStream::connect(NGINX).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running
}

const NGINX: &str = "127.0.0.1:18443";

async fn compare(seconds: f64) {
    // In memory, since a hundred thousand orders are slow on a disk.
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let pki = Pki::new(SystemClock.now()).unwrap();
    stocked(place.path(), &pki).await;
    let mut roots = RootCertStore::empty();
    roots.add(pki.root()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let client = TlsConnector::from(Arc::new(config));
    let begun = Instant::now();
    let ours = Process::again(&["serve", place.path().to_str().unwrap()]);
    let start = begun.elapsed();
    let nginx = nginx(place.path(), &pki).await;
    let time = Duration::from_secs_f64(seconds);
    let mut rates = Vec::new();
    for (name, address, names) in
        [("nginx", NGINX, 1), ("sternpost", &ours.line, 1), ("sternpost", &ours.line, USED)]
    {
        // The first round warms up both servers.
        kept(&client, address, names, time / 4).await;
        let cpu = || if name == "nginx" { nginx.cpu() } else { ours.cpu() };
        let before = cpu();
        let kept = kept(&client, address, names, time).await;
        let between = cpu();
        let fresh = fresh(&client, address, names, time).await;
        let each = |used: f64, rate: f64| used / (rate * seconds) * 1e6;
        rates.push((name, names, kept, each(between - before, kept), fresh, each(cpu() - between, fresh)));
    }
    drop(nginx);
    let (_, _, kept, _, fresh, _) = rates[0];
    println!(
        "| server | domains in use | requests/s, kept | ratio | CPU each | handshakes/s | ratio | CPU each |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (name, names, k, k_cpu, f, f_cpu) in &rates {
        println!(
            "| {name} | {names} | {k:.0} | {:.2} | {k_cpu:.1} µs | {f:.0} | {:.2} | {f_cpu:.0} µs |",
            k / kept,
            f / fresh
        );
    }
    println!(
        "\nsternpost, {STORED} domains in the store: up after {start:.0?}, {} MiB resident at the end",
        ours.resident() / 1024
    );
    let begun = Instant::now();
    all(&client, &ours.line).await;
    println!(
        "each of {ASKED} domains asked for once, which is more than memory holds: {:.1?}, {} MiB resident then",
        begun.elapsed(),
        ours.resident() / 1024
    );
    println!("plans of {STORED} domains: {:.1?}", planned());
}

/// Computes the plan to enforcement for many domains, without the DNS and HTTPS observations. Returns the time.
fn planned() -> Duration {
    let seen =
        |host: &DomainName| ObservedState { mx: vec![host.clone()], mx_ttl: 300, ..ObservedState::default() };
    let specs: Vec<(DomainSpec, ObservedState)> = (0..STORED)
        .map(|number| DomainName::parse(&format!("d{number}.example")).unwrap())
        .map(|name| (DomainSpec::new(name.clone()), seen(&name)))
        .collect();
    let now = SystemClock.now();
    let begun = Instant::now();
    for (spec, seen) in &specs {
        let stages = plan(&spec.desired(None, None), &RolloutState::default(), seen, Permit::Testing, now);
        assert_eq!(stages.len(), 5);
    }
    begun.elapsed()
}

async fn connect(client: &TlsConnector, address: &str, number: usize) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(host(number)).unwrap();
    let connected = tokio::time::timeout(HANDSHAKE, client.connect(name, stream)).await;
    connected.unwrap_or_else(|_| panic!("{address} does not end a handshake")).unwrap()
}

async fn get(stream: &mut TlsStream<TcpStream>, number: usize) {
    let request = format!("GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {}\r\n\r\n", host(number));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"max_age: 604800\r\n") {
            assert_ne!(
                stream.read_buf(&mut answer).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap();
}

/// Measures requests per second on persistent connections.
async fn kept(client: &TlsConnector, address: &str, names: usize, time: Duration) -> f64 {
    count(client, address, names, time, async |client, address, number, end| {
        let mut stream = connect(client, address, number).await;
        let mut done = 0;
        while Instant::now() < end {
            get(&mut stream, number).await;
            done += 1;
        }
        done
    })
    .await
}

/// Measures full handshakes per second, with one request each.
async fn fresh(client: &TlsConnector, address: &str, names: usize, time: Duration) -> f64 {
    count(client, address, names, time, async |client, address, first, end| {
        let (first, mut done) = (first / (STORED / USED), 0);
        while Instant::now() < end {
            let number = (first + done * CONNECTIONS) % names * (STORED / USED);
            get(&mut connect(client, address, number).await, number).await;
            done += 1;
        }
        done
    })
    .await
}

/// Sends one request to each of many domains.
async fn all(client: &TlsConnector, address: &str) {
    let some = (0..CONNECTIONS).map(async |first| {
        for number in (first..ASKED).step_by(CONNECTIONS) {
            get(&mut connect(client, address, number).await, number).await;
        }
    });
    futures_util::future::join_all(some).await;
}

async fn count(
    client: &TlsConnector,
    address: &str,
    names: usize,
    time: Duration,
    work: impl AsyncFn(&TlsConnector, &str, usize, Instant) -> usize,
) -> f64 {
    let begun = Instant::now();
    let end = begun + time;
    let tasks =
        (0..CONNECTIONS).map(|task| work(client, address, task % names * (STORED / USED) % STORED, end));
    let done: usize = futures_util::future::join_all(tasks).await.into_iter().sum();
    #[allow(clippy::cast_precision_loss)]
    let done = done as f64;
    done / begun.elapsed().as_secs_f64()
}
