//! The SQLite file: opens it, and runs statements on it. SQLx's SQLite driver is used only here and in `copies`.
//!
//! SQLite lets one transaction write at a time. All writes go through one connection, and callers get it in the order
//! in which they ask, so that a burst of imports delays a policy by the transactions before it and no more. Reads have
//! connections of their own, which see every committed write.

use super::{SchemaState, StoreError};
use crate::query::{Query, Value};
use nix::unistd::{AccessFlags, access, geteuid};
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteArguments, SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, Row, SqliteConnection, SqlitePool};
use std::borrow::Cow;
use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use sqlx::sqlite::SqliteRow;
pub(crate) type SqliteHandle = PoolConnection<sqlx::Sqlite>;

/// An open SQLite database: its connections for reading, and the one for writing.
#[derive(Clone)]
pub(crate) struct SqliteFile {
    /// Up to [`READERS`] connections that can't write.
    readers: SqlitePool,
    /// One connection. Its pool hands it out first come, first served.
    writer: SqlitePool,
    file: Arc<OpenFile>,
}

/// The database file that the connections have open.
struct OpenFile {
    path: PathBuf,
    /// The device and inode number.
    identity: (u64, u64),
}

/// The maximum number of connections for reading.
const READERS: u32 = 4;

/// The value of the pragma `auto_vacuum` for files that can give back space in steps.
const INCREMENTAL: i64 = 2;

/// Free pages that stay in the file for later data: 4 MiB.
const SPARE_PAGES: i64 = 1024;

/// Pages that one step gives back: 2 MiB. Other writes wait for a step.
const RELEASED_PAGES: i64 = 512;

/// The size that the write-ahead log is cut to when it begins anew after a large transaction: 4 MiB.
const LOG_BYTES: &str = "4194304";

/// The rows by which a connection's thread may be ahead of the reader of the rows. The default of 50 makes the threads wait for
/// each other several times for each batch of names. All rows of a statement are collected anyway.
const ROWS_AHEAD: usize = 500;

/// The page cache of the connection for writing, in KiB as a negative number. A transaction of an import changes more pages
/// than fit into the default of 2000 KiB, and would write those that do not fit several times.
const WRITER_CACHE: &str = "-8192";

