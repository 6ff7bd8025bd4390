//! The interfaces of five DNS providers, as their documentation describes them, on one HTTPS server. What they are told
//! is put into Knot, so that it shows on name servers.

use crate::https::Answer;
use crate::support::shell;
use lab::pki::Pki;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Where each of them is.
pub const HOSTS: [(&str, &str); 5] = [
    ("cloudflare", "api.cloudflare.com"),
    ("desec", "desec.io"),
    ("digitalocean", "api.digitalocean.com"),
    ("hetzner", "api.hetzner.cloud"),
    ("route53", "route53.amazonaws.com"),
];
pub const TOKEN: &str = "t0ken-0f-the-0perator";
pub const TSIG: &str = "c3Rlcm5wb3N0IHN0ZXJucG9zdCBzdGVybnBvc3QhISE=";

/// What goes wrong.
#[derive(Default)]
pub struct Moods {
    /// Changes are accepted, and not published.
    pub deaf: AtomicBool,
    /// Aliases are refused.
    pub no_aliases: AtomicBool,
    /// The next request is one too many.
    pub busy: AtomicBool,
    /// A request that is never answered, so that the program can be killed at that moment.
    pub cut: Mutex<Option<Cut>>,
}

/// Which request is never answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cut {
    /// How many requests come before it.
    pub before: usize,
    /// Whether it has its effect.
    pub has_effect: bool,
    /// Whether only requests that change something are counted.
    pub is_change: bool,
    /// True once it has come.
    pub has_come: bool,
    /// True once it has come and has had its effect, if any.
    pub is_over: bool,
}

impl Cut {
    /// Counts a request; true if it is the one.
    fn meets(&mut self, is_change: bool) -> bool {
        if self.has_come || self.is_change && !is_change {
            return false;
        }
        self.has_come = self.before == 0;
        self.before = self.before.saturating_sub(1);
        self.has_come
    }
}

struct Record {
    id: u64,
    name: String,
    kind: String,
    /// In zone-file form.
    data: String,
}

pub struct Api {
    records: Mutex<Vec<Record>>,
    next_id: AtomicU64,
    pub moods: Moods,
    /// Requests that changed something.
    pub changes: Mutex<Vec<String>>,
}

/// Status and body.
type Told = (u16, String);

struct Asked<'a> {
    method: &'a str,
    path: Vec<&'a str>,
    query: BTreeMap<String, String>,
    body: &'a str,
}

impl Api {
    /// On port 443 of an address, on a thread of its own.
    pub fn start(address: &str, pki: &Pki, records: &[(&str, &str, &str)]) -> Arc<Self> {
        let this = Arc::new(Self {
            records: Mutex::default(),
            next_id: AtomicU64::new(1000),
            moods: Moods::default(),
            changes: Mutex::default(),
        });
        for (name, kind, data) in records {
            this.add(name, kind, data);
        }
        let api = this.clone();
        let hosts = HOSTS.map(|(_, host)| host);
        crate::https::serve(&format!("{address}:443"), pki, &hosts, move |request| {
            let (status, body) = api.answer_or_cut(request);
            let headers = match status {
                429 => vec![("retry-after", "0".to_owned())],
                _ => Vec::new(),
            };
            Answer { status, headers, body }
        });
        this
    }

    fn answer_or_cut(&self, request: &crate::https::Asked) -> Told {
        let cut = {
            let mut cut = self.moods.cut.lock().unwrap();
            cut.as_mut().and_then(|cut| cut.meets(request.method != "GET").then_some(*cut))
        };
        match cut {
            None => self.answer(request),
            Some(cut) => {
                if cut.has_effect {
                    self.answer(request);
                }
                if let Some(cut) = self.moods.cut.lock().unwrap().as_mut() {
                    cut.is_over = true;
                }
                (0, String::new())
            }
        }
    }

