//! The names of the lab, served by Knot with its own keys and resolved by a validating Unbound, so
//! that our own name server is not the judge of itself.

use crate::support::{Running, daemon, in_a_room_of_its_own, mount_over, shell, until};
use formats::DomainName;
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record};
use lab::dns::{Signing, ZoneFile};
use net::dns::{Dns, Dnssec, Kind, Resolver, ResolverConfig, ResolverError, Security};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Both servers.
pub struct Names {
    place: PathBuf,
    /// The address of Unbound.
    resolver: IpAddr,
    _knot: Running,
    _unbound: Running,
}

impl Names {
    /// Knot on `address`, where the zones say that it is, and Unbound on 127.0.0.1.
    pub fn start(place: &Path, address: Ipv4Addr, zones: &[ZoneFile]) -> Self {
        Self::start_with(place, address, zones, "", "")
    }

    /// The same, each command after `before`, and with these lines in front of Knot's own.
    pub fn start_with(
        place: &Path,
        address: Ipv4Addr,
        zones: &[ZoneFile],
        before: &str,
        lines: &str,
    ) -> Self {
        Self::start_at(place, address.into(), Ipv4Addr::LOCALHOST.into(), zones, before, lines)
    }

    /// The same, with Unbound at another address.
    pub fn start_at(
        place: &Path,
        address: IpAddr,
        resolver: IpAddr,
        zones: &[ZoneFile],
        before: &str,
        lines: &str,
    ) -> Self {
        for folder in ["zones", "keys", "run"] {
            std::fs::create_dir_all(place.join(folder)).unwrap();
        }
        std::fs::write(
            place.join("knot.conf"),
            lines.to_owned() + &knot_config(place, address, zones, lines),
        )
        .unwrap();
        let keymgr = |words: &str| shell(&format!("{before}keymgr -c {}/knot.conf {words}", place.display()));
        let mut files: Vec<ZoneFile> = zones.to_vec();
        for zone in zones.iter().filter(|zone| zone.signing != Signing::Unsigned) {
            keymgr(&format!("{} generate algorithm=ECDSAP256SHA256 ksk=yes zsk=yes", zone.origin));
            let mut ds = keymgr(&format!("{} ds", zone.origin))
                .lines()
                .find(|line| line.contains(" 13 2 "))
                .unwrap()
                .to_owned();
            if zone.origin == "." {
                std::fs::write(place.join("root.ds"), format!("{ds}\n")).unwrap();
                let key = keymgr(". dnskey").replacen(" DNSKEY", " 300 IN DNSKEY", 1);
                std::fs::write(place.join("root.key"), key).unwrap();
                continue;
            }
            if zone.signing == Signing::Unlinked {
                continue;
            }
            if zone.signing == Signing::Bogus {
                let (head, digest) = ds.rsplit_once(' ').unwrap();
                ds = format!("{head} {}{}", "deadbeef", &digest[8..]);
            }
            let parent = zone.origin.split_once('.').map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
            let parent = files.iter_mut().find(|file| file.origin == parent.unwrap_or(".")).unwrap();
            parent.text += &format!("{ds}\n");
        }
        for file in &files {
            std::fs::write(zone_path(place, &file.origin), &file.text).unwrap();
        }
        let knot =
            daemon(&format!("{before}knotd -c {}/knot.conf", place.display()), &place.join("knot.log"));
        std::fs::write(place.join("unbound.conf"), unbound_config(place, address, resolver)).unwrap();
        let unbound = daemon(
            &format!("{before}unbound -c {}/unbound.conf", place.display()),
            &place.join("unbound.log"),
        );
        let this = Self { place: place.to_owned(), resolver, _knot: knot, _unbound: unbound };
        until("Unbound answers from Knot", || this.ask("ns.test", "A").contains("status: NOERROR"));
        this
    }

    /// What the resolver says.
    pub fn ask(&self, name: &str, kind: &str) -> String {
        shell(&format!("dig @{} +dnssec +time=5 +tries=1 {name} {kind} || true", self.resolver))
    }

