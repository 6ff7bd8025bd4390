//! The preflight: looks at a mail domain from outside, as senders do, and says what it found, what
//! follows, and what to do.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod catalogue;
mod certificate;
mod companions;
mod dane;
mod delivery;
mod domain;
mod examine;
mod finding;
mod known;
mod matching;
mod mx;
mod observe;
mod observed;
mod options;
mod policy;
mod policy_host;
mod progress;
mod record;
pub mod render;
mod rollout;
pub mod senders;
mod servers;
mod sessions;
mod tls;
mod tlsrpt;

pub use catalogue::{Check, Part, Severity};
pub use finding::{Examination, Finding};
pub use known::{Known, Previous};
pub use observe::Checker;
pub use options::{Depth, Families, Options};
pub use progress::Progress;
pub use sessions::Sessions;
