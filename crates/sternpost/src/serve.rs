//! `sternpost serve`: runs the roles that the configuration enables until SIGTERM or SIGINT. [`run`] opens the store,
//! builds each role, opens the sockets (`listeners`) and waits; SIGHUP reloads the configuration. Each role has a
//! module: `api`, `hosting`, `reporting`, `inbox` (with `report_hook`), `guard` (with `messages` and `weekly`), `pages` and
//! `metrics` (with `received_metrics`, `stored_metrics`, `process_metrics` and `readiness`). `tenants` does for further tenants what these do for the first one. `webhook` makes the requests of
//! `messages` and `report_hook`; `rehearsal` finds for `config check` what keeps a role from starting; `store_watch` and `resolver_watch` probe what all roles need.

mod alert_book;
pub mod api;
mod certificate;
mod chat;
mod guard;
mod hosting;
mod http;
pub mod inbox;
pub mod leaders;
mod listeners;
mod messages;
mod metrics;
mod pages;
mod process_metrics;
mod readiness;
mod received_metrics;
pub mod rehearsal;
mod report_hook;
pub mod reporting;
mod resolv_conf;
mod resolver_watch;
mod retention;
mod service_manager;
mod sessions;
mod store_watch;
mod stored_metrics;
mod systemd_sockets;
mod tasks;
mod tenants;
mod webhook;
mod weekly;

use crate::log;
use config::failure::{Exit, Failure};
use config::{AnswersConfig, Config, GuardConfig};
use guard::GuardRole;
use hosting::Hosting;
use http::{Http, HttpsRouter};
use inbox::MailRole;
use leaders::Leaders;
use listeners::{Listeners, Role};
use messages::Messenger;
use net::metrics::{self as table, Gauge, Gauges, Registry};
use operations::tenants::TenantList;
use operations::world::World;
use operations::{RolloutContext, access, open_failure, open_installation};
use process_metrics::ProcessMetrics;
use readiness::{Readiness, RoleName};
use received_metrics::ReceivedMetrics;
use report_hook::ReportHookRole;
use reporting::Reporting;
use resolver_watch::ResolverStatus;
use retention::RetentionTask;
use sender::answer::{Discovery, PolicyService};
use sender::serve::Shutdown;
use sender::serve::listen::{Address, SocketFileOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{Store, StoreError};
use store_watch::StoreStatus;
use stored_metrics::StoredMetrics;
use systemd_sockets::SystemdSockets;
use tasks::Tasks;
use tenants::{TenantGuards, TenantJobs};
use tokio::signal::unix::{Signal, SignalKind, signal};
use weekly::WeeklyRole;

/// The options of `sternpost serve`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// If the store is damaged, rename it and start with an empty one
    #[arg(long)]
    replace_broken_store: bool,
}

