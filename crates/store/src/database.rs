//! The database file: opening it, bringing its schema up to date, and errors.

use sqlx::SqlitePool;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The database.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: SqlitePool,
}

/// Why the database did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be opened.
    #[error("the database {path} can't be opened: {why}")]
    Open {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The file is damaged, or is no database.
    #[error("the database {path} is broken: {why}")]
    Broken {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Its schema is newer than this program, or damaged.
    #[error("the database's schema: {0}")]
    Schema(#[from] MigrateError),
    /// A query failed.
    #[error("the database: {0}")]
    Query(#[from] sqlx::Error),
    /// A value in it does not mean anything to this program.
    #[error("the database holds something unexpected in {table}: {why}")]
    Damaged {
        /// The table.
        table: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl Store {
    /// Opens the file, makes it when it is not there, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // Pages; with the default, a large import writes everything twice again and again.
            .pragma("wal_autocheckpoint", "4000")
            .busy_timeout(Duration::from_secs(3));
        let open = |error: sqlx::Error| {
            let (path, why) = (path.display().to_string(), error.to_string());
            if is_broken(&error) { StoreError::Broken { path, why } } else { StoreError::Open { path, why } }
        };
        let begun = Instant::now();
        let pool = loop {
            match ready(options.clone()).await {
                // Another program makes the same file, or brings it up to date, just now.
                Err(error) if is_passing(&error) && begun.elapsed() < BUSY_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(MigrateError::Execute(error)) => return Err(open(error)),
                done => break done?,
            }
        };
        // SQLite opens a file that it can't write to as well; that is to be known now.
        sqlx::query("DELETE FROM policy WHERE FALSE").execute(&pool).await.map_err(open)?;
        Ok(Self { pool })
    }

    /// Puts a broken file, and what belongs to it, out of the way under a name with the time in it,
    /// which is returned. Nothing is deleted.
    pub fn set_aside(path: &Path, now: jiff::Timestamp) -> std::io::Result<PathBuf> {
        let suffix = format!(".broken-{}", now.as_second());
        for part in ["-wal", "-shm", ""] {
            let from = with_suffix(path, part);
            if from.exists() {
                std::fs::rename(&from, with_suffix(&from, &suffix))?;
            }
        }
        Ok(with_suffix(path, &suffix))
    }

    /// Writes everything out and closes.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// How long a passing failure is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a file does not go away by itself, so that none is tested before it is used.
async fn ready(options: SqliteConnectOptions) -> Result<SqlitePool, MigrateError> {
    let pool =
        SqlitePoolOptions::new().max_connections(4).test_before_acquire(false).connect_with(options).await?;
    crate::migrations::migrator().run(&pool).await?;
    Ok(pool)
}

/// Who comes second fails by a lock, or by what the first has made, and finds it done when he looks again.
fn is_passing(error: &MigrateError) -> bool {
    match error {
        MigrateError::ExecuteMigration(..) => true,
        MigrateError::Execute(error) => code(error).is_some_and(|code| matches!(code & 0xff, 5 | 6)),
        _ => false,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// SQLITE_CORRUPT and SQLITE_NOTADB, with their extended codes.
fn is_broken(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

fn code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error().and_then(|error| error.code()?.parse().ok())
}

/// The only tenant so far.
pub(crate) const TENANT: i64 = 0;

pub(crate) fn damaged<E: std::fmt::Display>(table: &'static str) -> impl Fn(E) -> StoreError {
    move |why| StoreError::Damaged { table, why: why.to_string() }
}

/// A count as a column holds it.
pub(crate) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A column that holds a count.
pub(crate) fn count(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

pub(crate) fn time(table: &'static str, second: i64) -> Result<jiff::Timestamp, StoreError> {
    jiff::Timestamp::from_second(second).map_err(damaged(table))
}

#[cfg(test)]
pub(crate) async fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("s.db")).await.unwrap();
    (dir, store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn several_programs_may_open_a_new_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let all: Vec<_> = (0..8)
            .map(|_| {
                tokio::spawn({
                    let path = path.clone();
                    async move { Store::open(&path).await.map(drop) }
                })
            })
            .collect();
        for one in all {
            one.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not.db");
        std::fs::write(&path, "this is a text file, and long enough to be taken for one").unwrap();
        let error = Store::open(&path).await.err().unwrap().to_string();
        assert!(error.contains("not.db is broken"), "{error}");
        let aside = Store::set_aside(&path, jiff::Timestamp::from_second(7).unwrap()).unwrap();
        assert!(aside.ends_with("not.db.broken-7") && aside.exists() && !path.exists());
        assert!(Store::open(&path).await.is_ok());
        assert!(Store::open(&dir.path().join("no/such/folder/s.db")).await.is_err());
    }
}
