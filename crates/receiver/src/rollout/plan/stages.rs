//! Computes all stages up to the desired state. It simulates a world in which every step succeeds at once, and in
//! which the evidence is sufficient when the gate is reached.

use super::super::desired::{DesiredState, PolicyHostAt};
use super::super::observed::{NoMailHosts, ObservedState};
use super::super::outside::Outside;
use super::super::state::RolloutState;
use super::{Permit, PlannedStep, Step, WaitReason, next};
use formats::DomainName;
use jiff::Timestamp;
use std::net::{IpAddr, Ipv4Addr};

/// A stage of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// A step, and the earliest time for it.
    Step(Step, Timestamp),
    /// A waiting period, and when it ends.
    Wait(WaitReason, Timestamp),
    /// A wait for sufficient evidence or the operator's approval.
    Evidence,
    /// The end of the plan: a policy can't name these MX hosts.
    Blocked(Vec<DomainName>),
    /// The end of the plan: the policy file would have this many bytes, more than senders read.
    TooLarge(usize),
    /// The end of the plan: no mail can be delivered to the domain.
    NoMailHosts(NoMailHosts),
}

/// Maximum number of stages. A longer plan would never end, which the model check in docs/safety.md rules out.
const MAX_STAGES: usize = 64;

/// Returns the stages up to the desired state; empty when it is reached. `rollout` must already include the
/// observation.
pub fn plan(
    desired: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    permit: Permit,
    now: Timestamp,
) -> Vec<Stage> {
    let (mut rollout, mut seen, mut permit, mut now) = (rollout.clone(), seen.clone(), permit, now);
    // In the simulated world, everything is seen at every place.
    seen.outside = Outside::default();
    let mut stages = Vec::new();
    while stages.len() < MAX_STAGES {
        match next(desired, &rollout, &seen, permit, now) {
            PlannedStep::Done => break,
            PlannedStep::Gate if permit == Permit::Enforce => break,
            PlannedStep::Blocked(hosts) => {
                stages.push(Stage::Blocked(hosts));
                break;
            }
            PlannedStep::TooLarge(size) => {
                stages.push(Stage::TooLarge(size));
                break;
            }
            PlannedStep::NoMailHosts(why) => {
                stages.push(Stage::NoMailHosts(why));
                break;
            }
            PlannedStep::Gate => {
                stages.push(Stage::Evidence);
                permit = Permit::Enforce;
            }
            PlannedStep::Wait(until, waiting) => {
                stages.push(Stage::Wait(waiting, until));
                now = until;
            }
            PlannedStep::Do(step) => {
                simulate(&step, &mut rollout, &mut seen);
                stages.push(Stage::Step(step, now));
            }
        }
        rollout.observe(desired, &seen, now);
    }
    stages
}

/// Applies a step to the simulated world.
fn simulate(step: &Step, rollout: &mut RolloutState, seen: &mut ObservedState) {
    match step {
        Step::Delegate(aliases) => seen.aliases.extend(aliases.iter().cloned()),
        Step::PointPolicyHost(PolicyHostAt::Alias(name)) => {
            seen.policy_host = (vec![name.clone()], Vec::new())
        }
        Step::PointPolicyHost(PolicyHostAt::Addresses(all)) => seen.policy_host = (Vec::new(), all.clone()),
        Step::PointPolicyHost(PolicyHostAt::Operator) => {
            seen.policy_host = (Vec::new(), vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)])
        }
        Step::Serve(policy) => {
            rollout.intend(policy);
            seen.served = Some(policy.clone());
            seen.copies.clear();
        }
        Step::AskForReports(record) => seen.rua = record.rua.clone(),
        Step::Announce(id) => {
            rollout.offer(id);
            seen.record = Some(id.clone());
        }
        Step::AddMx(hosts) => seen.mx.extend(hosts.iter().cloned()),
        Step::RemoveMx(hosts) => seen.mx.retain(|host: &DomainName| !hosts.contains(host)),
        Step::Withdraw => seen.record = None,
        Step::TakeDown => {
            seen.served = None;
            seen.copies.clear();
        }
    }
}
