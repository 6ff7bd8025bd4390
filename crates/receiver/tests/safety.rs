//! Checks the safety theorem of docs/safety.md over every state that the planner, the senders and the world can reach
//! within the bounds given there.
//!
//! Time advances in ticks of two minutes, which is also [`formats::limits::POLICY_SLACK`]. Senders are independent of
//! each other. A sender may fetch at any moment, keep a policy until its `max_age` expires, ignore the `id`, and know
//! MX hosts from a cache. The model therefore tracks the policies that some sender can hold and the MX sets that some
//! sender can know, instead of single senders.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use formats::limits::POLICY_SLACK;
use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::{SignedDuration, Timestamp};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use sternpost_receiver::rollout::desired::DesiredState;
use sternpost_receiver::rollout::observed::ObservedState;
use sternpost_receiver::rollout::plan::{Permit, PlannedStep, Step, next};
use sternpost_receiver::rollout::state::RolloutState;

const TICK: u32 = 120;
/// TTL of MX records, in ticks.
const MX_TTL: u8 = 1;
const TESTING: u8 = 1;
const ENFORCE: u8 = 2;
/// The `max_age` of policies from before Sternpost, in ticks.
const BEFORE: u8 = 3;
/// How often the operator may change the goal; the variable SPOST_SAFETY_CHANGES overrides this.
const CHANGES: u8 = 1;
/// Maximum number of steps until a plan must end.
const TURNS: usize = 60;

type Hosts = u8;
const A: Hosts = 1;
const B: Hosts = 2;

/// The goals that the operator may set: a mode and MX hosts.
const WANTS: [(Mode, Hosts); 6] = [
    (Mode::Enforce, A),
    (Mode::Enforce, B),
    (Mode::Enforce, A | B),
    (Mode::Testing, A),
    (Mode::None, A),
    (Mode::Enforce, 0),
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct File {
    mode: Mode,
    ticks: u8,
    mx: Hosts,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    want: usize,
    changes: u8,
    rollout: RolloutState,
    /// A step that was recorded but not carried out yet.
    begun: Option<Done>,
    mx: Hosts,
    /// The published `id`; it alternates between two values.
    record: Option<u8>,
    served: Option<File>,
    /// Replaced files that some sender holds, each with the ticks left.
    held: BTreeMap<File, u8>,
    /// Files that could be fetched since the last announcement.
    under_this_id: BTreeSet<File>,
    /// Replaced MX sets that some sender knows, each with the ticks left.
    known: BTreeMap<Hosts, u8>,
}

/// The effect of a step on the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Done {
    Serve(File),
    Announce(u8),
    Mx(Hosts),
    Withdraw,
    TakeDown,
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    Tick,
    /// The operator changes the goal.
    Want(usize),
    /// The planner observes the domain and records its next step. The fetch of the policy may fail.
    Begin {
        permit: bool,
        fetched: bool,
    },
    /// The recorded step is carried out.
    Finish,
    /// The program crashes before the step is carried out.
    Crash,
}

type Planner = fn(&DesiredState, &RolloutState, &ObservedState, Permit, Timestamp) -> PlannedStep;

struct World(Planner);

fn count_down<K: Ord>(left: &mut BTreeMap<K, u8>) {
    left.values_mut().for_each(|ticks| *ticks -= 1);
    left.retain(|_, ticks| *ticks > 0);
}

fn id(of: u8) -> PolicyId {
    PolicyId::parse(&of.to_string()).unwrap()
}

fn host(bit: Hosts) -> DomainName {
    DomainName::parse(if bit == A { "a.example" } else { "b.example" }).unwrap()
}

fn hosts(set: Hosts) -> Vec<DomainName> {
    [A, B].into_iter().filter(|bit| set & bit != 0).map(host).collect()
}

fn bits<'a>(hosts: impl IntoIterator<Item = &'a DomainName>) -> Hosts {
    hosts.into_iter().map(|name| if *name == host(A) { A } else { B }).fold(0, |all, bit| all | bit)
}

