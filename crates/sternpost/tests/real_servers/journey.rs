//! The guide of docs/receiving.md on real servers, from an empty folder to retirement: Knot with updates
//! by TSIG, Unbound, Pebble, curl and openssl as foreign clients. All of them live by a clock that the
//! test sets, so that a month passes in a moment.

use crate::names::Names;
use crate::pebble::{DIRECTORY, Pebble};
use crate::support::{Running, daemon, in_a_room_of_its_own, mount_over, shell, until};
use lab::dns::{Signing, ZoneFile};
use lab::pki::Pki;
use net::clock::{Clock, SystemClock};
use std::path::{Path, PathBuf};

const SECRET: &str = "c3Rlcm5wb3N0IHN0ZXJucG9zdCBzdGVybnBvc3QhISE=";
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

struct Journey {
    place: PathBuf,
    days: u32,
    /// What the foreign clients saw, for whoever runs the tests.
    told: std::cell::RefCell<String>,
    before: String,
    names: Names,
    _pebble: Pebble,
    _serve: Option<Running>,
}

fn zone(origin: &str, signing: Signing, text: &str) -> ZoneFile {
    let soa = "@ SOA ns.test. hostmaster.test. 1 3600 600 86400 1\n@ NS ns.test.\n";
    ZoneFile { origin: origin.to_owned(), signing, text: format!("$ORIGIN {origin}\n$TTL 2\n{soa}{text}") }
}

impl Journey {
    fn begin(place: &Path) -> Self {
        std::fs::write(place.join("time"), "+0").unwrap();
        let before = format!(
            "env LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE={}/time FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 ",
            place.display()
        );
        let zones = [
            zone(".", Signing::Signed, "test. NS ns.test.\nns.test. A 127.0.1.1\n"),
            zone("test.", Signing::Unsigned, "ns A 127.0.1.1\nharbour NS ns.test.\npolicy A 127.0.0.50\n"),
            zone(
                "harbour.test.",
                Signing::Unsigned,
                "@ MX 10 mx1\nmx1 A 127.0.0.61\nmx2 A 127.0.0.62\n_mta-sts TXT \"site=verification\"\n",
            ),
        ];
        let lines = format!(
            "key:\n  - id: sternpost\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: updates\n    key: sternpost\n    action: update\n"
        );
        std::fs::write(place.join("tsig.key"), format!("{SECRET}\n")).unwrap();
        let names = Names::start_with(&place.join("names"), [127, 0, 1, 1].into(), &zones, &before, &lines);
        std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        mount_over(&place.join("resolv.conf"), Path::new("/etc/resolv.conf"));
        let pki = Pki::new(SystemClock.now()).unwrap();
        let pebble = Pebble::start(&place.join("pebble"), &pki, "PEBBLE_WFE_NONCEREJECT=20");
        Self {
            place: place.to_owned(),
            days: 0,
            told: Default::default(),
            before,
            names,
            _pebble: pebble,
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
        std::fs::write(self.place.join("time"), format!("+{}", self.days * 86_400 + self.days * 300))
            .unwrap();
    }

    /// What somebody sees who knows nothing of Sternpost.
    fn foreigner(&self, stage: &str) -> String {
        let seen = shell(&format!(
            "dig @127.0.1.1 +short _mta-sts.harbour.test TXT; dig @127.0.1.1 +short _smtp._tls.harbour.test TXT;
             curl -s --cacert {}/pebble/issued.pem https://mta-sts.harbour.test/.well-known/mta-sts.txt || echo 'no policy'",
            self.place.display()
        ));
        let told = format!("{stage}, day {}\n{seen}\n", self.days);
        self.told.borrow_mut().push_str(&told);
        seen
    }

    /// The MX records are the operator's own.
    fn mx(&self, words: &str) {
        shell(&format!(
            "printf 'server 127.0.1.1\\nzone harbour.test.\\nkey hmac-sha256:sternpost {SECRET}\\n{words}\\nsend\\n' | {} knsupdate",
            self.before
        ));
    }
}

#[test]
fn the_guide_from_nothing_to_retirement() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let mut on = Journey::begin(place.path());
        std::fs::write(
            place.path().join("sternpost.toml"),
            format!(
                "[dns]\nservers = [\"127.0.0.1:53\"]\ntrust_anchor = \"names/root.key\"\n[trust]\nca_file = \"pebble/issued.pem\"\n\
                 allow_private_addresses = true\n[host]\nlisten = [\"127.0.0.50:443\"]\nhttp = [\"127.0.0.50:80\"]\nname = \"policy.test\"\n\
                 acme = {{ directory = \"{DIRECTORY}\", ca_file = \"pebble/root.pem\", contact = \"mailto:ops@harbour.test\" }}\n\
                 [[rfc2136]]\nname = \"knot\"\nserver = \"127.0.1.1:53\"\nkey_name = \"sternpost\"\nkey_file = \"tsig.key\"\n"
            ),
        )
        .unwrap();
        on.sternpost("init harbour.test > proposal && cat proposal >> sternpost.toml");
        on.want("host = \"static\"", "host = \"self\"");
        on.want("dns = \"manual\"", "dns = \"rfc2136:knot\"");
        on.serve();
        let planned = on.sternpost("plan");
        assert!(planned.contains("from no policy to enforce"), "{planned}");

