//! The address of the client that sent a request. Rate limits for sign-in and for the public check use it.

use axum::http::HeaderMap;
use net::rate_limit::RateLimiter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The address of the client that sent a request; `None` if it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub Option<IpAddr>);

impl ClientAddr {
    /// Determines the client's address. `from` is the peer of the connection. Behind a proxy, it is the last address
    /// in `X-Forwarded-For`, which the proxy has added. Earlier addresses come from the client and may be forged. A header
    /// without an address is logged, once a minute: all such clients share the limits of one.
    pub fn of(headers: &HeaderMap, from: Option<IpAddr>, behind_proxy: bool) -> Self {
        if !behind_proxy {
            return Self(from);
        }
        let last = headers.get_all("x-forwarded-for").iter().next_back();
        let last = last.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
        let address = last.and_then(address);
        if address.is_none() && is_time_to_warn() {
            tracing::warn!(
                "a request that came through the proxy (behind_proxy) has no address of its client that can be read in X-Forwarded-For; such clients share the limits of one"
            );
        }
        Self(address)
    }
}

/// The address of an element of `X-Forwarded-For`. Some proxies add the port.
fn address(element: &str) -> Option<IpAddr> {
    let element = element.trim();
    let with_port = || element.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || element.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    element.parse().ok().or_else(with_port).or_else(in_brackets)
}

/// True at most once a minute, which bounds the lines of the log.
fn is_time_to_warn() -> bool {
    static WARNINGS: OnceLock<RateLimiter> = OnceLock::new();
    let warnings = WARNINGS.get_or_init(|| RateLimiter::new(1, Duration::from_secs(60)));
    warnings.take(Ipv4Addr::UNSPECIFIED.into(), Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_configured_proxy_sets_the_client_address() {
        let peer = Some("192.0.2.1".parse().unwrap());
        let mut headers = HeaderMap::new();
        assert_eq!(ClientAddr::of(&headers, peer, false), ClientAddr(peer));
        assert_eq!(ClientAddr::of(&headers, peer, true), ClientAddr(None));
        headers.append("x-forwarded-for", "203.0.113.9".parse().unwrap());
        headers.append("x-forwarded-for", "made up, 2001:db8::7".parse().unwrap());
        assert_eq!(ClientAddr::of(&headers, peer, false), ClientAddr(peer));
        assert_eq!(ClientAddr::of(&headers, peer, true), ClientAddr(Some("2001:db8::7".parse().unwrap())));
        headers.append("x-forwarded-for", "198.51.100.1, unknown".parse().unwrap());
        assert_eq!(ClientAddr::of(&headers, peer, true), ClientAddr(None));
    }

    #[test]
    fn a_proxy_may_add_the_port_of_the_client() {
        for (element, expected) in [
            ("192.0.2.7:555", Some("192.0.2.7")),
            ("[2001:db8::7]:80", Some("2001:db8::7")),
            ("[2001:db8::7]", Some("2001:db8::7")),
            (" 2001:db8::7 ", Some("2001:db8::7")),
            ("for=192.0.2.7", None),
            ("unknown", None),
            ("192.0.2.7:", None),
            ("", None),
        ] {
            assert_eq!(address(element), expected.map(|text| text.parse().unwrap()), "{element}");
        }
    }
}
