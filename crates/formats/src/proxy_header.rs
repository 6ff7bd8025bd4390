//! The PROXY protocol header, versions 1 (text) and 2 (binary), according to the HAProxy specification of 2020. A
//! proxy sends it at the start of a connection to state the client's address. Servers behind a proxy read it before
//! TLS or the first request.

use crate::limits::PROXY_HEADER_BYTES;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The result of parsing the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The header is incomplete. At least this many more bytes belong to it; the caller must read exactly these.
    Unfinished(usize),
    /// The header is complete.
    Whole {
        /// The client's address. `None` if the connection is the proxy's own, or the client's address is not an IP
        /// address.
        from: Option<SocketAddr>,
    },
    /// The bytes are not a valid header.
    Wrong,
}

/// The first bytes of a version 2 header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of a version 2 header: signature, version and command, family, and length of the rest.
const V2_HEADER_BYTES: usize = 16;
/// The maximum length of a version 1 header, including its line end.
const V1_MAX_BYTES: usize = 107;

/// Parses the header. `bytes` must contain exactly the bytes that earlier calls requested, and none beyond.
pub fn header(bytes: &[u8]) -> Header {
    let known = bytes.len().min(SIGNATURE.len());
    let is_v2 = bytes.get(..known) == SIGNATURE.get(..known);
    let is_v1 = bytes.get(..bytes.len().min(6)) == b"PROXY ".get(..bytes.len().min(6));
    match (is_v1, is_v2) {
        // No header is shorter than the signature: the shortest is `PROXY UNKNOWN` and its line end.
        (true, _) | (_, true) if bytes.len() < SIGNATURE.len() => {
            Header::Unfinished(SIGNATURE.len() - bytes.len())
        }
        (true, _) => parse_v1(bytes),
        (_, true) => parse_v2(bytes),
        _ => Header::Wrong,
    }
}

fn parse_v1(bytes: &[u8]) -> Header {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        // Request single bytes, since the bytes after the line belong to the client.
        return if bytes.len() < V1_MAX_BYTES { Header::Unfinished(1) } else { Header::Wrong };
    };
    let text = bytes.get(..end).and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    if end + 2 != bytes.len() {
        return Header::Wrong;
    }
    let words: Vec<&str> = text.split(' ').collect();
    let from = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let address = |text: &str| {
                let ip = text.parse::<IpAddr>().ok()?;
                (ip.is_ipv4() == (*family == "TCP4")).then_some(ip)
            };
            let port = |text: &str| text.parse::<u16>().ok();
            let (Some(ip), Some(_), Some(at), Some(_)) =
                (address(from), address(to), port(from_port), port(to_port))
            else {
                return Header::Wrong;
            };
            Some(SocketAddr::new(ip, at))
        }
        _ => return Header::Wrong,
    };
    Header::Whole { from }
}

fn parse_v2(bytes: &[u8]) -> Header {
    let Some((fixed, rest)) = bytes.split_first_chunk::<V2_HEADER_BYTES>() else {
        return Header::Unfinished(V2_HEADER_BYTES - bytes.len());
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || command & 0xf > 1 || V2_HEADER_BYTES + length > PROXY_HEADER_BYTES {
        return Header::Wrong;
    }
    match rest.len() {
        there if there < length => return Header::Unfinished(length - there),
        there if there > length => return Header::Wrong,
        _ => {}
    }
    let is_local = command & 0xf == 0;
    match (is_local, family >> 4) {
        (true, _) => Header::Whole { from: None },
        (_, 1) => from(
            rest.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip).into()),
            rest.get(..12).and_then(|all| all.get(8..10)),
        ),
        (_, 2) => from(
            rest.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip).into()),
            rest.get(..36).and_then(|all| all.get(32..34)),
        ),
        _ => Header::Whole { from: None },
    }
}

fn from(ip: Option<IpAddr>, port: Option<&[u8]>) -> Header {
    match (ip, port) {
        (Some(ip), Some([high, low])) => {
            Header::Whole { from: Some(SocketAddr::new(ip, u16::from_be_bytes([*high, *low]))) }
        }
        _ => Header::Wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a header as from a connection: only the requested bytes.
    fn read(stream: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
        let mut there = 0;
        loop {
            match header(&stream[..there]) {
                Header::Whole { from } => return Some((from, there)),
                Header::Wrong => return None,
                Header::Unfinished(more) => {
                    assert!(more > 0 && there + more <= PROXY_HEADER_BYTES);
                    there += more;
                    if there > stream.len() {
                        return None;
                    }
                }
            }
        }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_yield_the_client_address_and_leave_the_rest_unread() {
        let with = |head: &[u8]| [head, b"\x16\x03\x01hello"].concat();
        let line = b"PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n";
        assert_eq!(read(&with(line)), Some((Some("192.0.2.7:56324".parse().unwrap()), line.len())));
        let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n";
        assert_eq!(read(&with(line)), Some((Some("[2001:db8::7]:56324".parse().unwrap()), line.len())));
        let line = b"PROXY UNKNOWN\r\n";
        assert_eq!(read(&with(line)), Some((None, line.len())));
        let four = binary(0x21, 0x11, &[192, 0, 2, 7, 203, 0, 113, 1, 0xdc, 4, 1, 187]);
        assert_eq!(read(&with(&four)), Some((Some("192.0.2.7:56324".parse().unwrap()), four.len())));
        let mut addresses = [0_u8; 36];
        addresses[15] = 7;
        addresses[33] = 25;
        // Type-length-value fields may follow the addresses.
        let six = binary(0x21, 0x21, &[&addresses[..], &[4, 0, 1, 0]].concat());
        assert_eq!(read(&with(&six)), Some((Some("[::7]:25".parse().unwrap()), six.len())));
        let local = binary(0x20, 0, &[]);
        assert_eq!(read(&with(&local)), Some((None, local.len())));
    }

    #[test]
    fn invalid_headers_are_rejected() {
        for wrong in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01",
            b"PROXY TCP4 192.0.2.7 203.0.113.1 56324\r\n",
            b"PROXY TCP4 2001:db8::7 203.0.113.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 203.0.113.1 70000 2\r\n",
            b"proxy TCP4 192.0.2.7 203.0.113.1 1 2\r\n",
            &binary(0x31, 0x11, &[0; 12]),
            &binary(0x22, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x11, &[0; 600]),
            &[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat(),
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_written_line_is_parsed(ip in any::<[u8; 4]>(), port: u16) {
            let ip = Ipv4Addr::from(ip);
            let line = format!("PROXY TCP4 {ip} 203.0.113.1 {port} 443\r\n");
            prop_assert_eq!(read(line.as_bytes()), Some((Some(SocketAddr::new(ip.into(), port)), line.len())));
        }

        #[test]
        fn any_bytes_are_read_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            read(&bytes);
            read(&[&SIGNATURE[..], &bytes].concat());
            read(&[b"PROXY ", &bytes[..]].concat());
        }
    }
}
