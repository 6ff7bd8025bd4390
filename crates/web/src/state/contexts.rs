//! The rollout context of the pages. Each page holds the context that was current when it began, so that a page that takes
//! long keeps no other one waiting. The context is read from the store again every few seconds, since commands change it too,
//! and after each decision of an operator.

use crate::snapshot::Snapshots;
use config::failure::Failure;
use operations::RolloutContext;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// The maximum age of the context on a page, since its last refresh from the store.
const CACHE_TIME: Duration = Duration::from_secs(2);
/// How many times as old as its refresh takes the context may be.
const CACHE_FACTOR: u32 = 20;
/// From this time for a refresh on, pages get the last context while it is refreshed.
const SLOW: Duration = Duration::from_millis(50);

/// The current context, and when it was refreshed.
pub struct Contexts(Arc<Shared>);

struct Shared {
    current: RwLock<Arc<RolloutContext>>,
    /// When the context was last refreshed from the store, and how long that took. The lock is held during a refresh.
    refreshed: Mutex<(Instant, Duration)>,
    /// How many decisions were made, and how many of them the current context has. A refresh that is cancelled changes neither.
    decided: AtomicU64,
    included: AtomicU64,
    /// Held by the one who makes a decision.
    deciding: Mutex<()>,
}

impl Contexts {
    pub fn new(context: RolloutContext) -> Self {
        Self(Arc::new(Shared {
            current: RwLock::new(Arc::new(context)),
            refreshed: Mutex::new((Instant::now(), Duration::ZERO)),
            decided: AtomicU64::new(0),
            included: AtomicU64::new(0),
            deciding: Mutex::new(()),
        }))
    }

    /// The context as it was read last.
    pub fn last(&self) -> Arc<RolloutContext> {
        self.0.last()
    }

    /// The context, refreshed from the store if it is older than [`CACHE_TIME`], or with many domains, than [`CACHE_FACTOR`]
    /// times what a refresh takes. A refresh that takes long is made in the background, unless a decision was made.
    pub async fn current(&self) -> Result<Arc<RolloutContext>, Failure> {
        let shared = &self.0;
        if shared.is_outdated() {
            let mut refreshed = shared.refreshed.lock().await;
            if shared.is_outdated() {
                shared.refresh(&mut refreshed).await?;
            }
            return Ok(shared.last());
        }
        let Ok(mut refreshed) = shared.refreshed.try_lock() else { return Ok(shared.last()) };
        let (at, took) = *refreshed;
        if at.elapsed() <= CACHE_TIME.max(took.saturating_mul(CACHE_FACTOR)) {
            return Ok(shared.last());
        }
        if took < SLOW {
            shared.refresh(&mut refreshed).await?;
            return Ok(shared.last());
        }
        drop(refreshed);
        let shared = shared.clone();
        tokio::spawn(async move {
            if let Ok(mut refreshed) = shared.refreshed.try_lock()
                && let Err(failure) = shared.refresh(&mut refreshed).await
            {
                tracing::warn!("can't read the settings of the domains again: {failure}");
            }
        });
        Ok(self.last())
    }

    /// A context for a decision, as the store has it now. Other decisions wait until it is dropped, which makes the last one
    /// of `snapshots` outdated.
    pub async fn to_change<'c>(&'c self, snapshots: &'c Snapshots) -> Result<Changing<'c>, Failure> {
        let turn = self.0.deciding.lock().await;
        let context = self.0.last().refreshed().await?;
        Ok(Changing { context, shared: &self.0, snapshots, _turn: turn })
    }
}

impl Shared {
    fn last(&self) -> Arc<RolloutContext> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn refresh(&self, refreshed: &mut (Instant, Duration)) -> Result<(), Failure> {
        let begun = Instant::now();
        let decided = self.decided.load(Ordering::Acquire);
        let fresh = self.last().refreshed().await?;
        *refreshed = (Instant::now(), begun.elapsed());
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        self.included.store(decided, Ordering::Release);
        Ok(())
    }

    /// True after a decision that the current context may not have.
    fn is_outdated(&self) -> bool {
        self.decided.load(Ordering::Acquire) != self.included.load(Ordering::Acquire)
    }
}

/// A context of its own for a decision. When it is dropped, pages read the context again.
pub struct Changing<'c> {
    context: RolloutContext,
    shared: &'c Shared,
    snapshots: &'c Snapshots,
    _turn: MutexGuard<'c, ()>,
}

impl Deref for Changing<'_> {
    type Target = RolloutContext;

    fn deref(&self) -> &RolloutContext {
        &self.context
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut RolloutContext {
        &mut self.context
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.shared.decided.fetch_add(1, Ordering::AcqRel);
        // What is being built may not have the decision, and what is built from here on reads the context again.
        self.snapshots.forget();
    }
}
