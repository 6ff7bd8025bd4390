//! The man in the middle forwards faithfully until it gets attacks, carries each of them out, and records what went by.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::DomainName;
use formats::tlsa::TlsaRecord;
use net::certificate::{Problem, Trust};
use net::clock::{Clock, SystemClock};
use net::dns::{Answer, Dns, DnsError, Kind, Resolver, ResolverConfig, Security};
use net::https::{FetchError, Fetcher, FetcherConfig, PolicyHosts};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use sternpost_lab::dns::{Rr, Signing};
use sternpost_lab::man_in_the_middle::{
    Attacker, Authority, DnsAttack, DnsChange, DnsProxy, HttpsAttack, HttpsChange, HttpsProxy, Proof,
    RecordType, ResponseCode, Target, When,
};
use sternpost_lab::traffic::{Outcome, Traffic};
use sternpost_lab::{Lab, Ports, site};

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

struct World {
    lab: Lab,
    proxy: DnsProxy,
    resolver: Resolver,
}

const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

async fn world() -> World {
    let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
    lab.names.add_zone("plain.test.", Signing::Unsigned).unwrap();
    lab.names.add_zone("signed.test.", Signing::Signed).unwrap();
    for host in ["mx.plain.test.", "mx.signed.test."] {
        lab.names.set(host, vec![Rr::A(ADDRESS)]).unwrap();
    }
    let traffic = Traffic::new(Arc::new(SystemClock));
    let proxy = DnsProxy::start(Ipv4Addr::LOCALHOST, lab.names.address, traffic).await.unwrap();
    let config = ResolverConfig { servers: vec![proxy.address], ..lab.resolver_config().unwrap() };
    World { resolver: Resolver::new(&config).unwrap(), lab, proxy }
}

impl World {
    async fn look(&self, host: &str, kind: Kind) -> Result<Answer, DnsError> {
        self.resolver.lookup(&name(host), kind).await
    }

    /// A resolver that knows nothing yet.
    fn fresh(&self) -> Resolver {
        let servers = vec![self.proxy.address];
        Resolver::new(&ResolverConfig { servers, ..self.lab.resolver_config().unwrap() }).unwrap()
    }

    /// The answer for the address of a host while the attacker does this with it.
    async fn under(&self, host: &str, how: DnsChange) -> Result<Answer, DnsError> {
        let on = Target::Name(format!("{host}."));
        self.proxy.attack(vec![DnsAttack { on, kind: Some(RecordType::A), when: When::Always, how }]);
        let outcome = self.look(host, Kind::A).await;
        self.proxy.attack(Vec::new());
        outcome
    }
}

#[tokio::test]
async fn an_honest_proxy_changes_nothing_and_every_question_is_recorded() {
    let world = world().await;
    for (host, security) in [("mx.plain.test", Security::Insecure), ("mx.signed.test", Security::Secure)] {
        let answer = world.look(host, Kind::A).await.unwrap();
        assert_eq!(
            (answer.security, answer.addresses().collect::<Vec<_>>()),
            (security, vec![ADDRESS.into()])
        );
    }
    let traffic = world.proxy.traffic();
    assert_eq!(traffic.count("mx.signed.test.", RecordType::A), 1);
    assert_eq!(traffic.count("mx.signed.test.", RecordType::TLSA), 0);
    let questions = traffic.questions();
    let asked = questions.iter().find(|asked| asked.name == "mx.signed.test.").unwrap();
    assert!(asked.dnssec_ok && asked.recursion_desired && !asked.is_tcp);
    assert!(questions.iter().all(|asked| asked.outcome == Outcome::Genuine));
    let events = traffic.of_client(Ipv4Addr::LOCALHOST.into());
    assert_eq!((events.len(), traffic.lost()), (questions.len(), 0));
    assert!(
        events.iter().any(|event| event.to_string().contains("dns mx.signed.test. A udp rd do")),
        "{events:?}"
    );
    traffic.clear();
    assert!(traffic.events().is_empty());
}

