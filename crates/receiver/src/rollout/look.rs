//! Observes a domain from outside, as a sender does: resolves its records and fetches its policy.

use super::desired::LABELS;
use super::observed::{ObservedState, UnreadRecord};
use super::outside::Outside;
use formats::limits::ALIASES;
use formats::sts_record::SelectError;
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Policy, StsRecord};
use net::dns::{Answer, Data, Dns, DnsError, Kind, host_addresses};
use net::https::{PolicyHosts, policy_host};
use std::net::IpAddr;

/// A question to DNS that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {error}")]
pub struct LookupError {
    /// The record types, as in `TXT`.
    pub kind: &'static str,
    /// The name that was looked up.
    pub name: DomainName,
    /// What failed.
    pub error: DnsError,
}

impl From<LookupError> for DnsError {
    fn from(failed: LookupError) -> Self {
        failed.error
    }
}

fn failed(kind: &'static str, name: &DomainName) -> impl Fn(DnsError) -> LookupError {
    move |error| LookupError { kind, name: name.clone(), error }
}

/// Observes the current state of `domain`. `dns` should query the zones' own name servers, since a cache returns old
/// records. A DNS failure is an error and never counts as an absent record, since a plan must not rest on missing
/// data. A policy that can't be fetched or is invalid counts as absent.
pub async fn look(
    dns: &dyn Dns,
    hosts: &dyn PolicyHosts,
    domain: &DomainName,
) -> Result<ObservedState, LookupError> {
    let (mx, record, tlsrpt, aliases) = tokio::try_join!(
        mail_hosts(dns, domain),
        texts(dns, domain, "_mta-sts"),
        texts(dns, domain, "_smtp._tls"),
        aliases(dns, domain),
    )?;
    let policy_host = policy_host_target(dns, domain, &aliases).await?;
    let mut unread = Vec::new();
    let record = record.and_then(|answer| match StsRecord::select(answer.texts()) {
        Ok(record) => Some(record),
        Err(error) => {
            unread.extend(unread_record("_mta-sts", "v=STSv1", &answer, &error));
            None
        }
    });
    let tlsrpt = tlsrpt.and_then(|answer| match TlsrptRecord::select(answer.texts()) {
        Ok(record) => Some(record),
        Err(error) => {
            unread.extend(unread_record("_smtp._tls", "v=TLSRPTv1", &answer, &error));
            None
        }
    });
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
        copies: Vec::new(),
        unserved,
        certificate_ends,
        unread,
        rua: tlsrpt.map(|record| record.rua).unwrap_or_default(),
        aliases,
        policy_host: (policy_host.aliases, policy_host.addresses),
        policy_host_differs: policy_host.differ,
        outside: Outside::default(),
    })
}

/// Characters of an unreadable record that are kept.
const SHOWN_CHARACTERS: usize = 200;

/// The record that was meant for this name, if an answer has one that can't be read: the first whose text begins like the
/// version, else the first of all.
fn unread_record(
    label: &'static str,
    version: &str,
    answer: &Answer,
    error: &SelectError,
) -> Option<UnreadRecord> {
    let (name, number) = version.split_at(version.len() - 1);
    let texts = || answer.texts().map(|text| String::from_utf8_lossy(text).into_owned());
    let is_meant = |text: &String| {
        text.trim_start().get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name))
    };
    let (text, is_meant) = match texts().find(is_meant) {
        Some(text) => (text, true),
        None => (texts().next()?, false),
    };
    let why = match error {
        SelectError::None if is_meant => format!("it does not begin with `{name}{number};`"),
        SelectError::None => format!("a record that begins with `{name}{number};` is required here"),
        other => other.to_string(),
    };
    Some(UnreadRecord { label, text: text.chars().take(SHOWN_CHARACTERS).collect(), why, is_meant })
}

/// The MX hosts and their TTL in seconds. A domain with addresses but no MX record is its own MX host (RFC 5321
/// §5.1).
async fn mail_hosts(dns: &dyn Dns, domain: &DomainName) -> Result<(Vec<DomainName>, u32), LookupError> {
    if let Some(answer) = present(dns.lookup(domain, Kind::Mx).await).map_err(failed("MX", domain))? {
        return Ok((answer.mx_hosts().collect(), seconds(&answer)));
    }
    match host_addresses(dns, domain).await {
        Ok(found) => Ok((vec![domain.clone()], u32::try_from(found.ttl.as_secs()).unwrap_or(u32::MAX))),
        Err(error) if error.is_absence() => Ok((Vec::new(), 0)),
        Err(error) => Err(failed("A and AAAA", domain)(error)),
    }
}

