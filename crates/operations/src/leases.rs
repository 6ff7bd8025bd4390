//! Leases on domains: only one process at a time applies a domain's plan. The store takes the lease of a process that has
//! ended on this machine (see [`store::leases`]); [`RolloutContext::take_over`] takes any other, for an operator who knows
//! that its holder is gone. What is written for the plan is written under the lease ([`RolloutContext::applier_under`]), so
//! that a process that stood still and lost its lease changes nothing more.

use crate::rollout_context::{RolloutContext, store_failure};
use config::failure::Failure;
use formats::DomainName;
use receiver::domain::DomainSpec;
use receiver::rollout::Applier;
use std::ops::Deref;
use std::time::Duration;
use store::leases::{HeldLease, Lease};
use tokio::task::AbortHandle;

/// Duration of the lease on a domain.
const APPLY_LEASE: Duration = Duration::from_secs(60);
/// Time between two renewals in the background: three may fail before the holder has to stop.
const RENEWAL: Duration = Duration::from_secs(15);

/// The lease on a domain, which is renewed in the background until this is dropped. So it can be short: the plan of a process
/// that was killed waits no longer than the lease lasts.
#[derive(Debug)]
pub struct DomainLease {
    lease: HeldLease,
    renewal: AbortHandle,
}

impl Deref for DomainLease {
    type Target = HeldLease;

    fn deref(&self) -> &HeldLease {
        &self.lease
    }
}

impl Drop for DomainLease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

fn lease(name: &DomainName) -> String {
    format!("rollout {name}")
}

impl RolloutContext {
    /// Acquires the lease on a domain for this context; `None` while another one holds it. Fails if the tenant does not own the
    /// domain.
    pub async fn hold(&self, name: &DomainName) -> Result<Option<DomainLease>, Failure> {
        self.require_ownership(name).await?;
        let now = self.world.clock.now();
        let held = self.store.acquire(&lease(name), &self.holder, now, APPLY_LEASE).await;
        Ok(held.map_err(|error| store_failure(&error))?.map(|lease| self.kept(lease)))
    }

    /// Renews a lease in the background. If no renewal succeeds, it ends, and the next write under it says so.
    fn kept(&self, lease: HeldLease) -> DomainLease {
        let (store, clock, held) = (self.store.clone(), self.world.clock.clone(), lease.clone());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                if let Ok(false) = store.renew(&held, clock.now()).await {
                    return;
                }
            }
        });
        DomainLease { lease, renewal: renewal.abort_handle() }
    }

    /// Renews the lease on a domain; false if another one has taken it over.
    pub async fn renew(&self, lease: &HeldLease) -> Result<bool, Failure> {
        self.store.renew(lease, self.world.clock.now()).await.map_err(|error| store_failure(&error))
    }

    /// The lease on a domain that another context holds now.
    pub async fn other_lease(&self, name: &DomainName) -> Result<Option<Lease>, Failure> {
        let found = self.store.lease_in_force(&lease(name), self.world.clock.now()).await;
        Ok(found.map_err(|error| store_failure(&error))?.filter(|lease| lease.holder != self.holder))
    }

    /// Takes the lease on a domain from whoever holds it. Returns it with the previous one; `None` if nobody holds it. A holder
    /// that still works stops at its next step.
    pub async fn take_over(&self, name: &DomainName) -> Result<Option<(DomainLease, Lease)>, Failure> {
        self.require_ownership(name).await?;
        let Some(other) = self.other_lease(name).await? else { return Ok(None) };
        let now = self.world.clock.now();
        let taken = self.store.take_lease(&lease(name), &other.holder, &self.holder, now, APPLY_LEASE).await;
        Ok(taken.map_err(|error| store_failure(&error))?.map(|lease| (self.kept(lease), other)))
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
