//! `sternpost serve` as its operator sees it: start, ask, watch, reload, stop, and what goes wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "serve/metrics.rs"]
mod metrics;
mod patience;
mod ports;

use formats::socketmap::{Reply, encode_request};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use patience::{until_ready, until_some_or};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

struct Place {
    dir: tempfile::TempDir,
    lab: Lab,
    runtime: tokio::runtime::Runtime,
    answers: SocketAddr,
    http: SocketAddr,
    metrics: SocketAddr,
    lines: SocketAddr,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let wanted = [
            "good-enforce",
            "good-testing",
            "dane-ee",
            "dane-none",
            "mx-null",
            "no-mta-sts",
            "policy-long-max-age",
        ];
        let cases: Vec<_> =
            lab::cases::all().into_iter().filter(|case| wanted.contains(&case.name)).collect();
        let lab = runtime.block_on(Lab::with_cases(Ports::free(), SystemClock.now(), &cases)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), lab.pki.root_pem()).unwrap();
        std::fs::write(dir.path().join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
        let this = Self {
            dir,
            lab,
            runtime,
            answers: ports::unused(),
            http: ports::unused(),
            metrics: ports::unused(),
            lines: ports::unused(),
        };
        this.configure("", "");
        this
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, answers: &str, more: &str) {
        let text = format!(
            "[dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
             [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n[answers]\nlisten = [\"{}\", \"unix:answers.sock\"]\nhttp = \"{}\"\n{answers}\n[metrics]\nlisten = \"{}\"\n{more}",
            self.lab.names.address,
            self.lab.names.address.port(),
            self.lab.https_port,
            self.lab.smtp_port,
            self.answers,
            self.http,
            self.metrics
        );
        std::fs::write(self.path("sternpost.toml"), text).unwrap();
    }

    fn start(&self) -> Running {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
            .current_dir(self.dir.path())
            .arg("serve")
            .stderr(log)
            .spawn()
            .unwrap();
        let mut running = Running(child);
        until_ready(&mut running.0, &self.path("log"));
        running
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        until_some_or(|| format!("in vain: {what}\n{}", self.log()), || is_so().then_some(()));
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        said(
            &Command::new(env!("CARGO_BIN_EXE_sternpost"))
                .current_dir(self.dir.path())
                .args(words)
                .output()
                .unwrap(),
        )
    }

    fn json(&self, words: &[&str]) -> Value {
        let (code, out, err) = self.run(words);
        assert_eq!(code, 0, "{out}{err}");
        serde_json::from_str(&out).unwrap()
    }

    fn ask(&self, map: &str, key: &str) -> Reply {
        exchange(&mut TcpStream::connect(self.answers).unwrap(), map, key)
    }
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn exchange(stream: &mut (impl Read + Write), map: &str, key: &str) -> Reply {
    stream.write_all(&encode_request(map, key)).unwrap();
    let (mut buffer, mut read) = (vec![0; 4096], 0);
    loop {
        let more = stream.read(&mut buffer[read..]).unwrap();
        assert!(more > 0, "the connection ended: {:?}", String::from_utf8_lossy(&buffer[..read]));
        read += more;
        if let Some((reply, _)) = Reply::decode(&buffer[..read]).unwrap() {
            return reply;
        }
    }
}

fn line(stream: &mut TcpStream, request: &str) -> String {
    writeln!(stream, "{request}").unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    reply.trim_end().to_owned()
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn signal(running: &Running, name: &str) {
    assert!(Command::new("kill").args([name, &running.0.id().to_string()]).status().unwrap().success());
}

fn secure() -> Reply {
    Reply::Ok("secure match=mx1.good-enforce.test servername=hostname".into())
}

#[test]
fn it_answers_on_every_socket_and_shows_what_it_does() {
    let place = Place::new();
    place.configure(&format!("lines = [\"{}\"]", place.lines), "");
    let mut running = place.start();
    assert_eq!(place.ask("postfix", "good-enforce.test"), secure());
    assert_eq!(place.ask("postfix", "good-testing.test"), Reply::NotFound);
    assert!(
        matches!(place.ask("QUERYwithTLSRPT", "good-testing.test"), Reply::Ok(text) if text.starts_with("may policy_type=sts"))
    );
    assert_eq!(place.ask("any", "dane-ee.test"), Reply::Ok("dane-only".into()));
    let mut unix = UnixStream::connect(place.path("answers.sock")).unwrap();
    assert_eq!(exchange(&mut unix, "postfix", "good-enforce.test"), secure());

    let (status, body) = get(place.http, "/v1/policy/good-enforce.test");
    let policy: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, policy["source"].as_str()), (200, Some("mta-sts")));
    assert_eq!(policy["policy"]["mode"], "enforce");
    assert_eq!(policy["mx"][0], "mx1.good-enforce.test");
    assert_eq!(get(place.http, "/v1/policy/not%20a%20name").0, 400);
    assert_eq!(get(place.http, "/v1/cache?most=1").0, 404, "only through the control socket");

    let test = "secure match=sternpost.invalid servername=hostname";
    assert_eq!(place.ask("postfix", "sternpost.invalid"), Reply::Ok(test.into()));
    assert_eq!(place.ask("QUERYwithTLSRPT", "sternpost.invalid"), Reply::Ok(test.into()));
    let mut lines = TcpStream::connect(place.lines).unwrap();
    assert_eq!(line(&mut lines, "sternpost.invalid"), "secure sternpost.invalid");
    let (status, body) = get(place.http, "/v1/policy/sternpost.invalid");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, answer["source"].as_str()), (200, Some("test")));
    assert_eq!(
        (answer["postfix"].as_str().unwrap(), &answer["recheck_in"]),
        (&*format!("OK {test}"), &u32::MAX.into())
    );
    let (_, queried, _) = place.run(&["query", "sternpost.invalid"]);
    assert!(queried.contains("never receives mail") && queried.contains(test), "{queried}");

    place.until("the answers are counted", || {
        let (status, metrics) = get(place.metrics, "/metrics");
        status == 200 && metrics.contains("sternpost_answers_total{result=\"ok\",source=\"dane\"} 1\n")
    });
    assert_eq!(get(place.metrics, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(place.metrics, "/readyz"), (200, "ready\n".into()));
    let (status, page) = get(place.metrics, "/");
    assert!(
        status == 200 && page.contains("<h1>Policy answers</h1>") && page.contains("The store works."),
        "{page}"
    );

    let listed = place.json(&["cache", "list", "--json"]);
    assert_eq!(listed["policies"].as_array().unwrap().len(), 2);
    let (_, text, _) = place.run(&["cache", "list", "--limit", "1"]);
    assert!(text.contains("good-enforce.test") && text.contains("add --after good-enforce.test"), "{text}");
    assert_eq!(place.json(&["cache", "refresh", "good-enforce.test", "--json"])["source"], "mta-sts");
    assert_eq!(place.json(&["cache", "purge", "good-enforce.test", "--json"])["was_known"], true);
    assert_eq!(
        place.json(&["query", "--cached", "good-enforce.test", "--json"])["policy"]["mode"],
        "enforce"
    );
    let host = place.json(&["cache", "show", "[mx1.good-enforce.test]:25", "--json"]);
    assert_eq!(host["next_hop"], "[mx1.good-enforce.test]");
    for typed in ["two words", "a/b", "a?b", "b\u{fc}cher..example"] {
        let (code, _, err) = place.run(&["cache", "show", typed]);
        assert!(code == 2 && err.contains(typed), "{typed}: {err}");
    }
    let (code, _, err) = place.run(&["cache", "show", "@"]);
    assert!(code == 2 && err.contains("\"@\""), "{err}");

    signal(&running, "-TERM");
    assert!(running.0.wait().unwrap().success());
    assert!(place.log().contains("stopped") && !place.path("answers.sock").exists());
    assert_eq!(
        (place.run(&["cache", "export"]).0, place.run(&["cache", "import", "sternpost.toml"]).0),
        (3, 3)
    );
    let (code, _, err) = place.run(&["cache", "list"]);
    assert!(code == 3 && err.contains("no server is running") && err.contains("sternpost serve"), "{err}");
    drop(place.runtime);
}

