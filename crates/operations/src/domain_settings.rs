//! Changes of the domains in the store: settings are stored, and domains removed, each with an entry in the journal. Commands make
//! any change; the API can make one for a version of the settings that was read before.

use crate::ownership::OwnershipState;
use crate::rollout_context::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::{DomainName, Mode};
use receiver::domain::DomainSpec;
use receiver::rollout::RolloutState;
use store::domains::{Expected, NewSettings};

impl RolloutContext {
    /// Stores the settings of a domain, and records the change in its journal.
    pub async fn keep(&self, spec: &DomainSpec, who: &str) -> Result<(), Failure> {
        self.keep_if(spec, Expected::Any, who).await.map(drop)
    }

    /// As [`Self::keep`], if the stored settings are as expected. False if they are not.
    pub async fn keep_if(
        &self,
        spec: &DomainSpec,
        expected: Expected<'_>,
        who: &str,
    ) -> Result<bool, Failure> {
        self.only_in_store(&spec.name)?;
        self.fits(spec)?;
        if self.is_of_first() && self.known_ownership(&spec.name).await? == OwnershipState::OfOther {
            return Err(self.owned_by_other(&spec.name));
        }
        let fail = |error| store_failure(&error);
        if !self.store.put_domain_if(&spec.name, spec, expected).await.map_err(fail)? {
            return Ok(false);
        }
        self.take_up(&spec.name).await?;
        let now = self.world.clock.now();
        self.store.journal(&spec.name, now, who, &settings_entry(spec)).await.map_err(fail)?;
        Ok(true)
    }

    /// As [`Self::keep`], for many domains at once, all of them checked by [`Self::only_in_store`] and [`Self::fits`].
    pub async fn keep_all(&self, specs: &[DomainSpec], who: &str) -> Result<(), Failure> {
        let fail = |error| store_failure(&error);
        let settings = |spec: &DomainSpec| {
            let text = serde_json::to_string(spec).map_err(|error| {
                Failure::new(format!("the settings of {} can't be stored", spec.name), error, "")
            })?;
            Ok(NewSettings { name: spec.name.to_string(), spec: text, journal: settings_entry(spec) })
        };
        let new = specs.iter().map(settings).collect::<Result<Vec<_>, Failure>>()?;
        self.store.put_domains(&new, self.world.clock.now(), who).await.map_err(fail)?;
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let rollouts = self.store.rollouts_of::<RolloutState>(&names).await.map_err(fail)?;
        for spec in specs {
            let stored = rollouts.get(spec.name.as_str());
            // A state that can't be read is reported where it is needed.
            if matches!(stored, Some(Ok(rollout)) if rollout.is_given_up) {
                self.take_up(&spec.name).await?;
            }
        }
        Ok(())
    }

    /// Removes a domain from the store. Its journal is kept.
    pub async fn remove(&self, name: &DomainName, removal: Removal, who: &str) -> Result<(), Failure> {
        self.remove_if(name, removal, Expected::Any, who).await.map(drop)
    }

    /// As [`Self::remove`], if the stored settings are as expected. False if they are not.
    pub async fn remove_if(
        &self,
        name: &DomainName,
        removal: Removal,
        expected: Expected<'_>,
        who: &str,
    ) -> Result<bool, Failure> {
        self.only_in_store(name)?;
        let rollout = self.rollout(name).await?;
        let now = self.world.clock.now();
        let bound = rollout.published.iter().any(|promise| promise.mode != Mode::None && promise.is_out(now));
        if bound && removal == Removal::Free {
            return Err(Failure::finding(
                format!("{name} is not removed"),
                "senders may still hold its policy, which would no longer be maintained",
                format!(
                    "Retire it first:\n  sternpost domains set {name} --mode none\n  sternpost apply {name}\nor remove it with --although-bound (over HTTP: ?although_bound=true)."
                ),
            ));
        }
        let fail = |error| store_failure(&error);
        if !self.store.remove_domain_if(name, expected).await.map_err(fail)? && expected != Expected::Any {
            return Ok(false);
        }
        if bound {
            let give_up = |kept: &mut RolloutState| kept.is_given_up = true;
            self.store.change_rollout(name, give_up).await.map_err(fail)?;
        }
        let what = if bound { "removed, although senders may still hold its policy" } else { "removed" };
        self.store.journal(name, now, who, what).await.map_err(fail)?;
        Ok(true)
    }
}

/// The journal entry about new settings.
fn settings_entry(spec: &DomainSpec) -> String {
    format!("settings changed: {}", serde_json::to_string(spec).unwrap_or_default())
}

/// Whether a domain may be removed while senders may hold its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Only if no sender can hold its policy.
    Free,
    /// Even if senders may hold its policy.
    AlthoughBound,
}
