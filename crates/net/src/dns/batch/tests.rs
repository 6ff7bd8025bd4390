use super::*;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, rdata};
use std::sync::Mutex;
use tokio::net::{TcpListener, UdpSocket};

/// A resolver that answers by the first label below the prefix, and notes the queries.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

/// What to send for a query: nothing, or these messages. `attempt` counts the queries for the same name from 1.
fn replies(query: &[u8], attempt: usize, by_tcp: bool) -> Vec<Vec<u8>> {
    let mut reply = Message::from_vec(query).unwrap();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_available = true;
    let name = reply.queries[0].name().clone();
    let text = name.to_ascii();
    let record = |name: &Name, text: &str| {
        Record::from_rdata(name.clone(), 60, RData::TXT(rdata::TXT::new(vec![text.to_owned()])))
    };
    let label = text.split('.').nth(1).unwrap();
    match label {
        "none" => {}
        "referred" => reply.metadata.recursion_available = false,
        "referred-once" if attempt == 1 => reply.metadata.recursion_available = false,
        "nowhere" => reply.metadata.response_code = ResponseCode::NXDomain,
        "fails" => reply.metadata.response_code = ResponseCode::ServFail,
        "refuses" => reply.metadata.response_code = ResponseCode::Refused,
        "fails-once" if attempt == 1 => reply.metadata.response_code = ResponseCode::ServFail,
        "lost-once" if attempt == 1 => return Vec::new(),
        "silent" => return Vec::new(),
        "long" if !by_tcp => reply.metadata.truncation = true,
        "alias" => {
            let target = Name::from_ascii("elsewhere.example.").unwrap();
            reply.add_answer(Record::from_rdata(name, 60, RData::CNAME(rdata::CNAME(target.clone()))));
            reply.add_answer(record(&target, "by alias"));
        }
        "of-others" => {
            reply.add_answer(record(&Name::from_ascii("other.example.").unwrap(), "of another name"));
        }
        "malformed" => {
            reply.add_answer(record(&name, "cut off"));
            let mut bytes = reply.to_vec().unwrap();
            bytes.truncate(bytes.len() - 14);
            return vec![bytes];
        }
        "forged" => {
            // First the response to another query, with the same ID.
            let mut other = Message::from_vec(&query.to_ascii_lowercase()).unwrap();
            other.metadata.message_type = MessageType::Response;
            other.queries[0].set_name(Name::from_ascii("other.example.").unwrap());
            other.add_answer(record(&Name::from_ascii("other.example.").unwrap(), "forged"));
            reply.add_answer(record(&name, "genuine"));
            return vec![other.to_vec().unwrap(), reply.to_vec().unwrap()];
        }
        _ => {
            reply.add_answer(record(&name, "a record"));
        }
    }
    vec![reply.to_vec().unwrap()]
}

async fn server() -> Server {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let note = |seen: &Mutex<Vec<String>>, query: &[u8]| {
        let name = Message::from_vec(query).unwrap().queries[0].name().to_ascii();
        let mut seen = seen.lock().unwrap();
        seen.push(name.clone());
        seen.iter().filter(|other| **other == name).count()
    };
    let own = seen.clone();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut bytes).await {
            let attempt = note(&own, &bytes[..length]);
            for reply in replies(&bytes[..length], attempt, false) {
                udp.send_to(&reply, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            for reply in replies(&query, 1, true) {
                stream.write_u16(reply.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            }
        }
    });
    Server { address, seen }
}

fn config(servers: &[&Server], in_flight: usize) -> BatchConfig {
    let servers = servers.iter().map(|server| server.address).collect();
    BatchConfig { servers, sources: Vec::new(), in_flight, rate: None }
}

/// Asks for TXT records at `_mta-sts` of these names, and returns the outcomes in the same order.
async fn ask(batch: &mut Batch, names: &[String]) -> Vec<Outcome> {
    let (mut all, mut next, mut out) = (vec![None; names.len()], 0, Vec::new());
    while all.iter().any(Option::is_none) {
        while next < names.len() && batch.has_room() {
            let name = DomainName::parse(&names[next]).unwrap();
            let known = batch.ask(next, "_mta-sts", &name, Kind::Txt);
            out.extend(known.map(|outcome| (next, outcome)));
            next += 1;
        }
        if out.is_empty() {
            batch.outcomes(&mut out).await;
        }
        for (tag, outcome) in out.drain(..) {
            assert_eq!(all[tag].replace(outcome), None, "each query has one outcome");
        }
    }
    assert_eq!(batch.in_flight(), 0);
    all.into_iter().flatten().collect()
}

