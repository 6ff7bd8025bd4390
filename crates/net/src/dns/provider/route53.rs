//! The Amazon Route 53 API, version 2013-04-01. It uses XML, whole record sets, and requests signed with AWS Signature
//! Version 4. A request to delete a record set must repeat its exact content, including the TTL.

use super::http::{Answer, Api, Call, Transport};
use super::record::{Escapes, Record};
use super::{Dialect, Fault, RecordSet, segment};
use crate::BoxFuture;
use crate::clock::Clock;
use crate::percent::encoded;
use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use formats::DomainName;
use formats::limits::PROVIDER_PAGES;
use formats::xml::{Element, escape, parse};
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderName};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::Arc;

/// The host name of the API.
pub(super) const HOST: &str = "route53.amazonaws.com";
const NAMESPACE: &str = "https://route53.amazonaws.com/doc/2013-04-01/";
const MEDIA_TYPE: &str = "application/xml";
/// The region to sign requests for. Route 53 is a global service that uses this region.
const SCOPE: Scope<'static> = Scope { region: "us-east-1", service: "route53" };

/// An AWS access key from a credentials file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct AwsKey {
    pub(super) id: String,
    pub(super) secret: String,
    /// Present only in temporary credentials.
    pub(super) session_token: Option<String>,
}

impl AwsKey {
    /// Parses an AWS credentials file. Section headers are ignored, and the first line for each key counts.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name.trim().eq_ignore_ascii_case(key) && !value.trim().is_empty())
                    .then(|| value.trim().to_owned())
            })
        };
        let needed = |key: &str| value(key).ok_or_else(|| format!("it has no line `{key} = …`"));
        Ok(Self {
            id: needed("aws_access_key_id")?,
            secret: needed("aws_secret_access_key")?,
            session_token: value("aws_session_token"),
        })
    }
}

pub(super) struct Route53 {
    api: Api,
    key: AwsKey,
    /// The configured identifier of the zone, needed if several zones have the same name.
    zone_id: Option<String>,
    clock: Arc<dyn Clock>,
}

/// A record set as listed by the API.
struct Set {
    ttl: String,
    values: Vec<String>,
}

impl Route53 {
    pub(super) fn new(
        transport: Box<dyn Transport>,
        key: AwsKey,
        zone_id: Option<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let secrets = [Some(key.secret.clone()), key.session_token.clone()].into_iter().flatten().collect();
        Self { api: Api::new(transport, HOST, secrets).busy_when(is_throttled), key, zone_id, clock }
    }

