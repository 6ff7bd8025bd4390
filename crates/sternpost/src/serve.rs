//! `sternpost serve`: runs the roles that the configuration names until it is told to stop.

pub mod api;
mod http;
mod listeners;
mod watch;

use crate::config::{AnswersConfig, Config};
use crate::failure::{Exit, Failure};
use crate::world::World;
use http::Http;
use listeners::{Listeners, Role};
use net::dns::{DnsError, Resolver, Security};
use sender::answer::{Answers, Discovery};
use sender::serve::Shutdown;
use sender::serve::listen::Address;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Store, StoreError};
use tokio::signal::unix::{SignalKind, signal};

/// How to start.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// When the store is broken, put it aside under another name and start with an empty one
    #[arg(long)]
    replace_broken_store: bool,
}

/// How long open connections have to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT; SIGHUP takes the configuration in again.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let config = Config::load(named)?;
    log(&config);
    let Some(role) = &config.answers else {
        return Err(Failure::usage(
            "nothing to serve",
            "the configuration switches no role on",
            "For policy answers to Postfix, write into sternpost.toml\n  [answers]",
        ));
    };
    let store = open(&config.store, options).await?;
    let world = World::new(&config)?;
    let resolver = world.resolver.clone();
    let answers = answers(world, role, store.clone());
    let shutdown = Shutdown::default();
    let mut listeners = Listeners::new(shutdown.clone());
    listeners.set(&wanted(&config, role, &answers), role.socket_file).await?;
    let fresh = tokio::spawn(answers.clone().keep_fresh());
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(store = %config.store.display(), overrides = role.settings.overrides.len(), "ready");
    let stopped = tokio::select! {
        stopped = until_stopped(&config, named, &answers, &mut listeners) => stopped,
        failure = without_dnssec(&resolver) => Err(failure),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    fresh.abort();
    if !shutdown.finish(DRAIN).await {
        tracing::warn!("connections were still busy after {} seconds and are cut", DRAIN.as_secs());
    }
    store.close().await;
    tracing::info!("stopped");
    stopped.map(|()| Exit::Fine)
}

fn log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SPOST_LOG").unwrap_or_else(|_| {
        format!(
            "error,sternpost={0},sternpost_sender={0},sternpost_net={0},sternpost_store={0}",
            config.log_level
        )
        .into()
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Another subscriber stands only in tests.
    let _ = match config.log_json {
        true => builder.json().try_init(),
        false => builder.with_target(false).try_init(),
    };
}

async fn open(path: &Path, options: &Options) -> Result<Store, Failure> {
    let shown = path.display();
    match Store::open(path).await {
        Ok(store) => Ok(store),
        Err(StoreError::Broken { .. }) if options.replace_broken_store => {
            let fail = |error: &dyn std::fmt::Display| {
                Failure::new(format!("the broken store {shown} can't be replaced"), error, "")
            };
            let aside = Store::set_aside(path, jiff::Timestamp::now()).map_err(|e| fail(&e))?;
            tracing::error!(
                "the store {shown} was broken; it is kept as {}, and an empty one is in its place",
                aside.display()
            );
            Store::open(path).await.map_err(|e| fail(&e))
        }
        Err(StoreError::Broken { why, .. }) => Err(Failure::usage(
            format!("the store {shown} is broken"),
            why,
            "Put a copy of yours in its place; or start once with\n  sternpost serve --replace-broken-store\nwhich keeps the broken file under another name and begins with an empty store: until policies are\nfetched again, an attacker on the path can strip their domains.",
        )),
        Err(error) => Err(Failure::usage(
            format!("the store {shown} can't be used"),
            error,
            "The folder has to be there, with room on the disk, and the user that Sternpost runs as has to be able to write in it.\nAnother place is set by\n  store = \"sqlite:/var/lib/sternpost/sternpost.db\"",
        )),
    }
}

/// Returns only when DNSSEC can't work here: then every look-up would fail and all mail would wait, so
/// that is an error of the set-up. Start and answers do not wait for this.
async fn without_dnssec(resolver: &Resolver) -> Failure {
    match resolver.probe().await {
        Err(DnsError::Bogus) => {
            return Failure::usage(
                "the resolver's answers can't be validated",
                "even those about the root fail DNSSEC validation, so all mail would wait",
                "Use a resolver that passes DNSSEC on, best one on this machine (Debian: apt install unbound), in\n/etc/resolv.conf or as [dns] servers. Without one, DANE can't work; switch it off by\n  [dns]\n  dnssec = \"off\"",
            );
        }
        Err(error) => tracing::warn!("the resolver does not answer about the root: {error}"),
        Ok(Security::Secure) => tracing::info!("the resolver passes DNSSEC on"),
        Ok(_) => tracing::warn!("nobody validates DNSSEC, so DANE never applies"),
    }
    std::future::pending().await
}

fn answers(world: World, role: &AnswersConfig, store: Store) -> Arc<Answers> {
    let discovery = Discovery::new(world.dns.clone(), world.policies, store.clone(), world.clock.clone());
    Answers::new(world.dns, discovery, store, world.clock, role.cache_bytes, role.settings.clone())
}

fn wanted(config: &Config, role: &AnswersConfig, answers: &Arc<Answers>) -> Vec<(Address, Role)> {
    let each = |places: &[Address], what: fn(Arc<Answers>) -> Role| {
        places.iter().map(|place| (place.clone(), what(answers.clone()))).collect::<Vec<_>>()
    };
    let mut all = each(&role.listen, Role::socketmap);
    all.extend(each(&role.lines, Role::lines));
    let http = |router| Role::Http(Http(router));
    all.extend(role.http.map(|at| (Address::Tcp(at), http(api::policies(answers.clone())))));
    all.extend(config.metrics.map(|at| (Address::Tcp(at), http(watch::pages(answers.clone())))));
    all.push((Address::Unix(config.control()), Role::Control(Http(api::control(answers.clone())))));
    all
}

async fn until_stopped(
    first: &Config,
    named: Option<&Path>,
    answers: &Arc<Answers>,
    listeners: &mut Listeners,
) -> Result<(), Failure> {
    let fail = |error| Failure::new("signals can't be listened to", error, "");
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(fail)?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => reload(first, named, answers, listeners).await,
        }
    }
}

/// Takes the configuration in again. What is wrong with it is logged, and all stays as it was.
async fn reload(first: &Config, named: Option<&Path>, answers: &Arc<Answers>, listeners: &mut Listeners) {
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Reloading]);
    let outcome = match Config::load(first.file.as_deref().or(named)) {
        Ok(config) => match &config.answers {
            Some(role) => take_in(first, &config, role, answers, listeners).await,
            None => Err(Failure::usage("[answers] is gone", "a role is switched off by a restart only", "")),
        },
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) => tracing::info!("the configuration is taken in"),
        Err(failure) => {
            tracing::error!("the configuration is not taken in, and all stays as it was: {failure}")
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

async fn take_in(
    first: &Config,
    config: &Config,
    role: &AnswersConfig,
    answers: &Arc<Answers>,
    listeners: &mut Listeners,
) -> Result<(), Failure> {
    listeners.set(&wanted(config, role, answers), role.socket_file).await?;
    answers.set(role.settings.clone());
    if !config.has_same_world(first) {
        tracing::warn!("changes to store, [dns], [trust], [lab], [log] and cache_memory take a restart");
    }
    Ok(())
}
