//! Updates of zones at the real BIND and Knot, what they say to wrong keys and clocks, what becomes of updates that are cut off
//! or meet a concurrent change, and the survey of all name servers of a zone.

use crate::names::Names;
use crate::support::{Running, daemon, in_a_room_of_its_own, shell, until};
use formats::DomainName;
use jiff::{SignedDuration, Timestamp};
use lab::dns::{Signing, ZoneFile};
use net::BoxFuture;
use net::dns::update::{Algorithm, Replacement, UpdateError, Updater};
use net::dns::{Absence, Answer, AuthoritativeServers, Data, Dns, DnsError, Kind, Security, ServerFault};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

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
    let before = updater.replace(&record, &txt("2"), None, 300, Timestamp::now()).await.unwrap();
    assert!(before.lines.len() == 1 && before.lines[0].contains("v=STSv1; id=1;"), "{before:?}");
    assert_eq!(before.restores, Some(txt("1")));
    assert_eq!(dig(server, "_mta-sts.example TXT"), ["\"site=verification\"", "\"v=STSv1; id=2;\""]);
    let none = Replacement::Txt { prefix: "v=STSv1", value: None };
    updater.replace(&record, &none, None, 300, Timestamp::now()).await.unwrap();
    assert_eq!(dig(server, "_mta-sts.example TXT"), ["\"site=verification\""]);

    let host = name("mta-sts.example");
    let alias = Replacement::Alias(name("policy.host.test"));
    let before = updater.replace(&host, &alias, None, 300, Timestamp::now()).await.unwrap();
    assert_eq!(before.lines.len(), 2, "{before:?}");
    assert_eq!(dig(server, "mta-sts.example CNAME"), ["policy.host.test."]);
    let addresses: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    updater.replace(&host, &Replacement::Addresses(addresses), None, 300, Timestamp::now()).await.unwrap();
    assert_eq!(dig(server, "mta-sts.example A"), ["192.0.2.7"]);
    assert_eq!(dig(server, "mta-sts.example AAAA"), ["2001:db8::7"]);
}

async fn says_what_is_wrong(server: &str) {
    let record = name("_mta-sts.example");
    let fault = async |updater: Updater, record: &DomainName, at: Timestamp| {
        updater.replace(record, &txt("9"), None, 300, at).await.unwrap_err().to_string()
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

/// Changes a record that Sternpost does not publish, as its owner does.
async fn change(server: &str, line: &str) {
    let script = format!(
        "server {server} 53\nzone example.\nkey hmac-sha256:sternpost {SECRET}\nupdate {line}\nsend\n"
    );
    let mut child = tokio::process::Command::new("nsupdate").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).await.unwrap();
    assert!(child.wait().await.unwrap().success(), "{line}");
}

async fn publishes_nothing_beside_what_excludes_it(server: &str) {
    let updater = updater(server, "sternpost", SECRET);
    let put = async |at: &DomainName, new: &Replacement| {
        updater.replace(at, new, None, 300, Timestamp::now()).await.map(drop)
    };
    let host = name("mta-sts.example");
    let alias = Replacement::Alias(name("policy.host.test"));
    let old = Replacement::Addresses(vec!["192.0.2.7".parse().unwrap()]);
    put(&host, &old).await.unwrap();
    for other in ["CAA 0 issue \"ca.test\"", "TXT \"site=verification\"", "HTTPS 1 . alpn=h2"] {
        change(server, &format!("add mta-sts.example. 300 {other}")).await;
        let error = put(&host, &alias).await.unwrap_err();
        let UpdateError::Beside(lines) = &error else { panic!("{error}") };
        let kind = other.split(' ').next().unwrap();
        change(server, &format!("delete mta-sts.example. {kind}")).await;
        assert!(lines.iter().any(|line| line.contains(kind)), "{lines:?}");
        assert!(error.is_unmade() && error.to_string().contains("nothing was changed"), "{error}");
        assert_eq!(dig(server, "mta-sts.example A"), ["192.0.2.7"]);
    }
    // A kind that is not in the list: the server ignores the CNAME after it has removed the addresses.
    change(server, "add mta-sts.example. 300 HINFO a b").await;
    let error = put(&host, &alias).await.unwrap_err();
    assert!(matches!(error, UpdateError::Ignored(..)), "{error}");
    assert!(error.to_string().contains("were published again"), "{error}");
    assert_eq!(dig(server, "mta-sts.example A"), ["192.0.2.7"]);
    change(server, "delete mta-sts.example. HINFO").await;
    // The other way round.
    put(&host, &alias).await.unwrap();
    let error = put(&host, &txt("1")).await.unwrap_err();
    assert!(matches!(&error, UpdateError::Beside(lines) if lines[0].contains("policy.host.test")), "{error}");
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
                publishes_nothing_beside_what_excludes_it(server).await;
            }
            let dead = updater("127.0.2.99", "sternpost", SECRET);
            let error = dead.replace(&name("_mta-sts.example"), &txt("1"), None, 300, Timestamp::now()).await;
            assert!(error.unwrap_err().to_string().contains("no answer from 127.0.2.99:53"));
        });
    });
}

