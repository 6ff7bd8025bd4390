//! The store: everything that Sternpost keeps, in one SQLite database with one schema (`migrations/`). All SQL is in this crate and keeps
//! to what PostgreSQL also supports. When a write returns without an error, it is durable.
//!
//! [`Store`] opens the database; each module adds methods to it for one group of tables. In the order in which data runs through them:
//!
//! | module | content | used by |
//! | --- | --- | --- |
//! | [`policies`] | policies of other domains until their `max_age` ends | sending side |
//! | [`tallies`] | sessions of a UTC day, counted for reports | sending side |
//! | [`testing_probes`] | own handshakes with MX hosts of policies in `testing` | sending side |
//! | [`outgoing`] | reports to deliver, and the result of their delivery | sending side |
//! | [`domains`] | domains that were added by command, and leases | receiving side |
//! | [`rollouts`] | the roll-out state of each domain, and the journal | receiving side |
//! | [`decisions`] | decisions of the operator about roll-outs | receiving side |
//! | [`hosting`] | policy files that are served, certificates, ACME accounts | receiving side |
//! | [`reports`] | imported reports, and the quarantine for unreadable ones | receiving side |
//! | [`guard_probes`] | own handshakes of the guard with MX hosts, by day | receiving side |
//! | [`alerts`] | active alerts | receiving side |
//! | [`notices`] | notifications about alerts that are not delivered yet | receiving side |
//! | [`check_history`] | the last published policy that a check found | `check` |
//! | [`people`] | users of the dashboard, invitations and sign-ins | dashboard |
//! | [`shared`] | pages that are shared by a link | dashboard |
//!
//! Begin with [`Store::open`] and [`rollouts`], the smallest complete example.

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
