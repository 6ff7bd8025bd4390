//! The program as its user runs it: commands, typos, wrong files, exit codes.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn sternpost(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sternpost")).current_dir(folder).args(words).output().unwrap()
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn run(words: &[&str]) -> (i32, String, String) {
    said(&sternpost(tempfile::tempdir().unwrap().path(), words))
}

#[test]
fn the_demo_verifies_each_of_its_claims_and_leaves_one_folder() {
    let place = tempfile::tempdir().unwrap();
    let (code, out, err) = said(&sternpost(place.path(), &["demo", "--json", "--dir", "left"]));
    assert_eq!(code, 0, "{out}{err}");
    let bill: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((bill["ok"].as_bool(), bill["schema"].as_u64()), (Some(true), Some(1)));
    let acts = bill["acts"].as_array().unwrap();
    assert_eq!(acts.len(), 7);
    for act in acts {
        let claims = act["claims"].as_array().unwrap();
        assert!(!claims.is_empty() && claims.iter().all(|claim| claim["held"] == true), "{act}");
    }
    let left: Vec<_> =
        std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["left"]);
    let picture = std::fs::read_to_string(place.path().join("left/demo.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("the attacker has read the message"));
    let (code, _, err) = said(&sternpost(place.path(), &["demo", "--dir", "left"]));
    assert_eq!(code, 2);
    assert!(err.contains("it is not empty"), "{err}");
}

#[test]
fn usage_errors_end_with_2_and_say_what_was_meant() {
    let (code, _, err) = run(&["chekc", "example.org"]);
    assert_eq!(code, 2);
    assert!(err.contains("check"), "{err}");
    for words in [&["check", "https://example.org/"][..], &["query", "post@example.org"]] {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains("Give the domain alone: example.org"), "{err}");
    }
    let (code, _, err) = run(&["check", "--explain", "STS-TXT-MISING"]);
    assert_eq!(code, 2);
    assert!(err.contains("Did you mean STS-TXT-MISSING?"), "{err}");
    assert_eq!(run(&["check"]).0, 2);
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["--help"]).0, 0);
}

#[test]
fn a_wrong_configuration_is_named_with_its_place() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("sternpost.toml"), "[dns]\nserver = []\n").unwrap();
    let (code, _, err) = said(&sternpost(place.path(), &["config", "check"]));
    assert_eq!(code, 2);
    assert!(
        err.contains("sternpost.toml, line 2, column 1") && err.contains("Did you mean dns.servers?"),
        "{err}"
    );
    let (code, _, err) = said(&sternpost(place.path(), &["--config", "no/such.toml", "config", "show"]));
    assert_eq!(code, 2);
    assert!(err.contains("no/such.toml can't be read"), "{err}");
    std::fs::write(place.path().join("sternpost.toml"), "[trust]\nca_file = \"missing.pem\"\n").unwrap();
    let (code, _, err) = said(&sternpost(place.path(), &["check", "example.org"]));
    assert_eq!(code, 2);
    assert!(err.contains("missing.pem"), "{err}");
    std::fs::write(place.path().join("sternpost.toml"), [0xff, 0xfe]).unwrap();
    assert_eq!(said(&sternpost(place.path(), &["config", "check"])).0, 2);
}

#[test]
fn a_command_that_finds_nothing_names_what_it_has_read_and_no_backup_of_nothing_is_made() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("s.toml");
    std::fs::write(&file, "[dns]\nservers = [\"127.0.0.1:1\"]\n").unwrap();
    let run = |words: &[&str]| said(&sternpost(place.path(), &[&["--config", "s.toml"], words].concat()));
    let (code, out, err) = run(&["backup", "copy.db"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("there is no store to back up at") && err.contains("s.toml"), "{err}");
    assert!(!place.path().join("copy.db").exists() && !place.path().join("sternpost.db").exists());
    for words in [&["plan"][..], &["apply"], &["status"], &["summary"], &["export", "--for", "nginx", "x"]] {
        let (code, _, err) = run(words);
        assert_eq!(code, 2, "{words:?} {err}");
        let store = place.path().join("sternpost.db");
        let store = store.file_name().unwrap().to_str().unwrap();
        assert!(err.contains("/s.toml") && err.contains(store), "{words:?} {err}");
    }
    let (_, out, _) = run(&["domains", "list"]);
    assert!(out.contains("No domains yet, in") && out.contains("/s.toml"), "{out}");
    let (_, out, _) = run(&["reports", "list"]);
    assert!(out.contains("No reports, in") && out.contains("sternpost.db"), "{out}");
}

