//! Backups of an SQLite file: [`Store::back_up`] writes one while other processes use the file, and [`Store::restore`] puts
//! one in the place of the file. Neither migrates the schema, so a backup can be made before an upgrade, by either release.
//!
//! A copy is written by `VACUUM INTO`: it is one state of the database, with everything that was committed when the copy
//! began, and without free space. Copying the file itself would miss what is only in its write-ahead log.

use super::sqlite::{Owner, code, create_private, is_broken, reason};
use super::{Store, StoreError, with_suffix};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode};
use sqlx::{Connection, SqliteConnection};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a copy waits for a lock of another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A copy that was written and verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupInfo {
    /// The size of its file in bytes.
    pub bytes: u64,
    /// The number of its last migration, which says how new the release is that made it.
    pub schema: i64,
}

/// What a restored store does with the policies in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredPolicies {
    /// It does not serve them, since they may be older than what senders have fetched meanwhile. The next plan of each domain
    /// serves its policy again, for the MX hosts of that time; until then senders keep what they hold (RFC 8461 §3.3).
    Withheld,
    /// It serves them: nothing was published since the backup, as in a move to another machine.
    Served,
}

impl Store {
    /// Writes a copy of the SQLite file `from` to the new file `to`, which only its owner can read, and verifies it. Other
    /// processes can read and write the file meanwhile. What they commit after the beginning is not in the copy.
    ///
    /// # Errors
    ///
    /// [`StoreError::Copy`] if `to` exists or can't be written, which leaves no file behind; [`StoreError::Open`] and
    /// [`StoreError::Broken`] if `from` can't be read or is damaged. The same when the future is dropped: a file that existed
    /// before stays, and the new one is removed.
    pub async fn back_up(from: &Path, to: &Path) -> Result<BackupInfo, StoreError> {
        let partial = PartialFile::create(to, Owner::Creator)?;
        let copied = copied(from, to).await?;
        partial.complete();
        Ok(copied)
    }

    /// Replaces the SQLite file `to` by the backup `from`, which stays. A file that is at `to` is renamed with its `-wal` and
    /// `-shm` files, to a name that ends in `.replaced-` and the Unix time. Returns that name, if there was one.
    ///
    /// # Errors
    ///
    /// [`StoreError::Newer`] if a newer release made the backup, [`StoreError::InUse`] if a process has `to` open, and those
    /// of [`Store::back_up`]. Then the file at `to` is unchanged. [`StoreError::Unsynced`] if it was replaced, and perhaps not on
    /// the disk.
    pub async fn restore(
        from: &Path,
        to: &Path,
        policies: RestoredPolicies,
        now: jiff::Timestamp,
    ) -> Result<(BackupInfo, Option<PathBuf>), StoreError> {
        let written = with_suffix(to, &format!(".restoring-{}", now.as_second()));
        // One that was left by a restore that was killed.
        let _ = std::fs::remove_file(&written);
        let partial = PartialFile::create(&written, Owner::OfFolder)?;
        let copy = copied(from, &written).await?;
        let known = crate::migrations::newest();
        if copy.schema > known {
            return Err(StoreError::Newer { path: from.display().to_string(), schema: copy.schema, known });
        }
        prepare(&written, policies).await?;
        let replaced = replace(&written, to, now, sync_folder).await?;
        partial.complete();
        Ok((copy, replaced))
    }
}

/// A file that is removed unless it is completed.
struct PartialFile(Option<PathBuf>);

impl PartialFile {
    /// Creates the file, which only its owner can read.
    fn create(path: &Path, owner: Owner) -> Result<Self, StoreError> {
        let created = match std::fs::symlink_metadata(path) {
            Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists already")),
            Err(_) => create_private(path, owner),
        };
        created.map_err(|error| failed(path, error))?;
        Ok(Self(Some(path.to_owned())))
    }

