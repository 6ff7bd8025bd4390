//! The pages for sign-in and sign-out, and the middlewares of the dashboard. [`require_sign_in`] guards its pages,
//! [`require_operator`] its changes, and [`require_same_origin`] rejects requests from other sites.
//!
//! Signing in has a second step for users with a second factor. In between, the browser holds a signed proof of the right
//! password, which is valid for minutes and until the password changes.

use crate::auth::{Auth, Method, Verified, digest, verify_csrf};
use crate::client_addr::ClientAddr;
use crate::counts::{Address, SafeName, WebCounts};
use crate::layout::{Answer, ErrorPage, Frame, html};
use crate::notices;
use crate::one_time_codes::{is_recovery_code, recovery_digest, time_step};
use crate::passwords::{Busy, Requester};
use crate::sign_in_limits::{Account, Attempt, CodeKind};
use crate::state::Dashboard;
use crate::visitor::{CsrfForm, CurrentSession, Visitor};
use askama::Template;
use axum::Extension;
use axum::extract::{Form, Request, State};
use axum::http::header::{HOST, ORIGIN, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use data_encoding::BASE64URL_NOPAD;
use jiff::{SignedDuration, Timestamp};
use net::clock::later;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::Tenant;
use store::people::Person;

/// Redirects unauthenticated requests to the sign-in page, and so those of a user of another tenant than the path's.
pub async fn require_sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(tenant): Extension<Tenant>,
    mut request: Request,
    next: Next,
) -> Answer {
    let found = dashboard.auth.visitor(request.headers()).await?;
    let Some((visitor, session)) = found.filter(|(_, session)| session.tenant == tenant) else {
        return Ok(match is_read(request.method()) {
            true => Redirect::to("/sign-in").into_response(),
            false => ErrorPage::new(StatusCode::FORBIDDEN, "Sign in first.").into_response(),
        });
    };
    let signer = dashboard.auth.signer().await?;
    if let Some(uri) = notices::without_forged(signer, &session, request.uri()) {
        *request.uri_mut() = uri;
    }
    request.extensions_mut().insert(visitor);
    request.extensions_mut().insert(session.clone());
    Ok(notices::sign(signer, &session, next.run(request).await))
}

/// True for a method that changes nothing.
pub fn is_read(method: &HttpMethod) -> bool {
    matches!(*method, HttpMethod::GET | HttpMethod::HEAD)
}

/// Rejects changes by readers, and users of another tenant than the one whose domains and reports this dashboard shows. It
/// runs after [`require_sign_in`].
pub async fn require_operator(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(session): Extension<CurrentSession>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
    next: Next,
) -> Answer {
    if session.tenant != dashboard.tenant.tenant {
        return Err(ErrorPage::new(StatusCode::NOT_FOUND, "This dashboard has no domains of your tenant."));
    }
    if !is_read(request.method()) && !visitor.is_operator() {
        let what = "Your account is read-only. Ask an operator to make this change.";
        return Err(ErrorPage::new(StatusCode::FORBIDDEN, what));
    }
    Ok(next.run(request).await)
}

/// Rejects form submissions from other sites (CSRF) and unknown host names (DNS rebinding).
pub async fn require_same_origin(
    State(dashboard): State<Arc<Dashboard>>,
    request: Request,
    next: Next,
) -> Answer {
    let (auth, headers) = (&dashboard.auth, request.headers());
    if headers.get_all(HOST).iter().count() > 1 {
        return Err(ErrorPage::new(
            StatusCode::BAD_REQUEST,
            "The request has two host names (RFC 9112 §3.2).",
        ));
    }
    let host = text(headers, &HOST).unwrap_or_default();
    if !auth.has_host(&host) {
        let what = format!(
            "The host name {host:?} is not configured for this dashboard. If it is correct, set\n[dashboard]\nurl = \"https://{host}\""
        );
        return Err(ErrorPage::new(StatusCode::MISDIRECTED_REQUEST, what));
    }
    if !is_read(request.method()) && !is_from_own_page(auth, headers, &host) {
        let what = "The form was sent from another site, or dashboard.url is not the address that the browser shows.";
        return Err(ErrorPage::new(StatusCode::FORBIDDEN, what));
    }
    Ok(next.run(request).await)
}

