//! The page behind the link of an invitation, where a user sets a password (`invitations`).

use crate::auth::{Method, Verified, digest};
use crate::client_addr::ClientAddr;
use crate::layout::{Answer, ErrorPage, Frame, html};
use crate::passwords::{Busy, MIN_PASSWORD_CHARS, Requester, problem_with};
use crate::sign_in::{not_checked, sign_in_with_code};
use crate::sign_in_limits::Account;
use crate::state::Dashboard;
use crate::visitor::Role;
use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use std::sync::Arc;
use store::people::{Invitation, Person};

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
    fn new(invitation: &Invitation, problem: &'static str) -> Self {
        Self {
            frame: Frame::outside("Welcome"),
            name: invitation.name.clone(),
            role: Role::parse(&invitation.role).as_str(),
            problem,
            shortest: MIN_PASSWORD_CHARS,
        }
    }
}

#[derive(serde::Deserialize)]
pub struct WelcomeForm {
    password: String,
    again: String,
}

/// The invitation of a link that can still be used.
async fn invitation(dashboard: &Dashboard, token: &str) -> Result<Invitation, ErrorPage> {
    let auth = &dashboard.auth;
    let found = auth.store.invitation(&digest(token), auth.clock.now()).await?;
    found.filter(|one| one.tenant == dashboard.tenant.tenant).ok_or_else(|| {
        ErrorPage::not_found("The link has already been used, a newer link has replaced it, or it has expired. Create a new one with\nsternpost dashboard invite NAME")
    })
}

pub async fn welcome_page(State(dashboard): State<Arc<Dashboard>>, Path(token): Path<String>) -> Answer {
    let invitation = invitation(&dashboard, &token).await?;
    html(&WelcomePage::new(&invitation, ""))
}

/// Sets the password and signs the user in; a user with a second factor has to enter a code first.
pub async fn welcome(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(client): Extension<ClientAddr>,
    Path(token): Path<String>,
    headers: HeaderMap,
    Form(form): Form<WelcomeForm>,
) -> Answer {
    let auth = &dashboard.auth;
    let invitation = invitation(&dashboard, &token).await?;
    let problem = problem_with(&form.password, &form.again);
    if !problem.is_empty() {
        let page = html(&WelcomePage::new(&invitation, problem))?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let account = Account::new(invitation.tenant, &invitation.name);
    let password = match auth.passwords.hash(Requester::Known(account, client.0), form.password).await {
        Ok(hash) => hash?,
        Err(Busy) => return Ok(not_checked(None)),
    };
    let Invitation { tenant, name, role, .. } = invitation;
    let person = Person { name, role, password };
    if !auth.store.accept(&digest(&token), tenant, &person, auth.clock.now()).await? {
        return Err(ErrorPage::not_found("This link has already been used."));
    }
    tracing::info!(name = person.name, role = person.role, "invitation accepted");
    if auth.store.second_factor(tenant, &person.name).await?.is_some() {
        return sign_in_with_code();
    }
    let user = Verified { tenant, person: &person, method: Method::Invitation, second_factor: None };
    auth.sign_in(user, client, &headers).await
}
