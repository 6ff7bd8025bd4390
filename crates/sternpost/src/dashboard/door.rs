//! Who may in. The first person comes by a one-time link, others by an invitation; passwords are kept as
//! Argon2id strings, sign-ins as digests of a random word in a cookie. Each form carries a word that only
//! a page of that sign-in has.

use super::Dashboard;
use super::asker::Asker;
use super::frame::{Answer, Frame, Trouble, html};
use crate::config::DashboardConfig;
use crate::failure::Failure;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, Query, Request, State};
use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use jiff::{SignedDuration, Timestamp};
use net::clock::{Clock, later};
use net::places::Rates;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::Store;
use store::people::Person;
use tokio::sync::Semaphore;

/// What somebody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Look.
    Reader,
    /// Look, and change.
    Operator,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
        }
    }

    /// What is not known may the least.
    fn parse(text: &str) -> Self {
        if text == "operator" { Self::Operator } else { Self::Reader }
    }
}

/// Somebody who has signed in.
#[derive(Debug, Clone)]
pub struct Visitor {
    pub name: String,
    pub role: Role,
    /// What their forms carry.
    pub form_word: String,
}

impl Visitor {
    pub fn is_operator(&self) -> bool {
        self.role == Role::Operator
    }
}

/// The door.
pub struct Door {
    store: Store,
    clock: Arc<dyn Clock>,
    /// The hosts that browsers may call us by.
    hosts: Vec<String>,
    is_https: bool,
    /// Passwords that are looked at at once: each takes memory and time.
    looking: Semaphore,
    /// Failed tries by name: how many, and since when the next one counts.
    failed: Mutex<HashMap<String, (u32, Timestamp)>>,
    /// Tries of each address, whatever name they are for.
    tries: Rates,
    /// Compared with where there is nobody of a name, so that it takes as long.
    nobody: String,
}

const COOKIE_NAME: &str = "sternpost";
/// How long a sign-in holds.
const SIGNED_IN: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long an invitation holds.
const INVITED: SignedDuration = SignedDuration::from_hours(24);
/// Tries before one has to wait, and for how long.
const TRIES: u32 = 5;
const WAIT: SignedDuration = SignedDuration::from_secs(30);
/// Tries of one address for any name, and in which time.
const TRIES_OF_ADDRESS: u32 = 30;
const MINUTES: Duration = Duration::from_secs(600);
/// Names whose failures are remembered.
const NAMES: usize = 10_000;
/// Of a password, in characters.
const SHORTEST: usize = 12;
const LONGEST: usize = 256;

/// A random word of 256 bits.
pub fn random_word() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| Failure::new("no secret can be made", "the system gives no random numbers", ""))?;
    Ok(BASE64URL_NOPAD.encode(&bytes))
}

fn digest(word: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(word))
}

/// Derived from the sign-in, so that it needs no place of its own and ends with it.
fn form_word(sign_in: &str) -> String {
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
        .put_invitation(&digest(&word), name, role.as_str(), now, later(now, INVITED))
        .await
        .map_err(|error| crate::rollout::store_failure(&error))?;
    Ok(format!("/welcome/{word}"))
}

