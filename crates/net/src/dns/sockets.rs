//! UDP sockets for DNS queries. Each query has a fresh socket and thus source port, since a guessed port allows forged
//! answers (RFC 5452 §9.2). Answers from a resolver on loopback can't be spoofed from outside, and creating a socket
//! takes longer than the query, so sockets to loopback are pooled. [`super::Resolver`] gets its sockets from here.

use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UdpSocket;

/// The number of idle sockets kept for each local address.
const MAX_POOLED: usize = 64;

/// Creates sockets, and pools those to loopback.
#[derive(Clone, Default)]
pub struct Sockets {
    system: TokioRuntimeProvider,
    idle: Arc<Idle>,
}

/// The idle sockets by local address.
#[derive(Default)]
struct Idle(Mutex<HashMap<IpAddr, Vec<UdpSocket>>>);

impl Idle {
    fn take(&self, from: IpAddr) -> Option<UdpSocket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&from)?.pop()
    }

    fn put(&self, from: IpAddr, socket: UdpSocket) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sockets = idle.entry(from).or_default();
        if sockets.len() < MAX_POOLED {
            sockets.push(socket);
        }
    }
}

/// A socket for one query.
pub struct Socket {
    /// Always `Some` until `drop`.
    socket: Option<UdpSocket>,
    /// The pool that the socket returns to, and its local address; `None` closes the socket.
    pool: Option<(Arc<Idle>, IpAddr)>,
    /// True between a query and its answer. The socket is then closed on drop instead of pooled, so that a late answer
    /// can't reach another query.
    is_waiting: AtomicBool,
}

impl Socket {
    fn socket(&self) -> io::Result<&UdpSocket> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_free = !*self.is_waiting.get_mut();
        if let (Some(socket), Some((idle, from)), true) = (self.socket.take(), self.pool.take(), is_free) {
            idle.put(from, socket);
        }
    }
}

impl DnsUdpSocket for Socket {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let received = DnsUdpSocket::poll_recv_from(self.socket()?, context, buffer);
        if matches!(received, Poll::Ready(Ok(_))) {
            self.is_waiting.store(false, Ordering::Relaxed);
        }
        received
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
        target: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.is_waiting.store(true, Ordering::Relaxed);
        DnsUdpSocket::poll_send_to(self.socket()?, context, bytes, target)
    }
}

impl RuntimeProvider for Sockets {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = TokioTime;
    type Udp = Socket;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.system.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        from: Option<SocketAddr>,
        time: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.system.connect_tcp(server, from, time)
    }

    fn bind_udp(
        &self,
        from: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let pool = server.ip().is_loopback().then(|| (self.idle.clone(), from.ip()));
        let idle = pool.as_ref().and_then(|(idle, from)| idle.take(*from));
        Box::pin(async move {
            let socket = match idle {
                Some(socket) => socket,
                None => UdpSocket::bind(from).await?,
            };
            Ok(Socket { socket: Some(socket), pool, is_waiting: AtomicBool::new(false) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bind(sockets: &Sockets, server: &str) -> Socket {
        sockets.bind_udp("0.0.0.0:0".parse().unwrap(), server.parse().unwrap()).await.unwrap()
    }

    fn port(socket: &Socket) -> u16 {
        socket.socket().unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn sockets_to_loopback_are_reused_and_others_never() {
        let sockets = Sockets::default();
        let first = bind(&sockets, "127.0.0.1:53").await;
        let second = bind(&sockets, "127.0.0.1:53").await;
        let (used, other) = (port(&first), port(&second));
        assert_ne!(used, other, "each query in flight has its own socket");
        drop(first);
        let again = bind(&sockets, "127.0.0.1:53").await;
        assert_eq!(port(&again), used);
        let idle = || sockets.idle.0.lock().unwrap().values().map(Vec::len).sum::<usize>();
        drop(bind(&sockets, "192.0.2.1:53").await);
        assert_eq!(idle(), 0, "sockets to other hosts are closed");
        drop((again, second));
        assert_eq!(idle(), 2);
    }

    #[tokio::test]
    async fn a_socket_with_an_outstanding_answer_is_closed() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = server.local_addr().unwrap().to_string();
        let sockets = Sockets::default();
        let socket = bind(&sockets, &at).await;
        socket.send_to(b"query", at.parse().unwrap()).await.unwrap();
        let (_, from) = server.recv_from(&mut [0; 16]).await.unwrap();
        server.send_to(b"answer", from).await.unwrap();
        socket.recv_from(&mut [0; 16]).await.unwrap();
        let answered = port(&socket);
        drop(socket);
        let socket = bind(&sockets, &at).await;
        assert_eq!(port(&socket), answered);
        socket.send_to(b"query", at.parse().unwrap()).await.unwrap();
        drop(socket);
        assert!(sockets.idle.take("0.0.0.0".parse().unwrap()).is_none());
    }
}
