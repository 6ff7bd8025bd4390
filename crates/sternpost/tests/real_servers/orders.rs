//! Certificates from Pebble when all is not well: the authority is away, refuses, wants another nonce each
//! time, or is asked for a name that leads elsewhere; and renewal, which replaces what is in hand.

mod dns;
mod refusals;

use crate::names::{Names, zone};
use crate::pebble::{DIRECTORY, Pebble};
use crate::support::{Running, daemon, in_a_room_of_its_own, mount_over, shell, until};
use formats::DomainName;
use jiff::SignedDuration;
use lab::dns::Signing;
use lab::pki::Pki;
use net::clock::{Clock, ManualClock, SystemClock};
use net::dns::{Dnssec, Resolver, ResolverConfig};
use net::random::SystemRandomness;
use receiver::host::authority::{Authority, CaClient, ExternalAccount, ORDERS_PER_HOUR};
use receiver::host::order::{ChallengeType, Orders};
use receiver::host::vault::Vault;
use receiver::rollout::desired::PolicyHostAt;
use std::path::Path;
use std::sync::Arc;
use store::Store;
use store::hosting::StoredCertificate;

/// Seals keys in the store.
const KEY: &str = "c3Rlcm5wb3N0IHN0ZXJucG9zdCBzdGVybnBvc3QhISE=";
const POLICY: &str = "version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n";

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

struct Room {
    store: Store,
    clock: Arc<ManualClock>,
    orders: Orders,
}

impl Room {
    async fn new(place: &Path, way: ChallengeType, authorities: Vec<Authority>) -> Self {
        let store = Store::open(&place.join("disk/s.db"), store::Tenant::FIRST).await.unwrap();
        let clock = Arc::new(ManualClock::new(SystemClock.now()));
        let servers = vec!["127.0.0.1:53".parse().unwrap()];
        let resolver =
            ResolverConfig { servers, dnssec: Dnssec::Off, cache: false, ..ResolverConfig::default() };
        let orders = Orders {
            store: store.clone(),
            dns: Arc::new(Resolver::new(&resolver).unwrap()),
            clock: clock.clone(),
            authorities: authorities.into_iter().map(CaClient::new).collect(),
            challenges: vec![way],
            dns_challenges: None,
            randomness: Arc::new(SystemRandomness),
            vault: Arc::new(Vault::with_key(KEY).unwrap()),
            policy_host_target: Some(PolicyHostAt::Addresses(vec!["127.0.0.50".parse().unwrap()])),
            holder: "test".to_owned(),
        };
        Self { store, clock, orders }
    }

    /// A domain whose policy is served here, and whose certificate is due.
    async fn due(&self, domain: &str) -> DomainName {
        self.store.put_hosted(&name(domain), Some(POLICY)).await.unwrap();
        let host = name(&format!("mta-sts.{domain}"));
        let order = StoredCertificate::to_order(host.clone(), self.clock.now());
        self.store.put_certificate(&order).await.unwrap();
        host
    }

    async fn certificate(&self, host: &DomainName) -> StoredCertificate {
        self.store.certificate(host).await.unwrap().unwrap()
    }

    fn pass(&self, minutes: i64) {
        self.clock.set_by(minutes * 60);
    }
}

/// Names, and the program that answers challenges.
struct Ground {
    _names: Names,
    _serve: Running,
    pki: Pki,
}