#[tokio::test]
async fn unsigned_answers_are_what_the_attacker_makes_of_them_and_signed_ones_fail() {
    let world = world().await;
    world.look("mx.plain.test", Kind::A).await.unwrap();
    let forged = Ipv4Addr::new(127, 0, 0, 66);
    let negative = |authority| DnsChange::Negative { code: ResponseCode::NXDomain, authority, ttl: 60 };
    let forge =
        |keeps_signatures| DnsChange::Forge { records: vec![Rr::A(forged)], ttl: 604_800, keeps_signatures };
    let answer = world.under("mx.plain.test", forge(false)).await.unwrap();
    assert_eq!(answer.addresses().collect::<Vec<_>>(), [IpAddr::V4(forged)]);
    assert!(answer.ttl > Duration::from_secs(600_000));
    let gone = world.under("mx.plain.test", negative(Authority::Soa("plain.test.".into()))).await;
    assert!(matches!(gone, Err(DnsError::NoSuchName(_))), "{gone:?}");
    let strip = DnsChange::Strip { signatures: true, proofs: true, keys: true };
    for how in [
        forge(false),
        forge(true),
        negative(Authority::Soa("plain.test.".into())),
        negative(Authority::Ns("plain.test.".into())),
        negative(Authority::Empty),
        strip,
        DnsChange::Code(ResponseCode::Refused),
        DnsChange::Drop,
        DnsChange::Borrow {
            name: "plain.test.".into(),
            kind: RecordType::DS,
            proof: Proof::Absence(ResponseCode::NoError),
        },
        DnsChange::Borrow {
            name: "signed.test.".into(),
            kind: RecordType::DS,
            proof: Proof::Absence(ResponseCode::NXDomain),
        },
    ] {
        let outcome = world.under("mx.signed.test", how.clone()).await;
        assert!(outcome.as_ref().is_err_and(|error| !error.is_absence()), "{how:?}: {outcome:?}");
    }
    let changed =
        world.proxy.traffic().questions().iter().filter(|asked| asked.outcome == Outcome::Changed).count();
    assert!(changed >= 9, "{changed}");
    for how in [DnsChange::Ttl(0), DnsChange::AuthenticData(true), DnsChange::Delay(Duration::from_millis(1))]
    {
        assert_eq!(world.under("mx.signed.test", how).await.unwrap().security, Security::Secure);
    }
}

#[tokio::test]
async fn a_replay_returns_the_former_state_of_the_zone() {
    let world = world().await;
    let before = world.look("mx.signed.test", Kind::A).await.unwrap();
    world.lab.names.set("mx.signed.test.", vec![Rr::A(Ipv4Addr::LOCALHOST)]).unwrap();
    assert_ne!(world.look("mx.signed.test", Kind::A).await.unwrap().records, before.records);
    let replayed = world.under("mx.signed.test", DnsChange::Replay).await.unwrap();
    assert_eq!((replayed.records, replayed.security), (before.records, Security::Secure));
}

/// RFC 4035 §5.3.4: an answer from a wildcard counts only with the proof that the name itself does not exist.
#[tokio::test]
async fn a_wildcard_without_proof_does_not_replace_a_record_that_exists() {
    let world = world().await;
    world.lab.names.add_zone("hoster.test.", Signing::Signed).unwrap();
    let tlsa = |byte| Rr::Tlsa(TlsaRecord { usage: 3, selector: 1, matching: 1, data: vec![byte; 32] });
    for (wildcard, kind, what) in [
        (Rr::Cname("mx.plain.test.".into()), RecordType::TLSA, "an alias without TLSA records"),
        (Rr::Cname("no.plain.test.".into()), RecordType::TLSA, "an alias of a name that does not exist"),
        (Rr::Cname("hoster.test.".into()), RecordType::TLSA, "an alias in another signed zone"),
        (Rr::Cname("no.plain.test.".into()), RecordType::A, "an alias without addresses"),
        (Rr::Cname("mx.plain.test.".into()), RecordType::A, "an alias of a host in an unsigned zone"),
        (Rr::Mx(10, "mx.plain.test.".into()), RecordType::MX, "another MX host"),
        (tlsa(2), RecordType::TLSA, "other TLSA records"),
    ] {
        world.lab.names.add_zone("wild.test.", Signing::Signed).unwrap();
        let records = [
            ("_25._tcp.mx.wild.test.".to_owned(), vec![tlsa(1)]),
            ("mx.wild.test.".to_owned(), vec![Rr::A(ADDRESS)]),
            ("user.wild.test.".to_owned(), vec![Rr::Mx(10, "mx.wild.test.".into())]),
            ("*.wild.test.".to_owned(), vec![wildcard]),
        ];
        world.lab.names.set_all("wild.test.", records.to_vec()).unwrap();
        let (asked, as_kind) = match kind {
            RecordType::MX => ("user.wild.test", Kind::Mx),
            RecordType::A => ("mx.wild.test", Kind::A),
            _ => ("_25._tcp.mx.wild.test", Kind::Tlsa),
        };
        assert_eq!(world.look(asked, as_kind).await.unwrap().security, Security::Secure, "{what}");
        for zone in ["plain.test.", "attacker.test.", "wild.test."] {
            let proof = Proof::Wildcard(zone.into());
            let how = DnsChange::Borrow { name: "any.wild.test.".into(), kind, proof };
            let on = Target::Name(format!("{asked}."));
            world.proxy.attack(vec![DnsAttack { on, kind: Some(kind), when: When::Always, how }]);
            let outcome = world.look(asked, as_kind).await;
            assert!(outcome.as_ref().is_err_and(|error| !error.is_absence()), "{what}, {zone}: {outcome:?}");
            world.proxy.attack(Vec::new());
        }
    }
}

