//! The preflight: looks at a mail domain from outside, as senders do, and says what it found, what
//! follows, and what to do.
//!
//! [`catalogue`] is the table of checks; each topic module looks at one part and speaks in
//! [`Finding`]s. Nothing is changed anywhere, and no mail is sent.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod catalogue;
mod finding;
mod mx;
mod policy;
mod policy_host;
mod record;
mod tlsrpt;

pub use catalogue::{Check, Severity};
pub use finding::{Examination, Finding};

use finding::Findings;
use formats::{DomainName, Mode, Policy};
use net::clock::Clock;
use net::dns::{Dns, DnsError, Exchange, Kind, Security};
use net::https::PolicyHosts;
use net::smtp::MailHosts;
use std::sync::Arc;

/// Looks at domains by these means.
pub struct Checker {
    /// Records.
    pub dns: Arc<dyn Dns>,
    /// Policy files.
    pub policies: Arc<dyn PolicyHosts>,
    /// MX hosts.
    pub mail: Arc<dyn MailHosts>,
    /// Which certificates are about to end.
    pub clock: Arc<dyn Clock>,
}

/// What the topics share about a domain.
pub(crate) struct Subject<'c> {
    pub checker: &'c Checker,
    pub domain: &'c DomainName,
    /// MX hosts in their order; the domain itself without MX records.
    pub hosts: Vec<DomainName>,
    /// The DNSSEC state of the answer that named them.
    pub security: Security,
    /// The policy, when there is a valid one.
    pub policy: Option<Policy>,
}

impl Subject<'_> {
    pub(crate) fn mode(&self) -> Mode {
        self.policy.as_ref().map_or(Mode::None, |policy| policy.mode)
    }
}

impl Checker {
    /// Everything that can be said about `domain` now.
    pub async fn examine(&self, domain: &DomainName) -> Examination {
        let mut findings = Findings::default();
        let Some((hosts, security)) = self.mx_hosts(domain, &mut findings).await else {
            return findings.conclude(domain, Mode::None);
        };
        let mut subject = Subject { checker: self, domain, hosts, security, policy: None };
        let published = record::check(&subject, &mut findings).await;
        let file = policy_host::check(&subject, published, &mut findings).await;
        let policy = file.and_then(|file| policy::check(&subject, &file, &mut findings));
        // A policy that nothing announces binds nobody new.
        subject.policy = policy.filter(|_| published == record::Published::Valid);
        tlsrpt::check(&subject, &mut findings).await;
        mx::check(&subject, &mut findings).await;
        findings.conclude(domain, subject.mode())
    }

    /// The MX hosts, or `None` when there is nothing more to look at.
    async fn mx_hosts(
        &self,
        domain: &DomainName,
        findings: &mut Findings,
    ) -> Option<(Vec<DomainName>, Security)> {
        let answer = match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => answer,
            Err(DnsError::NoSuchName(_)) => {
                findings.add(
                    Check::DomNxdomain,
                    format!("{domain} does not exist"),
                    "No mail can be sent to it. Check the spelling, and that the domain is delegated.",
                    [],
                );
                return None;
            }
            Err(DnsError::NoSuchRecord(nothing)) => {
                findings.add(
                    Check::MxNone,
                    format!("{domain} has no MX record; its own address is the implicit MX"),
                    "It works, and the policy has to name the domain itself. Better say it outright.",
                    [format!("{domain}.  MX  10 {domain}.")],
                );
                return Some((vec![domain.clone()], nothing.security));
            }
            Err(error) => {
                dns_trouble(findings, &format!("the MX records of {domain}"), &error);
                return None;
            }
        };
        let mut hosts = Vec::new();
        for mx in answer.mx() {
            match mx.exchange {
                Exchange::Host(host) => hosts.push(host),
                Exchange::Null => findings.add(
                    Check::MxNull,
                    format!("{domain} has the null MX: it takes no mail"),
                    "Neither MTA-STS nor TLSRPT is needed.",
                    [],
                ),
                Exchange::Invalid(text) => findings.add(
                    Check::MxAddress,
                    format!("the MX value {text:?} is not a host name"),
                    "Senders skip it: the name of a host is called for, not an address.",
                    [format!("{domain}.  MX  {} mail.{domain}.", mx.preference)],
                ),
            }
        }
        hosts.truncate(formats::limits::MX_HOSTS);
        (!hosts.is_empty()).then_some((hosts, answer.security))
    }
}

/// A look-up that failed for another reason than absence.
pub(crate) fn dns_trouble(findings: &mut Findings, what: &str, error: &DnsError) {
    let check = if *error == DnsError::Bogus { Check::DnssecBogus } else { Check::DnsServfail };
    let why = match check {
        Check::DnssecBogus => {
            "Validating resolvers answer with an error: to their users the record is not \
             there, and mail waits. The DS at the parent and the zone's keys and \
             signatures do not fit."
        }
        _ => {
            "Senders can't tell whether the record is there, and new senders get no \
             policy. Look at the zone's name servers."
        }
    };
    findings.add(check, format!("{what}: {error}"), why, []);
}
