//! A new store for each test of this crate: an SQLite file, or with the feature `postgres` a schema of its own in the
//! database that the variable `STERNPOST_TEST_POSTGRES` names. So all tests run on both databases, in two runs.

use crate::Store;
use crate::database::Location;

/// Keeps the files of a store until the end of the test.
pub(crate) struct Scratch {
    _folder: tempfile::TempDir,
    location: Location,
}

impl Scratch {
    /// Opens the store again, as after a restart.
    pub(crate) async fn open(&self) -> Store {
        Store::connect(&self.location).await.unwrap()
    }
}

pub(crate) async fn scratch() -> (Scratch, Store) {
    let folder = tempfile::tempdir().unwrap();
    #[cfg(not(feature = "postgres"))]
    let location = Location::Sqlite(folder.path().join("s.db"));
    #[cfg(feature = "postgres")]
    let location = Location::Postgres(crate::database::postgres::scratch().await);
    let scratch = Scratch { _folder: folder, location };
    let store = scratch.open().await;
    (scratch, store)
}