/// A header in lower case.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_ascii_lowercase)
}

/// False if the headers that browsers add say that a form is from a page of another site. Programs need not send them.
fn is_from_own_page(auth: &Auth, headers: &HeaderMap, host: &str) -> bool {
    let is_own_origin = match headers.get(ORIGIN) {
        Some(_) => text(headers, &ORIGIN).is_some_and(|origin| auth.is_own_origin(&origin, host)),
        None => true,
    };
    let site = text(headers, &HeaderName::from_static("sec-fetch-site"));
    is_own_origin && site.is_none_or(|site| matches!(site.as_str(), "same-origin" | "none"))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    problem: String,
    /// Set in the second step: proves that the password was right.
    proof: Option<String>,
}

/// The sign-in page with a status and a problem. `wait` is the time after which it is worth trying again.
fn page(status: StatusCode, problem: &str, proof: Option<String>, wait: Option<Duration>) -> Answer {
    let frame = Frame::outside("Sign in");
    let mut response = html(&SignInPage { frame, problem: problem.to_owned(), proof })?;
    *response.status_mut() = status;
    if let Some(wait) = wait {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
    }
    Ok(response)
}

/// The seconds of a wait, rounded up.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The page of an attempt that is refused before it is judged.
fn refused(wait: Duration, proof: Option<String>) -> Answer {
    let problem = format!("Too many failed attempts. Try again in {}.", in_words(wait));
    page(StatusCode::TOO_MANY_REQUESTS, &problem, proof, Some(wait))
}

fn in_words(wait: Duration) -> String {
    match seconds(wait) {
        0..=1 => "a second".to_owned(),
        seconds @ 2..=120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds.div_ceil(60)),
    }
}

/// The time after which a busy server may have a free place.
const BUSY_WAIT: Duration = Duration::from_secs(5);

fn busy(proof: Option<String>) -> Answer {
    let problem = "The server is busy with other sign-ins. Try again in some seconds.";
    page(StatusCode::SERVICE_UNAVAILABLE, problem, proof, Some(BUSY_WAIT))
}

/// The sign-in page after a password was set, for users with a second factor.
pub fn sign_in_with_code() -> Answer {
    page(StatusCode::OK, "The password is set. Sign in with it and with a code.", None, None)
}

pub async fn sign_in_page() -> Answer {
    page(StatusCode::OK, "", None, None)
}

#[derive(serde::Deserialize)]
pub struct SignInForm {
    name: String,
    password: String,
}

/// The outcome of checking a password.
pub enum PasswordCheck {
    Right(Person),
    Wrong,
    /// Too many attempts failed; the time to wait.
    Refused(Duration),
    Busy,
}

/// Checks a password within the limits. The attempt counts before its hash is computed.
pub async fn check_password(
    auth: &Auth,
    tenant: Tenant,
    name: &str,
    password: String,
    client: ClientAddr,
    headers: &HeaderMap,
) -> Result<PasswordCheck, ErrorPage> {
    let person = auth.store.person(tenant, name).await?;
    let source = auth.source(tenant, person.as_ref(), client, headers).await?;
    let attempt = match auth.begin_password(tenant, name, source) {
        Ok(attempt) => attempt,
        Err(wait) => {
            auth.log_delay(name, client);
            return Ok(PasswordCheck::Refused(wait));
        }
    };
    let now = || auth.clock.elapsed();
    let by = requester(&attempt, Account::new(tenant, name), client);
    let stored = person.as_ref().map(|person| person.password.as_str());
    match (auth.passwords.verify(by, stored, password).await, person) {
        (Ok(true), Some(person)) => {
            auth.limits.succeeded(attempt, now());
            Ok(PasswordCheck::Right(person))
        }
        (Ok(_), _) => {
            log_failure(name, client.0);
            Ok(PasswordCheck::Wrong)
        }
        (Err(Busy), _) => {
            auth.limits.undo(attempt, now());
            Ok(PasswordCheck::Busy)
        }
    }
}

