//! The database behind the store: an SQLite file, or with the feature `postgres` a PostgreSQL database. Opens it and
//! defines [`StoreError`]. The other modules of this crate add methods to [`Store`].

mod backup;
pub(crate) mod copy;
mod location;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod schema;
pub(crate) mod sqlite;

use crate::Tenant;
use crate::leases::HeldLease;
use crate::query::{Dialect, sql};
use crate::reports::UnverifiedSpace;
use crate::writing::Counter;
use sqlite::SqliteFile;
use sqlx::migrate::MigrateError;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

pub use backup::{BackupInfo, RestoredPolicies};
pub use copy::export::{ExportError, RowWriter};
pub use copy::{CopiedTable, CopyError, CopyOptions};
pub use location::{Location, LocationError, PostgresLocation};
pub use schema::SchemaState;

/// An open database, for one tenant. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    pub(crate) database: Database,
    pub(crate) tenant: Tenant,
    /// Whether row-level security shows the rows of all tenants.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code))]
    pub(crate) is_across: bool,
    pub(crate) unverified: Arc<UnverifiedSpace>,
    /// The lease under which this handle writes.
    pub(crate) lease: Option<HeldLease>,
}

#[derive(Clone)]
pub(crate) enum Database {
    Sqlite(SqliteFile),
    #[cfg(feature = "postgres")]
    Postgres(postgres::PostgresPool),
}

/// What a connection to a database requires besides its location. Only a PostgreSQL database needs it.
#[derive(Clone)]
pub struct Access {
    /// Connects to the servers of the database.
    pub network: Arc<dyn Network>,
    /// The file with the password. It is read for each new connection.
    pub password: Option<PathBuf>,
    /// Whether a PostgreSQL database is migrated when it is opened. An SQLite file always is.
    pub may_migrate: bool,
}

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The outcome of a network operation; the error is for people.
pub type Connecting<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// Connects to the servers of a PostgreSQL database.
pub trait Network: Send + Sync {
    /// Connects to a host name or IP address by TCP.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a, TcpStream>;

    /// Begins TLS on a connection. The certificate of the server has to be valid for `host`, and verified by the
    /// certificates in the PEM file `roots`, or by those that the configuration trusts.
    fn begin_tls<'a>(
        &'a self,
        stream: TcpStream,
        host: &'a str,
        roots: Option<&'a Path>,
    ) -> Connecting<'a, Box<dyn Stream>>;
}

/// Why a database operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database can't be opened, created or written.
    #[error("the database {path} can't be opened: {why}")]
    Open {
        /// The path of the database file, or the address of the PostgreSQL database without its password.
        path: String,
        /// The error message of the database.
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
    /// A migration failed.
    #[error("the database schema can't be migrated: {0}")]
    Schema(#[from] MigrateError),
    /// A newer release of Sternpost made or migrated the database. Nothing was changed.
    #[error(
        "a newer release of Sternpost has written the database {path}: its schema is number {schema}, and this release knows those up to number {known}"
    )]
    Newer {
        /// The path of the database file, or the address of the PostgreSQL database without its password.
        path: String,
        /// The number of a migration that this release does not know.
        schema: i64,
        /// The number of the last migration that this release knows.
        known: i64,
    },
    /// A copy of the database can't be written.
    #[error("the copy {path} can't be written: {why}")]
    Copy {
        /// The path of the copy.
        path: String,
        /// The error of the operating system or of SQLite.
        why: String,
    },
    /// A backup was put in the place of the database, and the operating system failed to write the names of the files to the
    /// disk.
    #[error(
        "the backup is in place at {path}{}, but the names of the files are perhaps not on the disk yet: {why}",
        .aside.as_ref().map(|aside| format!(", and the store that was there at {aside}")).unwrap_or_default()
    )]
    Unsynced {
        /// The path of the database file.
        path: String,
        /// The path of the database that was there before, if there was one.
        aside: Option<String>,
        /// The error of the operating system.
        why: String,
    },
    /// A process has the database open that was to be replaced.
    #[error("a running program has the database {path} open")]
    InUse {
        /// The path of the database file.
        path: String,
    },
    /// The PostgreSQL database does not have the newest schema, and was not migrated.
    #[error("the schema of the database {path} is {}, and this release needs number {known}", old_schema(.schema))]
    Outdated {
        /// The URL of the database.
        path: String,
        /// The number of its last migration; `None` for a database without tables of Sternpost.
        schema: Option<i64>,
        /// The number of the last migration that this release knows.
        known: i64,
    },
    /// The PostgreSQL user may not create tables. Holds the message of the server.
    #[error("the schema can't be created or migrated: {0}")]
    Forbidden(String),
    /// `sternpost store copy` into this database has not ended, so that it has a part of the data only.
    #[error("a copy into the database {path} has not ended, so it is not complete")]
    Unfinished {
        /// The path of the database file, or the URL of the database.
        path: String,
    },
    /// The PostgreSQL database can't be reached, does not answer, or does not accept writes. A write did not take place and does
    /// not take place later, unless the answer to its `COMMIT` is what was lost.
    #[error("the database {database} can't be used: {why}")]
    Unreachable {
        /// The URL of the database.
        database: String,
        /// The reason, in one line.
        why: String,
    },
    /// A query failed.
    #[error("a database query failed: {0}")]
    Query(#[from] sqlx::Error),
    /// PostgreSQL aborted the transaction because of a concurrent one (SQLSTATE 40001 or 40P01). Nothing was changed.
    #[error(
        "the database aborted the change because of a concurrent one; nothing was changed, so try again: {0}"
    )]
    Conflict(sqlx::Error),
    /// The file was removed or replaced while it was open, so that everything written since would be lost at the next
    /// start.
    #[error("the database {path} was removed or replaced while the program runs; restart the program")]
    Gone {
        /// The path of the database file.
        path: String,
    },
    /// The lease under which the write was to take place is over, or another process has it by now. Nothing was changed.
    #[error(
        "the lease {name:?} is over, so nothing was changed: this process stood still for too long, or another one has taken the work over"
    )]
    LeaseLost {
        /// The name of the lease.
        name: String,
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

fn old_schema(schema: &Option<i64>) -> String {
    schema.map_or("missing".to_owned(), |number| format!("number {number}"))
}

impl StoreError {
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }
}

