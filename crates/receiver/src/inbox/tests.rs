use super::*;
use formats::report::pack;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use mail_builder::MessageBuilder;
use mail_builder::encoders::base64::Base64Encoder;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::MimePart;
use net::clock::SystemClock;
use net::dns::{Absence, Answer, Data, DnsError, Kind, Security};
use std::collections::HashMap;
use std::time::Duration;

#[derive(Default)]
struct Names(HashMap<String, Result<String, DnsError>>);

impl Dns for Names {
    fn lookup<'a>(&'a self, name: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let nothing = DnsError::NoSuchName(Absence { security: Security::Insecure, ttl: None });
        let found = self.0.get(name.as_str()).cloned().unwrap_or(Err(nothing));
        let answer = found.map(|text| Answer {
            records: vec![Data::Txt(text.into_bytes())],
            ttl: Duration::from_secs(60),
            security: Security::Insecure,
            aliases: vec![],
            is_split: false,
        });
        Box::pin(async move { answer })
    }
}

struct Key {
    secret: Vec<u8>,
    record: String,
}

fn key() -> Key {
    let secret = Ed25519Key::generate_pkcs8().unwrap();
    let public = Ed25519Key::from_pkcs8_maybe_unchecked_der(&secret).unwrap().public_key();
    let public = String::from_utf8(Base64Encoder::new().encode(&public).unwrap()).unwrap();
    Key { secret, record: format!("v=DKIM1; k=ed25519; s=tlsrpt; p={public}") }
}

fn json(id: &str) -> Vec<u8> {
    format!(
        r#"{{"organization-name":"Big","date-range":{{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"}},"contact-info":"t@big.example","report-id":"{id}","policies":[{{"policy":{{"policy-type":"sts","policy-string":["version: STSv1"],"policy-domain":"a.example","mx-host":["mx.a.example"]}},"summary":{{"total-successful-session-count":1,"total-failure-session-count":0}}}}]}}"#
    )
    .into_bytes()
}

fn message(kind: &'static str, report: Vec<u8>) -> Vec<u8> {
    let parts = vec![
        MimePart::new("text/plain", "a report"),
        MimePart::new("application/tlsrpt+gzip", report).attachment("r.json.gz"),
    ];
    MessageBuilder::new()
        .from("noreply@mail.big.example")
        .to("r@a.example")
        .subject("Report Domain: a.example Submitter: mail.big.example Report-ID: <1>")
        .header("TLS-Report-Submitter", Raw::new("mail.big.example"))
        .body(MimePart::new(kind, parts))
        .write_to_vec()
        .unwrap()
}

fn sign(message: &[u8], key: &Key, domain: &str, partly: bool) -> Vec<u8> {
    sign_headers(message, key, domain, &["From", "Subject", "TLS-Report-Submitter"], partly)
}

fn sign_headers(message: &[u8], key: &Key, domain: &str, headers: &[&str], partly: bool) -> Vec<u8> {
    let secret = Ed25519Key::from_pkcs8_maybe_unchecked_der(&key.secret).unwrap();
    let signer = DkimSigner::from_key(secret).domain(domain).selector("s");
    let signer = signer.headers(headers.iter().copied()).body_length(partly);
    let mut signed = signer.sign(message).unwrap().to_header().into_bytes();
    signed.extend_from_slice(message);
    signed
}

async fn inbox(dns: Names) -> (tempfile::TempDir, Inbox) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("inbox.db")).await.unwrap();
    let addresses = vec!["r@a.example".to_owned()];
    (
        dir,
        Inbox { store, dns: Arc::new(dns), clock: Arc::new(SystemClock), addresses, arrival: Arrival::Smtp },
    )
}

async fn trust_of(message: &[u8], dns: Names) -> Trust {
    let (_dir, inbox) = inbox(dns).await;
    match inbox.accept_message(message).await.unwrap() {
        InboxOutcome::Report { trust, .. } => trust,
        other => panic!("{other:?}"),
    }
}

fn publishing(name: &str, record: &str) -> Names {
    Names(HashMap::from([(name.to_owned(), Ok(record.to_owned()))]))
}

#[tokio::test]
async fn rec_01_only_a_signature_of_the_submitter_over_the_whole_message_verifies() {
    let key = key();
    let plain = message("multipart/report", pack(&json("1")).unwrap());
    let aligned = sign(&plain, &key, "big.example", false);
    let name = "s._domainkey.big.example";
    assert_eq!(trust_of(&aligned, publishing(name, &key.record)).await, Trust::Verified);
    assert_eq!(trust_of(&plain, publishing(name, &key.record)).await, Trust::Unverified);
    let stranger = sign(&plain, &key, "evil.example", false);
    let theirs = publishing("s._domainkey.evil.example", &key.record);
    assert_eq!(trust_of(&stranger, theirs).await, Trust::Unverified);
    let other_key = self::key();
    assert_eq!(trust_of(&aligned, publishing(name, &other_key.record)).await, Trust::Failed);
    assert_eq!(trust_of(&aligned, Names::default()).await, Trust::Failed);
    let unknown = Names(HashMap::from([(name.to_owned(), Err(DnsError::Timeout))]));
    assert_eq!(trust_of(&aligned, unknown).await, Trust::Unverified);
    let partly = sign(&plain, &key, "big.example", true);
    assert_ne!(trust_of(&partly, publishing(name, &key.record)).await, Trust::Verified);
    let mut changed = aligned.clone();
    let at = changed.windows(8).position(|w| w == b"a report").unwrap();
    changed[at] = b'A';
    assert_eq!(trust_of(&changed, publishing(name, &key.record)).await, Trust::Failed);
}