    /// Signs and sends a request, and returns the root element of the response.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: String,
    ) -> Result<Element, Fault> {
        let mut pairs: Vec<(String, String)> =
            query.iter().map(|(name, value)| (encoded(name), encoded(value))).collect();
        pairs.sort();
        let query = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let time = self.clock.now();
        let date = time.strftime(DATE_FORMAT).to_string();
        let mut headers = vec![("content-type", MEDIA_TYPE), ("host", HOST), ("x-amz-date", &date)];
        if let Some(token) = &self.key.session_token {
            headers.push(("x-amz-security-token", token));
        }
        let signed = Signed { method: method.as_str(), path, query: &query, headers: &headers, body: &body };
        let authorization = signed.authorization(&self.key, SCOPE, time);
        let own = headers.iter().filter(|(name, _)| name.starts_with("x-amz-"));
        let mut headers: Vec<(HeaderName, String)> =
            own.map(|(name, value)| (HeaderName::from_static(name), (*value).to_owned())).collect();
        headers.push((AUTHORIZATION, authorization));
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let call = Call::new(method, path).with(MEDIA_TYPE, body, headers);
        let answer = self.api.send(&call).await.map_err(explain)?;
        let text = std::str::from_utf8(&answer).map_err(|error| self.api.unreadable(&error, &answer))?;
        parse(text).map_err(|error| self.api.unreadable(&error, &answer))
    }

    /// Fetches a record set; `None` if there is none. Fails for a set that we could not restore; see [`read_set`].
    async fn set_at(&self, record_set: &RecordSet<'_>) -> Result<Option<Set>, Fault> {
        let (wanted, kind) = (record_set.name.as_str(), record_set.kind.as_str());
        let path = format!("/2013-04-01/hostedzone/{}/rrset", record_set.zone);
        let mut from = vec![("name", format!("{wanted}.")), ("type", kind.to_owned())];
        for _ in 0..PROVIDER_PAGES {
            let query: Vec<(&str, &str)> = from.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let page = self.send(Method::GET, &path, &query, String::new()).await?;
            let sets = page.child("ResourceRecordSets").ok_or_else(|| missing("ResourceRecordSets"))?;
            for set in sets.all("ResourceRecordSet") {
                let name = set.text_of("Name").unwrap_or_default().trim_end_matches('.');
                let is_here = name.eq_ignore_ascii_case(wanted);
                if is_here && set.text_of("Type") == Some(kind) {
                    return read_set(set, record_set).map(Some);
                }
            }
            // Sets are listed in order, starting at the requested one, so a set of another name ends the search.
            if !is_truncated(&page) || sets.children.iter().any(|set| is_behind(set, record_set)) {
                return Ok(None);
            }
            from = following(
                &page,
                &[
                    ("name", "NextRecordName"),
                    ("type", "NextRecordType"),
                    ("identifier", "NextRecordIdentifier"),
                ],
            )?;
        }
        Err(Fault::too_long())
    }

    async fn change(
        &self,
        record_set: &RecordSet<'_>,
        action: &str,
        ttl: &str,
        values: &[String],
    ) -> Result<(), Fault> {
        let mut records = String::new();
        for value in values {
            // Writing to a string does not fail.
            let _ = write!(records, "<ResourceRecord><Value>{}</Value></ResourceRecord>", escape(value));
        }
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ChangeResourceRecordSetsRequest xmlns=\"{NAMESPACE}\"><ChangeBatch><Changes><Change>\
             <Action>{action}</Action><ResourceRecordSet><Name>{}.</Name><Type>{}</Type><TTL>{}</TTL>\
             <ResourceRecords>{records}</ResourceRecords></ResourceRecordSet></Change></Changes></ChangeBatch></ChangeResourceRecordSetsRequest>",
            escape(record_set.name.as_str()),
            record_set.kind.as_str(),
            escape(ttl),
        );
        let path = format!("/2013-04-01/hostedzone/{}/rrset", record_set.zone);
        self.send(Method::POST, &path, &[], body).await.map(drop)
    }
}

impl Dialect for Route53 {
    /// The identifier of the zone with the longest name that encloses the record; if several match, the first listed.
    fn find_zone<'a>(
        &'a self,
        _: &'a DomainName,
        record: &'a DomainName,
    ) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            if let Some(id) = &self.zone_id {
                return Ok(segment(id.trim_start_matches("/hostedzone/"))?.to_owned());
            }
            let mut best: Option<(usize, String)> = None;
            let mut from = Vec::new();
            for _ in 0..PROVIDER_PAGES {
                let query: Vec<(&str, &str)> =
                    from.iter().map(|(name, value): &(&str, String)| (*name, value.as_str())).collect();
                let page =
                    self.send(Method::GET, "/2013-04-01/hostedzonesbyname", &query, String::new()).await?;
                let zones = page.child("HostedZones").ok_or_else(|| missing("HostedZones"))?;
                for zone in zones.all("HostedZone") {
                    let name = zone.text_of("Name").unwrap_or_default().trim_end_matches('.');
                    let is_longer = best.as_ref().is_none_or(|(length, _)| name.len() > *length);
                    if encloses(name, record.as_str()) && is_longer {
                        let id = zone.text_of("Id").unwrap_or_default();
                        let id = segment(id.trim_start_matches("/hostedzone/"))?;
                        best = Some((name.len(), id.to_owned()));
                    }
                }
                if !is_truncated(&page) {
                    return best.map(|(_, id)| id).ok_or(Fault::NotFound);
                }
                from = following(&page, &[("dnsname", "NextDNSName"), ("hostedzoneid", "NextHostedZoneId")])?;
            }
            Err(Fault::too_long())
        })
    }

    fn list<'a>(&'a self, record_set: &'a RecordSet<'a>) -> BoxFuture<'a, Result<Vec<Record>, Fault>> {
        Box::pin(async move {
            let values = self.set_at(record_set).await?.map(|set| set.values).unwrap_or_default();
            values.iter().map(|value| Record::listed(record_set.kind, value, Escapes::Octal)).collect()
        })
    }

    fn set<'a>(
        &'a self,
        record_set: &'a RecordSet<'a>,
        ttl: u32,
        records: &'a [Record],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            if records.is_empty() {
                return match self.set_at(record_set).await? {
                    Some(set) => self.change(record_set, "DELETE", &set.ttl, &set.values).await,
                    None => Ok(()),
                };
            }
            let mut values: Vec<String> = Vec::new();
            for value in records.iter().map(|record| record.text(Escapes::Octal)) {
                // The API rejects a set with duplicate values.
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            self.change(record_set, "UPSERT", &ttl.to_string(), &values).await
        })
    }
}

