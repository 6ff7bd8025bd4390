//! The role `[host]`: serves policy files over HTTPS (RFC 8461 §3.3) and ACME challenges over HTTP, with or without a
//! proxy in front. Background tasks load policy changes from the store, reload certificate files and order
//! certificates. The server itself is [`receiver::host`].

use super::certificate;
use super::http::{HttpOptions, connection};
use super::tasks::Tasks;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use config::failure::Failure;
use config::{Config, HostConfig};
use formats::limits::HTTP_EXCHANGE_TIME;
use formats::proxy_header::{Header, header};
use net::BoxFuture;
use net::dns::AuthoritativeServers;
use net::key_files::KeyFiles;
use net::metrics::{self, Gauge, Registry};
use net::random::SystemRandomness;
use net::smtp::server::AnyStream;
use operations::challenge_zones::DomainZones;
use operations::world::World;
use operations::{holder, store_failure};
use receiver::host::authority::CaClient;
use receiver::host::counts::orders;
use receiver::host::order::{ChallengeType, DnsChallenges, Orders};
use receiver::host::vault::{Vault, VaultError};
use receiver::host::{PolicyHost, SiteCache, challenge};
use sender::serve::Shutdown;
use sender::serve::listen::Serve;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Outage, Store};
use tokio::io::AsyncReadExt;

/// Time between two checks of the store for policy changes.
const CHANGES_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two checks for CAs that are to be asked about renewals.
const RENEWALS_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two checks for challenge records of interrupted orders.
const RECORDS_INTERVAL: Duration = Duration::from_secs(60);
/// Time between two checks of certificate files for changes.
const FILES_INTERVAL: Duration = Duration::from_secs(5);
/// Time limit for the PROXY protocol header, and for the head of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves policy files over HTTPS.
#[derive(Clone)]
pub struct Policies {
    host: PolicyHost,
    /// The number of open connections.
    connections: Gauge,
    /// True when each connection begins with a PROXY protocol header.
    pub proxy_header: bool,
}

impl Serve for Policies {
    fn serve(
        self: Arc<Self>,
        mut stream: AnyStream,
        _: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if self.proxy_header && !has_proxy_header(&mut stream).await {
                return;
            }
            let _open = Open::new(&self.connections);
            self.host.connection(stream, Box::pin(shutdown.token.cancelled_owned())).await;
        })
    }
}

/// Policy files over plain HTTP, for a proxy that terminates TLS.
#[derive(Clone)]
pub struct PlainHttp {
    host: PolicyHost,
    /// The open connections, together with those of [`Policies`].
    connections: Gauge,
}

impl Serve for PlainHttp {
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        _: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let _open = Open::new(&self.connections);
            self.host.bare_connection(stream, Box::pin(shutdown.token.cancelled_owned())).await;
        })
    }
}

/// A connection that is counted until it is dropped.
struct Open(Gauge);

impl Open {
    fn new(open: &Gauge) -> Self {
        open.inc();
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// ACME HTTP-01 challenges over plain HTTP (RFC 8555 §8.3).
#[derive(Clone)]
pub struct Plain {
    router: Router,
    /// True when each connection begins with a PROXY protocol header.
    pub proxy_header: bool,
}

impl Plain {
    fn new(store: Store, proxy_header: bool) -> Self {
        let respond = move |request: Request| {
            let store = store.clone();
            async move { challenge::respond(&store, request.method(), request.uri().path()).await.map(Body::new) }
        };
        Self { router: Router::new().fallback(respond), proxy_header }
    }
}

impl Serve for Plain {
    fn serve(
        self: Arc<Self>,
        mut stream: AnyStream,
        _: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if self.proxy_header && !has_proxy_header(&mut stream).await {
                return;
            }
            let exchange = Some(HTTP_EXCHANGE_TIME);
            let options = HttpOptions { head: REQUEST_TIMEOUT, exchange, client: None };
            connection(self.router.clone(), stream, options, shutdown).await;
        })
    }
}

/// Reads the PROXY protocol header at the beginning of a connection; false when there is none.
async fn has_proxy_header(stream: &mut AnyStream) -> bool {
    let read = async {
        let mut bytes = Vec::new();
        loop {
            match header(&bytes) {
                Header::Unfinished(more) => {
                    let there = bytes.len();
                    bytes.resize(there + more, 0);
                    stream.read_exact(bytes.get_mut(there..).unwrap_or_default()).await?;
                }
                whole => return Ok::<_, io::Error>(whole),
            }
        }
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, read).await {
        Ok(Ok(Header::Whole { from })) => {
            tracing::debug!(?from, "connection from a proxy");
            true
        }
        _ => {
            tracing::debug!("connection without the PROXY protocol header that host.proxy_header requires");
            false
        }
    }
}

/// The services of the role and the state for its background tasks.
pub struct Hosting {
    pub policies: Policies,
    pub bare: PlainHttp,
    pub plain: Plain,
    store: Store,
    site_cache: Arc<SiteCache>,
    vault: Arc<Vault>,
    files: Vec<Arc<KeyFiles>>,
}

impl Hosting {
    pub async fn new(config: &HostConfig, store: Store, world: &World) -> Result<Self, Failure> {
        let vault = Arc::new(vault(config, &store).await?);
        let load = |files| certificate::load(files).map(Arc::new);
        let files: Vec<Arc<KeyFiles>> = config.certificates.iter().map(load).collect::<Result<_, _>>()?;
        let site_cache = SiteCache::new(store.clone(), world.clock.clone()).await;
        let site_cache = site_cache.map_err(|error| store_failure(&error))?;
        let site_cache = Arc::new(site_cache.with_vault(vault.clone()).with_files(files.clone()));
        let host = PolicyHost::new(site_cache.clone());
        let host = host.map_err(|error| Failure::new("TLS can't be set up", error, ""))?;
        let (proxy_header, connections) = (config.proxy_header, Gauge::default());
        Ok(Self {
            policies: Policies { host: host.clone(), connections: connections.clone(), proxy_header },
            bare: PlainHttp { host, connections },
            plain: Plain::new(store.clone(), proxy_header),
            store,
            site_cache,
            vault,
            files,
        })
    }

