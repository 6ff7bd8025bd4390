//! A resolver that is broken in one way: what its questioner makes of it (STS-13).

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::DomainName;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record};
use std::net::SocketAddr;
use std::time::Duration;
use sternpost_net::dns::{Answer, Dns, DnsError, Dnssec, Kind, Resolver, ResolverConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// How the server is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Silent,
    ServFail,
    /// Not its zone.
    Lame,
    /// The answer of another question's number.
    WrongId,
    /// Truncated by UDP, whole by TCP.
    Truncated,
    /// Truncated by UDP, nothing by TCP.
    TruncatedForGood,
    /// As much as a message holds.
    Huge,
    /// Not to be remembered.
    NoTtl,
    /// No message.
    Garbage,
}

const RECORD: &str = "v=STSv1; id=1;";

fn answer(question: &[u8], fault: Fault, tcp: bool) -> Option<Vec<u8>> {
    let asked = Message::from_vec(question).unwrap();
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
        Fault::Garbage => return Some(vec![question[0], question[1], 0xff, 0xff, 1]),
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

/// The same port for both; another program may have one of them.
async fn both() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn server(fault: Fault) -> SocketAddr {
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

async fn look(fault: Fault) -> Result<Answer, DnsError> {
    let config = ResolverConfig {
        servers: vec![server(fault).await],
        dnssec: Dnssec::Off,
        attempt_time: Duration::from_millis(300),
        ..ResolverConfig::default()
    };
    let name = DomainName::parse("_mta-sts.example.org").unwrap();
    Resolver::new(&config).unwrap().lookup(&name, Kind::Txt).await
}

#[tokio::test]
async fn a_broken_resolver_is_never_taken_for_one_that_says_there_is_nothing() {
    for fault in
        [Fault::Silent, Fault::ServFail, Fault::Lame, Fault::WrongId, Fault::TruncatedForGood, Fault::Garbage]
    {
        let outcome = look(fault).await;
        let is_failure = outcome.as_ref().is_err_and(|error| !error.is_absence());
        assert!(is_failure, "{fault:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn truncated_answers_come_by_tcp_and_huge_ones_are_bounded() {
    let texts = |answer: &Answer| answer.texts().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let whole = look(Fault::Truncated).await.unwrap();
    assert_eq!(texts(&whole), [RECORD.as_bytes()]);
    let huge = look(Fault::Huge).await.unwrap();
    assert_eq!(texts(&huge).len(), 200, "a message holds 64 KiB, and no more comes in");
    let fleeting = look(Fault::NoTtl).await.unwrap();
    assert_eq!((texts(&fleeting).len(), fleeting.ttl), (1, Duration::ZERO));
}
