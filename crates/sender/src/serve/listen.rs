//! Listeners on TCP and Unix sockets, with a limit on the number of connections.
//!
//! The program binds a [`Listener`] for each configured [`Address`], or receives its socket from systemd. [`run`]
//! passes each accepted connection to a protocol, which implements [`Serve`].

use super::Shutdown;
use formats::limits::ANSWER_CONNECTIONS;
use net::BoxFuture;
use net::rate_limit::ClientLimit;
use net::smtp::server::AnyStream;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6V6Only;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::Semaphore;

/// A listen address in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// Sockets that systemd hands over (LISTEN_FDS): those with this name, or `None` for all that no other address names.
    Systemd(Option<String>),
}

/// The most characters of a socket's name in systemd (FileDescriptorName=).
const MAX_NAME_CHARS: usize = 255;

/// True for a name that a socket unit can give: printable ASCII without colons (systemd.socket(5)).
fn is_socket_name(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    (1..=MAX_NAME_CHARS).contains(&name.len()) && name.bytes().all(is_fit)
}

impl Address {
    /// Parses `127.0.0.1:8461`, `[::1]:8461`, `unix:/run/sternpost/answers.sock`, `systemd` or `systemd:NAME`; `None` for
    /// other texts.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("unix", path)) => (!path.is_empty()).then(|| Self::Unix(path.into())),
            Some(("systemd", name)) => is_socket_name(name).then(|| Self::Systemd(Some(name.to_owned()))),
            None if text == "systemd" => Some(Self::Systemd(None)),
            _ => text.parse().ok().map(Self::Tcp),
        }
    }

    /// True if only one of the two can be bound: the same TCP port at the same address or at all addresses of its family,
    /// the same file, or the same sockets of systemd.
    pub fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let (one, other) = (unmapped(*one), unmapped(*other));
                let is_wildcard = one.ip().is_unspecified() || other.ip().is_unspecified();
                let is_same_place = one.ip() == other.ip() || is_wildcard && one.is_ipv4() == other.is_ipv4();
                one.port() == other.port() && one.port() != 0 && is_same_place
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Systemd(one), Self::Systemd(other)) => one == other,
            _ => false,
        }
    }

    /// True if a socket at this address must not accept IPv4: the address is all IPv6 addresses, and `others` has an IPv4
    /// address with its port, which could not be bound beside a socket of both families.
    pub fn leaves_ipv4_to<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> bool {
        let Self::Tcp(own) = self else { return false };
        let is_beside = |other: &Self| match other {
            Self::Tcp(other) => other.port() == own.port() && unmapped(*other).is_ipv4(),
            _ => false,
        };
        own.is_ipv6() && own.ip().is_unspecified() && own.port() != 0 && others.into_iter().any(is_beside)
    }

    /// The IP address and port; `None` if it is not of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) | Self::Systemd(_) => None,
        }
    }

    /// True if other hosts may reach the address: TCP outside the loopback network.
    pub fn is_exposed(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(None) => f.write_str("systemd"),
            Self::Systemd(Some(name)) => write!(f, "systemd:{name}"),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix socket. The file is removed when dropped; it is `None` for a socket from systemd.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket, removed on drop.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A leftover file does no harm: the next start replaces a dead socket.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The mode and owner of a Unix socket's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketFileOptions {
    /// The mode, such as 0o660; `None` leaves it to the umask.
    pub mode: Option<u32>,
    /// The numeric user and group; `None` leaves the owner unchanged.
    pub owner: Option<(u32, u32)>,
}

impl Listener {
    /// Binds an address. The folder of a Unix socket must exist. A dead socket is replaced; any other file at the path
    /// is an error. [`Address::Systemd`] is always an error, since its sockets are not bound here. A socket at all IPv6 addresses accepts IPv4 too, unless the
    /// default of the system (net.ipv6.bindv6only) says otherwise.
    pub async fn bind(address: &Address, options: SocketFileOptions) -> io::Result<Self> {
        Self::bind_beside(address, options, &[]).await
    }

