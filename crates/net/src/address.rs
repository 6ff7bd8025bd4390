//! The special-purpose address ranges of RFC 6890: private, loopback, link-local, multicast and others. Other parties
//! control the DNS answers, so the HTTPS and SMTP clients refuse to connect to these addresses unless the configuration
//! allows it (POL-29).

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6(a: u16, b: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix))
}

/// The ranges, each with a noun phrase that completes "the address is".
const SPECIAL: &[(IpNet, &str)] = &[
    (v4(0, 0, 0, 0, 8), "an address of \"this network\""),
    (v4(10, 0, 0, 0, 8), "a private address"),
    (v4(100, 64, 0, 0, 10), "a carrier-grade NAT address"),
    (v4(127, 0, 0, 0, 8), "a loopback address"),
    (v4(169, 254, 0, 0, 16), "a link-local address"),
    (v4(172, 16, 0, 0, 12), "a private address"),
    (v4(192, 0, 0, 0, 24), "a reserved address"),
    (v4(192, 0, 2, 0, 24), "a documentation address"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay address"),
    (v4(192, 168, 0, 0, 16), "a private address"),
    (v4(198, 18, 0, 0, 15), "a benchmarking address"),
    (v4(198, 51, 100, 0, 24), "a documentation address"),
    (v4(203, 0, 113, 0, 24), "a documentation address"),
    (v4(224, 0, 0, 0, 4), "a multicast address"),
    (v4(240, 0, 0, 0, 4), "a reserved address"),
    (v6(0x0064, 0xff9b, 32), "an IPv4/IPv6 translation address"),
    (v6(0x0100, 0, 64), "a discard-only address"),
    (v6(0x2001, 0, 23), "an address reserved for protocol assignments"),
    (v6(0x2001, 0x0db8, 32), "a documentation address"),
    (v6(0x2002, 0, 16), "a 6to4 address"),
    (v6(0x3fff, 0, 20), "a documentation address"),
    (v6(0x5f00, 0, 16), "a segment routing address"),
    (v6(0xfc00, 0, 7), "a private address"),
    (v6(0xfe80, 0, 10), "a link-local address"),
    (v6(0xfec0, 0, 10), "a site-local address"),
    (v6(0xff00, 0, 8), "a multicast address"),
    (v6(0, 0, 96), "a loopback, unspecified or IPv4-compatible address"),
];

/// True if this machine has a route to the address. Sends nothing: the system looks the route up when a UDP socket is
/// connected. A machine without IPv6 has none to any IPv6 address.
pub fn has_route(address: IpAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Any port except 0 will do.
    std::net::UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((address, 53))).is_ok()
}

/// Describes a special-purpose address, such as "a private address"; `None` for a public address.
///
/// An IPv4-mapped IPv6 address is classified by its IPv4 address. So is an address in `64:ff9b::/96`, by which a host
/// without IPv4 reaches IPv4 hosts through NAT64 (RFC 6052 §2.1). The rest of `64:ff9b::/32`, with the local-use prefix
/// of RFC 8215, is special as a whole.
pub fn special(address: IpAddr) -> Option<Cow<'static, str>> {
    let address = address.to_canonical();
    match translated(address) {
        Some(inside) => range(IpAddr::V4(inside)).map(|what| {
            Cow::Owned(format!("an IPv4/IPv6 translation address for {inside}, which is {what}"))
        }),
        None => range(address).map(Cow::Borrowed),
    }
}

/// The IPv4 address inside an address of the well-known prefix `64:ff9b::/96` (RFC 6052 §2.2).
fn translated(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V6(v6) => match v6.octets() {
            [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        },
        IpAddr::V4(_) => None,
    }
}

fn range(address: IpAddr) -> Option<&'static str> {
    SPECIAL.iter().find(|(net, _)| net.contains(&address)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pol_29_special_addresses_are_told_from_public_ones() {
        let is_special = |text: &str| special(text.parse().unwrap()).is_some();
        for text in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "198.18.0.1",
        ] {
            assert!(is_special(text), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.9.9.9",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "2620:fe::fe",
            "::ffff:1.1.1.1",
            "2a00:1450::1",
        ] {
            assert!(!is_special(text), "{text}");
        }
    }

    #[test]
    fn pol_29_behind_nat64_the_ipv4_address_inside_decides() {
        let what = |text: &str| special(text.parse().unwrap());
        for public in ["64:ff9b::8.8.8.8", "64:ff9b::808:808", "64:ff9b::1.1.1.1"] {
            assert_eq!(what(public), None, "{public}");
        }
        for (text, inside) in [
            ("64:ff9b::10.1.2.3", "10.1.2.3, which is a private address"),
            ("64:ff9b::127.0.0.1", "127.0.0.1, which is a loopback address"),
            ("64:ff9b::169.254.169.254", "169.254.169.254, which is a link-local address"),
            ("64:ff9b::", "0.0.0.0, which is an address of \"this network\""),
            ("64:ff9b::255.255.255.255", "255.255.255.255, which is a reserved address"),
        ] {
            let expected = format!("an IPv4/IPv6 translation address for {inside}");
            assert_eq!(what(text).as_deref(), Some(expected.as_str()), "{text}");
        }
        for local in ["64:ff9b:1::8.8.8.8", "64:ff9b:1:ffff::808:808", "64:ff9b::1:808:808", "64:ff9b:2::1"] {
            assert_eq!(what(local).as_deref(), Some("an IPv4/IPv6 translation address"), "{local}");
        }
    }
}
