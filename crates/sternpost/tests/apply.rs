//! `sternpost apply` that is interrupted, killed or taken over while it waits for the operator, and the other commands about a
//! rollout that only look: against the lab.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]

#[path = "json_members/documented.rs"]
mod documented;
#[path = "runbook/page.rs"]
mod page;
mod patience;
#[path = "apply/several.rs"]
mod several;
#[path = "apply/tenants.rs"]
mod tenants;

use documented::{entry, undocumented};
use lab::case::{Case, Mx};
use lab::pki::Cert;
use lab::policy_host::HttpBehavior;
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use page::domain;
use patience::until_some_or;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

struct Scene {
    dir: tempfile::TempDir,
    _lab: Lab,
    _runtime: tokio::runtime::Runtime,
}

impl Scene {
    /// example.org in the lab, with a report address that its zone does not have: `apply` waits for the operator at once.
    fn new() -> Self {
        Self::of(domain("example.org"), "mailto:new@example.org")
    }

    /// This domain in the lab, with a report address.
    fn of(case: Case, rua: &str) -> Self {
        Self::with(&[case], rua, "")
    }

    /// As [`Self::of`], with several cases in the lab, and with more configuration.
    fn with(cases: &[Case], rua: &str, more: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let lab = runtime.block_on(Lab::with_cases(Ports::free(), SystemClock.now(), cases)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), lab.pki.root_pem()).unwrap();
        std::fs::write(dir.path().join("root.key"), lab.names.trust_anchor().unwrap()).unwrap();
        let text = format!(
            "[dns]\nservers = [\"{}\"]\ntrust_anchor = \"root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
             [lab]\ndns_port = {}\nhttps_port = {}\nsmtp_port = {}\n\
             [[domain]]\nname = \"example.org\"\nrua = [\"{rua}\"]\n{more}",
            lab.names.address,
            lab.names.address.port(),
            lab.https_port,
            lab.smtp_port
        );
        std::fs::write(dir.path().join("sternpost.toml"), text).unwrap();
        Self { dir, _lab: lab, _runtime: runtime }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        command.current_dir(self.dir.path()).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> (i32, String) {
        said(&self.command(words).output().unwrap())
    }

    /// Starts `apply`, and returns once it waits for the operator.
    fn waiting(&self) -> Child {
        self.started(&mut self.command(&["apply"]))
    }

    /// Like [`Self::waiting`], from a shell that ignores these signals.
    fn waiting_without(&self, signals: &str) -> Child {
        let mut shell = Command::new("sh");
        shell.current_dir(self.dir.path()).args(["-c", "trap '' $0; exec \"$@\"", signals]);
        // The shell splits `$0` into words.
        self.started(shell.args([env!("CARGO_BIN_EXE_sternpost"), "apply"]))
    }

    /// Starts a command that prints into a file.
    fn begun(&self, command: &mut Command) -> Child {
        let file = std::fs::File::create(self.dir.path().join("printed")).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap()
    }

    fn started(&self, command: &mut Command) -> Child {
        let child = self.begun(command);
        until_some_or(|| self.printed(), || self.printed().contains("not yet").then_some(()));
        child
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("printed")).unwrap_or_default()
    }

    /// Runs `apply` with no patience: it ends with this code at the step that the operator has to do.
    fn applies(&self, words: &[&str]) -> String {
        let (code, printed) = self.run(&[&["apply", "--patience", "0"], words].concat());
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("publish _smtp._tls"), "{printed}");
        printed
    }
}

fn said(output: &Output) -> (i32, String) {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    (output.status.code().unwrap(), String::from_utf8(both).unwrap())
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

#[test]
fn an_interrupted_apply_gives_the_domain_back_at_once_and_says_that_it_resumes() {
    let scene = Scene::new();
    for name in ["INT", "TERM", "HUP"] {
        let mut child = scene.waiting();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(130), "{name}");
        let printed = scene.printed();
        for part in [
            "waiting until every name server of the zone returns the record: checked every 2 seconds, for up to 10 minutes",
            "You can leave with Ctrl-C; `sternpost apply example.org` resumes here.",
            "_smtp._tls has mailto:",
            "mailto:new@example.org is expected",
            "interrupted. `sternpost apply example.org` resumes here.",
        ] {
            assert!(printed.contains(part), "{name}: {part}\n{printed}");
        }
        scene.applies(&[]);
    }
}