impl Ground {
    fn new(place: &Path, host: &str) -> Self {
        let zones = [
            zone(".", Signing::Signed, "test. NS ns.test.\nns.test. A 127.0.1.1\n"),
            zone(
                "test.",
                Signing::Unsigned,
                "ns A 127.0.1.1\nmta-sts.good A 127.0.0.50\nmta-sts.also A 127.0.0.50\nmta-sts.away A 127.0.0.51\nmta-sts.blocked A 127.0.0.50\n*.many A 127.0.0.50\n",
            ),
        ];
        let names = Names::start(&place.join("names"), [127, 0, 1, 1].into(), &zones);
        std::fs::write(place.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        mount_over(&place.join("resolv.conf"), Path::new("/etc/resolv.conf"));
        std::fs::write(place.join("host.key"), format!("{KEY}\n")).unwrap();
        std::fs::create_dir_all(place.join("disk")).unwrap();
        let config = format!(
            "store = \"sqlite:disk/s.db\"\n[dns]\nservers = [\"127.0.0.1:53\"]\ndnssec = \"off\"\n[host]\nlisten = [\"127.0.0.50:443\"]\nkey_file = \"host.key\"\n{host}"
        );
        std::fs::write(place.join("sternpost.toml"), config).unwrap();
        let line =
            format!("{} --config {}/sternpost.toml serve", env!("CARGO_BIN_EXE_sternpost"), place.display());
        let serve = daemon(&line, &place.join("serve.log"));
        until("challenges are answered", || {
            std::fs::read_to_string(place.join("serve.log")).unwrap().contains("127.0.0.50:443")
        });
        Self { _names: names, _serve: serve, pki: Pki::new(SystemClock.now()).unwrap() }
    }
}

fn pebble(place: &Path) -> Authority {
    Authority {
        directory: DIRECTORY.to_owned(),
        contact: None,
        profile: Some("default".to_owned()),
        ca_file: Some(place.join("pebble/root.pem")),
        external: None,
        new_per_hour: ORDERS_PER_HOUR,
        issuer: None,
    }
}

#[test]
fn certificates_are_ordered_renewed_and_kept_through_whatever_the_authority_does() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = Ground::new(place.path(), "http = [\"127.0.0.50:80\"]\n");
        // Many a nonce is refused, as it happens at busy authorities.
        let authority = Pebble::start(&place.path().join("pebble"), &ground.pki, "PEBBLE_WFE_NONCEREJECT=30");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let room = Room::new(place.path(), ChallengeType::Http01, vec![pebble(place.path())]).await;
            ordered_and_renewed(&room).await;
            refused_or_elsewhere(&room).await;
            let good = name("mta-sts.good.test");
            let in_hand = until_steady(&room, &good).await;
            drop(authority);
            away(&room, &good, &in_hand).await;
        });
    });
}

#[test]
fn several_processes_order_each_name_once_from_one_budget_and_another_one_answers_the_challenges() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = Ground::new(place.path(), "http = [\"127.0.0.50:80\"]\n");
        let _authority = Pebble::start(&place.path().join("pebble"), &ground.pki, "PEBBLE_WFE_NONCEREJECT=0");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let one = Room::new(place.path(), ChallengeType::Http01, vec![pebble(place.path())]).await;
            let mut two = Room::new(place.path(), ChallengeType::Http01, vec![pebble(place.path())]).await;
            two.orders.holder = "another process".to_owned();
            let mut hosts = Vec::new();
            for number in 0..6 {
                hosts.push(one.due(&format!("d{number}.many.test")).await);
            }
            // The one without the lease has nothing to do until the other has ended.
            for _ in 0..3 {
                let (first, second) = tokio::join!(one.orders.round(), two.orders.round());
                first.unwrap();
                second.unwrap();
            }
            for host in &hosts {
                let certificate = one.certificate(host).await;
                assert!(!certificate.chain.is_empty(), "{host}: {}", certificate.problem);
            }
            let issued = shell(&format!(
                "grep -c 'Issued certificate serial' {}",
                place.path().join("pebble/pebble.log").display()
            ));
            assert_eq!(issued.trim(), hosts.len().to_string());
            let budget: serde_json::Value = one.store.acme_budget(DIRECTORY).await.unwrap().unwrap();
            let left = budget["left"].as_f64().unwrap();
            assert!((left - (f64::from(ORDERS_PER_HOUR) - 6.0)).abs() < 0.5, "{budget}");
        });
    });
}

/// What Pebble says about the renewal of a certificate from now on.
fn suggest(place: &Path, certificate: &StoredCertificate, answer: &str) {
    let end = "-----END CERTIFICATE-----\n";
    let leaf = certificate.chain.split_inclusive(end).next().unwrap();
    let body = serde_json::json!({ "Certificate": leaf, "ARIResponse": answer });
    std::fs::write(place.join("suggest.json"), body.to_string()).unwrap();
    let said = shell(&format!(
        "curl -s -w '%{{http_code}}' --cacert {0}/pebble/root.pem -d @{0}/suggest.json https://localhost:15000/set-renewal-info/",
        place.display()
    ));
    assert!(said.ends_with("200"), "{said}");
}

