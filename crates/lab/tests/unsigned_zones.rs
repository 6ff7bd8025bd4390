//! The resolver proves only once that a zone is unsigned, and does not accept unsigned answers without proof.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use formats::DomainName;
use net::dns::{Answer, Dns, DnsError, Kind, Resolver, ResolverConfig, Security};
use std::net::Ipv4Addr;
use std::time::Duration;
use sternpost_lab::dns::{ForgedAuthority, NameServer, Rr, Signing, TamperedKind, Tampering};

struct World {
    names: NameServer,
    resolver: Resolver,
}

async fn world() -> World {
    let names = NameServer::start(Ipv4Addr::LOCALHOST, 0).await.unwrap();
    for (zone, signing) in [
        ("plain.test.", Signing::Unsigned),
        ("signed.test.", Signing::Signed),
        ("broken.test.", Signing::Bogus),
        ("below.plain.test.", Signing::Signed),
    ] {
        names.add_zone(zone, signing).unwrap();
        let records = ["a", "b", "c", "_service"]
            .map(|host| (format!("{host}.{zone}"), vec![Rr::A(Ipv4Addr::LOCALHOST)]));
        names.set_all(zone, records.to_vec()).unwrap();
    }
    for (alias, target) in [("good", "a.signed.test."), ("bad", "a.broken.test."), ("own", "a.plain.test.")] {
        names.set(&format!("{alias}.plain.test."), vec![Rr::Cname(target.to_owned())]).unwrap();
    }
    let config = ResolverConfig {
        servers: vec![names.address],
        trust_anchor: Some(names.trust_anchor().unwrap()),
        ..ResolverConfig::default()
    };
    World { resolver: Resolver::new(&config).unwrap(), names }
}

impl World {
    async fn look(&self, name: &str) -> Result<Answer, DnsError> {
        self.resolver.lookup(&DomainName::parse(name).unwrap(), Kind::A).await
    }

    async fn security(&self, name: &str) -> Security {
        self.look(name).await.unwrap().security
    }

