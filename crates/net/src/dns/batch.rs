//! Many DNS queries at once, for lists of names: [`Batch`] sends them to recursive resolvers over UDP, with many in flight,
//! and hands out the outcomes as they come. It repeats lost queries, and asks over TCP where a response was truncated
//! (RFC 7766). It has no cache and does not validate: it says which names have a record, and [`super::Resolver`] looks up
//! those that matter.
//!
//! One task drives a batch: it asks while [`Batch::has_room`], and then waits for [`Batch::outcomes`]. The number of queries
//! in flight and their rate are bounded, so that a resolver of others is not flooded.

mod packet;

use super::{Data, Kind};
use aws_lc_rs::rand;
use formats::DomainName;
use formats::limits::DNS_TIME;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UdpSocket;
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

/// Queries in flight for each socket: their responses fit into its receive buffer.
const PER_SOCKET: usize = 64;

/// The most sockets of a batch.
const SOCKETS: usize = 256;

/// The most bytes of a response over UDP that are read.
const RESPONSE_BYTES: usize = 4096;

/// Connections over TCP at a time.
const TCP_AT_ONCE: usize = 32;

/// How long a pause is made up for by sending faster afterwards, under a rate.
const CATCH_UP: Duration = Duration::from_millis(10);

/// The response codes that are answers (RFC 1035 §4.1.1).
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;

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
    /// The most queries a second, repeated ones included; `None` for no limit.
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
    /// The name is longer than DNS allows, so it does not exist.
    NameTooLong,
}

/// What a batch did, for a summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// Queries that were sent, repeated ones included.
    pub sent: u64,
    /// Queries that were repeated, after no response or a failure.
    pub repeated: u64,
    /// Truncated responses, each asked for again over TCP.
    pub truncated: u64,
    /// Messages that are not the response to a query in flight: late, forged or malformed ones.
    pub stray: u64,
}

/// Queries in flight. See the module.
pub struct Batch {
    config: BatchConfig,
    /// Sockets that are connected to a resolver: that of number `n` to the server `n % servers`.
    sockets: Vec<UdpSocket>,
    /// The socket that is read first.
    first_socket: usize,
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
    /// The resolver of the first attempt.
    first: usize,
    /// The socket and ID under which a datagram is awaited.
    place: Option<(usize, u16)>,
    /// Changes with each attempt, so that old deadlines have no effect.
    turn: u32,
    /// The failure that a resolver answered with, for the case that no other attempt does better.
    failure: Option<u8>,
}

struct Deadline {
    at: Instant,
    slot: usize,
    turn: u32,
}

