//! Let's Encrypt in the internet of a page: Debian's Pebble behind nginx, which gives it the real CA's name and paths.

use crate::support::{Running, daemon, shell, until};
use lab::Lab;
use lab::dns::Rr;
use lab::pki::Cert;
use std::net::Ipv4Addr;
use std::path::Path;

/// Where the CA listens.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(11, 77, 0, 9);
const NAME: &str = "acme-v02.api.letsencrypt.org";

/// The running CA.
pub struct Authority(#[allow(dead_code)] [Running; 2]);

impl Authority {
    /// Starts it in the network of this thread. It validates names by the resolver `names`, and leaves its root certificate in
    /// `issued.pem`.
    pub fn start(lab: &Lab, place: &Path, names: Ipv4Addr) -> Self {
        let dir = place.display();
        for (file, host) in [("own", "localhost"), ("front", NAME)] {
            let identity = lab.pki.issue(host, Cert::Good).unwrap();
            std::fs::write(place.join(format!("{file}.pem")), identity.chain_pem()).unwrap();
            std::fs::write(place.join(format!("{file}.key")), identity.key_pem()).unwrap();
        }
        let config = serde_json::json!({ "pebble": {
            "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
            "certificate": format!("{dir}/own.pem"), "privateKey": format!("{dir}/own.key"),
            "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false,
        }});
        std::fs::write(place.join("pebble.json"), config.to_string()).unwrap();
        let front = format!(
            "daemon off;\nmaster_process off;\npid {dir}/front.pid;\nerror_log {dir}/front.log;\nevents {{}}\nhttp {{ access_log off; \
             client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi; \
             server {{ listen {ADDRESS}:443 ssl; ssl_certificate {dir}/front.pem; ssl_certificate_key {dir}/front.key; proxy_set_header Host $host; \
             location = /directory {{ proxy_pass https://127.0.0.1:14000/dir; }} location / {{ proxy_pass https://127.0.0.1:14000; }} }} }}\n"
        );
        std::fs::write(place.join("front.conf"), front).unwrap();
        let pebble = format!(
            "env PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 pebble -config {dir}/pebble.json -dnsserver {names}:53"
        );
        let pebble = daemon(&pebble, &place.join("pebble.log"));
        let nginx = daemon(&format!("nginx -c {dir}/front.conf"), &place.join("nginx.log"));
        let root =
            format!("curl -skf https://127.0.0.1:15000/roots/0 -o {dir}/issued.pem && echo there || true");
        until("Pebble answers", || shell(&root).contains("there"));
        lab.names.set(&format!("{NAME}."), vec![Rr::A(ADDRESS)]).unwrap();
        Self([pebble, nginx])
    }
}