    /// Like [`Self::bind`], for an address among `others`, all addresses that the program listens on: a socket at all IPv6
    /// addresses leaves IPv4 to those with its port ([`Address::leaves_ipv4_to`]).
    pub async fn bind_beside(
        address: &Address,
        options: SocketFileOptions,
        others: &[Address],
    ) -> io::Result<Self> {
        match address {
            Address::Tcp(tcp) => Ok(Self::Tcp(bind_tcp(*tcp, address.leaves_ipv4_to(others))?)),
            Address::Unix(path) => {
                clear(path).await?;
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, Some(own(path, options)?)))
            }
            Address::Systemd(_) => Err(io::Error::other("systemd handed over no socket (LISTEN_FDS)")),
        }
    }

    /// True if other hosts may reach the socket, also one that systemd bound.
    pub fn is_exposed(&self) -> bool {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or(true, |address| Address::Tcp(unmapped(address)).is_exposed())
            }
            Self::Unix(..) => false,
        }
    }

    /// The address in the syntax of the configuration, for logs.
    pub fn shown(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or("?".to_owned(), |address| address.to_string())
            }
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or("unix:?".to_owned(), |path| format!("unix:{}", path.display()))
            }
        }
    }
}

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Binds a TCP socket. If `is_ipv6_only`, it accepts IPv6 only (IPV6_V6ONLY): `[::]:443` would else take the port of IPv4
/// too, and `0.0.0.0:443` beside it could not be bound.
fn bind_tcp(address: SocketAddr, is_ipv6_only: bool) -> io::Result<TcpListener> {
    let address = unmapped(address);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if is_ipv6_only {
        setsockopt(&socket, Ipv6V6Only, &true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The IPv4 address that an IPv4-mapped IPv6 address stands for; any other address unchanged.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Sets the owner and mode of a new socket.
pub(crate) fn own(path: &Path, options: SocketFileOptions) -> io::Result<SocketFile> {
    let file = SocketFile(path.to_owned());
    if let Some((user, group)) = options.owner {
        std::os::unix::fs::chown(path, Some(user), Some(group))?;
    }
    if let Some(mode) = options.mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

/// Removes a dead socket at `path`. A live socket or any other file is an error.
pub(crate) async fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(existing) if !existing.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a non-socket file exists at this path"))
        }
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        },
    }
}

/// A protocol that serves connections. Streams and futures are boxed, so each protocol is compiled once for all kinds
/// of connections. The cost is not measurable next to a system call.
pub trait Serve: Send + Sync + 'static {
    /// Serves a connection until the client, an error or the shutdown ends it. `from` is the client's address; `None`
    /// for a Unix socket.
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        from: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()>;
}

/// The delay after a failed accept, for example when no file descriptors are left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accepts connections until the shutdown.
pub async fn run(listener: Listener, service: Arc<dyn Serve>, shutdown: Shutdown) {
    run_with(listener, service, shutdown, None).await;
}

