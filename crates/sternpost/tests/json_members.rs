//! The JSON of commands, for programs: each member that a command prints is in its documentation. The store has what makes
//! optional members appear. The plan and the outcome of `apply` are held against docs/receiving.md in `apply.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "json_members/documented.rs"]
mod documented;

use documented::{entry, undocumented};
use formats::report::{DateRange, pack};
use formats::{DomainName, Mode, MxPattern, PolicyId};
use jiff::{SignedDuration, Timestamp};
use receiver::rollout::RolloutState;
use receiver::rollout::guard::{Alert, AlertKind};
use receiver::rollout::state::{InMode, PublishedPolicy, RemovedHost, UnusedPattern};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use store::Store;

fn run(place: &Path, words: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sternpost")).current_dir(place).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json_of(place: &Path, words: &[&str]) -> Value {
    let (_, out, err) = run(place, words);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}{err}"))
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// A state with every member. It is written in full, so that a new member is added here, and has to be documented.
fn rollout(now: Timestamp) -> RolloutState {
    let pattern = MxPattern::parse("mx1.a.example").unwrap();
    let id = |text: &str| PolicyId::parse(text).unwrap();
    let later = now + SignedDuration::from_hours(24);
    RolloutState {
        mode: Some(InMode { mode: Mode::Testing, since: now - SignedDuration::from_hours(24 * 20) }),
        published: vec![PublishedPolicy {
            mode: Mode::Testing,
            max_age: 86_400,
            mx: vec![pattern.clone()],
            until: Some(later),
            assumed: true,
        }],
        announce_due: true,
        offered: Some(id("2")),
        last_id: Some(id("1")),
        abandoned: Some(id("3")),
        approved: Some(now),
        approved_mx: vec![pattern.clone()],
        is_lapsed: true,
        is_held: true,
        is_given_up: true,
        time_line: serde_json::from_value(
            json!({ "at": now, "boots": [{ "id": "x", "at": now }], "behind": 5 }),
        )
        .unwrap(),
        mx: vec![name("mx1.a.example")],
        mx_ttl: 300,
        gone: vec![RemovedHost { host: name("mx2.a.example"), until: later }],
        unused: vec![UnusedPattern { pattern, since: now }],
    }
}

async fn fill(file: &Path) {
    let store = Store::open(file, store::Tenant::FIRST).await.unwrap();
    let (now, a) = (Timestamp::now(), name("a.example"));
    store.put_rollout(&a, &rollout(now)).await.unwrap();
    let decision = json!({ "reason": "known", "who": "ada", "at": now });
    let with = |members: Value| {
        let mut all = decision.clone();
        all.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        all
    };
    let decisions = json!({
        "held": decision,
        "excused": [with(json!({ "cause": { "result": "validation-failure", "host": "mx1.a.example" } }))],
        "omitted": [with(json!({ "place": "ns1.example.net" }))]
    });
    store.put_decisions(&a, &decisions).await.unwrap();
    let looked = json!({
        "servers": [{ "server": "ns1.example.net", "address": "192.0.2.53", "name": "_mta-sts.a.example", "kind": "TXT",
            "shows": "x", "fault": "y", "fault_kind": "late", "counts": true }],
        "addresses": [{ "address": "192.0.2.10", "shows": "x", "fault": "y", "counts": true }],
        "unmailed": "null-mx"
    });
    store.put_last_look(&a, now, &looked).await.unwrap();
    store.journal(&a, now, "planner", "announced").await.unwrap();
    let alert = Alert {
        kind: AlertKind::MxUnverified,
        subject: "mx1.a.example".into(),
        what: "x".into(),
        consequence: "x".into(),
        remedy: "x".into(),
        cause: Some("mx1.a.example".into()),
        domains: vec!["a.example".into()],
    };
    let none = None::<store::notices::NewNotice<()>>;
    store.raise(&a, "mx-unverified", "mx1.a.example", now, &alert, none).await.unwrap();
    store.put_domain(&name("broken.example"), &"no settings").await.unwrap();
    store.add_strangers(&[(name("left.example"), 2)], now).await.unwrap();
    let mut kept = receiver::domain::DomainSpec::new(name("kept.example"));
    kept.challenge = serde_json::from_value(json!("tls-alpn-01")).ok();
    store.put_domain(&kept.name.clone(), &kept).await.unwrap();
    let sent = store::outgoing::NewOutgoing {
        day: DateRange::utc_day(now).start,
        domain: name("taken.example"),
        report_id: "1@ours.example".to_owned(),
        packed: pack(b"{}").unwrap(),
        successful: 5,
        failed: 1,
        due: now,
    };
    store.put_outgoing(&[sent]).await.unwrap();
    store.close().await;
}

