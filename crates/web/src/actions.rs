//! What an operator does by a form. Each is the same as the command of that name, and stands in the
//! journal under the operator's name.

use crate::auth::{invite as make_invitation, is_ours};
use crate::layout::back;
use crate::layout::{Answer, ErrorPage};
use crate::other_pages::settings_page;
use crate::state::Dashboard;
use crate::visitor::{CsrfForm, Role, Visitor};
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use operations::RolloutContext;
use operations::promotion::{allow, count_again, excuse_cause, hold_back};
use receiver::domain::DomainSpec;
use receiver::rollout::gate::Cause;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::RwLockWriteGuard;

/// A form with a reason.
#[derive(Deserialize)]
pub struct Reason {
    word: String,
    #[serde(default)]
    reason: String,
}

/// A reason that is worth keeping.
fn needed(reason: &str) -> Result<&str, ErrorPage> {
    let reason = reason.trim();
    match reason.chars().count() {
        0 => Err(ErrorPage::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Say why; the reason is kept in the journal.",
        )),
        1..=500 => Ok(reason),
        _ => Err(ErrorPage::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "That reason is longer than 500 characters.",
        )),
    }
}

/// First line only: the page itself says what comes next.
fn first_line(said: &str) -> &str {
    said.lines().next().unwrap_or_default()
}

/// The context and the domain that a form of ours is about.
async fn to_change<'d>(
    dashboard: &'d Dashboard,
    visitor: &Visitor,
    word: &str,
    name: &str,
) -> Result<(RwLockWriteGuard<'d, RolloutContext>, DomainSpec), ErrorPage> {
    is_ours(visitor, word)?;
    let context = dashboard.context_to_change().await?;
    let spec = context.find(&operations::world::domain(name)?)?;
    Ok((context, spec))
}

pub async fn approve(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(form): Form<Reason>,
) -> Answer {
    let (mut context, spec) = to_change(&dashboard, &visitor, &form.word, &name).await?;
    let reason = Some(form.reason.trim()).filter(|reason| !reason.is_empty());
    match allow(&mut context, &spec, &visitor.name, reason).await? {
        Ok(said) => Ok(back(&format!("/domains/{}", spec.name), &said)),
        Err(refusal) => Err(ErrorPage::new(
            StatusCode::CONFLICT,
            format!("{} is not promoted: {}", spec.name, refusal.why),
        )),
    }
}

pub async fn hold(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(form): Form<Reason>,
) -> Answer {
    let reason = needed(&form.reason)?;
    let (mut context, spec) = to_change(&dashboard, &visitor, &form.word, &name).await?;
    let said = hold_back(&mut context, &spec, &visitor.name, reason).await?;
    Ok(back(&format!("/domains/{}", spec.name), first_line(&said)))
}

/// A cause to excuse, or to count again.
#[derive(Deserialize)]
pub struct ExcuseForm {
    word: String,
    result: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    undo: String,
}

pub async fn excuse(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(form): Form<ExcuseForm>,
) -> Answer {
    let (mut context, spec) = to_change(&dashboard, &visitor, &form.word, &name).await?;
    let cause = Cause { result: form.result, host: form.host };
    let said = match form.undo.is_empty() {
        true => excuse_cause(&mut context, &spec.name, cause, &visitor.name, needed(&form.reason)?).await?,
        false => count_again(&mut context, &spec.name, &cause, &visitor.name).await?,
    };
    Ok(back(&format!("/domains/{}", spec.name), &said))
}

pub async fn retry(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<CsrfForm>,
) -> Answer {
    is_ours(&visitor, &form.word)?;
    let context = dashboard.context().await?;
    let (taken, left) = operations::inbox::retry(&context).await?;
    Ok(back("/quarantine", &format!("{taken} taken in, {left} still can't be read.")))
}

/// Somebody to invite.
#[derive(Deserialize)]
pub struct InviteForm {
    word: String,
    name: String,
    #[serde(default)]
    role: String,
}

pub async fn invite(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<InviteForm>,
) -> Answer {
    is_ours(&visitor, &form.word)?;
    let role = if form.role == "operator" { Role::Operator } else { Role::Reader };
    let name = form.name.trim().to_owned();
    let path = {
        let context = dashboard.context().await?;
        make_invitation(&context.store, context.world.clock.now(), &name, role).await?
    };
    tracing::info!(by = visitor.name, name, role = role.as_str(), "an invitation was made");
    let link = format!("{}{path}", dashboard.config.url);
    settings_page(&dashboard, &visitor, format!("{name} is invited."), Some(link)).await
}

/// Somebody to take away.
#[derive(Deserialize)]
pub struct RemoveForm {
    word: String,
    name: String,
}

pub async fn remove(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<RemoveForm>,
) -> Answer {
    is_ours(&visitor, &form.word)?;
    if form.name == visitor.name {
        let what = "You can't take yourself away: nobody might be left to sign in. On the machine:\nsternpost dashboard remove NAME";
        return Err(ErrorPage::new(StatusCode::CONFLICT, what));
    }
    let said = match dashboard.context().await?.store.remove_person(&form.name).await? {
        true => format!("{} can't sign in any more.", form.name),
        false => format!("There was nobody called {}.", form.name),
    };
    tracing::info!(by = visitor.name, name = form.name, "was taken away from the dashboard");
    Ok(back("/settings", &said))
}