#[test]
fn a_window_in_the_past_renews_at_once_and_what_can_not_be_read_keeps_the_plan() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = Ground::new(place.path(), "http = [\"127.0.0.50:80\"]\n");
        let authority = Pebble::start(&place.path().join("pebble"), &ground.pki, "PEBBLE_WFE_NONCEREJECT=0");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let room = Room::new(place.path(), ChallengeType::Http01, vec![pebble(place.path())]).await;
            let (good, also) = (room.due("good.test").await, room.due("also.test").await);
            let good_before = until_there(&room, &good, "").await;
            let also_before = until_there(&room, &also, "").await;
            assert_eq!(room.orders.ask_round().await.unwrap(), 0, "the authority was asked just now");
            room.pass(25 * 60);
            assert_eq!(room.orders.ask_round().await.unwrap(), 2);
            assert_eq!(room.certificate(&good).await, good_before, "the moment stays while the window does");
            // The authority is about to revoke one of the certificates.
            let past =
                "{\"suggestedWindow\":{\"start\":\"2026-01-01T00:00:00Z\",\"end\":\"2026-01-02T00:00:00Z\"}}";
            suggest(place.path(), &good_before, past);
            suggest(place.path(), &also_before, "nonsense");
            room.pass(25 * 60);
            assert_eq!(room.orders.ask_round().await.unwrap(), 2);
            assert!(room.certificate(&good).await.next_at <= room.clock.now());
            assert_eq!(room.certificate(&also).await, also_before);
            until_there(&room, &good, &good_before.chain).await;
            assert_eq!(room.certificate(&also).await, also_before);
            drop(authority);
            room.pass(25 * 60);
            assert_eq!(room.orders.ask_round().await.unwrap(), 2);
            assert_eq!(room.certificate(&also).await, also_before, "nobody answers, and the plan stays");
        });
    });
}

#[test]
fn a_disk_that_is_full_at_renewal_leaves_the_old_certificate_serving_until_there_is_room() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let disk = place.path().join("disk");
        std::fs::create_dir(&disk).unwrap();
        shell(&format!("mount -t tmpfs -o size=3m none {}", disk.display()));
        let ground = Ground::new(place.path(), "");
        let _pebble = Pebble::start(&place.path().join("pebble"), &ground.pki, "PEBBLE_WFE_NONCEREJECT=0");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let fetch = format!(
            "curl -s --cacert {}/pebble/issued.pem https://mta-sts.good.test/.well-known/mta-sts.txt || true",
            place.path().display()
        );
        runtime.block_on(async {
            let room = Room::new(place.path(), ChallengeType::TlsAlpn01, vec![pebble(place.path())]).await;
            let host = room.due("good.test").await;
            let first = until_there(&room, &host, "").await;
            until("the policy is served", || shell(&fetch).contains("mode: none"));
            shell(&format!("dd if=/dev/zero of={}/fill bs=4k 2>/dev/null || true", disk.display()));
            room.clock.set_by(first.next_at.duration_since(room.clock.now()).as_secs() + 1);
            let mut full = None;
            for _ in 0..20 {
                if let Err(error) = room.orders.round().await {
                    full = Some(error.to_string());
                    break;
                }
                room.pass(3);
            }
            assert!(full.as_deref().is_some_and(|why| why.contains("full")), "{full:?}");
            let kept = room.certificate(&host).await;
            assert!(shell(&fetch).contains("mode: none"), "the certificate serves no more");
            shell(&format!("rm {}/fill", disk.display()));
            room.pass(10);
            let renewed = until_there(&room, &host, &kept.chain).await;
            assert!(renewed.failures == 0 && renewed.key.starts_with("sealed:1:"));
            until("the new one serves", || shell(&fetch).contains("mode: none"));
        });
    });
}

const MAC: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

