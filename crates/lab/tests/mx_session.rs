//! What the SMTP client sends to an MX host, as the host sees it.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::DomainName;
use formats::tlsa::TlsaRule;
use net::clock::SystemClock;
use net::smtp::{Client, ClientConfig, MailHosts, Target, TlsDemand};
use std::sync::Arc;
use sternpost_lab::pki::Pki;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;

/// Serves a session up to STARTTLS and returns the SNI of the ClientHello.
async fn requested_sni(mut stream: TcpStream) -> Option<String> {
    let mut chunk = [0; 1000];
    for answer in ["220 mx\r\n", "250-mx\r\n250 STARTTLS\r\n", "220 go ahead\r\n"] {
        stream.write_all(answer.as_bytes()).await.unwrap();
        if !answer.starts_with("220 go") {
            assert!(stream.read(&mut chunk).await.unwrap() > 0);
        }
    }
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await.unwrap();
    hello.client_hello().server_name().map(str::to_owned)
}

/// The SNI that a host sees in a session to mx1.example.org with this demand.
async fn sni_with(demand: &TlsDemand) -> Option<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host = tokio::spawn(async move { requested_sni(listener.accept().await.unwrap().0).await });
    let pki = Pki::new(net::clock::Clock::now(&SystemClock)).unwrap();
    let trust = net::certificate::Trust::from_roots([pki.root()]).unwrap();
    let mut config = ClientConfig::new(trust, DomainName::parse("sender.test").unwrap());
    config.port = address.port();
    config.allow_special_addresses = true;
    let client = Client::new(config, Arc::new(SystemClock)).unwrap();
    let target = Target { host: DomainName::parse("mx1.example.org").unwrap(), address: address.ip() };
    let outcome = client.session(&target, demand, None).await;
    assert!(outcome.is_err(), "the host closes the connection after the ClientHello");
    host.await.unwrap()
}

#[tokio::test]
async fn val_05_sni_to_the_mx_is_the_mx_host_name() {
    for demand in [TlsDemand::Pkix, TlsDemand::Encrypt] {
        assert_eq!(sni_with(&demand).await.as_deref(), Some("mx1.example.org"));
    }
}

#[tokio::test]
async fn sni_under_dane_is_the_tlsa_base_domain() {
    let demand = TlsDemand::Dane {
        rule: TlsaRule::EncryptOnly,
        base: DomainName::parse("real.hoster.test").unwrap(),
        next_hop: DomainName::parse("example.org").unwrap(),
    };
    assert_eq!(sni_with(&demand).await.as_deref(), Some("real.hoster.test"));
}
