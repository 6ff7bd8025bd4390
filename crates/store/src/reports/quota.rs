//! Which stored items make room for others. What strangers send is limited in bytes and in number; once a limit is
//! reached, the source that uses most loses its oldest item. So a flood pushes out itself, and never the few items of
//! somebody else. The functions are pure; `quarantine` and `retention` read the items and delete those chosen here.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// The limits for all items together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The maximum size of all items in bytes.
    pub bytes: u64,
    /// The maximum number of items.
    pub items: u64,
}

/// One source may use this part of a quota: a quarter.
const SHARES: u64 = 4;

impl Quota {
    /// The limits for one source.
    pub fn share(&self) -> Self {
        Self { bytes: self.bytes / SHARES, items: self.items / SHARES }
    }

    fn has_room_for(&self, bytes: u64, items: u64) -> bool {
        bytes <= self.bytes && items <= self.items
    }
}

/// A stored item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub id: i64,
    /// Who caused it.
    pub source: String,
    /// The size in bytes.
    pub size: u64,
}

/// The items of one source, oldest first.
#[derive(Default)]
struct Contributor {
    bytes: u64,
    count: u64,
    items: VecDeque<(i64, u64)>,
}

impl Contributor {
    /// Removes the oldest item, and returns its id and size.
    fn evict(&mut self) -> Option<(i64, u64)> {
        let (id, size) = self.items.pop_front()?;
        self.bytes -= size;
        self.count -= 1;
        Some((id, size))
    }
}

/// All items by source.
struct Contributors<'i> {
    by_source: BTreeMap<&'i str, Contributor>,
    bytes: u64,
    count: u64,
    evicted: Vec<i64>,
}

impl<'i> Contributors<'i> {
    /// `items` are ordered by id, oldest first.
    fn new(items: &'i [Item]) -> Self {
        let mut all = Self { by_source: BTreeMap::new(), bytes: 0, count: 0, evicted: Vec::new() };
        for item in items {
            all.add(&item.source, item.size).items.push_back((item.id, item.size));
        }
        all
    }

    fn add(&mut self, source: &'i str, size: u64) -> &mut Contributor {
        self.bytes = self.bytes.saturating_add(size);
        self.count += 1;
        let contributor = self.by_source.entry(source).or_default();
        contributor.bytes = contributor.bytes.saturating_add(size);
        contributor.count += 1;
        contributor
    }

    /// Evicts the oldest item of a source; false if it has none.
    fn evict(&mut self, source: &str) -> bool {
        let Some((id, size)) = self.by_source.get_mut(source).and_then(Contributor::evict) else {
            return false;
        };
        self.bytes -= size;
        self.count -= 1;
        self.evicted.push(id);
        true
    }

    /// Evicts items of the largest sources until all fit into `quota`; false if they do not although none is left.
    fn shrink_to(&mut self, quota: &Quota) -> bool {
        while !quota.has_room_for(self.bytes, self.count) {
            let by_bytes = self.bytes > quota.bytes;
            let weight = |one: &Contributor| if by_bytes { one.bytes } else { one.count };
            let with_items =
                self.by_source.iter().filter_map(|(source, one)| Some((source, one, one.items.front()?.0)));
            let largest = with_items.max_by_key(|(_, one, oldest)| (weight(one), Reverse(*oldest)));
            let Some(source) = largest.map(|(source, ..)| *source) else { return false };
            self.evict(source);
        }
        true
    }
}

/// Chooses the items that make room for a new one. `items` are ordered by id. `None` if the new item alone exceeds the
/// share of its source.
pub(super) fn make_room(items: &[Item], source: &str, size: u64, quota: &Quota) -> Option<Vec<i64>> {
    let mut all = Contributors::new(items);
    all.add(source, size);
    let share = quota.share();
    let is_over = |all: &Contributors<'_>| {
        all.by_source.get(source).is_some_and(|own| !share.has_room_for(own.bytes, own.count))
    };
    while is_over(&all) {
        if !all.evict(source) {
            return None;
        }
    }
    all.shrink_to(quota).then_some(all.evicted)
}

