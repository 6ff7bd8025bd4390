mod dmarc;
mod domain;
mod hostile;
mod lenient;

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
pub(crate) struct Names(pub HashMap<String, Result<String, DnsError>>);

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

pub(crate) struct Key {
    secret: Vec<u8>,
    pub record: String,
}

pub(crate) fn key() -> Key {
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

/// A report with this number as its id and its count of sessions.
fn numbered(number: usize) -> Vec<u8> {
    let json = String::from_utf8(json(&number.to_string())).unwrap();
    let count = "\"total-successful-session-count\":";
    json.replace(&format!("{count}1"), &format!("{count}{number}")).into_bytes()
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

pub(crate) fn sign_headers(
    message: &[u8],
    key: &Key,
    domain: &str,
    headers: &[&str],
    partly: bool,
) -> Vec<u8> {
    let secret = Ed25519Key::from_pkcs8_maybe_unchecked_der(&key.secret).unwrap();
    let signer = DkimSigner::from_key(secret).domain(domain).selector("s");
    let signer = signer.headers(headers.iter().copied()).body_length(partly);
    let mut signed = signer.sign(message).unwrap().to_header().into_bytes();
    signed.extend_from_slice(message);
    signed
}

async fn inbox(dns: Names) -> (tempfile::TempDir, Inbox) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("inbox.db"), store::Tenant::FIRST).await.unwrap();
    let addresses = vec!["r@a.example".to_owned()];
    let name = DomainName::parse("mx.a.example").ok();
    // Not the pool of the process: tests run at the same time.
    let pool = Arc::new(ExtractionPool::new(2, 512 << 20));
    let base = Inbox::new(store, Arc::new(dns), Arc::new(SystemClock), Arrival::Smtp);
    (dir, Inbox { addresses, name, pool, ..base })
}

async fn accept(inbox: &Inbox, message: &[u8]) -> InboxOutcome {
    inbox.accept_message(message.to_vec(), false).await.unwrap()
}

/// A deadline that no lookup of these tests reaches.
fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(60)
}

async fn trust_of(message: &[u8], dns: Names) -> Trust {
    let (_dir, inbox) = inbox(dns).await;
    let outcome = accept(&inbox, message).await;
    assert_eq!((outcome.reports.len(), &outcome.quarantined), (1, &None));
    outcome.reports[0].trust
}

/// The submitter of the only report in a message.
fn submitter_in(message: &[u8]) -> Option<String> {
    let mut memory = net::memory_budget::MemoryBudget::new(1 << 30, 1 << 30).reservation();
    let found = extract_message(message, false, &mut memory).unwrap();
    assert_eq!(found.reports.len(), 1, "{found:?}");
    found.reports[0].submitter.as_ref().map(ToString::to_string)
}

async fn ids(inbox: &Inbox) -> Vec<String> {
    let search = store::reports::Search { most: 1000, ..Default::default() };
    let all = inbox.store.reports(&search).await.unwrap();
    let mut ids: Vec<String> = all.into_iter().map(|report| report.report_id).collect();
    ids.sort();
    ids
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
        let state = check_signature(&dns, message, &submitter, jiff::Timestamp::now(), soon()).await;
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
            soon(),
        )
        .await;
        let signer = DomainName::parse("big.example").unwrap();
        let signs_domain = true;
        assert_eq!(state, SignatureState::Verified { signer, key_is_for_reports: expected, signs_domain });
    }
}

#[test]
fn rec_05_the_report_is_found_wherever_reporters_put_it() {
    let report = pack(&json("1")).unwrap();
    let named = Some("mail.big.example".to_owned());
    let in_report = message("multipart/report", report.clone());
    assert_eq!(submitter_in(&in_report), named);
    assert_eq!(submitter_in(&message("multipart/mixed", report.clone())), named);
    assert_eq!(submitter_in(&message("multipart/mixed", json("1"))), named);
    let only = MessageBuilder::new().from("a@big.example").body(MimePart::new("application/gzip", report));
    assert_eq!(submitter_in(&only.write_to_vec().unwrap()).as_deref(), Some("big.example"));
    let as_text = [b"From: a@big.example\r\n\r\n", json("1").as_slice()].concat();
    assert_eq!(submitter_in(&as_text).as_deref(), Some("big.example"));
    assert_eq!(submitter_in(&forwarded(in_report)), named);
}

