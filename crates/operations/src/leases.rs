//! Leases on domains: only one process at a time applies a domain's plan. The store takes the lease of a process that has
//! ended on this machine (see [`store::leases`]); [`RolloutContext::take_over`] takes any other, for an operator who knows
//! that its holder is gone. What is written for the plan is written under the lease ([`RolloutContext::applier_under`]), so
//! that a process that stood still and lost its lease changes nothing more.

use crate::rollout_context::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::DomainName;
use receiver::domain::DomainSpec;
use receiver::rollout::Applier;
use std::time::Duration;
use store::leases::{HeldLease, Lease};

/// Duration of the lease on a domain, renewed while its plan is applied.
const APPLY_LEASE: Duration = Duration::from_secs(15 * 60);

fn lease(name: &DomainName) -> String {
    format!("rollout {name}")
}

impl RolloutContext {
    /// Acquires the lease on a domain for this context; `None` while another one holds it. Fails if the tenant does not own the
    /// domain.
    pub async fn hold(&self, name: &DomainName) -> Result<Option<HeldLease>, Failure> {
        self.require_ownership(name).await?;
        let now = self.world.clock.now();
        let held = self.store.acquire(&lease(name), &self.holder, now, APPLY_LEASE).await;
        held.map_err(|error| store_failure(&error))
    }

    /// Renews the lease on a domain; false if another one has taken it over.
    pub async fn renew(&self, lease: &HeldLease) -> Result<bool, Failure> {
        self.store.renew(lease, self.world.clock.now()).await.map_err(|error| store_failure(&error))
    }

    /// The lease on a domain that another context holds now.
    pub async fn other_lease(&self, name: &DomainName) -> Result<Option<Lease>, Failure> {
        let (name, now) = (lease(name), self.world.clock.now());
        let leases = self.store.leases_in_force(&name, now).await.map_err(|error| store_failure(&error))?;
        let is_other = |(found, lease): &(String, Lease)| *found == name && lease.holder != self.holder;
        Ok(leases.into_iter().find(is_other).map(|(_, lease)| lease))
    }

    /// Takes the lease on a domain from whoever holds it. Returns it with the previous one; `None` if nobody holds it. A holder
    /// that still works stops at its next step.
    pub async fn take_over(&self, name: &DomainName) -> Result<Option<(HeldLease, Lease)>, Failure> {
        self.require_ownership(name).await?;
        let Some(other) = self.other_lease(name).await? else { return Ok(None) };
        let now = self.world.clock.now();
        let taken = self.store.take_lease(&lease(name), &other.holder, &self.holder, now, APPLY_LEASE).await;
        Ok(taken.map_err(|error| store_failure(&error))?.map(|lease| (lease, other)))
    }

    /// Releases the lease on a domain.
    pub async fn release(&self, lease: &HeldLease) -> Result<(), Failure> {
        self.store.give_back(lease).await.map_err(|error| store_failure(&error))
    }

    /// Builds the applier that carries out a domain's plan, as [`RolloutContext::applier`] does. It writes only while this
    /// context has the lease.
    pub fn applier_under(&self, spec: &DomainSpec, lease: &HeldLease) -> Result<Applier, Failure> {
        self.applier_on(spec, &self.store.under(lease))
    }
}
