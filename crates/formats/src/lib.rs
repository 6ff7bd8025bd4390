//! Parsers and writers for all formats that Sternpost exchanges with others. They are pure functions: bytes to typed
//! values, or to an error with its position, and back. No I/O, no clock, no async. They do not panic on any input, and
//! [`limits`] bounds every input.
//!
//! The modules are in the order of the data: what domains publish, what receivers report, and how mail servers ask and
//! report. Begin with [`sts_record`] and [`policy`], which show the style of all parsers.
//!
//! | module | format | source |
//! | --- | --- | --- |
//! | [`domain`] | domain and host names as lower-case A-labels | RFC 5890, UTS 46 |
//! | [`mx_pattern`] | the `mx` patterns of a policy, and matching | RFC 8461 §4.1 |
//! | [`sts_record`] | the `_mta-sts` TXT record | RFC 8461 §3.1 |
//! | [`policy`] | the policy file | RFC 8461 §3.2 |
//! | [`policy_export`] | files of cached policies | docs/answers.md |
//! | [`tlsrpt_record`] | the `_smtp._tls` TXT record | RFC 8460 §3 |
//! | [`result_type`] | result types and policy types of reports | RFC 8460 §4.3 |
//! | [`report`] | TLS reports: lenient parsing, strict writing, names of files and mails | RFC 8460 §4, §5 |
//! | [`dmarc`] | DMARC aggregate reports | RFC 9990, RFC 7489 |
//! | [`mbox`] | mailboxes in the mbox format | RFC 4155 |
//! | [`imap`] | responses of IMAP servers | RFC 9051 §7, RFC 3501 |
//! | [`caa`] | CAA records, with accounts and validation methods | RFC 8659, RFC 8657 |
//! | [`tlsa`] | TLSA records, and the rules for SMTP | RFC 6698, 7671, 7672 |
//! | [`socketmap`] | Postfix's socketmap protocol | socketmap_table(5) |
//! | [`tls_policy`] | Postfix's TLS policy lookups and replies | postconf(5), TLSRPT_README |
//! | [`datagram`] | session datagrams of libtlsrpt | libtlsrpt 0.5 |
//! | [`posted`] | sessions that other mail servers report in JSON | docs/tlsrpt-sending.md |
//! | [`exim_log`] | sessions in Exim's main log | Exim specification, chapter "Log files" |
//! | [`counted`] | numbers and nouns in sentences | |
//! | [`printable`] | text from outside for terminals and logs | |
//! | [`proxy_header`] | the PROXY protocol header | PROXY protocol, versions 1 and 2 |
//! | [`hello`] | ClientHello and ServerHello of TLS 1.0 to 1.2 | RFC 5246 |
//! | [`xml`] | responses of Amazon Route 53, and the XML of DMARC reports | XML 1.0 |

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod caa;
pub mod counted;
pub mod datagram;
pub mod dmarc;
pub mod domain;
pub mod exim_log;
mod fields;
pub mod hello;
pub mod imap;
mod json;
pub mod limits;
pub mod markup;
pub mod mbox;
pub mod mx_pattern;
pub mod policy;
pub mod policy_export;
pub mod posted;
pub mod printable;
pub mod proxy_header;
pub mod report;
pub mod requirement;
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
