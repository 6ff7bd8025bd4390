//! Reports taken in as their operator does it: real ones with a table made by hand, twice, in every wrapping,
//! hostile ones, and with the program killed again and again.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod mailboxes;
mod patience;
mod ports;

use formats::limits::{INBOX_CONNECTIONS, INBOX_CONNECTIONS_PER_CLIENT, INBOX_POSTS_PER_CLIENT};
use formats::report::pack;
use patience::{PATIENCE, until, until_ready};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn command(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    command.current_dir(place).args(words);
    command
}

fn run(place: &Path, words: &[&str]) -> (i32, String, String) {
    let output = command(place, words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn import(place: &Path, words: &[&str]) -> Value {
    let (_, out, err) = run(place, &[&["reports", "import", "--json"], words].concat());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

fn listed(place: &Path) -> Vec<Value> {
    let (_, out, _) = run(place, &["reports", "list", "--limit", "100000", "--json"]);
    let all: Value = serde_json::from_str(&out).unwrap();
    all["reports"].as_array().unwrap().clone()
}

/// A place with a configuration; nothing listens where names would be asked.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let config = "[dns]\nservers = [\"127.0.0.1:1\"]\n[[domain]]\nname = \"a.example\"\n";
    std::fs::write(place.path().join("sternpost.toml"), config).unwrap();
    place
}

fn report(id: &str, domain: &str, ok: u64, failed: u64) -> Value {
    let details = match failed {
        0 => json!([]),
        _ => json!([{ "result-type": "certificate-expired", "receiving-mx-hostname": format!("mx1.{domain}"),
            "receiving-ip": "192.0.2.1", "sending-mta-ip": "192.0.2.9", "failed-session-count": failed }]),
    };
    json!({ "organization-name": "Big", "date-range": { "start-datetime": "2026-11-20T00:00:00Z",
        "end-datetime": "2026-11-20T23:59:59Z" }, "contact-info": "tls@big.example", "report-id": id,
        "policies": [{ "policy": { "policy-type": "sts", "policy-string": ["version: STSv1"],
        "policy-domain": domain, "mx-host": [format!("mx1.{domain}")] }, "summary":
        { "total-successful-session-count": ok, "total-failure-session-count": failed }, "failure-details": details }] })
}

fn write(place: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = place.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Whom a report is about, from whom, sessions that worked and that failed, kinds of failures, and whether
/// something is odd: read off the files by hand.
const BY_HAND: [(&str, &str, &str, u64, u64, usize, bool); 5] = [
    ("google.eml", "google.com", "harbour.example", 48, 0, 0, false),
    ("microsoft.json", "microsoft.com", "harbour.example", 4, 0, 0, true),
    ("mail.ru.json", "corp.mail.ru", "harbour.example", 0, 1, 1, true),
    ("rfc8460.json", "company-x.example", "company-y.example", 5326, 303, 3, true),
    ("postfix.json", "sender.example", "harbour.example", 2, 1, 1, true),
];

#[test]
fn reports_of_real_senders_agree_with_a_table_made_by_hand() {
    let place = place();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports");
    let told = import(place.path(), &[samples.to_str().unwrap()]);
    assert_eq!(
        (told["new"].as_u64(), told["problems"].as_array().map(Vec::len)),
        (Some(5), Some(0)),
        "{told}"
    );
    let there = listed(place.path());
    for (file, submitter, domain, ok, failed, kinds, is_odd) in BY_HAND {
        let found =
            there.iter().find(|report| report["submitter"] == submitter && report["domains"][0] == domain);
        let found = found.unwrap_or_else(|| panic!("{file} is not there: {there:?}"));
        assert_eq!(
            (found["successful"].as_u64(), found["failed"].as_u64()),
            (Some(ok), Some(failed)),
            "{file}"
        );
        assert_eq!(found["warnings"].as_u64().unwrap() > 0, is_odd, "{file}");
        let (code, out, err) = run(place.path(), &["reports", "show", &found["id"].to_string(), "--json"]);
        assert_eq!(code, 0, "{err}");
        let whole: Value = serde_json::from_str(&out).unwrap();
        let details =
            whole["policies"].as_array().unwrap().iter().map(|p| p["details"].as_array().unwrap().len());
        assert_eq!(details.sum::<usize>(), kinds, "{file}");
    }
}

/// A tar archive of these files, made by `tar`.
fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(place.path().join(name), bytes).unwrap());
    let names = files.iter().map(|(name, _)| name);
    let made = Command::new("tar").arg("-C").arg(place.path()).arg("-cf-").args(names).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

#[test]
fn rec_06_the_same_report_in_every_wrapping_counts_once() {
    let place = place();
    let json = report("1", "a.example", 5, 0).to_string();
    let packed = pack(json.as_bytes()).unwrap();
    write(place.path(), "in/big.example!a.example!1763596800!1763683199.json", &json);
    write(place.path(), "in/packed.json.gz", &packed);
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("r.json", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(json.as_bytes()).unwrap();
    write(place.path(), "in/r.zip", zip.finish().unwrap().into_inner());
    let mail =
        format!("From: tls@big.example\nSubject: r\nContent-Type: application/tlsrpt+json\n\n{json}\n");
    write(place.path(), "in/r.eml", &mail);
    let tar = pack(&tarred(&[("r.json", json.as_bytes()), ("r.eml", mail.as_bytes())])).unwrap();
    write(place.path(), "in/r.tar.gz", &tar);
    for folder in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(place.path().join("in/maildir").join(folder)).unwrap();
    }
    write(place.path(), "in/maildir/new/1", &mail);
    write(place.path(), "in/box", format!("From tls@big.example Mon\n{mail}\nFrom x Tue\n{mail}"));
    let told = import(place.path(), &["in"]);
    assert_eq!((told["new"].as_u64(), told["duplicates"].as_u64()), (Some(1), Some(8)), "{told}");
    for (piped, duplicates) in [(&packed, 1), (&tar, 2)] {
        let mut import = command(place.path(), &["reports", "import", "-", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        import.stdin.take().unwrap().write_all(piped).unwrap();
        let out = String::from_utf8(import.wait_with_output().unwrap().stdout).unwrap();
        assert!(out.contains(&format!("\"duplicates\":{duplicates},")), "{out}");
    }
    let there = listed(place.path());
    assert_eq!((there.len(), there[0]["successful"].as_u64()), (1, Some(5)));
}

/// A file with the name of a report (RFC 8460 §5.1).
const BOMB: &str = "in/b.example!a.example!1!2.json.gz";

/// More processor time than hostile input may cost, in seconds: much more than it does.
const PROCESSOR_SECONDS: u32 = 60;

#[test]
fn rec_09_what_is_hostile_is_kept_whole_with_the_reason_and_the_rest_is_taken() {
    let place = place();
    write(place.path(), BOMB, pack(&vec![b' '; 50 << 20]).unwrap());
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("bomb.json", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&vec![b' '; 50 << 20]).unwrap();
    write(place.path(), "in/bomb.zip", zip.finish().unwrap().into_inner());
    write(place.path(), "in/deep.json", format!("{{\"report-id\":1,\"policies\":{}", "[".repeat(9 << 20)));
    write(
        place.path(),
        "in/late.json",
        report("l", "a.example", 1, 0).to_string().replace("2026-11-20", "2031-11-20"),
    );
    write(
        place.path(),
        "in/old.json",
        report("o", "a.example", 1, 0).to_string().replace("2026-11-20", "2021-11-20"),
    );
    let mut many = report("m", "a.example", 0, 100_000);
    let detail = many["policies"][0]["failure-details"][0].clone();
    let details: Vec<Value> = (0..100_000)
        .map(|n| {
            let mut one = detail.clone();
            one["receiving-mx-hostname"] = json!(format!("mx{n}.a.example"));
            one["failed-session-count"] = json!(1);
            one
        })
        .collect();
    many["policies"][0]["failure-details"] = json!(details);
    write(place.path(), "in/many.json.gz", pack(many.to_string().as_bytes()).unwrap());
    let mut latin = report("x", "a.example", 1, 0).to_string().replace("Big", "B?g").into_bytes();
    latin.iter_mut().filter(|byte| **byte == b'?').for_each(|byte| *byte = 0xfc);
    write(place.path(), "in/latin.json", latin);
    let hell = "From: a@b.example\nContent-Type: multipart/mixed; boundary=a\n\n".to_owned()
        + &"--a\nContent-Type: multipart/mixed; boundary=a\n\n".repeat(20_000);
    write(place.path(), "in/hell.eml", hell);
    // By its processor time, since other tests run beside this one.
    let line =
        format!("ulimit -t {PROCESSOR_SECONDS}; exec {} reports import in", env!("CARGO_BIN_EXE_sternpost"));
    let output = Command::new("bash").current_dir(place.path()).args(["-c", &line]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (code, out, err) = (output.status.code(), text(output.stdout), text(output.stderr));
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("3 new reports"), "{out}");
    for reason in ["more than the allowed", "in the future", "2 items without a TLS report", "can't be read"]
    {
        assert!(out.contains(reason), "{reason}: {out}");
    }
    let (_, out, _) = run(place.path(), &["reports", "quarantine", "list", "--json"]);
    let there: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(there["quarantine"].as_array().unwrap().len(), 3, "{out}");
    let bytes = command(place.path(), &["reports", "quarantine", "show", "1"]).output().unwrap().stdout;
    assert_eq!(bytes, std::fs::read(place.path().join(BOMB)).unwrap());
    let (code, out, _) = run(place.path(), &["reports", "quarantine", "retry"]);
    assert!(code == 0 && out.starts_with("0 imported, 3 still can't be parsed.\n"), "{out}");
    assert!(out.contains("more than the allowed") && out.contains("in the future"), "{out}");
}

#[test]
fn n7_a_retry_tells_the_new_reason_and_remembers_what_was_trusted() {
    let place = place();
    // The future report becomes readable as soon as its day is here; the broken one never does.
    let text = report("1", "a.example", 5, 0).to_string();
    let now: jiff::Timestamp = jiff::Timestamp::now();
    let soon = (now + jiff::SignedDuration::from_hours(24 * 30)).strftime("%Y-%m-%d").to_string();
    write(place.path(), "in/r.json", text.replace("2026-11-20", &soon));
    let told = run(place.path(), &["reports", "import", "--trusted", "in", "--json"]).1;
    assert!(told.contains("\"quarantined\":1"), "{told}");
    let (_, out, _) = run(place.path(), &["reports", "quarantine", "list", "--json"]);
    let there: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&there["quarantine"][0]["trusted"], &there["usage"]["items"]), (&json!(true), &json!(1)));
    // As if a later version could read it: the stored bytes are those of a report now.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store =
            store::Store::open(&place.path().join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
        let first = store.quarantined(0, 1).await.unwrap().remove(0);
        store.release_quarantined(first.id).await.unwrap();
        for raw in [text.as_bytes(), b"{\"report-id\":"] {
            let new = store::reports::NewQuarantined {
                received_at: now,
                arrival: store::reports::Arrival::Smtp,
                source: "192.0.2.0/24",
                is_trusted: true,
                reason: "an old reason",
                raw,
            };
            let quota = store::reports::Quota { bytes: 1 << 20, items: 100 };
            store.quarantine(&new, &quota).await.unwrap();
            // It was posted to the address of a domain, which a report without a policy does not name itself.
            let unnamed = text.replace("\"policy-domain\":\"a.example\",", "");
            let unnamed = unnamed.replace("\"report-id\":\"1\"", "\"report-id\":\"posted\"");
            let (arrival, reason) =
                (store::reports::Arrival::Https, "an old reason (posted to the address of b.example)");
            let posted = store::reports::NewQuarantined { arrival, reason, raw: unnamed.as_bytes(), ..new };
            store.quarantine(&posted, &quota).await.unwrap();
        }
        store.close().await;
    });
    let (code, out, err) = run(place.path(), &["reports", "quarantine", "retry"]);
    assert!(code == 0 && out.starts_with("2 imported, 1 still can't be parsed.\n"), "{out}{err}");
    let mut there = listed(place.path());
    let posted = there.iter().position(|one| one["report_id"] == "posted").unwrap();
    assert_eq!(there.remove(posted)["domains"], json!(["b.example"]));
    assert_eq!((&there[0]["trust"], &there[0]["way"]), (&json!("trusted"), &json!("smtp")), "{there:?}");
    let (_, out, _) = run(place.path(), &["reports", "quarantine", "list"]);
    assert!(!out.contains("an old reason") && out.contains("from 192.0.2.0/24"), "{out}");
}

#[test]
fn quarantined_input_is_deleted_by_number_or_by_options_with_a_confirmation() {
    let place = place();
    for number in 0..4 {
        let name = format!("in/s{number}.example!a.example!1763683200!1763769599.json");
        write(place.path(), &name, format!("{{\"report-id\": {number}"));
    }
    run(place.path(), &["reports", "import", "in"]);
    let quarantine = |arguments: &[&str]| {
        let all = [&["reports", "quarantine"], arguments].concat();
        let (code, out, err) = run(place.path(), &all);
        (code, format!("{out}{err}"))
    };
    assert!(quarantine(&["list"]).1.contains("In quarantine: 4, with 0.0 of 256.0 MiB."));
    assert_eq!(quarantine(&["drop", "1", "2"]), (0, "Number 1 is deleted.\nNumber 2 is deleted.\n".into()));
    assert_eq!(quarantine(&["drop", "1"]).0, 1);
    assert_eq!(quarantine(&["drop"]).0, 2);
    assert_eq!(quarantine(&["drop", "--all", "3"]).0, 2);
    assert!(quarantine(&["drop", "--older-than", "1", "--yes"]).1.contains("Deleted: 0 items."));
    assert!(quarantine(&["drop", "--all"]).1.contains("2 items with 0.0 MiB would be deleted."));
    assert!(quarantine(&["drop", "--all", "--yes"]).1.contains("Deleted: 2 items."));
    assert!(quarantine(&["list"]).1.contains("The quarantine is empty."));
}

#[test]
fn received_reports_are_deleted_with_their_numbers() {
    let place = place();
    for number in 1..=5 {
        let json = report(&number.to_string(), "a.example", number, 1).to_string();
        write(place.path(), &format!("in/{number}.json"), json);
    }
    run(place.path(), &["reports", "import", "--trusted", "in"]);
    let drop = |arguments: &[&str]| {
        let (code, out, err) = run(place.path(), &[&["reports", "drop"], arguments].concat());
        (code, format!("{out}{err}"))
    };
    let total =
        || -> u64 { listed(place.path()).iter().map(|one| one["successful"].as_u64().unwrap()).sum() };
    let (code, out) = drop(&["1", "2"]);
    assert!(code == 0 && out.contains("2 reports would be deleted") && total() == 15, "{out}");
    let (code, out) = drop(&["1", "2", "--yes"]);
    assert!(code == 0 && out.contains("2 reports deleted, with their numbers."), "{out}");
    assert_eq!((listed(place.path()).len(), total()), (3, 12));
    assert_eq!(drop(&["1", "--yes"]).0, 1);
    assert_eq!(drop(&["--yes"]).0, 2);
    assert_eq!(drop(&["3", "--domain", "a.example"]).0, 2);
    assert!(drop(&["--domain", "b.example", "--yes"]).1.contains("No reports match."));
    assert!(drop(&["--before", "2026-11-20"]).1.contains("No reports match."));
    assert!(
        drop(&["--before", "2026-11-22", "--domain", "a.example", "--yes"]).1.contains("3 reports deleted")
    );
    assert!(listed(place.path()).is_empty());
    // What was deleted can be imported again.
    let told = import(place.path(), &["in"]);
    assert_eq!(told["new"].as_u64(), Some(5), "{told}");
    let (code, out, err) = run(place.path(), &["store", "compact"]);
    assert!(code == 0 && out.contains("MiB, was"), "{out}{err}");
}

fn zipped(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn every_report_in_a_mail_is_imported_and_one_that_is_broken_hides_no_other() {
    let place = place();
    let json = |id: &str, ok: u64| report(id, "a.example", ok, 0).to_string();
    let part = |json: &str| format!("--b\nContent-Type: application/tlsrpt+json; name=r.json\n\n{json}\n");
    let mail = |parts: &str| {
        format!("From: t@big.example\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n")
    };
    let two = mail(&(part(&json("1", 1)) + &part(&json("2", 2))));
    write(place.path(), "in/1.eml", &two);
    write(
        place.path(),
        "in/2.eml",
        mail(&(part(&json("3", 3)) + &part("{\"report-id\": broken") + &part(&json("4", 4)))),
    );
    let zip =
        zipped(&[("a.json", json("5", 5).as_bytes()), ("b.eml", two.replace("\"1\"", "\"6\"").as_bytes())]);
    write(place.path(), "in/3.zip", zip);
    let told = import(place.path(), &["in"]);
    assert_eq!((told["quarantined"].as_u64(), told["left_alone"].as_u64()), (Some(1), Some(0)), "{told}");
    let why = told["problems"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("2 reports are stored, but r.json: the report can't be read"), "{why}");
    let mut ids: Vec<String> =
        listed(place.path()).iter().map(|one| one["report_id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert!(["1", "2", "3", "4", "5"].iter().all(|id| ids.contains(&(*id).to_owned())), "{ids:?}");
    // The rest of the mail is still broken; what was imported counts once.
    let (_, out, _) = run(place.path(), &["reports", "quarantine", "retry"]);
    assert!(out.starts_with("0 imported, 1 still can't be parsed.\n") && out.contains("r.json"), "{out}");
}

#[test]
fn names_of_files_and_zip_members_reach_the_terminal_without_control_characters() {
    let place = place();
    let name = "x\u{1b}]0;pwned\u{7}.json";
    let broken = b"{\"report-id\": 1, \"policies\": [broken";
    write(place.path(), &format!("in/{name}"), broken);
    write(place.path(), "in/r.zip", zipped(&[(name, &broken[..30])]));
    let (code, out, _) = run(place.path(), &["reports", "import", "in"]);
    assert!(code == 1 && out.matches("]0;pwned").count() == 2, "{out}");
    assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
}

#[test]
fn an_import_copies_nothing_of_other_peoples_mail_and_files() {
    let place = place();
    let mail =
        |subject: &str, body: &str| format!("From: doctor@b.example\nSubject: {subject}\n\n{body}\n\n");
    let private = "your lab results (private)";
    write(place.path(), "in/cur/1", mail(private, "you are well"));
    write(place.path(), "in/new/2", mail("curly", "{curly} hello"));
    write(
        place.path(),
        "in/mbox",
        format!("From a Mon\n{}From b Tue\n{}", mail(private, "x"), mail(private, "y")),
    );
    write(place.path(), "in/ca.key", "-----BEGIN PRIVATE KEY-----\n");
    write(place.path(), "in/credentials.json", "{\"password\":\"x\"}");
    write(place.path(), "in/dmarc.xml.gz", pack(b"<feedback/>").unwrap());
    write(place.path(), "in/good.json", report("g", "a.example", 1, 0).to_string());
    write(
        place.path(),
        "in/export.json.gz",
        pack(b"{\"date-range\": {\"from\": 1}, \"rows\": [1]}").unwrap(),
    );
    write(place.path(), "in/bad.json", "{\"report-id\": \"1\", \"policies\": [");
    let told = import(place.path(), &["in"]);
    let counts = ["new", "left_alone", "quarantined"].map(|name| told[name].as_u64().unwrap());
    assert_eq!(counts, [1, 8, 1], "{told}");
    for file in std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.is_file() {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(private.len()).any(|at| at == private.as_bytes()), "{}", file.display());
        }
    }
    let archive = |mails: &str| {
        let words = ["reports", "import", "-", "--json"];
        let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
        let mut piped = command(place.path(), &words).stdin(stdin).stdout(stdout).spawn().unwrap();
        piped.stdin.take().unwrap().write_all(mails.as_bytes()).unwrap();
        let told: Value = serde_json::from_slice(&piped.wait_with_output().unwrap().stdout).unwrap();
        (told["left_alone"].as_u64().unwrap(), told["quarantined"].as_u64().unwrap())
    };
    let two = format!("From a Mon\n{}From b Tue\n{}", mail("1", "x"), mail("2", "y"));
    assert_eq!(archive(&two), (2, 0), "an mbox stays where it is");
    assert_eq!(archive(&mail("1", "x")), (0, 1), "a mail server has no other copy");
}

#[test]
fn no_string_of_a_report_reaches_the_terminal_as_a_command() {
    let place = place();
    let mut evil = report("\u{1b}[2J<script>", "a.example", 1, 1);
    evil["organization-name"] = json!("\u{1b}]0;owned\u{7}");
    evil["policies"][0]["failure-details"][0]["receiving-mx-hostname"] = json!("\u{1b}[31mmx");
    evil["policies"][0]["failure-details"][0]["additional-information"] = json!("\u{9b}2J\r\u{8}");
    write(place.path(), "evil.json", evil.to_string());
    import(place.path(), &["evil.json"]);
    for words in [&["reports", "list"][..], &["reports", "show", "1"]] {
        let (code, out, _) = run(place.path(), words);
        assert_eq!(code, 0);
        assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
    }
}

#[test]
fn an_import_that_is_killed_again_and_again_loses_nothing_and_counts_nothing_twice() {
    const REPORTS: u64 = 3000;
    // `SPOST_KILLS=200` for the long run.
    let kills: u64 = std::env::var("SPOST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let place = place();
    for n in 0..REPORTS {
        let json = report(&format!("r{n}"), &format!("d{}.example", n % 50), n, n % 7);
        write(place.path(), &format!("in/{n:05}.json.gz"), pack(json.to_string().as_bytes()).unwrap());
    }
    let mut seen = 0;
    for round in 0..kills {
        let mut child = command(place.path(), &["reports", "import", "in"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + (round * 37) % 120));
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 10 == 9 {
            let now = listed(place.path()).len();
            assert!(now >= seen, "what was there is gone: {seen}, {now}");
            seen = now;
        }
    }
    let told = import(place.path(), &["in"]);
    assert_eq!(told["new"].as_u64().unwrap() + told["duplicates"].as_u64().unwrap(), REPORTS, "{told}");
    let there = listed(place.path());
    let sum = |name: &str| there.iter().map(|report| report[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(there.len() as u64, REPORTS);
    assert_eq!(sum("successful"), (0..REPORTS).sum::<u64>());
    assert_eq!(sum("failed"), (0..REPORTS).map(|n| n % 7).sum::<u64>());
}

#[test]
fn typos_wrong_files_and_empty_places_are_answered_with_what_to_do() {
    let place = place();
    let (code, _, err) = run(place.path(), &["reports", "import", "nowhere"]);
    assert_eq!(code, 2);
    assert!(err.contains("nowhere can't be imported") && err.contains("`-` reads standard input"), "{err}");
    let (code, out, _) = run(place.path(), &["reports", "list"]);
    assert_eq!(code, 0);
    assert!(out.contains("sternpost reports import FILE"), "{out}");
    let (code, _, err) = run(place.path(), &["reports", "show", "7"]);
    assert_eq!(code, 1);
    assert!(err.contains("sternpost reports list"), "{err}");
    let (code, _, err) = run(place.path(), &["reports", "address"]);
    assert_eq!(code, 2);
    assert!(err.contains("http = \"/reports\""), "{err}");
    // An address on loopback is none that senders could use.
    let inside = tempfile::tempdir().unwrap();
    write(inside.path(), "sternpost.toml", "[inbox]\nhttp = \"/reports\"\n[dashboard]\n");
    let (code, out, err) = run(inside.path(), &["reports", "address"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("https: addresses only") && err.contains("url = \"https://"), "{err}");
    assert!(!out.contains("rua = "), "{out}");
    let (code, _, err) = run(place.path(), &["excuse", "a.example", "certificate-expird", "--reason", "x"]);
    assert_eq!(code, 1);
    assert!(err.contains("unknown result type"), "{err}");
    let (code, _, err) = run(place.path(), &["promote", "a.example"]);
    assert_eq!(code, 1);
    assert!(err.contains("sternpost apply a.example"), "{err}");
    let (code, _, _) = run(place.path(), &["promote", "a.example", "--force"]);
    assert_eq!(code, 2);
}

/// A session with one MAIL for each reply that is returned, from an address of this machine.
fn mails(to: &str, from: &str, count: usize) -> Vec<String> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from.parse().unwrap()).unwrap();
        let mut stream = BufReader::new(socket.connect(to.parse().unwrap()).await.unwrap());
        stream.write_all(b"HELO sender.example\r\n").await.unwrap();
        stream.write_all("MAIL FROM:<>\r\n".repeat(count).as_bytes()).await.unwrap();
        let mut replies = Vec::new();
        for _ in 0..count + 2 {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            replies.push(line);
        }
        replies.split_off(2)
    })
}

/// A running server, which ends with the value.
struct Serving(std::process::Child);

impl Serving {
    /// Starts `serve` with this configuration, and waits until it is ready.
    fn start(place: &Path, config: &str) -> Self {
        std::fs::write(place.join("sternpost.toml"), config).unwrap();
        let log = place.join("log");
        let file = std::fs::File::create(&log).unwrap();
        let mut serving = Self(command(place, &["serve"]).stderr(file).spawn().unwrap());
        until_ready(&mut serving.0, &log);
        serving
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A connection from an address of this machine.
fn connected(to: &str, from: &str) -> TcpStream {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(to.parse().unwrap()).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The first line that the server sends.
fn first_line(stream: &TcpStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[test]
fn strangers_who_hold_all_smtp_connections_hold_up_neither_each_other_nor_lmtp() {
    let (place, smtp, lmtp) = (place(), ports::unused().to_string(), ports::unused().to_string());
    let config = format!(
        "[dns]\nservers = [\"127.0.0.1:1\"]\n[inbox]\naddresses = [\"r@a.example\"]\nname = \"mx.a.example\"\n\
         smtp = [\"{smtp}\"]\nlmtp = [\"{lmtp}\"]\n"
    );
    let _serving = Serving::start(place.path(), &config);
    let mut held = Vec::new();
    let mut open = |from: &str| {
        let stream = connected(&smtp, from);
        let line = first_line(&stream);
        held.push(stream);
        line
    };
    for number in 1..=INBOX_CONNECTIONS / INBOX_CONNECTIONS_PER_CLIENT {
        let from = format!("127.0.{number}.1");
        for _ in 0..INBOX_CONNECTIONS_PER_CLIENT {
            assert!(open(&from).starts_with("220"));
        }
        assert!(open(&from).starts_with("421 4.7.0"));
    }
    assert!(open("127.0.200.1").starts_with("421 4.3.2"));
    assert!(first_line(&connected(&lmtp, "127.0.0.1")).starts_with("220"));
    held.clear();
    until("there is room again", || first_line(&connected(&smtp, "127.0.200.1")).starts_with("220"));
}

/// The head of a response, in lower case.
fn head(stream: &TcpStream) -> String {
    exact_head(stream).to_ascii_lowercase()
}

fn exact_head(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).map(|line| line + "\n").collect()
}

#[test]
fn reports_by_post_have_a_rate_and_slow_ones_hold_up_neither_the_pages_nor_others() {
    let (place, at) = (place(), ports::unused().to_string());
    let config = format!(
        "[dns]\nservers = [\"127.0.0.1:1\"]\n[inbox]\nhttp = \"/in\"\nmessages_per_minute = 20\n\
         [dashboard]\nlisten = [\"{at}\"]\n"
    );
    let _serving = Serving::start(place.path(), &config);
    // `reports address` wants a URL that the internet reaches.
    let secret = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store =
            store::Store::open(&place.path().join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
        store.secret("reports", "not set").await.unwrap()
    });
    let path = format!("/in/{secret}");
    let post = |from: &str, length: usize, body: &str| {
        let mut stream = connected(&at, from);
        let text = format!("POST {path} HTTP/1.1\r\nhost: {at}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let slow: Vec<TcpStream> = (0..INBOX_POSTS_PER_CLIENT).map(|_| post("127.0.0.2", 100, "{")).collect();
    // The slow ones may still be on their way.
    let refused = loop {
        let answer = head(&post("127.0.0.2", 0, ""));
        if !answer.starts_with("http/1.1 400") {
            break answer;
        }
    };
    assert!(refused.starts_with("http/1.1 429") && refused.contains("retry-after: 60"), "{refused}");
    let body = report("1", "a.example", 5, 0).to_string();
    let stored = head(&post("127.0.0.3", body.len(), &body));
    assert!(stored.starts_with("http/1.1 201"), "{stored}");
    let mut page = connected(&at, "127.0.0.2");
    page.write_all(format!("GET /sign-in HTTP/1.1\r\nhost: {at}\r\n\r\n").as_bytes()).unwrap();
    assert!(head(&page).starts_with("http/1.1 200"));
    drop(slow);
    let refused = loop {
        let answer = head(&post("127.0.0.3", body.len(), &body));
        if !answer.starts_with("http/1.1 200") {
            break answer;
        }
    };
    assert!(refused.starts_with("http/1.1 429") && refused.contains("retry-after: 60"), "{refused}");
}

#[test]
fn one_address_begins_so_many_messages_a_minute_by_smtp_and_others_have_their_share() {
    let (place, at) = (place(), ports::unused().to_string());
    let config = format!(
        "[dns]\nservers = [\"127.0.0.1:1\"]\n[inbox]\naddresses = [\"r@a.example\"]\nname = \"mx.a.example\"\n\
         smtp = [\"{at}\"]\nmessages_per_minute = 2\n"
    );
    let serving = Serving::start(place.path(), &config);
    let first = mails(&at, "127.0.0.2:0", 3);
    let again = mails(&at, "127.0.0.2:0", 1);
    let other = mails(&at, "127.0.0.3:0", 1);
    drop(serving);
    assert!(first[..2].iter().all(|reply| reply.starts_with("250")), "{first:?}");
    assert!(first[2].starts_with("450 4.7.1") && again[0].starts_with("450"), "{first:?} {again:?}");
    assert!(other[0].starts_with("250"), "{other:?}");
}

#[test]
fn n1_one_report_of_many_huge_counts_breaks_no_list_and_can_be_removed() {
    let (place, at) = (place(), ports::unused().to_string());
    let mut huge = report("huge", "a.example", 1 << 53, 1 << 53);
    huge["policies"] = json!(vec![huge["policies"][0].clone(); 1024]);
    let packed = pack(huge.to_string().as_bytes()).unwrap();
    assert!(packed.len() < 8192, "{}", packed.len());
    write(place.path(), "in/huge.json.gz", &packed);
    write(place.path(), "in/good.json", report("good", "a.example", 5, 0).to_string());
    for trusted in [&[][..], &["--trusted"]] {
        let told = import(place.path(), &[trusted, &["in"]].concat());
        assert_eq!(told["problems"], json!([]), "{told}");
        for words in [
            &["status"][..],
            &["status", "--json"],
            &["reports", "list"],
            &["reports", "list", "--domain", "a.example"],
            &["reports", "list", "--from", "big.example"],
            &["reports", "show", "1"],
            &["summary"],
            &["plan", "a.example"],
        ] {
            let (code, out, err) = run(place.path(), words);
            // `plan` finds no resolver.
            assert!(code == 0 || words[0] == "plan", "{words:?}: {out}{err}");
            assert!(!err.contains("overflow") && !err.contains("database"), "{words:?}: {err}");
        }
    }
    let config = format!(
        "[dns]\nservers = [\"127.0.0.1:1\"]\n[dashboard]\nlisten = [\"{at}\"]\n[[domain]]\nname = \"a.example\"\n"
    );
    let serving = Serving::start(place.path(), &config);
    let link = std::fs::read_to_string(place.path().join("dashboard-link")).unwrap();
    let link = link.trim().split_once(&at).unwrap().1.to_owned();
    let form = "password=correct-horse-battery&again=correct-horse-battery";
    let ask = |line: &str, more: &str| {
        let mut stream = connected(&at, "127.0.0.1");
        stream.write_all(format!("{line} HTTP/1.1\r\nHost: {at}\r\n{more}").as_bytes()).unwrap();
        exact_head(&stream)
    };
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let length = form.len();
    let signed_in =
        ask(&format!("POST {link}"), &format!("{kind}\r\nContent-Length: {length}\r\n\r\n{form}"));
    let cookie = signed_in.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    for page in ["/", "/domains/a.example", "/reports", "/reports/1", "/senders"] {
        let answer = ask(&format!("GET {page}"), &format!("Cookie: {cookie}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer}");
    }
    drop(serving);
    let there = listed(place.path());
    let huge = there.iter().find(|one| one["report_id"] == "huge").unwrap();
    let (code, out, err) = run(place.path(), &["reports", "drop", &huge["id"].to_string(), "--yes"]);
    assert!(code == 0, "{out}{err}");
    assert_eq!(listed(place.path())[0]["successful"].as_u64(), Some(5));
}

#[test]
fn n3_a_failure_count_that_can_not_be_read_taints_its_day() {
    let day = |days: i64| {
        let day = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
        day.strftime("%Y-%m-%d").to_string()
    };
    for (count, clean_days, failed) in
        [("0", 2, 0), ("\"1,234\"", 1, 1), ("null", 1, 1), ("[5]", 1, 1), ("-5", 1, 1)]
    {
        let place = place();
        let of_day = |days: i64, count: &str| {
            let text =
                report(&days.to_string(), "a.example", 600, 0).to_string().replace("2026-11-20", &day(days));
            text.replace(
                "\"total-failure-session-count\":0",
                &format!("\"total-failure-session-count\":{count}"),
            )
        };
        write(place.path(), "in/odd.json", of_day(3, count));
        write(place.path(), "in/good.json", of_day(2, "0"));
        import(place.path(), &["--trusted", "in"]);
        let since = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 30);
        let mode = receiver::rollout::state::InMode { mode: formats::Mode::Testing, since };
        let state = receiver::rollout::RolloutState { mode: Some(mode), ..Default::default() };
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let store =
                store::Store::open(&place.path().join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
            store.put_rollout(&formats::DomainName::parse("a.example").unwrap(), &state).await.unwrap();
            store.close().await;
        });
        let (_, out, err) = run(place.path(), &["status", "--json"]);
        let status: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
        let evidence = &status["domains"][0]["evidence"];
        assert_eq!(evidence["clean_days"].as_u64(), Some(clean_days), "{count}: {evidence}");
        assert_eq!(evidence["sources"][0]["failed_sessions"].as_u64(), Some(failed), "{count}: {evidence}");
    }
}

#[test]
fn an_import_of_a_mailbox_without_a_broken_report_is_quiet_and_ends_with_0() {
    let place = place();
    let mail =
        |subject: &str, more: &str| format!("From: a@b.example\nSubject: {subject}\n{more}\n\nhello\n");
    write(place.path(), "in/cur/1", mail("dinner", "X-Note: private"));
    write(
        place.path(),
        "in/cur/2",
        mail("Report domain: a.example", "Content-Type: application/gzip; name=big!a.example!1!2.xml.gz"),
    );
    let json = report("1", "a.example", 5, 0).to_string();
    write(
        place.path(),
        "in/cur/3",
        format!("From: tls@big.example\nContent-Type: application/tlsrpt+json\n\n{json}\n"),
    );
    std::fs::create_dir_all(place.path().join("in/new")).unwrap();
    let (code, out, err) = run(place.path(), &["reports", "import", "in"]);
    // The first command that writes says which store it has created.
    assert!(
        code == 0 && err.lines().count() == 1 && err.contains("a new, empty store was created"),
        "{out}{err}"
    );
    assert!(out.contains("1 new report"), "{out}");
    let (code, out, err) = run(place.path(), &["reports", "import", "in"]);
    assert!(code == 0 && err.is_empty(), "{out}{err}");
    let (_, out, _) = run(place.path(), &["reports", "quarantine", "list"]);
    assert!(out.contains("The quarantine is empty."), "{out}");
}
