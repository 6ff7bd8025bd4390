//! One query to one name server, over UDP and, if the answer is truncated, over TCP (RFC 1035 §4.2, RFC 7766). A resolver
//! asks the next server when one fails; a rollout has to know how each of them fails, so [`ServerFault`] tells a server that
//! is down from one that is late, one that does not serve the zone, and one that forwards somebody else's answer.

use super::super::records::{absolute, belonging, data, record_type, seconds};
use super::super::{Absence, Answer, Data, DnsError, Kind, Security};
use crate::address::has_route;
use crate::connect::tcp;
use formats::DomainName;
use formats::limits::{CONNECT_TIME, DNS_TIME, NAME_SERVER_TIME};
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

/// Why what a name server did is not an answer for the zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ServerFault {
    /// No answer arrived within [`DNS_TIME`].
    #[error("it does not answer")]
    Silent,
    /// The answer arrived after [`NAME_SERVER_TIME`].
    #[error("it answers after {} seconds, when resolvers have given up", .0.as_secs())]
    Late(Duration),
    /// This machine has no route to the address, as to all IPv6 addresses on a machine without IPv6.
    #[error("this machine has no route to its address")]
    NoRoute,
    /// The query could not be sent, or the connection failed.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// The server returned an error code, such as REFUSED for a zone that it does not serve.
    #[error("it answers with an error: {0}")]
    Error(String),
    /// The answer lacks the AA bit: it is from a cache, or from a server that the zone has expired at.
    #[error("its answer is not authoritative (no AA bit)")]
    NotAuthoritative,
    /// The answer refers to other name servers: the server does not serve the zone.
    #[error("it does not serve the zone, and refers to other name servers")]
    Referral,
    /// The answer is not a valid DNS message, or not one for this query.
    #[error("its answer is not a valid DNS message: {0}")]
    Malformed(String),
    /// The name of the server has no address, or it can't be looked up.
    #[error("its address can't be found: {0}")]
    NoAddress(String),
    /// Senders can't reach the address. The text completes "its address is".
    #[error("its address is {0}")]
    SpecialAddress(String),
    /// The zone has more servers or addresses than are queried.
    #[error("it was not queried, since the zone has too many name servers")]
    NotQueried,
}

impl ServerFault {
    /// The fault's name for scripts and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Late(_) => "late",
            Self::NoRoute => "no-route",
            Self::Unreachable(_) => "unreachable",
            Self::Error(_) => "error",
            Self::NotAuthoritative => "not-authoritative",
            Self::Referral => "referral",
            Self::Malformed(_) => "malformed",
            Self::NoAddress(_) => "no-address",
            Self::SpecialAddress(_) => "special-address",
            Self::NotQueried => "not-queried",
        }
    }
}

impl From<&ServerFault> for DnsError {
    fn from(fault: &ServerFault) -> Self {
        match fault {
            ServerFault::Silent => Self::Timeout,
            ServerFault::Unreachable(why) => Self::Network(why.clone()),
            other => Self::ServerFailure(other.to_string()),
        }
    }
}

/// An answer about a name, by a server with authority for its zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AuthoritativeAnswer {
    /// The name is an alias of `target`. `inside` has the records at the end of the chain, if the answer holds them.
    Alias { target: DomainName, ttl: Duration, inside: Option<Answer> },
    /// The name has these records.
    Records(Answer),
    /// The name, or a record of the type, does not exist.
    Nothing(DnsError),
}

/// How long to wait for a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Answers within this time count.
    pub(super) counts: Duration,
    /// The time after which a server is silent.
    pub(super) total: Duration,
}

impl Patience {
    /// For a server that is expected to answer.
    pub(super) const FULL: Self = Self { counts: NAME_SERVER_TIME, total: DNS_TIME };
    /// For a server that was silent a moment ago.
    pub(super) const SHORT: Self = Self { counts: Duration::from_secs(2), total: Duration::from_secs(2) };
}

/// The pause before a query is repeated; each further pause is twice as long.
const REPEAT: Duration = Duration::from_secs(1);
/// The largest UDP answer: it passes unfragmented (the value of the DNS flag day 2020).
const UDP_BYTES: u16 = 1232;

/// Queries a server, and reads its answer.
pub(super) async fn ask(
    server: SocketAddr,
    sources: &[IpAddr],
    name: &DomainName,
    kind: Kind,
    patience: Patience,
) -> Result<AuthoritativeAnswer, ServerFault> {
    let begun = Instant::now();
    let message = exchange(server, sources, name, kind, patience.total).await?;
    let took = begun.elapsed();
    let word = read(&message, name, kind)?;
    if took > patience.counts { Err(ServerFault::Late(took)) } else { Ok(word) }
}

/// Sends a query, and returns the response to it, whatever that is.
pub(super) async fn exchange(
    server: SocketAddr,
    sources: &[IpAddr],
    name: &DomainName,
    kind: Kind,
    wait: Duration,
) -> Result<Message, ServerFault> {
    if !has_route(server.ip()) {
        return Err(ServerFault::NoRoute);
    }
    let until = Instant::now() + wait;
    let malformed = |error: &dyn std::fmt::Display| ServerFault::Malformed(error.to_string());
    let mut query = Message::query();
    query.metadata.recursion_desired = false;
    query.add_query(Query::query(absolute(name).map_err(|error| malformed(&error))?, record_type(kind)));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES);
    query.set_edns(edns);
    let answer = by_udp(server, sources, &query, until).await?;
    match answer.metadata.truncation {
        false => Ok(answer),
        true => timeout_at(until, by_tcp(server, sources, &query)).await.unwrap_or(Err(ServerFault::Silent)),
    }
}

