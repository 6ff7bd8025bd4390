//! `sternpost lab serve` under the eyes of others: each command that it prints is run as it is, and
//! a real validating resolver judges its zones. Needs dig, curl, openssl, unbound, ip and root.

use crate::support::{Running, shell};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn block() -> String {
    (2 + std::process::id() % 60).to_string()
}

/// Starts a command and reads what it prints until it says that everything is up.
fn start(mut command: Command) -> (Running, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let running = Running(child);
    let mut said = String::new();
    for line in out.lines() {
        let line = line.unwrap();
        said.push_str(&line);
        said.push('\n');
        if line.starts_with("Running until Ctrl-C") {
            return (running, said);
        }
    }
    panic!("it ended early: {said}");
}

/// Runs what is printed for dig, curl, openssl and sternpost, and says what the check says.
fn follow(said: &str, mode: &str, domain: &str) -> String {
    let command = |word: &str| {
        let line = said.lines().map(str::trim).find(|line| line.starts_with(word));
        line.unwrap_or_else(|| panic!("no {word} in {said}")).to_owned()
    };
    assert!(shell(&command("dig")).contains("v=STSv1; id=20"));
    let policy = shell(&command("curl"));
    assert!(policy.contains(&format!("mode: {mode}")), "{policy}");
    let handshake = shell(&command("openssl"));
    assert!(handshake.contains("Verification: OK"), "{handshake}");
    let query = command("sternpost").replace(&format!("check {domain}"), &format!("query --json {domain}"));
    let answer = shell(&query);
    assert!(answer.contains(&format!("secure match=mx1.{domain}")), "{answer}");
    shell(&command("sternpost"))
}

#[test]
fn each_command_that_lab_serve_prints_works_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    serve.args(["lab", "serve", "--block", &block(), "--dir"]).arg(place.path().join("lab"));
    serve.args(["--dns-port", "5390", "--https-port", "8490", "--smtp-port", "2590"]);
    let (_lab, said) = start(serve);
    let check = follow(&said, "enforce", "good-enforce.test");
    assert!(check.starts_with("good-enforce.test is protected"), "{check}");
}

#[test]
fn each_command_that_the_kept_demo_prints_works_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    demo.args(["demo", "--keep", "--dir"]).arg(place.path().join("demo"));
    let (_demo, said) = start(demo);
    let check = follow(&said, "enforce", "harbour.test");
    assert!(check.starts_with("harbour.test is protected"), "{check}");
}

/// A network namespace that ends with the test.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("sternpost-{}", std::process::id());
        shell(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        Self(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn a_real_validating_resolver_agrees_with_the_lab_about_its_zones() {
    let place = tempfile::tempdir().unwrap();
    let space = Namespace::new();
    let folder = place.path().join("lab");
    let mut serve = space.command(env!("CARGO_BIN_EXE_sternpost"));
    serve.args(["lab", "serve", "--real-ports", "--dir"]).arg(&folder);
    let (_lab, said) = start(serve);
    // The configuration is what `lab serve` prints, and where to listen.
    let printed: Vec<&str> = said.lines().skip_while(|line| line.trim() != "server:").take(7).collect();
    let own = format!(
        "    interface: 127.0.0.1\n    do-daemonize: no\n    username: \"\"\n    chroot: \"\"\n    pidfile: \"{}\"\n    use-syslog: no\n    directory: \"{}\"\n",
        place.path().join("unbound.pid").display(),
        place.path().display()
    );
    let text = printed.join("\n").replacen("server:\n", &format!("server:\n{own}"), 1)
        + "\nremote-control:\n    control-enable: no\n";
    let config = place.path().join("unbound.conf");
    std::fs::write(&config, text).unwrap();
    let mut unbound = space.command("unbound");
    unbound.arg("-c").arg(&config).stderr(Stdio::null());
    let _unbound = Running(unbound.spawn().unwrap());
    let ask = |name: &str, kind: &str| {
        shell(&format!(
            "ip netns exec {} dig @127.0.0.1 +dnssec +time=5 +tries=1 {name} {kind} || true",
            space.0
        ))
    };
    let begun = Instant::now();
    while !ask("ns.test", "A").contains("status: NOERROR") {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "unbound does not answer: {}",
            ask("ns.test", "A")
        );
    }
    let (mut wrong, cases) = (Vec::new(), ["dane-ee", "sts-signed", "good-enforce", "dane-bogus"]);
    for (name, status, authentic) in [
        (cases[0], "NOERROR", true),
        (cases[1], "NOERROR", true),
        (cases[2], "NOERROR", false),
        (cases[3], "SERVFAIL", false),
    ] {
        let answer = ask(&format!("{name}.test"), "MX");
        let flags = answer.lines().find(|line| line.starts_with(";; flags:")).unwrap_or_default();
        if !answer.contains(&format!("status: {status}")) || flags.contains(" ad") != authentic {
            wrong.push(format!("{name}: expected {status}, AD {authentic}\n{answer}"));
        }
    }
    let tlsa = ask("_25._tcp.mx1.dane-ee.test", "TLSA");
    assert!(tlsa.contains(" ad") && tlsa.contains("TLSA\t3 1 1"), "{tlsa}");
    let nothing = ask("_25._tcp.mx1.dane-none.test", "TLSA");
    assert!(nothing.contains("status: NXDOMAIN") && nothing.contains(" ad"), "{nothing}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
