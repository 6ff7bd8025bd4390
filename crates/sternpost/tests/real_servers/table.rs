//! Real Postfix asks Sternpost and delivers into the lab, under the eyes of Knot and Unbound: case by
//! case what was expected, what the log says and what reached the MX. The tables that it makes are
//! in `target/`; `./test` prints them.

use crate::names::Names;
use crate::postfix::{Postfix, Release};
use crate::support::{daemon, in_a_room_of_its_own, shell, until};
use formats::datagram::Session;
use formats::{DomainName, ResultType};
use lab::case::Case;
use lab::pki::Cert;
use lab::policy_host::{Answers, Site};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It arrives, the MX verified.
    Verified,
    /// It arrives through TLS with whoever answered.
    Encrypted,
    /// It arrives in the clear.
    Clear,
    /// It waits.
    Deferred,
}
use Fate::{Clear, Deferred, Encrypted, Verified};

/// The lab's domains, and what Postfix does with mail for them: 3.7, then 3.10.
const CASES: &[(&str, Fate, Fate)] = &[
    ("good-enforce", Verified, Verified),
    ("good-testing", Encrypted, Encrypted),
    ("good-none", Encrypted, Encrypted),
    ("no-mta-sts", Encrypted, Encrypted),
    ("txt-split", Verified, Verified),
    ("txt-cname", Verified, Verified),
    ("txt-two-records", Encrypted, Encrypted),
    ("host-cname", Verified, Verified),
    ("host-refused", Encrypted, Encrypted),
    ("cert-expired", Encrypted, Encrypted),
    ("cert-wrong-name", Encrypted, Encrypted),
    ("http-redirect", Encrypted, Encrypted),
    ("http-404", Encrypted, Encrypted),
    ("http-oversize", Encrypted, Encrypted),
    ("policy-no-mx", Encrypted, Encrypted),
    ("policy-wildcard", Verified, Verified),
    ("mx-not-listed", Deferred, Deferred),
    ("mx-not-listed-testing", Encrypted, Encrypted),
    // Postfix's `.example.org` covers several labels; with the patterns 3.10.5 knows better (SMK-06).
    ("mx-too-deep", Verified, Deferred),
    ("mx-no-starttls", Deferred, Deferred),
    ("mx-no-starttls-testing", Clear, Clear),
    ("mx-expired", Deferred, Deferred),
    ("mx-wrong-name", Deferred, Deferred),
    ("mx-self-signed", Deferred, Deferred),
    ("mx-second-good", Verified, Verified),
    ("mx-alias", Verified, Verified),
    ("mx-implicit", Verified, Verified),
    ("plain-self-signed", Encrypted, Encrypted),
    ("dane-ee", Verified, Verified),
    ("dane-ee-expired", Verified, Verified),
    ("dane-ta", Verified, Verified),
    ("dane-mismatch", Deferred, Deferred),
    ("dane-no-starttls", Deferred, Deferred),
    ("dane-unusable", Encrypted, Encrypted),
    ("dane-unsigned", Encrypted, Encrypted),
    ("dane-none", Encrypted, Encrypted),
    ("dane-bogus", Deferred, Deferred),
    ("dane-beats-sts", Verified, Verified),
    ("dane-fails-sts", Deferred, Deferred),
    ("sts-signed", Verified, Verified),
];

struct Room {
    lab: Lab,
    cases: Vec<Case>,
    names: Names,
    postfix: Postfix,
    reports: Option<UnixDatagram>,
    place: std::path::PathBuf,
    table: String,
    wrong: Vec<String>,
    _runtime: tokio::runtime::Runtime,
    _sternpost: crate::support::Running,
}

