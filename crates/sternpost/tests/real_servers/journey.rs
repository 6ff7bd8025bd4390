//! The guide of docs/receiving.md on real servers, from an empty folder to retirement: Knot or BIND with updates by TSIG, the
//! zone unsigned or signed, Unbound, Pebble, curl and openssl as foreign clients. All of them live by a clock that the test
//! sets, so that a month passes in a moment. `mta-sts` is an alias of the policy host's name.

mod delegated;
mod ipv6;
mod refused;

use crate::names::{Names, zone};
use crate::patience::whole_lines;
use crate::pebble::{DIRECTORY, Pebble};
use crate::postfix::{Postfix, Release};
use crate::support::{
    Running, by_a_clock_of_its_own, daemon, in_a_room_of_its_own, let_time_pass, mount_over, shell, until,
    until_some,
};
use lab::dns::Signing;
use lab::pki::{Cert, Pki};
use net::clock::{Clock, SystemClock};
use std::path::{Path, PathBuf};

const SECRET: &str = "c3Rlcm5wb3N0IHN0ZXJucG9zdCBzdGVybnBvc3QhISE=";

/// How the domain's zone is served. BIND signs what it transfers from Knot, to which updates go: its clock can't be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Unsigned,
    SignedByKnot,
    SignedByBind,
}

impl Zone {
    /// The address of the name server.
    fn server(self) -> &'static str {
        match self {
            Self::Unsigned | Self::SignedByKnot => "127.0.1.1",
            Self::SignedByBind => BIND,
        }
    }
}

/// The address of the Knot that BIND transfers from, which nobody else asks.
const PRIMARY: &str = "127.0.1.3";
/// The address of BIND.
const BIND: &str = "127.0.1.2";
const HARBOUR: &str = "@ MX 10 mx1\nmx1 A 127.0.0.61\nmx2 A 127.0.0.62\n_mta-sts TXT \"site=verification\"\n";

struct Journey {
    place: PathBuf,
    /// The address of the name server of the domain's zone.
    server: &'static str,
    /// The address of the server that takes updates of it.
    updated: &'static str,
    days: u32,
    minutes: u32,
    /// What the foreign clients saw, for whoever runs the tests.
    told: std::cell::RefCell<String>,
    before: String,
    names: Names,
    _postfix: Postfix,
    _pebble: Pebble,
    _bind: Option<[Running; 2]>,
    _serve: Option<Running>,
}

impl Journey {
    fn begin(place: &Path) -> Self {
        Self::begin_in(place, Zone::Unsigned)
    }

    fn begin_in(place: &Path, harbour: Zone) -> Self {
        let before = by_a_clock_of_its_own(place);
        let signing = if harbour == Zone::Unsigned { Signing::Unsigned } else { Signing::Signed };
        let mut test = "ns A 127.0.1.1\nours NS ns.test.\npolicy A 127.0.0.50\n".to_owned();
        let mut zones = vec![
            zone(".", Signing::Signed, "test. NS ns.test.\nns.test. A 127.0.1.1\n"),
            zone("ours.test.", Signing::Unsigned, ""),
        ];
        match harbour {
            Zone::Unsigned | Zone::SignedByKnot => {
                test += "harbour NS ns.test.\n";
                zones.push(zone("harbour.test.", signing, HARBOUR));
            }
            Zone::SignedByBind => {
                let ds = bind_key(&place.join("bind"));
                test += &format!("ns2 A {BIND}\nharbour NS ns2.test.\n{ds}");
            }
        }
        zones.push(zone("test.", signing, &test));
        let lines = format!(
            "key:\n  - id: sternpost\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: updates\n    key: sternpost\n    action: update\n"
        );
        std::fs::write(place.join("tsig.key"), format!("{SECRET}\n")).unwrap();
        let names = Names::start_with(&place.join("names"), [127, 0, 1, 1].into(), &zones, &before, &lines);
        let bind = (harbour == Zone::SignedByBind)
            .then(|| [primary(&place.join("primary"), &before, &lines), bind(&place.join("bind"))]);
        std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        mount_over(&place.join("resolv.conf"), Path::new("/etc/resolv.conf"));
        let pki = Pki::new(SystemClock.now()).unwrap();
        let pebble = Pebble::start(&place.join("pebble"), &pki, "PEBBLE_WFE_NONCEREJECT=0");
        Self {
            place: place.to_owned(),
            server: harbour.server(),
            updated: if harbour == Zone::SignedByBind { PRIMARY } else { "127.0.1.1" },
            days: 0,
            minutes: 0,
            told: Default::default(),
            before,
            names,
            _postfix: mx_hosts(place, &pki),
            _pebble: pebble,
            _bind: bind,
            _serve: None,
        }
    }

