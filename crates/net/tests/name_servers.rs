//! Tests what a survey of a zone's name servers tells about each of them (PUB-09): only an answer with authority counts.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::DomainName;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, NS, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use sternpost_net::BoxFuture;
use sternpost_net::dns::{
    Absence, Answer, AuthoritativeServers, Data, Dns, DnsError, Kind, PerServerLookup, Security, ServerFault,
    Survey,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// What a server does with a query.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    /// Has this TXT record.
    Shows(&'static str),
    /// Has no such record.
    Nothing,
    /// Has an alias to this name, and no record of it.
    Alias(&'static str),
    /// Answers from a cache.
    NotAuthoritative,
    /// Refers to the root.
    Refers,
    /// Refers to these servers of the zone `a.test`.
    Delegates(&'static [&'static str]),
    Refuses,
    Silent,
    Garbage,
    /// Sends an answer with a wrong ID, then the true one.
    ForgedFirst,
    Truncates,
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn absolute(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

fn answers(query: &[u8], server: Server, by_tcp: bool) -> Vec<Vec<u8>> {
    let asked = Message::from_vec(query).unwrap();
    let mut reply = Message::new(asked.metadata.id, MessageType::Response, asked.metadata.op_code);
    reply.add_query(asked.queries[0].clone());
    reply.metadata.authoritative = true;
    let owner = asked.queries[0].name().clone();
    let txt =
        |text: &str| Record::from_rdata(owner.clone(), 300, RData::TXT(TXT::new(vec![text.to_owned()])));
    let ns = |owner: Name, text: &str| Record::from_rdata(owner, 300, RData::NS(NS(absolute(text))));
    match server {
        Server::Silent => return Vec::new(),
        Server::Garbage => return vec![vec![query[0], query[1], 0xff, 0xff, 1]],
        Server::Refuses => reply.metadata.response_code = ResponseCode::Refused,
        Server::Truncates if !by_tcp => reply.metadata.truncation = true,
        Server::Nothing => {
            let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, 60);
            reply.add_authority(Record::from_rdata(absolute("a.test"), 60, RData::SOA(soa)));
        }
        Server::Alias(target) => {
            reply.add_answer(Record::from_rdata(owner.clone(), 300, RData::CNAME(CNAME(absolute(target)))));
        }
        Server::Refers => {
            reply.metadata.authoritative = false;
            reply.add_authority(ns(Name::root(), "root.test"));
        }
        Server::Delegates(names) => {
            reply.metadata.authoritative = false;
            for one in names {
                reply.add_authority(ns(absolute("a.test"), one));
            }
        }
        Server::NotAuthoritative => {
            reply.metadata.authoritative = false;
            reply.add_answer(txt("1"));
        }
        Server::Shows(text) => {
            reply.add_answer(txt(text));
        }
        Server::Truncates => {
            reply.add_answer(txt("1"));
        }
        Server::ForgedFirst => {
            reply.add_answer(txt("forged"));
            reply.metadata.id ^= 1;
            let forged = reply.to_vec().unwrap();
            reply.metadata.id ^= 1;
            reply.answers = vec![txt("1")];
            return vec![forged, reply.to_vec().unwrap()];
        }
    }
    assert!(asked.queries[0].query_type() != RecordType::ANY);
    vec![reply.to_vec().unwrap()]
}

/// Starts one server at 127.0.1.1, the next at 127.0.1.2, and so on, all on one port.
async fn start(servers: &[Server]) -> u16 {
    'port: loop {
        let mut bound = Vec::new();
        let mut port = 0;
        for last in 1..=u8::try_from(servers.len()).unwrap() {
            let Ok(udp) = UdpSocket::bind(SocketAddr::from(([127, 0, 1, last], port))).await else {
                continue 'port;
            };
            port = udp.local_addr().unwrap().port();
            let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await else { continue 'port };
            bound.push((udp, tcp));
        }
        for ((udp, tcp), server) in bound.into_iter().zip(servers.to_vec()) {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                    for reply in answers(&buffer[..length], server, false) {
                        let _ = udp.send_to(&reply, from).await;
                    }
                }
            });
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = tcp.accept().await {
                    let mut query = vec![0; stream.read_u16().await.unwrap().into()];
                    stream.read_exact(&mut query).await.unwrap();
                    for reply in answers(&query, server, true) {
                        stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                        stream.write_all(&reply).await.unwrap();
                    }
                }
            });
        }
        return port;
    }
}

