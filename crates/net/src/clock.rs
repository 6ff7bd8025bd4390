//! The current time, injected through [`Clock`] so that tests and the demo can set it. [`CalendarAge`] keeps the age of
//! cached data correct when the system clock is changed (VAL-22).

use jiff::{SignedDuration, Timestamp, TimestampArithmetic};
use nix::time::{ClockId, clock_gettime};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Adds a duration to a time, saturating at [`Timestamp::MAX`].
pub fn later(time: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// A source of the current time.
pub trait Clock: Debug + Send + Sync {
    /// The wall-clock time, which may be set forward or back.
    fn now(&self) -> Timestamp;
    /// The time since a fixed but arbitrary moment, including time in which the machine was suspended. It never
    /// decreases (monotonic).
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
        static BEGIN: OnceLock<Duration> = OnceLock::new();
        let now = since_boot();
        now.saturating_sub(*BEGIN.get_or_init(|| now))
    }
}

/// The monotonic clock that also counts time in which the machine is suspended. `Instant` uses `CLOCK_MONOTONIC`, which
/// stands still meanwhile, so that a resume would look like a forward step of the calendar.
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::CLOCK_MONOTONIC;

fn since_boot() -> Duration {
    // The call fails only if the kernel lacks this clock, and then every call fails.
    let now = clock_gettime(MONOTONIC).or_else(|_| clock_gettime(ClockId::CLOCK_MONOTONIC));
    now.map(Duration::from).unwrap_or_default()
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

/// A range of wall-clock times, and the current time as data from that range has lived it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The end of the range before; it does not belong to the range. [`Timestamp::MIN`] for the first.
    pub after: Timestamp,
    /// The end of the range; it belongs to the range. [`Timestamp::MAX`] for the last.
    pub until: Timestamp,
    /// The result of [`CalendarAge::now_since`] for every time of the range.
    pub now: Timestamp,
}

/// The largest difference between the two clocks that counts as slewing rather than as a step.
const MAX_SLEW: SignedDuration = SignedDuration::from_secs(5);
/// The number of forward steps that are kept; beyond it, the two oldest are joined.
const MAX_STEPS: usize = 32;

impl CalendarAge {
    /// Detects steps of `clock` from now on.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let last = Clocks { now: clock.now(), elapsed: clock.elapsed(), forward: Vec::new() };
        Self { clock, last: Mutex::new(last) }
    }

    /// The current wall-clock time minus the forward clock steps that happened after `since`.
    pub fn now_since(&self, since: Timestamp) -> Timestamp {
        self.updated().now_since(since)
    }

    /// The ranges of wall-clock time between the forward steps, oldest first: at most 33, and one without steps.
    /// Together they contain every time.
    pub fn segments(&self) -> Vec<Segment> {
        let clocks = self.updated();
        let mut ends: Vec<Timestamp> = clocks.forward.iter().map(last_before).collect();
        ends.push(Timestamp::MAX);
        ends.sort_unstable();
        ends.dedup();
        let mut after = Timestamp::MIN;
        let segment = |until| {
            let start = std::mem::replace(&mut after, until);
            Segment { after: start, until, now: clocks.now_since(until) }
        };
        ends.into_iter().map(segment).collect()
    }

    /// The earliest time that lies at most `age` in the past, by [`Self::now_since`].
    pub fn oldest_within(&self, age: SignedDuration) -> Timestamp {
        let earliest =
            |range: Segment| range.now.saturating_sub(age).ok().filter(|start| *start > range.after);
        self.segments().into_iter().rev().find_map(earliest).unwrap_or(Timestamp::MIN)
    }

    /// The clocks, with all steps until now.
    fn updated(&self) -> MutexGuard<'_, Clocks> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.update(self.clock.now(), self.clock.elapsed());
        last
    }

    /// The current wall-clock time, uncorrected. Data must be stamped with this time, so that a step is known before
    /// the first data that was fetched after it.
    pub fn now(&self) -> Timestamp {
        self.updated().now
    }

    /// The monotonic time of the underlying clock.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }
}

