//! Routes over a small simulated DNS: signed and unsigned MX answers, hosts, aliases and TLSA records.

use super::*;
use net::BoxFuture;
use net::dns::{Absence, Answer, Data, Mx};
use std::collections::HashMap;
use std::sync::Mutex;

/// Records by name and type, and the queries that came.
#[derive(Default)]
struct Zone {
    answers: HashMap<String, Result<Answer, DnsError>>,
    queries: Mutex<Vec<String>>,
}

fn key(name: &str, kind: Kind) -> String {
    format!("{name} {kind:?}")
}

impl Zone {
    fn with(mut self, name: &str, kind: Kind, security: Security, records: Vec<Data>) -> Self {
        let ttl = Duration::from_secs(300);
        let answer = Answer { records, ttl, security, aliases: Vec::new(), is_split: false };
        self.answers.insert(key(name, kind), Ok(answer));
        self
    }

    fn mx(self, security: Security, hosts: &[&str]) -> Self {
        let mx = |(preference, host): (usize, &&str)| {
            let exchange = Exchange::Host(DomainName::parse(host).unwrap());
            Data::Mx(Mx { preference: u16::try_from(preference).unwrap(), exchange })
        };
        let records = hosts.iter().enumerate().map(mx).collect();
        self.with("cust.example", Kind::Mx, security, records)
    }

    fn host(self, name: &str, security: Security) -> Self {
        self.with(name, Kind::A, security, vec![Data::A([192, 0, 2, 1].into())])
    }

    /// The host's name is an alias of `target`; its addresses have the state `addresses`.
    fn alias(mut self, name: &str, target: &str, alias: Security, addresses: Security) -> Self {
        let target = DomainName::parse(target).unwrap();
        self = self.host(name, addresses).with(name, Kind::Cname, alias, vec![Data::Cname(target.clone())]);
        if let Some(Ok(answer)) = self.answers.get_mut(&key(name, Kind::A)) {
            answer.aliases = vec![target];
        }
        self
    }

    fn tlsa(self, base: &str, port: u16) -> Self {
        let record = formats::tlsa::TlsaRecord::parse(&format!("3 1 1 {}", "ab".repeat(32))).unwrap();
        self.with(&format!("_{port}._tcp.{base}"), Kind::Tlsa, Secure, vec![Data::Tlsa(record)])
    }

    fn failing(mut self, name: &str, kind: Kind, error: DnsError) -> Self {
        self.answers.insert(key(name, kind), Err(error));
        self
    }

    async fn count(&self, hop: &str) -> DaneHosts {
        let hop = NextHop::of(LookupKey::parse(hop).unwrap()).unwrap();
        match look_up(self, &hop).await.route {
            Route::Hosts(hosts) => DaneHosts::of(&hosts),
            other => panic!("{other:?}"),
        }
    }
}

impl Dns for Zone {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let key = key(name.as_str(), kind);
        self.queries.lock().unwrap().push(key.clone());
        let absent = Absence { security: Secure, ttl: None };
        let found = self.answers.get(&key).cloned().unwrap_or(Err(DnsError::NoSuchRecord(absent)));
        Box::pin(async { found })
    }
}

use Security::{Insecure, Secure};

/// The next hop is an alias, as the resolver answers for it: the records of the target, with the weakest security of the chain.
#[tokio::test]
async fn where_the_next_hop_is_an_alias_the_mx_hosts_are_those_of_its_target() {
    for (chain, expected) in [
        (Secure, DaneHosts { usable: 1, ..DaneHosts::default() }),
        (Insecure, DaneHosts { absent: 1, behind_insecure_mx: 1, ..DaneHosts::default() }),
    ] {
        let mut zone = Zone::default().mx(chain, &["mx.hoster.example"]).host("mx.hoster.example", Secure);
        zone = zone.tlsa("mx.hoster.example", 25);
        if let Some(Ok(answer)) = zone.answers.get_mut(&key("cust.example", Kind::Mx)) {
            answer.aliases = vec![DomainName::parse("target.example").unwrap()];
        }
        assert_eq!(zone.count("cust.example").await, expected, "{chain:?}");
        let queries = zone.queries.lock().unwrap();
        assert!(!queries.iter().any(|query| query.contains("target.example")), "{queries:?}");
    }
    // The target has no MX records, so that the next hop itself is the host. Postfix looks up its addresses by its own name, and
    // the TLSA records of the target before those of the alias (RFC 7672 §2.2.2).
    for (base, chain, expected) in [
        ("target.example", Secure, DaneHosts { usable: 1, ..DaneHosts::default() }),
        ("cust.example", Secure, DaneHosts { usable: 1, ..DaneHosts::default() }),
        ("cust.example", Insecure, DaneHosts { absent: 1, behind_insecure_mx: 1, ..DaneHosts::default() }),
    ] {
        let nothing = DnsError::NoSuchRecord(Absence { security: chain, ttl: None });
        let zone = Zone::default()
            .alias("cust.example", "target.example", Secure, Secure)
            .tlsa(base, 25)
            .failing("cust.example", Kind::Mx, nothing);
        assert_eq!(zone.count("cust.example").await, expected, "{base} {chain:?}");
    }
}

