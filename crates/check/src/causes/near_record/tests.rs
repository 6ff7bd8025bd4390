use super::*;
use proptest::prelude::*;

fn domain() -> DomainName {
    DomainName::parse("example.org").unwrap()
}

fn near(kind: RecordKind, record: &str) -> Option<NearRecord> {
    repair(kind, record.as_bytes(), &domain(), "20270101000000")
}

/// Record as published, cause, and the record that its owner meant.
const STS: &[(&str, Cause, &str)] = &[
    ("v=stsv1; id=20260101", Cause::VersionCase, "v=STSv1; id=20260101;"),
    ("v=STSV1; id=20260101;", Cause::VersionCase, "v=STSv1; id=20260101;"),
    ("V=STSv1; id=20260101;", Cause::KeyCase, "v=STSv1; id=20260101;"),
    ("v=STSv1, id=20260101", Cause::WrongSeparator, "v=STSv1; id=20260101;"),
    ("v=STSv1 , id=20260101", Cause::WrongSeparator, "v=STSv1; id=20260101;"),
    ("v=STSv1: id=20260101", Cause::WrongSeparator, "v=STSv1; id=20260101;"),
    ("v=STSv1| id=20260101", Cause::WrongSeparator, "v=STSv1; id=20260101;"),
    ("v=STSv1; id=1, x=2", Cause::WrongSeparator, "v=STSv1; id=1; x=2;"),
    ("v=STSv1\\; id=20260101", Cause::Backslash, "v=STSv1; id=20260101;"),
    ("v=STSv1\\059 id=20260101\\059", Cause::Backslash, "v=STSv1; id=20260101;"),
    ("\"v=STSv1; id=20260101;\"", Cause::Quotes, "v=STSv1; id=20260101;"),
    ("\\\"v=STSv1; id=20260101;\\\"", Cause::Backslash, "v=STSv1; id=20260101;"),
    ("\"v=STSv1;\" \"id=20260101\"", Cause::Quotes, "v=STSv1; id=20260101;"),
    ("'v=STSv1; id=20260101;'", Cause::Quotes, "v=STSv1; id=20260101;"),
    ("“v=STSv1; id=20260101;”", Cause::Quotes, "v=STSv1; id=20260101;"),
    ("v=STSv1; id=\"20260101\"", Cause::Quotes, "v=STSv1; id=20260101;"),
    ("v=STSv12; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=STSv2; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=STSv1.0; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=STS1; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=STS; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=MTASTSv1; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=MTA-STSv1; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=STVs1; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=1; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=; id=20260101", Cause::WrongVersion, "v=STSv1; id=20260101;"),
    ("v=TLSRPTv1; id=20260101", Cause::OtherProtocol, "v=STSv1; id=20260101;"),
    ("v=TLSRPTv1; rua=mailto:a@example.org", Cause::OtherProtocol, "v=STSv1; id=20270101000000;"),
    ("v=spf1 -all", Cause::OtherProtocol, "v=STSv1; id=20270101000000;"),
    ("v=DMARC1; p=none; rua=mailto:a@example.org", Cause::OtherProtocol, "v=STSv1; id=20270101000000;"),
    (" v=STSv1; id=20260101", Cause::LeadingSpace, "v=STSv1; id=20260101;"),
    ("\tv=STSv1; id=20260101 ", Cause::LeadingSpace, "v=STSv1; id=20260101;"),
    ("\u{a0}v=STSv1; id=20260101", Cause::LeadingSpace, "v=STSv1; id=20260101;"),
    ("v=STSv1;\u{a0}id=20260101", Cause::NoBreakSpace, "v=STSv1; id=20260101;"),
    ("v=STSv1; id=20260101\u{200b}", Cause::Invisible, "v=STSv1; id=20260101;"),
    ("\u{feff}v=STSv1; id=20260101", Cause::Invisible, "v=STSv1; id=20260101;"),
    ("v=STSv1；id=20260101", Cause::FullWidth, "v=STSv1; id=20260101;"),
    ("ｖ＝ＳＴＳｖ１；　ｉｄ＝２０２６０１０１；", Cause::FullWidth, "v=STSv1; id=20260101;"),
    ("v=SТSv1; id=20260101", Cause::LookAlike, "v=STSv1; id=20260101;"),
    ("v=STSv1;\nid=20260101;\n", Cause::LineBreak, "v=STSv1; id=20260101;"),
    ("id=20260101; v=STSv1", Cause::FieldBeforeVersion, "v=STSv1; id=20260101;"),
    ("id=20260101; v=STSv1;", Cause::FieldBeforeVersion, "v=STSv1; id=20260101;"),
    ("id=20260101;", Cause::NoVersion, "v=STSv1; id=20260101;"),
    ("STSv1; id=20260101;", Cause::NoVersion, "v=STSv1; id=20260101;"),
    ("v=STSv1", Cause::BareVersion, "v=STSv1; id=20270101000000;"),
    ("v=STSv1 ", Cause::BareVersion, "v=STSv1; id=20270101000000;"),
    ("STSv1", Cause::NoVersion, "v=STSv1; id=20270101000000;"),
    ("v=STSv1 id=20260101", Cause::MissingSemicolon, "v=STSv1; id=20260101;"),
    ("v=STSv1id=20260101", Cause::MissingSemicolon, "v=STSv1; id=20260101;"),
    ("v=STSv1; id=20260101 x=1", Cause::MissingSemicolon, "v=STSv1; id=20260101; x=1;"),
    ("v=STSv1;; id=20260101", Cause::EmptyField, "v=STSv1; id=20260101;"),
    ("v=STSv1; id=20260101;;", Cause::EmptyField, "v=STSv1; id=20260101;"),
    ("v = STSv1; id = 20260101", Cause::SpaceInField, "v=STSv1; id=20260101;"),
    ("v=STSv1; id= 20260101", Cause::SpaceInField, "v=STSv1; id=20260101;"),
    ("v=STSv1; ID=20260101", Cause::KeyCase, "v=STSv1; id=20260101;"),
    ("v:STSv1; id:20260101", Cause::WrongSeparator, "v=STSv1; id=20260101;"),
    ("version=STSv1; id=20260101", Cause::NearKey, "v=STSv1; id=20260101;"),
    ("v=STSv1; policy_id=20260101", Cause::NearKey, "v=STSv1; id=20260101;"),
    ("v=STSv1; 20260101", Cause::BadField, "v=STSv1; id=20260101;"),
    ("v=STSv1;", Cause::NoId, "v=STSv1; id=20270101000000;"),
    ("v=STSv1; id=", Cause::NoId, "v=STSv1; id=20270101000000;"),
    ("v=STSv1; id=2026-01-01;", Cause::IdForm, "v=STSv1; id=20260101;"),
    ("v=STSv1; id=2026-01-01T10:00:00Z", Cause::IdForm, "v=STSv1; id=20260101T100000Z;"),
    ("v=STSv1; id=2026.01;", Cause::IdForm, "v=STSv1; id=202601;"),
    (
        "v=STSv1; id=012345678901234567890123456789012;",
        Cause::IdForm,
        "v=STSv1; id=01234567890123456789012345678901;",
    ),
    ("v=STSv1; id=20260101; mx: a.example; mode: testing", Cause::PolicyLines, "v=STSv1; id=20260101;"),
    (
        "version: STSv1 mode: enforce mx: mx.example.org max_age: 86400",
        Cause::PolicyLines,
        "v=STSv1; id=20270101000000;",
    ),
    ("_mta-sts.example.org. IN TXT \"v=STSv1; id=20260101;\"", Cause::ZoneFileLine, "v=STSv1; id=20260101;"),
    ("TXT v=STSv1; id=20260101", Cause::ZoneFileLine, "v=STSv1; id=20260101;"),
];

