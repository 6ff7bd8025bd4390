//! The memory of one extraction job: what it reserves from the budget of all jobs, and how much it may reserve in
//! total before it counts as a large one.

use super::pool::Busy;
use formats::report::{NoMemory, UnpackMemory};
use net::memory_budget::{NoRoom, Reservation};
use std::cell::{Cell, RefCell};

/// The memory of one job.
pub(super) struct JobMemory<'m> {
    reservation: RefCell<&'m mut Reservation>,
    /// Bytes that may still be reserved, whether given back or not: they stand for the work of the job.
    left: Cell<usize>,
    stop: Cell<Option<Stop>>,
}

/// Why a job stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The memory is in use.
    Busy(Busy),
    /// The input is more work than a small job may do.
    Large,
}

impl<'m> JobMemory<'m> {
    /// The memory of a job that may reserve `most` bytes in total.
    pub(super) fn new(reservation: &'m mut Reservation, most: usize) -> Self {
        Self { reservation: RefCell::new(reservation), left: Cell::new(most), stop: Cell::default() }
    }

    /// Why memory was refused for now.
    pub(super) fn stop(&self) -> Stop {
        self.stop.get().unwrap_or(Stop::Busy(Busy { needed: 0 }))
    }
}

impl UnpackMemory for JobMemory<'_> {
    fn reserve(&self, bytes: usize) -> Result<(), NoMemory> {
        let Some(left) = self.left.get().checked_sub(bytes) else {
            self.stop.set(Some(Stop::Large));
            return Err(NoMemory::Now);
        };
        let mut reservation = self.reservation.borrow_mut();
        let needed = reservation.bytes().saturating_add(bytes);
        match reservation.try_cover(needed) {
            Ok(()) => {
                self.left.set(left);
                Ok(())
            }
            Err(NoRoom::Never) => Err(NoMemory::Ever),
            Err(NoRoom::InUse) => {
                self.stop.set(Some(Stop::Busy(Busy { needed })));
                Err(NoMemory::Now)
            }
        }
    }

    fn give_back(&self, bytes: usize) {
        let mut reservation = self.reservation.borrow_mut();
        let rest = reservation.bytes().saturating_sub(bytes);
        reservation.shrink(rest);
    }
}
