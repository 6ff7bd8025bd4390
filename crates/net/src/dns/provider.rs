//! Changes a zone through the interface of the provider that runs it, by HTTPS.
//!
//! The dialects are those of a library; here is what all of them have in common: only records of ours are
//! replaced, what is there already is left alone, and what was taken away comes back when its successor is refused.

use super::update::Replacement;
use crate::BoxFuture;
use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, Error};
use formats::DomainName;
use formats::limits::PROVIDER_TIME;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Providers whose interface is spoken. Each was tried with a server that behaves as its documentation says, none
/// with the real thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Cloudflare, interface version 4.
    Cloudflare,
    /// deSEC.
    DeSec,
    /// DigitalOcean, interface version 2.
    DigitalOcean,
    /// Hetzner, the interface of its cloud.
    Hetzner,
    /// Amazon Route 53, interface of 2013-04-01.
    Route53,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Cloudflare, Self::DeSec, Self::DigitalOcean, Self::Hetzner, Self::Route53];

    /// As it is written in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cloudflare => "cloudflare",
            Self::DeSec => "desec",
            Self::DigitalOcean => "digitalocean",
            Self::Hetzner => "hetzner",
            Self::Route53 => "route53",
        }
    }

    /// Takes the same.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.as_str() == text)
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cloudflare => "Cloudflare",
            Self::DeSec => "deSEC",
            Self::DigitalOcean => "DigitalOcean",
            Self::Hetzner => "Hetzner",
            Self::Route53 => "Route 53",
        })
    }
}

/// A zone at a provider.
#[derive(Clone)]
pub struct Provider {
    updater: DnsUpdater,
    service: Service,
    zone: DomainName,
}

/// Why a zone was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// What is in the key file is no key of this provider.
    #[error("{0} can't be used with this key file: {1}")]
    Key(Service, String),
    /// It does not know the key.
    #[error("{0} does not take the key: it is wrong, has expired, or may not do this")]
    Unauthorized(Service),
    /// It does not know the zone.
    #[error("{0} knows no zone {1}, or does not show it to this key")]
    NoZone(Service, DomainName),
    /// It does not want to, or can't be reached.
    #[error("{0}: {1}")]
    Refused(Service, String),
    /// It takes too long.
    #[error("{0} does not answer in time")]
    Timeout(Service),
    /// A record was taken away for another, which was refused, and it could not be put back.
    #[error("{error}; and {} could not be put back ({again})", lost.join(" and "))]
    Torn {
        /// Why the new one was refused.
        error: Box<ProviderError>,
        /// Why the old one was.
        again: Box<ProviderError>,
        /// What is gone, in zone-file form.
        lost: Vec<String>,
    },
}

/// For one request.
const REQUEST_TIME: Duration = Duration::from_secs(30);