/// A report as some senders write it, with a deviation from RFC 8460.
fn report() -> Value {
    let day = DateRange::utc_day(Timestamp::now() - SignedDuration::from_hours(24));
    json!({ "organization-name": "Big", "date-range": { "start-datetime": day.start.to_string(), "end-datetime": day.end.to_string() },
        "contact-info": "tls@big.example", "report-id": "r1", "policies": [{ "policy": { "policy-type": "sts",
        "policy-string": "version: STSv1", "policy-domain": "a.example", "mx-host": "mx1.a.example" },
        "summary": { "total-successful-session-count": 8, "total-failure-session-count": 2 }, "failure-details": [{
        "result-type": "certificate-expired", "sending-mta-ip": "192.0.2.9", "receiving-mx-hostname": "mx1.a.example",
        "receiving-mx-helo": "mx1", "receiving-ip": "192.0.2.1", "failed-session-count": 2,
        "additional-information": "x", "failure-reason-code": "y" }] }] })
}

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let config = "[dns]\nservers = [\"127.0.0.1:1\"]\n[inbox]\ndmarc = true\n[dashboard]\n[[domain]]\nname = \"a.example\"\nrua = [\"mailto:r@a.example\"]\ntags = [\"shop\"]\n";
    std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(fill(&place.path().join("sternpost.db")));
    place
}

#[test]
fn every_member_of_the_json_of_a_command_is_in_its_documentation() {
    let place = place();
    let here = place.path();
    std::fs::write(here.join("big.example!a.example!1!2.json"), report().to_string()).unwrap();
    std::fs::write(here.join("bad.example!a.example!1!2.json"), "{\"organization-name\":").unwrap();
    let imported = [
        "reports",
        "import",
        "--trusted",
        "--json",
        "big.example!a.example!1!2.json",
        "bad.example!a.example!1!2.json",
    ];
    let status =
        entry("docs/receiving.md", "### `status --json`") + &entry("docs/reports.md", "| `status --json`");
    let of_reports = |command: &str| entry("docs/reports.md", &format!("| `{command}"));
    let listed = of_reports("reports list --json");
    for (words, documented) in [
        (&imported[..], of_reports("reports import --json")),
        (&["status", "--json"], status),
        (
            &["summary", "--json"],
            entry("docs/receiving.md", "`--json` prints one line: `{\"schema\":1,\"summary\""),
        ),
        (&["domains", "list", "--json"], entry("docs/receiving.md", "### `domains list --json`")),
        (&["domains", "strangers", "--json"], entry("docs/receiving.md", "### `domains strangers --json`")),
        (&["reports", "list", "--json"], listed.clone()),
        (&["reports", "list", "--sent", "--json"], of_reports("reports list --sent --json")),
        (&["reports", "show", "1", "--json"], listed + &of_reports("reports show ID --json")),
        (&["reports", "quarantine", "list", "--json"], of_reports("reports quarantine list --json")),
        (&["lab", "list", "--json"], entry("docs/lab.md", "others have defects")),
    ] {
        let told = json_of(here, words);
        assert_eq!(undocumented(&told, &documented), [""; 0], "{words:?}: {told}");
    }
    let (code, _, err) = run(here, &["dashboard", "invite", "ada", "--role", "operator"]);
    assert_eq!(code, 0, "{err}");
    let people = json_of(here, &["dashboard", "users", "--json"]);
    assert!(people["invitations"][0]["name"] == "ada", "{people}");
    assert_eq!(undocumented(&people, &entry("docs/reports.md", "| `sternpost dashboard users`")), [""; 0]);
}

#[test]
fn a_domain_that_fails_alone_is_in_the_json_and_one_that_can_not_be_read_is_named() {
    let place = place();
    let (code, out, err) = run(place.path(), &["apply", "--json", "--patience", "0", "a.example"]);
    let told: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    assert_ne!(code, 0);
    assert_eq!(
        (told["outcomes"].as_array().unwrap().len(), told["failed"].as_array().unwrap().len()),
        (0, 1)
    );
    assert!(err.starts_with("error: "), "{err}");
    assert_eq!(undocumented(&told, &entry("docs/receiving.md", "### `apply --json`")), [""; 0]);
    let (code, _, err) = run(place.path(), &["apply", "--patience", "0"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("the settings of broken.example can't be read"), "{err}");
}

#[test]
fn a_domain_of_the_store_is_not_proposed_for_the_file() {
    let place = place();
    let (code, out, err) = run(place.path(), &["init", "kept.example"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("kept.example is in the store already"), "{err}");
    assert!(err.contains("sternpost domains show kept.example"), "{err}");
}
