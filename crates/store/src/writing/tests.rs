use super::{Counter, Tries};
use crate::policies::StoredPolicy;
use crate::query::sql;
use crate::reports::{Arrival, NewReport, Trust};
use crate::{Store, StoreError};
use formats::report::Report;
use formats::{DomainName, Mode, PolicyId};
use jiff::Timestamp;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_blocks_no_later_one() {
    let (_dir, store) = crate::scratch().await;
    let count =
        async || sql("SELECT COUNT(*) FROM reported_day").fetch_one::<(i64,)>(&store).await.unwrap().0;
    let insert = "INSERT INTO reported_day (day, is_built) VALUES (1, 1)";
    for _ in 0..10 {
        let mut writing = store.writing().await.unwrap();
        sql(insert).execute(&mut writing).await.unwrap();
    }
    assert_eq!(count().await, 0);
    for _ in 0..3 {
        let mut writing = store.writing().await.unwrap();
        sql(insert).execute(&mut writing).await.unwrap();
        writing.rollback().await.unwrap();
    }
    assert_eq!(count().await, 0);
    let mut writing = store.writing().await.unwrap();
    sql(insert).execute(&mut writing).await.unwrap();
    writing.commit().await.unwrap();
    assert_eq!(count().await, 1);
}

#[tokio::test]
async fn a_transaction_that_sqlite_rolled_back_fails_and_blocks_no_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db"), crate::Tenant::FIRST).await.unwrap();
    for _ in 0..10 {
        // SQLite rolls back by itself when the disk is full.
        let mut writing = store.writing().await.unwrap();
        sql("ROLLBACK").execute(&mut writing).await.unwrap();
        assert!(writing.commit().await.is_err());
    }
    store.writing().await.unwrap().commit().await.unwrap();
}

fn policy() -> StoredPolicy {
    let at = Timestamp::UNIX_EPOCH;
    StoredPolicy {
        domain: DomainName::parse("a.example").unwrap(),
        record_id: PolicyId::parse("1").unwrap(),
        body: String::new(),
        mode: Mode::Enforce,
        fetched_at: at,
        expires_at: at,
        refresh_at: at,
        dane: String::new(),
        used_at: at,
    }
}

fn reports(from: usize, most: usize) -> Vec<NewReport> {
    let report = |number: usize| {
        NewReport {
        submitter: format!("s{number}.example"),
        signer: None,
        trust: Trust::Trusted,
        about: None,
        arrival: Arrival::Import,
        received_at: Timestamp::UNIX_EPOCH,
        source: String::new(),
        report: Report::read(
            format!(
                r#"{{"organization-name":"O","date-range":{{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{number}","policies":[]}}"#
            )
            .as_bytes(),
        )
        .unwrap()
        .report,
        warnings: 0,
        packed: vec![1],
    }
    };
    (from..from + most).map(report).collect()
}

type Write<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Begins all writes in this order, while another transaction holds the connection, then lets them run. Returns the
/// names of the writes in the order in which they end.
async fn order_of_ends(store: &Store, writes: Vec<(&str, Write<'_>)>) -> Vec<String> {
    let before = store.writing().await.unwrap();
    let ended = Mutex::new(Vec::new());
    let mut running: Vec<Write<'_>> = Vec::new();
    for (name, write) in writes {
        let ended = &ended;
        running.push(Box::pin(async move {
            write.await;
            ended.lock().unwrap().push(name.to_owned());
        }));
    }
    let poll_all = |cx: &mut std::task::Context<'_>, running: &mut Vec<Write<'_>>| {
        running.retain_mut(|write| write.as_mut().poll(cx).is_pending());
        running.len()
    };
    // Each write now waits for the connection, in this order.
    let waiting = std::future::poll_fn(|cx| Poll::Ready(poll_all(cx, &mut running))).await;
    assert_eq!(waiting, running.len(), "{:?} did not wait", ended.lock().unwrap());
    before.commit().await.unwrap();
    std::future::poll_fn(|cx| if poll_all(cx, &mut running) == 0 { Poll::Ready(()) } else { Poll::Pending })
        .await;
    drop(running);
    ended.into_inner().unwrap()
}

async fn file() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db"), crate::Tenant::FIRST).await.unwrap();
    (dir, store)
}