    /// Waits until the zones of the answers so far are known.
    async fn learned(&self) {
        while self.resolver.is_learning() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes all further DS queries for a zone fail, so that nothing can be proven about it.
    fn withhold(&self, zone: &str) {
        self.names.meddle(zone, TamperedKind::Ds, Some(Tampering::ServFail)).unwrap();
    }
}

#[tokio::test]
async fn without_a_proof_no_answer_is_accepted() {
    let world = world().await;
    world.withhold("plain.test.");
    let outcome = world.look("a.plain.test").await;
    assert!(outcome.as_ref().is_err_and(|error| !error.is_absence()), "{outcome:?}");
}

#[tokio::test]
async fn one_proof_serves_the_whole_zone() {
    for first in ["nothing.plain.test", "_service.plain.test"] {
        let world = world().await;
        let outcome = world.look(first).await;
        assert_eq!(outcome.is_err(), first.starts_with("nothing"), "{outcome:?}");
        world.learned().await;
        world.withhold("plain.test.");
        assert_eq!(world.security("b.plain.test").await, Security::Insecure, "after {first}");
        assert_eq!(world.security("a.below.plain.test").await, Security::Insecure, "after {first}");
        let nothing = world.look("c.b.plain.test").await.unwrap_err().nothing().unwrap();
        assert_eq!(nothing.security, Security::Insecure);
    }
}

#[tokio::test]
async fn a_proof_for_a_host_covers_the_host_and_names_below_it() {
    let world = world().await;
    assert_eq!(world.security("a.plain.test").await, Security::Insecure);
    assert_eq!(world.security("own.plain.test").await, Security::Insecure);
    world.withhold("plain.test.");
    let below = world.look("_mta-sts.a.plain.test").await.unwrap_err().nothing().unwrap();
    assert_eq!(below.security, Security::Insecure);
    for unproven in ["b.plain.test", "_mta-sts.own.plain.test"] {
        let outcome = world.look(unproven).await;
        assert!(outcome.as_ref().is_err_and(|error| !error.is_absence()), "{unproven}: {outcome:?}");
    }
}

#[tokio::test]
async fn the_zone_of_siblings_is_determined_and_covers_the_others() {
    let world = world().await;
    assert_eq!(world.security("a.plain.test").await, Security::Insecure);
    assert_eq!(world.security("b.plain.test").await, Security::Insecure);
    world.learned().await;
    world.withhold("plain.test.");
    assert_eq!(world.security("c.plain.test").await, Security::Insecure);
}

#[tokio::test]
async fn an_answer_never_waits_for_the_look_up_of_its_zone() {
    let world = world().await;
    assert_eq!(world.security("a.plain.test").await, Security::Insecure);
    for zone in ["plain.test.", "b.plain.test.", "c.plain.test."] {
        world.names.meddle(zone, TamperedKind::Soa, Some(Tampering::Drop)).unwrap();
    }
    // The answers come while the SOA query, which nobody answers, is still on its way.
    assert_eq!(world.security("b.plain.test").await, Security::Insecure);
    assert!(world.resolver.is_learning(), "the answer has waited for the zone");
    assert_eq!(world.security("c.plain.test").await, Security::Insecure);
    assert!(world.resolver.is_learning(), "the answer has waited for the zone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_look_ups_of_names_in_one_domain_are_all_answered() {
    for zone in ["plain.test", "signed.test"] {
        let world = world().await;
        let names =
            ["", "_mta-sts.", "mta-sts.", "_tls.", "default._bimi."].map(|label| format!("{label}{zone}"));
        let looks = futures_util::future::join_all(names.iter().map(|name| world.look(name))).await;
        let expected = if zone == "plain.test" { Security::Insecure } else { Security::Secure };
        for (name, outcome) in names.iter().zip(looks) {
            let nothing = outcome.as_ref().err().and_then(DnsError::nothing);
            assert_eq!(nothing.map(|nothing| nothing.security), Some(expected), "{name}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn signed_sibling_zones_are_still_validated() {
    let world = world().await;
    assert_eq!(world.security("a.plain.test").await, Security::Insecure);
    assert_eq!(world.security("a.signed.test").await, Security::Secure);
    assert_eq!(world.look("a.broken.test").await, Err(DnsError::Bogus));
    let forged = Tampering::Forge(vec![Rr::A(Ipv4Addr::new(127, 0, 0, 66))]);
    world.names.meddle("b.signed.test.", TamperedKind::A, Some(forged)).unwrap();
    assert_eq!(world.look("b.signed.test").await, Err(DnsError::Bogus));
    world.names.meddle("c.signed.test.", TamperedKind::A, Some(Tampering::Suppress)).unwrap();
    assert_eq!(world.look("c.signed.test").await, Err(DnsError::Bogus));
}

fn forged(zone: &str, authority: ForgedAuthority, no_such_name: bool) -> Tampering {
    Tampering::ForgeAbsence { zone: zone.to_owned(), authority, no_such_name }
}

#[tokio::test]
async fn an_unsigned_soa_record_of_another_zone_proves_no_absence() {
    for kind in [TamperedKind::Tlsa, TamperedKind::Mx, TamperedKind::A] {
        let world = world().await;
        let asked = match kind {
            TamperedKind::Tlsa => Kind::Tlsa,
            TamperedKind::Mx => Kind::Mx,
            _ => Kind::A,
        };
        for zone in ["plain.test.", "signed.test.", "test.", "a.signed.test.", "c.a.signed.test.", "."] {
            for no_such_name in [false, true] {
                let how = forged(zone, ForgedAuthority::Soa, no_such_name);
                world.names.meddle("a.signed.test.", kind, Some(how)).unwrap();
                let name = DomainName::parse("a.signed.test").unwrap();
                let outcome = world.resolver.lookup(&name, asked).await;
                let is_absence = outcome.as_ref().err().is_some_and(DnsError::is_absence);
                assert!(outcome.is_err() && !is_absence, "{kind:?}, SOA of {zone}: {outcome:?}");
            }
        }
        // The same SOA record is valid for a name in its own zone.
        for no_such_name in [false, true] {
            let how = forged("plain.test.", ForgedAuthority::Soa, no_such_name);
            world.names.meddle("b.plain.test.", kind, Some(how)).unwrap();
            let name = DomainName::parse("b.plain.test").unwrap();
            let nothing = world.resolver.lookup(&name, asked).await.unwrap_err().nothing().unwrap();
            assert_eq!(nothing.security, Security::Insecure);
        }
    }
}

#[tokio::test]
async fn the_target_of_an_alias_is_validated() {
    let world = world().await;
    assert_eq!(world.security("a.plain.test").await, Security::Insecure);
    assert_eq!(world.security("own.plain.test").await, Security::Insecure);
    assert_eq!(world.security("good.plain.test").await, Security::Insecure);
    assert_eq!(world.look("bad.plain.test").await, Err(DnsError::Bogus));
}

#[tokio::test]
async fn an_unsigned_ns_record_proves_no_absence() {
    for (kind, asked) in
        [(TamperedKind::Tlsa, Kind::Tlsa), (TamperedKind::Mx, Kind::Mx), (TamperedKind::A, Kind::A)]
    {
        let world = world().await;
        let name = |text: &str| DomainName::parse(text).unwrap();
        for (zone, no_such_name) in
            [("plain.test.", false), ("plain.test.", true), ("signed.test.", false), (".", true)]
        {
            let how = |zone: &str| forged(zone, ForgedAuthority::Ns, no_such_name);
            world.names.meddle("a.signed.test.", kind, Some(how(zone))).unwrap();
            let outcome = world.resolver.lookup(&name("a.signed.test"), asked).await;
            let is_absence = outcome.as_ref().err().is_some_and(DnsError::is_absence);
            assert!(outcome.is_err() && !is_absence, "{kind:?}, NS of {zone}: {outcome:?}");
            // In an unsigned zone such an answer counts: real servers leave the SOA record out.
            world.names.meddle("b.plain.test.", kind, Some(how("plain.test."))).unwrap();
            let absence = world.resolver.lookup(&name("b.plain.test"), asked).await.unwrap_err().nothing();
            assert_eq!(absence.map(|absence| absence.security), Some(Security::Insecure), "{kind:?}");
        }
    }
}