#[test]
fn no_store_is_made_by_looking_and_none_before_the_domain_and_the_files_of_a_command_were_found() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("sternpost.toml"), "[dns]\nservers = [\"127.0.0.1:1\"]\n").unwrap();
    for (words, expected) in [
        (&["reports", "import", "nothere"][..], "nothere can't be imported"),
        (&["reports", "collect", "nothere"], "nothere can't be read"),
        (&["reports", "collect", "--exim-log", "nothere"], "nothere can't be read"),
        (&["plan"], "no domains"),
        (&["plan", "a.example"], "a.example is not a known domain"),
        (&["apply", "a.example"], "a.example is not a known domain"),
        (&["promote", "a.example"], "a.example is not a known domain"),
        (&["hold", "a.example", "--reason", "r"], "a.example is not a known domain"),
        (&["omit", "a.example", "ns.example", "--reason", "r"], "a.example is not a known domain"),
        (
            &["excuse", "a.example", "certificate-expired", "mx.example", "--reason", "r"],
            "a.example is not a known domain",
        ),
        (&["undo", "a.example", "--reason", "r"], "a.example is not a known domain"),
        (&["domains", "remove", "a.example"], "a.example is not a known domain"),
        (&["domains", "set", "a.example", "--mode", "none"], "a.example is not a known domain"),
        (&["summary"], "no domains"),
        (&["reports", "drop", "1"], "no such report"),
        (&["reports", "drop", "--domain", "a.example"], ""),
        (&["reports", "quarantine", "drop", "1"], ""),
        (&["reports", "quarantine", "retry"], ""),
        (&["reports", "send", "2026-11-20"], ""),
        (&["dashboard", "remove", "bob"], "no such user"),
        (&["dashboard", "remove-second-factor", "bob"], "no such user has a second factor"),
    ] {
        let (code, out, err) = said(&sternpost(place.path(), words));
        assert!(err.contains(expected) && (code != 0 || expected.is_empty()), "{words:?} {code} {out}{err}");
        let left: Vec<_> =
            std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["sternpost.toml"], "{words:?} {out}{err}");
    }
}

#[test]
fn a_list_that_does_not_exist_is_named_before_any_resolver() {
    let place = tempfile::tempdir().unwrap();
    let text = "[dns]\nservers = [\"127.0.0.1:1\"]\n";
    std::fs::write(place.path().join("sternpost.toml"), text).unwrap();
    let (code, _, err) = said(&sternpost(place.path(), &["check", "--from", "nothere"]));
    assert!(code == 2 && err.contains("nothere can't be read") && !err.contains("127.0.0.1"), "{code} {err}");
}

#[test]
fn a_name_of_a_record_is_not_taken_for_a_mail_domain() {
    for words in [
        &["check", "mta-sts.example.org"][..],
        &["init", "_mta-sts.example.org"],
        &["query", "_smtp._tls.example.org"],
    ] {
        let (code, out, err) = run(words);
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}");
        assert!(err.contains("Did you mean example.org?"), "{err}");
    }
}

