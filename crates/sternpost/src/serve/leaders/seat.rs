//! A job that a task of each node does beside its other work, while the node holds the lease of the job.

use std::sync::{Arc, Mutex, PoisonError};
use store::Store;

/// Whether this node has a job.
#[derive(Default)]
pub struct Seat(Mutex<Tenure>);

#[derive(Default)]
struct Tenure {
    /// Increases each time that this node gets the job.
    number: u64,
    /// The store for writes under the lease; `None` while another node has the job.
    store: Option<Store>,
}

impl Seat {
    /// Has the job until the future is dropped, with this store for writes under its lease. The task of
    /// [`Leaders::lead`](super::Leaders::lead).
    pub async fn take(self: Arc<Self>, store: Store) {
        let _taken = Taken::new(self, store);
        std::future::pending().await
    }

    /// If this node has the job now: the store for writes under its lease, and a number that grows each time that this node
    /// gets the job.
    pub fn tenure(&self) -> Option<(u64, Store)> {
        let tenure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let store = tenure.store.clone().filter(|store| store.check_lease().is_ok())?;
        Some((tenure.number, store))
    }

    fn set(&self, store: Option<Store>) {
        let mut tenure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tenure.number += u64::from(store.is_some());
        tenure.store = store;
    }
}

/// The seat is empty again when this is dropped.
struct Taken(Arc<Seat>);

impl Taken {
    fn new(seat: Arc<Seat>, store: Store) -> Self {
        seat.set(Some(store));
        Self(seat)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.set(None);
    }
}
