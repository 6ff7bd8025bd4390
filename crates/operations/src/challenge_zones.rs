//! The challenge records of certificate orders, changed in the way in which a domain's other records are changed.

use crate::rollout_context::publisher;
use config::Config;
use formats::DomainName;
use net::BoxFuture;
use net::clock::Clock;
use receiver::domain::{DnsBy, DomainSpec};
use receiver::host::order::{ChallengeType, ChallengeZones};
use receiver::publish::{Change, Records};
use std::sync::Arc;
use std::time::Duration;
use store::{Store, Tenant};

/// How often a change is tried while others change the records of the same name.
const MAX_ATTEMPTS: u32 = 5;

/// Changes challenge records by the settings of domains, from the configuration and the store.
pub struct DomainZones {
    config: Config,
    store: Store,
    clock: Arc<dyn Clock>,
}

impl DomainZones {
    /// Changes the zones of the domains in the configuration and in the store.
    pub fn new(config: Config, store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { config, store, clock }
    }

    /// The settings of a domain, and the tenant that they are of.
    async fn spec(&self, domain: &DomainName) -> Result<Option<(DomainSpec, Tenant)>, String> {
        let owner = self.store.domain_owner(domain).await.map_err(|error| error.to_string())?;
        let tenant = owner.unwrap_or(Tenant::FIRST);
        let in_file = self.config.domains.iter().find(|spec| spec.name == *domain);
        if let Some(spec) = in_file.filter(|_| tenant == Tenant::FIRST) {
            return Ok(Some((spec.clone(), tenant)));
        }
        let stored = self.store.of_tenant(tenant).domain(domain).await;
        Ok(stored.map_err(|error| error.to_string())?.map(|spec| (spec, tenant)))
    }
}

impl ChallengeZones for DomainZones {
    fn choice<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, Result<Option<ChallengeType>, String>> {
        // A domain that was removed while senders may hold its policy keeps its certificate.
        Box::pin(async move { Ok(self.spec(domain).await?.and_then(|(spec, _)| spec.challenge)) })
    }

    fn change<'a>(
        &'a self,
        domain: &'a DomainName,
        change: &'a Change,
    ) -> BoxFuture<'a, Result<Duration, String>> {
        Box::pin(async move {
            let spec = self.spec(domain).await?;
            let (spec, tenant) = spec.ok_or_else(|| format!("{domain} is not a known domain"))?;
            check_zone(&self.config, &spec, tenant, &change.name)?;
            let publisher =
                publisher(&self.config, &self.clock, &spec).map_err(|failure| failure.to_string())?;
            let Some(publisher) = publisher else { return Err(by_hand(&spec, change)) };
            for attempt in 1.. {
                let before = publisher.read(change).await.map_err(|error| error.to_string())?;
                match publisher.put(change, &before).await {
                    Ok(()) => break,
                    // Another order may have changed its value at the same name.
                    Err(error) if error.is_conflict && attempt < MAX_ATTEMPTS => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(publisher.patience())
        })
    }
}

/// Checks that a record is in the zone that a domain's settings change. For a delegated domain it has to be the one name for
/// its challenges: its owner chooses by CNAME where the record is published, and could write to any name in our zone. The same
/// holds for every domain of a tenant other than the first one, whose zones are the operator's.
fn check_zone(config: &Config, spec: &DomainSpec, tenant: Tenant, name: &DomainName) -> Result<(), String> {
    let of_update = |name: &String| config.updates.iter().find(|one| one.name == *name)?.zone.clone();
    let named = match &spec.dns {
        DnsBy::Hand => None,
        DnsBy::Update(name) => of_update(name),
        DnsBy::Provider(service, name) => {
            let is_it = |one: &&config::ProviderSpec| one.service == *service && one.name == *name;
            config.providers.iter().find(is_it).and_then(|one| one.zone.clone())
        }
    };
    let own = config.delegation.as_ref().filter(|_| spec.delegated).unwrap_or(&spec.name);
    let zone = named.unwrap_or_else(|| own.clone());
    let (label, host) = name.as_str().split_once('.').unwrap_or_default();
    let is_of_challenge = ChallengeType::ALL.iter().any(|challenge| challenge.label() == Some(label));
    let delegation = config.delegation.as_ref().filter(|_| spec.delegated);
    let of_customer = format!("mta-sts.{}", spec.name);
    let is_theirs = |zone| {
        is_of_challenge && [format!("{of_customer}.{zone}"), of_customer.clone()].contains(&host.to_owned())
    };
    let is_own = name.is_within(&spec.name);
    let is_refused = match delegation {
        Some(delegation) => !is_theirs(delegation),
        None => tenant != Tenant::FIRST && !is_own && !is_theirs(&zone),
    };
    if is_refused {
        return Err(format!(
            "the aliases of {}'s challenge record lead to {name}, where no challenge of that domain is published",
            spec.name
        ));
    }
    let is_within =
        *name == zone || name.as_str().strip_suffix(zone.as_str()).is_some_and(|head| head.ends_with('.'));
    if is_within {
        return Ok(());
    }
    let alias = match delegation {
        Some(zone) if host == of_customer => {
            format!("; its owner has to publish\n  {name}. CNAME {label}.{host}.{zone}.")
        }
        _ => String::new(),
    };
    Err(format!("{name} is not in the zone {zone}, which is changed for {}{alias}", spec.name))
}