/// Time for open connections to finish at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT; SIGHUP reloads the configuration.
pub async fn run(options: &Options, named: Option<&Path>) -> Result<Exit, Failure> {
    let systemd_sockets = Arc::new(SystemdSockets::take());
    let config = Config::load(named)?;
    start_log(&config);
    if nothing_to_do(&config) {
        return Err(Failure::usage(
            "nothing to serve",
            "the configuration enables no role",
            "Add to sternpost.toml, to answer Postfix's policy queries\n  [answers]\nto serve the policies of your domains\n  [host]\nto monitor your domains\n  [guard]\nto collect TLS sessions from your mail server and report on them\n  [collector]\n  [reporter]\n  from = \"tlsrpt@example.org\"\nto receive TLS reports and show them\n  [inbox]\n  [dashboard]",
        ));
    }
    report_doubts(&config);
    fail_on_collision(&config)?;
    let store = open(&config, options).await?;
    let resolv_conf_time = resolv_conf::modified();
    let world = Arc::new(World::new(&config)?);
    let roles = RoleName::enabled(&config).into_iter().map(str::to_owned).collect();
    let leaders = Leaders::new(&store, world.clock.clone(), roles);
    let mut tasks = Tasks::new(world.clock.clone(), leaders.clone());
    let tenant_list = TenantList::new(&store);
    let mut counted = Registry::default();
    leaders.register(&mut counted);
    let hosting = match &config.host {
        Some(role) => {
            let hosting = Hosting::new(role, store.clone(), &world).await?;
            hosting.keep(&config, role, &world, &mut tasks);
            hosting.register(&mut counted);
            Some(hosting)
        }
        None => None,
    };
    if let Some(role) = &config.guard {
        let context = RolloutContext::at(config.clone(), store.clone(), world.clone()).await?;
        let guard = GuardRole::new(context, role.clone());
        guard.register(&mut counted);
        let guards = Arc::new(TenantGuards {
            tenants: tenant_list.clone(),
            config: config.clone(),
            role: role.clone(),
            store: store.clone(),
            world: world.clone(),
        });
        tasks.spawn("tenant-guards", move || guards.clone().run());
        let guard = Arc::new(tokio::sync::Mutex::new(guard));
        tasks.spawn("guard", move || {
            let guard = guard.clone();
            async move { guard.lock().await.run().await }
        });
        if let Some(time) = role.weekly {
            let context = RolloutContext::at(config.clone(), store.clone(), world.clone()).await?;
            let weekly = WeeklyRole { context, time, channels: Messenger::weekly_channels(role) };
            let weekly = Arc::new(tokio::sync::Mutex::new(weekly));
            tasks.lead("weekly-summary", "weekly-summary", move |store| {
                let weekly = weekly.clone();
                async move {
                    let mut weekly = weekly.lock().await;
                    weekly.context.store = store;
                    weekly.run().await;
                }
            });
        }
        let messenger = Arc::new(Messenger::new(role, &store, &world)?);
        messenger.counts.register(&mut counted);
        tasks.spawn("messenger", move || messenger.clone().run());
    }
    let mail = match &config.inbox {
        Some(role) => Some(MailRole::new(role, &store, &world, &mut tasks, &mut counted)?),
        None => None,
    };
    let pages = match &config.dashboard {
        Some(role) => Some(pages::pages(role, &config, &store, &world, &mut tasks).await?),
        None => None,
    };
    let admin = match &config.admin {
        Some(role) => Some(Http(web::admin::router(
            role,
            RolloutContext::at(config.clone(), store.clone(), world.clone()).await?,
        )?)),
        None => None,
    };
    let mut report_hook = None;
    if let Some(hook) = config.inbox.as_ref().and_then(|inbox| inbox.webhook.as_ref()) {
        let hook = ReportHookRole::new(hook, &store, &world)?;
        hook.posts.register(&mut counted);
        report_hook = Some(hook.clone());
        tasks.lead("report-webhook", "report-webhook", move |store| hook.on(store).run());
    }
    let reporting = Reporting::start(&config, &store, &world, &mut tasks)?;
    reporting.register(&mut counted);
    let retention = RetentionTask::new(&config, &store, world.clock.clone());
    retention.counts.register(&mut counted);
    let weekly = |role: &GuardConfig| Some((role.weekly?, Messenger::weekly_channels(role)));
    let jobs = Arc::new(TenantJobs {
        tenants: tenant_list,
        config: config.clone(),
        world: world.clone(),
        weekly: config.guard.as_ref().and_then(weekly),
        retention: retention.clone(),
        hook: report_hook,
    });
    tasks.lead("tenants", "tenants", move |store| jobs.clone().run(store));
    let retention = Arc::new(retention);
    let counting = retention.clone();
    tasks.spawn("retention-counts", move || counting.clone().keep_counting());
    tasks.lead("retention", "retention", move |store| retention.on(store).run());
    let readiness = readiness(&config, &store, &world, &mut tasks, &mut counted);
    register_shared(&config, &mut counted);
    let loaded: Gauge = Gauge::default();
    loaded.set(1);
    table::CONFIG_LOADED.register(&mut counted, loaded.clone());
    let files = certificate_files(&hosting, &mail, &pages, &reporting);
    let stored = StoredMetrics::new(&config, &store, world.clock.clone(), files);
    let received = ReceivedMetrics::new(&config, &store, world.clock.clone());
    let mut roles = Roles {
        world: world.clone(),
        answers: config.answers.as_ref().map(|role| answers(&world, role, store.clone())),
        hosting,
        mail,
        pages,
        admin,
        reporting,
        readiness,
        counted: Arc::new(counted),
        stored: Arc::new(stored),
        received: config.inbox.is_some().then(|| Arc::new(received)),
        loaded,
    };
    let shutdown = Shutdown::default();
    let addresses: Vec<Address> = config.listening().into_iter().map(|one| one.address).collect();
    if let Some(role) = &config.collector {
        roles.reporting.listen(role, &systemd_sockets, &addresses, &shutdown).await?;
    }
    let beside = config.collector.iter().map(|role| role.socket.clone()).collect();
    let mut listeners =
        Listeners::new(shutdown.clone(), tasks.status.clone(), systemd_sockets.clone(), beside);
    report_unused_sockets(&systemd_sockets, &addresses);
    listeners.set(&roles.wanted(&config), socket_file(&config)).await?;
    if let Some(answers) = &roles.answers {
        let answers = answers.clone();
        tasks.spawn("refresh", move || answers.clone().keep_fresh());
    }
    if config.dns_servers.is_empty() {
        let followed = world.clone();
        tasks.spawn("resolv-conf", move || resolv_conf::follow(followed.clone(), resolv_conf_time));
    }
    // A server that does not start is not in the list of nodes.
    let node = leaders.clone();
    tasks.spawn("node", move || node.clone().keep());
    // Before anybody learns that the server is ready: without a handler, SIGHUP would end it.
    let mut signals = Signals::install()?;
    service_manager::ready();
    tasks.spawn("watchdog", service_manager::keep_alive);
    let overrides = config.answers.as_ref().map_or(0, |role| role.settings.overrides.len());
    tracing::info!(store = %config.store, overrides, "ready");
    let stopped = tokio::select! {
        stopped = until_stopped(&mut signals, &config, named, &roles, &mut listeners) => stopped,
        failure = resolver_watch::watch(world.resolver.clone(), config.answers.is_some(), roles.readiness.resolver.clone()) => Err(failure),
        failure = roles.reporting.collector_ended(&tasks.status) => Err(failure),
    };
    service_manager::stopping();
    // Before the leases are released: another node begins with a job when this one has ended.
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, tasks.end()).await.is_err() {
        tracing::warn!("background tasks have not ended after {} seconds", SHUTDOWN_TIMEOUT.as_secs());
    }
    leaders.leave().await;
    if !shutdown.finish(SHUTDOWN_TIMEOUT).await {
        tracing::warn!(
            "closing connections that are still busy after {} seconds",
            SHUTDOWN_TIMEOUT.as_secs()
        );
    }
    roles.reporting.finish().await;
    store.close().await;
    match &stopped {
        Ok(()) => tracing::info!("stopped"),
        // The error is printed last.
        Err(_) => tracing::error!("stopped by the following error"),
    }
    stopped.map(|()| Exit::Fine)
}

