//! Listening on TCP and Unix sockets, with as many connections as the limit says.

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

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// The sockets that systemd hands over.
    Systemd,
}

impl Address {
    /// Takes `127.0.0.1:8461`, `[::1]:8461`, `unix:/run/sternpost/answers.sock` or `systemd`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Some(Self::Unix(path.into())),
            Some(_) => None,
            None if text == "systemd" => Some(Self::Systemd),
            None => text.parse().ok().map(Self::Tcp),
        }
    }

    /// True when other machines may reach it.
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

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix; the file is removed at the end when it is ours.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket, removed when it goes.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing is lost when it stays: the next start takes a dead socket's place.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// How a Unix socket's file is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketFileOptions {
    /// Its mode, such as 0o660.
    pub mode: Option<u32>,
    /// User and group by number.
    pub owner: Option<(u32, u32)>,
}

impl Listener {
    /// Binds. A Unix socket's folder must be there; a socket that nobody listens on is replaced, any
    /// other file is left alone.
    pub async fn bind(address: &Address, options: SocketFileOptions) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Address::Unix(path) => {
                clear(path).await?;
                let listener = UnixListener::bind(path)?;
                Ok(Self::Unix(listener, Some(own(path, options)?)))
            }
            Address::Systemd => Err(io::Error::other("systemd has handed no socket over (LISTEN_FDS)")),
        }
    }

    /// Where it listens, for people.
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

/// Gives a socket that was just made its owner and mode.
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

/// Makes room for a socket of any kind: removes one that nobody listens on.
pub(crate) async fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(there) if !there.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"))
        }
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
            _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        },
    }
}

/// A protocol on a connection. Streams and futures are boxed, so that each protocol is compiled once, whatever the
/// connection is; next to a system call, that costs nothing that can be measured.
pub trait Serve: Send + Sync + 'static {
    /// Serves the connection until the client, a fault or the shutdown ends it. `from` is the client's address; a Unix
    /// socket has none.
    fn serve(
        self: Arc<Self>,
        stream: AnyStream,
        from: Option<IpAddr>,
        shutdown: Shutdown,
    ) -> BoxFuture<'static, ()>;
}

/// After a failure to accept (such as: no file descriptors left).
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Accepts connections until the shutdown.
pub async fn run(listener: Listener, service: Arc<dyn Serve>, shutdown: Shutdown) {
    run_with(listener, service, shutdown, None).await;
}

/// The same, with so many connections of one address at once, so that nobody takes all the room.
pub fn run_with(
    listener: Listener,
    service: Arc<dyn Serve>,
    shutdown: Shutdown,
    each: Option<usize>,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let clients = each.map(ConcurrencyLimit::new);
        let room = Arc::new(Semaphore::new(ANSWER_CONNECTIONS));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = accept(&listener) => accepted,
                () = shutdown.token.cancelled() => return,
            };
            let (service, of_task) = (service.clone(), shutdown.clone());
            match accepted {
                Ok(Accepted::Tcp(stream, from)) => {
                    let own_place = match &clients {
                        Some(clients) => match clients.try_take(client(from.ip())) {
                            Some(place) => Some(place),
                            None => {
                                tracing::debug!(%from, "has too many connections, and this one is closed");
                                continue;
                            }
                        },
                        None => None,
                    };
                    // Replies are small and waited for.
                    let _ = stream.set_nodelay(true);
                    shutdown.tasks.spawn(async move {
                        service.serve(Box::new(stream), Some(from.ip()), of_task).await;
                        drop((place, own_place));
                    });
                }
                Ok(Accepted::Unix(stream)) => {
                    shutdown.tasks.spawn(async move {
                        service.serve(Box::new(stream), None, of_task).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(listener = listener.shown(), "a connection can't be taken: {error}");
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
    fn addresses_are_taken_as_the_configuration_has_them() {
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
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
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
        assert!(Listener::bind(&address, options).await.unwrap_err().to_string().contains("no socket"));
    }
}