    fn sternpost(&self, words: &str) -> String {
        shell(&format!("cd {} && {}sternpost {words}", self.place.display(), self.before))
    }

    /// Runs a command that ends with this code, and gives what it says.
    fn ends(&self, words: &str, code: u8) -> String {
        let line =
            format!("cd {} && {}sternpost {words}; test $? = {code}", self.place.display(), self.before);
        shell(&line)
    }

    /// What is wanted, as the operator writes it.
    fn want(&self, from: &str, to: &str) {
        let path = self.place.join("sternpost.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// From nothing: what `init` proposes, with our own policy host and Knot in it.
    fn configure(&self, more: &str) {
        let config = format!(
            "[dns]\nservers = [\"127.0.0.1:53\"]\ntrust_anchor = \"names/root.key\"\n[trust]\nca_file = \"trusted.pem\"\n\
             allow_private_addresses = true\n[host]\nlisten = [\"127.0.0.50:443\"]\nhttp = [\"127.0.0.50:80\"]\nname = \"policy.test\"\n\
             acme = {{ directory = \"{DIRECTORY}\", ca_file = \"pebble/root.pem\", contact = \"mailto:ops@harbour.test\", profile = \"default\" }}\n\
             [[rfc2136]]\nname = \"knot\"\nserver = \"{}:53\"\nkey_name = \"sternpost\"\nkey_file = \"tsig.key\"\n{more}",
            self.updated
        );
        std::fs::write(self.place.join("sternpost.toml"), config).unwrap();
        // The policy host's certificates are from one CA, those of the MX hosts from another.
        shell(&format!("cd {} && cat pebble/issued.pem mx/ca.pem > trusted.pem", self.place.display()));
        self.sternpost("init harbour.test > proposal && cat proposal >> sternpost.toml");
        self.want("host = \"static\"", "host = \"self\"");
        self.want("dns = \"manual\"", "dns = \"rfc2136:knot\"");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.place.join("serve.log")).unwrap_or_default()
    }

    fn serve(&mut self) {
        let line = format!(
            "{}{} --config {}/sternpost.toml serve",
            self.before,
            env!("CARGO_BIN_EXE_sternpost"),
            self.place.display()
        );
        self._serve = Some(daemon(&line, &self.place.join("serve.log")));
    }

    fn pass(&mut self, days: u32) {
        self.days += days;
        // Some minutes more, for proxies that may hold a copy.
        self.wait(days * 24 * 60 + 10);
    }

    fn wait(&mut self, minutes: u32) {
        self.minutes += minutes;
        let_time_pass(&self.place, self.minutes * 60, self._serve.as_ref());
    }

    /// What somebody sees who knows nothing of Sternpost.
    fn foreigner(&self, stage: &str) -> String {
        let seen = shell(&format!(
            "for name in _mta-sts _smtp._tls; do dig @{1} +short $name.harbour.test TXT; dig @127.0.1.1 +short $name.harbour.test.ours.test TXT; done;
             curl -s --cacert {0}/pebble/issued.pem https://mta-sts.harbour.test/.well-known/mta-sts.txt || echo 'no policy'
             for mx in $(dig @{1} +short harbour.test MX | sort -n | cut -d' ' -f2); do
               openssl s_client -starttls smtp -connect ${{mx%.}}:25 -verify_hostname ${{mx%.}} -verify_return_error -CAfile {0}/mx/ca.pem </dev/null >/dev/null 2>&1 &&
                 swaks --server ${{mx%.}} --tls --from a@sender.test --to postmaster@harbour.test --hide-all && echo \"$mx proves itself and takes mail\"
             done",
            self.place.display(),
            self.server
        ));
        let told = format!("{stage}, day {}\n{seen}\n", self.days);
        self.told.borrow_mut().push_str(&told);
        seen
    }

    /// The MX records are the operator's own.
    fn mx(&self, words: &str) {
        shell(&format!(
            "printf 'server {}\\nzone harbour.test.\\nkey hmac-sha256:sternpost {SECRET}\\n{words}\\nsend\\n' | {} knsupdate",
            self.updated, self.before
        ));
        let shown = |server| shell(&format!("dig @{server} +short harbour.test MX | sort"));
        until("the name server has the change", || shown(self.server) == shown(self.updated));
    }
}

/// How BIND signs. The signatures outlast the days that pass in the test.
const POLICY: &str = "dnssec-policy one { keys { csk lifetime unlimited algorithm ecdsap256sha256; }; signatures-validity P100D; signatures-validity-dnskey P100D; };\n";

/// Makes a key for BIND, and returns the DS record for the parent zone.
fn bind_key(place: &Path) -> String {
    std::fs::create_dir(place).unwrap();
    std::fs::write(place.join("policy.conf"), POLICY).unwrap();
    let dir = place.display();
    let key = shell(&format!("cd {dir} && dnssec-keygen -q -k one -l policy.conf harbour.test"));
    shell(&format!("cd {dir} && dnssec-dsfromkey -2 {}", key.trim()))
}

/// A second Knot with the unsigned zone, which takes updates and tells BIND of them.
fn primary(place: &Path, before: &str, lines: &str) -> Running {
    std::fs::create_dir(place).unwrap();
    shell(&format!("ip address add {PRIMARY}/32 dev lo"));
    let zone =
        zone("harbour.test.", Signing::Unsigned, HARBOUR).text.replace("@ NS ns.test.", "@ NS ns2.test.");
    std::fs::write(place.join("harbour.zone"), zone).unwrap();
    let dir = place.display();
    let config = format!(
        "{lines}  - id: transfer\n    address: 127.0.0.0/8\n    action: transfer\n\
         remote:\n  - id: bind\n    address: {BIND}@53\n    via: {PRIMARY}\n\
         server:\n  listen: {PRIMARY}@53\n  rundir: {dir}\ndatabase:\n  storage: {dir}\n\
         zone:\n  - domain: harbour.test.\n    file: {dir}/harbour.zone\n    zonefile-sync: -1\n    zonefile-load: difference-no-serial\n    journal-content: all\n    acl: [updates, transfer]\n    notify: bind\n"
    );
    std::fs::write(place.join("knot.conf"), config).unwrap();
    daemon(&format!("{before}knotd -c {dir}/knot.conf"), &place.join("knot.log"))
}

/// BIND with the zone harbour.test from the primary, signed by its own key.
fn bind(place: &Path) -> Running {
    shell(&format!("ip address add {BIND}/32 dev lo"));
    let dir = place.display();
    let config = format!(
        "options {{ directory \"{dir}\"; listen-on {{ {BIND}; }}; listen-on-v6 {{ none; }}; recursion no; pid-file \"{dir}/pid\"; session-keyfile \"{dir}/session\"; notify no; }};\n\
         controls {{ }};\n{POLICY}\
         zone harbour.test {{ type secondary; primaries {{ {PRIMARY}; }}; file \"{dir}/harbour.zone\"; key-directory \"{dir}\"; dnssec-policy one; inline-signing yes; }};\n"
    );
    std::fs::write(place.join("named.conf"), config).unwrap();
    let running = daemon(&format!("named -g -c {dir}/named.conf"), &place.join("named.log"));
    let ask = format!("dig @{BIND} +dnssec +time=1 +tries=1 harbour.test MX || true");
    until("BIND answers with signatures", || shell(&ask).contains("RRSIG"));
    running
}

/// Postfix as both MX hosts of the domain. Its clock is the machine's: a certificate of three months is good all along.
fn mx_hosts(place: &Path, pki: &Pki) -> Postfix {
    let own = place.join("mx");
    std::fs::create_dir(&own).unwrap();
    shell(&format!("chmod 755 {}", place.display()));
    std::fs::write(own.join("ca.pem"), pki.root_pem()).unwrap();
    let mut services = String::new();
    for (name, address) in [("mx1", "127.0.0.61"), ("mx2", "127.0.0.62")] {
        let identity = pki.issue(&format!("{name}.harbour.test"), Cert::Good).unwrap();
        let pem = own.join(format!("{name}.pem"));
        std::fs::write(&pem, identity.key_pem() + &identity.chain_pem()).unwrap();
        // Postfix looks for them among the addresses of interfaces.
        shell(&format!("ip address add {address}/32 dev lo"));
        services += &format!(
            "{address}:25 inet n - n - - smtpd -o myhostname={name}.harbour.test -o smtpd_tls_security_level=may -o smtpd_tls_chain_files={}\n",
            pem.display()
        );
    }
    let lines = "inet_interfaces = 127.0.0.61, 127.0.0.62\nsmtpd_peername_lookup = no\nmydestination = harbour.test\nlocal_transport = discard\nlocal_recipient_maps =\n";
    Postfix::start_with(Release::V3_7, &own, lines, &services)
}

#[test]
fn the_guide_from_nothing_to_retirement() {
    guide(Zone::Unsigned);
}

#[test]
fn the_guide_in_a_zone_signed_by_knot() {
    guide(Zone::SignedByKnot);
}

#[test]
fn the_guide_in_a_zone_signed_by_bind() {
    guide(Zone::SignedByBind);
}

fn guide(zone: Zone) {
    in_a_room_of_its_own(move || {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin_in(place.path(), zone);
        on.configure("");
        on.serve();
        let planned = on.sternpost("plan");
        assert!(planned.contains("from no policy to enforce"), "{planned}");

        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("in testing. Enforcement needs evidence"), "{applied}");
        let seen = on.foreigner("in testing");
        assert!(seen.contains("mode: testing") && seen.contains("mx: mx1.harbour.test"), "{seen}");
        assert!(seen.contains("site=verification"), "a record of somebody else is gone: {seen}");
        on.ends("promote harbour.test", 1);

        on.pass(14);
        on.sternpost("promote --force --reason rehearsal harbour.test");
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("in the desired state: mode enforce"), "{applied}");
        let seen = on.foreigner("enforced");
        assert!(seen.contains("mode: enforce") && seen.contains("max_age: 604800"), "{seen}");
        assert!(seen.contains("mx1.harbour.test. proves itself and takes mail"), "{seen}");

        on.want("mx = [\"mx1.harbour.test\"]", "mx = [\"mx2.harbour.test\"]");
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("may cache a policy that rejects the new MX hosts"), "{applied}");
        assert!(on.foreigner("widened").contains("mx: mx1.harbour.test"));
        on.pass(7);
        // The MX records are shown to the operator, who changes them; here, before the time runs out.
        let applied = on.ends("apply --patience 0", 1);
        assert!(applied.contains("add to the MX records: mx2.harbour.test"), "{applied}");
        on.mx("update add harbour.test. 2 MX 20 mx2.harbour.test.");
        let applied = on.ends("apply --patience 0", 1);
        assert!(applied.contains("remove from the MX records: mx1.harbour.test"), "{applied}");
        on.mx("update delete harbour.test. MX 10 mx1.harbour.test.");
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("may still deliver to the removed MX hosts"), "{applied}");
        on.pass(8);
        on.sternpost("apply --patience 120");
        let seen = on.foreigner("moved");
        assert!(
            !seen.contains("mx1.harbour.test") && seen.contains("mx2.harbour.test. proves itself"),
            "{seen}"
        );

        on.want("mode = \"enforce\"", "mode = \"none\"");
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("may cache a policy of this domain"), "{applied}");
        assert!(on.foreigner("retiring").contains("mode: none"));
        on.pass(8);
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("in the desired state: mode none"), "{applied}");
        let seen = on.foreigner("retired");
        assert!(
            !seen.contains("v=STSv1") && seen.contains("no policy") && seen.contains("site=verification"),
            "{seen}"
        );
        if zone == Zone::Unsigned {
            let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
            std::fs::create_dir_all(&target).unwrap();
            std::fs::write(target.join("journey.txt"), on.told.borrow().as_str()).unwrap();
        }
        let is_signed = on.names.ask("mta-sts.harbour.test", "A").contains("flags: qr rd ra ad");
        assert_eq!(is_signed, zone != Zone::Unsigned);
        let status = on.sternpost("status --json");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert!(status["domains"][0]["journal"].as_array().unwrap().len() > 10, "{status}");
        assert!(on.names.ask("harbour.test", "MX").contains("mx2.harbour.test"));
        assert!(on.log().contains("certificate issued"), "{}", on.log());
    });
}

