//! Cached answers against a floor, an echo server, in the same run: answers per second, the median and 99th
//! percentile of the latency, and the server's CPU time for each answer. Each connection has one request in flight.
//! The load comes from this process; the servers are separate processes on the same processors and are measured in
//! turn, SECONDS for a row.
//!
//! `cargo bench -p sternpost --bench socketmap [-- SECONDS]`
//!
//! With `-- programs PROGRAM PROGRAM…`, the servers are these programs instead, such as two builds of Sternpost; the first
//! one is the floor.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use lab::uniform_world::UniformWorld;
use net::BoxFuture;
use net::clock::SystemClock;
use net::smtp::server::AnyStream;
use process::{Process, median};
use sender::answer::{Discovery, PolicyService, Settings};
use sender::serve::Shutdown;
use sender::serve::listen::{Address, Listener, Serve, SocketFileOptions, run};
use sender::serve::socketmap::Socketmap;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const DOMAINS: usize = 1000;
/// Rounds for each row; in each, every server is measured once.
const ROUNDS: usize = 5;

fn main() {
    let Some(words) = process::words(&["serve"]) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match words.first().map(String::as_str) {
        Some("serve") => runtime.block_on(server(&words[1], &words[2])),
        Some("programs") => runtime.block_on(compare_programs(&words[1..])),
        Some(seconds) => runtime.block_on(compare(seconds.parse().unwrap())),
        None => runtime.block_on(compare(5.0)),
    }
}

#[derive(Clone)]
struct Echo;

impl Serve for Echo {
    fn serve(
        self: Arc<Self>,
        mut stream: AnyStream,
        _: Option<IpAddr>,
        _: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        })
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
        return run(listener, Arc::new(Echo), Shutdown::default()).await;
    }
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("bench.db"), store::Tenant::FIRST).await.unwrap();
    let answers = filled(store).await;
    tell();
    run(listener, Arc::new(Socketmap(answers)), Shutdown::default()).await;
}

/// A service that has looked up every domain.
async fn filled(store: Store) -> Arc<PolicyService> {
    let (world, clock) = (Arc::new(UniformWorld), Arc::new(SystemClock));
    let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
    let answers = PolicyService::new(world, discovery, store, clock, 64 << 20, Settings::default());
    for number in 0..DOMAINS {
        answers.ask(&domain(number)).await;
    }
    answers
}

fn domain(number: usize) -> String {
    format!("customer{number}.example.org")
}

struct Server {
    process: Arc<Process>,
    address: Address,
}

impl Server {
    fn start(what: &str, address: &str) -> Self {
        let process = Arc::new(Process::again(&["serve", what, address]));
        Self { address: Address::parse(&process.line).unwrap(), process }
    }

