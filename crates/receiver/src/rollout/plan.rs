//! From what is wanted, what is seen and what was promised to the next step, and to the whole way: pure
//! functions (RFC 8461 §8.3; the theorem and its check are in docs/safety.md).
//!
//! The order is the point. The policy host answers with the new file before the record announces it
//! (PUB-01). Enforcement comes only after testing was seen (PUB-05). A new MX host takes mail only when
//! no sender can hold an enforced policy without it, and a pattern goes only when no sender can know an
//! MX host that needs it (PUB-04). Retiring waits until no promise is out (PUB-03).

mod stages;
mod step;

pub use stages::{Stage, plan};
pub use step::Step;

use super::desired::DesiredState;
use super::observed::ObservedState;
use super::state::{PublishedPolicy, RolloutState, seconds};
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::Timestamp;
use net::clock::later;
use serde::Serialize;

/// Whether enforcement is allowed: the gate's word or the operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It is not; testing at most.
    Testing,
    /// It is.
    Enforce,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedStep {
    /// This can be done now.
    Do(Step),
    /// Nothing before this time.
    Wait(Timestamp, WaitReason),
    /// Testing is in place; enforcement takes a permit.
    Gate,
    /// Everything is as it is wanted.
    Done,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitReason {
    /// Senders may hold an enforced policy without the new MX hosts.
    BeforeNewMx,
    /// Senders may still know MX hosts that are gone.
    BeforeNarrowing,
    /// Senders may hold a policy of the domain that retires.
    BeforeRemoval,
}

/// What comes next on the way to the wanted state. `rollout` has taken in what is seen.
pub fn next(
    wanted: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    permit: Permit,
    now: Timestamp,
) -> PlannedStep {
    // A name that would be too long was refused when the domain was added.
    let missing: Vec<_> = wanted
        .aliases()
        .unwrap_or_default()
        .into_iter()
        .filter(|alias| !seen.aliases.contains(alias))
        .collect();
    if !missing.is_empty() && wanted.mode != Mode::None {
        return PlannedStep::Do(Step::Delegate(missing));
    }
    if !wanted.rua.is_empty() && wanted.rua != seen.rua {
        return PlannedStep::Do(Step::AskForReports(TlsrptRecord::new(wanted.rua.clone())));
    }
    if wanted.mode == Mode::None {
        return retire(wanted, rollout, seen, now);
    }
    let Some(policy) = target(wanted, rollout, seen, permit, now) else {
        // No MX host is wanted, and none is seen: there is nothing that a policy could name.
        return PlannedStep::Done;
    };
    put_up(&policy, wanted, rollout, seen, now)
        .or_else(|| move_mail(wanted, rollout, seen, now))
        .or_else(|| narrow(rollout, seen, now))
        .unwrap_or(if wanted.mode == policy.mode { PlannedStep::Done } else { PlannedStep::Gate })
}

/// Lets the policy host serve this policy and the record announce it.
fn put_up(
    policy: &Policy,
    wanted: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    now: Timestamp,
) -> Option<PlannedStep> {
    if let Some(place) = wanted.policy_host.as_ref().filter(|place| !seen.points_to(place)) {
        return Some(PlannedStep::Do(Step::PointPolicyHost(place.clone())));
    }
    let is_served = seen.served.as_ref().is_some_and(|served| PublishedPolicy::from(served).is(policy));
    let is_newest = rollout.newest().is_some_and(|newest| newest.is(policy));
    if !is_served || !is_newest {
        return Some(PlannedStep::Do(Step::Serve(policy.clone())));
    }
    let is_announced = seen.record.is_some() && !rollout.announce_due;
    (!is_announced).then(|| {
        if let Some(id) = rollout.offered.as_ref().filter(|_| rollout.announce_due) {
            return PlannedStep::Do(Step::Announce(id.clone()));
        }
        let known = [seen.record.as_ref(), rollout.last_id.as_ref()];
        let last = known.into_iter().flatten().max_by_key(|id| id.as_time());
        PlannedStep::Do(Step::Announce(PolicyId::at(now, last)))
    })
}

/// New MX hosts first, when no sender refuses them any more; then the old ones may go.
fn move_mail(
    wanted: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    now: Timestamp,
) -> Option<PlannedStep> {
    let exact = wanted.mx.iter().filter_map(|pattern| match pattern {
        MxPattern::Exact(host) => Some(host),
        MxPattern::Wildcard(_) => None,
    });
    let new: Vec<DomainName> = exact.filter(|host| !seen.mx.contains(host)).cloned().collect();
    if !new.is_empty() {
        let free = rollout.free_of(|promise| new.iter().any(|host| promise.refuses(host)));
        return Some(match free.filter(|free| *free > now) {
            Some(free) => PlannedStep::Wait(free, WaitReason::BeforeNewMx),
            None => PlannedStep::Do(Step::AddMx(new)),
        });
    }
    let is_wanted = |host: &DomainName| wanted.mx.iter().any(|pattern| pattern.matches(host));
    let old: Vec<DomainName> = seen.mx.iter().filter(|host| !is_wanted(host)).cloned().collect();
    let others_stay = old.len() < seen.mx.len();
    (!wanted.mx.is_empty() && !old.is_empty() && others_stay).then_some(PlannedStep::Do(Step::RemoveMx(old)))
}

/// Waits until the first pattern that nobody needs can go; the policy without it is then the target.
fn narrow(rollout: &RolloutState, seen: &ObservedState, now: Timestamp) -> Option<PlannedStep> {
    let times = rollout.unused.iter().map(|unused| droppable(unused.since, rollout, seen));
    times.filter(|time| *time > now).min().map(|time| PlannedStep::Wait(time, WaitReason::BeforeNarrowing))
}

/// From when on a pattern can go that is unused since then.
fn droppable(since: Timestamp, rollout: &RolloutState, seen: &ObservedState) -> Timestamp {
    let enforced = rollout.promises.iter().filter(|promise| promise.mode == Mode::Enforce);
    let longest = enforced.map(|promise| promise.max_age).max().unwrap_or(0);
    later(since, seconds(longest.max(seen.mx_ttl)))
}

fn retire(
    wanted: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    now: Timestamp,
) -> PlannedStep {
    let binds = |promise: &PublishedPolicy| promise.mode != Mode::None;
    let bound = rollout.free_of(binds).filter(|free| *free > now);
    let served = seen.served.as_ref().is_some_and(|policy| policy.mode != Mode::None);
    if bound.is_none() && !served {
        // Nobody is bound any more, whether or not a policy can be fetched.
        return match (&seen.record, &seen.served) {
            (Some(_), _) => PlannedStep::Do(Step::Withdraw),
            (None, Some(_)) => PlannedStep::Do(Step::TakeDown),
            (None, None) => PlannedStep::Done,
        };
    }
    let policy =
        Policy { mode: Mode::None, max_age: wanted.max_age_testing, mx: Vec::new(), notes: Vec::new() };
    if let Some(next) = put_up(&policy, wanted, rollout, seen, now) {
        return next;
    }
    PlannedStep::Wait(bound.unwrap_or(now), WaitReason::BeforeRemoval)
}

/// The policy that is to be served now; `None` when there is no MX host to name.
fn target(
    wanted: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    permit: Permit,
    now: Timestamp,
) -> Option<Policy> {
    let mode = mode(wanted, rollout, seen, permit);
    let max_age = if mode == Mode::Enforce { wanted.max_age_enforce } else { wanted.max_age_testing };
    let mut mx = wanted.mx.clone();
    for host in seen.mx.iter().chain(rollout.gone.iter().map(|gone| &gone.host)) {
        if !mx.iter().any(|pattern| pattern.matches(host)) {
            mx.push(MxPattern::Exact(host.clone()));
        }
    }
    let may_go = |pattern: &MxPattern| {
        let unused = rollout.unused.iter().find(|unused| unused.pattern == *pattern);
        unused.is_some_and(|unused| droppable(unused.since, rollout, seen) <= now)
    };
    for pattern in rollout.newest().iter().flat_map(|newest| &newest.mx) {
        if !mx.iter().any(|known| known.covers(pattern)) && !may_go(pattern) {
            mx.push(pattern.clone());
        }
    }
    Policy::new(mode, max_age, mx)
}

/// Enforcement that is there stays; to begin it takes a permit, and testing that was seen.
fn mode(wanted: &DesiredState, rollout: &RolloutState, seen: &ObservedState, permit: Permit) -> Mode {
    let is_in = |mode: Mode| rollout.mode.is_some_and(|known| known.mode == mode);
    let enforce = wanted.mode == Mode::Enforce
        && (is_in(Mode::Enforce)
            || permit == Permit::Enforce && is_in(Mode::Testing) && seen.record.is_some());
    if enforce { Mode::Enforce } else { Mode::Testing }
}

#[cfg(test)]
mod tests;
