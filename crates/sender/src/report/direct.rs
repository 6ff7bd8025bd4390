//! Delivers report mail straight to the MX hosts of a target (RFC 8460 §5.3).
//!
//! Reports are delivered whatever the receiver's TLS does (RPT-17): a report about failing TLS has to
//! arrive despite it. So no policy is looked up, and a host whose TLS fails is tried again without. The
//! input is one mail from [`super::Transport`]; the MX hosts come from DNS.

use super::undelivered::Undelivered;
use formats::DomainName;
use formats::limits::MX_HOSTS;
use net::dns::{Dns, DnsError, Kind, host_addresses};
use net::smtp::{Fault, Mail, MailHosts, SessionFailure, Target, TlsDemand};
use std::sync::Arc;

/// Delivery of report mail to MX hosts.
pub struct DirectDelivery {
    /// Resolves MX hosts and their addresses.
    pub dns: Arc<dyn Dns>,
    /// Opens SMTP sessions with MX hosts.
    pub mail: Arc<dyn MailHosts>,
}

impl DirectDelivery {
    /// Delivers `mail` to the first MX host of `domain` that accepts it, and returns that host.
    ///
    /// # Errors
    /// The failure is final when the domain does not exist, has the null MX, or a host refuses the message
    /// permanently. Any other failure is worth a retry.
    pub async fn deliver(&self, domain: &DomainName, mail: &Mail) -> Result<DomainName, Undelivered> {
        let mut last = String::from("no MX host could be reached");
        for host in self.mx_hosts(domain).await? {
            match self.deliver_to(&host, mail).await {
                Ok(()) => return Ok(host),
                Err(failure) if failure.is_final => return Err(failure),
                Err(failure) => last = format!("{host}: {}", failure.why),
            }
        }
        Err(Undelivered::now(last))
    }

    async fn mx_hosts(&self, domain: &DomainName) -> Result<Vec<DomainName>, Undelivered> {
        match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => {
                let hosts: Vec<DomainName> = answer.mx_hosts().take(MX_HOSTS).collect();
                match hosts.is_empty() {
                    true => Err(Undelivered::ever(format!("{domain} takes no mail (null MX)"))),
                    false => Ok(hosts),
                }
            }
            // Without MX records the domain itself is the MX (RFC 5321 §5.1).
            Err(DnsError::NoSuchRecord(_)) => Ok(vec![domain.clone()]),
            Err(DnsError::NoSuchName(_)) => Err(Undelivered::ever(format!("there is no domain {domain}"))),
            Err(DnsError::Bogus) => {
                Err(Undelivered::now(format!("the MX records of {domain} fail DNSSEC validation")))
            }
            Err(other) => Err(Undelivered::now(format!("the MX records of {domain}: {other}"))),
        }
    }

    /// Tries the addresses of one host. A failure that is not final leaves the next host to try.
    async fn deliver_to(&self, host: &DomainName, mail: &Mail) -> Result<(), Undelivered> {
        let addresses = match host_addresses(self.dns.as_ref(), host).await {
            Ok(addresses) => addresses.addresses,
            Err(DnsError::Bogus) => {
                return Err(Undelivered::now("its addresses fail DNSSEC validation"));
            }
            Err(error) => return Err(Undelivered::now(format!("its addresses: {error}"))),
        };
        let mut last = Undelivered::now("it has no address");
        for address in addresses {
            let target = Target { host: host.clone(), address };
            match self.session(&target, mail).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.is_final => return Err(failure),
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    /// One session with TLS if it works, else one without.
    async fn session(&self, target: &Target, mail: &Mail) -> Result<(), Undelivered> {
        let mut outcome = self.mail.session(target, &TlsDemand::Opportunistic, Some(mail)).await;
        if outcome.as_ref().is_err_and(|failure| failure.fault.result_type().is_some()) {
            outcome = self.mail.session(target, &TlsDemand::Never, Some(mail)).await;
        }
        outcome.map(|_| ()).map_err(|failure| undelivered(&failure))
    }
}

fn undelivered(failure: &SessionFailure) -> Undelivered {
    match &failure.fault {
        // A host that refuses the connection says nothing about the message.
        Fault::Refused("the connection" | "HELO", _) => Undelivered::now(&failure.fault),
        fault if fault.is_permanent() => Undelivered::ever(failure),
        fault => Undelivered::now(fault),
    }
}
