//! The yardstick (`sternpost lab conformance`) with a real mail server: Postfix 3.10 alone and with Sternpost, in thirty cases of
//! all groups. `./test senders` runs all cases with all drivers.

use crate::postfix::unpacked;
use lab::conformance::case::Group;
use lab::conformance::oracle::Outcome;
use lab::conformance::report::Report;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The cases, of which each group has some.
const CASES: [&str; 30] = [
    "record",
    "record-cname",
    "record-twice",
    "record-no-id",
    "fetch",
    "fetch-redirect",
    "fetch-expired",
    "fetch-html",
    "policy-lf",
    "policy-no-version",
    "match-other-host",
    "match-deep",
    "match-second-host",
    "enforce",
    "enforce-expired",
    "enforce-no-starttls",
    "enforce-stripped",
    "testing-expired",
    "testing-no-starttls",
    "no-policy-self-signed",
    "update-corrected",
    "cached-record-gone",
    "cached-restart",
    "attack-forged-mx",
    "dane-ee",
    "dane-mismatch",
    "dane-stripped",
    "dane-bogus",
    "dane-fails-enforce",
    "dane-unsigned",
];

/// Measures the mail server of a driver, and has the schema of the documentation judge the file.
fn measure(driver: &str, place: &Path, cases: &[&str]) -> Report {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = place.join(format!("{driver}.json"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    command.args(["lab", "conformance", "--fail-on", "never", "--at-once", "30", "--json"]).arg(&file);
    command.arg("--driver").arg(tree.join("drivers").join(driver));
    cases.iter().for_each(|case| {
        command.args(["--only", case]);
    });
    let output = command.env("POSTFIX_ROOT", unpacked("trixie")).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let judge = "import json, jsonschema, sys; jsonschema.validate(*[json.load(open(name)) for name in sys.argv[1:]])";
    let judged = Command::new(unpacked("judge").join("bin/python"))
        .args(["-c", judge])
        .arg(&file)
        .arg(tree.join("docs/conformance.schema.json"))
        .output()
        .unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// The names and reasons of the cases that do not conform.
fn wrong(report: &Report) -> Vec<(&str, String)> {
    let wrong = report.cases.iter().filter(|case| case.outcome != Outcome::Conforms);
    wrong
        .map(|case| (case.id.as_str(), format!("{:?} {:?} {:#?}", case.outcome, case.why, case.phases)))
        .collect()
}

#[test]
fn postfix_with_sternpost_conforms_in_thirty_cases() {
    let place = tempfile::tempdir().unwrap();
    let report = measure("postfix-sternpost", place.path(), &CASES);
    assert!(
        report.server.starts_with("Postfix 3.10") && report.server.contains("sternpost"),
        "{}",
        report.server
    );
    assert_eq!(wrong(&report), []);
    assert_eq!(report.cases.len(), CASES.len());
}

/// Reports of several days, and policies that end after days, which need the moved clock.
#[test]
fn postfix_with_sternpost_reports_and_forgets_policies_as_the_rfcs_ask() {
    let place = tempfile::tempdir().unwrap();
    let report = measure("postfix-sternpost", place.path(), &["report-*", "clock-*"]);
    // docs/postfix.md: at the level `dane`, an answer that only names a policy would lower the level. Postfix then reports such
    // sessions without the policy. It reports a certificate of an unknown CA as `validation-failure`, and no session where it
    // connects to no MX host: none matches the policy, or the query for TLSA records fails.
    let known = [
        "report-fetch",
        "report-mx-mismatch",
        "report-policy-invalid",
        "report-testing",
        "report-tlsa-servfail",
        "report-untrusted",
        "report-webpki",
    ];
    let mut wrong = wrong(&report);
    wrong.retain(|(id, _)| !known.contains(id));
    assert_eq!(wrong, []);
    assert!(report.cases.iter().filter(|case| case.group == Group::Reports).count() > 25);
}

/// Nothing makes Postfix alone send reports.
#[test]
fn what_a_driver_has_no_script_for_is_not_observable() {
    let place = tempfile::tempdir().unwrap();
    let report = measure("postfix-dane", place.path(), &["report-sts"]);
    let case = &report.cases[0];
    let why = case.why.as_deref().unwrap_or_default();
    assert!(case.outcome == Outcome::NotObservable && why.contains("no script \"reports\""), "{case:?}");
}

/// A known truth that the yardstick is held against.
#[test]
fn postfix_alone_passes_the_cases_of_dane_and_no_discriminating_case_of_mta_sts() {
    let place = tempfile::tempdir().unwrap();
    let report = measure("postfix-dane", place.path(), &CASES);
    let all = lab::conformance::cases::all();
    let expected: Vec<&str> = all
        .iter()
        .filter(|case| CASES.contains(&case.id) && case.group != Group::Dane)
        .filter(|case| case.without == lab::conformance::case::Without::FallsShort)
        .map(|case| case.id)
        .collect();
    let wrong = wrong(&report);
    assert_eq!(wrong.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected, "{wrong:?}");
}

/// A mail server that relays for a user with a password, over TLS with the lab's certificate: a Haraka of the test's own.
const HARAKA: &str = r#"#!/bin/sh
set -eu
. "$DRIVERS/lib/haraka.sh"
. "$DRIVERS/lib/listening.sh"
own=$LAB_DIR/haraka program=$haraka/node_modules/Haraka
mkdir -p "$own/config" "$own/queue"
cp "$program/config/connection.ini" "$own/config"
printf 'tls\nauth/flat_file\n' >"$own/config/plugins"
cp "$LAB_CERT" "$own/config/tls_cert.pem"
cp "$LAB_KEY" "$own/config/tls_key.pem"
printf '[core]\nmethods=PLAIN,LOGIN\nconstrain_sender=false\n[users]\nlab=secret\n' >"$own/config/auth_flat_file.ini"
printf 'listen=127.0.0.1:2525\nnodes=0\n' >"$own/config/smtp.ini"
printf 'local_mx_ok=true\ntemp_fail_intervals=1h\nconnect_timeout=5\n' >"$own/config/outbound.ini"
echo mail.sender.test >"$own/config/me"
node "$program/bin/haraka" -c "$own" >>"$LAB_DIR/log" 2>&1 </dev/null &
echo $! >"$LAB_DIR/pid"
until_listening 2525
echo Haraka with AUTH
"#;

#[test]
fn messages_are_handed_over_with_a_login_to_a_server_that_the_lab_has_certified() {
    let place = tempfile::tempdir().unwrap();
    let driver = place.path().join("driver");
    std::fs::create_dir(&driver).unwrap();
    for (name, text) in [("start", HARAKA), ("stop", "#!/bin/sh\nkill \"$(cat \"$LAB_DIR/pid\")\"\n")] {
        std::fs::write(driver.join(name), text).unwrap();
        std::fs::set_permissions(driver.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let drivers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../drivers");
    for (password, outcome) in [("secret\n", Outcome::Conforms), ("n0t-it\n", Outcome::LabFailed)] {
        let (file, json) = (place.path().join("password"), place.path().join("auth.json"));
        std::fs::write(&file, password).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
        command
            .args(["lab", "conformance", "--fail-on", "never", "--only", "no-policy", "--driver"])
            .arg(&driver);
        command.args(["--smtp", "127.0.0.1:2525", "--smtp-user", "lab", "--smtp-password-file"]).arg(&file);
        command.env("DRIVERS", &drivers).env("HARAKA_ROOT", unpacked("haraka")).arg("--json").arg(&json);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let report: Report =
            serde_json::from_slice(&std::fs::read(json).unwrap_or_else(|error| panic!("{error}: {said}")))
                .unwrap();
        assert_eq!(report.cases[0].outcome, outcome, "{said}");
        assert!(!said.contains(password.trim()), "{said}");
    }
}