fn requester(attempt: &Attempt, account: Account, client: ClientAddr) -> Requester {
    match attempt.is_from_known_browser {
        true => Requester::Known(account, client.0),
        false => Requester::Stranger(client.0),
    }
}

/// Logs a failed sign-in. fail2ban reads this line, so that its form stays (docs/monitoring.md), and nothing that a stranger
/// sends may look like another line or field.
fn log_failure(name: &str, address: Option<IpAddr>) {
    WebCounts::shared().sign_ins.inc(&["failed"]);
    tracing::warn!(name = %SafeName(name), address = %Address(address), "sign-in failed");
}

pub async fn sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(tenant): Extension<Tenant>,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    Form(form): Form<SignInForm>,
) -> Answer {
    let auth = &dashboard.auth;
    let person = match check_password(auth, tenant, &form.name, form.password, client, &headers).await? {
        PasswordCheck::Right(person) => person,
        PasswordCheck::Wrong => return page(StatusCode::UNAUTHORIZED, "Wrong name or password.", None, None),
        PasswordCheck::Refused(wait) => return refused(wait, None),
        PasswordCheck::Busy => return busy(None),
    };
    if auth.store.second_factor(tenant, &person.name).await?.is_some() {
        let proof = Proof::issue(auth, tenant, &person).await?;
        return page(StatusCode::OK, "", Some(proof), None);
    }
    let user = Verified { tenant, person: &person, method: Method::Password, second_factor: None };
    auth.sign_in(user, client, &headers).await
}

/// The signed proof of the right password: the end of its validity, the user name in base64, and the signature.
struct Proof;

/// The purpose that the signature is bound to.
const PROOF_PURPOSE: &str = "password";
/// How long a proof is valid.
const PROOF_LIFETIME: SignedDuration = SignedDuration::from_mins(5);

impl Proof {
    async fn issue(auth: &Auth, tenant: Tenant, person: &Person) -> Result<String, ErrorPage> {
        let end = later(auth.clock.now(), PROOF_LIFETIME).as_second().to_string();
        let signature = auth
            .signer()
            .await?
            .sign(PROOF_PURPOSE, &Self::parts(tenant, person, &end).each_ref().map(String::as_str));
        Ok(format!("{end}.{}.{signature}", BASE64URL_NOPAD.encode(person.name.as_bytes())))
    }

    /// A new password has another hash, so that proofs of the old one end.
    fn parts(tenant: Tenant, person: &Person, end: &str) -> [String; 4] {
        [tenant.to_string(), person.name.clone(), digest(&person.password), end.to_owned()]
    }

    /// The user whose password was right; `None` if the proof is not valid or has ended.
    async fn user(auth: &Auth, tenant: Tenant, proof: &str) -> Result<Option<Person>, ErrorPage> {
        let mut parts = proof.splitn(3, '.');
        let (Some(end), Some(name), Some(signature)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(None);
        };
        let name = BASE64URL_NOPAD.decode(name.as_bytes()).ok().and_then(|name| String::from_utf8(name).ok());
        let is_current = end
            .parse()
            .ok()
            .and_then(|end| Timestamp::from_second(end).ok())
            .is_some_and(|end| auth.clock.now() < end);
        let Some(name) = name.filter(|_| is_current) else { return Ok(None) };
        let Some(person) = auth.store.person(tenant, &name).await? else { return Ok(None) };
        let parts = Self::parts(tenant, &person, end);
        let is_signed =
            auth.signer().await?.is_signed(PROOF_PURPOSE, &parts.each_ref().map(String::as_str), signature);
        Ok(Some(person).filter(|_| is_signed))
    }
}

#[derive(serde::Deserialize)]
pub struct CodeForm {
    proof: String,
    code: String,
}

