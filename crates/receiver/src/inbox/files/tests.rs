use super::*;

fn items(bytes: &[u8]) -> Vec<Item> {
    let mut found = Vec::new();
    items_from(&mut &bytes[..], "x", &mut |one| found.push(item(one))).unwrap();
    found
}

fn item(found: Found) -> Item {
    match found {
        Found::Item(item) | Found::Gzip(item) => item,
        Found::Unreadable(one) => panic!("{one:?}"),
    }
}

fn unreadable(found: Found) -> Unreadable {
    match found {
        Found::Unreadable(one) => one,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_mails_of_an_mbox_are_items_with_their_numbers() {
    let found = items(b"From a@b Mon\nSubject: 1\n\nFrom a@b Tue\nSubject: 2\n");
    assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["x, mail 1", "x, mail 2"]);
    assert_eq!(*found[1].bytes, b"Subject: 2\n");
}

#[test]
fn a_zip_of_many_reports_is_many_items() {
    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for name in ["a.json", "deep/b.json"] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        io::Write::write_all(&mut zip, b"{}").unwrap();
    }
    let found = items(&zip.finish().unwrap().into_inner());
    assert_eq!(found.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["x:a.json", "x:deep/b.json"]);
    assert!(found.iter().all(|item| *item.bytes == b"{}"));
    let broken = items(b"PK\x03\x04 and no more");
    assert_eq!(broken.len(), 1);
}

#[test]
fn names_of_files_and_zip_members_are_printable() {
    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    zip.start_file("x\u{1b}]0;pwned\u{7}.txt", zip::write::SimpleFileOptions::default()).unwrap();
    let found = items(&zip.finish().unwrap().into_inner());
    assert_eq!(found[0].name, "x:x\u{fffd}]0;pwned\u{fffd}.txt");
    let mut named = Vec::new();
    items_from(&mut &b"x"[..], "a\u{1b}[2J\nb", &mut |one| named.push(item(one).name)).unwrap();
    assert_eq!(named, ["a\u{fffd}[2J\u{fffd}b"]);
}

#[test]
fn zip_members_beyond_the_limit_make_the_zip_file_unreadable_after_the_first_ones() {
    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for number in 0..ZIP_MEMBERS + 2 {
        zip.start_file(number.to_string(), stored).unwrap();
    }
    let (mut read, mut unreadable) = (0, Vec::new());
    let bytes = zip.finish().unwrap().into_inner();
    items_from(&mut &bytes[..], "x.zip", &mut |found| match found {
        Found::Item(_) | Found::Gzip(_) => read += 1,
        Found::Unreadable(one) => unreadable.push(one),
    })
    .unwrap();
    assert_eq!((read, unreadable.len()), (ZIP_MEMBERS, 1));
    assert_eq!(unreadable[0].why, "files in the zip file that were not read: 2; at most 10000 are");
}

fn maildir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["cur", "new", "tmp", ".Reports/cur", ".Reports/new"] {
        std::fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    dir
}

