//! A mail server that asks for policies all the time, at a steady rate: for domains whose answers are cached, and for one
//! new domain after the other, whose policies fill the store. Each answer is compared with the right one.

use crate::Plan;
use crate::place::{HOT, Place, answer, domain};
use formats::socketmap::{Reply, encode_request};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections, each with one request at a time, and the time between two requests of one.
const CONNECTIONS: usize = 4;
const BETWEEN: Duration = Duration::from_millis(4);
/// No round is measured.
const NONE: usize = usize::MAX;

/// Microseconds of the answers of each round.
type Rounds = Vec<Vec<u32>>;

struct Shared {
    at: SocketAddr,
    round: AtomicUsize,
    rounds: usize,
    is_over: AtomicBool,
    /// The first answer that was not right.
    wrong: Mutex<Option<String>>,
    new: AtomicUsize,
}

pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Rounds>>,
}

/// What was measured.
pub struct Answered {
    /// Sorted microseconds of the answers of each round.
    pub rounds: Rounds,
    pub asked: usize,
    /// Domains that were new.
    pub new: usize,
    pub wrong: Option<String>,
}

impl Load {
    /// Asks once for each domain that is to be cached, and then begins.
    pub fn start(place: &Place, plan: &Plan) -> Self {
        let shared = Arc::new(Shared {
            at: place.answers,
            round: AtomicUsize::new(NONE),
            rounds: plan.rounds,
            is_over: AtomicBool::new(false),
            wrong: Mutex::default(),
            new: AtomicUsize::new(0),
        });
        let mut first = Client::new(&shared);
        (0..HOT).for_each(|number| first.ask(number));
        let asking = (0..CONNECTIONS).map(|number| {
            let shared = shared.clone();
            std::thread::spawn(move || ask_for_cached(&shared, number))
        });
        let mut threads: Vec<_> = asking.collect();
        let (same, between, times) = (shared.clone(), plan.between, plan.times());
        threads.push(std::thread::spawn(move || ask_for_new(&same, between, times)));
        Self { shared, threads }
    }

    /// What follows belongs to this round, or to none.
    pub fn measure(&self, round: Option<usize>) {
        self.shared.round.store(round.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub fn end(self) -> Answered {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut rounds = vec![Vec::new(); self.shared.rounds];
        for thread in self.threads {
            for (all, one) in rounds.iter_mut().zip(thread.join().unwrap()) {
                all.extend(one);
            }
        }
        rounds.iter_mut().for_each(|round| round.sort_unstable());
        Answered {
            asked: rounds.iter().map(Vec::len).sum(),
            rounds,
            new: self.shared.new.load(Ordering::Relaxed),
            wrong: self.shared.wrong.lock().unwrap().take(),
        }
    }
}

struct Client<'s> {
    shared: &'s Shared,
    stream: TcpStream,
}

impl<'s> Client<'s> {
    fn new(shared: &'s Shared) -> Self {
        let stream = TcpStream::connect(shared.at).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { shared, stream }
    }

    fn ask(&mut self, number: usize) {
        let reply = self.exchange(&encode_request("postfix", &domain(number)));
        if reply != Ok(Reply::Ok(answer(number))) {
            let text = format!("{}: {reply:?}", domain(number));
            self.shared.wrong.lock().unwrap().get_or_insert(text);
        }
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Reply, String> {
        self.stream.write_all(request).map_err(|error| error.to_string())?;
        let (mut buffer, mut read) = (vec![0; 4096], 0);
        while read == 0 || buffer[read - 1] != b',' {
            match self.stream.read(&mut buffer[read..]) {
                Ok(0) => return Err("the connection is closed".into()),
                Ok(more) => read += more,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(Reply::decode(&buffer[..read]).unwrap().unwrap().0)
    }
}

/// Asks at fixed times. A request that had to wait for the one before is measured from its time on, so that a server that
/// stands still is as slow for all requests of that time; waking up late is not the server's fault, and does not count.
fn ask_for_cached(shared: &Shared, number: usize) -> Rounds {
    let mut client = Client::new(shared);
    let mut rounds = vec![Vec::new(); shared.rounds];
    let (mut next, mut at) = (Instant::now(), number * 37);
    while !shared.is_over.load(Ordering::Relaxed) {
        next += BETWEEN;
        let is_late = Instant::now() > next;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let begun = if is_late { next } else { Instant::now() };
        let round = shared.round.load(Ordering::Relaxed);
        at += 1;
        client.ask(at % HOT);
        if let Some(times) = rounds.get_mut(round) {
            times.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    rounds
}

/// Looks up one new domain after the other. It returns no times: most of each is spent in the lab.
fn ask_for_new(shared: &Shared, between: Duration, times: usize) -> Rounds {
    let mut client = Client::new(shared);
    let begun = Instant::now();
    for number in 0..times {
        if shared.is_over.load(Ordering::Relaxed) {
            break;
        }
        client.ask(HOT + number);
        shared.new.fetch_add(1, Ordering::Relaxed);
        let next = begun + between * u32::try_from(number + 1).unwrap();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Vec::new()
}