#[test]
fn the_guard_widens_the_policy_at_once_where_that_is_allowed() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        on.configure("[guard]\nevery = 1\n");
        on.want("mode = \"enforce\"", "mode = \"enforce\"\nrepair = true");
        on.serve();
        on.sternpost("apply --patience 120");
        on.sternpost("promote --force --reason rehearsal harbour.test");
        on.sternpost("apply --patience 120");
        let id = on.foreigner("enforced");
        on.mx("update add harbour.test. 2 MX 20 mx2.harbour.test.");
        until("the guard repairs", || on.log().contains("carried out: publish _mta-sts"));
        assert!(on.log().contains("mx2.harbour.test is an MX host of harbour.test"), "{}", on.log());
        let seen = on.foreigner("repaired");
        assert!(
            seen.contains("mx: mx1.harbour.test") && seen.contains("mx: mx2.harbour.test") && seen != id,
            "{seen}"
        );
    });
}

#[test]
fn the_guard_carries_plans_out_where_that_is_allowed_and_enforces_nothing_by_itself() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        on.configure("[guard]\nevery = 1\napply = true\n");
        on.serve();
        until("it is in testing", || on.sternpost("plan --json").contains("\"mode\":\"testing\""));
        let seen = on.foreigner("by itself");
        assert!(seen.contains("mode: testing") && seen.contains("v=STSv1; id="), "{seen}");
        on.pass(14);
        until("it is looked at again", || on.sternpost("status --json").contains("\"state\":\"not-yet\""));
        assert!(on.foreigner("later").contains("mode: testing"), "enforced behind the operator's back");
        on.sternpost("promote --force --reason rehearsal harbour.test");
        until("it is enforced", || on.foreigner("allowed").contains("mode: enforce"));
        assert!(on.log().contains("carried out: publish _mta-sts"), "{}", on.log());
        let announced = || on.log().matches("carried out: publish _mta-sts").count();
        until("enforcement is announced", || announced() == 2);
        let before = on.foreigner("with one host");
        on.mx("update add harbour.test. 2 MX 20 mx2.harbour.test.");
        until("a new MX host is told", || {
            on.log().contains("mx2.harbour.test is an MX host of harbour.test")
        });
        on.mx("update delete harbour.test. MX 20 mx2.harbour.test.");
        until("it is looked at again", || on.log().contains("alert ended"));
        assert_eq!(on.foreigner("nobody confirmed the host"), before);
        on.mx("update add harbour.test. 2 MX 20 mx2.harbour.test.");
        on.want("mx = [\"mx1.harbour.test\"]", "mx = [\"mx1.harbour.test\", \"mx2.harbour.test\"]");
        on.sternpost("apply --patience 120");
        assert!(on.foreigner("confirmed").contains("mx: mx2.harbour.test"));
    });
}

