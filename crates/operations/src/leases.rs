//! Leases on domains: only one process at a time applies a domain's plan. The store takes the lease of a process that has
//! ended on this machine (see [`store::leases`]); [`RolloutContext::take_over`] takes any other, for an operator who knows
//! that its holder is gone.

use crate::rollout_context::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::DomainName;
use jiff::SignedDuration;
use net::clock::later;
use store::leases::Lease;

/// Duration of the lease on a domain, renewed while its plan is applied.
pub const APPLY_LEASE: SignedDuration = SignedDuration::from_mins(15);

fn lease(name: &DomainName) -> String {
    format!("rollout {name}")
}

impl RolloutContext {
    /// Acquires or renews the lease on a domain for this context; false while another one holds it.
    pub async fn hold(&self, name: &DomainName) -> Result<bool, Failure> {
        let now = self.world.clock.now();
        let held = self.store.lease(&lease(name), &self.holder, now, later(now, APPLY_LEASE)).await;
        held.map_err(|error| store_failure(&error))
    }

    /// The lease on a domain that another context holds now.
    pub async fn other_lease(&self, name: &DomainName) -> Result<Option<Lease>, Failure> {
        let lease = self.store.lease_of(&lease(name)).await.map_err(|error| store_failure(&error))?;
        let now = self.world.clock.now();
        Ok(lease.filter(|lease| lease.holder != self.holder && lease.until > now))
    }

    /// Takes the lease on a domain from whoever holds it. Returns the previous lease if there was one. A holder that still
    /// works stops at its next step.
    pub async fn take_over(&self, name: &DomainName) -> Result<Option<Lease>, Failure> {
        let Some(other) = self.other_lease(name).await? else { return Ok(None) };
        let until = later(self.world.clock.now(), APPLY_LEASE);
        let taken = self.store.take_lease(&lease(name), &other.holder, &self.holder, until).await;
        Ok(taken.map_err(|error| store_failure(&error))?.then_some(other))
    }

    /// Releases the lease on a domain.
    pub async fn release(&self, name: &DomainName) -> Result<(), Failure> {
        self.store.release(&lease(name), &self.holder).await.map_err(|error| store_failure(&error))
    }
}