    fn answer(&self, request: &crate::https::Asked) -> Told {
        let header = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let asked = Asked {
            method: &request.method,
            path: request.path.split('/').filter(|part| !part.is_empty()).collect(),
            query: request
                .query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.replace("%2E", ".").replace("%40", "@")))
                .collect(),
            body: &request.body,
        };
        if request.method != "GET" {
            let line = format!("{} {} {}", request.method, request.path, request.body);
            self.changes.lock().unwrap().push(line);
        }
        let bearer = format!("Bearer {TOKEN}");
        if self.moods.busy.swap(false, Ordering::SeqCst) {
            return (429, String::new());
        }
        match header("host") {
            "api.cloudflare.com" if header("authorization") != bearer => (
                403,
                r#"{"success":false,"errors":[{"code":9109,"message":"Invalid access token"}]}"#.to_owned(),
            ),
            "api.cloudflare.com" => self.cloudflare(&asked),
            "desec.io" if header("authorization") != format!("Token {TOKEN}") => {
                (401, r#"{"detail":"Invalid token."}"#.to_owned())
            }
            "desec.io" => self.desec(&asked),
            "api.digitalocean.com" | "api.hetzner.cloud" if header("authorization") != bearer => {
                (401, r#"{"id":"unauthorized","message":"Unable to authenticate you"}"#.to_owned())
            }
            "api.digitalocean.com" => self.digitalocean(&asked),
            "api.hetzner.cloud" => self.hetzner(&asked),
            _ if !is_signed(request) => (
                403,
                "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>".to_owned(),
            ),
            _ => self.route53(&asked),
        }
    }

    fn add(&self, name: &str, kind: &str, data: &str) {
        let id = self.next_id.fetch_add(1, Ordering::SeqCst);
        let record = Record { id, name: name.to_owned(), kind: kind.to_owned(), data: data.to_owned() };
        self.records.lock().unwrap().push(record);
    }

    /// Ids and data at a name.
    pub fn at(&self, name: &str, kind: &str) -> Vec<(u64, String)> {
        let records = self.records.lock().unwrap();
        let is_it = |record: &&Record| record.name == name && record.kind == kind;
        records.iter().filter(is_it).map(|record| (record.id, record.data.clone())).collect()
    }

    /// The data of the records that are there.
    pub fn data(&self, name: &str, kind: &str) -> Vec<String> {
        self.at(name, kind).into_iter().map(|(_, data)| data).collect()
    }

    /// Adds a record as all of them do: no alias beside anything else.
    fn create(&self, name: &str, kind: &str, data: &str) -> Result<(), String> {
        let other = |kind: &str| !self.at(name, kind).is_empty();
        if kind == "CNAME" && (other("A") || other("AAAA") || self.moods.no_aliases.load(Ordering::SeqCst))
            || kind != "CNAME" && other("CNAME")
        {
            return Err(format!("{name} can't have {kind} beside what is there"));
        }
        self.add(name, kind, data);
        self.publish(name, kind);
        Ok(())
    }

    fn remove(&self, is_it: impl Fn(&Record) -> bool) -> bool {
        let mut records = self.records.lock().unwrap();
        let (gone, kept): (Vec<_>, Vec<_>) = records.drain(..).partition(is_it);
        *records = kept;
        drop(records);
        for record in &gone {
            self.publish(&record.name, &record.kind);
        }
        !gone.is_empty()
    }

    /// All records of a kind at a name.
    fn set(&self, name: &str, kind: &str, data: &[String]) -> Result<(), String> {
        self.remove(|record| record.name == name && record.kind == kind);
        data.iter().try_for_each(|data| self.create(name, kind, data))
    }

    /// Name servers get what is there.
    pub fn publish(&self, name: &str, kind: &str) {
        if self.moods.deaf.load(Ordering::SeqCst) {
            return;
        }
        let zone = ZONES.iter().find(|zone| name.ends_with(*zone)).unwrap();
        let add: String = self
            .at(name, kind)
            .iter()
            .map(|(_, data)| format!("update add {name}. 2 {kind} {}\n", data.replace('"', "\\\"")))
            .collect();
        let lines = format!(
            "server 127.0.1.1\nzone {zone}.\nkey hmac-sha256:sternpost {TSIG}\nupdate delete {name}. {kind}\n{add}send\n"
        );
        shell(&format!("printf '%s' '{lines}' | sed 's/\\\\\"/\"/g' | knsupdate"));
    }

    fn cloudflare(&self, asked: &Asked<'_>) -> Told {
        let fine = |result: Value| {
            (200, json!({"success": true, "errors": [], "messages": [], "result": result}).to_string())
        };
        let bad = |code: u32, message: &str| {
            let errors = json!([{"code": code, "message": message}]);
            (400, json!({"success": false, "errors": errors, "messages": [], "result": null}).to_string())
        };
        let zone = "0123456789abcdef0123456789abcdef";
        match (asked.method, &asked.path[..]) {
            ("GET", ["client", "v4", "zones"]) => match asked.query["name"].as_str() {
                name @ "cloudflare.test" => {
                    fine(json!([{"id": zone, "name": name, "status": "active", "type": "full"}]))
                }
                _ => fine(json!([])),
            },
            ("GET", ["client", "v4", "zones", _, "dns_records"]) => {
                let (name, kind) = (&asked.query["name"], &asked.query["type"]);
                // It keeps texts as they were typed, and names without the last dot.
                let shown = |data: &str| match data == "\"site=verification\"" {
                    true => data.trim_matches('"').to_owned(),
                    false => data.trim_end_matches('.').to_owned(),
                };
                let list: Vec<Value> = self
                    .at(name, kind)
                    .iter()
                    .map(|(id, data)| {
                        json!({"id": format!("{id:032x}"), "zone_id": zone, "zone_name": "cloudflare.test", "name": name,
                               "type": kind, "content": shown(data), "proxiable": kind != "TXT", "proxied": false, "ttl": 300,
                               "meta": {}, "comment": null, "tags": []})
                    })
                    .collect();
                fine(json!(list))
            }
            ("POST", ["client", "v4", "zones", _, "dns_records"]) => {
                let given: Value = serde_json::from_str(asked.body).unwrap();
                let (name, kind) = (given["name"].as_str().unwrap(), given["type"].as_str().unwrap());
                if given["proxied"] != json!(false) {
                    return bad(1004, "a proxied policy host is not what was asked for");
                }
                match self.create(name, kind, &zone_form(kind, given["content"].as_str().unwrap())) {
                    Ok(()) => fine(json!({"id": "x"})),
                    Err(why) => bad(81_053, &why),
                }
            }
            ("DELETE", ["client", "v4", "zones", _, "dns_records", id]) => {
                match self.remove(|record| format!("{:032x}", record.id) == *id) {
                    true => fine(json!({"id": id})),
                    false => bad(81_044, "Record does not exist."),
                }
            }
            _ => (404, String::new()),
        }
    }

    fn desec(&self, asked: &Asked<'_>) -> Told {
        let full =
            |sub: &str| format!("{}desec.test", if sub == "@" { String::new() } else { format!("{sub}.") });
        let set = |sub: &str, kind: &str| {
            let records: Vec<String> = self.at(&full(sub), kind).into_iter().map(|(_, data)| data).collect();
            let time = "2026-11-25T04:00:00.000000Z";
            json!({"created": time, "domain": "desec.test", "subname": sub, "name": full(sub) + ".", "type": kind,
                   "records": records, "ttl": 3600, "touched": time})
        };
        match (asked.method, &asked.path[..]) {
            ("GET", ["api", "v1", "domains", name]) if *name == "desec.test" => {
                (200, json!({"name": name, "minimum_ttl": 3600, "keys": []}).to_string())
            }
            ("GET", ["api", "v1", "domains", "desec.test", "rrsets", sub, kind]) => {
                match self.at(&full(sub), kind).is_empty() {
                    true => (404, r#"{"detail":"Not found."}"#.to_owned()),
                    false => (200, set(sub, kind).to_string()),
                }
            }
            ("PUT", ["api", "v1", "domains", "desec.test", "rrsets"]) => {
                let sets: Vec<Value> = serde_json::from_str(asked.body).unwrap();
                for set in &sets {
                    let kind = set["type"].as_str().unwrap();
                    let records: Vec<String> = serde_json::from_value(set["records"].clone()).unwrap();
                    if set["ttl"].as_u64().unwrap() < 3600 {
                        let why = r#"[{"ttl":["Ensure this value is greater than or equal to 3600."]}]"#;
                        return (400, why.to_owned());
                    }
                    if records.iter().any(|data| zone_form(kind, data) != *data) {
                        return (400, r#"[{"records":["Record content malformed."]}]"#.to_owned());
                    }
                    if let Err(why) = self.set(&full(set["subname"].as_str().unwrap()), kind, &records) {
                        return (400, json!([{"non_field_errors": [why]}]).to_string());
                    }
                }
                let told = sets
                    .iter()
                    .map(|given| set(given["subname"].as_str().unwrap(), given["type"].as_str().unwrap()));
                (200, json!(told.collect::<Vec<Value>>()).to_string())
            }
            ("DELETE", ["api", "v1", "domains", "desec.test", "rrsets", sub, kind]) => {
                let name = full(sub);
                self.remove(|record| record.name == name && record.kind == *kind);
                (204, String::new())
            }
            _ => (404, r#"{"detail":"Not found."}"#.to_owned()),
        }
    }

    fn digitalocean(&self, asked: &Asked<'_>) -> Told {
        let label = |name: &str| match name.strip_suffix(".digitalocean.test") {
            Some(label) => label.to_owned(),
            None => "@".to_owned(),
        };
        match (asked.method, &asked.path[..]) {
            (_, ["v2", "domains", zone, ..]) if *zone != "digitalocean.test" => (
                404,
                r#"{"id":"not_found","message":"The resource you were accessing could not be found."}"#
                    .to_owned(),
            ),
            ("GET", ["v2", "domains", _, "records"]) => {
                let (name, kind) = (&asked.query["name"], &asked.query["type"]);
                let shown = |data: &str| data.trim_matches('"').trim_end_matches('.').to_owned();
                let list: Vec<Value> = self
                    .at(name, kind)
                    .iter()
                    .map(|(id, data)| {
                        json!({"id": id, "type": kind, "name": label(name), "data": shown(data), "priority": null,
                               "port": null, "ttl": 1800, "weight": null, "flags": null, "tag": null})
                    })
                    .collect();
                (200, json!({"domain_records": list, "links": {}, "meta": {"total": list.len()}}).to_string())
            }
            ("POST", ["v2", "domains", _, "records"]) => {
                let given: Value = serde_json::from_str(asked.body).unwrap();
                let kind = given["type"].as_str().unwrap();
                let data = given["data"].as_str().unwrap();
                let unprocessable =
                    |why: &str| (422, json!({"id": "unprocessable_entity", "message": why}).to_string());
                if kind == "CNAME" && !data.ends_with('.') {
                    return unprocessable("Data needs to end with a dot (.)");
                }
                let name = format!("{}.digitalocean.test", given["name"].as_str().unwrap());
                match self.create(&name, kind, &zone_form(kind, data)) {
                    Ok(()) => (201, json!({"domain_record": given}).to_string()),
                    Err(why) => unprocessable(&why),
                }
            }
            ("DELETE", ["v2", "domains", _, "records", id]) => {
                self.remove(|record| record.id.to_string() == *id);
                (204, String::new())
            }
            _ => (404, String::new()),
        }
    }

    fn hetzner(&self, asked: &Asked<'_>) -> Told {
        let full = |label: &str| format!("{label}.hetzner.test");
        let missing =
            || (404, r#"{"error":{"code":"not_found","message":"not found","details":null}}"#.to_owned());
        let action =
            || (201, r#"{"action":{"id":1,"status":"running","progress":0,"error":null}}"#.to_owned());
        match (asked.method, &asked.path[..]) {
            ("GET", ["v1", "zones", "hetzner.test", "rrsets"]) => {
                let (label, kind) = (&asked.query["name"], &asked.query["type"]);
                let records: Vec<Value> = self
                    .at(&full(label), kind)
                    .iter()
                    .map(|(_, data)| json!({"value": data, "comment": ""}))
                    .collect();
                let sets = match records.is_empty() {
                    true => json!([]),
                    false => {
                        json!([{"id": format!("{label}/{kind}"), "name": label, "type": kind, "ttl": null,
                                     "labels": {}, "protection": {"change": false}, "records": records, "zone": 42}])
                    }
                };
                (200, json!({"rrsets": sets, "meta": {"pagination": {"page": 1}}}).to_string())
            }
            ("POST", ["v1", "zones", "hetzner.test", "rrsets", label, kind, "actions", what]) => {
                let name = full(label);
                let is_there = !self.at(&name, kind).is_empty();
                let given: Value = serde_json::from_str(asked.body).unwrap();
                if *what == "change_ttl" {
                    return if is_there { action() } else { missing() };
                }
                if *what == "set_records" && !is_there {
                    return missing();
                }
                let values: Vec<String> = given["records"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|record| record["value"].as_str().unwrap().to_owned())
                    .collect();
                if values.iter().any(|data| zone_form(kind, data) != *data) {
                    return (
                        422,
                        r#"{"error":{"code":"invalid_input","message":"invalid value"}}"#.to_owned(),
                    );
                }
                match self.set(&name, kind, &values) {
                    Ok(()) => action(),
                    Err(why) => {
                        (422, json!({"error": {"code": "invalid_input", "message": why}}).to_string())
                    }
                }
            }
            ("DELETE", ["v1", "zones", "hetzner.test", "rrsets", label, kind]) => {
                let name = full(label);
                match self.remove(|record| record.name == name && record.kind == *kind) {
                    true => action(),
                    false => missing(),
                }
            }
            _ => missing(),
        }
    }

    fn route53(&self, asked: &Asked<'_>) -> Told {
        let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
        let space = "xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"";
        match (asked.method, &asked.path[..]) {
            ("GET", ["2013-04-01", "hostedzonesbyname"]) => (
                200,
                format!(
                    "{head}<ListHostedZonesByNameResponse {space}><HostedZones><HostedZone><Id>/hostedzone/Z1PUBLIC</Id><Name>route53.test.</Name>\
                     <CallerReference>x</CallerReference><Config><PrivateZone>false</PrivateZone></Config><ResourceRecordSetCount>5</ResourceRecordSetCount></HostedZone></HostedZones>\
                     <IsTruncated>false</IsTruncated><MaxItems>100</MaxItems></ListHostedZonesByNameResponse>"
                ),
            ),
            ("GET", ["2013-04-01", "hostedzone", "Z1PUBLIC", "rrset"]) => {
                let name = asked.query["name"].trim_end_matches('.');
                let kind = &asked.query["type"];
                let values: String = self
                    .at(name, kind)
                    .iter()
                    .map(|(_, data)| {
                        format!(
                            "<ResourceRecord><Value>{}</Value></ResourceRecord>",
                            data.replace('"', "&quot;")
                        )
                    })
                    .collect();
                let set = match values.is_empty() {
                    true => String::new(),
                    false => format!(
                        "<ResourceRecordSet><Name>{name}.</Name><Type>{kind}</Type><TTL>300</TTL><ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
                    ),
                };
                (
                    200,
                    format!(
                        "{head}<ListResourceRecordSetsResponse {space}><ResourceRecordSets>{set}</ResourceRecordSets><IsTruncated>false</IsTruncated>\
                         <MaxItems>100</MaxItems></ListResourceRecordSetsResponse>"
                    ),
                )
            }
            ("POST", ["2013-04-01", "hostedzone", "Z1PUBLIC", "rrset"]) => {
                let one = |tag: &str| between(asked.body, tag).remove(0);
                let (name, kind) = (one("Name").trim_end_matches('.').to_owned(), one("Type"));
                let values = between(asked.body, "Value");
                let refused = |why: &str| {
                    (
                        400,
                        format!(
                            "{head}<ErrorResponse {space}><Error><Code>InvalidChangeBatch</Code><Message>{why}</Message></Error></ErrorResponse>"
                        ),
                    )
                };
                let done = match one("Action").as_str() {
                    "UPSERT" if values.iter().any(|data| kind == "TXT" && !data.starts_with('"')) => {
                        Err("InvalidCharacterString".to_owned())
                    }
                    "UPSERT" => {
                        let values: Vec<String> = values.iter().map(|data| zone_form(&kind, data)).collect();
                        self.set(&name, &kind, &values)
                    }
                    _ => {
                        let there: Vec<String> =
                            self.at(&name, &kind).into_iter().map(|(_, data)| data).collect();
                        match there == values {
                            true => self.set(&name, &kind, &[]),
                            false => Err("the values provided do not match the current values".to_owned()),
                        }
                    }
                };
                match done {
                    Ok(()) => (
                        200,
                        format!(
                            "{head}<ChangeResourceRecordSetsResponse {space}><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status></ChangeInfo></ChangeResourceRecordSetsResponse>"
                        ),
                    ),
                    Err(why) => refused(&why),
                }
            }
            _ => (
                404,
                "<ErrorResponse><Error><Code>NoSuchHostedZone</Code></Error></ErrorResponse>".to_owned(),
            ),
        }
    }
}

/// One zone each.
pub const ZONES: [&str; 5] =
    ["cloudflare.test", "desec.test", "digitalocean.test", "hetzner.test", "route53.test"];

fn zone_form(kind: &str, data: &str) -> String {
    match kind {
        "TXT" if !data.starts_with('"') => format!("\"{data}\""),
        "CNAME" if !data.ends_with('.') => format!("{data}."),
        _ => data.to_owned(),
    }
}

fn between(xml: &str, tag: &str) -> Vec<String> {
    xml.split(&format!("<{tag}>"))
        .skip(1)
        .map(|rest| rest.split("</").next().unwrap().replace("&quot;", "\""))
        .collect()
}

/// The signature of version 4, made again from what has come.
fn is_signed(request: &crate::https::Asked) -> bool {
    let header = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let authorization = header("authorization");
    let part = |name: &str| {
        let rest = authorization.split(&format!("{name}=")).nth(1).unwrap_or_default();
        rest.split([',', ' ']).next().unwrap_or_default().to_owned()
    };
    let credential = part("Credential");
    let Some((key_id, scope)) = credential.split_once('/') else { return false };
    let names = part("SignedHeaders");
    let headers: String = names.split(';').map(|name| format!("{name}:{}\n", header(name))).collect();
    let mut pairs: Vec<&str> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    pairs.sort_unstable();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let hash = |text: &str| hex(&Sha256::digest(text.as_bytes()));
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method,
        request.path,
        pairs.join("&"),
        hash(&request.body)
    );
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", header("x-amz-date"), hash(&canonical));
    let key =
        scope.split('/').fold(format!("AWS4{TOKEN}").into_bytes(), |key, part| hmac(&key, part.as_bytes()));
    key_id == "AKIAOPERATOR" && part("Signature") == hex(&hmac(&key, to_sign.as_bytes()))
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::digest([&pad(0x36)[..], data].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).to_vec()
}