    fn complete(mut self) {
        self.0 = None;
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Copies the database `from` to the empty file `to` and verifies the copy.
async fn copied(from: &Path, to: &Path) -> Result<BackupInfo, StoreError> {
    let mut source = open(from).await?;
    let copied = copy(&mut source, from, to).await;
    // Nothing was changed, so an error here does no harm.
    let _ = source.close().await;
    copied
}

/// Makes a copy ready to become the store: without the nodes of its time, which run no more, and without policies to serve if
/// these are withheld.
async fn prepare(path: &Path, policies: RestoredPolicies) -> Result<(), StoreError> {
    let change = async {
        let options = SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Delete);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        // Earlier releases have no such table.
        let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'node'";
        if sqlx::query_scalar::<_, i64>(tables).fetch_one(&mut connection).await? > 0 {
            sqlx::query("DELETE FROM node").execute(&mut connection).await?;
        }
        if policies == RestoredPolicies::Withheld {
            sqlx::query("UPDATE hosted SET policy = ''").execute(&mut connection).await?;
        }
        connection.close().await
    };
    change.await.map_err(|error: sqlx::Error| StoreError::Copy {
        path: path.display().to_string(),
        why: reason(&error),
    })
}

/// Puts a verified copy in the place of the file `to`. `sync` makes names in the folder of a file durable.
async fn replace(
    written: &Path,
    to: &Path,
    now: jiff::Timestamp,
    sync: fn(&Path) -> io::Result<()>,
) -> Result<Option<PathBuf>, StoreError> {
    let exists = std::fs::exists(to).map_err(|error| failed(to, error))?;
    if exists && is_in_use(to).await {
        return Err(StoreError::InUse { path: to.display().to_string() });
    }
    let aside = match exists {
        true => Some(super::link_aside(to, "replaced", now).map_err(|error| failed(to, error))?),
        false => None,
    };
    if let Err(error) = std::fs::rename(written, to) {
        if let Some(aside) = &aside {
            // Without the store that was there, the server would begin with an empty one.
            super::rename_database(aside, to).map_err(|error| failed(to, error))?;
            // Of two names of one file, renaming removes none.
            let _ = std::fs::remove_file(aside);
        }
        return Err(failed(to, error));
    }
    sync(to).map_err(|error| StoreError::Unsynced {
        path: to.display().to_string(),
        aside: aside.as_ref().map(|aside| aside.display().to_string()),
        why: error.to_string(),
    })?;
    Ok(aside)
}

/// Copies to the empty file `to` and verifies it.
async fn copy(source: &mut SqliteConnection, from: &Path, to: &Path) -> Result<BackupInfo, StoreError> {
    // SQLite takes a name that begins with `file:` for a URI; an absolute one never does.
    let absolute = std::path::absolute(to).map_err(|error| failed(to, error))?;
    let name = absolute.to_str().ok_or_else(|| failed(to, io::Error::other("its name is not UTF-8")))?;
    sqlx::query("VACUUM INTO $1").bind(name).execute(source).await.map_err(|error| {
        match is_broken(&error) {
            true => StoreError::Broken { path: from.display().to_string(), why: reason(&error) },
            false => StoreError::Copy { path: to.display().to_string(), why: reason(&error) },
        }
    })?;
    let schema = verify(to).await?;
    // SQLite does not wait for the disk here.
    let file = File::open(to).and_then(|file| file.sync_all().map(|()| file));
    let bytes = file.and_then(|file| file.metadata()).map_err(|error| failed(to, error))?.len();
    sync_folder(to).map_err(|error| failed(to, error))?;
    Ok(BackupInfo { bytes, schema })
}

/// Checks every page, index and reference of a copy. Returns the number of its last migration.
async fn verify(path: &Path) -> Result<i64, StoreError> {
    let broken = |why: String| StoreError::Broken { path: path.display().to_string(), why };
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(true);
    let read = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let found: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check(3)").fetch_all(&mut connection).await?;
        let references = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await?.len();
        let schema: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>((found, references, schema))
    };
    let (found, references, schema) = read.await.map_err(|error| broken(reason(&error)))?;
    if found != ["ok"] {
        return Err(broken(found.join("; ")));
    }
    match (references, schema) {
        (0, Some(schema)) => Ok(schema),
        (0, None) => Err(broken("it has no tables of Sternpost".to_owned())),
        (count, _) => Err(broken(format!("{count} rows refer to rows that do not exist"))),
    }
}

