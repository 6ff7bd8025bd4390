use super::catalog::Column;
use super::page::read;
use super::*;
use crate::policies::StoredPolicy;
use crate::reports::{Arrival, NewReport, Trust};
use crate::scratch::{Scratch, access, scratch};
use formats::report::Report;
use formats::{DomainName, Mode, PolicyId};
use jiff::Timestamp;
use std::path::Path;

/// An SQLite file with rows in tables of every kind.
async fn filled(path: &Path) {
    let store = Store::open(path, crate::Tenant::FIRST).await.unwrap();
    let name = |number: usize| DomainName::parse(&format!("d{number}.example")).unwrap();
    let policies: Vec<_> = (0..2500)
        .map(|number| {
            StoredPolicy {
                domain: name(number),
                record_id: PolicyId::parse("1").unwrap(),
                body: "version: STSv1\r\n".to_owned(),
                mode: Mode::Enforce,
                fetched_at: Timestamp::UNIX_EPOCH,
                expires_at: Timestamp::UNIX_EPOCH,
                refresh_at: Timestamp::UNIX_EPOCH,
                dane: String::new(),
                used_at: Timestamp::UNIX_EPOCH,
            }
            .into()
        })
        .collect();
    store.put_policies(&policies).await.unwrap();
    let reports: Vec<NewReport> = (0..70).map(report).collect();
    store.keep_reports(&reports).await.unwrap();
    store.put_hosted(&name(1), Some("P")).await.unwrap();
    let hour = Duration::from_secs(3600);
    store.acquire("apply", "somebody", Timestamp::UNIX_EPOCH, hour).await.unwrap();
    for text in [
        "INSERT INTO tally_record (day, domain, record) VALUES (1, 'é.example', 'x')",
        "INSERT INTO journal (domain, at, kind, text) VALUES ('a.example', 1, 'k', 't')",
    ] {
        // The columns of a table may differ in a later release; then another table is as good.
        let _ = sql(text).execute(&store).await;
    }
    store.close().await;
}

fn report(number: usize) -> NewReport {
    let text = format!(
        r#"{{"organization-name":"O","date-range":{{"start-datetime":"2026-11-23T00:00:00Z","end-datetime":"2026-11-23T23:59:59Z"}},"contact-info":"a@b.example","report-id":"{number}","policies":[{{"policy":{{"policy-type":"sts","policy-string":["version: STSv1"],"policy-domain":"a.example"}},"summary":{{"total-successful-session-count":{number},"total-failure-session-count":1}},"failure-details":[{{"result-type":"certificate-expired","failed-session-count":1,"receiving-mx-hostname":"mx.a.example"}}]}}]}}"#
    );
    NewReport {
        submitter: format!("s{number}.example"),
        signer: None,
        trust: Trust::Trusted,
        about: None,
        arrival: Arrival::Import,
        received_at: Timestamp::UNIX_EPOCH,
        source: String::new(),
        report: Report::read(text.as_bytes()).unwrap().report,
        warnings: 0,
        packed: vec![0, 1, 255],
    }
}

/// A source file, an empty target of the kind that the tests run on, and a file for the way back.
async fn places() -> (tempfile::TempDir, Location, Scratch, Location) {
    let dir = tempfile::tempdir().unwrap();
    let (source, back) = (dir.path().join("source.db"), dir.path().join("back.db"));
    filled(&source).await;
    let (target, store) = scratch().await;
    store.close().await;
    (dir, Location::Sqlite(source), target, Location::Sqlite(back))
}

async fn copy(from: &Location, to: &Location, resumes: bool) -> Result<Vec<CopiedTable>, CopyError> {
    Store::copy(from, to, &access(), CopyOptions { resumes }, &mut |_, _| ()).await
}

/// All rows of a database, as text.
async fn dump(location: &Location) -> Vec<(String, Vec<String>)> {
    let store = Store::connect(location, &access(), crate::Tenant::FIRST).await.unwrap();
    let mut all = Vec::new();
    for table in catalog::tables(&store).await.unwrap() {
        let columns: Vec<&Column> = table.columns.iter().collect();
        let query = format!("SELECT {} FROM {}", table.column_names(), table.name);
        let rows = read(&store, query, Vec::new(), &columns).await.unwrap();
        let mut rows: Vec<String> = rows
            .iter()
            .map(|row| {
                let mut named: Vec<String> = columns
                    .iter()
                    .zip(row)
                    .map(|(column, value)| format!("{}={value:?}", column.name))
                    .collect();
                named.sort();
                named.join(" ")
            })
            .collect();
        rows.sort();
        all.push((table.name, rows));
    }
    all.sort();
    store.close().await;
    all
}

