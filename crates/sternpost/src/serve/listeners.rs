//! The listening sockets and the service on each. A reload opens the new sockets and closes those that are no longer
//! configured, so that unchanged ones keep their connections.

use super::hosting::{Plain, PlainHttp, Policies};
use super::http::{Http, HttpsRouter};
use super::inbox::Mail;
use super::sessions::Sessions;
use super::systemd_sockets::SystemdSockets;
use super::tasks::TaskStatus;
use config::failure::Failure;
use formats::limits::PUBLIC_CONNECTIONS_PER_ADDRESS;
use nix::errno::Errno;
use sender::answer::PolicyService;
use sender::serve::Shutdown;
use sender::serve::lines::Lines;
use sender::serve::listen::{Address, Listener, Serve, SocketFileOptions, run_with};
use sender::serve::socketmap::Socketmap;
use std::collections::HashMap;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use tokio::task::JoinHandle;

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
    /// The API for control panels, which requires a token.
    Admin(HttpsRouter),
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
    Pages(HttpsRouter),
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
            Self::Http(service) | Self::Control(service) => Arc::new(service),
            Self::Sessions(service) => Arc::new(service.https().clone()),
            Self::Policies(service) => Arc::new(service),
            Self::PlainHttp(service) => Arc::new(service),
            Self::Plain(service) => Arc::new(service),
            Self::Pages(service) | Self::Admin(service) => Arc::new(service),
            Self::Smtp(service) | Self::Lmtp(service) => Arc::new(service),
        }
    }

    /// True for services that anyone on the Internet may reach.
    fn is_public(&self) -> bool {
        match self {
            Self::Policies(_) | Self::PlainHttp(_) | Self::Plain(_) | Self::Smtp(_) | Self::Pages(_) => true,
            Self::Sessions(sessions) => sessions.has_token(),
            Self::Admin(admin) => !admin.is_plain(),
            _ => false,
        }
    }

    /// True for services whose clients each have a share of the connections. A token is checked only after the connection.
    fn has_shares(&self) -> bool {
        (self.is_public() || matches!(self, Self::Admin(_) | Self::Sessions(_))) && !self.is_behind_proxy()
    }

    /// What the service requires before other hosts may reach its address; `None` if it requires nothing. The
    /// configuration checks addresses that it names; this is for sockets of systemd.
    fn protection_needed(&self) -> Option<&'static str> {
        match self {
            Self::Http(_) => Some("the protocol has no authentication; use a loopback address"),
            Self::Admin(admin) if admin.is_plain() => Some(
                "the tokens would cross the network unencrypted; set certificate and key in [admin], or use a loopback address",
            ),
            Self::Pages(pages) if !pages.is_behind_proxy() && pages.is_plain() => Some(
                "passwords would cross the network unencrypted; set certificate and key, or behind_proxy, in [dashboard]",
            ),
            Self::Sessions(sessions) if !sessions.may_be_exposed() => {
                Some("it needs token_file, and certificate and key or behind_proxy, in [collector]")
            }
            _ => None,
        }
    }

    /// True for services that are, or often are, behind a proxy.
    fn is_behind_proxy(&self) -> bool {
        match self {
            Self::Policies(policies) => policies.proxy_header,
            Self::Plain(plain) => plain.proxy_header,
            Self::Sessions(sessions) => sessions.https().is_behind_proxy(),
            Self::PlainHttp(_) => true,
            // Without a certificate there may be a proxy that has it.
            Self::Pages(pages) => pages.is_behind_proxy() || pages.is_plain(),
            _ => false,
        }
    }

    fn as_str(&self) -> &'static str {
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

/// The sockets that the server listens on.
pub struct Listeners {
    shutdown: Shutdown,
    status: Arc<TaskStatus>,
    systemd_sockets: Arc<SystemdSockets>,
    /// Addresses that other parts of the server listen on.
    beside: Vec<Address>,
    open: HashMap<Key, Open>,
}