#[test]
fn a_reload_takes_changes_in_without_losing_a_connection_and_refuses_wrong_ones() {
    let place = Place::new();
    let running = place.start();
    let mut open = TcpStream::connect(place.answers).unwrap();
    assert_eq!(exchange(&mut open, "postfix", "good-enforce.test"), secure());
    let (second, third) = (ports::unused(), ports::unused());
    let table = "[[answers.override]]\ndomain = \"good-enforce.test\"\nanswer = \"encrypt\"\n";
    place.configure(&format!("lines = [\"{second}\"]\ntlsrpt = true"), table);
    signal(&running, "-HUP");
    place.until("the reload", || place.log().contains("configuration reloaded"));
    assert_eq!(exchange(&mut open, "postfix", "good-enforce.test"), Reply::Ok("encrypt".into()));
    assert!(
        matches!(exchange(&mut open, "postfix", "good-testing.test"), Reply::Ok(text) if text.contains("policy_type=sts"))
    );
    assert!(TcpStream::connect(second).is_ok());

    // One socket can't be opened, so nothing changes.
    let _taken = TcpListener::bind(third).unwrap();
    place.configure(&format!("lines = [\"{third}\"]"), "");
    signal(&running, "-HUP");
    place.until("the refusal", || place.log().contains(&format!("can't listen at {third}")));
    std::fs::write(place.path("sternpost.toml"), "[answers]\nlisen = []\n").unwrap();
    signal(&running, "-HUP");
    place.until("the refusal", || place.log().contains("Did you mean answers.listen?"));
    assert_eq!(exchange(&mut open, "postfix", "good-enforce.test"), Reply::Ok("encrypt".into()));

    place.configure("", "");
    signal(&running, "-HUP");
    place.until("the reload", || place.log().matches("configuration reloaded").count() == 2);
    assert_eq!(exchange(&mut open, "postfix", "good-enforce.test"), secure());
    place.until("the other socket is closed", || TcpStream::connect(second).is_err());
}

