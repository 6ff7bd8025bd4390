//! The state that a sender observes from outside: DNS records, policy file and policy host. Filled by
//! [`crate::rollout::look()`], read by the planner and the guard.

use super::desired::PolicyHostAt;
use super::outside::Outside;
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
    /// The policy that the policy host serves, at each of its addresses if they were visited one by one; `None` when it can't
    /// be fetched or is invalid.
    pub served: Option<Policy>,
    /// The different policies that the addresses of the policy host serve; empty if they were not visited one by one.
    pub copies: Vec<Policy>,
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
    /// How the name servers differ about `mta-sts`; `None` if they do not. The addresses are then those that any of them shows.
    pub policy_host_differs: Option<String>,
    /// What each name server and each address of the policy host showed; empty if they were not queried one by one.
    pub outside: Outside,
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
    /// The policies that a sender can fetch now, from any address.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        let whole = self.served.iter().filter(|_| self.copies.is_empty());
        self.copies.iter().chain(whole)
    }

    /// True if all name servers showed the records of this label, or had none, apart from those that the operator has left
    /// out. An empty label stands for the domain itself.
    pub fn is_settled(&self, domain: &DomainName, label: &str) -> bool {
        match label {
            "" => self.outside.is_settled(domain),
            // A name that would be too long was not looked up.
            _ => domain.below(label).map_or(true, |name| self.outside.is_settled(&name)),
        }
    }

    /// True when `mta-sts` points to `place` and to no other address, at every name server.
    pub fn points_to(&self, place: &PolicyHostAt) -> bool {
        let (names, addresses) = &self.policy_host;
        if self.policy_host_differs.is_some() {
            return false;
        }
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
