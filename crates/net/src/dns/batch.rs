//! Many DNS queries at once, for lists of names: [`Batch`] sends them to recursive resolvers over UDP, with many in flight,
//! and hands out the outcomes as they come. It repeats lost queries, and asks over TCP where a response was truncated
//! (RFC 7766). It has no cache and does not validate: it says which names have a record, and [`super::Resolver`] looks up
//! those that matter.
//!
//! One task drives a batch: it asks while [`Batch::has_room`], and then waits for [`Batch::outcomes`]. The number of queries
//! in flight and their rate are bounded, so that a resolver of others is not flooded.

mod faults;
mod packet;
mod ports;

use super::{Data, Kind};
use crate::random::NoRandomBytes;
use aws_lc_rs::rand;
pub use faults::ResolverFault;
use faults::ServerCounts;
use formats::DomainName;
use formats::limits::DNS_TIME;
use ports::Ports;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};

/// How long each attempt waits for a response, [`DNS_TIME`] together.
const ATTEMPTS: [Duration; 3] =
    [Duration::from_millis(2000), Duration::from_millis(4000), Duration::from_millis(4000)];
const _: () = assert!(
    ATTEMPTS[0].as_millis() + ATTEMPTS[1].as_millis() + ATTEMPTS[2].as_millis() == DNS_TIME.as_millis()
);

/// The pause before a query is repeated that a resolver answered with a failure.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);

/// The most bytes of a response over UDP that are read.
const RESPONSE_BYTES: usize = 4096;

/// Connections over TCP at a time.
const TCP_AT_ONCE: usize = 32;

/// How long a pause is made up for by sending faster afterwards, under a rate.
const CATCH_UP: Duration = Duration::from_millis(10);

/// The response codes that are answers (RFC 1035 §4.1.1).
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

/// The response code of a server that does not serve this client.
const REFUSED: u8 = 5;

/// Responses that are read before their outcomes are handed out.
const AT_ONCE: usize = 256;

/// Which resolvers a batch asks, and how much at a time.
#[derive(Debug, Clone)]
pub struct BatchConfig {
    /// The recursive resolvers, at least one. Queries are spread over them, and repeated at the next one.
    pub servers: Vec<SocketAddr>,
    /// Local addresses to send from, at most one per address family; if empty, the system chooses.
    pub sources: Vec<IpAddr>,
    /// The most queries that wait for a response at a time, at least 1.
    pub in_flight: usize,
    /// The most queries a second, repeated ones and those over TCP included; `None` for no limit.
    pub rate: Option<NonZeroU32>,
}

/// The outcome of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A resolver answered.
    Response {
        /// The response code (RFC 1035 §4.1.1), without the bits of EDNS: 0 NOERROR, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED.
        code: u8,
        /// The records of the type that was asked for, through CNAMEs.
        records: Vec<Data>,
    },
    /// No attempt was answered, or only by messages that are not valid.
    NoResponse,
    /// A server answered that offers no recursion and is not authoritative for the name, such as one with a referral. So it does
    /// not say whether there is a record.
    NoRecursion,
    /// The name is longer than DNS allows, so it does not exist.
    NameTooLong,
}

/// What a batch did, for a summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// Queries that were sent, repeated ones and those over TCP included.
    pub sent: u64,
    /// Queries that were repeated, after no response or a failure.
    pub repeated: u64,
    /// Truncated responses, each asked for again over TCP.
    pub truncated: u64,
    /// Responses over TCP.
    pub over_tcp: u64,
    /// Messages that are not the response to a query in flight: late, forged or malformed ones.
    pub stray: u64,
}

/// Queries in flight. See the module.
pub struct Batch {
    config: BatchConfig,
    ports: Ports,
    /// What each resolver of `ports` did.
    servers: Vec<ServerCounts>,
    unreachable: Vec<(SocketAddr, String)>,
    slots: Vec<Slot>,
    /// Indices of unused `slots`.
    free: Vec<usize>,
    /// The queries that wait for a datagram, by socket and ID.
    waiting: HashMap<(usize, u16), usize>,
    /// When each attempt ends, by attempt, so that each list is in order. The last list has those that pause.
    deadlines: [VecDeque<Deadline>; ATTEMPTS.len() + 1],
    timer: Pin<Box<Sleep>>,
    /// When the next query may be sent; the past if there is no rate.
    next_send: Instant,
    /// The responses over TCP, empty where there is none, with the index of their query.
    tcp: JoinSet<(usize, Vec<u8>)>,
    tcp_places: Arc<Semaphore>,
    random: RandomWords,
    counts: BatchCounts,
}

