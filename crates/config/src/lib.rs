//! The configuration file, `sternpost.toml`, and the error type shown to operators.
//!
//! The text of the file passes through these parts:
//!
//! 1. [`keys`](KEYS): the table of all configuration keys. The reader, `sternpost config show` and
//!    `docs/configuration.md` use this one table.
//! 2. `read`: parses the TOML text, checks every key and value against the table, and records the line of each value.
//!    Its errors are `fault`s with line and column.
//!    `members` explains errors in tables, and leaves out keys that only a newer release knows.
//!    `environment` then applies the environment variables, `credentials` replaces `$CREDENTIALS_DIRECTORY` in paths, and
//!    `defaults` adds the members of `[defaults]` to the domains.
//! 3. `specs`: types for tables and structured values, such as a CA, a DNS provider or a mail delivery method.
//! 4. `hosting`, `inbox`, `mailbox`, `guard`, `reporting`, `overrides`, `owner`, `targets`: each converts the keys of its sections to types.
//! 5. `load`: combines the sections into a [`Config`]. `consistency` then checks that the sections fit together, `listening`
//!    that no two roles listen at one address, and `secrets` lists the files that other users must not read.
//!
//! [`machine`] knows the host name and to whom files belong. [`failure`] is the error type of all commands, pages and roles: what failed, why, and what to do. Begin reading at
//! [`Config`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod config;
mod consistency;
mod credentials;
mod defaults;
mod environment;
pub mod failure;
mod fault;
mod guard;
mod hosting;
mod inbox;
mod keys;
mod listening;
mod load;
pub mod machine;
#[cfg(feature = "imap")]
mod mailbox;
mod maps;
mod members;
mod overrides;
mod owner;
mod read;
mod reporting;
mod secrets;
mod specs;
mod targets;
#[cfg(test)]
mod tests;
mod week_time;

pub use config::{AnswersConfig, Config};
pub use consistency::fits;
pub use credentials::UNIT_FOLDER;
pub use environment::Environment;
pub use fault::nearest;
pub use guard::{GuardConfig, WebhookFormat};
pub use hosting::{AdminConfig, HostConfig};
pub use inbox::{DashboardConfig, InboxConfig, ReportWebhook};
pub use keys::{KEYS, Key, Kind, manual, reference};
pub use listening::Listening;
pub use load::Chosen;
pub use owner::user_name;
pub use reporting::{CollectorConfig, ReporterConfig};
pub use secrets::Secret;
pub use specs::{CertificateFiles, Deliver, KeyAlgorithm, KeySpec, LoginSpec, ProviderSpec, UpdateServer};
pub use week_time::WeekTime;
