use super::*;
use crate::inbox::extract::extract_message;
use data_encoding::BASE64_MIME;
use formats::report::{UnlimitedMemory, pack};
use net::memory_budget::MemoryBudget;
use proptest::prelude::*;

/// The smallest stack on which any input must be read.
const STACK_BYTES: usize = 256 << 10;

/// Runs on a small stack, so that recursion that depends on the input ends the test.
fn on_a_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap().join().unwrap()
}

/// Extracts a message within the memory that a process has, and returns the number of reports.
fn reports_in(message: &[u8]) -> usize {
    let budget = MemoryBudget::new(512 << 20, 512 << 20);
    let mut memory = budget.reservation();
    let found = extract_message(message, false, &mut memory).unwrap();
    drop(memory);
    assert_eq!(budget.used(), 0);
    found.reports.len()
}

/// The contents of all parts that are neither multiparts nor messages.
fn contents(message: &[u8]) -> Vec<String> {
    let mail = take_apart(message, &UnlimitedMemory).unwrap().unwrap();
    let contents = mail.parts.iter().filter(|part| part.kind == Kind::Content);
    contents
        .map(|part| String::from_utf8_lossy(part.decode(&UnlimitedMemory).unwrap().bytes()).into_owned())
        .collect()
}

const REPORT: &str = r#"{"organization-name":"Big","date-range":{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"},"contact-info":"t@big.example","report-id":"1","policies":[{"policy":{"policy-type":"sts","policy-string":["version: STSv1"],"policy-domain":"a.example","mx-host":["mx.a.example"]},"summary":{"total-successful-session-count":1,"total-failure-session-count":0}}]}"#;

fn report_mail() -> Vec<u8> {
    format!("From: t@big.example\r\nContent-Type: application/tlsrpt+json\r\n\r\n{REPORT}\r\n").into_bytes()
}

fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in bytes.chunks(20) {
        for byte in line {
            match byte {
                b'\r' | b'\n' | b'=' | 128.. => out.extend(format!("={byte:02X}").bytes()),
                _ => out.push(*byte),
            }
        }
        out.extend_from_slice(b"=\r\n");
    }
    out
}

/// A message with another one in it.
fn around(inner: &[u8], kind: &str, encoding: &str) -> Vec<u8> {
    let body = match encoding.to_ascii_lowercase().as_str() {
        "base64" => BASE64_MIME.encode(inner).into_bytes(),
        "quoted-printable" => quoted(inner),
        _ => inner.to_vec(),
    };
    let head =
        format!("From: a@b.example\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
    [head.into_bytes(), body].concat()
}

#[test]
fn a_message_in_a_message_is_found_in_any_encoding_type_and_case() {
    for kind in
        ["message/rfc822", "MESSAGE/RFC822", "message/global", "Message/Rfc822 (a comment); name=\"x\""]
    {
        for encoding in
            ["7bit", "8bit", "binary", "base64", "BASE64", "quoted-printable", "\"base64\"", "base64;"]
        {
            let plain = encoding.trim_matches([';', '"']);
            let mail = String::from_utf8(around(&report_mail(), kind, plain)).unwrap();
            let mail = mail.replacen(&format!("Encoding: {plain}"), &format!("Encoding: {encoding}"), 1);
            assert_eq!(reports_in(mail.as_bytes()), 1, "{kind} {encoding}");
        }
    }
    let partial = around(&report_mail(), "message/partial; id=1; number=1; total=2", "7bit");
    assert_eq!(reports_in(&partial), 0, "pieces of a message are not joined");
}

#[test]
fn nesting_of_any_depth_and_encoding_overflows_no_stack() {
    on_a_small_stack(|| {
        for encodings in
            [&["7bit"][..], &["base64"], &["quoted-printable"], &["base64", "7bit", "quoted-printable"]]
        {
            let mut mail = report_mail();
            // Encodings make a message longer with each level.
            for level in 1..=40 {
                if mail.len() > 4 << 20 {
                    break;
                }
                mail = around(&mail, "message/rfc822", encodings[level % encodings.len()]);
                assert_eq!(reports_in(&mail), usize::from(level <= 4), "{encodings:?} {level}");
            }
        }
        for levels in [100, 1000, 10_000] {
            let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(levels);
            let multiparts: String = (0..levels)
                .map(|level| {
                    format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n")
                })
                .collect();
            let mixed: String = (0..levels)
                .map(|level| {
                    format!("Content-Type: multipart/digest; boundary=b{level}\r\n\r\n--b{level}\r\n\r\n")
                })
                .collect();
            for hidden in [nested, multiparts, mixed] {
                for encoding in ["7bit", "base64", "quoted-printable"] {
                    for kind in ["message/rfc822", "message/global", "multipart/mixed; boundary=b0"] {
                        assert_eq!(reports_in(&around(hidden.as_bytes(), kind, encoding)), 0);
                    }
                }
            }
        }
    });
}

#[test]
fn parts_and_levels_are_bounded_and_the_message_counts_as_cut() {
    let many =
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(100_000));
    let mail = take_apart(many.as_bytes(), &UnlimitedMemory).unwrap().unwrap();
    assert!(mail.is_cut && mail.parts.len() == MAX_NODES);
    let deep = |levels: usize| {
        (0..levels).fold("Content-Type: text/plain\r\n\r\nx".to_owned(), |inner, level| {
            format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n{inner}\r\n--b{level}--\r\n")
        })
    };
    assert_eq!(contents(deep(INBOX_MULTIPARTS).as_bytes()), ["x"]);
    let deeper = deep(INBOX_MULTIPARTS + 1);
    let mail = take_apart(deeper.as_bytes(), &UnlimitedMemory).unwrap().unwrap();
    assert!(mail.is_too_deep && !mail.is_cut && !mail.mentions_reports());
    let report = deeper.replace("text/plain", "Application/TLSRPT+json");
    assert!(take_apart(report.as_bytes(), &UnlimitedMemory).unwrap().unwrap().mentions_reports());
}

