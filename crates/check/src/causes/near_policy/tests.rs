use super::*;
use proptest::prelude::*;

const GOOD: &str =
    "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmx: *.example.net\r\nmax_age: 604800\r\n";

fn hosts() -> Vec<DomainName> {
    vec![DomainName::parse("mx.example.org").unwrap()]
}

fn good() -> Policy {
    Policy::parse(GOOD.as_bytes()).unwrap()
}

/// What a file differs in from [`GOOD`], as text to replace and its replacement; the cause, line and column.
const FILES: &[(&str, &str, Cause, (usize, usize))] = &[
    ("mode: enforce", "mode=enforce", Cause::EqualsSign, (2, 5)),
    ("mode: enforce", "mode = enforce", Cause::EqualsSign, (2, 6)),
    ("mode: enforce", "mode enforce", Cause::NoColon, (2, 1)),
    ("mode: enforce", "mode : enforce", Cause::KeySpace, (2, 1)),
    ("mode: enforce", "Mode: enforce", Cause::KeyCase, (2, 1)),
    ("mode: enforce", "mdoe: enforce", Cause::NearKey, (2, 1)),
    ("mode: enforce", "mode: Enforce", Cause::ValueCase, (2, 7)),
    ("mode: enforce", "mode: enforced", Cause::NearValue, (2, 7)),
    ("mode: enforce", "mode: enfroce", Cause::NearValue, (2, 7)),
    ("mode: enforce", "mode: enforce;", Cause::Punctuation, (2, 7)),
    ("mode: enforce", "mode: \"enforce\"", Cause::Quotes, (2, 7)),
    ("mode: enforce", "\"mode\": \"enforce\",", Cause::Quotes, (2, 1)),
    ("mode: enforce", "mode: “enforce”", Cause::Quotes, (2, 7)),
    ("mode: enforce", "mode:\u{a0}enforce", Cause::NoBreakSpace, (2, 6)),
    ("mode: enforce", "mode: enforce\u{200b}", Cause::Invisible, (2, 14)),
    ("mode: enforce", "ｍode：enforce", Cause::FullWidth, (2, 1)),
    ("mode: enforce", "mode: enforce # strict", Cause::Comment, (2, 7)),
    ("mode: enforce", "mode: <enforce>", Cause::Template, (2, 7)),
    ("mode: enforce", " mode: enforce", Cause::LeadingSpace, (2, 1)),
    ("mode: enforce", "# comment\r\nmode: enforce", Cause::Comment, (2, 1)),
    ("mode: enforce", "// comment\r\nmode: enforce", Cause::Comment, (2, 1)),
    ("mode: enforce", "\r\nmode: enforce", Cause::BlankLine, (2, 1)),
    ("mode: enforce", "---\r\nmode: enforce", Cause::BadLine, (2, 1)),
    ("version: STSv1", "Version: STSv1", Cause::KeyCase, (1, 1)),
    ("version: STSv1", "version: stsv1", Cause::ValueCase, (1, 10)),
    ("version: STSv1", "version: STS1", Cause::NearValue, (1, 10)),
    ("version: STSv1", "version: 1", Cause::NearValue, (1, 10)),
    ("version: STSv1", "versoin: STSv1", Cause::NearKey, (1, 1)),
    ("version: STSv1", "v=STSv1; id=20260101", Cause::RecordInPolicy, (1, 1)),
    ("version: STSv1", "# policy of example.org\r\nversion: STSv1", Cause::Comment, (1, 1)),
    ("version: STSv1", "```\r\nversion: STSv1", Cause::BadLine, (1, 1)),
    ("version: STSv1\r\n", "\u{feff}version: STSv1\r\n", Cause::ByteOrderMark, (1, 1)),
    ("version: STSv1\r\nmode: enforce\r\n", "version: STSv1; mode: enforce;\r\n", Cause::OneLine, (1, 17)),
    (
        "version: STSv1\r\nmode: enforce\r\n",
        "version: STSv1\\nmode: enforce\r\n",
        Cause::LiteralNewline,
        (1, 15),
    ),
    ("mx: mx1.example.org", "nmx: mx1.example.org", Cause::NearKey, (3, 1)),
    ("mx: mx1.example.org", "MX: mx1.example.org", Cause::KeyCase, (3, 1)),
    ("mx: mx1.example.org", "mx: 10 mx1.example.org", Cause::MxPreference, (3, 5)),
    ("mx: mx1.example.org", "mx: mx1.example.org:25", Cause::MxAddress, (3, 5)),
    ("mx: mx1.example.org", "mx: https://mx1.example.org/", Cause::MxAddress, (3, 5)),
    ("mx: mx1.example.org\r\nmx: *.example.net", "mx: mx1.example.org, *.example.net", Cause::MxList, (3, 5)),
    ("mx: *.example.net", "mx: .example.net", Cause::MxWildcard, (4, 5)),
    ("mx: *.example.net", "mx: *example.net", Cause::MxWildcard, (4, 5)),
    ("max_age: 604800", "max-age: 604800", Cause::NearKey, (5, 1)),
    ("max_age: 604800", "maxage: 604800", Cause::NearKey, (5, 1)),
    ("max_age: 604800", "max_age: 7d", Cause::Number, (5, 10)),
    ("max_age: 604800", "max_age: 604800s", Cause::Number, (5, 10)),
    ("max_age: 604800", "max_age: 604,800", Cause::Number, (5, 10)),
    ("max_age: 604800", "max_age: 1 week", Cause::Number, (5, 10)),
    ("max_age: 604800", "max_age: 604800 seconds", Cause::Number, (5, 10)),
    ("max_age: 604800", "max_age: 604800;", Cause::Punctuation, (5, 10)),
    ("max_age: 604800", "max_age=604800", Cause::EqualsSign, (5, 8)),
];

