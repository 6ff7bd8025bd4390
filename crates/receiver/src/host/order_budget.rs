//! How many certificates are asked for in which time: authorities count new orders, and refuse all of them for a while
//! when there are too many. Renewals are not counted by those that tell when to renew (RFC 9773 §5).

use jiff::{SignedDuration, Timestamp};
use net::clock::later;

/// The budget of new orders at one authority.
#[derive(Debug)]
pub struct OrderBudget {
    per_hour: u32,
    /// Orders that may be begun now, in thousandths of one and by the hour's share.
    left: f64,
    counted_at: Option<Timestamp>,
    held_until: Option<Timestamp>,
}

/// What is saved up while nothing is ordered, in hours' worth.
const BURST_HOURS: f64 = 2.0;
/// After the authority has said that there were too many.
const RATE_LIMIT_HOLD: SignedDuration = SignedDuration::from_mins(15);

impl OrderBudget {
    /// So many new orders an hour. It begins with an hour's worth: what was ordered before a restart is not known.
    pub fn new(per_hour: u32) -> Self {
        Self { per_hour, left: f64::from(per_hour), counted_at: None, held_until: None }
    }

    /// New orders that may be begun at `now`.
    pub fn room(&mut self, now: Timestamp) -> u32 {
        if !self.is_open(now) {
            return 0;
        }
        let since =
            self.counted_at.replace(now).map_or(0.0, |before| now.duration_since(before).as_secs_f64());
        let rate = f64::from(self.per_hour);
        self.left = (self.left + since.max(0.0) * rate / 3600.0).min(rate * BURST_HOURS);
        self.left as u32
    }

    /// True while the authority takes orders at all.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.held_until.is_none_or(|until| until <= now)
    }

    /// A new order was begun.
    pub fn spend(&mut self) {
        self.left = (self.left - 1.0).max(0.0);
    }

    /// The authority says that there were too many.
    pub fn hold(&mut self, now: Timestamp) {
        self.held_until = Some(later(now, RATE_LIMIT_HOLD));
        self.left = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn an_hours_worth_at_once_and_then_one_after_the_other() {
        let mut pace = OrderBudget::new(100);
        assert_eq!(pace.room(at(0)), 100);
        (0..100).for_each(|_| pace.spend());
        assert_eq!(pace.room(at(0)), 0);
        assert_eq!(pace.room(at(35)), 0);
        assert_eq!(pace.room(at(36)), 1);
        assert_eq!(pace.room(at(86_400)), 200, "no more than two hours' worth is saved up");
        assert_eq!(pace.room(at(0)), 200, "a clock that is set back takes nothing away");
    }

    #[test]
    fn an_authority_that_has_had_too_many_is_left_alone_for_a_while() {
        let mut pace = OrderBudget::new(100);
        pace.hold(at(0));
        assert!(!pace.is_open(at(899)) && pace.room(at(899)) == 0);
        assert!(pace.is_open(at(900)));
        assert_eq!(pace.room(at(900 + 36)), 0);
        assert_eq!(pace.room(at(900 + 36 + 36)), 1);
    }
}
