//! The time line of a domain's rollout. The state of the planner has times, such as the end of a policy that senders may
//! cache. They are compared with the wall clock, which can be wrong: a machine without a battery-backed clock boots in the
//! past, and a virtual machine that was restored is behind until it is set right.
//!
//! So the state also stores the last time, and for each boot of a machine when that boot was on the time line. In one boot,
//! only the time counts that the kernel has measured since, which nobody sets. Where the wall clock differs from the time
//! line, it was set, and all times of the state move with it: what has passed since, and what is left, stays the same. Across
//! boots, nothing measures the time. There the wall clock counts if it is later than the last time. If it is earlier, or was
//! behind in the boot before and not set right, no time has passed.

use super::state::RolloutState;
use jiff::{SignedDuration, Timestamp};
use net::clock::{Boot, Clock, later};
use serde::{Deserialize, Serialize};

/// The clocks of this machine, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The wall-clock time.
    pub now: Timestamp,
    /// The boot; `None` if it is not known, as if the machine were booted before each reading.
    pub boot: Option<Boot>,
}

impl Reading {
    /// Reads the clocks.
    pub fn of(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), boot: clock.boot() }
    }
}

/// The last time on the time line, and what later times are measured from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeLine {
    /// The last time, exact to [`GRAIN`].
    at: Timestamp,
    /// The last boots of the machines that have observed the domain, with the one that was read last in the second half.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    boots: Vec<BootOnLine>,
    /// Seconds by which the wall clock is known to be behind at least.
    #[serde(default, skip_serializing_if = "is_zero")]
    behind: i64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(seconds: &i64) -> bool {
    *seconds == 0
}

/// A boot, and when it was on the time line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct BootOnLine {
    id: String,
    at: Timestamp,
}

/// Differences up to this are not steps of the clock.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(10);
/// The precision of the last time as it is stored, so that not every observation changes the state.
const GRAIN: SignedDuration = SignedDuration::from_secs(60);
/// The maximum number of boots that are kept.
const BOOTS: usize = 16;

impl TimeLine {
    fn new(reading: &Reading) -> Self {
        let mut line = Self { at: reading.now, boots: Vec::new(), behind: 0 };
        line.keep_boot(reading);
        line
    }

    /// The time of a reading on the line, which never goes back.
    fn time_of(&self, reading: &Reading) -> Timestamp {
        let known = |boot: &Boot| self.boots.iter().find(|known| known.id == boot.id);
        match reading.boot.as_ref().and_then(|boot| Some((boot, known(boot)?))) {
            Some((boot, known)) => later(known.at, reading.now.duration_since(boot.at)).max(self.at),
            None if self.behind > 0 => self.at,
            None => reading.now.max(self.at),
        }
    }

    fn keep_boot(&mut self, reading: &Reading) {
        let Some(boot) = &reading.boot else { return };
        if let Some(place) = self.boots.iter().position(|known| known.id == boot.id) {
            // Of many boots, those that were read last are kept. The order is not changed at each reading, since that would
            // change the stored state.
            if place + BOOTS / 2 < self.boots.len() {
                let known = self.boots.remove(place);
                self.boots.push(known);
            }
            return;
        }
        self.boots.push(BootOnLine { id: boot.id.clone(), at: boot.at });
        if self.boots.len() > BOOTS {
            self.boots.remove(0);
        }
    }

    fn shift(&mut self, step: SignedDuration) {
        self.at = later(self.at, step);
        self.boots.iter_mut().for_each(|boot| boot.at = later(boot.at, step));
    }
}

