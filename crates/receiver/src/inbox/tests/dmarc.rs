use super::hostile::watched;
use super::*;
use jiff::SignedDuration;
use net::clock::later;
use store::dmarc::DmarcSearch;

fn sample(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/dmarc");
    std::fs::read(folder.join(name)).unwrap()
}

fn zipped(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut zip, bytes).unwrap();
    zip.finish().unwrap().into_inner()
}

/// A mail as DMARC reporters send it; its subject has the form of that of a TLS report.
fn dmarc_mail(kind: &'static str, name: &'static str, bytes: Vec<u8>) -> Vec<u8> {
    let part = MimePart::new(kind, bytes).attachment(name);
    MessageBuilder::new()
        .from("dmarcreport@microsoft.example")
        .to("r@a.example")
        .subject("Report Domain: harbour.example Submitter: protection.outlook.example Report-ID: <5b1e>")
        .body(MimePart::new("multipart/mixed", vec![MimePart::new("text/plain", "a report"), part]))
        .write_to_vec()
        .unwrap()
}

const NAME: &str = "outlook.example!harbour.example!1763596800!1763683200.xml.gz";

fn mails() -> Vec<Vec<u8>> {
    let xml = sample("microsoft.xml");
    let packed = pack(&xml).unwrap();
    vec![
        dmarc_mail("application/gzip", NAME, packed.clone()),
        dmarc_mail("application/octet-stream", "report.gz", packed),
        dmarc_mail("application/zip", "b.example!harbour.example!1!2.zip", zipped("x.xml", &xml)),
        dmarc_mail("text/xml", "b.example!harbour.example!1!2.xml", xml),
    ]
}

async fn messages(inbox: &Inbox) -> Vec<(u64, u64, bool)> {
    let search = DmarcSearch { domain: None, since: jiff::Timestamp::UNIX_EPOCH, most: 100 };
    let sums = inbox.store.dmarc_sums(&search).await.unwrap();
    sums.into_iter().map(|sum| (sum.messages, sum.reports, sum.verified)).collect()
}

#[tokio::test]
async fn dmarc_reports_are_left_alone_by_name_unless_they_are_imported() {
    for mail in mails() {
        let (_dir, inbox) = inbox(Names::default()).await;
        let reading = inbox.read_mail(Arc::new(mail.clone()), false, Arrival::Imap).await.unwrap();
        assert!(reading.is_other_mail() && reading.other_dmarc == 1);
        assert!(reading.reason().contains("DMARC report"), "{}", reading.reason());
        // By SMTP there is no other copy.
        let outcome = accept(&inbox, &mail).await;
        assert!(outcome.quarantined.unwrap().contains("inbox.dmarc = true"));
        assert!(messages(&inbox).await.is_empty());
    }
}

#[tokio::test]
async fn dmarc_reports_are_imported_in_every_wrapping_and_count_once() {
    let (_dir, mut inbox) = inbox(Names::default()).await;
    (inbox.dmarc, inbox.counts) = (true, Arc::default());
    for (at, mail) in mails().into_iter().enumerate() {
        let reading = inbox.read_mail(Arc::new(mail.clone()), false, Arrival::Imap).await.unwrap();
        assert!(!reading.is_other_mail() && reading.problems.is_empty(), "{:?}", reading.problems);
        let outcome = accept(&inbox, &mail).await;
        let kept = if at == 0 { KeepOutcome::New } else { KeepOutcome::Duplicate };
        assert_eq!((outcome.reports.len(), outcome.dmarc, outcome.quarantined), (0, vec![kept], None));
    }
    assert_eq!(messages(&inbox).await, [(5, 1, false)]);
    assert_eq!((inbox.counts.dmarc(), inbox.counts.quarantined()), (1, 0));
    // A file has no sender but the contact in the report.
    let outcome = inbox.accept_file(sample("google.xml"), "").await.unwrap();
    assert_eq!((outcome.dmarc, outcome.quarantined), (vec![KeepOutcome::New], None));
}

#[tokio::test]
async fn the_sender_of_a_dmarc_report_is_the_domain_of_from_by_its_signature() {
    let key = key();
    let mail = dmarc_mail("application/gzip", NAME, pack(&sample("microsoft.xml")).unwrap());
    let signed = sign_headers(&mail, &key, "microsoft.example", &["From", "Subject"], false);
    let foreign = sign_headers(&mail, &key, "outlook.example", &["From", "Subject"], false);
    let changed = [&signed[..signed.len() - 60], b"AAAA", &signed[signed.len() - 60..]].concat();
    for (mail, verified) in [(signed, true), (foreign, false), (changed, false)] {
        let names = ["s._domainkey.microsoft.example", "s._domainkey.outlook.example"];
        let dns = Names(names.map(|name| (name.to_owned(), Ok(key.record.clone()))).into());
        let (_dir, mut inbox) = inbox(dns).await;
        inbox.dmarc = true;
        let reading = inbox.read_mail(Arc::new(mail), false, Arrival::Smtp).await.unwrap();
        let found: Vec<_> = reading.dmarc.iter().map(|new| (new.submitter.as_str(), new.trust)).collect();
        if verified {
            assert_eq!(found, [("microsoft.example", Trust::Verified)]);
        } else {
            assert!(found.iter().all(|(_, trust)| !trust.counts()), "{found:?}");
        }
    }
}

