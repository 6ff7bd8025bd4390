//! Checks over a scripted network: hosts and addresses that never answer, and certificates that differ by address.

use super::*;
use formats::limits::POLICY_FETCH_TIME;
use net::certificate::CertificateFacts;
use net::clock::ManualClock;
use net::dns::{Absence, Answer, Data, DnsError, Exchange, Kind, Mx, Security};
use net::https::{AddressFetch, FetchError, Fetched};
use net::smtp::{Mail, SessionFailure, SessionReport};
use net::tls::TlsFacts;
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::IpAddr;
use tokio::time::Instant;

/// `a.example` with MX hosts at these addresses; the certificate at an address ends after this number of days. An
/// address without one never answers.
#[derive(Default)]
struct Network {
    mx: Vec<(&'static str, Vec<&'static str>)>,
    days: BTreeMap<&'static str, i64>,
    /// True if no query is ever answered.
    is_deaf: bool,
    /// The address of the policy host that serves an older file.
    stale: Option<IpAddr>,
}

/// The addresses of the policy host. This machine has a route to them, whatever its network is.
const POLICY_HOST: [&str; 2] = ["127.0.2.1", "127.0.2.2"];

const STALE: &str = "version: STSv1\nmode: testing\nmx: *.a.example\nmax_age: 604800\n";
const POLICY: &str = "version: STSv1\nmode: enforce\nmx: *.a.example\nmax_age: 604800\n";

impl Network {
    fn tls(&self, address: IpAddr) -> Option<TlsFacts> {
        let left = *self.days.get(address.to_string().as_str())?;
        let facts = CertificateFacts {
            subject: String::new(),
            issuer: String::new(),
            names: Vec::new(),
            not_before: days(left - 90),
            not_after: days(left),
            fingerprint: String::new(),
            key_digest: String::new(),
            common_name: None,
            key: String::new(),
            is_weak: false,
            is_self_issued: false,
            is_for_servers: true,
            is_for_clients: false,
        };
        Some(TlsFacts {
            version: String::new(),
            cipher: String::new(),
            group: String::new(),
            chain: vec![facts],
            raw: Vec::new(),
            pkix: Ok(()),
            dane: None,
        })
    }

    fn records(&self, name: &DomainName, kind: Kind) -> Vec<Data> {
        let address = |text: &&str| match text.parse() {
            Ok(IpAddr::V4(ip)) if kind == Kind::A => Some(Data::A(ip)),
            Ok(IpAddr::V6(ip)) if kind == Kind::Aaaa => Some(Data::Aaaa(ip)),
            _ => None,
        };
        match (name.as_str(), kind) {
            ("a.example", Kind::Mx) => self
                .mx
                .iter()
                .map(|(host, _)| {
                    let exchange = Exchange::Host(DomainName::parse(host).unwrap());
                    Data::Mx(Mx { preference: 10, exchange })
                })
                .collect(),
            ("_mta-sts.a.example", Kind::Txt) => vec![Data::Txt(b"v=STSv1; id=1;".to_vec())],
            ("mta-sts.a.example", _) => POLICY_HOST.iter().filter_map(address).collect(),
            (name, _) => {
                let host = self.mx.iter().find(|(host, _)| *host == name);
                host.map(|(_, all)| all.iter().filter_map(address).collect()).unwrap_or_default()
            }
        }
    }
}

impl Dns for Network {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            if self.is_deaf {
                pending::<()>().await;
            }
            match self.records(name, kind) {
                none if none.is_empty() => {
                    Err(DnsError::NoSuchName(Absence { security: Security::Insecure, ttl: None }))
                }
                records => Ok(Answer {
                    records,
                    ttl: Duration::from_secs(300),
                    security: Security::Insecure,
                    aliases: Vec::new(),
                    is_split: false,
                }),
            }
        })
    }
}

