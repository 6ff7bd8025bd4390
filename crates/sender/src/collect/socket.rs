//! The Unix datagram socket that libtlsrpt writes to (LIB-06).
//!
//! The library never blocks. The kernel queues at most `net.unix.max_dgram_qlen` datagrams, as set when the socket was
//! created, and drops further ones silently. A dedicated thread therefore receives and passes each datagram to the
//! [`Collector`].

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

/// A bound datagram socket for libtlsrpt.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: UnixDatagram,
    /// `None` for a socket of systemd, which keeps its file.
    file: Option<SocketFile>,
}

/// The read timeout: the thread notices a shutdown within this time.
const SOCKET_POLL: Duration = Duration::from_millis(200);

/// The file with the kernel's limit of queued datagrams per Unix socket.
const QUEUE_LENGTH_FILE: &str = "/proc/sys/net/unix/max_dgram_qlen";

/// The queue length, in datagrams, below which a warning is logged.
const MIN_QUEUE_LENGTH: u32 = 512;

impl DatagramSocket {
    /// Binds the socket. The folder is created if at most it and its parent are missing. A dead socket is replaced; any
    /// other file at the path is an error.
    pub async fn bind(path: &Path, options: SocketFileOptions) -> io::Result<Self> {
        make_folder(path)?;
        clear(path).await?;
        let socket = UnixDatagram::bind(path)?;
        let file = own(path, options)?;
        socket.set_read_timeout(Some(SOCKET_POLL))?;
        Ok(Self { socket, file: Some(file) })
    }

    /// Takes a socket that systemd has bound (ListenDatagram=).
    pub fn handed_over(socket: UnixDatagram) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(SOCKET_POLL))?;
        Ok(Self { socket, file: None })
    }

    /// Spawns the thread that receives until the shutdown. It then removes the socket, drains the queue and ends.
    pub fn receive(self, collector: Arc<Collector>, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
        if let Some(queue) = queue_length().filter(|queue| *queue < MIN_QUEUE_LENGTH) {
            tracing::warn!(
                queue,
                "the kernel queues only {queue} datagrams per socket, so sessions of a busy mail server may be lost: set net.unix.max_dgram_qlen = {MIN_QUEUE_LENGTH} in /etc/sysctl.d and restart"
            );
        }
        let Self { socket, file } = self;
        let run = move || {
            // One more byte than the limit, to detect longer datagrams.
            let mut buffer = vec![0; DATAGRAM_BYTES + 1];
            while !shutdown.token.is_cancelled() {
                match socket.recv(&mut buffer) {
                    Ok(length) => collector.add_datagram(buffer.get(..length).unwrap_or_default()),
                    Err(error) if is_timeout(&error) => {}
                    Err(error) => {
                        tracing::error!("receiving a datagram failed: {error}");
                        std::thread::sleep(SOCKET_POLL);
                    }
                }
            }
            // Remove the file first: no client can connect any more, so draining the queue ends. The socket of systemd stays,
            // with what it receives from now on, for the next start.
            let Some(file) = file else { return };
            drop(file);
            if socket.set_nonblocking(true).is_ok() {
                while let Ok(length) = socket.recv(&mut buffer) {
                    collector.add_datagram(buffer.get(..length).unwrap_or_default());
                }
            }
        };
        std::thread::Builder::new().name("collector".to_owned()).spawn(run)
    }
}

/// Creates up to two missing folders, since Postfix's queue directory may lack `run/tlsrpt`. More missing folders
/// indicate a wrong path.
fn make_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    match missing.count() {
        0 => Ok(()),
        1 | 2 => std::fs::create_dir_all(folder),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "its parent folders do not exist")),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn queue_length() -> Option<u32> {
    std::fs::read_to_string(QUEUE_LENGTH_FILE).ok()?.trim().parse().ok()
}
