//! What the operator reads when a CA refuses: what it found, what follows, and what to set. Pebble refuses where it can; the
//! other problem types come from a CA that has an account for everybody and refuses each order.

use super::{Ground, KEY, MAC, Room, name, pebble, until_there};
use crate::https::{Answer, serve};
use crate::pebble::Pebble;
use crate::support::in_a_room_of_its_own;
use lab::pki::Pki;
use receiver::host::authority::Authority;
use receiver::host::order::ChallengeType;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

/// Orders the certificate of a domain's policy host by http-01, wherever its name points, and returns why that failed.
async fn refused(place: &Path, authority: Authority, domain: &str) -> String {
    let mut room = Room::new(place, ChallengeType::Http01, vec![authority]).await;
    room.orders.policy_host_target = None;
    let host = room.due(domain).await;
    room.orders.round().await.unwrap();
    let told = room.certificate(&host).await;
    assert!(told.chain.is_empty() && !told.problem.is_empty(), "{told:?}");
    assert!(!told.problem.contains(KEY) && !told.problem.contains(MAC), "{told:?}");
    room.store.put_hosted(&name(domain), None).await.unwrap();
    told.problem
}

fn told_with(problem: &str, parts: &[&str]) {
    for part in parts {
        assert!(problem.contains(part), "{part}: {problem}");
    }
}

/// A web server of others on port 80, which answers every request with the same text.
fn web_server(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
        }
    });
}

#[test]
fn what_pebble_refuses_is_told_with_what_to_set() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = Ground::new(place.path(), "http = [\"127.0.0.50:80\"]\n");
        let (dir, pebble_dir) = (place.path(), place.path().join("pebble"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ask = |authority, domain| runtime.block_on(refused(dir, authority, domain));

        let running = Pebble::start(&pebble_dir, &ground.pki, "PEBBLE_WFE_NONCEREJECT=0");
        // The CA is private, and nothing says so.
        let untrusted = ask(Authority { ca_file: None, ..pebble(dir) }, "good.test");
        told_with(&untrusted, &["https://localhost:14000/dir: ", "unknown root", "\n  ca_file = \"ca.pem\""]);
        let blocked = ask(pebble(dir), "blocked.test");
        told_with(
            &blocked,
            &["rejectedIdentifier", "does not issue certificates for this name", "[[host.acme.then]]"],
        );
        let silent = ask(pebble(dir), "away.test");
        told_with(
            &silent,
            &["acme:error:connection", "could not connect", "port 80", "mta-sts.away.test", "dns-01"],
        );
        web_server("127.0.0.51:80");
        let elsewhere = ask(pebble(dir), "away.test");
        told_with(&elsewhere, &["acme:error:unauthorized", "Another server answers for mta-sts.away.test"]);
        drop(running);

        let running = Pebble::start(&pebble_dir, &ground.pki, "PEBBLE_WFE_NONCEREJECT=100");
        let directory = |query: &str| format!("https://localhost:14000/dir?{query}");
        // A directory of its own, since the CA has forgotten the account of the first one.
        let nonce = ask(Authority { directory: directory("nonce"), ..pebble(dir) }, "good.test");
        told_with(&nonce, &["acme:error:badNonce", "repeated by itself"]);
        drop(running);

        // The CA has forgotten the account in the store: that is told, and the next order has another.
        let running = Pebble::start(&pebble_dir, &ground.pki, "PEBBLE_WFE_NONCEREJECT=0");
        runtime.block_on(async {
            let room = Room::new(dir, ChallengeType::Http01, vec![pebble(dir)]).await;
            let host = room.due("good.test").await;
            room.orders.round().await.unwrap();
            let told = room.certificate(&host).await.problem;
            told_with(&told, &["accountDoesNotExist", "The next order creates a new one"]);
            room.pass(3);
            until_there(&room, &host, "").await;
        });
        drop(running);

        let customers = [("ours", MAC)];
        let _running = Pebble::start_with(&pebble_dir, &ground.pki, "PEBBLE_WFE_NONCEREJECT=0", &customers);
        let unbound = ask(Authority { directory: directory("eab"), ..pebble(dir) }, "good.test");
        told_with(&unbound, &["externalAccountRequired", "\n  key_id = ", "\n  key_file = \"eab.key\""]);
    });
}

/// A CA whose directory is `https://localhost:14200/TYPE/dir`, and which refuses each order by that problem type.
fn refusing_authority(pki: &Pki) {
    serve("127.0.0.1:14200", pki, &["localhost"], |request| {
        let mut parts = request.path.trim_start_matches('/').split('/');
        let (kind, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let at = |path: &str| format!("https://localhost:14200/{kind}/{path}");
        let (status, body) = match rest {
            "dir" => (
                200,
                serde_json::json!({"newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("order")}),
            ),
            "nonce" => (200, serde_json::json!({})),
            "account" => (201, serde_json::json!({"status": "valid"})),
            _ => {
                let kind = format!("urn:ietf:params:acme:error:{kind}");
                (403, serde_json::json!({"type": kind, "detail": "so says the CA"}))
            }
        };
        Answer {
            status,
            headers: vec![
                ("replay-nonce", "oFvnlFP1wIhRlYS2jTaXbA".to_owned()),
                ("location", at("account/1")),
            ],
            body: body.to_string(),
        }
    });
}

#[test]
fn each_problem_type_of_an_order_is_told_with_what_to_set() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = Ground::new(place.path(), "http = [\"127.0.0.50:80\"]\n");
        std::fs::write(place.path().join("root.pem"), ground.pki.root_pem()).unwrap();
        refusing_authority(&ground.pki);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for (kind, parts) in [
            ("rateLimited", ["No order is sent to it for 15 minutes", "new_per_hour"]),
            ("caa", ["good.test. 300 IN CAA 0 issue ", "directory in [host.acme]"]),
            ("dns", ["could not resolve", "sternpost check good.test"]),
            ("connection", ["port 80", "mta-sts.good.test"]),
            ("unauthorized", ["Another server answers", "/.well-known/acme-challenge/"]),
            ("externalAccountRequired", ["key_id", "key_file"]),
            ("rejectedIdentifier", ["does not issue", "[[host.acme.then]]"]),
        ] {
            let directory = format!("https://localhost:14200/{kind}/dir");
            let ca_file = Some(place.path().join("root.pem"));
            let authority = Authority { directory: directory.clone(), ca_file, ..pebble(place.path()) };
            let problem = runtime.block_on(refused(place.path(), authority, "good.test"));
            assert!(problem.starts_with(&format!("{directory}: ")), "{problem}");
            told_with(&problem, &["so says the CA", parts[0], parts[1]]);
        }
    });
}