impl PolicyHosts for Network {
    fn fetch<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(async { Ok(fetched(POLICY)) })
    }

    fn fetch_each<'a>(
        &'a self,
        _: &'a DomainName,
        addresses: &'a [IpAddr],
    ) -> BoxFuture<'a, Vec<AddressFetch>> {
        Box::pin(async {
            let at = |address: &IpAddr| {
                let certificate = self.tls(*address).and_then(|tls| tls.chain.into_iter().next());
                let policy = if self.stale == Some(*address) { STALE } else { POLICY };
                let fetched = certificate.as_ref().map(|_| fetched(policy)).ok_or(FetchError::Time);
                AddressFetch { address: *address, fetched, certificate }
            };
            let all: Vec<AddressFetch> = addresses.iter().map(at).collect();
            if all.iter().any(|one| one.fetched.is_err()) {
                tokio::time::sleep(POLICY_FETCH_TIME).await;
            }
            all
        })
    }
}

fn fetched(policy: &str) -> Fetched {
    Fetched {
        body: policy.as_bytes().to_vec(),
        address: POLICY_HOST[0].parse().unwrap(),
        media_type: "text/plain".into(),
        tls_version: String::new(),
    }
}

impl MailHosts for Network {
    fn session<'a>(
        &'a self,
        target: &'a Target,
        _: &'a TlsDemand,
        _: Option<&'a Mail>,
    ) -> BoxFuture<'a, Result<SessionReport, Box<SessionFailure>>> {
        Box::pin(async {
            let Some(tls) = self.tls(target.address) else { return pending().await };
            Ok(SessionReport { tls: Some(tls), ..SessionReport::new(target) })
        })
    }
}

async fn check(network: Network) -> Result<GuardCheck, GuardError> {
    check_without(network, &[]).await
}