#[test]
fn query_and_cache_say_why_dane_does_not_apply_and_what_postfix_does_alone() {
    let place = Place::new();
    let _running = place.start();
    let strips = "TLS is opportunistic, and anyone on the path can strip it";
    for (name, source, reason, dane) in [
        ("dane-ee", "dane", Value::Null, "DANE authenticates every MX host".to_owned()),
        ("dane-none", "nothing", "no-tlsa".into(), format!("{strips}, at every MX host")),
        ("no-mta-sts", "nothing", "unsigned-host".into(), format!("{strips}, at every MX host")),
        ("good-enforce", "mta-sts", "unsigned-host".into(), format!("{strips}, at every MX host")),
    ] {
        let domain = format!("{name}.test");
        let queried = place.json(&["query", &domain, "--json"]);
        assert_eq!(
            (&queried["source"], &queried["dane"][0]["reason"]),
            (&source.into(), &reason),
            "{queried}"
        );
        let alone = serde_json::json!({ "may": strips, "dane": dane });
        assert_eq!(queried["postfix_alone"], alone, "{queried}");
        assert_eq!(place.json(&["cache", "show", &domain, "--json"])["postfix_alone"], alone);
        let (_, text, _) = place.run(&["query", &domain]);
        assert!(text.contains(&format!("Postfix alone, level dane: {dane}\n")), "{text}");
        assert_eq!(text.contains("    Remedy: "), !reason.is_null(), "{text}");
        let (_, text, _) = place.run(&["query", "--cached", &domain]);
        assert!(
            text.contains("MX hosts: 1 ") && text.contains(&format!("sternpost query --trace {domain}")),
            "{text}"
        );
    }
    let shown = place.json(&["cache", "show", "policy-long-max-age.test", "--json"]);
    assert_eq!(shown["policy"]["max_age"], 31_557_600);
    assert_eq!(shown["policy"]["max_age_published"], 9_999_999_999_u64);
    let (_, text, _) = place.run(&["cache", "show", "policy-long-max-age.test"]);
    assert!(text.contains("max_age 9999999999 exceeds the maximum"), "{text}");
    let shown = place.json(&["cache", "show", "good-enforce.test", "--json"]);
    assert_eq!(
        (&shown["policy"]["max_age"], &shown["policy"]["max_age_published"]),
        (&604_800.into(), &Value::Null)
    );
    let (_, text, _) = place.run(&["query", "policy-long-max-age.test", "--trace"]);
    assert!(text.contains("which is the maximum (the file has 9999999999)"), "{text}");
    drop(place.runtime);
}

