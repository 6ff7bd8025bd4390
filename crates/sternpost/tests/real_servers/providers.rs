//! Records changed through the interfaces of DNS providers, by the whole program, over TLS, at the names that they have:
//! from nothing to testing to nothing, and what goes wrong on the way.

use crate::names::{Names, zone};
use crate::patience::PATIENCE;
use crate::provider_api::{Api, Cut, HOSTS, TOKEN, TSIG, ZONES};
use crate::support::{
    Running, by_a_clock_of_its_own, daemon, in_a_room_of_its_own, let_time_pass, mount_over, shell, until,
};
use formats::DomainName;
use lab::dns::Signing;
use lab::pki::{Cert, Pki};
use net::clock::{Clock, SystemClock};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use store::Store;
use store::hosting::StoredCertificate;

struct Room {
    place: PathBuf,
    before: String,
    api: Arc<Api>,
    _names: Names,
    _serve: Running,
}

impl Room {
    fn new(place: &Path) -> Self {
        let before = by_a_clock_of_its_own(place);
        let delegated: String = ZONES.iter().map(|zone| format!("{zone}. NS ns.test.\n")).collect();
        let mut zones = vec![
            zone(".", Signing::Signed, "test. NS ns.test.\nns.test. A 127.0.1.1\n"),
            zone("test.", Signing::Unsigned, &format!("ns A 127.0.1.1\npolicy A 127.0.0.50\n{delegated}")),
        ];
        let inside = "@ MX 10 mx1\nmx1 A 127.0.0.61\n_mta-sts TXT \"site=verification\"\nmta-sts A 192.0.2.1\nmta-sts AAAA 2001:db8::1\n";
        zones.extend(ZONES.map(|name| zone(&format!("{name}."), Signing::Unsigned, inside)));
        let lines = format!(
            "key:\n  - id: sternpost\n    algorithm: hmac-sha256\n    secret: {TSIG}\nacl:\n  - id: updates\n    key: sternpost\n    action: update\n"
        );
        let names = Names::start_with(&place.join("names"), [127, 0, 1, 1].into(), &zones, "", &lines);
        std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        mount_over(&place.join("resolv.conf"), Path::new("/etc/resolv.conf"));
        let hosts: String = HOSTS.iter().map(|(_, host)| format!("127.0.0.70 {host}\n")).collect();
        std::fs::write(place.join("hosts"), hosts).unwrap();
        mount_over(&place.join("hosts"), Path::new("/etc/hosts"));
        let pki = Pki::new(SystemClock.now()).unwrap();
        std::fs::write(place.join("roots.pem"), pki.root_pem()).unwrap();
        let there: Vec<(String, &str, &str)> = ZONES
            .iter()
            .flat_map(|zone| {
                [
                    (format!("_mta-sts.{zone}"), "TXT", "\"site=verification\""),
                    (format!("mta-sts.{zone}"), "A", "192.0.2.1"),
                    (format!("mta-sts.{zone}"), "AAAA", "2001:db8::1"),
                ]
            })
            .collect();
        let there: Vec<(&str, &str, &str)> =
            there.iter().map(|(name, kind, data)| (name.as_str(), *kind, *data)).collect();
        let api = Api::start("127.0.0.70", &pki, &there);
        certificates(place, &pki);
        configure(place);
        let line = format!(
            "{before}{} --config {}/sternpost.toml serve",
            env!("CARGO_BIN_EXE_sternpost"),
            place.display()
        );
        let serve = daemon(&line, &place.join("serve.log"));
        until("policies are served", || {
            std::fs::read_to_string(place.join("serve.log")).unwrap_or_default().contains("127.0.0.50:443")
        });
        Self { place: place.to_owned(), before, api, _names: names, _serve: serve }
    }

    /// Runs a command that ends with this code, and gives what it says.
    fn ends(&self, words: &str, code: u8) -> String {
        shell(&format!(
            "cd {} && SSL_CERT_FILE={}/roots.pem {}sternpost {words}; test $? = {code}",
            self.place.display(),
            self.place.display(),
            self.before
        ))
    }

    /// Runs a command that is killed when this request to the provider has come. Returns false if it ended before, as it
    /// should have.
    fn is_killed(&self, words: &str, cut: Cut) -> bool {
        *self.api.moods.cut.lock().unwrap() = Some(cut);
        let place = self.place.display();
        let program = env!("CARGO_BIN_EXE_sternpost");
        let line =
            format!("cd {place} && SSL_CERT_FILE={place}/roots.pem exec {}{program} {words}", self.before);
        let mut child = Command::new("bash")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let is_over = || self.api.moods.cut.lock().unwrap().is_some_and(|cut| cut.is_over);
        let status = loop {
            if is_over() {
                // By SIGKILL, so that nothing is put back on the way out.
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            assert!(begun.elapsed() < PATIENCE, "{words}: neither ended nor cut");
            std::thread::sleep(Duration::from_millis(5));
        };
        *self.api.moods.cut.lock().unwrap() = None;
        assert!(status.is_none_or(|status| status.success()), "{words}: {status:?}");
        status.is_none()
    }

    fn key(&self, service: &str, token: &str) {
        write_key(&self.place, service, token);
    }
}

/// What Pebble does in other tests.
fn certificates(place: &Path, pki: &Pki) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&place.join("sternpost.db"), store::Tenant::FIRST).await.unwrap();
        for zone in ZONES {
            let host = format!("mta-sts.{zone}");
            let identity = pki.issue(&host, Cert::Good).unwrap();
            let name = DomainName::parse(&host).unwrap();
            let given = StoredCertificate::given(name, identity.chain_pem(), identity.key_pem());
            store.put_certificate(&given).await.unwrap();
        }
        store.close().await;
    });
}

