//! Authentication. The first user is created through a one-time link, others by an invitation. Passwords are stored
//! as Argon2id strings, sessions as digests of a random token in a cookie. Each form carries a CSRF token derived
//! from the session.

use crate::layout::{Answer, ErrorPage};
use crate::visitor::{Role, Visitor};
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect};
use config::DashboardConfig;
use config::failure::Failure;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jiff::{SignedDuration, Timestamp};
use net::clock::{Clock, later};
use net::rate_limit::RateLimiter;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Store;
use store::people::Person;
use tokio::sync::Semaphore;

/// Verifies passwords, manages sessions, and limits failed attempts.
pub struct Auth {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    /// The accepted values of the `Host` header, in lower case.
    pub hosts: Vec<String>,
    /// Whether cookies get the attribute `Secure`.
    is_https: bool,
    /// Limits concurrent password checks, since Argon2 needs much memory and CPU time.
    password_checks: Semaphore,
    /// Failed attempts by user name: their number, and the time from which the next attempt is allowed.
    failed: Mutex<HashMap<String, (u32, Timestamp)>>,
    /// Attempts by client address, for any user name.
    pub attempts: RateLimiter,
    /// A hash to verify against if the user name is unknown, so that both cases take equally long.
    dummy_hash: String,
}

/// The session cookie's name.
const COOKIE_NAME: &str = "sternpost";
/// The lifetime of a session.
const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The lifetime of an invitation.
const INVITATION_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Failed attempts for one user name before a delay applies.
const ATTEMPTS_PER_NAME: u32 = 5;
/// The delay between attempts once that limit is reached.
const ATTEMPT_DELAY: SignedDuration = SignedDuration::from_secs(30);
/// Attempts from one client address within [`ATTEMPT_WINDOW`].
const ATTEMPTS_PER_ADDRESS: u32 = 30;
/// The window of [`ATTEMPTS_PER_ADDRESS`].
const ATTEMPT_WINDOW: Duration = Duration::from_secs(600);
/// The maximum number of user names whose failed attempts are counted.
const MAX_REMEMBERED_NAMES: usize = 10_000;
/// The minimum length of a password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// The maximum length of a password, in characters.
pub const MAX_PASSWORD_CHARS: usize = 256;

/// A random token of 256 bits, in base64url.
pub fn random_token() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Failure::new("can't create a secret", "the system provides no random bytes", ""))?;
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

/// Creates an invitation and returns the path of its link, `/welcome/TOKEN`.
///
/// # Errors
///
/// If the user name is not valid, or the store or the random number generator fails.
pub async fn invite(store: &Store, now: Timestamp, name: &str, role: Role) -> Result<String, Failure> {
    let is_valid = (1..=40).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    if !is_valid {
        return Err(Failure::finding(
            format!("{name:?} is not a valid user name"),
            "a user name has 1 to 40 letters, digits, dots, underscores or hyphens",
            "",
        ));
    }
    let token = random_token()?;
    store
        .put_invitation(&digest(&token), name, role.as_str(), now, later(now, INVITATION_LIFETIME))
        .await
        .map_err(|error| operations::store_failure(&error))?;
    Ok(format!("/welcome/{token}"))
}

impl Auth {
    pub fn new(store: Store, clock: Arc<dyn Clock>, config: &DashboardConfig) -> Result<Self, Failure> {
        let (scheme, host) = config.url.split_once("://").unwrap_or(("http", &config.url));
        let mut hosts = vec![host.split('/').next().unwrap_or_default().to_ascii_lowercase()];
        for at in config.listen.iter().filter_map(|at| at.tcp()) {
            hosts.push(at.to_string());
            hosts.push(format!("localhost:{}", at.port()));
        }
        Ok(Self {
            store,
            clock,
            hosts,
            is_https: scheme == "https",
            password_checks: Semaphore::new(2),
            failed: Mutex::new(HashMap::new()),
            attempts: RateLimiter::new(ATTEMPTS_PER_ADDRESS, ATTEMPT_WINDOW),
            dummy_hash: hash(&random_token()?)?,
        })
    }

    /// The user of the session in the request's cookie; `None` without a valid session.
    pub async fn visitor(&self, headers: &HeaderMap) -> Result<Option<Visitor>, ErrorPage> {
        let Some(token) = cookie(headers) else { return Ok(None) };
        let person = self.store.session_user(&digest(token), self.clock.now()).await?;
        Ok(person.map(|person| Visitor {
            name: person.name,
            role: Role::parse(&person.role),
            csrf_token: csrf_token(token),
        }))
    }

    /// Starts a session with a new token, regardless of any cookie that the browser sent, and redirects to `/`.
    pub async fn start_session(&self, name: &str) -> Answer {
        let token = random_token()?;
        let now = self.clock.now();
        self.store.put_session(&digest(&token), name, now, later(now, SESSION_LIFETIME)).await?;
        Ok((self.set_cookie(&token, SESSION_LIFETIME), Redirect::to("/")).into_response())
    }

    /// The header that sets the session cookie. An age of zero deletes it.
    pub fn set_cookie(&self, token: &str, age: SignedDuration) -> [(axum::http::HeaderName, String); 1] {
        let secure = if self.is_https { "; Secure" } else { "" };
        let age = age.as_secs();
        [(
            SET_COOKIE,
            format!("{COOKIE_NAME}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"),
        )]
    }

    /// True while attempts for this user name are delayed because of failures.
    pub fn is_throttled(&self, name: &str) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(name).is_some_and(|(tries, next)| *tries >= ATTEMPTS_PER_NAME && self.clock.now() < *next)
    }

    /// Counts a failed attempt. At the limit of names, expired entries are dropped first.
    pub fn count_failure(&self, name: &str) {
        let now = self.clock.now();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_REMEMBERED_NAMES {
            failed.retain(|_, (_, next)| now < *next);
        }
        if failed.len() < MAX_REMEMBERED_NAMES || failed.contains_key(name) {
            let (tries, next) = failed.entry(name.to_owned()).or_insert((0, now));
            *tries = tries.saturating_add(1);
            *next = later(now, ATTEMPT_DELAY);
        }
    }

    pub fn forget_failures(&self, name: &str) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// True if the password is correct. Unknown users take as long as known ones.
    pub async fn verify_password(
        &self,
        person: Option<&Person>,
        password: String,
    ) -> Result<bool, ErrorPage> {
        let stored_hash = person.map_or(self.dummy_hash.clone(), |person| person.password.clone());
        let busy = || ErrorPage::new(StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down.");
        let _place = self.password_checks.acquire().await.map_err(|_| busy())?;
        let right = tokio::task::spawn_blocking(move || verify(&stored_hash, &password)).await;
        Ok(right.map_err(|_| busy())? && person.is_some())
    }
}

/// Hashes a password with Argon2id, as a PHC string.
pub fn hash(password: &str) -> Result<String, Failure> {
    let fail = |error| Failure::new("can't hash the password", error, "");
    Ok(Argon2::default().hash_password(password.as_bytes()).map_err(fail)?.to_string())
}

fn verify(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// The session token in the request's cookies.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, token)| token)
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
