//! What a domain publishes, as a sender sees it from outside.

use super::desired::PolicyHostAt;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Policy, PolicyId};
use jiff::Timestamp;
use std::net::IpAddr;

/// What is there, as a sender sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObservedState {
    /// The MX hosts of the domain.
    pub mx: Vec<DomainName>,
    /// Seconds for which senders may remember them.
    pub mx_ttl: u32,
    /// The `id` that `_mta-sts` announces.
    pub record: Option<PolicyId>,
    /// The policy that the policy host serves.
    pub served: Option<Policy>,
    /// Why none is served, when a policy host is there.
    pub unserved: Option<String>,
    /// When the policy host's certificate ends.
    pub certificate_ends: Option<Timestamp>,
    /// Where `_smtp._tls` sends reports.
    pub rua: Vec<Rua>,
    /// Aliases of the domain's own names (`LABELS` of [`crate::rollout::desired`]), where there are any.
    pub aliases: Vec<(DomainName, DomainName)>,
    /// Names that `mta-sts` leads through, and the addresses at the end.
    pub policy_host: (Vec<DomainName>, Vec<IpAddr>),
}

impl ObservedState {
    /// True when `mta-sts` leads to `place` and nowhere else.
    pub fn points_to(&self, place: &PolicyHostAt) -> bool {
        let (names, addresses) = &self.policy_host;
        match place {
            PolicyHostAt::Alias(name) => names.contains(name),
            PolicyHostAt::Addresses(all) => {
                !addresses.is_empty() && addresses.iter().all(|address| all.contains(address))
            }
        }
    }
}
