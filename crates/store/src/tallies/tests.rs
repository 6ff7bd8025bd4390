use super::*;
use formats::limits::TALLY_FAILURES;

fn entry(domain: &str, successful: u64, failures: &[(&str, u64)]) -> PolicyReport {
    let details = failures
        .iter()
        .map(|(kind, count)| FailureDetail {
            result_type: ResultType::parse(kind),
            sending_mta_ip: None,
            receiving_mx_hostname: Some("mx1".into()),
            receiving_mx_helo: None,
            receiving_ip: "192.0.2.1".parse().ok(),
            failed_session_count: *count,
            additional_information: None,
            failure_reason_code: None,
        })
        .collect();
    PolicyReport {
        policy_type: PolicyType::Sts,
        policy_string: vec!["version: STSv1".into()],
        policy_domain: DomainName::parse(domain).ok(),
        mx_host: vec!["mx1".into()],
        successful,
        failed: failures.iter().map(|(_, count)| count).sum(),
        details,
    }
}

#[tokio::test]
async fn counts_of_a_day_are_summed_by_policy_and_failure() {
    let (_dir, store) = crate::scratch().await;
    let day = Timestamp::from_second(86_400).unwrap();
    store
        .add_to_tally(
            day,
            &[entry("a.example", 2, &[("certificate-expired", 1)]), entry("b.example", 1, &[])],
        )
        .await
        .unwrap();
    store
        .add_to_tally(day, &[entry("a.example", 3, &[("certificate-expired", 4), ("validation-failure", 1)])])
        .await
        .unwrap();
    store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 9, &[])]).await.unwrap();
    let tally = store.tally(day).await.unwrap();
    assert_eq!(
        tally.into_iter().flat_map(|tally| tally.entries).collect::<Vec<_>>(),
        [
            entry("a.example", 5, &[("certificate-expired", 5), ("validation-failure", 1)]),
            entry("b.example", 1, &[])
        ]
    );
}

#[tokio::test]
async fn a_batch_is_added_completely_or_not_at_all() {
    let (_dir, store) = crate::scratch().await;
    let mut broken = entry("b.example", 1, &[]);
    broken.policy_domain = None;
    assert!(store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 1, &[]), broken]).await.is_err());
    assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap(), []);
}

#[tokio::test]
async fn too_many_distinct_failures_are_summed_and_none_is_lost() {
    let (_dir, store) = crate::scratch().await;
    let many = |from: usize, to: usize| {
        let mut entry = entry("a.example", 0, &[("validation-failure", 1)]);
        let detail = entry.details.remove(0);
        entry.failed = (to - from) as u64;
        entry.details = (from..to)
            .map(|n| FailureDetail { receiving_mx_helo: Some(format!("h{n}")), ..detail.clone() })
            .collect();
        entry
    };
    let day = Timestamp::UNIX_EPOCH;
    store.add_to_tally(day, &[many(0, TALLY_FAILURES - 10)]).await.unwrap();
    store.add_to_tally(day, &[many(TALLY_FAILURES - 10, TALLY_FAILURES + 500)]).await.unwrap();
    store.add_to_tally(day, &[many(TALLY_FAILURES + 500, TALLY_FAILURES + 700)]).await.unwrap();
    let tally = store.tally(day).await.unwrap();
    let tally = &tally[0].entries;
    let details = &tally[0].details;
    assert_eq!(details.len(), TALLY_FAILURES + 1);
    assert_eq!(details.iter().map(|d| d.failed_session_count).sum::<u64>(), tally[0].failed);
    assert_eq!(details[0].failed_session_count, 700);
    assert_eq!(details[0].additional_information.as_deref(), Some("further failures, summed up"));
}