impl RolloutState {
    /// Continues the time line: moves all times of the state by the steps of the wall clock since the last reading, so that
    /// they can be compared with `reading.now`. To be called before anything is compared with the time.
    pub fn keep_time(&mut self, reading: &Reading) {
        let Some(mut line) = self.time_line.take() else {
            self.time_line = Some(TimeLine::new(reading));
            return;
        };
        let step = reading.now.duration_since(line.time_of(reading));
        if step.abs() > TOLERANCE {
            line.shift(step);
            self.shift(step);
            line.at = reading.now;
            line.behind = line.behind.saturating_sub(step.as_secs()).max(0);
        } else if reading.now.duration_since(line.at) >= GRAIN {
            line.at = reading.now;
        }
        line.keep_boot(reading);
        self.time_line = Some(line);
    }

    fn shift(&mut self, step: SignedDuration) {
        let published = self.published.iter_mut().filter_map(|published| published.until.as_mut());
        let gone = self.gone.iter_mut().map(|gone| &mut gone.until);
        let unused = self.unused.iter_mut().map(|unused| &mut unused.since);
        let mode = self.mode.iter_mut().map(|mode| &mut mode.since);
        for time in published.chain(gone).chain(unused).chain(mode) {
            *time = later(*time, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::PublishedPolicy;
    use super::*;
    use formats::{Mode, MxPattern};
    use proptest::prelude::*;

    /// Seconds after which senders have dropped the policy.
    const MAX_AGE: i64 = 604_800;

    fn start() -> Timestamp {
        "2026-11-27T00:00:00Z".parse().unwrap()
    }

    fn after(seconds: i64) -> Timestamp {
        later(start(), SignedDuration::from_secs(seconds))
    }

    /// A machine: the true time, how far the wall clock is off, and the boot.
    struct Machine {
        truth: i64,
        offset: i64,
        boot: u8,
        booted_at: i64,
    }

    impl Machine {
        fn new() -> Self {
            Self { truth: 0, offset: 0, boot: 0, booted_at: -1000 }
        }

        fn reading(&self) -> Reading {
            let at = after(self.booted_at + self.offset);
            let boot = Boot { id: self.boot.to_string(), at };
            Reading { now: after(self.truth + self.offset), boot: Some(boot) }
        }

        fn reboot(&mut self, offset: i64) {
            (self.boot, self.booted_at, self.offset) = (self.boot + 1, self.truth, offset);
        }
    }

    /// A policy that ended at the time of the reading.
    fn ended(rollout: &mut RolloutState, reading: &Reading) {
        rollout.keep_time(reading);
        let mx = vec![MxPattern::parse("mx.a.example").unwrap()];
        let (mode, max_age) = (Mode::Enforce, u32::try_from(MAX_AGE).unwrap());
        rollout.published =
            vec![PublishedPolicy { mode, max_age, mx, until: Some(reading.now), assumed: false }];
    }

    fn is_out(rollout: &mut RolloutState, reading: &Reading) -> bool {
        rollout.keep_time(reading);
        rollout.published[0].is_out(reading.now)
    }

    const DAY: i64 = 86_400;

    #[test]
    fn a_clock_that_was_behind_or_ahead_for_a_while_ends_no_waiting_period() {
        for wrong in [-30 * DAY, -DAY, 20 * DAY, 3000 * DAY] {
            let (mut machine, mut rollout) = (Machine::new(), RolloutState::default());
            rollout.keep_time(&machine.reading());
            // Replaced while the clock is wrong.
            machine.offset = wrong;
            ended(&mut rollout, &machine.reading());
            (machine.truth, machine.offset) = (5, 0);
            assert!(is_out(&mut rollout, &machine.reading()), "{wrong}");
            // Only looked at while the clock is wrong.
            machine.offset = wrong;
            assert!(is_out(&mut rollout, &machine.reading()), "{wrong}");
            machine.offset = 0;
            machine.truth = MAX_AGE;
            assert!(is_out(&mut rollout, &machine.reading()), "{wrong}");
            machine.truth += 300;
            assert!(!is_out(&mut rollout, &machine.reading()), "{wrong}: it ends in time");
        }
    }

    #[test]
    fn a_machine_that_boots_in_the_past_ends_nothing_and_time_between_boots_counts_if_the_clock_is_right() {
        let (mut machine, mut rollout) = (Machine::new(), RolloutState::default());
        ended(&mut rollout, &machine.reading());
        machine.truth = DAY;
        machine.reboot(-20_000 * DAY);
        assert!(is_out(&mut rollout, &machine.reading()));
        machine.offset = 0;
        assert!(is_out(&mut rollout, &machine.reading()), "set right a moment after the boot");
        machine.truth = 3 * DAY;
        assert!(is_out(&mut rollout, &machine.reading()));
        machine.truth = MAX_AGE + DAY + 300;
        machine.reboot(0);
        assert!(!is_out(&mut rollout, &machine.reading()));
    }

    #[test]
    fn two_machines_whose_clocks_differ_gain_no_time_by_turns() {
        let (mut fast, mut right, mut rollout) = (Machine::new(), Machine::new(), RolloutState::default());
        (fast.offset, fast.boot) = (3600, 1);
        ended(&mut rollout, &fast.reading());
        for turn in 1..400 {
            for machine in [&mut right, &mut fast] {
                machine.truth = turn;
                assert!(is_out(&mut rollout, &machine.reading()), "{turn}");
            }
        }
    }

    #[test]
    fn a_machine_that_runs_for_long_is_known_however_many_others_were_booted_meanwhile() {
        let (mut server, mut rollout) = (Machine::new(), RolloutState::default());
        ended(&mut rollout, &server.reading());
        for turn in 1..200_u8 {
            let others = Machine { truth: turn.into(), boot: turn, booted_at: turn.into(), ..Machine::new() };
            assert!(is_out(&mut rollout, &others.reading()));
            if turn % 5 == 0 {
                server.truth = turn.into();
                assert!(is_out(&mut rollout, &server.reading()));
            }
        }
        // Its clock is set ahead.
        server.offset = 30 * DAY;
        assert!(is_out(&mut rollout, &server.reading()));
        // A reading by turns does not change the state each time.
        let before = rollout.clone();
        let newest = Machine { truth: 199, boot: 199, booted_at: 199, offset: 30 * DAY };
        is_out(&mut rollout, &newest.reading());
        is_out(&mut rollout, &server.reading());
        assert_eq!(rollout, before);
    }

    proptest! {
        #[test]
        fn no_steps_of_the_clock_let_a_policy_end_before_its_time(
            moves in prop::collection::vec((0i64..200_000, prop_oneof![Just(0i64), -3_000_000i64..3_000_000], 0u8..4), 1..30),
            ends_at in 0usize..5,
        ) {
            let (mut machine, mut rollout) = (Machine::new(), RolloutState::default());
            let (mut ended_at, mut begins_behind) = (None, false);
            rollout.keep_time(&machine.reading());
            for (turn, (passed, offset, what)) in moves.into_iter().enumerate() {
                machine.truth += passed;
                // After a boot, the clock is right or far behind, and where it is behind, it is not left behind a little
                // (docs/safety.md).
                match what {
                    0 => machine.reboot(0),
                    1 => machine.reboot(-20_000 * DAY),
                    _ if begins_behind => machine.offset = offset.max(0),
                    _ => machine.offset = offset,
                }
                begins_behind = what == 1 || begins_behind && what > 1;
                let reading = machine.reading();
                rollout.keep_time(&reading);
                match ended_at {
                    None if turn >= ends_at => {
                        ended(&mut rollout, &reading);
                        ended_at = Some(machine.truth);
                    }
                    None => {}
                    Some(ended_at) if machine.truth < ended_at + MAX_AGE => {
                        prop_assert!(is_out(&mut rollout, &reading), "turn {turn}");
                    }
                    Some(_) => return Ok(()),
                }
                let text = serde_json::to_string(&rollout).unwrap();
                prop_assert_eq!(serde_json::from_str::<RolloutState>(&text).unwrap(), rollout.clone());
            }
        }
    }
}