/// The roles that are enabled; `None` for a disabled one.
struct Roles {
    world: Arc<World>,
    answers: Option<Arc<PolicyService>>,
    hosting: Option<Hosting>,
    mail: Option<MailRole>,
    pages: Option<HttpsRouter>,
    admin: Option<Http>,
    reporting: Reporting,
    /// The state of the roles, for `/readyz`.
    readiness: Arc<Readiness>,
    /// Counters of the roles, for `/metrics`.
    counted: Arc<Registry>,
    /// Numbers in the store, for `/metrics`.
    stored: Arc<StoredMetrics>,
    /// Sums of received reports, for `/metrics`; `None` without `[inbox]`.
    received: Option<Arc<ReceivedMetrics>>,
    /// 1 if the last loading of the configuration succeeded.
    loaded: Gauge,
}

/// Begins to watch the store and the tasks, and registers what all roles have in common.
fn readiness(
    config: &Config,
    store: &Store,
    world: &World,
    tasks: &mut Tasks,
    counted: &mut Registry,
) -> Arc<Readiness> {
    tasks.status.register(counted);
    let resolver = Arc::new(ResolverStatus::new(world.clock.clone()));
    resolver.register(counted);
    let watched = Arc::new(StoreStatus::new(world.clock.clone()));
    watched.register(counted);
    let parts = (store.clone(), watched.clone());
    tasks.spawn("store-probe", move || store_watch::watch(parts.0.clone(), parts.1.clone()));
    let readiness = Readiness::new(config, tasks.status.clone(), resolver, watched);
    readiness.register(counted);
    Arc::new(readiness)
}