/// A resolver that knows the servers of the zones: each zone with the numbers of its servers. Server 99 has no address, and
/// server 98 one that no sender can reach.
struct Zones(Vec<(&'static str, Vec<u8>)>);

impl Dns for Zones {
    fn lookup<'a>(&'a self, asked: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let zone = self.0.iter().find(|(zone, _)| *zone == asked.as_str());
        let number = asked.as_str().strip_prefix("ns").and_then(|rest| rest.split('.').next()?.parse().ok());
        let records = match (kind, zone, number) {
            (Kind::Ns, Some((_, servers)), _) => {
                servers.iter().map(|number| Data::Ns(name(&format!("ns{number}.test")))).collect()
            }
            (Kind::A, _, Some(98)) => vec![Data::A(Ipv4Addr::new(192, 168, 0, 1))],
            (Kind::A, _, Some(number)) if number < 98 => vec![Data::A(Ipv4Addr::new(127, 0, 1, number))],
            _ => {
                let absence = Absence { security: Security::Insecure, ttl: None };
                return Box::pin(async move { Err(DnsError::NoSuchRecord(absence)) });
            }
        };
        let (ttl, security) = (Duration::from_secs(1), Security::Insecure);
        let answer = Answer { records, ttl, security, aliases: Vec::new(), is_split: false };
        Box::pin(async move { Ok(answer) })
    }
}

/// Surveys the TXT record of x.a.test, of which these are the servers.
async fn survey(servers: &[Server]) -> Survey {
    let numbers = (1..=u8::try_from(servers.len()).unwrap()).collect();
    zone(servers, vec![("a.test", numbers)]).await.survey(&name("x.a.test"), Kind::Txt).await
}

async fn zone(servers: &[Server], zones: Vec<(&'static str, Vec<u8>)>) -> AuthoritativeServers {
    let port = start(servers).await;
    // A server without a valid answer costs all of it.
    let is_waited_for = [Server::Silent, Server::Garbage].iter().any(|one| servers.contains(one));
    let patience = Duration::from_secs(if is_waited_for { 3 } else { 60 });
    AuthoritativeServers::new(Arc::new(Zones(zones)), port, true).with_patience(patience, patience)
}

fn faults(survey: &Survey) -> Vec<(String, ServerFault)> {
    let faulty = survey
        .servers
        .iter()
        .filter_map(|server| Some((server.name.to_string(), server.shows.as_ref().err()?.clone())));
    faulty.collect()
}

#[tokio::test]
async fn pub_09_each_fault_of_a_name_server_is_told_apart_and_none_is_an_answer() {
    for (server, expected) in [
        (Server::NotAuthoritative, "not-authoritative"),
        (Server::Refers, "referral"),
        (Server::Refuses, "error"),
        (Server::Garbage, "malformed"),
        (Server::Silent, "silent"),
    ] {
        // A second server that is well does not hide it.
        let seen = survey(&[Server::Shows("1"), server]).await;
        assert!(seen.answer.is_ok(), "{expected}: {seen:?}");
        let found = faults(&seen);
        assert_eq!((found.len(), found[0].0.as_str(), found[0].1.as_str()), (1, "ns2.test", expected));
        let alone = survey(&[server]).await.answer.unwrap_err();
        assert!(!alone.is_absence(), "{expected}: {alone}");
    }
}

#[tokio::test]
async fn an_answer_that_arrives_too_late_does_not_count() {
    let port = start(&[Server::Shows("1")]).await;
    let servers = AuthoritativeServers::new(Arc::new(Zones(vec![("a.test", vec![1])])), port, true)
        .with_patience(Duration::ZERO, Duration::from_secs(10));
    let seen = servers.survey(&name("x.a.test"), Kind::Txt).await;
    assert!(matches!(faults(&seen)[0].1, ServerFault::Late(_)), "{seen:?}");
    assert!(seen.answer.is_err());
}

#[tokio::test]
async fn servers_that_can_not_be_queried_are_named() {
    let port = start(&[Server::Shows("1")]).await;
    let zones = vec![("a.test", vec![1, 99, 98])];
    let servers = AuthoritativeServers::new(Arc::new(Zones(zones.clone())), port, false);
    // Loopback is a special-purpose address too.
    assert!(servers.survey(&name("x.a.test"), Kind::Txt).await.answer.is_err());
    let servers = AuthoritativeServers::new(Arc::new(Zones(zones)), port, true)
        .with_patience(Duration::from_secs(3), Duration::from_secs(3));
    let seen = servers.survey(&name("x.a.test"), Kind::Txt).await;
    assert!(seen.answer.is_ok());
    let found = faults(&seen);
    assert!(
        found.iter().any(|(name, fault)| name == "ns99.test" && fault.as_str() == "no-address"),
        "{found:?}"
    );
}

#[tokio::test]
async fn more_name_servers_than_are_queried_are_named_as_such() {
    let port = start(&[Server::Shows("1")]).await;
    let zones = vec![("a.test", [vec![1], vec![99; 15], vec![2]].concat())];
    let seen = AuthoritativeServers::new(Arc::new(Zones(zones)), port, true)
        .survey(&name("x.a.test"), Kind::Txt)
        .await;
    assert!(faults(&seen).contains(&("ns2.test".to_owned(), ServerFault::NotQueried)), "{seen:?}");
}

#[tokio::test]
async fn servers_that_differ_are_named_with_what_each_returns() {
    for (other, text) in [(Server::Shows("2"), "\"2\""), (Server::Nothing, "nothing")] {
        let seen = survey(&[Server::Shows("1"), other]).await;
        let error = seen.answer.unwrap_err();
        let DnsError::Differ { all, .. } = &error else { panic!("{error}") };
        // Each record that any of them shows.
        let shown = if text == "nothing" { &["1"][..] } else { &["1", "2"] };
        assert_eq!(*all, shown.iter().map(|text| Data::Txt(text.as_bytes().to_vec())).collect::<Vec<_>>());
        let expected = format!("ns1.test (127.0.1.1) returns \"1\", ns2.test (127.0.1.2) returns {text}");
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(seen.servers[1].shows.as_ref().unwrap(), text);
    }
    assert!(survey(&[Server::Nothing, Server::Nothing]).await.answer.unwrap_err().is_absence());
}

#[tokio::test]
async fn truncated_answers_are_repeated_over_tcp_and_forged_ones_do_not_end_the_wait() {
    for server in [Server::Truncates, Server::ForgedFirst] {
        let answer = survey(&[server]).await.answer.unwrap();
        assert_eq!(answer.texts().collect::<Vec<_>>(), [b"1"]);
    }
}

#[tokio::test]
async fn a_server_in_the_delegation_is_queried_although_the_zone_does_not_list_it() {
    const DELEGATED: &[&str] = &["ns1.test", "ns3.test"];
    let servers = [Server::Shows("1"), Server::Delegates(DELEGATED), Server::Refuses];
    let seen = zone(&servers, vec![("a.test", vec![1]), ("test", vec![2])]).await;
    let seen = seen.survey(&name("x.a.test"), Kind::Txt).await;
    assert!(seen.answer.is_ok());
    assert_eq!(faults(&seen).len(), 1, "{seen:?}");
    assert_eq!(faults(&seen)[0].0, "ns3.test");
}

#[tokio::test]
async fn aliases_lead_to_the_servers_of_other_zones_and_all_of_them_are_told() {
    let servers = [Server::Alias("y.b.test"), Server::Shows("1"), Server::Refuses];
    let dns = zone(&servers, vec![("a.test", vec![1]), ("b.test", vec![2, 3])]).await;
    let seen = dns.survey(&name("x.a.test"), Kind::Txt).await;
    assert_eq!(seen.answer.as_ref().unwrap().aliases, [name("y.b.test")]);
    let told: Vec<String> =
        seen.servers.iter().map(|server| format!("{} {}", server.name, server.queried_name)).collect();
    assert_eq!(told, ["ns1.test x.a.test", "ns2.test y.b.test", "ns3.test y.b.test"]);
    // A single server does not know the other zone.
    let each = dns.each(&name("x.a.test"), Kind::Txt).await.unwrap();
    assert_eq!(each[0].server, IpAddr::from([127, 0, 1, 1]));
    assert_eq!(each[0].answer.as_ref().unwrap().aliases, [name("y.b.test")]);
}