/// A query that was asked for.
struct Slot {
    /// Whose query it is, for the caller.
    tag: usize,
    packet: Vec<u8>,
    kind: Kind,
    attempt: usize,
    /// The resolver of the first attempt, and that of the present one.
    first: usize,
    server: usize,
    /// The socket and ID under which a datagram is awaited.
    place: Option<(usize, u16)>,
    /// Changes with each attempt, so that old deadlines have no effect.
    turn: u32,
    /// The failure that a resolver answered with, for the case that no other attempt does better.
    failure: Option<Outcome>,
}

struct Deadline {
    at: Instant,
    slot: usize,
    turn: u32,
}

impl Batch {
    /// Opens the sockets. Resolvers that can't be connected are left out, and are among [`Self::faults`].
    ///
    /// # Errors
    /// If there is no resolver, if none can be connected, or if the system provides no random bytes.
    pub fn open(config: BatchConfig) -> io::Result<Self> {
        let in_flight = config.in_flight.max(1);
        let (ports, unreachable) = Ports::open(&config.servers, config.sources.clone(), in_flight)?;
        let random = RandomWords::new().map_err(io::Error::other)?;
        let slot = |_| Slot {
            tag: 0,
            packet: Vec::new(),
            kind: Kind::Txt,
            attempt: 0,
            first: 0,
            server: 0,
            place: None,
            turn: 0,
            failure: None,
        };
        let now = Instant::now();
        Ok(Self {
            servers: vec![ServerCounts::default(); ports.servers().len()],
            unreachable: unreachable.into_iter().map(|(server, error)| (server, error.to_string())).collect(),
            ports,
            slots: (0..in_flight).map(slot).collect(),
            free: (0..in_flight).rev().collect(),
            waiting: HashMap::with_capacity(in_flight),
            deadlines: Default::default(),
            timer: Box::pin(tokio::time::sleep_until(now)),
            next_send: now,
            tcp: JoinSet::new(),
            tcp_places: Arc::new(Semaphore::new(TCP_AT_ONCE)),
            random,
            counts: BatchCounts::default(),
            config,
        })
    }

