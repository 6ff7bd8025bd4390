//! How many fetches one address gets at once: many domains share a policy host.

use formats::limits::FETCHES_PER_ADDRESS;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of each address that is fetched from now.
#[derive(Default)]
pub struct Places(Mutex<HashMap<IpAddr, Arc<Semaphore>>>);

/// Idle addresses are forgotten when there are more than this.
const ADDRESSES: usize = 1024;

impl Places {
    /// Waits for a place at an address and holds it.
    pub async fn take(&self, address: Option<IpAddr>) -> Option<OwnedSemaphorePermit> {
        let address = address?;
        let places = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() > ADDRESSES {
                all.retain(|_, places| places.available_permits() < FETCHES_PER_ADDRESS);
            }
            all.entry(address).or_insert_with(|| Arc::new(Semaphore::new(FETCHES_PER_ADDRESS))).clone()
        };
        places.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_has_so_many_places_and_others_have_their_own() {
        let places = Places::default();
        let (one, other) = (Some([127, 0, 0, 1].into()), Some([127, 0, 0, 2].into()));
        let mut held = Vec::new();
        for _ in 0..FETCHES_PER_ADDRESS {
            held.push(places.take(one).await);
        }
        let full = places.take(one);
        tokio::pin!(full);
        assert!(futures_util::poll!(&mut full).is_pending());
        assert!(places.take(other).await.is_some());
        held.pop();
        assert!(full.await.is_some());
    }
}