#[tokio::test]
async fn rec_01_a_signature_that_does_not_cover_the_author_does_not_count() {
    let key = key();
    let plain = message("multipart/report", pack(&json("1")).unwrap());
    let signed = sign_headers(&plain, &key, "big.example", &["Subject", "TLS-Report-Submitter"], false);
    let dns = publishing("s._domainkey.big.example", &key.record);
    assert_eq!(trust_of(&signed, dns).await, Trust::Failed);
}

/// RFC 8301 §3.1. Both messages are signed with one key (by dkimpy).
#[tokio::test]
async fn rec_01_a_signature_with_sha_1_does_not_count() {
    let record = include_str!("signed/key.txt").trim();
    let submitter = DomainName::parse("big.example").unwrap();
    for (message, counts) in [
        (include_bytes!("signed/rsa-sha256.eml").as_slice(), true),
        (include_bytes!("signed/rsa-sha1.eml").as_slice(), false),
    ] {
        let dns = publishing("s._domainkey.big.example", record);
        let state = check_signature(&dns, message, &submitter, jiff::Timestamp::now()).await;
        assert_eq!(matches!(state, SignatureState::Verified { .. }), counts, "{state:?}");
    }
}

#[tokio::test]
async fn rec_02_the_state_of_the_key_is_shown() {
    let key = key();
    let signed = sign(&message("multipart/report", json("1")), &key, "big.example", false);
    let submitter = DomainName::parse("mail.big.example").unwrap();
    let ordinary = key.record.replace("s=tlsrpt", "s=email");
    for (record, expected) in [(&key.record, true), (&ordinary, false)] {
        let state = check_signature(
            &publishing("s._domainkey.big.example", record),
            &signed,
            &submitter,
            jiff::Timestamp::now(),
        )
        .await;
        let signer = DomainName::parse("big.example").unwrap();
        assert_eq!(state, SignatureState::Verified { signer, key_is_for_reports: expected });
    }
}

#[test]
fn rec_05_the_report_is_found_wherever_reporters_put_it() {
    let report = pack(&json("1")).unwrap();
    let in_report = message("multipart/report", report.clone());
    assert!(extract(&in_report).is_ok());
    assert!(extract(&message("multipart/mixed", report.clone())).is_ok());
    assert!(extract(&message("multipart/mixed", json("1"))).is_ok());
    let only = MessageBuilder::new().from("a@big.example").body(MimePart::new("application/gzip", report));
    assert_eq!(extract(&only.write_to_vec().unwrap()).unwrap().submitter.as_str(), "big.example");
    let as_text = [b"From: a@big.example\r\n\r\n", json("1").as_slice()].concat();
    assert!(extract(&as_text).is_ok());
    let inner = MimePart::new("message/rfc822", in_report);
    let forwarded =
        MessageBuilder::new().from("boss@a.example").body(MimePart::new("multipart/mixed", vec![inner]));
    assert_eq!(extract(&forwarded.write_to_vec().unwrap()).unwrap().submitter.as_str(), "mail.big.example");
}

#[tokio::test]
async fn mail_without_a_report_is_quarantined_with_the_reason_and_acknowledged() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let hello = b"From: a@b.example\r\n\r\nhello\r\n".to_vec();
    let broken = message("multipart/report", vec![0x1f, 0x8b, 1, 2, 3]);
    let odd = message("multipart/report", b"{\"report-id\": 7".to_vec());
    for mail in [hello, broken, odd] {
        let incoming = Incoming { from: String::new(), to: vec![], message: mail, tls: true };
        assert_eq!(inbox.keep(incoming).await, Ok(()));
    }
    let there = inbox.store.quarantined(0, 10).await.unwrap();
    let reasons: Vec<String> = there.into_iter().map(|one| one.reason).collect();
    assert_eq!(reasons.len(), 3);
    assert_eq!(reasons[0], "no part of the message is a TLS report");
    assert!(reasons[1].starts_with("the report can't be unpacked"), "{reasons:?}");
    assert!(reasons[2].starts_with("the report can't be read"), "{reasons:?}");
}

#[tokio::test]
async fn rec_06_the_same_mail_twice_counts_once() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let mail = message("multipart/report", json("7"));
    let mut kept = Vec::new();
    for _ in 0..2 {
        match inbox.accept_message(&mail).await.unwrap() {
            InboxOutcome::Report { kept: now, .. } => kept.push(now),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kept, [KeepOutcome::New, KeepOutcome::Duplicate]);
}

#[tokio::test]
async fn a_failing_store_yields_a_temporary_error() {
    let (_dir, inbox) = inbox(Names::default()).await;
    inbox.store.close().await;
    let incoming = Incoming {
        from: String::new(),
        to: vec![],
        message: message("multipart/report", json("1")),
        tls: true,
    };
    assert!(matches!(inbox.keep(incoming).await, Err(KeepError::Temporary(_))));
}

#[test]
fn addresses_match_in_any_case_and_others_are_rejected() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_dir, inbox) = runtime.block_on(inbox(Names::default()));
    assert!(inbox.takes("R@A.example") && !inbox.takes("other@a.example"));
}
