//! The check of a mail domain from outside, as senders see it: MX records, MTA-STS (RFC 8461), TLSRPT
//! (RFC 8460), DANE (RFC 7672) and the TLS of every host. Each finding states the problem, its consequence
//! and the remedy. `sternpost check` and the dashboard use it.
//!
//! Data flows as follows: [`Checker`] queries DNS, the policy host and the MX hosts (`observe`) and collects
//! the results (`observed`). The topic modules, such as `record`, `policy_host` and `mx`, derive findings
//! from them (`finding`), by the checks of the [`catalogue`], and say why (`causes`). [`render`] formats the resulting
//! [`Examination`]. Begin reading in `examine`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod audit;
pub mod catalogue;
pub mod causes;
mod certificate;
mod companions;
mod dane;
mod delivery;
mod domain;
mod examine;
mod finding;
mod identifiers;
mod known;
mod matching;
mod mx;
mod observe;
mod observed;
mod options;
#[cfg(test)]
mod parser_notes;
mod policy;
mod policy_host;
pub mod profile;
mod progress;
mod protection;
mod record;
pub mod render;
mod rollout;
pub mod senders;
mod servers;
mod sessions;
mod tls;
mod tlsrpt;

pub use catalogue::{Check, Part, Severity};
pub use causes::{Cause, FoundCause};
pub use finding::{CertificateState, CheckedMx, Examination, Finding};
pub use known::{Known, Previous, SeenCertificate, SeenHost};
pub use observe::Checker;
pub use options::{Depth, Families, Options};
pub use progress::Progress;
pub use protection::Protection;
pub use sessions::Sessions;