    /// Changes a zone's file and has Knot take it in.
    pub fn change(&self, origin: &str, from: &str, to: &str) {
        let path = zone_path(&self.place, origin);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
        shell(&format!("knotc -b -c {}/knot.conf zone-reload {origin}", self.place.display()));
    }
}

/// A zone whose name server is ns.test, and where nothing is remembered for long.
pub fn zone(origin: &str, signing: Signing, text: &str) -> ZoneFile {
    let soa = "@ SOA ns.test. hostmaster.test. 1 3600 600 86400 1\n@ NS ns.test.\n";
    ZoneFile { origin: origin.to_owned(), signing, text: format!("$ORIGIN {origin}\n$TTL 2\n{soa}{text}") }
}

fn zone_path(place: &Path, origin: &str) -> PathBuf {
    place.join(format!("zones/{}zone", if origin == "." { "root." } else { origin }))
}

fn knot_config(place: &Path, address: IpAddr, zones: &[ZoneFile], lines: &str) -> String {
    let dir = place.display();
    let mut text = format!(
        "server:\n  listen: {address}@53\n  rundir: {dir}/run\ndatabase:\n  storage: {dir}/keys\n\
         policy:\n  - id: manual\n    manual: on\n    algorithm: ecdsap256sha256\n    single-type-signing: on\n    nsec3: on\n    rrsig-lifetime: 100d\n\
         template:\n  - id: default\n    storage: {dir}/zones\n    zonefile-sync: -1\n    zonefile-load: difference-no-serial\n    journal-content: all\n\
         log:\n  - target: stderr\n    any: warning\nzone:\n"
    );
    for zone in zones {
        let file = zone_path(place, &zone.origin);
        let _ = write!(text, "  - domain: {}\n    file: {}\n", zone.origin, file.display());
        if lines.contains("acl:") {
            text += "    acl: updates\n";
        }
        if zone.signing != Signing::Unsigned {
            text += "    dnssec-signing: on\n    dnssec-policy: manual\n";
        }
    }
    text
}

fn unbound_config(place: &Path, address: IpAddr, resolver: IpAddr) -> String {
    let dir = place.display();
    format!(
        "server:\n  interface: {resolver}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{dir}\"\n\
         \x20 pidfile: \"{dir}/unbound.pid\"\n  use-syslog: no\n  do-not-query-localhost: no\n  local-zone: \"test.\" nodefault\n\
         \x20 trust-anchor-file: \"{dir}/root.ds\"\n  access-control: 127.0.0.0/8 allow\n  access-control: ::1/128 allow\n  cache-max-negative-ttl: 1\n\
         remote-control:\n  control-enable: no\n\
         stub-zone:\n  name: \".\"\n  stub-addr: {address}\n  stub-prime: no\n"
    )
}

#[test]
fn dane_14_a_trusted_resolver_that_validates_gives_the_same_answers_as_our_own_validation() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let cases = ["dane-ee", "dane-unsigned", "dane-none", "dane-bogus", "sts-signed", "good-enforce"];
        let mut ground = crate::ground::Ground::new(place.path(), &cases, "good-enforce");
        let mut told = Vec::new();
        for dnssec in ["validate", "trust-ad"] {
            ground.dnssec = dnssec;
            ground.serve("listen = [\"127.0.0.1:8461\"]");
            let said = cases.map(|case| {
                let line = ground.operator(&format!("query --cached {case}.test"));
                line.split("Reply to Postfix: ").nth(1).unwrap().lines().next().unwrap().to_owned()
            });
            ground.stop();
            shell(&format!(
                "rm -f {}/sternpost.sock {}/sternpost.db*",
                place.path().display(),
                place.path().display()
            ));
            told.push(said);
        }
        for (at, case) in cases.iter().enumerate() {
            let same = match *case {
                // The one knows why, the other sees that there is no answer; it waits either way.
                "dane-bogus" => told.iter().all(|said| said[at].starts_with("TEMP the MX records")),
                _ => told[0][at] == told[1][at],
            };
            assert!(same, "{case}: {:?} and {:?}", told[0][at], told[1][at]);
        }
        assert_eq!(told[1][0], "OK dane-only");
    });
}