/// The second step of signing in.
pub async fn sign_in_code(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(tenant): Extension<Tenant>,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    Form(form): Form<CodeForm>,
) -> Answer {
    let auth = &dashboard.auth;
    let Some(person) = Proof::user(auth, tenant, &form.proof).await? else {
        let problem = "The sign-in took too long. Enter name and password again.";
        return page(StatusCode::UNAUTHORIZED, problem, None, None);
    };
    match check_code(auth, tenant, &person, &form.code, client, &headers).await? {
        CodeCheck::Right(method, secret) => {
            let user = Verified { tenant, person: &person, method, second_factor: Some(secret) };
            auth.sign_in(user, client, &headers).await
        }
        CodeCheck::Wrong => {
            page(StatusCode::UNAUTHORIZED, "The code is wrong, or was used before.", Some(form.proof), None)
        }
        CodeCheck::Refused(wait) => refused(wait, Some(form.proof)),
    }
}

/// The outcome of checking a code.
pub enum CodeCheck {
    /// The code was right; with the secret of the second factor.
    Right(Method, String),
    Wrong,
    /// Too many attempts failed; the time to wait.
    Refused(Duration),
}

/// Checks a code or a recovery code within the limits, and uses it up.
pub async fn check_code(
    auth: &Auth,
    tenant: Tenant,
    person: &Person,
    typed: &str,
    client: ClientAddr,
    headers: &HeaderMap,
) -> Result<CodeCheck, ErrorPage> {
    let name = person.name.as_str();
    let source = auth.source(tenant, Some(person), client, headers).await?;
    let kind = if is_recovery_code(typed) { CodeKind::Recovery } else { CodeKind::App };
    let attempt = match auth.begin_code(tenant, name, kind, source) {
        Ok(attempt) => attempt,
        Err(wait) => {
            auth.log_delay(name, client);
            return Ok(CodeCheck::Refused(wait));
        }
    };
    match used_code(auth, tenant, name, typed).await {
        Ok(Some((method, secret))) => {
            auth.limits.succeeded(attempt, auth.clock.elapsed());
            Ok(CodeCheck::Right(method, secret))
        }
        Ok(None) => {
            log_failure(name, client.0);
            Ok(CodeCheck::Wrong)
        }
        Err(error) => {
            auth.limits.undo(attempt, auth.clock.elapsed());
            Err(error)
        }
    }
}

/// Uses a code up: how it was right, and the secret of the second factor. `None` if it is wrong or was used before.
async fn used_code(
    auth: &Auth,
    tenant: Tenant,
    name: &str,
    typed: &str,
) -> Result<Option<(Method, String)>, ErrorPage> {
    let Some(secret) = auth.store.second_factor(tenant, name).await? else { return Ok(None) };
    if let Some(step) = time_step(&secret, typed, auth.clock.now()) {
        let is_first = auth.store.use_time_step(tenant, name, step).await?;
        return Ok(is_first.then_some((Method::PasswordAndCode, secret)));
    }
    if !is_recovery_code(typed) {
        return Ok(None);
    }
    let is_recovery =
        auth.store.use_recovery_code(tenant, name, &recovery_digest(tenant, name, typed)).await?;
    if is_recovery {
        tracing::warn!(name, "a recovery code was used");
    }
    Ok(is_recovery.then_some((Method::PasswordAndRecoveryCode, secret)))
}

pub async fn sign_out(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Extension(session): Extension<CurrentSession>,
    Form(form): Form<CsrfForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    dashboard.auth.sign_out(&session).await
}

/// The page of a form inside the dashboard whose password or code was refused or not judged.
pub fn not_checked(wait: Option<Duration>) -> Response {
    let (status, what, wait) = match wait {
        Some(wait) => {
            let what = format!("Too many failed attempts. Try again in {}.", in_words(wait));
            (StatusCode::TOO_MANY_REQUESTS, what, wait)
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The server is busy. Try again in some seconds.".into(),
            BUSY_WAIT,
        ),
    };
    ([(RETRY_AFTER, seconds(wait).to_string())], ErrorPage::new(status, what)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        for (wait, said, header) in
            [(0.2, "a second", 1), (29.5, "30 seconds", 30), (600.0, "10 minutes", 600)]
        {
            let wait = Duration::from_secs_f64(wait);
            assert_eq!((in_words(wait).as_str(), seconds(wait)), (said, header));
        }
    }
}
