//! Lookups of uncached domains in the lab, 64 at a time: DNS, a TLS handshake with the policy host, one GET, and the
//! policy on disk before the answer. The floor serves the same client over the same protocol, and does only the same
//! five DNS queries, handshake and GET. Lab, floor and server are separate processes on the same processors.
//!
//! The domains are names of one unsigned zone, or unsigned zones of their own below a signed one. In the last two tables,
//! a tenth of all requests are for domains whose name server never answers; nobody waits for these requests.
//!
//! `cargo bench -p sternpost --bench cold [-- DOMAINS]`

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use formats::socketmap::encode_request;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use lab::dns::{Rr, Signing, TamperedKind, Tampering};
use lab::{Lab, Ports, site};
use net::BoxFuture;
use net::certificate::Trust;
use net::clock::{Clock, SystemClock};
use net::dns::{Dnssec, Resolver, ResolverConfig};
use net::https::{Fetcher, FetcherConfig};
use net::smtp::server::AnyStream;
use process::{Process, median};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sender::answer::{Discovery, PolicyService, Settings};
use sender::serve::Shutdown;
use sender::serve::listen::{Address, Listener, Serve, SocketFileOptions, run};
use sender::serve::socketmap::Socketmap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

const ONE_ZONE: &str = "all in one zone";
const OWN_ZONES: &str = "each a zone of its own";
const AT_ONCE: usize = 64;
/// In the measurement with mute domains, a client sends one request for such a domain after this many others.
const OTHERS_PER_MUTE: usize = 9;
/// Rounds; in each, every server is measured once.
const ROUNDS: usize = 5;

fn main() {
    let Some(words) = process::words(&["lab", "floor", "serve"]) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = words.get(1).map(Path::new);
    match (words.first().map(String::as_str), place) {
        (Some("lab"), Some(place)) => {
            runtime.block_on(bulk(place, words[2].parse().unwrap(), words[3] == OWN_ZONES));
        }
        (Some("floor"), Some(place)) => runtime.block_on(floor(place)),
        (Some("serve"), Some(place)) => runtime.block_on(serve(place, &words[2])),
        (count, _) => {
            let count = count.map_or(2000, |count| count.parse().unwrap());
            for zones in [ONE_ZONE, OWN_ZONES] {
                runtime.block_on(compare(count, zones));
            }
        }
    }
}

fn domain(number: usize) -> String {
    format!("d{number}.bulk.test")
}

fn mute_domain(number: usize) -> String {
    format!("mute{number}.bulk.test")
}

/// The lab's DNS address and HTTPS port, from the file that the lab process writes.
fn read_addresses(place: &Path) -> (SocketAddr, SocketAddr) {
    let text = std::fs::read_to_string(place.join("addresses")).unwrap();
    let mut lines = text.lines().map(|line| line.parse().unwrap());
    (lines.next().unwrap(), lines.next().unwrap())
}