fn names(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| format!("{label}.example")).collect()
}

fn code(code: u8) -> Outcome {
    Outcome::Response { code, records: Vec::new() }
}

fn text(text: &str) -> Outcome {
    Outcome::Response { code: 0, records: vec![Data::Txt(text.into())] }
}

#[tokio::test]
async fn each_kind_of_response_has_its_outcome() {
    let server = server().await;
    let mut batch = Batch::open(config(&[&server], 100)).unwrap();
    let labels =
        ["good", "none", "nowhere", "alias", "of-others", "long", "forged", "fails-once", "fails", "refuses"];
    let outcomes = ask(&mut batch, &names(&labels)).await;
    let expected = [
        text("a record"),
        code(0),
        code(3),
        text("by alias"),
        code(0),
        text("a record"),
        text("genuine"),
        text("a record"),
        code(2),
        code(5),
    ];
    for ((label, outcome), expected) in labels.iter().zip(outcomes).zip(expected) {
        assert_eq!(outcome, expected, "{label}");
    }
    let counts = batch.counts();
    assert_eq!((counts.truncated, counts.stray, counts.repeated), (1, 1, 3));
    assert_eq!((counts.sent, counts.over_tcp), (14, 1));
    let label = "a".repeat(62);
    let long = ask(&mut batch, &[format!("{label}.{label}.{label}.{label}")]).await;
    assert_eq!(long, [Outcome::NameTooLong]);
}

#[tokio::test]
async fn thousands_of_queries_have_at_most_so_many_in_flight() {
    let server = server().await;
    let mut batch = Batch::open(config(&[&server], 50)).unwrap();
    let all: Vec<String> = (0..3000).map(|number| format!("n{number}.example")).collect();
    let outcomes = ask(&mut batch, &all).await;
    assert!(outcomes.iter().all(|outcome| *outcome == text("a record")));
    assert_eq!(batch.slots.len(), 50);
    assert!(batch.waiting.is_empty());
}

/// The server and the batch are in one task, so that paused time goes on only when nothing else is left to do.
#[tokio::test(start_paused = true)]
async fn a_lost_query_is_repeated_and_one_without_any_response_ends() {
    let server = server().await;
    let mut batch = Batch::open(config(&[&server], 10)).unwrap();
    let begun = Instant::now();
    let outcomes = ask(&mut batch, &names(&["silent", "malformed", "lost-once"])).await;
    assert_eq!(outcomes, [Outcome::NoResponse, Outcome::NoResponse, text("a record")]);
    assert!(begun.elapsed() >= DNS_TIME);
    let silent = server.seen.lock().unwrap().iter().filter(|name| name.contains("silent")).count();
    assert_eq!(silent, ATTEMPTS.len());
    assert_eq!(batch.counts().repeated, 5);
}

#[tokio::test]
async fn a_query_that_a_resolver_fails_is_repeated_at_another_one() {
    let (one, other) = (server().await, server().await);
    let mut batch = Batch::open(config(&[&one, &other], 10)).unwrap();
    assert_eq!(ask(&mut batch, &names(&["fails"])).await, [code(2)]);
    let count = |server: &Server| server.seen.lock().unwrap().len();
    assert_eq!((count(&one), count(&other)), (1, 1));
}

