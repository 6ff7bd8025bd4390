//! A limit on memory that many sessions or jobs share. Each holds a [`Reservation`], which it grows before it allocates;
//! dropping the reservation gives the memory back. Growing never waits: a session that gets no memory refuses its message
//! temporarily, so that sessions that hold some can't block one another. A caller that holds no memory may wait for room
//! ([`MemoryBudget::wait_for_room`]).

use crate::rate_limit::client;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Notify;

/// An amount of memory, in bytes. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
    total: usize,
    small: usize,
    /// The part of one client; `None` if it is not limited.
    share: Option<Share>,
}

#[derive(Debug, Default)]
struct Shared {
    used: AtomicUsize,
    peak: AtomicUsize,
    /// Notified when memory is given back.
    freed: Notify,
    /// The bytes that each client uses. Entries of clients without a budget are removed from time to time.
    clients: Mutex<HashMap<IpAddr, Weak<AtomicUsize>>>,
}

/// What the sessions of one client may use together.
#[derive(Debug, Clone)]
struct Share {
    used: Arc<AtomicUsize>,
    most: usize,
}

/// The number of clients above which those without a budget are removed.
const MAX_IDLE_CLIENTS: usize = 1024;

/// Why a reservation can't grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Other reservations hold the memory; the same request may succeed later.
    InUse,
    /// The reservation alone would exceed the budget.
    Never,
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
        Self { shared: Arc::default(), total, small, share: None }
    }

    /// The same budget for one client, an IPv4 address or an IPv6 /64, whose reservations may use `most` bytes together.
    #[must_use]
    pub fn for_client(&self, from: IpAddr, most: usize) -> Self {
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() > MAX_IDLE_CLIENTS {
            clients.retain(|_, used| used.strong_count() > 0);
        }
        let entry = clients.entry(client(from)).or_default();
        let used = entry.upgrade().unwrap_or_else(|| {
            let used = Arc::default();
            *entry = Arc::downgrade(&used);
            used
        });
        Self { share: Some(Share { used, most }), ..self.clone() }
    }

    /// Returns a reservation of no bytes.
    pub fn reservation(&self) -> Reservation {
        Reservation { budget: self.clone(), bytes: 0 }
    }

    /// The bytes that are reserved at the moment.
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// The most bytes that were reserved at any time.
    pub fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::Relaxed)
    }

    /// Waits until a reservation could grow to `bytes`. The room may be taken again by another one before the caller uses
    /// it. Does not return while a reservation of `bytes` alone would exceed the budget.
    pub async fn wait_for_room(&self, bytes: usize) {
        loop {
            // Created before the check, so that memory given back after the check is not missed.
            let freed = self.shared.freed.notified();
            if self.has_room_for(bytes) {
                return;
            }
            freed.await;
        }
    }

    /// True when a reservation could grow to `bytes` at the moment.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let has_share = self.share.as_ref().is_none_or(|share| share.has_room_for(bytes));
        has_share && self.used().checked_add(bytes).is_some_and(|used| used <= self.limit(bytes))
    }

    /// The limit of all reservations together while one of them grows to `bytes`.
    fn limit(&self, bytes: usize) -> usize {
        if bytes > self.small { self.total - self.total / 4 } else { self.total }
    }
}

impl Share {
    fn has_room_for(&self, bytes: usize) -> bool {
        self.used.load(Ordering::Relaxed).checked_add(bytes).is_some_and(|used| used <= self.most)
    }
}

/// Adds to a number of used bytes unless the result exceeds `most`. Returns the number before.
fn add(used: &AtomicUsize, more: usize, most: usize) -> Option<usize> {
    let grown = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(more).filter(|used| *used <= most)
    });
    grown.ok()
}

impl Reservation {
    /// Grows the reservation to at least `bytes`; false when the budget has no room for that.
    #[must_use]
    pub fn cover(&mut self, bytes: usize) -> bool {
        self.try_cover(bytes).is_ok()
    }

