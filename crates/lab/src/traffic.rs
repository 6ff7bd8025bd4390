//! Observers of the lab's traffic: which DNS questions and which HTTPS connections went by, in order and by client.
//!
//! The proxies of [`crate::man_in_the_middle`] write into a [`Traffic`], also when they attack nothing. A test, or a
//! measurement of a foreign mail server, reads from it what that server did: whether it queried `_mta-sts`, with which
//! flags and how often, whether it looked up TLSA records, and which policy hosts it connected to.
//!
//! ```
//! # use sternpost_lab::traffic::{Outcome, Question, Traffic};
//! # use hickory_proto::rr::RecordType;
//! # let traffic = Traffic::new(std::sync::Arc::new(net::clock::SystemClock));
//! # let question = Question {
//! #     name: "_mta-sts.good.test.".into(), kind: RecordType::TXT, is_tcp: false, recursion_desired: true,
//! #     dnssec_ok: true, authentic_data: false, checking_disabled: false, outcome: Outcome::Genuine,
//! # };
//! # traffic.question("127.0.0.1".parse().unwrap(), question);
//! assert_eq!(traffic.count("_mta-sts.good.test.", RecordType::TXT), 1);
//! assert!(traffic.questions().iter().all(|question| question.dnssec_ok));
//! assert_eq!(traffic.connections(), []);
//! ```

pub use hickory_proto::rr::RecordType;
use net::clock::Clock;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The maximum number of events that are kept; later ones are only counted, by [`Traffic::lost`].
const MAX_EVENTS: usize = 200_000;

/// What went by, in order. Clones share the events.
#[derive(Clone)]
pub struct Traffic {
    clock: Arc<dyn Clock>,
    events: Arc<Mutex<Events>>,
}

#[derive(Default)]
struct Events {
    all: Vec<Event>,
    lost: u64,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The monotonic time of the observer's clock.
    pub at: Duration,
    /// The client's address.
    pub client: IpAddr,
    /// What the client did.
    pub what: Observed,
}

/// What a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// It asked a DNS question.
    Dns(Question),
    /// It opened a connection to a policy host.
    Https(Connection),
}

/// A DNS query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, with the final dot.
    pub name: String,
    /// The record type.
    pub kind: RecordType,
    /// True over TCP, false over UDP.
    pub is_tcp: bool,
    /// The RD bit.
    pub recursion_desired: bool,
    /// The DO bit of EDNS (RFC 3225); false without EDNS.
    pub dnssec_ok: bool,
    /// The AD bit, by which a client asks for the state of the answer (RFC 6840 §5.7).
    pub authentic_data: bool,
    /// The CD bit (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
    /// What the client got.
    pub outcome: Outcome,
}

/// A TCP connection to the port of the policy hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The name in the client's SNI; `None` if it sent none, or no ClientHello.
    pub host: Option<String>,
    /// What the client got.
    pub outcome: Outcome,
}

/// What a client got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What the server sent.
    Genuine,
    /// What the attacker made of it.
    Changed,
    /// Nothing: the attacker or the server gave no answer.
    Nothing,
}

impl Traffic {
    /// An observer without events.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, events: Arc::default() }
    }

    /// Records a DNS query.
    pub fn question(&self, client: IpAddr, question: Question) {
        self.record(client, Observed::Dns(question));
    }

    /// Records a connection.
    pub fn connection(&self, client: IpAddr, connection: Connection) {
        self.record(client, Observed::Https(connection));
    }

    fn record(&self, client: IpAddr, what: Observed) {
        let at = self.clock.elapsed();
        let mut events = self.lock();
        match events.all.len() < MAX_EVENTS {
            true => events.all.push(Event { at, client, what }),
            false => events.lost += 1,
        }
    }

    /// All events, in the order in which they ended.
    pub fn events(&self) -> Vec<Event> {
        self.lock().all.clone()
    }

    /// The events of one client.
    pub fn of_client(&self, client: IpAddr) -> Vec<Event> {
        self.lock().all.iter().filter(|event| event.client == client).cloned().collect()
    }

    /// The DNS queries of all clients.
    pub fn questions(&self) -> Vec<Question> {
        let dns = |event: &Event| match &event.what {
            Observed::Dns(question) => Some(question.clone()),
            Observed::Https(_) => None,
        };
        self.lock().all.iter().filter_map(dns).collect()
    }

    /// The connections of all clients.
    pub fn connections(&self) -> Vec<Connection> {
        let https = |event: &Event| match &event.what {
            Observed::Https(connection) => Some(connection.clone()),
            Observed::Dns(_) => None,
        };
        self.lock().all.iter().filter_map(https).collect()
    }

    /// How often a name in lower case, with the final dot, was queried for a record type.
    pub fn count(&self, name: &str, kind: RecordType) -> usize {
        let is_it = |event: &&Event| matches!(&event.what, Observed::Dns(asked) if asked.name == name && asked.kind == kind);
        self.lock().all.iter().filter(is_it).count()
    }

    /// The number of events that were not kept because there were too many.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Forgets all events.
    pub fn clear(&self) {
        *self.lock() = Events::default();
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traffic").field("events", &self.lock().all.len()).finish()
    }
}

impl fmt::Display for Event {
    /// One line, such as `0.5 s 127.0.0.1 dns _mta-sts.good.test. TXT udp rd do: genuine`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s {} ", self.at.as_secs_f64(), self.client)?;
        match &self.what {
            Observed::Dns(question) => {
                write!(f, "dns {} {}", question.name, question.kind)?;
                let flags = [
                    (true, if question.is_tcp { "tcp" } else { "udp" }),
                    (question.recursion_desired, "rd"),
                    (question.dnssec_ok, "do"),
                    (question.authentic_data, "ad"),
                    (question.checking_disabled, "cd"),
                ];
                flags.iter().filter(|flag| flag.0).try_for_each(|(_, name)| write!(f, " {name}"))?;
                write!(f, ": {}", question.outcome.as_str())
            }
            Observed::Https(connection) => {
                let host = connection.host.as_deref().unwrap_or("(no SNI)");
                write!(f, "https {host}: {}", connection.outcome.as_str())
            }
        }
    }
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Genuine => "genuine",
            Self::Changed => "changed",
            Self::Nothing => "nothing",
        }
    }
}
