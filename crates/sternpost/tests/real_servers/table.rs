//! Real Postfix asks Sternpost for policies and delivers into the lab, whose zones Knot serves and Unbound validates. For
//! each case the table has the expected result, the result, the log line and the session that Postfix reported.
//!
//! Each release of Postfix runs through all cases once (3.11 by [`crate::newest`]); the tests of checklist IDs judge the rows of that one run. The
//! tables are written to `target/`, and `./test` prints them.

use crate::faults;
use crate::ground::{Ground, block};
use crate::postfix::{Postfix, Release};
use crate::support::in_a_room_of_its_own;
use formats::datagram::Session;
use formats::{DomainName, ResultType};
use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

/// The lab's domains, and what Postfix does with mail for them: 3.7, then 3.10 and later.
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
    ("mx-no-starttls-none", Clear, Clear),
    ("mx-handshake-breaks", Deferred, Deferred),
    ("mx-expired", Deferred, Deferred),
    ("mx-expired-testing", Encrypted, Encrypted),
    ("mx-not-yet", Deferred, Deferred),
    ("mx-untrusted", Deferred, Deferred),
    ("mx-wildcard-cert", Verified, Verified),
    ("mx-wrong-name", Deferred, Deferred),
    ("mx-self-signed", Deferred, Deferred),
    ("mx-second-good", Verified, Verified),
    ("mx-first-unlisted", Verified, Verified),
    ("mx-first-down", Verified, Verified),
    ("mx-alias", Verified, Verified),
    ("mx-implicit", Verified, Verified),
    ("plain-self-signed", Encrypted, Encrypted),
    ("dane-ee", Verified, Verified),
    ("dane-ee-expired", Verified, Verified),
    ("dane-ee-name", Verified, Verified),
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

/// The domains of [`faults`], and what every release does with mail for them.
const FAULTS: &[(&str, Fate)] = &[
    // No policy in `enforce`, and the host's TLSA records don't match: Postfix defers by itself at level `dane`.
    ("hosted-plain", Deferred),
    ("hosted-testing", Deferred),
    ("hosted-404", Deferred),
    // A table has one level for a domain: the enforced policy is answered, and the certificate satisfies it.
    ("hosted-enforce", Verified),
    ("alias-right", Verified),
    ("alias-wrong", Deferred),
    ("port-587", Verified),
    // The TLSA record of port 25, which does not match, is not the one of port 587.
    ("port-25", Encrypted),
    ("many-patterns", Verified),
    ("many-mx", Encrypted),
    // The certificate has expired, which counts where the policy was found.
    ("eight-aaaa", Deferred),
    ("address-line", Deferred),
];

/// One message: what was expected and what happened.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Row {
    title: String,
    expected: Fate,
    /// `None` when the log and the MX host contradict each other.
    seen: Option<Fate>,
    /// Postfix's log lines about the message.
    log: String,
    /// The policy types and results that Postfix 3.10 reported.
    reported: String,
}

struct Room {
    ground: Ground,
    postfix: Postfix,
    reports: Option<UnixDatagram>,
    rows: Vec<Row>,
}

