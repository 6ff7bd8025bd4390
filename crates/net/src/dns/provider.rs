//! Changes a zone through the HTTPS API of its DNS provider. `operations::publishers` gives the records to publish.
//!
//! This module holds what the five providers have in common: only our own records are replaced, records that already
//! match are not changed, and removed records are restored when the provider rejects their replacements. A submodule
//! for each provider lists and sets one record set. The submodule `http` sends requests, and `record` parses and
//! formats record data.

mod cloudflare;
mod desec;
mod digitalocean;
mod hetzner;
mod http;
mod record;
mod route53;

use super::update::{OldData, Previous, Replacement, found};
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

/// The supported DNS providers. Each was tested with a simulated server that follows the provider's documentation, not
/// with the real service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Cloudflare, API version 4.
    Cloudflare,
    /// deSEC, API version 1.
    DeSec,
    /// DigitalOcean, API version 2.
    DigitalOcean,
    /// Hetzner, Cloud API version 1.
    Hetzner,
    /// Amazon Route 53, API version 2013-04-01.
    Route53,
}

impl Service {
    /// All supported providers.
    pub const ALL: [Self; 5] =
        [Self::Cloudflare, Self::DeSec, Self::DigitalOcean, Self::Hetzner, Self::Route53];

    /// The provider's name in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cloudflare => "cloudflare",
            Self::DeSec => "desec",
            Self::DigitalOcean => "digitalocean",
            Self::Hetzner => "hetzner",
            Self::Route53 => "route53",
        }
    }

    /// Parses the name that [`Service::as_str`] returns; `None` for other text.
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

/// A zone at a DNS provider, with the key to change it.
#[derive(Clone)]
pub struct Provider {
    service: Service,
    key: Key,
    zone: DomainName,
    zone_id: Option<String>,
    clock: Arc<dyn Clock>,
}

/// The credentials for a provider's API.
#[derive(Clone)]
enum Key {
    Token(String),
    Aws(AwsKey),
}

/// Why a zone was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The key file does not contain a valid key for this provider.
    #[error("the key file for {0} is invalid: {1}")]
    Key(Service, String),
    /// The provider rejected the key (HTTP 401).
    #[error("{0} rejected the key: it is wrong, has expired, or lacks the permission")]
    Unauthorized(Service),
    /// The provider does not have the zone, or hides it from this key (HTTP 404).
    #[error("{0} does not have the zone {1}, or this key can't access it")]
    NoZone(Service, DomainName),
    /// The provider refused the request.
    #[error("{0}: {1}")]
    Refused(Service, String),
    /// The provider can't be reached, or sent an invalid response.
    #[error("{0}: {1}")]
    NoAnswer(Service, String),
    /// Another program changed the records while they were being replaced, so nothing was changed: the records found, in
    /// zone-file format.
    #[error("another program changed the records at {0} meanwhile, so nothing was changed: {found}", found = found(.1))]
    Changed(Service, Vec<String>),
    /// The change took longer than [`PROVIDER_TIME`].
    #[error("{0} did not answer in time")]
    Timeout(Service),
    /// A change failed partway, and the records could not be restored.
    #[error("{error}; and {} ({again})", unrestored(lost))]
    RollbackFailed {
        /// Why the change failed.
        error: Box<ProviderError>,
        /// Why the old records could not be restored.
        again: Box<ProviderError>,
        /// The records that may be missing now, in zone-file format.
        lost: Vec<String>,
    },
}

impl ProviderError {
    /// True if it is certain that the zone is as it was. What was changed before such an error has been restored.
    pub fn is_unmade(&self) -> bool {
        match self {
            Self::Key(..)
            | Self::Unauthorized(_)
            | Self::NoZone(..)
            | Self::Refused(..)
            | Self::Changed(..) => true,
            Self::NoAnswer(..) | Self::Timeout(_) | Self::RollbackFailed { .. } => false,
        }
    }
}

/// What could not be restored, in words.
fn unrestored(lost: &[String]) -> String {
    match lost.is_empty() {
        true => "the new records could not be removed again".to_owned(),
        false => format!("{} could not be restored", lost.join(" and ")),
    }
}

/// Why a request, or a step of several requests, failed.
#[derive(Debug)]
enum Fault {
    /// The key was rejected (HTTP 401).
    Unauthorized,
    /// The zone or record does not exist (HTTP 404).
    NotFound,
    /// Another error status, with the provider's explanation.
    Refused { status: u16, text: String },
    /// No response, or an invalid one.
    Other(String),
    /// The time limit of the whole change has passed.
    Timeout,
}

