//! Kills the server 200 times while it writes: every policy that an answer used must still be in the store. The server
//! is this test program, started as a separate process.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::socketmap::{Reply, encode_request};
use lab::uniform_world::UniformWorld;
use net::clock::SystemClock;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use sternpost_sender::answer::{Discovery, PolicyService, Settings};
use sternpost_sender::serve::Shutdown;
use sternpost_sender::serve::listen::{Address, Listener, SocketFileOptions, run};
use sternpost_sender::serve::socketmap::Socketmap;
use store::Store;

const NAME: &str = "val_28_killed_while_it_writes_it_loses_nothing_that_was_answered_from";
const KILLS: u32 = 200;
const CLIENTS: u32 = 4;

/// Implements the command line that test runners expect of a test without harness: list the tests, or run them.
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    match args.first().map(String::as_str) {
        Some("serve") => tokio::runtime::Runtime::new().unwrap().block_on(serve(Path::new(&args[1]))),
        _ if has("--list") && !has("--ignored") => println!("{NAME}: test"),
        _ if has("--list") => {}
        Some(filter) if !filter.starts_with('-') && !NAME.contains(filter) => {}
        _ => {
            kill_repeatedly();
            println!("test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed");
        }
    }
}

async fn serve(folder: &Path) {
    let store = Store::open(&folder.join("s.db"), store::Tenant::FIRST).await.unwrap();
    let (world, clock) = (Arc::new(UniformWorld), Arc::new(SystemClock));
    let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
    let answers = PolicyService::new(world, discovery, store, clock, 1 << 20, Settings::default());
    let address = Address::Unix(folder.join("s.sock"));
    let listener = Listener::bind(&address, SocketFileOptions::default()).await.unwrap();
    println!("ready");
    std::io::stdout().flush().unwrap();
    run(listener, Arc::new(Socketmap(answers)), Shutdown::default()).await;
}

fn kill_repeatedly() {
    let folder = tempfile::tempdir().unwrap();
    let (mut answered, mut round) = (Vec::new(), 0);
    // On a slow machine it takes more kills until there are enough answers, and later ones.
    while round < KILLS || (answered.len() <= KILLS as usize && round < 10 * KILLS) {
        let mut server = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "round {round}: the server starts with the store of the last round");
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let socket = folder.path().join("s.sock");
                std::thread::spawn(move || ask(&socket, round * CLIENTS + client))
            })
            .collect();
        // Each round kills at a different moment of the writing.
        let delay = (500 + round * 149 % 20_000) * (1 + round / KILLS);
        std::thread::sleep(Duration::from_micros(u64::from(delay)));
        server.kill().unwrap();
        server.wait().unwrap();
        answered.extend(clients.into_iter().flat_map(|client| client.join().unwrap()));
        round += 1;
    }
    assert!(answered.len() > KILLS as usize, "only {} answers", answered.len());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        for domain in &answered {
            let domain = formats::DomainName::parse(domain).unwrap();
            let stored = store.policy(&domain).await.unwrap();
            assert_eq!(
                stored.map(|policy| policy.body),
                Some(UniformWorld::policy(&domain)),
                "{domain} is lost"
            );
        }
    });
    println!("{} answers over {round} kills, none lost", answered.len());
}

/// Queries new domains until the server is killed. Returns the domains that were answered.
fn ask(socket: &Path, client: u32) -> Vec<String> {
    let mut answered = Vec::new();
    let Ok(mut stream) = UnixStream::connect(socket) else { return answered };
    let mut buffer = vec![0; 4096];
    loop {
        let domain = format!("d{}.a{client}.example", answered.len());
        let sent = stream.write_all(&encode_request("postfix", &domain));
        match sent.and_then(|()| stream.read(&mut buffer)) {
            Ok(read @ 1..) => match Reply::decode(&buffer[..read]) {
                Ok(Some((Reply::Ok(level), _))) if level.starts_with("secure") => answered.push(domain),
                // A truncated reply is not an answer.
                _ => return answered,
            },
            _ => return answered,
        }
    }
}
