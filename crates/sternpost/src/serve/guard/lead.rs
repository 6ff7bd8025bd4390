//! Which process keeps the alerts: the holder of a lease. It stops before the stored end of the lease, by its own clock, so that
//! no two processes keep them at once.

use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use std::time::Duration;
use store::leases::LeaseHolder;
use store::{Store, StoreError, Tenant};
use tokio::time::Instant;

/// The name of the lease on the alerts of a tenant.
fn lease_name(tenant: Tenant) -> String {
    match tenant {
        Tenant::FIRST => "guard alerts".to_owned(),
        other => format!("guard alerts of tenant {other}"),
    }
}

/// How long the lease lasts.
const LASTS: Duration = Duration::from_secs(30);
/// How long before its end the holder stops.
const MARGIN: Duration = Duration::from_secs(2);
/// How often the lease is renewed, or asked for.
const RENEWAL: Duration = Duration::from_secs(8);

/// Whether this process keeps the alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leading {
    /// Another process does.
    No,
    /// It does from now on: what it knows of the alerts may be outdated.
    New,
    /// It still does.
    Still,
}

/// The lease on the alerts.
pub struct Lead {
    store: Store,
    holder: String,
    /// Until when the lease is held.
    until: Option<Instant>,
    /// When the lease is renewed or asked for next.
    next: Instant,
}

impl Lead {
    pub fn new(store: Store) -> Self {
        Self { store, holder: LeaseHolder::new().to_string(), until: None, next: Instant::now() }
    }

    /// Whether this process holds the lease.
    pub fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Behaves as if the lease was not held before.
    pub fn forget(&mut self) {
        (self.until, self.next) = (None, Instant::now());
    }

    /// Renews or acquires the lease when it is time to.
    pub async fn renew(&mut self, now: Timestamp) -> Result<Leading, StoreError> {
        let begun = Instant::now();
        let held = self.holds();
        let known = if held { Leading::Still } else { Leading::No };
        if begun < self.next {
            return Ok(known);
        }
        self.next = begun + RENEWAL;
        let lasts = SignedDuration::try_from(LASTS).unwrap_or_default();
        let is_held =
            self.store.lease(&lease_name(self.store.tenant()), &self.holder, now, later(now, lasts)).await?;
        self.until = is_held.then(|| begun + LASTS - MARGIN);
        Ok(match is_held {
            true if held => Leading::Still,
            true => Leading::New,
            false => Leading::No,
        })
    }
}
