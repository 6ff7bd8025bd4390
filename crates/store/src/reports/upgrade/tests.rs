use super::*;
use crate::reports::{Arrival, NewQuarantined, Quota, Search};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use std::path::Path;

fn at(day: i64) -> Timestamp {
    Timestamp::from_second(day * 86_400).unwrap()
}

/// The items that the old store quarantined, each of 100,000 bytes.
const OLD_ITEMS: i64 = 200;
/// Its reports, each of 40,000 bytes; every second one is signed.
const OLD_REPORTS: i64 = 250;
const MONTH: SignedDuration = SignedDuration::from_hours(24 * 30);

/// A store of the version before the limits, all of it received on the first day. Returns the size of its file.
async fn old_store(path: &Path) -> u64 {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    crate::migrations::sqlite_before(10).run(&pool).await.unwrap();
    for statement in [
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {OLD_ITEMS})
             INSERT INTO quarantine (tenant, received_at, way, reason, digest, raw)
             SELECT 0, 86400, 0, 'r', i, zeroblob(100000) FROM n"
        ),
        "INSERT INTO name (id, text) VALUES (1, 'a.example'), (2, 'signer.example')".to_owned(),
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {OLD_REPORTS})
             INSERT INTO report (id, tenant, submitter, report_id, range_start, range_end, organization, trust, signer,
                way, received_at, warnings, digest, identity, packed)
             SELECT i, 0, 1, 'r' || i, 86400, 172799, 1, CASE i % 2 WHEN 1 THEN 3 ELSE 1 END,
                CASE i % 2 WHEN 1 THEN 2 END, 0, 86400, 0, i, i, zeroblob(40000) FROM n"
        ),
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {OLD_REPORTS})
             INSERT INTO outcome (tenant, domain, day, report, days, kind, successful, failed)
             SELECT 0, 1, 86400, i, 1, 1, 1, 0 FROM n"
        ),
        format!("UPDATE version SET value = {OLD_REPORTS} WHERE name IN ('report id', 'report count')"),
        "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
    pool.close().await;
    std::fs::metadata(path).unwrap().len()
}

async fn upgraded() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    old_store(&path).await;
    let store = Store::open(&path, Tenant::FIRST).await.unwrap();
    (dir, store)
}

async fn listed(store: &Store) -> usize {
    store.reports(&Search { most: 1000, ..Search::default() }).await.unwrap().len()
}

#[tokio::test]
async fn q5_an_upgrade_of_a_large_store_copies_no_long_values() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let before = old_store(&path).await;
    assert!(before > 28 << 20);
    let store = Store::open(&path, Tenant::FIRST).await.unwrap();
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let log = size(&dir.path().join("s.db-wal"));
    let after = size(&path);
    assert!(log < 1 << 20 && after < before + (1 << 20), "{log} bytes of log, {before} to {after} bytes");
    let usage = store.quarantine_usage().await.unwrap();
    assert_eq!((usage.items, usage.bytes), (OLD_ITEMS as u64, OLD_ITEMS as u64 * 100_000));
    let first = store.quarantined(0, 1).await.unwrap().remove(0);
    assert_eq!((first.size, first.received_at), (100_000, at(1)));
    assert_eq!(store.quarantined_bytes(first.id).await.unwrap().unwrap().len(), 100_000);
    assert!(store.release_quarantined(first.id).await.unwrap());
    assert_eq!(store.quarantine_usage().await.unwrap().items, OLD_ITEMS as u64 - 1);
}