/// Chooses the items to remove so that the others fit into `quota`. `items` are ordered by id.
pub(super) fn shrink(items: &[Item], quota: &Quota) -> Vec<i64> {
    let mut all = Contributors::new(items);
    all.shrink_to(quota);
    all.evicted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The sums of the items by source: bytes and number.
    fn used(items: &[Item]) -> BTreeMap<String, (u64, u64)> {
        let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for item in items {
            let one = all.entry(item.source.clone()).or_default();
            *one = (one.0 + item.size, one.1 + 1);
        }
        all
    }

    fn total(items: &[Item]) -> (u64, u64) {
        used(items).values().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    const QUOTA: Quota = Quota { bytes: 1000, items: 40 };

    proptest! {
        /// Plays inserts from many sources. After each, the total and the inserting source are within their limits. An item
        /// was evicted only from the inserting source, or from one that no other source with items exceeded.
        #[test]
        fn the_quota_holds_after_each_insert_and_only_the_largest_source_loses(
            inserts in proptest::collection::vec((0usize..12, 1u64..=260), 1..150)
        ) {
            let mut items: Vec<Item> = Vec::new();
            for (id, (source, size)) in (0i64..).zip(inserts) {
                let source = format!("s{source}");
                let Some(evicted) = make_room(&items, &source, size, &QUOTA) else {
                    prop_assert!(size > QUOTA.share().bytes);
                    continue;
                };
                for gone in evicted {
                    let at = items.iter().position(|item| item.id == gone).unwrap();
                    let loser = items[at].source.clone();
                    prop_assert!(items[..at].iter().all(|item| item.source != loser), "the oldest goes first");
                    if loser != source {
                        let (bytes, count) = used(&items)[&loser];
                        let larger_bytes = used(&items).values().any(|one| one.0 > bytes);
                        let larger_count = used(&items).values().any(|one| one.1 > count);
                        let all = total(&items);
                        let by_bytes = all.0 + size > QUOTA.bytes;
                        let is_larger_left = if by_bytes { larger_bytes } else { larger_count };
                        prop_assert!(!is_larger_left, "a larger source keeps its items");
                        prop_assert!(by_bytes || all.1 + 1 > QUOTA.items, "nothing goes without need");
                    }
                    items.remove(at);
                }
                items.push(Item { id, source: source.clone(), size });
                let all = total(&items);
                prop_assert!(all.0 <= QUOTA.bytes && all.1 <= QUOTA.items);
                let own = used(&items)[&source];
                prop_assert!(own.0 <= QUOTA.bytes / 4 && own.1 <= QUOTA.items / 4);
            }
        }

        #[test]
        fn a_flood_never_evicts_the_item_of_a_smaller_source(
            flood in proptest::collection::vec(50u64..=250, 1..200)
        ) {
            let mut items = vec![Item { id: 0, source: "small".into(), size: 40 }];
            for (id, size) in (1i64..).zip(flood) {
                let evicted = make_room(&items, "flood", size, &QUOTA).unwrap();
                items.retain(|item| !evicted.contains(&item.id));
                items.push(Item { id, source: "flood".into(), size });
            }
            prop_assert_eq!(items[0].id, 0);
        }

        #[test]
        fn shrinking_removes_no_more_than_needed(
            sizes in proptest::collection::vec((0usize..5, 1u64..=100), 0..60)
        ) {
            let items: Vec<Item> = (0i64..).zip(&sizes)
                .map(|(id, (source, size))| Item { id, source: source.to_string(), size: *size }).collect();
            let evicted = shrink(&items, &QUOTA);
            let left: Vec<Item> = items.iter().filter(|item| !evicted.contains(&item.id)).cloned().collect();
            let all = total(&left);
            prop_assert!(all.0 <= QUOTA.bytes && all.1 <= QUOTA.items);
            if let Some(last) = evicted.last() {
                let size = items.iter().find(|item| item.id == *last).unwrap().size;
                prop_assert!(all.0 + size > QUOTA.bytes || all.1 + 1 > QUOTA.items);
            }
        }
    }
}