#[tokio::test]
async fn a_signed_host_behind_unsigned_mx_records_is_counted_apart() {
    let zone = Zone::default().mx(Insecure, &["mx.hoster.example"]).host("mx.hoster.example", Secure);
    let without = DaneHosts { absent: 1, ..DaneHosts::default() };
    assert_eq!(zone.count("cust.example").await, without);
    let zone = zone.tlsa("mx.hoster.example", 25);
    let apart = DaneHosts { behind_insecure_mx: 1, ..without };
    assert_eq!(zone.count("cust.example").await, apart);
    let failing = Zone::default()
        .mx(Insecure, &["mx.hoster.example"])
        .host("mx.hoster.example", Secure)
        .failing("_25._tcp.mx.hoster.example", Kind::Tlsa, DnsError::Timeout);
    assert_eq!(failing.count("cust.example").await, apart);
}

#[tokio::test]
async fn each_host_without_dane_has_the_reason() {
    let names = ["none", "gone", "unsigned", "unsigned-tlsa"].map(|name| format!("{name}.cust.example"));
    let hosts = names.each_ref().map(String::as_str);
    let record = formats::tlsa::TlsaRecord::parse(&format!("3 1 1 {}", "ab".repeat(32))).unwrap();
    let zone = Zone::default()
        .mx(Secure, &hosts)
        .host(hosts[0], Secure)
        .host(hosts[2], Insecure)
        .host(hosts[3], Secure)
        .with("_25._tcp.unsigned-tlsa.cust.example", Kind::Tlsa, Insecure, vec![Data::Tlsa(record)]);
    let hop = NextHop::of(LookupKey::parse("cust.example").unwrap()).unwrap();
    let Route::Hosts(found) = look_up(&zone, &hop).await.route else { panic!("no hosts") };
    let reasons: Vec<_> = found.iter().map(|host| host.why_absent.unwrap()).collect();
    use NoDane::{NoAddresses, NoTlsa, UnsignedHost, UnsignedTlsa};
    assert_eq!(reasons, [NoTlsa, NoAddresses, UnsignedHost, UnsignedTlsa]);
    let applies = Zone::default().mx(Secure, &hosts[..1]).host(hosts[0], Secure).tlsa(hosts[0], 25);
    let Route::Hosts(found) = look_up(&applies, &hop).await.route else { panic!("no hosts") };
    assert_eq!(found[0].why_absent, None);
}

#[tokio::test]
async fn a_secure_alias_of_an_insecure_host_has_its_own_tlsa_records() {
    let zone = |alias, addresses| {
        Zone::default()
            .mx(Secure, &["mx.cust.example"])
            .alias("mx.cust.example", "real.hoster.example", alias, addresses)
            .tlsa("mx.cust.example", 25)
    };
    let usable = DaneHosts { usable: 1, ..DaneHosts::default() };
    assert_eq!(zone(Secure, Insecure).count("cust.example").await, usable);
    assert_eq!(zone(Secure, Secure).count("cust.example").await, usable);
    let absent = DaneHosts { absent: 1, ..DaneHosts::default() };
    assert_eq!(zone(Insecure, Insecure).count("cust.example").await, absent);
    let failing = zone(Secure, Insecure).failing("mx.cust.example", Kind::Cname, DnsError::Timeout);
    assert_eq!(failing.count("cust.example").await, DaneHosts { unknown: 1, ..DaneHosts::default() });
}