impl Fault {
    /// A list has more than [`PROVIDER_PAGES`] pages.
    fn too_long() -> Self {
        Self::Other(format!("the record or zone list has more than {PROVIDER_PAGES} pages"))
    }
}

/// All records of one type at one name.
#[derive(Clone, Copy)]
struct RecordSet<'a> {
    /// The zone's identifier in the provider's API: see [`Dialect::find_zone`].
    zone: &'a str,
    name: &'a DomainName,
    kind: Kind,
}

/// The API of one provider.
trait Dialect: Send + Sync {
    /// The API's identifier of the zone that `record` is in, which may be a domain name. `zone` is the configured zone.
    fn find_zone<'a>(
        &'a self,
        zone: &'a DomainName,
        record: &'a DomainName,
    ) -> BoxFuture<'a, Result<String, Fault>>;

    /// Lists the records of a set; empty if there is no such set.
    fn list<'a>(&'a self, record_set: &'a RecordSet<'a>) -> BoxFuture<'a, Result<Vec<Record>, Fault>>;

    /// Replaces all records of a set with `records`. `ttl` is in seconds.
    fn set<'a>(
        &'a self,
        record_set: &'a RecordSet<'a>,
        ttl: u32,
        records: &'a [Record],
    ) -> BoxFuture<'a, Result<(), Fault>>;
}

impl Provider {
    /// Creates a client for a zone. `key` is the content of the key file: a token, or for Route 53 the lines
    /// `aws_access_key_id = …`, `aws_secret_access_key = …` and optionally `aws_session_token = …`. At Route 53,
    /// `zone_id` selects one of several zones with the same name.
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

    /// Reads the records at `name` that a replacement like this one replaces. `ttl` is that of the lines, in seconds.
    pub fn read<'a>(
        &'a self,
        name: &'a DomainName,
        like: &'a Replacement,
        ttl: u32,
    ) -> BoxFuture<'a, Result<Previous, ProviderError>> {
        Box::pin(async move {
            let dialect = self.system()?;
            let (_, changes) = self.plan(dialect.as_ref(), name, like).await?;
            Ok(previous(name, like, ttl, &changes))
        })
    }

    /// Publishes `new` at `name`, unless it is already published. `ttl` is in seconds. Returns our records that were
    /// there before.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Changed`] if our records differ from `expected`, where that is given.
    pub fn replace<'a>(
        &'a self,
        name: &'a DomainName,
        new: &'a Replacement,
        expected: Option<&'a Previous>,
        ttl: u32,
    ) -> BoxFuture<'a, Result<Previous, ProviderError>> {
        Box::pin(async move {
            let dialect = self.system()?;
            self.replace_by(dialect.as_ref(), name, new, expected, ttl).await
        })
    }

    fn system(&self) -> Result<Box<dyn Dialect>, ProviderError> {
        Http::system(self.clock.clone())
            .map_err(Fault::Other)
            .and_then(|transport| self.dialect(Box::new(transport)))
            .map_err(|error| self.explain(error))
    }

    /// Finds the zone and what has to change, within the time limit.
    async fn plan(
        &self,
        dialect: &dyn Dialect,
        name: &DomainName,
        new: &Replacement,
    ) -> Result<(String, Vec<Change>), ProviderError> {
        let planned = timeout_at(Instant::now() + PROVIDER_TIME, plan(dialect, &self.zone, name, new));
        planned.await.unwrap_or(Err(Fault::Timeout)).map_err(|error| self.explain(error))
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
            Service::Route53 => return Err(Fault::Other("Route 53 does not accept tokens".to_owned())),
        })
    }

    async fn replace_by(
        &self,
        dialect: &dyn Dialect,
        name: &DomainName,
        new: &Replacement,
        expected: Option<&Previous>,
        ttl: u32,
    ) -> Result<Previous, ProviderError> {
        let (zone, mut changes) = self.plan(dialect, name, new).await?;
        let old = previous(name, new, ttl, &changes);
        if expected.is_some_and(|expected| expected.lines != old.lines) {
            return Err(ProviderError::Changed(self.service, old.lines));
        }
        changes.retain(|change| !are_same(&change.before, &change.after));
        // A CNAME and addresses can't exist at the same name, so removals come first.
        changes.sort_by_key(|change| !change.after.is_empty());
        // The time for listing the records does not shorten that for changing them.
        let deadline = Instant::now() + PROVIDER_TIME;
        for (done, change) in changes.iter().enumerate() {
            let record_set = RecordSet { zone: &zone, name, kind: change.kind };
            let set = timeout_at(deadline, dialect.set(&record_set, ttl, &change.after)).await;
            if let Err(error) = set.unwrap_or(Err(Fault::Timeout)) {
                // The failed change may have been made, completely or in part, so it is undone as well.
                let undone = changes.get(..=done).unwrap_or_default();
                return Err(self.roll_back(dialect, &record_set, ttl, undone, self.explain(error)).await);
            }
        }
        Ok(old)
    }

    /// Restores the record sets in `done`, within a new time limit for each. Returns the error to report: `error`, or
    /// [`ProviderError::RollbackFailed`] with all records that could not be restored.
    async fn roll_back(
        &self,
        dialect: &dyn Dialect,
        record_set: &RecordSet<'_>,
        ttl: u32,
        done: &[Change],
        error: ProviderError,
    ) -> ProviderError {
        let (mut lost, mut last) = (Vec::new(), None);
        for change in done.iter().rev() {
            let record_set = RecordSet { kind: change.kind, ..*record_set };
            let set =
                tokio::time::timeout(PROVIDER_TIME, dialect.set(&record_set, ttl, &change.before)).await;
            if let Err(again) = set.unwrap_or(Err(Fault::Timeout)) {
                lost.extend(change.before.iter().map(|record| zone_file_line(record_set.name, ttl, record)));
                last = Some(Box::new(self.explain(again)));
            }
        }
        match last {
            Some(again) => ProviderError::RollbackFailed { error: Box::new(error), again, lost },
            None => error,
        }
    }

    fn explain(&self, error: Fault) -> ProviderError {
        let refused = |why: &str| ProviderError::Refused(self.service, one_line(why));
        match error {
            Fault::Unauthorized => ProviderError::Unauthorized(self.service),
            Fault::NotFound => ProviderError::NoZone(self.service, self.zone.clone()),
            Fault::Refused { status, text } if text.is_empty() => refused(&format!("HTTP {status}")),
            Fault::Refused { status, text } => refused(&format!("HTTP {status}: {text}")),
            Fault::Other(why) => ProviderError::NoAnswer(self.service, one_line(&why)),
            Fault::Timeout => ProviderError::Timeout(self.service),
        }
    }
}

