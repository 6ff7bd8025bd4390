//! The yardstick against senders of our own: the correct one passes every case, and each wrong one fails exactly the cases
//! that its fault concerns.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use futures_util::future::join_all;
use net::clock::{Clock, SystemClock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use sternpost_lab::conformance::case::{Case, Check, Fate, Group, Without};
use sternpost_lab::conformance::cases;
use sternpost_lab::conformance::control::{Control, ControlSender};
use sternpost_lab::conformance::oracle::Outcome;
use sternpost_lab::conformance::report::{CaseResult, Report};
use sternpost_lab::conformance::run::{Options, run};
use sternpost_lab::conformance::world::{Place, World};

async fn measure(control: Control, cases: &[Case]) -> Report {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let world = Arc::new(World::start(Place::free(), clock.clone(), cases).await.unwrap());
    let sender = Arc::new(ControlSender::new(control, &world, "sender.test", clock).unwrap());
    let options = Options { at_once: 24, pause: Duration::ZERO, ..Options::default() };
    let results = run(world, sender, cases, options, &|_| {}).await;
    Report::new(format!("{control:?}"), "test", results)
}

/// The cases that do not conform, with the reasons.
fn failed(report: &Report) -> Vec<String> {
    let wrong = report.cases.iter().filter(|case| case.outcome != Outcome::Conforms);
    wrong
        .map(|case| format!("{}: {:?} {}", case.id, case.outcome, case.why.as_deref().unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_sender_passes_every_case() {
    let report = measure(Control::Correct, &cases::all()).await;
    let failed = failed(&report);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_case_has_a_name_of_its_own_and_says_what_it_is_about() {
    let all = cases::all();
    let names: BTreeSet<&str> = all.iter().map(|case| case.id).collect();
    let domains: BTreeSet<String> = all.iter().map(Case::domain).collect();
    assert_eq!((names.len(), domains.len()), (all.len(), all.len()));
    assert!(all.len() >= 150, "{}", all.len());
}

/// The cases of these groups that a sender without MTA-STS and DANE fails. [`Control::Plain`] falls back to cleartext at once,
/// so it also fails those in which others wait.
fn discriminating(all: &[Case], of: impl Fn(&Case) -> bool) -> BTreeSet<&'static str> {
    all.iter().filter(|case| case.without != Without::Conforms && of(case)).map(|case| case.id).collect()
}

/// What each control fails. Those that fail whole groups are in [`broad`].
const NARROW: &[(Control, &[&str])] = &[
    (
        Control::NoDane,
        &[
            "dane-agility-wrong",
            "dane-alias",
            "dane-alias-target",
            "dane-both",
            "dane-ee",
            "dane-fails-enforce",
            "dane-fails-testing",
            "dane-instead-of-policy",
            "dane-mismatch",
            "dane-no-starttls",
            "dane-second-host",
            "dane-second-without",
            "dane-stripped",
            "dane-ta-expired",
            "dane-ta-mismatch",
            "dane-ta-name",
            "dane-tlsa-servfail",
            "dane-unusable-clear",
        ],
    ),
    (Control::PolicyBeforeDane, &["dane-fails-enforce", "dane-fails-testing", "dane-instead-of-policy"]),
    (Control::FollowsRedirects, &["fetch-redirect", "fetch-redirect-subhost"]),
    (
        Control::AnyPolicyCertificate,
        &[
            "attack-forged-policy",
            "attack-other-certificate",
            "fetch-chain-cut",
            "fetch-client-certificate",
            "fetch-common-name",
            "fetch-deep-wildcard",
            "fetch-expired",
            "fetch-not-yet-valid",
            "fetch-self-signed",
            "fetch-untrusted",
            "fetch-wrong-name",
        ],
    ),
    (Control::AnyResponse, &["cached-html", "fetch-html", "fetch-octets"]),
    (
        Control::NeverRefetches,
        &[
            "cached-max-age-over",
            "clock-max-age-over",
            "update-corrected",
            "update-from-testing",
            "update-older-id",
            "update-stricter",
            "update-three-times",
            "update-to-none",
            "update-to-testing",
        ],
    ),
    (
        Control::IgnoresId,
        &[
            "update-corrected",
            "update-from-testing",
            "update-older-id",
            "update-stricter",
            "update-three-times",
            "update-to-none",
            "update-to-testing",
        ],
    ),
    (Control::AlwaysFetches, &["cached-second-message", "update-id-unchanged"]),
    (
        Control::ForgetsWithRecord,
        &[
            "attack-forged-mx-suppressed",
            "attack-suppressed-record",
            "cached-all-gone",
            "cached-record-gone",
            "cached-record-invalid",
            "cached-record-servfail",
            "cached-record-timeout",
            "cached-record-twice",
            "cached-restart",
            "clock-max-age-holds",
        ],
    ),
    (
        Control::ForgetsWithHost,
        &[
            "attack-blocked-host",
            "attack-forged-policy",
            "attack-other-certificate",
            "cached-404",
            "cached-host-gone",
            "cached-host-name-gone",
            "cached-html",
            "cached-invalid",
            "cached-redirect",
        ],
    ),
    (Control::ForgetsInRestart, &["cached-restart"]),
    (
        Control::AnyMxCertificate,
        &[
            "enforce-both",
            "enforce-chain-cut",
            "enforce-client-certificate",
            "enforce-common-name",
            "enforce-deep-wildcard",
            "enforce-expired",
            "enforce-mixed",
            "enforce-not-yet-valid",
            "enforce-second-certificate",
            "enforce-self-signed",
            "enforce-untrusted",
            "enforce-valid-down",
            "enforce-wrong-name",
            "policy-in-signed-zone",
        ],
    ),
    (
        Control::FallsBackToClear,
        &[
            "attack-blocked-host",
            "attack-forged-policy",
            "attack-other-certificate",
            "attack-strip",
            "attack-suppressed-record",
            "enforce-garbage",
            "enforce-handshake-breaks",
            "enforce-ipv6",
            "enforce-mixed",
            "enforce-no-starttls",
            "enforce-second-starttls",
            "enforce-starttls-refused",
            "enforce-stripped",
            "enforce-tls10",
        ],
    ),
    (Control::DeepWildcards, &["match-deep"]),
    (
        Control::EnforcesTesting,
        &[
            "testing-expired",
            "testing-no-starttls",
            "testing-other-host",
            "testing-self-signed",
            "testing-stripped",
            "testing-wrong-name",
            "update-from-testing",
        ],
    ),
    (Control::NeedsLength, &["fetch-chunked", "fetch-http10"]),
    (Control::MisspeaksHttp2, &["fetch-http2"]),
    (Control::OnlyIpv4, &["enforce-ipv6", "fetch-ipv6-only"]),
    (Control::UnsignedDane, &["dane-host-unsigned", "dane-unlinked", "dane-unsigned", "dane-unsigned-query"]),
    (Control::IgnoresBogus, &["dane-bogus", "dane-host-bogus"]),
    (Control::OnlyAliasNames, &["dane-alias-target"]),
    (Control::OnlyAliasTargets, &["dane-alias"]),
    (Control::PolicyOfParent, &["record-of-parent"]),
    (Control::FirstRecord, &["record-twice"]),
    (
        Control::AnyRecord,
        &[
            "record-empty-id",
            "record-id-33",
            "record-id-case",
            "record-id-dashes",
            "record-no-id",
            "record-not-ascii",
            "record-strings-with-space",
            "record-twice",
            "record-version-10",
            "record-version-2",
            "record-version-case",
            "record-version-later",
        ],
    ),
    (
        Control::AnyPolicy,
        &[
            "policy-equals",
            "policy-key-case",
            "policy-max-age-11-digits",
            "policy-max-age-negative",
            "policy-max-age-unit",
            "policy-mode-case",
            "policy-mode-unknown",
            "policy-no-max-age",
            "policy-no-mode",
            "policy-no-version",
            "policy-one-line",
            "policy-version-2",
            "policy-version-case",
        ],
    ),
];

/// What each control that sends wrong reports fails, of the cases about reports.
const REPORTERS: &[(Control, &[&str])] = &[
    (Control::ReportsWrongCounts, &["report-counts", "report-counts-failed", "report-days"]),
    (
        Control::ReportsNoPolicyStrings,
        &["report-form", "report-policy-changed", "report-sts-string", "report-tlsa-string"],
    ),
    (Control::ReportsReports, &["report-own-delivery"]),
    (Control::ReportsUnsigned, &["report-signed"]),
    (Control::ReportsToFirstTarget, &["report-first-target-refuses", "report-two-targets"]),
    (
        Control::ReportsOneResultType,
        &[
            "report-counts-failed",
            "report-expired",
            "report-fetch",
            "report-no-starttls",
            "report-policy-invalid",
            "report-second-host",
            "report-testing",
            "report-tlsa-servfail",
            "report-untrusted",
            "report-webpki",
            "report-wrong-name",
        ],
    ),
];

fn of_reports(cases: Vec<Case>) -> Vec<Case> {
    cases.into_iter().filter(|case| case.group == Group::Reports).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reporter_with_a_fault_is_caught_in_exactly_the_cases_about_that_fault() {
    let cases = of_reports(cases::all());
    for (control, expected) in REPORTERS {
        is_caught(*control, &cases, &expected.iter().copied().collect()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_without_reports_is_not_judged_by_the_cases_about_reports() {
    let report = measure(Control::Plain, &of_reports(cases::all())).await;
    assert!(report.cases.iter().all(|case| case.outcome == Outcome::NotObservable));
    assert_eq!((report.score.conforming, report.score.judged), (0, 0));
}

/// The controls that fail whole groups.
fn broad(all: &[Case]) -> Vec<(Control, BTreeSet<&'static str>)> {
    let names = [Group::Discovery, Group::Fetch, Group::Policy, Group::Matching];
    let idle = |case: &&Case| {
        let needs = |check: &Check| {
            matches!(check, Check::RecordAsked | Check::Fetched | Check::RightRequest | Check::TlsaAsked(_))
        };
        case.group != Group::Reports
            && case
                .phases
                .iter()
                .any(|phase| !phase.conforms.contains(&Fate::Waits) || phase.checks.iter().any(needs))
    };
    vec![
        (Control::Plain, discriminating(all, |_| true)),
        (
            Control::NoSts,
            discriminating(all, |case| case.group != Group::Dane || case.id == "policy-in-signed-zone"),
        ),
        (
            Control::IgnoresNames,
            discriminating(all, |case| {
                names.contains(&case.group)
                    || (case.group == Group::Caching && !case.id.starts_with("attack-"))
            }),
        ),
        (Control::Idle, all.iter().filter(idle).map(|case| case.id).collect()),
    ]
}

/// Three controls at a time, since most of the time is spent waiting for hosts that do not answer.
async fn are_caught(controls: Vec<(Control, BTreeSet<&'static str>)>) {
    let all = cases::all();
    for some in controls.chunks(3) {
        join_all(some.iter().map(|(control, expected)| is_caught(*control, &all, expected))).await;
    }
}

async fn is_caught(control: Control, all: &[Case], expected: &BTreeSet<&str>) {
    let is_measured = |case: &&Case| control.reports() || case.group != Group::Reports;
    let all: Vec<Case> = all.iter().filter(is_measured).cloned().collect();
    let report = measure(control, &all).await;
    let fails = |case: &&CaseResult| case.outcome != Outcome::Conforms;
    let seen: BTreeSet<&str> = report.cases.iter().filter(fails).map(|case| case.id.as_str()).collect();
    let let_through: Vec<_> = expected.difference(&seen).collect();
    let accused: Vec<_> = seen.difference(expected).collect();
    assert!(
        let_through.is_empty() && accused.is_empty(),
        "{control:?} passes {let_through:?}, and fails without reason {accused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_sender_is_caught_in_exactly_the_cases_that_its_fault_concerns() {
    let expected = NARROW.iter().map(|(control, expected)| (*control, expected.iter().copied().collect()));
    are_caught(expected.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn senders_without_mta_sts_or_dane_fail_the_discriminating_cases_and_no_others() {
    let all: Vec<Case> = cases::all().into_iter().filter(|case| case.group != Group::Reports).collect();
    are_caught(broad(&all)).await;
    let plain = measure(Control::Plain, &all).await;
    assert_eq!(plain.score.conforming, 0);
}
