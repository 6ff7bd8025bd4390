//! Signing in by an OpenID Connect provider (OpenID Connect Core 1.0, authorization code flow with PKCE): `/sign-in/oidc` sends the
//! browser to the provider, which sends it back to `/sign-in/oidc/return` with a code. The code is exchanged for an ID token,
//! whose claims say who the user is and, by the user's groups, with which role.
//!
//! Between the two requests the browser holds a signed cookie ([`attempt`]), so that nothing is stored for somebody who does not
//! come back, and a return that this browser did not begin counts for nothing. Users of the provider are stored with the digest of their
//! issuer and subject in place of a password, so that a user of the same name with a password is never theirs.

mod attempt;
mod https;
mod id_token;
mod provider;
#[cfg(test)]
mod tests;

use crate::auth::{Method, Verified, digest};
use crate::client_addr::ClientAddr;
use crate::counts::{Address, SafeName, WebCounts};
use crate::layout::{Answer, ErrorPage};
use crate::sign_in;
use crate::state::Dashboard;
use crate::visitor::Role;
use attempt::Attempt;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use config::OidcConfig;
use https::{Https, Transport};
use id_token::Claims;
use net::clock::Clock;
use net::percent::encoded;
use net::rate_limit::{RateLimiter, network};
use provider::{Provider, ProviderFault, shown};
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Tenant;
use store::people::Person;
use tokio::sync::Semaphore;

/// Signing in by the configured provider.
pub struct Oidc {
    provider: Provider,
    /// Returns for each network, since each may cause a request to the provider.
    returns: RateLimiter,
    /// Requests to the provider at once.
    places: Semaphore,
    begun: Instant,
    clock: Arc<dyn Clock>,
}

/// Returns that each network may make within [`RETURN_TIME`].
const RETURNS: u32 = 20;
const RETURN_TIME: Duration = Duration::from_secs(60);
/// Exchanges with the provider at once.
const EXCHANGES: usize = 16;
/// The maximum length of a user name from the provider, in characters.
const MAX_NAME_CHARS: usize = 64;
/// What the stored credential of a provider's user begins with. No password hash does.
const CREDENTIAL_PREFIX: &str = "oidc$";
/// The path that the provider sends the browser back to, below `dashboard.url`.
const RETURN_PATH: &str = "/sign-in/oidc/return";

/// True if this is the stored credential of a provider's user, not the hash of a password.
pub fn is_of_provider(credential: &str) -> bool {
    credential.starts_with(CREDENTIAL_PREFIX)
}

impl Oidc {
    pub fn new(config: OidcConfig, tls: &Arc<ClientConfig>, clock: Arc<dyn Clock>) -> Self {
        Self::with(config, Box::new(Https::new(tls)), clock)
    }

    fn with(config: OidcConfig, transport: Box<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            provider: Provider::new(config, transport, clock.clone()),
            returns: RateLimiter::new(RETURNS, RETURN_TIME),
            places: Semaphore::new(EXCHANGES),
            begun: Instant::now(),
            clock,
        }
    }

    /// The provider's name on pages.
    pub fn name(&self) -> &str {
        &self.provider.config().name
    }

    /// The user that the claims describe.
    fn user(&self, claims: &Claims) -> Result<ProviderUser, SignInFault> {
        let config = self.provider.config();
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let name = claims.get(&config.name_claim).and_then(Value::as_str);
        let name = name.ok_or_else(|| SignInFault::NoName(config.name_claim.clone()))?;
        let is_valid = (1..=MAX_NAME_CHARS).contains(&name.chars().count())
            && name.chars().all(|c| c.is_alphanumeric() || "._-@+".contains(c));
        if !is_valid {
            return Err(SignInFault::Name(shown(name)));
        }
        let groups: Vec<&str> = match claims.get(&config.groups_claim) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is_in = |wanted: &[String]| wanted.iter().any(|group| groups.contains(&group.as_str()));
        let role = match (is_in(&config.operator_groups), is_in(&config.reader_groups)) {
            (true, _) => Some(Role::Operator),
            (false, true) => Some(Role::Reader),
            (false, false) => None,
        };
        let account = digest(&format!("{}\n{subject}", config.issuer));
        Ok(ProviderUser { name: name.to_owned(), role, credential: format!("{CREDENTIAL_PREFIX}{account}") })
    }
}

