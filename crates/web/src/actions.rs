//! Form handlers for operators: approve or hold a domain, excuse a cause of failures, retry and empty the quarantine,
//! delete a report, invite and remove users. The decisions about domains are those of the commands `promote`, `hold` and `excuse`. They are
//! recorded in the journal with the operator's name.

use crate::auth::verify_csrf;
use crate::invitations::{invite as create_invitation, problem_with_name};
use crate::layout::{Answer, ErrorPage, Frame, Section, html, redirect_with_notice};
use crate::other_pages::settings_page;
use crate::state::{Changing, Dashboard};
use crate::visitor::{CsrfForm, CurrentSession, Role, Visitor};
use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use formats::Mode;
use operations::mx_losses::{MxLosses, MxProber};
use operations::promotion::{allow, count_again, excuse_cause, hold_back};
use operations::report_removal::drop_reports;
use receiver::domain::DomainSpec;
use receiver::rollout::gate::Cause;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use store::reports::QuarantineSelection;

/// A form with a reason.
#[derive(Deserialize)]
pub struct Reason {
    word: String,
    #[serde(default)]
    reason: String,
}

/// The trimmed reason, which must have 1 to 500 characters.
fn required_reason(reason: &str) -> Result<&str, ErrorPage> {
    let reason = reason.trim();
    match reason.chars().count() {
        0 => Err(ErrorPage::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Enter a reason. It is recorded in the journal.",
        )),
        1..=500 => Ok(reason),
        _ => {
            Err(ErrorPage::new(StatusCode::UNPROCESSABLE_ENTITY, "The reason is longer than 500 characters."))
        }
    }
}

/// The first line of a message. The lines after it name commands, which the page shows anyway.
fn first_line(said: &str) -> &str {
    said.lines().next().unwrap_or_default()
}

/// Verifies the CSRF token, and returns the context for writing and the form's domain.
async fn open_domain<'d>(
    dashboard: &'d Dashboard,
    visitor: &Visitor,
    word: &str,
    name: &str,
) -> Result<(Changing<'d>, DomainSpec), ErrorPage> {
    verify_csrf(visitor, word)?;
    let context = dashboard.context_to_change().await?;
    let spec = context.find(&operations::world::domain(name)?)?;
    Ok((context, spec))
}

/// The approval of enforcement, with a reason if it is against the evidence.
#[derive(Deserialize)]
pub struct ApproveForm {
    word: String,
    #[serde(default)]
    reason: String,
    /// What the operator accepts ([`Risk::token`]); empty in the form of the domain's page.
    #[serde(default)]
    accepted: String,
}

/// The limit of the time for probing all MX hosts of a domain while a browser waits.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// The part of a token that accepts that no MX host could be reached.
const UNSEEN: &str = "unseen";

/// The mail that enforcement could cost now.
#[derive(Debug, PartialEq, Eq)]
enum Risk {
    /// The hosts that senders would not deliver to, with the reasons, and those that can't be reached from here.
    Hosts(MxLosses),
    /// Nothing is known: the probes took longer than [`PROBE_LIMIT`].
    Unknown,
}

impl Risk {
    /// The value that a form sends to accept the risk: the names of the hosts, separated by spaces, and `unseen` if no host
    /// could be reached; or `unknown`.
    fn token(&self) -> String {
        match self {
            Self::Hosts(found) => {
                let unseen = found.is_unseen().then_some(UNSEEN);
                let names = found.hosts.iter().map(|(host, _)| host.as_str());
                names.chain(unseen).collect::<Vec<_>>().join(" ")
            }
            Self::Unknown => "unknown".to_owned(),
        }
    }

    /// True if `accepted` contains every host that would lose mail, and that no host was reached or nothing is known.
    fn is_accepted(&self, accepted: &str) -> bool {
        let token = self.token();
        token
            .split(' ')
            .filter(|part| !part.is_empty())
            .all(|part| accepted.split(' ').any(|one| one == part))
    }
}

/// The page that asks for a second confirmation.
#[derive(Template)]
#[template(path = "losses.html")]
struct LossesPage {
    frame: Frame,
    name: String,
    reason: String,
    losses: MxLosses,
    is_unknown: bool,
    accepted: String,
}

