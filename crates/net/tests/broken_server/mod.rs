//! A DNS server for tests that is broken in one way. Tests of other crates include this file by its path.

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// How the server is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are self-explanatory")]
#[allow(dead_code, reason = "each test that includes this file uses some of them")]
pub enum Fault {
    Silent,
    ServFail,
    /// Refuses the query, as a server that is not authoritative for the zone.
    Lame,
    /// Answers with the wrong message ID.
    WrongId,
    /// Truncated over UDP, complete over TCP.
    Truncated,
    /// Truncated over UDP, no answer over TCP.
    TruncatedForGood,
    /// Answers with 200 large records, close to the maximum message size.
    Huge,
    /// Answers with a TTL of 0.
    NoTtl,
    /// Answers with bytes that are not a DNS message.
    Garbage,
    /// No fault: answers "no such record" with the SOA of example.org, and with the AD bit.
    ProvenNothing,
    /// No fault: the same without the AD bit.
    UnprovenNothing,
    /// As [`Fault::ProvenNothing`], and the query for the SOA record gets no answer.
    NothingWithSilentSoa,
}

/// The TXT record that the server returns for every name.
pub const RECORD: &str = "v=STSv1; id=1;";

fn answer(query: &[u8], fault: Fault, tcp: bool) -> Option<Vec<u8>> {
    let asked = Message::from_vec(query).unwrap();
    let id = if fault == Fault::WrongId { asked.metadata.id ^ 1 } else { asked.metadata.id };
    let mut reply = Message::new(id, MessageType::Response, asked.metadata.op_code);
    reply.metadata.recursion_available = true;
    for query in &asked.queries {
        reply.add_query(query.clone());
    }
    let name = asked.queries[0].name().clone();
    let ttl = if fault == Fault::NoTtl { 0 } else { 300 };
    let record = |text: String| Record::from_rdata(name.clone(), ttl, RData::TXT(TXT::new(vec![text])));
    match fault {
        Fault::Silent => return None,
        Fault::TruncatedForGood if tcp => return None,
        Fault::Garbage => return Some(vec![query[0], query[1], 0xff, 0xff, 1]),
        Fault::NothingWithSilentSoa if asked.queries[0].query_type() == RecordType::SOA => return None,
        Fault::ProvenNothing | Fault::UnprovenNothing | Fault::NothingWithSilentSoa => {
            reply.metadata.authentic_data = fault != Fault::UnprovenNothing;
            let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, 60);
            let record = Record::from_rdata(Name::from_ascii("example.org.").unwrap(), 60, RData::SOA(soa));
            match asked.queries[0].query_type() {
                RecordType::SOA => reply.add_answer(record),
                _ => reply.add_authority(record),
            };
        }
        Fault::ServFail => reply.metadata.response_code = ResponseCode::ServFail,
        Fault::Lame => reply.metadata.response_code = ResponseCode::Refused,
        Fault::Truncated | Fault::TruncatedForGood | Fault::Huge if !tcp => reply.metadata.truncation = true,
        Fault::Huge => {
            reply.add_answers((0..200).map(|number| record(format!("{number}{}", "x".repeat(240)))));
        }
        _ => {
            reply.add_answer(record(RECORD.to_owned()));
        }
    }
    Some(reply.to_vec().unwrap())
}

/// Binds UDP and TCP to the same port; retries if another program uses one of them.
async fn both() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

/// Starts a server with this fault and returns its address.
pub async fn server(fault: Fault) -> SocketAddr {
    let (udp, tcp) = both().await;
    let address = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            if let Some(reply) = answer(&buffer[..length], fault, false) {
                let _ = udp.send_to(&reply, from).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let Ok(length) = stream.read_u16().await else { continue };
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.unwrap();
            if let Some(reply) = answer(&question, fault, true) {
                stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        }
    });
    address
}