#[tokio::test]
async fn an_unreadable_dmarc_report_is_named_and_left_alone() {
    let xml = sample("google.xml");
    let cut = &xml[..xml.len() / 2];
    let late = String::from_utf8(xml.clone()).unwrap().replace("1763596800", "32503680000");
    for (mail, reason) in [
        (dmarc_mail("application/gzip", NAME, pack(cut).unwrap()), "the DMARC report can't be read"),
        (dmarc_mail("application/gzip", NAME, b"\x1f\x8bbroken".to_vec()), "can't be unpacked"),
        (dmarc_mail("application/gzip", NAME, pack(b"<html>no report</html>").unwrap()), "can't be read"),
        (dmarc_mail("application/zip", "b.example!a.example!1!2.zip", b"PK\x03\x04x".to_vec()), "unpacked"),
        (dmarc_mail("text/xml", "r.xml", late.into_bytes()), "in the future"),
    ] {
        let (_dir, mut inbox) = inbox(Names::default()).await;
        inbox.dmarc = true;
        let reading = inbox.read_mail(Arc::new(mail.clone()), false, Arrival::Imap).await.unwrap();
        assert!(reading.is_other_mail(), "{reason}");
        assert!(accept(&inbox, &mail).await.quarantined.unwrap().contains(reason), "{reason}");
        assert!(messages(&inbox).await.is_empty());
    }
}

#[tokio::test]
async fn a_tls_report_beside_a_dmarc_report_is_stored_with_and_without_it() {
    let parts = vec![
        MimePart::new("application/gzip", pack(&sample("yahoo.xml")).unwrap()).attachment(NAME),
        MimePart::new("application/tlsrpt+gzip", pack(&json("1")).unwrap()).attachment("r.json.gz"),
    ];
    let mail = MessageBuilder::new().from("t@big.example").body(MimePart::new("multipart/mixed", parts));
    let mail = mail.write_to_vec().unwrap();
    for is_on in [false, true] {
        let (_dir, mut inbox) = inbox(Names::default()).await;
        inbox.dmarc = is_on;
        let outcome = accept(&inbox, &mail).await;
        assert_eq!((outcome.reports.len(), outcome.dmarc.len()), (1, usize::from(is_on)));
        assert_eq!(outcome.quarantined, None);
    }
}

#[tokio::test]
async fn the_elements_of_all_dmarc_reports_in_a_message_are_bounded_together() {
    // Records that differ, so that the ratio of the compression is ordinary.
    let record = |n: u32| format!("<record><row><count>{}</count></row></record>", n * n % 99_991);
    let records: String = (0..400_000).map(|n| record(n % 5000)).collect();
    let xml = format!(
        "<feedback><report_metadata><date_range><begin>1</begin></date_range></report_metadata><policy_published><domain>a.example</domain></policy_published>{records}</feedback>"
    );
    let packed = pack(xml.as_bytes()).unwrap();
    let parts: Vec<_> =
        (0..4).map(|_| MimePart::new("application/gzip", packed.clone()).attachment(NAME)).collect();
    let mail = MessageBuilder::new().from("t@big.example").body(MimePart::new("multipart/mixed", parts));
    let (_dir, mut inbox) = inbox(Names::default()).await;
    inbox.dmarc = true;
    let mail = Arc::new(mail.write_to_vec().unwrap());
    let reading = inbox.read_mail(mail, false, Arrival::Smtp).await.unwrap();
    assert_eq!((reading.dmarc.len(), reading.problems.len()), (2, 2), "{:?}", reading.problems);
    assert!(reading.reason().contains("elements"), "{}", reading.reason());
}

#[tokio::test]
async fn a_dmarc_report_whose_first_element_comes_late_is_recognized_in_every_encoding() {
    let xml = String::from_utf8(sample("google.xml")).unwrap();
    let (head, rest) = xml.split_once("<feedback>").unwrap();
    let late = format!("{head}<!--{}--><feedback>{rest}", "=".repeat(3000));
    for encoding in ["base64", "quoted-printable", "8bit"] {
        let body = match encoding {
            "base64" => String::from_utf8(Base64Encoder::new().encode(late.as_bytes()).unwrap()).unwrap(),
            "quoted-printable" => late.replace('=', "=3D"),
            _ => late.clone(),
        };
        let mail = format!(
            "From: d@b.example\r\nContent-Type: text/xml\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}"
        );
        let (_dir, mut inbox) = inbox(Names::default()).await;
        inbox.dmarc = true;
        let outcome = accept(&inbox, mail.as_bytes()).await;
        assert_eq!((outcome.dmarc, outcome.quarantined), (vec![KeepOutcome::New], None), "{encoding}");
    }
}