#[tokio::test]
async fn a_copy_there_and_back_has_all_rows_and_goes_on_with_the_numbers() {
    let (_dir, source, target, back) = places().await;
    let copied = copy(&source, &target.location, false).await.unwrap();
    let rows = |name: &str| copied.iter().find(|table| table.name == name).unwrap().rows;
    assert_eq!((rows("policy"), rows("report"), rows("failure"), rows("hosted")), (2500, 70, 70, 1));
    let original = dump(&source).await;
    assert_eq!(dump(&target.location).await, original);
    copy(&target.location, &back, false).await.unwrap();
    assert_eq!(dump(&back).await, original);
    // New rows get numbers after the copied ones, and a copy of a report is still a copy.
    let store = target.open().await;
    assert_eq!(store.hosting_versions().await.unwrap(), (1, 0));
    store.keep_reports(&[report(7), report(70)]).await.unwrap();
    assert_eq!(store.report_count().await.unwrap(), 71);
    assert_eq!(store.lease_of("apply").await.unwrap(), None);
    store.close().await;
}

#[tokio::test]
async fn an_interrupted_copy_goes_on_and_its_target_is_not_used_before() {
    let (_dir, source, target, _) = places().await;
    let mut steps = 0;
    {
        // Dropped after some transactions, as by a signal.
        let access = access();
        let (interrupt, interrupted) = tokio::sync::oneshot::channel();
        let mut interrupt = Some(interrupt);
        let mut count = |table: &str, _: u64| {
            steps += 1;
            if table == "policy"
                && let Some(interrupt) = interrupt.take()
            {
                let _ = interrupt.send(());
            }
        };
        let run = Store::copy(&source, &target.location, &access, CopyOptions::default(), &mut count);
        tokio::select! {
            biased;
            _ = interrupted => {}
            done = run => panic!("{done:?}"),
        }
    }
    assert!(steps > 1);
    let error =
        Store::connect(&target.location, &access(), crate::Tenant::FIRST).await.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Unfinished { .. }), "{error}");
    // The connections of the dropped copy end in threads of their own; those of a process would have ended with it.
    let error = loop {
        match copy(&source, &target.location, false).await.unwrap_err() {
            CopyError::InUse(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            error => break error,
        }
    };
    assert!(matches!(error, CopyError::Interrupted { .. }), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other.db");
    Store::open(&other, crate::Tenant::FIRST).await.unwrap().close().await;
    let error = copy(&Location::Sqlite(other), &target.location, true).await.unwrap_err();
    assert!(matches!(error, CopyError::OtherSource { .. }), "{error}");
    copy(&source, &target.location, true).await.unwrap();
    assert_eq!(dump(&target.location).await, dump(&source).await);
}

#[tokio::test]
async fn a_target_with_rows_or_in_use_and_a_source_that_does_not_exist_are_refused() {
    let (dir, source, target, back) = places().await;
    let store = target.open().await;
    // Behind a pooler it can't be known.
    if !is_pooled(&target.location) {
        let error = copy(&source, &target.location, false).await.unwrap_err();
        assert!(matches!(error, CopyError::InUse(_)), "{error}");
        let error = copy(&target.location, &back, false).await.unwrap_err();
        assert!(matches!(error, CopyError::InUse(_)), "{error}");
    }
    sql("INSERT INTO domain (tenant, name, spec) VALUES (0, 'a.example', '1')")
        .execute(&store)
        .await
        .unwrap();
    store.close().await;
    let error = copy(&source, &target.location, false).await.unwrap_err();
    assert!(matches!(&error, CopyError::NotEmpty { table, .. } if table == "domain"), "{error}");
    let missing = dir.path().join("missing.db");
    let error = copy(&Location::Sqlite(missing.clone()), &target.location, false).await.unwrap_err();
    assert!(matches!(error, CopyError::NoSource(_)) && !missing.exists(), "{error}");
    assert!(matches!(copy(&source, &source, false).await, Err(CopyError::Same(_))));
}

#[tokio::test]
async fn each_table_is_copied_after_those_that_it_refers_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db"), crate::Tenant::FIRST).await.unwrap();
    let tables = catalog::tables(&store).await.unwrap();
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    assert!(names.len() > 30 && !names.contains(&"lease") && !names.contains(&"node"), "{names:?}");
    for (at, table) in tables.iter().enumerate() {
        let references = sql("SELECT \"table\" FROM pragma_foreign_key_list($1)").bind(&table.name);
        for (parent,) in references.fetch_all::<(String,)>(&store).await.unwrap() {
            let place = names.iter().position(|name| *name == parent).unwrap();
            assert!(place < at, "{} refers to {parent}, which is copied later", table.name);
        }
        assert!(!table.key.is_empty() || table.parent().is_some(), "{} has no primary key", table.name);
    }
}

