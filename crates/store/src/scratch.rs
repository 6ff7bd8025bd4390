//! A new store for each test of this crate: an SQLite file, or with the feature `postgres` and the variable
//! `STERNPOST_TEST_POSTGRES` a schema of its own in the database that the variable names. So all tests run on both
//! databases, in two runs.

use crate::Store;
use crate::database::{Access, Connecting, Location, Network, Stream};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;

/// Keeps the files of a store until the end of the test.
pub(crate) struct Scratch {
    _folder: tempfile::TempDir,
    pub(crate) location: Location,
}

impl Scratch {
    /// Opens the store again, as after a restart.
    pub(crate) async fn open(&self) -> Store {
        Store::connect(&self.location, &access(), crate::Tenant::FIRST).await.unwrap()
    }
}

pub(crate) async fn scratch() -> (Scratch, Store) {
    let folder = tempfile::tempdir().unwrap();
    let scratch = Scratch { location: location(folder.path()).await, _folder: folder };
    let store = scratch.open().await;
    (scratch, store)
}

async fn location(folder: &Path) -> Location {
    #[cfg(feature = "postgres")]
    if let Some(location) = crate::database::postgres::tests::new_schema().await {
        return location;
    }
    Location::Sqlite(folder.join("s.db"))
}

/// Connects without TLS.
pub(crate) struct TestNetwork;

impl Network for TestNetwork {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a, TcpStream> {
        Box::pin(async move { TcpStream::connect((host, port)).await.map_err(|error| error.to_string()) })
    }

    fn begin_tls<'a>(
        &'a self,
        _: TcpStream,
        _: &'a str,
        _: Option<&'a Path>,
    ) -> Connecting<'a, Box<dyn Stream>> {
        Box::pin(async { Err("this network has no TLS".to_owned()) })
    }
}

/// The access of tests: migrates, and uses no password.
pub(crate) fn access() -> Access {
    Access { network: Arc::new(TestNetwork), password: None, may_migrate: true }
}
