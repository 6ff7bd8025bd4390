//! The operator's decisions about the rollout of a domain: allow enforcement, hold the domain in testing, excuse a
//! cause of failures, leave out a name server that is down. The commands `promote`, `hold`, `excuse` and `omit` and the
//! dashboard's forms call these functions.
//! Each decision is stored, and recorded in the domain's journal with its author and reason.

use crate::rollout_context::{Hold, RolloutContext, store_failure};
use config::failure::Failure;
use formats::{DomainName, Mode};
use receiver::domain::DomainSpec;
use receiver::rollout::RolloutState;
use receiver::rollout::decisions::Decision;
use receiver::rollout::gate::{Cause, Gate};

/// The author recorded for decisions made by command.
pub const OPERATOR: &str = "operator";

/// Why a decision was refused.
pub struct Refusal {
    /// The reason for the refusal.
    pub why: String,
    /// What to do, with commands to paste.
    pub remedy: String,
}

/// Allows enforcement of a domain if the evidence is sufficient or a reason is given. Returns a message for the
/// operator.
pub async fn allow(
    context: &mut RolloutContext,
    spec: &DomainSpec,
    who: &str,
    reason: Option<&str>,
) -> Result<Result<String, Refusal>, Failure> {
    let name = &spec.name;
    // A blank reason is none.
    let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
    let rollout = context.rollout(name).await?;
    if let Some(refusal) = not_yet(spec, &rollout) {
        return Ok(Err(refusal));
    }
    if !rollout.is_held && rollout.mode.is_some_and(|known| known.mode == Mode::Enforce) {
        return Ok(Ok(format!("{name} is enforced already.")));
    }
    let (evidence, gate) = context.gate(name, &rollout).await?;
    let what = match (&gate, reason) {
        (Gate::Ready, _) => "enforcement allowed; the evidence is ready".to_owned(),
        // The evidence needs a decision, and this is it.
        (Gate::Ask(reasons), _) => {
            let reason = reason.map(|reason| format!(". Reason: {reason}")).unwrap_or_default();
            format!("enforcement allowed, although {}{reason}", reasons.join("; "))
        }
        (_, Some(reason)) => {
            format!("enforcement allowed against the evidence ({gate}). Reason: {reason}")
        }
        (_, None) => {
            return Ok(Err(Refusal {
                why: match evidence.left_out() {
                    none if none.is_empty() => {
                        format!("the evidence is not sufficient: {}", gate.reasons().join("; "))
                    }
                    some => format!(
                        "the evidence is not sufficient: {}. Not counted: {}",
                        gate.reasons().join("; "),
                        some.join("; ")
                    ),
                },
                remedy: format!(
                    "Wait for reports (with [guard], probes of the MX hosts are evidence too), or accept the risk that senders which can't verify your MX hosts don't deliver:\n  sternpost promote {name} --force --reason \"…\""
                ),
            }));
        }
    };
    if !context.approve(name, &rollout, who, &what, Hold::End).await? {
        return Ok(Err(Refusal {
            why: "the MX hosts of the policy in testing have changed while the evidence was judged"
                .to_owned(),
            remedy: format!("See what is in testing now, and decide again:\n  sternpost status {name}"),
        }));
    }
    let mut decisions = context.decisions(name);
    if decisions.held.take().is_some() {
        context.decide(name, decisions, who, "no longer held").await?;
    }
    Ok(Ok(format!("Enforcement of {name} is allowed. Carry it out:\n  sternpost apply {name}")))
}

fn not_yet(spec: &DomainSpec, rollout: &RolloutState) -> Option<Refusal> {
    if spec.mode != Mode::Enforce {
        return Some(Refusal {
            why: format!("its configured mode is {}", spec.mode),
            remedy: "Set mode = \"enforce\" in its [[domain]].".to_owned(),
        });
    }
    match rollout.mode.map(|known| known.mode) {
        Some(Mode::Testing | Mode::Enforce) => None,
        Some(Mode::None) | None => Some(Refusal {
            why: "its policy has not been observed in testing yet".to_owned(),
            remedy: format!("First run\n  sternpost apply {}", spec.name),
        }),
    }
}

