//! Which sockets are open, and for what; a reload opens and closes the difference.

use super::hosting::{Plain, PlainHttp, Policies};
use super::http::Http;
use super::inbox::Mail;
use super::pages::Pages;
use config::failure::Failure;
use formats::limits::PUBLIC_CONNECTIONS_PER_ADDRESS;
use listenfd::ListenFd;
use sender::answer::Answers;
use sender::serve::Shutdown;
use sender::serve::lines::Lines;
use sender::serve::listen::{Address, Listener, Serve, SocketFileOptions, run_with};
use sender::serve::socketmap::Socketmap;
use std::collections::HashMap;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

/// What a socket is for.
#[derive(Clone)]
pub enum Role {
    /// Postfix.
    Socketmap(Socketmap),
    /// Exim and scripts.
    Lines(Lines),
    /// HTTP.
    Http(Http),
    /// Sessions of other mail servers, by HTTP.
    Sessions(Http),
    /// HTTP for the operator alone.
    Control(Http),
    /// Domains, for those who know the token.
    Admin(Http),
    /// Policy files over HTTPS.
    Policies(Policies),
    /// Policy files for a proxy.
    PlainHttp(PlainHttp),
    /// Challenges over HTTP.
    Plain(Plain),
    /// Report mail.
    Smtp(Mail),
    /// Report mail from a mail server of the operator's.
    Lmtp(Mail),
    /// Pages for people.
    Pages(Pages),
}

impl Role {
    pub fn socketmap(answers: Arc<Answers>) -> Self {
        Self::Socketmap(Socketmap(answers))
    }

    pub fn lines(answers: Arc<Answers>) -> Self {
        Self::Lines(Lines(answers))
    }

    /// The protocol that is spoken on its connections.
    fn service(self) -> Arc<dyn Serve> {
        match self {
            Self::Socketmap(service) => Arc::new(service),
            Self::Lines(service) => Arc::new(service),
            Self::Http(service) | Self::Sessions(service) | Self::Control(service) | Self::Admin(service) => {
                Arc::new(service)
            }
            Self::Policies(service) => Arc::new(service),
            Self::PlainHttp(service) => Arc::new(service),
            Self::Plain(service) => Arc::new(service),
            Self::Pages(service) => Arc::new(service),
            Self::Smtp(service) | Self::Lmtp(service) => Arc::new(service),
        }
    }

    /// True for what is made to be reached by everybody.
    fn is_public(&self) -> bool {
        matches!(
            self,
            Self::Policies(_) | Self::PlainHttp(_) | Self::Plain(_) | Self::Smtp(_) | Self::Pages(_)
        )
    }

    /// True for what is, or often is, behind a proxy.
    fn is_behind_proxy(&self) -> bool {
        match self {
            Self::Policies(policies) => policies.proxy_header,
            Self::Plain(plain) => plain.proxy_header,
            Self::PlainHttp(_) | Self::Pages(_) => true,
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

/// The mode of the control socket.
const OWNER_ONLY_MODE: u32 = 0o600;

impl Listeners {
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, open: HashMap::new() }
    }

    /// Opens what is wanted and not open, then closes what is open and not wanted. When one can't be
    /// opened, nothing is closed.
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
                    "Another program may listen there (`ss -lntpx` says which), the folder of a Unix socket has to be there, and ports under 1024 need root.",
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
                tracing::info!(address = %open.0, "no longer listens");
                shutdown.token.cancel();
            }
            stays
        });
        Ok(())
    }

    fn start(&self, listener: Listener, address: &Address, role: &Role, shutdown: &Shutdown) {
        let (role, shutdown) = (role.clone(), shutdown.clone());
        tracing::info!(address = listener.shown(), role = role.word(), "listens");
        if address.is_exposed() && !role.is_public() {
            tracing::warn!(%address, "others can reach this address, and the protocol has no authentication: keep them out by a firewall");
        }
        // A proxy's address stands for everybody whom it speaks for.
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
        Address::Systemd => handed_over(),
        other => Ok(vec![Listener::bind(other, options).await?]),
    }
}

/// The sockets of a socket unit, all of them.
fn handed_over() -> io::Result<Vec<Listener>> {
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
        true => Err(io::Error::other("systemd has handed no socket over (LISTEN_FDS is not set)")),
        false => Ok(listeners),
    }
}