impl Door {
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
            tries: Rates::new(TRIES_OF_ADDRESS, MINUTES),
            nobody: hash(&random_word()?)?,
        })
    }

    async fn visitor(&self, headers: &HeaderMap) -> Result<Option<Visitor>, Trouble> {
        let Some(word) = cookie(headers) else { return Ok(None) };
        let person = self.store.signed_in(&digest(word), self.clock.now()).await?;
        Ok(person.map(|person| Visitor {
            name: person.name,
            role: Role::parse(&person.role),
            form_word: form_word(word),
        }))
    }

    /// A new sign-in, under a new word whatever the browser had before.
    async fn let_in(&self, name: &str) -> Answer {
        let word = random_word()?;
        let now = self.clock.now();
        self.store.put_sign_in(&digest(&word), name, now, later(now, SIGNED_IN)).await?;
        Ok((self.set_cookie(&word, SIGNED_IN), Redirect::to("/")).into_response())
    }

    fn set_cookie(&self, word: &str, age: SignedDuration) -> [(axum::http::HeaderName, String); 1] {
        let secure = if self.is_https { "; Secure" } else { "" };
        let age = age.as_secs();
        [(SET_COOKIE, format!("{COOKIE_NAME}={word}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}"))]
    }

    /// True while a name has failed too often.
    fn has_to_wait(&self, name: &str) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(name).is_some_and(|(tries, next)| *tries >= TRIES && self.clock.now() < *next)
    }

    fn count_failure(&self, name: &str) {
        let now = self.clock.now();
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= NAMES {
            failed.retain(|_, (_, next)| now < *next);
        }
        if failed.len() < NAMES || failed.contains_key(name) {
            let (tries, next) = failed.entry(name.to_owned()).or_insert((0, now));
            *tries = tries.saturating_add(1);
            *next = later(now, WAIT);
        }
    }

    fn forget_failures(&self, name: &str) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// True when the password is that person's.
    async fn is_right(&self, person: Option<&Person>, password: String) -> Result<bool, Trouble> {
        let kept = person.map_or(self.nobody.clone(), |person| person.password.clone());
        let busy = || Trouble::new(StatusCode::SERVICE_UNAVAILABLE, "The program is ending.");
        let _place = self.looking.acquire().await.map_err(|_| busy())?;
        let right = tokio::task::spawn_blocking(move || verify(&kept, &password)).await;
        Ok(right.map_err(|_| busy())? && person.is_some())
    }
}

fn hash(password: &str) -> Result<String, Failure> {
    let fail = |error| Failure::new("the password can't be kept", error, "");
    Ok(Argon2::default().hash_password(password.as_bytes()).map_err(fail)?.to_string())
}

fn verify(kept: &str, password: &str) -> bool {
    PasswordHash::new(kept)
        .is_ok_and(|kept| Argon2::default().verify_password(password.as_bytes(), &kept).is_ok())
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, word)| word)
}

/// Sends everybody else to the door.
pub async fn only_known(State(dashboard): State<Arc<Dashboard>>, mut request: Request, next: Next) -> Answer {
    let Some(visitor) = dashboard.door.visitor(request.headers()).await? else {
        return Ok(match *request.method() {
            Method::GET | Method::HEAD => Redirect::to("/sign-in").into_response(),
            _ => Trouble::new(StatusCode::FORBIDDEN, "Sign in first.").into_response(),
        });
    };
    let only_looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !only_looks && !visitor.is_operator() && request.uri().path() != "/sign-out" {
        let what = "You may look, and not change anything. Ask an operator.";
        return Err(Trouble::new(StatusCode::FORBIDDEN, what));
    }
    request.extensions_mut().insert(visitor);
    Ok(next.run(request).await)
}

/// Refuses what a page of another site sends, and names that lead here without our knowledge.
pub async fn only_our_forms(State(dashboard): State<Arc<Dashboard>>, request: Request, next: Next) -> Answer {
    let text = |value: Option<&HeaderValue>| {
        value.and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase)
    };
    let host = text(request.headers().get(HOST)).unwrap_or_default();
    if !dashboard.door.hosts.contains(&host) {
        let what = format!(
            "This program does not answer by the name {host:?}. If that name is right, set\n[dashboard]\nurl = \"https://{host}\""
        );
        return Err(Trouble::new(StatusCode::MISDIRECTED_REQUEST, what));
    }
    let origin = text(request.headers().get(ORIGIN));
    let is_ours = origin.is_none_or(|origin| origin.split_once("://").is_some_and(|(_, from)| from == host));
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !is_ours {
        return Err(Trouble::new(StatusCode::FORBIDDEN, "That form came from another site."));
    }
    Ok(next.run(request).await)
}

/// Refuses a form that no page of this sign-in has made.
pub fn is_ours(visitor: &Visitor, word: &str) -> Result<(), Trouble> {
    // Digests are compared, so that the time says nothing about the word.
    if digest(word) == digest(&visitor.form_word) {
        return Ok(());
    }
    Err(Trouble::new(
        StatusCode::FORBIDDEN,
        "That form is out of date. Go back, load the page again, and repeat.",
    ))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    problem: &'static str,
}

#[derive(serde::Deserialize)]
pub struct SignIn {
    name: String,
    password: String,
}

