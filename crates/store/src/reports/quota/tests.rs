use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

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

/// Inserts an item as the quarantine does. False if it is refused.
fn insert(items: &mut Vec<Item>, id: i64, source: &str, size: u64, quota: &Quota) -> bool {
    let Some(evicted) = make_room(items, source, size, quota) else { return false };
    items.retain(|item| !evicted.contains(&item.id));
    items.push(Item { id, source: source.to_owned(), size });
    true
}

/// A floor of 15 bytes and no items.
const QUOTA: Quota = Quota { bytes: 1000, items: 40 };
/// A floor of 100 bytes and 10 items.
const WIDE: Quota = Quota { bytes: 6400, items: 640 };

proptest! {
    /// Plays inserts from many sources. After each, the total and the inserting source are within their limits, and each
    /// source has lost its oldest items first.
    #[test]
    fn the_quota_holds_after_each_insert(
        inserts in proptest::collection::vec((0usize..12, 1u64..=260), 1..150)
    ) {
        let mut items: Vec<Item> = Vec::new();
        for (id, (source, size)) in (0i64..).zip(inserts) {
            let (source, before) = (format!("s{source}"), items.clone());
            let is_kept = insert(&mut items, id, &source, size, &QUOTA);
            prop_assert!(is_kept || size > QUOTA.floor().bytes, "only a large item is refused");
            prop_assert!(is_kept || items == before);
            let all = total(&items);
            prop_assert!(all.0 <= QUOTA.bytes && all.1 <= QUOTA.items);
            if let Some(own) = used(&items).get(&source) {
                prop_assert!(own.0 <= QUOTA.bytes / 4 && own.1 <= QUOTA.items / 4);
            }
            for (at, gone) in before.iter().enumerate().filter(|(_, item)| !items.contains(item)) {
                let older = before[..at].iter().filter(|item| item.source == gone.source);
                prop_assert!(older.clone().all(|item| !items.contains(item)), "the oldest goes first");
            }
        }
    }

    /// However many sources a flood has, sources that were there before it and use no more than their floor lose nothing.
    #[test]
    fn a_flood_from_many_sources_never_evicts_an_item_of_an_older_source_below_its_floor(
        older in proptest::collection::vec((0usize..57, 1u64..=40), 1..200),
        flood in proptest::collection::vec((0usize..400, 1u64..=1600), 1..600),
    ) {
        let mut items: Vec<Item> = Vec::new();
        let floor = WIDE.floor();
        let mut id = 0;
        for (source, size) in older {
            let source = format!("older{source}");
            let (bytes, count) = used(&items).get(&source).copied().unwrap_or_default();
            if floor.has_room_for(bytes + size, count + 1) {
                prop_assert!(insert(&mut items, id, &source, size, &WIDE));
                id += 1;
            }
        }
        let before = items.clone();
        for (source, size) in flood {
            insert(&mut items, id, &format!("flood{source}"), size, &WIDE);
            id += 1;
            prop_assert!(before.iter().all(|item| items.contains(item)));
            // The same for reports, which are stored first and removed afterwards.
            let mut stored = items.clone();
            stored.push(Item { id, source: format!("flood{source}"), size });
            let evicted = shrink(&stored, &WIDE);
            prop_assert!(before.iter().all(|item| !evicted.contains(&item.id)));
        }
    }

    #[test]
    fn a_flood_from_one_source_never_evicts_the_item_of_a_smaller_one(
        flood in proptest::collection::vec(50u64..=250, 1..200)
    ) {
        let mut items = vec![Item { id: 0, source: "small".into(), size: 40 }];
        for (id, size) in (1i64..).zip(flood) {
            prop_assert!(insert(&mut items, id, "flood", size, &QUOTA));
        }
        prop_assert_eq!(items[0].id, 0);
    }

    #[test]
    fn shrinking_removes_nothing_without_need_and_then_no_more_than_down_to_the_goal(
        sizes in proptest::collection::vec((0usize..5, 1u64..=100), 0..60)
    ) {
        let items: Vec<Item> = (0i64..).zip(&sizes)
            .map(|(id, (source, size))| Item { id, source: source.to_string(), size: *size }).collect();
        let (evicted, before) = (shrink(&items, &QUOTA), total(&items));
        prop_assert_eq!(evicted.is_empty(), before.0 <= QUOTA.bytes && before.1 <= QUOTA.items);
        let left: Vec<Item> = items.iter().filter(|item| !evicted.contains(&item.id)).cloned().collect();
        let (all, goal) = (total(&left), QUOTA.goal());
        prop_assert!(all.0 <= QUOTA.bytes && all.1 <= QUOTA.items);
        if let Some(last) = evicted.last() {
            let size = items.iter().find(|item| item.id == *last).unwrap().size;
            prop_assert!(all.0 + size > goal.bytes || all.1 + 1 > goal.items);
        }
    }
}

#[test]
fn the_largest_source_loses_its_oldest_items_first() {
    let item = |id, source: &str, size| Item { id, source: source.into(), size };
    let items = [item(1, "a", 300), item(2, "b", 400), item(3, "b", 300), item(4, "c", 100)];
    assert_eq!(shrink(&items, &Quota { bytes: 1000, items: 40 }), [2]);
    // Of equally large ones, the newest source.
    let items = [item(1, "a", 400), item(2, "b", 400), item(3, "c", 400)];
    assert_eq!(shrink(&items, &Quota { bytes: 1000, items: 40 }), [3]);
}

/// Would take hours if each eviction looked at all sources: 158,000 of them for each of 8,000 items.
#[test]
fn q1_room_is_made_among_very_many_sources() {
    let items: Vec<Item> =
        (0i64..158_000).map(|id| Item { id, source: format!("s{id}.example"), size: 1000 }).collect();
    let evicted = shrink(&items, &Quota { bytes: 157_900_000, items: 200_000 });
    assert_eq!((evicted.len(), evicted[0]), (7995, 157_999));
}
