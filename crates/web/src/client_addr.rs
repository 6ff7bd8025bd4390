//! The address of the client that sent a request. Rate limits for sign-in and for the public check use it.

use axum::http::HeaderMap;
use std::net::IpAddr;

/// The address of the client that sent a request; `None` if it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub Option<IpAddr>);

impl ClientAddr {
    /// Determines the client's address. `from` is the peer of the connection. Behind a proxy, it is the last address
    /// in `X-Forwarded-For`, which the proxy has added. Earlier addresses come from the client and may be forged.
    pub fn of(headers: &HeaderMap, from: Option<IpAddr>, behind_proxy: bool) -> Self {
        if !behind_proxy {
            return Self(from);
        }
        let last = headers.get_all("x-forwarded-for").iter().next_back();
        let last = last.and_then(|value| value.to_str().ok()).and_then(|value| value.rsplit(',').next());
        Self(last.and_then(|address| address.trim().parse().ok()))
    }
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
}