/// The fenced block of docs/postfix.md that is marked so.
fn documented(mark: &str) -> String {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/postfix.md")).unwrap();
    let (_, inside) = page.split_once(&format!("```{mark}\n")).unwrap();
    inside.split_once("```").unwrap().0.to_owned()
}

#[test]
fn a_reload_gives_the_port_of_ipv4_to_another_address_and_back() {
    let place = Place::new();
    let port = place.lines.port();
    let all = format!("\"[::]:{port}\"");
    let configure = |listed: &str| place.configure(&format!("lines = [{listed}]"), "");
    configure(&all);
    let running = place.start();
    let mut kept = TcpStream::connect(place.lines).unwrap();
    let steps =
        [format!("{all}, \"127.0.0.1:{port}\""), all.clone(), format!("\"127.0.0.1:{port}\""), all.clone()];
    for (at, listed) in steps.iter().enumerate() {
        let asked = line(&mut TcpStream::connect(place.lines).unwrap(), "sternpost.invalid");
        assert_eq!(asked, "secure sternpost.invalid", "{listed}");
        if at < 3 {
            assert_eq!(line(&mut kept, "sternpost.invalid"), asked, "the connection stays");
        }
        configure(listed);
        signal(&running, "-HUP");
        place.until("the reload", || place.log().matches("configuration reloaded").count() == at + 1);
        place.until(&format!("the sockets are {listed}"), || {
            TcpStream::connect(("::1", port)).is_ok() == listed.contains(&all)
        });
    }
    // A reload that fails changes nothing.
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    configure(&format!("{all}, \"127.0.0.1:{port}\", \"{}\"", holder.local_addr().unwrap()));
    signal(&running, "-HUP");
    place.until("the failure", || place.log().contains("reload failed"));
    for client in ["127.0.0.1", "::1"] {
        let mut stream = TcpStream::connect((client, port)).unwrap();
        assert_eq!(line(&mut stream, "sternpost.invalid"), "secure sternpost.invalid");
    }
}

#[test]
fn the_name_of_the_map_selects_documented_settings_and_a_reload_changes_them() {
    let place = Place::new();
    let maps = documented("toml maps").replace("*.partner.example", "good-enforce.test");
    place.configure("", &maps);
    let running = place.start();
    let strict = Reply::Ok("secure match=mx1.good-testing.test servername=hostname".into());
    let mut open = TcpStream::connect(place.answers).unwrap();
    for _ in 0..2 {
        assert_eq!(exchange(&mut open, "postfix", "good-testing.test"), Reply::NotFound);
        assert_eq!(exchange(&mut open, "strict", "good-testing.test"), strict);
        assert_eq!(exchange(&mut open, "partner", "good-testing.test"), Reply::NotFound);
        assert_eq!(exchange(&mut open, "partner", "good-enforce.test"), Reply::NotFound);
        assert_eq!(exchange(&mut open, "strict", "good-enforce.test"), secure());
        assert_eq!(exchange(&mut open, "postfix", "good-enforce.test"), secure());
    }
    let reported = |reply| matches!(reply, Reply::Ok(text) if text.starts_with("secure match=mx1.good-testing.test servername=hostname policy_type=sts"));
    assert!(reported(exchange(&mut open, "strictwithTLSRPT", "good-testing.test")));
    place.until("each policy is fetched, and once", || {
        get(place.metrics, "/metrics").1.contains("sternpost_fetches_total{outcome=\"ok\"} 2\n")
    });

    let (_, body) = get(place.http, "/v1/policy/good-testing.test?map=strict");
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["mx"][0], "mx1.good-testing.test", "{answer}");
    let show =
        |words: &[&str]| place.json(&[words, &["--json", "good-testing.test"]].concat())["postfix"].clone();
    assert_eq!(show(&["cache", "show"]), "NOTFOUND");
    assert_eq!(
        show(&["cache", "show", "--map", "strict"]),
        "OK secure match=mx1.good-testing.test servername=hostname"
    );
    assert!(show(&["query", "--map", "strict"]).as_str().unwrap().starts_with("OK secure match="));
    // Both commands mean the same by the same member.
    assert_eq!(show(&["query"]), "NOTFOUND");
    let queried = place.json(&["query", "--json", "good-testing.test"]);
    assert!(queried["postfix_tlsrpt"].as_str().unwrap().starts_with("OK may policy_type="), "{queried}");
    let (code, _, err) = place.run(&["query", "--cached", "--map", "a/b", "good-testing.test"]);
    assert!(code == 2 && err.contains("a map name has letters"), "{err}");

    place.configure("", "[answers.maps.strict]\ntesting_level = \"encrypt\"\n");
    signal(&running, "-HUP");
    place.until("the reload", || place.log().contains("configuration reloaded"));
    assert_eq!(exchange(&mut open, "strict", "good-testing.test"), Reply::Ok("encrypt".into()));
    assert_eq!(exchange(&mut open, "partner", "good-enforce.test"), secure(), "the map is gone");
    drop(place.runtime);
}

