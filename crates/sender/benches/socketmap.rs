//! Cached answers against the floor, a bare echo server, in one run: answers a second, the median
//! and the 99th percentile of the time for one, and the processor time that each takes the server.
//! One request in flight a connection; the load comes from this process, the servers are processes
//! of their own on the same processors.
//!
//! `cargo bench -p sternpost-sender --bench socketmap [-- SECONDS]`

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use lab::paper::Paper;
use net::clock::SystemClock;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use sternpost_sender::answer::{Answers, Discovery, Settings};
use sternpost_sender::serve::Shutdown;
use sternpost_sender::serve::listen::{Address, Listener, Serve, SocketFileOptions, Stream, run};
use sternpost_sender::serve::socketmap::Socketmap;
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const DOMAINS: usize = 1000;

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test` runs benches too, without the word.
    let is_bench = words.iter().any(|word| word == "--bench");
    words.retain(|word| word != "--bench");
    if !is_bench && words.first().is_none_or(|word| word != "serve") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match words.first().map(String::as_str) {
        Some("serve") => runtime.block_on(server(&words[1], &words[2])),
        Some(seconds) => runtime.block_on(compare(seconds.parse().unwrap())),
        None => runtime.block_on(compare(4.0)),
    }
}

#[derive(Clone)]
struct Echo;

impl Serve for Echo {
    async fn serve<S: Stream>(self, mut stream: S, _: Shutdown) {
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }
}

async fn server(what: &str, address: &str) {
    let listener =
        Listener::bind(&Address::parse(address).unwrap(), SocketFileOptions::default()).await.unwrap();
    let shown = listener.shown();
    let tell = || {
        println!("{shown}");
        std::io::stdout().flush().unwrap();
    };
    if what == "floor" {
        tell();
        return run(listener, Echo, Shutdown::default()).await;
    }
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("bench.db")).await.unwrap();
    let (world, clock) = (Arc::new(Paper), Arc::new(SystemClock));
    let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
    let answers = Answers::new(world, discovery, store, clock, 64 << 20, Settings::default());
    for number in 0..DOMAINS {
        answers.ask(&domain(number)).await;
    }
    tell();
    run(listener, Socketmap(answers), Shutdown::default()).await;
}

fn domain(number: usize) -> String {
    format!("customer{number}.example.org")
}

struct Server {
    child: Child,
    address: Address,
}

impl Server {
    fn start(what: &str, address: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", what, address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: Address::parse(line.trim()).unwrap() }
    }

    /// Processor time used so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }

    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Outcome {
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

async fn load(server: &Server, connections: usize, map: &'static str, seconds: f64) -> Outcome {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let before = server.cpu();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|number| {
            let address = server.address.clone();
            tokio::spawn(async move {
                match address {
                    Address::Tcp(address) => {
                        let stream = TcpStream::connect(address).await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        client(stream, number, map, end).await
                    }
                    Address::Unix(path) => {
                        client(UnixStream::connect(path).await.unwrap(), number, map, end).await
                    }
                    Address::Systemd => panic!("no address"),
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let (passed, cpu) = (begun.elapsed().as_secs_f64(), server.cpu() - before);
    all.sort_unstable();
    let at = |share: f64| f64::from(all[(all.len() as f64 * share) as usize]) / 1000.0;
    Outcome {
        rate: all.len() as f64 / passed,
        p50: at(0.5),
        p99: at(0.99),
        cpu: cpu * 1e6 / all.len() as f64,
    }
}

/// Asks until the end; nanoseconds for each.
async fn client<S: Stream>(mut stream: S, number: usize, map: &str, end: Instant) -> Vec<u32> {
    let mut times = Vec::with_capacity(1 << 18);
    let mut buffer = vec![0; 4096];
    let mut at = number * 37;
    loop {
        let begun = Instant::now();
        if begun > end {
            return times;
        }
        at += 1;
        let request = formats::socketmap::encode_request(map, &domain(at % DOMAINS));
        stream.write_all(&request).await.unwrap();
        let mut read = 0;
        while read == 0 || buffer[read - 1] != b',' {
            let more = stream.read(&mut buffer[read..]).await.unwrap();
            assert!(more > 0, "the server has gone");
            read += more;
        }
        times.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
    }
}

async fn compare(seconds: f64) {
    let place = tempfile::tempdir().unwrap();
    println!(
        "| socket | connections | server | answers/s | p50 µs | p99 µs | CPU µs/answer | rate | p99 | CPU |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (socket, floor_at, own_at) in [
        ("TCP", "127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()),
        (
            "Unix",
            format!("unix:{}", place.path().join("floor").display()),
            format!("unix:{}", place.path().join("own").display()),
        ),
    ] {
        let floor = Server::start("floor", &floor_at);
        let own = Server::start("answers", &own_at);
        for connections in [1, 8, 64] {
            load(&floor, connections, "postfix", seconds / 4.0).await;
            let base = load(&floor, connections, "postfix", seconds).await;
            row(socket, connections, "floor: echo", &base, &base);
            for (name, map) in [("sternpost", "postfix"), ("sternpost, TLSRPT", "QUERYwithTLSRPT")] {
                let outcome = load(&own, connections, map, seconds).await;
                row(socket, connections, name, &outcome, &base);
            }
        }
        println!("\nresident: floor {} MiB, sternpost {} MiB\n", floor.resident(), own.resident());
    }
}

fn row(socket: &str, connections: usize, name: &str, seen: &Outcome, base: &Outcome) {
    println!(
        "| {socket} | {connections} | {name} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} |",
        seen.rate,
        seen.p50,
        seen.p99,
        seen.cpu,
        seen.rate / base.rate,
        seen.p99 / base.p99,
        seen.cpu / base.cpu
    );
}
