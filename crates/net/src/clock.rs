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
    /// The boot since which the kernel of this machine runs; `None` if it is not known. All processes of a machine agree on
    /// it, so that they can tell a step of the wall clock from time that has passed.
    fn boot(&self) -> Option<Boot> {
        None
    }
}

/// A boot of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Identifies the boot; random, and the same for all processes of the machine.
    pub id: String,
    /// When it was by the wall clock of now: the wall-clock time less the time since the boot, which includes time in which
    /// the machine was suspended. It changes when the wall clock is stepped, and at no other time.
    pub at: Timestamp,
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

    #[cfg(target_os = "linux")]
    fn boot(&self) -> Option<Boot> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let id = Some(text.trim()).filter(|id| !id.is_empty())?;
        // In a time namespace of its own, a process sees another time since the boot (time_namespaces(7)).
        let namespace =
            std::fs::read_link("/proc/self/ns/time").ok().filter(|link| link.as_os_str() != FIRST_NAMESPACE);
        let id = namespace.map_or(id.to_owned(), |link| format!("{id} {}", link.display()));
        Some(Boot { id, at: self.now().checked_sub(since_boot()).ok()? })
    }
}

/// The monotonic clock that also counts time in which the machine is suspended. `Instant` uses `CLOCK_MONOTONIC`, which
/// stands still meanwhile, so that a resume would look like a forward step of the calendar.
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::CLOCK_MONOTONIC;

/// The time namespace in which a machine starts (the constant `PROC_TIME_INIT_INO` of the kernel).
#[cfg(target_os = "linux")]
const FIRST_NAMESPACE: &str = "time:[4026531834]";

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
    /// The latest wall-clock time that was read. Data with a later time is from before the start of this process.
    latest: Timestamp,
    /// Steps forward, oldest first.
    forward: Vec<ForwardStep>,
}

/// A forward step of the wall clock.
#[derive(Debug, Clone, Copy)]
struct ForwardStep {
    /// The last time that counts as before the step.
    last_before: Timestamp,
    /// The size of the step, without what a later step back has undone.
    size: SignedDuration,
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
        let now = clock.now();
        let last = Clocks { now, elapsed: clock.elapsed(), latest: now, forward: Vec::new() };
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
        let mut ends: Vec<Timestamp> = clocks.forward.iter().map(|step| step.last_before).collect();
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

    /// The earliest time that lies at most `age` in the past, by [`Self::now_since`]. Times after it may be older, if a step
    /// lies between.
    pub fn oldest_within(&self, age: SignedDuration) -> Timestamp {
        let earliest = |range: Segment| {
            let start = range.now.saturating_sub(age).unwrap_or(Timestamp::MIN).max(range.after);
            (start < range.until).then_some(start)
        };
        self.segments().into_iter().filter_map(earliest).min().unwrap_or(Timestamp::MIN)
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
        let steps = self.forward.iter().filter(|step| since <= step.last_before);
        let skipped = steps.fold(SignedDuration::ZERO, |sum, step| sum.saturating_add(step.size));
        self.now.saturating_sub(skipped).unwrap_or(self.now)
    }

    /// Detects a step since the last reading. A step back first undoes recorded steps forward.
    fn update(&mut self, now: Timestamp, elapsed: Duration) {
        let passed = SignedDuration::try_from(elapsed.saturating_sub(self.elapsed));
        let expected = self.now.saturating_add(passed.unwrap_or_default()).unwrap_or(self.now);
        self.latest = self.latest.max(expected);
        let mut step = now.duration_since(expected);
        if step > MAX_SLEW {
            self.step_forward(expected, step);
        }
        while step < -MAX_SLEW {
            let Some(last) = self.forward.last_mut() else { break };
            let undone = last.size.min(step.abs());
            last.size -= undone;
            step += undone;
            if last.size.is_zero() {
                self.forward.pop();
            }
        }
        self.latest = self.latest.max(now);
        (self.now, self.elapsed) = (now, elapsed);
    }

