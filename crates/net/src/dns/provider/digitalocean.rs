//! The DigitalOcean API, version 2. It handles single records with numeric identifiers. Names are relative to the
//! domain, and TXT data has no quotes.

use super::http::{Api, Call};
use super::record::{Data, Escapes, Kind, Record, label};
use super::{Dialect, Fault, RecordSet, differences};
use crate::BoxFuture;
use crate::percent::encoded;
use formats::DomainName;
use formats::limits::PROVIDER_PAGES;
use hyper::Method;
use serde::Deserialize;
use serde_json::json;

/// The host name of the API.
pub(super) const HOST: &str = "api.digitalocean.com";

pub(super) struct DigitalOcean(pub(super) Api);

#[derive(Deserialize)]
struct Page {
    domain_records: Vec<Listed>,
    #[serde(default)]
    links: Links,
}

#[derive(Deserialize, Default)]
struct Links {
    #[serde(default)]
    pages: Pages,
}

#[derive(Deserialize, Default)]
struct Pages {
    next: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    id: u64,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    data: String,
}

impl Dialect for DigitalOcean {
    fn find_zone<'a>(
        &'a self,
        zone: &'a DomainName,
        _: &'a DomainName,
    ) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move { Ok(zone.to_string()) })
    }

    fn list<'a>(&'a self, record_set: &'a RecordSet<'a>) -> BoxFuture<'a, Result<Vec<Record>, Fault>> {
        Box::pin(async move {
            let RecordSet { zone, name, kind } = *record_set;
            let label = label(name, zone)?.unwrap_or("@");
            let mut records = Vec::new();
            for page in 1..=PROVIDER_PAGES {
                let path = format!(
                    "/v2/domains/{zone}/records?name={}&type={}&per_page=200&page={page}",
                    encoded(name.as_str()),
                    kind.as_str()
                );
                let answer: Page = self.0.json(&Call::new(Method::GET, path)).await?;
                for listed in answer.domain_records {
                    if listed.kind == kind.as_str() && listed.name.eq_ignore_ascii_case(label) {
                        let data = match kind {
                            // The data has no quotes around it; any quotes are part of the text.
                            Kind::Txt => Data::Txt(listed.data.as_bytes().to_vec()),
                            _ => Data::parse(kind, &listed.data, Escapes::Decimal)?,
                        };
                        let shown = (kind == Kind::Txt).then_some(listed.data);
                        records.push(Record { shown, id: Some(listed.id.to_string()), ..Record::new(data) });
                    }
                }
                if answer.links.pages.next.is_none() {
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
            let path = format!("/v2/domains/{zone}/records");
            for id in gone.iter().filter_map(|record| record.id.as_deref()) {
                match self.0.send(&Call::new(Method::DELETE, format!("{path}/{id}"))).await {
                    Ok(_) | Err(Fault::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            for record in new {
                let data = match (&record.shown, &record.data) {
                    (Some(shown), _) => shown.clone(),
                    (None, Data::Txt(text)) => String::from_utf8_lossy(text).into_owned(),
                    (None, data) => data.text(Escapes::Decimal),
                };
                let label = label(name, zone)?.unwrap_or("@");
                let body = json!({"type": kind.as_str(), "name": label, "data": data, "ttl": ttl});
                self.0.send(&Call::json(Method::POST, path.clone(), &body)?.creates()).await?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::script::Script;
    use super::*;

    fn digitalocean(script: &Script) -> DigitalOcean {
        DigitalOcean(Api::with_token(Box::new(script.clone()), HOST, "Bearer", "t").unwrap())
    }

    #[tokio::test]
    async fn all_pages_are_read_and_other_names_are_ignored() {
        let name = DomainName::parse("mta-sts.example.org").unwrap();
        let record_set = RecordSet { zone: "example.org", name: &name, kind: Kind::Cname };
        let first = r#"{"domain_records":[{"id":1,"type":"CNAME","name":"other","data":"x.test"}],"links":{"pages":{"next":"https://api.digitalocean.com/v2/x?page=2"}}}"#;
        let last = r#"{"domain_records":[{"id":2,"type":"CNAME","name":"mta-sts","data":"Policy.test"}],"links":{}}"#;
        let script = Script::new([(200, first), (200, last)]);
        let records = digitalocean(&script).list(&record_set).await.unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].data, Data::Cname("policy.test".to_owned()));
        let script = Script::new([(200, first); 60]);
        assert!(digitalocean(&script).list(&record_set).await.is_err());
        assert_eq!(script.lines().len(), 50);
        let script = Script::new([(404, "")]);
        assert!(matches!(digitalocean(&script).list(&record_set).await, Err(Fault::NotFound)));
    }

    #[tokio::test]
    async fn cname_targets_end_with_a_dot_and_txt_data_has_no_quotes() {
        let name = DomainName::parse("mta-sts.example.org").unwrap();
        let none = r#"{"domain_records":[]}"#;
        for (kind, data, sent) in [
            (Kind::Cname, Data::Cname("policy.test".to_owned()), r#""data":"policy.test.""#),
            (Kind::Txt, Data::Txt(b"v=STSv1; id=1;".to_vec()), r#""data":"v=STSv1; id=1;""#),
        ] {
            let script = Script::new([(200, none), (201, "{}")]);
            let record_set = RecordSet { zone: "example.org", name: &name, kind };
            digitalocean(&script).set(&record_set, 300, &[Record::new(data)]).await.unwrap();
            assert!(script.bodies()[1].contains(sent), "{:?}", script.bodies());
            assert!(script.bodies()[1].contains(r#""name":"mta-sts""#), "{:?}", script.bodies());
        }
    }
}
