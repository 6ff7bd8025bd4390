//! What a plan is made of, and what people are told about it.

use super::super::desired::PolicyHostAt;
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Policy, PolicyId};
use std::fmt;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the domain's names aliases into our zone; that is its owner's.
    Delegate(Vec<(DomainName, DomainName)>),
    /// Let `mta-sts` point to the policy host.
    PointPolicyHost(PolicyHostAt),
    /// Let the policy host answer with this file.
    Serve(Policy),
    /// Publish where reports go.
    AskForReports(TlsrptRecord),
    /// Announce the file under this `id`.
    Announce(PolicyId),
    /// Put these MX hosts into DNS; that is the operator's.
    AddMx(Vec<DomainName>),
    /// Take these MX hosts out of DNS; that is the operator's.
    RemoveMx(Vec<DomainName>),
    /// Take the record `_mta-sts` out.
    Withdraw,
    /// Take the policy file down.
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
            Self::PointPolicyHost(PolicyHostAt::Alias(name)) => write!(f, "point mta-sts to {name}"),
            Self::PointPolicyHost(PolicyHostAt::Addresses(all)) => {
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                write!(f, "point mta-sts to {}", all.join(" and "))
            }
            Self::Serve(policy) => write!(f, "serve the policy of mode {}", policy.mode),
            Self::AskForReports(record) => write!(f, "publish _smtp._tls TXT \"{record}\""),
            Self::Announce(id) => write!(f, "publish _mta-sts TXT \"v=STSv1; id={id};\""),
            Self::AddMx(hosts) => write!(f, "put into the MX records: {}", list(hosts)),
            Self::RemoveMx(hosts) => write!(f, "take out of the MX records: {}", list(hosts)),
            Self::Withdraw => f.write_str("remove _mta-sts TXT"),
            Self::TakeDown => f.write_str("take the policy file down"),
        }
    }
}

impl Step {
    /// One word for scripts.
    pub fn word(&self) -> &'static str {
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

    /// Why it is done, and why now.
    pub fn why(&self) -> &'static str {
        match self {
            Self::Delegate(_) => "from then on nothing more is needed of the domain's owner, until it leaves",
            Self::PointPolicyHost(_) => {
                "senders fetch the policy from that name, and a certificate is made for it"
            }
            Self::Serve(_) => "the file has to be there before the record announces it",
            Self::AskForReports(_) => {
                "reports are wanted from the first day, so that testing shows something"
            }
            Self::Announce(_) => "senders fetch the file when they see a new id",
            Self::AddMx(_) => "no sender can hold an enforced policy any more that refuses them",
            Self::RemoveMx(_) => {
                "the new ones are in place, and the policy still names the old ones for those who know them"
            }
            Self::Withdraw => "no sender can hold a policy of the domain any more",
            Self::TakeDown => "nothing announces the file any more",
        }
    }

    /// What shows from outside that it is done.
    pub fn proof(&self) -> String {
        match self {
            Self::Delegate(_) => "every name server of the zone shows the aliases".to_owned(),
            Self::PointPolicyHost(_) => "the name leads there".to_owned(),
            Self::Serve(policy) => {
                format!("a sender fetches mode {} with max_age {}", policy.mode, policy.max_age)
            }
            Self::AskForReports(_) => "every name server of the zone shows the record".to_owned(),
            Self::Announce(id) => format!("every name server of the zone shows id {id}"),
            Self::AddMx(_) | Self::RemoveMx(_) => {
                "every name server of the zone shows the MX records so".to_owned()
            }
            Self::Withdraw => "no name server of the zone shows it".to_owned(),
            Self::TakeDown => "it can't be fetched".to_owned(),
        }
    }
}
