//! What commands, pages and roles do alike, over the configuration, the store and the network.
//!
//! - [`world`]: clients of DNS, policy hosts and mail servers, made from the configuration.
//! - [`RolloutContext`]: the domains that are known, what is wanted of them, the evidence, and the means to change
//!   something; `publishers` are those means (the own policy host, DNS UPDATE, the interface of a DNS provider).
//! - [`promotion`]: an operator's decisions about a roll-out.
//! - [`inbox`]: the report inbox behind each way in; [`opened_report`]: one report of the store, read again.
//!
//! Begin reading at [`RolloutContext`]. Nothing here prints or answers HTTP; that is the work of the callers.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod inbox;
pub mod opened_report;
pub mod promotion;
mod publishers;
mod rollout_context;
pub mod world;

pub use rollout_context::{APPLY_LEASE, Removal, RolloutContext, apply_failure, holder, store_failure};
