//! A limit on memory that many sessions or jobs share. Each holds a [`Reservation`], which it grows before it allocates;
//! dropping the reservation gives the memory back. Nothing waits: a session that gets no memory refuses its message
//! temporarily, so that sessions that hold some can't block one another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An amount of memory, in bytes. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    used: Arc<AtomicUsize>,
    total: usize,
    small: usize,
}

/// Memory that one session or job may use; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of `total` bytes. Reservations of more than `small` bytes may use only the first three quarters of it, so
    /// that a few large messages leave room for small ones.
    pub fn new(total: usize, small: usize) -> Self {
        Self { used: Arc::default(), total, small }
    }

    /// Returns a reservation of no bytes.
    pub fn reservation(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    /// The bytes that are reserved at the moment.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// True when a reservation could grow to `bytes` at the moment.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.used().checked_add(bytes).is_some_and(|used| used <= self.limit(bytes))
    }

    /// The limit of all reservations together while one of them grows to `bytes`.
    fn limit(&self, bytes: usize) -> usize {
        if bytes > self.small { self.total - self.total / 4 } else { self.total }
    }
}

impl Reservation {
    /// Grows the reservation to at least `bytes`; false when the budget has no room for that.
    #[must_use]
    pub fn cover(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return true };
        let limit = self.budget.limit(bytes);
        let grown = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|used| *used <= limit)
        });
        if grown.is_ok() {
            self.bytes = bytes;
        }
        grown.is_ok()
    }

    /// Grows the reservation by `bytes`; false when the budget has no room for that.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.bytes.checked_add(bytes).is_some_and(|bytes| self.cover(bytes))
    }

    /// The reserved bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all memory.
    pub fn clear(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_share_the_budget_and_give_it_back() {
        let budget = MemoryBudget::new(100, 100);
        let (mut one, mut other) = (budget.reservation(), budget.reservation());
        assert!(one.cover(60) && !other.cover(41) && other.cover(40) && one.cover(10));
        assert!(!one.grow(1) && !budget.has_room_for(1));
        assert_eq!(budget.used(), 100);
        drop(one);
        assert!(other.grow(60) && !other.grow(usize::MAX));
        other.clear();
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn large_reservations_leave_a_quarter_to_small_ones() {
        let budget = MemoryBudget::new(100, 10);
        let (mut large, mut small) = (budget.reservation(), budget.reservation());
        assert!(large.cover(75) && !large.cover(76) && !budget.has_room_for(11));
        assert!(small.cover(10) && !small.cover(11));
        assert_eq!(budget.used(), 85);
    }
}