/// The records that `new` replaces, as they were before the change.
fn previous(name: &DomainName, new: &Replacement, ttl: u32, changes: &[Change]) -> Previous {
    let all = changes.iter().flat_map(|change| &change.before);
    let ours: Vec<&Record> = all.filter(|record| is_ours(&record.data, new)).collect();
    let data = |data: &Data| match data {
        Data::Txt(text) => OldData::Text(text.clone()),
        Data::Cname(target) => OldData::Target(DomainName::parse(target).ok()),
        Data::A(address) => OldData::Address((*address).into()),
        Data::Aaaa(address) => OldData::Address((*address).into()),
    };
    let lines = ours.iter().map(|record| zone_file_line(name, ttl, record)).collect();
    Previous::new(new, lines, ours.iter().map(|record| data(&record.data)).collect())
}

/// All records of one type at one name, before and after the change.
struct Change {
    kind: Kind,
    before: Vec<Record>,
    after: Vec<Record>,
}

/// Finds the zone, lists the record sets that `new` affects, and determines what each should contain.
async fn plan(
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
        Replacement::Txt { .. } | Replacement::TxtValue { .. } => &[Kind::Txt],
        Replacement::Alias(_) | Replacement::Addresses(_) => &[Kind::A, Kind::Aaaa, Kind::Cname],
    }
}

/// Whether `new` replaces this record.
fn is_ours(data: &Data, new: &Replacement) -> bool {
    match (data, new) {
        (Data::Txt(text), _) => new.replaces_text(text),
        _ => true,
    }
}