#[test]
fn a_multipart_is_split_at_its_own_boundary_lines_only() {
    let mail = |boundary: &str, body: &str| {
        format!("Content-Type: Multipart/MIXED (comment); boundary={boundary}\r\n\r\n{body}").into_bytes()
    };
    for (boundary, body, expected) in [
        (
            "b",
            "preamble\r\n--b\r\n\r\none\r\n--b  \r\n\r\ntwo\r\n--b--\r\nepilogue\r\n--b\r\n\r\nno",
            vec!["one", "two"],
        ),
        ("\"b c\"", "--b c\n\none\n--b c--\n", vec!["one"]),
        ("b", "--b\r\n\r\none\r\n--bb\r\nstill one\r\n--b--", vec!["one\r\n--bb\r\nstill one"]),
        ("b", "--b\r\n\r\nwithout an end", vec!["without an end"]),
        ("b", "--b\r\n\r\n--b\r\n\r\n--b--", vec!["", ""]),
        ("b", "no delimiter", vec!["no delimiter"]),
        ("b", "--b--\r\n", vec!["--b--\r\n"]),
        ("\"\"", "--\r\n\r\none\r\n----\r\n", vec!["--\r\n\r\none\r\n----\r\n"]),
        ("b; boundary=c", "--c\r\n\r\none\r\n--c--", vec![]),
    ] {
        let found = contents(&mail(boundary, body));
        assert!(expected.is_empty() || found == expected, "{boundary} {body:?} {found:?}");
    }
    let none = b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\none\r\n--b--";
    assert_eq!(contents(none).len(), 1);
}

#[test]
fn the_boundary_of_an_outer_multipart_may_be_the_beginning_of_an_inner_one_or_equal() {
    let inner = |boundary: &str| {
        format!(
            "Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n--{boundary}\r\n\r\none\r\n--{boundary}--\r\n"
        )
    };
    let outer = |inner: &str| {
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{inner}--b\r\n\r\ntwo\r\n--b--\r\n")
    };
    for boundary in ["bb", "-b", "b-"] {
        assert_eq!(contents(outer(&inner(boundary)).as_bytes()), ["one", "two"], "{boundary}");
    }
    assert!(contents(outer(&inner("b")).as_bytes()).iter().any(|text| text.contains("one")));
    // An inner multipart without an end does not swallow what follows it.
    let open = inner("c").replace("\r\n--c--", "");
    assert_eq!(contents(outer(&open).as_bytes()), ["one", "two"]);
}

#[test]
fn parts_of_a_digest_are_messages_unless_they_say_otherwise() {
    let digest = format!(
        "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\r\ntext\r\n--b--\r\n",
        String::from_utf8(report_mail()).unwrap()
    );
    assert_eq!(reports_in(digest.as_bytes()), 1);
    assert_eq!(contents(digest.as_bytes()), ["text"]);
}