    /// Grows the reservation to at least `bytes`.
    ///
    /// # Errors
    ///
    /// When the budget has no room for that; the reservation is unchanged then.
    pub fn try_cover(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let limit = self.budget.limit(bytes);
        let share = self.budget.share.as_ref();
        if bytes > limit || share.is_some_and(|share| bytes > share.most) {
            return Err(NoRoom::Never);
        }
        if share.is_some_and(|share| add(&share.used, more, share.most).is_none()) {
            return Err(NoRoom::InUse);
        }
        let shared = &self.budget.shared;
        let Some(before) = add(&shared.used, more, limit) else {
            if let Some(share) = share {
                share.used.fetch_sub(more, Ordering::Relaxed);
            }
            return Err(NoRoom::InUse);
        };
        shared.peak.fetch_max(before + more, Ordering::Relaxed);
        self.bytes = bytes;
        Ok(())
    }

    /// Grows the reservation by `bytes`; false when the budget has no room for that.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.bytes.checked_add(bytes).is_some_and(|bytes| self.cover(bytes))
    }

    /// The number of bytes that are reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all memory beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let Some(less) = self.bytes.checked_sub(bytes).filter(|less| *less > 0) else { return };
        self.budget.shared.used.fetch_sub(less, Ordering::Relaxed);
        if let Some(share) = &self.budget.share {
            share.used.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes = bytes;
        self.budget.shared.freed.notify_waiters();
    }

    /// Gives back all memory.
    pub fn clear(&mut self) {
        self.shrink(0);
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
    fn a_client_uses_its_share_and_leaves_the_rest_to_others() {
        let budget = MemoryBudget::new(100, 100);
        let of = |text: &str| budget.for_client(text.parse().unwrap(), 40);
        let (one, same, other) = (of("2001:db8::1"), of("2001:db8::2"), of("192.0.2.1"));
        let (mut first, mut second) = (one.reservation(), same.reservation());
        assert!(first.cover(30) && !second.cover(11) && !same.has_room_for(11) && second.cover(10));
        assert_eq!(first.try_cover(41), Err(NoRoom::Never));
        let mut third = other.reservation();
        assert!(third.cover(40) && !third.grow(1));
        // What the budget refuses does not stay in the share.
        let mut local = budget.reservation();
        assert!(local.cover(20));
        first.shrink(20);
        assert!(local.cover(30) && !first.cover(21) && second.cover(10));
        drop(local);
        assert!(first.cover(30) && !second.cover(11));
        drop((first, second, third));
        assert_eq!((budget.used(), one.share.unwrap().used.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn clients_that_are_gone_are_forgotten() {
        let budget = MemoryBudget::new(100, 100);
        for number in 0..5000u32 {
            drop(budget.for_client(std::net::Ipv4Addr::from(number).into(), 40));
        }
        assert!(budget.shared.clients.lock().unwrap().len() <= MAX_IDLE_CLIENTS + 1);
    }

    #[test]
    fn a_reservation_that_can_never_fit_is_told_from_one_that_has_to_wait() {
        let budget = MemoryBudget::new(100, 10);
        let (mut one, mut other) = (budget.reservation(), budget.reservation());
        assert_eq!(one.try_cover(75), Ok(()));
        assert_eq!(other.try_cover(60), Err(NoRoom::InUse));
        assert_eq!(other.try_cover(76), Err(NoRoom::Never));
        one.shrink(20);
        assert_eq!((other.try_cover(55), budget.used(), budget.peak()), (Ok(()), 75, 75));
        one.shrink(30);
        assert_eq!(one.bytes(), 20);
    }

    #[tokio::test]
    async fn a_waiter_goes_on_when_memory_is_given_back() {
        let budget = MemoryBudget::new(100, 100);
        let mut held = budget.reservation();
        assert!(held.cover(90));
        let waiter = tokio::spawn({
            let budget = budget.clone();
            async move { budget.wait_for_room(50).await }
        });
        for bytes in [80, 60, 50] {
            tokio::task::yield_now().await;
            assert!(!waiter.is_finished());
            held.shrink(bytes);
        }
        waiter.await.unwrap();
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
