//! Limits the rate of new certificate orders at a CA. CAs count new orders, and refuse all of them for a while when
//! there are too many. CAs with renewal information exempt renewals (RFC 9773 §5). The budget is in the store, for all
//! processes together.

use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use serde::{Deserialize, Serialize};

/// The budget of new orders and of renewals at one CA.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderBudget {
    /// As configured now.
    #[serde(skip)]
    per_hour: u32,
    /// New orders that may be started now, with fractions.
    left: f64,
    counted_at: Option<Timestamp>,
    /// Renewals that may be started now, with fractions.
    renewals_left: f64,
    renewals_counted_at: Option<Timestamp>,
    held_until: Option<Timestamp>,
}

/// The largest budget that accumulates while nothing is ordered, in hours' worth of orders.
const BURST_HOURS: f64 = 2.0;
/// How many renewals are allowed for each new order. CAs do not count them, but have to serve them.
const RENEWALS_FACTOR: f64 = 20.0;
/// The part of an hour's renewals that may be started at once.
const BURSTS_PER_HOUR: f64 = 60.0;
/// How long no orders are sent after the CA reported a rate limit.
const RATE_LIMIT_HOLD: SignedDuration = SignedDuration::from_mins(15);

impl OrderBudget {
    /// What is stored, with the configured number of new orders an hour; a new budget if nothing is.
    pub fn stored(stored: Option<Self>, per_hour: u32) -> Self {
        stored.map_or_else(|| Self::new(per_hour), |stored| Self { per_hour, ..stored })
    }

    /// Creates a budget of `per_hour` new orders an hour. It starts with one hour's worth, since orders by an earlier
    /// release are unknown.
    pub fn new(per_hour: u32) -> Self {
        let left = f64::from(per_hour);
        Self {
            per_hour,
            left,
            counted_at: None,
            renewals_left: left * RENEWALS_FACTOR / BURSTS_PER_HOUR,
            renewals_counted_at: None,
            held_until: None,
        }
    }

    /// Spends one renewal, if one may be started at `now`. When a CA wants all certificates replaced at once, this spreads
    /// their orders.
    pub fn try_renewal(&mut self, now: Timestamp) -> bool {
        if !self.is_open(now) {
            return false;
        }
        let before = self.renewals_counted_at.replace(now);
        let since = before.map_or(0.0, |before| now.duration_since(before).as_secs_f64());
        let rate = f64::from(self.per_hour) * RENEWALS_FACTOR;
        let most = (rate / BURSTS_PER_HOUR).max(1.0);
        self.renewals_left = (self.renewals_left + since.max(0.0) * rate / 3600.0).min(most);
        let is_left = self.renewals_left >= 1.0;
        if is_left {
            self.renewals_left -= 1.0;
        }
        is_left
    }

    /// The number of new orders that may be started at `now`.
    pub fn remaining(&mut self, now: Timestamp) -> u32 {
        if !self.is_open(now) {
            return 0;
        }
        let since =
            self.counted_at.replace(now).map_or(0.0, |before| now.duration_since(before).as_secs_f64());
        let rate = f64::from(self.per_hour);
        self.left = (self.left + since.max(0.0) * rate / 3600.0).min(rate * BURST_HOURS);
        self.left as u32
    }

    /// True unless orders are paused.
    pub fn is_open(&self, now: Timestamp) -> bool {
        // A pause that ends later than a whole pause from now was begun by a clock that was ahead.
        self.held_until.is_none_or(|until| until <= now || until > later(now, RATE_LIMIT_HOLD))
    }

    /// Deducts one new order from the budget.
    pub fn spend(&mut self) {
        self.left = (self.left - 1.0).max(0.0);
    }

    /// Pauses all orders after the CA reported a rate limit.
    pub fn pause(&mut self, now: Timestamp) {
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
    fn an_hours_worth_is_available_at_once_and_then_one_order_at_a_time() {
        let mut budget = OrderBudget::new(100);
        assert_eq!(budget.remaining(at(0)), 100);
        (0..100).for_each(|_| budget.spend());
        assert_eq!(budget.remaining(at(0)), 0);
        assert_eq!(budget.remaining(at(35)), 0);
        assert_eq!(budget.remaining(at(36)), 1);
        assert_eq!(budget.remaining(at(86_400)), 200, "at most two hours' worth accumulates");
        assert_eq!(budget.remaining(at(0)), 200, "setting the clock back does not reduce the budget");
    }

    #[test]
    fn what_is_stored_counts_after_a_restart_and_the_configured_rate_from_then_on() {
        let mut budget = OrderBudget::stored(None, 10);
        assert_eq!(budget.remaining(at(0)), 10);
        (0..10).for_each(|_| budget.spend());
        budget.pause(at(0));
        let json = serde_json::to_string(&budget).unwrap();
        let mut restarted = OrderBudget::stored(Some(serde_json::from_str(&json).unwrap()), 100);
        assert!(!restarted.is_open(at(899)));
        assert_eq!(
            (restarted.remaining(at(900)), restarted.remaining(at(900 + 36))),
            (25, 26),
            "100 an hour"
        );
    }

    #[test]
    fn renewals_have_a_pace_of_their_own() {
        let mut budget = OrderBudget::new(3);
        let started =
            |budget: &mut OrderBudget, second| (0..1000).filter(|_| budget.try_renewal(at(second))).count();
        assert_eq!(started(&mut budget, 0), 1);
        assert_eq!(started(&mut budget, 60), 1, "60 an hour are one a minute");
        assert_eq!(started(&mut budget, 3600), 1, "nothing accumulates");
        assert_eq!(budget.remaining(at(3600)), 3, "new orders are counted by themselves");
        budget.pause(at(3600));
        assert_eq!(started(&mut budget, 3700), 0);
        let mut budget = OrderBudget::new(100);
        assert_eq!(started(&mut budget, 0), 33);
    }

    #[test]
    fn a_rate_limit_pauses_orders_at_that_ca() {
        let mut budget = OrderBudget::new(100);
        budget.pause(at(0));
        assert!(!budget.is_open(at(899)) && budget.remaining(at(899)) == 0);
        assert!(budget.is_open(at(900)));
        assert_eq!(budget.remaining(at(900 + 36)), 0);
        assert_eq!(budget.remaining(at(900 + 36 + 36)), 1);
        // The clock was a year ahead.
        budget.pause(at(31_536_000));
        assert!(budget.is_open(at(0)));
    }
}