const TLSRPT: &[(&str, Cause, &str)] = &[
    ("v=tlsrptv1; rua=mailto:tls@example.org", Cause::VersionCase, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=TLSRPTV1; rua=mailto:tls@example.org", Cause::VersionCase, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=TLSRPT1; rua=mailto:tls@example.org", Cause::WrongVersion, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=TLSRPT; rua=mailto:tls@example.org", Cause::WrongVersion, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=TLSRPTv2; rua=mailto:tls@example.org", Cause::WrongVersion, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=TSLRPTv1; rua=mailto:tls@example.org", Cause::WrongVersion, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    (
        "v=TLSRPTv1 rua=mailto:tls@example.org",
        Cause::MissingSemicolon,
        "v=TLSRPTv1; rua=mailto:tls@example.org",
    ),
    (
        "v=TLSRPTv1rua=mailto:tls@example.org",
        Cause::MissingSemicolon,
        "v=TLSRPTv1; rua=mailto:tls@example.org",
    ),
    (
        "v=TLSRPTv1, rua=mailto:tls@example.org",
        Cause::WrongSeparator,
        "v=TLSRPTv1; rua=mailto:tls@example.org",
    ),
    ("\"v=TLSRPTv1; rua=mailto:tls@example.org\"", Cause::Quotes, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=TLSRPTv1\\; rua=mailto:tls@example.org", Cause::Backslash, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    (
        " v=TLSRPTv1; rua=mailto:tls@example.org",
        Cause::LeadingSpace,
        "v=TLSRPTv1; rua=mailto:tls@example.org",
    ),
    (
        "rua=mailto:tls@example.org; v=TLSRPTv1",
        Cause::FieldBeforeVersion,
        "v=TLSRPTv1; rua=mailto:tls@example.org",
    ),
    ("rua=mailto:tls@example.org", Cause::NoVersion, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("mailto:tls@example.org", Cause::NoVersion, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=TLSRPTv1", Cause::BareVersion, "v=TLSRPTv1; rua=mailto:tlsrpt@example.org"),
    ("v=TLSRPTv1；rua=mailto：tls@example.org", Cause::FullWidth, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    ("v=STSv1; rua=mailto:tls@example.org", Cause::OtherProtocol, "v=TLSRPTv1; rua=mailto:tls@example.org"),
    (
        "v=DMARC1; p=none; rua=mailto:d@example.org",
        Cause::OtherProtocol,
        "v=TLSRPTv1; rua=mailto:d@example.org",
    ),
    ("v=spf1 -all", Cause::OtherProtocol, "v=TLSRPTv1; rua=mailto:tlsrpt@example.org"),
    (
        "v=TLSRPTv1; rua=postmaster@example.org",
        Cause::NoScheme,
        "v=TLSRPTv1; rua=mailto:postmaster@example.org",
    ),
    ("v=TLSRPTv1; rua=tls.example.net/in", Cause::NoScheme, "v=TLSRPTv1; rua=https://tls.example.net/in"),
    (
        "v=TLSRPTv1; rua=mailto:a@example.org mailto:b@example.org",
        Cause::TargetSpace,
        "v=TLSRPTv1; rua=mailto:a@example.org,mailto:b@example.org",
    ),
    ("v=TLSRPTv1; rua=mailto: a@example.org", Cause::TargetSpace, "v=TLSRPTv1; rua=mailto:a@example.org"),
    (
        "v=TLSRPTv1; rua=mailto:a@example.org; mailto:b@example.org",
        Cause::WrongSeparator,
        "v=TLSRPTv1; rua=mailto:a@example.org,mailto:b@example.org",
    ),
    ("v=TLSRPTv1; rua=mailto:a;b@example.org", Cause::Unencoded, "v=TLSRPTv1; rua=mailto:a%3Bb@example.org"),
    ("mailto:a@example.org!10m", Cause::NoVersion, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; rua=mailto:a@example.org!10m", Cause::SizeLimit, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; rua=mailto:a!b@example.org", Cause::Unencoded, "v=TLSRPTv1; rua=mailto:a%21b@example.org"),
    ("v=TLSRPTv1; rua=mailto:postmaster", Cause::BadTarget, "v=TLSRPTv1; rua=mailto:postmaster@example.org"),
    ("v=TLSRPTv1; rua=mailto:", Cause::BadTarget, "v=TLSRPTv1; rua=mailto:tlsrpt@example.org"),
    ("v=TLSRPTv1; rua=mailto://a@example.org", Cause::NearScheme, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; rua=mailto=a@example.org", Cause::NearScheme, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; rua=maito:a@example.org", Cause::NearScheme, "v=TLSRPTv1; rua=mailto:a@example.org"),
    (
        "v=TLSRPTv1; rua=http://r.example.net/in",
        Cause::NearScheme,
        "v=TLSRPTv1; rua=https://r.example.net/in",
    ),
    ("v=TLSRPTv1; rua=<mailto:a@example.org>", Cause::BadTarget, "v=TLSRPTv1; rua=mailto:a@example.org"),
    (
        "v=TLSRPTv1; rua=mailto:a@bücher.example",
        Cause::BadTarget,
        "v=TLSRPTv1; rua=mailto:a@xn--bcher-kva.example",
    ),
    ("v=TLSRPTv1; ruf=mailto:a@example.org", Cause::NearKey, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; rau=mailto:a@example.org", Cause::NearKey, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; RUA=mailto:a@example.org", Cause::KeyCase, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; rua:mailto:a@example.org", Cause::WrongSeparator, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; rua = mailto:a@example.org", Cause::SpaceInField, "v=TLSRPTv1; rua=mailto:a@example.org"),
    ("v=TLSRPTv1; mailto:a@example.org", Cause::BadField, "v=TLSRPTv1; rua=mailto:a@example.org"),
    (
        "v=TLSRPTv1; rua=mailto:a@example.org;; x=1",
        Cause::EmptyField,
        "v=TLSRPTv1; rua=mailto:a@example.org; x=1",
    ),
    (
        "_smtp._tls IN TXT v=TLSRPTv1; rua=mailto:a@example.org",
        Cause::ZoneFileLine,
        "v=TLSRPTv1; rua=mailto:a@example.org",
    ),
];

/// Records that have nothing to do with either protocol.
const OTHERS: &[&str] = &[
    "",
    "some other text",
    "google-site-verification=abc",
    "MS=ms12345678",
    "v=verifydomain MS=1",
    "apple-domain-verification=x; y=z",
    "20260101",
    "hello; world",
];

#[test]
fn a_record_that_is_not_valid_is_recognized_with_its_cause_and_corrected() {
    let mut wrong = Vec::new();
    for (kind, table) in [(RecordKind::Sts, STS), (RecordKind::Tlsrpt, TLSRPT)] {
        for (record, cause, corrected) in table {
            match near(kind, record) {
                Some(found) => {
                    if found.cause() != Some(*cause) || found.corrected != *corrected {
                        wrong.push(format!(
                            "{record:?}: {:?}\n  {}\n  {}",
                            found.cause(),
                            found.corrected,
                            found.told()
                        ));
                    }
                }
                None => wrong.push(format!("{record:?}: not recognized")),
            }
        }
        for record in OTHERS {
            if let Some(found) = near(kind, record) {
                // A protocol that has `v=` is named; nothing else is taken for a record.
                if found.cause() != Some(Cause::OtherProtocol) {
                    wrong.push(format!("{record:?}: {found:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deviations_are_told_with_their_places() {
    let told = |record| near(RecordKind::Sts, record).unwrap().told();
    assert_eq!(
        told("v=STSv1, id=20260101"),
        "At column 8, ',' is in the place of the `;` after the version."
    );
    assert_eq!(
        told(" v=stsv1, id=2026-01-01"),
        "At column 4, the version is stsv1; it has to be STSv1 exactly; at column 1, the record begins with white space; \
         at column 9, ',' is in the place of the `;` after the version; at column 14, the id is 2026-01-01; it has to be 1 \
         to 32 letters and digits."
    );
}

#[test]
fn the_bad_targets_of_a_valid_record_are_corrected_too() {
    let record =
        "v=TLSRPTv1; rua=https://r.example.net/in?x=1&y=2 ,postmaster@example.org extra@example.org, mailto:";
    assert_eq!(near(RecordKind::Tlsrpt, record).unwrap().slips, []);
    let found = lenient(RecordKind::Tlsrpt, record.as_bytes(), &domain(), "1").unwrap();
    let causes: Vec<Cause> = found.slips.iter().map(|slip| slip.cause).collect();
    assert_eq!(causes, [Cause::NoScheme, Cause::TargetSpace, Cause::BadTarget]);
    let corrected = "v=TLSRPTv1; rua=https://r.example.net/in?x=1&y=2,mailto:postmaster@example.org,mailto:extra@example.org";
    assert_eq!(found.corrected, corrected);
}

#[test]
fn a_valid_record_has_no_deviations() {
    for record in ["v=STSv1; id=1", "v=STSv1 ; id=1;", "v=STSv1;id=1; x=2;"] {
        assert_eq!(near(RecordKind::Sts, record).unwrap().slips, []);
    }
    for record in
        ["v=TLSRPTv1; rua=mailto:a@b.example", "v=TLSRPTv1;rua=mailto:a%21b@b.example,https://c.example/d;"]
    {
        assert_eq!(near(RecordKind::Tlsrpt, record).unwrap().slips, []);
    }
}

/// Changes that people and programs make to a record on its way into a zone. Each keeps the values.
const CHANGES: &[fn(&str) -> String] = &[
    |record| format!("\"{record}\""),
    |record| format!("'{record}'"),
    |record| format!(" {record}"),
    |record| format!("\u{a0}{record} "),
    |record| format!("\u{feff}{record}"),
    |record| record.replace(';', "\\;"),
    |record| record.replace(';', "；"),
    |record| record.replace(';', ""),
    |record| record.replacen(';', ",", 1),
    |record| record.replacen(';', " |", 1),
    |record| record.replace("; ", ";; "),
    |record| record.replacen("v=", "V=", 1),
    |record| record.replacen("v=", "v = ", 1),
    |record| record.replacen("v=", "v:", 1),
    |record| record.replacen("v=", "version=", 1),
    |record| record.replacen("v=", "", 1),
    |record| record.replacen("v1", "V1", 1),
    |record| record.replacen("v1", "v12", 1),
    |record| record.replacen("v1", "1", 1),
    |record| record.replacen("v1", "v2", 1),
    |record| record.replacen("v=STS", "v=sts", 1).replacen("v=TLS", "v=tls", 1),
    |record| record.replacen("id=", "ID=", 1).replacen("rua=", "Rua=", 1),
    |record| record.replacen("id=", "id =", 1).replacen("rua=", "rua = ", 1),
    |record| record.replacen("id=", "id:", 1).replacen("rua=", "rua:", 1),
    |record| record.replacen("; ", ";\n", 1),
    |record| record.replacen("; ", ";\u{a0}", 1),
    |record| format!("example.org. 300 IN TXT \"{record}\""),
    |record| match record.split_once("; ") {
        Some((version, rest)) => format!("{}; {version}", rest.trim_end_matches(';')),
        None => record.to_owned(),
    },
];

proptest! {
    #[test]
    fn a_mutated_valid_record_is_never_absent_and_its_correction_keeps_the_id(
        id in "[a-u0-9]{0,12}[0-9][A-U0-9]{0,12}", semicolon in any::<bool>(), one in 0..CHANGES.len(), other in 0..CHANGES.len(), is_twice in any::<bool>()
    ) {
        let valid = format!("v=STSv1; id={id}{}", if semicolon { ";" } else { "" });
        let mut record = CHANGES[one](&valid);
        if is_twice {
            record = CHANGES[other](&record);
        }
        let found = near(RecordKind::Sts, &record);
        prop_assert!(found.is_some(), "{record:?}");
        let corrected = found.unwrap().corrected;
        let read = StsRecord::parse(corrected.as_bytes());
        prop_assert!(read.is_ok(), "{record:?}: {corrected}");
        let kept = read.unwrap().id.to_string();
        prop_assert_eq!(kept, id, "{:?}: {}", record, corrected);
    }

    #[test]
    fn a_mutated_valid_record_is_never_absent_and_its_correction_keeps_the_targets(
        local in "[a-z]{1,8}", host in "[a-z]{2,8}\\.example", path in "(/[a-z]{1,5}){0,2}", both in any::<bool>(), one in 0..CHANGES.len(), other in 0..CHANGES.len(), is_twice in any::<bool>()
    ) {
        let mail = format!("mailto:{local}@{host}");
        let rua = if both { format!("{mail},https://{host}{path}") } else { mail };
        let valid = format!("v=TLSRPTv1; rua={rua}");
        let mut record = CHANGES[one](&valid);
        if is_twice {
            record = CHANGES[other](&record);
        }
        let found = near(RecordKind::Tlsrpt, &record);
        prop_assert!(found.is_some(), "{record:?}");
        let corrected = found.unwrap().corrected;
        let read = TlsrptRecord::parse(corrected.as_bytes());
        prop_assert!(read.is_ok(), "{record:?}: {corrected}");
        let kept: Vec<String> = read.unwrap().rua.iter().map(ToString::to_string).collect();
        prop_assert_eq!(kept.join(","), rua, "{:?}: {}", record, corrected);
    }

    #[test]
    fn any_bytes_are_corrected_to_what_the_parsers_accept(bytes in proptest::collection::vec(any::<u8>(), 0..80), head in "(v=STSv1|v=TLSRPTv1|rua=|id=|v=|)[;,: ]{0,2}") {
        let mut record = head.into_bytes();
        record.extend(bytes);
        if let Some(found) = repair(RecordKind::Sts, &record, &domain(), "1") {
            prop_assert!(StsRecord::parse(found.corrected.as_bytes()).is_ok(), "{}", found.corrected);
            prop_assert!(is_valid(RecordKind::Sts, &record) || !found.slips.is_empty(), "{found:?}");
        }
        if let Some(found) = repair(RecordKind::Tlsrpt, &record, &domain(), "1") {
            prop_assert!(TlsrptRecord::parse(found.corrected.as_bytes()).is_ok(), "{}", found.corrected);
            prop_assert!(is_valid(RecordKind::Tlsrpt, &record) || !found.slips.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn lists_of_fragments_of_records_are_corrected(parts in proptest::collection::vec(prop_oneof![
        Just("v=STSv1"), Just("v=TLSRPTv1"), Just(";"), Just(","), Just(" "), Just("id="), Just("rua="), Just("mailto:"), Just("a@b.example"),
        Just("https://c.example/d"), Just("="), Just(":"), Just("2026"), Just("-"), Just("!10m"), Just("%"), Just("\\"), Just("\""), Just("mode: none"), Just("x=1"), Just("é"), Just("@")
    ], 0..12)) {
        let record = parts.concat();
        for kind in [RecordKind::Sts, RecordKind::Tlsrpt] {
            if let Some(found) = near(kind, &record) {
                let is_valid = is_valid(kind, found.corrected.as_bytes());
                prop_assert!(is_valid, "{record:?}: {}", found.corrected);
                prop_assert!(super::is_valid(kind, record.as_bytes()) || !found.slips.is_empty(), "{record:?} {found:?}");
            }
        }
    }
}
