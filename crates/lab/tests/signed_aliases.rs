//! Answers about names that are aliases in a signed zone: what is absent at the end is absent, and not bogus.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::DomainName;
use formats::limits::{ALIASES, LOOKUP_QUERIES};
use net::clock::SystemClock;
use net::dns::{Dns, DnsError, Kind, Resolver, ResolverConfig, Security};
use std::net::Ipv4Addr;
use std::sync::Arc;
use sternpost_lab::dns::{NameServer, Rr, Signing};
use sternpost_lab::man_in_the_middle::{DnsAttack, DnsChange, DnsProxy, RecordType, Target, When};
use sternpost_lab::traffic::Traffic;

#[tokio::test]
async fn an_alias_to_a_host_without_ipv6_is_no_failure_of_validation() {
    let names = NameServer::start(Ipv4Addr::LOCALHOST, 0).await.unwrap();
    for (zone, signing) in
        [("own.test.", Signing::Signed), ("other.test.", Signing::Signed), ("plain.test.", Signing::Unsigned)]
    {
        names.add_zone(zone, signing).unwrap();
        names.set(&format!("policy.{zone}"), vec![Rr::A(Ipv4Addr::LOCALHOST)]).unwrap();
    }
    let targets = [
        ("own.test", Security::Secure),
        ("other.test", Security::Secure),
        ("plain.test", Security::Insecure),
    ];
    for (zone, _) in targets {
        let alias = format!("mta-sts.{zone}.own.test.");
        names.set(&alias, vec![Rr::Cname(format!("policy.{zone}."))]).unwrap();
    }
    let config = ResolverConfig {
        servers: vec![names.address],
        trust_anchor: Some(names.trust_anchor().unwrap()),
        ..ResolverConfig::default()
    };
    for (zone, expected) in targets {
        let name = DomainName::parse(&format!("mta-sts.{zone}.own.test")).unwrap();
        for kind in [Kind::Aaaa, Kind::Ns, Kind::Txt, Kind::Tlsa, Kind::Mx] {
            // What one question taught must not help the next.
            let resolver = Resolver::new(&config).unwrap();
            match resolver.lookup(&name, kind).await {
                Err(DnsError::NoSuchRecord(absence)) => {
                    assert_eq!(absence.security, expected, "{name} {kind:?}")
                }
                other => panic!("{name} {kind:?}: {other:?}"),
            }
            let found = resolver.lookup(&name, Kind::A).await.unwrap();
            assert_eq!((found.security, found.aliases.len()), (expected, 1), "{name}");
        }
    }
}

/// A chain of aliases in a signed zone, which ends with an address or, for an owner outside the zone, with that.
fn chain(owners: &[String]) -> Vec<(String, Vec<Rr>)> {
    owners.windows(2).map(|pair| (pair[0].clone(), vec![Rr::Cname(pair[1].clone())])).collect()
}

#[tokio::test]
async fn a_chain_of_as_many_aliases_as_other_resolvers_follow_is_secure() {
    let names = NameServer::start(Ipv4Addr::LOCALHOST, 0).await.unwrap();
    names.add_zone("chain.test.", Signing::Signed).unwrap();
    let owners: Vec<String> = (0..=ALIASES + 1).map(|number| format!("a{number}.chain.test.")).collect();
    let mut records = chain(&owners);
    records.push((format!("a{}.chain.test.", ALIASES + 1), vec![Rr::A(Ipv4Addr::LOCALHOST)]));
    names.set_all("chain.test.", records).unwrap();
    let config = ResolverConfig {
        servers: vec![names.address],
        trust_anchor: Some(names.trust_anchor().unwrap()),
        ..ResolverConfig::default()
    };
    let look = async |first: usize| {
        let name = DomainName::parse(&format!("a{first}.chain.test")).unwrap();
        Resolver::new(&config).unwrap().lookup(&name, Kind::A).await
    };
    let found = look(1).await.unwrap();
    assert_eq!((found.security, found.aliases.len()), (Security::Secure, ALIASES));
    assert!(look(0).await.is_err_and(|error| !error.is_absence()), "one more");
}