fn names(dir: &Path, files: &[std::path::PathBuf]) -> Vec<String> {
    files.iter().map(|path| path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_maildir_is_its_finished_mails() {
    let dir = maildir();
    for file in ["cur/1:2,S", "new/2", "tmp/3", ".Reports/new/4", "dovecot-uidlist", ".hidden"] {
        std::fs::write(dir.path().join(file), "x").unwrap();
    }
    let found = files_below(dir.path()).unwrap();
    // New mail is listed first, so that mail that is read meanwhile is not missed.
    assert_eq!(names(dir.path(), &found.files), ["new/2", ".Reports/new/4", "cur/1:2,S"]);
    assert!(found.unreadable.is_empty());
    assert!(files_below(&dir.path().join("nothing")).is_err());
}

/// Reads the files as an import does; `before` is called with each path before it is opened. Returns the contents and the
/// number of missing files.
fn read_all(dir: &Path, before: &mut dyn FnMut(&Path)) -> (Vec<String>, usize) {
    let mut files = LivingFiles::new(files_below(dir).unwrap().files);
    let mut read = Vec::new();
    while let Some(path) = files.next_file() {
        before(&path);
        match items_in(&path, &mut |one| read.push(item(one))) {
            Err(error) if is_gone(&error) => files.is_not_there(path),
            read => read.unwrap(),
        }
    }
    let mut read: Vec<String> =
        read.into_iter().map(|item| String::from_utf8(item.bytes.to_vec()).unwrap()).collect();
    read.sort();
    (read, files.missing())
}

#[test]
fn mails_that_move_during_an_import_are_read_once() {
    let dir = maildir();
    for number in 0..4 {
        std::fs::write(dir.path().join(format!("new/{number}.host")), number.to_string()).unwrap();
    }
    std::fs::write(dir.path().join("cur/4.host:2,"), "4").unwrap();
    let moves = std::cell::RefCell::new(vec![
        ("new/0.host", "cur/0.host:2,"),
        ("new/1.host", "cur/1.host:2,S"),
        ("cur/4.host:2,", "cur/4.host:2,RS"),
        // Found again, and moved again before it is opened.
        ("cur/0.host:2,", "cur/0.host:2,S"),
        ("cur/0.host:2,S", "new/0.host"),
    ]);
    let (read, missing) = read_all(dir.path(), &mut |path| {
        let path = path.strip_prefix(dir.path()).unwrap();
        let mut moves = moves.borrow_mut();
        if let Some(at) = moves.iter().position(|(from, _)| path == Path::new(from)) {
            let (from, to) = moves.remove(at);
            std::fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
        }
    });
    assert_eq!((read, missing), (["0", "1", "2", "3", "4"].map(str::to_owned).to_vec(), 0));
    assert!(moves.borrow().is_empty());
}

#[test]
fn a_mail_that_is_deleted_during_an_import_is_missing() {
    let dir = maildir();
    for file in ["new/1.host", "new/2.host", "note.json"] {
        std::fs::write(dir.path().join(file), "x").unwrap();
    }
    let (read, missing) = read_all(dir.path(), &mut |path| {
        if !path.ends_with("2.host") {
            let _ = std::fs::remove_file(path);
        }
    });
    assert_eq!((read.len(), missing), (1, 2));
}

#[test]
fn a_mail_that_was_listed_in_both_folders_is_read_once() {
    let dir = maildir();
    let (new, cur) = (dir.path().join("new/1.host"), dir.path().join("cur/1.host:2,S"));
    std::fs::write(&cur, "x").unwrap();
    let mut files = LivingFiles::new(vec![new.clone(), cur.clone()]);
    assert_eq!(files.next_file(), Some(new.clone()));
    files.is_not_there(new);
    assert_eq!((files.next_file(), files.next_file(), files.missing()), (Some(cur), None, 0));
}

#[test]
fn large_private_mail_and_files_do_not_claim_to_be_reports() {
    let large = |head: &[u8]| {
        let bytes = [head, &vec![b'x'; 20 << 20]].concat();
        let mut found = Vec::new();
        items_from(&mut &bytes[..], "x", &mut |one| found.push(unreadable(one))).unwrap();
        assert_eq!(found.len(), 1);
        found.pop().unwrap().claims
    };
    assert!(!large(b"From: a@b.example\r\nSubject: photos\r\n\r\n") && !large(b"\0\0\0 ftypmp42"));
    assert!(!large(b"From a@b Mon\nFrom: a@b.example\nSubject: photos\n\n"));
    assert!(large(b"From: a@b.example\r\nTLS-Report-Domain: a.example\r\n\r\n"));
    assert!(large(b"From a@b Mon\nFrom: a@b.example\nTLS-Report-Domain: a.example\n\n"));
    assert!(large(b"{\"report-id\": 1, \"policies\": ["));
}

#[test]
fn a_large_archive_claims_to_have_reports_if_a_file_is_named_so() {
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (member, claims) in [("in/b.example!a.example!1!2.json.gz", true), ("in/photo.jpg", false)] {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file(member, stored).unwrap();
        io::Write::write_all(&mut zip, &vec![b'x'; 20 << 20]).unwrap();
        let bytes = zip.finish().unwrap().into_inner();
        let mut found = Vec::new();
        items_from(&mut &bytes[..], "x.zip", &mut |one| found.push(unreadable(one).claims)).unwrap();
        assert_eq!(found, [claims], "{member}");
    }
}

#[test]
fn the_last_mail_of_an_mbox_without_an_empty_line_after_it_may_be_unfinished() {
    let open = |text: &str| items(text.as_bytes()).iter().map(|item| item.is_open_ended).collect::<Vec<_>>();
    assert_eq!(open("From a@b Mon\nSubject: 1\n\nx\n\nFrom a@b Tue\nSubject: 2\n\nx\n\n"), [false, false]);
    assert_eq!(open("From a@b Mon\nSubject: 1\n\nx\n\nFrom a@b Tue\nSubject: 2\n\nx\n"), [false, true]);
    assert_eq!(open("From a@b Mon\r\nSubject: 1\r\n\r\nx\r\n\r\n"), [false]);
    assert_eq!(open("From a@b Mon\nSubject: 1\n\nx"), [true]);
    let multipart = "From a@b Mon\nContent-Type: multipart/report; boundary=b\n\n--b\n\nx\n\n";
    assert_eq!(open(multipart), [true]);
    assert_eq!(open(&format!("{multipart}--b--\n\n")), [false]);
}
