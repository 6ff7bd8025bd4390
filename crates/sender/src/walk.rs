//! Walks the MX hosts of a domain with a message, or without one to look, under the policy that
//! applies to each, and says what was met as a TLS report counts it (RFC 8461 §5, §8.4; RFC 7672
//! §2; RFC 8460 §4).
//!
//! DANE goes first for each host whose chain is secure (VAL-10, VAL-11); MTA-STS is for the rest.

mod tally;

use crate::answer::Discovery;
use crate::answer::sts::EffectivePolicy;
use formats::limits::MX_HOSTS;
use formats::report::PolicyReport;
use formats::tlsa::{TlsaRecord, TlsaRule};
use formats::{DomainName, Mode, ResultType};
use net::BoxFuture;
use net::dane::{self, Dane, SMTP_PORT};
use net::dns::{Dns, DnsError, Kind, Security, host_addresses};
use net::smtp::{Fault, Mail, MailHosts, SessionFailure, SessionReport, Target, TlsDemand};
use std::net::IpAddr;
use std::sync::Arc;
use tally::Tallies;

/// Walks MX hosts.
pub struct Walker {
    /// Finds MX hosts, addresses and TLSA records.
    pub dns: Arc<dyn Dns>,
    /// Talks to them.
    pub mail: Arc<dyn MailHosts>,
    /// Finds policies.
    pub discovery: Arc<Discovery>,
}

/// How a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// What became of it.
    pub outcome: Outcome,
    /// What is to be tallied for the domain's report: an entry a policy, one session each.
    pub entries: Vec<PolicyReport>,
    /// What happened, host by host, for people.
    pub steps: Vec<String>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A host took it.
    Delivered {
        /// Which.
        host: DomainName,
        /// How it was protected.
        protection: Protection,
    },
    /// It waits; the reason is for the mail log.
    Deferred(String),
    /// It is returned; the reason is for the sender.
    Refused(String),
}

/// How a message was protected on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// By TLS with the host verified.
    Verified,
    /// By TLS with whoever answered.
    Encrypted,
    /// Not at all.
    Clear,
}

struct Candidates {
    hosts: Vec<DomainName>,
    security: Security,
}

/// What one host is asked for, and under which policy it counts.
enum Rule {
    Dane { demand: TlsDemand, records: Vec<TlsaRecord> },
    Sts(Mode),
    Free,
}