pub async fn sign_in_page() -> Answer {
    html(&SignInPage { frame: Frame::outside("Sign in"), problem: "" })
}

pub async fn sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(asker): Extension<Asker>,
    Form(form): Form<SignIn>,
) -> Answer {
    let door = &dashboard.door;
    let refused = |status, problem| {
        let page = html(&SignInPage { frame: Frame::outside("Sign in"), problem })?;
        Ok((status, page).into_response())
    };
    if door.has_to_wait(&form.name) {
        return refused(StatusCode::TOO_MANY_REQUESTS, "Too many tries for that name. Wait half a minute.");
    }
    if asker.0.is_some_and(|from| !door.tries.take(from, Instant::now())) {
        return refused(StatusCode::TOO_MANY_REQUESTS, "Too many tries from your address. Wait a minute.");
    }
    let person = door.store.person(&form.name).await?;
    let password: String = form.password.chars().take(LONGEST).collect();
    if door.is_right(person.as_ref(), password).await? {
        door.forget_failures(&form.name);
        tracing::info!(name = form.name, "signed in");
        return door.let_in(&form.name).await;
    }
    door.count_failure(&form.name);
    tracing::warn!("a sign-in failed");
    refused(StatusCode::UNAUTHORIZED, "Name and password do not go together.")
}

pub async fn sign_out(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    headers: HeaderMap,
    Form(form): Form<super::act::Bare>,
) -> Answer {
    is_ours(&visitor, &form.word)?;
    if let Some(word) = cookie(&headers) {
        dashboard.door.store.sign_out(&digest(word)).await?;
    }
    let gone = dashboard.door.set_cookie("", SignedDuration::ZERO);
    Ok((gone, Redirect::to("/sign-in")).into_response())
}

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage {
    frame: Frame,
    name: String,
    role: &'static str,
    problem: &'static str,
    shortest: usize,
}

impl WelcomePage {
    fn new(name: String, role: Role, problem: &'static str) -> Self {
        Self { frame: Frame::outside("Welcome"), name, role: role.as_str(), problem, shortest: SHORTEST }
    }
}

#[derive(serde::Deserialize)]
pub struct Welcome {
    password: String,
    again: String,
}

async fn invited(door: &Door, word: &str) -> Result<(String, Role), Trouble> {
    let found = door.store.invitation(&digest(word), door.clock.now()).await?;
    let (name, role) = found.ok_or_else(|| {
        Trouble::not_found("That link was used already, or is older than a day. A new one is made by\nsternpost dashboard invite NAME")
    })?;
    Ok((name, Role::parse(&role)))
}

pub async fn welcome_page(State(dashboard): State<Arc<Dashboard>>, Path(word): Path<String>) -> Answer {
    let (name, role) = invited(&dashboard.door, &word).await?;
    html(&WelcomePage::new(name, role, ""))
}

pub async fn welcome(
    State(dashboard): State<Arc<Dashboard>>,
    Path(word): Path<String>,
    Form(form): Form<Welcome>,
) -> Answer {
    let door = &dashboard.door;
    let (name, role) = invited(door, &word).await?;
    let length = form.password.chars().count();
    let problem = match length {
        _ if form.password != form.again => "The two passwords differ.",
        0..SHORTEST => "The password is too short.",
        SHORTEST..=LONGEST => "",
        _ => "The password is too long.",
    };
    if !problem.is_empty() {
        let page = html(&WelcomePage::new(name, role, problem))?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let person = Person { name, role: role.as_str().to_owned(), password: hash(&form.password)? };
    if !door.store.accept(&digest(&word), &person, door.clock.now()).await? {
        return Err(Trouble::not_found("That link was used just now by another."));
    }
    tracing::info!(name = person.name, role = person.role, "may use the dashboard");
    door.let_in(&person.name).await
}

/// What a query of a page may ask for, whatever else it has.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Said {
    #[serde(default)]
    pub said: String,
}

/// A redirect that says what was done.
pub fn back(to: &str, said: &str) -> Response {
    let encoded: String = said.bytes().map(|byte| format!("%{byte:02X}")).collect();
    Redirect::to(&format!("{to}?said={encoded}")).into_response()
}

pub type SaidQuery = Query<Said>;