#[tokio::test]
async fn a_failure_that_is_stored_takes_no_room() {
    let (_dir, store) = crate::scratch().await;
    let many = |from: usize, to: usize| {
        let mut entry = entry("a.example", 0, &[("validation-failure", 1)]);
        let detail = entry.details.remove(0);
        let details =
            (from..to).map(|n| FailureDetail { receiving_mx_helo: Some(format!("h{n}")), ..detail.clone() });
        entry.details = details.collect();
        entry
    };
    let day = Timestamp::UNIX_EPOCH;
    let numbers = async || {
        let tally = store.tally(day).await.unwrap();
        let details = &tally[0].entries[0].details;
        let mut numbers: Vec<u64> = details.iter().map(|detail| detail.failed_session_count).collect();
        numbers.sort_unstable();
        numbers
    };
    for _ in 0..2 {
        store.add_to_tally(day, &[many(0, TALLY_FAILURES - 10)]).await.unwrap();
    }
    assert_eq!(numbers().await, vec![2; TALLY_FAILURES - 10]);
    // Ten of these 20 are new, and have room.
    store.add_to_tally(day, &[many(TALLY_FAILURES - 20, TALLY_FAILURES)]).await.unwrap();
    assert_eq!(numbers().await, [vec![1; 10], vec![2; TALLY_FAILURES - 20], vec![3; 10]].concat());
    store.add_to_tally(day, &[many(TALLY_FAILURES - 10, TALLY_FAILURES + 1)]).await.unwrap();
    assert_eq!(numbers().await, [vec![1], vec![2; TALLY_FAILURES - 10], vec![3; 10]].concat());
}

#[tokio::test]
async fn domains_are_read_in_pages_or_alone_and_old_days_are_deleted() {
    let (_dir, store) = crate::scratch().await;
    let day = Timestamp::from_second(86_400).unwrap();
    let names = ["a.example", "aa.example", "b.example", "b.examples", "c.example"];
    let added = |name: &str| TallyIncrement {
        entries: vec![entry(name, 1, &[("certificate-expired", 1)])],
        record: Some(format!("record of {name}")),
    };
    let tally: DayTally = names.iter().map(|name| (DomainName::parse(name).unwrap(), added(name))).collect();
    store.add_tallies(&BTreeMap::from([(day, tally)])).await.unwrap();
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let some = store.tally_after(day, &after, 2).await.unwrap();
        let Some(last) = some.last() else { break };
        after = last.domain.to_string();
        seen.extend(some.into_iter().map(|tally| tally.domain.to_string()));
    }
    assert_eq!(seen, names);
    for name in names {
        let name = DomainName::parse(name).unwrap();
        let alone = store.tally_of(day, &name).await.unwrap();
        assert_eq!(alone.len(), 1, "{name}");
        assert_eq!(alone[0].policy_domain.as_ref(), Some(&name));
        let record = store.tallied_record(day, &name).await.unwrap();
        assert_eq!(record, Some(format!("record of {name}")));
    }
    assert_eq!(store.tally_sums(day).await.unwrap(), (5, 5));
    let next = Timestamp::from_second(2 * 86_400).unwrap();
    assert_eq!(store.unreported_days(next).await.unwrap(), [day]);
    assert_eq!(store.unreported_days(day).await.unwrap(), []);
    store.delete_tallies(next).await.unwrap();
    assert_eq!(store.tally(day).await.unwrap(), []);
    let kinds: (i64,) = sql("SELECT COUNT(*) FROM tally_failure").fetch_one(&store).await.unwrap();
    assert_eq!(kinds, (0,));
}

#[tokio::test]
async fn a_dane_policy_belongs_to_an_mx_host_and_is_reported_to_the_recipient_domain() {
    let (_dir, store) = crate::scratch().await;
    let mut dane = entry("mx.host.example", 1, &[]);
    dane.policy_type = PolicyType::Tlsa;
    let domain = DomainName::parse("a.example").unwrap();
    let added = TallyIncrement { entries: vec![dane.clone(), entry("a.example", 2, &[])], record: None };
    let days = BTreeMap::from([(Timestamp::UNIX_EPOCH, DayTally::from([(domain.clone(), added)]))]);
    assert_eq!(store.add_tallies(&days).await.unwrap(), []);
    let tally = store.tally(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((tally.len(), &tally[0].domain, tally[0].entries.len()), (1, &domain, 2));
    assert!(tally[0].entries.contains(&dane));
    store.close_day(Timestamp::UNIX_EPOCH, false).await.unwrap();
    assert_eq!(store.add_tallies(&days).await.unwrap(), [Timestamp::UNIX_EPOCH]);
    assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap(), tally);
}

#[tokio::test]
async fn rpt_23_separate_policies_of_a_domain_stay_separate_entries() {
    let (_dir, store) = crate::scratch().await;
    let mut changed = entry("a.example", 1, &[]);
    changed.policy_string = vec!["version: STSv1".into(), "mode: none".into()];
    store.add_to_tally(Timestamp::UNIX_EPOCH, &[entry("a.example", 1, &[]), changed]).await.unwrap();
    assert_eq!(store.tally(Timestamp::UNIX_EPOCH).await.unwrap()[0].entries.len(), 2);
}