impl Walker {
    /// Delivers `mail` to the first host of `domain` that the policies allow and that takes it.
    pub fn deliver<'a>(&'a self, domain: &'a DomainName, mail: &'a Mail) -> BoxFuture<'a, Walk> {
        Box::pin(async move {
            let candidates = match self.candidates(domain).await {
                Ok(candidates) => candidates,
                Err(walk) => return *walk,
            };
            let found = self.discovery.find(domain).await.found;
            let mut run =
                Run { walker: self, domain, found, mail, tallies: Tallies::new(domain), steps: Vec::new() };
            let outcome = run.all(candidates).await;
            run.finish(outcome)
        })
    }

    async fn candidates(&self, domain: &DomainName) -> Result<Candidates, Box<Walk>> {
        let end = |outcome| Box::new(Walk { outcome, entries: Vec::new(), steps: Vec::new() });
        match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => {
                let hosts: Vec<DomainName> = answer.mx_hosts().take(MX_HOSTS).collect();
                if hosts.is_empty() {
                    return Err(end(Outcome::Refused(format!("{domain} takes no mail (null MX)"))));
                }
                Ok(Candidates { hosts, security: answer.security })
            }
            // VAL-25: without MX records the domain itself is the MX.
            Err(DnsError::NoSuchRecord(nothing)) => {
                Ok(Candidates { hosts: vec![domain.clone()], security: nothing.security })
            }
            Err(DnsError::NoSuchName(_)) => {
                Err(end(Outcome::Refused(format!("there is no domain {domain}"))))
            }
            Err(DnsError::Bogus) => {
                let mut tallies = Tallies::new(domain);
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

struct Run<'w> {
    walker: &'w Walker,
    domain: &'w DomainName,
    found: EffectivePolicy,
    mail: &'w Mail,
    tallies: Tallies,
    steps: Vec<String>,
}

impl Run<'_> {
    async fn all(&mut self, candidates: Candidates) -> Outcome {
        self.tallies.sts(&self.found);
        let mut last = String::from("no MX host could be reached");
        for host in &candidates.hosts {
            match self.host(host, candidates.security).await {
                Ok(protection) => return Outcome::Delivered { host: host.clone(), protection },
                Err(Setback::Refused(why)) => return Outcome::Refused(why),
                Err(Setback::Next(why)) => {
                    self.steps.push(format!("{host}: {why}"));
                    last = format!("{host}: {why}");
                }
            }
        }
        Outcome::Deferred(last)
    }

    async fn host(&mut self, host: &DomainName, mx: Security) -> Result<Protection, Setback> {
        let addresses = match host_addresses(self.walker.dns.as_ref(), host).await {
            Ok(addresses) => addresses,
            Err(DnsError::Bogus) => {
                self.tallies.dnssec_failure(Some(host), "the addresses fail DNSSEC validation");
                return Err(Setback::Next("its addresses fail DNSSEC validation".into()));
            }
            Err(error) => return Err(Setback::Next(format!("its addresses: {error}"))),
        };
        let dane = dane::look_up(self.walker.dns.as_ref(), mx, (host, SMTP_PORT), &addresses).await.dane;
        let rule = self.rule(host, dane)?;
        let mut last = Setback::Next("it has no address".into());
        for address in addresses.addresses {
            match self.address(&Target { host: host.clone(), address }, &rule).await {
                Err(setback @ Setback::Next(_)) => last = setback,
                settled => return settled,
            }
        }
        Err(last)
    }

    fn rule(&mut self, host: &DomainName, dane: Dane) -> Result<Rule, Setback> {
        match dane {
            Dane::Applies { rule, records, base } => {
                let demand = TlsDemand::Dane { rule, base, next_hop: self.domain.clone() };
                return Ok(Rule::Dane { demand, records });
            }
            Dane::Unknown(error) => {
                self.tallies.dnssec_failure(Some(host), &format!("the TLSA records: {error}"));
                return Err(Setback::Next(format!("its TLSA records: {error}")));
            }
            Dane::Absent => {}
        }
        let EffectivePolicy::Policy { held, .. } = &self.found else { return Ok(Rule::Free) };
        let mode = held.policy.mode;
        if mode != Mode::None && !held.policy.covers(host) {
            self.tallies.sts_failure(
                ResultType::ValidationFailure,
                host,
                None,
                "the MX host matches no mx line of the policy",
            );
            if mode == Mode::Enforce {
                return Err(Setback::Next("no mx line of the enforced policy matches it".into()));
            }
        }
        Ok(if mode == Mode::None { Rule::Free } else { Rule::Sts(mode) })
    }

    async fn address(&mut self, target: &Target, rule: &Rule) -> Result<Protection, Setback> {
        match rule {
            Rule::Dane { demand, records } => {
                let outcome = self.session(target, demand).await;
                self.tallies.dane(records, target, &outcome);
                let report = outcome.map_err(Setback::of)?;
                let authenticated = matches!(demand, TlsDemand::Dane { rule: TlsaRule::Authenticate(_), .. });
                Ok(if authenticated { Protection::Verified } else { protection(&report) })
            }
            Rule::Sts(Mode::Enforce) => match self.session(target, &TlsDemand::Pkix).await {
                Ok(_) => Ok(Protection::Verified),
                Err(failure) => {
                    self.tallies.sts_fault(target, &failure.fault);
                    Err(Setback::of(failure))
                }
            },
            Rule::Sts(_) => {
                let (outcome, first) = self.opportunistic(target).await;
                self.tallies.tested(target, first.as_ref(), outcome.as_ref().ok());
                outcome.map(|report| protection(&report))
            }
            Rule::Free => self.opportunistic(target).await.0.map(|report| protection(&report)),
        }
    }

    /// TLS if it works, else in the clear as mail has always gone; with the fault of the first try.
    async fn opportunistic(&self, target: &Target) -> (Result<SessionReport, Setback>, Option<Fault>) {
        match self.session(target, &TlsDemand::Opportunistic).await {
            Ok(report) => (Ok(report), None),
            Err(failure) if failure.fault.result_type().is_some() => {
                let again = self.session(target, &TlsDemand::Never).await.map_err(Setback::of);
                (again, Some(failure.fault))
            }
            Err(failure) => (Err(Setback::of(failure)), None),
        }
    }

    async fn session(
        &self,
        target: &Target,
        demand: &TlsDemand,
    ) -> Result<SessionReport, Box<SessionFailure>> {
        self.walker.mail.session(target, demand, Some(self.mail)).await
    }

    fn finish(self, outcome: Outcome) -> Walk {
        let delivered = matches!(outcome, Outcome::Delivered { .. });
        Walk { outcome, entries: self.tallies.entries(delivered), steps: self.steps }
    }
}

/// Why a host did not take the message.
enum Setback {
    /// The next one may.
    Next(String),
    /// None will.
    Refused(String),
}

impl Setback {
    fn of(failure: Box<SessionFailure>) -> Self {
        // A host that turns the connection away says nothing about the message.
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

/// The address as a report has it.
fn ip(target: &Target) -> Option<IpAddr> {
    Some(target.address)
}
