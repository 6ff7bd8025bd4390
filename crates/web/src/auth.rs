//! Authentication: who a request comes from. The first user is created through a one-time link, others by an invitation.
//! Passwords are stored as Argon2id strings (`passwords`), sessions as digests of a random token in a cookie. Each form
//! carries a CSRF token derived from the session.
//!
//! Every way to sign in ends in [`Auth::sign_in`], which starts the session; a further one, such as OpenID Connect, needs
//! only a route that verifies the user and a [`Method`]. Users belong to a [`Tenant`]. A request has the
//! tenant of its path (`tenant_path`); sessions and invitations know theirs.

use crate::base_path::BasePath;
use crate::client_addr::ClientAddr;
use crate::counts::{Address, SafeName, WebCounts};
use crate::known_browser::{self, Credentials};
use crate::layout::{Answer, ErrorPage};
use crate::passwords::PasswordHashing;
use crate::sign_in_limits::{Account, Attempt, CodeKind, SignInLimits, Source};
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
use net::rate_limit::{RateLimiter, network};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::people::Person;
use store::sessions::NewSession;
use store::{Store, Tenant};
use tokio::sync::OnceCell;

/// Verifies passwords, manages sessions, and limits failed attempts.
pub struct Auth {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    /// The accepted origins, in lower case: that of the URL first.
    origins: Vec<Origin>,
    /// Whether cookies get the attribute `Secure`.
    is_https: bool,
    /// The path that cookies are sent to.
    base: BasePath,
    pub passwords: PasswordHashing,
    pub limits: SignInLimits,
    /// Lines of the log about attempts that were refused before they were judged, for each network.
    delays: RateLimiter,
    /// The moment at which the clock's elapsed time was zero, for `delays`.
    begun: Instant,
    signer: OnceCell<Signer>,
}

/// An address of the dashboard, as browsers name it in `Host` and `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: &'static str,
    host: String,
}

/// A user who has shown who they are, with what was verified.
pub struct Verified<'p> {
    pub tenant: Tenant,
    pub person: &'p Person,
    pub method: Method,
    /// The secret of the second factor whose code was verified.
    pub second_factor: Option<String>,
}

/// How a user was authenticated.
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

/// The name of the session cookie, after [`cookie_prefix`].
const COOKIE_NAME: &str = "sternpost";
/// The lifetime of a session.
const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The maximum number of different cookies of one name in a request that are tried. It is more than browsers keep for all hosts
/// of a registered domain (about 180), so that no other host of the domain can hide the session's own cookie behind others.
const MAX_COOKIES: usize = 200;
/// The time between two lines of the log about refused attempts of one network.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The address that clients of unknown address count under.
const UNKNOWN_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
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

/// The origins of the dashboard: that of its URL, without the default port, and its listen addresses.
fn origins(config: &DashboardConfig) -> Vec<Origin> {
    let (scheme, rest) = config.url.split_once("://").unwrap_or(("http", &config.url));
    let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let (scheme, port) = if scheme == "https" { ("https", ":443") } else { ("http", ":80") };
    let mut origins = vec![Origin { scheme, host: host.strip_suffix(port).unwrap_or(&host).to_owned() }];
    let scheme = if config.certificate.is_some() { "https" } else { "http" };
    for at in config.listen.iter().filter_map(|at| at.tcp()) {
        for host in [at.to_string(), format!("localhost:{}", at.port())] {
            origins.push(Origin { scheme, host });
        }
    }
    origins
}

/// What cookies' names begin with: browsers then accept them over HTTPS only and, at the root of a host, from this host
/// only, so that a program on a host beside it can't set them (RFC 6265bis §4.1.3).
fn cookie_prefix(is_https: bool, base: &BasePath) -> &'static str {
    match is_https {
        true if base.as_str().is_empty() => "__Host-",
        true => "__Secure-",
        false => "",
    }
}

impl Auth {
    pub fn new(store: Store, clock: Arc<dyn Clock>, config: &DashboardConfig) -> Result<Self, Failure> {
        Ok(Self {
            store,
            clock,
            origins: origins(config),
            is_https: config.url.starts_with("https://"),
            base: BasePath::of(&config.url),
            passwords: PasswordHashing::new()?,
            limits: SignInLimits::default(),
            delays: RateLimiter::new(1, LOG_INTERVAL),
            begun: Instant::now(),
            signer: OnceCell::new(),
        })
    }

    /// The key that signs cookies and forms. It is read from the store once.
    pub async fn signer(&self) -> Result<&Signer, Failure> {
        self.signer.get_or_try_init(|| Signer::of(&self.store)).await
    }

    /// The host of the dashboard's URL.
    pub fn host(&self) -> &str {
        self.origins.first().map_or("", |origin| &origin.host)
    }

    /// True if the dashboard has this host, in lower case.
    pub fn has_host(&self, host: &str) -> bool {
        self.origins.iter().any(|own| own.host == host)
    }

    /// True if this is the value of `Origin` of a page of the dashboard at this host; both in lower case.
    pub fn is_own_origin(&self, origin: &str, host: &str) -> bool {
        let found = origin.split_once("://");
        self.origins.iter().any(|own| own.host == host && found == Some((own.scheme, host)))
    }