/// Probes the MX hosts, as `promote --force` does. `None` for a domain that is not in testing, which `allow` refuses.
async fn risk(
    dashboard: &Dashboard,
    visitor: &Visitor,
    word: &str,
    name: &str,
) -> Result<Option<Risk>, ErrorPage> {
    verify_csrf(visitor, word)?;
    let (prober, rollout) = {
        let context = dashboard.context().await?;
        let spec = context.find(&operations::world::domain(name)?)?;
        (MxProber::new(&context, &spec)?, context.rollout(&spec.name).await?)
    };
    if rollout.mode.is_none_or(|known| known.mode != Mode::Testing) {
        return Ok(None);
    }
    Ok(Some(match tokio::time::timeout(PROBE_LIMIT, prober.losses(&rollout)).await {
        Ok(found) => Risk::Hosts(found?),
        Err(_) => Risk::Unknown,
    }))
}

/// Approves enforcement. Against the evidence, the MX hosts are probed first, and a host that would lose mail needs a second
/// form that accepts that.
pub async fn approve(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(form): Form<ApproveForm>,
) -> Answer {
    let reason = Some(form.reason.trim()).filter(|reason| !reason.is_empty());
    let mut unreached = String::new();
    if let Some(reason) = reason {
        required_reason(reason)?;
        let risk = risk(&dashboard, &visitor, &form.word, &name).await?;
        match risk {
            Some(risk) if !risk.is_accepted(&form.accepted) => {
                return losses_page(&visitor, &name, reason, risk);
            }
            Some(Risk::Hosts(found)) => {
                for host in found.unreached {
                    unreached +=
                        &format!("\n{host} can't be reached from here, so its certificate was not verified.");
                }
            }
            Some(Risk::Unknown) | None => {}
        }
    }
    let (mut context, spec) = open_domain(&dashboard, &visitor, &form.word, &name).await?;
    match allow(&mut context, &spec, &visitor.name, reason).await? {
        Ok(said) => Ok(redirect_with_notice(&format!("/domains/{}", spec.name), &(said + &unreached))),
        Err(refusal) => Err(ErrorPage::new(
            StatusCode::CONFLICT,
            format!("{} is not promoted: {}", spec.name, refusal.why),
        )),
    }
}

fn losses_page(visitor: &Visitor, name: &str, reason: &str, risk: Risk) -> Answer {
    let mut response = html(&LossesPage {
        frame: Frame::new(format!("{name} is not promoted"), Section::Domains, visitor),
        name: name.to_owned(),
        reason: reason.to_owned(),
        accepted: risk.token(),
        is_unknown: risk == Risk::Unknown,
        losses: match risk {
            Risk::Hosts(found) => found,
            Risk::Unknown => MxLosses::default(),
        },
    })?;
    *response.status_mut() = StatusCode::CONFLICT;
    Ok(response)
}

pub async fn hold(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    Form(form): Form<Reason>,
) -> Answer {
    let reason = required_reason(&form.reason)?;
    let (mut context, spec) = open_domain(&dashboard, &visitor, &form.word, &name).await?;
    let said = hold_back(&mut context, &spec, &visitor.name, reason).await?;
    Ok(redirect_with_notice(&format!("/domains/{}", spec.name), first_line(&said)))
}

/// A cause of failures to excuse, or to count again if `undo` is set.
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
    let (mut context, spec) = open_domain(&dashboard, &visitor, &form.word, &name).await?;
    let cause = Cause { result: form.result, host: form.host };
    let said = match form.undo.is_empty() {
        true => {
            excuse_cause(&mut context, &spec.name, cause, &visitor.name, required_reason(&form.reason)?)
                .await?
        }
        false => count_again(&mut context, &spec.name, &cause, &visitor.name).await?,
    };
    Ok(redirect_with_notice(&format!("/domains/{}", spec.name), &said))
}

pub async fn retry(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<CsrfForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let context = dashboard.context().await?;
    let retried = operations::inbox::retry(&context, false).await?;
    let (taken, left) = (retried.imported, retried.left.len());
    Ok(redirect_with_notice("/quarantine", &format!("{taken} imported, {left} still can't be parsed.")))
}

/// An entry of the quarantine to delete, or all of them if `all` is set.
#[derive(Deserialize)]
pub struct DropForm {
    word: String,
    id: Option<i64>,
    #[serde(default)]
    all: String,
}