fn now() -> Timestamp {
    "2026-11-25T00:00:00Z".parse().unwrap()
}

fn file(policy: &Policy) -> File {
    File {
        mode: policy.mode,
        ticks: u8::try_from(policy.max_age / TICK).unwrap(),
        mx: bits(policy.mx.iter().map(MxPattern::name)),
    }
}

fn policy(file: &File) -> Policy {
    let mx = hosts(file.mx).into_iter().map(MxPattern::Exact).collect();
    Policy {
        mode: file.mode,
        max_age: u32::from(file.ticks) * TICK,
        mx,
        unmatchable: Vec::new(),
        notes: Vec::new(),
    }
}

fn wanted(want: usize) -> DesiredState {
    let (mode, mx) = WANTS[want];
    DesiredState {
        domain: DomainName::parse("example").unwrap(),
        mx: hosts(mx).into_iter().map(MxPattern::Exact).collect(),
        mode,
        max_age_testing: u32::from(TESTING) * TICK,
        max_age_enforce: u32::from(ENFORCE) * TICK,
        max_age_before: u32::from(BEFORE) * TICK,
        rua: Vec::new(),
        policy_host: None,
        delegated_to: None,
    }
}

impl State {
    fn new(mx: Hosts, served: Option<File>) -> Self {
        Self {
            want: 0,
            changes: std::env::var("SPOST_SAFETY_CHANGES").map_or(CHANGES, |text| text.parse().unwrap()),
            rollout: RolloutState::default(),
            begun: None,
            mx,
            record: served.as_ref().map(|_| 0),
            under_this_id: served.iter().cloned().collect(),
            served,
            held: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    fn seen(&self, fetched: bool) -> ObservedState {
        ObservedState {
            mx: hosts(self.mx),
            mx_ttl: u32::from(MX_TTL) * TICK,
            record: self.record.map(id),
            served: self.served.as_ref().filter(|_| fetched).map(policy),
            ..ObservedState::default()
        }
    }

    /// Lets the planner observe the domain, choose the next step and record it.
    fn begin(&mut self, planner: Planner, permit: bool, fetched: bool) -> PlannedStep {
        let (wanted, seen) = (wanted(self.want), self.seen(fetched));
        self.rollout.observe(&wanted, &seen, now());
        let permit = if permit { Permit::Enforce } else { Permit::Testing };
        let next = planner(&wanted, &self.rollout, &seen, permit, now());
        if let PlannedStep::Do(step) = &next {
            self.begun = Some(match step {
                Step::Serve(policy) => {
                    self.rollout.intend(policy);
                    Done::Serve(file(policy))
                }
                Step::Announce(_) => {
                    let new = 1 - self.record.unwrap_or(0);
                    self.rollout.offer(&id(new));
                    Done::Announce(new)
                }
                Step::AddMx(hosts) => Done::Mx(self.mx | bits(hosts)),
                Step::RemoveMx(hosts) => Done::Mx(self.mx & !bits(hosts)),
                Step::Withdraw => Done::Withdraw,
                Step::TakeDown => Done::TakeDown,
                Step::PointPolicyHost(_) | Step::AskForReports(_) | Step::Delegate(_) => {
                    panic!("the goals of this model never need this step")
                }
            });
        }
        self.forget_what_does_not_count();
        next
    }

    fn finish(&mut self) {
        match self.begun.take() {
            Some(Done::Serve(file)) => self.replace(Some(file)),
            Some(Done::TakeDown) => self.replace(None),
            Some(Done::Announce(id)) => {
                self.record = Some(id);
                self.under_this_id = self.served.iter().cloned().collect();
            }
            Some(Done::Mx(mx)) if mx != self.mx => {
                self.known.insert(self.mx, MX_TTL);
                self.mx = mx;
            }
            Some(Done::Withdraw) => self.record = None,
            Some(Done::Mx(_)) | None => {}
        }
        self.forget_what_does_not_count();
    }

    fn replace(&mut self, file: Option<File>) {
        if self.served == file {
            return;
        }
        if let Some(old) = self.served.take() {
            // A fetch in progress may deliver it for one more tick; the sender then keeps it for its `max_age`.
            let left = old.ticks + 1;
            self.held.insert(old, left);
        }
        self.under_this_id.extend(file.iter().cloned());
        self.served = file;
    }

    /// All policy files that some sender can hold.
    fn holdings(&self) -> impl Iterator<Item = &File> {
        self.held.keys().chain(&self.served)
    }

    fn tick(&mut self) {
        let shift = |time: Timestamp| time - SignedDuration::from_secs(i64::from(TICK));
        for promise in &mut self.rollout.promises {
            promise.until = promise.until.map(shift);
        }
        for gone in &mut self.rollout.gone {
            gone.until = shift(gone.until);
        }
        let oldest = now() - SignedDuration::from_secs(i64::from(TICK) * 4);
        for unused in &mut self.rollout.unused {
            unused.since = shift(unused.since).max(oldest);
        }
        count_down(&mut self.held);
        count_down(&mut self.known);
        // The next observation would drop expired entries; dropping them now makes equal states identical.
        self.rollout.promises.retain(|promise| promise.is_out(now()));
        self.rollout.gone.retain(|gone| gone.until > now());
    }

    fn forget_what_does_not_count(&mut self) {
        self.rollout.last_id = None;
        if let Some(mode) = &mut self.rollout.mode {
            mode.since = now();
        }
    }

    fn refuses(&self) -> bool {
        let mx = self.known.keys().fold(self.mx, |all, set| all | set);
        self.holdings().any(|file| file.mode == Mode::Enforce && mx & !file.mx != 0)
    }

    fn binds_nobody(&self) -> bool {
        self.holdings().all(|file| file.mode == Mode::None)
    }

    /// Checks that an undisturbed plan ends when every step succeeds.
    fn ends(&self, planner: Planner) -> bool {
        let mut state = self.clone();
        state.finish();
        for _ in 0..TURNS {
            match state.begin(planner, true, true) {
                PlannedStep::Done => return true,
                PlannedStep::Do(_) => state.finish(),
                PlannedStep::Wait(..) => state.tick(),
                // The model's hosts have names that a policy can contain.
                PlannedStep::Gate | PlannedStep::Blocked(_) => return false,
            }
        }
        false
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    /// A domain without a policy, and domains that already have one.
    fn init_states(&self) -> Vec<State> {
        let file = |mode, ticks, mx| File { mode, ticks, mx };
        vec![
            State::new(A, None),
            State::new(A | B, None),
            State::new(A, Some(file(Mode::Testing, 2, A))),
            State::new(A, Some(file(Mode::Enforce, BEFORE, A))),
            State::new(A, Some(file(Mode::Enforce, BEFORE, A | B))),
        ]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        if state.changes > 0 {
            actions.extend((0..WANTS.len()).filter(|want| *want != state.want).map(Action::Want));
        }
        if state.begun.is_some() {
            actions.extend([Action::Finish, Action::Crash]);
        } else {
            actions.extend([true, false].map(|permit| Action::Begin { permit, fetched: true }));
            if state.served.is_some() {
                actions.push(Action::Begin { permit: true, fetched: false });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.tick(),
            Action::Want(want) => {
                state.want = want;
                state.changes -= 1;
            }
            Action::Begin { permit, fetched } => {
                state.begin(self.0, permit, fetched);
            }
            Action::Finish => state.finish(),
            Action::Crash => state.begun = None,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(REFUSED, |_, state: &State| !state.refuses()),
            Property::always(MISLED, |model: &World, state: &State| {
                let is_current = |file: &File| state.served.as_ref() == Some(file);
                let rests = || !matches!(state.clone().begin(model.0, false, true), PlannedStep::Do(_));
                state.record.is_none()
                    || state.begun.is_some()
                    || state.under_this_id.iter().all(is_current)
                    || !rests()
            }),
            Property::always(BOUND, |model: &World, state: &State| {
                let is_over = || state.clone().begin(model.0, true, true) == PlannedStep::Done;
                WANTS[state.want].0 != Mode::None || state.binds_nobody() || !is_over()
            }),
            Property::always(ENDLESS, |model: &World, state: &State| state.ends(model.0)),
            Property::sometimes("enforced", |_, state: &State| {
                state.holdings().any(|file| file.mode == Mode::Enforce)
            }),
            Property::sometimes("moved", |_, state: &State| state.mx == B),
            Property::sometimes("retired", |_, state: &State| {
                WANTS[state.want].0 == Mode::None
                    && state.changes == 0
                    && state.record.is_none()
                    && state.served.is_none()
            }),
        ]
    }
}

const REFUSED: &str = "no sender refuses mail for an MX host";
const MISLED: &str = "no sender takes an older policy for the announced one";
const BOUND: &str = "after retirement no sender holds a policy";
const ENDLESS: &str = "every plan ends";

fn check(planner: Planner, until: HasDiscoveries) -> impl Checker<World> {
    assert_eq!(POLICY_SLACK.as_secs(), u64::from(TICK));
    World(planner).checker().threads(2).finish_when(until).spawn_bfs().join()
}

#[test]
fn pub_02_no_conforming_sender_ever_refuses_mail_whatever_it_holds() {
    let checker = check(next, HasDiscoveries::AnyFailures);
    println!(
        "{} states, {} unique, depth {}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// Checks that the model check finds a wrong order; otherwise the check above would prove nothing.
fn finds(property: &'static str, planner: Planner) {
    let until = HasDiscoveries::AnyOf([property].into());
    assert!(check(planner, until).discovery(property).is_some(), "not found: {property}");
}

#[test]
fn the_checker_finds_a_record_that_is_announced_before_the_file() {
    finds(MISLED, |wanted, rollout, seen, permit, now| match next(wanted, rollout, seen, permit, now) {
        PlannedStep::Do(Step::Serve(_)) if rollout.announce_due => PlannedStep::Do(Step::Announce(id(1))),
        PlannedStep::Do(Step::Announce(_)) if seen.record.is_some() => PlannedStep::Done,
        other => other,
    });
}

#[test]
fn the_checker_finds_a_file_that_is_changed_without_a_new_id() {
    finds(MISLED, |wanted, rollout, seen, permit, now| match next(wanted, rollout, seen, permit, now) {
        PlannedStep::Do(Step::Announce(_)) if seen.record.is_some() => PlannedStep::Done,
        other => other,
    });
}

#[test]
fn the_checker_finds_an_mx_host_that_takes_mail_too_early() {
    finds(REFUSED, |wanted, rollout, seen, permit, now| {
        let careless =
            RolloutState { promises: rollout.newest().cloned().into_iter().collect(), ..rollout.clone() };
        next(wanted, &careless, seen, permit, now)
    });
}

#[test]
fn the_checker_finds_a_pattern_that_is_dropped_too_early() {
    finds(REFUSED, |wanted, rollout, seen, permit, now| {
        let long_ago = now - SignedDuration::from_hours(24);
        let mut hasty = rollout.clone();
        hasty.gone.clear();
        hasty.unused.iter_mut().for_each(|unused| unused.since = long_ago);
        next(wanted, &hasty, seen, permit, now)
    });
}

#[test]
fn the_checker_finds_a_policy_that_is_removed_too_early() {
    finds(BOUND, |wanted, rollout, seen, permit, now| match wanted.mode {
        Mode::None => next(wanted, &RolloutState::default(), seen, permit, now),
        _ => next(wanted, rollout, seen, permit, now),
    });
}

#[test]
fn the_checker_finds_a_step_that_is_not_recorded_before_it_is_taken() {
    finds(REFUSED, |wanted, rollout, seen, permit, now| {
        let mut forgetful = rollout.clone();
        forgetful.promises.retain(|promise| seen.served.as_ref().is_none_or(|served| promise.is(served)));
        next(wanted, &forgetful, seen, permit, now)
    });
}