    /// The user and the session of the cookie in the request; `None` without a valid session.
    pub async fn visitor(&self, headers: &HeaderMap) -> Result<Option<(Visitor, CurrentSession)>, ErrorPage> {
        let tokens: BTreeMap<String, &str> =
            self.cookies(headers, COOKIE_NAME).into_iter().map(|token| (digest(token), token)).collect();
        let digests: Vec<&str> = tokens.keys().map(String::as_str).collect();
        let found = self.store.session_of(&digests, self.clock.now()).await?;
        Ok(found.and_then(|(digest, tenant, person)| {
            let (role, csrf_token) = (Role::parse(&person.role), csrf_token(tokens.get(&digest)?));
            let is_of_installation = tenant == Tenant::FIRST;
            let visitor = Visitor { name: person.name, role, csrf_token, is_of_installation };
            Some((visitor, CurrentSession { tenant, digest }))
        }))
    }

    /// Where an attempt to sign in to the account of this user comes from; `None` if there is no such user.
    pub async fn source(
        &self,
        tenant: Tenant,
        person: Option<&Person>,
        client: ClientAddr,
        headers: &HeaderMap,
    ) -> Result<Source, ErrorPage> {
        let cookies = self.cookies(headers, known_browser::COOKIE_NAME);
        let browser = match person {
            Some(person) if !cookies.is_empty() => {
                let second_factor = self.store.second_factor(tenant, &person.name).await?;
                let account = Credentials {
                    tenant,
                    name: &person.name,
                    password: &person.password,
                    second_factor: second_factor.as_deref(),
                };
                let (signer, now) = (self.signer().await?, self.clock.now());
                cookies.iter().find_map(|value| known_browser::browser(signer, &account, value, now))
            }
            _ => None,
        };
        Ok(Source { address: client.0, browser })
    }

    /// Begins an attempt with a password; the error is the time to wait.
    pub fn begin_password(&self, tenant: Tenant, name: &str, source: Source) -> Result<Attempt, Duration> {
        self.limits.begin_password(Account::new(tenant, name), source, self.clock.elapsed())
    }

    /// Begins an attempt with a code; the error is the time to wait.
    pub fn begin_code(
        &self,
        tenant: Tenant,
        name: &str,
        kind: CodeKind,
        source: Source,
    ) -> Result<Attempt, Duration> {
        self.limits.begin_code(Account::new(tenant, name), kind, source, self.clock.elapsed())
    }

    /// Logs that an attempt was refused before it was judged: a line for each network and [`LOG_INTERVAL`], since refusing
    /// costs next to nothing. The metric counts all.
    pub fn log_delay(&self, name: &str, client: ClientAddr) {
        WebCounts::shared().sign_ins.inc(&["throttled"]);
        let network = network(client.0.unwrap_or(UNKNOWN_ADDRESS));
        if self.delays.take(network, self.begun + self.clock.elapsed()) {
            tracing::info!(name = %SafeName(name), address = %Address(client.0), "sign-in delayed");
        }
    }

    /// Starts a session with a new token, regardless of any cookie that the browser sent, marks the browser as known to
    /// the account, and redirects to `/`. No session starts if the user has another password or second factor by now.
    pub async fn sign_in(&self, user: Verified<'_>, client: ClientAddr, headers: &HeaderMap) -> Answer {
        let Verified { tenant, person, method, second_factor } = user;
        let token = random_token()?;
        let now = self.clock.now();
        let address = client.0.map(|address| address.to_canonical().to_string()).unwrap_or_default();
        let new = NewSession {
            digest: &digest(&token),
            tenant,
            name: &person.name,
            password: &person.password,
            second_factor: second_factor.as_deref(),
            begun_at: now,
            expires_at: later(now, SESSION_LIFETIME),
            address: &address,
            browser: &browser_name(headers),
        };
        if !self.store.put_session(&new).await? {
            let what = "The password or the second factor was changed meanwhile. Sign in again.";
            return Err(ErrorPage::new(StatusCode::UNAUTHORIZED, what));
        }
        WebCounts::shared().sign_ins.inc(&["succeeded"]);
        tracing::info!(name = person.name, address, %method, "signed in");
        let account = Credentials {
            tenant,
            name: &person.name,
            password: &person.password,
            second_factor: second_factor.as_deref(),
        };
        let known = self.known_browser(&account).await?;
        let cookies = AppendHeaders([self.cookie(COOKIE_NAME, &token, SESSION_LIFETIME), known]);
        Ok((cookies, Redirect::to("/")).into_response())
    }

    /// The header that marks the browser as known to an account. What changes the password or the second factor sets it
    /// anew in the browser of the user.
    pub async fn known_browser(&self, account: &Credentials<'_>) -> Result<(HeaderName, String), Failure> {
        let random = random_token()?;
        let value = known_browser::value(self.signer().await?, account, &random, self.clock.now());
        Ok(self.cookie(known_browser::COOKIE_NAME, &value, known_browser::LIFETIME))
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
        let prefix = cookie_prefix(self.is_https, &self.base);
        let attributes = format!("Path={path}; HttpOnly; SameSite=Lax; Max-Age={age}{secure}");
        (SET_COOKIE, format!("{prefix}{name}={value}; {attributes}"))
    }

    /// The different values of the cookies of this name in the request. A browser may send several, which a program on another
    /// host of the domain may have set.
    fn cookies<'h>(&self, headers: &'h HeaderMap, name: &str) -> BTreeSet<&'h str> {
        let name = format!("{}{name}", cookie_prefix(self.is_https, &self.base));
        let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let values = all
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value);
        let mut different = BTreeSet::new();
        for value in values {
            if different.len() < MAX_COOKIES {
                different.insert(value);
            }
        }
        different
    }
}

/// The text of the `User-Agent` header, shortened and without control characters.
fn browser_name(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(MAX_BROWSER_CHARS).collect()
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
            let origin = &origins(&config.dashboard.unwrap())[0];
            assert_eq!((origin.scheme, origin.host.as_str()), (url.split_once(':').unwrap().0, host));
        }
    }
}
