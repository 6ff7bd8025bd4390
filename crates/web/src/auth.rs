//! Authentication: who a request comes from. The first user is created through a one-time link, others by an invitation.
//! Passwords are stored as Argon2id strings (`passwords`), sessions as digests of a random token in a cookie. Each form
//! carries a CSRF token derived from the session.
//!
//! Every way to sign in ends in [`Auth::sign_in`], which starts the session; a further one, such as OpenID Connect, needs
//! only a route that verifies the user and a [`Method`]. Users belong to a [`Tenant`]. A request has the
//! tenant of its path (`tenant_path`); sessions and invitations know theirs.

use crate::base_path::BasePath;
use crate::client_addr::ClientAddr;
use crate::counts::WebCounts;
use crate::known_browser;
use crate::layout::{Answer, ErrorPage};
use crate::passwords::PasswordHashing;
use crate::sign_in_limits::{Account, Attempt, SignInLimits, Source};
use crate::signer::Signer;
use crate::visitor::{CurrentSession, Role, Visitor};
use axum::http::header::{COOKIE, SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use config::DashboardConfig;
use config::failure::Failure;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jiff::SignedDuration;
use net::clock::{Clock, later};
use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use store::people::Person;
use store::sessions::NewSession;
use store::{Store, Tenant};
use tokio::sync::OnceCell;

/// Verifies passwords, manages sessions, and limits failed attempts.
pub struct Auth {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    /// The accepted values of the `Host` header, in lower case.
    pub hosts: Vec<String>,
    /// Whether cookies get the attribute `Secure`.
    is_https: bool,
    /// The path that cookies are sent to.
    base: BasePath,
    pub passwords: PasswordHashing,
    pub limits: SignInLimits,
    signer: OnceCell<Signer>,
}

/// How a user showed who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Password,
    PasswordAndCode,
    PasswordAndRecoveryCode,
    Invitation,
}

impl Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password => "password",
            Self::PasswordAndCode => "password and code",
            Self::PasswordAndRecoveryCode => "password and recovery code",
            Self::Invitation => "invitation",
        })
    }
}

/// The session cookie's name.
const COOKIE_NAME: &str = "sternpost";
/// The lifetime of a session.
const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The maximum length of a browser's name that is stored, in characters.
const MAX_BROWSER_CHARS: usize = 200;

/// Fills the buffer with random bytes.
///
/// # Errors
///
/// If the system can't provide them.
pub fn fill_random(bytes: &mut [u8]) -> Result<(), Failure> {
    let fail = |_| Failure::new("can't create a secret", "the system provides no random bytes", "");
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(bytes).map_err(fail)
}

/// A random token of 256 bits, in base64url.
pub fn random_token() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    fill_random(&mut bytes)?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

/// The SHA-256 digest of a token in hexadecimal. The store holds only digests.
pub fn digest(token: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(token))
}

/// Derives a session's CSRF token from its session token, so that it needs no storage and expires with the session.
fn csrf_token(sign_in: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(format!("form {sign_in}")))
}

/// The hosts of the dashboard: that of its URL, without the default port, and its listen addresses.
fn hosts(config: &DashboardConfig) -> Vec<String> {
    let (scheme, rest) = config.url.split_once("://").unwrap_or(("http", &config.url));
    let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let port = if scheme == "https" { ":443" } else { ":80" };
    let mut hosts = vec![host.strip_suffix(port).unwrap_or(&host).to_owned()];
    for at in config.listen.iter().filter_map(|at| at.tcp()) {
        hosts.push(at.to_string());
        hosts.push(format!("localhost:{}", at.port()));
    }
    hosts
}

impl Auth {
    pub fn new(store: Store, clock: Arc<dyn Clock>, config: &DashboardConfig) -> Result<Self, Failure> {
        Ok(Self {
            store,
            clock,
            hosts: hosts(config),
            is_https: config.url.starts_with("https://"),
            base: BasePath::of(&config.url),
            passwords: PasswordHashing::new()?,
            limits: SignInLimits::default(),
            signer: OnceCell::new(),
        })
    }

    /// What signs cookies and forms.
    pub async fn signer(&self) -> Result<&Signer, Failure> {
        self.signer.get_or_try_init(|| Signer::of(&self.store)).await
    }

