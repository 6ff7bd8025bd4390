//! `sternpost check` as people and programs get it: snapshots for domains that people would meet, the
//! shape of each form, lists of domains, and what goes wrong. `SPOST_SNAPSHOTS=write` writes the snapshots.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod patience;
mod ports;
#[path = "check/public.rs"]
mod public;

use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Domains that people would meet.
const MET: &[&str] = &[
    "good-all",
    "nothing-yet",
    "good-testing",
    "mx-first-unlisted",
    "mx-expired",
    "cert-expired",
    "http-challenge",
    "txt-bad-id",
    "dane-mismatch",
    "host-pages",
];

/// Domains whose findings name their cause, for snapshots as text.
const WITH_CAUSE: &[&str] = &[
    "txt-comma",
    "txt-of-spf",
    "rpt-one-bad",
    "rpt-no-semicolon",
    "policy-near-key",
    "policy-utf16",
    "host-parked",
    "host-not-customer",
    "host-opted-out",
    "mx-policy-host",
    "mx-former",
    "mx-typo",
    "dane-other-selector",
    "dane-renewed",
    "ds-wanted",
];

struct Place {
    dir: tempfile::TempDir,
    lab: Lab,
    _runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cases: Vec<_> = [lab::cases::all(), lab::oddities::all()]
            .concat()
            .into_iter()
            .filter(|case| {
                MET.contains(&case.name)
                    || WITH_CAUSE.contains(&case.name)
                    || ["good-enforce", "mx-null"].contains(&case.name)
            })
            .collect();
        let lab = runtime.block_on(Lab::with_cases(Ports::free(), SystemClock.now(), &cases)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), lab.pki.root_pem()).unwrap();
        std::fs::write(dir.path().join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
        let this = Self { dir, lab, _runtime: runtime };
        this.configure("");
        this
    }

    fn configure(&self, more: &str) {
        let text = format!(
            "[dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
             [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n{more}",
            self.lab.names.address,
            self.lab.names.address.port(),
            self.lab.https_port,
            self.lab.smtp_port
        );
        std::fs::write(self.dir.path().join("sternpost.toml"), text).unwrap();
    }

    fn check(&self, words: &[&str]) -> (i32, String, String) {
        said(
            &Command::new(env!("CARGO_BIN_EXE_sternpost"))
                .current_dir(self.dir.path())
                .arg("check")
                .args(words)
                .output()
                .unwrap(),
        )
    }
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// What differs from run to run: addresses, times, ids, fingerprints.
fn steady(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let is_time =
            |w: &str| w.len() >= 20 && w.as_bytes()[4] == b'-' && w.ends_with('Z') && w.contains('T');
        let is_address = |w: &str| w.starts_with("127.") && w.split('.').count() >= 4;
        let is_id = |w: &str| w.len() == 14 && w.starts_with("202") && w.bytes().all(|b| b.is_ascii_digit());
        let is_now = |w: &str| is_id(w) && !w.ends_with("01000000");
        out.push_str(match word.as_str() {
            w if is_time(w) => "TIME",
            w if is_address(w) => "ADDRESS",
            w if is_now(w) => "ID",
            w => w,
        });
        word.clear();
    };
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | ':' => word.push(c),
            other => {
                flush(&mut word, &mut out);
                out.push(other);
            }
        }
    }
    flush(&mut word, &mut out);
    // How long it took is the last thing of its line, or stands in a sentence of the page.
    let without_time = |line: &str| {
        let cut =
            line.find(" checks passed").filter(|_| line.ends_with(" s")).and_then(|_| line.rfind("   "));
        match (cut, line.find("Checked on ")) {
            (Some(at), _) => line[..at].to_owned(),
            (_, Some(at)) => line[..at].to_owned(),
            _ => line.to_owned(),
        }
    };
    let mut lines: Vec<String> = Vec::new();
    for line in out.lines().map(without_time).map(|line| hexless(&line)) {
        // Where text is wrapped depends on how long an address is.
        let goes_on = line.starts_with("    ") && !line.starts_with("     ");
        match lines.last_mut().filter(|last| goes_on && !last.is_empty()) {
            Some(last) => *last = format!("{last} {}", line.trim_start()),
            None => lines.push(line),
        }
    }
    lines.join("\n") + "\n"
}