#[test]
fn the_next_authority_is_asked_with_a_bound_account_and_a_handshake_where_the_first_has_had_too_many() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let ground = Ground::new(place.path(), "");
        let busy = BusyAuthority::start(&ground.pki);
        let _pebble = Pebble::start_with(
            &place.path().join("pebble"),
            &ground.pki,
            "PEBBLE_WFE_NONCEREJECT=0",
            &[("ours", MAC)],
        );
        let key_file = place.path().join("eab.key");
        std::fs::write(&key_file, "d3Jvbmc\n").unwrap();
        let root = Some(place.path().join("pebble/root.pem"));
        let first = Authority { directory: BUSY.to_owned(), ca_file: root, ..pebble(place.path()) };
        let external = Some(ExternalAccount { key_id: "ours".to_owned(), key_file: key_file.clone() });
        let second = Authority { external, ..pebble(place.path()) };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let room = Room::new(place.path(), ChallengeType::TlsAlpn01, vec![first, second]).await;
            let good = room.due("good.test").await;
            room.orders.round().await.unwrap();
            let told = room.certificate(&good).await;
            assert!(told.problem.contains("rateLimited") || told.problem.contains("too many"), "{told:?}");
            assert!(told.problem.contains("; https://localhost:14000/dir: "), "both are told: {told:?}");
            assert!(!told.problem.contains("d3Jvbmc"));
            std::fs::write(&key_file, format!("{MAC}\n")).unwrap();
            room.pass(1);
            let there = until_there(&room, &good, "").await;
            assert!(there.key.starts_with("sealed:1:") && !there.key.contains("PRIVATE"), "{there:?}");
            let account = room.store.acme_account(DIRECTORY).await.unwrap().unwrap();
            assert!(account.starts_with("sealed:1:"));
            let also = room.due("also.test").await;
            until_there(&room, &also, "").await;
            assert_eq!(busy.orders(), 1, "it was asked again within its pause");
            room.pass(16 + 1);
            let blocked = room.due("away.test").await;
            room.orders.round().await.unwrap();
            assert!(room.certificate(&blocked).await.problem.contains("does not point here"));
            assert_eq!(busy.orders(), 1, "it was asked for a host that is not here");
        });
        // What was ordered is served, its key opened.
        let fetch = format!(
            "curl -s --cacert {}/pebble/issued.pem https://mta-sts.good.test/.well-known/mta-sts.txt",
            place.path().display()
        );
        until("the policy is served", || shell(&format!("{fetch} || true")).contains("mode: none"));
        let line = format!(
            "{} --config {}/sternpost.toml serve",
            env!("CARGO_BIN_EXE_sternpost"),
            place.path().display()
        );
        std::fs::write(place.path().join("host.key"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
            .unwrap();
        let said = shell(&format!("{line}; test $? = 2"));
        assert!(said.contains("it was encrypted with another key"), "{said}");
    });
}

const BUSY: &str = "https://localhost:14100/dir";

/// An authority that has an account for everybody and takes no orders: there were too many.
struct BusyAuthority(Arc<std::sync::atomic::AtomicU32>);

