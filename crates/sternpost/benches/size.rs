//! Memory and start-up: the memory of the idle program and of each cached domain with a million of them, and the time
//! from the start to the first answer with a million policies in the store.
//!
//! `cargo bench -p sternpost --bench size [-- DOMAINS]`

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each benchmark needs some of it")]
mod process;

use formats::socketmap::encode_request;
use formats::{DomainName, Mode, Policy, PolicyId};
use jiff::{SignedDuration, Timestamp};
use lab::uniform_world::UniformWorld;
use process::{Process, resident};
use sender::answer::cache::Cache;
use sender::answer::decide::{DecisionInput, DefaultLevel, MxHosts, Origin, decide};
use sender::answer::entry::Entry;
use sender::answer::route::DaneHosts;
use sender::answer::sts::{EffectivePolicy, HeldPolicy};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use store::policies::{PolicyWrite, StoredPolicy};

fn main() {
    let Some(words) = process::words(&["cache"]) else { return };
    match words.first().map(String::as_str) {
        Some("cache") => cache(words[1].parse().unwrap(), &words[2]),
        count => report(count.map_or(1_000_000, |count| count.parse().unwrap())),
    }
}

fn domain(number: usize) -> DomainName {
    DomainName::parse(&format!("customer{number}.example.org")).unwrap()
}

/// Fills the cache with answers and prints the bytes that each one uses.
fn cache(count: usize, what: &str) {
    let before = resident("self");
    let cache = Cache::new(8 << 30);
    for number in 0..count {
        let domain = domain(number);
        let found = match what {
            "policies" => {
                let body = UniformWorld::policy(&domain);
                let policy = Policy::parse(body.as_bytes()).unwrap();
                let id = PolicyId::parse("1").unwrap();
                EffectivePolicy::Policy {
                    held: HeldPolicy { policy, body, id, fetched_at: Timestamp::UNIX_EPOCH },
                    refresh_error: None,
                }
            }
            _ => EffectivePolicy::None,
        };
        let decision = decide(&DecisionInput {
            domain: &domain,
            hosts: MxHosts::Known(DaneHosts::default()),
            found: Some(&found),
            policy_rest: None,
            rule: None,
            testing: None,
            default_level: DefaultLevel::May,
            min_recheck: Duration::ZERO,
            origin: Origin::LookedUp { ttl: None },
        });
        let entry = Entry::new(&decision.answer, decision.source, DaneHosts::default(), 0, u32::MAX);
        cache.put(&domain, domain.as_str(), Arc::new(entry));
    }
    let each = (resident("self") - before) as f64 * 1024.0 / count as f64;
    println!("{each:.0} {:.0}", cache.bytes() as f64 / count as f64);
}

fn report(count: usize) {
    let place = tempfile::tempdir().unwrap();
    println!("| | measured |\n| --- | ---: |");
    let (start, idle) = start(place.path(), "[192.0.2.1]");
    println!("| idle, resident | {:.1} MiB |", idle as f64 / 1024.0);
    println!("| start to first answer, empty store | {} ms |", start.as_millis());
    for (what, shown) in
        [("policies", "with two mx lines and TLSRPT attributes"), ("nothing", "without a policy")]
    {
        let child = Process::again(&["cache", &count.to_string(), what]);
        let (each, counted) = child.line.split_once(' ').unwrap();
        println!("| each of {count} cached domains {shown} | {each} bytes ({counted} by our own count) |");
    }
    fill(place.path(), count);
    let (start, resident) = self::start(place.path(), domain(7).as_str());
    println!("| start to first answer, {count} policies in the store | {} ms |", start.as_millis());
    println!("| resident after that | {:.1} MiB |", resident as f64 / 1024.0);
}

fn fill(place: &Path, count: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&place.join("s.db"), store::Tenant::FIRST).await.unwrap();
        let now = Timestamp::now();
        let later = |hours| now.saturating_add(SignedDuration::from_hours(hours)).unwrap();
        for begin in (0..count).step_by(10_000) {
            let some: Vec<PolicyWrite> = (begin..count.min(begin + 10_000))
                .map(|number| StoredPolicy {
                    domain: domain(number),
                    record_id: PolicyId::parse("1").unwrap(),
                    body: UniformWorld::policy(&domain(number)),
                    mode: Mode::Enforce,
                    fetched_at: now,
                    expires_at: later(168),
                    refresh_at: later(24),
                    dane: DaneHosts { absent: 1, ..DaneHosts::default() }.to_text(),
                    used_at: now,
                })
                .map(PolicyWrite::from)
                .collect();
            store.put_policies(&some).await.unwrap();
        }
        store.close().await;
    });
}

/// Starts the program and queries one domain as soon as it listens. Returns the time until the answer, and the resident
/// memory at that point.
fn start(place: &Path, asked: &str) -> (Duration, u64) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Nothing listens at the resolver's address: answers come from the store, or fail at once.
    let config = format!(
        "store = \"sqlite:s.db\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n[answers]\nlisten = [\"127.0.0.1:{port}\"]\n"
    );
    std::fs::write(place.join("sternpost.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    command.current_dir(place).arg("serve").stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    stream.write_all(&encode_request("postfix", asked)).unwrap();
    let length = stream.read(&mut [0; 4096]).unwrap();
    let passed = begun.elapsed();
    assert!(length > 0);
    std::thread::sleep(Duration::from_millis(500));
    let resident = resident(&child.id().to_string());
    let _ = child.kill();
    let _ = child.wait();
    (passed, resident)
}
