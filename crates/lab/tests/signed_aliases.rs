//! Answers about names that are aliases in a signed zone: what is absent at the end is absent, and not bogus.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::DomainName;
use net::dns::{Dns, DnsError, Kind, Resolver, ResolverConfig, Security};
use std::net::Ipv4Addr;
use sternpost_lab::dns::{NameServer, Rr, Signing};

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
