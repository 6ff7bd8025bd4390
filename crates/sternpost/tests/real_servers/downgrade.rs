//! The downgrade search of the crate `sender` once more, with a validating Unbound between the lab's name server and the
//! man in the middle: what a resolver of others makes of the zones must not weaken an answer either.

use crate::support::{Running, daemon, in_a_room_of_its_own, until};
use lab::Lab;
use search::World;
use std::net::SocketAddr;
use std::path::Path;
use weak::Variant;

#[path = "../../../sender/tests/downgrade/domains.rs"]
mod domains;
#[path = "../../../sender/tests/downgrade/oracle.rs"]
mod oracle;
#[path = "../../../sender/tests/downgrade/plan.rs"]
mod plan;
#[path = "../../../sender/tests/downgrade/search.rs"]
mod search;
#[path = "../../../sender/tests/downgrade/weak.rs"]
mod weak;

const SEEDS: u64 = 50;
const WORLDS: u8 = 4;

/// Unbound at this address, for the zones of a lab. It caches nothing, since the plans change the zones.
fn unbound(place: &Path, lab: &Lab, address: &str) -> Running {
    let file = |name: &str| place.join(format!("{address}.{name}"));
    std::fs::write(file("ds"), lab.names.root_ds().unwrap() + "\n").unwrap();
    let server = lab.names.address;
    let text = format!(
        "server:\n  interface: {address}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  use-syslog: no\n\
         \x20 directory: \"{}\"\n  pidfile: \"{}\"\n  trust-anchor-file: \"{}\"\n  do-not-query-localhost: no\n\
         \x20 local-zone: \"test.\" nodefault\n  access-control: 127.0.0.0/8 allow\n  cache-max-ttl: 0\n\
         \x20 cache-max-negative-ttl: 0\nremote-control:\n  control-enable: no\n\
         stub-zone:\n  name: \".\"\n  stub-addr: {}@{}\n  stub-prime: no\n",
        place.display(),
        file("pid").display(),
        file("ds").display(),
        server.ip(),
        server.port()
    );
    std::fs::write(file("conf"), text).unwrap();
    daemon(&format!("unbound -c {}", file("conf").display()), &file("log"))
}

#[test]
fn no_attack_between_a_real_resolver_and_the_service_weakens_an_answer() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (mut worlds, mut servers) = (Vec::new(), Vec::new());
        for number in 0..WORLDS {
            let address = format!("127.0.1.{}", number + 1);
            let start = World::start(|lab| {
                servers.push(unbound(place.path(), lab, &address));
                SocketAddr::new(address.parse().unwrap(), 53)
            });
            worlds.push(runtime.block_on(start));
            until("Unbound answers", || {
                crate::support::shell(&format!("dig @{address} +time=1 +tries=1 ns.test A || true"))
                    .contains("status: NOERROR")
            });
        }
        let wrong = runtime.block_on(search::honest(&worlds[0]));
        assert!(wrong.is_empty(), "without an attack: {wrong:#?}");
        let failures = runtime.block_on(search::search(worlds, 0..SEEDS, Variant::Real, 5));
        let heads: Vec<&str> = failures.iter().filter_map(|text| text.lines().next()).collect();
        assert!(failures.is_empty(), "{heads:#?}; the first:\n{}", failures[0]);
        assert!(weak::WEAK.iter().all(|weak| *weak != Variant::Real));
    });
}
