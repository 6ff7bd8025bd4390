//! A set of UIDs as ranges, so that a mailbox of a million messages, or a server that claims four billion, takes little
//! memory. The number of ranges is bounded by [`IMAP_UID_RANGES`].

use crate::limits::IMAP_UID_RANGES;

/// UIDs of messages (RFC 9051 §2.3.1.1). 0 is not a UID, and never a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UidSet {
    /// First and last UID of each range; sorted, without overlap, and without neighbors that touch.
    ranges: Vec<(u32, u32)>,
    is_complete: bool,
}

impl Default for UidSet {
    fn default() -> Self {
        Self { ranges: Vec::new(), is_complete: true }
    }
}

impl UidSet {
    /// Collects ranges in any order, each from its first to its last UID. Of more than [`IMAP_UID_RANGES`] separate
    /// ranges, the lowest stay, and the set is not complete.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut set = Self::default();
        for (first, last) in ranges {
            let (first, last) = (first.min(last).max(1), first.max(last));
            if last == 0 {
                continue;
            }
            match set.ranges.last_mut() {
                // Most servers answer in order.
                Some(end) if end.0 <= first && first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
                _ => set.ranges.push((first, last)),
            }
            if set.ranges.len() >= 2 * IMAP_UID_RANGES {
                set.compact();
            }
        }
        set.compact();
        set
    }

    /// Sorts and joins the ranges, and drops the highest beyond the limit.
    fn compact(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, kept| {
            let is_joined = next.0 <= kept.1.saturating_add(1);
            if is_joined {
                kept.1 = kept.1.max(next.1);
            }
            is_joined
        });
        if self.ranges.len() > IMAP_UID_RANGES {
            self.ranges.truncate(IMAP_UID_RANGES);
            self.is_complete = false;
        }
    }

    /// False if members are missing: there were too many, or the response was not understood to its end.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Records that members are missing.
    pub fn set_incomplete(&mut self) {
        self.is_complete = false;
    }

    /// True without any member.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The number of members.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    /// The number of ranges, which determines the memory.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// The highest member.
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|(_, last)| *last)
    }

    /// True if the UID is a member.
    pub fn contains(&self, uid: u32) -> bool {
        let at = self.ranges.partition_point(|(_, last)| *last < uid);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= uid)
    }

    /// The members in ascending order, produced one by one.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }

    /// Adds a UID. At the limit of ranges, the gaps within the lower half of them are added too.
    pub fn insert(&mut self, uid: u32) {
        if uid == 0 || self.contains(uid) {
            return;
        }
        let at = self.ranges.partition_point(|(_, last)| *last < uid);
        let touches_before = at.checked_sub(1).and_then(|before| self.ranges.get(before));
        let touches_before = touches_before.is_some_and(|(_, last)| last.checked_add(1) == Some(uid));
        let touches_after = self.ranges.get(at).is_some_and(|(first, _)| uid.checked_add(1) == Some(*first));
        match (touches_before, touches_after) {
            (true, true) => {
                let (_, last) = self.ranges.remove(at);
                self.extend(at - 1, last);
            }
            (true, false) => self.extend(at - 1, uid),
            (false, true) => {
                if let Some(range) = self.ranges.get_mut(at) {
                    range.0 = uid;
                }
            }
            (false, false) => self.ranges.insert(at, (uid, uid)),
        }
        if self.ranges.len() > IMAP_UID_RANGES {
            let lowest = self.ranges.drain(..IMAP_UID_RANGES / 2).next();
            if let (Some((lowest, _)), Some(range)) = (lowest, self.ranges.first_mut()) {
                range.0 = lowest;
            }
        }
    }

    /// Moves the end of a range up.
    fn extend(&mut self, at: usize, last: u32) {
        if let Some(range) = self.ranges.get_mut(at) {
            range.1 = last;
        }
    }

    /// Removes a UID.
    pub fn remove(&mut self, uid: u32) {
        *self = self.without(&Self::from_ranges([(uid, uid)]));
    }

    /// Adds all members of another set.
    pub fn join(&mut self, other: Self) {
        let is_complete = self.is_complete && other.is_complete;
        let mine = std::mem::take(&mut self.ranges);
        *self = Self::from_ranges(mine.into_iter().chain(other.ranges));
        self.is_complete &= is_complete;
    }

    /// The members that are also in `other`.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut shared = Vec::new();
        let mut others = other.ranges.iter().copied().peekable();
        for (first, last) in &self.ranges {
            while let Some((from, to)) = others.peek().copied() {
                if from <= *last && *first <= to {
                    shared.push((from.max(*first), to.min(*last)));
                }
                if to > *last {
                    break;
                }
                others.next();
            }
        }
        Self { is_complete: self.is_complete, ..Self::from_ranges(shared) }
    }

    /// The members that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.ranges.iter().copied().peekable();
        for (first, last) in &self.ranges {
            let mut from = Some(*first);
            while let (Some(start), Some((cut, to))) = (from, others.peek().copied()) {
                if cut > *last {
                    break;
                }
                if to >= start {
                    left.extend(cut.checked_sub(1).filter(|end| *end >= start).map(|end| (start, end)));
                    from = to.checked_add(1).filter(|next| next <= last);
                }
                if to > *last {
                    break;
                }
                others.next();
            }
            left.extend(from.map(|start| (start, *last)));
        }
        let set = Self::from_ranges(left);
        Self { is_complete: self.is_complete && set.is_complete, ..set }
    }

    /// The members above a UID.
    #[must_use]
    pub fn above(&self, uid: u32) -> Self {
        self.without(&Self::from_ranges([(1, uid)].into_iter().filter(|_| uid > 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn members(set: &UidSet) -> Vec<u32> {
        set.iter().collect()
    }

    #[test]
    fn a_set_of_four_billion_uids_is_one_range_and_is_iterated_one_by_one() {
        let all = UidSet::from_ranges([(1, u32::MAX)]);
        assert_eq!((all.range_count(), all.len()), (1, u64::from(u32::MAX)));
        assert_eq!(all.iter().take(3).collect::<Vec<_>>(), [1, 2, 3]);
        let rest = all.without(&UidSet::from_ranges([(1, 10), (u32::MAX, u32::MAX)]));
        assert_eq!((rest.iter().next(), rest.last()), (Some(11), Some(u32::MAX - 1)));
        assert!(all.contains(u32::MAX) && !all.contains(0));
        assert_eq!(all.above(u32::MAX), UidSet::default());
    }

    #[test]
    fn zero_is_not_a_uid_and_duplicates_count_once() {
        let set = UidSet::from_ranges([(0, 0), (7, 7), (0, 2), (7, 7), (4, 3)]);
        assert_eq!(members(&set), [1, 2, 3, 4, 7]);
        assert_eq!(set.len(), 5);
    }

    #[test]
    fn of_too_many_ranges_the_lowest_stay_and_the_set_is_not_complete() {
        let limit = u32::try_from(IMAP_UID_RANGES).unwrap();
        // Descending order is the worst case for sorting.
        let set = UidSet::from_ranges((1..=3 * limit).rev().map(|number| (2 * number, 2 * number)));
        assert_eq!(
            (set.range_count(), set.is_complete(), set.last()),
            (IMAP_UID_RANGES, false, Some(2 * limit))
        );
        let mut full = UidSet::from_ranges((1..=limit).map(|number| (2 * number, 2 * number)));
        assert!(full.is_complete());
        full.insert(2 * limit + 2);
        assert!(full.range_count() <= IMAP_UID_RANGES && full.contains(3));
        assert!(full.contains(2 * limit) && !full.contains(2 * limit - 1));
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets_of_numbers(
            one in prop::collection::vec((1_u32..40, 1_u32..40), 0..6),
            other in prop::collection::vec((1_u32..40, 1_u32..40), 0..6),
            single in 1_u32..40,
        ) {
            let numbers = |ranges: &[(u32, u32)]| -> BTreeSet<u32> {
                ranges.iter().flat_map(|(a, b)| *a.min(b)..=*a.max(b)).collect()
            };
            let (a, b) = (UidSet::from_ranges(one.clone()), UidSet::from_ranges(other.clone()));
            let (x, y) = (numbers(&one), numbers(&other));
            prop_assert_eq!(members(&a), x.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&a.without(&b)), x.difference(&y).copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&a.intersection(&b)), x.intersection(&y).copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&a.above(single)), x.range(single + 1..).copied().collect::<Vec<_>>());
            prop_assert_eq!(a.contains(single), x.contains(&single));
            let mut joined = a.clone();
            joined.join(b);
            prop_assert_eq!(members(&joined), x.union(&y).copied().collect::<Vec<_>>());
            let (mut more, mut fewer) = (a.clone(), a);
            more.insert(single);
            fewer.remove(single);
            let with: BTreeSet<u32> = x.iter().copied().chain([single]).collect();
            prop_assert_eq!(&more, &UidSet::from_ranges(with.iter().map(|uid| (*uid, *uid))));
            prop_assert_eq!(members(&fewer), x.iter().copied().filter(|uid| *uid != single).collect::<Vec<_>>());
        }
    }
}
