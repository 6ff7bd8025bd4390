//! Which policy a domain has: what is published, what is remembered, and what follows from both
//! (RFC 8461 §3, §5.1; RFC 7672 §2).
//!
//! [`sts`] decides without I/O; [`Discovery`] looks and remembers. Whether DANE applies to a host is
//! in [`net::dane`].

mod discovery;
pub mod postfix;
pub mod sts;

pub use discovery::{Discovery, DiscoveryError};
