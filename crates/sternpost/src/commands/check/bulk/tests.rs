use super::*;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

async fn examined(domain: DomainName) -> Examination {
    assert_ne!(domain.as_str(), "bad.example", "a fault");
    let text = serde_json::json!(domain.as_str());
    panic!("no examination for {text}")
}

/// Checks that panic are results, so that no name of a list is lost.
#[tokio::test]
async fn a_name_whose_check_panics_is_undetermined_with_the_reason() {
    let ((_, lines), (checks, all_checks)) = (channel(1), channel(8));
    for domain in ["bad.example", "other.example"] {
        checks.send(ToCheck { domain: name(domain), first_pass: None }).await.unwrap();
    }
    drop(checks);
    let results: Vec<LineResult> = checked((lines, all_checks), examined, 4).collect().await;
    assert_eq!(results.len(), 2);
    let mut tally = Tally::new(None);
    for result in &results {
        let written = line(result).unwrap();
        assert!(written.contains("a fault of this program: "), "{written}");
        assert!(Reader::default().read(written.as_bytes()).unwrap().is_undetermined());
        assert_eq!(exit_code(result, Exit::Fine, |_| Exit::Fine), Exit::Unknown);
        count_result(result, &mut tally);
    }
    assert!(tally.json().contains("\"undetermined\":2"), "{}", tally.json());
}