#[test]
fn an_exported_cache_warms_another_machine_whose_first_contact_is_stripped() {
    let place = Place::new();
    let _running = place.start();
    assert_eq!(place.ask("postfix", "good-enforce.test"), secure());
    place.ask("postfix", "good-testing.test");
    let (code, exported, _) = place.run(&["cache", "export"]);
    assert_eq!((code, exported.lines().count()), (0, 2), "{exported}");
    let first: Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
    assert_eq!((&first["schema"], first["domain"].as_str()), (&1.into(), Some("good-enforce.test")));
    assert_eq!((&first["mode"], &first["max_age"]), (&"enforce".into(), &604_800.into()));

    // As on a new machine, and an attacker blocks the policy host.
    place.run(&["cache", "purge", "good-enforce.test"]);
    place.lab.sites.block("mta-sts.good-enforce.test", true);
    assert_eq!(place.ask("postfix", "good-enforce.test"), Reply::NotFound);
    let future = exported.lines().next().unwrap().replace("\"fetched_at\":\"20", "\"fetched_at\":\"30");
    let file = format!("{exported}\n{future}\n{}\nnot a policy\n", "x".repeat(300_000));
    std::fs::write(place.path("policies.ndjson"), file).unwrap();
    let (code, text, _) = place.run(&["cache", "import", "--dry-run", "policies.ndjson"]);
    assert!(code == 1 && text.starts_with("1 policy would be imported, 1 not newer"), "{text}");
    assert_eq!(place.ask("postfix", "good-enforce.test"), Reply::NotFound);
    let (code, text, _) = place.run(&["cache", "import", "policies.ndjson", "--json"]);
    let done: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &done["imported"], &done["not_newer"], &done["expired"]),
        (1, &1.into(), &1.into(), &0.into())
    );
    assert_eq!(done["refused"], 3, "{done}");
    let lines: Vec<_> = done["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["line"].as_u64().unwrap())
        .collect();
    assert!(lines.len() == 3 && lines.contains(&4) && lines.contains(&5) && lines.contains(&6), "{done}");
    assert_eq!(place.ask("postfix", "good-enforce.test"), secure(), "not the cached NOTFOUND");

    let again = Command::new("sh")
        .current_dir(place.dir.path())
        .arg("-c")
        .arg(format!("{0} cache export | {0} cache import -", env!("CARGO_BIN_EXE_sternpost")))
        .output();
    let (code, text, err) = said(&again.unwrap());
    assert!(code == 0 && text.starts_with("0 policies imported, 2 not newer"), "{text}{err}");
    let (code, _, err) = place.run(&["cache", "import", "no-such-file"]);
    assert!(code == 2 && err.contains("no-such-file can't be read"), "{err}");
    drop(place.runtime);
}