async fn by_udp(
    server: SocketAddr,
    sources: &[IpAddr],
    query: &Message,
    until: Instant,
) -> Result<Message, ServerFault> {
    let failed = |error: io::Error| ServerFault::Unreachable(error.to_string());
    let bytes = query.to_vec().map_err(|error| ServerFault::Malformed(error.to_string()))?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = sources.iter().copied().find(|source| source.is_ipv4() == server.is_ipv4());
    // The kernel drops what comes from another address or port than the server's.
    let socket = UdpSocket::bind((source.unwrap_or(any), 0)).await.map_err(failed)?;
    socket.connect(server).await.map_err(failed)?;
    let mut pause = REPEAT;
    let mut invalid = None;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        socket.send(&bytes).await.map_err(failed)?;
        let round = (Instant::now() + pause).min(until);
        while let Ok(received) = timeout_at(round, socket.recv(&mut buffer)).await {
            match answer_to(query, buffer.get(..received.map_err(failed)?).unwrap_or_default()) {
                Ok(answer) => return Ok(answer),
                // A forged answer does not end the wait for the true one (RFC 5452 §9.1).
                Err(fault) => invalid = Some(fault),
            }
        }
        if Instant::now() >= until {
            return Err(invalid.unwrap_or(ServerFault::Silent));
        }
        pause *= 2;
    }
}

async fn by_tcp(server: SocketAddr, sources: &[IpAddr], query: &Message) -> Result<Message, ServerFault> {
    let failed = |error: io::Error| ServerFault::Unreachable(error.to_string());
    let bytes = query.to_vec().map_err(|error| ServerFault::Malformed(error.to_string()))?;
    let length = u16::try_from(bytes.len()).map_err(|error| ServerFault::Malformed(error.to_string()))?;
    let mut stream = tcp(server, sources, CONNECT_TIME).await.map_err(ServerFault::Unreachable)?;
    stream.write_all(&[&length.to_be_bytes(), &bytes[..]].concat()).await.map_err(failed)?;
    let mut answer = vec![0; usize::from(stream.read_u16().await.map_err(failed)?)];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    answer_to(query, &answer)
}

/// Parses a response, and checks that it is one to this query.
fn answer_to(query: &Message, bytes: &[u8]) -> Result<Message, ServerFault> {
    let answer = Message::from_vec(bytes).map_err(|error| ServerFault::Malformed(error.to_string()))?;
    let is_reply =
        answer.metadata.message_type == MessageType::Response && answer.metadata.id == query.metadata.id;
    // Servers may leave the question out of an error.
    let is_same = answer.queries == query.queries
        || answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError;
    match is_reply && is_same {
        true => Ok(answer),
        false => Err(ServerFault::Malformed("it is not an answer to this query".to_owned())),
    }
}

/// Reads an answer; a fault if it is not the word of a server with authority for the zone.
fn read(message: &Message, name: &DomainName, kind: Kind) -> Result<AuthoritativeAnswer, ServerFault> {
    let owner = absolute(name).map_err(|error| ServerFault::Malformed(error.to_string()))?;
    let code = message.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return Err(ServerFault::Error(code.to_string()));
    }
    if !message.metadata.authoritative {
        let refers = message.answers.is_empty()
            && message.authorities.iter().any(|record| record.record_type() == RecordType::NS);
        return Err(if refers { ServerFault::Referral } else { ServerFault::NotAuthoritative });
    }
    let records = belonging(&message.answers, &owner, record_type(kind));
    let ttl = seconds(records.iter().map(|record| record.ttl).min().unwrap_or_default());
    let mut answer = Answer {
        records: Vec::new(),
        ttl,
        security: Security::Insecure,
        aliases: Vec::new(),
        is_split: false,
    };
    for record in &records {
        answer.is_split |= matches!(&record.data, RData::TXT(txt) if txt.txt_data.len() > 1);
        match data(record) {
            Some(Data::Cname(target)) if kind != Kind::Cname => answer.aliases.push(target),
            Some(data) => answer.records.push(data),
            None => {}
        }
    }
    if let Some(target) = answer.aliases.first().cloned() {
        let inside = Some(answer).filter(|answer| !answer.records.is_empty());
        return Ok(AuthoritativeAnswer::Alias { target, ttl, inside });
    }
    if !answer.records.is_empty() {
        return Ok(AuthoritativeAnswer::Records(answer));
    }
    let soa = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    let absence = Absence { security: Security::Insecure, ttl: soa.map(seconds) };
    Ok(AuthoritativeAnswer::Nothing(match code {
        ResponseCode::NXDomain => DnsError::NoSuchName(absence),
        _ => DnsError::NoSuchRecord(absence),
    }))
}

/// The names in the delegation of a zone, as a server of its parent zone gives them: in a referral, or with authority if it
/// serves both zones. Empty if the server does not answer within `wait`.
pub(super) async fn delegation(
    server: SocketAddr,
    sources: &[IpAddr],
    zone: &DomainName,
    wait: Duration,
) -> Vec<DomainName> {
    let Ok(Ok(message)) = timeout(wait, exchange(server, sources, zone, Kind::Ns, wait)).await else {
        return Vec::new();
    };
    let Ok(owner) = absolute(zone) else { return Vec::new() };
    let records = message.answers.iter().chain(&message.authorities);
    let records = records.filter(|record| record.name == owner);
    let names = records.filter_map(|record| match data(record) {
        Some(Data::Ns(name)) => Some(name),
        _ => None,
    });
    names.collect()
}
