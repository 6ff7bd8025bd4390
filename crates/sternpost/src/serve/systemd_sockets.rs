//! The sockets that systemd hands over at the start (sd_listen_fds(3)), each with the name that its socket unit gives it
//! (FileDescriptorName=). An address `systemd:NAME` takes those of that name; `systemd` takes those that no other address
//! names. They stay open as long as the program, so that a reload can take them again.

use listenfd::ListenFd;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::AcceptConn;
use sender::serve::listen::{Address, Listener};
use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener};

/// The variable with the names of the sockets, separated by colons.
const NAMES_VARIABLE: &str = "LISTEN_FDNAMES";

/// The sockets that systemd handed over at the start.
pub struct SystemdSockets(Vec<Socket>);

struct Socket {
    name: String,
    kind: Kind,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
    Datagram(UnixDatagram),
    /// A file descriptor that can't be served, and why.
    Unfit(&'static str),
}

impl SystemdSockets {
    /// Takes the sockets from the environment. Later calls find none.
    pub fn take() -> Self {
        let names = std::env::var(NAMES_VARIABLE).unwrap_or_default();
        let mut all = ListenFd::from_env();
        let mut names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let count = all.len();
        let mut socket = |at| Socket { name: names.next().unwrap_or_default(), kind: kind(&mut all, at) };
        Self((0..count).map(&mut socket).collect())
    }

    /// The names in the order in which systemd lists them, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.0.iter().map(|socket| socket.name.as_str()).filter(|name| seen.insert(*name)).collect()
    }

    /// The sockets for an address of systemd among `all` addresses of the configuration.
    ///
    /// # Errors
    ///
    /// If there is none, if it is not clear which ones are meant, or if one is not a stream socket that accepts connections.
    pub fn listeners(&self, name: Option<&str>, all: &[Address]) -> io::Result<Vec<Listener>> {
        let chosen = self.chosen(name, all)?;
        chosen.into_iter().map(Socket::listener).collect()
    }

    /// The datagram socket of this name.
    ///
    /// # Errors
    ///
    /// As [`Self::listeners`], for exactly one datagram socket.
    pub fn datagram(&self, name: Option<&str>, all: &[Address]) -> io::Result<UnixDatagram> {
        match (self.chosen(name, all)?.as_slice(), name.unwrap_or_default()) {
            ([Socket { kind: Kind::Datagram(socket), .. }], _) => socket.try_clone(),
            ([_], name) => {
                let what =
                    format!("the socket {name:?} of systemd is not a datagram socket (ListenDatagram=)");
                Err(io::Error::other(what))
            }
            (several, name) => {
                let count = several.len();
                Err(io::Error::other(format!(
                    "systemd handed over {count} sockets with the name {name:?}, and one is needed"
                )))
            }
        }
    }

    /// The names of the sockets that none of `all` addresses takes.
    pub fn unused(&self, all: &[Address]) -> Vec<&str> {
        let is_plain = all.contains(&Address::Systemd(None));
        let named = named(all);
        self.names().into_iter().filter(|name| !is_plain && !named.contains(name)).collect()
    }

    fn chosen(&self, name: Option<&str>, all: &[Address]) -> io::Result<Vec<&Socket>> {
        if self.0.is_empty() {
            return Err(io::Error::other("systemd handed over no sockets (LISTEN_FDS is not set)"));
        }
        let named = named(all);
        let is_chosen = |socket: &&Socket| match name {
            Some(name) => socket.name == name,
            None => !named.contains(socket.name.as_str()),
        };
        let chosen: Vec<&Socket> = self.0.iter().filter(is_chosen).collect();
        let names: BTreeSet<&str> = chosen.iter().map(|socket| socket.name.as_str()).collect();
        match (name, names.len()) {
            (Some(name), 0) => Err(io::Error::other(format!(
                "systemd handed over no socket with the name {name:?}, but {}",
                listed(&self.names())
            ))),
            (None, 0) => Err(io::Error::other("other keys name all sockets that systemd handed over")),
            (None, 2..) => Err(io::Error::other(format!(
                "systemd handed over sockets with several names, {}, so write \"systemd:NAME\"",
                listed(&names.into_iter().collect::<Vec<_>>())
            ))),
            _ => Ok(chosen),
        }
    }
}

/// The names in addresses of the form `systemd:NAME`.
fn named(all: &[Address]) -> BTreeSet<&str> {
    let name = |address| match address {
        &Address::Systemd(Some(ref name)) => Some(name.as_str()),
        _ => None,
    };
    all.iter().filter_map(name).collect()
}

/// Joins names with "and", each in quotes.
fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" and ")
}

