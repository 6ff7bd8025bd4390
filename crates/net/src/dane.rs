//! Whether DANE applies to an MX host, and with which records (RFC 7672 §2.1, §2.2).

use crate::dns::{Dns, DnsError, HostAddresses, Kind, Security};
use formats::DomainName;
use formats::tlsa::{TlsaRecord, TlsaRule, rule, tlsa_name};

/// What DANE says about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dane {
    /// Nothing: not signed somewhere on the way, or no records.
    Absent,
    /// These records, found at this name.
    Applies {
        /// The rule that they make.
        rule: TlsaRule,
        /// The records as they came, for the report.
        records: Vec<TlsaRecord>,
        /// The TLSA base domain.
        base: DomainName,
    },
    /// They are there or may be, and can't be had: the host is skipped (DANE-03).
    Unknown(DnsError),
}

/// Looks for the TLSA records of a host. `mx` is the state of the answer that named it.
///
/// No look-up is made unless the addresses are secure, since name servers of unsigned zones often
/// fail on TLSA (DANE-04). The CNAME target is tried before the host's own name (DANE-01).
pub async fn look_up(dns: &dyn Dns, mx: Security, host: &DomainName, addresses: &HostAddresses) -> Dane {
    if mx != Security::Secure || addresses.security != Security::Secure {
        return Dane::Absent;
    }
    for base in addresses.aliases.last().into_iter().chain([host]) {
        let Ok(name) = tlsa_name(base) else { continue };
        match dns.lookup(&name, Kind::Tlsa).await {
            Ok(answer) if answer.security == Security::Secure => {
                let records = answer.tlsa();
                return Dane::Applies { rule: rule(&records), records, base: base.clone() };
            }
            Ok(_) => {}
            Err(error) if error.is_absence() => {}
            Err(error) => return Dane::Unknown(error),
        }
    }
    Dane::Absent
}
