//! What a plan is carried out for. The operator may change the settings of a domain or hold it while its plan is carried out,
//! and another process may take the plan over. [`Applier::run_towards`](super::Applier::run_towards) therefore asks for its
//! goal again before each step.

use super::ApplyError;
use super::desired::DesiredState;
use super::plan::Permit;
use net::BoxFuture;

/// The desired state, and whether enforcement may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The desired state.
    pub desired: DesiredState,
    /// Whether enforcement may begin.
    pub permit: Permit,
}

/// Knows the goal of a domain's plan.
pub trait GoalSource: Send + Sync {
    /// The goal of now. [`ApplyError::Stopped`] if the plan must not go on.
    fn current(&self) -> BoxFuture<'_, Result<Goal, ApplyError>>;
}

/// A goal that does not change.
pub(super) struct Fixed {
    pub(super) desired: DesiredState,
    pub(super) permit: Permit,
}

impl GoalSource for Fixed {
    fn current(&self) -> BoxFuture<'_, Result<Goal, ApplyError>> {
        let goal = Goal { desired: self.desired.clone(), permit: self.permit };
        Box::pin(std::future::ready(Ok(goal)))
    }
}
