//! Domains of the store over HTTP, as a control panel has them: added, listed page by page, changed and removed; and what is
//! refused, in words.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod patience;
mod ports;

use patience::{until_ready, until_some, whole_lines};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Place {
    dir: tempfile::TempDir,
    at: String,
}

impl Place {
    fn new() -> Self {
        let at = ports::unused().to_string();
        let place = Self { dir: tempfile::tempdir().unwrap(), at };
        std::fs::write(place.path().join("admin.token"), format!("{TOKEN}\n")).unwrap();
        let config = format!(
            "[admin]\nlisten = \"{}\"\ntoken_file = \"admin.token\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n[host]\nlisten = []\nname = \"policy.example.net\"\n\
             [delegation]\nzone = \"sts.example.net\"\n[[domain]]\nname = \"file.example\"\n",
            place.at
        );
        std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        command.current_dir(self.path()).args(words);
        command
    }

    fn serve(&self) -> Serving {
        let log = self.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let mut serving =
            Serving(self.command(&["serve"]).stdout(Stdio::null()).stderr(file).spawn().unwrap());
        until_ready(&mut serving.0, &log);
        serving
    }

    /// A whole answer.
    fn raw(&self, token: &str, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        // What is refused early may be closed before all of it is sent.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Status and body of an answer.
    fn ask_with(&self, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.raw(token, method, path, body);
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.ask_with(TOKEN, method, path, body)
    }
}

fn names(answer: &Value) -> Vec<&str> {
    answer["domains"].as_array().unwrap().iter().map(|one| one["wanted"]["name"].as_str().unwrap()).collect()
}

#[test]
fn domains_are_added_listed_changed_and_removed() {
    let place = Place::new();
    let _serving = place.serve();
    let body = json!({ "host": "self", "delegated": true, "rua": ["mailto:tlsrpt@example.net"] }).to_string();
    let (status, told) = place.ask("PUT", "/v1/domains/Customer.Example", &body);
    assert_eq!((status, &told["wanted"]["name"]), (201, &json!("customer.example")), "{told}");
    let alias = "_mta-sts.customer.example. 3600 IN CNAME _mta-sts.customer.example.sts.example.net.";
    assert!(told["aliases"].as_array().unwrap().contains(&json!(alias)), "{told}");
    let (status, told) = place.ask("PUT", "/v1/domains/customer.example", r#"{"mode":"testing"}"#);
    assert_eq!((status, &told["wanted"]["mode"]), (200, &json!("testing")), "{told}");
    for n in 0..5 {
        assert_eq!(place.ask("PUT", &format!("/v1/domains/d{n}.example"), "{}").0, 201);
    }
    let (_, first) = place.ask("GET", "/v1/domains?limit=3", "");
    assert_eq!(names(&first), ["customer.example", "d0.example", "d1.example"]);
    let (_, second) = place.ask("GET", "/v1/domains?limit=3&after=d1.example", "");
    assert_eq!(names(&second), ["d2.example", "d3.example", "d4.example"]);
    let (_, third) = place.ask("GET", "/v1/domains?limit=3&after=d4.example", "");
    assert_eq!((names(&third), &third["next"]), (vec!["file.example"], &Value::Null));
    assert_eq!(third["domains"][0]["in_file"], true);
    // Commands see the same.
    let listed = place.command(&["domains", "list"]).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("d4.example"));
    assert_eq!(place.ask("DELETE", "/v1/domains/d4.example", "").0, 204);
    assert_eq!(place.ask("GET", "/v1/domains/d4.example", "").0, 404);
    assert_eq!(place.ask("DELETE", "/v1/domains/d4.example", "").0, 404);
    let status = place.command(&["status", "--json", "customer.example"]).output().unwrap();
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let journal = status["domains"][0]["journal"].to_string();
    assert!(journal.contains("api") && journal.contains("testing"), "{journal}");
}

#[test]
fn what_is_wrong_is_refused_in_words_and_nothing_without_the_token() {
    let place = Place::new();
    let _serving = place.serve();
    for token in ["", "0123456789abcdef0123456789abcdee", "0123456789abcdef"] {
        for (method, path) in [
            ("GET", "/v1/domains"),
            ("PUT", "/v1/domains/x.example"),
            ("DELETE", "/v1/domains/x.example"),
            ("GET", "/"),
        ] {
            let (status, told) = place.ask_with(token, method, path, "{}");
            assert_eq!(status, 401, "{method} {path}");
            assert!(told["remedy"].as_str().unwrap().contains("Bearer"), "{told}");
        }
    }
    let large = format!("{{\"mx\":[\"{}\"]}}", "x".repeat(200_000));
    for (path, body, status, words) in [
        ("file.example", "{}", 409, "is in the configuration file"),
        ("not%20a%20name", "{}", 422, "is not a valid domain name"),
        ("-bad-.example", "{}", 422, "is not a valid domain name"),
        ("x.example", "{", 422, "are invalid"),
        ("x.example", "[]", 422, "the body is not a JSON object"),
        ("x.example", r#"{"name":"y.example"}"#, 422, "differs from the name in the path"),
        ("x.example", r#"{"modus":"enforce"}"#, 422, "unknown field `modus`"),
        ("x.example", r#"{"dns":"rfc2136:none"}"#, 422, "names an unknown server"),
        ("x.example", r#"{"max_age":{"enforce":99999999}}"#, 422, "max_age must be 1 to 31557600 seconds"),
        ("x.example", &large, 413, "the body is too large"),
    ] {
        let (got, told) = place.ask("PUT", &format!("/v1/domains/{path}"), body);
        assert_eq!(got, status, "{path} {told}");
        assert!(told.to_string().contains(words), "{words}: {told}");
    }
    for (method, path, status, words) in [
        ("DELETE", "/v1/domains/file.example", 409, "is in the configuration file"),
        ("PATCH", "/v1/domains", 405, "does not have this method"),
        ("DELETE", "/v1/domains", 405, "does not have this method"),
        ("PATCH", "/v1/domains/x.example", 405, "does not have this method"),
        ("GET", "/v1/domains?limit=many", 400, "invalid digit"),
        ("DELETE", "/v1/domains/x.example?although_bound=perhaps", 400, "although_bound"),
        ("GET", "/v1/domains/%FF", 400, "UTF-8"),
        ("GET", "/v2", 404, "unknown path"),
        ("GET", "/v1/domains/x.example", 404, "unknown domain"),
    ] {
        let (got, told) = place.ask(method, path, "");
        assert_eq!(got, status, "{method} {path} {told}");
        assert!(told["schema"] == 1 && told.to_string().contains(words), "{words}: {told}");
        for part in ["what", "why", "remedy"] {
            assert!(!told[part].as_str().unwrap().is_empty(), "{part}: {told}");
        }
    }
    let allowed = place.raw(TOKEN, "PATCH", "/v1/domains", "");
    assert!(
        allowed.to_ascii_lowercase().contains("allow: ")
            && allowed.contains("GET,HEAD")
            && allowed.contains("POST"),
        "{allowed}"
    );
    assert_eq!(names(&place.ask("GET", "/v1/domains", "").1), ["file.example"]);
}

#[test]
fn a_token_that_is_missing_or_short_is_told_at_the_start() {
    let place = Place::new();
    for (token, words) in [(Some("short"), "shorter than 24 characters"), (None, "can't be read")] {
        let path = place.path().join("admin.token");
        match token {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let output = place.command(&["serve"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains("openssl rand -hex 32"), "{said}");
        assert!(!said.contains("short\n"));
    }
}

#[test]
fn tokens_of_the_store_count_without_a_restart_and_leave_no_trace_of_themselves() {
    let place = Place::new();
    let _serving = place.serve();
    let run = |words: &[&str]| {
        let output = place.command(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, token, said) = run(&["tokens", "add", "panel", "--scope", "read", "--expires", "90d"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("with the scopes: read.") && !said.contains(&token), "{said}");
    assert_eq!(place.ask_with(&token, "GET", "/v1/domains", "").0, 200);
    let (status, told) = place.ask_with(&token, "PUT", "/v1/domains/x.example", "{}");
    assert!(status == 403 && told["what"].as_str().unwrap().ends_with("the scope manage"), "{told}");
    let (_, listed, _) = run(&["tokens", "list"]);
    assert!(listed.starts_with("panel (read): until ") && listed.contains("last used at"), "{listed}");
    assert_eq!(run(&["tokens", "add", "panel", "--scope", "read"]).0, Some(1));
    assert_eq!(run(&["tokens", "revoke", "panel"]).0, Some(0));
    assert_eq!(place.ask_with(&token, "GET", "/v1/domains", "").0, 401);
    assert_eq!(run(&["tokens", "revoke", "panel"]).0, Some(1));
    for entry in std::fs::read_dir(place.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(token.len()).any(|part| part == token.as_bytes()));
    }
}

#[test]
fn the_log_has_the_id_of_a_request() {
    let place = Place::new();
    let _serving = place.serve();
    let answer = place.raw(TOKEN, "PUT", "/v1/domains/x.example", "{}");
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    let line = until_some("the request is in the log", || {
        let log = whole_lines(&place.path().join("log"));
        log.lines().find(|line| line.contains(&id)).map(str::to_owned)
    });
    for part in ["who=\"api\"", "/v1/domains/x.example", "PUT", "201"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// fail2ban reads these lines.
#[test]
fn a_failed_sign_in_is_logged_with_its_address_and_a_name_that_looks_like_nothing_else() {
    let place = Place::new();
    let pages = ports::unused().to_string();
    let file = place.path().join("sternpost.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{config}[dashboard]\nlisten = [\"{pages}\"]\n")).unwrap();
    let _serving = place.serve();
    for name in ["bob", "x+address%3D198.51.100.1%0AWARN+sign-in+failed", "%1B%5B2J"] {
        let form = format!("name={name}&password=guess");
        let mut stream = TcpStream::connect(&pages).unwrap();
        let request = format!(
            "POST /sign-in HTTP/1.1\r\nHost: {pages}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    let log = until_some("all are in the log", || {
        let log = whole_lines(&place.path().join("log"));
        (log.matches("sign-in failed name=").count() >= 3).then_some(log)
    });
    let failed: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("WARN ")).map(|(_, rest)| rest).collect();
    let failed: Vec<&&str> = failed.iter().filter(|line| line.contains("sign-in failed")).collect();
    let expected = [
        "sign-in failed name=bob address=127.0.0.1",
        "sign-in failed name=x?address?198.51.100.1?WARN?sign-in?fail address=127.0.0.1",
        "sign-in failed name=??2J address=127.0.0.1",
    ];
    assert_eq!(failed, expected.iter().collect::<Vec<_>>(), "{log}");
}