impl Provider {
    /// With what its key file holds: a token alone, or for Route 53 the lines `aws_access_key_id = …`,
    /// `aws_secret_access_key = …` and, where there is one, `aws_session_token = …`. `zone_id` picks one of several zones
    /// of the same name at Route 53.
    pub fn new(
        service: Service,
        key: &str,
        zone: DomainName,
        zone_id: Option<String>,
    ) -> Result<Self, ProviderError> {
        let fault = |why: &str| ProviderError::Key(service, why.to_owned());
        let token = || match key.trim() {
            "" => Err(fault("it is empty")),
            text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text),
            _ => Err(fault("it holds more than one token")),
        };
        let time = Some(REQUEST_TIME);
        let made = match service {
            Service::Cloudflare => DnsUpdater::new_cloudflare(token()?, time),
            Service::DeSec => DnsUpdater::new_desec(token()?, time),
            Service::DigitalOcean => DnsUpdater::new_digitalocean(token()?, time),
            Service::Hetzner => DnsUpdater::new_hetzner(token()?, time),
            Service::Route53 => DnsUpdater::new_route53(route53(key, zone_id).map_err(|why| fault(&why))?),
        };
        let updater = made.map_err(|error| fault(&error.to_string()))?;
        Ok(Self { updater, service, zone })
    }

    /// Puts it there, where it is not there yet. Returns what stood there before and is replaced, in zone-file form.
    pub fn replace<'a>(
        &'a self,
        name: &'a DomainName,
        new: &'a Replacement,
        ttl: u32,
    ) -> BoxFuture<'a, Result<Vec<String>, ProviderError>> {
        Box::pin(async move {
            let work = self.replace_in_time(name, new, ttl);
            tokio::time::timeout(PROVIDER_TIME, work)
                .await
                .unwrap_or(Err(ProviderError::Timeout(self.service)))
        })
    }

    async fn replace_in_time(
        &self,
        name: &DomainName,
        new: &Replacement,
        ttl: u32,
    ) -> Result<Vec<String>, ProviderError> {
        let mut old = Vec::new();
        let mut changes = Vec::new();
        for kind in kinds(new) {
            let listed = self.updater.list_rrset(name.as_str(), *kind, self.zone.as_str()).await;
            let there = listed.map_err(|error| self.explain(error))?;
            let (ours, others): (Vec<_>, Vec<_>) =
                there.iter().cloned().partition(|record| is_ours(record, new));
            old.extend(ours.iter().map(|record| line(name, ttl, record)));
            let wanted = [others, records(*kind, new)].concat();
            if !are_same(&there, &wanted) {
                changes.push(Change { kind: *kind, before: there, after: wanted });
            }
        }
        // An alias and addresses can't stand at one name, so what goes away goes first.
        changes.sort_by_key(|change| !change.after.is_empty());
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = self.set(name, change.kind, ttl, &change.after).await {
                return Err(self.put_back(name, ttl, changes.get(..done).unwrap_or_default(), error).await);
            }
        }
        Ok(old)
    }

    async fn set(
        &self,
        name: &DomainName,
        kind: DnsRecordType,
        ttl: u32,
        records: &[DnsRecord],
    ) -> Result<(), ProviderError> {
        let (name, zone) = (name.as_str(), self.zone.as_str());
        let set = self.updater.set_rrset(name, kind, ttl, records.to_vec(), zone).await;
        set.map_err(|error| self.explain(error))
    }

    /// Undoes what was done, and says what went wrong.
    async fn put_back(
        &self,
        name: &DomainName,
        ttl: u32,
        done: &[Change],
        error: ProviderError,
    ) -> ProviderError {
        for change in done.iter().rev() {
            if let Err(again) = self.set(name, change.kind, ttl, &change.before).await {
                let lost = change.before.iter().map(|record| line(name, ttl, record)).collect();
                return ProviderError::Torn { error: Box::new(error), again: Box::new(again), lost };
            }
        }
        error
    }

    fn explain(&self, error: Error) -> ProviderError {
        match error {
            Error::Unauthorized => ProviderError::Unauthorized(self.service),
            Error::NotFound => ProviderError::NoZone(self.service, self.zone.clone()),
            other => ProviderError::Refused(self.service, one_line(&other.to_string())),
        }
    }
}

/// All records of a kind at a name, before and after.
struct Change {
    kind: DnsRecordType,
    before: Vec<DnsRecord>,
    after: Vec<DnsRecord>,
}

fn kinds(new: &Replacement) -> &'static [DnsRecordType] {
    match new {
        Replacement::Txt { .. } => &[DnsRecordType::TXT],
        Replacement::Alias(_) | Replacement::Addresses(_) => {
            &[DnsRecordType::A, DnsRecordType::AAAA, DnsRecordType::CNAME]
        }
    }
}

fn is_ours(record: &DnsRecord, new: &Replacement) -> bool {
    match (record, new) {
        (DnsRecord::TXT(text), Replacement::Txt { prefix, .. }) => text.starts_with(prefix),
        (DnsRecord::TXT(_), _) => false,
        _ => true,
    }
}

/// What is to stand there of a kind.
fn records(kind: DnsRecordType, new: &Replacement) -> Vec<DnsRecord> {
    match (kind, new) {
        (DnsRecordType::TXT, Replacement::Txt { value, .. }) => {
            value.iter().cloned().map(DnsRecord::TXT).collect()
        }
        (DnsRecordType::CNAME, Replacement::Alias(target)) => vec![DnsRecord::CNAME(format!("{target}."))],
        (DnsRecordType::A | DnsRecordType::AAAA, Replacement::Addresses(all)) => {
            let record = |address: &IpAddr| match address {
                IpAddr::V4(address) => DnsRecord::A(*address),
                IpAddr::V6(address) => DnsRecord::AAAA(*address),
            };
            all.iter().map(record).filter(|record| record.as_type() == kind).collect()
        }
        _ => Vec::new(),
    }
}

