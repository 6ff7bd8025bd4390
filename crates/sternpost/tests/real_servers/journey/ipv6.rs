//! The guide on a machine without any IPv4, not even on loopback: names, mail server, CA and Sternpost have IPv6 addresses only.

use super::{SECRET, shell};
use crate::names::{Names, zone};
use crate::patience::until_ready;
use crate::pebble::{DIRECTORY, Pebble};
use crate::postfix::{Postfix, Release};
use crate::support::{daemon, in_a_room_of_its_own, mount_over, until};
use lab::dns::Signing;
use lab::pki::{Cert, Pki};
use net::clock::{Clock, SystemClock};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

/// The address of the name server.
const NAMES: &str = "fd77::53";
/// The address of the policy host.
const POLICY: &str = "fd77::50";
/// The address of the MX host.
const MX: &str = "fd77::25";

/// Takes all IPv4 addresses away from the room of the test, and adds those above.
fn without_ipv4() {
    shell("ip -4 address flush dev lo");
    for address in [NAMES, POLICY, MX] {
        shell(&format!("ip -6 address add {address}/128 dev lo"));
    }
    let error = std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable, "{error}");
}

fn names(place: &Path) -> Names {
    let root = format!("test. NS ns.test.\nns.test. AAAA {NAMES}\n");
    let test = format!("ns AAAA {NAMES}\nharbour NS ns.test.\npolicy AAAA {POLICY}\n");
    let harbour = format!("@ MX 10 mx1\nmx1 AAAA {MX}\n");
    let zones = [
        zone(".", Signing::Signed, &root),
        zone("test.", Signing::Signed, &test),
        zone("harbour.test.", Signing::Signed, &harbour),
    ];
    let lines = format!(
        "key:\n  - id: sternpost\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: updates\n    key: sternpost\n    action: update\n"
    );
    std::fs::write(place.join("tsig.key"), format!("{SECRET}\n")).unwrap();
    for (file, text) in [("resolv.conf", "nameserver ::1\n"), ("hosts", "::1 localhost\n")] {
        std::fs::write(place.join(file), text).unwrap();
        mount_over(&place.join(file), &Path::new("/etc").join(file));
    }
    let address = NAMES.parse().unwrap();
    Names::start_at(&place.join("names"), address, Ipv6Addr::LOCALHOST.into(), &zones, "", &lines)
}

fn mail_server(place: &Path, pki: &Pki) -> Postfix {
    let own = place.join("mx");
    std::fs::create_dir(&own).unwrap();
    shell(&format!("chmod 755 {}", place.display()));
    std::fs::write(own.join("ca.pem"), pki.root_pem()).unwrap();
    let identity = pki.issue("mx1.harbour.test", Cert::Good).unwrap();
    let pem = own.join("mx1.pem");
    std::fs::write(&pem, identity.key_pem() + &identity.chain_pem()).unwrap();
    let lines = format!(
        "inet_protocols = ipv6\ninet_interfaces = {MX}\nsmtpd_peername_lookup = no\nmydestination = harbour.test\nlocal_transport = discard\nlocal_recipient_maps =\n"
    );
    let service = format!(
        "[{MX}]:25 inet n - n - - smtpd -o myhostname=mx1.harbour.test -o smtpd_tls_security_level=may -o smtpd_tls_chain_files={}\n",
        pem.display()
    );
    Postfix::start_with(Release::V3_7, &own, &lines, &service)
}

#[test]
fn a_domain_is_enforced_guarded_and_answered_for_without_any_ipv4() {
    in_a_room_of_its_own(|| {
        without_ipv4();
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let _names = names(dir);
        let pki = Pki::new(SystemClock.now()).unwrap();
        let ca = IpAddr::from(Ipv6Addr::LOCALHOST);
        let _pebble = Pebble::start_at(ca, &dir.join("pebble"), &pki, "PEBBLE_WFE_NONCEREJECT=0", &[]);
        let postfix = mail_server(dir, &pki);
        let config = format!(
            "[dns]\nservers = [\"[::1]:53\"]\ntrust_anchor = \"names/root.key\"\n[trust]\nca_file = \"trusted.pem\"\n\
             allow_private_addresses = true\n[host]\nlisten = [\"[::]:443\"]\nhttp = [\"[::]:80\"]\nname = \"policy.test\"\n\
             acme = {{ directory = \"{DIRECTORY}\", ca_file = \"pebble/root.pem\", profile = \"default\" }}\n\
             [answers]\nlisten = [\"[::1]:8461\"]\n[metrics]\nlisten = \"[::1]:8463\"\n[guard]\nevery = 1\n\
             [[rfc2136]]\nname = \"knot\"\nserver = \"[{NAMES}]:53\"\nkey_name = \"sternpost\"\nkey_file = \"tsig.key\"\n"
        );
        std::fs::write(dir.join("sternpost.toml"), config).unwrap();
        let run = |words: &str| shell(&format!("cd {} && {words}", dir.display()));
        run("cat pebble/issued.pem mx/ca.pem > trusted.pem");
        run("sternpost init harbour.test > proposal && cat proposal >> sternpost.toml");
        run(
            "sed -i 's/host = \"static\"/host = \"self\"/; s/dns = \"manual\"/dns = \"rfc2136:knot\"/' sternpost.toml",
        );
        let log = dir.join("serve.log");
        let line =
            format!("{} --config {}/sternpost.toml serve", env!("CARGO_BIN_EXE_sternpost"), dir.display());
        let mut serving = daemon(&line, &log);
        until_ready(&mut serving.0, &log);

        let planned = run("sternpost plan");
        assert!(planned.contains("from no policy to enforce"), "{planned}");
        let applied = run("sternpost apply --patience 120");
        assert!(applied.contains("in testing. Enforcement needs evidence"), "{applied}");
        // The guard reaches the MX host, and what it sees counts as evidence.
        until("the guard has probed the MX host", || {
            run("sternpost status --json").contains("\"mx1.harbour.test\"")
        });
        run("sternpost promote --force --reason rehearsal harbour.test");
        let applied = run("sternpost apply --patience 120");
        assert!(applied.contains("in the desired state: mode enforce"), "{applied}");
        let served = run(&format!(
            "curl -sS --cacert pebble/issued.pem --resolve mta-sts.harbour.test:443:[{POLICY}] https://mta-sts.harbour.test/.well-known/mta-sts.txt"
        ));
        assert!(served.contains("mode: enforce") && served.contains("mx: mx1.harbour.test"), "{served}");
        let answer = run("sternpost query --cached harbour.test");
        assert!(answer.contains("secure match=mx1.harbour.test"), "{answer}");
        assert!(run("curl -s http://[::1]:8463/readyz").starts_with("ready"));
        // The guard notices that mail is no longer accepted.
        postfix.run("postfix stop");
        until("the guard raises an alert", || run("sternpost status").contains("mx-unreached"));
        let told = std::fs::read_to_string(&log).unwrap();
        assert!(!told.contains("127.0.0.1"), "{told}");
    });
}
