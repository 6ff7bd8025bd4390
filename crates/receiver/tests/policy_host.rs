//! Tests the policy host over real TLS, as senders, scanners and old clients use it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::{DomainName, Mode, MxPattern, Policy};
use lab::pki::{Cert, Identity, Pki};
use net::clock::{Clock, SystemClock};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use sternpost_receiver::host::{PolicyHost, SiteCache};
use store::Store;
use store::hosting::StoredCertificate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

struct World {
    address: std::net::SocketAddr,
    client: TlsConnector,
    pki: Pki,
    store: Store,
    site_cache: Arc<SiteCache>,
    _place: tempfile::TempDir,
}

fn certificate(domain: &DomainName, identity: &Identity) -> StoredCertificate {
    StoredCertificate::given(domain.below("mta-sts").unwrap(), identity.chain_pem(), identity.key_pem())
}

async fn world() -> World {
    let pki = Pki::new(SystemClock.now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
    for name in ["a.example", "b.example"] {
        let domain = DomainName::parse(name).unwrap();
        let mx = MxPattern::parse(&format!("mx.{name}")).unwrap();
        let policy = Policy::new(Mode::Testing, 86_400, vec![mx]).unwrap();
        let identity = pki.issue(&format!("mta-sts.{name}"), Cert::Good).unwrap();
        store.put_hosted(&domain, Some(&policy.to_string())).await.unwrap();
        store.put_certificate(&certificate(&domain, &identity)).await.unwrap();
    }
    let clock = Arc::new(SystemClock);
    let site_cache = Arc::new(SiteCache::new(store.clone(), clock).await.unwrap());
    tokio::spawn(PolicyHost::new(site_cache.clone()).unwrap().serve(listener));
    let mut roots = RootCertStore::empty();
    roots.add(pki.root()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier: Arc<dyn ServerCertVerifier> = verifier.build().unwrap();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    World { address, client: TlsConnector::from(Arc::new(config)), pki, store, site_cache, _place: place }
}

async fn ask(world: &World, host: &str, request: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect(world.address).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut stream = world.client.connect(name, stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

const PATH: &str = "/.well-known/mta-sts.txt";

#[tokio::test]
async fn pol_25_each_policy_host_presents_its_own_chain_and_others_get_no_handshake() {
    let world = world().await;
    for domain in ["a.example", "b.example"] {
        let answer = ask(&world, &format!("mta-sts.{domain}"), &request("GET", PATH)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains(&format!("mx: mx.{domain}\r\n")), "{answer}");
    }
    assert!(ask(&world, "mta-sts.c.example", &request("GET", PATH)).await.is_err());
}

#[tokio::test]
async fn pol_27_head_has_no_body_and_other_methods_and_paths_are_refused() {
    let world = world().await;
    let answer = async |method: &str, path: &str| {
        ask(&world, "mta-sts.a.example", &request(method, path)).await.unwrap()
    };
    let head = answer("HEAD", PATH).await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-length: "), "{head}");
    let post = answer("POST", PATH).await;
    assert!(
        post.starts_with("HTTP/1.1 405") && post.to_ascii_lowercase().contains("allow: get, head"),
        "{post}"
    );
    assert!(answer("GET", "/").await.starts_with("HTTP/1.1 404"));
    assert!(answer("GET", "/../etc/passwd").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn garbage_before_and_after_the_handshake_does_not_affect_other_clients() {
    let world = world().await;
    let mut raw = TcpStream::connect(world.address).await.unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = raw.read_to_end(&mut Vec::new()).await;
    let long = format!("GET {PATH} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000));
    let _ = ask(&world, "mta-sts.a.example", &long).await;
    let answer = ask(&world, "mta-sts.a.example", &request("GET", PATH)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_new_domain_is_served_and_an_old_one_dropped_without_a_restart() {
    let world = world().await;
    let get = async |host: &str| ask(&world, host, &request("GET", PATH)).await;
    assert!(get("mta-sts.c.example").await.is_err());
    let domain = DomainName::parse("c.example").unwrap();
    let identity = world.pki.issue("mta-sts.c.example", Cert::Good).unwrap();
    world.store.put_hosted(&domain, Some("version: STSv1\r\nmode: none\r\nmax_age: 1\r\n")).await.unwrap();
    world.store.put_certificate(&certificate(&domain, &identity)).await.unwrap();
    world.site_cache.refresh().await.unwrap();
    assert!(get("mta-sts.c.example").await.unwrap().contains("mode: none"));
    world.store.put_hosted(&domain, None).await.unwrap();
    world.site_cache.refresh().await.unwrap();
    assert!(get("mta-sts.c.example").await.is_err());
}

#[tokio::test]
async fn cached_sites_are_served_when_the_store_fails() {
    let world = world().await;
    let get = async |host: &str| ask(&world, host, &request("GET", PATH)).await;
    get("mta-sts.a.example").await.unwrap();
    world.store.close().await;
    assert!(world.site_cache.refresh().await.is_err());
    assert!(get("mta-sts.a.example").await.unwrap().starts_with("HTTP/1.1 200 OK"));
    assert!(get("mta-sts.b.example").await.is_err());
}

#[tokio::test]
async fn ten_thousand_unknown_names_get_no_handshake_and_evict_no_site() {
    let world = world().await;
    ask(&world, "mta-sts.a.example", &request("GET", PATH)).await.unwrap();
    for number in 0..10_000 {
        assert!(world.site_cache.site(&format!("mta-sts.x{number}.example")).await.is_none());
    }
    world.store.close().await;
    assert!(ask(&world, "mta-sts.a.example", &request("GET", PATH)).await.is_ok());
}
