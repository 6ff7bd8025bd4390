//! All that can happen to a lease among two or three processes, searched exhaustively: each process may stand still before any
//! of its steps for as long as there is time, answers get lost, and a write that was sent may arrive at any later moment. Two
//! promises have to hold in every reachable state:
//!
//! - no write of an earlier holder takes place after the first write of a later one;
//! - no two processes at once believe that they have the lease.
//!
//! The rules of [`super`] keep both. With each rule left out, the search finds a state that breaks a promise.

use super::HeldLease;
use crate::query::sql;
use jiff::Timestamp;
use std::collections::HashSet;
use std::time::Duration;

/// The length of the lease, in units of time, and how much before its end the holder stops.
const LENGTH: u8 = 2;
const MARGIN: u8 = 1;
/// The number of holders after each other that are searched.
const TENURES: u8 = 3;

/// The rules of the program, or a mutation of them.
#[derive(Clone, Copy)]
struct Rules {
    /// Writes say `WHERE fence = …`.
    has_fence: bool,
    /// The check of the fence and the write are one step, since the row of the lease is locked.
    is_one_step: bool,
    /// A release keeps the fence.
    keeps_fence: bool,
    /// Leases end by the clock of the database, not by that of the process that asks.
    has_one_clock: bool,
    /// The holder counts from its question, not from the answer.
    counts_from_question: bool,
}

