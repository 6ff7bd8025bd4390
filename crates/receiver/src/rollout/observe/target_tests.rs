//! What an observation makes of a policy host whose name servers fail for one address family, or do not agree.

use super::super::desired::PolicyHostAt;
use super::*;
use net::BoxFuture;
use net::dns::{Absence, Security};
use net::https::{FetchError, Fetched};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn none() -> DnsError {
    DnsError::NoSuchRecord(Absence { security: Security::Insecure, ttl: None })
}

fn records(records: Vec<Data>) -> Result<Answer, DnsError> {
    let (ttl, security) = (Duration::from_secs(60), Security::Insecure);
    Ok(Answer { records, ttl, security, aliases: Vec::new(), is_split: false })
}

fn differ(all: Vec<Data>) -> Result<Answer, DnsError> {
    Err(DnsError::Differ { name: name("mta-sts.a.example"), shown: "ns1 and ns2".to_owned(), all })
}

/// The A and AAAA answers for the policy host, and those for `old.example`, which an alias may lead to.
struct Zone {
    v4: Result<Answer, DnsError>,
    v6: Result<Answer, DnsError>,
    old: Result<Answer, DnsError>,
    alias: Option<DomainName>,
    /// How many questions for addresses were asked.
    asked: AtomicU32,
}

impl Dns for Zone {
    fn lookup<'a>(&'a self, asked: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        if asked.as_str() == "mta-sts.a.example" && matches!(kind, Kind::A | Kind::Aaaa) {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        let answer = match (asked.as_str(), kind) {
            ("mta-sts.a.example", Kind::A) => self.v4.clone(),
            ("mta-sts.a.example", Kind::Aaaa) => self.v6.clone(),
            ("mta-sts.a.example", Kind::Cname) => match &self.alias {
                Some(target) => records(vec![Data::Cname(target.clone())]),
                None => Err(none()),
            },
            ("old.example", Kind::A) => self.old.clone(),
            _ => Err(none()),
        };
        Box::pin(std::future::ready(answer))
    }
}

struct NoPolicy;

impl PolicyHosts for NoPolicy {
    fn fetch<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
        Box::pin(std::future::ready(Err(FetchError::Status(404))))
    }
}

fn v4(last: u8) -> Data {
    Data::A([192, 0, 2, last].into())
}

fn v6() -> Data {
    Data::Aaaa("2001:db8::1".parse().unwrap())
}

async fn seen(zone: &Zone) -> Result<ObservedState, LookupError> {
    observe(zone, &NoPolicy, &name("a.example"), &[]).await
}

#[tokio::test]
async fn an_address_family_that_fails_other_than_by_absence_fails_the_look() {
    for error in [DnsError::Timeout, DnsError::Bogus, DnsError::ServerFailure("SERVFAIL".to_owned())] {
        for alias in [None, Some(name("old.example"))] {
            for (a, aaaa) in [
                (records(vec![v4(1)]), Err(error.clone())),
                (Err(error.clone()), records(vec![v6()])),
                (Err(none()), Err(error.clone())),
                (Err(error.clone()), Err(none())),
            ] {
                let zone = Zone {
                    v4: a,
                    v6: aaaa,
                    old: Err(none()),
                    alias: alias.clone(),
                    asked: AtomicU32::new(0),
                };
                let failed = seen(&zone).await.unwrap_err();
                assert_eq!((failed.error, failed.name), (error.clone(), name("mta-sts.a.example")));
            }
        }
    }
    let fine = Zone {
        v4: records(vec![v4(1)]),
        v6: Err(none()),
        old: Err(none()),
        alias: None,
        asked: AtomicU32::new(0),
    };
    assert_eq!(seen(&fine).await.unwrap().policy_host.1.len(), 1);
}

#[tokio::test]
async fn an_alias_into_a_zone_that_does_not_answer_at_all_leads_nowhere_and_stops_no_plan() {
    let silent = || Err(DnsError::Timeout);
    let zone = Zone {
        v4: silent(),
        v6: silent(),
        old: Err(none()),
        alias: Some(name("old.example")),
        asked: AtomicU32::new(0),
    };
    let seen = seen(&zone).await.unwrap();
    assert_eq!(zone.asked.load(Ordering::Relaxed), 2, "once for each address family");
    assert!(seen.policy_host_differs.as_ref().unwrap().contains("old.example can't be looked up"));
    assert!(!seen.points_to(&PolicyHostAt::Alias(name("old.example"))));
    assert_eq!(seen.aliases, [(name("mta-sts.a.example"), name("old.example"))]);
}

