//! The state that a sender observes from outside: DNS records, policy file and policy host. Filled by
//! [`crate::rollout::observe()`], read by the planner and the guard.

use super::desired::PolicyHostAt;
use super::outside::Outside;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Policy, PolicyId};
use net::certificate::CertificateFacts;
use net::https::FetchError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// What a domain publishes at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedState {
    /// The MX hosts of the domain.
    pub mx: Vec<DomainName>,
    /// TTL of the MX records, in seconds.
    pub mx_ttl: u32,
    /// Why `mx` is empty; `None` when it is not.
    pub unmailed: Option<NoMailHosts>,
    /// The `id` of the `_mta-sts` record; `None` without a valid record.
    pub record: Option<PolicyId>,
    /// The policy that the policy host serves, at each of its addresses if they were visited one by one; `None` when it can't
    /// be fetched or is invalid.
    pub served: Option<Policy>,
    /// The different policies that the addresses of the policy host serve; empty if they were not visited one by one.
    pub copies: Vec<Policy>,
    /// Why no policy could be fetched; `None` when one was.
    pub unserved: Option<String>,
    /// The error of the fetch, if a sender could not fetch a file.
    pub fetch_error: Option<FetchError>,
    /// Of the certificates that the addresses of the policy host presented, the one that ends first.
    pub certificate: Option<CertificateFacts>,
    /// The records of `_mta-sts` and `_smtp._tls` that exist and can't be read.
    pub unread: Vec<UnreadRecord>,
    /// The report addresses in `_smtp._tls`.
    pub rua: Vec<Rua>,
    /// CNAME records (name, target) at the names of [`LABELS`](crate::rollout::desired::LABELS).
    pub aliases: Vec<(DomainName, DomainName)>,
    /// Names of these that are not in `aliases` since the name servers differ, each with how they differ.
    pub differing_aliases: Vec<(DomainName, String)>,
    /// The CNAME targets on the way from `mta-sts`, and the addresses at its end.
    pub policy_host: (Vec<DomainName>, Vec<IpAddr>),
    /// How the name servers differ about `mta-sts`; `None` if they do not. The addresses are then those that any of them shows.
    pub policy_host_differs: Option<String>,
    /// What each name server and each address of the policy host showed; empty if they were not queried one by one.
    pub outside: Outside,
}

/// Why a domain has no MX host that mail could be delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoMailHosts {
    /// The name does not exist in DNS.
    NoSuchName,
    /// The name exists, without MX records and addresses (RFC 5321 §5.1).
    NoRecords,
    /// The domain accepts no mail, by a null MX (RFC 7505).
    NullMx,
    /// The domain's MX records name no valid host, for example an IP address.
    InvalidHosts,
}

impl NoMailHosts {
    /// The finding, in words.
    pub fn what(self, domain: &DomainName) -> String {
        match self {
            Self::NoSuchName => format!("{domain} does not exist in DNS (NXDOMAIN)"),
            Self::NoRecords => format!("{domain} has no MX records and no addresses, so it receives no mail"),
            Self::NullMx => format!("{domain} accepts no mail: it has a null MX record (RFC 7505)"),
            Self::InvalidHosts => {
                format!("the MX records of {domain} name no valid host, so it receives no mail")
            }
        }
    }

    /// The remedy, in words.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoSuchName => {
                "Check the spelling, and that the domain is registered and its zone is published."
            }
            Self::NoRecords => {
                "Publish the MX records first, or give the domain after the @ of your mail addresses."
            }
            Self::NullMx => {
                "MTA-STS protects incoming mail, so such a domain needs no policy: remove it here, or publish MX records."
            }
            Self::InvalidHosts => "Let the MX records name hosts. An IP address is not a host name.",
        }
    }
}

/// A TXT record that exists and is not what its name requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadRecord {
    /// The label below the domain: `_mta-sts` or `_smtp._tls`.
    pub label: &'static str,
    /// The record's text, shortened.
    pub text: String,
    /// Why the record is not valid.
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

    /// True if each address of the policy host that counts served a valid policy. False if it is not known for sure which
    /// addresses it has.
    pub fn is_fetched_everywhere(&self) -> bool {
        self.policy_host_differs.is_none() && self.outside.is_fetched_everywhere()
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
