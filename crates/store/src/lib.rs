//! What Sternpost remembers. One schema (`migrations/`), SQLite now; all SQL is in this crate and
//! keeps to what PostgreSQL shares. A write has returned only when it is durable.
//!
//! | module | what | who uses it |
//! | --- | --- | --- |
//! | [`policies`] | policies to the end of their `max_age` | sending side |
//! | [`tallies`] | sessions of a day, for the reports | sending side |
//! | [`testing_probes`] | handshakes of our own for policies in testing | sending side |
//! | [`outgoing`] | reports on their way, and what became of them | sending side |
//! | [`reports`] | reports that came in, and what could not be read | receiving side |
//! | [`alerts`] | alerts that stand | receiving side |
//! | [`decisions`] | what the operator decided about roll-outs | receiving side |
//! | [`guard_probes`] | what our own looks at MX hosts saw, by day | receiving side |
//! | [`people`] | who may see the dashboard, and sign-ins | dashboard |
//! | [`domains`] | domains that were added by command, and leases | receiving side |
//! | [`hosting`] | what the policy host serves, and its certificates | receiving side |
//! | [`shared`] | pages that people pass on by a link | dashboard |
//! | [`rollouts`] | where a domain stands, and the journal | receiving side |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod alerts;
pub mod check_history;
mod database;
pub mod decisions;
pub mod domains;
pub mod guard_probes;
pub mod hosting;
mod migrations;
pub mod notices;
pub mod outgoing;
pub mod people;
pub mod policies;
pub mod reports;
pub mod rollouts;
pub mod shared;
pub mod tallies;
pub mod testing_probes;
mod writing;

pub use database::{Store, StoreError};

#[cfg(test)]
use database::scratch;
use database::{TENANT, count, damaged, stored, time};
