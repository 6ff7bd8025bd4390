//! The configuration file, `sternpost.toml`, and errors as people read them.
//!
//! A text runs through these parts:
//!
//! 1. [`keys`](KEYS): the one table of what can stand in the file. The reader, `sternpost config show` and
//!    `docs/configuration.md` all come out of that table.
//! 2. `read`: parses the file (TOML), holds every key against the table, and remembers the line of each value. Its
//!    errors are `fault`s with line and column.
//! 3. `specs`: what a table or a word of the file describes (an authority, a DNS provider, a way for mail).
//! 4. `hosting`, `inbox`, `guard`, `reporting`, `overrides`, `owner`: one section each, from keys to a type.
//! 5. `load`: puts them together into a [`Config`], which `consistency` checks as a whole.
//!
//! [`failure`] is what every command, page and role answers with when something goes wrong: what happened, why, and what
//! to do. Begin reading at [`Config`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod config;
mod consistency;
pub mod failure;
mod fault;
mod guard;
mod hosting;
mod inbox;
mod keys;
mod load;
mod overrides;
mod owner;
mod read;
mod reporting;
mod specs;
#[cfg(test)]
mod tests;

pub use config::{AnswersConfig, Config};
pub use consistency::fits;
pub use fault::nearest;
pub use guard::GuardConfig;
pub use hosting::{AdminConfig, HostConfig};
pub use inbox::{DashboardConfig, InboxConfig};
pub use keys::{KEYS, Key, Kind, reference};
pub use reporting::{CollectorConfig, ReporterConfig};
pub use specs::{CertificateFiles, Deliver, KeyAlgorithm, KeySpec, LoginSpec, ProviderSpec, UpdateServer};