/// Opens a database that exists, as it is.
pub(super) async fn open(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new().filename(path).busy_timeout(LOCK_TIMEOUT);
    let fail = |error: sqlx::Error| {
        let (path, why) = (path.display().to_string(), reason(&error));
        if is_broken(&error) { StoreError::Broken { path, why } } else { StoreError::Open { path, why } }
    };
    // SQLite's own message for a missing file does not say that it is missing.
    std::fs::metadata(path).map_err(|error| fail(sqlx::Error::Io(error)))?;
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(fail)?;
    // SQLite reads the file with the first statement.
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let found: i64 = sqlx::query_scalar(tables).fetch_one(&mut connection).await.map_err(fail)?;
    match found {
        0 => Err(StoreError::Broken {
            path: path.display().to_string(),
            why: "it is not a store of Sternpost".to_owned(),
        }),
        _ => Ok(connection),
    }
}

/// True if another process has the database open: each connection holds a lock while the journal mode is WAL.
pub(super) async fn is_in_use(path: &Path) -> bool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .locking_mode(SqliteLockingMode::Exclusive)
        .busy_timeout(Duration::ZERO);
    let lock = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection).await?;
        sqlx::query("COMMIT").execute(&mut connection).await?;
        connection.close().await
    };
    // A damaged file is in the way of nobody.
    lock.await.is_err_and(|error| code(&error).is_some_and(|code| matches!(code & 0xff, 5 | 6)))
}

fn failed(path: &Path, error: io::Error) -> StoreError {
    StoreError::Copy { path: path.display().to_string(), why: error.to_string() }
}

