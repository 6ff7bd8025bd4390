//! Pebble, the certificate authority of the tests (a newer one than Debian 12's, in a folder of its own).

use crate::postfix::unpacked;
use crate::support::{Running, daemon, shell, until};
use lab::pki::{Cert, Pki};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// A running authority.
pub struct Pebble(#[allow(dead_code)] Running);

/// Its directory.
pub const DIRECTORY: &str = "https://localhost:14000/dir";

impl Pebble {
    /// Starts it; `settings` are variables of its environment. Its own certificate is of `pki`.
    pub fn start(place: &Path, pki: &Pki, settings: &str) -> Self {
        Self::start_with(place, pki, settings, &[])
    }

    /// The same, where only those may have an account who know one of these keys, named and in base64url.
    pub fn start_with(place: &Path, pki: &Pki, settings: &str, keys: &[(&str, &str)]) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), place, pki, settings, keys)
    }

    /// The same at another address, at which its resolver is too, and which `localhost` has to be.
    pub fn start_at(address: IpAddr, place: &Path, pki: &Pki, settings: &str, keys: &[(&str, &str)]) -> Self {
        let at = |port| SocketAddr::new(address, port).to_string();
        std::fs::create_dir_all(place).unwrap();
        let identity = pki.issue("localhost", Cert::Good).unwrap();
        std::fs::write(place.join("own.pem"), identity.chain_pem()).unwrap();
        std::fs::write(place.join("own.key"), identity.key_pem()).unwrap();
        std::fs::write(place.join("root.pem"), pki.root_pem()).unwrap();
        let dir = place.display();
        let keys: serde_json::Map<_, _> =
            keys.iter().map(|(id, key)| ((*id).to_owned(), (*key).into())).collect();
        let config = serde_json::json!({ "pebble": {
            "externalAccountBindingRequired": !keys.is_empty(), "externalAccountMACKeys": keys,
            "listenAddress": at(14000), "managementListenAddress": at(15000),
            "certificate": format!("{dir}/own.pem"), "privateKey": format!("{dir}/own.key"),
            "domainBlocklist": ["blocked.test"], "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
            "profiles": {
                "default": { "description": "ninety days", "validityPeriod": 7_776_000 },
                "shortlived": { "description": "six days", "validityPeriod": 518_400 },
            },
        }});
        std::fs::write(place.join("pebble.json"), config.to_string()).unwrap();
        let program = unpacked("pebble").join("usr/bin/pebble");
        let line = format!(
            "env PEBBLE_VA_NOSLEEP=1 {settings} {} -config {dir}/pebble.json -dnsserver {}",
            program.display(),
            at(53)
        );
        let running = daemon(&line, &place.join("pebble.log"));
        let roots = format!(
            "curl -sf --cacert {dir}/root.pem https://localhost:15000/roots/0 -o {dir}/issued.pem && echo there || true"
        );
        until("Pebble answers", || shell(&roots).contains("there"));
        Self(running)
    }
}
