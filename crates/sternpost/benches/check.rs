//! Checks many domains in the lab, 64 at a time: the whole program (`sternpost check --from`) against a floor that
//! does only the same DNS queries, TLS handshakes and SMTP sessions, without evaluating them. Every domain has its
//! own policy host name, MX host and certificates. Lab, floor and program are separate processes on the same
//! processors.
//!
//! `cargo bench -p sternpost --bench check [-- DOMAINS]`. `check lab DIR DOMAINS real` serves the lab
//! on ports 53, 443 and 25, for other programs; run it in its own network namespace.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use formats::DomainName;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use lab::behavior::Behavior;
use lab::dns::{Rr, Signing};
use lab::pki::Cert;
use lab::{Lab, Ports, site};
use net::clock::{Clock, SystemClock};
use process::{Process, cpu};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

const AT_ONCE: usize = 64;

fn main() {
    let Some(words) = process::words(&["lab", "floor"]) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = words.get(1).map(Path::new);
    match (words.first().map(String::as_str), place) {
        (Some("lab"), Some(place)) => {
            let real = words.get(3).is_some_and(|word| word == "real");
            runtime.block_on(bulk(place, words[2].parse().unwrap(), real));
        }
        (Some("floor"), Some(place)) => runtime.block_on(floor(place, words[2].parse().unwrap())),
        (count, _) => compare(count.map_or(2000, |count| count.parse().unwrap())),
    }
}

/// Domains in a zone. The lab's name server searches the whole zone for names that do not exist, so zones are small.
const IN_A_ZONE: usize = 500;
/// Up to this number, each domain has its own unsigned zone, which needs its own DNSSEC proof of insecurity.
const OWN_ZONES: usize = 400;

/// The zone of a domain, and the domain's name.
fn domain(number: usize, count: usize) -> (String, String) {
    if count <= OWN_ZONES {
        return (format!("d{number}.test"), format!("d{number}.test"));
    }
    let zone = format!("z{}.bulk.test", number / IN_A_ZONE);
    (zone.clone(), format!("d{number}.{zone}"))
}

fn mx(number: usize) -> String {
    format!("mx{}.mail.bulk.test", number % 2000)
}

/// The lab's DNS address, HTTPS port and SMTP port, from the file that the lab process writes.
fn addresses(place: &Path) -> [SocketAddr; 3] {
    let text = std::fs::read_to_string(place.join("addresses")).unwrap();
    let lines: Vec<SocketAddr> = text.lines().map(|line| line.parse().unwrap()).collect();
    lines.try_into().unwrap()
}

async fn bulk(place: &Path, count: usize, real: bool) {
    let ports = if real { Ports { dns: 53, https: 443, smtp: 25, block: 77 } } else { Ports::free() };
    let lab = Lab::start(ports, SystemClock.now()).await.unwrap();
    lab.names.add_zone("bulk.test.", Signing::Unsigned).unwrap();
    // One server for all MX hosts; each has its own name, `mxN.mail.bulk.test`, under one wildcard certificate.
    let identity = lab.pki.issue("mx.mail.bulk.test", Cert::Wildcard).unwrap();
    let host = DomainName::parse("mx.mail.bulk.test").unwrap();
    let mail = lab.start_mail_host(&host, Behavior::Good, &identity).await.unwrap();
    lab.names.add_zone("mail.bulk.test.", Signing::Unsigned).unwrap();
    let (mut records, mut addresses) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (zone, domain) = domain(number, count);
        if zone == domain || number % IN_A_ZONE == 0 {
            lab.names.add_zone(&format!("{zone}."), Signing::Unsigned).unwrap();
        }
        let mx = mx(number);
        let host = format!("mta-sts.{domain}");
        let policy = format!("version: STSv1\r\nmode: enforce\r\nmx: {mx}\r\nmax_age: 604800\r\n");
        lab.sites.put(&host, site(&lab.pki, &host, &policy).unwrap());
        let txt = |text: &str| vec![Rr::Txt(vec![text.to_owned()])];
        records.push((format!("{host}."), vec![Rr::A(lab.policy_host_address())]));
        if number < 2000 {
            addresses.push((format!("{mx}."), vec![Rr::A(mail)]));
        }
        records.push((format!("_mta-sts.{domain}."), txt("v=STSv1; id=20260101000000;")));
        records.push((format!("_smtp._tls.{domain}."), txt(&format!("v=TLSRPTv1; rua=mailto:r@{domain}"))));
        records.push((format!("_dmarc.{domain}."), txt("v=DMARC1; p=reject")));
        let mut own = txt("v=spf1 mx -all");
        own.push(Rr::Mx(10, format!("{mx}.")));
        records.push((format!("{domain}."), own));
        if zone == domain || number % IN_A_ZONE == IN_A_ZONE - 1 || number + 1 == count {
            lab.names.set_all(&format!("{zone}."), std::mem::take(&mut records)).unwrap();
        }
    }
    lab.names.set_all("mail.bulk.test.", addresses).unwrap();
    std::fs::write(place.join("ca.pem"), lab.pki.root_pem()).unwrap();
    std::fs::write(place.join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
    let https = SocketAddr::from((lab.policy_host_address(), lab.https_port));
    let smtp = SocketAddr::from((mail, lab.smtp_port));
    std::fs::write(place.join("addresses"), format!("{}\n{https}\n{smtp}\n", lab.names.address)).unwrap();
    let config = format!(
        "[dns]\nservers = [\"{0}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
         [lab]\ndns_port = {1}\nhttps_port = {2}\nsmtp_port = {3}\n",
        lab.names.address,
        lab.names.address.port(),
        lab.https_port,
        lab.smtp_port
    );
    std::fs::write(place.join("sternpost.toml"), config).unwrap();
    let list: String = (0..count).map(|number| domain(number, count).1 + "\n").collect();
    std::fs::write(place.join("list"), list).unwrap();
    println!("up");
    std::io::stdout().flush().unwrap();
    std::future::pending().await
}