    /// Registers the metrics of the role.
    pub fn register(&self, registry: &mut Registry) {
        self.policies.host.counts.register(registry);
        metrics::POLICY_HOST_CONNECTIONS.register(registry, self.policies.connections.clone());
        orders().register(registry);
    }

    /// The certificates of `host.certificates`, which take precedence over ACME.
    pub fn files(&self) -> &[Arc<KeyFiles>] {
        &self.files
    }

    /// Spawns the background tasks of the role.
    pub fn keep(&self, whole: &Config, config: &HostConfig, world: &World, tasks: &mut Tasks) {
        let site_cache = self.site_cache.clone();
        tasks.spawn("policy-changes", move || load_changes(site_cache.clone()));
        if !self.files.is_empty() {
            let (files, site_cache) = (self.files.clone(), self.site_cache.clone());
            tasks.spawn("certificate-files", move || watch(files.clone(), site_cache.clone()));
        }
        if config.authorities.is_empty() {
            return;
        }
        let zones = DomainZones::new(whole.clone(), self.store.clone(), world.clock.clone());
        let servers =
            AuthoritativeServers::new(world.dns.clone(), whole.dns_port, whole.allow_private_addresses);
        let orders = Arc::new(Orders {
            store: self.store.clone(),
            dns: world.dns.clone(),
            clock: world.clock.clone(),
            authorities: config.authorities.iter().cloned().map(CaClient::new).collect(),
            challenges: match config.challenge {
                Some(challenge) => vec![challenge],
                None if config.http.is_empty() => vec![ChallengeType::TlsAlpn01],
                None => vec![ChallengeType::Http01, ChallengeType::TlsAlpn01],
            },
            dns_challenges: Some(DnsChallenges { zones: Arc::new(zones), servers: Arc::new(servers) }),
            randomness: Arc::new(SystemRandomness),
            vault: self.vault.clone(),
            policy_host_target: config.policy_host_target.clone(),
            holder: holder(),
        });
        let (of_renewals, of_records) = (orders.clone(), orders.clone());
        tasks.spawn("certificate-orders", move || order_certificates(orders.clone()));
        let follow = move |store| follow_renewals(of_renewals.on(store));
        tasks.lead("renewal-information", "renewal-information", follow);
        tasks.lead("challenge-records", "challenge-records", move |store| {
            remove_records(of_records.on(store))
        });
    }
}

/// Loads policy changes from the store.
async fn load_changes(site_cache: Arc<SiteCache>) {
    let outage = Outage::new();
    loop {
        tokio::time::sleep(CHANGES_INTERVAL).await;
        outage.log(
            &site_cache.refresh().await,
            "policy changes can't be loaded: the store fails",
            "policy changes are loaded again",
        );
    }
}

/// Orders and renews certificates.
async fn order_certificates(orders: Arc<Orders>) {
    orders.run().await;
}

/// Asks the CAs when certificates are to be renewed.
async fn follow_renewals(orders: Orders) {
    let outage = Outage::new();
    loop {
        outage.log(
            &orders.ask_round().await,
            "the renewal of certificates can't be planned: the store fails",
            "the renewal of certificates is planned again",
        );
        tokio::time::sleep(RENEWALS_INTERVAL).await;
    }
}

/// Removes the challenge records of interrupted orders.
async fn remove_records(orders: Orders) {
    let outage = Outage::new();
    loop {
        outage.log(
            &orders.remove_abandoned().await,
            "the records of challenges can't be removed: the store fails",
            "the records of challenges are removed again",
        );
        tokio::time::sleep(RECORDS_INTERVAL).await;
    }
}

/// Reloads certificate files that have changed.
async fn watch(files: Vec<Arc<KeyFiles>>, site_cache: Arc<SiteCache>) {
    loop {
        tokio::time::sleep(FILES_INTERVAL).await;
        // Unlike `any`, `count` checks every file.
        if files.iter().filter(|files| certificate::reload(files)).count() > 0 {
            site_cache.files_have_changed();
        }
    }
}

/// Opens the vault that encrypts private keys in the store, and encrypts those that are not encrypted yet.
async fn vault(config: &HostConfig, store: &Store) -> Result<Vault, Failure> {
    let vault = match &config.key_file {
        Some(file) => {
            let shown = file.display();
            let text = std::fs::read_to_string(file).map_err(|error| {
                Failure::usage(
                    format!("the key file {shown} can't be read"),
                    error,
                    "It is set with key_file in [host].",
                )
            })?;
            Vault::with_key(&text)
                .map_err(|error| Failure::usage(format!("the key file {shown}"), error, ""))?
        }
        None => Vault::default(),
    };
    match vault.prepare(store).await.map_err(|error| store_failure(&error))? {
        Ok(0) => {}
        Ok(sealed) => tracing::info!("encrypted {sealed} private keys in the store"),
        Err(error) => {
            let remedy = match error {
                VaultError::Locked => "Set the file with the key:\n  [host]\n  key_file = \"host.key\"",
                _ => "Set the key file with which they were encrypted. Without it they are lost.",
            };
            return Err(Failure::usage("the private keys in the store can't be used", error, remedy));
        }
    }
    Ok(vault)
}
