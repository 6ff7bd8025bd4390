use super::*;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use net::dns::batch::BatchConfig;
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::channel;

/// Answers `nN.example`: every tenth name has a record at `_mta-sts`, and names have the MX hosts of [`hosts`], of which
/// `mx0` has TLSA records, `mx2` fails, `mx3` has them after it failed four times, and the others have none. Notes the queries as `TYPE name`.
async fn resolver() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let queries = seen.clone();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            let mut reply = Message::from_vec(&bytes[..length]).unwrap();
            reply.metadata.message_type = MessageType::Response;
            reply.metadata.recursion_available = true;
            let (name, kind) = (reply.queries[0].name().clone(), reply.queries[0].query_type());
            let text = name.to_ascii();
            let query = format!("{kind} {text}");
            let count = {
                let mut queries = queries.lock().unwrap();
                queries.push(query.clone());
                let is_same = |other: &&String| kind == RecordType::TLSA && **other == query;
                queries.iter().filter(is_same).count()
            };
            let data = match kind {
                RecordType::TXT if text.starts_with("_mta-sts.") && text.contains("0.example") => {
                    vec![RData::TXT(rdata::TXT::new(vec!["v=STSv1; id=1;".to_owned()]))]
                }
                RecordType::MX => {
                    let number = text[1..text.find('.').unwrap()].parse().unwrap();
                    let mx = |host: &String| RData::MX(rdata::MX::new(10, Name::from_ascii(host).unwrap()));
                    hosts(number).iter().map(mx).collect()
                }
                RecordType::TLSA if text.contains("mx0.") || text.contains("mx3.") && count > 4 => {
                    let (usage, selector) = (CertUsage::DaneEe, Selector::Spki);
                    vec![RData::TLSA(rdata::TLSA::new(usage, selector, Matching::Sha256, vec![1; 32]))]
                }
                RecordType::TLSA if text.contains("mx2.") || text.contains("mx3.") => {
                    reply.metadata.response_code = ResponseCode::ServFail;
                    Vec::new()
                }
                _ => {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    Vec::new()
                }
            };
            for data in data {
                reply.add_answer(Record::from_rdata(name.clone(), 60, data));
            }
            let _ = socket.send_to(&reply.to_vec().unwrap(), from).await;
        }
    });
    (address, seen)
}

/// The MX hosts of a name: none, `mx0` with `mx1`, `mx1`, `mx2` or `mx3` with `mx1`.
fn hosts(number: usize) -> Vec<String> {
    let host = |number: usize| format!("mx{number}.hoster.example.");
    match number % 4 {
        0 => Vec::new(),
        1 => vec![host(1), host(0)],
        2 => vec![host(1)],
        _ if number >= 400 => vec![host(3), host(1)],
        _ => vec![host(2), host(1)],
    }
}

/// Passes over so many names. Returns what was found, by name: first of those to check, then of the others.
async fn pass(
    names: usize,
    dane: bool,
    in_flight: usize,
) -> (HashMap<String, FirstPass>, HashMap<String, FirstPass>, Vec<String>, PassCounts) {
    let (address, seen) = resolver().await;
    let (checked, passed, counts) = pass_at(address, names, dane, in_flight).await;
    let queries = seen.lock().unwrap().clone();
    (checked, passed, queries, counts)
}

/// The same with this resolver.
async fn pass_at(
    address: SocketAddr,
    names: usize,
    dane: bool,
    in_flight: usize,
) -> (HashMap<String, FirstPass>, HashMap<String, FirstPass>, PassCounts) {
    let config = BatchConfig { servers: vec![address], sources: Vec::new(), in_flight, rate: None };
    let batch = Batch::open(config).unwrap();
    let ((list, names_of_list), (lines, mut all_lines), (checks, mut all_checks)) =
        (channel(8), channel(8), channel(8));
    let pass = Pass { host_pause: Duration::ZERO, ..Pass::new(batch, dane) };
    let running = tokio::spawn(pass.run(names_of_list, lines, checks));
    tokio::spawn(async move {
        for number in 0..names {
            let domain = DomainName::parse(&format!("n{number}.example")).unwrap();
            list.send(Listed::Domain(domain)).await.unwrap();
        }
    });
    let (mut checked, mut passed) = (HashMap::new(), HashMap::new());
    loop {
        tokio::select! {
            Some(ToCheck { domain, first_pass }) = all_checks.recv() => {
                assert_eq!(checked.insert(domain.to_string(), first_pass.unwrap()), None);
            }
            Some(LineResult::Passed(domain, found)) = all_lines.recv() => {
                assert_eq!(passed.insert(domain.to_string(), found), None);
            }
            else => break,
        }
    }
    (checked, passed, running.await.unwrap())
}

