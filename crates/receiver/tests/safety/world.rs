//! The model: the planner, the senders and the world, and the actions that change them.
//!
//! Time advances in ticks of two minutes, which is also [`formats::limits::POLICY_SLACK`]. Senders are independent of
//! each other. A sender may fetch at any moment from any address of the policy host, keep a policy until its `max_age`
//! expires, ignore the `id`, and know MX hosts from a cache. The model therefore tracks the policies that some sender can
//! hold and the MX sets that some sender can know, instead of single senders.

use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::{SignedDuration, Timestamp};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use sternpost_receiver::rollout::desired::DesiredState;
use sternpost_receiver::rollout::observed::ObservedState;
use sternpost_receiver::rollout::outside::AddressView;
use sternpost_receiver::rollout::plan::{Permit, PlannedStep, Step};
use sternpost_receiver::rollout::state::RolloutState;

pub const TICK: u32 = 120;
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
/// The wildcard that matches both hosts; only in policies.
const WILD: Hosts = 4;

/// The goals that the operator may set: a mode and MX patterns.
const WANTS: [(Mode, Hosts); 7] = [
    (Mode::Enforce, A),
    (Mode::Enforce, B),
    (Mode::Enforce, A | B),
    (Mode::Testing, A),
    (Mode::None, A),
    (Mode::Enforce, 0),
    (Mode::Enforce, WILD),
];

/// What the world may do beyond the first model: one policy host address, one applier, exact patterns, and MX records that
/// only the plan changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Premises {
    /// Goals and policies with a wildcard.
    pub wildcards: bool,
    /// The policy host has a second address, which gets each file at any later time, and may fail.
    pub two_addresses: bool,
    /// A second applier may begin a step while the first has not ended its own, as after a lease that was taken over. A step
    /// that is overtaken so ends within a tick.
    pub two_appliers: bool,
    /// A step that is overtaken may end at any later time, against the premise above.
    pub late_steps: bool,
    /// How often others may change the MX records.
    pub foreign_changes: u8,
}