#[test]
fn damaged_encodings_are_decoded_as_far_as_possible() {
    let decoded = |encoding: &str, body: &str| {
        let mail = format!("Content-Transfer-Encoding: {encoding}\r\n\r\n{body}");
        contents(mail.as_bytes()).remove(0)
    };
    assert_eq!(decoded("base64", "aGVs\r\n  bG8=\r\n____\r\nlist footer"), "hello");
    assert_eq!(decoded("base64", "aGVsbG8"), "hello");
    assert_eq!(decoded("base64 (comment)", "a-G*Vs"), "hel");
    assert_eq!(decoded("quoted-printable", "a=3D=3d=\r\nb=zz=\nc =20 \r\nd=4"), "a==b=zzc  \r\nd=4");
    assert_eq!(decoded("7bit", "aGVs"), "aGVs");
    assert_eq!(decoded("x-unknown", "aGVs"), "aGVs");
}

#[test]
fn text_in_other_character_sets_is_converted() {
    let wide: Vec<u8> = REPORT.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mail =
        [b"From: t@big.example\r\nContent-Type: text/plain; charset=UTF-16LE\r\n\r\n".as_slice(), &wide]
            .concat();
    assert_eq!(reports_in(&mail), 1);
    let latin = [b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\n{".as_slice(), &[0xe4]].concat();
    assert_eq!(contents(&latin), ["{ä"]);
}

#[test]
fn headers_are_bounded_in_size_and_number() {
    let long =
        format!("Content-Type: text/plain; {}\r\nFrom: a@b.example\r\n\r\nx", "a*0=b; ".repeat(20_000));
    let mail = take_apart(long.as_bytes(), &UnlimitedMemory).unwrap().unwrap();
    assert!(mail.head.content_type().is_none());
    assert_eq!(mail.head.author(), Some("a@b.example"));
    let many = format!("From: a@b.example\r\n{}\r\nx", "Subject: y\r\n".repeat(1_000_000));
    let mail = take_apart(many.as_bytes(), &UnlimitedMemory).unwrap().unwrap();
    assert_eq!((mail.head.author(), contents(many.as_bytes())), (Some("a@b.example"), vec!["x".to_owned()]));
    let blank = take_apart(b"\r\n\r\nFrom: a@b.example\r\n\r\nx", &UnlimitedMemory).unwrap();
    assert!(blank.is_some() && take_apart(b"no header", &UnlimitedMemory).unwrap().is_none());
}

#[test]
fn a_gzip_part_with_lines_that_look_like_boundaries_is_whole() {
    let packed = pack(REPORT.as_bytes()).unwrap();
    let head =
        b"From: t@big.example\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: \
                 application/tlsrpt+gzip\r\nContent-Transfer-Encoding: binary\r\n\r\n";
    let mail = [head.as_slice(), &packed, b"\r\n--bc\r\n--b--\r\n"].concat();
    assert_eq!(reports_in(&mail), 1);
}

/// Pieces of which messages are made.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let texts = [
        "Content-Type: multipart/mixed; boundary=b\r\n",
        "content-type: MULTIPART/digest; boundary=\"bb\"\r\n",
        "Content-Type: message/rfc822\r\n",
        "Content-Type: message/global\n",
        "Content-Type: (c) text/plain; charset=utf-16\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "Subject: Report Domain: a.example Submitter: b.example Report-ID: <1>\r\n",
        "TLS-Report-Domain: a.example\r\n",
        "\r\n",
        "\n",
        "--b\r\n",
        "--bb\r\n",
        "--b--\r\n",
        "--bb--\r\n",
        "--",
        " continued\r\n",
        REPORT,
        "{\"policies\": [",
        "eyJ4Ijo=\r\n",
        "=7B=\r\n",
    ];
    let bytes = proptest::collection::vec(any::<u8>(), 0..30);
    prop_oneof![
        20 => proptest::sample::select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        1 => bytes.prop_map(|bytes| BASE64_MIME.encode(&bytes).into_bytes()),
        1 => Just(pack(REPORT.as_bytes()).unwrap()),
        1 => proptest::collection::vec(any::<u8>(), 0..30),
    ]
}

proptest! {
    #[test]
    fn any_message_is_taken_apart_within_bounds(pieces in proptest::collection::vec(piece(), 0..60), levels in 0..7usize, encoding in 0..3usize) {
        let mut mail = pieces.concat();
        for _ in 0..levels {
            mail = around(&mail, "message/rfc822", ["7bit", "base64", "quoted-printable"][encoding]);
        }
        if let Some(found) = take_apart(&mail, &UnlimitedMemory).unwrap() {
            prop_assert!(found.parts.len() <= MAX_NODES);
            let bodies: usize = found.parts.iter().filter(|part| part.kind != Kind::Multipart).map(|part| part.body.len()).sum();
            prop_assert!(bodies <= mail.len(), "no byte is in two parts");
        }
        on_a_small_stack(move || reports_in(&mail));
    }
}