#[test]
fn config_check_finds_the_files_that_serve_would_stop_at() {
    let place = tempfile::tempdir().unwrap();
    let text = "[dns]\nservers = [\"127.0.0.1:1\"]\n[reporter]\nfrom = \"a@b.example\"\ndkim = { selector = \"k\", key_file = \"none.pem\" }\n";
    std::fs::write(place.path().join("sternpost.toml"), text).unwrap();
    let (code, out, _) = said(&sternpost(place.path(), &["config", "check"]));
    assert!(code == 1 && out.contains("none.pem can't be read") && out.contains("can't start"), "{out}");
    let (code, _, err) = said(&sternpost(place.path(), &["serve"]));
    assert!(code == 2 && err.contains("none.pem can't be read"), "{err}");
}

#[test]
fn config_shows_where_each_value_comes_from() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("sternpost.toml"), "[dns]\nservers = [\"127.0.0.1:53\"]\n").unwrap();
    let (code, out, _) = said(&sternpost(place.path(), &["config", "show", "--json"]));
    assert_eq!(code, 0);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(shown["keys"]["dns.servers"]["value"][0], "127.0.0.1:53");
    assert_eq!(shown["keys"]["dns.servers"]["origin"], "sternpost.toml:2");
    assert_eq!(shown["keys"]["dns.dnssec"]["origin"], "default");
}

#[test]
fn a_dead_network_ends_with_3_and_is_not_taken_for_an_answer() {
    let place = tempfile::tempdir().unwrap();
    // Nothing listens there, so each question is refused at once.
    std::fs::write(place.path().join("sternpost.toml"), "[dns]\nservers = [\"127.0.0.1:1\"]\n").unwrap();
    let (code, out, err) = said(&sternpost(place.path(), &["check", "example.org", "--json"]));
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("the DNS resolver does not answer: 127.0.0.1:1 ([dns] servers)"), "{err}");
    assert_eq!(said(&sternpost(place.path(), &["query", "example.org"])).0, 3);
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let program = env!("CARGO_BIN_EXE_sternpost");
    for words in ["lab list", "check --list", "config limits"] {
        let line = format!("set -o pipefail; {program} {words} | true");
        let output = Command::new("bash").args(["-c", &line]).output().unwrap();
        let (code, _, err) = said(&output);
        assert_eq!((code, err.as_str()), (0, ""), "{words}");
    }
}

#[test]
fn the_lab_lists_its_cases() {
    let (code, out, _) = run(&["lab", "list", "--json"]);
    assert_eq!(code, 0);
    let listed: Value = serde_json::from_str(&out).unwrap();
    // All that `lab serve` runs: also those with defects that only the check detects.
    assert_eq!(
        listed["cases"].as_array().unwrap().len(),
        lab::cases::all().len() + lab::oddities::all().len()
    );
    let (code, out, _) = run(&["lab", "list"]);
    assert_eq!(code, 0);
    assert!(out.contains("good-enforce.test") && !out.contains('\u{1b}'), "{out}");
}

/// A resolver that says of every name that it does not exist, as those of some networks do until one has signed in.
fn captive() -> std::net::SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Some(query) = buffer.get_mut(..length).filter(|query| query.len() > 12) else { continue };
            // Response, recursion available, NXDOMAIN; the question stays, and the records after it are dropped.
            query[2] |= 0x80;
            query[3] = 0x83;
            query[6..12].fill(0);
            let question =
                query[12..].iter().position(|byte| *byte == 0).map_or(query.len(), |at| 12 + at + 5);
            let _ = socket.send_to(&query[..question], from);
        }
    });
    address
}

#[test]
fn a_resolver_that_denies_everything_is_named_and_no_domain_is_accused() {
    let place = tempfile::tempdir().unwrap();
    let resolver = captive();
    std::fs::write(place.path().join("sternpost.toml"), format!("[dns]\nservers = [\"{resolver}\"]\n"))
        .unwrap();
    for words in
        [&["check", "example.org"][..], &["check", "--json", "example.org"], &["init", "example.org"]]
    {
        let (code, out, err) = said(&sternpost(place.path(), words));
        assert_eq!(code, 3, "{words:?}: {out}{err}");
        assert!(!out.contains("no domain") && !out.contains("does not exist"), "{out}");
        assert!(err.contains(&format!("{resolver} ([dns] servers) gives false answers")), "{err}");
    }
}

