//! Computes the next step, and all remaining stages, from the desired state, the observed state and the policies that
//! senders may hold. Pure functions (RFC 8461 §8.3); docs/safety.md states the safety theorem and its check.
//!
//! The order of steps keeps senders from refusing mail. The policy host serves a new file before the record announces
//! it (PUB-01). Enforcement begins only after testing was observed (PUB-05). A new MX host is added only when no
//! sender can hold an enforced policy without it, and a pattern is dropped only when no sender can know an MX host
//! that needs it (PUB-04). Retirement waits until no sender can hold a policy (PUB-03).

mod stages;
mod step;

pub use stages::{Stage, plan};
pub use step::Step;

use super::desired::DesiredState;
use super::observed::{NoMailHosts, ObservedState};
use super::state::{PublishedPolicy, RolloutState, seconds};
use formats::limits::POLICY_BYTES;
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Mode, MxPattern, Policy, PolicyId};
use jiff::Timestamp;
use net::clock::later;
use serde::Serialize;

/// Whether enforcement may begin, by the gate or by the operator's approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Enforcement may not begin; `testing` is the strictest mode allowed.
    Testing,
    /// Enforcement may begin.
    Enforce,
}

/// The planner's next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedStep {
    /// The step that can be carried out now.
    Do(Step),
    /// No step is safe before this time.
    Wait(Timestamp, WaitReason),
    /// Testing is in place; enforcement requires a permit.
    Gate,
    /// A policy can't name these MX hosts, so senders that enforce it would not deliver to them. Nothing can be done
    /// before the operator renames or removes them, or lists a wildcard that matches them.
    Blocked(Vec<DomainName>),
    /// The policy file would have this many bytes, more than senders read ([`POLICY_BYTES`]). Nothing can be done before the
    /// operator lists wildcards in place of hosts.
    TooLarge(usize),
    /// No mail can be delivered to the domain, so there is nothing to protect, and no policy is published.
    NoMailHosts(NoMailHosts),
    /// The desired state is reached.
    Done,
}

/// Why the planner waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitReason {
    /// Senders may hold an enforced policy without the new MX hosts.
    BeforeNewMx,
    /// Senders may still have removed MX hosts in a cache.
    BeforeNarrowing,
    /// Senders may hold a policy of a domain that is being retired.
    BeforeRemoval,
}

/// Returns the next action towards the desired state. `rollout` must already include the observation (see
/// [`RolloutState::observe`]).
pub fn next(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    permit: Permit,
    now: Timestamp,
) -> PlannedStep {
    if let Some(why) = unmailed(desired, rollout, seen) {
        return PlannedStep::NoMailHosts(why);
    }
    // Names that would be too long are rejected when a domain is added.
    let missing: Vec<_> = desired
        .aliases()
        .unwrap_or_default()
        .into_iter()
        .filter(|alias| !seen.aliases.contains(alias))
        .collect();
    if !missing.is_empty() && desired.mode != Mode::None {
        return PlannedStep::Do(Step::Delegate(missing));
    }
    if !desired.rua.is_empty() && desired.rua != seen.rua {
        return PlannedStep::Do(Step::AskForReports(TlsrptRecord::new(desired.rua.clone())));
    }
    if desired.mode == Mode::None {
        return retire(desired, rollout, seen, now);
    }
    let unnamable = unnamable(desired, rollout, seen);
    // The way back from enforcement stays open: a policy in testing makes no sender refuse a host.
    let eases =
        desired.mode == Mode::Testing && rollout.mode.is_some_and(|known| known.mode == Mode::Enforce);
    if !unnamable.is_empty() && !eases {
        return PlannedStep::Blocked(unnamable);
    }
    let Some(policy) = target(desired, rollout, seen, permit, now) else {
        // No MX host is listed or observed, so a policy would have no `mx` line.
        return PlannedStep::NoMailHosts(seen.unmailed.unwrap_or(NoMailHosts::NoRecords));
    };
    let size = policy.to_string().len();
    if size > POLICY_BYTES {
        return PlannedStep::TooLarge(size);
    }
    publish_policy(&policy, desired, rollout, seen, now)
        .or_else(|| change_mx(desired, rollout, seen, now))
        .or_else(|| wait_to_narrow(rollout, seen, now))
        .unwrap_or(if desired.mode == policy.mode { PlannedStep::Done } else { PlannedStep::Gate })
}

/// Why a domain can't begin: it has no MX host, and no policy was published that its senders may hold. Hosts that the operator
/// lists may be published later, in a domain that exists.
fn unmailed(desired: &DesiredState, rollout: &RolloutState, seen: &ObservedState) -> Option<NoMailHosts> {
    let why = seen.unmailed.filter(|_| desired.mode != Mode::None && rollout.newest().is_none())?;
    (why == NoMailHosts::NoSuchName || desired.mx.is_empty()).then_some(why)
}