#[test]
fn signals_that_are_ignored_at_the_start_stay_ignored() {
    let scene = Scene::new();
    let mut child = scene.waiting_without("HUP INT");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    // Signals 1 and 2.
    assert_eq!(ignored & 0b11, 0b11, "{status}");
    for name in ["HUP", "INT", "HUP", "INT"] {
        signal(&child, name);
    }
    assert!(child.try_wait().unwrap().is_none(), "{}", scene.printed());
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(scene.printed().matches("interrupted.").count(), 1, "{}", scene.printed());
}

#[test]
fn a_killed_apply_does_not_keep_the_domain_and_a_live_one_does_until_it_is_taken_over() {
    let scene = Scene::new();
    let mut child = scene.waiting();
    let (code, printed) = scene.run(&["apply", "--patience", "0"]);
    let holder = format!("its plan is being applied by process {} on ", child.id());
    assert!(code == 3 && printed.contains(&holder), "{code} {printed}");
    assert!(printed.contains("sternpost apply --take-over example.org"), "{printed}");
    child.kill().unwrap();
    // A process that has ended and was not waited for is dead, too.
    scene.applies(&[]);
    child.wait().unwrap();
    let mut child = scene.waiting();
    let printed = scene.applies(&["--take-over"]);
    assert!(printed.contains(&format!("the lease was taken from process {} on ", child.id())), "{printed}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_domain_that_can_not_be_looked_up_stops_no_other_and_one_without_mail_is_never_called_done() {
    let all = lab::cases::all();
    let named = |name: &str| all.iter().find(|case| case.name == name).unwrap().clone();
    // In this order, the domain that fails comes before the last one.
    let names = ["txt-servfail.test", "gone.example.org", "mx-null.test", "good-enforce.test"];
    let more: String = names.iter().map(|name| format!("[[domain]]\nname = \"{name}\"\n")).collect();
    let cases = [domain("example.org"), named("txt-servfail"), named("mx-null"), named("good-enforce")];
    let scene = Scene::with(&cases, "mailto:new@example.org", &more);

    let output = scene.command(&["plan"]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (shown, failed) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{shown}{failed}");
    assert!(failed.contains("error: txt-servfail.test"), "{failed}");
    for part in
        ["example.org: ", "good-enforce.test: ", "gone.example.org does not exist in DNS", "null MX record"]
    {
        assert!(shown.contains(part), "{part}: {shown}{failed}");
    }
    for name in ["gone.example.org", "mx-null.test"] {
        for command in ["plan", "apply"] {
            let (code, printed) = scene.run(&[command, name]);
            assert_eq!(code, 1, "{command} {name}: {printed}");
            assert!(
                !printed.contains("desired state") && printed.contains("No policy is published"),
                "{printed}"
            );
        }
        let (_, printed) = scene.run(&["status", name]);
        assert!(!printed.contains("sternpost apply") && printed.contains("no policy"), "{printed}");
    }

    let (code, printed) = scene.run(&["apply", "--patience", "0"]);
    assert_eq!(code, 3, "{printed}");
    assert!(printed.contains("5 domains: "), "{printed}");
    assert!(printed.contains("publish _smtp._tls") && printed.contains("1 failed"), "{printed}");
    let (code, printed) = scene.run(&["apply", "--patience", "3", "--json"]);
    assert_eq!(code, 3, "{printed}");
    let (json, _) = printed.split_once('\n').unwrap();
    let told: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(told["outcomes"].as_array().unwrap().len(), 4, "{told}");
    assert!(told["failed"][0]["what"].as_str().unwrap().contains("txt-servfail.test"), "{told}");
    let documented =
        ["plan", "apply"].map(|one| entry("docs/receiving.md", &format!("### `{one} --json`"))).concat();
    assert_eq!(undocumented(&told, &documented), [""; 0], "{told}");

    let (code, printed) = scene.run(&["export", "--for", "nginx", "policies"]);
    assert_eq!(code, 3, "{printed}");
    assert!(scene.dir.path().join("policies").exists() && printed.contains("example.org"), "{printed}");
    let (_, brief) = scene.run(&["status", "--brief"]);
    assert!(brief.contains("5 domains: ") && brief.lines().count() == 7, "{brief}");
    let (_, enforced) = scene.run(&["status", "--brief", "--mode", "off"]);
    assert!(enforced.contains("gone.example.org") && !enforced.contains("good-enforce.test"), "{enforced}");
}

#[test]
fn commands_that_look_create_no_store() {
    let scene = Scene::new();
    let files = |folder: &Path| {
        let mut all: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name()).collect();
        all.sort();
        all
    };
    let before = files(scene.dir.path());
    for words in [
        &["status"][..],
        &["domains", "list"],
        &["domains", "show", "example.org"],
        &["reports", "list"],
        &["reports", "quarantine", "list"],
        &["dashboard", "people"],
    ] {
        let (code, printed) = scene.run(words);
        assert_eq!(code, 0, "{words:?}: {printed}");
        assert_eq!(files(scene.dir.path()), before, "{words:?}");
    }
    // The step for `_smtp._tls` says what is there.
    let (code, printed) = scene.run(&["init", "example.org"]);
    assert!(code == 0 && printed.contains("is in sternpost.toml already"), "{printed}");
    let out = scene.command(&["init", "example.org"]).output().unwrap();
    assert!(out.stdout.is_empty());
}

/// A resolver that says of every name that it does not exist, as that of a captive network.
fn lying_resolver() -> std::net::SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut message) {
            // A response without records (RFC 1035 §4.1.1): the question alone, and the code NXDOMAIN.
            let mut end = 12;
            while message[end] != 0 {
                end += usize::from(message[end]) + 1;
            }
            let mut reply = message[..(end + 5).min(length)].to_vec();
            (reply[2], reply[3]) = (0x81, 0x83);
            reply[6..12].fill(0);
            socket.send_to(&reply, from).unwrap();
        }
    });
    address
}

