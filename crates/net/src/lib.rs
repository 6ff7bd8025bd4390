//! DNS, HTTPS and SMTP as the two sides of MTA-STS need them: three small traits with their real
//! implementations, and the injected clock. Everything that is fetched is bounded by
//! [`formats::limits`].
//!
//! | module | what for |
//! | --- | --- |
//! | [`dns`] | answers with their DNSSEC state, TTL and kind of failure |
//! | [`dane`] | whether DANE applies to an MX host |
//! | [`https`] | the policy file of RFC 8461 §3.3 |
//! | [`smtp`] | a session as a sending server opens it |
//! | [`tls`] | handshakes whose certificate is judged afterwards |
//! | [`certificate`] | what a certificate says, and why it is not good |
//! | [`address`] | which addresses are never to be reached by a fetch |
//! | [`key_files`] | a certificate out of files that change |
//! | [`places`] | how many connections one address gets at once |
//! | [`clock`] | the time, which tests and the demo set |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod address;
pub mod certificate;
pub mod clock;
mod connect;
pub mod dane;
pub mod dns;
pub mod https;
pub mod key_files;
pub mod rate_limit;
pub mod smtp;
pub mod tls;

use std::future::Future;
use std::pin::Pin;

/// A future behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
