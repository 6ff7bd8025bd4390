//! Opens the configured store, and describes to the operator why that fails. Connections to a PostgreSQL server are made
//! here: host names are resolved as those of the operator's other servers, and TLS trusts the configured roots.

use crate::rollout_context::file_failure;
use crate::tenants::find_tenant;
use config::Config;
use config::failure::Failure;
use net::certificate::Trust;
use net::clock::SystemClock;
use net::connect::connect_any;
use net::system_names::system_addresses;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::{Access, Connecting, Location, Network, Store, StoreError, Stream};
use tokio::net::TcpStream;

/// The access to a PostgreSQL database, as the configuration states it.
pub fn access(config: &Config) -> Access {
    Access {
        network: Arc::new(DatabaseNetwork { roots: config.ca_file.clone() }),
        password: config.store_password.clone(),
        may_migrate: config.store_migrate,
    }
}

/// Opens the configured store for the first tenant, for what concerns the whole installation.
///
/// # Errors
///
/// See [`Store::connect`].
pub async fn open_installation(config: &Config) -> Result<Store, Failure> {
    let opened = Store::connect(&config.store, &access(config), store::Tenant::FIRST).await;
    opened.map_err(|error| open_failure(&config.store, &error))
}

/// Opens the configured store for the tenant that the command line or the configuration names.
///
/// # Errors
///
/// See [`Store::connect`]; and if there is no such tenant.
pub async fn open_store(config: &Config) -> Result<Store, Failure> {
    let store = open_installation(config).await?;
    named_tenant(config, store).await
}

/// The store for the tenant that the configuration names.
pub(crate) async fn named_tenant(config: &Config, store: Store) -> Result<Store, Failure> {
    match &config.tenant {
        Some(name) => Ok(store.of_tenant(find_tenant(&store, name).await?.tenant)),
        None => Ok(store),
    }
}

/// Connects to the servers of a PostgreSQL database.
struct DatabaseNetwork {
    /// PEM file with the trusted roots; `None` means those of the system.
    roots: Option<PathBuf>,
}

impl Network for DatabaseNetwork {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a, TcpStream> {
        Box::pin(async move {
            let found = system_addresses(host).await.map_err(|error| error.to_string())?;
            let found = found.into_iter().map(|address| SocketAddr::new(address, port)).collect();
            Ok(connect_any(found, &[]).await?.0)
        })
    }

    fn begin_tls<'a>(
        &'a self,
        stream: TcpStream,
        host: &'a str,
        roots: Option<&'a Path>,
    ) -> Connecting<'a, Box<dyn Stream>> {
        Box::pin(async move {
            let trust = match roots.or(self.roots.as_deref()) {
                Some(file) => Trust::from_file(file),
                None => Trust::system(),
            };
            let trust = trust.map_err(|error| error.to_string())?;
            let config = trust.client(Arc::new(SystemClock)).map_err(|error| error.to_string())?;
            let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
            let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            let tls = tls.map_err(|error| format!("TLS with the server fails: {error}"))?;
            Ok(Box::new(tls) as Box<dyn Stream>)
        })
    }
}

/// Describes to the operator why the store can't be opened.
pub fn open_failure(location: &Location, error: &StoreError) -> Failure {
    match location {
        Location::Sqlite(path) if !matches!(error, StoreError::Unfinished { .. }) => {
            file_failure(path, error)
        }
        _ => database_failure(location, error),
    }
}

fn database_failure(location: &Location, error: &StoreError) -> Failure {
    let what = format!("the store {location} can't be opened");
    match error {
        StoreError::Outdated { .. } => Failure::usage(
            what,
            error,
            "Stop all servers of an earlier release, then run\n  sternpost store migrate",
        ),
        StoreError::Newer { .. } => Failure::usage(
            what,
            error,
            "Nothing was changed. Install that release again; or stop the servers and restore the dump that was made before the upgrade (pg_restore).",
        ),
        StoreError::Unfinished { .. } => Failure::usage(
            what,
            "a copy into it has not ended",
            "Complete the copy from the same source:\n  sternpost store copy --resume FROM TO",
        ),
        StoreError::Forbidden(why) => Failure::usage(
            what,
            why,
            "The user that Sternpost signs in as has to own the database, or needs, granted by its owner:\n  GRANT CREATE ON SCHEMA public TO …",
        ),
        StoreError::Open { why, .. } => Failure::usage(
            what,
            why,
            "Use a build with PostgreSQL, or an SQLite file:\n  store = \"sqlite:sternpost.db\"",
        ),
        StoreError::Unreachable { why, .. } => Failure::new(
            what,
            why,
            format!(
                "The server has to run, and to accept this user and store_password_file. Try\n  psql '{location}'"
            ),
        ),
        other => Failure::new(what, other, ""),
    }
}
