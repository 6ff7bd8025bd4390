//! The reports about what deliveries met (RFC 8460).
//!
//! [`build`] makes a domain's report from its tally, [`compose`] the signed mail that carries one, [`ReportDelivery`] takes
//! it to where the domain's `_smtp._tls` record says, by a [`Transport`] or by HTTPS. [`ReportScheduler`] does that day by day, and
//! [`TestingProber`] finds out what sessions under policies in `testing` hide.

mod build;
mod compose;
mod delivery;
mod direct;
mod scheduler;
mod testing_probe;
mod testing_prober;
mod transport;
mod undelivered;

pub use build::{Addresses, Reporter, build};
pub use compose::{ComposeError, Composed, DkimKey, DkimKeyError, PreparedReport, compose};
pub use delivery::{DeliveryLimits, ReportDelivery};
pub use direct::DirectDelivery;
pub use scheduler::{Counts, ReportScheduler, Rules, SchedulerError};
pub use testing_prober::{Hosts, TestingProber};
pub use transport::Transport;
pub use undelivered::Undelivered;
