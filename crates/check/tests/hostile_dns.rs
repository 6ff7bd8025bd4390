//! Checks over broken DNS servers: each check ends in time, reports that its result is incomplete, and does not
//! mistake a failure for the absence of a record.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../net/tests/broken_server/mod.rs"]
mod broken_server;

use broken_server::{Fault, server};
use formats::DomainName;
use lab::{Lab, Ports};
use net::clock::{Clock, SystemClock};
use net::dns::{AuthoritativeServers, Dns, Dnssec, Resolver, ResolverConfig};
use net::https::{Fetcher, FetcherConfig};
use std::sync::Arc;
use std::time::Duration;
use sternpost_check::{Checker, Examination, Options, Sessions};

async fn examine(lab: &Lab, fault: Fault, dnssec: Dnssec) -> Examination {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let clients = lab.clients("checker.test", clock.clone()).unwrap();
    let server = server(fault).await;
    let config = ResolverConfig {
        servers: vec![server],
        dnssec,
        trust_anchor: Some(lab.names.trust_anchor().unwrap()),
        attempt_time: Duration::from_millis(50),
        ..ResolverConfig::default()
    };
    let dns: Arc<dyn Dns> = Arc::new(Resolver::new(&config).unwrap());
    let fetcher = Fetcher::new(FetcherConfig::new(clients.trust.clone()), dns.clone(), clock.clone());
    let checker = Checker {
        unvalidated: dns.clone(),
        servers: Some(Arc::new(AuthoritativeServers::new(dns.clone(), server.port(), true))),
        dns,
        visits: Arc::new(fetcher.unwrap()),
        mail: Sessions::new(clients.probes, false),
        clock,
        options: Options { allow_special: true, ..Options::default() },
    };
    let domain = DomainName::parse("example.org").unwrap();
    let examination = tokio::time::timeout(Duration::from_secs(300), checker.examine(&domain)).await;
    examination.unwrap_or_else(|_| panic!("{fault:?} delays the check for minutes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_dns_makes_a_check_incomplete_and_is_not_reported_as_absence() {
    let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
    for dnssec in [Dnssec::Off, Dnssec::Validate] {
        for fault in [
            Fault::Silent,
            Fault::ServFail,
            Fault::Lame,
            Fault::WrongId,
            Fault::TruncatedForGood,
            Fault::Garbage,
        ] {
            let seen = examine(&lab, fault, dnssec).await;
            assert!(seen.is_incomplete(), "{fault:?}, {dnssec:?}: {seen:?}");
            assert!(
                seen.verdict.starts_with("Could not determine"),
                "{fault:?}, {dnssec:?}: {}",
                seen.verdict
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_findings_about_oversized_answers_are_bounded() {
    let lab = Lab::start(Ports::free(), SystemClock.now()).await.unwrap();
    for fault in [Fault::Huge, Fault::NoTtl, Fault::Truncated] {
        let seen = examine(&lab, fault, Dnssec::Off).await;
        let size: usize = seen
            .findings
            .iter()
            .flat_map(|finding| finding.evidence.iter().chain(&finding.remedy).chain([&finding.what]))
            .map(String::len)
            .sum();
        assert!(size < 64 << 10, "{fault:?} makes {size} bytes: {seen:?}");
        assert!(!seen.verdict.starts_with("example.org is protected"), "{}", seen.verdict);
    }
}
