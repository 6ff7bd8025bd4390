//! Operations that the commands, the dashboard and the roles of `serve` share, on top of the configuration, the store
//! and the network.
//!
//! - [`world`]: network clients (DNS, policy hosts, mail servers), built from the configuration.
//! - [`RolloutContext`]: the known domains with their desired state, decisions and evidence; it builds the publishers
//!   (own policy host, DNS UPDATE, provider API) that carry out steps.
//! - [`open_store`]: the configured store, in an SQLite file or a PostgreSQL database.
//! - [`challenge_zones`]: changes the DNS records of certificate orders.
//! - [`seen_certificates`]: the certificates of MX hosts that the guard saw, for the pages.
//! - [`promotion`]: the operator's decisions about a rollout.
//! - [`summary`]: the weekly summary of all domains, for mail and the command line.
//! - [`nodes`]: the running servers that share a store.
//! - [`tenants`]: the tenants of the installation; [`ownership`]: which of them owns a domain.
//! - [`inbox`]: a report inbox for each way of arrival; [`opened_report`]: reads a stored report again;
//!   [`report_removal`]: deletes received reports.
//!
//! - [`goal`]: what a plan is carried out for, read from the store again before each step.
//!
//! Begin reading at [`RolloutContext`]. This crate neither prints nor serves HTTP; its callers do.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod challenge_zones;
mod database;
mod file_domains;
pub mod goal;
pub mod inbox;
mod leases;
pub mod mx_losses;
pub mod nodes;
pub mod opened_report;
pub mod ownership;
pub mod promotion;
mod publishers;
pub mod report_removal;
mod rollout_context;
pub mod seen_certificates;
pub mod summary;
pub mod tenants;
pub mod unconfigured;
pub mod world;

pub use database::{access, open_failure, open_installation, open_store};
pub use publishers::dns_changes;
pub use rollout_context::{Hold, Removal, RolloutContext, apply_failure, holder, resolvers, store_failure};