#[tokio::test]
async fn whoever_denies_the_addresses_behind_a_secure_alias_does_not_remove_its_tlsa_records() {
    let target = || vec![Data::Cname(DomainName::parse("real.hoster.example").unwrap())];
    for (absence, alias, expected) in [
        (Insecure, Secure, DaneHosts { usable: 1, ..DaneHosts::default() }),
        (Secure, Secure, DaneHosts { usable: 1, ..DaneHosts::default() }),
        (Insecure, Insecure, DaneHosts { absent: 1, ..DaneHosts::default() }),
    ] {
        let gone = || DnsError::NoSuchName(Absence { security: absence, ttl: None });
        let zone = Zone::default()
            .mx(Secure, &["mx.cust.example"])
            .with("mx.cust.example", Kind::Cname, alias, target())
            .failing("mx.cust.example", Kind::A, gone())
            .failing("mx.cust.example", Kind::Aaaa, gone())
            .tlsa("mx.cust.example", 25);
        assert_eq!(zone.count("cust.example").await, expected, "{absence:?} {alias:?}");
    }
}

#[tokio::test]
async fn the_port_of_the_next_hop_is_the_port_of_the_tlsa_records() {
    let zone = |port| {
        Zone::default()
            .mx(Secure, &["mx.cust.example"])
            .host("mx.cust.example", Secure)
            .tlsa("mx.cust.example", port)
    };
    let usable = DaneHosts { usable: 1, ..DaneHosts::default() };
    let absent = DaneHosts { absent: 1, ..DaneHosts::default() };
    assert_eq!(zone(587).count("cust.example:587").await, usable);
    assert_eq!(zone(25).count("cust.example:587").await, absent);
    assert_eq!(zone(25).count("cust.example:25").await, usable);
    let text = |key| NextHop::of(LookupKey::parse(key).unwrap()).unwrap().to_string();
    assert_eq!(text("cust.example:587"), "cust.example:587");
    assert_eq!(text("cust.example:25"), "cust.example");
    assert_eq!(text("[mx.cust.example]:587"), "[mx.cust.example]:587");
}

#[tokio::test]
async fn hosts_beyond_the_limit_keep_the_level_open() {
    let names: Vec<String> = (0..40).map(|number| format!("mx{number}.cust.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let signed = |zone: Zone, name: &&str| zone.host(name, Secure).tlsa(name, 25);
    let some = names.iter().take(MX_HOSTS).fold(Zone::default().mx(Secure, &names), signed);
    let count = some.count("cust.example").await;
    assert_eq!((usize::from(count.usable), count.absent), (MX_HOSTS, 1));
    let queries = some.queries.lock().unwrap().len();
    assert!(queries <= 1 + MX_HOSTS * 3, "{queries} queries");
}

#[tokio::test]
async fn an_unsigned_host_costs_one_query_and_one_without_ipv4_two() {
    let host = "mx.cust.example";
    let zone = || Zone::default().mx(Insecure, &[host]);
    let v6 = vec![Data::Aaaa("2001:db8::1".parse().unwrap())];
    for (zone, queries) in [
        (zone().host(host, Insecure), 2),
        (zone().with(host, Kind::Aaaa, Insecure, v6.clone()), 3),
        (zone().with(host, Kind::Aaaa, Insecure, v6).failing(host, Kind::A, DnsError::Timeout), 3),
    ] {
        assert_eq!(zone.count("cust.example").await, DaneHosts { absent: 1, ..DaneHosts::default() });
        let sent = zone.queries.into_inner().unwrap();
        assert_eq!(sent.len(), queries, "{sent:?}");
    }
}

#[test]
fn the_text_form_of_an_earlier_version_assumes_tlsa_records_behind_unsigned_mx_records() {
    let count = DaneHosts { usable: 1, unusable: 2, absent: 3, unknown: 4, behind_insecure_mx: 2 };
    assert_eq!(DaneHosts::from_text(&count.to_text()), Some(count));
    assert_eq!(DaneHosts::from_text("1 2 3 4"), Some(DaneHosts { behind_insecure_mx: 3, ..count }));
    assert_eq!(DaneHosts::from_text(""), None);
}
