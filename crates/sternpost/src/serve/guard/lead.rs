//! Which process keeps the alerts: the node that has the job `guard-alerts`. It writes them under the lease of the job, so that
//! one that stood still can't change them after another one took over.

use super::super::leaders::Seat;
use std::sync::Arc;
use store::{Store, Tenant};

/// Whether this process keeps the alerts.
#[derive(Clone)]
pub enum Leading {
    /// Another process does.
    No,
    /// It does from now on, and writes to this store: what it knows of the alerts may be outdated.
    New(Store),
    /// It still does, and writes to this store.
    Still(Store),
}

/// The job of the alerts of a tenant, as this process knows it.
pub struct Lead {
    pub seat: Arc<Seat>,
    /// The tenure for which the alerts were loaded.
    known: Option<u64>,
    tenant: Tenant,
}

impl Lead {
    /// The alerts of the tenant are kept by whoever has the seat.
    pub fn new(seat: Arc<Seat>, tenant: Tenant) -> Self {
        Self { seat, known: None, tenant }
    }

    /// The store for writes under the lease, if this process keeps the alerts and has loaded them.
    pub fn store(&self) -> Option<Store> {
        let (number, store) = self.seat.tenure()?;
        (self.known == Some(number)).then(|| store.of_tenant(self.tenant))
    }

    /// Behaves as if the job was not held before.
    pub fn forget(&mut self) {
        self.known = None;
    }

    /// Looks whether this process has the job.
    pub fn look(&mut self) -> Leading {
        let Some((number, store)) = self.seat.tenure() else { return Leading::No };
        let store = store.of_tenant(self.tenant);
        match self.known.replace(number) {
            Some(known) if known == number => Leading::Still(store),
            _ => Leading::New(store),
        }
    }
}
