//! Certificates from Pebble by challenges in DNS, in zones of Knot that are changed by TSIG: through an alias, beside
//! other values at the same name, after a crash, by a record that stays, and for a policy host that moves here from
//! another provider while senders fetch its policy all the time.

use crate::https::{Answer, serve};
use crate::names::{Names, zone};
use crate::patience::until_ready;
use crate::pebble::{DIRECTORY, Pebble};
use crate::support::{daemon, in_a_room_of_its_own, mount_over, shell, until};
use formats::DomainName;
use jiff::Timestamp;
use lab::dns::Signing;
use lab::pki::Pki;
use net::BoxFuture;
use net::clock::{Clock, ManualClock, SystemClock};
use net::dns::update::{Algorithm, Replacement, Updater};
use net::dns::{AuthoritativeServers, Dnssec, Resolver, ResolverConfig};
use net::random::SystemRandomness;
use receiver::host::authority::{Authority, CaClient, ORDERS_PER_HOUR};
use receiver::host::order::{ChallengeType, ChallengeZones, DnsChallenges, Orders};
use receiver::host::vault::Vault;
use receiver::publish::{Change, Records};
use receiver::rollout::desired::PolicyHostAt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use store::Store;
use store::certificate_orders::ChallengeRecord;
use store::hosting::StoredCertificate;

const SECRET: &str = "c3Rlcm5wb3N0IHN0ZXJucG9zdCBzdGVybnBvc3QhISE=";
const POLICY: &str = "version: STSv1\r\nmode: testing\r\nmx: mx.move.test\r\nmax_age: 86400\r\n";

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn ground(place: &Path, records: &str) -> (Names, Pki, Pebble) {
    let zones = [
        zone(".", Signing::Signed, "test. NS ns.test.\nns.test. A 127.0.1.1\n"),
        zone("test.", Signing::Unsigned, &format!("ns A 127.0.1.1\n{records}")),
    ];
    let lines = format!(
        "key:\n  - id: sternpost\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: updates\n    key: sternpost\n    action: update\n"
    );
    let names = Names::start_with(&place.join("names"), [127, 0, 1, 1].into(), &zones, "", &lines);
    std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    mount_over(&place.join("resolv.conf"), Path::new("/etc/resolv.conf"));
    let pki = Pki::new(SystemClock.now()).unwrap();
    let pebble = Pebble::start(&place.join("pebble"), &pki, "PEBBLE_WFE_NONCEREJECT=0");
    (names, pki, pebble)
}

fn pebble(place: &Path) -> Authority {
    Authority {
        directory: DIRECTORY.to_owned(),
        contact: None,
        profile: Some("default".to_owned()),
        ca_file: Some(place.join("pebble/root.pem")),
        external: None,
        new_per_hour: ORDERS_PER_HOUR,
        issuer: Some("pebble.letsencrypt.org".to_owned()),
    }
}

/// The zone test, in which each domain has this challenge.
struct TestZone(ChallengeType);

fn updater() -> Updater {
    let server = "127.0.1.1:53".parse().unwrap();
    Updater::new(server, name("test"), &name("sternpost"), SECRET, Algorithm::Sha256).unwrap()
}

impl ChallengeZones for TestZone {
    fn choice<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, Result<Option<ChallengeType>, String>> {
        Box::pin(async { Ok(Some(self.0)) })
    }

    fn change<'a>(
        &'a self,
        _: &'a DomainName,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<Duration, String>> {
        Box::pin(async move {
            let Records::TxtValue { value, is_published } = &change.records else { panic!("{change:?}") };
            let new = Replacement::TxtValue { value: value.clone(), is_published: *is_published };
            let done = updater().replace(&change.name, &new, None, 1, Timestamp::now()).await;
            done.map(|_| Duration::from_secs(10)).map_err(|error| error.to_string())
        })
    }
}

struct Room {
    store: Store,
    clock: Arc<ManualClock>,
    orders: Orders,
}

impl Room {
    async fn new(place: &Path, challenge: ChallengeType) -> Self {
        let store = Store::open(&place.join("s.db"), store::Tenant::FIRST).await.unwrap();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let servers = vec!["127.0.0.1:53".parse().unwrap()];
        let resolver =
            ResolverConfig { servers, dnssec: Dnssec::Off, cache: false, ..ResolverConfig::default() };
        let dns = Arc::new(Resolver::new(&resolver).unwrap());
        let servers = AuthoritativeServers::new(dns.clone(), 53, true);
        let zones = Arc::new(TestZone(challenge));
        let orders = Orders {
            store: store.clone(),
            dns,
            clock: clock.clone(),
            authorities: vec![CaClient::new(pebble(place))],
            challenges: vec![ChallengeType::Http01],
            dns_challenges: Some(DnsChallenges { zones, servers: Arc::new(servers) }),
            vault: Arc::new(Vault::default()),
            // The host's name points elsewhere.
            policy_host_target: Some(PolicyHostAt::Addresses(vec!["127.0.0.50".parse().unwrap()])),
            holder: "test".to_owned(),
            randomness: Arc::new(SystemRandomness),
        };
        Self { store, clock, orders }
    }

