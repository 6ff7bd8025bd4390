//! Plays the adversaries of docs/safety.md with mails. They own two registrable domains and sign with keys that DNS has for these,
//! and they have every mail that honest senders sent. Each mail goes the whole way: it is taken apart, its signatures are
//! verified, its reports are stored, and what the store has is judged. A report counts for the domain whose signature is valid,
//! whatever the mail and the report claim.

use super::adversary::{EVIL, HONEST, NOW, leaves_out_whoever_failed_once};
use super::tests::{at, judged, judged_by};
use super::{Evidence, Gate, Thresholds};
use crate::inbox::tests::{Key, Names, key, sign_headers};
use crate::inbox::{ExtractionPool, Inbox};
use formats::DomainName;
use formats::report::pack;
use jiff::{SignedDuration, Timestamp};
use mail_builder::MessageBuilder;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;
use net::clock::{Clock, ManualClock};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use store::Store;
use store::reports::{Arrival, KeptReport};

/// The domain whose gate is played for.
const DOMAIN: &str = "a.example";
/// The first day without failures of honest senders.
const MENDED: i64 = 104;
/// The headers that senders sign.
const SIGNED: [&str; 3] = ["From", "Subject", "TLS-Report-Submitter"];
/// The honest senders; as many as the gate requires.
const SENDERS: usize = 3;

/// What a mail and the report in it claim.
#[derive(Debug, Clone)]
struct Claims {
    /// The submitter, by the headers of the mail and the name of the file.
    submitter: String,
    /// The organization and the contact, by the report.
    organization: String,
    id: String,
    day: i64,
    /// The number of days that the report covers.
    span: i64,
    successful: u64,
    failed: u64,
}

impl Claims {
    /// What an honest sender reports about a day. All had failures at first, which were mended.
    fn honest(sender: usize, day: i64) -> Self {
        let name = HONEST[sender % SENDERS].to_owned();
        let id = format!("{day}@{name}");
        let failed = u64::from(day < MENDED);
        Self { submitter: name.clone(), organization: name, id, day, span: 1, successful: 100, failed }
    }

    fn json(&self) -> String {
        let Self { organization, id, successful, failed, .. } = self;
        let end = at(self.day + self.span) - SignedDuration::from_secs(1);
        let details = match failed {
            0 => String::new(),
            _ => format!(
                r#"{{"result-type":"certificate-expired","receiving-mx-hostname":"mx1.a.example","failed-session-count":{failed}}}"#
            ),
        };
        format!(
            r#"{{"organization-name":"{organization}","date-range":{{"start-datetime":"{}","end-datetime":"{end}"}},"contact-info":"tls@{organization}","report-id":"{id}","policies":[{{"policy":{{"policy-type":"sts","policy-string":[],"policy-domain":"{DOMAIN}"}},"summary":{{"total-successful-session-count":{successful},"total-failure-session-count":{failed}}},"failure-details":[{details}]}}]}}"#,
            at(self.day)
        )
    }

    fn mail(&self) -> Vec<u8> {
        let packed = pack(self.json().as_bytes()).unwrap();
        let file = format!("{}!{DOMAIN}!{}!{}.json.gz", self.submitter, at(self.day).as_second(), self.id);
        let parts = vec![
            MimePart::new("text/plain", "a report"),
            MimePart::new("application/tlsrpt+gzip", packed).attachment(file),
        ];
        self.headers().body(MimePart::new("multipart/report", parts)).write_to_vec().unwrap()
    }

    fn headers(&self) -> MessageBuilder<'_> {
        let Self { submitter, id, .. } = self;
        MessageBuilder::new()
            .from(format!("noreply@{submitter}"))
            .to(format!("r@{DOMAIN}"))
            .subject(format!("Report Domain: {DOMAIN} Submitter: {submitter} Report-ID: <{id}>"))
            .header("TLS-Report-Submitter", Raw::new(submitter.clone()))
    }
}

/// What an adversary does to make a mail count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// A report of its own, signed by its domain or a subdomain.
    Own,
    /// As `Own`, but the report names an honest organization and contact.
    OwnInAnothersName,
    /// As `Own`, but the signature covers a part of the body.
    OwnInPart,
    /// A genuine mail as an attachment of its own signed mail.
    Wrapped,
    /// The mail claims an honest sender, and is signed by its own domain.
    SignedByOwnDomain,
    /// The signature claims an honest domain, and is made by its own key.
    SignedByOwnKey,
    /// As `SignedByOwnDomain`, with the signature of a genuine mail beside its own.
    SignatureCopied,
    /// The mail claims an honest sender without a signature.
    Unsigned,
    /// A genuine mail with other counts in the report, under its signature.
    Changed,
    /// A genuine mail with headers in front, which its signature does not cover.
    HeadersAdded(u8),
    /// A genuine mail once more.
    Again,
}