impl Socket {
    fn listener(&self) -> io::Result<Listener> {
        match &self.kind {
            Kind::Tcp(tcp) => {
                let tcp = tcp.try_clone()?;
                tcp.set_nonblocking(true)?;
                Ok(Listener::Tcp(tokio::net::TcpListener::from_std(tcp)?))
            }
            Kind::Unix(unix) => {
                let unix = unix.try_clone()?;
                unix.set_nonblocking(true)?;
                Ok(Listener::Unix(tokio::net::UnixListener::from_std(unix)?, None))
            }
            Kind::Datagram(_) => Err(self.unfit("it is a datagram socket; use ListenStream=")),
            Kind::Unfit(why) => Err(self.unfit(why)),
        }
    }

    fn unfit(&self, why: &str) -> io::Error {
        io::Error::other(format!("the socket {:?} of systemd can't be used: {why}", self.name))
    }
}

/// What a file descriptor is.
fn kind(all: &mut ListenFd, at: usize) -> Kind {
    const CONNECTED: Kind = Kind::Unfit("it does not accept connections; its unit must not have Accept=yes");
    if let Ok(Some(tcp)) = all.take_tcp_listener(at) {
        return if accepts(&tcp) { Kind::Tcp(tcp) } else { CONNECTED };
    }
    if let Ok(Some(unix)) = all.take_unix_listener(at) {
        return if accepts(&unix) { Kind::Unix(unix) } else { CONNECTED };
    }
    match all.take_unix_datagram(at) {
        Ok(Some(datagram)) => Kind::Datagram(datagram),
        _ => Kind::Unfit("it is neither a TCP socket nor a Unix socket"),
    }
}

fn accepts(socket: &impl std::os::fd::AsFd) -> bool {
    getsockopt(socket, AcceptConn).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(name: &str) -> Socket {
        Socket { name: name.to_owned(), kind: Kind::Tcp(TcpListener::bind("127.0.0.1:0").unwrap()) }
    }

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| Address::parse(text).unwrap()).collect()
    }

    fn count(all: &SystemdSockets, address: &str, others: &[&str]) -> Result<usize, String> {
        let name = address.strip_prefix("systemd:");
        let all_addresses = addresses(&[others, &[address]].concat());
        let found = all.listeners(name, &all_addresses);
        found.map(|found| found.len()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn sockets_are_shared_out_by_name() {
        let all = SystemdSockets(vec![tcp("answers"), tcp("policy"), tcp("answers")]);
        assert_eq!(all.names(), ["answers", "policy"]);
        assert_eq!(count(&all, "systemd:answers", &[]), Ok(2));
        assert_eq!(count(&all, "systemd:policy", &[]), Ok(1));
        // A reload takes the same sockets again.
        assert_eq!(count(&all, "systemd:policy", &[]), Ok(1));
        assert_eq!(count(&all, "systemd", &["systemd:policy"]), Ok(2));
        assert_eq!(all.unused(&addresses(&["systemd:policy", "127.0.0.1:1"])), ["answers"]);
        assert_eq!(all.unused(&addresses(&["systemd"])), [""; 0]);
        for (address, others, expected) in [
            ("systemd:smtp", &[][..], "no socket with the name \"smtp\", but \"answers\" and \"policy\""),
            ("systemd", &[], "several names, \"answers\" and \"policy\""),
            ("systemd", &["systemd:policy", "systemd:answers"], "other keys name all sockets"),
        ] {
            let error = count(&all, address, others).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let none = SystemdSockets(Vec::new());
        assert!(count(&none, "systemd", &[]).unwrap_err().contains("LISTEN_FDS is not set"));
        // Sockets of one unit without names have the unit's name.
        let unnamed = SystemdSockets(vec![tcp("sternpost.socket"), tcp("sternpost.socket")]);
        assert_eq!(count(&unnamed, "systemd", &[]), Ok(2));
    }

    #[tokio::test]
    async fn a_socket_of_another_kind_is_refused_with_the_reason() {
        let datagram = || Kind::Datagram(UnixDatagram::unbound().unwrap());
        let all = SystemdSockets(vec![
            Socket { name: "tlsrpt".into(), kind: datagram() },
            Socket { name: "fifo".into(), kind: Kind::Unfit("it is neither a TCP socket nor a Unix socket") },
            tcp("policy"),
        ]);
        assert!(count(&all, "systemd:tlsrpt", &[]).unwrap_err().contains("use ListenStream="));
        assert!(count(&all, "systemd:fifo", &[]).unwrap_err().contains("\"fifo\" of systemd can't be used"));
        assert!(all.datagram(Some("tlsrpt"), &[]).is_ok());
        let error = all.datagram(Some("policy"), &[]).unwrap_err().to_string();
        assert!(error.contains("not a datagram socket"), "{error}");
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!accepts(&one) && accepts(&TcpListener::bind("127.0.0.1:0").unwrap()));
    }
}
