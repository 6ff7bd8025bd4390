//! Changes a zone through the interface of the provider that runs it, by HTTPS.
//!
//! This module holds what the five dialects have in common: only records of ours are replaced, what is there already
//! is left alone, and what was taken away is put back when its successor is refused. A submodule for each provider
//! lists and sets one record set; `http` sends a request, and `record` holds what is compared and sent. Input comes
//! from `operations::publishers`.

mod cloudflare;
mod desec;
mod digitalocean;
mod hetzner;
mod http;
mod record;
mod route53;

use super::update::Replacement;
use crate::BoxFuture;
use crate::clock::{Clock, SystemClock};
use formats::DomainName;
use formats::limits::{PROVIDER_PAGES, PROVIDER_TIME};
use http::{Api, Http, Transport};
use record::{Data, Kind, Record};
use route53::AwsKey;
use std::fmt;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

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
    service: Service,
    key: Key,
    zone: DomainName,
    zone_id: Option<String>,
    clock: Arc<dyn Clock>,
}

/// What a provider knows us by.
#[derive(Clone)]
enum Key {
    Token(String),
    Aws(AwsKey),
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

/// Why one request, or one step made of requests, failed.
#[derive(Debug)]
enum Fault {
    /// The key is not accepted (HTTP 401).
    Unauthorized,
    /// The zone or record is not known (HTTP 404).
    NotFound,
    /// Another status that is not a success, with what the provider says.
    Refused { status: u16, text: String },
    /// No answer, or one that can't be used.
    Other(String),
    /// The time for the whole change is over.
    Timeout,
}

impl Fault {
    /// A list with more pages than are read.
    fn too_long() -> Self {
        Self::Other(format!("its list has over {PROVIDER_PAGES} pages"))
    }
}

/// All records of one type at one name.
#[derive(Clone, Copy)]
struct RecordSet<'a> {
    /// The zone as the provider's interface names it: see [`Dialect::find_zone`].
    zone: &'a str,
    name: &'a DomainName,
    kind: Kind,
}