/// Holds a domain in testing, or returns it to testing. Returns a message for the operator.
pub async fn hold_back(
    context: &mut RolloutContext,
    spec: &DomainSpec,
    who: &str,
    reason: &str,
) -> Result<String, Failure> {
    let name = &spec.name;
    let rollout = context.rollout(name).await?;
    // First of all: from now on, no process begins a step that enforces.
    context.store.change_rollout(name, RolloutState::hold).await.map_err(|error| store_failure(&error))?;
    let mut decisions = context.decisions(name);
    let at = context.world.clock.now();
    decisions.held = Some(Decision { reason: reason.to_owned(), who: who.to_owned(), at });
    context.decide(name, decisions, who, &format!("held in testing. Reason: {reason}")).await?;
    Ok(match rollout.mode.map(|known| known.mode) {
        Some(Mode::Enforce) => format!(
            "{name} returns to testing. Carry it out:\n  sternpost apply {name}\nSenders that cached the enforced policy fetch the new one when they see its id. Until then they keep the old one:\n`sternpost status {name}` shows for how long at most."
        ),
        _ => format!("{name} stays in testing, until\n  sternpost promote {name}"),
    })
}

/// Excuses a cause of failures. Returns a message for the operator.
pub async fn excuse_cause(
    context: &mut RolloutContext,
    name: &DomainName,
    cause: Cause,
    who: &str,
    reason: &str,
) -> Result<String, Failure> {
    let mut decisions = context.decisions(name);
    let what = format!("{cause} does not count. Reason: {reason}");
    let decision = Decision { reason: reason.to_owned(), who: who.to_owned(), at: context.world.clock.now() };
    decisions.excuse(cause.clone(), decision);
    context.decide(name, decisions, who, &what).await?;
    Ok(format!("{cause} does not count for {name} from now on."))
}

/// Leaves out a name server or an address of the policy host: changes do not wait until it shows them. Returns a message for
/// the operator.
pub async fn omit_endpoint(
    context: &mut RolloutContext,
    name: &DomainName,
    endpoint: &str,
    who: &str,
    reason: &str,
) -> Result<String, Failure> {
    let mut decisions = context.decisions(name);
    let at = context.world.clock.now();
    let decision = Decision { reason: reason.to_owned(), who: who.to_owned(), at };
    decisions.omit(endpoint.to_owned(), decision);
    let what = format!("changes do not wait for {endpoint}. Reason: {reason}");
    context.decide(name, decisions, who, &what).await?;
    Ok(format!(
        "Changes of {name} do not wait for {endpoint} any more. What it shows while it answers still counts.\nOnce it is mended:\n  sternpost omit --undo {name} {endpoint}"
    ))
}

/// Ends the omission of an endpoint. Returns a message for the operator.
pub async fn wait_again(
    context: &mut RolloutContext,
    name: &DomainName,
    endpoint: &str,
    who: &str,
) -> Result<String, Failure> {
    let mut decisions = context.decisions(name);
    if !decisions.wait_again(endpoint) {
        return Ok(format!("{endpoint} was not left out for {name}."));
    }
    context.decide(name, decisions, who, &format!("changes wait for {endpoint} again")).await?;
    Ok(format!("Changes of {name} wait for {endpoint} again."))
}

/// Removes the excuse for a cause. Returns a message for the operator.
pub async fn count_again(
    context: &mut RolloutContext,
    name: &DomainName,
    cause: &Cause,
    who: &str,
) -> Result<String, Failure> {
    let mut decisions = context.decisions(name);
    if !decisions.count_again(cause) {
        return Ok(format!("{cause} was not excused for {name}."));
    }
    context.decide(name, decisions, who, &format!("{cause} counts again")).await?;
    Ok(format!("{cause} counts again for {name}."))
}
