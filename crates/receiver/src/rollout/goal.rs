//! What a plan is carried out for. The operator may change the settings of a domain or hold it while its plan is carried out,
//! and another process may take the plan over. [`Applier::run_ordered`](super::Applier::run_ordered) therefore asks for its
//! orders again before each step.

use super::ApplyError;
use super::desired::DesiredState;
use super::plan::Permit;
use net::BoxFuture;

/// The desired state, and whether enforcement may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The desired state.
    pub wanted: DesiredState,
    /// Whether enforcement may begin.
    pub permit: Permit,
}

/// Gives the orders for the plan of a domain.
pub trait Orders: Send + Sync {
    /// The orders of now. [`ApplyError::Stopped`] if the plan must not go on.
    fn current(&self) -> BoxFuture<'_, Result<Order, ApplyError>>;
}

/// Orders that do not change.
pub(super) struct Fixed {
    pub(super) wanted: DesiredState,
    pub(super) permit: Permit,
}

impl Orders for Fixed {
    fn current(&self) -> BoxFuture<'_, Result<Order, ApplyError>> {
        let order = Order { wanted: self.wanted.clone(), permit: self.permit };
        Box::pin(std::future::ready(Ok(order)))
    }
}
