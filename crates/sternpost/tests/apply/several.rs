//! `sternpost apply` of several domains that is interrupted: while all wait for the operator, while some have not begun, and
//! within a change of DNS.

use super::{Scene, domain, signal};
use crate::patience::until_some_or;
use std::net::{TcpListener, UdpSocket};
use std::process::Child;

const NAMES: [&str; 3] = ["example.org", "example.net", "example.com"];

/// Domains in the lab whose report address their zones do not have, each with these lines of configuration.
fn domains(each: &str) -> Scene {
    let cases = NAMES.map(domain);
    let rest: String = NAMES[1..]
        .iter()
        .map(|name| format!("[[domain]]\nname = \"{name}\"\nrua = [\"mailto:new@example.org\"]\n{each}"))
        .collect();
    Scene::with(&cases, "mailto:new@example.org", &format!("{each}{rest}"))
}

fn ended(scene: &Scene, mut child: Child) -> String {
    let code = child.wait().unwrap().code();
    assert_eq!(code, Some(130), "{}", scene.printed());
    scene.printed()
}

#[test]
fn all_domains_are_given_back_and_the_last_line_counts_them() {
    let scene = domains("");
    for name in ["INT", "TERM", "HUP"] {
        let child = scene.waiting();
        let all_wait = || scene.printed().contains(" together, for up to ").then_some(());
        until_some_or(|| scene.printed(), all_wait);
        signal(&child, name);
        let printed = ended(&scene, child);
        for part in [
            "3 domains: 3 with a step that is not visible yet",
            "Nothing is held any more. `sternpost apply` resumes where each domain is.",
        ] {
            assert!(printed.contains(part), "{name}: {part}\n{printed}");
        }
        let again = scene.applies(&[]);
        assert!(again.contains("3 domains: 3 with a step"), "{again}");
    }
}

#[test]
fn domains_that_were_not_begun_are_counted() {
    let scene = domains("");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let all: String = (0..20).map(|at| format!("[[domain]]\nname = \"c{at}.example\"\n")).collect();
    let config = format!("[dns]\nservers = [\"{}\"]\ndnssec = \"off\"\n{all}", silent.local_addr().unwrap());
    std::fs::write(scene.dir.path().join("sternpost.toml"), config).unwrap();
    for is_json in [false, true] {
        let mut command = scene.command(if is_json { &["apply", "--json"] } else { &["apply"] });
        let child = scene.begun(&mut command);
        // The first lookup. Sixteen domains are worked on at a time.
        silent.recv(&mut [0; 512]).unwrap();
        signal(&child, "INT");
        let printed = ended(&scene, child);
        if is_json {
            assert_eq!(printed.matches("\"rest\":\"not-begun\"").count(), 4, "{printed}");
        } else {
            assert!(printed.contains("20 domains: 16 interrupted, 4 not begun"), "{printed}");
        }
        // What else was sent belongs to this run.
        silent.set_nonblocking(true).unwrap();
        while silent.recv(&mut [0; 512]).is_ok() {}
        silent.set_nonblocking(false).unwrap();
    }
}

#[test]
fn a_second_signal_ends_a_change_that_hangs_and_the_next_run_takes_the_domains() {
    let scene = domains("dns = \"rfc2136:stuck\"\n");
    let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = scene.dir.path().join("sternpost.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let server = stuck.local_addr().unwrap();
    let updates = format!(
        "[[rfc2136]]\nname = \"stuck\"\nserver = \"{server}\"\nzone = \"example.org\"\nkey_name = \"k\"\nkey_file = \"tsig.key\"\n"
    );
    std::fs::write(scene.dir.path().join("tsig.key"), "c3Rlcm5wb3N0IHN0ZXJucG9zdCBzdGVybnBvc3QhISE=\n")
        .unwrap();
    std::fs::write(&file, updates + &config).unwrap();
    let child = scene.begun(&mut scene.command(&["apply"]));
    let _connection = stuck.accept().unwrap();
    signal(&child, "INT");
    let tells = || scene.printed().contains("another signal ends it at once").then_some(());
    until_some_or(|| scene.printed(), tells);
    assert!(scene.printed().contains("It finishes the change of DNS that has begun"), "{}", scene.printed());
    signal(&child, "INT");
    ended(&scene, child);
    drop(stuck);
    let (_, printed) = scene.run(&["apply", "--patience", "0"]);
    assert!(!printed.contains("being applied by"), "{printed}");
    assert!(printed.contains("Connection refused"), "{printed}");
}
