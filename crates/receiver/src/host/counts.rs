//! Counts what the policy host does, for the metrics of the running server.

use super::certificate_state::Outcome;
use hyper::StatusCode;
use net::metrics::{self, Counter, Counters, Registry};
use std::sync::OnceLock;

/// Counters of a policy host.
#[derive(Debug)]
pub struct HostCounts {
    requests: Counters,
    /// Policies that were served, the most frequent outcome.
    served: Counter,
    handshakes: Counters,
}

impl Default for HostCounts {
    fn default() -> Self {
        let requests = Counters::new(&metrics::POLICY_HOST_REQUESTS);
        let served = requests.of(&[StatusCode::OK.as_str()]);
        Self { requests, served, handshakes: Counters::new(&metrics::POLICY_HOST_HANDSHAKES) }
    }
}

impl HostCounts {
    /// Registers the counters as metrics.
    pub fn register(&self, all: &mut Registry) {
        self.requests.register(all);
        self.handshakes.register(all);
    }

    pub(super) fn request(&self, status: StatusCode) {
        match status {
            StatusCode::OK => self.served.inc(),
            other => self.requests.of(&[other.as_str()]).inc(),
        };
    }

    pub(super) fn handshake(&self, outcome: &str) {
        self.handshakes.inc(&[outcome]);
    }
}

/// The counters of certificate orders of this process.
pub fn orders() -> &'static Counters {
    static SHARED: OnceLock<Counters> = OnceLock::new();
    SHARED.get_or_init(|| Counters::new(&metrics::CERTIFICATE_ORDERS))
}

/// Counts an order. A host that is not served any more is not an order.
pub(super) fn count_order(outcome: &Outcome) {
    match outcome {
        Outcome::NotServed => {}
        Outcome::OverBudget => orders().inc(&["postponed"]),
        Outcome::Failed { .. } => orders().inc(&["failed"]),
        Outcome::Issued { .. } => orders().inc(&["issued"]),
    }
}