#[tokio::test]
async fn q12_the_sizes_of_all_earlier_reports_are_computed_in_steps_that_continue_after_a_restart() {
    let (dir, store) = upgraded().await;
    // A report is 40,000 bytes, and one transaction has 4 MiB.
    assert_eq!(store.size_earlier_reports().await.unwrap(), 100);
    let unsized_reports = async |store: &Store| {
        let left = "SELECT count(*), max(id) FROM report WHERE size = 0";
        sql(left).fetch_one::<(i64, Option<i64>)>(store).await.unwrap()
    };
    assert_eq!(unsized_reports(&store).await, (150, Some(150)));
    store.close().await;
    let store = Store::open(&dir.path().join("s.db"), Tenant::FIRST).await.unwrap();
    assert_eq!(store.size_earlier_reports().await.unwrap(), 100);
    assert_eq!(store.size_earlier_reports().await.unwrap(), 50);
    assert_eq!(store.size_earlier_reports().await.unwrap(), 0);
    assert_eq!(unsized_reports(&store).await, (0, None));
    let sums = "SELECT source, count(*), min(size), max(size) FROM report GROUP BY source ORDER BY source";
    let sums: Vec<(String, i64, i64, i64)> = sql(sums).fetch_all(&store).await.unwrap();
    let size = 40_000 + 3 * 200;
    assert_eq!(sums, [(String::new(), 125, size, size), ("signer.example".into(), 125, size, size)]);
    // After the spared time, the limit holds for all of them.
    assert!(store.spare_earlier(at(100), MONTH).await.unwrap().is_some());
    assert_eq!(store.shrink_evidence(1 << 20).await.unwrap(), 0);
    assert_eq!(store.spare_earlier(at(130), MONTH).await.unwrap(), None);
    while store.shrink_evidence(1 << 20).await.unwrap() > 0 {}
    assert_eq!(listed(&store).await, 125 + (1 << 20) / size as usize);
}

#[tokio::test]
async fn q3_what_was_there_before_the_limits_is_spared_for_a_month_and_counts_for_no_quota() {
    let (_dir, store) = upgraded().await;
    let quota = Quota { bytes: 1 << 20, items: 1000 };
    let new = |number: u8| vec![number; 50_000];
    let keep = async |raw: &[u8]| {
        let (received_at, arrival, source) = (at(1000), Arrival::Smtp, "192.0.2.0/24");
        let new = NewQuarantined { received_at, arrival, source, is_trusted: false, reason: "r", raw };
        store.quarantine(&new, &quota).await.unwrap()
    };
    // Everything that the limits remove in a round.
    let enforce = async || {
        let mut removed = (0, 0);
        loop {
            match store.expire_quarantined(at(990)).await.unwrap() {
                0 => break,
                some => removed.0 += some,
            }
        }
        removed.0 += store.shrink_quarantine(&quota).await.unwrap();
        removed.1 += store.drop_old_unverified(at(990)).await.unwrap();
        removed.1 += store.shrink_unverified(&quota).await.unwrap();
        removed.1 += store.keep_unverified_within(&quota).await.unwrap();
        removed.1 += store.expire_reports(at(990)).await.unwrap();
        removed.1 += store.shrink_evidence(1 << 20).await.unwrap();
        removed
    };
    assert_eq!(enforce().await, (0, 0));
    let earlier = store.spare_earlier(at(1000), MONTH).await.unwrap().unwrap();
    let expected = Earlier { quarantined: 200, last_report: OLD_REPORTS, until: at(1030) };
    assert_eq!(earlier, expected);
    assert_eq!(store.spare_earlier(at(1029), MONTH).await.unwrap(), Some(expected));
    // A share is five items.
    for number in 0..20 {
        assert!(keep(&new(number)).await.is_kept);
    }
    assert_eq!(enforce().await, (0, 0));
    let usage = store.quarantine_usage().await.unwrap();
    assert_eq!((usage.items, usage.evicted, usage.expired), (205, 15, 0));
    assert_eq!(listed(&store).await, OLD_REPORTS as usize);
    // The time does not end before the sizes are known.
    assert!(store.spare_earlier(at(1030), MONTH).await.unwrap().is_some());
    while store.size_earlier_reports().await.unwrap() > 0 {}
    assert_eq!(store.spare_earlier(at(1030), MONTH).await.unwrap(), None);
    while enforce().await != (0, 0) {}
    let usage = store.quarantine_usage().await.unwrap();
    assert_eq!((usage.items, usage.evicted, usage.expired), (5, 15, 200));
    assert_eq!(listed(&store).await, 0);
}

#[tokio::test]
async fn a_new_store_has_nothing_to_spare() {
    let (_dir, store) = crate::scratch().await;
    assert_eq!(store.spare_earlier(at(1), MONTH).await.unwrap(), None);
    assert_eq!(store.size_earlier_reports().await.unwrap(), 0);
}