fn write_key(place: &Path, service: &str, token: &str) {
    let text = match service {
        "route53" => {
            format!("[default]\naws_access_key_id = AKIAOPERATOR\naws_secret_access_key = {token}\n")
        }
        _ => format!("{token}\n"),
    };
    std::fs::write(place.join(format!("{service}.key")), text).unwrap();
}

fn configure(place: &Path) {
    let mut config = "[dns]\nservers = [\"127.0.0.1:53\"]\ntrust_anchor = \"names/root.key\"\n[trust]\nca_file = \"roots.pem\"\nallow_private_addresses = true\n\
                      [host]\nlisten = [\"127.0.0.50:443\"]\nname = \"policy.test\"\n"
        .to_owned();
    for (service, _) in HOSTS {
        write_key(place, service, TOKEN);
        config += &format!(
            "[[provider]]\nname = \"ours\"\nservice = \"{service}\"\nkey_file = \"{service}.key\"\n\
             [[domain]]\nname = \"{service}.test\"\nmode = \"testing\"\nhost = \"self\"\ndns = \"{service}:ours\"\nrua = [\"mailto:reports@{service}.test\"]\n"
        );
    }
    std::fs::write(place.join("sternpost.toml"), config).unwrap();
}

/// What name servers show.
fn shown(name: &str, kind: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        shell(&format!("dig @127.0.1.1 +short {name} {kind}")).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn takes_a_domain_to_testing(room: &Room, service: &str) {
    let zone = format!("{service}.test");
    let applied = room.ends(&format!("apply --patience 60 {zone}"), 0);
    assert!(applied.contains("in the desired state: mode testing"), "{applied}");
    let record = shown(&format!("_mta-sts.{zone}"), "TXT");
    assert!(record.len() == 2 && record[0] == "\"site=verification\"", "{service}: {record:?}");
    assert!(record[1].starts_with("\"v=STSv1; id="), "{service}: {record:?}");
    let reports = format!("\"v=TLSRPTv1; rua=mailto:reports@{zone}\"");
    assert_eq!(shown(&format!("_smtp._tls.{zone}"), "TXT"), [reports]);
    assert_eq!(shown(&format!("mta-sts.{zone}"), "CNAME"), ["policy.test."]);
    // What stood there before is in the journal, for undoing it.
    let status = room.ends(&format!("status {zone}"), 0);
    let old =
        format!("replaced mta-sts.{zone}. 300 IN A 192.0.2.1 and mta-sts.{zone}. 300 IN AAAA 2001:db8::1");
    assert!(status.contains(&old), "{status}");
    room.api.changes.lock().unwrap().clear();
    room.ends(&format!("apply --patience 60 {zone}"), 0);
    assert!(room.api.changes.lock().unwrap().is_empty(), "{service}: a record was put that was there");
}

fn leaves(room: &Room, service: &str) {
    let zone = format!("{service}.test");
    let applied = room.ends(&format!("apply --patience 60 {zone}"), 0);
    assert!(applied.contains("in the desired state: mode none"), "{applied}");
    assert_eq!(shown(&format!("_mta-sts.{zone}"), "TXT"), ["\"site=verification\""], "{service}");
}

fn says_what_is_wrong(room: &Room, service: &str) {
    let zone = format!("{service}.test");
    room.key(service, "wr0ng");
    let said = room.ends(&format!("apply --patience 0 {zone}"), 3);
    let told = ["rejected the key", "Invalid access token", "SignatureDoesNotMatch"];
    assert!(told.iter().any(|words| said.contains(words)), "{said}");
    assert!(!said.contains("wr0ng") && said.contains("_smtp._tls"), "{said}");
    room.key(service, TOKEN);
    room.api.moods.busy.store(true, Ordering::SeqCst);
    room.api.moods.no_aliases.store(true, Ordering::SeqCst);
    let said = room.ends(&format!("apply --patience 60 {zone}"), 3);
    assert!(said.contains("mta-sts.") && said.contains("CNAME") && !said.contains(TOKEN), "{said}");
    // An alias that is refused leaves the addresses as they were.
    assert_eq!(shown(&format!("mta-sts.{zone}"), "A"), ["192.0.2.1"], "{service}");
    assert_eq!(shown(&format!("mta-sts.{zone}"), "AAAA"), ["2001:db8::1"], "{service}");
    room.api.moods.no_aliases.store(false, Ordering::SeqCst);
}

/// Accepted, and not published: said after the patience is over, and gone on with when it shows.
fn waits_for_name_servers(room: &Room) {
    room.api.moods.deaf.store(true, Ordering::SeqCst);
    let said = room.ends("apply --patience 0 hetzner.test", 1);
    assert!(said.contains("not visible after 0 seconds: mta-sts points to"), "{said}");
    assert!(said.contains("Run `sternpost apply hetzner.test` again when it is: it resumes here"), "{said}");
    room.api.moods.deaf.store(false, Ordering::SeqCst);
    for kind in ["A", "AAAA", "CNAME"] {
        room.api.publish("mta-sts.hetzner.test", kind);
    }
}

#[test]
fn five_providers_are_told_what_to_publish_and_touch_nothing_else() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let room = Room::new(place.path());
        for (service, _) in HOSTS {
            says_what_is_wrong(&room, service);
        }
        waits_for_name_servers(&room);
        for (service, _) in HOSTS {
            takes_a_domain_to_testing(&room, service);
        }
        let path = place.path().join("sternpost.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace("mode = \"testing\"", "mode = \"none\"")).unwrap();
        let told = room.ends("apply --patience 60", 0);
        assert_eq!(told.matches("may cache a policy of this domain").count(), 5, "{told}");
        let_time_pass(place.path(), 2 * 86_400, None);
        for (service, _) in HOSTS {
            leaves(&room, service);
        }
        let mistyped = config.replace("service = \"hetzner\"", "service = \"hezner\"");
        std::fs::write(&path, mistyped).unwrap();
        let said = room.ends("plan", 2);
        assert!(
            said.contains("\"hezner\" is not one of cloudflare, desec, digitalocean, hetzner, route53"),
            "{said}"
        );
    });
}