impl Clocks {
    fn now_since(&self, since: Timestamp) -> Timestamp {
        let steps = self.forward.iter().filter(|step| since <= last_before(step));
        let skipped = steps.fold(SignedDuration::ZERO, |sum, (_, step)| sum.saturating_add(*step));
        self.now.saturating_sub(skipped).unwrap_or(self.now)
    }

    /// Detects a step since the last reading. A step back first undoes recorded steps forward.
    fn update(&mut self, now: Timestamp, elapsed: Duration) {
        let passed = SignedDuration::try_from(elapsed.saturating_sub(self.elapsed));
        let expected = self.now.saturating_add(passed.unwrap_or_default()).unwrap_or(self.now);
        let mut step = now.duration_since(expected);
        if step > MAX_SLEW {
            if self.forward.len() == MAX_STEPS {
                // The two oldest count as one at the later time, so that nothing older ages by the first.
                let (_, step) = self.forward.remove(0);
                if let Some((_, next)) = self.forward.first_mut() {
                    *next = next.saturating_add(step);
                }
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

/// The last time that counts as before a step forward. The times that the step skipped belong to it: data with such a
/// time is from before the step, when the clock had been set back.
fn last_before((before, step): &(Timestamp, SignedDuration)) -> Timestamp {
    later(*before, step.saturating_sub(MAX_SLEW)).max(*before)
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
        clock.advance(5);
        let fetched_at = life.now();
        clock.advance(5);
        assert_eq!(life.now_since(at(900)), at(1010), "set forward: not older");
        assert_eq!(life.now_since(fetched_at), at(1_001_010), "fetched after the step");
        assert_eq!(life.now_since(at(5000)), at(1010), "fetched before the clock was once set back");
        clock.set_by(-1_000_000);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(1020), "set back again: the steps cancel out");
        clock.set_by(-500);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(530), "set back: younger by the step");
    }

    #[test]
    fn segments_agree_with_the_age_of_each_time() {
        let clock = Arc::new(ManualClock::new(at(1000)));
        let life = CalendarAge::new(clock.clone());
        let whole = Segment { after: Timestamp::MIN, until: Timestamp::MAX, now: at(1000) };
        assert_eq!(life.segments(), [whole]);
        for step in [500, 5000, -700, 90_000, -200_000, 400, 8] {
            clock.advance(10);
            clock.set_by(step);
            let segments = life.segments();
            for since in (0..100_000).step_by(7).map(at) {
                let mut of_since =
                    segments.iter().filter(|range| range.after < since && since <= range.until);
                assert_eq!(of_since.next().map(|range| range.now), Some(life.now_since(since)), "{since}");
                assert_eq!(of_since.next(), None);
            }
        }
        for _ in 0..100 {
            clock.advance(10);
            clock.set_by(100);
            life.now_since(at(0));
        }
        assert_eq!(life.segments().len(), MAX_STEPS + 1);
    }

    #[test]
    fn a_step_forward_does_not_make_a_use_long_ago() {
        let clock = Arc::new(ManualClock::new(at(1000)));
        let life = CalendarAge::new(clock.clone());
        assert_eq!(life.oldest_within(SignedDuration::from_secs(100)), at(900));
        clock.set_by(50_000);
        clock.advance(10);
        assert_eq!(life.oldest_within(SignedDuration::from_secs(100)), at(910));
        clock.advance(200);
        assert_eq!(life.oldest_within(SignedDuration::from_secs(100)), at(51_110));
        assert_eq!(life.oldest_within(SignedDuration::from_secs(211)), at(999));
    }

    #[test]
    fn the_monotonic_clock_of_the_system_never_decreases_and_counts_seconds() {
        let start = (SystemClock.elapsed(), std::time::Instant::now());
        let mut last = start.0;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            let now = SystemClock.elapsed();
            assert!(now > last);
            last = now;
        }
        let difference = (last - start.0).abs_diff(start.1.elapsed());
        assert!(difference < Duration::from_millis(50), "{difference:?}");
    }
}