#[test]
fn a_file_that_is_not_valid_is_recognized_with_its_cause_and_place_and_corrected() {
    let mut wrong = Vec::new();
    for (from, to, cause, place) in FILES {
        let file = GOOD.replacen(from, to, 1);
        assert_ne!(file, GOOD, "{from}");
        let Some(found) = repair(file.as_bytes(), &hosts()) else {
            wrong.push(format!("{to:?}: not recognized"));
            continue;
        };
        let first = found.slips.first();
        if first.map(|slip| (slip.cause, (slip.line, slip.column))) != Some((*cause, *place)) {
            wrong.push(format!("{to:?}: {first:?}"));
        }
        if found.corrected != good() {
            wrong.push(format!("{to:?}: {}", found.corrected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_of_other_encodings_and_pages_are_read() {
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { GOOD.encode_utf16().flat_map(bytes).collect() };
    let marked = [b"\xff\xfe".to_vec(), utf_16(u16::to_le_bytes)].concat();
    for file in [marked, utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes)] {
        let found = repair(&file, &hosts()).unwrap();
        assert_eq!((found.cause(), &found.corrected), (Some(Cause::Utf16), &good()));
    }
    let page = format!("<!doctype html><html><body><pre>{GOOD}</pre></body></html>");
    let found = repair(page.as_bytes(), &hosts()).unwrap();
    assert_eq!((found.cause(), &found.corrected), (Some(Cause::WebPage), &good()));
    let broken = format!("<p>{}</p>", GOOD.replace("\r\n", "<br>"));
    assert_eq!(repair(broken.as_bytes(), &hosts()).unwrap().corrected, good());
    let old = GOOD.replace("\r\n", "\r");
    assert_eq!(repair(old.as_bytes(), &hosts()).unwrap().cause(), Some(Cause::LineBreak));
    let json = "{\n  \"version\": \"STSv1\",\n  \"mode\": \"enforce\",\n  \"mx\": \"mx1.example.org, *.example.net\",\n  \"max_age\": 604800\n}";
    assert_eq!(repair(json.as_bytes(), &hosts()).unwrap().corrected, good());
    let all_in_one = GOOD.trim_end().replace("\r\n", " ");
    let found = repair(all_in_one.as_bytes(), &hosts()).unwrap();
    assert_eq!((found.cause(), &found.corrected), (Some(Cause::OneLine), &good()));
}

#[test]
fn what_a_file_does_not_say_is_taken_from_the_mx_records_or_careful() {
    let read = |file: &str| repair(file.as_bytes(), &hosts()).unwrap().corrected.to_string();
    assert_eq!(
        read("version: STSv1\nmode: on\nmx: user@example.org\nmax_age: long\n"),
        "version: STSv1\r\nmode: testing\r\nmx: mx.example.org\r\nmax_age: 86400\r\n"
    );
    assert_eq!(
        read("version: STSv1\nmode: {{ mode }}\nmx: {{ mx_host }}\nmax_age: 86400\n"),
        "version: STSv1\r\nmode: testing\r\nmx: mx.example.org\r\nmax_age: 86400\r\n"
    );
    for other in [
        "",
        "\n\n",
        "hello",
        "<html><body>Welcome</body></html>",
        "User-agent: *\nDisallow: /",
        "Contact: mailto:a@example.org",
    ] {
        assert_eq!(repair(other.as_bytes(), &hosts()), None, "{other:?}");
    }
}

#[test]
fn an_enforcing_file_is_proposed_in_mode_testing_with_the_hosts_of_today() {
    let names = |all: &[&str]| -> Vec<DomainName> {
        all.iter().map(|name| DomainName::parse(name).unwrap()).collect()
    };
    let today = names(&["mx.new.example", "backup.new.example"]);
    let read = |mx: &str| {
        let file = format!("version: STSv1\nmode = enforce\n{mx}\nmax_age: 31557600\n");
        let near = repair(file.as_bytes(), &today).unwrap();
        (near.proposed(&today).to_string(), near.told_dropped())
    };
    let of = |mx: &[&str]| {
        let mx: String = mx.iter().map(|host| format!("mx: {host}\r\n")).collect();
        format!("version: STSv1\r\nmode: testing\r\n{mx}max_age: 86400\r\n")
    };
    let all = of(&["mx.new.example", "backup.new.example"]);
    assert_eq!(
        read("mx: mx.old.example"),
        (of(&["mx.old.example", "mx.new.example", "backup.new.example"]), None)
    );
    assert_eq!(read("mx: *.new.example"), (of(&["*.new.example"]), None));
    for (line, told) in [
        ("mx: {{ backup }}", "line 4 (`mx: {{ backup }}`)"),
        ("mx: user@mx.new.example", "line 4 (`mx: user@mx.new.example`)"),
        ("mx: <your-mail-host.example.com>", "line 4 (`mx: <your-mail-host.example.com>`)"),
        ("mx: [host 1] <mx.example.com>", "line 4 (`mx: [host 1] <mx.example.com>`)"),
        ("mx.example.com", "line 4 (`mx.example.com`)"),
        ("backup: mx.example.com", "line 4 (`backup: mx.example.com`)"),
        ("mode: {{ mode }}", "line 4 (`mode: {{ mode }}`)"),
    ] {
        let (proposed, dropped) = read(&format!("mx: mx.new.example\n{line}"));
        assert!(
            !proposed.contains("example.com") && !proposed.contains("your-mail-host"),
            "{line}: {proposed}"
        );
        assert_eq!((proposed, dropped.as_deref()), (all.clone(), Some(told)), "{line}");
    }
    // Brackets around an MX host of today lose nothing.
    for line in ["mx: <mx.new.example>", "mx: {{mx.new.example}}"] {
        assert_eq!(read(line), (all.clone(), None), "{line}");
    }
    // Nothing is in the way of a policy that protects nothing.
    let none = repair(b"version: STSv1\nmode = none\nmax_age: 604800\n", &today).unwrap();
    assert_eq!(none.proposed(&today), none.corrected);
}

#[test]
fn a_key_of_a_valid_file_that_was_meant_as_another_is_named() {
    let file = GOOD.replace("mx: *.example.net", "nmx: mx2.example.org");
    assert_eq!(near_key(file.as_bytes(), 4), Some(("nmx".to_owned(), "mx")));
    for own in ["comment", "note", "node_id", "code"] {
        let file = format!("{GOOD}{own}: none\r\n");
        let meant = (own == "code").then(|| ("code".to_owned(), "mode"));
        assert_eq!(near_key(file.as_bytes(), 6), meant, "{own}");
    }
}

proptest! {
    #[test]
    fn a_mutated_file_is_recognized_and_its_values_are_kept(one in 0..FILES.len(), other in 0..FILES.len()) {
        let (first, to, ..) = FILES[one];
        let file = GOOD.replacen(first, to, 1);
        let (from, to, ..) = FILES[other];
        prop_assume!(!first.contains(from) && !from.contains(first));
        let file = file.replacen(from, to, 1);
        let found = repair(file.as_bytes(), &hosts()).unwrap();
        prop_assert_eq!(&found.corrected, &good(), "{:?} {:?}", file, found.slips);
    }

    #[test]
    fn no_file_is_proposed_that_enforces_or_lacks_an_mx_host(bytes in proptest::collection::vec(any::<u8>(), 0..60), at in 0..GOOD.len(), to in 0..GOOD.len()) {
        let mut file = GOOD.as_bytes()[..at].to_vec();
        file.extend(bytes);
        file.extend(&GOOD.as_bytes()[to..]);
        if let Some(found) = repair(&file, &hosts()) {
            let proposed = found.proposed(&hosts());
            prop_assert!(proposed.mode != Mode::Enforce, "{}", proposed);
            prop_assert!(proposed.mode == Mode::None || hosts().iter().all(|host| proposed.covers(host)), "{}", proposed);
            prop_assert!(proposed.mode == Mode::None || (1..=86_400).contains(&proposed.max_age), "{}", proposed);
            prop_assert!(Policy::parse(proposed.to_string().as_bytes()).is_ok(), "{}", proposed);
        }
    }

    #[test]
    fn any_bytes_are_corrected_to_what_the_parser_accepts(bytes in proptest::collection::vec(any::<u8>(), 0..120), at in 0..GOOD.len()) {
        let mut file = GOOD.as_bytes()[..at].to_vec();
        file.extend(bytes);
        if let Some(found) = repair(&file, &hosts()) {
            let text = found.corrected.to_string();
            prop_assert!(Policy::parse(text.as_bytes()).is_ok(), "{}", text);
            let is_incomplete = matches!(Policy::parse(&file), Err(error) if matches!(error.fault, formats::policy::PolicyFault::Missing(_)));
            prop_assert!(Policy::parse(&file).is_ok() || is_incomplete || !found.slips.is_empty(), "{:?} {:?}", file, Policy::parse(&file));
        }
    }
}
