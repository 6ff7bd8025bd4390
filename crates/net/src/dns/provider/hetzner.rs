//! The Hetzner Cloud API, version 1. It handles whole record sets in presentation format, which actions change.

use super::http::{Api, Call};
use super::record::{Escapes, Record, label};
use super::{Dialect, Fault, RecordSet};
use crate::BoxFuture;
use crate::percent::encoded;
use formats::DomainName;
use formats::limits::PROVIDER_PAGES;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

/// The host name of the API.
pub(super) const HOST: &str = "api.hetzner.cloud";

pub(super) struct Hetzner(pub(super) Api);

#[derive(Deserialize)]
struct Page {
    rrsets: Vec<Set>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default)]
    pagination: Pagination,
}

#[derive(Deserialize, Default)]
struct Pagination {
    next_page: Option<u32>,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    records: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    value: String,
    comment: Option<String>,
}

fn path_of(record_set: &RecordSet<'_>) -> Result<String, Fault> {
    let label = label(record_set.name, record_set.zone)?.unwrap_or("@");
    Ok(format!("/v1/zones/{}/rrsets/{label}/{}", record_set.zone, record_set.kind.as_str()))
}

impl Hetzner {
    async fn act(&self, path: &str, action: &str, body: &Value) -> Result<(), Fault> {
        let call = Call::json(Method::POST, format!("{path}/actions/{action}"), body)?;
        self.0.send(&call).await.map(drop)
    }
}

impl Dialect for Hetzner {
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
            let mut page = 1;
            for _ in 0..PROVIDER_PAGES {
                let path = format!(
                    "/v1/zones/{zone}/rrsets?name={}&type={}&per_page=50&page={page}",
                    encoded(label),
                    kind.as_str()
                );
                let answer: Page = self.0.json(&Call::new(Method::GET, path)).await?;
                let is_it = |set: &Set| set.kind == kind.as_str() && set.name.eq_ignore_ascii_case(label);
                for listed in answer.rrsets.into_iter().filter(is_it).flat_map(|set| set.records) {
                    let comment = listed.comment.filter(|comment| !comment.is_empty());
                    let record = Record::listed(kind, &listed.value, Escapes::Decimal)?;
                    records.push(Record { comment, ..record });
                }
                match answer.meta.pagination.next_page {
                    Some(next) => page = next,
                    None => return Ok(records),
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
            let path = path_of(record_set)?;
            if records.is_empty() {
                return match self.0.send(&Call::new(Method::DELETE, path)).await {
                    Ok(_) | Err(Fault::NotFound) => Ok(()),
                    Err(error) => Err(error),
                };
            }
            let value = |record: &Record| {
                let value = record.text(Escapes::Decimal);
                match &record.comment {
                    Some(comment) => json!({"value": value, "comment": comment}),
                    None => json!({"value": value}),
                }
            };
            let body = json!({"records": records.iter().map(value).collect::<Vec<_>>()});
            match self.act(&path, "set_records", &body).await {
                // The record set does not exist yet.
                Err(Fault::NotFound) => self.act(&path, "add_records", &body).await?,
                outcome => outcome?,
            }
            self.act(&path, "change_ttl", &json!({"ttl": ttl})).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::script::Script;
    use super::super::record::{Data, Kind};
    use super::*;

    fn hetzner(script: &Script) -> Hetzner {
        Hetzner(Api::with_token(Box::new(script.clone()), HOST, "Bearer", "t").unwrap())
    }

    #[tokio::test]
    async fn all_pages_are_read_and_comments_are_kept() {
        let name = DomainName::parse("_mta-sts.example.org").unwrap();
        let record_set = RecordSet { zone: "example.org", name: &name, kind: Kind::Txt };
        let first = r#"{"rrsets":[],"meta":{"pagination":{"page":1,"next_page":2}}}"#;
        let last = r#"{"rrsets":[{"name":"_mta-sts","type":"TXT","ttl":null,"records":[{"value":"\"site\"","comment":"ours"}]}],"meta":{"pagination":{"page":2,"next_page":null}}}"#;
        let script = Script::new([(200, first), (200, last), (404, ""), (201, "{}"), (201, "{}")]);
        let hetzner_ = hetzner(&script);
        let mut records = hetzner_.list(&record_set).await.unwrap();
        records.push(Record::new(Data::Txt(b"a\"b".to_vec())));
        hetzner_.set(&record_set, 300, &records).await.unwrap();
        let actions = script.lines();
        assert!(actions[1].ends_with("&page=2"), "{actions:?}");
        let path = "POST /v1/zones/example.org/rrsets/_mta-sts/TXT/actions";
        assert_eq!(
            actions[2..],
            [format!("{path}/set_records"), format!("{path}/add_records"), format!("{path}/change_ttl")]
        );
        let body: Value = serde_json::from_str(&script.bodies()[3]).unwrap();
        assert_eq!(
            body,
            json!({"records": [{"value": "\"site\"", "comment": "ours"}, {"value": "\"a\\\"b\""}]})
        );
        let script = Script::new([(200, first); 60]);
        assert!(hetzner(&script).list(&record_set).await.is_err());
        assert_eq!(script.lines().len(), 50);
    }
}
