//! A sending mail server that does what RFC 8461 (§5, §8.4), RFC 7672 (§2) and RFC 8460 (§4) call for: it delivers a
//! message to the MX hosts of a domain in their order, under DANE where DANE applies to a host (VAL-10, VAL-11) and
//! else under the domain's MTA-STS policy, and counts the session as a TLS report does.
//!
//! The demo delivers its mail with this sender, and the tests hold the lab's table of cases against it. The policy comes
//! from outside ([`PolicySource`]), so that the policy cache on trial is the product's own; production mail is
//! delivered by Postfix or Exim, which ask for answers.

mod session_tally;

use formats::limits::MX_HOSTS;
use formats::report::PolicyReport;
use formats::tlsa::{TlsaRecord, TlsaRule};
use formats::{DomainName, Mode, Policy, ResultType};
use net::BoxFuture;
use net::dane::{self, Dane, SMTP_PORT};
use net::dns::{Dns, DnsError, Kind, Security, host_addresses};
use net::smtp::{Fault, Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand};
use session_tally::SessionTally;
use std::net::IpAddr;
use std::sync::Arc;

/// The sender's source of MTA-STS policies.
pub trait PolicySource: Send + Sync {
    /// The policy that is in force for mail to `domain` now.
    fn policy<'a>(&'a self, domain: &'a DomainName) -> BoxFuture<'a, PolicyInForce>;
}

/// The MTA-STS policy that a delivery is under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyInForce {
    /// A valid policy is in force.
    Policy {
        /// The parsed policy.
        policy: Policy,
        /// The policy file, whose lines the report quotes.
        body: String,
    },
    /// The domain announces a policy, the fetch failed, and the sender holds no earlier one.
    Unavailable {
        /// The result type that the report counts the failure under.
        result: ResultType,
        /// The reason, for the report's `failure-reason-code`.
        why: String,
    },
    /// The domain has no policy.
    None,
}

/// Delivers messages as RFC 8461 and RFC 7672 call for.
pub struct ReferenceSender {
    /// Resolves MX hosts, addresses and TLSA records.
    pub dns: Arc<dyn Dns>,
    /// Opens SMTP sessions with MX hosts.
    pub mail: Arc<dyn MailHosts>,
    /// Finds MTA-STS policies.
    pub policies: Arc<dyn PolicySource>,
}

/// The result of one delivery attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The outcome for the message.
    pub outcome: Outcome,
    /// The session as the domain's report counts it: one entry for each policy that was applied.
    pub entries: Vec<PolicyReport>,
    /// The failures, host by host, for people.
    pub steps: Vec<String>,
}

/// The outcome for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A host accepted the message.
    Delivered {
        /// The MX host that accepted it.
        host: DomainName,
        /// The protection of the session.
        protection: Protection,
    },
    /// The message stays in the queue; the reason is for the mail log.
    Deferred(String),
    /// The message bounces; the reason is for its author.
    Refused(String),
}

/// The protection of an SMTP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS with a verified MX host.
    Verified,
    /// TLS without verification.
    Encrypted,
    /// No TLS.
    Clear,
}

struct Candidates {
    hosts: Vec<DomainName>,
    security: Security,
}

/// The TLS requirement for one host, and the policy that its session counts under.
enum Rule {
    Dane { demand: TlsDemand, records: Vec<TlsaRecord> },
    Sts(Mode),
    Free,
}