/// The interface of one provider.
trait Dialect: Send + Sync {
    /// How the interface names the zone that `record` is in: an identifier or a domain name.
    fn find_zone<'a>(
        &'a self,
        zone: &'a DomainName,
        record: &'a DomainName,
    ) -> BoxFuture<'a, Result<String, Fault>>;

    /// The records at a place.
    fn list<'a>(&'a self, place: &'a RecordSet<'a>) -> BoxFuture<'a, Result<Vec<Record>, Fault>>;

    /// Makes these the only records at a place. `ttl` is in seconds.
    fn set<'a>(
        &'a self,
        place: &'a RecordSet<'a>,
        ttl: u32,
        records: &'a [Record],
    ) -> BoxFuture<'a, Result<(), Fault>>;

    /// Whether a [`Dialect::set`] that fails has changed nothing.
    fn is_atomic(&self) -> bool;
}

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
        let key = match (service, key.trim()) {
            (Service::Route53, file) => Key::Aws(AwsKey::read(file).map_err(|why| fault(&why))?),
            (_, "") => return Err(fault("it is empty")),
            (_, text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => Key::Token(text.to_owned()),
            _ => return Err(fault("it holds more than one token")),
        };
        Ok(Self { service, key, zone, zone_id, clock: Arc::new(SystemClock) })
    }

    /// Puts it there, where it is not there yet. Returns what stood there before and is replaced, in zone-file form.
    pub fn replace<'a>(
        &'a self,
        name: &'a DomainName,
        new: &'a Replacement,
        ttl: u32,
    ) -> BoxFuture<'a, Result<Vec<String>, ProviderError>> {
        Box::pin(async move {
            let dialect = Http::system(self.clock.clone())
                .map_err(Fault::Other)
                .and_then(|transport| self.dialect(Box::new(transport)))
                .map_err(|error| self.explain(error))?;
            self.replace_by(dialect.as_ref(), name, new, ttl).await
        })
    }

    fn dialect(&self, transport: Box<dyn Transport>) -> Result<Box<dyn Dialect>, Fault> {
        let token = match &self.key {
            Key::Token(token) => token,
            Key::Aws(key) => {
                let (key, zone_id) = (key.clone(), self.zone_id.clone());
                return Ok(Box::new(route53::Route53::new(transport, key, zone_id, self.clock.clone())));
            }
        };
        let (host, word) = match self.service {
            Service::Cloudflare => (cloudflare::HOST, "Bearer"),
            Service::DeSec => (desec::HOST, "Token"),
            Service::DigitalOcean => (digitalocean::HOST, "Bearer"),
            Service::Hetzner => (hetzner::HOST, "Bearer"),
            Service::Route53 => (route53::HOST, ""),
        };
        let api = Api::with_token(transport, host, word, token)?;
        Ok(match self.service {
            Service::Cloudflare => Box::new(cloudflare::Cloudflare(api)),
            Service::DeSec => Box::new(desec::DeSec(api)),
            Service::DigitalOcean => Box::new(digitalocean::DigitalOcean(api)),
            Service::Hetzner => Box::new(hetzner::Hetzner(api)),
            Service::Route53 => return Err(Fault::Other("a token is not a key of it".to_owned())),
        })
    }

    async fn replace_by(
        &self,
        dialect: &dyn Dialect,
        name: &DomainName,
        new: &Replacement,
        ttl: u32,
    ) -> Result<Vec<String>, ProviderError> {
        let deadline = Instant::now() + PROVIDER_TIME;
        let look = look(dialect, &self.zone, name, new);
        let looked = timeout_at(deadline, look).await.unwrap_or(Err(Fault::Timeout));
        let (zone, mut changes) = looked.map_err(|error| self.explain(error))?;
        let ours = changes.iter().flat_map(|change| &change.before);
        let old = ours.filter(|record| is_ours(&record.data, new)).map(|record| line(name, ttl, record));
        let old = old.collect();
        changes.retain(|change| !are_same(&change.before, &change.after));
        // An alias and addresses can't stand at one name, so what goes away goes first.
        changes.sort_by_key(|change| !change.after.is_empty());
        for (done, change) in changes.iter().enumerate() {
            let place = RecordSet { zone: &zone, name, kind: change.kind };
            let set = timeout_at(deadline, dialect.set(&place, ttl, &change.after)).await;
            if let Err(error) = set.unwrap_or(Err(Fault::Timeout)) {
                // After a failure on the way, nobody knows how much of the last one was done.
                let is_whole = dialect.is_atomic() && !matches!(error, Fault::Timeout);
                let undone = changes.get(..if is_whole { done } else { done + 1 }).unwrap_or_default();
                return Err(self.put_back(dialect, &place, ttl, undone, self.explain(error)).await);
            }
        }
        Ok(old)
    }

    /// Undoes what was done, in a time of its own, and says what went wrong.
    async fn put_back(
        &self,
        dialect: &dyn Dialect,
        place: &RecordSet<'_>,
        ttl: u32,
        done: &[Change],
        error: ProviderError,
    ) -> ProviderError {
        let deadline = Instant::now() + PROVIDER_TIME;
        for change in done.iter().rev() {
            let place = RecordSet { kind: change.kind, ..*place };
            let set = timeout_at(deadline, dialect.set(&place, ttl, &change.before)).await;
            if let Err(again) = set.unwrap_or(Err(Fault::Timeout)) {
                let lost: Vec<String> =
                    change.before.iter().map(|record| line(place.name, ttl, record)).collect();
                if lost.is_empty() {
                    continue;
                }
                let again = Box::new(self.explain(again));
                return ProviderError::Torn { error: Box::new(error), again, lost };
            }
        }
        error
    }

    fn explain(&self, error: Fault) -> ProviderError {
        let refused = |why: &str| ProviderError::Refused(self.service, one_line(why));
        match error {
            Fault::Unauthorized => ProviderError::Unauthorized(self.service),
            Fault::NotFound => ProviderError::NoZone(self.service, self.zone.clone()),
            Fault::Refused { status, text } if text.is_empty() => refused(&format!("HTTP {status}")),
            Fault::Refused { status, text } => refused(&format!("HTTP {status}: {text}")),
            Fault::Other(why) => refused(&why),
            Fault::Timeout => ProviderError::Timeout(self.service),
        }
    }
}

/// All records of a type at a name, before and after.
struct Change {
    kind: Kind,
    before: Vec<Record>,
    after: Vec<Record>,
}

/// The zone, and what is there and is to be there of each type that matters.
async fn look(
    dialect: &dyn Dialect,
    zone: &DomainName,
    name: &DomainName,
    new: &Replacement,
) -> Result<(String, Vec<Change>), Fault> {
    let zone = dialect.find_zone(zone, name).await?;
    let mut changes = Vec::new();
    for kind in kinds(new) {
        let before = dialect.list(&RecordSet { zone: &zone, name, kind: *kind }).await?;
        let others = before.iter().filter(|record| !is_ours(&record.data, new)).cloned();
        let after = others.chain(data(*kind, new).into_iter().map(Record::new)).collect();
        changes.push(Change { kind: *kind, before, after });
    }
    Ok((zone, changes))
}

fn kinds(new: &Replacement) -> &'static [Kind] {
    match new {
        Replacement::Txt { .. } => &[Kind::Txt],
        Replacement::Alias(_) | Replacement::Addresses(_) => &[Kind::A, Kind::Aaaa, Kind::Cname],
    }
}

fn is_ours(data: &Data, new: &Replacement) -> bool {
    match (data, new) {
        (Data::Txt(text), Replacement::Txt { prefix, .. }) => text.starts_with(prefix.as_bytes()),
        (Data::Txt(_), _) => false,
        _ => true,
    }
}

