//! Runs every case of the lab through the sending side over real sockets, and compares the outcome with the RFCs.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::DomainName;
use lab::case::{Case, Delivery, Verdict};
use lab::reference_sender::{
    Delivery as Attempt, Outcome, PolicyInForce, PolicySource, Protection, ReferenceSender,
};
use lab::{Lab, Ports};
use net::BoxFuture;
use net::clock::{Clock, SystemClock};
use net::dns::{Answer, Dns, DnsError, Kind};
use net::smtp::Mail;
use std::sync::{Arc, Mutex};
use sternpost_sender::answer::sts::EffectivePolicy;
use sternpost_sender::answer::{Discovery, PolicyService, Settings};
use sternpost_sender::report::DirectDelivery;
use store::Store;

struct Sender {
    mail: ReferenceSender,
    discovery: Arc<Discovery>,
    _dir: tempfile::TempDir,
}

struct Held(Arc<Discovery>);

impl PolicySource for Held {
    fn policy<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, PolicyInForce> {
        Box::pin(async move {
            match self.0.find(domain).await.found {
                EffectivePolicy::Policy { held, .. } => {
                    PolicyInForce::Policy { policy: held.policy, body: held.body }
                }
                EffectivePolicy::Unavailable(why) => {
                    PolicyInForce::Unavailable { result: why.result_type(), why: why.to_string() }
                }
                EffectivePolicy::None => PolicyInForce::None,
            }
        })
    }
}

async fn sender(lab: &Lab) -> Sender {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sender.db"), store::Tenant::FIRST).await.unwrap();
    let clients = lab.clients("sender.test", clock.clone()).unwrap();
    let discovery = Arc::new(Discovery::new(clients.dns.clone(), clients.policies, store, clock));
    let policies = Arc::new(Held(discovery.clone()));
    Sender { mail: ReferenceSender { dns: clients.dns, mail: clients.mail, policies }, discovery, _dir: dir }
}

fn verdict(attempt: &Attempt) -> Verdict {
    let delivery = match &attempt.outcome {
        Outcome::Delivered { protection: Protection::Verified, .. } => Delivery::Verified,
        Outcome::Delivered { protection: Protection::Encrypted, .. } => Delivery::Encrypted,
        Outcome::Delivered { protection: Protection::Clear, .. } => Delivery::Clear,
        Outcome::Deferred(_) => Delivery::Deferred,
        Outcome::Refused(_) => Delivery::Refused,
    };
    let results = attempt
        .entries
        .iter()
        .flat_map(|entry| entry.details.iter().map(|detail| detail.result_type.clone()))
        .collect();
    let policy_type = attempt
        .entries
        .first()
        .map_or(formats::result_type::PolicyType::NoPolicyFound, |entry| entry.policy_type.clone());
    Verdict { delivery, policy_type, results }
}

async fn try_case(lab: &Lab, sender: &Sender, case: &Case) -> Result<(), String> {
    let domain = DomainName::parse(&case.domain()).unwrap();
    if case.attack.policy_cached {
        sender.discovery.find(&domain).await;
    }
    lab.attack(case, true).unwrap();
    let mail = Mail {
        from: "a@sender.test".into(),
        to: vec![format!("b@{domain}")],
        message: b"Subject: hello\r\n\r\nhello\r\n".to_vec(),
    };
    let attempt = sender.mail.deliver(&domain, &mail).await;
    let actual = verdict(&attempt);
    if actual == case.verdict {
        Ok(())
    } else {
        Err(format!("{}: expected {:?}, got {actual:?}\n    {:?}", case.name, case.verdict, attempt))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_ends_as_the_rfcs_require() {
    let cases = lab::cases::all();
    assert!(cases.len() >= 50);
    let lab = Lab::with_cases(Ports::free(), SystemClock.now(), &cases).await.unwrap();
    let sender = sender(&lab).await;
    let mut failures = Vec::new();
    for case in &cases {
        let start = std::time::Instant::now();
        if let Err(why) = try_case(&lab, &sender, case).await {
            failures.push(why);
        }
        if start.elapsed().as_millis() > 500 {
            println!("{} took {:?}", case.name, start.elapsed());
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[tokio::test]
async fn report_mail_is_delivered_even_if_tls_fails_and_fails_permanently_for_a_null_mx() {
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

/// The lab's DNS, and the TLSA names that were looked up.
struct Recorded {
    dns: Arc<dyn Dns>,
    tlsa: Mutex<Vec<String>>,
}

impl Dns for Recorded {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        if kind == Kind::Tlsa {
            self.tlsa.lock().unwrap().push(name.to_string());
        }
        self.dns.lookup(name, kind)
    }
}

/// The answer of the policy service to a mail server that asks about a domain of the lab, and the TLSA names that were
/// looked up for it.
async fn answer(name: &str) -> (String, Vec<String>) {
    let cases: Vec<Case> = lab::cases::all().into_iter().filter(|case| case.name == name).collect();
    let case = cases.first().unwrap();
    let lab = Lab::with_cases(Ports::free(), SystemClock.now(), &cases).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sender.db"), store::Tenant::FIRST).await.unwrap();
    let clients = lab.clients("sender.test", clock.clone()).unwrap();
    let dns = Arc::new(Recorded { dns: clients.dns, tlsa: Mutex::default() });
    let discovery = Discovery::new(dns.clone(), clients.policies, store.clone(), clock.clone());
    let service = PolicyService::new(dns.clone(), discovery, store, clock, 1 << 20, Settings::default());
    let entry = service.ask(&case.domain()).await;
    let text = format!("{} {}", entry.reply_status(false), entry.text(false));
    let asked = dns.tlsa.lock().unwrap().clone();
    (text, asked)
}

#[tokio::test]
async fn dane_03_a_failing_tlsa_look_up_is_a_temporary_failure() {
    for name in ["dane-tlsa-servfail", "dane-bogus"] {
        let (text, _) = answer(name).await;
        assert!(text.starts_with("TEMP "), "{name}: {text}");
    }
}

#[tokio::test]
async fn dane_04_no_tlsa_look_up_without_secure_addresses() {
    let (text, asked) = answer("dane-unsigned").await;
    assert!(asked.is_empty(), "{text}: {asked:?}");
    let (text, asked) = answer("dane-ee").await;
    assert_eq!(asked, ["_25._tcp.mx1.dane-ee.test"], "{text}");
}