#[test]
fn config_check_finds_what_would_not_start() {
    let place = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        std::fs::write(place.path().join("sternpost.toml"), text).unwrap();
        said(&sternpost(place.path(), &["config", "check"]))
    };
    let (code, out, _) = check("[metrics]\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!((code, out.as_str()), (0, "sternpost.toml is valid.\n"));
    let (code, out, _) = check("store = \"postgres://u@h/d?sslmod=disable\"\n");
    assert!(code == 2 && out.is_empty(), "{code} {out}");
    let (_, _, err) = said(&sternpost(place.path(), &["config", "check"]));
    assert!(err.contains("only host, port, user,") && err.contains("Did you mean sslmode?"), "{err}");
    let (code, out, _) = check("newer_key = 1\n[metrics]\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(code, 0);
    assert!(out.contains("line 1: newer_key is not known to this release and is ignored"), "{out}");
    let twice = "[metrics]\nlisten = \"127.0.0.1:8462\"\n[collector]\nsocket = \"tls.sock\"\nhttp = \"127.0.0.1:8462\"\n";
    let (code, out, _) = check(twice);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("collector.http is 127.0.0.1:8462 and metrics.listen is 127.0.0.1:8462"), "{out}");
    assert!(out.contains("`sternpost serve` can't start with it"), "{out}");
    let (code, _, err) = said(&sternpost(place.path(), &["serve"]));
    assert!(code == 2 && err.contains("both are the same address"), "{code} {err}");
    let (code, out, err) = run(&["help", "--help"]);
    assert!(code == 0 && out.contains("Usage"), "{out}{err}");
}

#[test]
fn invitations_say_what_they_grant_are_listed_and_end() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("sternpost.toml"), "[dashboard]\nurl = \"https://a.example/s\"\n")
        .unwrap();
    let dashboard = |words: &[&str]| said(&sternpost(place.path(), &[&["dashboard"], words].concat()));
    let (code, link, grants) = dashboard(&["invite", "ada"]);
    assert!(code == 0 && link.starts_with("https://a.example/s/welcome/"), "{link}{grants}");
    assert!(grants.contains("creates the user ada with the role operator"), "{grants}");
    assert!(
        grants.contains("It is valid until ")
            && grants.contains("An earlier link for ada is no longer valid"),
        "{grants}"
    );
    dashboard(&["invite", "zoe", "--role", "operator"]);
    let (_, _, grants) = dashboard(&["invite", "zoe", "--role", "reader"]);
    assert!(grants.contains("with the role reader"), "{grants}");
    let (_, listed, _) = dashboard(&["users"]);
    assert!(
        listed.contains("ada (invited, operator, until ") && listed.contains("zoe (invited, reader, until "),
        "{listed}"
    );
    let (_, listed, _) = dashboard(&["users", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let invitations = listed["invitations"].as_array().unwrap();
    let roles: Vec<_> = invitations.iter().map(|one| (one["name"].as_str(), one["role"].as_str())).collect();
    assert_eq!(roles, [(Some("ada"), Some("operator")), (Some("zoe"), Some("reader"))]);
    assert!(invitations.iter().all(|one| one["expires_at"].as_str().unwrap().ends_with('Z')), "{listed}");
    assert_eq!((&listed["schema"], &listed["users"]), (&1.into(), &Value::Array(vec![])));
    let (code, ended, _) = dashboard(&["remove", "zoe"]);
    assert!(code == 0 && ended.contains("The invitation for zoe has ended"), "{ended}");
    assert_eq!(dashboard(&["remove", "zoe"]).0, 1);
    assert_eq!(dashboard(&["remove-second-factor", "ada"]).0, 1);
    let (_, listed, _) = dashboard(&["users"]);
    assert!(listed.contains("ada") && !listed.contains("zoe"), "{listed}");
    // Scripts may have the earlier name.
    assert_eq!(dashboard(&["people"]), (0, listed, String::new()));
}