/// What is to stand there of a type.
fn data(kind: Kind, new: &Replacement) -> Vec<Data> {
    match (kind, new) {
        (Kind::Txt, Replacement::Txt { value, .. }) => {
            value.iter().map(|value| Data::Txt(value.as_bytes().to_vec())).collect()
        }
        (Kind::Cname, Replacement::Alias(target)) => vec![Data::alias(target.as_str())],
        (Kind::A | Kind::Aaaa, Replacement::Addresses(all)) => {
            let all = all.iter().copied().map(Data::address);
            all.filter(|data| data.kind() == kind).collect()
        }
        _ => Vec::new(),
    }
}

/// The same records, in whatever order.
fn are_same(there: &[Record], wanted: &[Record]) -> bool {
    let is_in = |record: &Record, all: &[Record]| all.iter().any(|other| other.data == record.data);
    there.len() == wanted.len()
        && there.iter().all(|record| is_in(record, wanted))
        && wanted.iter().all(|record| is_in(record, there))
}

/// For interfaces with single records: those to delete, and those to create. A record that stands twice counts twice.
fn differences<'a>(there: &'a [Record], wanted: &'a [Record]) -> (Vec<&'a Record>, Vec<&'a Record>) {
    let mut gone: Vec<&Record> = there.iter().collect();
    let mut new = Vec::new();
    for record in wanted {
        match gone.iter().position(|other| other.data == record.data) {
            Some(index) => {
                gone.swap_remove(index);
            }
            None => new.push(record),
        }
    }
    (gone, new)
}

/// A record in zone-file form; interfaces tell the same TTL for all, or none.
fn line(name: &DomainName, ttl: u32, record: &Record) -> String {
    let kind = record.data.kind().as_str();
    format!("{name}. {ttl} IN {kind} {}", record.data.text(record::Escapes::Decimal))
}

/// An identifier that a provider gives, fit to be a part of a path.
fn segment(id: &str) -> Result<&str, Fault> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !id.is_empty() && id.bytes().all(is_fit) {
        return Ok(id);
    }
    Err(Fault::Other(format!("{id:?} is not a valid identifier")))
}

/// What a provider says, fit for a log: it is foreign text.
fn one_line(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    flat.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::http::script::Script;
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
    }

    fn txt(text: &str) -> Record {
        Record::new(Data::Txt(text.as_bytes().to_vec()))
    }

    #[test]
    fn texts_of_others_are_not_ours() {
        let new = Replacement::Txt { prefix: "v=STSv1", value: None };
        assert!(is_ours(&txt("v=STSv1; id=1;").data, &new));
        assert!(!is_ours(&txt("site=verification").data, &new));
    }

    #[test]
    fn records_are_compared_by_what_they_say() {
        let alias = |text: &str| vec![Record::new(Data::alias(text))];
        assert!(are_same(&alias("Host.example.net"), &alias("host.example.net.")));
        assert!(!are_same(&alias("a.example.net"), &alias("b.example.net")));
        assert!(!are_same(&alias("a.example.net"), &[]));
        assert!(are_same(&[txt("a"), txt("b")], &[txt("b"), txt("a")]));
        assert!(!are_same(&[txt("a"), txt("a")], &[txt("a"), txt("b")]));
        let (there, wanted) = ([txt("a"), txt("a"), txt("b")], [txt("a"), txt("c")]);
        let (gone, new) = differences(&there, &wanted);
        assert_eq!((gone.len(), new), (2, vec![&txt("c")]));
    }

    #[tokio::test]
    async fn a_text_that_was_taken_away_comes_back_when_the_new_one_is_refused() {
        let provider = Provider::new(Service::DigitalOcean, "t", name("example.org"), None).unwrap();
        let old = r#"{"domain_records":[{"id":1,"type":"TXT","name":"_mta-sts","data":"v=STSv1; id=1;"}]}"#;
        let none = r#"{"domain_records":[]}"#;
        let new = Replacement::Txt { prefix: "v=STSv1", value: Some("v=STSv1; id=2;".to_owned()) };
        for (last, is_torn) in [(201, false), (422, true)] {
            let script =
                Script::new([(200, old), (200, old), (204, ""), (422, "no"), (200, none), (last, "no")]);
            let dialect = provider.dialect(Box::new(script.clone())).unwrap();
            let name = name("_mta-sts.example.org");
            let error = provider.replace_by(dialect.as_ref(), &name, &new, 300).await.unwrap_err();
            assert_eq!(matches!(error, ProviderError::Torn { .. }), is_torn, "{error}");
            assert!(error.to_string().starts_with("DigitalOcean: HTTP 422: no"), "{error}");
            assert!(script.bodies()[5].contains("v=STSv1; id=1;"), "{:?}", script.bodies());
        }
    }

    #[test]
    fn what_providers_say_is_one_bounded_line() {
        let told = one_line(&format!("HTTP 500:\n<html>\u{1b}[31m{}", "x".repeat(1000)));
        assert!(!told.contains('\n') && !told.contains('\u{1b}') && told.len() <= 400, "{told}");
    }
}
