//! The state that the operator wants for a domain: the planner's input, built from [`crate::domain::DomainSpec`].

use formats::domain::DomainError;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, MxPattern};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The desired state of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredState {
    /// The mail domain.
    pub domain: DomainName,
    /// Patterns of the policy's `mx` lines. When empty, the MX hosts that DNS shows are used.
    pub mx: Vec<MxPattern>,
    /// The mode to reach in the end, not that of the next step.
    pub mode: Mode,
    /// `max_age` for the modes `testing` and `none`, in seconds.
    pub max_age_testing: u32,
    /// `max_age` for the mode `enforce`, in seconds.
    pub max_age_enforce: u32,
    /// `max_age` assumed for an earlier policy that can no longer be fetched, in seconds.
    pub max_age_before: u32,
    /// The report addresses for `_smtp._tls`. When empty, that record is not managed.
    pub rua: Vec<Rua>,
    /// The target of `mta-sts`; `None` when that record is not managed.
    pub policy_host: Option<PolicyHostAt>,
    /// The zone of ours to which the owner delegates the domain's three names by CNAME; `None` without delegation.
    pub delegated_to: Option<DomainName>,
}

/// The labels below a domain that carry its policy and report records (RFC 8461 §3.1, RFC 8460 §3).
pub const LABELS: [&str; 3] = ["_mta-sts", "mta-sts", "_smtp._tls"];

impl DesiredState {
    /// The name at which the record of this label is published: in the domain itself, or in the zone that it is
    /// delegated to. Fails when the name would be too long.
    pub fn record(&self, label: &str) -> Result<DomainName, DomainError> {
        let own = self.domain.below(label)?;
        match &self.delegated_to {
            Some(zone) => zone.below(own.as_str()),
            None => Ok(own),
        }
    }

    /// The CNAME records (name, target) that the owner of a delegated domain must publish; empty without delegation.
    /// Fails when a name would be too long.
    pub fn aliases(&self) -> Result<Vec<(DomainName, DomainName)>, DomainError> {
        let labels = LABELS.iter().filter(|_| self.delegated_to.is_some());
        labels.map(|label| Ok((self.domain.below(label)?, self.record(label)?))).collect()
    }
}

/// The target of `mta-sts.DOMAIN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyHostAt {
    /// A CNAME to this name.
    Alias(DomainName),
    /// These A and AAAA records.
    Addresses(Vec<IpAddr>),
    /// Any address: the operator points the name to a web server of their own.
    Operator,
}
