use super::*;
use net::clock::ManualClock;
use proptest::prelude::*;
use receiver::inbox::{ImportedReport, InboxOutcome};
use store::reports::{Arrival, KeepOutcome, NewReport, Trust};

/// Checks text against the grammar of OpenMetrics 1.0, as far as gauges and counters need it. Returns the samples.
fn samples(text: &str) -> Result<Vec<String>, String> {
    let lines: Vec<&str> = text.strip_suffix("# EOF\n").ok_or("no end")?.lines().collect();
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let (mut families, mut found) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            match word {
                "HELP" if is_name(name) && families.insert(name.to_owned()) => family = name.to_owned(),
                "TYPE" if name == family => kind = words.next().unwrap_or_default().to_owned(),
                _ => return Err(format!("a comment: {line}")),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').ok_or(format!("no value: {line}"))?;
        value.parse::<i64>().map_err(|error| format!("{error}: {line}"))?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let expected = if kind == "counter" { format!("{family}_total") } else { family.clone() };
        if name != expected {
            return Err(format!("not of the family {family}: {line}"));
        }
        let mut rest = labels.strip_suffix('}').ok_or(format!("labels: {line}"))?;
        while !rest.is_empty() {
            let (label, value) = rest.split_once("=\"").ok_or(format!("a label: {line}"))?;
            let mut escaped = false;
            let end = value.find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let end = end.ok_or(format!("a label's value: {line}"))?;
            if !is_name(label) || value[..end].contains('\n') {
                return Err(format!("a label: {line}"));
            }
            rest = value[end + 1..].strip_prefix(',').unwrap_or(&value[end + 1..]);
        }
        if !found.insert(series.to_owned()) {
            return Err(format!("twice: {line}"));
        }
    }
    Ok(found.into_iter().collect())
}

const NOW: Timestamp = Timestamp::constant(1_795_400_000, 0);

fn totals(names: &[String]) -> Vec<DomainTotal> {
    let one =
        |name: &String| DomainTotal { domain: name.clone(), successful: u64::MAX, failed: 1, unproved: 2 };
    names.iter().map(one).collect()
}

proptest! {
    #[test]
    fn any_names_and_counts_are_valid_openmetrics(names in prop::collection::btree_set(any::<String>(), 0..20), counts in any::<[u64; 4]>()) {
        let names: Vec<String> = names.into_iter().collect();
        let submitter = |name: &String| SubmitterTotal { submitter: name.clone(), successful: counts[0], failed: counts[1] };
        let sum = SubmitterTotal { submitter: String::new(), successful: counts[2], failed: counts[3] };
        let last = |name: &String| LastReport { domain: name.clone(), counts: true, received_at: Timestamp::UNIX_EPOCH };
        let sums = Sums {
            domains: totals(&names),
            all: Some(all(&totals(&names))),
            last: names.iter().map(last).collect(),
            verified: names.iter().map(submitter).chain([sum.clone()]).collect(),
            unverified: vec![sum],
        };
        let found = samples(&text(&sums, &InboxCounts::default(), NOW));
        prop_assert!(found.is_ok(), "{:?}", found);
    }
}

#[test]
fn a_hundred_thousand_domains_have_series_only_where_selected() {
    let own: BTreeSet<String> = (0..100_000).map(|n| format!("d{n}.example")).collect();
    let few: BTreeSet<String> = own.iter().take(MAX_DOMAINS).cloned().collect();
    let selected: BTreeSet<String> = ["d7.example", "not-ours.example"].map(str::to_owned).into();
    assert!(named(&own, &BTreeSet::new()).is_empty());
    assert_eq!(named(&own, &selected).len(), 1);
    assert_eq!(named(&own, &own).len(), MAX_DOMAINS);
    assert_eq!(named(&few, &BTreeSet::new()), few);
}