impl Store {
    /// Opens an SQLite file for a tenant, creates it if it does not exist, and migrates its schema to the current version.
    ///
    /// Several processes may open the same file at once. Retries for up to 5 seconds while another process holds the
    /// lock.
    pub async fn open(path: &Path, tenant: Tenant) -> Result<Self, StoreError> {
        Ok(Self::of(Database::Sqlite(SqliteFile::open(path).await?), tenant))
    }

    /// Opens the database at `location` for a tenant. An SQLite file is created if it does not exist, and migrated; a PostgreSQL
    /// database has to exist and to have the current schema, unless `access` allows to migrate it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Outdated`], [`StoreError::Newer`] or [`StoreError::Unfinished`] if the database has another schema or
    /// a part of the data; [`StoreError::Unreachable`] if it can't be used.
    pub async fn connect(location: &Location, access: &Access, tenant: Tenant) -> Result<Self, StoreError> {
        let store = Self::attach(location, access, tenant).await?;
        #[cfg(feature = "postgres")]
        if let Database::Postgres(_) = &store.database {
            let state = match access.may_migrate {
                true => postgres::schema::migrate(&store).await?,
                false => postgres::schema::state(&store).await?,
            };
            state.check(location, access.may_migrate)?;
        }
        match store.is_unfinished_copy().await? {
            true => Err(StoreError::Unfinished { path: location.to_string() }),
            false => Ok(store),
        }
    }

    /// Opens the database; a PostgreSQL database whatever its schema is.
    pub(crate) async fn attach(
        location: &Location,
        access: &Access,
        tenant: Tenant,
    ) -> Result<Self, StoreError> {
        match location {
            Location::Sqlite(path) => Self::open(path, tenant).await,
            #[cfg(feature = "postgres")]
            Location::Postgres(location) => {
                let pool = postgres::PostgresPool::open(location, access).await?;
                Ok(Self::of(Database::Postgres(pool), tenant))
            }
            #[cfg(not(feature = "postgres"))]
            Location::Postgres(location) => {
                let _ = (access, tenant);
                Err(StoreError::Open {
                    path: location.to_string(),
                    why: "this program was built without PostgreSQL's driver; build it with `cargo build --release --features postgres`, or \
                          install a package"
                        .to_owned(),
                })
            }
        }
    }

    fn of(database: Database, tenant: Tenant) -> Self {
        Self { database, tenant, is_across: false, unverified: Arc::default(), lease: None }
    }