#[tokio::test]
async fn names_with_a_record_are_checked_and_the_others_passed() {
    let (checked, passed, queries, counts) = pass(1000, false, 30).await;
    assert_eq!((checked.len(), passed.len(), counts.names), (100, 900, 1000));
    let found = checked["n30.example"];
    assert_eq!(
        (found.mta_sts, found.tlsrpt, found.mx, found.tlsa),
        (State::Record, State::Nxdomain, None, None)
    );
    assert!(passed.values().all(|found| !found.has_something() && !found.is_undetermined()));
    assert_eq!(queries.len(), 2000, "two for each name");
}

#[tokio::test]
async fn with_dane_each_mx_host_is_queried_once_and_one_with_tlsa_records_counts() {
    for in_flight in [2, 50, 500] {
        let (checked, passed, queries, counts) = pass(400, true, in_flight).await;
        assert_eq!(counts.names, 400);
        let of_host = |host: &str| {
            queries.iter().filter(|query| **query == format!("TLSA _25._tcp.{host}.hoster.example.")).count()
        };
        assert_eq!(
            (of_host("mx0"), of_host("mx1"), of_host("mx2")),
            (1, 1, 6),
            "mx2 fails, and is looked up three times, with two queries each, whatever the number of its names is"
        );
        assert_eq!(queries.len(), 3 * 400 + 8);
        let has = |name: &str| checked.get(name).and_then(|found| found.tlsa);
        assert_eq!((has("n5.example"), has("n10.example")), (Some(State::Record), Some(State::Nxdomain)));
        assert_eq!(passed["n4.example"].tlsa, None);
        assert_eq!(passed["n4.example"].mx, Some(State::NoRecord));
        assert_eq!(passed["n6.example"].tlsa, Some(State::Nxdomain));
        assert!(passed["n7.example"].is_undetermined() && !passed["n6.example"].is_undetermined());
        assert_eq!(checked.len(), 140, "{in_flight}");
    }
}

#[tokio::test]
async fn a_host_whose_lookup_fails_is_looked_up_again_after_the_last_name() {
    let (checked, passed, queries, _) = pass(440, true, 50).await;
    assert_eq!(queries.iter().filter(|query| query.contains("TLSA _25._tcp.mx3.")).count(), 5);
    for number in (403..440).step_by(4) {
        let found = checked.get(&format!("n{number}.example")).and_then(|found| found.tlsa);
        assert_eq!(found, Some(State::Record), "{number}");
    }
    assert!(passed["n7.example"].is_undetermined());
}

#[tokio::test]
async fn with_many_names_of_failing_hosts_the_list_goes_on_after_the_retries() {
    let names = 5 * HELD_NAMES;
    let (checked, passed, queries, counts) = pass(names, true, 200).await;
    assert_eq!((checked.len() + passed.len(), counts.names), (names, names as u64));
    assert_eq!(queries.iter().filter(|query| query.contains("TLSA _25._tcp.mx2.")).count(), 6);
    assert!(passed["n7.example"].is_undetermined());
}

#[tokio::test]
async fn names_behind_a_server_without_recursion_are_undetermined() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            // A referral without its records.
            bytes[2] |= 0x80;
            let _ = socket.send_to(&bytes[..length], from).await;
        }
    });
    let (_, passed, counts) = pass_at(address, 20, false, 10).await;
    assert!(passed.values().all(|found| found.is_undetermined() && found.mta_sts == State::NoRecursion));
    assert_eq!(passed.len(), 20);
    assert!(matches!(counts.faults[..], [(server, ResolverFault::NoRecursion(80))] if server == address));
}
