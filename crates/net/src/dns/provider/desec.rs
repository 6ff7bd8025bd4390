//! The deSEC API, version 1. It handles whole record sets in presentation format, with a minimum TTL of one hour.

use super::http::{Api, Call};
use super::record::{Escapes, Record, label};
use super::{Dialect, Fault, RecordSet};
use crate::BoxFuture;
use formats::DomainName;
use hyper::Method;
use serde::Deserialize;
use serde_json::json;

/// The host name of the API.
pub(super) const HOST: &str = "desec.io";

/// The minimum TTL, in seconds, that deSEC accepts in most zones. Shorter TTLs are raised to it.
const MIN_TTL: u32 = 3600;

pub(super) struct DeSec(pub(super) Api);

#[derive(Deserialize)]
struct Set {
    records: Vec<String>,
}

fn path_of(record_set: &RecordSet<'_>) -> Result<String, Fault> {
    let label = label(record_set.name, record_set.zone)?.unwrap_or("@");
    Ok(format!("/api/v1/domains/{}/rrsets/{label}/{}/", record_set.zone, record_set.kind.as_str()))
}

impl Dialect for DeSec {
    /// The domain with the name of the configured zone, or the nearest that encloses it.
    fn find_zone<'a>(
        &'a self,
        zone: &'a DomainName,
        _: &'a DomainName,
    ) -> BoxFuture<'a, Result<String, Fault>> {
        Box::pin(async move {
            let mut candidate = zone.as_str();
            loop {
                let call = Call::new(Method::GET, format!("/api/v1/domains/{candidate}/"));
                match self.0.send(&call).await {
                    Ok(_) => return Ok(candidate.to_owned()),
                    Err(Fault::NotFound) => {}
                    Err(error) => return Err(error),
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
            let set: Set = match self.0.json(&Call::new(Method::GET, path_of(record_set)?)).await {
                Ok(set) => set,
                Err(Fault::NotFound) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let records = set.records.iter();
            records.map(|text| Record::listed(record_set.kind, text, Escapes::Decimal)).collect()
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
                return match self.0.send(&Call::new(Method::DELETE, path_of(record_set)?)).await {
                    Ok(_) | Err(Fault::NotFound) => Ok(()),
                    Err(error) => Err(error),
                };
            }
            let texts: Vec<String> = records.iter().map(|record| record.text(Escapes::Decimal)).collect();
            let set = json!({
                "subname": label(record_set.name, record_set.zone)?.unwrap_or_default(),
                "type": record_set.kind.as_str(),
                "ttl": ttl.max(MIN_TTL),
                "records": texts,
            });
            let path = format!("/api/v1/domains/{}/rrsets/", record_set.zone);
            self.0.send(&Call::json(Method::PUT, path, &[set])?).await.map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::script::Script;
    use super::super::record::{Data, Kind};
    use super::*;

    fn desec(script: &Script) -> DeSec {
        DeSec(Api::with_token(Box::new(script.clone()), HOST, "Token", "t").unwrap())
    }

    #[tokio::test]
    async fn sets_are_replaced_whole_and_unchanged_records_are_sent_as_listed() {
        let name = DomainName::parse("_mta-sts.example.org").unwrap();
        let record_set = RecordSet { zone: "example.org", name: &name, kind: Kind::Txt };
        let script =
            Script::new([(200, r#"{"records":["\"a\\200\" \"b\""]}"#), (200, "[]"), (404, ""), (204, "")]);
        let desec = desec(&script);
        let mut records = desec.list(&record_set).await.unwrap();
        records.push(Record::new(Data::Txt(b"c".to_vec())));
        desec.set(&record_set, 300, &records).await.unwrap();
        let body: serde_json::Value = serde_json::from_str(&script.bodies()[1]).unwrap();
        assert_eq!(
            body,
            json!([{"subname": "_mta-sts", "type": "TXT", "ttl": 3600, "records": ["\"a\\200\" \"b\"", "\"c\""]}])
        );
        assert_eq!(desec.list(&record_set).await.unwrap(), []);
        desec.set(&record_set, 300, &[]).await.unwrap();
        assert_eq!(script.lines()[3], "DELETE /api/v1/domains/example.org/rrsets/_mta-sts/TXT/");
    }

    #[tokio::test]
    async fn a_rejected_key_is_not_reported_as_a_missing_zone() {
        let zone = DomainName::parse("mail.example.org").unwrap();
        let found = |answers: [(u16, &'static str); 2]| {
            let script = Script::new(answers);
            let zone = zone.clone();
            async move { desec(&script).find_zone(&zone, &zone).await }
        };
        assert_eq!(found([(404, ""), (200, "{}")]).await.unwrap(), "example.org");
        assert!(matches!(found([(401, ""), (401, "")]).await, Err(Fault::Unauthorized)));
        assert!(matches!(found([(404, ""), (404, "")]).await, Err(Fault::NotFound)));
    }
}
