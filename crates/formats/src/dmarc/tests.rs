use super::*;
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<DmarcReport, DmarcError> {
    DmarcReport::read(bytes, &mut DMARC_ELEMENTS.clone())
}

fn sample(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dmarc");
    std::fs::read(folder.join(name)).unwrap()
}

/// The rows as text: source, disposition, DKIM, SPF, messages.
fn rows(report: &DmarcReport) -> Vec<String> {
    let source = |row: &DmarcRow| row.source.map_or("-".to_owned(), |source| source.to_string());
    let one = |row: &DmarcRow| {
        format!("{} {} {} {} {}", source(row), row.disposition, row.dkim, row.spf, row.messages)
    };
    report.rows.iter().map(one).collect()
}

#[test]
fn reports_in_the_shapes_of_known_reporters_are_read_as_a_table_by_hand_says() {
    let table: [(&str, &str, &str, &[&str]); 7] = [
        (
            "google.xml",
            "google.com",
            "7312894650118274431",
            &["192.0.2.25 none pass pass 41", "2001:db8::25 none pass fail 7"],
        ),
        (
            "microsoft.xml",
            "Enterprise Outlook",
            "5b1e0c4b6f7a4d0c9f43a1a2b3c4d5e6",
            &["192.0.2.25 none pass pass 5"],
        ),
        ("yahoo.xml", "Yahoo", "1763690401.550207", &["203.0.113.9 quarantine fail fail 5"]),
        ("mail.ru.xml", "Mail.Ru", "41277013584018741761763596800", &["198.51.100.8 none fail fail 12"]),
        ("fastmail.xml", "Fastmail Pty Ltd", "1763683200-harbour", &["2001:db8::19 none pass unknown 1"]),
        (
            "rfc9990.xml",
            "Sample Reporter",
            "3v98abbp8ya9n3va8yr8oa3ya@example.org",
            &["192.0.2.123 pass pass fail 123"],
        ),
        (
            "odd.xml",
            "Café Post",
            "harbour.example_1763683200",
            &["- unknown unknown unknown 4", "192.0.2.1 none pass fail 1000000000000"],
        ),
    ];
    for (file, organization, id, expected) in table {
        let report = read(&sample(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!((report.organization.as_str(), report.report_id.as_str()), (organization, id), "{file}");
        assert_eq!(report.domain.as_str(), "harbour.example", "{file}");
        assert_eq!(
            DateRange::utc_day(report.range.start).start.to_string(),
            "2025-11-20T00:00:00Z",
            "{file}"
        );
        assert!(report.range.end >= report.range.start, "{file}");
        assert_eq!(rows(&report), expected, "{file}");
        assert_eq!(report.uncounted, if file == "odd.xml" { 2 } else { 0 }, "{file}");
        assert!(is_dmarc_text(&sample(file)), "{file}");
    }
}

#[test]
fn encodings_are_recognized_by_the_byte_order_mark() {
    let text = String::from_utf8(sample("google.xml")).unwrap();
    let utf16 = |mark: u16, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(mark).chain(text.encode_utf16()).flat_map(bytes).collect()
    };
    let plain = read(text.as_bytes()).unwrap();
    for bytes in [
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        utf16(0xfeff, u16::to_le_bytes),
        utf16(0xfeff, u16::to_be_bytes),
        format!("\r\n{text}\r\n<!-- generated -->\n").into_bytes(),
    ] {
        assert_eq!(read(&bytes).as_ref(), Ok(&plain));
        assert!(is_dmarc_text(&bytes));
    }
}

#[test]
fn what_is_no_report_is_refused_with_the_reason() {
    let report = |range: &str, domain: &str| {
        format!(
            "<feedback><report_metadata><date_range>{range}</date_range></report_metadata><policy_published>{domain}</policy_published></feedback>"
        )
    };
    let range = "<begin>1</begin><end>2</end>";
    let domain = "<domain>a.example</domain>";
    assert!(read(report(range, domain).as_bytes()).is_ok());
    assert_eq!(read(report("", domain).as_bytes()), Err(DmarcError::Range));
    assert_eq!(read(report("<begin>-1</begin>", domain).as_bytes()), Err(DmarcError::Range));
    assert_eq!(read(report(range, "<domain>a b</domain>").as_bytes()), Err(DmarcError::Domain));
    assert_eq!(read(b"<html><feedback/></html>"), Err(DmarcError::Root));
    for broken in ["", "{}", "<feedback>", "<!DOCTYPE feedback [<!ENTITY a \"b\">]><feedback>&a;</feedback>"]
    {
        assert!(matches!(read(broken.as_bytes()), Err(DmarcError::Xml(_))), "{broken}");
    }
}

#[test]
fn elements_are_bounded_over_all_reports_of_a_message_also_those_that_fail() {
    let record = "<record><row><source_ip>192.0.2.1</source_ip><count>1</count></row></record>";
    let text = format!(
        "<feedback><report_metadata><date_range><begin>1</begin></date_range></report_metadata><policy_published><domain>a.example</domain></policy_published>{}</feedback>",
        record.repeat(10)
    );
    let mut elements = 50;
    assert!(DmarcReport::read(text.as_bytes(), &mut elements).is_ok());
    assert_eq!(elements, 50 - 46);
    let failed = DmarcReport::read(text.as_bytes(), &mut elements);
    assert_eq!((failed, elements), (Err(DmarcError::Xml(XmlError::Elements(4))), 0));
}

#[test]
fn sources_beyond_the_limit_are_counted_without_their_address() {
    let record = |number: usize| {
        let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
        format!("<record><row><source_ip>10.{a}.{b}.{c}</source_ip><count>2</count></row></record>")
    };
    let records: String = (0..DMARC_ROWS + 25).map(record).collect();
    let text = format!(
        "<feedback><report_metadata><date_range><begin>1</begin></date_range></report_metadata><policy_published><domain>a.example</domain></policy_published>{records}</feedback>"
    );
    let report = read(text.as_bytes()).unwrap();
    assert_eq!(report.rows.len(), DMARC_ROWS + 1);
    assert_eq!((report.rows[0].source, report.rows[0].messages), (None, 50));
    assert_eq!(report.messages(), 2 * (DMARC_ROWS as u64 + 25));
}

#[test]
fn file_names_of_dmarc_reports_are_recognized_and_those_of_tls_reports_are_not() {
    for (name, domain) in [
        ("google.com!a.example!1763596800!1763683199.zip", "a.example"),
        ("enterprise.protection.outlook.com!a.example!1763596800!1763683200.xml.gz", "a.example"),
        ("in/yahoo.com!A.Example!1763596800!1763683199.xml", "a.example"),
        ("mail.receiver.example!a.example!1013662812!1013749130!id7.xml.gz", "a.example"),
    ] {
        assert_eq!(DmarcFileName::parse(name).unwrap().domain.as_str(), domain, "{name}");
        assert_eq!(crate::report::ReportFileName::parse(name), None);
    }
    for other in [
        "big.example!a.example!1!2.json.gz",
        "big.example!a.example!1!2.json",
        "thesis.zip",
        "a!b!c!d.xml",
        "a.example!b.example!1.xml",
        "!!1!2.zip",
    ] {
        assert_eq!(DmarcFileName::parse(other), None, "{other}");
    }
}

#[test]
fn other_xml_is_not_taken_for_a_dmarc_report() {
    for other in [
        "{\"feedback\": 1}",
        "<html><p>feedback about dmarc</p></html>",
        "<survey><name>feedback report_metadata</name></survey>",
        "<feedbacks><report_metadata/></feedbacks>",
        "<feedback><question/></feedback>",
        "feedback <feedback> dmarc",
        "",
    ] {
        assert!(!is_dmarc_text(other.as_bytes()), "{other}");
    }
    assert!(is_dmarc_text(b"<feedback><report_metadata/></feedback>"));
    assert!(is_dmarc_text(b"<?xml?><x:feedback xmlns:x=\"http://dmarc.org/dmarc-xml/0.1\">"));
}

#[derive(Debug, Clone)]
struct Counted {
    source: Option<IpAddr>,
    disposition: Disposition,
    dkim: Alignment,
    spf: Alignment,
    messages: u64,
}

fn counted() -> impl Strategy<Value = Counted> {
    let source = prop::option::of(prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| IpAddr::from([octets[0] % 3, 0, 2, octets[3] % 4])),
        any::<[u16; 8]>().prop_map(|words| IpAddr::from([0x2001, 0xdb8, words[0] % 2, 0, 0, 0, 0, 1])),
    ]);
    let aligned = || prop::sample::select(Alignment::ALL.to_vec());
    let disposition = prop::sample::select(Disposition::ALL.to_vec());
    (source, disposition, aligned(), aligned(), prop_oneof![Just(0), 1..1000u64, Just(u64::MAX)]).prop_map(
        |(source, disposition, dkim, spf, messages)| Counted { source, disposition, dkim, spf, messages },
    )
}

