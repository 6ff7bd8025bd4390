//! Requests about the settings of domains: list, read, replace and remove. The `ETag` names a version of the settings, so that
//! a change by `If-Match` never overwrites one that its author has not seen.

use super::problem::{Problem, ProblemType};
use super::{Api, Caller, domain, json_answer, page_limit, unknown_domain};
use crate::auth::digest;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use config::Config;
use config::failure::Failure;
use formats::{DomainName, Mode};
use operations::{Removal, RolloutContext};
use receiver::domain::DomainSpec;
use receiver::publish::alias_lines;
use receiver::rollout::RolloutState;
use receiver::rollout::guard::Alert;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Tenant;
use store::domains::Expected;

/// Domains that one request with filters looks through at most.
const MAX_SCANNED: usize = 10_000;
/// Hexadecimal digits of an `ETag`.
const TAG_DIGITS: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
    mode: Option<ModeFilter>,
    alert: Option<String>,
    tag: Option<String>,
}

/// The mode that senders know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeFilter {
    Enforce,
    Testing,
    None,
    Off,
}

impl ModeFilter {
    fn has(self, mode: Option<Mode>) -> bool {
        let wanted = match self {
            Self::Enforce => Some(Mode::Enforce),
            Self::Testing => Some(Mode::Testing),
            Self::None => Some(Mode::None),
            Self::Off => None,
        };
        mode == wanted
    }
}

/// A domain of a list; the settings can't be read if they are damaged.
struct Listed {
    name: String,
    in_file: bool,
    spec: Result<DomainSpec, String>,
}

pub async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit);
    let with_alert = match &query.alert {
        Some(kind) => Some(names_with_alert(&api, &caller, kind).await?),
        None => None,
    };
    let is_filtered = query.mode.is_some() || query.tag.is_some() || with_alert.is_some();
    let (mut after, mut scanned) = (query.after.to_ascii_lowercase(), 0);
    loop {
        let (page, next) = page(&api, &caller, &after, limit).await?;
        scanned += page.len();
        let names: Vec<&str> = page.iter().map(|one| one.name.as_str()).collect();
        let rollouts = api.store(&caller).rollouts_of::<RolloutState>(&names).await?;
        let rollout = |name: &str| rollouts.get(name).and_then(|state| state.as_ref().ok());
        let is_wanted = |one: &&Listed| {
            let mode = rollout(&one.name).and_then(|state| state.mode).map(|known| known.mode);
            let has_tag = |tag: &String| {
                one.spec.as_ref().is_ok_and(|spec| spec.tags.iter().any(|one| one.as_str() == tag))
            };
            query.mode.is_none_or(|wanted| wanted.has(mode))
                && query.tag.as_ref().is_none_or(has_tag)
                && with_alert.as_ref().is_none_or(|names| names.contains(&one.name))
        };
        let shown = |one: &Listed| match &one.spec {
            Ok(spec) => {
                let mode = rollout(&one.name).and_then(|state| state.mode);
                json!({ "in_file": one.in_file, "wanted": spec, "mode": mode })
            }
            Err(why) => json!({ "in_file": one.in_file, "name": one.name, "damaged": why }),
        };
        let domains: Vec<Value> = page.iter().filter(is_wanted).map(shown).collect();
        match next {
            Some(next) if is_filtered && domains.is_empty() && scanned < MAX_SCANNED => after = next,
            next => {
                return Ok(json_answer(
                    StatusCode::OK,
                    &json!({ "schema": 1, "domains": domains, "next": next }),
                ));
            }
        }
    }
}

async fn names_with_alert(api: &Api, caller: &Caller, kind: &str) -> Result<BTreeSet<String>, Problem> {
    let active = api.store(caller).alerts::<Alert>().await?;
    let is_wanted = |alert: &Alert| kind == "any" || alert.kind.to_string() == kind;
    Ok(active.into_iter().filter(|one| is_wanted(&one.alert)).map(|one| one.domain).collect())
}

/// Up to `limit` domains by name after a cursor, and the next cursor.
async fn page(
    api: &Api,
    caller: &Caller,
    after: &str,
    limit: u32,
) -> Result<(Vec<Listed>, Option<String>), Problem> {
    let in_file = file_domains(api, caller).iter().filter(|spec| spec.name.as_str() > after);
    let mut all: Vec<Listed> = in_file
        .map(|spec| Listed { name: spec.name.to_string(), in_file: true, spec: Ok(spec.clone()) })
        .collect();
    let stored = api.store(caller).domains_after::<DomainSpec>(after, limit).await?;
    let is_all = stored.len() < limit as usize;
    all.extend(stored.into_iter().map(|(name, spec)| Listed {
        name,
        in_file: false,
        spec: spec.map_err(|error| error.to_string()),
    }));
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let is_cut = !is_all || all.len() > limit as usize;
    all.truncate(limit as usize);
    let next = all.last().filter(|_| is_cut).map(|last| last.name.clone());
    Ok((all, next))
}

/// The domains of the configuration file, which are of the first tenant.
fn file_domains<'a>(api: &'a Api, caller: &Caller) -> &'a [DomainSpec] {
    if caller.tenant == Tenant::FIRST { &api.file_domains } else { &[] }
}

/// The stored settings of a domain, as their text.
async fn stored_text(context: &RolloutContext, name: &DomainName) -> Result<Option<String>, Problem> {
    Ok(context.store.domain_text(name).await?)
}

pub async fn one(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let name = domain(&name)?;
    let (context, spec) = api.find(&caller, &name).await?;
    let text = match stored_text(&context, &name).await? {
        Some(text) => text,
        None => settings_text(&spec),
    };
    answer(&context, StatusCode::OK, &spec, &text, None).await
}

