//! Differential test: other senders look up the lab's domains beside Sternpost, in the same room and through the same
//! resolver. Each disagreement is listed in `tests/differential/disagreements.md` with its reason. A disagreement that
//! is not listed fails the test, and so does a listed one that no longer occurs.

use crate::ground::Ground;
use crate::postfix::unpacked;
use crate::support::{daemon, in_a_room_of_its_own, mount_over, until};
use lab::case::{Case, NoMx};
use lab::policy_host::HttpBehavior;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What two senders conclude about a domain or an MX host.
type Conclusions = BTreeMap<String, (String, String)>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential")
}

/// The lab's domains that differ from each other when Knot serves their zones. Faults that only the lab's own name
/// server can play are left out, and so are policy hosts that never finish: mx-connect has no limit for them.
fn cases() -> Vec<Case> {
    let is_endless = |answers: &HttpBehavior| {
        use HttpBehavior::{Drips, Endless, Silent, Stalls};
        matches!(answers, Drips | Endless | Silent | Stalls)
    };
    let can_be_compared = |case: &Case| {
        let setup = &case.setup;
        setup.record_trouble.is_none()
            && setup.mx.iter().all(|mx| mx.tlsa_trouble.is_none())
            && !is_endless(&setup.answers)
            && !case.name.starts_with("attack-")
    };
    lab::cases::all().into_iter().filter(can_be_compared).collect()
}

/// The MX hosts of a domain; without MX records, the domain itself.
fn hosts(case: &Case) -> Vec<String> {
    let domain = case.domain();
    match (case.setup.mx.is_empty(), case.setup.no_mx) {
        (true, NoMx::Null) => Vec::new(),
        (true, NoMx::Implicit) => vec![domain],
        (false, _) => case.setup.mx.iter().map(|mx| format!("{}.{domain}", mx.label)).collect(),
    }
}

/// A policy server's reply to the key `domain`, by the socketmap protocol.
fn socketmap(address: &str, domain: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("postfix {domain}");
    write!(stream, "{}:{request},", request.len()).unwrap();
    let mut stream = BufReader::new(stream);
    let mut length = Vec::new();
    stream.read_until(b':', &mut length).unwrap();
    length.pop();
    let Ok(length) = String::from_utf8(length).unwrap().parse() else { return "no reply".into() };
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).unwrap();
    String::from_utf8(reply).unwrap()
}

/// A reply of a policy server without what only differs in form: the level, and the patterns in lower case and in order.
fn conclusion(reply: &str) -> String {
    let mut words = reply.split_whitespace();
    let (status, level) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let patterns = words.find_map(|word| word.strip_prefix("match=")).unwrap_or_default().to_lowercase();
    let mut patterns: Vec<&str> = patterns.split(':').collect();
    patterns.sort_unstable();
    match status {
        "OK" => format!("{level} {}", patterns.join(" ")).trim().to_owned(),
        "NOTFOUND" => "nothing".to_owned(),
        "TEMP" => "temporary failure".to_owned(),
        _ => reply.to_owned(),
    }
}