const PROGRAM: Rules = Rules {
    has_fence: true,
    is_one_step: true,
    keeps_fence: true,
    has_one_clock: true,
    counts_from_question: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Row {
    holder: Option<usize>,
    fence: u8,
    expires: u8,
    /// Counts the holders; no process knows it.
    tenure: u8,
}

impl Row {
    /// What the database makes of the question of a process at this time; `None` if it refuses.
    fn acquired(self, of: usize, clock: u8) -> Option<Self> {
        let is_mine = self.holder == Some(of);
        if !is_mine && self.expires > clock {
            return None;
        }
        let more = u8::from(!is_mine);
        let (fence, tenure) = (self.fence + more, self.tenure + more);
        Some(Self { holder: Some(of), expires: clock + LENGTH, fence, tenure })
    }

    fn is_held(self, of: usize, fence: u8) -> bool {
        self.holder == Some(of) && self.fence == fence
    }

    fn renewed(self, of: usize, fence: u8, clock: u8) -> Option<Self> {
        self.is_held(of, fence).then_some(Self { expires: clock + LENGTH, ..self })
    }

    fn released(self, of: usize, fence: u8) -> Self {
        if self.is_held(of, fence) { Self { holder: None, expires: 0, ..self } } else { self }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    fence: u8,
    tenure: u8,
    /// When the process stops by its own clock.
    until: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Phase {
    #[default]
    Idle,
    /// The question is on its way since this time.
    Asks(u8),
    /// The answer is on its way: the time of the question, and what the database has noted.
    Answered(u8, Held),
    Holds(Held),
    /// A renewal is on its way since this time.
    Renews(u8, Held),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Write {
    fence: u8,
    tenure: u8,
    is_checked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Process {
    phase: Phase,
    /// A write on its way, which the process may have given up.
    write: Option<Write>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State<const N: usize> {
    now: u8,
    row: Row,
    processes: [Process; N],
    /// The latest tenure that has written.
    written: u8,
}

#[derive(Debug, PartialEq, Eq)]
enum Broken {
    /// An earlier holder wrote after a later one.
    Order,
    /// Two processes believed to have the lease.
    Belief,
}

/// How far the clock of each process is ahead of that of the database.
const OFFSETS: [u8; 3] = [0, 3, 1];

impl<const N: usize> State<N> {
    fn first() -> Self {
        Self { now: 0, row: Row::default(), processes: [Process::default(); N], written: 0 }
    }

    fn with(self, of: usize, phase: Phase) -> Self {
        let mut next = self;
        next.processes[of].phase = phase;
        next
    }

    fn believes(&self, of: usize) -> bool {
        match self.processes[of].phase {
            Phase::Holds(held) | Phase::Renews(_, held) => self.now < held.until,
            _ => false,
        }
    }

    fn ends(&self, rules: Rules, from: u8) -> u8 {
        (if rules.counts_from_question { from } else { self.now }) + LENGTH - MARGIN
    }

    /// The states after the next step of a process or of its write.
    fn steps(self, of: usize, rules: Rules) -> Result<Vec<Self>, Broken> {
        let clock = self.now + if rules.has_one_clock { 0 } else { OFFSETS[of] };
        let mut next = Vec::new();
        match self.processes[of].phase {
            Phase::Idle => next.push(self.with(of, Phase::Asks(self.now))),
            Phase::Asks(asked) => {
                let mut there = self;
                let acquired = self.row.acquired(of, clock).filter(|row| row.tenure <= TENURES);
                if let Some(row) = acquired {
                    there.row = row;
                    let held = Held { fence: there.row.fence, tenure: there.row.tenure, until: 0 };
                    next.push(there.with(of, Phase::Answered(asked, held)));
                }
                // It was refused, or the answer is lost.
                next.push(there.with(of, Phase::Idle));
            }
            Phase::Answered(asked, held) => {
                next.push(self.with(of, Phase::Holds(Held { until: self.ends(rules, asked), ..held })));
            }
            Phase::Holds(held) => {
                next.push(self.with(of, Phase::Renews(self.now, held)));
                let mut released = self.with(of, Phase::Idle);
                released.row = self.row.released(of, held.fence);
                if !rules.keeps_fence && released.row.holder.is_none() {
                    released.row.fence = 0;
                }
                next.push(released);
                if self.believes(of) && self.processes[of].write.is_none() {
                    let mut sent = self;
                    let (fence, tenure) = (held.fence, held.tenure);
                    sent.processes[of].write = Some(Write { fence, tenure, is_checked: false });
                    next.push(sent);
                } else if !self.believes(of) {
                    next.push(self.with(of, Phase::Idle));
                }
            }
            Phase::Renews(asked, held) => {
                if let Some(row) = self.row.renewed(of, held.fence, clock) {
                    let mut there = self;
                    there.row = row;
                    let held_longer = Held { until: self.ends(rules, asked), ..held };
                    next.push(there.with(of, Phase::Holds(held_longer)));
                    // The answer is lost.
                    next.push(there.with(of, Phase::Holds(held)));
                } else {
                    next.push(self.with(of, Phase::Idle));
                }
            }
        }
        if let Some(write) = self.processes[of].write {
            let mut after = self;
            after.processes[of].write = None;
            next.push(after);
            let is_valid = self.row.is_held(of, write.fence);
            if rules.has_fence && !rules.is_one_step && !write.is_checked {
                if is_valid {
                    after.processes[of].write = Some(Write { is_checked: true, ..write });
                    next.push(after);
                }
            } else if is_valid || !rules.has_fence || write.is_checked {
                if write.tenure < self.written {
                    return Err(Broken::Order);
                }
                after.written = write.tenure;
                next.push(after);
            }
        }
        Ok(next)
    }
}

/// Searches all states up to a time, and returns their number.
fn search<const N: usize>(rules: Rules, until: u8) -> Result<usize, Broken> {
    let first = State::<N>::first();
    let (mut known, mut open) = (HashSet::from([first]), vec![first]);
    while let Some(state) = open.pop() {
        if (0..N).filter(|of| state.believes(*of)).count() > 1 {
            return Err(Broken::Belief);
        }
        let mut next = Vec::new();
        for of in 0..N {
            next.extend(state.steps(of, rules)?);
        }
        if state.now < until {
            next.push(State { now: state.now + 1, ..state });
        }
        open.extend(next.into_iter().filter(|state| known.insert(*state)));
    }
    Ok(known.len())
}

#[test]
fn no_pause_lost_answer_or_late_write_breaks_the_promises() {
    let two = search::<2>(PROGRAM, 5).unwrap();
    let three = search::<3>(PROGRAM, 2).unwrap();
    assert!(two > 100_000 && three > 100_000, "{two} {three}");
}

#[test]
fn with_any_rule_left_out_a_promise_is_broken() {
    for (what, rules, broken) in [
        ("no fence", Rules { has_fence: false, ..PROGRAM }, Broken::Order),
        ("the row is not locked", Rules { is_one_step: false, ..PROGRAM }, Broken::Order),
        ("a release resets the fence", Rules { keeps_fence: false, ..PROGRAM }, Broken::Order),
        ("clocks of the processes", Rules { has_one_clock: false, ..PROGRAM }, Broken::Belief),
        ("counted from the answer", Rules { counts_from_question: false, ..PROGRAM }, Broken::Belief),
    ] {
        assert_eq!(search::<2>(rules, 5), Err(broken), "{what}");
    }
}

/// Writes stay in order also where the clocks of the processes differ, as of machines with an SQLite file on a network share.
#[test]
fn the_fence_alone_keeps_writes_in_order_whatever_the_clocks_say() {
    let rules = Rules { has_one_clock: false, ..PROGRAM };
    let first = State::<2>::first();
    let (mut known, mut open) = (HashSet::from([first]), vec![first]);
    while let Some(state) = open.pop() {
        let mut next: Vec<State<2>> = Vec::new();
        for of in 0..2 {
            next.extend(state.steps(of, rules).unwrap());
        }
        if state.now < 5 {
            next.push(State { now: state.now + 1, ..state });
        }
        open.extend(next.into_iter().filter(|state| known.insert(*state)));
    }
    assert!(known.len() > 1000);
}

/// A unit of the model's time in the store. The test takes a small part of one.
const UNIT: Duration = Duration::from_secs(10_000);

/// The database does what the model says: random walks of three processes, with each step made in both.
#[tokio::test]
async fn the_store_does_what_the_model_says() {
    let (_dir, store) = crate::scratch().await;
    let now = Timestamp::now();
    let mut seed = 7_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let (mut kept, mut lost) = (0, 0);
    for walk in 0..12 {
        let name = format!("walk {walk}");
        let (mut row, mut clock) = (Row::default(), 0);
        let mut held: [Option<HeldLease>; 3] = [None, None, None];
        for _ in 0..40 {
            let of = random(3);
            let fence = held[of].as_ref().map(|lease| u8::try_from(lease.fence()).unwrap());
            match (random(5), &held[of], fence) {
                (0, ..) => {
                    // Half a unit less: in the model a lease has ended at the moment of its end.
                    let length = UNIT * LENGTH.into() - UNIT / 2;
                    let holder = format!("process {of}");
                    let lease = store.acquire(&name, &holder, now, length).await.unwrap();
                    let expected = row.acquired(of, clock);
                    let fence = lease.as_ref().map(HeldLease::fence);
                    assert_eq!(fence, expected.map(|row| i64::from(row.fence)));
                    held[of] = lease.or(held[of].take());
                    row = expected.unwrap_or(row);
                }
                (1, ..) => {
                    // Time passes.
                    let unit = i64::try_from(UNIT.as_secs()).unwrap();
                    let pass = sql("UPDATE lease SET expires_at = expires_at - $2 WHERE name = $1");
                    pass.bind(&name).bind(unit).execute(&store).await.unwrap();
                    clock += 1;
                }
                (2, Some(lease), Some(fence)) => {
                    let expected = row.renewed(of, fence, clock);
                    assert_eq!(store.renew(lease, now).await.unwrap(), expected.is_some());
                    row = expected.unwrap_or(row);
                }
                (3, Some(lease), Some(fence)) => {
                    store.give_back(lease).await.unwrap();
                    row = row.released(of, fence);
                }
                (4, Some(lease), Some(fence)) => {
                    let is_valid = row.is_held(of, fence) && !lease.is_over();
                    let under = store.under(lease);
                    let write = under.set_record_change(1, crate::record_changes::ChangeState::Done);
                    assert_eq!(write.await.is_ok(), is_valid);
                    *(if is_valid { &mut kept } else { &mut lost }) += 1;
                }
                _ => {}
            }
        }
    }
    assert!(kept > 5 && lost > 5, "{kept} writes took place, {lost} were refused");
}
