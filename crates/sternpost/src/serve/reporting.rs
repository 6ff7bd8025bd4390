//! The roles `[collector]` and `[reporter]`. The collector receives TLS sessions from mail servers, as datagrams or by
//! HTTP, and stores tallies. The reporter builds reports from the tallies daily and sends them (RFC 8460). This module
//! starts and stops both; their work is in [`sender::collect`] and [`sender::report`].

use super::listeners::socket_remedy;
use super::sessions::{RemoteCollector, Sessions};
use super::systemd_sockets::SystemdSockets;
use super::tasks::{TaskStatus, Tasks};
use config::failure::Failure;
use config::{CollectorConfig, Config, Deliver, KeySpec, LoginSpec, ReporterConfig};
use jiff::{SignedDuration, Timestamp};
use net::clock::Clock;
use net::metrics::Registry;
use net::smtp::{Client, ClientConfig, Login, TlsDemand};
use operations::world::World;
use sender::collect::{Collector, DatagramSocket, Forwarder};
use sender::report::{
    Counts, DeliveryLimits, DirectDelivery, DkimKey, ProbeCounts, ReportDelivery, ReportScheduler, Rules,
    TestingProber, Transport,
};
use sender::serve::Shutdown;
use sender::serve::listen::Address;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;

/// The interval between two checks whether the thread of the collector runs.
const THREAD_POLL: Duration = Duration::from_secs(1);

/// The time for handing over the last sessions at the shutdown. Later ones wait in the store.
const LAST_HANDOVER: Duration = Duration::from_secs(5);

/// The running parts of the two roles.
pub struct Reporting {
    /// Counts sessions; `None` without `[collector]`.
    pub collector: Option<Arc<Collector>>,
    /// Receives sessions by HTTP; `None` without `collector.http`.
    pub sessions: Option<Sessions>,
    /// Hands sessions over to another machine; `None` without `collector.forward_to`.
    pub forwarder: Option<Arc<Forwarder>>,
    /// Builds and sends reports; `None` without `[reporter]`.
    pub scheduler: Option<Arc<ReportScheduler>>,
    /// Probes MX hosts under policies in testing; `None` without `reporter.tests`.
    pub prober: Option<Arc<TestingProber>>,
    receiver: Option<JoinHandle<()>>,
    sending: Option<tokio::task::JoinHandle<()>>,
    storing: Option<tokio::task::JoinHandle<()>>,
    stop: CancellationToken,
}

impl Reporting {
    /// Starts the roles `[collector]` and `[reporter]`, as far as they are configured.
    pub fn start(config: &Config, store: &Store, world: &World, tasks: &mut Tasks) -> Result<Self, Failure> {
        let collector = config.collector.as_ref().map(|role| collector(role, store, world)).transpose()?;
        let sessions = match (&config.collector, &collector) {
            (Some(role), Some(collector)) if role.http.is_some() => {
                Some(Sessions::new(role, collector.clone(), world, tasks)?)
            }
            _ => None,
        };
        let forwarder =
            config.collector.as_ref().map(|role| forwarder(role, store, world)).transpose()?.flatten();
        if let Some(forwarder) = forwarder.clone() {
            tasks.lead("forwarder", "forwarder", move |_| {
                let forwarder = forwarder.clone();
                async move { forwarder.run(CancellationToken::new()).await }
            });
        }
        let stop = CancellationToken::new();
        let storing = collector.clone().map(|collector| {
            let (status, stop) = (tasks.status.clone(), stop.clone());
            tokio::spawn(async move {
                status.supervise("collector", stop.clone(), || collector.keep_storing(stop.clone())).await;
            })
        });
        let scheduler = match &config.reporter {
            Some(role) => Some(Arc::new(scheduler(role, store, world)?)),
            None => None,
        };
        if collector.is_some() && scheduler.is_none() {
            let clock = world.clock.clone();
            tasks.lead("old-tallies", "old-tallies", move |store| delete_old_tallies(store, clock.clone()));
        }
        if let Some(scheduler) = scheduler.clone() {
            let build = move |store| scheduler.clone().keep_building(store);
            tasks.lead("report-building", "report-building", build);
        }
        let sending = scheduler.clone().map(|scheduler| {
            let (status, stop) = (tasks.status.clone(), scheduler.stop.clone());
            tokio::spawn(async move {
                status.supervise("reporter", stop, || scheduler.clone().run()).await;
            })
        });
        let prober = config.reporter.as_ref().filter(|role| role.tests).map(|_| {
            Arc::new(TestingProber {
                store: store.clone(),
                clock: world.clock.clone(),
                dns: world.dns.clone(),
                mail: world.mail.clone(),
                counts: ProbeCounts::default(),
            })
        });
        if let Some(prober) = prober.clone() {
            tasks.lead("prober", "prober", move |store| {
                let prober = TestingProber { store, ..(*prober).clone() };
                async move { prober.run().await }
            });
        }
        Ok(Self { collector, sessions, forwarder, scheduler, prober, receiver: None, sending, storing, stop })
    }

