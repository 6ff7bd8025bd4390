//! Authentication. The first user is created through a one-time link, others by an invitation. Passwords are stored as
//! Argon2id strings, sessions as digests of a random token in a cookie. Each form carries a CSRF token derived from the
//! session.

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

/// Checks passwords, and keeps sessions and failed attempts.
pub struct Auth {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    /// The hosts that browsers may call us by.
    pub hosts: Vec<String>,
    is_https: bool,
    /// Passwords that are looked at at once: each takes memory and time.
    looking: Semaphore,
    /// Failed tries by name: how many, and since when the next one counts.
    failed: Mutex<HashMap<String, (u32, Timestamp)>>,
    /// Tries of each address, whatever name they are for.
    pub tries: RateLimiter,
    /// Compared with where there is nobody of a name, so that it takes as long.
    nobody: String,
}

const COOKIE_NAME: &str = "sternpost";
/// How long a sign-in holds.
const SESSION_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long an invitation holds.
const INVITATION_LIFETIME: SignedDuration = SignedDuration::from_hours(24);
/// Tries before one has to wait, and for how long.
const ATTEMPTS_PER_NAME: u32 = 5;
const ATTEMPT_DELAY: SignedDuration = SignedDuration::from_secs(30);
/// Tries of one address for any name, and in which time.
const ATTEMPTS_PER_ADDRESS: u32 = 30;
const ATTEMPT_WINDOW: Duration = Duration::from_secs(600);
/// Names whose failures are remembered.
const MAX_REMEMBERED_NAMES: usize = 10_000;
/// Of a password, in characters.
pub const MIN_PASSWORD_CHARS: usize = 12;
pub const MAX_PASSWORD_CHARS: usize = 256;

/// A random word of 256 bits.
pub fn random_word() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Failure::new("no secret can be made", "the system gives no random numbers", ""))?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

pub fn digest(word: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(word))
}

/// Derived from the sign-in, so that it needs no place of its own and ends with it.
fn csrf_token(sign_in: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(format!("form {sign_in}")))
}

/// Makes an invitation; the path of its link.
pub async fn invite(store: &Store, now: Timestamp, name: &str, role: Role) -> Result<String, Failure> {
    let well_formed = (1..=40).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c));
    if !well_formed {
        return Err(Failure::finding(
            format!("{name:?} is no name for a person"),
            "it is to have 1 to 40 letters, digits, dots, underscores and hyphens",
            "",
        ));
    }
    let word = random_word()?;
    store
        .put_invitation(&digest(&word), name, role.as_str(), now, later(now, INVITATION_LIFETIME))
        .await
        .map_err(|error| operations::store_failure(&error))?;
    Ok(format!("/welcome/{word}"))
}

impl Auth {
    pub fn new(store: Store, clock: Arc<dyn Clock>, config: &DashboardConfig) -> Result<Self, Failure> {
        let (scheme, host) = config.url.split_once("://").unwrap_or(("http", &config.url));
        let mut hosts = vec![host.split('/').next().unwrap_or_default().to_ascii_lowercase()];
        for at in &config.listen {
            hosts.push(at.to_string());
            hosts.push(format!("localhost:{}", at.port()));
        }
        Ok(Self {
            store,
            clock,
            hosts,
            is_https: scheme == "https",
            looking: Semaphore::new(2),
            failed: Mutex::new(HashMap::new()),
            tries: RateLimiter::new(ATTEMPTS_PER_ADDRESS, ATTEMPT_WINDOW),
            nobody: hash(&random_word()?)?,
        })
    }

    pub async fn visitor(&self, headers: &HeaderMap) -> Result<Option<Visitor>, ErrorPage> {
        let Some(word) = cookie(headers) else { return Ok(None) };
        let person = self.store.signed_in(&digest(word), self.clock.now()).await?;
        Ok(person.map(|person| Visitor {
            name: person.name,
            role: Role::parse(&person.role),
            csrf_token: csrf_token(word),
        }))
    }

    /// A new sign-in, under a new word whatever the browser had before.
    pub async fn let_in(&self, name: &str) -> Answer {
        let word = random_word()?;
        let now = self.clock.now();
        self.store.put_sign_in(&digest(&word), name, now, later(now, SESSION_LIFETIME)).await?;
        Ok((self.set_cookie(&word, SESSION_LIFETIME), Redirect::to("/")).into_response())
    }

    pub fn set_cookie(&self, word: &str, age: SignedDuration) -> [(axum::http::HeaderName, String); 1] {
        let secure = if self.is_https { "; Secure" } else { "" };
        let age = age.as_secs();
        [(SET_COOKIE, format!("{COOKIE_NAME}={word}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"))]
    }

    /// True while a name has failed too often.
    pub fn has_to_wait(&self, name: &str) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(name).is_some_and(|(tries, next)| *tries >= ATTEMPTS_PER_NAME && self.clock.now() < *next)
    }

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

    /// True when the password is that person's.
    pub async fn is_right(&self, person: Option<&Person>, password: String) -> Result<bool, ErrorPage> {
        let kept = person.map_or(self.nobody.clone(), |person| person.password.clone());
        let busy = || ErrorPage::new(StatusCode::SERVICE_UNAVAILABLE, "The program is ending.");
        let _place = self.looking.acquire().await.map_err(|_| busy())?;
        let right = tokio::task::spawn_blocking(move || verify(&kept, &password)).await;
        Ok(right.map_err(|_| busy())? && person.is_some())
    }
}

pub fn hash(password: &str) -> Result<String, Failure> {
    let fail = |error| Failure::new("the password can't be kept", error, "");
    Ok(Argon2::default().hash_password(password.as_bytes()).map_err(fail)?.to_string())
}

fn verify(kept: &str, password: &str) -> bool {
    PasswordHash::new(kept)
        .is_ok_and(|kept| Argon2::default().verify_password(password.as_bytes(), &kept).is_ok())
}

pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, word)| word)
}

/// Refuses a form that no page of this sign-in has made.
pub fn is_ours(visitor: &Visitor, word: &str) -> Result<(), ErrorPage> {
    // Digests are compared, so that the time says nothing about the word.
    if digest(word) == digest(&visitor.csrf_token) {
        return Ok(());
    }
    Err(ErrorPage::new(
        StatusCode::FORBIDDEN,
        "That form is out of date. Go back, load the page again, and repeat.",
    ))
}