/// An address, and what is served there.
type Key = (Address, Discriminant<Role>);

/// An address that the server listens on, with its service and tasks.
struct Open {
    role: Role,
    shutdown: Shutdown,
    /// True if a socket at all IPv6 addresses leaves IPv4 to another one.
    is_ipv6_only: bool,
    /// The tasks that accept connections, one for each socket; each owns its socket.
    accepting: Vec<JoinHandle<()>>,
}

/// The file mode of the control socket.
const OWNER_ONLY_MODE: u32 = 0o600;

impl Listeners {
    /// Opens no socket yet. A socket that ends before the shutdown is marked as down in `status`.
    pub fn new(
        shutdown: Shutdown,
        status: Arc<TaskStatus>,
        systemd_sockets: Arc<SystemdSockets>,
        beside: Vec<Address>,
    ) -> Self {
        Self { shutdown, status, systemd_sockets, beside, open: HashMap::new() }
    }

    /// Opens the sockets in `wanted` that are not open, then closes those that are not in `wanted`. If one can't be
    /// opened, nothing is changed.
    ///
    /// A socket at all IPv6 addresses serves IPv4 or leaves it to others, which can't be changed while it is bound. If that
    /// changes, the socket is closed first and opened again; its connections stay.
    pub async fn set(&mut self, wanted: &[(Address, Role)], file: SocketFileOptions) -> Result<(), Failure> {
        let all = wanted.iter().map(|(address, _)| address).chain(&self.beside);
        let all: Vec<Address> = all.cloned().collect();
        let closed = self.close_in_the_way(wanted, &all).await;
        let bound = match self.bind_new(wanted, &all, file).await {
            Ok(bound) => bound,
            Err(failure) => {
                self.reopen(closed, file).await;
                return Err(failure);
            }
        };
        for (address, role, listeners) in bound {
            let key = key(address, role);
            let before = closed.iter().find(|(of, _)| *of == key);
            let shutdown = before.map_or_else(|| self.shutdown.child(), |(_, open)| open.shutdown.clone());
            self.start(listeners, address, role, shutdown, address.leaves_ipv4_to(&all));
        }
        let is_wanted = |open: &Key| wanted.iter().any(|(address, role)| key(address, role) == *open);
        let end = |open: &Key, shutdown: &Shutdown| {
            tracing::info!(address = %open.0, "socket closed");
            shutdown.token.cancel();
        };
        self.open.retain(|open, Open { shutdown, .. }| {
            let stays = is_wanted(open);
            if !stays {
                end(open, shutdown);
            }
            stays
        });
        closed.iter().filter(|(key, _)| !is_wanted(key)).for_each(|(key, open)| end(key, &open.shutdown));
        Ok(())
    }

    /// Closes the open sockets that keep those in `wanted` from being bound: those that are to accept other address families
    /// than now, and those that are no longer wanted. Their connections stay.
    async fn close_in_the_way(&mut self, wanted: &[(Address, Role)], all: &[Address]) -> Vec<(Key, Open)> {
        let wanted: Vec<(Key, bool)> =
            wanted.iter().map(|(address, role)| (key(address, role), address.leaves_ipv4_to(all))).collect();
        let is_new = |(key, is_ipv6_only): &&(Key, bool)| {
            self.open.get(key).is_none_or(|open| open.is_ipv6_only != *is_ipv6_only)
        };
        let new: Vec<&(Key, bool)> = wanted.iter().filter(is_new).collect();
        let is_in_the_way = |key: &Key, open: &Open| match wanted.iter().any(|(wanted, _)| wanted == key) {
            true => new.iter().any(|(new, _)| new == key),
            false => {
                let this = (&key.0, open.is_ipv6_only);
                new.iter().any(|((address, _), is_ipv6_only)| excludes(this, (address, *is_ipv6_only)))
            }
        };
        let closed: Vec<(Key, Open)> = self.open.extract_if(|key, open| is_in_the_way(key, open)).collect();
        for task in closed.iter().flat_map(|(_, open)| &open.accepting) {
            task.abort();
            // A task that has ended has dropped its socket.
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        }
        closed
    }

