//! The reports about what deliveries met (RFC 8460).
//!
//! [`build`] makes a day's reports from its tally, [`compose`] the signed mail that carries one,
//! and [`Courier`] takes it to where the domain's `_smtp._tls` record says.

mod build;
mod compose;
mod deliver;

pub use build::{Reporter, build};
pub use compose::{ComposeError, Composed, DkimKey, DkimKeyError, compose};
pub use deliver::{Courier, Errand, SendError, TargetOutcome};
