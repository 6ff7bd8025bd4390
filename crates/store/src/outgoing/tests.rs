use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn report(domain: &str, due: i64) -> NewOutgoing {
    NewOutgoing {
        day: at(86_400),
        domain: DomainName::parse(domain).unwrap(),
        report_id: format!("id of {domain}"),
        packed: vec![1, 2, 3],
        successful: 4,
        failed: 5,
        due: at(due),
    }
}

#[tokio::test]
async fn a_report_is_queued_once_and_sent_when_due() {
    let (_dir, store) = crate::scratch().await;
    store.put_outgoing(&[report("a.example", 100), report("b.example", 50)]).await.unwrap();
    let other = NewOutgoing { packed: vec![9], due: at(1), ..report("a.example", 0) };
    store.put_outgoing(&[other]).await.unwrap();
    assert_eq!(store.claim_outgoing(at(49), at(400), 10).await.unwrap(), []);
    let due = store.claim_outgoing(at(100), at(400), 1).await.unwrap();
    assert_eq!(due.iter().map(|row| row.domain.as_str()).collect::<Vec<_>>(), ["b.example"], "longest due");
    let rest = store.claim_outgoing(at(100), at(400), 10).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.domain.as_str()).collect::<Vec<_>>(), ["a.example"]);
    let due = [due, rest].concat();
    assert_eq!(store.outgoing_text(due[1].id).await.unwrap(), Some(vec![1, 2, 3]));
    let mut sent = due[0].clone();
    store.put_target(&sent, "mailto:x@b.example", Reply::Failed, at(100), "busy").await.unwrap();
    store.put_target(&sent, "mailto:x@b.example", Reply::Accepted, at(200), "250").await.unwrap();
    (sent.state, sent.tries, sent.first_try, sent.outcome_text) =
        (DeliveryState::Sent, 2, Some(at(100)), "ok".into());
    assert!(store.update_outgoing(&sent).await.unwrap());
    assert_eq!(store.claim_outgoing(at(1000), at(2000), 10).await.unwrap().len(), 1);
    let filter = OutgoingFilter { domain: Some(sent.domain.clone()), most: 10, ..OutgoingFilter::default() };
    assert_eq!(store.outgoing(&filter).await.unwrap(), [sent.clone()]);
    let targets = store.outgoing_targets(sent.id).await.unwrap();
    assert_eq!(
        (targets[0].reply, targets[0].tries, targets[0].reply_text.as_str()),
        (Reply::Accepted, 2, "250")
    );
    assert_eq!(
        store.outgoing_counts().await.unwrap(),
        [(DeliveryState::Sent, 1), (DeliveryState::Waiting, 1)]
    );
    store.requeue(sent.id, at(300)).await.unwrap();
    assert_eq!(store.outgoing_targets(sent.id).await.unwrap(), []);
    assert_eq!(store.claim_outgoing(at(300), at(900), 10).await.unwrap().len(), 1);
    store.delete_outgoing(at(86_401)).await.unwrap();
    assert_eq!(store.outgoing(&OutgoingFilter { most: 9, ..OutgoingFilter::default() }).await.unwrap(), []);
}