/// Serves this policy and announces it, step by step; `None` when both are done.
fn publish_policy(
    policy: &Policy,
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    now: Timestamp,
) -> Option<PlannedStep> {
    if let Some(place) = desired.policy_host.as_ref().filter(|place| !seen.points_to(place)) {
        return Some(PlannedStep::Do(Step::PointPolicyHost(place.clone())));
    }
    let is_it = |served: &Policy| PublishedPolicy::from(served).is(policy);
    // A policy that is in place is not published again because an address of the policy host fails for a while.
    let is_left = !rollout.announce_due && !seen.copies.is_empty() && seen.copies.iter().all(is_it);
    let is_served = seen.served.as_ref().is_some_and(is_it) || is_left;
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

/// Adds new MX hosts once no sender refuses them, then removes the old ones.
fn change_mx(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    now: Timestamp,
) -> Option<PlannedStep> {
    let exact = desired.mx.iter().filter_map(|pattern| match pattern {
        MxPattern::Exact(host) => Some(host),
        MxPattern::Wildcard(_) => None,
    });
    let new: Vec<DomainName> = exact.filter(|host| !seen.mx.contains(host)).cloned().collect();
    if !new.is_empty() {
        let free = rollout.free_of(|published| new.iter().any(|host| published.refuses(host)));
        return Some(match free.filter(|free| *free > now) {
            Some(free) => PlannedStep::Wait(free, WaitReason::BeforeNewMx),
            None => PlannedStep::Do(Step::AddMx(new)),
        });
    }
    let is_wanted = |host: &DomainName| desired.mx.iter().any(|pattern| pattern.matches(host));
    let old: Vec<DomainName> = seen.mx.iter().filter(|host| !is_wanted(host)).cloned().collect();
    let others_stay = old.len() < seen.mx.len();
    (!desired.mx.is_empty() && !old.is_empty() && others_stay).then_some(PlannedStep::Do(Step::RemoveMx(old)))
}

/// Waits until the first unneeded pattern can be dropped; the target policy then omits it.
fn wait_to_narrow(rollout: &RolloutState, seen: &ObservedState, now: Timestamp) -> Option<PlannedStep> {
    let times = rollout.unused.iter().map(|unused| droppable(unused.since, rollout, seen));
    times.filter(|time| *time > now).min().map(|time| PlannedStep::Wait(time, WaitReason::BeforeNarrowing))
}

/// When a pattern that has been unused since `since` can be dropped.
fn droppable(since: Timestamp, rollout: &RolloutState, seen: &ObservedState) -> Timestamp {
    let enforced = rollout.published.iter().filter(|published| published.mode == Mode::Enforce);
    let longest = enforced.map(|published| published.max_age).max().unwrap_or(0);
    later(since, seconds(longest.max(seen.mx_ttl)))
}

fn retire(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    now: Timestamp,
) -> PlannedStep {
    let is_binding = |published: &PublishedPolicy| published.mode != Mode::None;
    let bound = rollout.free_of(is_binding).filter(|free| *free > now);
    let served = seen.policies().any(|policy| policy.mode != Mode::None);
    if bound.is_none() && !served {
        // No sender holds a policy any more, whether or not one can still be fetched.
        return match (seen.record.is_some(), seen.policies().next().is_some()) {
            (true, _) => PlannedStep::Do(Step::Withdraw),
            // Some name server may still have the record.
            (false, true) if !seen.is_settled(&desired.domain, "_mta-sts") => PlannedStep::Do(Step::Withdraw),
            (false, true) => PlannedStep::Do(Step::TakeDown),
            (false, false) => PlannedStep::Done,
        };
    }
    let policy = Policy {
        mode: Mode::None,
        max_age: desired.max_age_testing,
        mx: Vec::new(),
        unmatchable: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(next) = publish_policy(&policy, desired, rollout, seen, now) {
        return next;
    }
    PlannedStep::Wait(bound.unwrap_or(now), WaitReason::BeforeRemoval)
}

/// The MX hosts in use that neither a pattern of the operator or of the newest policy matches nor a new one can name: a
/// host name must not contain an underscore, and MX records do (RFC 8461 §3.2, RFC 5321 §4.1.2).
fn unnamable(desired: &DesiredState, rollout: &RolloutState, seen: &ObservedState) -> Vec<DomainName> {
    let kept = rollout.newest().map(|newest| newest.mx.as_slice()).unwrap_or_default();
    let is_matched = |host: &DomainName| desired.mx.iter().chain(kept).any(|pattern| pattern.matches(host));
    let hosts = seen.mx.iter().filter(|host| MxPattern::exact(host).is_err() && !is_matched(host));
    hosts.cloned().collect()
}

/// The policy to serve now; `None` when there is no MX host for it to name.
fn target(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    permit: Permit,
    now: Timestamp,
) -> Option<Policy> {
    let mode = mode(desired, rollout, seen, permit);
    let max_age = if mode == Mode::Enforce { desired.max_age_enforce } else { desired.max_age_testing };
    let mut mx = desired.mx.clone();
    for host in seen.mx.iter().chain(rollout.gone.iter().map(|gone| &gone.host)) {
        if !mx.iter().any(|pattern| pattern.matches(host)) {
            // Hosts that can't be named are in `unnamable`.
            mx.extend(MxPattern::exact(host));
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

/// Enforcement in place stays; to begin it takes a permit, and testing that was observed.
fn mode(desired: &DesiredState, rollout: &RolloutState, seen: &ObservedState, permit: Permit) -> Mode {
    let is_in = |mode: Mode| rollout.mode.is_some_and(|known| known.mode == mode);
    let enforce = desired.mode == Mode::Enforce
        && (is_in(Mode::Enforce)
            || permit == Permit::Enforce && is_in(Mode::Testing) && seen.record.is_some());
    if enforce { Mode::Enforce } else { Mode::Testing }
}

#[cfg(test)]
mod tests;
