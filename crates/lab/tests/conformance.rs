//! The yardstick against senders of our own: the correct one passes every case, and each wrong one fails exactly the cases
//! that its fault concerns.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use net::clock::{Clock, SystemClock};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use sternpost_lab::conformance::case::{Case, Level, Without};
use sternpost_lab::conformance::cases;
use sternpost_lab::conformance::control::{Control, ControlSender};
use sternpost_lab::conformance::oracle::Outcome;
use sternpost_lab::conformance::render;
use sternpost_lab::conformance::report::Report;
use sternpost_lab::conformance::run::{Options, run};
use sternpost_lab::conformance::world::{Place, World};

async fn measure(control: Control, cases: &[Case]) -> Report {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let world = Arc::new(World::start(Place::free(), clock.clone(), cases).await.unwrap());
    let clients = world.clients("sender.test", clock.clone()).unwrap();
    let sender = Arc::new(ControlSender::new(control, clients, clock));
    let options = Options { at_once: 12, pause: Duration::ZERO, ..Options::default() };
    let results = run(world, sender, cases, options, &|_| {}).await;
    Report::new(format!("{control:?}"), "test", results)
}

/// The cases that do not conform, with the reasons.
fn failed(report: &Report) -> Vec<String> {
    let wrong = report.cases.iter().filter(|case| case.outcome != Outcome::Conforms);
    wrong.map(|case| format!("{}: {:?} {}", case.id, case.outcome, case.why.as_deref().unwrap_or_default())).collect()
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