#[tokio::test]
async fn keys_of_dmarc_senders_are_looked_up_once_without_memory_and_only_if_the_reports_are_imported() {
    let key = key();
    let xml = pack(&sample("microsoft.xml")).unwrap();
    for (is_on, name, lookups) in [(true, NAME, 1), (true, "report.gz", 1), (false, NAME, 0)] {
        let part = MimePart::new("application/gzip", xml.clone()).attachment(name);
        let mail = MessageBuilder::new().from("d@big.example").body(part).write_to_vec().unwrap();
        let (_dir, base) = inbox(Names::default()).await;
        let dns = Arc::new(watched(&key.record));
        let inbox = Inbox { pool: dns.pool.clone(), dns: dns.clone(), dmarc: is_on, ..base };
        let signed = sign_headers(&mail, &key, "big.example", &["From"], false);
        let reading = inbox.read_mail(Arc::new(signed), false, Arrival::Smtp).await.unwrap();
        assert_eq!(*dns.used.lock().unwrap(), vec![0; lookups], "{name} {is_on}");
        assert!(reading.dmarc.iter().all(|new| new.trust == Trust::Verified && new.source == "big.example"));
        assert_eq!((reading.dmarc.len(), reading.other_dmarc), if is_on { (1, 0) } else { (0, 1) });
        drop(reading);
        assert_eq!(dns.pool.memory().used(), 0);
    }
}

/// A large report, whose text compresses well.
fn large(bytes: usize) -> Vec<u8> {
    let xml = String::from_utf8(sample("google.xml")).unwrap();
    xml.replace("</feedback>", &format!("<!--{}--></feedback>", " ".repeat(bytes))).into_bytes()
}

#[tokio::test]
async fn the_memory_of_dmarc_reports_is_reserved_and_given_back() {
    const MEGABYTE: usize = 1 << 20;
    let (_dir, base) = inbox(Names::default()).await;
    let base = Inbox { dmarc: true, ..base };
    let broken = [large(MEGABYTE), b"<".to_vec()].concat();
    let latin = [large(MEGABYTE), b"<!--\xe4-->".to_vec()].concat();
    for (xml, is_read) in [(large(MEGABYTE), true), (latin, true), (broken, false)] {
        let pool = Arc::new(ExtractionPool::new(1, 64 * MEGABYTE));
        let inbox = Inbox { pool: pool.clone(), ..base.clone() };
        let mail = Arc::new(dmarc_mail("application/gzip", NAME, pack(&xml).unwrap()));
        let reading = inbox.read_mail(mail.clone(), false, Arrival::Smtp).await.unwrap();
        assert_eq!(reading.dmarc.len(), usize::from(is_read), "{:?}", reading.problems);
        let kept = if is_read { 1000..100_000 } else { 0..1 };
        assert!(kept.contains(&pool.memory().used()), "{}", pool.memory().used());
        assert!(pool.memory().peak() > 3 * MEGABYTE, "{}", pool.memory().peak());
        drop(reading);
        // What others hold is refused for now, and what there never is for good.
        let mut others = pool.memory().reservation();
        assert!(others.cover(48 * MEGABYTE));
        assert!(inbox.read_mail(mail.clone(), false, Arrival::Smtp).await.is_err());
        drop(others);
        let narrow = Inbox { pool: Arc::new(ExtractionPool::new(1, 2 * MEGABYTE)), ..inbox };
        let reading = narrow.read_mail(mail, false, Arrival::Imap).await.unwrap();
        assert!(reading.is_other_mail() && reading.reason().contains("more memory than there is"));
        assert_eq!((narrow.pool.memory().used(), pool.memory().used()), (0, 0));
    }
}

#[tokio::test]
async fn dmarc_reports_are_deleted_at_the_ages_of_tls_reports_and_share_the_quota_by_network() {
    let key = key();
    let mail = dmarc_mail("application/gzip", NAME, pack(&sample("microsoft.xml")).unwrap());
    let signed = sign_headers(&mail, &key, "microsoft.example", &["From"], false);
    let (_dir, mut inbox) = inbox(publishing("s._domainkey.microsoft.example", &key.record)).await;
    inbox.dmarc = true;
    let client = inbox.for_client("192.0.2.77".parse().ok());
    let unsigned = dmarc_mail("application/gzip", NAME, pack(&sample("yahoo.xml")).unwrap());
    for (mail, source) in [(&signed, "microsoft.example"), (&unsigned, "192.0.2.0/24")] {
        let reading = client.read_mail(Arc::new(mail.clone()), false, Arrival::Smtp).await.unwrap();
        assert_eq!(reading.dmarc[0].source, source);
        assert_eq!(accept(&client, mail).await.dmarc, [KeepOutcome::New]);
    }
    let limits = Retention { unverified_days: 5, received_days: 9, ..Retention::default() };
    for (day, left) in [(4, 2), (6, 1), (8, 1), (10, 0)] {
        let at = later(SystemClock.now(), SignedDuration::from_hours(24 * day));
        limits.enforce(&inbox.store, at).await.unwrap();
        let found = inbox.store.dmarc_domains(jiff::Timestamp::UNIX_EPOCH, 9).await.unwrap();
        assert_eq!(found.iter().map(|one| one.reports).sum::<u64>(), left, "day {day}");
    }
}