    /// The user and the session of the cookie in the request; `None` without a valid session.
    pub async fn visitor(&self, headers: &HeaderMap) -> Result<Option<(Visitor, CurrentSession)>, ErrorPage> {
        let Some(token) = cookie(headers, COOKIE_NAME) else { return Ok(None) };
        let digest = digest(token);
        let found = self.store.session_user(&digest, self.clock.now()).await?;
        Ok(found.map(|(tenant, person)| {
            let visitor =
                Visitor { name: person.name, role: Role::parse(&person.role), csrf_token: csrf_token(token) };
            (visitor, CurrentSession { tenant, digest })
        }))
    }

    /// Where an attempt to sign in to this account comes from.
    pub async fn source(
        &self,
        tenant: Tenant,
        name: &str,
        client: ClientAddr,
        headers: &HeaderMap,
    ) -> Result<Source, Failure> {
        let browser = match cookie(headers, known_browser::COOKIE_NAME) {
            Some(value) => {
                known_browser::browser(self.signer().await?, tenant, name, value, self.clock.now())
            }
            None => None,
        };
        Ok(Source { address: client.0, browser })
    }

    /// Begins an attempt with a password; the error is the time to wait.
    pub fn begin_password(&self, tenant: Tenant, name: &str, source: Source) -> Result<Attempt, Duration> {
        self.limits.begin_password(Account::new(tenant, name), source, self.clock.elapsed())
    }

    /// Begins an attempt with a code; the error is the time to wait.
    pub fn begin_code(&self, tenant: Tenant, name: &str, source: Source) -> Result<Attempt, Duration> {
        self.limits.begin_code(Account::new(tenant, name), source, self.clock.elapsed())
    }

    /// Starts a session with a new token, regardless of any cookie that the browser sent, marks the browser as known to
    /// the account, and redirects to `/`.
    pub async fn sign_in(
        &self,
        tenant: Tenant,
        person: &Person,
        method: Method,
        client: ClientAddr,
        headers: &HeaderMap,
    ) -> Answer {
        let (token, random) = (random_token()?, random_token()?);
        let now = self.clock.now();
        let address = client.0.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        let new = NewSession {
            digest: &digest(&token),
            tenant,
            name: &person.name,
            begun_at: now,
            expires_at: later(now, SESSION_LIFETIME),
            address: &address,
            browser: &browser_name(headers),
        };
        self.store.put_session(&new).await?;
        WebCounts::shared().sign_ins.inc(&["succeeded"]);
        tracing::info!(name = person.name, address, %method, "signed in");
        let known = known_browser::value(self.signer().await?, tenant, &person.name, &random, now);
        let cookies = AppendHeaders([
            self.cookie(COOKIE_NAME, &token, SESSION_LIFETIME),
            self.cookie(known_browser::COOKIE_NAME, &known, known_browser::LIFETIME),
        ]);
        Ok((cookies, Redirect::to("/")).into_response())
    }

    /// Ends the session, and redirects to the sign-in page.
    pub async fn sign_out(&self, session: &CurrentSession) -> Answer {
        self.store.sign_out(&session.digest).await?;
        let expired = AppendHeaders([self.cookie(COOKIE_NAME, "", SignedDuration::ZERO)]);
        Ok((expired, Redirect::to("/sign-in")).into_response())
    }

    /// The header that sets a cookie. An age of zero deletes it.
    fn cookie(&self, name: &str, value: &str, age: SignedDuration) -> (HeaderName, String) {
        let secure = if self.is_https { "; Secure" } else { "" };
        let (path, age) = (self.base.cookie_path(), age.as_secs());
        (SET_COOKIE, format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"))
    }
}

/// What the browser says about itself, without control characters.
fn browser_name(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(MAX_BROWSER_CHARS).collect()
}

/// The value of a cookie in the request.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// Rejects a form without the session's CSRF token.
pub fn verify_csrf(visitor: &Visitor, token: &str) -> Result<(), ErrorPage> {
    // Comparing digests keeps the timing independent of the token.
    if digest(token) == digest(&visitor.csrf_token) {
        return Ok(());
    }
    Err(ErrorPage::new(
        StatusCode::FORBIDDEN,
        "The form has expired. Go back, reload the page, and try again.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_the_url_is_that_of_the_header_without_the_default_port() {
        for (url, host) in [
            ("https://Tools.example.org/sternpost", "tools.example.org"),
            ("https://a.example:443", "a.example"),
            ("https://a.example:8443/x/y", "a.example:8443"),
            ("http://a.example:80", "a.example"),
            ("http://[::1]:8460", "[::1]:8460"),
        ] {
            let config = config::Config::parse(&format!("[dashboard]\nurl = \"{url}\"\n"), None).unwrap();
            assert_eq!(hosts(&config.dashboard.unwrap())[0], host);
        }
    }
}
