//! Which policy a domain has: what is published, what is remembered, and what follows from both
//! (RFC 8461 §3, §5.1; RFC 7672 §2), and the answers for mail servers.
//!
//! [`sts`] and [`decide`] decide without I/O; [`Discovery`] and [`route`] look; [`Answers`] keeps
//! the outcome ready and answers.

pub mod cache;
pub mod decide;
mod discovery;
pub mod entry;
mod in_flight;
mod lookup;
pub mod metrics;
pub mod overrides;
mod packed;
mod policy_reader;
mod policy_writer;
mod refresh;
pub mod route;
mod service;
pub mod sts;

pub use discovery::{Discovery, DiscoveryOutcome};
pub use lookup::LookupTrace;
pub use service::{Answers, Settings};
