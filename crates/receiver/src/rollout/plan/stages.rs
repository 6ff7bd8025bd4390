//! The whole way to the wanted state, found by taking step after step in a world where each works out
//! at once, and where the gate opens when it is asked.

use super::super::desired::{DesiredState, PolicyHostAt};
use super::super::observed::ObservedState;
use super::super::state::RolloutState;
use super::{Permit, PlannedStep, Step, WaitReason, next};
use formats::DomainName;
use jiff::Timestamp;

/// A stage of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Something to do, at that time at the earliest.
    Step(Step, Timestamp),
    /// Time has to pass.
    Wait(WaitReason, Timestamp),
    /// Evidence has to come, or the operator's word.
    Evidence,
}

/// Stages of one way; more would be an endless plan, which the model check rules out.
const MAX_STAGES: usize = 64;

/// The stages from here to the wanted state; empty when it is reached. `rollout` has taken in what is
/// seen.
pub fn plan(
    wanted: &DesiredState,
    rollout: &RolloutState,
    seen: &ObservedState,
    permit: Permit,
    now: Timestamp,
) -> Vec<Stage> {
    let (mut rollout, mut seen, mut permit, mut now) = (rollout.clone(), seen.clone(), permit, now);
    let mut stages = Vec::new();
    while stages.len() < MAX_STAGES {
        match next(wanted, &rollout, &seen, permit, now) {
            PlannedStep::Done => break,
            PlannedStep::Gate if permit == Permit::Enforce => break,
            PlannedStep::Gate => {
                stages.push(Stage::Evidence);
                permit = Permit::Enforce;
            }
            PlannedStep::Wait(until, waiting) => {
                stages.push(Stage::Wait(waiting, until));
                now = until;
            }
            PlannedStep::Do(step) => {
                carry_out(&step, &mut rollout, &mut seen);
                stages.push(Stage::Step(step, now));
            }
        }
        rollout.observe(wanted, &seen, now);
    }
    stages
}

/// What a step changes in a world where it works out.
fn carry_out(step: &Step, rollout: &mut RolloutState, seen: &mut ObservedState) {
    match step {
        Step::Delegate(aliases) => seen.aliases.extend(aliases.iter().cloned()),
        Step::PointPolicyHost(PolicyHostAt::Alias(name)) => {
            seen.policy_host = (vec![name.clone()], Vec::new())
        }
        Step::PointPolicyHost(PolicyHostAt::Addresses(all)) => seen.policy_host = (Vec::new(), all.clone()),
        Step::Serve(policy) => {
            rollout.intend(policy);
            seen.served = Some(policy.clone());
        }
        Step::AskForReports(record) => seen.rua = record.rua.clone(),
        Step::Announce(id) => {
            rollout.offer(id);
            seen.record = Some(id.clone());
        }
        Step::AddMx(hosts) => seen.mx.extend(hosts.iter().cloned()),
        Step::RemoveMx(hosts) => seen.mx.retain(|host: &DomainName| !hosts.contains(host)),
        Step::Withdraw => seen.record = None,
        Step::TakeDown => seen.served = None,
    }
}
