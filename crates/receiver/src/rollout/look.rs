//! Looks at a domain from outside, as a sender does.

use super::plan::Seen;
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Policy, StsRecord};
use net::dns::{Answer, Dns, DnsError, Kind};
use net::https::PolicyHosts;

/// What a sender sees of `domain` now. An answer that can't be had is an error, never "nothing":
/// no plan is made on ignorance. A policy that can't be fetched or is invalid counts as none.
pub async fn look(dns: &dyn Dns, hosts: &dyn PolicyHosts, domain: &DomainName) -> Result<Seen, DnsError> {
    let mx = present(dns.lookup(domain, Kind::Mx).await)?;
    let record =
        texts(dns, domain, "_mta-sts").await?.and_then(|answer| StsRecord::select(answer.texts()).ok());
    let tlsrpt =
        texts(dns, domain, "_smtp._tls").await?.and_then(|answer| TlsrptRecord::select(answer.texts()).ok());
    let served = match hosts.fetch(domain).await {
        Ok(fetched) => Policy::parse(&fetched.body).ok(),
        Err(_) => None,
    };
    Ok(Seen {
        mx: mx.iter().flat_map(Answer::mx_hosts).collect(),
        record: record.map(|record| record.id),
        served,
        rua: tlsrpt.map(|record| record.rua).unwrap_or_default(),
    })
}

async fn texts(dns: &dyn Dns, domain: &DomainName, label: &str) -> Result<Option<Answer>, DnsError> {
    match domain.below(label) {
        Ok(name) => present(dns.lookup(&name, Kind::Txt).await),
        Err(_) => Ok(None),
    }
}

fn present(answer: Result<Answer, DnsError>) -> Result<Option<Answer>, DnsError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}
