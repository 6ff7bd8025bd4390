//! Network access for senders and receivers of MTA-STS: DNS, HTTPS and SMTP, each as a small trait with its real
//! implementation. Tests and the demo substitute their own implementations. The size and duration of everything that
//! is read from the network are bounded by [`formats::limits`].
//!
//! The modules, in the order in which data runs through them when a sender validates a domain:
//!
//! | module | purpose |
//! | --- | --- |
//! | [`dns`] | resolve names, with DNSSEC state, TTL and kind of failure; change zones |
//! | [`address`] | recognize private and other special addresses, which must not be contacted |
//! | [`connect`] | connect to the first of several addresses that accepts |
//! | [`rate_limit`] | limit concurrent connections and request rates for each address |
//! | [`random`] | random words, which differ on every machine |
//! | [`memory_budget`] | limit the memory that all sessions use together |
//! | [`metrics`] | the table of metrics |
//! | [`https`] | fetch policy files (RFC 8461 §3.3), post reports, check certificate revocation |
//! | [`dane`] | look up the TLSA records of an MX host (RFC 7672 §2) |
//! | [`smtp`] | open SMTP sessions as a sending server; accept mail for the report inbox |
//! | [`tls`] | complete TLS handshakes first and verify the certificate afterwards |
//! | [`certificate`] | verify certificates against trusted roots or TLSA records |
//! | [`causes`] | the text of an error with its causes |
//! | [`percent`] | percent-encoding of values in queries and forms |
//! | [`key_files`] | load a server's certificate and key, and reload them when the files change |
//! | [`webhook`] | sign requests to webhooks |
//! | [`system_names`] | resolve names of the operator's own hosts, as the system does |
//! | [`clock`] | the current time, which tests and the demo can set |
//!
//! Begin reading with the traits [`dns::Dns`], [`https::PolicyHosts`] and [`smtp::MailHosts`].

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod address;
pub mod causes;
pub mod certificate;
pub mod clock;
pub mod connect;
pub mod dane;
pub mod dns;
pub mod https;
pub mod key_files;
pub mod memory_budget;
pub mod metrics;
pub mod percent;
pub mod random;
pub mod rate_limit;
pub mod redaction;
pub mod smtp;
pub mod system_names;
pub mod tls;
pub mod webhook;

use std::future::Future;
use std::pin::Pin;

/// The target of the spans that traces consist of (docs/monitoring.md). They are switched off unless a collector is named.
pub const TRACES: &str = "traces";

/// A boxed future, as the async methods of this crate's traits return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