#[tokio::test]
async fn a_policy_waits_only_for_the_imports_before_it() {
    let (_dir, store) = file().await;
    let policies = [policy().into()];
    let imports: Vec<_> = (0..40).map(|number| reports(number * 10, 10)).collect();
    let mut writes: Vec<(&str, Write<'_>)> = Vec::new();
    for (at, reports) in imports.iter().enumerate() {
        if at == 3 {
            writes.push(("policy", Box::pin(async { drop(store.put_policies(&policies).await.unwrap()) })));
        }
        writes.push(("import", Box::pin(async { drop(store.keep_reports(reports).await.unwrap()) })));
    }
    let ended = order_of_ends(&store, writes).await;
    assert_eq!(ended.len(), 41);
    assert_eq!(ended.iter().position(|name| name == "policy"), Some(3));
}

#[tokio::test]
async fn a_large_import_lets_a_policy_in_between_its_transactions() {
    let (_dir, store) = file().await;
    let (policies, large) = ([policy().into()], reports(0, 2_400));
    let writes: Vec<(&str, Write<'_>)> = vec![
        ("import", Box::pin(async { drop(store.keep_reports(&large).await.unwrap()) })),
        ("policy", Box::pin(async { drop(store.put_policies(&policies).await.unwrap()) })),
    ];
    assert_eq!(order_of_ends(&store, writes).await, ["policy", "import"]);
    assert_eq!(store.report_count().await.unwrap(), 2_400);
}

#[tokio::test]
async fn reads_do_not_wait_for_a_write_and_see_it_once_it_is_committed() {
    let (_dir, store) = crate::scratch().await;
    let domain = DomainName::parse("a.example").unwrap();
    let mut writing = store.writing().await.unwrap();
    sql("INSERT INTO domain (tenant, name, spec) VALUES (0, 'a.example', '1')")
        .execute(&mut writing)
        .await
        .unwrap();
    assert_eq!(store.domain::<u8>(&domain).await.unwrap(), None);
    writing.commit().await.unwrap();
    assert_eq!(store.domain::<u8>(&domain).await.unwrap(), Some(1));
}

#[tokio::test]
async fn concurrent_changes_get_versions_of_their_own() {
    let (_dir, store) = crate::scratch().await;
    let changes: Vec<_> = (0..30)
        .map(|number| {
            let (store, domain) = (store.clone(), DomainName::parse(&format!("d{number}.example")).unwrap());
            tokio::spawn(async move { store.put_hosted(&domain, Some("P")).await })
        })
        .collect();
    for change in changes {
        change.await.unwrap().unwrap();
    }
    let versions: Vec<i64> =
        store.hosted_after(0, 100).await.unwrap().into_iter().map(|(_, version)| version).collect();
    assert_eq!(versions, (1..=30).collect::<Vec<_>>());
    assert_eq!(store.hosting_versions().await.unwrap(), (30, 0));
}

#[tokio::test]
async fn a_change_that_is_undone_uses_no_version() {
    let (_dir, store) = crate::scratch().await;
    let mut writing = store.writing().await.unwrap();
    assert_eq!(writing.increase(Counter::Hosted, 1).await.unwrap(), 1);
    writing.rollback().await.unwrap();
    assert_eq!(store.counter(Counter::Hosted).await.unwrap(), 0);
}

#[test]
fn a_transaction_is_tried_three_times_after_conflicts_and_once_after_other_errors() {
    let conflict = || Err::<(), _>(StoreError::Conflict(sqlx::Error::RowNotFound));
    let mut tries = Tries::default();
    assert_eq!([(); 3].map(|()| tries.again(&conflict())), [true, true, false]);
    assert!(!Tries::default().again(&Err::<(), _>(StoreError::Query(sqlx::Error::RowNotFound))));
    assert!(!Tries::default().again(&Ok(())));
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_deadlock_is_a_conflict_for_one_transaction_and_the_other_goes_on() {
    // SQLite has one writer, so that two of them never wait for each other.
    if std::env::var_os("STERNPOST_TEST_POSTGRES").is_none() {
        return;
    }
    let (_dir, store) = crate::scratch().await;
    let (mut one, mut other) = (store.writing().await.unwrap(), store.writing().await.unwrap());
    one.increase(Counter::Hosted, 1).await.unwrap();
    other.increase(Counter::Certificate, 1).await.unwrap();
    let (one, other) = tokio::join!(async { one.increase(Counter::Certificate, 1).await }, async {
        other.increase(Counter::Hosted, 1).await
    });
    let conflicts =
        [one, other].iter().filter(|done| matches!(done, Err(error) if error.is_conflict())).count();
    assert_eq!(conflicts, 1);
}
