//! The last snapshot, and how a request gets one. An operator's decision makes the last one outdated. Where counting takes
//! long, a request gets the last one or none after a short wait, and the next one is made in the background.

use super::Snapshot;
use crate::layout::ErrorPage;
use crate::state::Dashboard;
use axum::http::StatusCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// A snapshot may be this many times as old as it took to build.
const AGE_FACTOR: u32 = 20;
/// From this time to build on, requests get the last snapshot while a new one is built.
const SLOW: Duration = Duration::from_millis(250);
/// The age from which on a request first waits for a new snapshot in any case.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How long a request waits for a new snapshot, if there are more domains than [`FEW_DOMAINS`].
const PATIENCE: Duration = Duration::from_millis(80);
/// Up to this number of domains, a request waits until the snapshot is complete.
const FEW_DOMAINS: usize = 200;

/// The last snapshot, and the lock of the one who builds the next.
#[derive(Default)]
pub struct Snapshots {
    last: Mutex<Option<Arc<Snapshot>>>,
    building: Arc<tokio::sync::Mutex<()>>,
    /// The number of decisions so far. A snapshot that was begun before the last one is outdated.
    decisions: AtomicU64,
}

impl Snapshots {
    fn held(&self) -> Option<Arc<Snapshot>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True before the first snapshot is there.
    pub fn is_empty(&self) -> bool {
        self.held().is_none()
    }

    /// The last snapshot, if it can be shown as it is.
    fn recent(&self) -> Option<Arc<Snapshot>> {
        self.held().filter(|held| {
            held.pending == 0
                && held.generation == self.generation()
                && held.made.elapsed() < held.took.saturating_mul(AGE_FACTOR).min(MAX_AGE)
        })
    }

    /// The last snapshot, if a request that waits no longer than `patience` shows it rather than wait for the next.
    fn instead_of_waiting(&self, patience: Duration) -> Option<Arc<Snapshot>> {
        self.held().filter(|held| {
            let is_enough = match held.pending {
                0 => held.took >= SLOW && held.made.elapsed() < MAX_AGE,
                _ => patience < Duration::MAX,
            };
            is_enough && held.generation == self.generation()
        })
    }

    pub fn keep(&self, snapshot: &Arc<Snapshot>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
    }

    /// What a snapshot that begins now is kept with.
    pub fn generation(&self) -> u64 {
        self.decisions.load(Ordering::Relaxed)
    }

    /// Makes the last one outdated, since an operator has decided something.
    pub fn forget(&self) {
        self.decisions.fetch_add(1, Ordering::Relaxed);
    }
}

impl Dashboard {
    /// Makes the first snapshot in the background, so that the first page need not wait for it.
    pub fn count_in_background(self: &Arc<Self>) {
        if let Ok(turn) = self.snapshots.building.clone().try_lock_owned() {
            // The page that makes it next shows an error.
            drop(self.build_in_background(turn));
        }
    }

    fn build_in_background(
        self: &Arc<Self>,
        turn: OwnedMutexGuard<()>,
    ) -> tokio::task::JoinHandle<Result<Arc<Snapshot>, ErrorPage>> {
        let dashboard = self.clone();
        tokio::spawn(async move {
            let built = dashboard.build().await;
            drop(turn);
            built
        })
    }

    /// The overview's data, from memory if it is recent. With many domains it may be older, or incomplete
    /// ([`Snapshot::pending`]); `None` before anything is counted.
    pub(crate) async fn snapshot(self: &Arc<Self>) -> Result<Option<Arc<Snapshot>>, ErrorPage> {
        let patience = match self.known_domains() {
            0..=FEW_DOMAINS => Duration::MAX,
            _ => PATIENCE,
        };
        self.snapshot_within(patience).await
    }

    /// The overview's data, recent and complete, however long that takes.
    pub(crate) async fn complete_snapshot(self: &Arc<Self>) -> Result<Arc<Snapshot>, ErrorPage> {
        let _turn = self.snapshots.building.lock().await;
        match self.snapshots.recent() {
            Some(recent) => Ok(recent),
            None => self.build().await,
        }
    }

    /// [`Dashboard::snapshot`] with a limit for the wait.
    pub(crate) async fn snapshot_within(
        self: &Arc<Self>,
        patience: Duration,
    ) -> Result<Option<Arc<Snapshot>>, ErrorPage> {
        if let Some(recent) = self.snapshots.recent() {
            return Ok(Some(recent));
        }
        let building = self.snapshots.building.clone();
        let last = self.snapshots.instead_of_waiting(patience);
        // A timer takes at least a millisecond, in which a snapshot could be made.
        if last.is_some() || patience.is_zero() {
            if let Ok(turn) = building.try_lock_owned() {
                drop(self.build_in_background(turn));
            }
            return Ok(last.or_else(|| self.snapshots.held()));
        }
        let next = async {
            let turn = building.lock_owned().await;
            match self.snapshots.recent() {
                Some(recent) => Ok(recent),
                None => self.build_in_background(turn).await.unwrap_or_else(|_| {
                    Err(ErrorPage::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "The figures can't be counted; see the log for the reason.",
                    ))
                }),
            }
        };
        match tokio::time::timeout(patience, next).await {
            Ok(next) => next.map(Some),
            Err(_) => Ok(self.snapshots.held()),
        }
    }
}