#[test]
fn submitters_beyond_the_largest_are_one() {
    let submitter =
        |name: &str, successful, failed| SubmitterTotal { submitter: name.into(), successful, failed };
    let sums = Sums {
        verified: vec![submitter("a.example", 9, 1), submitter("b.example", 5, 0), submitter("", 20, 4)],
        ..Sums::default()
    };
    let found = text(&sums, &InboxCounts::default(), NOW);
    for line in [
        "sternpost_received_submitter_sessions{submitter=\"a.example\",evidence=\"verified\",result=\"successful\"} 9",
        "sternpost_received_submitter_sessions{submitter=\"other\",evidence=\"verified\",result=\"successful\"} 6",
        "sternpost_received_submitter_sessions{submitter=\"other\",evidence=\"verified\",result=\"failed\"} 3",
    ] {
        assert!(found.contains(line), "{line}: {found}");
    }
    assert!(samples(&found).is_ok());
}

#[tokio::test]
async fn sessions_ages_and_arrivals_are_those_of_own_domains_at_most_a_minute_old() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
    let clock = Arc::new(ManualClock::new(NOW));
    let config =
        Config::parse("[[domain]]\nname = \"a.example\"\n[[domain]]\nname = \"b.example\"\n", None).unwrap();
    let metrics =
        ReceivedMetrics { counts: Arc::default(), ..ReceivedMetrics::new(&config, &store, clock.clone()) };
    let keep = async |domain: &str, id: &str, trust, failed| {
        let json = format!(
            r#"{{"organization-name":"O","date-range":{{"start-datetime":"2026-11-20T00:00:00Z","end-datetime":"2026-11-20T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{id}","policies":[{{"policy":{{"policy-type":"sts","policy-string":[],"policy-domain":"{domain}","mx-host":[]}},"summary":{{"total-successful-session-count":5,"total-failure-session-count":{failed}}}}}]}}"#
        );
        let new = NewReport {
            source: String::new(),
            about: None,
            submitter: "big.example".into(),
            signer: None,
            trust,
            arrival: Arrival::Imap,
            received_at: NOW - SignedDuration::from_secs(90),
            report: formats::report::Report::read(json.as_bytes()).unwrap().report,
            warnings: 0,
            packed: Vec::new(),
        };
        store.keep_report(&new).await.unwrap();
    };
    keep("a.example", "1", Trust::Verified, 2).await;
    keep("a.example", "2", Trust::Unverified, 0).await;
    keep("stranger.example", "3", Trust::Verified, 0).await;
    let report = ImportedReport { submitter: "x".into(), trust: Trust::Verified, kept: KeepOutcome::New };
    let outcome = InboxOutcome { reports: vec![report], dmarc: Vec::new(), quarantined: None };
    metrics.counts.count(Arrival::Imap, &outcome);
    let found = metrics.to_text().await;
    for line in [
        "sternpost_received_sessions{result=\"successful\"} 5",
        "sternpost_received_domain_sessions{domain=\"a.example\",result=\"failed\"} 2",
        "sternpost_received_domain_sessions{domain=\"a.example\",result=\"unverified\"} 5",
        "sternpost_received_last_report_age_seconds{domain=\"a.example\",evidence=\"verified\"} 90",
        "sternpost_received_submitter_sessions{submitter=\"big.example\",evidence=\"verified\",result=\"successful\"} 10",
        "sternpost_received_reports_total{way=\"imap\",trust=\"verified\"} 1",
        "sternpost_received_reports_total{way=\"smtp\",trust=\"failed\"} 0",
        "sternpost_inbox_left_alone_total{kind=\"dmarc\"} 0",
    ] {
        assert!(found.contains(line), "{line}: {found}");
    }
    assert!(!found.contains("stranger.example") && samples(&found).is_ok());
    keep("b.example", "4", Trust::Verified, 0).await;
    assert!(!metrics.to_text().await.contains("b.example"), "the sums are not read at each request");
    clock.set_by(61);
    let found = metrics.to_text().await;
    assert!(found.contains("{domain=\"b.example\",result=\"successful\"} 5"), "{found}");
    assert!(found.contains("age_seconds{domain=\"a.example\",evidence=\"verified\"} 151"), "{found}");
}