impl Premises {
    /// True if the goal does not change on the way, which `./test` has no time for where a premise is dropped.
    fn is_bounded(self) -> bool {
        let drops_one = self.wildcards || self.two_addresses || self.two_appliers || self.foreign_changes > 0;
        drops_one && std::env::var("SPOST_SAFETY_CHANGES").is_err()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct File {
    pub mode: Mode,
    ticks: u8,
    mx: Hosts,
}

impl File {
    /// The hosts that the patterns match.
    fn named(&self) -> Hosts {
        if self.mx & WILD == 0 { self.mx } else { A | B }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub want: usize,
    pub changes: u8,
    pub rollout: RolloutState,
    /// The step of each applier that was recorded but not carried out yet.
    begun: [Option<Done>; 2],
    /// Whether the other applier has begun a step since.
    overtaken: [bool; 2],
    pub mx: Hosts,
    /// How often others may still change the MX records.
    foreign: u8,
    /// Hosts that others have added, and that senders may refuse until the planner has seen them in DNS and in every policy
    /// that senders can hold.
    excused: Hosts,
    /// The published `id`; it alternates between two values.
    pub record: Option<u8>,
    /// The file at each address of the policy host; both are the same without a second address.
    pub served: [Option<File>; 2],
    /// Replaced files that some sender holds, each with the ticks left.
    held: BTreeMap<File, u8>,
    /// Files that could be fetched since the last announcement.
    under_this_id: BTreeSet<File>,
    /// Replaced MX sets that some sender knows, each with the ticks left.
    known: BTreeMap<Hosts, u8>,
}

/// The effect of a step on the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Done {
    Serve(File),
    Announce(u8),
    Mx(Hosts),
    Withdraw,
    TakeDown,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Tick,
    /// The operator changes the goal.
    Want(usize),
    /// An applier observes the domain and records its next step. The fetch of the policy may fail at each address.
    Begin {
        applier: usize,
        permit: bool,
        fetched: [bool; 2],
    },
    /// The recorded step of an applier is carried out.
    Finish(usize),
    /// An applier crashes before the step is carried out.
    Crash(usize),
    /// The second address gets the file of the first.
    Follow,
    /// Others change the MX records.
    Foreign(Hosts),
}

pub type Planner = fn(&DesiredState, &RolloutState, &ObservedState, Permit, Timestamp) -> PlannedStep;

/// What the planner observes of what is there.
pub type Observer = fn(&State, ObservedState) -> ObservedState;

pub struct World {
    pub planner: Planner,
    pub observer: Observer,
    pub premises: Premises,
}

fn count_down<K: Ord>(left: &mut BTreeMap<K, u8>) {
    left.values_mut().for_each(|ticks| *ticks -= 1);
    left.retain(|_, ticks| *ticks > 0);
}

pub fn id(of: u8) -> PolicyId {
    PolicyId::parse(&of.to_string()).unwrap()
}

fn host(bit: Hosts) -> DomainName {
    DomainName::parse(if bit == A { "a.example" } else { "b.example" }).unwrap()
}

fn hosts(set: Hosts) -> Vec<DomainName> {
    [A, B].into_iter().filter(|bit| set & bit != 0).map(host).collect()
}

fn patterns(set: Hosts) -> Vec<MxPattern> {
    let wild = (set & WILD != 0).then(|| MxPattern::Wildcard(DomainName::parse("example").unwrap()));
    hosts(set).into_iter().map(MxPattern::Exact).chain(wild).collect()
}

fn pattern_bits(patterns: &[MxPattern]) -> Hosts {
    let bit = |pattern: &MxPattern| match pattern {
        MxPattern::Exact(name) => bits([name]),
        MxPattern::Wildcard(_) => WILD,
    };
    patterns.iter().map(bit).fold(0, |all, bit| all | bit)
}

fn bits<'a>(hosts: impl IntoIterator<Item = &'a DomainName>) -> Hosts {
    hosts.into_iter().map(|name| if *name == host(A) { A } else { B }).fold(0, |all, bit| all | bit)
}

pub fn now() -> Timestamp {
    "2026-11-25T00:00:00Z".parse().unwrap()
}

fn file(policy: &Policy) -> File {
    File {
        mode: policy.mode,
        ticks: u8::try_from(policy.max_age / TICK).unwrap(),
        mx: pattern_bits(&policy.mx),
    }
}

pub fn policy(file: &File) -> Policy {
    Policy {
        mode: file.mode,
        max_age: u32::from(file.ticks) * TICK,
        mx: patterns(file.mx),
        unmatchable: Vec::new(),
        notes: Vec::new(),
    }
}

fn desired(want: usize) -> DesiredState {
    let (mode, mx) = WANTS[want];
    DesiredState {
        domain: DomainName::parse("example").unwrap(),
        mx: patterns(mx),
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
    fn new(mx: Hosts, served: Option<File>, foreign: u8) -> Self {
        Self {
            want: 0,
            changes: std::env::var("SPOST_SAFETY_CHANGES").map_or(CHANGES, |text| text.parse().unwrap()),
            rollout: RolloutState::default(),
            begun: [None, None],
            overtaken: [false; 2],
            mx,
            foreign,
            // The planner has not seen the hosts yet, which others may remove before.
            excused: if foreign > 0 { mx } else { 0 },
            record: served.as_ref().map(|_| 0),
            under_this_id: served.iter().cloned().collect(),
            served: [served.clone(), served],
            held: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    fn seen(&self, fetched: [bool; 2], premises: Premises) -> ObservedState {
        let files: Vec<Option<&File>> = self
            .served
            .iter()
            .zip(fetched)
            .map(|(file, fetched)| file.as_ref().filter(|_| fetched))
            .collect();
        let mut seen = ObservedState {
            mx: hosts(self.mx),
            mx_ttl: u32::from(MX_TTL) * TICK,
            record: self.record.map(id),
            served: files[0].filter(|_| files[0] == files[1]).map(policy),
            ..ObservedState::default()
        };
        if premises.two_addresses {
            let copies: BTreeSet<&File> = files.iter().copied().flatten().collect();
            seen.copies = copies.into_iter().map(policy).collect();
            seen.outside.addresses = files
                .iter()
                .zip(["192.0.2.1", "192.0.2.2"])
                .map(|(file, address)| AddressView {
                    address: address.parse().unwrap(),
                    shows: file.map(|file| format!("{file:?}")),
                    fault: file.is_none().then(|| "no answer".to_owned()),
                    counts: true,
                })
                .collect();
        }
        seen
    }

    /// Lets an applier observe the domain, choose the next step and record it.
    pub fn begin(&mut self, world: &World, applier: usize, permit: bool, fetched: [bool; 2]) -> PlannedStep {
        let desired = desired(self.want);
        let seen = (world.observer)(self, self.seen(fetched, world.premises));
        self.rollout.observe(&desired, &seen, now());
        let permit = if permit { Permit::Enforce } else { Permit::Testing };
        let next = (world.planner)(&desired, &self.rollout, &seen, permit, now());
        let named = self.holdings().fold(A | B, |all, file| all & file.named());
        if self.begun.iter().all(Option::is_none) {
            self.excused &= !(self.mx & named);
        }
        if let PlannedStep::Do(step) = &next {
            self.overtaken[1 - applier] = self.begun[1 - applier].is_some();
            self.begun[applier] = Some(match step {
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

    fn finish(&mut self, applier: usize, premises: Premises) {
        self.overtaken[applier] = false;
        match self.begun[applier].take() {
            Some(Done::Serve(file)) => self.replace(Some(file), premises),
            Some(Done::TakeDown) => self.replace(None, premises),
            Some(Done::Announce(id)) => {
                self.record = Some(id);
                self.under_this_id = self.served.iter().flatten().cloned().collect();
            }
            Some(Done::Mx(mx)) => self.change_mx(mx),
            Some(Done::Withdraw) => self.record = None,
            None => {}
        }
        self.forget_what_does_not_count();
    }

    fn change_mx(&mut self, mx: Hosts) {
        if mx != self.mx {
            self.known.insert(self.mx, MX_TTL);
            self.mx = mx;
        }
    }

    /// Others change the MX records.
    fn change_mx_elsewhere(&mut self, mx: Hosts) {
        self.excused |= mx & !self.mx;
        self.change_mx(mx);
        self.foreign -= 1;
    }

    fn replace(&mut self, file: Option<File>, premises: Premises) {
        self.replace_at(0, file.clone());
        if !premises.two_addresses {
            self.replace_at(1, file);
        }
    }

    fn replace_at(&mut self, address: usize, file: Option<File>) {
        if self.served[address] == file {
            return;
        }
        let old = std::mem::replace(&mut self.served[address], file.clone());
        if let Some(old) = old.filter(|old| !self.served.iter().flatten().any(|other| other == old)) {
            // A fetch in progress may deliver it for one more tick; the sender then keeps it for its `max_age`.
            let left = old.ticks + 1;
            self.held.insert(old, left);
        }
        self.under_this_id.extend(file);
    }

    /// All policy files that some sender can hold.
    pub fn holdings(&self) -> impl Iterator<Item = &File> {
        self.held.keys().chain(self.served.iter().flatten())
    }

    fn tick(&mut self) {
        let shift = |time: Timestamp| time - SignedDuration::from_secs(i64::from(TICK));
        for promise in &mut self.rollout.published {
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
        self.rollout.published.retain(|promise| promise.is_out(now()));
        self.rollout.gone.retain(|gone| gone.until > now());
        self.excused &= self.known.keys().fold(self.mx, |all, set| all | set);
    }

    fn forget_what_does_not_count(&mut self) {
        (self.rollout.last_id, self.rollout.abandoned) = (None, None);
        if let Some(mode) = &mut self.rollout.mode {
            mode.since = now();
        }
    }

    fn refuses(&self) -> bool {
        let mx = self.known.keys().fold(self.mx, |all, set| all | set) & !self.excused;
        self.holdings().any(|file| file.mode == Mode::Enforce && mx & !file.named() != 0)
    }

    fn binds_nobody(&self) -> bool {
        self.holdings().all(|file| file.mode == Mode::None)
    }

    /// Checks that an undisturbed plan ends when every step succeeds, and that then no host is refused any more, also none
    /// that others have added.
    fn ends(&self, world: &World) -> bool {
        let mut state = self.clone();
        (0..2).for_each(|applier| state.finish(applier, world.premises));
        state.replace_at(1, state.served[0].clone());
        for _ in 0..TURNS {
            match state.begin(world, 0, true, [true; 2]) {
                PlannedStep::Done => return state.heals(),
                PlannedStep::Do(_) => {
                    state.finish(0, world.premises);
                    state.replace_at(1, state.served[0].clone());
                }
                PlannedStep::Wait(..) => state.tick(),
                // The model's hosts have names that a policy can contain.
                PlannedStep::Gate
                | PlannedStep::Blocked(_)
                | PlannedStep::TooLarge(_)
                | PlannedStep::NoMailHosts(_) => return false,
            }
        }
        false
    }

    /// Whether nothing is refused once all that senders hold or know besides has expired.
    fn heals(mut self) -> bool {
        self.excused = 0;
        (0..=BEFORE + 1).for_each(|_| self.tick());
        !self.refuses()
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    /// A domain without a policy, and domains that already have one.
    fn init_states(&self) -> Vec<State> {
        let file = |mode, ticks, mx| File { mode, ticks, mx };
        let state = |mx, served| State::new(mx, served, self.premises.foreign_changes);
        let mut states = vec![
            state(A, None),
            state(A | B, None),
            state(A, Some(file(Mode::Testing, 2, A))),
            state(A, Some(file(Mode::Enforce, BEFORE, A))),
            state(A, Some(file(Mode::Enforce, BEFORE, A | B))),
        ];
        if self.premises.wildcards {
            states.push(state(A, Some(file(Mode::Enforce, BEFORE, WILD))));
            states.push(state(A | B, Some(file(Mode::Enforce, BEFORE, WILD))));
        }
        if self.premises.late_steps {
            // One way to the fault is enough: a host that is added again after the policy has dropped it.
            let before = state(A, Some(file(Mode::Enforce, BEFORE, A | B)));
            return vec![State { want: 1, changes: 0, ..before }];
        }
        if self.premises.is_bounded() {
            // Many states: each goal is there from the beginning, and does not change.
            let goals = 0..if self.premises.wildcards { WANTS.len() } else { WANTS.len() - 1 };
            let with = |want| states.iter().map(move |state| State { want, changes: 0, ..state.clone() });
            return goals.flat_map(with).collect();
        }
        states
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let premises = self.premises;
        if premises.late_steps || state.overtaken == [false; 2] {
            actions.push(Action::Tick);
        }
        if state.changes > 0 {
            let count = if premises.wildcards { WANTS.len() } else { WANTS.len() - 1 };
            actions.extend((0..count).filter(|want| *want != state.want).map(Action::Want));
        }
        let appliers = if premises.two_appliers { 2 } else { 1 };
        for applier in 0..appliers {
            if state.begun[applier].is_some() {
                actions.extend([Action::Finish(applier), Action::Crash(applier)]);
                continue;
            }
            let begin = |permit, fetched| Action::Begin { applier, permit, fetched };
            actions.extend([true, false].map(|permit| begin(permit, [true; 2])));
            if state.served.iter().any(Option::is_some) {
                actions.push(begin(true, [false; 2]));
                if premises.two_addresses {
                    actions.extend([begin(true, [true, false]), begin(true, [false, true])]);
                }
            }
        }
        if premises.two_addresses && state.served[0] != state.served[1] {
            actions.push(Action::Follow);
        }
        if state.foreign > 0 {
            actions.extend([A, B, A | B].into_iter().filter(|mx| *mx != state.mx).map(Action::Foreign));
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
            Action::Begin { applier, permit, fetched } => {
                state.begin(self, applier, permit, fetched);
            }
            Action::Finish(applier) => state.finish(applier, self.premises),
            Action::Crash(applier) => (state.begun[applier], state.overtaken[applier]) = (None, false),
            Action::Follow => state.replace_at(1, state.served[0].clone()),
            Action::Foreign(mx) => state.change_mx_elsewhere(mx),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(REFUSED, |_, state: &State| !state.refuses()),
            Property::always(MISLED, |model: &World, state: &State| {
                let is_current =
                    |file: &File| state.served.iter().all(|served| served.as_ref() == Some(file));
                let rests = || !matches!(state.clone().begin(model, 0, false, [true; 2]), PlannedStep::Do(_));
                state.record.is_none()
                    || state.begun.iter().any(Option::is_some)
                    || state.under_this_id.iter().all(is_current)
                    || !rests()
            }),
            Property::always(BOUND, |model: &World, state: &State| {
                let is_over = || {
                    let is_idle = state.begun.iter().all(Option::is_none);
                    is_idle && state.clone().begin(model, 0, true, [true; 2]) == PlannedStep::Done
                };
                WANTS[state.want].0 != Mode::None || state.binds_nobody() || !is_over()
            }),
            Property::always(ENDLESS, |model: &World, state: &State| state.ends(model)),
            Property::sometimes("enforced", |_, state: &State| {
                state.holdings().any(|file| file.mode == Mode::Enforce)
            }),
            Property::sometimes("moved", |_, state: &State| state.mx == B),
            Property::sometimes("retired", |_, state: &State| {
                WANTS[state.want].0 == Mode::None
                    && state.changes == 0
                    && state.record.is_none()
                    && state.served == [None, None]
            }),
        ]
    }
}

pub const REFUSED: &str = "no sender refuses mail for an MX host";
pub const MISLED: &str = "no sender takes an older policy for the announced one";
pub const BOUND: &str = "after retirement no sender holds a policy";
pub const ENDLESS: &str = "every plan ends";
