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
use sternpost_sender::walk::{Outcome, Protection, Purpose, Walk, Walker};
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
        sender.walker.discovery.find(&domain).await.unwrap();
    }
    lab.attack(case, true).unwrap();
    let mail = Mail {
        from: "a@sender.test".into(),
        to: vec![format!("b@{domain}")],
        message: b"Subject: hello\r\n\r\nhello\r\n".to_vec(),
    };
    let walk = sender.walker.deliver(&domain, &mail, Purpose::Mail).await.unwrap();
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