fn by_hand(spec: &DomainSpec, change: &Change) -> String {
    let what = match &change.records {
        Records::TxtValue { is_published: false, .. } => "can't be removed",
        _ => "can't be published",
    };
    format!("the record {} {what}: dns = \"manual\" for {}", change.name, spec.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_writes_no_other_name_into_the_zone_of_the_operator() {
        let text = "store = \"sqlite:s.db\"\n[host]\n[[rfc2136]]\nname = \"ours\"\nserver = \"192.0.2.1:53\"\nkey_name = \"k\"\n\
                    key_file = \"k\"\nzone = \"operator.example\"\n[[domain]]\nname = \"t.example\"\nhost = \"self\"\ndns = \"rfc2136:ours\"\n";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sternpost.toml");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        let verdict = |tenant, name: &str| {
            check_zone(&config, &config.domains[0], tenant, &DomainName::parse(name).unwrap())
        };
        let tenant = Tenant::numbered(1);
        for name in [
            "default._domainkey.operator.example",
            "operator.example",
            "_acme-challenge.mta-sts.other.example.operator.example",
        ] {
            assert!(verdict(tenant, name).unwrap_err().contains("no challenge of that domain"), "{name}");
        }
        assert_eq!(verdict(tenant, "_acme-challenge.mta-sts.t.example.operator.example"), Ok(()));
        assert_eq!(verdict(Tenant::FIRST, "default._domainkey.operator.example"), Ok(()));
    }

    fn verdict(more: &str, name: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sternpost.toml");
        let text = format!(
            "store = \"sqlite:s.db\"\n[host]\n[delegation]\nzone = \"sts.example.net\"\n\
             [[rfc2136]]\nname = \"ours\"\nserver = \"192.0.2.1:53\"\nkey_name = \"k\"\nkey_file = \"k\"\n\
             [[domain]]\nname = \"a.example\"\nhost = \"self\"\ndns = \"rfc2136:ours\"\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file)).unwrap();
        check_zone(&config, &config.domains[0], Tenant::FIRST, &DomainName::parse(name).unwrap())
    }

    #[test]
    fn challenge_records_are_published_only_in_the_zone_of_the_domain() {
        assert_eq!(verdict("", "_acme-challenge.mta-sts.a.example"), Ok(()));
        assert!(verdict("", "_acme-challenge.mta-sts.xa.example").is_err());
        let delegated = "delegated = true\n";
        assert_eq!(verdict(delegated, "_acme-challenge.mta-sts.a.example.sts.example.net"), Ok(()));
        let refused = verdict(delegated, "_acme-challenge.mta-sts.a.example").unwrap_err();
        let alias =
            "_acme-challenge.mta-sts.a.example. CNAME _acme-challenge.mta-sts.a.example.sts.example.net.";
        assert!(refused.contains(alias), "{refused}");
        // The owner of the domain leads the record to another name of our zone.
        for other in [
            "sel._domainkey.sts.example.net",
            "_mta-sts.b.example.sts.example.net",
            "_acme-challenge.mta-sts.b.example.sts.example.net",
            "_acme-challenge.sts.example.net",
            "mta-sts.a.example.sts.example.net",
        ] {
            let refused = verdict(delegated, other).unwrap_err();
            assert!(refused.contains("no challenge of that domain"), "{refused}");
        }
    }
}