impl Trick {
    /// Whether the report counts for a domain of the adversary.
    fn is_own(self) -> bool {
        matches!(self, Self::Own | Self::OwnInAnothersName | Self::OwnInPart)
    }
}

#[derive(Debug, Clone)]
struct Move {
    trick: Trick,
    /// The registrable domain, a subdomain of it, and whether the subdomain signs.
    domain: usize,
    subdomain: u8,
    is_signed_below: bool,
    claims: (i64, i64, u64, u64, u8),
    /// The days until the mail arrives.
    after: i64,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let trick = prop_oneof![
        Just(Trick::Own),
        Just(Trick::Own),
        Just(Trick::OwnInAnothersName),
        Just(Trick::OwnInPart),
        Just(Trick::Wrapped),
        Just(Trick::SignedByOwnDomain),
        Just(Trick::SignedByOwnKey),
        Just(Trick::SignatureCopied),
        Just(Trick::Unsigned),
        Just(Trick::Changed),
        any::<u8>().prop_map(Trick::HeadersAdded),
        Just(Trick::Again),
    ];
    let counts = || prop_oneof![Just(0), 1..20_u64, Just(1_000_000), Just(u64::MAX)];
    let claims = (100..NOW, 1..20_i64, counts(), counts(), 0..4_u8);
    let after = prop_oneof![Just(0), 1..60_i64];
    let one = (trick, any::<(usize, u8, bool)>(), claims, after);
    let one = one.prop_map(|(trick, (domain, subdomain, is_signed_below), claims, after)| Move {
        trick,
        domain,
        subdomain: subdomain % 4,
        is_signed_below,
        claims,
        after,
    });
    proptest::collection::vec(one, 0..20)
}

/// A mail and the time at which it arrives.
#[derive(Clone)]
struct Delivery {
    at: Timestamp,
    mail: Vec<u8>,
}

/// The keys of all senders, and the name server that has them.
struct Senders {
    honest: Vec<Key>,
    evil: Key,
    dns: Arc<Names>,
}

impl Senders {
    fn new() -> Self {
        let (honest, evil): (Vec<Key>, Key) = ((0..SENDERS).map(|_| key()).collect(), key());
        let mut records = HashMap::new();
        for (name, key) in HONEST.iter().zip(&honest) {
            records.insert(format!("s._domainkey.{name}"), Ok(key.record.clone()));
        }
        for name in EVIL {
            records.insert(format!("s._domainkey.{name}"), Ok(evil.record.clone()));
            for number in 0..4 {
                records.insert(format!("s._domainkey.m{number}.{name}"), Ok(evil.record.clone()));
            }
        }
        Self { honest, evil, dns: Arc::new(Names(records)) }
    }

    /// The mail of an honest sender about a day.
    fn genuine(&self, sender: usize, day: i64) -> Vec<u8> {
        let sender = sender % SENDERS;
        let mail = Claims::honest(sender, day).mail();
        sign_headers(&mail, &self.honest[sender], HONEST[sender], &SIGNED, false)
    }

    /// The signature of such a mail.
    fn genuine_signature(&self, sender: usize, day: i64) -> Vec<u8> {
        let sender = sender % SENDERS;
        let mail = Claims::honest(sender, day).mail();
        let mut signed = sign_headers(&mail, &self.honest[sender], HONEST[sender], &SIGNED, false);
        signed.truncate(signed.len() - mail.len());
        signed
    }

    /// The mails of the honest senders since the beginning of testing.
    fn all_genuine(&self) -> Vec<Delivery> {
        let of_day = |day| (0..SENDERS).map(move |sender| (day, sender));
        let all = (100..NOW).flat_map(of_day);
        all.map(|(day, sender)| Delivery { at: at(day + 1), mail: self.genuine(sender, day) }).collect()
    }

