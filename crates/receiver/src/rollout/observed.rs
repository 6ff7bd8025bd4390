//! The state that a sender observes from outside: DNS records, policy file and policy host. Filled by
//! [`crate::rollout::look()`], read by the planner and the guard.

use super::desired::PolicyHostAt;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Policy, PolicyId};
use jiff::Timestamp;
use std::fmt;
use std::net::IpAddr;

/// What a domain publishes at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedState {
    /// The MX hosts of the domain.
    pub mx: Vec<DomainName>,
    /// TTL of the MX records, in seconds.
    pub mx_ttl: u32,
    /// The `id` of the `_mta-sts` record; `None` without a valid record.
    pub record: Option<PolicyId>,
    /// The policy that the policy host serves; `None` when it can't be fetched or is invalid.
    pub served: Option<Policy>,
    /// Why no policy could be fetched; `None` when one was.
    pub unserved: Option<String>,
    /// When the policy host's certificate expires, if the fetch succeeded.
    pub certificate_ends: Option<Timestamp>,
    /// The records of `_mta-sts` and `_smtp._tls` that exist and can't be read.
    pub unread: Vec<UnreadRecord>,
    /// The report addresses in `_smtp._tls`.
    pub rua: Vec<Rua>,
    /// CNAME records (name, target) at the names of [`LABELS`](crate::rollout::desired::LABELS).
    pub aliases: Vec<(DomainName, DomainName)>,
    /// The CNAME targets on the way from `mta-sts`, and the addresses at its end.
    pub policy_host: (Vec<DomainName>, Vec<IpAddr>),
}

/// A TXT record that exists and is not what its name requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadRecord {
    /// The label below the domain: `_mta-sts` or `_smtp._tls`.
    pub label: &'static str,
    /// The record's text, shortened.
    pub text: String,
    /// Why it can't be read.
    pub why: String,
    /// True if it begins like the version that its name requires; otherwise it may serve another purpose.
    pub is_meant: bool,
}

impl fmt::Display for UnreadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has a record that can't be read: `{}`: {}", self.label, self.text, self.why)
    }
}

impl ObservedState {
    /// True when `mta-sts` points to `place` and to no other address.
    pub fn points_to(&self, place: &PolicyHostAt) -> bool {
        let (names, addresses) = &self.policy_host;
        match place {
            PolicyHostAt::Alias(name) => names.contains(name),
            PolicyHostAt::Addresses(all) => {
                !addresses.is_empty() && addresses.iter().all(|address| all.contains(address))
            }
            PolicyHostAt::Operator => !addresses.is_empty() || self.served.is_some(),
        }
    }

    /// The record of a label that exists and can't be read.
    pub fn unread(&self, label: &str) -> Option<&UnreadRecord> {
        self.unread.iter().find(|record| record.label == label)
    }
}
