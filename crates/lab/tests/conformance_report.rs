//! What the yardstick makes of servers that can't be judged, and what its reports say.

#![allow(missing_docs, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use net::BoxFuture;
use net::clock::{Clock, SystemClock};
use std::sync::Arc;
use std::time::Duration;
use sternpost_lab::conformance::case::{Case, Fate, Level, Without};
use sternpost_lab::conformance::control::{Control, ControlSender};
use sternpost_lab::conformance::oracle::{Outcome, Seen, judge};
use sternpost_lab::conformance::report::{Difference, Report};
use sternpost_lab::conformance::run::{Message, Options, Progress, Sender, run};
use sternpost_lab::conformance::world::{Place, World};
use sternpost_lab::conformance::{cases, render};
use sternpost_lab::traffic::{Event, Mail, MailStep, Observed, Question, RecordType};

/// A mail server that takes messages, or not, and delivers nothing.
struct Silent {
    takes: bool,
}

impl Sender for Silent {
    fn inject<'a>(&'a self, _: &'a Message) -> BoxFuture<'a, Result<Progress, String>> {
        let outcome = if self.takes { Ok(Progress::Running) } else { Err("550 <no> & \"never\"".to_owned()) };
        Box::pin(std::future::ready(outcome))
    }
}

/// A mail server that takes messages, looks up the domain's addresses, and does nothing more.
struct Stuck(Arc<World>);

impl Sender for Stuck {
    fn inject<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Progress, String>> {
        let name = message.to.rsplit_once('@').unwrap().1.to_owned() + ".";
        self.0.traffic.question("127.0.0.1".parse().unwrap(), question(&name, RecordType::A));
        Box::pin(std::future::ready(Ok(Progress::Running)))
    }
}

fn question(name: &str, kind: RecordType) -> Question {
    Question {
        name: name.into(),
        kind,
        is_tcp: false,
        recursion_desired: true,
        dnssec_ok: true,
        authentic_data: false,
        checking_disabled: false,
        outcome: sternpost_lab::traffic::Outcome::Genuine,
    }
}

/// A correct sender that can't be restarted.
struct Fixed(ControlSender);

impl Sender for Fixed {
    fn inject<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Progress, String>> {
        self.0.inject(message)
    }
}

fn named(names: &[&str]) -> Vec<Case> {
    cases::all().into_iter().filter(|case| names.contains(&case.id)).collect()
}

/// The report about a sender that settles by itself.
async fn report(
    name: &str,
    cases: &[Case],
    sender: impl FnOnce(&World, Arc<dyn Clock>) -> Arc<dyn Sender>,
) -> Report {
    report_within(Duration::from_secs(60), name, cases, sender).await
}

/// The same for one that may do nothing, which is waited for as long in each phase.
async fn report_within(
    phase: Duration,
    name: &str,
    cases: &[Case],
    sender: impl FnOnce(&World, Arc<dyn Clock>) -> Arc<dyn Sender>,
) -> Report {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let world = Arc::new(World::start(Place::free(), clock.clone(), cases).await.unwrap());
    let sender = sender(&world, clock);
    let options =
        Options { pause: Duration::ZERO, quiet: Duration::from_secs(1), phase, ..Options::default() };
    let results = run(world, sender, cases, options, &|_| {}).await;
    Report::new(name.into(), "test", results)
}

fn control(control: Control) -> impl FnOnce(&World, Arc<dyn Clock>) -> Arc<dyn Sender> {
    move |world, clock| Arc::new(ControlSender::new(control, world, "mail.sender.test", clock).unwrap())
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.cases.iter().map(|case| case.outcome).collect()
}

#[tokio::test]
async fn a_server_that_takes_no_mail_or_does_nothing_is_not_judged() {
    let cases = named(&["record", "fetch"]);
    for takes in [false, true] {
        let phase = Duration::from_millis(300);
        let report = report_within(phase, "silent", &cases, |_, _| Arc::new(Silent { takes })).await;
        assert_eq!(outcomes(&report), [Outcome::LabFailed; 2]);
        assert_eq!((report.score.conforming, report.score.judged), (0, 0));
        let page = render::html(&report);
        assert!(!page.contains("<no>") && page.contains("lab failed"));
        assert!(takes || render::junit(&report).contains("<error message=\"the mail server did not take the message: 550 &lt;no&gt; &amp; &quot;never&quot;\"/>"));
    }
}