    fn delivery(&self, one: &Move) -> Delivery {
        let (day, span, successful, failed, id) = one.claims;
        let own = EVIL[one.domain % 2];
        let below = format!("m{}.{own}", one.subdomain);
        let honest = HONEST[one.domain % SENDERS].to_owned();
        let genuine = || self.genuine(one.domain, day);
        let claims = |submitter: &str, organization: &str| Claims {
            submitter: submitter.to_owned(),
            organization: organization.to_owned(),
            // Also the id of a genuine report.
            id: if id == 0 { format!("{day}@{honest}") } else { id.to_string() },
            day,
            span,
            successful,
            failed,
        };
        let signer = if one.is_signed_below { &below } else { own };
        let sign = |mail: &[u8], partly| sign_headers(mail, &self.evil, signer, &SIGNED, partly);
        let mail = match one.trick {
            Trick::Own => sign(&claims(&below, own).mail(), false),
            Trick::OwnInAnothersName => sign(&claims(&below, &honest).mail(), false),
            Trick::OwnInPart => sign(&claims(&below, own).mail(), true),
            Trick::Wrapped => {
                let part = MimePart::new("message/rfc822", genuine());
                let headers = claims(&below, own);
                let mixed = MimePart::new("multipart/mixed", vec![part]);
                sign(&headers.headers().body(mixed).write_to_vec().unwrap(), false)
            }
            Trick::SignedByOwnDomain => sign(&claims(&honest, &honest).mail(), false),
            Trick::SignedByOwnKey => {
                sign_headers(&claims(&honest, &honest).mail(), &self.evil, &honest, &SIGNED, false)
            }
            Trick::SignatureCopied => {
                [self.genuine_signature(one.domain, day), sign(&claims(&honest, &honest).mail(), false)]
                    .concat()
            }
            Trick::Unsigned => claims(&honest, &honest).mail(),
            Trick::Changed => {
                let other = Claims { successful, failed, ..Claims::honest(one.domain, day) };
                [self.genuine_signature(one.domain, day), other.mail()].concat()
            }
            Trick::HeadersAdded(which) => {
                let added = [
                    format!("TLS-Report-Submitter: {below}\r\n"),
                    format!("TLS-Report-Domain: {DOMAIN}\r\n"),
                    "TLS-Report-Domain: other.example\r\n".to_owned(),
                    format!("Subject: Report Domain: {DOMAIN} Submitter: {below} Report-ID: <1>\r\n"),
                    format!("From: x@{below}\r\n"),
                ];
                let added = added.iter().enumerate().filter(|(bit, _)| which & (1 << bit) != 0);
                let added: String = added.map(|(_, header)| header.as_str()).collect();
                [added.into_bytes(), genuine()].concat()
            }
            Trick::Again => genuine(),
        };
        // Nobody has a genuine mail before it was sent.
        Delivery { at: at(day + span + one.after) + SignedDuration::from_hours(1), mail }
    }

    /// What the store has about the domain when all mails have arrived, in the order of time.
    async fn stored(&self, mut deliveries: Vec<Delivery>) -> Vec<KeptReport> {
        deliveries.sort_by_key(|delivery| delivery.at);
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let clock = Arc::new(ManualClock::new(at(90)));
        let base = Inbox::new(store.clone(), self.dns.clone(), clock.clone(), Arrival::Smtp);
        let inbox = Inbox { pool: Arc::new(ExtractionPool::new(2, 512 << 20)), ..base };
        let mut waiting = Vec::new();
        for Delivery { at, mail } in deliveries {
            clock.set_by(at.as_second() - clock.now().as_second());
            let reading = inbox.read_mail(Arc::new(mail), false, Arrival::Smtp).await.unwrap();
            waiting.extend(reading.reports);
            if waiting.len() >= 20 {
                store.keep_reports(&waiting).await.unwrap();
                waiting.clear();
            }
        }
        store.keep_reports(&waiting).await.unwrap();
        let kept = store.reports_about(&DomainName::parse(DOMAIN).unwrap(), at(100)).await.unwrap();
        store.close().await;
        kept
    }
}

/// The reports that count, by the domain that signed them and what they say.
fn counted(reports: &[KeptReport]) -> BTreeSet<(String, String, String, i64, u64, u64)> {
    let counted = reports.iter().filter(|report| report.trust.counts());
    let one = |report: &KeptReport| {
        let [outcome] = report.outcomes.as_slice() else { panic!("{report:?}") };
        let (signer, submitter) = (report.signer.clone().unwrap(), report.submitter.clone());
        let start = report.range.start.as_second();
        (signer, submitter, report.report_id.clone(), start, outcome.successful, outcome.failed)
    };
    counted.map(one).collect()
}

fn is_of_adversary(name: &str) -> bool {
    EVIL.iter().any(|own| name == *own || name.ends_with(&format!(".{own}")))
}

fn result(reports: &[KeptReport]) -> (Evidence, Gate) {
    let (evidence, gate) = judged(reports, &[], NOW);
    (Evidence { unverified_reports: 0, late_reports: 0, ..evidence }, gate)
}

