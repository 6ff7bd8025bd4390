//! Requests about the rollout of a domain: its status and plan, and the operator's decisions. The decisions are those of the
//! commands `promote`, `hold` and `excuse` and of the dashboard's forms ([`operations::promotion`]).

use super::problem::{Problem, ProblemType};
use super::{Api, Caller, domain, json_answer, parse_body, reason};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use config::failure::Failure;
use formats::DomainName;
use jiff::Timestamp;
use operations::RolloutContext;
use operations::domain_plan::plan_of;
use operations::domain_status::status_of;
use operations::promotion::{
    AcceptedLosses, accept_losses, allow, check_cause, count_again, excuse_cause, hold_back, losses_by_force,
};
use receiver::rollout::decisions::Decisions;
use receiver::rollout::gate::Cause;
use receiver::rollout::guard::{Alert, groups};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The longest time for a plan, which queries the name servers of the domain.
const PLAN_TIME: Duration = Duration::from_secs(120);
/// The longest time for probing the MX hosts of a domain.
const PROBE_TIME: Duration = Duration::from_secs(60);

pub async fn status(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (context, spec) = api.find(&caller, &domain(&name)?).await?;
    let status = status_of(&context, &spec).await?;
    let active = context.store.alerts::<Alert>().await?;
    let of_domain = active.into_iter().filter(|one| one.domain == spec.name.as_str());
    let alerts = groups(of_domain.map(|one| (one.domain, one.since, one.alert)));
    with_members(&status, &[("alerts", json!(alerts))])
}

pub async fn plan(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let (context, spec) = api.find(&caller, &domain(&name)?).await?;
    let _place = api.work.take(caller.tenant, "plans")?;
    let unreached = context.unreached().await?;
    let planned = plan_of(&context, &spec, unreached.get(spec.name.as_str()));
    let plan = timeout(PLAN_TIME, planned).await.map_err(|_| too_slow(&spec.name, PLAN_TIME))??;
    with_members(&plan, &[])
}

/// A value as an answer, with these members beside its own.
fn with_members(value: &impl serde::Serialize, more: &[(&str, Value)]) -> Result<Response, Problem> {
    let mut body = serde_json::to_value(value)
        .map_err(|error| Problem::new(ProblemType::Unavailable, "there is no answer", error, ""))?;
    if let Some(members) = body.as_object_mut() {
        members.insert("schema".to_owned(), 1.into());
        members.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    Ok(json_answer(StatusCode::OK, &body))
}

fn too_slow(name: &DomainName, limit: Duration) -> Problem {
    let why = format!("its servers did not answer within {} seconds", limit.as_secs());
    Problem::new(ProblemType::Unavailable, format!("{name} can't be observed"), why, "Try again later.")
}

/// What a decision changes.
#[derive(PartialEq)]
struct Decided {
    approved: Option<Timestamp>,
    is_held: bool,
    decisions: Decisions,
}

impl Decided {
    async fn of(context: &RolloutContext, name: &DomainName) -> Result<Self, Failure> {
        let rollout = context.rollout(name).await?;
        let decisions = context.decisions(name);
        Ok(Self { approved: rollout.approved, is_held: rollout.is_held, decisions })
    }
}

/// The answer to a decision: what was said, and whether it changed anything.
async fn decided(
    context: &RolloutContext,
    name: &DomainName,
    before: &Decided,
    said: &str,
) -> Result<Response, Problem> {
    let changed = Decided::of(context, name).await? != *before;
    Ok(json_answer(StatusCode::OK, &json!({ "schema": 1, "changed": changed, "said": said })))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Promotion {
    force: bool,
    reason: Option<String>,
    although_mail_is_lost: bool,
    although_no_host_was_seen: bool,
}

pub async fn promote(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let wanted: Promotion =
        parse_body(&body, r#"{"force":true,"reason":"all MX hosts were tested by hand"}"#)?;
    let given = wanted.reason.as_deref().map(reason).transpose()?;
    if wanted.force && given.is_none() {
        return Err(Problem::new(
            ProblemType::SettingsNotValid,
            "the reason is missing",
            "the journal records why a decision was made against the evidence",
            "Say why in the member \"reason\".",
        ));
    }
    let (mut context, spec) = api.find(&caller, &domain(&name)?).await?;
    let given = given.filter(|_| wanted.force);
    let mut unreached = String::new();
    if given.is_some() {
        let _place = api.work.take(caller.tenant, "probes")?;
        let probed = timeout(PROBE_TIME, losses_by_force(&context, &spec)).await;
        if let Some(found) = probed.map_err(|_| too_slow(&spec.name, PROBE_TIME))?? {
            let accepted = AcceptedLosses {
                mail_is_lost: wanted.although_mail_is_lost,
                no_host_was_seen: wanted.although_no_host_was_seen,
            };
            accept_losses(&spec.name, &found, accepted)?;
            for host in &found.unreached {
                unreached +=
                    &format!("\n{host} can't be reached from here, so its certificate was not verified.");
            }
        }
    }
    let before = Decided::of(&context, &spec.name).await?;
    match allow(&mut context, &spec, &caller.who, given).await? {
        Ok(said) => decided(&context, &spec.name, &before, &(said + &unreached)).await,
        Err(refusal) => {
            let what = format!("{} is not promoted", spec.name);
            Err(Problem::new(ProblemType::Refused, what, refusal.why, refusal.remedy))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    reason: String,
}

pub async fn hold(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let wanted: Hold = parse_body(&body, r#"{"reason":"new MX hosts next week"}"#)?;
    let (mut context, spec) = api.find(&caller, &domain(&name)?).await?;
    let before = Decided::of(&context, &spec.name).await?;
    let said = hold_back(&mut context, &spec, &caller.who, reason(&wanted.reason)?).await?;
    decided(&context, &spec.name, &before, &said).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Excuse {
    result: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    undo: bool,
}

pub async fn excuse(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let example = r#"{"result":"certificate-expired","host":"mx1.example.org","reason":"renewed"}"#;
    let wanted: Excuse = parse_body(&body, example)?;
    let (mut context, spec) = api.find(&caller, &domain(&name)?).await?;
    let before = Decided::of(&context, &spec.name).await?;
    let cause = Cause { result: wanted.result, host: wanted.host };
    let said = match wanted.undo {
        true => count_again(&mut context, &spec.name, &cause, &caller.who).await?,
        false => {
            let reason = reason(&wanted.reason)?;
            check_cause(&context, &spec.name, &cause).await?;
            excuse_cause(&mut context, &spec.name, cause, &caller.who, reason).await?
        }
    };
    decided(&context, &spec.name, &before, &said).await
}