impl ReferenceSender {
    /// Delivers `mail` to the first host of `domain` that the policies allow and that takes it.
    pub fn deliver<'a>(&'a self, domain: &'a DomainName, mail: &'a Mail) -> BoxFuture<'a, Delivery> {
        Box::pin(async move {
            let candidates = match self.candidates(domain).await {
                Ok(candidates) => candidates,
                Err(walk) => return *walk,
            };
            let policy = self.policies.policy(domain).await;
            let mut attempt = Attempt {
                sender: self,
                domain,
                policy,
                mail,
                tallies: SessionTally::new(domain),
                steps: Vec::new(),
            };
            let outcome = attempt.all(candidates).await;
            attempt.finish(outcome)
        })
    }

    async fn candidates(&self, domain: &DomainName) -> Result<Candidates, Box<Delivery>> {
        let end = |outcome| Box::new(Delivery { outcome, entries: Vec::new(), steps: Vec::new() });
        match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => {
                let hosts: Vec<DomainName> = answer.mx_hosts().take(MX_HOSTS).collect();
                if hosts.is_empty() {
                    return Err(end(Outcome::Refused(format!("{domain} accepts no mail (null MX)"))));
                }
                Ok(Candidates { hosts, security: answer.security })
            }
            // VAL-25: without MX records the domain itself is the MX.
            Err(DnsError::NoSuchRecord(nothing)) => {
                Ok(Candidates { hosts: vec![domain.clone()], security: nothing.security })
            }
            Err(DnsError::NoSuchName(_)) => {
                Err(end(Outcome::Refused(format!("the domain {domain} does not exist"))))
            }
            Err(DnsError::Bogus) => {
                let mut tallies = SessionTally::new(domain);
                tallies.dnssec_failure(None, "the MX records fail DNSSEC validation");
                let mut walk =
                    *end(Outcome::Deferred(format!("the MX records of {domain} fail DNSSEC validation")));
                walk.entries = tallies.entries(false);
                Err(Box::new(walk))
            }
            Err(other) => Err(end(Outcome::Deferred(format!("the MX records of {domain}: {other}")))),
        }
    }
}

struct Attempt<'w> {
    sender: &'w ReferenceSender,
    domain: &'w DomainName,
    policy: PolicyInForce,
    mail: &'w Mail,
    tallies: SessionTally,
    steps: Vec<String>,
}