/// A message with another one in it.
fn forwarded(message: Vec<u8>) -> Vec<u8> {
    let inner = MimePart::new("message/rfc822", message);
    let outer =
        MessageBuilder::new().from("boss@a.example").body(MimePart::new("multipart/mixed", vec![inner]));
    outer.write_to_vec().unwrap()
}

fn attached(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let parts = files
        .iter()
        .map(|(name, bytes)| {
            MimePart::new("application/octet-stream", bytes.clone()).attachment((*name).to_owned())
        })
        .collect::<Vec<_>>();
    let mail = MessageBuilder::new().from("t@big.example").body(MimePart::new("multipart/mixed", parts));
    mail.write_to_vec().unwrap()
}

fn zipped(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[tokio::test]
async fn rec_05_every_report_in_a_message_is_stored_before_it_is_acknowledged() {
    let two = [("a.json.gz", pack(&numbered(1)).unwrap()), ("b.json", numbered(2))];
    let inner = forwarded(forwarded(attached(&two)));
    for mail in [attached(&two), attached(&[("r.zip", zipped(&two))]), inner] {
        let (_dir, inbox) = inbox(Names::default()).await;
        let incoming =
            Incoming { from: "x".into(), to: vec!["r@a.example".into()], message: mail, tls: true };
        assert_eq!(inbox.keep(incoming).await, Ok(()));
        assert_eq!(ids(&inbox).await, ["1", "2"]);
        assert!(inbox.store.quarantined(0, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn rec_05_every_report_in_a_posted_zip_file_is_stored() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let mail = attached(&[("c.json", numbered(3))]);
    let zip = zipped(&[
        ("a.json.gz", pack(&numbered(1)).unwrap()),
        ("b.json", numbered(2)),
        ("c.eml", mail),
        ("x.txt", b"hi".to_vec()),
    ]);
    let outcome = inbox.accept_file(zip, "").await.unwrap();
    assert_eq!((outcome.reports.len(), outcome.quarantined), (3, None));
    assert_eq!(ids(&inbox).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn an_unreadable_report_beside_a_good_one_is_quarantined_and_unrelated_attachments_are_not() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let good = ("a.json.gz", pack(&numbered(1)).unwrap());
    let unrelated =
        [good.clone(), ("logo.zip", b"PK\x03\x04broken".to_vec()), ("x.json", b"{\"a\":".to_vec())];
    assert_eq!(accept(&inbox, &attached(&unrelated)).await.quarantined, None);
    let broken =
        [("b.json.gz", b"\x1f\x8bbroken".to_vec()), good, ("c.json", b"{\"report-id\": 1, ".to_vec())];
    let outcome = accept(&inbox, &attached(&broken)).await;
    assert_eq!(outcome.reports.len(), 1);
    let reason = outcome.quarantined.unwrap();
    assert!(
        reason.starts_with("1 report is stored, but b.json.gz: the report can't be unpacked"),
        "{reason}"
    );
    assert!(reason.contains("; c.json: the report can't be read"), "{reason}");
    let there = inbox.store.quarantined(0, 10).await.unwrap();
    assert_eq!((there.len(), there[0].reason.as_str()), (1, reason.as_str()));
}

#[tokio::test]
async fn reports_and_parts_beyond_the_limits_are_kept_in_quarantine_and_the_first_ones_stored() {
    use formats::limits::{INBOX_DEPTH, INBOX_PARTS, INBOX_REPORTS};
    let (_dir, inbox) = inbox(Names::default()).await;
    let files: Vec<(String, Vec<u8>)> =
        (0..INBOX_REPORTS + 1).map(|n| (format!("{n}.json"), numbered(n))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, json)| (name.as_str(), json.clone())).collect();
    let all = inbox.accept_file(zipped(&files[..INBOX_REPORTS]), "").await.unwrap();
    assert_eq!((all.reports.len(), all.quarantined), (INBOX_REPORTS, None));
    let cut = inbox.accept_file(zipped(&files), "").await.unwrap();
    assert_eq!(cut.reports.len(), INBOX_REPORTS);
    assert!(cut.quarantined.unwrap().contains("more than 100 reports"));
    let nested =
        |levels: usize| (0..levels).fold(attached(&[("a.json", numbered(500))]), |mail, _| forwarded(mail));
    assert_eq!(accept(&inbox, &nested(INBOX_DEPTH)).await.reports.len(), 1);
    let deeper = accept(&inbox, &nested(INBOX_DEPTH + 1)).await;
    assert!(deeper.reports.is_empty() && deeper.quarantined.unwrap().contains("within 4 others"));
    let mut parts = vec![("x.txt", b"hi".to_vec()); INBOX_PARTS];
    parts[0] = ("a.json", numbered(1));
    assert_eq!(accept(&inbox, &attached(&parts)).await.quarantined, None);
    parts.push(("b.json", numbered(2)));
    let cut = accept(&inbox, &attached(&parts)).await;
    assert!(cut.reports.len() == 1 && cut.quarantined.unwrap().contains("more than 100 parts"));
}

#[tokio::test]
async fn rec_09_small_bombs_are_refused_by_their_number_of_values() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let bomb = format!("{{\"report-id\":\"1\",\"x\":[{}0]}}", "{\"a\":1},".repeat(2_000_000));
    let packed = pack(bomb.as_bytes()).unwrap();
    assert!(packed.len() < 100_000, "{}", packed.len());
    let outcome = inbox.accept_file(packed.clone(), "").await.unwrap();
    assert!(outcome.quarantined.unwrap().contains("more than 1500000 values"));
    // Two halves count together.
    let half = pack(&numbered(1)).unwrap();
    let filler = format!("{{\"x\":[{}0],", "0,".repeat(800_000));
    let large = |id: usize| String::from_utf8(numbered(id)).unwrap().replacen('{', &filler, 1).into_bytes();
    let outcome = inbox.accept_file(zipped(&[("a.json", large(2)), ("b.json", large(3))]), "").await.unwrap();
    assert_eq!(outcome.reports.len(), 1, "{outcome:?}");
    assert!(outcome.quarantined.unwrap().contains("more than 1500000 values"));
    assert!(inbox.accept_file(half, "").await.unwrap().quarantined.is_none());
}

#[tokio::test]
async fn input_is_refused_temporarily_while_the_memory_for_reports_is_in_use() {
    let (_dir, base) = inbox(Names::default()).await;
    let inbox = Inbox { pool: Arc::new(ExtractionPool::new(1, 200_000)), ..base };
    let mail = message("multipart/report", pack(&json("1")).unwrap());
    let incoming = |message: &[u8]| Incoming {
        from: "x".into(),
        to: vec!["r@a.example".into()],
        message: message.to_vec(),
        tls: true,
    };
    let mut others = inbox.pool.memory().reservation();
    assert!(others.cover(199_000));
    assert!(matches!(inbox.keep(incoming(&mail)).await, Err(KeepError::Temporary(_))));
    assert!(matches!(inbox.accept_file(pack(&json("1")).unwrap(), "").await, Err(InboxError::Busy(_))));
    assert!(ids(&inbox).await.is_empty() && inbox.store.quarantined(0, 10).await.unwrap().is_empty());
    drop(others);
    assert_eq!(inbox.keep(incoming(&mail)).await, Ok(()));
    assert_eq!((ids(&inbox).await, inbox.pool.memory().used()), (vec!["1".to_owned()], 0));
}

#[tokio::test]
async fn a_bounce_or_reply_with_a_report_that_was_sent_is_not_a_report_received() {
    let sent = message("multipart/report", pack(&json("1")).unwrap());
    let status = MimePart::new("message/delivery-status", "Action: failed\r\n");
    let parts =
        vec![MimePart::new("text/plain", "sorry"), status, MimePart::new("message/rfc822", sent.clone())];
    let bounce =
        MessageBuilder::new().from("mailer-daemon@b.example").body(MimePart::new("multipart/report", parts));
    let reply = [b"Auto-Submitted: auto-replied\r\n".as_slice(), &forwarded(sent.clone())].concat();
    let returned = [b"Return-Path: <>\r\n".as_slice(), &forwarded(sent.clone())].concat();
    for mail in [bounce.write_to_vec().unwrap(), reply, returned] {
        let (_dir, inbox) = inbox(Names::default()).await;
        let outcome = accept(&inbox, &mail).await;
        assert!(outcome.reports.is_empty() && outcome.quarantined.unwrap().contains("RFC 3464"));
        let reading = inbox.read_mail(Arc::new(mail), false, Arrival::Imap).await.unwrap();
        assert!(!reading.claims, "left alone in a mailbox");
    }
    let (_dir, inbox) = inbox(Names::default()).await;
    let empty = inbox.accept_message(forwarded(sent.clone()), true).await.unwrap();
    assert!(empty.reports.is_empty(), "the envelope names no sender");
    // A retry does not know the envelope.
    let number = inbox.store.quarantined(0, 10).await.unwrap()[0].id;
    let bytes = Arc::new(inbox.store.quarantined_bytes(number).await.unwrap().unwrap());
    let item = files::Item { name: String::new(), bytes, ..files::Item::default() };
    assert!(inbox.read_item_patiently(&item, Arrival::Smtp).await.unwrap().reports.is_empty());
    // A reporter may use an empty envelope sender, and says truly that a program sends its reports.
    let generated = [b"Auto-Submitted: auto-generated\r\n".as_slice(), &sent].concat();
    assert_eq!(inbox.accept_message(generated, true).await.unwrap().reports.len(), 1);
}

#[tokio::test]
async fn the_submitter_is_a_domain_of_the_message_the_file_or_the_report() {
    let report = |contact: &str, organization: &str| {
        let json = String::from_utf8(json("1")).unwrap();
        let contact = format!("\"contact-info\":{contact}");
        json.replace("\"contact-info\":\"t@big.example\"", &contact)
            .replace("\"Big\"", organization)
            .into_bytes()
    };
    let headers = |headers: &str, body: &[u8]| [headers.as_bytes(), b"\r\n", body].concat();
    let acme = headers(
        "From: t@acme.example\r\nTLS-Report-Submitter: ACME\r\nSubject: Report Domain: a.example Submitter: ACME Report-ID: <1>\r\n",
        &json("1"),
    );
    assert_eq!(submitter_in(&acme).as_deref(), Some("acme.example"));
    for from in ["To: r@a.example\r\n", "From: <>\r\n", "From: root@localhost\r\n"] {
        assert_eq!(submitter_in(&headers(from, &json("1"))).as_deref(), Some("big.example"), "{from}");
    }
    for (contact, organization, expected) in [
        ("null", "\"sender.example\"", "sender.example"),
        ("\"https://\"", "\"sender.example\"", "sender.example"),
        ("\"https://contact.example/x\"", "\"Big\"", "contact.example"),
        ("null", "\"Big Mail Inc.\"", UNKNOWN_SUBMITTER),
        ("null", "null", UNKNOWN_SUBMITTER),
    ] {
        let (_dir, inbox) = inbox(Names::default()).await;
        let outcome = inbox.accept_file(report(contact, organization), "").await.unwrap();
        assert_eq!((outcome.reports[0].submitter.as_str(), outcome.quarantined), (expected, None));
    }
}

#[tokio::test]
async fn rec_04_a_signed_report_with_line_ends_after_its_gzip_data_is_read_with_a_warning() {
    let packed = [pack(&json("1")).unwrap(), b"\r\n\0\0".to_vec()].concat();
    let (_dir, inbox) = inbox(Names::default()).await;
    let mail = message("multipart/report", packed);
    let reading = inbox.read_mail(Arc::new(mail), false, Arrival::Smtp).await.unwrap();
    assert!(reading.problems.is_empty());
    let plain = inbox.read_file(Arc::new(json("1")), "", Arrival::Smtp).await.unwrap();
    assert_eq!(reading.reports[0].warnings, plain.reports[0].warnings + 1);
}

#[tokio::test]
async fn a_retired_key_makes_a_report_unverified_and_not_forged() {
    let key = key();
    let signed = sign(&message("multipart/report", json("1")), &key, "big.example", false);
    assert_eq!(trust_of(&signed, Names::default()).await, Trust::Unverified);
    let revoked = publishing("s._domainkey.big.example", "v=DKIM1; k=ed25519; p=");
    assert_eq!(trust_of(&signed, revoked).await, Trust::Unverified);
    let submitter = DomainName::parse("big.example").unwrap();
    let now = jiff::Timestamp::now();
    let state = check_signature(&Names::default(), &signed, &submitter, now, soon()).await;
    assert_eq!(state, SignatureState::KeyAbsent);
}

#[tokio::test]
async fn a_message_to_postmaster_is_accepted_and_neither_stored_nor_quarantined() {
    let (_dir, inbox) = inbox(Names::default()).await;
    for to in ["postmaster", "Postmaster", "POSTMASTER@a.example", "postmaster@mx.A.example"] {
        assert!(inbox.takes(to), "{to}");
        let message = b"From: x@b.example\r\nSubject: your server\r\n\r\nhello\r\n".to_vec();
        let incoming = Incoming { from: "x@b.example".into(), to: vec![to.into()], message, tls: true };
        assert_eq!(inbox.keep(incoming).await, Ok(()));
    }
    for to in ["postmaster@b.example", "postmaster2@a.example", "abuse@a.example", ""] {
        assert!(!inbox.takes(to), "{to}");
    }
    assert!(ids(&inbox).await.is_empty() && inbox.store.quarantined(0, 10).await.unwrap().is_empty());
    let both = vec!["postmaster".to_owned(), "r@a.example".to_owned()];
    let message = message("multipart/report", json("1"));
    assert_eq!(inbox.keep(Incoming { from: "x".into(), to: both, message, tls: true }).await, Ok(()));
    assert_eq!(ids(&inbox).await, ["1"]);
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
async fn a4_a_flood_of_one_client_pushes_out_nothing_of_another() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let retention = Retention {
        quarantine: Quota { bytes: 20_000, items: 100 },
        unverified: Quota { bytes: 20_000, items: 100 },
        ..Retention::default()
    };
    let inbox = Inbox { retention, ..inbox };
    let [one, flood] = ["192.0.2.1", "2001:db8::1"].map(|from| inbox.for_client(from.parse().ok()));
    let from = |number: usize| message("multipart/report", format!("{{\"report-id\": {number}").into_bytes());
    accept(&one, &from(0)).await;
    one.accept_file(numbered(1), "").await.unwrap();
    for number in 2..60 {
        accept(&flood, &from(number)).await;
        flood.accept_file(numbered(number), "").await.unwrap();
    }
    let there = inbox.store.quarantined(0, 100).await.unwrap();
    assert_eq!((there[0].source.as_str(), there[1].source.as_str()), ("192.0.2.0/24", "2001:db8::/48"));
    let (usage, unverified) =
        (inbox.store.quarantine_usage().await.unwrap(), inbox.store.unverified_usage().await.unwrap());
    assert!(usage.bytes <= 20_000 && usage.evicted > 0, "{usage:?}");
    assert!(unverified.bytes <= 20_000 && unverified.evicted > 0, "{unverified:?}");
    let left = ids(&inbox).await;
    assert!(left.contains(&"1".to_owned()) && left.contains(&"59".to_owned()), "{left:?}");
}

#[tokio::test]
async fn q2_a_flood_with_forged_senders_from_a_mailbox_pushes_out_nothing_of_a_client() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let retention = Retention {
        quarantine: Quota { bytes: 20_000, items: 100 },
        unverified: Quota { bytes: 20_000, items: 100 },
        ..Retention::default()
    };
    let inbox = Inbox { retention, arrival: Arrival::Imap, ..inbox };
    let client = inbox.for_client("192.0.2.1".parse().ok());
    for number in 0..2 {
        accept(&client, format!("hello {number}").as_bytes()).await;
        client.accept_file(numbered(number), "").await.unwrap();
    }
    for number in 2..200 {
        let mail = format!("From: a@forged{number}.example\r\n\r\nhello");
        accept(&inbox, mail.as_bytes()).await;
        let name = format!("forged{number}.example!a.example!1795132800!1795219199.json");
        inbox.accept_file(numbered(number), &name).await.unwrap();
    }
    let there = inbox.store.quarantined(0, 1000).await.unwrap();
    assert_eq!(there.iter().filter(|one| one.source == "192.0.2.0/24").count(), 2);
    assert!(there.iter().skip(2).all(|one| one.source.is_empty()) && there.len() <= 27, "{there:?}");
    let left = ids(&inbox).await;
    assert!(left.contains(&"0".to_owned()) && left.contains(&"1".to_owned()), "{left:?}");
    assert!(left.contains(&"199".to_owned()) && !left.contains(&"2".to_owned()), "{left:?}");
}

#[tokio::test]
async fn a4_what_is_too_old_is_removed_and_what_is_evidence_keeps_its_numbers() {
    let (_dir, inbox) = inbox(Names::default()).await;
    inbox.accept_file(numbered(1), "").await.unwrap();
    accept(&inbox, b"hello").await;
    let now = inbox.clock.now();
    let limits = Retention::default();
    let after = |days: i64| now + jiff::SignedDuration::from_hours(24 * days + 1);
    let enforce = async |days| limits.enforce(&inbox.store, after(days)).await.unwrap();
    assert_eq!(enforce(29).await, Removed::default());
    assert_eq!(enforce(30).await, Removed { quarantined: 1, ..Removed::default() });
    let mut vouched = inbox.read_file(Arc::new(numbered(2)), "", Arrival::Import).await.unwrap().reports;
    vouched[0].trust = Trust::Trusted;
    inbox.store.keep_reports(&vouched).await.unwrap();
    assert_eq!(enforce(90).await, Removed { unverified: 1, ..Removed::default() });
    assert_eq!(enforce(400).await, Removed { expired: 1, ..Removed::default() });
    let domain = DomainName::parse("a.example").unwrap();
    let days = inbox.store.days_of(&domain, jiff::Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((days.len(), days[0].successful, days[0].unproved), (1, 2, 0));
    assert!(ids(&inbox).await.is_empty());
}

#[tokio::test]
async fn a_store_that_fails_makes_the_sender_try_again() {
    let (_dir, inbox) = inbox(Names::default()).await;
    inbox.store.close().await;
    for bytes in [message("multipart/report", json("7")), b"hello".to_vec()] {
        let incoming = Incoming { from: "x".into(), to: vec![], message: bytes.clone(), tls: true };
        assert!(matches!(inbox.keep(incoming).await, Err(KeepError::Temporary(_))));
        assert!(matches!(inbox.accept_file(bytes, "").await, Err(InboxError::Store(_))));
    }
}

#[tokio::test]
async fn rec_06_the_same_mail_twice_counts_once() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let mail = message("multipart/report", json("7"));
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.extend(accept(&inbox, &mail).await.reports.into_iter().map(|report| report.kept));
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

/// The replies of a session with the inbox, without those to EHLO and LHLO.
async fn session(inbox: &Inbox, protocol: net::smtp::server::Protocol, script: &str) -> Vec<String> {
    use net::smtp::server::{ServerConfig, Starttls, serve};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut replies, mut commands) = tokio::io::split(near);
    let config = ServerConfig::new(DomainName::parse("mx.a.example").unwrap(), Starttls::Absent);
    let config = ServerConfig { protocol, ..config };
    let mut output = String::new();
    let write = async {
        commands.write_all(script.as_bytes()).await.unwrap();
        commands.shutdown().await.unwrap();
    };
    let (_, (), _) =
        tokio::join!(serve(Box::new(far), &config, inbox), write, replies.read_to_string(&mut output));
    let is_last = |line: &&str| line.as_bytes().get(3) == Some(&b' ');
    output.lines().filter(is_last).skip(2).map(str::to_owned).collect()
}

/// RFC 5321 §4.5.1: without a domain, and in any case.
#[tokio::test]
async fn postmaster_is_accepted_in_smtp_and_lmtp_sessions_and_nothing_is_stored() {
    use net::smtp::server::Protocol;
    let (_dir, inbox) = inbox(Names::default()).await;
    for (protocol, hello) in [(Protocol::Smtp, "EHLO"), (Protocol::Lmtp, "LHLO")] {
        for recipient in ["postmaster", "Postmaster", "POSTMASTER@A.example", "postmaster@mx.a.example"] {
            let script = format!(
                "{hello} x\r\nMAIL FROM:<s@c.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\nSubject: help\r\n\r\nx\r\n.\r\nQUIT\r\n"
            );
            let replies = session(&inbox, protocol, &script).await;
            assert_eq!(replies, ["250 ok", "250 ok", "354 go ahead", "250 kept", "221 bye"], "{recipient}");
        }
        let script = format!(
            "{hello} x\r\nMAIL FROM:<s@c.example>\r\nRCPT TO:<postmaster@c.example>\r\nRCPT TO:<abuse>\r\nQUIT\r\n"
        );
        let replies = session(&inbox, protocol, &script).await;
        assert!(replies[1].starts_with("550") && replies[2].starts_with("550"), "{replies:?}");
    }
    assert!(inbox.store.quarantined(0, 9).await.unwrap().is_empty() && ids(&inbox).await.is_empty());
}