    /// Opens the datagram socket, or takes it from systemd, and receives sessions until shutdown. `all` are the listen
    /// addresses of the configuration.
    pub async fn listen(
        &mut self,
        role: &CollectorConfig,
        systemd_sockets: &SystemdSockets,
        all: &[Address],
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        let Some(collector) = self.collector.clone() else { return Ok(()) };
        let shown = match &role.socket {
            Address::Unix(path) => path.display().to_string(),
            other => other.to_string(),
        };
        let fail = |error: std::io::Error| {
            let error_kind = error.kind();
            Failure::usage(
                format!("can't collect sessions at {shown}"),
                error,
                match &role.socket {
                    Address::Systemd(name) => socket_remedy(name.as_deref()),
                    Address::Unix(path) if error_kind == std::io::ErrorKind::PermissionDenied => {
                        socket_permission_remedy(path)
                    }
                    _ => "The parent of the socket's folder must exist, and no other program may use the socket.\nSet another path with\n  [collector]\n  socket = \"/var/spool/postfix/run/tlsrpt/tlsrpt.sock\"".to_owned(),
                },
            )
        };
        let socket = match &role.socket {
            Address::Unix(path) => DatagramSocket::bind(path, role.socket_file).await,
            Address::Systemd(name) => {
                systemd_sockets.datagram(name.as_deref(), all).and_then(DatagramSocket::handed_over)
            }
            Address::Tcp(_) => Err(std::io::Error::other("it is not a Unix socket")),
        };
        let socket = socket.map_err(fail)?;
        self.receiver = Some(socket.receive(collector, shutdown.clone()).map_err(fail)?);
        tracing::info!(socket = %shown, "collecting sessions");
        Ok(())
    }

    /// Returns when the thread that receives sessions has ended before the shutdown: it panicked and can't be restarted,
    /// so the server must end. Never returns without `[collector]`.
    pub async fn collector_ended(&self, tasks: &TaskStatus) -> Failure {
        while self.receiver.as_ref().is_none_or(|thread| !thread.is_finished()) {
            tokio::time::sleep(THREAD_POLL).await;
        }
        let why = "the thread that receives sessions panicked";
        tasks.ended("collector-socket", why);
        Failure::finding(
            "no sessions are collected",
            why,
            "This is a defect. Restart the server, and report the log.",
        )
    }

    /// Waits for deliveries in progress, and stores the last sessions.
    pub async fn finish(&mut self) {
        if let (Some(scheduler), Some(sending)) = (&self.scheduler, self.sending.take()) {
            scheduler.stop.cancel();
            let _ = sending.await;
        }
        if let Some(receiver) = self.receiver.take() {
            // The shutdown ends this thread.
            let _ = tokio::task::spawn_blocking(move || receiver.join()).await;
        }
        self.stop.cancel();
        if let Some(storing) = self.storing.take() {
            let _ = storing.await;
        }
        if let Some(collector) = &self.collector
            && let Err(error) = collector.store().await
        {
            tracing::error!("the last sessions can't be stored and are lost: {error}");
        }
        if let Some(forwarder) = &self.forwarder
            && let Ok(Err(error)) = tokio::time::timeout(LAST_HANDOVER, forwarder.forward_all()).await
        {
            tracing::warn!("the last sessions wait in the store until the next start: {error}");
        }
    }

    /// Registers the metrics of the roles.
    pub fn register(&self, registry: &mut Registry) {
        if let Some(collector) = &self.collector {
            collector.counts.register(registry);
            if let Some(sessions) = &self.sessions {
                sessions.requests.register(registry);
            }
        }
        if let Some(forwarder) = &self.forwarder {
            forwarder.counts.register(registry);
        }
        if let Some(scheduler) = &self.scheduler {
            scheduler.counts.register(registry);
        }
        if let Some(prober) = &self.prober {
            prober.counts.register(registry);
        }
    }
}

/// What to do when the socket of sessions can't be created for lack of a permission.
pub fn socket_permission_remedy(path: &std::path::Path) -> String {
    let folder = path.parent().unwrap_or(path).display();
    format!(
        "The user of this process may not write to {folder}. Create it for the group of the mail server, and add the service to that group by a drop-in:\n  install -d -g postfix -m 2770 {folder}\n  [Service]\n  SupplementaryGroups=postfix\nThen: systemctl daemon-reload && systemctl restart sternpost. docs/tlsrpt-sending.md has both in full; systemd can also create the socket (sternpost-tlsrpt.socket)."
    )
}

/// Creates the collector of a role.
pub fn collector(role: &CollectorConfig, store: &Store, world: &World) -> Result<Arc<Collector>, Failure> {
    let (store, clock) = (store.clone(), world.clock.clone());
    match role.forward_to {
        Some(_) => Collector::forwarding(store, clock)
            .map_err(|error| Failure::new("sessions can't be handed over", error, "")),
        None => Ok(Collector::new(store, clock)),
    }
}