fn missing(name: &str) -> Fault {
    Fault::Other(format!("the response has no element {name}"))
}

fn is_truncated(page: &Element) -> bool {
    page.text_of("IsTruncated") == Some("true")
}

/// The query parameters for the next page, taken from elements of this page. `names` pairs parameters with elements.
fn following(page: &Element, names: &[(&'static str, &str)]) -> Result<Vec<(&'static str, String)>, Fault> {
    let from: Vec<(&'static str, String)> = names
        .iter()
        .filter_map(|(parameter, element)| Some((*parameter, page.text_of(element)?.to_owned())))
        .collect();
    if from.is_empty() {
        return Err(Fault::Other("the list is truncated without a pointer to the next page".to_owned()));
    }
    Ok(from)
}

/// Whether a listed set has another name, so that no set of the requested name follows.
fn is_behind(set: &Element, record_set: &RecordSet<'_>) -> bool {
    let name = set.text_of("Name").unwrap_or_default().trim_end_matches('.');
    !name.eq_ignore_ascii_case(record_set.name.as_str())
}

fn encloses(zone: &str, name: &str) -> bool {
    match name.strip_suffix(zone) {
        Some(rest) => !zone.is_empty() && (rest.is_empty() || rest.ends_with('.')),
        None => false,
    }
}

/// Parses a plain record set. Alias records and routing policies are errors, since they could not be restored.
fn read_set(set: &Element, record_set: &RecordSet<'_>) -> Result<Set, Fault> {
    let unsupported = |what: &str| {
        let RecordSet { name, kind, .. } = record_set;
        Fault::Other(format!("{} at {name} is {what}; delete it at Route 53 first", kind.as_str()))
    };
    if set.child("AliasTarget").is_some() {
        return Err(unsupported("an alias record of Route 53"));
    }
    if set.child("SetIdentifier").is_some() {
        return Err(unsupported("controlled by a routing policy"));
    }
    let records = set.child("ResourceRecords").ok_or_else(|| missing("ResourceRecords"))?;
    let value = |record: &Element| record.text_of("Value").map(str::to_owned);
    let values: Option<Vec<String>> = records.all("ResourceRecord").map(value).collect();
    Ok(Set {
        ttl: set.text_of("TTL").ok_or_else(|| missing("TTL"))?.to_owned(),
        values: values.ok_or_else(|| missing("Value"))?,
    })
}

/// Whether the request was throttled; Route 53 reports this with status 400.
fn is_throttled(answer: &Answer) -> bool {
    let has = |word: &[u8]| answer.body.windows(word.len()).any(|window| window == word);
    answer.status == 400 && (has(b"Throttling") || has(b"PriorRequestNotComplete"))
}

/// Replaces an XML error document with its code and message. Other error texts are kept.
fn explain(error: Fault) -> Fault {
    let Fault::Refused { status, text } = error else { return error };
    let mut parts = Vec::new();
    if let Ok(root) = parse(&text) {
        let mut pending = vec![&root];
        while let Some(element) = pending.pop() {
            if matches!(element.name.as_str(), "Code" | "Message") && !element.text.is_empty() {
                parts.push(element.text.clone());
            }
            pending.extend(element.children.iter().rev());
        }
    }
    let text = if parts.is_empty() { text } else { parts.join(": ") };
    Fault::Refused { status, text }
}

/// The time of a request in ISO 8601 basic format.
const DATE_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// The credential scope of a signature.
#[derive(Clone, Copy)]
struct Scope<'a> {
    region: &'a str,
    service: &'a str,
}

/// The parts of a request that AWS Signature Version 4 covers.
struct Signed<'a> {
    method: &'a str,
    path: &'a str,
    /// Percent-encoded name-value pairs, sorted.
    query: &'a str,
    /// Header names in lower case with their values, sorted by name.
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

impl Signed<'_> {
    /// The value of the `Authorization` header.
    fn authorization(&self, key: &AwsKey, scope: Scope<'_>, time: Timestamp) -> String {
        let day = time.strftime("%Y%m%d").to_string();
        let scope_text = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
        let names = self.headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let mut request = format!("{}\n{}\n{}\n", self.method, self.path, self.query);
        for (name, value) in self.headers {
            // Writing to a string does not fail.
            let _ = writeln!(request, "{name}:{}", value.trim());
        }
        let _ = write!(request, "\n{names}\n{}", digest(self.body));
        let to_sign =
            format!("AWS4-HMAC-SHA256\n{}\n{scope_text}\n{}", time.strftime(DATE_FORMAT), digest(&request));
        let first = format!("AWS4{}", key.secret).into_bytes();
        let signing = [day.as_str(), scope.region, scope.service, "aws4_request"]
            .into_iter()
            .fold(first, |key, part| mac(&key, part));
        let signature = HEXLOWER.encode(&mac(&signing, &to_sign));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope_text}, SignedHeaders={names}, Signature={signature}",
            key.id
        )
    }
}

fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::http::script::Script;
    use super::super::record::{Data, Kind};
    use super::*;
    use crate::clock::ManualClock;

    fn key() -> AwsKey {
        AwsKey {
            id: "AKIDEXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        }
    }

    fn time() -> Timestamp {
        "2015-08-30T12:36:00Z".parse().unwrap()
    }

    fn route53(script: &Script) -> Route53 {
        Route53::new(Box::new(script.clone()), key(), None, Arc::new(ManualClock::new(time())))
    }

    /// Uses the examples that AWS publishes for Signature Version 4.
    #[test]
    fn requests_are_signed_as_in_the_published_examples() {
        let host = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let service = Scope { region: "us-east-1", service: "service" };
        for (method, query, signature) in [
            ("GET", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "GET",
                "Param1=value1&Param2=value2",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ] {
            let signed = Signed { method, path: "/", query, headers: &host, body: "" };
            assert_eq!(
                signed.authorization(&key(), service, time()),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature={signature}"
                )
            );
        }
        let signed = Signed {
            method: "GET",
            path: "/",
            query: "Action=ListUsers&Version=2010-05-08",
            headers: &[
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
                ("x-amz-date", "20150830T123600Z"),
            ],
            body: "",
        };
        let iam = Scope { region: "us-east-1", service: "iam" };
        let signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        assert!(signed.authorization(&key(), iam, time()).ends_with(signature));
    }

    #[test]
    fn credentials_files_are_parsed() {
        let file =
            "[default]\naws_access_key_id=AKIA\nAWS_SECRET_ACCESS_KEY = a/b=c\naws_session_token = t\n";
        let read = AwsKey::read(file).unwrap();
        assert_eq!((read.id.as_str(), read.secret.as_str()), ("AKIA", "a/b=c"));
        assert_eq!(read.session_token.as_deref(), Some("t"));
    }

    fn zones(zones: &[(&str, &str)], next: &str) -> String {
        let zones: String = zones
            .iter()
            .map(|(id, name)| {
                format!("<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}.</Name></HostedZone>")
            })
            .collect();
        let more = !next.is_empty();
        format!("<R><HostedZones>{zones}</HostedZones><IsTruncated>{more}</IsTruncated>{next}</R>")
    }

    #[tokio::test]
    async fn the_zone_with_the_longest_name_on_all_pages_is_found() {
        let name = DomainName::parse("mta-sts.mail.example.org").unwrap();
        let next =
            "<NextDNSName>example.org.</NextDNSName><NextHostedZoneId>Z2</NextHostedZoneId>".to_owned();
        let first = zones(&[("Z1", "example.org"), ("Z9", "ail.example.org")], &next);
        let last = zones(&[("Z3", "mail.example.org"), ("Z4", "mail.example.org")], "");
        let script = Script::new([(200, first.as_str()), (200, last.as_str())]);
        assert_eq!(route53(&script).find_zone(&name, &name).await.unwrap(), "Z3");
        assert_eq!(
            script.lines()[1],
            "GET /2013-04-01/hostedzonesbyname?dnsname=example.org.&hostedzoneid=Z2"
        );
        let script = Script::new(std::iter::repeat_n((200, first.as_str()), 60));
        assert!(matches!(route53(&script).find_zone(&name, &name).await, Err(Fault::Other(_))));
        assert_eq!(script.lines().len(), 50);
        let nothing_follows = zones(&[], " ");
        let script = Script::new([(200, nothing_follows.as_str())]);
        assert!(matches!(route53(&script).find_zone(&name, &name).await, Err(Fault::Other(_))));
        let none = zones(&[], "");
        let script = Script::new([(200, none.as_str())]);
        assert!(matches!(route53(&script).find_zone(&name, &name).await, Err(Fault::NotFound)));
    }

    fn set(kind: &str, inside: &str) -> String {
        format!(
            "<ResourceRecordSet><Name>mta-sts.example.org.</Name><Type>{kind}</Type>{inside}</ResourceRecordSet>"
        )
    }

    fn sets(sets: &str) -> String {
        format!("<R><ResourceRecordSets>{sets}</ResourceRecordSets><IsTruncated>false</IsTruncated></R>")
    }

    #[tokio::test]
    async fn a_set_is_deleted_exactly_as_listed() {
        let name = DomainName::parse("mta-sts.example.org").unwrap();
        let record_set = RecordSet { zone: "Z1", name: &name, kind: Kind::Txt };
        let listed = sets(&set(
            "TXT",
            "<TTL>77</TTL><ResourceRecords><ResourceRecord><Value>&quot;a\\374&quot;</Value></ResourceRecord></ResourceRecords>",
        ));
        let script = Script::new([(200, listed.as_str()), (200, listed.as_str()), (200, "<R/>")]);
        let route53 = route53(&script);
        let records = route53.list(&record_set).await.unwrap();
        assert_eq!(records[0].data, Data::Txt(b"a\xfc".to_vec()));
        route53.set(&record_set, 300, &[]).await.unwrap();
        let body = &script.bodies()[2];
        assert!(body.contains("<Action>DELETE</Action>") && body.contains("<TTL>77</TTL>"), "{body}");
        assert!(body.contains("<Value>&quot;a\\374&quot;</Value>"), "{body}");
        assert!(parse(body).is_ok(), "{body}");
    }

    #[tokio::test]
    async fn alias_records_and_routing_policies_are_not_changed() {
        let name = DomainName::parse("mta-sts.example.org").unwrap();
        let record_set = RecordSet { zone: "Z1", name: &name, kind: Kind::A };
        for (inside, expected) in [
            ("<AliasTarget><DNSName>x.</DNSName></AliasTarget>", "an alias record of Route 53"),
            ("<SetIdentifier>blue</SetIdentifier><TTL>5</TTL>", "a routing policy"),
        ] {
            let listed = sets(&set("A", inside));
            let script = Script::new([(200, listed.as_str())]);
            let error = route53(&script).list(&record_set).await.unwrap_err();
            assert!(matches!(&error, Fault::Other(why) if why.contains(expected)), "{error:?}");
        }
        // Sets of another type or name are ignored.
        let listed = sets(&set("AAAA", "<AliasTarget><DNSName>x.</DNSName></AliasTarget>"));
        let script = Script::new([(200, listed.as_str())]);
        assert_eq!(route53(&script).list(&record_set).await.unwrap(), []);
    }

    #[tokio::test]
    async fn throttled_requests_are_retried_and_errors_are_described() {
        let name = DomainName::parse("mta-sts.example.org").unwrap();
        let record_set = RecordSet { zone: "Z1", name: &name, kind: Kind::A };
        let slow = "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>";
        let none = sets("");
        let script = Script::new([(400, slow), (200, none.as_str())]);
        assert_eq!(route53(&script).list(&record_set).await.unwrap(), []);
        let bad = "<?xml version=\"1.0\"?>\n<ErrorResponse xmlns=\"x\"><Error><Type>Sender</Type><Code>InvalidInput</Code><Message>no &amp; no</Message></Error></ErrorResponse>";
        let script = Script::new([(400, bad)]);
        let error = route53(&script).list(&record_set).await.unwrap_err();
        assert!(
            matches!(&error, Fault::Refused { text, .. } if text == "InvalidInput: no & no"),
            "{error:?}"
        );
    }
}