/// How long [`SqliteFile::open`] retries after a transient error.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl SqliteFile {
    /// See [`crate::Store::open`].
    pub(super) async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            // In pages. The default of 1000 makes a large import rewrite the same pages at every checkpoint.
            .pragma("wal_autocheckpoint", "4000")
            .pragma("journal_size_limit", LOG_BYTES)
            .busy_timeout(Duration::from_secs(3))
            .row_buffer_size(ROWS_AHEAD);
        let open = |error: sqlx::Error| {
            let (path, why) = (path.display().to_string(), reason(&error));
            if is_broken(&error) { StoreError::Broken { path, why } } else { StoreError::Open { path, why } }
        };
        create_private(path, Owner::OfFolder).map_err(|error| open(sqlx::Error::Io(error)))?;
        let readers = options.clone().create_if_missing(false).pragma("query_only", "ON");
        let options = options.pragma("cache_size", WRITER_CACHE);
        let start = Instant::now();
        let writer = loop {
            // Only a new file can be told to give back space in steps; `compact` does so for others. This setting would
            // make each connection wait for the lock for writing.
            let is_new = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
            let first = match is_new {
                true => options.clone().auto_vacuum(SqliteAutoVacuum::Incremental),
                false => options.clone(),
            };
            match connect(first).await {
                // Another process is creating or migrating the same file.
                Err(error) if is_transient(&error) && start.elapsed() < BUSY_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(MigrateError::Execute(error)) => return Err(open(error)),
                Err(error) => return Err(super::migration_error(&path.display().to_string(), error)),
                Ok(pool) => break pool,
            }
        };
        // SQLite also opens a read-only file. This statement makes such a file fail here.
        sqlx::query("DELETE FROM policy WHERE FALSE").execute(&writer).await.map_err(open)?;
        let identity = identity(path).map_err(|error| open(sqlx::Error::Io(error)))?;
        close_to_others(path);
        // Later connections never create a new file where this one was removed.
        writer.set_connect_options(options.create_if_missing(false));
        let readers = pool_options(READERS).connect_lazy_with(readers);
        Ok(Self { readers, writer, file: Arc::new(OpenFile { path: path.to_owned(), identity }) })
    }

    /// See [`crate::Store::schema`].
    pub(super) async fn schema(path: &Path) -> Result<SchemaState, StoreError> {
        let mut connection = super::backup::open(path).await?;
        let applied = sqlx::query("SELECT version, checksum FROM _sqlx_migrations ORDER BY version");
        let rows = applied.fetch_all(&mut connection).await?;
        let column = |row: &SqliteRow| Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?));
        let applied = rows.iter().map(column).collect::<Result<Vec<(i64, Vec<u8>)>, _>>()?;
        // Nothing was changed, so an error here does no harm.
        let _ = sqlx::Connection::close(connection).await;
        SchemaState::of(&applied, &crate::migrations::sqlite())
    }

    /// Fails when the file that the connections have open is no longer the one at its path.
    pub(crate) fn check_file(&self) -> Result<(), StoreError> {
        match identity(&self.file.path) {
            Ok(now) if now == self.file.identity => Ok(()),
            Ok(_) | Err(_) => Err(StoreError::Gone { path: self.file.path.display().to_string() }),
        }
    }

    /// Waits for the connection for writing.
    pub(crate) async fn writer(&self) -> Result<SqliteHandle, StoreError> {
        self.check_file()?;
        Ok(self.writer.acquire().await?)
    }

    /// Runs a statement that changes rows, as its own transaction. Returns their number.
    pub(crate) async fn write(&self, query: Query<'_>) -> Result<u64, StoreError> {
        execute(&mut *self.writer().await?, &query).await
    }

    /// Runs a statement that reads.
    pub(crate) async fn read(&self, query: Query<'_>) -> Result<Vec<SqliteRow>, StoreError> {
        rows(&mut *self.readers.acquire().await?, query).await
    }

    /// Gives up to [`RELEASED_PAGES`] free pages back to the file system. Returns the number of free pages that are left,
    /// which is `None` if the file was created without support for this.
    pub(super) async fn release_space(&self) -> Result<Option<u64>, StoreError> {
        let mut connection = self.writer().await?;
        if number(&mut connection, "PRAGMA auto_vacuum").await? != INCREMENTAL {
            return Ok(None);
        }
        let free = number(&mut connection, "PRAGMA freelist_count").await?;
        if free <= SPARE_PAGES {
            return Ok(Some(0));
        }
        let pages = RELEASED_PAGES.min(free - SPARE_PAGES);
        // SQLite releases a page with each step of the statement.
        let pragma = AssertSqlSafe(format!("PRAGMA incremental_vacuum({pages})"));
        sqlx::query(pragma).persistent(false).fetch_all(&mut *connection).await?;
        let left = (number(&mut connection, "PRAGMA freelist_count").await? - SPARE_PAGES).max(0);
        if left == 0 {
            // The file gets shorter when the log is written back to it.
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").fetch_all(&mut *connection).await?;
        }
        Ok(Some(u64::try_from(left).unwrap_or_default()))
    }

    /// Writes the whole database anew, without free pages. Other writes wait, also those of other processes.
    pub(super) async fn compact(&self) -> Result<(), StoreError> {
        let mut connection = self.writer().await?;
        for statement in ["PRAGMA auto_vacuum = INCREMENTAL", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            sqlx::query(statement).fetch_all(&mut *connection).await?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Reads a pragma that is a number.
async fn number(connection: &mut SqliteConnection, pragma: &'static str) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(pragma).fetch_one(connection).await?)
}

/// Sets whether references between tables are checked. Has no effect within a transaction.
pub(crate) async fn check_references(
    connection: &mut SqliteConnection,
    is_on: bool,
) -> Result<(), StoreError> {
    let pragma = if is_on { "PRAGMA foreign_keys = ON" } else { "PRAGMA foreign_keys = OFF" };
    sqlx::query(pragma).execute(connection).await?;
    Ok(())
}

/// Begins a transaction at once. A deferred one may fail with `SQLITE_BUSY` when it upgrades to a write.
pub(crate) async fn begin(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("BEGIN IMMEDIATE").execute(connection).await?;
    Ok(())
}

pub(crate) async fn execute(connection: &mut SqliteConnection, query: &Query<'_>) -> Result<u64, StoreError> {
    let statement = sqlx::query_with(query.text.clone(), arguments(&query.values)?).persistent(query.is_kept);
    Ok(statement.execute(connection).await?.rows_affected())
}

pub(crate) async fn rows(
    connection: &mut SqliteConnection,
    query: Query<'_>,
) -> Result<Vec<SqliteRow>, StoreError> {
    let statement = sqlx::query_with(query.text, arguments(&query.values)?).persistent(query.is_kept);
    Ok(statement.fetch_all(connection).await?)
}

fn arguments(values: &[Value<'_>]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(values.len(), 0);
    for value in values {
        let added = match value {
            Value::Int(number) => arguments.add(*number),
            Value::Text(text) => arguments.add(Cow::as_ref(text)),
            Value::Blob(bytes) => arguments.add(Cow::as_ref(bytes)),
            Value::NullInt => arguments.add(None::<i64>),
            Value::NullText => arguments.add(None::<&str>),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

pub(crate) fn integer(row: &SqliteRow, at: usize) -> Result<Option<i64>, sqlx::Error> {
    row.try_get(at)
}

pub(crate) fn text(row: &SqliteRow, at: usize) -> Result<Option<String>, sqlx::Error> {
    row.try_get(at)
}

pub(crate) fn bytes(row: &SqliteRow, at: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
    row.try_get(at)
}

/// Connections to a file do not time out, so the pool need not test them before use.
fn pool_options(most: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(most).test_before_acquire(false)
}

/// Opens the connection for writing, and runs the missing migrations.
///
/// They run in one transaction that takes the lock for writing before it reads which are missing. SQLx's migrator has no
/// lock for SQLite, so that two processes could run the same migration one after the other.
async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool, MigrateError> {
    let pool = pool_options(1).connect_with(options).await?;
    let mut writing = pool.begin_with("BEGIN IMMEDIATE").await?;
    crate::migrations::sqlite().run_direct(None, &mut *writing, false).await?;
    writing.commit().await?;
    Ok(pool)
}

/// True when another process holds the lock of the file (`SQLITE_BUSY`, `SQLITE_LOCKED`), for example because it is
/// migrating it.
fn is_transient(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(error) => code(error).is_some_and(|code| matches!(code & 0xff, 5 | 6)),
        _ => false,
    }
}

/// Creates the file, readable and writable for its owner only, whatever the umask is: the store holds private keys,
/// password hashes and reports. SQLite gives its `-wal` and `-shm` files the same mode. An existing file is not opened,
/// since closing it again would release the locks of this process.
///
/// A store that root creates belongs to the owner of its folder, as the service that has the folder has to open it. SQLite
/// does the same with the files beside it.
pub(super) fn create_private(path: &Path, owner: Owner) -> std::io::Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY_MODE).open(path);
    match created {
        Ok(file) => {
            if owner == Owner::OfFolder {
                give_to_owner_of_folder(&file, path);
            }
            file.set_permissions(Permissions::from_mode(OWNER_ONLY_MODE))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok(access(path, AccessFlags::R_OK | AccessFlags::W_OK)?)
        }
        Err(error) => Err(error),
    }
}

/// Who owns a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The user that runs the program.
    Creator,
    /// If root runs the program, the owner of the folder.
    OfFolder,
}

/// Lets root give a new file to the owner of its folder. A failure is ignored: root without the capability is root of a
/// container, where no other user runs the program.
fn give_to_owner_of_folder(file: &File, path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(folder) = std::fs::metadata(folder).ok().filter(|_| geteuid().is_root()) {
        let _ = std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

/// Takes the permissions of other users away from the files of a database that an earlier release created under the
/// umask. Those of the group stay: an operator may have set them. Only the owner can change them, so a failure is ignored.
fn close_to_others(path: &Path) {
    for file in ["", "-wal", "-shm"].map(|suffix| super::with_suffix(path, suffix)) {
        let Ok(metadata) = std::fs::metadata(&file) else { continue };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            let _ = std::fs::set_permissions(&file, Permissions::from_mode(mode & !OTHERS));
        }
    }
}

/// The mode of a new database file.
const OWNER_ONLY_MODE: u32 = 0o600;
/// The permission bits of other users.
const OTHERS: u32 = 0o007;

/// SQLite's message without its number and without the words that the driver puts in front.
pub(super) fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => match error.message() {
            "unable to open database file" => "the file can't be opened or created".to_owned(),
            message => message.to_owned(),
        },
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// True for `SQLITE_CORRUPT`, `SQLITE_NOTADB` and their extended codes.
pub(super) fn is_broken(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

pub(super) fn code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error().and_then(|error| error.code()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::query::sql;

    async fn scratch() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s.db"), crate::Tenant::FIRST).await.unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn several_processes_may_open_a_new_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..10 {
            open_at_once(&dir.path().join(format!("{round}.db"))).await;
        }
    }

    #[tokio::test]
    async fn a_process_that_waits_for_the_migrations_of_another_runs_none_of_them_again() {
        let dir = tempfile::tempdir().unwrap();
        for version in crate::migrations::sqlite().iter().map(|migration| migration.version) {
            let path = dir.path().join(format!("{version}.db"));
            let options = SqliteConnectOptions::new()
                .filename(&path)
                .create_if_missing(true)
                .pragma("journal_mode", "WAL");
            let pool = pool_options(1).connect_with(options).await.unwrap();
            crate::migrations::sqlite_before(version).run(&pool).await.unwrap();
            let mut other = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            let opened = std::thread::spawn(move || open(&path));
            // Long enough for the store to reach the lock. A shorter time would hide a fault and never cause one.
            tokio::time::sleep(Duration::from_millis(150)).await;
            crate::migrations::sqlite().run_direct(None, &mut *other, false).await.unwrap();
            other.commit().await.unwrap();
            pool.close().await;
            opened.join().unwrap().unwrap();
        }
    }

    fn open(path: &Path) -> Result<(), StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { Store::open(path, crate::Tenant::FIRST).await.map(drop) })
    }

    /// Opens a store many times at the same moment, each on a thread of its own as processes do.
    async fn open_at_once(path: &Path) {
        let all: Vec<_> = (0..8)
            .map(|_| {
                let path = path.to_owned();
                std::thread::spawn(move || open(&path))
            })
            .collect();
        for opened in all {
            opened.join().unwrap().unwrap();
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn every_file_of_a_store_is_readable_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        sql("DELETE FROM lease").execute(&store).await.unwrap();
        let files: Vec<PathBuf> =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 3, "{files:?}");
        for file in &files {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
        store.close().await;
        // A file of an earlier release.
        std::fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        assert_eq!(mode(&path), 0o660);
        store.close().await;
    }

    #[tokio::test]
    async fn a_store_that_root_creates_belongs_to_the_owner_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        if !geteuid().is_root() {
            // Others can't give a file away.
            let path = dir.path().join("s.db");
            Store::open(&path, crate::Tenant::FIRST).await.unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().uid(), geteuid().as_raw());
            return;
        }
        std::os::unix::fs::chown(dir.path(), Some(4711), Some(4712)).unwrap();
        let path = dir.path().join("s.db");
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        sql("DELETE FROM lease").execute(&store).await.unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()) {
            let metadata = std::fs::metadata(&file).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712), "{}", file.display());
            assert_eq!(mode(&file), 0o600);
        }
        // An existing file keeps its owner.
        store.close().await;
        std::os::unix::fs::chown(&path, Some(4713), None).unwrap();
        Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().uid(), 4713);
    }

    #[tokio::test]
    async fn an_error_of_opening_says_once_why() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            Store::open(&dir.path().join("no/s.db"), crate::Tenant::FIRST).await.err().unwrap().to_string();
        assert!(
            error.ends_with("no/s.db can't be opened: No such file or directory (os error 2)"),
            "{error}"
        );
        let error = Store::open(dir.path(), crate::Tenant::FIRST).await.err().unwrap().to_string();
        assert!(error.ends_with("can't be opened: the file can't be opened or created"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_database_fails_with_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not.db");
        std::fs::write(&path, "a text file that is longer than the header of a database").unwrap();
        let error = Store::open(&path, crate::Tenant::FIRST).await.err().unwrap().to_string();
        assert!(error.contains("not.db is broken"), "{error}");
        let aside = Store::set_aside(&path, jiff::Timestamp::from_second(7).unwrap()).unwrap();
        assert!(aside.ends_with("not.db.broken-7") && aside.exists() && !path.exists());
        assert!(Store::open(&path, crate::Tenant::FIRST).await.is_ok());
        assert!(Store::open(&dir.path().join("no/such/folder/s.db"), crate::Tenant::FIRST).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_removed_or_replaced_takes_no_more_writes() {
        let (dir, store) = scratch().await;
        let path = dir.path().join("s.db");
        let kept = dir.path().join("kept");
        let write = async || sql("DELETE FROM lease").execute(&store).await;
        assert!(store.writing().await.is_ok() && write().await.is_ok());
        std::fs::rename(&path, &kept).unwrap();
        assert!(matches!(store.writing().await.map(|_| ()), Err(StoreError::Gone { .. })));
        assert!(matches!(write().await, Err(StoreError::Gone { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(store.writing().await.map(|_| ()), Err(StoreError::Gone { .. })));
        std::fs::rename(&kept, &path).unwrap();
        assert!(store.writing().await.is_ok());
    }

    #[tokio::test]
    async fn the_log_gets_small_again_after_a_large_transaction() {
        let (dir, store) = scratch().await;
        let mut writing = store.writing().await.unwrap();
        let insert = "INSERT INTO quarantine (tenant, received_at, way, reason, digest, raw) VALUES (0, 0, 0, 'r', 0, $1)";
        sql(insert).bind(vec![1u8; 24 << 20].as_slice()).execute(&mut writing).await.unwrap();
        writing.commit().await.unwrap();
        let size = || std::fs::metadata(dir.path().join("s.db-wal")).unwrap().len();
        assert!(size() > 20 << 20);
        // The first write after a checkpoint begins the log anew.
        for _ in 0..2 {
            sql("UPDATE version SET value = value + 1").execute(&store).await.unwrap();
        }
        assert!(size() <= 4 << 20, "{}", size());
    }

    #[tokio::test]
    async fn a_connection_for_reading_can_not_write() {
        let (_dir, store) = scratch().await;
        let insert = "INSERT INTO reported_day (day, is_built) VALUES (1, 1) RETURNING day";
        assert!(sql(insert).fetch_all::<(i64,)>(&store).await.is_err());
        let mut writing = store.writing().await.unwrap();
        assert_eq!(sql(insert).fetch_all::<(i64,)>(&mut writing).await.unwrap(), [(1,)]);
    }
}
