//! Migrations of a PostgreSQL database. Its table of migrations is SQLx's, and so are the digests in it. SQLx's own
//! migrator is not used, because it locks by the session, which a pooler in transaction mode shares among programs.
//!
//! All missing migrations run in one transaction, which first locks that table. So two programs migrate one after the other,
//! the second one finds nothing to do, and an interrupted migration leaves nothing behind.

use super::run_text;
use crate::database::SchemaState;
use crate::query::{built, sql};
use crate::writing::{Connection, Writing};
use crate::{Store, StoreError};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{SqlSafeStr, SqlStr};
use std::time::Duration;

/// The time limit of one migration: large tables take long.
const MIGRATION_TIME: Duration = Duration::from_secs(4 * 3600);

/// The table as SQLx's migrator creates it.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, \
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, \
    execution_time BIGINT NOT NULL)";

/// What the transaction of the migrations begins with.
const LOCK: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s'; \
    LOCK TABLE _sqlx_migrations IN SHARE ROW EXCLUSIVE MODE";

const APPLIED: &str = "SELECT version, checksum FROM _sqlx_migrations ORDER BY version";

/// Reads which migrations the database has. Changes nothing.
pub(crate) async fn state(store: &Store) -> Result<SchemaState, StoreError> {
    let found = sql("SELECT count(*) FROM pg_class WHERE oid = to_regclass('_sqlx_migrations')");
    let (exists,) = found.fetch_one::<(i64,)>(store).await?;
    let applied = match exists {
        0 => Vec::new(),
        _ => sql(APPLIED).fetch_all(store).await?,
    };
    SchemaState::of(&applied, &crate::migrations::postgres())
}

/// Runs the missing migrations. Returns the state before.
pub(crate) async fn migrate(store: &Store) -> Result<SchemaState, StoreError> {
    migrate_by(store, &crate::migrations::postgres()).await
}

/// Runs those of these migrations that are missing. Returns the state before.
pub(crate) async fn migrate_by(store: &Store, migrator: &Migrator) -> Result<SchemaState, StoreError> {
    let before = state(store).await?;
    if before.pending.is_empty() || before.unknown.is_some() {
        return Ok(before);
    }
    create_table(store).await?;
    let mut writing = store.writing().await?;
    run(&mut writing, LOCK.into_sql_str()).await?;
    // Another program may have migrated meanwhile.
    let applied = sql(APPLIED).fetch_all(&mut writing).await?;
    let state = SchemaState::of(&applied, migrator)?;
    for migration in migrator.iter().filter(|migration| state.pending.contains(&migration.version)) {
        run(&mut writing, migration.sql.clone()).await.map_err(|error| failed(error, migration.version))?;
        let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES ($1, $2, TRUE, $3, -1)";
        let insert = built(insert.to_owned()).bind(migration.version).bind(migration.description.as_ref());
        insert.bind(migration.checksum.as_ref()).execute(&mut writing).await?;
    }
    writing.commit().await?;
    Ok(state)
}

/// Creates the table of migrations. Of several programs that do so at once, PostgreSQL makes all but one fail.
async fn create_table(store: &Store) -> Result<(), StoreError> {
    let mut tries = 0;
    loop {
        let mut writing = store.writing().await?;
        let created = run(&mut writing, TABLE.into_sql_str()).await;
        match created {
            Ok(()) => return writing.commit().await,
            Err(error) if tries < 5 && is_duplicate(&error) => tries += 1,
            Err(error) => return Err(failed(error, 0)),
        }
        writing.rollback().await?;
    }
}

async fn run(writing: &mut Writing, text: SqlStr) -> Result<(), StoreError> {
    match &mut writing.connection {
        Connection::Postgres(handle) => run_text(handle, text, MIGRATION_TIME).await,
        // Not reached: the store is a PostgreSQL database.
        Connection::Sqlite(_) => Ok(()),
    }
}

/// The table or its type exists (SQLSTATE 42P07, 42710, 23505).
fn is_duplicate(error: &StoreError) -> bool {
    let StoreError::Query(error) = error else { return false };
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P07" | "42710" | "23505"))
}

/// The error of a migration. A user who may not create tables (SQLSTATE 42501) is not a fault of the migration.
fn failed(error: StoreError, version: i64) -> StoreError {
    match error {
        StoreError::Query(error) => {
            let database = error.as_database_error();
            match database.and_then(|error| error.code()).as_deref() {
                Some("42501") => StoreError::Forbidden(
                    database.map_or_else(String::new, |error| error.message().to_owned()),
                ),
                _ => StoreError::Schema(MigrateError::ExecuteMigration(error, version)),
            }
        }
        other => other,
    }
}
