//! Which domains the guard checks now, and which wait. Domains whose last check was slow have a few slots of their own:
//! however many of them hang, they take no slot from the others.

use formats::DomainName;
use receiver::domain::DomainSpec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The part of the slots for quick domains that slow domains have in addition.
const SLOW_SHARE: usize = 4;

/// The slots for checks, and what is remembered of domains between their checks.
#[derive(Debug)]
pub struct CheckSlots {
    /// The number of slots for quick domains, at least 1.
    quick: usize,
    /// Domains whose check or plan has not ended yet, or that wait for a slot.
    busy: BTreeSet<DomainName>,
    /// Domains whose last check was slow.
    slow: BTreeSet<DomainName>,
    /// Slow domains that wait for a slot.
    waiting: VecDeque<DomainSpec>,
    /// The number of checks that failed in a row.
    failed: BTreeMap<DomainName, u32>,
    /// Running checks of quick domains.
    running_quick: usize,
    /// Running checks of slow domains.
    running_slow: usize,
}

impl CheckSlots {
    /// Slots for this many quick domains at once.
    pub fn new(at_once: usize) -> Self {
        Self {
            quick: at_once.max(1),
            busy: BTreeSet::new(),
            slow: BTreeSet::new(),
            waiting: VecDeque::new(),
            failed: BTreeMap::new(),
            running_quick: 0,
            running_slow: 0,
        }
    }

    /// Marks a domain as busy; false if it was busy already, so that it is not checked again now.
    pub fn claim(&mut self, spec: &DomainSpec) -> bool {
        self.busy.insert(spec.name.clone())
    }

    /// Lets a claimed domain wait for a slot of slow domains, if its last check was slow.
    pub fn queue_if_slow(&mut self, spec: &DomainSpec) -> bool {
        let is_slow = self.slow.contains(&spec.name);
        if is_slow {
            self.waiting.push_back(spec.clone());
        }
        is_slow
    }

    /// Whether another quick domain can be checked now.
    pub fn has_quick_slot(&self) -> bool {
        self.running_quick < self.quick
    }

    /// The next slow domain that has a slot.
    pub fn next_slow(&mut self) -> Option<DomainSpec> {
        let slots = (self.quick / SLOW_SHARE).max(1);
        if self.running_slow < slots { self.waiting.pop_front() } else { None }
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

    /// Remembers whether the last check of a domain was slow.
    pub fn set_slow(&mut self, domain: &DomainName, is_slow: bool) {
        match is_slow {
            true => drop(self.slow.insert(domain.clone())),
            false => drop(self.slow.remove(domain)),
        }
    }

    /// Records that the check and the plan of a domain have ended, so that it may be checked again.
    pub fn release(&mut self, domain: &DomainName) {
        self.busy.remove(domain);
    }

    /// Counts a failed check, and returns how many have failed in a row.
    pub fn count_failure(&mut self, domain: &DomainName) -> u32 {
        let count = self.failed.entry(domain.clone()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    /// Forgets failed checks, since one has succeeded.
    pub fn clear_failures(&mut self, domain: &DomainName) {
        self.failed.remove(domain);
    }

    /// Forgets domains that are not known any more.
    pub fn keep_only(&mut self, known: &BTreeSet<&str>) {
        self.failed.retain(|domain, _| known.contains(domain.as_str()));
        self.slow.retain(|domain| known.contains(domain.as_str()));
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
        for number in 0..100 {
            slots.set_slow(&spec(number).name, true);
            assert!(slots.claim(&spec(number)) && slots.queue_if_slow(&spec(number)));
        }
        let mut started = 0;
        while slots.next_slow().is_some() {
            slots.take(true);
            started += 1;
        }
        assert_eq!(started, 2, "a quarter of the slots");
        for number in 100..108 {
            assert!(slots.has_quick_slot() && slots.claim(&spec(number)));
            assert!(!slots.queue_if_slow(&spec(number)));
            slots.take(false);
        }
        assert!(!slots.has_quick_slot());
        slots.give_back(true);
        assert_eq!(slots.next_slow().map(|next| next.name), Some(spec(2).name), "in their order");
        assert!(!slots.has_quick_slot());
        slots.give_back(false);
        assert!(slots.has_quick_slot());
    }

    #[test]
    fn a_domain_is_checked_once_at_a_time_and_its_failures_are_counted_in_a_row() {
        let (mut slots, one) = (CheckSlots::new(0), spec(1));
        assert!(slots.has_quick_slot(), "at least one");
        assert!(slots.claim(&one) && !slots.claim(&one));
        assert_eq!([slots.count_failure(&one.name), slots.count_failure(&one.name)], [1, 2]);
        slots.release(&one.name);
        slots.clear_failures(&one.name);
        assert!(slots.claim(&one) && slots.count_failure(&one.name) == 1);
        slots.keep_only(&BTreeSet::new());
        assert_eq!(slots.count_failure(&one.name), 1);
    }
}