#[test]
fn a_resolver_that_denies_every_name_is_accused_and_the_domain_is_not() {
    let scene = Scene::new();
    let config = format!("[dns]\nservers = [\"{}\"]\n", lying_resolver());
    std::fs::write(scene.dir.path().join("sternpost.toml"), config).unwrap();
    for words in [&["check", "example.org"][..], &["init", "example.org"]] {
        let (code, printed) = scene.run(words);
        assert_eq!(code, 3, "{words:?}: {printed}");
        assert!(printed.contains("gives false answers"), "{words:?}: {printed}");
        assert!(!printed.contains("There is no domain"), "{words:?}: {printed}");
    }
}

#[test]
fn decisions_need_a_reason_and_a_place_that_was_seen() {
    let scene = Scene::new();
    let (code, printed) = scene.run(&["promote", "--force", "--reason", " ", "example.org"]);
    assert!(code == 2 && printed.contains("--reason is empty"), "{code} {printed}");
    let (code, printed) = scene.run(&["status"]);
    assert!(code == 0 && printed.contains("next: sternpost apply example.org"), "{printed}");
    let omit = |place: &str| scene.run(&["omit", "example.org", place, "--reason", "down"]);
    let (code, printed) = omit("ns1.example.net");
    assert!(code == 2 && printed.contains("sternpost plan example.org"), "{code} {printed}");
    let (code, printed) = scene.run(&["plan", "--json"]);
    assert_eq!(code, 0, "{printed}");
    let plan: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(undocumented(&plan, &entry("docs/receiving.md", "### `plan --json`")), [""; 0], "{plan}");
    let servers = plan["plans"][0]["outside"]["servers"].as_array().unwrap();
    let shown =
        |name: &str| servers.iter().find(|view| view["name"] == name && view["kind"] == "TXT").unwrap();
    assert!(shown("_mta-sts.example.org")["shows"].as_str().unwrap().contains("v=STSv1"), "{printed}");
    let addresses = plan["plans"][0]["outside"]["addresses"].as_array().unwrap();
    assert!(!addresses.is_empty() && addresses.iter().all(|view| view["fault"].is_null()), "{printed}");
    let (code, printed) = omit("ns9.example.net");
    let server = servers[0]["server"].as_str().unwrap();
    assert!(code == 2 && printed.contains(server), "{code} {printed}");
    let (code, printed) = omit(server);
    assert!(code == 0 && printed.contains("sternpost omit --undo example.org"), "{code} {printed}");
    let (_, printed) = scene.run(&["status", "--servers"]);
    assert!(printed.contains(&format!("changes do not wait for {server}, by operator: down")), "{printed}");
    assert!(printed.contains("seen from outside at "), "{printed}");
    let (code, printed) = scene.run(&["omit", "--undo", "example.org", server]);
    assert!(code == 0 && printed.contains(" wait for "), "{code} {printed}");
    let (_, printed) = scene.run(&["status"]);
    let is_left_out = printed.contains(&format!("changes do not wait for {server}, by"));
    assert!(printed.contains("again") && !is_left_out, "{printed}");
    // The records are changed by hand here.
    let (code, printed) = scene.run(&["undo", "example.org", "--reason", "a test"]);
    assert!(code == 1 && printed.contains("dns = \"manual\""), "{code} {printed}");
    let (code, printed) = scene.run(&["undo", "--drop-change", "--reason", "a test", "example.org"]);
    assert!(code == 1 && printed.contains("no change of example.org is dropped"), "{code} {printed}");
}