    /// Opens the sockets again that [`Self::close_in_the_way`] closed, as they were.
    async fn reopen(&mut self, closed: Vec<(Key, Open)>, file: SocketFileOptions) {
        let before: Vec<Address> = self
            .open
            .keys()
            .chain(closed.iter().map(|(key, _)| key))
            .map(|(address, _)| address)
            .chain(&self.beside)
            .cloned()
            .collect();
        for ((address, _), open) in closed {
            match self.bind(&address, &open.role, file, &before).await {
                Ok(listeners) => {
                    self.start(listeners, &address, &open.role, open.shutdown, open.is_ipv6_only);
                }
                Err(error) => tracing::error!(%address, "the socket can't be opened again: {error}"),
            }
        }
    }

    /// Binds the addresses in `wanted` that are not open, beside `all`.
    async fn bind_new<'w>(
        &self,
        wanted: &'w [(Address, Role)],
        all: &[Address],
        file: SocketFileOptions,
    ) -> Result<Vec<(&'w Address, &'w Role, Vec<Listener>)>, Failure> {
        let mut bound = Vec::new();
        for (address, role) in
            wanted.iter().filter(|(address, role)| !self.open.contains_key(&key(address, role)))
        {
            let listeners = self.bind(address, role, file, all).await.map_err(|error| {
                Failure::usage(format!("{} can't listen at {address}", role.as_str()), error, remedy(address))
            })?;
            bound.push((address, role, listeners));
        }
        Ok(bound)
    }

    /// Binds an address for a role, or takes its sockets of systemd.
    async fn bind(
        &self,
        address: &Address,
        role: &Role,
        file: SocketFileOptions,
        all: &[Address],
    ) -> io::Result<Vec<Listener>> {
        let Address::Systemd(name) = address else {
            return match Listener::bind_beside(address, options(role, file), all).await {
                Ok(listener) => Ok(vec![listener]),
                Err(error) => without_ipv6(address, all, error).map(|()| Vec::new()),
            };
        };
        let listeners = self.systemd_sockets.listeners(name.as_deref(), all)?;
        match (listeners.iter().find(|listener| listener.is_exposed()), role.protection_needed()) {
            (Some(exposed), Some(why)) => {
                let shown = exposed.shown();
                Err(io::Error::other(format!("its socket {shown} is reachable from other hosts: {why}")))
            }
            _ => Ok(listeners),
        }
    }

    /// Serves the role on the sockets of an address.
    fn start(
        &mut self,
        listeners: Vec<Listener>,
        address: &Address,
        role: &Role,
        shutdown: Shutdown,
        is_ipv6_only: bool,
    ) {
        let accepting =
            listeners.into_iter().map(|listener| self.accept(listener, role, &shutdown)).collect();
        let open = Open { role: role.clone(), shutdown, is_ipv6_only, accepting };
        self.open.insert(key(address, role), open);
    }

    fn accept(&self, listener: Listener, role: &Role, shutdown: &Shutdown) -> JoinHandle<()> {
        let (role, shutdown) = (role.clone(), shutdown.clone());
        tracing::info!(address = listener.shown(), role = role.as_str(), "listening");
        if listener.is_exposed() && !role.is_public() {
            tracing::warn!(
                address = listener.shown(),
                "this address is reachable from other hosts and the protocol has no authentication; restrict it with a firewall"
            );
        }
        // Connections from a proxy's address belong to many clients, so they are not limited per address.
        let each = Some(PUBLIC_CONNECTIONS_PER_ADDRESS).filter(|_| role.has_shares());
        let status = self.status.clone();
        self.shutdown.tasks.spawn(async move {
            let (word, stop) = (role.as_str(), shutdown.token.clone());
            status.watch(word, stop, run_with(listener, role.service(), shutdown, each)).await;
        })
    }
}

