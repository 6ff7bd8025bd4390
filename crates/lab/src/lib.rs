//! The internet in a box: a private root, policy hosts and mail servers on loopback, with a domain
//! for every good and broken way to do MTA-STS and DANE, each with the verdict that RFC 8461, 8460
//! and 7672 call for, and an attacker who can be switched on between a sender and any of them.
//!
//! [`cases::all`] is the table, [`Lab`] runs it. Nothing here is the product's own code on trial:
//! that comes in through [`Lab::clients`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod behavior;
pub mod case;
pub mod cases;
pub mod dns;
mod internet;
pub mod mail_host;
mod odd_mail_host;
pub mod oddities;
pub mod pki;
pub mod policy_host;
mod revoked;
pub mod uniform_world;

pub use case::Case;
pub use internet::{Clients, Lab, LabError, Ports, site};
