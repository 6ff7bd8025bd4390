//! How many domains the guard checks at once. Domains whose last check was slow have a few slots of their own: however many of
//! them hang, they take no slot from the others.

use formats::DomainName;
use receiver::domain::DomainSpec;
use std::collections::BTreeSet;

/// The part of the slots for quick domains that slow domains have in addition; also the part that has to be free before more
/// domains are claimed at once.
const SHARE: usize = 4;

/// The slots for checks.
#[derive(Debug)]
pub struct CheckSlots {
    /// The number of slots for quick domains, at least 1.
    quick: usize,
    /// Domains whose check or plan has not ended yet.
    busy: BTreeSet<DomainName>,
    /// Running checks of quick domains.
    running_quick: usize,
    /// Running checks of slow domains.
    running_slow: usize,
}

impl CheckSlots {
    /// Slots for this many quick domains at once.
    pub fn new(at_once: usize) -> Self {
        Self { quick: at_once.max(1), busy: BTreeSet::new(), running_quick: 0, running_slow: 0 }
    }

    /// Marks a domain as busy; false if it was busy already, so that it is not checked again now.
    pub fn claim(&mut self, spec: &DomainSpec) -> bool {
        self.busy.insert(spec.name.clone())
    }

    /// Records that the check and the plan of a domain have ended, so that it may be checked again.
    pub fn release(&mut self, domain: &DomainName) {
        self.busy.remove(domain);
    }

    /// The number of further checks that can run at once.
    pub fn free(&self, is_slow: bool) -> usize {
        match is_slow {
            true => (self.quick / SHARE).max(1).saturating_sub(self.running_slow),
            false => self.quick.saturating_sub(self.running_quick),
        }
    }

    /// Whether enough quick domains can be checked to claim several at once.
    pub fn has_room(&self) -> bool {
        self.free(false) >= (self.quick / SHARE).max(1)
    }

    /// Takes a slot for a check.
    pub fn take(&mut self, is_slow: bool) {
        *self.running(is_slow) += 1;
    }

    /// Gives back the slot of a check.
    pub fn give_back(&mut self, is_slow: bool) {
        let slot = self.running(is_slow);
        *slot = slot.saturating_sub(1);
    }

    fn running(&mut self, is_slow: bool) -> &mut usize {
        if is_slow { &mut self.running_slow } else { &mut self.running_quick }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(number: usize) -> DomainSpec {
        DomainSpec::new(DomainName::parse(&format!("d{number}.example")).unwrap())
    }

    #[test]
    fn slow_domains_take_no_place_from_the_others() {
        let mut slots = CheckSlots::new(8);
        assert_eq!((slots.free(true), slots.free(false)), (2, 8), "a quarter of the slots in addition");
        slots.take(true);
        slots.take(true);
        assert_eq!((slots.free(true), slots.free(false)), (0, 8));
        (0..8).for_each(|_| slots.take(false));
        assert!(!slots.has_room() && slots.free(false) == 0);
        slots.give_back(false);
        assert!(!slots.has_room() && slots.free(false) == 1, "more domains are claimed together");
        slots.give_back(false);
        assert!(slots.has_room());
        slots.give_back(true);
        assert_eq!(slots.free(true), 1);
        let least = CheckSlots::new(0);
        assert_eq!((least.free(true), least.free(false), least.has_room()), (1, 1, true));
    }

    #[test]
    fn a_domain_is_checked_once_at_a_time() {
        let (mut slots, one) = (CheckSlots::new(1), spec(1));
        assert!(slots.claim(&one) && !slots.claim(&one));
        slots.release(&one.name);
        assert!(slots.claim(&one));
    }
}
