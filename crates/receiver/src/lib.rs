//! The receiving side of MTA-STS and TLS-RPT: it publishes the policy of a mail domain, moves the domain from `testing`
//! to `enforce`, and imports the reports that senders send about it (RFC 8461, RFC 8460).
//!
//! The parts, in the order in which data runs through them:
//!
//! 1. [`domain`]: the settings of a domain, from the configuration or the store.
//! 2. [`rollout`]: compares the desired state with the observed state, chooses the next step, carries it out and
//!    verifies it.
//! 3. [`publish`]: the DNS records that a step changes.
//! 4. [`host`]: serves policy files over HTTPS and orders their certificates by ACME; [`export`] generates files for
//!    other web servers.
//! 5. [`inbox`]: imports reports from mail, HTTPS, IMAP and files, and verifies their signatures.
//! 6. [`rollout::gate`] and [`rollout::guard`]: decide from reports and probes whether to enforce, and raise alerts.
//!
//! Begin with [`rollout::plan`]: the rest either prepares its input or carries out its output.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod domain;
pub mod export;
pub mod host;
pub mod inbox;
pub mod publish;
pub mod rollout;