/// Makes a new name in the folder of `path` durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::sql;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn seven() -> jiff::Timestamp {
        jiff::Timestamp::from_second(7).unwrap()
    }

    /// The number of rows of a table, which stands for the content.
    async fn rows(store: &Store) -> i64 {
        sql("SELECT count(*) FROM lease").fetch_all::<(i64,)>(store).await.unwrap()[0].0
    }

    async fn add(store: &Store, name: &str) {
        let insert = "INSERT INTO lease (name, holder, expires_at) VALUES ($1, 'h', 1)";
        sql(insert).bind(name).execute(store).await.unwrap();
    }

    #[tokio::test]
    async fn a_restored_store_has_no_nodes_of_the_time_of_the_backup() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("s.db"), dir.path().join("copy"));
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        let node = crate::nodes::NodeInfo {
            id: "1".to_owned(),
            holder: "h".to_owned(),
            name: "mail".to_owned(),
            version: "1".to_owned(),
            roles: Vec::new(),
        };
        store.keep_node(&node, seven()).await.unwrap();
        Store::back_up(&path, &copy).await.unwrap();
        assert_eq!(store.nodes(seven()).await.unwrap().len(), 1);
        store.close().await;
        for policies in [RestoredPolicies::Withheld, RestoredPolicies::Served] {
            Store::restore(&copy, &path, policies, seven()).await.unwrap();
            let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
            assert!(store.nodes(seven()).await.unwrap().is_empty());
            store.close().await;
            std::fs::remove_file(&path).unwrap();
            std::fs::remove_file(dir.path().join("s.db.replaced-7")).ok();
        }
    }

    #[tokio::test]
    async fn a_backup_of_a_store_in_use_has_what_was_committed_and_is_readable_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("s.db"), dir.path().join("copy"));
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        add(&store, "a").await;
        // A transaction that is open neither blocks the backup nor gets into it.
        let mut writing = store.writing().await.unwrap();
        let insert = "INSERT INTO lease (name, holder, expires_at) VALUES ('b', 'h', 1)";
        sql(insert).execute(&mut writing).await.unwrap();
        let info = Store::back_up(&path, &copy).await.unwrap();
        writing.commit().await.unwrap();
        assert_eq!(rows(&store).await, 2);
        let metadata = std::fs::metadata(&copy).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.len()), (0o600, info.bytes));
        assert_eq!(info.schema, crate::migrations::newest());
        let copied = Store::open(&copy, crate::Tenant::FIRST).await.unwrap();
        assert_eq!(rows(&copied).await, 1);
        add(&copied, "c").await;
        // A file that is not the store's is not overwritten, nor is a link followed.
        let before = std::fs::read(&copy).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        for to in [&copy, &link] {
            let error = Store::back_up(&path, to).await.unwrap_err().to_string();
            assert!(error.contains("the file exists already"), "{error}");
        }
        assert_eq!(std::fs::read(&copy).unwrap(), before);
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[tokio::test]
    async fn a_backup_that_is_given_up_leaves_an_older_one_and_removes_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (path, older, new) = (dir.path().join("s.db"), dir.path().join("older"), dir.path().join("new"));
        Store::open(&path, crate::Tenant::FIRST).await.unwrap().close().await;
        std::fs::write(&older, "an older backup").unwrap();
        // Another process keeps the store to itself.
        let options = SqliteConnectOptions::new().filename(&path).locking_mode(SqliteLockingMode::Exclusive);
        let mut other = SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
        for to in [&older, &new] {
            let given_up = tokio::time::timeout(Duration::from_millis(50), Store::back_up(&path, to)).await;
            assert!(!given_up.is_ok_and(|ended| ended.is_ok()));
        }
        assert_eq!(std::fs::read_to_string(&older).unwrap(), "an older backup");
        assert!(!new.exists());
    }

    #[tokio::test]
    async fn a_backup_belongs_to_who_makes_it_and_a_restored_store_to_the_owner_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (path, folder) = (dir.path().join("s.db"), dir.path().join("other"));
        Store::open(&path, crate::Tenant::FIRST).await.unwrap().close().await;
        std::fs::create_dir(&folder).unwrap();
        let me = std::fs::metadata(&folder).unwrap().uid();
        let owner = if me == 0 { 1234 } else { me };
        std::os::unix::fs::chown(&folder, Some(owner), None).unwrap();
        let uid = |path: &Path| std::fs::metadata(path).unwrap().uid();
        Store::back_up(&path, &folder.join("copy")).await.unwrap();
        assert_eq!(uid(&folder.join("copy")), me);
        Store::restore(&folder.join("copy"), &folder.join("s.db"), RestoredPolicies::Withheld, seven())
            .await
            .unwrap();
        assert_eq!(uid(&folder.join("s.db")), owner);
    }

    #[tokio::test]
    async fn a_name_that_looks_like_a_uri_of_sqlite_is_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        Store::open(&path, crate::Tenant::FIRST).await.unwrap().close().await;
        let bare = Path::new("file:sternpost-test.db");
        let written = Store::back_up(&path, bare).await;
        let modes = ["file:sternpost-test.db", "sternpost-test.db"].map(|name| std::fs::metadata(name).ok());
        let _ = std::fs::remove_file("sternpost-test.db");
        std::fs::remove_file(bare).unwrap();
        written.unwrap();
        let [named, other] = modes;
        assert!(other.is_none());
        assert_eq!(named.unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_restored_store_serves_no_policy_and_one_restored_again_loses_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("s.db"), dir.path().join("copy"));
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        let domain = formats::DomainName::parse("a.example").unwrap();
        store.put_hosted(&domain, Some("version: STSv1")).await.unwrap();
        Store::back_up(&path, &copy).await.unwrap();
        store.close().await;
        let (_, first) = Store::restore(&copy, &path, RestoredPolicies::Withheld, seven()).await.unwrap();
        let (_, second) = Store::restore(&copy, &path, RestoredPolicies::Withheld, seven()).await.unwrap();
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(first.ends_with("s.db.replaced-7") && second.ends_with("s.db.replaced-7-2"), "{second:?}");
        let hosted = async |path: &Path| {
            Store::open(path, crate::Tenant::FIRST).await.unwrap().hosted(&domain).await.unwrap()
        };
        assert!(hosted(&first).await.is_some(), "the store that was there");
        assert_eq!((hosted(&second).await, hosted(&path).await), (None, None));
        Store::restore(&copy, &path, RestoredPolicies::Served, seven()).await.unwrap();
        assert!(hosted(&path).await.is_some());
    }

    #[tokio::test]
    async fn an_error_after_the_replacement_does_not_say_that_nothing_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("s.db"), dir.path().join("copy"));
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        Store::back_up(&path, &copy).await.unwrap();
        add(&store, "a").await;
        store.close().await;
        // What fails before the replacement leaves the store where it was, and nothing beside it.
        let before = std::fs::read(&path).unwrap();
        let error = replace(&dir.path().join("none"), &path, seven(), sync_folder).await.unwrap_err();
        assert!(matches!(error, StoreError::Copy { .. }), "{error}");
        assert_eq!(
            (std::fs::read(&path).unwrap(), std::fs::read_dir(dir.path()).unwrap().count()),
            (before, 2)
        );
        let fails = |_: &Path| Err(io::Error::other("no space"));
        let error = replace(&copy, &path, seven(), fails).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Unsynced { .. }), "{text}");
        let aside = format!("{}.replaced-7", path.display());
        assert!(text.contains("the backup is in place") && text.contains(&aside), "{text}");
        assert_eq!(rows(&Store::open(&path, crate::Tenant::FIRST).await.unwrap()).await, 0);
        assert_eq!(rows(&Store::open(Path::new(&aside), crate::Tenant::FIRST).await.unwrap()).await, 1);
    }

    #[tokio::test]
    async fn what_is_not_a_store_is_not_backed_up_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("s.db"), dir.path().join("copy"));
        let error = Store::back_up(&path, &copy).await.unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
        std::fs::write(&path, "a text file that is longer than the header of a database").unwrap();
        assert!(matches!(Store::back_up(&path, &copy).await, Err(StoreError::Broken { .. })));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(Store::back_up(&path, &copy).await, Err(StoreError::Broken { .. })));
        std::fs::remove_file(&path).unwrap();
        // A store with a damaged page.
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        for at in 0..2000 {
            add(&store, &format!("{at} {}", "x".repeat(200))).await;
        }
        store.close().await;
        let mut bytes = std::fs::read(&path).unwrap();
        let (length, page) = (bytes.len(), 4096);
        bytes[length - 3 * page..length - 2 * page].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let error = Store::back_up(&path, &copy).await.unwrap_err();
        assert!(matches!(error, StoreError::Broken { .. }), "{error}");
        assert!(!copy.exists());
    }

    #[tokio::test]
    async fn a_backup_replaces_a_store_that_no_process_has_open() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("s.db"), dir.path().join("copy"));
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        add(&store, "a").await;
        Store::back_up(&path, &copy).await.unwrap();
        add(&store, "b").await;
        let error = Store::restore(&copy, &path, RestoredPolicies::Withheld, seven()).await.unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert_eq!(rows(&store).await, 2);
        store.close().await;
        let (_, aside) = Store::restore(&copy, &path, RestoredPolicies::Withheld, seven()).await.unwrap();
        let aside = aside.unwrap();
        assert!(aside.ends_with("s.db.replaced-7"));
        let names = std::fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["copy", "s.db", "s.db.replaced-7"]);
        assert_eq!(rows(&Store::open(&path, crate::Tenant::FIRST).await.unwrap()).await, 1);
        assert_eq!(rows(&Store::open(&aside, crate::Tenant::FIRST).await.unwrap()).await, 2);
        // Also where no store exists, and in place of a damaged one.
        let elsewhere = dir.path().join("new.db");
        assert_eq!(
            Store::restore(&copy, &elsewhere, RestoredPolicies::Withheld, seven()).await.unwrap().1,
            None
        );
        std::fs::write(&elsewhere, "not a database, and longer than its header would be").unwrap();
        assert!(
            Store::restore(&copy, &elsewhere, RestoredPolicies::Withheld, seven()).await.unwrap().1.is_some()
        );
        assert_eq!(rows(&Store::open(&elsewhere, crate::Tenant::FIRST).await.unwrap()).await, 1);
    }

    #[tokio::test]
    async fn a_store_and_a_backup_of_a_newer_release_are_refused_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("s.db"), dir.path().join("copy"));
        let store = Store::open(&path, crate::Tenant::FIRST).await.unwrap();
        let known = crate::migrations::newest();
        let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
            VALUES ($1, 'later', 1, x'00', 0)";
        sql(newer).bind(known + 2).execute(&store).await.unwrap();
        store.close().await;
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(&path, crate::Tenant::FIRST).await.err().unwrap();
        assert!(
            matches!(&error, StoreError::Newer { schema, known: k, .. } if (*schema, *k) == (known + 2, known)),
            "{error}"
        );
        assert!(error.to_string().contains("newer release"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        // An older release can still back it up, for the newer one.
        Store::back_up(&path, &copy).await.unwrap();
        let other = dir.path().join("other.db");
        Store::open(&other, crate::Tenant::FIRST).await.unwrap().close().await;
        let error = Store::restore(&copy, &other, RestoredPolicies::Withheld, seven()).await.unwrap_err();
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
        assert!(
            Store::open(&other, crate::Tenant::FIRST).await.is_ok()
                && !dir.path().join("other.db.restoring-7").exists()
        );
    }
}