#[tokio::test]
async fn addresses_that_only_some_name_servers_show_are_visited_and_the_name_points_nowhere_for_sure() {
    let alias = || Data::Cname(name("old.example"));
    for (a, aaaa, old, expected) in [
        (records(vec![v4(1)]), differ(vec![v6()]), Err(none()), 2),
        (differ(vec![v4(1), v4(2)]), Err(none()), Err(none()), 2),
        (differ(vec![v4(1)]), differ(vec![v6()]), Err(none()), 2),
        // One server still shows the alias to the host before.
        (differ(vec![v4(1), alias()]), differ(vec![alias()]), records(vec![v4(7)]), 2),
        (differ(vec![v4(1), alias()]), differ(vec![alias()]), differ(vec![v4(7), v4(8), v4(1)]), 3),
    ] {
        let zone = Zone { v4: a, v6: aaaa, old, alias: None, asked: AtomicU32::new(0) };
        let seen = seen(&zone).await.unwrap();
        assert_eq!(seen.policy_host.1.len(), expected, "{:?}", seen.policy_host);
        assert!(seen.policy_host_differs.as_ref().unwrap().contains("do not agree"));
        let all = PolicyHostAt::Addresses(seen.policy_host.1.clone());
        for place in [all, PolicyHostAt::Alias(name("old.example")), PolicyHostAt::Operator] {
            assert!(!seen.points_to(&place), "{place:?}");
        }
    }
    // The host that an alias of some servers leads to is not known.
    let a = differ(vec![v4(1), alias()]);
    let zone =
        Zone { v4: a, v6: Err(none()), old: Err(DnsError::Timeout), alias: None, asked: AtomicU32::new(0) };
    assert_eq!(seen(&zone).await.unwrap_err().error, DnsError::Timeout);
}

/// Name servers that differ about the CNAME of one label. Everything else is the same at all of them.
struct Moving(&'static str);

impl Dns for Moving {
    fn lookup<'a>(&'a self, asked: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        let answer = match kind {
            Kind::Cname if asked.as_str() == self.0 => differ(vec![Data::Cname(name("old.example"))]),
            Kind::Cname => records(vec![Data::Cname(name("zone.example"))]),
            Kind::A if asked.as_str() == "mta-sts.a.example" => records(vec![v4(1)]),
            _ => Err(none()),
        };
        Box::pin(std::future::ready(answer))
    }
}

#[tokio::test]
async fn name_servers_that_differ_about_an_alias_stop_no_look_and_the_alias_is_not_there_for_sure() {
    for label in ["_mta-sts.a.example", "mta-sts.a.example", "_smtp._tls.a.example"] {
        let seen = observe(&Moving(label), &NoPolicy, &name("a.example"), &[]).await.unwrap();
        let [(differs, why)] = seen.differing_aliases.as_slice() else { panic!("{seen:?}") };
        assert_eq!((differs, seen.aliases.len()), (&name(label), 2));
        assert!(why.contains("do not agree yet: ns1 and ns2"), "{why}");
        assert!(seen.aliases.iter().all(|(found, _)| *found != name(label)));
        let is_host = label == "mta-sts.a.example";
        assert_eq!(seen.policy_host_differs.is_some(), is_host, "{label}");
        assert_eq!(seen.policy_host.1.len(), 1);
        for place in [PolicyHostAt::Operator, PolicyHostAt::Alias(name("old.example"))] {
            assert_eq!(seen.points_to(&place), !is_host && place == PolicyHostAt::Operator, "{label}");
        }
        // What is awaited says how they differ.
        let spec = crate::domain::DomainSpec::new(name("a.example"));
        let desired = spec.desired(None, None);
        let step = super::super::plan::Step::Delegate(vec![(name(label), name("zone.example"))]);
        let instead = super::super::visible::check_visible(&desired, &step, &seen).unwrap_err();
        assert!(
            instead.contains(&format!("{label} is not the expected CNAME; {label}: the name servers")),
            "{instead}"
        );
    }
}
