//! Host addresses that the operator specifies instead of those in DNS, for example to check a new mail server before
//! its address is published. All other lookups go to the underlying resolver.

use super::{Absence, Answer, Data, Dns, DnsError, Kind, Security};
use crate::BoxFuture;
use formats::DomainName;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A [`Dns`] that answers A and AAAA queries for some names with given addresses.
pub struct AddressOverrides {
    dns: Arc<dyn Dns>,
    addresses: Vec<(DomainName, IpAddr)>,
}

/// The TTL of overridden answers, long enough for one check.
const OVERRIDE_TTL: Duration = Duration::from_secs(3600);

impl AddressOverrides {
    /// Wraps `dns`. Names in `addresses` have only the addresses given there, and these answers count as
    /// [`Security::Secure`], since the operator vouches for them.
    pub fn over(dns: Arc<dyn Dns>, addresses: &[(DomainName, IpAddr)]) -> Arc<dyn Dns> {
        match addresses {
            [] => dns,
            some => Arc::new(Self { dns, addresses: some.to_vec() }),
        }
    }

    fn answer(&self, name: &DomainName, kind: Kind) -> Option<Result<Answer, DnsError>> {
        if !matches!(kind, Kind::A | Kind::Aaaa) {
            return None;
        }
        let mut own = self.addresses.iter().filter(|(overridden, _)| overridden == name).peekable();
        own.peek()?;
        let records: Vec<Data> = own
            .filter_map(|(_, address)| match (address, kind) {
                (IpAddr::V4(v4), Kind::A) => Some(Data::A(*v4)),
                (IpAddr::V6(v6), Kind::Aaaa) => Some(Data::Aaaa(*v6)),
                _ => None,
            })
            .collect();
        Some(match records.is_empty() {
            true => {
                Err(DnsError::NoSuchRecord(Absence { security: Security::Secure, ttl: Some(OVERRIDE_TTL) }))
            }
            false => Ok(Answer {
                records,
                ttl: OVERRIDE_TTL,
                security: Security::Secure,
                aliases: Vec::new(),
                is_split: false,
            }),
        })
    }
}

impl Dns for AddressOverrides {
    fn lookup<'a>(&'a self, name: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
        Box::pin(async move {
            match self.answer(name, kind) {
                Some(answer) => answer,
                None => self.dns.lookup(name, kind).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoAnswer;

    impl Dns for NoAnswer {
        fn lookup<'a>(&'a self, _: &'a DomainName, _: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            Box::pin(async { Err(DnsError::Timeout) })
        }
    }

    #[tokio::test]
    async fn overrides_replace_address_records_and_no_other_records() {
        let name = |text: &str| DomainName::parse(text).unwrap();
        let overrides = [(name("mx.example.org"), "192.0.2.7".parse().unwrap())];
        let dns = AddressOverrides::over(Arc::new(NoAnswer), &overrides);
        let found = dns.lookup(&name("mx.example.org"), Kind::A).await.unwrap();
        assert_eq!(found.records, [Data::A("192.0.2.7".parse().unwrap())]);
        assert!(dns.lookup(&name("mx.example.org"), Kind::Aaaa).await.unwrap_err().is_absence());
        for (other, kind) in [("mx.example.org", Kind::Mx), ("example.org", Kind::A)] {
            assert_eq!(dns.lookup(&name(other), kind).await, Err(DnsError::Timeout), "{other}");
        }
    }
}
