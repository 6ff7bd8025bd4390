//! The first pass of `sternpost check --from` over a long list of names without MTA-STS, against a bare exchange of the same
//! packets: the floor sends prepared queries with as many in flight, and counts the responses without reading them. Resolver,
//! floor and program are separate processes on the same two processors. The resolver answers each query with NXDOMAIN, as for
//! nearly all names of the internet.
//!
//! `cargo bench -p sternpost --bench first_pass [-- NAMES]`

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{RData, Record, rdata};
use process::{Process, cpu, median};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Queries in flight: as many as fit into the receive buffer of the resolver's one socket.
const IN_FLIGHT: usize = 192;
/// Queries in flight for each socket, as in the program.
const PER_SOCKET: usize = 64;
const ROUNDS: usize = 5;

fn main() {
    let Some(words) = process::words(&["resolver", "floor"]) else { return };
    match words.first().map(String::as_str) {
        Some("resolver") => resolver(),
        Some("floor") => floor(words[1].parse().unwrap(), words[2].parse().unwrap()),
        count => compare(count.map_or(200_000, |count| count.parse().unwrap())),
    }
}

fn name(number: usize) -> String {
    format!("name{number}.example")
}

/// Answers every query with NXDOMAIN, and those for the root, by which the program probes a resolver, with a record.
fn resolver() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    println!("{}", socket.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let mut bytes = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        let message = &mut bytes[..length];
        if message[12] == 0 {
            let mut reply = Message::from_vec(message).unwrap();
            reply.metadata.message_type = MessageType::Response;
            reply.metadata.recursion_available = true;
            let root = reply.queries[0].name().clone();
            let ns = hickory_proto::rr::Name::from_ascii("ns.test.").unwrap();
            reply.add_answer(Record::from_rdata(root, 60, RData::NS(rdata::NS(ns))));
            socket.send_to(&reply.to_vec().unwrap(), from).unwrap();
            continue;
        }
        // A response, recursion available, NXDOMAIN.
        message[2] |= 0x80;
        message[3] = 0x83;
        socket.send_to(message, from).unwrap();
    }
}

/// A query as the program sends it.
fn packet(number: usize) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    let prefix = if number.is_multiple_of(2) { "_mta-sts" } else { "_smtp._tls" };
    for label in format!("{prefix}.{}", name(number / 2)).split('.') {
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 16, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet[..2].copy_from_slice(&(number as u16).to_be_bytes());
    packet
}

/// Sends the queries for so many names, and prints the seconds and the seconds of CPU time.
fn floor(resolver: SocketAddr, names: usize) {
    let packets: Arc<Vec<Vec<u8>>> = Arc::new((0..names * 2).map(packet).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let used = cpu("self");
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tasks = (0..IN_FLIGHT / PER_SOCKET).map(|_| {
            let (packets, next) = (packets.clone(), next.clone());
            tokio::spawn(async move {
                let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
                socket.connect(resolver).await.unwrap();
                socket.writable().await.unwrap();
                let (mut waiting, mut bytes) = (0, [0; 4096]);
                loop {
                    while waiting < PER_SOCKET {
                        let Some(packet) = packets.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                        socket.try_send(packet).unwrap();
                        waiting += 1;
                    }
                    if waiting == 0 {
                        return;
                    }
                    if tokio::time::timeout(Duration::from_secs(1), socket.readable()).await.is_err() {
                        // What the kernel dropped is not sent again.
                        waiting = 0;
                    }
                    while socket.try_recv(&mut bytes).is_ok() {
                        waiting -= 1;
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
    println!("{} {}", begun.elapsed().as_secs_f64(), cpu("self") - used);
}

/// Runs the program on a list. Returns seconds, seconds of CPU time, and the peak memory in MiB.
fn program(place: &std::path::Path, resolver: &str) -> (f64, f64, u64) {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
        .current_dir(place)
        .args(["check", "--from", "list", "--resolver", resolver, "--in-flight", &IN_FLIGHT.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    let (mut used, mut most) = (0.0, 0);
    while child.try_wait().unwrap().is_none() {
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status"))
            && let Some(line) = status.lines().find(|line| line.starts_with("VmHWM"))
        {
            most = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            used = cpu(&id);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().unwrap().success());
    (begun.elapsed().as_secs_f64(), used, most >> 10)
}

fn compare(count: usize) {
    let place = tempfile::tempdir().unwrap();
    let list: String = (0..count).map(|number| name(number) + "\n").collect();
    std::fs::write(place.path().join("list"), list).unwrap();
    std::fs::write(place.path().join("sternpost.toml"), "[dns]\ndnssec = \"off\"\n").unwrap();
    let resolver = Process::again(&["resolver"]);
    let mut rounds = Vec::new();
    // The first round warms up.
    for _ in 0..=ROUNDS {
        let floor = Process::again(&["floor", &resolver.line, &count.to_string()]);
        let (seconds, used) = floor.line.split_once(' ').unwrap();
        let floor: (f64, f64) = (seconds.parse().unwrap(), used.parse().unwrap());
        rounds.push((floor, program(place.path(), &resolver.line)));
    }
    rounds.remove(0);
    let rate = |seconds: f64| count as f64 / seconds;
    let each = |used: f64| used * 1e6 / count as f64;
    let floor = median(rounds.iter().map(|(floor, _)| floor.0));
    let own = median(rounds.iter().map(|(_, own)| own.0));
    let ratio = median(rounds.iter().map(|(floor, own)| floor.0 / own.0));
    let floor_used = median(rounds.iter().map(|(floor, _)| floor.1));
    let own_used = median(rounds.iter().map(|(_, own)| own.1));
    let most = rounds.iter().map(|(_, own)| own.2).max().unwrap();
    println!("{count} names, two queries each, {IN_FLIGHT} in flight; medians of {ROUNDS} rounds\n");
    println!("| | names/s | CPU µs/name | of the floor | most memory |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    println!("| floor | {:.0} | {:.1} | 1.00 | |", rate(floor), each(floor_used));
    println!(
        "| sternpost check --from | {:.0} | {:.1} | {ratio:.2} | {most} MiB |",
        rate(own),
        each(own_used)
    );
}
