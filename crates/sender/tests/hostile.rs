//! Hostile clients on a real socket: many connections, partial and oversized requests, garbage, and a client that never
//! reads replies.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::socketmap::encode_request;
use lab::uniform_world::UniformWorld;
use net::clock::SystemClock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use sternpost_sender::answer::{Discovery, PolicyService, Settings};
use sternpost_sender::serve::Shutdown;
use sternpost_sender::serve::lines::Lines;
use sternpost_sender::serve::listen::{Address, Listener, Serve, SocketFileOptions, run};
use sternpost_sender::serve::socketmap::Socketmap;
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Server {
    address: SocketAddr,
    answers: Arc<PolicyService>,
    shutdown: Shutdown,
    _dir: tempfile::TempDir,
}

async fn serve<S: Serve>(service: fn(Arc<PolicyService>) -> S) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
    let (world, clock) = (Arc::new(UniformWorld), Arc::new(SystemClock));
    let discovery = Discovery::new(world.clone(), world.clone(), store.clone(), clock.clone());
    let answers = PolicyService::new(world, discovery, store, clock, 1 << 20, Settings::default());
    let any = Address::parse("127.0.0.1:0").unwrap();
    let listener = Listener::bind(&any, SocketFileOptions::default()).await.unwrap();
    let Listener::Tcp(tcp) = &listener else { panic!("not TCP") };
    let address = tcp.local_addr().unwrap();
    let shutdown = Shutdown::default();
    shutdown.tasks.spawn(run(listener, Arc::new(service(answers.clone())), shutdown.clone()));
    Server { address, answers, shutdown, _dir: dir }
}

async fn reply(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let read = stream.read(&mut buffer).await.unwrap();
    String::from_utf8(buffer[..read].to_vec()).unwrap()
}

async fn query(server: &Server, domain: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&encode_request("postfix", domain)).await.unwrap();
    reply(&mut stream).await
}

fn expected(domain: &str) -> String {
    let text = format!("OK secure match=mx1.{domain}:.mx.{domain} servername=hostname");
    format!("{}:{text},", text.len())
}

#[tokio::test]
async fn a_thousand_idle_connections_block_no_client_and_end_at_the_shutdown() {
    let server = serve(Socketmap).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(query(&server, "a.example").await, expected("a.example"));
    let mut last = idle.pop().unwrap();
    last.write_all(&encode_request("postfix", "b.example")).await.unwrap();
    assert_eq!(reply(&mut last).await, expected("b.example"));
    assert!(server.shutdown.finish(Duration::from_secs(120)).await, "all are closed");
    assert_eq!(last.read(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_request_in_pieces_is_answered_and_pipelined_requests_keep_their_order() {
    let server = serve(Socketmap).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in encode_request("postfix", "a.example") {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(reply(&mut stream).await, expected("a.example"));
    let names: Vec<String> = (0..500).map(|number| format!("d{number}.example")).collect();
    let all: Vec<u8> = names.iter().flat_map(|name| encode_request("postfix", name)).collect();
    stream.write_all(&all).await.unwrap();
    let expected_replies: String = names.iter().map(|name| expected(name)).collect();
    let mut replies = vec![0; expected_replies.len()];
    stream.read_exact(&mut replies).await.unwrap();
    assert_eq!(String::from_utf8(replies).unwrap(), expected_replies);
}

#[tokio::test]
async fn an_oversized_or_invalid_request_ends_only_its_own_connection() {
    let server = serve(Socketmap).await;
    let mut other = TcpStream::connect(server.address).await.unwrap();
    let long = encode_request("postfix", &"k".repeat(200_000));
    let binary = b"12:postfix \xff\xfe\xfd\xfc,".to_vec();
    for bad in
        [long, binary, b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"3:a b;".to_vec(), b"-1:,".to_vec(), vec![0; 64]]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may close the connection before everything is written.
        let _ = stream.write_all(&bad).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "{:?}", String::from_utf8_lossy(&bad[..bad.len().min(30)]));
        other.write_all(&encode_request("postfix", "a.example")).await.unwrap();
        assert_eq!(reply(&mut other).await, expected("a.example"));
    }
    // Long, but within the limit: a key that is not a valid name.
    other.write_all(&encode_request("postfix", &"k".repeat(90_000))).await.unwrap();
    assert_eq!(reply(&mut other).await, "9:NOTFOUND ,");
}

#[tokio::test]
async fn a_partial_request_and_unread_replies_end_by_timeout() {
    let server = serve(Socketmap).await;
    // From here on the runtime's clock is paused: it jumps to the next timer when the runtime is idle.
    tokio::time::pause();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"20:postfix exa").await.unwrap();
    assert_eq!(half.read(&mut [0]).await.unwrap(), 0, "closed");
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    let request = encode_request("QUERYwithTLSRPT", "a.example").repeat(100);
    let mut written = 0_usize;
    while deaf.write_all(&request).await.is_ok() {
        written += request.len();
        assert!(
            written < 1 << 30,
            "the server reads requests without limit from a client that reads no reply"
        );
    }
    while server.answers.metrics.connections.get() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    assert_eq!(query(&server, "b.example").await, expected("b.example"));
}

#[tokio::test]
async fn each_line_gets_one_line_as_reply() {
    let server = serve(Lines).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for (line, expected) in [
        ("a.example\n", "secure mx1.a.example *.mx.a.example\n"),
        ("a.example mx1.a.example\r\n", "secure\n"),
        ("a.example x.mx.a.example\n", "secure\n"),
        (
            "a.example evil.example\n",
            "refuse the MX host evil.example matches no mx line of the policy of a.example\n",
        ),
        ("[192.0.2.1]\n", "none\n"),
        ("@@\n", "none\n"),
    ] {
        stream.write_all(line.as_bytes()).await.unwrap();
        assert_eq!(reply(&mut stream).await, expected);
    }
    for bad in [vec![b'x'; 5000], b"\xff\xff\n".to_vec(), b"\n".to_vec()] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let _ = stream.write_all(&bad).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }
    let mut half_closed = TcpStream::connect(server.address).await.unwrap();
    half_closed.write_all(b"a.example").await.unwrap();
    half_closed.shutdown().await.unwrap();
    assert!(
        reply(&mut half_closed).await.starts_with("secure"),
        "Exim may close its half of the connection instead of ending the line"
    );
}
