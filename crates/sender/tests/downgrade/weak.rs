//! Senders that are known to be weak. The search has to find each of them, or it proves nothing about the real one.

use super::domains::Domain;
use super::oracle::Reply;
use formats::DomainName;
use net::BoxFuture;
use net::dns::{Absence, Answer, Dns, DnsError, Dnssec, Exchange, Kind, Resolver, Security};
use std::sync::Arc;

/// The sender that the search runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The real one.
    Real,
    /// Does not validate DNSSEC.
    ValidatesNothing,
    /// Takes a negative answer that fails validation for an absence.
    BelievesBogusAbsence,
    /// Lets a negative or null MX answer end a policy.
    BelievesMx,
    /// Takes a failed lookup for an absence.
    FailsOpen,
    /// Loses its policies in a restart.
    ForgetsPolicies,
    /// Accepts certificates of the attacker's CA.
    TrustsAnyCertificate,
    /// Answers every question with a temporary failure.
    DefersAll,
}

/// The weak ones.
pub const WEAK: [Variant; 7] = [
    Variant::ValidatesNothing,
    Variant::BelievesBogusAbsence,
    Variant::BelievesMx,
    Variant::FailsOpen,
    Variant::ForgetsPolicies,
    Variant::TrustsAnyCertificate,
    Variant::DefersAll,
];

impl Variant {
    pub fn dnssec(self) -> Dnssec {
        if self == Self::ValidatesNothing { Dnssec::Off } else { Dnssec::Validate }
    }

    pub fn trusts_attacker(self) -> bool {
        self == Self::TrustsAnyCertificate
    }

    pub fn dns(self, resolver: Arc<Resolver>) -> Arc<dyn Dns> {
        match self {
            Self::BelievesBogusAbsence => Arc::new(Credulous(resolver)),
            _ => resolver,
        }
    }

    pub async fn reply(self, domain: &Domain, reply: Reply, dns: &dyn Dns) -> Reply {
        match self {
            Self::DefersAll => Reply::temporary(),
            Self::FailsOpen if reply.is_temporary() => Reply::not_found(),
            Self::BelievesMx => {
                let answer = dns.lookup(&DomainName::parse(domain.name).unwrap(), Kind::Mx).await;
                let is_gone = match answer {
                    Ok(answer) => answer.mx().iter().all(|mx| mx.exchange == Exchange::Null),
                    Err(error) => matches!(error, DnsError::NoSuchName(_)),
                };
                if is_gone { Reply::not_found() } else { reply }
            }
            _ => reply,
        }
    }
}

/// Does not check what a negative answer proves.
struct Credulous(Arc<Resolver>);

impl Dns for Credulous {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            match self.0.lookup(name, kind).await {
                Err(DnsError::Bogus) if kind == Kind::Tlsa => {
                    Err(DnsError::NoSuchRecord(Absence { security: Security::Insecure, ttl: None }))
                }
                other => other,
            }
        })
    }
}
