//! Every wire format that Sternpost speaks, as pure functions: bytes in, typed values or a
//! located error out, and back. No I/O, no clock, no async; nothing here panics on any input, and
//! every input is bounded by [`limits`].
//!
//! | module | format | source |
//! | --- | --- | --- |
//! | [`domain`] | mail domain and host names as lower-case A-labels | RFC 5890, UTS 46 |
//! | [`mx_pattern`] | the `mx` patterns of a policy and how they match | RFC 8461 §4.1 |
//! | [`sts_record`] | the `_mta-sts` TXT record | RFC 8461 §3.1 |
//! | [`policy`] | the policy file | RFC 8461 §3.2 |
//! | [`tlsrpt_record`] | the `_smtp._tls` TXT record | RFC 8460 §3 |
//! | [`result_type`] | what can go wrong, by its registered name | RFC 8460 §4.3 |
//! | [`report`] | the TLS report: lenient reading, strict writing, its mail | RFC 8460 §4, §5 |
//! | [`mbox`] | mail folders in one file | RFC 4155 |
//! | [`tlsa`] | TLSA records and the rules for SMTP | RFC 6698, 7671, 7672 |
//! | [`socketmap`] | Postfix's look-up protocol | socketmap_table(5) |
//! | [`tls_policy`] | Postfix's TLS policy look-ups and answers | postconf(5), TLSRPT_README |
//! | [`hello`] | the first messages of a handshake, as clients of old write them | RFC 5246 |
//! | [`datagram`] | what libtlsrpt says of a session | libtlsrpt 0.5 |
//! | [`posted`] | sessions as other mail servers tell them | docs/tlsrpt-sending.md |
//! | [`xml`] | documents of a DNS provider's interface | XML 1.0 |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod datagram;
pub mod domain;
mod fields;
pub mod hello;
mod json;
pub mod limits;
pub mod mbox;
pub mod mx_pattern;
pub mod policy;
pub mod posted;
pub mod proxy_header;
pub mod report;
pub mod result_type;
pub mod socketmap;
pub mod sts_record;
pub mod tls_policy;
pub mod tlsa;
pub mod tlsrpt_record;
pub mod xml;

pub use domain::DomainName;
pub use mx_pattern::MxPattern;
pub use policy::{Mode, Policy};
pub use result_type::ResultType;
pub use sts_record::{PolicyId, StsRecord};