#[tokio::test]
async fn a_page_has_few_bytes_or_one_row_however_large_the_messages_are() {
    let (target, store) = scratch().await;
    let packed = |mebibytes: usize, number| NewReport { packed: vec![7; mebibytes << 20], ..report(number) };
    let sizes = [1, 1, 1, 3, 9, 1];
    for (number, size) in sizes.into_iter().enumerate() {
        store.keep_reports(&[packed(size, number)]).await.unwrap();
    }
    let tables = catalog::tables(&store).await.unwrap();
    let table = tables.iter().find(|table| table.name == "report").unwrap();
    let (parts, mut last, mut rows) = (parts_of(table, &tables), None, Vec::new());
    while let Some(page) = next_page(&store, table, &parts, last.as_deref()).await.unwrap() {
        rows.push((page.rows.len(), page.of_parts.iter().map(Vec::len).collect::<Vec<_>>()));
        last = Some(page.end);
    }
    let page = |rows| (rows, vec![rows, rows]);
    assert_eq!(rows, [page(3), page(1), page(1), page(1)]);
    store.close().await;
    drop(target);
}

#[tokio::test]
async fn a_row_that_differs_is_found_although_all_numbers_of_rows_are_equal() {
    let (_dir, source, target, _) = places().await;
    copy(&source, &target.location, false).await.unwrap();
    let copied = async || Copy {
        source: Store::attach(&source, &access(), crate::Tenant::FIRST).await.unwrap(),
        target: Store::attach(&target.location, &access(), crate::Tenant::FIRST).await.unwrap(),
        from: &source,
        to: &target.location,
    };
    for (change, back, table) in [
        (
            "UPDATE policy SET body = 'x' WHERE domain = 'd7.example'",
            "UPDATE policy SET body = $1 WHERE domain = 'd7.example'",
            "policy",
        ),
        (
            "UPDATE failure SET sessions = 2 WHERE report = 3",
            "UPDATE failure SET sessions = 1 WHERE report = 3",
            "failure",
        ),
    ] {
        let pair = copied().await;
        let tables = catalog::tables(&pair.source).await.unwrap();
        pair.compare(&tables).await.unwrap();
        sql(change).execute(&pair.target).await.unwrap();
        let error = pair.compare(&tables).await.unwrap_err();
        assert!(matches!(&error, CopyError::Contents(found) if found == table), "{error}");
        let back = if back.contains('$') { sql(back).bind("version: STSv1\r\n") } else { sql(back) };
        back.execute(&pair.target).await.unwrap();
        pair.source.close().await;
        pair.target.close().await;
    }
    // A program that ended the copy by itself may use the target.
    let pair = copied().await;
    let tables = catalog::tables(&pair.source).await.unwrap();
    let error = pair.end(&tables, &[]).await.unwrap_err();
    assert!(matches!(error, CopyError::InUse(_)), "{error}");
    // A server that was started on the source meanwhile is noticed.
    let server = Store::attach(&source, &access(), crate::Tenant::FIRST).await.unwrap();
    sql("UPDATE version SET value = value").execute(&server).await.unwrap();
    let error = pair.check_unused().await.unwrap_err();
    assert!(matches!(error, CopyError::InUse(_)), "{error}");
}
