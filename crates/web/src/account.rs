//! The page where signed-in users, readers too, manage how they sign in: change the password, set up or remove a second
//! factor, and list and end their sessions. Changes of credentials require the current password, so that a session that
//! was left open is not enough.

use crate::auth::{Auth, verify_csrf};
use crate::client_addr::ClientAddr;
use crate::known_browser::Credentials;
use crate::layout::{Answer, ErrorPage, Frame, NoticeQuery, Section, html, redirect_with_notice};
use crate::one_time_codes::{grouped, new_recovery_codes, new_secret, recovery_digest, time_step, uri};
use crate::passwords::{Busy, MIN_PASSWORD_CHARS, Requester, problem_with};
use crate::sign_in::{CodeCheck, PasswordCheck, check_code, check_password, not_checked};
use crate::sign_in_limits::Account;
use crate::state::Dashboard;
use crate::text;
use crate::visitor::{CurrentSession, Visitor};
use askama::Template;
use axum::Extension;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use jiff::SignedDuration;
use net::clock::later;
use serde::Deserialize;
use std::sync::Arc;
use store::people::Person;
use store::second_factors::Proposal;
use store::sessions::Session;

/// A session as the page shows it.
struct SessionRow {
    /// The first characters of the digest of its token.
    id: String,
    begun: String,
    ends: String,
    address: String,
    /// The browser and its system, as far as they are known.
    browser: String,
    /// The text of the `User-Agent` header.
    agent: String,
    is_current: bool,
}

/// The second factor as the page shows it.
enum SecondFactorView {
    Off,
    /// A secret to confirm: in groups for typing, and as a URI for apps.
    Proposed {
        secret: String,
        uri: String,
    },
    /// On, with the number of recovery codes that are left.
    On {
        left: u64,
    },
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    frame: Frame,
    name: String,
    role: &'static str,
    shortest: usize,
    second: SecondFactorView,
    /// New recovery codes, which are shown once.
    codes: Vec<String>,
    sessions: Vec<SessionRow>,
}

/// How long a proposed second factor can be confirmed.
const PROPOSAL_LIFETIME: SignedDuration = SignedDuration::from_mins(15);
/// The number of characters of a digest that identify a session among those of its user.
const SESSION_ID_CHARS: usize = 16;

/// What every handler of this page needs of the request.
type SignedIn = (Extension<Visitor>, Extension<CurrentSession>);

pub async fn page(
    State(dashboard): State<Arc<Dashboard>>,
    (Extension(visitor), Extension(session)): SignedIn,
    Query(notice): NoticeQuery,
) -> Answer {
    show(&dashboard, &visitor, &session, notice.said, Vec::new()).await
}

async fn show(
    dashboard: &Dashboard,
    visitor: &Visitor,
    session: &CurrentSession,
    notice: String,
    codes: Vec<String>,
) -> Answer {
    let auth = &dashboard.auth;
    let (tenant, name) = (session.tenant, visitor.name.as_str());
    let is_on = auth.store.second_factor(tenant, name).await?.is_some();
    let proposed = proposed(auth, session, name).await?;
    let second = match (is_on, proposed) {
        (true, _) => SecondFactorView::On { left: auth.store.recovery_codes_left(tenant, name).await? },
        (false, Some(secret)) => {
            SecondFactorView::Proposed { uri: uri(auth.host(), name, &secret), secret: grouped(&secret, " ") }
        }
        (false, None) => SecondFactorView::Off,
    };
    let sessions = auth.store.sessions_of(tenant, name, auth.clock.now()).await?;
    let mut frame = Frame::new("Your account", Section::Account, visitor);
    frame.notice = notice;
    html(&AccountPage {
        frame,
        name: name.to_owned(),
        role: visitor.role.as_str(),
        shortest: MIN_PASSWORD_CHARS,
        second,
        codes,
        sessions: sessions.into_iter().map(|one| row(one, session)).collect(),
    })
}

