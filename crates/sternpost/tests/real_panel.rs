//! The HTTP API as programs of others use it: a control panel in a few lines of Python with a customer's domain in the lab, and
//! schemathesis, which tries each request of the served OpenAPI document with generated values.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "runbook/page.rs"]
mod page;
mod patience;
mod ports;

use formats::report::DateRange;
use jiff::Timestamp;
use lab::dns::Rr;
use lab::pki::Cert;
use lab::policy_host::{HttpBehavior, Site};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use patience::until_ready;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DOMAIN: &str = "example.org";

/// A server with `[admin]`, and a lab with a domain whose owner has published neither a record nor a policy.
struct World {
    dir: tempfile::TempDir,
    lab: Lab,
    at: String,
    serving: Child,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    /// The API is served at `listen`, in which `AT` is an address that is not used, with these further settings.
    fn new(listen: &str, more: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cases = [page::domain(DOMAIN)];
        let lab = runtime.block_on(Lab::with_cases(Ports::free(), SystemClock.now(), &cases)).unwrap();
        for name in ["_mta-sts", "_smtp._tls"] {
            lab.names.set(&format!("{name}.{DOMAIN}."), Vec::new()).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let identity = lab.pki.issue("localhost", Cert::Good).unwrap();
        std::fs::write(dir.path().join("chain.pem"), identity.chain_pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), identity.key_pem()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), lab.pki.root_pem()).unwrap();
        std::fs::write(dir.path().join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
        let at = ports::unused().to_string();
        let text = format!(
            "[dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
             [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n[admin]\nlisten = \"{}\"\n{more}",
            lab.names.address,
            lab.names.address.port(),
            lab.https_port,
            lab.smtp_port,
            listen.replace("AT", &at).replace("HERE", &dir.path().display().to_string())
        );
        std::fs::write(dir.path().join("sternpost.toml"), text).unwrap();
        let log = dir.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let mut serve = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        let mut serving =
            serve.current_dir(&dir).arg("serve").stdout(Stdio::null()).stderr(file).spawn().unwrap();
        until_ready(&mut serving, &log);
        let world = Self { dir, lab, at, serving, _runtime: runtime };
        world.serve_policy(HttpBehavior::Status(404));
        world
    }

    /// A command, which has to succeed.
    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        let output = command.current_dir(&self.dir).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn serve_policy(&self, answers: HttpBehavior) {
        let host = format!("mta-sts.{DOMAIN}");
        let identity = self.lab.pki.issue(&host, Cert::Good).unwrap();
        self.lab.sites.put(&host, Site { answers, identity });
    }

    /// Does what the stage of a plan asks of the owner of the domain.
    fn publish(&self, stage: &Value) {
        if let Some(policy) = stage["file"].as_str() {
            self.serve_policy(HttpBehavior::Policy(policy.to_owned()));
        }
        for record in stage["records"].as_array().unwrap() {
            let (name, value) = record.as_str().unwrap().split_once(" IN TXT ").unwrap();
            let name = name.split(' ').next().unwrap();
            self.lab.names.set(name, vec![Rr::Txt(vec![value.trim_matches('"').to_owned()])]).unwrap();
        }
    }

    /// A report about the domain arrives.
    fn import_report(&self) {
        let range = DateRange::utc_day(Timestamp::now());
        let report = format!(
            r#"{{"organization-name":"Big","date-range":{{"start-datetime":"{}","end-datetime":"{}"}},"contact-info":"x@big.example","report-id":"1@big.example","policies":[{{"policy":{{"policy-type":"sts","policy-domain":"{DOMAIN}"}},"summary":{{"total-successful-session-count":5,"total-failure-session-count":0}}}}]}}"#,
            range.start, range.end
        );
        let file = self.dir.path().join("big.example!example.org!1!2.json");
        std::fs::write(&file, report).unwrap();
        self.run(&["reports", "import", "--trusted", file.to_str().unwrap()]);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.serving.kill();
        let _ = self.serving.wait();
    }
}

#[test]
fn a_panel_signs_a_customer_up_brings_the_domain_to_testing_promotes_and_leaves() {
    let world = World::new("AT", "");
    let token = world.run(&["tokens", "add", "panel", "--scope", "read,manage"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_panel/panel.py");
    let mut panel = Command::new("/usr/bin/python3")
        .arg(script)
        .args([&format!("http://{}", world.at), &token, DOMAIN])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledge = panel.stdin.take().unwrap();
    let mut told = Vec::new();
    for line in BufReader::new(panel.stdout.take().unwrap()).lines() {
        let (what, more): (String, Value) = serde_json::from_str(&line.unwrap()).unwrap();
        match what.as_str() {
            "publish" => world.publish(&more),
            "report" => world.import_report(),
            _ => assert_eq!(more, Value::Array(Vec::new()), "{what}"),
        }
        told.push(what);
        writeln!(acknowledge, "done").unwrap();
    }
    let log = std::fs::read_to_string(world.dir.path().join("log")).unwrap();
    assert!(panel.wait().unwrap().success(), "{told:?}\n{log}");
    assert!(told.contains(&"publish".to_owned()) && told.ends_with(&["left".to_owned()]), "{told:?}");
    let journal = world.run(&["tokens", "list", "--json"]);
    assert!(journal.contains("panel") && !journal.contains(&token), "{journal}");
}

/// Runs schemathesis with the token for all requests.
#[test]
fn generated_requests_get_answers_as_the_document_says() {
    let world = World::new("AT", "");
    let token = world.run(&["tokens", "add", "fuzz", "--scope", "read,manage,tokens"]);
    let root = std::env::var("STERNPOST_TEST_ROOTS").unwrap_or("/var/tmp/sternpost-test".to_owned());
    let program = Path::new(&root).join("judge/bin/schemathesis");
    // A check and the work on a plan connect to servers, a revoked token may be the one in use, and a line of NDJSON has no
    // generator. That a value fits a schema does not make it a domain name or a state in which a change is possible.
    let output = Command::new(&program)
        .current_dir(&world.dir)
        .args(["run", &format!("http://{}/v1/openapi.json", world.at)])
        .args(["-H", &format!("Authorization: Bearer {token}"), "--max-examples", "10", "--seed", "1"])
        .args(["--exclude-path-regex", "/(check|apply)$", "--exclude-operation-id", "deleteTokensName"])
        .args(["--exclude-operation-id", "postDomains", "--exclude-checks", "positive_data_acceptance"])
        .arg("--no-color")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; ./test installs it", program.display()));
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_api_is_served_over_tls_and_at_a_unix_socket() {
    let get = |world: &World, words: &[&str]| {
        let token = world.run(&["tokens", "add", "panel", "--scope", "read"]);
        let mut curl = Command::new("curl");
        curl.current_dir(&world.dir).args(["-sS", "-o", "answer", "-w", "%{http_code}", "-H"]);
        let output = curl.arg(format!("Authorization: Bearer {token}")).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let world = World::new("AT", "certificate = \"chain.pem\"\nkey = \"key.pem\"\n");
    let (address, port) = world.at.rsplit_once(':').unwrap();
    let (resolved, url) =
        (format!("localhost:{port}:{address}"), format!("https://localhost:{port}/v1/domains"));
    assert_eq!(get(&world, &["--cacert", "ca.pem", "--resolve", &resolved, &url]), "200");
    let world = World::new("unix:HERE/api.sock", "");
    assert_eq!(get(&world, &["--unix-socket", "api.sock", "http://localhost/v1/domains"]), "200");
}
