//! The listening sockets and the service on each. A reload opens the new sockets and closes those that are no longer
//! configured, so that unchanged ones keep their connections.

use super::hosting::{Plain, PlainHttp, Policies};
use super::http::Http;
use super::inbox::Mail;
use super::pages::Pages;
use super::sessions::Sessions;
use config::failure::Failure;
use formats::limits::PUBLIC_CONNECTIONS_PER_ADDRESS;
use listenfd::ListenFd;
use sender::answer::PolicyService;
use sender::serve::Shutdown;
use sender::serve::lines::Lines;
use sender::serve::listen::{Address, Listener, Serve, SocketFileOptions, run_with};
use sender::serve::socketmap::Socketmap;
use std::collections::HashMap;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

/// The service on a socket.
#[derive(Clone)]
pub enum Role {
    /// Postfix's socketmap protocol.
    Socketmap(Socketmap),
    /// The line protocol for Exim and scripts.
    Lines(Lines),
    /// Policy answers or metrics over HTTP.
    Http(Http),
    /// TLS sessions posted by other mail servers over HTTP.
    Sessions(Sessions),
    /// The control socket, for the operator only.
    Control(Http),
    /// The administration interface, which requires a token.
    Admin(Http),
    /// Policy files over HTTPS.
    Policies(Policies),
    /// Policy files over plain HTTP, for a proxy.
    PlainHttp(PlainHttp),
    /// ACME challenges over HTTP.
    Plain(Plain),
    /// Report mail by SMTP.
    Smtp(Mail),
    /// Report mail by LMTP, from the operator's mail server.
    Lmtp(Mail),
    /// The dashboard.
    Pages(Pages),
}

impl Role {
    pub fn socketmap(answers: Arc<PolicyService>) -> Self {
        Self::Socketmap(Socketmap(answers))
    }

    pub fn lines(answers: Arc<PolicyService>) -> Self {
        Self::Lines(Lines(answers))
    }

    /// The handler of its connections.
    fn service(self) -> Arc<dyn Serve> {
        match self {
            Self::Socketmap(service) => Arc::new(service),
            Self::Lines(service) => Arc::new(service),
            Self::Http(service) | Self::Control(service) | Self::Admin(service) => Arc::new(service),
            Self::Sessions(service) => Arc::new(service),
            Self::Policies(service) => Arc::new(service),
            Self::PlainHttp(service) => Arc::new(service),
            Self::Plain(service) => Arc::new(service),
            Self::Pages(service) => Arc::new(service),
            Self::Smtp(service) | Self::Lmtp(service) => Arc::new(service),
        }
    }

    /// True for services that anyone on the Internet may reach.
    fn is_public(&self) -> bool {
        match self {
            Self::Policies(_) | Self::PlainHttp(_) | Self::Plain(_) | Self::Smtp(_) | Self::Pages(_) => true,
            Self::Sessions(sessions) => sessions.has_token(),
            _ => false,
        }
    }

    /// True for services that are, or often are, behind a proxy.
    fn is_behind_proxy(&self) -> bool {
        match self {
            Self::Policies(policies) => policies.proxy_header,
            Self::Plain(plain) => plain.proxy_header,
            Self::Sessions(sessions) => sessions.is_behind_proxy(),
            Self::PlainHttp(_) => true,
            Self::Pages(pages) => pages.is_behind_proxy(),
            _ => false,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Socketmap(_) => "socketmap",
            Self::Lines(_) => "lines",
            Self::Http(_) => "http",
            Self::Sessions(_) => "sessions",
            Self::Control(_) => "control",
            Self::Admin(_) => "admin",
            Self::Policies(_) => "policies",
            Self::PlainHttp(_) => "policies for a proxy",
            Self::Plain(_) => "challenges",
            Self::Smtp(_) => "smtp",
            Self::Lmtp(_) => "lmtp",
            Self::Pages(_) => "dashboard",
        }
    }
}

/// The open sockets.
pub struct Listeners {
    shutdown: Shutdown,
    open: HashMap<(Address, Discriminant<Role>), Shutdown>,
}

/// The file mode of the control socket.
const OWNER_ONLY_MODE: u32 = 0o600;

impl Listeners {
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, open: HashMap::new() }
    }

    /// Opens the sockets in `wanted` that are not open, then closes those that are not in `wanted`. If one can't be
    /// opened, nothing is changed.
    pub async fn set(&mut self, wanted: &[(Address, Role)], file: SocketFileOptions) -> Result<(), Failure> {
        let mut bound = Vec::new();
        for (address, role) in
            wanted.iter().filter(|(address, role)| !self.open.contains_key(&key(address, role)))
        {
            let options = match role {
                Role::Control(_) => SocketFileOptions { mode: Some(OWNER_ONLY_MODE), owner: None },
                _ => file,
            };
            let listeners = bind(address, options).await.map_err(|error| {
                Failure::usage(
                    format!("{} can't listen at {address}", role.word()),
                    error,
                    "`sternpost config check` finds the reason: another program at this address, a missing folder of a Unix socket, or a port below 1024 without root or CAP_NET_BIND_SERVICE.",
                )
            })?;
            bound.push((address, role, listeners));
        }
        for (address, role, listeners) in bound {
            let shutdown = self.shutdown.child();
            self.open.insert(key(address, role), shutdown.clone());
            for listener in listeners {
                self.start(listener, address, role, &shutdown);
            }
        }
        self.open.retain(|open, shutdown| {
            let stays = wanted.iter().any(|(address, role)| key(address, role) == *open);
            if !stays {
                tracing::info!(address = %open.0, "socket closed");
                shutdown.token.cancel();
            }
            stays
        });
        Ok(())
    }

    fn start(&self, listener: Listener, address: &Address, role: &Role, shutdown: &Shutdown) {
        let (role, shutdown) = (role.clone(), shutdown.clone());
        tracing::info!(address = listener.shown(), role = role.word(), "listening");
        if address.is_exposed() && !role.is_public() {
            tracing::warn!(%address, "this address is reachable from other hosts and the protocol has no authentication; restrict it with a firewall");
        }
        // Connections from a proxy's address belong to many clients, so they are not limited per address.
        let each =
            Some(PUBLIC_CONNECTIONS_PER_ADDRESS).filter(|_| role.is_public() && !role.is_behind_proxy());
        self.shutdown.tasks.spawn(async move {
            run_with(listener, role.service(), shutdown, each).await;
        });
    }
}

fn key(address: &Address, role: &Role) -> (Address, Discriminant<Role>) {
    (address.clone(), discriminant(role))
}

async fn bind(address: &Address, options: SocketFileOptions) -> io::Result<Vec<Listener>> {
    match address {
        Address::Systemd => from_systemd(),
        other => Ok(vec![Listener::bind(other, options).await?]),
    }
}

/// All sockets passed by a systemd socket unit.
fn from_systemd() -> io::Result<Vec<Listener>> {
    let mut all = ListenFd::from_env();
    let mut listeners = Vec::new();
    for at in 0..all.len() {
        if let Ok(Some(tcp)) = all.take_tcp_listener(at) {
            tcp.set_nonblocking(true)?;
            listeners.push(Listener::Tcp(tokio::net::TcpListener::from_std(tcp)?));
        } else if let Some(unix) = all.take_unix_listener(at)? {
            unix.set_nonblocking(true)?;
            listeners.push(Listener::Unix(tokio::net::UnixListener::from_std(unix)?, None));
        }
    }
    match listeners.is_empty() {
        true => Err(io::Error::other("systemd passed no sockets (LISTEN_FDS is not set)")),
        false => Ok(listeners),
    }
}
