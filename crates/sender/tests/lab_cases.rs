//! Every case of the lab, driven through the sending side over real sockets: each must end as the
//! RFCs call for.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::DomainName;
use lab::case::{Case, Delivery, Verdict};
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use net::smtp::Mail;
use std::sync::Arc;
use sternpost_sender::answer::Discovery;
use sternpost_sender::report::DirectDelivery;
use sternpost_sender::walk::{Outcome, Protection, Walk, Walker};
use store::Store;

struct Sender {
    walker: Walker,
    _dir: tempfile::TempDir,
}

async fn sender(lab: &Lab) -> Sender {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sender.db")).await.unwrap();
    let clients = lab.clients("sender.test", clock.clone()).unwrap();
    let discovery = Arc::new(Discovery::new(clients.dns.clone(), clients.policies, store, clock));
    Sender { walker: Walker { dns: clients.dns, mail: clients.mail, discovery }, _dir: dir }
}

fn verdict(walk: &Walk) -> Verdict {
    let delivery = match &walk.outcome {
        Outcome::Delivered { protection: Protection::Verified, .. } => Delivery::Verified,
        Outcome::Delivered { protection: Protection::Encrypted, .. } => Delivery::Encrypted,
        Outcome::Delivered { protection: Protection::Clear, .. } => Delivery::Clear,
        Outcome::Deferred(_) => Delivery::Deferred,
        Outcome::Refused(_) => Delivery::Refused,
    };
    let results = walk
        .entries
        .iter()
        .flat_map(|entry| entry.details.iter().map(|detail| detail.result_type.clone()))
        .collect();
    let policy_type = walk
        .entries
        .first()
        .map_or(formats::result_type::PolicyType::NoPolicyFound, |entry| entry.policy_type.clone());
    Verdict { delivery, policy_type, results }
}

async fn try_case(lab: &Lab, sender: &Sender, case: &Case) -> Result<(), String> {
    let domain = DomainName::parse(&case.domain()).unwrap();
    if case.attack.policy_cached {
        sender.walker.discovery.find(&domain).await;
    }
    lab.attack(case, true).unwrap();
    let mail = Mail {
        from: "a@sender.test".into(),
        to: vec![format!("b@{domain}")],
        message: b"Subject: hello\r\n\r\nhello\r\n".to_vec(),
    };
    let walk = sender.walker.deliver(&domain, &mail).await;
    let seen = verdict(&walk);
    if seen == case.verdict {
        Ok(())
    } else {
        Err(format!("{}: expected {:?}, saw {seen:?}\n    {:?}", case.name, case.verdict, walk))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_ends_as_the_rfcs_call_for() {
    let cases = lab::cases::all();
    assert!(cases.len() >= 50);
    let lab = Lab::with_cases(Ports::free(), SystemClock.now(), &cases).await.unwrap();
    let sender = sender(&lab).await;
    let mut wrong = Vec::new();
    for case in &cases {
        let begin = std::time::Instant::now();
        if let Err(why) = try_case(&lab, &sender, case).await {
            wrong.push(why);
        }
        if begin.elapsed().as_millis() > 500 {
            println!("{} took {:?}", case.name, begin.elapsed());
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn report_mail_goes_out_whatever_tls_does_and_fails_for_good_where_there_is_no_mail() {
    let names = ["mx-expired", "mx-no-starttls", "mx-handshake-breaks", "mx-null"];
    let cases: Vec<Case> = lab::cases::all().into_iter().filter(|case| names.contains(&case.name)).collect();
    let lab = Lab::with_cases(Ports::free(), SystemClock.now(), &cases).await.unwrap();
    let clients = lab.clients("sender.test", Arc::new(SystemClock)).unwrap();
    let delivery = DirectDelivery { dns: clients.dns, mail: clients.mail };
    for case in &cases {
        let domain = DomainName::parse(&case.domain()).unwrap();
        let mail = Mail {
            from: "a@sender.test".into(),
            to: vec![format!("b@{domain}")],
            message: b"x\r\n".to_vec(),
        };
        let outcome = delivery.deliver(&domain, &mail).await;
        match case.name {
            "mx-null" => assert!(outcome.unwrap_err().is_final),
            name => assert!(outcome.is_ok(), "{name}: {outcome:?}"),
        }
    }
}

/// The named cases of the lab and no others, each of which must end as its entry says.
async fn prove(names: &[&str]) {
    let cases: Vec<Case> = lab::cases::all().into_iter().filter(|case| names.contains(&case.name)).collect();
    assert_eq!(cases.len(), names.len(), "a name is not in the lab's table");
    let lab = Lab::with_cases(Ports::free(), SystemClock.now(), &cases).await.unwrap();
    let sender = sender(&lab).await;
    for case in &cases {
        try_case(&lab, &sender, case).await.unwrap_or_else(|why| panic!("{why}"));
    }
}

macro_rules! proved_by {
    ($(fn $name:ident() = $cases:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            prove(&$cases).await;
        })*
    };
}

proved_by! {
    fn val_04_the_mx_certificate_is_in_date_trusted_and_carries_the_host_name() = ["good-enforce", "mx-expired", "mx-not-yet", "mx-wrong-name", "mx-self-signed", "mx-untrusted", "mx-cn-only", "mx-wildcard-cert"];
    fn val_06_enforce_goes_on_to_the_next_host_after_one_that_fails() = ["mx-second-good", "mx-first-unlisted", "mx-first-down"];
    fn val_07_enforce_without_a_valid_host_waits() = ["mx-no-starttls", "mx-expired", "mx-handshake-breaks"];
    fn val_08_testing_delivers_and_reports_the_failure() = ["good-testing", "mx-expired-testing", "attack-strip-testing"];
    fn val_09_mode_none_is_as_if_there_were_no_policy() = ["good-none", "mx-no-starttls-none"];
    fn val_10_a_failing_dane_validation_is_not_overridden_by_mta_sts() = ["dane-fails-sts"];
    fn val_11_dane_decides_where_there_are_usable_secure_records() = ["dane-beats-sts", "sts-signed"];
    fn val_15_hosts_that_fail_are_met_in_their_usual_order() = ["mx-second-good", "mx-first-unlisted"];
    fn val_25_without_mx_records_the_domain_itself_is_the_mx() = ["mx-implicit"];
    fn val_24_a_null_mx_gets_no_policy_work() = ["mx-null"];
    fn dane_02_only_secure_answers_count() = ["dane-unsigned", "dane-ee"];
    fn dane_03_a_failing_tlsa_look_up_defers() = ["dane-tlsa-servfail", "dane-bogus"];
    fn dane_04_no_tlsa_look_up_without_secure_addresses() = ["dane-unsigned"];
    fn dane_08_names_and_dates_do_not_count_with_usage_3() = ["dane-ee-expired", "dane-ee-name", "dane-ee"];
    fn rpt_22_policy_failures_are_reported_though_delivery_went_through() = ["cert-expired", "http-404", "policy-no-mx"];
    fn rpt_26_what_enforcement_would_have_refused_is_reported_in_testing() = ["mx-expired-testing", "attack-strip-testing"];
}
