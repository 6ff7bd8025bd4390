//! What the operator wants of a domain, as the planner reads it.

use formats::domain::DomainError;
use formats::tlsrpt_record::Rua;
use formats::{DomainName, Mode, MxPattern};
use serde::Serialize;
use std::net::IpAddr;

/// Where a domain is to end up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredState {
    /// The domain.
    pub domain: DomainName,
    /// Its MX hosts; empty means those that DNS shows.
    pub mx: Vec<MxPattern>,
    /// The destination, not the next step.
    pub mode: Mode,
    /// Seconds while testing, and while retiring.
    pub max_age_testing: u32,
    /// Seconds when enforced.
    pub max_age_enforce: u32,
    /// Seconds that a policy may have had that was there before us and can't be fetched any more.
    pub max_age_before: u32,
    /// Where reports go; empty means that this record is not ours.
    pub rua: Vec<Rua>,
    /// Where `mta-sts` is to point; nothing means that it is not ours to say.
    pub policy_host: Option<PolicyHostAt>,
    /// The zone of ours that the domain's three names are aliases into, when its owner delegates them.
    pub delegated_to: Option<DomainName>,
}

/// The names of a domain that its policy and reports hang on (RFC 8461 §3.1, RFC 8460 §3).
pub const LABELS: [&str; 3] = ["_mta-sts", "mta-sts", "_smtp._tls"];

impl DesiredState {
    /// Where the record of this label is put: in the domain itself, or in the zone that it is delegated to.
    pub fn record(&self, label: &str) -> Result<DomainName, DomainError> {
        let own = self.domain.below(label)?;
        match &self.delegated_to {
            Some(zone) => zone.below(own.as_str()),
            None => Ok(own),
        }
    }

    /// The aliases that the owner of a delegated domain has to make; none for others.
    pub fn aliases(&self) -> Result<Vec<(DomainName, DomainName)>, DomainError> {
        let labels = LABELS.iter().filter(|_| self.delegated_to.is_some());
        labels.map(|label| Ok((self.domain.below(label)?, self.record(label)?))).collect()
    }
}

/// Where `mta-sts.DOMAIN` points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyHostAt {
    /// To another name.
    Alias(DomainName),
    /// To these addresses.
    Addresses(Vec<IpAddr>),
}