    async fn ordered(&self, domain: &str) -> StoredCertificate {
        self.store.put_hosted(&name(domain), Some(POLICY)).await.unwrap();
        let host = name(&format!("mta-sts.{domain}"));
        let order = StoredCertificate::to_order(host.clone(), self.clock.now());
        self.store.put_certificate(&order).await.unwrap();
        for _ in 0..4 {
            self.orders.round().await.unwrap();
            let now = self.store.certificate(&host).await.unwrap().unwrap();
            if !now.chain.is_empty() {
                return now;
            }
            self.clock.set_by((now.next_at.as_second() - self.clock.now().as_second()).max(0));
        }
        panic!("{:?}", self.store.certificate(&host).await);
    }
}

fn texts(name: &str) -> Vec<String> {
    let mut all: Vec<String> =
        shell(&format!("dig @127.0.1.1 +short {name} TXT")).lines().map(str::to_owned).collect();
    all.sort();
    all
}

#[test]
fn dns_01_works_through_an_alias_beside_other_values_and_leaves_nothing() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let records = "mta-sts.good A 127.0.0.51\n_acme-challenge.mta-sts.good TXT \"somebody else's\"\n\
                       mta-sts.alias A 127.0.0.51\n_acme-challenge.mta-sts.alias CNAME alias.challenges\n\
                       @ CAA 0 issue \"pebble.letsencrypt.org; validationmethods=dns-01\"\n";
        let (_names, _pki, _pebble) = ground(place.path(), records);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let room = Room::new(place.path(), ChallengeType::Dns01).await;
            room.ordered("good.test").await;
            room.ordered("alias.test").await;
            let kept = ["\"somebody else's\""];
            assert_eq!(texts("_acme-challenge.mta-sts.good.test"), kept);
            assert!(texts("alias.challenges.test").is_empty());
            assert!(room.store.challenge_records(Timestamp::MAX, 9).await.unwrap().is_empty());
            // A program that was killed after it published a record: the next one removes it.
            let record = ChallengeRecord {
                domain: name("good.test"),
                name: name("_acme-challenge.mta-sts.good.test"),
                value: "of-an-interrupted-order".to_owned(),
                created_at: room.clock.now(),
            };
            room.store.put_challenge_record(&record).await.unwrap();
            let new = Replacement::TxtValue { value: record.value.clone(), is_published: true };
            updater().replace(&record.name, &new, None, 1, Timestamp::now()).await.unwrap();
            assert_eq!(texts(record.name.as_str()).len(), 2);
            assert_eq!(room.orders.remove_abandoned().await.unwrap(), 0, "the order may still run");
            room.clock.set_by(21 * 60);
            assert_eq!(room.orders.remove_abandoned().await.unwrap(), 1);
            assert_eq!(texts(record.name.as_str()), kept);
            // CAA records for another method keep the CA from being asked.
            let other = Room::new(place.path(), ChallengeType::Http01).await;
            let host = name("mta-sts.good.test");
            let due = StoredCertificate::to_order(host.clone(), other.clock.now());
            let orders = Orders { policy_host_target: None, ..other.orders };
            other.store.put_certificate(&due).await.unwrap();
            orders.round().await.unwrap();
            let refused = other.store.certificate(&host).await.unwrap().unwrap();
            assert!(refused.problem.contains("allow only the validation method dns-01"), "{refused:?}");
        });
    });
}

#[test]
fn dns_persist_01_publishes_one_record_and_needs_no_other_change() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let (_names, _pki, _pebble) = ground(place.path(), "mta-sts.good A 127.0.0.51\n");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let room = Room::new(place.path(), ChallengeType::DnsPersist01).await;
            let first = room.ordered("good.test").await;
            let record = texts("_validation-persist.mta-sts.good.test");
            assert_eq!(record.len(), 1, "{record:?}");
            assert!(record[0].starts_with("\"pebble.letsencrypt.org; accounturi=https://"), "{record:?}");
            let second = room.ordered("good.test").await;
            assert!(second.chain != first.chain);
            assert_eq!(texts("_validation-persist.mta-sts.good.test"), record);
        });
    });
}