/// Registers the metrics that belong to no part of a role.
fn register_shared(config: &Config, counted: &mut Registry) {
    let info = Gauges::new(&table::BUILD_INFO);
    info.set(&[env!("CARGO_PKG_VERSION")], 1);
    info.register(counted);
    counted.register_collector(Box::new(ProcessMetrics { store: config.store.file().map(Path::to_owned) }));
    let counts = web::WebCounts::shared();
    if config.dashboard.is_some() {
        counts.register_dashboard(counted);
    }
    if config.inbox.as_ref().is_some_and(|inbox| inbox.http.is_some()) {
        counts.register_posts(counted);
    }
    if config.admin.is_some() || config.collector.is_some() {
        counts.register_interfaces(counted);
    }
    if config.host.is_some() || config.guard.is_some() {
        operations::dns_changes().register(counted);
    }
}

/// The certificates in files, each with the role that uses it.
fn certificate_files(
    hosting: &Option<Hosting>,
    mail: &Option<MailRole>,
    pages: &Option<HttpsRouter>,
    reporting: &Reporting,
) -> Vec<stored_metrics::UsedFiles> {
    let of_host = hosting.iter().flat_map(|hosting| hosting.files()).map(|files| ("host", files));
    let of_inbox = mail.iter().filter_map(|mail| mail.certificate.as_ref());
    let of_pages = pages.iter().filter_map(|pages| pages.certificate());
    let of_sessions = reporting.sessions.iter().filter_map(|sessions| sessions.https().certificate());
    of_host
        .chain(of_inbox.map(|one| ("inbox", one.files())))
        .chain(of_pages.map(|one| ("dashboard", one.files())))
        .chain(of_sessions.map(|one| ("collector", one.files())))
        .map(|(role, files)| (role, files.clone()))
        .collect()
}

fn nothing_to_do(config: &Config) -> bool {
    config.answers.is_none()
        && config.host.is_none()
        && config.guard.is_none()
        && config.inbox.is_none()
        && config.dashboard.is_none()
        && config.collector.is_none()
        && config.admin.is_none()
        && config.reporter.is_none()
}

fn socket_file(config: &Config) -> SocketFileOptions {
    config.answers.as_ref().map(|role| role.socket_file).unwrap_or_default()
}

/// Logs ignored keys, files with secrets that all users can read, and services without IPv4.
fn report_doubts(config: &Config) {
    for ignored in &config.warnings {
        tracing::warn!("{ignored}");
    }
    for exposed in config.exposed_secrets() {
        tracing::warn!(
            key = exposed.key,
            file = %exposed.file.display(),
            mode = format!("{:04o}", exposed.mode),
            "every user of this machine can read or change this file with a secret; run chmod o-rwx"
        );
    }
    for (one, by) in config.without_ipv4() {
        tracing::warn!(
            key = one.key,
            address = %one.address,
            "this address accepts IPv6 only, since {} has {}",
            by.key,
            by.address
        );
    }
}