    /// Records a step forward from the time `before`.
    ///
    /// Of the times that the step skipped, those up to [`Self::latest`] are from before the step, when the clock had
    /// been set back. Later ones are from before the start of this process: a machine without a battery-backed clock starts in the past,
    /// and the step corrects that, so that the age of stored data is right again after it.
    fn step_forward(&mut self, before: Timestamp, size: SignedDuration) {
        if self.forward.len() == MAX_STEPS {
            // The two oldest count as one at the later time, so that nothing older ages by the first.
            let oldest = self.forward.remove(0);
            if let Some(next) = self.forward.first_mut() {
                next.size = next.size.saturating_add(oldest.size);
                next.last_before = next.last_before.max(oldest.last_before);
            }
        }
        let last_skipped = later(before, size.saturating_sub(MAX_SLEW));
        let last_before = self.latest.min(last_skipped).max(before);
        self.forward.push(ForwardStep { last_before, size });
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
        clock.advance(5);
        let fetched_at = life.now();
        clock.advance(5);
        assert_eq!(life.now_since(at(900)), at(1010), "set forward: not older");
        assert_eq!(life.now_since(fetched_at), at(1_001_010), "fetched after the step");
        let of_earlier_start = life.now_since(at(5000));
        assert_eq!(of_earlier_start, at(1_001_010), "stored before the start, with the right time");
        clock.set_by(-1_000_000);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(1020), "set back again: the steps cancel out");
        clock.set_by(-500);
        clock.advance(10);
        assert_eq!(life.now_since(at(900)), at(530), "set back: younger by the step");
    }

    #[test]
    fn val_22_stored_data_has_its_age_when_a_machine_that_started_in_the_past_gets_the_time() {
        let (start, fetched_at, real) = (at(1000), at(900_000), at(1_000_000));
        let clock = Arc::new(ManualClock::new(start));
        let life = CalendarAge::new(clock.clone());
        clock.advance(60);
        assert_eq!(life.now_since(fetched_at), at(1060), "not aged by the wrong clock");
        clock.set_by(real.duration_since(at(1060)).as_secs());
        assert_eq!(life.now_since(fetched_at), real);
        clock.advance(1000);
        assert_eq!(life.now_since(fetched_at), at(1_001_000));
        assert_eq!(life.now_since(at(1030)), at(2060), "stamped by this process before the step");
    }

    #[test]
    fn val_22_data_from_before_a_step_back_does_not_age_by_the_step_forward_that_undoes_the_step() {
        let clock = Arc::new(ManualClock::new(at(100_000)));
        let life = CalendarAge::new(clock.clone());
        let fetched_at = life.now();
        clock.advance(10);
        clock.set_by(-50_000);
        assert_eq!(life.now(), at(50_010));
        clock.set_by(900_000);
        clock.advance(10);
        assert_eq!(life.now_since(fetched_at), at(50_020));
    }

    #[test]
    fn val_22_nothing_ages_by_a_step_that_is_counted_together_with_others() {
        let clock = Arc::new(ManualClock::new(at(1000)));
        let life = CalendarAge::new(clock.clone());
        let mut stamps = vec![(life.now(), 0)];
        for step in 1..=100 {
            clock.advance(10);
            clock.set_by(i64::from(step) * 100);
            stamps.push((life.now(), step * 10));
        }
        for (stamp, elapsed) in stamps {
            let age = life.now_since(stamp).duration_since(stamp).as_secs();
            assert!(age <= 1000 - i64::from(elapsed), "{stamp} is {age} s old");
        }
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
        // The thread may stand still between any two looks at a clock, so the clock is held between two others.
        let before = std::time::Instant::now();
        let start = SystemClock.elapsed();
        let after = std::time::Instant::now();
        let mut last = start;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            let now = SystemClock.elapsed();
            assert!(now > last);
            last = now;
        }
        let shortest = after.elapsed();
        let counted = SystemClock.elapsed() - start;
        let longest = before.elapsed();
        let error = Duration::from_millis(1);
        assert!(
            counted + error > shortest && counted < longest + error,
            "{shortest:?} {counted:?} {longest:?}"
        );
    }
}