#[test]
fn sockets_of_systemd_are_taken() {
    let place = Place::new();
    place.configure("lines = [\"systemd\"]", "");
    let text = std::fs::read_to_string(place.path("sternpost.toml")).unwrap();
    let own = format!("listen = [\"{}\", \"unix:answers.sock\"]", place.answers);
    std::fs::write(
        place.path("sternpost.toml"),
        text.replace(&own, "listen = [\"systemd\"]").replace("lines = [\"systemd\"]", ""),
    )
    .unwrap();
    // What systemd does: the sockets from 3 on, and whose they are.
    let activate = format!(
        "import os, socket\na = socket.create_server(('127.0.0.1', {}))\nb = socket.socket(socket.AF_UNIX); b.bind('handed.sock'); b.listen()\n\
         os.dup2(a.fileno(), 30); os.dup2(b.fileno(), 31); os.dup2(30, 3); os.dup2(31, 4)\n\
         os.environ.update(LISTEN_FDS='2', LISTEN_PID=str(os.getpid()))\nos.execv('{}', ['sternpost', 'serve'])\n",
        place.answers.port(),
        env!("CARGO_BIN_EXE_sternpost")
    );
    let log = std::fs::File::create(place.path("log")).unwrap();
    let child =
        Command::new("python3").current_dir(place.dir.path()).args(["-c", &activate]).stderr(log).spawn();
    let mut running = Running(child.unwrap());
    until_ready(&mut running.0, &place.path("log"));
    assert_eq!(place.ask("postfix", "good-enforce.test"), secure());
    let mut unix = UnixStream::connect(place.path("handed.sock")).unwrap();
    assert_eq!(exchange(&mut unix, "postfix", "good-enforce.test"), secure());
}

#[test]
fn what_hinders_the_start_is_said_with_what_to_do() {
    let place = Place::new();
    let start = |dir: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_sternpost"))
            .current_dir(dir)
            .arg("serve")
            .stdin(Stdio::null())
            .output();
        said(&output.unwrap())
    };
    let empty = tempfile::tempdir().unwrap();
    let (code, _, err) = start(empty.path());
    assert!(code == 2 && err.contains("enables no role") && err.contains("[answers]"), "{err}");
    let _first = place.start();
    let (code, _, err) = start(place.dir.path());
    assert!(
        code == 2 && err.contains("can't listen at") && err.contains("Another Sternpost listens there"),
        "{err}"
    );
    std::fs::write(empty.path().join("sternpost.toml"), "store = \"sqlite:no/such/folder.db\"\n[answers]\n")
        .unwrap();
    let (code, _, err) = start(empty.path());
    assert!(
        code == 2 && err.contains("no/such/folder.db can't be opened") && err.contains("folder must exist"),
        "{err}"
    );
    // The lab's root is not the internet's: without its trust anchor nothing validates.
    let text = format!(
        "[dns]\nservers = [\"{}\"]\n[answers]\nlisten = [\"unix:a.sock\"]\n",
        place.lab.names.address
    );
    std::fs::write(empty.path().join("sternpost.toml"), text).unwrap();
    let (code, _, err) = start(empty.path());
    assert!(code == 2 && err.contains("fail DNSSEC validation") && err.contains("dnssec = \"off\""), "{err}");
    for (text, said) in [
        ("[answers]\nhttp = \"0.0.0.0:1\"\n", "the protocol has no authentication"),
        ("[answers]\nlisten = [\"nowhere\"]\n", "not a valid listen address"),
        ("[[answers.override]]\ndomain = \"example.org\"\n", "changes nothing"),
        ("[[answers.override]]\nanswer = \"may\"\n", "has no domain"),
        ("[[answers.override]]\ndomain = \"example.org\"\nanswer = \"secre\"\n", "is not a valid answer"),
        ("[[answers.override]]\ndomain = \"example.org\"\npolicy_file = \"none.txt\"\n", "none.txt"),
        (
            "[[answers.override]]\ndomain = \"a.example\"\nanswer = \"may\"\n[[answers.override]]\ndomain = \"A.example\"\nanswer = \"dane\"\n",
            "appear twice",
        ),
    ] {
        std::fs::write(empty.path().join("sternpost.toml"), text).unwrap();
        let (code, _, err) = start(empty.path());
        assert!(code == 2 && err.contains(said), "{text}: {err}");
    }
}
