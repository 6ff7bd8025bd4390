//! The way of a domain from nothing to enforced TLS (RFC 8461 §8; design: evidence, not a calendar).
//!
//! | module | what |
//! | --- | --- |
//! | [`gate`] | pure: from reports to "ready" or "not yet", with the reasons |
//! | [`plan`] | pure: from wanted and seen to ordered steps |
//! | [`Applier`] | carries the steps out, each proved by looking from outside |

pub mod gate;
pub mod plan;

mod apply;
mod look;

pub use apply::{Applied, Applier, ApplyError, Hosting, Standing};
pub use look::look;