/// The CNAME targets and addresses of `mta-sts`.
async fn policy_host_target(
    dns: &dyn Dns,
    domain: &DomainName,
    aliases: &[(DomainName, DomainName)],
) -> Result<HostTarget, LookupError> {
    let Ok(host) = policy_host(domain) else { return Ok(HostTarget::default()) };
    let alias: Vec<DomainName> =
        aliases.iter().filter(|(name, _)| *name == host).map(|(_, target)| target.clone()).collect();
    let mut found = all_addresses(dns, &host).await.map_err(|(kind, error)| failed(kind, &host)(error))?;
    if found.aliases.is_empty() && found.differ.is_none() {
        found.aliases = alias;
    }
    Ok(found)
}

/// Where the name of a host leads.
#[derive(Debug, Default)]
pub(super) struct HostTarget {
    /// The CNAME targets on the way; empty where the name servers differ.
    pub(super) aliases: Vec<DomainName>,
    /// All addresses that some name server shows.
    pub(super) addresses: Vec<IpAddr>,
    /// How the answers of the name servers differ; `None` if they do not.
    pub(super) differ: Option<String>,
}

/// The aliases and all addresses of a host, also those beyond the number to which senders connect, and those that only some
/// name servers show: senders meet any of them. An error is one of A or AAAA, with its name, other than an absence.
pub(super) async fn all_addresses(
    dns: &dyn Dns,
    host: &DomainName,
) -> Result<HostTarget, (&'static str, DnsError)> {
    let (v6, v4) = tokio::join!(family(dns, host, Kind::Aaaa), family(dns, host, Kind::A));
    let (v6, v4) = (v6.map_err(|error| ("AAAA", error))?, v4.map_err(|error| ("A", error))?);
    let differ = v6.differ.or(v4.differ);
    let mut aliases = if v4.aliases.is_empty() { v6.aliases } else { v4.aliases };
    if differ.is_some() {
        aliases.clear();
    }
    Ok(HostTarget { aliases, addresses: [v6.addresses, v4.addresses].concat(), differ })
}

/// The addresses of one family. Where name servers differ about the name, those of all answers, also beyond an alias that only
/// some of them show.
async fn family(dns: &dyn Dns, host: &DomainName, kind: Kind) -> Result<HostTarget, DnsError> {
    let (mut found, mut names) = (HostTarget::default(), vec![host.clone()]);
    let mut at = 0;
    while let Some(name) = names.get(at).cloned() {
        at += 1;
        match dns.lookup(&name, kind).await {
            Ok(answer) => {
                found.addresses.extend(answer.addresses());
                found.aliases = answer.aliases;
            }
            Err(error) if error.is_absence() => {}
            Err(DnsError::Differ { shown, all, .. }) if names.len() <= ALIASES => {
                found.differ = Some(format!("the name servers do not agree yet: {shown}"));
                for data in all {
                    match data {
                        Data::A(ip) => found.addresses.push(ip.into()),
                        Data::Aaaa(ip) => found.addresses.push(ip.into()),
                        Data::Cname(target) if !names.contains(&target) => names.push(target),
                        _ => {}
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    let mut unique = Vec::new();
    found.addresses.retain(|address| {
        !unique.contains(address) && {
            unique.push(*address);
            true
        }
    });
    Ok(found)
}

async fn aliases(dns: &dyn Dns, domain: &DomainName) -> Result<Vec<(DomainName, DomainName)>, LookupError> {
    let of = |label: &'static str| async move {
        let Ok(name) = domain.below(label) else { return Ok(None) };
        Ok::<_, LookupError>(alias(dns, &name).await?.map(|target| (name, target)))
    };
    let [first, second, third] = LABELS;
    let (first, second, third) = tokio::try_join!(of(first), of(second), of(third))?;
    Ok([first, second, third].into_iter().flatten().collect())
}

async fn alias(dns: &dyn Dns, name: &DomainName) -> Result<Option<DomainName>, LookupError> {
    let answer = present(dns.lookup(name, Kind::Cname).await).map_err(failed("CNAME", name))?;
    Ok(answer.into_iter().flat_map(|answer| answer.records).find_map(|data| match data {
        Data::Cname(target) => Some(target),
        _ => None,
    }))
}

fn seconds(answer: &Answer) -> u32 {
    u32::try_from(answer.ttl.as_secs()).unwrap_or(u32::MAX)
}

async fn texts(dns: &dyn Dns, domain: &DomainName, label: &str) -> Result<Option<Answer>, LookupError> {
    match domain.below(label) {
        Ok(name) => present(dns.lookup(&name, Kind::Txt).await).map_err(failed("TXT", &name)),
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

#[cfg(test)]
mod target_tests;
