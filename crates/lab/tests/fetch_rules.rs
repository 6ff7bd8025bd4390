//! The rules of RFC 8461 for the record and for fetching a policy, tested over real sockets: the clients of the
//! crate `net` against the lab's correct and broken hosts.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::limits::POLICY_BYTES;
use formats::tlsrpt_record::HttpsUrl;
use formats::{DomainName, StsRecord};
use net::BoxFuture;
use net::certificate::Problem;
use net::clock::{Clock, SystemClock};
use net::dns::{Answer, Data, Dns, DnsError, Kind, Security};
use net::https::{Bytes, FetchError, Fetched, Fetcher, FetcherConfig, PolicyHosts, PostError, Posts, Verify};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use sternpost_lab::policy_host::HttpBehavior;
use sternpost_lab::{Case, Clients, Lab, Ports};

struct World {
    lab: Lab,
    clients: Clients,
}

async fn world(names: &[&str], change: impl Fn(&mut Case)) -> World {
    let mut cases: Vec<Case> =
        sternpost_lab::cases::all().into_iter().filter(|case| names.contains(&case.name)).collect();
    assert_eq!(cases.len(), names.len(), "a name is not in the lab's table");
    cases.iter_mut().for_each(change);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lab = Lab::with_cases(Ports::free(), clock.now(), &cases).await.unwrap();
    let clients = lab.clients("sender.test", clock).unwrap();
    World { lab, clients }
}

fn domain(name: &str) -> DomainName {
    DomainName::parse(&format!("{name}.test")).unwrap()
}

impl World {
    async fn fetch(&self, name: &str) -> Result<Fetched, FetchError> {
        self.clients.policies.fetch(&domain(name)).await
    }

    async fn record(&self, name: &str) -> Result<Answer, DnsError> {
        self.clients.dns.lookup(&domain(name).below("_mta-sts").unwrap(), Kind::Txt).await
    }
}

/// Fetches the policy of the lab domain with this name, unchanged.
async fn fetch(name: &str) -> Result<Fetched, FetchError> {
    world(&[name], |_| {}).await.fetch(name).await
}