/// Like [`run`], with at most `each` connections at once per client address, and the share of [`ClientLimit`] per network, so
/// that no client and no network uses up the capacity.
pub fn run_with(
    listener: Listener,
    service: Arc<dyn Serve>,
    shutdown: Shutdown,
    each: Option<usize>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let shares = each.map(|each| ClientLimit::new(ANSWER_CONNECTIONS, Some(each)));
        let capacity = Arc::new(Semaphore::new(ANSWER_CONNECTIONS));
        loop {
            let Ok(permit) = capacity.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = shutdown.token.cancelled() => return,
            };
            let (service, of_task) = (service.clone(), shutdown.clone());
            match accepted {
                Ok(Accepted::Tcp(stream, from)) => {
                    let share = shares.as_ref().map(|shares| shares.try_take(Some(from.ip()))).transpose();
                    let Ok(share) = share else {
                        tracing::debug!(%from, "too many connections from this client or its network; closing the new one");
                        continue;
                    };
                    // Replies are small, and the client waits for each.
                    let _ = stream.set_nodelay(true);
                    shutdown.tasks.spawn(async move {
                        service.serve(Box::new(stream), Some(from.ip()), of_task).await;
                        drop((permit, share));
                    });
                }
                Ok(Accepted::Unix(stream)) => {
                    shutdown.tasks.spawn(async move {
                        service.serve(Box::new(stream), None, of_task).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(listener = listener.shown(), "accept failed: {error}");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    })
}

enum Accepted {
    Tcp(tokio::net::TcpStream, SocketAddr),
    Unix(tokio::net::UnixStream),
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    Ok(match listener {
        Listener::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            // An IPv6 socket shows an IPv4 client as an IPv4-mapped address.
            Accepted::Tcp(stream, unmapped(from))
        }
        Listener::Unix(listener, _) => Accepted::Unix(listener.accept().await?.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_syntax_of_the_configuration() {
        assert_eq!(Address::parse("unix:/a b"), Some(Address::Unix("/a b".into())));
        assert_eq!(Address::parse("systemd"), Some(Address::Systemd(None)));
        assert_eq!(Address::parse("systemd:policy"), Some(Address::Systemd(Some("policy".into()))));
        for text in ["127.0.0.1:1", "[::1]:2", "unix:/x", "unix:/x:y", "systemd", "systemd:a.b-c_1"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "unix:", "127.0.0.1", "localhost:1", "systemd:", "systemd:a:b", "systemd:a b"] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
        assert!(Address::parse("0.0.0.0:1").unwrap().is_exposed());
        assert!(!Address::parse("127.0.0.9:1").unwrap().is_exposed());
    }

    /// Binds addresses with `port` in the place of `PORT`, each beside the others.
    async fn bind_all(texts: &[&str], port: u16) -> io::Result<Vec<Listener>> {
        let all: Vec<Address> = texts
            .iter()
            .map(|text| Address::parse(&text.replace("PORT", &port.to_string())).unwrap())
            .collect();
        let mut bound = Vec::new();
        for address in &all {
            bound.push(Listener::bind_beside(address, SocketFileOptions::default(), &all).await?);
        }
        Ok(bound)
    }

    /// Does `test` in a new network namespace, whose ports are all free and whose settings are the kernel's defaults;
    /// without the right to create one, in this one.
    fn on_a_stock_network(test: impl AsyncFnOnce(u16) + Send + 'static) {
        let isolated = std::thread::spawn(|| {
            use std::net::{Ipv4Addr, Ipv6Addr};
            let is_new = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_ok()
                && std::process::Command::new("ip")
                    .args(["link", "set", "lo", "up"])
                    .status()
                    .is_ok_and(|s| s.success());
            let port = match is_new {
                true => 8461,
                false => {
                    let v6 = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
                    let port = v6.local_addr().unwrap().port();
                    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
                    port
                }
            };
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test(port));
        });
        isolated.join().unwrap();
    }

    #[test]
    fn all_ipv6_addresses_alone_serve_ipv4_too() {
        on_a_stock_network(async |port| {
            let others: [&[&str]; 3] =
                [&["[::]:PORT"], &["[::]:PORT", "127.0.0.1:1024"], &["[::]:PORT", "127.0.0.1:0"]];
            for texts in others {
                let _bound = bind_all(texts, port).await.unwrap();
                for client in ["127.0.0.1", "::1"] {
                    let connected = std::net::TcpStream::connect((client, port));
                    assert!(connected.is_ok(), "{texts:?} {client}: {connected:?}");
                }
            }
        });
    }

    #[test]
    fn a_client_with_ipv4_has_an_ipv4_address_at_a_socket_of_both_families() {
        on_a_stock_network(async |port| {
            let bound = bind_all(&["[::]:PORT"], port).await.unwrap();
            let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            let Accepted::Tcp(_, from) = accept(&bound[0]).await.unwrap() else { panic!() };
            assert_eq!(from, client.local_addr().unwrap());
        });
    }

    #[test]
    fn all_ipv6_addresses_leave_ipv4_to_an_address_with_the_same_port() {
        on_a_stock_network(async |port| {
            for texts in [
                ["[::]:PORT", "0.0.0.0:PORT"],
                ["0.0.0.0:PORT", "[::]:PORT"],
                ["[::]:PORT", "127.0.0.1:PORT"],
                ["[::]:PORT", "[::ffff:127.0.0.1]:PORT"],
            ] {
                let bound = bind_all(&texts, port).await.unwrap_or_else(|error| panic!("{texts:?}: {error}"));
                for client in ["127.0.0.1", "::1"] {
                    let connected = std::net::TcpStream::connect((client, port));
                    assert!(connected.is_ok(), "{texts:?} {client}: {connected:?}");
                }
                let twice = bind_all(&["[::1]:PORT"], port).await.unwrap_err();
                assert_eq!(twice.kind(), io::ErrorKind::AddrInUse);
                drop(bound);
            }
        });
    }

    #[test]
    fn addresses_collide_as_the_kernel_says() {
        let collides = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| Address::parse(text).unwrap());
            assert_eq!(one.collides(&other), other.collides(&one));
            one.collides(&other)
        };
        for (one, other) in [
            ("0.0.0.0:443", "0.0.0.0:443"),
            ("0.0.0.0:443", "127.0.0.1:443"),
            ("[::]:443", "[::1]:443"),
            ("[::ffff:127.0.0.1]:443", "0.0.0.0:443"),
            ("unix:/s", "unix:/s"),
            ("systemd", "systemd"),
            ("systemd:policy", "systemd:policy"),
        ] {
            assert!(collides(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("[::]:443", "0.0.0.0:443"),
            ("127.0.0.1:443", "127.0.0.2:443"),
            ("0.0.0.0:443", "0.0.0.0:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/s", "unix:/t"),
            ("systemd", "systemd:policy"),
            ("systemd:policy", "systemd:smtp"),
        ] {
            assert!(!collides(one, other), "{one} {other}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = Address::Unix(path.clone());
        let options = SocketFileOptions { mode: Some(0o640), owner: None };
        let first = Listener::bind(&address, options).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let error = Listener::bind(&address, options).await.unwrap_err();
        assert!(error.to_string().contains("another program"), "{error}");
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(Listener::bind(&address, options).await.is_ok());
        std::fs::write(&path, "text").unwrap();
        assert!(Listener::bind(&address, options).await.unwrap_err().to_string().contains("non-socket"));
    }
}
