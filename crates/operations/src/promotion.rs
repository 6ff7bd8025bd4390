//! The operator's decisions about the rollout of a domain: allow enforcement, hold the domain in testing, excuse a
//! cause of failures, leave out a name server that is down. The commands `promote`, `hold`, `excuse` and `omit` and the
//! dashboard's forms call these functions.
//! Each decision is stored, and recorded in the domain's journal with its author and reason.

use crate::mx_losses::{MxLosses, mx_losses};
use crate::rollout_context::{Hold, RolloutContext, store_failure};
use config::failure::Failure;
use formats::{DomainName, Mode, ResultType};
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

/// The mail that an operator accepts to lose when enforcement is allowed against the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AcceptedLosses {
    /// That of MX hosts which fail the probe.
    pub mail_is_lost: bool,
    /// Nothing is known, since no MX host can be reached from here.
    pub no_host_was_seen: bool,
}

/// Probes the MX hosts of a domain that is to be enforced against the evidence; `None` if it is not in testing, so that nothing
/// would change.
///
/// # Errors
///
/// If DNS or the store fails.
pub async fn losses_by_force(
    context: &RolloutContext,
    spec: &DomainSpec,
) -> Result<Option<MxLosses>, Failure> {
    let rollout = context.rollout(&spec.name).await?;
    match rollout.mode.is_some_and(|known| known.mode == Mode::Testing) {
        true => mx_losses(context, spec, &rollout).await.map(Some),
        false => Ok(None),
    }
}

/// Fails if enforcement would lose mail that the operator has not accepted to lose.
///
/// # Errors
///
/// If MX hosts fail the probe, or if none could be reached, and that is not accepted.
pub fn accept_losses(domain: &DomainName, found: &MxLosses, accepted: AcceptedLosses) -> Result<(), Failure> {
    if !found.hosts.is_empty() && !accepted.mail_is_lost {
        return Err(refused_for_losses(domain, found));
    }
    if found.is_unseen() && !accepted.no_host_was_seen {
        return Err(refused_unseen(domain));
    }
    Ok(())
}

fn refused_for_losses(domain: &DomainName, found: &MxLosses) -> Failure {
    let hosts: Vec<&str> = found.hosts.iter().map(|(host, _)| host.as_str()).collect();
    Failure::finding(
        format!("{domain} is not promoted"),
        format!("senders would not deliver to {}", hosts.join(" and ")),
        format!(
            "Mend these hosts first: sternpost check {domain}\nTo enforce the policy nevertheless, add --although-mail-is-lost (over HTTP: \"although_mail_is_lost\": true)."
        ),
    )
}

fn refused_unseen(domain: &DomainName) -> Failure {
    Failure::finding(
        format!("{domain} is not promoted"),
        "no MX host can be reached from here, so it is unknown whether senders could deliver to any of them",
        format!(
            "If outgoing port 25 is blocked on this machine, as in most clouds, have the provider open it, and run the command again.\nOr verify the hosts from a machine where it is open: sternpost check {domain}\nIf you have done that, add --although-no-host-was-seen (over HTTP: \"although_no_host_was_seen\": true)."
        ),
    )
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

/// Fails for a cause that no report about the domain names: a typing error would otherwise excuse nothing.
///
/// # Errors
///
/// If no report names the cause, or if the store fails.
pub async fn check_cause(context: &RolloutContext, name: &DomainName, cause: &Cause) -> Result<(), Failure> {
    let known = ResultType::registered().any(|kind| kind.as_str() == cause.result);
    let reported = reported_causes(context, name).await?;
    if !reported.contains(cause) {
        let listed: Vec<String> =
            reported.iter().map(|cause| format!("{} {}", cause.result, cause.host)).collect();
        let what = if known { "no report names it" } else { "unknown result type, and no report names it" };
        let mut remedy = match listed.is_empty() {
            true => "The reports contain no failures.".to_owned(),
            false => format!("The reports contain:\n  {}", listed.join("\n  ")),
        };
        if !known {
            let types: Vec<String> = ResultType::registered().map(|kind| kind.to_string()).collect();
            let near = config::nearest(&cause.result, types.iter().map(String::as_str));
            let near = near.map(|near| format!("Did you mean {near}? ")).unwrap_or_default();
            remedy = format!("{near}The result types are {}.\n{remedy}", types.join(", "));
        }
        return Err(Failure::finding(format!("{cause} can't be excused"), what, remedy));
    }
    Ok(())
}

async fn reported_causes(context: &RolloutContext, name: &DomainName) -> Result<Vec<Cause>, Failure> {
    let rollout = context.rollout(name).await?;
    let (evidence, _) = context.gate(name, &rollout).await?;
    Ok(evidence.failures.into_iter().chain(evidence.excused).map(|(cause, _)| cause).collect())
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