async fn certificate_problem(name: &str) -> Problem {
    match fetch(name).await {
        Err(FetchError::Certificate(problem)) => problem,
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn sts_01_the_record_is_looked_up_below_mta_sts_and_cnames_are_followed() {
    let world = world(&["txt-cname", "good-enforce"], |_| {}).await;
    let direct = world.record("good-enforce").await.unwrap();
    assert!(direct.aliases.is_empty());
    let through = world.record("txt-cname").await.unwrap();
    assert_eq!(through.aliases, [DomainName::parse("_record.txt-cname.test").unwrap()]);
    for answer in [direct, through] {
        assert_eq!(StsRecord::select(answer.texts()).unwrap().id.as_str(), "20260101000000");
    }
}

#[tokio::test]
async fn sts_02_the_strings_of_a_record_are_joined_with_nothing_between_them() {
    let answer = world(&["txt-split"], |_| {}).await.record("txt-split").await.unwrap();
    assert_eq!(answer.texts().collect::<Vec<_>>(), [b"v=STSv1; id=20260101000000;"]);
}

#[tokio::test]
async fn sts_13_the_ways_of_not_getting_a_record_are_told_apart() {
    let names = ["no-mta-sts", "txt-servfail", "txt-timeout", "dane-bogus", "good-enforce"];
    let world = world(&names, |_| {}).await;
    let seen = async |name: &str| world.record(name).await;
    assert!(matches!(seen("no-mta-sts").await, Err(DnsError::NoSuchName(_))));
    let apex = world.clients.dns.lookup(&domain("good-enforce"), Kind::Txt).await;
    assert!(matches!(apex, Err(DnsError::NoSuchRecord(_))), "{apex:?}");
    assert!(matches!(seen("txt-servfail").await, Err(DnsError::ServerFailure(_))));
    assert_eq!(seen("txt-timeout").await, Err(DnsError::Timeout));
    let bogus = world.clients.dns.lookup(&domain("dane-bogus"), Kind::Mx).await;
    assert_eq!(bogus, Err(DnsError::Bogus));
    for (name, absent) in [("no-mta-sts", true), ("txt-servfail", false), ("txt-timeout", false)] {
        assert_eq!(seen(name).await.unwrap_err().is_absence(), absent, "{name}");
    }
}

#[tokio::test]
async fn pol_02_only_status_200_is_valid_and_redirects_are_not_followed() {
    let names = ["http-redirect", "http-404", "http-500", "http-204", "good-enforce"];
    let world = world(&names, |_| {}).await;
    for (name, status) in [("http-redirect", 301), ("http-404", 404), ("http-500", 500), ("http-204", 204)] {
        assert_eq!(world.fetch(name).await.unwrap_err(), FetchError::Status(status), "{name}");
    }
    assert_eq!(world.lab.sites.fetches("mta-sts.good-enforce.test"), 0, "the redirect was followed");
}

#[tokio::test]
async fn pol_03_each_fetch_asks_the_host_itself() {
    let world = world(&["good-enforce"], |_| {}).await;
    for count in 1..=3 {
        world.fetch("good-enforce").await.unwrap();
        assert_eq!(world.lab.sites.fetches("mta-sts.good-enforce.test"), count);
    }
}

#[tokio::test]
async fn pol_04_the_certificate_is_trusted_in_date_and_for_the_policy_host_by_dns_id() {
    assert!(fetch("good-enforce").await.is_ok());
    for (name, problem) in [
        ("cert-expired", Problem::Expired),
        ("cert-not-yet", Problem::NotYetValid),
        ("cert-wrong-name", Problem::WrongName),
        ("cert-cn-only", Problem::WrongName),
        ("cert-self-signed", Problem::UnknownIssuer),
        ("cert-untrusted", Problem::UnknownIssuer),
    ] {
        assert_eq!(certificate_problem(name).await, problem, "{name}");
    }
}

#[tokio::test]
async fn pol_05_a_wildcard_covers_exactly_the_left_most_label() {
    assert!(fetch("cert-wildcard").await.is_ok());
    assert_eq!(certificate_problem("cert-deep-wildcard").await, Problem::WrongName);
}

#[tokio::test]
async fn pol_06_sni_is_the_policy_hosts_name() {
    // The lab's policy hosts share one address and are distinguished by SNI only.
    let world = world(&["good-enforce", "good-testing"], |_| {}).await;
    for name in ["good-enforce", "good-testing"] {
        let body = world.fetch(name).await.unwrap().body;
        assert!(String::from_utf8(body).unwrap().contains(&format!("mx: mx1.{name}.test\r\n")));
        assert_eq!(world.lab.sites.fetches(&format!("mta-sts.{name}.test")), 1);
    }
}

#[tokio::test]
async fn pol_07_tls_older_than_1_2_is_refused() {
    assert!(matches!(fetch("host-tls10").await, Err(FetchError::TlsVersion(_))));
    let version = fetch("good-enforce").await.unwrap().tls_version;
    assert!(["TLSv1_2", "TLSv1_3"].contains(&version.as_str()), "{version}");
}

#[tokio::test]
async fn pol_08_the_media_type_is_text_plain_whatever_its_parameters() {
    assert!(matches!(fetch("http-html").await, Err(FetchError::MediaType(_))));
    for media_type in ["text/plain", "Text/Plain; charset=us-ascii", "text/plain;charset=UTF-8;x=y"] {
        let answers = |case: &mut Case| {
            let HttpBehavior::Policy(body) = &case.setup.answers else { panic!("no policy") };
            case.setup.answers = HttpBehavior::Typed(media_type, body.clone().into_bytes());
        };
        assert!(world(&["good-enforce"], answers).await.fetch("good-enforce").await.is_ok(), "{media_type}");
    }
}

#[tokio::test]
async fn pol_09_a_fetch_ends_in_time_and_one_byte_over_64_kib_is_an_error() {
    let body = |length: usize| {
        move |case: &mut Case| case.setup.answers = HttpBehavior::Typed("text/plain", vec![b'x'; length])
    };
    let just = world(&["good-enforce"], body(POLICY_BYTES)).await;
    assert_eq!(just.fetch("good-enforce").await.unwrap().body.len(), POLICY_BYTES);
    let over = world(&["good-enforce"], body(POLICY_BYTES + 1)).await;
    assert_eq!(over.fetch("good-enforce").await, Err(FetchError::Size));
    for name in ["http-stalls", "http-drips", "host-silent"] {
        assert_eq!(fetch(name).await, Err(FetchError::Time), "{name}");
    }
    assert_eq!(formats::limits::POLICY_FETCH_TIME, Duration::from_secs(60));
}

#[tokio::test]
async fn pol_30_a_compressed_answer_is_an_error() {
    assert_eq!(fetch("http-compressed").await, Err(FetchError::Compressed("gzip".into())));
}

/// Resolves every name to these addresses, the first of which does not respond.
struct Two([Ipv4Addr; 2]);

impl Dns for Two {
    fn lookup<'a>(&'a self, _: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let records = self.0.iter().filter(|_| kind == Kind::A).map(|ip| Data::A(*ip)).collect::<Vec<_>>();
        Box::pin(async move {
            if records.is_empty() {
                return Err(DnsError::Timeout);
            }
            Ok(Answer {
                records,
                ttl: Duration::ZERO,
                security: Security::Insecure,
                aliases: vec![],
                is_split: false,
            })
        })
    }
}

#[tokio::test]
async fn pol_28_an_address_that_hangs_does_not_spend_the_others_time() {
    let world = world(&["good-enforce"], |_| {}).await;
    let hanging = world.lab.fresh_address();
    // When the accept queue of a listener is full, further connections hang.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((hanging, world.lab.https_port).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let attempt = tokio::net::TcpStream::connect(address);
        waiting.push(tokio::time::timeout(Duration::from_millis(30), attempt).await);
    }
    assert!(waiting.iter().any(Result::is_err), "the accept queue does not fill up");
    let dns = Arc::new(Two([hanging, world.lab.policy_host_address()]));
    let config = FetcherConfig {
        trust: world.clients.trust.clone(),
        port: world.lab.https_port,
        allow_special_addresses: true,
        time: Duration::from_secs(20),
        sources: Vec::new(),
    };
    let begun = Instant::now();
    let fetcher = Fetcher::new(config, dns, Arc::new(SystemClock)).unwrap();
    let fetched = fetcher.fetch(&domain("good-enforce")).await.unwrap();
    assert_eq!(fetched.address, IpAddr::V4(world.lab.policy_host_address()));
    assert!(begun.elapsed() < formats::limits::CONNECT_TIME, "the fetch waited for the hanging address");
}

