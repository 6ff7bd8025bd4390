//! TLS reports to others as the operator meets them: a burst and broken datagrams into the running program, sessions by
//! HTTP and from files, tomorrow's report today, keys, dry runs, and what goes wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod patience;
mod ports;

use patience::{away_from_midnight, until, until_ready};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};

struct Place {
    dir: tempfile::TempDir,
    metrics: String,
    http: String,
}

const REPORTER: &str = "[reporter]\nfrom = \"tlsrpt@sender.example\"\norganization = \"Sender Mail\"\n\
    dkim = { selector = \"tlsrpt\", key_file = \"dkim.pem\" }\n";

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            metrics: ports::unused().to_string(),
            http: ports::unused().to_string(),
        };
        place.configure(REPORTER);
        place
    }

    fn configure(&self, reporter: &str) {
        let text = format!(
            "[collector]\nsocket = \"run/tlsrpt.sock\"\nhttp = \"{}\"\n[metrics]\nlisten = \"{}\"\n[dns]\nservers = [\"127.0.0.1:1\"]\n{reporter}",
            self.http, self.metrics
        );
        std::fs::write(self.dir.path().join("sternpost.toml"), text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        command.current_dir(self.dir.path()).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        said(&self.command(words).output().unwrap())
    }

    fn serve(&self) -> Serving {
        let log = self.dir.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let child = self.command(&["serve"]).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        let mut serving = Serving(child);
        until_ready(&mut serving.0, &log);
        serving
    }

    fn request(&self, at: &str, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(at).unwrap();
        let length = body.len();
        write!(
            stream,
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.request(&self.metrics, "GET /metrics", "");
        let line = text.lines().find(|line| line.starts_with(&format!("sternpost_sessions_{name}_total ")));
        line.unwrap_or_else(|| panic!("{text}")).split(' ').nth(1).unwrap().trim().parse().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

struct Serving(Child);

impl Serving {
    fn end(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

const GOOD: &str = r#"{"dpv":"1","d":"a.example","pr":"v=TLSRPTv1; rua=mailto:r@a.example","policies":[{"policy-type":9,"t":0,"f":0}]}"#;

#[test]
fn a_burst_and_broken_datagrams_are_counted_one_by_one_and_the_end_loses_none() {
    const BURST: u64 = 100_000;
    away_from_midnight();
    let place = Place::new();
    assert_eq!(place.run(&["reports", "key"]).0, 0);
    let serving = place.serve();
    let client = UnixDatagram::unbound().unwrap();
    client.connect(place.dir.path().join("run/tlsrpt.sock")).unwrap();
    for n in 0..BURST {
        let session = GOOD.replace("a.example", &format!("d{}.example", n % 500));
        client.send(session.as_bytes()).unwrap();
    }
    let long = format!("{GOOD}{}", " ".repeat(70_000));
    let broken = ["", "{", &GOOD[..40], &long, &GOOD.replace("\"1\"", "\"2\""), "[]", &"[".repeat(60_000)];
    for datagram in broken {
        client.send(datagram.as_bytes()).unwrap();
    }
    until("all are counted", || {
        place.metric("stored") + place.metric("refused") == BURST + broken.len() as u64
    });
    assert_eq!((place.metric("received"), place.metric("stored")), (BURST + broken.len() as u64, BURST));
    assert_eq!(
        (place.metric("refused"), place.metric("dropped"), place.metric("late")),
        (broken.len() as u64, 0, 0)
    );
    until("what was refused is in the log", || {
        let log = place.log();
        log.contains("the protocol version is") && log.contains("longer than 65000 bytes")
    });
    let log = place.log();
    assert!(log.len() < 20_000, "broken datagrams fill the log: {} bytes", log.len());
    // What comes in the last moment is stored too.
    for _ in 0..300 {
        client.send(GOOD.as_bytes()).unwrap();
    }
    serving.end();
    assert!(!place.dir.path().join("run/tlsrpt.sock").exists());
    let (code, out, _) = place.run(&["reports", "preview", "a.example"]);
    assert!(
        code == 0 && out.contains("a.example under no-policy-found: 300 sessions succeeded, 0 failed"),
        "{out}"
    );
}

#[test]
fn a_second_program_does_not_take_the_socket_of_one_that_lives() {
    let place = Place::new();
    assert_eq!(place.run(&["reports", "key"]).0, 0);
    let _serving = place.serve();
    let other = Place::new();
    let path = place.dir.path().join("run/tlsrpt.sock");
    other.configure("");
    let text = std::fs::read_to_string(other.dir.path().join("sternpost.toml")).unwrap();
    let text = text.replace("run/tlsrpt.sock", path.to_str().unwrap());
    std::fs::write(other.dir.path().join("sternpost.toml"), text).unwrap();
    let (code, _, err) = other.run(&["serve"]);
    assert!(code == 2 && err.contains("another program listens there"), "{err}");
    let far = std::fs::read_to_string(other.dir.path().join("sternpost.toml")).unwrap();
    std::fs::write(
        other.dir.path().join("sternpost.toml"),
        far.replace(path.to_str().unwrap(), "no/such/folders/s.sock"),
    )
    .unwrap();
    let (code, _, err) = other.run(&["serve"]);
    assert!(code == 2 && err.contains("its parent folders do not exist"), "{err}");
}

#[test]
fn sessions_come_by_http_and_from_files_all_or_none() {
    away_from_midnight();
    let place = Place::new();
    assert_eq!(place.run(&["reports", "key"]).0, 0);
    let named = |domain: &str, result: &str| {
        format!(
            r#"{{"policy-domain":"{domain}","policies":[{{"policy-type":"no-policy-found","result":"{result}"}}]}}"#
        )
    };
    let serving = place.serve();
    let good = format!("[{},{},{GOOD}]", named("b.example", "success"), named("b.example", "success"));
    let answer = place.request(&place.http, "POST /v1/sessions", &good);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"sessions\":3"), "{answer}");
    let bad = format!("{}\n{}", named("b.example", "success"), named("b.example", "sucess"));
    let answer = place.request(&place.http, "POST /v1/sessions", &bad);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("session 2"), "{answer}");
    assert!(place.request(&place.http, "GET /v1/sessions", "").starts_with("HTTP/1.1 405"));
    let form =
        place.request(&place.http, "POST /v1/sessions HTTP/1.1\r\nContent-Type: text/plain\r\nX:", &good);
    assert!(form.starts_with("HTTP/1.1 415"), "{form}");
    serving.end();
    let lines = |last: &str| {
        let mut text = String::new();
        (0..25_000).for_each(|_| writeln!(text, "{}", named("b.example", "success")).unwrap());
        text + last
    };
    std::fs::write(place.dir.path().join("good"), lines("")).unwrap();
    std::fs::write(place.dir.path().join("bad"), lines("{oops")).unwrap();
    assert_eq!(
        place.run(&["reports", "collect", "good", "--json"]).1.trim(),
        r#"{"schema":1,"sessions":25000}"#
    );
    let (code, _, err) = place.run(&["reports", "collect", "bad"]);
    assert!(code == 2 && err.contains("bad, line 25001") && err.contains("tail -n +20001 bad"), "{err}");
    // Blank lines and arrays do not change the number of a line, and files before it are not counted again.
    let one = named("b.example", "success");
    let future = one.replacen('{', "{\"at\": \"2999-01-01T00:00:00Z\", ", 1);
    std::fs::write(place.dir.path().join("one"), &one).unwrap();
    for (text, line) in [
        (format!("\n\n[{one},{one}]\n\n{{oops\n"), 5),
        (format!("\n[{one},{one}]\n\n{future}\n"), 4),
        (format!("{one}\n{}\n{one}\n", " ".repeat(formats::limits::POSTED_BYTES)), 2),
    ] {
        std::fs::write(place.dir.path().join("odd"), text).unwrap();
        let (code, _, err) = place.run(&["reports", "collect", "one", "odd", "good"]);
        assert!(code == 2 && err.contains(&format!("odd, line {line}")), "{line}: {err}");
        assert!(
            !err.contains("No line was counted") && err.contains("The files before it were counted"),
            "{err}"
        );
        assert!(err.contains("sternpost reports collect odd good"), "{err}");
    }
    let (code, _, err) = place.run(&["reports", "collect", "odd", "one"]);
    assert!(code == 2 && err.contains("No line was counted"), "{err}");
    let (_, out, _) = place.run(&["reports", "preview", "b.example", "--raw"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    let summary = &report["policies"][0]["summary"];
    assert_eq!(summary["total-successful-session-count"], 2 + 25_000 + 20_000 + 3);
    let schema = include_str!("../../../docs/tlsrpt.schema.json");
    assert!(schema.contains("organization-name") && report["organization-name"] == "Sender Mail");
}

#[test]
fn what_is_missing_is_said_with_the_line_to_write() {
    let place = Place::new();
    let (code, _, err) = place.run(&["serve"]);
    assert!(
        code == 2 && err.contains("dkim.pem can't be read") && err.contains("sternpost reports key"),
        "{err}"
    );
    let (code, out, _) = place.run(&["reports", "key"]);
    assert!(
        code == 0 && out.contains("tlsrpt._domainkey.sender.example.  TXT  \"v=DKIM1; k=rsa; s=tlsrpt; p="),
        "{out}"
    );
    let key = place.dir.path().join("dkim.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    assert_eq!(place.run(&["reports", "key"]).0, 0);
    assert_eq!(std::fs::read(&key).unwrap(), before, "a key that is there stays");
    for (reporter, wanted) in [
        ("[reporter]\n", "from = \"tlsrpt@example.org\""),
        ("[reporter]\nfrom = \"tlsrpt@sender.example\"\n", "dkim = { selector"),
        ("[reporter]\nfrom = \"sender.example\"\n", "a mail address"),
        ("[reporter]\nfrom = \"t@s.example\"\ndeliver = \"smarthost:mail\"\n", "smarthost:HOST:PORT"),
        ("[reporter]\nfrom = \"t@s.example\"\ndkim = { selctor = \"a\", key_file = \"b\" }\n", "selctor"),
        ("[reporter]\nfrom = \"t@s.example\"\nexclude = [\"a b\"]\n", "not a valid domain name"),
        ("[colector]\n", "[collector]"),
    ] {
        place.configure(reporter);
        let (code, _, err) = place.run(&["config", "check"]);
        assert!(code == 2 && err.contains(wanted), "{reporter}: {err}");
    }
    place.configure("");
    let (code, _, err) = place.run(&["reports", "preview", "a.example"]);
    assert!(code == 2 && err.contains("[reporter]"), "{err}");
}

#[test]
fn reports_of_a_day_are_put_into_a_folder_and_go_again_when_told_so() {
    away_from_midnight();
    let place = Place::new();
    assert_eq!(place.run(&["reports", "key"]).0, 0);
    let today = said(&Command::new("date").args(["-u", "+%Y-%m-%d"]).output().unwrap()).1;
    let today = today.trim();
    std::fs::write(place.dir.path().join("f"), format!("{GOOD}\n")).unwrap();
    assert_eq!(place.run(&["reports", "collect", "f"]).0, 0);
    // The resolver is dead, so that the record as the mail server found it counts.
    let (code, out, err) = place.run(&["reports", "send", "--day", today, "--folder", "dry"]);
    assert!(
        code == 0 && out.contains("Reports written to dry: 1.") && out.contains("Nothing was sent"),
        "{out}{err}"
    );
    let files: Vec<_> =
        std::fs::read_dir(place.dir.path().join("dry")).unwrap().map(|file| file.unwrap().path()).collect();
    let mail = std::fs::read_to_string(&files[0]).unwrap();
    assert!(
        files.len() == 1 && mail.starts_with("DKIM-Signature:") && mail.contains("r@a.example"),
        "{mail}"
    );
    let (code, _, err) = place.run(&["reports", "send", "--day", today]);
    assert!(code == 1 && err.contains("its reports are not built") && err.contains("--folder"), "{err}");
    let (code, _, err) = place.run(&["reports", "send", "--day", "2020-01-01"]);
    assert!(code == 1 && err.contains("no report about 2020-01-01"), "{err}");
    assert_eq!(place.run(&["reports", "send", "--day", "yesterday"]).0, 2);
    assert_eq!(place.run(&["reports", "show", "--sent", "7"]).0, 1);
    let (_, out, _) = place.run(&["reports", "list", "--sent", "--json"]);
    assert_eq!(out.trim(), r#"{"schema":1,"sent":[]}"#);
}
