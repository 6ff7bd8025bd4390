//! Probes the store by a small write every few seconds, whichever roles run: a full disk, a file that was removed and a
//! database server that is down are found before the next report or policy needs the store. The state appears in the log,
//! in `/readyz` and as the metric `sternpost_store_up`.

use jiff::Timestamp;
use net::clock::Clock;
use net::metrics::{self, Gauge, Registry};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{Store, StoreError};

/// The interval between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// The state of the store, for `/readyz` and `/metrics`.
pub struct StoreStatus {
    clock: Arc<dyn Clock>,
    up: Gauge,
    problem: Mutex<Option<(String, Timestamp)>>,
}

impl StoreStatus {
    /// A store that works: the server has just opened it.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let up = Gauge::default();
        up.set(1);
        Self { clock, up, problem: Mutex::default() }
    }

    /// Registers the metric `store_up`.
    pub fn register(&self, registry: &mut Registry) {
        metrics::STORE_UP.register(registry, self.up.clone());
    }

    /// Why the store fails, and since when; `None` while it works.
    pub fn problem(&self) -> Option<(String, Timestamp)> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records a probe. Logs when the state has changed.
    fn record(&self, outcome: Result<(), StoreError>) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        self.up.set(i64::from(outcome.is_ok()));
        match (outcome, &mut *problem) {
            (Ok(()), None) => {}
            (Ok(()), failed) => {
                *failed = None;
                tracing::info!("the store works again");
            }
            (Err(error), Some((why, _))) => *why = error.to_string(),
            (Err(error), none) => {
                tracing::error!("the store fails: {error}");
                *none = Some((error.to_string(), self.clock.now()));
            }
        }
    }
}

/// Probes the store until the task is dropped. A probe that fails is repeated at once, since another program may have had
/// the lock for a moment.
pub async fn watch(store: Store, status: Arc<StoreStatus>) {
    loop {
        let outcome = match store.probe().await {
            Ok(()) => Ok(()),
            Err(_) => store.probe().await,
        };
        status.record(outcome);
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::clock::ManualClock;

    #[tokio::test]
    async fn a_store_whose_file_is_gone_fails_since_the_first_probe_that_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("s.db"), dir.path().join("aside"));
        let store = Store::open(&path, store::Tenant::FIRST).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let clock = Arc::new(ManualClock::new(at(10)));
        let status = StoreStatus::new(clock.clone());
        status.record(store.probe().await);
        assert_eq!((status.problem(), status.up.get()), (None, 1));
        std::fs::rename(&path, &aside).unwrap();
        for _ in 0..2 {
            status.record(store.probe().await);
            clock.set_by(5);
        }
        let (why, since) = status.problem().unwrap();
        assert!(
            why.contains("was removed or replaced") && since == at(10) && status.up.get() == 0,
            "{why} {since}"
        );
        std::fs::rename(&aside, &path).unwrap();
        status.record(store.probe().await);
        assert_eq!((status.problem(), status.up.get()), (None, 1));
    }
}
