//! The Cloudflare API, version 4. It handles single records with identifiers. TXT content consists of quoted character
//! strings, but records that were entered without quotes are listed without them.

use super::http::{Api, Call};
use super::record::{Data, Escapes, Record};
use super::{Dialect, Fault, RecordSet, differences, segment};
use crate::BoxFuture;
use crate::percent::encoded;
use formats::DomainName;
use formats::limits::PROVIDER_PAGES;
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// The host name of the API.
pub(super) const HOST: &str = "api.cloudflare.com";

pub(super) struct Cloudflare(pub(super) Api);

/// The JSON object around every result.
#[derive(Deserialize)]
struct Envelope<T> {
    success: bool,
    #[serde(default)]
    errors: Vec<ApiError>,
    result: Option<T>,
    result_info: Option<Pages>,
}

#[derive(Deserialize)]
struct ApiError {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Pages {
    total_pages: Option<u32>,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    content: String,
}

impl Cloudflare {
    async fn send<T: DeserializeOwned>(&self, call: &Call) -> Result<Envelope<T>, Fault> {
        let answer: Envelope<T> = self.0.json(call).await?;
        if answer.success {
            return Ok(answer);
        }
        let errors = answer.errors.iter().map(|error| format!("{} ({})", error.message, error.code));
        Err(Fault::Other(errors.collect::<Vec<_>>().join("; ")))
    }
}

impl Dialect for Cloudflare {
    /// The identifier of the configured zone, or of the nearest zone that encloses it.
    fn find_zone<'a>(
        &'a self,
        zone: &'a DomainName,
        _: &'a DomainName,
    ) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let mut candidate = zone.as_str();
            loop {
                let path = format!("/client/v4/zones?name={}", encoded(candidate));
                let zones = self.send::<Vec<Zone>>(&Call::new(Method::GET, path)).await?.result;
                if let Some(zone) = zones.into_iter().flatten().find(|zone| zone.name == candidate) {
                    return Ok(segment(&zone.id)?.to_owned());
                }
                match candidate.split_once('.') {
                    Some((_, parent)) if parent.contains('.') => candidate = parent,
                    _ => return Err(Fault::NotFound),
                }
            }
        })
    }

    fn list<'a>(&'a self, record_set: &'a RecordSet<'a>) -> BoxFuture<'a, Result<Vec<Record>, Fault>> {
        Box::pin(async move {
            let RecordSet { zone, name, kind } = *record_set;
            let mut records = Vec::new();
            for page in 1..=PROVIDER_PAGES {
                let path = format!(
                    "/client/v4/zones/{zone}/dns_records?name={}&type={}&per_page=100&page={page}",
                    encoded(name.as_str()),
                    kind.as_str()
                );
                let answer = self.send::<Vec<Listed>>(&Call::new(Method::GET, path)).await?;
                for listed in answer.result.into_iter().flatten() {
                    if listed.kind == kind.as_str() && listed.name.eq_ignore_ascii_case(name.as_str()) {
                        let id = Some(segment(&listed.id)?.to_owned());
                        let record = Record::listed(kind, &listed.content, Escapes::Decimal)?;
                        records.push(Record { id, ..record });
                    }
                }
                if answer.result_info.and_then(|info| info.total_pages).is_none_or(|total| page >= total) {
                    return Ok(records);
                }
            }
            Err(Fault::too_long())
        })
    }

    fn set<'a>(
        &'a self,
        record_set: &'a RecordSet<'a>,
        ttl: u32,
        records: &'a [Record],
    ) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let RecordSet { zone, name, kind } = *record_set;
            let there = self.list(record_set).await?;
            let (gone, new) = differences(&there, records);
            let path = format!("/client/v4/zones/{zone}/dns_records");
            for id in gone.iter().filter_map(|record| record.id.as_deref()) {
                let call = Call::new(Method::DELETE, format!("{path}/{id}"));
                match self.send::<serde_json::Value>(&call).await {
                    Ok(_) | Err(Fault::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            for record in new {
                let content = match (&record.shown, &record.data) {
                    (Some(shown), _) => shown.clone(),
                    (None, Data::Cname(target)) => target.clone(),
                    (None, data) => data.text(Escapes::Decimal),
                };
                // A proxied record would publish Cloudflare's addresses instead of the policy host's.
                let body = json!({"name": name.as_str(), "type": kind.as_str(), "content": content, "ttl": ttl, "proxied": false});
                let call = Call::json(Method::POST, path.clone(), &body)?.creates();
                self.send::<serde_json::Value>(&call).await?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::script::Script;
    use super::super::record::Kind;
    use super::*;

    fn cloudflare(script: &Script) -> Cloudflare {
        Cloudflare(Api::with_token(Box::new(script.clone()), HOST, "Bearer", "t").unwrap())
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[tokio::test]
    async fn the_nearest_enclosing_zone_is_found() {
        let none = r#"{"success":true,"result":[]}"#;
        let one = r#"{"success":true,"result":[{"id":"0a1b","name":"example.org"}]}"#;
        let script = Script::new([(200, none), (200, one)]);
        let zone = name("mail.example.org");
        assert_eq!(cloudflare(&script).find_zone(&zone, &zone).await.unwrap(), "0a1b");
        let script = Script::new([(200, none), (200, none)]);
        assert!(matches!(cloudflare(&script).find_zone(&zone, &zone).await, Err(Fault::NotFound)));
        assert_eq!(script.lines().len(), 2, "a top-level domain was queried");
        let odd = r#"{"success":true,"result":[{"id":"../x","name":"mail.example.org"}]}"#;
        let script = Script::new([(200, odd)]);
        assert!(matches!(cloudflare(&script).find_zone(&zone, &zone).await, Err(Fault::Other(_))));
    }

    #[tokio::test]
    async fn all_pages_are_read_and_an_endless_list_is_an_error() {
        let name = name("_mta-sts.example.org");
        let record_set = RecordSet { zone: "0a1b", name: &name, kind: Kind::Txt };
        let page = |id: u32, pages: u32| {
            format!(
                r#"{{"success":true,"result":[{{"id":"{id}","name":"{name}","type":"TXT","content":"x{id}"}}],"result_info":{{"total_pages":{pages}}}}}"#
            )
        };
        let pages = [page(1, 2), page(2, 2)];
        let script = Script::new(pages.iter().map(|page| (200, page.as_str())));
        let records = cloudflare(&script).list(&record_set).await.unwrap();
        assert_eq!(records.len(), 2);
        assert!(script.lines()[1].ends_with("&page=2"));
        let endless = page(1, 1_000_000);
        let script = Script::new(std::iter::repeat_n((200, endless.as_str()), 60));
        assert!(cloudflare(&script).list(&record_set).await.is_err());
        assert_eq!(script.lines().len(), 50);
    }

    #[tokio::test]
    async fn only_records_that_differ_are_changed() {
        let name = name("_mta-sts.example.org");
        let record_set = RecordSet { zone: "0a1b", name: &name, kind: Kind::Txt };
        let there = r#"{"success":true,"result":[{"id":"1","name":"_mta-sts.example.org","type":"TXT","content":"site"},{"id":"2","name":"_mta-sts.example.org","type":"TXT","content":"\"old\""}]}"#;
        let fine = r#"{"success":true,"result":{}}"#;
        let script = Script::new([(200, there), (200, fine), (200, fine)]);
        let wanted = [
            Record::listed(Kind::Txt, "site", Escapes::Decimal).unwrap(),
            Record::new(Data::Txt(b"new".to_vec())),
        ];
        cloudflare(&script).set(&record_set, 300, &wanted).await.unwrap();
        assert_eq!(
            script.lines()[1..],
            ["DELETE /client/v4/zones/0a1b/dns_records/2", "POST /client/v4/zones/0a1b/dns_records"]
        );
        assert!(script.bodies()[2].contains(r#""content":"\"new\"""#), "{:?}", script.bodies());
        let refused = r#"{"success":false,"errors":[{"code":81053,"message":"it exists"}],"result":null}"#;
        let script = Script::new([(200, refused)]);
        let error = cloudflare(&script).list(&record_set).await.unwrap_err();
        assert!(matches!(error, Fault::Other(why) if why == "it exists (81053)"));
    }
}
