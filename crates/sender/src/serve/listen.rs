//! Listeners on TCP and Unix sockets, with a limit on the number of connections.
//!
//! The program binds a [`Listener`] for each configured [`Address`], or receives its socket from systemd. [`run`]
//! passes each accepted connection to a protocol, which implements [`Serve`].

use super::Shutdown;
use formats::limits::ANSWER_CONNECTIONS;
use net::BoxFuture;
use net::rate_limit::{ConcurrencyLimit, client};
use net::smtp::server::AnyStream;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// A listen address in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The sockets that systemd passes (LISTEN_FDS).
    Systemd,
}

impl Address {
    /// Parses `127.0.0.1:8461`, `[::1]:8461`, `unix:/run/sternpost/answers.sock` or `systemd`; `None` for other texts.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Some(Self::Unix(path.into())),
            Some(_) => None,
            None if text == "systemd" => Some(Self::Systemd),
            None => text.parse().ok().map(Self::Tcp),
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
            Self::Systemd => f.write_str("systemd"),
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
    /// is an error. [`Address::Systemd`] is always an error.
    pub async fn bind(address: &Address, options: SocketFileOptions) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Address::Unix(path) => {
                clear(path).await?;
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, Some(own(path, options)?)))
            }
            Address::Systemd => Err(io::Error::other("systemd passed no socket (LISTEN_FDS)")),
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

/// Like [`run`], with at most `each` connections at once per client address, so that no client uses up the capacity.
pub fn run_with(
    listener: Listener,
    service: Arc<dyn Serve>,
    shutdown: Shutdown,
    each: Option<usize>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let clients = each.map(ConcurrencyLimit::new);
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
                    let client_permit = match &clients {
                        Some(clients) => match clients.try_take(client(from.ip())) {
                            Some(permit) => Some(permit),
                            None => {
                                tracing::debug!(%from, "too many connections from this client; closing the new one");
                                continue;
                            }
                        },
                        None => None,
                    };
                    // Replies are small, and the client waits for each.
                    let _ = stream.set_nodelay(true);
                    shutdown.tasks.spawn(async move {
                        service.serve(Box::new(stream), Some(from.ip()), of_task).await;
                        drop((permit, client_permit));
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
            Accepted::Tcp(stream, from)
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
        assert_eq!(Address::parse("systemd"), Some(Address::Systemd));
        for text in ["127.0.0.1:1", "[::1]:2", "unix:/x"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        assert!(["", "unix:", "127.0.0.1", "localhost:1"].iter().all(|bad| Address::parse(bad).is_none()));
        assert!(Address::parse("0.0.0.0:1").unwrap().is_exposed());
        assert!(!Address::parse("127.0.0.9:1").unwrap().is_exposed());
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
