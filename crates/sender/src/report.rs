//! Building and sending TLS reports (RFC 8460).
//!
//! The input is the tallies that [`crate::collect`] stored. Once a UTC day is over, [`ReportScheduler`] calls
//! [`fn@build`] for each domain and queues the reports. [`ReportDelivery`] sends each report to the targets in the
//! domain's `_smtp._tls` record, as the operator's [`TargetRule`]s change them: by HTTPS, or as a signed mail from [`fn@compose`] over a [`Transport`].
//! [`TestingProber`] detects the failures that sessions under policies in `testing` hide. Begin at [`ReportScheduler`].

mod build;
mod compose;
mod delivery;
mod direct;
mod round;
mod scheduler;
mod targets;
mod testing_probe;
mod testing_prober;
mod transport;
mod undelivered;

pub use build::{Addresses, Reporter, build};
pub use compose::{ComposeError, Composed, DkimKey, DkimKeyError, PreparedReport, compose};
pub use delivery::{DeliveryLimits, ReportDelivery, is_denied};
pub use direct::DirectDelivery;
pub use scheduler::{Counts, ReportScheduler, Rules, SchedulerError, installation_id};
pub use targets::{PlannedTarget, TargetMatch, TargetPlan, TargetRule};
pub use testing_prober::{Hosts, ProbeCounts, TestingProber};
pub use transport::Transport;
pub use undelivered::Undelivered;