    /// True if a query may be asked now.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() && (self.config.rate.is_none() || self.next_send <= Instant::now())
    }

    /// The number of queries without an outcome.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// What was done so far.
    pub fn counts(&self) -> BatchCounts {
        self.counts
    }

    /// The resolvers with a fault, and which.
    pub fn faults(&self) -> Vec<(SocketAddr, ResolverFault)> {
        let unreachable = self.unreachable.iter();
        let unreachable = unreachable.map(|(server, why)| (*server, ResolverFault::Unreachable(why.clone())));
        let used = self.ports.servers().iter().zip(&self.servers);
        unreachable.chain(used.filter_map(|(server, counts)| Some((*server, counts.fault()?)))).collect()
    }

    /// Asks for the records of type `kind` at `prefix.name`, or at `name` if `prefix` is empty. The outcome is handed out with
    /// `tag`; one that is known at once is returned. To be called while [`Self::has_room`]; otherwise the query counts as not
    /// answered.
    pub fn ask(&mut self, tag: usize, prefix: &str, name: &DomainName, kind: Kind) -> Option<Outcome> {
        let Some(index) = self.free.pop() else { return Some(Outcome::NoResponse) };
        let (Ok(word), Some(slot)) = (self.random.next(), self.slots.get_mut(index)) else {
            self.free.push(index);
            return Some(Outcome::NoResponse);
        };
        let first = usize::from(word) % self.servers.len();
        if !packet::write(&mut slot.packet, prefix, name, kind) {
            self.free.push(index);
            return Some(Outcome::NameTooLong);
        }
        (slot.tag, slot.kind, slot.attempt, slot.first, slot.failure) = (tag, kind, 0, first, None);
        self.send(index);
        None
    }

    /// Counts a query against the rate.
    fn pace(&mut self, now: Instant) {
        self.counts.sent += 1;
        if let Some(rate) = self.config.rate {
            // Short pauses are made up for, long ones are not.
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            self.next_send = self.next_send.max(earliest) + Duration::from_secs(1) / rate.get();
        }
    }

    /// Sends a query, and notes when its attempt ends. What is not sent is repeated then.
    fn send(&mut self, index: usize) {
        let now = Instant::now();
        self.pace(now);
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.server = (slot.first + slot.attempt) % self.servers.len();
        slot.turn = slot.turn.wrapping_add(1);
        if let (Some(list), Some(time)) = (self.deadlines.get_mut(slot.attempt), ATTEMPTS.get(slot.attempt)) {
            list.push_back(Deadline { at: now + *time, slot: index, turn: slot.turn });
        }
        self.counts.repeated += u64::from(slot.attempt > 0);
        if let Some(server) = self.servers.get_mut(slot.server) {
            server.sent += 1;
        }
        // Without a random port and ID, anybody could answer.
        let Ok(number) = self.ports.choose(slot.server, &mut self.random) else { return };
        let Ok(mut id) = self.random.next() else { return };
        while self.waiting.contains_key(&(number, id)) {
            id = id.wrapping_add(1);
        }
        packet::set_id(&mut slot.packet, id);
        self.waiting.insert((number, id), index);
        slot.place = Some((number, id));
        self.ports.send(number, &slot.packet);
    }

    /// Waits until there are outcomes, or until the rate allows a query again. Adds the outcomes, with the tags of their queries,
    /// to `out`. Never returns if nothing is in flight and the rate sets no pause.
    pub async fn outcomes(&mut self, out: &mut Vec<(usize, Outcome)>) {
        let had_room = self.has_room();
        poll_fn(|context| {
            loop {
                self.receive(context, out);
                self.poll_tcp(context, out);
                self.expire(context, out);
                if !self.ports.take_new() {
                    break;
                }
            }
            match !out.is_empty() || !had_room && self.has_room() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Reads the datagrams that have arrived.
    fn receive(&mut self, context: &mut Context<'_>, out: &mut Vec<(usize, Outcome)>) {
        let mut bytes = [0; RESPONSE_BYTES];
        for number in self.ports.order() {
            while out.len() < AT_ONCE {
                match self.ports.poll_receive(number, context, &mut bytes) {
                    Poll::Ready(Some(length)) => {
                        self.take(number, bytes.get(..length).unwrap_or_default(), out);
                    }
                    Poll::Ready(None) => {}
                    Poll::Pending => break,
                }
            }
        }
    }

    /// Takes a datagram from a socket.
    fn take(&mut self, number: usize, message: &[u8], out: &mut Vec<(usize, Outcome)>) {
        let index = packet::id(message).and_then(|id| self.waiting.get(&(number, id)).copied());
        let slot = index.and_then(|index| Some((index, self.slots.get(index)?)));
        let found = slot.and_then(|(index, slot)| Some((index, packet::head(&slot.packet, message)?)));
        let Some((index, head)) = found else {
            self.counts.stray += 1;
            return;
        };
        if head.is_truncated {
            self.counts.truncated += 1;
            return self.ask_by_tcp(index);
        }
        // After a malformed response, the attempt ends as without one.
        self.conclude(index, head, message, out);
    }

    /// Ends a query with a response, or repeats it if that is a failure. Returns false if the response is malformed.
    fn conclude(
        &mut self,
        index: usize,
        head: packet::Head,
        message: &[u8],
        out: &mut Vec<(usize, Outcome)>,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        let records = match head.code {
            NOERROR if head.has_answers => packet::records(message, slot.kind),
            _ => Some(Vec::new()),
        };
        let Some(records) = records else {
            self.counts.stray += 1;
            return false;
        };
        let outcome = match head.is_answer(!records.is_empty()) {
            true => Outcome::Response { code: head.code, records },
            false => Outcome::NoRecursion,
        };
        let is_failure = match &outcome {
            Outcome::Response { code, .. } => ![NOERROR, NXDOMAIN].contains(code),
            _ => true,
        };
        if let Some(server) = self.servers.get_mut(slot.server) {
            match &outcome {
                _ if !is_failure => server.answered += 1,
                Outcome::NoRecursion => server.without_recursion += 1,
                Outcome::Response { code: REFUSED, .. } => server.refused += 1,
                _ => server.other_failures += 1,
            }
        }
        // Each resolver gets a chance, and a single one gets two.
        if is_failure && slot.attempt + 1 < self.servers.len().clamp(2, ATTEMPTS.len()) {
            slot.failure = Some(outcome);
            slot.turn = slot.turn.wrapping_add(1);
            let pause = Deadline { at: Instant::now() + FAILURE_PAUSE, slot: index, turn: slot.turn };
            if let Some(list) = self.deadlines.last_mut() {
                list.push_back(pause);
            }
            self.stop_waiting(index);
        } else {
            self.end(index, outcome, out);
        }
        true
    }

    fn stop_waiting(&mut self, index: usize) {
        if let Some(place) = self.slots.get_mut(index).and_then(|slot| slot.place.take()) {
            self.waiting.remove(&place);
            self.ports.stop_waiting(place.0);
        }
    }

    fn end(&mut self, index: usize, outcome: Outcome, out: &mut Vec<(usize, Outcome)>) {
        self.stop_waiting(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.turn = slot.turn.wrapping_add(1);
        out.push((slot.tag, outcome));
        self.free.push(index);
    }

    /// Asks again over TCP. The query keeps its place, and has no other deadline meanwhile.
    fn ask_by_tcp(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(server) = self.ports.servers().get(slot.server).copied() else { return };
        slot.turn = slot.turn.wrapping_add(1);
        let (query, sources, places) =
            (slot.packet.clone(), self.config.sources.clone(), self.tcp_places.clone());
        self.stop_waiting(index);
        self.pace(Instant::now());
        self.tcp.spawn(async move {
            let place = places.acquire().await;
            let asked = tokio::time::timeout(DNS_TIME / 2, by_tcp(&query, server, &sources)).await;
            drop(place);
            (index, asked.ok().and_then(Result::ok).unwrap_or_default())
        });
    }

    /// Takes the responses over TCP. Where there is none, the query is repeated over UDP.
    fn poll_tcp(&mut self, context: &mut Context<'_>, out: &mut Vec<(usize, Outcome)>) {
        while let Poll::Ready(Some(ended)) = self.tcp.poll_join_next(context) {
            let Ok((index, message)) = ended else { continue };
            let head = self.slots.get(index).and_then(|slot| packet::head(&slot.packet, &message));
            match head.is_some_and(|head| self.conclude(index, head, &message, out)) {
                true => self.counts.over_tcp += 1,
                false => self.next_attempt(index, out),
            }
        }
    }

    /// Repeats queries whose attempt ended, and sets the timer for the next one.
    fn expire(&mut self, context: &mut Context<'_>, out: &mut Vec<(usize, Outcome)>) {
        loop {
            let now = Instant::now();
            for number in 0..self.deadlines.len() {
                while let Some((slot, is_due)) = self.ended(number, now) {
                    if is_due {
                        self.next_attempt(slot, out);
                    }
                }
            }
            let first = self.deadlines.iter().filter_map(|list| list.front()).map(|first| first.at).min();
            let paced = Some(self.next_send).filter(|at| self.config.rate.is_some() && *at > now);
            let Some(next) = first.into_iter().chain(paced).min() else { return };
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return;
            }
        }
    }

    /// Removes the first deadline of a list that has passed, or that no longer applies, as is said beside its query.
    fn ended(&mut self, number: usize, now: Instant) -> Option<(usize, bool)> {
        let list = self.deadlines.get_mut(number)?;
        let first = list.front()?;
        let applies = self.slots.get(first.slot).is_some_and(|slot| slot.turn == first.turn);
        (!applies || first.at <= now).then_some(())?;
        list.pop_front().map(|first| (first.slot, applies))
    }

    /// Begins the next attempt of a query, or ends it after the last one.
    fn next_attempt(&mut self, index: usize, out: &mut Vec<(usize, Outcome)>) {
        self.stop_waiting(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.attempt += 1;
        if slot.attempt < ATTEMPTS.len() {
            return self.send(index);
        }
        let outcome = slot.failure.take();
        self.end(index, outcome.unwrap_or(Outcome::NoResponse), out);
    }
}

/// Sends a query over TCP, and reads the response (RFC 1035 §4.2.2).
async fn by_tcp(query: &[u8], server: SocketAddr, sources: &[IpAddr]) -> io::Result<Vec<u8>> {
    let stream = crate::connect::tcp(server, sources, DNS_TIME / 2).await;
    let mut stream = stream.map_err(io::Error::other)?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Random numbers that nobody can guess, drawn many at a time.
struct RandomWords {
    bytes: [u8; 1024],
    at: usize,
}

impl RandomWords {
    fn new() -> Result<Self, NoRandomBytes> {
        let mut new = Self { bytes: [0; 1024], at: 0 };
        new.draw()?;
        Ok(new)
    }

    fn draw(&mut self) -> Result<(), NoRandomBytes> {
        rand::fill(&mut self.bytes).map_err(|_| NoRandomBytes)?;
        self.at = 0;
        Ok(())
    }

    fn next(&mut self) -> Result<u16, NoRandomBytes> {
        if self.at >= self.bytes.len() {
            self.draw()?;
        }
        let word = self.bytes.get(self.at..self.at + 2).and_then(|word| word.try_into().ok());
        self.at += 2;
        word.map(u16::from_le_bytes).ok_or(NoRandomBytes)
    }
}

#[cfg(test)]
mod tests;
