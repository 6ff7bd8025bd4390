//! The yardstick (`sternpost lab conformance`) with a real mail server: Postfix 3.10 alone and with Sternpost, in thirty cases of
//! all groups. `./test senders` runs all cases with all drivers.

use crate::postfix::unpacked;
use lab::conformance::case::Group;
use lab::conformance::oracle::Outcome;
use lab::conformance::report::Report;
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
fn measure(driver: &str, place: &Path) -> Report {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = place.join(format!("{driver}.json"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sternpost"));
    command.args(["lab", "conformance", "--fail-on", "never", "--at-once", "30", "--json"]).arg(&file);
    command.arg("--driver").arg(tree.join("drivers").join(driver));
    CASES.iter().for_each(|case| {
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
    let report = measure("postfix-sternpost", place.path());
    assert!(
        report.server.starts_with("Postfix 3.10") && report.server.contains("sternpost"),
        "{}",
        report.server
    );
    assert_eq!(wrong(&report), []);
    assert_eq!(report.cases.len(), CASES.len());
}

/// A known truth that the yardstick is held against.
#[test]
fn postfix_alone_passes_the_cases_of_dane_and_no_discriminating_case_of_mta_sts() {
    let place = tempfile::tempdir().unwrap();
    let report = measure("postfix-dane", place.path());
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