/// example.org in testing, with a second MX host whose certificate is for another name.
fn in_testing_with_a_wrong_certificate() -> Scene {
    let mut case = domain("example.org");
    let second = Mx { label: "mx2", preference: 20, cert: Cert::WrongName, ..case.setup.mx[0].clone() };
    case.setup.mx.push(second);
    case.setup.answers = HttpBehavior::Policy(
        "version: STSv1\r\nmode: testing\r\nmx: mx1.example.org\r\nmx: mx2.example.org\r\nmax_age: 86400\r\n"
            .into(),
    );
    Scene::of(case, "mailto:tlsrpt@example.org")
}

#[test]
fn enforcement_by_force_names_the_hosts_that_lose_mail_and_needs_a_second_word() {
    let scene = in_testing_with_a_wrong_certificate();
    let (_, printed) = scene.run(&["plan"]);
    assert!(printed.contains("from testing to enforce"), "{printed}");
    let force = ["promote", "example.org", "--force", "--reason", "mx2 is only a spare"];
    let (code, printed) = scene.run(&force);
    assert_eq!(code, 1, "{printed}");
    for part in ["mx2.example.org: ", "not valid for the host's name", "would not deliver to mx2.example.org"]
    {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    assert!(!printed.contains("mx1.example.org: "), "{printed}");
    let (_, status) = scene.run(&["status"]);
    assert!(!status.contains("enforcement allowed"), "{status}");
    let (code, printed) = scene.run(&[&force[..], &["--although-mail-is-lost"]].concat());
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains("mx2.example.org: ") && printed.contains("is allowed"), "{printed}");
    let (_, status) = scene.run(&["status"]);
    assert!(status.contains("Reason: mx2 is only a spare"), "{status}");
}