async fn floor(place: &Path, count: usize) {
    let [dns, https, smtp] = addresses(place);
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
    let tls = TlsConnector::from(Arc::new(tls));
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (next, tls) = (next.clone(), tls.clone());
            tokio::spawn(async move {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                socket.connect(dns).await.unwrap();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let (_, domain) = domain(number, count);
                    questions(&socket, &domain, &mx(number)).await;
                    fetch(&tls, https, &format!("mta-sts.{domain}")).await;
                    session(&tls, smtp, &mx(number)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    println!("{} {}", begun.elapsed().as_secs_f64(), cpu("self"));
}

async fn questions(socket: &UdpSocket, domain: &str, mx: &str) {
    let (domain, mx) = (domain.to_owned(), mx.to_owned());
    let mut buffer = vec![0; 4096];
    for (name, kind) in [
        (domain.clone(), RecordType::MX),
        (mx.clone(), RecordType::A),
        (mx, RecordType::AAAA),
        (format!("_mta-sts.{domain}"), RecordType::TXT),
        (format!("mta-sts.{domain}"), RecordType::A),
        (format!("mta-sts.{domain}"), RecordType::AAAA),
        (format!("_smtp._tls.{domain}"), RecordType::TXT),
        (format!("_dmarc.{domain}"), RecordType::TXT),
        (domain.clone(), RecordType::TXT),
        (format!("default._bimi.{domain}"), RecordType::TXT),
    ] {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
        socket.send(&question.to_vec().unwrap()).await.unwrap();
        let length = socket.recv(&mut buffer).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap();
    }
}

async fn fetch(tls: &TlsConnector, https: SocketAddr, host: &str) {
    let stream = TcpStream::connect(https).await.unwrap();
    let mut stream = tls.connect(ServerName::try_from(host.to_owned()).unwrap(), stream).await.unwrap();
    let request =
        format!("GET /.well-known/mta-sts.txt HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    // The lab closes the connection without a TLS close_notify, as many servers do.
    let _ = stream.read_to_end(&mut text).await;
    assert!(text.windows(6).any(|word| word == b"STSv1\r"));
}

async fn session(tls: &TlsConnector, smtp: SocketAddr, host: &str) {
    let mut clear = BufReader::new(TcpStream::connect(smtp).await.unwrap());
    reply(&mut clear).await;
    say(&mut clear, "EHLO floor.test").await;
    say(&mut clear, "STARTTLS").await;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut sealed = BufReader::new(tls.connect(name, clear.into_inner()).await.unwrap());
    say(&mut sealed, "EHLO floor.test").await;
    say(&mut sealed, "QUIT").await;
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, line: &str) {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    reply(stream).await;
}

async fn reply<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) {
    let mut line = String::new();
    while line.as_bytes().get(3) != Some(&b' ') {
        line.clear();
        assert!(stream.read_line(&mut line).await.unwrap() > 0);
    }
}

/// Runs the program on the list. Returns seconds, seconds of CPU time, and the peak memory in MiB.
fn program(place: &Path, words: &[&str]) -> (f64, f64, u64) {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
        .current_dir(place)
        .args(["check", "--from", "list", "--all"])
        .args(words)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let (mut used, mut most) = (0.0, 0);
    while child.try_wait().unwrap().is_none() {
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status"))
            && status.contains("VmHWM")
        {
            let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
            most = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            used = cpu(&id);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    (begun.elapsed().as_secs_f64(), used, most >> 10)
}

fn compare(count: usize) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let number = count.to_string();
    let lab = Process::again(&["lab", dir, &number]);
    println!("{count} domains, {AT_ONCE} at a time\n");
    println!("| | domains/s | CPU ms/domain | rate | most memory |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let per = |seconds: f64| seconds * 1000.0 / count as f64;
    // The first run warms up the lab.
    drop(Process::again(&["floor", dir, &number]));
    let floor = Process::again(&["floor", dir, &number]);
    let (base, base_cpu) = floor.line.split_once(' ').unwrap();
    let (base, base_cpu): (f64, f64) = (base.parse().unwrap(), base_cpu.parse().unwrap());
    println!("| floor | {:.0} | {:.2} | 1.00 | |", count as f64 / base, per(base_cpu));
    for (words, shown) in
        [(&[][..], "quick"), (&["--deep"], "deep, which opens 10 connections in place of 2")]
    {
        let (passed, used, most) = program(place.path(), words);
        println!(
            "| sternpost check, {shown} | {:.0} | {:.2} | {:.2} | {most} MiB |",
            count as f64 / passed,
            per(used),
            base / passed
        );
    }
    drop(lab);
}
