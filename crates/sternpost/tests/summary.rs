//! `sternpost summary` as docs/receiving.md shows it, and DMARC reports from the command line.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod patience;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

fn run(place: &Path, words: &[&str]) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_sternpost")).current_dir(place).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json_of(place: &Path, words: &[&str]) -> Value {
    let (_, out, err) = run(place, words);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

/// A place with two domains; nothing listens where names would be asked.
fn place(more: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let config = format!(
        "[dns]\nservers = [\"127.0.0.1:1\"]\n[[domain]]\nname = \"a.example\"\n[[domain]]\nname = \"b.example\"\nmode = \"none\"\n{more}"
    );
    std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
    place
}

/// The start of a UTC day so many days ago, as Unix time.
fn days_ago(days: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    now / DAY * DAY - days * DAY
}

fn date(second: u64) -> String {
    jiff::Timestamp::from_second(second.try_into().unwrap()).unwrap().strftime("%Y-%m-%d").to_string()
}

const SUMMARY: &str = "\
Subject: [sternpost] 2026-11-15 to 2026-11-21: 1 of 2 domains need action

TLS reports about your 2 domains, 2026-11-15 to 2026-11-21 (UTC).

a.example (not set up): 12 sessions, 2 failed
  Failure: big.example reported an expired certificate at mx1.a.example (192.0.2.1), 2 times
  To do: sternpost apply a.example

b.example (not set up): no verified report
";

#[test]
fn the_summary_says_what_failed_and_what_to_do() {
    patience::away_from_midnight();
    let place = place("");
    let day = date(days_ago(3));
    let report = json!({ "organization-name": "Big", "date-range": { "start-datetime": format!("{day}T00:00:00Z"),
        "end-datetime": format!("{day}T23:59:59Z") }, "contact-info": "tls@big.example", "report-id": "1",
        "policies": [{ "policy": { "policy-type": "sts", "policy-string": ["version: STSv1"],
        "policy-domain": "a.example", "mx-host": ["mx1.a.example"] }, "summary":
        { "total-successful-session-count": 10, "total-failure-session-count": 2 }, "failure-details": [
        { "result-type": "certificate-expired", "receiving-mx-hostname": "mx1.a.example",
          "receiving-ip": "192.0.2.1", "failed-session-count": 2 }] }] });
    std::fs::write(place.path().join("r.json"), report.to_string()).unwrap();
    let (from, to) = (date(days_ago(8)), date(days_ago(2)));
    let (code, quiet, err) = run(place.path(), &["summary"]);
    assert!(code == 0 && quiet.contains("a.example (not set up): no verified report"), "{quiet}{err}");
    assert_eq!(run(place.path(), &["reports", "import", "--trusted", "r.json"]).0, 0);
    let (code, out, err) = run(place.path(), &["summary"]);
    let expected = SUMMARY.replace("2026-11-15", &from).replace("2026-11-21", &to);
    assert_eq!((code, out), (0, expected), "{err}");
    let summary = json_of(place.path(), &["summary", "--json"]);
    assert_eq!(summary["schema"], 1);
    let domain = &summary["summary"]["domains"][0];
    assert_eq!((&domain["successful"], &domain["failed"]), (&json!(10), &json!(2)));
    assert_eq!(domain["next"], json!({ "who": "operator", "what": "sternpost apply a.example" }));
}

#[test]
fn dmarc_reports_are_left_alone_by_name_or_imported_once_and_listed() {
    patience::away_from_midnight();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/dmarc");
    let samples: PathBuf = samples.canonicalize().unwrap();
    let folder = samples.to_str().unwrap();
    let off = place("[inbox]\n");
    let (code, out, err) = run(off.path(), &["reports", "import", folder]);
    assert!(code == 0 && out.contains("7 DMARC reports among them: `inbox.dmarc = true`"), "{out}{err}");
    let told = json_of(off.path(), &["reports", "import", "--json", folder]);
    assert_eq!(
        (&told["left_alone"], &told["dmarc_left_alone"], &told["quarantined"]),
        (&json!(7), &json!(7), &json!(0))
    );

    let on = place("[inbox]\ndmarc = true\n");
    let (code, out, _) = run(on.path(), &["reports", "list", "--dmarc"]);
    assert!(code == 0 && out.contains("No DMARC reports"), "{out}");
    let told = json_of(on.path(), &["reports", "import", "--json", folder]);
    assert_eq!(
        (&told["dmarc"], &told["left_alone"], &told["quarantined"]),
        (&json!(7), &json!(0), &json!(0))
    );
    let told = json_of(on.path(), &["reports", "import", "--json", folder]);
    assert_eq!((&told["dmarc"], &told["dmarc_duplicates"]), (&json!(0), &json!(7)));

    let recent = std::fs::read_to_string(samples.join("google.xml")).unwrap();
    let recent = recent
        .replace("1763596800", &days_ago(1).to_string())
        .replace("1763683199", &days_ago(0).to_string());
    std::fs::write(on.path().join("recent.xml"), recent).unwrap();
    assert_eq!(json_of(on.path(), &["reports", "import", "--trusted", "--json", "recent.xml"])["dmarc"], 1);
    let listed = json_of(on.path(), &["reports", "list", "--dmarc", "--domain", "harbour.example", "--json"]);
    let rows = listed["dmarc"].as_array().unwrap();
    let first = json!({ "day": format!("{}T00:00:00Z", date(days_ago(1))), "domain": "harbour.example",
        "source": "192.0.2.25", "dkim": "pass", "spf": "pass", "disposition": "none", "verified": true,
        "messages": 41, "reports": 1 });
    assert_eq!((&listed["schema"], rows.len(), &rows[0]), (&json!(1), 2, &first));
    let (_, out, _) = run(on.path(), &["reports", "list", "--dmarc"]);
    assert!(out.contains("2001:db8::25") && !out.contains("unverified"), "{out}");
}
