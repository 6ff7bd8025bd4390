//! The provider's endpoints and keys, from its metadata (OpenID Connect Discovery 1.0). They are read when somebody signs in,
//! and kept for an hour. A token by an unknown key has the keys read again, at most once a minute.

use super::https::{Answer, Transport};
use super::id_token::{Claims, Expected, TokenFault, verify};
use config::OidcConfig;
use data_encoding::BASE64;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode};
use jsonwebtoken::jwk::JwkSet;
use net::clock::Clock;
use net::percent::encoded;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// What the provider says about itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    issuer: String,
    pub authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    /// Whether a response names its issuer (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// Metadata and keys, with the times when they were read.
struct Known {
    metadata: Arc<Metadata>,
    keys: Arc<JwkSet>,
    read_at: Duration,
    keys_read_at: Duration,
}

/// The provider, as far as it is known.
pub struct Provider {
    config: OidcConfig,
    transport: Box<dyn Transport>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// What was last read, and the last failure to read it with its time: those who waited meanwhile get it too, in place of one
/// request each.
#[derive(Default)]
struct State {
    known: Option<Known>,
    failed: Option<(Duration, ProviderFault)>,
}

/// Why nobody can sign in, or why this user can't.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderFault {
    #[error("{0} can't be reached: {1}")]
    Unreachable(&'static str, String),
    #[error("{0} returned status {1}: {2}")]
    Status(&'static str, u16, String),
    #[error("{0} has no valid JSON of OpenID Connect: {1}")]
    Json(&'static str, String),
    #[error("the provider calls itself {0:?}. Set dashboard.oidc.issuer to exactly that")]
    Issuer(String),
    #[error("its metadata names {0:?} as an endpoint, which is not https")]
    Endpoint(String),
    #[error("the client secret {0} can't be read: {1}")]
    Secret(String, String),
    #[error("the ID token is not valid: {0}")]
    Token(#[from] TokenFault),
    #[error("the UserInfo response is about another user")]
    OtherUser,
}

/// What the errors call the parts of the provider.
const METADATA: &str = "the provider's metadata";
const KEYS: &str = "the provider's list of keys";
const TOKENS: &str = "the provider's token endpoint";
const USER_INFO: &str = "the provider's UserInfo endpoint";

/// How long metadata and keys are kept.
const LIFETIME: Duration = Duration::from_secs(3600);
/// The least time before keys are read again for a token by an unknown key.
const KEYS_PAUSE: Duration = Duration::from_secs(60);
/// The time after a failure in which the metadata is not requested again.
const FAILURE_PAUSE: Duration = Duration::from_secs(3);
/// The number of characters of an error response that are shown.
const ERROR_CHARACTERS: usize = 200;

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
    access_token: Option<String>,
}

impl Provider {
    pub fn new(config: OidcConfig, transport: Box<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self { config, transport, clock, state: Mutex::default() }
    }

    pub fn config(&self) -> &OidcConfig {
        &self.config
    }

    /// The provider's metadata, which is read if it is not known or too old.
    pub async fn metadata(&self) -> Result<Arc<Metadata>, ProviderFault> {
        let mut state = self.state.lock().await;
        let now = self.clock.elapsed();
        let is_within = |at: Duration, limit: Duration| now.saturating_sub(at) < limit;
        if let Some(known) = state.known.as_ref().filter(|known| is_within(known.read_at, LIFETIME)) {
            return Ok(known.metadata.clone());
        }
        if let Some((_, fault)) = state.failed.as_ref().filter(|(at, _)| is_within(*at, FAILURE_PAUSE)) {
            return Err(fault.clone());
        }
        let outcome = self.read().await;
        state.failed = outcome.as_ref().err().map(|fault| (self.clock.elapsed(), fault.clone()));
        Ok(state.known.insert(outcome?).metadata.clone())
    }

    /// Reads metadata and keys.
    async fn read(&self) -> Result<Known, ProviderFault> {
        let now = self.clock.elapsed();
        let url = format!("{}/.well-known/openid-configuration", self.config.issuer.trim_end_matches('/'));
        let metadata: Metadata = self.json(METADATA, get(&url, None)?).await?;
        if metadata.issuer != self.config.issuer {
            return Err(ProviderFault::Issuer(metadata.issuer));
        }
        let endpoints = [&metadata.authorization_endpoint, &metadata.token_endpoint, &metadata.jwks_uri];
        let endpoints = endpoints.into_iter().chain(&metadata.userinfo_endpoint);
        if let Some(open) = endpoints.into_iter().find(|url| !url.starts_with("https://")) {
            return Err(ProviderFault::Endpoint(open.clone()));
        }
        let keys = Arc::new(self.json(KEYS, get(&metadata.jwks_uri, None)?).await?);
        Ok(Known { metadata: Arc::new(metadata), keys, read_at: now, keys_read_at: now })
    }

    /// Exchanges the code of a sign-in for the user's claims.
    pub async fn claims(
        &self,
        code: &str,
        verifier: &str,
        nonce: &str,
        return_url: &str,
    ) -> Result<Claims, ProviderFault> {
        let metadata = self.metadata().await?;
        let request = self.token_request(&metadata, code, verifier, return_url)?;
        let answer: TokenAnswer = self.json(TOKENS, request).await?;
        let mut claims = self.verified(&metadata, &answer.id_token, nonce).await?;
        let is_missing = |claim: &String| !claims.contains_key(claim.as_str());
        let lacks = [&self.config.groups_claim, &self.config.name_claim].into_iter().any(is_missing);
        if let (true, Some(token), Some(url)) = (lacks, &answer.access_token, &metadata.userinfo_endpoint) {
            let more: Claims = self.json(USER_INFO, get(url, Some(token))?).await?;
            if more.get("sub") != claims.get("sub") {
                return Err(ProviderFault::OtherUser);
            }
            for (name, value) in more {
                claims.entry(name).or_insert(value);
            }
        }
        Ok(claims)
    }

    /// The claims of an ID token. The keys are read again if none fits.
    async fn verified(&self, metadata: &Metadata, token: &str, nonce: &str) -> Result<Claims, ProviderFault> {
        let expected = Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce,
            now: self.clock.now(),
        };
        let mut state = self.state.lock().await;
        let now = self.clock.elapsed();
        let Some(known) = state.known.as_mut() else { return Err(TokenFault::UnknownKey.into()) };
        let outcome = verify(token, &known.keys, expected);
        let is_due = now.saturating_sub(known.keys_read_at) >= KEYS_PAUSE;
        if outcome != Err(TokenFault::UnknownKey) || !is_due {
            return Ok(outcome?);
        }
        known.keys_read_at = now;
        known.keys = Arc::new(self.json(KEYS, get(&metadata.jwks_uri, None)?).await?);
        Ok(verify(token, &known.keys, expected)?)
    }

    /// The request that exchanges a code (RFC 6749 §4.1.3) with its PKCE verifier (RFC 7636).
    fn token_request(
        &self,
        metadata: &Metadata,
        code: &str,
        verifier: &str,
        return_url: &str,
    ) -> Result<Request<Full<Bytes>>, ProviderFault> {
        let id = &self.config.client_id;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", return_url),
            ("code_verifier", verifier),
        ];
        let secret = self.secret()?;
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let by_form = !methods.is_empty() && !methods.iter().any(|method| method == "client_secret_basic");
        let mut request = Request::builder().method(Method::POST).uri(&metadata.token_endpoint);
        match &secret {
            Some(secret) if !by_form => {
                let both = format!("{}:{}", encoded(id), encoded(secret));
                request = request
                    .header(AUTHORIZATION, sensitive(&format!("Basic {}", BASE64.encode(both.as_bytes())))?);
            }
            Some(secret) => fields.extend([("client_id", id.as_str()), ("client_secret", secret)]),
            None => fields.push(("client_id", id)),
        }
        let form: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        request
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(form.join("&"))))
            .map_err(|error| ProviderFault::Unreachable(TOKENS, error.to_string()))
    }

    fn secret(&self) -> Result<Option<String>, ProviderFault> {
        let Some(file) = &self.config.client_secret_file else { return Ok(None) };
        let text = std::fs::read_to_string(file)
            .map_err(|error| ProviderFault::Secret(file.display().to_string(), error.to_string()))?;
        Ok(Some(text.trim().to_owned()))
    }

    async fn json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: Request<Full<Bytes>>,
    ) -> Result<T, ProviderFault> {
        let sent = self.transport.send(request).await;
        let (status, body): Answer = sent.map_err(|why| ProviderFault::Unreachable(what, why))?;
        if status != StatusCode::OK {
            return Err(ProviderFault::Status(what, status.as_u16(), refusal(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| ProviderFault::Json(what, error.to_string()))
    }
}

/// The error code and description of a response (RFC 6749 §5.2), shortened. A response of another form may repeat a secret.
fn refusal(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    match (text("error"), text("error_description")) {
        (code, _) if code.is_empty() => "without an error code".to_owned(),
        (code, about) => shown(&format!("{code} {about}")),
    }
}

/// A text of the provider as pages and logs show it: shortened, and without control characters.
pub fn shown(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control()).take(ERROR_CHARACTERS);
    plain.collect::<String>().trim().to_owned()
}

fn get(url: &str, bearer: Option<&str>) -> Result<Request<Full<Bytes>>, ProviderFault> {
    let mut request = Request::builder().method(Method::GET).uri(url).header(ACCEPT, "application/json");
    if let Some(token) = bearer {
        request = request.header(AUTHORIZATION, sensitive(&format!("Bearer {token}"))?);
    }
    request.body(Full::default()).map_err(|_| ProviderFault::Endpoint(shown(url)))
}

fn sensitive(text: &str) -> Result<HeaderValue, ProviderFault> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| ProviderFault::Json(TOKENS, "a token can't be sent in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