/// The secret that this session has proposed as the second factor of its user.
async fn proposed(auth: &Auth, session: &CurrentSession, name: &str) -> Result<Option<String>, ErrorPage> {
    let now = auth.clock.now();
    Ok(auth.store.proposed_second_factor(session.tenant, name, &session.digest, now).await?)
}

/// The response, which marks the browser of the user as known under the new password or second factor.
async fn still_known(
    auth: &Auth,
    session: &CurrentSession,
    person: &Person,
    second_factor: Option<&str>,
    response: Response,
) -> Answer {
    let (tenant, name, password) = (session.tenant, person.name.as_str(), person.password.as_str());
    let cookie = auth.known_browser(&Credentials { tenant, name, password, second_factor }).await?;
    Ok((AppendHeaders([cookie]), response).into_response())
}

fn row(one: Session, current: &CurrentSession) -> SessionRow {
    let time = |at: jiff::Timestamp| text::minute(&at);
    SessionRow {
        is_current: one.digest == current.digest,
        id: session_id(&one.digest).to_owned(),
        begun: if one.begun_at == jiff::Timestamp::UNIX_EPOCH {
            "unknown".into()
        } else {
            time(one.begun_at)
        },
        ends: time(one.expires_at),
        address: one.address,
        browser: browser_and_system(&one.browser),
        agent: one.browser,
    }
}