    /// Starts a program with `serve` on a copy of the store in `place`, with nothing at its resolver's address. Returns its
    /// TCP socket and its Unix socket.
    async fn start_program(program: &str, place: &Path, number: usize) -> [Self; 2] {
        let own = place.join(number.to_string());
        std::fs::create_dir(&own).unwrap();
        std::fs::copy(place.join("filled.db"), own.join("s.db")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = [format!("127.0.0.1:{port}"), format!("unix:{}", own.join("answers").display())];
        let config = format!(
            "store = \"sqlite:s.db\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n[answers]\nlisten = {listen:?}\n"
        );
        std::fs::write(own.join("sternpost.toml"), config).unwrap();
        let mut command = Command::new(program);
        command.current_dir(&own).arg("serve").stderr(Stdio::null());
        let process = Arc::new(Process::start_mute(command));
        while UnixStream::connect(own.join("answers")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        listen.map(|address| Self { process: process.clone(), address: Address::parse(&address).unwrap() })
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
    let before = server.process.cpu();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|number| {
            let address = server.address.clone();
            tokio::spawn(async move {
                match address {
                    Address::Tcp(address) => {
                        let stream = TcpStream::connect(address).await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        client(Box::new(stream), number, map, end).await
                    }
                    Address::Unix(path) => {
                        client(Box::new(UnixStream::connect(path).await.unwrap()), number, map, end).await
                    }
                    Address::Systemd(_) => panic!("no address"),
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    let (passed, cpu) = (begun.elapsed().as_secs_f64(), server.process.cpu() - before);
    all.sort_unstable();
    let at = |share: f64| f64::from(all[(all.len() as f64 * share) as usize]) / 1000.0;
    Outcome {
        rate: all.len() as f64 / passed,
        p50: at(0.5),
        p99: at(0.99),
        cpu: cpu * 1e6 / all.len() as f64,
    }
}

/// Sends requests until the end time. Returns the nanoseconds of each.
async fn client(mut stream: AnyStream, number: usize, map: &str, end: Instant) -> Vec<u32> {
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

/// Prints the rows of one kind of socket: for each number of connections, each server of `all`: its name, and the map that it
/// is asked for. Each server is measured for `seconds` in all, in as many turns as `turns`.
async fn rows(socket: &str, all: &[(&str, &Server, &'static str)], turns: usize, seconds: f64) {
    for connections in [1, 8, 64] {
        let mut rounds = Vec::new();
        for _ in 0..turns {
            let mut round = Vec::new();
            for (_, server, map) in all {
                round.push(load(server, connections, map, seconds / turns as f64).await);
            }
            rounds.push(round);
        }
        for (number, (name, ..)) in all.iter().enumerate() {
            row(socket, connections, name, &rounds, number);
        }
    }
}

fn heading() {
    println!(
        "| socket | connections | server | answers/s | p50 µs | p99 µs | CPU µs/answer | rate | p99 | CPU |"
    );
    println!("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
}

/// Compares programs, each of them `sternpost`; ratios are to the first one.
async fn compare_programs(programs: &[String]) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("filled.db"), store::Tenant::FIRST).await.unwrap();
    drop(filled(store.clone()).await);
    store.close().await;
    let (mut tcp, mut unix) = (Vec::new(), Vec::new());
    for (number, program) in programs.iter().enumerate() {
        let [one, other] = Server::start_program(program, place.path(), number).await;
        // Every domain comes from the store once.
        load(&one, 1, "postfix", 1.0).await;
        tcp.push(one);
        unix.push(other);
    }
    heading();
    for (socket, servers) in [("TCP", &tcp), ("Unix", &unix)] {
        let all: Vec<_> =
            programs.iter().zip(servers).map(|(name, server)| (name.as_str(), server, "postfix")).collect();
        rows(socket, &all, 3 * ROUNDS, 5.0).await;
    }
    for (program, server) in programs.iter().zip(&tcp) {
        println!("\nresident: {program} {} MiB", server.process.resident() >> 10);
    }
}

async fn compare(seconds: f64) {
    let place = tempfile::tempdir().unwrap();
    heading();
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
        let all = [
            ("floor: echo", &floor, "postfix"),
            ("sternpost", &own, "postfix"),
            ("sternpost, TLSRPT", &own, "QUERYwithTLSRPT"),
        ];
        rows(socket, &all, ROUNDS, seconds).await;
        println!(
            "\nresident: floor {} MiB, sternpost {} MiB\n",
            floor.process.resident() >> 10,
            own.process.resident() >> 10
        );
    }
}

/// Prints the medians of all rounds; ratios are to the floor in the same round.
fn row(socket: &str, connections: usize, name: &str, rounds: &[Vec<Outcome>], number: usize) {
    let middle = |of: fn(&Outcome) -> f64| median(rounds.iter().map(|round| of(&round[number])));
    let ratio =
        |of: fn(&Outcome) -> f64| median(rounds.iter().map(|round| of(&round[number]) / of(&round[0])));
    println!(
        "| {socket} | {connections} | {name} | {:.0} | {:.0} | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} |",
        middle(|seen| seen.rate),
        middle(|seen| seen.p50),
        middle(|seen| seen.p99),
        middle(|seen| seen.cpu),
        ratio(|seen| seen.rate),
        ratio(|seen| seen.p99),
        ratio(|seen| seen.cpu)
    );
}