impl BusyAuthority {
    fn start(pki: &Pki) -> Self {
        let orders = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = orders.clone();
        crate::https::serve("127.0.0.1:14100", pki, &["localhost"], move |request| {
            let at = |path: &str| format!("https://localhost:14100/{path}");
            let (status, body) = match request.path.as_str() {
                "/dir" => (
                    200,
                    serde_json::json!({"newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("order")}),
                ),
                "/nonce" => (200, serde_json::json!({})),
                "/account" => (201, serde_json::json!({"status": "valid"})),
                _ => {
                    counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    (
                        429,
                        serde_json::json!({"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many new orders"}),
                    )
                }
            };
            crate::https::Answer {
                status,
                headers: vec![
                    ("replay-nonce", "oFvnlFP1wIhRlYS2jTaXbA".to_owned()),
                    ("location", at("account/1")),
                ],
                body: body.to_string(),
            }
        });
        Self(orders)
    }

    fn orders(&self) -> u32 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// The rounds until the certificate is there: a refused nonce is tried again by itself, or the next time.
async fn until_there(room: &Room, host: &DomainName, before: &str) -> StoredCertificate {
    for _ in 0..6 {
        room.orders.round().await.unwrap();
        let now = room.certificate(host).await;
        if now.chain != before && now.failures == 0 {
            return now;
        }
        room.clock.set_by((now.next_at.as_second() - room.clock.now().as_second()).max(0));
    }
    panic!("{:?}", room.certificate(host).await);
}

/// The rounds until no try is open. The authority's clock is not ours: what it wants renewed by its own is due here at
/// once, so a renewal whose nonce was refused may be on its way.
async fn until_steady(room: &Room, host: &DomainName) -> StoredCertificate {
    for _ in 0..6 {
        let now = room.certificate(host).await;
        if now.failures == 0 {
            return now;
        }
        room.clock.set_by((now.next_at.as_second() - room.clock.now().as_second()).max(0));
        room.orders.round().await.unwrap();
    }
    panic!("{:?}", room.certificate(host).await);
}

async fn ordered_and_renewed(room: &Room) {
    let host = room.due("good.test").await;
    let first = until_there(room, &host, "").await;
    assert!(first.chain.matches("BEGIN CERTIFICATE").count() >= 2 && first.key.starts_with("sealed:1:"));
    let account = room.store.acme_account(DIRECTORY).await.unwrap().unwrap();
    let days = first.expires_at.duration_since(room.clock.now()).as_hours() / 24;
    assert!((80..=90).contains(&days), "{days}");
    let until_renewal = first.next_at.duration_since(room.clock.now());
    assert!(
        until_renewal > SignedDuration::from_hours(24) && first.next_at < first.expires_at,
        "{until_renewal:?}"
    );
    assert_eq!(room.orders.round().await.unwrap(), 0, "nothing is due");
    room.clock.set_by(until_renewal.as_secs() + 1);
    let second = until_there(room, &host, &first.chain).await;
    assert!(second.chain != first.chain && second.key != first.key);
    assert_eq!(
        room.store.acme_account(DIRECTORY).await.unwrap().unwrap(),
        account,
        "a second account was made"
    );
}

async fn refused_or_elsewhere(room: &Room) {
    let away = room.due("away.test").await;
    room.orders.round().await.unwrap();
    let told = room.certificate(&away).await;
    assert!(told.problem.contains("does not point here") && told.chain.is_empty(), "{told:?}");
    // The authority was not asked about it, so it is looked at again soon.
    assert!(told.next_at <= room.clock.now() + SignedDuration::from_secs(5));
    let blocked = room.due("blocked.test").await;
    let refused = until_refused(room, &blocked).await;
    // A domain whose policy was taken down is not ordered for.
    room.store.put_hosted(&name("blocked.test"), None).await.unwrap();
    room.pass(10);
    room.orders.round().await.unwrap();
    let told = room.certificate(&blocked).await;
    assert_eq!(told.failures, refused.failures, "{told:?}");
}

/// The rounds until the authority has refused the order itself, which makes for a longer pause than a nonce that was
/// refused once too often.
async fn until_refused(room: &Room, host: &DomainName) -> StoredCertificate {
    for _ in 0..6 {
        room.orders.round().await.unwrap();
        let told = room.certificate(host).await;
        if told.next_at > room.clock.now() + SignedDuration::from_mins(1) {
            return told;
        }
        room.clock.set_by((told.next_at.as_second() - room.clock.now().as_second()).max(0));
    }
    panic!("{:?}", room.certificate(host).await);
}

/// For days nobody answers, with a certificate in hand: it stays, and each try waits longer.
async fn away(room: &Room, good: &DomainName, in_hand: &StoredCertificate) {
    room.clock.set_by(in_hand.next_at.duration_since(room.clock.now()).as_secs() + 1);
    let mut pauses: Vec<i64> = Vec::new();
    for failures in 1..=15 {
        room.orders.round().await.unwrap();
        let now = room.certificate(good).await;
        assert_eq!(now.failures, failures, "{now:?}");
        assert!(now.chain == in_hand.chain && now.key == in_hand.key, "{now:?}");
        assert!(!now.problem.is_empty() && !now.problem.contains("PRIVATE"));
        let pause = now.next_at.as_second() - room.clock.now().as_second();
        pauses.push(pause);
        room.clock.set_by(pause);
    }
    assert_eq!(pauses[..4], [5, 10, 20, 40]);
    assert_eq!(pauses[13..], [40_960, 43_200]);
    assert!(room.clock.now() < in_hand.expires_at);
}