/// A report with these records, with the namespace prefixes of the root and of all other elements.
fn written(records: &[Counted], (root, prefix): (&str, &str)) -> String {
    let tag = |name: &str, inside: &str| format!("<{prefix}{name}>{inside}</{prefix}{name}>");
    let alignment = |name: &str, value: Alignment| match value {
        Alignment::Unknown => String::new(),
        other => tag(name, &other.to_string()),
    };
    let mut inside = tag("report_metadata", &tag("date_range", &tag("begin", "1763596800")));
    inside += &tag("policy_published", &tag("domain", "a.example"));
    for record in records {
        let source = record.source.map_or("?".to_owned(), |source| source.to_string());
        let result = tag("disposition", &record.disposition.to_string())
            + &alignment("dkim", record.dkim)
            + &alignment("spf", record.spf);
        let row = tag("source_ip", &source)
            + &tag("count", &record.messages.to_string())
            + &tag("policy_evaluated", &result);
        inside += &tag("record", &tag("row", &row));
    }
    format!("<{root}feedback>{inside}</{root}feedback>")
}

proptest! {
    #[test]
    fn messages_are_summed_by_source_and_result(records in prop::collection::vec(counted(), 0..40), prefixes in prop::sample::select(vec![("", ""), ("ns0:", "ns0:"), ("ns0:", "")])) {
        let report = read(written(&records, prefixes).as_bytes()).unwrap();
        let mut sums: BTreeMap<RowKey, u64> = BTreeMap::new();
        for one in records.iter().filter(|one| one.messages > 0) {
            let sum = sums.entry((one.source, one.disposition, one.dkim, one.spf)).or_default();
            *sum = sum.saturating_add(one.messages.min(DMARC_MESSAGES));
        }
        let found: BTreeMap<RowKey, u64> = report.rows.iter().map(|row| ((row.source, row.disposition, row.dkim, row.spf), row.messages)).collect();
        prop_assert_eq!(found, sums);
        prop_assert_eq!(report.uncounted, 0);
    }

    #[test]
    fn no_text_panics(text in "(<(feedback|record|row|count|/row|/record|!--|!\\[CDATA\\[)>?|[ -~\\n]){0,60}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = read(text.as_bytes());
        let _ = read(&bytes);
        let _ = (is_dmarc_text(&bytes), is_dmarc_text(text.as_bytes()));
        let _ = DmarcFileName::parse(&text);
    }

    #[test]
    fn a_changed_sample_is_read_or_refused(at in 0..1000usize, byte in any::<u8>(), cut in 0..3000usize) {
        let mut bytes = sample("google.xml");
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        if let Ok(report) = read(&bytes) {
            prop_assert!(report.rows.iter().all(|row| (1..=DMARC_MESSAGES * 2).contains(&row.messages)));
        }
    }
}
