//! Forms of reports that RFC 8460 does not allow and other programs write: what can be read safely is taken, and nothing that
//! has the name, the media type or the shape of a TLS report is ignored silently.

use super::*;
use crate::inbox::mime::uuencoded;
use formats::limits::{INBOX_MULTIPARTS, INBOX_PACKINGS, INBOX_PARTS, INBOX_REPORTS};
use std::fmt::Write as _;

const NAME: &str = "mail.big.example!a.example!1795392000!1795478399.json";

fn utf16(text: &[u8], mark: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("{mark}{}", String::from_utf8(text.to_vec()).unwrap()).encode_utf16().flat_map(unit).collect()
}

fn array(reports: &[Vec<u8>]) -> Vec<u8> {
    [b"[\n".as_slice(), &reports.join(&b",\n"[..]), b"\n]\n"].concat()
}

/// A tar archive of these files.
fn tarred(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        let mut header = vec![0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].copy_from_slice(b"        ");
        let sum: usize = header.iter().map(|byte| usize::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(bytes);
        archive.resize(archive.len().div_ceil(512) * 512, 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Imports a file and, attached to a mail that says what it is, the same content. Both have to give the same.
async fn taken(content: &[u8], expected: &[&str]) -> Option<String> {
    let (_dir, by_file) = inbox(Names::default()).await;
    let outcome = by_file.accept_file(content.to_vec(), NAME).await.unwrap();
    assert_eq!(ids(&by_file).await, expected, "{outcome:?}");
    let (_dir, by_mail) = inbox(Names::default()).await;
    let mail = accept(&by_mail, &message("multipart/report", content.to_vec())).await;
    assert_eq!(ids(&by_mail).await, expected, "{mail:?}");
    assert_eq!(outcome.quarantined.is_some(), mail.quarantined.is_some(), "{outcome:?} {mail:?}");
    // What is shown later comes from the stored text.
    for report in
        by_mail.store.reports(&store::reports::Search { most: 1000, ..Default::default() }).await.unwrap()
    {
        let stored = by_mail.store.report(report.id).await.unwrap().unwrap();
        let text = formats::report::unpack(&stored.packed).unwrap().0;
        assert_eq!(formats::report::Report::read(&text).unwrap().report.report_id, report.report_id);
    }
    outcome.quarantined
}

#[tokio::test]
async fn utf_16_is_taken_with_and_without_a_byte_order_mark() {
    for mark in ["", "\u{feff}"] {
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            let text = utf16(&json("1"), mark, unit);
            assert_eq!(taken(&text, &["1"]).await, None);
            assert_eq!(taken(&pack(&text).unwrap(), &["1"]).await, None);
        }
    }
}

#[tokio::test]
async fn an_array_and_lines_of_reports_are_taken_each_report_once() {
    assert_eq!(taken(&array(&[json("1")]), &["1"]).await, None);
    let three = [json("1"), json("2"), json("3")];
    assert_eq!(taken(&array(&three), &["1", "2", "3"]).await, None);
    assert_eq!(taken(&pack(&array(&three)).unwrap(), &["1", "2", "3"]).await, None);
    assert_eq!(taken(&three.join(&b'\n'), &["1", "2", "3"]).await, None);
    assert_eq!(taken(&three.map(|one| pack(&one).unwrap()).concat(), &["1", "2", "3"]).await, None);
}

#[tokio::test]
async fn a_bad_report_in_an_array_loses_no_other_and_is_named() {
    let bad = String::from_utf8(json("2")).unwrap().replace("date-range", "no-range").into_bytes();
    let reason = taken(&array(&[json("1"), bad, json("3")]), &["1", "3"]).await.unwrap();
    assert!(reason.starts_with("2 reports are stored, but ") && reason.contains(".json[1]: "), "{reason}");
    let cut = array(&[json("1"), json("2")]);
    let reason = taken(&cut[..cut.len() - 40], &["1"]).await.unwrap();
    assert!(reason.contains("EOF"), "{reason}");
    let many: Vec<Vec<u8>> = (0..INBOX_REPORTS + 1).map(numbered).collect();
    let (_dir, inbox) = inbox(Names::default()).await;
    let outcome = inbox.accept_file(array(&many), NAME).await.unwrap();
    assert_eq!(outcome.reports.len(), INBOX_REPORTS);
    assert!(outcome.quarantined.unwrap().contains("more than 100 reports"));
}

#[tokio::test]
async fn text_and_zeros_after_a_report_are_ignored_unless_they_may_be_a_report() {
    for after in [&b"\0\0\0"[..], b"\n-- \nsent by a list\n", b"\r\n.\r\n"] {
        assert_eq!(taken(&[&json("1"), after].concat(), &["1"]).await, None);
    }
    let broken = [&json("1"), &b"x"[..], &json("2")].concat();
    let reason = taken(&broken, &["1"]).await.unwrap();
    assert!(reason.contains("the text after a report can't be read"), "{reason}");
}

#[tokio::test]
async fn gzip_within_gzip_and_archives_within_each_other_are_unpacked_up_to_a_depth() {
    let packed = |text: &[u8]| pack(text).unwrap();
    let two = [("a.json", json("1")), ("b.json.gz", packed(&json("2")))];
    assert_eq!(taken(&packed(&packed(&json("1"))), &["1"]).await, None);
    assert_eq!(taken(&packed(&zipped(&two)), &["1", "2"]).await, None);
    assert_eq!(taken(&tarred(&two), &["1", "2"]).await, None);
    assert_eq!(taken(&packed(&tarred(&two)), &["1", "2"]).await, None);
    assert_eq!(taken(&zipped(&[("inner.zip", zipped(&two))]), &["1", "2"]).await, None);
    assert_eq!(taken(&zipped(&[("mail.eml", message("multipart/report", json("1")))]), &["1"]).await, None);
    let deep = |levels: usize| (0..levels).fold(json("1"), |inner, _| packed(&inner));
    assert_eq!(taken(&deep(INBOX_PACKINGS + 1), &["1"]).await, None);
    let reason = taken(&deep(INBOX_PACKINGS + 2), &[]).await.unwrap();
    assert!(reason.contains("compressed or archived more than"), "{reason}");
    let cut = tarred(&[(NAME, json("1"))]);
    let reason = taken(&cut[..600], &[]).await.unwrap();
    assert!(reason.contains("the tar file ends within this file"), "{reason}");
}

#[tokio::test]
async fn an_archive_bomb_in_an_archive_stays_within_the_budget_of_the_message() {
    let inner = zipped(&[("a.json", vec![b' '; 30 << 20]), ("b.json", vec![b' '; 30 << 20])]);
    let outer = zipped(&[("1.zip", inner.clone()), ("2.zip", inner.clone()), ("3.zip", inner)]);
    let budget = net::memory_budget::MemoryBudget::new(512 << 20, 512 << 20);
    let found = extract_file(&outer, NAME, &mut budget.reservation()).unwrap();
    assert!(found.reports.is_empty() && found.claims);
    assert!(budget.peak() < 400 << 20 && budget.used() == 0, "{}", budget.peak());
}

#[tokio::test]
async fn times_as_numbers_and_the_hour_24_are_taken() {
    let text = String::from_utf8(json("1")).unwrap();
    for end in ["1795478399", "1795478399000", "\"1795478399\"", "\"2026-11-23T24:00:00Z\""] {
        let text = text.replace("\"2026-11-23T23:59:59Z\"", end);
        assert_eq!(taken(text.as_bytes(), &["1"]).await, None, "{end}");
    }
}

#[tokio::test]
async fn uuencoded_reports_are_taken() {
    let (text, packed) = (uuencoded(NAME, &json("1")), uuencoded("r.json.gz", &pack(&json("2")).unwrap()));
    let encoding = |encoding: &str, body: &str| {
        format!(
            "From: t@big.example\r\nContent-Type: application/octet-stream\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\r\n{body}"
        )
    };
    let inline = |body: &str| format!("From: t@big.example\r\n\r\nHello,\r\n\r\n{body}bye\r\n");
    for (mail, expected) in [
        (encoding("x-uuencode", &text), &["1"][..]),
        (encoding("UUENCODE", &packed), &["2"]),
        (inline(&text), &["1"]),
        (inline(&packed), &["2"]),
        (inline(&format!("{text}\r\n{packed}")), &["1", "2"]),
    ] {
        let (_dir, inbox) = inbox(Names::default()).await;
        let outcome = accept(&inbox, mail.as_bytes()).await;
        assert_eq!(
            (ids(&inbox).await.as_slice(), &outcome.quarantined),
            (&expected.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()[..], &None),
            "{mail}"
        );
    }
    let (_dir, inbox) = inbox(Names::default()).await;
    let private = inline(&uuencoded("photo.jpg", b"\xff\xd8\xff"));
    let reading = inbox.read_mail(Arc::new(private.into_bytes()), false, Arrival::Imap).await.unwrap();
    assert!(reading.is_other_mail());
    let broken = inline(&uuencoded(NAME, b"\xff\xd8\xff"));
    let reading = inbox.read_mail(Arc::new(broken.into_bytes()), false, Arrival::Imap).await.unwrap();
    assert!(!reading.is_other_mail() && reading.reports.is_empty());
}

/// A mail with a report within so many multiparts; its header does not say what it is.
fn nested(levels: usize) -> String {
    let report =
        format!("Content-Type: application/tlsrpt+json\r\n\r\n{}", String::from_utf8(json("1")).unwrap());
    let nested = (0..levels).fold(report, |inner, level| {
        format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n{inner}\r\n--b{level}--\r\n")
    });
    format!("From: t@big.example\r\n{nested}")
}

#[tokio::test]
async fn multiparts_nested_deeper_than_the_limit_are_quarantined_with_that_reason() {
    let (_dir, inbox) = inbox(Names::default()).await;
    assert_eq!(accept(&inbox, nested(INBOX_MULTIPARTS).as_bytes()).await.quarantined, None);
    for levels in [INBOX_MULTIPARTS + 1, 40] {
        let mail = Arc::new(nested(levels).into_bytes());
        let reading = inbox.read_mail(mail, false, Arrival::Imap).await.unwrap();
        assert!(!reading.is_other_mail(), "{levels}");
        assert_eq!(reading.reason(), format!("a multipart within {INBOX_MULTIPARTS} others is not searched"));
    }
}

#[tokio::test]
async fn parts_beyond_the_limit_are_quarantined_with_that_reason_wherever_the_report_is() {
    let (_dir, inbox) = inbox(Names::default()).await;
    for before in [INBOX_PARTS - 1, INBOX_PARTS, 299, 1000] {
        let mut mail = "From: t@big.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned();
        (0..before).for_each(|_| mail.push_str("--b\r\n\r\nx\r\n"));
        let text = String::from_utf8(json("1")).unwrap();
        let _ = write!(mail, "--b\r\nContent-Type: application/tlsrpt+json\r\n\r\n{text}\r\n--b--\r\n");
        let reading = inbox.read_mail(Arc::new(mail.into_bytes()), false, Arrival::Imap).await.unwrap();
        assert!(!reading.is_other_mail(), "{before}");
        assert_eq!(reading.reports.len(), usize::from(before < INBOX_PARTS), "{before}");
        let expected = "the message has more than 100 parts; only the first 100 are read";
        match before < INBOX_PARTS {
            true => assert!(reading.problems.is_empty(), "{before}"),
            false => assert_eq!(reading.reason(), expected, "{before}"),
        }
    }
}

#[tokio::test]
async fn what_is_named_or_labeled_as_a_report_is_never_ignored() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let odd: [&[u8]; 6] =
        [b"", b"report: none\n", b"\xff\xff\xff", b"[1, 2]", b"\"{}\"", b"From: a@b.example\r\n\r\nx"];
    for content in odd {
        let item = files::Item {
            name: NAME.to_owned(),
            bytes: Arc::new(content.to_vec()),
            ..files::Item::default()
        };
        let member = files::Item { name: format!("all.zip:{NAME}"), ..item.clone() };
        for item in [item, member] {
            let reading = inbox.read_item(&item, Arrival::Import).await.unwrap();
            assert!(!reading.is_other_mail() && !reading.problems.is_empty(), "{content:?}");
        }
        let mail = attached(&[("good.json", json("1")), (NAME, content.to_vec())]);
        let outcome = accept(&inbox, &mail).await;
        let reason = outcome.quarantined.unwrap_or_default();
        assert!(outcome.reports.len() == 1 && reason.contains(NAME), "{content:?} {reason}");
    }
    // Without a name: the members of a report.
    let shape = [b"see:\n", json("1").as_slice()].concat();
    let item = files::Item { name: "x.txt".to_owned(), bytes: Arc::new(shape), ..files::Item::default() };
    assert!(!inbox.read_item(&item, Arrival::Import).await.unwrap().is_other_mail());
    let bytes = Arc::new(b"[{\"a\":1}]".to_vec());
    let private = files::Item { name: "data.json".to_owned(), bytes, ..files::Item::default() };
    assert!(inbox.read_item(&private, Arrival::Import).await.unwrap().is_other_mail());
}

/// What is in a file, as the import divides it.
fn imported(inbox: &Inbox, file: &std::path::Path) -> Vec<Result<files::Item, files::Unreadable>> {
    let (mut found, mut divided) = (Vec::new(), Vec::new());
    files::items_in(file, &mut |one| found.push(one)).unwrap();
    for one in found {
        match one {
            files::Found::Gzip(item) => {
                match inbox.read_gzip_here(&item.bytes, item.file_name(), Arrival::Import).unwrap() {
                    GzipFile::Read(_) => divided.push(files::Found::Item(item)),
                    GzipFile::Left(LeftInGzip::Tar) => item.tar_files(&mut |one| divided.push(one)),
                    GzipFile::Left(LeftInGzip::Mbox) => item.mails_in_gzip(&mut |one| divided.push(one)),
                    GzipFile::Left(LeftInGzip::Mail) => divided.push(item.mail_in_gzip()),
                }
            }
            other => divided.push(other),
        }
    }
    let read = divided.into_iter().map(|one| match one {
        files::Found::Item(item) => Ok(item),
        files::Found::Unreadable(one) => Err(one),
        files::Found::Gzip(item) => panic!("{item:?}"),
    });
    read.collect()
}

#[tokio::test]
async fn a_gzip_file_is_divided_only_if_it_is_a_tar_archive_or_mail_itself() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let tar = pack(&tarred(&[(NAME, json("1"))])).unwrap();
    let outer = tarred(&[("inner.tar.gz", tar.clone())]);
    let read = |bytes: &[u8]| inbox.read_gzip_here(bytes, "x.gz", Arrival::Import).unwrap();
    assert!(matches!(read(&tar), GzipFile::Left(LeftInGzip::Tar)));
    assert!(matches!(read(&pack(b"From a@b Mon\n").unwrap()), GzipFile::Left(LeftInGzip::Mbox)));
    let mail = pack(&message("multipart/report", json("1"))).unwrap();
    assert!(matches!(read(&mail), GzipFile::Left(LeftInGzip::Mail)));
    assert_eq!(inbox.pool.memory().used(), 0);
    // What is packed twice, or within an archive, is extracted as a whole.
    for bytes in [pack(&json("1")).unwrap(), pack(&tar).unwrap()] {
        let GzipFile::Read(reading) = read(&bytes) else { panic!("it is not a tar archive") };
        assert_eq!((reading.reports.len(), reading.problems.len()), (1, 0));
    }
    let mut found = Vec::new();
    files::items_from(&mut &outer[..], "x.tar", &mut |one| found.push(one)).unwrap();
    let [files::Found::Item(inner)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(inbox.read_item(inner, Arrival::Import).await.unwrap().reports.len(), 1);
    // A cut archive has reports if a file in it is named so.
    for (name, content, claims) in [(NAME, json("1"), true), ("photo.jpg", vec![7; 900], false)] {
        let mut cut = pack(&tarred(&[(name, content)])).unwrap();
        cut.truncate(cut.len() - 9);
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("backup.tar.gz");
        std::fs::write(&file, cut).unwrap();
        assert_eq!(imported(&inbox, &file).pop().unwrap().unwrap_err().claims, claims);
    }
}

#[tokio::test]
async fn a_tar_file_on_import_is_its_files_and_names_the_submitter_of_each() {
    let (_dir, inbox) = inbox(Names::default()).await;
    let place = tempfile::tempdir().unwrap();
    let tar = tarred(&[(NAME, json("1")), ("mail.eml", message("multipart/report", json("2")))]);
    for (name, bytes) in [("all.tar", tar.clone()), ("all.tar.gz", pack(&tar).unwrap())] {
        std::fs::write(place.path().join(name), bytes).unwrap();
        let found = imported(&inbox, &place.path().join(name)).into_iter().map(Result::unwrap);
        let found: Vec<_> = found.collect();
        assert_eq!(found[0].name, format!("{name}:{NAME}"));
        let mut submitters = Vec::new();
        for item in &found {
            let reading = inbox.read_item(item, Arrival::Import).await.unwrap();
            submitters.extend(reading.reports.into_iter().map(|new| new.submitter));
        }
        assert_eq!(submitters, ["mail.big.example", "mail.big.example"]);
    }
}

#[tokio::test]
async fn a_mail_within_gzip_is_read_as_within_zip() {
    let mail = message("multipart/report", json("1"));
    let packed = pack(&mail).unwrap();
    let (_dir, by_file) = inbox(Names::default()).await;
    let outcome = by_file.accept_file(packed.clone(), "mail.eml.gz").await.unwrap();
    assert_eq!((ids(&by_file).await, outcome.quarantined), (vec!["1".to_owned()], None));
    for attachment in [("mail.eml.gz", packed.clone()), ("mails.zip", zipped(&[("1.gz", packed.clone())]))] {
        let (_dir, inbox) = inbox(Names::default()).await;
        let outcome = accept(&inbox, &attached(&[attachment])).await;
        assert_eq!((ids(&inbox).await, outcome.quarantined), (vec!["1".to_owned()], None));
    }
    // An mbox, in gzip or not.
    let mbox = ["2", "3"]
        .map(|id| [b"From a@b Mon\n", message("multipart/report", json(id)).as_slice(), b"\n"].concat());
    let mbox = mbox.concat();
    for attachment in [
        ("reports.mbox.gz", pack(&mbox).unwrap()),
        ("mails.zip", zipped(&[("mbox", mbox.clone())])),
        ("mails.tar", tarred(&[("mbox", mbox.clone())])),
    ] {
        let (_dir, inbox) = inbox(Names::default()).await;
        let outcome = accept(&inbox, &attached(&[attachment])).await;
        assert_eq!((ids(&inbox).await.len(), outcome.quarantined), (2, None));
    }
    // Private mail, and a backup of text that has colons.
    let private = b"From: a@b.example\r\nSubject: dinner\r\n\r\nat eight\r\n";
    for content in [&private[..], b"Note: not a mail\n\n{\n"] {
        let mail = attached(&[("x.gz", pack(content).unwrap())]);
        let reading = by_file.read_mail(Arc::new(mail), false, Arrival::Imap).await.unwrap();
        assert!(reading.is_other_mail(), "{:?}", reading.problems);
    }
    // What has the name of a report has to have one.
    let named = by_file.accept_file(pack(private).unwrap(), NAME).await.unwrap();
    assert!(named.reports.is_empty() && named.quarantined.is_some());
}

#[tokio::test]
async fn a_bomb_of_a_mail_within_gzip_stays_within_the_budget_of_the_message() {
    let bomb = pack(&[b"From: a@b.example\r\n\r\n".as_slice(), &vec![b' '; 128 << 20]].concat()).unwrap();
    let budget = net::memory_budget::MemoryBudget::new(512 << 20, 512 << 20);
    let found = extract_file(&bomb, NAME, &mut budget.reservation()).unwrap();
    assert!(found.reports.is_empty() && found.claims);
    assert!(budget.peak() < 400 << 20 && budget.used() == 0, "{}", budget.peak());
}

/// What an import reads of a file in the folder `cur` of a maildir.
fn of_maildir(inbox: &Inbox, content: &[u8]) -> Vec<Result<files::Item, files::Unreadable>> {
    let place = tempfile::tempdir().unwrap();
    for folder in ["cur", "new"] {
        std::fs::create_dir(place.path().join(folder)).unwrap();
    }
    let path = place.path().join("cur/1700000000.M1P1.host,S=900,W=910:2,S");
    std::fs::write(&path, content).unwrap();
    imported(inbox, &path)
}

#[tokio::test]
async fn a_compressed_mail_of_a_maildir_is_the_mail_with_its_signature() {
    let key = key();
    let (_dir, inbox) = inbox(publishing("s._domainkey.big.example", &key.record)).await;
    let signed = sign(&message("multipart/report", pack(&json("1")).unwrap()), &key, "big.example", false);
    let item = of_maildir(&inbox, &pack(&signed).unwrap()).pop().unwrap().unwrap();
    assert_eq!(*item.bytes, signed);
    let reading = inbox.read_item(&item, Arrival::Import).await.unwrap();
    assert_eq!(reading.reports.iter().map(|new| new.trust).collect::<Vec<_>>(), [Trust::Verified]);
    // A compressed mailbox is its mails.
    let mbox = [b"From a@b Mon\n".as_slice(), &signed, b"\n\nFrom a@b Mon\n", &signed, b"\n\n"].concat();
    assert_eq!(of_maildir(&inbox, &pack(&mbox).unwrap()).len(), 2);
    // A mail that is too large, or cut, counts only if it says that it has a report.
    let large = |header: &str| {
        let mail = [header.as_bytes(), b"From: a@b.example\r\n\r\n", &vec![b'x'; 16 << 20]].concat();
        of_maildir(&inbox, &pack(&mail).unwrap()).pop().unwrap().unwrap_err()
    };
    assert!(!large("").claims && large("TLS-Report-Domain: a.example\r\n").claims);
    let cut = pack(&signed).unwrap();
    assert!(of_maildir(&inbox, &cut[..cut.len() - 20]).pop().unwrap().unwrap_err().claims);
    let other = of_maildir(&inbox, b"\x28\xb5\x2f\xfd rest").pop().unwrap().unwrap_err();
    assert!(other.claims && other.why.starts_with("compressed with zstd"), "{}", other.why);
}
