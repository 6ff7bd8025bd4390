//! The sending side: policy answers for mail servers, and TLS reports about their sessions.
//!
//! In the order in which data runs through them:
//!
//! 1. [`serve`] accepts queries from mail servers: the socketmap protocol for Postfix, lines for Exim and scripts.
//! 2. [`answer`] decides the TLS policy of a next hop (RFC 8461, RFC 7672). The mail server applies it to its sessions.
//! 3. [`collect`] receives the results of the sessions and tallies them by day and domain.
//! 4. [`report`] builds the daily reports from the tallies and delivers them (RFC 8460).
//!
//! Begin reading at [`answer::decide`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod answer;
pub mod collect;
pub mod report;
pub mod serve;