/// Logs the sockets of systemd that no key takes: clients that connect to them get no answer.
fn report_unused_sockets(systemd_sockets: &SystemdSockets, all: &[Address]) {
    for name in systemd_sockets.unused(all) {
        tracing::warn!(
            socket = name,
            "no key takes this socket of systemd, so clients that connect to it get no answer: write \"systemd:{name}\" in the key of its role, or disable its socket unit"
        );
    }
}

/// Fails if two roles listen at the same address: the second bind would fail with an error that blames another program.
fn fail_on_collision(config: &Config) -> Result<(), Failure> {
    config.collisions().into_iter().next().map_or(Ok(()), Err)
}

fn start_log(config: &Config) {
    let form = if config.log_json { log::Form::Json } else { log::Form::Text };
    log::start(&format!("error,sternpost={}", config.log_level), form);
}

async fn open(config: &Config, options: &Options) -> Result<Store, Failure> {
    let Some(path) = config.store.file() else { return open_installation(config).await };
    let shown = path.display();
    match Store::connect(&config.store, &access(config), store::Tenant::FIRST).await {
        Ok(store) => Ok(store),
        Err(StoreError::Broken { .. }) if options.replace_broken_store => {
            let fail = |error: &dyn std::fmt::Display| {
                Failure::new(format!("the damaged store {shown} can't be replaced"), error, "")
            };
            let aside = Store::set_aside(path, jiff::Timestamp::now()).map_err(|e| fail(&e))?;
            tracing::error!(
                "the store {shown} was damaged; renamed it to {} and created an empty one",
                aside.display()
            );
            Store::open(path, store::Tenant::FIRST).await.map_err(|e| fail(&e))
        }
        Err(StoreError::Broken { why, .. }) => Err(Failure::usage(
            format!("the store {shown} is damaged"),
            why,
            "Restore a backup; or start once with\n  sternpost serve --replace-broken-store\nwhich renames the damaged file and starts with an empty store: until the policies are fetched again,\nan attacker on the path can strip TLS from mail to their domains.",
        )),
        Err(error) => Err(open_failure(&config.store, &error)),
    }
}

fn answers(world: &World, role: &AnswersConfig, store: Store) -> Arc<PolicyService> {
    let discovery =
        Discovery::new(world.dns.clone(), world.policies.clone(), store.clone(), world.clock.clone());
    let (dns, clock) = (world.dns.clone(), world.clock.clone());
    let service = PolicyService::new(dns, discovery, store, clock, role.cache_bytes, role.settings.clone());
    service.set_with_maps(role.settings.clone(), role.maps.clone());
    service
}

impl Roles {
    fn wanted(&self, config: &Config) -> Vec<(Address, Role)> {
        let mut all = Vec::new();
        if let (Some(role), Some(answers)) = (&config.answers, &self.answers) {
            let each = |places: &[Address], what: fn(Arc<PolicyService>) -> Role| {
                places.iter().map(|place| (place.clone(), what(answers.clone()))).collect::<Vec<_>>()
            };
            all.extend(each(&role.listen, Role::socketmap));
            all.extend(each(&role.lines, Role::lines));
            let http = |router| Role::Http(Http(router));
            all.extend(role.http.iter().map(|at| (at.clone(), http(api::policies(answers.clone())))));
            all.push((Address::Unix(config.control()), Role::Control(Http(api::control(answers.clone())))));
        }
        let counted = metrics::Monitored {
            answers: self.answers.clone(),
            counted: self.counted.clone(),
            received: self.received.clone(),
            stored: self.stored.clone(),
            readiness: self.readiness.clone(),
        };
        let metrics = Role::Http(Http(metrics::pages(counted)));
        all.extend(config.metrics.iter().map(|at| (at.clone(), metrics.clone())));
        if let (Some(role), Some(sessions)) = (&config.collector, &self.reporting.sessions) {
            all.extend(role.http.iter().map(|at| (at.clone(), Role::Sessions(sessions.clone()))));
        }
        if let (Some(role), Some(hosting)) = (&config.host, &self.hosting) {
            all.extend(role.listen.iter().map(|at| (at.clone(), Role::Policies(hosting.policies.clone()))));
            all.extend(role.bare.iter().map(|at| (at.clone(), Role::PlainHttp(hosting.bare.clone()))));
            all.extend(role.http.iter().map(|at| (at.clone(), Role::Plain(hosting.plain.clone()))));
        }
        if let (Some(role), Some(mail)) = (&config.inbox, &self.mail) {
            all.extend(role.smtp.iter().map(|at| (at.clone(), Role::Smtp(mail.smtp.clone()))));
            all.extend(role.lmtp.iter().map(|at| (at.clone(), Role::Lmtp(mail.lmtp.clone()))));
        }
        if let (Some(role), Some(admin)) = (&config.admin, &self.admin) {
            all.push((role.listen.clone(), Role::Admin(admin.clone())));
        }
        if let (Some(role), Some(pages)) = (&config.dashboard, &self.pages) {
            all.extend(role.listen.iter().map(|at| (at.clone(), Role::Pages(pages.clone()))));
        }
        all
    }
}