/// Whoever publishes long names must not be able to cause a thousand queries by one of them.
#[tokio::test]
async fn aliases_with_many_labels_and_a_bogus_end_cause_a_bounded_number_of_queries() {
    let names = NameServer::start(Ipv4Addr::LOCALHOST, 0).await.unwrap();
    names.add_zone("deep.test.", Signing::Signed).unwrap();
    names.add_zone("bogus.test.", Signing::Bogus).unwrap();
    names.set("mx.bogus.test.", vec![Rr::A(Ipv4Addr::LOCALHOST)]).unwrap();
    let deep = |number: usize| format!("{}n{number}.deep.test.", "a.".repeat(115));
    let owners: Vec<String> = (0..8).map(deep).chain(["mx.bogus.test.".to_owned()]).collect();
    names.set_all("deep.test.", chain(&owners)).unwrap();
    let traffic = Traffic::new(Arc::new(SystemClock));
    let proxy = DnsProxy::start(Ipv4Addr::LOCALHOST, names.address, traffic).await.unwrap();
    let config = ResolverConfig {
        servers: vec![proxy.address],
        trust_anchor: Some(names.trust_anchor().unwrap()),
        ..ResolverConfig::default()
    };
    let name = DomainName::parse(owners[0].trim_end_matches('.')).unwrap();
    let outcome = Resolver::new(&config).unwrap().lookup(&name, Kind::A).await;
    assert!(outcome.as_ref().is_err_and(|error| !error.is_absence()), "{outcome:?}");
    let questions = proxy.traffic().questions();
    let soa = questions.iter().filter(|asked| asked.kind == RecordType::SOA).count();
    assert!(soa <= LOOKUP_QUERIES, "{soa} of {}", questions.len());
}

/// RFC 6672 §5.3.1: the CNAME record that is made of a DNAME record has no signature.
#[tokio::test]
async fn names_below_a_dname_record_are_as_secure_as_the_record_and_their_target() {
    let names = NameServer::start(Ipv4Addr::LOCALHOST, 0).await.unwrap();
    for (zone, signing) in [
        ("old.test.", Signing::Signed),
        ("bare.test.", Signing::Signed),
        ("new.test.", Signing::Signed),
        ("plain.test.", Signing::Unsigned),
    ] {
        names.add_zone(zone, signing).unwrap();
        names.set(&format!("mx.{zone}"), vec![Rr::A(Ipv4Addr::LOCALHOST)]).unwrap();
    }
    names.set("to-new.old.test.", vec![Rr::Dname("new.test.".into())]).unwrap();
    names.set("to-plain.old.test.", vec![Rr::Dname("plain.test.".into())]).unwrap();
    let traffic = Traffic::new(Arc::new(SystemClock));
    let proxy = DnsProxy::start(Ipv4Addr::LOCALHOST, names.address, traffic).await.unwrap();
    let config = ResolverConfig {
        servers: vec![proxy.address],
        trust_anchor: Some(names.trust_anchor().unwrap()),
        ..ResolverConfig::default()
    };
    for (owner, target, expected) in [
        ("mx.to-new.old.test", "mx.new.test.", Some(Security::Secure)),
        ("mx.to-plain.old.test", "mx.plain.test.", Some(Security::Insecure)),
        // There is no DNAME record above.
        ("mx.bare.test", "mx.plain.test.", None),
        ("mx.to.bare.test", "mx.plain.test.", None),
    ] {
        let records = vec![Rr::Cname(target.into())];
        let how = DnsChange::Forge { records, ttl: 300, keeps_signatures: false };
        let on = Target::Name(format!("{owner}."));
        proxy.attack(vec![DnsAttack { on, kind: None, when: When::Always, how }]);
        let name = DomainName::parse(owner).unwrap();
        for kind in [Kind::A, Kind::Tlsa] {
            match (Resolver::new(&config).unwrap().lookup(&name, kind).await, expected) {
                (Ok(answer), Some(expected)) => assert_eq!(answer.security, expected, "{owner}"),
                (Err(error), Some(expected)) => {
                    assert_eq!(
                        error.nothing().map(|nothing| nothing.security),
                        Some(expected),
                        "{owner} {kind:?}"
                    );
                }
                (outcome, None) => assert_eq!(outcome, Err(DnsError::Bogus), "{owner} {kind:?}"),
            }
        }
        let found = Resolver::new(&config).unwrap().lookup(&name, Kind::A).await;
        assert_eq!(found.is_ok(), expected.is_some(), "{owner}");
    }
}