/// Digests, and the date of an HTTP answer.
fn hexless(line: &str) -> String {
    let date = line.find("date: ").filter(|_| line.contains(" GMT"));
    let line = date.map_or(line.to_owned(), |at| line[..at + 6].to_owned());
    let is_digest = |word: &&str| word.len() >= 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    match line.split(|c: char| !c.is_ascii_alphanumeric()).find(is_digest) {
        Some(digest) => line.replace(digest, "DIGEST"),
        None => line,
    }
}

fn snapshot(name: &str, text: &str) -> Option<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/check").join(name);
    let seen = steady(text);
    if std::env::var_os("SPOST_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &seen).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    (kept != seen).then(|| format!("{name} differs:\n{}", difference(&kept, &seen)))
}

fn difference(kept: &str, seen: &str) -> String {
    let (kept, seen): (BTreeSet<_>, BTreeSet<_>) = (kept.lines().collect(), seen.lines().collect());
    let gone = kept.difference(&seen).map(|line| format!("- {line}"));
    gone.chain(seen.difference(&kept).map(|line| format!("+ {line}"))).collect::<Vec<_>>().join("\n")
}

/// The body of the page without its style.
fn body(page: &Path) -> String {
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page.starts_with("<!doctype html>")
            && !page.contains("<script")
            && !page.contains("http-equiv=\"refresh")
    );
    page[page.find("<body>").unwrap()..].to_owned()
}

/// The identifiers of the checks that passed.
fn passed(value: &Value) -> Vec<&str> {
    value["passed"].as_array().map_or(Vec::new(), |all| all.iter().filter_map(Value::as_str).collect())
}

/// The result without the list of some 140 checks that passed: what differs from the list of the first domain, whose snapshot
/// is the only one that has it.
fn without_passed(value: &Value, first: &Value) -> Value {
    let (these, those) = (passed(value), passed(first));
    let beside = |some: &[&str], others: &[&str]| -> Vec<String> {
        some.iter().filter(|check| !others.contains(check)).map(|check| (*check).to_owned()).collect()
    };
    let mut value = value.clone();
    value["passed"] = serde_json::json!({ "as": MET[0], "also": beside(&these, &those), "without": beside(&those, &these) });
    value
}

/// The page without the items of its list of checks that passed, and their identifiers.
fn page_without_passed(page: &str) -> (String, Vec<String>) {
    let Some((before, rest)) = page.split_once("<ul class=\"passed\">") else {
        return (page.to_owned(), Vec::new());
    };
    let (list, after) = rest.split_once("</ul>").unwrap();
    let items = list.lines().map(|line| line.replace("<li><code>", "").replace("</code></li>", ""));
    let listed = items.filter(|line| !line.is_empty()).collect();
    (format!("{before}<ul class=\"passed\"><li>as in the JSON</li></ul>{after}"), listed)
}

