//! Imports from mailboxes that people use: mails that move and arrive meanwhile, large ones, folders that can't be read,
//! compressed mails, and what programs write that differs from the standards.

use crate::{command, import, place, report, run, write};
use formats::report::pack;
use serde_json::Value;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

fn mail(id: usize) -> String {
    let json = report(&id.to_string(), "a.example", 5, 0);
    format!(
        "From: tls@big.example\nTLS-Report-Domain: a.example\nContent-Type: multipart/report; boundary=b\n\n\
         --b\nContent-Type: application/tlsrpt+json\n\n{json}\n--b--\n"
    )
}

const PRIVATE: &str = "From: a@b.example\nSubject: dinner\nX-Note: private\n\nhello\n";

fn maildir(place: &Path) -> PathBuf {
    let maildir = place.join("in");
    for folder in ["cur", "new", "tmp"] {
        std::fs::create_dir_all(maildir.join(folder)).unwrap();
    }
    maildir
}

fn counts<const N: usize>(told: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| told[name].as_u64().unwrap_or_else(|| panic!("{name}: {told}")))
}

fn import_in(place: &Path) -> (i32, Value) {
    let (code, out, err) = run(place, &["reports", "import", "--json", "in"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}")))
}

#[test]
fn mails_that_are_read_and_delivered_during_an_import_are_neither_lost_nor_errors() {
    const MAILS: usize = 600;
    let place = place();
    let maildir = maildir(place.path());
    for number in 0..MAILS {
        let text = if number % 2 == 0 { mail(number) } else { PRIVATE.to_owned() };
        std::fs::write(maildir.join(format!("new/{number}.M1.host")), text).unwrap();
    }
    let people = {
        let maildir = maildir.clone();
        std::thread::spawn(move || {
            for number in 0..MAILS {
                let path = |name: &str| maildir.join(name);
                let (new, seen) = (format!("new/{number}.M1.host"), format!("cur/{number}.M1.host:2,S"));
                std::fs::rename(path(&new), path(&seen)).unwrap();
                let delivered = format!("{}.M1.host", MAILS + number);
                std::fs::write(path(&format!("tmp/{delivered}")), mail(MAILS + number)).unwrap();
                std::fs::rename(path(&format!("tmp/{delivered}")), path(&format!("new/{delivered}")))
                    .unwrap();
                std::fs::rename(path(&seen), path(&format!("cur/{number}.M1.host:2,RS"))).unwrap();
            }
        })
    };
    let (code, told) = import_in(place.path());
    people.join().unwrap();
    let [new, left_alone] = counts(&told, ["new", "left_alone"]);
    // The system may leave a mail out of a list of files during which it is renamed. The next import finds it.
    assert!(code == 0 && left_alone <= MAILS as u64 / 2, "{told}");
    assert_eq!(counts(&told, ["quarantined", "unreadable", "gone"]), [0, 0, 0], "{told}");
    let (code, told) = import_in(place.path());
    let [second, left_alone, gone] = counts(&told, ["new", "left_alone", "gone"]);
    assert_eq!((code, left_alone, gone), (0, MAILS as u64 / 2, 0), "{told}");
    assert_eq!(new + second, (MAILS + MAILS / 2) as u64, "{told}");
}

#[test]
fn a_large_private_mail_is_left_alone_wherever_it_is() {
    let place = place();
    let maildir = maildir(place.path());
    let large = [PRIVATE.as_bytes(), &b"photo ".repeat(3_500_000)].concat();
    std::fs::write(maildir.join("cur/1.host:2,S"), &large).unwrap();
    write(place.path(), "in/files/large.eml", &large);
    write(
        place.path(),
        "in/mbox",
        [b"From a Mon\n".as_slice(), &large, b"\n\nFrom b Tue\n", mail(1).as_bytes(), b"\n"].concat(),
    );
    let (code, told) = import_in(place.path());
    assert_eq!((code, counts(&told, ["new", "left_alone", "unreadable"])), (0, [1, 3, 0]), "{told}");
    // One that says that it has a report is named.
    std::fs::write(maildir.join("cur/2.host:2,S"), [mail(2).as_bytes(), &large].concat()).unwrap();
    let (code, told) = import_in(place.path());
    assert_eq!((code, counts(&told, ["left_alone", "unreadable"])), (1, [3, 1]), "{told}");
    assert!(told["problems"][0]["why"].as_str().unwrap().contains("larger than the limit"), "{told}");
}

/// The command as a user whom file modes bind. Root is not bound by them.
fn bound(place: &Path, words: &[&str]) -> Command {
    let program = command(place, words);
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return program;
    }
    let mut bound = Command::new("setpriv");
    let dropped = "-dac_override,-dac_read_search";
    bound.arg(format!("--bounding-set={dropped}")).arg(format!("--inh-caps={dropped}"));
    bound.arg(program.get_program()).args(program.get_args()).current_dir(place);
    bound
}