fn postfix_mta_sts_resolver(place: &Path, cases: &[Case]) -> Conclusions {
    let config = "host: 127.0.0.1\nport: 8462\nreuse_port: true\ncache:\n  type: internal\ndefault_zone:\n  timeout: 60\n";
    std::fs::write(place.join("mta-sts-daemon.yml"), config).unwrap();
    let program = unpacked("differential").join("python/bin/mta-sts-daemon");
    let (program, place) = (program.display(), place.display());
    let line = format!("env SSL_CERT_FILE={place}/ca.pem {program} -c {place}/mta-sts-daemon.yml");
    let log = format!("{place}/mta-sts-daemon.log");
    let _daemon = daemon(&line, Path::new(&log));
    until("postfix-mta-sts-resolver listens", || TcpStream::connect("127.0.0.1:8462").is_ok());
    let both = |case: &Case| {
        let domain = case.domain();
        let replies = ["127.0.0.1:8461", "127.0.0.1:8462"].map(|address| socketmap(address, &domain));
        (domain, (conclusion(&replies[0]), conclusion(&replies[1])))
    };
    let seen = std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .chunks(cases.len().div_ceil(8))
            .map(|part| scope.spawn(|| part.iter().map(both).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{}", std::fs::read_to_string(log).unwrap());
    seen
}

/// Sternpost's decision for one MX host, by the line protocol.
fn decision(lines: &mut BufReader<UnixStream>, domain: &str, host: &str) -> String {
    writeln!(lines.get_mut(), "{domain} {host}").unwrap();
    let mut reply = String::new();
    lines.read_line(&mut reply).unwrap();
    match reply.split_whitespace().next().unwrap_or_default() {
        // mx-connect leaves TLS to its user, so it has no level below `secure`, and one for DANE.
        "may" => "none".to_owned(),
        "dane-only" => "dane".to_owned(),
        level => level.to_owned(),
    }
}

fn mx_connect(place: &Path, cases: &[Case]) -> Conclusions {
    let mut command = Command::new("node");
    command
        .arg(folder().join("ask.cjs"))
        .env("NODE_PATH", unpacked("differential").join("node/node_modules"));
    command.env("NODE_EXTRA_CA_CERTS", place.join("ca.pem"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ask = child.stdin.take().unwrap();
    let mut lines = BufReader::new(UnixStream::connect(place.join("lines.sock")).unwrap());
    let mut ours = BTreeMap::new();
    for case in cases {
        let (domain, hosts) = (case.domain(), hosts(case));
        for host in &hosts {
            writeln!(ask, "{domain} {host} {}", u8::from(hosts.len() == 1)).unwrap();
            ours.insert(host.clone(), decision(&mut lines, &domain, host));
        }
    }
    drop(ask);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let theirs: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let both = |(host, ours): (String, String)| {
        let theirs = theirs.get(host.as_str()).unwrap_or(&"no answer").to_string();
        (host, (ours, theirs))
    };
    ours.into_iter().map(both).collect()
}

/// The disagreements that the file lists for a program, by domain or host, and their reasons.
fn listed(program: &str) -> BTreeMap<String, (String, String, String)> {
    let text = std::fs::read_to_string(folder().join("disagreements.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with(program)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        (cells[1].to_owned(), (cells[2].to_owned(), cells[3].to_owned(), cells[4].to_owned()))
    })
    .collect()
}

/// Compares what was seen with the file, both ways; returns one line for each fault.
fn faults(program: &str, seen: &Conclusions) -> Vec<String> {
    let listed = listed(program);
    let mut faults = Vec::new();
    for (name, (ours, theirs)) in seen {
        let row = format!("| `{name}` | {ours} | {theirs} |");
        match listed.get(name) {
            None if ours != theirs => faults.push(format!("not listed: {row}")),
            Some(_) if ours == theirs => faults.push(format!("listed, but both conclude the same: {row}")),
            Some((our_cell, their_cell, _)) if (our_cell, their_cell) != (ours, theirs) => {
                faults.push(format!("listed as {our_cell} | {their_cell}, seen {row}"));
            }
            _ => {}
        }
    }
    for (name, (.., reason)) in &listed {
        if !seen.contains_key(name) {
            faults.push(format!("listed, but not compared: {name}"));
        }
        if !(reason.contains("RFC ") && reason.contains('§')) {
            faults.push(format!("{name}: the reason has no section of an RFC"));
        }
    }
    faults
}

#[test]
fn other_senders_disagree_about_the_lab_only_as_listed() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let cases = cases();
        let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
        let mut ground = Ground::new(place.path(), &names, "good-testing");
        let resolv = place.path().join("resolv.conf");
        std::fs::write(&resolv, "nameserver 127.0.0.1\n").unwrap();
        mount_over(&resolv, Path::new("/etc/resolv.conf"));
        let lines = place.path().join("lines.sock");
        ground.serve(&format!("listen = [\"127.0.0.1:8461\"]\nlines = [\"unix:{}\"]", lines.display()));
        let mut wrong = Vec::new();
        for (program, seen) in [
            ("postfix-mta-sts-resolver", postfix_mta_sts_resolver(place.path(), &cases)),
            ("mx-connect", mx_connect(place.path(), &cases)),
        ] {
            assert!(seen.values().any(|(ours, theirs)| ours == theirs && ours.starts_with("secure")));
            wrong.extend(faults(program, &seen).into_iter().map(|fault| format!("{program}: {fault}")));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn a_disagreement_that_is_new_or_gone_or_different_is_a_fault() {
    let listed = listed("mx-connect");
    let as_listed = |(name, (ours, theirs, _)): (&String, &(String, String, String))| {
        (name.clone(), (ours.clone(), theirs.clone()))
    };
    let mut seen: Conclusions = listed.iter().map(as_listed).collect();
    assert_eq!(faults("mx-connect", &seen), Vec::<String>::new());
    let first = listed.keys().next().unwrap();
    seen.insert("new.test".into(), ("secure".into(), "none".into()));
    assert!(faults("mx-connect", &seen)[0].contains("new.test"));
    seen.remove("new.test");
    seen.insert(first.clone(), ("other".into(), "none".into()));
    assert!(faults("mx-connect", &seen)[0].starts_with("listed as"));
    seen.insert(first.clone(), ("none".into(), "none".into()));
    assert!(faults("mx-connect", &seen)[0].contains("both conclude the same"));
    seen.remove(first);
    assert!(faults("mx-connect", &seen)[0].contains("not compared"));
}
