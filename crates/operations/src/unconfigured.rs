//! Domains that have disappeared from the configuration although senders may hold a policy of them: the `[[domain]]` block was
//! deleted, its name was misspelled, or an environment variable replaces all blocks. `config check`, `status` and the guard
//! name them, and the guard goes on watching them. A domain that was removed by `sternpost domains remove` is not missed.

use crate::rollout_context::{RolloutContext, store_failure};
use crate::world::domain;
use config::failure::Failure;
use formats::{DomainName, Mode};
use jiff::Timestamp;
use receiver::domain::{DomainSpec, HostedBy};
use receiver::rollout::RolloutState;
use receiver::rollout::timeline::Reading;
use std::collections::HashSet;

/// A domain that is no longer configured, although senders may hold a policy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfigured {
    /// The name of the domain.
    pub name: DomainName,
    /// The strictest mode of the policies that senders may hold: `enforce` or `testing`.
    pub mode: Mode,
    /// When the last of them ends; `None` while one is served.
    pub until: Option<Timestamp>,
}

impl Unconfigured {
    fn of(name: DomainName, rollout: &RolloutState, now: Timestamp) -> Option<Self> {
        let held = || rollout.published.iter().filter(|one| one.mode != Mode::None && one.is_out(now));
        let mode = match held().any(|one| one.mode == Mode::Enforce) {
            true => Mode::Enforce,
            false => held().next()?.mode,
        };
        let until = rollout.free_of(|one| one.mode != Mode::None).filter(|until| *until < Timestamp::MAX);
        Some(Self { name, mode, until })
    }

    /// Settings to watch the domain by.
    pub(crate) fn spec(&self) -> DomainSpec {
        DomainSpec { mode: self.mode, host: HostedBy::Elsewhere, ..DomainSpec::new(self.name.clone()) }
    }

    /// The finding, in words.
    pub fn what(&self) -> String {
        let until =
            self.until.map_or("which is still published".to_owned(), |until| format!("until {until:.0}"));
        let Self { name, mode, .. } = self;
        format!("{name} is not configured any more, and senders may hold its policy of mode {mode}, {until}")
    }

    /// The consequence for mail, in words.
    pub fn consequence(&self) -> &'static str {
        "nothing maintains the policy: if the MX hosts change, senders refuse mail for the new ones"
    }

    /// The remedy, in words.
    pub fn remedy(&self) -> String {
        let name = &self.name;
        format!(
            "Add the domain to the configuration again. To remove it, first retire its policy:\n  set mode = \"none\" in its [[domain]], then\n  sternpost apply {name}"
        )
    }
}

impl RolloutContext {
    /// The domains of the store's rollout states that are not known, and whose policies senders may hold.
    pub(crate) async fn find_unconfigured(&self) -> Result<Vec<Unconfigured>, Failure> {
        let states = self.store.rollouts::<RolloutState>().await.map_err(|error| store_failure(&error))?;
        let all = self.file_domains().iter().chain(&self.known).map(|spec| spec.name.as_str());
        let known: HashSet<&str> = all.chain(self.damaged.iter().map(|(name, _)| name.as_str())).collect();
        let reading = Reading::of(self.world.clock.as_ref());
        let mut all = Vec::new();
        for (name, state) in states {
            // A state that can't be read is an error of its own domain.
            let (Ok(name), Ok(mut rollout)) = (domain(&name), state) else { continue };
            if rollout.is_given_up && self.is_in_file(&name) {
                self.take_up(&name).await?;
            }
            if known.contains(name.as_str()) || rollout.is_given_up {
                continue;
            }
            rollout.keep_time(&reading);
            all.extend(Unconfigured::of(name, &rollout, reading.now));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout_context::Removal;
    use crate::world::World;
    use config::Config;
    use formats::{MxPattern, Policy};
    use receiver::rollout::observed::ObservedState;
    use std::sync::Arc;
    use store::Store;

    #[tokio::test]
    async fn a_domain_whose_settings_disappeared_is_missed_until_no_sender_can_hold_its_policy() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::parse("[dns]\nservers = [\"127.0.0.1:1\"]\n", None).unwrap();
        let store = Store::open(&folder.path().join("s.db"), store::Tenant::FIRST).await.unwrap();
        let world = Arc::new(World::new(&config).unwrap());
        let mut context = RolloutContext::at(config, store.clone(), world).await.unwrap();
        let name = domain("a.example").unwrap();
        let mx = vec![MxPattern::parse("mx.a.example").unwrap()];
        let enforced = Policy::new(Mode::Enforce, 600, mx).unwrap();
        store.change_rollout(&name, |kept: &mut RolloutState| kept.intend(&enforced)).await.unwrap();
        context.learn().await.unwrap();
        let [missed] = context.unconfigured.as_slice() else { panic!("{:?}", context.unconfigured) };
        assert_eq!((missed.name.as_str(), missed.mode, missed.until), ("a.example", Mode::Enforce, None));
        assert_eq!(context.watched()[0].name, name);
        let failure = context.find(&name).unwrap_err().to_string();
        assert!(failure.contains("is not configured any more"), "{failure}");
        // Nothing is done for it, and once it is configured again it is a domain as before.
        assert!(context.current(&name).await.unwrap().is_none());
        store.put_domain(&name, &DomainSpec::new(name.clone())).await.unwrap();
        context.learn().await.unwrap();
        assert!(context.unconfigured.is_empty());
        // A removal that the operator insists on is not missed.
        context.remove(&name, Removal::AlthoughBound, "operator").await.unwrap();
        // Another process observes it at that moment.
        let spec = DomainSpec::new(name.clone());
        let observe = |kept: &mut RolloutState| {
            kept.observe(&context.desired(&spec), &ObservedState::default(), Timestamp::UNIX_EPOCH);
        };
        store.change_rollout(&name, observe).await.unwrap();
        context.learn().await.unwrap();
        assert!(context.unconfigured.is_empty());
        // Once it is added again, it is missed as any other, whether it was added to the store or to the file.
        let is_given_up = async || context.rollout(&name).await.unwrap().is_given_up;
        context.keep(&spec, "operator").await.unwrap();
        assert!(!is_given_up().await);
        context.remove(&name, Removal::AlthoughBound, "operator").await.unwrap();
        assert!(is_given_up().await);
        let file = "[dns]\nservers = [\"127.0.0.1:1\"]\n[[domain]]\nname = \"a.example\"\n";
        let with_file = Config::parse(file, None).unwrap();
        RolloutContext::at(with_file, store.clone(), context.world.clone()).await.unwrap();
        assert!(!is_given_up().await);
        context.learn().await.unwrap();
        assert_eq!(context.unconfigured.len(), 1);
        // Nor is one that nobody can hold a policy of.
        let ended = |kept: &mut RolloutState| {
            kept.is_given_up = false;
            kept.published[0].until = Some(Timestamp::UNIX_EPOCH);
        };
        store.change_rollout(&name, ended).await.unwrap();
        context.learn().await.unwrap();
        assert!(context.unconfigured.is_empty());
    }
}
