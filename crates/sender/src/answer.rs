//! Policy answers for mail servers: which TLS policy applies to a next hop (RFC 8461 §3, §5.1; RFC 7672 §2).
//!
//! [`PolicyService`] receives a lookup key from a protocol in [`crate::serve`] and returns an answer from its cache or
//! from a lookup. For a lookup, [`Discovery`] finds the MTA-STS policy and [`route`] resolves the MX hosts and
//! their TLSA records. [`sts`] and [`decide`] hold the rules and do no I/O. Begin reading at [`decide`].

pub mod cache;
pub mod decide;
mod discovery;
pub mod entry;
mod in_flight;
mod lookup;
pub mod maps;
pub mod metrics;
pub mod overrides;
mod packed;
mod policy_reader;
mod policy_writer;
mod refresh;
pub mod route;
mod service;
mod settings;
pub mod sts;
pub mod transfer;

pub use discovery::{Discovery, DiscoveryOutcome};
pub use lookup::LookupTrace;
pub use service::PolicyService;
pub use settings::Settings;