async fn bulk(place: &Path, count: usize, own_zones: bool) {
    let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
    let signing = if own_zones { Signing::Signed } else { Signing::Unsigned };
    lab.names.add_zone("bulk.test.", signing).unwrap();
    if own_zones {
        let zones: Vec<_> = (0..count).map(|number| format!("{}.", domain(number))).collect();
        lab.names.add_zones(&zones, Signing::Unsigned).unwrap();
    }
    for number in 0..count / OTHERS_PER_MUTE {
        let domain = mute_domain(number);
        for (name, kind) in
            [(format!("_mta-sts.{domain}."), TamperedKind::Txt), (format!("{domain}."), TamperedKind::Mx)]
        {
            lab.names.meddle(&name, kind, Some(Tampering::Drop)).unwrap();
        }
    }
    let mut records = Vec::new();
    for number in 0..count {
        let domain = domain(number);
        let host = format!("mta-sts.{domain}");
        let policy = format!("version: STSv1\r\nmode: enforce\r\nmx: mx.{domain}\r\nmax_age: 604800\r\n");
        lab.sites.put(&host, site(&lab.pki, &host, &policy).unwrap());
        records.push((format!("{host}."), vec![Rr::A(lab.policy_host_address())]));
        records.push((format!("_mta-sts.{domain}."), vec![Rr::Txt(vec!["v=STSv1; id=1;".into()])]));
        records.push((format!("{domain}."), vec![Rr::Mx(10, format!("mx.{domain}."))]));
        records.push((format!("mx.{domain}."), vec![Rr::A(lab.policy_host_address())]));
        if own_zones {
            lab.names.set_all(&format!("{domain}."), std::mem::take(&mut records)).unwrap();
        }
    }
    if !own_zones {
        lab.names.set_all("bulk.test.", records).unwrap();
    }
    std::fs::write(place.join("ca.pem"), lab.pki.root_pem()).unwrap();
    std::fs::write(place.join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
    let https = SocketAddr::from((lab.policy_host_address(), lab.https_port));
    std::fs::write(place.join("addresses"), format!("{}\n{https}\n", lab.names.address)).unwrap();
    println!("up");
    std::io::stdout().flush().unwrap();
    std::future::pending().await
}

async fn serve(place: &Path, dnssec: &str) {
    let (dns, https) = read_addresses(place);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let anchor = std::fs::read_to_string(place.join("root.key")).unwrap();
    let dnssec = if dnssec == "validate" { Dnssec::Validate } else { Dnssec::TrustAd };
    let config = ResolverConfig {
        servers: vec![dns],
        trust_anchor: Some(anchor),
        dnssec,
        ..ResolverConfig::default()
    };
    let addresses = ResolverConfig { dnssec: Dnssec::Off, ..config.clone() };
    let addresses = Arc::new(Resolver::new(&addresses).unwrap());
    let dns = Arc::new(Resolver::beside(&addresses, &config).unwrap());
    let mut fetcher = FetcherConfig::new(Trust::from_file(&place.join("ca.pem")).unwrap());
    (fetcher.port, fetcher.allow_special_addresses) = (https.port(), true);
    let policies = Arc::new(Fetcher::new(fetcher, addresses, clock.clone()).unwrap());
    let store = Store::open(&place.join("s.db"), store::Tenant::FIRST).await.unwrap();
    let discovery = Discovery::new(dns.clone(), policies, store.clone(), clock.clone());
    let answers = PolicyService::new(dns, discovery, store, clock, 64 << 20, Settings::default());
    answer(Arc::new(Socketmap(answers))).await;
}

async fn answer(service: Arc<dyn Serve>) {
    let any = Address::parse("127.0.0.1:0").unwrap();
    let listener = Listener::bind(&any, SocketFileOptions::default()).await.unwrap();
    println!("{}", listener.shown());
    std::io::stdout().flush().unwrap();
    run(listener, service, Shutdown::default()).await;
}

async fn floor(place: &Path) {
    let (dns, https) = read_addresses(place);
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(place.join("ca.pem")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.resumption = rustls::client::Resumption::disabled();
    answer(Arc::new(Floor { dns, https, tls: tokio_rustls::TlsConnector::from(Arc::new(tls)) })).await;
}

#[derive(Clone)]
struct Floor {
    dns: SocketAddr,
    https: SocketAddr,
    tls: tokio_rustls::TlsConnector,
}

impl Serve for Floor {
    fn serve(
        self: Arc<Self>,
        mut stream: AnyStream,
        _: Option<IpAddr>,
        _: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            socket.connect(self.dns).await.unwrap();
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                let text = std::str::from_utf8(&buffer[..read]).unwrap();
                let domain = text.trim_end_matches(',').rsplit_once(' ').unwrap().1.to_owned();
                bare(&socket, &self.tls, self.https, &domain).await;
                let reply = format!("OK secure match=mx.{domain} servername=hostname");
                stream.write_all(format!("{}:{reply},", reply.len()).as_bytes()).await.unwrap();
            }
        })
    }
}

async fn bare(socket: &UdpSocket, tls: &tokio_rustls::TlsConnector, https: SocketAddr, domain: &str) {
    let host = format!("mta-sts.{domain}");
    let mut buffer = vec![0; 4096];
    for (name, kind) in [
        (format!("_mta-sts.{domain}."), RecordType::TXT),
        (format!("{domain}."), RecordType::MX),
        (format!("mx.{domain}."), RecordType::A),
        (format!("{host}."), RecordType::A),
        (format!("{host}."), RecordType::AAAA),
    ] {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(&name).unwrap(), kind));
        socket.send(&question.to_vec().unwrap()).await.unwrap();
        let length = socket.recv(&mut buffer).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap();
    }
    let stream = TcpStream::connect(https).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from(host.clone()).unwrap();
    let mut stream = tls.connect(name, stream).await.unwrap();
    let request =
        format!("GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // The lab closes the connection without a TLS close_notify, as many servers do.
    let _ = stream.read_to_end(&mut text).await;
    assert!(text.windows(6).any(|word| word == b"STSv1\r"));
}

