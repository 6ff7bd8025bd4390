//! What the caller already knows about a domain: the result of the previous check, the state of the rollout
//! gate and the last received report. The checks of the parts `History` and `Inbox` need it.

use formats::{DomainName, PolicyId};
use jiff::Timestamp;

/// Earlier knowledge about a domain; the default is none.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The previous check; `None` for a first check.
    pub previous: Option<Previous>,
    /// Whether the rollout gate allows mode enforce, and the reason; `None` for domains that are not configured.
    pub gate: Option<(bool, String)>,
    /// The MX hosts that earlier checks saw, the last first.
    pub hosts: Vec<SeenHost>,
    /// The certificates that earlier checks saw at MX hosts, the last first.
    pub certificates: Vec<SeenCertificate>,
    /// The arrival time of the last TLSRPT report (`Some(None)`: none ever arrived); `None` without an inbox.
    pub last_report: Option<Option<Timestamp>>,
}

/// What the previous check saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The record's `id` at that time.
    pub id: PolicyId,
    /// The policy file at that time.
    pub file: Vec<u8>,
    /// The time of that check.
    pub at: Timestamp,
}

/// An MX host that an earlier check saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenHost {
    /// The name in the MX record.
    pub host: DomainName,
    /// When a check last saw it.
    pub seen_at: Timestamp,
}

/// A certificate that an earlier check saw at an MX host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCertificate {
    /// The name in the MX record.
    pub host: DomainName,
    /// SHA-256 of the certificate in hexadecimal.
    pub certificate: String,
    /// SHA-256 of its public key in hexadecimal.
    pub public_key: String,
    /// When a check last saw it.
    pub seen_at: Timestamp,
}