#[test]
fn a_folder_or_file_that_can_not_be_read_is_named_and_the_others_are_imported() {
    let place = place();
    let maildir = maildir(place.path());
    std::fs::write(maildir.join("new/1.host"), mail(1)).unwrap();
    write(place.path(), "in/.Shut/cur/2", mail(2));
    write(place.path(), "in/.Open/cur/3", mail(3));
    std::fs::create_dir(maildir.join(".Open/new")).unwrap();
    let shut = maildir.join(".Shut");
    write(place.path(), "in/.Open/cur/4", mail(4));
    for path in [&shut, &maildir.join(".Open/cur/4")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).unwrap();
    }
    let output = bound(place.path(), &["reports", "import", "--json", "in"]).output().unwrap();
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o700)).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((output.status.code(), counts(&told, ["new", "unreadable"])), (Some(1), [2, 2]), "{told}");
    for (problem, name) in told["problems"].as_array().unwrap().iter().zip(["in/.Shut", "in/.Open/cur/4"]) {
        assert_eq!(problem["name"], name);
        assert!(problem["why"].as_str().unwrap().contains("Permission denied"), "{told}");
    }
}

#[test]
fn half_a_mail_at_the_end_of_an_mbox_is_left_for_the_next_import() {
    let place = place();
    let (first, second) = (format!("From a Mon\n{}\n", mail(1)), format!("From b Tue\n{}\n", mail(2)));
    // Cut within the header, after it, within the report, and before the last boundary.
    let header = second.find("\n\n").unwrap();
    for end in [20, header - 3, header + 2, second.find("date-range").unwrap(), second.find("--b--").unwrap()]
    {
        write(place.path(), "in/mbox", format!("{first}{}", &second[..end]));
        let (code, told) = import_in(place.path());
        assert_eq!((code, counts(&told, ["quarantined", "unreadable"])), (0, [0, 0]), "{end}: {told}");
    }
    write(place.path(), "in/mbox", format!("{first}{second}"));
    let (code, _) = import_in(place.path());
    assert_eq!((code, crate::listed(place.path()).len()), (0, 2));
    // A broken mail that has its end is broken.
    let broken = second.replace("\"policies\":", "\"policies\"");
    write(place.path(), "in/mbox", format!("{first}{broken}"));
    let (code, told) = import_in(place.path());
    assert_eq!((code, counts(&told, ["quarantined", "unfinished"])), (1, [1, 0]), "{told}");
}

#[test]
fn a_maildir_of_compressed_mails_is_imported_as_one_of_plain_mails() {
    let place = place();
    let maildir = maildir(place.path());
    std::fs::write(maildir.join("cur/1.host,S=900,W=920:2,S"), pack(mail(1).as_bytes()).unwrap()).unwrap();
    std::fs::write(maildir.join("cur/2.host,S=100,W=110:2,S"), pack(PRIVATE.as_bytes()).unwrap()).unwrap();
    let (code, told) = import_in(place.path());
    assert_eq!((code, counts(&told, ["new", "left_alone", "quarantined"])), (0, [1, 1, 0]), "{told}");
    std::fs::write(maildir.join("cur/3.host:2,S"), b"\x28\xb5\x2f\xfd and more").unwrap();
    let told = import(place.path(), &["in"]);
    let problem = told["problems"][0]["why"].as_str().unwrap();
    assert!(problem.starts_with("compressed with zstd"), "{told}");
}