/// Creates the forwarder of a role; `None` if sessions are counted on this machine.
fn forwarder(
    role: &CollectorConfig,
    store: &Store,
    world: &World,
) -> Result<Option<Arc<Forwarder>>, Failure> {
    let (Some(url), Some(token_file)) = (&role.forward_to, &role.token_file) else { return Ok(None) };
    let to = Arc::new(RemoteCollector::new(url, token_file, world)?);
    tracing::info!(to = %url, "sessions are handed over to another machine");
    Ok(Some(Arc::new(Forwarder {
        store: store.clone(),
        to,
        clock: world.clock.clone(),
        counts: Default::default(),
    })))
}

/// Deletes old tallies daily. Needed only without `[reporter]`, which deletes them otherwise.
async fn delete_old_tallies(store: Store, clock: Arc<dyn Clock>) {
    loop {
        let kept = SignedDuration::from_hours(24 * i64::from(Rules::default().keep_tallies));
        let before = clock.now().saturating_sub(kept).unwrap_or(Timestamp::MIN);
        if let Err(error) = store.delete_tallies(before).await {
            tracing::error!("old tallies can't be deleted: {error}");
        }
        tokio::time::sleep(Duration::from_secs(86_400)).await;
    }
}

/// Creates the scheduler that builds and sends reports.
pub fn scheduler(role: &ReporterConfig, store: &Store, world: &World) -> Result<ReportScheduler, Failure> {
    Ok(ReportScheduler {
        store: store.clone(),
        clock: world.clock.clone(),
        delivery: ReportDelivery {
            dns: world.dns.clone(),
            transport: transport(&role.deliver, world)?,
            posts: world.policies.clone(),
            verify: role.verify,
            reporter: role.reporter.clone(),
            keys: role.keys.iter().map(|spec| key(spec, role)).collect::<Result<_, _>>()?,
            denied: role.denied.clone(),
            target_rules: role.targets.clone(),
            busy: DeliveryLimits::default(),
        },
        rules: role.rules.clone(),
        counts: Counts::default(),
        stop: CancellationToken::new(),
    })
}

/// Creates the transport for outgoing mail.
pub fn transport(deliver: &Deliver, world: &World) -> Result<Transport, Failure> {
    Ok(match deliver {
        Deliver::Direct => {
            Transport::Direct(DirectDelivery { dns: world.dns.clone(), mail: world.mail.clone() })
        }
        Deliver::Relay(host, port, login) => relay(host, *port, login.as_ref(), world)?,
        Deliver::Sendmail(path) => Transport::Sendmail(path.clone()),
        Deliver::Folder(dir) => Transport::Folder(dir.clone()),
    })
}

fn relay(host: &str, port: u16, login: Option<&LoginSpec>, world: &World) -> Result<Transport, Failure> {
    let mut config = ClientConfig::new(world.trust.clone(), world.helo.clone());
    // The operator chose the relay, so it may have a private address.
    config.allow_special_addresses = true;
    config.port = port;
    config.login = login.map(password).transpose()?;
    let demand = if config.login.is_some() { TlsDemand::Pkix } else { TlsDemand::Opportunistic };
    let client = Client::new(config, world.clock.clone())
        .map_err(|error| Failure::new("TLS can't be set up", error, ""))?;
    Ok(Transport::Relay { host: host.to_owned(), port, client: Arc::new(client), demand })
}

fn password(spec: &LoginSpec) -> Result<Login, Failure> {
    let shown = spec.password_file.display();
    let text = std::fs::read_to_string(&spec.password_file).map_err(|error| {
        Failure::usage(
            format!("the password file {shown} can't be read"),
            error,
            "It must contain only the relay's password.",
        )
    })?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.contains(['\r', '\n', '\0']) {
        let why = "it is empty, or has more than one line";
        return Err(Failure::usage(
            format!("the password file {shown}"),
            why,
            "It must contain only the relay's password.",
        ));
    }
    Ok(Login { user: spec.user.clone(), password: password.to_owned() })
}

/// Loads a DKIM key from its file. Its domain is that of `reporter.from` unless `spec` names one.
pub fn key(spec: &KeySpec, role: &ReporterConfig) -> Result<DkimKey, Failure> {
    let shown = spec.key_file.display();
    let remedy = "Create a key and print the record to publish with\n  sternpost reports key";
    let pem = std::fs::read_to_string(&spec.key_file)
        .map_err(|error| Failure::usage(format!("the DKIM key {shown} can't be read"), error, remedy))?;
    let domain = spec.domain.clone().unwrap_or_else(|| role.reporter.submitter().clone());
    DkimKey::from_pem(domain, spec.selector.as_str(), &pem)
        .map_err(|error| Failure::usage(format!("the DKIM key {shown} can't be used"), error, remedy))
}