/// On a machine whose outgoing port 25 is blocked, the guard raises an alert with its remedy, `plan` and `status` say why there
/// are no probes, and no MX host speaks for enforcement, so that `promote --force` refuses.
#[test]
fn where_no_mx_host_is_reached_the_guard_says_so_and_force_needs_a_further_word() {
    let mut case = domain("example.org");
    case.setup.answers = HttpBehavior::Policy(
        "version: STSv1\r\nmode: testing\r\nmx: mx1.example.org\r\nmax_age: 86400\r\n".into(),
    );
    let more = "[guard]\nevery = 1\n";
    let scene = Scene::with(&[case], "mailto:tlsrpt@example.org", more);
    let file = scene.dir.path().join("sternpost.toml");
    let blocked: String =
        std::fs::read_to_string(&file)
            .unwrap()
            .lines()
            .map(|line| {
                if line.starts_with("smtp_port") { "smtp_port = 1\n".to_owned() } else { format!("{line}\n") }
            })
            .collect();
    std::fs::write(&file, blocked).unwrap();
    let (_, printed) = scene.run(&["plan"]);
    assert!(printed.contains("from testing to enforce") && !printed.contains("no probes: "), "{printed}");
    let force = ["promote", "example.org", "--force", "--reason", "all hosts were tested by hand"];
    let (code, printed) = scene.run(&force);
    assert_eq!(code, 1, "{printed}");
    for part in [
        "mx1.example.org can't be reached",
        "no MX host can be reached from here",
        "port 25",
        "--although-no-host-was-seen",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
    let mut serve = scene.command(&["serve"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = patience::until_some("the guard says that it reaches no MX host", || {
        Some(scene.run(&["status"]).1).filter(|status| status.contains("mx-unreached: "))
    });
    serve.kill().unwrap();
    serve.wait().unwrap();
    for part in [
        "no probes: the guard reaches no MX host",
        "no MX host of example.org can be reached from this machine: mx1.example.org (",
        "nc -zvw 10 mx1.example.org 25",
    ] {
        assert!(status.contains(part), "{part}\n{status}");
    }
    let (_, printed) = scene.run(&["plan"]);
    assert!(printed.contains("no probes: no MX host of example.org can be reached"), "{printed}");
    let (_, json) = scene.run(&["plan", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(undocumented(&plan, &entry("docs/receiving.md", "### `plan --json`")), [""; 0], "{plan}");
    let (code, printed) = scene.run(&[&force[..], &["--although-no-host-was-seen"]].concat());
    assert!(code == 0 && printed.contains("is allowed"), "{code} {printed}");
}

#[test]
fn reports_from_before_testing_are_counted_among_those_that_do_not_count() {
    let scene = Scene::new();
    let day = SystemClock.now().saturating_sub(jiff::SignedDuration::from_hours(48)).unwrap();
    let day = day.strftime("%Y-%m-%d");
    let report = format!(
        r#"{{"organization-name":"Big","date-range":{{"start-datetime":"{day}T00:00:00Z","end-datetime":"{day}T23:59:59Z"}},"contact-info":"a@big.example","report-id":"1","policies":[{{"policy":{{"policy-type":"no-policy-found","policy-domain":"example.org"}},"summary":{{"total-successful-session-count":2999,"total-failure-session-count":0}}}}]}}"#
    );
    std::fs::write(scene.dir.path().join("big.example!example.org!1!2.json"), report).unwrap();
    let (code, printed) = scene.run(&["reports", "import", "--trusted", "big.example!example.org!1!2.json"]);
    assert_eq!(code, 0, "{printed}");
    let (_, status) = scene.run(&["status"]);
    assert!(status.contains("example.org: not observed yet; desired mode enforce"), "{status}");
    assert!(status.contains("no verified report about a day in testing has arrived yet"), "{status}");
    let left_out = "not counted: 2999 sessions: reported about days before testing began";
    assert!(status.contains(left_out), "{status}");
    assert!(status.contains("next: sternpost apply example.org"), "{status}");
    let (_, json) = scene.run(&["status", "--json"]);
    assert!(json.contains("\"earlier_sessions\":2999"), "{json}");
}

#[test]
fn no_time_is_printed_with_fractions_of_a_second() {
    let scene = in_testing_with_a_wrong_certificate();
    scene.run(&["plan"]);
    for words in [&["status", "--servers"][..], &["plan"], &["domains", "show", "example.org"]] {
        let (_, printed) = scene.run(words);
        let is_fraction = |part: &str| {
            part.split_once('Z').is_some_and(|(digits, _)| {
                !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        assert!(!printed.split('.').skip(1).any(is_fraction), "{words:?}: {printed}");
    }
}