/// An mbox of reports 1 to 3, with a private mail, as programs write it that differ from RFC 4155.
#[test]
fn no_report_of_an_mbox_is_lost_or_cut_whichever_program_wrote_it() {
    const FROM: &str = "From tls@big.example Sat Nov 21 00:10:00 2026";
    let mbox = |from: &str, after: &str| {
        let mails = [mail(1), PRIVATE.to_owned(), mail(2), mail(3)];
        mails.iter().map(|mail| format!("{from}\n{mail}{after}")).collect::<String>()
    };
    let sentence = |text: &str| mail(2).replacen("--b\n", &format!("Hello,\n\n{text}\n\n--b\n"), 1);
    let whole = mbox(FROM, "\n");
    for (what, mbox) in [
        ("RFC 4155", whole.clone()),
        ("CRLF", whole.replace('\n', "\r\n")),
        ("no empty lines between mails", mbox(FROM, "")),
        ("Thunderbird", mbox("From - Sat Nov 21 00:10:00 2026\nX-Mozilla-Status: 0001", "\n")),
        ("a line without a time", mbox("From tls@big.example", "\n")),
        ("empty lines before the first mail", format!("\n\n{whole}")),
        ("MMDF", mbox("\u{1}\u{1}\u{1}\u{1}", "\u{1}\u{1}\u{1}\u{1}\n")),
        ("a byte-order mark", format!("\u{feff}{whole}")),
        (
            "a sentence without quotes",
            whole.replace(&mail(2), &sentence("From today on, reports come daily.")),
        ),
        ("quoted sentences", whole.replace(&mail(2), &sentence(">From May on at 8:00.\n>>From here"))),
    ] {
        let place = place();
        write(place.path(), "in/mbox", &mbox);
        let (code, told) = import_in(place.path());
        assert_eq!(
            (code, counts(&told, ["new", "left_alone", "quarantined", "unfinished"])),
            (0, [3, 1, 0, 0]),
            "{what}: {told}"
        );
        write(place.path(), "in/mbox", pack(mbox.as_bytes()).unwrap());
        let (code, told) = import_in(place.path());
        assert_eq!(
            (code, counts(&told, ["duplicates", "left_alone"])),
            (0, [3, 1]),
            "{what}, in gzip: {told}"
        );
        std::fs::remove_file(place.path().join("in/mbox")).unwrap();
        write(place.path(), "in/mail.zip", zipped("mail/inbox", mbox.as_bytes()));
        let (code, told) = import_in(place.path());
        assert_eq!(
            (code, counts(&told, ["duplicates", "left_alone"])),
            (0, [3, 1]),
            "{what}, in zip: {told}"
        );
    }
}

fn zipped(name: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    std::io::Write::write_all(&mut zip, content).unwrap();
    zip.finish().unwrap().into_inner()
}

/// A message with one attachment, whose header has these lines.
fn with_attachment(head: &str, content: &str) -> String {
    format!(
        "From: boss@a.example\nSubject: see this\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=o\n\n\
         --o\nContent-Type: text/plain\n\nhello\n--o\n{head}\n\n{content}\n--o--\n"
    )
}

#[test]
fn reports_are_found_in_mails_that_people_forward_and_under_any_label() {
    let place = place();
    maildir(place.path());
    let octets = |name: &str| format!("Content-Type: application/octet-stream; name=\"{name}\"");
    let json = |id: u32| report(&id.to_string(), "a.example", 5, 0).to_string();
    let eight_bit = [b"X-Name: J\xfcrgen\n".as_slice(), mail(9).as_bytes()].concat();
    for (at, mail) in [
        ("cur/1.h:2,S", with_attachment("Content-Type: message/rfc822", &mail(1))),
        (".Sent/new/2.h", with_attachment(&octets("Your report.EML"), &mail(2))),
        (".TLS.Reports/cur/3.h:2,", with_attachment(&octets("report.json"), &json(3))),
        (
            ".&ZeVnLIqe-/cur/4.h:2,S",
            with_attachment("Content-Type: text/plain", &format!("\u{feff}{}", json(4))),
        ),
        ("new/5.h", with_attachment(&octets("a.txt"), &format!("{}\n{}", json(5), json(6)))),
        ("new/6.h", with_attachment(&octets("private.eml"), PRIVATE)),
        ("new/7.h", with_attachment(&octets("not a mail.eml"), "hello")),
    ] {
        write(place.path(), &format!("in/{at}"), mail);
    }
    write(place.path(), "in/cur/9.h:2,S", eight_bit);
    let (code, told) = import_in(place.path());
    assert_eq!((code, counts(&told, ["new", "left_alone", "quarantined"])), (0, [7, 2, 0]), "{told}");
}
