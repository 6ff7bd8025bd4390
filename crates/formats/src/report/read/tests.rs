use super::*;
use jiff::Timestamp;
use proptest::prelude::*;

/// A report without deviations; tests replace parts of it.
const CLEAN: &str = r#"{
 "organization-name": "Big Mail Inc.",
 "date-range": {"start-datetime": "2026-11-23T00:00:00Z", "end-datetime": "2026-11-23T23:59:59Z"},
 "contact-info": "tlsrpt@big.example",
 "report-id": "2026-11-23T00:00:00Z_example.org",
 "policies": [{
  "policy": {"policy-type": "sts", "policy-string": ["version: STSv1", "mode: testing", "mx: mx1.example.org", "max_age: 86400"], "policy-domain": "example.org", "mx-host": ["mx1.example.org"]},
  "summary": {"total-successful-session-count": 5, "total-failure-session-count": 3},
  "failure-details": [{"result-type": "certificate-expired", "sending-mta-ip": "192.0.2.7", "receiving-mx-hostname": "mx1.example.org", "receiving-ip": "2001:db8::1", "failed-session-count": 3}]
 }]
}"#;

fn read(text: &str) -> ReadReport {
    Report::read(text.as_bytes()).unwrap()
}

/// The warnings if `from` is replaced by `to` in the report.
fn quirks(from: &str, to: &str) -> Vec<Quirk> {
    assert!(CLEAN.contains(from), "{from}");
    read(&CLEAN.replacen(from, to, 1)).warnings.iter().map(|w| w.quirk).collect()
}