/// Senders fetch the policy all the time, while its host moves from another provider to Sternpost.
#[test]
fn a_policy_host_moves_here_from_another_provider_without_a_gap() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let records = "policy A 127.0.0.50\nmove MX 10 mx.move\nmx.move A 127.0.0.60\n\
                       mta-sts.move CNAME provider\nprovider A 127.0.0.51\n_mta-sts.move TXT \"v=STSv1; id=1;\"\n";
        let (_names, pki, _pebble) = ground(dir, records);
        serve("127.0.0.51:443", &pki, &["mta-sts.move.test"], |_| Answer {
            status: 200,
            headers: vec![("content-type", "text/plain".to_owned())],
            body: POLICY.to_owned(),
        });
        let issued = std::fs::read_to_string(dir.join("pebble/issued.pem")).unwrap();
        std::fs::write(dir.join("roots.pem"), issued + &pki.root_pem()).unwrap();
        std::fs::write(dir.join("tsig.key"), format!("{SECRET}\n")).unwrap();
        let config = format!(
            "[dns]\nservers = [\"127.0.0.1:53\"]\ndnssec = \"off\"\n[trust]\nca_file = \"roots.pem\"\nallow_private_addresses = true\n\
             [host]\nlisten = [\"127.0.0.50:443\"]\nname = \"policy.test\"\n\
             acme = {{ directory = \"{DIRECTORY}\", ca_file = \"pebble/root.pem\", profile = \"default\", challenge = \"dns-01\" }}\n\
             [[rfc2136]]\nname = \"knot\"\nserver = \"127.0.1.1:53\"\nzone = \"test\"\nkey_name = \"sternpost\"\nkey_file = \"tsig.key\"\n\
             [[domain]]\nname = \"move.test\"\nmode = \"testing\"\nhost = \"self\"\ndns = \"rfc2136:knot\"\n"
        );
        std::fs::write(dir.join("sternpost.toml"), config).unwrap();
        let operator = |words: &str| shell(&format!("cd {} && sternpost {words}", dir.display()));
        let fetch = format!(
            "curl -s -m 100 --cacert {}/roots.pem https://mta-sts.move.test/.well-known/mta-sts.txt || echo failed",
            dir.display()
        );
        assert!(shell(&fetch).contains("mx.move.test"));
        let planned = operator("plan move.test");
        assert!(planned.contains("mta-sts.move.test. 300 IN CNAME policy.test."), "{planned}");
        let line =
            format!("{} --config {}/sternpost.toml serve", env!("CARGO_BIN_EXE_sternpost"), dir.display());
        let log = dir.join("serve.log");
        let mut serving = daemon(&line, &log);
        until_ready(&mut serving.0, &log);
        let (is_over, good) = (AtomicBool::new(false), AtomicUsize::new(0));
        let applied = std::thread::scope(|scope| {
            let fetching = scope.spawn(|| {
                let mut bad = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    match shell(&fetch) {
                        body if body.contains("mx.move.test") => _ = good.fetch_add(1, Ordering::SeqCst),
                        other => bad.push(other),
                    }
                }
                bad
            });
            let applied = operator("apply move.test");
            // What resolvers remember of the old address is served there, until they have the new one.
            until("the resolver has the new address", || {
                shell("dig @127.0.0.1 +short mta-sts.move.test A").contains("127.0.0.50")
            });
            let before = good.load(Ordering::SeqCst);
            until("the policy is fetched there too", || {
                good.load(Ordering::SeqCst) > before.max(8) + 2 || fetching.is_finished()
            });
            is_over.store(true, Ordering::SeqCst);
            let bad = fetching.join().unwrap();
            assert!(bad.is_empty(), "{} fetches, and {bad:?}\n{applied}", good.load(Ordering::SeqCst));
            applied
        });
        let now = shell("dig @127.0.1.1 +short mta-sts.move.test CNAME");
        assert_eq!(now.trim(), "policy.test.", "{applied}");
        assert!(shell(&fetch).contains("mx.move.test"));
        assert!(texts("_acme-challenge.mta-sts.move.test").is_empty());
        let at_home = shell(&format!(
            "curl -s -m 100 --cacert {}/roots.pem --resolve mta-sts.move.test:443:127.0.0.50 https://mta-sts.move.test/.well-known/mta-sts.txt",
            dir.display()
        ));
        assert!(at_home.contains("mx.move.test"), "{at_home}");
    });
}
