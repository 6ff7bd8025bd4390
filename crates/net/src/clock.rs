//! The current time, injected through [`Clock`] so that tests and the demo can set it. [`CalendarAge`] keeps the age of
//! cached data correct when the system clock is changed (VAL-22).

use jiff::{SignedDuration, Timestamp, TimestampArithmetic};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Adds a duration to a time, saturating at [`Timestamp::MAX`].
pub fn later(time: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// A source of the current time.
pub trait Clock: Debug + Send + Sync {
    /// The wall-clock time, which may be set forward or back.
    fn now(&self) -> Timestamp;
    /// The time since a fixed but arbitrary moment. It never decreases (monotonic).
    fn elapsed(&self) -> Duration;
}

/// The system's wall clock and monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        BEGIN.get_or_init(Instant::now).elapsed()
    }
}

/// A clock for tests, which only changes when it is set.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, Duration)>);

impl ManualClock {
    /// Creates a clock whose wall-clock time is `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new((start, Duration::ZERO)))
    }

    /// Advances both the wall-clock and the monotonic time, by seconds.
    pub fn advance(&self, seconds: u32) {
        self.set_by(i64::from(seconds));
        self.lock().1 += Duration::from_secs(u64::from(seconds));
    }

    /// Steps the wall clock forward or back by seconds; the monotonic time stays.
    pub fn set_by(&self, seconds: i64) {
        let now = &mut self.lock().0;
        *now = later(*now, SignedDuration::from_secs(seconds));
    }

    fn lock(&self) -> MutexGuard<'_, (Timestamp, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn elapsed(&self) -> Duration {
        self.lock().1
    }
}

/// A wall clock for the age of cached data, corrected for steps of the system clock while the process runs (VAL-22).
///
/// A step forward does not age data that was fetched before it. A step back makes data look younger by that step and
/// no more.
#[derive(Debug)]
pub struct CalendarAge {
    clock: Arc<dyn Clock>,
    last: Mutex<Clocks>,
}

/// The clocks as last read, and the steps detected so far.
#[derive(Debug)]
struct Clocks {
    now: Timestamp,
    elapsed: Duration,
    /// Steps forward, oldest first: the wall-clock time before the step, and its size.
    forward: Vec<(Timestamp, SignedDuration)>,
}

/// The largest difference between the two clocks that counts as slewing rather than as a step.
const MAX_SLEW: SignedDuration = SignedDuration::from_secs(5);
/// The number of forward steps that are kept; the oldest is dropped first.
const MAX_STEPS: usize = 32;

impl CalendarAge {
    /// Detects steps of `clock` from now on.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let last = Clocks { now: clock.now(), elapsed: clock.elapsed(), forward: Vec::new() };
        Self { clock, last: Mutex::new(last) }
    }

    /// The current wall-clock time minus the forward clock steps that happened after `since`.
    pub fn now_since(&self, since: Timestamp) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.update(self.clock.now(), self.clock.elapsed());
        let steps = last.forward.iter().filter(|(before, _)| since <= *before);
        let skipped = steps.fold(SignedDuration::ZERO, |sum, (_, step)| sum.saturating_add(*step));
        last.now.saturating_sub(skipped).unwrap_or(last.now)
    }

    /// The current wall-clock time, uncorrected.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The monotonic time of the underlying clock.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

impl Clocks {
    /// Detects a step since the last reading. A step back first undoes recorded steps forward.
    fn update(&mut self, now: Timestamp, elapsed: Duration) {
        let passed = SignedDuration::try_from(elapsed.saturating_sub(self.elapsed));
        let expected = self.now.saturating_add(passed.unwrap_or_default()).unwrap_or(self.now);
        let mut step = now.duration_since(expected);
        if step > MAX_SLEW {
            if self.forward.len() == MAX_STEPS {
                self.forward.remove(0);
            }
            self.forward.push((expected, step));
        }
        while step < -MAX_SLEW {
            let Some((_, last)) = self.forward.last_mut() else { break };
            let undone = (*last).min(step.abs());
            *last -= undone;
            step += undone;
            if last.is_zero() {
                self.forward.pop();
            }
        }
        (self.now, self.elapsed) = (now, elapsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn val_22_a_step_of_the_calendar_ages_nothing_and_lengthens_by_no_more_than_itself() {
        let clock = Arc::new(ManualClock::new(at(1000)));
        let life = CalendarAge::new(clock.clone());
        clock.set_by(1_000_000);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(1010), "set forward: not older");
        assert_eq!(life.now_since(at(1_001_005)), at(1_001_010), "fetched after the step");
        clock.set_by(-1_000_000);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(1020), "set back again: the steps cancel out");
        clock.set_by(-500);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(530), "set back: younger by the step");
    }
}
