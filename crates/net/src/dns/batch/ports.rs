//! The sockets of a [`super::Batch`], each connected to a resolver. An attacker who is not on the path has to guess the port of a
//! query beside its ID (RFC 5452 §9.2), so there are many ports, and each is replaced after some queries.

use super::RandomWords;
use crate::random::NoRandomBytes;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// Queries in flight for each socket: their responses fit into its receive buffer.
const PER_SOCKET: usize = 64;

/// The most sockets.
const SOCKETS: usize = 256;

/// The fewest sockets, for resolvers on loopback, where nobody else can answer, and for all others.
const FEWEST_ON_LOOPBACK: usize = 2;
const FEWEST: usize = 64;

/// Queries that are sent from a port before it is replaced.
const QUERIES_PER_PORT: usize = 1024;

/// All sockets: that of number `n` is connected to the resolver `n % servers`.
pub(super) struct Ports {
    servers: Vec<SocketAddr>,
    sources: Vec<IpAddr>,
    all: Vec<Port>,
    /// The socket that is read first.
    first: usize,
    /// True if there is a socket that was not polled yet.
    has_new: bool,
}

struct Port {
    socket: UdpSocket,
    /// The same socket for sending, until the runtime knows that it can be written.
    blocking: Option<std::net::UdpSocket>,
    sent: usize,
    /// Queries that wait for a response at this port.
    waiting: usize,
}

impl Port {
    fn open(server: SocketAddr, sources: &[IpAddr]) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(SocketAddr::new(local(server, sources), 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(server)?;
        let blocking = Some(socket.try_clone()?);
        Ok(Self { socket: UdpSocket::from_std(socket)?, blocking, sent: 0, waiting: 0 })
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<usize> {
        match (self.socket.try_send(packet), &self.blocking) {
            (Err(error), Some(socket)) if error.kind() == io::ErrorKind::WouldBlock => socket.send(packet),
            (sent, _) => {
                self.blocking = None;
                sent
            }
        }
    }
}

/// A resolver to which no socket can be connected, and why.
pub(super) type Unreachable = (SocketAddr, io::Error);

impl Ports {
    /// Opens sockets for so many queries in flight. Resolvers that can't be connected are left out and returned.
    ///
    /// # Errors
    /// If there is no resolver, or if none can be connected.
    pub fn open(
        servers: &[SocketAddr],
        sources: Vec<IpAddr>,
        in_flight: usize,
    ) -> io::Result<(Self, Vec<Unreachable>)> {
        let (mut all, mut reachable, mut unreachable) = (Vec::new(), Vec::new(), Vec::new());
        for server in servers {
            match Port::open(*server, &sources) {
                Ok(port) => {
                    all.push(port);
                    reachable.push(*server);
                }
                Err(error) => unreachable.push((*server, error)),
            }
        }
        if reachable.is_empty() {
            let none = io::Error::new(io::ErrorKind::NotFound, "no resolver");
            let first = unreachable.into_iter().next();
            return Err(first.map_or(none, |(server, error)| {
                io::Error::new(error.kind(), format!("the resolver {server} can't be reached: {error}"))
            }));
        }
        let is_local = reachable.iter().all(|server| server.ip().is_loopback());
        let fewest = if is_local { FEWEST_ON_LOOPBACK } else { FEWEST };
        let count = in_flight.div_ceil(PER_SOCKET).clamp(fewest, SOCKETS);
        for server in reachable.iter().cycle().take(count.saturating_sub(all.len())) {
            all.push(Port::open(*server, &sources)?);
        }
        Ok((Self { servers: reachable, sources, all, first: 0, has_new: true }, unreachable))
    }

    /// The resolvers that sockets are connected to.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// Selects a socket for a query to this resolver, at random.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn choose(&mut self, server: usize, random: &mut RandomWords) -> Result<usize, NoRandomBytes> {
        let servers = self.servers.len();
        let each = self.all.len().saturating_sub(server).div_ceil(servers).max(1);
        let start = usize::from(random.next()?);
        let number = |step: usize| server + (start + step) % each * servers;
        for number in (0..each).map(number) {
            let Some(port) = self.all.get_mut(number) else { break };
            if port.sent < QUERIES_PER_PORT {
                return Ok(number);
            }
            if port.waiting == 0 {
                // Without a new socket, the old one goes on.
                let fresh = self.servers.get(server).map(|address| Port::open(*address, &self.sources));
                match fresh {
                    Some(Ok(fresh)) => *port = fresh,
                    _ => port.sent = 0,
                }
                self.has_new = true;
                return Ok(number);
            }
        }
        Ok(number(0))
    }

    /// Sends a query. What can't be sent counts as lost.
    pub fn send(&mut self, number: usize, packet: &[u8]) {
        let Some(port) = self.all.get_mut(number) else { return };
        port.sent += 1;
        port.waiting += 1;
        // An error of an earlier datagram is reported in the place of sending this one.
        let sent = port.send(packet);
        if sent.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = port.send(packet);
        }
    }

    /// A query of this socket no longer waits for a response.
    pub fn stop_waiting(&mut self, number: usize) {
        if let Some(port) = self.all.get_mut(number) {
            port.waiting = port.waiting.saturating_sub(1);
        }
    }

    /// True once after a socket was opened, which has to be polled then.
    pub fn take_new(&mut self) -> bool {
        std::mem::take(&mut self.has_new)
    }

    /// The order in which sockets are read: each time another one is the first, so that none waits for long.
    pub fn order(&mut self) -> impl Iterator<Item = usize> + use<> {
        self.first = (self.first + 1) % self.all.len().max(1);
        (self.first..self.all.len()).chain(0..self.first)
    }

    /// Reads a datagram. `None` if one was refused; its query is repeated.
    pub fn poll_receive(
        &self,
        number: usize,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<Option<usize>> {
        let Some(port) = self.all.get(number) else { return Poll::Pending };
        let mut buffer = ReadBuf::new(bytes);
        let received = port.socket.poll_recv(context, &mut buffer);
        received.map(|received| received.ok().map(|()| buffer.filled().len()))
    }

    /// The local ports, in the order of the sockets.
    #[cfg(test)]
    pub fn numbers(&self) -> Vec<u16> {
        self.all.iter().map(|port| port.socket.local_addr().unwrap().port()).collect()
    }
}

/// The local address for a resolver.
fn local(server: SocketAddr, sources: &[IpAddr]) -> IpAddr {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    sources.iter().find(|source| source.is_ipv4() == server.is_ipv4()).copied().unwrap_or(any)
}
