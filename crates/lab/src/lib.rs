//! The lab: a complete mail environment on loopback addresses, with its own DNS root, CA, policy hosts and mail
//! servers. It has one domain for every correct or broken set-up of MTA-STS and DANE, with the behavior that
//! RFC 8461, 8460 and 7672 require of a sender. An attacker can be switched on for each domain.
//!
//! [`case::Case`] describes a domain; [`cases::all`] and [`oddities::all`] (with [`causes::all`]) are the tables. [`Lab`] runs them, with
//! the servers of [`dns`], [`pki`], [`policy_host`] and [`mail_host`]. Tests connect to a lab through
//! [`Lab::clients`]. [`man_in_the_middle`] attacks what goes by on the way there, and [`traffic`] records it. Begin reading
//! in [`case`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod behavior;
pub mod case;
pub mod cases;
pub mod causes;
pub mod conformance;
pub mod dns;
mod internet;
pub mod mail_host;
pub mod man_in_the_middle;
mod odd;
mod odd_mail_host;
pub mod oddities;
pub mod pki;
pub mod policy_host;
pub mod random;
pub mod reference_sender;
mod revoked;
mod smtp_watch;
pub mod survey;
pub mod traffic;
pub mod uniform_world;

pub use case::Case;
pub use internet::{Clients, Lab, LabError, Ports, site};
