//! Tests how [`Resolver`] handles a server that is broken in one way (STS-13).

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod broken_server;

use broken_server::{Fault, RECORD, server};
use formats::DomainName;
use std::time::Duration;
use sternpost_net::dns::{Answer, Dns, DnsError, Dnssec, Kind, Resolver, ResolverConfig, Security};

/// A lookup in which each attempt has this many milliseconds.
async fn lookup(fault: Fault, attempt: u64) -> Result<Answer, DnsError> {
    let config = ResolverConfig {
        servers: vec![server(fault).await],
        dnssec: Dnssec::Off,
        attempt_time: Duration::from_millis(attempt),
        ..ResolverConfig::default()
    };
    let name = DomainName::parse("_mta-sts.example.org").unwrap();
    Resolver::new(&config).unwrap().lookup(&name, Kind::Txt).await
}

#[tokio::test]
async fn a_broken_server_never_looks_like_a_negative_answer() {
    for fault in
        [Fault::Silent, Fault::ServFail, Fault::Lame, Fault::WrongId, Fault::TruncatedForGood, Fault::Garbage]
    {
        let outcome = lookup(fault, 300).await;
        let is_failure = outcome.as_ref().is_err_and(|error| !error.is_absence());
        assert!(is_failure, "{fault:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn truncated_answers_are_retried_over_tcp_and_huge_ones_are_bounded() {
    let texts = |answer: &Answer| answer.texts().map(<[u8]>::to_vec).collect::<Vec<_>>();
    let whole = lookup(Fault::Truncated, 10_000).await.unwrap();
    assert_eq!(texts(&whole), [RECORD.as_bytes()]);
    let huge = lookup(Fault::Huge, 10_000).await.unwrap();
    assert_eq!(texts(&huge).len(), 200, "a message of at most 64 KiB holds all of them");
    let uncacheable = lookup(Fault::NoTtl, 10_000).await.unwrap();
    assert_eq!((texts(&uncacheable).len(), uncacheable.ttl), (1, Duration::ZERO));
}

#[tokio::test]
async fn queries_are_sent_from_the_configured_address() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for dnssec in [Dnssec::Off, Dnssec::TrustAd, Dnssec::Validate] {
        let config = ResolverConfig {
            servers: vec![socket.local_addr().unwrap()],
            sources: vec!["::1".parse().unwrap(), "127.0.0.7".parse().unwrap()],
            dnssec,
            ..ResolverConfig::default()
        };
        let resolver = Resolver::new(&config).unwrap();
        let lookup = tokio::spawn(async move {
            resolver.lookup(&DomainName::parse("example.org").unwrap(), Kind::Mx).await
        });
        let (_, from) = socket.recv_from(&mut [0; 512]).await.unwrap();
        assert_eq!(from.ip().to_string(), "127.0.0.7", "{dnssec:?}");
        lookup.abort();
    }
}

#[tokio::test]
async fn a_negative_mx_answer_is_secure_if_a_trusted_resolver_says_so() {
    let security = async |fault, dnssec| {
        let config =
            ResolverConfig { servers: vec![server(fault).await], dnssec, ..ResolverConfig::default() };
        let name = DomainName::parse("example.org").unwrap();
        match Resolver::new(&config).unwrap().lookup(&name, Kind::Mx).await {
            Err(DnsError::NoSuchRecord(absence)) => absence.security,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(security(Fault::ProvenNothing, Dnssec::TrustAd).await, Security::Secure);
    assert_eq!(security(Fault::UnprovenNothing, Dnssec::TrustAd).await, Security::Insecure);
    assert_eq!(security(Fault::ProvenNothing, Dnssec::Off).await, Security::Insecure);
}

#[tokio::test]
async fn a_dropped_query_for_the_zone_does_not_make_a_negative_answer_insecure() {
    let config = ResolverConfig {
        servers: vec![server(Fault::NothingWithSilentSoa).await],
        dnssec: Dnssec::TrustAd,
        attempt_time: Duration::from_millis(300),
        ..ResolverConfig::default()
    };
    let name = DomainName::parse("example.org").unwrap();
    let outcome = Resolver::new(&config).unwrap().lookup(&name, Kind::Mx).await;
    assert!(outcome.as_ref().is_err_and(|error| !error.is_absence()), "{outcome:?}");
}