impl Batch {
    /// Opens the sockets: one for each 64 queries in flight, each with a port that the system chooses.
    ///
    /// # Errors
    /// If there is no resolver, or if no socket can be opened.
    pub async fn open(config: BatchConfig) -> io::Result<Self> {
        if config.servers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no resolver"));
        }
        let in_flight = config.in_flight.max(1);
        let count = in_flight.div_ceil(PER_SOCKET).clamp(2, SOCKETS).max(config.servers.len());
        let mut sockets = Vec::with_capacity(count);
        for server in config.servers.iter().cycle().take(count) {
            let socket = UdpSocket::bind(SocketAddr::new(local(*server, &config.sources), 0)).await?;
            socket.connect(*server).await?;
            socket.writable().await?;
            sockets.push(socket);
        }
        let slot = |_| Slot {
            tag: 0,
            packet: Vec::new(),
            kind: Kind::Txt,
            attempt: 0,
            first: 0,
            place: None,
            turn: 0,
            failure: None,
        };
        let now = Instant::now();
        Ok(Self {
            sockets,
            first_socket: 0,
            slots: (0..in_flight).map(slot).collect(),
            free: (0..in_flight).rev().collect(),
            waiting: HashMap::with_capacity(in_flight),
            deadlines: Default::default(),
            timer: Box::pin(tokio::time::sleep_until(now)),
            next_send: now,
            tcp: JoinSet::new(),
            tcp_places: Arc::new(Semaphore::new(TCP_AT_ONCE)),
            random: RandomWords::default(),
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

    /// Asks for the records of type `kind` at `prefix.name`, or at `name` if `prefix` is empty. The outcome is handed out with
    /// `tag`; one that is known at once is returned. To be called while [`Self::has_room`]; otherwise the query counts as not
    /// answered.
    pub fn ask(&mut self, tag: usize, prefix: &str, name: &DomainName, kind: Kind) -> Option<Outcome> {
        let Some(index) = self.free.pop() else { return Some(Outcome::NoResponse) };
        let servers = self.config.servers.len();
        let first = usize::from(self.random.next()) % servers;
        let Some(slot) = self.slots.get_mut(index) else { return Some(Outcome::NoResponse) };
        if !packet::write(&mut slot.packet, prefix, name, kind) {
            self.free.push(index);
            return Some(Outcome::NameTooLong);
        }
        (slot.tag, slot.kind, slot.attempt, slot.first, slot.failure) = (tag, kind, 0, first, None);
        self.send(index);
        None
    }

    /// Sends a query, and notes when its attempt ends.
    fn send(&mut self, index: usize) {
        let now = Instant::now();
        if let Some(rate) = self.config.rate {
            // Short pauses are made up for, long ones are not.
            let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
            self.next_send = self.next_send.max(earliest) + Duration::from_secs(1) / rate.get();
        }
        let servers = self.config.servers.len();
        let Some(slot) = self.slots.get_mut(index) else { return };
        let server = (slot.first + slot.attempt) % servers;
        let each = (self.sockets.len() - server).div_ceil(servers);
        let number = server + usize::from(self.random.next()) % each * servers;
        let mut id = self.random.next();
        while self.waiting.contains_key(&(number, id)) {
            id = id.wrapping_add(1);
        }
        packet::set_id(&mut slot.packet, id);
        self.waiting.insert((number, id), index);
        slot.place = Some((number, id));
        slot.turn = slot.turn.wrapping_add(1);
        if let (Some(list), Some(time)) = (self.deadlines.get_mut(slot.attempt), ATTEMPTS.get(slot.attempt)) {
            list.push_back(Deadline { at: now + *time, slot: index, turn: slot.turn });
        }
        self.counts.sent += 1;
        self.counts.repeated += u64::from(slot.attempt > 0);
        if let Some(socket) = self.sockets.get(number) {
            // An error of an earlier datagram is reported in the place of sending this one. What is not sent is repeated later.
            let sent = socket.try_send(&slot.packet);
            if sent.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                let _ = socket.try_send(&slot.packet);
            }
        }
    }

    /// Waits until there are outcomes, or until the rate allows a query again. Adds the outcomes, with the tags of their queries,
    /// to `out`. Never returns if nothing is in flight and the rate sets no pause.
    pub async fn outcomes(&mut self, out: &mut Vec<(usize, Outcome)>) {
        let had_room = self.has_room();
        poll_fn(|context| {
            self.receive(context, out);
            self.poll_tcp(context, out);
            self.expire(context, out);
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
        // Each time another socket is the first one, so that none waits for long.
        self.first_socket = (self.first_socket + 1) % self.sockets.len();
        for number in (self.first_socket..self.sockets.len()).chain(0..self.first_socket) {
            while out.len() < AT_ONCE {
                let Some(socket) = self.sockets.get(number) else { break };
                let mut buffer = ReadBuf::new(&mut bytes);
                match socket.poll_recv(context, &mut buffer) {
                    Poll::Ready(Ok(())) => self.take(number, buffer.filled(), out),
                    // A datagram was refused; its query is repeated.
                    Poll::Ready(Err(_)) => {}
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
        let is_failure = ![NOERROR, NXDOMAIN].contains(&head.code);
        if is_failure && slot.attempt == 0 {
            slot.failure = Some(head.code);
            slot.turn = slot.turn.wrapping_add(1);
            let pause = Deadline { at: Instant::now() + FAILURE_PAUSE, slot: index, turn: slot.turn };
            if let Some(list) = self.deadlines.last_mut() {
                list.push_back(pause);
            }
            self.stop_waiting(index);
        } else {
            self.end(index, Outcome::Response { code: head.code, records }, out);
        }
        true
    }

    fn stop_waiting(&mut self, index: usize) {
        if let Some(place) = self.slots.get_mut(index).and_then(|slot| slot.place.take()) {
            self.waiting.remove(&place);
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
        let place = self.slots.get_mut(index).and_then(|slot| slot.place);
        let server =
            place.and_then(|(number, _)| self.config.servers.get(number % self.config.servers.len()));
        let (Some(slot), Some(server)) = (self.slots.get_mut(index), server.copied()) else { return };
        slot.turn = slot.turn.wrapping_add(1);
        let (query, sources, places) =
            (slot.packet.clone(), self.config.sources.clone(), self.tcp_places.clone());
        self.stop_waiting(index);
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
            if !head.is_some_and(|head| self.conclude(index, head, &message, out)) {
                self.next_attempt(index, out);
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
        let outcome = match slot.failure {
            Some(code) => Outcome::Response { code, records: Vec::new() },
            None => Outcome::NoResponse,
        };
        self.end(index, outcome, out);
    }
}

/// The local address for a resolver.
fn local(server: SocketAddr, sources: &[IpAddr]) -> IpAddr {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    sources.iter().find(|source| source.is_ipv4() == server.is_ipv4()).copied().unwrap_or(any)
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

/// Random numbers that nobody can guess, drawn many at a time. All are 0 if the system provides none.
struct RandomWords {
    bytes: [u8; 1024],
    at: usize,
}

impl Default for RandomWords {
    fn default() -> Self {
        Self { bytes: [0; 1024], at: 1024 }
    }
}

impl RandomWords {
    fn next(&mut self) -> u16 {
        if self.at >= self.bytes.len() {
            self.at = 0;
            let _ = rand::fill(&mut self.bytes);
        }
        let word = self.bytes.get(self.at..self.at + 2).and_then(|word| word.try_into().ok());
        self.at += 2;
        word.map_or(0, u16::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
