//! The sending side: which policy a domain has ([`answer`]), what a delivery under it met
//! ([`walk`]), what mail servers say of theirs ([`collect`]), and the reports about that ([`report`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod answer;
pub mod collect;
pub mod report;
pub mod serve;
pub mod walk;