/// The same records, in whatever order; names with and without the last dot are the same.
fn are_same(there: &[DnsRecord], wanted: &[DnsRecord]) -> bool {
    let is_in = |record: &DnsRecord, all: &[DnsRecord]| all.iter().any(|other| data(other) == data(record));
    there.len() == wanted.len()
        && there.iter().all(|record| is_in(record, wanted))
        && wanted.iter().all(|record| is_in(record, there))
}

fn data(record: &DnsRecord) -> String {
    match record {
        DnsRecord::A(address) => address.to_string(),
        DnsRecord::AAAA(address) => address.to_string(),
        DnsRecord::CNAME(target) => format!("{}.", target.trim_end_matches('.').to_ascii_lowercase()),
        DnsRecord::TXT(text) => format!("\"{text}\""),
        other => format!("{other:?}"),
    }
}

/// A record in zone-file form; interfaces tell the same TTL for all, or none.
fn line(name: &DomainName, ttl: u32, record: &DnsRecord) -> String {
    format!("{name}. {ttl} IN {} {}", record.as_type().as_str(), data(record))
}

/// What a provider says, fit for a log: it is foreign text.
fn one_line(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    flat.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The usual file of credentials; sections are passed over, and the first of each kind counts.
fn route53(
    text: &str,
    hosted_zone_id: Option<String>,
) -> Result<dns_update::providers::route53::Route53Config, String> {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim().eq_ignore_ascii_case(key) && !value.trim().is_empty())
                .then(|| value.trim().to_owned())
        })
    };
    let needed = |key: &str| value(key).ok_or_else(|| format!("it has no line `{key} = …`"));
    Ok(dns_update::providers::route53::Route53Config {
        access_key_id: needed("aws_access_key_id")?,
        secret_access_key: needed("aws_secret_access_key")?,
        session_token: value("aws_session_token"),
        region: None,
        hosted_zone_id,
        private_zone_only: None,
        endpoint: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn services_come_back_from_their_words() {
        for service in Service::ALL {
            assert_eq!(Service::parse(service.as_str()), Some(service));
        }
        assert_eq!(Service::parse("Cloudflare"), None);
    }

    #[test]
    fn keys_that_can_not_be_used_are_told_and_not_shown() {
        for (service, key, told) in [
            (Service::Cloudflare, " \n", "it is empty"),
            (Service::DeSec, "two tokens", "more than one token"),
            (Service::Route53, "aws_access_key_id = AKIA", "no line `aws_secret_access_key = …`"),
            (Service::Route53, "SECRET", "no line `aws_access_key_id = …`"),
        ] {
            let error = Provider::new(service, key, name("example.org"), None).err().unwrap().to_string();
            assert!(
                error.contains(told) && !error.contains("SECRET") && !error.contains("two tokens"),
                "{error}"
            );
        }
        let file = "[default]\naws_access_key_id=AKIA\naws_secret_access_key = a/b=c\n";
        let read = route53(file, None).unwrap();
        assert_eq!((read.access_key_id.as_str(), read.secret_access_key.as_str()), ("AKIA", "a/b=c"));
    }

    #[test]
    fn texts_of_others_are_not_ours() {
        let new = Replacement::Txt { prefix: "v=STSv1", value: None };
        assert!(is_ours(&DnsRecord::TXT("v=STSv1; id=1;".into()), &new));
        assert!(!is_ours(&DnsRecord::TXT("site=verification".into()), &new));
    }

    #[test]
    fn records_are_compared_by_what_they_say() {
        let alias = |text: &str| vec![DnsRecord::CNAME(text.to_owned())];
        assert!(are_same(&alias("Host.example.net"), &alias("host.example.net.")));
        assert!(!are_same(&alias("a.example.net"), &alias("b.example.net")));
        assert!(!are_same(&alias("a.example.net"), &[]));
        let txt = |text: &str| DnsRecord::TXT(text.to_owned());
        assert!(are_same(&[txt("a"), txt("b")], &[txt("b"), txt("a")]));
        assert!(!are_same(&[txt("a"), txt("a")], &[txt("a"), txt("b")]));
    }

    #[test]
    fn what_providers_say_is_one_bounded_line() {
        let told = one_line(&format!("HTTP 500:\n<html>\u{1b}[31m{}", "x".repeat(1000)));
        assert!(!told.contains('\n') && !told.contains('\u{1b}') && told.len() <= 400, "{told}");
    }
}
