use super::*;
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