#[test]
fn a_list_of_one_that_is_written_without_its_array_is_read() {
    let (start, end) = (CLEAN.find(r#"[{"result-type""#).unwrap(), CLEAN.find("}]\n }]").unwrap());
    let details = format!("{}{}{}", &CLEAN[..start], &CLEAN[start + 1..end + 1], &CLEAN[end + 2..]);
    let policies = CLEAN.replace(r#""policies": [{"#, r#""policies": {"#).replace("\n }]\n}", "\n }\n}");
    for text in [details, policies] {
        let found = read(&text);
        assert_eq!(found.report, read(CLEAN).report, "{text}");
        assert_eq!(
            found.warnings.iter().map(|warning| &warning.quirk).collect::<Vec<_>>(),
            [&Quirk::WrongKind]
        );
    }
    // What does not look like a failure is still one that can't be read.
    let odd = CLEAN.replace(r#"[{"result-type": "certificate-expired", "sending-mta-ip": "192.0.2.7", "receiving-mx-hostname": "mx1.example.org", "receiving-ip": "2001:db8::1", "failed-session-count": 3}]"#, r#"{"x": 1}"#);
    assert_eq!(read(&odd).report.policies[0].details.len(), 1);
    assert!(read(&odd).warnings.iter().any(|warning| warning.quirk == Quirk::FailuresUnknown));
}

#[test]
fn rpt_05_a_report_has_policies_each_with_summary_and_details() {
    let ReadReport { report, warnings } = read(CLEAN);
    assert!(warnings.is_empty(), "{warnings:?}");
    let policy = &report.policies[0];
    assert_eq!((policy.successful, policy.failed, policy.policy_string.len()), (5, 3, 4));
    assert_eq!(policy.details[0].result_type, ResultType::CertificateExpired);
    let written = String::from_utf8(report.to_json().unwrap()).unwrap();
    for member in [
        "\"policy-type\":\"sts\"",
        "\"total-failure-session-count\":3",
        "\"failure-details\":[",
        "\"receiving-ip\":\"2001:db8::1\"",
    ] {
        assert!(written.contains(member), "{member}");
    }
    let mut clean = report;
    clean.policies[0].details.clear();
    assert!(!String::from_utf8(clean.to_json().unwrap()).unwrap().contains("failure-details"));
}

#[test]
fn rpt_04_what_is_written_is_i_json_and_what_can_not_be_is_an_error() {
    use super::super::WriteError;
    let mut report = read(CLEAN).report;
    let text = String::from_utf8(report.to_json().unwrap()).unwrap();
    assert!(read(&text).warnings.is_empty());
    report.policies[0].successful = (1 << 53) + 1;
    assert_eq!(report.to_json(), Err(WriteError::Count((1 << 53) + 1)));
    report.policies[0].successful = 1 << 53;
    report.policies[0].policy_type = PolicyType::Other("x".into());
    assert_eq!(report.to_json(), Err(WriteError::Unregistered("x".into())));
    assert_eq!(quirks(r#""contact-info""#, r#""report-id": "second", "contact-info""#), [Quirk::Duplicate]);
    assert_eq!(quirks(r#"-count": 5"#, r#"-count": 99999999999999999"#), [Quirk::OddCount]);
}

#[test]
fn rpt_07_times_are_written_by_rfc_3339_in_utc() {
    let text = String::from_utf8(read(CLEAN).report.to_json().unwrap()).unwrap();
    assert!(text.contains(r#""start-datetime":"2026-11-23T00:00:00Z""#));
    assert!(text.contains(r#""end-datetime":"2026-11-23T23:59:59Z""#));
}

#[test]
fn rpt_24_no_policy_found_is_written_with_its_domain() {
    use super::super::WriteError;
    let mut report = read(CLEAN).report;
    report.policies[0].policy_type = PolicyType::NoPolicyFound;
    assert!(
        String::from_utf8(report.to_json().unwrap()).unwrap().contains(r#""policy-domain":"example.org""#)
    );
    report.policies[0].policy_domain = None;
    assert_eq!(report.to_json(), Err(WriteError::Missing("policy-domain")));
}

#[test]
fn rec_08_each_quirk_is_taken_with_a_warning() {
    use Quirk::*;
    let contact = r#""contact-info": "tlsrpt@big.example","#;
    assert_eq!(quirks(contact, r#""contact-info": null,"#), [Null]);
    assert_eq!(quirks(contact, ""), [Missing]);
    let details = &CLEAN[CLEAN.find("\"failure-details\": [{").unwrap()..CLEAN.find("3}]\n").unwrap() + 3];
    assert_eq!(quirks(details, "\"failure-details\": null"), [Null, TotalAboveDetails]);
    assert_eq!(quirks(details, "\"failure-details\": []"), [TotalAboveDetails]);
    let lines =
        r#""policy-string": ["version: STSv1", "mode: testing", "mx: mx1.example.org", "max_age: 86400"], "#;
    assert_eq!(quirks(lines, ""), [Missing]);
    assert_eq!(quirks(lines, r#""policy-string": null, "#), [Null]);
    assert_eq!(quirks(lines, r#""policy-string": [], "#), [Empty]);
    assert_eq!(
        quirks(lines, r#""policy-string": ["version: STSv1\r\nmode: testing\r\n"], "#),
        [WholePolicyInOneString]
    );
    assert_eq!(quirks(lines, r#""policy-string": ["version:STSv1"], "#), [NoSpaceAfterColon]);
    let tlsa = read(
        &CLEAN
            .replace("\"sts\"", "\"tlsa\"")
            .replace(lines, r#""policy-string": ["[\"3 1 1 AB\",\"3 1 1 CD\"]"], "#),
    );
    assert_eq!(tlsa.report.policies[0].policy_string, ["3 1 1 AB", "3 1 1 CD"]);
    assert_eq!(tlsa.warnings[0].quirk, NestedArray);
    assert_eq!(quirks(r#""policy-domain": "example.org", "#, ""), [Missing]);
    assert_eq!(quirks(r#""total-failure-session-count": 3"#, r#""x": 1"#), [Missing]);
    let mx = r#""mx-host": ["mx1.example.org"]"#;
    assert_eq!(quirks(mx, r#""mx-host": "mx1.example.org""#), [StringForArray]);
    assert_eq!(quirks(mx, r#""mx-host": ["mx: mx1.example.org"]"#), [MxPrefix]);
    assert_eq!(quirks(mx, r#""mx-host": null"#), [Null]);
    assert_eq!(quirks(mx, r#""mx-host": """#), [Empty]);
    assert_eq!(quirks("receiving-mx-hostname", "receiving-mx-host-name"), [OtherName]);
    assert_eq!(quirks(r#""sending-mta-ip": "192.0.2.7", "#, ""), []);
    assert_eq!(quirks("192.0.2.7", ""), [Empty]);
    assert_eq!(quirks("192.0.2.7", "[192.0.2.7]"), [BracketedAddress]);
    assert_eq!(quirks("192.0.2.7", "unknown"), [NotAnAddress]);
    assert_eq!(quirks(r#"-count": 5"#, r#"-count": "5""#), [StringForNumber]);
    assert_eq!(quirks(r#""policy-type": "sts""#, r#""policy-type": "invalid-policy-type""#), [UnknownName]);
    assert_eq!(quirks(r#""policy-type": "sts""#, r#""policy-type": "STS""#), [OtherCase]);
    assert_eq!(quirks("certificate-expired", "my-own"), [UnknownName]);
    assert_eq!(quirks("Z_example.org", "Z+"), [ReportIdSuffix]);
    assert_eq!(quirks("Z_example.org", "Z+example.org"), [ReportIdSuffix]);
    assert_eq!(quirks("2026-11-23T23:59:59Z", "2026-11-24T00:00:00Z"), [EndsAtMidnight]);
    assert_eq!(quirks("2026-11-23T23:59:59Z", "2026-11-24T01:59:59+02:00"), [Offset]);
    assert_eq!(quirks("2026-11-23T23:59:59Z", "2026-11-23T23:59:59.999Z"), [FractionalSeconds]);
    assert_eq!(quirks("2026-11-23T23:59:59Z", "2026-11-23T23:59:59"), [NoOffset]);
    assert_eq!(quirks("2026-11-23T23:59:59Z", "2026-11-29T23:59:59Z"), [NotADay]);
    let bom = [b"\xef\xbb\xbf", CLEAN.as_bytes()].concat();
    assert_eq!(Report::read(&bom).unwrap().warnings[0].quirk, ByteOrderMark);
    let latin = CLEAN
        .replace("Big Mail", "B\u{1}g")
        .into_bytes()
        .into_iter()
        .map(|b| if b == 1 { 0xef } else { b })
        .collect::<Vec<_>>();
    let latin = Report::read(&latin).unwrap();
    assert_eq!(
        (latin.warnings[0].quirk, latin.report.organization_name.as_deref()),
        (Latin1, Some("B\u{ef}g Inc."))
    );
    assert_eq!(
        read(&CLEAN.replace("Big Mail", "<b>\\\"Big\\\"</b>")).report.organization_name.as_deref(),
        Some("<b>\"Big\"</b> Inc.")
    );
    let second = CLEAN[CLEAN.find("[{\n").unwrap() + 1..CLEAN.rfind("]\n}").unwrap()]
        .replace("policy-domain\": \"example.org", "policy-domain\": \"other.example");
    assert_eq!(
        read(&CLEAN.replace("}]\n }]", &format!("}}]\n }},{second}]"))).warnings.last().unwrap().quirk,
        SeveralDomains
    );
}

#[test]
fn rec_10_totals_stay_as_the_sender_gave_them() {
    assert_eq!(
        quirks(r#"-failure-session-count": 3"#, r#"-failure-session-count": 1"#),
        [Quirk::TotalBelowDetails]
    );
    let read = read(&CLEAN.replace(r#"-failure-session-count": 3"#, r#"-failure-session-count": 9"#));
    assert_eq!((read.report.policies[0].failed, read.warnings[0].quirk), (9, Quirk::TotalAboveDetails));
}

#[test]
fn rec_09_depth_and_counts_are_bounded() {
    let deep = format!("{}{}", "[".repeat(17), "]".repeat(17));
    assert!(matches!(
        Report::read(CLEAN.replace("\"Big Mail Inc.\"", &deep).as_bytes()),
        Err(ReadError::Json { line: 2, .. })
    ));
    let detail = r#"{"result-type":"certificate-expired","failed-session-count":1},"#;
    let many =
        CLEAN.replace("[{\"result-type\"", &format!("[{}{{\"result-type\"", detail.repeat(REPORT_DETAILS)));
    assert!(matches!(Report::read(many.as_bytes()), Err(ReadError::TooMany(_))));
    let odd = r#"{"result-type":"odd","failed-session-count":1},"#;
    let noisy = read(&CLEAN.replace("[{\"result-type\"", &format!("[{}{{\"result-type\"", odd.repeat(300))));
    assert_eq!(noisy.warnings.len(), REPORT_WARNINGS);
    let long = read(&CLEAN.replace("Big Mail", &"ü".repeat(4000)));
    assert_eq!(
        (long.report.organization_name.unwrap().len(), long.warnings[0].quirk),
        (REPORT_TEXT_BYTES, Quirk::Cut)
    );
}

#[test]
fn rec_09_small_values_are_bounded_by_their_number() {
    let many = CLEAN.replacen('{', &format!("{{\"x\":[{}0],", "{},".repeat(JSON_NODES)), 1);
    assert!(many.len() < 5 << 20);
    let refused = Report::read(many.as_bytes()).unwrap_err().to_string();
    assert!(refused.contains("more than 1500000 values"), "{refused}");
    let mut nodes = 100;
    assert!(Report::read_within(CLEAN.as_bytes(), &mut nodes).is_ok());
    assert!(nodes < 80, "{nodes}");
    assert!(Report::read_within(CLEAN.as_bytes(), &mut 10).is_err());
}

#[test]
fn rec_09_values_and_lines_within_a_policy_string_count() {
    let with = |policy: &str| {
        let before = CLEAN.split_once("\"policy-string\": [").unwrap();
        let after = before.1.split_once(']').unwrap().1;
        format!("{}\"policy-string\": [\"{policy}\"]{after}", before.0)
    };
    let used = |policy: &str, left: usize| {
        let mut nodes = left;
        let read = Report::read_within(with(policy).as_bytes(), &mut nodes).unwrap();
        (left - nodes, read.report.policies[0].policy_string.len())
    };
    let (plain, _) = used("version: STSv1", 10_000);
    let (lines, count) = used(&"mx: a.example\\n".repeat(500), 10_000);
    assert!(lines >= plain + 500 && count >= 500, "{lines} {count}");
    let (nested, count) = used(&format!("[{}\\\"b\\\"]", "\\\"a\\\",".repeat(500)), 10_000);
    assert!(nested >= plain + 501 && count == 501, "{nested} {count}");
    // Without values left, the string is kept as it is.
    assert_eq!(used(&"mx: a.example\\n".repeat(500), plain + 100).1, 1);
    let mut nodes = 100;
    assert!(Report::read_within(b"{\"a\": [1, 2, 3, 4, 5, 6, 7, 8, 9], broken", &mut nodes).is_err());
    assert_eq!(nodes, 89, "rejected text counts");
}

#[test]
fn reports_without_meaning_are_rejected_with_the_position() {
    let refused =
        |from: &str, to: &str| Report::read(CLEAN.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
    assert!(
        refused(": \"Big", " \"Big").starts_with("line 2, column 22"),
        "{}",
        refused(": \"Big", " \"Big")
    );
    assert!(refused("\"report-id\"", "\"id\"").starts_with("report-id: missing"));
    assert!(refused("\"date-range\"", "\"range\"").starts_with("date-range: missing"));
    assert!(
        refused("2026-11-23T00:00:00Z", "yesterday").contains("date-range.start-datetime: \"yesterday\"")
    );
    assert!(refused("\"policies\"", "\"p\"").starts_with("policies: missing"));
    assert!(refused("\"policy\":", "\"p\":").starts_with("policies[0].policy: missing"));
    for bad in ["", "null", "[]", "{}", "{\"a\":", CLEAN.trim_end_matches('}')] {
        assert!(Report::read(bad.as_bytes()).is_err());
    }
}

#[test]
fn an_unreadable_failure_count_counts_as_a_failure() {
    let (before, details) = CLEAN.split_once("  \"failure-details\"").unwrap();
    let (summary, details) =
        (before.replace("count\": 3}", "count\": COUNT}"), details.trim_start_matches(": "));
    let text = |count: &str, details: &str| {
        format!("{}  \"failure-details\": {details}", summary.replace("COUNT", count))
    };
    let none = "[]}]}";
    for odd in ["\"1,234\"", "null", "[5]", "true", "-5", "-0.5", "\"n/a\"", "{}", "\"-3\"", "0.4"] {
        let found = read(&text(odd, none));
        let policy = &found.report.policies[0];
        assert_eq!((policy.successful, policy.failed), (5, 1), "{odd}");
        assert!(!found.warnings.is_empty(), "{odd}");
        // One more than the sum of the details, so that excluding these does not exclude all failures.
        let failed = if odd == "0.4" { 1 } else { 4 };
        assert_eq!(read(&text(odd, details)).report.policies[0].failed, failed, "{odd}");
    }
    let absent = text("0", none).replace(", \"total-failure-session-count\": 0", "");
    assert_eq!(read(&absent).report.policies[0].failed, 0, "some writers omit zeros");
    let detail = r#"[{"result-type": "certificate-expired", "failed-session-count": "many"}]}]}"#;
    assert_eq!(read(&text("0", detail)).report.policies[0].details[0].failed_session_count, 1);
    // Details that can't be read, or without their count, are failures all the same.
    for details in [r#""three""#, "7", "true", r#"{"result-type": "x"}"#, r#"[{"result-type": "x"}]"#] {
        let found = read(&text("0", &format!("{details}}}]}}")));
        assert_eq!(found.report.policies[0].details[0].failed_session_count, 1, "{details}");
        assert!(found.warnings.iter().any(|warning| warning.quirk == Quirk::FailuresUnknown), "{details}");
    }
    for details in [r#""""#, "{}", "null", "[]"] {
        assert_eq!(read(&text("0", &format!("{details}}}]}}"))).report.policies[0].details, [], "{details}");
    }
}

fn texts() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[ -~ü]{1,20}").prop_map(|text| text.filter(|t| !t.trim().is_empty()))
}

prop_compose! {
    fn detail()(kind in 0..11usize, from in proptest::option::of(any::<IpAddr>()), to in proptest::option::of(any::<IpAddr>()), host in texts(), helo in texts(), more in texts(), why in texts(), count in 0..1u64 << 40) -> FailureDetail {
        FailureDetail { result_type: ResultType::registered().nth(kind).unwrap(), sending_mta_ip: from, receiving_mx_hostname: host, receiving_mx_helo: helo, receiving_ip: to, failed_session_count: count, additional_information: more, failure_reason_code: why }
    }
}

prop_compose! {
    fn a_report()(organization in "[a-zü\"<]{1,20}", id in "[a-z0-9]{1,30}", day in 0i64..30_000, details in proptest::collection::vec(detail(), 0..5), good in 0..1u64 << 50) -> Report {
        let range = DateRange::utc_day(Timestamp::from_second(day * 86_400).unwrap());
        let failed = details.iter().map(|d| d.failed_session_count).sum();
        let policy = PolicyReport { policy_type: PolicyType::Sts, policy_string: vec!["version: STSv1".into()], policy_domain: Some(DomainName::parse("example.org").unwrap()), mx_host: vec!["*.example.org".into()], successful: good, failed, details };
        Report { organization_name: Some(organization), date_range: range, contact_info: Some("a@b.example".into()), report_id: id, policies: vec![policy] }
    }
}

proptest! {
    #[test]
    fn a_report_is_read_as_it_is_written(report in a_report()) {
        let read = Report::read(&report.to_json().unwrap()).unwrap();
        prop_assert_eq!(&read.warnings, &[]);
        prop_assert_eq!(read.report, report);
    }

    #[test]
    fn any_changed_byte_is_rejected_or_read(at in 0..CLEAN.len(), byte: u8) {
        let mut bytes = CLEAN.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = Report::read(&bytes);
    }
}

const END: &str = "\"2026-11-23T23:59:59Z\"";

#[test]
fn rec_08_times_as_numbers_since_1970_are_read() {
    use Quirk::*;
    let end = "2026-11-23T23:59:59Z".parse::<Timestamp>().unwrap();
    for written in ["1795478399", "\"1795478399\"", "1795478399000", "\"1795478399000\"", "1795478399.0"] {
        let read = read(&CLEAN.replacen(END, written, 1));
        assert_eq!(read.report.date_range.end, end, "{written}");
        assert_eq!(read.warnings.iter().map(|w| w.quirk).collect::<Vec<_>>(), [EpochTime], "{written}");
    }
    for wrong in ["-1", "-1.5", "1e300", "18446744073709551615", "true", "\"99999999999999999999\""] {
        assert!(Report::read(CLEAN.replacen(END, wrong, 1).as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn rec_08_the_hour_24_is_the_beginning_of_the_next_day() {
    use Quirk::*;
    let midnight = "2026-11-24T00:00:00Z".parse::<Timestamp>().unwrap();
    for (written, quirks) in [
        ("24:00:00Z", vec![HourTwentyFour, EndsAtMidnight]),
        ("24:00Z", vec![HourTwentyFour, EndsAtMidnight]),
        ("24:00:00+00:00", vec![Offset, HourTwentyFour, EndsAtMidnight]),
        ("24:00:00", vec![NoOffset, HourTwentyFour, EndsAtMidnight]),
    ] {
        let read = read(&CLEAN.replacen("23:59:59Z", written, 1));
        assert_eq!(read.report.date_range.end, midnight, "{written}");
        assert_eq!(read.warnings.iter().map(|w| w.quirk).collect::<Vec<_>>(), quirks, "{written}");
    }
    for wrong in ["24:00:01Z", "24:01:00Z", "25:00:00Z", "24Z"] {
        assert!(Report::read(CLEAN.replacen("23:59:59Z", wrong, 1).as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn rec_08_utf_16_and_what_follows_a_report_are_taken_with_a_warning() {
    let quirks = |bytes: &[u8]| {
        let read = Report::read(bytes).unwrap();
        assert_eq!(read.report.policies[0].successful, 5);
        read.warnings.iter().map(|w| w.quirk).collect::<Vec<_>>()
    };
    let wide: Vec<u8> = CLEAN.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(quirks(&wide), [Quirk::WideUnits]);
    for harmless in ["\0", "\0\0\0", "\r\n", " \n\0", "]"] {
        assert_eq!(quirks(format!("{CLEAN}{harmless}").as_bytes()), []);
    }
    assert_eq!(quirks(format!("[{CLEAN}]").as_bytes()), []);
    for other in ["-- \nsent by a list", "<!-- -->", "[1]", "\"x\""] {
        assert_eq!(quirks(format!("{CLEAN}\n{other}").as_bytes()), [Quirk::TrailingText], "{other}");
    }
    assert_eq!(Report::read(format!("{CLEAN}\n{CLEAN}").as_bytes()), Err(ReadError::Several));
    assert_eq!(Report::read(format!("[{CLEAN},{CLEAN}]").as_bytes()), Err(ReadError::Several));
}