/// A user whom the provider has verified.
struct ProviderUser {
    name: String,
    /// The role by the user's groups; `None` if none of them is listed.
    role: Option<Role>,
    /// Which account of which provider this is, stored in place of a password hash.
    credential: String,
}

/// Why a sign-in by the provider failed, as the user reads it.
#[derive(Debug, thiserror::Error)]
enum SignInFault {
    #[error("This sign-in was not begun in this browser, or took too long. Sign in again.")]
    NotBegun,
    #[error("Too many sign-ins. Try again in a minute.")]
    TooMany,
    #[error("The provider did not sign you in: {0}")]
    Refused(String),
    #[error("Signing in by the provider failed: {0}.")]
    Provider(#[from] ProviderFault),
    #[error(
        "The provider does not say your name in the claim {0:?}. An operator can set dashboard.oidc.name_claim or dashboard.oidc.scopes."
    )]
    NoName(String),
    #[error("Your name {0:?} can't be a user name here: it has to be 1 to 64 letters, digits and ._-@+.")]
    Name(String),
    #[error(
        "You are in none of the groups that may use this dashboard. An operator sets them in dashboard.oidc."
    )]
    NoGroup,
    #[error(
        "The user name {0} belongs to somebody else here. An operator can remove that user: sternpost dashboard remove {0}"
    )]
    NameTaken(String),
}

