//! Observes a domain from outside, as a sender does: resolves its records and fetches its policy.

use super::desired::LABELS;
use super::observed::ObservedState;
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Policy, StsRecord};
use net::dns::{Answer, Data, Dns, DnsError, Kind, host_addresses};
use net::https::{PolicyHosts, policy_host};
use std::net::IpAddr;

/// Observes the current state of `domain`. `dns` should query the zones' own name servers, since a cache returns old
/// records. A DNS failure is an error and never counts as an absent record, since a plan must not rest on missing
/// data. A policy that can't be fetched or is invalid counts as absent.
pub async fn look(
    dns: &dyn Dns,
    hosts: &dyn PolicyHosts,
    domain: &DomainName,
) -> Result<ObservedState, DnsError> {
    let (mx, record, tlsrpt, aliases) = tokio::try_join!(
        mail_hosts(dns, domain),
        texts(dns, domain, "_mta-sts"),
        texts(dns, domain, "_smtp._tls"),
        aliases(dns, domain),
    )?;
    let policy_host = policy_host_target(dns, domain, &aliases).await?;
    let record = record.and_then(|answer| StsRecord::select(answer.texts()).ok());
    let tlsrpt = tlsrpt.and_then(|answer| TlsrptRecord::select(answer.texts()).ok());
    let mut certificate_ends = None;
    let served = match hosts.fetch(domain).await {
        Ok(fetched) => {
            certificate_ends = fetched.certificate_ends;
            Policy::parse(&fetched.body).map_err(|error| format!("the policy file is invalid: {error}"))
        }
        Err(error) => Err(error.to_string()),
    };
    let (served, unserved) = match served {
        Ok(policy) => (Some(policy), None),
        Err(why) => (None, Some(why)),
    };
    Ok(ObservedState {
        mx: mx.0,
        mx_ttl: mx.1,
        record: record.map(|record| record.id),
        served,
        unserved,
        certificate_ends,
        rua: tlsrpt.map(|record| record.rua).unwrap_or_default(),
        aliases,
        policy_host,
    })
}

/// The MX hosts and their TTL in seconds. A domain with addresses but no MX record is its own MX host (RFC 5321
/// §5.1).
async fn mail_hosts(dns: &dyn Dns, domain: &DomainName) -> Result<(Vec<DomainName>, u32), DnsError> {
    if let Some(answer) = present(dns.lookup(domain, Kind::Mx).await)? {
        return Ok((answer.mx_hosts().collect(), seconds(&answer)));
    }
    match host_addresses(dns, domain).await {
        Ok(found) => Ok((vec![domain.clone()], u32::try_from(found.ttl.as_secs()).unwrap_or(u32::MAX))),
        Err(error) if error.is_absence() => Ok((Vec::new(), 0)),
        Err(error) => Err(error),
    }
}

/// The CNAME targets and addresses of `mta-sts`.
async fn policy_host_target(
    dns: &dyn Dns,
    domain: &DomainName,
    aliases: &[(DomainName, DomainName)],
) -> Result<(Vec<DomainName>, Vec<IpAddr>), DnsError> {
    let Ok(host) = policy_host(domain) else { return Ok(Default::default()) };
    let alias: Vec<DomainName> =
        aliases.iter().filter(|(name, _)| *name == host).map(|(_, target)| target.clone()).collect();
    match host_addresses(dns, &host).await {
        Ok(found) => Ok((if found.aliases.is_empty() { alias } else { found.aliases }, found.addresses)),
        // The alias counts even when the zone of its target does not answer.
        Err(error) if error.is_absence() || !alias.is_empty() => Ok((alias, Vec::new())),
        Err(error) => Err(error),
    }
}

async fn aliases(dns: &dyn Dns, domain: &DomainName) -> Result<Vec<(DomainName, DomainName)>, DnsError> {
    let mut all = Vec::new();
    for name in LABELS.iter().filter_map(|label| domain.below(label).ok()) {
        all.extend(alias(dns, &name).await?.map(|target| (name, target)));
    }
    Ok(all)
}

async fn alias(dns: &dyn Dns, name: &DomainName) -> Result<Option<DomainName>, DnsError> {
    let answer = present(dns.lookup(name, Kind::Cname).await)?;
    Ok(answer.into_iter().flat_map(|answer| answer.records).find_map(|data| match data {
        Data::Cname(target) => Some(target),
        _ => None,
    }))
}

fn seconds(answer: &Answer) -> u32 {
    u32::try_from(answer.ttl.as_secs()).unwrap_or(u32::MAX)
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