/// RFC 5155 §9.2: the opt-out flag counts only in a record that proves the expansion.
#[tokio::test]
async fn a_forged_record_with_opt_out_does_not_make_a_wildcard_insecure() {
    let world = world().await;
    world.lab.names.add_zone("wild.test.", Signing::Signed).unwrap();
    world.lab.names.set("*.wild.test.", vec![Rr::A(ADDRESS), Rr::Mx(10, "mx.wild.test.".into())]).unwrap();
    for (host, kind, as_kind) in
        [("mx.site.wild.test", RecordType::A, Kind::A), ("user.site.wild.test", RecordType::MX, Kind::Mx)]
    {
        assert_eq!(world.look(host, as_kind).await.unwrap().security, Security::Secure, "{host}");
        for zone in ["plain.test.", "wild.test.", "test."] {
            let (on, how) = (Target::Below("wild.test.".into()), DnsChange::OptOut(zone.into()));
            world.proxy.attack(vec![DnsAttack { on, kind: Some(kind), when: When::Always, how }]);
            let resolver = world.fresh();
            let outcome = resolver.lookup(&name(host), as_kind).await;
            assert_eq!(outcome.map(|answer| answer.security), Ok(Security::Secure), "{host}, {zone}");
            world.proxy.attack(Vec::new());
            // The name was not taken for one of an unsigned zone.
            let later = resolver.lookup(&name(&format!("a.{host}")), Kind::A).await;
            assert_eq!(later.unwrap().security, Security::Secure, "{host}, {zone}");
        }
    }
}

/// RFC 4035 §5.2: below an unsigned zone everything is insecure, whatever DS records the zone has.
#[tokio::test]
async fn a_signed_zone_below_an_unsigned_one_is_insecure() {
    let world = world().await;
    world.lab.names.add_zone("isle.plain.test.", Signing::Signed).unwrap();
    world.lab.names.set("mx.isle.plain.test.", vec![Rr::A(ADDRESS)]).unwrap();
    let answer = world.look("mx.isle.plain.test", Kind::A).await.unwrap();
    assert_eq!(answer.security, Security::Insecure);
    let nothing = world.look("no.isle.plain.test", Kind::A).await.unwrap_err().nothing().unwrap();
    assert_eq!(nothing.security, Security::Insecure);
}

#[tokio::test]
async fn on_the_way_to_a_policy_host_nothing_but_the_genuine_policy_is_accepted() {
    let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
    let body = "version: STSv1\nmode: enforce\nmx: mx.plain.test\nmax_age: 604800\n";
    let host = "mta-sts.plain.test";
    lab.names.add_zone("plain.test.", Signing::Unsigned).unwrap();
    lab.names.set("mta-sts.plain.test.", vec![Rr::A(lab.policy_host_address())]).unwrap();
    lab.sites.put(host, site(&lab.pki, host, body).unwrap());
    let clock = Arc::new(SystemClock);
    let traffic = Traffic::new(clock.clone());
    let attacker = Arc::new(Attacker::new(&lab.pki, "attacker.test", clock.now()).unwrap());
    let upstream = SocketAddr::new(lab.policy_host_address().into(), lab.https_port);
    let proxy =
        HttpsProxy::start(lab.policy_host_address(), upstream, attacker, traffic.clone()).await.unwrap();
    let config = FetcherConfig {
        trust: Trust::from_roots([lab.pki.root()]).unwrap(),
        port: proxy.address.port(),
        allow_special_addresses: true,
        time: Duration::from_secs(10),
        sources: Vec::new(),
    };
    let dns = Arc::new(Resolver::new(&lab.resolver_config().unwrap()).unwrap());
    let fetcher = Fetcher::new(config, dns, clock).unwrap();
    let fetch = async |how: Option<HttpsChange>| {
        let attack =
            how.map(|how| HttpsAttack { on: Target::Name(format!("{host}.")), when: When::Times(1), how });
        proxy.attack(attack.into_iter().collect());
        fetcher.fetch(&name("plain.test")).await.map(|fetched| fetched.body)
    };
    assert_eq!(fetch(None).await.unwrap(), body.as_bytes());
    assert_eq!(fetch(Some(HttpsChange::Delay(Duration::from_millis(1)))).await.unwrap(), body.as_bytes());
    let forged = || "version: STSv1\nmode: none\nmax_age: 60\n".to_owned();
    let certificate = |problem| Err(FetchError::Certificate(problem));
    assert_eq!(
        fetch(Some(HttpsChange::UntrustedCertificate(forged()))).await,
        certificate(Problem::UnknownIssuer)
    );
    assert_eq!(fetch(Some(HttpsChange::CertificateOfOther(forged()))).await, certificate(Problem::WrongName));
    for how in [
        HttpsChange::Reset,
        HttpsChange::Close,
        HttpsChange::Cut(0),
        HttpsChange::Cut(700),
        HttpsChange::Flip(0),
        HttpsChange::Flip(500),
    ] {
        let outcome = fetch(Some(how.clone())).await;
        assert!(outcome.is_err(), "{how:?}: {outcome:?}");
        assert_eq!(fetch(None).await.unwrap(), body.as_bytes(), "after {how:?}");
    }
    let connections = traffic.connections();
    assert!(connections.iter().all(|connection| connection.host.as_deref() == Some(host)));
    let number = |outcome| connections.iter().filter(|connection| connection.outcome == outcome).count();
    assert_eq!((number(Outcome::Nothing), number(Outcome::Changed), number(Outcome::Genuine)), (2, 6, 8));
}
