//! The store: all persistent state of Sternpost, in one database with one schema (`migrations/`): an SQLite file, or
//! with the feature `postgres` a PostgreSQL database. All SQL is in this crate. When a write returns without an error,
//! it is durable.
//!
//! [`Store`] opens the database for one [`Tenant`]; each module adds methods to it for one group of tables. In the order in which data
//! runs through them:
//!
//! | module | content | used by |
//! | --- | --- | --- |
//! | [`policies`] | policies of other domains until their `max_age` ends | sending side |
//! | [`tallies`] | session counts per UTC day, from which reports are built | sending side |
//! | [`handover`] | batches of sessions between machines, and how far log files have been read | sending side |
//! | [`testing_probes`] | probes of the MX hosts of policies in mode `testing` | sending side |
//! | [`outgoing`] | reports to deliver, and their delivery results | sending side |
//! | [`domains`] | domains added by command | receiving side |
//! | [`ownership`] | which tenant has proved which domain | receiving side |
//! | [`leases`] | which process does work that several could do | all |
//! | [`nodes`] | the running servers | all |
//! | [`tenants`], `erasure` | the tenants, and the end of one | all |
//! | [`rollouts`] | the rollout state of each domain, and the journal | receiving side |
//! | [`decisions`] | the operator's decisions about rollouts | receiving side |
//! | [`hosting`] | served policy files, certificates, ACME accounts | receiving side |
//! | [`certificate_orders`] | renewal information about certificates, and records of challenges | receiving side |
//! | [`reports`] | imported reports, and a quarantine for unreadable ones | receiving side |
//! | [`mx_history`] | the MX hosts of domains over time | receiving side |
//! | [`mx_certificates`] | the certificates of MX hosts, as each presented one last | receiving side |
//! | [`guard_schedule`] | when the guard checks each domain, and verdicts on their way to the alerts | receiving side |
//! | [`guard_probes`] | results of the guard's MX probes, by day | receiving side |
//! | [`dmarc`] | counts of received DMARC reports | receiving side |
//! | [`report_hook`] | how far a webhook has announced received reports | receiving side |
//! | [`schedule`] | when tasks at fixed times were last done | receiving side |
//! | [`alerts`] | active alerts | receiving side |
//! | [`notices`] | alert notifications that are not delivered yet | receiving side |
//! | [`check_history`] | the policy that the last check of a domain found | `check` |
//! | [`people`] | dashboard users and invitations | dashboard |
//! | [`sessions`] | sessions of dashboard users | dashboard |
//! | [`second_factors`] | secrets for one-time passwords, and recovery codes | dashboard |
//! | [`public_results`] | results of public checks, with their pages | dashboard |
//!
//! Several processes share checks, reports to deliver and notices by claims (`claims`).
//!
//! Begin with [`Store::open`] and [`rollouts`], the smallest complete example.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod alerts;
pub mod certificate_orders;
pub mod check_history;
mod claims;
mod database;
pub mod decisions;
pub mod dmarc;
pub mod domains;
mod erasure;
pub mod guard_probes;
pub mod guard_schedule;
pub mod handover;
pub mod hosting;
pub mod leases;
mod migrations;
pub mod mx_certificates;
pub mod mx_history;
pub mod nodes;
pub mod notices;
pub mod outgoing;
pub mod ownership;
pub mod people;
pub mod policies;
mod policy_digest;
pub mod public_results;
mod query;
pub mod record_changes;
pub mod report_hook;
pub mod reports;
pub mod rollouts;
pub mod schedule;
#[cfg(test)]
mod scratch;
pub mod second_factors;
pub mod sessions;
pub mod tallies;
mod tenant;
pub mod tenants;
pub mod testing_probes;
mod writing;

pub use database::{
    Access, BackupInfo, Connecting, CopiedTable, CopyError, CopyOptions, ExportError, Location,
    LocationError, Network, PostgresLocation, RestoredPolicies, RowWriter, SchemaState, Store, StoreError,
    Stream,
};
pub use policy_digest::PolicyDigest;
pub use tenant::Tenant;

use database::{count, damaged, stored, time};
#[cfg(test)]
use scratch::scratch;
#[cfg(feature = "postgres")]
use tenant::Reach;