pub async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let name = domain(&name)?;
    let context = api.base.of_tenant(caller.tenant).await?;
    context.only_in_store(&name).map_err(in_file)?;
    let spec = parse_spec(&context.config, &name, parse_json(&body)?)?;
    let before = stored_text(&context, &name).await?;
    let expected = expected(&headers, before.as_deref(), &name)?;
    let text = settings_text(&spec);
    let is_same = before.as_ref() == Some(&text);
    if !is_same && !context.keep_if(&spec, expected, &caller.who).await? {
        return Err(version_differs(&name));
    }
    let status = if before.is_none() { StatusCode::CREATED } else { StatusCode::OK };
    answer(&context, status, &spec, &text, Some(!is_same)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    /// Removes the domain even if senders may still cache its policy.
    #[serde(default)]
    although_bound: bool,
}

pub async fn remove(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(query): Query<RemoveQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = domain(&name)?;
    let context = api.base.of_tenant(caller.tenant).await?;
    context.only_in_store(&name).map_err(in_file)?;
    let Some(before) = stored_text(&context, &name).await? else { return Err(unknown_domain(&name)) };
    let expected = expected(&headers, Some(&before), &name)?;
    let removal = if query.although_bound { Removal::AlthoughBound } else { Removal::Free };
    match context.remove_if(&name, removal, expected, &caller.who).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(version_differs(&name)),
    }
}

/// A domain as responses show it. `changed` is set in the answer to a change.
async fn answer(
    context: &RolloutContext,
    status: StatusCode,
    spec: &DomainSpec,
    text: &str,
    changed: Option<bool>,
) -> Result<Response, Problem> {
    let rollout = context.rollout(&spec.name).await?;
    let aliases = context.delegated_names(spec);
    let mut body = json!({
        "schema": 1,
        "in_file": context.is_in_file(&spec.name),
        "wanted": spec,
        "mode": rollout.mode,
        "aliases": alias_lines(&aliases),
    });
    if let (Some(changed), Some(members)) = (changed, body.as_object_mut()) {
        members.insert("changed".to_owned(), changed.into());
    }
    let mut response = json_answer(status, &body);
    if let Ok(value) = HeaderValue::from_str(&entity_tag(text)) {
        response.headers_mut().insert(ETAG, value);
    }
    Ok(response)
}

/// The settings as the store would have them.
pub(super) fn settings_text(spec: &DomainSpec) -> String {
    serde_json::to_string(spec).unwrap_or_default()
}

/// The `ETag` of settings.
fn entity_tag(text: &str) -> String {
    format!("\"{}\"", digest(text).get(..TAG_DIGITS).unwrap_or_default())
}

/// What the settings have to be by the headers `If-Match` and `If-None-Match` (RFC 9110 §13.1).
fn expected<'t>(
    headers: &HeaderMap,
    before: Option<&'t str>,
    name: &DomainName,
) -> Result<Expected<'t>, Problem> {
    let values = |header| {
        let all = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        all.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).collect::<Vec<String>>()
    };
    let names = |tags: &[String], text: &str| tags.iter().any(|tag| tag == "*" || *tag == entity_tag(text));
    let if_match = values(IF_MATCH);
    if headers.contains_key(IF_MATCH) {
        return match before.filter(|text| names(&if_match, text)) {
            Some(text) => Ok(Expected::Text(text)),
            None => Err(version_differs(name)),
        };
    }
    let if_none_match = values(IF_NONE_MATCH);
    match before {
        Some(text) if names(&if_none_match, text) => Err(version_differs(name)),
        None if headers.contains_key(IF_NONE_MATCH) => Ok(Expected::Absent),
        _ => Ok(Expected::Any),
    }
}

fn version_differs(name: &DomainName) -> Problem {
    let remedy = format!("Read them again, and repeat the change with the new ETag: GET /v1/domains/{name}");
    let why = "its settings are not those that If-Match or If-None-Match names";
    Problem::new(ProblemType::VersionDiffers, format!("{name} is not changed"), why, remedy)
}

fn in_file(failure: Failure) -> Problem {
    Problem::of(ProblemType::DomainInFile, &failure)
}

/// Parses the body of a PUT as JSON.
fn parse_json(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| wrong("the settings are invalid", &error))?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(wrong("the settings are invalid", &"the body is not a JSON object")),
    }
}

/// The settings of a domain from their members. What they do not say has the value of `[defaults]`. The `name` may be omitted, and
/// must otherwise be that of the domain.
pub(super) fn parse_spec(
    config: &Config,
    name: &DomainName,
    mut fields: Map<String, Value>,
) -> Result<DomainSpec, Problem> {
    let wrong = |why: &dyn std::fmt::Display| wrong(&format!("the settings for {name} are invalid"), why);
    let given = fields.entry("name").or_insert_with(|| name.to_string().into());
    if given.as_str().and_then(|text| DomainName::parse(text).ok()).as_ref() != Some(name) {
        return Err(wrong(&"its name differs from the name in the path"));
    }
    config.add_defaults(&mut fields);
    serde_json::from_value(Value::Object(fields)).map_err(|error| wrong(&error))
}

pub(super) fn wrong(what: &str, why: &dyn std::fmt::Display) -> Problem {
    let remedy = "Send a JSON object with the settings that differ from the defaults, such as {\"host\":\"self\",\"rua\":[\"mailto:tlsrpt@example.org\"]} (docs/api.md).";
    Problem::new(ProblemType::SettingsNotValid, what, why, remedy)
}
