//! The Unix datagram socket that libtlsrpt writes to (LIB-06).
//!
//! The library sends without waiting, and the kernel holds as many datagrams as `net.unix.max_dgram_qlen` says when
//! the socket is made; it tells nobody of those that found no room. So a thread does nothing but receive.

use super::Collector;
use crate::serve::Shutdown;
use crate::serve::listen::{SocketFile, SocketFileOptions, clear, own};
use formats::limits::DATAGRAM_BYTES;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A bound socket.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: UnixDatagram,
    file: SocketFile,
}

/// How long the end is waited for at most.
const SOCKET_POLL: Duration = Duration::from_millis(200);

/// Where the kernel says how many datagrams wait for a socket.
const QUEUE_LENGTH_FILE: &str = "/proc/sys/net/unix/max_dgram_qlen";

/// Fewer waiting datagrams than this are too few for a busy server.
const MIN_QUEUE_LENGTH: u32 = 512;

impl DatagramSocket {
    /// Binds. The folder is made when it and the one above it are missing at most; a socket that nobody reads is replaced, any other file is
    /// left alone.
    pub async fn bind(path: &Path, options: SocketFileOptions) -> io::Result<Self> {
        make_folder(path)?;
        clear(path).await?;
        let socket = UnixDatagram::bind(path)?;
        let file = own(path, options)?;
        socket.set_read_timeout(Some(SOCKET_POLL))?;
        Ok(Self { socket, file })
    }

    /// Receives until the shutdown, in a thread of its own, which then takes what still waits and ends.
    pub fn receive(self, collector: Arc<Collector>, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
        if let Some(queue) = queue().filter(|queue| *queue < MIN_QUEUE_LENGTH) {
            tracing::warn!(
                queue,
                "the kernel holds few datagrams for a socket, and a busy mail server may lose some: set net.unix.max_dgram_qlen = {MIN_QUEUE_LENGTH} in /etc/sysctl.d and start again"
            );
        }
        let Self { socket, file } = self;
        let run = move || {
            // One byte more than is taken, to notice what is longer.
            let mut buffer = vec![0; DATAGRAM_BYTES + 1];
            while !shutdown.token.is_cancelled() {
                match socket.recv(&mut buffer) {
                    Ok(length) => collector.take(buffer.get(..length).unwrap_or_default()),
                    Err(error) if is_quiet(&error) => {}
                    Err(error) => {
                        tracing::error!("no datagram can be received: {error}");
                        std::thread::sleep(SOCKET_POLL);
                    }
                }
            }
            // Nobody finds the socket from here on, so that what waits comes to an end.
            drop(file);
            if socket.set_nonblocking(true).is_ok() {
                while let Ok(length) = socket.recv(&mut buffer) {
                    collector.take(buffer.get(..length).unwrap_or_default());
                }
            }
        };
        std::thread::Builder::new().name("collector".to_owned()).spawn(run)
    }
}

/// Postfix's queue has no `run/tlsrpt` of its own; a path that is wrong further up is not made.
fn make_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    match missing.count() {
        0 => Ok(()),
        1 | 2 => std::fs::create_dir_all(folder),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "the folders above it are not there")),
    }
}

fn is_quiet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn queue() -> Option<u32> {
    std::fs::read_to_string(QUEUE_LENGTH_FILE).ok()?.trim().parse().ok()
}