#[tokio::test]
async fn a_case_that_the_driver_cannot_carry_out_is_not_observable() {
    let cases = named(&["cached-restart", "record"]);
    let fixed = |world: &World, clock: Arc<dyn Clock>| -> Arc<dyn Sender> {
        Arc::new(Fixed(ControlSender::new(Control::Correct, world, "mail.sender.test", clock).unwrap()))
    };
    let report = report("fixed", &cases, fixed).await;
    let of = |id: &str| report.cases.iter().find(|case| case.id == id).unwrap();
    assert_eq!(
        (of("cached-restart").outcome, of("record").outcome),
        (Outcome::NotObservable, Outcome::Conforms)
    );
    assert!(of("cached-restart").why.as_ref().unwrap().contains("restarted"));
    assert_eq!((report.score.conforming, report.score.judged), (1, 1));
}

#[tokio::test]
async fn a_report_says_what_was_seen_and_what_differs_from_another_one() {
    let cases = named(&["record", "enforce-expired", "testing-expired", "fetch-html"]);
    let plain = report("plain", &cases, control(Control::Plain)).await;
    let correct = report("correct", &cases, control(Control::Correct)).await;
    assert_eq!(correct.count(Outcome::Conforms), 4);
    assert_eq!((plain.score.conforming, plain.score.judged), (0, 2));
    let violated = |level| plain.violations(level).map(|case| case.id.as_str()).collect::<Vec<_>>();
    assert_eq!(violated(Level::Must), ["record", "enforce-expired"]);
    assert_eq!(violated(Level::Security), ["enforce-expired"]);
    let difference = |id: &str| Difference {
        id: id.into(),
        before: Some(Outcome::Violates),
        now: Some(Outcome::Conforms),
    };
    assert_eq!(correct.differences(&plain), [difference("enforce-expired"), difference("record")]);
    assert!(render::differences(&correct.differences(&plain)).contains("violates -> conforms"));

    let seen: Vec<&str> = correct
        .cases
        .iter()
        .filter(|case| case.id == "record")
        .flat_map(|case| &case.phases)
        .flat_map(|phase| &phase.events)
        .map(|line| line.what.as_str())
        .collect();
    let place = |text: &str| {
        seen.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {seen:?}"))
    };
    assert!(
        place("dns _mta-sts.record.test. TXT")
            < place("GET /.well-known/mta-sts.txt, Host: mta-sts.record.test")
    );

    let page = render::senders(&[plain.clone(), correct.clone()]);
    assert!(
        page.contains("| 1 | plain | 0 of 2 |")
            && page.contains("| record\\* | a usual record | MUST | **ok** |"),
        "{page}"
    );
    assert!(!page.contains("testing-expired"), "{page}");
    assert!(
        render::markdown(&plain).contains("violates (security): delivered over TLS instead of not delivered")
    );
    assert!(render::junit(&plain).contains("failures=\"2\" errors=\"0\" skipped=\"0\""));
    assert!(render::html(&plain).contains("<details id=\"enforce-expired\">"));
}

#[test]
fn the_list_names_every_case_and_an_explanation_has_every_phase() {
    let all = cases::all();
    let list = render::list(&all);
    assert!(all.iter().all(|case| list.contains(case.id)));
    let counted = all.iter().filter(|case| case.without == Without::FallsShort).count();
    assert!(list.contains(&format!("({counted})")), "{counted}");
    for case in &all {
        let text = render::explain(case);
        assert_eq!(text.matches("  message ").count(), case.phases.len(), "{text}");
    }
}

/// RFC 8461 §4.2 demands SNI of senders that use MTA-STS.
#[test]
fn only_a_sender_that_asks_for_the_policy_is_judged_by_its_sni() {
    let case = named(&["enforce"]).remove(0);
    let event = |what| Event { at: Duration::ZERO, client: "127.0.0.1".parse().unwrap(), what };
    let mail = |step| event(Observed::Mail(Mail { host: "mx1.enforce.test".into(), session: 1, step }));
    let session = vec![mail(MailStep::Connected), mail(MailStep::Hello(None)), mail(MailStep::Secured)];
    let question = event(Observed::Dns(question("_mta-sts.enforce.test.", RecordType::TXT)));
    let judged = |events| judge(&case, &case.phases[0], &Seen { fate: Fate::Tls, events });
    assert_eq!(judged(session.clone()), (Outcome::Conforms, None));
    assert_eq!(judged([vec![question], session].concat()).0, Outcome::Violates);
}

/// A message that waits for limits of the mail server does not count as one that MTA-STS stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_that_tries_nothing_has_not_passed_a_case_in_which_mail_has_to_wait() {
    let cases = named(&["enforce-expired"]);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let world = Arc::new(World::start(Place::free(), clock, &cases).await.unwrap());
    let options =
        Options { quiet: Duration::from_millis(100), phase: Duration::from_secs(5), ..Options::default() };
    let results = run(world.clone(), Arc::new(Stuck(world)), &cases, options, &|_| {}).await;
    assert_eq!(results[0].outcome, Outcome::NotObservable, "{:?}", results[0].why);
}
