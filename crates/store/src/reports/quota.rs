//! Which stored items make room for others. What strangers send is limited in bytes and in number.
//!
//! Once a limit is reached, the source that uses most loses its oldest item, until [`Quota::goal`] is reached: so a flood
//! from one source pushes out itself. A source that uses no more than its [floor](Quota::floor) is safe from that, since
//! a flood may come from many sources with one item each. If all sources are that small, the newest source loses: so a
//! new source never pushes out those that were there before it, unless they fill nearly all of the quota.
//!
//! The choices are pure functions, and take `n log n` steps for `n` items. `quarantine` and `retention` read the items, call them
//! through [`computed`], and delete the items that they choose.

use crate::{StoreError, damaged};
use std::collections::{BinaryHeap, HashMap, VecDeque};

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

/// A source that uses no more than this part of a quota loses nothing to newer sources: a sixty-fourth.
const FLOORS: u64 = 64;

/// This part of a quota becomes free when it is exceeded, so that not every insert has to make room: a twentieth.
const SPARE: u64 = 20;

impl Quota {
    /// The limits for one source.
    pub fn share(&self) -> Self {
        self.part(SHARES)
    }

    /// What a source can use without losing anything to newer sources.
    pub fn floor(&self) -> Self {
        self.part(FLOORS)
    }

    /// What is left after room was made.
    fn goal(&self) -> Self {
        let spare = self.part(SPARE);
        Self { bytes: self.bytes - spare.bytes, items: self.items - spare.items }
    }

    fn part(&self, parts: u64) -> Self {
        Self { bytes: self.bytes / parts, items: self.items / parts }
    }

    pub(super) fn has_room_for(&self, bytes: u64, items: u64) -> bool {
        bytes <= self.bytes && items <= self.items
    }
}

/// A stored item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub id: i64,
    /// The source that the item is counted for.
    pub source: String,
    /// The size in bytes.
    pub size: u64,
}

/// What one source uses.
#[derive(Default)]
struct Contributor {
    bytes: u64,
    count: u64,
    /// The id and size of each stored item, oldest first.
    items: VecDeque<(i64, u64)>,
}

/// One of the two limits of a quota.
#[derive(Clone, Copy)]
enum Limit {
    Bytes,
    Items,
}

/// All items by source.
struct Contributors {
    all: Vec<Contributor>,
    bytes: u64,
    count: u64,
    evicted: Vec<i64>,
}

impl Contributors {
    /// `items` are ordered by id, oldest first. The new item, if there is one, belongs to the first contributor.
    fn new(items: &[Item], new: Option<(&str, u64)>) -> Self {
        let mut this = Self { all: Vec::new(), bytes: 0, count: 0, evicted: Vec::new() };
        let mut places: HashMap<&str, usize> = HashMap::new();
        if let Some((source, size)) = new {
            this.all.push(Contributor { bytes: size, count: 1, items: VecDeque::new() });
            (this.bytes, this.count) = (size, 1);
            places.insert(source, 0);
        }
        for item in items {
            let place = *places.entry(&item.source).or_insert_with(|| {
                this.all.push(Contributor::default());
                this.all.len() - 1
            });
            if let Some(one) = this.all.get_mut(place) {
                one.bytes = one.bytes.saturating_add(item.size);
                one.count += 1;
                one.items.push_back((item.id, item.size));
            }
            this.bytes = this.bytes.saturating_add(item.size);
            this.count += 1;
        }
        this
    }

    /// Evicts the oldest item of a source; false if it has none.
    fn evict(&mut self, place: usize) -> bool {
        let Some(one) = self.all.get_mut(place) else { return false };
        let Some((id, size)) = one.items.pop_front() else { return false };
        one.bytes = one.bytes.saturating_sub(size);
        one.count -= 1;
        self.bytes = self.bytes.saturating_sub(size);
        self.count -= 1;
        self.evicted.push(id);
        true
    }

    /// The order in which sources lose items: those above the floor by what they use, then the others. Of equal ones,
    /// the source whose oldest item is the newest.
    fn rank(&self, place: usize, limit: Limit, floor: &Quota) -> Option<(u64, i64, usize)> {
        let one = self.all.get(place)?;
        let (used, floor) = match limit {
            Limit::Bytes => (one.bytes, floor.bytes),
            Limit::Items => (one.count, floor.items),
        };
        let oldest = one.items.front().map(|(id, _)| *id);
        let weight = if used > floor { used } else { 0 };
        match oldest {
            Some(oldest) => Some((weight, oldest, place)),
            // Only a new item that is large by itself ranks without stored ones.
            None => (weight > 0).then_some((weight, i64::MAX, place)),
        }
    }

    /// Evicts items until the rest is within the goal. False if the new item itself is what uses most.
    fn shrink_to_goal(&mut self, quota: &Quota) -> bool {
        let (goal, floor) = (quota.goal(), quota.floor());
        for limit in [Limit::Bytes, Limit::Items] {
            let is_over = |this: &Self| match limit {
                Limit::Bytes => this.bytes > goal.bytes,
                Limit::Items => this.count > goal.items,
            };
            if !is_over(self) {
                continue;
            }
            let mut heap: BinaryHeap<_> =
                (0..self.all.len()).filter_map(|place| self.rank(place, limit, &floor)).collect();
            while is_over(self) {
                let Some((_, _, place)) = heap.pop() else { return false };
                if !self.evict(place) {
                    return false;
                }
                heap.extend(self.rank(place, limit, &floor));
            }
        }
        true
    }
}

/// Chooses the items that make room for a new one. `items` are ordered by id. `None` if the new item has to go itself: it
/// exceeds the share of its source, or uses more than any source that could lose something.
pub(super) fn make_room(items: &[Item], source: &str, size: u64, quota: &Quota) -> Option<Vec<i64>> {
    let mut all = Contributors::new(items, Some((source, size)));
    let share = quota.share();
    let is_over =
        |all: &Contributors| all.all.first().is_some_and(|own| !share.has_room_for(own.bytes, own.count));
    while is_over(&all) {
        if !all.evict(0) {
            return None;
        }
    }
    let fits = quota.has_room_for(all.bytes, all.count) || all.shrink_to_goal(quota);
    fits.then_some(all.evicted)
}

/// Chooses the items to remove if all together exceed `quota`. `items` are ordered by id.
pub(super) fn shrink(items: &[Item], quota: &Quota) -> Vec<i64> {
    let mut all = Contributors::new(items, None);
    if !quota.has_room_for(all.bytes, all.count) {
        all.shrink_to_goal(quota);
    }
    all.evicted
}

/// Computes on a thread that may block, since there may be some hundred thousand items.
pub(super) async fn computed<T: Send + 'static>(
    compute: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(compute).await.map_err(damaged("quarantine"))
}

#[cfg(test)]
mod tests;