#[tokio::test]
async fn pol_29_a_policy_host_on_a_private_address_is_not_reached_unless_configured() {
    let world = world(&["good-enforce"], |_| {}).await;
    let mut config = FetcherConfig::new(world.clients.trust.clone());
    config.port = world.lab.https_port;
    let fetcher = Fetcher::new(config, world.clients.dns.clone(), Arc::new(SystemClock)).unwrap();
    let refused = fetcher.fetch(&domain("good-enforce")).await;
    assert!(matches!(refused, Err(FetchError::SpecialAddress { .. })), "{refused:?}");
    assert_eq!(world.lab.sites.fetches("mta-sts.good-enforce.test"), 0);
}

#[tokio::test]
async fn rpt_19_reports_are_posted_to_verified_public_hosts_and_redirects_are_not_followed() {
    let names = ["good-enforce", "http-redirect", "cert-expired", "host-refused"];
    let world = world(&names, |_| {}).await;
    let post = |client: Arc<Fetcher>, url: &str, verify| {
        let url = HttpsUrl::parse(url).unwrap();
        async move { client.post(&url, "application/tlsrpt+gzip", Bytes::from_static(b"report"), verify).await }
    };
    let at = |name: &str| format!("https://mta-sts.{name}.test/.well-known/mta-sts.txt");
    let client = world.clients.policies.clone();
    let strict = |name: &str| post(client.clone(), &at(name), Verify::Certificate);
    assert_eq!(strict("good-enforce").await, Ok(200));
    assert_eq!(strict("http-redirect").await, Ok(301));
    assert_eq!(strict("cert-expired").await, Err(PostError::Certificate(Problem::Expired)));
    assert_eq!(post(client.clone(), &at("cert-expired"), Verify::Skip).await, Ok(200));
    assert!(matches!(strict("host-refused").await, Err(PostError::Connect(_))));
    assert!(matches!(strict("no-such").await, Err(PostError::Dns(_))));
    // Outside of a lab, reports are not posted to private addresses, even if a record names them.
    let config = FetcherConfig::new(world.clients.trust.clone());
    let outside = Fetcher::new(config, world.clients.dns.clone(), Arc::new(SystemClock)).unwrap();
    let refused = post(Arc::new(outside), &at("good-enforce"), Verify::Skip).await;
    assert!(matches!(refused, Err(PostError::SpecialAddress(..))), "{refused:?}");
}
