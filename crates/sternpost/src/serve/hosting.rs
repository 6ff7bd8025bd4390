//! The role `[host]`: policy files over HTTPS, challenges over HTTP, and what keeps both up to date.

use super::http::connection;
use crate::config::HostConfig;
use crate::failure::Failure;
use crate::rollout::holder;
use crate::world::World;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use receiver::host::order::Orders;
use receiver::host::{PolicyHost, Shelf, challenge};
use sender::serve::Shutdown;
use sender::serve::listen::{Serve, Stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::task::JoinSet;

/// Between two looks at what has changed in the store.
const REFRESH: Duration = Duration::from_secs(1);
/// Between two looks at which certificates are due.
const ORDERS: Duration = Duration::from_secs(5);

/// Policies over HTTPS.
#[derive(Clone)]
pub struct Policies(PolicyHost);

impl Serve for Policies {
    async fn serve<S: Stream>(self, stream: S, shutdown: Shutdown) {
        self.0.connection(stream, shutdown.token.cancelled_owned()).await;
    }
}

/// Plain HTTP.
#[derive(Clone)]
pub struct Plain(Store);

impl Serve for Plain {
    async fn serve<S: Stream>(self, stream: S, shutdown: Shutdown) {
        let service = service_fn(|request: Request<Incoming>| {
            let store = self.0.clone();
            async move {
                let response = challenge::respond(&store, request.method(), request.uri().path()).await;
                Ok::<_, Infallible>(response)
            }
        });
        connection(service, stream, shutdown).await;
    }
}

/// The role, ready to serve.
pub struct Hosting {
    pub policies: Policies,
    pub plain: Plain,
    shelf: Arc<Shelf>,
}

impl Hosting {
    pub async fn new(store: Store, world: &World) -> Result<Self, Failure> {
        let shelf = Shelf::new(store.clone(), world.clock.clone()).await;
        let shelf = shelf.map_err(|error| Failure::new("the store fails", error, ""))?;
        let shelf = Arc::new(shelf);
        let host = PolicyHost::new(shelf.clone());
        let host = host.map_err(|error| Failure::new("TLS can't be set up", error, ""))?;
        Ok(Self { policies: Policies(host), plain: Plain(store), shelf })
    }

    /// Keeps it up to date, until the tasks are dropped.
    pub fn keep(&self, config: &HostConfig, world: &World, tasks: &mut JoinSet<()>) {
        let shelf = self.shelf.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(REFRESH).await;
                if let Err(error) = shelf.refresh().await {
                    tracing::error!("changes of policies are not taken in, since the store fails: {error}");
                }
            }
        });
        let Some(acme) = &config.acme else { return };
        let orders = Orders {
            store: self.plain.0.clone(),
            dns: world.dns.clone(),
            clock: world.clock.clone(),
            authority: acme.clone(),
            place: config.place.clone(),
            holder: holder(),
        };
        tasks.spawn(async move {
            loop {
                if let Err(error) = orders.round().await {
                    tracing::error!("certificates are not ordered, since the store fails: {error}");
                }
                tokio::time::sleep(ORDERS).await;
            }
        });
    }
}
