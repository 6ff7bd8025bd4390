//! Tokens: how a request proves which one it has, and the requests that list, create and revoke them. The token of the file
//! `admin.token_file` has all scopes of the first tenant.

use super::problem::{Problem, ProblemType};
use super::scope::{Scope, Scopes};
use super::{Api, Caller, json_answer, parse_body};
use crate::auth::{digest, random_token};
use crate::client_addr::ClientAddr;
use crate::counts::refused_token;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use config::failure::Failure;
use formats::limits::API_TOKENS;
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use operations::store_failure;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path as FilePath;
use std::sync::Arc;
use store::api_tokens::{AddedToken, ApiToken, NewApiToken, USE_INTERVAL};
use store::{Store, Tenant};

/// The minimum length of the token of a file, in characters, against guessing.
const MIN_TOKEN_CHARS: usize = 24;
/// What a token of the store begins with, by which people and scanners recognize it.
const PREFIX: &str = "sternpost_";
/// The maximum length of a name, in characters.
const MAX_NAME_CHARS: usize = 40;
/// The actor that the journal names for changes by the token of the file.
const API_ACTOR: &str = "api";
/// The longest time until a token expires, in days.
pub const MAX_DAYS: u32 = 3650;

/// The digest of the token in a file.
pub(super) fn of_file(file: &FilePath) -> Result<[u8; 32], Failure> {
    let shown = file.display();
    let remedy = "Create a token file that only Sternpost and your control panel can read:\n  (umask 077; openssl rand -hex 32 > admin.token)";
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("the token file {shown} can't be read"), error, remedy))?;
    let token = text.trim();
    if token.len() < MIN_TOKEN_CHARS {
        let why = format!("the token is shorter than {MIN_TOKEN_CHARS} characters");
        return Err(Failure::usage(format!("the token file {shown} can't be used"), why, remedy));
    }
    Ok(Sha256::digest(token).into())
}

/// Who sends a request, by its token.
pub(super) async fn authenticate(
    api: &Api,
    headers: &HeaderMap,
    client: Option<ClientAddr>,
) -> Result<Caller, Problem> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let token =
        given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    if let Some(token) = token {
        // Comparing digests in constant time keeps the timing independent of the token.
        let is_of_file = |digest: [u8; 32]| {
            verify_slices_are_equal(&digest, &<[u8; 32]>::from(Sha256::digest(token))).is_ok()
        };
        if api.file_token.is_some_and(is_of_file) {
            let who = API_ACTOR.to_owned();
            return Ok(Caller { tenant: Tenant::FIRST, scopes: Scopes::all(), who, expires_at: None });
        }
        if token.starts_with(PREFIX)
            && let Some(found) = stored(api, token).await?
        {
            let who = format!("{API_ACTOR}:{}", found.name);
            let scopes = Scopes::parse(&found.scopes);
            return Ok(Caller { tenant: found.tenant, scopes, who, expires_at: found.expires_at });
        }
    }
    refused_token("admin", client.and_then(|client| client.0));
    Err(Problem::new(
        ProblemType::TokenRefused,
        "the token is missing or wrong",
        "every request needs a token of the interface that was not revoked and has not expired",
        "Send it as `Authorization: Bearer TOKEN`. Create one: sternpost tokens add NAME --scope read",
    ))
}

/// The token of the store, whose use is recorded. It is found by its digest, whose comparison says nothing about the token.
async fn stored(api: &Api, token: &str) -> Result<Option<ApiToken>, Problem> {
    let (store, now, digest) = (&api.base.store, api.base.world.clock.now(), digest(token));
    let Some(found) = store.api_token_of(&digest, now).await? else { return Ok(None) };
    // Nothing is done any more for a tenant that is being erased.
    if !api.tenants.all().await?.iter().any(|one| one.tenant == found.tenant) {
        return Ok(None);
    }
    let is_recent = |used: Timestamp| used <= now && now.duration_since(used) < USE_INTERVAL;
    if !found.last_used.is_some_and(is_recent) {
        store.api_token_used(&digest, now).await?;
    }
    Ok(Some(found))
}

/// When a new token expires.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    /// After this many days; `None` if it need not expire.
    pub days: Option<u32>,
    /// With the token that creates it, so that a leaked token gives access no longer than its own time; `None` if that does not expire.
    pub latest: Option<Timestamp>,
}