pub async fn drop_quarantined(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Form(form): Form<DropForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    if form.id.is_none() && form.all.is_empty() {
        return Err(ErrorPage::new(StatusCode::UNPROCESSABLE_ENTITY, "The form names no entry."));
    }
    let context = dashboard.context().await?;
    let selection = QuarantineSelection { id: form.id, ..QuarantineSelection::default() };
    let mut deleted = 0;
    loop {
        match context.store.drop_quarantined(&selection).await? {
            0 => break,
            some => deleted += some,
        }
    }
    tracing::info!(by = visitor.name, deleted, "quarantined input deleted");
    Ok(redirect_with_notice("/quarantine", &format!("Deleted {deleted} entries.")))
}

/// Deletes a received report, and takes its numbers out of the sums.
pub async fn drop_report(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<i64>,
    Form(form): Form<CsrfForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let context = dashboard.context().await?;
    match drop_reports(&context, &[id], &visitor.name).await? {
        0 => Err(ErrorPage::not_found(format!("Report {id} does not exist."))),
        _ => {
            tracing::info!(by = visitor.name, id, "received report deleted");
            Ok(redirect_with_notice("/reports", &format!("Deleted report {id}, with its numbers.")))
        }
    }
}

/// A user to invite. Without a role, an existing user keeps theirs; a new one needs one.
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
    Extension(session): Extension<CurrentSession>,
    Form(form): Form<InviteForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let role = (!form.role.is_empty()).then(|| Role::parse(&form.role));
    let name = form.name.trim().to_owned();
    if let Some(why) = problem_with_name(&name) {
        let what = format!("{name:?} is not a valid user name: {why}. Choose another name.");
        return Err(ErrorPage::new(StatusCode::UNPROCESSABLE_ENTITY, what));
    }
    let store = &dashboard.auth.store;
    let is_new = store.person(session.tenant, &name).await?.is_none();
    if is_new && role.is_none() {
        let what = "Choose the role of the new user.";
        return Err(ErrorPage::new(StatusCode::UNPROCESSABLE_ENTITY, what));
    }
    if name == visitor.name && role.is_some_and(|role| role != visitor.role) {
        let what = "You can't change your own role, because there might be no operator left.";
        return Err(ErrorPage::new(StatusCode::CONFLICT, what));
    }
    let new = create_invitation(store, &dashboard.tenant, dashboard.auth.clock.now(), &name, role).await?;
    tracing::info!(by = visitor.name, name, role = new.role.as_str(), "invitation created");
    let link = format!("{}{}", dashboard.config.url, new.path);
    let notice = format!("{} {}", new.grants(Role::title), new.validity());
    settings_page(&dashboard, &visitor, &session, notice, Some(link)).await
}

/// The form that removes a user.
#[derive(Deserialize)]
pub struct RemoveForm {
    word: String,
    name: String,
}

pub async fn remove(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Extension(session): Extension<CurrentSession>,
    Form(form): Form<RemoveForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    if form.name == visitor.name {
        let what = "You can't remove your own account, because no user might be left who can sign in. On the machine that runs Sternpost:\nsternpost dashboard remove NAME";
        return Err(ErrorPage::new(StatusCode::CONFLICT, what));
    }
    let removed = dashboard.auth.store.remove_person(session.tenant, &form.name).await?;
    let said = match (removed.person, removed.invitation) {
        (true, _) => {
            tracing::info!(by = visitor.name, name = form.name, "user removed from the dashboard");
            format!("Removed {}, who can no longer sign in.", form.name)
        }
        (false, true) => {
            tracing::info!(by = visitor.name, name = form.name, "invitation ended");
            format!("The invitation for {} has ended.", form.name)
        }
        (false, false) => format!("There is no user {}.", form.name),
    };
    Ok(redirect_with_notice("/settings", &said))
}

/// Ends an invitation that was not used yet.
pub async fn end_invitation(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(visitor): Extension<Visitor>,
    Extension(session): Extension<CurrentSession>,
    Form(form): Form<RemoveForm>,
) -> Answer {
    verify_csrf(&visitor, &form.word)?;
    let said = match dashboard.auth.store.end_invitation(session.tenant, &form.name).await? {
        true => {
            tracing::info!(by = visitor.name, name = form.name, "invitation ended");
            format!("The invitation for {} has ended.", form.name)
        }
        false => format!("There is no invitation for {} any more.", form.name),
    };
    Ok(redirect_with_notice("/settings", &said))
}

#[cfg(test)]
mod tests;