/// The browser and the system that a User-Agent header names, such as `Firefox on Linux`. Most browsers also name those that
/// they are compatible with, so the order matters.
fn browser_and_system(agent: &str) -> String {
    let first = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
    };
    let browser = first(&[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ]);
    let system = first(&[
        ("Android", "Android"),
        ("iPhone", "iOS"),
        ("iPad", "iPadOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "unknown".to_owned(),
    }
}

fn session_id(digest: &str) -> &str {
    digest.get(..SESSION_ID_CHARS).unwrap_or(digest)
}

/// Checks the present password of the user within the limits. The response says why it is not accepted.
async fn present_user(
    auth: &Auth,
    visitor: &Visitor,
    session: &CurrentSession,
    password: String,
    client: ClientAddr,
    headers: &HeaderMap,
) -> Result<Result<Person, Response>, ErrorPage> {
    match check_password(auth, session.tenant, &visitor.name, password, client, headers).await? {
        PasswordCheck::Right(person) => Ok(Ok(person)),
        PasswordCheck::Wrong => Err(wrong("The current password is wrong.")),
        PasswordCheck::Refused(wait) => Ok(Err(not_checked(Some(wait)))),
        PasswordCheck::Busy => Ok(Err(not_checked(None))),
    }
}

fn wrong(what: &str) -> ErrorPage {
    ErrorPage::new(StatusCode::UNPROCESSABLE_ENTITY, what)
}

#[derive(Deserialize)]
pub struct PasswordForm {
    word: String,
    current: String,
    password: String,
    again: String,
}

/// Changes the password, and ends all other sessions and an unused invitation.
pub async fn change_password(
    State(dashboard): State<Arc<Dashboard>>,
    (Extension(visitor), Extension(session)): SignedIn,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    Form(form): Form<PasswordForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let auth = &dashboard.auth;
    let problem = problem_with(&form.password, &form.again);
    if !problem.is_empty() {
        return Err(wrong(problem));
    }
    let person = match present_user(auth, &visitor, &session, form.current, client, &headers).await? {
        Ok(person) => person,
        Err(response) => return Ok(response),
    };
    let by = Requester::Known(Account::new(session.tenant, &person.name), client.0);
    let new = match auth.passwords.hash(by, form.password).await {
        Ok(hash) => hash?,
        Err(Busy) => return Ok(not_checked(None)),
    };
    let kept = &session.digest;
    if !auth.store.change_password(session.tenant, &person.name, &person.password, &new, kept).await? {
        return Err(ErrorPage::new(StatusCode::CONFLICT, "The password was changed meanwhile."));
    }
    tracing::info!(name = person.name, "password changed");
    let second_factor = auth.store.second_factor(session.tenant, &person.name).await?;
    let done = redirect_with_notice("/account", "The password is changed. All other sessions have ended.");
    let person = Person { password: new, ..person };
    still_known(auth, &session, &person, second_factor.as_deref(), done).await
}

#[derive(Deserialize)]
pub struct EndForm {
    word: String,
    /// The session to end; all others if it is empty.
    #[serde(default)]
    id: String,
}

/// Ends one session of the user, or all but this one.
pub async fn end_sessions(
    State(dashboard): State<Arc<Dashboard>>,
    (Extension(visitor), Extension(session)): SignedIn,
    Form(form): Form<EndForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let auth = &dashboard.auth;
    let tenant = session.tenant;
    if form.id.is_empty() {
        let ended = auth.store.end_other_sessions(tenant, &visitor.name, &session.digest).await?;
        return Ok(redirect_with_notice(
            "/account",
            &format!("Ended {}.", text::counted(ended, "other session")),
        ));
    }
    let own = auth.store.sessions_of(tenant, &visitor.name, auth.clock.now()).await?;
    let Some(found) = own.iter().find(|one| session_id(&one.digest) == form.id) else {
        return Err(ErrorPage::not_found("This session has already ended."));
    };
    if found.digest == session.digest {
        return auth.sign_out(&session).await;
    }
    auth.store.sign_out(&found.digest).await?;
    Ok(redirect_with_notice("/account", "The session has ended."))
}

#[derive(Deserialize)]
pub struct BeginForm {
    word: String,
    current: String,
}

/// Proposes a new secret, which the page then shows to this session until it is confirmed or has ended.
pub async fn begin_second_factor(
    State(dashboard): State<Arc<Dashboard>>,
    (Extension(visitor), Extension(session)): SignedIn,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    Form(form): Form<BeginForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let auth = &dashboard.auth;
    let person = match present_user(auth, &visitor, &session, form.current, client, &headers).await? {
        Ok(person) => person,
        Err(response) => return Ok(response),
    };
    let secret = new_secret()?;
    let proposal = Proposal { secret: &secret, session: &session.digest };
    let end = later(auth.clock.now(), PROPOSAL_LIFETIME);
    if !auth.store.propose_second_factor(session.tenant, &person.name, proposal, end).await? {
        return Err(ErrorPage::new(StatusCode::CONFLICT, "A second factor is set up already."));
    }
    Ok(redirect_with_notice("/account", "Add the key to your app, then enter a code."))
}

#[derive(Deserialize)]
pub struct ConfirmForm {
    word: String,
    current: String,
    code: String,
}

/// Activates the proposed secret, once the present password and a code show that the user has the device with it, and shows
/// the recovery codes. Other sessions, which began without a code, end.
pub async fn confirm_second_factor(
    State(dashboard): State<Arc<Dashboard>>,
    (Extension(visitor), Extension(session)): SignedIn,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    Form(form): Form<ConfirmForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let auth = &dashboard.auth;
    let (tenant, name) = (session.tenant, visitor.name.as_str());
    let Some(secret) = proposed(auth, &session, name).await? else {
        let what = "No second factor waits for a code. Set it up within 15 minutes, in one session.";
        return Err(ErrorPage::new(StatusCode::CONFLICT, what));
    };
    let person = match present_user(auth, &visitor, &session, form.current, client, &headers).await? {
        Ok(person) => person,
        Err(response) => return Ok(response),
    };
    let now = auth.clock.now();
    let Some(step) = time_step(&secret, &form.code, now) else {
        return Err(wrong("The code is wrong. Check the time of your device, and go back to try again."));
    };
    let codes = new_recovery_codes()?;
    let digests: Vec<String> = codes.iter().map(|code| recovery_digest(tenant, name, code)).collect();
    let proposal = Proposal { secret: &secret, session: &session.digest };
    if !auth.store.activate_second_factor(tenant, name, proposal, now, step, &digests).await? {
        return Err(ErrorPage::new(StatusCode::CONFLICT, "The second factor was changed meanwhile."));
    }
    tracing::info!(name, "second factor set up");
    let notice =
        "The second factor is set up, and all other sessions have ended. Keep the recovery codes in a safe place.".to_owned();
    let page = show(&dashboard, &visitor, &session, notice, codes).await?;
    still_known(auth, &session, &person, Some(&secret), page).await
}

#[derive(Deserialize)]
pub struct CodeForm {
    word: String,
    code: String,
}

/// Replaces the recovery codes, after a code, and shows the new ones.
pub async fn renew_recovery_codes(
    State(dashboard): State<Arc<Dashboard>>,
    (Extension(visitor), Extension(session)): SignedIn,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    Form(form): Form<CodeForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let auth = &dashboard.auth;
    let (tenant, name) = (session.tenant, visitor.name.as_str());
    if let Some(response) = code_refused(auth, &visitor, &session, &form.code, client, &headers).await? {
        return Ok(response);
    }
    let codes = new_recovery_codes()?;
    let digests: Vec<String> = codes.iter().map(|code| recovery_digest(tenant, name, code)).collect();
    auth.store.put_recovery_codes(tenant, name, &digests).await?;
    tracing::info!(name, "recovery codes replaced");
    show(&dashboard, &visitor, &session, "The earlier recovery codes are void.".to_owned(), codes).await
}

/// Checks a code of the active second factor. The response states why a code was not checked.
async fn code_refused(
    auth: &Auth,
    visitor: &Visitor,
    session: &CurrentSession,
    code: &str,
    client: ClientAddr,
    headers: &HeaderMap,
) -> Result<Option<Response>, ErrorPage> {
    let Some(person) = auth.store.person(session.tenant, &visitor.name).await? else {
        return Err(ErrorPage::new(StatusCode::FORBIDDEN, "Sign in first."));
    };
    match check_code(auth, session.tenant, &person, code, client, headers).await? {
        CodeCheck::Right(..) => Ok(None),
        CodeCheck::Wrong => Err(wrong("The code is wrong, or was used before.")),
        CodeCheck::Refused(wait) => Ok(Some(not_checked(Some(wait)))),
    }
}

#[derive(Deserialize)]
pub struct RemoveForm {
    word: String,
    current: String,
    /// A code; a proposed second factor needs none.
    #[serde(default)]
    code: String,
}

/// Removes the second factor, after the password and a code, or cancels one that is only proposed.
pub async fn remove_second_factor(
    State(dashboard): State<Arc<Dashboard>>,
    (Extension(visitor), Extension(session)): SignedIn,
    Extension(client): Extension<ClientAddr>,
    headers: HeaderMap,
    Form(form): Form<RemoveForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let auth = &dashboard.auth;
    let (tenant, name) = (session.tenant, visitor.name.as_str());
    if auth.store.second_factor(tenant, name).await?.is_none() {
        return match auth.store.cancel_second_factor(tenant, name).await? {
            true => Ok(redirect_with_notice("/account", "The second factor is not set up.")),
            false => Err(ErrorPage::new(StatusCode::CONFLICT, "The second factor was changed meanwhile.")),
        };
    }
    let person = match present_user(auth, &visitor, &session, form.current, client, &headers).await? {
        Ok(person) => person,
        Err(response) => return Ok(response),
    };
    if let Some(response) = code_refused(auth, &visitor, &session, &form.code, client, &headers).await? {
        return Ok(response);
    }
    auth.store.remove_second_factor(tenant, name).await?;
    tracing::info!(name, "second factor removed");
    let done = redirect_with_notice("/account", "The second factor is removed.");
    still_known(auth, &session, &person, None, done).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_named_by_what_people_call_it() {
        for (agent, expected) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36",
                "Chrome on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Mobile/15E148 Safari/604.1",
                "Safari on iOS",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 15.1; rv:149.0) Gecko/20100101 Firefox/149.0",
                "Firefox on macOS",
            ),
            ("curl/8.14.1", "curl"),
            ("", "unknown"),
        ] {
            assert_eq!(browser_and_system(agent), expected, "{agent}");
        }
    }
}
