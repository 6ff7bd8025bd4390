//! Updates of zones at the real BIND and Knot, what they say to wrong keys and clocks, and the look at all
//! name servers of a zone.

use crate::names::Names;
use crate::support::{Running, daemon, in_a_room_of_its_own, shell, until};
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};
use lab::dns::{Signing, ZoneFile};
use net::BoxFuture;
use net::dns::update::{Algorithm, Replacement, Updater};
use net::dns::{Absence, Answer, AuthoritativeServers, Data, Dns, DnsError, Kind, Security};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SECRET: &str = "c3Rlcm5wb3N0IHN0ZXJucG9zdCBzdGVybnBvc3QhISE=";
const ZONE: &str = "$TTL 300\n@ SOA ns1 hostmaster 1 3600 600 86400 1\n@ NS ns1\n@ NS ns2\nns1 A 127.0.2.1\nns2 A 127.0.2.2\n\
                    _mta-sts TXT \"site=verification\"\n_mta-sts TXT \"v=STSv1; id=1;\"\nmta-sts A 192.0.2.1\nmta-sts A 192.0.2.2\n";

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// BIND with the zone example, changed by a key.
fn bind(place: &Path, address: &str) -> Running {
    std::fs::create_dir_all(place).unwrap();
    // BIND listens only on addresses that an interface has.
    shell(&format!("ip address add {address}/32 dev lo"));
    let dir = place.display();
    std::fs::write(place.join("example.zone"), ZONE).unwrap();
    let config = format!(
        "options {{ directory \"{dir}\"; listen-on {{ {address}; }}; listen-on-v6 {{ none; }}; recursion no; pid-file \"{dir}/pid\"; session-keyfile \"{dir}/session\"; notify no; }};\n\
         controls {{ }};\nkey sternpost {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone example {{ type primary; file \"{dir}/example.zone\"; update-policy {{ grant sternpost subdomain _mta-sts.example. TXT; grant sternpost name mta-sts.example. ANY; }}; }};\n"
    );
    std::fs::write(place.join("named.conf"), config).unwrap();
    let running = daemon(&format!("named -g -c {dir}/named.conf"), &place.join("named.log"));
    let ask = format!("dig @{address} +time=1 +tries=1 example SOA || true");
    until("BIND answers", || shell(&ask).contains("NOERROR"));
    running
}

fn knot(place: &Path) -> Names {
    let zone =
        |origin: &str, signing, text: &str| ZoneFile { origin: origin.into(), signing, text: text.into() };
    let zones = [
        zone(
            ".",
            Signing::Signed,
            "$ORIGIN .\n$TTL 300\n@ SOA ns.test. h.test. 1 3600 600 86400 1\n@ NS ns.test.\ntest. NS ns.test.\nns.test. A 127.0.2.3\nexample. NS ns.test.\n",
        ),
        zone(
            "test.",
            Signing::Unsigned,
            "$ORIGIN test.\n$TTL 300\n@ SOA ns.test. h.test. 1 3600 600 86400 1\n@ NS ns\nns A 127.0.2.3\n",
        ),
        zone("example.", Signing::Unsigned, &format!("$ORIGIN example.\n{ZONE}")),
    ];
    let lines = format!(
        "key:\n  - id: sternpost\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: updates\n    key: sternpost\n    action: update\n    update-owner: name\n    update-owner-match: sub-or-equal\n    update-owner-name: [_mta-sts, mta-sts]\n"
    );
    Names::start_with(place, [127, 0, 2, 3].into(), &zones, "", &lines)
}

fn updater(server: &str, key: &str, secret: &str) -> Updater {
    let server: SocketAddr = format!("{server}:53").parse().unwrap();
    Updater::new(server, name("example"), &name(key), secret, Algorithm::Sha256).unwrap()
}

fn txt(id: &str) -> Replacement {
    Replacement::Txt { prefix: "v=STSv1", value: Some(format!("v=STSv1; id={id};")) }
}

