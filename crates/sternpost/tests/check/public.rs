//! The public check of the dashboard, as a visitor without a script meets it.

use super::{Place, patience, ports, text};
use serde_json::Value;
use std::process::{Command, Stdio};

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server, with the dashboard at this address.
fn served(place: &Place, address: &str, more: &str) -> Ended {
    place.configure(&format!("[dashboard]\nlisten = [\"{address}\"]\n{more}"));
    let log = place.dir.path().join("log");
    let child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
        .current_dir(place.dir.path())
        .arg("serve")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut serving = Ended(child);
    patience::until_ready(&mut serving.0, &log);
    serving
}

/// The status line, the headers and the body of an answer.
fn got(address: &str, path: &str) -> (String, String) {
    got_by(address, path, "")
}

/// The same, with further lines of head.
fn got_by(address: &str, path: &str, lines: &str) -> (String, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{lines}Connection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The path of the result of a public check, which a visitor without a script waits for.
fn public_result(address: &str, domain: &str) -> String {
    let location =
        |head: &str| head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
    let (head, _) = got(address, &format!("/check?domain={domain}"));
    let running = location(&head).unwrap_or_else(|| panic!("{head}"));
    assert!(running.starts_with("/check/running/"), "{head}");
    patience::until_some(&format!("the result for {domain}"), || {
        let (head, body) = got(address, &running);
        let is_running = body.contains("data-running") && body.contains("http-equiv=\"refresh\"");
        assert!(is_running || head.contains(" 303 "), "{head}{body}");
        location(&head)
    })
}

#[test]
fn the_results_of_a_domain_have_a_page_a_history_and_a_badge() {
    let place = Place::new();
    let address = ports::unused().to_string();
    let _server = served(&place, &address, "public_check = true\nurl = \"https://check.example\"\n");
    let of = |more: &str| got(&address, &format!("/check/domain/mx-expired.test{more}"));
    assert!(of("").0.contains(" 404 ") && of("").1.contains("Nobody has checked this domain"));
    assert!(of("/badge.svg").1.contains(">not checked</text>"));
    let first = public_result(&address, "mx-expired.test");
    let (head, body) = of("");
    assert!(head.contains(" 200 ") && body.contains(&format!("href=\"{first}\"")), "{body}");
    assert!(body.contains("https://check.example/check/domain/mx-expired.test/badge.svg"), "{body}");
    assert!(body.contains("href=\"/check/domain/mx-expired.test/history.json\""), "{body}");
    let (head, svg) = of("/badge.svg");
    assert!(head.contains("content-type: image/svg+xml") && head.contains("max-age=3600"), "{head}");
    assert!(svg.contains("TLS for mail to mx-expired.test: errors</title>"), "{svg}");
    let history: Value = serde_json::from_str(&of("/history.json").1).unwrap();
    let results = history["results"].as_array().unwrap();
    assert_eq!((results.len(), text(&results[0]["protection"]).as_str()), (1, "errors"), "{history}");
    assert_eq!(text(&results[0]["url"]), format!("https://check.example{first}"));
    assert!(
        results[0]["checks"].as_array().unwrap().contains(&Value::from("SMTP-CERT-EXPIRED")),
        "{history}"
    );
    let (_, json) = got(&address, "/check.json?domain=mx-expired.test");
    assert!(json.contains("is losing mail"), "{json}");
    let again: Value = serde_json::from_str(&of("/history.json").1).unwrap();
    assert_eq!(again["results"].as_array().unwrap().len(), 1, "the same result has the same link: {again}");
    for wrong in ["/check/domain/%3Cscript%3E", "/check/domain/a b"] {
        assert!(!got(&address, wrong).1.contains("<script>"), "{wrong}");
    }
    assert!(got(&address, "/check/running/none").0.contains(" 404 "));
    let (head, script) = got(&address, "/check.js");
    assert!(head.contains("text/javascript") && script.contains("data-running"), "{head}");
}

#[test]
fn everybody_may_check_where_that_is_switched_on_and_not_too_often() {
    let place = Place::new();
    let address = ports::unused().to_string();
    let serve = |more: &str| served(&place, &address, more);
    let off = serve("");
    let (head, _) = got(&address, "/check?domain=mx-expired.test");
    assert!(!head.contains(" 200 ") && !head.contains("/check/"), "it is off by default: {head}");
    drop(off);
    let on = serve("public_check = true\n");
    let (head, body) = got(&address, "/check");
    assert!(
        head.contains(" 200 ")
            && head.contains("default-src 'none'")
            && body.contains("<label for=\"domain\">"),
        "{head}"
    );
    let (head, body) = got(&address, "/check?domain=%3Cscript%3Ex");
    assert!(
        head.contains(" 400 ") && !body.contains("<script>") && body.contains("is not a domain"),
        "{body}"
    );
    let to = public_result(&address, "mx-expired.test");
    let (head, body) = got(&address, &to);
    assert!(head.contains(" 200 ") && body.contains("SMTP-CERT-EXPIRED"), "{body}");
    assert_eq!(got(&address, &to).1, body, "it can be passed on");
    let body_of_link = body;
    assert!(got(&address, "/check/elsewhere").0.contains(" 404 "));
    let (_, body) = got(&address, "/check.json?domain=mx-expired.test");
    let seen: Value = serde_json::from_str(&body).unwrap();
    assert!(seen["verdict"].as_str().unwrap().starts_with("mx-expired.test is losing mail"), "{body}");
    let refused: Vec<String> = (0..25)
        .map(|_| got(&address, "/check.json?domain=nothing-yet.test"))
        .filter(|(head, _)| head.contains(" 429 "))
        .map(|(_, body)| body)
        .collect();
    assert!(refused.len() > 10, "{}", refused.len());
    assert!(refused[0].contains("checks per minute from one address"), "{}", refused[0]);
    assert!(got(&address, "/").0.contains("/sign-in"), "the rest takes a sign-in");
    drop(on);
    let _on = serve("public_check = true\nbehind_proxy = true\n");
    assert_eq!(got(&address, &to).1, body_of_link, "the link outlives a restart");
    let of = |client: &str| {
        let lines = format!("X-Forwarded-For: 192.0.2.1, {client}\r\n");
        got_by(&address, "/check.json?domain=nothing-yet.test", &lines).0.contains(" 200 ")
    };
    let taken: Vec<bool> = (0..8).map(|_| of("203.0.113.1")).collect();
    assert!(taken[0] && taken.contains(&false), "{taken:?}");
    assert!(of("203.0.113.2"), "another client has a share of its own");
}