fn room(release: Release, place: &Path) -> Room {
    let names: Vec<&str> = CASES.iter().map(|(name, ..)| *name).collect();
    let mut ground = Ground::with_more(443, place, &names, "good-testing", faults::add);
    let (mark, socket) = match release {
        Release::V3_7 => ("main.cf 3.4", "unix:/var/spool/postfix/answers.sock:"),
        Release::V3_10 | Release::V3_11 => ("main.cf 3.10", "inet:127.0.0.1:8461:"),
    };
    // The documented lines, with the lab's root; one of the releases asks through a Unix socket.
    let lines = block("postfix.md", mark).replace("inet:127.0.0.1:8461:", socket) + faults::MAIN_CF;
    let postfix = Postfix::start(release, place, &lines);
    let reports = (release != Release::V3_7).then(|| {
        let path = postfix.spool().join("run/tlsrpt/tlsrpt.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let spool = postfix.spool();
    ground.serve(&format!(
        "listen = [\"127.0.0.1:8461\", \"unix:{}/answers.sock\"]\nrecheck = 1\n{}",
        spool.display(),
        faults::ANSWERS
    ));
    check_the_map(&postfix);
    Room { ground, postfix, reports, rows: Vec::new() }
}

/// Runs the documented command that checks the map, and compares its output.
fn check_the_map(postfix: &Postfix) {
    let transcript = block("postfix.md", "console test domain");
    let (command, output) = transcript.strip_prefix("$ ").unwrap().split_once('\n').unwrap();
    let command = command.strip_prefix("sudo ").unwrap();
    assert!(command.starts_with("postmap -q sternpost.invalid "), "{command}");
    assert_eq!(postfix.run(command), output);
}

impl Room {
    /// Sends to a domain and notes the result.
    fn expect(&mut self, title: &str, name: &str, expected: Fate) {
        let log = self.postfix.send(&format!("b@{name}.test"));
        self.note(title, name, expected, log);
    }

    fn note(&mut self, title: &str, name: &str, expected: Fate, log: String) {
        let to = format!("b@{name}.test");
        let status = log.lines().rfind(|line| line.contains(&to) && line.contains(" status=")).unwrap();
        let received = self.ground.lab.mail_traffic.take_received();
        let arrived = received.iter().find(|mail| mail.incoming.to.contains(&to));
        let verified = log.contains("Verified TLS connection established");
        let seen = match (status.contains("status=sent"), arrived) {
            (true, Some(mail)) if mail.incoming.tls && verified => Some(Verified),
            (true, Some(mail)) if mail.incoming.tls => Some(Encrypted),
            (true, Some(_)) => Some(Clear),
            (false, None) if status.contains("status=deferred") => Some(Deferred),
            _ => None,
        };
        let reported = self.reported();
        self.rows.push(Row { title: title.to_owned(), expected, seen, log, reported });
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
                told.push(
                    format!("{} {}", policy.policy_type.as_str(), failures.join(" ")).trim_end().to_owned(),
                );
            }
        }
        told.join(", ")
    }

    fn all_cases(&mut self, release: Release) {
        for (name, old, new) in CASES {
            let expected = if release == Release::V3_7 { *old } else { *new };
            self.expect(name, name, expected);
        }
    }

    fn faults(&mut self) {
        for (name, expected) in FAULTS {
            self.expect(name, name, *expected);
        }
        let relay = DomainName::parse("mx.service.test").unwrap();
        self.ground.lab.mail_traffic.strip(&relay, true);
        self.expect("STARTTLS stripped at a relay whose port is a service name", "service", Deferred);
    }

    /// A forged MX answer passes by; then another one leads to the attacker's host.
    fn forged_mx(&mut self) {
        self.expect("held", "held", Verified);
        faults::forge_mx(&self.ground, "10 mx1.held.test.", "0 .");
        faults::forge_mx(&self.ground, "0 .", &format!("0 {}.", lab::Lab::attackers_host()));
        self.expect("MX records forged, policy known", "held", Deferred);
    }

    fn stripped(&mut self) {
        self.ground.strip("good-enforce", true);
        self.expect("STARTTLS stripped, enforced", "good-enforce", Deferred);
        self.ground.strip("good-enforce", false);
        self.ground.strip("no-mta-sts", true);
        self.expect("STARTTLS stripped, no policy", "no-mta-sts", Clear);
        self.ground.strip("no-mta-sts", false);
    }

    /// The policy host is down: for a domain whose policy is known it stays in force.
    fn host_down(&mut self) {
        self.ground.cut_policy_host("good-enforce", true);
        self.ground.operator("cache refresh good-enforce.test");
        self.expect("policy host down, policy known", "good-enforce", Verified);
        self.ground.cut_policy_host("good-enforce", false);
        self.ground.cut_policy_host("txt-split", true);
        self.ground.operator("cache purge txt-split.test");
        self.expect("policy host down, policy not known", "txt-split", Encrypted);
        self.ground.cut_policy_host("txt-split", false);
    }

    /// An operator moves to enforce with a wrong list, sees it, and mends it: mail that waits goes out
    /// soon after the `id` has changed, though the wrong policy has a year to live.
    fn changed_id(&mut self) {
        let name = "good-testing";
        let wrong = "version: STSv1\nmode: enforce\nmx: elsewhere.example\nmax_age: 31557600\n";
        let right = wrong.replace("elsewhere.example", "mx1.good-testing.test");
        self.ground.serve_policy(name, wrong);
        self.ground.names.change("good-testing.test.", "id=20260101000000", "id=2");
        self.ground.until_answered(name, "elsewhere.example");
        self.expect("id changed: the MX is not in the new policy", name, Deferred);
        self.ground.serve_policy(name, &right);
        self.ground.names.change("good-testing.test.", "id=2", "id=3");
        self.ground.until_answered(name, "match=mx1.good-testing.test");
        let log = self.postfix.flush(&format!("b@{name}.test"));
        self.note("id changed again: the policy is mended", name, Verified, log);
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

impl Row {
    /// The row of the table in `target/`.
    fn line(&self) -> String {
        let status = self.log.lines().rfind(|line| line.contains(" status=")).unwrap_or_default();
        let said = status.split_once(" status=").map_or(status, |(_, rest)| rest);
        let seen = self.seen.map_or("?".to_owned(), |seen| format!("{seen:?}"));
        format!("| {} | {:?} | {seen} | {said} | {} |\n", self.title, self.expected, self.reported)
    }

    fn fault(&self, release: Release) -> Option<String> {
        if self.seen != Some(self.expected) {
            return Some(format!(
                "{}: expected {:?}, saw {:?}\n{}",
                self.title, self.expected, self.seen, self.log
            ));
        }
        let expected = report_of(&self.title).filter(|_| release != Release::V3_7)?;
        let differs = self.reported != expected;
        differs.then(|| format!("{}: reported {:?}, expected {expected:?}", self.title, self.reported))
    }
}

/// Runs one release of Postfix through all cases, and writes the table.
fn run(release: Release) -> Vec<Row> {
    let (give, take) = std::sync::mpsc::channel();
    in_a_room_of_its_own(move || {
        let place = tempfile::tempdir().unwrap();
        let mut room = room(release, place.path());
        room.all_cases(release);
        room.faults();
        room.forged_mx();
        room.stripped();
        room.host_down();
        room.changed_id();
        if room.rows.iter().any(|row| row.fault(release).is_some()) {
            println!("{}", room.ground.log());
        }
        give.send(room.rows).unwrap();
    });
    let rows = take.recv().unwrap();
    let mut table =
        String::from("| case | expected | seen | the log | reported |\n| --- | --- | --- | --- | --- |\n");
    rows.iter().for_each(|row| table.push_str(&row.line()));
    std::fs::write(target().join(format!("postfix-{release:?}.md")), table).unwrap();
    rows
}

fn target() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&target).unwrap();
    target
}

/// The rows of a release, from one run: cargo-nextest gives each test a process of its own, of which the first one runs
/// Postfix and the others read its rows.
fn run_once(release: Release) -> Vec<Row> {
    let Ok(id) = std::env::var("NEXTEST_RUN_ID") else { return run(release) };
    let mut options = File::options();
    options.create(true).truncate(false).read(true).write(true);
    let mut file = options.open(target().join(format!("postfix-{release:?}.json"))).unwrap();
    file.lock().unwrap();
    if let Ok((of, rows)) = serde_json::from_reader::<_, (String, Vec<Row>)>(&file)
        && of == id
    {
        return rows;
    }
    let rows = run(release);
    file.rewind().unwrap();
    file.set_len(0).unwrap();
    serde_json::to_writer(&mut file, &(id, &rows)).unwrap();
    rows
}

static V3_7: LazyLock<Vec<Row>> = LazyLock::new(|| run_once(Release::V3_7));
static V3_10: LazyLock<Vec<Row>> = LazyLock::new(|| run_once(Release::V3_10));
static V3_11: LazyLock<Vec<Row>> = LazyLock::new(|| run_once(Release::V3_11));

fn rows(release: Release) -> &'static [Row] {
    match release {
        Release::V3_7 => &V3_7,
        Release::V3_10 => &V3_10,
        Release::V3_11 => &V3_11,
    }
}