async fn until_stopped(
    signals: &mut Signals,
    first: &Config,
    named: Option<&Path>,
    roles: &Roles,
    listeners: &mut Listeners,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
            _ = signals.hangup.recv() => reload(first, named, roles, listeners).await,
        }
    }
}

/// The signals that the server handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn install() -> Result<Self, Failure> {
        let install =
            |kind| signal(kind).map_err(|error| Failure::new("can't install signal handlers", error, ""));
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: install(SignalKind::hangup())?,
        })
    }
}

/// Reloads the configuration. If that fails, the previous one stays in force and the error is logged.
async fn reload(first: &Config, named: Option<&Path>, roles: &Roles, listeners: &mut Listeners) {
    service_manager::reloading();
    if first.dns_servers.is_empty() {
        // The failure is logged; the task that follows the file tries again.
        let _ = resolv_conf::reload(&roles.world, None).await;
    }
    let outcome = match Config::load(first.file.as_deref().or(named)) {
        Ok(config) => {
            report_doubts(&config);
            apply_config(first, &config, roles, listeners).await
        }
        Err(failure) => Err(failure),
    };
    roles.loaded.set(i64::from(outcome.is_ok()));
    match outcome {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(failure) => {
            tracing::error!("reload failed; keeping the previous configuration: {failure}")
        }
    }
    service_manager::ready();
}

async fn apply_config(
    first: &Config,
    config: &Config,
    roles: &Roles,
    listeners: &mut Listeners,
) -> Result<(), Failure> {
    let is_on = [
        ("answers", config.answers.is_some(), roles.answers.is_some()),
        ("host", config.host.is_some(), roles.hosting.is_some()),
        ("guard", config.guard.is_some(), first.guard.is_some()),
        ("inbox", config.inbox.is_some(), roles.mail.is_some()),
        ("dashboard", config.dashboard.is_some(), roles.pages.is_some()),
        ("admin", config.admin.is_some(), roles.admin.is_some()),
        ("collector", config.collector.is_some(), roles.reporting.collector.is_some()),
        ("reporter", config.reporter.is_some(), roles.reporting.scheduler.is_some()),
    ];
    if let Some((name, wanted, _)) = is_on.iter().find(|(_, wanted, runs)| wanted != runs) {
        let what = format!("[{name}] was {}", if *wanted { "added" } else { "removed" });
        return Err(Failure::usage(what, "enabling or disabling a role requires a restart", ""));
    }
    fail_on_collision(config)?;
    listeners.set(&roles.wanted(config), socket_file(config)).await?;
    if let (Some(role), Some(answers)) = (&config.answers, &roles.answers) {
        answers.set_with_maps(role.settings.clone(), role.maps.clone());
    }
    if !config.has_same_world(first) {
        tracing::warn!(
            "changes to store, [dns], [trust], [lab], [log], [host], [guard], [gate], [inbox], [dashboard], [admin], [collector], [reporter], domains and cache_memory require a restart"
        );
    }
    Ok(())
}
