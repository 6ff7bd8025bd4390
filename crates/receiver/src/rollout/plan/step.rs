//! The steps of a plan, and the texts that explain them to operators.

use super::super::desired::PolicyHostAt;
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Policy, PolicyId};
use std::fmt;

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Publish CNAME records (name, target) into our zone; only the domain's owner can do this.
    Delegate(Vec<(DomainName, DomainName)>),
    /// Point `mta-sts` to the policy host.
    PointPolicyHost(PolicyHostAt),
    /// Serve this policy file at the policy host.
    Serve(Policy),
    /// Publish the `_smtp._tls` record.
    AskForReports(TlsrptRecord),
    /// Announce the policy file by publishing `_mta-sts` with this `id`.
    Announce(PolicyId),
    /// Add these MX hosts to DNS; only the operator does this.
    AddMx(Vec<DomainName>),
    /// Remove these MX hosts from DNS; only the operator does this.
    RemoveMx(Vec<DomainName>),
    /// Remove the record `_mta-sts`.
    Withdraw,
    /// Stop serving the policy file.
    TakeDown,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[DomainName]| hosts.iter().map(DomainName::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::Delegate(aliases) => {
                let names: Vec<&str> = aliases.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "delegate {}", names.join(", "))
            }
            Self::PointPolicyHost(PolicyHostAt::Operator) => f.write_str("point mta-sts to your web server"),
            Self::PointPolicyHost(PolicyHostAt::Alias(name)) => write!(f, "point mta-sts to {name}"),
            Self::PointPolicyHost(PolicyHostAt::Addresses(all)) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                write!(f, "point mta-sts to {}", all.join(" and "))
            }
            Self::Serve(policy) => write!(f, "serve the policy of mode {}", policy.mode),
            Self::AskForReports(record) => write!(f, "publish _smtp._tls TXT \"{record}\""),
            Self::Announce(id) => write!(f, "publish _mta-sts TXT \"v=STSv1; id={id};\""),
            Self::AddMx(hosts) => write!(f, "add to the MX records: {}", list(hosts)),
            Self::RemoveMx(hosts) => write!(f, "remove from the MX records: {}", list(hosts)),
            Self::Withdraw => f.write_str("remove _mta-sts TXT"),
            Self::TakeDown => f.write_str("stop serving the policy file"),
        }
    }
}

impl Step {
    /// The step's name for scripts and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delegate(_) => "delegate",
            Self::PointPolicyHost(_) => "point-policy-host",
            Self::Serve(_) => "serve",
            Self::AskForReports(_) => "ask-for-reports",
            Self::Announce(_) => "announce",
            Self::AddMx(_) => "add-mx",
            Self::RemoveMx(_) => "remove-mx",
            Self::Withdraw => "withdraw",
            Self::TakeDown => "take-down",
        }
    }

    /// Why the step is needed, and why it comes now.
    pub fn why(&self) -> &'static str {
        match self {
            Self::Delegate(_) => {
                "after this the domain's owner needs to do nothing else until the domain leaves"
            }
            Self::PointPolicyHost(PolicyHostAt::Operator) => {
                "senders fetch the policy from that name, so it needs an address and a certificate"
            }
            Self::PointPolicyHost(_) => {
                "senders fetch the policy from that name, and a certificate is ordered for it"
            }
            Self::Serve(_) => "the file must be served before the record announces it",
            Self::AskForReports(_) => {
                "reports are needed from the first day, so that testing yields evidence"
            }
            Self::Announce(_) => "senders fetch the file when they see a new id",
            Self::AddMx(_) => "no sender can still hold an enforced policy that refuses them",
            Self::RemoveMx(_) => {
                "the new hosts are in place, and the policy still names the old ones for senders with cached MX records"
            }
            Self::Withdraw => "no sender can still hold a policy of the domain",
            Self::TakeDown => "no record announces the file any more",
        }
    }

    /// The observation from outside that verifies the step.
    pub fn proof(&self) -> String {
        match self {
            Self::Delegate(_) => "every name server of the zone returns the CNAME records".to_owned(),
            Self::PointPolicyHost(PolicyHostAt::Operator) => "the name has an address".to_owned(),
            Self::PointPolicyHost(_) => "the name points there".to_owned(),
            Self::Serve(policy) => {
                format!("a sender fetches mode {} with max_age {}", policy.mode, policy.max_age)
            }
            Self::AskForReports(_) => "every name server of the zone returns the record".to_owned(),
            Self::Announce(id) => format!("every name server of the zone returns id {id}"),
            Self::AddMx(_) | Self::RemoveMx(_) => {
                "every name server of the zone returns these MX records".to_owned()
            }
            Self::Withdraw => "no name server of the zone returns it".to_owned(),
            Self::TakeDown => "the file can't be fetched".to_owned(),
        }
    }
}