/// Creates a token, which is returned and can't be read again.
///
/// # Errors
///
/// If the name is not valid or taken, if there are too many tokens, or if the store fails.
pub async fn create(
    store: &Store,
    now: Timestamp,
    name: &str,
    scopes: &Scopes,
    Ends { days, latest }: Ends,
) -> Result<(String, ApiToken), Failure> {
    let wrong = |why: String, remedy: &str| {
        Err(Failure::usage(format!("the token {name:?} is not created"), why, remedy))
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_CHARS || !name.chars().all(is_plain) {
        let why = format!("a name has 1 to {MAX_NAME_CHARS} letters, digits and the characters . _ -");
        return wrong(why, "Choose another name.");
    }
    if scopes.is_empty() {
        let names = Scope::ALL.map(Scope::as_str).join(", ");
        return wrong("it has no scope".to_owned(), &format!("Name at least one of {names}."));
    }
    if days.is_some_and(|days| !(1..=MAX_DAYS).contains(&days)) {
        return wrong(format!("it has to expire in 1 to {MAX_DAYS} days"), "Choose another time, or none.");
    }
    let token = format!("{PREFIX}{}", random_token()?);
    let wanted = days.map(|days| later(now, SignedDuration::from_hours(24 * i64::from(days))));
    let expires_at = wanted.into_iter().chain(latest).min();
    let (digest, names) = (digest(&token), scopes.to_string());
    let new = NewApiToken { digest: &digest, name, scopes: &names, created_at: now, expires_at };
    match store.add_api_token(&new, API_TOKENS).await.map_err(|error| store_failure(&error))? {
        AddedToken::Stored => {}
        AddedToken::NameTaken => {
            let remedy = "Revoke it, or choose another name.";
            return Err(Failure::finding(
                format!("the token {name} is not created"),
                "there is one of this name",
                remedy,
            ));
        }
        AddedToken::TooMany => {
            let remedy = "Revoke tokens that are no longer used.";
            let why = format!("there are {API_TOKENS} tokens, which is the most");
            return Err(Failure::finding(format!("the token {name} is not created"), why, remedy));
        }
    }
    let (tenant, name) = (store.tenant(), name.to_owned());
    Ok((token, ApiToken { tenant, name, scopes: names, created_at: now, expires_at, last_used: None }))
}

/// A token as lists show it.
pub fn shown(token: &ApiToken) -> Value {
    json!({
        "name": token.name,
        "scopes": token.scopes.split(' ').collect::<Vec<_>>(),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used": token.last_used,
    })
}

pub async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let all = api.store(&caller).api_tokens().await?;
    let tokens: Vec<Value> = all.iter().map(shown).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "schema": 1, "tokens": tokens })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    scopes: Vec<Scope>,
    expires_in_days: Option<u32>,
}

pub async fn add(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let new: NewToken = parse_body(&body, r#"{"name":"panel","scopes":["read"],"expires_in_days":90}"#)?;
    let scopes: Scopes = new.scopes.into_iter().collect();
    if let Some(scope) = scopes.beyond(&caller.scopes) {
        return Err(scope_missing(scope, "a token can't create one that may do more than itself"));
    }
    let now = api.base.world.clock.now();
    let ends = Ends { days: new.expires_in_days, latest: caller.expires_at };
    let (token, stored) = create(&api.store(&caller), now, &new.name, &scopes, ends).await?;
    let mut answer = shown(&stored);
    if let Some(members) = answer.as_object_mut() {
        members.insert("schema".to_owned(), 1.into());
        members.insert("token".to_owned(), token.into());
    }
    Ok(json_answer(StatusCode::CREATED, &answer))
}

pub async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    match api.store(&caller).revoke_api_token(&name).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => {
            let remedy = "List the tokens: GET /v1/tokens";
            Err(Problem::new(
                ProblemType::UnknownToken,
                "unknown token",
                "there is none of this name",
                remedy,
            ))
        }
    }
}

/// The token does not have a scope that the request needs.
pub(super) fn scope_missing(scope: Scope, why: &str) -> Problem {
    let what = format!("the token does not have the scope {scope}");
    let remedy = format!("Use a token that has it: sternpost tokens add NAME --scope {scope}");
    Problem::new(ProblemType::ScopeMissing, what, why, remedy)
}