/// The new records of one type.
fn data(kind: Kind, new: &Replacement) -> Vec<Data> {
    match (kind, new) {
        (Kind::Txt, Replacement::Txt { value, .. }) => {
            value.iter().map(|value| Data::Txt(value.as_bytes().to_vec())).collect()
        }
        (Kind::Txt, Replacement::TxtValue { value, is_published }) => {
            is_published.then(|| Data::Txt(value.as_bytes().to_vec())).into_iter().collect()
        }
        (Kind::Cname, Replacement::Alias(target)) => vec![Data::alias(target.as_str())],
        (Kind::A | Kind::Aaaa, Replacement::Addresses(all)) => {
            let all = all.iter().copied().map(Data::address);
            all.filter(|data| data.kind() == kind).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether two lists have the same records in any order.
fn are_same(there: &[Record], wanted: &[Record]) -> bool {
    let is_in = |record: &Record, all: &[Record]| all.iter().any(|other| other.data == record.data);
    there.len() == wanted.len()
        && there.iter().all(|record| is_in(record, wanted))
        && wanted.iter().all(|record| is_in(record, there))
}

/// The records to delete and the records to create, for APIs that handle single records. Duplicates count separately.
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

/// A record in zone-file format. `ttl` is the configured TTL, since not every API returns the record's own.
fn zone_file_line(name: &DomainName, ttl: u32, record: &Record) -> String {
    let kind = record.data.kind().as_str();
    format!("{name}. {ttl} IN {kind} {}", record.data.text(record::Escapes::Decimal))
}

/// Checks that an identifier from a provider is safe to use in a URL path.
fn segment(id: &str) -> Result<&str, Fault> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !id.is_empty() && id.bytes().all(is_fit) {
        return Ok(id);
    }
    Err(Fault::Other(format!("{id:?} is not a valid identifier")))
}

/// Makes untrusted text from a provider fit for a log: one line without control characters, limited in length.
fn one_line(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
    flat.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod cut;

#[cfg(test)]
mod tests {
    use super::http::script::Script;
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn services_are_parsed_from_their_names() {
        for service in Service::ALL {
            assert_eq!(Service::parse(service.as_str()), Some(service));
        }
        assert_eq!(Service::parse("Cloudflare"), None);
    }

    #[test]
    fn errors_about_invalid_keys_say_why_without_showing_the_key() {
        for (service, key, expected) in [
            (Service::Cloudflare, " \n", "it is empty"),
            (Service::DeSec, "two tokens", "more than one token"),
            (Service::Route53, "aws_access_key_id = AKIA", "no line `aws_secret_access_key = …`"),
            (Service::Route53, "SECRET", "no line `aws_access_key_id = …`"),
        ] {
            let error = Provider::new(service, key, name("example.org"), None).err().unwrap().to_string();
            assert!(
                error.contains(expected) && !error.contains("SECRET") && !error.contains("two tokens"),
                "{error}"
            );
        }
    }

    fn txt(text: &str) -> Record {
        Record::new(Data::Txt(text.as_bytes().to_vec()))
    }

    #[test]
    fn other_txt_records_are_not_ours() {
        let new = Replacement::Txt { prefix: "v=STSv1", value: None };
        assert!(is_ours(&txt("v=STSv1; id=1;").data, &new));
        assert!(!is_ours(&txt("site=verification").data, &new));
        let one = Replacement::TxtValue { value: "abc".to_owned(), is_published: false };
        assert!(is_ours(&txt("abc").data, &one));
        for other in ["ab", "abcd", "ABC"] {
            assert!(!is_ours(&txt(other).data, &one), "{other}");
        }
    }

    #[test]
    fn records_are_compared_by_their_data() {
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
    async fn a_removed_record_is_restored_when_its_replacement_is_refused() {
        let provider = Provider::new(Service::DigitalOcean, "t", name("example.org"), None).unwrap();
        let old = r#"{"domain_records":[{"id":1,"type":"TXT","name":"_mta-sts","data":"v=STSv1; id=1;"}]}"#;
        let none = r#"{"domain_records":[]}"#;
        let new = Replacement::Txt { prefix: "v=STSv1", value: Some("v=STSv1; id=2;".to_owned()) };
        for (last, is_torn) in [(201, false), (422, true)] {
            let script =
                Script::new([(200, old), (200, old), (204, ""), (422, "no"), (200, none), (last, "no")]);
            let dialect = provider.dialect(Box::new(script.clone())).unwrap();
            let name = name("_mta-sts.example.org");
            let error = provider.replace_by(dialect.as_ref(), &name, &new, None, 300).await.unwrap_err();
            assert_eq!(matches!(error, ProviderError::RollbackFailed { .. }), is_torn, "{error}");
            assert!(error.to_string().starts_with("DigitalOcean: HTTP 422: no"), "{error}");
            assert!(script.bodies()[5].contains("v=STSv1; id=1;"), "{:?}", script.bodies());
        }
    }

    #[test]
    fn text_from_providers_becomes_one_bounded_line() {
        let line = one_line(&format!("HTTP 500:\n<html>\u{1b}[31m{}", "x".repeat(1000)));
        assert!(!line.contains('\n') && !line.contains('\u{1b}') && line.len() <= 400, "{line}");
    }
}
