//! A lease as its holder knows it.

use nix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long before the end of the lease its holder stops.
const MARGIN: Duration = Duration::from_secs(1);

/// The monotonic clock that also counts time in which the machine is suspended.
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::CLOCK_MONOTONIC;

/// A lease that this process has acquired. Clones are the same lease: a renewal extends all of them.
#[derive(Debug, Clone)]
pub struct HeldLease {
    name: Arc<str>,
    holder: Arc<str>,
    fence: i64,
    length: Duration,
    /// When the holder stops, in milliseconds since the machine was booted.
    ends: Arc<AtomicU64>,
}

impl HeldLease {
    /// A lease of this length that was asked for at `begun`, as [`since_boot`] returned it before the question.
    pub(super) fn new(name: &str, holder: &str, fence: i64, begun: Duration, length: Duration) -> Self {
        let lease = Self { name: name.into(), holder: holder.into(), fence, length, ends: Arc::default() };
        lease.extend(begun);
        lease
    }

    /// The name of the lease.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text that names the holder.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// Grows with each new holder of the name, and stays with each renewal.
    pub fn fence(&self) -> i64 {
        self.fence
    }

    /// The time for which it is acquired and renewed.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// True if the holder has to stop: another process may get the lease within a second, or has got it.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// How long the holder may go on without a renewal.
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.ends.load(Ordering::SeqCst)).saturating_sub(since_boot())
    }

    /// Ends the lease for this process, whatever the database has.
    pub fn give_up(&self) {
        self.ends.store(0, Ordering::SeqCst);
    }

    /// The lease was extended by a question that began at this time.
    pub(super) fn extend(&self, begun: Duration) {
        let ends = begun.saturating_add(self.length).saturating_sub(MARGIN);
        self.ends.store(u64::try_from(ends.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

/// The time since the machine was booted.
pub(super) fn since_boot() -> Duration {
    // The call fails only if the kernel lacks this clock, and then every call fails.
    let now = clock_gettime(MONOTONIC).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    now.map(Duration::from).unwrap_or_default()
}