impl SignInFault {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotBegun | Self::Refused(_) => StatusCode::UNAUTHORIZED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Provider(_) => StatusCode::BAD_GATEWAY,
            Self::NoName(_) | Self::Name(_) | Self::NoGroup | Self::NameTaken(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// The provider of this tenant's users.
fn provider_of(dashboard: &Dashboard, tenant: Tenant) -> Result<&Oidc, ErrorPage> {
    let what = "This dashboard has no sign-in by a provider.";
    dashboard.oidc(tenant).ok_or_else(|| ErrorPage::new(StatusCode::NOT_FOUND, what))
}

/// Sends the browser to the provider.
pub async fn begin(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(tenant): Extension<Tenant>,
    Extension(client): Extension<ClientAddr>,
) -> Answer {
    let oidc = provider_of(&dashboard, tenant)?;
    let metadata = match oidc.metadata(client).await {
        Ok(metadata) => metadata,
        Err(fault) => return failed(&dashboard, tenant, client, None, &fault),
    };
    let attempt = Attempt::new(dashboard.auth.clock.now())?;
    let config = oidc.provider.config();
    let query = [
        ("response_type", "code"),
        ("client_id", &config.client_id),
        ("redirect_uri", &return_url(&dashboard)),
        ("scope", &config.scopes.join(" ")),
        ("state", &attempt.state),
        ("nonce", &attempt.nonce),
        ("code_challenge", &attempt.challenge()),
        ("code_challenge_method", "S256"),
    ];
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let endpoint = &metadata.authorization_endpoint;
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    let cookie = dashboard.auth.cookie(
        attempt::COOKIE_NAME,
        &attempt.sign(dashboard.auth.signer().await?),
        attempt::LIFETIME,
    );
    let to = format!("{endpoint}{joint}{}", query.join("&"));
    Ok((AppendHeaders([cookie]), Redirect::to(&to)).into_response())
}

impl Oidc {
    async fn metadata(&self, client: ClientAddr) -> Result<Arc<provider::Metadata>, SignInFault> {
        self.admit(client)?;
        let _place = self.places.try_acquire().map_err(|_| SignInFault::TooMany)?;
        Ok(self.provider.metadata().await?)
    }

    /// Counts a request that may cause one to the provider.
    fn admit(&self, client: ClientAddr) -> Result<(), SignInFault> {
        let network = network(client.0.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        match self.returns.take(network, self.begun + self.clock.elapsed()) {
            true => Ok(()),
            false => Err(SignInFault::TooMany),
        }
    }

    /// The claims of the user who came back.
    async fn claims(&self, attempt: &Attempt, code: &str, return_url: &str) -> Result<Claims, SignInFault> {
        let _place = self.places.try_acquire().map_err(|_| SignInFault::TooMany)?;
        Ok(self.provider.claims(code, &attempt.verifier, &attempt.nonce, return_url).await?)
    }
}

/// What the provider adds to the return URL (RFC 6749 §4.1.2, RFC 9207).
#[derive(Deserialize)]
pub struct Returned {
    #[serde(default)]
    state: String,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Signs in the user whom the provider has sent back.
pub async fn come_back(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(tenant): Extension<Tenant>,
    Extension(client): Extension<ClientAddr>,
    Query(returned): Query<Returned>,
    headers: HeaderMap,
) -> Answer {
    let oidc = provider_of(&dashboard, tenant)?;
    let auth = &dashboard.auth;
    let signer = auth.signer().await?;
    let cookies = auth.cookies(&headers, attempt::COOKIE_NAME);
    let attempt =
        cookies.iter().find_map(|value| Attempt::read(value, signer, auth.clock.now(), &returned.state));
    let Some(attempt) = attempt else {
        return failed(&dashboard, tenant, client, None, &SignInFault::NotBegun);
    };
    let user = match verified(oidc, client, &attempt, returned, &return_url(&dashboard)).await {
        Ok(user) => user,
        Err(fault) => return failed(&dashboard, tenant, client, None, &fault),
    };
    let Some(role) = user.role else {
        end_access(&dashboard, tenant, &user).await?;
        return failed(&dashboard, tenant, client, Some(&user.name), &SignInFault::NoGroup);
    };
    let person = Person { name: user.name, role: role.as_str().to_owned(), password: user.credential };
    if !auth.store.put_provider_user(tenant, &person).await? {
        let fault = SignInFault::NameTaken(person.name.clone());
        return failed(&dashboard, tenant, client, Some(&person.name), &fault);
    }
    let user = Verified { tenant, person: &person, method: Method::Provider, second_factor: None };
    let response = auth.sign_in(user, client, &headers).await?;
    Ok((AppendHeaders([auth.cookie(attempt::COOKIE_NAME, "", jiff::SignedDuration::ZERO)]), response)
        .into_response())
}

async fn verified(
    oidc: &Oidc,
    client: ClientAddr,
    attempt: &Attempt,
    returned: Returned,
    return_url: &str,
) -> Result<ProviderUser, SignInFault> {
    oidc.admit(client)?;
    let issuer = &oidc.provider.config().issuer;
    // A response of another provider, which the browser was led to (RFC 9207 §2.4).
    let must_name = oidc.provider.metadata().await?.authorization_response_iss_parameter_supported;
    if returned.iss.as_ref().map_or(must_name, |named| named != issuer) {
        return Err(SignInFault::Refused("the response is not by the configured issuer.".to_owned()));
    }
    if let Some(error) = returned.error {
        let about = returned.error_description.unwrap_or_default();
        return Err(SignInFault::Refused(shown(&format!("{error} {about}"))));
    }
    let code = returned.code.ok_or_else(|| SignInFault::Refused("the response has no code.".to_owned()))?;
    let claims = oidc.claims(attempt, &code, return_url).await?;
    oidc.user(&claims)
}

/// Removes a user whose groups no longer allow access, with their sessions.
async fn end_access(dashboard: &Dashboard, tenant: Tenant, user: &ProviderUser) -> Result<(), ErrorPage> {
    let store = &dashboard.auth.store;
    // By the account: the name may be another one since the last sign-in.
    let all = store.people(tenant).await?;
    for person in all.iter().filter(|person| person.password == user.credential) {
        store.remove_person(tenant, &person.name).await?;
        tracing::info!(name = %SafeName(&person.name), "user removed: in none of the groups of dashboard.oidc any more");
    }
    Ok(())
}

fn return_url(dashboard: &Dashboard) -> String {
    format!("{}{RETURN_PATH}", dashboard.config.url)
}

/// The sign-in page with the reason, which is also logged.
fn failed(
    dashboard: &Dashboard,
    tenant: Tenant,
    client: ClientAddr,
    name: Option<&str>,
    fault: &SignInFault,
) -> Answer {
    WebCounts::shared().sign_ins.inc(&["failed"]);
    let name = SafeName(name.unwrap_or_default());
    tracing::warn!(%name, address = %Address(client.0), "sign-in by the provider failed: {}", shown(&fault.to_string()));
    sign_in::first_step(dashboard, tenant, fault.status(), &fault.to_string())
}
