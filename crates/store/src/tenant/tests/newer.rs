//! A process of this release beside one of a newer release, which has added to the schema. All methods go on with the columns that
//! they know, also those whose statements the database has prepared before.

use super::*;
use crate::query::{built, sql};
use crate::scratch::access;

/// Adds a column to each table, and a migration that this release does not know, as a newer release may.
async fn extend(store: &Store) {
    let tables = store.dialect().pick(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> '_sqlx_migrations'",
        "SELECT CAST(tablename AS TEXT) FROM pg_tables
         WHERE schemaname = current_schema() AND tablename <> '_sqlx_migrations'",
    );
    let tables: Vec<(String,)> = sql(tables).fetch_all(store).await.unwrap();
    assert!(tables.len() > 20);
    for (table,) in tables {
        let text = format!("ALTER TABLE {table} ADD COLUMN later BIGINT NOT NULL DEFAULT 0");
        built(text).execute(store).await.unwrap();
    }
    let migration = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (9999, 'later', TRUE, '', 0)";
    sql(migration).execute(store).await.unwrap();
}

#[tokio::test]
async fn a_process_goes_on_while_a_newer_release_extends_the_schema_and_can_not_be_started_again() {
    let (scratch, store) = crate::scratch().await;
    let newer = scratch.open().await;
    let (first, second) = (store.of_tenant(Tenant::numbered(1)), store.of_tenant(Tenant::numbered(2)));
    run(&fill(), &first).await;
    let before = run(&reads(), &first).await;
    extend(&newer).await;
    assert_eq!(run(&reads(), &first).await, before);
    run(&changes(), &first).await;
    run(&fill(), &second).await;
    run(&later_reads(), &second).await;
    let refused = Store::connect(&scratch.location, &access(), Tenant::FIRST).await.map(drop).unwrap_err();
    assert!(matches!(&refused, StoreError::Newer { schema: 9999, .. }), "{refused}");
}
