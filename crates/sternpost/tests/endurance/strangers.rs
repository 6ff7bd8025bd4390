//! Strangers who come and go: some send what they have as fast as they may, others hold connections and stay silent, or
//! send byte by byte. Each kind is a row of [`KINDS`].
//!
//! They have threads of their own with a low priority: in reality, they would not share the machine.

use crate::messages::Messages;
use crate::place::{ADDRESS, Target};
use crate::sessions::{Outcome, Smtp, connect, head, post, status};
use lab::random::Random;
use sender::report::DkimKey;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// Strangers who send something at the same time, and those who hold connections.
const SENDING: usize = 20;
const HOLDING: usize = 80;
/// The longest pause of a stranger between two sessions, in milliseconds.
const PAUSE: usize = 150;
/// The size of what is too large.
const OVERSIZE: usize = 16 << 20;

/// What each kind of stranger got, and how often.
pub type Played = BTreeMap<&'static str, BTreeMap<String, u64>>;

type Make = fn(&Messages, &mut Random) -> Vec<u8>;

/// How a kind of stranger behaves.
pub enum Act {
    /// Delivers a message.
    Mail(Make),
    /// Sends a message to the operator's mail server, which passes it on by LMTP.
    Passed(Make),
    /// Posts a file to the URL for reports.
    Post(Make),
    /// Anything else.
    Session(fn(Visit) -> Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

pub struct Kind {
    pub name: &'static str,
    /// How often it comes, compared with the others.
    share: usize,
    act: Act,
}

/// One stranger, once.
pub struct Visit {
    target: Target,
    from: Ipv4Addr,
    messages: Arc<Messages>,
    dice: Random,
}

const fn mail(name: &'static str, share: usize, make: Make) -> Kind {
    Kind { name, share, act: Act::Mail(make) }
}

const fn passed(name: &'static str, share: usize, make: Make) -> Kind {
    Kind { name, share, act: Act::Passed(make) }
}

const fn file(name: &'static str, share: usize, make: Make) -> Kind {
    Kind { name, share, act: Act::Post(make) }
}

macro_rules! session {
    ($name:literal, $share:literal, $act:ident) => {
        Kind { name: $name, share: $share, act: Act::Session(|visit| Box::pin($act(visit))) }
    };
}

pub static KINDS: [Kind; 42] = [
    mail("report without a signature", 20, Messages::unsigned),
    mail("report signed by a stranger's domain", 20, Messages::signed_by_a_stranger),
    mail("report with a forged signature", 10, Messages::forged),
    mail("broken report", 10, Messages::broken),
    mail("random bytes, labeled as a report", 10, Messages::noise),
    mail("120 reports in one mail", 3, Messages::many),
    mail("report of 90,000 failures", 2, Messages::details),
    mail("gzip bomb, 1 MiB", 5, Messages::small_blanks),
    mail("gzip bomb, 60 MiB", 4, Messages::blanks),
    mail("four million small values", 4, Messages::values),
    mail("zip bomb, 160 MiB", 3, Messages::zip),
    mail("zip files in a zip file, 1.6 GiB", 3, Messages::zips),
    mail("multiparts in multiparts", 4, Messages::multiparts),
    mail("messages in messages", 4, Messages::messages),
    mail("thousands of signatures", 3, Messages::header),
    mail("DMARC report", 10, Messages::dmarc),
    mail("broken DMARC report", 5, Messages::broken_dmarc),
    mail("DMARC report of 800,000 elements", 3, Messages::elements),
    mail("bounce", 4, Messages::bounce),
    mail("other mail", 5, Messages::letter),
    passed("LMTP: report without a signature", 8, Messages::unsigned),
    passed("LMTP: random bytes, labeled as a report", 4, Messages::noise),
    passed("LMTP: 120 reports in one mail", 2, Messages::many),
    passed("LMTP: gzip bomb, 60 MiB", 2, Messages::blanks),
    passed("LMTP: multiparts in multiparts", 2, Messages::multiparts),
    passed("LMTP: other mail", 3, Messages::letter),
    file("post: report", 10, Messages::report),
    file("post: gzip bomb, 60 MiB", 3, Messages::blanks_file),
    file("post: four million small values", 3, Messages::values_file),
    file("post: random bytes", 5, Messages::noise),
    session!("post: 40 reports by one client at once", 2, posts_at_once),
    session!("post: too large", 2, post_too_large),
    session!("post: another path", 3, post_elsewhere),
    session!("post: broken HTTP", 3, post_broken),
    session!("message that says that it is too large", 3, announced),
    session!("message of 16 MiB that does not say it", 1, unannounced),
    session!("line of 2 MiB", 2, long_line),
    session!("bare LF", 4, bare_line_feed),
    session!("garbage, sent ahead", 4, garbage),
    session!("commands without a message", 3, commands),
    session!("closed within the message", 6, closed),
    session!("40 connections of one client", 2, connections),
];

/// The kinds that hold what they have got, as they appear in the table.
pub static HOLDERS: [&str; 4] =
    ["holds a connection", "holds a message of 1 MiB", "byte by byte", "holds a post"];

struct Scene {
    target: Target,
    messages: Arc<Messages>,
    played: Mutex<Played>,
    /// The kinds in turn, until each has come; then by chance.
    turn: AtomicUsize,
    seed: u64,
    here: AtomicBool,
}

pub struct Strangers {
    runtime: tokio::runtime::Runtime,
    scene: Arc<Scene>,
    tasks: Mutex<JoinSet<()>>,
    visits: u64,
}

impl Strangers {
    pub fn new(target: Target, signers: Vec<Arc<DkimKey>>, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(step_back)
            .enable_all()
            .build()
            .unwrap();
        let messages = Arc::new(Messages::new(signers, seed));
        let (played, turn, here) = (Mutex::default(), AtomicUsize::new(0), AtomicBool::new(false));
        let scene = Arc::new(Scene { target, messages, played, turn, seed, here });
        Self { runtime, scene, tasks: Mutex::default(), visits: 0 }
    }

    /// They come.
    pub fn come(&mut self) {
        self.scene.here.store(true, Ordering::Relaxed);
        self.visits += 1;
        let mut tasks = self.tasks.lock().unwrap();
        for number in 0..SENDING + HOLDING {
            let dice = Random::new(lab::random::hash(
                self.scene.seed,
                "stranger",
                self.visits * 1000 + number as u64,
            ));
            let scene = self.scene.clone();
            if number < SENDING {
                tasks.spawn_on(send(scene, dice), self.runtime.handle());
            } else {
                tasks.spawn_on(hold(scene, dice, number % HOLDERS.len()), self.runtime.handle());
            }
        }
    }

    /// They go, whatever they were about.
    pub fn go(&self) {
        self.scene.here.store(false, Ordering::Relaxed);
        self.tasks.lock().unwrap().abort_all();
        let mut tasks = self.tasks.lock().unwrap();
        self.runtime.block_on(async { while tasks.join_next().await.is_some() {} });
    }

    pub fn end(self) -> Played {
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        std::mem::take(&mut *self.scene.played.lock().unwrap())
    }
}

/// Gives the current thread a low priority.
fn step_back() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap();
    let id = thread.file_name().unwrap().to_str().unwrap().to_owned();
    let done = Command::new("renice").args(["-n", "10", "-p", &id]).output();
    assert!(done.unwrap().status.success(), "the priority can't be changed");
}

impl Scene {
    fn note(&self, kind: &'static str, outcome: Outcome) {
        let outcome = outcome.unwrap_or_else(|early| early);
        *self.played.lock().unwrap().entry(kind).or_default().entry(outcome).or_default() += 1;
    }

