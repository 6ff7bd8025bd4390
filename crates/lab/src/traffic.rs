//! Observers of the lab's traffic: which DNS questions, HTTPS requests and SMTP sessions went by, in order and by client.
//!
//! The proxies of [`crate::man_in_the_middle`] write into a [`Traffic`], also when they attack nothing. The lab's policy
//! hosts and mail servers write what they saw after [`crate::Lab::observe`]. A test, or a
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

/// The DNS queries and HTTPS connections that a proxy received, in order. Clones share the events.
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

/// A DNS query or an HTTPS connection.
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
    /// The client sent a DNS query.
    Dns(Question),
    /// The client opened a connection to a policy host.
    Https(Connection),
    /// It did something on a connection to a policy host, as that host saw it.
    Fetch(Fetch),
    /// It did something in an SMTP session, as the mail server saw it.
    Mail(Mail),
}

/// A step of a connection to a policy host of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The name in the client's SNI; empty if it sent none.
    pub host: String,
    /// What happened.
    pub step: FetchStep,
}

/// What happened on a connection to a policy host of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchStep {
    /// A ClientHello arrived.
    Hello,
    /// The TLS handshake failed for this reason, such as an alert of the client.
    HandshakeFailed(String),
    /// A request arrived: the method, the path and the `Host` header.
    Request {
        /// The method, such as `GET`.
        method: String,
        /// The path with its query string.
        path: String,
        /// The `Host` header; empty if there is none.
        host: String,
    },
    /// The connection ended; `true` if the response was written completely.
    Ended(bool),
}

/// A step of an SMTP session with a mail server of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The name of the mail server.
    pub host: String,
    /// The number of the session, unique in the lab.
    pub session: u64,
    /// What happened.
    pub step: MailStep,
}

/// What happened in an SMTP session of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailStep {
    /// The client connected.
    Connected,
    /// The client sent this command, at most 200 characters of it.
    Command {
        /// The line without its end.
        line: String,
        /// True over TLS.
        tls: bool,
    },
    /// A ClientHello arrived with this server name; `None` without one.
    Hello(Option<String>),
    /// The TLS handshake was completed.
    Secured,
    /// The TLS handshake failed for this reason, such as an alert of the client.
    HandshakeFailed(String),
    /// The mail server accepted a message.
    Delivered {
        /// The envelope sender; empty for a bounce.
        from: String,
        /// The recipients.
        to: Vec<String>,
        /// True over TLS.
        tls: bool,
    },
    /// The session ended.
    Closed,
}

/// A DNS query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name in lower case, with the final dot.
    pub name: String,
    /// The record type that was queried.
    pub kind: RecordType,
    /// True over TCP, false over UDP.
    pub is_tcp: bool,
    /// The RD bit (RFC 1035 §4.1.1).
    pub recursion_desired: bool,
    /// The DO bit of EDNS (RFC 3225); false without EDNS.
    pub dnssec_ok: bool,
    /// The AD bit, by which a client asks for the state of the answer (RFC 6840 §5.7).
    pub authentic_data: bool,
    /// The CD bit (RFC 4035 §3.2.2).
    pub checking_disabled: bool,
    /// Whether the client got a genuine response.
    pub outcome: Outcome,
}

/// A TCP connection to the port of the policy hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The name in the client's SNI; `None` if it sent none, or no ClientHello.
    pub host: Option<String>,
    /// Whether the client got genuine data.
    pub outcome: Outcome,
}

/// Whether a client got the data of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The data as the server sent it.
    Genuine,
    /// Data that the attacker changed or forged.
    Changed,
    /// No data: the attacker or the server gave no answer.
    Nothing,
}

impl Traffic {
    /// Creates an observer without events; `clock` dates them.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, events: Arc::default() }
    }

    /// Records a DNS query by a client.
    pub fn question(&self, client: IpAddr, question: Question) {
        self.record(client, Observed::Dns(question));
    }

    /// Records a connection by a client.
    pub fn connection(&self, client: IpAddr, connection: Connection) {
        self.record(client, Observed::Https(connection));
    }

    /// Records any event.
    pub fn record(&self, client: IpAddr, what: Observed) {
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

    /// The events from number `from` on for which `keep` is true, with the number of the next event.
    pub fn since(&self, from: usize, keep: impl Fn(&Event) -> bool) -> (Vec<Event>, usize) {
        let events = self.lock();
        let new = events.all.iter().skip(from).filter(|event| keep(event)).cloned();
        (new.collect(), events.all.len())
    }

    /// The events of one client.
    pub fn of_client(&self, client: IpAddr) -> Vec<Event> {
        self.lock().all.iter().filter(|event| event.client == client).cloned().collect()
    }

    /// The DNS queries of all clients.
    pub fn questions(&self) -> Vec<Question> {
        let dns = |event: &Event| match &event.what {
            Observed::Dns(question) => Some(question.clone()),
            _ => None,
        };
        self.lock().all.iter().filter_map(dns).collect()
    }

    /// The connections of all clients.
    pub fn connections(&self) -> Vec<Connection> {
        let https = |event: &Event| match &event.what {
            Observed::Https(connection) => Some(connection.clone()),
            _ => None,
        };
        self.lock().all.iter().filter_map(https).collect()
    }

    /// The number of queries for a record type of a name in lower case, with the final dot.
    pub fn count(&self, name: &str, kind: RecordType) -> usize {
        let is_it = |event: &&Event| matches!(&event.what, Observed::Dns(asked) if asked.name == name && asked.kind == kind);
        self.lock().all.iter().filter(is_it).count()
    }

    /// The number of events that were not kept because there were too many.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Forgets all events, and resets the number of lost ones.
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
        write!(f, "{:.1} s {} {}", self.at.as_secs_f64(), self.client, self.what)
    }
}

impl fmt::Display for Observed {
    /// The event without its time and client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(question) => {
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
            Self::Https(connection) => {
                let host = connection.host.as_deref().unwrap_or("(no SNI)");
                write!(f, "https {host}: {}", connection.outcome.as_str())
            }
            Self::Fetch(fetch) => {
                let host = if fetch.host.is_empty() { "(no SNI)" } else { &fetch.host };
                write!(f, "https {host}: {}", fetch.step)
            }
            Self::Mail(mail) => write!(f, "smtp {} #{}: {}", mail.host, mail.session, mail.step),
        }
    }
}

impl fmt::Display for FetchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello => f.write_str("ClientHello"),
            Self::HandshakeFailed(why) => write!(f, "TLS handshake failed: {why}"),
            Self::Request { method, path, host } => write!(f, "{method} {path}, Host: {host}"),
            Self::Ended(true) => f.write_str("closed after the complete response"),
            Self::Ended(false) => f.write_str("closed without a complete response"),
        }
    }
}

impl fmt::Display for MailStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Command { line, tls } => write!(f, "{line}{}", if *tls { " (TLS)" } else { "" }),
            Self::Hello(Some(name)) => write!(f, "ClientHello, SNI {name}"),
            Self::Hello(None) => f.write_str("ClientHello without SNI"),
            Self::Secured => f.write_str("TLS handshake completed"),
            Self::HandshakeFailed(why) => write!(f, "TLS handshake failed: {why}"),
            Self::Delivered { to, tls, .. } => {
                let how = if *tls { "over TLS" } else { "in cleartext" };
                write!(f, "message for {} accepted {how}", to.join(", "))
            }
            Self::Closed => f.write_str("closed"),
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