#[tokio::test]
async fn a_rate_is_kept_and_nothing_is_lost_by_it() {
    let server = server().await;
    let rate = NonZeroU32::new(2000);
    let mut batch = Batch::open(BatchConfig { rate, ..config(&[&server], 500) }).unwrap();
    let all: Vec<String> = (0..400).map(|number| format!("n{number}.example")).collect();
    let begun = Instant::now();
    assert!(ask(&mut batch, &all).await.iter().all(|outcome| *outcome == text("a record")));
    // 400 queries take 200 ms, less those of the first 10 ms that are made up for.
    assert!(begun.elapsed() >= Duration::from_millis(180), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_batch_needs_a_resolver() {
    assert!(Batch::open(config(&[], 10)).is_err());
}

#[tokio::test]
async fn a_server_without_recursion_says_nothing_about_a_name_and_another_is_asked() {
    let (one, other) = (server().await, server().await);
    let mut batch = Batch::open(config(&[&one], 10)).unwrap();
    assert_eq!(ask(&mut batch, &names(&["referred"])).await, [Outcome::NoRecursion]);
    assert_eq!(one.seen.lock().unwrap().len(), 2, "it is asked twice");
    assert_eq!(batch.faults(), [(one.address, ResolverFault::NoRecursion(2))]);
    let mut batch = Batch::open(config(&[&other], 10)).unwrap();
    assert_eq!(ask(&mut batch, &names(&["referred-once"])).await, [text("a record")]);
    assert_eq!(batch.faults(), [(other.address, ResolverFault::NoRecursion(1))]);
    let mut batch = Batch::open(config(&[&one], 10)).unwrap();
    let outcomes = ask(&mut batch, &names(&["good", "fails"])).await;
    assert_eq!(outcomes, [text("a record"), code(2)]);
    assert_eq!(batch.faults(), []);
}

#[tokio::test]
async fn a_resolver_that_refuses_all_is_a_fault() {
    let server = server().await;
    let mut batch = Batch::open(config(&[&server], 10)).unwrap();
    ask(&mut batch, &names(&["refuses"])).await;
    assert_eq!(batch.faults(), [(server.address, ResolverFault::Refuses(2))]);
}

#[tokio::test]
async fn a_resolver_that_no_socket_can_be_connected_to_is_left_out() {
    let server = server().await;
    // The address for documentation can't be connected from an IPv4 loopback address.
    let nowhere: SocketAddr = "192.0.2.1:53".parse().unwrap();
    let sources = vec!["127.0.0.1".parse().unwrap()];
    let only =
        |servers: Vec<SocketAddr>| BatchConfig { servers, sources: sources.clone(), ..config(&[], 10) };
    assert!(Batch::open(only(vec![nowhere])).is_err_and(|error| error.to_string().contains("192.0.2.1:53")));
    let mut batch = Batch::open(only(vec![nowhere, server.address])).unwrap();
    let all: Vec<String> = (0..20).map(|number| format!("n{number}.example")).collect();
    assert!(ask(&mut batch, &all).await.iter().all(|outcome| *outcome == text("a record")));
    assert_eq!(batch.counts().repeated, 0);
    let faults = batch.faults();
    assert!(
        matches!(faults[..], [(address, ResolverFault::Unreachable(_))] if address == nowhere),
        "{faults:?}"
    );
}

#[tokio::test]
async fn ports_change_and_no_response_is_lost_by_that() {
    let server = server().await;
    let mut batch = Batch::open(config(&[&server], 20)).unwrap();
    let before = batch.ports.numbers();
    let all: Vec<String> = (0..5000).map(|number| format!("n{number}.example")).collect();
    assert!(ask(&mut batch, &all).await.iter().all(|outcome| *outcome == text("a record")));
    let after = batch.ports.numbers();
    assert_ne!(before, after);
    assert_eq!(batch.counts().repeated, 0);
}

#[tokio::test]
async fn queries_over_tcp_count_against_the_rate() {
    let server = server().await;
    let rate = NonZeroU32::new(200);
    let mut batch = Batch::open(BatchConfig { rate, ..config(&[&server], 50) }).unwrap();
    let all: Vec<String> = (0..20).map(|number| format!("long.n{number}.example")).collect();
    let begun = Instant::now();
    assert!(ask(&mut batch, &all).await.iter().all(|outcome| *outcome == text("a record")));
    // 20 names are 40 queries, which take 200 ms, less those of the first 10 ms that are made up for.
    assert!(batch.next_send >= begun + Duration::from_millis(190));
    assert_eq!((batch.counts().truncated, batch.counts().over_tcp), (20, 20));
}
