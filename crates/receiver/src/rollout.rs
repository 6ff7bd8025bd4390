//! The way of a domain from nothing to enforced TLS (RFC 8461 §8; design: evidence, not a calendar).
//!
//! | module | what |
//! | --- | --- |
//! | [`gate`] | pure: from reports to "ready" or "not yet", with the reasons |
//! | [`decisions`] | what the operator decided: held, excused |
//! | [`state`] | pure: what senders may still hold us to |
//! | [`plan`] | pure: from wanted, seen and promised to the next step, and to the whole way |
//! | [`guard`] | what would make senders refuse mail, with its remedy |
//! | [`reported`] | pure: what reports tell that needs somebody |
//! | [`Applier`] | carries steps out, each proved by looking from outside |

pub mod decisions;
pub mod desired;
pub mod gate;
pub mod guard;
pub mod observed;
pub mod plan;
pub mod reported;
pub mod state;

mod apply;
mod look;

pub use apply::{Actor, Applied, Applier, ApplyError, Hosting, NewHosts, StepOutcome, Verification};
pub use look::look;
pub use state::RolloutState;