/// Answers every TXT query at `address` with one record, for as long as the test runs.
async fn answering(address: &str) {
    let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let mut reply = Message::from_vec(&buffer[..length]).unwrap();
            reply.metadata.message_type = MessageType::Response;
            reply.metadata.recursion_available = true;
            let name = reply.queries[0].name().clone();
            let txt = TXT::new(vec!["v=STSv1; id=1;".to_owned()]);
            reply.add_answer(Record::from_rdata(name, 60, RData::TXT(txt)));
            let _ = socket.send_to(&reply.to_vec().unwrap(), from).await;
        }
    });
}

#[test]
fn a_changed_resolv_conf_is_used_after_a_reload() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("resolv.conf");
        // Nothing listens at the first resolver.
        std::fs::write(&file, "nameserver 127.0.0.99\n").unwrap();
        mount_over(&file, Path::new("/etc/resolv.conf"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            answering("127.0.0.1:53").await;
            let config = ResolverConfig {
                dnssec: Dnssec::Off,
                attempt_time: Duration::from_secs(2),
                ..ResolverConfig::default()
            };
            let resolver = Resolver::new(&config).unwrap();
            let name = DomainName::parse("_mta-sts.example.org").unwrap();
            assert!(resolver.lookup(&name, Kind::Txt).await.is_err());
            std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
            resolver.reload().await.unwrap();
            assert!(resolver.lookup(&name, Kind::Txt).await.is_ok());
            // A file that can't be used changes nothing.
            std::fs::write(&file, "nameserver nonsense\n").unwrap();
            let _ = resolver.reload().await;
            let other = DomainName::parse("_mta-sts.example.net").unwrap();
            assert!(resolver.lookup(&other, Kind::Txt).await.is_ok());
        });
    });
}

#[test]
fn a_resolver_without_dnssec_or_that_nobody_vouches_for_does_not_replace_one_that_validates() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("resolv.conf");
        let zones = [
            zone(".", Signing::Signed, "ns.test. A 127.0.0.3\n"),
            zone("test.", Signing::Signed, "ns A 127.0.0.3\n"),
        ];
        let _names = Names::start(place.path(), Ipv4Addr::new(127, 0, 0, 3), &zones);
        std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
        mount_over(&file, Path::new("/etc/resolv.conf"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            answering("127.0.0.98:53").await;
            let anchor = std::fs::read_to_string(place.path().join("root.key")).unwrap();
            let config = |dnssec| ResolverConfig {
                dnssec,
                trust_anchor: Some(anchor.clone()),
                cache: false,
                ..ResolverConfig::default()
            };
            let validating = Resolver::new(&config(Dnssec::Validate)).unwrap();
            let trusting = Resolver::new(&config(Dnssec::TrustAd)).unwrap();
            let name = DomainName::parse("ns.test").unwrap();
            for resolver in [&validating, &trusting] {
                assert_eq!(resolver.probe().await, Ok(Security::Secure));
                assert_eq!(resolver.lookup(&name, Kind::A).await.unwrap().security, Security::Secure);
            }
            std::fs::write(&file, "nameserver 127.0.0.98\n").unwrap();
            assert!(matches!(validating.reload().await, Err(ResolverError::NoDnssec)));
            std::fs::write(&file, "nameserver 192.0.2.53\n").unwrap();
            assert!(matches!(trusting.reload().await, Err(ResolverError::Untrusted(_))));
            for resolver in [&validating, &trusting] {
                assert_eq!(resolver.lookup(&name, Kind::A).await.unwrap().security, Security::Secure);
                assert_eq!(resolver.probe_uncached().await, Ok(Security::Secure), "the servers in use");
            }
            std::fs::write(&file, "nameserver 127.0.0.1\n").unwrap();
            for resolver in [&validating, &trusting] {
                resolver.reload().await.unwrap();
                assert_eq!(resolver.probe_uncached().await, Ok(Security::Secure));
            }
        });
    });
}