#[tokio::test]
async fn a_claim_is_over_at_its_time_and_what_comes_late_changes_nothing_but_an_acceptance() {
    let (_dir, store) = crate::scratch().await;
    store.put_outgoing(&[report("a.example", 50)]).await.unwrap();
    let slow = store.claim_outgoing(at(50), at(100), 9).await.unwrap().remove(0);
    assert!(store.hold_outgoing(&slow, at(200)).await.unwrap());
    assert_eq!(store.claim_outgoing(at(199), at(300), 9).await.unwrap(), []);
    let next = store.claim_outgoing(at(200), at(300), 9).await.unwrap().remove(0);
    // The slow one wakes up.
    assert!(!store.hold_outgoing(&slow, at(900)).await.unwrap());
    store.put_target(&next, "x", Reply::Refused, at(201), "no").await.unwrap();
    store.put_target(&slow, "x", Reply::Failed, at(202), "late").await.unwrap();
    store.put_target(&slow, "y", Reply::Accepted, at(202), "late").await.unwrap();
    let given_up = Outgoing { state: DeliveryState::GivenUp, ..slow.clone() };
    assert!(!store.update_outgoing(&given_up).await.unwrap());
    let targets = store.outgoing_targets(slow.id).await.unwrap();
    let replies: Vec<_> = targets.iter().map(|target| (target.target.as_str(), target.reply)).collect();
    assert_eq!(replies, [("x", Reply::Refused), ("y", Reply::Accepted)]);
    // The operator queues it again while it is delivered.
    store.requeue(next.id, at(210)).await.unwrap();
    assert!(!store.update_outgoing(&Outgoing { state: DeliveryState::Sent, ..next }).await.unwrap());
    assert_eq!(store.claim_outgoing(at(210), at(900), 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_report_is_sent_after_a_clock_that_was_a_year_ahead_is_set_right() {
    let (_dir, store) = crate::scratch().await;
    let year = 365 * 86_400;
    store.put_outgoing(&[report("new.example", year), report("retried.example", year)]).await.unwrap();
    let claimed = store.claim_outgoing(at(year), at(year + 900), 9).await.unwrap();
    let (due, first_try) = (at(year + 14_400), Some(at(year)));
    for report in claimed.into_iter().filter(|report| report.domain.as_str() == "retried.example") {
        assert!(store.update_outgoing(&Outgoing { due, first_try, tries: 3, ..report }).await.unwrap());
    }
    // One waits for as long as the rules allow.
    store.put_outgoing(&[report("later.example", 100_000)]).await.unwrap();
    let now = store.claim_outgoing(at(900), at(1800), 9).await.unwrap();
    let names: Vec<&str> = now.iter().map(|report| report.domain.as_str()).collect();
    assert_eq!(names, ["new.example", "retried.example"]);
    assert!(now.iter().all(|report| report.first_try.is_none()), "the day of retries begins anew");
    assert_eq!(store.claim_outgoing(at(1799), at(2700), 9).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_processes_claim_each_report_once() {
    let (scratch, store) = crate::scratch().await;
    let reports: Vec<_> = (0..300).map(|number| report(&format!("d{number}.example"), number)).collect();
    store.put_outgoing(&reports).await.unwrap();
    let mut processes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = scratch.open().await;
        processes.spawn(async move {
            let mut claimed = Vec::new();
            loop {
                match store.claim_outgoing(at(500), at(900), 7).await.unwrap() {
                    none if none.is_empty() => return claimed,
                    some => claimed.extend(some.into_iter().map(|report| (report.id, report.claim))),
                }
            }
        });
    }
    let mut all: Vec<_> = processes.join_all().await.concat();
    all.sort_unstable();
    all.dedup_by_key(|(id, _)| *id);
    // None twice. One that was locked by a process that ended before may be left for the next round.
    assert!(all.iter().all(|(_, claim)| *claim == 1), "{all:?}");
    let left = store.claim_outgoing(at(500), at(900), 500).await.unwrap();
    assert_eq!((all.len() + left.len(), left.iter().all(|report| report.claim == 1)), (300, true));
}

#[tokio::test]
async fn a_day_whose_reports_are_built_stays_so_when_another_process_closes_it() {
    let (_dir, store) = crate::scratch().await;
    let day = at(86_400);
    let entry = formats::report::PolicyReport {
        policy_type: formats::result_type::PolicyType::NoPolicyFound,
        policy_string: vec![],
        policy_domain: Some(DomainName::parse("a.example").unwrap()),
        mx_host: vec![],
        successful: 1,
        failed: 0,
        details: vec![],
    };
    store.add_to_tally(day, &[entry]).await.unwrap();
    store.close_day(day, false).await.unwrap();
    assert_eq!(store.unreported_days(at(900_000)).await.unwrap(), [day]);
    assert_eq!(store.put_outgoing(&[report("a.example", 5)]).await.unwrap(), 1);
    store.close_day(day, true).await.unwrap();
    store.close_day(day, false).await.unwrap();
    assert_eq!(store.unreported_days(at(900_000)).await.unwrap(), []);
    assert_eq!(store.put_outgoing(&[report("a.example", 7)]).await.unwrap(), 0);
}