fn dig(server: &str, words: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        shell(&format!("dig @{server} +short {words}")).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

async fn replaces_what_is_ours_alone(server: &str) {
    let updater = updater(server, "sternpost", SECRET);
    let record = name("_mta-sts.example");
    let before = updater.replace(&record, &txt("2"), 300, Timestamp::now()).await.unwrap();
    assert!(before.len() == 1 && before[0].contains("v=STSv1; id=1;"), "{before:?}");
    assert_eq!(dig(server, "_mta-sts.example TXT"), ["\"site=verification\"", "\"v=STSv1; id=2;\""]);
    let none = Replacement::Txt { prefix: "v=STSv1", value: None };
    updater.replace(&record, &none, 300, Timestamp::now()).await.unwrap();
    assert_eq!(dig(server, "_mta-sts.example TXT"), ["\"site=verification\""]);

    let host = name("mta-sts.example");
    let alias = Replacement::Alias(name("policy.host.test"));
    let before = updater.replace(&host, &alias, 300, Timestamp::now()).await.unwrap();
    assert_eq!(before.len(), 2, "{before:?}");
    assert_eq!(dig(server, "mta-sts.example CNAME"), ["policy.host.test."]);
    let addresses: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    updater.replace(&host, &Replacement::Addresses(addresses), 300, Timestamp::now()).await.unwrap();
    assert_eq!(dig(server, "mta-sts.example A"), ["192.0.2.7"]);
    assert_eq!(dig(server, "mta-sts.example AAAA"), ["2001:db8::7"]);
}

async fn says_what_is_wrong(server: &str) {
    let record = name("_mta-sts.example");
    let fault = async |updater: Updater, record: &DomainName, at: Timestamp| {
        updater.replace(record, &txt("9"), 300, at).await.unwrap_err().to_string()
    };
    let now = Timestamp::now();
    for (key, secret, at, said) in [
        ("stranger", SECRET, now, "does not know the key stranger"),
        ("sternpost", "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3JvbmchISE=", now, "a different secret on"),
        ("sternpost", SECRET, now + SignedDuration::from_hours(1), "clock"),
    ] {
        let error = fault(updater(server, key, secret), &record, at).await;
        assert!(error.contains(said), "{said}: {error}");
        assert!(!error.contains(secret));
    }
    let error = fault(updater(server, "sternpost", SECRET), &name("www.example"), now).await;
    assert!(
        error.contains("not allowed to change this") || error.contains("does not accept it for this name"),
        "{error}"
    );
    assert_eq!(dig(server, "_mta-sts.example TXT").len(), 1);
}

#[test]
fn bind_and_knot_take_updates_and_refuse_wrong_keys_clocks_and_names_in_words() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let _bind = bind(&place.path().join("bind"), "127.0.2.1");
        let _knot = knot(&place.path().join("knot"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            for server in ["127.0.2.1", "127.0.2.3"] {
                replaces_what_is_ours_alone(server).await;
                says_what_is_wrong(server).await;
            }
            let dead = updater("127.0.2.99", "sternpost", SECRET);
            let error = dead.replace(&name("_mta-sts.example"), &txt("1"), 300, Timestamp::now()).await;
            assert!(error.unwrap_err().to_string().contains("no answer from 127.0.2.99:53"));
        });
    });
}

/// A resolver that knows where the zone is, and nothing else.
struct Signpost;

impl Dns for Signpost {
    fn lookup<'a>(&'a self, asked: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let address = |last| Data::A(Ipv4Addr::new(127, 0, 2, last));
        let records = match (asked.as_str(), kind) {
            ("example", Kind::Ns) => {
                ["ns1", "ns2", "ns3"].map(|ns| Data::Ns(name(&format!("{ns}.example")))).to_vec()
            }
            ("ns1.example", Kind::A) => vec![address(1)],
            ("ns2.example", Kind::A) => vec![address(2)],
            // Dead, as a secondary may be for weeks.
            ("ns3.example", Kind::A) => vec![address(99)],
            _ => {
                let nothing = Absence { security: Security::Insecure, ttl: None };
                return Box::pin(async move { Err(DnsError::NoSuchRecord(nothing)) });
            }
        };
        let answer = Answer {
            records,
            ttl: Duration::from_secs(1),
            security: Security::Insecure,
            aliases: Vec::new(),
            is_split: false,
        };
        Box::pin(async move { Ok(answer) })
    }
}

#[test]
fn pub_09_a_record_counts_when_all_name_servers_of_the_zone_show_it() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let _one = bind(&place.path().join("one"), "127.0.2.1");
        let _two = bind(&place.path().join("two"), "127.0.2.2");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let zone = AuthoritativeServers::new(Arc::new(Signpost), 53, true);
            let record = name("_mta-sts.example");
            let texts = async || {
                let answer = zone.lookup(&record, Kind::Txt).await?;
                Ok::<Vec<String>, DnsError>(
                    answer.texts().map(|text| String::from_utf8_lossy(text).into_owned()).collect(),
                )
            };
            assert_eq!(texts().await.unwrap().len(), 2);
            updater("127.0.2.1", "sternpost", SECRET)
                .replace(&record, &txt("2"), 300, Timestamp::now())
                .await
                .unwrap();
            let error = texts().await.unwrap_err();
            assert!(matches!(error, DnsError::Differ { .. }), "{error}");
            updater("127.0.2.2", "sternpost", SECRET)
                .replace(&record, &txt("2"), 300, Timestamp::now())
                .await
                .unwrap();
            assert!(texts().await.unwrap().contains(&"v=STSv1; id=2;".to_owned()));
            let nothing = zone.lookup(&name("_smtp._tls.example"), Kind::Txt).await.unwrap_err();
            assert!(nothing.is_absence(), "{nothing}");
            let strict = AuthoritativeServers::new(Arc::new(Signpost), 53, false);
            assert!(strict.lookup(&record, Kind::Txt).await.is_err(), "loopback is asked without leave");
        });
    });
}
