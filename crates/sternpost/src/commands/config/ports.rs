//! Which process listens on a TCP port, from `/proc` (proc_net_tcp(5), proc_pid_fd(5)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The ID and name of a process whose listening socket keeps `address` from being bound; `None` if there is none, or if it
/// belongs to a user whose processes this one may not see. `is_ipv6_only` says that `[::]` is not to accept IPv4.
pub fn user_of(address: SocketAddr, is_ipv6_only: bool) -> Option<(u32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let lines: String = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok()).collect();
    let inode = lines.lines().filter_map(listener).find(|(at, _)| excludes(*at, address, is_ipv6_only))?.1;
    process_with(&format!("socket:[{inode}]"))
}

/// The address and the inode of a line of the table if the socket listens.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let is_listening = fields.nth(1)? == LISTEN;
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let address = SocketAddr::new(parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
    is_listening.then_some((address, inode))
}

/// An address is printed as 32-bit numbers, each in the byte order of the machine.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for at in (0..text.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))),
    }
}

/// Whether a socket that listens at `at` keeps `wanted` from being bound. A socket at all IPv6 addresses may have IPv4 too.
fn excludes(at: SocketAddr, wanted: SocketAddr, is_ipv6_only: bool) -> bool {
    let (one, other) = (at.ip().to_canonical(), wanted.ip().to_canonical());
    let covers = |all: IpAddr, ip: IpAddr, with_ipv4: bool| {
        all.is_unspecified() && (all.is_ipv4() == ip.is_ipv4() || all.is_ipv6() && with_ipv4)
    };
    at.port() == wanted.port()
        && (one == other || covers(one, other, true) || covers(other, one, !is_ipv6_only))
}

/// The process that has this socket open.
fn process_with(socket: &str) -> Option<(u32, String)> {
    let has = |process: &Path| {
        let open = std::fs::read_dir(process.join("fd")).ok()?;
        let mut targets = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.any(|target| target.as_os_str() == socket).then_some(())
    };
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        has(&entry.path())?;
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some((pid, name.trim().to_owned()))
    })
}

/// Whether a process has a file open. Also true if this user may not see what it has open.
pub fn has_open(process: u32, file: &Path) -> bool {
    let Ok(file) = file.canonicalize() else { return false };
    match std::fs::read_dir(format!("/proc/{process}/fd")) {
        Ok(open) => {
            open.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == file))
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_at_a_port_is_found() {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(place).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(user_of(address, false).unwrap().0, std::process::id());
            let anywhere = match address {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())),
            };
            assert_eq!(user_of(anywhere, false).unwrap().0, std::process::id());
            drop(listener);
            assert_eq!(user_of(address, false), None);
        }
    }

    #[test]
    fn a_listener_excludes_the_addresses_that_it_covers() {
        let with = |at: &str, wanted: &str, is_ipv6_only: bool| {
            excludes(at.parse().unwrap(), wanted.parse().unwrap(), is_ipv6_only)
        };
        let excludes = |at: &str, wanted: &str| with(at, wanted, true);
        for at in ["0.0.0.0:25", "127.0.0.1:25"] {
            assert!(with(at, "[::]:25", false) && !with(at, "[::1]:25", false), "{at}");
        }
        assert!(excludes("0.0.0.0:25", "127.0.0.1:25") && excludes("127.0.0.1:25", "0.0.0.0:25"));
        assert!(excludes("[::]:25", "0.0.0.0:25") && excludes("[::]:25", "[::1]:25"));
        assert!(!excludes("0.0.0.0:25", "[::]:25") && !excludes("127.0.0.1:25", "127.0.0.2:25"));
        assert!(!excludes("[::]:25", "[::]:26"));
    }
}