    /// The SQL that the database understands.
    pub(crate) fn dialect(&self) -> Dialect {
        match &self.database {
            Database::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Fails when the SQLite file that the connections have open is no longer the one at its path.
    pub(crate) fn check_file(&self) -> Result<(), StoreError> {
        match &self.database {
            Database::Sqlite(database) => database.check_file(),
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Renames a corrupt database file, with its `-wal` and `-shm` files, to a name that ends in `.broken-` and the
    /// Unix time. Returns the new path. Deletes nothing.
    pub fn set_aside(path: &Path, now: jiff::Timestamp) -> std::io::Result<PathBuf> {
        set_aside(path, "broken", now)
    }

    /// Fails if the database can't be read and written, for example because the disk is full: writes a row anew without
    /// changing it.
    pub async fn probe(&self) -> Result<(), StoreError> {
        sql("UPDATE version SET value = value WHERE name = $1")
            .bind(Counter::Hosted.name())
            .execute(self)
            .await?;
        self.counter(Counter::Hosted).await.map(drop)
    }

    /// Gives free space of the database back to the file system, 2 MiB in each call. Returns the number of free pages
    /// that are left to give back; `None` if the file was created by an earlier version and [`Store::compact`] has not
    /// run yet. PostgreSQL does this itself.
    pub async fn release_space(&self) -> Result<Option<u64>, StoreError> {
        match &self.database {
            Database::Sqlite(database) => database.release_space().await,
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => Ok(Some(0)),
        }
    }

    /// Writes an SQLite file anew, so that it has no free space. Needs free disk space of the size of the data; all other
    /// writes wait or fail meanwhile. Does nothing on PostgreSQL.
    pub async fn compact(&self) -> Result<(), StoreError> {
        match &self.database {
            Database::Sqlite(database) => database.compact().await,
            #[cfg(feature = "postgres")]
            Database::Postgres(_) => Ok(()),
        }
    }

    /// Closes all connections. Later calls on this store and its clones fail.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(database) => database.close().await,
            #[cfg(feature = "postgres")]
            Database::Postgres(database) => database.close().await,
        }
    }
}

/// Renames a database file with its `-wal` and `-shm` files, to a name that ends in a point, `word`, `-` and the Unix time.
fn set_aside(path: &Path, word: &str, now: jiff::Timestamp) -> std::io::Result<PathBuf> {
    let name = free_name(path, word, now)?;
    rename_database(path, &name)?;
    Ok(name)
}

/// As [`set_aside`], for a file that is replaced next: the file stays at its path until then, so that there is a database at
/// every moment. Where the file system has no hard links, it is renamed.
fn link_aside(path: &Path, word: &str, now: jiff::Timestamp) -> std::io::Result<PathBuf> {
    let name = free_name(path, word, now)?;
    rename_parts(path, &name)?;
    if std::fs::hard_link(path, &name).is_err() {
        std::fs::rename(path, &name)?;
    }
    Ok(name)
}

/// The name for a database that is set aside.
fn free_name(path: &Path, word: &str, now: jiff::Timestamp) -> std::io::Result<PathBuf> {
    let first = with_suffix(path, &format!(".{word}-{}", now.as_second()));
    let further = (2..1000).map(|number| with_suffix(&first, &format!("-{number}")));
    let is_free = |name: &PathBuf| std::fs::symlink_metadata(name).is_err();
    let name = std::iter::once(first.clone()).chain(further).find(is_free);
    name.ok_or_else(|| std::io::Error::other("too many files were set aside"))
}

/// Renames a database file with its `-wal` and `-shm` files. SQLite looks for those beside it, by its name.
fn rename_database(from: &Path, to: &Path) -> std::io::Result<()> {
    rename_parts(from, to)?;
    match from.exists() {
        true => std::fs::rename(from, to),
        false => Ok(()),
    }
}

fn rename_parts(from: &Path, to: &Path) -> std::io::Result<()> {
    for part in ["-wal", "-shm"] {
        let file = with_suffix(from, part);
        if file.exists() {
            std::fs::rename(&file, with_suffix(to, part))?;
        }
    }
    Ok(())
}

/// The error of a failed migration of the database at `path`.
pub(crate) fn migration_error(path: &str, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(schema) => {
            StoreError::Newer { path: path.to_owned(), schema, known: crate::migrations::newest() }
        }
        other => StoreError::Schema(other),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

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