impl Attempt<'_> {
    async fn all(&mut self, candidates: Candidates) -> Outcome {
        self.tallies.sts(&self.policy);
        let mut last = String::from("no MX host could be reached");
        for host in &candidates.hosts {
            match self.host(host, candidates.security).await {
                Ok(protection) => return Outcome::Delivered { host: host.clone(), protection },
                Err(HostFailure::Refused(why)) => return Outcome::Refused(why),
                Err(HostFailure::Next(why)) => {
                    self.steps.push(format!("{host}: {why}"));
                    last = format!("{host}: {why}");
                }
            }
        }
        Outcome::Deferred(last)
    }

    async fn host(&mut self, host: &DomainName, mx: Security) -> Result<Protection, HostFailure> {
        let addresses = match host_addresses(self.sender.dns.as_ref(), host).await {
            Ok(addresses) => addresses,
            Err(DnsError::Bogus) => {
                self.tallies.dnssec_failure(Some(host), "the addresses fail DNSSEC validation");
                return Err(HostFailure::Next("its addresses fail DNSSEC validation".into()));
            }
            Err(error) => return Err(HostFailure::Next(format!("its addresses: {error}"))),
        };
        let dane = dane::look_up(self.sender.dns.as_ref(), mx, (host, SMTP_PORT), &addresses).await.dane;
        let rule = self.rule(host, dane)?;
        let mut last = HostFailure::Next("it has no address".into());
        for address in addresses.addresses {
            match self.address(&Target { host: host.clone(), address }, &rule).await {
                Err(failure @ HostFailure::Next(_)) => last = failure,
                settled => return settled,
            }
        }
        Err(last)
    }

    fn rule(&mut self, host: &DomainName, dane: Dane) -> Result<Rule, HostFailure> {
        match dane {
            Dane::Applies { rule, records, base } => {
                let demand = TlsDemand::Dane { rule, base, next_hop: self.domain.clone() };
                return Ok(Rule::Dane { demand, records });
            }
            Dane::Unknown(error) => {
                self.tallies.dnssec_failure(Some(host), &format!("the TLSA records: {error}"));
                return Err(HostFailure::Next(format!("its TLSA records: {error}")));
            }
            Dane::Absent => {}
        }
        let PolicyInForce::Policy { policy, .. } = &self.policy else { return Ok(Rule::Free) };
        let mode = policy.mode;
        if mode != Mode::None && !policy.covers(host) {
            self.tallies.sts_failure(
                ResultType::ValidationFailure,
                host,
                None,
                "the MX host matches no mx line of the policy",
            );
            if mode == Mode::Enforce {
                return Err(HostFailure::Next("no mx line of the enforced policy matches it".into()));
            }
        }
        Ok(if mode == Mode::None { Rule::Free } else { Rule::Sts(mode) })
    }

    async fn address(&mut self, target: &Target, rule: &Rule) -> Result<Protection, HostFailure> {
        match rule {
            Rule::Dane { demand, records } => {
                let outcome = self.session(target, demand).await;
                self.tallies.dane(records, target, &outcome);
                let report = outcome.map_err(HostFailure::of)?;
                let authenticated = matches!(demand, TlsDemand::Dane { rule: TlsaRule::Authenticate(_), .. });
                Ok(if authenticated { Protection::Verified } else { protection(&report) })
            }
            Rule::Sts(Mode::Enforce) => match self.session(target, &TlsDemand::Pkix).await {
                Ok(_) => Ok(Protection::Verified),
                Err(failure) => {
                    self.tallies.sts_fault(target, &failure.fault);
                    Err(HostFailure::of(failure))
                }
            },
            Rule::Sts(_) => {
                let (outcome, first) = self.opportunistic(target).await;
                self.tallies.testing(target, first.as_ref(), outcome.as_ref().ok());
                outcome.map(|report| protection(&report))
            }
            Rule::Free => self.opportunistic(target).await.0.map(|report| protection(&report)),
        }
    }

    /// Opportunistic TLS (RFC 3207): falls back to plain text when TLS fails, and returns the fault of the first attempt.
    async fn opportunistic(&self, target: &Target) -> (Result<SessionReport, HostFailure>, Option<Fault>) {
        match self.session(target, &TlsDemand::Opportunistic).await {
            Ok(report) => (Ok(report), None),
            Err(failure) if failure.fault.result_type().is_some() => {
                let again = self.session(target, &TlsDemand::Never).await.map_err(HostFailure::of);
                (again, Some(failure.fault))
            }
            Err(failure) => (Err(HostFailure::of(failure)), None),
        }
    }

    async fn session(
        &self,
        target: &Target,
        demand: &TlsDemand,
    ) -> Result<SessionReport, Box<SessionFailure>> {
        self.sender.mail.session(target, demand, Some(self.mail)).await
    }

    fn finish(self, outcome: Outcome) -> Delivery {
        let delivered = matches!(outcome, Outcome::Delivered { .. });
        Delivery { outcome, entries: self.tallies.entries(delivered), steps: self.steps }
    }
}

/// The reason why a host did not accept the message.
enum HostFailure {
    /// The next host may accept it.
    Next(String),
    /// No host will accept it.
    Refused(String),
}

impl HostFailure {
    fn of(failure: Box<SessionFailure>) -> Self {
        // A refused connection or HELO is not a verdict on the message.
        match &failure.fault {
            Fault::Refused("the connection" | "HELO", _) => Self::Next(failure.fault.to_string()),
            fault if fault.is_permanent() => Self::Refused(failure.to_string()),
            fault => Self::Next(fault.to_string()),
        }
    }
}

fn protection(report: &SessionReport) -> Protection {
    if report.tls.is_some() { Protection::Encrypted } else { Protection::Clear }
}

/// The `receiving-ip` of a failure.
fn ip(target: &Target) -> Option<IpAddr> {
    Some(target.address)
}