#[test]
fn an_apply_that_is_killed_at_any_moment_goes_on_where_it_was() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        on.configure("");
        on.serve();
        let mut killed = 0;
        for moment in 1.. {
            let line = format!(
                "cd {} && {}timeout -s KILL {}.{:02} sternpost apply; true",
                place.path().display(),
                on.before,
                moment * 7 / 100,
                moment * 7 % 100
            );
            let said = shell(&line);
            if said.contains("in testing. Enforcement needs evidence") {
                break;
            }
            killed += 1;
            // Its hold on the domain ends by itself.
            on.wait(16);
        }
        assert!(killed > 2, "it was never killed");
        let seen = on.foreigner("in testing");
        assert!(seen.contains("mode: testing") && seen.matches("v=STSv1").count() == 1, "{seen}");
        assert_eq!(on.sternpost("plan --json").matches("\"do\":\"announce\"").count(), 1);
    });
}

#[test]
fn two_programs_do_not_apply_the_same_plan_at_once() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        on.configure("");
        on.want("dns = \"rfc2136:knot\"", "dns = \"manual\"");
        on.serve();
        let first = format!(
            "{}{} --config {}/sternpost.toml apply",
            on.before,
            env!("CARGO_BIN_EXE_sternpost"),
            place.path().display()
        );
        let log = place.path().join("first.log");
        let _first = daemon(&first, &log);
        until("the first waits for the operator", || {
            std::fs::read_to_string(&log).unwrap().contains("or in a DNS provider's web form")
        });
        let said = on.ends("apply", 3);
        assert!(
            said.contains("its plan is being applied by process") && said.contains("--take-over"),
            "{said}"
        );
        // What the first shows is what it takes: pasted as it is, the step is done.
        let record = until_some("the record to publish is shown", || {
            let shown = whole_lines(&log);
            shown.lines().map(str::trim).find(|line| line.starts_with("_smtp._tls.")).map(str::to_owned)
        });
        on.mx(&format!("update add {}", record.replace('"', "\\\"").replace(" IN ", " ")));
        until("the first goes on", || {
            std::fs::read_to_string(&log).unwrap().contains("point mta-sts to policy.test")
        });
    });
}