/// The records of others, and whether a name has an alias beside addresses, which DNS does not allow.
fn others_are_untouched(room: &Room, zone: &str) {
    let texts = room.api.data(&format!("_mta-sts.{zone}"), "TXT");
    assert!(texts.contains(&"\"site=verification\"".to_owned()) && texts.len() <= 2, "{texts:?}");
    let has = |kind: &str| !room.api.at(&format!("mta-sts.{zone}"), kind).is_empty();
    assert!(!has("CNAME") || !has("A") && !has("AAAA"), "{zone}");
}

/// The program is killed while the addresses of the policy host are replaced by an alias. The next run puts them back, which
/// shows if the provider then refuses the alias.
fn puts_back(room: &Room, service: &str) {
    let zone = format!("{service}.test");
    let apply = format!("apply --patience 60 {zone}");
    // The first change is the record for reports, which Hetzner is told to replace before it is told to create it; the next
    // remove the addresses.
    let before = if service == "hetzner" { 3 } else { 2 };
    let cut = Cut { before, has_effect: true, is_change: true, ..Cut::default() };
    assert!(room.is_killed(&apply, cut), "{service}: fewer than three changes");
    let place = format!("mta-sts.{zone}");
    let addresses = || [room.api.data(&place, "A"), room.api.data(&place, "AAAA")];
    let before = [vec!["192.0.2.1".to_owned()], vec!["2001:db8::1".to_owned()]];
    assert_ne!(addresses(), before, "{service}: the request that was cut has no effect");
    room.api.moods.no_aliases.store(true, Ordering::SeqCst);
    room.ends(&apply, 3);
    room.api.moods.no_aliases.store(false, Ordering::SeqCst);
    assert_eq!(addresses(), before, "{service}");
    others_are_untouched(room, &zone);
    let status = room.ends(&format!("status {zone}"), 0);
    assert!(status.contains(&format!("a change of {place} that was interrupted at")), "{status}");
}

/// Run after run is killed, each one request later than the one before, until one has nothing left to do before its kill.
fn finishes(room: &Room, service: &str) -> usize {
    let zone = format!("{service}.test");
    let apply = format!("apply --patience 60 {zone}");
    let cut = |at: usize| Cut { before: at, has_effect: at % 2 == 1, ..Cut::default() };
    let kills = (0..80).take_while(|at| {
        let is_killed = room.is_killed(&apply, cut(*at));
        others_are_untouched(room, &zone);
        is_killed
    });
    let kills = kills.count();
    assert!((3..80).contains(&kills), "{service}: {kills}");
    let record = shown(&format!("_mta-sts.{zone}"), "TXT");
    assert!(record.len() == 2 && record[1].starts_with("\"v=STSv1; id="), "{service}: {record:?}");
    assert_eq!(shown(&format!("mta-sts.{zone}"), "CNAME"), ["policy.test."], "{service}");
    let reports = format!("\"v=TLSRPTv1; rua=mailto:reports@{zone}\"");
    assert_eq!(shown(&format!("_smtp._tls.{zone}"), "TXT"), [reports], "{service}");
    kills
}

#[test]
fn a_program_that_is_killed_between_two_requests_to_a_provider_puts_back_or_finishes_when_it_runs_again() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let room = Room::new(place.path());
        for (service, _) in HOSTS {
            puts_back(&room, service);
            let kills = finishes(&room, service);
            println!("{service}: killed at {kills} requests, one after the other");
        }
    });
}