#[test]
fn ten_domains_look_as_they_did_as_text_as_json_and_as_a_page() {
    let place = Place::new();
    let mut wrong = Vec::new();
    let mut first = Value::Null;
    for name in MET {
        let domain = format!("{name}.test");
        let (_, text, err) = place.check(&[&domain, "--html", "page.html"]);
        assert_eq!(err, "", "{name}");
        wrong.extend(snapshot(&format!("{name}.txt"), &text));
        let (page, listed) = page_without_passed(&body(&place.dir.path().join("page.html")));
        wrong.extend(snapshot(&format!("{name}.html"), &page));
        let (_, json, _) = place.check(&[&domain, "--json"]);
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(listed, passed(&value), "{name}: the page and the JSON list the same checks");
        assert!(listed.len() > 20, "{name}: {listed:?}");
        let shown = if first.is_null() { value.clone() } else { without_passed(&value, &first) };
        wrong.extend(snapshot(&format!("{name}.json"), &serde_json::to_string_pretty(&shown).unwrap()));
        if first.is_null() {
            first = value;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn causes_are_shown_as_text_in_json_and_by_explain() {
    let place = Place::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/check.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let known = schema["$defs"]["cause"]["properties"]["id"]["enum"].as_array().unwrap();
    assert_eq!(
        known.iter().map(|id| id.as_str().unwrap()).collect::<Vec<_>>(),
        check::Cause::ALL.iter().map(|cause| cause.id()).collect::<Vec<_>>()
    );
    let mut wrong = Vec::new();
    for name in WITH_CAUSE {
        let (_, text, err) = place.check(&[&format!("{name}.test"), "--quick"]);
        assert_eq!(err, "", "{name}");
        assert!(text.contains("Cause: ") || *name == "ds-wanted", "{text}");
        wrong.extend(snapshot(&format!("causes/{name}.txt"), &text));
        let (_, json, _) = place.check(&[&format!("{name}.test"), "--json"]);
        let value: Value = serde_json::from_str(&json).unwrap();
        fits(&value, &schema, &schema, "").unwrap_or_else(|why| panic!("{why}\n{json}"));
        assert!(
            value["findings"].as_array().unwrap().iter().any(|finding| finding["cause"]["id"].is_string())
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let (_, out, _) = place.check(&["--explain", "HTTPS-CERT-NAME"]);
    assert!(
        out.contains("catch-all: ") && out.contains("7,237 domains") && out.contains("IMC 2025"),
        "{out}"
    );
    let (_, out, _) = place.check(&["--profile", "internet-nl", "ds-wanted.test"]);
    assert!(out.starts_with("Estimate of the mail test of Internet.nl for ds-wanted.test: "), "{out}");
    assert!(
        out.contains("domain signed and valid") && out.contains("the site decides by its own rules"),
        "{out}"
    );
}

/// Holds a value against the part of JSON Schema that docs/check.schema.json uses.
fn fits(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(value, root.pointer(&reference[1..]).unwrap(), root, at);
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        return if allowed.contains(value) {
            Ok(())
        } else {
            Err(format!("{at}: {value} is none of {allowed:?}"))
        };
    }
    if let Some(wanted) = schema.get("const") {
        return if value == wanted { Ok(()) } else { Err(format!("{at}: {value} is not {wanted}")) };
    }
    match schema["type"].as_str().unwrap() {
        "string" if value.is_string() => Ok(()),
        "array" if value.is_array() => value
            .as_array()
            .unwrap()
            .iter()
            .try_for_each(|item| fits(item, &schema["items"], root, &format!("{at}[]"))),
        "object" if value.is_object() => {
            let (value, known) = (value.as_object().unwrap(), schema["properties"].as_object().unwrap());
            let missing = schema["required"]
                .as_array()
                .unwrap()
                .iter()
                .find(|key| !value.contains_key(key.as_str().unwrap()));
            if let Some(key) = missing {
                return Err(format!("{at}: {key} is missing"));
            }
            value.iter().try_for_each(|(key, item)| match known.get(key) {
                Some(schema) => fits(item, schema, root, &format!("{at}.{key}")),
                None => Err(format!("{at}: {key} is not in the schema")),
            })
        }
        wanted => Err(format!("{at}: {value} is no {wanted}")),
    }
}

#[test]
fn json_fits_its_schema_and_the_catalogue_is_listed_for_programs() {
    let place = Place::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/check.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let domains = ["good-all.test", "mx-null.test", "nothing-yet.test", "dane-mismatch.test", "no-such.test"];
    let (code, out, _) = place.check(&[&domains[..], &["--format", "json"]].concat());
    assert_eq!(code, 1);
    assert_eq!(out.lines().count(), domains.len());
    for line in out.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        fits(&value, &schema, &schema, "").unwrap_or_else(|why| panic!("{why}\n{line}"));
    }
    assert!(fits(&serde_json::json!({"schema": 2}), &schema, &schema, "").is_err());
    let (code, out, _) = place.check(&["--list", "--json"]);
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, rows.len()), (0, check::Check::ALL.len()));
    let known: BTreeSet<&str> = rows.iter().map(|row| row["check"].as_str().unwrap()).collect();
    let listed = schema["$defs"]["check"]["enum"].as_array().unwrap();
    assert_eq!(known, listed.iter().map(|id| id.as_str().unwrap()).collect());
    let (_, out, _) = place.check(&["--explain", "sts-txt-ttl"]);
    assert!(out.starts_with("STS-TXT-TTL\n") && out.contains("RFC 8461"), "{out}");
}

#[test]
fn programs_get_what_they_can_read_and_exit_codes_that_they_know() {
    let place = Place::new();
    let (code, out, _) = place.check(&["--format", "nagios", "good-all.test"]);
    assert_eq!(code, 0, "{out}");
    assert!(
        out.starts_with("STERNPOST OK - good-all.test is protected")
            && out.contains("| errors=0 warnings=0 passed=")
    );
    let (code, out, _) = place.check(&["--format", "nagios", "mx-expired.test"]);
    assert_eq!(code, 2, "{out}");
    assert!(out.starts_with("STERNPOST CRITICAL - "));
    let (code, out, _) = place.check(&["--format", "nagios", "good-testing.test"]);
    assert_eq!(code, 1, "{out}");
    let (code, out, _) = place.check(&["--format", "junit", "good-all.test", "mx-expired.test"]);
    assert_eq!(code, 1);
    std::fs::write(place.dir.path().join("junit.xml"), &out).unwrap();
    let count = "import sys, xml.etree.ElementTree as t; r = t.parse(sys.argv[1]).getroot()\n\
                 print([(s.get('name'), int(s.get('tests')) == len(s), int(s.get('failures')) == len(s.findall('*/failure'))) for s in r])";
    let read =
        Command::new("python3").args(["-c", count]).arg(place.dir.path().join("junit.xml")).output().unwrap();
    let (_, read, err) = said(&read);
    assert_eq!(read.trim(), "[('good-all.test', True, True), ('mx-expired.test', True, True)]", "{err}");
    let (_, out, _) = place.check(&["--format", "prometheus", "mx-expired.test", "good-all.test"]);
    assert!(out.contains("sternpost_check_finding{domain=\"mx-expired.test\",check=\"SMTP-CERT-EXPIRED\",severity=\"error\"} 1"), "{out}");
    assert!(out.contains("sternpost_check_findings{domain=\"good-all.test\",severity=\"error\"} 0"), "{out}");
    let samples: Vec<&str> = out.lines().filter(|line| !line.starts_with('#')).collect();
    let series: BTreeSet<&str> = samples.iter().map(|line| line.rsplit_once(' ').unwrap().0).collect();
    assert_eq!(series.len(), samples.len(), "a series stands twice");
    let codes = [
        (vec!["good-testing.test"], 0),
        (vec!["good-testing.test", "--fail-on", "warning"], 1),
        (vec!["mx-expired.test"], 1),
        (vec!["mx-expired.test", "--fail-on", "never"], 0),
        (vec!["good-all.test", "--resolver", "127.0.0.1:9", "--timeout", "1"], 3),
        (vec!["good-all.test", "--ca-file", "nothing.pem"], 2),
        (vec!["good-all.test", "--html", "no/such/folder.html"], 2),
        (vec!["--from", "list", "--format", "junit"], 2),
        (vec!["--from", "not-there"], 2),
        (vec!["good-all.test", "--resolver", "nobody"], 2),
    ];
    std::fs::write(place.dir.path().join("list"), "good-all.test\n").unwrap();
    for (words, expected) in codes {
        let (code, out, err) = place.check(&words);
        assert_eq!(code, expected, "{words:?}: {out}{err}");
    }
}

#[test]
fn a_list_of_domains_is_gone_through_and_gone_on_with() {
    let place = Place::new();
    let list: String = MET.iter().map(|name| format!("1,{name}.test\n")).collect();
    std::fs::write(place.dir.path().join("list"), format!("# ours\n{list}not a domain\n")).unwrap();
    let (code, out, err) = place.check(&["--from", "list"]);
    assert_eq!((code, out.lines().count()), (1, MET.len() + 1), "{err}");
    assert!(
        err.contains(&format!("{} domains in", MET.len())) && err.contains("1 line without a valid domain"),
        "{err}"
    );
    assert!(err.contains("SMTP-CERT-EXPIRED"), "{err}");
    // What was cut off in the middle of a line is done again, what is whole is not.
    let lines: Vec<&str> = out.lines().collect();
    std::fs::write(place.dir.path().join("out"), format!("{}\n{}\n{{\"schema\":1,\"dom", lines[0], lines[1]))
        .unwrap();
    let (_, out, err) = place.check(&["--from", "list", "--resume", "out", "--concurrency", "3"]);
    assert_eq!(out, "");
    assert!(err.contains("2 skipped as already done"), "{err}");
    let whole = std::fs::read_to_string(place.dir.path().join("out")).unwrap();
    let names: BTreeSet<String> = whole
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line.get("domain").or(line.get("typed")).unwrap().as_str().unwrap().to_owned())
        .collect();
    assert_eq!((names.len(), whole.lines().count()), (MET.len() + 1, MET.len() + 1));
    let mut child = Command::new(env!("CARGO_BIN_EXE_sternpost"))
        .current_dir(place.dir.path())
        .args(["check", "--from", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A line that is not UTF-8 ends nothing, and what is done is told while the list still comes.
    let mut list = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut list, b"good-all.test\n").unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.contains("good-all.test"), "{line}");
    std::io::Write::write_all(&mut list, b"caf\xe9.test\nmx-null.test\n").unwrap();
    drop(list);
    let rest: Vec<String> = told.lines().map(Result::unwrap).collect();
    assert_eq!(rest.len(), 2, "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("mx-null.test")), "{rest:?}");
    assert!(child.wait().unwrap().code() == Some(1));
}

/// The lines of an output, by domain or by the text that is none.
fn by_name(out: &str) -> std::collections::BTreeMap<String, Value> {
    let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let name = |line: &Value| line.get("domain").or(line.get("typed")).unwrap().as_str().unwrap().to_owned();
    lines.map(|line| (name(&line), line)).collect()
}

#[test]
fn of_a_list_only_names_with_something_to_check_are_checked() {
    use lab::dns::{TamperedKind, Tampering};
    let place = Place::new();
    // DANE alone, and a name whose zone fails.
    place.lab.names.remove("_smtp._tls.dane-mismatch.test.").unwrap();
    for name in ["_mta-sts.host-pages.test.", "_smtp._tls.host-pages.test."] {
        place.lab.names.meddle(name, TamperedKind::Txt, Some(Tampering::ServFail)).unwrap();
    }
    let list = "good-all.test\nnothing-yet.test\nno-such-domain.test\nmx-null.test\ndane-mismatch.test\nhost-pages.test\n";
    std::fs::write(place.dir.path().join("list"), list).unwrap();
    let (code, out, err) = place.check(&["--from", "list"]);
    let lines = by_name(&out);
    assert_eq!((code, lines.len()), (3, 6), "{out}{err}");
    let first = |mta_sts: &str, tlsrpt: &str| serde_json::json!({"mta_sts": mta_sts, "tlsrpt": tlsrpt});
    for (name, found, is_checked) in [
        ("good-all.test", first("record", "record"), true),
        ("mx-null.test", first("nxdomain", "record"), true),
        ("nothing-yet.test", first("nxdomain", "nxdomain"), false),
        ("no-such-domain.test", first("nxdomain", "nxdomain"), false),
        ("dane-mismatch.test", first("nxdomain", "nxdomain"), false),
        ("host-pages.test", first("servfail", "servfail"), false),
    ] {
        assert_eq!(lines[name]["first_pass"], found, "{name}");
        assert_eq!(lines[name].get("verdict").is_some(), is_checked, "{name}");
        assert!(is_checked || lines[name]["findings"] == serde_json::json!([]), "{name}");
    }
    assert!(err.contains("first pass: 6 names in"), "{err}");
    // With DANE, one MX host of several counts.
    let (code, out, err) =
        place.check(&["--from", "list", "--dane", "--in-flight", "3", "--query-rate", "500"]);
    let lines = by_name(&out);
    assert_eq!((code, lines.len()), (1, 6), "{out}{err}");
    assert_eq!(lines["dane-mismatch.test"]["first_pass"]["tlsa"], "record");
    assert!(lines["dane-mismatch.test"].get("verdict").is_some());
    assert_eq!(lines["nothing-yet.test"]["first_pass"]["tlsa"], "nxdomain");
    assert_eq!(lines["no-such-domain.test"]["first_pass"]["mx"], "nxdomain");
    assert!(lines["no-such-domain.test"]["first_pass"].get("tlsa").is_none());
    // All names are checked.
    let (_, out, err) = place.check(&["--from", "list", "--all"]);
    let lines = by_name(&out);
    assert!(lines.len() == 6 && lines.values().all(|line| line.get("verdict").is_some()), "{out}{err}");
    assert!(lines.values().all(|line| line.get("first_pass").is_none()));
    for words in
        [vec!["--all"], vec!["--from", "list", "--all", "--dane"], vec!["--from", "list", "--shard", "3/2"]]
    {
        assert_eq!(place.check(&words).0, 2, "{words:?}");
    }
}

#[test]
fn results_of_a_list_are_counted_split_joined_and_compared() {
    let place = Place::new();
    let list: String = MET.iter().chain(WITH_CAUSE).map(|name| format!("{name}.test\n")).collect();
    std::fs::write(place.dir.path().join("list"), &list).unwrap();
    let read = |name: &str| std::fs::read_to_string(place.dir.path().join(name)).unwrap();
    // Two machines.
    for part in ["1/2", "2/2"] {
        let file = format!("part-{}", &part[..1]);
        let (_, out, err) = place.check(&["--from", "list", "--shard", part, "--resume", &file]);
        assert_eq!(out, "", "{err}");
    }
    let (one, other) = (by_name(&read("part-1")), by_name(&read("part-2")));
    assert!(!one.is_empty() && !other.is_empty() && one.keys().all(|name| !other.contains_key(name)));
    // A result that both have, and a line that was cut off, change nothing.
    let doubled = read("part-1").lines().next().unwrap().to_owned();
    std::fs::write(place.dir.path().join("part-2"), format!("{}{doubled}\n{{\"dom", read("part-2"))).unwrap();
    let (code, joined, err) = place.check(&["merge", "part-1", "part-2"]);
    assert_eq!((code, joined.lines().count()), (0, MET.len() + WITH_CAUSE.len()), "{err}");
    std::fs::write(place.dir.path().join("all"), &joined).unwrap();
    let (_, counts, err) = place.check(&["merge", "part-1", "part-2", "--summary", "--json"]);
    let counts: Value =
        serde_json::from_str(&counts).unwrap_or_else(|error| panic!("{error}: {counts}{err}"));
    let by_check =
        |id: &str| counts["checks"].as_array().unwrap().iter().find(|row| row["check"] == id).unwrap();
    let expected = joined.lines().filter(|line| line.contains("\"check\":\"HTTPS-CERT-NAME\"")).count();
    assert_eq!((by_check("HTTPS-CERT-NAME")["domains"].as_u64().unwrap() as usize, expected), (expected, 1));
    assert_eq!(by_check("HTTPS-CERT-NAME")["causes"][0]["id"], "catch-all");
    assert_eq!(counts["names"], MET.len() + WITH_CAUSE.len());
    assert_eq!(counts["nothing_to_check"], 1);
    assert_eq!(counts["first_pass"]["_mta-sts TXT"]["record"], counts["names"].as_u64().unwrap() - 2);
    // What is complete is only counted; nothing is asked any more.
    let words = ["--from", "list", "--resume", "all", "--summary"];
    let (_, table, err) = place.check(&words);
    assert!(table.contains("HTTPS-CERT-NAME") && table.contains("catch-all"), "{table}{err}");
    assert!(err.contains(&format!("{} skipped as already done", MET.len() + WITH_CAUSE.len())), "{err}");
    assert_eq!(read("all"), joined);
    // Nothing changed but one policy.
    let body = "version: STSv1\r\nmode: enforce\r\nmx: mx1.good-testing.test\r\nmax_age: 604800\r\n";
    let site = lab::site(&place.lab.pki, "mta-sts.good-testing.test", body).unwrap();
    place.lab.sites.put("mta-sts.good-testing.test", site);
    let (_, changes, err) = place.check(&["--from", "list", "--since", "all"]);
    assert_eq!(changes, "good-testing.test: testing -> enforce; no longer RPT-RUA-LOOP\n", "{err}");
    let (_, changes, err) = place.check(&["--from", "list", "--since", "all", "--json"]);
    let change: Value =
        serde_json::from_str(&changes).unwrap_or_else(|error| panic!("{error}: {changes}{err}"));
    assert_eq!((&change["was"], &change["is"]), (&Value::from("testing"), &Value::from("enforce")));
    for words in [&["merge"][..], &["merge", "not-there"], &["--from", "list", "--since", "not-there"]] {
        assert_eq!(place.check(words).0, 2, "{words:?}");
    }
}

#[test]
fn what_is_wrong_with_a_list_or_its_files_is_told_and_ends_nothing() {
    let place = Place::new();
    let write = |name: &str, text: &str| std::fs::write(place.dir.path().join(name), text).unwrap();
    write("list", "nothing-yet.test\nNothing-Yet.test.\nno domain\n");
    let (code, out, err) = place.check(&["--from", "list"]);
    assert_eq!((code, by_name(&out).len(), out.lines().count()), (1, 2, 2), "{out}{err}");
    assert!(err.contains("1 line with a name that the list had before"), "{err}");
    assert_eq!(place.check(&["--from", "list", "--fail-on", "never"]).0, 0);
    // A line of any length.
    write("long", &format!("nothing-yet.test\n{}\nmx-null.test\n", "a.".repeat(1 << 20)));
    let (_, out, err) = place.check(&["--from", "long", "--resume", "out"]);
    assert_eq!(out, "", "{err}");
    let out = std::fs::read_to_string(place.dir.path().join("out")).unwrap();
    assert!(out.lines().count() == 3 && out.contains("line 2 is longer than 65536 bytes"), "{out}");
    let (_, _, err) = place.check(&["--from", "long", "--resume", "out"]);
    assert!(err.contains("3 skipped as already done"), "{err}");
    // Files that would be written into, and files without results.
    for (words, why) in [
        (["--from", "list", "--resume", "./list"], "--from and --resume name one file"),
        (["--from", "list", "--since", "list"], "none of its lines is a result of check --from"),
        (["--from", "list", "--history", "list"], "none of its lines is a domain with an MX host"),
    ] {
        let (code, out, err) = place.check(&words);
        assert!(code == 2 && out.is_empty() && err.contains(why), "{words:?} {code} {out}{err}");
    }
    // What has an effect on lists only.
    for words in [
        ["--deep", "--verbose"],
        ["--concurrency", "8"],
        ["--in-flight", "8"],
        ["--query-rate", "8"],
        ["--resume", "fresh"],
        ["--shard", "1/2"],
        ["--since", "out"],
        ["--history", "out"],
        ["--report", "fresh"],
        ["--summary", "--quick"],
        ["--dane", "--quick"],
        ["--all", "--quick"],
    ] {
        let (code, out, err) = place.check(&[words[0], words[1], "nothing-yet.test"]);
        assert!(code == 2 && out.is_empty() && err.contains(words[0]), "{words:?} {code} {out}{err}");
    }
    let (code, _, err) = place.check(&["--from", "list", "--since", "out", "--resume", "out"]);
    assert!(code == 2 && err.contains("--since and --resume name one file"), "{err}");
    assert_eq!(std::fs::read_to_string(place.dir.path().join("out")).unwrap(), out);
}

#[test]
fn one_of_our_own_domains_is_held_against_the_last_look() {
    let place = Place::new();
    place.configure("[[domain]]\nname = \"good-enforce.test\"\n");
    // Without a store none is made.
    place.check(&["good-enforce.test"]);
    assert!(!place.dir.path().join("sternpost.db").exists());
    let status = Command::new(env!("CARGO_BIN_EXE_sternpost"))
        .current_dir(place.dir.path())
        .args(["status"])
        .output()
        .unwrap();
    assert!(status.status.success() && !place.dir.path().join("sternpost.db").exists());
    let path = place.dir.path().join("sternpost.db");
    let opened = store::Store::open(&path, store::Tenant::FIRST);
    tokio::runtime::Runtime::new().unwrap().block_on(opened).unwrap();
    let trips = |id: &str| {
        let seen: Value = serde_json::from_str(&place.check(&["good-enforce.test", "--json"]).1).unwrap();
        seen["findings"].as_array().unwrap().iter().any(|finding| finding["check"] == id)
    };
    assert!(!trips("STS-TXT-UNCHANGED"));
    assert!(!trips("STS-TXT-UNCHANGED"), "nothing changed");
    let body = "version: STSv1\r\nmode: enforce\r\nmx: mx1.good-enforce.test\r\nmax_age: 700000\r\n";
    let site = lab::site(&place.lab.pki, "mta-sts.good-enforce.test", body).unwrap();
    place.lab.sites.put("mta-sts.good-enforce.test", site);
    assert!(trips("STS-TXT-UNCHANGED"), "the file changed and the id did not");
    assert!(!trips("STS-TXT-UNCHANGED"), "the last look saw the new file");
    let name = formats::DomainName::parse("_mta-sts.good-enforce.test").unwrap();
    place.lab.publish_txt(&name, "v=STSv1; id=20260202000000;").unwrap();
    assert!(trips("STS-TXT-CHANGED"), "the id changed and the file did not");
}

#[test]
fn a_resolver_that_strips_dnssec_is_not_the_domains_fault() {
    let place = Place::new();
    // Without the lab's trust anchor no answer of its resolver can be validated.
    let file = place.dir.path().join("sternpost.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("trust_anchor = \"root.key\"\n", "");
    std::fs::write(&file, text).unwrap();
    let domain = "dane-mismatch.test";
    let (code, out, _) = place.check(&["--json", domain]);
    let seen: Value = serde_json::from_str(&out).unwrap();
    let ids: Vec<&str> =
        seen["findings"].as_array().unwrap().iter().map(|one| one["check"].as_str().unwrap()).collect();
    assert!(ids.contains(&"DNSSEC-UNSEEN"), "{ids:?}");
    let told = |id: &&str| id.starts_with("DANE") || matches!(*id, "DNSSEC-BOGUS" | "DNSSEC-UNSIGNED");
    assert!(!ids.iter().any(told), "{ids:?}");
    let passed = seen["passed"].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
    assert_eq!(passed.filter(|id| told(id)).count(), 0);
    assert_ne!(code, 3);
    let (_, text, _) = place.check(&[domain]);
    assert!(text.contains("--resolver 9.9.9.9") && text.contains("unknown:"), "{text}");
}

#[test]
fn a_resolver_that_does_not_answer_is_said_before_anything_else() {
    let place = Place::new();
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    let (code, out, err) = place.check(&["--timeout", "1", "--resolver", &address, "good-all.test"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("the DNS resolver does not answer"), "{err}");
}

#[test]
fn a_host_is_looked_at_where_somebody_says_that_it_will_be() {
    let place = Place::new();
    let (code, out, _) = place.check(&["--json", "good-enforce.test"]);
    assert_eq!(code, 0, "{out}");
    let words = ["--json", "--address", "mta-sts.good-enforce.test=127.0.0.99", "good-enforce.test"];
    let (code, out, _) = place.check(&words);
    assert!(code == 1 && out.contains("127.0.0.99"), "{out}");
    let (code, _, said) = place.check(&["--address", "127.0.0.99", "good-enforce.test"]);
    assert!(code == 2 && said.contains("mx2.example.org=192.0.2.7"), "{said}");
}

#[test]
fn at_a_terminal_answers_come_as_they_are_seen_and_make_way_for_the_outcome() {
    let place = Place::new();
    let line = format!("{} check good-all.test", env!("CARGO_BIN_EXE_sternpost"));
    let output = Command::new("script")
        .current_dir(place.dir.path())
        .args(["--quiet", "--return", "--command", &line, "typescript"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    let (live, outcome) = shown.rsplit_once("A\u{1b}[J").unwrap_or_else(|| panic!("{shown}"));
    for answer in ["Checking good-all.test", "_mta-sts ", "v=STSv1; id=", "a policy, mode enforce", "TLSv1_3"]
    {
        assert!(live.contains(answer), "{answer}: {live}");
    }
    assert!(outcome.starts_with("good-all.test is protected"), "{outcome}");
}

/// The table for an auditor (`lab conformance --domain`), held against the schema of the documentation by its members.
#[test]
fn a_domain_is_shown_as_a_table_of_what_the_rfcs_ask_of_it() {
    let place = Place::new();
    let audit = |domain: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        command.current_dir(place.dir.path()).args(["lab", "conformance", "--domain", domain]).args(more);
        said(&command.output().unwrap())
    };
    let file = |name: &str| std::fs::read_to_string(place.dir.path().join(name)).unwrap();
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(schema).unwrap()).unwrap();
    let verdicts = |name: &str| -> std::collections::BTreeMap<String, String> {
        let value: Value = serde_json::from_str(&file(name)).unwrap();
        fits(&value, &schema, &schema, "").unwrap_or_else(|why| panic!("{why}\n{value}"));
        let items = value["items"].as_array().unwrap();
        items.iter().map(|item| (text(&item["id"]), text(&item["verdict"]))).collect()
    };
    let (code, out, err) =
        audit("good-all.test", &["--json", "good.json", "--markdown", "good.md", "--html", "good.html"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("RFC 8461") && out.contains("Internet.nl"), "{out}");
    let good = verdicts("good.json");
    for id in [
        "sts-record",
        "host-certificate",
        "policy-file",
        "mx-covered",
        "mx-certificate",
        "report-record",
        "dane-match",
    ] {
        assert_eq!(good[id], "met", "{id}");
    }
    assert!(file("good.md").contains("| RFC 8461 §3.1 | MUST | met |"));
    assert!(file("good.html").contains("<td class=\"met\">met"));

    let (code, _, err) = audit("mx-expired.test", &["--json", "bad.json"]);
    assert_eq!(code, 1, "{err}");
    let bad = verdicts("bad.json");
    assert_eq!((bad["mx-certificate"].as_str(), bad["mx-covered"].as_str()), ("not-met", "met"));

    let (code, _, err) = audit("nothing-yet.test", &["--json", "none.json", "--fail-on", "never"]);
    assert_eq!(code, 0, "{err}");
    let none = verdicts("none.json");
    assert_eq!((none["sts-used"].as_str(), none["sts-record"].as_str()), ("not-met", "not-applicable"));
    // What nobody judged is not met.
    for (domain, rows) in [
        ("dane-ee.test", &["mx-certificate", "dane-and-policy"][..]),
        ("dane-unsigned.test", &["dane-usable", "dane-match", "dane-rollover", "dane-and-policy"]),
    ] {
        let (_, _, err) = audit(domain, &["--json", "other.json", "--fail-on", "never"]);
        let other = verdicts("other.json");
        for row in rows {
            assert_ne!(other[*row], "met", "{domain} {row} {err}");
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
