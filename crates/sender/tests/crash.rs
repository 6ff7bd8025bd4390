//! Killed while it writes, 200 times: every policy that was answered from is still there. The server
//! is this program again, as a process of its own.

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
use sternpost_sender::answer::{Answers, Discovery, Settings};
use sternpost_sender::serve::Shutdown;
use sternpost_sender::serve::listen::{Address, Listener, SocketFileOptions, run};
use sternpost_sender::serve::socketmap::Socketmap;
use store::Store;

const NAME: &str = "val_28_killed_while_it_writes_it_loses_nothing_that_was_answered_from";
const KILLS: u32 = 200;
const ASKERS: u32 = 4;

/// Speaks what test runners ask of a test without the harness: a list, or a run.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| words.iter().any(|given| given == word);
    match words.first().map(String::as_str) {
        Some("serve") => tokio::runtime::Runtime::new().unwrap().block_on(serve(Path::new(&words[1]))),
        _ if has("--list") && !has("--ignored") => println!("{NAME}: test"),
        _ if has("--list") => {}
        Some(filter) if !filter.starts_with('-') && !NAME.contains(filter) => {}
        _ => {
            killed_again_and_again();
            println!("test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed");
        }
    }
}

async fn serve(folder: &Path) {
    let store = Store::open(&folder.join("s.db")).await.unwrap();
    let (paper, clock) = (Arc::new(UniformWorld), Arc::new(SystemClock));
    let discovery = Discovery::new(paper.clone(), paper.clone(), store.clone(), clock.clone());
    let answers = Answers::new(paper, discovery, store, clock, 1 << 20, Settings::default());
    let address = Address::Unix(folder.join("s.sock"));
    let listener = Listener::bind(&address, SocketFileOptions::default()).await.unwrap();
    println!("ready");
    std::io::stdout().flush().unwrap();
    run(listener, Arc::new(Socketmap(answers)), Shutdown::default()).await;
}

fn killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for round in 0..KILLS {
        let mut server = Command::new(std::env::current_exe().unwrap())
            .arg("serve")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "round {round}: it starts with what was left");
        let askers: Vec<_> = (0..ASKERS)
            .map(|asker| {
                let socket = folder.path().join("s.sock");
                std::thread::spawn(move || ask(&socket, round * ASKERS + asker))
            })
            .collect();
        // Each round ends at another moment of the writing.
        std::thread::sleep(Duration::from_micros(u64::from(500 + round * 149 % 20_000)));
        server.kill().unwrap();
        server.wait().unwrap();
        answered.extend(askers.into_iter().flat_map(|asker| asker.join().unwrap()));
    }
    assert!(answered.len() > KILLS as usize, "only {} answers", answered.len());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Store::open(&folder.path().join("s.db")).await.unwrap();
        for domain in &answered {
            let domain = formats::DomainName::parse(domain).unwrap();
            let kept = store.policy(&domain).await.unwrap();
            assert_eq!(kept.map(|kept| kept.body), Some(UniformWorld::policy(&domain)), "{domain} is lost");
        }
    });
    println!("{} answers over {KILLS} kills, none lost", answered.len());
}

/// Asks for one new domain after the other until the server is gone; those that were answered.
fn ask(socket: &Path, asker: u32) -> Vec<String> {
    let mut answered = Vec::new();
    let Ok(mut stream) = UnixStream::connect(socket) else { return answered };
    let mut buffer = vec![0; 4096];
    loop {
        let domain = format!("d{}.a{asker}.example", answered.len());
        let sent = stream.write_all(&encode_request("postfix", &domain));
        match sent.and_then(|()| stream.read(&mut buffer)) {
            Ok(read @ 1..) => match Reply::decode(&buffer[..read]) {
                Ok(Some((Reply::Ok(level), _))) if level.starts_with("secure") => answered.push(domain),
                // Cut off in the middle of the reply: nothing was answered.
                _ => return answered,
            },
            _ => return answered,
        }
    }
}
