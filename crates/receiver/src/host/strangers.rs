//! Domains whose owners point their policy host here although it has no policy for them. [`Strangers`] counts the refused
//! connections of each name in memory; [`StrangerWatch`] stores those that really point here.
//!
//! Anyone can connect with any name. So what is in memory is bounded, and a name is stored only if the DNS points it here, which
//! takes a zone for each name.

use crate::rollout::desired::PolicyHostAt;
use formats::DomainName;
use net::clock::Clock;
use net::dns::{Dns, DnsError, host_addresses};
use net::https::policy_host;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::{Store, StoreError};

/// The maximum number of names in memory between two rounds.
const MAX_NAMES: usize = 1000;
/// The maximum number of names that are looked up in a round.
const MAX_LOOKUPS: usize = 60;
/// What the name of a policy host begins with.
const PREFIX: &str = "mta-sts.";

/// Refused connections since the last round, by domain.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<BTreeMap<DomainName, u64>>);

impl Strangers {
    /// Counts a connection with this host name, for which there is no policy. Names that no policy host can have, and new ones
    /// beyond a maximum, are left out.
    pub(super) fn note(&self, host: &str) {
        let (head, domain) = host.split_at_checked(PREFIX.len()).unwrap_or_default();
        let Some(Ok(domain)) = head.eq_ignore_ascii_case(PREFIX).then(|| DomainName::parse(domain)) else {
            return;
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = all.len() >= MAX_NAMES;
        match all.get_mut(&domain) {
            Some(requests) => *requests = requests.saturating_add(1),
            None if is_full => {}
            None => drop(all.insert(domain, 1)),
        }
    }

    /// Takes what was counted.
    fn take(&self) -> BTreeMap<DomainName, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// True if the policy host of a domain points to this target. False also where that can't be known.
///
/// # Errors
///
/// If the name can't be resolved.
pub(super) async fn points_to(
    dns: &dyn Dns,
    target: &PolicyHostAt,
    host: &DomainName,
) -> Result<bool, DnsError> {
    let found = host_addresses(dns, host).await?;
    Ok(match target {
        PolicyHostAt::Alias(name) => found.aliases.contains(name),
        PolicyHostAt::Operator => true,
        PolicyHostAt::Addresses(all) => found.addresses.iter().any(|ip| all.contains(ip)),
    })
}

/// Stores the domains that point here.
pub struct StrangerWatch {
    /// What the policy host counts.
    pub strangers: Arc<Strangers>,
    /// Where they are stored.
    pub store: Store,
    /// Resolves their policy hosts.
    pub dns: Arc<dyn Dns>,
    /// The source of the current time.
    pub clock: Arc<dyn Clock>,
    /// Where policy hosts point that are served here.
    pub target: PolicyHostAt,
}

impl StrangerWatch {
    /// The watch, if it can be known which names point here.
    pub fn new(
        strangers: Arc<Strangers>,
        store: Store,
        dns: Arc<dyn Dns>,
        clock: Arc<dyn Clock>,
        target: Option<PolicyHostAt>,
    ) -> Option<Self> {
        let target = target.filter(|target| *target != PolicyHostAt::Operator)?;
        Some(Self { strangers, store, dns, clock, target })
    }

    /// Stores the domains that point here, of those that were counted since the last round.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn round(&self) -> Result<(), StoreError> {
        let mut here = Vec::new();
        for (domain, requests) in self.strangers.take().into_iter().take(MAX_LOOKUPS) {
            let Ok(host) = policy_host(&domain) else { continue };
            if points_to(self.dns.as_ref(), &self.target, &host).await.unwrap_or(false) {
                here.push((domain, requests));
            }
        }
        self.store.add_strangers(&here, self.clock.now()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use net::BoxFuture;
    use net::clock::ManualClock;
    use net::dns::{Answer, Data, Kind, Security};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    /// `mta-sts.customerN.example` is an alias of ours, all other names lead elsewhere.
    #[derive(Default)]
    struct Zones(AtomicUsize);

    impl Dns for Zones {
        fn lookup<'a>(
            &'a self,
            asked: &'a DomainName,
            kind: Kind,
        ) -> BoxFuture<'a, Result<Answer, DnsError>> {
            if kind == Kind::A {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            let is_here = asked.as_str().starts_with("mta-sts.customer");
            let target = if is_here { "policy.example" } else { "elsewhere.example" };
            let answer = match kind {
                Kind::A => Ok(Answer {
                    records: vec![Data::A([192, 0, 2, 1].into())],
                    ttl: Duration::from_secs(60),
                    security: Security::Insecure,
                    aliases: vec![name(target)],
                    is_split: false,
                }),
                _ => Err(DnsError::Timeout),
            };
            Box::pin(std::future::ready(answer))
        }
    }

    async fn watch(target: PolicyHostAt) -> (tempfile::TempDir, Arc<Zones>, StrangerWatch) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let zones = Arc::new(Zones::default());
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_800_000_000).unwrap()));
        let strangers = Arc::new(Strangers::default());
        let watch = StrangerWatch { strangers, store, dns: zones.clone(), clock, target };
        (folder, zones, watch)
    }

    #[tokio::test]
    async fn only_domains_whose_policy_host_points_here_are_stored() {
        for target in [
            PolicyHostAt::Alias(name("policy.example")),
            PolicyHostAt::Addresses(vec![[192, 0, 2, 1].into()]),
        ] {
            let is_alias = matches!(target, PolicyHostAt::Alias(_));
            let (_folder, _, watch) = watch(target).await;
            for host in ["mta-sts.customer1.example", "MTA-STS.Customer1.Example", "mta-sts.other.example"] {
                watch.strangers.note(host);
            }
            for host in
                ["", "mta-sts.", "mta-sts", "www.example.org", "mta-sts.-", "mta-stß.example", "192.0.2.1"]
            {
                watch.strangers.note(host);
            }
            watch.round().await.unwrap();
            let found = watch.store.strangers(9).await.unwrap();
            let found: Vec<(&str, u64)> =
                found.iter().map(|one| (one.domain.as_str(), one.requests)).collect();
            let expected = [("customer1.example", 2), ("other.example", 1)];
            assert_eq!(found, expected[..if is_alias { 1 } else { 2 }]);
        }
    }

    #[tokio::test]
    async fn a_flood_of_names_costs_a_bounded_number_of_lookups_and_rows() {
        let (_folder, zones, watch) = watch(PolicyHostAt::Alias(name("policy.example"))).await;
        for number in 0..5000 {
            watch.strangers.note(&format!("mta-sts.customer{number}.example"));
        }
        watch.round().await.unwrap();
        assert_eq!(zones.0.load(Ordering::Relaxed), MAX_LOOKUPS);
        assert_eq!(watch.store.strangers(u32::MAX).await.unwrap().len(), MAX_LOOKUPS);
        assert!(watch.strangers.take().is_empty());
    }
}
