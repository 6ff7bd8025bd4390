//! The time, injected so that no test has to wait for it.

use jiff::{SignedDuration, Timestamp, TimestampArithmetic};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A time that much later; the end of time when that is beyond it.
pub fn later(time: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Where the time comes from.
pub trait Clock: Debug + Send + Sync {
    /// The time now, by the machine's calendar, which may be set forward or back.
    fn now(&self) -> Timestamp;
    /// Time since some moment before, which only ever grows.
    fn elapsed(&self) -> Duration;
}

/// The machine's clocks.
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

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Timestamp, Duration)>);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Mutex::new((start, Duration::ZERO)))
    }

    /// Lets whole seconds pass.
    pub fn advance(&self, seconds: u32) {
        self.set_by(i64::from(seconds));
        self.lock().1 += Duration::from_secs(u64::from(seconds));
    }

    /// Sets the calendar forward or back, without time passing.
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

/// Tells how long ago something was when the calendar is set while the process runs (VAL-22).
///
/// What was fetched before the calendar was set forward has not aged by that. When it is set back,
/// things look younger by that step and no more.
#[derive(Debug)]
pub struct CalendarAge {
    clock: Arc<dyn Clock>,
    seen: Mutex<Clocks>,
}

#[derive(Debug)]
struct Clocks {
    now: Timestamp,
    elapsed: Duration,
    /// Steps forward: the time before, and how far.
    forward: Vec<(Timestamp, SignedDuration)>,
}

/// A difference between the two clocks that is taken for slewing, not for a step.
const MAX_SLEW: SignedDuration = SignedDuration::from_secs(5);
/// Steps that are remembered; the oldest are forgotten first.
const MAX_STEPS: usize = 32;

impl CalendarAge {
    /// Watches a clock from now on.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let seen = Clocks { now: clock.now(), elapsed: clock.elapsed(), forward: Vec::new() };
        Self { clock, seen: Mutex::new(seen) }
    }

    /// The time now as something from `since` has lived it.
    pub fn now_since(&self, since: Timestamp) -> Timestamp {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.look(self.clock.now(), self.clock.elapsed());
        let steps = seen.forward.iter().filter(|(before, _)| since <= *before);
        let skipped = steps.fold(SignedDuration::ZERO, |sum, (_, step)| sum.saturating_add(*step));
        seen.now.saturating_sub(skipped).unwrap_or(seen.now)
    }

    /// The time now by the calendar.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock that never steps.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

impl Clocks {
    fn look(&mut self, now: Timestamp, elapsed: Duration) {
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
        assert_eq!(life.now_since(at(900)), at(1020), "set back again: as if nothing had been");
        clock.set_by(-500);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(530), "set back: younger by the step");
    }
}