/// The named cases, each of which must have ended with both releases as the table says.
fn prove(titles: &[&str]) {
    for release in [Release::V3_7, Release::V3_10] {
        for title in titles {
            let row = rows(release).iter().find(|row| row.title == *title);
            let row = row.unwrap_or_else(|| panic!("no case {title} in the table"));
            assert_eq!(row.fault(release), None, "Postfix {release:?}");
        }
    }
}

/// Every row of the table is as expected.
pub fn all_as_expected(release: Release) {
    let faults: Vec<String> = rows(release).iter().filter_map(|row| row.fault(release)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn postfix_3_7_delivers_as_the_policies_say() {
    all_as_expected(Release::V3_7);
}

#[test]
fn postfix_3_10_delivers_and_reports_as_the_policies_say() {
    all_as_expected(Release::V3_10);
}

macro_rules! proved_by {
    ($(fn $name:ident() = $cases:expr;)*) => {
        $(#[test]
        fn $name() {
            prove(&$cases);
        })*
    };
}

proved_by! {
    fn val_04_the_mx_certificate_is_in_date_trusted_and_carries_the_host_name() = ["good-enforce", "mx-expired", "mx-not-yet", "mx-wrong-name", "mx-self-signed", "mx-untrusted", "mx-wildcard-cert"];
    fn val_06_enforce_goes_on_to_the_next_host_after_one_that_fails() = ["mx-second-good", "mx-first-unlisted", "mx-first-down"];
    fn val_07_enforce_without_a_valid_host_waits() = ["mx-no-starttls", "mx-expired", "mx-handshake-breaks", "STARTTLS stripped, enforced"];
    fn val_08_testing_delivers_whatever_tls_shows() = ["good-testing", "mx-expired-testing", "mx-no-starttls-testing", "mx-not-listed-testing"];
    fn val_09_mode_none_is_as_if_there_were_no_policy() = ["good-none", "mx-no-starttls-none"];
    fn val_10_a_failing_dane_validation_is_not_overridden_by_mta_sts() = ["dane-fails-sts", "dane-bogus"];
    fn val_11_dane_decides_where_there_are_usable_secure_records() = ["dane-beats-sts", "sts-signed"];
    fn val_15_hosts_that_fail_are_met_in_their_usual_order() = ["mx-second-good", "mx-first-unlisted"];
    fn val_24_a_forged_mx_answer_does_not_strip_a_policy_that_is_known() = ["held", "MX records forged, policy known"];
    fn val_25_without_mx_records_the_domain_itself_is_the_mx() = ["mx-implicit"];
    fn val_27_hosts_that_postfix_alone_would_verify_are_verified() = ["hosted-plain", "hosted-testing", "hosted-404", "alias-wrong"];
    fn dane_01_the_port_of_the_tlsa_records_is_the_next_hops() = ["port-587", "port-25"];
    fn dane_13_hosts_beyond_the_limit_are_used_without_tlsa_records() = ["many-mx"];
    fn smk_07_a_policy_of_many_patterns_is_within_what_postfix_reads() = ["many-patterns"];
    fn smk_11_a_service_name_is_the_port_of_a_relay() = ["STARTTLS stripped at a relay whose port is a service name"];
    fn dane_02_only_secure_answers_count() = ["dane-unsigned", "dane-ee"];
    fn a_policy_is_found_past_unroutable_addresses_and_past_lines_with_addresses() = ["eight-aaaa", "address-line"];
    fn a_secure_alias_of_an_unsigned_host_has_the_tlsa_records_of_the_mx_name() = ["alias-right", "alias-wrong"];
    fn an_enforced_policy_is_answered_where_tlsa_records_are_behind_unsigned_mx_records() = ["hosted-enforce"];
    fn dane_03_mail_waits_while_tlsa_records_are_bogus() = ["dane-bogus"];
    fn dane_08_names_and_dates_do_not_count_with_usage_3() = ["dane-ee-expired", "dane-ee-name", "dane-ee"];
}
