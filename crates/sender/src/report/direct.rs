//! Delivers report mail directly to the MX hosts of a target (RFC 8460 §5.3).
//!
//! Reports are delivered even if TLS fails (RPT-17), since a report about failing TLS must still arrive. No policy is
//! looked up, and a host whose TLS fails is retried without TLS. The input is a mail from [`super::Transport`]; the MX
//! hosts come from DNS. The relay is tried in the same way: each address in turn ([`to_first_address`]).

use super::undelivered::Undelivered;
use formats::DomainName;
use formats::limits::MX_HOSTS;
use net::dns::{Dns, DnsError, Kind, host_addresses};
use net::smtp::{Fault, Mail, MailHosts, Target, TlsDemand};
use std::net::IpAddr;
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
                Err(failure) if failure.is_final => {
                    return Err(Undelivered::permanent(format!("{host}: {}", failure.why)));
                }
                Err(failure) => last = format!("{host}: {}", failure.why),
            }
        }
        Err(Undelivered::temporary(last))
    }

    async fn mx_hosts(&self, domain: &DomainName) -> Result<Vec<DomainName>, Undelivered> {
        match self.dns.lookup(domain, Kind::Mx).await {
            Ok(answer) => {
                let hosts: Vec<DomainName> = answer.mx_hosts().take(MX_HOSTS).collect();
                match hosts.is_empty() {
                    true => Err(Undelivered::permanent(format!("{domain} does not accept mail (null MX)"))),
                    false => Ok(hosts),
                }
            }
            // Without MX records the domain itself is the MX (RFC 5321 §5.1).
            Err(DnsError::NoSuchRecord(_)) => Ok(vec![domain.clone()]),
            Err(DnsError::NoSuchName(_)) => {
                Err(Undelivered::permanent(format!("the domain {domain} does not exist")))
            }
            Err(DnsError::Bogus) => {
                Err(Undelivered::temporary(format!("the MX records of {domain} fail DNSSEC validation")))
            }
            Err(other) => Err(Undelivered::temporary(format!(
                "the lookup of the MX records of {domain} failed: {other}"
            ))),
        }
    }

    /// Delivers to a host; sessions whose TLS fails are repeated without TLS.
    async fn deliver_to(&self, host: &DomainName, mail: &Mail) -> Result<(), Undelivered> {
        let addresses = match host_addresses(self.dns.as_ref(), host).await {
            Ok(addresses) => addresses.addresses,
            Err(DnsError::Bogus) => {
                return Err(Undelivered::temporary("its address records fail DNSSEC validation"));
            }
            Err(error) => {
                return Err(Undelivered::temporary(format!("the lookup of its addresses failed: {error}")));
            }
        };
        let demands = [TlsDemand::Opportunistic, TlsDemand::Never];
        to_first_address(self.mail.as_ref(), host, addresses, &demands, mail).await
    }
}

/// Tries the addresses of a host in turn, until one accepts the mail or fails permanently. At each address, `demands`
/// are tried in turn as long as TLS fails.
pub(super) async fn to_first_address(
    client: &dyn MailHosts,
    host: &DomainName,
    addresses: Vec<IpAddr>,
    demands: &[TlsDemand],
    mail: &Mail,
) -> Result<(), Undelivered> {
    let mut last = Undelivered::temporary("it has no addresses");
    for address in addresses {
        let target = Target { host: host.clone(), address };
        for demand in demands {
            let Err(failure) = client.session(&target, demand, Some(mail)).await else { return Ok(()) };
            last = undelivered(&failure.fault);
            if last.is_final {
                return Err(last);
            }
            if failure.fault.result_type().is_none() {
                break;
            }
        }
    }
    Err(last)
}

fn undelivered(fault: &Fault) -> Undelivered {
    match fault {
        // A refused connection or HELO does not concern this message, so it is retried.
        Fault::Refused("the connection" | "HELO", _) => Undelivered::temporary(fault),
        fault if fault.is_permanent() => Undelivered::permanent(fault),
        fault => Undelivered::temporary(fault),
    }
}