/// What a proxy before the server does with a message.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Meddling {
    Pass,
    /// Ends the connection in place of the message with this number, counted from 0.
    CutBefore(usize),
    /// Passes the message with this number on, and ends the connection in place of the response.
    CutAfter(usize),
    /// Changes the record at the server before an update is passed on.
    ChangeFirst,
}

/// A proxy on TCP between the updater and the server.
struct Proxy {
    address: SocketAddr,
    meddling: Arc<Mutex<Meddling>>,
    messages: Arc<AtomicUsize>,
}

impl Proxy {
    async fn before(server: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let meddling = Arc::new(Mutex::new(Meddling::Pass));
        let messages = Arc::new(AtomicUsize::new(0));
        let proxy = Self { address, meddling: meddling.clone(), messages: messages.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(format!("{server}:53")).await.unwrap();
                let (meddling, messages) = (meddling.clone(), messages.clone());
                tokio::spawn(async move {
                    let _ = pass(client, upstream, server, &meddling, &messages).await;
                });
            }
        });
        proxy
    }

    fn set(&self, meddling: Meddling) {
        self.messages.store(0, Ordering::SeqCst);
        *self.meddling.lock().unwrap() = meddling;
    }

    fn updater(&self) -> Updater {
        Updater::new(self.address, name("example"), &name("sternpost"), SECRET, Algorithm::Sha256).unwrap()
    }
}

async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn forward(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()).await
}

async fn pass(
    mut client: TcpStream,
    mut upstream: TcpStream,
    server: &str,
    meddling: &Mutex<Meddling>,
    messages: &AtomicUsize,
) -> std::io::Result<()> {
    loop {
        let query = message(&mut client).await?;
        let number = messages.fetch_add(1, Ordering::SeqCst);
        let how = *meddling.lock().unwrap();
        if how == Meddling::CutBefore(number) {
            return Ok(());
        }
        // The operation code is in the third byte; 5 is an update.
        if how == Meddling::ChangeFirst && query[2] >> 3 & 15 == 5 {
            *meddling.lock().unwrap() = Meddling::Pass;
            let other = updater(server, "sternpost", SECRET);
            other.replace(&name("_mta-sts.example"), &txt("77"), None, 300, Timestamp::now()).await.unwrap();
        }
        forward(&mut upstream, &query).await?;
        let response = message(&mut upstream).await?;
        if how == Meddling::CutAfter(number) {
            return Ok(());
        }
        forward(&mut client, &response).await?;
    }
}

fn shown(server: &str) -> Vec<String> {
    ["_mta-sts.example TXT", "mta-sts.example A", "mta-sts.example AAAA", "mta-sts.example CNAME"]
        .iter()
        .flat_map(|question| dig(server, question))
        .collect()
}

