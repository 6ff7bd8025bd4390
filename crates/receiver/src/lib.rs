//! The receiving side: what is wanted of a domain ([`domain`]), policies over HTTPS ([`host`]), reports that come in ([`inbox`]), DNS records
//! ([`publish`]), and the way from testing to enforce on evidence ([`rollout`]).

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod domain;
pub mod export;
pub mod host;
pub mod inbox;
pub mod publish;
pub mod rollout;