#[test]
fn pub_06_a_customer_delegates_once_and_never_again_until_it_has_left() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        on.configure("[delegation]\nzone = \"ours.test\"\n");
        // The domain is kept in the store instead.
        let config = std::fs::read_to_string(place.path().join("sternpost.toml")).unwrap();
        std::fs::write(place.path().join("sternpost.toml"), config.split("# Proposed by").next().unwrap())
            .unwrap();
        on.serve();
        let added = on.sternpost(
            "domains add harbour.test --delegated --dns rfc2136:knot --rua mailto:reports@ours.test",
        );
        let aliases: Vec<&str> =
            added.lines().map(str::trim).filter(|line| line.contains(" IN CNAME ")).collect();
        assert_eq!(aliases.len(), 3, "{added}");
        assert!(on.ends("domains add harbour.test", 2).contains("it is in the store"));
        let applied = on.ends("apply --patience 0", 1);
        assert!(applied.contains("publishes this in its zone, once"), "{applied}");
        // The customer pastes what he was shown; a record of somebody else stands in the way of an alias.
        on.mx("update delete _mta-sts.harbour.test. TXT");
        let words: Vec<String> =
            aliases.iter().map(|line| format!("update add {}", line.replace(" IN ", " "))).collect();
        on.mx(&words.join("\\n"));
        let serial = || shell("dig @127.0.1.1 +short harbour.test SOA");
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("in testing"), "{applied}");
        let seen = on.foreigner("delegated");
        assert!(seen.contains("mode: testing") && seen.contains("rua=mailto:reports@ours.test"), "{seen}");
        let before = serial();
        on.sternpost("promote --force --reason rehearsal harbour.test && sternpost apply --patience 120");
        assert!(on.foreigner("enforced").contains("mode: enforce"));
        assert!(on.ends("domains remove harbour.test", 1).contains("senders may still hold its policy"));
        on.sternpost("domains set harbour.test --mode none");
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("may cache a policy of this domain"), "{applied}");
        assert!(on.foreigner("leaving").contains("mode: none"));
        let soa = |text: String| {
            text.lines().find(|line| line.contains("SOA") && line.contains("hostmaster")).map(str::to_owned)
        };
        assert_eq!(
            soa(before).map(|line| line.split_whitespace().nth(6).map(str::to_owned)),
            soa(serial()).map(|line| line.split_whitespace().nth(6).map(str::to_owned)),
            "the customer's zone was changed"
        );
        on.pass(8);
        let applied = on.sternpost("apply --patience 120");
        assert!(applied.contains("in the desired state: mode none"), "{applied}");
        on.sternpost("domains remove harbour.test");
        assert!(on.sternpost("domains list").contains("No domains yet"));
    });
}