    fn next_kind(&self, dice: &mut Random) -> &'static Kind {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if turn < KINDS.len() {
            return &KINDS[turn];
        }
        let mut at = dice.below(KINDS.iter().map(|kind| kind.share).sum());
        KINDS
            .iter()
            .find(|kind| {
                let is_it = at < kind.share;
                at = at.saturating_sub(kind.share);
                is_it
            })
            .unwrap()
    }

    /// A visit from one of 2,000 addresses; a fifth comes from the same four.
    fn visit(&self, dice: &mut Random) -> Visit {
        let number = if dice.chance(20) { dice.below(4) } else { dice.below(2000) };
        let from = Ipv4Addr::new(127, 10, (number / 250) as u8, (1 + number % 250) as u8);
        Visit {
            target: self.target.clone(),
            from,
            messages: self.messages.clone(),
            dice: Random::new(dice.value()),
        }
    }
}

async fn send(scene: Arc<Scene>, mut dice: Random) {
    while scene.here.load(Ordering::Relaxed) {
        let kind = scene.next_kind(&mut dice);
        // Who is on the way when the round ends has come, too.
        scene.played.lock().unwrap().entry(kind.name).or_default();
        let mut visit = scene.visit(&mut dice);
        let outcome = match kind.act {
            Act::Mail(make) => {
                let message = make(&visit.messages, &mut visit.dice);
                deliver(&visit, &message).await
            }
            Act::Passed(make) => {
                let message = make(&visit.messages, &mut visit.dice);
                pass_on(&visit, &message).await
            }
            Act::Post(make) => {
                let body = make(&visit.messages, &mut visit.dice);
                post(visit.from, visit.target.web, &visit.target.path, &body).await
            }
            Act::Session(act) => act(visit).await,
        };
        scene.note(kind.name, outcome);
        tokio::time::sleep(Duration::from_millis(dice.below(PAUSE) as u64)).await;
    }
}