#[test]
fn a_mail_counts_for_the_domain_that_signed_it_whatever_it_claims() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let senders = Senders::new();
    let genuine = senders.all_genuine();
    let honest = runtime.block_on(senders.stored(genuine.clone()));
    // Honest senders do open the gate this way, so the properties say something.
    assert_eq!((honest.len(), result(&honest).1), (genuine.len(), Gate::Ready));
    let delay = i64::from(Thresholds::default().delay_days);
    assert_eq!(judged(&honest, &[], NOW - delay).1, Gate::Ready);
    // A rule by which mended failures help the adversary does not keep the limit; the gate does.
    let failing = Move {
        trick: Trick::Own,
        domain: 0,
        subdomain: 1,
        is_signed_below: false,
        claims: (MENDED, 1, 7, 1, 1),
        after: 0,
    };
    let days = MENDED..NOW;
    let shut = days.map(|day| senders.delivery(&Move { claims: (day, 1, 7, 1, 1), ..failing.clone() }));
    let shut = runtime.block_on(senders.stored(shut.chain(genuine.clone()).collect()));
    let weak = judged_by(leaves_out_whoever_failed_once, &shut, &[], NOW).1;
    assert!(matches!((&weak, judged(&shut, &[], NOW).1), (Gate::NotYet(_), Gate::Ask(_))), "{weak}");
    let cases = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(cases).run(&moves(), |moves| {
        let deliveries = |is_wanted: &dyn Fn(Trick) -> bool| -> Vec<Delivery> {
            moves.iter().filter(|one| is_wanted(one.trick)).map(|one| senders.delivery(one)).collect()
        };
        let with_genuine = |some: Vec<Delivery>| [some, genuine.clone()].concat();
        // Alone, with what they have of honest senders left out: they own two domains.
        let alone = runtime.block_on(senders.stored(deliveries(&|trick| trick.is_own())));
        let is_own = |(signer, submitter, ..): &(String, String, String, i64, u64, u64)| {
            is_of_adversary(signer) && is_of_adversary(submitter)
        };
        prop_assert!(counted(&alone).iter().all(is_own), "{alone:?}");
        prop_assert!(matches!(result(&alone).1, Gate::NotYet(_)));
        // Without a signature of their own, nothing moves.
        let forged = with_genuine(deliveries(&|trick| !trick.is_own()));
        let forged = runtime.block_on(senders.stored(forged));
        prop_assert_eq!(counted(&forged), counted(&honest));
        prop_assert_eq!(result(&forged), result(&honest));
        // With all, what counts for honest senders is theirs, and the gate is shut for no longer than the limit.
        let all = runtime.block_on(senders.stored(with_genuine(deliveries(&|_| true))));
        let (own, others): (BTreeSet<_>, _) =
            counted(&all).into_iter().partition(|(signer, ..)| is_of_adversary(signer));
        prop_assert_eq!(others, counted(&honest));
        prop_assert!(own.iter().all(|(_, submitter, ..)| is_of_adversary(submitter)), "{own:?}");
        let (evidence, gate) = result(&all);
        prop_assert!(!matches!(gate, Gate::NotYet(_)), "{gate}");
        let are_evil = evidence.accusers.iter().all(|sender| EVIL.contains(&sender.as_str()));
        prop_assert!(are_evil || gate == Gate::Ready, "{gate}");
        Ok(())
    });
    outcome.unwrap();
}

/// Each trick by itself.
#[tokio::test]
async fn each_trick_counts_for_the_domain_that_signed_the_report_or_not_at_all() {
    let senders = Senders::new();
    let tricks = [
        (Trick::Own, Some("evil.example")),
        (Trick::OwnInAnothersName, Some("evil.example")),
        (Trick::OwnInPart, None),
        // As a forwarded mail, whose signature is that of the one who forwards.
        (Trick::Wrapped, None),
        (Trick::SignedByOwnDomain, None),
        (Trick::SignedByOwnKey, None),
        (Trick::SignatureCopied, None),
        (Trick::Unsigned, None),
        (Trick::Changed, None),
        // It is still the genuine report, as often as it comes.
        (Trick::HeadersAdded(0b1_1111), Some("one.example")),
    ];
    for (trick, signer) in tricks {
        let one = Move {
            trick,
            domain: 0,
            subdomain: 1,
            is_signed_below: false,
            claims: (101, 1, 7, 1, 1),
            after: 0,
        };
        let kept = senders.stored(vec![senders.delivery(&one)]).await;
        let signers: Vec<String> = counted(&kept).into_iter().map(|(signer, ..)| signer).collect();
        assert_eq!(signers, signer.into_iter().collect::<Vec<_>>(), "{trick:?}: {kept:?}");
    }
    let genuine = Delivery { at: at(102), mail: senders.genuine(0, 101) };
    assert_eq!(counted(&senders.stored(vec![genuine.clone(), genuine]).await).len(), 1);
}
