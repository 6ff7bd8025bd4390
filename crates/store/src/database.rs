//! The database file: opens it, migrates its schema, and defines [`StoreError`]. The other modules of this crate add
//! methods to [`Store`].

use sqlx::SqlitePool;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An open database. Clones share one connection pool.
#[derive(Clone)]
pub struct Store {
    pub(crate) pool: SqlitePool,
    file: Arc<OpenFile>,
}

/// The database file that the connections have open.
struct OpenFile {
    path: PathBuf,
    /// The device and inode number.
    identity: (u64, u64),
}

/// Why a database operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be opened, created or written.
    #[error("the database {path} can't be opened: {why}")]
    Open {
        /// The path of the database file.
        path: String,
        /// SQLite's error message.
        why: String,
    },
    /// The file is corrupt or not an SQLite database.
    #[error("the database {path} is broken: {why}")]
    Broken {
        /// The path of the database file.
        path: String,
        /// SQLite's error message.
        why: String,
    },
    /// A migration failed, or the schema was created by a newer version of Sternpost.
    #[error("the database schema can't be migrated: {0}")]
    Schema(#[from] MigrateError),
    /// A query failed.
    #[error("a database query failed: {0}")]
    Query(#[from] sqlx::Error),
    /// The file was removed or replaced while it was open, so that everything written since would be lost at the next
    /// start.
    #[error("the database {path} was removed or replaced while the program runs; restart the program")]
    Gone {
        /// The path of the database file.
        path: String,
    },
    /// A stored value is invalid, or a value can't be stored.
    #[error("the database table {table} contains an invalid value: {why}")]
    Damaged {
        /// The name of the table.
        table: &'static str,
        /// Why the value is invalid.
        why: String,
    },
}

impl Store {
    /// Opens a database file, creates it if it does not exist, and migrates its schema to the current version.
    ///
    /// Several processes may open the same file at once. Retries for up to 5 seconds while another process holds the
    /// lock.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // In pages. The default of 1000 makes a large import rewrite the same pages at every checkpoint.
            .pragma("wal_autocheckpoint", "4000")
            .busy_timeout(Duration::from_secs(3));
        let open = |error: sqlx::Error| {
            let (path, why) = (path.display().to_string(), error.to_string());
            if is_broken(&error) { StoreError::Broken { path, why } } else { StoreError::Open { path, why } }
        };
        let start = Instant::now();
        let pool = loop {
            match connect(options.clone()).await {
                // Another process is creating or migrating the same file.
                Err(error) if is_transient(&error) && start.elapsed() < BUSY_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(MigrateError::Execute(error)) => return Err(open(error)),
                done => break done?,
            }
        };
        // SQLite also opens a read-only file. This statement makes such a file fail here.
        sqlx::query("DELETE FROM policy WHERE FALSE").execute(&pool).await.map_err(open)?;
        let identity = identity(path).map_err(|error| open(sqlx::Error::Io(error)))?;
        Ok(Self { pool, file: Arc::new(OpenFile { path: path.to_owned(), identity }) })
    }

    /// Fails when the file that the connections have open is no longer the one at its path.
    pub(crate) fn check_file(&self) -> Result<(), StoreError> {
        match identity(&self.file.path) {
            Ok(now) if now == self.file.identity => Ok(()),
            Ok(_) | Err(_) => Err(StoreError::Gone { path: self.file.path.display().to_string() }),
        }
    }

    /// Renames a corrupt database file, with its `-wal` and `-shm` files, to a name that ends in `.broken-` and the
    /// Unix time. Returns the new path. Deletes nothing.
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

    /// Closes all connections. Later calls on this store and its clones fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// How long [`Store::open`] retries after a transient error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects and migrates. Connections to a file do not time out, so the pool need not test them before use.
async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool, MigrateError> {
    let pool =
        SqlitePoolOptions::new().max_connections(4).test_before_acquire(false).connect_with(options).await?;
    crate::migrations::migrator().run(&pool).await?;
    Ok(pool)
}

/// True when another process may have caused the error by migrating the same file. The process that loses the race
/// fails on the lock (`SQLITE_BUSY`, `SQLITE_LOCKED`) or on existing tables. Its retry then finds the migration done.
fn is_transient(error: &MigrateError) -> bool {
    match error {
        MigrateError::ExecuteMigration(..) => true,
        MigrateError::Execute(error) => code(error).is_some_and(|code| matches!(code & 0xff, 5 | 6)),
        _ => false,
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// True for `SQLITE_CORRUPT`, `SQLITE_NOTADB` and their extended codes.
fn is_broken(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

fn code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error().and_then(|error| error.code()?.parse().ok())
}

/// The value of all `tenant` columns. Sternpost has only one tenant so far.
pub(crate) const TENANT: i64 = 0;

/// Converts an error about a value of `table` to [`StoreError::Damaged`].
pub(crate) fn damaged<E: std::fmt::Display>(table: &'static str) -> impl Fn(E) -> StoreError {
    move |why| StoreError::Damaged { table, why: why.to_string() }
}

/// Converts a count to a column value. Larger counts become `i64::MAX`.
pub(crate) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Converts a column value to a count. Negative values become 0.
pub(crate) fn count(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// Converts a Unix time from a column of `table`.
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
    async fn several_processes_may_open_a_new_file_at_once() {
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
        for task in all {
            task.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_database_fails_with_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not.db");
        std::fs::write(&path, "a text file that is longer than the header of a database").unwrap();
        let error = Store::open(&path).await.err().unwrap().to_string();
        assert!(error.contains("not.db is broken"), "{error}");
        let aside = Store::set_aside(&path, jiff::Timestamp::from_second(7).unwrap()).unwrap();
        assert!(aside.ends_with("not.db.broken-7") && aside.exists() && !path.exists());
        assert!(Store::open(&path).await.is_ok());
        assert!(Store::open(&dir.path().join("no/such/folder/s.db")).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_removed_or_replaced_takes_no_more_writes() {
        let (dir, store) = scratch().await;
        let path = store.file.path.clone();
        assert!(path.starts_with(dir.path()) && store.check_file().is_ok());
        let kept = dir.path().join("kept");
        std::fs::rename(&path, &kept).unwrap();
        assert!(matches!(store.writing().await.map(|_| ()), Err(StoreError::Gone { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(store.writing().await.map(|_| ()), Err(StoreError::Gone { .. })));
        std::fs::rename(&kept, &path).unwrap();
        assert!(store.writing().await.is_ok());
    }
}