async fn deliver(visit: &Visit, message: &[u8]) -> Outcome {
    Smtp::open(visit.from, &visit.target).await?.message(message).await
}

async fn pass_on(visit: &Visit, message: &[u8]) -> Outcome {
    Smtp::open_lmtp(&visit.target).await?.message(message).await
}

/// Holds something until the server or the round ends it, and begins again.
async fn hold(scene: Arc<Scene>, mut dice: Random, kind: usize) {
    while scene.here.load(Ordering::Relaxed) {
        let visit = scene.visit(&mut dice);
        // Noted at once: most never come to an end.
        scene.note(HOLDERS[kind], Ok("begun".into()));
        let ended = match kind {
            0 => hold_connection(&visit).await,
            1 => hold_message(&visit).await,
            2 => byte_by_byte(&visit).await,
            _ => hold_post(&visit).await,
        };
        scene.note(HOLDERS[kind], ended);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn hold_connection(visit: &Visit) -> Outcome {
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    loop {
        match session.reply().await {
            Err(end) if end == "no reply" => {}
            other => return other,
        }
    }
}

async fn hold_message(visit: &Visit) -> Outcome {
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    session.begin().await?;
    session.send(&b"a line of a message that never ends\r\n".repeat(28_000)).await;
    session.reply().await
}

async fn byte_by_byte(visit: &Visit) -> Outcome {
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    session.begin().await?;
    for byte in b"Subject: slow\r\n\r\n".iter().cycle() {
        if session.stream.get_mut().write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    session.reply().await
}

async fn hold_post(visit: &Visit) -> Outcome {
    let mut stream = connect(visit.from, visit.target.web).await?;
    let _ = stream.write_all(head(&visit.target.path, 1_000_000).as_bytes()).await;
    let _ = stream.write_all(&[b' '; 50_000]).await;
    status(&mut stream).await
}

async fn posts_at_once(mut visit: Visit) -> Outcome {
    let bodies: Vec<Vec<u8>> = (0..40).map(|_| visit.messages.report(&mut visit.dice)).collect();
    let posting = bodies.iter().map(|body| post(visit.from, visit.target.web, &visit.target.path, body));
    let outcomes = futures_util::future::join_all(posting).await;
    outcomes
        .into_iter()
        .find(|outcome| outcome.as_ref().is_ok_and(|code| code == "429"))
        .unwrap_or(Ok("none refused".into()))
}

async fn post_too_large(visit: Visit) -> Outcome {
    let mut stream = connect(visit.from, visit.target.web).await?;
    let _ = stream.write_all(head(&visit.target.path, OVERSIZE).as_bytes()).await;
    let _ = stream.write_all(&vec![b' '; OVERSIZE]).await;
    status(&mut stream).await
}

async fn post_elsewhere(visit: Visit) -> Outcome {
    let path = ["/in/", "/in/x", "/in/..%2f", "/../in", "/in/x/y/z"][visit.from.octets()[3] as usize % 5];
    post(visit.from, visit.target.web, path, b"{}").await
}

async fn post_broken(mut visit: Visit) -> Outcome {
    let path = &visit.target.path;
    let text = match visit.dice.below(4) {
        0 => format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\nx"),
        1 => format!("POST {path} HTTP/1.1\r\n{}\r\n", "X-Y: z\r\n".repeat(2000)),
        2 => {
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
        }
        _ => "\u{16}\u{3}\u{1}\u{2}".repeat(100),
    };
    let mut stream = connect(visit.from, visit.target.web).await?;
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
    status(&mut stream).await
}

async fn announced(visit: Visit) -> Outcome {
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    session.say(format!("MAIL FROM:<> SIZE={OVERSIZE}\r\n").as_bytes()).await
}

async fn unannounced(visit: Visit) -> Outcome {
    let line = [vec![b'a'; 998], b"\r\n".to_vec()].concat();
    deliver(&visit, &line.repeat(OVERSIZE / 1000 + 1)).await
}

async fn long_line(visit: Visit) -> Outcome {
    deliver(&visit, &[vec![b'a'; 2 << 20], b"\r\n".to_vec()].concat()).await
}

async fn bare_line_feed(visit: Visit) -> Outcome {
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    session.begin().await?;
    session.say(b"Subject: x\r\n\r\nhi\n.\nMAIL FROM:<>\r\n\r\n.\r\n").await
}

async fn garbage(mut visit: Visit) -> Outcome {
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    let mut bytes: Vec<u8> = (0..50_000).map(|_| visit.dice.value() as u8).collect();
    if visit.dice.chance(50) {
        let commands =
            format!("MAIL FROM:<>\r\nRCPT TO:<{ADDRESS}>\r\nDATA\r\n.\r\nNONSENSE\r\nSTARTTLS\r\n");
        bytes = commands.repeat(100).into_bytes();
    }
    session.send(&bytes).await;
    last(&mut session).await
}

async fn commands(visit: Visit) -> Outcome {
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    session.send(&b"RSET\r\nNOOP\r\nHELP\r\nVRFY a\r\n".repeat(100)).await;
    last(&mut session).await
}

/// The last reply before the server closes the connection.
async fn last(session: &mut Smtp) -> Outcome {
    let mut last = "no reply".to_owned();
    for _ in 0..10_000 {
        match session.reply().await {
            Ok(code) => last = code,
            Err(_) => break,
        }
    }
    Ok(last)
}

async fn closed(mut visit: Visit) -> Outcome {
    let message = visit.messages.unsigned(&mut visit.dice);
    let mut session = Smtp::open(visit.from, &visit.target).await?;
    session.begin().await?;
    session.send(&message[..message.len() / 2]).await;
    Ok("closed by the stranger".into())
}

async fn connections(visit: Visit) -> Outcome {
    let opening = (0..40).map(|_| Smtp::open(visit.from, &visit.target));
    let opened = futures_util::future::join_all(opening).await;
    match opened.iter().find_map(|session| session.as_ref().err()) {
        Some(code) => Err(code.clone()),
        None => Ok("none refused".into()),
    }
}