/// The measurements of a server in one round.
struct Seen {
    passed: f64,
    /// The 99th percentile of the latency, in milliseconds.
    p99: f64,
    cpu: f64,
    resident: u64,
}

/// Prints the medians of all rounds; ratios are to the floor in the same round, or to the same server without requests for
/// mute domains.
async fn compare(count: usize, zones: &str) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let number = count.to_string();
    let lab = Process::again(&["lab", dir, &number, zones]);
    let servers: [(&str, &[&str]); 3] = [
        ("floor", &["floor", dir]),
        ("sternpost, the resolver validates", &["serve", dir, "trust-ad"]),
        ("sternpost, validates itself", &["serve", dir, "validate"]),
    ];
    let measure = async |words: &[&str], with_mute| {
        let server = Process::again(words);
        let before = server.cpu();
        let (passed, p99) = ask_all(server.line.parse().unwrap(), count, with_mute).await;
        let seen = Seen { passed, p99, cpu: server.cpu() - before, resident: server.resident() >> 10 };
        let _ = std::fs::remove_file(place.path().join("s.db"));
        seen
    };
    // The first run warms up the lab.
    measure(servers[0].1, false).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut round = Vec::new();
        for (_, words) in servers {
            round.push(measure(words, false).await);
        }
        for (_, words) in &servers[1..] {
            round.push(measure(words, true).await);
        }
        rounds.push(round);
    }
    println!("\n{count} domains, {zones}, {AT_ONCE} at a time\n");
    println!("| | lookups/s | CPU ms/lookup | rate | CPU | p99 ms | resident then |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let middle = |of: &dyn Fn(&[Seen]) -> f64| median(rounds.iter().map(|round| of(round)));
    for (number, (name, _)) in servers.into_iter().enumerate() {
        println!(
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} MiB |",
            middle(&|round| count as f64 / round[number].passed),
            middle(&|round| round[number].cpu * 1000.0 / count as f64),
            middle(&|round| round[0].passed / round[number].passed),
            middle(&|round| round[number].cpu / round[0].cpu),
            middle(&|round| round[number].p99),
            middle(&|round| round[number].resident as f64)
        );
    }
    println!("\nThe same with a tenth of the requests for mute domains:\n");
    println!("| | p99 ms | p99, to that without |");
    println!("| --- | ---: | ---: |");
    for number in [1, 2] {
        println!(
            "| {} | {:.0} | {:.2} |",
            servers[number].0,
            middle(&|round| round[number + 2].p99),
            middle(&|round| round[number + 2].p99 / round[number].p99)
        );
    }
    drop(lab);
}

/// Returns the seconds for all domains, and the 99th percentile of the milliseconds for each.
async fn ask_all(address: SocketAddr, count: usize, with_mute: bool) -> (f64, f64) {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let next = next.clone();
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let mut times = Vec::new();
                let mut mute = JoinSet::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return times;
                    }
                    if with_mute && number.is_multiple_of(OTHERS_PER_MUTE) {
                        mute.spawn(async move {
                            let mut stream = TcpStream::connect(address).await.unwrap();
                            ask(&mut stream, &mute_domain(number / OTHERS_PER_MUTE)).await
                        });
                    }
                    let (domain, begun) = (domain(number), Instant::now());
                    let reply = ask(&mut stream, &domain).await;
                    assert!(reply.contains("secure match="), "{domain}: {reply}");
                    times.push(begun.elapsed().as_secs_f64() * 1000.0);
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort_by(f64::total_cmp);
    (begun.elapsed().as_secs_f64(), times[times.len() * 99 / 100])
}

async fn ask(stream: &mut TcpStream, domain: &str) -> String {
    stream.write_all(&encode_request("postfix", domain)).await.unwrap();
    let mut buffer = vec![0; 4096];
    let length = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}
