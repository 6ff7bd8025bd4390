//! Observes a domain from outside, as a sender does: resolves its records and fetches its policy.

use super::desired::LABELS;
use super::observed::{NoMailHosts, ObservedState, UnreadRecord};
use super::outside::{Collector, record_policy_copies};
use formats::limits::{ALIASES, POLICY_HOST_ADDRESSES};
use formats::sts_record::SelectError;
use formats::tlsrpt_record::TlsrptRecord;
use formats::{DomainName, Policy, StsRecord};
use net::address::has_route;
use net::dns::{Answer, Data, Dns, DnsError, Exchange, Kind, host_addresses};
use net::https::{FetchError, PolicyHosts, policy_host};
use std::net::IpAddr;

/// A DNS query that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {error}")]
pub struct LookupError {
    /// The record types, as in `TXT`.
    pub kind: &'static str,
    /// The name that was looked up.
    pub name: DomainName,
    /// Why the query failed.
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

/// Observes the current state of `domain`, at every name server of its zones and at every address of its policy host. `dns`
/// should query the zones' own name servers, since a cache returns old records. A DNS failure is an error and never counts
/// as an absent record, since a plan must not rest on missing data. A policy that can't be fetched or is invalid counts as
/// absent. `omitted` are the name servers and addresses that the operator has left out.
///
/// # Errors
///
/// If a lookup fails.
pub async fn observe(
    dns: &dyn Dns,
    hosts: &dyn PolicyHosts,
    domain: &DomainName,
    omitted: &[String],
) -> Result<ObservedState, LookupError> {
    let dns = Collector::over(dns);
    let mut seen = records(&dns, domain).await?;
    seen.outside.servers = dns.into_views(omitted);
    let addresses = seen.policy_host.1.clone();
    let (visited, unvisited) = addresses.split_at(addresses.len().min(POLICY_HOST_ADDRESSES));
    let (served, each) = tokio::join!(fetch(hosts, domain), hosts.fetch_each(domain, visited));
    match served {
        Ok(policy) => seen.served = Some(policy),
        Err((why, error)) => (seen.unserved, seen.fetch_error) = (Some(why), error),
    }
    seen.outside.unmailed = seen.unmailed;
    record_policy_copies(&mut seen, each, unvisited, omitted, has_route);
    Ok(seen)
}

/// Looks up the MX, `_mta-sts` and `_smtp._tls` records of `domain`, and the target of `mta-sts`.
async fn records(dns: &dyn Dns, domain: &DomainName) -> Result<ObservedState, LookupError> {
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
    Ok(ObservedState {
        mx: mx.hosts,
        mx_ttl: mx.ttl,
        unmailed: mx.why_none,
        record: record.map(|record| record.id),
        unread,
        rua: tlsrpt.map(|record| record.rua).unwrap_or_default(),
        aliases: aliases.agreed,
        differing_aliases: aliases.differing,
        policy_host: (policy_host.aliases, policy_host.addresses),
        policy_host_differs: policy_host.differ,
        ..ObservedState::default()
    })
}

/// The policy that a sender gets, or why it gets none, with the error if there is no file.
async fn fetch(hosts: &dyn PolicyHosts, domain: &DomainName) -> Result<Policy, (String, Option<FetchError>)> {
    let fetched = hosts.fetch(domain).await.map_err(|error| (error.to_string(), Some(error)))?;
    Policy::parse(&fetched.body).map_err(|error| (format!("the policy file is invalid: {error}"), None))
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

/// The MX hosts of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailHosts {
    /// The hosts, in the order of preference.
    pub hosts: Vec<DomainName>,
    /// TTL of their records, in seconds.
    pub ttl: u32,
    /// Why the domain has no MX hosts; `None` if it has some.
    pub why_none: Option<NoMailHosts>,
}

/// Looks up the MX hosts of a domain. A domain with addresses but no MX record is its own MX host (RFC 5321 §5.1).
///
/// # Errors
///
/// If a lookup fails; an absence is not an error.
pub async fn mail_hosts(dns: &dyn Dns, domain: &DomainName) -> Result<MailHosts, LookupError> {
    let absence = match dns.lookup(domain, Kind::Mx).await {
        Ok(answer) => {
            let hosts: Vec<DomainName> = answer.mx_hosts().collect();
            let is_null = answer.mx().iter().any(|mx| mx.exchange == Exchange::Null);
            let why = if is_null { NoMailHosts::NullMx } else { NoMailHosts::InvalidHosts };
            let why_none = hosts.is_empty().then_some(why);
            return Ok(MailHosts { hosts, ttl: seconds(&answer), why_none });
        }
        Err(error) if error.is_absence() => error,
        Err(error) => return Err(failed("MX", domain)(error)),
    };
    match host_addresses(dns, domain).await {
        Ok(found) => {
            let ttl = u32::try_from(found.ttl.as_secs()).unwrap_or(u32::MAX);
            Ok(MailHosts { hosts: vec![domain.clone()], ttl, why_none: None })
        }
        Err(error) if error.is_absence() => {
            let is_unknown = [&absence, &error].iter().all(|one| matches!(one, DnsError::NoSuchName(_)));
            let why = if is_unknown { NoMailHosts::NoSuchName } else { NoMailHosts::NoRecords };
            Ok(MailHosts { hosts: Vec::new(), ttl: 0, why_none: Some(why) })
        }
        Err(error) => Err(failed("A and AAAA", domain)(error)),
    }
}

/// The CNAME targets and addresses of `mta-sts`.
async fn policy_host_target(
    dns: &dyn Dns,
    domain: &DomainName,
    aliases: &Aliases,
) -> Result<HostTarget, LookupError> {
    let Ok(host) = policy_host(domain) else { return Ok(HostTarget::default()) };
    let alias: Vec<DomainName> =
        aliases.agreed.iter().filter(|(name, _)| *name == host).map(|(_, target)| target.clone()).collect();
    let mut found = match (all_addresses(dns, &host).await, alias.first()) {
        (Ok(found), _) => found,
        // The zone of another party does not answer, such as that of a host that was given up. Where the name leads is not
        // known then, and it counts as leading nowhere. The domain's own name servers show the alias, so plans go on.
        (Err(AddressError { error, both: true, .. }), Some(target)) => {
            let differ = format!("the addresses of {target} can't be looked up: {error}");
            HostTarget { differ: Some(differ), ..HostTarget::default() }
        }
        (Err(AddressError { kind, error, .. }), _) => return Err(failed(kind, &host)(error)),
    };
    if let Some((_, why)) = aliases.differing.iter().find(|(name, _)| *name == host) {
        found.differ.get_or_insert_with(|| why.clone());
    }
    if found.differ.is_some() {
        found.aliases.clear();
    } else if found.aliases.is_empty() {
        found.aliases = alias;
    }
    Ok(found)
}

/// The aliases and addresses that a host name leads to.
#[derive(Debug, Default)]
pub(super) struct HostTarget {
    /// The CNAME targets on the way; empty where the name servers differ.
    pub(super) aliases: Vec<DomainName>,
    /// All addresses that some name server shows.
    pub(super) addresses: Vec<IpAddr>,
    /// How the answers of the name servers differ; `None` if they do not.
    pub(super) differ: Option<String>,
}

/// Why the addresses of a host are not known: a lookup failed, other than by an absence.
#[derive(Debug)]
pub(super) struct AddressError {
    /// The record type, `A` or `AAAA`.
    pub(super) kind: &'static str,
    /// How its lookup failed.
    pub(super) error: DnsError,
    /// True if the lookup of the other address family failed as well.
    both: bool,
}

/// The aliases and all addresses of a host, also those beyond the number to which senders connect, and those that only some
/// name servers show: senders meet any of them.
pub(super) async fn all_addresses(dns: &dyn Dns, host: &DomainName) -> Result<HostTarget, AddressError> {
    let (v6, v4) = match tokio::join!(family(dns, host, Kind::Aaaa), family(dns, host, Kind::A)) {
        (Ok(v6), Ok(v4)) => (v6, v4),
        (Err(error), v4) => return Err(AddressError { kind: "AAAA", error, both: v4.is_err() }),
        (Ok(_), Err(error)) => return Err(AddressError { kind: "A", error, both: false }),
    };
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
                found.differ = Some(do_not_agree(&shown));
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

fn do_not_agree(shown: &str) -> String {
    format!("the name servers do not agree yet: {shown}")
}

/// The CNAME records at the names of [`LABELS`].
#[derive(Default)]
struct Aliases {
    /// Names with the target that all name servers show.
    agreed: Vec<(DomainName, DomainName)>,
    /// Names for which they show different targets, or only some of them show one, with how they differ.
    differing: Vec<(DomainName, String)>,
}

async fn aliases(dns: &dyn Dns, domain: &DomainName) -> Result<Aliases, LookupError> {
    let of = |label: &'static str| async move {
        let name = domain.below(label).ok()?;
        let found = dns.lookup(&name, Kind::Cname).await;
        Some((name, found))
    };
    let [first, second, third] = LABELS;
    let (first, second, third) = tokio::join!(of(first), of(second), of(third));
    let mut all = Aliases::default();
    for (name, found) in [first, second, third].into_iter().flatten() {
        match found {
            Err(DnsError::Differ { shown, .. }) => all.differing.push((name, do_not_agree(&shown))),
            found => {
                let answer = present(found).map_err(failed("CNAME", &name))?;
                let mut records = answer.into_iter().flat_map(|answer| answer.records);
                let target = records.find_map(|data| match data {
                    Data::Cname(target) => Some(target),
                    _ => None,
                });
                all.agreed.extend(target.map(|target| (name, target)));
            }
        }
    }
    Ok(all)
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

#[cfg(test)]
mod tests {
    use super::*;
    use net::BoxFuture;
    use net::dns::{Absence, Mx, Security};
    use net::https::Fetched;
    use std::time::Duration;

    /// A domain with this answer for MX, and this error for everything else.
    struct Only(Option<Exchange>, DnsError);

    impl Dns for Only {
        fn lookup<'a>(&'a self, _: &'a DomainName, kind: Kind) -> BoxFuture<'a, Result<Answer, DnsError>> {
            let answer = self.0.clone().filter(|_| kind == Kind::Mx).map(|exchange| Answer {
                records: vec![Data::Mx(Mx { preference: 0, exchange })],
                ttl: Duration::from_secs(60),
                security: Security::Insecure,
                aliases: Vec::new(),
                is_split: false,
            });
            Box::pin(std::future::ready(answer.ok_or(self.1.clone())))
        }
    }

    struct NoPolicy;

    impl PolicyHosts for NoPolicy {
        fn fetch<'a>(&'a self, _: &'a DomainName) -> BoxFuture<'a, Result<Fetched, FetchError>> {
            Box::pin(std::future::ready(Err(FetchError::Status(404))))
        }
    }

    #[tokio::test]
    async fn why_a_domain_receives_no_mail_is_observed() {
        let absence = Absence { security: Security::Insecure, ttl: None };
        let (no_name, no_record) = (DnsError::NoSuchName(absence), DnsError::NoSuchRecord(absence));
        let host = Exchange::Host(DomainName::parse("mx.a.example").unwrap());
        for (dns, expected) in [
            (Only(None, no_name.clone()), Some(NoMailHosts::NoSuchName)),
            (Only(None, no_record), Some(NoMailHosts::NoRecords)),
            (Only(Some(Exchange::Null), no_name.clone()), Some(NoMailHosts::NullMx)),
            (
                Only(Some(Exchange::Invalid("192.0.2.1".into())), no_name.clone()),
                Some(NoMailHosts::InvalidHosts),
            ),
            (Only(Some(host), no_name), None),
        ] {
            let seen = observe(&dns, &NoPolicy, &DomainName::parse("a.example").unwrap(), &[]).await.unwrap();
            assert_eq!((seen.unmailed, seen.mx.is_empty()), (expected, expected.is_some()));
            assert_eq!(seen.fetch_error, Some(FetchError::Status(404)));
        }
        let failing = Only(None, DnsError::Timeout);
        assert!(observe(&failing, &NoPolicy, &DomainName::parse("a.example").unwrap(), &[]).await.is_err());
    }
}