async fn is_whole_wherever_it_is_cut(server: &'static str) {
    let proxy = Proxy::before(server).await;
    let old: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    for (owner, before, after) in [
        ("_mta-sts.example", txt("1"), txt("2")),
        ("_mta-sts.example", txt("1"), Replacement::Txt { prefix: "v=STSv1", value: None }),
        ("mta-sts.example", Replacement::Addresses(old), Replacement::Alias(name("policy.host.test"))),
    ] {
        let owner = name(owner);
        let direct = updater(server, "sternpost", SECRET);
        let put = async |new: &Replacement| {
            direct.replace(&owner, new, None, 300, Timestamp::now()).await.unwrap();
            shown(server)
        };
        let (new, old) = (put(&after).await, put(&before).await);
        assert_ne!(old, new);
        let mut cuts = 0;
        for number in 0.. {
            for how in [Meddling::CutBefore(number), Meddling::CutAfter(number)] {
                put(&before).await;
                proxy.set(how);
                let outcome = proxy.updater().replace(&owner, &after, None, 300, Timestamp::now()).await;
                let now = shown(server);
                assert!(now == old || now == new, "{how:?}: {now:?}");
                match outcome {
                    Ok(_) => assert_eq!(now, new, "{how:?}"),
                    Err(error) => assert!(error.to_string().contains("no answer from"), "{how:?}: {error}"),
                }
                // The next run finishes it.
                proxy.set(Meddling::Pass);
                proxy.updater().replace(&owner, &after, None, 300, Timestamp::now()).await.unwrap();
                assert_eq!(shown(server), new, "{how:?}");
            }
            proxy.set(Meddling::Pass);
            put(&before).await;
            proxy.updater().replace(&owner, &after, None, 300, Timestamp::now()).await.unwrap();
            cuts += 2;
            if number + 1 >= proxy.messages.load(Ordering::SeqCst) {
                break;
            }
        }
        assert!(cuts >= 4, "{cuts} cuts");
    }
}

async fn overwrites_no_concurrent_change(server: &'static str) {
    let proxy = Proxy::before(server).await;
    let record = name("_mta-sts.example");
    let direct = updater(server, "sternpost", SECRET);
    for new in [txt("2"), Replacement::Txt { prefix: "v=STSv1", value: None }] {
        for first in [txt("1"), Replacement::Txt { prefix: "v=STSv1", value: None }] {
            direct.replace(&record, &first, None, 300, Timestamp::now()).await.unwrap();
            proxy.set(Meddling::ChangeFirst);
            let error =
                proxy.updater().replace(&record, &new, None, 300, Timestamp::now()).await.unwrap_err();
            let UpdateError::Changed(now) = &error else { panic!("{error}") };
            assert!(now.len() == 1 && now[0].contains("id=77"), "{now:?}");
            assert!(error.to_string().contains("nothing was changed: there is now"), "{error}");
            assert_eq!(dig(server, "_mta-sts.example TXT"), ["\"site=verification\"", "\"v=STSv1; id=77;\""]);
        }
    }
    // What was read for the plan is compared as well.
    let planned = direct.read(&record, &txt("3")).await.unwrap();
    direct.replace(&record, &txt("5"), None, 300, Timestamp::now()).await.unwrap();
    let error = direct.replace(&record, &txt("3"), Some(&planned), 300, Timestamp::now()).await.unwrap_err();
    assert!(matches!(error, UpdateError::Changed(_)), "{error}");
}

#[test]
fn updates_are_whole_wherever_they_are_cut_and_overwrite_no_concurrent_change() {
    in_a_room_of_its_own(|| {
        let place = tempfile::tempdir().unwrap();
        let _bind = bind(&place.path().join("bind"), "127.0.2.1");
        let _knot = knot(&place.path().join("knot"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            for server in ["127.0.2.1", "127.0.2.3"] {
                is_whole_wherever_it_is_cut(server).await;
                overwrites_no_concurrent_change(server).await;
            }
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
                .replace(&record, &txt("2"), None, 300, Timestamp::now())
                .await
                .unwrap();
            let error = texts().await.unwrap_err();
            assert!(matches!(error, DnsError::Differ { .. }), "{error}");
            updater("127.0.2.2", "sternpost", SECRET)
                .replace(&record, &txt("2"), None, 300, Timestamp::now())
                .await
                .unwrap();
            assert!(texts().await.unwrap().contains(&"v=STSv1; id=2;".to_owned()));
            // The dead server is named, and has shown nothing.
            let survey = zone.survey(&record, Kind::Txt).await;
            let dead: Vec<_> = survey.servers.iter().filter(|server| server.shows.is_err()).collect();
            assert_eq!((survey.servers.len(), dead.len()), (3, 1), "{survey:?}");
            assert_eq!(dead[0].name, name("ns3.example"));
            let fault = dead[0].shows.as_ref().unwrap_err();
            assert!(matches!(fault, ServerFault::Silent | ServerFault::Unreachable(_)), "{fault}");
            let nothing = zone.lookup(&name("_smtp._tls.example"), Kind::Txt).await.unwrap_err();
            assert!(nothing.is_absence(), "{nothing}");
            let strict = AuthoritativeServers::new(Arc::new(Signpost), 53, false);
            assert!(strict.lookup(&record, Kind::Txt).await.is_err(), "loopback is asked without leave");
        });
    });
}