async fn check_without(network: Network, omitted: &[&str]) -> Result<GuardCheck, GuardError> {
    let (desired, mut rollout, _) = enforced();
    let policy = Policy::parse(POLICY.as_bytes()).unwrap();
    rollout.published = vec![PublishedPolicy::from(&policy)];
    let network = Arc::new(network);
    let guard = Guard {
        dns: network.clone(),
        policies: network.clone(),
        mail: network,
        clock: Arc::new(ManualClock::new(now())),
        omitted: omitted.iter().map(|place| (*place).to_owned()).collect(),
        deadline: DEADLINE,
    };
    guard.check(&desired, &rollout).await
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_answers_leaves_the_others_their_verdict() {
    let hosts = ["mx1.a.example", "mx2.a.example", "mx3.a.example"];
    let network = Network {
        mx: vec![
            (hosts[0], vec!["192.0.2.10", "2001:db8::10"]),
            (hosts[1], vec!["192.0.2.20"]),
            (hosts[2], vec!["192.0.2.30", "2001:db8::30"]),
        ],
        // Neither address of mx1 answers, and one of mx3 does; so does one address of the policy host.
        days: [("192.0.2.20", 60), ("192.0.2.30", 5), (POLICY_HOST[0], 4)].into(),
        ..Network::default()
    };
    let started = Instant::now();
    let checked = check(network).await.unwrap();
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
    let reached: Vec<&str> = checked.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(reached, [hosts[1], hosts[2]]);
    let raised: Vec<_> = checked.alerts.iter().map(|alert| (alert.kind, alert.subject.as_str())).collect();
    let policy_host = [AlertKind::PolicyUnserved, AlertKind::PolicyCertificateEnds];
    let policy_host = policy_host.map(|kind| (kind, "mta-sts.a.example"));
    assert_eq!(raised, [(AlertKind::MxCertificateEnds, hosts[2]), policy_host[0], policy_host[1]]);
}

/// Where outgoing port 25 is blocked, DNS and the policy host answer, and no MX host does.
#[tokio::test(start_paused = true)]
async fn a_guard_that_reaches_no_mx_host_says_so_and_one_that_reaches_any_does_not() {
    let both = [(POLICY_HOST[0], 60), (POLICY_HOST[1], 60)];
    let mx = || vec![("mx1.a.example", vec!["192.0.2.10", "2001:db8::10"]), ("mx2.a.example", Vec::new())];
    let checked = check(Network { mx: mx(), days: both.into(), ..Network::default() }).await.unwrap();
    let [alert] = checked.alerts.as_slice() else { panic!("{:?}", checked.alerts) };
    assert_eq!((alert.kind, alert.subject.as_str()), (AlertKind::MxUnreached, "a.example"));
    for part in ["mx1.a.example (no answer at ", "mx2.a.example (", "from this machine"] {
        assert!(alert.what.contains(part), "{part}: {}", alert.what);
    }
    assert!(alert.remedy.contains("nc -zvw 10 mx1.a.example 25"), "{}", alert.remedy);
    assert_eq!(alert.cause.as_deref(), Some("mx1.a.example mx2.a.example"));
    assert_eq!((checked.hosts.len(), checked.unreached.len()), (0, 2));

    let days = [both[0], both[1], ("2001:db8::10", 60)];
    let checked = check(Network { mx: mx(), days: days.into(), ..Network::default() }).await.unwrap();
    assert_eq!(checked.alerts, []);
    assert_eq!((checked.hosts.len(), checked.unreached.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_earliest_end_over_all_addresses_counts() {
    let addresses = ["192.0.2.10", "2001:db8::10", "192.0.2.11"];
    for soon in addresses {
        let mut days: BTreeMap<_, _> = addresses.into_iter().map(|address| (address, 60)).collect();
        days.extend([(POLICY_HOST[0], 60), (POLICY_HOST[1], 60), (soon, 7)]);
        let network = Network { mx: vec![("mx1.a.example", addresses.to_vec())], days, ..Network::default() };
        let checked = check(network).await.unwrap();
        let kinds: Vec<AlertKind> = checked.alerts.iter().map(|alert| alert.kind).collect();
        assert_eq!(kinds, [AlertKind::MxCertificateEnds], "{soon}");
    }
    for soon in POLICY_HOST {
        let days = [("192.0.2.10", 60), (POLICY_HOST[0], 60), (POLICY_HOST[1], 60), (soon, 7)];
        let network = with_one_host(days);
        let checked = check(network).await.unwrap();
        let kinds: Vec<AlertKind> = checked.alerts.iter().map(|alert| alert.kind).collect();
        assert_eq!(kinds, [AlertKind::PolicyCertificateEnds], "{soon}");
    }
}

fn with_one_host<const N: usize>(days: [(&'static str, i64); N]) -> Network {
    let mx = vec![("mx1.a.example", vec!["192.0.2.10"])];
    Network { mx, days: days.into(), ..Network::default() }
}

/// The planner and the guard observe the policy host alike: an address that serves an older file, or none, is an alert until
/// the operator leaves it out.
#[tokio::test(start_paused = true)]
async fn an_address_that_serves_another_file_or_none_is_an_alert_and_says_which() {
    let both = [("192.0.2.10", 60), (POLICY_HOST[0], 60), (POLICY_HOST[1], 60)];
    let one = [("192.0.2.10", 60), (POLICY_HOST[0], 60)];
    let stale = Network { stale: POLICY_HOST[1].parse().ok(), ..with_one_host(both) };
    for (network, said) in [(stale, "127.0.2.2 serves mode testing"), (with_one_host(one), "127.0.2.2: ")] {
        let checked = check(network).await.unwrap();
        let kinds: BTreeSet<AlertKind> = checked.alerts.iter().map(|alert| alert.kind).collect();
        assert_eq!(kinds, [AlertKind::PolicyUnserved].into(), "{said}");
        assert!(checked.alerts[0].what.contains(said), "{}", checked.alerts[0].what);
        assert!(
            checked.alerts[0].consequence.contains("depends on chance"),
            "{}",
            checked.alerts[0].consequence
        );
    }
    assert_eq!(check(with_one_host(both)).await.unwrap().alerts, []);
    let checked = check_without(with_one_host(one), &[POLICY_HOST[1]]).await.unwrap();
    assert_eq!(checked.alerts, [], "the operator has left the address out");
}

#[tokio::test(start_paused = true)]
async fn a_check_without_any_answer_ends_by_its_deadline_and_has_no_verdict() {
    let started = Instant::now();
    let failed = check(Network { is_deaf: true, ..Network::default() }).await.unwrap_err();
    assert_eq!(failed, GuardError::Deadline(DEADLINE));
    assert_eq!(failed.to_string(), "the check did not end within 180 seconds");
    assert_eq!(started.elapsed(), DEADLINE);
}
