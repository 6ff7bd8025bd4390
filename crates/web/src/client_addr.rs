//! Who asks for a page, so that nobody asks for more than a share.

use axum::http::HeaderMap;
use std::net::IpAddr;

/// The address that a request comes from, where that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub Option<IpAddr>);

impl ClientAddr {
    /// Behind a proxy of the operator's it is the last that the proxy has added to `X-Forwarded-For`: whatever stands
    /// before that came from the client, who may have made it up.
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
    fn a_proxy_says_who_asks_and_nobody_else_does() {
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
