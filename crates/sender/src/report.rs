//! The reports about what deliveries met (RFC 8460).
//!
//! [`build`] makes a domain's report from its tally, [`compose`] the signed mail that carries one, [`Courier`] takes
//! it to where the domain's `_smtp._tls` record says, by a [`Carrier`] or by HTTPS. [`Office`] does that day by day, and
//! [`Prober`] finds out what sessions under policies in `testing` hide.

mod build;
mod carrier;
mod compose;
mod deliver;
mod direct;
mod office;
mod prober;
mod truth;
mod undelivered;

pub use build::{Addresses, Reporter, build};
pub use carrier::Carrier;
pub use compose::{ComposeError, Composed, DkimKey, DkimKeyError, Letter, compose};
pub use deliver::{Busy, Courier};
pub use direct::DirectDelivery;
pub use office::{Counts, Office, OfficeError, Rules};
pub use prober::{Hosts, Prober};
pub use undelivered::Undelivered;