        let applied = on.sternpost("apply");
        assert!(applied.contains("in testing. Enforcement takes evidence"), "{applied}");
        let seen = on.foreigner("in testing");
        assert!(seen.contains("mode: testing") && seen.contains("mx: mx1.harbour.test"), "{seen}");
        assert!(seen.contains("site=verification"), "a record of somebody else is gone: {seen}");
        on.ends("promote harbour.test", 1);

        on.pass(14);
        on.sternpost("promote --without-evidence harbour.test");
        let applied = on.sternpost("apply");
        assert!(applied.contains("as wanted: mode enforce"), "{applied}");
        let seen = on.foreigner("enforced");
        assert!(seen.contains("mode: enforce") && seen.contains("max_age: 604800"), "{seen}");

        on.want("mx = [\"mx1.harbour.test\"]", "mx = [\"mx2.harbour.test\"]");
        let applied = on.sternpost("apply");
        assert!(applied.contains("may hold a policy that refuses the new MX hosts"), "{applied}");
        assert!(on.foreigner("widened").contains("mx: mx1.harbour.test"));
        on.pass(7);
        // The MX records are shown to the operator, who changes them; here, before the time runs out.
        let applied = on.ends("apply --patience 0", 1);
        assert!(applied.contains("put into the MX records: mx2.harbour.test"), "{applied}");
        on.mx("update add harbour.test. 2 MX 20 mx2.harbour.test.");
        let applied = on.ends("apply --patience 0", 1);
        assert!(applied.contains("take out of the MX records: mx1.harbour.test"), "{applied}");
        on.mx("update delete harbour.test. MX 10 mx1.harbour.test.");
        let applied = on.sternpost("apply");
        assert!(applied.contains("may still send to MX hosts that are gone"), "{applied}");
        on.pass(8);
        on.sternpost("apply");
        assert!(!on.foreigner("moved").contains("mx1.harbour.test"));

        on.want("mode = \"enforce\"", "mode = \"none\"");
        let applied = on.sternpost("apply");
        assert!(applied.contains("may hold a policy of this domain"), "{applied}");
        assert!(on.foreigner("retiring").contains("mode: none"));
        on.pass(8);
        let applied = on.sternpost("apply");
        assert!(applied.contains("as wanted: mode none"), "{applied}");
        let seen = on.foreigner("retired");
        assert!(
            !seen.contains("v=STSv1") && seen.contains("no policy") && seen.contains("site=verification"),
            "{seen}"
        );
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/journey.txt");
        std::fs::write(table, on.told.borrow().as_str()).unwrap();
        let status = on.sternpost("status --json");
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert!(status["domains"][0]["journal"].as_array().unwrap().len() > 10, "{status}");
        assert!(on.names.ask("harbour.test", "MX").contains("mx2.harbour.test"));
        until("the log names the certificate", || {
            std::fs::read_to_string(place.path().join("serve.log")).unwrap().contains("has a certificate")
        });
    });
}