fn key(address: &Address, role: &Role) -> Key {
    (address.clone(), discriminant(role))
}

/// The mode and owner of a role's Unix socket.
fn options(role: &Role, file: SocketFileOptions) -> SocketFileOptions {
    match role {
        Role::Control(_) => SocketFileOptions { mode: Some(OWNER_ONLY_MODE), owner: None },
        _ => file,
    }
}

/// Whether only one of two addresses can be bound, each with whether its socket accepts IPv6 only.
fn excludes(one: (&Address, bool), other: (&Address, bool)) -> bool {
    let takes_ipv4 =
        |(all, is_ipv6_only): (&Address, bool), ipv4: &Address| !is_ipv6_only && all.leaves_ipv4_to([ipv4]);
    one.0.collides(other.0) || takes_ipv4(one, other.0) || takes_ipv4(other, one.0)
}

/// Handles an address that can't be bound. It is not an error if it is all IPv6 addresses of a machine that has none,
/// and an IPv4 address with the same port is in `all`. The documented pair `[::]:443` and `0.0.0.0:443` then starts
/// anywhere.
fn without_ipv6(address: &Address, all: &[Address], error: io::Error) -> io::Result<()> {
    if error.raw_os_error() != Some(Errno::EAFNOSUPPORT as i32) {
        return Err(error);
    }
    if address.leaves_ipv4_to(all) {
        tracing::warn!(%address, "this machine has no IPv6, so only IPv4 clients are served");
        return Ok(());
    }
    Err(io::Error::other("this machine has no IPv6; set an IPv4 address, such as 0.0.0.0 with the same port"))
}

fn remedy(address: &Address) -> String {
    match address {
        Address::Systemd(name) => socket_remedy(name.as_deref()),
        Address::Unix(path) => format!(
            "The folder of {} has to exist, and this user has to be able to write to it; another program may have the socket open, or an earlier file is in its place.",
            path.display()
        ),
        Address::Tcp(tcp) => match crate::commands::config::ports::user_of(*tcp, false) {
            Some((process, name)) if name == "sternpost" => format!(
                "Another Sternpost listens there (process {process}), with this or another configuration: `systemctl status sternpost` shows whether it is the service. Stop one of them, or choose another address."
            ),
            Some((process, name)) => {
                format!("{name} listens there (process {process}). Stop that program, or choose another address.")
            }
            None => "Another program may listen there (as root, `ss -ltnp` shows which one), or the address is not one of this machine, or the port is below 1024 and this process has neither root nor CAP_NET_BIND_SERVICE.".to_owned(),
        },
    }
}

/// What to do when systemd hands over no socket for an address.
pub fn socket_remedy(name: Option<&str>) -> String {
    let name = name.unwrap_or("NAME");
    format!(
        "A socket unit hands over this one if it has\n  [Socket]\n  FileDescriptorName={name}\n  Service=sternpost.service\nEnable it while the service is stopped, then start the service. `sternpost config check` lists the socket units of this machine."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_all_its_addresses_beside_ipv4_are_left_out_and_others_are_refused_in_words() {
        let [wildcard, one, ipv4, other_port] =
            ["[::]:443", "[::1]:443", "0.0.0.0:443", "0.0.0.0:80"].map(|text| Address::parse(text).unwrap());
        let missing = || io::Error::from_raw_os_error(Errno::EAFNOSUPPORT as i32);
        let pair = [wildcard.clone(), ipv4.clone()];
        assert!(without_ipv6(&wildcard, &pair, missing()).is_ok());
        for (address, all) in [(&wildcard, vec![]), (&wildcard, vec![other_port]), (&one, vec![ipv4])] {
            let error = without_ipv6(address, &all, missing()).unwrap_err().to_string();
            assert!(error.contains("no IPv6"), "{error}");
        }
        let taken = io::Error::from_raw_os_error(Errno::EADDRINUSE as i32);
        let error = without_ipv6(&wildcard, &pair, taken).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EADDRINUSE as i32));
    }
}