fn room(release: Release, place: &Path) -> Room {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let wanted = |case: &Case| CASES.iter().any(|(name, ..)| *name == case.name);
    let cases: Vec<Case> = lab::cases::all().into_iter().filter(wanted).collect();
    assert_eq!(cases.len(), CASES.len(), "a name is not in the lab's table");
    let ports = Ports { dns: 5300, https: 443, smtp: 25, block: 77 };
    let lab = runtime.block_on(Lab::with_cases(ports, SystemClock.now(), &cases)).unwrap();
    let mut zones = lab.names.zone_files();
    // The record of this domain is to be looked at again soon.
    let changing = zones.iter_mut().find(|zone| zone.origin == "good-testing.test.").unwrap();
    changing.text = changing.text.replace("_mta-sts.good-testing.test. 300", "_mta-sts.good-testing.test. 1");
    let names = Names::start(&place.join("names"), [127, 77, 0, 1].into(), &zones);
    std::fs::write(place.join("ca.pem"), lab.pki.root_pem()).unwrap();
    let (map, report) = match release {
        Release::V3_7 => ("unix:/var/spool/postfix/answers.sock:postfix", ""),
        Release::V3_10 => (
            "inet:127.0.0.1:8461:QUERYwithTLSRPT",
            "smtp_tlsrpt_enable = yes\nsmtp_tlsrpt_socket_name = tlsrpt.sock\n",
        ),
    };
    // These are the lines of docs/postfix.md.
    let lines = format!("smtp_tls_security_level = dane\nsmtp_tls_policy_maps = socketmap:{map}\n{report}");
    let postfix = Postfix::start(release, place, &lines);
    let reports = (release == Release::V3_10).then(|| {
        let path = postfix.spool().join("tlsrpt.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let config = format!(
        "[dns]\nservers = [\"127.0.0.1:53\"]\ntrust_anchor = \"names/root.key\"\n[trust]\nca_file = \"ca.pem\"\nallow_private_addresses = true\n\
         [answers]\nlisten = [\"127.0.0.1:8461\", \"unix:{}/answers.sock\"]\nrecheck = 1\n",
        postfix.spool().display()
    );
    std::fs::write(place.join("sternpost.toml"), config).unwrap();
    let program = env!("CARGO_BIN_EXE_sternpost");
    let line = format!("{program} --config {}/sternpost.toml serve", place.display());
    let sternpost = daemon(&line, &place.join("sternpost.log"));
    let socket = place.join("sternpost.sock");
    until("sternpost serves", || socket.exists());
    Room {
        lab,
        cases,
        names,
        postfix,
        reports,
        place: place.to_owned(),
        table: String::from("| case | expected | seen | the log | reported |\n| --- | --- | --- | --- | --- |\n"),
        wrong: Vec::new(),
        _runtime: runtime,
        _sternpost: sternpost,
    }
}

impl Room {
    fn case(&self, name: &str) -> Case {
        self.cases.iter().find(|case| case.name == name).unwrap().clone()
    }

    fn policy_host(&self, name: &str) -> String {
        format!("mta-sts.{name}.test")
    }

    /// Sends to a domain and holds what happens against what is expected.
    fn expect(&mut self, title: &str, name: &str, expected: Fate) -> String {
        let log = self.postfix.send(&format!("b@{name}.test"));
        self.judge(title, name, expected, &log)
    }

    fn judge(&mut self, title: &str, name: &str, expected: Fate, log: &str) -> String {
        let to = format!("b@{name}.test");
        let status = log.lines().rfind(|line| line.contains(&to) && line.contains(" status=")).unwrap();
        let received = self.lab.post.take_received();
        let arrived = received.iter().find(|mail| mail.incoming.to.contains(&to));
        let verified = log.contains("Verified TLS connection established");
        let seen = match (status.contains("status=sent"), arrived) {
            (true, Some(mail)) if mail.incoming.tls && verified => Some(Verified),
            (true, Some(mail)) if mail.incoming.tls => Some(Encrypted),
            (true, Some(_)) => Some(Clear),
            (false, None) if status.contains("status=deferred") => Some(Deferred),
            _ => None,
        };
        let said = status.split_once(" status=").map_or(status, |(_, rest)| rest);
        let reported = self.reported();
        let _ = writeln!(
            self.table,
            "| {title} | {expected:?} | {} | {said} | {reported} |",
            seen.map_or("?".to_owned(), |seen| format!("{seen:?}"))
        );
        if seen != Some(expected) {
            self.wrong.push(format!("{title}: expected {expected:?}, saw {seen:?}\n{log}"));
        }
        reported
    }

    /// The policy types and results of the datagrams that Postfix has sent since.
    fn reported(&self) -> String {
        let Some(socket) = &self.reports else { return String::new() };
        let mut told = Vec::new();
        let mut buffer = vec![0; 65_536];
        while let Ok(length) = socket.recv(&mut buffer) {
            let session = Session::parse(&buffer[..length]).unwrap();
            for policy in session.policies {
                let failures: Vec<&str> =
                    policy.failures.iter().map(|failure| ResultType::as_str(&failure.result_type)).collect();
                told.push(format!("{} {}", policy.policy_type.as_str(), failures.join(" ")).trim_end().to_owned());
            }
        }
        told.join(", ")
    }

    fn operator(&self, words: &str) -> String {
        shell(&format!("sternpost --config {}/sternpost.toml {words}", self.place.display()))
    }

    fn serve_policy(&self, name: &str, body: &str) {
        let host = self.policy_host(name);
        let identity = self.lab.pki.issue(&host, Cert::Good).unwrap();
        self.lab.sites.put(&host, Site { answers: Answers::Policy(body.to_owned()), identity });
    }

    /// STARTTLS is stripped, as by an attacker on the path.
    fn strip(&self, name: &str, on: bool) {
        self.lab.post.strip(&DomainName::parse(&format!("mx1.{name}.test")).unwrap(), on);
    }

    fn all_cases(&mut self, release: Release) {
        for (name, old, new) in CASES {
            let expected = if release == Release::V3_7 { *old } else { *new };
            let reported = self.expect(name, name, expected);
            if let (Release::V3_10, Some(type_and_result)) = (release, report_of(name)) {
                if reported != type_and_result {
                    self.wrong.push(format!("{name}: reported {reported:?}, expected {type_and_result:?}"));
                }
            }
        }
    }

    fn stripped(&mut self) {
        self.strip("good-enforce", true);
        self.expect("STARTTLS stripped, enforced", "good-enforce", Deferred);
        self.strip("good-enforce", false);
        self.strip("no-mta-sts", true);
        self.expect("STARTTLS stripped, no policy", "no-mta-sts", Clear);
        self.strip("no-mta-sts", false);
    }

    /// The policy host is down: for a domain whose policy is known it stays in force.
    fn host_down(&mut self) {
        let case = self.case("good-enforce");
        self.lab.sites.block(&self.policy_host("good-enforce"), true);
        self.operator("cache refresh good-enforce.test");
        self.expect("policy host down, policy known", "good-enforce", Verified);
        assert!(case.attack.block_host || self.operator("cache show good-enforce.test").contains("secure"));
        self.lab.sites.block(&self.policy_host("good-enforce"), false);
        self.lab.sites.block(&self.policy_host("txt-split"), true);
        self.operator("cache purge txt-split.test");
        self.expect("policy host down, policy not known", "txt-split", Encrypted);
        self.lab.sites.block(&self.policy_host("txt-split"), false);
    }

    /// An operator moves to enforce with a wrong list, sees it, and mends it: mail that waits goes out
    /// soon after the `id` has changed, though the wrong policy has a year to live.
    fn changed_id(&mut self) {
        let name = "good-testing";
        let wrong = "version: STSv1\nmode: enforce\nmx: elsewhere.example\nmax_age: 31557600\n";
        let right = wrong.replace("elsewhere.example", "mx1.good-testing.test");
        self.serve_policy(name, wrong);
        self.names.change("good-testing.test.", "id=20260101000000", "id=2");
        self.until_answered(name, "elsewhere.example");
        self.expect("id changed: the MX is not in the new policy", name, Deferred);
        self.serve_policy(name, &right);
        self.names.change("good-testing.test.", "id=2", "id=3");
        self.until_answered(name, "match=mx1.good-testing.test");
        let log = self.postfix.flush(&format!("b@{name}.test"));
        self.judge("id changed again: the policy is mended", name, Verified, &log);
    }

    /// Asks as Postfix does until the answer has this in it; each asking may set a look-up going.
    fn until_answered(&self, name: &str, text: &str) {
        let mut said = String::new();
        until(&format!("{text} in the answer for {name}"), || {
            said = self.operator(&format!("query --cached {name}.test"));
            said.contains(text)
        });
    }
}

/// What Postfix 3.10 reports of some cases.
fn report_of(name: &str) -> Option<&'static str> {
    match name {
        "good-enforce" | "good-testing" | "policy-wildcard" => Some("sts"),
        "no-mta-sts" | "good-none" => Some("no-policy-found"),
        "mx-no-starttls" => Some("sts starttls-not-supported"),
        "dane-ee" | "dane-beats-sts" => Some("tlsa"),
        _ => None,
    }
}

fn delivers(release: Release) {
    in_a_room_of_its_own(move || {
        let place = tempfile::tempdir().unwrap();
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut room = room(release, place.path());
        room.all_cases(release);
        room.stripped();
        room.host_down();
        room.changed_id();
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        std::fs::write(target.join(format!("postfix-{release:?}.md")), &room.table).unwrap();
        let log = std::fs::read_to_string(place.path().join("sternpost.log")).unwrap();
        assert!(room.wrong.is_empty(), "{}\n{}\n{log}", room.wrong.join("\n"), room.table);
    });
}

#[test]
fn postfix_3_7_delivers_as_the_policies_say() {
    delivers(Release::V3_7);
}

#[test]
fn postfix_3_10_delivers_and_reports_as_the_policies_say() {
    delivers(Release::V3_10);
}
